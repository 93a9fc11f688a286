//! The geofences in memory: by id, and in the index that positions ask.

use std::collections::BTreeMap;

use geofence::{Fence, FenceIndex, Shape};
use hashbrown::HashMap;

use crate::geofences::Geofence;

#[derive(Default)]
pub(crate) struct Fences {
    /// By number, which is the order in which they were made.
    all: BTreeMap<u64, Geofence>,
    numbers: HashMap<String, u64>,
    pub(crate) index: FenceIndex,
}

impl Fences {
    pub(crate) fn new(saved: Vec<Geofence>) -> Self {
        let fence = |geofence: &Geofence| match geofence.shape() {
            Ok(shape) => Some(indexed(geofence, shape)),
            Err(error) => {
                tracing::error!(id = geofence.id, %error, "a geofence cannot be used");
                None
            }
        };
        let index = FenceIndex::new(saved.iter().filter_map(fence));
        let numbers = saved.iter().map(|geofence| (geofence.id.clone(), geofence.number)).collect();
        let all = saved.into_iter().map(|geofence| (geofence.number, geofence)).collect();
        Self { all, numbers, index }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Geofence> {
        self.numbered(*self.numbers.get(id)?)
    }

    pub(crate) fn numbered(&self, number: u64) -> Option<&Geofence> {
        self.all.get(&number)
    }

    /// The shape of a geofence that can be used.
    pub(crate) fn shape(&self, number: u64) -> Option<&Shape> {
        self.index.find(number).map(|fence| &fence.shape)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Geofence> {
        self.all.values()
    }

    pub(crate) fn insert(&mut self, geofence: Geofence, fence: Fence) {
        self.index.insert(fence);
        self.numbers.insert(geofence.id.clone(), geofence.number);
        self.all.insert(geofence.number, geofence);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(number) = self.numbers.remove(id) {
            self.all.remove(&number);
            self.index.remove(number);
        }
    }
}

/// A geofence as the index keeps it.
pub(crate) fn indexed(geofence: &Geofence, shape: Shape) -> Fence {
    Fence {
        id: geofence.number,
        shape,
        device: geofence.device.map(vocabulary::Iccid::as_u64),
        directions: geofence.directions.clone(),
        sources: geofence.sources.clone(),
        active_from: geofence.created,
    }
}
