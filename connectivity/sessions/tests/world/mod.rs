//! A table that hears reports, and the reports.

use std::net::{IpAddr, Ipv4Addr};

use data_sessions::{Lease, Outcome, Sessions, Settings};
use vocabulary::{Iccid, SessionChange, SessionReport, Timestamp};

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

pub(crate) fn iccid(sim: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + sim).unwrap()
}

/// What a server says of a session, that of a SIM with the same number.
pub(crate) fn report(
    server: &str,
    change: SessionChange,
    session: u64,
    seconds: i64,
) -> SessionReport {
    let mut report = SessionReport::new("radius", change, server, at(seconds));
    if change != SessionChange::Restart {
        report.session = format!("session-{session}");
        report.iccid = Some(iccid(session));
        report.ipv4 = Some(ADDRESS);
    }
    report
}

/// A table and the place of the next report.
pub(crate) struct World(pub(crate) Sessions, pub(crate) u64);

impl World {
    pub(crate) fn new() -> Self {
        Self(Sessions::new(Settings::default()), 0)
    }

    pub(crate) fn hear(&mut self, report: &SessionReport) -> Outcome {
        // Reports arrive late enough for all of their times to be in the past.
        self.1 += 1;
        self.0.apply((self.1, at(1_000_000)), report).outcome
    }

    /// Whose the address is.
    pub(crate) fn holder(&self, seconds: i64) -> Option<u64> {
        match self.0.find(IpAddr::V4(ADDRESS), at(seconds)) {
            Lease::Live { iccid: Some(found), .. } => Some(found.as_u64() - iccid(0).as_u64()),
            _ => None,
        }
    }
}
