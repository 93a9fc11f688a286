//! The rules of sessions, applied to one report after the other.
//!
//! The order of arrival is not trusted: who holds an address follows from the set of reports alone,
//! whatever order they came in ([`crate::claims`]). So nothing that was said of an address may be
//! lost while older reports may be on their way: a session that ends, that moves to another address
//! or whose name is given to another stays as a witness.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use vocabulary::{Iccid, SessionChange, SessionReport, Timestamp};

use crate::claims::{self, CLOCK_SKEW_S, Claim};
use crate::index::Index;
use crate::notices::Notices;
use crate::origin::{NO_ORIGIN, Origins};
use crate::session::{ByAddress, ByName, ByPrefix, BySim, Holder, Session, address_bits};
use crate::slab::Slab;
use crate::{Applied, Lease, Outcome, Settings};

/// Between reports that are three times as far apart as any before, a session is no longer heard.
const GAPS: u64 = 3;
/// A session is heard at least so often, or it vouches for nothing.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Sessions that are compared for one address at most. An address that more of them name is not
/// one that a device has to itself, and looking at all of them for each report would take hours.
const CLAIMS_MAX: usize = 1_000;

pub(crate) struct Table {
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    pub(crate) slab: Slab,
    pub(crate) by_name: Index<ByName>,
    by_address: Index<ByAddress>,
    by_prefix: Index<ByPrefix>,
    by_sim: Index<BySim>,
    /// The place after the last report that was applied.
    pub(crate) cursor: u64,
    /// The newest arrival of all reports.
    pub(crate) newest_arrival: Timestamp,
    /// When no room was found in a full table.
    pub(crate) full_at: Timestamp,
    /// Numbers of sessions that the snapshot does not show yet, as they are in the slab.
    pub(crate) changed: BTreeSet<u32>,
    /// Sessions that the snapshot still has.
    pub(crate) removed: Vec<u64>,
    notices: Notices,
}

