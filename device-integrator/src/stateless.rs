//! Answers made from a request alone, for requests that the endpoint does not get to see.
//!
//! Nothing is remembered of them: a copy of the request gets the same answer because it is made the
//! same way.

use coap::wire::{Code, Encoder, MessageRef, MessageType};

/// Whether a message is a request that may be answered: acknowledgements and resets carry none
/// (RFC 7252 table 1).
pub(crate) fn is_request(message: &MessageRef<'_>) -> bool {
    let may_ask =
        matches!(message.message_type, MessageType::Confirmable | MessageType::NonConfirmable);
    may_ask && message.code.is_request()
}

/// Begins the answer to `request` in `bytes`: on its acknowledgement, or as a NON.
pub(crate) fn reply<'b>(
    bytes: &'b mut Vec<u8>,
    request: &MessageRef<'_>,
    code: Code,
) -> Encoder<'b> {
    let message_type = match request.message_type {
        MessageType::Confirmable => MessageType::Acknowledgement,
        _ => MessageType::NonConfirmable,
    };
    // The id of a NON answer is ours to choose (RFC 7252 §4.3): the request's is as good as any.
    Encoder::new(bytes, message_type, code, request.id, request.token)
}
