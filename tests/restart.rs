//! What a gateway promised is kept when it is killed or stopped at any moment.
//!
//! Simulated devices remember each acknowledgement; at the end their ledger is compared with the
//! message log.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::{BASE, Behaviour, Fleet, KeySource, Plan, Protocol, Security};

use crate::support::{Load, Place, Probe, Store, eventually, plan, random_time};

/// Devices of the fleet; one more is the probe.
const DEVICES: u32 = 200;

/// How long a restart may take on a slow machine that also runs other tests. The promise is 2 s
/// for the program as it is released; what was measured is printed.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A place with a fleet and the probe's SIM.
fn place_with_fleet() -> (Place, Fleet) {
    let mut place = Place::with_ports_of_its_own();
    // Small segments, so that kills also hit the change of a segment and its sealing.
    place.set("SIMGATE_DATA_SEGMENT_RECORDS_MAX", "5000");
    place.set("SIMGATE_LOG_FILTER", "warn");
    let fleet = Fleet::new(BASE, DEVICES + 1).unwrap();
    place.import_fleet(&fleet);
    (place, fleet)
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { panic!("{address} is no address of IPv4") };
    address
}

fn kills() -> u32 {
    std::env::var("SIMGATE_TEST_KILLS").map_or(50, |kills| kills.parse().unwrap())
}

#[test]
fn what_was_acknowledged_is_there_after_each_sigkill_and_nothing_has_two_ids() {
    let (place, fleet) = place_with_fleet();
    let mut gateway = place.start();
    let mut probe = Probe::new(fleet.address(DEVICES), gateway.coap);
    let load = Load::start(plan(gateway.coap, DEVICES, simulator::Load::Outstanding(64)));
    let (mut ready, mut acknowledging) = (Duration::ZERO, Duration::ZERO);
    for round in 0..kills() {
        std::thread::sleep(random_time(100, 1_000));
        gateway.kill();
        if round % 5 == 4 {
            // A start is a moment like any other.
            let mut starting = place.spawn(&["serve"]);
            std::thread::sleep(random_time(0, 300));
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        let spawned = Instant::now();
        gateway = place.start();
        ready = ready.max(spawned.elapsed());
        probe.until_acknowledged();
        acknowledging = acknowledging.max(spawned.elapsed());
    }
    let (ledger, report) = load.stop();
    assert!(gateway.terminate().success());
    println!(
        "{} kills: {} messages acknowledged, {} retransmitted; worst restart: ready after \
         {ready:.2?}, first acknowledgement after {acknowledging:.2?}",
        kills(),
        ledger.acknowledged(),
        report.counts.retransmitted,
    );
    assert!(acknowledging < RESTART_MAX, "a restart took {acknowledging:?}");
    let store = Store::read(&place.messages());
    store.agrees_with(&ledger, &fleet);
    let probed = store.numbers(fleet.iccid(DEVICES).unwrap());
    let lost = probe.acknowledged.iter().find(|number| !probed.contains(number));
    assert_eq!(lost, None, "an acknowledged message of the probe is lost");
    assert!(ledger.acknowledged() > u64::from(kills()) * 100, "the load was none: {report:?}");
    assert_eq!(report.counts.rejected_total(), 0, "{report:?}");
}

#[test]
fn sessions_and_what_was_acknowledged_in_them_outlive_each_sigkill() {
    let (place, fleet) = place_with_fleet();
    let mut gateway = place.start();
    let security = Security {
        keys: KeySource::Bootstrap(Some(v4(gateway.coap))),
        // Patience: a device that makes a new session by itself would hide that one was lost.
        reconnect_after: 17,
        ..Security::default()
    };
    let load = Load::start(Plan {
        protocol: Protocol::Coaps,
        security,
        ..plan(gateway.coaps, DEVICES, simulator::Load::Outstanding(32))
    });
    // Sessions are saved every two seconds.
    std::thread::sleep(Duration::from_secs(5));
    for _ in 0..8 {
        std::thread::sleep(random_time(100, 1_500));
        gateway.kill();
        gateway = place.start();
    }
    std::thread::sleep(Duration::from_secs(1));
    let (ledger, report) = load.stop();
    assert!(gateway.terminate().success());
    let sessions = report.dtls.as_ref().unwrap();
    assert_eq!(sessions.counts.handshakes_completed, u64::from(DEVICES), "{sessions:?}");
    assert_eq!((report.counts.lost, report.counts.rejected_total()), (0, 0), "{report:?}");
    assert!(ledger.acknowledged() > 1_000, "the load was none: {report:?}");
    Store::read(&place.messages()).agrees_with(&ledger, &fleet);
}

#[test]
fn sigterm_under_load_ends_within_ten_seconds_in_order() {
    let (place, fleet) = place_with_fleet();
    let mut gateway = place.start();
    let load = Load::start(plan(gateway.coap, DEVICES, simulator::Load::Outstanding(64)));
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        std::thread::sleep(random_time(100, 700));
        let asked = Instant::now();
        assert!(gateway.terminate().success());
        slowest = slowest.max(asked.elapsed());
        let options = message_log::Options::default();
        let (log, opened) = message_log::MessageLog::open(&place.messages(), options).unwrap();
        assert!(opened.was_clean, "{opened:?}");
        assert_eq!((opened.damaged, opened.quarantined), (0, 0));
        log.close();
        gateway = place.start();
        let durability = "durability  D1 local";
        assert!(gateway.greeting.iter().any(|line| line.starts_with(durability)));
    }
    let (ledger, report) = load.stop();
    assert!(gateway.terminate().success());
    println!("5 stops: {} acknowledged, slowest after {slowest:.2?}", ledger.acknowledged());
    assert!(slowest < Duration::from_secs(10), "a stop took {slowest:?}");
    assert_eq!((report.counts.lost, report.unanswered), (0, 0), "{report:?}");
    let store = Store::read(&place.messages());
    store.agrees_with(&ledger, &fleet);
    assert_eq!(store.records, ledger.sent(), "every message was repeated until it was stored");
}

