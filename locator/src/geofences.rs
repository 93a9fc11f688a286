//! The customer's geofences.
//!
//! Only name, events and sources can change: a fence with another shape would be another fence, of
//! which nobody knows who is inside.

use geofence::{InvalidShape, Shape};
use serde::{Deserialize, Serialize};
use state::nanoid;
use thiserror::Error;
use vocabulary::{Coordinates, Direction, Iccid, InvalidCoordinates, PositionSource, Timestamp};

use crate::store::StoreError;
use crate::{Locator, fences};

/// Characters of a name at most.
pub const NAME_CHARS_MAX: usize = 50;

/// A geofence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Geofence {
    /// Its id, 21 characters.
    pub id: String,
    /// The number that it has in the index.
    pub(crate) number: u64,
    /// Its name.
    pub name: String,
    /// The only device that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Iccid>,
    /// Where it is.
    pub shape: GeofenceShape,
    /// Which crossings are told.
    pub directions: Vec<Direction>,
    /// By which positions.
    pub sources: Vec<PositionSource>,
    /// When it was made; positions of before do not count.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// A shape as it was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GeofenceShape {
    /// Closed rings of `[longitude, latitude]`.
    Polygon(Vec<Vec<[f64; 2]>>),
    /// A circle.
    Circle {
        /// `[longitude, latitude]`.
        center: [f64; 2],
        /// In metres.
        radius_m: f64,
    },
}

/// A shape as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Area {
    /// Closed rings of `[longitude, latitude]`.
    Polygon(Vec<Vec<[f64; 2]>>),
    /// A circle; of a geofence for one device, without a centre it is where that was last.
    Circle {
        /// `[longitude, latitude]`.
        center: Option<[f64; 2]>,
        /// In metres.
        radius_m: f64,
    },
}

/// What a new geofence is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGeofence {
    /// Its name.
    pub name: String,
    /// The only device that it is for.
    pub device: Option<Iccid>,
    /// Where it is.
    pub area: Area,
    /// Which crossings are told.
    pub directions: Vec<Direction>,
    /// By which positions.
    pub sources: Vec<PositionSource>,
}

/// What changes of a geofence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GeofenceChange {
    /// Its name.
    pub name: Option<String>,
    /// Which crossings are told.
    pub directions: Option<Vec<Direction>>,
    /// By which positions.
    pub sources: Option<Vec<PositionSource>>,
}

