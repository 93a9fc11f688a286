//! A customer's endpoint is gone for an hour, and the gateway is killed meanwhile.
//!
//! Time is scaled: the gateway is configured with waits that are 180 times shorter than those of
//! its defaults, so that twenty seconds are an hour.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use simulator::{BASE, Behaviour, COUNTER_BYTES, Fleet, Receiver, ReceiverOptions};

use crate::support::{Load, Place, eventually, own_port, plan};

/// Devices that send.
const DEVICES: u32 = 100;

/// An hour.
const OUTAGE: Duration = Duration::from_secs(20);

/// Half an hour.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The documented waits of messages and of the breaker, 180 times shorter.
fn in_scaled_time(place: &mut Place) {
    let waits = r#"["28ms", "167ms", "667ms", "1667ms", "5s", "20s", "40s", "80s", "160s", "240s", "480s", "480s"]"#;
    place.set("SIMGATE_INTEGRATIONS_RETRY_WAITS", waits);
    place.set("SIMGATE_INTEGRATIONS_BREAKER_PAUSE", "28ms");
    place.set("SIMGATE_INTEGRATIONS_BREAKER_PAUSE_MAX", "1667ms");
    place.set("SIMGATE_LOG_FILTER", "warn");
}

/// What the endpoint has taken, in its order.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Message>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    id: String,
    device: String,
    number: u64,
}

impl Taken {
    /// An endpoint at `address` that takes everything.
    fn receiver(&self, address: SocketAddr) -> Receiver {
        let taken = self.clone();
        let options = ReceiverOptions {
            address,
            keep: 0,
            on_delivery: Some(Box::new(move |delivery| {
                if delivery.behaviour == Behaviour::Answer(200) {
                    let id = delivery.headers["webhook-id"].to_str().unwrap();
                    taken.note(id, &serde_json::from_slice(&delivery.body).unwrap());
                }
            })),
            ..ReceiverOptions::default()
        };
        Receiver::start(options).unwrap()
    }

    fn note(&self, id: &str, event: &Value) {
        if event["type"] != "TELEMETRY_DATA" {
            return;
        }
        let text = event["payload"]["value"].as_str().unwrap();
        let payload = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let (number, _) = payload.split_first_chunk::<COUNTER_BYTES>().unwrap();
        self.0.lock().unwrap().push(Message {
            id: id.to_owned(),
            device: event["device"]["iccid"].as_str().unwrap().to_owned(),
            number: u64::from_be_bytes(*number),
        });
    }

    /// Each message, the first time that it came; all copies of one are the same.
    fn once(&self) -> Vec<Message> {
        let mut by_id: HashMap<String, Message> = HashMap::new();
        let mut once = Vec::new();
        for message in self.0.lock().unwrap().iter() {
            match by_id.get(&message.id) {
                Some(first) => assert_eq!(first, message, "one id, one content"),
                None => {
                    by_id.insert(message.id.clone(), message.clone());
                    once.push(message.clone());
                }
            }
        }
        once
    }

    /// Waits until all of `numbers` were taken; says how long that took.
    fn until_all(&self, numbers: &HashSet<u64>) -> Duration {
        let start = Instant::now();
        eventually("all that was acknowledged", || {
            let taken: HashSet<u64> = self.once().iter().map(|message| message.number).collect();
            numbers.is_subset(&taken).then(|| start.elapsed())
        })
    }
}

/// Runs `outage` between two times of good delivery, with a SIGKILL in its middle, and checks what
/// is promised.
fn deliver_through(
    outage: impl Fn(&Taken, Option<Receiver>, SocketAddr, bool) -> Option<Receiver>,
) -> String {
    let mut place = Place::with_ports_of_its_own();
    in_scaled_time(&mut place);
    let fleet = Fleet::new(BASE, DEVICES).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    let api = place.api(&gateway);
    let (taken, address) = (Taken::default(), own_port());
    let receiver = taken.receiver(address);
    let webhook = api.webhook(&receiver.url());
    let load = Load::start(plan(gateway.coap, DEVICES, simulator::Load::PerSecond(150)));
    eventually("the first deliveries", || (taken.once().len() > 100).then_some(()));

    let receiver = outage(&taken, Some(receiver), address, true);
    std::thread::sleep(OUTAGE / 2);
    gateway.kill();
    let gateway = place.start();
    std::thread::sleep(OUTAGE / 2);
    let receiver = outage(&taken, receiver, address, false);

    let back = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let (ledger, report) = load.stop();
    let acknowledged: HashSet<u64> = ledger.acknowledged_numbers().collect();
    assert!(acknowledged.len() > 2_000, "{report:?}");
    taken.until_all(&acknowledged);
    let drained = back.elapsed();
    let all = taken.0.lock().unwrap().len();
    let once = taken.once();
    let summary = format!(
        "{} acknowledged, all delivered {drained:.2?} after the end of the outage, {} duplicates",
        acknowledged.len(),
        all - once.len(),
    );
    assert!(drained < DRAIN_MAX, "half an hour: {drained:?}");
    // Ids rise in the order in which messages were stored.
    let mut last: HashMap<&str, &str> = HashMap::new();
    for message in &once {
        let before = last.insert(&message.device, &message.id);
        assert!(before < Some(&message.id), "the order of {}", message.device);
    }
    let api = place.api(&gateway);
    let id = webhook["id"].as_str().unwrap();
    let dead = api.get(&format!("/simgate/v1/integrations/{id}/deadLetters"));
    assert_eq!(dead["items"], json!([]), "no dead letters");
    let found = api.get(&format!("/v1/integrate/clouds/{id}"));
    assert_eq!(found["state"], "INTEGRATION_ACTIVE");
    drop(receiver);
    assert!(gateway.terminate().success());
    summary
}

#[test]
fn an_hour_without_an_endpoint_and_a_sigkill_lose_nothing_and_bury_nothing() {
    let summary = deliver_through(|taken, receiver, address, begins| {
        drop(receiver);
        (!begins).then(|| taken.receiver(address))
    });
    println!("{summary}");
}

#[test]
fn an_hour_of_errors_and_a_sigkill_lose_nothing_and_bury_nothing() {
    let summary = deliver_through(|_, receiver, _, begins| {
        let behaviour = if begins { Behaviour::Answer(500) } else { Behaviour::Answer(200) };
        receiver.as_ref().unwrap().behave(behaviour);
        receiver
    });
    println!("{summary}");
}
