use proptest::prelude::*;

use super::*;
use crate::plan::{Method, Patience};

const OK: Code = Code(0x44);

fn second(count: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + count * 1_000)
}

fn plan(method: Method) -> Plan {
    Plan {
        method,
        patience: Patience::default(),
        version: Some("2.0".to_owned()),
        require_version: false,
        coap_uri: Some("coap://gateway:5683/fw/0011223344556677".to_owned()),
        coaps_uri: Some("coaps://gateway:5684/fw/0011223344556677".to_owned()),
        image: vec![7; 1_000].into(),
    }
}

/// A device with the object Firmware Update, as honest as a test wants it.
struct Device {
    protocols: Option<Vec<i64>>,
    delivery: Option<i64>,
    state: i64,
    result: i64,
    version: String,
    /// What its update ends with.
    ends_with: i64,
    /// Whether a reset clears the result, too.
    keeps_result: bool,
    fetched: Option<String>,
    executed: u32,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            protocols: Some(vec![0]),
            delivery: Some(2),
            state: 0,
            result: 0,
            version: "1.0".to_owned(),
            ends_with: 1,
            keeps_result: false,
            fetched: None,
            executed: 0,
        }
    }
}

impl Device {
    fn answer(&mut self, step: &Step) -> StepOutcome {
        let found = |value| StepOutcome::Answered { code: Code(0x45), value: Some(value) };
        let missing = StepOutcome::Answered { code: Code::NOT_FOUND, value: None };
        match step {
            Step::Read(path::STATE) | Step::Observe(path::STATE) => {
                found(Value::Number(self.state))
            }
            Step::Read(path::RESULT) | Step::Observe(path::RESULT) => {
                found(Value::Number(self.result))
            }
            Step::Read(path::VERSION) => found(Value::Text(self.version.clone())),
            Step::Read(path::PROTOCOLS) => {
                self.protocols.clone().map_or(missing, |all| found(Value::Numbers(all)))
            }
            Step::Read(path::DELIVERY) => {
                self.delivery.map_or(missing, |method| found(Value::Number(method)))
            }
            Step::WriteText { path: path::PACKAGE_URI, value } => self.write(value),
            Step::WriteOpaque { path: path::PACKAGE, image } => {
                (self.state, self.result) = if image.len() == 1 { (0, 0) } else { (2, 0) };
                StepOutcome::Answered { code: OK, value: None }
            }
            Step::Execute(path::UPDATE) if self.state == 2 => {
                self.executed += 1;
                self.state = 3;
                StepOutcome::Answered { code: OK, value: None }
            }
            Step::Execute(_) => StepOutcome::Answered { code: Code(0x85), value: None },
            _ => missing,
        }
    }

    fn write(&mut self, uri: &str) -> StepOutcome {
        if !self.keeps_result {
            self.result = 0;
        }
        if uri.is_empty() {
            self.state = 0;
        } else {
            self.fetched = Some(uri.to_owned());
            (self.state, self.result) = (1, 0);
        }
        StepOutcome::Answered { code: OK, value: None }
    }

    /// Installs, or fails to.
    fn reboot(&mut self) {
        if self.state == 3 {
            (self.state, self.result) = (0, self.ends_with);
            if self.ends_with == 1 {
                self.version = "2.0".to_owned();
            }
        } else if self.state == 1 {
            (self.state, self.result) = (0, 0);
        }
    }
}

/// Answers every step there is.
fn talk(update: &mut DeviceUpdate, device: &mut Device, now: Timestamp) {
    for _ in 0..100 {
        let Some(step) = update.poll_step(now) else { return };
        let outcome = device.answer(&step);
        update.on_outcome(now, outcome);
    }
    panic!("the device is asked without end: {update:?}");
}

/// From the beginning to the end, with a device that does what it says.
fn run(plan: Plan, device: &mut Device) -> DeviceUpdate {
    let mut update = DeviceUpdate::new(Arc::new(plan), second(0));
    for minute in 0..300 {
        let now = second(minute * 60);
        update.on_tick(now);
        talk(&mut update, device, now);
        if device.state == 1 {
            device.state = 2;
            update.on_value(now, path::STATE, &Value::Number(2));
        }
        talk(&mut update, device, now);
        if device.state == 3 {
            device.reboot();
            update.on_awake(now, true);
        }
        talk(&mut update, device, now);
        if update.progress().stage.is_end() {
            break;
        }
    }
    update
}

