//! Answers to readers: forward by cursor, newest first, by id.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use vocabulary::EventId;

use crate::catalog::{Catalog, ReadFault, Segments};
use crate::chain::{BLOCK_RECORDS, Bounds, Chain, RareWanted, Span};
use crate::error::ReadError;
use crate::row::{self, Header};
use crate::scan::{self, Direction, Row};
use crate::sealed::{self, Summary};
use crate::segment::{self, Index, SELECT_ROW, Segment};
use crate::types::{Batch, DeviceKey, KindSet, Offset, Query, ReadLimits, Record};

/// Records that one read returns at most, whatever it asks for.
pub(crate) const RECORDS_MAX: usize = 10_000;
/// Bytes of bodies that a page of newest records holds at most, beside its first record.
const PAGE_BYTES: usize = 16 << 20;
/// A forward read ends after this time with what it found: it says where to go on.
const FORWARD_TIME: Duration = Duration::from_secs(1);
/// A question must be answered within this time: a longer one would hold up the checkpoint of the
/// write-ahead file. An estimate.
const QUESTION_TIME: Duration = Duration::from_secs(5);
/// Places taken from an index at once: enough for a page, short enough for the writer, who waits
/// for the lock of a live index.
const PLACES: usize = 256;
/// The clock is looked at once in so many rows.
const ROWS_PER_LOOK: u32 = 256;

/// Records from `from` on, in order.
pub(crate) fn forward(
    catalog: &Catalog,
    from: Offset,
    kinds: KindSet,
    limits: ReadLimits,
) -> Result<Batch, ReadError> {
    // The end first: everything before it lies in the list that is taken afterwards.
    let end = catalog.end();
    let segments = catalog.segments();
    check_not_overtaken(&segments, from, end)?;
    let mut page = Page::new(limits.records, limits.bytes, FORWARD_TIME);
    let mut next = from.as_u64().min(end);
    while next < end && !page.is_full() {
        let Some(index) = segment_of(&segments, next) else { break };
        let segment = &segments[index];
        let following = segments.get(index + 1).map_or(end, |segment| segment.first.min(end));
        let records_end = (segment.first + u64::from(segment.records())).min(following);
        if next >= records_end {
            next = following;
            continue;
        }
        let range = next..records_end;
        let read = catalog.with_connection(segment, |connection| {
            let place = Place { catalog, segment, connection };
            if kinds.is_rare_only() {
                place.rare_forward(range, &kinds, &mut page)
            } else {
                place.all_forward(range, &kinds, &mut page)
            }
        });
        next = match read {
            Ok(next) => next,
            Err(fault) => {
                give_up_segment(catalog, segment, fault)?;
                following
            }
        };
    }
    Ok(Batch { records: page.records, next: Offset::from_u64(next) })
}

/// The newest records that `query` asks for.
pub(crate) fn newest(catalog: &Catalog, query: &Query) -> Result<Vec<Record>, ReadError> {
    let end = catalog.end();
    let segments = catalog.segments();
    if let Some(before) = query.before {
        check_not_overtaken(&segments, before, end)?;
    }
    let before = query.before.map_or(end, |before| before.as_u64().min(end));
    let question = Question { query, span: Span::new(query.from, query.until) };
    let mut page = Page::new(query.limit, PAGE_BYTES, QUESTION_TIME);
    for segment in segments.iter().rev() {
        if page.is_full() {
            break;
        }
        let records_end = (segment.first + u64::from(segment.records())).min(before);
        if segment.first >= records_end || !question.span.meets(&segment.bounds()) {
            continue;
        }
        let places = place_in(segment, records_end);
        let read = catalog.with_connection(segment, |connection| {
            Place { catalog, segment, connection }.newest(places, &question, &mut page)
        });
        if let Err(fault) = read {
            give_up_segment(catalog, segment, fault)?;
        }
        page.check_time(QUESTION_TIME)?;
    }
    Ok(page.records)
}

/// The record with this id.
pub(crate) fn find(catalog: &Catalog, id: EventId) -> Result<Option<Record>, ReadError> {
    let end = catalog.end();
    let segments = catalog.segments();
    let holds = |segment: &Arc<Segment>| segment.first_id().is_some_and(|first| first <= id);
    let Some(segment) = segments[..segments.partition_point(holds)].last() else {
        return Ok(None);
    };
    let range = segment.first..(segment.first + u64::from(segment.records())).min(end);
    let found = catalog.with_connection(segment, |connection| {
        Place { catalog, segment, connection }.find(range, id)
    });
    match found {
        Ok(record) => Ok(record),
        Err(fault) => give_up_segment(catalog, segment, fault).map(|()| None),
    }
}

