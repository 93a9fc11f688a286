//! Bytes to be sent.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The bytes of one datagram: short ones inline, long ones shared with their retransmissions.
#[derive(Clone)]
pub struct Datagram(Bytes);

/// A bodyless response is at most 12 bytes, a 2.31 with its block option 16.
const INLINE_BYTES: usize = 38;

#[derive(Clone)]
enum Bytes {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Arc<[u8]>),
}

impl From<&[u8]> for Datagram {
    fn from(source: &[u8]) -> Self {
        match u8::try_from(source.len()) {
            Ok(length) if source.len() <= INLINE_BYTES => {
                let mut bytes = [0; INLINE_BYTES];
                bytes[..source.len()].copy_from_slice(source);
                Self(Bytes::Inline { length, bytes })
            }
            _ => Self(Bytes::Shared(Arc::from(source))),
        }
    }
}

impl Deref for Datagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Datagram {}

impl fmt::Debug for Datagram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Datagram({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_bytes_come_back() {
        for length in [0, 12, 38, 39, 1_500] {
            let bytes = vec![7; length];
            assert_eq!(*Datagram::from(&bytes[..]), bytes[..]);
        }
    }
}
