//! Replays: what is delivered again because somebody asked for it.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use vocabulary::{Protocol, Timestamp};

use super::{DeadLetterFilter, Store, StoreError, dead_letters, from_column, to_column};
use crate::progress::{ReplayJob, ReplayProgress, ReplaySource};
use crate::window::Position;

/// A replay, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its id.
    pub id: String,
    /// The integration that delivers it.
    pub integration: String,
    /// Whether it delivers dead letters; else a part of the log.
    pub of_dead_letters: bool,
    /// Where it stands.
    pub state: ReplayState,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Events delivered.
    pub delivered: u64,
    /// Events that became dead letters.
    pub failed: u64,
    /// Events that there was nothing to deliver of: expired, or not translatable.
    pub passed_over: u64,
}

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// It delivers, as soon as its integration does.
    Running,
    /// All of it was dealt with.
    Done,
    /// Somebody ended it.
    Cancelled,
}

/// A replay to be kept.
#[derive(Debug, Clone)]
pub(crate) struct NewReplay {
    pub(crate) id: String,
    pub(crate) integration: String,
    pub(crate) source: ReplaySource,
    pub(crate) versions: Vec<(Protocol, u32)>,
    pub(crate) created_at: Timestamp,
}

/// A part of the log in the column; dead letters are `null`.
#[derive(Serialize, Deserialize)]
struct Part {
    start: u64,
    end: u64,
    from_us: Option<i64>,
    until_us: Option<i64>,
    devices: Vec<u64>,
}

const COLUMNS: &str = "id, integration, source = 'null', state, created_at_us, ended_at_us, \
    delivered, failed, passed_over";

impl ReplayState {
    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Done => "DONE",
            Self::Cancelled => "CANCELLED",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Cancelled].into_iter().find(|at| at.as_str() == name)
    }
}

impl Store {
    /// Adds a replay. One of dead letters takes those that `filter` finds; says how many, and adds
    /// nothing where there are none.
    pub(crate) fn insert_replay(
        &self,
        new: &NewReplay,
        filter: &DeadLetterFilter,
    ) -> Result<usize, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT INTO replays (id, integration, source, versions, state, created_at_us)
             VALUES (?1, ?2, ?3, ?4, 'RUNNING', ?5)",
            params![
                new.id,
                new.integration,
                source_text(&new.source),
                versions_text(&new.versions),
                new.created_at.as_micros(),
            ],
        )?;
        if new.source != ReplaySource::DeadLetters {
            transaction.commit()?;
            return Ok(0);
        }
        let of_what = (new.integration.as_str(), new.id.as_str());
        let letters = dead_letters::assign(&transaction, of_what, filter)?;
        if letters > 0 {
            transaction.commit()?;
        }
        Ok(letters)
    }

    /// All replays, the newest first; of one integration where it is named.
    pub(crate) fn replays(&self, integration: Option<&str>) -> Result<Vec<Replay>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM replays WHERE ?1 IS NULL OR integration = ?1
             ORDER BY created_at_us DESC, id"
        ))?;
        let rows = statement.query_map([integration], |row| Ok(read(row)))?;
        rows.map(|row| row?).collect()
    }

    /// One replay.
    pub(crate) fn replay(&self, id: &str) -> Result<Option<Replay>, StoreError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare(&format!("SELECT {COLUMNS} FROM replays WHERE id = ?1"))?;
        statement.query_row([id], |row| Ok(read(row))).optional()?.transpose()
    }

    /// Ends a replay that runs; `false` where it does not.
    pub(crate) fn cancel_replay(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let rows = transaction.execute(
            "UPDATE replays SET state = 'CANCELLED', ended_at_us = ?2
             WHERE id = ?1 AND state = 'RUNNING'",
            params![id, now.as_micros()],
        )?;
        dead_letters::release(&transaction, id)?;
        transaction.commit()?;
        Ok(rows > 0)
    }

    /// Forgets replays that ended before `moment`.
    pub(crate) fn forget_replays(&self, moment: Timestamp) -> Result<usize, StoreError> {
        let sql = "DELETE FROM replays WHERE ended_at_us < ?1";
        Ok(self.connection().execute(sql, [moment.as_micros()])?)
    }
}

