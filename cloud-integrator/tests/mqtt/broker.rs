//! The MQTT sink with a real broker, mosquitto, and a foreign reader beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cloud_integrator::{
    AwsTarget, AwsTransport, ClientTls, EventType, FailureClass, MqttPurpose, MqttTarget, Outcome,
    Sink,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::reader::Reader;
use super::sinks::{PATIENCE, client, hasty, message, plain, retry, sink};
use crate::mosquitto::{CONFIG, Mosquitto, spawn};

#[tokio::test]
async fn an_event_reaches_a_foreign_reader_with_its_properties() {
    let broker = Mosquitto::open_to_all();
    let reader = Reader::start(broker.port, &["-F", "%t %q %C %P %p"]);
    let sink = sink(&plain(broker.port), hasty());
    assert_eq!(sink.deliver(vec![message(7)]).await, Outcome::Delivered);
    let id = message(7).id;
    assert_eq!(
        reader.next(),
        format!(
            "8988280666000002864/room 1 application/json webhook-id:{id} \
             {{\"received\":\"7\",\"payload\":{{\"type\":\"JSON\",\"value\":7}}}}"
        )
    );
}

#[tokio::test]
async fn templates_and_events_in_one_call_keep_their_order() {
    let broker = Mosquitto::open_to_all();
    let reader = Reader::start(broker.port, &[]);
    let target = MqttTarget {
        topics: BTreeMap::from([("TELEMETRY_DATA".to_owned(), "site/:imsi:/:topic:".to_owned())]),
        payload: Some("raw".to_owned()),
        connections: 3,
        ..plain(broker.port)
    };
    let sink = sink(&target, hasty());
    assert_eq!(sink.deliver((1..=50).map(message).collect()).await, Outcome::Delivered);
    for number in 1..=50 {
        assert_eq!(reader.next(), format!("site/901405100002864/room {number}"));
    }
}

#[tokio::test]
async fn every_event_type_has_its_documented_topic() {
    let broker = Mosquitto::open_to_all();
    let reader = Reader::start(broker.port, &["-F", "%t"]);
    let sink = sink(&plain(broker.port), hasty());
    for (event_type, topic) in [
        (EventType::Error, "error"),
        (EventType::Geofence, "geofence"),
        (EventType::Location, "location"),
        (EventType::Lifecycle, "lifecycle"),
        (EventType::TestMessage, "integration-status"),
    ] {
        let mut event = message(1);
        event.event_type = event_type;
        assert_eq!(sink.deliver(vec![event]).await, Outcome::Delivered);
        assert_eq!(reader.next(), topic);
    }
}

