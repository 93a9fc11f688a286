//! The devices' DTLS sessions: one client each, its handshakes, its timers, its address. Requests
//! go in as plain bytes and wait for a session where there is none; answers come out as
//! [`Event`]s. Does no I/O and reads no clock.

mod ways;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use dtls::SetUpError;
use dtls::client::{Client, ClientConfig, ClientOutput, ClientResumption};

use crate::bootstrap::Credentials;
use crate::fleet::Fleet;
use crate::plan::Plan;
use crate::random::Random;
use crate::security::Security;
use crate::session_report::SessionTally;
use crate::socket::Outbox;
use crate::timers::Timers;

pub(crate) use ways::Way;

/// Handshakes under way at the same time while sessions are opened before a run: enough to keep a
/// server busy. With 256, one with a small receive buffer lost datagrams of one in fifty.
const OPENING_AT_ONCE: usize = 64;

/// The pause after the first failed handshake of a device; it doubles up to 32 times this.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_DOUBLINGS_MAX: u32 = 5;

/// Devices looked at for one that can begin a handshake.
const IDLE_SEARCH: usize = 64;

/// Requests of one device that are sent as soon as it has a new session; older ones come by their
/// own retransmissions.
const WAITING_MAX: usize = 16;

/// Content types of records (RFC 6347 §4.1, RFC 5246 §6.2.1).
const TYPE_ALERT: u8 = 21;
const TYPE_APPLICATION_DATA: u8 = 23;
/// Bytes of a record's header.
const HEADER_BYTES: usize = 13;
/// An alert that ends the session (RFC 5246 §7.2).
const LEVEL_FATAL: u8 = 2;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member has a session now; its waiting requests may be sent.
    Opened(u32),
    /// Bytes of one record for a member.
    Received(u32, Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No session, and none wanted.
    Idle,
    Handshaking {
        since: Instant,
    },
    Open,
    /// After a failed handshake.
    BackOff,
}

/// A device that has a key. Members are counted from 0 without gaps, as the exchanges want it.
struct Member {
    device: u32,
    config: ClientConfig,
    target: SocketAddrV4,
    client: Option<Client>,
    phase: Phase,
    resumption: Option<ClientResumption>,
    address: Ipv4Addr,
    address_changes: u32,
    /// Sessions begun.
    session: u32,
    answers_in_session: u64,
    answers_at_address: u64,
    /// Handshakes that failed since the last that did not.
    failures: u32,
    /// Tokens of requests that wait for a session.
    waiting: Vec<u64>,
    /// Tokens of requests that were sent in this session and not answered.
    unanswered: Vec<u64>,
    /// Whether we said close_notify, which the server answers with its own (RFC 5246 §7.2.1).
    awaits_farewell: bool,
    /// When something is to be done, since the epoch.
    deadline: Option<Duration>,
    /// The earliest moment at which the wheel looks at this member.
    armed: Duration,
}

/// The sessions of the fleet.
pub(crate) struct Sessions {
    security: Security,
    only_handshakes: bool,
    fleet: Fleet,
    members: Vec<Member>,
    /// The member of each device of the fleet.
    member_of: Vec<Option<u32>>,
    epoch: Instant,
    timers: Timers,
    expired: Vec<u64>,
    events: VecDeque<Event>,
    random: Random,
    handshaking: usize,
    /// The next member whose session is opened, or that begins a handshake.
    next: usize,
    plain: Vec<u8>,
    pub(crate) tally: SessionTally,
}

