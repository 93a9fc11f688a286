//! What a stranger sends to a server of sessions: the first message of a handshake, and no more.

use std::time::Instant;

use dtls::client::{Client, ClientConfig, ClientOutput};
use dtls::{Psk, Suite};

use crate::random::Random;

/// Where the random bytes stand: behind the headers of record and handshake, and the version (RFC
/// 6347 §4.3.2).
const RANDOM: std::ops::Range<usize> = 27..59;

/// A ClientHello without a cookie.
pub(crate) struct Hello(Vec<u8>);

impl Hello {
    /// As a device of the fleet would send it; `None` where there is no memory.
    pub(crate) fn new() -> Option<Self> {
        let key = Psk::new(vec![0]).ok()?;
        let config = ClientConfig::new(b"stranger", &key, &[Suite::Aes128Ccm8], None).ok()?;
        let mut client = Client::new(&config, Instant::now(), None)?;
        match client.poll_output() {
            ClientOutput::Transmit(bytes) if bytes.len() >= RANDOM.end => Some(Self(bytes)),
            _ => None,
        }
    }

    /// Appends one that is like no other.
    pub(crate) fn write(&self, random: &mut Random, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.0[..RANDOM.start]);
        random.append(RANDOM.len(), output);
        output.extend_from_slice(&self.0[RANDOM.end..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_one_and_of_the_same_length() {
        let hello = Hello::new().unwrap();
        let mut random = Random::new(1);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        hello.write(&mut random, &mut first);
        hello.write(&mut random, &mut second);
        assert_ne!(first, second);
        assert_eq!((first.len(), first[0], first[13]), (second.len(), 22, 1));
        assert_eq!(first[RANDOM.end..], second[RANDOM.end..]);
    }
}
