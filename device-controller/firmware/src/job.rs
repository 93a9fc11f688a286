//! Jobs and their devices, as they are started and shown.

use thiserror::Error;
use vocabulary::{Iccid, Timestamp};

use crate::device::{Entry, Progress};
use crate::images::{Digest, ImageError};
use crate::plan::{Method, Patience};

/// Devices of one job.
pub const JOB_DEVICES_MAX: usize = 10_000;
/// Jobs that have not ended.
pub const JOBS_UNDER_WAY_MAX: usize = 100;
/// Devices of all jobs that have not ended: some 50 MB of memory.
pub const DEVICES_UNDER_WAY_MAX: usize = 100_000;
/// Jobs that are kept; the oldest that have ended go first.
pub const JOBS_KEPT_MAX: u32 = 500;
/// The highest number of devices that a job updates at the same time.
pub const PARALLEL_MAX: u32 = 1_000;
/// Where the user names no number: 50 downloads at 100 kbit/s are 5 Mbit/s.
pub const PARALLEL_DEFAULT: u32 = 50;
/// A job is stopped for its failures once so many devices have ended (or all of a smaller job).
pub const STOP_SAMPLE: u32 = 10;

/// A job to be started.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The image.
    pub image: Digest,
    /// Who gets it; 1 to [`JOB_DEVICES_MAX`].
    pub devices: Vec<Iccid>,
    /// How it reaches them.
    pub method: Method,
    /// How patient the job is with each.
    pub patience: Patience,
    /// How many devices are updated at the same time; 1 to [`PARALLEL_MAX`].
    pub parallel_max: u32,
    /// Pause when more than this share of the devices that have ended has failed; 1 to 99.
    pub stop_percent: Option<u32>,
    /// Whether a device that reports another version after the update has failed.
    pub require_version: bool,
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Under way.
    Running,
    /// Held, by a user or because too many devices failed.
    Paused,
    /// Every device has ended.
    Done,
    /// Given up by a user.
    Cancelled,
    /// It cannot go on.
    Failed,
}

/// How a device of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// Its turn has not come.
    Waiting,
    /// It is being updated.
    Running,
    /// It is being updated, and sleeps or is away.
    Asleep,
    /// It has the image.
    Succeeded,
    /// It has not.
    Failed,
    /// Given up by a user.
    Cancelled,
}

/// How many devices of a job are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`DeviceState::Waiting`].
    pub waiting: u32,
    /// [`DeviceState::Running`].
    pub running: u32,
    /// [`DeviceState::Asleep`].
    pub asleep: u32,
    /// [`DeviceState::Succeeded`].
    pub succeeded: u32,
    /// [`DeviceState::Failed`].
    pub failed: u32,
    /// [`DeviceState::Cancelled`].
    pub cancelled: u32,
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The image.
    pub image: Digest,
    /// The name of the image when the job began.
    pub image_name: String,
    /// The version that the image holds.
    pub image_version: Option<String>,
    /// How the image reaches devices.
    pub method: Method,
    /// How patient the job is with each.
    pub patience: Patience,
    /// How many devices are updated at the same time.
    pub parallel_max: u32,
    /// The share of failures that pauses it.
    pub stop_percent: Option<u32>,
    /// Whether devices must report the version of the image.
    pub require_version: bool,
    /// How it is.
    pub state: JobState,
    /// Why it is so, where that is not obvious.
    pub reason: Option<String>,
    /// When it was started.
    pub created: Timestamp,
    /// When its state last changed.
    pub updated: Timestamp,
    /// Its devices.
    pub counts: Counts,
}

/// A device of a job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDevice {
    /// The device.
    pub iccid: Iccid,
    /// How it is.
    pub state: DeviceState,
    /// How far it is; `None` before its turn.
    pub progress: Option<Progress>,
    /// When that last changed.
    pub updated: Timestamp,
}

/// The timeline of a device.
pub type Timeline = Vec<Entry>;

/// Why a job is not started.
#[derive(Debug, Error)]
pub enum StartError {
    /// A number is not allowed.
    #[error("{field} {value} is not allowed")]
    OutOfRange {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// A device is listed twice.
    #[error("device {0} is listed twice")]
    Repeated(Iccid),
    /// Another job has devices of this one.
    #[error("{count} devices are updated by another job, the first is {first}")]
    Busy {
        /// The first of them.
        first: Iccid,
        /// How many.
        count: usize,
    },
    /// There are too many jobs or devices under way.
    #[error("{what} under way: {limit}, which is the limit")]
    Full {
        /// `jobs` or `devices`.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a job was not changed or read.
#[derive(Debug, Error)]
pub enum JobError {
    /// There is no such job.
    #[error("job {0} does not exist")]
    Unknown(String),
    /// It does not have the device.
    #[error("device {0} is not one of the job")]
    NoDevice(Iccid),
    /// It is in the wrong state for this.
    #[error("the job is {}", .0.as_str())]
    Conflict(JobState),
    /// It could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The file of firmware updates could not be read or written: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("file of firmware updates: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The system has no randomness.
    #[error("no job can be named: {0}")]
    Random(getrandom::Error),
}

impl From<rusqlite::Error> for JobError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<rusqlite::Error> for StartError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl JobState {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Done, Self::Cancelled, Self::Failed];

    /// As stored. Those that have not ended come first.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// In capitals, as in `RUNNING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Done => "DONE",
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
        }
    }
}

