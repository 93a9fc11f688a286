//! The file of a cell database.
//!
//! A header of 64 bytes; the cells, sorted by key, 23 bytes each; the key of every 32nd cell; the
//! areas and the networks as cells of their own. All numbers of the header are little-endian.
//!
//! A look-up is waiting for memory, so it goes there as rarely as it can: to a hash table for where
//! the area lies, to the few keys of the index that are the area's, and to the page between two of
//! them, whose cache lines are asked for all at once.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use memmap2::Mmap;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::key::{Area, KEY_BYTES, Key};
use crate::map;
use crate::record::{RECORD_BYTES, Record};

/// What the files of all releases begin with.
const NAME: &[u8] = b"SGCELLS";
const MAGIC: [u8; 8] = *b"SGCELLS1";
const HEADER_BYTES: usize = 64;
/// Cells per key of the index: with more, a look-up waits for more cache lines; with fewer, the
/// index takes more than the 24 bytes that a cell may take in all.
pub(crate) const INDEX_STEP: usize = 32;

/// Keys that are looked at one after the other; of more the half is left out at each step.
const SCANNED_MAX: usize = 32;

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
    /// Another file.
    #[error("{0} is no cell database; another name is needed, or that file is to be removed")]
    Other(PathBuf),
    /// Of another release, or with a header that was changed.
    #[error("cell database {0} is of another release, or damaged; import it again")]
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

impl OpenError {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the file is a cell database, though not one that can be used.
    pub(crate) fn is_of_a_database(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Length { .. } | Self::Damaged(_))
    }
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
    /// The pages in which each area lies.
    areas: HashMap<Area, Range<u32>>,
}

impl CellDatabase {
    /// Opens a file. Reads its index, not its cells.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found == 0 {
            return Err(OpenError::Other(path.to_owned()));
        }
        let map = map::map(&file).map_err(io)?;
        if !map.starts_with(NAME) {
            return Err(OpenError::Other(path.to_owned()));
        }
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
        let index = map.get(parts[1]..parts[2]).unwrap_or_default().as_chunks().0;
        let records = map.get(parts[2]..parts[3]).unwrap_or_default().as_chunks().0;
        let areas = pages_of_areas(records, index);
        Ok(Self(Arc::new(Mapped { map, header, parts, areas })))
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

    fn index(&self) -> &[[u8; KEY_BYTES]] {
        self.part(1).as_chunks().0
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
        let pages = self.0.areas.get(&key.area())?;
        let (first, end) = (pages.start as usize, pages.end as usize);
        let later = self.index().get(first + 1..end)?;
        let page = first + begun_before(later, key);
        // One after the other: the processor guesses that each is another one, and so asks for all
        // the memory at once. A binary search waits for each step.
        let (page, key) = (self.pages(page..page + 1), key.to_bytes());
        page.iter().find(|record| record.starts_with(&key)).map(Record::from_bytes)
    }

    /// The cells of an area, in order.
    pub(crate) fn of_area(&self, area: Area) -> impl Iterator<Item = Record> {
        let pages =
            self.0.areas.get(&area).map_or(0..0, |pages| pages.start as usize..pages.end as usize);
        let records = self.pages(pages).iter().map(Record::from_bytes);
        records.filter(move |record| record.key.area() == area)
    }

    fn pages(&self, pages: Range<usize>) -> &[[u8; RECORD_BYTES]] {
        let cells = self.cells();
        let end = (pages.end * INDEX_STEP).min(cells.len());
        cells.get(pages.start * INDEX_STEP..end).unwrap_or_default()
    }
}

/// How many of the pages that begin in a key's area begin at it or before.
fn begun_before(index: &[[u8; KEY_BYTES]], key: Key) -> usize {
    let cell = key.cell();
    let is_before = |first: &&[u8; KEY_BYTES]| Key::cell_of(first) <= cell;
    if index.len() > SCANNED_MAX {
        return index.partition_point(|first| is_before(&first));
    }
    index.iter().take_while(is_before).count()
}

/// In which pages each area lies, by the first keys of the pages.
fn pages_of_areas(
    areas: &[[u8; RECORD_BYTES]],
    index: &[[u8; KEY_BYTES]],
) -> HashMap<Area, Range<u32>> {
    let begins = |page: usize| index.get(page).map(Key::from_bytes);
    let (mut pages, mut first) = (HashMap::with_capacity(areas.len()), 0);
    for area in areas.iter().map(Record::key_of) {
        while begins(first + 1).is_some_and(|next| next <= area) {
            first += 1;
        }
        let mut end = first + 1;
        while begins(end).is_some_and(|next| next.area() == area.area()) {
            end += 1;
        }
        let place = |page| u32::try_from(page).unwrap_or(u32::MAX);
        pages.insert(area.area(), place(first)..place(end));
    }
    pages
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
