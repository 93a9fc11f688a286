//! A position of several cells that were measured at once.

use vocabulary::{CellMatch, CellTower, Position};

use crate::globe;
use crate::locate::CellFix;

/// A signal that was not measured counts as this one (dBm).
const SIGNAL_UNKNOWN_DBM: i16 = -100;
/// Twenty decibels less is ten times the distance in free space.
const DECIBELS_PER_DECADE: f64 = 20.0;
/// Two cells that are further apart than both of their ranges together, times this, are not both
/// where the database says.
const OUTLIER_RANGES: f64 = 3.0;

/// A cell that a device hears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasuredCell {
    /// The cell.
    pub tower: CellTower,
    /// How strongly, in dBm.
    pub signal_dbm: Option<i16>,
}

/// The weighted position of cells; `locate` knows single ones. Strong signals and small cells count
/// more, a cell far from all others counts nothing. One cell alone is itself.
pub(crate) fn locate_many(
    cells: &[MeasuredCell],
    locate: impl Fn(&CellTower) -> Option<CellFix>,
) -> Option<CellFix> {
    let known = cells.iter().filter_map(|cell| Some((cell, locate(&cell.tower)?)));
    let is_exact = |fix: &CellFix| fix.matched == CellMatch::Cell;
    let (exact, rough): (Vec<_>, Vec<_>) = known.partition(|(_, fix)| is_exact(fix));
    // Areas add nothing to cells.
    let found = if exact.is_empty() { rough } else { exact };
    let weighted: Vec<(Position, f64)> =
        found.iter().map(|(cell, fix)| (fix.position, weight(cell, fix))).collect();
    let kept = without_outliers(weighted);
    match (&kept[..], &found[..]) {
        ([], _) => None,
        ([_], [(_, only), ..]) if found.len() == 1 => Some(*only),
        _ => {
            let places = kept.iter().map(|(position, weight)| (position.coordinates, *weight));
            let coordinates = globe::middle(places)?;
            let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
            // The weighted spread of the cells, and what they themselves leave open; more cells
            // leave less.
            let spread = kept.iter().map(|(position, weight)| {
                let away = globe::distance_m(position.coordinates, coordinates);
                weight * away.hypot(position.accuracy_m.unwrap_or_default())
            });
            let accuracy = spread.sum::<f64>() / total / (kept.len() as f64).sqrt();
            let accuracy_m = Some(accuracy.max(100.0).round());
            let matched = if kept.len() == 1 { CellMatch::Cell } else { CellMatch::Cells };
            Some(CellFix { position: Position { coordinates, accuracy_m }, matched })
        }
    }
}

fn weight(cell: &MeasuredCell, fix: &CellFix) -> f64 {
    let signal = cell.signal_dbm.unwrap_or(SIGNAL_UNKNOWN_DBM).clamp(-140, -40);
    let nearness = 10_f64.powf(f64::from(signal - SIGNAL_UNKNOWN_DBM) / DECIBELS_PER_DECADE);
    nearness / fix.position.accuracy_m.unwrap_or(1_000.0).max(1.0)
}

/// Leaves out cells that most of the others are far from. Of two that disagree neither can be said
/// to be wrong.
fn without_outliers(cells: Vec<(Position, f64)>) -> Vec<(Position, f64)> {
    if cells.len() < 3 {
        return cells;
    }
    let reach = |position: &Position| position.accuracy_m.unwrap_or_default();
    let are_near = |one: &Position, two: &Position| {
        let away = globe::distance_m(one.coordinates, two.coordinates);
        away <= OUTLIER_RANGES * (reach(one) + reach(two))
    };
    let agrees = |(position, _): &&(Position, f64)| {
        // Each is near itself.
        let near = cells.iter().filter(|(other, _)| are_near(position, other)).count() - 1;
        2 * near >= cells.len() - 1
    };
    let kept: Vec<_> = cells.iter().filter(agrees).copied().collect();
    if kept.is_empty() { cells } else { kept }
}

#[cfg(test)]
mod tests {
    use vocabulary::Coordinates;

    use super::*;

    fn tower(cell: u64) -> CellTower {
        let plmn = "262-01".parse().unwrap();
        CellTower { access: vocabulary::RadioAccess::Lte, plmn, area: Some(1), cell: Some(cell) }
    }

    /// Cells on a line: each a hundredth of a degree east of the one before; 9 is far away.
    fn locate(tower: &CellTower) -> Option<CellFix> {
        let number = tower.cell? as f64;
        let longitude = if number == 9.0 { 20.0 } else { 10.0 + number / 100.0 };
        let coordinates = Coordinates::new(50.0, longitude).ok()?;
        let position = Position { coordinates, accuracy_m: Some(1_000.0) };
        (number < 10.0).then_some(CellFix { position, matched: CellMatch::Cell })
    }

    fn located(cells: &[(u64, i16)]) -> Option<CellFix> {
        let measured =
            |(cell, signal)| MeasuredCell { tower: tower(cell), signal_dbm: Some(signal) };
        let cells: Vec<_> = cells.iter().copied().map(measured).collect();
        locate_many(&cells, locate)
    }

    #[test]
    fn the_stronger_cell_is_the_nearer_one() {
        let even = located(&[(0, -90), (2, -90)]).unwrap();
        assert!((even.position.coordinates.longitude() - 10.01).abs() < 1e-6);
        assert_eq!(even.matched, CellMatch::Cells);
        let uneven = located(&[(0, -70), (2, -90)]).unwrap();
        assert!((uneven.position.coordinates.longitude() - 10.0018).abs() < 1e-4, "{uneven:?}");
        assert!(uneven.position.accuracy_m < Some(1_000.0));
    }

    #[test]
    fn a_cell_far_from_all_others_counts_nothing() {
        let fix = located(&[(0, -90), (1, -90), (9, -50), (2, -90)]).unwrap();
        assert!((fix.position.coordinates.longitude() - 10.01).abs() < 1e-6, "{fix:?}");
    }

    #[test]
    fn one_cell_is_itself_and_none_is_nowhere() {
        assert_eq!(located(&[(1, -90), (77, -60)]), locate(&tower(1)));
        assert_eq!(located(&[(77, -60)]), None);
        assert_eq!(located(&[]), None);
    }
}
