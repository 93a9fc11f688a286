//! Keeps large response bodies for the blocks to come (RFC 7959 §2.4), so that a peer collects
//! one body and not pieces of two. One body per peer; without it, the owner is asked again.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use crate::hashing::Seeded;
use crate::limits::Limits;
use crate::message::Response;
use crate::wire::Block;

#[derive(Debug)]
struct Download {
    resource: u64,
    response: Arc<Response>,
    timer: (Instant, u64),
}

/// Large bodies under way.
#[derive(Debug)]
pub(crate) struct Downloads<P> {
    downloads: HashMap<P, Download, Seeded>,
    timers: BTreeMap<(Instant, u64), P>,
    serial: u64,
    bytes: usize,
    limits: Limits,
    /// Given up because of a limit.
    pub(crate) evicted: u64,
}

impl<P: Copy + Eq + Hash> Downloads<P> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            downloads: HashMap::with_hasher(Seeded::new(seed)),
            timers: BTreeMap::new(),
            serial: 0,
            bytes: 0,
            limits,
            evicted: 0,
        }
    }

    /// Keeps a body; the peer's body before leaves.
    pub(crate) fn keep(&mut self, now: Instant, peer: P, resource: u64, response: Arc<Response>) {
        self.remove(peer);
        self.serial += 1;
        let timer = (now, self.serial);
        self.bytes += response.payload.len();
        self.timers.insert(timer, peer);
        self.downloads.insert(peer, Download { resource, response, timer });
        while self.downloads.len() > self.limits.downloads_max
            || self.bytes > self.limits.downloads_bytes_max
        {
            let Some(idlest) = self.timers.first_key_value().map(|(_, peer)| *peer) else { return };
            self.remove(idlest);
            self.evicted += 1;
        }
    }

    /// The body of which a peer asks a further block.
    pub(crate) fn find(&mut self, now: Instant, peer: P, resource: u64) -> Option<Arc<Response>> {
        let download = self.downloads.get_mut(&peer).filter(|kept| kept.resource == resource)?;
        self.timers.remove(&download.timer);
        self.serial += 1;
        download.timer = (now, self.serial);
        self.timers.insert(download.timer, peer);
        Some(download.response.clone())
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let ((last_used, _), _) = self.timers.first_key_value()?;
        Some(*last_used + self.limits.download_idle)
    }

    /// Forgets what nobody asked for any more.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.next_timeout().is_some_and(|due| due <= now) {
            let Some(idlest) = self.timers.first_key_value().map(|(_, peer)| *peer) else { return };
            self.remove(idlest);
        }
    }

    fn remove(&mut self, peer: P) {
        if let Some(download) = self.downloads.remove(&peer) {
            self.timers.remove(&download.timer);
            self.bytes -= download.response.payload.len();
        }
    }
}

/// A part of a body with its option; `None` beyond the end.
///
/// The size is the smaller one of what the peer asks and what we allow; a number asked in larger
/// blocks is counted again in ours (RFC 7959 §2.4).
pub(crate) fn slice(
    body: &[u8],
    asked: Option<Block>,
    size_exponent_max: u8,
) -> Option<(Option<Block>, &[u8])> {
    let size_exponent =
        asked.map_or(size_exponent_max, |block| block.size_exponent.min(size_exponent_max));
    let offset = asked.map_or(0, Block::offset_bytes);
    let size = 16_usize << size_exponent;
    if offset == 0 && body.len() <= size && asked.is_none() {
        return Some((None, body));
    }
    let rest = body.get(offset..).filter(|rest| !rest.is_empty() || offset == 0)?;
    let number = u32::try_from(offset / size).ok().filter(|number| *number <= Block::NUMBER_MAX)?;
    let part = rest.get(..size).unwrap_or(rest);
    Some((Some(Block { number, more: rest.len() > size, size_exponent }), part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;
    use std::time::Duration;

    fn response(length: usize) -> Arc<Response> {
        Arc::new(Response { payload: vec![1; length], ..Response::new(Code::CONTENT) })
    }

    #[test]
    fn a_body_is_cut_as_asked() {
        let body: Vec<u8> = (0..100).collect();
        assert_eq!(slice(&body, None, 6), Some((None, &body[..])));
        let first = Block { number: 0, more: true, size_exponent: 2 };
        assert_eq!(slice(&body, None, 2), Some((Some(first), &body[..64])));
        let asked = Block { number: 1, more: false, size_exponent: 2 };
        assert_eq!(slice(&body, Some(asked), 6), Some((Some(asked), &body[64..])));
        let finer = Block { number: 4, more: true, size_exponent: 0 };
        assert_eq!(slice(&body, Some(asked), 0), Some((Some(finer), &body[64..80])));
        assert_eq!(slice(&body, Some(Block { number: 2, ..asked }), 6), None);
    }

    #[test]
    fn bodies_leave_when_limits_are_hit_or_nobody_asks() {
        let limits = Limits { downloads_max: 2, downloads_bytes_max: 100, ..Limits::default() };
        let (mut downloads, now) = (Downloads::new(limits, 1), Instant::now());
        downloads.keep(now, 1, 7, response(40));
        downloads.keep(now, 2, 7, response(40));
        assert!(downloads.find(now, 1, 7).is_some());
        assert!(downloads.find(now, 1, 8).is_none());
        downloads.keep(now, 3, 7, response(40));
        assert!(downloads.find(now, 2, 7).is_none());
        assert!(downloads.find(now, 1, 7).is_some());
        downloads.keep(now, 4, 7, response(101));
        assert_eq!((downloads.evicted, downloads.bytes), (4, 0));
        downloads.keep(now, 5, 7, response(10));
        downloads.handle_timeout(now + Duration::from_secs(60));
        assert_eq!(downloads.next_timeout(), None);
    }
}
