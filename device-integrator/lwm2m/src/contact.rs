//! Who a device is, where it is reached, and what time it is.

use std::net::SocketAddr;
use std::time::Instant;

use vocabulary::{Iccid, Timestamp};

/// Both clocks at once: the monotonic one for timers, the wall clock for lifetimes that outlive a
/// restart.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub now: Instant,
    /// The wall clock.
    pub at: Timestamp,
}

/// Where a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Contact {
    /// The socket that it spoke to last.
    pub seat: u32,
    /// Its place behind that socket.
    pub link: Link,
}

impl Contact {
    /// Whether both are one host that uses several ports: some devices answer from another port
    /// than the one they listen on, and address translators change it.
    pub(crate) fn is_same_host(&self, other: &Self) -> bool {
        match (self.link, other.link) {
            (Link::Address(one), Link::Address(two)) => {
                self.seat == other.seat && one.ip() == two.ip()
            }
            _ => self == other,
        }
    }
}

/// A place behind a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// An address.
    Address(SocketAddr),
    /// A DTLS session.
    Session(u64),
}

/// Who sent a datagram, authenticated before it came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The SIM.
    pub iccid: Iccid,
    /// What protects the datagram.
    pub security: Security,
}

/// What protects a datagram, and what a registration made with it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Nothing; the address names the SIM.
    NoSec,
    /// DTLS with the key for bootstrapping.
    BootstrapKey,
    /// DTLS with the key that bootstrapping handed out.
    ServerKey,
}
