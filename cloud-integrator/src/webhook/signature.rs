//! Signatures of webhooks, as Standard Webhooks 1.0 defines them, so that a receiver knows that an
//! event is its gateway's, and new.
//!
//! What is signed is `{id}.{timestamp}.{body}`, the body before compression. A secret shared with
//! the receiver makes an HMAC-SHA256 (`v1,`), a key pair an Ed25519 signature (`v1a,`), for which
//! the receiver needs to know nothing secret. While a key is being replaced, requests carry a
//! signature of the old one too, until its end. For an event of 1 KiB, an HMAC costs about 10 us
//! of a small processor and an Ed25519 signature 50 us.
//!
//! Not here: when keys are replaced, and who may see them.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vocabulary::Timestamp;
use zeroize::Zeroizing;

/// The bytes of a secret for HMAC: Standard Webhooks asks for 24 to 64.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// The bytes of a secret of our own making: as many as the digest has.
const OWN_SECRET_BYTES: usize = 32;
/// An Ed25519 key (RFC 8032 §5.1.5): the seed, and the seed followed by its public key.
const SEED_BYTES: usize = 32;
const KEY_PAIR_BYTES: usize = 64;
/// Keys at the same time: each makes the header longer, and a receiver checks each.
const KEYS_MAX: usize = 4;

const HMAC_PREFIX: &str = "whsec_";
const ED25519_PREFIX: &str = "whsk_";
const ED25519_PUBLIC_PREFIX: &str = "whpk_";

/// What the requests of a webhook are signed with, the newest key first; without a key they are
/// not signed. `Debug` shows nothing of the keys.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Signing {
    keys: Vec<Key>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    /// `whsec_` or `whsk_`, and base64.
    secret: Zeroizing<String>,
    /// When it ends, in milliseconds since 1970, where another has replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_millis: Option<i64>,
}

/// A kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKind {
    /// HMAC-SHA256 with a shared secret: `v1`.
    Hmac,
    /// Ed25519 with a key pair: `v1a`.
    Ed25519,
}

/// What a receiver needs to check signatures of one key. `Debug` does not show the text.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownKey {
    /// The kind of its signatures.
    pub kind: SigningKind,
    /// The shared secret (`whsec_`), or the public key (`whpk_`).
    pub text: Zeroizing<String>,
    /// When it ends, where another has replaced it.
    pub until: Option<Timestamp>,
}

/// Why a key is refused. Errors show nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SigningError {
    /// Another kind of text.
    #[error("a signing secret begins with {HMAC_PREFIX} or {ED25519_PREFIX}")]
    Prefix,
    /// Not base64 after the prefix.
    #[error("the signing secret is not base64 after its prefix")]
    Base64,
    /// Too few bytes, or too many.
    #[error("the signing secret has {0} bytes, allowed: {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}")]
    SecretBytes(usize),
    /// Not an Ed25519 key.
    #[error(
        "the signing key is no ed25519 key: a seed of 32 bytes, or 64 bytes with the public key"
    )]
    KeyPair,
    /// More keys at the same time than allowed.
    #[error("{KEYS_MAX} signing keys are in use, which is the limit; end the old ones first")]
    TooMany,
    /// No randomness. The system of the gateway is at fault.
    #[error("no random key can be made: {0}")]
    Random(String),
}

impl Signing {
    /// A new shared secret.
    pub fn hmac() -> Result<Self, SigningError> {
        let mut secret = Zeroizing::new([0; OWN_SECRET_BYTES]);
        fill(secret.as_mut())?;
        Ok(Self::of(HMAC_PREFIX, secret.as_ref()))
    }

