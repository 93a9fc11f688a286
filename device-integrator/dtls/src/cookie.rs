//! Cookies without memory (RFC 6347 §4.2.1): proof that a peer reads what is sent to its address.

use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

use crate::ffi;
use crate::hello::{COOKIE_BYTES, Hello};

/// How long a key makes cookies. The key before it is still good for checking, so a cookie lives
/// one to two of these.
const KEY_LIFETIME_MS: u64 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Absent,
    Wrong,
    Valid,
}

pub(crate) struct Cookies {
    keys: [Zeroizing<[u8; 32]>; 2],
    /// Which of the keys makes cookies; its parity is the first byte of a cookie.
    generation: u64,
    rotated_ms: u64,
    scratch: Vec<u8>,
}

impl Cookies {
    /// `None`: the system has no random bytes.
    pub(crate) fn new(now_ms: u64) -> Option<Self> {
        let keys = [random_key()?, random_key()?];
        Some(Self { keys, generation: 0, rotated_ms: now_ms, scratch: Vec::new() })
    }

    pub(crate) fn make(
        &mut self,
        now_ms: u64,
        peer: SocketAddr,
        hello: &Hello<'_>,
    ) -> [u8; COOKIE_BYTES] {
        self.rotate(now_ms);
        self.compute(self.generation & 1, peer, hello)
    }

    pub(crate) fn check(&mut self, now_ms: u64, peer: SocketAddr, hello: &Hello<'_>) -> Verdict {
        if hello.cookie.is_empty() {
            return Verdict::Absent;
        }
        self.rotate(now_ms);
        let Some(parity @ (0 | 1)) = hello.cookie.first().copied() else {
            return Verdict::Wrong;
        };
        let expected = self.compute(parity.into(), peer, hello);
        // In constant time: a cookie must not be guessed byte by byte.
        let differs = hello.cookie.len() != expected.len()
            || hello.cookie.iter().zip(&expected).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
        if differs { Verdict::Wrong } else { Verdict::Valid }
    }

    fn rotate(&mut self, now_ms: u64) {
        let age_ms = now_ms.saturating_sub(self.rotated_ms);
        if age_ms < KEY_LIFETIME_MS {
            return;
        }
        // After a long pause the key before is too old as well.
        let rounds = if age_ms < 2 * KEY_LIFETIME_MS { 1 } else { 2 };
        for _ in 0..rounds {
            // Without random bytes the old keys go on.
            if let Some(key) = random_key() {
                self.generation += 1;
                self.keys[usize::from(self.generation & 1 == 1)] = key;
            }
        }
        self.rotated_ms = now_ms;
    }

    fn compute(&mut self, parity: u64, peer: SocketAddr, hello: &Hello<'_>) -> [u8; COOKIE_BYTES] {
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(&address.octets());
        self.scratch.extend_from_slice(&peer.port().to_be_bytes());
        self.scratch.extend_from_slice(hello.before_cookie);
        self.scratch.extend_from_slice(hello.after_cookie);
        let mac = ffi::hmac(&self.keys[usize::from(parity == 1)], &self.scratch);
        let mut cookie = [0; COOKIE_BYTES];
        cookie.copy_from_slice(&mac[..COOKIE_BYTES]);
        cookie[0] = u8::from(parity == 1);
        cookie
    }
}

pub(crate) fn random_key() -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    ffi::fill_random(&mut key[..]).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::samples::hello;

    fn verdict(cookies: &mut Cookies, now_ms: u64, peer: &str, datagram: &[u8]) -> &'static str {
        let hello = Hello::parse(datagram, 1024).unwrap();
        match cookies.check(now_ms, peer.parse().unwrap(), &hello) {
            Verdict::Absent => "absent",
            Verdict::Wrong => "wrong",
            Verdict::Valid => "valid",
        }
    }

    #[test]
    fn a_cookie_belongs_to_an_address_a_hello_and_two_minutes() {
        let mut cookies = Cookies::new(0).unwrap();
        let (peer, first) = ("10.0.0.1:1000", hello(&[], 1));
        assert_eq!(verdict(&mut cookies, 0, peer, &first), "absent");
        let parsed = Hello::parse(&first, 1024).unwrap();
        let cookie = cookies.make(59_999, peer.parse().unwrap(), &parsed);
        let second = hello(&cookie, 1);
        assert_eq!(verdict(&mut cookies, 59_999, peer, &second), "valid");
        assert_eq!(verdict(&mut cookies, 119_000, peer, &second), "valid", "the key before");
        assert_eq!(verdict(&mut cookies, 119_000, "10.0.0.1:1001", &second), "wrong");
        assert_eq!(verdict(&mut cookies, 119_000, "10.0.0.2:1000", &second), "wrong");
        assert_eq!(verdict(&mut cookies, 119_000, peer, &hello(&cookie, 2)), "wrong");
        assert_eq!(verdict(&mut cookies, 119_000, peer, &hello(&cookie[..15], 1)), "wrong");
        assert_eq!(verdict(&mut cookies, 180_000, peer, &second), "wrong", "too old");
    }

    #[test]
    fn a_long_pause_ends_both_keys() {
        let mut cookies = Cookies::new(0).unwrap();
        let (peer, first) = ("10.0.0.1:1000", hello(&[], 1));
        let parsed = Hello::parse(&first, 1024).unwrap();
        let cookie = cookies.make(0, peer.parse().unwrap(), &parsed);
        assert_eq!(verdict(&mut cookies, 120_000, peer, &hello(&cookie, 1)), "wrong");
    }
}
