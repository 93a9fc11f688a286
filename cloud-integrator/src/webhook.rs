//! The sink that posts each event to a customer's URL.
//!
//! As in 1NCE OS: one `POST` per event, the envelope as JSON, the customer's own headers,
//! placeholders in URL and headers. Beyond that: `webhook-id` and
//! `webhook-timestamp` as Standard Webhooks names them, so that a receiver can drop duplicates.

mod client;
mod endpoint;
mod signature;

pub use client::{ClientError, WebhookClient, WebhookOptions, WebhookSink};
pub use endpoint::{Endpoint, EndpointError, HEADER_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
pub use signature::Signing;
