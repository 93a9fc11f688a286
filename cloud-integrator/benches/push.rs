//! How fast the log reaches a webhook: `cargo bench -p cloud-integrator --bench push`.
//!
//! A log with telemetry of 1,000 devices is pushed to a minimal receiver on loopback, one POST
//! for each message, or with `accept` to a sink that takes all at once: what is measured then is
//! the forwarder itself. Prints the rate and the processor time that each side cost. Arguments:
//! records (100,000), concurrency (64), events in a batch (1).

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its figures")]

#[path = "../tests/receiver/mod.rs"]
mod receiver;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloud_integrator::{
    BatchOptions, Delivery, DeliveryOptions, EventTypes, Forwarder, ForwarderSettings,
    Integrations, NetworkPolicy, NewIntegration, Outcome, SEALED_FOR, Settings, Sink, Source,
    Store, Subscription, Target, WebhookTarget,
};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord};
use sealing::{KeySource, Sealer};
use state::StateFile;
use template_library::Templates;
use tokio::runtime::{Builder, Runtime};
use vocabulary::{EventKind, Identity, IdentityClass, Protocol, Telemetry};

const DEVICES: u64 = 1_000;

fn main() {
    let (words, numbers): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.parse::<usize>().is_err());
    let mut numbers = numbers.iter().filter_map(|number| number.parse().ok());
    let records = numbers.next().unwrap_or(100_000);
    let concurrency = numbers.next().unwrap_or(64);
    let events = numbers.next().unwrap_or(1);
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state.db"));
    let (log, _) = MessageLog::open(&folder.path().join("log"), Default::default()).unwrap();
    let source = Source { log: log.clone(), templates: Templates::open(&file).unwrap() };
    let bench = Bench { file, source, records, delivery: delivery(concurrency, events) };
    // Cargo adds `--bench`.
    if words.iter().any(|word| word == "accept") {
        bench.to_a_sink_that_accepts();
    } else {
        bench.to_a_receiver();
    }
    log.close();
}

fn delivery(concurrency_max: usize, events: usize) -> DeliveryOptions {
    let batch = BatchOptions { events, wait: Duration::from_millis(100) };
    DeliveryOptions {
        concurrency_max,
        batch: (events > 1).then_some(batch),
        ..DeliveryOptions::default()
    }
}

struct Bench {
    file: StateFile,
    source: Source,
    records: usize,
    delivery: DeliveryOptions,
}

/// A sink that takes all at once: what is measured is everything before it.
#[derive(Clone)]
struct Accept(Arc<AtomicUsize>);

impl Sink for Accept {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        self.0.fetch_add(events.len(), Ordering::Relaxed);
        tokio::task::yield_now().await;
        Outcome::Delivered
    }
}

impl Bench {
    fn to_a_receiver(&self) {
        let received = Arc::new(AtomicUsize::new(0));
        let receiving = runtime("receiver", 1);
        let count = Arc::clone(&received);
        let script: receiver::Script = Arc::new(move |request| {
            assert!(request.header("webhook-id").is_some() && !request.body.is_empty());
            // An array has a bracket and a type for each of its events.
            let events = request
                .body
                .split(|byte| *byte == b'{')
                .filter(|part| part.starts_with(b"\"type\":\"TELEMETRY_DATA\""));
            count.fetch_add(events.count(), Ordering::Relaxed);
            receiver::OK
        });
        let address = receiving.block_on(receiver::serve(script));
        let url = format!("http://{address}/events");
        runtime("pushing", 2).block_on(async {
            let (integrations, _) = self.prepare(&url).await;
            let (before, start) = (processor_secs(), Instant::now());
            integrations.start(self.source.clone()).await.unwrap();
            until_received(&received, self.records).await;
            report(self.records, start.elapsed(), before, processor_secs());
            integrations.shutdown(Duration::from_secs(1)).await;
        });
    }

    fn to_a_sink_that_accepts(&self) {
        let received = Arc::new(AtomicUsize::new(0));
        runtime("pushing", 2).block_on(async {
            let (_, id) = self.prepare("http://127.0.0.1:9/").await;
            let store = Store::open(&self.file, sealer()).unwrap();
            let settings =
                ForwarderSettings::for_integration(&self.delivery, &ForwarderSettings::default());
            let event_types = EventTypes::parse([("TELEMETRY_DATA", None)]).unwrap();
            let subscription = Subscription { event_types, json_payload_enabled: false };
            let sink = Accept(Arc::clone(&received));
            let (before, start) = (processor_secs(), Instant::now());
            let bookmark = store.bookmark(&id);
            let source = self.source.clone();
            let forwarder = Forwarder::start(source, bookmark, subscription, sink, settings);
            until_received(&received, self.records).await;
            report(self.records, start.elapsed(), before, processor_secs());
            forwarder.stop(Duration::from_secs(1)).await;
        });
    }

    /// An integration that stands before a full log, and its id.
    async fn prepare(&self, url: &str) -> (Integrations, String) {
        let settings = Settings {
            network: NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() },
            ..Settings::default()
        };
        let integrations = Integrations::open(&self.file, sealer(), settings).unwrap();
        integrations.start(self.source.clone()).await.unwrap();
        let new = NewIntegration { delivery: self.delivery, ..webhook(url) };
        let id = integrations.create(new).await.unwrap().id;
        integrations.shutdown(Duration::from_secs(1)).await;
        fill(&self.source.log, self.records).await;
        (integrations, id)
    }
}

async fn until_received(received: &AtomicUsize, records: usize) {
    while received.load(Ordering::Relaxed) < records {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn sealer() -> Sealer {
    let key = KeySource::Text("7".repeat(64).into());
    Sealer::open(&key, SEALED_FOR).unwrap()
}

fn runtime(name: &str, threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .unwrap()
}

fn webhook(url: &str) -> NewIntegration {
    NewIntegration {
        name: "bench".to_owned(),
        target: Target::Webhook(WebhookTarget {
            url: url.to_owned(),
            headers: [("x-api-key".to_owned(), "0123456789abcdef".to_owned())].into(),
            ..WebhookTarget::default()
        }),
        delivery: DeliveryOptions::default(),
        event_types: vec![("TELEMETRY_DATA".to_owned(), None)],
        json_payload_enabled: false,
    }
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
        payload: b"12345678",
    };
    NewRecord {
        kind: Kind::new(EventKind::Telemetry.code()),
        device: DeviceKey::from_u64(device),
        received_at: SystemTime::now().into(),
        body: telemetry.encode(),
    }
}

/// Seconds of processor time of all threads called `receiver`, and of all others.
fn processor_secs() -> (f64, f64) {
    let (mut receiver, mut others) = (0.0, 0.0);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = tail.split(' ').collect();
        // utime and stime, in ticks of 10 ms (proc(5)).
        let secs = [11, 12].map(|field| fields[field].parse::<f64>().unwrap() / 100.0);
        let sum = if head.ends_with("(receiver") { &mut receiver } else { &mut others };
        *sum += secs[0] + secs[1];
    }
    (receiver, others)
}

fn report(records: usize, elapsed: Duration, before: (f64, f64), after: (f64, f64)) {
    let micros = |secs: f64| secs * 1e6 / records as f64;
    println!(
        "{records} events in {:.2} s: {:.0}/s; per event {:.1} us of processor time here, {:.1} us \
         in the receiver",
        elapsed.as_secs_f64(),
        records as f64 / elapsed.as_secs_f64(),
        micros(after.1 - before.1),
        micros(after.0 - before.0),
    );
}
