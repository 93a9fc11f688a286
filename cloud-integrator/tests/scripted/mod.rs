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
        // Not every kind of cloud gets the id in a header; every one gets it in the body.
        let id = request.header("webhook-id").map_or_else(|| id_of(request.body), str::to_owned);
        ledger.note(&id, request.body, taken);
        answer
    });
    format!("http://{}/", receiver::serve(script).await)
}

fn id_of(body: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(body).unwrap();
    event["id"].as_str().unwrap().to_owned()
}
