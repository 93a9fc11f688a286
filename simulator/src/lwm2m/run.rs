//! A run with LwM2M: one thread, all devices. They register, do their traffic, and leave.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::generator::RunError;
use crate::ledger::Ledger;
use crate::lwm2m::device::Stage;
use crate::lwm2m::network::Network;
use crate::lwm2m::settings::Traffic;
use crate::lwm2m::world::World;
use crate::plan::{Load, Plan, Protocol};
use crate::random::Random;
use crate::report::{Progress, Report};
use crate::schedule::Schedule;
use crate::socket::{BATCH, FleetSocket};
use crate::timers::TICK;

/// How long registering goes on without a registration: a device that was refused twice, or not
/// heard at first, comes again by then (RFC 7252 §4.8.2: 93 s).
const REGISTERING_PATIENCE: Duration = Duration::from_secs(120);

/// How long leaving goes on without an answer.
const LEAVING_PATIENCE: Duration = Duration::from_secs(10);

/// Devices that leave at the same time.
const LEAVING_AT_ONCE: usize = 64;

/// Ports that devices speak from in turn where a NAT forgets them.
const NAT_PORTS: usize = 4;

/// Runs `plan`, and tells how it goes.
///
/// # Errors
/// Where the plan is not allowed or the system refuses a socket.
pub(crate) fn run(
    plan: &Plan,
    ledger: Option<&mut Ledger>,
    tell: &mpsc::Sender<Progress>,
    stop: &AtomicBool,
) -> Result<Report, RunError> {
    let mut driver = Driver::new(plan, ledger, stop)?;
    driver.register_all(tell, stop)?;
    driver.make_traffic(tell, stop)?;
    let (registered, observations) = driver.census();
    if plan.lwm2m.deregister {
        driver.leave(tell)?;
    }
    Ok(driver.report(registered, observations))
}

struct Driver<'a> {
    plan: &'a Plan,
    sockets: Vec<FleetSocket>,
    world: World<'a>,
    next_progress: Duration,
    /// When the traffic began and how long it lasted.
    begun: Duration,
    ended: Option<Duration>,
    /// Where the search for the next device begins.
    cursor: usize,
    schedule: Schedule,
    is_registering: bool,
}

impl<'a> Driver<'a> {
    fn new(
        plan: &'a Plan,
        ledger: Option<&'a mut Ledger>,
        stop: &AtomicBool,
    ) -> Result<Self, RunError> {
        let fleet = plan.check()?;
        let (sessions, _) = match plan.protocol {
            Protocol::Lwm2ms => {
                // The first sessions are those with the bootstrap server, where there is one.
                let target = plan.lwm2m.bootstrap.unwrap_or(plan.target);
                crate::world::secure(&Plan { target, ..plan.clone() }, fleet, stop)?
            }
            _ => (None, None),
        };
        let is_plain = sessions.is_none();
        let ports = if is_plain && plan.security.nat_after.is_some() { NAT_PORTS } else { 1 };
        let mut sockets = Vec::new();
        for turn in 0..ports {
            let port = if turn == 0 { plan.source_port } else { 0 };
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            sockets.push(FleetSocket::bind(any).map_err(RunError::Socket)?);
        }
        let losses = (plan.lwm2m.lost_per_mille, Random::new(plan.seed ^ 0x6c6f_7373));
        let network = Network::new(fleet, sessions, ports, losses);
        Ok(Self {
            plan,
            sockets,
            world: World::new(plan, fleet, network, ledger)?,
            next_progress: plan.progress_every,
            begun: Duration::ZERO,
            ended: None,
            cursor: 0,
            schedule: Schedule::new(per_second(plan.load)),
            is_registering: true,
        })
    }

