//! A foreign device of LwM2M against the running program: Eclipse Wakaama.

use serde_json::{Value, json};

use crate::overload::accounted;
use crate::support::{Api, Gateway, Place, Wakaama, eventually, one_sim};

const ICCID: &str = "8988280666000002882";
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn world(address: &str) -> (Place, Gateway, Api) {
    let place = Place::with_ports_of_its_own();
    assert!(place.import(&one_sim(ICCID, address)).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    (place, gateway, api)
}

/// Asks something of the device, which has to succeed; the payload of its answer.
fn done(api: &Api, action: &str, address: &str, data: Option<&str>) -> String {
    let mut body = json!({ "action": action, "resourceAddress": address });
    if let Some(data) = data {
        body["data"] = data.into();
    }
    let ended = api.ended(&api.act(ICCID, "LWM2M", body));
    assert_eq!(ended["status"], "SUCCEEDED", "{action} {address}: {ended}");
    ended["resultData"]["payload"].as_str().unwrap_or_default().to_owned()
}

/// Reads `address` as JSON.
fn read(api: &Api, address: &str) -> Value {
    serde_json::from_str(&done(api, "read", address, None)).unwrap()
}

/// What the foreign device is asked and asks, from bootstrap to de-registration.
fn lead_a_whole_life(api: &Api, device: &mut Wakaama) {
    device.until("bootstrap_accepted");
    device.until("bootstrap_finish");
    device.until("registered");

    assert_eq!(read(api, "/3/0/0"), json!({ "/3/0/0": "Eclipse Wakaama" }));
    let sensor = read(api, "/3303/0");
    assert_eq!(sensor["/3303/0/5700"], 20.0, "{sensor}");
    assert_eq!(sensor["/3303/0/5701"], "Cel", "{sensor}");
    let object = read(api, "/3303");
    assert_eq!(object, sensor, "the object has one instance");

    done(api, "write", "/3311/0/5850", Some("true"));
    let written = device.until("written");
    assert_eq!((&written["path"], &written["value"]), (&json!("/3311/0/5850"), &json!(true)));
    assert_eq!(read(api, "/3311/0/5850"), json!({ "/3311/0/5850": true }));
    done(api, "write", "/3/0/14", Some("+02:00"));
    assert_eq!(device.until("written")["value"], "+02:00");
    done(api, "write-update", "/3311/0", Some(r#"{"5850":false,"5851":30}"#));
    let both = [device.until("written"), device.until("written")];
    assert!(both.iter().any(|event| event["value"] == 30), "{both:?}");
    done(api, "execute", "/3/0/4", None);
    assert_eq!(device.until("executed")["path"], "/3/0/4");
    let links = done(api, "discover", "/3303", None);
    assert!(links.contains("</3303/0/5700>"), "{links}");
    done(api, "write-attributes", "/3303/0/5700", Some("pmin=0&pmax=60"));

    done(api, "observe-start", "/3303/0/5700", None);
    device.until("observe");
    device.tell("set /3303/0/5700 23.5");
    device.until("notify");
    eventually("the notification in the history", || {
        let value = ("LWM2M".to_owned(), r#"{"/3303/0/5700":23.5}"#.to_owned());
        api.history(ICCID).contains(&value).then_some(())
    });
    done(api, "observe-end", "/3303/0/5700", None);
    let stored = api.history(ICCID).len();
    device.tell("set /3303/0/5700 24.5");

    device.tell("update");
    device.until("updated");
    device.tell("update full");
    device.until("updated");
    assert_eq!(api.history(ICCID).len(), stored, "nothing after the end of the observation");

    let refused = json!({ "action": "read", "resourceAddress": "/3303/0/5999" });
    let ended = api.ended(&api.act(ICCID, "LWM2M", refused));
    assert_eq!(ended["status"], "FAILED", "{ended}");
    assert_eq!(ended["resultData"]["code"], "404", "{ended}");

    device.tell("deregister");
    device.until("deregistered");
    let body = json!({ "action": "read", "resourceAddress": "/3/0/0" });
    let path = format!("/v1/integrate/devices/{ICCID}/actions/LWM2M");
    assert_eq!(api.call("POST", &path, Some(body)).0, 409);
}

#[test]
fn wakaama_leads_a_whole_life() {
    let (_place, gateway, api) = world("127.0.6.1");
    let bootstrap = gateway.lwm2m.to_string();
    let mut device = Wakaama::start(&[
        "--bootstrap",
        &bootstrap,
        "--bind",
        "127.0.6.1",
        "--endpoint",
        ICCID,
        "--lifetime",
        "60",
    ]);
    lead_a_whole_life(&api, &mut device);
    accounted(&gateway, "LWM2M");
    assert!(gateway.terminate().success());
}

fn set_key(api: &Api) {
    let body = json!({ "secretKey": KEY, "format": "HEX", "protocol": "LWM2M" });
    api.post(&format!("/v1/integrate/devices/{ICCID}/psk"), body);
}

/// The foreign device, over DTLS with the key that the customer has set.
fn secure(gateway: &Gateway, source: &str) -> Wakaama {
    let bootstrap = gateway.lwm2ms.to_string();
    Wakaama::start(&[
        "--bootstrap",
        &bootstrap,
        "--bind",
        source,
        "--endpoint",
        ICCID,
        "--lifetime",
        "60",
        "--psk-identity",
        ICCID,
        "--psk",
        KEY,
    ])
}

#[test]
fn wakaama_leads_a_whole_life_under_dtls() {
    let (_place, gateway, api) = world("127.0.6.2");
    set_key(&api);
    let mut device = secure(&gateway, "127.0.6.2");
    lead_a_whole_life(&api, &mut device);
    let plain = |event: &&Value| event["uri"].as_str().is_some_and(|uri| uri.contains("coap://"));
    assert_eq!(device.seen.iter().find(plain), None);
    accounted(&gateway, "LWM2M");
    assert!(gateway.terminate().success());
}

#[test]
fn each_bootstrap_gives_another_server_key_and_ends_the_session_of_the_one_before() {
    let (_place, gateway, api) = world("127.0.6.3");
    set_key(&api);
    let mut old = secure(&gateway, "127.0.6.3");
    old.until("registered");
    let mut new = secure(&gateway, "127.0.6.3");
    new.until("registered");
    let keys_of = |device: &Wakaama| -> Vec<Value> {
        device.seen.iter().filter(|event| event["event"] == "bootstrap_write").cloned().collect()
    };
    assert!(!keys_of(&old).is_empty(), "{:?}", old.seen);
    // The device of the first bootstrap holds a key that is no longer valid.
    old.tell("update");
    let refused = old.until("refused");
    assert_eq!(refused["code"], "4.01", "{refused}");
    new.tell("update");
    new.until("updated");
    assert_eq!(read(&api, "/3/0/1"), json!({ "/3/0/1": "simgate interop" }));
    assert!(gateway.terminate().success());
}

#[test]
fn a_device_with_a_wrong_key_gets_nowhere() {
    let (_place, gateway, api) = world("127.0.6.4");
    set_key(&api);
    let bootstrap = gateway.lwm2ms.to_string();
    let wrong = KEY.replace('0', "f");
    let device = Wakaama::start(&[
        "--bootstrap",
        &bootstrap,
        "--bind",
        "127.0.6.4",
        "--endpoint",
        ICCID,
        "--psk-identity",
        ICCID,
        "--psk",
        &wrong,
    ]);
    eventually("the refusal in the administration log", || {
        let page = api.get("/v1/administrationLogs?q=category:error");
        page.to_string().contains("wrong key for identity").then_some(())
    });
    drop(device);
    assert_eq!(gateway.metric("simgate_lwm2m_registrations", &[]), 0.0);
    assert!(gateway.terminate().success());
}
