//! Where cells are, learned from devices that told their own position while they were in them.
//!
//! It is kept by the owner: [`LearnedCells::learn`] gives back what has to be saved.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use vocabulary::{CellMatch, CellTower, Coordinates, Position, Timestamp};

use crate::globe;
use crate::locate::CellFix;

/// Before so many positions nothing is known of a cell: the first may be the border of a large one.
const TRUSTED_AFTER: u32 = 5;
/// Later positions count no less than this part, so that a cell that grows is followed.
const WEIGHT_MIN: f64 = 1.0 / 200.0;
/// A position further from the middle than this, times the spread, is none of this cell.
const OUTLIER_SPREADS: f64 = 5.0;
/// The least spread that outliers are judged by, in metres.
const SPREAD_MIN_M: f64 = 500.0;
/// No cell reaches further (see the accuracy of cells).
const REACH_MAX_M: f64 = 120_000.0;
/// So many outliers in a row are the cell, which was moved or whose number was given anew.
const MOVED_AFTER: u32 = 10;
/// Positions that are less accurate teach nothing of a cell.
const ACCURACY_MAX_M: f64 = 1_000.0;

/// What is known of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LearnedCell {
    /// The cell.
    pub tower: CellTower,
    /// The middle of its devices.
    pub middle: Coordinates,
    /// How far they were from it, on average, in metres.
    pub spread_m: f64,
    /// From how many positions it is known.
    pub samples: u32,
    /// Outliers since the last that was none.
    pub outliers: u32,
    /// The time of the last position.
    pub heard_at: Timestamp,
}

/// Cells that were learned.
#[derive(Debug, Default)]
pub struct LearnedCells {
    cells: HashMap<CellTower, LearnedCell>,
    cells_max: usize,
}

impl LearnedCells {
    /// With what was learned before; more than `cells_max` cells are not begun with.
    pub fn new(cells: impl IntoIterator<Item = LearnedCell>, cells_max: usize) -> Self {
        let cells = cells.into_iter().map(|cell| (cell.tower, cell)).collect();
        Self { cells, cells_max }
    }

    /// A device was at `at` while it was in `tower`; what is known of the cell now, to be saved.
    pub fn learn(
        &mut self,
        tower: CellTower,
        (at, accuracy_m): (Coordinates, Option<f64>),
        heard_at: Timestamp,
    ) -> Option<LearnedCell> {
        let is_exact = accuracy_m.is_none_or(|accuracy| accuracy <= ACCURACY_MAX_M);
        if tower.cell.is_none() || !is_exact {
            return None;
        }
        let fresh =
            LearnedCell { tower, middle: at, spread_m: 0.0, samples: 1, outliers: 0, heard_at };
        if self.cells.len() >= self.cells_max && !self.cells.contains_key(&tower) {
            return None;
        }
        let cell = self.cells.entry(tower).or_insert(LearnedCell { samples: 0, ..fresh });
        let away = globe::distance_m(cell.middle, at);
        let allowed = (OUTLIER_SPREADS * cell.spread_m.max(SPREAD_MIN_M)).min(REACH_MAX_M);
        if cell.samples >= TRUSTED_AFTER && away > allowed {
            cell.outliers += 1;
            if cell.outliers >= MOVED_AFTER {
                *cell = fresh;
            }
            return Some(*cell);
        }
        cell.outliers = 0;
        cell.samples = cell.samples.saturating_add(1);
        let part = (1.0 / f64::from(cell.samples)).max(WEIGHT_MIN);
        let places = [(cell.middle, 1.0 - part), (at, part)];
        cell.middle = globe::middle(places.into_iter()).unwrap_or(at);
        cell.spread_m += (away - cell.spread_m) * part;
        cell.heard_at = cell.heard_at.max(heard_at);
        Some(*cell)
    }

    /// Where a cell is, once enough is known of it.
    pub fn locate(&self, tower: &CellTower) -> Option<CellFix> {
        let cell = self.cells.get(tower).filter(|cell| cell.samples >= TRUSTED_AFTER)?;
        // Of a normal spread on a plane 68 % are within 1.2 times the mean distance.
        let accuracy = (cell.spread_m * 1.2).max(100.0).round();
        let position = Position { coordinates: cell.middle, accuracy_m: Some(accuracy) };
        Some(CellFix { position, matched: CellMatch::Cell })
    }

    /// Cells of which something is known.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tower() -> CellTower {
        CellTower {
            access: vocabulary::RadioAccess::NbIot,
            plmn: "262-01".parse().unwrap(),
            area: Some(1),
            cell: Some(2),
        }
    }

    fn at(longitude: f64) -> (Coordinates, Option<f64>) {
        (Coordinates::new(50.0, longitude).unwrap(), Some(10.0))
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(0)
    }

    #[test]
    fn a_cell_is_the_middle_of_its_devices() {
        let mut cells = LearnedCells::new([], 10);
        for longitude in [10.0, 10.01, 10.0, 10.01] {
            cells.learn(tower(), at(longitude), now());
            assert_eq!(cells.locate(&tower()), None, "too little is known");
        }
        let saved = cells.learn(tower(), at(10.005), now()).unwrap();
        let fix = cells.locate(&tower()).unwrap();
        assert!((fix.position.coordinates.longitude() - 10.005).abs() < 0.001, "{fix:?}");
        let again = LearnedCells::new([saved], 10);
        assert_eq!(again.locate(&tower()), Some(fix));
    }

    #[test]
    fn an_outlier_is_refused_and_ten_of_them_are_the_cell() {
        let mut cells = LearnedCells::new([], 10);
        let learn = |cells: &mut LearnedCells, times, longitude| {
            for _ in 0..times {
                cells.learn(tower(), at(longitude), now());
            }
        };
        learn(&mut cells, 20, 10.0);
        learn(&mut cells, 9, 11.0);
        let before = cells.locate(&tower()).unwrap();
        assert!((before.position.coordinates.longitude() - 10.0).abs() < 1e-6);
        learn(&mut cells, 5, 11.0);
        let after = cells.locate(&tower()).unwrap();
        assert!((after.position.coordinates.longitude() - 11.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_exact_teaches_nothing_and_memory_is_bounded() {
        let mut cells = LearnedCells::new([], 1);
        let (place, _) = at(10.0);
        assert_eq!(cells.learn(tower(), (place, Some(5_000.0)), now()), None);
        assert!(cells.learn(tower(), (place, None), now()).is_some());
        let other = CellTower { cell: Some(3), ..tower() };
        assert_eq!(cells.learn(other, (place, None), now()), None);
        assert_eq!(cells.learn(CellTower { cell: None, ..tower() }, (place, None), now()), None);
        assert_eq!(cells.len(), 1);
    }
}