    /// A new key pair.
    pub fn ed25519() -> Result<Self, SigningError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        fill(seed.as_mut())?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref());
        let pair = pair.map_err(|_| SigningError::KeyPair)?;
        let both = Zeroizing::new([seed.as_ref(), pair.public_key().as_ref()].concat());
        Ok(Self::of(ED25519_PREFIX, &both))
    }

    /// A secret (`whsec_`) or a private key (`whsk_`) of the customer's own.
    pub fn from_secret(text: &str) -> Result<Self, SigningError> {
        let key = Key { secret: Zeroizing::new(text.to_owned()), until_millis: None };
        key.signer()?;
        Ok(Self { keys: vec![key] })
    }

    /// This with the key of `new` before it: what it had goes on for `keep_old_for`, unless it
    /// ends earlier anyway.
    pub fn rotate(
        &self,
        new: Self,
        now: Timestamp,
        keep_old_for: Duration,
    ) -> Result<Self, SigningError> {
        let end = now.saturating_add(keep_old_for).as_millis();
        let mut keys = new.keys;
        for old in &self.keys {
            let until = old.until_millis.map_or(end, |until| until.min(end));
            if until > now.as_millis() {
                keys.push(Key { secret: old.secret.clone(), until_millis: Some(until) });
            }
        }
        if keys.len() > KEYS_MAX {
            return Err(SigningError::TooMany);
        }
        Ok(Self { keys })
    }

    /// Whether requests are signed.
    pub fn is_active(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What a receiver needs to check signatures, the newest key first; keys that have ended are
    /// left out.
    pub fn secrets(&self, now: Timestamp) -> Result<Vec<ShownKey>, SigningError> {
        self.keys.iter().filter(|key| key.is_valid(now.as_millis())).map(Key::shown).collect()
    }

    /// Makes the keys ready for use.
    pub(super) fn signer(&self) -> Result<Signer, SigningError> {
        let ready = |key: &Key| Ok(ReadyKey { key: key.signer()?, until_millis: key.until_millis });
        Ok(Signer(self.keys.iter().map(ready).collect::<Result<_, _>>()?))
    }

    fn of(prefix: &str, bytes: &[u8]) -> Self {
        let secret = Zeroizing::new(format!("{prefix}{}", BASE64.encode(bytes)));
        Self { keys: vec![Key { secret, until_millis: None }] }
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), SigningError> {
    getrandom::fill(bytes).map_err(|error| SigningError::Random(error.to_string()))
}

impl Key {
    fn is_valid(&self, now_millis: i64) -> bool {
        self.until_millis.is_none_or(|until| now_millis < until)
    }

    fn shown(&self) -> Result<ShownKey, SigningError> {
        let (kind, text) = match self.signer()? {
            SigningMaterial::Hmac(_) => (SigningKind::Hmac, self.secret.clone()),
            SigningMaterial::Ed25519(pair) => {
                let public = BASE64.encode(pair.public_key().as_ref());
                let text = Zeroizing::new(format!("{ED25519_PUBLIC_PREFIX}{public}"));
                (SigningKind::Ed25519, text)
            }
        };
        Ok(ShownKey { kind, text, until: self.until_millis.map(Timestamp::from_millis) })
    }

    fn signer(&self) -> Result<SigningMaterial, SigningError> {
        let decode =
            |text: &str| BASE64.decode(text).map(Zeroizing::new).map_err(|_| SigningError::Base64);
        if let Some(text) = self.secret.strip_prefix(HMAC_PREFIX) {
            let secret = decode(text)?;
            if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
                return Err(SigningError::SecretBytes(secret.len()));
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            return Ok(SigningMaterial::Hmac(Box::new(key)));
        }
        let text = self.secret.strip_prefix(ED25519_PREFIX).ok_or(SigningError::Prefix)?;
        let bytes = decode(text)?;
        let pair = match bytes.len() {
            SEED_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes),
            KEY_PAIR_BYTES => {
                let (seed, public) = bytes.split_at(SEED_BYTES);
                Ed25519KeyPair::from_seed_and_public_key(seed, public)
            }
            _ => return Err(SigningError::KeyPair),
        };
        pair.map(SigningMaterial::Ed25519).map_err(|_| SigningError::KeyPair)
    }
}

/// The keys of one webhook, ready for use.
pub(super) struct Signer(Vec<ReadyKey>);

struct ReadyKey {
    key: SigningMaterial,
    until_millis: Option<i64>,
}

