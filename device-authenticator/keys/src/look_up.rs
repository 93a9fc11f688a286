//! The keys in memory, for handshakes.
//!
//! They stay sealed. A generated key takes 110 bytes (`tests/memory.rs`): 44 sealed ones in an
//! allocation of their own, and a place of a table that is between 7/16 and 7/8 full.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{PoisonError, RwLock};

use hashbrown::{DefaultHashBuilder, HashMap};
use sealing::{Unopened, Vault};
use vocabulary::Iccid;
use zeroize::Zeroizing;

use crate::secret::key_bytes;
use crate::{KeyFormat, KeyProtocol};

/// Pieces of each table. Whoever changes a key holds one of them for one insertion; with a million
/// keys, a table that grows copies 4,000 entries while its readers wait.
const SHARDS: usize = 256;

/// A key that DTLS may use, and the SIM that it proves. Overwritten when it is dropped.
pub struct Psk {
    iccid: Iccid,
    revision: u64,
    key: Zeroizing<Vec<u8>>,
}

impl Psk {
    /// The SIM whose key it is.
    pub fn iccid(&self) -> Iccid {
        self.iccid
    }

    /// Another number for each key that the SIM ever had, see
    /// [`Keys::revision`](crate::Keys::revision).
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bytes of the key: 4 to 256.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Psk").field("iccid", &self.iccid).finish_non_exhaustive()
    }
}

/// A key as it lies in a table: its format, then the sealed text.
type Entry = (KeyFormat, Box<[u8]>);

/// All keys.
pub(crate) struct LookUp {
    shards: Box<[RwLock<HashMap<u64, Entry>>]>,
    hasher: DefaultHashBuilder,
    /// Opened where nothing is found, so that the time tells no stranger which SIMs have keys.
    decoy: (Iccid, Entry),
}

/// What a sealed key belongs to.
pub(crate) fn place_of(iccid: Iccid, protocol: KeyProtocol, format: KeyFormat) -> [u8; 11] {
    let mut place = [0; 11];
    let (head, number) = place.split_at_mut(3);
    head.copy_from_slice(&[1, protocol.code(), format.code()]);
    number.copy_from_slice(&iccid.as_u64().to_be_bytes());
    place
}

/// A sealed key begins with its nonce: random, and never the same for two keys.
fn revision(sealed: &[u8]) -> u64 {
    sealed.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

impl LookUp {
    pub(crate) fn new(vault: &Vault) -> Result<Self, Unopened> {
        let iccid = Iccid::from_u64(0).ok_or(Unopened)?;
        let place = place_of(iccid, KeyProtocol::Coap, KeyFormat::String);
        let sealed = vault.seal(&place, &[0; crate::GENERATED_CHARS])?.into_boxed_slice();
        let shards = (0..KeyProtocol::ALL.len() * SHARDS).map(|_| RwLock::default()).collect();
        let decoy = (iccid, (KeyFormat::String, sealed));
        Ok(Self { shards, hasher: DefaultHashBuilder::default(), decoy })
    }

    pub(crate) fn put(
        &self,
        (iccid, protocol): (Iccid, KeyProtocol),
        format: KeyFormat,
        sealed: &[u8],
    ) {
        let entry = (format, sealed.into());
        let mut shard = self.shard(iccid, protocol).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(iccid.as_u64(), entry);
    }

    pub(crate) fn remove(&self, iccid: Iccid) {
        for protocol in KeyProtocol::ALL {
            let mut shard =
                self.shard(iccid, protocol).write().unwrap_or_else(PoisonError::into_inner);
            shard.remove(&iccid.as_u64());
        }
    }

    pub(crate) fn find(
        &self,
        vault: &Vault,
        protocol: KeyProtocol,
        identity: &[u8],
    ) -> Option<Psk> {
        let iccid = std::str::from_utf8(identity).ok().and_then(|text| text.parse().ok());
        let found = iccid.and_then(|iccid| self.entry(iccid, protocol));
        let (iccid, protocol, (format, sealed)) = match (iccid, &found) {
            (Some(iccid), Some(entry)) => (iccid, protocol, entry),
            _ => (self.decoy.0, KeyProtocol::Coap, &self.decoy.1),
        };
        let opened = vault.open(&place_of(iccid, protocol, *format), sealed).ok();
        let key = opened.map(|text| key_bytes(&text, *format));
        let revision = revision(sealed);
        found.as_ref().and(key).map(|key| Psk { iccid, revision, key })
    }

    pub(crate) fn revision(&self, iccid: Iccid, protocol: KeyProtocol) -> Option<u64> {
        let shard = self.shard(iccid, protocol).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&iccid.as_u64()).map(|(_, sealed)| revision(sealed))
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        let lengths = self
            .shards
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len());
        lengths.sum()
    }

    /// A copy, so that the lock is free while the key is opened.
    fn entry(&self, iccid: Iccid, protocol: KeyProtocol) -> Option<Entry> {
        let shard = self.shard(iccid, protocol).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&iccid.as_u64()).cloned()
    }

    fn shard(&self, iccid: Iccid, protocol: KeyProtocol) -> &RwLock<HashMap<u64, Entry>> {
        let first = match protocol {
            KeyProtocol::Coap => 0,
            KeyProtocol::Lwm2m => SHARDS,
            KeyProtocol::Lwm2mServer => 2 * SHARDS,
        };
        let spread = self.hasher.hash_one(iccid.as_u64()) >> 32;
        &self.shards[first + usize::try_from(spread).unwrap_or(0) % SHARDS]
    }
}
