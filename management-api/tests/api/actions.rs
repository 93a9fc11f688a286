use device_controller::Outcome;
use serde_json::{Value, json};
use vocabulary::Iccid;

use crate::gateway::{ACCOUNT, Gateway, ICCID, REGISTERED};

const DEVICES: &str = "/v1/integrate/devices";
const REQUESTS: &str = "/v1/integrate/devices/actions/requests";
const STRANGER: &str = "8988280666000009999";

async fn start() -> Gateway {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    gateway
}

fn to(protocol: &str) -> String {
    format!("{DEVICES}/{ICCID}/actions/{protocol}")
}

fn udp(mode: &str) -> Value {
    json!({"payload": "hello", "payloadType": "STRING", "port": 3000, "requestMode": mode})
}

fn coap() -> Value {
    json!({
        "payload": "AP8=", "payloadType": "BASE64", "port": 3000, "path": "/example?param1=x",
        "requestType": "POST", "requestMode": "SEND_WHEN_ACTIVE", "sendAttempts": 3,
    })
}

fn id_of(answer: &Value) -> String {
    let id = answer["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 27);
    assert!(answer["message"].is_string());
    id
}

/// Says what came of the action that was last handed over.
async fn report(gateway: &Gateway, outcome: Outcome) {
    let serial = gateway.handed.lock().unwrap().last().unwrap().serial;
    let controller = gateway.controller.clone();
    let now = std::time::SystemTime::now().into();
    tokio::task::spawn_blocking(move || {
        assert!(controller.report(serial, now, outcome));
        controller.flush().unwrap();
    })
    .await
    .unwrap();
}

fn trigger(gateway: &Gateway, device: &str) {
    let device: Iccid = device.parse().unwrap();
    gateway.controller.trigger(device, std::time::SystemTime::now().into());
}

#[tokio::test]
async fn a_request_is_shown_as_it_was_made_and_with_what_came_of_it() {
    let gateway = start().await;
    let id = id_of(&gateway.post(&to("COAP"), coap()).await.expect(202));
    let path = format!("{REQUESTS}/{id}");
    let shown = gateway.get(&path).await.expect(200);
    assert_eq!((&shown["status"], &shown["protocol"]), (&json!("SCHEDULED"), &json!("COAP")));
    let data = &shown["requestData"];
    let expected = json!({
        "payload": "AP8=", "payloadType": "BASE64", "port": 3000, "path": "/example?param1=x",
        "requestType": "POST", "requestMode": "SEND_WHEN_ACTIVE", "iccid": ICCID, "deviceId": ICCID,
        "imsi1": "901405100002864", "requestId": id, "customerId": ACCOUNT,
        "deviceIpAddress": "10.0.0.1", "traceId": data["traceId"],
    });
    assert_eq!(data, &expected);
    assert_eq!(data["traceId"].as_str().unwrap().len(), 35);
    let attempts = (&shown["sendAttempts"], &shown["sendAttemptsLeft"]);
    assert_eq!(attempts, (&json!(3), &json!(3)));
    assert_eq!((&shown["mode"], &shown["ip"]), (&json!("SEND_WHEN_ACTIVE"), &json!("10.0.0.1")));
    trigger(&gateway, ICCID);
    assert_eq!(gateway.get(&path).await.expect(200)["status"], "IN_PROGRESS");
    gateway.delete(&path).await.refusal(409);
    let payload = b"Data from the device".to_vec();
    let outcome = Outcome::Succeeded { code: Some(205), payload, content_format: Some(0) };
    report(&gateway, outcome).await;
    let shown = gateway.get(&path).await.expect(200);
    let result = json!({"code": "205", "payload": "Data from the device", "payloadType": "TEXT"});
    assert_eq!((&shown["status"], &shown["resultData"]), (&json!("SUCCEEDED"), &result));
    assert_eq!(shown["sendAttemptsLeft"], 2);
    let archived = gateway.get(&format!("{REQUESTS}/archived")).await.expect(200);
    assert_eq!(archived["items"], json!([shown]));
}

#[tokio::test]
async fn a_datagram_is_sent_at_once() {
    let gateway = start().await;
    let mut body = udp("SEND_NOW");
    body.as_object_mut().unwrap().remove("requestMode");
    let id = id_of(&gateway.post(&to("UDP"), body).await.expect(202));
    let path = format!("{REQUESTS}/{id}");
    for _ in 0..200 {
        if gateway.get(&path).await.expect(200)["status"] == "IN_PROGRESS" {
            break;
        }
    }
    report(&gateway, Outcome::Succeeded { code: None, payload: vec![], content_format: None })
        .await;
    let shown = gateway.get(&path).await.expect(200);
    assert_eq!((&shown["status"], shown.get("resultData")), (&json!("SUCCEEDED"), None));
    assert_eq!(shown["requestData"]["payloadType"], "STRING");
}

#[tokio::test]
async fn an_operation_to_be_done_now_needs_a_registered_device() {
    let gateway = start().await;
    gateway.add_sim(REGISTERED, "10.0.0.2");
    let body = json!({"action": "write", "resourceAddress": "/3311/0/5850", "data": "1"});
    let refusal = gateway.post(&to("LWM2M"), body.clone()).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("not registered"), "{refusal}");
    for path in [
        format!("{DEVICES}/{REGISTERED}/actions/LWM2M"),
        format!("/v1/devices/{REGISTERED}/actions"),
    ] {
        id_of(&gateway.post(&path, body.clone()).await.expect(202));
    }
    let mut later = body;
    later["requestMode"] = json!("SEND_WHEN_ACTIVE");
    let id = id_of(&gateway.post(&to("LWM2M"), later).await.expect(202));
    trigger(&gateway, ICCID);
    let message = "4.04 Not Found".to_owned();
    report(&gateway, Outcome::Failed { code: Some(404), message, payload: vec![] }).await;
    let shown = gateway.get(&format!("{REQUESTS}/{id}")).await.expect(200);
    assert_eq!(shown["resultData"], json!({"code": "404", "errorMessage": "4.04 Not Found"}));
    let data = &shown["requestData"];
    assert_eq!((&data["action"], &data["data"]), (&json!("write"), &json!("1")));
    assert_eq!(data["resourceAddress"], "/3311/0/5850");
}

