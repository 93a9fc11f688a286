//! Keys that the gateway makes for devices.

use zeroize::Zeroizing;

/// Characters of a generated key. Old device software gives a key 19 characters at most, and
/// widespread TLS libraries 32 bytes.
pub const GENERATED_CHARS: usize = 16;

/// Printable, and harmless in every text that a key passes on its way into a modem: no comma (it
/// ends the key in the answer to a bootstrap), no quote, backslash, space or percent sign. With 82
/// letters a key of 16 holds 16 * log2(82) = 101.7 bits: 128 would take 21 characters.
const LETTERS: &[u8; 82] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#()*+-./:=?@[]^_{}~";

/// Random bytes above this give no letter: each letter stands for 3 of the others.
const FAIR: usize = LETTERS.len() * 3;

/// A new key, from the system's randomness.
pub(crate) fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
    loop {
        let key = letters()?;
        // Old device software takes the first "89" of a datagram for the beginning of its ICCID.
        if !key.contains("89") {
            return Ok(key);
        }
    }
}

fn letters() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut key = Zeroizing::new(String::with_capacity(GENERATED_CHARS));
    let mut random = Zeroizing::new([0; 2 * GENERATED_CHARS]);
    while key.len() < GENERATED_CHARS {
        getrandom::fill(&mut *random)?;
        let fair = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < FAIR);
        for byte in fair.take(GENERATED_CHARS - key.len()) {
            key.push(char::from(LETTERS[byte % LETTERS.len()]));
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_sixteen_harmless_letters_and_never_the_same() {
        let keys: HashSet<String> = (0..10_000).map(|_| generate().unwrap().to_string()).collect();
        assert_eq!(keys.len(), 10_000);
        let letters: HashSet<u8> = keys.iter().flat_map(|key| key.bytes()).collect();
        assert_eq!(letters, LETTERS.iter().copied().collect());
        assert_eq!(letters.len(), LETTERS.len());
        for key in keys {
            assert_eq!(key.len(), GENERATED_CHARS);
            assert!(!key.contains("89") && !key.contains(','));
        }
    }
}
