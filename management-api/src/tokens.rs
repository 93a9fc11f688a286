//! Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC SHA-256.
//!
//! The key lies in the state file, so a token survives a restart. Only the one header that this
//! file writes is accepted, which leaves no choice of algorithm to an attacker (RFC 8725 §3.1).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How long a token is valid, as documented.
pub(crate) const LIFETIME_S: u64 = 3_600;
/// A client that asks again receives the same token while it has this long to live: an estimate
/// of the longest run of requests that a client starts with a token it was just given.
const REUSE_S: u64 = 300;
/// Tokens remembered so that they can be given again; there are no more clients than this.
const REMEMBERED_MAX: usize = 1_000;
/// What the tokens are for.
const AUDIENCE: &str = "management-api";
/// The documented scope: there is only this one.
pub(crate) const SCOPE: &str = "all";
/// A header or a token longer than this is not ours; ours take about 300 bytes.
const TOKEN_BYTES_MAX: usize = 2_048;

/// Issues and checks tokens.
pub(crate) struct Tokens {
    key: hmac::Key,
    header: String,
    audience: String,
    remembered: Mutex<HashMap<String, Issued>>,
}

/// A token and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) token: String,
    /// Seconds since 1970.
    pub(crate) expires_at_s: u64,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum TokenError {
    /// Not one of ours, or altered.
    #[error("the token is not valid")]
    Invalid,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// For another account or another service.
    #[error("the token is for another audience")]
    Audience,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    scope: String,
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// `account` becomes part of the audience: a token is worth nothing at another account.
    pub(crate) fn new(key: &[u8], account: &str) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            header: URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#),
            audience: format!("{AUDIENCE}/{account}"),
            remembered: Mutex::default(),
        }
    }

    /// A token for the client: the one it already has, while that lives long enough.
    pub(crate) fn issue(&self, client_id: &str, now_s: u64) -> Issued {
        // A panic while holding the lock leaves the map as it was.
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let lives_long = |issued: &&Issued| {
            (now_s + REUSE_S..=now_s + LIFETIME_S).contains(&issued.expires_at_s)
        };
        if let Some(issued) = remembered.get(client_id).filter(lives_long) {
            return issued.clone();
        }
        let issued = self.sign(client_id, now_s);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, issued| issued.expires_at_s > now_s);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(client_id.to_owned(), issued.clone());
        }
        issued
    }

    /// The client of a token. Whether that client still exists is the caller's to ask.
    pub(crate) fn verify(&self, token: &str, now_s: u64) -> Result<String, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Invalid)?;
        // `hmac::verify` compares in constant time.
        hmac::verify(&self.key, signed.as_bytes(), &signature).map_err(|_| TokenError::Invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        if header != self.header {
            return Err(TokenError::Invalid);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Invalid)?;
        if claims.aud != self.audience {
            return Err(TokenError::Audience);
        }
        if claims.exp <= now_s {
            return Err(TokenError::Expired);
        }
        Ok(claims.sub)
    }

    fn sign(&self, client_id: &str, now_s: u64) -> Issued {
        let expires_at_s = now_s + LIFETIME_S;
        let claims = Claims {
            aud: self.audience.clone(),
            sub: client_id.to_owned(),
            scope: SCOPE.to_owned(),
            iat: now_s,
            exp: expires_at_s,
        };
        // A struct of texts and numbers always serialises.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        Issued { token, expires_at_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn a_token_survives_a_restart_and_ends_after_an_hour() {
        let issued = Tokens::new(b"key", "1").issue("1_a", NOW);
        let restarted = Tokens::new(b"key", "1");
        assert_eq!(restarted.verify(&issued.token, NOW + 3_599), Ok("1_a".to_owned()));
        assert_eq!(restarted.verify(&issued.token, NOW + 3_600), Err(TokenError::Expired));
        let other_account = Tokens::new(b"key", "2");
        assert_eq!(other_account.verify(&issued.token, NOW), Err(TokenError::Audience));
        let other_key = Tokens::new(b"yek", "1");
        assert_eq!(other_key.verify(&issued.token, NOW), Err(TokenError::Invalid));
    }

    #[test]
    fn the_same_token_comes_again_until_it_is_nearly_over() {
        let tokens = Tokens::new(b"key", "1");
        let first = tokens.issue("1_a", NOW);
        assert_eq!(tokens.issue("1_a", NOW + 3_300), first);
        assert_ne!(tokens.issue("1_a", NOW + 3_301), first);
        assert_ne!(tokens.issue("1_b", NOW), first);
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let tokens = Tokens::new(b"key", "1");
        let token = tokens.issue("1_a", NOW).token;
        for place in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(tokens.verify(&altered, NOW).is_err(), "{place}");
        }
        assert!(tokens.verify("", NOW).is_err());
        assert!(tokens.verify("a.b.c", NOW).is_err());
        assert!(tokens.verify(&"x".repeat(10_000), NOW).is_err());
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let tokens = Tokens::new(b"key", "1");
        let token = tokens.issue("1_a", NOW).token;
        let claims = token.split('.').nth(1).unwrap();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(tokens.verify(&format!("{header}.{claims}."), NOW).is_err());
    }
}
