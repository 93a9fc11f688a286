//! One session as the table holds it, in at most 192 bytes and its name.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use vocabulary::{
    CellTower, Iccid, Imei, Imsi, Msisdn, Octets, RadioAccess, SessionReport, Timestamp,
};

use crate::index::Key;

/// A SIM without a number.
const NO_NUMBER: u64 = u64::MAX;

/// What is known of a session. Times are event times in microseconds, hardly after the arrival of
/// the report that brought them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    /// The place in the log of the report that opened it: its number.
    pub(crate) place: u64,
    pub(crate) began: i64,
    /// The first and the last report that named the address of now.
    pub(crate) held_since: i64,
    pub(crate) claimed: i64,
    /// The last report.
    pub(crate) heard: i64,
    /// When it ended, if its end was reported.
    pub(crate) stopped: Option<i64>,
    pub(crate) name: Box<str>,
    pub(crate) cell: Option<CellTower>,
    pub(crate) octets: Octets,
    pub(crate) has_octets: bool,
    /// Up to when octets were added up; for ever where a report told their sum.
    pub(crate) counted_until: i64,
    pub(crate) access: Option<RadioAccess>,
    pub(crate) origin: u32,
    pub(crate) address: u32,
    pub(crate) prefix: u64,
    pub(crate) longest_gap_s: u32,
    /// When its last report arrived, in seconds since 1970, rounded up.
    pub(crate) told_s: u32,
    /// Only remembered for its address: the name, and perhaps the SIM, are those of another
    /// session now, or this session moved to another address.
    pub(crate) is_former: bool,
    /// Numbers as they are packed here.
    pub(crate) iccid: u64,
    pub(crate) imsi: u64,
    pub(crate) msisdn: u64,
    pub(crate) imei: u64,
}

/// The SIM of a session, as far as it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    iccid: u64,
    imsi: u64,
}

impl Holder {
    /// Whether both are certainly the same SIM.
    pub(crate) fn is(self, other: Self) -> bool {
        let same = |one: u64, two: u64| one != NO_NUMBER && one == two;
        let differ = |one: u64, two: u64| one != NO_NUMBER && two != NO_NUMBER && one != two;
        let contradicts = differ(self.iccid, other.iccid) || differ(self.imsi, other.imsi);
        (same(self.iccid, other.iccid) || same(self.imsi, other.imsi)) && !contradicts
    }

    /// Of a report.
    pub(crate) fn of(report: &SessionReport) -> Self {
        Self {
            iccid: report.iccid.map_or(NO_NUMBER, Iccid::as_u64),
            imsi: report.imsi.map_or(NO_NUMBER, Imsi::as_u64),
        }
    }

    /// Whether both are certainly not the same SIM. One card may have several subscribers.
    pub(crate) fn contradicts(self, other: Self) -> bool {
        let differ = |one: u64, two: u64| one != NO_NUMBER && two != NO_NUMBER && one != two;
        let is_same_card = self.iccid != NO_NUMBER && self.iccid == other.iccid;
        !is_same_card && (differ(self.iccid, other.iccid) || differ(self.imsi, other.imsi))
    }

    /// Whether nothing is known of the SIM.
    pub(crate) fn is_nobody(self) -> bool {
        self.iccid == NO_NUMBER && self.imsi == NO_NUMBER
    }
}

impl Session {
    /// A session that a report opens at `at`.
    pub(crate) fn opened(place: u64, origin: u32, report: &SessionReport, at: i64) -> Self {
        Self {
            place,
            origin,
            began: at,
            held_since: at,
            claimed: at,
            heard: at,
            name: report.session.as_str().into(),
            ..Self::empty()
        }
    }

    /// A session of which nothing is known.
    pub(crate) fn empty() -> Self {
        Self {
            place: 0,
            began: 0,
            held_since: 0,
            claimed: 0,
            heard: 0,
            stopped: None,
            name: "".into(),
            cell: None,
            octets: Octets::default(),
            has_octets: false,
            counted_until: i64::MIN,
            access: None,
            origin: 0,
            address: 0,
            prefix: 0,
            longest_gap_s: 0,
            told_s: 0,
            is_former: false,
            iccid: NO_NUMBER,
            imsi: NO_NUMBER,
            msisdn: 0,
            imei: 0,
        }
    }

