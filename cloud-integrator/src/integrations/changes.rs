//! Creating, changing, pausing and deleting integrations.

use std::time::Duration;

use state::nanoid;

use super::{CHANGE_GRACE, Engine, Integrations, now};
use crate::integration::{
    ChangeError, CreateError, Integration, IntegrationState, InvalidIntegration, NewIntegration,
    check_name, parse_event_types,
};
use crate::store::{Beginning, Rollout, Store, StoreError, Stored};

impl Integrations {
    /// Creates an integration. It starts with what the log receives from now on; before
    /// [`Integrations::start`], with what the log receives from then on.
    ///
    /// This and every other change, once begun, goes on to its end if its caller is dropped.
    ///
    /// # Errors
    /// Where a field is not valid, the target is taken, there are too many, or the file refuses.
    pub async fn create(&self, new: NewIntegration) -> Result<Integration, CreateError> {
        self.create_in(new, IntegrationState::RolloutDone, false, None).await
    }

    /// Creates an integration that waits from the beginning.
    ///
    /// # Errors
    /// As [`Integrations::create`].
    pub async fn create_paused(&self, new: NewIntegration) -> Result<Integration, CreateError> {
        self.create_in(new, IntegrationState::RolloutDone, true, None).await
    }

    pub(super) async fn create_in(
        &self,
        new: NewIntegration,
        state: IntegrationState,
        paused: bool,
        rollout: Option<Rollout>,
    ) -> Result<Integration, CreateError> {
        check_name(&new.name)?;
        let now = now();
        let mut integration = Integration {
            id: nanoid().map_err(|error| StoreError::Random(error.to_string()))?,
            name: new.name,
            target: new.target,
            event_types: parse_event_types(&new.event_types)?,
            json_payload_enabled: new.json_payload_enabled,
            delivery: new.delivery,
            state,
            paused,
            error: None,
            created_at: now,
            updated_at: now,
            first_delivery_at: None,
        };
        integration.own_external_id();
        let canonical = self.0.sinks.check(&integration)?;
        let all = self.clone();
        self.change(|mut engine| async move {
            all.insert(&mut engine, integration, canonical, rollout).await
        })
        .await
    }

    async fn insert(
        &self,
        engine: &mut Engine,
        integration: Integration,
        canonical: Option<String>,
        rollout: Option<Rollout>,
    ) -> Result<Integration, CreateError> {
        if self.names_another(&integration).await? {
            return Err(InvalidIntegration::ExternalId.into());
        }
        let count = self.stored(Store::count).await?;
        if count >= self.0.settings.integrations_max {
            return Err(CreateError::TooMany(count));
        }
        let start = engine.source.as_ref().map(|source| source.log.end().as_u64());
        let id = integration.id.clone();
        let beginning = Beginning { canonical, start, rollout };
        match self.stored(move |store| store.insert(&integration, &beginning)).await? {
            Stored::Yes => Ok(self.run_anew(engine, &id).await.map_err(lost)?),
            Stored::Conflict | Stored::NotFound => Err(CreateError::Conflict),
        }
    }

    /// Changes what `edit` changes of an integration's target, event types, payloads and delivery.
    /// Messages that wait for it go on by the new configuration.
    ///
    /// # Errors
    /// Where there is none, the result is not valid or taken, or the file refuses.
    pub async fn edit(
        &self,
        id: &str,
        edit: impl FnOnce(&mut Integration) -> Result<(), InvalidIntegration> + Send + 'static,
    ) -> Result<Integration, ChangeError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move {
            let mut integration = all.found(&id).await?;
            let before = integration.clone();
            edit(&mut integration)?;
            all.update(&mut engine, &before, integration).await
        })
        .await
    }

    pub(super) async fn update(
        &self,
        engine: &mut Engine,
        before: &Integration,
        mut integration: Integration,
    ) -> Result<Integration, ChangeError> {
        integration.updated_at = now();
        integration.own_external_id();
        // What was valid once and has expired since must not hold up other changes.
        let canonical = if integration.needs_check_after(before) {
            if self.names_another(&integration).await? {
                return Err(InvalidIntegration::ExternalId.into());
            }
            self.0.sinks.check(&integration)?
        } else {
            integration.delivery.check().map_err(InvalidIntegration::from)?;
            None
        };
        let id = integration.id.clone();
        match self.stored(move |store| store.update(&integration, canonical.as_deref())).await? {
            Stored::Yes => self.run_anew(engine, &id).await,
            Stored::Conflict => Err(ChangeError::Conflict),
            Stored::NotFound => Err(ChangeError::NotFound(id)),
        }
    }

    /// Whether the external id of an integration's role is the id of another one: a role that
    /// trusts one integration must not be used by another (docs/aws.md).
    async fn names_another(&self, integration: &Integration) -> Result<bool, StoreError> {
        let Some(named) = integration.external_id() else { return Ok(false) };
        Ok(named != integration.id && self.find(named).await?.is_some())
    }

    /// Deletes an integration. What waits for it is not delivered any more.
    ///
    /// # Errors
    /// Where there is none, or the file refuses.
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

    /// Lets an integration wait. What it wants is kept as long as the log keeps it.
    ///
    /// # Errors
    /// Where there is none, or the file refuses.
    pub async fn pause(&self, id: &str) -> Result<Integration, ChangeError> {
        self.set_paused(id, true).await
    }

    /// Lets an integration go on from the oldest message that is kept for it.
    ///
    /// # Errors
    /// Where there is none, or the file refuses.
    pub async fn resume(&self, id: &str) -> Result<Integration, ChangeError> {
        self.set_paused(id, false).await
    }

    async fn set_paused(&self, id: &str, paused: bool) -> Result<Integration, ChangeError> {
        let (all, id) = (self.clone(), id.to_owned());
        self.change(|mut engine| async move {
            let integration = all.found(&id).await?;
            if integration.paused == paused {
                return Ok(integration);
            }
            // First: what it saves when it ends must not be forgotten.
            if let Some(forwarder) = engine.forwarders.remove(&id) {
                forwarder.stop(CHANGE_GRACE).await;
            }
            let row = id.clone();
            let written = all.stored(move |store| store.set_paused(&row, paused)).await;
            // Also where that failed: then it goes on as before.
            let integration = all.run_anew(&mut engine, &id).await?;
            written?;
            Ok(integration)
        })
        .await
    }
}

/// An integration that was just stored is there.
fn lost(error: ChangeError) -> CreateError {
    match error {
        ChangeError::Store(error) => error.into(),
        _ => StoreError::CutOff.into(),
    }
}
