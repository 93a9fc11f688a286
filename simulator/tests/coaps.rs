//! Simulated devices over DTLS, against a server of the same house on a real socket.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use coap::wire::{Code, Encoder, MessageRef, MessageType};
use dtls::{Config, Psk, UnknownRecords};
use simulator::{
    Answer, KeySource, Load, Plan, Protocol, Report, Retransmission, RunError, SecureResponder,
    SecureResponderOptions, Security, SessionCounts, SuiteName,
};

const KEY: &str = "0123456789abcdef";
const LOCALHOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

fn options() -> SecureResponderOptions {
    SecureResponderOptions {
        address: LOCALHOST,
        dtls: Config::default(),
        key: Psk::new(KEY.as_bytes().to_vec()).expect("16 bytes"),
        lost_per_mille: 0,
    }
}

fn start(options: SecureResponderOptions) -> SecureResponder {
    SecureResponder::start(options, |_, _| Answer::Piggybacked(Code::CHANGED)).expect("a free port")
}

fn shared_key() -> Security {
    Security { keys: KeySource::Shared(KEY.parse().expect("16 bytes")), ..Security::default() }
}

/// Twenty devices that repeat soon.
fn plan(target: SocketAddrV4, count: u64, security: Security) -> Plan {
    Plan {
        target,
        protocol: Protocol::Coaps,
        devices: 20,
        load: Load::Outstanding(8),
        count: Some(count),
        duration: Some(Duration::from_secs(30)),
        retransmission: Retransmission {
            ack_timeout: Duration::from_millis(50),
            max_retransmit: 8,
            ..Retransmission::default()
        },
        security,
        ..Plan::default()
    }
}

fn try_run(plan: &Plan) -> Result<Report, RunError> {
    simulator::run(plan, |_| {}, &AtomicBool::new(false))
}

fn finish(plan: &Plan) -> (Report, SessionCounts) {
    let report = try_run(plan).expect("a run");
    let counts = report.dtls.as_ref().expect("sessions were used").counts.clone();
    (report, counts)
}

#[test]
fn sessions_are_opened_once_and_requests_answered_with_every_suite() {
    for suite in [SuiteName::Ccm8, SuiteName::Ccm, SuiteName::Gcm, SuiteName::Cbc] {
        let responder = start(options());
        let security = Security { suite: Some(suite), ..shared_key() };
        let (report, counts) = finish(&plan(responder.address(), 500, security));
        assert_eq!((report.counts.acknowledged, report.counts.retransmitted), (500, 0));
        assert_eq!((counts.handshakes_begun, counts.handshakes_full), (20, 20));
        assert_eq!((counts.sessions_with_cid, counts.records_discarded), (0, 0));
        let dtls = report.dtls.unwrap();
        assert!(dtls.opening_seconds > 0.0 && dtls.handshakes_per_second == 0.0, "{dtls:?}");
        assert!(dtls.handshake_latency.p50_us > 0);
    }
}

#[test]
fn losses_of_handshakes_and_of_requests_are_recovered() {
    let responder = start(SecureResponderOptions { lost_per_mille: 40, ..options() });
    // A lost flight of a handshake comes again after one second (RFC 6347 §4.2.4.1).
    let lossy = Plan { devices: 10, ..plan(responder.address(), 400, shared_key()) };
    let (report, counts) = finish(&lossy);
    assert_eq!((report.counts.acknowledged, report.counts.lost), (400, 0));
    assert!(report.counts.retransmitted > 5, "{report:?}");
    assert_eq!(counts.handshakes_failed, 0);
    assert_eq!(counts.handshakes_begun, 10 + counts.sessions_lost_by_silence);
}

#[test]
fn separate_answers_are_acknowledged_in_the_session() {
    let responder =
        SecureResponder::start(options(), |_, _| Answer::Separate(Code::CREATED)).unwrap();
    let (report, _) = finish(&plan(responder.address(), 100, shared_key()));
    assert_eq!((report.counts.acknowledged, report.counts.separate), (100, 100));
}

#[test]
fn a_session_for_each_request_is_abbreviated_after_the_first() {
    let responder = start(options());
    let security = Security { requests_per_session: Some(1), resume: true, ..shared_key() };
    let (report, counts) = finish(&plan(responder.address(), 200, security.clone()));
    assert_eq!((report.counts.acknowledged, counts.handshakes_completed), (200, 200));
    assert_eq!((counts.handshakes_full, counts.handshakes_abbreviated), (20, 180));
    assert!(report.dtls.unwrap().handshakes_per_second > 0.0);
    assert!(responder.counters().closed_by_peer >= 180, "{:?}", responder.counters());
    let full = Security { resume: false, requests_per_session: Some(5), ..security };
    let (report, counts) = finish(&plan(responder.address(), 200, full));
    assert_eq!(report.counts.acknowledged, 200);
    // Devices whose answers are late send less than others, and the last session of each may end
    // early.
    assert!((40..40 + 20).contains(&counts.handshakes_full), "{counts:?}");
}

#[test]
fn handshakes_alone_are_counted_and_paced_like_messages() {
    let responder = start(options());
    let security = Security { requests_per_session: Some(0), ..shared_key() };
    let closed_loop = plan(responder.address(), 300, security);
    let (report, counts) = finish(&closed_loop);
    assert_eq!((report.counts.sent, counts.handshakes_begun), (0, 300));
    assert_eq!((counts.handshakes_full, counts.handshakes_failed), (300, 0));
    // The server's own close_notify is expected.
    assert_eq!(counts.records_discarded, 0);
    let open_loop = Plan {
        load: Load::PerSecond(200),
        duration: Some(Duration::from_millis(500)),
        count: None,
        ..closed_loop
    };
    let (report, counts) = finish(&open_loop);
    assert_eq!(counts.handshakes_completed + report.behind, 100);
}

