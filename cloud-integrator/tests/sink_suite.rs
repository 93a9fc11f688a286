//! What every sink and the forwarder before it must do, whatever the cloud does: order, retry,
//! reject, resume. The list is in the documentation of [`Sink`].
//!
//! Forwarding is driven twice: by scripted sinks, for outcomes that a real cloud seldom has, and
//! by the webhook sink against a scripted receiver on loopback.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod receiver;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloud_integrator::{
    Delivery, EventType, EventTypes, Failure, FailureClass, Forwarder, IntegrationState,
    NetworkPolicy, Outcome, Resolver, Sink, Store, Subject, Subscription, WebhookClient,
    WebhookSink, WebhookTarget,
};
use receiver::{Answer, OK, Received};
use vocabulary::{EventId, Notice, NoticeCategory, NoticeKind};
use world::{
    Entry, Ledger, PATIENCE, World, base64_of, everything, hasty, interleaved, raw,
    scripted_receiver, until, until_async, webhook,
};

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

/// A sink that may reach this machine, and trusts `roots` beside the system's authorities.
fn local_sink(url: &str, roots: &[Vec<u8>]) -> WebhookSink {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    let client = WebhookClient::with_resolver(Resolver::new(policy), roots, 4).unwrap();
    let target = WebhookTarget { url: url.to_owned(), ..WebhookTarget::default() };
    client.webhook(&target, false).unwrap()
}

/// Closes the connection without an answer.
const CLOSE: Answer = Answer { text: "", ..OK };
/// Endless bytes of body after a 200.
const ENDLESS: Answer = Answer {
    text: "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
    endless: &[b'x'; 4_096],
    ..OK
};

#[tokio::test]
async fn a_webhook_survives_every_kind_of_bad_answer() {
    let world = World::new();
    let ledger = Ledger::default();
    let answers = |_: &Received<'_>, number: usize| match number % 8 {
        0 => raw("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"),
        1 => CLOSE,
        2 => raw("HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        3 => raw("this is not http\r\n\r\n"),
        4 => raw("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"),
        _ => OK,
    };
    let url = scripted_receiver(&ledger, answers).await;
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    let created = integrations.create(webhook(&url)).await.unwrap();
    assert_eq!(created.state, IntegrationState::RolloutDone);
    world.send(&interleaved(6, 30)).await;
    until("all messages", || ledger.taken_once().len() == 180).await;
    until_async("the state", || async {
        let found = integrations.find(&created.id).await.unwrap().unwrap();
        found.state == IntegrationState::IntegrationActive && found.first_delivery_at.is_some()
    })
    .await;
    integrations.shutdown(PATIENCE).await;
    ledger.assert_complete_and_in_order(6, 30);
}

#[tokio::test]
async fn a_request_has_the_documented_form() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let script: receiver::Script = Arc::new(move |request: &Received<'_>| {
        heads.lock().unwrap().push(request.head.to_owned());
        OK
    });
    let url = format!("http://{}/e?d=:iccid:&ip=:ip:&x=:x:", receiver::serve(script).await);
    let integrations = world.integrations();
    integrations.start(world.source.clone()).await.unwrap();
    integrations.create(webhook(&url)).await.unwrap();
    world.send(&[(42, 1)]).await;
    until("the request", || !seen.lock().unwrap().is_empty()).await;
    integrations.shutdown(PATIENCE).await;
    let head = seen.lock().unwrap()[0].clone();
    let request = Received { head: &head, body: b"" };
    assert!(head.starts_with("POST /e?d=0000000000000000042&ip=10.0.0.1&x=:x: HTTP/1.1\r\n"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-device"), Some("0000000000000000042/none"));
    let id: EventId = request.header("webhook-id").unwrap().parse().unwrap();
    assert!(id.to_string().starts_with("msg_"));
    let secs: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    let since_id = secs - id.timestamp().as_millis() / 1_000;
    assert!((0..60).contains(&since_id), "{since_id}");
    assert_eq!(request.header("accept-encoding"), None);
}

fn delivery() -> Delivery {
    Delivery {
        id: "msg_01GHZX5Q3M0000000000000000".parse().unwrap(),
        event_type: EventType::TelemetryData,
        subject: Subject::default(),
        source: None,
        topic: None,
        body: b"{}".as_slice().into(),
    }
}

async fn outcome_of(answer: Answer) -> Outcome {
    let script: receiver::Script = Arc::new(move |_: &Received<'_>| answer);
    let url = format!("http://{}/", receiver::serve(script).await);
    local_sink(&url, &[]).deliver(vec![delivery()]).await
}

#[tokio::test]
async fn answers_of_a_webhook_have_their_outcomes() {
    assert_eq!(outcome_of(OK).await, Outcome::Delivered);
    assert_eq!(outcome_of(raw("HTTP/1.1 204 x\r\n\r\n")).await, Outcome::Delivered);
    let busy = raw("HTTP/1.1 503 x\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n");
    let late = Answer { pause: Duration::from_millis(50), ..busy };
    let Outcome::Retry { reason, after } = outcome_of(late).await else { panic!("not a retry") };
    assert_eq!(reason.to_string(), "throttled: the endpoint answered 503");
    assert_eq!(after, Some(Duration::from_secs(120)));
    let Outcome::Retry { reason, .. } = outcome_of(CLOSE).await else { panic!("taken") };
    assert_eq!(reason.class, FailureClass::Transport);
}

#[tokio::test]
async fn an_endless_answer_costs_neither_time_nor_memory() {
    let start = Instant::now();
    assert_eq!(outcome_of(ENDLESS).await, Outcome::Delivered);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_a_failure_to_connect() {
    let sink = local_sink("http://127.0.0.1:1/s3cret", &[]);
    let Outcome::Retry { reason, .. } = sink.deliver(vec![delivery()]).await else {
        panic!("taken")
    };
    assert_eq!(reason.class, FailureClass::Connect);
    assert!(!reason.text.contains("s3cret"));
}

/// A receiver with a certificate of its own for `localhost`; gives its port and the certificate.
async fn tls_receiver() -> (u16, Vec<u8>) {
    use tokio_rustls::{TlsAcceptor, rustls};
    let names = vec!["localhost".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let script: receiver::Script = Arc::new(|_: &Received<'_>| OK);
            tokio::spawn(receiver::converse(stream, script));
        }
    });
    (port, certified.cert.pem().into_bytes())
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_have_the_right_name() {
    let (port, root) = tls_receiver().await;
    let outcome = async |host: &str, roots: Vec<Vec<u8>>| {
        let url = format!("https://{host}:{port}/");
        local_sink(&url, &roots).deliver(vec![delivery()]).await
    };
    assert_eq!(outcome("localhost", vec![root.clone()]).await, Outcome::Delivered);
    for (host, roots) in [("localhost", vec![]), ("127.0.0.1", vec![root])] {
        let Outcome::Retry { reason, .. } = outcome(host, roots).await else { panic!("taken") };
        assert_eq!(reason.class, FailureClass::Tls, "{reason}");
    }
}
