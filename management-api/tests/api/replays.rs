use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vocabulary::{Protocol, Timestamp};

use crate::gateway::{Gateway, ICCID};
use crate::integrations::one_of_each_kind;

const REPLAYS: &str = "/simgate/v1/replays";
const BYTE: &str = r#"{"sense":[{"asset":"t","value":{"byte":0,"bytelength":1,"type":"uint"}}]}"#;
const SECOND: &str = r#"{"sense":[{"asset":"t","value":{"byte":1,"bytelength":1,"type":"uint"}}]}"#;

fn body(ids: &[&String]) -> Value {
    json!({"integrationIds": ids, "templates": "ORIGINAL"})
}

async fn count(gateway: &Gateway) -> usize {
    let page = gateway.get(REPLAYS).await.expect(200);
    page["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_replay_is_started_for_each_integration_shown_and_cancelled() {
    let gateway = Gateway::start().await;
    let [webhook, _, mqtt] = one_of_each_kind(&gateway).await;
    gateway.append(Protocol::Udp, b"x", SystemTime::now().into()).await;
    let mut request = body(&[&webhook, &mqtt]);
    request["startDateTime"] = json!("2020-01-01");
    request["iccids"] = json!([ICCID]);
    let begun = gateway.post(REPLAYS, request).await.expect(202);
    let [first, second] = begun.as_array().unwrap().as_slice() else { panic!("{begun}") };
    assert_eq!(first["integrationId"], webhook);
    assert_eq!(second["integrationId"], mqtt);
    assert_eq!((&first["state"], &first["source"]), (&json!("RUNNING"), &json!("LOG")));
    for member in ["delivered", "failed", "passedOver"] {
        assert_eq!(first[member], 0, "{member}");
    }
    assert_eq!(first.get("endedTime"), None);
    let path = format!("{REPLAYS}/{}", first["id"].as_str().unwrap());
    assert_eq!(gateway.get(&path).await.expect(200), *first);
    let page = gateway.get(&format!("{REPLAYS}?integrationId={webhook}")).await.expect(200);
    assert_eq!(page, json!({"items": [first], "page": 1, "pageAmount": 1}));
    let page = gateway.get(&format!("{REPLAYS}?pageSize=1")).await.expect(200);
    assert_eq!(page["pageAmount"], 2);
    let cancelled = gateway.post_empty(&format!("{path}/cancel")).await.expect(200);
    assert_eq!(cancelled["state"], "CANCELLED");
    assert!(cancelled["endedTime"].is_string());
    let refusal = gateway.post_empty(&format!("{path}/cancel")).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("CANCELLED"), "{refusal}");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let gateway = Gateway::start().await;
    gateway.get(&format!("{REPLAYS}/nothing")).await.refusal(404);
    gateway.post_empty(&format!("{REPLAYS}/nothing/cancel")).await.refusal(404);
    let page = gateway.get(&format!("{REPLAYS}?integrationId=nobody")).await.expect(200);
    assert_eq!(page["items"], json!([]));
    gateway.get(&format!("{REPLAYS}?page=0")).await.refusal(400);
}

