//! Simulated LwM2M devices, against a server of the test's own that does what the test tells it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

mod server;

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coap::Response;
use coap::wire::{Code, ContentFormat, OptionNumber};
use lwm2m::{Path, Record, Value, codec};
use server::{PATIENCE, Server, body, decode, get, join, put, to};
use simulator::{
    Format, KeySource, Ledger, Load, Lwm2m, Plan, Protocol, Report, Retransmission, Security,
    Traffic, Version,
};

const TLV: ContentFormat = ContentFormat::LWM2M_TLV;
const SENML_JSON: ContentFormat = ContentFormat::SENML_JSON;
const SENML_CBOR: ContentFormat = ContentFormat::SENML_CBOR;
const TEXT: ContentFormat = ContentFormat::TEXT_PLAIN;
const ICCID: &str = "8988299000000000000";

/// A run on a thread of its own.
struct Run {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(Report, Ledger)>>,
}

impl Run {
    fn start(plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            let report = simulator::run_recorded(&plan, &mut ledger, |_| {}, &flag).unwrap();
            (report, ledger)
        });
        Self { stop, thread: Some(thread) }
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets it end, while the server goes on.
    fn stop(mut self, server: &mut Server) -> (Report, Ledger) {
        self.stop.store(true, Ordering::Relaxed);
        self.finish(server)
    }

    fn finish(&mut self, server: &mut Server) -> (Report, Ledger) {
        server.until(|_| self.is_over().then_some(()));
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One device that stays until the test stops it, and repeats soon.
fn plan(target: SocketAddrV4, lwm2m: Lwm2m) -> Plan {
    Plan {
        target,
        protocol: Protocol::Lwm2m,
        devices: 1,
        duration: None,
        retransmission: Retransmission {
            ack_timeout: Duration::from_millis(200),
            max_retransmit: 3,
            ..Retransmission::default()
        },
        lwm2m,
        ..Plan::default()
    }
}

fn hold() -> Lwm2m {
    Lwm2m { traffic: Traffic::Hold(PATIENCE * 2), ..Lwm2m::default() }
}

fn record(path: &str, value: Value) -> Record {
    Record::new(path.parse().unwrap(), value)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn a_device_registers_and_its_values_are_read_in_every_format() {
    let mut server = Server::start();
    let run = Run::start(plan(server.address(), Lwm2m { lifetime_seconds: Some(600), ..hold() }));
    let (peer, queries, links) = server.take_registration("a");
    assert_eq!(queries, ["lwm2m=1.1", &format!("ep={ICCID}"), "lt=600", "b=U"]);
    assert_eq!(
        links,
        "</>;rt=\"oma.lwm2m\";ct=112,</1/0>,</3/0>,</4/0>,</5/0>,</6/0>,</3303/0>,</3311/0>"
    );
    for format in [TLV, SENML_JSON, SENML_CBOR] {
        let records = server.read(peer, "/3/0", format);
        assert!(records.contains(&record("/3/0/2", text(ICCID))), "{records:?}");
        assert!(records.contains(&record("/3/0/6/1", Value::Integer(5))), "{records:?}");
        let records = server.read(peer, "/3311/0/5850", format);
        assert_eq!(records, [record("/3311/0/5850", Value::Boolean(false))]);
    }
    let answer = server.ask(peer, get("/3303/0/5700", None));
    assert_eq!((answer.content_format(), &*answer.payload), (Some(TEXT), &b"20.5"[..]));
    let answer = server.ask(peer, get("/3303/0", None));
    assert_eq!(answer.content_format(), Some(SENML_CBOR));
    let answer = server.ask(peer, get("/3303", Some(ContentFormat::LINK_FORMAT)));
    let links = String::from_utf8(answer.payload).unwrap();
    assert!(links.starts_with("</3303>,</3303/0>,</3303/0/5601>"), "{links}");
    for (request, code) in [
        (get("/9/0/0", None), Code::NOT_FOUND),
        (get("/3/0/99", None), Code::NOT_FOUND),
        (get("/3/0/4", None), Code::METHOD_NOT_ALLOWED),
        (get("/0/0/5", None), Code::UNAUTHORIZED),
        (get("/3/0", Some(TEXT)), Code::NOT_ACCEPTABLE),
        (get("/3/0", Some(ContentFormat::XML)), Code::NOT_ACCEPTABLE),
        (to(Code::POST, "/3311/0/5850"), Code::METHOD_NOT_ALLOWED),
        (
            body(to(Code::PUT, "/3311/0/5850"), ContentFormat::XML, b"1"),
            Code::UNSUPPORTED_CONTENT_FORMAT,
        ),
        (body(to(Code::PUT, "/3/0/0"), TEXT, b"x"), Code::METHOD_NOT_ALLOWED),
        (body(to(Code::PUT, "/3311/0/5850"), TEXT, b"x"), Code::BAD_REQUEST),
        (to(Code::DELETE, "/3/0"), Code::METHOD_NOT_ALLOWED),
    ] {
        let told = format!("{request:?}");
        assert_eq!(server.code(peer, request), code, "{told}");
    }
    let (report, _) = run.stop(&mut server);
    let lwm2m = report.lwm2m.unwrap();
    assert_eq!((lwm2m.registered, lwm2m.registered_at_end), (1, 1));
    assert_eq!(lwm2m.counts.answers["4.04"], 2);
    assert_eq!(lwm2m.commands_timed, 1);
}

#[test]
fn a_device_is_written_executed_and_given_instances() {
    let mut server = Server::start();
    let run = Run::start(plan(server.address(), hold()));
    let (peer, _, _) = server.take_registration("a");
    let on = [record("/3311/0/5850", Value::Boolean(true))];
    for format in [TEXT, TLV, SENML_JSON, SENML_CBOR] {
        let off = body(to(Code::PUT, "/3311/0/5850"), TEXT, b"0");
        assert_eq!(server.code(peer, off), Code::CHANGED);
        assert_eq!(server.code(peer, put("/3311/0/5850", format, &on)), Code::CHANGED);
        assert_eq!(server.read(peer, "/3311/0/5850", TLV), on);
    }
    let payload = codec::encode(TLV, &Path::instance(3311, 0), &on).unwrap();
    let update = body(to(Code::POST, "/3311/0"), TLV, &payload);
    assert_eq!(server.code(peer, update), Code::CHANGED);
    let queries = |query: &str| {
        let mut request = to(Code::PUT, "/3303/0/5700");
        for part in query.split('&') {
            request.options.push(OptionNumber::URI_QUERY, part.as_bytes()).unwrap();
        }
        request
    };
    assert_eq!(server.code(peer, queries("pmin=1&pmax=9")), Code::CHANGED);
    assert_eq!(server.code(peer, queries("pmin=x")), Code::BAD_REQUEST);
    assert_eq!(server.code(peer, to(Code::POST, "/3303/0/5605")), Code::CHANGED);

    let created = [record("/3311/4/5850", Value::Boolean(true))];
    let payload = codec::encode(SENML_JSON, &Path::object(3311), &created).unwrap();
    let answer = server.ask(peer, body(to(Code::POST, "/3311"), SENML_JSON, &payload));
    assert_eq!(answer.code, Code::CREATED);
    let update = server.request(Code::POST, "rd/a");
    assert!(String::from_utf8_lossy(&update.payload).contains("</3311/4>"));
    server.respond(update, Response::new(Code::CHANGED));
    assert_eq!(server.read(peer, "/3311/4/5850", TLV), created);
    assert_eq!(server.code(peer, to(Code::DELETE, "/3311/4")), Code::DELETED);
    let update = server.request(Code::POST, "rd/a");
    server.respond(update, Response::new(Code::CHANGED));
    assert_eq!(server.code(peer, get("/3311/4", None)), Code::NOT_FOUND);

    // A shorter lifetime is told at once; a restart registers anew.
    assert_eq!(server.code(peer, body(to(Code::PUT, "/1/0/1"), TEXT, b"300")), Code::CHANGED);
    let update = server.request(Code::POST, "rd/a");
    assert_eq!(join(update.queries()), "lt=300");
    server.respond(update, Response::new(Code::CHANGED));
    assert_eq!(server.code(peer, to(Code::POST, "/3/0/4")), Code::CHANGED);
    let (peer, ..) = server.take_registration("b");
    assert_eq!(server.code(peer, get("/3/0/0", None)), Code::CONTENT);
    let (report, _) = run.stop(&mut server);
    let counts = report.lwm2m.unwrap().counts;
    assert_eq!((counts.reregistrations, counts.restarts, counts.updates), (1, 1, 3));
}

#[test]
fn composite_operations_read_write_and_observe_many_paths() {
    let mut server = Server::start();
    let run = Run::start(plan(server.address(), hold()));
    let (peer, _, _) = server.take_registration("a");
    let paths = ["/3/0/0", "/3303/0/5700", "/9/0/0"].map(|path| path.parse().unwrap());
    for format in [SENML_JSON, SENML_CBOR] {
        let payload = codec::encode_paths(format, &paths).unwrap();
        let answer = server.ask(peer, body(to(Code::FETCH, ""), format, &payload));
        let expected =
            [record("/3/0/0", text("simgate")), record("/3303/0/5700", Value::Float(20.5))];
        assert_eq!(decode(&answer, "/"), expected);
        let values =
            [record("/3311/0/5850", Value::Boolean(true)), record("/3/0/14", text("+01:00"))];
        let payload = codec::encode(format, &Path::ROOT, &values).unwrap();
        let write = body(to(Code::IPATCH, ""), format, &payload);
        assert_eq!(server.code(peer, write), Code::CHANGED);
        assert_eq!(server.read(peer, "/3/0/14", TLV), [values[1].clone()]);
        let refused = [values[0].clone(), record("/3/0/0", text("x"))];
        let payload = codec::encode(format, &Path::ROOT, &refused).unwrap();
        let write = body(to(Code::IPATCH, ""), format, &payload);
        assert_eq!(server.code(peer, write), Code::METHOD_NOT_ALLOWED);
    }
    let payload = codec::encode_paths(SENML_CBOR, &paths[2..]).unwrap();
    let nothing = body(to(Code::FETCH, ""), SENML_CBOR, &payload);
    assert_eq!(server.code(peer, nothing), Code::NOT_FOUND);
    assert_eq!(
        server.code(peer, body(to(Code::FETCH, ""), TLV, b"x")),
        Code::UNSUPPORTED_CONTENT_FORMAT
    );

    let paths = ["/3311/0/5850", "/3/0/9"].map(|path| path.parse().unwrap());
    let payload = codec::encode_paths(SENML_CBOR, &paths).unwrap();
    let mut observe = body(to(Code::FETCH, ""), SENML_CBOR, &payload);
    observe.observe = true;
    let answer = server.ask(peer, observe);
    assert!(answer.sequence.is_some());
    assert_eq!(decode(&answer, "/").len(), 2);
    let off = body(to(Code::PUT, "/3311/0/5850"), TEXT, b"0");
    assert_eq!(server.code(peer, off), Code::CHANGED);
    let notification = server.until(Server::take_response);
    let values = decode(&notification, "/");
    assert!(values.contains(&record("/3311/0/5850", Value::Boolean(false))), "{values:?}");
    let (report, _) = run.stop(&mut server);
    let lwm2m = report.lwm2m.unwrap();
    assert_eq!((lwm2m.observations, lwm2m.observations_measured), (1, 0));
    assert_eq!(lwm2m.counts.requests["observe-composite"], 1);
}

#[test]
fn notifications_keep_to_their_periods_and_end_with_the_observation() {
    let mut server = Server::start();
    let settings = Lwm2m { change_every: Some(Duration::from_millis(50)), ..hold() };
    let run = Run::start(plan(server.address(), settings));
    let (peer, _, _) = server.take_registration("a");
    let mut observe = get("/3303/0/5700", Some(SENML_CBOR));
    observe.observe = true;
    let first = server.ask(peer, observe);
    let begun = Instant::now();
    for _ in 0..2 {
        let notification = server.until(Server::take_response);
        assert_eq!(notification.request, first.request);
        assert_eq!(decode(&notification, "/3303/0/5700").len(), 1);
    }
    // The default minimum period is a second.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
    server.endpoint.cancel(Instant::now(), first.request);
    // The next notification is answered with a reset.
    server.pass(Duration::from_millis(1_500));
    let (report, _) = run.stop(&mut server);
    let lwm2m = report.lwm2m.unwrap();
    assert_eq!((lwm2m.observations, lwm2m.counts.observations_ended), (0, 1));
    assert!(lwm2m.counts.notifications_acknowledged >= 2);
}

#[test]
fn a_registration_is_updated_renewed_and_ended() {
    let mut server = Server::start();
    let every = Duration::from_millis(100);
    let settings = Lwm2m { update_every: Some(every), deregister: true, ..hold() };
    let run = Run::start(plan(server.address(), settings));
    server.take_registration("a");
    let update = server.request(Code::POST, "rd/a");
    assert!(update.payload.is_empty() && update.queries().next().is_none());
    server.respond(update, Response::new(Code::CHANGED));
    let update = server.request(Code::POST, "rd/a");
    server.respond(update, Response::new(Code::NOT_FOUND));
    server.take_registration("b");
    let update = server.request(Code::POST, "rd/b");
    server.respond(update, Response::new(Code::CHANGED));
    run.stop.store(true, Ordering::Relaxed);
    loop {
        let request = server.until(Server::take_request);
        let is_last = request.method == Code::DELETE;
        let code = if is_last { Code::DELETED } else { Code::CHANGED };
        server.respond(request, Response::new(code));
        if is_last {
            break;
        }
    }
    let (report, _) = run.stop(&mut server);
    let lwm2m = report.lwm2m.unwrap();
    assert_eq!((lwm2m.counts.reregistrations, lwm2m.counts.deregistrations), (1, 1));
    assert_eq!(lwm2m.counts.refused["update 4.04"], 1);
}

/// What a bootstrap server writes: its own account and that of `server`.
fn accounts(bootstrap: &str, server: &str, keys: Option<(&[u8], &[u8])>) -> Vec<Vec<Record>> {
    let security = |instance: u16, uri: &str, is_bootstrap, short_id| {
        let at = |id| Path::resource(0, instance, id);
        let mode = if keys.is_some() { 0 } else { 3 };
        let mut records = vec![
            Record::new(at(0), text(uri)),
            Record::new(at(1), Value::Boolean(is_bootstrap)),
            Record::new(at(2), Value::Integer(mode)),
        ];
        if let Some((identity, key)) = keys {
            records.push(Record::new(at(3), Value::Opaque(identity.to_vec())));
            records.push(Record::new(at(5), Value::Opaque(key.to_vec())));
        }
        records.push(Record::new(at(10), Value::Integer(short_id)));
        records
    };
    vec![
        security(0, server, false, 1111),
        security(1, bootstrap, true, 2222),
        vec![
            record("/1/0/0", Value::Integer(1111)),
            record("/1/0/1", Value::Integer(86_400)),
            record("/1/0/2", Value::Integer(1)),
        ],
    ]
}

/// Carries a bootstrap out, up to its end.
fn bootstrap(server: &mut Server, format: ContentFormat, accounts: &[Vec<Record>]) {
    let request = server.request(Code::POST, "bs");
    let peer = request.peer();
    let queries = join(request.queries());
    assert!(queries.starts_with(&format!("ep={ICCID}")), "{queries}");
    server.respond(request, Response::new(Code::CHANGED));
    let answer = server.ask(peer, get("/", Some(ContentFormat::LINK_FORMAT)));
    assert!(answer.payload.starts_with(b"</>;lwm2m=1.1"), "{answer:?}");
    for path in ["", "/0", "/1"] {
        assert_eq!(server.code(peer, to(Code::DELETE, path)), Code::DELETED);
    }
    // Too early: nothing to register at.
    assert_eq!(server.code(peer, to(Code::POST, "/bs")), Code::NOT_ACCEPTABLE);
    for records in accounts {
        let instance = records[0].path.parent().unwrap();
        let write = put(&instance.to_string(), format, records);
        assert_eq!(server.code(peer, write), Code::CHANGED);
    }
    let answer = server.ask(peer, get("/0", Some(ContentFormat::LINK_FORMAT)));
    assert_eq!(answer.payload, b"</>;lwm2m=1.1,</0/0>;ssid=1111,</0/1>");
    assert_eq!(server.code(peer, to(Code::POST, "/bs")), Code::CHANGED);
}

#[test]
fn a_device_bootstraps_and_registers_where_it_is_told() {
    for (format, version, preferred) in [
        (TLV, Version::V1_0, Format::Tlv),
        (SENML_JSON, Version::V1_1, Format::SenmlJson),
        (SENML_CBOR, Version::V1_1, Format::SenmlCbor),
    ] {
        let mut boots = Server::start();
        let mut server = Server::start();
        let settings =
            Lwm2m { bootstrap: Some(boots.address()), version, format: Some(preferred), ..hold() };
        let run = Run::start(plan(boots.address(), settings));
        let uris = (format!("coap://{}", boots.address()), format!("coap://{}", server.address()));
        bootstrap(&mut boots, format, &accounts(&uris.0, &uris.1, None));
        let (peer, queries, _) = server.take_registration("a");
        assert_eq!(queries[2], "lt=86400");
        assert_eq!(server.read(peer, "/1/0/0", TLV)[0].value, Value::Integer(1111));
        let (report, _) = run.stop(&mut server);
        let counts = report.lwm2m.unwrap().counts;
        assert_eq!((counts.bootstraps_begun, counts.bootstraps_finished), (1, 1));
    }
}

#[test]
fn over_dtls_the_key_of_the_bootstrap_is_that_of_the_registration() {
    let (first, second) = (b"bootstrap-secret".as_slice(), b"0123456789abcdef".as_slice());
    let mut boots = Server::start_secure(vec![(ICCID.into(), first.to_vec())]);
    let mut server = Server::start_secure(vec![(b"told".to_vec(), second.to_vec())]);
    let security = Security {
        keys: KeySource::Shared("bootstrap-secret".parse().unwrap()),
        ..Security::default()
    };
    let settings = Lwm2m { bootstrap: Some(boots.address()), ..hold() };
    let run = Run::start(Plan {
        protocol: Protocol::Lwm2ms,
        security,
        ..plan(boots.address(), settings)
    });
    let uris = (format!("coaps://{}", boots.address()), format!("coaps://{}", server.address()));
    let keys = Some((b"told".as_slice(), second));
    bootstrap(&mut boots, SENML_CBOR, &accounts(&uris.0, &uris.1, keys));
    let (peer, _, _) = server.take_registration("a");
    assert_eq!(server.read(peer, "/3/0/2", TLV), [record("/3/0/2", text(ICCID))]);
    // A restart begins at the bootstrap server, with the first key again.
    assert_eq!(server.code(peer, to(Code::POST, "/3/0/4")), Code::CHANGED);
    bootstrap(&mut boots, TLV, &accounts(&uris.0, &uris.1, keys));
    let (peer, ..) = server.take_registration("b");
    assert_eq!(server.code(peer, get("/3/0/0", None)), Code::CONTENT);
    let (report, _) = run.stop(&mut server);
    let dtls = report.dtls.unwrap().counts;
    assert_eq!((dtls.handshakes_completed, dtls.handshakes_failed), (4, 0));
    assert_eq!(report.lwm2m.unwrap().counts.reregistrations, 1);
}

#[test]
fn a_device_in_queue_mode_is_deaf_between_its_updates() {
    let mut server = Server::start();
    let settings = Lwm2m {
        awake: Some(Duration::from_millis(200)),
        update_every: Some(Duration::from_millis(1_500)),
        ..hold()
    };
    // With another port at every wake.
    let security = Security { nat_after: Some(1), ..Security::default() };
    let run = Run::start(Plan { security, ..plan(server.address(), settings) });
    let (peer, queries, _) = server.take_registration("a");
    assert_eq!(queries[3..], ["b=U", "Q"]);
    assert_eq!(server.code(peer, get("/3/0/0", None)), Code::CONTENT);
    server.pass(Duration::from_millis(500));
    let mut unheard = get("/3/0/0", None);
    unheard.confirmable = false;
    unheard.timeout = Some(Duration::from_millis(200));
    server.endpoint.request(Instant::now(), peer, unheard).unwrap();
    server.until(|server| (server.failures > 0).then_some(()));
    let update = server.request(Code::POST, "rd/a");
    let moved = update.peer();
    assert_eq!(moved.ip(), peer.ip());
    assert_ne!(moved.port(), peer.port());
    server.respond(update, Response::new(Code::CHANGED));
    assert_eq!(server.code(moved, get("/3/0/0", None)), Code::CONTENT);
    let (report, _) = run.stop(&mut server);
    let counts = report.lwm2m.unwrap().counts;
    assert_eq!((counts.slept_through, counts.wakes), (1, 1));
}

#[test]
fn firmware_is_pulled_and_pushed_in_blocks_and_installed() {
    let mut server = Server::start();
    let settings = Lwm2m { firmware_takes: Duration::from_millis(100), ..hold() };
    let run = Run::start(plan(server.address(), settings));
    let (mut peer, _, _) = server.take_registration("a");
    let state = |server: &mut Server, peer| {
        let records = server.read(peer, "/5/0", TLV);
        let number = |path: &str| {
            let at: Path = path.parse().unwrap();
            match records.iter().find(|record| record.path == at).unwrap().value {
                Value::Integer(number) => number,
                ref other => panic!("{other:?}"),
            }
        };
        (number("/5/0/3"), number("/5/0/5"))
    };
    assert_eq!(state(&mut server, peer), (0, 0));
    let mut package = b"version=2.0\n".to_vec();
    package.extend((0..9_000_u32).map(|number| number.to_le_bytes()[0]));

    let mut observe = get("/5/0/3", Some(TLV));
    observe.observe = true;
    assert!(server.ask(peer, observe).sequence.is_some());

    // Pulled.
    let uri = format!("coap://{}/fw/2.bin?k=v", server.address());
    let write = body(to(Code::PUT, "/5/0/1"), TEXT, uri.as_bytes());
    assert_eq!(server.code(peer, write), Code::CHANGED);
    assert_eq!(state(&mut server, peer), (1, 0));
    let fetch = server.request(Code::GET, "fw/2.bin");
    assert_eq!(join(fetch.queries()), "k=v");
    let content =
        Response::new(Code::CONTENT).with_payload(ContentFormat::OCTET_STREAM, package.clone());
    server.respond(fetch, content);
    server.until(|server| (state(server, peer) == (2, 0)).then_some(()));
    server.until(|server| {
        let told = server.take_response()?;
        (decode(&told, "/5/0/3") == [record("/5/0/3", Value::Integer(2))]).then_some(())
    });
    assert_eq!(server.code(peer, to(Code::POST, "/5/0/2")), Code::CHANGED);
    assert_eq!(state(&mut server, peer).0, 3);
    (peer, ..) = server.take_registration("b");
    assert_eq!(state(&mut server, peer), (0, 1));
    assert_eq!(server.read(peer, "/3/0/3", TLV), [record("/3/0/3", text("2.0"))]);

    // Pushed.
    package[8] = b'3';
    let write = body(to(Code::PUT, "/5/0/0"), ContentFormat::OCTET_STREAM, &package);
    assert_eq!(server.code(peer, write), Code::CHANGED);
    assert_eq!(state(&mut server, peer), (2, 0));
    assert_eq!(server.code(peer, to(Code::POST, "/5/0/2")), Code::CHANGED);
    (peer, ..) = server.take_registration("c");
    assert_eq!(server.read(peer, "/3/0/3", TLV), [record("/3/0/3", text("3.0"))]);
    assert_eq!(server.code(peer, to(Code::POST, "/5/0/2")), Code::METHOD_NOT_ALLOWED);

    // Addresses that lead nowhere.
    for (uri, result) in [("http://127.0.0.1/x", 7), ("coaps://127.0.0.1:9/x", 9)] {
        let write = body(to(Code::PUT, "/5/0/1"), TEXT, uri.as_bytes());
        assert_eq!(server.code(peer, write), Code::CHANGED);
        server.until(|server| (state(server, peer) == (0, result)).then_some(()));
    }
    let (report, _) = run.stop(&mut server);
    let counts = report.lwm2m.unwrap().counts;
    assert_eq!((counts.firmware_fetched, counts.firmware_failed), (1, 2));
}

/// Many devices that only the loop knows.
fn serve(server: &mut Server, run: &mut Run, mut each: impl FnMut(f64)) -> (Report, Ledger) {
    let mut registered = 0;
    let deadline = Instant::now() + PATIENCE;
    while !run.is_over() {
        assert!(Instant::now() < deadline, "the run does not end");
        server.pass(Duration::from_millis(1));
        while let Some(request) = server.take_request() {
            let path = join(request.path());
            let peer = request.peer();
            let response = match (request.method, path.as_str()) {
                (Code::POST, "rd") => {
                    registered += 1;
                    let mut observe = get("/3303/0/5700", Some(SENML_CBOR));
                    observe.observe = true;
                    server.endpoint.request(Instant::now(), peer, observe).unwrap();
                    server::created(&registered.to_string())
                }
                (Code::POST, "dp") => {
                    let format = request.content_format().unwrap();
                    each(measured(format, "/", &request.payload));
                    Response::new(Code::CHANGED)
                }
                (Code::DELETE, _) => Response::new(Code::DELETED),
                _ => Response::new(Code::CHANGED),
            };
            server.respond(request, response);
        }
        while let Some(response) = server.take_response() {
            let format = response.content_format().unwrap();
            each(measured(format, "/3303/0/5700", &response.payload));
        }
    }
    run.finish(server)
}

fn measured(format: ContentFormat, base: &str, payload: &[u8]) -> f64 {
    let base: Path = base.parse().unwrap();
    let model = lwm2m::Model::builtin();
    let records = codec::decode(format, &base, payload, &model, 0.0).unwrap();
    let at: Path = "/3303/0/5700".parse().unwrap();
    match records.iter().find(|record| record.path == at).unwrap().value {
        Value::Float(value) => value,
        Value::Integer(value) => value as f64,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_acknowledged_of_notifications_and_sends_has_arrived_in_spite_of_losses() {
    for traffic in [Traffic::Notifications, Traffic::Sends] {
        let mut server = Server::start();
        let settings = Lwm2m {
            traffic,
            respects_pmin: false,
            lost_per_mille: 50,
            deregister: true,
            format: Some(Format::SenmlJson),
            send_paths: vec!["/6/0".parse().unwrap()],
            ..Lwm2m::default()
        };
        let mut run = Run::start(Plan {
            devices: 20,
            load: Load::Outstanding(10),
            count: Some(300),
            retransmission: Retransmission {
                ack_timeout: Duration::from_millis(50),
                max_retransmit: 8,
                ..Retransmission::default()
            },
            drain: PATIENCE,
            ..plan(server.address(), settings)
        });
        let mut seen = std::collections::HashSet::new();
        let (report, ledger) = serve(&mut server, &mut run, |value| {
            seen.insert(value.to_bits());
        });
        assert_eq!((report.counts.sent, report.counts.acknowledged), (300, 300), "{report:?}");
        assert!(ledger.acknowledged_numbers().all(|n| seen.contains(&(n as f64).to_bits())));
        let lwm2m = report.lwm2m.unwrap();
        assert!(lwm2m.counts.lost_on_purpose > 10, "{lwm2m:?}");
        assert_eq!((lwm2m.registered, lwm2m.registered_at_end), (20, 20));
    }
}

#[test]
fn registrations_and_updates_are_loads_of_their_own() {
    let mut server = Server::start();
    let settings = Lwm2m { traffic: Traffic::Nothing, ..Lwm2m::default() };
    let many = Plan {
        devices: 200,
        load: Load::Outstanding(16),
        ..plan(server.address(), settings.clone())
    };
    let mut run = Run::start(many.clone());
    let (report, _) = serve(&mut server, &mut run, |_| {});
    assert_eq!((report.counts.sent, report.counts.acknowledged), (200, 200));
    assert!(report.acknowledged_per_second > 0.0 && report.latency.p50_us > 0);
    let mut server = Server::start();
    let settings = Lwm2m { traffic: Traffic::Updates, ..settings };
    let updates =
        Plan { target: server.address(), lwm2m: settings, devices: 20, count: Some(100), ..many };
    let mut run = Run::start(updates);
    let (report, _) = serve(&mut server, &mut run, |_| {});
    assert_eq!((report.counts.sent, report.counts.acknowledged), (100, 100));
    assert_eq!(report.lwm2m.unwrap().counts.updates, 100);
}

#[test]
fn faults_happen_as_they_are_asked_for() {
    let mut server = Server::start();
    let late = Duration::from_millis(400);
    let settings = Lwm2m { late: Some(late), wrong_endpoint: true, ..hold() };
    let run = Run::start(plan(server.address(), settings));
    let (peer, queries, _) = server.take_registration("a");
    assert_eq!(queries[1], format!("ep=not-{ICCID}"));
    let begun = Instant::now();
    let answer = server.ask(peer, get("/3/0/0", None));
    assert_eq!(answer.code, Code::CONTENT);
    assert!(begun.elapsed() >= late);
    run.stop(&mut server);

    let mut server = Server::start();
    let run = Run::start(plan(server.address(), Lwm2m { mute: true, ..hold() }));
    let (peer, _, _) = server.take_registration("a");
    let mut request = get("/3/0/0", None);
    request.timeout = Some(Duration::from_millis(300));
    server.endpoint.request(Instant::now(), peer, request).unwrap();
    server.until(|server| (server.failures > 0).then_some(()));
    let (report, _) = run.stop(&mut server);
    assert_eq!(report.lwm2m.unwrap().counts.muted, 1);
}
