//! A position of several cells that were measured at once.

use hashbrown::HashMap;
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

/// Where something is that hears `cells`; `locate` knows single ones. A cell that is named twice
/// counts once, as strong as it was heard best. Areas add nothing to cells.
pub(crate) fn measure(
    cells: &[MeasuredCell],
    locate: impl Fn(&CellTower) -> Option<CellFix>,
) -> Measured {
    let cells = without_doubles(cells);
    let towers = cells.len();
    let fixes = cells.into_iter().filter_map(|cell| Some((cell, locate(&cell.tower)?)));
    let is_exact = |(_, fix): &(MeasuredCell, CellFix)| fix.matched == CellMatch::Cell;
    let (exact, rough): (Vec<_>, Vec<_>) = fixes.partition(is_exact);
    let fix = if exact.is_empty() { smallest(&rough) } else { weighted(&exact) };
    Measured { fix, towers, known: exact.len() }
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

/// Of areas and networks the smallest, alone: two cells in one area do not halve it. An area is
/// less than a network, whatever their sizes.
fn smallest(fixes: &[(MeasuredCell, CellFix)]) -> Option<CellFix> {
    let width = |fix: &CellFix| {
        (fix.matched == CellMatch::Network, fix.position.accuracy_m.unwrap_or(f64::INFINITY))
    };
    let fixes = fixes.iter().map(|(_, fix)| *fix);
    fixes.min_by(|one, two| {
        let (one, two) = (width(one), width(two));
        one.0.cmp(&two.0).then(one.1.total_cmp(&two.1))
    })
}

/// The weighted position of cells: strong signals and small cells count more, a cell far from most
/// of the others counts nothing. One cell alone is itself.
fn weighted(cells: &[(MeasuredCell, CellFix)]) -> Option<CellFix> {
    if let [(_, only)] = cells {
        return Some(*only);
    }
    let weights = cells.iter().map(|(cell, fix)| (fix.position, weight(cell, fix)));
    let kept = without_outliers(weights.collect());
    let places = kept.iter().map(|(position, weight)| (position.coordinates, *weight));
    let coordinates = globe::middle(places)?;
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    // The weighted spread of the cells, and what they themselves leave open; more cells leave less.
    let spread = kept.iter().map(|(position, weight)| {
        let away = globe::distance_m(position.coordinates, coordinates);
        weight * away.hypot(position.accuracy_m.unwrap_or_default())
    });
    let accuracy = spread.sum::<f64>() / total / (kept.len() as f64).sqrt();
    let accuracy_m = Some(accuracy.max(100.0).round());
    let matched = if kept.len() == 1 { CellMatch::Cell } else { CellMatch::Cells };
    Some(CellFix { position: Position { coordinates, accuracy_m }, matched })
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

    /// Cells on a line: each a hundredth of a degree east of the one before; 9 is far away. From 20
    /// on only the area is known, from 40 on only the network.
    fn locate(tower: &CellTower) -> Option<CellFix> {
        let number = tower.cell?;
        let longitude = if number == 9 { 20.0 } else { 10.0 + number as f64 / 100.0 };
        let coordinates = Coordinates::new(50.0, longitude).ok()?;
        let (accuracy_m, matched) = match number {
            0..10 => (1_000.0, CellMatch::Cell),
            20..40 => (number as f64 * 1_000.0, CellMatch::Area),
            40..60 => (15_000.0, CellMatch::Network),
            _ => return None,
        };
        let position = Position { coordinates, accuracy_m: Some(accuracy_m) };
        Some(CellFix { position, matched })
    }

    fn located(cells: &[(u64, i16)]) -> Option<CellFix> {
        measured(cells).fix
    }

    fn measured(cells: &[(u64, i16)]) -> Measured {
        let measured =
            |(cell, signal)| MeasuredCell { tower: tower(cell), signal_dbm: Some(signal) };
        let cells: Vec<_> = cells.iter().copied().map(measured).collect();
        measure(&cells, locate)
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

    #[test]
    fn a_cell_counts_once_and_of_areas_the_smallest_alone() {
        let twice = measured(&[(0, -90), (2, -90), (2, -70)]);
        assert_eq!((twice.towers, twice.known), (2, 2));
        assert_eq!(twice.fix, located(&[(0, -90), (2, -70)]));
        let rough = measured(&[(41, -60), (30, -60), (21, -90), (77, -50)]);
        assert_eq!((rough.towers, rough.known), (4, 0));
        assert_eq!(rough.fix, locate(&tower(21)));
        assert_eq!(located(&[(21, -60), (0, -120)]), locate(&tower(0)), "areas add nothing");
    }
}
