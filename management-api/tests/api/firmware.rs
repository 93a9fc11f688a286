//! Firmware images and jobs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{Answer, Gateway, ICCID};

const IMAGES: &str = "/simgate/v1/firmware/images";
const JOBS: &str = "/simgate/v1/firmware/jobs";
/// Of `firmware`.
const SHA256: &str = "9d7b7f7be99cdc9ba6b73d31d1a07b7d24d7e16d0a1b0f1a52e3b5a9c6a3a1f0";

async fn upload(gateway: &Gateway, query: &str, bytes: Vec<u8>) -> Answer {
    let request = gateway
        .request(Method::POST, &format!("{IMAGES}?{query}"))
        .header("content-type", "application/octet-stream");
    Answer::of(request.body(bytes).send().await.unwrap()).await
}

async fn image(gateway: &Gateway) -> String {
    let kept = upload(gateway, "name=modem&version=2.0", b"firmware".to_vec()).await;
    assert!(kept.status.is_success(), "{kept:?}");
    kept.json()["sha256"].as_str().unwrap().to_owned()
}

async fn job(gateway: &Gateway) -> Value {
    let body = json!({"image": image(gateway).await, "deviceIds": [ICCID]});
    gateway.post(JOBS, body).await.expect(201)
}

#[tokio::test]
async fn an_image_lives_from_upload_to_deletion() {
    let gateway = Gateway::start().await;
    let bytes = vec![7; 3 << 20];
    let made = upload(&gateway, "name=modem&version=2.0", bytes.clone()).await.expect(201);
    assert_eq!((&made["name"], &made["version"]), (&json!("modem"), &json!("2.0")));
    assert_eq!(made["size"], 3 << 20);
    let sha256 = made["sha256"].as_str().unwrap();
    let again = format!("name=modem&version=2.0&sha256={}", sha256.to_uppercase());
    assert_eq!(upload(&gateway, &again, bytes.clone()).await.expect(200), made);
    upload(&gateway, "name=other&version=2.0", bytes).await.refusal(409);
    assert_eq!(gateway.get(IMAGES).await.expect(200)["items"], json!([made]));
    let path = format!("{IMAGES}/{sha256}");
    assert_eq!(gateway.get(&path).await.expect(200), made);
    gateway.delete(&path).await.expect(204);
    gateway.delete(&path).await.refusal(404);
    gateway.get(&path).await.refusal(404);
    gateway.get(&format!("{IMAGES}/xyz")).await.refusal(400);
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_named() {
    let gateway = Gateway::start().await;
    let other = upload(&gateway, &format!("name=a&sha256={SHA256}"), b"firmware".to_vec()).await;
    let message = other.refusal(422)["message"].to_string();
    assert!(message.contains(SHA256), "{message}");
    let long = upload(&gateway, "name=a", vec![0; (4 << 20) + 1]).await;
    assert_eq!(long.refusal(413)["allowed"], "at most 4194304 bytes");
    let empty = upload(&gateway, "name=a", Vec::new()).await;
    assert_eq!(empty.refusal(400)["field"], "body");
    for (query, field) in [
        ("name=", "name"),
        ("name=a&version=", "version"),
        ("name=a&sha256=12", "sha256"),
        (&format!("name={}", "x".repeat(129)), "name"),
    ] {
        let refused = upload(&gateway, query, b"firmware".to_vec()).await;
        assert_eq!(refused.refusal(400)["field"], field, "{query}");
    }
    upload(&gateway, "version=2.0", b"firmware".to_vec()).await.refusal(400);
    gateway.post(&format!("{IMAGES}?name=a"), json!({})).await.refusal(415);
    assert_eq!(gateway.get(IMAGES).await.expect(200)["items"], json!([]));
    let left = std::fs::read_dir(gateway.folder.path().join("firmware")).unwrap().count();
    assert_eq!(left, 0, "nothing of a refused upload stays");
}

#[tokio::test]
async fn a_job_is_started_watched_paused_and_cancelled() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let job = job(&gateway).await;
    assert_eq!((&job["state"], &job["method"]), (&json!("RUNNING"), &json!("AUTO")));
    assert_eq!((&job["imageVersion"], &job["attempts"]), (&json!("2.0"), &json!(3)));
    assert_eq!((&job["devices"]["total"], &job["deadlineSeconds"]), (&json!(1), &json!(604_800)));
    let path = format!("{JOBS}/{}", job["id"].as_str().unwrap());
    assert_eq!(gateway.get(&path).await.expect(200)["devices"]["running"], 1);
    assert_eq!(gateway.get(JOBS).await.expect(200)["items"][0]["id"], job["id"]);
    let devices = gateway.get(&format!("{path}/devices?state=RUNNING")).await.expect(200);
    assert_eq!(devices["items"][0]["stage"], "PROBING");
    let none = gateway.get(&format!("{path}/devices?state=FAILED&pageSize=200")).await;
    assert_eq!(none.expect(200)["items"], json!([]));
    let in_use = format!("{IMAGES}/{}", job["image"].as_str().unwrap());
    gateway.delete(&in_use).await.refusal(409);
    assert_eq!(gateway.post_empty(&format!("{path}/pause")).await.expect(200)["state"], "PAUSED");
    gateway.post_empty(&format!("{path}/pause")).await.refusal(409);
    assert_eq!(gateway.post_empty(&format!("{path}/resume")).await.expect(200)["state"], "RUNNING");
    let cancelled = gateway.post_empty(&format!("{path}/cancel")).await.expect(200);
    assert_eq!(
        (&cancelled["state"], &cancelled["devices"]["cancelled"]),
        (&json!("CANCELLED"), &json!(1))
    );
    let refusal = gateway.post_empty(&format!("{path}/resume")).await.refusal(409);
    assert_eq!(refusal["message"], "the job is CANCELLED");
    let timeline = gateway.get(&format!("{path}/devices/{ICCID}/timeline")).await.expect(200);
    let texts: Vec<_> = timeline["timeline"].as_array().unwrap().iter().collect();
    assert_eq!(texts[0]["text"], "the update begins");
    assert_eq!(texts.last().unwrap()["stage"], "CANCELLED");
    assert_eq!(timeline["failure"], "cancelled");
    gateway.delete(&in_use).await.expect(204);
    assert!(!gateway.firmware.is_under_way(ICCID.parse().unwrap()));
}

