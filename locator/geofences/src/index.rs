//! Which fences a point may lie in.

use hashbrown::HashMap;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};
use vocabulary::{Coordinates, Direction, PositionSource, Timestamp};

use crate::Shape;

/// A shape with its rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Fence {
    /// By which it is known.
    pub id: u64,
    /// Where it is.
    pub shape: Shape,
    /// The only device that it is for; without one it is for all.
    pub device: Option<u64>,
    /// Crossings of which way are told.
    pub directions: Vec<Direction>,
    /// By which positions.
    pub sources: Vec<PositionSource>,
    /// Positions of before do not count.
    pub active_from: Timestamp,
}

type Entry = GeomWithData<Rectangle<[f64; 2]>, u64>;

/// All fences.
#[derive(Debug, Default)]
pub struct FenceIndex {
    fences: HashMap<u64, Fence>,
    /// Those for all devices. A fence for one costs the others nothing.
    everybody: RTree<Entry>,
    of_device: HashMap<u64, Vec<u64>>,
}

impl FenceIndex {
    /// Of many fences at once, which is much faster than one after the other.
    pub fn new(fences: impl IntoIterator<Item = Fence>) -> Self {
        let fences: HashMap<u64, Fence> =
            fences.into_iter().map(|fence| (fence.id, fence)).collect();
        let global = fences.values().filter(|fence| fence.device.is_none());
        let everybody = RTree::bulk_load(global.flat_map(entries).collect());
        let mut of_device: HashMap<u64, Vec<u64>> = HashMap::new();
        for fence in fences.values() {
            if let Some(device) = fence.device {
                of_device.entry(device).or_default().push(fence.id);
            }
        }
        Self { fences, everybody, of_device }
    }

    /// Takes a fence in, in place of the one with its id.
    pub fn insert(&mut self, fence: Fence) {
        self.remove(fence.id);
        match fence.device {
            Some(device) => self.of_device.entry(device).or_default().push(fence.id),
            None => entries(&fence).into_iter().for_each(|entry| self.everybody.insert(entry)),
        }
        self.fences.insert(fence.id, fence);
    }

    /// Takes a fence out.
    pub fn remove(&mut self, id: u64) -> Option<Fence> {
        let fence = self.fences.remove(&id)?;
        match fence.device {
            None => entries(&fence).iter().for_each(|entry| {
                self.everybody.remove(entry);
            }),
            Some(device) => {
                if let Some(ids) = self.of_device.get_mut(&device) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.of_device.remove(&device);
                    }
                }
            }
        }
        Some(fence)
    }

    /// A fence.
    pub fn find(&self, id: u64) -> Option<&Fence> {
        self.fences.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.fences.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fences.is_empty()
    }

    /// The fences for a device whose boxes hold a point.
    pub fn around(&self, device: u64, at: Coordinates) -> impl Iterator<Item = &Fence> {
        let point = AABB::from_point([at.longitude(), at.latitude()]);
        let everybody = self.everybody.locate_in_envelope_intersecting(point);
        let own = self.of_device.get(&device).into_iter().flatten();
        let ids = everybody.map(|entry| entry.data).chain(own.copied());
        ids.filter_map(|id| self.fences.get(&id))
    }
}

fn entries(fence: &Fence) -> Vec<Entry> {
    let entry = |[west, south, east, north]: [f64; 4]| {
        GeomWithData::new(Rectangle::from_corners([west, south], [east, north]), fence.id)
    };
    fence.shape.boxes().into_iter().map(entry).collect()
}
