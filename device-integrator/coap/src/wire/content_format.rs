//! Content-Format numbers (RFC 7252 §12.3 and its registry).

/// The format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentFormat(pub u16);

impl ContentFormat {
    /// text/plain; charset=utf-8.
    pub const TEXT_PLAIN: Self = Self(0);
    /// application/link-format (RFC 6690).
    pub const LINK_FORMAT: Self = Self(40);
    /// application/xml.
    pub const XML: Self = Self(41);
    /// application/octet-stream.
    pub const OCTET_STREAM: Self = Self(42);
    /// application/json.
    pub const JSON: Self = Self(50);
    /// application/cbor.
    pub const CBOR: Self = Self(60);
    /// application/senml+json (RFC 8428).
    pub const SENML_JSON: Self = Self(110);
    /// application/senml+cbor (RFC 8428).
    pub const SENML_CBOR: Self = Self(112);
    /// application/senml-etch+json (RFC 8790).
    pub const SENML_ETCH_JSON: Self = Self(320);
    /// application/senml-etch+cbor (RFC 8790).
    pub const SENML_ETCH_CBOR: Self = Self(322);
    /// application/vnd.oma.lwm2m+tlv.
    pub const LWM2M_TLV: Self = Self(11_542);
    /// application/vnd.oma.lwm2m+json.
    pub const LWM2M_JSON: Self = Self(11_543);
    /// application/vnd.oma.lwm2m+cbor.
    pub const LWM2M_CBOR: Self = Self(11_544);

    /// From an option's integer; `None` above the 16 bits of the registry.
    pub fn from_uint(value: u32) -> Option<Self> {
        u16::try_from(value).ok().map(Self)
    }
}
