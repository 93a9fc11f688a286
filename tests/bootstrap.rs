//! A device without a key asks for one over its mobile network.

use std::net::UdpSocket;
use std::path::Path;

use serde_json::json;

use crate::support::{Gateway, PATIENCE, Place, one_sim};

const ICCID: &str = "8988280666000002864";
const URL: &str = "coaps://coap.example.com:5684";

/// What the official device software sends.
fn os_auth(id: &[u8]) -> Vec<u8> {
    [b"\x50\x01".as_slice(), id, b"\x3d\x03coap.os.1nce.com\x89bootstrap"].concat()
}

fn ask(device: &UdpSocket, gateway: &Gateway, request: &[u8]) -> Vec<u8> {
    device.set_read_timeout(Some(PATIENCE)).unwrap();
    device.send_to(request, gateway.coap).unwrap();
    let mut answer = [0; 150];
    let length = device.recv(&mut answer).unwrap();
    answer[..length].to_vec()
}

/// What the official device software reads out of an answer.
fn fields(answer: &[u8]) -> Vec<String> {
    assert!(answer.len() < 150 && answer[..5] != [0; 5]);
    let end = answer.iter().position(|byte| *byte == 0).unwrap_or(answer.len());
    let text = String::from_utf8_lossy(&answer[..end]).into_owned();
    text[text.find("89").unwrap()..].split(',').map(str::to_owned).collect()
}

fn holds(folder: &Path, secret: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, secret);
        }
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    })
}

#[test]
fn a_sim_gets_its_key_and_nobody_else_does() {
    let mut place = Place::new();
    place.set("SIMGATE_DEVICES_COAPS_URL", URL);
    assert!(place.import(&one_sim(ICCID, "127.0.0.91")).status.success());
    let gateway = place.start();
    let device = UdpSocket::bind("127.0.0.91:0").unwrap();
    // A request without a message id is survived.
    device.send_to(&os_auth(&[]), gateway.coap).unwrap();
    let first = ask(&device, &gateway, &os_auth(&[0xe9, 0x03]));
    assert_eq!(first[..2], [0x50, 0x45]);
    let told = fields(&first);
    assert_eq!((&*told[0], told[1].len(), &*told[2]), (ICCID, 16, URL));
    assert_eq!(fields(&ask(&device, &gateway, &os_auth(&[0xea, 0x03]))), told);
    let stranger = UdpSocket::bind("127.0.0.92:0").unwrap();
    let refused = ask(&stranger, &gateway, &os_auth(&[0xe9, 0x03]));
    assert_eq!(refused[..2], [0x50, 0x81]);
    assert!(!String::from_utf8_lossy(&refused).contains("89"));

    let api = place.api(&gateway);
    let path = format!("/v1/integrate/devices/{ICCID}/psk");
    assert_eq!(api.get(&format!("{path}/COAP"))["secretKey"], told[1]);
    let wanted = "a-key-of-the-user";
    api.post(&path, json!({ "secretKey": wanted, "protocol": "COAP" }));
    assert_eq!(fields(&ask(&device, &gateway, &os_auth(&[0xeb, 0x03])))[1], wanted);
    // A copy of a request of before gets the key that is valid now.
    assert_eq!(fields(&ask(&device, &gateway, &os_auth(&[0xea, 0x03])))[1], wanted);
    for secret in [told[1].as_str(), wanted] {
        assert!(!holds(&place.data(), secret), "a key lies open in the data folder");
    }
    assert!(gateway.terminate().success());

    let gateway = place.start();
    assert_eq!(fields(&ask(&device, &gateway, &os_auth(&[0xec, 0x03])))[1], wanted);
    assert!(gateway.terminate().success());
}

#[test]
fn another_data_key_stops_the_start_with_a_clear_word() {
    let mut place = Place::new();
    let gateway = place.start();
    assert!(gateway.terminate().success());
    let key = "a1".repeat(32);
    place.set("SIMGATE_KEYS_SECRET", &key);
    let output = place.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("data key"), "{said}");
    assert!(!said.contains(&key), "{said}");
}
