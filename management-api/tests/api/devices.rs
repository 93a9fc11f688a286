use serde_json::json;
use vocabulary::{Protocol, Timestamp};

use crate::gateway::{Gateway, ICCID};

#[tokio::test]
async fn devices_are_listed_in_pages_by_the_asked_order() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    gateway.add_sim("8988280666000002865", "10.0.0.8");
    gateway.add_sim("8988280666000002866", "10.0.0.7");
    let page = gateway.get("/v1/inspect/devices?pageSize=2&sort=-iccid").await.expect(200);
    assert_eq!((&page["page"], &page["pageAmount"]), (&json!(1), &json!(2)));
    assert_eq!(page["items"][0]["iccid"], "8988280666000002866");
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let page = gateway.get("/v1/inspect/devices?pageSize=2&sort=-iccid&page=2").await.expect(200);
    let device = json!({
        "id": ICCID, "iccid": ICCID, "imsi1": "901405100002864", "ip": "10.0.0.9",
    });
    assert_eq!(page["items"], json!([device]));
    let page = gateway.get(&format!("/v1/inspect/devices?q=iccid:{ICCID}")).await.expect(200);
    assert_eq!(page["items"], json!([device]));
    let page = gateway.get("/v1/inspect/devices?sort=ip").await.expect(200);
    assert_eq!(page["items"][0]["ip"], "10.0.0.7");
    let page = gateway.get("/v1/inspect/devices?q=ip:10.9.9.9").await.expect(200);
    assert_eq!(page, json!({"items": [], "page": 1, "pageAmount": 1}));
}

#[tokio::test]
async fn one_device_is_found_by_its_iccid_in_both_forms() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    let device = gateway.get(&format!("/v1/inspect/devices/{ICCID}")).await.expect(200);
    assert_eq!(device["id"], ICCID);
    let long = ICCID.parse::<vocabulary::Iccid>().unwrap().with_luhn();
    let device = gateway.get(&format!("/v1/inspect/devices/{long}")).await.expect(200);
    assert_eq!(device["id"], ICCID);
    gateway.get("/v1/inspect/devices/8988280666000009999").await.refusal(404);
    assert_eq!(gateway.get("/v1/inspect/devices/12").await.refusal(400)["field"], "deviceId");
    gateway.patch(&format!("/simgate/v1/sims/{ICCID}"), json!({"label": "pump"})).await.expect(200);
    let device = gateway.get(&format!("/v1/inspect/devices/{ICCID}")).await.expect(200);
    assert_eq!(device["name"], "pump");
}

#[tokio::test]
async fn the_last_state_is_shown_for_each_protocol() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    let path = format!("/v1/inspect/devices/{ICCID}/telemetry");
    assert_eq!(gateway.get(&path).await.expect(200), json!({"id": ICCID, "state": {}}));
    gateway.append(Protocol::Udp, b"Hello", Timestamp::from(std::time::SystemTime::now())).await;
    let mut reader = gateway.inspector.reader().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        while reader.step().unwrap() > 0 {}
        reader.flush().unwrap();
    });
    read.await.unwrap();
    let state = gateway.get(&path).await.expect(200);
    assert_eq!(state["state"]["UDP"]["payload"], "SGVsbG8=");
    let state = gateway.get(&format!("{path}?protocol=coap")).await.expect(200);
    assert_eq!(state["state"], json!({}));
    gateway.get(&format!("{path}?protocol=mqtt")).await.refusal(400);
    gateway.get("/v1/inspect/devices/8988280666000009999/telemetry").await.refusal(404);
}

#[tokio::test]
async fn devices_are_counted() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    gateway.add_sim("8988280666000002865", "10.0.0.8");
    let off = json!({"status": "Disabled"});
    gateway.patch(&format!("/simgate/v1/sims/{ICCID}"), off).await.expect(200);
    let stats = gateway.get("/v1/devices/stats").await.expect(200);
    assert_eq!(stats, json!({"totalDevices": 2, "activatedDevices": 1}));
}

#[tokio::test]
async fn device_endpoints_come_from_the_configuration() {
    let gateway = Gateway::start().await;
    let page = gateway.get("/v1/integrate/devices/endpoints").await.expect(200);
    let udp = json!({
        "protocol": "UDP", "active": true, "domain": "gateway.example.com",
        "ipAddresses": ["10.0.0.1"], "port": 4445,
    });
    assert_eq!(page["items"][0], udp);
    let coap = gateway.get("/v1/integrate/devices/endpoints/COAP").await.expect(200);
    assert_eq!((&coap["port"], &coap["settings"]), (&json!(5683), &json!([])));
    gateway.get("/v1/integrate/devices/endpoints/MQTT").await.refusal(404);
}
