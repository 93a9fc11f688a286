//! The border between devices and the rest of the gateway.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap::wire::ContentFormat;
use dtls::{Change, Psk};
use vocabulary::{Iccid, Protocol, Timestamp, Topic};
use zeroize::Zeroizing;

use crate::bootstrap::Credentials;
use crate::orders::OrderEnd;

/// A message of a device, on its way in: nothing about it is durable yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Who sent it, as far as the transport knows.
    pub peer: Peer,
    /// The protocol that it arrived by.
    pub protocol: Protocol,
    /// The topic that the device named.
    pub topic: Option<Topic>,
    /// What tells a retransmission from a new message; `None` where the protocol has nothing.
    pub exchange: Option<Exchange>,
    /// Whether the device asks for a command with the answer: [`Ingest::rider`] is called when it
    /// is stored, and the device is not awake to its other commands before.
    pub asks_command: bool,
    /// When the device measured it, where it says so.
    pub measured: Option<Timestamp>,
    /// The bytes of the device.
    pub payload: Vec<u8>,
    /// When the datagram (the last, for a block-wise upload) was read.
    pub received_at: Timestamp,
}

/// What the transport knows of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The source address of the datagram.
    pub address: SocketAddr,
    /// Whether the network vouches for the address: only then it is an identity.
    pub is_vouched: bool,
    /// The key that the sender has; `None` without DTLS.
    pub key: Option<ProvenKey>,
}

/// A key that the other end of a DTLS session has proved to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenKey {
    /// The SIM whose key it is.
    pub iccid: Iccid,
    /// For what it is.
    pub account: KeyAccount,
    /// Which of the keys that the SIM ever had, see [`Psk::with_revision`].
    pub revision: u64,
    /// Whether the listener asks for the SIM's own address besides.
    pub needs_address: bool,
}

/// What a key is for: a device may have one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAccount {
    /// CoAP over DTLS.
    Coap,
    /// LwM2M: the bootstrap server, or a server that was set up without one.
    Lwm2mBootstrap,
    /// LwM2M: the server, by the key that the last bootstrap gave.
    Lwm2mServer,
}

impl KeyAccount {
    /// Behind the ICCID in the identity of the server account, which a bootstrap gives: the short
    /// server id. Whoever has no bootstrap uses the ICCID alone.
    pub const LWM2M_SERVER_SUFFIX: &str = "/1111";

    /// The account that an identity names in a handshake of `protocol`, and the rest of it: the
    /// ICCID.
    pub fn of(protocol: Protocol, identity: &[u8]) -> (Self, &[u8]) {
        match (protocol, identity.strip_suffix(Self::LWM2M_SERVER_SUFFIX.as_bytes())) {
            (Protocol::Lwm2m, Some(iccid)) => (Self::Lwm2mServer, iccid),
            (Protocol::Lwm2m, None) => (Self::Lwm2mBootstrap, identity),
            (Protocol::Coap | Protocol::Udp, _) => (Self::Coap, identity),
        }
    }
}

/// Why a peer may not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// For the peer.
    pub reason: &'static str,
    /// Whether its DTLS session is worth nothing any more: its key was replaced.
    pub ends_session: bool,
}

/// A handshake that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedHandshake<'a> {
    /// From where.
    pub address: SocketAddr,
    /// Who the peer claimed to be.
    pub identity: &'a [u8],
    /// Whether there is a key for the identity: then the peer has another one.
    pub is_known: bool,
}

/// A CoAP exchange, as far as it identifies a message (RFC 7252 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The message id.
    pub message_id: u16,
    /// The token's bytes, zero beyond its length.
    pub token: [u8; 8],
    /// The token's length, 0 to 8.
    pub token_length: u8,
    /// Whether it was a CON, whose message id stays bound longer.
    pub confirmable: bool,
    /// Which of the uplinks of the message, from zero: values of several times are several.
    pub part: u16,
}

/// A command that rides on the answer to an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rider {
    /// Names it in [`Ingest::report`].
    pub order: u64,
    /// Path and query of the CoAP request that it would have been; empty for a plain datagram.
    pub path: String,
    /// The format of the payload.
    pub format: Option<ContentFormat>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// What is to be durable of a device that is registered by LwM2M.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationChange {
    /// The device.
    pub iccid: Iccid,
    /// Its registration as the protocol saves it; `None` where it has none any more.
    pub state: Option<Vec<u8>>,
}

