//! The ClientHello of a peer that has proved nothing yet, and the answer to it.
//!
//! Read here, and not in C, so that spoofed datagrams reach safe code only.

/// Bytes of a record header (RFC 6347 §4.1).
pub(crate) const RECORD_HEADER_BYTES: usize = 13;
const HANDSHAKE_HEADER_BYTES: usize = 12;
pub(crate) const TYPE_HANDSHAKE: u8 = 22;
pub(crate) const COOKIE_BYTES: usize = 16;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// DTLS 1.0: what RFC 6347 §4.2.1 wants in a HelloVerifyRequest, whatever is negotiated later.
const VERSION_1_0: [u8; 2] = [0xFE, 0xFF];
const EXTENDED_MASTER_SECRET: u16 = 23;

/// What of a ClientHello matters before there is a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello<'a> {
    /// The record's sequence number: the answer repeats it (RFC 6347 §4.2.1).
    record_sequence: &'a [u8],
    /// The number of the handshake message: the answer repeats it.
    message_sequence: &'a [u8],
    /// Version, random, and session id with its length.
    pub(crate) before_cookie: &'a [u8],
    pub(crate) cookie: &'a [u8],
    /// Cipher suites and compression methods with their lengths.
    pub(crate) after_cookie: &'a [u8],
    /// A number that tells one handshake of a client from its next: the end of its random.
    pub(crate) random: u64,
    pub(crate) offers_extended_master_secret: bool,
}

/// Why a datagram is no ClientHello that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHello {
    Malformed,
    Fragmented,
    Oversized,
}

/// Whether an unprotected record begins with a ClientHello.
pub(crate) fn is_hello(datagram: &[u8]) -> bool {
    datagram.first() == Some(&TYPE_HANDSHAKE)
        && datagram.get(RECORD_HEADER_BYTES) == Some(&CLIENT_HELLO)
}

/// A reader that ends instead of panicking.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    /// A big-endian number of up to four bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let bytes = self.take(bytes)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// A vector with its length before it.
    fn vector(&mut self, length_bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

impl<'a> Hello<'a> {
    /// Reads a datagram that [`is_hello`].
    pub(crate) fn parse(datagram: &'a [u8], bytes_max: usize) -> Result<Self, NoHello> {
        if datagram.len() > bytes_max {
            return Err(NoHello::Oversized);
        }
        let mut reader = Reader(datagram);
        Self::parse_record(&mut reader).ok_or(NoHello::Malformed)?
    }

    fn parse_record(reader: &mut Reader<'a>) -> Option<Result<Self, NoHello>> {
        let header = reader.take(RECORD_HEADER_BYTES)?;
        let record_length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        // A first flight is one record; what follows it is nothing that we know.
        if record_length != reader.0.len() {
            return None;
        }
        reader.take(1)?;
        let length = reader.number(3)?;
        let message_sequence = reader.take(2)?;
        let offset = reader.number(3)?;
        let fragment_length = reader.number(3)?;
        if offset != 0 || fragment_length != length {
            return Some(Err(NoHello::Fragmented));
        }
        if record_length != HANDSHAKE_HEADER_BYTES + length {
            return None;
        }
        Self::parse_body(reader, &header[5..11], message_sequence).map(Ok)
    }

    fn parse_body(
        reader: &mut Reader<'a>,
        record_sequence: &'a [u8],
        message_sequence: &'a [u8],
    ) -> Option<Self> {
        let body = reader.0;
        reader.take(2)?;
        let random = reader.take(32)?;
        let session_id = reader.vector(1)?;
        let before_cookie = &body[..body.len() - reader.0.len()];
        let cookie = reader.vector(1)?;
        let rest = reader.0;
        let suites = reader.vector(2)?;
        let compression = reader.vector(1)?;
        let after_cookie = &rest[..rest.len() - reader.0.len()];
        if session_id.len() > 32 || suites.len() < 2 || suites.len() % 2 != 0 {
            return None;
        }
        // RFC 5246 §7.4.1.2: the method null must be among them.
        if !compression.contains(&0) {
            return None;
        }
        let mut hello = Self {
            record_sequence,
            message_sequence,
            before_cookie,
            cookie,
            after_cookie,
            random: u64::from_be_bytes(random[24..].try_into().ok()?),
            offers_extended_master_secret: false,
        };
        if !reader.0.is_empty() {
            let mut extensions = Reader(reader.vector(2)?);
            while !extensions.0.is_empty() {
                let number = extensions.number(2)?;
                extensions.vector(2)?;
                hello.offers_extended_master_secret |= number == EXTENDED_MASTER_SECRET.into();
            }
            if !reader.0.is_empty() {
                return None;
            }
        }
        Some(hello)
    }

    /// The HelloVerifyRequest with a cookie: 44 bytes, never more than the ClientHello had.
    pub(crate) fn verify_request(&self, cookie: &[u8; COOKIE_BYTES]) -> Vec<u8> {
        /// Version, length of the cookie, cookie.
        const BODY: u8 = 19;
        const COOKIE: u8 = 16;
        const _: () = assert!(COOKIE_BYTES == 16);
        let mut bytes = Vec::with_capacity(44);
        bytes.push(TYPE_HANDSHAKE);
        bytes.extend_from_slice(&VERSION_1_0);
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(self.record_sequence);
        // The length of the record is that of the body and the twelve bytes before it.
        bytes.extend_from_slice(&[0, 12 + BODY, HELLO_VERIFY_REQUEST, 0, 0, BODY]);
        bytes.extend_from_slice(self.message_sequence);
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, BODY]);
        bytes.extend_from_slice(&VERSION_1_0);
        bytes.push(COOKIE);
        bytes.extend_from_slice(cookie);
        bytes
    }
}

