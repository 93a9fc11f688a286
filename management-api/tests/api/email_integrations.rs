use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::integrations::{CLOUDS, WEBHOOKS};

const EMAIL: &str = "/simgate/v1/integrations/email";

#[tokio::test]
async fn an_email_integration_lives_from_creation_to_deletion() {
    let gateway = Gateway::start().await;
    let recipients = json!(["Night shift <night@example.com>", "b@example.com"]);
    let body = json!({ "name": "alerts", "recipients": recipients, "paused": true });
    let made = gateway.post(EMAIL, body).await.expect(201);
    assert_eq!((&made["type"], &made["state"]), (&json!("EMAIL"), &json!("ROLLOUT_DONE")));
    assert_eq!((&made["recipients"], &made["paused"]), (&recipients, &json!(true)));
    assert_eq!(made["eventTypes"], json!([{ "type": "GEOFENCE", "version": "1.0.0" }]));
    assert_eq!(made["delivery"]["batch"], json!({ "events": 50, "waitMilliseconds": 5_000 }));
    let id = made["id"].as_str().unwrap();
    let path = format!("{EMAIL}/{id}");
    let change = json!({
        "eventTypes": [{ "type": "LOCATION" }, { "type": "ERROR" }, { "type": "LIFECYCLE" }],
        "recipients": ["c@example.com"], "delivery": { "batch": null },
    });
    let changed = gateway.patch(&path, change).await.expect(200);
    assert_eq!(changed["recipients"], json!(["c@example.com"]));
    assert_eq!(changed["eventTypes"].as_array().map(Vec::len), Some(3));
    assert_eq!(changed["delivery"]["batch"], Value::Null);
    assert_eq!(gateway.get(&format!("{CLOUDS}/{id}")).await.expect(200), changed);
    assert_eq!(gateway.get(CLOUDS).await.expect(200)["items"][0]["type"], "EMAIL");
    // Nobody listens there.
    let tested = gateway.post_empty(&format!("{path}/test")).await.expect(200);
    assert_eq!(tested["testStatus"], "FAILURE", "{tested}");
    gateway.post_empty(&format!("{path}/restart")).await.refusal(409);
    gateway.delete(&format!("{CLOUDS}/{id}")).await.expect(204);
    gateway.patch(&path, json!({})).await.refusal(404);
}

#[tokio::test]
async fn what_no_mail_can_be_made_of_is_refused_with_its_field() {
    let gateway = Gateway::start().await;
    let valid = json!({ "name": "alerts", "recipients": ["a@example.com"] });
    for (field, value) in [
        ("recipients", json!([])),
        ("recipients", json!(vec!["a@example.com"; 11])),
        ("recipients", json!(["not an address"])),
        ("recipients", json!(["a@example.com\r\nRCPT TO:<b@example.com>"])),
        ("eventTypes", json!([])),
        ("eventTypes", json!([{ "type": "GEOFENCE" }, { "type": "TELEMETRY_DATA" }])),
        ("name", json!("")),
    ] {
        let mut body = valid.clone();
        body[field] = value.clone();
        let error = gateway.post(EMAIL, body).await.refusal(400);
        assert_eq!(error["field"], field, "{value}: {error}");
    }
    let made = gateway.post(EMAIL, valid).await.expect(201);
    let id = made["id"].as_str().unwrap();
    let change = json!({ "eventTypes": [{ "type": "TELEMETRY_DATA" }] });
    let error = gateway.patch(&format!("{EMAIL}/{id}"), change.clone()).await.refusal(400);
    assert!(error["message"].as_str().unwrap().contains("flood"), "{error}");
    gateway.patch(&format!("{CLOUDS}/{id}"), change).await.refusal(400);
    gateway.patch(&format!("{CLOUDS}/{id}"), json!({ "url": "https://a.b" })).await.refusal(400);
    gateway.patch(&format!("{WEBHOOKS}/{id}"), json!({})).await.refusal(404);
    gateway.post_empty(&format!("{WEBHOOKS}/{id}/test")).await.refusal(404);
}
