use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use vocabulary::{Protocol, Timestamp};

use crate::gateway::{Gateway, ICCID};
use crate::integrations::{OWN, one_of_each_kind};

/// Four messages, the first three of which an integration has given up: refused, too large, and
/// refused again for another device.
struct Scene {
    gateway: Gateway,
    path: String,
    ids: Vec<String>,
    times: Vec<Timestamp>,
}

async fn scene() -> Scene {
    let gateway = Gateway::start().await;
    let [integration, ..] = one_of_each_kind(&gateway).await;
    let start = Timestamp::from(SystemTime::now()).saturating_sub(Duration::from_secs(60));
    let (mut ids, mut times) = (Vec::new(), Vec::new());
    for index in 0..4 {
        let at = start.saturating_add(Duration::from_secs(index));
        ids.push(gateway.append(Protocol::Udp, &[1], at).await.to_string());
        times.push(at);
    }
    // As a forwarder leaves them behind.
    let file = Connection::open(gateway.folder.path().join("state.db")).unwrap();
    file.busy_timeout(Duration::from_secs(10)).unwrap();
    let first: u64 = ICCID.parse::<vocabulary::Iccid>().unwrap().as_u64();
    for (place, class, device, code) in [
        (0usize, "refused", first, Some(422)),
        (1, "too_large", first, None),
        (2, "refused", first + 1, Some(400)),
    ] {
        file.execute(
            "INSERT INTO dead_letters (integration, place, id, device, event_type, received_at_us,
                died_at_us, class, reason, answer_code, answer, attempts)
             VALUES (?1, ?2, ?3, ?4, 'TELEMETRY_DATA', ?5, ?6, ?7, 'it said no', ?8, ?9, 2)",
            params![
                integration,
                i64::try_from(place).unwrap(),
                ids[place],
                device.cast_signed(),
                times[place].as_micros(),
                times[3].as_micros(),
                class,
                code,
                code.map(|_| "because"),
            ],
        )
        .unwrap();
    }
    Scene { gateway, path: format!("{OWN}/{integration}/deadLetters"), ids, times }
}

impl Scene {
    /// The numbers of the messages that a query finds.
    async fn found(&self, query: &str) -> Vec<usize> {
        let page = self.gateway.get(&format!("{}?{query}", self.path)).await.expect(200);
        let number = |item: &Value| self.ids.iter().position(|id| item["id"] == **id).unwrap();
        page["items"].as_array().unwrap().iter().map(number).collect()
    }

    async fn left(&self) -> Vec<usize> {
        self.found("").await
    }
}

#[tokio::test]
async fn dead_letters_are_listed_with_their_reason() {
    let scene = scene().await;
    let page = scene.gateway.get(&format!("{}?pageSize=2", scene.path)).await.expect(200);
    assert_eq!((&page["page"], &page["pageAmount"]), (&json!(1), &json!(2)));
    let [first, second] = page["items"].as_array().unwrap().as_slice() else { panic!("{page}") };
    let id: vocabulary::EventId = scene.ids[0].parse().unwrap();
    let expected = json!({
        "id": scene.ids[0], "traceId": id.trace(), "iccid": ICCID,
        "eventType": "TELEMETRY_DATA", "receivedTime": scene.times[0].to_string(),
        "deadTime": scene.times[3].to_string(),
        "reason": {"class": "refused", "text": "it said no"},
        "response": {"code": 422, "body": "because"}, "attempts": 2,
    });
    assert_eq!(*first, expected);
    assert_eq!((second.get("response"), second.get("replayId")), (None, None));
}

#[tokio::test]
async fn dead_letters_are_found_by_each_filter() {
    let scene = scene().await;
    assert_eq!(scene.left().await, [0, 1, 2]);
    assert_eq!(scene.found("page=2&pageSize=2").await, [2]);
    assert_eq!(scene.found("reason=refused").await, [0, 2]);
    assert_eq!(scene.found(&format!("iccid={ICCID}")).await, [0, 1]);
    let span = format!("startDateTime={}&endDateTime={}", scene.times[1], scene.times[2]);
    assert_eq!(scene.found(&span).await, [1]);
    assert!(scene.found("reason=gone").await.is_empty());
    for (query, field) in [
        ("reason=sulking", "reason"),
        ("iccid=12", "iccid"),
        ("startDateTime=yesterday", "startDateTime"),
        ("startDateTime=2026-01-02&endDateTime=2026-01-01", "startDateTime"),
        ("pageSize=1001", "pageSize"),
        ("page=51", "page"),
    ] {
        let refusal = scene.gateway.get(&format!("{}?{query}", scene.path)).await.refusal(400);
        assert_eq!(refusal["field"], field, "{query}");
    }
    let refusal = scene.gateway.get(&format!("{}?reason=sulking", scene.path)).await.refusal(400);
    assert!(refusal["allowed"].as_str().unwrap().contains("too_large"), "{refusal}");
    scene.gateway.get(&format!("{}?class=x", scene.path)).await.refusal(400);
    scene.gateway.get(&format!("{OWN}/nobody/deadLetters")).await.refusal(404);
}

