//! Where devices were, and where they are now.

use message_log::{DeviceKey, Kind, KindSet, Query, ReadError};
use thiserror::Error;
use vocabulary::{Coordinates, EventKind, Iccid, Located, PositionSource, Timestamp};

use crate::Locator;

/// Records read at once.
const CHUNK: usize = 2_000;
/// Positions of one device that a query looks at, at most: one each six seconds for a week.
const SCANNED_MAX: usize = 100_000;

/// Which positions of a device.
#[derive(Debug, Clone, Copy)]
pub struct PositionsQuery {
    /// The device.
    pub device: Iccid,
    /// Sampled at or after.
    pub from: Timestamp,
    /// Sampled before.
    pub until: Timestamp,
    /// Only these.
    pub source: Option<PositionSource>,
}

/// A part of the globe. It may go over the antimeridian: then west is greater than east.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundingBox {
    /// The least longitude.
    pub west: f64,
    /// The greatest longitude.
    pub east: f64,
    /// The least latitude.
    pub south: f64,
    /// The greatest latitude.
    pub north: f64,
}

/// Which devices' positions.
#[derive(Debug, Clone, Default)]
pub struct LatestQuery {
    /// Only of this device.
    pub device: Option<Iccid>,
    /// Only in here.
    pub bounds: Option<BoundingBox>,
    /// Only whose newest position is such a one.
    pub source: Option<PositionSource>,
    /// Only sampled at or after.
    pub from: Option<Timestamp>,
    /// Only sampled before.
    pub until: Option<Timestamp>,
}

/// The newest position of a device.
pub type LatestPosition = Located;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The log could not be read.
    #[error("reading the message log: {0}")]
    Read(#[from] ReadError),
}

impl BoundingBox {
    fn holds(&self, at: Coordinates) -> bool {
        let (longitude, latitude) = (at.longitude(), at.latitude());
        let is_between = if self.west <= self.east {
            (self.west..=self.east).contains(&longitude)
        } else {
            longitude >= self.west || longitude <= self.east
        };
        is_between && (self.south..=self.north).contains(&latitude)
    }
}

impl Locator {
    /// The positions of a device, the newest first.
    pub fn positions(&self, query: &PositionsQuery) -> Result<Vec<Located>, QueryError> {
        let mut found = self.located(query)?;
        found.retain(|located| located.position.is_some());
        Ok(found)
    }

    /// The attempts to locate a device by its cell, the newest first.
    pub fn activity(&self, query: &PositionsQuery) -> Result<Vec<Located>, QueryError> {
        let source = Some(PositionSource::CellTower);
        self.located(&PositionsQuery { source, ..*query })
    }

    /// The newest position of each device, the newest first.
    pub fn latest(&self, query: &LatestQuery) -> Vec<LatestPosition> {
        let world = self.world();
        let is_wanted = |located: &&Located| {
            let at = located.position.map(|position| position.coordinates);
            query.device.is_none_or(|device| device == located.iccid)
                && query.source.is_none_or(|source| source == located.source)
                && query.from.is_none_or(|from| located.sampled_at >= from)
                && query.until.is_none_or(|until| located.sampled_at < until)
                && query.bounds.is_none_or(|bounds| at.is_some_and(|at| bounds.holds(at)))
        };
        let mut found: Vec<Located> = world.devices.latest().filter(is_wanted).cloned().collect();
        drop(world);
        found.sort_by_key(|located| std::cmp::Reverse((located.sampled_at, located.iccid)));
        found
    }

    fn located(&self, query: &PositionsQuery) -> Result<Vec<Located>, QueryError> {
        let mut found = Vec::new();
        let mut wanted = Query {
            device: Some(DeviceKey::from_u64(query.device.as_u64())),
            kinds: KindSet::only(Kind::new(EventKind::Located.code())),
            // Nothing is sampled later than it is received.
            from: Some(query.from),
            until: None,
            before: None,
            limit: CHUNK,
        };
        let mut scanned = 0;
        while scanned < SCANNED_MAX {
            let records = self.0.log.newest(wanted)?;
            let Some(last) = records.last() else { break };
            wanted.before = Some(last.offset);
            scanned += records.len();
            found.extend(records.iter().filter_map(|record| Located::decode(&record.body).ok()));
        }
        found.retain(|located| {
            (query.from..query.until).contains(&located.sampled_at)
                && query.source.is_none_or(|source| source == located.source)
        });
        found.sort_by_key(|located| std::cmp::Reverse((located.sampled_at, located.cause)));
        Ok(found)
    }
}
