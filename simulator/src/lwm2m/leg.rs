//! Between whom a message goes.

use std::net::SocketAddrV4;

/// A device and a server that it speaks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Leg {
    /// As an index into the fleet.
    pub(crate) device: u32,
    pub(crate) server: SocketAddrV4,
    /// Whether over DTLS.
    pub(crate) is_secure: bool,
}