fn failure(update: &DeviceUpdate) -> &str {
    assert_eq!(update.progress().stage, Stage::Failed, "{:?}", update.entries);
    update.progress().failure.as_deref().unwrap()
}

#[test]
fn a_device_fetches_installs_and_reports_success() {
    let mut device = Device::default();
    let update = run(plan(Method::Auto), &mut device);
    assert_eq!(update.progress().stage, Stage::Succeeded, "{:?}", update.entries);
    assert_eq!(device.fetched.as_deref(), Some("coap://gateway:5683/fw/0011223344556677"));
    assert_eq!(device.executed, 1);
    assert_eq!(update.progress().version_after.as_deref(), Some("2.0"));
    assert_eq!(update.entries.last().unwrap().text, "installed; version 1.0 before, 2.0 now");
}

#[test]
fn the_way_follows_from_what_the_device_can() {
    for (method, protocols, delivery, expected) in [
        (Method::Auto, Some(vec![0, 1]), Some(2), Some(Delivery::PullSecure)),
        (Method::Auto, None, None, Some(Delivery::Pull)),
        (Method::Auto, Some(vec![2]), Some(2), Some(Delivery::Push)),
        (Method::Auto, Some(vec![0]), Some(1), Some(Delivery::Push)),
        (Method::Push, Some(vec![0]), Some(2), Some(Delivery::Push)),
        (Method::Pull, Some(vec![1]), Some(0), Some(Delivery::PullSecure)),
        (Method::Pull, Some(vec![0]), Some(1), None),
        (Method::Push, Some(vec![0]), Some(0), None),
        (Method::Auto, Some(vec![2, 3]), Some(0), None),
    ] {
        let mut device = Device { protocols, delivery, ..Device::default() };
        let update = run(plan(method), &mut device);
        let done = update.progress().stage == Stage::Succeeded;
        assert_eq!(done, expected.is_some(), "{method:?} {delivery:?} {:?}", update.entries);
        assert_eq!(update.progress().delivery, expected);
        assert_eq!(update.progress().attempt, 1);
    }
}

#[test]
fn each_result_ends_or_repeats_the_update() {
    for result in 2..=10 {
        let mut device = Device { ends_with: result, ..Device::default() };
        let update = run(plan(Method::Pull), &mut device);
        assert!(failure(&update).contains(result_text(result)), "{result}");
        let attempts = if matches!(result, 2 | 5 | 6 | 7 | 9) { 1 } else { 3 };
        assert_eq!(update.progress().attempt, attempts, "{result}");
        assert_eq!(device.executed, attempts);
    }
}

#[test]
fn a_device_that_cannot_use_the_uri_is_written_to() {
    let mut device = Device::default();
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Auto)), second(0));
    talk(&mut update, &mut device, second(0));
    (device.state, device.result) = (0, 9);
    update.on_value(second(10), path::RESULT, &Value::Number(9));
    talk(&mut update, &mut device, second(10));
    assert_eq!(update.progress().stage, Stage::Pausing, "{:?}", update.entries);
    update.on_tick(second(2_000));
    talk(&mut update, &mut device, second(2_000));
    assert_eq!(update.progress().delivery, Some(Delivery::Push));
    assert_eq!(update.progress().stage, Stage::Rebooting);
}

#[test]
fn a_device_that_is_not_idle_is_reset_first() {
    for (state, result) in [(1, 0), (2, 0), (0, 8), (7, 0), (-1, 1)] {
        let mut device = Device { state, result, ..Device::default() };
        let update = run(plan(Method::Pull), &mut device);
        assert_eq!(update.progress().stage, Stage::Succeeded, "{:?}", update.entries);
        assert!(update.entries.iter().any(|entry| entry.text == "resets"));
    }
}

