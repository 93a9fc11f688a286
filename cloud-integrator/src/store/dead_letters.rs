//! Events that were given up, with the reason, until their retention ends or they are replayed.

use rusqlite::{Connection, Row, Transaction, params, params_from_iter, types::Value};
use vocabulary::{EventId, Iccid, Timestamp};

use super::{Store, StoreError, from_column, to_column};
use crate::progress::DeadLetter;
use crate::sink::{Answer, FailureClass};

/// Dead letters of one integration at most: an endpoint that refuses more does not work, whatever
/// its other answers are. An estimate; 1.5 KB each where the endpoint explains itself.
pub const DEAD_LETTERS_MAX: u64 = 100_000;

/// Dead letters of one device of which no request could be made, at most. Their messages stay in
/// the history.
const REQUESTS_PER_DEVICE: u32 = 100;

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterEntry {
    /// Its id.
    pub id: EventId,
    /// The device that it is about.
    pub iccid: Option<Iccid>,
    /// The name of its type.
    pub event_type: String,
    /// When the gateway accepted it.
    pub received_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
    /// The class of its last failure.
    pub class: String,
    /// What happened, for a person.
    pub reason: String,
    /// What the endpoint answered.
    pub answer: Option<Answer>,
    /// How often it was tried.
    pub attempts: u32,
    /// The replay that is to deliver it.
    pub replay: Option<String>,
    pub(crate) place: u64,
}

/// Which dead letters. What is absent does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterFilter {
    /// These.
    pub ids: Vec<EventId>,
    /// Of this device.
    pub iccid: Option<Iccid>,
    /// Received at this moment or later.
    pub from: Option<Timestamp>,
    /// Received before this moment.
    pub until: Option<Timestamp>,
    /// Of this class of failure.
    pub class: Option<String>,
}

impl DeadLetterFilter {
    /// The condition in SQL, and its parameters from the second on; the first is the integration.
    fn condition(&self, integration: &str) -> (String, Vec<Value>) {
        let mut sql = "integration = ?1".to_owned();
        let mut values: Vec<Value> = vec![integration.to_owned().into()];
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(" AND ");
            sql.push_str(&condition.replace('?', &format!("?{}", values.len())));
        };
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.iter().map(EventId::to_string).collect();
            // A list of texts always serialises.
            let list = serde_json::to_string(&ids).unwrap_or_default();
            and("id IN (SELECT value FROM json_each(?))", list.into());
        }
        if let Some(iccid) = self.iccid {
            and("device = ?", to_column(iccid.as_u64()).into());
        }
        if let Some(from) = self.from {
            and("received_at_us >= ?", from.as_micros().into());
        }
        if let Some(until) = self.until {
            and("received_at_us < ?", until.as_micros().into());
        }
        if let Some(class) = &self.class {
            and("class = ?", class.clone().into());
        }
        (sql, values)
    }
}

impl Store {
    /// A page of dead letters, in the order of the log, and how many the filter finds in all.
    pub(crate) fn dead_letters(
        &self,
        integration: &str,
        filter: &DeadLetterFilter,
        (skip, most): (usize, usize),
    ) -> Result<(Vec<DeadLetterEntry>, usize), StoreError> {
        let (condition, values) = filter.condition(integration);
        let connection = self.connection();
        let total: i64 = connection.query_row(
            &format!("SELECT count(*) FROM dead_letters WHERE {condition}"),
            params_from_iter(&values),
            |row| row.get(0),
        )?;
        let mut statement = connection.prepare(&format!(
            "SELECT id, device, event_type, received_at_us, died_at_us, class, reason, answer_code,
                answer, attempts, replay, place FROM dead_letters WHERE {condition}
             ORDER BY place LIMIT {most} OFFSET {skip}"
        ))?;
        let rows = statement.query_map(params_from_iter(&values), |row| Ok(read(row)))?;
        let entries = rows.map(|row| row?).collect::<Result<_, StoreError>>()?;
        Ok((entries, usize::try_from(total).unwrap_or(usize::MAX)))
    }

    /// How many dead letters an integration has.
    pub(crate) fn count_dead_letters(&self, integration: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE integration = ?1";
        Ok(self.connection().query_row(sql, [integration], |row| row.get(0)).map(from_column)?)
    }

    /// Forgets dead letters; says how many.
    pub(crate) fn forget_dead_letters(
        &self,
        integration: &str,
        filter: &DeadLetterFilter,
    ) -> Result<usize, StoreError> {
        let (condition, values) = filter.condition(integration);
        let sql = format!("DELETE FROM dead_letters WHERE {condition}");
        Ok(self.connection().execute(&sql, params_from_iter(&values))?)
    }

    /// Forgets the dead letters below the oldest place of the log: there is nothing to deliver.
    pub(crate) fn expire_dead_letters(&self, oldest: u64) -> Result<usize, StoreError> {
        // By the primary key: without the first column it would be a look at every row.
        let sql = "DELETE FROM dead_letters
            WHERE integration IN (SELECT id FROM integrations) AND place < ?1";
        Ok(self.connection().execute(sql, [to_column(oldest)])?)
    }
}

