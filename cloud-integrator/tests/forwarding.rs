//! What a forwarder does, driven by scripted sinks: for outcomes that a real cloud seldom has.
//!
//! What it must do together with each kind of sink stands in `tests/suite`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::bare::{bare_integration, everything};
use crate::world::{Entry, Ledger, PATIENCE, World, base64_of, hasty, interleaved, until};
use cloud_integrator::{
    BatchOptions, DeadLetterEntry, DeadLetterFilter, Delivery, EventTypes, Failure, FailureClass,
    Forwarder, ForwarderSettings, IntegrationState, Order, Outcome, RetryPolicy, Sink, Store,
    Subscription,
};
use vocabulary::{Notice, NoticeCategory, NoticeKind};

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
    start_by(world, store, id, sink, hasty())
}

fn start_by(
    world: &World,
    store: &Store,
    id: &str,
    sink: impl Sink,
    settings: ForwarderSettings,
) -> Forwarder {
    Forwarder::start(world.source.clone(), store.bookmark(id), everything(), sink, settings)
}

#[tokio::test]
async fn every_message_arrives_in_its_devices_order_although_half_of_the_attempts_fail() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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

/// Each device that failed held its whole share of the window. A few dozen of them filled it, and
/// nothing was read any more: all devices of the integration waited for hours, and where the
/// failures looked like an outage, for good.
#[tokio::test]
async fn many_failing_devices_hold_up_no_other() {
    // A few with long queues, and more than the window has records.
    for (devices, messages) in [(9, 8), (70, 1), (150, 2)] {
        for class in [FailureClass::Refused, FailureClass::Status] {
            let world = World::new();
            let (store, id) = bare_integration(&world).await;
            let is_mended = Arc::new(AtomicUsize::new(0));
            let mended = Arc::clone(&is_mended);
            let sink = Scripted::new(move |delivery, _| {
                let device = delivery.subject.iccid.map_or(0, |iccid| iccid.as_u64());
                let fails = device < 1_000 && mended.load(Ordering::Relaxed) == 0;
                let reason = Failure::new(class, "no");
                if fails { Outcome::Retry { reason, after: None } } else { Outcome::Delivered }
            });
            // Of each device an event is probed while the endpoint seems down.
            let mut settings = hasty();
            let gate = settings.retry.gate.as_mut().unwrap();
            (gate.pause_min, gate.pause_max) = (Duration::from_millis(1), Duration::from_millis(4));
            let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
            world.send(&interleaved(devices, messages)).await;
            world.send(&[(5_001, 0), (5_002, 1)]).await;
            until("the devices that work", || sink.ledger.taken_once().len() == 2).await;
            forwarder.stop(PATIENCE).await;
            // The same after a restart; then all is mended, and comes once and in order.
            let forwarder = start(&world, &store, &id, sink.clone());
            world.send(&[(5_001, 2)]).await;
            until("one that works", || sink.ledger.taken_once().len() == 3).await;
            is_mended.store(1, Ordering::Relaxed);
            let all = usize::try_from(devices).unwrap() * usize::from(messages) + 3;
            until("all messages", || sink.ledger.taken_once().len() == all).await;
            until("one lane", || !forwarder.status().fresh_lane).await;
            forwarder.stop(PATIENCE).await;
            let attempts = sink.ledger.attempts();
            let taken: Vec<_> = attempts.into_iter().filter(|entry| entry.taken).collect();
            assert_eq!(taken.len(), all, "nothing came twice");
            for device in 1..=devices {
                let ending = format!("{device:05}");
                let of_device = taken.iter().filter(|entry| entry.device.ends_with(&ending));
                let values: Vec<String> = of_device.map(|entry| entry.value.clone()).collect();
                assert_eq!(values, (0..messages).map(base64_of).collect::<Vec<_>>());
            }
            assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
        }
    }
}

/// A failure alone was no reason to save: what had failed while nothing else happened was forgotten
/// by a crash, and its 75 hours began anew.
#[tokio::test]
async fn a_failure_is_saved_although_nothing_else_happens() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let connection = rusqlite::Connection::open(world.file.path()).unwrap();
    let saved = || -> Option<usize> {
        let sql = "SELECT length(position) FROM integrations";
        connection
            .query_row(sql, (), |row| row.get::<_, Option<i64>>(0))
            .unwrap()
            .map(|length| usize::try_from(length).unwrap())
    };
    let may_fail = Arc::new(tokio::sync::Notify::new());
    let sink = Held { until: Arc::clone(&may_fail) };
    let mut settings = hasty();
    settings.retry.schedule.waits = [Duration::from_secs(3_600)].into();
    let forwarder = start_by(&world, &store, &id, sink, settings);
    world.send(&[(1, 1)]).await;
    until("the attempt", || forwarder.status().in_flight == 1).await;
    // Reading is a reason, and some saves later there is none any more.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = saved();
    may_fail.notify_one();
    until("the failure in the state file", || saved() > before).await;
    drop(forwarder);
}

