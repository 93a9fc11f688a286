//! The index of a segment that is still written, in memory: per device a chain of its records.
//!
//! Four bytes per record (the link to the record before of the same device), one map entry per
//! device, one entry per rare record, and the time bounds of each block of records.

use std::ops::Range;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use vocabulary::{EventId, Timestamp};

use crate::row::Header;
use crate::types::{DeviceKey, KindSet};

/// Records per block of time bounds: 16 bytes per block are 16 KB per million records, and a
/// block that does not matter is passed over at once.
pub(crate) const BLOCK_RECORDS: u32 = 1_024;

/// The end of a chain. A segment never holds so many records.
const NO_RECORD: u32 = u32::MAX;

/// The earliest and the latest time of reception in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) earliest: Timestamp,
    pub(crate) latest: Timestamp,
}

/// The span of time that a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

/// A rare record: its place within the segment, its kind and its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rare {
    pub(crate) place: u32,
    pub(crate) kind: u8,
    pub(crate) device: u64,
}

/// The newest record of a device within the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    place: u32,
    /// The number of the newest numbered record, 0 if there is none in the segment.
    pub(crate) seq: u64,
}

/// The index. Places count from the first record of the segment.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    before: Vec<u32>,
    heads: HashMap<u64, Head>,
    rare: Vec<Rare>,
    blocks: Vec<Bounds>,
    pub(crate) first_id: Option<EventId>,
    pub(crate) last_id: Option<EventId>,
}

impl Bounds {
    /// Bounds that hold nothing yet.
    pub(crate) const EMPTY: Self = Self {
        earliest: Timestamp::from_micros(i64::MAX),
        latest: Timestamp::from_micros(i64::MIN),
    };

    pub(crate) fn add(&mut self, time: Timestamp) {
        self.earliest = self.earliest.min(time);
        self.latest = self.latest.max(time);
    }

    pub(crate) fn of(blocks: &[Self]) -> Self {
        blocks.iter().fold(Self::EMPTY, |sum, block| Self {
            earliest: sum.earliest.min(block.earliest),
            latest: sum.latest.max(block.latest),
        })
    }
}

impl Span {
    pub(crate) fn new(from: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self { from: from.unwrap_or(Timestamp::from_micros(i64::MIN)), until }
    }

    pub(crate) fn contains(&self, time: Timestamp) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }

    pub(crate) fn meets(&self, bounds: &Bounds) -> bool {
        bounds.latest >= self.from && self.until.is_none_or(|until| bounds.earliest < until)
    }

    /// Whether the block that holds `place` can hold wanted records.
    pub(crate) fn meets_block_of(&self, blocks: &[Bounds], place: u32) -> bool {
        blocks.get((place / BLOCK_RECORDS) as usize).is_none_or(|bounds| self.meets(bounds))
    }
}

impl Chain {
    /// Records held, damaged ones included.
    pub(crate) fn len(&self) -> u32 {
        // A segment is full long before 32 bits are.
        u32::try_from(self.before.len()).unwrap_or(NO_RECORD)
    }

    /// Adds the next record.
    pub(crate) fn push(&mut self, header: &Header) {
        let place = self.len();
        self.first_id.get_or_insert(header.id);
        self.last_id = Some(header.id);
        self.block().add(header.received_at);
        if header.kind.is_rare() {
            let device = header.device.as_u64();
            self.rare.push(Rare { place, kind: header.kind.code(), device });
        }
        let before = if header.device.is_none() {
            NO_RECORD
        } else {
            match self.heads.entry(header.device.as_u64()) {
                Entry::Occupied(mut entry) => {
                    let head = entry.get_mut();
                    head.seq = head.seq.max(header.device_seq);
                    std::mem::replace(&mut head.place, place)
                }
                Entry::Vacant(entry) => {
                    entry.insert(Head { place, seq: header.device_seq });
                    NO_RECORD
                }
            }
        };
        self.before.push(before);
    }

    /// Leaves the next place out: its record is damaged.
    pub(crate) fn push_damaged(&mut self) {
        self.block();
        self.before.push(NO_RECORD);
    }

    fn block(&mut self) -> &mut Bounds {
        let number = (self.len() / BLOCK_RECORDS) as usize;
        if self.blocks.len() <= number {
            self.blocks.resize(number + 1, Bounds::EMPTY);
        }
        &mut self.blocks[number]
    }

    /// Time bounds of each block.
    pub(crate) fn blocks(&self) -> &[Bounds] {
        &self.blocks
    }

