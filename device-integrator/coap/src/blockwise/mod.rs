//! Bodies larger than a datagram (RFC 7959): uploads from peers, and downloads by them.

pub(crate) mod download;
pub(crate) mod upload;
