//! Scripts: this datagram in at this time, exactly these out, and the next timer.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

use std::time::{Duration, Instant};

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{
    CancelCause, Config, Endpoint, Event, Exchange, Failure, IncomingRequest, IncomingResponse,
    Limits, ObserveAction, Output, Request, Response,
};

/// One endpoint and a clock that the script moves.
struct Script {
    endpoint: Endpoint<u8>,
    start: Instant,
    now: Instant,
}

/// What came out of one step.
struct Step {
    sent: Vec<(u8, Vec<u8>)>,
    events: Vec<Event<u8>>,
    timeout: Option<Duration>,
}

impl Script {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let start = Instant::now();
        Self { endpoint: Endpoint::new(config, 1), start, now: start }
    }

    fn at(&mut self, milliseconds: u64) {
        self.now = self.start + Duration::from_millis(milliseconds);
    }

    fn receive(&mut self, peer: u8, bytes: &[u8]) -> Step {
        self.endpoint.handle_datagram(self.now, peer, bytes);
        self.step()
    }

    fn respond(&mut self, exchange: Exchange<u8>, response: Response) -> Step {
        self.endpoint.respond(self.now, exchange, response);
        self.step()
    }

    fn timeout(&mut self) -> Step {
        self.endpoint.handle_timeout(self.now);
        self.step()
    }

    fn step(&mut self) -> Step {
        let mut step = Step { sent: Vec::new(), events: Vec::new(), timeout: None };
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => step.sent.push((peer, bytes.to_vec())),
                Output::Event(event) => step.events.push(event),
                Output::Timeout(at) => {
                    step.timeout = at.map(|at| at.saturating_duration_since(self.start));
                    let counters = self.endpoint.counters();
                    assert_eq!(counters.received, counters.accounted());
                    return step;
                }
            }
        }
    }
}

impl Step {
    #[track_caller]
    fn sends(&self, expected: &[&[u8]]) {
        assert!(self.events.is_empty(), "{:?}", self.events);
        let sent: Vec<&[u8]> = self.sent.iter().map(|(_, bytes)| &bytes[..]).collect();
        assert_eq!(sent, expected);
    }

    #[track_caller]
    fn request(mut self) -> IncomingRequest<u8> {
        assert!(self.sent.is_empty(), "{:?}", self.sent);
        match self.events.pop() {
            Some(Event::Request(request)) if self.events.is_empty() => request,
            other => panic!("no request: {other:?}"),
        }
    }

    #[track_caller]
    fn response(mut self) -> IncomingResponse<u8> {
        match self.events.pop() {
            Some(Event::Response(response)) if self.events.is_empty() => response,
            other => panic!("no response: {other:?}"),
        }
    }

    #[track_caller]
    fn is_silent(&self) {
        self.sends(&[]);
    }
}

const CHANGED: Response = Response::new(Code::CHANGED);
/// CON POST, id 0x1234, token "ab", Uri-Query "t=x", payload "hi".
const POST: &[u8] = b"\x42\x02\x12\x34ab\xd3\x02t=x\xffhi";

#[test]
fn a_confirmable_post_is_answered_once_and_its_copies_alike() {
    let mut script = Script::new();
    let request = script.receive(1, POST).request();
    assert_eq!(request.payload, b"hi");
    assert_eq!(request.queries().collect::<Vec<_>>(), [Some("t=x")]);
    script.at(2_500);
    script.receive(1, POST).is_silent();
    let answer: &[u8] = b"\x62\x44\x12\x34ab";
    script.respond(request.exchange, CHANGED).sends(&[answer]);
    script.at(6_000);
    script.receive(1, POST).sends(&[answer]);
    script.at(246_900);
    script.receive(1, POST).sends(&[answer]);
    let counters = script.endpoint.counters();
    assert_eq!((counters.requests, counters.duplicates_answered), (1, 2));
    assert_eq!(counters.duplicates_pending, 1);
    script.at(248_000);
    script.receive(1, POST).request();
}

