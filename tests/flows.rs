//! One message from the device's socket to the webhook and the Inspector.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, coap_post, eventually, one_sim};

const ICCID: &str = "8988280666000002864";

/// Events as the webhook got them.
pub(crate) fn receiver() -> (simulator::Receiver, Arc<Mutex<Vec<Value>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let receiver = simulator::Receiver::start(simulator::ReceiverOptions {
        on_delivery: Some(Box::new(move |delivery: &simulator::Delivery| {
            kept.lock().unwrap().push(serde_json::from_slice(&delivery.body).unwrap());
        })),
        ..simulator::ReceiverOptions::default()
    })
    .unwrap();
    (receiver, events)
}

fn template() -> Value {
    json!({ "sense": [
        { "asset": "Temperature", "value": { "byte": 0, "bytelength": 2, "type": "int" } },
        { "asset": "Humidity", "value": { "byte": 2, "bytelength": 2, "type": "int" } },
        { "asset": "Switch", "value": { "byte": 4, "type": "boolean" } },
    ]})
}

#[test]
fn a_datagram_and_a_coap_post_arrive_decoded() {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.77")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    api.template(&template());
    let (receiver, events) = receiver();
    api.webhook(&format!("{}?iccid=:iccid:", receiver.url()));

    let device = UdpSocket::bind("127.0.0.77:0").unwrap();
    device.send_to(&[0x00, 0x1a, 0x00, 0x37, 0x00], gateway.udp).unwrap();
    // Two listeners have no order between them.
    eventually("the datagram is stored", || {
        let labels = ["protocol=\"UDP\"", "outcome=\"stored\""];
        (gateway.metric("simgate_messages_total", &labels) == 1.0).then_some(())
    });
    let answer = coap_post(&device, gateway.coap, 1, Some("t=some/topic"), &[0, 27, 0, 56, 1]);
    assert_eq!(answer, (204, vec![]));

    let received = eventually("both events at the webhook", || {
        let events = events.lock().unwrap();
        let telemetry: Vec<Value> =
            events.iter().filter(|event| event["type"] == "TELEMETRY_DATA").cloned().collect();
        (telemetry.len() == 2).then_some(telemetry)
    });
    let udp = received.iter().find(|event| event["source"] == "UDP").unwrap();
    assert_eq!(udp["payload"]["type"], "JSON");
    assert_eq!(
        udp["payload"]["value"],
        json!({ "Temperature": 26, "Humidity": 55, "Switch": false })
    );
    assert_eq!(
        udp["device"],
        json!({ "iccid": ICCID, "imsi": "901405100002864", "ip": "127.0.0.77" })
    );
    assert_eq!(udp["version"], "1.0.0");
    let coap = received.iter().find(|event| event["source"] == "COAP").unwrap();
    assert_eq!(coap["payload"]["topic"], "some/topic");
    assert_eq!(coap["payload"]["value"]["Switch"], true);

    let lifecycle: Vec<Value> = eventually("the first contact", || {
        let events = events.lock().unwrap();
        let found: Vec<Value> =
            events.iter().filter(|event| event["type"] == "LIFECYCLE").cloned().collect();
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(lifecycle.len(), 1);
    assert_eq!(lifecycle[0]["lifecycle"]["type"], "DEVICE_FIRST_TIME_REGISTERED");

    let history = api.get(&format!("/v1/inspect/devices/{ICCID}/history"));
    let items = history["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["protocol"], "COAP");
    assert_eq!(items[0]["topic"], "some/topic");
    assert_eq!(items[1]["payload"], r#"{"Temperature":26,"Humidity":55,"Switch":false}"#);
    assert!(gateway.terminate().success());
}

#[test]
fn a_payload_too_short_for_the_template_is_kept_and_said() {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.78")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    api.template(&template());
    let (receiver, events) = receiver();
    api.webhook(&receiver.url());

    let device = UdpSocket::bind("127.0.0.78:0").unwrap();
    assert_eq!(coap_post(&device, gateway.coap, 7, None, &[1, 2]).0, 204);

    let error = eventually("the ERROR event", || {
        events.lock().unwrap().iter().find(|event| event["type"] == "ERROR").cloned()
    });
    assert_eq!(error["error"]["message"], "Translator[UserPayloadError]");
    let description = "Asset path:Humidity, Error: can't extract [2:4] from 2 bytes";
    assert_eq!(error["error"]["description"], description);
    assert_eq!(error["error"]["payloadExists"], true);
    let logs = api.get("/v1/administrationLogs?q=category:error");
    assert_eq!(logs["items"][0]["description"], description);
    assert_eq!(logs["items"][0]["iccid"], ICCID);
    let telemetry =
        events.lock().unwrap().iter().filter(|event| event["type"] == "TELEMETRY_DATA").count();
    assert_eq!(telemetry, 0, "a message that cannot be decoded is not pushed");
}

#[test]
fn unknown_and_disabled_sims_are_refused() {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.79")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let stranger = UdpSocket::bind("127.0.0.80:0").unwrap();
    let (code, body) = coap_post(&stranger, gateway.coap, 1, None, b"x");
    assert_eq!(code, 401);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["statusText"], "Unauthorized");
    assert!(body["errors"].is_array());
    stranger.send_to(b"x", gateway.udp).unwrap();
    eventually("the refused datagram is counted", || {
        let labels = ["protocol=\"UDP\"", "outcome=\"unauthorised\""];
        (gateway.metric("simgate_messages_total", &labels) == 1.0).then_some(())
    });

    let device = UdpSocket::bind("127.0.0.79:0").unwrap();
    assert_eq!(coap_post(&device, gateway.coap, 1, None, b"x").0, 204);
    let path = format!("/simgate/v1/sims/{ICCID}");
    let (status, _) = api.call("PATCH", &path, Some(json!({ "status": "Disabled" })));
    assert_eq!(status, 200);
    let mut message_id = 2;
    eventually("the disabled SIM is refused", || {
        message_id += 1;
        (coap_post(&device, gateway.coap, message_id, None, b"x").0 == 401).then_some(())
    });
    let logged = eventually("the refusal in the administration log", || {
        let logs = api.get(&format!("/v1/administrationLogs?q=iccid:{ICCID},category:error"));
        logs["items"].get(0).cloned()
    });
    assert_eq!(logged["message"], "DeviceAuthenticator[Unauthorized]");
}

#[test]
fn a_dead_webhook_delays_no_device_and_loses_nothing_over_a_restart() {
    let mut place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.81")).status.success());
    let gateway = place.start();
    place.keep_ports(&gateway);
    let api = place.api(&gateway);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    api.webhook(&format!("http://{address}/events"));
    let device = UdpSocket::bind("127.0.0.81:0").unwrap();
    for number in 0..20_u8 {
        assert_eq!(coap_post(&device, gateway.coap, u16::from(number), None, &[number]).0, 204);
    }
    gateway.kill();

    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let _receiver = simulator::Receiver::start(simulator::ReceiverOptions {
        address,
        on_delivery: Some(Box::new(move |delivery: &simulator::Delivery| {
            let event: Value = serde_json::from_slice(&delivery.body).unwrap();
            if event["type"] == "TELEMETRY_DATA" {
                let value = event["payload"]["value"].as_str().unwrap();
                kept.lock().unwrap().push(value.to_owned());
            }
        })),
        ..simulator::ReceiverOptions::default()
    })
    .unwrap();
    let gateway = place.start();
    eventually("all twenty events", || (events.lock().unwrap().len() >= 20).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    let mut seen = events.lock().unwrap().clone();
    seen.dedup();
    let expected: Vec<String> = (0..20_u8).map(base64_of_byte).collect();
    assert_eq!(seen, expected, "in the order of the device");
    assert!(gateway.terminate().success());
}

/// A message that its template cannot read is not lost: the template is mended, a dry run shows
/// what that changes, and a replay delivers it under its old id.
#[test]
fn a_mended_template_delivers_what_the_old_one_could_not() {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.82")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let made = api.template(&template());
    let (receiver, events) = receiver();
    let webhook = api.webhook(&receiver.url());

    let device = UdpSocket::bind("127.0.0.82:0").unwrap();
    // The second one is too short for the template.
    assert_eq!(coap_post(&device, gateway.coap, 1, None, &[0, 26, 0, 55, 0]).0, 204);
    assert_eq!(coap_post(&device, gateway.coap, 2, None, &[0, 27]).0, 204);
    let named = |name: &str| {
        let events = events.lock().unwrap();
        events.iter().filter(|event| event["type"] == name).cloned().collect::<Vec<Value>>()
    };
    let first = eventually("the first message and the error", || {
        (!named("ERROR").is_empty()).then(|| named("TELEMETRY_DATA"))
    });
    assert_eq!(first.len(), 1, "{first:?}");

    let mended = json!({ "sense": [
        { "asset": "Celsius", "value": { "byte": 0, "bytelength": 2, "type": "int" } },
    ]});
    let path = format!("/v1/optimize/templates/{}", made["id"].as_str().unwrap());
    let change = json!({ "template": mended.to_string() });
    assert_eq!(api.call("PATCH", &path, Some(change)).0, 200);
    let mut replay = json!({ "integrationIds": [webhook["id"]], "templates": "ACTIVE" });
    replay["dryRun"] = json!(true);
    let preview = api.post("/simgate/v1/replays", replay.clone());
    let counts = &preview["counts"];
    assert_eq!((&counts["messages"], &counts["repaired"]), (&json!(2), &json!(1)), "{preview}");
    assert_eq!(counts["changed"], 1, "{preview}");
    assert_eq!(named("TELEMETRY_DATA").len(), 1, "a dry run delivers nothing");

    replay["dryRun"] = json!(false);
    let begun = api.post("/simgate/v1/replays", replay);
    let replayed = eventually("both messages again", || {
        let again = named("TELEMETRY_DATA").split_off(1);
        (again.len() == 2).then_some(again)
    });
    assert_eq!(replayed[0]["id"], first[0]["id"], "the id of its day");
    let values: Vec<&Value> = replayed.iter().map(|event| &event["payload"]["value"]).collect();
    assert_eq!(values, [&json!({ "Celsius": 26 }), &json!({ "Celsius": 27 })]);
    assert!(replayed.iter().all(|event| event["replayed"] == true));
    let id = begun[0]["id"].as_str().unwrap().to_owned();
    let ended = eventually("the end of the replay", || {
        let shown = api.get(&format!("/simgate/v1/replays/{id}"));
        (shown["state"] == "DONE").then_some(shown)
    });
    assert_eq!((&ended["delivered"], &ended["failed"]), (&json!(2), &json!(0)));
    assert!(gateway.terminate().success());
}

/// Base 64 of a single byte: two digits and two signs of padding.
fn base64_of_byte(byte: u8) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let first = char::from(digits[usize::from(byte >> 2)]);
    let second = char::from(digits[usize::from((byte & 3) << 4)]);
    format!("{first}{second}==")
}
