//! CoAP over DTLS: from a key to a delivered message, and what happens to sessions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::flows::receiver;
use crate::support::{
    Api, Ended, Gateway, Place, SecureDevice, ask_for_key, eventually, foreign, one_sim, told,
};

const ICCID: &str = "8988280666000002870";
const ADDRESS: &str = "127.0.0.93";
const ELSEWHERE: &str = "127.0.0.94";
const KEY: &str = "a key for a test";

/// Longer than what has changed waits for its saving.
const SAVED_AFTER: Duration = Duration::from_secs(4);

fn place() -> Place {
    let place = Place::with_ports_of_its_own();
    assert!(place.import(&one_sim(ICCID, ADDRESS)).status.success());
    place
}

fn set_key(api: &Api, key: &str) {
    let body = json!({ "secretKey": key, "protocol": "COAP" });
    api.post(&format!("/v1/integrate/devices/{ICCID}/psk"), body);
}

/// A gateway whose SIM has a key.
fn gateway(place: &Place) -> (Gateway, Api) {
    let gateway = place.start();
    let api = place.api(&gateway);
    set_key(&api, KEY);
    (gateway, api)
}

fn device(gateway: &Gateway, source: &str) -> SecureDevice {
    SecureDevice::connected(source, gateway.coaps, (ICCID, KEY), false)
}

fn listener(place: &mut Place, rest: &str) {
    let listener = format!("[{{ listen = \"127.0.0.1:0\", {rest} }}]");
    place.set("SIMGATE_DEVICES_COAPS", &listener);
}

/// What is stored, the newest first: the payload in base64, and what vouched for the device.
fn stored(api: &Api) -> Vec<(String, String)> {
    let page = api.get(&format!("/simgate/v1/messages?iccid={ICCID}&pageSize=25"));
    let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| (word(item, "payload"), word(item, "identityClass"))).collect()
}

/// What the administration log says of refused devices.
fn refusals(api: &Api) -> Vec<String> {
    let page = api.get("/v1/administrationLogs?q=category:error");
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["description"].as_str().unwrap().to_owned()).collect()
}

fn nothing_is_left(gateway: &Gateway, sessions: f64) {
    eventually("the end of what was begun", || {
        let half_open = gateway.metric("simgate_dtls_half_open", &[]);
        let open = gateway.metric("simgate_dtls_sessions", &[]);
        (half_open == 0.0 && open == sessions).then_some(())
    });
}

fn counted(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("simgate_dtls_total", &[&format!("event=\"{event}\"")])
}

/// Counters are carried to the metrics now and then.
fn eventually_counted(gateway: &Gateway, event: &str, count: f64) {
    eventually(event, || (counted(gateway, event) == count).then_some(()));
}

#[test]
fn a_session_goes_on_after_a_stop_and_after_a_crash() {
    let place = place();
    let (gateway, _) = gateway(&place);
    let mut plain = device(&gateway, ADDRESS);
    let mut moving = SecureDevice::connected(ADDRESS, gateway.coaps, (ICCID, KEY), true);
    assert_eq!(plain.post(b"1").unwrap().0, 204);
    assert_eq!(moving.post(b"2").unwrap().0, 204);
    std::thread::sleep(SAVED_AFTER);
    gateway.kill();

    let gateway = place.start();
    assert_eq!(plain.post(b"3").unwrap().0, 204);
    moving.move_to(ELSEWHERE);
    assert_eq!(moving.post(b"4").unwrap().0, 204);
    let late = device(&gateway, ADDRESS);
    assert!(gateway.terminate().success());

    let gateway = place.start();
    for device in [&mut plain, &mut moving, &mut { late }] {
        assert_eq!(device.post(b"5").unwrap().0, 204);
    }
    eventually_counted(&gateway, "imported", 3.0);
    assert_eq!(counted(&gateway, "established"), 0.0, "nobody had to shake hands again");
    assert_eq!(stored(&place.api(&gateway)).len(), 7);
    assert!(gateway.terminate().success());
}

#[test]
fn a_device_gets_its_key_and_its_messages_reach_a_webhook() {
    let place = place();
    let gateway = place.start();
    let api = place.api(&gateway);
    let (receiver, delivered) = receiver();
    api.webhook(&receiver.url());
    let told = told(&ask_for_key(ADDRESS, gateway.coap));
    let fields: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(fields[2], format!("coaps://{}", gateway.coaps));
    for client in ["coap-client-openssl", "coap-client-gnutls"] {
        let mut device = foreign(client);
        let url = format!("{}/?t=door", fields[2]);
        device.args(["-v", "6", "-B", "10", "-u", fields[0], "-k", fields[1]]);
        let output = device.args(["-m", "post", "-e", client, &url]).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("2.04"), "{text}");
    }
    let mut own = SecureDevice::connected(ADDRESS, gateway.coaps, (fields[0], fields[1]), false);
    assert_eq!(own.post(b"from its own address").unwrap().0, 204);
    eventually("the delivery of all three", || {
        let delivered = delivered.lock().unwrap();
        let telemetry = delivered.iter().filter(|event| event["type"] == "TELEMETRY_DATA").count();
        (telemetry == 3).then_some(())
    });
    let classes: Vec<String> = stored(&api).into_iter().map(|(_, class)| class).collect();
    assert_eq!(classes, ["dtls_psk+sim_ip", "dtls_psk", "dtls_psk"]);
    let labels = ["protocol=\"COAP\"", "outcome=\"stored\""];
    assert_eq!(gateway.metric("simgate_messages_total", &labels), 3.0);
    assert!(gateway.terminate().success());
}

