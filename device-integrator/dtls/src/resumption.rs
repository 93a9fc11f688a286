//! Sessions remembered for abbreviated handshakes (RFC 5246 §7.3), by their id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::ffi::Resumption;

/// A session that may be resumed, and under which conditions.
pub(crate) struct Remembered {
    pub(crate) resumption: Resumption,
    pub(crate) identity: Arc<[u8]>,
    /// A digest of the key: with another key the session is not resumed.
    pub(crate) key_digest: [u8; 16],
    /// RFC 7627 §5.3: resumed only by a client that offers the same again.
    pub(crate) extended_master_secret: bool,
    expires_ms: u64,
}

pub(crate) struct Resumptions {
    by_id: HashMap<[u8; 32], Remembered>,
    /// The oldest first.
    order: VecDeque<([u8; 32], u64)>,
    count_max: usize,
    lifetime_ms: u64,
}

impl Resumptions {
    pub(crate) fn new(count_max: usize, lifetime_ms: u64) -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new(), count_max, lifetime_ms }
    }

    pub(crate) fn insert(
        &mut self,
        now_ms: u64,
        resumption: Resumption,
        (identity, key_digest): (Arc<[u8]>, [u8; 16]),
        extended_master_secret: bool,
    ) {
        self.expire(now_ms);
        if self.count_max == 0 || resumption.id_length != 32 {
            return;
        }
        if self.order.len() >= self.count_max {
            self.drop_oldest();
        }
        let expires_ms = now_ms + self.lifetime_ms;
        self.order.push_back((resumption.id, expires_ms));
        let id = resumption.id;
        let entry =
            Remembered { resumption, identity, key_digest, extended_master_secret, expires_ms };
        self.by_id.insert(id, entry);
    }

    pub(crate) fn find(&self, now_ms: u64, id: &[u8]) -> Option<&Remembered> {
        self.by_id.get(id).filter(|found| found.expires_ms > now_ms)
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(_, expires_ms)| *expires_ms <= now_ms) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((id, _)) = self.order.pop_front() {
            self.by_id.remove(&id);
        }
    }
}
