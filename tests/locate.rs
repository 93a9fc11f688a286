//! From a device's bytes, or its cell, to an alert at the webhook, in the running program.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::flows::receiver;
use crate::support::{Api, Gateway, Place, eventually, http_text, own_port};

const ICCID: &str = "8988280666000002864";
const IMSI: &str = "901405100002864";
const STREAM_SECRET: &str = "the secret of a stream";

fn template() -> Value {
    let value = |byte| json!({ "byte": byte, "bytelength": 8, "type": "float" });
    json!({ "sense": [
        { "asset": "latitude", "custom_type": "location_lat", "value": value(0) },
        { "asset": "longitude", "custom_type": "location_long", "value": value(8) },
    ]})
}

fn send(device: &UdpSocket, gateway: &Gateway, (latitude, longitude): (f64, f64)) {
    let payload = [latitude.to_be_bytes(), longitude.to_be_bytes()].concat();
    device.send_to(&payload, gateway.udp).unwrap();
}

fn subscribe(api: &Api, url: &str) {
    api.post(
        "/v1/integrate/clouds/webhooks",
        json!({ "name": "alerts", "url": url, "headers": {},
            "eventTypes": [{ "type": "GEOFENCE" }, { "type": "LOCATION" }] }),
    );
}

/// What the webhook got of one type: what it says, and the longitude. An event that was delivered
/// when the gateway was killed comes again with its id.
fn told(events: &[Value], kind: &str) -> Vec<(String, String)> {
    let part = kind.to_lowercase();
    let mut ids = HashSet::new();
    let of_kind = events.iter().filter(|event| event["type"] == kind);
    let of_kind = of_kind.filter(|event| ids.insert(event["id"].to_string()));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_kind
        .map(|event| {
            let inner = &event[&part];
            let what = if kind == "GEOFENCE" { &inner["type"] } else { &inner["source"] };
            (word(what), word(&inner["coordinates"][0]))
        })
        .collect()
}

fn place(ip: &str) -> Place {
    let place = Place::with_ports_of_its_own();
    let csv = format!("iccid,imsi,msisdn,imei,ip,label\n{ICCID},{IMSI},,,{ip},test\n");
    assert!(place.import(&csv).status.success());
    place
}

#[test]
fn a_device_that_drives_through_a_geofence_raises_two_alerts_over_a_restart() {
    let place = place("127.0.0.94");
    let gateway = place.start();
    let api = place.api(&gateway);
    api.template(&template());
    let (receiver, events) = receiver();
    subscribe(&api, &receiver.url());
    let circle = json!({ "name": "depot", "type": "circle", "center": [10.0, 50.0],
        "radius": 1_000 });
    api.post("/v1/locate/geofences", circle);

    let device = UdpSocket::bind("127.0.0.94:0").unwrap();
    let arrived = |kind: &str, amount: usize| {
        eventually("events at the webhook", || {
            let told = told(&events.lock().unwrap(), kind);
            (told.len() >= amount).then_some(told)
        })
    };
    send(&device, &gateway, (50.0, 9.0));
    arrived("LOCATION", 1);
    send(&device, &gateway, (50.0, 10.0));
    let alerts = arrived("GEOFENCE", 1);
    assert_eq!(alerts, [("ENTER".to_owned(), "10".to_owned())]);
    gateway.kill();

    let gateway = place.start();
    let api = place.api(&gateway);
    send(&device, &gateway, (50.0, 10.001));
    arrived("LOCATION", 3);
    send(&device, &gateway, (50.0, 11.0));
    let alerts = arrived("GEOFENCE", 2);
    assert_eq!(alerts[1], ("EXIT".to_owned(), "11".to_owned()));
    let positions = api.get(&format!("/v1/locate/devices/{ICCID}/positions"));
    let items = positions["coordinates"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    assert_eq!(items[0]["coordinate"], json!([11.0, 50.0]));
    let latest = api.get("/v1/locate/positions/latest?longitudeFrom=10.5");
    assert_eq!(latest["coordinates"][0]["deviceId"], ICCID);
    let logs = api.get("/v1/administrationLogs?q=type:location");
    let words: Vec<_> = logs["items"].as_array().unwrap().iter().map(|i| &i["message"]).collect();
    assert_eq!(words, ["Geofence[Exit]", "Geofence[Enter]"], "{logs}");
    let fence = logs["items"][0]["geofenceId"].as_str().unwrap();
    let of_fence = api.get(&format!("/v1/administrationLogs?q=geofenceId:{fence}"));
    assert_eq!(of_fence["items"].as_array().unwrap().len(), 2);
    // Nothing is told twice by the restart.
    assert_eq!(told(&events.lock().unwrap(), "LOCATION").len(), 4);
    assert!(gateway.terminate().success());
}

fn created(session: u64, cell: u64) -> String {
    let now = vocabulary::Timestamp::from(SystemTime::now()).to_string();
    json!([{ "id": session, "timestamp": now,
        "event_type": { "id": 3, "description": "Create PDP Context" },
        "event_severity": { "id": 0, "description": "INFO" },
        "sim": { "iccid": ICCID }, "imsi": { "imsi": IMSI },
        "detail": { "pdp_context": { "pdp_context_id": session, "imsi": IMSI, "rat_type": 6,
            "ue_ip_address": "127.0.0.95", "mcc": "262", "mnc": "01", "lac": 7, "ci": cell } } }])
    .to_string()
}

fn post(gateway: &Gateway, secret: &str, body: String) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("http://{}/feeds/vendor", gateway.api);
    runtime.block_on(async {
        let request = reqwest::Client::new().post(url).basic_auth("simgate", Some(secret));
        request.body(body).send().await.unwrap().status().as_u16()
    })
}

