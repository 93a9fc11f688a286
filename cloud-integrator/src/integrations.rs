//! All integrations of the gateway: configuration, tests, and the forwarders that run for them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use state::{StateFile, nanoid};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use vocabulary::{EventIdGenerator, Timestamp};

use crate::envelope::{Stamp, test_message};
use crate::event_type::{CatalogueEntry, EventType};
use crate::forwarder::{Forwarder, ForwarderSettings};
use crate::integration::{
    ChangeError, CreateError, Integration, IntegrationState, InvalidWebhook, NewWebhook,
    TestReport, WebhookPatch, check_name, parse_event_types,
};
use crate::reading::{Source, Subscription};
use crate::sink::{Delivery, Outcome, Sink, Subject};
use crate::store::{Store, StoreError, Stored};
use crate::webhook::{ClientError, Endpoint, WebhookClient, WebhookOptions};

/// How the integrations of a gateway behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For each forwarder.
    pub forwarder: ForwarderSettings,
    /// For webhooks.
    pub webhook: WebhookOptions,
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
}

/// All integrations. Cheap to clone.
#[derive(Clone)]
pub struct Integrations(Arc<Inner>);

struct Inner {
    store: Store,
    settings: Settings,
    client: WebhookClient,
    ids: std::sync::Mutex<EventIdGenerator>,
    /// Held while integrations change, so that changes happen one after another.
    engine: Arc<Mutex<Engine>>,
}

#[derive(Default)]
struct Engine {
    source: Option<Source>,
    forwarders: HashMap<String, Forwarder>,
}

/// What a forwarder gets to end its attempts when its integration changes: a healthy endpoint
/// needs milliseconds, and the customer waits for the answer.
const CHANGE_GRACE: Duration = Duration::from_secs(1);

impl Default for Settings {
    fn default() -> Self {
        Self {
            forwarder: ForwarderSettings::default(),
            webhook: WebhookOptions::default(),
            integrations_max: 100,
        }
    }
}