fn check_not_overtaken(segments: &Segments, from: Offset, end: u64) -> Result<(), ReadError> {
    let oldest = Offset::from_u64(segments.first().map_or(end, |segment| segment.first));
    if from < oldest { Err(ReadError::Overtaken { oldest }) } else { Ok(()) }
}

fn segment_of(segments: &Segments, offset: u64) -> Option<usize> {
    segments.partition_point(|segment| segment.first <= offset).checked_sub(1)
}

/// A segment never holds more than 32 bits of records.
fn place_in(segment: &Segment, offset: u64) -> u32 {
    u32::try_from(offset.saturating_sub(segment.first)).unwrap_or(u32::MAX)
}

/// What to do about a segment that cannot be read: damage is counted and passed over.
fn give_up_segment(
    catalog: &Catalog,
    segment: &Segment,
    fault: ReadFault,
) -> Result<(), ReadError> {
    match fault {
        ReadFault::Damaged => {
            catalog.report_damaged_segment(segment);
            Ok(())
        }
        // Retention unlinked it after this read took its list.
        ReadFault::Unopened(_) if !catalog.lists(&segment.path) => {
            Err(ReadError::Overtaken { oldest: catalog.oldest() })
        }
        ReadFault::Unopened(reason) => Err(ReadError::Storage(reason)),
        ReadFault::Failed(error) => Err(error),
    }
}

/// What a read has found so far, and how much more it may.
struct Page {
    records: Vec<Record>,
    records_max: usize,
    bytes_left: usize,
    is_full: bool,
    deadline: Instant,
    rows: u32,
}

impl Page {
    fn new(records: usize, bytes: usize, time: Duration) -> Self {
        Self {
            records: Vec::new(),
            records_max: records.min(RECORDS_MAX),
            bytes_left: bytes,
            is_full: records == 0,
            deadline: Instant::now() + time,
            rows: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.is_full
    }

    /// Takes a record unless it does not fit any more.
    fn take(&mut self, offset: u64, header: Header, body: &[u8]) -> ControlFlow<()> {
        if body.len() > self.bytes_left && !self.records.is_empty() {
            self.is_full = true;
            return ControlFlow::Break(());
        }
        self.bytes_left = self.bytes_left.saturating_sub(body.len());
        self.records.push(row::record(offset, header, body));
        self.is_full = self.records.len() >= self.records_max;
        ControlFlow::Continue(())
    }

    fn is_late(&mut self) -> bool {
        self.rows += 1;
        if self.rows >= ROWS_PER_LOOK {
            self.rows = 0;
            self.is_full |= Instant::now() >= self.deadline;
        }
        self.is_full
    }

    fn check_time(&self, limit: Duration) -> Result<(), ReadError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Err(ReadError::TimedOut { limit_ms })
    }
}

/// A question for the newest records, with its times as a span.
struct Question<'a> {
    query: &'a Query,
    span: Span,
}

impl Question<'_> {
    fn wants(&self, header: &Header) -> bool {
        self.query.kinds.contains(header.kind)
            && self.span.contains(header.received_at)
            && self.query.device.is_none_or(|device| device == header.device)
    }
}

/// One segment during one read.
struct Place<'a> {
    catalog: &'a Catalog,
    segment: &'a Segment,
    connection: &'a Connection,
}