/// The key of a device with the LwM2M server, as a bootstrap gives it.
#[derive(Clone)]
pub struct ServerKey {
    /// The identity that the device shall give in the handshake.
    pub identity: String,
    /// The key, overwritten when it is dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// The key by which the device bootstraps, as it has it already.
    pub bootstrap_key: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerKey")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What became of an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// It is durable: the device may forget it.
    Stored,
    /// The same message was durable already.
    Duplicate,
    /// The sender is no known and active SIM.
    Unauthorised(&'static str),
    /// It was not taken; the device should come again after the span.
    Unavailable {
        /// Why, for the log and the counters.
        reason: Shed,
        /// After how long the device should try again.
        retry_after: Duration,
    },
}

/// Why a message of a known device was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// Too many messages wait for the disk.
    QueueFull,
    /// It waited too long for the disk.
    Overdue,
    /// The disk is full.
    NoSpace,
    /// The store failed or is closed.
    StoreFailed,
    /// The device sends more than it may.
    DeviceTooFast,
}

impl Shed {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::Overdue, Self::NoSpace, Self::StoreFailed, Self::DeviceTooFast];

    /// The reason as the label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Overdue => "overdue",
            Self::NoSpace => "no_space",
            Self::StoreFailed => "store_failed",
            Self::DeviceTooFast => "device_too_fast",
        }
    }
}

/// Takes messages over from the listeners.
///
/// The gateway's one pipeline implements it; the tests of this crate have their own.
pub trait Ingest: Clone + Send + Sync + 'static {
    /// Resolves to one receipt per uplink, in the same order.
    type Admission: Future<Output = Vec<Receipt>> + Send;
    /// Resolves to what a device is told that asks for its key, or to why it is told nothing: any
    /// receipt but [`Receipt::Stored`] and [`Receipt::Duplicate`].
    type Bootstrap: Future<Output = Result<Credentials, Receipt>> + Send;
    /// Resolves when changes of DTLS sessions are durable.
    type Saving: Future<Output = ()> + Send;

    /// Resolves when registrations are durable; any receipt but [`Receipt::Stored`] where they are
    /// not.
    type Registering: Future<Output = Receipt> + Send;
    /// Resolves to the new key of a device that bootstraps, or to why there is none.
    type Renewal: Future<Output = Result<ServerKey, Receipt>> + Send;

    /// Whose device `peer` is, asked before a protocol spends memory on it, or why it may not
    /// speak. The implementation tells its operator.
    fn screen(&self, peer: Peer, protocol: Protocol, now: Timestamp) -> Result<Iccid, Refused>;

    /// Starts to admit `uplinks`. Never blocks: an uplink that cannot be taken is shed.
    fn admit(&self, uplinks: Vec<Uplink>) -> Self::Admission;

    /// Looks for the key of `peer`, or makes one. Never blocks; the key is durable when the future
    /// resolves. Only a source address that is an identity gets one.
    fn bootstrap(&self, peer: Peer, received_at: Timestamp) -> Self::Bootstrap;

    /// The key of whoever calls itself `identity`, an ICCID, in a handshake of `protocol`. Never
    /// blocks, and takes as long where there is none.
    fn key(&self, protocol: Protocol, identity: &[u8]) -> Option<Psk>;

    /// Tells the operator of a handshake that failed.
    fn note_failed_handshake(&self, handshake: FailedHandshake<'_>, now: Timestamp);

    /// Starts to make registrations durable, all of them or none. Never blocks.
    fn register(&self, changes: Vec<RegistrationChange>) -> Self::Registering;

    /// Makes registrations durable that nobody waits for, within 5 s unless the disk refuses, and
    /// after it has healed.
    fn note_registrations(&self, changes: Vec<RegistrationChange>);

    /// Makes a new key of a device with the LwM2M server. Never blocks; the key is durable when
    /// the future resolves.
    fn renew_key(&self, device: Iccid) -> Self::Renewal;

    /// Whether a device may do one more thing now that costs as much as a message; it is counted.
    fn allows(&self, device: Iccid) -> bool;

    /// Hears that a device listens now: it has registered (`is_new`) or updated its registration.
    fn awake(&self, device: Iccid, is_new: bool);

    /// The oldest command that waits for the sender of a stored uplink and fits the answer. It
    /// counts as sent; what else waits for a sign of life is sent behind it.
    fn rider(&self, peer: Peer) -> Option<Rider>;

    /// The firmware image of this name, of which a device fetches the bytes up to `until`.
    fn image(&self, device: Iccid, name: &str, until: u64) -> Option<Arc<[u8]>>;

    /// Hears how an order ended.
    fn report(&self, order: u64, end: OrderEnd);

    /// Tells the operator something about a device.
    fn note(&self, device: Iccid, message: &'static str, description: &str);

    /// Keeps the sessions of the listener at `listener` over a restart. Never blocks.
    fn save(&self, listener: SocketAddr, changes: Vec<Change>) -> Self::Saving;
}
