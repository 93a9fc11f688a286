//! Where LwM2M registrations become durable: one thread that writes all that wait at once.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use device_integrator::{Receipt, Shed};
use registration_store::{Change, RegistrationStore};
use tokio::sync::oneshot;
use tracing::{error, info};
use vocabulary::Iccid;

use crate::ingest::unavailable;

/// Batches of the sockets that may wait. A socket that reads 32 datagrams at a time fills a batch
/// with as many: the queue holds a fleet of 130,000 devices that registers at once.
const WAITING_MAX: usize = 4_096;
/// How long what nobody waits for may lie, and after which a write that failed is tried again. A
/// second, because 5 s are promised and the disk needs its time.
const NOTES_INTERVAL: Duration = Duration::from_secs(1);
/// Batches of one transaction: about 8,000 registrations, 50 ms.
const BATCHES: usize = 256;

/// The newest of each device that nobody waits for: as many as there are registrations.
type Notes = Mutex<HashMap<Iccid, Change>>;

/// Takes what has changed. The thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct RegistrationDesk {
    queue: SyncSender<Batch>,
    notes: Arc<Notes>,
}

struct Batch {
    changes: Vec<Change>,
    done: oneshot::Sender<Receipt>,
}

/// Resolves to what became of a batch.
pub(crate) struct Registering(Result<oneshot::Receiver<Receipt>, Shed>);

impl RegistrationDesk {
    /// Starts the thread.
    pub(crate) fn open(store: RegistrationStore) -> io::Result<Self> {
        let (queue, batches) = sync_channel(WAITING_MAX);
        let notes = Arc::new(Notes::default());
        let shared = Arc::clone(&notes);
        let thread = std::thread::Builder::new().name("registrations".to_owned());
        thread.spawn(move || serve(store, &batches, &shared))?;
        Ok(Self { queue, notes })
    }

    /// Writes what nobody waits for, within seconds. Never blocks.
    pub(crate) fn note(&self, changes: Vec<Change>) {
        lock(&self.notes).extend(changes.into_iter().map(|change| (change.iccid, change)));
    }

    /// Writes what has changed, and before it what was noted. Never blocks.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Registering {
        let (done, written) = oneshot::channel();
        let queued = self.queue.try_send(Batch { changes, done });
        Registering(queued.map(|()| written).map_err(|error| match error {
            TrySendError::Full(_) => Shed::QueueFull,
            TrySendError::Disconnected(_) => Shed::StoreFailed,
        }))
    }
}

fn serve(mut store: RegistrationStore, queue: &Receiver<Batch>, shared: &Notes) {
    let mut is_failing = false;
    let mut notes_due = Instant::now();
    loop {
        let patience = notes_due.saturating_duration_since(Instant::now());
        let first = match queue.recv_timeout(patience) {
            Ok(batch) => Some(batch),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let batches: Vec<Batch> = first.into_iter().chain(queue.try_iter().take(BATCHES)).collect();
        let notes = std::mem::take(&mut *lock(shared));
        notes_due = Instant::now() + NOTES_INTERVAL;
        if batches.is_empty() && notes.is_empty() {
            continue;
        }
        let changes = batches.iter().flat_map(|batch| &batch.changes);
        let written = store.write(notes.values().chain(changes));
        match (&written, is_failing) {
            (Err(error), false) => error!(%error, "devices cannot register"),
            (Ok(()), true) => info!("devices can register again"),
            _ => {}
        }
        is_failing = written.is_err();
        if is_failing {
            put_back(shared, notes);
        }
        let receipt = match written {
            Ok(()) => Receipt::Stored,
            Err(error) if error.is_full_disk() => unavailable(Shed::NoSpace),
            Err(_) => unavailable(Shed::StoreFailed),
        };
        for batch in batches {
            // A listener that stopped waits no more.
            let _ = batch.done.send(receipt.clone());
        }
    }
}

/// Keeps what could not be written, unless there is something newer of the device.
fn put_back(shared: &Notes, notes: HashMap<Iccid, Change>) {
    let mut newer = lock(shared);
    for (device, change) in notes {
        newer.entry(device).or_insert(change);
    }
}

fn lock(notes: &Notes) -> MutexGuard<'_, HashMap<Iccid, Change>> {
    // Whole entries come and go: a panic of another holder does no harm.
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Future for Registering {
    type Output = Receipt;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Receipt> {
        match &mut self.0 {
            Err(reason) => Poll::Ready(unavailable(*reason)),
            Ok(written) => {
                let told = Pin::new(written).poll(context);
                told.map(|told| told.unwrap_or_else(|_| unavailable(Shed::StoreFailed)))
            }
        }
    }
}
