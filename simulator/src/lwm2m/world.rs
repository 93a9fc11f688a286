//! All devices of a run with one CoAP endpoint between them: messages in, messages out, everything
//! counted. Has no socket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use coap::wire::{MessageRef, MessageType};
use coap::{
    CancelCause, Config, Endpoint, Event, Exchange, Limits, ObservationId, Output, RequestId,
    Response, Transmission,
};
use hashbrown::HashMap;
use lwm2m::{Model, Path, codec};
use vocabulary::Timestamp;

use crate::fleet::Fleet;
use crate::generator::RunError;
use crate::ledger::Ledger;
use crate::lwm2m::bootstrap::CoapUri;
use crate::lwm2m::device::{Device, Ending, Rules, Stage, Want};
use crate::lwm2m::firmware::{FirmwareRules, Outcome};
use crate::lwm2m::leg::Leg;
use crate::lwm2m::network::Network;
use crate::lwm2m::objects::{Facts, MEASURED};
use crate::lwm2m::observations::Observation;
use crate::lwm2m::registration::{self, Purpose};
use crate::lwm2m::report::Lwm2mTally;
use crate::lwm2m::requests::{Tongue, describe};
use crate::lwm2m::settings::Lwm2m;
use crate::plan::Plan;
use crate::random::Random;
use crate::report::Tally;
use crate::socket::Arrival;
use crate::timers::Timers;

/// A firmware package, in bytes: more than any that a constrained device takes.
const PACKAGE_BYTES_MAX: usize = 16 << 20;

/// How many values the endpoint may keep for all devices; it grows as it needs.
const ENDPOINT_ENTRIES_MAX: usize = 4_000_000;

/// A confirmable notification that waits for its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Told {
    observation: ObservationId,
    /// Of the traffic: its number, and when it was due.
    traffic: Option<(u64, Duration)>,
}

/// A request of a device that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) device: u32,
    pub(crate) purpose: Purpose,
    /// When it was due.
    pub(crate) since: Duration,
    /// Whether it is an update that the traffic wanted.
    pub(crate) is_traffic: bool,
}

/// An answer that comes late on purpose.
pub(crate) struct Late {
    pub(crate) due: Duration,
    pub(crate) exchange: Exchange<Leg>,
    pub(crate) response: Response,
}

