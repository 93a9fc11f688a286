//! Who is updated when: the jobs that have not ended, and the machines of their devices.
//!
//! What changes is written before the steps that follow from it are given out. Where it cannot be
//! written, nothing is given out until it can.

mod changes;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rusqlite::{Connection, TransactionBehavior};
use tracing::{error, info};
use vocabulary::{Iccid, Timestamp};

use crate::device::{DeviceUpdate, Entry, Presence, Stage};
use crate::images::{ImageError, Images};
use crate::inbox::{Input, Waiting, Watched};
use crate::job::{DeviceState, JobDevice, JobState, STOP_SAMPLE, StoreError};
use crate::plan::Plan;
use crate::step::StepOrder;
use crate::table::{self, DeviceRow, JobRow};
use crate::updates::Urls;

/// Time is looked at so often; no timer is shorter than a few seconds.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Core {
    connection: Connection,
    images: Images,
    urls: Urls,
    watched: Arc<Watched>,
    jobs: HashMap<i64, JobUnderWay>,
    seats: HashMap<Iccid, Seat>,
    serials: HashMap<u64, Iccid>,
    next_serial: u64,
    ticked: Option<Timestamp>,
    unsaved: Unsaved,
    is_failing: bool,
}

struct JobUnderWay {
    row: JobRow,
    plan: Arc<Plan>,
    /// Devices whose turn has not come.
    waiting: VecDeque<Iccid>,
    /// Devices that have something to do and no place.
    ready: VecDeque<Iccid>,
    /// Places taken.
    held: u32,
    ended: u32,
    failed: u32,
}

struct Seat {
    job: i64,
    update: DeviceUpdate,
    holds: bool,
    is_ready: bool,
    serial: Option<u64>,
    shown: DeviceState,
}

#[derive(Default)]
struct Unsaved {
    devices: HashMap<(i64, Iccid), DeviceRow>,
    entries: Vec<(i64, Iccid, Entry)>,
    jobs: BTreeSet<i64>,
    ended_jobs: Vec<JobRow>,
    orders: Vec<StepOrder>,
}

impl JobUnderWay {
    fn new(row: JobRow, plan: Plan) -> Self {
        let counts = row.job.counts;
        Self {
            row,
            plan: Arc::new(plan),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            held: 0,
            ended: counts.ended(),
            failed: counts.failed,
        }
    }

    fn is_running(&self) -> bool {
        self.row.job.state == JobState::Running
    }

    fn has_place(&self) -> bool {
        self.held < self.row.job.parallel_max
    }

    /// Whether too many devices have failed since a user last let the job go on.
    fn has_failed_too_often(&self, devices: u32) -> bool {
        let Some(percent) = self.row.job.stop_percent else { return false };
        let ended = self.ended.saturating_sub(self.row.ended_before);
        let failed = self.failed.saturating_sub(self.row.failed_before);
        ended >= STOP_SAMPLE.min(devices) && failed * 100 > percent * ended
    }

    fn set_state(&mut self, state: JobState, reason: Option<String>, now: Timestamp) {
        (self.row.job.state, self.row.job.reason) = (state, reason);
        self.row.job.updated = now;
    }
}

impl Core {
    /// Whether the outcome of a step is waited for.
    pub(crate) fn waits_for(&self, serial: u64) -> bool {
        self.serials.contains_key(&serial)
    }

    /// Takes up every job that has not ended.
    pub(crate) fn open(
        connection: Connection,
        (images, urls): (Images, Urls),
        watched: Arc<Watched>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut core = Self {
            connection,
            images,
            urls,
            watched,
            jobs: HashMap::new(),
            seats: HashMap::new(),
            serials: HashMap::new(),
            next_serial: 1,
            ticked: None,
            unsaved: Unsaved::default(),
            is_failing: false,
        };
        for row in table::under_way(&core.connection)? {
            core.restore(row, now)?;
        }
        Ok(core)
    }

    fn restore(&mut self, row: JobRow, now: Timestamp) -> Result<(), StoreError> {
        let number = row.number;
        match self.plan(&row) {
            Ok(plan) => {
                let is_running = row.job.state == JobState::Running;
                info!(job = row.job.id, devices = row.job.counts.total(), "firmware job goes on");
                self.jobs.insert(number, JobUnderWay::new(row, plan));
                if is_running {
                    self.seat_devices(number, now)?;
                    self.fill(number, now);
                }
                Ok(())
            }
            Err(problem) => self.fail_job(row, &problem.to_string(), now),
        }
    }

    /// The plan of a job; its image is then in memory until the job ends.
    fn plan(&self, row: &JobRow) -> Result<Plan, ImageError> {
        let job = &row.job;
        let image = self.images.take_up(job.image)?;
        let uri = |base: &Option<String>| {
            base.as_ref().map(|base| format!("{base}/fw/{}", job.image.name()))
        };
        Ok(Plan {
            method: job.method,
            patience: job.patience,
            version: job.image_version.clone(),
            require_version: job.require_version,
            coap_uri: uri(&self.urls.coap),
            coaps_uri: uri(&self.urls.coaps),
            image,
        })
    }

