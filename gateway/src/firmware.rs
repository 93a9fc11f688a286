//! Firmware updates: opened at the start, and one thread that works them off.
//!
//! Steps for devices come out of a queue; what takes them from there tells each outcome by
//! [`Updates::on_outcome`]. Without an LwM2M server no device is registered: updates then wait for
//! their devices until their deadlines.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use firmware_update::{ImageLimits, Settings, StepOrder, StepOutcome, Updates, Urls};
use tracing::error;

use crate::config::Config;
use crate::house;

/// How soon time is looked at again, and a stop is noticed.
const INTERVAL: Duration = Duration::from_millis(500);

/// Steps that wait for whoever speaks to devices. Never more than devices under way, and the few
/// that are said to each when its update ends.
pub(crate) type Orders = Receiver<StepOrder>;

/// Opens images and jobs for listeners at these addresses.
pub(crate) fn open(
    config: &Config,
    coap: &[SocketAddr],
    coaps: &[SocketAddr],
) -> anyhow::Result<(Updates, Orders)> {
    // Creates the data folder.
    house::state_file(config)?;
    let bytes_max = config.firmware.image_bytes_max as u64;
    let defaults = ImageLimits::default();
    let loaded_bytes_max = defaults.loaded_bytes_max.max(bytes_max);
    let settings = Settings {
        folder: config.data.dir.clone(),
        images: ImageLimits { bytes_max, loaded_bytes_max, ..defaults },
        urls: Urls { coap: config.coap_url(coap), coaps: config.coaps_url(coaps) },
    };
    let (sender, orders) = channel();
    let dispatch = Arc::new(move |order| {
        // Nobody takes steps any more while the program ends.
        let _ = sender.send(order);
    });
    let now = SystemTime::now().into();
    let updates = Updates::open(settings, dispatch, now).context("firmware cannot be opened")?;
    Ok((updates, orders))
}

/// The thread that works updates off.
pub(crate) struct FirmwareThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl FirmwareThread {
    /// Starts it.
    pub(crate) fn spawn(updates: Updates, orders: Orders) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("firmware".to_owned());
        let thread = thread.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                updates.wait(INTERVAL);
                updates.tick(SystemTime::now().into());
                for order in orders.try_iter() {
                    updates.on_outcome(order.serial, StepOutcome::NotRegistered);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            error!("the thread of firmware updates had panicked");
        }
    }
}
