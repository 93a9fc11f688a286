//! Arbitrary bytes as a list of links.

use lwm2m::codec::link_format::{parse, parse_discover, write};

/// What is read is written as a list that reads as the same.
pub(crate) fn links_survive(bytes: &[u8]) {
    match parse(bytes) {
        Ok(links) => assert_eq!(parse(write(&links).as_bytes()), Ok(links)),
        Err(error) => assert!(error.to_string().len() < 512),
    }
    if let Err(error) = parse_discover(bytes) {
        assert!(error.to_string().len() < 512);
    }
}