#[tokio::test]
async fn who_has_no_or_a_wrong_password_is_told_so() {
    let broker = Mosquitto::start("password_file {folder}/passwords", |folder| {
        let file = folder.join("passwords");
        let made = Command::new("mosquitto_passwd")
            .arg("-c")
            .arg("-b")
            .arg(file)
            .args(["u", "p"])
            .status();
        assert!(made.unwrap().success());
    });
    let with = |username: Option<&str>, password: Option<&str>| {
        let target = MqttTarget {
            username: username.map(str::to_owned),
            password: password.map(str::to_owned),
            ..plain(broker.port)
        };
        sink(&target, hasty())
    };
    assert_eq!(with(Some("u"), Some("p")).deliver(vec![message(1)]).await, Outcome::Delivered);
    for (username, password) in [(None, None), (Some("u"), Some("s3cret"))] {
        let failure = retry(with(username, password).deliver(vec![message(1)]).await);
        assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
        assert_eq!(failure.answer.as_ref().unwrap().code, 0x87);
        assert!(!failure.to_string().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_forbidden_topic_is_told_from_the_others() {
    let acl = "allow_anonymous true\nacl_file {folder}/acl";
    let broker = Mosquitto::start(acl, |folder| {
        std::fs::write(folder.join("acl"), "topic write error\n").unwrap();
    });
    let sink = sink(&plain(broker.port), hasty());
    let failure = retry(sink.deliver(vec![message(1)]).await);
    assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
    assert_eq!(failure.text, "the broker refused the event: not authorised (reason code 0x87)");
    let mut allowed = message(2);
    allowed.event_type = EventType::Error;
    assert_eq!(sink.deliver(vec![allowed]).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_gets_all_events() {
    let mut config = PathBuf::new();
    let mut broker =
        Mosquitto::start("allow_anonymous true", |folder| config = folder.join(CONFIG));
    let sink = Arc::new(sink(&plain(broker.port), hasty()));
    assert_eq!(sink.deliver(vec![message(0)]).await, Outcome::Delivered);
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    let failure = retry(sink.deliver(vec![message(1)]).await);
    let expected = [FailureClass::Transport, FailureClass::Connect];
    assert!(expected.contains(&failure.class), "{failure}");
    broker.child = spawn(&config, broker.port).expect("its port is still free");
    let reader = Reader::start(broker.port, &["-F", "%P"]);
    let start = Instant::now();
    while sink.deliver(vec![message(1)]).await != Outcome::Delivered {
        assert!(start.elapsed() < PATIENCE, "the sink does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(reader.next(), format!("webhook-id:{}", message(1).id));
}

#[tokio::test]
async fn a_test_does_not_end_the_session_of_what_it_tests() {
    let broker = Mosquitto::open_to_all();
    let client = client(hasty());
    let target = plain(broker.port);
    let sink = |purpose| client.sink(client.endpoint(&target, "an-integration").unwrap(), purpose);
    let (run, test) = (sink(MqttPurpose::Run), sink(MqttPurpose::Test));
    for number in 0..3 {
        assert_eq!(run.deliver(vec![message(number)]).await, Outcome::Delivered);
        assert_eq!(test.deliver(vec![message(number)]).await, Outcome::Delivered);
    }
}

/// A certificate authority with the certificates of a broker and of a client.
struct Pki {
    authority: String,
    client: ClientTls,
}

fn pki(folder: &Path) -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // Who has the same name as its issuer counts as its own.
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("localhost");
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("broker.pem"), certificate).unwrap();
    std::fs::write(folder.join("broker.key"), key).unwrap();
    let (certificate, key) = issue("gateway");
    let client = ClientTls {
        roots_pem: Some(authority.pem()),
        certificate_pem: Some(certificate),
        key_pem: Some(key),
    };
    Pki { authority: authority.pem(), client }
}

const TLS: &str = "allow_anonymous true\ncafile {folder}/ca.pem\ncertfile {folder}/broker.pem\n\
                   keyfile {folder}/broker.key\nrequire_certificate true";

#[tokio::test]
async fn mutual_tls_works_and_its_failures_have_classes_of_their_own() {
    let mut made = None;
    let broker = Mosquitto::start(TLS, |folder| made = Some(pki(folder)));
    let pki = made.unwrap();
    let with = |host: &str, tls: &ClientTls| {
        let url = format!("mqtts://{host}:{}", broker.port);
        sink(&MqttTarget { url, tls: tls.clone(), ..MqttTarget::default() }, hasty())
    };
    let good = with("localhost", &pki.client);
    assert_eq!(good.deliver(vec![message(1)]).await, Outcome::Delivered);
    // The same broker as AWS IoT Core, whose payloads have a limit.
    let transport =
        AwsTransport::Mqtt { tls: pki.client.clone(), port: broker.port, connections: 2 };
    let endpoint = Some("localhost".to_owned());
    let target = AwsTarget { endpoint, transport, ..AwsTarget::default() };
    let client = client(hasty());
    let aws = client.sink(client.aws_endpoint(&target, "id").unwrap(), MqttPurpose::Run);
    assert_eq!(aws.deliver(vec![message(1)]).await, Outcome::Delivered);
    let mut large = message(2);
    large.body = vec![b'x'; 131_073].into();
    let failure = retry(aws.deliver(vec![large]).await);
    assert_eq!(
        failure.to_string(),
        "too_large: payload of 131073 bytes exceeds the limit of 131072"
    );
    // Neither a missing certificate of ours nor a wrong one of the broker is passed over.
    let without = ClientTls { roots_pem: Some(pki.authority.clone()), ..ClientTls::default() };
    let failure = retry(with("localhost", &without).deliver(vec![message(1)]).await);
    assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
    let failure = retry(with("127.0.0.1", &pki.client).deliver(vec![message(1)]).await);
    assert_eq!(failure.class, FailureClass::Tls, "{failure}");
    let unknown = ClientTls { roots_pem: None, ..pki.client.clone() };
    let failure = retry(with("localhost", &unknown).deliver(vec![message(1)]).await);
    assert_eq!(failure.class, FailureClass::Tls, "{failure}");
}