/// The devices of a run.
pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) settings: &'a Lwm2m,
    pub(crate) fleet: Fleet,
    pub(crate) rules: Rules,
    pub(crate) firmware: FirmwareRules,
    pub(crate) tongue: Tongue,
    pub(crate) devices: Vec<Device>,
    pub(crate) endpoint: Endpoint<Leg>,
    pub(crate) network: Network,
    pub(crate) waiting: HashMap<RequestId, Waiting>,
    told: HashMap<(u32, u16), Told>,
    pub(crate) late: VecDeque<Late>,
    timers: Timers,
    expired: Vec<u64>,
    pub(crate) random: Random,
    pub(crate) ledger: Option<&'a mut Ledger>,
    /// The traffic.
    pub(crate) tally: Tally,
    pub(crate) lwm2m: Lwm2mTally,
    /// Traffic that waits for an answer.
    pub(crate) outstanding: usize,
    /// Devices that have observers of the measured value, some of them perhaps no longer.
    pub(crate) observed: Vec<u32>,
    /// Devices whose first registration has begun and not ended.
    pub(crate) registering: usize,
    pub(crate) started: Instant,
    started_at: Timestamp,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        fleet: Fleet,
        network: Network,
        ledger: Option<&'a mut Ledger>,
    ) -> Result<Self, RunError> {
        let settings = &plan.lwm2m;
        let mut random = Random::new(plan.seed ^ 0x6c77_6d32_6d00);
        let rules = Rules {
            bootstrap: settings.bootstrap,
            target: plan.target,
            is_secure: plan.protocol.is_secure(),
            lifetime_seconds: settings.lifetime_seconds,
            update_every: settings.update_every,
            awake: settings.awake,
            change_every: settings.change_every,
            install: settings.firmware_takes,
        };
        let devices = (0..plan.devices).map(|_| Device::new(&rules)).collect();
        Ok(Self {
            plan,
            settings,
            fleet,
            devices,
            rules,
            firmware: FirmwareRules {
                sha256: settings.firmware_sha256,
                version: settings.firmware_version.clone(),
                takes: settings.firmware_takes,
            },
            tongue: Tongue { model: Model::builtin(), preferred: settings.preferred() },
            endpoint: Endpoint::new(endpoint_config(plan), random.next()),
            network,
            waiting: HashMap::new(),
            told: HashMap::new(),
            late: VecDeque::new(),
            timers: Timers::new(),
            expired: Vec::new(),
            random,
            ledger,
            tally: Tally::new()?,
            lwm2m: Lwm2mTally::new()?,
            outstanding: 0,
            observed: Vec::new(),
            registering: 0,
            started: Instant::now(),
            started_at: crate::world::wall_clock(),
        })
    }

    /// Since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall clock at a moment of the run.
    pub(crate) fn at(&self, now: Duration) -> Timestamp {
        self.started_at.saturating_add(now)
    }

    /// Device `index` begins its life; it was due at `since`.
    pub(crate) fn begin(&mut self, now: Duration, since: Duration, index: u32) {
        let device = &mut self.devices[index as usize];
        device.since = since;
        device.is_beginning = true;
        device.begin(now, &self.rules);
        self.registering += 1;
        self.lwm2m.registering.counts.sent += 1;
        self.serve(now, index);
    }

    /// Does what device `index` wants, and sets its timer.
    pub(crate) fn serve(&mut self, now: Duration, index: u32) {
        while let Some(want) = self.devices[index as usize].next_want(now, &self.rules) {
            match want {
                Want::Ask(purpose) => self.ask(now, now, (index, purpose)),
                Want::Notify(place) => self.notify(now, (index, place), None),
                Want::ForgetObservers => self.forget_observers(index),
            }
        }
        let device = &mut self.devices[index as usize];
        if device.stage != Stage::Registered && device.update_due.take().is_some() {
            // It began anew before it could update.
            self.outstanding = self.outstanding.saturating_sub(1);
            self.tally.counts.lost += 1;
        }
        if let Some(deadline) = device.deadline(now, &self.rules)
            && deadline < device.armed
        {
            device.armed = deadline;
            self.timers.set(index.into(), deadline);
        }
    }

    fn forget_observers(&mut self, index: u32) {
        let observations = std::mem::take(&mut self.devices[index as usize].observations);
        self.lwm2m.counts.observations_ended += observations.len() as u64;
        for one in observations {
            self.endpoint.end_observation(one.id);
            self.forget_told(&one);
        }
    }

    /// Nobody acknowledges any more what an observer was told.
    fn forget_told(&mut self, observation: &Observation) {
        if !observation.is_awaited {
            return;
        }
        // Rare enough for a walk: an observation ends once.
        let lost = self.told.extract_if(|_, told| told.observation == observation.id);
        let lost = lost.filter(|(_, told)| told.traffic.is_some()).count();
        self.outstanding = self.outstanding.saturating_sub(lost);
        self.tally.counts.lost += lost as u64;
    }

    /// Sends a request of a device, which was due at `since`.
    pub(crate) fn ask(&mut self, now: Duration, since: Duration, (index, purpose): (u32, Purpose)) {
        let Some((request, leg)) = self.write(now, index, purpose) else {
            self.lwm2m.counts.firmware_failed += u64::from(purpose == Purpose::Fetch);
            self.note_firmware(index);
            return self.end(now, index, (purpose, Ending::Failed));
        };
        let device = &mut self.devices[index as usize];
        let wanted = device.update_due.take_if(|_| purpose == Purpose::Update);
        let counts = &mut self.lwm2m.counts;
        match purpose {
            Purpose::Bootstrap => counts.bootstraps_begun += 1,
            Purpose::Register => counts.registrations_begun += 1,
            Purpose::Update => counts.updates_begun += 1,
            Purpose::Send(_) | Purpose::Deregister | Purpose::Fetch => {}
        }
        self.note_uplink(now, index);
        match self.endpoint.request(self.started + now, leg, request) {
            Ok(id) => {
                let (since, is_traffic) = (wanted.unwrap_or(since), wanted.is_some());
                let waiting = Waiting { device: index, purpose, since, is_traffic };
                self.waiting.insert(id, waiting);
                self.drain(now, false);
            }
            // The limits of the endpoint are above what the devices can ask for.
            Err(_) => self.end(now, index, (purpose, Ending::Failed)),
        }
    }

    fn write(
        &mut self,
        now: Duration,
        index: u32,
        purpose: Purpose,
    ) -> Option<(coap::Request, Leg)> {
        let settings = self.settings;
        let endpoint = self.endpoint_name(index);
        let address = self.fleet.address(index);
        let unix_seconds = self.at(now).as_micros() / 1_000_000;
        let device = &mut self.devices[index as usize];
        let mut leg = Leg { device: index, server: device.server, is_secure: device.is_secure };
        let request = match purpose {
            Purpose::Bootstrap => {
                self.network.turn_home(self.started + now, index);
                registration::bootstrap(settings, &endpoint)
            }
            Purpose::Register => registration::register(settings, &endpoint, &device.objects),
            Purpose::Update => {
                let has_changed = std::mem::take(&mut device.has_changed);
                registration::update(settings, &device.location, &device.objects, has_changed)
            }
            Purpose::Deregister => registration::deregister(&device.location),
            Purpose::Send(number) => {
                device.measure(number as f64);
                let binding = registration::binding_text(settings);
                let firmware = &self.firmware;
                let endpoint = &endpoint;
                let facts = Facts { index, endpoint, address, unix_seconds, binding, firmware };
                let paths = std::iter::once(&MEASURED).chain(&settings.send_paths);
                let found = paths.filter_map(|path| device.objects.read(&facts, path).ok());
                let records: Vec<_> = found.flatten().collect();
                let format = settings.send_format();
                let payload = codec::encode(format, &Path::ROOT, &records).ok()?;
                registration::send(format, payload)
            }
            Purpose::Fetch => {
                let uri = device.objects.firmware_mut().uri.clone();
                let Some(uri) = CoapUri::parse(&uri, *device.server.ip()) else {
                    device.objects.firmware_mut().reset(Outcome::InvalidUri);
                    return None;
                };
                let is_same = uri.server == device.server && device.is_secure;
                if uri.is_secure && !is_same {
                    // A session is there with the own server only.
                    device.objects.firmware_mut().reset(Outcome::UnsupportedProtocol);
                    return None;
                }
                leg = Leg { server: uri.server, is_secure: uri.is_secure, ..leg };
                registration::fetch(&uri)
            }
        };
        Some((request, leg))
    }

    /// The name under which a device registers.
    pub(crate) fn endpoint_name(&self, index: u32) -> String {
        let own = self.fleet.iccid(index).map(|iccid| iccid.to_string()).unwrap_or_default();
        if self.settings.wrong_endpoint { format!("not-{own}") } else { own }
    }

    /// A device says something that the server may answer with a command.
    fn note_uplink(&mut self, now: Duration, index: u32) {
        self.devices[index as usize].uplink_at = Some(now);
        self.stay_awake(now, index);
    }

    fn stay_awake(&mut self, now: Duration, index: u32) {
        let device = &mut self.devices[index as usize];
        if !device.stay_awake(now, &self.rules) {
            return;
        }
        self.lwm2m.counts.wakes += 1;
        let every = self.plan.security.nat_after.filter(|every| *every > 0);
        if every.is_some_and(|every| u64::from(device.wakes) % every == 0) {
            device.port = device.port.wrapping_add(1);
            self.network.change_address(index);
        }
    }

    /// Tells the observer `place` of a device; `traffic` numbers the notifications of the load.
    pub(crate) fn notify(
        &mut self,
        now: Duration,
        (index, place): (u32, usize),
        traffic: Option<(u64, Duration)>,
    ) {
        let is_confirmable = self.settings.confirmable_notifications;
        let device = &self.devices[index as usize];
        let Some(observation) = device.observations.get(place) else { return };
        let (id, response) = {
            let endpoint = self.endpoint_name(index);
            let facts = self.facts(now, index, &endpoint);
            (observation.id, describe(&device.objects, &facts, &observation.watch))
        };
        self.note_uplink(now, index);
        let device = &mut self.devices[index as usize];
        let observation = &mut device.observations[place];
        observation.note_told(now, &device.objects);
        observation.is_awaited = is_confirmable;
        let leg = Leg { device: index, server: device.server, is_secure: device.is_secure };
        if self.endpoint.notify(self.started + now, id, response, is_confirmable).is_err() {
            self.end_observation(index, id);
            return;
        }
        let counts = &mut self.lwm2m.counts;
        counts.notifications_confirmable += u64::from(is_confirmable);
        counts.notifications_non_confirmable += u64::from(!is_confirmable);
        if let Some(message_id) = self.drain_one(now, leg)
            && is_confirmable
        {
            self.told.insert((index, message_id), Told { observation: id, traffic });
            self.outstanding += usize::from(traffic.is_some());
        }
        self.drain(now, false);
    }

    /// Sends the message that the endpoint has just written; its id.
    fn drain_one(&mut self, now: Duration, leg: Leg) -> Option<u16> {
        match self.endpoint.poll_output() {
            Output::Transmit { peer, bytes } if peer == leg => {
                self.transmit(now, peer, &bytes);
                Some(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))
            }
            other => {
                self.handle_output(now, other, false);
                None
            }
        }
    }

    pub(crate) fn facts<'f>(&'f self, now: Duration, index: u32, endpoint: &'f str) -> Facts<'f> {
        Facts {
            index,
            endpoint,
            address: self.fleet.address(index),
            unix_seconds: self.at(now).as_micros() / 1_000_000,
            binding: registration::binding_text(self.settings),
            firmware: &self.firmware,
        }
    }

    /// Takes a datagram that arrived at one of the ports.
    pub(crate) fn handle_arrival(&mut self, arrival: Arrival<'_>) {
        let now = self.now();
        let owner = self.fleet.owner(arrival.to);
        if let Some(device) = owner
            && self.devices[device as usize].is_asleep(now, &self.rules)
        {
            self.lwm2m.counts.slept_through += 1;
            return;
        }
        if let Some((leg, bytes)) = self.network.handle_arrival(self.started + now, arrival) {
            self.handle_message(now, leg, bytes);
        }
        self.handle_arrived(now);
    }

    fn handle_arrived(&mut self, now: Duration) {
        while let Some((leg, bytes)) = self.network.next_arrived() {
            self.handle_message(now, leg, &bytes);
        }
    }

    fn handle_message(&mut self, now: Duration, leg: Leg, bytes: &[u8]) {
        self.devices[leg.device as usize].repeats = 0;
        self.stay_awake(now, leg.device);
        if let Ok(message) = MessageRef::parse(bytes)
            && message.message_type == MessageType::Acknowledgement
            && let Some(told) = self.told.remove(&(leg.device, message.id.0))
        {
            self.handle_told(now, leg.device, told);
        }
        self.endpoint.handle_datagram(self.started + now, leg, bytes);
        self.drain(now, false);
        self.serve(now, leg.device);
    }

    /// A confirmable notification was acknowledged.
    fn handle_told(&mut self, now: Duration, index: u32, told: Told) {
        self.lwm2m.counts.notifications_acknowledged += 1;
        let mut observations = self.devices[index as usize].observations.iter_mut();
        if let Some(one) = observations.find(|one| one.id == told.observation) {
            one.is_awaited = false;
        }
        if let Some((number, since)) = told.traffic {
            self.acknowledge(now, Some(number), since);
        }
    }

    /// Traffic was acknowledged; updates have no number.
    pub(crate) fn acknowledge(&mut self, now: Duration, number: Option<u64>, since: Duration) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.tally.acknowledge(now.saturating_sub(since));
        let at = self.at(now);
        if let Some((ledger, number)) = self.ledger.as_mut().zip(number) {
            ledger.note_acknowledged(number, at);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while self.late.front().is_some_and(|late| late.due <= now) {
            let Some(late) = self.late.pop_front() else { break };
            self.endpoint.respond(self.started + now, late.exchange, late.response);
            self.drain(now, false);
        }
        self.endpoint.handle_timeout(self.started + now);
        self.drain(now, true);
        self.network.handle_timeout(self.started + now);
        self.handle_arrived(now);
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, &mut expired);
        for index in expired.drain(..).filter_map(|index| u32::try_from(index).ok()) {
            self.devices[index as usize].armed = Duration::MAX;
            self.serve(now, index);
        }
        self.expired = expired;
    }

    /// Does what the endpoint wants; `repeats`: what it sends now are repeats.
    fn drain(&mut self, now: Duration, repeats: bool) {
        loop {
            match self.endpoint.poll_output() {
                Output::Timeout(_) => return,
                output => self.handle_output(now, output, repeats),
            }
        }
    }

    pub(crate) fn handle_output(&mut self, now: Duration, output: Output<Leg>, repeats: bool) {
        match output {
            Output::Timeout(_) => {}
            Output::Transmit { peer, bytes } => {
                if repeats {
                    self.doubt_session(peer);
                }
                self.transmit(now, peer, &bytes);
            }
            Output::Event(Event::Request(request)) => self.handle_request(now, request),
            Output::Event(Event::Response(response)) => self.handle_response(now, response),
            Output::Event(Event::RequestFailed { request, .. }) => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    self.network.give_up_session(waiting.device);
                    self.finish(now, waiting, Ending::Failed, &[]);
                }
            }
            // What the devices ask for has answers, and no notifications.
            Output::Event(event) => {
                let Event::ObservationCancelled { observation, peer, cause } = event else {
                    return;
                };
                if cause == CancelCause::TimedOut {
                    self.network.give_up_session(peer.device);
                }
                self.end_observation(peer.device, observation);
            }
        }
    }

    pub(crate) fn transmit(&mut self, now: Duration, leg: Leg, bytes: &[u8]) {
        let port = self.devices[leg.device as usize].port;
        self.network.transmit(self.started + now, leg, port, bytes);
    }

    /// A message is repeated: so many without a word of the server, and its session is dead.
    fn doubt_session(&mut self, leg: Leg) {
        self.lwm2m.counts.repeated += 1;
        let device = &mut self.devices[leg.device as usize];
        device.repeats = device.repeats.saturating_add(1);
        if leg.is_secure && u32::from(device.repeats) >= self.plan.security.reconnect_after {
            device.repeats = 0;
            self.network.give_up_session(leg.device);
        }
    }

    pub(crate) fn end_observation(&mut self, index: u32, id: ObservationId) {
        let observations = &mut self.devices[index as usize].observations;
        if let Some(place) = observations.iter().position(|one| one.id == id) {
            let observation = observations.swap_remove(place);
            self.lwm2m.counts.observations_ended += 1;
            self.forget_told(&observation);
        }
    }

    /// The next moment at which the endpoint or a late answer is due.
    pub(crate) fn next_due(&mut self) -> Option<Duration> {
        let endpoint = match self.endpoint.poll_output() {
            Output::Timeout(at) => at.map(|at| at.saturating_duration_since(self.started)),
            _ => Some(Duration::ZERO),
        };
        endpoint.into_iter().chain(self.late.front().map(|late| late.due)).min()
    }
}

fn endpoint_config(plan: &Plan) -> Config {
    let retransmission = plan.retransmission;
    // A factor of 1.5 is 150 percent.
    let percent = (retransmission.ack_random_factor * 100.0).clamp(100.0, 10_000.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
    let percent = percent as u32;
    Config {
        transmission: Transmission {
            ack_timeout: retransmission.ack_timeout,
            ack_random_factor_percent: percent,
            max_retransmit: u8::try_from(retransmission.max_retransmit).unwrap_or(u8::MAX),
            ..Transmission::default()
        },
        limits: Limits {
            observations_max: ENDPOINT_ENTRIES_MAX,
            confirmables_max: ENDPOINT_ENTRIES_MAX,
            requests_max: ENDPOINT_ENTRIES_MAX,
            upload_bytes_max: PACKAGE_BYTES_MAX,
            uploads_bytes_max: PACKAGE_BYTES_MAX * 16,
            response_bytes_max: PACKAGE_BYTES_MAX,
            ..Limits::default()
        },
        ..Config::default()
    }
}
