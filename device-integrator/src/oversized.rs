//! Datagrams with too much in them, which the endpoint would take wrongly: cut ones, and topics
//! too long for their option.

use coap::wire::{Code, MessageRef, OptionNumber};
use vocabulary::Topic;

use crate::resource::TOPIC_QUERY;
use crate::stateless::{is_request, reply};
use crate::udp::MESSAGE_BYTES_MAX;

/// A Uri-Query of more bytes is no valid option (RFC 7252 §5.10).
const QUERY_BYTES_MAX: usize = 255;

/// The Block1 value that suggests blocks of 1,024 bytes (RFC 7959 §2.9.3): the exponent alone.
const BLOCKS_OF_1024: u32 = 6;

/// Why a datagram is refused, and how.
#[derive(Debug)]
pub(crate) struct Oversized {
    /// As the label of a metric.
    pub(crate) reason: &'static str,
    /// Empty where the sender gets none.
    pub(crate) answer: Vec<u8>,
}

/// Finds a datagram that must not reach the endpoint; `limit_bytes` is of a body.
pub(crate) fn find(datagram: &[u8], limit_bytes: usize) -> Option<Oversized> {
    if datagram.len() <= QUERY_BYTES_MAX {
        return None;
    }
    let request = MessageRef::parse(datagram).ok().filter(is_request);
    if datagram.len() >= MESSAGE_BYTES_MAX {
        // Perhaps cut: what is left of the body must not be taken for all of it.
        let answer = request.map_or_else(Vec::new, |request| too_large(&request, limit_bytes));
        return Some(Oversized { reason: "too_long", answer });
    }
    let request = request?;
    let is_long = |length: usize| length > QUERY_BYTES_MAX;
    let mut options = request.options();
    let query = options
        .find(|option| option.number == OptionNumber::URI_QUERY && is_long(option.value.len()))?;
    // The endpoint would call the option unknown (4.02), which says nothing about the topic.
    let topic = query.value.strip_prefix(TOPIC_QUERY.as_bytes())?;
    let error = String::from_utf8_lossy(topic).parse::<Topic>().err()?;
    let answer = bad_request(&request, &error.to_string());
    Some(Oversized { reason: "request", answer })
}

/// 4.13 with the limit of a body, and the advice to send it in blocks.
fn too_large(request: &MessageRef<'_>, limit_bytes: usize) -> Vec<u8> {
    let limit = u32::try_from(limit_bytes).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let written = reply(&mut bytes, request, Code::REQUEST_ENTITY_TOO_LARGE)
        .uint(OptionNumber::BLOCK1, BLOCKS_OF_1024)
        .uint(OptionNumber::SIZE1, limit)
        .finish();
    debug_assert_eq!(written, Ok(()));
    bytes
}

fn bad_request(request: &MessageRef<'_>, diagnostic: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = reply(&mut bytes, request, Code::BAD_REQUEST).payload(diagnostic.as_bytes());
    debug_assert_eq!(written, Ok(()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use coap::wire::{Encoder, MessageId, MessageType, Token};

    fn request(query: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (id, token) = (MessageId(7), Token::new(b"to").unwrap());
        Encoder::new(&mut bytes, MessageType::Confirmable, Code::POST, id, token)
            .option(OptionNumber::URI_QUERY, query)
            .payload(payload)
            .unwrap();
        bytes
    }

    #[test]
    fn a_datagram_that_may_be_cut_is_refused_with_the_advice_to_send_blocks() {
        let mut datagram = request(b"t=a", &[0; 2_100]);
        datagram.truncate(MESSAGE_BYTES_MAX);
        let found = find(&datagram, 65_536).unwrap();
        let answer = MessageRef::parse(&found.answer).unwrap();
        assert_eq!(answer.code, Code::REQUEST_ENTITY_TOO_LARGE);
        assert_eq!((answer.id, answer.token.as_bytes()), (MessageId(7), &b"to"[..]));
        assert_eq!(answer.option(OptionNumber::SIZE1).unwrap().as_uint(), Some(65_536));
        datagram.pop();
        assert!(find(&datagram, 65_536).is_none());
        assert!(find(&[0xff; MESSAGE_BYTES_MAX], 65_536).unwrap().answer.is_empty());
    }

    #[test]
    fn a_topic_too_long_for_its_option_is_named() {
        let query = [b"t=".as_slice(), &[b'a'; 254]].concat();
        let found = find(&request(&query, b"x"), 65_536).unwrap();
        let answer = MessageRef::parse(&found.answer).unwrap();
        assert_eq!(answer.code, Code::BAD_REQUEST);
        assert_eq!(answer.payload, b"topic of 254 characters exceeds the limit of 253");
        assert!(find(&request(&query[..255], b"x"), 65_536).is_none());
    }
}
