//! All keys, and what is done to one of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use sealing::{DataKeyError, KeySource, Unopened, Vault};
use state::StateFile;
use thiserror::Error;
use vocabulary::{Iccid, Timestamp};

use crate::generate::generate;
use crate::look_up::{LookUp, Psk, place_of};
use crate::table::{self, MIGRATIONS, SealedKey};
use crate::{KeyFormat, KeyProtocol, Origin, Secret};

/// A bootstrap this long after the one before gets a new key, as 1NCE OS documents it.
pub const REGENERATED_AFTER: Duration = Duration::from_secs(300);

/// What the proof of the data key is sealed for. Longer than the place of any key or job.
const PROOF_PLACE: &[u8] = b"the data key of simgate";

/// All keys of one gateway. Clones share them.
///
/// One process at a time has them open for writing: what is in memory follows its own changes only.
#[derive(Clone)]
pub struct Keys(pub(crate) Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) vault: Vault,
    /// Held until a change is also in memory, so that both see changes in one order.
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    look_up: LookUp,
    /// Held by whoever works off bulk jobs.
    pub(crate) worker: Mutex<()>,
}

/// A key, opened.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// Whose it is. Its 19 digits are the identity that a device gives in the handshake.
    pub iccid: Iccid,
    /// What it is for.
    pub protocol: KeyProtocol,
    /// The key.
    pub secret: Secret,
    /// Who made it.
    pub origin: Origin,
    /// When the SIM first had a key for the protocol.
    pub created: Timestamp,
    /// When the key last changed.
    pub updated: Timestamp,
    /// When the device last asked for a key that the gateway makes; `None` where it never did.
    pub last_bootstrap: Option<Timestamp>,
}

/// Why keys are not at hand.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no data key.
    #[error(transparent)]
    DataKey(#[from] DataKeyError),
    /// There is one, and it is not the one that the keys were sealed under.
    #[error(
        "the data key ({0}) is another one than the stored keys were sealed under: give the one \
         from before, or remove the keys"
    )]
    OtherDataKey(String),
    /// The state file does not open.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The state file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key could not be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The state file refused.
    #[error("keys in the state file: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What stands there was not sealed by this gateway.
    #[error("keys in the state file: a key was changed, or sealed under another data key")]
    Unopened,
    /// The system has no randomness.
    #[error("no key can be made: {0}")]
    Random(getrandom::Error),
}

impl StoreError {
    /// Whether the disk is full, which can heal by itself.
    pub fn is_full_disk(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }
}

