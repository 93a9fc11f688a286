//! Data sessions: which SIM holds which address of the mobile network, and in which cell it is.
//!
//! Feeds of the network (RADIUS accounting, event streams of SIM vendors) say when sessions begin,
//! go on and end. [`Sessions::apply`] takes their reports in the order of the message log, so the
//! table is a pure function of the log; [`SessionStore`] keeps a snapshot that shortens a start.
//! [`Sessions::find`] says what an address is worth now: a lease fails closed, so that an address
//! is never taken for the wrong SIM, at worst for nobody's.
//!
//! Not here: sockets, the message log, and which SIMs there are.

mod claims;
mod index;
mod notices;
mod origin;
mod room;
mod session;
mod slab;
mod store;
mod table;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use vocabulary::{
    CellTower, Iccid, Imei, Imsi, Msisdn, Notice, Octets, RadioAccess, SessionReport, Timestamp,
};

use session::Session;
pub use store::{SessionStore, StoreError};
use table::Table;

/// What is allowed of sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sessions at most, those of the last day that have ended included. In a full table the oldest
    /// that have ended or are stale make room.
    pub sessions_max: usize,
    /// A session that was not heard for so long vouches for nothing, unless its reports were
    /// further apart before: then three times that, at most a day.
    pub stale_after: Duration,
    /// The same for feeds that say less, by their names.
    pub stale_after_of_feed: HashMap<String, Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sessions_max: 1_000_000,
            stale_after: Duration::from_hours(2),
            stale_after_of_feed: HashMap::new(),
        }
    }
}

impl Settings {
    fn stale_after(&self, feed: &str) -> Duration {
        self.stale_after_of_feed.get(feed).copied().unwrap_or(self.stale_after)
    }
}

/// What an address is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// No feed has told of it.
    None,
    /// A session held it, and has ended. Nothing is known of who came after.
    Ended {
        /// The SIM, where the feed or the registry named it.
        iccid: Option<Iccid>,
        /// The subscriber, where the feed named it.
        imsi: Option<Imsi>,
    },
    /// A session holds it.
    Live {
        /// The session's number: the place in the log of the report that opened it.
        session: u64,
        /// The SIM, where the feed or the registry named it.
        iccid: Option<Iccid>,
        /// The subscriber, where the feed named it.
        imsi: Option<Imsi>,
    },
    /// The session that held it was not heard for too long.
    Stale {
        /// The SIM, where the feed or the registry named it.
        iccid: Option<Iccid>,
        /// The subscriber, where the feed named it.
        imsi: Option<Imsi>,
    },
    /// Two SIMs claim it, and nothing says who came later.
    Contested,
}

/// What a report did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A session began.
    Opened,
    /// A session goes on.
    Updated,
    /// A session ended.
    Ended,
    /// A session ended whose beginning was never heard. It is remembered as ended.
    EndedUnknown,
    /// All sessions of a server ended.
    Restarted,
    /// It came after the end of its session, or after another SIM's with the same name, and is only
    /// remembered.
    Late,
    /// Octets were added to those of a session.
    Counted,
    /// They were not: they had been, or it is not certain which session carried them.
    Uncounted,
    /// It was applied before.
    Repeated,
    /// There are too many sessions.
    Full,
}

impl Outcome {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Ended => "ended",
            Self::EndedUnknown => "ended_unknown",
            Self::Restarted => "restarted",
            Self::Late => "late",
            Self::Counted => "counted",
            Self::Uncounted => "uncounted",
            Self::Repeated => "repeated",
            Self::Full => "full",
        }
    }
}

/// What [`Sessions::apply`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// In a word.
    pub outcome: Outcome,
    /// The session concerned.
    pub session: Option<u64>,
    /// What an operator should know.
    pub notice: Option<Notice>,
}

impl Applied {
    fn new(outcome: Outcome) -> Self {
        Self { outcome, session: None, notice: None }
    }
}

/// What has become of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Its address speaks for its SIM.
    Live,
    /// It was not heard for too long.
    Stale,
    /// Another SIM claims its address, too.
    Contested,
    /// Its end was reported, or its server began anew, or another session has its address.
    Ended,
}