#[test]
fn a_key_from_elsewhere_is_refused_where_the_listener_asks_for_the_address() {
    let mut place = place();
    listener(&mut place, "identity = \"psk+sim_ip\"");
    let (gateway, api) = gateway(&place);
    let (code, body) = device(&gateway, ELSEWHERE).post(b"x").unwrap();
    assert_eq!(code, 401);
    assert!(String::from_utf8(body).unwrap().contains("the source address is not the SIM's"));
    assert_eq!(device(&gateway, ADDRESS).post(b"x").unwrap().0, 204);
    assert_eq!(stored(&api).len(), 1);
    eventually("the refusal in the administration log", || {
        refusals(&api).iter().any(|text| text.contains("not the sim's")).then_some(())
    });
    assert!(gateway.terminate().success());
}

#[test]
fn a_session_ends_with_its_key_and_its_sim() {
    let place = place();
    let (gateway, api) = gateway(&place);
    let mut old = device(&gateway, ADDRESS);
    assert_eq!(old.post(b"1").unwrap().0, 204);
    set_key(&api, "another key, new");
    assert_eq!(old.post(b"2").unwrap().0, 401);
    assert_eq!(old.post_in_vain(b"3"), Ended::Closed, "the session is over");
    let credentials = (ICCID, "another key, new");
    let mut new = SecureDevice::connected(ADDRESS, gateway.coaps, credentials, false);
    assert_eq!(new.post(b"4").unwrap().0, 204);

    let path = format!("/simgate/v1/sims/{ICCID}");
    let switch = |status| api.call("PATCH", &path, Some(json!({ "status": status }))).0;
    assert_eq!(switch("Disabled"), 200);
    eventually("the disabled SIM is refused", || (new.post(b"5")?.0 == 401).then_some(()));
    assert_eq!(switch("Enabled"), 200);
    eventually("its session goes on", || (new.post(b"6")?.0 == 204).then_some(()));
    assert!(gateway.terminate().success());
}

#[test]
fn a_sim_keeps_its_key_to_itself() {
    let place = place();
    let (gateway, _) = gateway(&place);
    let mut thief = device(&gateway, ELSEWHERE);
    let (code, body) = thief.request(1, "bootstrap").unwrap();
    assert_eq!(code, 401);
    assert!(String::from_utf8(body).unwrap().contains("to the SIM's own address only"));
    assert!(gateway.terminate().success());
}

#[test]
fn wrong_keys_and_unknown_identities_look_alike_and_leave_nothing() {
    let place = place();
    let (gateway, api) = gateway(&place);
    for credentials in [(ICCID, "not the key of it"), ("8988280666000009993", KEY), ("?", KEY)] {
        let mut device = SecureDevice::new(ELSEWHERE, gateway.coaps, credentials, false);
        assert_eq!(device.shake_hands(), Ended::Closed, "{credentials:?}");
    }
    nothing_is_left(&gateway, 0.0);
    eventually("the refusal in the administration log", || {
        let wanted = format!("handshake refused: wrong key for identity {ICCID}");
        refusals(&api).iter().any(|text| text.starts_with(&wanted)).then_some(())
    });
    eventually_counted(&gateway, "identities_unknown", 2.0);
    assert!(gateway.terminate().success());
}

#[test]
fn a_copy_of_a_record_is_one_message_and_a_late_one_is_another() {
    let place = place();
    let (gateway, api) = gateway(&place);
    let mut device = device(&gateway, ADDRESS);
    let early = device.post_as_datagram(b"early");
    let late = device.post_as_datagram(b"late");
    for datagram in [&late, &early, &late, &early] {
        device.send_datagram(datagram);
    }
    assert_eq!(device.answer().unwrap().0, 204);
    assert_eq!(device.answer().unwrap().0, 204);
    assert_eq!(device.post(b"last").unwrap().0, 204);
    assert_eq!(stored(&api).len(), 3);
    eventually_counted(&gateway, "records_discarded", 2.0);
    assert!(gateway.terminate().success());
}

