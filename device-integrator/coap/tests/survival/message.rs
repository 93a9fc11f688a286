//! What arbitrary bytes must not break in the codec: also the body of the fuzz target
//! `coap_message`.

use coap::wire::{Encoder, MessageRef};

/// A message that parses is written again as the same message.
pub(crate) fn message_survives(bytes: &[u8]) {
    let Ok(message) = MessageRef::parse(bytes) else { return };
    let mut again = Vec::new();
    let (code, id) = (message.code, message.id);
    let encoder = Encoder::new(&mut again, message.message_type, code, id, message.token);
    let written = message
        .options()
        .fold(encoder, |encoder, option| encoder.option(option.number, option.value))
        .payload(message.payload);
    assert_eq!(written, Ok(()));
    let read = MessageRef::parse(&again);
    assert!(read.is_ok_and(|read| {
        read.options().eq(message.options())
            && (read.payload, read.token) == (message.payload, message.token)
    }));
}
