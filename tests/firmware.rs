//! Firmware updates of simulated devices: pulled, pushed, and through a crash.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coap::wire::Code;
use serde_json::{Value, json};
use simulator::{BASE, Fleet, Lwm2m, Plan, Protocol, Traffic};

use crate::support::{
    Api, Gateway, LINKS, Load, Place, ScriptedDevice, eventually, foreign, one_sim, plan, random,
};

const FIRMWARE: &str = "/simgate/v1/firmware";

/// How long an update of a device may take on a slow machine.
const UPDATED_WITHIN: Duration = Duration::from_secs(90);

/// An image, and the name that its digest gives it.
struct Image {
    text: String,
    sha256: String,
}

impl Image {
    /// So many lines of 31 bytes, each another one.
    fn new(place: &Place, version: &str, lines: u64) -> Self {
        let mut text = format!("version={version}\n");
        for number in 0..lines {
            text.push_str(&format!("{number:030}\n"));
        }
        let file = place.folder.path().join("image");
        std::fs::write(&file, &text).unwrap();
        let output = foreign("sha256sum").arg(&file).output().unwrap();
        let sha256 = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
        Self { text, sha256 }
    }

    /// Uploads it.
    fn upload(&self, api: &Api, version: &str) {
        let path = format!("{FIRMWARE}/images?name=test&version={version}&sha256={}", self.sha256);
        let (code, image) = api.upload(&path, "application/octet-stream", self.text.clone());
        assert_eq!(code, 201, "{image}");
        assert_eq!(image["sha256"], self.sha256);
        assert_eq!(image["size"], self.text.len());
    }

    fn digest(&self) -> [u8; 32] {
        let byte = |place: usize| u8::from_str_radix(&self.sha256[2 * place..2 * place + 2], 16);
        std::array::from_fn(|place| byte(place).unwrap())
    }
}

/// A gateway whose devices take that image and no other.
fn world(devices: u32, lines: u64) -> (Place, Vec<String>, Gateway, Image) {
    let place = Place::with_ports_of_its_own();
    let fleet = Fleet::new(BASE, devices).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    let image = Image::new(&place, "2.0", lines);
    let iccids = (0..devices).map(|place| fleet.iccid(place).unwrap().to_string()).collect();
    (place, iccids, gateway, image)
}

/// Devices that register, and do as they are told.
fn devices(target: SocketAddr, count: u32, image: &Image) -> Load {
    let lwm2m = Lwm2m {
        traffic: Traffic::Hold(Duration::from_secs(600)),
        lifetime_seconds: Some(60),
        firmware_sha256: Some(image.digest()),
        firmware_takes: Duration::from_secs(3),
        ..Lwm2m::default()
    };
    let load = simulator::Load::Outstanding(1);
    let plan = plan(target, count, load);
    Load::start(Plan { protocol: Protocol::Lwm2m, lwm2m, drain: Duration::ZERO, ..plan })
}

fn start_job(api: &Api, iccids: &[String], image: &Image, method: &str) -> String {
    let body = json!({
        "image": image.sha256, "deviceIds": iccids, "method": method,
        "requireVersion": true,
    });
    api.post(&format!("{FIRMWARE}/jobs"), body)["id"].as_str().unwrap().to_owned()
}

/// A device of a job, with what happened to it.
fn progress(api: &Api, job: &str, iccid: &str) -> Value {
    api.get(&format!("{FIRMWARE}/jobs/{job}/devices/{iccid}/timeline"))
}

