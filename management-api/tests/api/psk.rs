use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{Gateway, ICCID};

const DEVICES: &str = "/v1/integrate/devices";

#[tokio::test]
async fn a_key_is_set_and_read_under_both_names() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let body = json!({"secretKey": "correct horse", "protocol": "COAP"});
    let set = gateway.post(&format!("{DEVICES}/{ICCID}/psk"), body.clone()).await.expect(200);
    assert_eq!((&set["deviceId"], &set["identity"]), (&json!(ICCID), &json!(ICCID)));
    assert_eq!((&set["secretKey"], &set["format"]), (&json!("correct horse"), &json!("STRING")));
    for name in ["psk", "presharedkey"] {
        let path = format!("{DEVICES}/{ICCID}/{name}/COAP");
        assert_eq!(gateway.get(&path).await.expect(200), set);
        gateway.get(&format!("{DEVICES}/{ICCID}/{name}/LWM2M")).await.refusal(404);
        gateway.get(&format!("{DEVICES}/{ICCID}/{name}/UDP")).await.refusal(400);
    }
    let hex = json!({"secretKey": "00ff00ff", "protocol": "LWM2M", "format": "HEX"});
    gateway.post(&format!("{DEVICES}/{ICCID}/presharedkey"), hex).await.expect(200);
    let stranger = format!("{DEVICES}/8988280666000009999/psk");
    gateway.post(&stranger, body).await.refusal(404);
    gateway.get(&format!("{stranger}/COAP")).await.refusal(404);
    // What is removed with its SIM does not come back with it.
    gateway.delete(&format!("/simgate/v1/sims/{ICCID}")).await.expect(204);
    gateway.add_sim(ICCID, "10.0.0.1");
    gateway.get(&format!("{DEVICES}/{ICCID}/psk/COAP")).await.refusal(404);
}

#[tokio::test]
async fn keys_that_no_device_can_have_are_refused() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let path = format!("{DEVICES}/{ICCID}/psk");
    for (secret, protocol, format, field) in [
        ("1234567", "COAP", "STRING", "secretKey"),
        (&*"x".repeat(257), "COAP", "STRING", "secretKey"),
        ("12345678g", "COAP", "HEX", "secretKey"),
        ("12345678", "UDP", "STRING", "protocol"),
        ("12345678", "COAP", "BASE64", "format"),
    ] {
        let body = json!({"secretKey": secret, "protocol": protocol, "format": format});
        assert_eq!(gateway.post(&path, body).await.refusal(400)["field"], field);
    }
    let long = json!([{"deviceId": ICCID, "secretKey": "x".repeat(129), "protocol": "COAP"}]);
    gateway.post(&format!("{DEVICES}/psk/jobs"), long).await.refusal(400);
    gateway.post(&format!("{DEVICES}/psk/jobs"), json!([])).await.refusal(400);
}

#[tokio::test]
async fn five_thousand_keys_are_set_at_once() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let entry = |number: u64| {
        let id = ICCID.parse::<u64>().unwrap() + number;
        json!({"deviceId": id.to_string(), "secretKey": "x".repeat(128), "protocol": "COAP"})
    };
    let path = format!("{DEVICES}/psk/jobs");
    let entries: Vec<Value> = (0..5_001).map(entry).collect();
    gateway.post(&path, json!(entries)).await.refusal(400);
    gateway.post(&path, json!(entries[..5_000])).await.expect(202);
    for _ in 0..600 {
        let jobs = gateway.get(&format!("{DEVICES}/presharedkey/jobs")).await.expect(200);
        let job = &jobs["items"][0];
        assert_eq!(job["amount"], 5_000);
        if job["status"] == "DONE" {
            assert_eq!((&job["done"], &job["failed"]), (&json!(1), &json!(4_999)));
            gateway.get(&format!("{DEVICES}/{ICCID}/psk/COAP")).await.expect(200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the job is not done");
}
