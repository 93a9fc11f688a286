//! LwM2M from the first bootstrap to the customer, and what devices do wrong.

use std::time::Duration;

use coap::wire::{Code, MessageType};
use serde_json::{Value, json};

use crate::disk_full::limit_file_sizes;
use crate::flows::receiver;
use crate::overload::{accounted, counted};
use crate::support::{
    Api, Gateway, Heard, LINKS, Place, SENML_CBOR, SENML_JSON, ScriptedDevice, TEXT, TLV,
    eventually, one_sim, random_time, sims,
};

const ICCID: &str = "8988280666000002880";
const OTHER: &str = "8988280666000002881";
/// What the device has: server, device, firmware, and two sensors.
const OBJECTS: &str = "</1/0>,</3/0>,</5/0>,</3303/0>,</3311/0>";
const TEMPERATURE: &str = "/3303/0/5700";

/// Longer than what nobody waits for takes to be written.
const SAVED_AFTER: Duration = Duration::from_secs(2);

fn place(address: &str) -> Place {
    let place = Place::with_ports_of_its_own();
    assert!(place.import(&one_sim(ICCID, address)).status.success());
    place
}

/// A gateway with one SIM, and its device.
fn world(address: &str) -> (Place, Gateway, Api, ScriptedDevice) {
    let place = place(address);
    let gateway = place.start();
    let api = place.api(&gateway);
    let device = ScriptedDevice::new(address, gateway.lwm2m);
    (place, gateway, api, device)
}

/// Asks for an observation of the temperature, and grants it: its token.
fn observed(api: &Api, device: &mut ScriptedDevice) -> Vec<u8> {
    let id = api.act(
        ICCID,
        "LWM2M",
        json!({ "action": "observe-start", "resourceAddress": TEMPERATURE }),
    );
    let asked = device.asked();
    assert_eq!((asked.code, asked.path.as_str(), asked.observe), (Code::GET, TEMPERATURE, Some(0)));
    device.answer_with(&asked, Code::CONTENT, (Some(1), Some((TEXT, b"20.5"))));
    assert_eq!(api.ended(&id)["status"], "SUCCEEDED");
    asked.token
}

