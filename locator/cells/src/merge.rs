//! From sorted pieces to the file of a database.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use vocabulary::Coordinates;

use crate::database::{CellDatabase, Header, INDEX_STEP};
use crate::globe;
use crate::key::Key;
use crate::record::Record;
use crate::runs::RunReader;

/// Cells of an area whose places are kept to find its extent; more do not make it better.
const PLACES_MAX: usize = 100_000;

/// Records in the order of their keys.
pub(crate) enum Sorted<'a> {
    Run(RunReader),
    Database { database: &'a CellDatabase, next: usize },
}

impl Sorted<'_> {
    fn next(&mut self) -> io::Result<Option<Record>> {
        match self {
            Self::Run(run) => run.next(),
            Self::Database { database, next } => {
                let record = database.record(*next);
                *next += 1;
                Ok(record)
            }
        }
    }
}

/// Merges pieces, the newer record of a cell wins, into a new file that takes the place of
/// `target`. Says how many cells it holds.
pub(crate) fn merge(mut inputs: Vec<Sorted<'_>>, target: &Path) -> io::Result<u64> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = target.with_file_name(name);
    let mut writer = Writer::create(&new)?;
    let mut heads = BinaryHeap::new();
    for (place, input) in inputs.iter_mut().enumerate() {
        push(&mut heads, place, input.next()?);
    }
    let mut newest: Option<Record> = None;
    while let Some(Reverse((key, _, place, bytes))) = heads.pop() {
        let record = Record::from_bytes(&bytes);
        let input = inputs.get_mut(place).ok_or_else(|| io::Error::other("an input is gone"))?;
        push(&mut heads, place, input.next()?);
        // Records of one cell come in the order of their weeks, and of their inputs: the last one
        // is the newest.
        if let Some(done) = newest.replace(record).filter(|done| done.key != key) {
            writer.add(done)?;
        }
    }
    if let Some(done) = newest {
        writer.add(done)?;
    }
    let cells = writer.finish()?;
    fs::rename(&new, target)?;
    // The name lasts when its folder does.
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(cells)
}

type Head = Reverse<(Key, u16, usize, [u8; crate::record::RECORD_BYTES])>;

fn push(heads: &mut BinaryHeap<Head>, place: usize, record: Option<Record>) {
    if let Some(record) = record {
        heads.push(Reverse((record.key, record.week(), place, record.to_bytes())));
    }
}

/// Writes a database from records in order.
struct Writer {
    file: BufWriter<File>,
    cells: u64,
    index: Vec<u8>,
    areas: Vec<Record>,
    networks: Vec<Record>,
    /// The places of the area at hand.
    area: Option<Group>,
    /// The middles of the areas of the network at hand.
    network: Option<Group>,
}

/// Places whose middle and extent are looked for.
struct Group {
    key: Key,
    places: Vec<(Coordinates, f64)>,
    ranges_m: f64,
}

impl Group {
    fn new(key: Key) -> Self {
        Self { key, places: Vec::new(), ranges_m: 0.0 }
    }

    fn add(&mut self, record: &Record, weight: f64) {
        if self.places.len() < PLACES_MAX
            && let Some(at) = record.coordinates()
        {
            self.places.push((at, weight));
            self.ranges_m += f64::from(record.range_m());
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "half of the globe is far below 2^32 metres"
    )]
    /// Its middle, and a range within which 68 % of its places lie.
    fn close(self) -> Option<(Record, usize)> {
        // Places round the globe have no middle; the area is there nevertheless.
        let first = self.places.first().map(|(place, _)| *place)?;
        let middle = globe::middle(self.places.iter().copied()).unwrap_or(first);
        let mut distances: Vec<f64> =
            self.places.iter().map(|(place, _)| globe::distance_m(*place, middle)).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let most = distances.get(distances.len() * 68 / 100).or(distances.last())?;
        let range = most + self.ranges_m / self.places.len() as f64;
        Some((Record::new(self.key, middle, range as u32), self.places.len()))
    }
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&Header::default().to_bytes())?;
        Ok(Self {
            file,
            cells: 0,
            index: Vec::new(),
            areas: Vec::new(),
            networks: Vec::new(),
            area: None,
            network: None,
        })
    }

    fn add(&mut self, record: Record) -> io::Result<()> {
        if self.cells.is_multiple_of(INDEX_STEP as u64) {
            self.index.extend_from_slice(&record.key.to_bytes());
        }
        self.cells += 1;
        let area = record.key.area_start();
        if self.area.as_ref().is_none_or(|group| group.key != area) {
            self.close_area();
            self.area = Some(Group::new(area));
        }
        if let Some(group) = &mut self.area {
            group.add(&record, 1.0);
        }
        self.file.write_all(&record.to_bytes())
    }

    fn close_area(&mut self) {
        let Some((record, cells)) = self.area.take().and_then(Group::close) else { return };
        let network = record.key.network_start();
        if self.network.as_ref().is_none_or(|group| group.key != network) {
            self.close_network();
            self.network = Some(Group::new(network));
        }
        if let Some(group) = &mut self.network {
            group.add(&record, cells as f64);
        }
        self.areas.push(record);
    }

    fn close_network(&mut self) {
        let closed = self.network.take().and_then(Group::close);
        self.networks.extend(closed.map(|(record, _)| record));
    }

    fn finish(mut self) -> io::Result<u64> {
        self.close_area();
        self.close_network();
        let mut tail = std::mem::take(&mut self.index);
        for record in self.areas.iter().chain(&self.networks) {
            tail.extend_from_slice(&record.to_bytes());
        }
        self.file.write_all(&tail)?;
        let header = Header::new(self.cells, [self.areas.len(), self.networks.len()], &tail);
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.to_bytes())?;
        file.sync_all()?;
        // The kernel has it in small pages now; whoever maps it wants large ones (see `map`).
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(self.cells)
    }
}
