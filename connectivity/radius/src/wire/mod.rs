//! Packets: header, attributes, vendor attributes, signatures (RFC 2865 §3 and §5).
//!
//! Nothing here knows what an attribute means, except the one that signs. Each length that lies
//! is refused with the place at which it does.

mod signature;

use thiserror::Error;

pub use signature::{
    SIGNATURE_BYTES, has_good_message_authenticator, has_good_request_authenticator,
    has_good_response_authenticator, sign_message, sign_request, sign_response,
};

/// Code, identifier, length and authenticator (RFC 2865 §3).
pub const HEADER_BYTES: usize = 20;

/// Bytes of a packet at most (RFC 2865 §3).
pub const PACKET_BYTES_MAX: usize = 4_096;

/// Accounting-Request (RFC 2866 §4.1).
pub const ACCOUNTING_REQUEST: u8 = 4;
/// Accounting-Response (RFC 2866 §4.2).
pub const ACCOUNTING_RESPONSE: u8 = 5;
/// Status-Server: whether the server is there (RFC 5997).
pub const STATUS_SERVER: u8 = 12;

/// The attribute around those of vendors (RFC 2865 §5.26).
pub const VENDOR_SPECIFIC: u8 = 26;
/// What a proxy wants back, unchanged and in order (RFC 2865 §5.33).
pub const PROXY_STATE: u8 = 33;
/// HMAC-MD5 of the packet (RFC 2869 §5.14).
pub const MESSAGE_AUTHENTICATOR: u8 = 80;

/// Bytes of an attribute's value at most.
pub const VALUE_BYTES_MAX: usize = 253;

/// A packet whose lengths agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    authenticator: [u8; 16],
    attributes: &'a [u8],
}

/// One attribute, or one of a vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: u8,
    /// Its value, perhaps empty.
    pub value: &'a [u8],
}

/// Bytes that are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("a datagram of {found} bytes, allowed: at least {HEADER_BYTES}")]
    Short {
        /// Its bytes.
        found: usize,
    },
    /// The length field is out of range, or says more than the datagram holds.
    #[error(
        "a length field of {claimed} in a datagram of {found} bytes, \
         allowed: {HEADER_BYTES} to {PACKET_BYTES_MAX}, and no more than the datagram holds"
    )]
    Length {
        /// What the field says.
        claimed: u16,
        /// Bytes of the datagram.
        found: usize,
    },
    /// An attribute's length is less than its header or reaches beyond the packet.
    #[error("attribute {kind} at byte {place} has length {length}, allowed: 2 to {left}")]
    Attribute {
        /// Its type.
        kind: u8,
        /// Where it begins.
        place: usize,
        /// What it says, 0 where it ends before its length.
        length: u8,
        /// Bytes up to the end of the packet.
        left: usize,
    },
    /// An attribute of a vendor whose lengths lie.
    #[error("an attribute of vendor {vendor} has length {length}, allowed: 2 to {left}")]
    VendorAttribute {
        /// The vendor.
        vendor: u32,
        /// What it says, 0 where it ends before its length.
        length: u8,
        /// Bytes up to the end of the attribute around it.
        left: usize,
    },
    /// An attribute around those of a vendor without the vendor.
    #[error("a vendor-specific attribute of {found} bytes, allowed: at least 4")]
    Vendor {
        /// Bytes of its value.
        found: usize,
    },
    /// A Message-Authenticator of another length, or a second one.
    #[error("{count} message authenticators, the last of {found} bytes, allowed: one of 16")]
    MessageAuthenticator {
        /// How many.
        count: usize,
        /// Bytes of the last.
        found: usize,
    },
}

