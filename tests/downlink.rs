//! Requests to devices: on the wire as documented, when they are sent, and what becomes of them.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use coap::wire::{Code, MessageType};
use serde_json::{Value, json};

use crate::support::{
    Api, Gateway, Heard, Place, ScriptedDevice, SecureDevice, TEXT, coap_post, eventually, sims,
};

const ICCID: &str = "8988280666000002890";
const OTHER: &str = "8988280666000002891";
const KEY: &str = "a key for a test";
const ACTIONS: &str = "/v1/integrate/devices/actions";

/// A gateway with a SIM at `address`.
fn world(address: &str) -> (Place, Gateway, Api) {
    let place = Place::with_ports_of_its_own();
    assert!(place.import(&sims(&[(ICCID, address)])).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    (place, gateway, api)
}

fn datagram(port: u16, payload: &str, mode: &str) -> Value {
    json!({ "payload": payload, "payloadType": "STRING", "port": port, "requestMode": mode })
}

fn coap_get(port: u16, path: &str, mode: &str) -> Value {
    json!({ "port": port, "path": path, "requestType": "GET", "requestMode": mode })
}

fn status(api: &Api, id: &str) -> String {
    api.action(id)["status"].as_str().unwrap().to_owned()
}

/// The next datagram as text.
fn text(device: &ScriptedDevice) -> String {
    let datagram = device.next_datagram(Duration::from_secs(20)).expect("a datagram");
    String::from_utf8(datagram).unwrap()
}

fn hears_nothing(device: &ScriptedDevice) -> bool {
    device.next_datagram(Duration::from_millis(500)).is_none()
}

#[test]
fn a_datagram_arrives_as_it_was_given() {
    let (_place, gateway, api) = world("127.0.7.1");
    let device = ScriptedDevice::new("127.0.7.1", gateway.udp);
    let id = api.act(ICCID, "UDP", datagram(device.port(), "open the valve", "SEND_NOW"));
    assert_eq!(text(&device), "open the valve");
    assert_eq!(api.ended(&id)["status"], "SUCCEEDED");
    let bytes = json!({ "payload": "AP8=", "payloadType": "BASE64", "port": device.port() });
    api.act(ICCID, "UDP", bytes);
    assert_eq!(device.next_datagram(Duration::from_secs(20)).unwrap(), [0x00, 0xff]);
    assert!(gateway.terminate().success());
}

#[test]
fn a_coap_request_arrives_as_documented_and_may_be_answered_from_another_port() {
    let (_place, gateway, api) = world("127.0.7.2");
    let mut device = ScriptedDevice::new("127.0.7.2", gateway.coap);
    let body = json!({
        "payload": "Data to send to the device", "payloadType": "STRING", "port": device.port(),
        "path": "/example/more?param1=query_example1&b=2", "requestType": "POST",
    });
    let id = api.act(ICCID, "COAP", body);
    let asked = device.asked();
    assert_eq!((asked.kind, asked.code), (MessageType::Confirmable, Code::POST));
    assert_eq!(asked.token.len(), 8);
    assert_eq!(asked.path, "/example/more");
    assert_eq!(asked.query, ["param1=query_example1", "b=2"]);
    assert_eq!(asked.format, Some(0));
    assert_eq!(asked.text(), "Data to send to the device");
    assert_eq!(status(&api, &id), "IN_PROGRESS");
    let mut other_port = ScriptedDevice::new("127.0.7.2", gateway.coap);
    other_port.answer(&asked, Code::CHANGED, Some((TEXT, b"done")));
    let ended = api.ended(&id);
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    let result = json!({ "code": "204", "payload": "done", "payloadType": "TEXT" });
    assert_eq!(ended["resultData"], result);

    // Another SIM's answer is none.
    let id = api.act(ICCID, "COAP", coap_get(device.port(), "/", "SEND_NOW"));
    let asked = device.asked();
    let mut stranger = ScriptedDevice::new("127.0.7.3", gateway.coap);
    stranger.answer(&asked, Code::CONTENT, Some((TEXT, b"wrong")));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(status(&api, &id), "IN_PROGRESS");
    device.answer(&asked, Code::NOT_FOUND, None);
    let ended = api.ended(&id);
    assert_eq!((&ended["status"], &ended["resultData"]["code"]), (&json!("FAILED"), &json!("404")));
    assert!(gateway.terminate().success());
}

#[test]
fn an_answer_may_come_later_than_the_acknowledgement() {
    let (_place, gateway, api) = world("127.0.7.4");
    let mut device = ScriptedDevice::new("127.0.7.4", gateway.coap);
    let id = api.act(ICCID, "COAP", coap_get(device.port(), "/slow", "SEND_NOW"));
    let asked = device.asked();
    device.to = asked.from;
    let [high, low] = asked.id.to_be_bytes();
    device.say(&[0x60, 0, high, low]);
    std::thread::sleep(Duration::from_secs(3));
    let late = device.notification(&asked.token, None, (TEXT, b"late"));
    assert_eq!(device.taken(&late), Some(MessageType::Acknowledgement));
    assert_eq!(api.ended(&id)["resultData"]["payload"], "late");
    assert!(device.next().is_none(), "an acknowledged request is not sent again");
    assert!(gateway.terminate().success());
}

#[test]
fn any_sign_of_life_sends_what_waits_in_order_and_one_at_a_time() {
    let (_place, gateway, api) = world("127.0.7.5");
    let mut device = ScriptedDevice::new("127.0.7.5", gateway.lwm2m);
    let registration = device.register(ICCID, 600, "</3303/0>");
    let sensor = UdpSocket::bind("127.0.7.5:0").unwrap();
    let mut listening = ScriptedDevice::new("127.0.7.5", gateway.coap);
    let port = listening.port();
    for trigger in ["UDP", "COAP", "LWM2M"] {
        let mode = "SEND_WHEN_ACTIVE";
        let read = json!({
            "action": "read", "resourceAddress": "/3303/0/5700", "requestMode": mode,
        });
        let first = api.act(ICCID, "COAP", coap_get(port, "/first", mode));
        let second = api.act(ICCID, "LWM2M", read);
        let third = api.act(ICCID, "COAP", coap_get(port, "/third", mode));
        assert!(listening.next().is_none(), "nothing is sent to a silent device");
        for id in [&first, &second, &third] {
            assert_eq!(status(&api, id), "SCHEDULED");
        }
        match trigger {
            "UDP" => drop(sensor.send_to(b"x", gateway.udp).unwrap()),
            "COAP" => assert_eq!(coap_post(&sensor, gateway.coap, 1, None, b"x").0, 204),
            _ => assert_eq!(device.ask(Code::POST, &registration, None).code, Code::CHANGED),
        }
        let asked = listening.asked();
        assert_eq!(asked.path, "/first", "{trigger}");
        assert!(device.next().is_none(), "one at a time");
        listening.answer(&asked, Code::CONTENT, None);
        let asked = device.asked();
        assert_eq!(asked.path, "/3303/0/5700", "{trigger}");
        assert!(listening.next().is_none(), "one at a time");
        device.answer(&asked, Code::CONTENT, Some((TEXT, b"1.5")));
        let asked = listening.asked();
        assert_eq!(asked.path, "/third", "{trigger}");
        listening.answer(&asked, Code::CONTENT, None);
        for id in [&first, &second, &third] {
            assert_eq!(api.ended(id)["status"], "SUCCEEDED", "{trigger}");
        }
    }
    assert!(gateway.terminate().success());
}

#[test]
fn ten_requests_may_wait_and_can_be_cancelled() {
    let (_place, gateway, api) = world("127.0.7.6");
    let device = ScriptedDevice::new("127.0.7.6", gateway.udp);
    let body = || datagram(device.port(), "x", "SEND_WHEN_ACTIVE");
    let ids: Vec<String> = (0..10).map(|_| api.act(ICCID, "UDP", body())).collect();
    let path = format!("/v1/integrate/devices/{ICCID}/actions/UDP");
    assert_eq!(api.call("POST", &path, Some(body())).0, 409);
    let one = format!("{ACTIONS}/requests/{}", ids[4]);
    let (code, cancelled) = api.call("DELETE", &one, None);
    assert_eq!((code, &cancelled["status"]), (200, &json!("CANCELLED")));
    assert_eq!(api.call("DELETE", &one, None).0, 409);
    assert_eq!(api.call("POST", &path, Some(body())).0, 202, "there is a place again");
    let (code, all) =
        api.call("DELETE", &format!("/v1/integrate/devices/{ICCID}/actions/requests"), None);
    assert_eq!((code, all.as_array().unwrap().len()), (200, 10), "{all}");
    let shelf = |name: &str| {
        let page = api.get(&format!("{ACTIONS}/requests/{name}?deviceId={ICCID}&pageSize=20"));
        page["items"].as_array().unwrap().len()
    };
    assert_eq!((shelf("active"), shelf("archived")), (0, 11));
    device.say(b"awake");
    assert!(hears_nothing(&device), "what was cancelled is not sent");
    assert!(gateway.terminate().success());
}

#[test]
fn each_attempt_needs_a_sign_of_life_and_the_last_one_fails() {
    let (_place, gateway, api) = world("127.0.7.7");
    let mut device = ScriptedDevice::new("127.0.7.7", gateway.coap);
    let sensor = UdpSocket::bind("127.0.7.7:0").unwrap();
    let mut body = coap_get(device.port(), "/", "SEND_WHEN_ACTIVE");
    body["sendAttempts"] = 3.into();
    let id = api.act(ICCID, "COAP", body);
    for left in [2, 1, 0] {
        sensor.send_to(b"x", gateway.udp).unwrap();
        let asked = device.asked();
        device.reset(&asked);
        eventually("the end of the attempt", || {
            (api.action(&id)["sendAttemptsLeft"] == left && status(&api, &id) != "IN_PROGRESS")
                .then_some(())
        });
        assert_eq!(status(&api, &id), if left > 0 { "SCHEDULED" } else { "FAILED" });
        assert!(device.next().is_none(), "no attempt without a sign of life");
    }
    let ended = api.action(&id);
    assert!(ended["resultData"]["errorMessage"].as_str().is_some(), "{ended}");
    assert!(gateway.terminate().success());
}

#[test]
fn what_waits_and_what_was_in_flight_outlives_a_crash() {
    let (place, gateway, api) = world("127.0.7.8");
    let mut device = ScriptedDevice::new("127.0.7.8", gateway.coap);
    let waiting = ScriptedDevice::new("127.0.7.8", gateway.udp);
    let later = api.act(ICCID, "UDP", datagram(waiting.port(), "later", "SEND_WHEN_ACTIVE"));
    let now = api.act(ICCID, "COAP", coap_get(device.port(), "/now", "SEND_NOW"));
    assert_eq!(device.asked().path, "/now");
    gateway.kill();
    let gateway = place.start();
    // With another message id: what the process that was killed sent may be on its way, too.
    let asked = device.asked();
    device.answer(&asked, Code::CONTENT, None);
    let api = place.api(&gateway);
    eventually("the end of the request", || {
        if let Some(again) = device.next().filter(|heard| heard.code.is_request()) {
            device.answer(&again, Code::CONTENT, None);
        }
        (status(&api, &now) == "SUCCEEDED").then_some(())
    });
    assert_eq!(status(&api, &later), "SCHEDULED");
    assert!(hears_nothing(&waiting));
    waiting.say(b"awake");
    assert_eq!(text(&waiting), "later");
    assert_eq!(api.ended(&later)["status"], "SUCCEEDED");
    assert!(gateway.terminate().success());
}

#[test]
fn a_device_that_is_not_registered_is_refused_at_once() {
    let (_place, gateway, api) = world("127.0.7.9");
    let read = json!({ "action": "read", "resourceAddress": "/3/0/0" });
    for path in [
        format!("/v1/integrate/devices/{ICCID}/actions/LWM2M"),
        format!("/v1/devices/{ICCID}/actions"),
    ] {
        let (code, answer) = api.call("POST", &path, Some(read.clone()));
        assert_eq!(code, 409, "{answer}");
        assert!(answer.to_string().contains("registered"), "{answer}");
    }
    let mut device = ScriptedDevice::new("127.0.7.9", gateway.lwm2m);
    device.register(ICCID, 600, "</3/0>");
    let id = api.act(ICCID, "LWM2M", read);
    let asked = device.asked();
    device.answer(&asked, Code::CONTENT, Some((TEXT, b"acme")));
    let ended = api.ended(&id);
    assert_eq!(ended["resultData"]["payload"], r#"{"/3/0/0":"acme"}"#, "{ended}");
    // A value that does not fit is not sent.
    let write = json!({ "action": "write", "resourceAddress": "/3/0/13", "data": "noon" });
    let ended = api.ended(&api.act(ICCID, "LWM2M", write));
    assert_eq!(ended["status"], "FAILED");
    assert!(ended["resultData"]["errorMessage"].as_str().unwrap().contains("/3/0/13"), "{ended}");
    assert!(device.next().is_none());
    assert!(gateway.terminate().success());
}

#[test]
fn one_request_goes_to_many_devices() {
    let place = Place::new();
    let csv = sims(&[(ICCID, "127.0.7.10"), (OTHER, "127.0.7.11")]);
    assert!(place.import(&csv).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let first = ScriptedDevice::new("127.0.7.10", gateway.udp);
    // Both listen on one port, as devices of one kind do.
    let second = UdpSocket::bind(("127.0.7.11", first.port())).unwrap();
    let unknown = "8988280666000002899";
    let mut body = datagram(first.port(), "to all", "SEND_NOW");
    body["deviceIds"] = json!([ICCID, OTHER, unknown]);
    let answer = api.post(&format!("{ACTIONS}/UDP"), body);
    assert_eq!(answer["rejectedDevices"], json!([unknown]), "{answer}");
    assert_eq!(text(&first), "to all");
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = [0; 16];
    let length = second.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"to all");
    for accepted in answer["acceptedRequests"].as_array().unwrap() {
        let id = accepted["requestId"].as_str().unwrap();
        assert_eq!(api.ended(id)["status"], "SUCCEEDED");
    }
    let mut body = json!({ "action": "read", "resourceAddress": "/3" });
    body["deviceIds"] = json!([ICCID, OTHER]);
    let answer = api.post(&format!("{ACTIONS}/LWM2M"), body);
    assert_eq!(answer["rejectedDevices"], json!([ICCID, OTHER]), "nobody is registered");
    assert!(gateway.terminate().success());
}

#[test]
fn a_request_to_a_device_with_a_session_goes_through_it() {
    let (_place, gateway, api) = world("127.0.7.12");
    let body = json!({ "secretKey": KEY, "protocol": "COAP" });
    api.post(&format!("/v1/integrate/devices/{ICCID}/psk"), body);
    let open = ScriptedDevice::new("127.0.7.12", gateway.coap);
    let mut device = SecureDevice::connected("127.0.7.12", gateway.coaps, (ICCID, KEY), false);
    assert_eq!(device.post(b"x").unwrap().0, 204);
    let id = api.act(ICCID, "COAP", coap_get(open.port(), "/secret", "SEND_NOW"));
    let asked = Heard::read(gateway.coaps, &device.heard().expect("a request in the session"));
    assert_eq!((asked.code, asked.path.as_str()), (Code::GET, "/secret"));
    let [high, low] = asked.id.to_be_bytes();
    let answer = [&[0x68, 0x45, high, low][..], &asked.token, b"\xffsealed"].concat();
    device.say(&answer);
    let ended = api.ended(&id);
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    // No content format: the payload is not taken for text.
    assert_eq!(ended["resultData"]["payload"], "c2VhbGVk", "{ended}");
    assert!(hears_nothing(&open), "nothing leaves in the clear");
    // An uplink in the session is a sign of life like any other.
    let id = api.act(ICCID, "UDP", datagram(open.port(), "in the clear", "SEND_WHEN_ACTIVE"));
    assert_eq!(device.post(b"y").unwrap().0, 204);
    assert_eq!(text(&open), "in the clear");
    assert_eq!(api.ended(&id)["status"], "SUCCEEDED");
    assert!(gateway.terminate().success());
}

#[test]
fn the_oldest_request_rides_on_the_answer_to_an_uplink_that_asks_for_it() {
    let (_place, gateway, api) = world("127.0.7.13");
    let device = UdpSocket::bind("127.0.7.13:0").unwrap();
    let port = ScriptedDevice::new("127.0.7.13", gateway.udp);
    let ask = |id| coap_post(&device, gateway.coap, id, Some("cmd"), b"measured");
    assert_eq!(ask(1), (204, vec![]), "nothing waits");
    let oldest = api.act(ICCID, "UDP", datagram(port.port(), "open", "SEND_WHEN_ACTIVE"));
    let next = api.act(ICCID, "UDP", datagram(port.port(), "close", "SEND_WHEN_ACTIVE"));
    assert_eq!(ask(2), (204, b"open".to_vec()));
    assert_eq!(api.ended(&oldest)["status"], "SUCCEEDED");
    // The uplink was a sign of life besides: what did not ride is sent.
    assert_eq!(text(&port), "close");
    assert_eq!(api.ended(&next)["status"], "SUCCEEDED");
    assert!(hears_nothing(&port), "what rode is not sent once more");
    assert!(gateway.terminate().success());
}

#[test]
fn a_device_that_never_answers_fails_its_request_with_the_reason() {
    let (_place, gateway, api) = world("127.0.7.14");
    let mut device = ScriptedDevice::new("127.0.7.14", gateway.lwm2m);
    device.register(ICCID, 600, "</3/0>");
    let read = json!({ "action": "read", "resourceAddress": "/3/0/0" });
    let id = api.act(ICCID, "LWM2M", read);
    let asked = device.asked();
    // A request behind it waits for it, and can be taken back.
    let behind = api.act(ICCID, "COAP", coap_get(device.port(), "/", "SEND_NOW"));
    assert_eq!(status(&api, &behind), "SCHEDULED");
    assert_eq!(api.call("DELETE", &format!("{ACTIONS}/requests/{behind}"), None).0, 200);
    // MAX_TRANSMIT_WAIT is 93 s (RFC 7252 section 4.8.2).
    let deadline = Instant::now() + Duration::from_secs(110);
    let mut copies = 0;
    while status(&api, &id) == "IN_PROGRESS" {
        assert!(Instant::now() < deadline, "the request does not end");
        if let Some(again) = device.next() {
            assert_eq!((again.id, &again.token), (asked.id, &asked.token));
            copies += 1;
        }
    }
    assert_eq!(copies, 4, "MAX_RETRANSMIT");
    let ended = api.action(&id);
    assert_eq!(ended["status"], "FAILED", "{ended}");
    let message = ended["resultData"]["errorMessage"].as_str().unwrap();
    assert_eq!(message, "the peer did not respond in time");
    let log = eventually("the failure in the administration log", || {
        let page = api.get("/v1/administrationLogs?q=category:error");
        page["items"].as_array()?.iter().find(|entry| entry["iccid"] == ICCID).cloned()
    });
    assert!(log["description"].as_str().unwrap().contains("read /3/0/0"), "{log}");
    assert!(gateway.terminate().success());
}