impl From<Unopened> for StoreError {
    fn from(_: Unopened) -> Self {
        Self::Unopened
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Keys {
    /// Opens the keys in `file` under the data key of `source`, which is made where there is
    /// neither a key file nor a key. Reads every key once.
    pub fn open(file: &StateFile, source: &KeySource) -> Result<Self, OpenError> {
        let writer = file.open(MIGRATIONS)?;
        let proof = table::proof(&writer).map_err(StoreError::from)?;
        let vault = Vault::new(&*source.load(proof.is_some())?).map_err(StoreError::from)?;
        match proof {
            Some(proof) => drop(
                vault
                    .open(PROOF_PLACE, &proof)
                    .map_err(|_| OpenError::OtherDataKey(format!("{source:?}")))?,
            ),
            None => {
                let proof = vault.seal(PROOF_PLACE, b"").map_err(StoreError::from)?;
                table::put_proof(&writer, &proof).map_err(StoreError::from)?;
            }
        }
        let look_up = LookUp::new(&vault).map_err(StoreError::from)?;
        let put = |key: SealedKey| {
            look_up.put((key.iccid, key.protocol), key.format, &key.sealed);
        };
        table::each(&writer, put).map_err(StoreError::from)?;
        let (writer, reader) = (Mutex::new(writer), Mutex::new(file.open(MIGRATIONS)?));
        Ok(Self(Arc::new(Parts { vault, writer, reader, look_up, worker: Mutex::default() })))
    }

    /// The key of whoever calls itself `identity` in a handshake of `protocol`: the SIM's 19
    /// digits, or 20 with the check digit. Reads memory only and takes a few microseconds, the same
    /// where there is no key. Says nothing about whether the SIM may speak.
    pub fn find(&self, protocol: KeyProtocol, identity: &[u8]) -> Option<Psk> {
        self.0.look_up.find(&self.0.vault, protocol, identity)
    }

    /// Which key a SIM has now: a number that is another one for each other key, and the same after
    /// a restart. `None` where it has none. Reads memory only; for each message of a session.
    pub fn revision(&self, protocol: KeyProtocol, iccid: Iccid) -> Option<u64> {
        self.0.look_up.revision(iccid, protocol)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.look_up.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of a SIM. Blocks.
    pub fn keys_of(&self, iccid: Iccid) -> Result<Vec<StoredKey>, StoreError> {
        let keys = table::of_sim(&lock(&self.0.reader), iccid)?;
        keys.into_iter().map(|key| self.opened(key)).collect()
    }

    /// Sets a key for a user. Blocks; durable when it returns.
    pub fn set(
        &self,
        iccid: Iccid,
        protocol: KeyProtocol,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<StoredKey, StoreError> {
        let ((), mut changed) = self.change(|connection, changed| {
            changed.push(self.set_within(connection, (iccid, protocol), secret, now)?);
            Ok(())
        })?;
        self.opened(changed.pop().ok_or(StoreError::Unopened)?)
    }

    /// Removes the keys of a SIM. Blocks; durable when it returns.
    pub fn remove(&self, iccid: Iccid) -> Result<(), StoreError> {
        let writer = lock(&self.0.writer);
        table::remove(&writer, iccid)?;
        self.0.look_up.remove(iccid);
        Ok(())
    }

    /// The CoAP keys of devices that ask for them, in the same order. Blocks; durable when it
    /// returns, in one transaction for all.
    ///
    /// A device without a key gets one. A key that the gateway made is replaced when the device
    /// last asked [`REGENERATED_AFTER`] or more ago; one that a user set never is. `None` where the
    /// stored key does not open.
    pub fn bootstrap(
        &self,
        devices: &[Iccid],
        now: Timestamp,
    ) -> Result<Vec<Option<StoredKey>>, StoreError> {
        let (found, _) = self.change(|connection, changed| {
            let each = devices.iter().map(|iccid| {
                let key = self.hand_out(connection, *iccid, now, changed)?;
                Ok(self.opened(key).ok())
            });
            each.collect::<Result<Vec<_>, StoreError>>()
        })?;
        Ok(found)
    }

    /// New keys of devices with the LwM2M server, in the same order. Blocks; durable when it
    /// returns, in one transaction for all. The keys before open no session any more.
    pub fn renew_server_keys(
        &self,
        devices: &[Iccid],
        now: Timestamp,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let ((), changed) = self.change(|connection, changed| {
            for iccid in devices {
                let key = self.new_key((*iccid, KeyProtocol::Lwm2mServer), None, now)?;
                table::put(connection, &key)?;
                changed.push(key);
            }
            Ok(())
        })?;
        changed.into_iter().map(|key| self.opened(key)).collect()
    }

    /// A key made by the gateway, in the place of the one before.
    fn new_key(
        &self,
        (iccid, protocol): (Iccid, KeyProtocol),
        before: Option<SealedKey>,
        now: Timestamp,
    ) -> Result<SealedKey, StoreError> {
        let text = generate().map_err(StoreError::Random)?;
        let format = KeyFormat::String;
        let sealed = self.0.vault.seal(&place_of(iccid, protocol, format), text.as_bytes())?;
        Ok(SealedKey {
            iccid,
            protocol,
            format,
            origin: Origin::Bootstrap,
            sealed,
            created: before.map_or(now, |key| key.created),
            updated: now,
            bootstrapped: None,
        })
    }

    fn hand_out(
        &self,
        connection: &Connection,
        iccid: Iccid,
        now: Timestamp,
        changed: &mut Vec<SealedKey>,
    ) -> Result<SealedKey, StoreError> {
        let protocol = KeyProtocol::Coap;
        let before = table::find(connection, iccid, protocol)?;
        if let Some(key) = before.as_ref().filter(|key| key.origin == Origin::User) {
            return Ok(key.copy());
        }
        let is_due = |key: &SealedKey| {
            let last = key.bootstrapped.unwrap_or(key.updated);
            now.saturating_since(last) >= REGENERATED_AFTER
        };
        let mut key = match before {
            Some(key) if !is_due(&key) => key,
            before => {
                let key = self.new_key((iccid, protocol), before, now)?;
                changed.push(key.copy());
                key
            }
        };
        // A clock that was set back does not bring the next key forward.
        key.bootstrapped = Some(key.bootstrapped.map_or(now, |last| last.max(now)));
        table::put(connection, &key)?;
        Ok(key)
    }

    /// Sets a key for a user, in a transaction of the caller.
    pub(crate) fn set_within(
        &self,
        connection: &Connection,
        (iccid, protocol): (Iccid, KeyProtocol),
        secret: &Secret,
        now: Timestamp,
    ) -> Result<SealedKey, StoreError> {
        let format = secret.format();
        let place = place_of(iccid, protocol, format);
        let before = table::find(connection, iccid, protocol)?;
        // The same key is no other revision: sessions go on, e.g. when a job is repeated.
        let same = before.as_ref().filter(|key| key.format == format).filter(|key| {
            let opened = self.0.vault.open(&place, &key.sealed);
            opened.is_ok_and(|text| text.as_slice() == secret.text().as_bytes())
        });
        let sealed = match same {
            Some(key) => key.sealed.clone(),
            None => self.0.vault.seal(&place, secret.text().as_bytes())?,
        };
        let key = SealedKey {
            iccid,
            protocol,
            format,
            origin: Origin::User,
            sealed,
            created: before.as_ref().map_or(now, |key| key.created),
            updated: now,
            bootstrapped: before.and_then(|key| key.bootstrapped),
        };
        table::put(connection, &key)?;
        Ok(key)
    }

    /// Does `work` in one transaction; the keys that it names as changed are in memory when this
    /// returns. An error undoes all of it.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&Connection, &mut Vec<SealedKey>) -> Result<T, StoreError>,
    ) -> Result<(T, Vec<SealedKey>), StoreError> {
        let mut writer = lock(&self.0.writer);
        // Immediate: another process that writes is waited for here, not in the middle.
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut changed = Vec::new();
        let value = work(&transaction, &mut changed)?;
        transaction.commit()?;
        for key in &changed {
            self.0.look_up.put((key.iccid, key.protocol), key.format, &key.sealed);
        }
        Ok((value, changed))
    }

    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        lock(&self.0.reader)
    }

    fn opened(&self, key: SealedKey) -> Result<StoredKey, StoreError> {
        let SealedKey { iccid, protocol, format, origin, created, updated, bootstrapped, sealed } =
            key;
        let text = self.0.vault.open(&place_of(iccid, protocol, format), &sealed)?;
        let secret = Secret::from_sealed(&text, format).ok_or(StoreError::Unopened)?;
        let last_bootstrap = bootstrapped;
        Ok(StoredKey { iccid, protocol, secret, origin, created, updated, last_bootstrap })
    }
}

impl SealedKey {
    fn copy(&self) -> Self {
        Self { sealed: self.sealed.clone(), ..*self }
    }
}

/// A transaction that panicked was rolled back, so the connection is whole.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    const FIRST: &str = "8988280666000000001";

    struct World {
        folder: tempfile::TempDir,
        keys: Keys,
    }

    fn sim(text: &str) -> Iccid {
        text.parse().unwrap()
    }

    fn second(count: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + count * 1_000)
    }

