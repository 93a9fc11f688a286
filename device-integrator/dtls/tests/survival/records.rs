//! Arbitrary bytes as records.

use std::time::Duration;

use dtls::Suite;

use super::rig::Rig;

/// Bytes as records of an established session, with and without a connection ID: the session
/// lives on, and nothing of them is received.
pub(crate) fn survive(bytes: &[u8]) {
    let (Some((&choice, rest)), suites) =
        (bytes.split_first(), [Suite::Aes128Ccm8, Suite::Aes128GcmSha256, Suite::Aes128CbcSha256])
    else {
        return;
    };
    let suite = suites[usize::from(choice) % suites.len()];
    let has_cid = choice & 0x80 != 0;
    let mut rig = Rig::new(suite, has_cid.then_some(&b""[..]));
    while !rig.client.is_established() {
        for datagram in rig.datagrams() {
            rig.receive(&datagram);
        }
    }
    if choice & 0x40 != 0 {
        rig.now += Duration::from_secs(61);
        rig.engine.handle_timeout(rig.now);
    }
    rig.receive(rest);
    // The same as the content of a record whose header is right.
    assert!(rig.client.send(b"genuine"));
    let genuine = rig.datagrams().remove(0);
    let header_bytes = if has_cid { 21 } else { 13 };
    let content = &rest[..rest.len().min(2048)];
    let mut forged = genuine[..header_bytes].to_vec();
    let length = u16::try_from(content.len()).unwrap_or(0);
    forged[header_bytes - 2..].copy_from_slice(&length.to_be_bytes());
    forged.extend_from_slice(content);
    if forged != genuine {
        rig.receive(&forged);
        assert_eq!(rig.received, 0, "a forged record was received");
    }
    rig.receive(&genuine);
    assert_eq!(rig.received, 1, "the genuine record was lost");
}