/// The replays of an integration that are not at their end, the oldest first.
pub(super) fn running(
    connection: &Connection,
    integration: &str,
) -> Result<Vec<ReplayJob>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT id, source, versions, position FROM replays
         WHERE integration = ?1 AND state = 'RUNNING' ORDER BY created_at_us, id",
    )?;
    let rows = statement.query_map([integration], |row| Ok(read_job(row)))?;
    rows.map(|row| row?).collect()
}

/// Keeps how far a replay has come. What it delivered are dead letters no more.
pub(super) fn note(
    transaction: &Transaction<'_>,
    integration: &str,
    progress: &ReplayProgress,
) -> rusqlite::Result<()> {
    dead_letters::settle(transaction, integration, &progress.settled)?;
    let mut statement = transaction.prepare(
        "UPDATE replays SET position = ?2, delivered = delivered + ?3, failed = failed + ?4,
            passed_over = passed_over + ?5,
            state = iif(?6 AND state = 'RUNNING', 'DONE', state),
            ended_at_us = iif(?6, coalesce(ended_at_us, ?7), ended_at_us)
         WHERE id = ?1",
    )?;
    let now = Timestamp::from(std::time::SystemTime::now());
    statement.execute(params![
        progress.id,
        progress.position.encode(),
        to_column(progress.delivered),
        to_column(progress.failed),
        to_column(progress.passed_over),
        progress.ended,
        now.as_micros(),
    ])?;
    if progress.ended {
        dead_letters::release(transaction, &progress.id)?;
    }
    Ok(())
}

fn source_text(source: &ReplaySource) -> String {
    let part = match source {
        ReplaySource::DeadLetters => None,
        ReplaySource::Log { start, end, from, until, devices } => Some(Part {
            start: *start,
            end: *end,
            from_us: from.map(Timestamp::as_micros),
            until_us: until.map(Timestamp::as_micros),
            devices: devices.clone(),
        }),
    };
    // A struct of numbers always serialises.
    serde_json::to_string(&part).unwrap_or_default()
}

fn source_of(text: &str) -> Option<ReplaySource> {
    let part: Option<Part> = serde_json::from_str(text).ok()?;
    let Some(part) = part else { return Some(ReplaySource::DeadLetters) };
    Some(ReplaySource::Log {
        start: part.start,
        end: part.end,
        from: part.from_us.map(Timestamp::from_micros),
        until: part.until_us.map(Timestamp::from_micros),
        devices: part.devices,
    })
}

fn versions_text(versions: &[(Protocol, u32)]) -> String {
    let pairs: Vec<_> = versions.iter().map(|(at, version)| (at.as_str(), version)).collect();
    serde_json::to_string(&pairs).unwrap_or_default()
}

fn versions_of(text: &str) -> Option<Vec<(Protocol, u32)>> {
    let pairs: Vec<(String, u32)> = serde_json::from_str(text).ok()?;
    pairs.into_iter().map(|(name, version)| Some((name.parse().ok()?, version))).collect()
}

fn read(row: &Row<'_>) -> Result<Replay, StoreError> {
    let id: String = row.get(0)?;
    let state = ReplayState::from_name(&row.get::<_, String>(3)?)
        .ok_or_else(|| StoreError::Row { id: id.clone(), field: "state of a replay" })?;
    Ok(Replay {
        id,
        integration: row.get(1)?,
        of_dead_letters: row.get(2)?,
        state,
        created_at: Timestamp::from_micros(row.get(4)?),
        ended_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
        delivered: from_column(row.get(6)?),
        failed: from_column(row.get(7)?),
        passed_over: from_column(row.get(8)?),
    })
}

