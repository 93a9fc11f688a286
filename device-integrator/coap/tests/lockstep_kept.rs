//! Scripts for owners that keep observations and large bodies themselves.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

use std::sync::Arc;
use std::time::Instant;

use coap::wire::{Code, ContentFormat, MessageRef, OptionNumber, Token};
use coap::{
    Config, Endpoint, Event, IncomingNotification, Output, Request, RequestRefused, Response,
};

struct Script {
    endpoint: Endpoint<u8>,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        let config = Config { owner_keeps_observations: true, ..Config::default() };
        Self { endpoint: Endpoint::new(config, 1), now: Instant::now() }
    }

    fn step(&mut self) -> (Vec<Vec<u8>>, Vec<Event<u8>>) {
        let (mut sent, mut events) = (Vec::new(), Vec::new());
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { bytes, .. } => sent.push(bytes.to_vec()),
                Output::Event(event) => events.push(event),
                Output::Timeout(_) => break,
            }
        }
        let counters = self.endpoint.counters();
        assert_eq!(counters.received, counters.accounted());
        (sent, events)
    }

    fn receive(&mut self, peer: u8, bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Event<u8>>) {
        self.endpoint.handle_datagram(self.now, peer, bytes);
        self.step()
    }

    #[track_caller]
    fn notification(&mut self, peer: u8, bytes: &[u8]) -> IncomingNotification<u8> {
        let (sent, mut events) = self.receive(peer, bytes);
        assert!(sent.is_empty(), "{sent:?}");
        match events.pop() {
            Some(Event::Notification(notification)) if events.is_empty() => notification,
            other => panic!("no notification: {other:?}"),
        }
    }
}

#[test]
fn the_first_response_completes_an_observation_that_the_owner_keeps() {
    let mut script = Script::new();
    let token = script.endpoint.token();
    let request = Request { observe: true, token: Some(token), ..Request::new(Code::GET) };
    script.endpoint.request(script.now, 1, request.clone()).unwrap();
    let again = script.endpoint.request(script.now, 1, request);
    assert_eq!(again, Err(RequestRefused::TokenInUse(token)));
    let sent = script.step().0.remove(0);
    assert_eq!(&sent[4..12], token.as_bytes());
    let first = [&[0x68, 0x45, sent[2], sent[3]], token.as_bytes(), b"\x61\x05\xff1"].concat();
    let (sent, mut events) = script.receive(1, &first);
    assert!(sent.is_empty());
    let Some(Event::Response(response)) = events.pop() else { panic!("no response") };
    assert_eq!(response.sequence, Some(5));

    // The endpoint knows nothing of it any more; a notification may come from elsewhere.
    let notify = [b"\x48\x45\x55\x01", token.as_bytes(), b"\x61\x06\xff2"].concat();
    let notification = script.notification(9, &notify);
    assert_eq!((notification.sequence, &notification.payload[..]), (Some(6), &b"2"[..]));
    assert_eq!(notification.exchange.token(), token);
    assert!(notification.exchange.is_confirmable() && !notification.is_partial());
    // Copies wait with it, and are acknowledged as it was.
    assert!(script.receive(9, &notify).0.is_empty());
    let _answered = script.endpoint.acknowledge(notification.exchange);
    assert_eq!(script.step().0, [b"\x60\x00\x55\x01"]);
    assert_eq!(script.receive(9, &notify).0, [b"\x60\x00\x55\x01"]);
}

#[test]
fn a_notification_that_nobody_wants_is_reset() {
    let mut script = Script::new();
    for first in [0x48_u8, 0x58] {
        let notify = [&[first, 0x45, 0x55, first][..], &[7; 8], b"\x61\x06\xff2"].concat();
        let notification = script.notification(1, &notify);
        assert_eq!(notification.exchange.is_confirmable(), first == 0x48);
        script.endpoint.reject(notification.exchange);
        let reset = vec![0x70, 0x00, 0x55, first];
        assert_eq!(script.step().0, std::slice::from_ref(&reset));
        assert_eq!(script.receive(1, &notify).0, [reset]);
    }
    // An acknowledgement that matches nothing can be no notification.
    let late = [b"\x68\x45\x55\x09", &[7; 8][..], b"\xff2"].concat();
    let (sent, events) = script.receive(1, &late);
    assert!(sent.is_empty() && events.is_empty());
    assert_eq!(script.endpoint.counters().responses_unknown, 1);
}