fn done(api: &Api, job: &str, iccids: &[String]) {
    let deadline = Instant::now() + UPDATED_WITHIN;
    loop {
        let state = api.get(&format!("{FIRMWARE}/jobs/{job}"));
        if state["state"] == "DONE" {
            assert_eq!(state["devices"]["succeeded"], iccids.len(), "{state}");
            return;
        }
        let timeline = || progress(api, job, &iccids[0]);
        assert!(Instant::now() < deadline, "{state} {:#}", timeline());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn stages(device: &Value) -> Vec<&str> {
    let entries = device["timeline"].as_array().unwrap().iter();
    let mut stages: Vec<&str> = entries.map(|entry| entry["stage"].as_str().unwrap()).collect();
    stages.dedup();
    stages
}

fn update_all(method: &str, delivery: &str) {
    let (place, iccids, gateway, image) = world(3, 2_000);
    let api = place.api(&gateway);
    let load = devices(gateway.lwm2m, 3, &image);
    image.upload(&api, "2.0");
    let job = start_job(&api, &iccids, &image, method);
    done(&api, &job, &iccids);
    for iccid in &iccids {
        let device = progress(&api, &job, iccid);
        assert_eq!(device["delivery"], delivery, "{device:#}");
        assert_eq!(device["attempt"], 1, "{device:#}");
        assert_eq!(device["versionAfter"], "2.0", "{device:#}");
        assert_eq!(device["bytes"], image.text.len(), "{device:#}");
        let stages = stages(&device);
        for stage in ["PROBING", "DELIVERING", "INSTALLING", "REBOOTING", "SUCCEEDED"] {
            assert!(stages.contains(&stage), "{stage}: {device:#}");
        }
    }
    let (_, report) = load.stop();
    let lwm2m = report.lwm2m.as_ref().unwrap();
    assert_eq!(lwm2m.counts.restarts, 3, "{lwm2m:?}");
    assert!(gateway.terminate().success());
}

#[test]
fn devices_fetch_an_image_and_install_it() {
    update_all("PULL", "PULL");
}

#[test]
fn devices_are_given_an_image_and_install_it() {
    update_all("PUSH", "PUSH");
}

#[test]
fn an_image_with_a_wrong_digest_is_refused_by_the_gateway_and_by_devices() {
    let (place, iccids, gateway, image) = world(1, 100);
    let api = place.api(&gateway);
    let load = devices(gateway.lwm2m, 1, &image);
    let path = format!("{FIRMWARE}/images?name=test&sha256={}", image.sha256);
    let kind = "application/octet-stream";
    assert_eq!(api.upload(&path, kind, "another text".to_owned()).0, 422);
    // The device expects the digest of the other image.
    let wrong = Image::new(&place, "3.0", 50);
    wrong.upload(&api, "3.0");
    let job = start_job(&api, &iccids, &wrong, "PULL");
    let failed = eventually("the failure of the device", || {
        let device = progress(&api, &job, &iccids[0]);
        (device["state"] == "FAILED").then_some(device)
    });
    assert!(failed["failure"].as_str().unwrap().contains("integrity"), "{failed:#}");
    let in_use = api.call("DELETE", &format!("{FIRMWARE}/images/{}", wrong.sha256), None);
    assert_eq!(in_use.0, 204, "no unfinished job uses it: {}", in_use.1);
    load.stop();
    assert!(gateway.terminate().success());
}

/// Kills the gateway in this stage, twice if it comes again, and sees the update through.
fn survive(method: &str, stage: &str, lines: u64) {
    let (place, iccids, mut gateway, image) = world(1, lines);
    let mut api = place.api(&gateway);
    let load = devices(gateway.lwm2m, 1, &image);
    image.upload(&api, "2.0");
    let job = start_job(&api, &iccids, &image, method);
    let mut kills = 0;
    while kills < 2 {
        let caught = eventually("the stage, or the end", || {
            let device = progress(&api, &job, &iccids[0]);
            (device["stage"] == stage || device["state"] == "SUCCEEDED").then_some(device)
        });
        if caught["stage"] != stage {
            break;
        }
        std::thread::sleep(Duration::from_millis(random(0, 300)));
        gateway.kill();
        kills += 1;
        gateway = place.start();
        api = place.api(&gateway);
    }
    assert!(kills > 0, "the update was over before it could be disturbed");
    done(&api, &job, &iccids);
    let device = progress(&api, &job, &iccids[0]);
    assert_eq!(device["versionAfter"], "2.0", "{device:#}");
    let (_, report) = load.stop();
    let lwm2m = report.lwm2m.as_ref().unwrap();
    assert_eq!(lwm2m.counts.restarts, 1, "it is installed once: {device:#}");
    assert_eq!(lwm2m.counts.reregistrations, 1, "after the installation: {lwm2m:?}");
    assert!(gateway.terminate().success());
}

#[test]
fn a_download_outlives_a_crash() {
    survive("PULL", "DOWNLOADING", 60_000);
}

#[test]
fn a_push_outlives_a_crash() {
    survive("PUSH", "DELIVERING", 60_000);
}

#[test]
fn an_installation_outlives_a_crash() {
    survive("PULL", "REBOOTING", 500);
}

#[test]
fn a_sleeping_device_hears_nothing_of_a_job_that_was_cancelled() {
    let iccid = "8988280666000002890";
    let mut place = Place::with_ports_of_its_own();
    place.set("SIMGATE_LWM2M_AWAKE_SECONDS", "1");
    assert!(place.import(&one_sim(iccid, "127.0.6.50")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let mut device = ScriptedDevice::new("127.0.6.50", gateway.lwm2m);
    let links = Some((LINKS, &b"</3/0>,</5/0>"[..]));
    let registered = device.ask(Code::POST, &format!("/rd?ep={iccid}&lwm2m=1.1&b=U&Q"), links);
    assert_eq!(registered.code, Code::CREATED);
    let image = Image::new(&place, "2.0", 50);
    image.upload(&api, "2.0");
    // Asleep.
    std::thread::sleep(Duration::from_secs(2));
    let job = start_job(&api, &[iccid.to_owned()], &image, "PULL");
    assert!(device.next().is_none(), "it is not asked while it sleeps");
    let (code, cancelled) = api.call("POST", &format!("{FIRMWARE}/jobs/{job}/cancel"), None);
    assert_eq!(code, 200, "{cancelled}");
    // Twice as long as the gateway takes to look.
    std::thread::sleep(Duration::from_secs(1));
    let updated = device.ask(Code::POST, &registered.path, None);
    assert_eq!(updated.code, Code::CHANGED);
    let asked: Vec<String> = std::iter::from_fn(|| device.next()).map(|heard| heard.path).collect();
    assert!(!asked.iter().any(|path| path.starts_with("/5/0/8") || path == "/3/0/3"), "{asked:?}");
    assert!(gateway.terminate().success());
}
