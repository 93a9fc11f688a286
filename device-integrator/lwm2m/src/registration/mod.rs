//! What is known of a registered device (OMA LwM2M Core 1.1 §6.2).

mod links;
mod parameters;
mod state;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coap::wire::ContentFormat;
use vocabulary::Timestamp;

pub use links::Links;
pub use parameters::Binding;
pub(crate) use parameters::{Parameters, Refused};
pub use state::StateError;
pub(crate) use state::{decode, encode};

use crate::contact::{Contact, Security};
use crate::path::Path;

/// Names a registration towards its device: 128 random bits, `/rd/{id}` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegistrationId(pub(crate) [u8; 16]);

impl RegistrationId {
    /// Whether a path segment of a device names this registration.
    pub(crate) fn is(self, text: &str) -> bool {
        let mut bytes = [0; 18];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(16) && bytes[..16] == self.0
    }
}

impl fmt::Display for RegistrationId {
    /// 22 characters that need no escape in a URI.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for RegistrationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The version of LwM2M that a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
}

impl Version {
    /// As the registration says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
        }
    }
}

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name towards the device.
    pub id: RegistrationId,
    /// The version that the device speaks.
    pub version: Version,
    /// How the device is reached.
    pub binding: Binding,
    /// How long it lasts without an update, in seconds, as the device said.
    pub lifetime_seconds: u32,
    /// The telephone number for SMS, if the device said one.
    pub sms: Option<Box<str>>,
    /// What it was made with, and what may change it.
    pub security: Security,
    /// The objects and instances that the device has.
    pub links: Links,
    /// When it was made.
    pub registered_at: Timestamp,
    /// When it was updated last.
    pub updated_at: Timestamp,
    /// When it ends: lifetime, at most the one configured, and grace.
    pub expires_at: Timestamp,
    /// Where the device was heard last.
    pub contact: Option<Contact>,
    /// What is observed. Empty inside of the registry, which keeps them beside.
    pub observations: Vec<Observation>,
}

/// Something that a device was asked to notify of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The token of its notifications: eight bytes on the wire.
    pub token: u64,
    /// One path, or those of a composite observation.
    pub paths: Box<[Path]>,
    /// Whether it is a composite observation.
    pub composite: bool,
    /// The format asked for.
    pub format: Option<ContentFormat>,
}