/// Where a report stands, and when it was true.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) place: u64,
    pub(crate) at: i64,
    pub(crate) arrived: Timestamp,
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
            newest_arrival: Timestamp::from_micros(i64::MIN),
            full_at: Timestamp::from_micros(i64::MIN),
            changed: BTreeSet::new(),
            removed: Vec::new(),
            notices: Notices::default(),
        }
    }

    /// A session of an earlier start.
    pub(crate) fn restore(&mut self, session: Session) {
        let slot = self.slab.insert(session);
        self.by_name.insert(&self.slab, slot);
        self.index(slot);
        self.changed.remove(&slot);
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
        self.newest_arrival = self.newest_arrival.max(arrived);
        // A clock far ahead says no more than the order of arrival. Of the arrivals the newest
        // counts: the clock of this machine may have gone back.
        let ahead = self.newest_arrival.saturating_add(Duration::from_secs(CLOCK_SKEW_S));
        let at = report.happened_at.min(ahead).as_micros();
        let moment = Moment { place, at, arrived };
        let Some(origin) = self.origins.number_of(&report.feed, &report.server) else {
            return self.refuse_server(report, moment);
        };
        let contested_before = self.is_contested(report);
        let mut applied = match report.change {
            SessionChange::Restart => {
                self.origins.restart(origin, at);
                Applied::new(Outcome::Restarted)
            }
            SessionChange::Stop => self.stop(origin, report, moment),
            SessionChange::Start | SessionChange::Update => self.hear(origin, report, moment),
            SessionChange::Usage => self.count(origin, report, at),
        };
        applied.notice = match applied.outcome {
            Outcome::Full => self.notices.full_of_sessions(arrived, self.settings.sessions_max),
            _ if !contested_before && self.is_contested(report) => {
                self.notices.contested(arrived, report)
            }
            _ => None,
        };
        applied
    }

    /// There are too many servers to remember another. What it says takes addresses all the same.
    fn refuse_server(&mut self, report: &SessionReport, moment: Moment) -> Applied {
        let Moment { place, at, arrived } = moment;
        self.end_those_before(&Session::former(place, NO_ORIGIN, report, at));
        let notice = self.notices.full_of_servers(arrived, report);
        Applied { notice, ..Applied::new(Outcome::Full) }
    }

    fn named(&self, origin: u32, name: &str) -> Option<u32> {
        self.by_name.find(&self.slab, (origin, name)).next()
    }

    fn stop(&mut self, origin: u32, report: &SessionReport, moment: Moment) -> Applied {
        let known = self.named(origin, &report.session);
        if known.is_some_and(|slot| self.is_of_another(slot, report)) {
            return self.bear_witness(Session::former(moment.place, origin, report, moment.at));
        }
        // Remembered where it is not known, too: its beginning may be on its way.
        let outcome = if known.is_some() { Outcome::Ended } else { Outcome::EndedUnknown };
        self.take(known, outcome, (origin, report, moment))
    }

    /// A beginning or an update.
    fn hear(&mut self, origin: u32, report: &SessionReport, moment: Moment) -> Applied {
        let Moment { place, at, .. } = moment;
        let named = self.named(origin, &report.session);
        let Some((slot, session)) = named.and_then(|slot| Some((slot, self.slab.find(slot)?)))
        else {
            if at <= self.origins.forgotten(origin) {
                return self.bear_witness(Session::former(place, origin, report, at));
            }
            let is_over = at <= self.origins.restarted(origin);
            let outcome = if is_over { Outcome::Late } else { Outcome::Opened };
            return self.take(None, outcome, (origin, report, moment));
        };
        let is_another = self.is_of_another(slot, report);
        let restarted = self.origins.restarted(origin);
        // A name that has ended does not come back while its late reports may be on their way,
        // unless its server began anew.
        let is_counted_anew =
            report.change == SessionChange::Start && session.began <= restarted && at > restarted;
        let began = session.began;
        if is_counted_anew || is_another && at > session.heard {
            self.retire(slot);
            return self.take(None, Outcome::Opened, (origin, report, moment));
        }
        if is_another {
            // One name of two SIMs in one second says nothing of either.
            if at >= began {
                self.retire(slot);
            }
            return self.bear_witness(Session::former(place, origin, report, at));
        }
        let outcome = if self.is_over(session) { Outcome::Late } else { Outcome::Updated };
        self.take(Some(slot), outcome, (origin, report, moment))
    }

    /// Adds octets to the session that carried them.
    fn count(&mut self, origin: u32, report: &SessionReport, until: i64) -> Applied {
        let uncounted = Applied::new(Outcome::Uncounted);
        let (Some(octets), Some(from)) = (report.octets, report.counted_from) else {
            return uncounted;
        };
        let span = (from.as_micros(), until);
        let Some(slot) = self.carrier(origin, report, span) else { return uncounted };
        let Some(session) = self.slab.find_mut(slot) else { return uncounted };
        if !session.add(octets, span) {
            return uncounted;
        }
        let session = Some(session.place);
        self.changed.insert(slot);
        Applied { session, ..Applied::new(Outcome::Counted) }
    }

    /// The session that a report of usage names. Where it names none, the session of the SIM that
    /// lasted for the span; of two that may have, neither: what they have carried is told when they
    /// end.
    fn carrier(
        &self,
        origin: u32,
        report: &SessionReport,
        (from, until): (i64, i64),
    ) -> Option<u32> {
        if !report.session.is_empty() {
            let named = self.named(origin, &report.session);
            return named.filter(|slot| !self.is_of_another(*slot, report));
        }
        let skew = CLOCK_SKEW_S.cast_signed() * 1_000_000;
        let lasted = |session: &Session| {
            session.origin == origin
                && session.began <= from.saturating_add(skew)
                && session.stopped.is_none_or(|stopped| stopped.saturating_add(skew) >= until)
        };
        let slots = self.by_sim.find(&self.slab, report.iccid?.as_u64());
        let mut found = slots.filter(|slot| self.slab.find(*slot).is_some_and(lasted));
        match (found.next(), found.next()) {
            (Some(slot), None) => Some(slot),
            _ => None,
        }
    }

    /// Takes what a report says of a session that is known, or opens one.
    fn take(
        &mut self,
        known: Option<u32>,
        outcome: Outcome,
        (origin, report, moment): (u32, &SessionReport, Moment),
    ) -> Applied {
        let opened = || Session::opened(moment.place, origin, report, moment.at);
        let Some(slot) = known.or_else(|| self.open(opened(), moment.arrived)) else {
            self.end_those_before(&Session::former(moment.place, origin, report, moment.at));
            self.origins.forget(origin, moment.at);
            return Applied::new(Outcome::Full);
        };
        Applied { session: self.update(slot, report, moment), ..Applied::new(outcome) }
    }

    fn update(&mut self, slot: u32, report: &SessionReport, moment: Moment) -> Option<u64> {
        let at = moment.at;
        self.unindex(slot);
        let session = self.slab.find_mut(slot)?;
        let former = session.name_address(report, (moment.place, at));
        if session.place != moment.place {
            let gap = at.saturating_sub(session.heard).max(0) / 1_000_000;
            let gap = u32::try_from(gap).unwrap_or(u32::MAX);
            session.longest_gap_s = session.longest_gap_s.max(gap);
        }
        session.learn(report, at >= session.heard);
        session.began = session.began.min(at);
        session.heard = session.heard.max(at);
        session.told(moment.arrived);
        if report.change == SessionChange::Stop {
            session.stopped = session.stopped.or(Some(at));
        }
        let place = session.place;
        self.index(slot);
        self.changed.insert(slot);
        if let Some(former) = former {
            self.bear_witness(former);
        }
        Some(place)
    }

    /// Remembers what was said of an address by a session that holds it no more.
    fn bear_witness(&mut self, mut former: Session) -> Applied {
        let late = Applied::new(Outcome::Late);
        if !former.has_address() {
            return late;
        }
        // One who says the same, and later, is enough.
        let is_like = |other: &Session| {
            other.is_former
                && other.origin == former.origin
                && (other.address, other.prefix) == (former.address, former.prefix)
                && other.holder() == former.holder()
        };
        let like = self.rivals(&former).find(|(_, other)| is_like(other));
        match like.map(|(slot, other)| (slot, other.held_since)) {
            Some((_, held_since)) if held_since > former.held_since => return late,
            Some((slot, _)) => self.remove(slot),
            None => {}
        }
        let arrived = self.newest_arrival;
        former.told(arrived);
        match self.open(former.clone(), arrived) {
            Some(slot) => {
                self.index(slot);
                self.changed.insert(slot);
            }
            None => self.end_those_before(&former),
        }
        late
    }

    /// Keeps a session only as a witness: its name is another's now.
    fn retire(&mut self, slot: u32) {
        self.unindex(slot);
        self.by_name.remove(&self.slab, slot);
        let Some(session) = self.slab.find_mut(slot) else { return };
        session.is_former = true;
        session.name = "".into();
        session.stopped = session.stopped.or(Some(session.heard));
        if session.has_address() {
            self.index(slot);
            self.changed.insert(slot);
        } else {
            self.remove(slot);
        }
    }

    fn is_of_another(&self, slot: u32, report: &SessionReport) -> bool {
        let holder = self.slab.find(slot).map(Session::holder);
        holder.is_some_and(|holder| holder.contradicts(Holder::of(report)))
    }

    /// Takes a session out of the indexes whose keys may change.
    pub(crate) fn unindex(&mut self, slot: u32) {
        self.by_sim.remove(&self.slab, slot);
        self.by_address.remove(&self.slab, slot);
        self.by_prefix.remove(&self.slab, slot);
    }

    fn index(&mut self, slot: u32) {
        let Some(session) = self.slab.find(slot) else { return };
        if self.is_over(session) {
            self.supersede(slot);
        }
        self.by_sim.insert(&self.slab, slot);
        self.by_address.insert_up_to(CLAIMS_MAX, &self.slab, slot);
        self.by_prefix.insert_up_to(CLAIMS_MAX, &self.slab, slot);
    }

    /// Compares the sessions again of addresses that fewer name now.
    pub(crate) fn thin_out(&mut self) {
        self.by_address.thin_out(CLAIMS_MAX, &self.slab);
        self.by_prefix.thin_out(CLAIMS_MAX, &self.slab);
    }

    /// Of what has ended on one server only the newest says something about others.
    fn supersede(&mut self, slot: u32) {
        let Some(session) = self.slab.find(slot) else { return };
        let is_older = |slot: &u32| {
            self.slab.find(*slot).is_some_and(|other| {
                let order = |session: &Session| (session.held_since, session.place);
                other.origin == session.origin
                    && order(other) < order(session)
                    && self.is_over(other)
            })
        };
        let v4 = self.by_address.find(&self.slab, session.address).filter(is_older);
        let v6 = self.by_prefix.find(&self.slab, session.prefix).filter(is_older);
        let (v4, v6): (Vec<u32>, Vec<u32>) = (v4.collect(), v6.collect());
        v4.iter().for_each(|slot| self.by_address.remove(&self.slab, *slot));
        v6.iter().for_each(|slot| self.by_prefix.remove(&self.slab, *slot));
    }

    /// Whether a session has ended for sure: it was said, or its server began anew.
    pub(crate) fn is_over(&self, session: &Session) -> bool {
        session.stopped.is_some() || session.began <= self.origins.restarted(session.origin)
    }

    pub(crate) fn find(&self, ip: IpAddr, now: Timestamp) -> Lease {
        match self.claim(ip) {
            Claim::Nobody => Lease::None,
            Claim::Contested => Lease::Contested,
            Claim::Ended(session) => Lease::Ended { iccid: session.iccid(), imsi: session.imsi() },
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
        let found = |slot| self.slab.find(slot);
        let is_over = |session: &Session| self.is_over(session);
        if self.by_address.is_crowded(&address) || self.by_prefix.is_crowded(&prefix) {
            return Claim::Contested;
        }
        if address != 0 {
            let claims = || self.by_address.find(&self.slab, address).filter_map(found);
            claims::holder(claims, is_over)
        } else if prefix != 0 {
            let claims = || self.by_prefix.find(&self.slab, prefix).filter_map(found);
            claims::holder(claims, is_over)
        } else {
            Claim::Nobody
        }
    }

    /// The sessions that share an address with this one.
    pub(crate) fn rivals<'a>(
        &'a self,
        session: &'a Session,
    ) -> impl Iterator<Item = (u32, &'a Session)> {
        let v4 = self.by_address.find(&self.slab, session.address);
        let v6 = self.by_prefix.find(&self.slab, session.prefix);
        let found = |slot| self.slab.find(slot).map(|other| (slot, other));
        v4.chain(v6).filter_map(found).filter(|(_, other)| other.place != session.place)
    }

    fn is_contested(&self, report: &SessionReport) -> bool {
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
        self.rivals(session).any(|(_, other)| claims::is_past(session, other))
    }

    pub(crate) fn is_stale(&self, session: &Session, now: Timestamp) -> bool {
        let usual = self.settings.stale_after(self.origins.feed_of(session.origin));
        let gaps = Duration::from_secs(GAPS * u64::from(session.longest_gap_s));
        let stale_after = usual.max(gaps.min(STALE_MAX));
        now.saturating_since(session.heard_at()) > stale_after
    }

    pub(crate) fn of_sim(&self, iccid: Iccid) -> impl Iterator<Item = &Session> {
        let slots = self.by_sim.find(&self.slab, iccid.as_u64());
        slots.filter_map(|slot| self.slab.find(slot))
    }
}
