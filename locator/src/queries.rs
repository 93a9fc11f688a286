//! Where devices were, and where they are now.

use std::collections::BinaryHeap;

use cell_database::{Measured, MeasuredCell};
use message_log::{DeviceKey, Kind, KindSet, Query, ReadError};
use thiserror::Error;
use vocabulary::{Coordinates, EventKind, Iccid, Located, PositionSource, Timestamp};

use crate::{Held, Locator};

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
    /// The oldest first, not the newest.
    pub oldest_first: bool,
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

impl LatestQuery {
    fn wants(&self, located: &Located, held: &Held) -> bool {
        let at = located.position.map(|position| position.coordinates);
        self.source.is_none_or(|source| source == located.source)
            && self.from.is_none_or(|from| located.sampled_at >= from)
            && self.until.is_none_or(|until| located.sampled_at < until)
            && self.bounds.is_none_or(|bounds| at.is_some_and(|at| bounds.holds(at)))
            && held.holds(located.iccid)
    }

    /// What is listed first has the least. The device decides between equal times.
    fn rank(&self, located: &Located) -> (i64, u64) {
        let (at, device) = (located.sampled_at.as_micros(), located.iccid.as_u64());
        // A complement turns the order round, without a number that has none.
        if self.oldest_first { (at, device) } else { (!at, !device) }
    }
}

impl Locator {
    /// Where something is that hears several cells. By the cell database alone: a device that
    /// taught a cell shows nobody where it was.
    pub fn measure(&self, cells: &[MeasuredCell]) -> Measured {
        self.0.database.measure(cells)
    }

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

    /// The newest position of each device, the newest of them first, from one place on; and how
    /// many there are. Looks at each device, but remembers no more of them than come before the end
    /// of the page: of a million devices a copy would take 128 megabytes.
    pub fn latest(
        &self,
        query: &LatestQuery,
        skip: usize,
        limit: usize,
    ) -> (Vec<LatestPosition>, usize) {
        let (world, held) = (self.world(), &self.0.settings.held);
        if let Some(device) = query.device {
            let latest = world.devices.find(device).and_then(|device| device.latest.as_ref());
            let found = latest.filter(|located| query.wants(located, held));
            let listed = found.into_iter().skip(skip).take(limit).cloned().collect();
            return (listed, usize::from(found.is_some()));
        }
        let end = skip.saturating_add(limit);
        let (mut first, mut amount) = (BinaryHeap::new(), 0);
        for located in world.devices.latest().filter(|located| query.wants(located, held)) {
            amount += 1;
            first.push((query.rank(located), located.iccid));
            if first.len() > end {
                first.pop();
            }
        }
        let devices = first.into_sorted_vec().into_iter().skip(skip);
        let latest = |(_, iccid)| world.devices.find(iccid)?.latest.clone();
        (devices.filter_map(latest).collect(), amount)
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
