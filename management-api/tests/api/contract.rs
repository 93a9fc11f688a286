//! What holds for every path, and the document that lists them.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway};

/// Paths that need no token; everything else must refuse without one. A feed has a secret of its
/// own.
const OPEN: [&str; 8] = [
    "/health",
    "/metrics",
    "/management-api/oauth/token",
    "/management-api/openapi.json",
    "/management-api/simgate/v1/payloads/{logId}",
    "/management-api/simgate/v1/integrations/aws/rollout",
    "/management-api/simgate/v1/aws/template.yaml",
    "/feeds/{name}",
];

fn document() -> Value {
    serde_json::from_str(management_api::openapi_json()).unwrap()
}

fn operations() -> Vec<(String, Method, Value)> {
    let document = document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push((path.clone(), method, operation.clone()));
        }
    }
    operations
}

#[test]
fn the_checked_in_document_is_the_one_that_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, management_api::openapi_json()).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        checked_in == management_api::openapi_json(),
        "openapi.json is out of date: run the test with UPDATE_OPENAPI=1"
    );
}

#[test]
fn every_operation_describes_itself_and_its_refusals() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["components"]["schemas"]["Error"].is_object());
    let mut ids = std::collections::HashSet::new();
    for (path, method, operation) in operations() {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].clone()), "{name}: id is not unique");
        assert!(operation["summary"].is_string(), "{name} has no summary");
        assert!(operation["tags"][0].is_string(), "{name} has no tag");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        if !OPEN.contains(&path.as_str()) {
            for status in ["401", "429", "500"] {
                assert!(responses.contains_key(status), "{name} does not document {status}");
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{name}: {parameter}");
        }
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|member| check(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            _ => {}
        }
    }
    let document = document();
    check(&document, &document);
}

#[tokio::test]
async fn without_a_token_every_path_but_the_open_ones_answers_401() {
    let gateway = Gateway::start().await;
    let operations = operations();
    assert!(operations.len() > 35, "{}", operations.len());
    for (path, method, _) in operations {
        let name = format!("{method} {path}");
        let concrete = path.replace(['{', '}'], "");
        let request = gateway.http.request(method, gateway.url(&concrete));
        let answer = Answer::of(request.send().await.unwrap()).await;
        if OPEN.contains(&path.as_str()) {
            assert_ne!(answer.status, 401, "{name}");
        } else {
            answer.refusal(401);
        }
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{name}");
        assert!(answer.headers.get("access-control-allow-origin").is_none(), "{name}");
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let gateway = Gateway::start().await;
    let served = gateway.http.get(gateway.url("/management-api/openapi.json"));
    let answer = Answer::of(served.send().await.unwrap()).await;
    assert_eq!(answer.expect(200), document());
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_refused() {
    let gateway = Gateway::start().await;
    let refusal = gateway.get("/v1/nothing").await.refusal(404);
    assert_eq!(refusal["message"], "path /management-api/v1/nothing does not exist");
    let answer = gateway.delete("/v1/devices/stats").await;
    answer.refusal(405);
    assert_eq!(answer.headers["allow"], "GET,HEAD");
}

#[tokio::test]
async fn bodies_are_checked_before_they_are_used() {
    let gateway = Gateway::start().await;
    let templates = "/v1/optimize/templates";
    let send = async |media: &str, body: String| {
        let request = gateway.request(Method::POST, templates).header("content-type", media);
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    send("text/plain", "{}".to_owned()).await.refusal(415);
    let refusal = send("application/json", "{\n  \"name\": }".to_owned()).await.refusal(400);
    assert_eq!((&refusal["line"], &refusal["column"]), (&json!(2), &json!(11)));
    let refusal = send("application/json", r#"{"title":"x"}"#.to_owned()).await.refusal(400);
    assert!(refusal["message"].as_str().unwrap().contains("expected one of `name`"), "{refusal}");
    let long = json!({ "name": "x".repeat(65 << 10) }).to_string();
    assert_eq!(send("application/json", long).await.refusal(413)["allowed"], "at most 65536 bytes");
    let longer = json!({ "iccid": "x".repeat(1 << 20) });
    gateway.post("/simgate/v1/sims", longer).await.refusal(413);
}

#[tokio::test]
async fn queries_are_checked_and_the_allowed_values_named() {
    let gateway = Gateway::start().await;
    for (query, field, allowed) in [
        ("page=51", "page", "1 to 50"),
        ("page=one", "page", "1 to 50"),
        ("pageSize=51", "pageSize", "1 to 50"),
        ("sort=name", "sort", "iccid, id, ip, imsi1, imsi"),
        ("q=name:x", "q", "iccid, ip"),
    ] {
        let path = format!("/v1/inspect/devices?{query}");
        let refusal = gateway.get(&path).await.refusal(400);
        assert_eq!((&refusal["field"], &refusal["allowed"]), (&json!(field), &json!(allowed)));
    }
    let refusal = gateway.get("/v1/inspect/devices?limit=3").await.refusal(400);
    assert!(refusal["message"].as_str().unwrap().contains("`pageSize`"), "{refusal}");
}
