//! API clients: who may ask for a token.
//!
//! A client is an id and a secret of 256 random bits; only the secret's hash is stored. Any process
//! with the state file can create or revoke a client while a gateway serves: each check reads the
//! table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use state::{Migrations, StateFile};
use thiserror::Error;
use vocabulary::Timestamp;

const MIGRATIONS: Migrations = Migrations {
    owner: "api_clients",
    scripts: &["CREATE TABLE api_clients (
            client_id   TEXT PRIMARY KEY,
            name        TEXT NOT NULL,
            secret_hash BLOB NOT NULL,
            created_us  INTEGER NOT NULL,
            disabled    INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID;
        CREATE TABLE api_keys (
            purpose TEXT PRIMARY KEY,
            key     BLOB NOT NULL
        ) WITHOUT ROWID;"],
};

/// A secret of 256 bits cannot be guessed, so a fast hash is enough to store it.
const SECRET_BYTES: usize = 32;
/// 64 random bits in a client id: ids need not be secret, only distinct.
const ID_BYTES: usize = 8;
/// Characters of a client's name, as for the name of an integration.
const NAME_CHARS_MAX: usize = 128;
/// Clients of one account. An estimate: one for each program of a large customer, with room.
const CLIENTS_MAX: u32 = 1_000;

/// The table of API clients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    connection: Arc<Mutex<Connection>>,
    account: Arc<str>,
}

/// A client as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Client {
    /// The id: the account number, `_`, and 16 hexadecimal digits.
    pub client_id: String,
    /// What a person calls it.
    pub name: String,
    /// When it was created.
    #[serde(serialize_with = "as_text")]
    pub created: Timestamp,
    /// Whether it was revoked.
    pub disabled: bool,
}

/// A client that was just created: the only moment at which its secret is known.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct NewClient {
    /// The id.
    pub client_id: String,
    /// The secret, which is stored nowhere.
    pub client_secret: String,
}

/// Why a client could not be created.
#[derive(Debug, Error)]
pub enum CreateClientError {
    /// The name is empty or too long.
    #[error("name of {0} characters, allowed: 1 to {NAME_CHARS_MAX}")]
    Name(usize),
    /// The table is full.
    #[error("there are {CLIENTS_MAX} clients already, which is the limit")]
    TooMany,
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The state file failed.
    #[error("state file: {0}")]
    State(#[from] rusqlite::Error),
}

/// Why there is no key to sign with.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// The state file failed.
    #[error("state file: {0}")]
    State(#[from] rusqlite::Error),
}

/// Why a client could not be revoked.
#[derive(Debug, Error)]
pub enum RevokeClientError {
    /// No client has this id.
    #[error("client {0:?} does not exist")]
    NotFound(String),
    /// The state file failed.
    #[error("state file: {0}")]
    State(#[from] rusqlite::Error),
}

/// Why the table could not be opened.
#[derive(Debug, Error)]
pub enum OpenClientsError {
    /// The state file could not be opened.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The account number would make client ids that cannot be sent in a Basic header.
    #[error("account {0:?} is not allowed, allowed: 1 to 32 digits or letters")]
    Account(String),
}

/// What a check of an id and a secret found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client may have a token.
    Accepted,
    /// No such client, or a revoked one.
    Unknown,
    /// Another secret.
    WrongSecret,
}

impl std::fmt::Debug for NewClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client_id, .. } = self;
        formatter.debug_struct("NewClient").field("client_id", client_id).finish_non_exhaustive()
    }
}

impl Clients {
    /// Opens the table in the state file of the account with this number.
    pub fn open(state: &StateFile, account: &str) -> Result<Self, OpenClientsError> {
        let allowed = account.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if account.is_empty() || account.len() > 32 || !allowed {
            return Err(OpenClientsError::Account(account.to_owned()));
        }
        let connection = Arc::new(Mutex::new(state.open(MIGRATIONS)?));
        Ok(Self { connection, account: account.into() })
    }