#[tokio::test]
async fn dead_letters_are_forgotten_by_a_filter_or_expressly_all() {
    let scene = scene().await;
    let delete = async |query: &str| scene.gateway.delete(&format!("{}{query}", scene.path)).await;
    for (query, status) in [
        ("", 400),
        ("?all=false", 400),
        ("?all=yes", 400),
        ("?all=true&reason=refused", 400),
        ("?reason=sulking", 400),
        ("?page=1", 400),
    ] {
        delete(query).await.refusal(status);
    }
    assert_eq!(scene.left().await, [0, 1, 2]);
    assert_eq!(delete("?reason=too_large").await.expect(200), json!({"deadLetters": 1}));
    assert_eq!(scene.left().await, [0, 2]);
    assert_eq!(delete("?all=true").await.expect(200), json!({"deadLetters": 2}));
    assert_eq!(delete("?all=true").await.expect(200), json!({"deadLetters": 0}));
    scene.gateway.delete(&format!("{OWN}/nobody/deadLetters?all=true")).await.refusal(404);
}

#[tokio::test]
async fn dead_letters_that_are_chosen_become_a_replay() {
    let scene = scene().await;
    let path = format!("{}/replay", scene.path);
    let by_id = json!({"ids": [scene.ids[2]]});
    let begun = scene.gateway.post(&path, by_id.clone()).await.expect(202);
    assert_eq!(begun["deadLetters"], 1);
    let replay = &begun["replay"];
    assert_eq!(replay["source"], "DEAD_LETTERS");
    assert_eq!((&replay["state"], &replay["delivered"]), (&json!("RUNNING"), &json!(0)));
    let page = scene.gateway.get(&scene.path).await.expect(200);
    assert_eq!(page["items"][2]["replayId"], replay["id"]);
    assert_eq!(page["items"][0].get("replayId"), None);
    let refusal = scene.gateway.post(&path, by_id).await.refusal(404);
    assert!(refusal["message"].as_str().unwrap().contains("dead letter"), "it has a replay");
    let rest = scene.gateway.post(&path, json!({"all": true})).await.expect(202);
    assert_eq!(rest["deadLetters"], 2);
    let cancel = format!("/simgate/v1/replays/{}/cancel", replay["id"].as_str().unwrap());
    scene.gateway.post_empty(&cancel).await.expect(200);
    let begun = scene.gateway.post(&path, json!({"reason": "refused"})).await.expect(202);
    assert_eq!(begun["deadLetters"], 1, "the cancelled one is free again");
}

#[tokio::test]
async fn what_is_wrong_with_a_choice_of_dead_letters_is_named() {
    let scene = scene().await;
    let path = format!("{}/replay", scene.path);
    for (body, field) in [
        (json!({}), "all"),
        (json!({"all": false}), "all"),
        (json!({"all": true, "iccid": ICCID}), "all"),
        (json!({"ids": []}), "ids"),
        (json!({"ids": ["nonsense"]}), "ids"),
        (json!({"ids": vec![&scene.ids[0]; 1_001]}), "ids"),
        (json!({"iccid": "1"}), "iccid"),
        (json!({"reason": "sulking"}), "reason"),
        (json!({"endDateTime": "soon"}), "endDateTime"),
        (json!({"class": "refused"}), "body"),
    ] {
        let refusal = scene.gateway.post(&path, body.clone()).await.refusal(400);
        assert_eq!(refusal["field"], field, "{body}");
    }
    let nobody = format!("{OWN}/nobody/deadLetters/replay");
    scene.gateway.post(&nobody, json!({"all": true})).await.refusal(404);
    let page = scene.gateway.get("/simgate/v1/replays").await.expect(200);
    assert_eq!(page["items"], json!([]));
}
