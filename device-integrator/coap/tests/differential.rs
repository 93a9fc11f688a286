//! Against coap-lite: well-formed messages mean the same to both; what it takes although RFC 7252
//! §3 calls it malformed is listed.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};
use coap_lite::Packet;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Message {
    message_type: MessageType,
    code: u8,
    id: u16,
    token: Vec<u8>,
    options: Vec<(u16, Vec<u8>)>,
    payload: Vec<u8>,
}

fn message() -> impl Strategy<Value = Message> {
    let types = prop_oneof![
        Just(MessageType::Confirmable),
        Just(MessageType::NonConfirmable),
        Just(MessageType::Acknowledgement),
    ];
    let codes = prop_oneof![1..32_u8, 64..192_u8];
    let option = (any::<u16>(), vec(any::<u8>(), 0..300));
    let numbers = (types, codes, any::<u16>());
    (numbers, vec(any::<u8>(), 0..=8), vec(option, 0..8), vec(any::<u8>(), 0..600)).prop_map(
        |((message_type, code, id), token, options, payload)| Message {
            message_type,
            code,
            id,
            token,
            options,
            payload,
        },
    )
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (code, id) = (Code::from_byte(message.code), MessageId(message.id));
    let token = Token::new(&message.token).unwrap();
    let mut encoder = Encoder::new(&mut bytes, message.message_type, code, id, token);
    for (number, value) in &message.options {
        encoder = encoder.option(OptionNumber(*number), value);
    }
    encoder.payload(&message.payload).unwrap();
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(message in message()) {
        let bytes = encode(&message);
        let read = MessageRef::parse(&bytes).unwrap();
        prop_assert_eq!(read.message_type, message.message_type);
        prop_assert_eq!(read.code.as_byte(), message.code);
        prop_assert_eq!(read.id.0, message.id);
        prop_assert_eq!(read.token.as_bytes(), &message.token[..]);
        prop_assert_eq!(read.payload, &message.payload[..]);
        let mut options = message.options.clone();
        options.sort_by_key(|(number, _)| *number);
        let read: Vec<_> = read.options().map(|o| (o.number.0, o.value.to_vec())).collect();
        prop_assert_eq!(read, options);
    }

    #[test]
    fn both_read_a_well_formed_message_alike(message in message()) {
        let bytes = encode(&message);
        let ours = MessageRef::parse(&bytes).unwrap();
        let theirs = Packet::from_bytes(&bytes).unwrap();
        prop_assert_eq!(u8::from(theirs.header.code), ours.code.as_byte());
        prop_assert_eq!(theirs.header.message_id, ours.id.0);
        prop_assert_eq!(theirs.get_token(), ours.token.as_bytes());
        prop_assert_eq!(&theirs.payload, ours.payload);
        let theirs: Vec<(u16, Vec<u8>)> = theirs
            .options()
            .flat_map(|(number, values)| values.iter().map(|value| (*number, value.clone())))
            .collect();
        let ours: Vec<_> = ours.options().map(|o| (o.number.0, o.value.to_vec())).collect();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn whatever_we_read_it_reads_and_what_it_refuses_we_refuse(
        bytes in vec(any::<u8>(), 0..64),
        version in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if version && let Some(first) = bytes.first_mut() {
            *first = 0x40 | *first & 0x3f;
        }
        if MessageRef::parse(&bytes).is_ok() {
            prop_assert!(Packet::from_bytes(&bytes).is_ok());
        }
    }
}

#[test]
fn what_coap_lite_takes_although_it_is_malformed() {
    let malformed: [(&str, &[u8], bool); 9] = [
        ("version 2", b"\x80\x01\x00\x01", true),
        ("marker without a payload", b"\x40\x01\x00\x01\xff", true),
        ("empty code with a token", b"\x41\x00\x00\x01a", true),
        ("empty code with a payload", b"\x40\x00\x00\x01\xffa", true),
        ("reserved class 1", b"\x40\x21\x00\x01", true),
        ("reserved class 7", b"\x40\xe1\x00\x01", true),
        ("token length 9", b"\x49\x01\x00\x01aaaaaaaaa", false),
        ("option delta 15", b"\x40\x01\x00\x01\xf0", false),
        ("option cut off", b"\x40\x01\x00\x01\xb2a", false),
    ];
    for (what, bytes, it_accepts) in malformed {
        assert!(MessageRef::parse(bytes).is_err(), "{what}");
        assert_eq!(Packet::from_bytes(bytes).is_ok(), it_accepts, "{what}");
    }
}
