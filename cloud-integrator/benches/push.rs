//! How fast the log reaches a webhook: `cargo bench -p cloud-integrator --bench push`.
//!
//! A log with telemetry of 1,000 devices is pushed to a minimal receiver on loopback, one POST
//! for each message. Prints the rate and the processor time that each side cost. Arguments:
//! records (100,000), concurrency (64).

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its figures")]

#[path = "../tests/receiver/mod.rs"]
mod receiver;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloud_integrator::{
    DeliveryOptions, Integrations, NetworkPolicy, NewIntegration, SEALED_FOR, Settings, Source,
    Target, WebhookTarget,
};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord};
use sealing::{KeySource, Sealer};
use state::StateFile;
use template_library::Templates;
use tokio::runtime::{Builder, Runtime};
use vocabulary::{EventKind, Identity, IdentityClass, Protocol, Telemetry};

const DEVICES: u64 = 1_000;

fn main() {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let records = numbers.next().unwrap_or(100_000);
    let concurrency = numbers.next().unwrap_or(64);
    let received = Arc::new(AtomicUsize::new(0));
    let receiving = runtime("receiver", 1);
    let count = Arc::clone(&received);
    let script: receiver::Script = Arc::new(move |request| {
        assert!(request.header("webhook-id").is_some() && !request.body.is_empty());
        count.fetch_add(1, Ordering::Relaxed);
        receiver::OK
    });
    let address = receiving.block_on(receiver::serve(script));
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state.db"));
    let (log, _) = MessageLog::open(&folder.path().join("log"), Default::default()).unwrap();
    let source = Source { log: log.clone(), templates: Templates::open(&file).unwrap() };
    let pushing = runtime("pushing", 2);
    let mut settings = Settings {
        network: NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() },
        ..Settings::default()
    };
    settings.forwarder.concurrency_max = concurrency;
    pushing.block_on(async {
        let key = KeySource::Text("7".repeat(64).into());
        let sealer = Sealer::open(&key, SEALED_FOR).unwrap();
        let integrations = Integrations::open(&file, sealer, settings).unwrap();
        integrations.start(source.clone()).await.unwrap();
        integrations.create(webhook(&format!("http://{address}/events"))).await.unwrap();
        integrations.shutdown(Duration::from_secs(1)).await;
        fill(&log, records).await;
        let (before, start) = (processor_secs(), Instant::now());
        integrations.start(source).await.unwrap();
        while received.load(Ordering::Relaxed) < records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        report(records, start.elapsed(), before, processor_secs());
        integrations.shutdown(Duration::from_secs(1)).await;
    });
    log.close();
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
