//! Arbitrary datagrams, verdicts, operations and times never panic; limits hold, what is saved can
//! be read, and every operation ends. The same body runs under coverage guidance in `fuzz/`.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

mod survival;

use proptest::collection::vec;
use proptest::prelude::*;
use survival::server_survives;

/// Bytes that often are a request to one of the paths.
fn likely_request() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        Just(&b"\xb2rd"[..]),
        Just(&b"\xb2rd\x03abc"[..]),
        Just(&b"\xb2dp\x11\x6e"[..]),
        Just(&b"\xb2dp\x11\x70"[..]),
        Just(&b"\xb2bs"[..]),
        Just(&b"\xb6bspack"[..]),
    ];
    let code = 1..5_u8;
    (code, any::<u8>(), path, vec(any::<u8>(), 0..40)).prop_map(|(code, id, path, rest)| {
        let mut bytes = vec![0x40, code, 1, id];
        bytes.extend_from_slice(path);
        bytes.extend(rest);
        bytes
    })
}

/// Code, options and payload of an answer or a notification.
fn likely_answer() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![Just(0x45_u8), Just(0x44_u8), Just(0x42_u8), 0x80..0x90_u8];
    let options = prop_oneof![
        Just(&b""[..]),
        Just(&b"\x61\x05"[..]),
        Just(&b"\x61\x09\x62\x2d\x16"[..]),
        Just(&b"\xc2\x2d\x16"[..]),
        Just(&b"\x61\x07\xd1\x04\x08"[..]),
    ];
    (code, options, vec(any::<u8>(), 0..30)).prop_map(|(code, options, payload)| {
        let mut bytes = vec![code];
        bytes.extend_from_slice(options);
        if !payload.is_empty() {
            bytes.push(0xff);
            bytes.extend(payload);
        }
        bytes
    })
}

fn likely_script() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![likely_request(), likely_answer(), vec(any::<u8>(), 0..40)];
    vec((any::<u8>(), bytes), 0..60).prop_map(|steps| {
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
    fn arbitrary_scripts_never_panic(script in vec(any::<u8>(), 0..300)) {
        server_survives(&script);
    }

    #[test]
    fn likely_scripts_never_panic(script in likely_script()) {
        server_survives(&script);
    }
}
