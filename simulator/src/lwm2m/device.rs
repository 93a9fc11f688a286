//! One device: where it is in its life, what it wants next, and when. Does no I/O and reads no
//! clock; all moments are spans since the start of the run.

use std::net::SocketAddrV4;
use std::time::Duration;

use coap::wire::Code;

use crate::lwm2m::bootstrap::{Account, Accounts};
use crate::lwm2m::objects::{Effect, Objects};
use crate::lwm2m::observations::Observation;
use crate::lwm2m::registration::Purpose;

/// The pause after a first failure; it doubles up to 32 times this.
const BACK_OFF: Duration = Duration::from_secs(2);
const BACK_OFF_DOUBLINGS_MAX: u8 = 5;

/// How long a device waits for its bootstrap server to finish: `MAX_TRANSMIT_WAIT` (RFC 7252
/// §4.8.2), since each write of the server may have to be repeated.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(93);

/// Changes of the measured value repeat after so many.
const CHANGES: u16 = 20;

/// Where a device is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun, or between two attempts.
    Resting,
    /// Its bootstrap server has been asked, or is about to be.
    Bootstrapping,
    Registering,
    Registered,
    Leaving,
    /// De-registered.
    Gone,
}

/// What is the same for all devices.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Where the devices bootstrap, if they do.
    pub(crate) bootstrap: Option<SocketAddrV4>,
    /// Where they register without bootstrap.
    pub(crate) target: SocketAddrV4,
    /// Whether these are reached over DTLS.
    pub(crate) is_secure: bool,
    pub(crate) lifetime_seconds: Option<u32>,
    pub(crate) update_every: Option<Duration>,
    /// How long a device in queue mode stays awake.
    pub(crate) awake: Option<Duration>,
    pub(crate) change_every: Option<Duration>,
    pub(crate) install: Duration,
}

/// What a device wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// To ask its server for this.
    Ask(Purpose),
    /// To tell the observer with this index among its observations.
    Notify(usize),
    /// Its observations are void, because it starts again.
    ForgetObservers,
}

/// How a request of a device ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The server said this; with the location of a registration, and how long to wait before
    /// another attempt where it said so.
    Answered { code: Code, location: Option<Box<str>>, wait: Option<Duration> },
    /// No answer.
    Failed,
}

/// One device.
pub(crate) struct Device {
    pub(crate) stage: Stage,
    pub(crate) server: SocketAddrV4,
    pub(crate) is_secure: bool,
    pub(crate) location: Box<str>,
    pub(crate) objects: Objects,
    pub(crate) observations: Vec<Observation>,
    /// While a bootstrap is under way.
    pub(crate) accounts: Option<Box<Accounts>>,
    /// Whether it counts among those whose first registration is under way.
    pub(crate) is_beginning: bool,
    /// Whether it is listed as observed.
    pub(crate) is_observed: bool,
    /// When an update was due that the traffic wants.
    pub(crate) update_due: Option<Duration>,
    /// When its first registration was due.
    pub(crate) since: Duration,
    /// When it last sent something that the server may answer with commands, until one comes.
    pub(crate) uplink_at: Option<Duration>,
    /// The earliest moment at which the timers look at it.
    pub(crate) armed: Duration,
    /// When it does the next thing of its life.
    due: Option<Duration>,
    change_at: Option<Duration>,
    install_at: Option<Duration>,
    awake_until: Duration,
    failures: u8,
    changes: u16,
    /// Requests without an answer so far.
    pub(crate) asking: u8,
    /// Whether one of them is about its life.
    is_managing: bool,
    pub(crate) is_sending: bool,
    /// Whether the next update says everything anew.
    pub(crate) has_changed: bool,
    wants_update: bool,
    wants_fetch: bool,
    forgets_observers: bool,
    /// Whether it has registered since the start of the run.
    pub(crate) was_registered: bool,
    /// How often it woke, and which of the ports it speaks from.
    pub(crate) wakes: u16,
    pub(crate) port: u8,
    /// Repeats since something was heard of the server.
    pub(crate) repeats: u8,
}