#[test]
fn a_connection_id_survives_changes_of_address() {
    let responder = start(options());
    let security = Security { connection_id: true, nat_after: Some(2), ..shared_key() };
    let (report, counts) = finish(&plan(responder.address(), 400, security));
    assert_eq!((report.counts.acknowledged, counts.handshakes_completed), (400, 20));
    assert_eq!((counts.sessions_with_cid, counts.address_changes), (20, 200));
    assert!(responder.counters().moved >= 180, "{:?}", responder.counters());
    assert_eq!(counts.sessions_lost_by_silence + counts.sessions_lost_by_alert, 0);
}

#[test]
fn without_a_connection_id_a_change_of_address_ends_the_session() {
    for (unknown_records, is_told) in
        [(UnknownRecords::Silence, false), (UnknownRecords::Alert, true)]
    {
        let dtls = Config { unknown_records, ..Config::default() };
        let responder = start(SecureResponderOptions { dtls, ..options() });
        let security = Security { nat_after: Some(5), ..shared_key() };
        let (report, counts) = finish(&plan(responder.address(), 160, security));
        assert_eq!((report.counts.acknowledged, report.counts.lost), (160, 0));
        let (by_silence, by_alert) =
            (counts.sessions_lost_by_silence, counts.sessions_lost_by_alert);
        let (lost, none) = if is_told { (by_alert, by_silence) } else { (by_silence, by_alert) };
        // A device notices a change with its next request, which the last ones do not send.
        assert!(lost > 0 && (lost..=lost + 20).contains(&counts.address_changes), "{counts:?}");
        assert_eq!((counts.handshakes_completed, none), (20 + lost, 0));
    }
}

#[test]
fn a_wrong_key_is_told_and_the_run_ends() {
    let key = Psk::new(b"another key".to_vec()).unwrap();
    let responder = start(SecureResponderOptions { key, ..options() });
    let hopeless = Plan {
        devices: 3,
        duration: Some(Duration::from_millis(1_700)),
        drain: Duration::from_millis(100),
        ..plan(responder.address(), 3, shared_key())
    };
    let (report, counts) = finish(&hopeless);
    assert_eq!((report.counts.acknowledged, counts.handshakes_completed), (0, 0));
    assert!(counts.handshakes_failed >= 3, "{counts:?}");
    assert_eq!(counts.handshake_failures["alert"], counts.handshakes_failed);
    let mut table = Vec::new();
    report.write_table(&mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("failed: alert"), "{table}");
}

#[test]
fn a_silent_server_ends_no_run_late() {
    let silent = UdpSocket::bind(LOCALHOST).unwrap();
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, silent.local_addr().unwrap().port());
    let security = Security { requests_per_session: Some(1), ..shared_key() };
    let plan = Plan {
        duration: Some(Duration::from_millis(300)),
        drain: Duration::from_millis(100),
        ..plan(target, 1_000, security)
    };
    let started = Instant::now();
    let (report, counts) = finish(&plan);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!((counts.handshakes_completed, report.counts.retransmitted), (0, 0));
    assert_eq!(report.dtls.unwrap().handshakes_unfinished, 8);
}

/// Tells a key to each device but every fifth.
fn tell_keys() -> SocketAddrV4 {
    let socket = UdpSocket::bind(LOCALHOST).expect("loopback and our own requests");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("loopback and our own requests");
    let address = SocketAddrV4::new(
        Ipv4Addr::LOCALHOST,
        socket.local_addr().expect("loopback and our own requests").port(),
    );
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            let request =
                MessageRef::parse(&bytes[..length]).expect("loopback and our own requests");
            let last = peer
                .to_string()
                .split(['.', ':'])
                .nth(3)
                .expect("loopback and our own requests")
                .parse::<u32>()
                .expect("loopback and our own requests");
            let (code, payload) = match last % 5 {
                0 => (Code::UNAUTHORIZED, "no SIM of ours".to_owned()),
                _ => (Code::CONTENT, format!("89882990000000000{last:02},{KEY}")),
            };
            let mut answer = Vec::new();
            let kind = MessageType::Acknowledgement;
            let encoder = Encoder::new(&mut answer, kind, code, request.id, request.token);
            encoder.payload(payload.as_bytes()).expect("loopback and our own requests");
            socket.send_to(&answer, peer).expect("loopback and our own requests");
        }
    });
    address
}

#[test]
fn devices_without_a_key_take_no_part_and_are_named() {
    let responder = start(options());
    let keys = KeySource::Bootstrap(Some(tell_keys()));
    let (report, counts) =
        finish(&plan(responder.address(), 200, Security { keys, ..Security::default() }));
    assert_eq!((report.counts.acknowledged, counts.handshakes_completed), (200, 16));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["dtls"]["bootstrap"]["told"], 16);
    assert_eq!(json["dtls"]["bootstrap"]["failed"]["4.01"], 4);
    let first = json["dtls"]["bootstrap"]["first_failure"].as_str().unwrap();
    assert!(first.starts_with("127.16.0.") && first.ends_with(": 4.01 no SIM of ours"), "{first}");
    assert_eq!(json["dtls"]["handshakes_full"], 16);
}

#[test]
fn a_request_that_fits_no_record_is_refused_before_the_run() {
    let payload = simulator::Payload::Random { bytes: 2_000 };
    let long = Plan { payload, ..plan(LOCALHOST, 1, shared_key()) };
    let error = try_run(&long).unwrap_err().to_string();
    assert_eq!(error, "request bytes over DTLS of 2065 is not allowed, allowed: 1 to 2048");
}
