//! From sorted pieces to the file of a database.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use vocabulary::Coordinates;

use crate::database::{CellDatabase, Header};
use crate::globe;
use crate::key::Key;
use crate::record::{Area, RECORD_BYTES, Record};
use crate::runs::RunReader;
use crate::slots;

/// Cells of an area whose places are kept to find its extent; more do not make it better.
const PLACES_MAX: usize = 100_000;

/// Records in the order of their keys.
pub(crate) enum Sorted<'a> {
    Run(RunReader),
    Database(Areas<'a>),
}

/// The cells of a database, area by area.
pub(crate) struct Areas<'a> {
    database: &'a CellDatabase,
    next: usize,
    /// The cells of the area at hand, the next one last.
    cells: Vec<Record>,
}

impl<'a> Areas<'a> {
    pub(crate) fn of(database: &'a CellDatabase) -> Self {
        Self { database, next: 0, cells: Vec::new() }
    }

    fn next(&mut self) -> Option<Record> {
        while self.cells.is_empty() {
            let area = Area::from_bytes(self.database.areas().row(self.next)?);
            self.next += 1;
            self.cells.extend(self.database.cells_of(&area));
            self.cells.sort_unstable_by_key(|record| Reverse(record.key));
        }
        self.cells.pop()
    }
}

impl Sorted<'_> {
    fn next(&mut self) -> io::Result<Option<Record>> {
        match self {
            Self::Run(run) => run.next(),
            Self::Database(areas) => Ok(areas.next()),
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

type Head = Reverse<(Key, u16, usize, [u8; RECORD_BYTES])>;

fn push(heads: &mut BinaryHeap<Head>, place: usize, record: Option<Record>) {
    if let Some(record) = record {
        heads.push(Reverse((record.key, record.week(), place, record.to_bytes())));
    }
}

/// Writes a database from records in order. The cells of one area are in memory at a time.
struct Writer {
    file: BufWriter<File>,
    cells: u64,
    slots: u64,
    areas: Vec<Area>,
    networks: Vec<Record>,
    /// The cells of the area at hand.
    area: Vec<Record>,
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
    fn close(self) -> Option<Record> {
        let (any, _) = *self.places.first()?;
        // Places all around the globe have no middle; any of them is as good then.
        let middle = globe::middle(self.places.iter().copied()).unwrap_or(any);
        let mut distances: Vec<f64> =
            self.places.iter().map(|(place, _)| globe::distance_m(*place, middle)).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let most = distances.get(distances.len() * 68 / 100).or(distances.last())?;
        let range = most + self.ranges_m / self.places.len() as f64;
        Some(Record::new(self.key, middle, range as u32))
    }
}

impl Writer {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&Header::default().to_bytes())?;
        Ok(Self {
            file,
            cells: 0,
            slots: 0,
            areas: Vec::new(),
            networks: Vec::new(),
            area: Vec::new(),
            network: None,
        })
    }

    fn add(&mut self, record: Record) -> io::Result<()> {
        if self.area.first().is_some_and(|first| first.key.area() != record.key.area()) {
            self.close_area()?;
        }
        self.area.push(record);
        Ok(())
    }

    fn close_area(&mut self) -> io::Result<()> {
        let Some(first) = self.area.first() else { return Ok(()) };
        let mut group = Group::new(first.key.area_start());
        self.area.iter().for_each(|record| group.add(record, 1.0));
        // One whose cells have no place on the globe has none itself, but they can be found.
        let middle = group.close().unwrap_or(first.with_key(first.key.area_start()));
        let too_many = || io::Error::other("more than 2^32 places for cells");
        let cells = u32::try_from(self.area.len()).map_err(|_| too_many())?;
        let place = u32::try_from(self.slots).map_err(|_| too_many())?;
        self.areas.push(Area { record: middle, first: place, cells });
        self.add_to_network(&middle);
        let slots = slots::lay_out(&mut self.area);
        self.area.clear();
        self.cells += u64::from(cells);
        self.slots += slots.len() as u64;
        self.file.write_all(slots.as_flattened())
    }

    fn add_to_network(&mut self, area: &Record) {
        let network = area.key.network_start();
        if self.network.as_ref().is_none_or(|group| group.key != network) {
            self.close_network();
            self.network = Some(Group::new(network));
        }
        let cells = self.area.len().min(PLACES_MAX) as f64;
        if let Some(group) = &mut self.network {
            group.add(area, cells);
        }
    }

    fn close_network(&mut self) {
        self.networks.extend(self.network.take().and_then(Group::close));
    }

    fn finish(mut self) -> io::Result<u64> {
        self.close_area()?;
        self.close_network();
        let areas = self.areas.iter().flat_map(|area| area.to_bytes());
        let networks = self.networks.iter().flat_map(|network| network.to_bytes());
        let tail: Vec<u8> = areas.chain(networks).collect();
        self.file.write_all(&tail)?;
        let rows = [self.areas.len(), self.networks.len()];
        let header = Header::new([self.cells, self.slots], rows, &tail);
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.to_bytes())?;
        file.sync_all()?;
        // The kernel has it in small pages now; whoever maps it wants large ones (see `map`).
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(self.cells)
    }
}
