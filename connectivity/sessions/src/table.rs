//! The rules of leases, applied to one report after the other.
//!
//! The order of arrival is not trusted: who holds an address follows from the set of reports alone,
//! whatever order they came in. Each session holds its address from the first to the last report
//! that names it. Of those that have not ended the newest one holds it now, if it began to after
//! every other SIM's last report of the same address, and if it was heard after the last one that
//! has ended began: of that one the end was heard, of those before it the end is certain. Where the
//! order is not certain, nobody holds the address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use vocabulary::{
    Iccid, Notice, NoticeCategory, NoticeKind, SessionChange, SessionReport, Timestamp,
};

use crate::index::Index;
use crate::origin::Origins;
use crate::session::{
    ByAddress, ByName, ByPrefix, BySim, Holder, Session, address_bits, prefix_bits,
};
use crate::slab::Slab;
use crate::{Applied, Lease, Outcome, Settings};

/// How far the clocks of two servers may differ. Reports of two servers about one address that are
/// closer have no order.
const CLOCK_SKEW: i64 = 30 * 1_000_000;

/// Between reports that are three times as far apart as any before, a session is no longer heard.
const GAPS: u64 = 3;
/// A session is heard at least so often, or it vouches for nothing.
const STALE_MAX: Duration = Duration::from_hours(24);

/// Sessions of the past are remembered so long, so that late reports do not bring them back.
const REMEMBERED: Duration = Duration::from_hours(24);

/// The table cannot be swept for room more often: a sweep reads all of it.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Table {
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    pub(crate) slab: Slab,
    by_name: Index<ByName>,
    by_address: Index<ByAddress>,
    by_prefix: Index<ByPrefix>,
    by_sim: Index<BySim>,
    /// The place after the last report that was applied.
    pub(crate) cursor: u64,
    /// Numbers of sessions that the snapshot does not show yet, as they are in the slab.
    pub(crate) changed: BTreeSet<u32>,
    /// Sessions that the snapshot still has.
    pub(crate) removed: Vec<u64>,
    swept: Timestamp,
}