    /// Ends a job that cannot go on, with all devices that it has left.
    fn fail_job(&mut self, mut row: JobRow, why: &str, now: Timestamp) -> Result<(), StoreError> {
        error!(job = row.job.id, why, "a firmware job cannot go on");
        let reason = Some(why.to_owned());
        (row.job.state, row.job.reason, row.job.updated) = (JobState::Failed, reason, now);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for mut device in table::unfinished(&transaction, row.number)? {
            let iccid = device.device.iccid;
            let entry = Entry { at: now, stage: Stage::Failed, text: why.to_owned() };
            table::add_entry(&transaction, row.number, iccid, &entry)?;
            if let Some(progress) = &mut device.device.progress {
                (progress.stage, progress.failure) = (Stage::Failed, Some(why.to_owned()));
                (device.device.state, device.device.updated) = (DeviceState::Failed, now);
                table::put_device(&transaction, row.number, &device)?;
            }
        }
        table::end_waiting(&transaction, row.number, DeviceState::Failed, now)?;
        table::put_job(&transaction, &row)?;
        transaction.commit()?;
        Ok(())
    }

    /// Takes the devices of a running job up from where the file says that they are.
    fn seat_devices(&mut self, number: i64, now: Timestamp) -> Result<(), StoreError> {
        let rows = table::unfinished(&self.connection, number)?;
        for DeviceRow { device, entries_left } in rows {
            let Some(job) = self.jobs.get_mut(&number) else { return Ok(()) };
            let JobDevice { iccid, progress, state, .. } = device;
            match progress {
                None => job.waiting.push_back(iccid),
                Some(progress) => {
                    let plan = Arc::clone(&job.plan);
                    let update = DeviceUpdate::take_up(plan, progress, entries_left, now);
                    self.seat(number, iccid, update, state);
                    self.settle(iccid, now);
                }
            }
        }
        Ok(())
    }

    fn seat(&mut self, job: i64, iccid: Iccid, update: DeviceUpdate, shown: DeviceState) {
        self.watched.insert(iccid);
        let seat = Seat { job, update, holds: false, is_ready: false, serial: None, shown };
        self.seats.insert(iccid, seat);
    }