/// Why a geofence is not made or changed.
#[derive(Debug, Error)]
pub enum GeofenceError {
    /// No shape.
    #[error(transparent)]
    Shape(#[from] InvalidShape),
    /// A centre that is no place.
    #[error("center: {0}")]
    Center(#[from] InvalidCoordinates),
    /// A circle without a centre and without a device whose place that could be.
    #[error("a circle without center needs a deviceId of a device whose position is known")]
    NoCenter,
    /// The name.
    #[error("the name has {0} characters, allowed: 1 to {NAME_CHARS_MAX}")]
    Name(usize),
    /// Nothing would ever be told.
    #[error("{0} is empty, allowed: at least one")]
    Empty(&'static str),
    /// There are enough.
    #[error("there are {0} geofences, which is the limit")]
    TooMany(usize),
    /// There is none of this id.
    #[error("no geofence has this id")]
    Unknown,
    /// Our fault or the disk's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Geofence {
    pub(crate) fn shape(&self) -> Result<Shape, GeofenceError> {
        self.shape.build()
    }
}

impl GeofenceShape {
    fn build(&self) -> Result<Shape, GeofenceError> {
        match self {
            Self::Polygon(rings) => Ok(Shape::polygon(rings)?),
            Self::Circle { center: [longitude, latitude], radius_m } => {
                let center = Coordinates::new(*latitude, *longitude)?;
                Ok(Shape::circle(center, *radius_m)?)
            }
        }
    }
}

impl Locator {
    /// Makes a geofence. It counts for positions from `now` on.
    pub fn create_geofence(
        &self,
        new: NewGeofence,
        now: Timestamp,
    ) -> Result<Geofence, GeofenceError> {
        check_name(&new.name)?;
        check_some(&new.directions, &new.sources)?;
        let shape = match new.area {
            Area::Polygon(rings) => GeofenceShape::Polygon(rounded(rings)),
            Area::Circle { center, radius_m } => {
                let center = center.or_else(|| self.center_of(new.device));
                let center = center.ok_or(GeofenceError::NoCenter)?;
                GeofenceShape::Circle { center, radius_m }
            }
        };
        let built = shape.build()?;
        let mut store = self.store();
        let found = self.world().fences.len();
        if found >= self.0.settings.geofences_max {
            return Err(GeofenceError::TooMany(found));
        }
        let geofence = Geofence {
            id: nanoid().map_err(|error| StoreError::Random(error.to_string()))?,
            number: store.next_number()?,
            name: new.name,
            device: new.device,
            shape,
            directions: new.directions,
            sources: new.sources,
            created: now,
            updated: now,
        };
        store.save_geofence(&geofence)?;
        self.world().fences.insert(geofence.clone(), fences::indexed(&geofence, built));
        Ok(geofence)
    }

    /// A geofence.
    pub fn geofence(&self, id: &str) -> Option<Geofence> {
        self.world().fences.find(id).cloned()
    }

    /// All geofences, the oldest first, from one place on; and how many there are.
    pub fn geofences(&self, skip: usize, limit: usize) -> (Vec<Geofence>, usize) {
        let world = self.world();
        let listed = world.fences.list().skip(skip).take(limit).cloned().collect();
        (listed, world.fences.len())
    }

    /// Changes a geofence.
    pub fn change_geofence(
        &self,
        id: &str,
        change: GeofenceChange,
        now: Timestamp,
    ) -> Result<Geofence, GeofenceError> {
        let mut store = self.store();
        let mut geofence = self.geofence(id).ok_or(GeofenceError::Unknown)?;
        if let Some(name) = change.name {
            check_name(&name)?;
            geofence.name = name;
        }
        geofence.directions = change.directions.unwrap_or(geofence.directions);
        geofence.sources = change.sources.unwrap_or(geofence.sources);
        check_some(&geofence.directions, &geofence.sources)?;
        geofence.updated = now;
        // Of a large polygon it takes long to see that it is one.
        let indexed = self.world().fences.shape(geofence.number).cloned();
        let built = indexed.map_or_else(|| geofence.shape(), Ok)?;
        store.save_geofence(&geofence)?;
        self.world().fences.insert(geofence.clone(), fences::indexed(&geofence, built));
        Ok(geofence)
    }

    /// Removes a geofence. Nobody leaves it by that.
    pub fn delete_geofence(&self, id: &str) -> Result<(), GeofenceError> {
        let mut store = self.store();
        let geofence = self.geofence(id).ok_or(GeofenceError::Unknown)?;
        store.delete_geofence(&geofence)?;
        self.world().fences.remove(id);
        Ok(())
    }

    fn center_of(&self, device: Option<Iccid>) -> Option<[f64; 2]> {
        let world = self.world();
        let at = world.devices.find(device?)?.latest.as_ref()?.position?.coordinates;
        Some([at.longitude(), at.latitude()])
    }
}

fn check_name(name: &str) -> Result<(), GeofenceError> {
    // One of blanks alone is none. It is stored as it is, and so it is counted.
    let chars = if name.trim().is_empty() { 0 } else { name.chars().count() };
    if (1..=NAME_CHARS_MAX).contains(&chars) { Ok(()) } else { Err(GeofenceError::Name(chars)) }
}

fn check_some(directions: &[Direction], sources: &[PositionSource]) -> Result<(), GeofenceError> {
    match (directions, sources) {
        ([], _) => Err(GeofenceError::Empty("eventTypes")),
        (_, []) => Err(GeofenceError::Empty("eventSources")),
        _ => Ok(()),
    }
}

/// How far the last point of a ring may be from its first to count as the same, in degrees: the
/// documented example of a closed ring ends a millionth of a degree from where it begins.
const CLOSED_WITHIN: f64 = 2e-6;

/// To six decimals, 11 cm, as the documented API does.
fn rounded(mut rings: Vec<Vec<[f64; 2]>>) -> Vec<Vec<[f64; 2]>> {
    for number in rings.iter_mut().flatten().flatten() {
        *number = (*number * 1e6).round() / 1e6;
    }
    for ring in &mut rings {
        if let [first, .., last] = &mut ring[..]
            && (0..2).all(|axis| (first[axis] - last[axis]).abs() < CLOSED_WITHIN)
        {
            *last = *first;
        }
    }
    rings
}