#[tokio::test]
async fn what_is_wrong_with_a_job_is_named() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let image = image(&gateway).await;
    let stranger = "8988280666000009999";
    for (status, field, body) in [
        (400, "image", json!({"image": "12", "deviceIds": [ICCID]})),
        (400, "deviceIds", json!({"image": image, "deviceIds": []})),
        (400, "deviceIds", json!({"image": image, "deviceIds": ["12"]})),
        (400, "deviceIds", json!({"image": image, "deviceIds": [ICCID, ICCID]})),
        (400, "method", json!({"image": image, "deviceIds": [ICCID], "method": "FAX"})),
        (400, "attempts", json!({"image": image, "deviceIds": [ICCID], "attempts": 0})),
        (400, "stopPercent", json!({"image": image, "deviceIds": [ICCID], "stopPercent": 100})),
        (422, "deviceIds", json!({"image": image, "deviceIds": [stranger]})),
        (422, "image", json!({"image": SHA256, "deviceIds": [ICCID]})),
    ] {
        let refused = gateway.post(JOBS, body.clone()).await.refusal(status);
        assert_eq!(refused["field"], field, "{body}");
    }
    let many: Vec<String> =
        (0..10_001_u64).map(|number| format!("{}", 8_988_280_666_000_100_000 + number)).collect();
    gateway.post(JOBS, json!({"image": image, "deviceIds": many})).await.expect(400);
    let first = gateway.post(JOBS, json!({"image": image, "deviceIds": [ICCID]})).await;
    let path = format!("{JOBS}/{}", first.expect(201)["id"].as_str().unwrap());
    let busy = gateway.post(JOBS, json!({"image": image, "deviceIds": [ICCID]})).await;
    assert!(busy.refusal(409)["message"].to_string().contains(ICCID));
    gateway.get(&format!("{JOBS}/nothing")).await.refusal(404);
    gateway.post_empty(&format!("{JOBS}/nothing/pause")).await.refusal(404);
    gateway.get(&format!("{path}/devices?state=LOST")).await.refusal(400);
    gateway.get(&format!("{path}/devices/{stranger}/timeline")).await.refusal(404);
}

#[tokio::test]
async fn a_damaged_image_is_no_ground_for_a_job() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let image = image(&gateway).await;
    std::fs::write(gateway.folder.path().join("firmware").join(&image), b"firmwarf").unwrap();
    let body = json!({"image": image, "deviceIds": [ICCID]});
    let refusal = gateway.post(JOBS, body).await.refusal(409);
    assert!(refusal["message"].to_string().contains("damaged"), "{refusal}");
}
