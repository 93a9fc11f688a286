//! Positions of several cells, by the body that the field knows.

use cell_database::Import;
use serde_json::{Value, json};

use crate::gateway::Gateway;

const PATH: &str = "/simgate/v1/geolocate";

/// Three cells of one area and one of another network; the newest is the most precise.
const CELLS: &str = "\
    LTE,262,2,852,28312321,0,10.94,50.17,1000,20,1,1294561074,1662692508,0\n\
    LTE,262,2,852,28312322,0,10.96,50.17,1000,20,1,1294561074,1662692508,0\n\
    LTE,262,2,852,28312323,0,10.95,50.18,500,20,1,1294561074,1662692508,0\n\
    GSM,262,1,7,4711,0,9.5,51.5,3000,20,1,1294561074,1662692508,0\n";

/// A gateway with cells.
async fn with_cells() -> Gateway {
    Gateway::start_filled(|folder| {
        let source = folder.join("cells.csv");
        std::fs::write(&source, CELLS).unwrap();
        let imported = Import::new(vec![source], &folder.join("cells.db")).run(|_| {}).unwrap();
        assert_eq!((imported.cells, imported.bad), (4, 0));
    })
    .await
}

fn tower(cell: u64) -> Value {
    json!({ "radioType": "lte", "mobileCountryCode": 262, "mobileNetworkCode": 2,
        "locationAreaCode": 852, "cellId": cell })
}

fn heard(towers: &[Value]) -> Value {
    json!({ "cellTowers": towers })
}

#[tokio::test]
async fn cells_are_located_together() {
    let gateway = with_cells().await;
    let ask = async |body: Value| gateway.post(PATH, body).await.expect(200);
    // What a phone sends, with all that is not used.
    let mut first = tower(28_312_321);
    first["age"] = json!(120);
    first["timingAdvance"] = json!(3);
    let body = json!({ "considerIp": true, "homeMobileCountryCode": 262, "carrier": "x",
        "homeMobileNetworkCode": 2, "radioType": "gsm", "cellTowers": [first, tower(28_312_322)],
        "wifiAccessPoints": [{ "macAddress": "02:00:00:00:00:01" }], "bluetoothBeacons": [],
        "fallbacks": { "lacf": true, "ipf": true } });
    let two = ask(body).await;
    let at = &two["location"];
    assert!((at["lat"].as_f64().unwrap() - 50.17).abs() < 1e-4, "{two}");
    assert!((at["lng"].as_f64().unwrap() - 10.95).abs() < 1e-4, "{two}");
    assert_eq!((&two["matched"], two.get("fallback")), (&json!("cells"), None));
    assert_eq!((&two["towers"], &two["known"]), (&json!(2), &json!(2)));

    let strong = |mut tower: Value, signal: i64| {
        tower["signalStrength"] = json!(signal);
        tower
    };
    let near = ask(heard(&[strong(tower(28_312_321), -70), strong(tower(28_312_322), -110)])).await;
    assert!(near["location"]["lng"].as_f64().unwrap() < 10.941, "{near}");

    // A cell is no better known because it is named twice.
    let once = ask(heard(&[tower(28_312_321)])).await;
    let twice = ask(heard(&[tower(28_312_321), strong(tower(28_312_321), -80)])).await;
    assert_eq!(once, twice);
    assert_eq!((&once["matched"], &once["accuracy"]), (&json!("cell"), &json!(820.0)));
    gateway.stop().await;
}

#[tokio::test]
async fn an_area_and_a_network_stand_in_for_unknown_cells() {
    let gateway = with_cells().await;
    let ask = async |body: Value| gateway.post(PATH, body).await;
    let area = ask(heard(&[tower(1)])).await.expect(200);
    assert_eq!((&area["matched"], &area["fallback"]), (&json!("area"), &json!("lacf")));
    assert_eq!((&area["towers"], &area["known"]), (&json!(1), &json!(0)));
    // Two unknown cells of one area do not halve it.
    let both = ask(heard(&[tower(1), tower(2)])).await.expect(200);
    assert_eq!((&both["location"], &both["accuracy"]), (&area["location"], &area["accuracy"]));
    let gsm = json!({ "radioType": "GSM", "cellTowers": [{ "mobileCountryCode": 262,
        "mobileNetworkCode": 1, "locationAreaCode": 8, "cellId": 1 }] });
    let network = ask(gsm).await.expect(200);
    assert_eq!(
        (&network["matched"], &network["location"]["lat"]),
        (&json!("network"), &json!(51.5))
    );
    let mut strict = heard(&[tower(1)]);
    strict["fallbacks"] = json!({ "lacf": false });
    let refused = ask(strict).await.refusal(404);
    assert_eq!(refused["message"], "none of 1 cells is known");
    let mut abroad = tower(28_312_321);
    abroad["mobileCountryCode"] = json!(310);
    let refused = ask(heard(&[abroad])).await.refusal(404);
    assert_eq!(refused["message"], "none of 1 cells is known, nor their areas or networks");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_cell_is_named() {
    let gateway = Gateway::start().await;
    let refused = async |body: Value| gateway.post(PATH, body).await.refusal(400);
    let none = refused(json!({ "considerIp": true })).await;
    assert_eq!(
        (&none["field"], &none["allowed"]),
        (&json!("cellTowers"), &json!("1 to 100 cells"))
    );
    let many = refused(heard(&vec![tower(1); 101])).await;
    assert_eq!(many["message"], "101 cells are too many");
    for (field, value, allowed) in [
        ("radioType", json!("cdma"), "gsm, wcdma, lte, nr"),
        ("radioType", Value::Null, "gsm, wcdma, lte, nr"),
        ("mobileCountryCode", json!(0), "1 to 999"),
        ("mobileCountryCode", Value::Null, "1 to 999"),
        ("mobileNetworkCode", json!(1_000), "0 to 999"),
        ("locationAreaCode", json!(65_536), "0 to 65535"),
        ("cellId", json!(268_435_456_u64), "0 to 268435455"),
        ("cellId", json!(-1), "0 to 268435455"),
        ("signalStrength", json!(1), "-150 to 0"),
    ] {
        let mut wrong = tower(5);
        wrong[field] = value.clone();
        let refusal = refused(heard(&[tower(4), wrong])).await;
        assert_eq!(refusal["field"], format!("cellTowers[1].{field}"), "{value}");
        assert_eq!(refusal["allowed"], allowed, "{field} {value}");
    }
    let text = refused(json!({ "cellTowers": [{ "cellId": "5" }] })).await;
    assert_eq!(text["field"], "body");
    gateway.stop().await;
}
