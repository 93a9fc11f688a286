//! The types of event that an integration can subscribe to.
//!
//! Names, triggers and shapes are those of 1NCE OS (docs/webhooks.md); `sampleTime`, and `metadata`
//! of a crossing, are additions.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// The version of every event's shape; the documented platform has had no other.
pub const EVENT_VERSION: &str = "1.0.0";

/// The type of an event that is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A message of a device.
    TelemetryData,
    /// A step in the life of a device.
    Lifecycle,
    /// Something failed.
    Error,
    /// A device entered or left a geofence.
    Geofence,
    /// A position of a device.
    Location,
    /// Sent by a test and by a restart; nobody can subscribe to it.
    TestMessage,
}

/// Which types an integration wants: never empty, never [`EventType::TestMessage`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventTypes(u8);

/// One line of the list of event types.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueEntry {
    /// The name, e.g. `TELEMETRY_DATA`.
    pub name: &'static str,
    /// What triggers it.
    pub description: &'static str,
    /// The version of its shape.
    pub version: &'static str,
    /// An example of the whole event.
    pub payload: Value,
}

/// Why a list of event types is refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventTypesError {
    /// Nothing in it.
    #[error("eventTypes is empty, at least 1 is needed")]
    Empty,
    /// A name that is not known.
    #[error(
        "event type {0:?} is not known, allowed: \
         TELEMETRY_DATA, LIFECYCLE, ERROR, GEOFENCE, LOCATION"
    )]
    Unknown(String),
    /// A version that does not exist.
    #[error("event type {name} has no version {version:?}, allowed: {EVENT_VERSION}")]
    Version {
        /// The event type.
        name: String,
        /// The version asked for.
        version: String,
    },
}

impl EventType {
    /// All types that can be subscribed to.
    pub const SUBSCRIBABLE: [Self; 5] =
        [Self::TelemetryData, Self::Lifecycle, Self::Error, Self::Geofence, Self::Location];

    /// All types.
    pub const ALL: [Self; 6] = [
        Self::TelemetryData,
        Self::Lifecycle,
        Self::Error,
        Self::Geofence,
        Self::Location,
        Self::TestMessage,
    ];

    /// The name in events and in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TelemetryData => "TELEMETRY_DATA",
            Self::Lifecycle => "LIFECYCLE",
            Self::Error => "ERROR",
            Self::Geofence => "GEOFENCE",
            Self::Location => "LOCATION",
            Self::TestMessage => "TEST_MESSAGE",
        }
    }

    /// What triggers it.
    pub const fn description(self) -> &'static str {
        match self {
            Self::TelemetryData => "A device sent a message by UDP, CoAP or LwM2M.",
            Self::Lifecycle => "A device took a step in its life, such as its first message.",
            Self::Error => "A message could not be handled, or an integration failed.",
            Self::Geofence => "A device entered or left a geofence.",
            Self::Location => "A new position of a device is known.",
            Self::TestMessage => "A test or a restart of an integration was asked for.",
        }
    }

    /// Every type with an example, in the order of the documentation.
    pub fn catalogue() -> Vec<CatalogueEntry> {
        Self::ALL
            .into_iter()
            .map(|kind| CatalogueEntry {
                name: kind.as_str(),
                description: kind.description(),
                version: EVENT_VERSION,
                // The examples are constants, and a test parses each.
                payload: serde_json::from_str(kind.example()).unwrap_or_default(),
            })
            .collect()
    }

    const fn example(self) -> &'static str {
        match self {
            Self::TelemetryData => {
                r#"{"type":"TELEMETRY_DATA","id":"1-6393505d-00008489fb9c791fcddd43f0",
                "received":"1670598749915","source":"UDP","version":"1.0.0",
                "device":{"iccid":"8988280666000002864","imsi":"901405100002864",
                "ip":"100.91.200.24"},
                "payload":{"type":"JSON","value":{"temperature":21.5}}}"#
            }
            Self::Lifecycle => {
                r#"{"type":"LIFECYCLE","id":"1-6396d868-0000f68b911b75bc761768e9",
                "received":"1670830184814","version":"1.0.0",
                "device":{"iccid":"8988280666000002864","imsi":"901405100002864",
                "ip":"100.91.200.24"},
                "lifecycle":{"type":"DEVICE_FIRST_TIME_REGISTERED",
        "message":"New Device successfully registered for the first time - 8988280666000002864"}}"#
            }
            Self::Error => {
                r#"{"type":"ERROR","id":"1-62580000-00005fb82c196babcd000080",
                "received":"1649931594333","version":"1.0.0",
                "device":{"iccid":"8988280666000002864","imsi":"901405100002864",
                "ip":"100.91.200.24"},
                "error":{"id":"msg_01GHZX5Q3M0000000000000000","type":"DEVICE",
                "message":"Translator[UserPayloadError]",
                "description":"Asset path:temperature, Error: can't extract [4:8] from 2 bytes",
                "payloadExists":true}}"#
            }
            Self::Geofence => {
                r#"{"type":"GEOFENCE","id":"1-62580000-00005fb82c196babcd000070",
                "received":"1649931594333","version":"1.0.0",
                "device":{"iccid":"8988280666000002864","imsi":"901405100002864",
                "ip":"100.91.200.24"},
                "geofence":{"id":"k3Vd0hYb7QmZ1nT5xWc9P","name":"depot","type":"EXIT",
                "coordinates":["24.166234","56.977086"],"source":"CellTower",
                "sampleTime":"2022-04-14T10:19:54.333Z",
                "metadata":{"horizontalAccuracy":303,"horizontalConfidenceLevel":0.68}}}"#
            }
            Self::Location => {
                r#"{"type":"LOCATION","id":"1-62580000-00005fb82c196babcd000071",
                "received":"1649931594333","version":"1.0.0",
                "device":{"iccid":"8988280666000002864","imsi":"901405100002864",
                "ip":"100.91.200.24"},
                "location":{"source":"CellTower","coordinates":["24.166234","56.977086"],
                "sampleTime":"2022-04-14T10:19:54.333Z",
                "metadata":{"horizontalAccuracy":303,"horizontalConfidenceLevel":0.68}}}"#
            }
            Self::TestMessage => {
                r#"{"type":"TEST_MESSAGE","id":"1-63d889d3-0000cbb90f8f10c76278d8dd",
                "received":"1675135445411","version":"1.0.0",
                "integration":{"id":"X8qB3FhJQyffUH0GqL3gC","name":"integration-name"}}"#
            }
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::TelemetryData => 1,
            Self::Lifecycle => 2,
            Self::Error => 4,
            Self::Geofence => 8,
            Self::Location => 16,
            // In no set.
            Self::TestMessage => 0,
        }
    }
}

