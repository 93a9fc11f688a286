//! What is remembered of each device.

use geofence::DeviceState;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use vocabulary::{CellTower, Iccid, Located, Timestamp};

use crate::held::Held;

/// One device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Device {
    /// The newest of its positions.
    pub(crate) latest: Option<Located>,
    /// The geofences that it is in.
    pub(crate) fences: DeviceState,
    pub(crate) cell: CellHistory,
    /// When it was last said that it tells impossible positions. Not kept.
    pub(crate) refusal_told: Option<Timestamp>,
}

/// What the network told of its cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CellHistory {
    /// The cell that it is in, since when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<(CellTower, Timestamp)>,
    /// When it was last located by a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) located_at: Option<Timestamp>,
    /// The cell that was last looked for in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unknown: Option<CellTower>,
}

/// All devices, and which of them the file does not show as they are.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    all: HashMap<Iccid, Device>,
    changed: HashSet<Iccid>,
}

impl Devices {
    pub(crate) fn new(saved: Vec<(Iccid, Device)>) -> Self {
        Self { all: saved.into_iter().collect(), changed: HashSet::new() }
    }

    pub(crate) fn find(&self, iccid: Iccid) -> Option<&Device> {
        self.all.get(&iccid)
    }

    /// A device, to be changed.
    pub(crate) fn change(&mut self, iccid: Iccid) -> &mut Device {
        self.changed.insert(iccid);
        self.all.entry(iccid).or_default()
    }

    /// Drops a device, which its file shows until this is written.
    pub(crate) fn forget(&mut self, iccid: Iccid) {
        if self.all.remove(&iccid).is_some() {
            self.changed.insert(iccid);
        }
    }

    /// Drops those that are not `held`.
    pub(crate) fn retain(&mut self, held: &Held) {
        let gone: Vec<Iccid> =
            self.all.keys().copied().filter(|iccid| !held.holds(*iccid)).collect();
        gone.into_iter().for_each(|iccid| self.forget(iccid));
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn latest(&self) -> impl Iterator<Item = &Located> {
        self.all.values().filter_map(|device| device.latest.as_ref())
    }

    /// What has changed since the last call; `None` of a device that is forgotten.
    pub(crate) fn take_changed(&mut self) -> Vec<(Iccid, Option<Device>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|iccid| (iccid, self.all.get(&iccid).cloned())).collect()
    }

    /// It was not written.
    pub(crate) fn give_back(&mut self, changed: &[(Iccid, Option<Device>)]) {
        self.changed.extend(changed.iter().map(|(iccid, _)| *iccid));
    }
}
