//! From bytes to a message, without a copy.

use thiserror::Error;

use super::{Code, MessageId, MessageType, OptionNumber, OptionRef, Token};

/// A well-formed message, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// CON, NON, ACK or RST.
    pub message_type: MessageType,
    /// Method, response code or empty.
    pub code: Code,
    /// The message id.
    pub id: MessageId,
    /// The token.
    pub token: Token,
    options: &'a [u8],
    /// The payload; empty if there is none.
    pub payload: &'a [u8],
}

/// Why bytes are no message, with what is needed to reject them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct ParseError {
    /// What is wrong.
    pub reason: Malformed,
    /// Type and id, if the header was readable: a confirmable message is rejected with a reset
    /// (RFC 7252 §4.2); without a header, or with another version (§3), silence is the answer.
    pub header: Option<(MessageType, MessageId)>,
}

/// What is wrong with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Malformed {
    /// Shorter than the header.
    #[error("datagram of {0} bytes is shorter than the header of 4")]
    Short(usize),
    /// Another version of the protocol.
    #[error("version {0}, allowed: 1")]
    Version(u8),
    /// A token length above 8: reserved, or an extended token of RFC 8974.
    #[error("token length {0} exceeds the limit of 8")]
    TokenLength(u8),
    /// The datagram ends inside the token.
    #[error("the datagram ends inside the token")]
    TokenCut,
    /// An empty message of more than the header.
    #[error("empty message of {0} bytes, allowed: 4")]
    EmptyWithContent(usize),
    /// A code of a reserved class.
    #[error("code {0} is of a reserved class")]
    ReservedClass(Code),
    /// An option's delta or length has the reserved value 15.
    #[error("option delta or length has the reserved value 15")]
    OptionNibble,
    /// The datagram ends inside an option.
    #[error("the datagram ends inside an option")]
    OptionCut,
    /// An option number above 16 bits.
    #[error("option number {0} exceeds the limit of 65535")]
    OptionNumber(u32),
    /// A payload marker with nothing behind it.
    #[error("payload marker without a payload")]
    MarkerWithoutPayload,
}

impl<'a> MessageRef<'a> {
    /// Reads a datagram; strict, without an allocation.
    ///
    /// # Errors
    /// Whatever RFC 7252 §3 calls a message format error, and the reserved code classes of §4.2.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let [first, code, id_high, id_low, rest @ ..] = datagram else {
            return Err(ParseError { reason: Malformed::Short(datagram.len()), header: None });
        };
        let version = first >> 6;
        if version != 1 {
            return Err(ParseError { reason: Malformed::Version(version), header: None });
        }
        let message_type = MessageType::from_bits(first >> 4);
        let id = MessageId(u16::from_be_bytes([*id_high, *id_low]));
        let reject = |reason| ParseError { reason, header: Some((message_type, id)) };
        let code = Code::from_byte(*code);
        if code == Code::EMPTY && (datagram.len() > 4 || first & 0xf != 0) {
            return Err(reject(Malformed::EmptyWithContent(datagram.len())));
        }
        if code.is_reserved() {
            return Err(reject(Malformed::ReservedClass(code)));
        }
        let token_length = first & 0xf;
        if token_length > 8 {
            return Err(reject(Malformed::TokenLength(token_length)));
        }
        let Some((token, body)) = rest.split_at_checked(usize::from(token_length)) else {
            return Err(reject(Malformed::TokenCut));
        };
        let token = Token::new(token).map_err(|_| reject(Malformed::TokenLength(token_length)))?;
        let options_length = check_options(body).map_err(reject)?;
        let (options, after) = body.split_at(options_length);
        // What follows the options is nothing, or the marker and at least one byte.
        let payload = after.get(1..).unwrap_or_default();
        Ok(Self { message_type, code, id, token, options, payload })
    }

    /// The options in the order of the wire, which is the order of their numbers.
    pub fn options(&self) -> Options<'a> {
        Options { rest: self.options, number: 0 }
    }

    /// The first option of this number.
    pub fn option(&self, number: OptionNumber) -> Option<OptionRef<'a>> {
        self.options().find(|option| option.number == number)
    }
}

