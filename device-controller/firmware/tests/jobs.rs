//! Jobs on real files, with devices that are simulated by a few lines.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firmware_update::{
    Code, DeviceState, Digest, Image, ImageError, ImageLimits, Job, JobError, JobState, NewJob,
    Settings, StartError, Step, StepOrder, StepOutcome, Updates, Urls, Value, path,
};
use tempfile::TempDir;
use vocabulary::{Iccid, Timestamp};

type Orders = Arc<Mutex<Vec<StepOrder>>>;

struct World {
    folder: TempDir,
    updates: Updates,
    orders: Orders,
    devices: HashMap<Iccid, Device>,
    second: i64,
}

/// A device with the object Firmware Update.
#[derive(Debug, Clone, Default)]
struct Device {
    state: i64,
    result: i64,
    version: i64,
    ends_with: Option<i64>,
    is_off: bool,
    installed: u32,
}

fn sim(number: u64) -> Iccid {
    (898_828_066_600_000_000 * 10 + number).to_string().parse().unwrap()
}

fn sims(count: u64) -> Vec<Iccid> {
    (1..=count).map(sim).collect()
}

fn open(folder: &Path, now: Timestamp) -> (Updates, Orders) {
    let orders = Orders::default();
    let sink = Arc::clone(&orders);
    let coap = Some("coap://gateway:5683".to_owned());
    let settings = Settings {
        folder: folder.to_owned(),
        images: ImageLimits::default(),
        urls: Urls { coap, coaps: None },
    };
    let dispatch = Arc::new(move |order| sink.lock().unwrap().push(order));
    (Updates::open(settings, dispatch, now).unwrap(), orders)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (updates, orders) = open(folder.path(), Timestamp::from_millis(1_000));
        Self { folder, updates, orders, devices: HashMap::new(), second: 1 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.second * 1_000)
    }

    fn image(&self) -> Image {
        let mut upload = self.updates.images().upload().unwrap();
        upload.write(&[7; 5_000]).unwrap();
        upload.finish(("modem", None), None, self.now()).unwrap().0
    }

    fn start(&self, count: u64, change: impl FnOnce(&mut NewJob)) -> Job {
        let mut job = NewJob::new(self.image().digest, sims(count));
        change(&mut job);
        self.updates.start_job(&job, self.now()).unwrap()
    }

    /// The program ends without a word and starts again.
    fn crash(&mut self) {
        let (updates, orders) = open(self.folder.path(), self.now());
        (self.updates, self.orders) = (updates, orders);
    }

    /// Lets `seconds` pass, during which devices answer, fetch and install.
    fn run(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.second += 1;
            self.updates.tick(self.now());
            self.answer();
        }
    }

    fn answer(&mut self) {
        let orders = std::mem::take(&mut *self.orders.lock().unwrap());
        for StepOrder { serial, iccid, step } in orders {
            let device = self.devices.entry(iccid).or_default();
            if device.is_off {
                self.updates.on_outcome(serial, StepOutcome::Unreachable);
                continue;
            }
            let outcome = device.answer(&step, &self.updates);
            self.updates.on_outcome(serial, outcome);
        }
        for (iccid, device) in &mut self.devices {
            if device.state == 3 && !device.is_off {
                device.install();
                self.updates.on_awake(*iccid, true);
            }
        }
    }

    fn job(&self, job: &Job) -> Job {
        self.updates.job(&job.id).unwrap()
    }

    /// What the first device says that has not ended.
    fn stuck(&self, job: &Job) -> Option<Vec<String>> {
        let (devices, _) = self.updates.devices_of(&job.id, None, (0, 10_000)).unwrap();
        let stuck = devices
            .iter()
            .find(|device| matches!(device.state, DeviceState::Running | DeviceState::Asleep));
        stuck.map(|device| self.texts(job, device.iccid))
    }

    fn texts(&self, job: &Job, iccid: Iccid) -> Vec<String> {
        let (_, timeline) = self.updates.timeline(&job.id, iccid).unwrap();
        timeline.into_iter().map(|entry| entry.text).collect()
    }
}

