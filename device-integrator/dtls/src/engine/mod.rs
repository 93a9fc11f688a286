//! The engine: datagrams and the time in, datagrams and events out.
//!
//! A datagram finds its session in this order:
//! 1. by connection ID (RFC 9146), whatever its address;
//! 2. a ClientHello always goes through the cookie, also from the address of a session;
//! 3. other unprotected records belong to the handshake under way from their address, or to a
//!    session whose last flight the peer may have missed;
//! 4. protected records belong to the session of their address, and what that session does not
//!    recognise to the handshake under way.

mod handshake;
mod host;
mod pending;
mod persistence;
mod queues;
mod sessions;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::budget::Budget;
use crate::cookie::{Cookies, random_key};
use crate::counters::Counters;
use crate::failures::Failures;
use crate::ffi;
use crate::hello::{self, RECORD_HEADER_BYTES};
use crate::limits::{Config, UnknownRecords};
use crate::network::Network;
use crate::psk::Psk;
use crate::records::{TYPE_ALERT, TYPE_APPLICATION_DATA, TYPE_CID};
use crate::resumption::Resumptions;
use crate::shares::Shares;
use crate::snapshot::CID_BYTES;
use crate::{RECORD_BYTES_MAX, SEQUENCE_JUMP};

use pending::Pending;
pub use persistence::{Change, ImportError};
use queues::{Queue, Queues};
use sessions::{Session, Tried};

/// An unprotected alert: header, level, description.
const ALERT_BYTES: usize = RECORD_HEADER_BYTES + 2;
/// Of the wakes per second, as many again go to sessions that forgeries are sent to: one in four.
const SUSPECTS_SHARE: u32 = 4;
/// When time begins: the C library takes 0 for no timer.
pub(crate) const EPOCH_MS: u64 = 1;

/// A session: the same before and after a restart, and the connection ID on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// As a number, for the owner's storage.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// From [`SessionId::as_u64`].
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    fn to_cid(self) -> [u8; CID_BYTES] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an engine wants from its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes as one datagram.
    Transmit {
        /// To whom.
        peer: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something happened.
    Event(Event),
    /// Nothing more; call [`Engine::handle_timeout`] at this time, if there is one.
    Timeout(Option<Instant>),
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer has proved that it has the key of an identity.
    Established {
        /// The new session.
        session: SessionId,
        /// From where.
        peer: SocketAddr,
        /// Who.
        identity: Arc<[u8]>,
        /// Whether by an abbreviated handshake.
        resumed: bool,
        /// Whether the peer sends our connection ID.
        cid: bool,
    },
    /// A handshake failed after its peer had named an identity.
    Refused {
        /// From where.
        peer: SocketAddr,
        /// Who the peer claims to be.
        identity: Arc<[u8]>,
        /// Whether there is a key for it: then the peer's is another one, or the handshake was
        /// held back because too many had failed.
        is_known: bool,
    },
    /// Bytes of one record. With all that is needed to judge it: the session may have ended, or
    /// moved on to another address, by the time that it is looked at.
    Received {
        /// Of this session.
        session: SessionId,
        /// From where this record came; answers go to where the newest record came from.
        peer: SocketAddr,
        /// Who sent it.
        identity: Arc<[u8]>,
        /// With which key the session began, see [`Psk::with_revision`].
        revision: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A session is no more.
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        cause: CloseCause,
    },
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer said so.
    Peer,
    /// The owner said so.
    Owner,
    /// A newer session of the same address, or too many of the same identity.
    Replaced,
    /// It idled too long, or there were too many.
    Forgotten,
    /// A fatal alert of the peer, or a record that makes no sense.
    Failed,
}

/// Why an engine cannot begin.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SetUpError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// No suite, more than eight, or no memory.
    #[error("{suites} cipher suites refused, allowed are 1 to 8")]
    Suites {
        /// How many were configured.
        suites: usize,
    },
}

