//! When a protocol core wants to be woken, on the timer of its listener.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::Sleep;

/// Sets `timer` to `wake`, where that is another time than before: to set it costs more than to
/// look. Where nothing is to be woken it stays as it is, and the listener does not listen to it.
pub(crate) fn set(timer: Pin<&mut Sleep>, wake: Option<Instant>) {
    let wake = wake.map(tokio::time::Instant::from_std);
    if let Some(wake) = wake.filter(|wake| *wake != timer.deadline()) {
        timer.reset(wake);
    }
}
