//! What the message log holds: a device's telemetry, or a notice of the gateway.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Crossing, EventId, Iccid, Identity, Imsi, Located, SessionReport, Telemetry};

/// An event of the message log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// A message of a device.
    Telemetry(Telemetry<'a>),
    /// A device has registered by LwM2M, which it does before it has said anything.
    Registered(Identity),
    /// A network feed has said something of a data session.
    Session(SessionReport),
    /// A device was located.
    Located(Located),
    /// An entry of the administration log.
    Notice(Notice),
}

/// The kind of an event, as the log stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// [`Event::Telemetry`].
    Telemetry,
    /// [`Event::Registered`].
    Registered,
    /// [`Event::Session`].
    Session,
    /// [`Event::Located`].
    Located,
    /// [`Event::Notice`].
    Notice,
}

/// Why a body of the log is not an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MalformedEvent {
    /// It ends too early.
    #[error("the body ends inside its header")]
    Short,
    /// Written by a newer release.
    #[error("body of format {0}, this release reads format 1")]
    Format(u8),
    /// A field holds a value that has no meaning.
    #[error("the body holds no valid {0}")]
    Value(&'static str),
    /// A kind of event written by a newer release.
    #[error("event of kind {0} is not known")]
    Kind(u8),
}

/// An entry of the administration log: what an operator or a customer should know.
///
/// Stored as JSON: notices are rare, and a new field must not need a new format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Information or error.
    pub category: NoticeCategory,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: NoticeKind,
    /// The stable text, e.g. `Translator[UserPayloadError]`.
    pub message: String,
    /// The text for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The SIM that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
    /// Its subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imsi: Option<Imsi>,
    /// The address concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    /// The integration that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// The stored message that it is about: its id, and with it its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_of: Option<String>,
    /// The border that the device has crossed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geofence: Option<Crossing>,
    /// The place in the log of the event that caused it, for readers that must not say it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<u64>,
}

/// How a notice is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeCategory {
    /// Nothing to do.
    Info,
    /// Something failed.
    Error,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NoticeKind {
    /// An integration.
    Integration,
    /// A device.
    Device,
    /// The gateway.
    General,
    /// A position or a geofence.
    Location,
    /// A step in the life of a device.
    Lifecycle,
}

impl EventKind {
    /// The byte that the log stores. From 64 upward a kind is rare, and the log indexes it; from 32
    /// upward it is not the device that speaks, and the log does not number it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Telemetry => 1,
            Self::Registered => 2,
            Self::Session => 32,
            Self::Located => 33,
            Self::Notice => 64,
        }
    }

    /// From the byte of [`EventKind::code`].
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Telemetry),
            2 => Some(Self::Registered),
            32 => Some(Self::Session),
            33 => Some(Self::Located),
            64 => Some(Self::Notice),
            _ => None,
        }
    }
}

impl<'a> Event<'a> {
    /// Reads the event of a record: its kind, its device key and its body.
    pub fn decode(kind: u8, device: u64, body: &'a [u8]) -> Result<Self, MalformedEvent> {
        match EventKind::from_code(kind).ok_or(MalformedEvent::Kind(kind))? {
            EventKind::Telemetry => {
                let iccid = Iccid::from_u64(device).ok_or(MalformedEvent::Value("iccid"))?;
                Telemetry::decode(iccid, body).map(Event::Telemetry)
            }
            // A message without a payload: what says who it was is the same.
            EventKind::Registered => {
                let iccid = Iccid::from_u64(device).ok_or(MalformedEvent::Value("iccid"))?;
                Telemetry::decode(iccid, body).map(|message| Event::Registered(message.identity))
            }
            EventKind::Session => SessionReport::decode(body).map(Event::Session),
            EventKind::Located => Located::decode(body).map(Event::Located),
            EventKind::Notice => Notice::decode(body).map(Event::Notice),
        }
    }
}

impl Notice {
    /// A notice with only its required fields.
    pub fn new(category: NoticeCategory, kind: NoticeKind, message: &str) -> Self {
        Self {
            category,
            kind,
            message: message.to_owned(),
            description: String::new(),
            iccid: None,
            imsi: None,
            ip: None,
            integration: None,
            payload_of: None,
            geofence: None,
            cause: None,
        }
    }

    /// The same notice about `identity`.
    #[must_use]
    pub fn about(mut self, identity: Identity) -> Self {
        self.iccid = Some(identity.iccid);
        self.imsi = identity.imsi;
        self.ip = identity.ip;
        self
    }

    /// The id of the stored message that the notice is about.
    pub fn payload_id(&self) -> Option<EventId> {
        self.payload_of.as_deref().and_then(|id| id.parse().ok())
    }

    /// The body for the message log.
    pub fn encode(&self) -> Vec<u8> {
        // A struct of texts and numbers always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a body that [`Notice::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, MalformedEvent> {
        serde_json::from_slice(body).map_err(|_| MalformedEvent::Value("notice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_comes_back() {
        let mut notice =
            Notice::new(NoticeCategory::Error, NoticeKind::Device, "Translator[UserPayloadError]");
        notice.iccid = Some("8988280666000002864".parse().unwrap());
        notice.cause = Some(12);
        let body = notice.encode();
        let device = 8_988_280_666_000_002_864;
        assert_eq!(Event::decode(64, device, &body), Ok(Event::Notice(notice)));
    }

    #[test]
    fn unknown_kinds_are_named() {
        assert_eq!(Event::decode(77, 0, &[]), Err(MalformedEvent::Kind(77)));
    }
}
