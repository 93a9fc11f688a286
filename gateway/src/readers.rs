//! What runs beside the listeners: the watch on the SIM registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_onboarding::Onboarding;
use connectivity::{ChangesError, Revision, Sim, SimChange, SimRegistry, StoreError};
use device_authenticator::{DirectoryChange, SimDirectory};
use locator::Locator;
use registration_store::Change;
use tracing::{error, info, warn};
use vocabulary::Iccid;

use crate::recovered::RecoveredExchanges;
use crate::registration_desk::RegistrationDesk;

/// How soon a change of a SIM reaches the listeners.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Changes taken over at a time: a few megabytes.
const CHANGES: u32 = 16_384;

/// SIMs loaded at a time; larger batches cost less per SIM.
const LOADED: usize = 262_144;

/// Carries changes of the SIM registry, also those of another process, to the directory.
pub(crate) struct SimWatch {
    registry: Arc<SimRegistry>,
    directory: Arc<SimDirectory>,
    recovered: Arc<RecoveredExchanges>,
    /// Knows where devices are.
    locator: Locator,
    revision: Revision,
    seen_version: i64,
    /// Where devices are registered by LwM2M, in memory and on disk.
    registrations: Option<(lwm2m::Registry, RegistrationDesk)>,
    /// Where devices get certificates that are worth as much as their SIMs.
    onboarding: Option<Onboarding>,
}

impl SimWatch {
    /// Fills `directory` with every SIM of `registry`.
    pub(crate) fn load(
        (registry, directory): (Arc<SimRegistry>, Arc<SimDirectory>),
        recovered: Arc<RecoveredExchanges>,
        locator: Locator,
    ) -> anyhow::Result<Self> {
        let unreadable = "the SIM registry cannot be read";
        // Read before the SIMs, so that a change in between is seen as one.
        let seen_version = registry.data_version().context(unreadable)?;
        let revision = load_all(&registry, &directory).context(unreadable)?;
        info!(sims = directory.len(), "SIMs loaded");
        let (registrations, onboarding) = (None, None);
        Ok(Self {
            registry,
            directory,
            recovered,
            locator,
            revision,
            seen_version,
            registrations,
            onboarding,
        })
    }

    /// Lets the registrations of devices go with their SIMs.
    #[must_use]
    pub(crate) fn with_registrations(
        mut self,
        registry: lwm2m::Registry,
        desk: RegistrationDesk,
    ) -> Self {
        self.registrations = Some((registry, desk));
        self
    }

    /// Lets the certificates of devices be worth as much as their SIMs.
    #[must_use]
    pub(crate) fn with_onboarding(mut self, onboarding: Option<Onboarding>) -> Self {
        self.onboarding = onboarding;
        self
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

    fn step(&mut self) -> Result<(), StoreError> {
        let version = self.registry.data_version()?;
        if self.seen_version == version {
            return Ok(());
        }
        match self.catch_up() {
            Ok(()) => {}
            Err(ChangesError::Store(source)) => return Err(StoreError(source)),
            Err(unknown @ ChangesError::Unknown { .. }) => {
                error!(%unknown, "too many SIMs were removed at once: restart to refuse them");
                self.revision = load_all(&self.registry, &self.directory)?;
            }
        }
        self.seen_version = version;
        Ok(())
    }

    fn catch_up(&mut self) -> Result<(), ChangesError> {
        loop {
            let news = self.registry.changes_since(self.revision, CHANGES)?;
            self.revision = news.revision;
            self.forget_registrations(&news.changes);
            self.follow_with_certificates(&news.changes);
            let removed = removed(&news.changes);
            let changes: Vec<_> = news.changes.into_iter().map(directory_change).collect();
            for takeover in self.directory.apply(&changes).takeovers {
                warn!(ip = %takeover.ip, from = ?takeover.from, to = ?takeover.to, "address moved");
            }
            // Only once the directory does not hold them any more: what the locator reads from then
            // on brings none of them back.
            removed.into_iter().for_each(|iccid| self.locator.forget(iccid));
            if changes.len() < CHANGES as usize {
                return Ok(());
            }
        }
    }
}

impl SimWatch {
    fn forget_registrations(&self, changes: &[SimChange]) {
        let Some((registry, desk)) = &self.registrations else { return };
        for change in changes {
            if let SimChange::Removed(iccid) = change {
                registry.forget(*iccid);
                desk.note(vec![Change { iccid: *iccid, state: None }]);
            }
        }
    }
}

impl SimWatch {
    fn follow_with_certificates(&self, changes: &[SimChange]) {
        let Some(onboarding) = &self.onboarding else { return };
        for change in changes {
            let (iccid, active) = match change {
                SimChange::Set(sim) => (sim.iccid, sim.active),
                SimChange::Removed(iccid) => (*iccid, false),
            };
            if let Err(error) = onboarding.set_active(iccid, active) {
                error!(?iccid, %error, "a certificate does not follow its sim");
            }
        }
    }
}

fn removed(changes: &[SimChange]) -> Vec<Iccid> {
    let removed = |change: &SimChange| match change {
        SimChange::Removed(iccid) => Some(*iccid),
        SimChange::Set(_) => None,
    };
    changes.iter().filter_map(removed).collect()
}

fn load_all(registry: &SimRegistry, directory: &SimDirectory) -> Result<Revision, StoreError> {
    let mut batch = Vec::new();
    let revision = registry.load_all(|sim| {
        batch.push(set(&sim));
        if batch.len() == LOADED {
            directory.apply(&batch);
            batch.clear();
        }
    })?;
    directory.apply(&batch);
    Ok(revision)
}

fn set(sim: &Sim) -> DirectoryChange {
    DirectoryChange::Set { iccid: sim.iccid, imsi: sim.imsi, ip: sim.ip, active: sim.active }
}

fn directory_change(change: SimChange) -> DirectoryChange {
    match change {
        SimChange::Set(sim) => set(&sim),
        SimChange::Removed(iccid) => DirectoryChange::Remove { iccid },
    }
}