/// A sink whose attempts fail when the test says so.
struct Held {
    until: Arc<tokio::sync::Notify>,
}

impl Sink for Held {
    async fn deliver(&self, _: Vec<Delivery>) -> Outcome {
        self.until.notified().await;
        retry()
    }
}

/// A panic ended the task of a forwarder for good: its integration got nothing more until the
/// gateway was started again.
#[tokio::test]
async fn a_forwarder_that_panics_is_started_again_and_loses_nothing() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    // A notice about the dead letters may lie behind them.
    assert!(store.bookmark(&id).cursor().unwrap().is_some_and(|cursor| cursor >= 6));
    assert_eq!(dead_letters(&world, &id).await.len(), 2);
}

/// Dead letters of events of which no request can be made do not count as the endpoint's. A run
/// that found none but those took it that there were none, and a replay that delivered them left
/// them.
#[tokio::test]
async fn a_replay_settles_dead_letters_that_blame_no_endpoint() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let reason = Failure::new(FailureClass::Request, "never");
    let sink = Scripted::new(move |_, _| Outcome::Rejected { reason: reason.clone() });
    let forwarder = start(&world, &store, &id, sink.clone());
    world.send(&interleaved(2, 1)).await;
    until("the attempts", || sink.count.load(Ordering::Relaxed) == 2).await;
    forwarder.stop(PATIENCE).await;
    let filter = DeadLetterFilter::default();
    assert_eq!(dead_letters(&world, &id).await.len(), 2);
    world.integrations().replay_dead_letters(&id, filter).await.unwrap();
    let sink = Scripted::new(|_, _| Outcome::Delivered);
    let forwarder = start(&world, &store, &id, sink.clone());
    until("both messages", || sink.ledger.taken_once().len() == 2).await;
    forwarder.stop(PATIENCE).await;
    assert_eq!(dead_letters(&world, &id).await, []);
}

#[tokio::test]
async fn after_a_crash_nothing_is_missing_and_duplicates_carry_the_same_id() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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
    let (store, id) = bare_integration(&world).await;
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

/// What becomes of a batch.
type DecideOnBatch = dyn Fn(&[Delivery]) -> Outcome + Send + Sync;

/// A sink for batches: `decide` sees what they hold.
#[derive(Clone)]
struct Batched {
    ledger: Ledger,
    sizes: Arc<Mutex<Vec<usize>>>,
    decide: Arc<DecideOnBatch>,
}

impl Batched {
    fn new(decide: impl Fn(&[Delivery]) -> Outcome + Send + Sync + 'static) -> Self {
        Self { ledger: Ledger::default(), sizes: Arc::default(), decide: Arc::new(decide) }
    }
}

impl Sink for Batched {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let outcome = (self.decide)(&events);
        self.sizes.lock().unwrap().push(events.len());
        for event in &events {
            let taken = outcome == Outcome::Delivered;
            self.ledger.note(&event.id.to_string(), &event.body, taken);
        }
        outcome
    }
}

fn in_batches(events: usize, wait: Duration) -> ForwarderSettings {
    ForwarderSettings { batch: Some(BatchOptions { events, wait }), ..hasty() }
}

fn has(event: &Delivery, byte: u8) -> bool {
    String::from_utf8_lossy(&event.body).contains(&base64_of(byte))
}

fn refused() -> Outcome {
    Outcome::Retry { reason: Failure::new(FailureClass::Refused, "no"), after: None }
}

#[tokio::test]
async fn batches_are_filled_and_what_remains_is_sent_after_the_wait() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let sink = Batched::new(|_| Outcome::Delivered);
    world.send(&interleaved(5, 9)).await;
    let settings = in_batches(10, Duration::from_millis(50));
    let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
    until("all messages", || sink.ledger.taken_once().len() == 45).await;
    forwarder.stop(PATIENCE).await;
    sink.ledger.assert_complete_and_in_order(5, 9);
    let sizes = sink.sizes.lock().unwrap().clone();
    assert!(sizes.iter().all(|size| *size <= 10) && sizes.len() <= 9, "{sizes:?}");
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
}