enum SigningMaterial {
    Hmac(Box<hmac::Key>),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// The value of `webhook-signature`: one signature of each key that is valid, separated by
    /// spaces; `None` where there is no key. `now_secs` is also the time that is signed.
    pub(super) fn sign(&self, id: &str, now_secs: u64, body: &[u8]) -> Option<String> {
        let now_millis = i64::try_from(now_secs.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let head = format!("{id}.{now_secs}.");
        let signatures: Vec<String> = self
            .0
            .iter()
            .filter(|key| key.until_millis.is_none_or(|until| now_millis < until))
            .map(|key| key.key.sign(head.as_bytes(), body))
            .collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

impl SigningMaterial {
    fn sign(&self, head: &[u8], body: &[u8]) -> String {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(head);
                context.update(body);
                format!("v1,{}", BASE64.encode(context.sign().as_ref()))
            }
            // Ed25519 reads its message twice, so it must lie in one piece.
            Self::Ed25519(pair) => {
                let signature = pair.sign(&[head, body].concat());
                format!("v1a,{}", BASE64.encode(signature.as_ref()))
            }
        }
    }
}

macro_rules! debug_shows_no_secret {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_shows_no_secret!(Signing, ShownKey, Signer);

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECS: u64 = 1_614_265_330;
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const DAY: Duration = Duration::from_secs(86_400);

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(secs).unwrap() * 1_000)
    }

    fn signed(signing: &Signing, secs: u64) -> String {
        signing.signer().unwrap().sign(ID, secs, BODY).unwrap()
    }

    fn is_signed_by(public: &ShownKey, signature: &str, secs: u64) -> bool {
        let key = BASE64.decode(public.text.strip_prefix("whpk_").unwrap()).unwrap();
        let signature = BASE64.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        let message = [format!("{ID}.{secs}.").as_bytes(), BODY].concat();
        UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok()
    }

    /// The example that the libraries of Standard Webhooks test themselves with.
    #[test]
    fn the_known_example_of_hmac_holds() {
        let signing = Signing::from_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(signed(&signing, SECS), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let shown = signing.secrets(at(SECS)).unwrap();
        assert_eq!(shown[0].text.as_str(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!((shown[0].kind, shown[0].until), (SigningKind::Hmac, None));
    }

    #[test]
    fn a_key_pair_is_taken_with_and_without_its_public_key() {
        let signing = Signing::ed25519().unwrap();
        let shown = signing.secrets(at(SECS)).unwrap();
        assert!(is_signed_by(&shown[0], &signed(&signing, SECS), SECS));
        assert!(!is_signed_by(&shown[0], &signed(&signing, SECS), SECS + 1));
        let whole = signing.keys[0].secret.clone();
        let bytes = BASE64.decode(whole.strip_prefix("whsk_").unwrap()).unwrap();
        let seed = format!("whsk_{}", BASE64.encode(&bytes[..32]));
        let from_seed = Signing::from_secret(&seed).unwrap();
        assert_eq!(signed(&from_seed, SECS), signed(&signing, SECS));
        assert!(from_seed.secrets(at(SECS)).unwrap() == shown);
    }

    #[test]
    fn a_rotation_signs_with_both_until_the_old_key_ends() {
        let first = Signing::hmac().unwrap();
        let second = first.rotate(Signing::ed25519().unwrap(), at(SECS), DAY).unwrap();
        let both = signed(&second, SECS + 1);
        let (new, old) = both.split_once(' ').unwrap();
        assert!(is_signed_by(&second.secrets(at(SECS)).unwrap()[0], new, SECS + 1));
        assert_eq!(old, signed(&first, SECS + 1));
        let shown = second.secrets(at(SECS + 1)).unwrap();
        assert_eq!(shown[1].until, Some(at(SECS + 86_400)));
        let later = signed(&second, SECS + 86_400);
        assert!(later.starts_with("v1a,") && !later.contains(' '), "{later}");
        assert_eq!(second.secrets(at(SECS + 86_400)).unwrap().len(), 1);
        // An earlier end is not put off.
        let third = second.rotate(Signing::hmac().unwrap(), at(SECS + 60), DAY * 9).unwrap();
        let ends: Vec<_> =
            third.secrets(at(SECS + 61)).unwrap().iter().map(|key| key.until).collect();
        assert_eq!(ends, [None, Some(at(SECS + 60 + 9 * 86_400)), Some(at(SECS + 86_400))]);
        // What a leaked key needs: gone at once.
        let leaked = third.rotate(Signing::hmac().unwrap(), at(SECS + 61), Duration::ZERO).unwrap();
        assert_eq!(leaked.keys.len(), 1);
    }

    #[test]
    fn keys_do_not_pile_up() {
        let mut signing = Signing::hmac().unwrap();
        for _ in 1..KEYS_MAX {
            signing = signing.rotate(Signing::hmac().unwrap(), at(SECS), DAY).unwrap();
        }
        let one_more = signing.rotate(Signing::hmac().unwrap(), at(SECS), DAY);
        assert_eq!(one_more.unwrap_err(), SigningError::TooMany);
        let next_day = at(SECS + 86_400);
        assert_eq!(signing.rotate(Signing::hmac().unwrap(), next_day, DAY).unwrap().keys.len(), 2);
    }

    #[test]
    fn secrets_of_a_wrong_form_are_refused_and_not_shown() {
        let refused = |text: &str| Signing::from_secret(text).unwrap_err();
        assert_eq!(refused("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SigningError::Prefix);
        assert_eq!(refused("whpk_AAAA"), SigningError::Prefix);
        assert_eq!(refused("whsec_!"), SigningError::Base64);
        assert_eq!(
            refused("whsec_c2VjcmV0").to_string(),
            "the signing secret has 6 bytes, allowed: 24 to 64"
        );
        let long = format!("whsec_{}", BASE64.encode([7; 65]));
        assert_eq!(refused(&long), SigningError::SecretBytes(65));
        assert_eq!(refused("whsk_AAAA"), SigningError::KeyPair);
        let other_public = format!("whsk_{}", BASE64.encode([7; 64]));
        assert_eq!(refused(&other_public), SigningError::KeyPair);
    }

    #[test]
    fn signing_comes_back_from_json_and_shows_no_secret() {
        let signing = Signing::hmac().unwrap();
        let signing = signing.rotate(Signing::ed25519().unwrap(), at(SECS), DAY).unwrap();
        let text = serde_json::to_string(&signing).unwrap();
        assert!(serde_json::from_str::<Signing>(&text).unwrap() == signing);
        assert!(serde_json::from_str::<Signing>("{}").unwrap() == Signing::default());
        assert!(!Signing::default().is_active() && signing.is_active());
        assert_eq!(Signing::default().signer().unwrap().sign(ID, SECS, BODY), None);
        let debug = format!("{signing:?} {:?}", signing.secrets(at(SECS)).unwrap());
        assert!(!debug.contains("wh"), "{debug}");
    }
}