#[test]
fn the_same_id_with_another_content_is_a_new_message() {
    let mut script = Script::new();
    script.receive(1, POST).request();
    script.receive(1, b"\x42\x02\x12\x34ab\xd3\x02t=x\xffho").request();
    script.receive(1, b"\x42\x02\x12\x34ac\xd3\x02t=x\xffhi").request();
    script.receive(2, POST).request();
}

#[test]
fn a_non_confirmable_request_gets_a_non_confirmable_response_with_an_id_of_ours() {
    let mut script = Script::new();
    let get = b"\x50\x01\xe9\x03\x3d\x03coap.os.1nce.com\x89bootstrap";
    let request = script.receive(1, get).request();
    assert_eq!(request.path().collect::<Vec<_>>(), [Some("bootstrap")]);
    let body = b"8988280666000002864,Xy3kP0sQ9aBcDeF";
    let response = Response { payload: body.to_vec(), ..Response::new(Code::CONTENT) };
    let step = script.respond(request.exchange, response);
    let answer = step.sent[0].1.clone();
    assert_eq!(answer[..2], [0x50, 0x45]);
    assert_eq!(answer[4], 0xff);
    assert!(!answer[..4].contains(&0));
    assert_eq!(&answer[5..], body);
    script.receive(1, get).sends(&[&answer]);
    script.at(146_000);
    script.receive(1, get).request();
}

#[test]
fn a_request_cut_by_a_zero_byte_is_survived() {
    let mut script = Script::new();
    script.receive(1, b"\x50\x01\x3d\x03coap.os.1nce.com\x89bootstrap").is_silent();
    assert_eq!(script.endpoint.counters().malformed_option, 1);
}

#[test]
fn an_acknowledged_request_gets_a_separate_response_until_that_is_acknowledged() {
    let mut script = Script::new();
    let exchange = script.receive(1, POST).request().exchange;
    let exchange = script.endpoint.acknowledge(exchange);
    let acknowledgement: &[u8] = b"\x60\x00\x12\x34";
    script.step().sends(&[acknowledgement]);
    script.receive(1, POST).sends(&[acknowledgement]);
    let step = script.respond(exchange, CHANGED);
    let response = step.sent[0].1.clone();
    assert_eq!((&response[..2], &response[4..]), (&b"\x42\x44"[..], &b"ab"[..]));
    let due = step.timeout.unwrap();
    assert!(due >= Duration::from_secs(2) && due < Duration::from_secs(3));
    script.at(3_000);
    script.timeout().sends(&[&response]);
    script.receive(1, &[0x60, 0, response[2], response[3]]).is_silent();
    script.at(200_000);
    script.timeout().is_silent();
    let counters = script.endpoint.counters();
    assert_eq!((counters.retransmissions, counters.timeouts), (1, 0));
}

#[test]
fn an_unacknowledged_separate_response_is_sent_five_times() {
    let mut script = Script::new();
    let exchange = script.receive(1, POST).request().exchange;
    let exchange = script.endpoint.acknowledge(exchange);
    let mut sent = script.respond(exchange, CHANGED).sent.len();
    for second in 1..100 {
        script.at(second * 1_000);
        sent += script.timeout().sent.len();
    }
    // The acknowledgement, the response, and MAX_RETRANSMIT copies.
    assert_eq!(sent, 6);
    assert_eq!(script.endpoint.counters().timeouts, 1);
}

#[test]
fn malformed_confirmable_messages_are_reset_and_others_dropped() {
    let mut script = Script::new();
    // Reserved token length, extended token, marker without payload, reserved class, content.
    for bytes in [
        &b"\x49\x01\x00\x07aaaaaaaaa"[..],
        b"\x4d\x01\x00\x07a",
        b"\x40\x01\x00\x07\xff",
        b"\x40\x21\x00\x07",
        b"\x41\x00\x00\x07a",
    ] {
        script.receive(1, bytes).sends(&[b"\x70\x00\x00\x07"]);
        let mut other = bytes.to_vec();
        other[0] |= 0x10;
        script.receive(1, &other).is_silent();
    }
    script.receive(1, b"").is_silent();
    script.receive(1, b"\x80\x01\x00\x07").is_silent();
    assert_eq!(script.endpoint.counters().malformed_token, 4);
}