impl EventTypes {
    /// Everything that can be subscribed to.
    pub const ALL: Self = Self(31);

    /// From pairs of name and optional version, as the management API receives them. A missing
    /// version means [`EVENT_VERSION`].
    pub fn parse<'a>(
        wanted: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, EventTypesError> {
        let mut bits = 0;
        for (name, version) in wanted {
            let kind: EventType = name.parse()?;
            if let Some(other) = version.filter(|version| *version != EVENT_VERSION) {
                return Err(EventTypesError::Version {
                    name: name.to_owned(),
                    version: clipped(other),
                });
            }
            bits |= kind.bit();
        }
        if bits == 0 { Err(EventTypesError::Empty) } else { Ok(Self(bits)) }
    }

    /// Whether `kind` is wanted.
    pub const fn contains(self, kind: EventType) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether telemetry is wanted; a reader without it need not read the devices' messages.
    pub const fn telemetry(self) -> bool {
        self.contains(EventType::TelemetryData)
    }

    /// The types in the order of the documentation.
    pub fn iter(self) -> impl Iterator<Item = EventType> {
        EventType::SUBSCRIBABLE.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// The number that the store keeps.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// From the number of [`EventTypes::bits`].
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.0 { None } else { Some(Self(bits)) }
    }
}

impl FromStr for EventType {
    type Err = EventTypesError;

    /// Reads the name of a type that can be subscribed to.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::SUBSCRIBABLE
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| EventTypesError::Unknown(clipped(name)))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for EventTypes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

/// What a customer wrote, short enough for an error message.
fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_comes_back() {
        let types = EventTypes::parse([("LOCATION", None), ("TELEMETRY_DATA", Some("1.0.0"))]);
        let types = types.unwrap();
        assert_eq!(
            types.iter().collect::<Vec<_>>(),
            [EventType::TelemetryData, EventType::Location]
        );
        assert_eq!(EventTypes::from_bits(types.bits()), Some(types));
        assert_eq!(EventTypes::from_bits(0), None);
        assert!(!EventTypes::ALL.contains(EventType::TestMessage));
    }

    #[test]
    fn bad_lists_are_refused_with_the_reason() {
        assert_eq!(EventTypes::parse([]), Err(EventTypesError::Empty));
        let error = EventTypes::parse([("TEST_MESSAGE", None)]).unwrap_err();
        assert!(error.to_string().starts_with("event type \"TEST_MESSAGE\" is not known"));
        let error = EventTypes::parse([("ERROR", Some("2.0.0"))]).unwrap_err();
        assert_eq!(error.to_string(), "event type ERROR has no version \"2.0.0\", allowed: 1.0.0");
    }

    #[test]
    fn every_example_is_an_event_of_its_type() {
        for entry in EventType::catalogue() {
            assert_eq!(entry.payload["type"], entry.name);
            assert_eq!(entry.payload["version"], EVENT_VERSION);
        }
    }
}
