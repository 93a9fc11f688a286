//! The body of a request: one event, or a batch as an array.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::sink::{Delivery, Subject};

/// The bodies of `events` as one JSON array.
pub(super) fn array(events: &[Delivery]) -> Bytes {
    let bytes: usize = events.iter().map(|event| event.body.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 1);
    for (index, event) in events.iter().enumerate() {
        body.push(if index == 0 { b'[' } else { b',' });
        body.extend_from_slice(&event.body);
    }
    body.push(b']');
    body.into()
}

/// What is known of the device that all of `events` are about: in a batch of several devices the
/// placeholders in which they differ are not known.
pub(super) fn common_subject(events: &[Delivery]) -> Subject {
    let Some((first, rest)) = events.split_first() else { return Subject::default() };
    let mut subject = first.subject;
    for event in rest {
        subject.iccid = subject.iccid.filter(|iccid| event.subject.iccid == Some(*iccid));
        subject.imsi = subject.imsi.filter(|imsi| event.subject.imsi == Some(*imsi));
        subject.ip = subject.ip.filter(|ip| event.subject.ip == Some(*ip));
    }
    subject
}

/// `body` as gzip (RFC 1952), by the fastest way: JSON shrinks to a fifth by it already.
pub(super) fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    // Writing to memory does not fail.
    encoder.write_all(body).ok()?;
    Some(encoder.finish().ok()?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::sink::sample;

    const ONE: &str = "msg_01GHZX5Q3M0000000000000001";
    const TWO: &str = "msg_01GHZX5Q3M0000000000000002";

    #[test]
    fn a_batch_is_one_array() {
        let events = [sample(ONE, 1, "{\"a\":1}"), sample(TWO, 1, "{\"a\":2}")];
        assert_eq!(array(&events).as_ref(), b"[{\"a\":1},{\"a\":2}]");
        assert_eq!(array(&events[..1]).as_ref(), b"[{\"a\":1}]");
    }

    #[test]
    fn what_differs_in_a_batch_is_not_known() {
        let same = [sample(ONE, 1, "{}"), sample(TWO, 1, "{}")];
        assert_eq!(common_subject(&same), same[0].subject);
        let differing = [sample(ONE, 1, "{}"), sample(TWO, 2, "{}")];
        let subject = common_subject(&differing);
        assert_eq!((subject.iccid, subject.imsi), (None, same[0].subject.imsi));
        assert_eq!(common_subject(&[]), Subject::default());
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let body = b"{\"temperature\":21}".repeat(1_000);
        let small = gzip(&body).unwrap();
        assert!(small.len() < body.len() / 5);
        let mut back = Vec::new();
        GzDecoder::new(small.as_ref()).read_to_end(&mut back).unwrap();
        assert_eq!(back, body);
    }
}
