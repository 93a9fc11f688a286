//! Links that lead back to this gateway: where it is reached, and links to payloads that work
//! without a token, for a few minutes.
//!
//! The documented API answers with a URL under which the payload lies. Ours leads back to this
//! gateway and carries an expiry and a signature over the id and that expiry.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use vocabulary::EventId;

use crate::api::ManagementApi;
use crate::connection::Peer;
use crate::error::ApiError;

/// Long enough to follow a link by hand, short enough to be worth little when it leaks.
const LIFETIME_S: u64 = 300;

/// Makes and checks links.
pub(crate) struct Links {
    key: hmac::Key,
}

impl Links {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The query of a link to the payload of `id`.
    pub(crate) fn query(&self, id: EventId, now_s: u64) -> String {
        let expires_s = now_s + LIFETIME_S;
        let signature = hmac::sign(&self.key, signed(id, expires_s).as_bytes());
        format!("expires={expires_s}&signature={}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the link is ours and still valid.
    pub(crate) fn verify(&self, id: EventId, expires_s: u64, signature: &str, now_s: u64) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let ours = hmac::verify(&self.key, signed(id, expires_s).as_bytes(), &signature).is_ok();
        ours && now_s < expires_s
    }
}

/// How clients reach this API: as the operator says, else scheme and host by which this client did.
/// HTTP/2 has the host in the URI, HTTP/1.1 in a header.
pub(crate) fn public_url(
    api: &ManagementApi,
    peer: Peer,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<String, ApiError> {
    if let Some(url) = &api.services().settings.public_url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let scheme = if peer.secure { "https" } else { "http" };
    let in_header = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or_else(in_header);
    let host = host.ok_or_else(|| {
        ApiError::field("Host", "the request names no host", "the name of this gateway")
    })?;
    Ok(format!("{scheme}://{host}"))
}

fn signed(id: EventId, expires_s: u64) -> String {
    format!("payload\n{id}\n{expires_s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_for_one_payload_and_a_few_minutes() {
        let links = Links::new(b"key");
        let id = EventId::from_bytes([7; 16]);
        let query = links.query(id, 1_000);
        let signature = query.strip_prefix("expires=1300&signature=").unwrap();
        assert!(links.verify(id, 1_300, signature, 1_299));
        assert!(!links.verify(id, 1_300, signature, 1_300));
        assert!(!links.verify(id, 1_301, signature, 1_000));
        assert!(!links.verify(EventId::from_bytes([8; 16]), 1_300, signature, 1_000));
        assert!(!Links::new(b"yek").verify(id, 1_300, signature, 1_000));
        assert!(!links.verify(id, 1_300, "", 1_000));
    }
}
