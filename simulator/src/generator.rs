//! The load generator: one thread, one socket, all devices.
//!
//! The thread sends what is due, reads what has arrived, and sleeps only when there is neither.
//! Progress is told on the caller's thread, so that a slow terminal delays no device. Over
//! DTLS the devices get their keys and open their sessions before that.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use coap::wire::EncodeError;
use thiserror::Error;

use crate::bootstrap::BootstrapError;
use crate::ledger::Ledger;
use crate::payload::Payload;
use crate::plan::{Load, Plan, PlanError};
use crate::report::{Progress, Report};
use crate::schedule::Schedule;
use crate::socket::{BATCH, FleetSocket, Outbox};
use crate::timers::TICK;
use crate::world::World;

/// How long the opening of sessions goes on without a completed handshake: a little longer than
/// one that nobody answers takes to fail (1 + 2 + 4 + 8 s).
const OPENING_PATIENCE: Duration = Duration::from_secs(20);

/// Why a run ended without a report.
#[derive(Debug, Error)]
pub enum RunError {
    /// The plan cannot be run.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] EncodeError),
    /// The histogram of latencies cannot be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// No device has a key.
    #[error("keys of the simulated devices: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// The key that all devices share.
    #[error(transparent)]
    Key(#[from] dtls::PskError),
    /// The sessions cannot be set up.
    #[error("sessions of the simulated devices: {0}")]
    Sessions(#[from] dtls::SetUpError),
    /// The socket failed.
    #[error("socket of the simulated devices: {0}")]
    Socket(#[source] io::Error),
    /// The system does not let the devices send there; from loopback addresses, only this machine
    /// can be reached.
    #[error("sending from {base} to {target}: {source}")]
    Send {
        /// The first device's address.
        base: Ipv4Addr,
        /// Where to.
        target: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// The ledger's file could not be written.
    #[error("ledger: {0}")]
    Ledger(#[source] io::Error),
}

/// Runs `plan` until its end or until `stop` is set, and tells of its progress now and then.
///
/// # Errors
/// Where the plan is not allowed or the system refuses the socket.
pub fn run(
    plan: &Plan,
    progress: impl FnMut(&Progress),
    stop: &AtomicBool,
) -> Result<Report, RunError> {
    run_noting(plan, None, progress, stop)
}

/// [`run`], with each message noted in `ledger`; ends also when that is full. The payload must be
/// [`Payload::Counter`]. A ledger may go on through several runs, each beginning at its
/// [`Ledger::next_number`].
///
/// # Errors
/// Those of [`run`], and where the ledger does not go with the plan or cannot be written.
pub fn run_recorded(
    plan: &Plan,
    ledger: &mut Ledger,
    progress: impl FnMut(&Progress),
    stop: &AtomicBool,
) -> Result<Report, RunError> {
    if !matches!(plan.payload, Payload::Counter { .. }) {
        return Err(PlanError::LedgerPayload.into());
    }
    match ledger.next_number() {
        Some(expected) if expected != plan.first_number => {
            return Err(PlanError::LedgerNumber { expected, found: plan.first_number }.into());
        }
        _ => {}
    }
    let report = run_noting(plan, Some(ledger), progress, stop)?;
    ledger.finish().map_err(RunError::Ledger)?;
    Ok(report)
}

fn run_noting(
    plan: &Plan,
    ledger: Option<&mut Ledger>,
    mut progress: impl FnMut(&Progress),
    stop: &AtomicBool,
) -> Result<Report, RunError> {
    let (tell, told) = mpsc::channel();
    if plan.protocol.is_lwm2m() {
        return std::thread::scope(|scope| {
            let thread = scope.spawn(move || crate::lwm2m::run(plan, ledger, &tell, stop));
            told.iter().for_each(|state| progress(&state));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }
    let mut generator = Generator::new(plan, ledger, stop)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || generator.run(&tell, stop));
        told.iter().for_each(|state| progress(&state));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Generator<'a> {
    socket: FleetSocket,
    outbox: Outbox,
    world: World<'a>,
    schedule: Schedule,
    garbage: Schedule,
    sending: bool,
    next_progress: Duration,
}

impl<'a> Generator<'a> {
    fn new(
        plan: &'a Plan,
        ledger: Option<&'a mut Ledger>,
        stop: &AtomicBool,
    ) -> Result<Self, RunError> {
        let world = World::new(plan, ledger, stop)?;
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, plan.source_port);
        let socket = FleetSocket::bind(any).map_err(RunError::Socket)?;
        let per_second = match plan.load {
            Load::PerSecond(rate) => rate,
            Load::Outstanding(_) => 0,
        };
        Ok(Self {
            socket,
            outbox: Outbox::default(),
            world,
            schedule: Schedule::new(per_second),
            garbage: Schedule::new(plan.garbage_per_second),
            sending: true,
            next_progress: plan.progress_every,
        })
    }

    fn run(
        &mut self,
        tell: &mpsc::Sender<Progress>,
        stop: &AtomicBool,
    ) -> Result<Report, RunError> {
        self.open_sessions(tell, stop)?;
        loop {
            let now = self.world.now();
            if self.sending {
                self.begin_due(now);
                self.make_garbage(now);
                self.sending = !self.is_over(now, stop);
            }
            if !self.sending {
                self.world.end_sending(now);
            }
            self.world.handle_timeout(now, &mut self.outbox);
            let busy = self.outbox.len() > 0;
            self.send()?;
            let arrived = self.receive()?;
            self.tell_progress(now, tell);
            if self.is_finished(now) {
                break;
            }
            if !busy && arrived == 0 {
                self.socket.wait(self.idle_time(now)).map_err(RunError::Socket)?;
            }
        }
        // The last answer may have wanted an acknowledgement or the end of its session.
        self.send()?;
        let now = self.world.now();
        Ok(self.world.report(now, self.behind(now)))
    }

    /// Opens the sessions that are to stay, so that the figures of the run are those of messages
    /// alone. What failed is tried again by the run.
    fn open_sessions(
        &mut self,
        tell: &mpsc::Sender<Progress>,
        stop: &AtomicBool,
    ) -> Result<(), RunError> {
        let plan = self.world.plan();
        if self.world.sessions().is_none() || plan.security.requests_per_session.is_some() {
            return Ok(());
        }
        let (mut completed, mut completed_at) = (0, Duration::ZERO);
        loop {
            let now = self.world.now();
            let is_done = self.world.open_sessions(&mut self.outbox);
            let busy = self.outbox.len() > 0;
            self.send()?;
            let arrived = self.receive()?;
            self.tell_progress(now, tell);
            let so_far = self.completed_handshakes();
            if so_far != completed {
                (completed, completed_at) = (so_far, now);
            }
            if is_done || now >= completed_at + OPENING_PATIENCE || stop.load(Ordering::Relaxed) {
                break;
            }
            if !busy && arrived == 0 {
                self.socket.wait(TICK).map_err(RunError::Socket)?;
            }
        }
        self.world.end_opening();
        self.next_progress = plan.progress_every;
        Ok(())
    }

    /// Begins what is due, at most a batch, so that answers are read in between.
    fn begin_due(&mut self, now: Duration) {
        let end = self.world.plan().duration.unwrap_or(Duration::MAX);
        for _ in 0..BATCH {
            let since = match self.world.plan().load {
                Load::Outstanding(limit) if self.world.outstanding() < limit => now,
                Load::Outstanding(_) => break,
                Load::PerSecond(_) => self.schedule.next(),
            };
            if since > now || since >= end || self.world.has_sent_all() {
                break;
            }
            if !self.world.begin(now, since, &mut self.outbox) {
                break;
            }
            self.schedule.take(now);
        }
    }

    fn make_garbage(&mut self, now: Duration) {
        for _ in 0..BATCH {
            if self.garbage.take(now).is_none() {
                break;
            }
            self.world.write_garbage(&mut self.outbox);
        }
    }

    fn send(&mut self) -> Result<(), RunError> {
        let &Plan { base, target, .. } = self.world.plan();
        self.socket.send(&mut self.outbox).map_err(|source| RunError::Send { base, target, source })
    }

    fn receive(&mut self) -> Result<usize, RunError> {
        let Self { socket, outbox, world, .. } = self;
        let arrived = socket.receive(|arrival| world.handle_arrival(arrival, outbox));
        world.tally.counts.dropped = socket.dropped().into();
        arrived.map_err(RunError::Socket)
    }

    fn completed_handshakes(&self) -> u64 {
        self.world.sessions().map_or(0, |sessions| sessions.tally.counts.handshakes_completed)
    }

    fn tell_progress(&mut self, now: Duration, tell: &mpsc::Sender<Progress>) {
        if now < self.next_progress {
            return;
        }
        self.next_progress = now + self.world.plan().progress_every;
        let handshakes = self.world.sessions().map(|_| self.completed_handshakes());
        let outstanding = self.world.outstanding();
        let progress = self.world.tally.progress(now, outstanding, handshakes);
        // Nobody listens any more only when the caller's thread panicked.
        let _ = tell.send(progress);
    }

    fn is_over(&self, now: Duration, stop: &AtomicBool) -> bool {
        stop.load(Ordering::Relaxed)
            || self.world.plan().duration.is_some_and(|duration| now >= duration)
            || self.world.has_sent_all()
    }

    fn is_finished(&self, now: Duration) -> bool {
        if self.sending {
            return false;
        }
        let ended = self.world.tally.sending_end().unwrap_or(now);
        self.world.outstanding() == 0 || now >= ended + self.world.plan().drain
    }

    fn idle_time(&self, now: Duration) -> Duration {
        let mut until = now + TICK;
        if self.sending {
            until = until.min(self.garbage.next());
            if matches!(self.world.plan().load, Load::PerSecond(_)) {
                until = until.min(self.schedule.next());
            }
        }
        until.saturating_sub(now)
    }

    fn behind(&self, now: Duration) -> u64 {
        match self.world.plan().load {
            Load::Outstanding(_) => 0,
            // A run that reached its count is not behind with what comes after it.
            Load::PerSecond(_) if self.world.has_sent_all() => 0,
            Load::PerSecond(_) => {
                let end = self.world.tally.sending_end().unwrap_or(now);
                self.schedule.behind(end.min(self.world.plan().duration.unwrap_or(end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::net::UdpSocket;
    use std::sync::{Arc, Mutex};

    use coap::wire::Code;

    use super::*;
    use crate::plan::{Protocol, Retransmission};
    use crate::random::Random;
    use crate::responder::{Answer, Responder};

    const LOCALHOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    fn plan(target: SocketAddrV4, protocol: Protocol, count: u64) -> Plan {
        Plan {
            target,
            protocol,
            devices: 20,
            load: Load::Outstanding(8),
            count: Some(count),
            duration: Some(Duration::from_secs(30)),
            ..Plan::default()
        }
    }

    fn finish(plan: &Plan) -> Report {
        run(plan, |_| {}, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn a_lossy_network_loses_nothing_that_is_repeated() {
        let seen = Arc::new(Mutex::new(HashMap::<u64, u32>::new()));
        let sight = Arc::clone(&seen);
        let mut random = Random::new(4);
        // Half of the losses on the way there, half of them on the way back.
        let responder = Responder::start(LOCALHOST, move |_, request| {
            let fate = random.below(8);
            if fate != 0 {
                let number = u64::from_be_bytes(request.payload.try_into().unwrap());
                *sight.lock().unwrap().entry(number).or_default() += 1;
            }
            if fate < 2 { Answer::Silence } else { Answer::Piggybacked(Code::CHANGED) }
        })
        .unwrap();
        let retransmission = Retransmission {
            ack_timeout: Duration::from_millis(30),
            max_retransmit: 10,
            ..Retransmission::default()
        };
        let plan = Plan { retransmission, ..plan(responder.address(), Protocol::CoapCon, 300) };
        let mut ledger = Ledger::default();
        let report = run_recorded(&plan, &mut ledger, |_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!((report.counts.sent, report.counts.acknowledged), (300, 300));
        assert!(report.counts.retransmitted > 30, "{report:?}");
        assert_eq!((report.counts.lost, report.unanswered), (0, 0));
        assert!(report.latency.max_us >= 30_000);
        let seen = seen.lock().unwrap();
        assert_eq!(
            ledger.acknowledged_numbers().collect::<Vec<_>>(),
            (1..=300).collect::<Vec<_>>()
        );
        assert!(ledger.acknowledged_numbers().all(|number| seen.contains_key(&number)));
        assert!(seen.values().any(|times| *times > 1), "some repeat must have arrived");
    }

    #[test]
    fn a_repeat_has_the_same_bytes_and_silence_is_a_loss() {
        let copies = Arc::new(Mutex::new(HashSet::new()));
        let kept = Arc::clone(&copies);
        let responder = Responder::start(LOCALHOST, move |peer, request| {
            let (id, token) = (request.id, request.token);
            kept.lock().unwrap().insert((peer, id, token, request.payload.to_vec()));
            Answer::Silence
        })
        .unwrap();
        let retransmission = Retransmission {
            ack_timeout: Duration::from_millis(20),
            max_retransmit: 2,
            ..Retransmission::default()
        };
        let plan = Plan {
            retransmission,
            payload: Payload::Random { bytes: 40 },
            ..plan(responder.address(), Protocol::CoapCon, 5)
        };
        let report = finish(&plan);
        assert_eq!((report.counts.lost, report.counts.retransmitted), (5, 10));
        assert_eq!(copies.lock().unwrap().len(), 5);
        assert_eq!(responder.requests(), 15);
    }

    #[test]
    fn separate_answers_and_short_tokens_and_unconfirmed_requests_work() {
        let responder =
            Responder::start(LOCALHOST, |_, _| Answer::Separate(Code::CREATED)).unwrap();
        let confirmed =
            Plan { token_bytes: 4, ..plan(responder.address(), Protocol::CoapCon, 100) };
        let report = finish(&confirmed);
        assert_eq!((report.counts.acknowledged, report.counts.separate), (100, 100));
        let report = finish(&plan(responder.address(), Protocol::CoapNon, 100));
        assert_eq!((report.counts.acknowledged, report.counts.separate), (100, 0));
    }

    #[test]
    fn refusals_are_counted_by_code_and_strangers_send_garbage() {
        let mut turn = 0;
        let responder = Responder::start(LOCALHOST, move |_, _| {
            turn += 1;
            let codes = [Code::UNAUTHORIZED, Code::SERVICE_UNAVAILABLE];
            Answer::Piggybacked(codes[turn % 2])
        })
        .unwrap();
        let plan = Plan {
            load: Load::PerSecond(200),
            garbage_per_second: 1_000,
            ..plan(responder.address(), Protocol::CoapCon, 40)
        };
        let report = finish(&plan);
        assert_eq!(report.counts.rejected_total(), 40);
        assert_eq!(report.counts.rejected.len(), 2);
        assert!(report.counts.garbage_sent >= 100, "{report:?}");
        assert!(report.counts.garbage_answered > 0, "{report:?}");
    }

    #[test]
    fn an_open_loop_keeps_its_rate_when_nobody_answers() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, silent.local_addr().unwrap().port());
        let plan = Plan {
            load: Load::PerSecond(2_000),
            duration: Some(Duration::from_millis(500)),
            count: None,
            drain: Duration::ZERO,
            ..plan(target, Protocol::CoapCon, 1)
        };
        let report = finish(&plan);
        assert_eq!(report.counts.sent + report.behind, 1_000);
        assert_eq!(report.unanswered, report.counts.sent);
        assert_eq!(report.counts.acknowledged, 0);
    }

    #[test]
    fn a_closed_port_is_a_loss_and_no_error_and_the_next_server_is_found() {
        let responder =
            Responder::start(LOCALHOST, |_, _| Answer::Piggybacked(Code::CHANGED)).unwrap();
        let target = responder.address();
        drop(responder);
        let retransmission =
            Retransmission { ack_timeout: Duration::from_millis(50), ..Retransmission::default() };
        let plan = Plan { retransmission, ..plan(target, Protocol::CoapCon, 100) };
        let mut restarted = None;
        let progress = |_: &Progress| {
            restarted.get_or_insert_with(|| {
                Responder::start(target, |_, _| Answer::Piggybacked(Code::CHANGED)).unwrap()
            });
        };
        let plan = Plan { progress_every: Duration::from_millis(100), ..plan };
        let report = run(&plan, progress, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.counts.acknowledged, 100);
        assert!(report.counts.retransmitted >= 8, "{report:?}");
    }

    #[test]
    fn a_target_out_of_reach_is_named() {
        // TEST-NET-1 (RFC 5737): nobody's address.
        let target = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5683);
        let error =
            run(&plan(target, Protocol::CoapCon, 1), |_| {}, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().starts_with("sending from 127.16.0.1 to 192.0.2.1:5683"));
    }

    #[test]
    fn udp_is_sent_and_forgotten() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port());
        let report = finish(&plan(target, Protocol::Udp, 50));
        assert_eq!((report.counts.sent, report.unanswered), (50, 0));
        let (mut bytes, mut peers) = ([0; 16], HashSet::new());
        for number in 1..=50_u64 {
            let (length, peer) = server.recv_from(&mut bytes).unwrap();
            assert_eq!(bytes[..length], number.to_be_bytes());
            peers.insert(peer);
        }
        assert_eq!(peers.len(), 20);
    }

    #[test]
    fn a_stop_flag_ends_a_run_without_end() {
        let responder =
            Responder::start(LOCALHOST, |_, _| Answer::Piggybacked(Code::CHANGED)).unwrap();
        let stop = AtomicBool::new(false);
        let endless = Plan {
            count: None,
            duration: None,
            progress_every: Duration::from_millis(20),
            ..plan(responder.address(), Protocol::CoapCon, 1)
        };
        let mut told = 0;
        let progress = |state: &Progress| {
            told += 1;
            assert!(state.counts.sent > 0);
            stop.store(told >= 3, Ordering::Relaxed);
        };
        let report = run(&endless, progress, &stop).unwrap();
        assert_eq!(report.counts.acknowledged, report.counts.sent);
        assert!(told >= 3);
    }

    #[test]
    fn a_full_ledger_ends_the_run_and_the_next_one_goes_on() {
        let responder =
            Responder::start(LOCALHOST, |_, _| Answer::Piggybacked(Code::CHANGED)).unwrap();
        let stop = AtomicBool::new(false);
        let mut ledger = Ledger::new(30);
        let first = plan(responder.address(), Protocol::CoapCon, 20);
        run_recorded(&first, &mut ledger, |_| {}, &stop).unwrap();
        let error = run_recorded(&first, &mut ledger, |_| {}, &stop).unwrap_err();
        assert_eq!(error.to_string(), "the ledger goes on at number 21, the plan begins at 1");
        let second = Plan { first_number: 21, seed: 2, ..first };
        let report = run_recorded(&second, &mut ledger, |_| {}, &stop).unwrap();
        assert_eq!((report.counts.sent, ledger.acknowledged()), (10, 30));
        let random = Plan { payload: Payload::Random { bytes: 8 }, ..second };
        assert!(run_recorded(&random, &mut ledger, |_| {}, &stop).is_err());
    }
}