fn read_job(row: &Row<'_>) -> Result<ReplayJob, StoreError> {
    let id: String = row.get(0)?;
    let invalid = |field| StoreError::Row { id: id.clone(), field };
    let source = source_of(&row.get::<_, String>(1)?).ok_or_else(|| invalid("source"))?;
    let versions = versions_of(&row.get::<_, String>(2)?).ok_or_else(|| invalid("versions"))?;
    let position = match row.get::<_, Option<Vec<u8>>>(3)? {
        Some(bytes) => Some(Position::decode(&bytes).ok_or_else(|| invalid("position"))?),
        None => None,
    };
    Ok(ReplayJob { id, source, versions, position })
}

#[cfg(test)]
mod tests {
    use vocabulary::EventId;

    use super::super::integrations::Beginning;
    use super::super::integrations::tests::integration;
    use super::super::tests::store;
    use super::*;
    use crate::event_type::EventType;
    use crate::progress::{DeadLetter, Progress};
    use crate::sink::{Answer, Failure, FailureClass};

    fn letter(place: u64, class: FailureClass) -> DeadLetter {
        let text = format!("msg_01GHZX5Q3M00000000000000{place:02}");
        DeadLetter {
            place,
            id: text.parse().unwrap(),
            device: 8_988_280_666_000_000_000 + place % 2,
            event_type: EventType::TelemetryData,
            received_at: Timestamp::from_micros(i64::try_from(place).unwrap() * 1_000_000),
            died_at: Timestamp::from_micros(99),
            failure: Failure {
                class,
                text: "no".to_owned(),
                answer: Some(Answer { code: 400, text: "bad".to_owned() }),
            },
            attempts: 3,
        }
    }

    fn with_letters() -> (tempfile::TempDir, Store) {
        let (folder, store) = store();
        store.insert(&integration("one"), &Beginning::default()).unwrap();
        let classes = [FailureClass::Refused, FailureClass::Refused, FailureClass::TooLarge];
        let dead = classes.into_iter().zip(5..).map(|(class, place)| letter(place, class));
        let progress = Progress { dead: dead.collect(), ..Progress::default() };
        store.bookmark("one").save(&progress).unwrap();
        (folder, store)
    }

    fn found(store: &Store, filter: DeadLetterFilter) -> Vec<u64> {
        let (entries, total) = store.dead_letters("one", &filter, (0, 10)).unwrap();
        assert_eq!(entries.len(), total);
        entries.iter().map(|entry| entry.place).collect()
    }

    #[test]
    fn dead_letters_are_found_by_each_part_of_a_filter() {
        let (_folder, store) = with_letters();
        let any = DeadLetterFilter::default;
        assert_eq!(found(&store, any()), [5, 6, 7]);
        let ids: Vec<EventId> = vec![letter(6, FailureClass::Gone).id];
        assert_eq!(found(&store, DeadLetterFilter { ids, ..any() }), [6]);
        let class = Some("too_large".to_owned());
        assert_eq!(found(&store, DeadLetterFilter { class, ..any() }), [7]);
        let iccid = vocabulary::Iccid::from_u64(8_988_280_666_000_000_001);
        assert_eq!(found(&store, DeadLetterFilter { iccid, ..any() }), [5, 7]);
        let [from, until] = [6, 7].map(|secs| Some(Timestamp::from_micros(secs * 1_000_000)));
        assert_eq!(found(&store, DeadLetterFilter { from, until, ..any() }), [6]);
        let page = store.dead_letters("one", &any(), (1, 1)).unwrap();
        assert_eq!((page.0[0].place, page.1), (6, 3));
        assert_eq!(page.0[0].answer.as_ref().unwrap().text, "bad");
        assert_eq!(store.expire_dead_letters(6).unwrap(), 1);
        assert_eq!(store.forget_dead_letters("one", &any()).unwrap(), 2);
        assert_eq!(store.bookmark("one").dead_count().unwrap(), 0);
    }

