//! Arbitrary bytes and arbitrary time never panic, the books always balance, and what a peer can
//! grow stays within its limit. The same bodies run under coverage guidance in `fuzz/`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

mod survival;

use std::time::{Duration, Instant};

use coap::wire::MessageRef;
use coap::{Config, Endpoint};
use proptest::collection::vec;
use proptest::prelude::*;
use survival::endpoint::endpoint_survives;
use survival::message::message_survives;

/// Bytes that often are a message.
fn likely_message() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![0x40..0x49_u8, 0x50..0x59_u8, 0x60..0x69_u8, Just(0x70_u8)];
    let code = prop_oneof![0..8_u8, 64..70_u8, Just(95_u8), 128..140_u8];
    (first, code, 0..3_u8, vec(prop_oneof![Just(0xff_u8), any::<u8>(), 0..0x20_u8], 0..40))
        .prop_map(|(first, code, id, rest)| {
            let mut bytes = vec![first, code, 0, id];
            bytes.extend(rest);
            bytes
        })
}

fn likely_script() -> impl Strategy<Value = Vec<u8>> {
    vec((any::<u8>(), likely_message()), 0..40).prop_map(|steps| {
        let mut script = Vec::new();
        for (operation, bytes) in steps {
            script.push(operation);
            script.push(u8::try_from(bytes.len()).unwrap());
            script.extend(bytes);
        }
        script
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        message_survives(&bytes);
        endpoint_survives(&bytes);
    }

    #[test]
    fn likely_messages_never_panic(bytes in likely_message()) {
        message_survives(&bytes);
    }

    #[test]
    fn likely_scripts_never_panic(script in likely_script()) {
        endpoint_survives(&script);
    }
}

#[test]
fn sixty_thousand_options_are_read_in_one_walk() {
    let mut bytes = vec![0x40, 2, 0, 1];
    bytes.extend(std::iter::repeat_n(0x10, 60_000));
    let start = Instant::now();
    assert_eq!(MessageRef::parse(&bytes).unwrap().options().count(), 60_000);
    let mut endpoint = Endpoint::new(Config::default(), 1);
    endpoint.handle_datagram(start, 1_u8, &bytes);
    assert!(start.elapsed() < Duration::from_millis(100));
}