    /// Each device with its newest record.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (u64, Head)> + '_ {
        self.heads.iter().map(|(device, head)| (*device, *head))
    }

    /// All rare records in order.
    pub(crate) fn rare(&self) -> &[Rare] {
        &self.rare
    }

    /// All places of `device`, in rising order.
    pub(crate) fn places_of(&self, device: u64, places: &mut Vec<u32>) {
        places.clear();
        places.extend(self.walk(device));
        places.reverse();
    }

    fn walk(&self, device: u64) -> impl Iterator<Item = u32> + '_ {
        let head = self.heads.get(&device).map(|head| head.place);
        std::iter::successors(head, |place| match self.before[*place as usize] {
            NO_RECORD => None,
            place => Some(place),
        })
    }

    /// At most `limit` places of `device` below `before`, newest first, whose blocks can hold
    /// records of `span`.
    pub(crate) fn device_before(
        &self,
        device: DeviceKey,
        before: u32,
        span: &Span,
        limit: usize,
    ) -> Vec<u32> {
        self.walk(device.as_u64())
            .skip_while(|place| *place >= before)
            .filter(|place| span.meets_block_of(&self.blocks, *place))
            .take(limit)
            .collect()
    }

    /// At most `limit` places of wanted rare records within `places`, in rising order.
    pub(crate) fn rare_within(
        &self,
        kinds: &KindSet,
        places: Range<u32>,
        limit: usize,
    ) -> Vec<u32> {
        let start = self.rare.partition_point(|rare| rare.place < places.start);
        self.rare[start..]
            .iter()
            .take_while(|rare| rare.place < places.end)
            .filter(|rare| kinds.contains(crate::types::Kind::new(rare.kind)))
            .map(|rare| rare.place)
            .take(limit)
            .collect()
    }

    /// At most `limit` places of wanted rare records below `before`, newest first.
    pub(crate) fn rare_before(&self, wanted: &RareWanted, before: u32, limit: usize) -> Vec<u32> {
        let end = self.rare.partition_point(|rare| rare.place < before);
        let found = self.rare[..end].iter().rev().filter(|rare| wanted.matches(rare));
        found.map(|rare| rare.place).take(limit).collect()
    }
}

/// Which rare records a read wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RareWanted {
    pub(crate) kinds: KindSet,
    pub(crate) device: Option<DeviceKey>,
}

impl RareWanted {
    pub(crate) fn matches(&self, rare: &Rare) -> bool {
        self.kinds.contains(crate::types::Kind::new(rare.kind))
            && self.device.is_none_or(|device| device.as_u64() == rare.device)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::types::Kind;

    pub(crate) fn header(device: u64, seq: u64, kind: u8, micros: i64) -> Header {
        Header {
            id: EventId::from_bytes([1; 16]),
            device: DeviceKey::from_u64(device),
            device_seq: seq,
            received_at: Timestamp::from_micros(micros),
            kind: Kind::new(kind),
        }
    }

    #[test]
    fn a_device_s_records_come_newest_first() {
        let mut chain = Chain::default();
        for place in 0..10 {
            chain.push(&header(1 + place % 3, place / 3 + 1, 1, 0));
        }
        let span = Span::new(None, None);
        assert_eq!(chain.device_before(DeviceKey::from_u64(1), 100, &span, 9), [9, 6, 3, 0]);
        assert_eq!(chain.device_before(DeviceKey::from_u64(1), 6, &span, 1), [3]);
        assert_eq!(chain.device_before(DeviceKey::from_u64(9), 6, &span, 1), [0; 0]);
    }

    #[test]
    fn blocks_outside_of_the_span_are_passed_over() {
        let mut chain = Chain::default();
        for place in 0..3 * BLOCK_RECORDS {
            chain.push(&header(1, u64::from(place) + 1, 1, i64::from(place)));
        }
        let early = Span::new(None, Some(Timestamp::from_micros(10)));
        let places = chain.device_before(DeviceKey::from_u64(1), u32::MAX, &early, 5);
        assert_eq!(places[0], BLOCK_RECORDS - 1);
    }

    #[test]
    fn rare_records_are_found_both_ways_and_damaged_places_are_left_out() {
        let mut chain = Chain::default();
        chain.push(&header(1, 1, 1, 0));
        chain.push(&header(1, 0, 64, 0));
        chain.push_damaged();
        chain.push(&header(0, 0, 65, 0));
        assert_eq!(chain.rare_within(&KindSet::rare(), 0..9, 9), [1, 3]);
        assert_eq!(chain.rare_within(&KindSet::only(Kind::new(65)), 0..9, 9), [3]);
        let of_one = RareWanted { kinds: KindSet::ALL, device: Some(DeviceKey::from_u64(1)) };
        assert_eq!(chain.rare_before(&of_one, 9, 9), [1]);
        assert_eq!(chain.len(), 4);
    }
}