/// Iterator over the options of a message.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    rest: &'a [u8],
    number: u16,
}

impl<'a> Options<'a> {
    /// Over options in their wire form; ends at what is malformed.
    pub(super) fn over(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, number: 0 }
    }

    /// The bytes not yet walked.
    pub(super) fn rest_bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// Lets the next option count from `number`.
    pub(super) fn start_at(&mut self, number: u16) {
        self.number = number;
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = OptionRef<'a>;

    fn next(&mut self) -> Option<OptionRef<'a>> {
        // `MessageRef::parse` has walked these bytes, so no error is left to be seen.
        let (delta, value, rest) = split_option(self.rest).ok()??;
        self.number = u16::try_from(u32::from(self.number) + delta).ok()?;
        self.rest = rest;
        Some(OptionRef { number: OptionNumber(self.number), value })
    }
}

/// Walks all options; returns their length in bytes.
fn check_options(body: &[u8]) -> Result<usize, Malformed> {
    let mut rest = body;
    let mut number = 0_u32;
    while let Some((delta, _, after)) = split_option(rest)? {
        number += delta;
        if number > u32::from(u16::MAX) {
            return Err(Malformed::OptionNumber(number));
        }
        rest = after;
    }
    Ok(body.len() - rest.len())
}

/// An option's delta, its value, and what follows.
type Split<'a> = (u32, &'a [u8], &'a [u8]);

/// The first option of `bytes`; `None` at the end or at the payload marker.
#[inline]
fn split_option(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let (delta, length) = (first >> 4, first & 0xf);
    // The common case: both fit their nibbles.
    if delta < 13 && length < 13 {
        return match rest.split_at_checked(usize::from(length)) {
            Some((value, rest)) => Ok(Some((u32::from(delta), value, rest))),
            None => Err(Malformed::OptionCut),
        };
    }
    if *first == 0xff {
        let marker_only = rest.is_empty();
        return if marker_only { Err(Malformed::MarkerWithoutPayload) } else { Ok(None) };
    }
    let (delta, rest) = extended(delta, rest)?;
    let (length, rest) = extended(length, rest)?;
    // Extended lengths are below 2^17.
    match rest.split_at_checked(length as usize) {
        Some((value, rest)) => Ok(Some((delta, value, rest))),
        None => Err(Malformed::OptionCut),
    }
}

