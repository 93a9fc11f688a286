//! Many keys at once: accepted as a whole, set piece by piece.
//!
//! A job is durable when it is accepted. Its entries lie sealed beside it until all are set, and
//! each piece is set in one transaction with the count of it: a restart goes on where it stopped.

use std::error::Error as StdError;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row};
use sealing::Unopened;
use thiserror::Error;
use vocabulary::{Iccid, Timestamp};
use zeroize::Zeroizing;

use crate::keys::{Keys, StoreError};
use crate::{KeyFormat, KeyProtocol, Secret};

/// How long a job that is done is shown, as 1NCE OS documents it.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Jobs that may wait: 100,000 keys, which take some ten seconds.
pub const JOBS_WAITING_MAX: u32 = 20;
/// Jobs that are kept: as many as the 50 pages of 50 entries that the management API has.
pub const JOBS_SHOWN_MAX: u32 = 2_500;
/// Entries of one transaction: others wait for it some ten milliseconds.
const ENTRIES_PER_PIECE: usize = 500;

/// One key to be set.
#[derive(Debug)]
pub struct JobEntry {
    /// Whose.
    pub iccid: Iccid,
    /// What for.
    pub protocol: KeyProtocol,
    /// The key.
    pub secret: Secret,
}

/// Whether entries wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Some do.
    InProgress,
    /// All were set, or refused because there is no such device.
    Done,
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Counts up.
    pub id: i64,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it last went on.
    pub updated: Timestamp,
    /// Whether it is done.
    pub status: JobStatus,
    /// Its entries.
    pub amount: u32,
    /// Entries that were refused.
    pub failed: u32,
    /// Entries that were set.
    pub done: u32,
}

/// Why a job is not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// Too many wait.
    #[error("{JOBS_WAITING_MAX} jobs wait, allowed: {JOBS_WAITING_MAX}")]
    Full,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Waiting {
    id: i64,
    /// Entries that are done or failed: those in front.
    passed: u32,
    sealed: Vec<u8>,
}

impl Keys {
    /// Accepts keys to be set later, by [`Keys::work_off_jobs`]. Blocks; durable when it returns.
    pub fn accept_job(&self, entries: &[JobEntry], now: Timestamp) -> Result<(), AcceptError> {
        let text = encode(entries);
        let (accepted, _) = self.change(|connection, _| {
            forget(connection, now)?;
            let sql = "SELECT count(*) FROM psk_jobs WHERE sealed_entries IS NOT NULL";
            let waiting: u32 = connection.query_row(sql, (), |row| row.get(0))?;
            if waiting >= JOBS_WAITING_MAX {
                return Ok(false);
            }
            connection.execute(
                "INSERT INTO psk_jobs (created_us, updated_us, amount) VALUES (?1, ?1, ?2)",
                (now.as_micros(), u32::try_from(entries.len()).unwrap_or(u32::MAX)),
            )?;
            let id = connection.last_insert_rowid();
            let sealed = self.0.vault.seal(&place_of(id), &text)?;
            let sql = "UPDATE psk_jobs SET sealed_entries = ?2 WHERE id = ?1";
            connection.execute(sql, (id, sealed))?;
            Ok(true)
        })?;
        if accepted { Ok(()) } else { Err(AcceptError::Full) }
    }

    /// Jobs from the newest on, without `skip` of them, and how many there are. Blocks.
    pub fn jobs(
        &self,
        skip: u32,
        take: u32,
        now: Timestamp,
    ) -> Result<(Vec<Job>, u64), StoreError> {
        let reader = self.reader();
        let after = now.saturating_sub(KEPT_FOR).as_micros();
        let shown = "FROM psk_jobs WHERE created_us > ?1 OR sealed_entries IS NOT NULL";
        let sql = format!("SELECT count(*) {shown}");
        let total: u32 = reader.query_row(&sql, [after], |row| row.get(0))?;
        let mut statement = reader.prepare(&format!(
            "SELECT id, created_us, updated_us, sealed_entries IS NULL, amount, failed, done
             {shown} ORDER BY id DESC LIMIT ?2 OFFSET ?3"
        ))?;
        let jobs = statement.query_map((after, take, skip), read)?.collect::<Result<_, _>>()?;
        Ok((jobs, total.into()))
    }