#[tokio::test]
async fn many_devices_are_asked_at_once() {
    let gateway = start().await;
    gateway.add_sim(REGISTERED, "10.0.0.2");
    let mut body = coap();
    body["deviceIds"] = json!([STRANGER, REGISTERED, "no-such-device", ICCID]);
    let path = format!("{DEVICES}/actions/COAP");
    let answer = gateway.post(&path, body.clone()).await.expect(202);
    assert_eq!(answer["rejectedDevices"], json!([STRANGER, "no-such-device"]));
    let accepted = answer["acceptedRequests"].as_array().unwrap();
    let devices: Vec<_> = accepted.iter().map(|one| &one["deviceId"]).collect();
    assert_eq!(devices, [REGISTERED, ICCID]);
    assert!(answer["message"].is_string());
    let id = accepted[1]["requestId"].as_str().unwrap();
    let shown = gateway.get(&format!("{REQUESTS}/{id}")).await.expect(200);
    assert_eq!(shown["deviceId"], ICCID);
    let now = json!({"action": "read", "resourceAddress": "/3", "deviceIds": [ICCID, REGISTERED]});
    let answer = gateway.post(&format!("{DEVICES}/actions/LWM2M"), now).await.expect(202);
    assert_eq!(answer["rejectedDevices"], json!([ICCID]));
    let mut datagram = udp("SEND_WHEN_ACTIVE");
    datagram["deviceIds"] = json!([ICCID]);
    gateway.post(&format!("{DEVICES}/actions/UDP"), datagram).await.expect(202);
    for (ids, field) in [
        (json!([]), "deviceIds"),
        (json!(vec![ICCID; 101]), "deviceIds"),
        (json!(["a b"]), "deviceIds"),
    ] {
        body["deviceIds"] = ids;
        assert_eq!(gateway.post(&path, body.clone()).await.refusal(400)["field"], field);
    }
    body["deviceIds"] = json!([ICCID]);
    body["colour"] = json!("red");
    let refusal = gateway.post(&path, body).await.refusal(400);
    assert!(refusal["message"].as_str().unwrap().contains("colour"), "{refusal}");
}

#[tokio::test]
async fn wrong_bodies_are_refused_by_field() {
    let gateway = start().await;
    let lwm2m = json!({"action": "read", "resourceAddress": "/3/0"});
    for (protocol, base, field, value) in [
        ("UDP", udp("SEND_NOW"), "port", json!(0)),
        ("UDP", udp("SEND_NOW"), "port", json!(65_536)),
        ("UDP", udp("SEND_NOW"), "payload", json!("x".repeat(509))),
        ("UDP", udp("SEND_NOW"), "payloadType", json!("HEX")),
        ("UDP", udp("SEND_NOW"), "requestMode", json!("LATER")),
        ("COAP", coap(), "payload", json!("not base64")),
        ("COAP", coap(), "payload", json!("A".repeat(1_368))),
        ("COAP", coap(), "path", json!("/a b")),
        ("COAP", coap(), "path", json!("/".repeat(256))),
        ("COAP", coap(), "requestType", json!("FETCH")),
        ("COAP", coap(), "sendAttempts", json!(0)),
        ("COAP", coap(), "sendAttempts", json!(6)),
        ("LWM2M", lwm2m.clone(), "action", json!("reboot")),
        ("LWM2M", lwm2m.clone(), "resourceAddress", json!("3/0")),
        ("LWM2M", lwm2m.clone(), "resourceAddress", json!("/65535")),
        ("LWM2M", lwm2m.clone(), "data", json!("x")),
        ("LWM2M", lwm2m.clone(), "sendAttempts", json!(2)),
    ] {
        let mut body = base;
        body[field] = value;
        let refusal = gateway.post(&to(protocol), body.clone()).await.refusal(400);
        assert_eq!(refusal["field"], field, "{body}");
    }
    let without = json!({"action": "write", "resourceAddress": "/3/0/1"});
    assert_eq!(gateway.post(&to("LWM2M"), without).await.refusal(400)["field"], "data");
    let mut attempts = udp("SEND_WHEN_ACTIVE");
    attempts["sendAttempts"] = json!(2);
    gateway.post(&to("UDP"), attempts).await.refusal(400);
    let longest = json!("x".repeat(508));
    let mut body = udp("SEND_WHEN_ACTIVE");
    body["payload"] = longest;
    gateway.post(&to("UDP"), body.clone()).await.expect(202);
    let stranger = format!("{DEVICES}/{STRANGER}/actions/UDP");
    gateway.post(&stranger, body).await.refusal(404);
    gateway.post(&to("MQTT"), json!({})).await.refusal(404);
    assert_eq!(gateway.controller.active(), 1);
}