fn temperature(value: f64) -> (String, String) {
    ("LWM2M".to_owned(), format!(r#"{{"{TEMPERATURE}":{value:?}}}"#))
}

/// Waits until so many messages are stored.
fn stored(api: &Api, count: usize) -> Vec<(String, String)> {
    eventually("the stored messages", || {
        let history = api.history(ICCID);
        (history.len() >= count).then_some(history)
    })
}

/// What the administration log says of errors, the newest first.
fn errors(api: &Api) -> Vec<(String, String)> {
    let page = api.get("/v1/administrationLogs?pageSize=25&q=category:error");
    let word = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| (word(item, "message"), word(item, "description"))).collect()
}

fn post(device: &mut ScriptedDevice, uri: &str, content: (u16, &[u8])) -> Code {
    device.ask(Code::POST, uri, Some(content)).code
}

fn update(device: &mut ScriptedDevice, registration: &str) -> Code {
    device.ask(Code::POST, registration, None).code
}

/// Goes through a plain bootstrap; what was written, by path.
fn bootstrapped(device: &mut ScriptedDevice) -> Vec<(String, Vec<u8>)> {
    assert_eq!(device.ask(Code::POST, &format!("/bs?ep={ICCID}"), None).code, Code::CHANGED);
    let mut written = Vec::new();
    loop {
        let asked = device.asked();
        match (asked.code, asked.path.as_str()) {
            (Code::DELETE, _) => device.answer(&asked, Code::DELETED, None),
            (Code::PUT, _) => {
                assert_eq!(asked.format, Some(u32::from(TLV)));
                device.answer(&asked, Code::CHANGED, None);
                written.push((asked.path, asked.payload));
            }
            (Code::POST, "/bs") => {
                device.answer(&asked, Code::CHANGED, None);
                return written;
            }
            _ => panic!("{asked:?}"),
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn what_a_device_sends_and_notifies_of_reaches_history_state_and_webhook() {
    let (_place, gateway, api, mut device) = world("127.0.5.1");
    let (receiver, events) = receiver();
    api.webhook(&receiver.url());
    let written = bootstrapped(&mut device);
    let paths: Vec<&str> = written.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/0/0", "/0/1", "/1/0"]);
    let uri = format!("coap://{}", gateway.lwm2m);
    assert!(holds(&written[0].1, &uri) && holds(&written[1].1, &uri), "{written:02x?}");

    let registration = device.register(ICCID, 86_400, OBJECTS);
    assert!(registration.starts_with("/rd/"), "{registration}");
    assert_eq!(device.send_value(TEMPERATURE, 21.5), Code::CHANGED);
    let token = observed(&api, &mut device);
    device.notify(&token, 2, (TEXT, b"22.5"));
    // Again, as after a loss of power.
    device.register(ICCID, 86_400, OBJECTS);

    let kinds = |wanted: &str| -> Vec<Value> {
        events.lock().unwrap().iter().filter(|event| event["type"] == wanted).cloned().collect()
    };
    // The answer to the observation counts as well.
    let telemetry = eventually("all telemetry at the webhook", || {
        let telemetry = kinds("TELEMETRY_DATA");
        (telemetry.len() >= 3).then_some(telemetry)
    });
    for (event, value) in telemetry.iter().zip([21.5, 20.5, 22.5]) {
        assert_eq!(event["source"], "LWM2M", "{event}");
        assert_eq!(event["device"]["iccid"], ICCID);
        let payload = json!({ "type": "JSON", "value": { TEMPERATURE: value } });
        assert_eq!(event["payload"], payload, "{event}");
    }
    assert_eq!(api.history(ICCID), [21.5, 20.5, 22.5].map(temperature));
    let state = eventually("the last state", || {
        let telemetry = api.get(&format!("/v1/inspect/devices/{ICCID}/telemetry"));
        telemetry.to_string().contains("22.5").then_some(telemetry)
    });
    assert!(state.to_string().contains(TEMPERATURE), "{state}");
    assert_eq!(kinds("TELEMETRY_DATA").len(), 3);
    eventually("the LIFECYCLE event", || (!kinds("LIFECYCLE").is_empty()).then_some(()));
    assert_eq!(kinds("LIFECYCLE").len(), 1, "at the first registration, and never again");
    assert!(gateway.terminate().success());
}

#[test]
fn a_registration_alone_is_the_first_sign_of_life() {
    let (_place, gateway, api, mut device) = world("127.0.5.2");
    let (receiver, events) = receiver();
    api.webhook(&receiver.url());
    for _ in 0..3 {
        device.register(ICCID, 600, OBJECTS);
    }
    eventually("the LIFECYCLE event", || (!events.lock().unwrap().is_empty()).then_some(()));
    device.send_value(TEMPERATURE, 1.0);
    eventually("the value behind it", || {
        let events = events.lock().unwrap();
        events.iter().any(|event| event["type"] == "TELEMETRY_DATA").then_some(())
    });
    let events = events.lock().unwrap();
    let lifecycle: Vec<_> = events.iter().filter(|event| event["type"] == "LIFECYCLE").collect();
    assert_eq!(lifecycle.len(), 1, "{lifecycle:?}");
    assert_eq!(lifecycle[0]["lifecycle"]["type"], "DEVICE_FIRST_TIME_REGISTERED");
    assert_eq!(api.history(ICCID).len(), 1, "a registration is no message");
    assert!(gateway.terminate().success());
}

/// Answers reads until none comes any more; the paths.
fn read_through(device: &mut ScriptedDevice) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(asked) = device.next().filter(|heard| heard.code == Code::GET) {
        let value = match asked.path.as_str() {
            "/5" => r#"[{"n":"/5/0/3","v":0}]"#,
            "/3303" => r#"[{"bn":"/3303/0/","n":"5700","v":7.5},{"n":"5701","vs":"Cel"}]"#,
            _ => r#"[{"n":"/3311/0/5850","vb":true}]"#,
        };
        device.answer(&asked, Code::CONTENT, Some((SENML_JSON, value.as_bytes())));
        paths.push(asked.path);
    }
    paths
}

#[test]
fn passive_reporting_reads_all_but_what_is_left_out_at_registration_and_update() {
    let (_place, gateway, api, mut device) = world("127.0.5.3");
    let registration = device.register(ICCID, 600, "</0/0>,</2/0>,</1/0>,</3/0>,</5/0>,</3303/0>");
    assert!(device.next().is_none(), "it is off at first");
    api.set_passive_reporting("ENABLED");
    eventually("passive reporting", || {
        assert_eq!(update(&mut device, &registration), Code::CHANGED);
        let paths = read_through(&mut device);
        assert!(paths.is_empty() || paths == ["/5", "/3303"], "{paths:?}");
        (!paths.is_empty()).then_some(())
    });
    let json = r#"{"/3303/0/5700":7.5,"/3303/0/5701":"Cel"}"#;
    let history = stored(&api, 2);
    assert!(history.contains(&("LWM2M".to_owned(), json.to_owned())), "{history:?}");
    let registration = device.register(ICCID, 600, "</3/0>,</3311/0>");
    assert_eq!(read_through(&mut device), ["/3311"]);
    api.set_passive_reporting("DISABLED");
    eventually("the end of passive reporting", || {
        assert_eq!(update(&mut device, &registration), Code::CHANGED);
        read_through(&mut device).is_empty().then_some(())
    });
    assert!(gateway.terminate().success());
}

#[test]
fn a_registration_ends_by_the_device_or_by_time_and_then_is_unknown() {
    let mut place = place("127.0.5.4");
    place.set("SIMGATE_LWM2M_GRACE_SECONDS", "0");
    let gateway = place.start();
    let mut device = ScriptedDevice::new("127.0.5.4", gateway.lwm2m);
    let registered = |count: f64| {
        eventually("the number of registrations", || {
            (gateway.metric("simgate_lwm2m_registrations", &[]) == count).then_some(())
        });
    };
    let first = device.register(ICCID, 600, OBJECTS);
    registered(1.0);
    assert_eq!(update(&mut device, &first), Code::CHANGED);
    assert_eq!(device.ask(Code::DELETE, &first, None).code, Code::DELETED);
    registered(0.0);
    assert_eq!(update(&mut device, &first), Code::NOT_FOUND);
    assert_eq!(device.ask(Code::DELETE, &first, None).code, Code::NOT_FOUND);
    assert_eq!(device.send_value(TEMPERATURE, 1.0), Code::NOT_FOUND);

    let second = device.register(ICCID, 3, OBJECTS);
    assert_ne!(first, second);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(update(&mut device, &second), Code::CHANGED, "kept alive by updates");
    }
    std::thread::sleep(Duration::from_millis(3_500));
    assert_eq!(update(&mut device, &second), Code::NOT_FOUND);
    registered(0.0);
    // What has expired does not come back with a restart.
    let third = device.register(ICCID, 3, OBJECTS);
    gateway.kill();
    std::thread::sleep(Duration::from_millis(3_500));
    let gateway = place.start();
    assert_eq!(update(&mut device, &third), Code::NOT_FOUND);
    assert!(gateway.terminate().success());
}

#[test]
fn a_registration_is_refused_for_what_is_wrong_with_it() {
    let place = Place::new();
    let csv = sims(&[(ICCID, "127.0.5.5"), (OTHER, "127.0.5.6")]);
    assert!(place.import(&csv).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let mut device = ScriptedDevice::new("127.0.5.5", gateway.lwm2m);
    let links = OBJECTS.as_bytes();
    let (forbidden, bad) = (Code::FORBIDDEN, Code::BAD_REQUEST);
    let own = format!("/rd?ep={ICCID}");
    let cases = [
        (format!("/rd?ep={OTHER}&lt=60"), links, forbidden),
        ("/rd?ep=a-sensor&lt=60".to_owned(), links, forbidden),
        (format!("{own}&lt=60"), &b"</3/0>,<<"[..], bad),
        (format!("{own}&lt=60"), b"</3/0", bad),
        (format!("{own}&lt=60"), b"\xff\xfe", bad),
        (format!("{own}&lt=0"), links, bad),
        (format!("{own}&lt=4294967296"), links, bad),
        (format!("{own}&lt=-1"), links, bad),
        (format!("{own}&lt=60&lwm2m=x"), links, Code::PRECONDITION_FAILED),
    ];
    for (uri, payload, expected) in &cases {
        let answer = device.ask(Code::POST, uri, Some((LINKS, payload)));
        assert_eq!(answer.code, *expected, "{uri} {}", payload.escape_ascii());
    }
    let answer = device.ask(Code::POST, &format!("{own}&lt=60"), Some((TEXT, links)));
    assert_eq!(answer.code, Code::UNSUPPORTED_CONTENT_FORMAT);
    let mut stranger = ScriptedDevice::new("127.0.5.7", gateway.lwm2m);
    assert_eq!(post(&mut stranger, &own, (LINKS, links)), Code::UNAUTHORIZED);
    assert_eq!(gateway.metric("simgate_lwm2m_registrations", &[]), 0.0);
    eventually("the refusal in the administration log", || {
        let name = |(_, text): &(String, String)| text.contains("endpoint name");
        errors(&api).iter().any(name).then_some(())
    });

    // The name may be left out, and the largest lifetime is one.
    let answer = device.ask(Code::POST, "/rd?lt=4294967295", Some((LINKS, links)));
    assert_eq!(answer.code, Code::CREATED);
    // A registration is its device's alone.
    let mut other = ScriptedDevice::new("127.0.5.6", gateway.lwm2m);
    assert_eq!(update(&mut other, &answer.path), Code::NOT_FOUND);
    assert_eq!(other.ask(Code::DELETE, &answer.path, None).code, Code::NOT_FOUND);
    assert_eq!(update(&mut device, &answer.path), Code::CHANGED);
    accounted(&gateway, "LWM2M");
    assert!(gateway.terminate().success());
}

/// An array in an array, and so on.
fn depth_bomb() -> Vec<u8> {
    [vec![0x81; 900], vec![0]].concat()
}

#[test]
fn values_that_cannot_be_read_are_refused_and_not_stored() {
    let (_place, gateway, api, mut device) = world("127.0.5.8");
    device.register(ICCID, 600, OBJECTS);
    // An array of four billion, a map that ends, text that is no UTF-8, JSON that ends.
    let bombs: [(u16, &[u8]); 6] = [
        (SENML_CBOR, &[0x9a, 0xff, 0xff, 0xff, 0xff]),
        (SENML_CBOR, &[0x81, 0xa2, 0x00, 0x6c]),
        (SENML_CBOR, &[0x81, 0xa1, 0x00, 0x62, 0xff, 0xfe]),
        (SENML_JSON, br#"[{"n":"/3303/0/5700","v":"#),
        (SENML_JSON, br#"[{"n":"nowhere","v":1}]"#),
        (SENML_CBOR, &depth_bomb()),
    ];
    for (format, payload) in bombs {
        let code = post(&mut device, "/dp", (format, payload));
        assert_eq!(code, Code::BAD_REQUEST, "{}", payload.escape_ascii());
    }
    let nested = [b"[".repeat(900), b"]".repeat(900)].concat();
    assert_eq!(post(&mut device, "/dp", (SENML_JSON, &nested)), Code::BAD_REQUEST);
    // A Send is SenML; TLV is not.
    assert_eq!(post(&mut device, "/dp", (TLV, &[0xc1, 0, 1])), Code::UNSUPPORTED_CONTENT_FORMAT);
    let other = br#"[{"n":"/3304/0/5700","v":1}]"#;
    assert_eq!(post(&mut device, "/dp", (SENML_JSON, other)), Code::NOT_FOUND);

    accounted(&gateway, "LWM2M");
    assert_eq!(malformed(&gateway), 9.0);
    assert!(api.history(ICCID).is_empty());
    assert!(gateway.terminate().success());
}

fn malformed(gateway: &Gateway) -> f64 {
    let labels = ["protocol=\"LWM2M\"", "outcome=\"malformed\""];
    gateway.metric("simgate_messages_total", &labels)
}

#[test]
fn a_tlv_with_a_wrong_length_is_told_to_the_operator_and_ends_nothing() {
    let (_place, gateway, api, mut device) = world("127.0.5.16");
    device.register(ICCID, 600, OBJECTS);
    let token = observed(&api, &mut device);
    let tlv: &[u8] = &[0xe8, 0x16, 0x44, 0xff, 0x00];
    device.notify(&token, 2, (TLV, tlv));
    eventually("the notice about the notification", || {
        let unread = |(message, _): &(String, String)| message == "Lwm2m[NotificationUnreadable]";
        errors(&api).iter().any(unread).then_some(())
    });
    device.notify(&token, 3, (TEXT, b"23.5"));
    let read = json!({ "action": "read", "resourceAddress": "/3303/0" });
    let id = api.act(ICCID, "LWM2M", read);
    let asked = device.asked();
    device.answer(&asked, Code::CONTENT, Some((TLV, tlv)));
    let ended = api.ended(&id);
    assert_eq!(ended["status"], "SUCCEEDED", "the answer is shown as it came: {ended}");
    // What was acknowledged is kept, as the bytes that came: base64.
    let opaque = format!(r#"{{"{TEMPERATURE}":"6BZE/wA="}}"#);
    let kept = [temperature(20.5), ("LWM2M".to_owned(), opaque), temperature(23.5)];
    assert_eq!(stored(&api, 3), kept);
    accounted(&gateway, "LWM2M");
    assert_eq!(malformed(&gateway), 0.0);
    assert!(gateway.terminate().success());
}

#[test]
fn what_is_too_long_is_refused_and_blocks_are_taken() {
    let (_place, gateway, api, mut device) = world("127.0.5.9");
    device.register(ICCID, 600, OBJECTS);
    // Cut by the gateway; what is left would be refused as JSON, too.
    let blanks = " ".repeat(3_000);
    let long = format!(r#"[{{"n":"{TEMPERATURE}","v":1}}]{blanks}"#);
    let answer = device.ask(Code::POST, "/dp", Some((SENML_JSON, long.as_bytes())));
    assert_eq!(answer.code, Code::REQUEST_ENTITY_TOO_LARGE);
    let value = |time| format!(r#"{{"n":"{TEMPERATURE}","t":{time},"v":1}}"#);
    let moments: Vec<String> = (1..=2).map(value).collect();
    let payload = format!("[{}]", moments.join(","));
    assert_eq!(post(&mut device, "/dp", (SENML_JSON, payload.as_bytes())), Code::CHANGED);
    assert_eq!(stored(&api, 2).len(), 2, "values of two moments are two messages");
    accounted(&gateway, "LWM2M");
    let labels = ["protocol=\"LWM2M\"", "outcome=\"stored\""];
    assert_eq!(gateway.metric("simgate_messages_total", &labels), 1.0, "of one datagram");
    assert!(gateway.terminate().success());
}

#[test]
fn a_copy_of_a_send_is_stored_once_also_across_a_crash() {
    let (place, gateway, _, mut device) = world("127.0.5.10");
    device.register(ICCID, 600, OBJECTS);
    let payload = format!(r#"[{{"n":"{TEMPERATURE}","v":1}}]"#);
    let send = device.request(Code::POST, "/dp", Some((SENML_JSON, payload.as_bytes())));
    let first = device.ask_with(&send);
    assert_eq!(first.code, Code::CHANGED);
    assert_eq!(device.ask_with(&send).code, Code::CHANGED);
    let labels = ["protocol=\"LWM2M\"", "outcome=\"duplicate\""];
    eventually("the copy is counted", || {
        (gateway.metric("simgate_messages_total", &labels) == 1.0).then_some(())
    });
    gateway.kill();
    let gateway = place.start();
    assert_eq!(device.ask_with(&send).code, Code::CHANGED);
    assert_eq!(device.send_value(TEMPERATURE, 2.0), Code::CHANGED);
    let api = place.api(&gateway);
    assert_eq!(api.history(ICCID), [1.0, 2.0].map(temperature));
    accounted(&gateway, "LWM2M");
    assert_eq!(gateway.metric("simgate_messages_total", &labels), 1.0);
    assert!(gateway.terminate().success());
}

#[test]
fn registration_and_observation_outlive_a_crash_and_a_stop() {
    let (place, mut gateway, api, mut device) = world("127.0.5.11");
    let registration = device.register(ICCID, 600, OBJECTS);
    let token = observed(&api, &mut device);
    std::thread::sleep(SAVED_AFTER);
    for (round, sequence) in [2, 3].into_iter().enumerate() {
        if round == 0 {
            gateway.kill();
        } else {
            assert!(gateway.terminate().success());
        }
        gateway = place.start();
        device.notify(&token, sequence, (TEXT, b"30"));
        assert_eq!(update(&mut device, &registration), Code::CHANGED);
        let registrations = ["event=\"registrations\""];
        assert_eq!(gateway.metric("simgate_lwm2m_total", &registrations), 0.0);
        assert_eq!(gateway.metric("simgate_lwm2m_registrations", &[]), 1.0);
    }
    let api = place.api(&gateway);
    assert_eq!(api.history(ICCID), [20.5, 30.0, 30.0].map(temperature));
    // Requests find the device as before.
    let id = api.act(ICCID, "LWM2M", json!({ "action": "read", "resourceAddress": TEMPERATURE }));
    let asked = device.asked();
    device.answer(&asked, Code::CONTENT, Some((TEXT, b"31")));
    assert_eq!(api.ended(&id)["status"], "SUCCEEDED");
    assert!(gateway.terminate().success());
}

#[test]
fn a_device_that_has_its_2_01_is_registered_whatever_happens_then() {
    let (place, mut gateway, _, mut device) = world("127.0.5.12");
    for round in 0..12 {
        let registration = device.register(ICCID, 600, OBJECTS);
        std::thread::sleep(random_time(0, 3));
        gateway.kill();
        gateway = place.start();
        assert_eq!(update(&mut device, &registration), Code::CHANGED, "round {round}");
        if round % 4 == 3 {
            assert_eq!(device.ask(Code::DELETE, &registration, None).code, Code::DELETED);
            gateway.kill();
            gateway = place.start();
            assert_eq!(update(&mut device, &registration), Code::NOT_FOUND, "round {round}");
        }
    }
    assert!(gateway.terminate().success());
}

#[test]
fn a_full_disk_acknowledges_nothing_and_takes_all_of_it_later() {
    let mut place = place("127.0.5.13");
    place.set("SIMGATE_LOG_FILTER", "off");
    let gateway = place.start();
    let api = place.api(&gateway);
    let mut device = ScriptedDevice::new("127.0.5.13", gateway.lwm2m);
    let registration = device.register(ICCID, 600, OBJECTS);
    let token = observed(&api, &mut device);
    limit_file_sizes(&gateway, "1");
    let payload = format!(r#"[{{"n":"{TEMPERATURE}","v":1}}]"#);
    let mut refused: Option<Heard> = None;
    eventually("the refusal of a Send", || {
        let send = device.ask(Code::POST, "/dp", Some((SENML_JSON, payload.as_bytes())));
        refused = Some(send).filter(|send| send.code == Code::SERVICE_UNAVAILABLE);
        refused.is_some().then_some(())
    });
    let seconds = refused.unwrap().max_age.unwrap();
    assert!((60..=300).contains(&seconds), "Max-Age {seconds}");
    let notification = device.notification(&token, Some(2), (TEXT, b"24.5"));
    for _ in 0..2 {
        assert_eq!(device.taken(&notification), None, "nothing is acknowledged");
    }
    let uri = format!("/rd?ep={ICCID}&lt=600");
    let again = post(&mut device, &uri, (LINKS, OBJECTS.as_bytes()));
    assert_eq!(again, Code::SERVICE_UNAVAILABLE, "a registration neither");
    let before = api.history(ICCID);
    limit_file_sizes(&gateway, "unlimited");
    eventually("the acknowledgement of the notification", || {
        (device.taken(&notification) == Some(MessageType::Acknowledgement)).then_some(())
    });
    let after = api.history(ICCID);
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after.last(), Some(&temperature(24.5)));
    assert_eq!(update(&mut device, &registration), Code::CHANGED, "the one before is kept");
    accounted(&gateway, "LWM2M");
    assert!(gateway.terminate().success());
}

#[test]
fn an_answer_to_nothing_and_a_notification_of_an_ended_observation_are_reset() {
    let (_place, gateway, api, mut device) = world("127.0.5.14");
    device.register(ICCID, 600, OBJECTS);
    let token = observed(&api, &mut device);
    let stale = device.notification(&[1, 2, 3, 4, 5, 6, 7, 8], None, (TEXT, b"1"));
    assert_eq!(device.taken(&stale), Some(MessageType::Reset));
    let unknown = device.notification(&[9; 8], Some(7), (TEXT, b"1"));
    assert_eq!(device.taken(&unknown), Some(MessageType::Reset));
    let id =
        api.act(ICCID, "LWM2M", json!({ "action": "observe-end", "resourceAddress": TEMPERATURE }));
    let asked = device.asked();
    assert_eq!((asked.observe, &asked.token), (Some(1), &token));
    device.answer(&asked, Code::CONTENT, Some((TEXT, b"20.5")));
    assert_eq!(api.ended(&id)["status"], "SUCCEEDED");
    let late = device.notification(&token, Some(9), (TEXT, b"1"));
    assert_eq!(device.taken(&late), Some(MessageType::Reset));
    // A new registration is a device without observations (LwM2M Core 1.1 section 6.4.2).
    let token = observed(&api, &mut device);
    device.register(ICCID, 600, OBJECTS);
    let late = device.notification(&token, Some(9), (TEXT, b"1"));
    assert_eq!(device.taken(&late), Some(MessageType::Reset));
    accounted(&gateway, "LWM2M");
    assert!(gateway.terminate().success());
}

#[test]
fn each_datagram_of_a_busy_device_is_counted_once() {
    let (_place, gateway, api, mut device) = world("127.0.5.15");
    api.set_passive_reporting("ENABLED");
    std::thread::sleep(Duration::from_secs(1));
    let registration = device.register(ICCID, 600, OBJECTS);
    read_through(&mut device);
    let token = observed(&api, &mut device);
    device.notify(&token, 2, (TEXT, b"1"));
    assert_eq!(device.send_value(TEMPERATURE, 2.0), Code::CHANGED);
    assert_eq!(update(&mut device, &registration), Code::CHANGED);
    read_through(&mut device);
    assert_eq!(device.ask(Code::GET, "/nowhere", None).code, Code::NOT_FOUND);
    device.say(&[0x40, 0, 1, 1]);
    assert_eq!(device.next().map(|heard| heard.kind), Some(MessageType::Reset));
    device.say(&[0x40, 0x21]);
    let stored = ["protocol=\"LWM2M\"", "outcome=\"stored\""];
    eventually("the last datagram is counted", || {
        let labels = ["protocol=\"LWM2M\"", "reason=\"malformed_short\""];
        (gateway.metric("simgate_messages_total", &labels) == 1.0).then_some(())
    });
    accounted(&gateway, "LWM2M");
    let of_devices = gateway.metric("simgate_messages_total", &stored);
    assert_eq!(of_devices, 2.0, "{:?}", counted(&gateway, "LWM2M"));
    let of_answers = gateway.metric("simgate_lwm2m_total", &["event=\"values_stored\""]);
    assert_eq!(of_answers, 7.0, "two times three objects, and the observation");
    assert_eq!(api.history(ICCID).len(), 9);
    assert!(gateway.terminate().success());
}

#[test]
fn a_registration_goes_with_its_sim_and_operations_do_not_go_to_its_old_address() {
    let (_place, gateway, api, mut device) = world("127.0.6.40");
    device.register(ICCID, 600, OBJECTS);
    let registration = format!("/simgate/v1/devices/{ICCID}/registration");
    let shown = api.get(&registration);
    assert_eq!((&shown["security"], &shown["lifetimeSeconds"]), (&json!("NONE"), &json!(600)));
    assert!(shown["objects"].as_array().unwrap().contains(&json!("/3303/0")), "{shown}");
    // Whoever has the address next must not be asked what this device was to be asked.
    let moved = json!({ "ip": "127.0.6.41" });
    assert_eq!(api.call("PATCH", &format!("/simgate/v1/sims/{ICCID}"), Some(moved)).0, 200);
    // A change of a SIM is in memory within half a second.
    std::thread::sleep(Duration::from_secs(1));
    let id = api.act(ICCID, "LWM2M", json!({ "action": "read", "resourceAddress": "/3/0" }));
    let failed = api.ended(&id);
    let message = failed["resultData"]["errorMessage"].as_str().unwrap();
    assert!(message.contains("address of the SIM has changed"), "{failed}");
    assert_eq!(failed["status"], "FAILED");
    assert_eq!(api.call("DELETE", &format!("/simgate/v1/sims/{ICCID}"), None).0, 204);
    eventually("the end of the registration", || {
        (api.call("GET", &registration, None).0 == 404).then_some(())
    });
    assert!(gateway.terminate().success());
}
