//! SIGTERM and SIGINT, which end the program, and SIGXFSZ, which does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT.
pub(crate) async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Lets a write beyond the limit on file sizes (`ulimit -f`) fail instead of ending the program:
/// the message log takes that for a full disk. Must be called in a runtime.
pub(crate) fn survive_file_size_limit() -> anyhow::Result<()> {
    // Once listened to, the signal has no other effect, also after the listener is dropped.
    let listened = signal(SignalKind::from_raw(Signal::SIGXFSZ as i32));
    listened.map(drop).context("SIGXFSZ cannot be caught")
}

/// A flag that turns true at the first SIGTERM or SIGINT, for work that has no runtime.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if runtime.block_on(terminated()).is_ok() {
            raised.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(flag)
}
