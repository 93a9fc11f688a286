//! SIGTERM and SIGINT, which end the program, and SIGXFSZ, which does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The wish that the program ends: SIGTERM or SIGINT.
pub(crate) struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// Listens from now on: a signal that comes before somebody waits for it is not lost, and does
    /// not end the program unasked. Must be called in a runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
        Ok(Self { terminate, interrupt })
    }

    /// Resolves at the first of the two.
    pub(crate) async fn arrived(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets a write beyond the limit on file sizes (`ulimit -f`) fail instead of ending the program:
/// the message log takes that for a full disk. Must be called in a runtime.
pub(crate) fn survive_file_size_limit() -> anyhow::Result<()> {
    // Once listened to, the signal has no other effect, also after the listener is dropped.
    let listened = signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32));
    listened.map(drop).context("SIGXFSZ cannot be caught")
}

/// A flag that turns true at the first SIGTERM or SIGINT, for work that has no runtime.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut termination = runtime.block_on(async { Termination::listen() })?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(termination.arrived());
        raised.store(true, Ordering::Relaxed);
    })?;
    Ok(flag)
}