impl Device {
    fn answer(&mut self, step: &Step, updates: &Updates) -> StepOutcome {
        let found =
            |number| StepOutcome::Answered { code: Code(0x45), value: Some(Value::Number(number)) };
        let done = StepOutcome::Answered { code: Code(0x44), value: None };
        match step {
            Step::Read(path::STATE) | Step::Observe(path::STATE) => found(self.state),
            Step::Read(path::RESULT) | Step::Observe(path::RESULT) => found(self.result),
            Step::Read(path::VERSION) => StepOutcome::Answered {
                code: Code(0x45),
                value: Some(Value::Text(format!("{}.0", self.version))),
            },
            Step::Read(path::DELIVERY) => found(2),
            Step::WriteText { value, .. } if value.is_empty() => {
                (self.state, self.result) = (0, 0);
                done
            }
            Step::WriteText { value, .. } => {
                let name = value.rsplit('/').next().unwrap();
                let image = updates.images().serve(name).unwrap();
                assert_eq!(image.len(), 5_000);
                self.state = 2;
                done
            }
            Step::WriteOpaque { image, .. } => {
                self.state = if image.len() == 1 { 0 } else { 2 };
                done
            }
            Step::Execute(_) => {
                self.state = 3;
                done
            }
            _ => StepOutcome::Answered { code: Code::NOT_FOUND, value: None },
        }
    }

    fn install(&mut self) {
        (self.state, self.result) = (0, self.ends_with.unwrap_or(1));
        self.installed += 1;
        self.version += i64::from(self.result == 1);
    }
}

#[test]
fn all_devices_of_a_job_are_updated_and_say_how() {
    let mut world = World::new();
    let job = world.start(120, |job| job.parallel_max = 7);
    assert_eq!((job.state, job.counts.total()), (JobState::Running, 120));
    world.run(600);
    let job = world.job(&job);
    assert_eq!((job.state, job.counts.succeeded), (JobState::Done, 120));
    assert!(world.devices.values().all(|device| device.installed == 1));
    let texts = world.texts(&job, sim(3));
    assert_eq!(texts.first().unwrap(), "the update begins");
    assert_eq!(texts.last().unwrap(), "installed; version 0.0 before, 1.0 now");
    let (page, total) = world.updates.devices_of(&job.id, None, (100, 50)).unwrap();
    assert_eq!((page.len(), total), (20, 120));
    assert!(!world.updates.is_under_way(sim(3)));
    // The image is not in memory any more.
    assert!(world.updates.images().serve(&job.image.name()).is_none());
    world.updates.images().delete(job.image).unwrap();
}

#[test]
fn no_more_devices_than_allowed_are_busy() {
    let mut world = World::new();
    world.start(100, |job| job.parallel_max = 9);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        world.second += 1;
        world.updates.tick(world.now());
        let orders = world.orders.lock().unwrap();
        seen.extend(orders.iter().map(|order| order.iccid));
    }
    assert_eq!(seen.len(), 9);
}

/// A process that dies at any moment goes on from what it had written.
#[test]
fn a_job_survives_crashes_at_every_moment() {
    let mut world = World::new();
    let job = world.start(5, |_| {});
    for life in 0..200 {
        // What is under way at the end of a life may have reached the device, or not.
        world.run(life % 23);
        world.second += 1;
        world.updates.tick(world.now());
        if life % 2 == 0 {
            world.answer();
        }
        world.crash();
        if world.job(&job).state != JobState::Running {
            break;
        }
    }
    let done = world.job(&job);
    assert_eq!((done.state, done.counts.succeeded), (JobState::Done, 5), "{done:?}");
    assert!(world.devices.values().all(|device| device.installed == 1), "{:?}", world.devices);
}

#[test]
fn an_outcome_of_another_life_is_nobodys() {
    let mut world = World::new();
    let job = world.start(1, |_| {});
    world.updates.on_outcome(999, StepOutcome::Invalid("x".to_owned()));
    world.run(60);
    assert_eq!(world.job(&job).state, JobState::Done);
}