#[test]
fn a_vendor_s_stream_makes_a_session_and_its_cell_a_position() {
    // The SIM has no address of its own.
    let mut place = place("");
    let stream =
        format!("[{{ name = \"vendor\", user = \"simgate\", secret = \"{STREAM_SECRET}\" }}]");
    place.set("SIMGATE_NETWORK_STREAMS", &stream);
    place.set("SIMGATE_NETWORK_ADDRESSES", "sessions");
    let cells = place.folder.path().join("cells.csv");
    std::fs::write(&cells, "LTE,262,1,7,28312321,0,10.5,50.25,1000,9,1,0,1,0\nnonsense\n").unwrap();
    let imported = place.run(&["cells", "import", cells.to_str().unwrap()]);
    assert_eq!(imported.status.code(), Some(1), "a line was rejected: {imported:?}");
    let said = String::from_utf8_lossy(&imported.stdout).into_owned();
    assert!(said.contains("1 cells, 0 of CDMA left out, 1 lines rejected"), "{said}");
    let shown = place.run(&["cells", "show", "NB-IoT", "262-01", "7", "28312321"]);
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(said, "50.250000, 10.500000 (latitude, longitude), within 820 m, by the cell\n");

    let gateway = place.start();
    let api = place.api(&gateway);
    let (receiver, events) = receiver();
    subscribe(&api, &receiver.url());
    let on = json!({ "state": "ENABLED", "readAndAcceptedDisclaimer": true });
    let (status, _) = api.call("PATCH", "/v1/settings/1nceos/CELL_TOWER_LOCATION", Some(on));
    assert_eq!(status, 200);
    assert_eq!(post(&gateway, "another secret, long", created(1, 28_312_321)), 401);
    assert_eq!(post(&gateway, STREAM_SECRET, created(1, 28_312_321)), 200);
    let located = eventually("the position at the webhook", || {
        told(&events.lock().unwrap(), "LOCATION").pop()
    });
    assert_eq!(located, ("CellTower".to_owned(), "10.5".to_owned()));
    let activity =
        api.get(&format!("/v1/locate/devices/{ICCID}/activity?startDateTime=2026-01-01T00:00:00Z"));
    assert!(activity["items"].is_array());

    let device = UdpSocket::bind("127.0.0.95:0").unwrap();
    let answer = crate::support::coap_post(&device, gateway.coap, 1, None, b"hello");
    assert_eq!(answer.0, 204, "its session speaks for it");
    let sessions = api.get(&format!("/simgate/v1/devices/{ICCID}/sessions"));
    assert_eq!(sessions["items"][0]["state"], "LIVE");
    // Usage comes by the same URL, here twice.
    let now = vocabulary::Timestamp::from(SystemTime::now());
    let span = [now, now.saturating_add(Duration::from_secs(1))].map(|time| time.to_string());
    let usage = json!([{ "id": 7, "start_timestamp": span[0], "end_timestamp": span[1],
        "traffic_type": { "id": 5, "description": "Data" }, "imsi": IMSI,
        "volume": { "total": 0.001276, "tx": 0.001176, "rx": 0.0001 } }]);
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..2 {
        assert_eq!(post(&gateway, STREAM_SECRET, usage.to_string()), 200);
    }
    let sessions = api.get(&format!("/simgate/v1/devices/{ICCID}/sessions"));
    let carried = [&sessions["items"][0]["bytesUp"], &sessions["items"][0]["bytesDown"]];
    assert_eq!(carried, [&json!(1_176), &json!(100)], "{sessions}");
    let messages = api.get(&format!("/simgate/v1/messages?iccid={ICCID}"));
    assert!(messages["items"][0]["session"].is_u64(), "{messages}");
    assert_eq!(messages["items"][0]["session"], sessions["items"][0]["id"]);
    let id = messages["items"][0]["id"].as_str().unwrap();
    let message = api.get(&format!("/simgate/v1/messages/{id}"));
    assert_eq!(message["session"], sessions["items"][0]["id"]);
    let feeds = api.get("/simgate/v1/feeds");
    assert_eq!(feeds["items"][0]["reports"], 1);
    let metrics = http_text(&format!("http://{}/metrics", gateway.api));
    assert!(
        metrics.contains("simgate_session_reports_total{feed=\"vendor\",outcome=\"opened\"} 1")
    );
    assert!(gateway.terminate().success());
}

