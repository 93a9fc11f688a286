//! What the C library asks for during a call, and the loop of steps over one datagram.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ffi::{self, Host, Io, Resumption, Step};
use crate::network::Network;
use crate::psk::Psk;
use crate::{IDENTITY_BYTES_MAX, RECORD_BYTES_MAX};

use super::sessions::Session;
use super::{Output, SessionId, Shared};

/// Bytes of the key that an unknown identity gets: as many as a usual key has.
const FAKE_KEY_BYTES: usize = 16;
/// Steps over one datagram: a record has at least 13 bytes, a datagram at most 65,507.
const STEPS_MAX: usize = 5_100;

/// What a handshake finds out about its peer.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) identity: Option<Arc<[u8]>>,
    /// Whether there is a key for the identity.
    pub(super) is_known: bool,
    /// Of that key.
    pub(super) revision: u64,
    pub(super) key_digest: [u8; 16],
    pub(super) is_resumed: bool,
    pub(super) offers_extended_master_secret: bool,
}

pub(super) struct Call<'a> {
    pub(super) shared: &'a mut Shared,
    pub(super) peer: SocketAddr,
    pub(super) facts: &'a mut Facts,
    /// In a handshake: the sessions that there are.
    pub(super) homes: Option<Homes<'a>>,
}

/// Where identities have sessions.
pub(super) struct Homes<'a> {
    pub(super) sessions: &'a HashMap<SessionId, Session>,
    pub(super) by_identity: &'a HashMap<u64, Vec<SessionId>>,
    pub(super) hash: &'a RandomState,
}

impl Homes<'_> {
    fn is_at_home(&self, identity: &[u8], peer: SocketAddr) -> bool {
        let network = Network::of(peer);
        let ids = self.by_identity.get(&self.hash.hash_one(identity));
        ids.into_iter().flatten().filter_map(|id| self.sessions.get(id)).any(|session| {
            session.identity[..] == *identity && Network::of(session.peer) == network
        })
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(shared: &'a mut Shared, peer: SocketAddr, facts: &'a mut Facts) -> Self {
        Self { shared, peer, facts, homes: None }
    }

    /// Counts a Finished that the key of the identity did not make.
    pub(super) fn note_failure(&mut self) {
        if let Some(identity) = &self.facts.identity {
            self.shared.failures.note(self.shared.now_ms, identity, self.peer);
        }
    }

    /// Whether a handshake has to fail whatever its key is. Not where the identity has a session:
    /// others there must not lock a device out that has shown its key.
    fn is_held_back(&self, identity: &[u8]) -> bool {
        self.shared.failures.is_held_back(self.shared.now_ms, identity, self.peer)
            && !self.homes.as_ref().is_some_and(|homes| homes.is_at_home(identity, self.peer))
    }

    fn digest(&self, key: &[u8]) -> [u8; 16] {
        let mac = ffi::hmac(&self.shared.secret, key);
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac[..16]);
        digest
    }
}

impl Host for Call<'_> {
    fn key(&mut self, identity: &[u8], room: &mut [u8]) -> usize {
        // Made in any case, so that the time says nothing about the identity.
        let fake = ffi::hmac(&self.shared.secret, identity);
        let is_asked = identity.len() <= IDENTITY_BYTES_MAX;
        let found = if is_asked { (self.shared.keys)(identity) } else { None };
        let is_held_back = self.is_held_back(identity);
        self.facts.is_known = found.is_some();
        self.shared.counters.held_back += u64::from(is_held_back);
        let found = found.filter(|_| !is_held_back);
        let key = match &found {
            Some(key) => key.as_bytes(),
            None => {
                self.shared.counters.identities_unknown += u64::from(!self.facts.is_known);
                &fake[..FAKE_KEY_BYTES]
            }
        };
        let length = key.len().min(room.len());
        room[..length].copy_from_slice(&key[..length]);
        self.facts.key_digest = self.digest(key);
        self.facts.identity = Some(identity.into());
        self.facts.revision = found.as_ref().map_or(0, Psk::revision);
        self.facts.is_resumed = false;
        length
    }

    fn recall(&mut self, id: &[u8]) -> Option<Resumption> {
        let found = self.shared.resumptions.find(self.shared.now_ms, id)?;
        if found.extended_master_secret != self.facts.offers_extended_master_secret {
            return None;
        }
        let key = (self.shared.keys)(&found.identity)?;
        let found = self.shared.resumptions.find(self.shared.now_ms, id)?;
        let key_digest = self.digest(key.as_bytes());
        if found.key_digest != key_digest {
            return None;
        }
        self.facts.identity = Some(Arc::clone(&found.identity));
        self.facts.is_known = true;
        self.facts.revision = key.revision();
        self.facts.key_digest = key_digest;
        self.facts.is_resumed = true;
        Some(found.resumption.clone())
    }

    fn remember(&mut self, resumption: &Resumption) {
        if let Some(identity) = self.facts.identity.clone() {
            let (digest, now_ms) = (self.facts.key_digest, self.shared.now_ms);
            self.shared.resumptions.insert(
                now_ms,
                resumption.clone(),
                (identity, digest),
                self.facts.offers_extended_master_secret,
            );
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.shared.counters.sent += 1;
        let output = Output::Transmit { peer: self.peer, bytes: bytes.to_vec() };
        self.shared.outputs.push_back(output);
    }
}

/// What a datagram did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Goes,
    Closed,
    Failed,
}

/// Steps until the session waits; gives the bytes of records to `received`.
pub(super) fn drive(
    session: &mut ffi::Session,
    call: &mut Call<'_>,
    datagram: &[u8],
    scratch: &mut [u8; RECORD_BYTES_MAX],
    received: &mut VecDeque<Vec<u8>>,
) -> Fate {
    let now_ms = call.shared.now_ms;
    let mut io = Io { datagram, host: call };
    for _ in 0..STEPS_MAX {
        match session.step(&mut io, now_ms, scratch) {
            // A timer that ran out is served before the datagram is looked at.
            Step::Wait if !io.datagram.is_empty() => {}
            Step::Wait => return Fate::Goes,
            Step::Established => {}
            Step::Received(length) => received.push_back(scratch[..length].to_vec()),
            Step::Closed => return Fate::Closed,
            Step::Failed(_) => return Fate::Failed,
        }
    }
    Fate::Failed
}
