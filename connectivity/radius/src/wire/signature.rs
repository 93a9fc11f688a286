//! Signatures by the shared secret: MD5 over packet and secret, and HMAC-MD5.
//!
//! MD5 is what the protocol has. That it is broken for collisions was shown on packets that a
//! server answers without knowing the sender (CVE-2024-3596); an Accounting-Request carries a
//! signature over all of itself.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

use super::{HEADER_BYTES, Packet};

/// Bytes of every signature here.
pub const SIGNATURE_BYTES: usize = 16;

/// In place of a signature that is being computed.
const NOTHING: [u8; SIGNATURE_BYTES] = [0; SIGNATURE_BYTES];

/// Where the authenticator of the header begins.
const AUTHENTICATOR_PLACE: usize = 4;

/// MD5(head, authenticator, attributes, secret): both authenticators of RFC 2866 §3 are this,
/// a request's with zeros and a response's with the request's authenticator.
fn authenticator(bytes: &[u8], inner: &[u8; SIGNATURE_BYTES], secret: &[u8]) -> [u8; 16] {
    let (head, attributes) = parts(bytes);
    let mut digest = Md5::new();
    digest.update(head);
    digest.update(inner);
    digest.update(attributes);
    digest.update(secret);
    digest.finalize().into()
}

/// What stands before and behind the authenticator of the header.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let head = bytes.get(..AUTHENTICATOR_PLACE).unwrap_or_default();
    (head, bytes.get(HEADER_BYTES..).unwrap_or_default())
}

/// HMAC-MD5 of a packet whose Message-Authenticator has its value at `place`, computed with zeros
/// there (RFC 2869 §5.14).
fn message_authenticator(
    bytes: &[u8],
    (place, inner): (usize, &[u8; SIGNATURE_BYTES]),
    secret: &[u8],
) -> [u8; 16] {
    let (head, _) = parts(bytes);
    // HMAC takes keys of any length.
    let Ok(mut code) = Hmac::<Md5>::new_from_slice(secret) else { return NOTHING };
    code.update(head);
    code.update(inner);
    code.update(bytes.get(HEADER_BYTES..place).unwrap_or_default());
    code.update(&NOTHING);
    code.update(bytes.get(place + SIGNATURE_BYTES..).unwrap_or_default());
    code.finalize().into_bytes().into()
}

/// Whether the sender of an Accounting-Request knows the secret (RFC 2866 §3).
pub fn has_good_request_authenticator(packet: &Packet<'_>, secret: &[u8]) -> bool {
    let expected = authenticator(packet.bytes(), &NOTHING, secret);
    expected.ct_eq(&packet.authenticator()).into()
}

/// Whether a response was made by who knows the secret, for the request with this authenticator
/// (RFC 2866 §3).
pub fn has_good_response_authenticator(
    response: &Packet<'_>,
    request_authenticator: &[u8; SIGNATURE_BYTES],
    secret: &[u8],
) -> bool {
    let expected = authenticator(response.bytes(), request_authenticator, secret);
    expected.ct_eq(&response.authenticator()).into()
}

/// Whether the Message-Authenticator `found` at its place is right. `inner` stands in the header
/// while it is computed: zeros for an Accounting-Request, whose own authenticator is computed
/// afterwards over the result; the authenticator itself for a Status-Server, where it is random
/// (RFC 5997 §3).
pub fn has_good_message_authenticator(
    packet: &Packet<'_>,
    (place, found): (usize, [u8; SIGNATURE_BYTES]),
    inner: &[u8; SIGNATURE_BYTES],
    secret: &[u8],
) -> bool {
    let expected = message_authenticator(packet.bytes(), (place, inner), secret);
    expected.ct_eq(&found).into()
}

/// Fills the Message-Authenticator whose value is at `place`, before the request is signed.
pub fn sign_message(bytes: &mut [u8], place: usize, inner: &[u8; SIGNATURE_BYTES], secret: &[u8]) {
    let signature = message_authenticator(bytes, (place, inner), secret);
    if let Some(field) = bytes.get_mut(place..place + SIGNATURE_BYTES) {
        field.copy_from_slice(&signature);
    }
}

/// Fills the authenticator of an Accounting-Request.
pub fn sign_request(bytes: &mut [u8], secret: &[u8]) {
    sign_response(bytes, &NOTHING, secret);
}

/// Fills the authenticator of the response to a request with this authenticator.
pub fn sign_response(
    bytes: &mut [u8],
    request_authenticator: &[u8; SIGNATURE_BYTES],
    secret: &[u8],
) {
    let signature = authenticator(bytes, request_authenticator, secret);
    if let Some(field) = bytes.get_mut(AUTHENTICATOR_PLACE..HEADER_BYTES) {
        field.copy_from_slice(&signature);
    }
}
