//! A gateway's log and state, devices that send, and a ledger of what reached the cloud.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use cloud_integrator::{
    DeliveryOptions, Exhausted, ForwarderSettings, GateSettings, Integrations, NetworkPolicy,
    NewIntegration, RetryPolicy, SEALED_FOR, Schedule, Settings, Source, Target, WebhookTarget,
    WindowLimits,
};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord};
use sealing::{KeySource, Sealer};
use state::StateFile;
use template_library::Templates;
use vocabulary::{EventKind, Identity, IdentityClass, Notice, Protocol, Telemetry};

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Retries in milliseconds, so that a test need not wait for hours, and without end.
pub(crate) fn hasty_retry() -> RetryPolicy {
    RetryPolicy {
        schedule: Schedule { waits: [5, 20].map(Duration::from_millis).into(), jitter_percent: 20 },
        attempts_max: None,
        exhausted: Exhausted::DeadLetter,
        gate: Some(GateSettings {
            failures: 10,
            all_failed_time: Duration::from_secs(60),
            all_failed_min: 3,
            pause_min: Duration::from_millis(10),
            pause_max: Duration::from_millis(40),
        }),
    }
}

pub(crate) fn hasty() -> ForwarderSettings {
    ForwarderSettings {
        window: WindowLimits {
            records: 64,
            bytes: 1 << 20,
            device_records: 8,
            device_bytes: 1 << 17,
            deferred: 256,
        },
        concurrency_max: 8,
        retry: hasty_retry(),
        retry_replay: RetryPolicy { attempts_max: Some(3), ..hasty_retry() },
        save_interval: Duration::from_millis(20),
        ..ForwarderSettings::default()
    }
}

/// A gateway's log and state in a folder of its own.
pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) file: StateFile,
    pub(crate) log: MessageLog,
    pub(crate) source: Source,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(message_log::Options::default())
    }

    pub(crate) fn with(options: message_log::Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("state.db"));
        let (log, _) = MessageLog::open(&folder.path().join("log"), options).unwrap();
        let source = Source { log: log.clone(), templates: Templates::open(&file).unwrap() };
        Self { _folder: folder, file, log, source }
    }

    pub(crate) fn integrations(&self) -> Integrations {
        self.integrations_by(hasty())
    }

    pub(crate) fn integrations_by(&self, forwarder: ForwarderSettings) -> Integrations {
        let settings = Settings {
            forwarder,
            network: NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() },
            integrations_max: 3,
            ..Settings::default()
        };
        Integrations::open(&self.file, sealer(), settings).unwrap()
    }

    pub(crate) async fn notice(&self, notice: &Notice) {
        let record = NewRecord {
            kind: Kind::new(EventKind::Notice.code()),
            device: DeviceKey::NONE,
            received_at: SystemTime::now().into(),
            body: notice.encode(),
        };
        self.log.append(vec![record]).await.unwrap();
    }

    /// Appends one message with one byte of payload for each pair of device and byte.
    pub(crate) async fn send(&self, messages: &[(u64, u8)]) {
        let records = messages.iter().map(|(device, byte)| message(*device, &[*byte])).collect();
        self.log.append(records).await.unwrap();
    }
}

pub(crate) fn message(device: u64, payload: &[u8]) -> NewRecord {
    let telemetry = Telemetry {
        identity: Identity {
            iccid: vocabulary::Iccid::from_u64(device).unwrap(),
            imsi: None,
            ip: Some([10, 0, 0, 1].into()),
        },
        class: IdentityClass::SimIp,
        protocol: Protocol::Udp,
        topic: None,
        template: None,
        exchange: None,
        measured: None,
        session: None,
        payload,
    };
    NewRecord {
        kind: Kind::new(EventKind::Telemetry.code()),
        device: DeviceKey::from_u64(device),
        received_at: SystemTime::now().into(),
        body: telemetry.encode(),
    }
}

/// Seals as every other call of it does.
pub(crate) fn sealer() -> Sealer {
    let source = KeySource::Text("7".repeat(64).into());
    Sealer::open(&source, SEALED_FOR).unwrap()
}

pub(crate) fn webhook(url: &str) -> NewIntegration {
    NewIntegration {
        name: "a webhook".to_owned(),
        target: Target::Webhook(WebhookTarget {
            url: url.to_owned(),
            headers: BTreeMap::from([("x-device".to_owned(), ":iccid:/:imsi:".to_owned())]),
            ..WebhookTarget::default()
        }),
        delivery: DeliveryOptions::default(),
        event_types: vec![("TELEMETRY_DATA".to_owned(), None), ("ERROR".to_owned(), None)],
        json_payload_enabled: false,
    }
}

/// `messages` messages of each of `devices` devices, interleaved.
pub(crate) fn interleaved(devices: u64, messages: u8) -> Vec<(u64, u8)> {
    (0..messages).flat_map(|byte| (1..=devices).map(move |device| (device, byte))).collect()
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What reached the other side, in the order of the attempts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) value: String,
    pub(crate) taken: bool,
}

impl Ledger {
    pub(crate) fn note(&self, id: &str, body: &[u8], taken: bool) {
        let event: serde_json::Value = serde_json::from_slice(body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
        let entry = Entry {
            id: id.to_owned(),
            device: text(&event["device"]["iccid"]),
            value: text(&event["payload"]["value"]),
            taken,
        };
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn attempts(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    /// The entries that were taken, the first time each id was.
    pub(crate) fn taken_once(&self) -> Vec<Entry> {
        let mut taken: Vec<Entry> = Vec::new();
        for entry in self.attempts().into_iter().filter(|entry| entry.taken) {
            match taken.iter().find(|other| other.id == entry.id) {
                Some(other) => assert_eq!(other, &entry, "one id, one content"),
                None => taken.push(entry),
            }
        }
        taken
    }

    /// Each device's messages arrived in their order, and all of them.
    pub(crate) fn assert_complete_and_in_order(&self, devices: u64, messages: u8) {
        let mut by_device: HashMap<String, Vec<String>> = HashMap::new();
        for entry in self.taken_once() {
            by_device.entry(entry.device).or_default().push(entry.value);
        }
        assert_eq!(by_device.len() as u64, devices);
        let expected: Vec<String> = (0..messages).map(base64_of).collect();
        for (device, values) in by_device {
            assert_eq!(values, expected, "device {device}");
        }
    }
}

pub(crate) fn base64_of(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte])
}

pub(crate) async fn until_async<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
