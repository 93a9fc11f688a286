//! What a device is asked to do.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use vocabulary::Protocol;

/// Bytes of a datagram's payload, as documented.
pub const UDP_PAYLOAD_BYTES_MAX: usize = 508;
/// Bytes of a CoAP request's payload, as documented.
pub const COAP_PAYLOAD_BYTES_MAX: usize = 1_024;
/// Bytes of the data of an LwM2M operation. Not documented; sixteen blocks of 1,024 bytes.
pub const LWM2M_DATA_BYTES_MAX: usize = 16_384;

/// What a device is asked to do, as the customer gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram. Nobody learns whether it arrives.
    Udp(UdpAction),
    /// Send a CoAP request to a port of the device.
    Coap(CoapAction),
    /// Do something over the device's LwM2M registration.
    Lwm2m(Lwm2mAction),
}

/// A datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpAction {
    /// Where the device listens.
    pub port: u16,
    /// What is sent.
    pub payload: Payload,
}

/// A CoAP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoapAction {
    /// Where the device listens.
    pub port: u16,
    /// The method.
    pub method: CoapMethod,
    /// The path, which may end with `?` and a query.
    pub path: Box<str>,
    /// What is sent.
    pub payload: Option<Payload>,
}

/// An LwM2M operation.
#[derive(Clone, PartialEq, Eq)]
pub struct Lwm2mAction {
    /// The object, instance or resource, e.g. `/3311/0/5850`. Of composite operations: several,
    /// with commas between.
    pub resource_address: Box<str>,
    /// What to do there.
    pub operation: Lwm2mOperation,
}

/// Bytes, and how they were written in the request.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes to send.
    pub bytes: Box<[u8]>,
    /// How they were written.
    pub kind: PayloadType,
}

/// How bytes are written in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadType {
    /// As the text itself, in UTF-8.
    Text,
    /// In base 64 (RFC 4648 §4).
    Base64,
}

/// A method of CoAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoapMethod {
    /// RFC 7252 §5.8.1.
    Get,
    /// RFC 7252 §5.8.2.
    Post,
    /// RFC 7252 §5.8.3.
    Put,
    /// RFC 7252 §5.8.4.
    Delete,
    /// RFC 8132 §3.
    Patch,
}

/// An operation of LwM2M. The documented API has the first five.
#[derive(Clone, PartialEq, Eq)]
pub enum Lwm2mOperation {
    /// Read.
    Read,
    /// Replace what is there.
    Write {
        /// The value.
        data: Box<str>,
    },
    /// Execute.
    Execute {
        /// Arguments in the form of the LwM2M specification, e.g. `0='reset'`.
        arguments: Option<Box<str>>,
    },
    /// Have changes reported.
    ObserveStart,
    /// Have changes reported no more.
    ObserveEnd,
    /// Create an instance of an object.
    Create {
        /// Its resources.
        data: Box<str>,
    },
    /// Delete an instance.
    Delete,
    /// List what is there, with attributes.
    Discover,
    /// Set attributes such as `pmin=10&pmax=60`.
    WriteAttributes {
        /// The attributes, with `&` between.
        attributes: Box<str>,
    },
    /// Change some resources of an instance (partial update).
    WriteUpdate {
        /// The resources.
        data: Box<str>,
    },
    /// Read several places at once.
    ReadComposite,
    /// Have changes of several places reported.
    ObserveComposite,
}

/// Why an operation and its data do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OperationError {
    /// There is none of this name.
    #[error("action {0:?} is not known")]
    Unknown(String),
    /// Data is missing.
    #[error("action {0:?} needs data")]
    DataMissing(&'static str),
    /// Data has no meaning.
    #[error("action {0:?} takes no data")]
    DataForbidden(&'static str),
}

/// A word that names no method of CoAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the method is not known, allowed: GET, POST, PUT, DELETE, PATCH")]
pub struct UnknownMethod;

/// Text that is not what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the payload is not base64 with padding")]
pub struct NotBase64;

impl Action {
    /// What the action is sent by.
    pub const fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Coap(_) => Protocol::Coap,
            Self::Lwm2m(_) => Protocol::Lwm2m,
        }
    }

    /// Whether the action may ride on the answer to an uplink.
    pub(crate) fn rides(&self) -> bool {
        let payload = match self {
            Self::Udp(udp) => Some(&udp.payload),
            Self::Coap(coap) => coap.payload.as_ref(),
            Self::Lwm2m(_) => return false,
        };
        payload.is_none_or(|payload| payload.bytes.len() <= COAP_PAYLOAD_BYTES_MAX)
    }
}

impl Payload {
    /// Reads a payload of a request.
    pub fn parse(text: &str, kind: PayloadType) -> Result<Self, NotBase64> {
        let bytes = match kind {
            PayloadType::Text => text.as_bytes().into(),
            PayloadType::Base64 => STANDARD.decode(text).map_err(|_| NotBase64)?.into(),
        };
        Ok(Self { bytes, kind })
    }

