//! Sessions remembered for abbreviated handshakes (RFC 5246 §7.3), by their id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ffi::Resumption;

/// Sessions of one identity: as many as it may have at once by default. A device that makes new
/// ones all the time leaves the others' alone.
const PER_IDENTITY_MAX: usize = 4;

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
    /// By number, so the oldest first.
    entries: BTreeMap<u64, Remembered>,
    by_id: HashMap<[u8; 32], u64>,
    /// The oldest first.
    by_identity: HashMap<Arc<[u8]>, Vec<u64>>,
    next: u64,
    count_max: usize,
    lifetime_ms: u64,
}

impl Resumptions {
    pub(crate) fn new(count_max: usize, lifetime_ms: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_id: HashMap::new(),
            by_identity: HashMap::new(),
            next: 0,
            count_max,
            lifetime_ms,
        }
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
        let of_identity = self.by_identity.get(&identity).map_or(&[][..], |of| of);
        let leaves = if let Some(same) = self.by_id.get(&resumption.id) {
            Some(*same)
        } else if of_identity.len() >= PER_IDENTITY_MAX {
            of_identity.first().copied()
        } else if self.entries.len() >= self.count_max {
            self.entries.keys().next().copied()
        } else {
            None
        };
        if let Some(number) = leaves {
            self.remove(number);
        }
        let number = self.next;
        self.next += 1;
        self.by_id.insert(resumption.id, number);
        self.by_identity.entry(Arc::clone(&identity)).or_default().push(number);
        let expires_ms = now_ms.saturating_add(self.lifetime_ms);
        let entry =
            Remembered { resumption, identity, key_digest, extended_master_secret, expires_ms };
        self.entries.insert(number, entry);
    }

    pub(crate) fn find(&self, now_ms: u64, id: &[u8]) -> Option<&Remembered> {
        let found = self.entries.get(self.by_id.get(id)?)?;
        (found.expires_ms > now_ms).then_some(found)
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        while let Some((number, oldest)) = self.entries.first_key_value() {
            if oldest.expires_ms > now_ms {
                return;
            }
            self.remove(*number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.by_id.remove(&entry.resumption.id);
        if let Some(of_identity) = self.by_identity.get_mut(&entry.identity) {
            of_identity.retain(|other| *other != number);
            if of_identity.is_empty() {
                self.by_identity.remove(&entry.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(resumptions: &mut Resumptions, now_ms: u64, id: u8, identity: &str) {
        let mut resumption = Resumption::empty();
        (resumption.id, resumption.id_length) = ([id; 32], 32);
        resumptions.insert(now_ms, resumption, (identity.as_bytes().into(), [0; 16]), true);
    }

    fn ids(resumptions: &Resumptions, now_ms: u64) -> Vec<u8> {
        (0..=9).filter(|id| resumptions.find(now_ms, &[*id; 32]).is_some()).collect()
    }

    #[test]
    fn one_identity_pushes_out_its_own_only() {
        let mut resumptions = Resumptions::new(5, 1000);
        insert(&mut resumptions, 0, 0, "quiet");
        for id in 1..=6 {
            insert(&mut resumptions, 1, id, "busy");
        }
        assert_eq!(ids(&resumptions, 1), [0, 3, 4, 5, 6]);
        insert(&mut resumptions, 2, 7, "third");
        assert_eq!(ids(&resumptions, 2), [3, 4, 5, 6, 7], "the oldest of all leaves");
        insert(&mut resumptions, 3, 7, "third");
        assert_eq!(ids(&resumptions, 3), [3, 4, 5, 6, 7], "one entry for one id");
        assert_eq!(ids(&resumptions, 1001), [7]);
        resumptions.expire(1003);
        assert_eq!(resumptions.entries.len() + resumptions.by_id.len(), 0);
        assert!(resumptions.by_identity.is_empty());
    }
}