/// Rows of the form of an export, three of one network in Upper Franconia.
const CELLS: &str = "\
    LTE,262,2,852,28312321,0,10.940241,50.174076,1591,20,1,1294561074,1662692508,0\n\
    LTE,262,2,852,28312322,0,10.951005,50.174302,1204,31,1,1294561074,1662692508,0\n\
    LTE,262,2,852,28312577,0,10.944810,50.181417,1310,12,1,1294561074,1662692508,0\n";

#[test]
fn the_cells_that_a_modem_hears_give_a_position() {
    let place = place("");
    let cells = place.folder.path().join("cells.csv");
    std::fs::write(&cells, CELLS).unwrap();
    let imported = place.run(&["cells", "import", cells.to_str().unwrap()]);
    assert!(imported.status.success(), "{imported:?}");
    let gateway = place.start();
    let api = place.api(&gateway);
    let tower = |cell: u64, signal: i64| {
        json!({ "radioType": "lte", "mobileCountryCode": 262, "mobileNetworkCode": 2,
            "locationAreaCode": 852, "cellId": cell, "signalStrength": signal })
    };
    let heard = |towers: Vec<Value>| json!({ "considerIp": false, "cellTowers": towers });
    let ask = |body: Value| api.call("POST", "/simgate/v1/geolocate", Some(body));
    let towers =
        vec![tower(28_312_321, -90), tower(28_312_322, -90), tower(28_312_577, -90), tower(1, -60)];
    let (status, found) = ask(heard(towers));
    assert_eq!(status, 200, "{found}");
    assert_eq!(
        (&found["matched"], &found["towers"], &found["known"]),
        (&json!("cells"), &json!(4), &json!(3))
    );
    let between = |name: &str, least: f64, most: f64| {
        let value = found["location"][name].as_f64().unwrap();
        assert!((least..most).contains(&value), "{name}: {found}");
    };
    between("lat", 50.1741, 50.1814);
    between("lng", 10.9403, 10.9510);
    // The smallest of them alone: 0.82 of 1,204 m.
    assert!(found["accuracy"].as_f64().unwrap() < 987.0, "{found}");
    let (status, one) = ask(heard(vec![tower(28_312_321, -90)]));
    assert_eq!((status, &one["matched"], &one["accuracy"]), (200, &json!("cell"), &json!(1305.0)));
    // The example of the page about cells.
    let (_, two) = ask(heard(vec![tower(28_312_321, -81), tower(28_312_322, -97)]));
    let at = &two["location"];
    assert!((at["lat"].as_f64().unwrap() - 50.174115).abs() < 1e-5, "{two}");
    assert!((at["lng"].as_f64().unwrap() - 10.942106).abs() < 1e-5, "{two}");
    assert!((two["accuracy"].as_f64().unwrap() - 911.0).abs() <= 2.0, "{two}");
    let abroad = json!({ "cellTowers": [{ "radioType": "lte", "mobileCountryCode": 310,
        "mobileNetworkCode": 410, "locationAreaCode": 852, "cellId": 28_312_321 }] });
    let (status, refused) = ask(abroad);
    assert_eq!((status, &refused["statusText"]), (404, &json!("Not Found")), "{refused}");
    assert!(gateway.terminate().success());
}