/// Why bytes were not sent.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// There is no such session, or no longer.
    #[error("no session {session}")]
    NoSession {
        /// The session asked for.
        session: SessionId,
    },
    /// Too long for a record, or empty.
    #[error("record of {bytes} bytes, allowed are 1 to {limit}", limit = RECORD_BYTES_MAX)]
    Length {
        /// Bytes given.
        bytes: usize,
    },
    /// Too many records since the session was saved: see [`Config::generation`].
    #[error("{records} records sent since the session was saved, allowed are {limit}",
        limit = SEQUENCE_JUMP)]
    Unsaved {
        /// Records sent since.
        records: u64,
    },
    /// The sequence numbers of the session are used up, or memory is.
    #[error("the session cannot send any more, error {code}")]
    Library {
        /// The number that Mbed TLS gives.
        code: i32,
    },
}

/// Gives the key of an identity.
type Keys = Box<dyn FnMut(&[u8]) -> Option<Psk> + Send>;

/// What the handshakes and the sessions share, apart from the maps that hold them.
struct Shared {
    keys: Keys,
    resumptions: Resumptions,
    failures: Failures,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// For keys that do not exist, and for digests of those that do.
    secret: Zeroizing<[u8; 32]>,
    now_ms: u64,
    generation: u32,
}

/// DTLS server sessions behind one port, without a socket, without a clock.
///
/// After every call poll [`Engine::poll_output`] until [`Output::Timeout`]. What the network does
/// wrong is counted, never an error.
pub struct Engine {
    config: Config,
    context: Arc<ffi::Context>,
    shared: Shared,
    cookies: Cookies,
    handshake_budget: Budget,
    shares: Shares,
    wake_budget: Budget,
    /// For sessions that were woken in vain of late: their share of the wakes.
    suspect_budget: Budget,
    epoch: Instant,
    identity_hash: RandomState,

    pendings: HashMap<SessionId, Pending>,
    pending_by_peer: HashMap<SocketAddr, SessionId>,
    /// The oldest first.
    pending_by_network: HashMap<Network, BTreeSet<(u64, SessionId)>>,
    /// When each pending handshake wants to be looked at.
    pending_timers: BTreeSet<(u64, SessionId)>,
    /// The oldest first; holds each pending handshake once.
    pending_order: BTreeSet<(u64, SessionId)>,

