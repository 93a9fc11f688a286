//! What has to be done for each SIM, and what has been done.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealing::Sealer;
use serde::{Deserialize, Serialize};
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::Iccid;
use zeroize::Zeroizing;

const MIGRATIONS: Migrations = Migrations {
    owner: "aws_onboarding",
    scripts: &["
        CREATE TABLE aws_devices (
            iccid INTEGER PRIMARY KEY,
            step INTEGER NOT NULL,
            wanted_active INTEGER NOT NULL,
            ip TEXT,
            certificate_id TEXT,
            certificate_arn TEXT,
            sealed BLOB,
            failures INTEGER NOT NULL,
            due_ms INTEGER NOT NULL,
            error TEXT
        ) STRICT;
        CREATE INDEX aws_devices_due ON aws_devices (due_ms) WHERE step < 6;
        CREATE TABLE aws_endpoints (place TEXT PRIMARY KEY, host TEXT NOT NULL) STRICT;
    "],
};

/// Of an error so much is kept.
const ERROR_CHARS_MAX: usize = 500;

/// What is done next for a SIM. The numbers stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Keys and a certificate, not active yet.
    Certificate = 0,
    /// The Thing.
    Thing = 1,
    /// The policy, attached to the certificate.
    Policy = 2,
    /// The certificate, attached to the Thing.
    Principal = 3,
    /// The certificate active or inactive, as wanted.
    Switch = 4,
    /// The message that says so.
    Announce = 5,
    /// Nothing.
    Done = 6,
}

/// Why the state file does not do as it should: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("state of certificates: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// No randomness, or another data key.
    #[error("state of certificates: {0}")]
    Seal(#[from] sealing::SealError),
    /// What was sealed is not what it should be.
    #[error("state of certificates: a sealed certificate cannot be read")]
    Content,
    /// The thread that worked on it is gone.
    #[error("state of certificates: the work was cut off")]
    CutOff,
}

/// One SIM on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) iccid: Iccid,
    pub(crate) step: Step,
    pub(crate) wanted_active: bool,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) certificate_id: String,
    pub(crate) certificate_arn: String,
    pub(crate) failures: u32,
}

/// What a device needs to show who it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyPair {
    pub(crate) certificate: String,
    pub(crate) private_key: Zeroizing<String>,
}

/// A SIM whose onboarding fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The SIM.
    pub iccid: Iccid,
    /// Attempts that failed since something succeeded.
    pub failures: u32,
    /// Why the last one did.
    pub error: String,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now(Iccid),
    In(Duration),
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
    sealer: Sealer,
}

