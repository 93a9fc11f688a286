//! What runs beside the listeners: the readers of the log, and the watch on the SIM registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use connectivity::{SimChange, SimRegistry};
use device_authenticator::{DirectoryChange, SimDirectory};
use tracing::{error, info};

use crate::recovered::RecoveredExchanges;

/// How soon a change of a SIM reaches the listeners.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Changes taken over at a time.
const CHANGES: usize = 16_384;

/// Carries changes of the SIM registry, also those of another process, to the directory.
pub(crate) struct SimWatch {
    registry: SimRegistry,
    directory: SimDirectory,
    recovered: Arc<RecoveredExchanges>,
    revision: u64,
    seen_version: Option<i64>,
}

impl SimWatch {
    /// Fills `directory` with every SIM of `registry`.
    pub(crate) fn load(
        registry: SimRegistry,
        directory: SimDirectory,
        recovered: Arc<RecoveredExchanges>,
    ) -> anyhow::Result<Self> {
        let mut watch = Self { registry, directory, recovered, revision: 0, seen_version: None };
        watch.catch_up().context("the SIM registry cannot be read")?;
        Ok(watch)
    }

    /// Watches until `stop` turns true.
    pub(crate) fn spawn(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name("sims".to_owned());
        Ok(thread.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(WATCH_INTERVAL);
                if let Err(error) = self.step() {
                    error!(%error, "SIM changes cannot be read");
                }
                self.recovered.expire(Instant::now());
            }
        })?)
    }

    fn step(&mut self) -> Result<(), connectivity::StoreError> {
        let version = self.registry.data_version()?;
        if self.seen_version == Some(version) {
            return Ok(());
        }
        self.catch_up()?;
        self.seen_version = Some(version);
        Ok(())
    }

    fn catch_up(&mut self) -> Result<(), connectivity::StoreError> {
        let mut applied = 0;
        loop {
            let (changes, revision) = self.registry.changes_since(self.revision, CHANGES)?;
            let last = changes.len() < CHANGES;
            applied += changes.len();
            self.directory.apply(changes.into_iter().map(directory_change));
            self.revision = revision;
            if last {
                break;
            }
        }
        if applied > 0 {
            info!(changes = applied, sims = self.directory.len(), "SIMs taken over");
        }
        Ok(())
    }
}

fn directory_change(change: SimChange) -> DirectoryChange {
    match change {
        SimChange::Set(sim) => DirectoryChange::Set {
            iccid: sim.iccid,
            imsi: sim.imsi,
            ip: sim.ip,
            active: sim.active,
        },
        SimChange::Removed(iccid) => DirectoryChange::Remove { iccid },
    }
}