    /// The payload as it was written.
    pub fn text(&self) -> String {
        match self.kind {
            PayloadType::Text => String::from_utf8_lossy(&self.bytes).into_owned(),
            PayloadType::Base64 => STANDARD.encode(&self.bytes),
        }
    }
}

impl CoapMethod {
    /// All methods.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Delete, Self::Patch];

    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
        }
    }
}

impl FromStr for CoapMethod {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or(UnknownMethod)
    }
}

impl Lwm2mOperation {
    /// All names, the documented ones first.
    pub const NAMES: [&str; 12] = [
        "read",
        "write",
        "execute",
        "observe-start",
        "observe-end",
        "create",
        "delete",
        "discover",
        "write-attributes",
        "write-update",
        "read-composite",
        "observe-composite",
    ];

    /// The operation of this name, with its data.
    pub fn parse(name: &str, data: Option<&str>) -> Result<Self, OperationError> {
        let known = Self::NAMES.into_iter().find(|known| *known == name);
        let Some(name) = known else {
            return Err(OperationError::Unknown(name.chars().take(64).collect()));
        };
        let needed = || data.map(Box::from).ok_or(OperationError::DataMissing(name));
        let operation = match name {
            "write" => Self::Write { data: needed()? },
            "create" => Self::Create { data: needed()? },
            "write-update" => Self::WriteUpdate { data: needed()? },
            "write-attributes" => Self::WriteAttributes { attributes: needed()? },
            "execute" => Self::Execute { arguments: data.map(Box::from) },
            _ if data.is_some() => return Err(OperationError::DataForbidden(name)),
            "read" => Self::Read,
            "observe-start" => Self::ObserveStart,
            "observe-end" => Self::ObserveEnd,
            "delete" => Self::Delete,
            "discover" => Self::Discover,
            "read-composite" => Self::ReadComposite,
            _ => Self::ObserveComposite,
        };
        Ok(operation)
    }

    /// The name in the management API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::Execute { .. } => "execute",
            Self::ObserveStart => "observe-start",
            Self::ObserveEnd => "observe-end",
            Self::Create { .. } => "create",
            Self::Delete => "delete",
            Self::Discover => "discover",
            Self::WriteAttributes { .. } => "write-attributes",
            Self::WriteUpdate { .. } => "write-update",
            Self::ReadComposite => "read-composite",
            Self::ObserveComposite => "observe-composite",
        }
    }

    /// What the request had as `data`.
    pub fn data(&self) -> Option<&str> {
        match self {
            Self::Write { data } | Self::Create { data } | Self::WriteUpdate { data } => Some(data),
            Self::WriteAttributes { attributes } => Some(attributes),
            Self::Execute { arguments } => arguments.as_deref(),
            _ => None,
        }
    }

    /// Whether the operation has several places, with commas between.
    pub const fn is_composite(&self) -> bool {
        matches!(self, Self::ReadComposite | Self::ObserveComposite)
    }
}

/// What is sent to a device may be a secret: only its length is shown.
impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Payload({} bytes)", self.bytes.len())
    }
}

impl fmt::Debug for Lwm2mOperation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.data() {
            Some(data) => write!(formatter, "{}({} bytes)", self.name(), data.len()),
            None => formatter.write_str(self.name()),
        }
    }
}

impl fmt::Debug for Lwm2mAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} of {}", self.operation, self.resource_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_operation() {
        for name in Lwm2mOperation::NAMES {
            let with = Lwm2mOperation::parse(name, Some("5"));
            let without = Lwm2mOperation::parse(name, None);
            assert!(with.is_ok() || without.is_ok(), "{name}");
            for operation in [with, without].into_iter().flatten() {
                assert_eq!(operation.name(), name);
                assert_eq!(Lwm2mOperation::parse(name, operation.data()), Ok(operation));
            }
        }
        let missing = OperationError::DataMissing("write");
        assert_eq!(Lwm2mOperation::parse("write", None), Err(missing));
        let forbidden = OperationError::DataForbidden("read");
        assert_eq!(Lwm2mOperation::parse("read", Some("")), Err(forbidden));
        assert!(Lwm2mOperation::parse("READ", None).is_err());
    }

    #[test]
    fn a_payload_is_written_as_it_was_given() {
        for (text, kind, bytes) in [
            ("grün", PayloadType::Text, "grün".as_bytes()),
            ("AP8=", PayloadType::Base64, &[0, 255]),
            ("", PayloadType::Base64, &[]),
        ] {
            let payload = Payload::parse(text, kind).unwrap();
            assert_eq!((&*payload.bytes, payload.text().as_str()), (bytes, text));
        }
        for text in ["AP8", "AP9=", "A", "AP8=\n", "*"] {
            assert!(Payload::parse(text, PayloadType::Base64).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let payload = Payload::parse("hunter2", PayloadType::Text).unwrap();
        let operation = Lwm2mOperation::parse("write", Some("hunter2")).unwrap();
        let action = Lwm2mAction { resource_address: "/0/0/5".into(), operation };
        let shown = format!("{payload:?} {action:?}");
        assert_eq!(shown, "Payload(7 bytes) write(7 bytes) of /0/0/5");
    }
}
