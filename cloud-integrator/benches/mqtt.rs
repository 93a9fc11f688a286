//! How fast the log reaches an MQTT broker: `cargo bench -p cloud-integrator --bench mqtt`.
//!
//! A log with telemetry of 1,000 devices is published to mosquitto on loopback over one connection,
//! with events of about 300 bytes, QoS 1 and no limit of rate; the cursor follows the
//! acknowledgements. Beside it `mosquitto_pub` publishes as many lines of the same length to the
//! same broker. Prints both rates and their ratio. Arguments: records (300,000), rounds (3).

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its figures")]

#[path = "../tests/mosquitto/mod.rs"]
mod mosquitto;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloud_integrator::{
    Delivery, DeliveryOptions, EventTypes, Forwarder, ForwarderSettings, Integrations, MqttClient,
    MqttLimits, MqttPurpose, MqttSink, MqttTarget, NetworkPolicy, NewIntegration, Outcome,
    Resolver, SEALED_FOR, Settings, Sink, Source, Store, Subscription, Target, WebhookTarget,
};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord};
use mosquitto::Mosquitto;
use sealing::{KeySource, Sealer};
use state::StateFile;
use template_library::Templates;
use tokio::runtime::Builder;
use vocabulary::{EventKind, Identity, IdentityClass, Protocol, Telemetry};

const DEVICES: u64 = 1_000;
/// In base64 it makes events of about 300 bytes.
const PAYLOAD: [u8; 42] = [b'x'; 42];

fn main() {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let records = numbers.next().unwrap_or(300_000);
    let rounds = numbers.next().unwrap_or(3);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..rounds {
        let broker = Mosquitto::open_to_all();
        let (ours, event_bytes) = runtime.block_on(publish(broker.port, records));
        let theirs = mosquitto_pub(broker.port, records, event_bytes);
        println!(
            "{records} events of {event_bytes} bytes: {ours:.0}/s; mosquitto_pub {theirs:.0}/s; \
             ratio {:.2}",
            ours / theirs
        );
    }
}

/// Counts what the broker acknowledged.
struct Counting {
    sink: MqttSink,
    delivered: Arc<AtomicUsize>,
    event_bytes: Arc<AtomicUsize>,
}

impl Sink for Counting {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let count = events.len();
        let bytes = events.first().map_or(0, |event| event.body.len());
        let outcome = self.sink.deliver(events).await;
        assert_eq!(outcome, Outcome::Delivered);
        self.event_bytes.store(bytes, Ordering::Relaxed);
        self.delivered.fetch_add(count, Ordering::Relaxed);
        outcome
    }
}

/// Events per second, and the bytes of each.
async fn publish(port: u16, records: usize) -> (f64, usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state.db"));
    let (log, _) = MessageLog::open(&folder.path().join("log"), Default::default()).unwrap();
    let source = Source { log: log.clone(), templates: Templates::open(&file).unwrap() };
    let (store, id) = integration(&file, &source).await;
    fill(&log, records).await;
    let delivered = Arc::new(AtomicUsize::new(0));
    let event_bytes = Arc::new(AtomicUsize::new(0));
    let counting = Counting {
        sink: sink(port),
        delivered: Arc::clone(&delivered),
        event_bytes: Arc::clone(&event_bytes),
    };
    let subscription = Subscription { event_types: EventTypes::ALL, json_payload_enabled: false };
    let start = Instant::now();
    let settings = ForwarderSettings::default();
    let forwarder = Forwarder::start(source, store.bookmark(&id), subscription, counting, settings);
    while delivered.load(Ordering::Relaxed) < records {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    forwarder.stop(Duration::from_secs(1)).await;
    let rate = records as f64 / start.elapsed().as_secs_f64();
    log.close();
    (rate, event_bytes.load(Ordering::Relaxed))
}

fn sink(port: u16) -> MqttSink {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    let client = MqttClient::new(Resolver::new(policy), Vec::new(), MqttLimits::default());
    let target = MqttTarget { url: format!("mqtt://127.0.0.1:{port}"), ..MqttTarget::default() };
    client.sink(client.endpoint(&target, "bench").unwrap(), MqttPurpose::Run)
}

/// An integration that stands at the beginning of the log, and of which only the cursor is used.
async fn integration(file: &StateFile, source: &Source) -> (Store, String) {
    let sealer = || Sealer::open(&KeySource::Text("7".repeat(64).into()), SEALED_FOR).unwrap();
    let integrations = Integrations::open(file, sealer(), Settings::default()).unwrap();
    integrations.start(source.clone()).await.unwrap();
    let target = WebhookTarget { url: "https://unused.example/".to_owned(), ..Default::default() };
    let created = integrations
        .create(NewIntegration {
            name: "bench".to_owned(),
            target: Target::Webhook(target),
            event_types: vec![("TELEMETRY_DATA".to_owned(), None)],
            json_payload_enabled: false,
            delivery: DeliveryOptions::default(),
        })
        .await
        .unwrap();
    integrations.shutdown(Duration::ZERO).await;
    (Store::open(file, sealer()).unwrap(), created.id)
}

async fn fill(log: &MessageLog, records: usize) {
    for chunk in 0..records.div_ceil(1_000) {
        let batch = (chunk * 1_000..records.min((chunk + 1) * 1_000)).map(record).collect();
        log.append(batch).await.unwrap();
    }
}

fn record(number: usize) -> NewRecord {
    let device = 8_988_280_666_000_000_000 + number as u64 % DEVICES;
    let telemetry = Telemetry {
        identity: Identity {
            iccid: vocabulary::Iccid::from_u64(device).unwrap(),
            imsi: vocabulary::Imsi::from_u64(901_405_100_000_000 + number as u64 % DEVICES),
            ip: Some([10, 1, 2, 3].into()),
        },
        class: IdentityClass::SimIp,
        protocol: Protocol::Udp,
        topic: None,
        template: None,
        exchange: None,
        measured: None,
        session: None,
        payload: &PAYLOAD,
    };
    NewRecord {
        kind: Kind::new(EventKind::Telemetry.code()),
        device: DeviceKey::from_u64(device),
        received_at: SystemTime::now().into(),
        body: telemetry.encode(),
    }
}

/// Lines per second. It takes the acknowledgement of the last packet identifier for the end, and
/// there are 65,535 of them, so it gets fewer lines at a time.
fn mosquitto_pub(port: u16, lines: usize, line_bytes: usize) -> f64 {
    const LINES_MAX: usize = 60_000;
    let mut elapsed = Duration::ZERO;
    let mut left = lines;
    while left > 0 {
        let count = left.min(LINES_MAX);
        let text = format!("{}\n", "x".repeat(line_bytes)).repeat(count);
        let start = Instant::now();
        let mut child = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1"])
            .args(["-t", "8988280666000000000/messages", "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        elapsed += start.elapsed();
        left -= count;
    }
    lines as f64 / elapsed.as_secs_f64()
}
