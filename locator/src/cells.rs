//! Cells that were learned, and which of them the file does not show as they are.

use cell_database::{LearnedCell, LearnedCells};
use hashbrown::HashMap;
use vocabulary::{CellTower, Coordinates, Timestamp};

/// Cells that are learned at most: 200 bytes each.
const CELLS_MAX: usize = 500_000;

#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) learned: LearnedCells,
    changed: HashMap<CellTower, LearnedCell>,
}

impl Cells {
    pub(crate) fn new(saved: Vec<LearnedCell>) -> Self {
        Self { learned: LearnedCells::new(saved, CELLS_MAX), changed: HashMap::new() }
    }

    pub(crate) fn learn(
        &mut self,
        tower: CellTower,
        at: (Coordinates, Option<f64>),
        heard_at: Timestamp,
    ) {
        if let Some(cell) = self.learned.learn(tower, at, heard_at) {
            self.changed.insert(tower, cell);
        }
    }

    pub(crate) fn take_changed(&mut self) -> Vec<LearnedCell> {
        std::mem::take(&mut self.changed).into_values().collect()
    }

    /// It was not written.
    pub(crate) fn give_back(&mut self, changed: &[LearnedCell]) {
        for cell in changed {
            self.changed.entry(cell.tower).or_insert(*cell);
        }
    }
}
