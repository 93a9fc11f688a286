use management_api::server::{Limits, Server, ServerConfig};
use serde_json::json;

use crate::gateway::{Answer, Choices, Gateway};

async fn open(gateway: &Gateway, path: &str) -> Answer {
    Answer::of(gateway.http.get(gateway.url(path)).send().await.unwrap()).await
}

#[tokio::test]
async fn health_tells_whether_messages_are_taken() {
    let gateway = Gateway::start().await;
    let health = open(&gateway, "/health").await.expect(200);
    assert_eq!(health["status"], "ready");
    assert_eq!(health["durability"], "D1 local");
    assert_eq!(health["log"], json!({"state": "healthy"}));
    assert!(health["version"].is_string());
    gateway.readiness.set(false);
    let health = open(&gateway, "/health").await.expect(503);
    assert_eq!(health["status"], "not ready");
}

#[tokio::test]
async fn metrics_are_text() {
    let gateway = Gateway::start().await;
    let metrics = open(&gateway, "/metrics").await;
    assert_eq!(metrics.text, "simgate_up 1\n");
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn operations_can_lie_on_a_listener_of_their_own() {
    let choices = Choices { operations_apart: true, ..Choices::default() };
    let gateway = Gateway::start_with(choices).await;
    open(&gateway, "/health").await.refusal(404);
    open(&gateway, "/metrics").await.refusal(404);
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        allow_plain_http: false,
        limits: Limits::default(),
    };
    let server = Server::bind(config).await.unwrap();
    let base = format!("http://{}", server.address());
    tokio::spawn(server.serve(gateway.api.operations_router(), std::future::pending()));
    let get = async |path: &str| {
        Answer::of(gateway.http.get(format!("{base}{path}")).send().await.unwrap()).await
    };
    get("/health").await.expect(200);
    assert_eq!(get("/metrics").await.status, 200);
    get("/management-api/openapi.json").await.refusal(404);
}
