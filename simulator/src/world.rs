//! What the devices of a run do: requests out, answers in, everything counted. Has no socket, so
//! that an arrival can be handled while the socket lends its bytes.

use std::net::SocketAddrV4;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coap::wire::MessageType;
use vocabulary::Timestamp;

use crate::bootstrap::{BootstrapReport, Credentials, fetch_keys};
use crate::exchanges::{Exchange, Exchanges, Expiry, Outcome, Rules};
use crate::fleet::{Fleet, GARBAGE_ADDRESSES};
use crate::generator::RunError;
use crate::hello::Hello;
use crate::ledger::Ledger;
use crate::plan::{Plan, Protocol};
use crate::random::Random;
use crate::report::{Report, Tally};
use crate::request::{RequestForm, write_acknowledgement};
use crate::security::{KeySource, KeyTable, SharedKey};
use crate::session_report::SessionTally;
use crate::sessions::{Event, Sessions};
use crate::socket::{Arrival, Outbox};

/// The port of CoAP without DTLS (RFC 7252 §12.6), where devices ask for keys.
const COAP_PORT: u16 = 5683;

/// The devices of a run.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    fleet: Fleet,
    form: RequestForm,
    exchanges: Exchanges,
    sessions: Option<Sessions>,
    /// What strangers send where a session is needed.
    hello: Option<Hello>,
    bootstrap: Option<BootstrapReport>,
    pub(crate) tally: Tally,
    ledger: Option<&'a mut Ledger>,
    random: Random,
    started: Instant,
    started_at: Timestamp,
}

impl<'a> World<'a> {
    /// Checks the plan, and gets the devices their keys where they need some.
    pub(crate) fn new(
        plan: &'a Plan,
        ledger: Option<&'a mut Ledger>,
        stop: &AtomicBool,
    ) -> Result<Self, RunError> {
        let fleet = plan.check()?;
        let form = RequestForm::new(plan)?;
        let mut random = Random::new(plan.seed);
        let (sessions, bootstrap) = match plan.protocol {
            Protocol::Coaps => secure(plan, fleet, stop)?,
            _ => (None, None),
        };
        let rules = Rules {
            devices: sessions.as_ref().map_or(plan.devices, Sessions::members),
            confirmable: plan.protocol != Protocol::CoapNon,
            retransmission: plan.retransmission,
            patience: plan.patience,
            token_mask: random.next(),
            token_bytes: plan.token_bytes,
        };
        let hello = sessions.as_ref().and_then(|_| Hello::new());
        Ok(Self {
            plan,
            fleet,
            form,
            hello,
            exchanges: Exchanges::new(rules, Random::new(random.next())),
            sessions,
            bootstrap,
            tally: Tally::new()?,
            ledger,
            random,
            started: Instant::now(),
            started_at: wall_clock(),
        })
    }

    /// The plan.
    pub(crate) const fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// The sessions of the devices, if they have some.
    pub(crate) const fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_ref()
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Messages, or handshakes where the run has nothing else, that are not done with.
    pub(crate) fn outstanding(&self) -> usize {
        match &self.sessions {
            Some(sessions) if self.plan.only_handshakes() => sessions.handshaking(),
            _ => self.exchanges.outstanding(),
        }
    }

    pub(crate) fn has_sent_all(&self) -> bool {
        let begun = match &self.sessions {
            Some(sessions) if self.plan.only_handshakes() => sessions.tally.counts.handshakes_begun,
            _ => self.tally.counts.sent,
        };
        self.plan.count.is_some_and(|count| begun >= count)
            || self.ledger.as_ref().is_some_and(|ledger| ledger.is_full())
    }

    /// Opens more sessions before the run; tells whether all have been tried.
    pub(crate) fn open_sessions(&mut self, outbox: &mut Outbox) -> bool {
        let now = Instant::now();
        self.sessions.as_mut().is_none_or(|sessions| {
            sessions.handle_timeout(now, outbox);
            sessions.open_more(now, outbox)
        })
    }

    /// The sessions are open: the time of the run begins now.
    pub(crate) fn end_opening(&mut self) {
        if let Some(sessions) = &mut self.sessions {
            sessions.tally.end_opening(self.started.elapsed());
            self.tally.begin();
            self.started = Instant::now();
            self.started_at = wall_clock();
        }
    }

    /// No more is sent from `now` on.
    pub(crate) fn end_sending(&mut self, now: Duration) {
        self.tally.end_sending(now);
        if let Some(sessions) = &mut self.sessions {
            sessions.tally.end_sending();
        }
    }

    /// How it went.
    pub(crate) fn report(&self, now: Duration, behind: u64) -> Report {
        let unanswered = self.exchanges.outstanding();
        let sending = self.tally.sending_end().unwrap_or(now);
        let dtls = self.sessions.as_ref().map(|sessions| {
            sessions.tally.report(sending, sessions.handshaking(), self.bootstrap.clone())
        });
        Report { dtls, ..self.tally.report(now, unanswered, behind) }
    }