/// A delta or length with its extension bytes (RFC 7252 §3.1).
fn extended(nibble: u8, rest: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    match (nibble, rest) {
        (13, [extension, rest @ ..]) => Ok((u32::from(*extension) + 13, rest)),
        (14, [high, low, rest @ ..]) => {
            Ok((u32::from(u16::from_be_bytes([*high, *low])) + 269, rest))
        }
        (13 | 14, _) => Err(Malformed::OptionCut),
        (15, _) => Err(Malformed::OptionNibble),
        (direct, rest) => Ok((u32::from(direct), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8]) -> Malformed {
        MessageRef::parse(bytes).unwrap_err().reason
    }

    #[test]
    fn the_key_request_of_the_official_software_reads_right() {
        let mut bytes = b"\x50\x01\xe9\x03\x3d\x03coap.os.1nce.com\x89bootstrap".to_vec();
        assert_eq!(bytes.len(), 32);
        let message = MessageRef::parse(&bytes).unwrap();
        assert_eq!(message.message_type, MessageType::NonConfirmable);
        assert_eq!((message.code, message.id), (Code::GET, MessageId(0xe903)));
        assert_eq!(message.token, Token::EMPTY);
        let options: Vec<_> = message.options().map(|o| (o.number, o.value)).collect();
        assert_eq!(
            options,
            [
                (OptionNumber::URI_HOST, &b"coap.os.1nce.com"[..]),
                (OptionNumber::URI_PATH, b"bootstrap")
            ]
        );
        assert!(message.payload.is_empty());

        // Its 24th request loses the message id to a zero byte: 30 bytes whose id reads 0x3d03
        // and whose first option is then the letter c.
        bytes.drain(2..4);
        assert_eq!(bytes.len(), 30);
        assert!(MessageRef::parse(&bytes).is_err());
    }

    #[test]
    fn the_captured_command_reads_right() {
        let bytes = b"\x48\x02\x1e\x02\x98\x73\xd5\x1f\xd7\x3a\x5a\x1c\xb7example\x10\x3d\x08\
            param1=query_example1\xffData to send to the device\n";
        let message = MessageRef::parse(bytes).unwrap();
        assert_eq!(message.token, Token::from_u64(0x9873_d51f_d73a_5a1c));
        assert_eq!(message.option(OptionNumber::URI_PATH).unwrap().as_str(), Some("example"));
        assert_eq!(message.option(OptionNumber::CONTENT_FORMAT).unwrap().as_uint(), Some(0));
        let query = message.option(OptionNumber::URI_QUERY).unwrap();
        assert_eq!(query.as_str(), Some("param1=query_example1"));
        assert_eq!(message.payload, b"Data to send to the device\n");
    }

    #[test]
    fn each_format_error_is_named() {
        assert_eq!(reason(&[]), Malformed::Short(0));
        assert_eq!(reason(&[0x40, 1, 0]), Malformed::Short(3));
        assert_eq!(reason(&[0x80, 1, 0, 0]), Malformed::Version(2));
        assert_eq!(reason(&[0x49, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Malformed::TokenLength(9));
        assert_eq!(reason(&[0x4d, 1, 0, 0, 0]), Malformed::TokenLength(13));
        assert_eq!(reason(&[0x42, 1, 0, 0, 1]), Malformed::TokenCut);
        assert_eq!(reason(&[0x41, 0, 0, 0, 1]), Malformed::EmptyWithContent(5));
        assert_eq!(reason(&[0x41, 0, 0, 0]), Malformed::EmptyWithContent(4));
        assert_eq!(reason(&[0x40, 0x21, 0, 0]), Malformed::ReservedClass(Code::new(1, 1)));
        assert_eq!(reason(&[0x40, 0xe1, 0, 0]), Malformed::ReservedClass(Code::new(7, 1)));
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xf0]), Malformed::OptionNibble);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0x0f]), Malformed::OptionNibble);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xb2, 1]), Malformed::OptionCut);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xd0]), Malformed::OptionCut);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xe0, 1]), Malformed::OptionCut);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xff]), Malformed::MarkerWithoutPayload);
        assert_eq!(reason(&[0x40, 1, 0, 0, 0xe0, 0xff, 0xff]), Malformed::OptionNumber(65_804));
    }

    #[test]
    fn a_readable_header_comes_with_the_error() {
        let error = MessageRef::parse(&[0x40, 1, 0x12, 0x34, 0xff]).unwrap_err();
        assert_eq!(error.header, Some((MessageType::Confirmable, MessageId(0x1234))));
        assert_eq!(MessageRef::parse(&[0x80, 1, 0, 0]).unwrap_err().header, None);
    }

    #[test]
    fn extended_lengths_and_deltas_read_right() {
        let mut bytes = vec![0x40, 1, 0, 0, 0xdd, 35 - 13, 20 - 13];
        bytes.extend([b'x'; 20]);
        bytes.extend([0xed, 0, 0xff, 0]);
        bytes.extend([b'y'; 13]);
        let message = MessageRef::parse(&bytes).unwrap();
        let options: Vec<_> = message.options().map(|o| (o.number.0, o.value.len())).collect();
        assert_eq!(options, [(35, 20), (35 + 269 + 255, 13)]);
    }
}
