//! Where something is that hears several cells at once. By the cell database alone: a device that
//! taught a cell shows nobody where it was.

use cell_database::{CellFix, MeasuredCell};
use hashbrown::HashMap;
use vocabulary::{CellMatch, CellTower};

use crate::Locator;

/// What several cells say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Where something is that hears them.
    pub fix: Option<CellFix>,
    /// How many different cells there were.
    pub towers: usize,
    /// How many of them are known themselves. Without one the fix is that of the smallest area,
    /// else of the smallest network.
    pub known: usize,
}

impl Locator {
    /// Where something is that hears these cells. A cell that is named twice counts once, as
    /// strong as it was heard best.
    pub fn measure(&self, cells: &[MeasuredCell]) -> Measured {
        let cells = without_doubles(cells);
        let database = &self.0.database;
        let fixes = cells.iter().filter_map(|cell| Some((*cell, database.locate(&cell.tower)?)));
        let is_exact = |(_, fix): &(MeasuredCell, CellFix)| fix.matched == CellMatch::Cell;
        let (exact, rough): (Vec<_>, Vec<_>) = fixes.partition(is_exact);
        let exact: Vec<MeasuredCell> = exact.into_iter().map(|(cell, _)| cell).collect();
        // Two cells in one area do not halve it: of areas and networks the smallest counts alone.
        let smallest = || {
            let rough = rough.iter().map(|(_, fix)| *fix);
            rough.min_by(|one, two| {
                let (one, two) = (width(one), width(two));
                one.0.cmp(&two.0).then(one.1.total_cmp(&two.1))
            })
        };
        let fix = if exact.is_empty() { smallest() } else { database.locate_many(&exact) };
        Measured { fix, towers: cells.len(), known: exact.len() }
    }
}

/// An area is less than a network, whatever their sizes.
fn width(fix: &CellFix) -> (bool, f64) {
    (fix.matched == CellMatch::Network, fix.position.accuracy_m.unwrap_or(f64::INFINITY))
}

fn without_doubles(cells: &[MeasuredCell]) -> Vec<MeasuredCell> {
    let mut places: HashMap<CellTower, usize> = HashMap::new();
    let mut different: Vec<MeasuredCell> = Vec::new();
    for cell in cells {
        let place = *places.entry(cell.tower).or_insert(different.len());
        match different.get_mut(place) {
            Some(same) => same.signal_dbm = same.signal_dbm.max(cell.signal_dbm),
            None => different.push(*cell),
        }
    }
    different
}