impl Table {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            origins: Origins::default(),
            slab: Slab::default(),
            by_name: Index::new(),
            by_address: Index::new(),
            by_prefix: Index::new(),
            by_sim: Index::new(),
            cursor: 0,
            changed: BTreeSet::new(),
            removed: Vec::new(),
            swept: Timestamp::from_micros(i64::MIN),
        }
    }

    /// A session of an earlier start.
    pub(crate) fn restore(&mut self, session: Session) {
        let slot = self.slab.insert(session);
        self.by_name.insert(&self.slab, slot);
        self.by_sim.insert(&self.slab, slot);
        self.index_address(slot);
    }

    pub(crate) fn apply(
        &mut self,
        (place, arrived): (u64, Timestamp),
        report: &SessionReport,
    ) -> Applied {
        if place < self.cursor {
            return Applied::new(Outcome::Repeated);
        }
        self.cursor = place + 1;
        // A clock that is ahead must not keep a lease alive.
        let at = report.happened_at.min(arrived).as_micros();
        let origin = self.origins.number_of(&report.feed, &report.server);
        match report.change {
            SessionChange::Restart => {
                self.origins.restart(origin, at);
                Applied::new(Outcome::Restarted)
            }
            SessionChange::Stop => self.stop(origin, report, (place, at)),
            SessionChange::Start | SessionChange::Update => {
                self.hear((origin, report), (place, at), arrived)
            }
        }
    }

    fn named(&self, origin: u32, name: &str) -> Option<u32> {
        self.by_name.find(&self.slab, (origin, name)).next()
    }

    fn stop(&mut self, origin: u32, report: &SessionReport, (place, at): (u64, i64)) -> Applied {
        let known = self.named(origin, &report.session);
        let outcome = if known.is_some() { Outcome::Ended } else { Outcome::EndedUnknown };
        // Remembered, too: its beginning may be on its way.
        let slot = known.or_else(|| {
            self.make_room(Timestamp::from_micros(at));
            self.open(Session::opened(place, origin, report, at))
        });
        let Some(slot) = slot else { return Applied::new(Outcome::Full) };
        self.unindex(slot);
        let session = self.slab.find_mut(slot).map(|session| {
            session.learn(report, at >= session.heard);
            session.heard = session.heard.max(at);
            session.stopped = session.stopped.or(Some(at));
            session.place
        });
        if known.is_none() {
            self.name_address(slot, report, at);
        }
        self.by_sim.insert(&self.slab, slot);
        self.index_address(slot);
        self.changed.insert(slot);
        Applied { session, ..Applied::new(outcome) }
    }

    /// A beginning or an update.
    fn hear(
        &mut self,
        (origin, report): (u32, &SessionReport),
        (place, at): (u64, i64),
        arrived: Timestamp,
    ) -> Applied {
        let contested_before = self.is_contested(report);
        let known = self.named(origin, &report.session);
        let slot = match known.and_then(|slot| Some((slot, self.slab.find(slot)?))) {
            // A name that has ended does not come back while its late reports may be on their way,
            // unless its server began anew.
            Some((slot, session)) if self.is_over(session) => {
                let restarted = self.origins.restarted(origin);
                let is_anew = report.change == SessionChange::Start && at > restarted;
                if session.began > restarted || !is_anew {
                    return Applied::new(Outcome::Late);
                }
                self.remove(slot);
                None
            }
            found => found.map(|(slot, _)| slot),
        };
        let slot = slot.or_else(|| {
            self.make_room(arrived);
            self.open(Session::opened(place, origin, report, at))
        });
        let Some(slot) = slot else { return Applied::new(Outcome::Full) };
        let outcome = self.update(slot, report, at);
        self.changed.insert(slot);
        let session = self.slab.find(slot).map(|session| session.place);
        if at <= self.origins.restarted(origin) {
            // Remembered, too: it was over before it was heard of.
            return Applied { session, ..Applied::new(Outcome::Late) };
        }
        let is_contested = !contested_before && self.is_contested(report);
        let notice = is_contested.then(|| contested(report));
        Applied { outcome, session, notice }
    }

    fn update(&mut self, slot: u32, report: &SessionReport, at: i64) -> Outcome {
        self.unindex(slot);
        self.name_address(slot, report, at);
        let mut outcome = Outcome::Updated;
        if let Some(session) = self.slab.find_mut(slot) {
            if session.place + 1 == self.cursor {
                outcome = Outcome::Opened;
            } else {
                let gap = at.saturating_sub(session.heard).max(0) / 1_000_000;
                let gap = u32::try_from(gap).unwrap_or(u32::MAX);
                session.longest_gap_s = session.longest_gap_s.max(gap);
            }
            session.learn(report, at >= session.heard);
            session.began = session.began.min(at);
            session.heard = session.heard.max(at);
        }
        self.by_sim.insert(&self.slab, slot);
        self.index_address(slot);
        outcome
    }

    /// Takes the address that a report names, if it names one and is not old.
    fn name_address(&mut self, slot: u32, report: &SessionReport, at: i64) {
        let address = report.ipv4.map_or(0, |v4| v4.to_bits());
        let prefix = report.ipv6_prefix.map_or(0, prefix_bits);
        let Some(session) = self.slab.find_mut(slot) else { return };
        if address == 0 && prefix == 0 {
            return;
        }
        let is_same = |new: u64, known: u64| new == 0 || new == known;
        if is_same(address.into(), session.address.into()) && is_same(prefix, session.prefix) {
            session.held_since = session.held_since.min(at);
            session.claimed = session.claimed.max(at);
        } else if at >= session.heard || !session.has_address() {
            (session.address, session.prefix) = (address, prefix);
            (session.held_since, session.claimed) = (at, at);
        }
    }

    fn open(&mut self, session: Session) -> Option<u32> {
        if self.slab.len() >= self.settings.sessions_max {
            return None;
        }
        let slot = self.slab.insert(session);
        self.by_name.insert(&self.slab, slot);
        Some(slot)
    }

    /// Takes a session out of the indexes whose keys may change.
    fn unindex(&mut self, slot: u32) {
        self.by_sim.remove(&self.slab, slot);
        self.by_address.remove(&self.slab, slot);
        self.by_prefix.remove(&self.slab, slot);
    }

    fn index_address(&mut self, slot: u32) {
        let Some(session) = self.slab.find(slot) else { return };
        if self.is_over(session) {
            // Of what has ended only the newest says something about others.
            let v4 = self.by_address.find(&self.slab, session.address);
            let v6 = self.by_prefix.find(&self.slab, session.prefix);
            let is_older = |slot: &u32| {
                self.slab.find(*slot).is_some_and(|other| {
                    other.origin == session.origin
                        && other.held_since <= session.held_since
                        && self.is_over(other)
                })
            };
            let older: Vec<u32> = v4.chain(v6).filter(is_older).collect();
            for slot in older {
                self.by_address.remove(&self.slab, slot);
                self.by_prefix.remove(&self.slab, slot);
            }
        }
        self.by_address.insert(&self.slab, slot);
        self.by_prefix.insert(&self.slab, slot);
    }

    fn remove(&mut self, slot: u32) {
        self.unindex(slot);
        self.by_name.remove(&self.slab, slot);
        self.changed.remove(&slot);
        self.removed.extend(self.slab.remove(slot).map(|session| session.place));
    }

    /// Whether a session has ended for sure: it was said, or its server began anew.
    pub(crate) fn is_over(&self, session: &Session) -> bool {
        session.stopped.is_some() || session.began <= self.origins.restarted(session.origin)
    }

    pub(crate) fn find(&self, ip: IpAddr, now: Timestamp) -> Lease {
        match self.claim(ip) {
            Claim::Nobody => Lease::None,
            Claim::Contested => Lease::Contested,
            Claim::Held(session) if self.is_stale(session, now) => {
                Lease::Stale { iccid: session.iccid(), imsi: session.imsi() }
            }
            Claim::Held(session) => {
                Lease::Live { session: session.place, iccid: session.iccid(), imsi: session.imsi() }
            }
        }
    }

    fn claim(&self, ip: IpAddr) -> Claim<'_> {
        let (address, prefix) = address_bits(ip);
        if address != 0 {
            self.holder(|| self.by_address.find(&self.slab, address))
        } else if prefix != 0 {
            self.holder(|| self.by_prefix.find(&self.slab, prefix))
        } else {
            Claim::Nobody
        }
    }

    fn holder<I: Iterator<Item = u32>>(&self, slots: impl Fn() -> I) -> Claim<'_> {
        let claims = || slots().filter_map(|slot| self.slab.find(slot));
        let live = claims().filter(|session| !self.is_over(session));
        let newest = live.max_by_key(|session| (session.held_since, session.place));
        let Some(newest) = newest else { return Claim::Nobody };
        let mut holds = true;
        for other in claims().filter(|other| other.place != newest.place) {
            if self.is_over(other) {
                if other.held_since > newest.claimed.saturating_add(skew(other, newest)) {
                    return Claim::Nobody;
                }
                holds &= is_before(other, newest);
            } else {
                holds &= other.holder().is(newest.holder()) || is_past(other, newest);
            }
        }
        if holds { Claim::Held(newest) } else { Claim::Contested }
    }

    pub(crate) fn is_contested(&self, report: &SessionReport) -> bool {
        let addresses = [report.ipv4.map(IpAddr::V4), report.ipv6_prefix.map(IpAddr::V6)];
        let mut addresses = addresses.into_iter().flatten();
        addresses.any(|ip| matches!(self.claim(ip), Claim::Contested))
    }

    /// Whether a session is the one that its address speaks for.
    pub(crate) fn holds_its_address(&self, session: &Session) -> bool {
        let v4 = session.ipv4().map(IpAddr::V4);
        let ip = v4.or(session.ipv6_prefix().map(IpAddr::V6));
        ip.is_some_and(
            |ip| matches!(self.claim(ip), Claim::Held(found) if found.place == session.place),
        )
    }

    /// Whether another session has its address for sure.
    pub(crate) fn is_replaced(&self, session: &Session) -> bool {
        let v4 = self.by_address.find(&self.slab, session.address);
        let v6 = self.by_prefix.find(&self.slab, session.prefix);
        let mut others = v4.chain(v6).filter_map(|slot| self.slab.find(slot));
        others.any(|other| is_past(session, other))
    }

    pub(crate) fn is_stale(&self, session: &Session, now: Timestamp) -> bool {
        let usual = self.settings.stale_after(self.origins.feed_of(session.origin));
        let gaps = Duration::from_secs(GAPS * u64::from(session.longest_gap_s));
        let stale_after = usual.max(gaps.min(STALE_MAX));
        now.saturating_since(Timestamp::from_micros(session.heard)) > stale_after
    }

    pub(crate) fn of_sim(&self, iccid: Iccid) -> impl Iterator<Item = &Session> {
        let slots = self.by_sim.find(&self.slab, iccid.as_u64());
        slots.filter_map(|slot| self.slab.find(slot))
    }

    /// Forgets sessions of the past; says how many.
    pub(crate) fn expire(&mut self, now: Timestamp) -> usize {
        let is_past = |session: &Session| {
            let heard = Timestamp::from_micros(session.heard);
            let silent = now.saturating_since(heard);
            silent > REMEMBERED && (self.is_over(session) || self.is_stale(session, now))
        };
        let slots = self.slab.iter().filter(|(_, session)| is_past(session));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        slots.iter().for_each(|slot| self.remove(*slot));
        slots.len()
    }

    /// In a full table the past makes room for the present, at once.
    fn make_room(&mut self, now: Timestamp) {
        if self.slab.len() < self.settings.sessions_max
            || now.saturating_since(self.swept) < SWEEP_PAUSE
        {
            return;
        }
        self.swept = now;
        let over = self.slab.iter().filter(|(_, session)| self.is_over(session));
        let over: Vec<u32> = over.map(|(slot, _)| slot).collect();
        over.iter().for_each(|slot| self.remove(*slot));
    }
}