    /// Sends the next message, or begins the next handshake; tells whether that could be done.
    pub(crate) fn begin(&mut self, now: Duration, since: Duration, outbox: &mut Outbox) -> bool {
        if self.plan.only_handshakes() {
            let (now, since) = (self.started + now, self.started + since);
            let sessions = self.sessions.as_mut();
            return sessions.is_some_and(|sessions| sessions.begin_next(now, since, outbox));
        }
        let (number, device) = if self.plan.protocol == Protocol::Udp {
            self.send_datagram(outbox)
        } else {
            let Some(exchange) = self.exchanges.begin(now, since) else { return false };
            self.write_request(now, &exchange, outbox);
            let device = self.sessions.as_ref().map(|sessions| sessions.device(exchange.device));
            (exchange.number, device.unwrap_or(exchange.device))
        };
        self.tally.counts.sent += 1;
        let sent_at = self.started_at.saturating_add(now);
        if let Some(ledger) = &mut self.ledger {
            ledger.note_sent(self.plan.first_number + number, device, sent_at);
        }
        true
    }

    fn send_datagram(&self, outbox: &mut Outbox) -> (u64, u32) {
        let plan = self.plan;
        let number = self.tally.counts.sent;
        // The remainder of a division by a u32 is one.
        let device = u32::try_from(number % u64::from(plan.devices)).unwrap_or_default();
        outbox.push(self.fleet.address(device), plan.target, |bytes| {
            plan.payload.write(plan.first_number + number, plan.seed, bytes);
        });
        (number, device)
    }

    /// Sends a request, or lets it wait for a session. Repeats are counted.
    fn write_request(&mut self, now: Duration, exchange: &Exchange, outbox: &mut Outbox) {
        let Self { plan, form, exchanges, .. } = self;
        let token = exchanges.token(exchange.number);
        let write = |bytes: &mut Vec<u8>| {
            form.write(exchange, token, bytes, |bytes| {
                plan.payload.write(plan.first_number + exchange.number, plan.seed, bytes);
            });
        };
        let Some(sessions) = &mut self.sessions else {
            return outbox.push(self.fleet.address(exchange.device), plan.target, write);
        };
        let member = exchange.device;
        if sessions.send(self.started + now, (member, token), outbox, write) {
            let is_repeat = exchanges.note_sent(token, sessions.session_number(member));
            self.tally.counts.retransmitted += u64::from(is_repeat);
        }
    }

    /// Sends something from a stranger's address that leads nowhere.
    pub(crate) fn write_garbage(&mut self, outbox: &mut Outbox) {
        let stranger = u32::try_from(self.random.below(GARBAGE_ADDRESSES as usize));
        let index = self.plan.devices.saturating_add(stranger.unwrap_or_default());
        let source = self.fleet.address(index);
        outbox.push(source, self.plan.target, |bytes| match &self.hello {
            Some(hello) => hello.write(&mut self.random, bytes),
            None => self.form.write_garbage(&mut self.random, bytes),
        });
        self.tally.counts.garbage_sent += 1;
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Duration, outbox: &mut Outbox) {
        let mut repeats = Vec::new();
        let mut lost = Vec::new();
        self.exchanges.handle_timeout(now, |expiry| match expiry {
            Expiry::Retransmit(exchange) => repeats.push(exchange),
            Expiry::Lost(exchange) => lost.push(exchange),
        });
        self.tally.counts.lost += lost.len() as u64;
        if self.sessions.is_none() {
            self.tally.counts.retransmitted += repeats.len() as u64;
        }
        for exchange in repeats {
            self.doubt_session(&exchange, self.plan.security.reconnect_after);
            self.write_request(now, &exchange, outbox);
        }
        lost.iter().for_each(|exchange| self.doubt_session(exchange, 1));
        if let Some(sessions) = &mut self.sessions {
            sessions.handle_timeout(self.started + now, outbox);
            self.handle_events(now, outbox);
        }
    }

    /// Gives up the session of a request that was sent `limit` times in it without an answer.
    fn doubt_session(&mut self, exchange: &Exchange, limit: u32) {
        let Some(sessions) = &mut self.sessions else { return };
        let session = sessions.session_number(exchange.device);
        if exchange.sendings_in(session) >= limit {
            sessions.give_up(exchange.device);
        }
    }

    /// Takes a datagram.
    pub(crate) fn handle_arrival(&mut self, arrival: Arrival<'_>, outbox: &mut Outbox) {
        if arrival.from != self.plan.target {
            return;
        }
        let now = self.now();
        if let Some(sessions) = &mut self.sessions {
            let Arrival { to, bytes, .. } = arrival;
            if sessions.handle_datagram(self.started + now, to, bytes, outbox) {
                self.handle_events(now, outbox);
            } else {
                self.tally.counts.garbage_answered += 1;
            }
            return;
        }
        match self.fleet.index(arrival.to) {
            Some(device) => self.handle_message(now, device, arrival.bytes, outbox),
            None => self.tally.counts.garbage_answered += 1,
        }
    }

