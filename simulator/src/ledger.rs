//! What the devices remember of a run: each message sent, and whether it was acknowledged.
//!
//! A test compares it with the store after crashes: what was acknowledged must be there, what is
//! there must have been sent. A message is known by the number in its payload
//! ([`crate::Payload::Counter`]).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use vocabulary::Timestamp;

/// Messages that a ledger holds where nothing else is said: 160 MB.
pub const LEDGER_ENTRIES: usize = 10_000_000;

/// In place of a latency: not acknowledged.
const UNACKNOWLEDGED: u32 = u32::MAX;

/// The memory of a run, 16 bytes for each message. A run ends when its ledger is full.
#[derive(Debug)]
pub struct Ledger {
    first: u64,
    notes: Vec<Note>,
    limit: usize,
    acknowledged: u64,
    file: Option<BufWriter<File>>,
    failure: Option<io::Error>,
}

/// One message of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The number in its payload.
    pub number: u64,
    /// The device, as an index into the fleet.
    pub device: u32,
    /// When it was first sent.
    pub sent_at: Timestamp,
    /// When its acknowledgement with a success code (2.xx) arrived.
    pub acknowledged_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Note {
    sent_at: Timestamp,
    device: u32,
    /// Microseconds from sending to acknowledgement, up to 71 minutes.
    latency_us: u32,
}

impl Ledger {
    /// An empty ledger for at most `limit` messages.
    pub fn new(limit: usize) -> Self {
        Self { first: 0, notes: Vec::new(), limit, acknowledged: 0, file: None, failure: None }
    }

    /// Also writes a line of CSV for each acknowledged message when its acknowledgement arrives,
    /// and at the end of the run one for each other message: number, device, and the times of
    /// sending and acknowledgement in microseconds since 1970 (empty: not acknowledged).
    ///
    /// # Errors
    /// Where the file cannot be created.
    pub fn write_to(mut self, path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"number,device,sent_at_us,acknowledged_at_us\n")?;
        self.file = Some(file);
        Ok(self)
    }

    /// How many messages were sent.
    pub fn sent(&self) -> u64 {
        self.notes.len() as u64
    }

    /// How many messages were acknowledged.
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The message with this number, if it was sent.
    pub fn find(&self, number: u64) -> Option<LedgerEntry> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.notes.get(index).map(|note| entry(number, *note))
    }

    /// All messages in the order of sending.
    pub fn entries(&self) -> impl Iterator<Item = LedgerEntry> {
        (self.first..).zip(&self.notes).map(|(number, note)| entry(number, *note))
    }

    /// The numbers of all acknowledged messages, rising.
    pub fn acknowledged_numbers(&self) -> impl Iterator<Item = u64> {
        self.entries().filter(|entry| entry.acknowledged_at.is_some()).map(|entry| entry.number)
    }

    /// The number that the next message must have; `None` where any will do.
    pub fn next_number(&self) -> Option<u64> {
        (!self.notes.is_empty()).then(|| self.first + self.sent())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.notes.len() >= self.limit
    }

    /// Notes that the next message was sent. Numbers rise by one.
    pub(crate) fn note_sent(&mut self, number: u64, device: u32, sent_at: Timestamp) {
        if self.notes.is_empty() {
            self.first = number;
        }
        self.notes.push(Note { sent_at, device, latency_us: UNACKNOWLEDGED });
    }

    pub(crate) fn note_acknowledged(&mut self, number: u64, at: Timestamp) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(note) = index.and_then(|index| self.notes.get_mut(index)) else { return };
        if note.latency_us != UNACKNOWLEDGED {
            return;
        }
        let latency = at.saturating_since(note.sent_at).as_micros();
        note.latency_us = u32::try_from(latency).unwrap_or(UNACKNOWLEDGED - 1);
        self.acknowledged += 1;
        let line = entry(number, *note);
        self.write(line);
    }

    /// Writes what was not acknowledged, and empties the buffer into the file.
    ///
    /// # Errors
    /// The first failure of a write since the beginning.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            let open: Vec<LedgerEntry> =
                self.entries().filter(|entry| entry.acknowledged_at.is_none()).collect();
            open.into_iter().for_each(|entry| self.write(entry));
        }
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn write(&mut self, entry: LedgerEntry) {
        let Some(file) = &mut self.file else { return };
        let LedgerEntry { number, device, sent_at, acknowledged_at } = entry;
        let sent_at = sent_at.as_micros();
        let result = match acknowledged_at {
            Some(at) => writeln!(file, "{number},{device},{sent_at},{}", at.as_micros()),
            None => writeln!(file, "{number},{device},{sent_at},"),
        };
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LEDGER_ENTRIES)
    }
}

fn entry(number: u64, note: Note) -> LedgerEntry {
    let latency = std::time::Duration::from_micros(note.latency_us.into());
    let acknowledged_at =
        (note.latency_us != UNACKNOWLEDGED).then(|| note.sent_at.saturating_add(latency));
    LedgerEntry { number, device: note.device, sent_at: note.sent_at, acknowledged_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn sent_and_acknowledged_are_told_apart() {
        let mut ledger = Ledger::new(3);
        for number in 7..10 {
            ledger.note_sent(number, 1, at(1_000));
        }
        ledger.note_acknowledged(8, at(1_500));
        ledger.note_acknowledged(8, at(9_000));
        ledger.note_acknowledged(99, at(9_000));
        assert_eq!((ledger.sent(), ledger.acknowledged()), (3, 1));
        assert_eq!(ledger.acknowledged_numbers().collect::<Vec<_>>(), [8]);
        assert_eq!(ledger.find(8).unwrap().acknowledged_at, Some(at(1_500)));
        assert_eq!(ledger.find(9).unwrap().acknowledged_at, None);
        assert_eq!((ledger.find(6), ledger.find(10)), (None, None));
        assert_eq!(ledger.next_number(), Some(10));
        assert!(ledger.is_full());
    }

    #[test]
    fn the_file_holds_each_message_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.csv");
        let mut ledger = Ledger::default().write_to(&path).unwrap();
        ledger.note_sent(1, 5, at(10));
        ledger.note_sent(2, 6, at(20));
        ledger.note_acknowledged(2, at(50));
        ledger.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "number,device,sent_at_us,acknowledged_at_us\n2,6,20,50\n1,5,10,\n");
    }
}
