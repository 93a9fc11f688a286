//! Where the cells of mobile networks are.
//!
//! [`Import`] reads exports of OpenCelliD and of the Mozilla Location Service into one compact
//! file, [`CellDatabase`] maps it into memory and finds a cell in it; what is not in it is found by
//! its area or its network, with an accuracy that says so. [`LearnedCells`] knows cells from
//! devices that told their own position. [`CellLocator`] asks both.
//!
//! It asks no service: the files are the operator's.

mod csv;
mod database;
mod directory;
mod globe;
mod import;
mod key;
mod learned;
mod locate;
mod map;
mod merge;
mod record;
mod runs;
mod several;
mod slots;

pub use csv::BadLine;
pub use database::{CellDatabase, OpenError};
pub use import::{Import, ImportError, Imported, Progress};
pub use learned::{LearnedCell, LearnedCells};
pub use locate::{CellFix, CellLocator};
pub use several::{Measured, MeasuredCell};