    fn secret(text: &str) -> Secret {
        Secret::parse(text, KeyFormat::String, 256).unwrap()
    }

    fn open(folder: &tempfile::TempDir, key: &str) -> Result<Keys, OpenError> {
        let source = KeySource::Text(Zeroizing::new(key.repeat(64)));
        Keys::open(&StateFile::new(folder.path().join("state.db")), &source)
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { keys: open(&folder, "a").unwrap(), folder }
        }

        fn bootstrap(&self, at: i64) -> StoredKey {
            let mut keys = self.keys.bootstrap(&[sim(FIRST)], second(at)).unwrap();
            keys.pop().unwrap().unwrap()
        }

        fn in_memory(&self) -> Vec<u8> {
            self.keys.find(KeyProtocol::Coap, FIRST.as_bytes()).unwrap().key().to_owned()
        }
    }

    #[test]
    fn a_key_made_by_the_gateway_is_replaced_five_minutes_after_the_last_call() {
        let world = World::new();
        let first = world.bootstrap(0);
        assert_eq!((first.origin, first.secret.format()), (Origin::Bootstrap, KeyFormat::String));
        assert_eq!(world.bootstrap(299).secret, first.secret);
        // The span runs from the call before, not from the key's birth.
        assert_eq!(world.bootstrap(598).secret, first.secret);
        assert_eq!(world.in_memory(), *first.secret.key_bytes());
        let next = world.bootstrap(898);
        assert_ne!(next.secret, first.secret);
        assert_eq!((next.created, next.updated), (first.created, second(898)));
        assert_eq!(world.in_memory(), *next.secret.key_bytes());
        // A clock that was set back replaces nothing, and does not bring the next key forward.
        assert_eq!(world.bootstrap(0).secret, next.secret);
        assert_eq!(world.bootstrap(1_197).secret, next.secret);
    }

    #[test]
    fn a_key_of_a_user_stays() {
        let world = World::new();
        let made = world.bootstrap(0);
        let wanted = secret("correct horse");
        let set = world.keys.set(sim(FIRST), KeyProtocol::Coap, &wanted, second(1)).unwrap();
        assert_eq!((set.created, set.updated), (made.created, second(1)));
        for at in [2, 1_000_000] {
            let found = world.bootstrap(at);
            assert_eq!((found.secret.text(), found.origin), ("correct horse", Origin::User));
            assert_eq!(found.updated, second(1));
        }
        assert_eq!(world.in_memory(), b"correct horse");
    }

    #[test]
    fn each_bootstrap_of_lwm2m_makes_another_server_key() {
        let world = World::new();
        let renew = |at| {
            let mut keys = world.keys.renew_server_keys(&[sim(FIRST)], second(at)).unwrap();
            keys.pop().unwrap().secret
        };
        let (first, next) = (renew(0), renew(0));
        assert_ne!(first, next);
        let find = |protocol| world.keys.find(protocol, FIRST.as_bytes());
        let found = find(KeyProtocol::Lwm2mServer).unwrap();
        assert_eq!(found.key(), &**next.key_bytes());
        assert!(find(KeyProtocol::Lwm2m).is_none() && find(KeyProtocol::Coap).is_none());
        // Nobody names it in the management API.
        assert!("LWM2M_SERVER".parse::<KeyProtocol>().is_err());
    }

    #[test]
    fn one_batch_may_hold_a_device_twice() {
        let world = World::new();
        let keys = world.keys.bootstrap(&[sim(FIRST), sim(FIRST)], second(0)).unwrap();
        let texts: Vec<_> = keys.iter().flatten().map(|key| key.secret.text()).collect();
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0], texts[1]);
        assert_eq!(world.keys.len(), 1);
    }

    #[test]
    fn protocols_have_keys_of_their_own_which_outlive_the_process() {
        let world = World::new();
        let hex = Secret::parse("000102ff", KeyFormat::Hex, 256).unwrap();
        world.keys.set(sim(FIRST), KeyProtocol::Lwm2m, &hex, second(0)).unwrap();
        let made = world.bootstrap(0);
        let World { folder, keys } = world;
        drop(keys);
        let keys = open(&folder, "a").unwrap();
        let find = |protocol, identity: &str| {
            keys.find(protocol, identity.as_bytes()).map(|psk| psk.key().to_owned())
        };
        assert_eq!(find(KeyProtocol::Lwm2m, FIRST), Some(vec![0, 1, 2, 0xff]));
        assert_eq!(find(KeyProtocol::Coap, FIRST).unwrap(), *made.secret.key_bytes());
        let with_luhn = sim(FIRST).with_luhn();
        assert_eq!(find(KeyProtocol::Coap, &with_luhn), find(KeyProtocol::Coap, FIRST));
        assert_eq!(keys.keys_of(sim(FIRST)).unwrap().len(), 2);
        for stranger in ["", "8988280666000000002", "0000000000000000000", "\u{0}", "x"] {
            assert_eq!(find(KeyProtocol::Coap, stranger), None, "{stranger}");
        }
        assert!(keys.find(KeyProtocol::Coap, &[0xff; 128]).is_none());
        keys.remove(sim(FIRST)).unwrap();
        assert!(keys.is_empty() && keys.keys_of(sim(FIRST)).unwrap().is_empty());
    }

    #[test]
    fn another_data_key_is_refused_at_the_start() {
        let world = World::new();
        world.bootstrap(0);
        let error = open(&world.folder, "b").unwrap_err();
        assert!(matches!(error, OpenError::OtherDataKey(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains("bbbb"));
    }

    #[test]
    fn a_key_moved_to_another_sim_does_not_open() {
        let world = World::new();
        world.bootstrap(0);
        let moved = "UPDATE psks SET iccid = iccid + 1";
        lock(&world.keys.0.writer).execute(moved, ()).unwrap();
        let other = sim("8988280666000000002");
        assert!(matches!(world.keys.keys_of(other), Err(StoreError::Unopened)));
        assert!(world.keys.bootstrap(&[other], second(1)).unwrap()[0].is_none());
    }

    #[test]
    fn a_key_has_a_revision_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let keys = open(&folder, "a").unwrap();
        let (iccid, coap) = (sim("8988280666000000001"), KeyProtocol::Coap);
        assert_eq!(keys.revision(coap, iccid), None);
        keys.set(iccid, coap, &secret("one secret"), second(1)).unwrap();
        let first = keys.revision(coap, iccid).unwrap();
        assert_eq!(keys.find(coap, b"8988280666000000001").unwrap().revision(), first);
        drop(keys);
        let keys = open(&folder, "a").unwrap();
        assert_eq!(keys.revision(coap, iccid), Some(first));
        keys.set(iccid, coap, &secret("one secret"), second(2)).unwrap();
        assert_eq!(keys.revision(coap, iccid), Some(first), "the same key");
        keys.set(iccid, coap, &secret("another one"), second(2)).unwrap();
        assert_ne!(keys.revision(coap, iccid), Some(first));
        keys.remove(iccid).unwrap();
        assert_eq!(keys.revision(coap, iccid), None);
    }

    #[test]
    fn debug_shows_no_key() {
        let world = World::new();
        let key = world.bootstrap(0);
        let psk = world.keys.find(KeyProtocol::Coap, FIRST.as_bytes()).unwrap();
        let shown = format!("{key:?} {psk:?} {:?}", world.keys);
        assert!(!shown.contains(key.secret.text()), "{shown}");
        assert!(!shown.contains(&format!("{:?}", psk.key())), "{shown}");
    }
}
