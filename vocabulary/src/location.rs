//! Where a device is, and how that is known.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::MalformedEvent;
use crate::{CellTower, Iccid, Identity, Imsi, Timestamp, UnknownWord};

/// A point on the globe (WGS 84), in degrees. Never the point 0,0: receivers without a fix say so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawCoordinates")]
pub struct Coordinates {
    latitude: f64,
    longitude: f64,
}

#[derive(Deserialize)]
struct RawCoordinates {
    latitude: f64,
    longitude: f64,
}

/// Why two numbers are no place of a device.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum InvalidCoordinates {
    /// Not on the globe.
    #[error("latitude {0:?} is outside of -90 to 90")]
    Latitude(f64),
    /// Not on the globe.
    #[error("longitude {0:?} is outside of -180 to 180")]
    Longitude(f64),
    /// What receivers say that have no fix.
    #[error("0,0 is what a receiver without a fix says")]
    Null,
}

/// What a position was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PositionSource {
    /// The device said it.
    #[serde(rename = "GPS")]
    Gps,
    /// From the cell that the device was in.
    CellTower,
}

/// How well a cell was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellMatch {
    /// The cell itself.
    Cell,
    /// Several cells that were measured at once.
    Cells,
    /// Only its location or tracking area.
    Area,
    /// Only its network.
    Network,
}

impl CellMatch {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Cells => "cells",
            Self::Area => "area",
            Self::Network => "network",
        }
    }
}

/// A place, and how far from it the device may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The place.
    #[serde(flatten)]
    pub coordinates: Coordinates,
    /// The radius within which the device is with a probability of 68 %, in metres; absent where
    /// nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_m: Option<f64>,
}

/// An event of the message log: a device was located, or could not be.
///
/// Stored as JSON: a new field must not need a new format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Located {
    /// The device.
    pub iccid: Iccid,
    /// Its subscriber.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imsi: Option<Imsi>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// What the position was made from.
    pub source: PositionSource,
    /// When the device was there.
    pub sampled_at: Timestamp,
    /// Where; absent where the cell is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The cell, of positions that were made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellTower>,
    /// How well the cell was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<CellMatch>,
    /// The place in the log of the record that it was made from.
    pub cause: u64,
}

/// A device has entered or left a geofence; part of a [`crate::Notice`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// The geofence's id.
    pub id: String,
    /// Its name at that moment.
    pub name: String,
    /// Which way.
    pub direction: Direction,
    /// What the position was made from.
    pub source: PositionSource,
    /// The position by which it is known.
    pub position: Position,
    /// When the device was there.
    pub sampled_at: Timestamp,
}

/// Which way a border is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// Inward.
    Enter,
    /// Outward.
    Exit,
}

impl Coordinates {
    /// A point, where a device can be at it.
    pub fn new(latitude: f64, longitude: f64) -> Result<Self, InvalidCoordinates> {
        // What is not a number is in no range.
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(InvalidCoordinates::Latitude(latitude));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(InvalidCoordinates::Longitude(longitude));
        }
        if latitude == 0.0 && longitude == 0.0 {
            return Err(InvalidCoordinates::Null);
        }
        Ok(Self { latitude, longitude })
    }

    /// Degrees north, -90 to 90.
    pub const fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east, -180 to 180.
    pub const fn longitude(self) -> f64 {
        self.longitude
    }
}

impl TryFrom<RawCoordinates> for Coordinates {
    type Error = InvalidCoordinates;

    fn try_from(raw: RawCoordinates) -> Result<Self, Self::Error> {
        Self::new(raw.latitude, raw.longitude)
    }
}

impl PositionSource {
    /// The name in events and in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gps => "GPS",
            Self::CellTower => "CellTower",
        }
    }
}

impl std::str::FromStr for PositionSource {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = [Self::Gps, Self::CellTower]
            .into_iter()
            .find(|source| source.as_str().eq_ignore_ascii_case(text));
        named.ok_or_else(|| UnknownWord::new(text, "GPS, CellTower"))
    }
}

impl Direction {
    /// The name in events and in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enter => "ENTER",
            Self::Exit => "EXIT",
        }
    }
}

impl Located {
    /// Who was located.
    pub const fn identity(&self) -> Identity {
        Identity { iccid: self.iccid, imsi: self.imsi, ip: self.ip }
    }

    /// The body for the message log.
    pub fn encode(&self) -> Vec<u8> {
        // A struct of texts and finite numbers always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a body that [`Located::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, MalformedEvent> {
        serde_json::from_slice(body).map_err(|_| MalformedEvent::Value("position"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_on_the_globe_and_not_at_its_null() {
        assert!(Coordinates::new(90.0, -180.0).is_ok());
        assert!(Coordinates::new(0.0, 0.1).is_ok());
        assert_eq!(Coordinates::new(0.0, -0.0), Err(InvalidCoordinates::Null));
        assert!(matches!(Coordinates::new(90.1, 0.0), Err(InvalidCoordinates::Latitude(_))));
        assert!(matches!(Coordinates::new(f64::NAN, 0.0), Err(InvalidCoordinates::Latitude(_))));
        assert!(Coordinates::new(1.0, f64::INFINITY).is_err());
        assert!(serde_json::from_str::<Coordinates>(r#"{"latitude":91,"longitude":0}"#).is_err());
    }

    #[test]
    fn a_located_device_comes_back() {
        let mut located = Located {
            iccid: "8988280666000002864".parse().unwrap(),
            imsi: None,
            ip: Some([10, 0, 0, 1].into()),
            source: PositionSource::CellTower,
            sampled_at: Timestamp::from_micros(1_670_598_749_915_123),
            position: Some(Position {
                coordinates: Coordinates::new(56.946285, 24.105078).unwrap(),
                accuracy_m: Some(303.0),
            }),
            cell: None,
            matched: Some(CellMatch::Area),
            cause: 12,
        };
        assert_eq!(Located::decode(&located.encode()), Ok(located.clone()));
        located.position = None;
        assert_eq!(Located::decode(&located.encode()), Ok(located));
    }
}
