use std::time::SystemTime;

use serde_json::json;
use vocabulary::{
    Coordinates, Crossing, Direction, Notice, NoticeCategory, NoticeKind, Position, PositionSource,
    Protocol,
};

use crate::gateway::{ACCOUNT, Answer, Gateway, ICCID};

const PATH: &str = "/v1/administrationLogs";

#[tokio::test]
async fn entries_are_listed_and_filtered_in_both_documented_ways() {
    let gateway = Gateway::start().await;
    assert_eq!(
        gateway.get(PATH).await.expect(200),
        json!({"items": [], "page": 1, "pageAmount": 1})
    );
    let message = gateway.append(Protocol::Udp, b"raw", SystemTime::now().into()).await;
    let notice = gateway.append_notice(message).await;
    let page = gateway.get(PATH).await.expect(200);
    let entry = &page["items"][0];
    assert_eq!(entry["id"], notice.to_string());
    assert_eq!(entry["customerId"], ACCOUNT);
    assert_eq!((&entry["type"], &entry["category"]), (&json!("DEVICE"), &json!("error")));
    assert_eq!(entry["payloadReference"], format!("{ACCOUNT}/{notice}"));
    for (query, amount) in [
        ("q=type:device,category:error", 1),
        (&format!("q=iccid:{ICCID};startDateTime:2020-01-01T00:00:00Z"), 1),
        (&format!("iccid={ICCID}"), 1),
        ("q=category:info", 0),
        ("q=geofenceId:x", 0),
        ("endDateTime=2020-01-01T00:00:00Z", 0),
    ] {
        let page = gateway.get(&format!("{PATH}?{query}")).await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), amount, "{query}");
    }
    for query in ["q=category:bad", "q=type:bad", "q=imsi:1", "pageSize=26", "page=51"] {
        gateway.get(&format!("{PATH}?{query}")).await.refusal(400);
    }
}

#[tokio::test]
async fn a_crossing_is_found_by_its_geofence() {
    let gateway = Gateway::start().await;
    for (id, direction, message) in [
        ("Wg9ys5VqmSNN8M8YN2rv8", Direction::Enter, "Geofence[Enter]"),
        ("k3Vd0hYb7QmZ1nT5xWc9P", Direction::Exit, "Geofence[Exit]"),
    ] {
        let mut notice = Notice::new(NoticeCategory::Info, NoticeKind::Location, message);
        notice.iccid = Some(ICCID.parse().unwrap());
        notice.geofence = Some(Crossing {
            id: id.to_owned(),
            name: "depot".to_owned(),
            direction,
            source: PositionSource::Gps,
            position: Position {
                coordinates: Coordinates::new(50.9, 6.9).unwrap(),
                accuracy_m: None,
            },
            sampled_at: SystemTime::now().into(),
        });
        gateway.append_entry(&notice).await;
    }
    let page = gateway.get(&format!("{PATH}?q=type:location,category:info")).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let path = format!("{PATH}?q=geofenceId:k3Vd0hYb7QmZ1nT5xWc9P");
    let page = gateway.get(&path).await.expect(200);
    let [entry] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!(entry["geofenceId"], "k3Vd0hYb7QmZ1nT5xWc9P");
    assert_eq!((&entry["type"], &entry["category"]), (&json!("LOCATION"), &json!("info")));
    assert_eq!((&entry["message"], &entry["iccid"]), (&json!("Geofence[Exit]"), &json!(ICCID)));
}

#[tokio::test]
async fn entries_are_counted_by_the_days_of_a_zone() {
    let gateway = Gateway::start().await;
    let message = gateway.append(Protocol::Udp, b"raw", SystemTime::now().into()).await;
    gateway.append_notice(message).await;
    let stats = gateway.get(&format!("{PATH}/stats?timezone=Europe/Amsterdam")).await.expect(200);
    assert_eq!(stats["totalUniqueDevices"], 1);
    assert_eq!(stats["administrationLogs"][0]["amount"], 1);
    assert_eq!(stats["administrationLogs"][0]["day"].as_str().unwrap().len(), 10);
    let info = gateway.get(&format!("{PATH}/stats?timezone=UTC&category=info")).await.expect(200);
    assert_eq!(info["administrationLogs"], json!([]));
    gateway.get(&format!("{PATH}/stats")).await.refusal(400);
    gateway.get(&format!("{PATH}/stats?timezone=Middle/Earth")).await.refusal(400);
}

#[tokio::test]
async fn a_payload_is_behind_a_link_that_needs_no_token() {
    let gateway = Gateway::start().await;
    let message =
        gateway.append(Protocol::Udp, &[0, 159, 146, 150], SystemTime::now().into()).await;
    let notice = gateway.append_notice(message).await;
    let answer = gateway.get(&format!("{PATH}/{notice}/payload")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/x-uri");
    let url = answer.text;
    assert!(url.starts_with(&gateway.url("/management-api/simgate/v1/payloads/")), "{url}");
    let response = gateway.http.get(&url).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert_eq!(response.bytes().await.unwrap()[..], [0, 159, 146, 150]);
    let altered = url.replace("expires=", "expires=9");
    Answer::of(gateway.http.get(&altered).send().await.unwrap()).await.refusal(403);
    gateway.get(&format!("{PATH}/{message}/payload")).await.refusal(404);
    gateway.get(&format!("{PATH}/nonsense/payload")).await.refusal(400);
}
