//! The controller: what the API and the gateway call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use state::StateFile;
use vocabulary::{Iccid, Protocol, Timestamp};

use crate::active::{Active, Dispatch, NotEnded};
use crate::error::{CancelError, OpenError, Refused, StoreError, SubmitError};
use crate::listing::{self, Listed, Query};
use crate::queue::{Ending, Job, Queue};
use crate::request::{
    ActionResult, EXPIRES_AFTER, KEPT_FOR, Mode, NewRequest, Outcome, Request, SEND_ATTEMPTS_MAX,
    Status,
};
use crate::request_id::RequestId;
use crate::table::{self, Change, Stored};
use crate::writer::Writer;

/// Requests of one submission, as documented for devices.
pub const DEVICES_MAX: usize = 100;
/// Requests that one tick ends, and those that it deletes: some ten milliseconds of the writer.
const TICK_REQUESTS_MAX: u32 = 2_000;
/// Connections for reading that are kept; more are opened when they are needed.
const IDLE_READERS_MAX: usize = 4;

/// Is handed every action when it is to be sent. It must not block; it may report at once.
pub type Dispatcher = Arc<dyn Fn(Dispatch) + Send + Sync>;

/// How much a controller takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that are active, of all devices. A million take about 350 MB.
    pub active_max: usize,
    /// New requests that wait for the disk: a second's work of a slow one.
    pub queued_max: usize,
    /// Bytes of the file above which new requests are refused. 4 GiB hold some ten million.
    pub file_bytes_max: u64,
}

/// Holds requests to devices and decides when each is handed to a sender. Clones share them.
///
/// One process at a time has them open.
#[derive(Clone)]
pub struct Controller(Arc<Owner>);

/// Ends the writer with the last clone.
struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the controller and its writer share.
pub(crate) struct Shared {
    pub(crate) active: Active,
    pub(crate) queue: Queue,
    pub(crate) limits: Limits,
    dispatcher: Dispatcher,
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { active_max: 1_000_000, queued_max: 10_000, file_bytes_max: 4 << 30 }
    }
}

impl Shared {
    /// Calls the sender, under no lock.
    pub(crate) fn hand_over(&self, dispatch: Option<Dispatch>) {
        if let Some(dispatch) = dispatch {
            (self.dispatcher)(dispatch);
        }
    }

    /// Forgets requests that never came to the disk.
    pub(crate) fn withdraw(&self, requests: &[Stored]) {
        for Stored { place, request } in requests {
            self.hand_over(self.active.remove(request.device, *place, request.created));
        }
    }

    fn read<T>(
        &self,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let lock = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open_with_flags(
                &self.path,
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?,
        };
        let answer = ask(&connection)?;
        let mut readers = lock();
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
        Ok(answer)
    }
}