#[tokio::test]
async fn a_replay_that_is_not_valid_begins_for_nobody() {
    let gateway = Gateway::start().await;
    let [webhook, aws, _] = one_of_each_kind(&gateway).await;
    let nobody = "nobody".to_owned();
    for (request, field) in [
        (body(&[]), json!("integrationIds")),
        (body(&[&webhook, &webhook]), json!("integrationIds")),
        (json!({"integrationIds": [webhook]}), json!("body")),
        (json!({"integrationIds": [webhook], "templates": "NEWEST"}), json!("body")),
        (with(&webhook, "iccids", json!([])), json!("iccids")),
        (with(&webhook, "iccids", json!(["12"])), json!("iccids")),
        (with(&webhook, "iccids", json!(vec![ICCID; 1_001])), json!("iccids")),
        (with(&webhook, "startDateTime", json!("soon")), json!("startDateTime")),
        (with(&webhook, "all", json!(true)), json!("body")),
    ] {
        let refusal = gateway.post(REPLAYS, request.clone()).await.refusal(400);
        assert_eq!(refusal["field"], field, "{request}");
    }
    let mut empty = with(&webhook, "startDateTime", json!("2026-01-02"));
    empty["endDateTime"] = json!("2026-01-02");
    assert_eq!(gateway.post(REPLAYS, empty).await.refusal(400)["field"], "startDateTime");
    gateway.post(REPLAYS, body(&[&webhook, &nobody])).await.refusal(404);
    assert_eq!(count(&gateway).await, 0);
    for _ in 0..10 {
        gateway.post(REPLAYS, body(&[&webhook])).await.expect(202);
    }
    let refusal = gateway.post(REPLAYS, body(&[&aws, &webhook])).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("limit"), "{refusal}");
    let page = gateway.get(&format!("{REPLAYS}?integrationId={aws}")).await.expect(200);
    assert_eq!(page["items"][0]["state"], "CANCELLED", "what had begun is taken back: {page}");
}

fn with(id: &String, member: &str, value: Value) -> Value {
    let mut request = body(&[id]);
    request[member] = value;
    request
}

#[tokio::test]
async fn a_dry_run_tells_what_the_templates_of_now_make_otherwise() {
    let gateway = Gateway::start().await;
    let [webhook, ..] = one_of_each_kind(&gateway).await;
    let template = json!({
        "name": "t", "template": BYTE, "protocolFilter": ["UDP"], "status": "ACTIVE",
    });
    let made = gateway.post("/v1/optimize/templates", template).await.expect(201);
    let start = Timestamp::from(SystemTime::now()).saturating_sub(Duration::from_secs(60));
    for (payload, second) in [([1, 2].as_slice(), 0), (&[3, 3], 1), (&[5], 2), (&[], 3)] {
        let at = start.saturating_add(Duration::from_secs(second));
        gateway.append(Protocol::Udp, payload, at).await;
    }
    gateway.append(Protocol::Coap, &[1], start).await;
    let path = format!("/v1/optimize/templates/{}", made["id"].as_str().unwrap());
    gateway.patch(&path, json!({"template": SECOND})).await.expect(200);
    let dry = json!({"integrationIds": [webhook], "templates": "ACTIVE", "dryRun": true});
    let found = gateway.post(REPLAYS, dry.clone()).await.expect(200);
    assert_eq!(found["complete"], true);
    let counts = json!({
        "messages": 5, "unchanged": 1, "changed": 1, "repaired": 0, "broken": 1, "failing": 1,
        "raw": 1,
    });
    assert_eq!(found["counts"], counts);
    let changed = &found["changed"][0];
    assert_eq!(
        (&changed["before"], &changed["after"]),
        (&json!(r#"{"t":1}"#), &json!(r#"{"t":2}"#))
    );
    assert_eq!(changed["iccid"], ICCID);
    assert!(changed["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(found["broken"][0]["before"], r#"{"t":5}"#);
    assert!(found["failing"][0]["error"].as_str().unwrap().contains("can't extract"));
    assert_eq!(found["repaired"], json!([]));
    assert_eq!(count(&gateway).await, 0, "nothing is delivered");
    let mut original = dry.clone();
    original["templates"] = json!("ORIGINAL");
    let found = gateway.post(REPLAYS, original).await.expect(200);
    assert_eq!((&found["counts"]["unchanged"], &found["counts"]["raw"]), (&json!(3), &json!(1)));
    let mut nobody = dry.clone();
    nobody["integrationIds"] = json!(["nobody"]);
    gateway.post(REPLAYS, nobody).await.refusal(404);
    gateway.integrations.shutdown(Duration::ZERO).await;
    let answer = gateway.post(REPLAYS, dry).await;
    answer.refusal(503);
    assert!(answer.headers.contains_key("retry-after"));
}
