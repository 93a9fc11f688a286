//! Method and response codes (RFC 7252 §12.1 and its registry).

use std::fmt;

/// A code, `class.detail`: three bits and five bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $class:literal, $detail:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self::new($class, $detail);)*
        }
    };
}

codes! {
    /// 0.00: no code, in an empty message.
    EMPTY = 0, 0;
    /// 0.01 GET.
    GET = 0, 1;
    /// 0.02 POST.
    POST = 0, 2;
    /// 0.03 PUT.
    PUT = 0, 3;
    /// 0.04 DELETE.
    DELETE = 0, 4;
    /// 0.05 FETCH (RFC 8132).
    FETCH = 0, 5;
    /// 0.06 PATCH (RFC 8132).
    PATCH = 0, 6;
    /// 0.07 iPATCH (RFC 8132).
    IPATCH = 0, 7;
    /// 2.01 Created.
    CREATED = 2, 1;
    /// 2.02 Deleted.
    DELETED = 2, 2;
    /// 2.03 Valid.
    VALID = 2, 3;
    /// 2.04 Changed.
    CHANGED = 2, 4;
    /// 2.05 Content.
    CONTENT = 2, 5;
    /// 2.31 Continue (RFC 7959 §2.9.1).
    CONTINUE = 2, 31;
    /// 4.00 Bad Request.
    BAD_REQUEST = 4, 0;
    /// 4.01 Unauthorized.
    UNAUTHORIZED = 4, 1;
    /// 4.02 Bad Option.
    BAD_OPTION = 4, 2;
    /// 4.03 Forbidden.
    FORBIDDEN = 4, 3;
    /// 4.04 Not Found.
    NOT_FOUND = 4, 4;
    /// 4.05 Method Not Allowed.
    METHOD_NOT_ALLOWED = 4, 5;
    /// 4.06 Not Acceptable.
    NOT_ACCEPTABLE = 4, 6;
    /// 4.08 Request Entity Incomplete (RFC 7959 §2.9.2).
    REQUEST_ENTITY_INCOMPLETE = 4, 8;
    /// 4.09 Conflict (RFC 8132).
    CONFLICT = 4, 9;
    /// 4.12 Precondition Failed.
    PRECONDITION_FAILED = 4, 12;
    /// 4.13 Request Entity Too Large.
    REQUEST_ENTITY_TOO_LARGE = 4, 13;
    /// 4.15 Unsupported Content-Format.
    UNSUPPORTED_CONTENT_FORMAT = 4, 15;
    /// 4.22 Unprocessable Entity (RFC 8132).
    UNPROCESSABLE_ENTITY = 4, 22;
    /// 4.29 Too Many Requests (RFC 8516).
    TOO_MANY_REQUESTS = 4, 29;
    /// 5.00 Internal Server Error.
    INTERNAL_SERVER_ERROR = 5, 0;
    /// 5.01 Not Implemented.
    NOT_IMPLEMENTED = 5, 1;
    /// 5.02 Bad Gateway.
    BAD_GATEWAY = 5, 2;
    /// 5.03 Service Unavailable.
    SERVICE_UNAVAILABLE = 5, 3;
    /// 5.04 Gateway Timeout.
    GATEWAY_TIMEOUT = 5, 4;
    /// 5.05 Proxying Not Supported.
    PROXYING_NOT_SUPPORTED = 5, 5;
}

impl Code {
    /// A code of its class (0 to 7) and detail (0 to 31); higher bits are cut off.
    pub const fn new(class: u8, detail: u8) -> Self {
        Self((class & 0b111) << 5 | (detail & 0b1_1111))
    }

    /// From the byte of the header.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte of the header.
    pub const fn as_byte(self) -> u8 {
        self.0
    }

    /// The class: 0 request, 2 success, 4 client error, 5 server error.
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// The detail, 0 to 31.
    pub const fn detail(self) -> u8 {
        self.0 & 0b1_1111
    }

    /// Whether this is a method, known or not.
    pub const fn is_request(self) -> bool {
        self.class() == 0 && self.0 != 0
    }

    /// Whether this is a response code, known or not. Class 3 is not reserved by RFC 7252 §4.2.
    pub const fn is_response(self) -> bool {
        matches!(self.class(), 2..=5)
    }

    /// Whether this is a success code.
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }

    /// Whether RFC 7252 §4.2 lets no message have this class.
    pub(crate) const fn is_reserved(self) -> bool {
        matches!(self.class(), 1 | 6 | 7)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:02}", self.class(), self.detail())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Code({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_registered_bytes() {
        assert_eq!(Code::CHANGED.as_byte(), 0x44);
        assert_eq!(Code::CONTINUE.as_byte(), 0x5f);
        assert_eq!(Code::TOO_MANY_REQUESTS.to_string(), "4.29");
        assert_eq!(Code::from_byte(0x45), Code::CONTENT);
    }

    #[test]
    fn every_code_is_empty_or_request_or_response_or_reserved() {
        for byte in 0..=255 {
            let code = Code::from_byte(byte);
            let kinds =
                [code == Code::EMPTY, code.is_request(), code.is_response(), code.is_reserved()];
            assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{code}");
        }
    }
}