    /// What a report says of an address that is the session's no more.
    pub(crate) fn former(place: u64, origin: u32, report: &SessionReport, at: i64) -> Self {
        let holder = Holder::of(report);
        Self {
            name: "".into(),
            stopped: Some(at),
            is_former: true,
            address: report.ipv4.map_or(0, |v4| v4.to_bits()),
            prefix: report.ipv6_prefix.map_or(0, prefix_bits),
            iccid: holder.iccid,
            imsi: holder.imsi,
            ..Self::opened(place, origin, report, at)
        }
    }

    /// What this session leaves behind where it moves away from these of its addresses.
    pub(crate) fn left_behind(&self, place: u64, (address, prefix): (u32, u64)) -> Self {
        Self {
            place,
            name: "".into(),
            stopped: Some(self.claimed),
            is_former: true,
            address,
            prefix,
            ..self.clone()
        }
    }

    /// Takes the address that a report names, which may tell of another that the session had.
    pub(crate) fn name_address(
        &mut self,
        report: &SessionReport,
        (place, at): (u64, i64),
    ) -> Option<Self> {
        let named =
            (report.ipv4.map_or(0, |v4| v4.to_bits()), report.ipv6_prefix.map_or(0, prefix_bits));
        let had = (self.address, self.prefix);
        if named == (0, 0) {
            return None;
        }
        let has_moved = (
            named.0 != 0 && had.0 != 0 && named.0 != had.0,
            named.1 != 0 && had.1 != 0 && named.1 != had.1,
        );
        let moved = |(v4, prefix): (u32, u64)| {
            (if has_moved.0 { v4 } else { 0 }, if has_moved.1 { prefix } else { 0 })
        };
        let is_moved = has_moved.0 || has_moved.1;
        if is_moved && at < self.heard {
            let (address, prefix) = moved(named);
            let former = Self::former(place, self.origin, report, at);
            return Some(Self { address, prefix, ..former });
        }
        let former = is_moved.then(|| self.left_behind(place, moved(had)));
        self.address = if named.0 == 0 { had.0 } else { named.0 };
        self.prefix = if named.1 == 0 { had.1 } else { named.1 };
        if had == (0, 0) {
            (self.held_since, self.claimed) = (at, at);
        } else if (self.address, self.prefix) != had {
            // What is new was not named before, so only the time from here on is proof of all.
            self.held_since = self.held_since.max(at);
        } else if named == had {
            self.held_since = self.held_since.min(at);
        }
        self.claimed = self.claimed.max(at);
        former
    }

    /// A report of it arrived.
    pub(crate) fn told(&mut self, arrived: Timestamp) {
        let seconds = arrived.as_micros().saturating_add(999_999).div_euclid(1_000_000);
        self.told_s = self.told_s.max(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX));
    }

    /// When it was last heard: no report is newer than its arrival.
    pub(crate) fn heard_at(&self) -> Timestamp {
        Timestamp::from_micros(self.heard).min(self.told_at())
    }

    /// When its last report arrived.
    pub(crate) fn told_at(&self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.told_s) * 1_000)
    }

    /// Takes what a report says beside addresses; `is_newest` if no later one was heard.
    pub(crate) fn learn(&mut self, report: &SessionReport, is_newest: bool) {
        let told = Holder::of(report);
        let learn = |known: u64, told: u64| match told {
            NO_NUMBER => known,
            // An old report does not say whose it is now.
            told if is_newest || known == NO_NUMBER => told,
            _ => known,
        };
        (self.iccid, self.imsi) = (learn(self.iccid, told.iccid), learn(self.imsi, told.imsi));
        if is_newest || self.msisdn == 0 {
            self.msisdn = report.msisdn.map_or(self.msisdn, pack);
        }
        if is_newest || self.imei == 0 {
            self.imei = report.imei.map_or(self.imei, pack);
        }
        if !is_newest {
            return;
        }
        let access = report.access.or(report.cell.map(|cell| cell.access));
        self.access = access.or(self.access);
        self.cell = report.cell.or(self.cell);
        if let Some(octets) = report.octets {
            (self.octets, self.has_octets, self.counted_until) = (octets, true, i64::MAX);
        }
    }

    /// Adds what was counted from one time to another, unless some of it was added before.
    pub(crate) fn add(&mut self, octets: Octets, (from, until): (i64, i64)) -> bool {
        if from < self.counted_until || until <= from {
            return false;
        }
        let Octets { up, down } = self.octets;
        self.octets =
            Octets { up: up.saturating_add(octets.up), down: down.saturating_add(octets.down) };
        (self.has_octets, self.counted_until) = (true, until);
        true
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder { iccid: self.iccid, imsi: self.imsi }
    }

    pub(crate) fn has_address(&self) -> bool {
        self.address != 0 || self.prefix != 0
    }

    pub(crate) fn iccid(&self) -> Option<Iccid> {
        Some(self.iccid).filter(|number| *number != NO_NUMBER).and_then(Iccid::from_u64)
    }

    pub(crate) fn imsi(&self) -> Option<Imsi> {
        Some(self.imsi).filter(|number| *number != NO_NUMBER).and_then(Imsi::from_u64)
    }

    pub(crate) fn msisdn(&self) -> Option<Msisdn> {
        unpack(self.msisdn)
    }

    pub(crate) fn imei(&self) -> Option<Imei> {
        unpack(self.imei)
    }

    pub(crate) fn octets(&self) -> Option<Octets> {
        self.has_octets.then_some(self.octets)
    }

    pub(crate) fn ipv4(&self) -> Option<Ipv4Addr> {
        (self.address != 0).then(|| Ipv4Addr::from_bits(self.address))
    }

    pub(crate) fn ipv6_prefix(&self) -> Option<Ipv6Addr> {
        (self.prefix != 0).then(|| Ipv6Addr::from_bits(u128::from(self.prefix) << 64))
    }
}

