use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use vocabulary::{Protocol, Timestamp};

use crate::gateway::{Gateway, ICCID};

const TEMPLATE: &str =
    r#"{"sense":[{"asset":"t","value":{"byte":0,"bytelength":1,"type":"uint"}}]}"#;

async fn with_messages(amount: u8) -> Gateway {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    let start = Timestamp::from(SystemTime::now()).saturating_sub(Duration::from_secs(60));
    for index in 0..amount {
        let protocol = if index % 2 == 0 { Protocol::Udp } else { Protocol::Coap };
        let time = start.saturating_add(Duration::from_secs(u64::from(index)));
        gateway.append(protocol, &[index], time).await;
    }
    gateway
}

fn payloads(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["payload"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn messages_come_newest_first_in_pages_over_a_snapshot() {
    let gateway = with_messages(5).await;
    let path = format!("/v1/inspect/devices/{ICCID}/history?pageSize=2");
    let first = gateway.get(&path).await.expect(200);
    assert_eq!(payloads(&first), ["BA==", "Aw=="]);
    gateway.append(Protocol::Udp, &[99], SystemTime::now().into()).await;
    let token = first["nextToken"].as_str().unwrap();
    let second = gateway.get(&format!("{path}&nextToken={token}")).await.expect(200);
    assert_eq!(payloads(&second), ["Ag==", "AQ=="]);
    let token = second["nextToken"].as_str().unwrap();
    let last = gateway.get(&format!("{path}&nextToken={token}")).await.expect(200);
    assert_eq!(payloads(&last), ["AA=="]);
    assert_eq!(last.get("nextToken"), None);
    let token = first["firstToken"].as_str().unwrap();
    let again = gateway.get(&format!("{path}&nextToken={token}")).await.expect(200);
    assert_eq!(payloads(&again), ["BA==", "Aw=="]);
}

#[tokio::test]
async fn an_item_has_the_documented_members() {
    let gateway = with_messages(2).await;
    let page = gateway.get("/v1/inspect/devices/history?protocol=CoAP").await.expect(200);
    let item = &page["items"][0];
    assert_eq!(item["iccid"], ICCID);
    assert_eq!(item["deviceId"], ICCID);
    assert_eq!(item["protocol"], "COAP");
    assert_eq!(item["topic"], "room/1");
    assert_eq!(item["time"].as_str().unwrap().len(), "2022-02-21T12:47:30.085".len());
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let page = gateway.get(&format!("/v1/inspect/devices/history?iccid={ICCID}")).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let other = "/v1/inspect/devices/history?deviceId=8988280666000009999";
    assert_eq!(gateway.get(other).await.expect(200)["items"], json!([]));
    gateway.get("/v1/inspect/devices/8988280666000009999/history").await.refusal(404);
}

#[tokio::test]
async fn times_are_answered_in_the_zone_of_the_question() {
    let gateway = Gateway::start().await;
    let now = Timestamp::from(SystemTime::now());
    gateway.append(Protocol::Udp, b"x", now).await;
    let utc = gateway.get("/v1/inspect/devices/history").await.expect(200);
    let utc = utc["items"][0]["time"].as_str().unwrap().to_owned();
    assert_eq!(format!("{utc}Z"), now.to_string());
    let day_ago = now.saturating_sub(Duration::from_secs(86_400)).to_string();
    let start = day_ago.replace('Z', "+02:00");
    let path = format!("/v1/inspect/devices/history?startDateTime={start}");
    let local = gateway.get(&path).await.expect(200);
    let local: Timestamp =
        format!("{}+02:00", local["items"][0]["time"].as_str().unwrap()).parse().unwrap();
    assert_eq!(local.as_millis(), now.as_millis());
    let until = gateway.get(&format!("/v1/inspect/devices/history?endDateTime={day_ago}")).await;
    assert_eq!(until.expect(200)["items"], json!([]));
    let backward = "startDateTime=2022-02-22&endDateTime=2022-02-21";
    gateway.get(&format!("/v1/inspect/devices/history?{backward}")).await.refusal(400);
    let wrong = gateway.get("/v1/inspect/devices/history?startDateTime=yesterday").await;
    assert_eq!(wrong.refusal(400)["field"], "startDateTime");
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused() {
    let gateway = with_messages(3).await;
    let path = "/v1/inspect/devices/history?pageSize=1";
    let page = gateway.get(path).await.expect(200);
    let token = page["nextToken"].as_str().unwrap();
    gateway.get(&format!("{path}&nextToken=x{token}")).await.refusal(400);
    gateway.get(&format!("{path}&protocol=UDP&nextToken={token}")).await.refusal(400);
}

#[tokio::test]
async fn insights_count_by_span_and_protocol() {
    let gateway = with_messages(3).await;
    let path = format!("/v1/inspect/devices/{ICCID}/history/insights");
    let found = gateway.get(&path).await.expect(200);
    assert_eq!(found["interval"], "1d");
    let sum: u64 =
        found["items"].as_array().unwrap().iter().map(|it| it["amount"].as_u64().unwrap()).sum();
    assert_eq!(sum, 3);
    let path = format!("{path}?interval=1h&protocol=udp");
    let found = gateway.get(&path).await.expect(200);
    assert_eq!(found["items"][0]["protocol"], "UDP");
    gateway.get("/v1/inspect/devices/history/insights?interval=5m").await.refusal(400);
    let all = gateway.get("/v1/inspect/devices/history/insights").await.expect(200);
    assert!(all["items"].is_array());
    gateway.get("/v1/inspect/devices/8988280666000009999/history/insights").await.refusal(404);
}

#[tokio::test]
async fn the_raw_view_shows_what_no_template_could_translate() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.9");
    let template = json!({
        "name": "t", "template": TEMPLATE, "protocolFilter": ["UDP"], "status": "ACTIVE",
    });
    gateway.post("/v1/optimize/templates", template).await.expect(201);
    let now = Timestamp::from(SystemTime::now());
    let good = gateway.append(Protocol::Udp, &[21], now).await;
    let short = gateway.append(Protocol::Udp, &[], now).await;
    let page = gateway.get("/v1/inspect/devices/history").await.expect(200);
    assert_eq!(payloads(&page), [r#"{"t":21}"#]);
    let page = gateway.get("/simgate/v1/messages").await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let message = gateway.get(&format!("/simgate/v1/messages/{good}")).await.expect(200);
    assert_eq!(message["translation"]["json"], r#"{"t":21}"#);
    assert_eq!((&message["payload"], &message["sequence"]), (&json!("FQ=="), &json!(1)));
    let message = gateway.get(&format!("/simgate/v1/messages/{}", short.trace())).await.expect(200);
    assert!(message["translation"]["error"].as_str().unwrap().contains("can't extract"));
    let newest = gateway.get(&format!("/simgate/v1/messages/{good}?template=newest")).await;
    newest.expect(200);
    gateway.get(&format!("/simgate/v1/messages/{good}?template=old")).await.refusal(400);
    gateway.get("/simgate/v1/messages/msg_00000000000000000000000000").await.refusal(404);
    gateway.get("/simgate/v1/messages/nonsense").await.refusal(400);
}
