//! Events on their way, as the API shows them: given up, delivered again; an integration that
//! fails and is restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cloud_integrator::{ForwarderSettings, RetryPolicy};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use vocabulary::Protocol;

use crate::gateway::{Choices, Gateway};
use crate::integrations::{CLOUDS, OWN, WEBHOOKS, webhook};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that gives events up after one attempt, and a receiver whose answer the test decides.
struct Scene {
    gateway: Gateway,
    answer: Arc<AtomicU16>,
    id: String,
}

impl Scene {
    async fn new(answer: u16) -> Self {
        let forwarder = ForwarderSettings {
            retry: RetryPolicy { attempts_max: Some(1), ..RetryPolicy::standard() },
            save_interval: Duration::from_millis(20),
            ..ForwarderSettings::default()
        };
        let gateway = Gateway::start_with(Choices { forwarder, ..Choices::default() }).await;
        let answer = Arc::new(AtomicU16::new(answer));
        let body = webhook(&receiver(Arc::clone(&answer)).await);
        let made = gateway.post(WEBHOOKS, body).await.expect(201);
        let id = made["id"].as_str().unwrap().to_owned();
        Self { gateway, answer, id }
    }

    async fn send(&self) -> String {
        let now = SystemTime::now().into();
        self.gateway.append(Protocol::Udp, b"x", now).await.to_string()
    }

    /// The answer of `path` once `member` of it is `value`.
    async fn until(&self, path: &str, member: &str, value: Value) -> Value {
        let start = Instant::now();
        loop {
            let found = self.gateway.get(path).await.expect(200);
            if found[member] == value {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{member} is never {value}: {found}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn receiver(answer: Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16_384]).await;
            let status = answer.load(Ordering::Relaxed);
            let text =
                format!("HTTP/1.1 {status} x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nwhy");
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    format!("http://{address}/events")
}

#[tokio::test]
async fn an_event_that_was_given_up_is_delivered_when_somebody_asks_for_it() {
    let scene = Scene::new(422).await;
    let message = scene.send().await;
    let path = format!("{OWN}/{}", scene.id);
    let status = scene.until(&format!("{path}/status"), "deadLetters", json!(1)).await;
    assert_eq!(status["delivery"]["lastFailure"]["reason"]["class"], "refused");
    let page = scene.gateway.get(&format!("{path}/deadLetters?reason=refused")).await.expect(200);
    let letter = &page["items"][0];
    assert_eq!((&letter["id"], &letter["attempts"]), (&json!(message), &json!(1)));
    assert_eq!(letter["response"], json!({"code": 422, "body": "why"}));
    scene.answer.store(200, Ordering::Relaxed);
    let begun = json!({"ids": [message]});
    let begun = scene.gateway.post(&format!("{path}/deadLetters/replay"), begun).await.expect(202);
    let replay = format!("/simgate/v1/replays/{}", begun["replay"]["id"].as_str().unwrap());
    let done = scene.until(&replay, "state", json!("DONE")).await;
    assert_eq!((&done["delivered"], &done["failed"]), (&json!(1), &json!(0)));
    assert!(done["endedTime"].is_string());
    let page = scene.gateway.get(&format!("{path}/deadLetters")).await.expect(200);
    assert_eq!(page["items"], json!([]));
    let refusal = scene.gateway.post_empty(&format!("{replay}/cancel")).await.refusal(409);
    assert!(refusal["message"].as_str().unwrap().contains("DONE"), "{refusal}");
    scene.gateway.integrations.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_integration_that_has_failed_says_why_until_it_is_restarted() {
    let scene = Scene::new(410).await;
    scene.send().await;
    let details = format!("{CLOUDS}/{}", scene.id);
    let failed = scene.until(&details, "state", json!("INTEGRATION_FAILED")).await;
    assert!(failed["error"].as_str().unwrap().contains("410"), "{failed}");
    let status = scene.gateway.get(&format!("{OWN}/{}/status", scene.id)).await.expect(200);
    assert_eq!((&status["state"], status.get("delivery")), (&json!("INTEGRATION_FAILED"), None));
    let restart = format!("{WEBHOOKS}/{}/restart", scene.id);
    let answer = scene.gateway.post_empty(&restart).await.expect(200);
    assert_eq!(answer["restartStatus"], "FAILURE");
    assert_eq!(answer["integration"]["state"], "INTEGRATION_FAILED");
    scene.answer.store(200, Ordering::Relaxed);
    let answer = scene.gateway.post_empty(&restart).await.expect(200);
    assert_eq!(answer["restartStatus"], "SUCCESS");
    assert_eq!(answer["message"], "Restart was successful");
    let integration = &answer["integration"];
    assert_eq!(
        (&integration["state"], integration.get("error")),
        (&json!("INTEGRATION_ACTIVE"), None)
    );
    let path = format!("{OWN}/{}/status", scene.id);
    let start = Instant::now();
    loop {
        let status = scene.gateway.get(&path).await.expect(200);
        if status["delivery"]["lastSuccessTime"].is_string() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "what waited is not delivered: {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.gateway.integrations.shutdown(Duration::ZERO).await;
}