#[test]
fn a_restored_backup_uses_no_nonce_again() {
    let place = place();
    let (first, _) = gateway(&place);
    let mut device = device(&first, ADDRESS);
    assert_eq!(device.post(b"1").unwrap().0, 204);
    assert!(first.terminate().success());
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("data");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = std::fs::remove_dir_all(to);
        assert!(foreign("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&place.data(), &backup);
    // Epoch and sequence number of the answer: the explicit part of its nonce.
    let mut nonce = |payload: &[u8]| {
        // Starts are numbered by the second.
        std::thread::sleep(Duration::from_millis(1_100));
        let gateway = place.start();
        let record = device.post_as_datagram(payload);
        device.send_datagram(&record);
        let answer = device.next_datagram().unwrap();
        assert!(gateway.terminate().success());
        answer[13..21].to_vec()
    };
    let before = nonce(b"2");
    copy(&backup, &place.data());
    assert_ne!(nonce(b"3"), before, "two answers under one key and one nonce");
}

#[test]
fn a_late_record_from_elsewhere_does_not_pass_for_one_from_the_sim() {
    for rule in ["psk", "psk+sim_ip"] {
        let mut place = place();
        listener(&mut place, &format!("identity = \"{rule}\""));
        let (gateway, api) = gateway(&place);
        let mut device = SecureDevice::connected(ADDRESS, gateway.coaps, (ICCID, KEY), true);
        let early = device.post_as_datagram(b"early");
        assert_eq!(device.post(b"late").unwrap().0, 204);
        device.move_to(ELSEWHERE);
        device.send_datagram(&early);
        eventually_counted(&gateway, "records", 2.0);
        let vouched = |class: &str| {
            stored(&api).into_iter().filter(|(_, of_message)| of_message == class).count()
        };
        if rule == "psk" {
            eventually("the late message", || (vouched("dtls_psk") == 1).then_some(()));
        }
        assert_eq!(vouched("dtls_psk+sim_ip"), 1, "{rule}: one came from the SIM's address");
        assert!(gateway.terminate().success());
    }
}

#[test]
fn a_message_before_a_goodbye_is_stored() {
    let place = place();
    let (gateway, api) = gateway(&place);
    let mut device = device(&gateway, ADDRESS);
    device.post_and_close(b"the last words");
    eventually("the last message", || (stored(&api).len() == 1).then_some(()));
    assert!(gateway.terminate().success());
}

#[test]
fn a_message_that_needs_a_long_record_is_answered() {
    let place = place();
    let (gateway, _) = gateway(&place);
    let mut device = device(&gateway, ADDRESS);
    assert_eq!(device.post(&[b'x'; 2_030]).unwrap().0, 204);
    assert_eq!(device.post(&[b'x'; 2_041]).unwrap().0, 413, "2,048 bytes with its header");
    assert!(gateway.terminate().success());
}

#[test]
fn the_same_key_again_ends_no_session() {
    let place = place();
    let (gateway, api) = gateway(&place);
    let mut device = device(&gateway, ADDRESS);
    set_key(&api, KEY);
    assert_eq!(device.post(b"x").unwrap().0, 204);
    assert!(gateway.terminate().success());
}

#[test]
fn a_record_of_an_unknown_session_gets_what_the_listener_says() {
    // Epoch 0, fatal, unexpected_message.
    let alert = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 10].to_vec();
    for (rule, expected) in [("silence", None), ("alert", Some(alert))] {
        let mut place = place();
        listener(&mut place, &format!("unknown_records = \"{rule}\""));
        let (gateway, _) = gateway(&place);
        let mut device = device(&gateway, ADDRESS);
        assert_eq!(device.post(b"x").unwrap().0, 204);
        device.move_to(ELSEWHERE);
        let record = device.post_as_datagram(b"x");
        device.send_datagram(&record);
        assert_eq!(device.next_datagram(), expected, "{rule}");
        assert_eq!(device.reconnect(None), Ended::Established);
        assert_eq!(device.post(b"x").unwrap().0, 204);
        assert!(gateway.terminate().success());
    }
}

#[test]
fn a_handshake_may_be_abbreviated_until_the_key_changes() {
    let place = place();
    let (gateway, api) = gateway(&place);
    let mut device = device(&gateway, ADDRESS);
    let resumption = device.resumption();
    assert_eq!(device.reconnect(Some(&resumption)), Ended::Established);
    eventually_counted(&gateway, "resumed", 1.0);
    set_key(&api, "another key, new");
    assert_eq!(device.reconnect(Some(&resumption)), Ended::Closed);
    eventually_counted(&gateway, "handshakes_failed", 1.0);
    eventually_counted(&gateway, "resumed", 1.0);
    assert!(gateway.terminate().success());
}

#[test]
fn openssl_shakes_hands_in_each_suite() {
    let place = place();
    let (gateway, _) = gateway(&place);
    let key: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let suites =
        ["PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256", "PSK-AES128-CBC-SHA256"];
    for suite in suites {
        let mut client = foreign("openssl");
        client.args(["s_client", "-dtls1_2", "-connect", &gateway.coaps.to_string()]);
        client.args(["-psk_identity", ICCID, "-psk", &key, "-cipher", suite]);
        let output = client.stdin(std::process::Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("Cipher is {suite}")), "{text}");
        assert!(text.contains("Extended master secret: yes"), "{text}");
    }
    nothing_is_left(&gateway, 0.0);
    eventually_counted(&gateway, "established", 4.0);
    assert!(gateway.terminate().success());
}