impl Place<'_> {
    /// Reads wanted records of `range`; returns where to go on.
    fn all_forward(
        &self,
        range: Range<u64>,
        kinds: &KindSet,
        page: &mut Page,
    ) -> Result<u64, ReadFault> {
        let mut next = range.start;
        scan::scan(self.connection, range, Direction::Rising, &mut |offset, row| {
            if let Some((header, body)) = self.sound(offset, row)
                && kinds.contains(header.kind)
                && page.take(offset, header, body).is_break()
            {
                return ControlFlow::Break(());
            }
            next = offset + 1;
            if page.is_late() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(next)
    }

    fn rare_forward(
        &self,
        range: Range<u64>,
        kinds: &KindSet,
        page: &mut Page,
    ) -> Result<u64, ReadFault> {
        let mut look_up = self.connection.prepare(SELECT_ROW)?;
        let mut next = range.start;
        loop {
            let places = place_in(self.segment, next)..place_in(self.segment, range.end);
            let places = self.with_index(
                |chain| chain.rare_within(kinds, places.clone(), PLACES),
                |summary| self.rare_within(summary, &places, kinds),
            )?;
            if places.is_empty() {
                return Ok(range.end);
            }
            for place in places {
                let offset = self.segment.first + u64::from(place);
                let flow = scan::with_row(&mut look_up, offset, |row| {
                    self.sound(offset, row).map_or(ControlFlow::Continue(()), |(header, body)| {
                        page.take(offset, header, body)
                    })
                })?;
                if flow.is_break() {
                    return Ok(offset);
                }
                next = offset + 1;
                if page.is_late() {
                    return Ok(next);
                }
            }
        }
    }

    fn newest(
        &self,
        before: u32,
        question: &Question<'_>,
        page: &mut Page,
    ) -> Result<(), ReadFault> {
        let Question { query, span } = question;
        if query.kinds.is_rare_only() {
            let wanted = RareWanted { kinds: query.kinds, device: query.device };
            return self.newest_places(before, question, page, &|before, limit| {
                self.with_index(
                    |chain| chain.rare_before(&wanted, before, limit),
                    |summary| self.rare_before(summary, &wanted, before, limit),
                )
            });
        }
        match query.device {
            // Records about no device have no chain.
            Some(device) if !device.is_none() => {
                self.newest_places(before, question, page, &|before, limit| {
                    self.with_index(
                        |chain| chain.device_before(device, before, span, limit),
                        |summary| self.device_before(summary, device, before, (span, limit)),
                    )
                })
            }
            _ => self.newest_of_all(before, question, page),
        }
    }

    /// Looks up the records at the places that an index names.
    fn newest_places(
        &self,
        mut before: u32,
        question: &Question<'_>,
        page: &mut Page,
        places: &dyn Fn(u32, usize) -> Result<Vec<u32>, ReadFault>,
    ) -> Result<(), ReadFault> {
        let mut look_up = self.connection.prepare(SELECT_ROW)?;
        let is_plain = question.query.kinds == KindSet::ALL && question.query.from.is_none();
        while !page.is_full() {
            let missing = page.records_max - page.records.len();
            let limit = if is_plain { missing.min(PLACES) } else { PLACES };
            let found = places(before, limit)?;
            let Some(lowest) = found.last() else { return Ok(()) };
            before = *lowest;
            for place in found {
                let offset = self.segment.first + u64::from(place);
                let flow = scan::with_row(&mut look_up, offset, |row| {
                    self.take_wanted(offset, row, question, page)
                })?;
                if flow.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads backward, block by block, past those that hold no wanted time.
    fn newest_of_all(
        &self,
        before: u32,
        question: &Question<'_>,
        page: &mut Page,
    ) -> Result<(), ReadFault> {
        let blocks = self.blocks()?;
        let mut end = before;
        while end > 0 && !page.is_full() {
            let start = (end - 1) / BLOCK_RECORDS * BLOCK_RECORDS;
            if question.span.meets_block_of(&blocks, start) {
                let offset = |place| self.segment.first + u64::from(place);
                let range = offset(start)..offset(end);
                scan::scan(self.connection, range, Direction::Falling, &mut |offset, row| {
                    self.take_wanted(offset, row, question, page)
                })?;
            }
            end = start;
        }
        Ok(())
    }

    fn take_wanted(
        &self,
        offset: u64,
        row: Row<'_>,
        question: &Question<'_>,
        page: &mut Page,
    ) -> ControlFlow<()> {
        if let Some((header, body)) = self.sound(offset, row)
            && question.wants(&header)
            && page.take(offset, header, body).is_break()
        {
            return ControlFlow::Break(());
        }
        if page.is_late() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Binary search: ids rise with offsets. A damaged row is stepped over.
    fn find(&self, range: Range<u64>, id: EventId) -> Result<Option<Record>, ReadFault> {
        let mut look_up = self.connection.prepare(SELECT_ROW)?;
        let Range { start: mut low, end: mut high } = range;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut probe = middle;
            let mut found = None;
            while probe < high && found.is_none() {
                found = scan::with_row(&mut look_up, probe, |row| {
                    self.sound(probe, row).map(|(header, body)| row::record(probe, header, body))
                })?;
                probe += 1;
            }
            match found {
                Some(record) if record.id == id => return Ok(Some(record)),
                Some(record) if record.id < id => low = probe,
                _ => high = middle,
            }
        }
        Ok(None)
    }

    /// Counts a damaged row.
    fn sound<'r>(&self, offset: u64, row: Row<'r>) -> Row<'r> {
        if row.is_none() {
            self.catalog.report_damaged(self.segment, offset);
        }
        row
    }

    fn blocks(&self) -> Result<Vec<Bounds>, ReadFault> {
        self.with_index(|chain| chain.blocks().to_vec(), |summary| Ok(Some(summary.blocks.clone())))
    }

    /// Asks the index in memory, or the one on disk. If that is damaged, an index is made in
    /// memory from the records.
    fn with_index<T>(
        &self,
        in_memory: impl Fn(&Chain) -> T,
        on_disk: impl FnOnce(&Summary) -> rusqlite::Result<Option<T>>,
    ) -> Result<T, ReadFault> {
        let known = match &*self.segment.index() {
            Index::Chain(chain) => return Ok(in_memory(chain)),
            Index::OnDisk(summary) => summary.clone(),
        };
        let summary = match known {
            Some(summary) => Some(summary),
            None => self.load_summary()?,
        };
        if let Some(summary) = summary {
            match on_disk(&summary) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) if segment::is_damage(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tracing::warn!(segment = self.segment.number, "damaged index made again in memory");
        let end = self.segment.first + u64::from(self.segment.records());
        let (chain, _) = scan::index(self.connection, self.segment.first..end)?;
        let answer = in_memory(&chain);
        *self.segment.index_mut() = Index::Chain(chain);
        Ok(answer)
    }

    fn load_summary(&self) -> Result<Option<Arc<Summary>>, ReadFault> {
        let bytes = match segment::chunk(self.connection, sealed::SUMMARY) {
            Ok(bytes) => bytes,
            Err(error) if segment::is_damage(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let summary = bytes.and_then(|bytes| Summary::decode(&bytes)).map(Arc::new);
        if let Some(summary) = &summary {
            *self.segment.index_mut() = Index::OnDisk(Some(Arc::clone(summary)));
        }
        Ok(summary)
    }

    fn device_before(
        &self,
        summary: &Summary,
        device: DeviceKey,
        before: u32,
        (span, limit): (&Span, usize),
    ) -> rusqlite::Result<Option<Vec<u32>>> {
        let (mut found, mut places) = (Vec::new(), Vec::new());
        for number in summary.device_chunks(device.as_u64(), before).rev() {
            let Some(chunk) = segment::chunk(self.connection, number)? else { return Ok(None) };
            places.clear();
            let read = sealed::device_places(number, &chunk, device.as_u64(), &mut places);
            if read.is_none() {
                return Ok(None);
            }
            let wanted =
                places.iter().rev().copied().filter(|place| {
                    *place < before && span.meets_block_of(&summary.blocks, *place)
                });
            found.extend(wanted.take(limit - found.len()));
            if found.len() >= limit {
                break;
            }
        }
        Ok(Some(found))
    }

    fn rare_within(
        &self,
        summary: &Summary,
        places: &Range<u32>,
        kinds: &KindSet,
    ) -> rusqlite::Result<Option<Vec<u32>>> {
        let wanted = RareWanted { kinds: *kinds, device: None };
        let mut found = Vec::new();
        for number in summary.rare_chunks(places) {
            let Some(chunk) = segment::chunk(self.connection, number)? else { return Ok(None) };
            let Some(rare) = sealed::rare_records(number, &chunk) else { return Ok(None) };
            let within = rare.iter().filter(|rare| places.contains(&rare.place));
            found.extend(within.filter(|rare| wanted.matches(rare)).map(|rare| rare.place));
            if found.len() >= PLACES {
                break;
            }
        }
        Ok(Some(found))
    }

    fn rare_before(
        &self,
        summary: &Summary,
        wanted: &RareWanted,
        before: u32,
        limit: usize,
    ) -> rusqlite::Result<Option<Vec<u32>>> {
        let mut found = Vec::new();
        for number in summary.rare_chunks(&(0..before)).rev() {
            let Some(chunk) = segment::chunk(self.connection, number)? else { return Ok(None) };
            let Some(rare) = sealed::rare_records(number, &chunk) else { return Ok(None) };
            let below = rare.iter().rev().filter(|rare| rare.place < before);
            let places = below.filter(|rare| wanted.matches(rare)).map(|rare| rare.place);
            found.extend(places.take(limit - found.len()));
            if found.len() >= limit {
                break;
            }
        }
        Ok(Some(found))
    }
}
