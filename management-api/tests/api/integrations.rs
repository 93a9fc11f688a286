use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gateway::Gateway;

const CLOUDS: &str = "/v1/integrate/clouds";
const WEBHOOKS: &str = "/v1/integrate/clouds/webhooks";

fn webhook(url: &str) -> Value {
    json!({
        "name": "mine", "url": url, "headers": {"x-api-key": "secret"},
        "eventTypes": [{"type": "TELEMETRY_DATA"}, {"type": "ERROR", "version": "1.0.0"}],
    })
}

/// Answers every request with `status`.
async fn receiver(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/events")
}

#[tokio::test]
async fn a_webhook_lives_from_creation_to_deletion() {
    let gateway = Gateway::start().await;
    let made = gateway.post(WEBHOOKS, webhook("https://example.com/a")).await.expect(201);
    assert_eq!(made["type"], "WEBHOOK");
    assert_eq!(made["state"], "ROLLOUT_DONE");
    assert_eq!(made["url"], "https://example.com/a");
    assert_eq!(made["headers"], json!({"x-api-key": "secret"}));
    assert_eq!(made["jsonPayloadEnabled"], false);
    assert_eq!(made.get("lastSuccessfulMessageDelivery"), None);
    let id = made["id"].as_str().unwrap();
    assert_eq!(id.len(), 21);
    let page = gateway.get(CLOUDS).await.expect(200);
    assert_eq!(page["items"][0]["id"], id);
    assert_eq!(page["items"][0].get("headers"), None, "a list shows no secrets");
    gateway.post(WEBHOOKS, webhook("https://example.com/a")).await.refusal(409);
    let change = json!({"jsonPayloadEnabled": true, "eventTypes": [{"type": "LIFECYCLE"}]});
    let changed = gateway.patch(&format!("{CLOUDS}/{id}"), change).await.expect(200);
    assert_eq!(changed["eventTypes"], json!([{"type": "LIFECYCLE", "version": "1.0.0"}]));
    let change = json!({"url": "https://example.com/b"});
    let changed = gateway.patch(&format!("{WEBHOOKS}/{id}"), change).await.expect(200);
    assert_eq!(changed["url"], "https://example.com/b");
    let found = gateway.get(&format!("{CLOUDS}/{id}")).await.expect(200);
    assert_eq!(found["jsonPayloadEnabled"], true);
    gateway.delete(&format!("{CLOUDS}/{id}")).await.expect(204);
    gateway.get(&format!("{CLOUDS}/{id}")).await.refusal(404);
    gateway.delete(&format!("{CLOUDS}/{id}")).await.refusal(404);
    gateway.patch(&format!("{WEBHOOKS}/{id}"), json!({})).await.refusal(404);
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_named() {
    let gateway = Gateway::start().await;
    let refuse = async |change: fn(&mut Value)| {
        let mut body = webhook("https://example.com/a");
        change(&mut body);
        let refusal = gateway.post(WEBHOOKS, body).await.refusal(400);
        refusal["message"].as_str().unwrap().to_owned()
    };
    assert!(refuse(|body| body["url"] = json!("http://example.com")).await.contains("https"));
    assert!(refuse(|body| body["name"] = json!("")).await.contains("1 to 128"));
    assert!(refuse(|body| body["eventTypes"] = json!([])).await.contains("at least 1"));
    let unknown = refuse(|body| body["eventTypes"] = json!([{"type": "X"}])).await;
    assert!(unknown.contains("TELEMETRY_DATA"), "{unknown}");
    let missing = refuse(|body| *body = json!({"name": "a"})).await;
    assert!(missing.contains("missing field"), "{missing}");
}

#[tokio::test]
async fn a_test_tells_success_from_failure_and_a_restart_needs_a_failure() {
    let gateway = Gateway::start().await;
    let make = async |url: String| {
        let made = gateway.post(WEBHOOKS, webhook(&url)).await.expect(201);
        format!("{WEBHOOKS}/{}", made["id"].as_str().unwrap())
    };
    let good = make(receiver("200 OK").await).await;
    let bad = make(receiver("500 Internal Server Error").await).await;
    let report = gateway.post_empty(&format!("{good}/test")).await.expect(200);
    let expected = json!({"testStatus": "SUCCESS", "message": "Test was successful"});
    assert_eq!(report, expected);
    let report = gateway.post_empty(&format!("{bad}/test")).await.expect(200);
    assert_eq!(report["testStatus"], "FAILURE");
    gateway.post_empty(&format!("{good}/restart")).await.refusal(409);
    gateway.post_empty(&format!("{WEBHOOKS}/nobody/test")).await.refusal(404);
    gateway.post_empty(&format!("{WEBHOOKS}/nobody/restart")).await.refusal(404);
}

#[tokio::test]
async fn event_types_have_examples() {
    let gateway = Gateway::start().await;
    let list = gateway.get("/v1/integrate/clouds/eventTypes").await.expect(200);
    let first = &list["eventTypes"][0];
    assert_eq!((&first["name"], &first["version"]), (&json!("TELEMETRY_DATA"), &json!("1.0.0")));
    assert_eq!(first["payload"]["type"], "TELEMETRY_DATA");
}