#[test]
fn a_ping_is_reset_and_stray_messages_are_counted() {
    let mut script = Script::new();
    script.receive(1, b"\x40\x00\x12\x34").sends(&[b"\x70\x00\x12\x34"]);
    script.receive(1, b"\x60\x00\x12\x34").is_silent();
    script.receive(1, b"\x70\x00\x12\x34").is_silent();
    script.receive(1, b"\x50\x00\x12\x34").is_silent();
    script.receive(1, b"\x60\x01\x12\x34").is_silent();
    script.receive(1, b"\x70\x45\x12\x34").is_silent();
    script.receive(1, b"\x60\x45\x12\x34").is_silent();
    script.receive(1, b"\x50\x45\x12\x34").is_silent();
    script.receive(1, b"\x40\x45\x12\x34").sends(&[b"\x70\x00\x12\x34"]);
    let counters = script.endpoint.counters();
    assert_eq!((counters.pings, counters.ignored, counters.responses_unknown), (1, 3, 3));
    assert_eq!((counters.acknowledgements_unknown, counters.resets_unknown), (1, 1));
}

#[test]
fn options_and_methods_that_cannot_be_honoured_are_refused() {
    let mut script = Script::new();
    // Option 9 (OSCORE) with one byte.
    script.receive(1, b"\x40\x02\x00\x01\x91x").sends(&[b"\x60\x82\x00\x01\xffoption 9"]);
    script.receive(1, b"\x50\x02\x00\x01\x91x").is_silent();
    // Proxy-Uri.
    script.receive(1, b"\x40\x02\x00\x01\xd1\x16x").sends(&[b"\x60\xa5\x00\x01"]);
    // Method 0.08.
    script.receive(1, b"\x40\x08\x00\x01").sends(&[b"\x60\x85\x00\x01"]);
    // Block1 with size exponent 7.
    script.receive(1, b"\x40\x02\x00\x01\xd1\x0e\x07").sends(&[b"\x60\x80\x00\x01"]);
    let counters = script.endpoint.counters();
    assert_eq!((counters.rejected_option, counters.rejected_proxy), (2, 1));
    assert_eq!((counters.rejected_method, counters.rejected_block), (1, 1));
}

#[test]
fn an_upload_in_blocks_becomes_one_request() {
    let mut script = Script::new();
    // Block1 0/1/16, 1/1/16, 2/0/16; option 27 has delta 13 + 14.
    let block = |id: u8, value: u8, payload: &[u8]| {
        [&[0x40, 0x02, 0, id, 0xd1, 14, value, 0xff], payload].concat()
    };
    script.receive(1, &block(1, 0x08, &[b'a'; 16])).sends(&[b"\x60\x5f\x00\x01\xd1\x0e\x08"]);
    script.receive(1, &block(1, 0x08, &[b'a'; 16])).sends(&[b"\x60\x5f\x00\x01\xd1\x0e\x08"]);
    script.receive(1, &block(2, 0x18, &[b'b'; 16])).sends(&[b"\x60\x5f\x00\x02\xd1\x0e\x18"]);
    let request = script.receive(1, &block(3, 0x20, b"c")).request();
    assert_eq!(request.payload.len(), 33);
    script.respond(request.exchange, CHANGED).sends(&[b"\x60\x44\x00\x03\xd1\x0e\x20"]);
    script.receive(1, &block(3, 0x20, b"c")).sends(&[b"\x60\x44\x00\x03\xd1\x0e\x20"]);
    script.receive(1, &block(4, 0x18, &[b'b'; 16])).sends(&[b"\x60\x88\x00\x04\xd1\x0e\x18"]);
    assert_eq!(script.endpoint.counters().upload_blocks, 2);
}

#[test]
fn a_body_beyond_the_cap_is_refused_with_the_cap() {
    let limits = Limits { upload_bytes_max: 20, ..Limits::default() };
    let mut script = Script::with(Config { limits, ..Config::default() });
    let block = b"\x40\x02\x00\x01\xd1\x0e\x08\xd1\x14\x63\xffaaaaaaaaaaaaaaaa";
    let refused: &[u8] = b"\x60\x8d\x00\x01\xd1\x0e\x08\xd1\x14\x14";
    script.receive(1, block).sends(&[refused]);
}

