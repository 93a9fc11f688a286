use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gateway::Gateway;

pub(crate) const CLOUDS: &str = "/v1/integrate/clouds";
pub(crate) const WEBHOOKS: &str = "/v1/integrate/clouds/webhooks";
pub(crate) const OWN: &str = "/simgate/v1/integrations";

pub(crate) fn webhook(url: &str) -> Value {
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

/// The ids of one integration of each kind, all of them waiting: webhook, AWS, MQTT.
pub(crate) async fn one_of_each_kind(gateway: &Gateway) -> [String; 3] {
    let types = json!([{"type": "TELEMETRY_DATA"}]);
    let aws = json!({"name": "a", "eventTypes": types});
    let mqtt = json!({
        "name": "m", "eventTypes": types, "url": "mqtts://localhost:1", "paused": true,
    });
    let mut hook = webhook("http://127.0.0.1:9/");
    hook["paused"] = json!(true);
    let mut ids = Vec::new();
    for (path, body) in
        [(WEBHOOKS.to_owned(), hook), (format!("{CLOUDS}/aws"), aws), (format!("{OWN}/mqtt"), mqtt)]
    {
        let made = gateway.post(&path, body).await.expect(201);
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    ids.try_into().unwrap()
}

#[tokio::test]
async fn a_webhook_has_options_beyond_the_documented_ones() {
    let gateway = Gateway::start().await;
    let mut body = webhook("https://example.com/a");
    let plain = gateway.post(WEBHOOKS, body.clone()).await.expect(201);
    let delivery = json!({
        "order": "device", "retry": "standard", "batch": null, "concurrencyMax": 64,
    });
    assert_eq!((&plain["delivery"], &plain["gzip"]), (&delivery, &json!(false)));
    assert_eq!((&plain["paused"], plain.get("tls")), (&json!(false), None));
    body["url"] = json!("https://example.com/b");
    body["gzip"] = json!(true);
    body["paused"] = json!(true);
    body["delivery"] = json!({
        "order": "none", "retry": "compat-1nce", "concurrencyMax": 8,
        "batch": {"events": 100, "waitMilliseconds": 250},
    });
    let made = gateway.post(WEBHOOKS, body.clone()).await.expect(201);
    assert_eq!(made["delivery"], body["delivery"]);
    assert_eq!((&made["gzip"], &made["paused"]), (&json!(true), &json!(true)));
    let path = format!("{WEBHOOKS}/{}", made["id"].as_str().unwrap());
    let change = json!({"delivery": {"batch": null}, "gzip": false, "paused": false});
    let changed = gateway.patch(&path, change).await.expect(200);
    let delivery = json!({
        "order": "none", "retry": "compat-1nce", "batch": null, "concurrencyMax": 8,
    });
    assert_eq!((&changed["delivery"], &changed["gzip"]), (&delivery, &json!(false)));
    assert_eq!(changed["paused"], false);
    let found = gateway.get(&format!("{CLOUDS}/{}", made["id"].as_str().unwrap())).await;
    assert_eq!(found.expect(200), changed);
}

#[tokio::test]
async fn options_that_are_out_of_range_change_nothing() {
    let gateway = Gateway::start().await;
    let made = gateway.post(WEBHOOKS, webhook("https://example.com/a")).await.expect(201);
    let path = format!("{WEBHOOKS}/{}", made["id"].as_str().unwrap());
    for (delivery, allowed) in [
        (json!({"order": "card"}), "`device` or `none`"),
        (json!({"retry": "never"}), "`standard` or `compat-1nce`"),
        (json!({"concurrencyMax": 0}), "1 to 256"),
        (json!({"concurrencyMax": 257}), "1 to 256"),
        (json!({"batch": {"events": 0, "waitMilliseconds": 1}}), "1 to 1000"),
        (json!({"batch": {"events": 9, "waitMilliseconds": 60_001}}), "0 to 60000"),
        (json!({"batch": {"events": 9}}), "waitMilliseconds"),
        (json!({"speed": 1}), "expected one of"),
    ] {
        let change = json!({"delivery": delivery, "paused": true, "jsonPayloadEnabled": true});
        let refusal = gateway.patch(&path, change.clone()).await.refusal(400);
        let text = refusal["message"].as_str().unwrap().to_owned();
        assert!(text.contains(allowed), "{text}");
        let mut body = webhook("https://example.com/b");
        body["delivery"] = delivery;
        gateway.post(WEBHOOKS, body).await.refusal(400);
    }
    let found = gateway.get(&format!("{CLOUDS}/{}", made["id"].as_str().unwrap())).await;
    assert_eq!(found.expect(200), made);
    let page = gateway.get(CLOUDS).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_integration_waits_and_goes_on() {
    let gateway = Gateway::start().await;
    for id in one_of_each_kind(&gateway).await {
        for (verb, paused) in [("pause", true), ("pause", true), ("resume", false)] {
            let answer = gateway.post_empty(&format!("{OWN}/{id}/{verb}")).await.expect(200);
            assert_eq!((&answer["id"], &answer["paused"]), (&json!(id), &json!(paused)));
        }
        let found = gateway.get(&format!("{CLOUDS}/{id}")).await.expect(200);
        assert_eq!(found["paused"], false);
    }
    gateway.post_empty(&format!("{OWN}/nobody/pause")).await.refusal(404);
    gateway.post_empty(&format!("{OWN}/nobody/resume")).await.refusal(404);
}

#[tokio::test]
async fn paths_of_one_kind_do_not_know_the_others() {
    let gateway = Gateway::start().await;
    let ids = one_of_each_kind(&gateway).await;
    let paths = [WEBHOOKS.to_owned(), format!("{CLOUDS}/aws"), format!("{OWN}/mqtt")];
    let patched = [WEBHOOKS.to_owned(), format!("{OWN}/aws"), format!("{OWN}/mqtt")];
    for (at, (path, patched)) in paths.iter().zip(&patched).enumerate() {
        for (kind, id) in ids.iter().enumerate().filter(|(kind, _)| *kind != at) {
            for verb in ["test", "restart"] {
                let refusal = gateway.post_empty(&format!("{path}/{id}/{verb}")).await.refusal(404);
                assert!(refusal["message"].as_str().unwrap().contains(id), "{kind}: {refusal}");
            }
            gateway.patch(&format!("{patched}/{id}"), json!({})).await.refusal(404);
        }
        gateway.patch(&format!("{patched}/{}", ids[at]), json!({})).await.expect(200);
    }
    let types: Vec<Value> = gateway.get(CLOUDS).await.expect(200)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].clone())
        .collect();
    assert_eq!(types, [json!("WEBHOOK"), json!("AWS"), json!("MQTT")]);
}

#[tokio::test]
async fn the_documented_change_is_for_what_a_kind_has() {
    let gateway = Gateway::start().await;
    let [webhook, aws, mqtt] = one_of_each_kind(&gateway).await;
    let types = json!([{"type": "ERROR", "version": "1.0.0"}]);
    for id in [&webhook, &aws, &mqtt] {
        let change = json!({"eventTypes": types, "jsonPayloadEnabled": true});
        let changed = gateway.patch(&format!("{CLOUDS}/{id}"), change).await.expect(200);
        assert_eq!(changed["eventTypes"], types);
        assert_eq!(changed["jsonPayloadEnabled"], true);
    }
    for (id, change, what) in [
        (&aws, json!({"url": "https://example.com/"}), "type AWS has no url"),
        (&aws, json!({"tls": null}), "type AWS has no tls"),
        (&aws, json!({"headers": {}}), "type AWS has no headers"),
        (&aws, json!({"gzip": true}), "type AWS has no gzip"),
        (&mqtt, json!({"headers": {}}), "type MQTT has no headers"),
        (&mqtt, json!({"gzip": true}), "type MQTT has no gzip"),
    ] {
        let refusal = gateway.patch(&format!("{CLOUDS}/{id}"), change).await.refusal(400);
        let text = refusal["message"].as_str().unwrap();
        assert!(text.contains(what), "{text}");
    }
    let url = json!({"url": "mqtts://localhost:2"});
    let changed = gateway.patch(&format!("{CLOUDS}/{mqtt}"), url).await.expect(200);
    assert_eq!(changed["url"], "mqtts://localhost:2");
}

#[tokio::test]
async fn the_status_tells_what_an_integration_does() {
    let gateway = Gateway::start().await;
    let mut body = webhook(&receiver("503 Service Unavailable").await);
    body["paused"] = json!(true);
    let made = gateway.post(WEBHOOKS, body).await.expect(201);
    let path = format!("{OWN}/{}", made["id"].as_str().unwrap());
    let waiting = json!({"state": "ROLLOUT_DONE", "paused": true, "deadLetters": 0});
    assert_eq!(gateway.get(&format!("{path}/status")).await.expect(200), waiting);
    let now = std::time::SystemTime::now().into();
    gateway.append(vocabulary::Protocol::Udp, b"x", now).await;
    gateway.post_empty(&format!("{path}/resume")).await.expect(200);
    let start = std::time::Instant::now();
    let delivery = loop {
        let status = gateway.get(&format!("{path}/status")).await.expect(200);
        if status["delivery"]["lastFailure"].is_object() {
            break status["delivery"].clone();
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(delivery["lastFailure"]["response"]["code"], 503);
    assert!(delivery["lastFailure"]["reason"]["class"].is_string());
    assert_eq!((delivery.get("lastSuccessTime"), &delivery["freshLane"]), (None, &json!(false)));
    assert!(delivery["lagRecords"].is_u64() && delivery["inFlight"].is_u64(), "{delivery}");
    assert!(delivery["concurrencyLimit"].as_u64().unwrap() >= 1);
    gateway.get(&format!("{OWN}/nobody/status")).await.refusal(404);
}
