//! What a run with LwM2M is to do beyond other runs.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::ValueEnum;
use lwm2m::{ContentFormat, Path};

use crate::plan::Load;

/// Devices that register at the same time where nothing else is said: enough to keep a server
/// busy, few enough to lose nothing in its receive buffer.
const REGISTERING_AT_ONCE: usize = 64;

/// `MAX_TRANSMIT_WAIT` (RFC 7252 §4.8.2), how long a device in queue mode stays awake (OMA LwM2M
/// Core 1.1 §6.5).
const AWAKE: Duration = Duration::from_secs(93);

/// Settings of LwM2M.
#[derive(Debug, Clone, PartialEq)]
pub struct Lwm2m {
    /// The bootstrap server; `None` registers at the target at once.
    pub bootstrap: Option<SocketAddrV4>,
    /// The version of the protocol.
    pub version: Version,
    /// The format of what the server asks for without naming one, and of what is sent; told the
    /// bootstrap server as preferred. `None`: TLV with version 1.0, otherwise SenML CBOR.
    pub format: Option<Format>,
    /// The lifetime in seconds; `None` is what the bootstrap server says, or 86,400.
    pub lifetime_seconds: Option<u32>,
    /// How often a registration is updated; `None` is at three quarters of the lifetime.
    pub update_every: Option<Duration>,
    /// Whether the devices de-register at the end.
    pub deregister: bool,
    /// How the devices register before the traffic.
    pub registering: Load,
    /// What the devices do once all have registered.
    pub traffic: Traffic,
    /// Whether notifications are confirmable.
    pub confirmable_notifications: bool,
    /// Whether notifications of the traffic keep to the minimum period of their observation.
    pub respects_pmin: bool,
    /// How often the measured value changes by itself, which observers are told of; `None` is
    /// never.
    pub change_every: Option<Duration>,
    /// What is sent besides the measured value.
    pub send_paths: Vec<Path>,
    /// How long a device in queue mode stays awake after its last exchange; `None`: it does not
    /// sleep.
    pub awake: Option<Duration>,
    /// Of a thousand datagrams in either direction, so many are lost.
    pub lost_per_mille: usize,
    /// Answers to the server's requests come so much later, after an empty acknowledgement.
    pub late: Option<Duration>,
    /// Whether the devices leave every request of the server without an answer.
    pub mute: bool,
    /// Whether the devices register under a name that is not theirs.
    pub wrong_endpoint: bool,
    /// The digest that a firmware package must have.
    pub firmware_sha256: Option<[u8; 32]>,
    /// The version after a firmware update; `None` takes what the package says.
    pub firmware_version: Option<String>,
    /// How long a firmware update takes.
    pub firmware_takes: Duration,
}

/// A version of LwM2M.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// 1.0
    #[value(name = "1.0")]
    V1_0,
    /// 1.1
    #[value(name = "1.1")]
    V1_1,
}

/// A format of many values at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// OMA TLV, 11542
    Tlv,
    /// SenML JSON, 110
    #[value(name = "senml-json")]
    SenmlJson,
    /// SenML CBOR, 112
    #[value(name = "senml-cbor")]
    SenmlCbor,
}

/// What the devices do once all have registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing: the run ends, and its figures are those of registering.
    Nothing,
    /// They stay, answer and update their registrations for so long.
    Hold(Duration),
    /// They notify whoever observes the measured value.
    Notifications,
    /// They send the measured value unasked (the Send operation).
    Sends,
    /// They update their registrations.
    Updates,
}

impl Version {
    /// As it stands in a registration.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
        }
    }
}

impl Format {
    pub(crate) const fn number(self) -> ContentFormat {
        match self {
            Self::Tlv => ContentFormat::LWM2M_TLV,
            Self::SenmlJson => ContentFormat::SENML_JSON,
            Self::SenmlCbor => ContentFormat::SENML_CBOR,
        }
    }
}

impl Lwm2m {
    /// How long a device in queue mode stays awake where nothing else is said.
    pub const AWAKE: Duration = AWAKE;

    /// The format of many values where the server names none.
    pub(crate) fn preferred(&self) -> ContentFormat {
        match (self.format, self.version) {
            (Some(format), _) => format.number(),
            (None, Version::V1_0) => ContentFormat::LWM2M_TLV,
            (None, Version::V1_1) => ContentFormat::SENML_CBOR,
        }
    }

    /// The format of the Send operation, which is always SenML (OMA LwM2M Core 1.1 §6.4.6).
    pub(crate) fn send_format(&self) -> ContentFormat {
        match self.format {
            Some(Format::SenmlJson) => ContentFormat::SENML_JSON,
            _ => ContentFormat::SENML_CBOR,
        }
    }
}

impl Default for Lwm2m {
    /// Version 1.1 without bootstrap; notifications are confirmable; no faults.
    fn default() -> Self {
        Self {
            bootstrap: None,
            version: Version::V1_1,
            format: None,
            lifetime_seconds: None,
            update_every: None,
            deregister: false,
            registering: Load::Outstanding(REGISTERING_AT_ONCE),
            traffic: Traffic::Notifications,
            confirmable_notifications: true,
            respects_pmin: true,
            change_every: None,
            send_paths: Vec::new(),
            awake: None,
            lost_per_mille: 0,
            late: None,
            mute: false,
            wrong_endpoint: false,
            firmware_sha256: None,
            firmware_version: None,
            // Long enough for a server to see that an update is under way.
            firmware_takes: Duration::from_millis(500),
        }
    }
}
