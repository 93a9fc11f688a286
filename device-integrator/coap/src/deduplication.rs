//! Remembers messages so that a copy is not taken for a new one (RFC 7252 §4.5).
//!
//! Two messages are one if they come from the same peer and agree in every byte: message id,
//! token, options and payload. A device that restarts and uses a message id again with another
//! content has sent a new message. A bodyless answer is kept as its code alone and made anew from
//! the header of the copy.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashTable};

use crate::hashing::{Seeded, fold};
use crate::limits::Limits;
use crate::slab::Slab;
use crate::wire::{Code, MessageId};

/// No place.
const NONE: u32 = u32::MAX;
/// Expiry is kept in sixteenths of a second: 32 bits last for eight years of uptime.
const TICKS_PER_SECOND: u128 = 16;
/// Expired exchanges forgotten per message: keeps up with any arrival rate, at a bounded cost.
const PURGED_PER_MESSAGE: usize = 4;
/// Expired exchanges forgotten per timer: about a millisecond.
const PURGED_PER_TIMER: usize = 8_192;

/// Names a remembered exchange; outlives it harmlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExchangeKey {
    place: u32,
    generation: u32,
}

/// What is known of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// New; remembered from now on.
    New(ExchangeKey),
    /// A copy of a message not yet answered.
    Pending,
    /// A copy of a message that gets no answer.
    Silent,
    /// A copy of a message answered by an empty acknowledgement.
    Acknowledged,
    /// A copy of a message answered by a code alone, with our message id if it was no
    /// acknowledgement.
    Bare(Code, MessageId),
    /// A copy of a message answered by these bytes.
    Answered(&'a [u8]),
}

/// How an exchange was answered.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    /// Not at all, and it stays so.
    Silent,
    /// By an empty acknowledgement.
    Acknowledged,
    /// By a code alone.
    Bare(Code, MessageId),
    /// By a datagram.
    Bytes(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Pending,
    Silent,
    Acknowledged,
    Bare,
    Stored,
    /// Out of the index, waiting for its turn to leave the lists.
    Forgotten,
}

/// One message: 40 bytes.
#[derive(Debug, Clone, Copy)]
struct Record {
    digest: u64,
    peer: u32,
    /// Towards the newest of all.
    newer: u32,
    /// Towards the oldest of all.
    older: u32,
    /// Towards the newest of this peer.
    newer_of_peer: u32,
    generation: u32,
    expires_ticks: u32,
    reply: MessageId,
    code: Code,
    status: Status,
}

#[derive(Debug, Clone, Copy)]
struct PeerRecord<P> {
    address: P,
    oldest: u32,
    newest: u32,
    records: u32,
}

/// Remembers messages of all peers, within limits; the oldest leave first.
#[derive(Debug)]
pub(crate) struct Deduplicator<P> {
    records: Slab<Record>,
    index: HashTable<u32>,
    peers: Slab<PeerRecord<P>>,
    peer_index: HashTable<u32>,
    oldest: u32,
    newest: u32,
    /// Records in the lists, also those out of the index.
    remembered: u32,
    answers: HashMap<u32, Box<[u8]>, Seeded>,
    answer_order: VecDeque<ExchangeKey>,
    answer_bytes: usize,
    hashing: Seeded,
    began: Option<Instant>,
    limits: Limits,
    /// Forgotten before their lifetime because of a limit.
    pub(crate) evicted: u64,
}

