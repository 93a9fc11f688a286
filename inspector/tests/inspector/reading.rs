//! The reader: notices exactly once, state and amounts across restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::{LONGER, TEMPERATURE, World, iccid};
use inspector::{
    FIRST_CONTACT, InsightsQuery, Interval, PayloadText, STATE_BYTES_MAX, STATE_TOO_LARGE,
    TRANSLATION_FAILED, state_to_json,
};
use proptest::prelude::*;
use vocabulary::{Protocol, Timestamp};

#[test]
fn the_first_message_of_a_device_is_said_once() {
    let world = World::new();
    let mut reader = world.reader();
    world.send(1, Protocol::Udp, b"a");
    world.send(1, Protocol::Coap, b"b");
    world.send(2, Protocol::Udp, b"c");
    assert_eq!(reader.step().unwrap(), 3);
    let notices = world.notices();
    assert_eq!(notices.len(), 2);
    assert_eq!(notices[0].message, FIRST_CONTACT);
    let text = "New Device successfully registered for the first time - 8988280666000000001";
    assert_eq!(notices[0].description, text);
    assert_eq!(notices[0].iccid, Some(iccid(1)));
    assert_eq!(notices[0].payload_reference, None);
    let json = serde_json::to_value(&notices[0]).unwrap();
    assert_eq!(json["type"], "LIFECYCLE");
    assert_eq!(json["category"], "info");
    assert_eq!(json["traceId"], notices[0].id.trace());
    assert_eq!(json["ip"], "10.0.0.1");
}

#[test]
fn the_last_state_is_there_at_once_and_after_a_restart() {
    let mut world = World::new();
    world.create_template("t", TEMPERATURE, &[Protocol::Udp]);
    let mut reader = world.reader();
    world.send(1, Protocol::Udp, &[0, 20]);
    let last = world.send(1, Protocol::Udp, &[0, 21]);
    world.send(1, Protocol::Coap, b"Hello");
    reader.step().unwrap();
    let before = world.inspector.telemetry_state(iccid(1), None).unwrap();
    reader.flush().unwrap();
    drop(reader);
    world.restart_inspector();
    let after = world.inspector.telemetry_state(iccid(1), None).unwrap();
    assert_eq!(before, after);
    let json = state_to_json(&after);
    assert_eq!(json["UDP"]["payload"]["t"], 21);
    assert_eq!(json["UDP"]["id"], last.to_string());
    assert_eq!(json["COAP"]["payload"], "SGVsbG8=");
    assert_eq!(json["COAP"]["topic"], "room/1");
    let coap = world.inspector.telemetry_state(iccid(1), Some(Protocol::Coap)).unwrap();
    assert_eq!(coap.len(), 1);
    assert_eq!(world.inspector.telemetry_state(iccid(9), None).unwrap(), []);
}

#[test]
fn what_cannot_be_state_is_said_and_the_state_before_stays() {
    let world = World::new();
    let mut reader = world.reader();
    world.send(1, Protocol::Udp, b"kept");
    world.send(1, Protocol::Udp, &vec![7; STATE_BYTES_MAX + 1]);
    world.create_template("t", LONGER, &[Protocol::Udp]);
    world.send(1, Protocol::Udp, &[1, 2]);
    reader.step().unwrap();
    let notices = world.notices();
    let texts: Vec<&str> = notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(texts, [FIRST_CONTACT, STATE_TOO_LARGE, TRANSLATION_FAILED]);
    assert_eq!(notices[1].description, "state of 8193 bytes exceeds the limit of 8192");
    assert_eq!(notices[2].description, "Asset path:t, Error: can't extract [1:3] from 2 bytes");
    let state = world.inspector.telemetry_state(iccid(1), None).unwrap();
    assert_eq!(state[0].payload, PayloadText::Base64("a2VwdA==".to_owned()));
}

#[test]
fn a_thread_follows_the_log_and_writes_at_its_end() {
    let mut world = World::new();
    let thread = world.reader().spawn().unwrap();
    world.send(1, Protocol::Udp, b"a");
    for _ in 0..500 {
        if world.inspector.progress().messages == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.inspector.progress().messages, 1);
    thread.stop().unwrap();
    world.restart_inspector();
    assert_eq!(world.inspector.telemetry_state(iccid(1), None).unwrap().len(), 1);
    assert_eq!(world.reader().step().unwrap(), 0);
}