#[test]
fn sleeping_devices_give_their_place_to_others() {
    let mut world = World::new();
    for iccid in sims(30) {
        world.devices.insert(iccid, Device { is_off: true, ..Device::default() });
    }
    let job = world.start(40, |job| job.parallel_max = 3);
    world.run(120);
    let counts = world.job(&job).counts;
    assert_eq!((counts.asleep, counts.succeeded), (30, 10));
    world.crash();
    world.run(5);
    for iccid in sims(30) {
        world.devices.get_mut(&iccid).unwrap().is_off = false;
        world.updates.on_awake(iccid, true);
    }
    world.run(400);
    let done = world.job(&job);
    assert_eq!(done.state, JobState::Done, "{done:?} {:?}", world.stuck(&job));
}

#[test]
fn a_paused_job_does_nothing_and_its_pause_does_not_count() {
    let mut world = World::new();
    let job = world.start(20, |job| job.parallel_max = 2);
    world.run(4);
    let now = world.now();
    assert_eq!(world.updates.pause(&job.id, now).unwrap().state, JobState::Paused);
    assert!(matches!(world.updates.pause(&job.id, now), Err(JobError::Conflict(JobState::Paused))));
    world.run(5);
    world.orders.lock().unwrap().clear();
    world.crash();
    // Nine days, beyond the deadline of a device.
    world.second += 9 * 86_400;
    world.updates.tick(world.now());
    assert!(world.orders.lock().unwrap().is_empty());
    world.updates.resume(&job.id, world.now()).unwrap();
    world.run(600);
    assert_eq!(world.job(&job).counts.succeeded, 20);
    let now = world.now();
    assert!(matches!(world.updates.resume(&job.id, now), Err(JobError::Conflict(JobState::Done))));
}

#[test]
fn a_cancelled_job_resets_devices_and_lets_them_go() {
    for paused in [false, true] {
        let mut world = World::new();
        let job = world.start(20, |job| job.parallel_max = 2);
        world.run(3);
        if paused {
            world.updates.pause(&job.id, world.now()).unwrap();
        }
        let cancelled = world.updates.cancel(&job.id, world.now()).unwrap();
        assert_eq!(cancelled.state, JobState::Cancelled, "paused before: {paused}");
        assert_eq!(cancelled.counts.cancelled + cancelled.counts.succeeded, 20);
        let orders = world.orders.lock().unwrap().clone();
        let resets = |order: &&StepOrder| matches!(&order.step, Step::WriteText { .. });
        assert!(orders.iter().rfind(resets).is_some());
        world.start(20, |_| {});
        world.run(200);
        assert_eq!(world.texts(&job, sim(20)).last().unwrap(), "cancelled");
    }
}

#[test]
fn too_many_failures_stop_a_job_until_a_user_lets_it_go_on() {
    let mut world = World::new();
    for iccid in sims(40) {
        world.devices.insert(iccid, Device { ends_with: Some(5), ..Device::default() });
    }
    let job = world.start(40, |job| (job.parallel_max, job.stop_percent) = (1, Some(20)));
    world.run(900);
    let stopped = world.job(&job);
    assert_eq!((stopped.state, stopped.counts.failed), (JobState::Paused, 10));
    let reason = "more than 20 % of the devices that have ended failed";
    assert_eq!(stopped.reason.as_deref(), Some(reason));
    world.crash();
    world.updates.resume(&job.id, world.now()).unwrap();
    world.run(900);
    assert_eq!(world.job(&job).counts.failed, 20);
    world.devices.values_mut().for_each(|device| device.ends_with = None);
    world.updates.resume(&job.id, world.now()).unwrap();
    world.run(900);
    let done = world.job(&job);
    assert_eq!((done.state, done.counts.succeeded), (JobState::Done, 20));
}

