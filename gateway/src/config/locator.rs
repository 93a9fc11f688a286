//! Where devices are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use locator::{Held, Settings};
use serde::Deserialize;

use super::values::{self, ConfigError};

/// Where devices are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Locator {
    /// The file of the cell database; without it `cells.db` in the data folder.
    pub(crate) cells: Option<PathBuf>,
    /// A device is located by its cell at most this often.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) cell_interval: Duration,
    /// Learn where cells are from devices that tell their own position.
    pub(crate) learn_cells: bool,
    /// Geofences at most.
    pub(crate) geofences_max: usize,
    /// How long a device must be on the other side of a border before it counts as crossed.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) geofence_dwell: Duration,
    /// How far behind a border a device must be before it counts as crossed, in metres.
    pub(crate) geofence_hysteresis_m: u32,
}

impl Default for Locator {
    fn default() -> Self {
        Self {
            cells: None,
            cell_interval: Duration::from_secs(values::HOUR_S),
            learn_cells: true,
            geofences_max: 100_000,
            geofence_dwell: Duration::ZERO,
            geofence_hysteresis_m: 20,
        }
    }
}

impl Locator {
    /// The file of the cell database; `data` is the data folder.
    pub(crate) fn cells(&self, data: &Path) -> PathBuf {
        self.cells.clone().unwrap_or_else(|| data.join("cells.db"))
    }

    /// As the locator takes them; `data` is the data folder, `by_cells` whether it locates by
    /// cells.
    pub(crate) fn settings(&self, data: &Path, by_cells: Arc<AtomicBool>, held: Held) -> Settings {
        Settings {
            cells: self.cells(data),
            cell_interval: self.cell_interval,
            learn_cells: self.learn_cells,
            geofences_max: self.geofences_max,
            hysteresis_m: self.geofence_hysteresis_m.into(),
            dwell: self.geofence_dwell,
            by_cells,
            held,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        values::in_range("locator.geofences_max", self.geofences_max, 1..=1_000_000)?;
        let hysteresis = self.geofence_hysteresis_m as usize;
        values::in_range("locator.geofence_hysteresis_m", hysteresis, 0..=10_000)
    }
}