    /// Lets every device register once.
    fn register_all(
        &mut self,
        tell: &mpsc::Sender<Progress>,
        stop: &AtomicBool,
    ) -> Result<(), RunError> {
        let load = match self.plan.lwm2m.traffic {
            Traffic::Nothing => self.plan.load,
            _ => self.plan.lwm2m.registering,
        };
        let mut schedule = Schedule::new(per_second(load));
        let (mut next, mut done, mut done_at) = (0, 0, Duration::ZERO);
        loop {
            let now = self.world.now();
            for _ in 0..BATCH {
                let since = match load {
                    _ if next == self.plan.devices => break,
                    Load::Outstanding(limit) if self.world.registering >= limit => break,
                    Load::Outstanding(_) => now,
                    Load::PerSecond(_) => match schedule.take(now) {
                        Some(since) => since,
                        None => break,
                    },
                };
                self.world.begin(now, since, next);
                next += 1;
            }
            self.step(now, tell)?;
            let so_far = self.world.lwm2m.registering.counts.acknowledged;
            if so_far != done {
                (done, done_at) = (so_far, now);
            }
            let is_all = done == u64::from(self.plan.devices);
            let is_hopeless = next == self.plan.devices && now >= done_at + REGISTERING_PATIENCE;
            if is_all || is_hopeless || stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let now = self.world.now();
        self.world.lwm2m.end_registering(now);
        self.is_registering = false;
        self.begun = now;
        self.next_progress = now + self.plan.progress_every;
        let announcement = format!("{done} of {} devices are registered", self.plan.devices);
        self.tell(now, tell, Some(announcement));
        Ok(())
    }

    /// What the devices do once they have registered.
    fn make_traffic(
        &mut self,
        tell: &mpsc::Sender<Progress>,
        stop: &AtomicBool,
    ) -> Result<(), RunError> {
        let traffic = self.plan.lwm2m.traffic;
        let duration = match traffic {
            Traffic::Nothing => return Ok(()),
            Traffic::Hold(duration) => Some(duration),
            _ => self.plan.duration,
        };
        let makes_load = !matches!(traffic, Traffic::Hold(_));
        loop {
            let now = self.world.now();
            let span = now.saturating_sub(self.begun);
            let is_over = duration.is_some_and(|duration| span >= duration)
                || (makes_load && self.has_sent_all())
                || stop.load(Ordering::Relaxed);
            if is_over && self.ended.is_none() {
                self.ended = Some(span);
                self.world.tally.end_sending(span);
            }
            if self.ended.is_none() && makes_load {
                self.begin_due(now, duration);
            }
            let limit = self.ended.map(|ended| ended + self.plan.drain);
            let is_idle = self.world.outstanding == 0;
            if limit.is_some_and(|limit| is_idle || span >= limit) {
                return Ok(());
            }
            self.step(now, tell)?;
        }
    }

    fn has_sent_all(&self) -> bool {
        self.plan.count.is_some_and(|count| self.world.tally.counts.sent >= count)
            || self.world.ledger.as_ref().is_some_and(|ledger| ledger.is_full())
    }

    /// Begins what is due, at most a batch, so that answers are read in between.
    fn begin_due(&mut self, now: Duration, duration: Option<Duration>) {
        let end = duration.map_or(Duration::MAX, |duration| self.begun + duration);
        for _ in 0..BATCH {
            let since = match self.plan.load {
                Load::Outstanding(limit) if self.world.outstanding < limit => now,
                Load::Outstanding(_) => break,
                Load::PerSecond(_) => self.begun + self.schedule.next(),
            };
            if since > now || since >= end || self.has_sent_all() {
                break;
            }
            let is_begun = match self.plan.lwm2m.traffic {
                Traffic::Notifications => {
                    self.world.begin_notification(now, since, &mut self.cursor)
                }
                Traffic::Sends => self.world.begin_send(now, since, &mut self.cursor),
                Traffic::Updates => self.world.begin_update(now, since, &mut self.cursor),
                Traffic::Nothing | Traffic::Hold(_) => false,
            };
            if !is_begun {
                break;
            }
            self.schedule.take(now.saturating_sub(self.begun));
        }
    }

    /// Lets every device that is registered de-register.
    fn leave(&mut self, tell: &mpsc::Sender<Progress>) -> Result<(), RunError> {
        let (mut next, mut done, mut done_at) = (0, 0, self.world.now());
        let mut leaving: Vec<u32> = Vec::new();
        loop {
            let now = self.world.now();
            let devices = &self.world.devices;
            leaving.retain(|index| devices[*index as usize].stage == Stage::Leaving);
            while leaving.len() < LEAVING_AT_ONCE && next < self.plan.devices {
                self.world.leave(now, next);
                leaving.push(next);
                next += 1;
            }
            self.step(now, tell)?;
            let so_far = self.world.lwm2m.counts.deregistrations;
            if so_far != done {
                (done, done_at) = (so_far, now);
            }
            let is_all = next == self.plan.devices && leaving.is_empty();
            if is_all || now >= done_at + LEAVING_PATIENCE {
                return Ok(());
            }
        }
    }

    /// Sends, receives, does what is due, and rests where there is nothing of that.
    fn step(&mut self, now: Duration, tell: &mpsc::Sender<Progress>) -> Result<(), RunError> {
        self.world.handle_timeout(now);
        let mut is_busy = self.send()?;
        let Self { sockets, world, .. } = self;
        let mut dropped = 0;
        for socket in sockets {
            let arrived = socket.receive(|arrival| world.handle_arrival(arrival));
            is_busy |= arrived.map_err(RunError::Socket)? > 0;
            dropped += u64::from(socket.dropped());
        }
        self.world.tally.counts.dropped = dropped;
        is_busy |= self.send()?;
        if now >= self.next_progress {
            self.next_progress = now + self.plan.progress_every;
            self.tell(now, tell, None);
        }
        if is_busy {
            return Ok(());
        }
        let wait = match self.world.next_due() {
            Some(due) => due.saturating_sub(self.world.now()).min(TICK),
            None => TICK,
        };
        let wait = if self.makes_rate() { wait.min(Duration::from_millis(1)) } else { wait };
        self.sockets[0].wait(wait).map_err(RunError::Socket)
    }

    /// Whether something may be due at any moment.
    const fn makes_rate(&self) -> bool {
        matches!(self.plan.load, Load::PerSecond(_)) && self.ended.is_none()
    }

    fn send(&mut self) -> Result<bool, RunError> {
        let &Plan { base, target, .. } = self.plan;
        let mut is_busy = false;
        for (socket, outbox) in self.sockets.iter().zip(self.world.network.outboxes()) {
            is_busy |= outbox.len() > 0;
            let failed = |source| RunError::Send { base, target, source };
            socket.send(outbox).map_err(failed)?;
        }
        Ok(is_busy)
    }

    fn tell(&mut self, now: Duration, tell: &mpsc::Sender<Progress>, announcement: Option<String>) {
        let sessions = self.world.network.sessions();
        let handshakes = sessions.map(|sessions| sessions.tally.counts.handshakes_completed);
        let registered = self.world.lwm2m.registering.counts.acknowledged;
        let (tally, waiting) = match self.is_registering {
            true => (&mut self.world.lwm2m.registering, self.world.registering),
            false => (&mut self.world.tally, self.world.outstanding),
        };
        let progress = Progress {
            registered: Some(registered),
            announcement,
            ..tally.progress(now.saturating_sub(self.begun), waiting, handshakes)
        };
        // Nobody listens any more only when the caller's thread panicked.
        let _ = tell.send(progress);
    }

    /// Registered devices; observations, and those of the measured value.
    fn census(&self) -> (u64, (u64, u64)) {
        let devices = &self.world.devices;
        let registered = devices.iter().filter(|device| device.stage == Stage::Registered);
        let observations = || devices.iter().flat_map(|device| &device.observations);
        let measured = observations().filter(|one| one.is_measured()).count();
        (registered.count() as u64, (observations().count() as u64, measured as u64))
    }

    fn report(mut self, registered: u64, observations: (u64, u64)) -> Report {
        let span = self.ended.unwrap_or_default();
        let behind = match self.plan.load {
            Load::Outstanding(_) => 0,
            Load::PerSecond(_) if self.has_sent_all() || self.ended.is_none() => 0,
            Load::PerSecond(_) => self.schedule.behind(span),
        };
        let sessions = self.world.network.sessions();
        let dtls =
            sessions.map(|sessions| sessions.tally.report(span, sessions.handshaking(), None));
        let counts = &mut self.world.lwm2m.counts;
        counts.lost_on_purpose = self.world.network.lost;
        counts.stray = self.world.network.stray;
        self.world.tally.counts.retransmitted = counts.repeated;
        let lwm2m = Some(self.world.lwm2m.report(registered, observations));
        let report = match self.plan.lwm2m.traffic {
            Traffic::Nothing | Traffic::Hold(_) => {
                let missing = self.plan.devices as usize;
                let done = self.world.lwm2m.registering.counts.acknowledged;
                let missing = missing.saturating_sub(usize::try_from(done).unwrap_or(missing));
                let registering = &mut self.world.lwm2m.registering;
                registering.counts.retransmitted = self.world.lwm2m.counts.repeated;
                registering.counts.dropped = self.world.tally.counts.dropped;
                registering.report(self.begun, missing, 0)
            }
            _ => self.world.tally.report(span, self.world.outstanding, behind),
        };
        Report { dtls, lwm2m, ..report }
    }
}

const fn per_second(load: Load) -> u64 {
    match load {
        Load::PerSecond(rate) => rate,
        Load::Outstanding(_) => 0,
    }
}