    sessions: HashMap<SessionId, Session>,
    by_peer: HashMap<SocketAddr, SessionId>,
    /// By the hash of the identity; the oldest first.
    by_identity: HashMap<u64, Vec<SessionId>>,
    queues: Queues,
    /// Sessions that changed since they were saved, each once, by the number of the change: so
    /// none waits for ever.
    changed: BTreeSet<(u64, SessionId)>,
    changes: u64,
    /// Saved sessions that are gone. At most as many as there may be sessions, as long as nothing
    /// is saved: a session that was not saved leaves nothing here.
    gone: VecDeque<SessionId>,
    /// Where a record is decrypted to.
    scratch: Box<[u8; RECORD_BYTES_MAX]>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("sessions", &self.sessions.len())
            .field("half_open", &self.pendings.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that asks `keys` for the key of an identity; `None` is an unknown identity, which
    /// its peer cannot tell from a wrong key.
    pub fn new(
        config: Config,
        now: Instant,
        keys: impl FnMut(&[u8]) -> Option<Psk> + Send + 'static,
    ) -> Result<Self, SetUpError> {
        let limits = &config.limits;
        let suites: Vec<u16> = config.suites.iter().map(|suite| suite.number()).collect();
        let retransmit_ms = u32::try_from(config.retransmit.as_millis()).unwrap_or(u32::MAX / 4);
        let setup = ffi::Setup {
            suites: &suites,
            cid_length: CID_BYTES,
            retransmit_ms: (retransmit_ms, retransmit_ms.saturating_mul(4)),
            client: None,
        };
        let refused = SetUpError::Suites { suites: suites.len() };
        if suites.is_empty() {
            return Err(refused);
        }
        let now_ms = EPOCH_MS;
        let suspects_per_second = limits.wakes_per_second.div_ceil(SUSPECTS_SHARE);
        let shared = Shared {
            keys: Box::new(keys),
            resumptions: Resumptions::new(
                limits.resumptions_max,
                millis(limits.resumption_lifetime),
            ),
            failures: Failures::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            secret: random_key().ok_or(SetUpError::Random)?,
            now_ms,
            generation: config.generation,
        };
        Ok(Self {
            context: ffi::Context::new(&setup).ok_or(refused)?,
            shared,
            cookies: Cookies::new(now_ms).ok_or(SetUpError::Random)?,
            handshake_budget: Budget::new(
                limits.handshakes_per_second,
                limits.handshakes_burst,
                now_ms,
            ),
            shares: Shares::new(limits.handshakes_per_second, limits.handshakes_burst, now_ms),
            wake_budget: Budget::new(limits.wakes_per_second, limits.wakes_per_second, now_ms),
            suspect_budget: Budget::new(suspects_per_second, suspects_per_second, now_ms),
            epoch: now,
            identity_hash: RandomState::new(),
            pendings: HashMap::new(),
            pending_by_peer: HashMap::new(),
            pending_by_network: HashMap::new(),
            pending_timers: BTreeSet::new(),
            pending_order: BTreeSet::new(),
            sessions: HashMap::new(),
            by_peer: HashMap::new(),
            by_identity: HashMap::new(),
            queues: Queues::default(),
            changed: BTreeSet::new(),
            changes: 0,
            gone: VecDeque::new(),
            scratch: Box::new([0; RECORD_BYTES_MAX]),
            config,
        })
    }

    /// Takes a datagram from a peer.
    pub fn handle_datagram(&mut self, now: Instant, peer: SocketAddr, datagram: &[u8]) {
        self.advance(now);
        self.shared.counters.received += 1;
        if self.shared.outputs.len() >= self.config.limits.outputs_max {
            self.shared.counters.overflowed += 1;
            return;
        }
        let Some(header) = datagram.first_chunk::<RECORD_HEADER_BYTES>() else {
            self.shared.counters.malformed += 1;
            return;
        };
        // RFC 6347 §4.1: all versions of DTLS have the major version 254.
        let known_type = (20..=TYPE_APPLICATION_DATA).contains(&header[0]) || header[0] == TYPE_CID;
        if header[1] != 0xFE || !known_type {
            self.shared.counters.malformed += 1;
            return;
        }
        if header[0] == TYPE_CID {
            self.handle_by_cid(peer, datagram);
        } else if header[3..5] != [0, 0] {
            self.handle_protected(peer, datagram);
        } else if hello::is_hello(datagram) {
            self.handle_hello(peer, datagram);
        } else {
            self.handle_unprotected(peer, datagram);
        }
    }

    /// Does what is due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.drive_pending_timers();
        self.put_idle_to_sleep();
        self.forget_idle();
        self.shared.resumptions.expire(self.shared.now_ms);
    }

