//! Firmware updates as the rest of the house sees them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use state::StateFile;
use thiserror::Error;
use vocabulary::{Iccid, Timestamp};

use crate::core::Core;
use crate::images::{ImageError, ImageLimits, Images};
use crate::inbox::{Inbox, Input, Watched};
use crate::job::{DeviceState, Job, JobDevice, JobError, NewJob, StartError, StoreError, Timeline};
use crate::step::{StepOrder, StepOutcome, Value, path};
use crate::table::{self, JobRow, MIGRATIONS};

/// What values are watched for.
const WATCHED_PATHS: [&str; 3] = [path::STATE, path::RESULT, path::VERSION];

/// Where devices fetch images.
#[derive(Debug, Clone, Default)]
pub struct Urls {
    /// By CoAP, e.g. `coap://gateway.example.com:5683`; without it nobody does.
    pub coap: Option<String>,
    /// By CoAP over DTLS, e.g. `coaps://gateway.example.com:5684`; without it nobody does.
    pub coaps: Option<String>,
}

/// Where things lie, and how many there may be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder of the gateway; gets `firmware.db` and the folder `firmware`.
    pub folder: PathBuf,
    /// Limits on images.
    pub images: ImageLimits,
    /// Where devices fetch images.
    pub urls: Urls,
}

/// Why firmware updates are not at hand.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Their file does not open.
    #[error(transparent)]
    File(#[from] state::OpenError),
    /// Their file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of images cannot be used.
    #[error(transparent)]
    Images(#[from] ImageError),
}

/// Hands a step to the LwM2M server. Called from [`Updates::tick`] and from the calls of users;
/// must not block.
pub type Dispatch = Arc<dyn Fn(StepOrder) + Send + Sync>;

/// All firmware updates of one gateway. Clones share them.
///
/// `on_...` may be called from any thread at any rate and never block on a file; what they tell is
/// worked off by [`Updates::tick`], which a thread of the gateway calls. The calls of users block.
#[derive(Clone)]
pub struct Updates(Arc<Parts>);

struct Parts {
    core: Mutex<Core>,
    reader: Mutex<Connection>,
    images: Images,
    inbox: Inbox,
    watched: Arc<Watched>,
    dispatch: Dispatch,
}

impl fmt::Debug for Updates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Updates").finish_non_exhaustive()
    }
}

impl Updates {
    /// Opens the file and the images, and takes up every job that has not ended. The first steps
    /// are given out by the first [`Updates::tick`]. Blocks.
    pub fn open(settings: Settings, dispatch: Dispatch, now: Timestamp) -> Result<Self, OpenError> {
        let Settings { folder, images: limits, urls } = settings;
        let file = StateFile::new(folder.join("firmware.db"));
        let images = Images::open(folder.join("firmware"), limits, file.open(MIGRATIONS)?)?;
        let watched = Arc::new(Watched::default());
        let parts = (images.clone(), urls);
        let core = Core::open(file.open(MIGRATIONS)?, parts, Arc::clone(&watched), now)?;
        let (core, reader) = (Mutex::new(core), Mutex::new(file.open(MIGRATIONS)?));
        let inbox = Inbox::default();
        Ok(Self(Arc::new(Parts { core, reader, images, inbox, watched, dispatch })))
    }

    /// The images.
    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// Starts a job; durable when it returns. Blocks.
    pub fn start_job(&self, new: &NewJob, now: Timestamp) -> Result<Job, StartError> {
        let (id, orders) = self.core().start(new, now)?;
        self.dispatch(orders);
        let found = table::find_job(&self.reader(), &id)?;
        let row = found.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        Ok(row.job)
    }

    /// A page of all jobs, the newest first, and how many there are. Blocks.
    pub fn jobs(&self, skip: usize, take: usize) -> Result<(Vec<Job>, u64), StoreError> {
        Ok(table::jobs(&self.reader(), skip, take)?)
    }

    /// One job. Blocks.
    pub fn job(&self, id: &str) -> Result<Job, JobError> {
        Ok(find(&self.reader(), id)?.job)
    }

    /// A page of the devices of a job, all or those in one state, and how many those are. Blocks.
    pub fn devices_of(
        &self,
        id: &str,
        state: Option<DeviceState>,
        page: (usize, usize),
    ) -> Result<(Vec<JobDevice>, u64), JobError> {
        let reader = self.reader();
        let number = find(&reader, id)?.number;
        Ok(table::devices(&reader, number, state, page)?)
    }

