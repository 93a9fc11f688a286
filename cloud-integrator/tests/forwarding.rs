//! What a forwarder does, driven by scripted sinks: for outcomes that a real cloud seldom has.
//!
//! What it must do together with each kind of sink stands in `tests/suite`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod receiver;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloud_integrator::{
    Delivery, EventTypes, Failure, FailureClass, Forwarder, Outcome, Sink, Store, Subscription,
};
use vocabulary::{Notice, NoticeCategory, NoticeKind};
use world::{Entry, Ledger, PATIENCE, World, base64_of, everything, hasty, interleaved, until};

type Decide = dyn Fn(&Delivery, usize) -> Outcome + Send + Sync;

/// A sink that does as the test says: `decide` sees the delivery and how many came before.
#[derive(Clone)]
struct Scripted {
    ledger: Ledger,
    decide: Arc<Decide>,
    count: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(decide: impl Fn(&Delivery, usize) -> Outcome + Send + Sync + 'static) -> Self {
        Self { ledger: Ledger::default(), decide: Arc::new(decide), count: Arc::default() }
    }
}

impl Sink for Scripted {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let [delivery] = <[Delivery; 1]>::try_from(events).unwrap();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        // Attempts overlap and end in another order than they began.
        tokio::time::sleep(Duration::from_millis(number as u64 * 7 % 5)).await;
        let outcome = (self.decide)(&delivery, number);
        let taken = outcome == Outcome::Delivered;
        self.ledger.note(&delivery.id.to_string(), &delivery.body, taken);
        outcome
    }
}

fn retry() -> Outcome {
    let reason = Failure::new(FailureClass::Status, "not now");
    Outcome::Retry { reason, after: None }
}

fn start(world: &World, store: &Store, id: &str, sink: impl Sink) -> Forwarder {
    Forwarder::start(world.source.clone(), store.bookmark(id), everything(), sink, hasty())
}

#[tokio::test]
async fn every_message_arrives_in_its_devices_order_although_half_of_the_attempts_fail() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink =
        Scripted::new(|_, number| if number % 2 == 0 { retry() } else { Outcome::Delivered });
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(7, 20)).await;
    until("all messages", || sink.ledger.taken_once().len() == 140).await;
    forwarder.stop(PATIENCE).await;
    sink.ledger.assert_complete_and_in_order(7, 20);
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

#[tokio::test]
async fn a_message_that_is_stuck_makes_nothing_come_twice_after_a_restart() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let poison = vocabulary::Iccid::from_u64(2);
    let sink =
        Scripted::new(
            move |delivery, _| {
                if delivery.subject.iccid == poison { retry() } else { Outcome::Delivered }
            },
        );
    world.send(&interleaved(4, 12)).await;
    let forwarder = start(&world, &store, &id, sink.clone());
    until("the other devices", || sink.ledger.taken_once().len() == 36).await;
    forwarder.stop(PATIENCE).await;
    let mended = Scripted::new(|_, _| Outcome::Delivered);
    let forwarder = start(&world, &store, &id, mended.clone());
    world.send(&[(9, 0)]).await;
    until("the stuck device", || mended.ledger.taken_once().len() == 13).await;
    forwarder.stop(PATIENCE).await;
    let attempts = mended.ledger.attempts();
    assert_eq!(attempts.len(), 13, "{attempts:?}");
    let stuck: Vec<String> = attempts
        .into_iter()
        .filter(|entry| entry.device.ends_with('2'))
        .map(|entry| entry.value)
        .collect();
    assert_eq!(stuck, (0..12).map(base64_of).collect::<Vec<_>>());
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

#[tokio::test]
async fn a_failing_device_holds_up_no_other() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let poison = vocabulary::Iccid::from_u64(3);
    let sink =
        Scripted::new(
            move |delivery, _| {
                if delivery.subject.iccid == poison { retry() } else { Outcome::Delivered }
            },
        );
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(5, 10)).await;
    until("the other devices", || sink.ledger.taken_once().len() == 40).await;
    forwarder.stop(Duration::ZERO).await;
    let failed: Vec<Entry> =
        sink.ledger.attempts().into_iter().filter(|entry| !entry.taken).collect();
    assert!(failed.iter().all(|entry| entry.value == base64_of(0)), "only the head is tried");
    let cursor = store.bookmark(&id).cursor().unwrap().unwrap();
    assert!(cursor <= 2, "the cursor is not past what was not delivered: {cursor}");
}

