//! Webhooks: what every sink must do, against a scripted receiver on loopback, and what only
//! webhooks do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::all_sinks_must;
use crate::receiver::{self, Answer, OK, Received};
use crate::scripted::{raw, scripted_receiver};
use crate::suite::{self, Behaviour};
use crate::world::{
    Ledger, PATIENCE, World, base64_of, hasty, interleaved, until, until_async, webhook,
};
use cloud_integrator::{
    DeadLetterFilter, Delivery, EventType, FailureClass, IntegrationState, Integrations,
    NetworkPolicy, Outcome, Replay, ReplayRequest, ReplayState, Resolver, Sink, Subject,
    WebhookClient, WebhookSink, WebhookTarget,
};
use vocabulary::EventId;

/// A customer's server.
struct Webhook {
    url: String,
    ledger: Ledger,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl suite::Cloud for Webhook {
    type Sink = WebhookSink;

    async fn start() -> Self {
        let (ledger, behaviour) = (Ledger::default(), Arc::new(Mutex::new(Behaviour::Take)));
        let script = Arc::clone(&behaviour);
        let answer = move |request: &Received<'_>, _: usize| answer(&script, request);
        let url = scripted_receiver(&ledger, answer).await;
        Self { url, ledger, behaviour }
    }

    async fn sink(&self) -> WebhookSink {
        local_sink(&self.url, &[])
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

fn answer(behaviour: &Mutex<Behaviour>, request: &Received<'_>) -> Answer {
    let failure = raw("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n");
    let mut behaviour = behaviour.lock().unwrap();
    match &mut *behaviour {
        Behaviour::Take | Behaviour::FailNext(0) => OK,
        Behaviour::Fail => failure,
        Behaviour::FailNext(left) => {
            *left -= 1;
            failure
        }
        Behaviour::Silence => Answer { pause: 3 * PATIENCE, ..OK },
        Behaviour::Refuse(text) if String::from_utf8_lossy(request.body).contains(&**text) => {
            raw("HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n")
        }
        Behaviour::Refuse(_) => OK,
    }
}

all_sinks_must!(Webhook);

/// A sink that may reach this machine, and trusts `roots` beside the system's authorities.
fn local_sink(url: &str, roots: &[Vec<u8>]) -> WebhookSink {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    let client = WebhookClient::with_resolver(Resolver::new(policy), roots, 8).unwrap();
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

/// A server that does not want events of the byte 1 until it is mended, and the bodies that said
/// they were replayed.
async fn picky_receiver(ledger: &Ledger, is_mended: &Arc<AtomicBool>) -> (String, Bodies) {
    let (mended, bodies) = (Arc::clone(is_mended), Bodies::default());
    let replayed = Arc::clone(&bodies);
    let url = scripted_receiver(ledger, move |request, _| {
        let body = String::from_utf8_lossy(request.body).into_owned();
        let is_wanted = mended.load(Ordering::Relaxed) || !body.contains(&base64_of(1));
        if body.contains("\"replayed\":true") {
            replayed.lock().unwrap().push(body);
        }
        if is_wanted { OK } else { raw("HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n") }
    })
    .await;
    (url, bodies)
}

type Bodies = Arc<Mutex<Vec<String>>>;

async fn until_done(integrations: &Integrations, replay: &str) -> Replay {
    until_async("the end of the replay", || async {
        integrations.replay(replay).await.unwrap().state == ReplayState::Done
    })
    .await;
    integrations.replay(replay).await.unwrap()
}

#[tokio::test]
async fn what_is_asked_for_again_comes_again_and_says_so() {
    let world = World::new();
    let (ledger, is_mended) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let (url, replayed) = picky_receiver(&ledger, &is_mended).await;
    let mut settings = hasty();
    settings.retry.attempts_max = Some(2);
    let integrations = world.integrations_by(settings);
    integrations.start(world.source.clone()).await.unwrap();
    let id = integrations.create(webhook(&url)).await.unwrap().id;
    world.send(&interleaved(2, 3)).await;
    let letters = async || {
        let filter = DeadLetterFilter::default();
        integrations.dead_letters(&id, filter, (0, 10)).await.unwrap().1
    };
    until_async("two dead letters", || async { letters().await == 2 }).await;
    // Replayed too early: they are dead letters again.
    let filter = DeadLetterFilter::default();
    let (replay, count) = integrations.replay_dead_letters(&id, filter.clone()).await.unwrap();
    assert_eq!(count, 2);
    let replay = until_done(&integrations, &replay.id).await;
    assert_eq!((replay.delivered, replay.failed, letters().await), (0, 2, 2));
    is_mended.store(true, Ordering::Relaxed);
    let (replay, _) = integrations.replay_dead_letters(&id, filter).await.unwrap();
    let replay = until_done(&integrations, &replay.id).await;
    assert_eq!((replay.delivered, replay.failed, letters().await), (2, 0, 0));
    assert_eq!(ledger.taken_once().len(), 6);
    // A part of the log: one device.
    replayed.lock().unwrap().clear();
    let devices = vec![vocabulary::Iccid::from_u64(2).unwrap()];
    let request = ReplayRequest { devices, ..ReplayRequest::default() };
    let replay = integrations.start_replay(&id, request).await.unwrap();
    let replay = until_done(&integrations, &replay.id).await;
    assert_eq!((replay.delivered, replay.failed, replay.passed_over), (3, 0, 0));
    integrations.shutdown(PATIENCE).await;
    let bodies = replayed.lock().unwrap().clone();
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    for (body, byte) in bodies.iter().zip(0..) {
        assert!(body.contains(&base64_of(byte)), "in order: {bodies:?}");
    }
    assert_eq!(ledger.taken_once().len(), 6, "with the same ids");
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