impl Sessions {
    /// No session yet, for the devices that have credentials.
    pub(crate) fn new(
        plan: &Plan,
        fleet: Fleet,
        credentials: Vec<Option<Credentials>>,
        tally: SessionTally,
        now: Instant,
    ) -> Result<Self, SetUpError> {
        let security = plan.security.clone();
        let suites = security.suites();
        let cid = security.connection_id.then_some([].as_slice());
        let mut members = Vec::new();
        let mut member_of = Vec::new();
        for (device, told) in (0..).zip(credentials) {
            member_of
                .push(told.is_some().then(|| u32::try_from(members.len()).unwrap_or_default()));
            if let Some(Credentials { identity, key }) = told {
                let config = ClientConfig::new(&identity, &key, &suites, cid)?;
                members.push(Member::new((device, fleet.address(device)), config, plan.target));
            }
        }
        Ok(Self {
            only_handshakes: plan.only_handshakes(),
            security,
            fleet,
            members,
            member_of,
            epoch: now,
            timers: Timers::new(),
            expired: Vec::new(),
            events: VecDeque::new(),
            random: Random::new(plan.seed ^ 0x6474_6c73),
            handshaking: 0,
            next: 0,
            plain: Vec::new(),
            tally,
        })
    }

    /// How many devices have a key.
    pub(crate) fn members(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The device of a member, as an index into the fleet.
    pub(crate) fn device(&self, member: u32) -> u32 {
        self.members[member as usize].device
    }

    /// Handshakes under way.
    pub(crate) const fn handshaking(&self) -> usize {
        self.handshaking
    }

    /// How many sessions a member has begun.
    pub(crate) fn session_number(&self, member: u32) -> u32 {
        self.members[member as usize].session
    }

    /// The next event.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Begins more handshakes before the run; tells whether each member has tried by now.
    pub(crate) fn open_more(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        while self.handshaking < OPENING_AT_ONCE && self.next < self.members.len() {
            self.begin_handshake(now, now, self.next, outbox);
            self.next += 1;
        }
        self.next >= self.members.len() && self.handshaking == 0
    }

    /// Begins a handshake of the member whose turn it is; it was due at `since`. `false` where
    /// none is near that can.
    pub(crate) fn begin_next(&mut self, now: Instant, since: Instant, outbox: &mut Outbox) -> bool {
        let count = self.members.len();
        for step in 0..IDLE_SEARCH.min(count) {
            let index = (self.next + step) % count;
            if self.members[index].phase == Phase::Idle {
                self.next = (index + 1) % count;
                self.begin_handshake(now, since, index, outbox);
                return true;
            }
        }
        // Those looked at rest after a failure: the next turn is that of others.
        self.next = (self.next + IDLE_SEARCH.min(count)) % count.max(1);
        false
    }

    /// Sends the request with this token, which `write` appends, if the member has a session, and
    /// tells whether it was sent. Otherwise it waits, and [`Event::Opened`] says when to try again.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        (member, token): (u32, u64),
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let index = member as usize;
        let state = &mut self.members[index];
        if state.phase == Phase::Open {
            self.plain.clear();
            write(&mut self.plain);
            let is_sent = state.client.as_mut().is_some_and(|client| client.send(&self.plain));
            if is_sent {
                remember(&mut state.unanswered, token);
                self.drain(now, index, outbox);
                return true;
            }
            // A message too long for a record, or sequence numbers used up: not this session's.
            return false;
        }
        remember(&mut state.waiting, token);
        if state.phase == Phase::Idle {
            self.begin_handshake(now, now, index, outbox);
        }
        false
    }

    /// Sends what needs no answer, and is not sent again.
    pub(crate) fn send_once(
        &mut self,
        now: Instant,
        member: u32,
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let index = member as usize;
        self.plain.clear();
        write(&mut self.plain);
        if let Some(client) = &mut self.members[index].client {
            // Without a session there is nobody to tell.
            let _ = client.send(&self.plain);
            self.drain(now, index, outbox);
        }
    }

    /// The tokens of the requests of a member that waited.
    pub(crate) fn take_waiting(&mut self, member: u32) -> Vec<u64> {
        std::mem::take(&mut self.members[member as usize].waiting)
    }

