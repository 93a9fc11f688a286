use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::gateway::{Answer, Gateway, ICCID};

const PATH: &str = "/simgate/v1/sims";

async fn import(gateway: &Gateway, text: &str) -> Answer {
    let request = gateway.request(Method::POST, &format!("{PATH}/import"));
    let request = request.header("content-type", "text/csv").body(text.to_owned());
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_sim_lives_from_creation_to_removal() {
    let gateway = Gateway::start().await;
    let new = json!({
        "iccid": ICCID, "imsi": "901405100002864", "ip": "10.0.0.9", "label": "pump",
    });
    let made = gateway.post(PATH, new.clone()).await.expect(201);
    assert_eq!((&made["status"], &made["label"]), (&json!("Enabled"), &json!("pump")));
    gateway.post(PATH, new).await.refusal(409);
    let other = json!({"iccid": "8988280666000002865", "ip": "10.0.0.9"});
    gateway.post(PATH, other).await.refusal(409);
    let path = format!("{PATH}/{ICCID}");
    let change = json!({"imsi": null, "imei": "86677504212345", "status": "Disabled"});
    let changed = gateway.patch(&path, change).await.expect(200);
    assert_eq!(changed["imsi"], json!(null));
    assert_eq!(changed["ip"], "10.0.0.9");
    assert_eq!(changed["status"], "Disabled");
    assert_eq!(gateway.get(&path).await.expect(200), changed);
    let page = gateway.get(&format!("{PATH}?pageSize=1000&q=ip:10.0.0.9")).await.expect(200);
    assert_eq!(page["items"], json!([changed]));
    gateway.delete(&path).await.expect(204);
    gateway.get(&path).await.refusal(404);
    gateway.delete(&path).await.refusal(404);
    gateway.patch(&path, json!({})).await.refusal(404);
}

#[tokio::test]
async fn wrong_values_are_named() {
    let gateway = Gateway::start().await;
    for (body, field) in [
        (json!({"iccid": "1"}), "iccid"),
        (json!({"iccid": ICCID, "imsi": "1"}), "imsi"),
        (json!({"iccid": ICCID, "ip": "x"}), "ip"),
        (json!({"iccid": ICCID, "status": "on"}), "status"),
        (json!({"iccid": ICCID, "imei": "12345678901234567"}), "imei"),
    ] {
        assert_eq!(gateway.post(PATH, body).await.refusal(400)["field"], field);
    }
    gateway.post(PATH, json!({"iccid": ICCID, "ip": "0.0.0.0"})).await.refusal(400);
}

#[tokio::test]
async fn an_import_takes_good_lines_and_reports_the_others() {
    let gateway = Gateway::start().await;
    let text = "iccid,imsi,ip,label\n\
        8988280666000002864,901405100002864,10.0.0.1,one\n\
        89882806660000028,901405100002865,10.0.0.2,two\n\
        8988280666000002866,,10.0.0.3,three\n";
    let report = import(&gateway, text).await.expect(200);
    assert_eq!((&report["read"], &report["created"]), (&json!(3), &json!(2)));
    assert_eq!(report["rejections"][0]["line"], 3);
    assert!(report["rejections"][0]["reason"].as_str().unwrap().contains("digits"));
    let report = import(&gateway, text).await.expect(200);
    assert_eq!((&report["created"], &report["unchanged"]), (&json!(0), &json!(2)));
    gateway.get(&format!("{PATH}/8988280666000002866")).await.expect(200);
}

#[tokio::test]
async fn a_file_that_is_no_list_of_sims_is_refused() {
    let gateway = Gateway::start().await;
    import(&gateway, "a,b\n1,2\n").await.refusal(400);
    import(&gateway, "").await.refusal(400);
    let refusal = gateway.post(&format!("{PATH}/import"), json!({})).await.refusal(415);
    assert_eq!(refusal["allowed"], "text/csv");
}

/// A client that goes away in the middle of a line must not leave half a line behind.
#[tokio::test]
async fn an_import_that_breaks_off_takes_no_half_line() {
    let gateway = Gateway::start().await;
    let token = gateway.login().await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /management-api{PATH}/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: text/csv\r\ncontent-length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = b"iccid,imsi,ip,label\n8988280666000002864,901405100002864,10.0.0.1,a lab";
    stream.write_all(body).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    gateway.get(&format!("{PATH}/8988280666000002864")).await.refusal(404);
    // The right to import is free again.
    import(&gateway, "iccid\n8988280666000002864\n").await.expect(200);
}