#[test]
fn a_large_response_is_served_in_blocks() {
    let limits = Limits { block_size_exponent: 0, ..Limits::default() };
    let mut script = Script::with(Config { limits, ..Config::default() });
    let request = script.receive(1, b"\x40\x01\x00\x01\xb1a").request();
    let body = b"0123456789abcdefghij";
    let response = Response::new(Code::CONTENT).with_payload(ContentFormat::TEXT_PLAIN, *body);
    let step = script.respond(request.exchange, response);
    let first = &step.sent[0].1;
    // ETag, empty Content-Format, Block2 0/1/16, Size2 20.
    assert_eq!((first[4], &first[9..14]), (0x44, &b"\x80\xb1\x08\x51\x14"[..]));
    assert_eq!(&first[14..], b"\xff0123456789abcdef");
    let step = script.receive(1, b"\x40\x01\x00\x02\xb1a\xc1\x10");
    let second = &step.sent[0].1;
    assert_eq!(&second[9..], b"\x80\xb1\x10\xffghij");
    assert_eq!(second[4..9], first[4..9]);
    // A further block of another resource asks the owner for the body, of which it is then cut.
    let request = script.receive(1, b"\x40\x01\x00\x03\xb1b\xc1\x10").request();
    let body = Response { payload: body.to_vec(), ..Response::new(Code::CONTENT) };
    let step = script.respond(request.exchange, body);
    assert_eq!(&step.sent[0].1[9..], b"\xd1\x06\x10\xffghij");
    // A block beyond the end is refused.
    script.receive(1, b"\x40\x01\x00\x04\xb1a\xc1\x20").sends(&[b"\x60\x80\x00\x04"]);
}

#[test]
fn an_observer_gets_notifications_until_it_resets_one() {
    let mut script = Script::new();
    let mut request = script.receive(1, b"\x41\x01\x00\x01t\x60").request();
    assert_eq!(request.observe, Some(ObserveAction::Register));
    let now = script.now;
    let id = script.endpoint.accept_observation(now, &mut request.exchange).unwrap();
    let content = || Response { payload: b"x".to_vec(), ..Response::new(Code::CONTENT) };
    script.respond(request.exchange, content()).sends(&[b"\x61\x45\x00\x01t\x61\x01\xffx"]);
    script.endpoint.notify(now, id, content(), true).unwrap();
    let notification = script.step().sent.remove(0).1;
    assert_eq!((notification[0], &notification[4..]), (0x41, &b"t\x61\x02\xffx"[..]));
    // The state between is left out.
    script.endpoint.notify(now, id, Response::new(Code::VALID), true).unwrap();
    script.endpoint.notify(now, id, content(), true).unwrap();
    script.step().is_silent();
    let step = script.receive(1, &[0x60, 0, notification[2], notification[3]]);
    let next = step.sent[0].1.clone();
    assert_eq!((step.sent.len(), next[6]), (1, 3));
    let mut step = script.receive(1, &[0x70, 0, next[2], next[3]]);
    assert!(matches!(
        step.events.pop(),
        Some(Event::ObservationCancelled { cause: CancelCause::Reset, peer: 1, .. })
    ));
    assert!(script.endpoint.notify(now, id, content(), false).is_err());
}

#[test]
fn an_observer_that_does_not_acknowledge_is_dropped() {
    let mut script = Script::new();
    let mut request = script.receive(1, b"\x41\x01\x00\x01t\x60").request();
    let now = script.now;
    let id = script.endpoint.accept_observation(now, &mut request.exchange).unwrap();
    script.respond(request.exchange, CHANGED);
    script.endpoint.notify(now, id, CHANGED, true).unwrap();
    script.step();
    let mut events = Vec::new();
    for second in 1..120 {
        script.at(second * 1_000);
        events.append(&mut script.timeout().events);
    }
    assert!(matches!(
        events[..],
        [Event::ObservationCancelled { cause: CancelCause::TimedOut, .. }]
    ));
}

