//! A foreign DTLS client with connection IDs against the running program: wolfSSL.

use std::process::Command;

use serde_json::json;

use crate::support::{Gateway, Place, eventually, foreign, one_sim};

const ICCID: &str = "8988280666000002874";
const KEY: &str = "a key for a test";

/// Suites by wolfSSL's names, and the length of the connection ID that the device gives itself.
///
/// Not CBC with length 0: wolfSSL 5.9.4 that writes a connection ID and reads none cannot check
/// the MAC of what it reads ("wolfSSL_SetTlsHmacInner doesn't support CID").
const SESSIONS: [(&str, &str); 6] = [
    ("PSK-AES128-CCM-8", "0"),
    ("PSK-AES128-CCM-8", "8"),
    ("PSK-AES128-CCM", "0"),
    ("PSK-AES128-GCM-SHA256", "0"),
    ("PSK-AES128-GCM-SHA256", "4"),
    ("PSK-AES128-CBC-SHA256", "4"),
];

fn wolfssl(gateway: &Gateway) -> Command {
    let program = std::env::var("SIMGATE_TEST_WOLFSSL").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/simgate/wolfssl-client")
    });
    let mut client = foreign(&program);
    let (address, port) = (gateway.coaps.ip().to_string(), gateway.coaps.port().to_string());
    client.args([&address, &port, ICCID, KEY]);
    client
}

fn count(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric("simgate_dtls_total", &[&format!("event=\"{event}\"")])
}

#[test]
fn wolfssl_moves_with_its_connection_id_in_each_suite() {
    let place = Place::with_ports_of_its_own();
    // The client sends from the address that the system chooses.
    assert!(place.import(&one_sim(ICCID, "127.0.0.1")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let key = json!({ "secretKey": KEY, "protocol": "COAP" });
    api.post(&format!("/v1/integrate/devices/{ICCID}/psk"), key);
    for (number, (suite, own)) in (1_u8..).zip(SESSIONS) {
        let output = wolfssl(&gateway).args([suite, own]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let expected =
            format!("suite {suite}\ncid of device {own} of gateway 8\npost 2.04\npost 2.04\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{errors}");
        assert!(output.status.success(), "{errors}");
        // The second post came from another port, and no second handshake preceded it.
        eventually("the move of the session", || {
            (count(&gateway, "moved") == f64::from(number)).then_some(())
        });
        for event in ["established", "established_with_cid"] {
            assert_eq!(count(&gateway, event), f64::from(number), "{event} after {suite} {own}");
        }
    }
    let history = api.get(&format!("/v1/inspect/devices/{ICCID}/history?pageSize=25"));
    let stored = history["items"].as_array().unwrap();
    assert_eq!(stored.len(), 2 * SESSIONS.len());
    // "hello" in base 64.
    assert!(stored.iter().all(|message| message["payload"] == "aGVsbG8="));
    assert!(gateway.terminate().success());
}
