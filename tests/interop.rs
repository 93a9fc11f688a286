//! Foreign CoAP clients against the running program: libcoap's and aiocoap.

use crate::support::{Gateway, Place, foreign, one_sim};

const ICCID: &str = "8988280666000002865";

fn gateway() -> (Place, Gateway) {
    let place = Place::new();
    // Both clients send from the address that the system chooses.
    assert!(place.import(&one_sim(ICCID, "127.0.0.1")).status.success());
    let gateway = place.start();
    (place, gateway)
}

fn payloads(place: &Place, gateway: &Gateway) -> Vec<String> {
    let api = place.api(gateway);
    let history = api.get(&format!("/v1/inspect/devices/{ICCID}/history?pageSize=25"));
    let items = history["items"].as_array().unwrap().iter();
    items.map(|item| item["payload"].as_str().unwrap().to_owned()).collect()
}

/// Runs libcoap's client; what it printed on both streams.
fn libcoap(arguments: &[&str]) -> String {
    let mut client = foreign("coap-client-notls");
    let output = client.args(["-v", "6", "-B", "10"]).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn libcoap_gets_the_documented_answers() {
    let (place, gateway) = gateway();
    let root = format!("coap://{}", gateway.coap);
    let con = libcoap(&["-m", "post", "-e", "hello", &format!("{root}/?t=greeting")]);
    assert!(con.contains("2.04"), "{con}");
    let non = libcoap(&["-N", "-m", "post", "-e", "again", &format!("{root}/data")]);
    assert!(non.contains("2.04"), "{non}");
    let topic = libcoap(&["-m", "post", "-e", "x", &format!("{root}/?t=a//b")]);
    assert!(topic.contains("4.00"), "{topic}");
    let method = libcoap(&["-m", "put", "-e", "x", &format!("{root}/")]);
    assert!(method.contains("4.05"), "{method}");
    let path = libcoap(&["-m", "post", "-e", "x", &format!("{root}/nowhere")]);
    assert!(path.contains("4.04"), "{path}");
    // "hello" and "again" in base 64, the newest first.
    assert_eq!(payloads(&place, &gateway), ["YWdhaW4=", "aGVsbG8="]);
}

#[test]
fn libcoap_uploads_by_blocks() {
    let (place, gateway) = gateway();
    let file = place.folder.path().join("body");
    std::fs::write(&file, vec![b'b'; 1_500]).unwrap();
    let url = format!("coap://{}/", gateway.coap);
    let answer = libcoap(&["-m", "post", "-b", "256", "-f", file.to_str().unwrap(), &url]);
    assert!(answer.contains("2.04"), "{answer}");
    let stored = payloads(&place, &gateway);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].len(), 2_000, "1,500 bytes in base 64");
}

#[test]
fn aiocoap_gets_the_documented_answers() {
    let (place, gateway) = gateway();
    let python = std::env::var("SIMGATE_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/simgate/venv/bin/python")
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/aiocoap_client.py");
    let output = foreign(&python).arg(script).arg(gateway.coap.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        text.trim(),
        "con 2.04\nnon 2.04\nblocks 2.04\ntopic 4.00\nmissing 4.04\nlarge 4.13"
    );
    assert_eq!(payloads(&place, &gateway).len(), 3);
}
