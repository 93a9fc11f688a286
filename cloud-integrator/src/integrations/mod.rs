//! All integrations of the gateway: configuration, tests, and the forwarders that run for them.

mod changes;
mod replaying;
mod rollout;
mod trials;
mod upkeep;

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use message_log::{DeviceKey, Kind, NewRecord};
use sealing::Sealer;
use state::StateFile;
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{AbortHandle, spawn_blocking};
use vocabulary::{
    EventId, EventIdGenerator, EventKind, Notice, NoticeCategory, NoticeKind, Timestamp,
};

use crate::aws::{AwsAccess, AwsAccessError, AwsOptions};
use crate::email::{MAILS_PER_HOUR, MailSettings, Mailer, MailerError};
use crate::event_type::{CatalogueEntry, EventType};
use crate::forwarder::{Forwarder, ForwarderSettings, ForwarderStatus};
use crate::integration::{ChangeError, Integration, IntegrationState, InvalidIntegration};
use crate::mqtt::{MqttClient, MqttLimits};
use crate::network::{NetworkPolicy, Resolver};
use crate::reading::{Source, Subscription};
use crate::sinks::{Purpose, Sinks};
use crate::store::{Store, StoreError};
use crate::tls::{TlsError, authorities};
use crate::webhook::{ClientError, WebhookClient};

pub use replaying::{ReplayError, ReplayRequest};
pub(crate) use replaying::{active_versions, selection};
pub use rollout::{AwsRollout, ROLLOUT_TIME};

/// How the integrations of a gateway behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For each forwarder.
    pub forwarder: ForwarderSettings,
    /// What customers may have the gateway reach.
    pub network: NetworkPolicy,
    /// Certificates, in PEM, of authorities that are trusted beside the system's.
    pub extra_roots_pem: Vec<Vec<u8>>,
    /// How the gateway shows AWS who it is.
    pub aws: AwsOptions,
    /// The mail server; without it no integration sends mail.
    pub mail: Option<MailSettings>,
    /// Mails of one integration in an hour at most.
    pub mails_per_hour: NonZeroU32,
    /// Integrations at most: each reads the whole log on its own. An estimate.
    pub integrations_max: usize,
}

