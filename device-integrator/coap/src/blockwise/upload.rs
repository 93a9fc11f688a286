//! Assembles request bodies from Block1 (RFC 7959 §2.5). A peer has one upload at a time: blocks
//! must come in order, and a first block begins anew.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Instant;

use hashbrown::HashMap;

use crate::hashing::Seeded;
use crate::limits::Limits;
use crate::wire::Block;

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// 2.31: more is to come, in blocks of this form.
    Continue(Block),
    /// The body is complete.
    Complete(Vec<u8>),
    /// 4.08: blocks are missing (§2.9.2).
    Incomplete,
    /// 4.13: the body is too large (§2.9.3).
    TooLarge,
    /// 4.00: the payload does not fill its block (§2.2).
    Malformed,
}

/// One block as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Which resource, with Request-Tag.
    pub(crate) resource: u64,
    /// The position.
    pub(crate) block: Block,
    /// The announced size of the body, in bytes.
    pub(crate) size1: Option<u32>,
    /// The content.
    pub(crate) payload: &'a [u8],
}

#[derive(Debug)]
struct Upload<P> {
    resource: u64,
    body: Vec<u8>,
    timer: (Instant, u64),
    peer: P,
}

/// Unfinished uploads of all peers.
#[derive(Debug)]
pub(crate) struct Uploads<P> {
    uploads: HashMap<P, u64, Seeded>,
    bodies: HashMap<u64, Upload<P>, Seeded>,
    timers: BTreeSet<(Instant, u64)>,
    serial: u64,
    bytes: usize,
    limits: Limits,
    /// Given up: replaced, idle, out of order or over the budget.
    pub(crate) aborted: u64,
}

/// An upload costs at least this much, in bytes, so that many tiny ones count too.
const OVERHEAD_BYTES: usize = 256;

impl<P: Copy + Eq + Hash> Uploads<P> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            uploads: HashMap::with_hasher(Seeded::new(seed)),
            bodies: HashMap::with_hasher(Seeded::new(seed ^ 1)),
            timers: BTreeSet::new(),
            serial: 0,
            bytes: 0,
            limits,
            aborted: 0,
        }
    }

    /// Takes a block.
    pub(crate) fn accept(&mut self, now: Instant, peer: P, piece: Piece<'_>) -> Accepted {
        let Piece { block, payload, .. } = piece;
        let announced = piece.size1.map_or(0, |size| size as usize);
        let end = block.offset_bytes() + payload.len();
        if announced.max(end) > self.limits.upload_bytes_max {
            self.abort(peer);
            return Accepted::TooLarge;
        }
        let fills = payload.len() == block.size_bytes();
        if payload.len() > block.size_bytes() || (block.more && !fills) {
            return Accepted::Malformed;
        }
        let body = match block.number {
            0 => {
                self.abort(peer);
                Vec::new()
            }
            _ => match self.resume(peer, &piece) {
                Resumed::Next(body) => body,
                Resumed::Again(body) => {
                    self.keep(now, peer, piece.resource, body);
                    return Accepted::Continue(self.reply(block));
                }
                Resumed::Gap => return Accepted::Incomplete,
            },
        };
        let mut body = body;
        body.extend_from_slice(payload);
        if !block.more {
            return Accepted::Complete(body);
        }
        self.keep(now, peer, piece.resource, body);
        Accepted::Continue(self.reply(block))
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(last_used, _)| *last_used + self.limits.upload_idle)
    }

    /// Gives up what has idled too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((last_used, serial)) = self.timers.first().copied() {
            if last_used + self.limits.upload_idle > now {
                return;
            }
            self.abort_serial(serial);
        }
    }

    /// The block to be echoed, with the size that we prefer (§2.5).
    fn reply(&self, block: Block) -> Block {
        let size_exponent = block.size_exponent.min(self.limits.block_size_exponent);
        Block { size_exponent, ..block }
    }

    fn resume(&mut self, peer: P, piece: &Piece<'_>) -> Resumed {
        let Some(upload) = self.take(peer) else { return Resumed::Gap };
        let (length, offset) = (upload.body.len(), piece.block.offset_bytes());
        let same = upload.resource == piece.resource;
        if same && offset == length {
            return Resumed::Next(upload.body);
        }
        // The block before, sent again under a new message id because our 2.31 was lost.
        if same && piece.block.more && upload.body.get(offset..) == Some(piece.payload) {
            return Resumed::Again(upload.body);
        }
        self.aborted += 1;
        Resumed::Gap
    }

    fn take(&mut self, peer: P) -> Option<Upload<P>> {
        let serial = self.uploads.remove(&peer)?;
        let upload = self.bodies.remove(&serial)?;
        self.timers.remove(&upload.timer);
        self.bytes -= upload.body.capacity() + OVERHEAD_BYTES;
        Some(upload)
    }

    fn keep(&mut self, now: Instant, peer: P, resource: u64, body: Vec<u8>) {
        self.serial += 1;
        let timer = (now, self.serial);
        self.bytes += body.capacity() + OVERHEAD_BYTES;
        self.timers.insert(timer);
        self.uploads.insert(peer, self.serial);
        self.bodies.insert(self.serial, Upload { resource, body, timer, peer });
        while self.bytes > self.limits.uploads_bytes_max {
            let Some((_, idlest)) = self.timers.first().copied() else { return };
            self.abort_serial(idlest);
        }
    }

    fn abort(&mut self, peer: P) {
        if self.take(peer).is_some() {
            self.aborted += 1;
        }
    }

    fn abort_serial(&mut self, serial: u64) {
        if let Some(peer) = self.bodies.get(&serial).map(|upload| upload.peer) {
            self.abort(peer);
        }
    }
}

