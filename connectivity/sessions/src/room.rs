//! What is forgotten: sessions of the past, and in a full table the oldest of them at once.
//!
//! Whoever is forgotten takes with it what it proved of others: a session that came before it may
//! not get its address back. Nor may a late report bring it back itself, so its server is believed
//! only what happened after.

use std::time::Duration;

use vocabulary::Timestamp;

use crate::claims;
use crate::session::Session;
use crate::table::Table;

/// Sessions of the past are remembered so long after their last report, so that late reports do not
/// bring them back.
const REMEMBERED: Duration = Duration::from_hours(24);

/// A search for room reads all of the table, so it makes room for many, and where it finds none the
/// next one waits.
const ROOM: usize = 8_192;
const SEARCH_PAUSE: Duration = Duration::from_secs(60);

impl Table {
    /// Takes a session in, if there is room for it.
    pub(crate) fn open(&mut self, session: Session, now: Timestamp) -> Option<u32> {
        if self.slab.len() >= self.settings.sessions_max {
            self.make_room(now);
        }
        if self.slab.len() >= self.settings.sessions_max {
            return None;
        }
        let slot = self.slab.insert(session);
        self.by_name.insert(&self.slab, slot);
        Some(slot)
    }

    fn make_room(&mut self, now: Timestamp) {
        // A clock that goes back must not make the pause longer.
        if now >= self.full_at && now.saturating_since(self.full_at) < SEARCH_PAUSE {
            return;
        }
        let is_past = |session: &Session| self.is_over(session) || self.is_stale(session, now);
        let past = self.slab.iter().filter(|(_, session)| is_past(session));
        let mut past: Vec<_> =
            past.map(|(slot, session)| (session.told_s, session.place, slot)).collect();
        if past.is_empty() {
            self.full_at = now;
        }
        let room = ROOM.min(self.settings.sessions_max / 8).max(1);
        if room < past.len() {
            past.select_nth_unstable(room);
            past.truncate(room);
        }
        past.iter().for_each(|(.., slot)| self.forget(*slot));
    }

    /// Forgets sessions of the past; says how many.
    pub(crate) fn expire(&mut self, now: Timestamp) -> usize {
        let is_past = |session: &Session| {
            let silent = now.saturating_since(session.told_at());
            silent > REMEMBERED && (self.is_over(session) || self.is_stale(session, now))
        };
        let slots = self.slab.iter().filter(|(_, session)| is_past(session));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        slots.iter().for_each(|slot| self.forget(*slot));
        self.thin_out();
        slots.len()
    }

    fn forget(&mut self, slot: u32) {
        let Some(session) = self.slab.find(slot).cloned() else { return };
        self.end_those_before(&session);
        self.origins.forget(session.origin, session.heard);
        self.remove(slot);
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.unindex(slot);
        self.by_name.remove(&self.slab, slot);
        self.changed.remove(&slot);
        self.removed.extend(self.slab.remove(slot).map(|session| session.place));
    }

    /// Ends the sessions that only this one kept from their address, because nothing will say so
    /// any more.
    pub(crate) fn end_those_before(&mut self, session: &Session) {
        let is_over = self.is_over(session);
        let comes_after = |other: &Session| match is_over {
            true => claims::outlives(other, session),
            false => other.holder().is(session.holder()) || claims::is_past(session, other),
        };
        let before = self.rivals(session).filter(|(_, other)| !self.is_over(other));
        let before: Vec<u32> =
            before.filter(|(_, other)| !comes_after(other)).map(|(slot, _)| slot).collect();
        for slot in before {
            self.end(slot);
        }
    }

    fn end(&mut self, slot: u32) {
        if let Some(session) = self.slab.find_mut(slot) {
            session.stopped = Some(session.heard);
            self.changed.insert(slot);
        }
    }
}