#[tokio::test]
async fn one_poison_event_in_a_batch_becomes_a_dead_letter_and_all_others_arrive() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let sink = Batched::new(|events| {
        let poisoned = events
            .iter()
            .any(|event| event.subject.iccid == vocabulary::Iccid::from_u64(2) && has(event, 3));
        if poisoned { refused() } else { Outcome::Delivered }
    });
    world.send(&interleaved(4, 8)).await;
    let mut settings = in_batches(16, Duration::from_millis(20));
    settings.retry.attempts_max = Some(2);
    let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
    until("all others", || sink.ledger.taken_once().len() == 31).await;
    until("the end", || store.bookmark(&id).cursor().unwrap().is_some_and(|cursor| cursor >= 32))
        .await;
    forwarder.stop(PATIENCE).await;
    assert_eq!(dead_letters(&world, &id).await.len(), 1);
    let notices = notices(&world, &id);
    assert!(notices.iter().any(|notice| notice.message == "CloudIntegrator[DeadLetter]"));
}

async fn dead_letters(world: &World, id: &str) -> Vec<DeadLetterEntry> {
    let filter = DeadLetterFilter::default();
    world.integrations().dead_letters(id, filter, (0, 100)).await.unwrap().0
}

/// The notices about the integration in the log.
fn notices(world: &World, id: &str) -> Vec<Notice> {
    let limits = message_log::ReadLimits::default();
    let rare = message_log::KindSet::rare();
    let batch = world.log.read_kinds(world.log.oldest(), rare, limits).unwrap();
    let notices = batch.records.iter().map(|record| Notice::decode(&record.body).unwrap());
    notices.filter(|notice| notice.integration.as_deref() == Some(id)).collect()
}

async fn state(world: &World, id: &str) -> (IntegrationState, Option<String>) {
    let found = world.integrations().find(id).await.unwrap().unwrap();
    (found.state, found.error)
}

#[tokio::test]
async fn as_in_1nce_os_five_failures_fail_the_integration_in_the_documented_words() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let sink = Scripted::new(|_, _| retry());
    world.send(&[(1, 1)]).await;
    let mut settings = hasty();
    settings.retry =
        RetryPolicy { schedule: settings.retry.schedule, ..RetryPolicy::compat_1nce() };
    let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
    until("the end of the forwarder", || forwarder.is_finished()).await;
    assert_eq!(sink.count.load(Ordering::Relaxed), 5);
    let (state, error) = state(&world, &id).await;
    assert_eq!(state, IntegrationState::IntegrationFailed);
    assert_eq!(error.as_deref(), Some("status: not now"));
    until("the notice", || !notices(&world, &id).is_empty()).await;
    let notices = notices(&world, &id);
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].message, "CloudIntegrator[IntegrationDisabled]");
    assert_eq!(
        notices[0].description,
        format!(
            "Integration with ID {id} and name \"a webhook\" was disabled due to consecutive \
             failed requests. Please review affected integration details in Cloud Integrator."
        )
    );
    // Nothing is lost: whoever starts it again gets the message, with all attempts before it.
    let mended = Scripted::new(|_, number| if number < 4 { retry() } else { Outcome::Delivered });
    let forwarder = start(&world, &store, &id, mended.clone());
    until("the message", || mended.ledger.taken_once().len() == 1).await;
    forwarder.stop(PATIENCE).await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_or_blocked_fails_the_integration_at_once() {
    for (class, word) in [(FailureClass::Gone, "410"), (FailureClass::Blocked, "must not reach")] {
        let world = World::new();
        let (store, id) = bare_integration(&world).await;
        let sink = Scripted::new(move |_, _| Outcome::Retry {
            reason: Failure::new(class, "no more"),
            after: None,
        });
        world.send(&[(1, 1)]).await;
        let forwarder = start(&world, &store, &id, sink.clone());
        until("the end of the forwarder", || forwarder.is_finished()).await;
        assert_eq!(sink.count.load(Ordering::Relaxed), 1);
        assert_eq!(state(&world, &id).await.0, IntegrationState::IntegrationFailed);
        until("the notice", || !notices(&world, &id).is_empty()).await;
        assert!(notices(&world, &id)[0].description.contains(word));
        assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(0), "it is not lost");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_for_too_long_fails_the_integration() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let sink = Scripted::new(|_, _| retry());
    world.send(&interleaved(4, 1)).await;
    let settings = ForwarderSettings { disable_after: Duration::from_millis(300), ..hasty() };
    let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
    until("the end of the forwarder", || forwarder.is_finished()).await;
    until("both notices", || notices(&world, &id).len() == 2).await;
    let messages: Vec<String> =
        notices(&world, &id).into_iter().map(|notice| notice.message).collect();
    assert_eq!(messages, ["CloudIntegrator[EndpointDown]", "CloudIntegrator[IntegrationDisabled]"]);
    assert!(dead_letters(&world, &id).await.is_empty(), "an outage makes no dead letter");
}

