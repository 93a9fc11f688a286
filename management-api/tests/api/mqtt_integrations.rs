use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::Gateway;
use crate::integrations::{CLOUDS, OWN};

const MQTT: &str = "/simgate/v1/integrations/mqtt";

fn integration() -> Value {
    json!({
        "name": "broker", "eventTypes": [{"type": "TELEMETRY_DATA"}, {"type": "ERROR"}],
        "url": "mqtts://localhost:1", "paused": true,
    })
}

#[tokio::test]
async fn an_mqtt_integration_lives_from_creation_to_deletion() {
    let gateway = Gateway::start().await;
    let mut body = integration();
    body["clientId"] = json!("gateway-7");
    body["username"] = json!("user");
    body["password"] = json!("s3cret");
    body["topics"] = json!({"TELEMETRY_DATA": "fleet/:iccid:/up"});
    body["connections"] = json!(2);
    body["publishesPerSecond"] = json!(100);
    body["delivery"] = json!({"order": "none"});
    let answer = gateway.post(MQTT, body).await;
    assert!(!answer.text.contains("s3cret"), "{answer:?}");
    let made = answer.expect(201);
    assert_eq!((&made["type"], &made["state"]), (&json!("MQTT"), &json!("ROLLOUT_DONE")));
    assert_eq!((&made["url"], &made["paused"]), (&json!("mqtts://localhost:1"), &json!(true)));
    let mqtt = json!({
        "clientId": "gateway-7", "username": "user", "password": true,
        "topics": {"TELEMETRY_DATA": "fleet/:iccid:/up"}, "connections": 2,
        "publishesPerSecond": 100,
    });
    assert_eq!((&made["mqtt"], &made["delivery"]["order"]), (&mqtt, &json!("none")));
    assert_eq!(made.get("headers"), None);
    let id = made["id"].as_str().unwrap();
    let change = json!({
        "clientId": null, "username": null, "password": null, "topics": {}, "connections": 1,
        "publishesPerSecond": null, "paused": false, "url": "mqtts://localhost:2",
        "eventTypes": [{"type": "ERROR"}], "jsonPayloadEnabled": true,
        "delivery": {"concurrencyMax": 5},
    });
    let changed = gateway.patch(&format!("{MQTT}/{id}"), change).await.expect(200);
    assert_eq!(changed["mqtt"], json!({"password": false, "topics": {}, "connections": 1}));
    assert_eq!(
        (&changed["url"], &changed["paused"]),
        (&json!("mqtts://localhost:2"), &json!(false))
    );
    assert_eq!(changed["delivery"]["order"], "none");
    assert_eq!(changed["delivery"]["concurrencyMax"], 5);
    let found = gateway.get(&format!("{CLOUDS}/{id}")).await.expect(200);
    assert_eq!(found, changed);
    gateway.post_empty(&format!("{MQTT}/{id}/restart")).await.refusal(409);
    gateway.delete(&format!("{CLOUDS}/{id}")).await.expect(204);
    gateway.patch(&format!("{MQTT}/{id}"), json!({})).await.refusal(404);
}

#[tokio::test]
async fn what_is_left_out_has_its_default() {
    let gateway = Gateway::start().await;
    let made = gateway.post(MQTT, integration()).await.expect(201);
    assert_eq!(made["mqtt"], json!({"password": false, "topics": {}, "connections": 1}));
    assert_eq!((made.get("tls"), &made["jsonPayloadEnabled"]), (None, &json!(false)));
}

