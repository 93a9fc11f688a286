//! What the gateway sees of onboarding.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use cloud_integrator::{AwsAccess, InvalidAws};
use sealing::Sealer;
use state::StateFile;
use thiserror::Error;
use tokio::sync::Notify;
use vocabulary::Iccid;
use zeroize::Zeroizing;

use crate::cloud::Cloud;
use crate::settings::OnboardingSettings;
use crate::store::{Store, StoreError};
use crate::worker;

pub use crate::store::Stuck;

/// SIMs whose failures are listed.
const STUCK_MAX: u32 = 20;

/// Devices on their way to AWS IoT Core. Cheap to clone.
#[derive(Clone)]
pub struct Onboarding(Arc<Inner>);

pub(crate) struct Inner {
    store: Arc<Store>,
    pub(crate) cloud: Cloud,
    pub(crate) settings: OnboardingSettings,
    pub(crate) changed: Notify,
    listener: Box<Listener>,
}

type Listener = dyn Fn(Happening) + Send + Sync;

/// Something that an operator may want to read in the log of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Everything that was wanted for a SIM is done.
    Onboarded {
        /// The SIM.
        iccid: Iccid,
    },
    /// It failed, for the first time in a row.
    Failed {
        /// The SIM.
        iccid: Iccid,
        /// Why, without any secret.
        error: String,
    },
}

/// What there is for a device.
pub enum Credentials {
    /// It can connect.
    Found(Box<Found>),
    /// Its certificate is being made, or is not active.
    Pending,
    /// Nobody has asked for one.
    Missing,
}

/// What a device needs to connect to AWS IoT Core. `Debug` shows none of it.
pub struct Found {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub private_key: Zeroizing<String>,
    /// The host of the data plane.
    pub endpoint: String,
    /// Where the authority of its servers is.
    pub root_ca_url: String,
    /// That authority, in PEM.
    pub root_ca_pem: String,
}

/// How onboarding goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// SIMs for which everything is done.
    pub done: u32,
    /// SIMs for which something is to be done.
    pub waiting: u32,
    /// Of those, the SIMs whose last attempt failed.
    pub failing: u32,
    /// Those that failed most often.
    pub stuck: Vec<Stuck>,
}

/// Why onboarding cannot begin.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The state file.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] InvalidAws),
}

impl Onboarding {
    /// Opens what is to be done. Nothing runs before [`Onboarding::run`]. Blocks.
    ///
    /// `listener` hears what happens; it must not block.
    ///
    /// # Errors
    /// Where the state file does not open, or the settings are not valid.
    pub fn open(
        file: &StateFile,
        sealer: Sealer,
        access: AwsAccess,
        settings: OnboardingSettings,
        listener: impl Fn(Happening) + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(Inner {
            store: Arc::new(Store::open(file, sealer)?),
            cloud: Cloud::new(access, settings.clone())?,
            settings,
            changed: Notify::new(),
            listener: Box::new(listener),
        })))
    }

    /// Works off what is due until `stopped` completes. One at a time.
    pub async fn run(self, stopped: impl Future<Output = ()>) {
        worker::run(self.0, stopped).await;
    }

    /// Begins with a SIM, unless it was begun before. Says whether it was not. Blocks.
    ///
    /// # Errors
    /// Where the state file fails.
    pub fn enqueue(&self, iccid: Iccid, ip: Option<IpAddr>) -> Result<bool, StoreError> {
        let is_new = self.0.store.enqueue(iccid, ip)?;
        if is_new {
            self.0.changed.notify_one();
        }
        Ok(is_new)
    }

    /// Wants the certificate of a SIM active or not; nothing where it has none. Says whether that
    /// is a change. Blocks.
    ///
    /// # Errors
    /// Where the state file fails.
    pub fn set_active(&self, iccid: Iccid, active: bool) -> Result<bool, StoreError> {
        let is_change = self.0.store.want(iccid, active)?;
        if is_change {
            self.0.changed.notify_one();
        }
        Ok(is_change)
    }

    /// Wants of every certificate what `is_active` says of its SIM, for changes that nobody told:
    /// those made while the gateway did not run. Says how many there were. Blocks.
    ///
    /// # Errors
    /// Where the state file fails.
    pub fn reconcile(&self, is_active: impl Fn(Iccid) -> bool) -> Result<usize, StoreError> {
        let mut changes = 0;
        for (iccid, wanted) in self.0.store.wishes()? {
            let active = is_active(iccid);
            if active != wanted && self.set_active(iccid, active)? {
                changes += 1;
            }
        }
        Ok(changes)
    }

    /// What there is for a device. Blocks.
    ///
    /// # Errors
    /// Where the state file fails, or another data key sealed it.
    pub fn credentials_of(&self, iccid: Iccid) -> Result<Credentials, StoreError> {
        let Inner { store, settings, .. } = &*self.0;
        let Some((pair, works)) = store.key_pair(iccid)? else {
            let is_begun = store.find(iccid)?.is_some();
            return Ok(if is_begun { Credentials::Pending } else { Credentials::Missing });
        };
        let endpoint = match &settings.data_endpoint {
            Some(host) => Some(host.clone()),
            None => store.endpoint(&self.0.place())?,
        };
        let (true, Some(endpoint)) = (works, endpoint) else { return Ok(Credentials::Pending) };
        Ok(Credentials::Found(Box::new(Found {
            certificate: pair.certificate,
            private_key: pair.private_key,
            endpoint,
            root_ca_url: settings.root_ca_url.clone(),
            root_ca_pem: settings.root_ca_pem.clone(),
        })))
    }

    /// How it goes. Blocks.
    ///
    /// # Errors
    /// Where the state file fails.
    pub fn status(&self) -> Result<Status, StoreError> {
        let (done, waiting) = self.0.store.counts()?;
        let (failing, stuck) = self.0.store.stuck(STUCK_MAX)?;
        Ok(Status { done, waiting, failing, stuck })
    }
}

impl Inner {
    /// Runs `work` where blocking is allowed.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let worked = tokio::task::spawn_blocking(move || work(&store)).await;
        worked.map_err(|_| StoreError::CutOff)?
    }

    pub(crate) fn tell(&self, happening: Happening) {
        (self.listener)(happening);
    }

    /// The host that devices are told, where it is known.
    pub(crate) async fn data_endpoint(&self) -> Result<Option<String>, StoreError> {
        if let Some(host) = &self.settings.data_endpoint {
            return Ok(Some(host.clone()));
        }
        let place = self.place();
        self.stored(move |store| store.endpoint(&place)).await
    }

    /// Another region or another account has another host.
    pub(crate) fn place(&self) -> String {
        let role = self.settings.role.as_ref().map_or("", |role| role.arn());
        format!("{} {role}", self.settings.region)
    }
}

impl fmt::Debug for Onboarding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Onboarding").finish_non_exhaustive()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Found").finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Found(_) => "Found",
            Self::Pending => "Pending",
            Self::Missing => "Missing",
        })
    }
}