#[test]
fn an_installation_that_is_under_way_is_waited_for() {
    let mut device = Device { state: 3, ..Device::default() };
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    for minute in 0..10 {
        update.on_tick(second(minute * 60));
        talk(&mut update, &mut device, second(minute * 60));
        assert_eq!(update.progress().stage, Stage::Probing);
    }
    device.reboot();
    update.on_tick(second(3_000));
    talk(&mut update, &mut device, second(3_000));
    assert_eq!(update.progress().stage, Stage::Downloading, "{:?}", update.entries);
}

/// A device whose reset leaves the old success in place must not count as updated by it.
#[test]
fn an_old_result_is_not_taken_for_a_new_one() {
    let mut device = Device { result: 1, keeps_result: true, ..Device::default() };
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    for _ in 0..200 {
        let Some(step) = update.poll_step(second(0)) else { break };
        let outcome = device.answer(&step);
        device.result = 1;
        update.on_outcome(second(0), outcome);
    }
    assert_eq!(update.progress().stage, Stage::Downloading, "{:?}", update.entries);
    update.on_value(second(9), path::RESULT, &Value::Number(1));
    assert_eq!(update.progress().stage, Stage::Downloading);
    device.state = 2;
    update.on_value(second(10), path::STATE, &Value::Number(2));
    for _ in 0..20 {
        let Some(step) = update.poll_step(second(10)) else { break };
        let outcome = device.answer(&step);
        update.on_outcome(second(10), outcome);
    }
    assert_eq!((update.progress().stage, device.state), (Stage::Rebooting, 3));
    update.on_tick(second(100));
    talk(&mut update, &mut device, second(100));
    assert_eq!(update.progress().stage, Stage::Rebooting);
    device.reboot();
    update.on_awake(second(200), true);
    talk(&mut update, &mut device, second(200));
    assert_eq!(update.progress().stage, Stage::Succeeded, "{:?}", update.entries);
}

#[test]
fn a_sleeping_device_is_waited_for_and_its_sleep_does_not_count() {
    let mut device = Device::default();
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    update.poll_step(second(0)).unwrap();
    update.on_outcome(second(100), StepOutcome::Unreachable);
    assert_eq!(update.presence(second(100)), Presence::Idle);
    assert!(!update.has_step());
    update.on_tick(second(50_000));
    update.on_awake(second(86_400), false);
    assert_eq!(update.presence(second(86_400)), Presence::Busy);
    talk(&mut update, &mut device, second(86_400));
    assert_eq!(update.progress().stage, Stage::Downloading);
    // Asleep again, with a read under way that waits in the server's queue for half a day.
    update.on_tick(second(86_470));
    update.poll_step(second(86_470)).unwrap();
    assert_eq!(update.presence(second(86_600)), Presence::Idle);
    update.on_tick(second(130_000));
    device.state = 2;
    update.on_outcome(second(130_000), device.answer(&Step::Read(path::STATE)));
    let result = update.poll_step(second(130_000)).unwrap();
    update.on_outcome(second(130_000), device.answer(&result));
    assert_eq!(update.progress().stage, Stage::Installing);
}

/// A device that woke at the moment at which a step to it was given up slept for ever in the eyes
/// of its update, because it does not say twice that it is awake.
#[test]
fn a_device_that_woke_meanwhile_is_asked_again() {
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    let step = update.poll_step(second(0)).unwrap();
    update.on_awake(second(90), false);
    update.on_outcome(second(90), StepOutcome::Unreachable);
    assert_eq!(update.poll_step(second(90)), Some(step));
    update.on_outcome(second(91), StepOutcome::NotRegistered);
    assert!(!update.has_step());
}

#[test]
fn a_download_that_stands_still_is_tried_again_and_then_given_up() {
    let mut device = Device::default();
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    for minute in 0..400 {
        update.on_tick(second(minute * 60));
        talk(&mut update, &mut device, second(minute * 60));
    }
    assert_eq!(failure(&update), "nothing was downloaded for 60 minutes");
    assert_eq!(update.progress().attempt, 3);
}

