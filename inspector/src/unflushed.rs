//! What the reader knows and the state file does not yet: the last message of each device, and
//! amounts per hour.
//!
//! Bounded: the reader writes it to the state file when [`Unflushed::is_full`].

use std::collections::{BTreeMap, HashMap};

use vocabulary::{EventId, Iccid, Protocol, Timestamp};

/// At this many entries the map is written before its time. A transaction of that size holds the
/// state file's write lock for about a second, a fifth of what other writers wait; a smaller one
/// would rewrite nearly as many pages of a fleet of a million, and more often.
const ENTRIES_MAX: usize = 262_144;

/// At this many bytes the map is written before its time: with the copy that is being written it
/// stays below the memory that a gateway of a million SIMs needs for them.
const BYTES_MAX: usize = 48 << 20;

/// What one entry takes besides its body: key, value and the map's free places (estimate).
const ENTRY_BYTES: usize = 128;

/// Microseconds of an hour.
pub(crate) const HOUR_MICROS: i64 = 3_600_000_000;

/// A device and a protocol that it speaks.
pub(crate) type Key = (Iccid, Protocol);

/// A message, as it is kept as the last one of its device and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastMessage {
    pub(crate) id: EventId,
    pub(crate) received_at: Timestamp,
    /// The body of its record.
    pub(crate) body: Vec<u8>,
}

/// Changes since the last flush.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unflushed {
    pub(crate) last: HashMap<Key, LastMessage>,
    /// Messages by hour (hours since 1970) and protocol.
    pub(crate) amounts: BTreeMap<(i64, Protocol), u64>,
    bytes: usize,
}

impl Unflushed {
    /// Counts a message.
    pub(crate) fn count(&mut self, received_at: Timestamp, protocol: Protocol) {
        let hour = received_at.as_micros().div_euclid(HOUR_MICROS);
        *self.amounts.entry((hour, protocol)).or_default() += 1;
    }

    /// Makes `message` the last one of its device and protocol.
    pub(crate) fn remember(&mut self, key: Key, message: LastMessage) {
        self.bytes += message.body.len() + ENTRY_BYTES;
        if let Some(replaced) = self.last.insert(key, message) {
            self.bytes -= replaced.body.len() + ENTRY_BYTES;
        }
    }

    /// Whether it must be written before more is remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.last.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        (Iccid::from_u64(number).unwrap(), Protocol::Udp)
    }

    fn message(millis: i64, body: &[u8]) -> LastMessage {
        LastMessage {
            id: EventId::from_bytes([1; 16]),
            received_at: Timestamp::from_millis(millis),
            body: body.to_vec(),
        }
    }

    #[test]
    fn a_newer_message_replaces_the_older_and_both_count() {
        let mut changes = Unflushed::default();
        for (millis, body) in [(1, b"old"), (2, b"new")] {
            changes.remember(key(1), message(millis, body));
            changes.count(Timestamp::from_millis(millis), Protocol::Udp);
        }
        assert_eq!(changes.last[&key(1)].body, b"new");
        assert_eq!(changes.amounts[&(0, Protocol::Udp)], 2);
        assert_eq!(changes.bytes, 3 + ENTRY_BYTES);
    }

    #[test]
    fn it_is_full_by_entries_and_by_bytes() {
        let mut many = Unflushed::default();
        for number in 0..ENTRIES_MAX as u64 {
            assert!(!many.is_full());
            many.remember(key(number), message(0, b""));
        }
        assert!(many.is_full());
        let mut large = Unflushed::default();
        large.remember(key(1), message(0, &vec![0; BYTES_MAX]));
        assert!(large.is_full());
        large.remember(key(1), message(0, b""));
        assert!(!large.is_full());
    }
}