/// A device that failed for an hour filled the window with its own queue; after that nothing was
/// read any more, and all devices of the integration waited for it.
#[tokio::test]
async fn a_failing_device_with_a_long_queue_holds_up_no_other() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let poison = vocabulary::Iccid::from_u64(3);
    let is_mended = Arc::new(AtomicUsize::new(0));
    let mended = Arc::clone(&is_mended);
    let sink = Scripted::new(move |delivery, _| {
        let fails = delivery.subject.iccid == poison && mended.load(Ordering::Relaxed) == 0;
        if fails { retry() } else { Outcome::Delivered }
    });
    let forwarder = start(&world, &store, &id, sink.clone());
    // Twice what the window holds.
    world.send(&(0..128).map(|byte| (3, byte)).collect::<Vec<_>>()).await;
    world.send(&[(4, 0), (5, 0)]).await;
    until("the other devices", || sink.ledger.taken_once().len() == 2).await;
    forwarder.stop(PATIENCE).await;
    // What was deferred is known after a restart, and comes once and in order.
    is_mended.store(1, Ordering::Relaxed);
    let forwarder = start(&world, &store, &id, sink.clone());
    until("the long queue", || sink.ledger.taken_once().len() == 130).await;
    forwarder.stop(PATIENCE).await;
    let taken: Vec<Entry> =
        sink.ledger.attempts().into_iter().filter(|entry| entry.taken).collect();
    let values: Vec<String> =
        taken.iter().filter(|at| at.device.ends_with('3')).map(|at| at.value.clone()).collect();
    assert_eq!(values, (0..128).map(base64_of).collect::<Vec<_>>());
    assert_eq!(taken.len(), 130, "nothing came twice");
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

/// A panic ended the task of a forwarder for good: its integration got nothing more until the
/// gateway was started again.
#[tokio::test]
async fn a_forwarder_that_panics_is_started_again_and_loses_nothing() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink = Scripted::new(|_, number| {
        assert_ne!(number, 7, "a fault of ours");
        Outcome::Delivered
    });
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(3, 10)).await;
    until("all messages", || sink.ledger.taken_once().len() == 30).await;
    forwarder.stop(PATIENCE).await;
    sink.ledger.assert_complete_and_in_order(3, 10);
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

#[tokio::test]
async fn a_forwarder_can_be_stopped_while_it_waits_after_a_panic() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink = Scripted::new(|_, _| panic!("a fault of ours"));
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&[(1, 1)]).await;
    until("the panic", || sink.count.load(Ordering::Relaxed) > 0).await;
    let start = Instant::now();
    forwarder.stop(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(sink.count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_rejected_is_not_tried_again_and_holds_nothing_up() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink = Scripted::new(|delivery, _| {
        let text = String::from_utf8_lossy(&delivery.body).into_owned();
        if text.contains(&base64_of(1)) {
            let reason = Failure::new(FailureClass::Request, "never");
            return Outcome::Rejected { reason };
        }
        Outcome::Delivered
    });
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(2, 3)).await;
    until("the rest", || sink.ledger.taken_once().len() == 4).await;
    forwarder.stop(PATIENCE).await;
    assert_eq!(sink.ledger.attempts().len(), 6);
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

#[tokio::test]
async fn after_a_crash_nothing_is_missing_and_duplicates_carry_the_same_id() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink =
        Scripted::new(|_, number| if number % 5 == 0 { retry() } else { Outcome::Delivered });
    world.send(&interleaved(4, 100)).await;
    for reached in [37, 90, 200] {
        let forwarder = start(&world, &store, &id, sink.clone());
        until("some messages", || sink.ledger.taken_once().len() >= reached).await;
        // Dropped without stop: attempts are cut off and the cursor is not saved.
        drop(forwarder);
    }
    let forwarder = start(&world, &store, &id, sink.clone());
    until("all messages", || sink.ledger.taken_once().len() == 400).await;
    forwarder.stop(PATIENCE).await;
    sink.ledger.assert_complete_and_in_order(4, 100);
    let taken = sink.ledger.attempts().iter().filter(|entry| entry.taken).count();
    println!("{} duplicates", taken - 400);
}