#[test]
fn a_download_that_moves_is_waited_for() {
    let mut device = Device::default();
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    for minute in 0..900_i64 {
        update.on_tick(second(minute * 60));
        talk(&mut update, &mut device, second(minute * 60));
        update.on_bytes(second(minute * 60), u64::try_from(minute).unwrap());
    }
    assert_eq!(update.progress().stage, Stage::Downloading);
    let tenths = update.entries.iter().filter(|entry| entry.text.contains("of 1000 bytes"));
    assert_eq!(tenths.count(), 8);
}

#[test]
fn nothing_is_waited_for_beyond_the_deadline() {
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Pull)), second(0));
    update.poll_step(second(0)).unwrap();
    update.on_outcome(second(0), StepOutcome::NotRegistered);
    update.on_tick(second(7 * 86_400));
    assert!(!update.progress().stage.is_end());
    update.on_tick(second(7 * 86_400 + 1));
    assert_eq!(failure(&update), "not done within 168 hours of its first step");
    assert_eq!(update.farewell().len(), 3);
}

#[test]
fn a_lost_answer_to_the_execute_does_not_install_twice() {
    let mut device = Device { protocols: None, ..Device::default() };
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Push)), second(0));
    let execute = loop {
        let step = update.poll_step(second(0)).unwrap();
        let outcome = device.answer(&step);
        if step == Step::Execute(path::UPDATE) {
            break step;
        }
        update.on_outcome(second(0), outcome);
    };
    assert_eq!((execute.path(), device.state), (path::UPDATE, 3));
    update.on_outcome(second(90), StepOutcome::Unreachable);
    device.reboot();
    update.on_awake(second(100), true);
    talk(&mut update, &mut device, second(100));
    assert_eq!((update.progress().stage, device.executed), (Stage::Succeeded, 1));
}

#[test]
fn another_version_than_the_image_has_is_said_or_refused() {
    for (require_version, stage) in [(false, Stage::Succeeded), (true, Stage::Failed)] {
        let version = Some("2.1".to_owned());
        let plan = Plan { version, require_version, ..plan(Method::Pull) };
        let update = run(plan, &mut Device::default());
        assert_eq!(update.progress().stage, stage);
        let said = "the device reports version 2.0, the image is 2.1";
        assert!(update.entries.iter().any(|entry| entry.text == said));
    }
}

#[test]
fn a_device_without_the_object_fails_at_once() {
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Auto)), second(0));
    while update.poll_step(second(0)).is_some() {
        let code = Code::NOT_FOUND;
        update.on_outcome(second(0), StepOutcome::Answered { code, value: None });
    }
    assert_eq!(failure(&update), "the device has no firmware state: /5/0/3 answered 4.04");
    assert_eq!(update.progress().attempt, 1);
}

#[test]
fn a_timeline_has_an_end() {
    let mut update = DeviceUpdate::new(Arc::new(plan(Method::Auto)), second(0));
    for count in 0..1_000 {
        update.note(second(count), format!("{count}"));
    }
    update.cancel(second(2_000));
    assert_eq!(update.entries.len(), ENTRIES_MAX as usize + 1);
    assert_eq!(update.entries.last().unwrap().text, "cancelled");
}

/// What happens to a device and to what it says, in the model below.
#[derive(Debug, Clone)]
enum Fate {
    Answer,
    LoseRequest,
    LoseAnswer,
    Refuse(u8),
    Unregistered,
    Progress,
    Reboot { registers: bool },
    Wake,
    Lie(i64, i64),
    Notify,
    Restart,
    Wait(i64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answer),
        1 => Just(Fate::LoseRequest),
        1 => Just(Fate::LoseAnswer),
        1 => any::<u8>().prop_map(Fate::Refuse),
        1 => Just(Fate::Unregistered),
        3 => Just(Fate::Progress),
        2 => any::<bool>().prop_map(|registers| Fate::Reboot { registers }),
        3 => Just(Fate::Wake),
        1 => (-2_i64..12, -2_i64..12).prop_map(|(state, result)| Fate::Lie(state, result)),
        3 => Just(Fate::Notify),
        1 => Just(Fate::Restart),
        4 => (1_i64..4_000).prop_map(Fate::Wait),
    ]
}

