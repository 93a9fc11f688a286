use serde_json::json;

use crate::gateway::Gateway;

const PATH: &str = "/v1/optimize/templates";
const DOCUMENTED: &str = r#"{"sense":[
    {"asset":"Temperature","value":{"byte":0,"bytelength":2,"type":"int"}},
    {"asset":"Humidity","value":{"byte":2,"bytelength":2,"type":"int"}},
    {"asset":"Switch","value":{"byte":4,"bytelength":1,"type":"boolean"}}]}"#;

#[tokio::test]
async fn a_template_lives_from_creation_to_deletion() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.get(PATH).await.expect(200), json!([]));
    let new = json!({"name": "one", "template": DOCUMENTED, "protocolFilter": ["COAP"]});
    let made = gateway.post(PATH, new.clone()).await.expect(201);
    assert_eq!(made["status"], "INACTIVE");
    assert_eq!(made["template"], DOCUMENTED);
    assert_eq!(made["protocolFilter"], json!(["COAP"]));
    assert_eq!(gateway.get(PATH).await.expect(200), json!([made]));
    gateway.post(PATH, new).await.refusal(409);
    let id = made["id"].as_str().unwrap();
    let path = format!("{PATH}/{id}");
    let changed = gateway.patch(&path, json!({"status": "ACTIVE"})).await.expect(200);
    assert_eq!((&changed["status"], &changed["name"]), (&json!("ACTIVE"), &json!("one")));
    gateway.patch(&path, json!({})).await.refusal(400);
    let refusal = gateway.patch(&path, json!({"template": r#"{"sense":[{}]}"#})).await.refusal(422);
    assert_eq!(refusal["path"], "sense[0]");
    assert_eq!(gateway.get(PATH).await.expect(200)[0]["template"], DOCUMENTED);
    gateway.delete(&path).await.expect(204);
    gateway.delete(&path).await.refusal(404);
    gateway.patch(&path, json!({"name": "x"})).await.refusal(404);
}

#[tokio::test]
async fn what_is_wrong_with_a_template_is_named() {
    let gateway = Gateway::start().await;
    let with = |name: &str, template: &str, filter: &str, status: &str| {
        let filter = [filter];
        json!({"name": name, "template": template, "protocolFilter": filter, "status": status})
    };
    let refusal = gateway.post(PATH, with("a", "{", "UDP", "ACTIVE")).await.refusal(422);
    assert_eq!(refusal["field"], "template");
    for (body, field) in [
        (with("", DOCUMENTED, "UDP", "ACTIVE"), "name"),
        (with("a", DOCUMENTED, "LWM2M", "ACTIVE"), "protocolFilter"),
        (with("a", DOCUMENTED, "MQTT", "ACTIVE"), "protocolFilter"),
        (with("a", DOCUMENTED, "UDP", "ON"), "status"),
    ] {
        assert_eq!(gateway.post(PATH, body).await.refusal(400)["field"], field);
    }
    let empty = json!({"name": "a", "template": DOCUMENTED, "protocolFilter": []});
    assert_eq!(gateway.post(PATH, empty).await.refusal(400)["field"], "protocolFilter");
}

#[tokio::test]
async fn a_template_can_be_tried() {
    let gateway = Gateway::start().await;
    let path = "/v1/optimize/messages/test";
    let found = gateway
        .post(path, json!({"template": DOCUMENTED, "payload": "ABoANwA="}))
        .await
        .expect(200);
    let json = r#"{"Temperature":26,"Humidity":55,"Switch":false}"#;
    assert_eq!(found["translatedPayload"], json);
    assert_eq!(found["reducedBytes"], 42);
    assert_eq!(found["energyUsageReduction"], 0.58);
    let short = gateway.post(path, json!({"template": DOCUMENTED, "payload": "AA=="})).await;
    let message = "Asset path:Temperature, Error: can't extract [0:2] from 1 bytes";
    assert_eq!(short.refusal(400)["message"], message);
    gateway.post(path, json!({"template": DOCUMENTED, "payload": "?"})).await.refusal(400);
    gateway.post(path, json!({"template": "{}", "payload": "AA=="})).await.refusal(400);
    assert_eq!(gateway.get(PATH).await.expect(200), json!([]));
}
