use serde_json::{Value, json};

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
    assert_eq!(gateway.get(CLOUDS).await.expect(200)["items"], json!([]));
    for verb in ["test", "restart"] {
        gateway.post_empty(&format!("{OWN}/mqtt/nobody/{verb}")).await.refusal(404);
    }
}
