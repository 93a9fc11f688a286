//! The file of a cell database.
//!
//! A header of 64 bytes; the cells, sorted by key, 23 bytes each; the key of every 32nd cell; the
//! areas and the networks as cells of their own. All numbers of the header are little-endian.
//!
//! A look-up waits for memory: the keys of the index are held as numbers, and the cells between two
//! of them lie in a few cache lines.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::key::{KEY_BYTES, Key};
use crate::map;
use crate::record::{RECORD_BYTES, Record};

const MAGIC: [u8; 8] = *b"SGCELLS1";
const HEADER_BYTES: usize = 64;
/// Cells per key of the index: with more, a look-up waits for more cache lines; with fewer, the
/// index takes more than the 24 bytes that a cell may take in all.
pub(crate) const INDEX_STEP: usize = 32;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    cells: u64,
    areas: u64,
    networks: u64,
    /// Of everything behind the cells.
    tail_hash: u64,
}

impl Header {
    pub(crate) fn new(cells: u64, [areas, networks]: [usize; 2], tail: &[u8]) -> Self {
        let tail_hash = xxh3_64(tail);
        Self { cells, areas: areas as u64, networks: networks as u64, tail_hash }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [self.cells, self.areas, self.networks, self.tail_hash];
        for (place, number) in numbers.into_iter().enumerate() {
            bytes[8 * (place + 1)..8 * (place + 2)].copy_from_slice(&number.to_le_bytes());
        }
        let hash = xxh3_64(&bytes[..HEADER_BYTES - 8]);
        bytes[HEADER_BYTES - 8..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |place: usize| u64::from_le_bytes(numbers[place]);
        let (covered, _) = bytes.split_at(HEADER_BYTES - 8);
        let is_ours = numbers[0] == MAGIC && number(7) == xxh3_64(covered);
        is_ours.then(|| Self {
            cells: number(1),
            areas: number(2),
            networks: number(3),
            tail_hash: number(4),
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
    /// Another file, or one of another release.
    #[error("{0} is no cell database of this release; make it with `simgate cells import`")]
    Header(PathBuf),
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
    /// Its index was changed.
    #[error("cell database {0} is damaged; import it again")]
    Damaged(PathBuf),
}

/// A cell database, mapped into memory. Clones share it.
#[derive(Debug, Clone)]
pub struct CellDatabase(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    map: Mmap,
    header: Header,
    /// Where each part begins: cells, index, areas, networks, end.
    parts: [usize; 5],
    index: Vec<Key>,
}

impl CellDatabase {
    /// Opens a file. Reads its index, not its cells.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found < HEADER_BYTES as u64 {
            return Err(OpenError::Header(path.to_owned()));
        }
        let map = map::map(&file).map_err(io)?;
        let header = Header::from_bytes(&map);
        let header = header.ok_or_else(|| OpenError::Header(path.to_owned()))?;
        let record = RECORD_BYTES as u64;
        let index = header.cells.div_ceil(INDEX_STEP as u64) * KEY_BYTES as u64;
        let lengths =
            [header.cells * record, index, header.areas * record, header.networks * record];
        let mut end = HEADER_BYTES as u64;
        let mut parts = [HEADER_BYTES; 5];
        for (part, length) in parts.iter_mut().skip(1).zip(lengths) {
            end += length;
            *part = usize::try_from(end).unwrap_or(usize::MAX);
        }
        if end != found {
            return Err(OpenError::Length { path: path.to_owned(), found, expected: end });
        }
        if map.get(parts[1]..).map(xxh3_64) != Some(header.tail_hash) {
            return Err(OpenError::Damaged(path.to_owned()));
        }
        let keys = map.get(parts[1]..parts[2]).unwrap_or_default().as_chunks().0;
        let index = keys.iter().map(Key::from_bytes).collect();
        Ok(Self(Arc::new(Mapped { map, header, parts, index })))
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

    fn cells(&self) -> &[[u8; RECORD_BYTES]] {
        self.part(0).as_chunks().0
    }

    pub(crate) fn areas(&self) -> Records<'_> {
        Records(self.part(2).as_chunks().0)
    }

    pub(crate) fn networks(&self) -> Records<'_> {
        Records(self.part(3).as_chunks().0)
    }

    pub(crate) fn record(&self, place: usize) -> Option<Record> {
        self.cells().get(place).map(Record::from_bytes)
    }

    /// A cell.
    pub(crate) fn find(&self, key: Key) -> Option<Record> {
        let page = self.page(key)?;
        Records(page).find(key)
    }

    /// The cells of a range of keys, in order, from their page on.
    pub(crate) fn from(&self, key: Key) -> impl Iterator<Item = Record> {
        let first = self.page_number(key).unwrap_or(0) * INDEX_STEP;
        let cells = self.cells().get(first..).unwrap_or_default();
        cells.iter().map(Record::from_bytes).skip_while(move |record| record.key < key)
    }

    fn page_number(&self, key: Key) -> Option<usize> {
        self.0.index.partition_point(|first| *first <= key).checked_sub(1)
    }

    fn page(&self, key: Key) -> Option<&[[u8; RECORD_BYTES]]> {
        let first = self.page_number(key)? * INDEX_STEP;
        let cells = self.cells();
        cells.get(first..(first + INDEX_STEP).min(cells.len()))
    }
}

/// Records in order.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a>(&'a [[u8; RECORD_BYTES]]);

impl<'a> Records<'a> {
    pub(crate) fn find(self, key: Key) -> Option<Record> {
        let found = self.0.binary_search_by_key(&key, Record::key_of);
        self.0.get(found.ok()?).map(Record::from_bytes)
    }

    /// Those from one key up to another.
    pub(crate) fn between(self, from: Key, to: Key) -> impl Iterator<Item = Record> + 'a {
        let place = |key| self.0.partition_point(|record| Record::key_of(record) < key);
        let (from, to) = (place(from), place(to));
        self.0.get(from..to).unwrap_or_default().iter().map(Record::from_bytes)
    }
}