    /// Works off what happened, and what is due. Gives the steps that are to be made, all of them
    /// durable.
    pub(crate) fn work(&mut self, happened: Waiting, now: Timestamp) -> Vec<StepOrder> {
        for (iccid, registered) in happened.awake {
            self.feed(iccid, now, |update| update.on_awake(now, registered));
        }
        for input in happened.inputs {
            match input {
                Input::Value(iccid, path, value) => {
                    self.feed(iccid, now, |update| update.on_value(now, path, &value));
                }
                Input::Bytes(iccid, bytes) => {
                    self.feed(iccid, now, |update| update.on_bytes(now, bytes));
                }
                Input::Outcome(serial, outcome) => {
                    // An outcome that nobody waits for any more says nothing.
                    let Some(iccid) = self.serials.remove(&serial) else { continue };
                    if let Some(seat) = self.seats.get_mut(&iccid) {
                        seat.serial = None;
                    }
                    self.feed(iccid, now, |update| update.on_outcome(now, outcome));
                }
            }
        }
        // A clock that was set back does not stop time for long.
        let is_due = |last: Timestamp| last > now || now.saturating_since(last) >= TICK;
        if self.ticked.is_none_or(is_due) {
            self.ticked = Some(now);
            let devices: Vec<Iccid> = self.seats.keys().copied().collect();
            for iccid in devices {
                self.feed(iccid, now, |update| update.on_tick(now));
            }
        }
        let jobs: Vec<i64> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.fill(job, now);
        }
        self.save_and_take()
    }

    fn feed(&mut self, iccid: Iccid, now: Timestamp, act: impl FnOnce(&mut DeviceUpdate)) {
        if let Some(seat) = self.seats.get_mut(&iccid) {
            act(&mut seat.update);
            self.settle(iccid, now);
        }
    }

    /// After anything happened to a device: its place, its next step, and what is to be kept.
    fn settle(&mut self, iccid: Iccid, now: Timestamp) {
        let Some(seat) = self.seats.get_mut(&iccid) else { return };
        let Some(job) = self.jobs.get_mut(&seat.job) else { return };
        if !seat.update.is_in_flight()
            && let Some(serial) = seat.serial.take()
        {
            self.serials.remove(&serial);
        }
        match seat.update.presence(now) {
            Presence::Ended => return self.end(iccid, now),
            Presence::Idle => {
                if std::mem::take(&mut seat.holds) {
                    job.held -= 1;
                }
            }
            Presence::Busy => {
                if !seat.holds && job.has_place() {
                    seat.holds = true;
                    job.held += 1;
                }
            }
        }
        if seat.update.has_step() && !seat.holds && !std::mem::replace(&mut seat.is_ready, true) {
            job.ready.push_back(iccid);
        }
        if seat.holds
            && let Some(step) = seat.update.poll_step(now)
        {
            let serial = self.next_serial;
            self.next_serial += 1;
            seat.serial = Some(serial);
            self.serials.insert(serial, iccid);
            self.unsaved.orders.push(StepOrder { serial, iccid, step });
        }
        let is_asleep = seat.update.is_asleep(now);
        let shown = if is_asleep { DeviceState::Asleep } else { DeviceState::Running };
        let is_other = std::mem::replace(&mut seat.shown, shown) != shown;
        if seat.update.take_changed() || is_other {
            let row = device_row(iccid, shown, &seat.update, now);
            self.unsaved.devices.insert((seat.job, iccid), row);
        }
        let entries = seat.update.take_entries();
        self.unsaved.entries.extend(entries.into_iter().map(|entry| (seat.job, iccid, entry)));
    }

    /// A device has ended.
    fn end(&mut self, iccid: Iccid, now: Timestamp) {
        let Some(mut seat) = self.seats.remove(&iccid) else { return };
        self.watched.remove(iccid);
        let shown = match seat.update.progress().stage {
            Stage::Succeeded => DeviceState::Succeeded,
            Stage::Cancelled => DeviceState::Cancelled,
            _ => DeviceState::Failed,
        };
        for step in seat.update.farewell() {
            let serial = self.next_serial;
            self.next_serial += 1;
            self.unsaved.orders.push(StepOrder { serial, iccid, step });
        }
        let row = device_row(iccid, shown, &seat.update, now);
        self.unsaved.devices.insert((seat.job, iccid), row);
        let entries = seat.update.take_entries();
        self.unsaved.entries.extend(entries.into_iter().map(|entry| (seat.job, iccid, entry)));
        let Some(job) = self.jobs.get_mut(&seat.job) else { return };
        job.held -= u32::from(seat.holds);
        job.ended += 1;
        job.failed += u32::from(shown == DeviceState::Failed);
    }

    /// Gives free places of a job to devices, and ends or holds the job where it is time.
    fn fill(&mut self, number: i64, now: Timestamp) {
        let Some(job) = self.jobs.get(&number) else { return };
        let devices = job.row.job.counts.total();
        if job.ended >= devices {
            return self.end_job(number, JobState::Done, now);
        }
        if !job.is_running() {
            return;
        }
        if job.has_failed_too_often(devices) {
            let percent = job.row.job.stop_percent.unwrap_or_default();
            let reason = format!("more than {percent} % of the devices that have ended failed");
            return self.hold(number, Some(reason), now);
        }
        while let Some(job) = self.jobs.get_mut(&number)
            && job.has_place()
        {
            if let Some(iccid) = job.ready.pop_front() {
                if let Some(seat) = self.seats.get_mut(&iccid) {
                    seat.is_ready = false;
                }
                self.settle(iccid, now);
            } else if let Some(iccid) = job.waiting.pop_front() {
                let update = DeviceUpdate::new(Arc::clone(&job.plan), now);
                self.seat(number, iccid, update, DeviceState::Waiting);
                self.settle(iccid, now);
            } else {
                return;
            }
        }
    }

    fn end_job(&mut self, number: i64, state: JobState, now: Timestamp) {
        let Some(mut job) = self.jobs.remove(&number) else { return };
        job.set_state(state, None, now);
        self.images.put_down(job.row.job.image);
        self.unsaved.jobs.remove(&number);
        self.unsaved.ended_jobs.push(job.row);
    }

    /// Writes what has changed; only then are steps given out.
    fn save_and_take(&mut self) -> Vec<StepOrder> {
        match self.save() {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("firmware updates go on: their file can be written again");
                }
                std::mem::take(&mut self.unsaved.orders)
            }
            Err(problem) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    error!(%problem, "firmware updates stand still until they can be written");
                }
                Vec::new()
            }
        }
    }

    fn save(&mut self) -> Result<(), StoreError> {
        let Self { connection, unsaved, jobs, .. } = self;
        let Unsaved { devices, entries, jobs: changed, ended_jobs, .. } = &*unsaved;
        let is_clean = devices.is_empty() && entries.is_empty();
        if is_clean && changed.is_empty() && ended_jobs.is_empty() {
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for ((job, _), row) in devices {
            table::put_device(&transaction, *job, row)?;
        }
        for (job, iccid, entry) in entries {
            table::add_entry(&transaction, *job, *iccid, entry)?;
        }
        let changed = changed.iter().filter_map(|number| jobs.get(number)).map(|job| &job.row);
        for row in changed.chain(ended_jobs) {
            table::put_job(&transaction, row)?;
        }
        transaction.commit()?;
        let orders = std::mem::take(&mut unsaved.orders);
        *unsaved = Unsaved { orders, ..Unsaved::default() };
        Ok(())
    }
}

fn device_row(
    iccid: Iccid,
    state: DeviceState,
    update: &DeviceUpdate,
    updated: Timestamp,
) -> DeviceRow {
    let progress = Some(update.progress().clone());
    let device = JobDevice { iccid, state, progress, updated };
    DeviceRow { device, entries_left: update.entries_left() }
}
