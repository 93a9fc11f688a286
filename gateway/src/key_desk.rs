//! Where devices get their keys: one thread that asks the key store for all who wait at once.

use std::io;
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

struct Waiting {
    iccid: Iccid,
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
    pub(crate) fn ask(&self, iccid: Iccid) -> Result<Handed, Shed> {
        let (answer, handed) = oneshot::channel();
        self.queue.try_send(Waiting { iccid, answer }).map_err(|error| match error {
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
        let devices: Vec<Iccid> = batch.iter().map(|waiting| waiting.iccid).collect();
        let found = keys.bootstrap(&devices, Timestamp::from(SystemTime::now()));
        if let Err(error) = &found
            && !failing
        {
            error!(%error, "devices get no keys");
        }
        failing = found.is_err();
        answer(batch, found);
    }
}

fn answer(batch: Vec<Waiting>, found: Result<Vec<Option<StoredKey>>, StoreError>) {
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
    for (Waiting { iccid, answer }, key) in batch.into_iter().zip(keys) {
        if key.is_none() {
            error!(?iccid, "the stored key of a device does not open: set it anew");
        }
        let told = key.map(|key| (iccid, Zeroizing::new(key.secret.text().to_owned())));
        let _ = answer.send(told.ok_or(Shed::StoreFailed));
    }
}
