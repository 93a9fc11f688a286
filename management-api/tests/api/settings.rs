use std::sync::atomic::Ordering;

use management_api::{Switch, Switches};
use serde_json::json;
use state::StateFile;

use crate::gateway::{ACCOUNT, Gateway};

const SWITCH: &str = "LWM2M_PASSIVE_REPORTING";

#[tokio::test]
async fn passive_reporting_is_switched_by_either_path() {
    let gateway = Gateway::start().await;
    let handle = gateway.switches.handle(Switch::Lwm2mPassiveReporting);
    let list = gateway.get("/v1/settings/1nceos").await.expect(200);
    assert_eq!((&list["page"], &list["pageAmount"]), (&json!(1), &json!(1)));
    let setting = &list["items"][0];
    assert_eq!((&setting["name"], &setting["state"]), (&json!(SWITCH), &json!("DISABLED")));
    let path = format!("/v1/settings/1nceos/{SWITCH}");
    let on = gateway.patch(&path, json!({"state": "ENABLED"})).await.expect(200);
    assert_eq!(on, json!({"customerId": ACCOUNT, "name": SWITCH, "state": "ENABLED"}));
    assert!(handle.load(Ordering::Relaxed));
    let endpoint = "/v1/integrate/devices/endpoints/LWM2M";
    let shown = gateway.get(endpoint).await.expect(200);
    assert_eq!(shown["settings"][0]["state"], "ENABLED");
    assert!(shown["settings"][0]["description"].as_str().unwrap().contains("LwM2M"));
    // What another process opens later is what was answered.
    let state = StateFile::new(gateway.folder.path().join("state.db"));
    assert!(Switches::open(&state).unwrap().is_on(Switch::Lwm2mPassiveReporting));
    let off = json!({"active": true, "settings": [{"name": SWITCH, "state": "DISABLED"}]});
    let shown = gateway.patch(endpoint, off).await.expect(200);
    assert_eq!(
        (&shown["port"], &shown["settings"][0]["state"]),
        (&json!(5783), &json!("DISABLED"))
    );
    assert!(!handle.load(Ordering::Relaxed));
    let german = gateway.get("/v1/settings/1nceos?language=de").await.expect(200);
    assert_ne!(german["items"][0]["description"], setting["description"]);
}

#[tokio::test]
async fn other_settings_are_refused() {
    let gateway = Gateway::start().await;
    let on = json!({"state": "ENABLED"});
    gateway.patch("/v1/settings/1nceos/ADVANCED_CELL_TOWER_LOCATION", on).await.refusal(404);
    let path = format!("/v1/settings/1nceos/{SWITCH}");
    let refusal = gateway.patch(&path, json!({"state": "ON"})).await.refusal(400);
    assert_eq!(refusal["field"], "state");
    gateway.get("/v1/settings/1nceos?language=fr").await.refusal(400);
    let settings = json!({"settings": [{"name": SWITCH, "state": "ENABLED"}]});
    let endpoints = "/v1/integrate/devices/endpoints";
    let refusal = gateway.patch(&format!("{endpoints}/COAP"), settings.clone()).await.refusal(400);
    assert_eq!(refusal["field"], "settings");
    gateway.patch(&format!("{endpoints}/MQTT"), settings).await.refusal(404);
    assert!(!gateway.switches.is_on(Switch::Lwm2mPassiveReporting));
}