#[tokio::test]
async fn ten_requests_wait_and_are_cancelled() {
    let gateway = start().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        let answer = gateway.post(&to("UDP"), udp("SEND_WHEN_ACTIVE")).await.expect(202);
        ids.push(id_of(&answer));
    }
    gateway.post(&to("UDP"), udp("SEND_WHEN_ACTIVE")).await.refusal(409);
    let path = format!("{REQUESTS}/{}", ids[0]);
    let cancelled = json!({"id": ids[0], "status": "CANCELLED"});
    assert_eq!(gateway.delete(&path).await.expect(200), cancelled);
    gateway.delete(&path).await.refusal(409);
    assert_eq!(gateway.get(&path).await.expect(200)["status"], "CANCELLED");
    let all = format!("{DEVICES}/{ICCID}/actions/requests");
    let answer = gateway.delete(&all).await.expect(200);
    assert_eq!(answer.as_array().unwrap().len(), 9);
    assert_eq!(answer[8], json!({"id": ids[9], "status": "CANCELLED"}));
    assert_eq!(gateway.delete(&all).await.expect(200), json!([]));
    gateway.delete(&format!("{DEVICES}/{STRANGER}/actions/requests")).await.refusal(404);
    for unknown in ["2l0mG3WulN1SUvlIcHjvKXBeZk0", "nothing"] {
        gateway.get(&format!("{REQUESTS}/{unknown}")).await.refusal(404);
        gateway.delete(&format!("{REQUESTS}/{unknown}")).await.refusal(404);
    }
}

#[tokio::test]
async fn requests_are_listed_by_what_has_become_of_them() {
    let gateway = start().await;
    gateway.add_sim(REGISTERED, "10.0.0.2");
    let first = id_of(&gateway.post(&to("UDP"), udp("SEND_WHEN_ACTIVE")).await.expect(202));
    let second = id_of(&gateway.post(&to("COAP"), coap()).await.expect(202));
    let other = format!("{DEVICES}/{REGISTERED}/actions/COAP");
    let third = id_of(&gateway.post(&other, coap()).await.expect(202));
    gateway.delete(&format!("{REQUESTS}/{first}")).await.expect(200);
    let list = async |path: String| {
        let page = gateway.get(&format!("{REQUESTS}{path}")).await.expect(200);
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("/active".to_owned()).await, [&*third, &*second]);
    assert_eq!(list("/active?sort=created".to_owned()).await, [&*second, &*third]);
    assert_eq!(list(format!("/active?deviceId={ICCID}")).await, [&*second]);
    assert_eq!(list("/active?status=IN_PROGRESS".to_owned()).await, [""; 0]);
    assert_eq!(list("/archived".to_owned()).await, [&*first]);
    assert_eq!(list("".to_owned()).await, [&*third, &*second, &*first]);
    assert_eq!(list("?protocol=UDP".to_owned()).await, [&*first]);
    assert_eq!(list("?page=2&pageSize=2".to_owned()).await, [&*first]);
    for (path, field) in [
        ("/active?status=FAILED", "status"),
        ("/archived?status=SCHEDULED", "status"),
        ("?sort=id", "sort"),
        ("?page=51", "page"),
        ("?protocol=MQTT", "protocol"),
        ("?deviceId=1", "deviceId"),
    ] {
        assert_eq!(gateway.get(&format!("{REQUESTS}{path}")).await.refusal(400)["field"], field);
    }
    // What waits for a device is not for whoever has its number later.
    gateway.delete(&format!("/simgate/v1/sims/{ICCID}")).await.expect(204);
    assert_eq!(
        gateway.get(&format!("{REQUESTS}/{second}")).await.expect(200)["status"],
        "CANCELLED"
    );
}

#[tokio::test]
async fn a_registration_is_shown_and_its_absence_said() {
    let gateway = Gateway::start().await;
    let path = |device: &str| format!("/simgate/v1/devices/{device}/registration");
    let shown = gateway.get(&path(REGISTERED)).await.expect(200);
    assert_eq!(shown["deviceId"], REGISTERED);
    assert_eq!(shown["observations"], json!(["/3/0/9"]));
    gateway.get(&path(ICCID)).await.refusal(404);
}
