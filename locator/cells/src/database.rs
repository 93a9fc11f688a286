//! The file of a cell database.
//!
//! A header of 64 bytes; the cells, area by area, each area a table of its own ([`slots`]); the
//! areas, sorted, as cells of their own with the places of their tables; the networks as cells of
//! their own. All numbers of the header are little-endian.
//!
//! A look-up waits for memory: once for the area, in a table made from the areas when the file is
//! opened ([`Directory`]), and once or twice for the cell.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::directory::Directory;
use crate::key::{KEY_BYTES, Key};
use crate::map;
use crate::record::{AREA_BYTES, Area, RECORD_BYTES, Record};
use crate::slots::{self, SLOT_BYTES, Slot};

const MAGIC: [u8; 8] = *b"SGCELLS2";
/// Of the files before, whose cells were sorted by their keys.
const MAGIC_OLDER: [u8; 8] = *b"SGCELLS1";
const HEADER_BYTES: usize = 64;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    cells: u64,
    slots: u64,
    areas: u64,
    networks: u64,
    /// Of everything behind the cells.
    tail_hash: u64,
}

impl Header {
    pub(crate) fn new(
        [cells, slots]: [u64; 2],
        [areas, networks]: [usize; 2],
        tail: &[u8],
    ) -> Self {
        let tail_hash = xxh3_64(tail);
        Self { cells, slots, areas: areas as u64, networks: networks as u64, tail_hash }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [self.cells, self.slots, self.areas, self.networks, self.tail_hash];
        for (place, number) in numbers.into_iter().enumerate() {
            bytes[8 * (place + 1)..8 * (place + 2)].copy_from_slice(&number.to_le_bytes());
        }
        let hash = xxh3_64(&bytes[..HEADER_BYTES - 8]);
        bytes[HEADER_BYTES - 8..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8], path: &Path) -> Result<Self, OpenError> {
        if bytes.starts_with(&MAGIC_OLDER) {
            return Err(OpenError::Older(path.to_owned()));
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(OpenError::Header(path.to_owned()));
        }
        Self::from_bytes(bytes).ok_or_else(|| OpenError::Damaged(path.to_owned()))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |place: usize| u64::from_le_bytes(numbers[place]);
        let (covered, _) = bytes.split_at(HEADER_BYTES - 8);
        (number(7) == xxh3_64(covered)).then(|| Self {
            cells: number(1),
            slots: number(2),
            areas: number(3),
            networks: number(4),
            tail_hash: number(5),
        })
    }
}

/// Why a file is no cell database.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("cell database {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another file.
    #[error("{0} is no cell database of this release; remove it, or choose another file")]
    Header(PathBuf),
    /// One of an older release.
    #[error("cell database {0} was made by an older version; import again")]
    Older(PathBuf),
    /// Cut off, or with something behind it.
    #[error("cell database {path} has {found} bytes, allowed: {expected}; import it again")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// What its header says.
        expected: u64,
    },
    /// Its header or its areas were changed.
    #[error("cell database {0} is damaged; import it again")]
    Damaged(PathBuf),
}

impl OpenError {
    /// Whether there is a cell database whose cells cannot be used: an import takes its place.
    /// Nothing else is ever replaced.
    pub(crate) fn is_lost_database(&self) -> bool {
        matches!(self, Self::Older(_) | Self::Length { .. } | Self::Damaged(_))
    }
}

/// A cell database, mapped into memory. Clones share it.
#[derive(Debug, Clone)]
pub struct CellDatabase(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    map: Mmap,
    header: Header,
    /// Where each part begins: slots, areas, networks, end.
    parts: [usize; 4],
    directory: Directory,
}

impl CellDatabase {
    /// Opens a file. Reads its areas, not its cells.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found == 0 {
            // Nothing can be mapped.
            return Err(OpenError::Header(path.to_owned()));
        }
        let map = map::map(&file).map_err(io)?;
        let header = Header::read(&map, path)?;
        let lengths = [
            header.slots.saturating_mul(SLOT_BYTES as u64),
            header.areas.saturating_mul(AREA_BYTES as u64),
            header.networks.saturating_mul(RECORD_BYTES as u64),
        ];
        let mut end = HEADER_BYTES as u64;
        let mut parts = [HEADER_BYTES; 4];
        for (part, length) in parts.iter_mut().skip(1).zip(lengths) {
            end = end.saturating_add(length);
            *part = usize::try_from(end).unwrap_or(usize::MAX);
        }
        if end != found {
            return Err(OpenError::Length { path: path.to_owned(), found, expected: end });
        }
        if map.get(parts[1]..).map(xxh3_64) != Some(header.tail_hash) {
            return Err(OpenError::Damaged(path.to_owned()));
        }
        let areas = map.get(parts[1]..parts[2]).unwrap_or_default().as_chunks().0;
        let directory = Directory::new(areas.iter().map(Area::from_bytes));
        Ok(Self(Arc::new(Mapped { map, header, parts, directory })))
    }

    /// Cells in it.
    pub fn len(&self) -> u64 {
        self.0.header.cells
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.0.map.len() as u64
    }

    fn part(&self, part: usize) -> &[u8] {
        self.0.map.get(self.0.parts[part]..self.0.parts[part + 1]).unwrap_or_default()
    }

    fn slots(&self) -> &[Slot] {
        self.part(0).as_chunks().0
    }

    pub(crate) fn areas(&self) -> Rows<'_, AREA_BYTES> {
        Rows(self.part(1).as_chunks().0)
    }

    pub(crate) fn networks(&self) -> Rows<'_, RECORD_BYTES> {
        Rows(self.part(2).as_chunks().0)
    }

    /// A cell.
    pub(crate) fn find(&self, key: Key) -> Option<Record> {
        let area = self.0.directory.find(key.area())?;
        self.find_at(key, area.first, area.cells)
    }

    /// A cell of an area.
    pub(crate) fn find_in(&self, area: &Area, cell: u64) -> Option<Record> {
        self.find_at(area.record.key.with_cell(cell), area.first, area.cells)
    }

    fn find_at(&self, key: Key, first: u32, cells: u32) -> Option<Record> {
        slots::find(self.slots().get(usize::try_from(first).ok()?..)?, cells, key)
    }

    /// The cells of an area, in no order.
    pub(crate) fn cells_of(&self, area: &Area) -> impl Iterator<Item = Record> {
        let slots = usize::try_from(area.first).ok().and_then(|first| self.slots().get(first..));
        let cells = usize::try_from(area.cells).unwrap_or(usize::MAX);
        slots::records(slots.unwrap_or_default(), area.record.key).take(cells)
    }
}

/// Rows that begin with their keys, in order.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, const N: usize>(&'a [[u8; N]]);

impl<'a, const N: usize> Rows<'a, N> {
    pub(crate) fn row(self, place: usize) -> Option<&'a [u8; N]> {
        self.0.get(place)
    }

    pub(crate) fn find(self, key: Key) -> Option<&'a [u8; N]> {
        self.row(self.0.binary_search_by_key(&Some(key), key_of).ok()?)
    }

    /// Those from one key up to another.
    pub(crate) fn between(self, from: Key, to: Key) -> &'a [[u8; N]] {
        let place = |key| self.0.partition_point(|row| key_of(row) < Some(key));
        self.0.get(place(from)..place(to)).unwrap_or_default()
    }
}

fn key_of<const N: usize>(row: &[u8; N]) -> Option<Key> {
    row.first_chunk::<KEY_BYTES>().map(Key::from_bytes)
}
