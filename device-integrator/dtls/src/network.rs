//! Networks: what one attacker can usually send from.

use std::net::{IpAddr, SocketAddr};

/// A /24 of IPv4 or a /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(u64);

impl Network {
    pub(crate) fn of(peer: SocketAddr) -> Self {
        match peer.ip() {
            IpAddr::V4(address) => Self(u64::from(u32::from(address) >> 8)),
            // The first 16 bits of a global address are never zero, so the two do not meet.
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Self(u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c) | 1 << 63)
            }
        }
    }
}
