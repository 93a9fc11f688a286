//! Customers' servers whose answers a test decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::receiver::{self, Answer, OK, Received};
use crate::world::Ledger;

/// Status line, headers and body of the test's own.
pub(crate) fn raw(text: &'static str) -> Answer {
    Answer { text, ..OK }
}

/// Starts a receiver whose answers `answer` decides by the number of the request.
pub(crate) async fn scripted_receiver(
    ledger: &Ledger,
    answer: impl Fn(&Received<'_>, usize) -> Answer + Send + Sync + 'static,
) -> String {
    let (ledger, count) = (ledger.clone(), AtomicUsize::new(0));
    let script: receiver::Script = Arc::new(move |request: &Received<'_>| {
        let answer = answer(request, count.fetch_add(1, Ordering::Relaxed));
        let taken = answer == OK;
        ledger.note(request.header("webhook-id").unwrap(), request.body, taken);
        answer
    });
    format!("http://{}/", receiver::serve(script).await)
}