/// A session as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSession {
    /// Its number: the place in the log of the report that opened it.
    pub id: u64,
    /// The feed that told of it.
    pub feed: String,
    /// The server in the network.
    pub server: String,
    /// Its name there.
    pub name: String,
    /// What has become of it.
    pub state: SessionState,
    /// When it began, as far as is known.
    pub began_at: Timestamp,
    /// The time of its last report.
    pub heard_at: Timestamp,
    /// When it ended, if that is known.
    pub ended_at: Option<Timestamp>,
    /// The SIM.
    pub iccid: Option<Iccid>,
    /// The subscriber.
    pub imsi: Option<Imsi>,
    /// The telephone number.
    pub msisdn: Option<Msisdn>,
    /// The modem.
    pub imei: Option<Imei>,
    /// The address.
    pub ipv4: Option<Ipv4Addr>,
    /// The prefix, 64 bits.
    pub ipv6_prefix: Option<Ipv6Addr>,
    /// The radio.
    pub access: Option<RadioAccess>,
    /// The cell of the last report that named one.
    pub cell: Option<CellTower>,
    /// What it has carried.
    pub octets: Option<Octets>,
}

/// The table of sessions. Clones share it.
#[derive(Clone)]
pub struct Sessions(Arc<RwLock<Table>>);

impl Sessions {
    /// No sessions.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Table::new(settings))))
    }

    /// Applies a report that stands at `place` in the log and arrived at `arrived`. One caller, in
    /// the order of the log; what was applied before changes nothing.
    pub fn apply(&self, (place, arrived): (u64, Timestamp), report: &SessionReport) -> Applied {
        self.write().apply((place, arrived), report)
    }

    /// The place in the log up to which reports were applied.
    pub fn cursor(&self) -> u64 {
        self.read().cursor
    }

    /// Says that everything before `place` was read.
    pub fn read_to(&self, place: u64) {
        let mut table = self.write();
        table.cursor = table.cursor.max(place);
    }

    /// What an address is worth.
    pub fn find(&self, ip: IpAddr, now: Timestamp) -> Lease {
        self.read().find(ip, now)
    }

    /// The address that a SIM holds now: of its live sessions the newest one's.
    pub fn address_of(&self, iccid: Iccid, now: Timestamp) -> Option<IpAddr> {
        let table = self.read();
        let live = table.of_sim(iccid).filter(|session| {
            !table.is_over(session)
                && !table.is_stale(session, now)
                && table.holds_its_address(session)
        });
        // A prefix alone says no address that could be sent to.
        live.max_by_key(|session| session.held_since)?.ipv4().map(IpAddr::V4)
    }

    /// The sessions of a SIM, the newest first.
    pub fn of_sim(&self, iccid: Iccid, now: Timestamp) -> Vec<DataSession> {
        let table = self.read();
        let found = table.of_sim(iccid).map(|session| shown(&table, session, now));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|session| std::cmp::Reverse((session.began_at, session.id)));
        found
    }

    /// When each feed told something last, as far as its sessions are remembered.
    pub fn heard(&self) -> HashMap<String, Timestamp> {
        let (table, mut heard) = (self.read(), HashMap::new());
        for (_, session) in table.slab.iter() {
            let feed = table.origins.feed_of(session.origin);
            let told = Timestamp::from_millis(i64::from(session.told_s) * 1_000);
            match heard.get_mut(feed) {
                Some(newest) => *newest = told.max(*newest),
                None => drop(heard.insert(feed.to_owned(), told)),
            }
        }
        heard
    }

    /// How many sessions are remembered.
    pub fn len(&self) -> usize {
        self.read().slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets sessions of which nothing was heard for a day and that vouch for nothing; says how
    /// many.
    pub fn expire(&self, now: Timestamp) -> usize {
        self.write().expire(now)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(table: &Table, session: &Session, now: Timestamp) -> DataSession {
    let state = if table.is_over(session) {
        SessionState::Ended
    } else if table.holds_its_address(session) || !session.has_address() {
        if table.is_stale(session, now) { SessionState::Stale } else { SessionState::Live }
    } else if table.is_replaced(session) {
        SessionState::Ended
    } else {
        SessionState::Contested
    };
    DataSession {
        id: session.place,
        feed: table.origins.feed_of(session.origin).to_owned(),
        server: table.origins.server_of(session.origin).to_owned(),
        name: session.name.to_string(),
        state,
        began_at: Timestamp::from_micros(session.began),
        heard_at: session.heard_at(),
        ended_at: session.stopped.map(Timestamp::from_micros),
        iccid: session.iccid(),
        imsi: session.imsi(),
        msisdn: session.msisdn(),
        imei: session.imei(),
        ipv4: session.ipv4(),
        ipv6_prefix: session.ipv6_prefix(),
        access: session.access,
        cell: session.cell,
        octets: session.octets(),
    }
}