#[tokio::test]
async fn a_clean_stop_repeats_nothing() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink = Scripted::new(|_, _| Outcome::Delivered);
    world.send(&interleaved(4, 50)).await;
    for reached in [20, 60, 120, 200] {
        let forwarder = start(&world, &store, &id, sink.clone());
        until("some messages", || sink.ledger.attempts().len() >= reached).await;
        forwarder.stop(PATIENCE).await;
    }
    sink.ledger.assert_complete_and_in_order(4, 50);
    assert_eq!(sink.ledger.attempts().len(), 200);
}

#[tokio::test]
async fn a_dead_endpoint_is_not_hammered_and_gets_everything_when_it_is_back() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let back_at = Instant::now() + Duration::from_millis(600);
    let sink = Scripted::new(
        move |_, _| {
            if Instant::now() < back_at { retry() } else { Outcome::Delivered }
        },
    );
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(50, 2)).await;
    until("all messages", || sink.ledger.taken_once().len() == 100).await;
    forwarder.stop(PATIENCE).await;
    sink.ledger.assert_complete_and_in_order(50, 2);
    let failed = sink.ledger.attempts().iter().filter(|entry| !entry.taken).count();
    // Up to 10 and 8 in flight close the gate; then a probe each 40 ms of 600.
    assert!(failed <= 45, "{failed} failed attempts");
}

#[tokio::test]
async fn only_what_is_subscribed_is_pushed_and_an_integration_hears_nothing_about_itself() {
    let world = World::new();
    let (store, id) = world.bare_integration().await;
    let sink = Scripted::new(|_, _| Outcome::Delivered);
    let errors = EventTypes::parse([("ERROR", None)]).unwrap();
    let subscription = Subscription { event_types: errors, json_payload_enabled: false };
    let bookmark = store.bookmark(&id);
    let forwarder =
        Forwarder::start(world.source.clone(), bookmark, subscription, sink.clone(), hasty());
    world.send(&interleaved(3, 3)).await;
    let mut own = Notice::new(NoticeCategory::Error, NoticeKind::Integration, "X[Own]");
    own.integration = Some(id.clone());
    world.notice(&own).await;
    world.notice(&Notice::new(NoticeCategory::Info, NoticeKind::Lifecycle, "X[Info]")).await;
    world.notice(&Notice::new(NoticeCategory::Error, NoticeKind::General, "X[Other]")).await;
    until("the error", || !sink.ledger.attempts().is_empty()).await;
    forwarder.stop(PATIENCE).await;
    assert_eq!(sink.ledger.attempts().len(), 1);
}

#[tokio::test]
async fn a_reader_that_retention_overtook_says_so_and_goes_on_with_the_oldest() {
    let world = World::with(message_log::Options {
        segment_records: 10,
        retention: Duration::from_millis(1),
        check_interval: Duration::from_millis(10),
        ..message_log::Options::default()
    });
    let (store, id) = world.bare_integration().await;
    for byte in 0..50 {
        world.send(&[(1, byte)]).await;
    }
    until("retention", || world.log.oldest() > message_log::Offset::BEGINNING).await;
    let sink = Scripted::new(|_, _| Outcome::Delivered);
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&[(2, 77)]).await;
    until("what is kept", || {
        sink.ledger.taken_once().iter().any(|entry| entry.value == base64_of(77))
    })
    .await;
    // The notice is an event of its own, about the integration, for others to hear.
    let rare = message_log::KindSet::rare();
    let limits = message_log::ReadLimits::default();
    until("the notice", || {
        let batch = world.log.read_kinds(world.log.oldest(), rare, limits).unwrap();
        batch.records.iter().any(|record| {
            let notice = Notice::decode(&record.body).unwrap();
            notice.message == "CloudIntegrator[MessagesExpired]"
                && notice.integration.as_deref() == Some(id.as_str())
        })
    })
    .await;
    forwarder.stop(PATIENCE).await;
}
