//! Where one integration keeps its place in the log, and what comes with it.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction, params};
use vocabulary::Timestamp;

use super::{Store, StoreError, dead_letters, replays};
use crate::integration::IntegrationState;
use crate::progress::{Progress, ReplayJob, Saved, Trouble};
use crate::window::Position;

/// Where one integration keeps its place in the log. Cheap to clone; every call blocks.
#[derive(Debug, Clone)]
pub struct Bookmark {
    store: Store,
    id: Arc<str>,
}

/// The position of an integration that starts at the place `start`, as it is kept.
pub(super) fn beginning(start: u64) -> Vec<u8> {
    Position { resume: start, ..Position::default() }.encode()
}

impl Bookmark {
    pub(super) fn new(store: Store, id: &str) -> Self {
        Self { store, id: id.into() }
    }

    /// The integration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The lowest place of the log that is not done; `None` before the first run.
    ///
    /// # Errors
    /// Where the state file refuses.
    pub fn cursor(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.load()?.position.map(|position| position.cursor()))
    }

    /// What was saved.
    pub(crate) fn load(&self) -> Result<Saved, StoreError> {
        let sql = "SELECT position, filter, trouble_since_us, trouble_told,
            state = ?2, trouble_lasted_us FROM integrations WHERE id = ?1";
        let active = IntegrationState::IntegrationActive.as_str();
        let connection = self.store.connection();
        let found = connection.query_row(sql, params![&*self.id, active], |row| {
            let since: Option<i64> = row.get(2)?;
            let told = row.get(3)?;
            let lasted = Duration::from_micros(row.get::<_, i64>(5)?.unsigned_abs());
            let trouble = |us| Trouble { since: Timestamp::from_micros(us), lasted, told };
            let saved = Saved {
                position: None,
                filter: row.get::<_, Option<Vec<u8>>>(1)?.map(Into::into),
                trouble: since.map(trouble),
                delivered: row.get(4)?,
            };
            Ok((row.get::<_, Option<Vec<u8>>>(0)?, saved))
        });
        let Some((position, saved)) = found.optional()? else { return Ok(Saved::default()) };
        let position = match position {
            Some(bytes) => Some(Position::decode(&bytes).ok_or_else(|| self.invalid("position"))?),
            None => None,
        };
        Ok(Saved { position, ..saved })
    }

    /// Keeps the place and what was achieved, all at once. Durable when it returns.
    pub(crate) fn save(&self, progress: &Progress) -> Result<(), StoreError> {
        let mut connection = self.store.connection();
        let transaction = connection.transaction()?;
        self.save_place(&transaction, progress)?;
        dead_letters::bury(&transaction, &self.id, &progress.dead)?;
        for replay in &progress.replays {
            replays::note(&transaction, &self.id, replay)?;
        }
        Ok(transaction.commit()?)
    }

    fn save_place(
        &self,
        transaction: &Transaction<'_>,
        progress: &Progress,
    ) -> rusqlite::Result<()> {
        transaction
            .prepare(
                "UPDATE integrations SET position = ?2, filter = coalesce(?3, filter),
                state = CASE WHEN ?4 AND state = ?5 THEN ?6 ELSE state END,
                first_delivery_at_us = coalesce(first_delivery_at_us, ?7),
                trouble_since_us = ?8, trouble_told = ?9, trouble_lasted_us = ?10
             WHERE id = ?1",
            )?
            .execute(params![
                &*self.id,
                progress.position.encode(),
                progress.filter.as_deref(),
                progress.delivered,
                IntegrationState::RolloutDone.as_str(),
                IntegrationState::IntegrationActive.as_str(),
                progress.first_delivery_at.map(Timestamp::as_micros),
                progress.trouble.map(|trouble| trouble.since.as_micros()),
                progress.trouble.map_or(0, |trouble| trouble.told),
                progress.trouble.map_or(0, |trouble| micros(trouble.lasted)),
            ])?;
        Ok(())
    }

    /// The integration has failed because of `error`. Durable when it returns.
    pub(crate) fn fail(&self, error: &str) -> Result<(), StoreError> {
        let failed = IntegrationState::IntegrationFailed;
        self.store.set_state(&self.id, failed, Some(error)).map(|_| ())
    }

    /// The integration's name; `None` where it was deleted.
    pub(crate) fn name(&self) -> Result<Option<String>, StoreError> {
        let connection = self.store.connection();
        let sql = "SELECT name FROM integrations WHERE id = ?1";
        Ok(connection.query_row(sql, [&*self.id], |row| row.get(0)).optional()?)
    }

    /// The replays that are not at their end, the oldest first.
    pub(crate) fn replays(&self) -> Result<Vec<ReplayJob>, StoreError> {
        replays::running(&self.store.connection(), &self.id)
    }

    /// Up to `most` places of the dead letters of a replay, from the place `from` on, in rising
    /// order.
    pub(crate) fn dead_places(
        &self,
        replay: &str,
        from: u64,
        most: usize,
    ) -> Result<Vec<u64>, StoreError> {
        Ok(dead_letters::places(&self.store.connection(), replay, from, most)?)
    }

    /// Whether there is any dead letter.
    pub(crate) fn has_dead(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE integration = ?1)";
        Ok(self.store.connection().query_row(sql, [&*self.id], |row| row.get(0))?)
    }

    /// How many dead letters there are that say something about the endpoint.
    pub(crate) fn dead_count(&self) -> Result<u64, StoreError> {
        Ok(dead_letters::count_blaming(&self.store.connection(), &self.id)?)
    }

    fn invalid(&self, field: &'static str) -> StoreError {
        StoreError::Row { id: self.id.to_string(), field }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::integrations::Beginning;
    use super::super::integrations::tests::integration;
    use super::super::tests::store;
    use super::*;

    #[test]
    fn the_first_delivery_is_kept_and_changes_the_state_once() {
        let (_folder, store) = store();
        store
            .insert(&integration("one"), &Beginning { start: Some(7), ..Beginning::default() })
            .unwrap();
        let bookmark = store.bookmark("one");
        assert_eq!(bookmark.cursor().unwrap(), Some(7));
        let at = |resume, holes| Progress {
            position: Position { resume, holes, ..Position::default() },
            ..Progress::default()
        };
        bookmark.save(&at(500, vec![5, 400])).unwrap();
        assert_eq!(bookmark.cursor().unwrap(), Some(5));
        assert_eq!(bookmark.load().unwrap().position, Some(at(500, vec![5, 400]).position));
        assert_eq!(store.find("one").unwrap().unwrap().state, IntegrationState::RolloutDone);
        for (cursor, micros) in [(6, 70), (7, 80)] {
            let first_delivery_at = Some(Timestamp::from_micros(micros));
            let progress = Progress { delivered: true, first_delivery_at, ..at(cursor, vec![]) };
            bookmark.save(&progress).unwrap();
        }
        let found = store.find("one").unwrap().unwrap();
        assert_eq!(found.state, IntegrationState::IntegrationActive);
        assert_eq!(found.first_delivery_at, Some(Timestamp::from_micros(70)));
        bookmark.fail("gone").unwrap();
        bookmark.save(&Progress { delivered: true, ..at(8, vec![]) }).unwrap();
        assert_eq!(store.find("one").unwrap().unwrap().state, IntegrationState::IntegrationFailed);
    }

    #[test]
    fn trouble_and_the_filter_are_kept() {
        let (_folder, store) = store();
        store.insert(&integration("one"), &Beginning::default()).unwrap();
        let bookmark = store.bookmark("one");
        assert_eq!(bookmark.load().unwrap(), Saved::default());
        let trouble = Some(Trouble {
            since: Timestamp::from_micros(5),
            lasted: Duration::from_micros(77),
            told: 2,
        });
        let filter: Option<Arc<[u8]>> = Some([1, 2].into());
        bookmark
            .save(&Progress { trouble, filter: filter.clone(), ..Progress::default() })
            .unwrap();
        bookmark.save(&Progress { trouble, ..Progress::default() }).unwrap();
        let saved = bookmark.load().unwrap();
        assert_eq!((saved.trouble, saved.filter), (trouble, filter));
        bookmark.save(&Progress::default()).unwrap();
        assert_eq!(bookmark.load().unwrap().trouble, None);
    }
}
