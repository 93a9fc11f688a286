//! Ids of integrations: 21 characters of 64, as the documented platform's look.

/// 126 random bits: two never meet.
const LENGTH: usize = 21;
const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// A new id.
pub(crate) fn nanoid() -> Result<String, getrandom::Error> {
    let mut random = [0_u8; LENGTH];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
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
