//! Why something was not done.

use thiserror::Error;
use vocabulary::Iccid;

use crate::active::WAITING_MAX;
use crate::controller::DEVICES_MAX;
use crate::request::Status;
use crate::request_id::RequestId;

/// Why the controller does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file does not open.
    #[error(transparent)]
    State(#[from] state::OpenError),
    /// The file cannot be read.
    #[error("file of requests: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The system gives no thread.
    #[error("no thread for requests: {0}")]
    Thread(std::io::Error),
}

/// Why one request was not taken, which is the customer's fault or ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The device has as many as it may have.
    #[error("{WAITING_MAX} requests wait for the device, allowed: {WAITING_MAX}")]
    TooManyScheduled,
    /// It is to be sent now over a registration that is not there.
    #[error("device {0} is not registered by LwM2M")]
    NotRegistered(Iccid),
    /// All devices together have as many as they may have.
    #[error("{limit} requests are active, allowed: {limit}")]
    Full {
        /// The limit.
        limit: usize,
    },
}

/// Why nothing of a submission was taken.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// Too many at once.
    #[error("{found} devices, allowed: 1 to {DEVICES_MAX}")]
    Devices {
        /// How many there were.
        found: usize,
    },
    /// The system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a request was not cancelled.
#[derive(Debug, Error)]
pub enum CancelError {
    /// There is none.
    #[error("request {0} does not exist")]
    Unknown(RequestId),
    /// It does not wait any more.
    #[error("request {id} is {}, allowed: SCHEDULED", status.as_str())]
    NotScheduled {
        /// The request.
        id: RequestId,
        /// What it is.
        status: Status,
    },
    /// It could not be stored, and the request waits as before.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Requests could not be written or read: our fault or the disk's.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full, or the file is as long as it may be. That can heal by itself.
    #[error("file of requests: no space")]
    NoSpace,
    /// Too much waits for the disk.
    #[error("file of requests: {limit} requests wait for the disk, allowed: {limit}")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The disk failed; the log says why.
    #[error("file of requests: the disk failed")]
    Failed,
    /// The controller was closed.
    #[error("file of requests: closed")]
    Closed,
    /// It cannot be read.
    #[error("file of requests: {0}")]
    Read(#[from] rusqlite::Error),
}

impl StoreError {
    /// Whether trying again soon can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoSpace | Self::Busy { .. })
    }
}