    /// The request of a member with this token was answered; `is_idle`: nothing else of it waits.
    pub(crate) fn note_answer(
        &mut self,
        now: Instant,
        (member, token): (u32, u64),
        is_idle: bool,
        outbox: &mut Outbox,
    ) {
        let index = member as usize;
        let state = &mut self.members[index];
        state.unanswered.retain(|one| *one != token);
        state.answers_in_session += 1;
        state.answers_at_address += 1;
        let is_used_up = |limit| state.answers_in_session >= limit;
        if is_idle && self.security.requests_per_session.is_some_and(is_used_up) {
            self.close(now, index, outbox);
        }
        let answers = self.members[index].answers_at_address;
        if self.security.nat_after.is_some_and(|limit| answers >= limit) {
            self.change_address(member);
        }
    }

    /// A request of a member got no answer for so long that its session is taken for dead.
    pub(crate) fn give_up(&mut self, member: u32) {
        let state = &mut self.members[member as usize];
        if state.phase == Phase::Open {
            self.tally.counts.sessions_lost_by_silence += 1;
            state.forget();
            state.resend_unanswered();
        }
    }

    /// Takes a datagram for the address `to`; `false` where no member ever has that address.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        to: Ipv4Addr,
        datagram: &[u8],
        outbox: &mut Outbox,
    ) -> bool {
        let owner = self.fleet.owner(to).and_then(|device| self.member_of[device as usize]);
        let Some(index) = owner.map(|member| member as usize) else { return false };
        let member = &mut self.members[index];
        let is_expected = match (&mut member.client, member.phase) {
            _ if member.address != to => false,
            _ if is_protected_alert(datagram) && member.awaits_farewell => {
                member.awaits_farewell = false;
                true
            }
            // What the session before still gets: the new one would drop it and not say so.
            (Some(_), Phase::Handshaking { .. }) if is_of_a_session(datagram) => false,
            (Some(_), Phase::Open) if is_unprotected_fatal_alert(datagram) => {
                self.tally.counts.sessions_lost_by_alert += 1;
                self.lose(now, index, outbox);
                return true;
            }
            (Some(client), Phase::Handshaking { .. } | Phase::Open) => {
                client.handle_datagram(now, datagram);
                self.drain(now, index, outbox) || self.members[index].phase != Phase::Open
            }
            _ => false,
        };
        self.tally.counts.records_discarded += u64::from(!is_expected);
        true
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        let at = self.since_epoch(now);
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(at, &mut expired);
        for index in expired.drain(..).filter_map(|index| usize::try_from(index).ok()) {
            let member = &mut self.members[index];
            member.armed = Duration::MAX;
            match member.deadline {
                None => {}
                Some(deadline) if deadline > at => self.arm(index, deadline),
                Some(_) => self.handle_deadline(now, index, outbox),
            }
        }
        self.expired = expired;
    }

    fn handle_deadline(&mut self, now: Instant, index: usize, outbox: &mut Outbox) {
        let member = &mut self.members[index];
        member.deadline = None;
        if member.phase == Phase::BackOff {
            member.phase = Phase::Idle;
            if !member.waiting.is_empty() {
                self.begin_handshake(now, now, index, outbox);
            }
        } else if let Some(client) = &mut member.client {
            client.handle_timeout(now);
            self.drain(now, index, outbox);
        }
    }

    fn begin_handshake(&mut self, now: Instant, since: Instant, index: usize, outbox: &mut Outbox) {
        let member = &mut self.members[index];
        let resumption = member.resumption.as_ref().filter(|_| self.security.resume);
        member.client = Client::new(&member.config, now, resumption);
        member.phase = Phase::Handshaking { since };
        member.session = member.session.wrapping_add(1).max(1);
        member.answers_in_session = 0;
        self.handshaking += 1;
        self.tally.counts.handshakes_begun += 1;
        self.tally.counts.handshakes_retried += u64::from(member.failures > 0);
        if member.client.is_some() {
            self.drain(now, index, outbox);
        } else {
            self.fail(now, index, 0);
        }
    }

    /// Does what the client wants; tells whether it wanted anything.
    fn drain(&mut self, now: Instant, index: usize, outbox: &mut Outbox) -> bool {
        let mut is_busy = false;
        loop {
            let member = &mut self.members[index];
            let Some(client) = &mut member.client else { return is_busy };
            match client.poll_output() {
                ClientOutput::Transmit(bytes) => {
                    outbox.push(member.address, member.target, |out| out.extend_from_slice(&bytes));
                }
                ClientOutput::Received(bytes) => {
                    let member = u32::try_from(index).unwrap_or(u32::MAX);
                    self.events.push_back(Event::Received(member, bytes));
                }
                ClientOutput::Established => self.complete(now, index, outbox),
                ClientOutput::Closed(code) => self.end(now, index, code, outbox),
                ClientOutput::Timeout(at) => {
                    let deadline = at.map(|at| at.saturating_duration_since(self.epoch));
                    member.deadline = deadline;
                    if let Some(deadline) = deadline {
                        self.arm(index, deadline);
                    }
                    return is_busy;
                }
            }
            is_busy = true;
        }
    }

    fn complete(&mut self, now: Instant, index: usize, outbox: &mut Outbox) {
        let member = &mut self.members[index];
        let (Some(client), Phase::Handshaking { since }) = (&member.client, member.phase) else {
            return;
        };
        let latency = now.saturating_duration_since(since);
        self.tally.complete(latency, client.is_resumed(), client.has_connection_id());
        if self.security.resume {
            member.resumption = client.resumption();
        }
        member.phase = Phase::Open;
        member.awaits_farewell = false;
        member.failures = 0;
        self.handshaking = self.handshaking.saturating_sub(1);
        if self.only_handshakes {
            self.close(now, index, outbox);
        } else {
            self.events.push_back(Event::Opened(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }

    /// The client says that its session is over.
    fn end(&mut self, now: Instant, index: usize, code: i32, outbox: &mut Outbox) {
        match self.members[index].phase {
            Phase::Handshaking { .. } => self.fail(now, index, code),
            Phase::Open => {
                self.tally.counts.sessions_ended_by_server += 1;
                self.lose(now, index, outbox);
            }
            Phase::Idle | Phase::BackOff => {}
        }
    }

    fn fail(&mut self, now: Instant, index: usize, code: i32) {
        self.tally.fail(code);
        self.handshaking = self.handshaking.saturating_sub(1);
        let doublings = self.members[index].failures.min(BACK_OFF_DOUBLINGS_MAX);
        let pause = BACK_OFF * (1 << doublings);
        // Devices that failed together shall not come back together.
        let pause = self.random.between(pause, pause.mul_f64(1.5));
        let deadline = self.since_epoch(now) + pause;
        let member = &mut self.members[index];
        member.forget();
        member.resumption = None;
        member.failures = member.failures.saturating_add(1);
        member.phase = Phase::BackOff;
        member.deadline = Some(deadline);
        self.arm(index, deadline);
    }

    /// The session is no more; a request without an answer wants another one.
    fn lose(&mut self, now: Instant, index: usize, outbox: &mut Outbox) {
        let member = &mut self.members[index];
        member.forget();
        member.resend_unanswered();
        if !member.waiting.is_empty() {
            self.begin_handshake(now, now, index, outbox);
        }
    }

    /// Says close_notify.
    fn close(&mut self, now: Instant, index: usize, outbox: &mut Outbox) {
        if let Some(client) = &mut self.members[index].client {
            client.close();
            // No more than the alert is left in the client.
            self.members[index].phase = Phase::Idle;
            self.members[index].awaits_farewell = true;
            self.drain(now, index, outbox);
        }
        self.members[index].forget();
    }

    fn arm(&mut self, index: usize, deadline: Duration) {
        let member = &mut self.members[index];
        if deadline < member.armed {
            member.armed = deadline;
            self.timers.set(index as u64, deadline);
        }
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

impl Member {
    fn new((device, address): (u32, Ipv4Addr), config: ClientConfig, target: SocketAddrV4) -> Self {
        Self {
            device,
            config,
            target,
            client: None,
            phase: Phase::Idle,
            resumption: None,
            address,
            address_changes: 0,
            session: 0,
            answers_in_session: 0,
            answers_at_address: 0,
            failures: 0,
            waiting: Vec::new(),
            unanswered: Vec::new(),
            awaits_farewell: false,
            deadline: None,
            armed: Duration::MAX,
        }
    }

    /// What the session left without an answer is sent again in the next one.
    fn resend_unanswered(&mut self) {
        let Self { waiting, unanswered, .. } = self;
        unanswered.drain(..).for_each(|token| remember(waiting, token));
    }

    fn forget(&mut self) {
        self.client = None;
        self.phase = Phase::Idle;
        self.deadline = None;
    }
}

/// Adds a token to a short list of those that matter.
fn remember(tokens: &mut Vec<u64>, token: u64) {
    if tokens.contains(&token) {
        return;
    }
    if tokens.len() >= WAITING_MAX {
        tokens.remove(0);
    }
    tokens.push(token);
}

/// Whether a datagram begins with a record that only an established session can have sent.
fn is_of_a_session(datagram: &[u8]) -> bool {
    datagram.first() == Some(&TYPE_APPLICATION_DATA) || is_protected_alert(datagram)
}

/// Whether a datagram begins with an alert after a change of cipher: of an epoch above 0.
fn is_protected_alert(datagram: &[u8]) -> bool {
    matches!(datagram, [TYPE_ALERT, _, _, high, low, ..] if (*high, *low) != (0, 0))
}

/// What a server sends that does not know the session of a record. Nothing proves that it comes
/// from the server; simulated devices believe it, as some real ones do.
fn is_unprotected_fatal_alert(datagram: &[u8]) -> bool {
    matches!(datagram, [TYPE_ALERT, _, _, 0, 0, ..])
        && datagram.get(HEADER_BYTES) == Some(&LEVEL_FATAL)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use dtls::{Engine, Output, Psk, SessionId};

    use super::*;
    use crate::plan::Protocol;
    use crate::security::KeySource;

    const KEY: &str = "0123456789abcdef";
    const PORT: u16 = 40_000;

    /// One device and a server, with a network between them that the test carries by hand.
    struct Wire {
        sessions: Sessions,
        engine: Engine,
        outbox: Outbox,
        now: Instant,
        address: Ipv4Addr,
        established: Vec<SessionId>,
    }

    impl Wire {
        fn new() -> Self {
            let plan = Plan {
                protocol: Protocol::Coaps,
                security: Security {
                    keys: KeySource::Shared(KEY.parse().unwrap()),
                    ..Security::default()
                },
                ..Plan::default()
            };
            let now = Instant::now();
            let key = Psk::new(KEY.as_bytes().to_vec()).unwrap();
            let fleet = plan.fleet().unwrap();
            let told = Credentials { identity: b"8988".to_vec(), key: key.clone() };
            let tally = SessionTally::new().unwrap();
            let keys = move |_: &[u8]| Some(key.clone());
            Self {
                sessions: Sessions::new(&plan, fleet, vec![Some(told)], tally, now).unwrap(),
                engine: Engine::new(dtls::Config::default(), now, keys).unwrap(),
                outbox: Outbox::default(),
                now,
                address: fleet.address(0),
                established: Vec::new(),
            }
        }

        fn request(&mut self, token: u64) -> bool {
            let write = |bytes: &mut Vec<u8>| bytes.extend_from_slice(b"request");
            self.sessions.send(self.now, (0, token), &mut self.outbox, write)
        }

        /// What the server answers to all that the device wants to send.
        fn answers(&mut self) -> Vec<Vec<u8>> {
            for (source, bytes) in self.outbox.take() {
                let peer = SocketAddr::from((source, PORT));
                self.engine.handle_datagram(self.now, peer, &bytes);
            }
            let mut answers = Vec::new();
            loop {
                match self.engine.poll_output() {
                    Output::Transmit { bytes, .. } => answers.push(bytes),
                    Output::Event(dtls::Event::Established { session, .. }) => {
                        self.established.push(session);
                    }
                    Output::Event(_) => {}
                    Output::Timeout(_) => return answers,
                }
            }
        }

        fn deliver(&mut self, datagram: &[u8]) {
            let (now, address) = (self.now, self.address);
            assert!(self.sessions.handle_datagram(now, address, datagram, &mut self.outbox));
        }

        /// Carries datagrams until both sides are silent.
        fn settle(&mut self) {
            loop {
                let answers = self.answers();
                if answers.is_empty() {
                    return;
                }
                answers.iter().for_each(|answer| self.deliver(answer));
            }
        }

        fn pass(&mut self, seconds: u32) {
            for _ in 0..seconds * 10 {
                self.now += Duration::from_millis(100);
                self.sessions.handle_timeout(self.now, &mut self.outbox);
            }
        }
    }

    #[test]
    fn a_late_record_of_the_session_before_is_counted_and_does_no_harm_to_the_next() {
        let mut wire = Wire::new();
        assert!(!wire.request(1));
        wire.settle();
        assert!(matches!(wire.sessions.next_event(), Some(Event::Opened(0))));
        assert!(wire.request(1));
        wire.settle();
        wire.engine.send(wire.established[0], b"late").unwrap();
        let late = wire.answers();
        wire.sessions.give_up(0);
        assert!(!wire.request(2));
        let verify = wire.answers();
        verify.iter().chain(&late).for_each(|datagram| wire.deliver(datagram));
        wire.settle();
        assert_eq!(wire.established.len(), 2);
        assert!(matches!(wire.sessions.next_event(), Some(Event::Opened(0))));
        // What the first session left comes before what waited for the second.
        assert_eq!(wire.sessions.take_waiting(0), [1, 2]);
        let counts = &wire.sessions.tally.counts;
        assert_eq!((counts.handshakes_completed, counts.handshakes_failed), (2, 0));
        assert_eq!((counts.records_discarded, counts.sessions_lost_by_silence), (1, 1));
    }

    #[test]
    fn a_failed_handshake_is_tried_again_after_a_pause_if_something_waits() {
        let mut wire = Wire::new();
        assert!(!wire.request(1));
        // 1 + 2 + 4 + 8 s without an answer.
        wire.pass(16);
        assert_eq!(wire.sessions.tally.counts.handshakes_failed, 1);
        assert_eq!(wire.sessions.handshaking(), 0);
        wire.outbox.take();
        wire.pass(2);
        assert_eq!(wire.sessions.tally.counts.handshakes_retried, 1);
        wire.settle();
        assert!(matches!(wire.sessions.next_event(), Some(Event::Opened(0))));
        assert_eq!(wire.sessions.take_waiting(0), [1]);
    }

    #[test]
    fn requests_that_wait_are_few() {
        let mut wire = Wire::new();
        assert!((0..100).all(|token| !wire.request(token)));
        assert_eq!(wire.sessions.tally.counts.handshakes_begun, 1);
        let newest: Vec<u64> = (84..100).collect();
        assert_eq!(wire.sessions.take_waiting(0), newest);
    }

    #[test]
    fn datagrams_to_other_addresses_and_alerts_are_told_apart() {
        let mut wire = Wire::new();
        let stranger = Ipv4Addr::LOCALHOST;
        assert!(!wire.sessions.handle_datagram(wire.now, stranger, b"", &mut wire.outbox));
        let alert = |epoch, level| [21, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1, 0, 2, level, 10];
        assert!(is_unprotected_fatal_alert(&alert(0, LEVEL_FATAL)));
        assert!(!is_unprotected_fatal_alert(&alert(0, 1)));
        assert!(is_of_a_session(&alert(1, 99)) && !is_of_a_session(&alert(0, LEVEL_FATAL)));
        assert!(is_of_a_session(&[23]) && !is_of_a_session(&[22]) && !is_of_a_session(&[]));
    }
}
