//! The answer to a sender that is no known SIM: made from its datagram alone.
//!
//! Nothing is remembered of a stranger, so that a flood from made-up addresses cannot push the
//! exchanges and uploads of devices out of memory. A retransmission gets the same answer because it
//! is made the same way. The answer stays below 136 bytes: the address is not proved
//! (RFC 9175 §2.4).

use coap::wire::{
    Code, ContentFormat, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token,
};

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
/// `id` is the message id of an answer to a NON.
pub(crate) fn answer(
    datagram: &[u8],
    reason: &str,
    id: MessageId,
    answer: &mut Vec<u8>,
) -> Stranger {
    answer.clear();
    match MessageRef::parse(datagram) {
        // RFC 7252 table 1: acknowledgements and resets carry no request.
        Ok(request) if request.code.is_request() && is_con_or_non(&request) => {
            refuse(&request, reason, id, answer);
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

fn is_con_or_non(message: &MessageRef<'_>) -> bool {
    matches!(message.message_type, MessageType::Confirmable | MessageType::NonConfirmable)
}

fn refuse(request: &MessageRef<'_>, reason: &str, id: MessageId, answer: &mut Vec<u8>) {
    let body = body(reason);
    let (kind, id) = match request.message_type {
        MessageType::Confirmable => (MessageType::Acknowledgement, request.id),
        _ => (MessageType::NonConfirmable, id),
    };
    if write(answer, (kind, id, request.token), &body).is_err() {
        answer.clear();
    }
}

fn write(
    answer: &mut Vec<u8>,
    (kind, id, token): (MessageType, MessageId, Token),
    body: &str,
) -> Result<(), coap::wire::EncodeError> {
    Encoder::new(answer, kind, Code::UNAUTHORIZED, id, token)
        .uint(OptionNumber::CONTENT_FORMAT, u32::from(ContentFormat::JSON.0))
        .payload(body.as_bytes())
}

/// The documented body of a refusal.
pub(crate) fn body(reason: &str) -> String {
    format!(r#"{{"statusText":"Unauthorized","errors":[{{"message":"{reason}"}}]}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(datagram: &[u8]) -> (Stranger, Vec<u8>) {
        let mut bytes = Vec::new();
        let reason = "the source address belongs to no known SIM";
        let stranger = answer(datagram, reason, MessageId(0x0102), &mut bytes);
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
        assert_eq!(message.id, MessageId(0x0102));
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
