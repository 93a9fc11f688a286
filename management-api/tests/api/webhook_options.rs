//! What webhooks can do beyond the documented API: signatures and TLS of their own.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::gateway::Gateway;
use crate::integrations::{CLOUDS, OWN, WEBHOOKS, one_of_each_kind, webhook};

async fn made(gateway: &Gateway, body: Value) -> String {
    let made = gateway.post(WEBHOOKS, body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// Takes every request, and shows the last one's head.
async fn receiver() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let last = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&last);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16_384];
            let bytes = stream.read(&mut request).await.unwrap_or(0);
            *last.lock().unwrap() = String::from_utf8_lossy(&request[..bytes]).to_lowercase();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    (format!("http://{address}/events"), shown)
}

#[tokio::test]
async fn a_new_webhook_is_signed_and_its_key_can_be_replaced_and_ended() {
    let gateway = Gateway::start().await;
    let (url, last) = receiver().await;
    let mut body = webhook(&url);
    body["paused"] = json!(true);
    let id = made(&gateway, body).await;
    let path = format!("{OWN}/{id}/signing");
    let test = async || {
        let report = gateway.post_empty(&format!("{WEBHOOKS}/{id}/test")).await.expect(200);
        assert_eq!(report["testStatus"], "SUCCESS", "{report}");
        last.lock().unwrap().clone()
    };
    let first = gateway.get(&path).await.expect(200);
    assert_eq!((&first["signed"], &first["keys"][0]["kind"]), (&json!(true), &json!("hmac")));
    assert!(first["keys"][0]["key"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(first["keys"][0].get("endsTime"), None);
    assert!(test().await.contains("webhook-signature: v1,"));
    let rotation = json!({"kind": "ed25519", "keepOldForHours": 1});
    let both = gateway.post(&format!("{path}/rotate"), rotation).await.expect(200);
    assert_eq!(both["keys"][0]["kind"], "ed25519");
    assert!(both["keys"][0]["key"].as_str().unwrap().starts_with("whpk_"));
    assert_eq!(both["keys"][1]["key"], first["keys"][0]["key"]);
    assert!(both["keys"][1]["endsTime"].is_string());
    assert_eq!(gateway.get(&path).await.expect(200), both);
    let head = test().await;
    assert!(head.contains("v1a,") && head.contains(" v1,"), "{head}");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
    let own = json!({"kind": "hmac", "secret": secret, "keepOldForHours": 0});
    let only = gateway.post(&format!("{path}/rotate"), own).await.expect(200);
    assert_eq!(only["keys"], json!([{"kind": "hmac", "key": secret}]));
    gateway.delete(&path).await.expect(204);
    let none = gateway.get(&path).await.expect(200);
    assert_eq!(none, json!({"signed": false, "keys": []}));
    assert!(!test().await.contains("webhook-signature"));
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_named_and_changes_nothing() {
    let gateway = Gateway::start().await;
    let [hook, aws, mqtt] = one_of_each_kind(&gateway).await;
    let path = format!("{OWN}/{hook}/signing");
    let before = gateway.get(&path).await.expect(200);
    let short = "whsec_c2hvcnQ=";
    let shared = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
    for (body, field) in [
        (json!({}), "body"),
        (json!({"kind": "rsa"}), "body"),
        (json!({"kind": "hmac", "keepOldForHours": 169}), "keepOldForHours"),
        (json!({"kind": "hmac", "secret": "open sesame"}), "secret"),
        (json!({"kind": "hmac", "secret": short}), "secret"),
        (json!({"kind": "ed25519", "secret": shared}), "secret"),
    ] {
        let answer = gateway.post(&format!("{path}/rotate"), body.clone()).await;
        assert_eq!(answer.refusal(400)["field"], field, "{body}");
        assert!(!answer.text.contains("sesame") && !answer.text.contains("c2hvcnQ"));
    }
    assert_eq!(gateway.get(&path).await.expect(200), before);
    for _ in 0..3 {
        gateway.post(&format!("{path}/rotate"), json!({"kind": "hmac"})).await.expect(200);
    }
    gateway.post(&format!("{path}/rotate"), json!({"kind": "hmac"})).await.refusal(409);
    for id in [aws.as_str(), &mqtt, "nobody"] {
        let path = format!("{OWN}/{id}/signing");
        gateway.get(&path).await.refusal(404);
        gateway.delete(&path).await.refusal(404);
        gateway.post(&format!("{path}/rotate"), json!({"kind": "hmac"})).await.refusal(404);
    }
}

#[tokio::test]
async fn a_private_key_is_never_shown_again() {
    let gateway = Gateway::start().await;
    let pair = rcgen::generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let mut body = webhook("https://example.com/a");
    body["tls"] = json!({"roots": certificate, "certificate": certificate, "privateKey": key});
    let answer = gateway.post(WEBHOOKS, body).await;
    assert!(!answer.text.contains("PRIVATE KEY"), "{answer:?}");
    let made = answer.expect(201);
    let shown = json!({"roots": certificate, "certificate": certificate, "privateKey": true});
    assert_eq!(made["tls"], shown);
    let path = format!("{CLOUDS}/{}", made["id"].as_str().unwrap());
    let answer = gateway.get(&path).await;
    assert!(!answer.text.contains("PRIVATE KEY"), "{answer:?}");
    let changed = gateway.patch(&path, json!({"tls": {"roots": null}})).await.expect(200);
    assert_eq!(changed["tls"], json!({"certificate": certificate, "privateKey": true}));
    for tls in [
        json!({"privateKey": null}),
        json!({"certificate": "no certificate"}),
        json!({"roots": "no authority"}),
        json!({"privateKey": "no key"}),
    ] {
        let answer = gateway.patch(&path, json!({"tls": tls})).await;
        assert_eq!(answer.refusal(400)["field"], "tls", "{tls}");
    }
    assert_eq!(gateway.get(&path).await.expect(200)["tls"], changed["tls"]);
    let without = gateway.patch(&path, json!({"tls": null})).await.expect(200);
    assert_eq!(without.get("tls"), None);
}