/// Gives the dead letters that `filter` finds, and that no other replay has, to a replay. Says how
/// many.
pub(super) fn assign(
    transaction: &Transaction<'_>,
    (integration, replay): (&str, &str),
    filter: &DeadLetterFilter,
) -> rusqlite::Result<usize> {
    let (condition, mut values) = filter.condition(integration);
    values.push(replay.to_owned().into());
    let number = values.len();
    transaction.execute(
        &format!("UPDATE dead_letters SET replay = ?{number} WHERE {condition} AND replay IS NULL"),
        params_from_iter(&values),
    )
}

/// Adds dead letters; one that was one before is renewed and belongs to no replay any more.
pub(super) fn bury(
    transaction: &Transaction<'_>,
    integration: &str,
    letters: &[DeadLetter],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "INSERT INTO dead_letters (integration, place, id, device, event_type, received_at_us,
            died_at_us, class, reason, answer_code, answer, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (integration, place) DO UPDATE SET id = excluded.id, device = excluded.device,
            event_type = excluded.event_type, received_at_us = excluded.received_at_us,
            died_at_us = excluded.died_at_us,
            class = excluded.class, reason = excluded.reason, answer_code = excluded.answer_code,
            answer = excluded.answer, attempts = attempts + excluded.attempts, replay = NULL",
    )?;
    for letter in letters {
        let answer = letter.failure.answer.as_ref();
        statement.execute(params![
            integration,
            to_column(letter.place),
            letter.id.to_string(),
            to_column(letter.device),
            letter.event_type.as_str(),
            letter.received_at.as_micros(),
            letter.died_at.as_micros(),
            letter.failure.class.as_str(),
            letter.failure.text,
            answer.map(|answer| answer.code),
            answer.map(|answer| &answer.text),
            letter.attempts,
        ])?;
        if letter.failure.class == FailureClass::Request {
            cap_requests(transaction, integration, letter.device)?;
        }
    }
    Ok(())
}

/// Forgets the oldest dead letters of a device of which no request could be made: whatever a
/// device names as its topic, it fills neither the disk nor what others may fail by.
fn cap_requests(
    transaction: &Transaction<'_>,
    integration: &str,
    device: u64,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare(
        "DELETE FROM dead_letters WHERE integration = ?1 AND place IN (
            SELECT place FROM dead_letters
            WHERE integration = ?1 AND device = ?2 AND class = ?3
            ORDER BY place DESC LIMIT -1 OFFSET ?4)",
    )?;
    let class = FailureClass::Request.as_str();
    statement.execute(params![integration, to_column(device), class, REQUESTS_PER_DEVICE])?;
    Ok(())
}

/// Removes the dead letters at these places: they were delivered.
pub(super) fn settle(
    transaction: &Transaction<'_>,
    integration: &str,
    places: &[u64],
) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare("DELETE FROM dead_letters WHERE integration = ?1 AND place = ?2")?;
    for place in places {
        statement.execute(params![integration, to_column(*place)])?;
    }
    Ok(())
}

/// What a replay leaves behind when it ends waits for another one.
pub(super) fn release(transaction: &Transaction<'_>, replay: &str) -> rusqlite::Result<()> {
    transaction.execute("UPDATE dead_letters SET replay = NULL WHERE replay = ?1", [replay])?;
    Ok(())
}

/// Up to `most` places of a replay's dead letters from `from` on, in rising order.
pub(super) fn places(
    connection: &Connection,
    replay: &str,
    from: u64,
    most: usize,
) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare(
        "SELECT place FROM dead_letters WHERE replay = ?1 AND place >= ?2 ORDER BY place LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![replay, to_column(from), most], |row| row.get(0))?;
    rows.map(|place| place.map(from_column)).collect()
}

/// How many dead letters an integration has that say something about its endpoint.
pub(super) fn count_blaming(connection: &Connection, integration: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM dead_letters WHERE integration = ?1 AND class <> 'request'";
    connection.query_row(sql, [integration], |row| row.get(0)).map(from_column)
}

fn read(row: &Row<'_>) -> Result<DeadLetterEntry, StoreError> {
    let text: String = row.get(0)?;
    let id = text.parse().map_err(|_| StoreError::Row { id: text, field: "dead letter" })?;
    let answer = match (row.get(7)?, row.get(8)?) {
        (Some(code), Some(text)) => Some(Answer { code, text }),
        _ => None,
    };
    Ok(DeadLetterEntry {
        id,
        iccid: match from_column(row.get(1)?) {
            0 => None,
            device => Iccid::from_u64(device),
        },
        event_type: row.get(2)?,
        received_at: Timestamp::from_micros(row.get(3)?),
        died_at: Timestamp::from_micros(row.get(4)?),
        class: row.get(5)?,
        reason: row.get(6)?,
        answer,
        attempts: row.get(9)?,
        replay: row.get(10)?,
        place: from_column(row.get(11)?),
    })
}
