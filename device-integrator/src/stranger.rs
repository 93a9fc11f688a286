//! The answer to a sender that is no known SIM: made from its datagram alone.
//!
//! Nothing is remembered of a stranger, so that a flood from made-up addresses cannot push the
//! exchanges and uploads of devices out of memory. The answer stays below 136 bytes: the address is
//! not proved (RFC 9175 §2.4).

use coap::wire::{Code, ContentFormat, Encoder, MessageRef, MessageType, OptionNumber};

use crate::stateless::{is_request, reply};

/// What the datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// A request: refused with 4.01.
    Refused,
    /// No CoAP message.
    Malformed,
    /// A ping, an acknowledgement, a reset or a response.
    Control,
}

/// Writes the answer to `datagram` into `answer`, which stays empty where there is none.
pub(crate) fn answer(datagram: &[u8], reason: &str, answer: &mut Vec<u8>) -> Stranger {
    answer.clear();
    match MessageRef::parse(datagram) {
        Ok(request) if is_request(&request) => {
            refuse(&request, reason, answer);
            Stranger::Refused
        }
        // RFC 7252 §4.3: an empty CON is a ping, answered with a reset.
        Ok(ping) if ping.message_type == MessageType::Confirmable => {
            Encoder::empty(answer, MessageType::Reset, ping.id);
            Stranger::Control
        }
        Ok(_) => Stranger::Control,
        Err(error) => {
            // RFC 7252 §4.2: a CON that cannot be read is rejected with a reset.
            if let Some((MessageType::Confirmable, id)) = error.header {
                Encoder::empty(answer, MessageType::Reset, id);
            }
            Stranger::Malformed
        }
    }
}

fn refuse(request: &MessageRef<'_>, reason: &str, answer: &mut Vec<u8>) {
    let written = reply(answer, request, Code::UNAUTHORIZED)
        .uint(OptionNumber::CONTENT_FORMAT, u32::from(ContentFormat::JSON.0))
        .payload(body(reason).as_bytes());
    debug_assert_eq!(written, Ok(()));
}

/// The documented body of a refusal.
pub(crate) fn body(reason: &str) -> String {
    format!(r#"{{"statusText":"Unauthorized","errors":[{{"message":"{reason}"}}]}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coap::wire::MessageId;

    fn answer_to(datagram: &[u8]) -> (Stranger, Vec<u8>) {
        let mut bytes = Vec::new();
        let reason = "the source address belongs to no known SIM";
        let stranger = answer(datagram, reason, &mut bytes);
        (stranger, bytes)
    }

    #[test]
    fn a_con_gets_its_refusal_on_the_acknowledgement() {
        let (stranger, bytes) = answer_to(&[0x42, 2, 7, 8, 1, 2, 0xff, b'x']);
        assert_eq!(stranger, Stranger::Refused);
        let message = MessageRef::parse(&bytes).unwrap();
        assert_eq!(message.message_type, MessageType::Acknowledgement);
        assert_eq!((message.code, message.id), (Code::UNAUTHORIZED, MessageId(0x0708)));
        assert_eq!(message.token.as_bytes(), [1, 2]);
        assert!(bytes.len() <= 136, "{} bytes", bytes.len());
        assert!(!message.payload.windows(2).any(|pair| pair == b"89"));
    }

    #[test]
    fn a_non_gets_a_non() {
        let (_, bytes) = answer_to(&[0x50, 2, 7, 8, 0xff, b'x']);
        let message = MessageRef::parse(&bytes).unwrap();
        assert_eq!(message.message_type, MessageType::NonConfirmable);
        assert_eq!(message.id, MessageId(0x0708));
    }

    #[test]
    fn pings_and_garbage_are_reset_and_the_rest_is_ignored() {
        assert_eq!(answer_to(&[0x40, 0, 7, 8]), (Stranger::Control, vec![0x70, 0, 7, 8]));
        assert_eq!(answer_to(&[0x40, 2, 7, 8, 0xff]), (Stranger::Malformed, vec![0x70, 0, 7, 8]));
        assert_eq!(answer_to(&[0x60, 0, 7, 8]), (Stranger::Control, vec![]));
        assert_eq!(answer_to(&[0x70, 2, 7, 8]), (Stranger::Control, vec![]));
        assert_eq!(answer_to(b"?"), (Stranger::Malformed, vec![]));
    }
}