/// Why the integrations could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client for webhooks.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The extra authorities.
    #[error("the extra authorities cannot be read: {0}")]
    Roots(#[from] TlsError),
    /// The way to AWS.
    #[error(transparent)]
    Aws(#[from] AwsAccessError),
    /// The mail server.
    #[error(transparent)]
    Mail(#[from] MailerError),
}

/// How an integration fares.
#[derive(Debug)]
pub struct Status {
    /// What it is, and its state.
    pub integration: Integration,
    /// `None` while nothing is delivered: before its rollout is done, when it has failed, and while
    /// it is paused.
    pub delivery: Option<ForwarderStatus>,
    /// How many events were given up and are kept.
    pub dead_letters: u64,
}

/// All integrations. Cheap to clone.
#[derive(Clone)]
pub struct Integrations(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    sinks: Sinks,
    ids: StdMutex<EventIdGenerator>,
    /// Held while integrations change, so that changes happen one after another.
    engine: Arc<Mutex<Engine>>,
}

#[derive(Default)]
struct Engine {
    source: Option<Source>,
    forwarders: HashMap<String, Forwarder>,
    upkeep: Option<AbortHandle>,
}

/// What a forwarder gets to end its attempts when its integration changes: a healthy endpoint
/// needs milliseconds, and the customer waits for the answer.
const CHANGE_GRACE: Duration = Duration::from_secs(1);

impl Default for Settings {
    fn default() -> Self {
        Self {
            forwarder: ForwarderSettings::default(),
            network: NetworkPolicy::default(),
            extra_roots_pem: Vec::new(),
            aws: AwsOptions::default(),
            mail: None,
            mails_per_hour: MAILS_PER_HOUR,
            integrations_max: 100,
        }
    }
}

impl Integrations {
    /// Opens the stored integrations, sealed by `sealer`; nothing runs before
    /// [`Integrations::start`]. Blocks.
    ///
    /// # Errors
    /// Where the state file or the clients cannot be set up.
    pub fn open(file: &StateFile, sealer: Sealer, settings: Settings) -> Result<Self, OpenError> {
        let store = Store::open(file, sealer)?;
        let sinks = sinks(&settings)?;
        let seed = getrandom::u64().map_err(|error| StoreError::Random(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            store,
            settings,
            sinks,
            ids: StdMutex::new(EventIdGenerator::new(seed, None)),
            engine: Arc::default(),
        })))
    }

    /// Starts forwarding from `source` for every integration that delivers.
    ///
    /// # Errors
    /// Where the stored integrations cannot be read.
    pub async fn start(&self, source: Source) -> Result<(), StoreError> {
        let mut engine = self.0.engine.lock().await;
        let integrations = self.list().await?;
        engine.source = Some(source.clone());
        for integration in integrations {
            self.run(&mut engine, &integration).await;
        }
        engine.upkeep = Some(tokio::spawn(self.clone().keep_up(source)).abort_handle());
        Ok(())
    }

    /// Ends all forwarding: attempts that run get up to `grace` to end, then cursors are saved.
    /// A change that has begun ends before; one that has not runs nothing any more.
    pub async fn shutdown(&self, grace: Duration) {
        let mut engine = self.0.engine.lock().await;
        engine.source = None;
        if let Some(upkeep) = engine.upkeep.take() {
            upkeep.abort();
        }
        join_all(engine.forwarders.drain().map(|(_, forwarder)| forwarder.stop(grace))).await;
    }

    /// All integrations, the oldest first.
    ///
    /// # Errors
    /// Where the state file refuses.
    pub async fn list(&self) -> Result<Vec<Integration>, StoreError> {
        self.stored(Store::list).await
    }

    /// One integration.
    ///
    /// # Errors
    /// Where the state file refuses.
    pub async fn find(&self, id: &str) -> Result<Option<Integration>, StoreError> {
        let id = id.to_owned();
        self.stored(move |store| store.find(&id)).await
    }

    /// How an integration fares.
    ///
    /// # Errors
    /// Where there is no such integration, or the file refuses.
    pub async fn status(&self, id: &str) -> Result<Status, ChangeError> {
        let integration = self.found(id).await?;
        let dead_letters = {
            let id = integration.id.clone();
            self.stored(move |store| store.count_dead_letters(&id)).await?
        };
        // One that has failed may not have ended yet.
        let delivery = if integration.state == IntegrationState::IntegrationFailed {
            None
        } else {
            let engine = self.0.engine.lock().await;
            let forwarder = engine.forwarders.get(&integration.id);
            forwarder.filter(|forwarder| !forwarder.is_finished()).map(Forwarder::status)
        };
        Ok(Status { integration, delivery, dead_letters })
    }

    /// The gateway's way to AWS, for what else needs it.
    pub fn aws_access(&self) -> AwsAccess {
        self.0.sinks.aws.clone()
    }

    /// Every event type with an example.
    pub fn event_types(&self) -> Vec<CatalogueEntry> {
        EventType::catalogue()
    }

    /// Waits for its turn, then does `work` to its end even if the caller is dropped meanwhile: a
    /// client that hangs up must not leave an integration without its forwarder.
    ///
    /// Who is dropped while it waits for its turn leaves nothing behind, so that changes which
    /// nobody waits for cannot queue up before a shutdown.
    async fn change<T, E, F>(&self, work: impl FnOnce(OwnedMutexGuard<Engine>) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let engine = Arc::clone(&self.0.engine).lock_owned().await;
        tokio::spawn(work(engine)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a change of an integration was cut off");
            Err(StoreError::CutOff.into())
        })
    }

    /// Runs a forwarder for `integration`, unless it does not deliver or nothing runs yet.
    async fn run(&self, engine: &mut Engine, integration: &Integration) {
        let Some(source) = engine.source.clone() else { return };
        let id = &integration.id;
        if integration.paused || !integration.state.delivers() {
            return;
        }
        let sink = match self.0.sinks.sink(integration, Purpose::Run) {
            Ok(sink) => sink,
            // Stored when another configuration of the gateway allowed it.
            Err(error) => return self.cannot_run(&source, integration, &error).await,
        };
        let mut delivery = integration.delivery;
        delivery.concurrency_max =
            delivery.concurrency_max.min(integration.target.concurrency_max());
        let forwarder = Forwarder::start(
            source,
            self.0.store.bookmark(id),
            Subscription {
                event_types: integration.event_types,
                json_payload_enabled: integration.json_payload_enabled,
            },
            sink,
            ForwarderSettings::for_integration(&delivery, &self.0.settings.forwarder),
        );
        engine.forwarders.insert(id.clone(), forwarder);
    }

    /// What cannot run has failed, and its customer is told: it would stop without a word.
    async fn cannot_run(
        &self,
        source: &Source,
        integration: &Integration,
        error: &InvalidIntegration,
    ) {
        let Integration { id, name, .. } = integration;
        tracing::error!(integration = id, %error, "the integration cannot run");
        let (row, text) = (id.clone(), format!("it cannot run: {error}"));
        let failed = IntegrationState::IntegrationFailed;
        if let Err(error) = self.stored(move |s| s.set_state(&row, failed, Some(&text))).await {
            tracing::error!(integration = id, %error, "that it has failed is not saved");
        }
        let mut notice = Notice::new(
            NoticeCategory::Error,
            NoticeKind::Integration,
            "CloudIntegrator[IntegrationDisabled]",
        );
        notice.integration = Some(id.clone());
        notice.description = format!(
            "Integration with ID {id} and name \"{name}\" was disabled because it cannot run: \
             {error}. Please review affected integration details in Cloud Integrator."
        );
        let record = NewRecord {
            kind: Kind::new(EventKind::Notice.code()),
            device: DeviceKey::NONE,
            received_at: now(),
            body: notice.encode(),
        };
        if let Err(error) = source.log.append(vec![record]).await {
            tracing::warn!(%error, "a notice about an integration is lost");
        }
    }

    /// Runs every integration that delivers and has no forwarder: one may be without it since the
    /// state file refused in the middle of a change.
    async fn run_all(&self) -> Result<(), StoreError> {
        let mut engine = self.0.engine.lock().await;
        for integration in self.list().await? {
            let is_running = engine.forwarders.get(&integration.id).is_some_and(|forwarder| {
                // One that has ended by itself has failed its integration.
                !forwarder.is_finished()
            });
            if !is_running {
                self.run(&mut engine, &integration).await;
            }
        }
        Ok(())
    }

    /// Ends the forwarder of an integration, and starts one by its configuration as it is now.
    async fn run_anew(&self, engine: &mut Engine, id: &str) -> Result<Integration, ChangeError> {
        if let Some(forwarder) = engine.forwarders.remove(id) {
            forwarder.stop(CHANGE_GRACE).await;
        }
        // The old forwarder may have made its first delivery meanwhile.
        let integration = self.found(id).await?;
        self.run(engine, &integration).await;
        Ok(integration)
    }

    async fn found(&self, id: &str) -> Result<Integration, ChangeError> {
        self.find(id).await?.ok_or_else(|| ChangeError::NotFound(id.to_owned()))
    }

    /// Runs `work` where blocking is allowed.
    async fn stored<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.0.store.clone();
        spawn_blocking(move || work(&store)).await.map_err(|_| StoreError::CutOff)?
    }

    /// A new id for an event of the gateway's own.
    fn event_id(&self, at: Timestamp) -> EventId {
        // A panic elsewhere cannot leave the generator half-changed.
        self.0.ids.lock().unwrap_or_else(PoisonError::into_inner).next(at)
    }
}

/// What all sinks share, as the gateway is configured.
fn sinks(settings: &Settings) -> Result<Sinks, OpenError> {
    let resolver = Resolver::new(settings.network.clone());
    let mut roots = Vec::new();
    for pem in &settings.extra_roots_pem {
        roots.extend(authorities(pem)?);
    }
    let connections = settings.forwarder.concurrency_max;
    let webhooks =
        WebhookClient::with_resolver(resolver.clone(), &settings.extra_roots_pem, connections)?;
    let mqtt = MqttClient::new(resolver.clone(), roots, MqttLimits::default());
    let aws = AwsAccess::new(settings.aws.clone(), resolver.clone())?;
    let mailer = settings.mail.clone();
    let mailer = mailer
        .map(|mail| Mailer::new(mail, &settings.extra_roots_pem, settings.mails_per_hour))
        .transpose()?;
    Ok(Sinks { webhooks, mqtt, aws, mailer, resolver })
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
