//! The sink that posts events to a customer's URL.
//!
//! As in 1NCE OS: one `POST` per event, the envelope as JSON, the customer's own headers,
//! placeholders in URL and headers. Beyond that: what Standard Webhooks 1.0 has, so that a
//! receiver can drop duplicates (`webhook-id`) and forgeries (`webhook-signature`); batches as
//! arrays, compression, and certificates on both sides. Where it may go is [`network`]'s.
//!
//! [`network`]: crate::network

mod answer;
mod body;
mod client;
mod endpoint;
mod failure;
mod sender;
mod signature;

use std::time::{SystemTime, UNIX_EPOCH};

pub use client::{ClientError, WebhookClient, WebhookError};
pub use endpoint::{Endpoint, EndpointError, HEADER_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
pub(crate) use failure::explain;
pub use sender::WebhookSink;
pub use signature::{ShownKey, Signing, SigningError, SigningKind};

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