#[test]
fn a_non_confirmable_notification_is_taken_without_a_word() {
    let mut script = Script::new();
    let notify = [b"\x58\x45\x55\x01", &[7; 8][..], b"\x61\x06\xff2"].concat();
    let notification = script.notification(1, &notify);
    let _answered = script.endpoint.acknowledge(notification.exchange);
    assert!(script.step().0.is_empty());
    let (sent, events) = script.receive(1, &notify);
    assert!(sent.is_empty() && events.is_empty());
}

#[test]
fn a_notification_that_is_forgotten_may_come_again() {
    let mut script = Script::new();
    let notify = [b"\x48\x45\x55\x01", &[7; 8][..], b"\x61\x06\xff2"].concat();
    let notification = script.notification(1, &notify);
    script.endpoint.forget(&notification.exchange);
    assert_eq!(script.notification(1, &notify).payload, b"2");
}

#[test]
fn a_notification_says_that_more_blocks_follow() {
    let mut script = Script::new();
    let notify =
        [b"\x48\x45\x55\x01", &[7; 8][..], b"\x61\x06\xd1\x04\x08\xff", &[b'x'; 16]].concat();
    let notification = script.notification(1, &notify);
    assert!(notification.is_partial());
    assert_eq!(notification.block2.map(|block| (block.number, block.more)), Some((0, true)));
    // With a critical option that nobody knows it is refused.
    let odd = [b"\x48\x45\x55\x03", &[7; 8][..], b"\xd0\x00\xff2"].concat();
    assert_eq!(script.receive(1, &odd).0, [b"\x70\x00\x55\x03"]);
}

#[test]
fn a_request_can_end_an_observation_with_its_token() {
    let mut script = Script::new();
    let token = Token::from_u64(0x0102_0304_0506_0708);
    let mut request = Request { token: Some(token), ..Request::new(Code::GET) };
    request.options.push_uint(OptionNumber::OBSERVE, 1).unwrap();
    script.endpoint.request(script.now, 1, request).unwrap();
    let sent = script.step().0.remove(0);
    assert_eq!(&sent[4..], [1, 2, 3, 4, 5, 6, 7, 8, 0x61, 1]);
}

#[test]
fn a_part_of_a_large_body_is_served_without_keeping_it() {
    let mut script = Script::new();
    let body: Arc<[u8]> =
        (0..3_000_000_u32).map(|place| u8::try_from(place >> 10 & 0xff).unwrap()).collect();
    let mut ask = |id: u8, block: &[u8]| {
        let length = u8::try_from(block.len()).unwrap();
        let get = [&[0x41, 1, 7, id, b't'], &[0xb1, b'f'][..], &[0xc0 | length], block].concat();
        let mut events = script.receive(1, &get).1;
        let Some(Event::Request(request)) = events.pop() else { panic!("no request") };
        let response = Response {
            content_format: Some(ContentFormat::OCTET_STREAM),
            ..Response::new(Code::CONTENT)
        };
        script.endpoint.respond_part(script.now, request.exchange, response, (&body, b"v2"));
        script.step().0.remove(0)
    };
    let first = ask(1, &[0x06]);
    let first = MessageRef::parse(&first).unwrap();
    let option = |number| first.option(number).unwrap().value.to_vec();
    assert_eq!(option(OptionNumber::ETAG), b"v2");
    assert_eq!(option(OptionNumber::BLOCK2), [0x0e]);
    assert_eq!(option(OptionNumber::SIZE2), [0x2d, 0xc6, 0xc0]);
    assert_eq!(first.payload, &body[..1024]);
    // Block 2,929 of 1,024 bytes is the last one.
    let last = ask(2, &[0xb7, 0x16]);
    let last = MessageRef::parse(&last).unwrap();
    assert_eq!(last.option(OptionNumber::BLOCK2).unwrap().value, [0xb7, 0x16]);
    assert_eq!(last.payload, &body[2_929 * 1_024..]);
    let beyond = ask(3, &[0xff, 0xf6]);
    assert_eq!(MessageRef::parse(&beyond).unwrap().code, Code::BAD_REQUEST);
    assert_eq!(script.endpoint.counters().download_parts, 2);
}
