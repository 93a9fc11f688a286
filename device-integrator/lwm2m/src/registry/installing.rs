//! How a registration takes the place of the one before.

use vocabulary::Iccid;

use super::{Claim, Entry, Registry};
use crate::contact::{Moment, Security};
use crate::registration::Registration;

/// Why a registration is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotInstalled {
    /// There are as many registrations as allowed.
    Full,
    /// The device has a registration that was made with a key, and this one was made without.
    Bound,
    /// The device asked for another one after this one.
    Overtaken,
}

/// What a new registration led to.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// The one before was protected otherwise.
    pub(crate) rebound: bool,
    /// Operations that waited for the one before and must not reach the new one.
    pub(crate) ended: Vec<u64>,
    /// Another state was given out meanwhile, and may be written after this one's.
    pub(crate) overtaken: bool,
}

impl Registry {
    /// Begins to make a registration durable.
    pub(crate) fn claim(&self, iccid: Iccid) -> Claim {
        let shard = self.shard(iccid);
        Claim {
            number: self.number(),
            replaces: shard.entries.get(&iccid).map(|entry| entry.revision),
            deletions: shard.deletions,
            is_expired: shard.expired.contains(&iccid),
        }
    }

    /// Puts a registration in the place of the one before, whose observations end; what waits for
    /// the device goes on waiting, unless it would leave with another protection.
    pub(crate) fn install(
        &self,
        iccid: Iccid,
        (registration, claim): (Registration, Claim),
        moment: Moment,
    ) -> Result<Installed, NotInstalled> {
        let mut shard = self.shard(iccid);
        let has_key = registration.security != Security::NoSec;
        let before = shard.entries.get(&iccid);
        match before {
            Some(before) if !has_key && before.is_bound(moment.at) => {
                return Err(NotInstalled::Bound);
            }
            // Unless the newer one was made without the key that this one was made with.
            Some(before)
                if before.revision.number > claim.number
                    && (!has_key || before.is_bound(moment.at)) =>
            {
                return Err(NotInstalled::Overtaken);
            }
            None if self.len() >= self.shared.limits.registrations_max => {
                return Err(NotInstalled::Full);
            }
            _ => {}
        }
        let overtaken = claim.is_expired
            || claim.replaces != before.map(|before| before.revision)
            || (before.is_none() && claim.deletions != shard.deletions);
        let mut entry = Entry::new(registration);
        entry.heard = Some(moment.now);
        entry.revision.number = claim.number;
        let mut installed = Installed { overtaken, ..Installed::default() };
        if let Some(before) = self.take_out(&mut shard, iccid) {
            installed.rebound = before.registration.security != entry.registration.security;
            if installed.rebound {
                installed.ended = before.commands().map(|queued| queued.command).collect();
            }
            entry.inherit(*before);
        }
        self.put_in(&mut shard, iccid, entry);
        Ok(installed)
    }
}