#[test]
fn no_response_leaves_only_the_acknowledgement() {
    let mut script = Script::new();
    // Option 258: delta 13 + 245; all classes unwanted.
    let request = script.receive(1, b"\x40\x02\x00\x01\xd1\xf5\x1a").request();
    script.respond(request.exchange, CHANGED).sends(&[b"\x60\x00\x00\x01"]);
    let request = script.receive(1, b"\x50\x02\x00\x02\xd1\xf5\x1a").request();
    script.respond(request.exchange, CHANGED).is_silent();
    script.receive(1, b"\x50\x02\x00\x02\xd1\xf5\x1a").is_silent();
    assert_eq!(script.endpoint.counters().responses_suppressed, 2);
}

#[test]
fn overload_is_answered_with_a_time_to_come_back() {
    let mut script = Script::new();
    let request = script.receive(1, POST).request();
    let busy = Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(90);
    script.respond(request.exchange, busy).sends(&[b"\x62\xa3\x12\x34ab\xd1\x01\x5a"]);
}

#[test]
fn a_command_is_answered_on_its_acknowledgement() {
    let mut script = Script::new();
    let mut request = Request::new(Code::POST);
    request.options.push(OptionNumber::URI_PATH, b"example").unwrap();
    request.payload = b"on".to_vec();
    let id = script.endpoint.request(script.now, 1, request).unwrap();
    let sent = script.step().sent.remove(0).1;
    assert_eq!((sent[0], sent[1]), (0x48, 0x02));
    assert_eq!(&sent[12..], b"\xb7example\xffon");
    // Twelve bytes: acknowledgement, 2.04, same id, same token.
    let mut answer = vec![0x68, 0x44];
    answer.extend_from_slice(&sent[2..12]);
    let response = script.receive(1, &answer).response();
    assert_eq!((response.request, response.code), (id, Code::CHANGED));
    script.receive(1, &answer).is_silent();
    assert_eq!(script.endpoint.counters().responses_unknown, 1);
}

#[test]
fn a_separate_response_is_acknowledged_and_its_copy_too() {
    let mut script = Script::new();
    script.endpoint.request(script.now, 1, Request::new(Code::GET)).unwrap();
    let sent = script.step().sent.remove(0).1;
    script.receive(1, &[0x60, 0, sent[2], sent[3]]).is_silent();
    let mut answer = vec![0x48, 0x45, 0x77, 0x77];
    answer.extend_from_slice(&sent[4..12]);
    answer.extend_from_slice(b"\xffok");
    let step = script.receive(1, &answer);
    assert_eq!(step.sent, [(1, b"\x60\x00\x77\x77".to_vec())]);
    assert_eq!(step.response().payload, b"ok");
    script.receive(1, &answer).sends(&[b"\x60\x00\x77\x77"]);
}

#[test]
fn a_command_to_a_silent_device_fails_after_its_repetitions() {
    let mut script = Script::new();
    script.endpoint.request(script.now, 1, Request::new(Code::GET)).unwrap();
    script.endpoint.request(script.now, 1, Request::new(Code::PUT)).unwrap();
    let mut sent = script.step().sent;
    let mut failed_at = None;
    for second in 1..95 {
        script.at(second * 1_000);
        let step = script.timeout();
        sent.extend(step.sent);
        let timed_out = step
            .events
            .iter()
            .any(|event| matches!(event, Event::RequestFailed { failure: Failure::TimedOut, .. }));
        if timed_out {
            failed_at = Some(second);
            break;
        }
    }
    // RFC 7252 §4.8.2: 62 s times a random factor up to 1.5. The next one follows at once.
    assert!((62..=93).contains(&failed_at.unwrap()));
    let methods: Vec<u8> = sent.iter().map(|(_, bytes)| bytes[1]).collect();
    assert_eq!(methods, [1, 1, 1, 1, 1, 3]);
}

