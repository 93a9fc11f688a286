//! Where LwM2M registrations become durable: one thread that writes all that wait at once.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use device_integrator::{Receipt, Shed};
use registration_store::{Change, RegistrationStore};
use tokio::sync::oneshot;
use tracing::{error, info};
use vocabulary::Iccid;

use crate::ingest::unavailable;

/// Batches of the sockets that may wait. A socket that reads 32 datagrams at a time fills a batch
/// with as many: the queue holds a fleet of 130,000 devices that registers at once.
const WAITING_MAX: usize = 4_096;
/// After this a write that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Batches of one transaction: about 8,000 registrations, 50 ms.
const BATCHES: usize = 256;

/// Takes what has changed. The thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct RegistrationDesk {
    queue: SyncSender<Batch>,
}

struct Batch {
    changes: Vec<Change>,
    /// Who waits; what nobody waits for is written later where it cannot be written now.
    done: Option<oneshot::Sender<Receipt>>,
}

/// Resolves to what became of a batch.
pub(crate) struct Registering(Result<oneshot::Receiver<Receipt>, Shed>);

impl RegistrationDesk {
    /// Starts the thread.
    pub(crate) fn open(store: RegistrationStore) -> io::Result<Self> {
        let (queue, batches) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("registrations".to_owned());
        thread.spawn(move || serve(store, &batches))?;
        Ok(Self { queue })
    }

    /// Writes what nobody waits for, sooner or later. Never blocks.
    pub(crate) fn note(&self, changes: Vec<Change>) {
        // What does not fit the queue is repeated by the next update of the device.
        let _ = self.queue.try_send(Batch { changes, done: None });
    }

    /// Writes what has changed. Never blocks.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Registering {
        let (done, written) = oneshot::channel();
        let queued = self.queue.try_send(Batch { changes, done: Some(done) });
        Registering(queued.map(|()| written).map_err(|error| match error {
            TrySendError::Full(_) => Shed::QueueFull,
            TrySendError::Disconnected(_) => Shed::StoreFailed,
        }))
    }
}

fn serve(mut store: RegistrationStore, queue: &Receiver<Batch>) {
    let mut is_failing = false;
    // What nobody waits for, while the disk takes nothing; the newest of each device.
    let mut kept: HashMap<Iccid, Change> = HashMap::new();
    loop {
        let first = match queue.recv_timeout(RETRY_INTERVAL) {
            Ok(batch) => Some(batch),
            Err(RecvTimeoutError::Timeout) if kept.is_empty() => continue,
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let batches: Vec<Batch> = first.into_iter().chain(queue.try_iter().take(BATCHES)).collect();
        let changes = batches.iter().flat_map(|batch| &batch.changes);
        let written = store.write(kept.values().chain(changes));
        match (&written, is_failing) {
            (Err(error), false) => error!(%error, "devices cannot register"),
            (Ok(()), true) => info!("devices can register again"),
            _ => {}
        }
        is_failing = written.is_err();
        keep(&mut kept, &batches, is_failing);
        let receipt = match written {
            Ok(()) => Receipt::Stored,
            Err(error) if error.is_full_disk() => unavailable(Shed::NoSpace),
            Err(_) => unavailable(Shed::StoreFailed),
        };
        for batch in batches {
            // A listener that stopped waits no more.
            let _ = batch.done.map(|done| done.send(receipt.clone()));
        }
    }
}

/// Remembers what nobody waits for until it is written.
fn keep(kept: &mut HashMap<Iccid, Change>, batches: &[Batch], is_failing: bool) {
    if !is_failing {
        kept.clear();
        return;
    }
    for batch in batches.iter().filter(|batch| batch.done.is_none()) {
        kept.extend(batch.changes.iter().map(|change| (change.iccid, change.clone())));
    }
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