impl<'a> Packet<'a> {
    /// Reads a datagram, and checks the lengths of all its attributes. What follows the length
    /// that the packet says is padding (RFC 2865 §3).
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let short = Malformed::Short { found: datagram.len() };
        let header = datagram.first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let claimed = u16::from_be_bytes([header[2], header[3]]);
        let wrong = Malformed::Length { claimed, found: datagram.len() };
        let length = usize::from(claimed);
        if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&length) {
            return Err(wrong);
        }
        let bytes = datagram.get(..length).ok_or(wrong)?;
        let (head, attributes) = bytes.split_at_checked(HEADER_BYTES).ok_or(wrong)?;
        let authenticator = *head.last_chunk::<16>().ok_or(wrong)?;
        check_attributes(attributes)?;
        Ok(Self { bytes, authenticator, attributes })
    }

    /// What it asks.
    pub fn code(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    /// By which request and response find each other.
    pub fn identifier(&self) -> u8 {
        self.bytes.get(1).copied().unwrap_or_default()
    }

    /// Its signature, or in a Status-Server what makes it unique.
    pub fn authenticator(&self) -> [u8; 16] {
        self.authenticator
    }

    /// All of it, without padding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its attributes, as they stand.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attributes }
    }

    /// The Message-Authenticator, where there is one: its place and what it holds.
    pub fn message_authenticator(&self) -> Result<Option<(usize, [u8; 16])>, Malformed> {
        let mut found = None;
        let mut count = 0;
        let mut place = HEADER_BYTES;
        for attribute in self.attributes() {
            if attribute.kind == MESSAGE_AUTHENTICATOR {
                count += 1;
                let value = <[u8; 16]>::try_from(attribute.value).ok().filter(|_| count == 1);
                let wrong = Malformed::MessageAuthenticator { count, found: attribute.value.len() };
                found = Some((place + 2, value.ok_or(wrong)?));
            }
            place += 2 + attribute.value.len();
        }
        Ok(found)
    }
}

/// Attributes of a packet whose lengths were checked.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (attribute, rest) = split_first(self.rest)?;
        self.rest = rest;
        Some(attribute)
    }
}

/// The first attribute and what follows it; nothing where the length lies.
fn split_first(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (&[kind, length], _) = bytes.split_first_chunk::<2>()?;
    let (attribute, rest) = bytes.split_at_checked(usize::from(length))?;
    Some((Attribute { kind, value: attribute.get(2..)? }, rest))
}

fn check_attributes(attributes: &[u8]) -> Result<(), Malformed> {
    let mut rest = attributes;
    while let Some(&kind) = rest.first() {
        let Some((_, behind)) = split_first(rest) else {
            return Err(Malformed::Attribute {
                kind,
                place: HEADER_BYTES + attributes.len() - rest.len(),
                length: rest.get(1).copied().unwrap_or_default(),
                left: rest.len(),
            });
        };
        rest = behind;
    }
    Ok(())
}

/// The vendor and its attributes in the value of an attribute of type [`VENDOR_SPECIFIC`]
/// (RFC 2865 §5.26).
pub fn vendor_attributes(value: &[u8]) -> Result<(u32, Attributes<'_>), Malformed> {
    let missing = Malformed::Vendor { found: value.len() };
    let (vendor, inner) = value.split_first_chunk::<4>().ok_or(missing)?;
    Ok((u32::from_be_bytes(*vendor), Attributes { rest: inner }))
}

/// Whether all lengths inside an attribute of `vendor` agree.
pub fn check_vendor_attributes(vendor: u32, inner: &Attributes<'_>) -> Result<(), Malformed> {
    check_attributes(inner.rest).map_err(|error| match error {
        Malformed::Attribute { length, left, .. } => {
            Malformed::VendorAttribute { vendor, length, left }
        }
        other => other,
    })
}

/// Adds an attribute. A value beyond [`VALUE_BYTES_MAX`] is cut.
pub fn push_attribute(packet: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = value.get(..VALUE_BYTES_MAX).unwrap_or(value);
    // At most 255.
    let length = u8::try_from(value.len() + 2).unwrap_or(u8::MAX);
    packet.extend_from_slice(&[kind, length]);
    packet.extend_from_slice(value);
}

/// Writes the length of a packet whose attributes are complete.
pub fn close_packet(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    if let Some(field) = packet.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