/// What happens to a gateway.
#[derive(Debug, Clone)]
enum Act {
    /// A device sends so many bytes; the template needs two.
    Send {
        device: u64,
        bytes: usize,
    },
    Step,
    Flush,
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..4_u64, 0..4_usize).prop_map(|(device, bytes)| Act::Send { device, bytes }),
        2 => Just(Act::Step),
        1 => Just(Act::Flush),
        1 => Just(Act::Crash),
    ];
    proptest::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn each_notice_is_said_once_in_order_and_amounts_are_exact(acts in acts()) {
        let mut world = World::new();
        world.create_template("t", TEMPERATURE, &[Protocol::Udp]);
        let mut reader = world.reader();
        let mut expected = Vec::new();
        let mut messages = 0;
        let mut heard = std::collections::HashSet::new();
        for act in acts {
            match act {
                Act::Send { device, bytes } => {
                    world.send(device, Protocol::Udp, &vec![1; bytes]);
                    messages += 1;
                    if heard.insert(device) {
                        expected.push((FIRST_CONTACT, iccid(device)));
                    }
                    if bytes < 2 {
                        expected.push((TRANSLATION_FAILED, iccid(device)));
                    }
                }
                Act::Step => { reader.step().unwrap(); }
                Act::Flush => reader.flush().unwrap(),
                Act::Crash => {
                    drop(reader);
                    world.restart_inspector();
                    reader = world.reader();
                }
            }
        }
        while reader.step().unwrap() > 0 {}
        reader.flush().unwrap();
        let notices = world.notices();
        let said: Vec<_> =
            notices.iter().map(|item| (item.message.as_str(), item.iccid.unwrap())).collect();
        prop_assert_eq!(said, expected);
        let insights = world.inspector.insights(InsightsQuery {
            device: None, protocol: None, from: None, until: None, interval: Interval::Day,
        }).unwrap();
        prop_assert_eq!(insights.iter().map(|item| item.amount).sum::<u64>(), messages);
    }

    #[test]
    fn insights_equal_a_naive_count(
        sent in proptest::collection::vec((0..3_u64, any::<bool>(), 0..72_i64 * 60), 0..60),
        from in 0..72_i64,
        span in 0..72_i64,
        hourly in any::<bool>(),
        device in proptest::option::of(0..3_u64),
    ) {
        let world = World::new();
        let mut reader = world.reader();
        let start = Timestamp::from_millis(1_790_000_000_000);
        let at = |minutes: i64| Timestamp::from_millis(start.as_millis() + minutes * 60_000);
        let protocol = |coap: bool| if coap { Protocol::Coap } else { Protocol::Udp };
        for (device, coap, minutes) in &sent {
            world.send_at(*device, protocol(*coap), b"x", at(*minutes));
        }
        while reader.step().unwrap() > 0 {}
        reader.flush().unwrap();
        let interval = if hourly { Interval::Hour } else { Interval::Day };
        let width = if hourly { 3_600_000 } else { 86_400_000 };
        let slot = |time: Timestamp| time.as_millis().div_euclid(width);
        let (from, until) = (at(from * 60), at((from + span) * 60));
        let mut naive = BTreeMap::new();
        for (sender, coap, minutes) in &sent {
            let inside = (slot(from)..=slot(until)).contains(&slot(at(*minutes)));
            if inside && device.is_none_or(|only| only == *sender) {
                *naive.entry((slot(at(*minutes)), protocol(*coap))).or_insert(0_u64) += 1;
            }
        }
        let insights = world.inspector.insights(InsightsQuery {
            device: device.map(iccid),
            protocol: None,
            from: Some(from),
            until: Some(until),
            interval,
        }).unwrap();
        let found: Vec<_> =
            insights.iter().map(|item| ((slot(item.time), item.protocol), item.amount)).collect();
        prop_assert_eq!(found, naive.into_iter().collect::<Vec<_>>());
    }
}