#[test]
fn a_removed_sim_is_not_among_the_newest_positions_nor_is_it_after_a_restart() {
    let place = place("127.0.0.96");
    let gateway = place.start();
    let api = place.api(&gateway);
    api.template(&template());
    let latest = |api: &Api| {
        let page = api.get("/v1/locate/positions/latest");
        page["coordinates"].as_array().unwrap().len()
    };
    let device = UdpSocket::bind("127.0.0.96:0").unwrap();
    send(&device, &gateway, (50.0, 10.0));
    eventually("the position", || (latest(&api) == 1).then_some(()));
    let (status, _) = api.call("DELETE", &format!("/simgate/v1/sims/{ICCID}"), None);
    assert_eq!(status, 204);
    eventually("its end", || (latest(&api) == 0).then_some(()));
    assert!(gateway.terminate().success());
    let csv = format!("iccid,imsi,msisdn,imei,ip,label\n{ICCID},{IMSI},,,127.0.0.96,test\n");
    assert!(place.import(&csv).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    assert_eq!(latest(&api), 0, "the number is another device's");
    send(&device, &gateway, (50.0, 11.0));
    eventually("the position of the new one", || (latest(&api) == 1).then_some(()));
    assert!(gateway.terminate().success());
}

#[test]
fn what_is_wrong_in_the_configuration_of_feeds_is_named() {
    let refused = |name: &str, value: &str| {
        let mut place = Place::new();
        place.set(name, value);
        let output = place.run(&["serve"]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let radius =
        |client: &str| format!("[{{ listen = \"{}\", clients = [{client}] }}]", own_port());
    let client = |address: &str, secret: &str| {
        format!("{{ name = \"core\", address = \"{address}\", secret = \"{secret}\" }}")
    };
    for (name, value, expected) in [
        ("SIMGATE_NETWORK_RADIUS", radius(""), "has no clients"),
        (
            "SIMGATE_NETWORK_RADIUS",
            radius(&client("10.0.0.1", "testing123")),
            "one of those that everybody tries first",
        ),
        (
            "SIMGATE_NETWORK_RADIUS",
            radius(&client("10.0.0.1", "k7Gq-2mfPz")),
            "the secret has 10 bytes, allowed: at least 16",
        ),
        (
            "SIMGATE_NETWORK_RADIUS",
            radius(&client("10.0.0.1/8", "k7Gq-2mfPz-x81Lk")),
            "10.0.0.1/8 is no network, its network is 10.0.0.0/8",
        ),
        (
            "SIMGATE_NETWORK_STREAMS",
            "[{ name = \"a\", secret = \"short\" }]".to_owned(),
            "is 5 bytes, allowed: at least 16 bytes",
        ),
        (
            "SIMGATE_NETWORK_STREAMS",
            "[{ name = \"a\" }]".to_owned(),
            "needs a secret or a file with it",
        ),
        ("SIMGATE_NETWORK_ADDRESSES", "guess".to_owned(), "allowed: registry, sessions, both"),
    ] {
        let said = refused(name, &value);
        assert!(said.contains(expected), "{value}: {said}");
    }
}