impl Store {
    pub(crate) fn open(file: &StateFile, sealer: Sealer) -> Result<Self, state::OpenError> {
        Ok(Self { connection: Mutex::new(file.open(MIGRATIONS)?), sealer })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // What a panic left undone, SQLite has rolled back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a SIM, unless it was begun. Says whether it was not.
    pub(crate) fn enqueue(&self, iccid: Iccid, ip: Option<IpAddr>) -> Result<bool, StoreError> {
        let connection = self.connection();
        let added = connection.execute(
            "INSERT INTO aws_devices (iccid, step, wanted_active, ip, failures, due_ms)
             VALUES (?1, ?2, 1, ?3, 0, ?4) ON CONFLICT (iccid) DO NOTHING",
            params![key(iccid), Step::Certificate, text(ip), now_ms()],
        )?;
        Ok(added == 1)
    }

    /// Wants the certificate of a SIM active or not. Says whether that is a change.
    pub(crate) fn want(&self, iccid: Iccid, active: bool) -> Result<bool, StoreError> {
        let changed = self.connection().execute(
            "UPDATE aws_devices SET wanted_active = ?2, step = min(step, ?3), due_ms = ?4,
             failures = 0, error = NULL WHERE iccid = ?1 AND wanted_active != ?2",
            params![key(iccid), active, Step::Switch, now_ms()],
        )?;
        Ok(changed == 1)
    }

    /// Every SIM, and whether its certificate is wanted active.
    pub(crate) fn wishes(&self) -> Result<Vec<(Iccid, bool)>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT iccid, wanted_active FROM aws_devices")?;
        let rows = statement.query_map((), |row| Ok((iccid_of(row, 0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn find(&self, iccid: Iccid) -> Result<Option<Device>, StoreError> {
        let sql = "SELECT iccid, step, wanted_active, ip, certificate_id, certificate_arn, failures
                   FROM aws_devices WHERE iccid = ?1";
        Ok(self.connection().query_row(sql, [key(iccid)], device).optional()?)
    }

    /// Keeps a new certificate.
    pub(crate) fn keep(
        &self,
        iccid: Iccid,
        (id, arn): (&str, &str),
        pair: &KeyPair,
    ) -> Result<(), StoreError> {
        let json = serde_json::to_vec(pair).map_err(|_| StoreError::Content)?;
        let sealed = self.sealer.seal(&place(iccid), &Zeroizing::new(json))?;
        self.connection().execute(
            "UPDATE aws_devices SET certificate_id = ?2, certificate_arn = ?3, sealed = ?4,
             step = ?5, failures = 0, error = NULL WHERE iccid = ?1",
            params![key(iccid), id, arn, sealed, Step::Thing],
        )?;
        Ok(())
    }

    /// Notes that the step of `device` is done, unless what is wanted has changed meanwhile.
    pub(crate) fn advance(&self, device: &Device, next: Step) -> Result<(), StoreError> {
        self.connection().execute(
            "UPDATE aws_devices SET step = ?2, failures = 0, error = NULL
             WHERE iccid = ?1 AND step = ?3 AND wanted_active = ?4",
            params![key(device.iccid), next, device.step, device.wanted_active],
        )?;
        Ok(())
    }

    /// Notes a failure, and when to try again. Says how many there were in a row.
    pub(crate) fn fail(
        &self,
        iccid: Iccid,
        error: &str,
        wait: impl FnOnce(u32) -> Duration,
    ) -> Result<u32, StoreError> {
        let connection = self.connection();
        let sql = "SELECT failures FROM aws_devices WHERE iccid = ?1";
        let before: u32 = connection.query_row(sql, [key(iccid)], |row| row.get(0))?;
        let failures = before.saturating_add(1);
        let due_ms = now_ms().saturating_add(millis(wait(failures)));
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        connection.execute(
            "UPDATE aws_devices SET failures = ?2, error = ?3, due_ms = ?4 WHERE iccid = ?1",
            params![key(iccid), failures, error, due_ms],
        )?;
        Ok(failures)
    }

    /// The SIM that has waited longest, but for those in `flying`.
    pub(crate) fn due(&self, flying: &[Iccid]) -> Result<Due, StoreError> {
        let connection = self.connection();
        let sql = "SELECT iccid, due_ms FROM aws_devices WHERE step < 6 ORDER BY due_ms";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let iccid = iccid_of(row, 0)?;
            if flying.contains(&iccid) {
                continue;
            }
            let ahead_ms = row.get::<_, i64>(1)?.saturating_sub(now_ms());
            return Ok(match u64::try_from(ahead_ms) {
                Ok(ms @ 1..) => Due::In(Duration::from_millis(ms)),
                _ => Due::Now(iccid),
            });
        }
        Ok(Due::Nothing)
    }

    /// The certificate and key of a SIM, and whether both work.
    pub(crate) fn key_pair(&self, iccid: Iccid) -> Result<Option<(KeyPair, bool)>, StoreError> {
        let sql = "SELECT sealed, step, wanted_active FROM aws_devices WHERE iccid = ?1";
        let found: Option<(Option<Vec<u8>>, Step, bool)> = self
            .connection()
            .query_row(sql, [key(iccid)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((Some(sealed), step, wanted_active)) = found else { return Ok(None) };
        let json = self.sealer.unseal(&place(iccid), &sealed)?;
        let pair = serde_json::from_slice(&json).map_err(|_| StoreError::Content)?;
        Ok(Some((pair, wanted_active && step > Step::Switch)))
    }

    /// SIMs that are done, and that are not.
    pub(crate) fn counts(&self) -> Result<(u32, u32), StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE step = 6), count(*) FILTER (WHERE step < 6)
                   FROM aws_devices";
        Ok(self.connection().query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// How many SIMs fail, and those that failed most often.
    pub(crate) fn stuck(&self, limit: u32) -> Result<(u32, Vec<Stuck>), StoreError> {
        let connection = self.connection();
        let sql = "SELECT count(*) FROM aws_devices WHERE step < 6 AND failures > 0";
        let count = connection.query_row(sql, (), |row| row.get(0))?;
        let mut statement = connection.prepare(
            "SELECT iccid, failures, error FROM aws_devices WHERE step < 6 AND failures > 0
             ORDER BY failures DESC, iccid LIMIT ?1",
        )?;
        let rows = statement.query_map([limit], |row| {
            let error: Option<String> = row.get(2)?;
            let (iccid, failures) = (iccid_of(row, 0)?, row.get(1)?);
            Ok(Stuck { iccid, failures, error: error.unwrap_or_default() })
        })?;
        Ok((count, rows.collect::<Result<_, _>>()?))
    }

    /// The host of the data plane of a place (region and role), where it is known.
    pub(crate) fn endpoint(&self, place: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT host FROM aws_endpoints WHERE place = ?1";
        Ok(self.connection().query_row(sql, [place], |row| row.get(0)).optional()?)
    }

    pub(crate) fn keep_endpoint(&self, place: &str, host: &str) -> Result<(), StoreError> {
        self.connection().execute(
            "INSERT INTO aws_endpoints VALUES (?1, ?2)
             ON CONFLICT (place) DO UPDATE SET host = ?2",
            [place, host],
        )?;
        Ok(())
    }
}

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    let ip: Option<String> = row.get(3)?;
    Ok(Device {
        iccid: iccid_of(row, 0)?,
        step: row.get(1)?,
        wanted_active: row.get(2)?,
        ip: ip.and_then(|text| text.parse().ok()),
        certificate_id: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        certificate_arn: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        failures: row.get(6)?,
    })
}

/// The same bits, since SQLite has no unsigned numbers.
fn key(iccid: Iccid) -> i64 {
    iccid.as_u64().cast_signed()
}

fn iccid_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Iccid> {
    let number: i64 = row.get(column)?;
    Iccid::from_u64(number.cast_unsigned())
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn place(iccid: Iccid) -> [u8; 8] {
    iccid.as_u64().to_be_bytes()
}

fn text(ip: Option<IpAddr>) -> Option<String> {
    ip.map(|ip| ip.to_string())
}

fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl ToSql for Step {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(*self as i64))
    }
}

impl FromSql for Step {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [
            Self::Certificate,
            Self::Thing,
            Self::Policy,
            Self::Principal,
            Self::Switch,
            Self::Announce,
            Self::Done,
        ];
        let number = value.as_i64()?;
        all.into_iter().find(|step| *step as i64 == number).ok_or(FromSqlError::OutOfRange(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealing::KeySource;

    fn store(folder: &tempfile::TempDir) -> Store {
        let source = KeySource::File(folder.path().join("data.key"));
        source.load(false).unwrap();
        let sealer = Sealer::open(&source, crate::SEALED_FOR).unwrap();
        Store::open(&StateFile::new(folder.path().join("state.db")), sealer).unwrap()
    }

    fn pair() -> KeyPair {
        KeyPair {
            certificate: "the certificate".to_owned(),
            private_key: Zeroizing::new("the key".to_owned()),
        }
    }

    #[test]
    fn steps_are_kept_in_order_and_secrets_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let largest = Iccid::from_u64(9_999_999_999_999_999_999).unwrap();
        {
            let store = store(&folder);
            assert!(store.enqueue(largest, Some([10, 0, 0, 1].into())).unwrap());
            assert!(!store.enqueue(largest, None).unwrap());
            assert_eq!(store.due(&[]).unwrap(), Due::Now(largest));
            assert_eq!(store.due(&[largest]).unwrap(), Due::Nothing);
            assert!(store.key_pair(largest).unwrap().is_none());
            store.keep(largest, ("id", "arn"), &pair()).unwrap();
        }
        let store = store(&folder);
        let device = store.find(largest).unwrap().unwrap();
        assert_eq!((device.step, device.certificate_id.as_str()), (Step::Thing, "id"));
        let (pair, works) = store.key_pair(largest).unwrap().unwrap();
        assert_eq!((pair.private_key.as_str(), works), ("the key", false));
        drop(store);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(7).any(|window| window == b"the key"));
        }
    }

    #[test]
    fn a_wish_that_changes_in_the_middle_of_a_step_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let iccid = Iccid::from_u64(7).unwrap();
        store.enqueue(iccid, None).unwrap();
        store.keep(iccid, ("id", "arn"), &pair()).unwrap();
        let advance = |next| {
            let device = store.find(iccid).unwrap().unwrap();
            store.advance(&device, next).unwrap();
            device
        };
        for next in [Step::Policy, Step::Principal, Step::Switch] {
            advance(next);
        }
        let before = store.find(iccid).unwrap().unwrap();
        assert!(store.want(iccid, false).unwrap());
        assert!(!store.want(iccid, false).unwrap());
        store.advance(&before, Step::Announce).unwrap();
        assert_eq!(store.find(iccid).unwrap().unwrap().step, Step::Switch, "to be done again");
        advance(Step::Announce);
        advance(Step::Done);
        assert_eq!(store.counts().unwrap(), (1, 0));
        assert!(!store.key_pair(iccid).unwrap().unwrap().1, "it is inactive");
        store.want(iccid, true).unwrap();
        assert_eq!(store.due(&[]).unwrap(), Due::Now(iccid));
    }

    #[test]
    fn failures_are_counted_and_wait() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let iccid = Iccid::from_u64(7).unwrap();
        store.enqueue(iccid, None).unwrap();
        let hour = |_| Duration::from_secs(3_600);
        assert_eq!(store.fail(iccid, "no", hour).unwrap(), 1);
        assert_eq!(store.fail(iccid, "still no", hour).unwrap(), 2);
        assert!(matches!(store.due(&[]).unwrap(), Due::In(_)));
        let stuck = Stuck { iccid, failures: 2, error: "still no".to_owned() };
        assert_eq!(store.stuck(10).unwrap(), (1, vec![stuck]));
    }
}
