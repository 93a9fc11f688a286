//! Arbitrary conversations.

use std::time::Duration;

use dtls::Suite;

use super::rig::Rig;

/// A row of datagrams, mutated ones of a true client, and time, into an engine.
pub(crate) fn survive(bytes: &[u8]) {
    let mut rig = Rig::new(Suite::Aes128Ccm8, Some(b"own"));
    let (mut rest, mut sent) = (bytes, 0);
    while let Some((&[what, length], more)) = rest.split_first_chunk::<2>() {
        let (chunk, after) = more.split_at(more.len().min(length.into()));
        rest = after;
        match what % 8 {
            0 => rig.receive(chunk),
            1 => {
                rig.now += Duration::from_millis(u64::from(length) * 50);
                rig.engine.handle_timeout(rig.now);
                rig.poll();
                rig.client.handle_timeout(rig.now);
            }
            2 => rig.peer.set_port(u16::from(length) % 3 + 1),
            3 => sent += usize::from(rig.client.send(chunk)),
            4 => {
                // An unprotected handshake message.
                let header = [22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 1, what, 0, length];
                rig.receive(&[&header[..], chunk].concat());
            }
            _ => {
                for mut datagram in rig.datagrams() {
                    for pair in chunk.chunks_exact(2) {
                        let at = usize::from(pair[0]) % datagram.len();
                        datagram[at] ^= pair[1];
                    }
                    rig.receive(&datagram);
                }
            }
        }
    }
    rig.now += Duration::from_secs(11);
    rig.engine.handle_timeout(rig.now);
    assert_eq!(rig.engine.half_open(), 0);
    assert!(rig.received <= sent, "{} records of {sent} were received", rig.received);
}
