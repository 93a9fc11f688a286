//! Garbage, repetition and too much of everything: each datagram has its documented answer and is
//! counted once, and a device in good order is served meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};
use message_log::{MessageLog, Offset, ReadLimits};
use simulator::{Fleet, Payload};
use vocabulary::Event;

use crate::support::{
    Gateway, PATIENCE, Place, eventually, http_page, http_text, one_sim, plan, random,
};

const ICCID: &str = "8988280666000002866";

/// An answer that was given takes some milliseconds; a device repeats after this.
const REPEAT: Duration = Duration::from_millis(500);

/// A device's socket.
struct Device {
    socket: UdpSocket,
    to: SocketAddr,
}

/// What a datagram shall lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Code(Code),
    Reset,
    Silence,
}

/// A datagram, its answer, and how it is counted: outcome and reason.
struct Case {
    what: &'static str,
    datagram: Vec<u8>,
    expected: Expected,
    counted: (&'static str, &'static str),
}

impl Device {
    fn new(address: &str, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, to }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut answer = [0; 2_048];
        let length = self.socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    }

    fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        self.send(datagram);
        self.receive()
    }

    /// Whether nothing arrives for a while.
    fn hears_nothing(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let silent = self.socket.recv(&mut [0; 16]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

type Options<'a> = &'a [(OptionNumber, &'a [u8])];

/// A confirmable request whose token is its message id.
fn con(code: Code, id: u16, options: Options<'_>, payload: &[u8]) -> Vec<u8> {
    message(MessageType::Confirmable, code, id, (options, payload))
}

fn message(kind: MessageType, code: Code, id: u16, body: (Options<'_>, &[u8])) -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = Token::new(&id.to_be_bytes()).unwrap();
    let mut encoder = Encoder::new(&mut bytes, kind, code, MessageId(id), token);
    for (number, value) in body.0 {
        encoder = encoder.option(*number, value);
    }
    encoder.payload(body.1).unwrap();
    bytes
}

fn ping(id: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::empty(&mut bytes, MessageType::Confirmable, MessageId(id));
    bytes
}

/// One known device on `address`, and the gateway that it sends to.
fn world(address: &str) -> (Place, Gateway) {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, address)).status.success());
    let gateway = place.start();
    (place, gateway)
}

/// The messages counted for `protocol`, by outcome and reason.
pub(crate) fn counted(gateway: &Gateway, protocol: &str) -> BTreeMap<(String, String), u64> {
    let text = http_text(&format!("http://{}/metrics", gateway.api));
    let mut counts = BTreeMap::new();
    let lines = text.lines().filter(|line| line.starts_with("simgate_messages_total{"));
    for line in lines.filter(|line| line.contains(&format!("protocol=\"{protocol}\""))) {
        let label = |name: &str| {
            let value =
                line.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"'));
            value.map_or(String::new(), |(value, _)| value.to_owned())
        };
        let count = line.rsplit(' ').next().unwrap().parse().unwrap();
        let before = counts.insert((label("outcome"), label("reason")), count);
        assert_eq!(before, None, "to Prometheus the same series twice: {text}");
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// Waits until every datagram read by `protocol` has its outcome; how many there were.
pub(crate) fn accounted(gateway: &Gateway, protocol: &str) -> u64 {
    let label = format!("protocol=\"{protocol}\"");
    let mut seen = (0.0, 0);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let received = gateway.metric("simgate_datagrams_received_total", &[&label]);
        seen = (received, counted(gateway, protocol).values().sum());
        if seen.1 > 0 && seen.0 == seen.1 as f64 {
            return seen.1;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("received, and counted by outcome: {seen:?}: {:?}", counted(gateway, protocol));
}

/// Waits until exactly `expected` is counted, and nothing is left over.
fn expect_counted(gateway: &Gateway, protocol: &str, expected: &[(&str, &str, u64)]) {
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(outcome, reason, count)| (((*outcome).to_owned(), (*reason).to_owned()), *count))
        .collect();
    let total: u64 = expected.values().sum();
    let label = format!("protocol=\"{protocol}\"");
    eventually("the arrival of all datagrams", || {
        let received = gateway.metric("simgate_datagrams_received_total", &[&label]);
        (received >= total as f64).then_some(())
    });
    accounted(gateway, protocol);
    assert_eq!(counted(gateway, protocol), expected);
}

fn stored(place: &Place, gateway: &Gateway) -> Vec<String> {
    let path = format!("/v1/inspect/devices/{ICCID}/history?pageSize=25");
    let history = place.api(gateway).get(&path);
    let items = history["items"].as_array().unwrap().iter();
    items.map(|item| item["payload"].as_str().unwrap().to_owned()).collect()
}

/// What is no message of CoAP, or none that makes sense.
fn malformed() -> Vec<Case> {
    let reset = |what, datagram: &[u8], reason| Case {
        what,
        datagram: datagram.to_vec(),
        expected: Expected::Reset,
        counted: ("malformed", reason),
    };
    let silent = |what, datagram: &[u8], counted| Case {
        what,
        datagram: datagram.to_vec(),
        expected: Expected::Silence,
        counted,
    };
    vec![
        silent("nothing", &[], ("malformed", "malformed_short")),
        silent("a cut header", &[0x40, 0x02, 0x01], ("malformed", "malformed_short")),
        silent("another version", &[0x80, 0x02, 1, 1], ("malformed", "malformed_version")),
        silent("a NON of bad form", &[0x59, 0x02, 1, 2], ("malformed", "malformed_token")),
        reset("a token of 9", &[0x49, 0x02, 1, 3, 0, 0], "malformed_token"),
        reset("an extended token", &[0x4d, 0x02, 1, 4, 0, 0], "malformed_token"),
        reset("a longer extended token", &[0x4e, 0x02, 1, 5, 0, 0], "malformed_token"),
        reset("a reserved token length", &[0x4f, 0x02, 1, 6, 0, 0], "malformed_token"),
        reset("a cut token", &[0x48, 0x02, 1, 7, 0, 0], "malformed_token"),
        reset("an empty message with content", &[0x40, 0, 1, 8, 0xff, 1], "malformed_empty"),
        reset("a code of a reserved class", &[0x40, 0x21, 1, 9], "malformed_code"),
        reset("an option of length 15", &[0x40, 0x02, 1, 10, 0x1f], "malformed_option"),
        reset("a cut option", &[0x40, 0x02, 1, 11, 0xb5, b'd'], "malformed_option"),
        reset("a marker without payload", &[0x40, 0x02, 1, 12, 0xff], "malformed_payload"),
        silent("an acknowledgement of nothing", &[0x60, 0, 1, 13], ("control", "")),
        silent("a reset of nothing", &[0x70, 0, 1, 14], ("control", "")),
        silent("a reset with a request", &[0x70, 0x02, 1, 15], ("control", "")),
        Case { counted: ("control", ""), ..reset("a ping", &ping(0x0110), "") },
        Case { counted: ("control", ""), ..reset("an answer", &[0x40, 0x45, 1, 17], "") },
    ]
}

fn refused(
    what: &'static str,
    datagram: Vec<u8>,
    code: Code,
    counted: (&'static str, &'static str),
) -> Case {
    Case { what, datagram, expected: Expected::Code(code), counted }
}

/// A request with one option.
fn post(id: u16, number: OptionNumber, value: &[u8]) -> Vec<u8> {
    con(Code::POST, id, &[(number, value)], b"x")
}

/// Requests that are refused for what they ask.
fn refused_requests() -> Vec<Case> {
    use OptionNumber as O;
    let long = [b"t=".as_slice(), &[b'a'; 254]].concat();
    let bad = |what, datagram| refused(what, datagram, Code::BAD_REQUEST, ("malformed", "request"));
    let of_option = ("malformed", "rejected_option");
    let of_format = ("malformed", "format");
    let of_proxy = ("malformed", "rejected_proxy");
    let of_method = ("malformed", "rejected_method");
    let unknown = post(0x0201, OptionNumber(65_001), b"");
    let compressed = post(0x0202, O::CONTENT_FORMAT, &11_050_u16.to_be_bytes());
    let proxied = post(0x0203, O::PROXY_URI, b"coap://example.com/");
    let elsewhere = post(0x0204, O::URI_PATH, b"nowhere");
    let put = con(Code::PUT, 0x0205, &[], b"x");
    let new_method = con(Code::new(0, 31), 0x0206, &[], b"x");
    vec![
        bad("a topic too long", post(0x0210, O::URI_QUERY, &long)),
        bad("a topic of other characters", post(0x0211, O::URI_QUERY, b"t=a-b")),
        bad("a topic with //", post(0x0212, O::URI_QUERY, b"t=a//b")),
        bad("an empty topic", post(0x0213, O::URI_QUERY, b"t=")),
        bad("no payload", con(Code::POST, 0x0214, &[], b"")),
        refused("an unknown critical option", unknown, Code::BAD_OPTION, of_option),
        refused("a compressed payload", compressed, Code::UNSUPPORTED_CONTENT_FORMAT, of_format),
        refused("a request to forward", proxied, Code::PROXYING_NOT_SUPPORTED, of_proxy),
        refused("another path", elsewhere, Code::NOT_FOUND, ("control", "")),
        refused("another method", put, Code::METHOD_NOT_ALLOWED, ("control", "")),
        refused("an unknown method", new_method, Code::METHOD_NOT_ALLOWED, of_method),
    ]
}

/// A block of 1,024 bytes.
fn block(id: u16, number: u32, size1: Option<&[u8]>) -> Vec<u8> {
    // More blocks follow; size exponent 6 (RFC 7959 §2.2).
    let value = (number << 4 | 1 << 3 | 6).to_be_bytes();
    let mut options = vec![(OptionNumber::BLOCK1, &value[1..])];
    options.extend(size1.map(|size| (OptionNumber::SIZE1, size)));
    con(Code::POST, id, &options, &[7; 1_024])
}

/// Requests that are refused for their size, or for the order of their blocks.
fn refused_bodies() -> Vec<Case> {
    let too_large = Code::REQUEST_ENTITY_TOO_LARGE;
    let incomplete = Code::REQUEST_ENTITY_INCOMPLETE;
    let counted = ("malformed", "rejected_block");
    let announced = block(0x0301, 0, Some(&65_537_u32.to_be_bytes()[1..]));
    let long = con(Code::POST, 0x0303, &[], &[7; 3_000]);
    vec![
        refused("an announced size above the limit", announced, too_large, counted),
        refused("a block beyond the limit", block(0x0302, 64, None), too_large, counted),
        refused("a datagram beyond the limit", long, too_large, ("malformed", "too_long")),
        refused("a block out of order", block(0x0304, 3, None), incomplete, counted),
        refused("the first block", block(0x0305, 0, None), Code::CONTINUE, ("control", "")),
        refused("a block left out", block(0x0306, 2, None), incomplete, counted),
    ]
}

/// The answer to `case`; what follows an unanswered datagram is the answer to a ping.
fn answer_to(device: &Device, case: &Case, number: u16) -> Vec<u8> {
    device.send(&case.datagram);
    if case.expected == Expected::Silence {
        device.send(&ping(0x7000 + number));
    }
    device.receive()
}

fn check_answer(case: &Case, number: u16, bytes: &[u8]) {
    let answer = MessageRef::parse(bytes).unwrap();
    let what = case.what;
    let id = match case.expected {
        Expected::Silence => MessageId(0x7000 + number),
        _ => MessageId(u16::from_be_bytes([case.datagram[2], case.datagram[3]])),
    };
    assert_eq!(answer.id, id, "{what}: {answer:?}");
    match case.expected {
        Expected::Code(code) => {
            assert_eq!(answer.message_type, MessageType::Acknowledgement, "{what}");
            assert_eq!(answer.code, code, "{what}");
            assert_eq!(answer.token.as_bytes(), &case.datagram[4..6], "{what}");
        }
        Expected::Reset | Expected::Silence => {
            assert_eq!(answer.message_type, MessageType::Reset, "{what}");
            assert_eq!(bytes.len(), 4, "{what}");
        }
    }
    let text = std::str::from_utf8(answer.payload).unwrap();
    match (answer.code, case.counted.1) {
        (Code::BAD_REQUEST, "request") => {
            assert!(text.contains("topic") || text == "payload is empty", "{what}: {text}");
        }
        (Code::REQUEST_ENTITY_TOO_LARGE, _) => {
            let size = answer.option(OptionNumber::SIZE1).unwrap().as_uint();
            assert_eq!(size, Some(65_536), "{what}");
        }
        _ => {}
    }
}

#[test]
fn bad_coap_gets_its_documented_answer_and_is_counted() {
    let (place, gateway) = world("127.0.0.90");
    let device = Device::new("127.0.0.90", gateway.coap);
    let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let cases: Vec<Case> =
        malformed().into_iter().chain(refused_requests()).chain(refused_bodies()).collect();
    for (number, case) in (0..).zip(&cases) {
        check_answer(case, number, &answer_to(&device, case, number));
        *expected.entry(case.counted).or_default() += 1;
        // The ping that ends the wait for an answer.
        *expected.entry(("control", "")).or_default() +=
            u64::from(case.expected == Expected::Silence);
    }
    let good = device.ask(&con(Code::POST, 0x0400, &[], b"good"));
    assert_eq!(MessageRef::parse(&good).unwrap().code, Code::CHANGED);
    *expected.entry(("stored", "")).or_default() += 1;
    let expected: Vec<_> = expected.iter().map(|((a, b), count)| (*a, *b, *count)).collect();
    expect_counted(&gateway, "COAP", &expected);
    assert_eq!(stored(&place, &gateway), ["Z29vZA=="], "only the good one is stored");
    assert!(gateway.terminate().success());
}

#[test]
fn plain_datagrams_are_never_answered() {
    let (place, gateway) = world("127.0.0.91");
    let device = Device::new("127.0.0.91", gateway.udp);
    let stranger = Device::new("127.0.0.92", gateway.udp);
    device.send(&[]);
    device.send(&[7; 1_501]);
    device.send(&[7; 9_000]);
    device.send(&ping(1));
    stranger.send(b"who am I");
    let outcomes = [
        ("malformed", "empty", 1),
        ("malformed", "too_long", 2),
        ("stored", "", 1),
        ("unauthorised", "", 1),
    ];
    expect_counted(&gateway, "UDP", &outcomes);
    assert!(device.hears_nothing() && stranger.hears_nothing());
    // The bytes of the ping, in base 64: to this port they are a payload like any other.
    assert_eq!(stored(&place, &gateway), ["QAAAAQ=="]);
}

#[test]
fn a_body_limit_holds_for_single_datagrams_too() {
    let mut place = Place::new();
    let listener = "[{ listen = \"127.0.0.1:0\", body_bytes_max = 100 }]";
    place.set("SIMGATE_DEVICES_COAP", listener);
    assert!(place.import(&one_sim(ICCID, "127.0.0.93")).status.success());
    let gateway = place.start();
    let device = Device::new("127.0.0.93", gateway.coap);
    let bytes = device.ask(&con(Code::POST, 1, &[], &[7; 101]));
    let answer = MessageRef::parse(&bytes).unwrap();
    assert_eq!(answer.code, Code::REQUEST_ENTITY_TOO_LARGE);
    assert_eq!(answer.option(OptionNumber::SIZE1).unwrap().as_uint(), Some(100));
    let bytes = device.ask(&con(Code::POST, 2, &[], &[7; 100]));
    assert_eq!(MessageRef::parse(&bytes).unwrap().code, Code::CHANGED);
    expect_counted(&gateway, "COAP", &[("malformed", "too_long", 1), ("stored", "", 1)]);
}

#[test]
fn a_retransmission_is_one_message_with_one_answer() {
    let (place, gateway) = world("127.0.0.94");
    let device = Device::new("127.0.0.94", gateway.coap);
    let first = con(Code::POST, 1, &[], b"one");
    let answer = device.ask(&first);
    assert_eq!(MessageRef::parse(&answer).unwrap().code, Code::CHANGED);
    assert_eq!(device.ask(&first), answer, "the same answer again");
    let other = con(Code::POST, 1, &[], b"two");
    assert_eq!(MessageRef::parse(&device.ask(&other)).unwrap().code, Code::CHANGED);
    let non = message(MessageType::NonConfirmable, Code::POST, 2, (&[], b"non"));
    let answer = device.ask(&non);
    assert_eq!(MessageRef::parse(&answer).unwrap().message_type, MessageType::NonConfirmable);
    assert_eq!(device.ask(&non), answer);
    let refused = con(Code::POST, 3, &[(OptionNumber::URI_QUERY, b"t=//")], b"x");
    assert_eq!(device.ask(&refused), device.ask(&refused));
    expect_counted(
        &gateway,
        "COAP",
        &[("stored", "", 3), ("duplicate", "", 3), ("malformed", "request", 1)],
    );
    // "non", "two" and "one" in base 64.
    assert_eq!(stored(&place, &gateway), ["bm9u", "dHdv", "b25l"]);
}

#[test]
fn an_unproved_address_gets_little_and_costs_no_memory() {
    let place = Place::new();
    let gateway = place.start();
    let stranger = Device::new("127.0.0.95", gateway.coap);
    let first_block = [(OptionNumber::BLOCK1, &[0x0e][..])];
    let long = [(OptionNumber::URI_PATH, &[b'a'; 255][..])];
    let unknown = [(OptionNumber(65_001), &b"x"[..])];
    let query = [(OptionNumber::URI_QUERY, &b"t=//"[..])];
    let requests = [
        con(Code::POST, 1, &[], b"x"),
        con(Code::POST, 2, &[], b""),
        con(Code::GET, 3, &[], b""),
        con(Code::POST, 4, &first_block, &[7; 1_024]),
        con(Code::PUT, 5, &long, b"x"),
        con(Code::POST, 6, &unknown, b"x"),
        con(Code::POST, 7, &query, b"x"),
        con(Code::GET, 8, &[(OptionNumber::URI_PATH, b".well-known")], b""),
        message(MessageType::NonConfirmable, Code::POST, 9, (&[], b"x")),
        vec![0x40, 0x02, 0, 10],
        ping(11),
        vec![0x4f, 0x02, 0, 12],
    ];
    for request in &requests {
        let answer = stranger.ask(request);
        // RFC 9175 §2.4, item 3: three times the request, or 136 bytes.
        let limit = 136.max(3 * request.len());
        assert!(answer.len() <= limit, "{} bytes to {request:?}", answer.len());
        assert_eq!(stranger.ask(request).len(), answer.len());
        let code = MessageRef::parse(&answer).unwrap().code;
        assert!([Code::UNAUTHORIZED, Code::EMPTY].contains(&code), "{code:?} to {request:?}");
    }
    accounted(&gateway, "COAP");
    let blocks = gateway.metric("simgate_coap_total", &["event=\"upload_blocks\""]);
    assert_eq!(blocks, 0.0, "no block of a stranger is kept");
}

/// Sends random bytes and damaged requests to both ports until it is stopped; how many.
fn spoil(gateway: &Gateway, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (coap, udp) = (gateway.coap, gateway.udp);
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        // A device with a SIM, and a stranger.
        let senders = ["127.0.0.96", "127.0.0.97"].map(|from| Device::new(from, coap));
        let query = [(OptionNumber::URI_QUERY, &b"t=some/topic"[..])];
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            for device in &senders {
                let id = u16::try_from(sent % 60_000).unwrap();
                let mut damaged = con(Code::POST, id, &query, &[7; 40]);
                for _ in 0..random(1, 4) {
                    let place = usize::try_from(random(0, damaged.len() as u64)).unwrap();
                    damaged[place] ^= 1 << random(0, 8);
                }
                damaged.truncate(usize::try_from(random(0, 1 + damaged.len() as u64)).unwrap());
                let noise: Vec<u8> =
                    (0..random(0, 1_600)).map(|_| random(0, 256).to_le_bytes()[0]).collect();
                device.send(&damaged);
                device.send(&noise);
                device.socket.send_to(&noise, udp).unwrap();
                sent += 3;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        sent
    })
}

/// Bytes that are no HTTP, on the port of the API.
fn spoil_api(gateway: &Gateway) {
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(gateway.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let noise: Vec<u8> = (0..2_000).map(|_| random(0, 256).to_le_bytes()[0]).collect();
        // The server may hang up while we still talk.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
}

#[test]
fn garbage_on_every_port_keeps_no_device_from_being_served() {
    let place = Place::new();
    let fleet = Fleet::new(Ipv4Addr::new(127, 40, 0, 1), 20).unwrap();
    place.import_fleet(&fleet);
    assert!(place.import(&one_sim(ICCID, "127.0.0.96")).status.success());
    let gateway = place.start();
    let mut quiet = plan(gateway.coap, 20, simulator::Load::PerSecond(200));
    quiet.base = fleet.address(0);
    quiet.duration = Some(Duration::from_millis(1_500));
    quiet.payload = Payload::Counter { bytes: 8 };
    let run =
        |plan: &simulator::Plan| simulator::run(plan, |_| {}, &AtomicBool::new(false)).unwrap();
    let before = run(&quiet);

    let stop = Arc::new(AtomicBool::new(false));
    let spoiler = spoil(&gateway, &stop);
    // Five times the devices' own rate.
    let noisy = simulator::Plan { garbage_per_second: 1_000, first_number: 1 << 32, ..quiet };
    let after = run(&noisy);
    spoil_api(&gateway);
    stop.store(true, Ordering::Relaxed);
    let spoiled = spoiler.join().unwrap();

    for report in [&before, &after] {
        let counts = &report.counts;
        assert!(counts.sent > 100, "{report:?}");
        assert_eq!(counts.acknowledged, counts.sent, "{report:?}");
        assert_eq!((counts.lost, report.unanswered, counts.rejected_total()), (0, 0, 0));
    }
    assert!(spoiled > 300 && after.counts.garbage_sent > 300, "{spoiled} {after:?}");
    println!(
        "p99 {} us alone, {} us beside {spoiled} + {} pieces of garbage",
        before.latency.p99_us, after.latency.p99_us, after.counts.garbage_sent
    );
    accounted(&gateway, "COAP");
    accounted(&gateway, "UDP");
    assert_eq!(http_page(&format!("http://{}/health", gateway.api)).0, 200);
    assert!(gateway.terminate().success());
}

/// Devices that send `each` messages at once and repeat what is not answered.
struct Burst {
    devices: Vec<Device>,
    requests: HashMap<(usize, u16), Vec<u8>>,
    answers: HashMap<(usize, u16), Vec<u8>>,
}

impl Burst {
    fn new(fleet: &Fleet, to: SocketAddr) -> Self {
        let device = |index| Device::new(&fleet.address(index).to_string(), to);
        let devices: Vec<Device> = (0..fleet.devices()).map(device).collect();
        for device in &devices {
            device.socket.set_nonblocking(true).unwrap();
        }
        Self { devices, requests: HashMap::new(), answers: HashMap::new() }
    }

    fn send(&mut self, ids: std::ops::Range<u16>) {
        for id in ids {
            for (index, device) in self.devices.iter().enumerate() {
                let request = con(Code::POST, id, &[], &payload(index, id));
                device.send(&request);
                self.requests.insert((index, id), request);
            }
        }
    }

    fn finish(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut repeat = Instant::now() + REPEAT;
        while self.answers.len() < self.requests.len() {
            assert!(Instant::now() < deadline, "some are never answered");
            self.receive();
            if Instant::now() > repeat {
                repeat = Instant::now() + REPEAT;
                let open = self.requests.iter().filter(|(key, _)| !self.answers.contains_key(key));
                for ((index, _), request) in open {
                    self.devices[*index].send(request);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2_048];
        for (index, device) in self.devices.iter().enumerate() {
            while let Ok(length) = device.socket.recv(&mut buffer) {
                let id = u16::from_be_bytes([buffer[2], buffer[3]]);
                let answer = buffer[..length].to_vec();
                let first = self.answers.entry((index, id)).or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "a copy got another answer");
            }
        }
    }

    /// The payloads that were acknowledged; every other is told when to come back.
    fn acknowledged(&self) -> HashSet<Vec<u8>> {
        let mut acknowledged = HashSet::new();
        for ((index, id), bytes) in &self.answers {
            let answer = MessageRef::parse(bytes).unwrap();
            if answer.code == Code::CHANGED {
                acknowledged.insert(payload(*index, *id));
                continue;
            }
            assert_eq!(answer.code, Code::SERVICE_UNAVAILABLE);
            let max_age = answer.option(OptionNumber::MAX_AGE).unwrap().as_uint().unwrap();
            assert!((30..=120).contains(&max_age), "{max_age} s");
        }
        acknowledged
    }
}

fn payload(device: usize, id: u16) -> Vec<u8> {
    format!("{device}:{id}").into_bytes()
}

#[test]
fn a_full_queue_says_so_and_loses_nothing_that_it_took() {
    let mut place = Place::new();
    place.set("SIMGATE_DATA_QUEUE_RECORDS_MAX", "64");
    let fleet = Fleet::new(Ipv4Addr::new(127, 41, 0, 1), 40).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    let mut burst = Burst::new(&fleet, gateway.coap);
    // A fast disk may keep up with one burst.
    for round in 0..10 {
        burst.send(round * 100..(round + 1) * 100);
        burst.finish();
        if burst.acknowledged().len() < burst.requests.len() {
            break;
        }
    }
    let acknowledged = burst.acknowledged();
    let shed = burst.requests.len() - acknowledged.len();
    assert!(shed > 0, "the queue was never full");
    accounted(&gateway, "COAP");
    let counts = counted(&gateway, "COAP");
    let count = |outcome: &str, reason: &str| {
        counts.get(&(outcome.to_owned(), reason.to_owned())).copied().unwrap_or(0)
    };
    assert_eq!(count("stored", ""), acknowledged.len() as u64);
    assert_eq!(count("shed", "queue_full"), shed as u64);
    assert!(gateway.terminate().success());
    assert_eq!(payloads_of(&place), acknowledged, "what was acknowledged, and nothing else");
}

/// All payloads in the log of a stopped gateway, each once.
fn payloads_of(place: &Place) -> HashSet<Vec<u8>> {
    let log = MessageLog::open_read_only(&place.messages()).unwrap();
    let (mut next, mut payloads) = (Offset::BEGINNING, HashSet::new());
    loop {
        let batch = log.read(next, ReadLimits { records: 10_000, bytes: 1 << 24 }).unwrap();
        for record in &batch.records {
            let (kind, device) = (record.kind.code(), record.device.as_u64());
            if let Ok(Event::Telemetry(telemetry)) = Event::decode(kind, device, &record.body) {
                assert!(payloads.insert(telemetry.payload.to_vec()), "stored twice");
            }
        }
        if batch.next == next {
            return payloads;
        }
        next = batch.next;
    }
}
