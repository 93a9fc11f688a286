//! Where devices get their keys: one thread that asks the key store for all who wait at once.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;

use device_integrator::Shed;
use key_store::{Keys, StoreError, StoredKey};
use tokio::sync::oneshot;
use tracing::error;
use vocabulary::{Iccid, Timestamp};
use zeroize::Zeroizing;

/// Devices that may wait: a large fleet that wakes up together. With 1,000 keys per transaction
/// the last of them waits well below the 2 s after which a device asks again (RFC 7252 §4.8).
const WAITING_MAX: usize = 4_096;
/// Devices of one transaction.
const BATCH: usize = 1_024;

/// What a device gets, or why it gets nothing.
pub(crate) type Handed = oneshot::Receiver<Result<(Iccid, Zeroizing<String>), Shed>>;

/// Which key a device asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That of CoAP, as it is, or a new one where it is time.
    Coap,
    /// A new one for the LwM2M server.
    Lwm2mServer,
}

struct Waiting {
    iccid: Iccid,
    wanted: Wanted,
    answer: oneshot::Sender<Result<(Iccid, Zeroizing<String>), Shed>>,
}

/// Takes the requests of devices. The thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct KeyDesk {
    queue: SyncSender<Waiting>,
}

impl KeyDesk {
    /// Starts the thread.
    pub(crate) fn open(keys: Keys) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("keys".to_owned());
        thread.spawn(move || serve(&keys, &waiting))?;
        Ok(Self { queue })
    }

    /// Asks for the key of a device. Never blocks.
    pub(crate) fn ask(&self, iccid: Iccid, wanted: Wanted) -> Result<Handed, Shed> {
        let (answer, handed) = oneshot::channel();
        self.queue.try_send(Waiting { iccid, wanted, answer }).map_err(|error| match error {
            TrySendError::Full(_) => Shed::QueueFull,
            TrySendError::Disconnected(_) => Shed::StoreFailed,
        })?;
        Ok(handed)
    }
}

fn serve(keys: &Keys, waiting: &Receiver<Waiting>) {
    let mut failing = false;
    while let Ok(first) = waiting.recv() {
        let batch: Vec<Waiting> =
            std::iter::once(first).chain(waiting.try_iter().take(BATCH - 1)).collect();
        let (coap, lwm2m) =
            batch.into_iter().partition::<Vec<_>, _>(|waiting| waiting.wanted == Wanted::Coap);
        let found = [hand_out(keys, coap), renew(keys, lwm2m)];
        if let Some(error) = found.iter().find_map(|found| found.as_ref().err())
            && !failing
        {
            error!(%error, "devices get no keys");
        }
        failing = found.iter().any(Result::is_err);
    }
}

fn hand_out(keys: &Keys, batch: Vec<Waiting>) -> Result<(), Arc<StoreError>> {
    serve_batch(batch, |devices, now| keys.bootstrap(devices, now))
}

fn renew(keys: &Keys, batch: Vec<Waiting>) -> Result<(), Arc<StoreError>> {
    serve_batch(batch, |devices, now| {
        let renewed = keys.renew_server_keys(devices, now)?;
        Ok(renewed.into_iter().map(Some).collect())
    })
}

/// Asks the store for the keys of a batch, and answers it.
fn serve_batch(
    batch: Vec<Waiting>,
    ask: impl FnOnce(&[Iccid], Timestamp) -> Result<Vec<Option<StoredKey>>, StoreError>,
) -> Result<(), Arc<StoreError>> {
    if batch.is_empty() {
        return Ok(());
    }
    let devices: Vec<Iccid> = batch.iter().map(|waiting| waiting.iccid).collect();
    let found = ask(&devices, Timestamp::from(SystemTime::now())).map_err(Arc::new);
    let told = found.as_ref().map(|_| ()).map_err(Arc::clone);
    answer(batch, found);
    told
}

fn answer(batch: Vec<Waiting>, found: Result<Vec<Option<StoredKey>>, Arc<StoreError>>) {
    let keys = match found {
        Ok(keys) => keys,
        Err(error) => {
            let reason = if error.is_full_disk() { Shed::NoSpace } else { Shed::StoreFailed };
            for waiting in batch {
                // A listener that stopped waits no more.
                let _ = waiting.answer.send(Err(reason));
            }
            return;
        }
    };
    for (Waiting { iccid, answer, .. }, key) in batch.into_iter().zip(keys) {
        if key.is_none() {
            error!(?iccid, "the stored key of a device does not open: set it anew");
        }
        let told = key.map(|key| (iccid, Zeroizing::new(key.secret.text().to_owned())));
        let _ = answer.send(told.ok_or(Shed::StoreFailed));
    }
}
