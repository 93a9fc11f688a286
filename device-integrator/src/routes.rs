//! Which socket, and which DTLS session on it, a device was heard by last.

use std::sync::{Arc, PoisonError, RwLock};

use dtls::SessionId;
use std::collections::HashMap;
use vocabulary::Iccid;

/// Pieces of the table, so that the sockets seldom wait for each other.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<u64, (u32, SessionId)>>;

/// The newest session of each device. Clones share it. About 40 bytes per device.
#[derive(Clone)]
pub(crate) struct Routes(Arc<[Shard; SHARDS]>);

impl Default for Routes {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Shard::default())))
    }
}

impl Routes {
    /// Notes where a device was heard. Most calls change nothing, and only look.
    pub(crate) fn note(&self, device: Iccid, seat: u32, session: SessionId) {
        let (shard, key) = (self.shard(device), device.as_u64());
        let seen = shard.read().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if seen != Some((seat, session)) {
            shard.write().unwrap_or_else(PoisonError::into_inner).insert(key, (seat, session));
        }
    }

    /// Where a device was heard last.
    pub(crate) fn find(&self, device: Iccid) -> Option<(usize, SessionId)> {
        let shard = self.shard(device).read().unwrap_or_else(PoisonError::into_inner);
        let (seat, session) = *shard.get(&device.as_u64())?;
        Some((usize::try_from(seat).ok()?, session))
    }

    /// Forgets a session that is no more.
    pub(crate) fn forget(&self, device: Iccid, session: SessionId) {
        let mut shard = self.shard(device).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(&device.as_u64()).is_some_and(|(_, known)| *known == session) {
            shard.remove(&device.as_u64());
        }
    }

    fn shard(&self, device: Iccid) -> &Shard {
        // Neighbouring numbers are neighbouring devices: the remainder spreads them.
        let place = usize::try_from(device.as_u64() % SHARDS as u64).unwrap_or(0);
        &self.0[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_session_counts_and_an_older_one_does_not_end_it() {
        let routes = Routes::default();
        let device: Iccid = "8988280666000000001".parse().unwrap();
        let [first, second] = [1, 2].map(SessionId::from_u64);
        assert_eq!(routes.find(device), None);
        routes.note(device, 0, first);
        routes.note(device, 1, second);
        routes.forget(device, first);
        assert_eq!(routes.find(device), Some((1, second)));
        routes.forget(device, second);
        assert_eq!(routes.find(device), None);
    }
}