impl Integrations {
    /// Opens the stored integrations; nothing runs before [`Integrations::start`]. Blocks.
    pub fn open(file: &StateFile, settings: Settings) -> Result<Self, OpenError> {
        let store = Store::open(file)?;
        let connections = settings.forwarder.window.concurrency;
        let client = WebhookClient::new(&settings.webhook, connections)?;
        let seed = getrandom::u64().map_err(|error| StoreError::Random(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            store,
            settings,
            client,
            ids: std::sync::Mutex::new(EventIdGenerator::new(seed, None)),
            engine: Arc::default(),
        })))
    }

    /// Starts forwarding from `source` for every integration that has not failed.
    pub async fn start(&self, source: Source) -> Result<(), StoreError> {
        let mut engine = self.0.engine.lock().await;
        let integrations = self.list().await?;
        engine.source = Some(source);
        for integration in integrations {
            self.run(&mut engine, &integration);
        }
        Ok(())
    }

    /// Ends all forwarding: attempts that run get up to `grace` to end, then cursors are saved.
    /// A change that has begun ends before; one that has not runs nothing any more.
    pub async fn shutdown(&self, grace: Duration) {
        let mut engine = self.0.engine.lock().await;
        engine.source = None;
        join_all(engine.forwarders.drain().map(|(_, forwarder)| forwarder.stop(grace))).await;
    }

    /// All integrations, the oldest first.
    pub async fn list(&self) -> Result<Vec<Integration>, StoreError> {
        self.stored(Store::list).await
    }

    /// One integration.
    pub async fn find(&self, id: &str) -> Result<Option<Integration>, StoreError> {
        let id = id.to_owned();
        self.stored(move |store| store.find(&id)).await
    }

    /// Every event type with an example.
    pub fn event_types(&self) -> Vec<CatalogueEntry> {
        EventType::catalogue()
    }

    /// Creates a webhook. It starts with what the log receives from now on; before
    /// [`Integrations::start`], with what the log receives from then on.
    ///
    /// This and every other change, once begun, goes on to its end if its caller is dropped.
    pub async fn create(&self, new: NewWebhook) -> Result<Integration, CreateError> {
        check_name(&new.name)?;
        let event_types = parse_event_types(&new.event_types)?;
        let now = Timestamp::from(SystemTime::now());
        let integration = Integration {
            id: nanoid().map_err(|error| StoreError::Random(error.to_string()))?,
            name: new.name,
            url: new.url,
            headers: new.headers,
            event_types,
            json_payload_enabled: new.json_payload_enabled,
            state: IntegrationState::RolloutDone,
            created_at: now,
            updated_at: now,
            first_delivery_at: None,
        };
        let canonical = self.endpoint(&integration)?.canonical_url().to_owned();
        let all = self.clone();
        self.change(
            |mut engine| async move { all.insert(&mut engine, integration, canonical).await },
        )
        .await
    }

    async fn insert(
        &self,
        engine: &mut Engine,
        integration: Integration,
        canonical: String,
    ) -> Result<Integration, CreateError> {
        let count = self.stored(Store::count).await?;
        if count >= self.0.settings.integrations_max {
            return Err(CreateError::TooMany(count));
        }
        let cursor = engine.source.as_ref().map(|source| source.log.end().as_u64());
        let row = integration.clone();
        match self.stored(move |store| store.insert(&row, &canonical, cursor)).await? {
            Stored::Yes => self.run(engine, &integration),
            Stored::Conflict | Stored::NotFound => return Err(CreateError::Conflict),
        }
        Ok(integration)
    }

    /// Changes a webhook. Messages that wait for it go on by the new configuration.
    pub async fn patch(&self, id: &str, patch: WebhookPatch) -> Result<Integration, ChangeError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move { all.update(&mut engine, &id, patch).await }).await
    }

    async fn update(
        &self,
        engine: &mut Engine,
        id: &str,
        patch: WebhookPatch,
    ) -> Result<Integration, ChangeError> {
        let mut integration = self.found(id).await?;
        integration.url = patch.url.unwrap_or(integration.url);
        integration.headers = patch.headers.unwrap_or(integration.headers);
        if let Some(list) = patch.event_types {
            integration.event_types = parse_event_types(&list)?;
        }
        if let Some(enabled) = patch.json_payload_enabled {
            integration.json_payload_enabled = enabled;
        }
        integration.updated_at = SystemTime::now().into();
        let canonical = self.endpoint(&integration)?.canonical_url().to_owned();
        let row = integration.clone();
        match self.stored(move |store| store.update(&row, &canonical)).await? {
            Stored::Yes => {}
            Stored::Conflict => return Err(ChangeError::Conflict),
            Stored::NotFound => return Err(ChangeError::NotFound(id.to_owned())),
        }
        if let Some(forwarder) = engine.forwarders.remove(id) {
            forwarder.stop(CHANGE_GRACE).await;
        }
        self.run(engine, &integration);
        // The old forwarder may have made its first delivery meanwhile.
        self.found(id).await
    }

    /// Deletes an integration. What waits for it is not delivered any more.
    pub async fn delete(&self, id: &str) -> Result<(), ChangeError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move { all.remove(&mut engine, &id).await }).await
    }

    async fn remove(&self, engine: &mut Engine, id: &str) -> Result<(), ChangeError> {
        let row = id.to_owned();
        if !self.stored(move |store| store.delete(&row)).await? {
            return Err(ChangeError::NotFound(id.to_owned()));
        }
        if let Some(forwarder) = engine.forwarders.remove(id) {
            forwarder.stop(Duration::ZERO).await;
        }
        Ok(())
    }

    /// Sends a TEST_MESSAGE now. Neither state nor time of delivery change.
    pub async fn test(&self, id: &str) -> Result<TestReport, ChangeError> {
        let integration = self.found(id).await?;
        Ok(self.send_test(&integration, "Test").await?)
    }

    /// Starts a failed integration again, if it takes a TEST_MESSAGE.
    pub async fn restart(&self, id: &str) -> Result<(Integration, TestReport), ChangeError> {
        let integration = self.failed(id).await?;
        let report = self.send_test(&integration, "Restart").await?;
        if !report.success {
            return Ok((integration, report));
        }
        let (all, id) = (self.clone(), id.to_owned());
        let integration =
            self.change(|mut engine| async move { all.revive(&mut engine, &id).await }).await?;
        Ok((integration, report))
    }

    async fn revive(&self, engine: &mut Engine, id: &str) -> Result<Integration, ChangeError> {
        // It may have changed while the test ran.
        let mut integration = self.failed(id).await?;
        integration.state = IntegrationState::IntegrationActive;
        let (row, state) = (id.to_owned(), integration.state);
        self.stored(move |store| store.set_state(&row, state)).await?;
        self.run(engine, &integration);
        Ok(integration)
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

    async fn failed(&self, id: &str) -> Result<Integration, ChangeError> {
        let integration = self.found(id).await?;
        match integration.state {
            IntegrationState::IntegrationFailed => Ok(integration),
            other => Err(ChangeError::NotFailed(other)),
        }
    }

    async fn send_test(
        &self,
        integration: &Integration,
        what: &str,
    ) -> Result<TestReport, InvalidWebhook> {
        let sink = self.0.client.sink(self.endpoint(integration)?);
        let received_at = Timestamp::from(SystemTime::now());
        let id = {
            // A panic elsewhere cannot leave the generator half-changed.
            let ids = self.0.ids.lock();
            ids.unwrap_or_else(std::sync::PoisonError::into_inner).next(received_at)
        };
        let body = test_message(Stamp { id, received_at }, &integration.id, &integration.name);
        let delivery = Delivery {
            id,
            event_type: EventType::TestMessage,
            subject: Subject::default(),
            source: None,
            topic: None,
            body: Bytes::from(body),
        };
        Ok(match sink.deliver(vec![delivery]).await {
            Outcome::Delivered => {
                TestReport { success: true, message: format!("{what} was successful") }
            }
            Outcome::Retry { reason, .. } | Outcome::Rejected { reason } => {
                TestReport { success: false, message: format!("{what} failed, {reason}") }
            }
        })
    }

    /// Runs a forwarder for `integration`, unless it has failed or nothing runs yet.
    fn run(&self, engine: &mut Engine, integration: &Integration) {
        let Some(source) = engine.source.clone() else { return };
        let id = &integration.id;
        if integration.state == IntegrationState::IntegrationFailed
            || engine.forwarders.contains_key(id)
        {
            return;
        }
        let endpoint = match self.endpoint(integration) {
            Ok(endpoint) => endpoint,
            // Stored when another configuration of the gateway allowed it.
            Err(error) => {
                tracing::error!(integration = id, %error, "the integration cannot run");
                return;
            }
        };
        let forwarder = Forwarder::start(
            source,
            self.0.store.bookmark(id),
            Subscription {
                event_types: integration.event_types,
                json_payload_enabled: integration.json_payload_enabled,
            },
            self.0.client.sink(endpoint),
            self.0.settings.forwarder,
        );
        engine.forwarders.insert(id.clone(), forwarder);
    }

    fn endpoint(&self, integration: &Integration) -> Result<Endpoint, InvalidWebhook> {
        let allow_http_loopback = self.0.client.allow_http_loopback();
        Ok(Endpoint::new(&integration.url, &integration.headers, allow_http_loopback)?)
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
}
