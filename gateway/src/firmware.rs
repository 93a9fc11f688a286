//! Firmware updates: opened at the start, and one thread that works them off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use coap::wire::ContentFormat;
use device_integrator::OrderEnd;
use firmware_update::{Code, ImageLimits, Settings, Step, StepOutcome, Urls, Value};
use lwm2m::{Operation, Path, WriteContent, WriteMode};
use tracing::error;

use crate::commands::Commands;
use crate::config::Config;

/// How soon time is looked at again, and a stop is noticed.
const INTERVAL: Duration = Duration::from_millis(500);

/// How images and jobs are kept; devices fetch images at `urls`, plain and over DTLS.
pub(crate) fn settings(config: &Config, urls: [Option<String>; 2]) -> Settings {
    let bytes_max = config.firmware.image_bytes_max as u64;
    let defaults = ImageLimits::default();
    let loaded_bytes_max = defaults.loaded_bytes_max.max(bytes_max);
    let [coap, coaps] = urls;
    let coap = config.firmware.coap_url.clone().or(coap);
    let trimmed = |url: String| url.trim_end_matches('/').to_owned();
    Settings {
        folder: config.data.dir.clone(),
        images: ImageLimits { bytes_max, loaded_bytes_max, ..defaults },
        urls: Urls { coap: coap.map(trimmed), coaps: coaps.map(trimmed) },
    }
}

/// A step in the words of LwM2M.
pub(crate) fn operation(step: &Step) -> Result<Operation, String> {
    let path = step.path().parse::<Path>().map_err(|error| error.to_string())?;
    Ok(match step {
        Step::Read(_) => Operation::Read { path, accept: None },
        Step::WriteText { value, .. } => Operation::Write {
            path,
            content: WriteContent::Text(value.clone()),
            mode: WriteMode::Replace,
        },
        Step::WriteOpaque { image, .. } => Operation::WriteRaw {
            path,
            format: ContentFormat::OCTET_STREAM,
            payload: image.to_vec(),
        },
        Step::Execute(_) => Operation::Execute { path, arguments: String::new() },
        Step::Observe(_) => Operation::Observe { path, accept: None },
        Step::CancelObserve(_) => Operation::CancelObservation { path },
    })
}

/// How a step about `path` ended.
pub(crate) fn outcome(path: &str, end: OrderEnd) -> StepOutcome {
    match end {
        OrderEnd::Answered { code, payload, .. } => {
            let code = Code(code.class() << 5 | code.detail());
            StepOutcome::Answered { code, value: Value::in_report(path, &payload) }
        }
        OrderEnd::Sent | OrderEnd::Unreachable(_) => StepOutcome::Unreachable,
        OrderEnd::NotSent(_) => StepOutcome::NotRegistered,
        OrderEnd::Invalid(reason) => StepOutcome::Invalid(reason),
    }
}

/// The thread that works updates off.
pub(crate) struct FirmwareThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl FirmwareThread {
    /// Starts it.
    pub(crate) fn spawn(commands: Commands) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("firmware".to_owned());
        let thread = thread.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                commands.updates().wait(INTERVAL);
                commands.updates().tick(SystemTime::now().into());
                commands.withdraw_steps();
                commands.send_steps();
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