/// Number and count of digits in one word; 0 for none. Sixteen digits take 54 bits.
fn pack(digits: impl Display) -> u64 {
    let text = digits.to_string();
    text.parse().map_or(0, |number: u64| (text.len() as u64) << 56 | number)
}

fn unpack<T: FromStr>(packed: u64) -> Option<T> {
    let (digits, number) = ((packed >> 56) as usize, packed & ((1 << 56) - 1));
    if digits == 0 { None } else { format!("{number:0digits$}").parse().ok() }
}

/// The address as the table keeps it; 0 for none. Of IPv6 the 64 bits that a device is given (3GPP
/// TS 23.401 §5.3.1.2.2).
pub(crate) fn address_bits(ip: IpAddr) -> (u32, u64) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (v4.to_bits(), 0),
        IpAddr::V6(v6) => (0, prefix_bits(v6)),
    }
}

/// The prefix as the table keeps it; 0 for none, and for the one that every device has.
pub(crate) fn prefix_bits(v6: Ipv6Addr) -> u64 {
    if v6.is_unicast_link_local() { 0 } else { (v6.to_bits() >> 64) as u64 }
}

/// By origin and name.
pub(crate) struct ByName;

impl Key for ByName {
    type Of<'a> = (u32, &'a str);
    fn of(session: &Session) -> Option<Self::Of<'_>> {
        (!session.is_former).then_some((session.origin, &*session.name))
    }
}

/// By IPv4 address, of those that may hold it.
pub(crate) struct ByAddress;

impl Key for ByAddress {
    type Of<'a> = u32;
    fn of(session: &Session) -> Option<u32> {
        (session.address != 0).then_some(session.address)
    }
}

/// By IPv6 prefix, of those that may hold it.
pub(crate) struct ByPrefix;

impl Key for ByPrefix {
    type Of<'a> = u64;
    fn of(session: &Session) -> Option<u64> {
        (session.prefix != 0).then_some(session.prefix)
    }
}

/// By SIM.
pub(crate) struct BySim;

impl Key for BySim {
    type Of<'a> = u64;
    fn of(session: &Session) -> Option<u64> {
        session.iccid().filter(|_| !session.is_former).map(Iccid::as_u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small_and_numbers_keep_their_zeros() {
        assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
        let imei: Imei = "0520990017614823".parse().unwrap();
        assert_eq!(unpack::<Imei>(pack(imei)), Some(imei));
        let msisdn: Msisdn = "00491".parse().unwrap();
        assert_eq!(unpack::<Msisdn>(pack(msisdn)), Some(msisdn));
        assert_eq!(unpack::<Msisdn>(0), None);
    }
}
