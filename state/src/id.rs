//! Ids of what customers keep.

/// 126 random bits: two never meet.
const LENGTH: usize = 21;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// A new id in the form of a nanoid, as the documented API shows them: 21 characters of
/// `A-Z a-z 0-9 _ -`. Fails where the system has no randomness to give.
pub fn nanoid() -> Result<String, getrandom::Error> {
    let mut random = [0_u8; LENGTH];
    getrandom::fill(&mut random)?;
    // 64 characters: each of the lower six bits counts alike.
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_21_characters_and_differ() {
        let (one, two) = (nanoid().unwrap(), nanoid().unwrap());
        assert_eq!(one.len(), 21);
        assert_ne!(one, two);
        assert!(one.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