enum Resumed {
    Next(Vec<u8>),
    Again(Vec<u8>),
    Gap,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn piece(number: u32, more: bool, payload: &[u8]) -> Piece<'_> {
        let block = Block { number, more, size_exponent: 0 };
        Piece { resource: 1, block, size1: None, payload }
    }

    fn uploads() -> Uploads<u8> {
        Uploads::new(Limits { upload_bytes_max: 64, ..Limits::default() }, 1)
    }

    #[test]
    fn blocks_in_order_make_a_body() {
        let (mut uploads, now) = (uploads(), Instant::now());
        let next = uploads.accept(now, 1, piece(0, true, &[1; 16]));
        assert!(matches!(next, Accepted::Continue(_)));
        let again = uploads.accept(now, 1, piece(1, true, &[2; 16]));
        assert!(matches!(again, Accepted::Continue(_)));
        assert_eq!(uploads.accept(now, 1, piece(1, true, &[2; 16])), again);
        let Accepted::Complete(body) = uploads.accept(now, 1, piece(2, false, &[3])) else {
            panic!("incomplete")
        };
        assert_eq!((body.len(), body[32], uploads.aborted, uploads.bytes), (33, 3, 0, 0));
        assert_eq!(uploads.next_timeout(), None);
    }

    #[test]
    fn a_gap_another_resource_and_an_idle_upload_are_given_up() {
        let (mut uploads, now) = (uploads(), Instant::now());
        assert_eq!(uploads.accept(now, 1, piece(1, true, &[2; 16])), Accepted::Incomplete);
        uploads.accept(now, 1, piece(0, true, &[1; 16]));
        assert_eq!(uploads.accept(now, 1, piece(2, true, &[2; 16])), Accepted::Incomplete);
        uploads.accept(now, 1, piece(0, true, &[1; 16]));
        let other = Piece { resource: 2, ..piece(1, false, &[2]) };
        assert_eq!(uploads.accept(now, 1, other), Accepted::Incomplete);
        uploads.accept(now, 1, piece(0, true, &[1; 16]));
        assert_eq!(uploads.next_timeout(), Some(now + Duration::from_secs(60)));
        uploads.handle_timeout(now + Duration::from_secs(60));
        assert_eq!((uploads.aborted, uploads.bytes, uploads.next_timeout()), (3, 0, None));
    }

    #[test]
    fn large_and_ragged_bodies_are_refused() {
        let (mut uploads, now) = (uploads(), Instant::now());
        let announced = Piece { size1: Some(65), ..piece(0, true, &[1; 16]) };
        assert_eq!(uploads.accept(now, 1, announced), Accepted::TooLarge);
        assert_eq!(uploads.accept(now, 1, piece(4, false, &[1])), Accepted::TooLarge);
        assert_eq!(uploads.accept(now, 1, piece(0, true, &[1; 15])), Accepted::Malformed);
        assert_eq!(uploads.accept(now, 1, piece(0, false, &[1; 17])), Accepted::Malformed);
    }

    #[test]
    fn the_longest_idle_upload_leaves_when_the_budget_is_spent() {
        let limits = Limits { uploads_bytes_max: 600, ..Limits::default() };
        let (mut uploads, now) = (Uploads::new(limits, 1), Instant::now());
        for peer in 1..=3_u8 {
            uploads.accept(now, peer, piece(0, true, &[peer; 16]));
        }
        assert_eq!(uploads.aborted, 1);
        assert_eq!(uploads.accept(now, 1, piece(1, false, &[1])), Accepted::Incomplete);
        assert!(matches!(uploads.accept(now, 3, piece(1, false, &[1])), Accepted::Complete(_)));
    }
}
