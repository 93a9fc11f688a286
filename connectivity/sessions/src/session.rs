//! One session as the table holds it, in 168 bytes and its name.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use vocabulary::{CellTower, Iccid, Imei, Imsi, Msisdn, Octets, RadioAccess, SessionReport};

use crate::index::Key;

/// A SIM without a number.
const NO_NUMBER: u64 = u64::MAX;

/// What is known of a session. Times are event times in microseconds, never after the arrival of
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
    pub(crate) access: Option<RadioAccess>,
    pub(crate) origin: u32,
    pub(crate) address: u32,
    pub(crate) prefix: u64,
    pub(crate) longest_gap_s: u32,
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
            access: None,
            origin: 0,
            address: 0,
            prefix: 0,
            longest_gap_s: 0,
            iccid: NO_NUMBER,
            imsi: NO_NUMBER,
            msisdn: 0,
            imei: 0,
        }
    }

    /// Takes what a report says beside addresses; `is_newest` if no later one was heard.
    pub(crate) fn learn(&mut self, report: &SessionReport, is_newest: bool) {
        if let Some(iccid) = report.iccid {
            self.iccid = iccid.as_u64();
        }
        if let Some(imsi) = report.imsi {
            self.imsi = imsi.as_u64();
        }
        self.msisdn = report.msisdn.map_or(self.msisdn, pack);
        self.imei = report.imei.map_or(self.imei, pack);
        if !is_newest {
            return;
        }
        let access = report.access.or(report.cell.map(|cell| cell.access));
        self.access = access.or(self.access);
        self.cell = report.cell.or(self.cell);
        if let Some(octets) = report.octets {
            (self.octets, self.has_octets) = (octets, true);
        }
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

pub(crate) fn prefix_bits(v6: Ipv6Addr) -> u64 {
    (v6.to_bits() >> 64) as u64
}

/// By origin and name.
pub(crate) struct ByName;

impl Key for ByName {
    type Of<'a> = (u32, &'a str);
    fn of(session: &Session) -> Option<Self::Of<'_>> {
        Some((session.origin, &session.name))
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
        session.iccid().map(Iccid::as_u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small_and_numbers_keep_their_zeros() {
        assert!(size_of::<Session>() <= 176, "{}", size_of::<Session>());
        let imei: Imei = "0520990017614823".parse().unwrap();
        assert_eq!(unpack::<Imei>(pack(imei)), Some(imei));
        let msisdn: Msisdn = "00491".parse().unwrap();
        assert_eq!(unpack::<Msisdn>(pack(msisdn)), Some(msisdn));
        assert_eq!(unpack::<Msisdn>(0), None);
    }
}