/// ClientHellos for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// As short as one can be: one suite, no extension.
    pub(crate) fn hello(cookie: &[u8], random: u8) -> Vec<u8> {
        let mut body = vec![0xFE, 0xFD];
        body.extend_from_slice(&[random; 32]);
        body.push(0);
        body.push(u8::try_from(cookie.len()).unwrap());
        body.extend_from_slice(cookie);
        body.extend_from_slice(&[0, 2, 0xC0, 0xA8, 1, 0]);
        record(&body, 0)
    }

    pub(crate) fn record(body: &[u8], message_sequence: u8) -> Vec<u8> {
        let length = u8::try_from(body.len()).unwrap();
        let mut bytes = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 5, 0, length + 12];
        bytes.extend_from_slice(&[1, 0, 0, length, 0, message_sequence, 0, 0, 0, 0, 0, length]);
        bytes.extend_from_slice(body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::samples::hello;
    use super::*;

    #[test]
    fn a_hello_is_read_and_answered_with_fewer_bytes() {
        let datagram = hello(&[], 7);
        let parsed = Hello::parse(&datagram, 1024).unwrap();
        assert_eq!(parsed.random, u64::from_be_bytes([7; 8]));
        assert!(parsed.cookie.is_empty() && !parsed.offers_extended_master_secret);
        let answer = parsed.verify_request(&[9; COOKIE_BYTES]);
        assert_eq!(answer.len(), 44);
        assert!(answer.len() <= datagram.len(), "an answer amplifies nothing");
        assert_eq!(answer[10], 5, "the record's number is repeated");
    }

    #[test]
    fn fragments_and_long_ones_are_named() {
        let mut datagram = hello(&[], 7);
        assert_eq!(Hello::parse(&datagram, 60).unwrap_err(), NoHello::Oversized);
        datagram[24] -= 1;
        assert_eq!(Hello::parse(&datagram, 1024).unwrap_err(), NoHello::Fragmented);
    }

    #[test]
    fn every_cut_is_malformed() {
        let datagram = hello(&[1, 2, 3], 7);
        for length in 0..datagram.len() {
            assert!(Hello::parse(&datagram[..length], 1024).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::parse(&bytes, 1024);
        }

        #[test]
        fn a_changed_byte_does_not_panic(at in 0_usize..70, to in any::<u8>()) {
            let mut datagram = hello(&[4; 16], 7);
            datagram[at] = to;
            let _ = Hello::parse(&datagram, 1024);
        }
    }
}