struct World {
    device: Device,
    update: DeviceUpdate,
    now: i64,
    lied: bool,
}

impl World {
    fn suffer(&mut self, fate: &Fate) {
        let now = second(self.now);
        match fate {
            Fate::Answer => {
                if let Some(step) = self.update.poll_step(now) {
                    let outcome = self.device.answer(&step);
                    self.update.on_outcome(now, outcome);
                }
            }
            Fate::LoseRequest => self.lose(false),
            Fate::LoseAnswer => self.lose(true),
            Fate::Refuse(code) => {
                if self.update.poll_step(now).is_some() {
                    let outcome = StepOutcome::Answered { code: Code(*code), value: None };
                    self.lied |= Code(*code).is_success();
                    self.update.on_outcome(now, outcome);
                }
            }
            Fate::Unregistered => {
                if self.update.poll_step(now).is_some() {
                    self.update.on_outcome(now, StepOutcome::NotRegistered);
                }
            }
            Fate::Progress if self.device.state == 1 => self.device.state = 2,
            Fate::Progress => {}
            Fate::Reboot { registers } => {
                self.device.reboot();
                self.update.on_awake(now, *registers);
            }
            Fate::Wake => self.update.on_awake(now, false),
            Fate::Lie(state, result) => {
                self.lied = true;
                self.update.on_value(now, path::STATE, &Value::Number(*state));
                self.update.on_value(now, path::RESULT, &Value::Number(*result));
            }
            Fate::Notify => {
                self.update.on_value(now, path::STATE, &Value::Number(self.device.state));
                self.update.on_value(now, path::RESULT, &Value::Number(self.device.result));
            }
            Fate::Restart => {
                let progress = self.update.progress().clone();
                let plan = Arc::clone(&self.update.plan);
                self.update = DeviceUpdate::take_up(plan, progress, ENTRIES_MAX, now);
            }
            Fate::Wait(seconds) => {
                self.now += seconds;
                self.update.on_tick(second(self.now));
            }
        }
    }

    fn lose(&mut self, arrives: bool) {
        let now = second(self.now);
        if let Some(step) = self.update.poll_step(now) {
            if arrives {
                self.device.answer(&step);
            }
            self.update.on_outcome(now, StepOutcome::Unreachable);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever happens: an update ends by its deadline, an ended one asks nothing more, success
    /// is claimed only of a device that has the new version (unless the device itself lied), and
    /// after the bad times have passed the update goes on by itself.
    #[test]
    fn every_update_ends_and_success_is_true(
        fates in prop::collection::vec(fate(), 0..120),
        delivery in 0_i64..3,
        keeps_result: bool,
        ends_with in prop_oneof![4 => Just(1_i64), 1 => 2_i64..11],
    ) {
        let device = Device {
            delivery: Some(delivery), keeps_result, ends_with, ..Device::default()
        };
        let update = DeviceUpdate::new(Arc::new(plan(Method::Auto)), second(0));
        let mut world = World { device, update, now: 0, lied: false };
        for fate in &fates {
            let was = world.update.progress().stage;
            world.suffer(fate);
            if was.is_end() {
                prop_assert_eq!(world.update.progress().stage, was);
                prop_assert!(!world.update.has_step());
            }
        }
        // From here on the device is well.
        for _ in 0..400 {
            world.now += 60;
            world.suffer(&Fate::Wait(1));
            world.suffer(&Fate::Wake);
            for _ in 0..20 {
                world.suffer(&Fate::Answer);
            }
            world.suffer(&Fate::Progress);
            if world.device.state == 3 {
                world.suffer(&Fate::Reboot { registers: true });
            }
            if world.update.progress().stage.is_end() {
                break;
            }
        }
        let stage = world.update.progress().stage;
        prop_assert!(stage.is_end(), "{:?}", world.update);
        if stage == Stage::Succeeded && !world.lied {
            prop_assert_eq!(&world.device.version, "2.0", "{:?}", world.update);
        }
        if stage == Stage::Failed {
            prop_assert!(world.update.progress().failure.is_some());
        }
    }
}