impl Device {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            stage: Stage::Resting,
            server: rules.bootstrap.unwrap_or(rules.target),
            is_secure: rules.is_secure,
            location: Box::default(),
            objects: Objects::new(rules.lifetime_seconds.unwrap_or(86_400)),
            observations: Vec::new(),
            accounts: None,
            is_beginning: false,
            is_observed: false,
            update_due: None,
            since: Duration::ZERO,
            uplink_at: None,
            armed: Duration::MAX,
            due: None,
            change_at: None,
            install_at: None,
            awake_until: Duration::ZERO,
            failures: 0,
            changes: 0,
            asking: 0,
            is_managing: false,
            is_sending: false,
            has_changed: false,
            wants_update: false,
            wants_fetch: false,
            forgets_observers: false,
            was_registered: false,
            wakes: 0,
            port: 0,
            repeats: 0,
        }
    }

    /// Begins to register: at the bootstrap server first, where there is one.
    pub(crate) fn begin(&mut self, now: Duration, rules: &Rules) {
        self.forgets_observers |= !self.observations.is_empty();
        self.is_managing = false;
        self.wants_update = false;
        self.due = Some(now);
        match rules.bootstrap {
            Some(server) => {
                self.stage = Stage::Bootstrapping;
                (self.server, self.is_secure) = (server, rules.is_secure);
                self.accounts = Some(Box::default());
            }
            None => {
                self.stage = Stage::Registering;
                (self.server, self.is_secure) = (rules.target, rules.is_secure);
            }
        }
    }

    /// Begins to register anew at the server that it knows.
    fn register_anew(&mut self, now: Duration) {
        self.forgets_observers |= !self.observations.is_empty();
        self.stage = Stage::Registering;
        self.is_managing = false;
        self.due = Some(now);
    }

    /// Begins to de-register, if it is registered.
    pub(crate) fn leave(&mut self, now: Duration) {
        if self.stage == Stage::Registered {
            self.stage = Stage::Leaving;
            // An update under way does not hold it up.
            self.is_managing = false;
            self.due = Some(now);
        } else if self.stage != Stage::Leaving {
            self.stage = Stage::Gone;
            self.due = None;
        }
    }

    /// The next registration update is to come as soon as possible.
    pub(crate) fn want_update(&mut self) {
        self.wants_update |= self.stage == Stage::Registered;
    }

    /// Whether an update is under way or wanted.
    pub(crate) const fn is_updating(&self) -> bool {
        self.is_managing || self.wants_update
    }

    /// What it wants at `now`, until there is nothing more. The owner does it at once.
    pub(crate) fn next_want(&mut self, now: Duration, rules: &Rules) -> Option<Want> {
        if std::mem::take(&mut self.forgets_observers) {
            return Some(Want::ForgetObservers);
        }
        if self.install_at.is_some_and(|at| at <= now) {
            self.install_at = None;
            self.objects.firmware_mut().end_update();
            self.begin(now, rules);
            return self.next_want(now, rules);
        }
        self.change(now, rules);
        if let Some(purpose) = self.next_purpose(now) {
            self.asking = self.asking.saturating_add(1);
            return Some(Want::Ask(purpose));
        }
        if self.stage != Stage::Registered || self.is_asleep(now, rules) {
            return None;
        }
        let objects = &self.objects;
        let is_due = |one: &Observation| one.due(objects).is_some_and(|due| due <= now);
        self.observations.iter().position(is_due).map(Want::Notify)
    }

    fn next_purpose(&mut self, now: Duration) -> Option<Purpose> {
        if std::mem::take(&mut self.wants_fetch) {
            return Some(Purpose::Fetch);
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        let wants_update = self.stage == Stage::Registered && self.wants_update;
        if self.is_managing || !(is_due || wants_update) {
            return None;
        }
        let purpose = match self.stage {
            Stage::Bootstrapping => Purpose::Bootstrap,
            Stage::Registering => Purpose::Register,
            Stage::Registered => Purpose::Update,
            Stage::Leaving => Purpose::Deregister,
            Stage::Resting | Stage::Gone => return None,
        };
        self.is_managing = true;
        self.wants_update = false;
        self.due = None;
        Some(purpose)
    }

    /// Measures another value where it is time for one.
    fn change(&mut self, now: Duration, rules: &Rules) {
        let Some(every) = rules.change_every else { return };
        let at = *self.change_at.get_or_insert(now + every);
        if at > now {
            return;
        }
        self.change_at = Some(now + every);
        self.changes = (self.changes + 1) % CHANGES;
        self.measure(20.5 + f64::from(self.changes));
    }

    /// Another value is measured; observers that want to know it are told when they may be.
    pub(crate) fn measure(&mut self, value: f64) {
        self.objects.measure(value);
        let objects = &self.objects;
        self.observations.iter_mut().for_each(|one| one.note_measured(objects));
    }

    /// A request of it has ended; `jitter` is between 1 and 1.5.
    pub(crate) fn handle_ending(
        &mut self,
        now: Duration,
        (purpose, ending): (Purpose, Ending),
        rules: &Rules,
        jitter: f64,
    ) {
        self.asking = self.asking.saturating_sub(1);
        match purpose {
            Purpose::Send(_) => return self.is_sending = false,
            Purpose::Fetch => return,
            Purpose::Bootstrap | Purpose::Register | Purpose::Update | Purpose::Deregister => {}
        }
        let is_its = matches!(
            (purpose, self.stage),
            (Purpose::Bootstrap, Stage::Bootstrapping)
                | (Purpose::Register, Stage::Registering)
                | (Purpose::Update, Stage::Registered)
                | (Purpose::Deregister, Stage::Leaving)
        );
        if !is_its {
            // It has begun something else meanwhile.
            return;
        }
        let (code, location, wait) = match ending {
            Ending::Answered { code, location, wait } => (Some(code), location, wait),
            Ending::Failed => (None, None, None),
        };
        let is_success = code == Some(purpose.success());
        match purpose {
            Purpose::Bootstrap if is_success => {
                // Its request stays answered; what comes now are the server's.
                self.due = Some(now + BOOTSTRAP_PATIENCE);
                self.is_managing = false;
            }
            Purpose::Register if is_success => self.note_registered(now, location, rules),
            Purpose::Update if is_success => {
                self.is_managing = false;
                self.has_changed = false;
                self.plan_update(now, rules);
            }
            Purpose::Update if code == Some(Code::NOT_FOUND) => self.register_anew(now),
            Purpose::Deregister => {
                self.stage = Stage::Gone;
                self.is_managing = false;
                self.observations.clear();
            }
            _ => self.retry(now, (wait, jitter), rules),
        }
    }

    fn note_registered(&mut self, now: Duration, location: Option<Box<str>>, rules: &Rules) {
        self.stage = Stage::Registered;
        self.location = location.unwrap_or_default();
        self.is_managing = false;
        self.has_changed = false;
        self.was_registered = true;
        self.failures = 0;
        self.plan_update(now, rules);
    }

    fn plan_update(&mut self, now: Duration, rules: &Rules) {
        // A quarter of the lifetime is left for repeats.
        let lifetime = Duration::from_secs(self.objects.lifetime_seconds.into());
        self.due = Some(now + rules.update_every.unwrap_or(lifetime * 3 / 4));
    }

    /// Tries again from the beginning after a pause.
    fn retry(&mut self, now: Duration, (wait, jitter): (Option<Duration>, f64), rules: &Rules) {
        let pause = BACK_OFF * (1 << self.failures.min(BACK_OFF_DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        let pause = pause.max(wait.unwrap_or_default()).mul_f64(jitter);
        self.begin(now, rules);
        self.due = Some(now + pause);
    }

    /// The bootstrap server says that it has finished; `account` is what it wrote.
    pub(crate) fn finish_bootstrap(&mut self, now: Duration, account: &Account, rules: &Rules) {
        self.server = account.server;
        self.is_secure = account.credentials.is_some();
        for (id, value) in &account.settings {
            self.objects.configure(*id, value.clone());
        }
        if let Some(seconds) = rules.lifetime_seconds {
            self.objects.lifetime_seconds = seconds;
        }
        self.accounts = None;
        self.failures = 0;
        self.register_anew(now);
    }

    /// An operation of the server had this effect.
    pub(crate) fn handle_effect(&mut self, now: Duration, effect: &Effect, rules: &Rules) {
        match effect {
            Effect::Update => {
                self.has_changed = true;
                self.want_update();
            }
            Effect::Reboot => self.begin(now, rules),
            Effect::Bootstrap if rules.bootstrap.is_some() => self.begin(now, rules),
            Effect::Bootstrap => self.register_anew(now),
            Effect::Fetch => self.wants_fetch = true,
            Effect::Install => self.install_at = Some(now + rules.install),
        }
    }

    /// It sends or hears something: it stays awake for a while. Tells whether it woke.
    pub(crate) fn stay_awake(&mut self, now: Duration, rules: &Rules) -> bool {
        let Some(awake) = rules.awake else { return false };
        let woke = now > self.awake_until && self.was_registered;
        self.awake_until = now + awake;
        self.wakes = self.wakes.wrapping_add(u16::from(woke));
        woke
    }

    /// Whether it hears nothing.
    pub(crate) fn is_asleep(&self, now: Duration, rules: &Rules) -> bool {
        rules.awake.is_some()
            && self.stage == Stage::Registered
            && self.asking == 0
            && now > self.awake_until
    }

    /// When to look at it again.
    pub(crate) fn deadline(&self, now: Duration, rules: &Rules) -> Option<Duration> {
        let is_waiting = !self.is_managing;
        let due = self.due.filter(|_| is_waiting && self.stage != Stage::Gone);
        let is_telling = self.stage == Stage::Registered && !self.is_asleep(now, rules);
        let observations = self.observations.iter().filter(|_| is_telling);
        let notification = observations.filter_map(|one| one.due(&self.objects)).min();
        [due, self.change_at, self.install_at, notification].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            bootstrap: None,
            target: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            is_secure: false,
            lifetime_seconds: Some(100),
            update_every: None,
            awake: None,
            change_every: None,
            install: SECOND,
        }
    }

    fn answered(code: Code, location: Option<&str>) -> Ending {
        Ending::Answered { code, location: location.map(Into::into), wait: None }
    }

    fn registered(rules: &Rules) -> Device {
        let mut device = Device::new(rules);
        device.begin(Duration::ZERO, rules);
        let want = device.next_want(Duration::ZERO, rules);
        assert_eq!(want, Some(Want::Ask(Purpose::Register)));
        assert_eq!(device.next_want(Duration::ZERO, rules), None);
        let ending = answered(Code::CREATED, Some("rd/1"));
        device.handle_ending(Duration::ZERO, (Purpose::Register, ending), rules, 1.0);
        assert_eq!((device.stage, &*device.location), (Stage::Registered, "rd/1"));
        device
    }

    #[test]
    fn a_registration_is_updated_and_made_anew_where_the_server_forgot_it() {
        let rules = rules();
        let mut device = registered(&rules);
        assert_eq!(device.deadline(Duration::ZERO, &rules), Some(75 * SECOND));
        assert_eq!(device.next_want(74 * SECOND, &rules), None);
        let update = Some(Want::Ask(Purpose::Update));
        assert_eq!(device.next_want(75 * SECOND, &rules), update);
        let ending = (Purpose::Update, answered(Code::CHANGED, None));
        device.handle_ending(76 * SECOND, ending, &rules, 1.0);
        assert_eq!(device.deadline(76 * SECOND, &rules), Some(151 * SECOND));
        assert_eq!(device.next_want(151 * SECOND, &rules), update);
        let ending = (Purpose::Update, answered(Code::NOT_FOUND, None));
        device.handle_ending(152 * SECOND, ending, &rules, 1.0);
        assert_eq!(device.next_want(152 * SECOND, &rules), Some(Want::Ask(Purpose::Register)));
    }

    /// A device that was told to leave while its update was under way waited for an answer that
    /// meant nothing to it any more, and stayed.
    #[test]
    fn a_device_leaves_while_its_update_is_under_way() {
        let rules = rules();
        let mut device = registered(&rules);
        assert_eq!(device.next_want(75 * SECOND, &rules), Some(Want::Ask(Purpose::Update)));
        device.leave(76 * SECOND);
        let ending = (Purpose::Update, answered(Code::CHANGED, None));
        device.handle_ending(76 * SECOND, ending, &rules, 1.0);
        assert_eq!(device.next_want(76 * SECOND, &rules), Some(Want::Ask(Purpose::Deregister)));
    }

    #[test]
    fn attempts_that_fail_are_repeated_with_growing_pauses() {
        let rules = rules();
        let mut device = Device::new(&rules);
        device.begin(Duration::ZERO, &rules);
        let mut now = Duration::ZERO;
        for pause in [2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(device.next_want(now, &rules), Some(Want::Ask(Purpose::Register)));
            device.handle_ending(now, (Purpose::Register, Ending::Failed), &rules, 1.0);
            assert_eq!(device.deadline(now, &rules), Some(now + pause * SECOND));
            now += pause * SECOND;
        }
    }

    #[test]
    fn a_device_bootstraps_first_and_again_after_a_loss() {
        let bootstrap = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);
        let rules = Rules { bootstrap: Some(bootstrap), lifetime_seconds: None, ..rules() };
        let mut device = Device::new(&rules);
        device.begin(Duration::ZERO, &rules);
        assert_eq!(device.next_want(Duration::ZERO, &rules), Some(Want::Ask(Purpose::Bootstrap)));
        let ending = (Purpose::Bootstrap, answered(Code::CHANGED, None));
        device.handle_ending(Duration::ZERO, ending, &rules, 1.0);
        assert_eq!(device.deadline(Duration::ZERO, &rules), Some(93 * SECOND));
        let account = Account {
            server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3),
            credentials: None,
            settings: vec![(1, lwm2m::Value::Integer(50))],
        };
        device.finish_bootstrap(SECOND, &account, &rules);
        assert_eq!((device.server.port(), device.objects.lifetime_seconds), (3, 50));
        assert_eq!(device.next_want(SECOND, &rules), Some(Want::Ask(Purpose::Register)));
        let refused = (Purpose::Register, answered(Code::FORBIDDEN, None));
        device.handle_ending(SECOND, refused, &rules, 1.0);
        assert_eq!((device.stage, device.server), (Stage::Bootstrapping, bootstrap));
        assert_eq!(device.next_want(SECOND, &rules), None);
        assert_eq!(device.next_want(3 * SECOND, &rules), Some(Want::Ask(Purpose::Bootstrap)));
    }

    #[test]
    fn a_device_in_queue_mode_sleeps_between_its_exchanges() {
        let rules = Rules { awake: Some(10 * SECOND), ..rules() };
        let mut device = registered(&rules);
        device.stay_awake(Duration::ZERO, &rules);
        assert!(!device.is_asleep(10 * SECOND, &rules));
        assert!(device.is_asleep(11 * SECOND, &rules));
        assert_eq!(device.next_want(75 * SECOND, &rules), Some(Want::Ask(Purpose::Update)));
        assert!(device.stay_awake(75 * SECOND, &rules));
        assert!(!device.is_asleep(75 * SECOND, &rules));
        assert_eq!(device.wakes, 1);
    }

    #[test]
    fn an_installed_firmware_makes_the_device_start_again() {
        let rules = rules();
        let mut device = registered(&rules);
        let firmware =
            crate::lwm2m::firmware::FirmwareRules { sha256: None, version: None, takes: SECOND };
        device.objects.firmware_mut().take_package(b"version=2\n", &firmware);
        let effect = device.objects.execute(&lwm2m::Path::resource(5, 0, 2)).unwrap().unwrap();
        device.handle_effect(Duration::ZERO, &effect, &rules);
        assert_eq!(device.next_want(Duration::ZERO, &rules), None);
        assert_eq!(device.next_want(SECOND, &rules), Some(Want::Ask(Purpose::Register)));
        assert_eq!(device.objects.firmware().unwrap().version, "2");
    }
}