    fn handle_events(&mut self, now: Duration, outbox: &mut Outbox) {
        while let Some(event) = self.sessions.as_mut().and_then(Sessions::next_event) {
            match event {
                Event::Received(member, bytes) => {
                    self.handle_message(now, member, &bytes, outbox);
                }
                Event::Opened(member) => self.send_waiting(now, member, outbox),
            }
        }
    }

    fn send_waiting(&mut self, now: Duration, member: u32, outbox: &mut Outbox) {
        let Some(sessions) = &mut self.sessions else { return };
        for token in sessions.take_waiting(member) {
            if let Some(exchange) = self.exchanges.restart(now, token) {
                self.write_request(now, &exchange, outbox);
            }
        }
    }

    /// Takes a message to a device (over DTLS: to a member).
    fn handle_message(&mut self, now: Duration, device: u32, bytes: &[u8], outbox: &mut Outbox) {
        let reply = match self.plan.protocol {
            Protocol::Udp => None,
            _ => self.form.read(bytes),
        };
        let Some(reply) = reply else {
            self.tally.counts.unexpected += 1;
            return;
        };
        let outcome = self.exchanges.handle_reply(now, device, reply);
        if reply.kind == MessageType::Confirmable && reply.code.is_response() {
            // Also where it is a repeat: then the first acknowledgement was lost.
            self.write_acknowledgement(now, device, reply.message_id, outbox);
        }
        match outcome {
            Outcome::Answered(exchange, code) if code.is_success() => {
                self.acknowledge(&exchange, now);
            }
            Outcome::Answered(_, code) => self.tally.reject(code),
            Outcome::Reset(_) => self.tally.reset(),
            Outcome::Later => self.tally.counts.separate += 1,
            Outcome::Unexpected => self.tally.counts.unexpected += 1,
        }
        if let Outcome::Answered(exchange, _) | Outcome::Reset(exchange) = outcome {
            self.note_answer(now, &exchange, outbox);
        }
    }

    /// After the acknowledgement was written, since this may end the session.
    fn note_answer(&mut self, now: Duration, exchange: &Exchange, outbox: &mut Outbox) {
        if let Some(sessions) = &mut self.sessions {
            let request = (exchange.device, self.exchanges.token(exchange.number));
            let is_idle = self.exchanges.is_idle(exchange.device);
            sessions.note_answer(self.started + now, request, is_idle, outbox);
        }
    }

    fn write_acknowledgement(
        &mut self,
        now: Duration,
        device: u32,
        message_id: u16,
        outbox: &mut Outbox,
    ) {
        let write = |bytes: &mut Vec<u8>| write_acknowledgement(message_id, bytes);
        match &mut self.sessions {
            Some(sessions) => sessions.send_once(self.started + now, device, outbox, write),
            None => outbox.push(self.fleet.address(device), self.plan.target, write),
        }
    }

    fn acknowledge(&mut self, exchange: &Exchange, now: Duration) {
        self.tally.acknowledge(now.saturating_sub(exchange.since));
        let at = self.started_at.saturating_add(now);
        if let Some(ledger) = &mut self.ledger {
            ledger.note_acknowledged(self.plan.first_number + exchange.number, at);
        }
    }
}

/// The sessions of a run over DTLS, with the keys of its devices.
pub(crate) fn secure(
    plan: &Plan,
    fleet: Fleet,
    stop: &AtomicBool,
) -> Result<(Option<Sessions>, Option<BootstrapReport>), RunError> {
    let (credentials, bootstrap) = match &plan.security.keys {
        KeySource::Shared(key) => (shared_credentials(fleet, key)?, None),
        KeySource::Table(table) => (listed_credentials(fleet, table)?, None),
        KeySource::Bootstrap(server) => {
            let server = server.unwrap_or(SocketAddrV4::new(*plan.target.ip(), COAP_PORT));
            let (credentials, report) = fetch_keys(plan, fleet, server, stop)?;
            (credentials, Some(report))
        }
    };
    let tally = SessionTally::new()?;
    let sessions = Sessions::new(plan, fleet, credentials, tally, Instant::now())?;
    Ok((Some(sessions), bootstrap))
}

fn listed_credentials(
    fleet: Fleet,
    table: &KeyTable,
) -> Result<Vec<Option<Credentials>>, dtls::PskError> {
    let credentials = |index| {
        let identity = fleet.iccid(index).map(|iccid| iccid.to_string())?;
        let key = table.key(&identity)?.psk();
        Some(key.map(|key| Credentials { identity: identity.into_bytes(), key }))
    };
    (0..fleet.devices()).map(|index| credentials(index).transpose()).collect()
}

fn shared_credentials(
    fleet: Fleet,
    key: &SharedKey,
) -> Result<Vec<Option<Credentials>>, dtls::PskError> {
    let key = key.psk()?;
    let credentials = |index| {
        let identity = fleet.iccid(index)?.to_string().into_bytes();
        Some(Credentials { identity, key: key.clone() })
    };
    Ok((0..fleet.devices()).map(credentials).collect())
}

pub(crate) fn wall_clock() -> Timestamp {
    // A clock before 1970 shows as 1970.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since_1970)
}