#[tokio::test]
async fn the_status_tells_of_an_outage_and_of_its_end() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let is_up = Arc::new(AtomicUsize::new(0));
    let up = Arc::clone(&is_up);
    let sink =
        Scripted::new(
            move |_, _| {
                if up.load(Ordering::Relaxed) == 0 { retry() } else { Outcome::Delivered }
            },
        );
    world.send(&interleaved(20, 1)).await;
    let forwarder = start(&world, &store, &id, sink.clone());
    until("the outage", || forwarder.status().down_since.is_some()).await;
    let status = forwarder.status();
    assert_eq!(status.last_failure.unwrap().1.text, "not now");
    assert!(status.last_success_at.is_none() && status.lag_records >= 20);
    is_up.store(1, Ordering::Relaxed);
    until("the end", || {
        let status = forwarder.status();
        status.down_since.is_none() && status.lag_records == 0 && status.last_success_at.is_some()
    })
    .await;
    forwarder.stop(PATIENCE).await;
}

/// After an outage an endpoint got what had waited in the order of the log: what a device sent now
/// arrived when all of yesterday's had, hours later.
#[tokio::test]
async fn a_device_without_backlog_does_not_wait_for_the_backlog_of_others() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    // Twelve windows of messages of others, which take more than a second.
    for _ in 0..2 {
        world.send(&interleaved(10, 40)).await;
    }
    let sink = Slow { pause: Duration::from_millis(12), ..Slow::default() };
    let forwarder = start(&world, &store, &id, sink.clone());
    until("the second lane", || forwarder.status().fresh_lane).await;
    world.send(&[(77, 1), (77, 2)]).await;
    let arrived = || {
        let attempts = sink.ledger.attempts();
        attempts.iter().filter(|entry| entry.device.ends_with("77")).count()
    };
    until("the new device", || arrived() == 2).await;
    let before = sink.ledger.attempts().len();
    assert!(before < 700, "{before} messages came before it");
    // A crash in the middle of both lanes.
    drop(forwarder);
    let forwarder = start(&world, &store, &id, sink.clone());
    until("all messages", || sink.ledger.taken_once().len() == 802).await;
    until("one lane", || !forwarder.status().fresh_lane).await;
    forwarder.stop(PATIENCE).await;
    assert_eq!(store.bookmark(&id).cursor().unwrap(), Some(world.log.end().as_u64()));
    let taken = sink.ledger.taken_once();
    for device in 1..=10 {
        let ending = format!("{device:05}");
        let of_device = taken.iter().filter(|entry| entry.device.ends_with(&ending));
        let values: Vec<String> = of_device.map(|entry| entry.value.clone()).collect();
        let expected: Vec<String> = (0..2).flat_map(|_| (0..40).map(base64_of)).collect();
        assert_eq!(values, expected, "the order of device {device}");
    }
}

#[tokio::test]
async fn without_order_a_device_has_many_attempts_at_a_time() {
    let world = World::new();
    let (store, id) = bare_integration(&world).await;
    let sink = Slow { pause: Duration::from_millis(5), ..Slow::default() };
    world.send(&interleaved(1, 100)).await;
    let settings = ForwarderSettings { order: Order::None, ..hasty() };
    let forwarder = start_by(&world, &store, &id, sink.clone(), settings);
    until("all messages", || sink.ledger.taken_once().len() == 100).await;
    forwarder.stop(PATIENCE).await;
    let most = sink.most.load(Ordering::Relaxed);
    assert!((2..=8).contains(&most), "{most} at the same time");
}

/// A sink that takes its time, and knows how many attempts ran at once.
#[derive(Clone, Default)]
struct Slow {
    pause: Duration,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ledger: Ledger,
}

impl Sink for Slow {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(self.pause).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        events.iter().for_each(|event| self.ledger.note(&event.id.to_string(), &event.body, true));
        Outcome::Delivered
    }
}
