//! Who holds which address, as a mobile network tells it: FreeRADIUS's own client sends the
//! accounting, and the running program knows the device by it.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::{Api, Gateway, LISTENERS, Place, coap_post, eventually, foreign};

const SECRET: &str = "a shared secret of 33 characters.";
const FIRST: Sim = Sim { iccid: "8988280666000002864", imsi: "901405100002864" };
const SECOND: Sim = Sim { iccid: "8988280666000002872", imsi: "901405100002872" };

#[derive(Clone, Copy)]
struct Sim {
    iccid: &'static str,
    imsi: &'static str,
}

/// A place with two SIMs that have no address of their own, and a RADIUS server.
fn place() -> Place {
    let mut place = Place::with_ports_of_its_own();
    place.listen_to_radius(SECRET);
    let csv = format!(
        "iccid,imsi,msisdn,imei,ip,label\n{},{},,,,one\n{},{},,,,two\n",
        FIRST.iccid, FIRST.imsi, SECOND.iccid, SECOND.imsi
    );
    assert!(place.import(&csv).status.success());
    place
}

/// Sends one packet of accounting; whether it was answered.
fn account(gateway: &Gateway, secret: &str, attributes: &str) -> bool {
    account_to(gateway.address("radius"), secret, attributes)
}

fn account_to(server: SocketAddr, secret: &str, attributes: &str) -> bool {
    let mut client = foreign("radclient")
        .args(["-r", "2", "-t", "2", &server.to_string(), "acct", secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
    client.wait().unwrap().success()
}

/// The attributes of a session's report, with LTE cell 1,360,641 in tracing area 30,003 of 262-01.
fn report(status: &str, session: &str, (sim, ip): (Sim, &str)) -> String {
    format!(
        "Acct-Status-Type = {status}\nAcct-Session-Id = \"{session}\"\nNAS-Identifier = \"pgw-1\"\n\
         Framed-IP-Address = {ip}\nCalling-Station-Id = \"491700000001\"\n\
         Called-Station-Id = \"iot.example\"\n3GPP-IMSI = \"{}\"\n\
         3GPP-IMEISV = \"3520990017614823\"\n3GPP-RAT-Type = 6\n\
         3GPP-User-Location-Info = 0x8262f210753362f2100014c301\n\
         Message-Authenticator = 0x00\n",
        sim.imsi
    )
}

/// The code of the answer to a CoAP POST from `device`.
fn post(device: &UdpSocket, to: SocketAddr, message_id: u16) -> u16 {
    coap_post(device, to, message_id, None, b"hello").0
}

fn payloads(api: &Api, sim: Sim) -> usize {
    api.history(sim.iccid).len()
}

#[test]
fn a_device_is_known_by_its_session_also_after_a_sigkill() {
    let place = place();
    let gateway = place.start();
    let device = UdpSocket::bind("127.0.0.91:0").unwrap();
    assert_eq!(post(&device, gateway.coap, 1), 401, "nobody holds the address yet");
    let start = report("Start", "s1", (FIRST, "127.0.0.91"));
    assert!(!account(&gateway, "another shared secret, also long", &start));
    assert_eq!(post(&device, gateway.coap, 2), 401, "a forged report says nothing");

    assert!(account(&gateway, SECRET, &start));
    // What was answered is durable, and needs no more time than that.
    gateway.kill();
    let gateway = place.start();
    assert_eq!(post(&device, gateway.coap, 3), 204);
    let api = place.api(&gateway);
    assert_eq!(payloads(&api, FIRST), 1);

    assert!(account(&gateway, SECRET, &report("Stop", "s1", (FIRST, "127.0.0.91"))));
    assert_eq!(post(&device, gateway.coap, 4), 401, "the session has ended");
    gateway.kill();
    let gateway = place.start();
    assert_eq!(post(&device, gateway.coap, 5), 401, "and stays so");
    assert!(gateway.terminate().success());
}

#[test]
fn a_client_may_have_to_say_when_and_a_feed_says_when_it_was_heard() {
    let mut place = Place::with_ports_of_its_own();
    let server = place.listen_to_radius(SECRET);
    let listener = |skew: &str| {
        format!(
            "[{{ listen = \"{server}\", clock_skew_max = \"{skew}\", clients = [{{ name = \"core\", \
             address = \"127.0.0.0/8\", secret = \"{SECRET}\", require_event_timestamp = true }}] }}]"
        )
    };
    place.set("SIMGATE_NETWORK_RADIUS", &listener("2h"));
    let refused = place.run(&["serve"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("clock_skew_max") && said.contains("10s to 1h"), "{said}");

    place.set("SIMGATE_NETWORK_RADIUS", &listener("1m"));
    let gateway = place.start();
    let api = place.api(&gateway);
    let feed = || api.get("/simgate/v1/feeds")["items"][0].clone();
    assert_eq!((&feed()["state"], &feed()["heard"]), (&json!("WAITING"), &Value::Null));
    let start = report("Start", "s1", (FIRST, "127.0.0.91"));
    assert!(!account(&gateway, SECRET, &start), "it may be an old one");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(!account(&gateway, SECRET, &format!("{start}Event-Timestamp = {}\n", now - 90)));
    assert_eq!(feed()["state"], "WAITING");
    assert!(account(&gateway, SECRET, &format!("{start}Event-Timestamp = {now}\n")));
    assert_eq!((&feed()["state"], &feed()["reports"]), (&json!("HEARD"), &json!(1)));
    gateway.kill();

    let gateway = place.start();
    let feed = place.api(&gateway).get("/simgate/v1/feeds")["items"][0].clone();
    assert_eq!((&feed["state"], &feed["reports"]), (&json!("HEARD"), &json!(0)), "{feed}");
    assert!(gateway.terminate().success());
}

/// A gateway that only heard a network ended at once, because it had no listener for devices.
#[test]
fn a_gateway_without_listeners_for_devices_hears_the_network() {
    let mut place = Place::new();
    for kind in LISTENERS {
        place.set(&format!("SIMGATE_DEVICES_{kind}"), "[]");
    }
    let server = place.listen_to_radius(SECRET);
    let mut gateway = place.spawn(&["serve"]);
    let start = report("Start", "s1", (FIRST, "127.0.0.91"));
    eventually("an answer", || account_to(server, SECRET, &start).then_some(()));
    assert!(account_to(server, SECRET, &report("Stop", "s1", (FIRST, "127.0.0.91"))));
    assert_eq!(gateway.try_wait().unwrap(), None);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

/// Attribution is never wrong: an address that went to another SIM speaks for that one at once,
/// and the late end of the older session does not take it away.
#[test]
fn an_address_that_moves_to_another_sim_speaks_for_that_one() {
    let place = place();
    let gateway = place.start();
    let api = place.api(&gateway);
    let device = UdpSocket::bind("127.0.0.92:0").unwrap();
    assert!(account(&gateway, SECRET, &report("Start", "a", (FIRST, "127.0.0.92"))));
    assert_eq!(post(&device, gateway.coap, 1), 204);
    assert!(account(&gateway, SECRET, &report("Start", "b", (SECOND, "127.0.0.92"))));
    assert_eq!(post(&device, gateway.coap, 2), 204);
    assert!(account(&gateway, SECRET, &report("Stop", "a", (FIRST, "127.0.0.92"))));
    assert_eq!(post(&device, gateway.coap, 3), 204);
    assert_eq!((payloads(&api, FIRST), payloads(&api, SECOND)), (1, 2));

    // The server of the network starts anew: none of its sessions holds any more.
    let anew = "Acct-Status-Type = Accounting-On\nNAS-Identifier = \"pgw-1\"\n\
                Acct-Session-Id = \"x\"\nMessage-Authenticator = 0x00\n";
    assert!(account(&gateway, SECRET, anew));
    assert_eq!(post(&device, gateway.coap, 4), 401);
    assert!(gateway.terminate().success());
}
