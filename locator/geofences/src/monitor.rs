//! Crossings, by the times at which a device was somewhere.
//!
//! A device is outside of every fence until it was seen inside. A position says on which side it
//! is, or that this is uncertain: then nothing changes. What is told by one kind of position is
//! judged apart from what is told by another, because their accuracies differ.

use std::time::Duration;

use thiserror::Error;
use vocabulary::{Coordinates, Direction, PositionSource, Timestamp};

use crate::{Fence, FenceIndex};

/// When a border counts as crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// How far behind the border a device must be, in metres. At most half of what fits into the
    /// fence.
    pub hysteresis_m: f64,
    /// How long it must have been there.
    pub dwell: Duration,
}

/// Where a device was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The place.
    pub coordinates: Coordinates,
    /// How far from it the device may have been, in metres.
    pub accuracy_m: Option<f64>,
    /// What the position was made from.
    pub source: PositionSource,
    /// When.
    pub at: Timestamp,
}

/// A border that was crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// The fence.
    pub fence: u64,
    /// Which way.
    pub direction: Direction,
}

/// What has to be remembered of a device: the fences that it is in, or is about to enter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceState {
    sources: [SourceState; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SourceState {
    newest: Timestamp,
    fences: Vec<Known>,
}

/// A fence that a device is in, or about to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    fence: u64,
    is_inside: bool,
    /// Since when it is seen on the other side.
    pending: Option<Timestamp>,
}

impl Default for SourceState {
    fn default() -> Self {
        Self { newest: Timestamp::from_micros(i64::MIN), fences: Vec::new() }
    }
}

/// On which side of a border a position lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Inside,
    Outside,
    Uncertain,
}

impl DeviceState {
    /// Takes a position of `device`, and tells which borders it has crossed. A position that is
    /// older than another one of its kind changes nothing.
    pub fn observe(
        &mut self,
        (index, rules): (&FenceIndex, &Rules),
        device: u64,
        observation: &Observation,
    ) -> Vec<Crossed> {
        let state = &mut self.sources[place(observation.source)];
        if observation.at < state.newest {
            return Vec::new();
        }
        state.newest = observation.at;
        let mut crossed = Vec::new();
        // Fences that are gone are forgotten.
        state.fences.retain(|known| index.find(known.fence).is_some());
        for known in &mut state.fences {
            if let Some(fence) = index.find(known.fence) {
                crossed.extend(known.observe((fence, rules), observation));
            }
        }
        for fence in index.around(device, observation.coordinates) {
            // Most that are near are not entered, which costs less to see than how far they are.
            let is_known = state.fences.iter().any(|known| known.fence == fence.id);
            if is_known || !fence.shape.contains(observation.coordinates) {
                continue;
            }
            let mut known = Known { fence: fence.id, is_inside: false, pending: None };
            crossed.extend(known.observe((fence, rules), observation));
            state.fences.push(known);
        }
        state.fences.retain(|known| known.is_inside || known.pending.is_some());
        crossed
    }

    /// Whether nothing is remembered but times.
    pub fn is_outside(&self) -> bool {
        self.sources.iter().all(|source| source.fences.is_empty())
    }
}

impl Known {
    fn observe(
        &mut self,
        (fence, rules): (&Fence, &Rules),
        observation: &Observation,
    ) -> Option<Crossed> {
        let counts =
            fence.sources.contains(&observation.source) && observation.at >= fence.active_from;
        let side = if counts { side(fence, rules, observation) } else { Side::Uncertain };
        let direction = match (self.is_inside, side) {
            (_, Side::Uncertain) => return None,
            (true, Side::Inside) | (false, Side::Outside) => {
                self.pending = None;
                return None;
            }
            (false, Side::Inside) => Direction::Enter,
            (true, Side::Outside) => Direction::Exit,
        };
        let since = *self.pending.get_or_insert(observation.at);
        if observation.at.saturating_since(since) < rules.dwell {
            return None;
        }
        self.is_inside = direction == Direction::Enter;
        self.pending = None;
        let is_told = fence.directions.contains(&direction);
        is_told.then_some(Crossed { fence: fence.id, direction })
    }
}

/// Inside and outside are certain where the whole circle of the accuracy lies there. A fence may be
/// smaller than that circle: it counts as entered where the position lies deep in it.
fn side(fence: &Fence, rules: &Rules, observation: &Observation) -> Side {
    let (shape, at) = (&fence.shape, observation.coordinates);
    let deep = shape.half_width_m() / 2.0;
    let margin = observation.accuracy_m.unwrap_or(0.0).max(rules.hysteresis_m.min(deep));
    if shape.is_far(at, margin) {
        return Side::Outside;
    }
    let depth = shape.depth_m(at);
    if depth >= margin.min(deep) {
        Side::Inside
    } else if -depth >= margin {
        Side::Outside
    } else {
        Side::Uncertain
    }
}

const fn place(source: PositionSource) -> usize {
    match source {
        PositionSource::Gps => 0,
        PositionSource::CellTower => 1,
    }
}

/// Bytes that are no state of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("these bytes are no state of a device that this release knows")]
pub struct MalformedState;

/// The form of the bytes.
const VERSION: u8 = 1;
const NO_TIME: i64 = i64::MIN;

impl DeviceState {
    /// All of it, to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for source in &self.sources {
            bytes.extend(source.newest.as_micros().to_le_bytes());
            // No device is in four billion fences.
            let count = u32::try_from(source.fences.len()).unwrap_or(u32::MAX);
            bytes.extend(count.to_le_bytes());
            for known in &source.fences {
                bytes.extend(known.fence.to_le_bytes());
                bytes.push(u8::from(known.is_inside));
                let pending = known.pending.map_or(NO_TIME, Timestamp::as_micros);
                bytes.extend(pending.to_le_bytes());
            }
        }
        bytes
    }

    /// What [`DeviceState::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedState> {
        let (version, mut rest) = bytes.split_first().ok_or(MalformedState)?;
        if *version != VERSION {
            return Err(MalformedState);
        }
        let mut sources = [SourceState::default(), SourceState::default()];
        for source in &mut sources {
            source.newest = Timestamp::from_micros(i64::from_le_bytes(take(&mut rest)?));
            for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
                let fence = u64::from_le_bytes(take(&mut rest)?);
                let [is_inside] = take(&mut rest)?;
                let pending = i64::from_le_bytes(take(&mut rest)?);
                let pending = (pending != NO_TIME).then(|| Timestamp::from_micros(pending));
                source.fences.push(Known { fence, is_inside: is_inside != 0, pending });
            }
        }
        if rest.is_empty() { Ok(Self { sources }) } else { Err(MalformedState) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MalformedState> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(MalformedState)?;
    *rest = left;
    Ok(*taken)
}
