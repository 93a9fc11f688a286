//! What ends of a registry: registrations that expired or whose SIM is gone, and operations that
//! waited for too long.

use std::sync::atomic::Ordering;

use vocabulary::{Iccid, Timestamp};

use super::{Entry, Registry, lock};

/// Why an operation ended that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The owner removed its device.
    Removed,
    /// It waited for too long.
    Overdue,
}

impl Registry {
    /// Removes registrations that have expired, at most so many; the owner notes that their state
    /// is to be deleted before it calls this again, and before what servers give out later.
    /// Operations that waited for them end with the next call of any server.
    pub fn expired(&self, at: Timestamp, max: usize) -> Vec<Iccid> {
        let mut expired = Vec::new();
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            shard.expired.clear();
            while expired.len() < max {
                let due = shard.expiries.first().filter(|(due, _)| *due <= at).copied();
                let Some((_, iccid)) = due else { break };
                if let Some(entry) = self.take_out(&mut shard, iccid) {
                    let commands = entry.commands().map(|queued| queued.command);
                    self.end(iccid, commands, Ending::Removed);
                }
                shard.expired.insert(iccid);
                shard.deletions += 1;
                expired.push(iccid);
            }
        }
        expired
    }

    /// Removes the registration of a device that is none of the owner's any more; the owner deletes
    /// its state. Operations that waited end with the next call of any server.
    pub fn forget(&self, iccid: Iccid) {
        let mut shard = self.shard(iccid);
        if let Some(entry) = self.take_out(&mut shard, iccid) {
            let commands = entry.commands().map(|queued| queued.command);
            self.end(iccid, commands, Ending::Removed);
        }
        shard.expired.insert(iccid);
        shard.deletions += 1;
    }

    /// Ends operations that have waited for too long, at most so many; says how many it were. The
    /// next call of any server reports them. The owner calls this every second or so: nothing else
    /// looks at what waits for a device that is not heard.
    pub fn overdue(&self, at: Timestamp, max: usize) -> usize {
        let mut ended = 0;
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            while ended < max {
                let due = shard.queues.first().copied();
                let Some((_, iccid)) = due.filter(|(queued_at, _)| self.is_overdue(*queued_at, at))
                else {
                    break;
                };
                let command = self.with_in(&mut shard, iccid, Entry::pop_command).flatten();
                self.end(iccid, command.iter().map(|queued| queued.command), Ending::Overdue);
                ended += 1;
            }
        }
        ended
    }

    /// Takes back an operation that waits; no event follows. `false` if it does not wait: it is
    /// under way, has ended, or never was.
    pub fn withdraw(&self, iccid: Iccid, command: u64) -> bool {
        self.with(iccid, |entry| entry.withdraw(command)).unwrap_or(false)
    }

    fn is_overdue(&self, queued_at: Timestamp, at: Timestamp) -> bool {
        at.saturating_since(queued_at) > self.shared.limits.queued_for
    }

    /// Operations that ended here.
    pub(crate) fn take_ended(&self) -> Vec<(Iccid, u64, Ending)> {
        if !self.shared.has_ended.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.shared.ended))
    }

    /// Gives operations to the next server that is called.
    fn end(&self, iccid: Iccid, commands: impl Iterator<Item = u64>, ending: Ending) {
        let mut ended = lock(&self.shared.ended);
        ended.extend(commands.map(|command| (iccid, command, ending)));
        if !ended.is_empty() {
            self.shared.has_ended.store(true, Ordering::Release);
        }
    }
}