    /// Sets the keys of all jobs that wait, of devices that `is_device` knows. Blocks; waits
    /// for another thread that is at it.
    pub fn work_off_jobs(
        &self,
        is_device: impl Fn(Iccid) -> Result<bool, Box<dyn StdError + Send + Sync>>,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let _worker = self.0.worker.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(job) = self.first_waiting()? {
            let opened = self.0.vault.open(&place_of(job.id), &job.sealed);
            let entries = opened.and_then(|text| decode(&text));
            let Ok(entries) = entries else {
                self.give_up(job.id, now())?;
                continue;
            };
            let rest = entries.get(job.passed as usize..).unwrap_or_default();
            for piece in rest.chunks(ENTRIES_PER_PIECE) {
                let known = piece.iter().map(|entry| is_device(entry.iccid));
                let known = known.collect::<Result<Vec<_>, _>>()?;
                self.set_piece(job.id, piece, &known, now())?;
            }
            if rest.is_empty() {
                self.give_up(job.id, now())?;
            }
        }
        Ok(())
    }

    fn first_waiting(&self) -> Result<Option<Waiting>, StoreError> {
        let sql = "SELECT id, done + failed, sealed_entries FROM psk_jobs
            WHERE sealed_entries IS NOT NULL ORDER BY id LIMIT 1";
        let read = |row: &Row<'_>| {
            Ok(Waiting { id: row.get(0)?, passed: row.get(1)?, sealed: row.get(2)? })
        };
        Ok(self.reader().query_row(sql, (), read).optional()?)
    }

    fn set_piece(
        &self,
        id: i64,
        piece: &[JobEntry],
        known: &[bool],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.change(|connection, changed| {
            for (entry, _) in piece.iter().zip(known).filter(|(_, known)| **known) {
                let of = (entry.iccid, entry.protocol);
                changed.push(self.set_within(connection, of, &entry.secret, now)?);
            }
            // A piece has at most 500.
            let [all, done] = [piece.len(), changed.len()].map(|count| count as i64);
            connection.execute(
                "UPDATE psk_jobs SET done = done + ?2, failed = failed + ?3, updated_us = ?4,
                     sealed_entries = iif(done + failed + ?2 + ?3 >= amount, NULL, sealed_entries)
                 WHERE id = ?1",
                (id, done, all - done, now.as_micros()),
            )?;
            Ok(())
        })?;
        Ok(())
    }

    /// Counts what is left of a job as failed.
    fn give_up(&self, id: i64, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE psk_jobs SET failed = amount - done, updated_us = ?2,
            sealed_entries = NULL WHERE id = ?1";
        self.change(|connection, _| Ok(connection.execute(sql, (id, now.as_micros()))?))?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    let is_done: bool = row.get(3)?;
    Ok(Job {
        id: row.get(0)?,
        created: Timestamp::from_micros(row.get(1)?),
        updated: Timestamp::from_micros(row.get(2)?),
        status: if is_done { JobStatus::Done } else { JobStatus::InProgress },
        amount: row.get(4)?,
        failed: row.get(5)?,
        done: row.get(6)?,
    })
}

fn forget(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM psk_jobs WHERE sealed_entries IS NULL AND (created_us <= ?1 OR id <=
            (SELECT id FROM psk_jobs ORDER BY id DESC LIMIT 1 OFFSET ?2))",
        (now.saturating_sub(KEPT_FOR).as_micros(), JOBS_SHOWN_MAX - 1),
    )?;
    Ok(())
}

/// What the entries of a job are sealed for. Shorter than the place of a key.
fn place_of(id: i64) -> [u8; 9] {
    let mut place = [2; 9];
    place[1..].copy_from_slice(&id.to_be_bytes());
    place
}

/// Bytes before the text of an entry: SIM, protocol, format, length.
const HEAD_BYTES: usize = 12;