#[tokio::test]
async fn what_is_wrong_with_an_mqtt_integration_is_named() {
    let gateway = Gateway::start().await;
    let refuse = async |change: fn(&mut Value)| {
        let mut body = integration();
        change(&mut body);
        let refusal = gateway.post(MQTT, body).await.refusal(400);
        refusal["message"].as_str().unwrap().to_owned()
    };
    assert!(refuse(|body| body["name"] = json!("x".repeat(129))).await.contains("1 to 128"));
    assert!(refuse(|body| body["eventTypes"] = json!([])).await.contains("at least 1"));
    assert!(refuse(|body| body["headers"] = json!({})).await.contains("unknown field"));
    assert!(refuse(|body| body["connections"] = json!("two")).await.contains("invalid type"));
    assert!(refuse(|body| *body = json!({"name": "m"})).await.contains("missing field"));
    let text = refuse(|body| body["delivery"] = json!({"concurrencyMax": 0})).await;
    assert!(text.contains("1 to 256"), "{text}");
    let batch = json!({"batch": {"events": 2, "waitMilliseconds": 9}});
    let mut body = integration();
    body["delivery"] = batch;
    let refusal = gateway.post(MQTT, body).await.refusal(400);
    assert_eq!(refusal["message"], "integrations of type MQTT have no batches");
    for (member, value, field) in [
        ("url", json!("https://localhost:1"), "url"),
        ("url", json!("mqtt://broker.example.com"), "url"),
        ("url", json!("wss://broker.example.com"), "url"),
        ("clientId", json!(""), "clientId"),
        ("password", json!("s3cret"), "username"),
        ("connections", json!(0), "connections"),
        ("connections", json!(1_000_000), "connections"),
        ("publishesPerSecond", json!(0), "publishesPerSecond"),
        ("topics", json!({"NEWS": "x"}), "topics"),
        ("topics", json!({"ERROR": "a/#"}), "topics"),
        ("tls", json!({"roots": "nothing"}), "tls"),
    ] {
        let mut body = integration();
        body[member] = value.clone();
        let answer = gateway.post(MQTT, body).await;
        assert_eq!(answer.refusal(400)["field"], field, "{member} {value}");
        assert!(!answer.text.contains("s3cret"));
    }
    assert_eq!(gateway.get(CLOUDS).await.expect(200)["items"], json!([]));
    for verb in ["test", "restart"] {
        gateway.post_empty(&format!("{OWN}/mqtt/nobody/{verb}")).await.refusal(404);
    }
}

#[tokio::test]
async fn a_broker_has_one_integration_of_a_client_id() {
    let gateway = Gateway::start().await;
    let with_id = |id: &str| {
        let mut body = integration();
        body["clientId"] = json!(id);
        body
    };
    gateway.post(MQTT, with_id("one")).await.expect(201);
    let refusal = gateway.post(MQTT, with_id("one")).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("client id"), "{refusal}");
    let two = gateway.post(MQTT, with_id("two")).await.expect(201);
    let path = format!("{MQTT}/{}", two["id"].as_str().unwrap());
    gateway.patch(&path, json!({"clientId": "one"})).await.refusal(409);
    for _ in 0..2 {
        gateway.post(MQTT, integration()).await.expect(201);
    }
}

/// Takes whoever connects, and every event.
async fn broker() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

/// As much of MQTT 5 as a TEST_MESSAGE needs: CONNACK (section 3.2) and PUBACK (section 3.4).
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let kind = stream.read_u8().await? >> 4;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await?;
        match kind {
            1 => stream.write_all(&[0x20, 3, 0, 0, 0]).await?,
            3 => {
                let at = 2 + usize::from(u16::from_be_bytes([packet[0], packet[1]]));
                stream.write_all(&[0x40, 2, packet[at], packet[at + 1]]).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_test_tells_whether_the_broker_takes_events() {
    let gateway = Gateway::start().await;
    let test = async |url: String| {
        let mut body = integration();
        body["url"] = json!(url);
        let made = gateway.post(MQTT, body).await.expect(201);
        let path = format!("{MQTT}/{}/test", made["id"].as_str().unwrap());
        gateway.post_empty(&path).await.expect(200)
    };
    let expected = json!({"testStatus": "SUCCESS", "message": "Test was successful"});
    assert_eq!(test(broker().await).await, expected);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = test(format!("mqtt://{closed}")).await;
    assert_eq!(report["testStatus"], "FAILURE");
    assert!(report["message"].as_str().unwrap().starts_with("Test failed, "), "{report}");
}
