//! The words of the log: places, keys, kinds, records, questions.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use vocabulary::{EventId, Timestamp};

/// A place in the log. Opaque and ordered; a later record has a higher one.
///
/// `Display` and `FromStr` are for page tokens, [`Offset::as_u64`] for stored cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(u64);

/// The device that a record is about: its ICCID as a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey(u64);

/// What kind of record it is; the log knows no meaning.
///
/// Kinds from [`Kind::FIRST_RARE`] upward are rare: a reader of rare kinds alone does not scan the
/// others. Kinds from [`Kind::FIRST_UNNUMBERED`] upward carry no number within their device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(u8);

/// Which kinds a read wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindSet([u64; 4]);

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Its kind.
    pub kind: Kind,
    /// The device that it is about.
    pub device: DeviceKey,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// Its content.
    pub body: Vec<u8>,
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub offset: Offset,
    /// Its id; ids rise with offsets.
    pub id: EventId,
    /// The device that it is about.
    pub device: DeviceKey,
    /// Its number within its device, from 1 without gaps; 0 for unnumbered kinds and for no device.
    pub device_seq: u64,
    /// Its kind.
    pub kind: Kind,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// Its content.
    pub body: Vec<u8>,
}

/// How much one read returns at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Records; at most 10,000 are ever returned.
    pub records: usize,
    /// Bytes of bodies; the first record is returned although it alone is larger.
    pub bytes: usize,
}

/// What a forward read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The records, in order of their offsets.
    pub records: Vec<Record>,
    /// Where to read on. It passes over records that were not wanted or are damaged, so it moves
    /// although `records` may be empty; equal to where the read began only at the end of the log.
    pub next: Offset,
}

/// A question for the newest records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Only of this device.
    pub device: Option<DeviceKey>,
    /// Only of these kinds.
    pub kinds: KindSet,
    /// Only received at this moment or later.
    pub from: Option<Timestamp>,
    /// Only received before this moment.
    pub until: Option<Timestamp>,
    /// Only at lower places than this: the last place of the page before.
    pub before: Option<Offset>,
    /// Records at most; at most 10,000 are ever returned.
    pub limit: usize,
}

impl Offset {
    /// The place of the first record that a log ever holds.
    pub const BEGINNING: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// As a number, to be kept as a cursor.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// From the number of [`Offset::as_u64`].
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for Offset {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl DeviceKey {
    /// For records about no device.
    pub const NONE: Self = Self(0);

    /// From the number of an ICCID.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number of the ICCID.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether there is no device.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// An ICCID is a personal number: `Debug` shows its last four digits.
impl fmt::Debug for DeviceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeviceKey(..{:04})", self.0 % 10_000)
    }
}

impl Kind {
    /// The lowest kind that is not numbered within its device.
    pub const FIRST_UNNUMBERED: Self = Self(32);
    /// The lowest rare kind.
    pub const FIRST_RARE: Self = Self(64);

    /// From its code.
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// Its code.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether the log numbers such records within their device.
    pub const fn is_numbered(self) -> bool {
        self.0 < Self::FIRST_UNNUMBERED.0
    }

    /// Whether the log keeps an index of such records.
    pub const fn is_rare(self) -> bool {
        self.0 >= Self::FIRST_RARE.0
    }
}

impl KindSet {
    /// Every kind.
    pub const ALL: Self = Self([u64::MAX; 4]);
    /// No kind; to start a set with.
    pub const NONE: Self = Self([0; 4]);

    /// One kind.
    pub const fn only(kind: Kind) -> Self {
        Self::NONE.with(kind)
    }

    /// All rare kinds.
    pub const fn rare() -> Self {
        Self([0, u64::MAX, u64::MAX, u64::MAX])
    }

    /// This set and one kind more.
    #[must_use]
    pub const fn with(mut self, kind: Kind) -> Self {
        self.0[(kind.0 >> 6) as usize] |= 1 << (kind.0 & 63);
        self
    }

    /// Whether it holds `kind`.
    pub const fn contains(&self, kind: Kind) -> bool {
        self.0[(kind.0 >> 6) as usize] >> (kind.0 & 63) & 1 == 1
    }

    /// Whether it holds rare kinds alone, so that the index of rare records answers.
    pub const fn is_rare_only(&self) -> bool {
        self.0[0] == 0
    }
}

impl Default for ReadLimits {
    /// 1,000 records, 4 MiB: a bound for the memory of one reader (estimate).
    fn default() -> Self {
        Self { records: 1_000, bytes: 4 << 20 }
    }
}

impl Default for Query {
    /// The newest 25 of everything, the page size of the management API.
    fn default() -> Self {
        Self { device: None, kinds: KindSet::ALL, from: None, until: None, before: None, limit: 25 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_kinds_hold_what_was_put_in() {
        let set = KindSet::only(Kind::new(1)).with(Kind::new(200));
        assert!(set.contains(Kind::new(1)) && set.contains(Kind::new(200)));
        assert!(!set.contains(Kind::new(2)) && !set.is_rare_only());
        assert!(KindSet::rare().is_rare_only() && KindSet::rare().contains(Kind::FIRST_RARE));
        assert!(!KindSet::rare().contains(Kind::new(63)));
    }

    #[test]
    fn an_offset_survives_a_page_token() {
        let offset = Offset::BEGINNING.next().next();
        assert_eq!(offset.to_string().parse(), Ok(offset));
        assert!("-1".parse::<Offset>().is_err());
    }

    #[test]
    fn debug_hides_the_device() {
        let key = DeviceKey::from_u64(8_988_280_666_000_002_864);
        assert_eq!(format!("{key:?}"), "DeviceKey(..2864)");
    }
}