fn encode(entries: &[JobEntry]) -> Zeroizing<Vec<u8>> {
    let length = entries.iter().map(|entry| HEAD_BYTES + entry.secret.text().len()).sum();
    // A buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    for entry in entries {
        let text = entry.secret.text().as_bytes();
        bytes.extend_from_slice(&entry.iccid.as_u64().to_be_bytes());
        bytes.extend_from_slice(&[entry.protocol.code(), entry.secret.format().code()]);
        // A secret has at most 256 bytes.
        bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(text);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Result<Vec<JobEntry>, Unopened> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
        let [number @ .., protocol, format, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (text, rest) = rest.split_at_checked(length).ok_or(Unopened)?;
        let format = KeyFormat::from_code(format).ok_or(Unopened)?;
        entries.push(JobEntry {
            iccid: Iccid::from_u64(u64::from_be_bytes(number)).ok_or(Unopened)?,
            protocol: KeyProtocol::from_code(protocol).ok_or(Unopened)?,
            secret: Secret::from_sealed(text, format).ok_or(Unopened)?,
        });
        bytes = rest;
    }
    if bytes.is_empty() { Ok(entries) } else { Err(Unopened) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealing::KeySource;
    use state::StateFile;
    use std::cell::Cell;

    fn iccid(number: u64) -> Iccid {
        Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
    }

    fn entries(count: u64) -> Vec<JobEntry> {
        let entry = |number| JobEntry {
            iccid: iccid(number),
            protocol: KeyProtocol::Coap,
            secret: Secret::parse(&format!("secret {number}"), KeyFormat::String, 128).unwrap(),
        };
        (0..count).map(entry).collect()
    }

    fn open(folder: &tempfile::TempDir) -> Keys {
        let file = StateFile::new(folder.path().join("state.db"));
        Keys::open(&file, &KeySource::File(folder.path().join("keys.key"))).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    #[test]
    fn a_job_that_was_interrupted_goes_on_in_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        keys.accept_job(&entries(1_200), now()).unwrap();
        let asked = Cell::new(0);
        let breaks = |_| {
            asked.set(asked.get() + 1);
            if asked.get() > 700 { Err("broken".into()) } else { Ok(true) }
        };
        assert_eq!(keys.work_off_jobs(breaks, now).unwrap_err().to_string(), "broken");
        let job = keys.jobs(0, 10, now()).unwrap().0.remove(0);
        assert_eq!((job.status, job.done, job.failed), (JobStatus::InProgress, 500, 0));
        drop(keys);
        let keys = open(&folder);
        assert_eq!(keys.len(), 500);
        // Every second SIM is gone meanwhile.
        let known = |iccid: Iccid| Ok(iccid.as_u64().is_multiple_of(2));
        keys.work_off_jobs(known, now).unwrap();
        let (jobs, total) = keys.jobs(0, 10, now()).unwrap();
        assert_eq!((jobs[0].status, jobs[0].done, jobs[0].failed), (JobStatus::Done, 850, 350));
        assert_eq!((jobs[0].amount, total, keys.len()), (1_200, 1, 850));
        let identity = iccid(1_198).to_string();
        let found = keys.find(KeyProtocol::Coap, identity.as_bytes()).unwrap();
        assert_eq!(found.key(), b"secret 1198");
    }

    #[test]
    fn jobs_are_limited_and_forgotten_after_thirty_days() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder);
        for _ in 0..JOBS_WAITING_MAX {
            keys.accept_job(&entries(1), now()).unwrap();
        }
        assert!(matches!(keys.accept_job(&entries(1), now()), Err(AcceptError::Full)));
        keys.work_off_jobs(|_| Ok(true), now).unwrap();
        let later = now().saturating_add(KEPT_FOR);
        assert_eq!(keys.jobs(0, 50, now()).unwrap().1, 20);
        assert_eq!(keys.jobs(0, 50, later).unwrap().1, 0);
        keys.accept_job(&entries(1), later).unwrap();
        let (jobs, total) = keys.jobs(0, 50, now()).unwrap();
        assert_eq!((jobs[0].id, total), (21, 1));
    }
}
