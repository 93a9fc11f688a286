//! The rows of integrations.

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use sealing::Sealer;
use vocabulary::Timestamp;

use super::{Store, StoreError};
use crate::event_type::EventTypes;
use crate::integration::{Integration, IntegrationState};
use crate::target::Target;

const COLUMNS: &str = "id, name, target, event_types, json_payload_enabled, delivery, state, \
    paused, error, created_at_us, updated_at_us, first_delivery_at_us";

/// How an insert or an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Yes,
    /// Another integration has the same target.
    Conflict,
    NotFound,
}

/// A rollout that somebody has to finish: the digest of its token, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rollout {
    digest: [u8; 32],
    until: Timestamp,
}

/// How an integration begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Beginning {
    /// What no other integration may have, in its one spelling.
    pub(crate) canonical: Option<String>,
    /// The place of the log that it starts at.
    pub(crate) start: Option<u64>,
    /// Where it does not know yet where events go.
    pub(crate) rollout: Option<Rollout>,
}

impl Rollout {
    pub(crate) fn new(token: &str, until: Timestamp) -> Self {
        Self { digest: digest_of(token), until }
    }
}

/// The digest of a target's canonical form, or of a token: enough to find it again.
pub(crate) fn digest_of(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// The target as it lies in the file: sealed for the row of the integration.
pub(super) fn seal_target(
    sealer: &Sealer,
    id: &str,
    target: &Target,
) -> Result<Vec<u8>, StoreError> {
    // A struct of texts and numbers always serialises.
    let text = zeroize::Zeroizing::new(serde_json::to_vec(target).unwrap_or_default());
    let sealed = sealer.seal(id.as_bytes(), &text);
    sealed.map_err(|source| StoreError::Sealed { id: id.to_owned(), source })
}

impl Store {
    /// Adds an integration.
    pub(crate) fn insert(
        &self,
        integration: &Integration,
        beginning: &Beginning,
    ) -> Result<Stored, StoreError> {
        let Beginning { canonical, start, rollout } = beginning;
        let target = seal_target(self.sealer(), &integration.id, &integration.target)?;
        stored(self.connection().execute(
            "INSERT INTO integrations (id, name, kind, target, target_digest, event_types,
                json_payload_enabled, delivery, state, paused, error, created_at_us,
                updated_at_us, position, rollout_digest, rollout_until_us)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            params![
                integration.id,
                integration.name,
                integration.target.kind(),
                target,
                canonical.as_deref().map(digest_of),
                integration.event_types.bits(),
                integration.json_payload_enabled,
                delivery_text(integration),
                integration.state.as_str(),
                integration.paused,
                integration.error,
                integration.created_at.as_micros(),
                integration.updated_at.as_micros(),
                start.map(super::bookmark::beginning),
                rollout.map(|rollout| rollout.digest),
                rollout.map(|rollout| rollout.until.as_micros()),
            ],
        ))
    }

    /// Writes what a customer can change. Without `canonical` it shares no more than before.
    pub(crate) fn update(
        &self,
        integration: &Integration,
        canonical: Option<&str>,
    ) -> Result<Stored, StoreError> {
        let target = seal_target(self.sealer(), &integration.id, &integration.target)?;
        stored(self.connection().execute(
            "UPDATE integrations SET target = ?2, target_digest = coalesce(?3, target_digest), event_types = ?4,
                json_payload_enabled = ?5, delivery = ?6, updated_at_us = ?7 WHERE id = ?1",
            params![
                integration.id,
                target,
                canonical.map(digest_of),
                integration.event_types.bits(),
                integration.json_payload_enabled,
                delivery_text(integration),
                integration.updated_at.as_micros(),
            ],
        ))
    }

    /// Writes a new state, and with it why it has failed. A state that is no failure forgets since
    /// when nothing was delivered.
    pub(crate) fn set_state(
        &self,
        id: &str,
        state: IntegrationState,
        error: Option<&str>,
    ) -> Result<Stored, StoreError> {
        stored(self.connection().execute(
            "UPDATE integrations SET state = ?2, error = ?3,
                trouble_since_us = iif(?3 IS NULL, NULL, trouble_since_us),
                trouble_told = iif(?3 IS NULL, 0, trouble_told) WHERE id = ?1",
            params![id, state.as_str(), error],
        ))
    }

    /// Writes whether an integration pauses. One that goes on counts its troubles anew.
    pub(crate) fn set_paused(&self, id: &str, paused: bool) -> Result<Stored, StoreError> {
        stored(self.connection().execute(
            "UPDATE integrations SET paused = ?2, trouble_since_us = NULL, trouble_told = 0
             WHERE id = ?1",
            params![id, paused],
        ))
    }

    /// The integration whose rollout `token` finishes at the moment `now`.
    pub(crate) fn find_rollout(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT id FROM integrations WHERE rollout_digest = ?1 AND rollout_until_us > ?2
            AND state = 'ROLLOUT_STARTED'";
        let parameters = params![digest_of(token), now.as_micros()];
        Ok(self.connection().query_row(sql, parameters, |row| row.get(0)).optional()?)
    }

    /// Rollouts that nobody has finished in time have failed, because of `error`.
    pub(crate) fn fail_rollouts(&self, now: Timestamp, error: &str) -> Result<usize, StoreError> {
        Ok(self.connection().execute(
            "UPDATE integrations SET state = 'ROLLOUT_FAILED', error = ?2
             WHERE state = 'ROLLOUT_STARTED' AND rollout_until_us <= ?1",
            params![now.as_micros(), error],
        )?)
    }

    /// Removes an integration with its dead letters and replays; `false` where there is none.
    pub(crate) fn delete(&self, id: &str) -> Result<bool, StoreError> {
        let rows = self.connection().execute("DELETE FROM integrations WHERE id = ?1", [id])?;
        Ok(rows > 0)
    }

    /// One integration.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Integration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM integrations WHERE id = ?1");
        let connection = self.connection();
        let mut statement = connection.prepare(&sql)?;
        statement.query_row([id], |row| Ok(read(self.sealer(), row))).optional()?.transpose()
    }

    /// All integrations, the oldest first. One that cannot be read (sealed under another data key,
    /// or of a kind that this release does not know) is left out, and holds up no other.
    pub(crate) fn list(&self) -> Result<Vec<Integration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM integrations ORDER BY created_at_us, id");
        let connection = self.connection();
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |row| Ok(read(self.sealer(), row)))?;
        let mut integrations = Vec::new();
        for row in rows {
            match row? {
                Ok(integration) => integrations.push(integration),
                Err(error @ StoreError::Sqlite(_)) => return Err(error),
                Err(error) => tracing::error!(%error, "an integration is left out"),
            }
        }
        Ok(integrations)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> Result<usize, StoreError> {
        let connection: &Connection = &self.connection();
        let count: i64 =
            connection.query_row("SELECT count(*) FROM integrations", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

fn delivery_text(integration: &Integration) -> String {
    // A struct of texts and numbers always serialises.
    serde_json::to_string(&integration.delivery).unwrap_or_default()
}

fn stored(result: rusqlite::Result<usize>) -> Result<Stored, StoreError> {
    match result {
        Ok(0) => Ok(Stored::NotFound),
        Ok(_) => Ok(Stored::Yes),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(Stored::Conflict)
        }
        Err(error) => Err(error.into()),
    }
}

fn read(sealer: &Sealer, row: &Row<'_>) -> Result<Integration, StoreError> {
    let id: String = row.get(0)?;
    let invalid = |field| StoreError::Row { id: id.clone(), field };
    let target = sealer
        .unseal(id.as_bytes(), &row.get::<_, Vec<u8>>(2)?)
        .map_err(|source| StoreError::Sealed { id: id.clone(), source })?;
    let target = serde_json::from_slice(&target).map_err(|_| invalid("target"))?;
    let event_types = EventTypes::from_bits(row.get(3)?).ok_or_else(|| invalid("event types"))?;
    let delivery =
        serde_json::from_str(&row.get::<_, String>(5)?).map_err(|_| invalid("delivery"))?;
    let state =
        IntegrationState::from_name(&row.get::<_, String>(6)?).ok_or_else(|| invalid("state"))?;
    Ok(Integration {
        name: row.get(1)?,
        target,
        event_types,
        json_payload_enabled: row.get(4)?,
        delivery,
        state,
        paused: row.get(7)?,
        error: row.get(8)?,
        created_at: Timestamp::from_micros(row.get(9)?),
        updated_at: Timestamp::from_micros(row.get(10)?),
        first_delivery_at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_micros),
        id,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::store;
    use super::*;
    use crate::delivery_options::{DeliveryOptions, RetryProfile};
    use crate::target::{MqttTarget, WebhookTarget};

    pub(in super::super) fn integration(id: &str) -> Integration {
        Integration {
            id: id.to_owned(),
            name: "a name".to_owned(),
            target: Target::Webhook(WebhookTarget {
                url: format!("https://h.example/{id}"),
                headers: [("x-api-key".to_owned(), "s3cret".to_owned())].into(),
                ..WebhookTarget::default()
            }),
            event_types: EventTypes::ALL,
            json_payload_enabled: true,
            delivery: DeliveryOptions::default(),
            state: IntegrationState::RolloutDone,
            paused: false,
            error: None,
            created_at: Timestamp::from_micros(1_000_001),
            updated_at: Timestamp::from_micros(1_000_002),
            first_delivery_at: None,
        }
    }

    fn shares(canonical: &str) -> Beginning {
        Beginning { canonical: Some(canonical.to_owned()), ..Beginning::default() }
    }

    #[test]
    fn an_integration_comes_back() {
        let (_folder, store) = store();
        let mut one = integration("one");
        assert_eq!(store.insert(&one, &shares("a")).unwrap(), Stored::Yes);
        assert_eq!(store.find("one").unwrap(), Some(one.clone()));
        one.target = Target::Mqtt(MqttTarget::default());
        one.json_payload_enabled = false;
        one.delivery.retry = RetryProfile::Compat1nce;
        assert_eq!(store.update(&one, Some("b")).unwrap(), Stored::Yes);
        assert_eq!(store.list().unwrap(), [one]);
        assert!(store.delete("one").unwrap() && !store.delete("one").unwrap());
        assert_eq!(store.count().unwrap(), 0);
    }

    #[test]
    fn one_target_belongs_to_one_integration() {
        let (_folder, store) = store();
        let (one, two) = (integration("one"), integration("two"));
        store.insert(&one, &shares("https://h/")).unwrap();
        assert_eq!(store.insert(&two, &shares("https://h/")).unwrap(), Stored::Conflict);
        store.insert(&two, &shares("https://h/2")).unwrap();
        assert_eq!(store.update(&two, Some("https://h/")).unwrap(), Stored::Conflict);
        assert_eq!(store.update(&integration("no"), Some("x")).unwrap(), Stored::NotFound);
        for id in ["three", "four"] {
            assert_eq!(store.insert(&integration(id), &Beginning::default()).unwrap(), Stored::Yes);
        }
    }

    #[test]
    fn a_failure_has_its_reason_until_it_is_over() {
        let (_folder, store) = store();
        store.insert(&integration("one"), &Beginning::default()).unwrap();
        store.set_state("one", IntegrationState::IntegrationFailed, Some("gone")).unwrap();
        assert_eq!(store.find("one").unwrap().unwrap().error.as_deref(), Some("gone"));
        store.set_state("one", IntegrationState::IntegrationActive, None).unwrap();
        assert_eq!(store.find("one").unwrap().unwrap().error, None);
        store.set_paused("one", true).unwrap();
        assert!(store.find("one").unwrap().unwrap().paused);
    }

    /// One row that did not open kept the whole gateway from starting.
    #[test]
    fn a_row_that_cannot_be_read_holds_up_no_other() {
        let (_folder, store) = store();
        for id in ["one", "two"] {
            store.insert(&integration(id), &Beginning::default()).unwrap();
        }
        let sql = "UPDATE integrations SET target = x'00' WHERE id = 'one'";
        store.connection().execute(sql, ()).unwrap();
        assert_eq!(store.list().unwrap(), [integration("two")]);
        assert!(matches!(store.find("one"), Err(StoreError::Sealed { .. })));
    }

    #[test]
    fn a_rollout_is_finished_by_its_token_in_time_only() {
        let (_folder, store) = store();
        let started = Integration { state: IntegrationState::RolloutStarted, ..integration("one") };
        let at = Timestamp::from_micros;
        let rollout = Some(Rollout::new("t", at(100)));
        store.insert(&started, &Beginning { rollout, ..Beginning::default() }).unwrap();
        assert_eq!(store.find_rollout("t", at(99)).unwrap().as_deref(), Some("one"));
        assert_eq!(store.find_rollout("t", at(100)).unwrap(), None);
        assert_eq!(store.find_rollout("x", at(99)).unwrap(), None);
        assert_eq!(store.fail_rollouts(at(99), "late").unwrap(), 0);
        assert_eq!(store.fail_rollouts(at(100), "late").unwrap(), 1);
        let failed = store.find("one").unwrap().unwrap();
        assert_eq!(failed.state, IntegrationState::RolloutFailed);
        assert_eq!(failed.error.as_deref(), Some("late"));
    }
}