impl<P: Copy + Eq + Hash> Deduplicator<P> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        let hashing = Seeded::new(seed);
        Self {
            records: Slab::new(),
            index: HashTable::new(),
            peers: Slab::new(),
            peer_index: HashTable::new(),
            oldest: NONE,
            newest: NONE,
            remembered: 0,
            answers: HashMap::with_hasher(hashing),
            answer_order: VecDeque::new(),
            answer_bytes: 0,
            hashing,
            began: None,
            limits,
            evicted: 0,
        }
    }

    /// Looks a message up by the digest of its bytes, and remembers it if it is new.
    pub(crate) fn see(
        &mut self,
        now: Instant,
        address: P,
        digest: u64,
        lifetime: Duration,
    ) -> Seen<'_> {
        let ticks = self.ticks(now);
        self.purge(ticks, PURGED_PER_MESSAGE);
        let peer = self.find_peer(&address);
        if let Some(peer) = peer
            && let Some(place) = self.find(peer, digest)
        {
            if self.records[place].expires_ticks > ticks {
                return self.seen(place);
            }
            self.forget(place);
        }
        let peer = peer.unwrap_or_else(|| self.add_peer(address));
        // Rounded up, so that an exchange is remembered for its whole lifetime.
        let expires_ticks = self.ticks(now + lifetime).saturating_add(1);
        Seen::New(self.remember(peer, digest, expires_ticks))
    }

    /// Looks a message up without remembering it.
    pub(crate) fn look(&mut self, now: Instant, address: P, digest: u64) -> Option<Seen<'_>> {
        let ticks = self.ticks(now);
        let place = self.find(self.find_peer(&address)?, digest)?;
        (self.records[place].expires_ticks > ticks).then(|| self.seen(place))
    }

    /// Notes how an exchange was answered, for its copies to come.
    pub(crate) fn answer(&mut self, key: ExchangeKey, answer: Answer<'_>) {
        let stored = match answer {
            Answer::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        let Some(record) = self.current(key) else { return };
        (record.status, record.code, record.reply) = match answer {
            Answer::Silent => (Status::Silent, Code::EMPTY, MessageId(0)),
            Answer::Acknowledged => (Status::Acknowledged, Code::EMPTY, MessageId(0)),
            Answer::Bare(code, reply) => (Status::Bare, code, reply),
            Answer::Bytes(_) => (Status::Stored, Code::EMPTY, MessageId(0)),
        };
        if let Some(bytes) = stored {
            self.store(key, bytes);
        }
    }

    /// Forgets an exchange, so that a copy counts as a new message.
    pub(crate) fn abandon(&mut self, key: ExchangeKey) {
        if self.current(key).is_some() {
            self.forget(key.place);
        }
    }

    /// When the next exchange expires, in steps of a second so that timers stay rare.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let began = self.began?;
        if self.oldest == NONE {
            return None;
        }
        let ticks = u64::from(self.records[self.oldest].expires_ticks);
        Some(began + Duration::from_secs(ticks.div_ceil(16)))
    }

    /// Forgets what has expired; at most a batch, the next time-out is due at once then.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let ticks = self.ticks(now);
        self.purge(ticks, PURGED_PER_TIMER);
    }

    /// Exchanges remembered.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory per place, without the allocator's overhead.
    #[cfg(test)]
    const RECORD_BYTES: usize = size_of::<Record>();

    fn ticks(&mut self, now: Instant) -> u32 {
        let began = *self.began.get_or_insert(now);
        let ticks = now.saturating_duration_since(began).as_millis() * TICKS_PER_SECOND / 1_000;
        u32::try_from(ticks).unwrap_or(u32::MAX - 1)
    }

    fn seen(&self, place: u32) -> Seen<'_> {
        let record = &self.records[place];
        match record.status {
            Status::Pending => Seen::Pending,
            Status::Silent | Status::Forgotten => Seen::Silent,
            Status::Acknowledged => Seen::Acknowledged,
            Status::Bare => Seen::Bare(record.code, record.reply),
            Status::Stored => match self.answers.get(&place) {
                Some(bytes) => Seen::Answered(bytes),
                None => Seen::Silent,
            },
        }
    }

    fn current(&mut self, key: ExchangeKey) -> Option<&mut Record> {
        self.records
            .find_mut(key.place)
            .filter(|record| record.generation == key.generation)
            .filter(|record| record.status != Status::Forgotten)
    }

    fn record_hash(peer: u32, digest: u64) -> u64 {
        // The digest is seeded already; an odd factor spreads the peer.
        fold(digest ^ u64::from(peer), 0x9e37_79b9_7f4a_7c15)
    }

    fn find(&self, peer: u32, digest: u64) -> Option<u32> {
        let records = &self.records;
        self.index
            .find(Self::record_hash(peer, digest), |place| {
                let record = &records[*place];
                record.digest == digest && record.peer == peer
            })
            .copied()
    }

    fn find_peer(&self, address: &P) -> Option<u32> {
        let peers = &self.peers;
        self.peer_index
            .find(self.hashing.hash_one(address), |place| peers[*place].address == *address)
            .copied()
    }

    fn add_peer(&mut self, address: P) -> u32 {
        let place =
            self.peers.insert(PeerRecord { address, oldest: NONE, newest: NONE, records: 0 });
        let (peers, hashing) = (&self.peers, self.hashing);
        self.peer_index.insert_unique(hashing.hash_one(address), place, |place| {
            hashing.hash_one(peers[*place].address)
        });
        place
    }

    fn remember(&mut self, peer: u32, digest: u64, expires_ticks: u32) -> ExchangeKey {
        if self.peers[peer].records >= self.limits.exchanges_per_peer_max.max(1) {
            self.evict_oldest_of(peer);
        }
        let record = Record {
            digest,
            peer,
            newer: NONE,
            older: self.newest,
            newer_of_peer: NONE,
            generation: 0,
            expires_ticks,
            reply: MessageId(0),
            code: Code::EMPTY,
            status: Status::Pending,
        };
        let place = self.insert_record(record);
        match self.newest {
            NONE => self.oldest = place,
            newest => self.records[newest].newer = place,
        }
        self.newest = place;
        let peer_record = &mut self.peers[peer];
        peer_record.records += 1;
        let newest_of_peer = std::mem::replace(&mut peer_record.newest, place);
        match newest_of_peer {
            NONE => peer_record.oldest = place,
            newest => self.records[newest].newer_of_peer = place,
        }
        let records = &self.records;
        self.index.insert_unique(Self::record_hash(peer, digest), place, |place| {
            Self::record_hash(records[*place].peer, records[*place].digest)
        });
        let key = ExchangeKey { place, generation: self.records[place].generation };
        // After the insertion, so that the peer of the new exchange is never the one dropped.
        self.remembered += 1;
        if self.remembered > self.limits.exchanges_max.max(1) {
            self.evict_oldest();
        }
        key
    }

    /// A free place keeps its generation, and counts it up for its next tenant.
    fn insert_record(&mut self, record: Record) -> u32 {
        let place = self.records.reserve(record);
        let generation = self.records[place].generation.wrapping_add(1);
        self.records[place] = Record { generation, ..record };
        place
    }

    fn evict_oldest(&mut self) {
        self.evicted += 1;
        self.drop_oldest();
    }

    fn evict_oldest_of(&mut self, peer: u32) {
        let oldest = self.peers[peer].oldest;
        if oldest != NONE {
            self.evicted += 1;
            self.drop_record(oldest);
        }
    }

    fn purge(&mut self, ticks: u32, at_most: usize) {
        for _ in 0..at_most {
            if self.oldest == NONE || self.records[self.oldest].expires_ticks > ticks {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if self.oldest != NONE {
            self.drop_record(self.oldest);
        }
    }

    /// Drops the oldest record of its peer: from the index, from both lists, and its place.
    fn drop_record(&mut self, place: u32) {
        self.forget(place);
        let record = self.records[place];
        match record.older {
            NONE => self.oldest = record.newer,
            older => self.records[older].newer = record.newer,
        }
        match record.newer {
            NONE => self.newest = record.older,
            newer => self.records[newer].older = record.older,
        }
        self.records.remove(place);
        self.remembered -= 1;
        let peer = &mut self.peers[record.peer];
        peer.oldest = record.newer_of_peer;
        peer.records -= 1;
        if peer.records == 0 {
            let address = peer.address;
            let hash = self.hashing.hash_one(address);
            if let Ok(entry) = self.peer_index.find_entry(hash, |place| *place == record.peer) {
                entry.remove();
            }
            self.peers.remove(record.peer);
        }
    }

    /// Takes a record out of the index; its place stays in the lists.
    fn forget(&mut self, place: u32) {
        let record = &mut self.records[place];
        if record.status == Status::Forgotten {
            return;
        }
        if record.status == Status::Stored
            && let Some(bytes) = self.answers.remove(&place)
        {
            self.answer_bytes -= bytes.len();
        }
        record.status = Status::Forgotten;
        let hash = Self::record_hash(record.peer, record.digest);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
    }

    fn store(&mut self, key: ExchangeKey, bytes: &[u8]) {
        if let Some(before) = self.answers.insert(key.place, bytes.into()) {
            self.answer_bytes -= before.len();
        }
        self.answer_bytes += bytes.len();
        self.answer_order.push_back(key);
        let places = self.limits.exchanges_max as usize;
        while self.answer_bytes > self.limits.answer_bytes_max || self.answer_order.len() > places {
            let Some(oldest) = self.answer_order.pop_front() else { return };
            if self.current(oldest).is_some() {
                self.evicted += 1;
                self.forget(oldest.place);
            }
        }
        // Those that expired meanwhile leave the order too, so that it stays as short as the
        // answers are many.
        while let Some(oldest) = self.answer_order.front().copied() {
            if self.current(oldest).is_some_and(|record| record.status == Status::Stored) {
                return;
            }
            self.answer_order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(247);

    fn deduplicator(limits: Limits) -> Deduplicator<u32> {
        Deduplicator::new(limits, 1)
    }

    fn key(seen: Seen<'_>) -> ExchangeKey {
        match seen {
            Seen::New(key) => key,
            seen => panic!("not new: {seen:?}"),
        }
    }

    #[test]
    fn a_record_is_forty_bytes() {
        assert_eq!(Deduplicator::<u32>::RECORD_BYTES, 40);
    }

    #[test]
    fn a_copy_gets_the_same_answer_until_the_lifetime_ends() {
        let mut messages = deduplicator(Limits::default());
        let now = Instant::now();
        let first = key(messages.see(now, 1, 77, LIFETIME));
        assert_eq!(messages.see(now, 1, 77, LIFETIME), Seen::Pending);
        assert!(matches!(messages.see(now, 2, 77, LIFETIME), Seen::New(_)));
        messages.answer(first, Answer::Bare(Code::CHANGED, MessageId(9)));
        let late = now + Duration::from_secs(247);
        assert_eq!(messages.see(late, 1, 77, LIFETIME), Seen::Bare(Code::CHANGED, MessageId(9)));
        let later = now + Duration::from_millis(247_130);
        assert!(matches!(messages.see(later, 1, 77, LIFETIME), Seen::New(_)));
    }

    #[test]
    fn the_oldest_leave_first_and_are_counted() {
        let limits = Limits {
            exchanges_max: 3,
            exchanges_per_peer_max: 2,
            answer_bytes_max: 10,
            ..Limits::default()
        };
        let mut messages = deduplicator(limits);
        let now = Instant::now();
        for digest in 0..3 {
            key(messages.see(now, 1, digest, LIFETIME));
        }
        assert_eq!((messages.len(), messages.evicted), (2, 1));
        key(messages.see(now, 2, 0, LIFETIME));
        key(messages.see(now, 3, 0, LIFETIME));
        assert_eq!((messages.len(), messages.evicted), (3, 2));
        assert_eq!(messages.see(now, 1, 2, LIFETIME), Seen::Pending);
        assert!(matches!(messages.see(now, 1, 0, LIFETIME), Seen::New(_)));
    }

    #[test]
    fn stored_answers_have_a_budget() {
        let limits = Limits { answer_bytes_max: 10, ..Limits::default() };
        let mut messages = deduplicator(limits);
        let now = Instant::now();
        let first = key(messages.see(now, 1, 1, LIFETIME));
        let second = key(messages.see(now, 1, 2, LIFETIME));
        messages.answer(first, Answer::Bytes(&[1; 6]));
        assert_eq!(messages.see(now, 1, 1, LIFETIME), Seen::Answered(&[1; 6]));
        messages.answer(second, Answer::Bytes(&[2; 6]));
        assert_eq!(messages.see(now, 1, 2, LIFETIME), Seen::Answered(&[2; 6]));
        assert_eq!(messages.evicted, 1);
        assert!(matches!(messages.see(now, 1, 1, LIFETIME), Seen::New(_)));
    }

    #[test]
    fn an_answer_to_a_forgotten_exchange_changes_nothing() {
        let limits = Limits { exchanges_max: 1, ..Limits::default() };
        let mut messages = deduplicator(limits);
        let now = Instant::now();
        let first = key(messages.see(now, 1, 1, LIFETIME));
        key(messages.see(now, 2, 2, LIFETIME));
        key(messages.see(now, 3, 3, LIFETIME));
        messages.answer(first, Answer::Silent);
        assert_eq!(messages.see(now, 3, 3, LIFETIME), Seen::Pending);
    }

    #[test]
    fn time_frees_the_memory() {
        let mut messages = deduplicator(Limits::default());
        let now = Instant::now();
        for peer in 0..10_000 {
            key(messages.see(now, peer, 5, LIFETIME));
        }
        let due = messages.next_timeout().unwrap();
        assert!(due > now + LIFETIME && due < now + LIFETIME + Duration::from_secs(2));
        messages.handle_timeout(due);
        assert!(messages.next_timeout().unwrap() <= due);
        messages.handle_timeout(due);
        assert_eq!((messages.len(), messages.next_timeout()), (0, None));
    }
}
