//! Positions, geofences, data sessions and feeds, by the documented shapes.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};
use vocabulary::{SessionChange, SessionReport, Timestamp};

use crate::gateway::{Answer, Gateway, ICCID};

/// A gateway that has located its device by LwM2M so many minutes ago, at 10, 11, 12 degrees east.
async fn located() -> Gateway {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let mut reader = gateway.locator.reader().unwrap();
    let now = Timestamp::from(SystemTime::now());
    for (longitude, minutes) in [(10, 30), (11, 20), (12, 10)] {
        let at = now.saturating_sub(Duration::from_mins(minutes));
        let payload = format!(r#"{{"/6/0/0":50.5,"/6/0/1":{longitude},"/6/0/3":7}}"#);
        gateway.append(vocabulary::Protocol::Lwm2m, payload.as_bytes(), at).await;
    }
    tokio::task::spawn_blocking(move || reader.step().unwrap()).await.unwrap();
    gateway
}

fn longitudes(page: &Value) -> Vec<f64> {
    let items = page["coordinates"].as_array().unwrap();
    items.iter().map(|item| item["coordinate"][0].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn positions_are_pages_of_a_device() {
    let gateway = located().await;
    let path = format!("/v1/locate/devices/{ICCID}/positions");
    let page = gateway.get(&path).await.expect(200);
    assert_eq!(longitudes(&page), [12.0, 11.0, 10.0]);
    assert_eq!((&page["page"], &page["pageAmount"]), (&json!(1), &json!(1)));
    let newest = &page["coordinates"][0];
    assert_eq!(newest["coordinate"], json!([12.0, 50.5]));
    assert_eq!(newest["source"], "GPS");
    assert_eq!(
        newest["metadata"],
        json!({ "horizontalAccuracy": 7.0, "horizontalConfidenceLevel": 0.68 })
    );
    let query = format!("{path}?pageSize=2&page=2&sort=sampleTime&mode=ALL&source=GPS");
    let page = gateway.get(&query).await.expect(200);
    assert_eq!((longitudes(&page), &page["pageAmount"]), (vec![12.0], &json!(2)));
    let page = gateway.get(&format!("{path}?source=CellTower&mode=SUMMARY")).await.expect(200);
    assert_eq!(longitudes(&page), [0.0; 0]);
    for (query, field) in [
        ("mode=SOME", "mode"),
        ("source=WiFi", "source"),
        ("sort=iccid", "sort"),
        ("pageSize=101", "pageSize"),
        ("startDateTime=yesterday", "startDateTime"),
    ] {
        let refusal = gateway.get(&format!("{path}?{query}")).await.refusal(400);
        assert_eq!(refusal["field"], field);
    }
    gateway.get("/v1/locate/devices/8988280666000009999/positions").await.refusal(404);
    gateway.stop().await;
}

#[tokio::test]
async fn the_newest_position_of_each_device_is_found_in_a_box() {
    let gateway = located().await;
    let found = async |query: &str| {
        longitudes(&gateway.get(&format!("/v1/locate/positions/latest?{query}")).await.expect(200))
    };
    assert_eq!(found("").await, [12.0]);
    assert_eq!(found(&format!("deviceId={ICCID}&latitudeFrom=50&latitudeTo=51")).await, [12.0]);
    assert_eq!(found("longitudeFrom=13").await, [0.0; 0]);
    assert_eq!(found("longitudeFrom=11&longitudeTo=-170").await, [12.0], "the other way round");
    assert_eq!(found("source=CellTower").await, [0.0; 0]);
    let page = gateway.get("/v1/locate/positions/latest").await.expect(200);
    assert_eq!(page["coordinates"][0]["deviceId"], ICCID);
    let refusal = gateway.get("/v1/locate/positions/latest?latitudeTo=91").await.refusal(400);
    assert_eq!(refusal["allowed"], "-90 to 90");
    let activity = format!("/v1/locate/devices/{ICCID}/activity");
    assert_eq!(gateway.get(&activity).await.expect(200), json!({ "items": [] }));
    gateway.stop().await;
}

#[tokio::test]
async fn a_removed_sim_is_not_among_the_newest_positions() {
    let gateway = located().await;
    let removed = gateway.delete(&format!("/simgate/v1/sims/{ICCID}")).await;
    assert_eq!(removed.status.as_u16(), 204);
    for query in ["", &format!("?deviceId={ICCID}")] {
        let page = gateway.get(&format!("/v1/locate/positions/latest{query}")).await.expect(200);
        assert_eq!(longitudes(&page), [0.0; 0], "{query}");
    }
    let path = format!("/v1/locate/devices/{ICCID}/positions");
    assert_eq!(longitudes(&gateway.get(&path).await.expect(200)).len(), 3, "as its messages");
    gateway.stop().await;
}

#[tokio::test]
async fn geofences_are_made_read_changed_and_removed() {
    let gateway = located().await;
    let path = "/v1/locate/geofences";
    // The documented example.
    let polygon = json!({"name":"Once","eventTypes":["EXIT","ENTER"],"type":"polygon","coordinates":
        [[[6.9572401,50.938924],[6.95851,50.938366],[6.959703,50.939457],[6.957239,50.938923]]],
        "eventSources":["GPS","CellTower"]});
    let made = gateway.post(path, polygon.clone()).await.expect(201);
    assert_eq!(made["coordinates"][0][1], json!([6.95851, 50.938366]));
    assert_eq!(made["coordinates"][0][0][0], 6.95724, "to six decimals");
    assert_eq!(made["coordinates"][0][3], made["coordinates"][0][0], "closed");
    assert_eq!((&made["deviceId"], made.get("center")), (&Value::Null, None));
    assert_eq!(made["eventTypes"], json!(["EXIT", "ENTER"]));
    let around = json!({"name":"OnceCircle","type":"circle","deviceId":ICCID,"radius":500});
    let around = gateway.post(path, around).await.expect(201);
    assert_eq!((&around["center"], &around["radius"]), (&json!([12.0, 50.5]), &json!(500.0)));
    assert_eq!(around["eventSources"], json!(["GPS", "CellTower"]));

    let page = gateway.get(&format!("{path}?pageSize=1&page=2")).await.expect(200);
    assert_eq!((&page["items"][0]["id"], &page["pageAmount"]), (&around["id"], &json!(2)));
    let id = made["id"].as_str().unwrap();
    assert_eq!(gateway.get(&format!("{path}/{id}")).await.expect(200), made);
    let change = json!({"name":"Twice","eventTypes":["EXIT"]});
    let changed = gateway.patch(&format!("{path}/{id}"), change).await.expect(200);
    assert_eq!((&changed["name"], &changed["eventTypes"]), (&json!("Twice"), &json!(["EXIT"])));
    gateway.patch(&format!("{path}/{id}"), json!({"radius":60})).await.refusal(400);
    let deleted = gateway.delete(&format!("{path}/{id}")).await;
    assert_eq!(deleted.status.as_u16(), 204);
    gateway.get(&format!("{path}/{id}")).await.refusal(404);
    gateway.delete(&format!("{path}/{id}")).await.refusal(404);

    let refused = async |edit: &dyn Fn(&mut Value)| {
        let mut body = polygon.clone();
        edit(&mut body);
        gateway.post(path, body).await.refusal(400)
    };
    assert_eq!(refused(&|body| body["name"] = json!("x".repeat(51))).await["field"], "name");
    assert_eq!(refused(&|body| body["type"] = json!("oval")).await["allowed"], "polygon, circle");
    assert_eq!(refused(&|body| body["radius"] = json!(500)).await["field"], "radius");
    assert_eq!(refused(&|body| body["eventTypes"] = json!(["STAY"])).await["field"], "eventTypes");
    assert_eq!(refused(&|body| body["eventSources"] = json!([])).await["field"], "eventSources");
    let open =
        refused(&|body| body["coordinates"] = json!([[[1, 1], [2, 1], [2, 2], [1, 2]]])).await;
    assert!(open["message"].as_str().unwrap().contains("begins at"), "{open}");
    let bow = json!([[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]);
    let bow = refused(&|body| body["coordinates"] = bow.clone()).await;
    assert!(bow["message"].as_str().unwrap().contains("self-intersection"), "{bow}");
    assert_eq!(bow["field"], "coordinates");
    let small = json!({"name":"x","type":"circle","center":[1,1],"radius":49});
    let small = gateway.post(path, small).await.refusal(400);
    assert_eq!(small["message"], "the radius is 49 m, allowed: 50 to 30000");
    assert_eq!((&small["field"], &small["allowed"]), (&json!("radius"), &json!("50 to 30000")));
    for name in ["a", "b"] {
        let circle = json!({"name":name,"type":"circle","center":[1,1],"radius":50});
        gateway.post(path, circle).await.expect(201);
    }
    gateway.post(path, polygon.clone()).await.refusal(403);
    gateway.stop().await;
}

#[tokio::test]
async fn the_sessions_of_a_sim_are_shown() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let path = format!("/simgate/v1/devices/{ICCID}/sessions");
    assert_eq!(gateway.get(&path).await.expect(200), json!({ "items": [] }));
    let now = Timestamp::from(SystemTime::now());
    let mut report = SessionReport::new("radius", SessionChange::Start, "core/pgw-1", now);
    report.session = "5f2b".to_owned();
    report.iccid = ICCID.parse().ok();
    report.ipv4 = Some([100, 64, 0, 1].into());
    report.cell = Some(vocabulary::CellTower {
        access: vocabulary::RadioAccess::NbIot,
        plmn: "262-01".parse().unwrap(),
        area: Some(7),
        cell: Some(8),
    });
    gateway.sessions.apply((9, now), &report);
    let page = gateway.get(&path).await.expect(200);
    let session = &page["items"][0];
    assert_eq!((&session["id"], &session["state"]), (&json!(9), &json!("LIVE")));
    assert_eq!(session["cell"], json!({ "plmn": "262-01", "area": 7, "cell": 8 }));
    assert_eq!(session["radioAccessType"], "NB-IoT");
    assert_eq!((&session["ip"], &session["server"]), (&json!("100.64.0.1"), &json!("core/pgw-1")));
    gateway.get("/simgate/v1/devices/8988280666000009999/sessions").await.refusal(404);
    gateway.stop().await;
}

fn created(session: &str) -> Value {
    json!([{"id":1,"timestamp":"2026-01-21T09:36:17Z","event_type":{"id":3},
        "sim":{"iccid":ICCID},"detail":{"pdp_context":{"pdp_context_id":session,
        "imsi":"901405100002864","ue_ip_address":"10.209.106.1"}}},
        {"id":2,"event_type":{"id":18}}, {"id":3,"event_type":{"id":5}}])
}

#[tokio::test]
async fn a_stream_with_its_secret_makes_sessions() {
    let gateway = Gateway::start().await;
    gateway.add_sim(ICCID, "10.0.0.1");
    let post = |name: &str| gateway.http.post(gateway.url(&format!("/feeds/{name}")));
    let secret = "a secret of 20 bytes";
    let send = async |request: reqwest::RequestBuilder, body: &Value| {
        Answer::of(request.json(body).send().await.unwrap()).await
    };
    let vendor = || post("vendor").basic_auth("simgate", Some(secret));
    let taken = send(vendor(), &created("1")).await.expect(200);
    assert_eq!(taken, json!({ "records": 3, "reports": 1, "ignored": 1, "incomplete": 1 }));
    let path = format!("/simgate/v1/devices/{ICCID}/sessions");
    assert_eq!(gateway.get(&path).await.expect(200)["items"][0]["ip"], "10.209.106.1");
    send(post("bearer").bearer_auth(secret), &created("2")).await.expect(200);
    let refused = send(vendor(), &created("refused")).await;
    refused.refusal(503);
    assert_eq!(refused.headers["retry-after"], "30");

    send(post("vendor").basic_auth("simgate", Some("another")), &created("3")).await.refusal(401);
    send(post("vendor").bearer_auth(secret), &created("3")).await.refusal(401);
    send(post("vendor"), &created("3")).await.refusal(401);
    send(post("nobody").bearer_auth(secret), &created("3")).await.refusal(404);
    send(vendor(), &json!(7)).await.refusal(400);
    let text = Answer::of(vendor().body("[{").send().await.unwrap()).await;
    text.refusal(400);
    send(vendor(), &Value::Array(vec![Value::Null; 3_001])).await.refusal(413);
    let feeds = gateway.get("/simgate/v1/feeds").await.expect(200);
    assert_eq!(feeds["items"][0]["type"], "STREAM");
    gateway.stop().await;
}

#[tokio::test]
async fn a_compressed_stream_is_read_and_a_bomb_is_not() {
    use std::io::Write as _;
    let gateway = Gateway::start().await;
    let zipped = |bytes: &[u8]| {
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = gateway.http.request(Method::POST, gateway.url("/feeds/bearer"));
        let request =
            request.bearer_auth("a secret of 20 bytes").header("content-encoding", encoding);
        Answer::of(request.body(body).send().await.unwrap()).await
    };
    let taken = send("gzip", zipped(created("1").to_string().as_bytes())).await.expect(200);
    assert_eq!(taken["reports"], 1);
    send("gzip", zipped(&vec![b' '; 17 << 20])).await.refusal(413);
    send("gzip", b"no gzip".to_vec()).await.refusal(400);
    send("br", b"x".to_vec()).await.refusal(415);
    gateway.stop().await;
}

#[tokio::test]
async fn cells_are_used_once_that_is_accepted() {
    let gateway = Gateway::start().await;
    let path = "/v1/settings/1nceos/CELL_TOWER_LOCATION";
    let refusal = gateway.patch(path, json!({"state":"ENABLED"})).await.refusal(400);
    assert_eq!(refusal["field"], "readAndAcceptedDisclaimer");
    let body = json!({"state":"ENABLED","readAndAcceptedDisclaimer":true});
    assert_eq!(gateway.patch(path, body).await.expect(200)["state"], "ENABLED");
    gateway.patch(path, json!({"state":"DISABLED"})).await.expect(200);
    gateway.stop().await;
}