#[test]
fn a_killed_import_is_repeated_and_the_gateway_beside_it_goes_on() {
    let place = Place::new();
    let fleet = Fleet::new(BASE, 20_000).unwrap();
    place.import_fleet(&Fleet::new(BASE, 1).unwrap());
    let gateway = place.start();
    let mut probe = Probe::new(fleet.address(0), gateway.coap);
    let file = place.folder.path().join("fleet.csv");
    fleet.write_csv(std::fs::File::create(&file).unwrap()).unwrap();
    let arguments = ["sims", "import", file.to_str().unwrap()];
    for _ in 0..8 {
        let mut import = place.spawn(&arguments);
        std::thread::sleep(random_time(5, 300));
        import.kill().unwrap();
        import.wait().unwrap();
        probe.until_acknowledged();
    }
    assert!(place.run(&arguments).status.success());
    let again = place.run(&arguments);
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(said.contains("0 SIMs created, 0 updated, 20000 unchanged, 0 lines"), "{said}");
    Probe::new(fleet.address(19_999), gateway.coap).until_acknowledged();
    probe.until_acknowledged();
    assert!(gateway.terminate().success());
}

/// The deliveries of one device: its numbers and the ids that they came with, as they arrived.
type Deliveries = HashMap<String, Vec<(u64, String)>>;

/// A webhook that notes what arrives.
fn noting_webhook() -> (simulator::Receiver, Arc<Mutex<Deliveries>>) {
    let deliveries = Arc::new(Mutex::new(Deliveries::new()));
    let noted = Arc::clone(&deliveries);
    let receiver = simulator::Receiver::start(simulator::ReceiverOptions {
        keep: 0,
        on_delivery: Some(Box::new(move |delivery: &simulator::Delivery| {
            let event: Value = serde_json::from_slice(&delivery.body).unwrap();
            if event["type"] == "TELEMETRY_DATA" {
                let number = event["payload"]["value"]["number"].as_u64().unwrap();
                let id = delivery.headers["webhook-id"].to_str().unwrap().to_owned();
                let device = event["device"]["iccid"].as_str().unwrap().to_owned();
                noted.lock().unwrap().entry(device).or_default().push((number, id));
            }
        })),
        ..simulator::ReceiverOptions::default()
    })
    .unwrap();
    (receiver, deliveries)
}

#[test]
fn after_sigkill_a_webhook_gets_every_event_in_order_and_repeats_with_the_same_id() {
    let place = Place::with_ports_of_its_own();
    let fleet = Fleet::new(BASE, 50).unwrap();
    place.import_fleet(&fleet);
    let mut gateway = place.start();
    let api = place.api(&gateway);
    api.template(&json!({ "sense": [
        { "asset": "number", "value": { "byte": 4, "bytelength": 4, "type": "uint" } },
    ]}));
    let (receiver, deliveries) = noting_webhook();
    api.webhook(&receiver.url());
    // 50 devices with one event at a time get at most 800 of 1,000 a second delivered, so that
    // there is always something under way when the gateway is killed.
    receiver.behave(Behaviour::AnswerAfter(200, Duration::from_millis(60)));

    let load = Load::start(plan(gateway.coap, 50, simulator::Load::PerSecond(1_000)));
    for _ in 0..6 {
        std::thread::sleep(random_time(200, 900));
        gateway.kill();
        gateway = place.start();
    }
    let (ledger, report) = load.stop();
    receiver.behave(Behaviour::Answer(200));
    assert_eq!((report.counts.lost, report.unanswered), (0, 0), "{report:?}");
    let arrived = |device: &[(u64, String)]| {
        device.iter().map(|(number, _)| *number).collect::<std::collections::HashSet<_>>().len()
    };
    let last = eventually("all events at the webhook", || {
        let deliveries = deliveries.lock().unwrap();
        let count: usize = deliveries.values().map(|device| arrived(device)).sum();
        (count as u64 == ledger.sent()).then(|| deliveries.clone())
    });
    assert!(gateway.terminate().success());
    let store = Store::read(&place.messages());
    store.agrees_with(&ledger, &fleet);
    let mut repeated = 0;
    for (iccid, stored) in &store.devices {
        let got = &last[&iccid.to_string()];
        repeated += got.len() - stored.len();
        let mut done = 0;
        for (number, id) in got {
            let place = stored.iter().position(|(stored, _)| stored == number).unwrap();
            assert!(place <= done, "message {number} overtook one of its device");
            done = done.max(place + 1);
            assert_eq!(*id, stored[place].1.to_string(), "the id of message {number}");
        }
        assert_eq!(done, stored.len());
    }
    println!("{} events over 6 kills, {repeated} came twice", ledger.sent());
}