    /// A device that named topics which no request can be made of filled the disk, and ended its
    /// integration for all others.
    #[test]
    fn what_a_device_spoils_itself_is_kept_in_small_numbers_and_blames_no_endpoint() {
        let (_folder, store) = with_letters();
        let dead = (0..150).map(|place| DeadLetter {
            place: 100 + place,
            device: 7,
            ..letter(8, FailureClass::Request)
        });
        let progress = Progress { dead: dead.collect(), ..Progress::default() };
        let bookmark = store.bookmark("one");
        bookmark.save(&progress).unwrap();
        assert_eq!(bookmark.dead_count().unwrap(), 3);
        assert_eq!(store.count_dead_letters("one").unwrap(), 103);
        let class = Some("request".to_owned());
        let filter = DeadLetterFilter { class, ..DeadLetterFilter::default() };
        let (kept, total) = store.dead_letters("one", &filter, (0, 1)).unwrap();
        assert_eq!((kept[0].place, total), (150, 100));
    }

    fn replay(id: &str, source: ReplaySource) -> NewReplay {
        NewReplay {
            id: id.to_owned(),
            integration: "one".to_owned(),
            source,
            versions: vec![(Protocol::Udp, 7)],
            created_at: Timestamp::from_micros(1),
        }
    }

    #[test]
    fn dead_letters_belong_to_one_replay_until_it_has_dealt_with_them() {
        let (_folder, store) = with_letters();
        let new = replay("again", ReplaySource::DeadLetters);
        let class = Some("refused".to_owned());
        let filter = DeadLetterFilter { class, ..DeadLetterFilter::default() };
        assert_eq!(store.insert_replay(&new, &filter).unwrap(), 2);
        let other = replay("other", ReplaySource::DeadLetters);
        assert_eq!(store.insert_replay(&other, &filter).unwrap(), 0);
        assert_eq!(store.replays(None).unwrap().len(), 1);
        let bookmark = store.bookmark("one");
        assert_eq!(bookmark.dead_places("again", 0, 9).unwrap(), [5, 6]);
        assert_eq!(bookmark.dead_places("again", 6, 9).unwrap(), [6]);
        let ended = ReplayProgress {
            id: "again".to_owned(),
            delivered: 1,
            failed: 1,
            ended: true,
            settled: vec![5],
            ..ReplayProgress::default()
        };
        let dead = vec![letter(6, FailureClass::Status)];
        bookmark.save(&Progress { dead, replays: vec![ended], ..Progress::default() }).unwrap();
        let entries = store.dead_letters("one", &DeadLetterFilter::default(), (0, 9)).unwrap().0;
        assert_eq!(entries.iter().map(|entry| entry.place).collect::<Vec<_>>(), [6, 7]);
        assert_eq!((entries[0].attempts, entries[0].class.as_str()), (6, "status"));
        assert!(entries.iter().all(|entry| entry.replay.is_none()));
        let shown = store.replay("again").unwrap().unwrap();
        assert_eq!((shown.state, shown.delivered, shown.failed), (ReplayState::Done, 1, 1));
        assert!(bookmark.replays().unwrap().is_empty());
    }

    #[test]
    fn a_part_of_the_log_comes_back_as_a_job_and_can_be_cancelled() {
        let (_folder, store) = with_letters();
        let source = ReplaySource::Log {
            start: 4,
            end: 90,
            from: Some(Timestamp::from_micros(-5)),
            until: None,
            devices: vec![u64::MAX],
        };
        let new = replay("part", source.clone());
        store.insert_replay(&new, &DeadLetterFilter::default()).unwrap();
        let job = store.bookmark("one").replays().unwrap().remove(0);
        assert_eq!((job.source, job.versions), (source, vec![(Protocol::Udp, 7)]));
        assert_eq!(job.position, None);
        let now = Timestamp::from_micros(50);
        assert!(store.cancel_replay("part", now).unwrap());
        assert!(!store.cancel_replay("part", now).unwrap());
        assert!(store.bookmark("one").replays().unwrap().is_empty());
        assert_eq!(store.forget_replays(Timestamp::from_micros(51)).unwrap(), 1);
        assert_eq!(store.replay("part").unwrap(), None);
    }
}