/// Who may hold an address.
enum Claim<'a> {
    Nobody,
    Held(&'a Session),
    Contested,
}

/// How far apart times of two sessions must be to have an order.
fn skew(one: &Session, two: &Session) -> i64 {
    if one.origin == two.origin { 0 } else { CLOCK_SKEW }
}

/// Whether `newest` began to hold the address after `other` was last heard to, for sure.
fn is_past(other: &Session, newest: &Session) -> bool {
    newest.held_since > other.claimed.saturating_add(skew(other, newest))
}

/// Whether `newest` was heard after `ended` began, for sure: it is not one of those that `ended`
/// came after. Within one second of one server the order of arrival decides.
fn is_before(ended: &Session, newest: &Session) -> bool {
    let since = ended.held_since.saturating_add(skew(ended, newest));
    newest.claimed > since
        || newest.claimed == since && ended.origin == newest.origin && newest.place > ended.place
}

fn contested(report: &SessionReport) -> Notice {
    let message = "DataSession[Contested]";
    let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
    notice.iccid = report.iccid;
    notice.imsi = report.imsi;
    notice.ip = report.ipv4.map(IpAddr::V4).or(report.ipv6_prefix.map(IpAddr::V6));
    let somebody = if Holder::of(report).is_nobody() { " of a SIM that is not named" } else { "" };
    notice.description = format!(
        "Session {:?}{somebody} of feed {:?}, server {:?}, and one of another SIM claim the same \
         address at the same time. Its messages are refused until one of the sessions ends.",
        report.session, report.feed, report.server
    );
    notice
}