    /// A device of a job, with all that happened to it. Blocks.
    pub fn timeline(&self, id: &str, iccid: Iccid) -> Result<(JobDevice, Timeline), JobError> {
        let reader = self.reader();
        let number = find(&reader, id)?.number;
        let device = table::find_device(&reader, number, iccid)?;
        let device = device.ok_or(JobError::NoDevice(iccid))?;
        Ok((device, table::timeline(&reader, number, iccid)?))
    }

    /// Holds a job: no step is made until it is resumed. What devices do by themselves goes on.
    /// Blocks.
    pub fn pause(&self, id: &str, now: Timestamp) -> Result<Job, JobError> {
        self.core().pause(id, now)?;
        self.job(id)
    }

    /// Lets a job go on that was held; the time in between does not count. Blocks.
    pub fn resume(&self, id: &str, now: Timestamp) -> Result<Job, JobError> {
        let orders = self.core().resume(id, now)?;
        self.dispatch(orders);
        self.job(id)
    }

    /// Gives a job up. Devices that were told to install may still do so. Blocks.
    pub fn cancel(&self, id: &str, now: Timestamp) -> Result<Job, JobError> {
        let orders = self.core().cancel(id, now)?;
        self.dispatch(orders);
        self.job(id)
    }

    /// A device is awake: it registered (`registered`), updated its registration, or sent
    /// something. Takes some ten nanoseconds where it is not being updated.
    pub fn on_awake(&self, iccid: Iccid, registered: bool) {
        if self.0.watched.contains(iccid) {
            self.0.inbox.awake(iccid, registered);
        }
    }

    /// A device reported a value. Takes some ten nanoseconds where it is not being updated.
    pub fn on_value(&self, iccid: Iccid, path: &str, value: &Value) {
        if !self.0.watched.contains(iccid) {
            return;
        }
        if let Some(known) = WATCHED_PATHS.into_iter().find(|known| *known == path) {
            self.0.inbox.put(Input::Value(iccid, known, value.clone()));
        }
    }

    /// A device reported values, as the flat JSON of an uplink. Takes some ten nanoseconds where
    /// it is not being updated.
    pub fn on_report(&self, iccid: Iccid, report: &[u8]) {
        if !self.0.watched.contains(iccid) {
            return;
        }
        let Ok(object) = serde_json::from_slice(report) else { return };
        for known in WATCHED_PATHS {
            if let Some(value) = Value::in_object(known, &object) {
                self.0.inbox.put(Input::Value(iccid, known, value));
            }
        }
    }

    /// A device has the first `bytes` of its image: they were fetched from
    /// [`Images::serve`], or acknowledged when they were written to it.
    pub fn on_bytes(&self, iccid: Iccid, bytes: u64) {
        if self.0.watched.contains(iccid) {
            self.0.inbox.put(Input::Bytes(iccid, bytes));
        }
    }

    /// What became of a step. To be called once for each that was dispatched; never blocks, and
    /// may be called from within the dispatch.
    pub fn on_outcome(&self, serial: u64, outcome: StepOutcome) {
        self.0.inbox.put(Input::Outcome(serial, outcome));
    }

    /// Works off what happened and what is due; to be called at least once a second. Blocks on
    /// the file.
    pub fn tick(&self, now: Timestamp) {
        let happened = self.0.inbox.take();
        let orders = self.core().work(happened, now);
        self.dispatch(orders);
    }

    /// Waits until there is something for [`Updates::tick`], at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        self.0.inbox.wait(timeout);
    }

    /// Reports of devices that were dropped because too many waited.
    pub fn dropped_reports(&self) -> u64 {
        self.0.inbox.dropped()
    }

    /// Whether the device is being updated by a job that is not paused.
    pub fn is_under_way(&self, iccid: Iccid) -> bool {
        self.0.watched.contains(iccid)
    }

    /// Which of these steps nobody waits for any more, because their job was paused or cancelled:
    /// where they were not sent yet, they should not be.
    pub fn abandoned(&self, serials: &[u64]) -> Vec<u64> {
        let core = self.core();
        serials.iter().copied().filter(|serial| !core.waits_for(*serial)).collect()
    }

    fn dispatch(&self, orders: Vec<StepOrder>) {
        for order in orders {
            (self.0.dispatch)(order);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(reader: &Connection, id: &str) -> Result<JobRow, JobError> {
    table::find_job(reader, id)?.ok_or_else(|| JobError::Unknown(id.to_owned()))
}
