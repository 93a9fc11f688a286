//! Where the DTLS sessions of all listeners are kept: one thread that writes them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::Duration;

use session_store::{Change, SessionStore};
use tokio::sync::oneshot;
use tracing::{error, info};

/// After this a write that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Takes what has changed. The thread ends with the last clone.
///
/// The queue needs no limit: each socket waits for its last batch before it sends the next.
#[derive(Clone)]
pub(crate) struct SessionDesk {
    queue: Sender<Batch>,
}

struct Batch {
    listener: SocketAddr,
    changes: Vec<Change>,
    done: oneshot::Sender<()>,
}

/// Resolves when a batch is durable; never where the thread is gone: what is not durable must not
/// count as saved.
pub(crate) struct Saving(oneshot::Receiver<()>);

impl SessionDesk {
    /// Starts the thread.
    pub(crate) fn open(store: SessionStore) -> io::Result<Self> {
        let (queue, batches) = channel();
        let thread = std::thread::Builder::new().name("sessions".to_owned());
        thread.spawn(move || serve(store, &batches))?;
        Ok(Self { queue })
    }

    /// Writes what has changed. Never blocks.
    pub(crate) fn save(&self, listener: SocketAddr, changes: Vec<dtls::Change>) -> Saving {
        let (done, saving) = oneshot::channel();
        let changes = changes.into_iter().map(|change| match change {
            dtls::Change::Saved { session, bytes } => {
                Change { id: session.as_u64(), session: Some(bytes) }
            }
            dtls::Change::Gone { session } => Change { id: session.as_u64(), session: None },
        });
        // The thread lives as long as this does.
        let _ = self.queue.send(Batch { listener, changes: changes.collect(), done });
        Saving(saving)
    }
}

fn serve(mut store: SessionStore, batches: &Receiver<Batch>) {
    for Batch { listener, changes, done } in batches {
        let mut is_failing = false;
        while let Err(error) = store.write(listener, &changes) {
            if !is_failing {
                error!(%error, "dtls sessions are not saved: after a crash devices make new ones");
            }
            is_failing = true;
            std::thread::sleep(RETRY_INTERVAL);
        }
        if is_failing {
            info!("dtls sessions are saved again");
        }
        // A listener that stopped waits no more.
        let _ = done.send(());
    }
}

impl Future for Saving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}
