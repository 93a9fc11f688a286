//! Content formats of LwM2M payloads (OMA LwM2M Core 1.1 §7.4; RFC 8428 §12.3).

pub use coap::wire::ContentFormat;

/// TLV under the number of early LwM2M 1.0 drafts; accepted on input, never sent.
pub const TLV_DRAFT: ContentFormat = ContentFormat(1_542);
/// LwM2M JSON under the number of early LwM2M 1.0 drafts; accepted on input, never sent.
pub const LWM2M_JSON_DRAFT: ContentFormat = ContentFormat(1_543);