    /// Creates a client.
    pub fn create(&self, name: &str) -> Result<NewClient, CreateClientError> {
        let chars = name.chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&chars) {
            return Err(CreateClientError::Name(chars));
        }
        let id = random::<ID_BYTES>().map_err(CreateClientError::Random)?;
        let secret = random::<SECRET_BYTES>().map_err(CreateClientError::Random)?;
        let created = NewClient {
            client_id: format!("{}_{:016x}", self.account, u64::from_be_bytes(id)),
            client_secret: URL_SAFE_NO_PAD.encode(secret),
        };
        let hash = digest::digest(&digest::SHA256, created.client_secret.as_bytes());
        let now = Timestamp::from(SystemTime::now());
        let inserted = self.lock().execute(
            "INSERT INTO api_clients (client_id, name, secret_hash, created_us)
             SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM api_clients) < ?5",
            (&created.client_id, name, hash.as_ref(), now.as_micros(), CLIENTS_MAX),
        )?;
        if inserted == 0 { Err(CreateClientError::TooMany) } else { Ok(created) }
    }

    /// All clients, the oldest first.
    pub fn list(&self) -> Result<Vec<Client>, rusqlite::Error> {
        let connection = self.lock();
        let mut statement = connection.prepare(
            "SELECT client_id, name, created_us, disabled FROM api_clients ORDER BY created_us",
        )?;
        let rows = statement.query_map((), |row| {
            Ok(Client {
                client_id: row.get(0)?,
                name: row.get(1)?,
                created: Timestamp::from_micros(row.get(2)?),
                disabled: row.get(3)?,
            })
        })?;
        rows.collect()
    }

    /// Revokes a client: its secret and its tokens stop working at once.
    pub fn revoke(&self, client_id: &str) -> Result<(), RevokeClientError> {
        let sql = "UPDATE api_clients SET disabled = 1 WHERE client_id = ?1";
        match self.lock().execute(sql, [client_id])? {
            0 => Err(RevokeClientError::NotFound(client_id.to_owned())),
            _ => Ok(()),
        }
    }

    /// Checks an id and a secret, in the same time whether the id exists or not.
    pub(crate) fn verify(&self, client_id: &str, secret: &str) -> rusqlite::Result<Verdict> {
        let stored: Option<Vec<u8>> = self
            .lock()
            .prepare("SELECT secret_hash FROM api_clients WHERE client_id = ?1 AND disabled = 0")?
            .query_row([client_id], |row| row.get(0))
            .optional()?;
        let hash = digest::digest(&digest::SHA256, secret.as_bytes());
        let expected = stored.as_deref().unwrap_or(&[0; digest::SHA256_OUTPUT_LEN]);
        let equal = verify_slices_are_equal(hash.as_ref(), expected).is_ok();
        Ok(match (stored.is_some(), equal) {
            (true, true) => Verdict::Accepted,
            (true, false) => Verdict::WrongSecret,
            (false, _) => Verdict::Unknown,
        })
    }

    /// Whether the client exists and was not revoked.
    pub(crate) fn is_active(&self, client_id: &str) -> rusqlite::Result<bool> {
        self.lock()
            .prepare("SELECT 1 FROM api_clients WHERE client_id = ?1 AND disabled = 0")?
            .exists([client_id])
    }

    /// The account number.
    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// A key of 256 random bits for one purpose; made at its first use, the same ever after.
    pub(crate) fn key(&self, purpose: &str) -> Result<Vec<u8>, KeyError> {
        let fresh = random::<SECRET_BYTES>().map_err(KeyError::Random)?;
        let connection = self.lock();
        connection.execute(
            "INSERT INTO api_keys (purpose, key) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            (purpose, fresh),
        )?;
        let sql = "SELECT key FROM api_keys WHERE purpose = ?1";
        Ok(connection.query_row(sql, [purpose], |row| row.get(0))?)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // SQLite rolls back what a panic interrupted.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn as_text<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(folder: &tempfile::TempDir) -> Clients {
        let state = StateFile::new(folder.path().join("state.db"));
        Clients::open(&state, "2000523120").unwrap()
    }

    #[test]
    fn another_process_sees_a_client_at_once_and_its_revocation_too() {
        let folder = tempfile::tempdir().unwrap();
        let (serving, command_line) = (clients(&folder), clients(&folder));
        let new = command_line.create("portal").unwrap();
        assert!(new.client_id.starts_with("2000523120_"), "{new:?}");
        let verify = |secret: &str| serving.verify(&new.client_id, secret).unwrap();
        assert_eq!(verify(&new.client_secret), Verdict::Accepted);
        assert_eq!(verify("guess"), Verdict::WrongSecret);
        assert_eq!(serving.verify("2000523120_0", "guess").unwrap(), Verdict::Unknown);
        command_line.revoke(&new.client_id).unwrap();
        assert_eq!(verify(&new.client_secret), Verdict::Unknown);
        assert!(!serving.is_active(&new.client_id).unwrap());
        assert!(serving.list().unwrap()[0].disabled);
        assert!(command_line.revoke("nobody").is_err());
    }

    #[test]
    fn the_secret_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let clients = clients(&folder);
        let new = clients.create("portal").unwrap();
        clients.lock().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let file = std::fs::read(folder.path().join("state.db")).unwrap();
        let secret = new.client_secret.as_bytes();
        assert!(!file.windows(secret.len()).any(|window| window == secret));
        assert!(!format!("{new:?}").contains(&new.client_secret));
    }

    #[test]
    fn a_key_is_the_same_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let key = clients(&folder).key("tokens").unwrap();
        assert_eq!(clients(&folder).key("tokens").unwrap(), key);
        assert_ne!(clients(&folder).key("links").unwrap(), key);
    }

    #[test]
    fn names_and_accounts_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error = clients(&folder).create("").unwrap_err();
        assert_eq!(error.to_string(), "name of 0 characters, allowed: 1 to 128");
        let state = StateFile::new(folder.path().join("state.db"));
        assert!(Clients::open(&state, "a:b").is_err());
    }
}
