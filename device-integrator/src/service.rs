//! What a listener drives: a protocol behind one socket, whatever carries its datagrams.

use std::hash::Hash;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use dtls::SessionId;
use lwm2m::Link;
use vocabulary::{Iccid, Timestamp};

use crate::uplink::{Peer, Refused};

/// When a datagram came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) now: Instant,
    pub(crate) received_at: Timestamp,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        Self { now: Instant::now(), received_at: Timestamp::from(SystemTime::now()) }
    }
}

/// What carries datagrams to and from the peers.
pub(crate) trait Carrier<P> {
    /// Sends a datagram, sooner or later.
    fn send(&mut self, to: P, bytes: &[u8]);

    /// Whether a device can be reached there: an address always, a session while it lasts and its
    /// key is the device's.
    fn reaches(&mut self, device: Iccid, peer: P) -> bool;

    /// Hears that a peer may not speak.
    fn refused(&mut self, peer: P, refused: Refused);
}

/// What tells the peers of a socket from each other.
pub(crate) trait PeerKey: Copy + Eq + Hash + Unpin {
    /// As the rest of the gateway names it.
    fn link(self) -> Link;

    /// The peer at `link`, if the socket has such peers.
    fn of(link: Link) -> Option<Self>;
}

impl PeerKey for SocketAddr {
    fn link(self) -> Link {
        Link::Address(self)
    }

    fn of(link: Link) -> Option<Self> {
        match link {
            Link::Address(address) => Some(address),
            Link::Session(_) => None,
        }
    }
}

impl PeerKey for SessionId {
    fn link(self) -> Link {
        Link::Session(self.as_u64())
    }

    fn of(link: Link) -> Option<Self> {
        match link {
            Link::Address(_) => None,
            Link::Session(session) => Some(Self::from_u64(session)),
        }
    }
}

/// A protocol of devices. `P` is what tells its peers from each other: addresses, or sessions.
pub(crate) trait Service<P> {
    /// Takes a datagram of `from`, who is `peer`; what is in it becomes an uplink or is answered.
    /// [`Service::admit`] follows the last of a read.
    fn handle_datagram(
        &mut self,
        arrival: Arrival,
        from: (P, Peer),
        bytes: &[u8],
        carrier: &mut impl Carrier<P>,
    );

    /// Starts to admit the uplinks of a read.
    fn admit(&mut self);

    /// Waits until something that was asked of the pipeline is there, and answers it; or until
    /// something is to be sent, and sends it.
    async fn answer_next(&mut self);

    /// Whether nothing is asked of the pipeline.
    fn is_idle(&self) -> bool;

    /// Sends what the protocol wants to send; when it wants to be woken.
    fn drain(&mut self, carrier: &mut impl Carrier<P>) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Carries counters to the metrics.
    fn update_metrics(&mut self);
}

/// The operating system's randomness, by way of the standard library's hash keys.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