#[test]
fn blocks_of_two_bodies_are_not_joined() {
    let mut script = Script::new();
    script.endpoint.request(script.now, 1, Request::new(Code::GET)).unwrap();
    let sent = script.step().sent.remove(0).1;
    // ETag, Block2 0/1/16.
    let block = |sent: &[u8], tag: u8, value: u8, payload: &[u8]| {
        let head = [0x68, 0x45, sent[2], sent[3]];
        [&head[..], &sent[4..12], &[0x41, tag, 0xd1, 6, value, 0xff], payload].concat()
    };
    let step = script.receive(1, &block(&sent, 7, 0x08, &[b'a'; 16]));
    let sent = step.sent[0].1.clone();
    // Block2 1/0/16 is asked for under another token.
    assert_eq!(&sent[12..], b"\xd1\x0a\x10");
    let mut step = script.receive(1, &block(&sent, 8, 0x10, b"b"));
    assert!(matches!(
        step.events.pop(),
        Some(Event::RequestFailed { failure: Failure::BodyChanged, .. })
    ));
}

#[test]
fn a_reset_fails_the_request() {
    let mut script = Script::new();
    script.endpoint.request(script.now, 1, Request::new(Code::GET)).unwrap();
    let sent = script.step().sent.remove(0).1;
    let mut step = script.receive(1, &[0x70, 0, sent[2], sent[3]]);
    assert!(matches!(
        step.events.pop(),
        Some(Event::RequestFailed { failure: Failure::Reset, .. })
    ));
}

#[test]
fn a_device_may_answer_from_another_port_if_the_owner_allows_it() {
    let endpoint: Endpoint<(u8, u16)> = Endpoint::new(Config::default(), 1);
    let mut endpoint = endpoint.with_peer_match(|left, right| left.0 == right.0);
    let now = Instant::now();
    endpoint.request(now, (1, 3_000), Request::new(Code::GET)).unwrap();
    let Output::Transmit { bytes, .. } = endpoint.poll_output() else { panic!("nothing sent") };
    let mut answer = vec![0x68, 0x44];
    answer.extend_from_slice(&bytes[2..12]);
    endpoint.handle_datagram(now, (2, 5_683), &answer);
    assert!(matches!(endpoint.poll_output(), Output::Timeout(Some(_))));
    endpoint.handle_datagram(now, (1, 5_683), &answer);
    assert!(matches!(endpoint.poll_output(), Output::Event(Event::Response(_))));
    assert!(matches!(endpoint.poll_output(), Output::Timeout(None)));
}

#[test]
fn a_notification_is_acknowledged_when_the_owner_says_so() {
    let mut script = Script::new();
    let request = Request { observe: true, ..Request::new(Code::GET) };
    let id = script.endpoint.request(script.now, 1, request).unwrap();
    let sent = script.step().sent.remove(0).1;
    let token = sent[4..12].to_vec();
    let mut first = vec![0x68, 0x45, sent[2], sent[3]];
    first.extend_from_slice(&token);
    first.extend_from_slice(b"\x61\x05\xff1");
    let response = script.receive(1, &first).response();
    assert_eq!((response.sequence, response.payload), (Some(5), b"1".to_vec()));
    assert!(response.notification.is_none());
    let notify = |id: u8, sequence: u8| {
        [&[0x48, 0x45, 0x55, id], &token[..], &[0x61, sequence, 0xff, b'2']].concat()
    };
    let response = script.receive(1, &notify(1, 6)).response();
    script.receive(1, &notify(1, 6)).is_silent();
    let _answered = script.endpoint.acknowledge(response.notification.unwrap());
    script.step().sends(&[b"\x60\x00\x55\x01"]);
    script.receive(1, &notify(1, 6)).sends(&[b"\x60\x00\x55\x01"]);
    // An old one is acknowledged and left out.
    script.receive(1, &notify(2, 4)).sends(&[b"\x60\x00\x55\x02"]);
    assert_eq!(script.endpoint.counters().responses_stale, 1);
    script.endpoint.cancel(script.now, id);
    script.receive(1, &notify(3, 7)).sends(&[b"\x70\x00\x55\x03"]);
}

#[test]
fn datagrams_beyond_the_queue_are_counted_and_dropped() {
    let limits = Limits { outputs_max: 1, ..Limits::default() };
    let mut script = Script::with(Config { limits, ..Config::default() });
    script.endpoint.handle_datagram(script.now, 1, POST);
    script.endpoint.handle_datagram(script.now, 2, POST);
    assert_eq!(script.endpoint.counters().overflowed, 1);
    script.step().request();
}
