//! Alerts by e-mail, to a foreign mail server with STARTTLS and a password.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::support::{Api, PATIENCE, Place, eventually, one_sim, own_port};

const ICCID: &str = "8988280666000002864";

struct MailServer {
    child: Child,
    /// It ends when this does.
    _stdin: ChildStdin,
    lines: Receiver<String>,
    port: u16,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl MailServer {
    fn start(place: &Place) -> Self {
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (file(place, "mail.pem"), file(place, "mail.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let python = std::env::var_os("SIMGATE_TEST_PYTHON")
            .expect("SIMGATE_TEST_PYTHON is not set: run ./test.sh");
        let port = own_port().port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/mail_server.py");
        let mut child = Command::new(python)
            .args([script, &port.to_string(), &certificate, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "ready");
        Self { _stdin: child.stdin.take().unwrap(), child, lines, port }
    }

    fn mail(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }
}

fn file(place: &Place, name: &str) -> String {
    place.folder.path().join(name).to_str().unwrap().to_owned()
}

fn place_with_mail(password: &str) -> (Place, MailServer) {
    let mut place = Place::new();
    let server = MailServer::start(&place);
    for (key, value) in [
        ("HOST", "localhost"),
        ("PORT", &server.port.to_string()),
        ("USER", "alerts"),
        ("PASSWORD", password),
        ("FROM", "simgate <alerts@example.com>"),
    ] {
        place.set(&format!("SIMGATE_MAIL_{key}"), value);
    }
    let roots = format!("[\"{}\"]", file(&place, "mail.pem"));
    place.set("SIMGATE_INTEGRATIONS_EXTRA_ROOTS", &roots);
    place.set("SIMGATE_INTEGRATIONS_RETRY_WAITS", "[\"100ms\", \"200ms\"]");
    (place, server)
}

fn alerts(api: &Api, recipients: &[&str]) -> String {
    let body = json!({ "name": "alerts", "recipients": recipients,
        "eventTypes": [{ "type": "GEOFENCE" }] });
    let made = api.post("/simgate/v1/integrations/email", body);
    assert_eq!((&made["type"], &made["recipients"]), (&json!("EMAIL"), &json!(recipients)));
    made["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_alert_is_a_mail_and_one_that_is_refused_a_dead_letter() {
    let (place, server) = place_with_mail("the password");
    assert!(place.import(&one_sim(ICCID, "127.0.0.96")).status.success());
    let gateway = place.start();
    let api = place.api(&gateway);
    let value = |byte| json!({ "byte": byte, "bytelength": 8, "type": "float" });
    api.template(&json!({ "sense": [
        { "asset": "a", "custom_type": "location_lat", "value": value(0) },
        { "asset": "b", "custom_type": "location_long", "value": value(8) },
    ]}));
    let good = alerts(&api, &["later@example.com", "Anyone <b@example.com>"]);
    let refused = alerts(&api, &["nobody@example.com"]);
    let circle =
        json!({ "name": "d\u{e9}p\u{f4}t", "type": "circle", "center": [10, 50], "radius": 500 });
    api.post("/v1/locate/geofences", circle);
    let tested = api.post(&format!("/simgate/v1/integrations/email/{good}/test"), json!({}));
    // The first attempt is put off, and a test has one.
    assert_eq!(tested["testStatus"], "FAILURE", "{tested}");
    assert!(
        tested["message"].as_str().unwrap().contains("the mail server answered 451"),
        "{tested}"
    );
    let tested = api.post(&format!("/simgate/v1/integrations/email/{good}/test"), json!({}));
    assert_eq!(tested["testStatus"], "SUCCESS", "{tested}");
    assert_eq!(server.mail()["subject"], "[simgate] test of \"alerts\"");

    let payload = [50_f64.to_be_bytes(), 10_f64.to_be_bytes()].concat();
    let device = UdpSocket::bind("127.0.0.96:0").unwrap();
    device.send_to(&payload, gateway.udp).unwrap();
    let mail = server.mail();
    let subject = format!("[simgate] device {ICCID} entered \"d\u{e9}p\u{f4}t\"");
    assert_eq!(mail["subject"], subject.as_str());
    assert_eq!(mail["to"], json!(["later@example.com", "b@example.com"]));
    assert_eq!((&mail["tls"], &mail["auto"]), (&json!(true), &json!("auto-generated")));
    assert_eq!(mail["from"], "simgate <alerts@example.com>");
    let id = mail["id"].as_str().unwrap();
    assert!(id.starts_with("<msg_") && id.ends_with("@example.com>"), "{id}");
    assert!(mail["text"].as_str().unwrap().contains("position    50, 10"), "{mail}");

    let letter = eventually("the dead letter", || {
        let page = api.get(&format!("/simgate/v1/integrations/{refused}/deadLetters"));
        page["items"][0].is_object().then(|| page["items"][0].clone())
    });
    assert!(letter.to_string().contains("550"), "{letter}");
    assert!(gateway.terminate().success());
}

#[test]
fn what_cannot_be_mailed_is_said() {
    let (place, _server) = place_with_mail("another password");
    let gateway = place.start();
    let api = place.api(&gateway);
    let id = alerts(&api, &["a@example.com"]);
    let tested = api.post(&format!("/simgate/v1/integrations/email/{id}/test"), json!({}));
    assert!(tested["message"].as_str().unwrap().contains("535"), "{tested}");
    let refused = |body: Value| {
        let (status, answer) = api.call("POST", "/simgate/v1/integrations/email", Some(body));
        (status, answer["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
    };
    let wants = |kind: &str| json!([{ "type": kind }]);
    let body =
        json!({ "name": "x", "recipients": ["a@b.c"], "eventTypes": wants("TELEMETRY_DATA") });
    assert_eq!(refused(body), (400, "eventTypes".to_owned()));
    let body = json!({ "name": "x", "recipients": ["a"], "eventTypes": wants("ERROR") });
    assert_eq!(refused(body), (400, "recipients".to_owned()));
    assert!(gateway.terminate().success());

    let bare = Place::new();
    let gateway = bare.start();
    let api = bare.api(&gateway);
    let body = json!({ "name": "x", "recipients": ["a@b.c"], "eventTypes": wants("ERROR") });
    let (status, answer) = api.call("POST", "/simgate/v1/integrations/email", Some(body));
    assert_eq!(status, 400);
    assert!(answer["errors"][0]["message"].as_str().unwrap().contains("[mail]"), "{answer}");
}