impl Controller {
    /// Opens the requests in the file at `path`. Nothing is handed over before
    /// [`Controller::resume`], a trigger, or a new request.
    pub fn open(path: &Path, limits: Limits, dispatcher: Dispatcher) -> Result<Self, OpenError> {
        let connection = StateFile::new(path).open(table::MIGRATIONS)?;
        let active = Active::new(table::last_place(&connection)?, limits.active_max);
        table::each_active(&connection, |Stored { place, request }| active.load(place, &request))?;
        let shared = Arc::new(Shared {
            active,
            queue: Queue::default(),
            limits,
            dispatcher,
            path: path.to_owned(),
            readers: Mutex::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), connection);
        let thread = std::thread::Builder::new().name("actions".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;
        Ok(Self(Arc::new(Owner { shared, writer: Mutex::new(Some(writer)) })))
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Hands over what an earlier process was to send at once. Blocks; call it once, when senders
    /// are ready. What had waited too long has failed.
    pub fn resume(&self, now: Timestamp) -> Result<(), StoreError> {
        while self.tick(now)? {}
        let shared = self.shared();
        shared.active.resume(now, |dispatch| shared.hand_over(Some(dispatch)));
        Ok(())
    }

    /// Takes requests, or says of each why not. Blocks; durable when it returns. `is_registered`
    /// tells whether a device is registered by LwM2M.
    pub fn submit(
        &self,
        now: Timestamp,
        requests: Vec<NewRequest>,
        is_registered: &dyn Fn(Iccid) -> bool,
    ) -> Result<Vec<Result<RequestId, Refused>>, SubmitError> {
        if !(1..=DEVICES_MAX).contains(&requests.len()) {
            return Err(SubmitError::Devices { found: requests.len() });
        }
        let ids = requests.iter().map(|_| RequestId::new(now)).collect::<Result<Vec<_>, _>>();
        let ids = ids.map_err(SubmitError::Random)?;
        let mut stored = Vec::new();
        let mut answers = Vec::new();
        for (new, id) in requests.into_iter().zip(ids) {
            let request = first_of(new, id, now);
            let answer = self.reserve(&request, is_registered);
            answers.push(answer.map(|place| {
                stored.push(Stored { place, request });
                id
            }));
        }
        if !stored.is_empty() {
            self.store(stored)?;
        }
        Ok(answers)
    }

    fn reserve(
        &self,
        request: &Request,
        is_registered: &dyn Fn(Iccid) -> bool,
    ) -> Result<u64, Refused> {
        let needs_registration =
            request.mode == Mode::SendNow && request.action.protocol() == Protocol::Lwm2m;
        if needs_registration && !is_registered(request.device) {
            return Err(Refused::NotRegistered(request.device));
        }
        self.shared().active.reserve(request)
    }

    fn store(&self, stored: Vec<Stored>) -> Result<(), StoreError> {
        let shared = self.shared();
        // Kept for the case that the queue refuses them.
        let places: Vec<_> =
            stored.iter().map(|new| (new.request.device, new.place, new.request.created)).collect();
        let answered = shared.queue.insert(stored, shared.limits.queued_max).inspect_err(|_| {
            for (device, place, now) in places {
                shared.hand_over(shared.active.remove(device, place, now));
            }
        })?;
        wait(&answered)
    }

    /// The device has shown that it is awake: hands over everything that waits for it, in order of
    /// creation, one after the other. Costs next to nothing where nothing waits.
    pub fn trigger(&self, device: Iccid, now: Timestamp) {
        let shared = self.shared();
        shared.hand_over(shared.active.trigger(device, now));
    }

    /// The oldest request that waits for the device, if it is a datagram or a CoAP request that may
    /// ride on the answer to an uplink and nothing is in flight. It is reported like any other.
    pub fn take_piggyback(&self, device: Iccid, now: Timestamp) -> Option<Dispatch> {
        self.shared().active.piggyback(device, now)
    }

    /// A sender tells what came of the attempt with this serial number. False where there is none:
    /// it was reported before, or its request was deleted.
    pub fn report(&self, serial: u64, now: Timestamp, outcome: Outcome) -> bool {
        let shared = self.shared();
        let reported = shared.active.report(serial, now, outcome, &shared.queue);
        let is_known = reported.is_some();
        shared.hand_over(reported.flatten());
        is_known
    }

    /// Fails what nothing triggered in time and deletes what is old, a limited number of each.
    /// Blocks; says whether there is more to do. Call it every few seconds.
    pub fn tick(&self, now: Timestamp) -> Result<bool, StoreError> {
        let shared = self.shared();
        // A count of requests is far below 2^52.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        metrics::gauge!("simgate_commands_active").set(shared.active.len() as f64);
        let (before, limit) = (now.saturating_sub(EXPIRES_AFTER), TICK_REQUESTS_MAX);
        let overdue = shared.read(|connection| table::overdue(connection, before, limit))?;
        let hours = EXPIRES_AFTER.as_secs() / 3_600;
        let message = format!("the device showed no activity within {hours} hours");
        let mut ended = 0;
        for (place, device) in &overdue {
            let end = (Status::Failed, Some(ActionResult::error(&message)));
            if let Ok(change) = shared.active.end(*device, *place, end, now) {
                shared.queue.change(change);
                ended += 1;
            }
        }
        let before = now.saturating_sub(KEPT_FOR);
        let deleted = wait(&shared.queue.ask(|answer| Job::Delete(before, limit, answer))?)?;
        Ok(ended == limit as usize || deleted >= limit as usize)
    }

    /// Takes back a request that waits. Blocks; durable when it returns.
    pub fn cancel(&self, id: RequestId, now: Timestamp) -> Result<(), CancelError> {
        let shared = self.shared();
        let found = shared.read(|connection| table::find(connection, id))?;
        let Stored { place, request } = found.ok_or(CancelError::Unknown(id))?;
        let ended = shared.active.end(request.device, place, (Status::Cancelled, None), now);
        let change = match ended {
            Ok(change) => change,
            Err(NotEnded::Status(Status::Scheduled)) => {
                // Another end of it is on its way to the disk.
                let status = Status::Cancelled;
                return Err(CancelError::NotScheduled { id, status });
            }
            Err(NotEnded::Status(status)) => return Err(CancelError::NotScheduled { id, status }),
            Err(NotEnded::Gone) => {
                let found = self.find(id)?.ok_or(CancelError::Unknown(id))?;
                return Err(CancelError::NotScheduled { id, status: found.status });
            }
        };
        Ok(self.store_ends(vec![change])?)
    }

    /// Takes back everything that waits for a device, and says what that was. Blocks; durable when
    /// it returns.
    pub fn cancel_all(&self, device: Iccid, now: Timestamp) -> Result<Vec<RequestId>, StoreError> {
        let shared = self.shared();
        let mut changes = Vec::new();
        let mut ids = Vec::new();
        for place in shared.active.waiting_of(device) {
            let id = shared.active.view(device, place).map(|request| request.id);
            let ended = shared.active.end(device, place, (Status::Cancelled, None), now);
            if let (Some(id), Ok(change)) = (id, ended) {
                ids.push(id);
                changes.push(change);
            }
        }
        if !changes.is_empty() {
            self.store_ends(changes)?;
        }
        Ok(ids)
    }

    fn store_ends(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        // A queue that is closed leaves them as they are: the program ends.
        wait(&self.shared().queue.ask(|answer| Job::End(changes, answer))?)
    }

    /// The request with this id. Blocks.
    pub fn find(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        let shared = self.shared();
        let found = shared.read(|connection| table::find(connection, id))?;
        let Some(Stored { place, request }) = found else { return Ok(None) };
        if !request.status.is_active() {
            return Ok(Some(request));
        }
        match shared.active.view(request.device, place) {
            Some(request) => Ok(Some(request)),
            // It ended in between.
            None => shared.read(|connection| table::at(connection, place)),
        }
    }

    /// A page of requests. Blocks; with a million requests for some tenths of a second.
    pub fn list(&self, query: &Query) -> Result<Listed, StoreError> {
        let shared = self.shared();
        shared.read(|connection| listing::list(&shared.active, connection, query))
    }

    /// Requests that are active.
    pub fn active(&self) -> usize {
        self.shared().active.len()
    }

    /// Waits until everything that was reported is durable. Blocks.
    pub fn flush(&self) -> Result<(), StoreError> {
        wait(&self.shared().queue.ask(Job::Flush)?)
    }

    /// Writes what waits and ends the writer; what comes later is refused. Blocks.
    pub fn close(&self) {
        self.0.end(Ending::InOrder);
    }

    /// Ends as a crash would.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.0.end(Ending::AtOnce);
    }

    /// Lets the file have so many pages and no more.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: i64) {
        let job = |_: crate::queue::Answer| Job::Pragma("max_page_count", pages);
        drop(self.shared().queue.ask(job));
    }
}

impl Owner {
    fn end(&self, ending: Ending) {
        self.shared.queue.end(ending);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        // A sender may drop the last clone on the writer's own thread, which then ends by itself.
        if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
            tracing::error!("the writer of requests had panicked");
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end(Ending::InOrder);
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Controller").field("active", &self.active()).finish_non_exhaustive()
    }
}

/// A writer that is gone answers nobody.
fn wait<T>(answered: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    answered.recv().unwrap_or(Err(StoreError::Closed))
}

/// A request as it begins.
fn first_of(new: NewRequest, id: RequestId, now: Timestamp) -> Request {
    let NewRequest { device, action, mode, send_attempts, imsi, ip } = new;
    let send_attempts = send_attempts.clamp(1, SEND_ATTEMPTS_MAX);
    Request {
        id,
        device,
        action: Arc::new(action),
        mode,
        status: Status::Scheduled,
        created: now,
        updated: now,
        send_attempts,
        send_attempts_left: send_attempts,
        imsi,
        ip,
        result: None,
    }
}