impl DeviceState {
    const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Running,
        Self::Asleep,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As stored. Those that have not ended come first.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// In capitals, as in `WAITING`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Asleep => "ASLEEP",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl Counts {
    pub(crate) fn set(&mut self, state: DeviceState, count: u32) {
        *match state {
            DeviceState::Waiting => &mut self.waiting,
            DeviceState::Running => &mut self.running,
            DeviceState::Asleep => &mut self.asleep,
            DeviceState::Succeeded => &mut self.succeeded,
            DeviceState::Failed => &mut self.failed,
            DeviceState::Cancelled => &mut self.cancelled,
        } = count;
    }

    /// All devices.
    pub fn total(&self) -> u32 {
        self.waiting + self.running + self.asleep + self.ended()
    }

    /// Devices that have ended.
    pub fn ended(&self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }
}

impl NewJob {
    /// A job with the defaults.
    pub fn new(image: Digest, devices: Vec<Iccid>) -> Self {
        Self {
            image,
            devices,
            method: Method::Auto,
            patience: Patience::default(),
            parallel_max: PARALLEL_DEFAULT,
            stop_percent: None,
            require_version: false,
        }
    }

    /// Refuses numbers outside of their limits, and devices listed twice.
    pub fn check(&self) -> Result<(), StartError> {
        let Patience { attempts, pause, deadline, download, install } = self.patience;
        let hour = 3_600;
        // An attempt needs a day at most; nobody waits for a device longer than a quarter.
        for (field, value, allowed) in [
            ("devices", self.devices.len() as u64, 1..=JOB_DEVICES_MAX as u64),
            ("parallelMax", self.parallel_max.into(), 1..=PARALLEL_MAX.into()),
            ("stopPercent", self.stop_percent.unwrap_or(1).into(), 1..=99),
            ("attempts", attempts.into(), 1..=10),
            ("pauseSeconds", pause.as_secs(), 1..=7 * 24 * hour),
            ("deadlineSeconds", deadline.as_secs(), 60..=92 * 24 * hour),
            ("downloadSeconds", download.as_secs(), 60..=24 * hour),
            ("installSeconds", install.as_secs(), 60..=24 * hour),
        ] {
            if !allowed.contains(&value) {
                let allowed = format!("{} to {}", allowed.start(), allowed.end());
                return Err(StartError::OutOfRange { field, value, allowed });
            }
        }
        let mut seen = hashbrown::HashSet::with_capacity(self.devices.len());
        match self.devices.iter().find(|iccid| !seen.insert(**iccid)) {
            Some(iccid) => Err(StartError::Repeated(*iccid)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_codes() {
        for (code, state) in (0..).zip(JobState::ALL) {
            assert_eq!((state.code(), JobState::from_code(code)), (code, Some(state)));
        }
        for (code, state) in (0..).zip(DeviceState::ALL) {
            assert_eq!((state.code(), DeviceState::from_code(code)), (code, Some(state)));
            assert_eq!(DeviceState::from_name(state.as_str()), Some(state));
        }
    }

    #[test]
    fn numbers_outside_of_their_limits_are_refused() {
        let iccid: Iccid = "8988280666000000001".parse().unwrap();
        let job = NewJob::new(Digest([0; 32]), vec![iccid]);
        job.check().unwrap();
        let refused = |job: NewJob| match job.check() {
            Err(StartError::OutOfRange { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(NewJob { devices: vec![], ..job.clone() }), "devices");
        assert_eq!(refused(NewJob { parallel_max: 0, ..job.clone() }), "parallelMax");
        assert_eq!(refused(NewJob { stop_percent: Some(100), ..job.clone() }), "stopPercent");
        let patience = Patience { attempts: 11, ..Patience::default() };
        assert_eq!(refused(NewJob { patience, ..job.clone() }), "attempts");
        let twice = NewJob { devices: vec![iccid, iccid], ..job };
        assert!(matches!(twice.check(), Err(StartError::Repeated(_))));
    }
}
