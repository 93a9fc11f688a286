//! Arbitrary bytes never panic and never read as something else when written again. The same
//! bodies run under coverage guidance in `fuzz/`.

mod survival;

use lwm2m::ContentFormat;
use proptest::collection::vec;
use proptest::prelude::*;
use survival::definition::definition_survives;
use survival::links::links_survive;
use survival::payload::payload_survives;

const FORMATS: [ContentFormat; 7] = [
    ContentFormat::TEXT_PLAIN,
    ContentFormat::OCTET_STREAM,
    ContentFormat::CBOR,
    ContentFormat::SENML_JSON,
    ContentFormat::SENML_CBOR,
    ContentFormat::LWM2M_TLV,
    ContentFormat::LWM2M_JSON,
];

/// Payloads of which a piece is replaced.
const PAYLOADS: [&[u8]; 8] = [
    b"\x00[{\"bn\":\"/3303/0/\",\"bt\":1700000000,\"n\":\"5700\",\"v\":21.5,\"t\":-5},{\"n\":\"5701\",\"vs\":\"C\\u00b0\"}]",
    b"\x00[{\"bn\":\"/3/0/\",\"n\":\"22/0\",\"vlo\":\"3:0\"},{\"n\":\"9\",\"v\":1e1},{\"bn\":\"/5/0/0\",\"vd\":\"AQI\"}]",
    b"\x02{\"bn\":\"/3/0/\",\"e\":[{\"n\":\"0\",\"sv\":\"a\"},{\"n\":\"6/1\",\"v\":1,\"t\":-1}],\"bt\":1700000000}",
    b"\x00\x82\xa4\x21\x65/3/0/\x22\x1a\x65\x53\xf1\x00\x00\x610\x03\x63OMA\xa2\x00\x619\x02\xfb\x40\x57\xc0\x00\x00\x00\x00\x00",
    b"\x00\x9f\xbf\x00\x66/3/0/9\x02\xf9\x3c\x00\xff\xa2\x00\x69/3/0/22/0\x63vlo\x633:0\xff",
    b"\x02\xc8\x00\x14Open Mobile Alliance\x86\x06\x41\x00\x01\x41\x01\x05\xc4\x0d\x51\x82\x42\x8f",
    b"\x01\x08\x00\x0c\xc1\x09\x64\x83\x0b\x41\x00\x00\xc3\x031.0",
    b"\x0b\x08\x01\x08\xe4\x16\x44\x41\xac\x00\x00",
];

const LINKS: &str =
    "</lw>;rt=\"oma.lwm2m\";ct=\"110 112\",</lw/1/0>,</lw/3>;ver=1.1,</lw/3/0>;pmin=\"5\"";

const DEFINITION: &str = "<LWM2M><Object><Name>N</Name><ObjectID>9</ObjectID>\
    <MultipleInstances>Single</MultipleInstances><Mandatory>Optional</Mandatory><Resources>\
    <Item ID=\"1\"><Name>R</Name><Operations>R</Operations><MultipleInstances>Single\
    </MultipleInstances><Mandatory>Optional</Mandatory><Type>Float</Type></Item></Resources>\
    </Object></LWM2M>";

/// The bytes with some of them replaced by others.
fn mutated(bytes: &[u8], at: usize, length: usize, by: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let start = at % bytes.len();
    let end = bytes.len().min(start + length);
    bytes.splice(start..end, by.iter().copied());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for format in FORMATS {
            payload_survives(format, &bytes);
        }
        links_survive(&bytes);
        definition_survives(&bytes);
    }

    #[test]
    fn damaged_payloads_never_panic(
        which in 0..PAYLOADS.len(),
        at in any::<usize>(),
        length in 0..5_usize,
        by in vec(any::<u8>(), 0..5),
    ) {
        let bytes = mutated(PAYLOADS[which], at, length, &by);
        for format in FORMATS {
            payload_survives(format, &bytes);
        }
    }

    #[test]
    fn damaged_texts_never_panic(
        at in any::<usize>(),
        length in 0..9_usize,
        by in r#"[</>;=",.0-9a-zA-Z\\& \u{e9}]{0,6}"#,
    ) {
        links_survive(&mutated(LINKS.as_bytes(), at, length, by.as_bytes()));
        definition_survives(&mutated(DEFINITION.as_bytes(), at, length, by.as_bytes()));
    }
}
