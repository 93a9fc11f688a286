//! Floods and forgeries against the DTLS listener, and keys that must stay secret: afterwards its
//! sessions work and its memory is as before.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Ended, Gateway, Place, SecureDevice, ask_for_key, eventually, http_text, one_sim, told,
};

const ICCID: &str = "8988280666000002871";
const ADDRESS: &str = "127.0.0.95";
const KEY: &str = "a key for a test";

/// A ClientHello without a cookie, as short as one can be: 67 bytes. The last of its random are
/// those of `number`.
fn hello(number: u64) -> Vec<u8> {
    let mut body = vec![0xFE, 0xFD];
    body.extend_from_slice(&[7; 24]);
    body.extend_from_slice(&number.to_be_bytes());
    // No session, no cookie, one suite (CCM_8), one compression (none).
    body.extend_from_slice(&[0, 0, 0, 2, 0xC0, 0xA8, 1, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, length + 12];
    hello.extend_from_slice(&[1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, length]);
    hello.extend_from_slice(&body);
    hello
}

fn gateway(place: &Place) -> Gateway {
    assert!(place.import(&one_sim(ICCID, ADDRESS)).status.success());
    let gateway = place.start();
    let body = json!({ "secretKey": KEY, "protocol": "COAP" });
    place.api(&gateway).post(&format!("/v1/integrate/devices/{ICCID}/psk"), body);
    gateway
}

fn device(gateway: &Gateway) -> SecureDevice {
    SecureDevice::connected(ADDRESS, gateway.coaps, (ICCID, KEY), true)
}

fn resident_bytes(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn counted(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("simgate_dtls_total", &[&format!("event=\"{event}\"")])
}

/// Sends one hello from each of so many addresses, and counts the answers' bytes.
fn flood(to: SocketAddr, addresses: u16) -> (usize, usize) {
    let (mut sent, mut received) = (0, 0);
    for number in 0..addresses {
        let [high, low] = number.to_be_bytes();
        let source = UdpSocket::bind((Ipv4Addr::from([127, 77, high, low]), 0)).unwrap();
        let hello = hello(number.into());
        sent += source.send_to(&hello, to).unwrap();
        source.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        received += source.recv(&mut [0; 2_048]).unwrap_or(0);
    }
    (sent, received)
}

#[test]
fn a_flood_of_hellos_costs_no_memory_and_ends_no_session() {
    let place = Place::new();
    let gateway = gateway(&place);
    let mut device = device(&gateway);
    flood(gateway.coaps, 500);
    assert_eq!(device.post(b"before").unwrap().0, 204);
    let before = resident_bytes(&gateway);
    let (sent, received) = flood(gateway.coaps, 20_000);
    assert!(received > 0 && received <= sent, "{received} bytes for {sent}");
    let grown = resident_bytes(&gateway).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for 20,000 addresses");
    assert_eq!(device.post(b"after").unwrap().0, 204);
    assert_eq!(gateway.metric("simgate_dtls_half_open", &[]), 0.0);
    let mut other = SecureDevice::connected("127.0.0.96", gateway.coaps, (ICCID, KEY), false);
    assert_eq!(other.post(b"another").unwrap().0, 204);
    assert!(gateway.terminate().success());
}

#[test]
fn handshakes_that_stall_make_room_for_those_that_go_on() {
    let place = Place::new();
    let gateway = gateway(&place);
    let mut device = device(&gateway);
    for number in 0..3_000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut stalled =
            SecureDevice::new(&format!("127.78.{high}.{low}"), gateway.coaps, (ICCID, KEY), false);
        stalled.greet();
    }
    eventually("the handshakes that are under way are counted", || {
        let half_open = gateway.metric("simgate_dtls_half_open", &[]);
        assert!(half_open <= 2_048.0, "{half_open} are under way");
        (half_open > 500.0).then_some(())
    });
    assert_eq!(device.post(b"during").unwrap().0, 204);
    let mut other = SecureDevice::connected("127.0.0.96", gateway.coaps, (ICCID, KEY), false);
    assert_eq!(other.post(b"another").unwrap().0, 204);
    eventually("all of them are over", || {
        (gateway.metric("simgate_dtls_half_open", &[]) == 0.0).then_some(())
    });
    assert!(gateway.terminate().success());
}

#[test]
fn what_is_no_handshake_and_no_record_is_counted_and_changes_nothing() {
    let place = Place::new();
    let gateway = gateway(&place);
    let mut device = device(&gateway);
    let stranger = UdpSocket::bind("127.0.0.97:0").unwrap();
    let mut fragmented = hello(1);
    fragmented[24] -= 1;
    let mut oversized = hello(2);
    oversized.resize(1_100, 0);
    // A ClientHello of DTLS 1.2 inside of a handshake that never began, an early
    // ChangeCipherSpec, an alert, application data, and no DTLS at all.
    let early = [20, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1].to_vec();
    let alert = [21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40].to_vec();
    let data = [23, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1].to_vec();
    let cid = [25, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 0, 1, 1].to_vec();
    let cases = [
        (fragmented, "hello_fragmented"),
        (oversized, "hello_oversized"),
        (hello(3)[..40].to_vec(), "hello_malformed"),
        (early, "unknown"),
        (alert, "unknown"),
        (data, "unknown"),
        (cid, "unknown"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed"),
        (Vec::new(), "malformed"),
    ];
    for (datagram, _) in &cases {
        stranger.send_to(datagram, gateway.coaps).unwrap();
    }
    for event in ["hello_fragmented", "hello_oversized", "hello_malformed", "unknown", "malformed"]
    {
        let expected: f64 =
            cases.iter().filter(|(_, counted)| *counted == event).map(|_| 1.0).sum();
        eventually(event, || (counted(&gateway, event) == expected).then_some(()));
    }
    stranger.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(stranger.recv(&mut [0; 100]).is_err(), "none of them has an answer");
    assert_eq!(device.post(b"after").unwrap().0, 204);
    assert!(gateway.terminate().success());
}

#[test]
fn a_cookie_is_worth_nothing_at_another_address() {
    let place = Place::new();
    let gateway = gateway(&place);
    let honest = UdpSocket::bind("127.0.0.97:0").unwrap();
    honest.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    honest.send_to(&hello(1), gateway.coaps).unwrap();
    let mut answer = [0; 100];
    let length = honest.recv(&mut answer).unwrap();
    assert_eq!((length, answer[13]), (44, 3), "HelloVerifyRequest");
    let mut second = hello(1);
    // The cookie stands behind the empty session id: its length, then its bytes.
    second.splice(60..61, answer[27..44].iter().copied());
    for at in [12, 16, 24] {
        second[at] += 16;
    }
    let thief = UdpSocket::bind("127.0.0.98:0").unwrap();
    thief.send_to(&second, gateway.coaps).unwrap();
    eventually("the wrong cookie", || {
        (counted(&gateway, "hello_wrong_cookie") == 1.0).then_some(())
    });
    assert_eq!(counted(&gateway, "hello_accepted"), 0.0);
    honest.send_to(&second, gateway.coaps).unwrap();
    eventually("the same at its own address", || {
        (counted(&gateway, "hello_accepted") == 1.0).then_some(())
    });
    assert!(gateway.terminate().success());
}

/// The forms in which a key could be found in a log.
fn forms(key: &str) -> [String; 3] {
    let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", key.as_bytes());
    [key.to_owned(), hex, list[1..list.len() - 1].to_owned()]
}

#[test]
fn no_key_is_ever_in_a_log_a_metric_or_an_error() {
    let mut place = Place::new();
    place.set("SIMGATE_LOG_FILTER", "trace");
    let log = place.folder.path().join("log");
    let script = format!("exec \"$0\" \"$@\" 2>>{}", log.display());
    place.run_within(&["sh", "-c", &script]);
    let gateway = gateway(&place);
    let mut device = device(&gateway);
    assert_eq!(device.post(b"x").unwrap().0, 204);
    let mut wrong = SecureDevice::new(ADDRESS, gateway.coaps, (ICCID, "the wrong key 1234"), false);
    assert_eq!(wrong.shake_hands(), Ended::Closed);
    let api = place.api(&gateway);
    let path = format!("/v1/integrate/devices/{ICCID}/psk");
    let (status, refused) =
        api.call("POST", &path, Some(json!({ "secretKey": "short!?", "protocol": "COAP" })));
    assert_eq!(status, 400);
    let (_, of_nobody) = api.call(
        "POST",
        "/v1/integrate/devices/8988280666000009990/psk",
        Some(json!({ "secretKey": "a key of nobody", "protocol": "COAP" })),
    );
    let told = told(&ask_for_key(ADDRESS, gateway.coap));
    assert_eq!(told[1], KEY, "set by a user, so it stays");
    let metrics = http_text(&format!("http://{}/metrics", gateway.api));
    let logs = api.get("/v1/administrationLogs");
    let data_key = std::fs::read_to_string(place.data().join("data.key")).unwrap();
    assert!(gateway.terminate().success());

    let texts = [
        std::fs::read_to_string(log).unwrap(),
        metrics,
        logs.to_string(),
        refused.to_string(),
        of_nobody.to_string(),
    ];
    assert!(texts[0].contains("INFO"), "the log is written elsewhere");
    let secrets = [KEY, "the wrong key 1234", "short!?", "a key of nobody", data_key.trim()];
    for secret in secrets.into_iter().flat_map(forms) {
        for text in &texts {
            assert!(!text.contains(&secret), "{secret} is told");
        }
    }
}

#[test]
fn sessions_are_answered_between_handshakes_of_strangers() {
    let place = Place::new();
    let gateway = gateway(&place);
    let mut device = device(&gateway);
    let stranger = UdpSocket::bind("127.0.0.97:0").unwrap();
    for round in 0..50 {
        for number in 0..200 {
            stranger.send_to(&hello(round * 200 + number), gateway.coaps).unwrap();
        }
        assert_eq!(device.post(b"x").unwrap().0, 204, "after {round} rounds");
    }
    assert!(gateway.terminate().success());
}
