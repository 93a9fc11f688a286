use management_api::{Rate, Settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Choices, Gateway};
use crate::integrations::{CLOUDS, OWN};

const AWS: &str = "/v1/integrate/clouds/aws";
const ROLE: &str = "arn:aws:iam::123456789012:role/simgate";

fn integration() -> Value {
    json!({"name": "cloud", "eventTypes": [{"type": "TELEMETRY_DATA"}]})
}

async fn begin(gateway: &Gateway) -> (String, String) {
    let made = gateway.post(AWS, integration()).await.expect(201);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("jwt"))
}

/// Ends a rollout as a stack would: without a token of this API.
async fn roll_out(gateway: &Gateway, body: Value) -> Answer {
    let url = gateway.url("/management-api/simgate/v1/integrations/aws/rollout");
    let request = gateway.http.request(Method::POST, url).json(&body);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_rollout_is_begun_by_its_creation_and_ended_by_its_token() {
    let gateway = Gateway::start().await;
    let made = gateway.post(AWS, integration()).await.expect(201);
    assert_eq!((&made["type"], &made["state"]), (&json!("AWS"), &json!("ROLLOUT_STARTED")));
    for absent in ["url", "headers", "region", "awsAccountId", "aws", "gzip", "tls", "error"] {
        assert_eq!(made.get(absent), None, "{absent}");
    }
    let (id, jwt) = (made["id"].as_str().unwrap(), made["jwt"].as_str().unwrap());
    let path = format!("{CLOUDS}/{id}");
    assert_eq!(gateway.get(&path).await.expect(200).get("jwt"), None, "it is shown once");
    gateway.post_empty(&format!("{AWS}/{id}/test")).await.refusal(409);
    gateway.post_empty(&format!("{AWS}/{id}/restart")).await.refusal(409);
    let end = json!({
        "jwt": jwt, "region": "eu-central-1", "roleArn": ROLE, "externalId": "simgate-1",
        "accountId": "123456789012", "endpoint": "abc-ats.iot.eu-central-1.amazonaws.com",
    });
    let done = roll_out(&gateway, end.clone()).await.expect(200);
    assert_eq!((&done["id"], &done["state"]), (&json!(id), &json!("ROLLOUT_DONE")));
    assert_eq!(done["awsAccountId"], "123456789012");
    assert_eq!(done["region"], "eu-central-1");
    let aws = json!({
        "endpoint": "abc-ats.iot.eu-central-1.amazonaws.com",
        "transport": {"type": "SDK", "roleArn": ROLE, "externalId": "simgate-1"},
    });
    assert_eq!(done["aws"], aws);
    let found = gateway.get(&path).await.expect(200);
    assert_eq!((&found["state"], found.get("jwt")), (&json!("ROLLOUT_DONE"), None));
    roll_out(&gateway, end).await.refusal(404);
}

#[tokio::test]
async fn a_rollout_needs_its_token_and_a_region() {
    let gateway = Gateway::start().await;
    let (id, jwt) = begin(&gateway).await;
    let unknown = json!({"jwt": "x", "region": "eu-central-1"});
    let refusal = roll_out(&gateway, unknown).await.refusal(404);
    assert!(refusal["message"].as_str().unwrap().contains("older than an hour"), "{refusal}");
    for (body, text) in [
        (json!({"region": "eu-central-1"}), "missing field `jwt`"),
        (json!({"jwt": jwt}), "missing field `region`"),
        (json!({"jwt": jwt, "region": "eu-central-1", "role": ROLE}), "expected one of"),
    ] {
        let refusal = roll_out(&gateway, body).await.refusal(400);
        assert!(refusal["message"].as_str().unwrap().contains(text), "{refusal}");
    }
    for (member, value) in [
        ("region", "the moon"),
        ("roleArn", "admin"),
        ("externalId", "x"),
        ("endpoint", "example.com/x"),
    ] {
        let mut body = json!({"jwt": jwt, "region": "eu-central-1", "roleArn": ROLE});
        body[member] = json!(value);
        let refusal = roll_out(&gateway, body).await.refusal(400);
        assert_eq!(refusal["field"], member, "{refusal}");
        assert!(refusal["message"].as_str().unwrap().contains("allowed"), "{refusal}");
    }
    let alone = json!({"jwt": jwt, "region": "eu-central-1", "externalId": "simgate-1"});
    assert_eq!(roll_out(&gateway, alone).await.refusal(400)["field"], "externalId");
    let found = gateway.get(&format!("{CLOUDS}/{id}")).await.expect(200);
    assert_eq!((&found["state"], found.get("region")), (&json!("ROLLOUT_STARTED"), None));
    let own_account = json!({"jwt": jwt, "region": "eu-central-1"});
    assert_eq!(roll_out(&gateway, own_account).await.refusal(400)["field"], "roleArn");
    let body = json!({"jwt": jwt, "region": "eu-central-1", "roleArn": ROLE});
    roll_out(&gateway, body).await.expect(200);
}

#[tokio::test]
async fn who_guesses_tokens_is_told_to_wait() {
    let token_rate = Rate { per_second: 0.001, burst: 12.0 };
    let settings = Settings { token_rate, ..Settings::default() };
    let gateway = Gateway::start_with(Choices { settings, ..Choices::default() }).await;
    let guess = json!({"jwt": "x", "region": "eu-central-1"});
    roll_out(&gateway, guess.clone()).await.refusal(404);
    let answer = roll_out(&gateway, guess).await;
    assert_eq!(answer.status, 404, "the login and the first guess have cost eleven of twelve");
    let answer = roll_out(&gateway, json!({"jwt": "y", "region": "eu-central-1"})).await;
    answer.refusal(429);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_integration_whose_place_is_known_delivers_at_once() {
    let gateway = Gateway::start().await;
    let mut body = integration();
    body["aws"] = json!({
        "region": "eu-central-1", "endpoint": "abc-ats.iot.eu-central-1.amazonaws.com",
        "transport": {"type": "SDK"},
    });
    let made = gateway.post(AWS, body).await.expect(201);
    assert_eq!(made["state"], "ROLLOUT_DONE");
    assert_eq!((made.get("jwt"), made.get("awsAccountId")), (None, None));
    assert_eq!(made["region"], "eu-central-1");
    assert_eq!(made["aws"]["transport"], json!({"type": "SDK"}));
    let path = format!("{OWN}/aws/{}", made["id"].as_str().unwrap());
    let change = json!({
        "aws": {"region": "eu-west-1", "accountId": "210987654321",
            "transport": {"type": "SDK", "roleArn": ROLE}},
        "delivery": {"concurrencyMax": 3}, "paused": true,
    });
    let changed = gateway.patch(&path, change).await.expect(200);
    assert_eq!((&changed["region"], &changed["paused"]), (&json!("eu-west-1"), &json!(true)));
    assert_eq!(changed["awsAccountId"], "210987654321");
    let transport = json!({"type": "SDK", "roleArn": ROLE, "externalId": made["id"]});
    assert_eq!(changed["aws"], json!({ "transport": transport }));
    assert_eq!(changed["delivery"]["concurrencyMax"], 3);
}

#[tokio::test]
async fn where_events_go_cannot_be_changed_during_a_rollout() {
    let gateway = Gateway::start().await;
    let (id, _) = begin(&gateway).await;
    let path = format!("{OWN}/aws/{id}");
    let aws = json!({"aws": {"region": "eu-west-1", "transport": {"type": "SDK"}}});
    let refusal = gateway.patch(&path, aws).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("ROLLOUT_STARTED"), "{refusal}");
    gateway.patch(&path, json!({"jsonPayloadEnabled": true})).await.expect(200);
    gateway.patch(&format!("{OWN}/aws/nobody"), json!({})).await.refusal(404);
    gateway.post_empty(&format!("{AWS}/nobody/test")).await.refusal(404);
    gateway.post_empty(&format!("{AWS}/nobody/restart")).await.refusal(404);
}

#[tokio::test]
async fn what_is_wrong_with_an_aws_integration_is_named() {
    let gateway = Gateway::start().await;
    let refuse = async |change: fn(&mut Value)| {
        let mut body = integration();
        change(&mut body);
        let refusal = gateway.post(AWS, body).await.refusal(400);
        refusal["message"].as_str().unwrap().to_owned()
    };
    assert!(refuse(|body| body["name"] = json!("")).await.contains("1 to 128"));
    assert!(refuse(|body| body["eventTypes"] = json!([])).await.contains("at least 1"));
    assert!(refuse(|body| body["url"] = json!("x")).await.contains("unknown field"));
    let text = refuse(|body| body["aws"] = json!({"region": "eu-west-1"})).await;
    assert!(text.contains("missing field `transport`"), "{text}");
    let text = refuse(|body| {
        body["aws"] = json!({"region": "eu-west-1", "transport": {"type": "FTP"}});
    });
    let text = text.await;
    assert!(text.contains("`SDK` or `MQTT`"), "{text}");
    let text = refuse(|body| {
        body["aws"] = json!({"region": "eu-west-1", "transport": {"type": "MQTT"}});
    });
    let text = text.await;
    assert!(text.contains("missing field `certificate`"), "{text}");
    let text = refuse(|body| {
        let transport = json!({"type": "MQTT", "certificate": "c", "privateKey": "k"});
        body["aws"] = json!({"region": "eu-west-1", "transport": transport});
    });
    let text = text.await;
    assert!(text.contains("endpoint is missing"), "{text}");
    let text = refuse(|body| {
        body["delivery"] = json!({"batch": {"events": 2, "waitMilliseconds": 9}});
    });
    assert_eq!(text.await, "integrations of type AWS have no batches");
    let page = gateway.get(CLOUDS).await.expect(200);
    assert_eq!(page["items"], json!([]));
}

#[tokio::test]
async fn the_key_of_a_certificate_is_never_shown_again() {
    let gateway = Gateway::start().await;
    let pair = rcgen::generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let mut body = integration();
    body["aws"] = json!({
        "region": "eu-central-1", "endpoint": "abc-ats.iot.eu-central-1.amazonaws.com",
        "transport": {"type": "MQTT", "certificate": certificate, "privateKey": key},
    });
    // Events that nobody sends: no connection is made to the outside.
    body["eventTypes"] = json!([{"type": "GEOFENCE"}]);
    body["paused"] = json!(true);
    let answer = gateway.post(AWS, body).await;
    assert!(!answer.text.contains("PRIVATE KEY"), "{answer:?}");
    let transport = json!({
        "type": "MQTT", "certificate": certificate, "privateKey": true, "port": 8883,
        "connections": 1,
    });
    assert_eq!(answer.expect(201)["aws"]["transport"], transport);
}

#[tokio::test]
async fn the_template_of_the_stack_lies_where_the_parameters_say() {
    let public_url = Some("https://gateway.example.com/".to_owned());
    let settings = Settings { public_url, ..Settings::default() };
    let gateway = Gateway::start_with(Choices { settings, ..Choices::default() }).await;
    let path = "/management-api/simgate/v1/aws/template.yaml";
    let found = gateway.get(&format!("{AWS}/parameters")).await.expect(200);
    let url = format!("https://gateway.example.com{path}");
    assert_eq!(found, json!({"awsIntegration": [{"version": "v2.1", "url": url}]}));
    let answer = Answer::of(gateway.http.get(gateway.url(path)).send().await.unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/yaml".parse().unwrap())
    );
    assert!(answer.text.starts_with("AWSTemplateFormatVersion"));
    let gateway = Gateway::start().await;
    let found = gateway.get(&format!("{AWS}/parameters")).await.expect(200);
    assert_eq!(found["awsIntegration"][0]["url"], gateway.url(path), "as it was reached");
}
