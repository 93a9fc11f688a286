//! From a cell to a position: the cell itself, else its area, else its network.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use vocabulary::{CellMatch, CellTower, Position};

use crate::database::{CellDatabase, OpenError};
use crate::key::{Key, Radio};
use crate::record::{Area, Record};
use crate::several::{self, Measured, MeasuredCell};

/// A cell is no smaller: what a database says below is more luck than knowledge.
const ACCURACY_MIN_M: f64 = 100.0;
/// A cell reaches no further (3GPP TS 45.010: timing advance of GSM ends at 35 km, with extended
/// cells at 120 km).
const CELL_ACCURACY_MAX_M: f64 = 120_000.0;
/// Of a cell whose range is not known.
const RANGE_UNKNOWN_M: f64 = 2_500.0;
/// Where devices are spread evenly over a disc, 68 % of them are within this part of its radius.
const PART_OF_RANGE: f64 = 0.82;

/// Where a cell is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellFix {
    /// The middle of what it covers, and how far from it a device may be.
    pub position: Position,
    /// What was found of it.
    pub matched: CellMatch,
}

impl CellDatabase {
    /// Where a device in this cell is.
    pub fn locate(&self, tower: &CellTower) -> Option<CellFix> {
        let key = Key::of(tower);
        let cell = match (tower.area, tower.cell) {
            (Some(_), Some(_)) => self.find(key).or_else(|| self.find_short(key, tower)),
            (None, Some(_)) => self.find_without_area(key),
            _ => None,
        };
        if let Some(fix) = cell.and_then(fix_of_cell) {
            return Some(fix);
        }
        let wide = |record, matched| fix(record, matched, 1.0);
        let area = tower.area.and_then(|_| self.area(key));
        area.and_then(|area| wide(area.record, CellMatch::Area)).or_else(|| {
            let network = self.networks().find(key.network_start())?;
            wide(Record::from_bytes(network), CellMatch::Network)
        })
    }

    fn area(&self, key: Key) -> Option<Area> {
        self.areas().find(key.area_start()).map(Area::from_bytes)
    }

    /// A cell of UMTS by the 16 bits of its number that a service area shows, if its area has only
    /// one.
    fn find_short(&self, key: Key, tower: &CellTower) -> Option<Record> {
        if Radio::from(tower.access) != Radio::Umts || key.cell() > 0xffff {
            return None;
        }
        let area = self.area(key)?;
        let of_area = self.cells_of(&area);
        let mut same = of_area.filter(|record| record.key.cell() & 0xffff == key.cell());
        let first = same.next()?;
        same.next().is_none().then_some(first)
    }

    /// A cell whose area is not told, if its network has only one of its number: in LTE and 5G a
    /// number names one cell of a network (3GPP TS 23.003 §19.6).
    fn find_without_area(&self, key: Key) -> Option<Record> {
        let areas = self.areas().between(key.network_start(), key.network_end()).iter();
        let mut same = areas.filter_map(|area| self.find_in(&Area::from_bytes(area), key.cell()));
        let first = same.next()?;
        same.next().is_none().then_some(first)
    }
}

fn fix_of_cell(record: Record) -> Option<CellFix> {
    let range = f64::from(record.range_m());
    let range = if range == 0.0 { RANGE_UNKNOWN_M } else { range };
    let mut fix = fix(record, CellMatch::Cell, PART_OF_RANGE)?;
    let accuracy = (range * PART_OF_RANGE).clamp(ACCURACY_MIN_M, CELL_ACCURACY_MAX_M);
    fix.position.accuracy_m = Some(accuracy.round());
    Some(fix)
}

fn fix(record: Record, matched: CellMatch, part: f64) -> Option<CellFix> {
    let accuracy = (f64::from(record.range_m()) * part).max(ACCURACY_MIN_M).round();
    let position = Position { coordinates: record.coordinates()?, accuracy_m: Some(accuracy) };
    Some(CellFix { position, matched })
}

/// The database of a path, opened again when another one has taken its place. Clones share it.
#[derive(Debug, Clone)]
pub struct CellLocator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    database: ArcSwapOption<CellDatabase>,
    /// When the file that is open was made; `None` where there was none.
    made: Mutex<Option<SystemTime>>,
}

impl CellLocator {
    /// Of the database at `path`, which need not be there yet.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let locator = Self(Arc::new(Inner {
            path: path.to_owned(),
            database: ArcSwapOption::empty(),
            made: Mutex::new(None),
        }));
        locator.refresh()?;
        Ok(locator)
    }

    /// Opens the database again if it was replaced; says how many cells it has then.
    pub fn refresh(&self) -> Result<Option<u64>, OpenError> {
        let Inner { path, database, made } = &*self.0;
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        let found = std::fs::metadata(path).and_then(|about| about.modified());
        let found = match found {
            Ok(time) => Some(time),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(OpenError::Io { path: path.clone(), source }),
        };
        if *made == found {
            return Ok(None);
        }
        let opened = found.map(|_| CellDatabase::open(path)).transpose()?;
        let cells = opened.as_ref().map_or(0, CellDatabase::len);
        database.store(opened.map(Arc::new));
        *made = found;
        Ok(Some(cells))
    }

    /// Where a device in this cell is.
    pub fn locate(&self, tower: &CellTower) -> Option<CellFix> {
        self.0.database.load().as_ref()?.locate(tower)
    }

    /// Where something is that hears these cells.
    pub fn measure(&self, cells: &[MeasuredCell]) -> Measured {
        several::measure(cells, |tower| self.locate(tower))
    }

    /// Cells of the database.
    pub fn len(&self) -> u64 {
        self.0.database.load().as_ref().map_or(0, |database| database.len())
    }

    /// Whether there is no database, or nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