    /// The next thing to do; poll until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        match self.shared.outputs.pop_front() {
            Some(output) => output,
            None => Output::Timeout(self.next_timeout()),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters
    }

    /// Established sessions at the moment.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Of these, those that are not asleep.
    pub fn awake(&self) -> usize {
        self.queues.awake()
    }

    /// Handshakes under way at the moment.
    pub fn half_open(&self) -> usize {
        self.pendings.len()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let sleep_ms = millis(self.config.limits.sleep_after);
        let idle_ms = millis(self.config.limits.idle_max);
        [
            self.pending_timers.first().map(|(at, _)| *at),
            self.queues.first(Queue::Fresh).map(|(active, _)| active.saturating_add(sleep_ms)),
            self.queues.first(Queue::Busy).map(|(active, _)| active.saturating_add(sleep_ms)),
            self.queues.first(Queue::Asleep).map(|(active, _)| active.saturating_add(idle_ms)),
        ]
        .into_iter()
        .flatten()
        .min()
        .and_then(|at| self.epoch.checked_add(Duration::from_millis(at.saturating_sub(EPOCH_MS))))
    }

    fn advance(&mut self, now: Instant) {
        let elapsed_ms = millis(now.saturating_duration_since(self.epoch));
        self.shared.now_ms = self.shared.now_ms.max(elapsed_ms.saturating_add(EPOCH_MS));
    }

    /// A new id that no session and no handshake has.
    fn new_id(&self) -> Option<SessionId> {
        // Two rounds at most in practice: ids have 56 random bits.
        for _ in 0..8 {
            let mut bytes = [0; CID_BYTES];
            if !ffi::fill_random(&mut bytes) {
                return None;
            }
            bytes[0] = self.config.shard;
            let id = SessionId(u64::from_be_bytes(bytes));
            if !self.sessions.contains_key(&id) && !self.pendings.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    fn hash_identity(&self, identity: &[u8]) -> u64 {
        self.identity_hash.hash_one(identity)
    }

    fn handle_by_cid(&mut self, peer: SocketAddr, datagram: &[u8]) {
        let cid = datagram.get(11..11 + CID_BYTES).and_then(|cid| cid.try_into().ok());
        let Some(id) = cid.map(|cid| SessionId(u64::from_be_bytes(cid))) else {
            self.shared.counters.malformed += 1;
            return;
        };
        if self.pendings.contains_key(&id) {
            // Before the handshake is over nobody moves.
            if self.pendings.get(&id).is_some_and(|pending| pending.peer == peer) {
                self.feed_pending(id, datagram);
            } else {
                self.shared.counters.unknown += 1;
            }
        } else if self.sessions.contains_key(&id) {
            self.feed_session(id, peer, datagram);
        } else {
            self.refuse_unknown(peer, datagram);
        }
    }

    fn handle_protected(&mut self, peer: SocketAddr, datagram: &[u8]) {
        let session = self.by_peer.get(&peer).copied();
        let pending = self.pending_by_peer.get(&peer).copied();
        match (session, pending) {
            (Some(session), Some(pending)) => {
                if self.try_session(session, peer, datagram) != Tried::Taken {
                    self.feed_pending(pending, datagram);
                }
            }
            (Some(session), None) => self.feed_session(session, peer, datagram),
            (None, Some(pending)) => self.feed_pending(pending, datagram),
            (None, None) => self.refuse_unknown(peer, datagram),
        }
    }

    fn handle_unprotected(&mut self, peer: SocketAddr, datagram: &[u8]) {
        if let Some(pending) = self.pending_by_peer.get(&peer).copied() {
            self.feed_pending(pending, datagram);
            return;
        }
        match self.by_peer.get(&peer).copied() {
            Some(session) if self.holds_flight(session) => {
                self.feed_session(session, peer, datagram);
            }
            // An unprotected alert against a session can come from anybody.
            _ => self.shared.counters.unknown += 1,
        }
    }

    fn refuse_unknown(&mut self, peer: SocketAddr, datagram: &[u8]) {
        self.shared.counters.unknown += 1;
        let is_data = matches!(datagram.first(), Some(&TYPE_APPLICATION_DATA | &TYPE_CID));
        if self.config.unknown_records == UnknownRecords::Silence
            || !is_data
            || datagram.len() < ALERT_BYTES
        {
            return;
        }
        self.shared.counters.unknown_alerted += 1;
        // Version 1.2, epoch 0, sequence number 0, two bytes: fatal, unexpected_message.
        let bytes = vec![TYPE_ALERT, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 10];
        self.shared.outputs.push_back(Output::Transmit { peer, bytes });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