#[test]
fn a_damaged_image_fails_its_job_clearly() {
    let mut world = World::new();
    let job = world.start(3, |job| job.parallel_max = 1);
    world.run(2);
    let file = world.folder.path().join("firmware").join(job.image.to_string());
    std::fs::write(&file, [8; 5_000]).unwrap();
    world.crash();
    let failed = world.job(&job);
    assert_eq!((failed.state, failed.counts.failed), (JobState::Failed, 3));
    assert!(failed.reason.as_ref().unwrap().contains("is damaged: upload it again"));
    assert_eq!(world.texts(&job, sim(3)), [failed.reason.clone().unwrap()]);
    let again = NewJob::new(job.image, sims(3));
    let refused = world.updates.start_job(&again, world.now());
    assert!(matches!(refused, Err(StartError::Image(ImageError::Damaged(_)))));
    assert_eq!(world.updates.jobs(0, 10).unwrap().1, 1, "a refused job leaves nothing behind");
    world.start(3, |_| {});
    world.run(100);
    assert_eq!(world.updates.jobs(0, 10).unwrap().0[0].counts.succeeded, 3);
}

#[test]
fn a_job_needs_an_image_and_devices_that_are_free() {
    let world = World::new();
    let unknown = NewJob::new(Digest([0; 32]), sims(1));
    let refused = world.updates.start_job(&unknown, world.now());
    assert!(matches!(refused, Err(StartError::Image(ImageError::Unknown(_)))));
    let job = world.start(3, |_| {});
    let busy = NewJob::new(job.image, sims(5));
    match world.updates.start_job(&busy, world.now()) {
        Err(StartError::Busy { first, count }) => assert_eq!((first, count), (sim(1), 3)),
        other => panic!("{other:?}"),
    }
    let refused = world.updates.images().delete(job.image);
    assert!(matches!(refused, Err(ImageError::InUse(_))));
    let unknown = world.updates.timeline(&job.id, sim(9));
    assert!(matches!(unknown, Err(JobError::NoDevice(_))));
    assert!(matches!(world.updates.job("x"), Err(JobError::Unknown(_))));
}

#[test]
fn reports_and_bytes_reach_a_device_that_is_updated() {
    let mut world = World::new();
    let job = world.start(1, |_| {});
    world.updates.tick(world.now());
    for _ in 0..12 {
        let orders = std::mem::take(&mut *world.orders.lock().unwrap());
        for StepOrder { serial, iccid, step } in orders {
            let mut device = Device::default();
            let outcome = device.answer(&step, &world.updates);
            world.updates.on_outcome(serial, outcome);
            assert_eq!(iccid, sim(1));
        }
        world.updates.tick(world.now());
    }
    world.updates.on_bytes(sim(1), 2_500);
    world.updates.on_report(sim(1), br#"{"/5/0/3":2,"/5/0/5":0,"/3303/0/5700":1.5}"#);
    world.updates.tick(world.now());
    let texts = world.texts(&job, sim(1));
    assert!(texts.iter().any(|text| text == "2500 of 5000 bytes are with the device"), "{texts:?}");
    let executes = |order: &StepOrder| order.step == Step::Execute(path::UPDATE);
    assert!(world.orders.lock().unwrap().iter().any(executes), "{texts:?}");
    world.devices.insert(sim(1), Device { state: 2, ..Device::default() });
    world.run(60);
    assert_eq!(world.job(&job).state, JobState::Done);
}

/// Uplinks of all devices pass here, so who is not updated must cost next to nothing. The bound is
/// a hundred times what it takes, because tests run unoptimised and beside each other.
#[test]
fn a_device_that_is_not_updated_costs_next_to_nothing() {
    let world = World::new();
    world.start(3, |_| {});
    let started = Instant::now();
    let rounds = 100_000;
    for number in 0..rounds {
        world.updates.on_awake(sim(1_000 + number), false);
        world.updates.on_report(sim(1_000 + number), b"{\"/5/0/3\":1}");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn ten_thousand_devices_are_one_job() {
    let mut world = World::new();
    let job = world.start(10_000, |job| job.parallel_max = 1_000);
    world.run(40);
    assert!(world.job(&job).counts.succeeded > 0);
    let refused = NewJob::new(job.image, sims(10_001));
    let refused = world.updates.start_job(&refused, world.now());
    assert!(matches!(refused, Err(StartError::OutOfRange { field: "devices", .. })));
    let (asleep, _) =
        world.updates.devices_of(&job.id, Some(DeviceState::Asleep), (0, 10)).unwrap();
    assert!(asleep.is_empty());
}
