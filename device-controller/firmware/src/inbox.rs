//! What devices did since the last look, and which of them anyone asks about.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use vocabulary::Iccid;

use crate::step::{StepOutcome, Value};

/// Reports that wait: some 10 MB. A report beyond is dropped and counted; the device is asked
/// instead, within a minute.
pub const REPORTS_MAX: usize = 65_536;
/// Enough that no two threads often want the same one.
const SHARDS: usize = 64;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    Value(Iccid, &'static str, Value),
    Bytes(Iccid, u64),
    Outcome(u64, StepOutcome),
}

/// Takes what threads of listeners tell. Never blocks for longer than a push takes.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Waiting {
    /// Who woke, and whether by a new registration. Never more than devices under way.
    pub(crate) awake: HashMap<Iccid, bool>,
    pub(crate) inputs: Vec<Input>,
    reports: usize,
}

/// The devices that are being updated.
pub(crate) struct Watched {
    count: AtomicUsize,
    shards: Vec<RwLock<HashSet<Iccid>>>,
}

impl Inbox {
    pub(crate) fn awake(&self, iccid: Iccid, registered: bool) {
        let mut waiting = self.lock();
        *waiting.awake.entry(iccid).or_default() |= registered;
        self.filled.notify_one();
    }

    /// An outcome is always taken: there are no more of them than steps under way.
    pub(crate) fn put(&self, input: Input) {
        let mut waiting = self.lock();
        if !matches!(input, Input::Outcome(..)) {
            if waiting.reports >= REPORTS_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.reports += 1;
        }
        waiting.inputs.push(input);
        self.filled.notify_one();
    }

    pub(crate) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until there is something, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let is_empty =
            |waiting: &mut Waiting| waiting.awake.is_empty() && waiting.inputs.is_empty();
        drop(self.filled.wait_timeout_while(self.lock(), timeout, is_empty));
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Watched {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { count: AtomicUsize::new(0), shards }
    }
}

impl Watched {
    /// Asked for every uplink of every device.
    pub(crate) fn contains(&self, iccid: Iccid) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self.shard(iccid).read().unwrap_or_else(PoisonError::into_inner).contains(&iccid)
    }

    pub(crate) fn insert(&self, iccid: Iccid) {
        let mut shard = self.shard(iccid).write().unwrap_or_else(PoisonError::into_inner);
        if shard.insert(iccid) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, iccid: Iccid) {
        let mut shard = self.shard(iccid).write().unwrap_or_else(PoisonError::into_inner);
        if shard.remove(&iccid) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, iccid: Iccid) -> &RwLock<HashSet<Iccid>> {
        // Never out of bounds, whatever a usize holds.
        let index = usize::try_from(iccid.as_u64() % SHARDS as u64).unwrap_or(0);
        &self.shards[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_a_limit_and_outcomes_have_none() {
        let inbox = Inbox::default();
        let iccid: Iccid = "8988280666000000001".parse().unwrap();
        for _ in 0..=REPORTS_MAX {
            inbox.put(Input::Bytes(iccid, 1));
        }
        inbox.put(Input::Outcome(1, StepOutcome::Unreachable));
        assert_eq!(inbox.dropped(), 1);
        assert_eq!(inbox.take().inputs.len(), REPORTS_MAX + 1);
        inbox.awake(iccid, true);
        inbox.awake(iccid, false);
        inbox.wait(Duration::from_secs(60));
        assert!(inbox.take().awake[&iccid]);
    }
}
