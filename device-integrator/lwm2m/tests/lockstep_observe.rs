//! Scripts of observations: begin, notify, order, sleep, a new address, a restart, the end.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

#[expect(dead_code, reason = "each test binary uses a part")]
mod scene;

use std::sync::Arc;

use coap::wire::{Code, ContentFormat, MessageType, Token};
use lwm2m::{
    Contact, Event, Link, Model, Operation, Origin, Registry, RegistryLimits, Server, Verdict,
};
use scene::{
    Scene, answer, config, describe, iccid, notify, observe, path, read, respond, sim, token_of,
};

const LINKS: &str = "</1/0>,</3/0>,</3303/0>";
const PATH: &str = "/3303/0/5700";

#[test]
fn an_observation_begins_with_its_first_value() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 3, observe(PATH));
    step.sends(&["CON 0.01 /3303/0/5700 observe=0 accept=11542"]);
    assert!(scene.registry.snapshot(iccid(1)).unwrap().observations.is_empty());
    let first = answer(&step.sent[0].1, Code::CONTENT, Some(7), Some((0, b"21.5")));
    let step = scene.receive(sim(1), &first);
    assert!(matches!(
        step.events[..],
        [
            Event::SaveSoon { .. },
            Event::Uplink { ticket: None, origin: Origin::Command, .. },
            Event::CommandEnded { .. }
        ]
    ));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":21.5}"#]);
    let observations = scene.registry.snapshot(iccid(1)).unwrap().observations;
    assert_eq!(observations.len(), 1);
    assert_eq!(*observations[0].paths, [path(PATH)]);
    // The same again refreshes it with the same token (RFC 7641 §3.3.1).
    let again = scene.command(sim(1), 4, observe(PATH));
    assert_eq!(token_of(&again.sent[0].1), observations[0].token.to_be_bytes());
    scene.receive(sim(1), &answer(&again.sent[0].1, Code::CONTENT, Some(1), Some((0, b"1"))));
    assert_eq!(scene.registry.observations(), 1);
}

#[test]
fn an_observation_that_the_device_refuses_is_forgotten() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 3, observe(PATH));
    let token = token_of(&step.sent[0].1);
    // 2.05 without Observe: a value, and no observation.
    let first = answer(&step.sent[0].1, Code::CONTENT, None, Some((0, b"21.5")));
    let step = scene.receive(sim(1), &first);
    assert_eq!(step.ended(), [(3, r#"2.05 {"/3303/0/5700":21.5}"#.to_owned())]);
    assert_eq!(scene.registry.observations(), 0);
    scene.receive(sim(1), &notify(9, &token, 2, b"2")).sends(&["RST 0.00"]);
    let step = scene.command(sim(1), 4, observe(PATH));
    scene.receive(sim(1), &answer(&step.sent[0].1, Code::NOT_FOUND, None, None));
    assert_eq!(scene.registry.observations(), 0);
}

/// An observation that was asked for again was forgotten when the device did not answer, though it
/// went on to notify.
#[test]
fn an_observation_outlives_a_refresh_without_an_answer() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=6000&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    // Silence, a reset, and a move.
    scene.command(sim(1), 2, observe(PATH));
    assert_eq!(scene.pass(0, 0..120).ended().len(), 1);
    let asked = scene.command(sim(1), 3, observe(PATH)).sent[0].1.clone();
    let step = scene.receive(sim(1), &[0x70, 0, asked[2], asked[3]]);
    assert_eq!(step.ended().len(), 1);
    scene.command(sim(1), 4, observe(PATH));
    let moved = sim(1).at(0, "10.9.9.9:5683");
    assert_eq!(scene.ask(moved, Code::POST, &location, None).ended().len(), 1);
    assert_eq!(scene.registry.snapshot(iccid(1)).unwrap().observations.len(), 1);
    let step = scene.receive(moved, &notify(9, &token, 2, b"22"));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    // What the device itself says, counts.
    let asked = scene.command(moved, 5, observe(PATH)).sent[0].1.clone();
    let step = scene.receive(moved, &answer(&asked, Code::NOT_FOUND, None, None));
    assert!(step.state().is_some());
    assert_eq!(scene.registry.observations(), 0);
}

#[test]
fn a_notification_is_acknowledged_once_it_is_durable() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let datagram = notify(9, &token, 2, b"22");
    let step = scene.receive(sim(1), &datagram);
    step.sends(&[]);
    let [Event::Uplink { ticket: Some(ticket), exchange: Some(exchange), origin, .. }] =
        &step.events[..]
    else {
        panic!("{step:?}");
    };
    assert_eq!((exchange.message_id, exchange.confirmable), (9, true));
    assert_eq!(exchange.token.as_bytes(), token);
    assert_eq!(*origin, Origin::Notification);
    // A copy waits, too.
    let copy = scene.receive(sim(1), &datagram);
    assert!(copy.sent.is_empty() && copy.events.is_empty());
    scene.settle(0, *ticket, Verdict::Done).sends(&["ACK 0.00"]);
    scene.receive(sim(1), &datagram).sends(&["ACK 0.00"]);
}

#[test]
fn what_cannot_be_kept_is_repeated_by_the_device() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let datagram = notify(9, &token, 2, b"22");
    let ticket = scene.receive(sim(1), &datagram).ticket();
    let full = Verdict::Unavailable { retry_after_seconds: 3, too_fast: false };
    scene.settle(0, ticket, full).sends(&[]);
    scene.at(3);
    // The copy is taken as if it were the first.
    let step = scene.receive(sim(1), &datagram);
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
    let ticket = scene.receive(sim(1), &notify(10, &token, 3, b"23")).ticket();
    scene.settle(0, ticket, Verdict::Unauthorised("suspended")).sends(&["RST 0.00"]);
}

#[test]
fn a_non_confirmable_notification_is_taken_without_an_answer() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = Token::new(&scene.observe(sim(1), PATH)).unwrap();
    let content = (Code::CONTENT, Some(2), Some((0, &b"22"[..])));
    let datagram = respond(MessageType::NonConfirmable, 9, token, content);
    let step = scene.receive(sim(1), &datagram);
    step.sends(&[]);
    assert!(matches!(step.events[..], [Event::Uplink { ticket: None, .. }]));
    assert!(scene.receive(sim(1), &datagram).events.is_empty());
}

/// The first copy of a notification was lost on the air, the next one was stored, and the repeated
/// copy was acknowledged without being kept.
#[test]
fn an_older_notification_is_kept_if_the_device_wants_it_acknowledged() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let ticket = scene.receive(sim(1), &notify(9, &token, 20, b"22")).ticket();
    scene.settle(0, ticket, Verdict::Done);
    let step = scene.receive(sim(1), &notify(10, &token, 19, b"19"));
    step.sends(&[]);
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":19.0}"#]);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
    assert_eq!(scene.servers[0].counters().notifications_stale, 1);
    // It does not become the newest: a NON between the two is older still, and is left out.
    let non = |id, sequence, payload| {
        let content = (Code::CONTENT, Some(sequence), Some((0, payload)));
        respond(MessageType::NonConfirmable, id, Token::new(&token).unwrap(), content)
    };
    let step = scene.receive(sim(1), &non(11, 20, &b"20"[..]));
    assert!(step.events.is_empty() && step.sent.is_empty(), "{step:?}");
    // After 128 s the numbers mean nothing any more (RFC 7641 §3.4).
    scene.at(129);
    assert_eq!(scene.receive(sim(1), &non(12, 5, &b"5"[..])).uplinks().len(), 1);
}

/// A notification was refused while a newer one came; its repeated copy was acknowledged without
/// being kept.
#[test]
fn a_notification_that_could_not_be_kept_is_kept_after_a_newer_one() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let first = notify(9, &token, 2, b"22");
    let ticket = scene.receive(sim(1), &first).ticket();
    let newer = scene.receive(sim(1), &notify(10, &token, 3, b"23")).ticket();
    let full = Verdict::Unavailable { retry_after_seconds: 3, too_fast: false };
    scene.settle(0, ticket, full).sends(&[]);
    scene.settle(0, newer, Verdict::Done).sends(&["ACK 0.00"]);
    let step = scene.receive(sim(1), &first);
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
}

/// A last value was forgotten together with its observation before it could be kept: its repeated
/// copy was reset.
#[test]
fn a_last_value_ends_its_observation_once_it_is_kept() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = Token::new(&scene.observe(sim(1), PATH)).unwrap();
    let content = (Code::CONTENT, None, Some((0, &b"22"[..])));
    let last = respond(MessageType::Confirmable, 9, token, content);
    let ticket = scene.receive(sim(1), &last).ticket();
    let full = Verdict::Unavailable { retry_after_seconds: 3, too_fast: false };
    scene.settle(0, ticket, full).sends(&[]);
    assert_eq!(scene.registry.observations(), 1);
    let ticket = scene.receive(sim(1), &last).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    step.sends(&["ACK 0.00"]);
    assert!(step.state().is_some());
    assert_eq!(scene.registry.observations(), 0);
    scene.receive(sim(1), &notify(10, token.as_bytes(), 9, b"2")).sends(&["RST 0.00"]);
}

#[test]
fn a_token_is_bound_to_its_device() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    scene.register(sim(2), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let step = scene.receive(sim(2), &notify(9, &token, 2, b"666"));
    step.sends(&["RST 0.00"]);
    assert!(step.events.is_empty());
    // Nor by the SIM's own address where it was made with a key.
    let secured = sim(3).secured(9, lwm2m::Security::ServerKey);
    scene.register(secured, "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(secured, PATH);
    scene.receive(sim(3), &notify(9, &token, 2, b"666")).sends(&["RST 0.00"]);
    assert_eq!(scene.receive(secured, &notify(9, &token, 2, b"2")).uplinks().len(), 1);
}

#[test]
fn an_observation_goes_on_after_sleep_from_a_new_address() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=6000&lwm2m=1.1&b=UQ", LINKS);
    let token = scene.observe(sim(1), PATH);
    scene.at(3_000);
    let moved = sim(1).at(1, "10.200.0.7:61000");
    let step = scene.receive(moved, &notify(9, &token, 2, b"22"));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    let step = scene.settle(1, step.tickets()[0], Verdict::Done);
    step.sends(&["ACK 0.00"]);
    assert_eq!(step.sent[0].0, moved.contact);
    // What is asked now goes there.
    let step = scene.command(moved, 2, read(PATH));
    assert_eq!(step.sent[0].0, moved.contact);
}

#[test]
fn an_observation_goes_on_after_a_restart() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=6000&lwm2m=1.1&b=UQ", LINKS);
    let step = scene.command(sim(1), 1, observe(PATH));
    let asked = step.sent[0].1.clone();
    let first = answer(&asked, Code::CONTENT, Some(9), Some((0, b"1")));
    let state = scene.receive(sim(1), &first).state().unwrap();
    assert!(state.len() <= 600, "{} bytes", state.len());
    let token = token_of(&asked);

    // Another process: a fresh registry, a server with another seed.
    let registry = Registry::new(RegistryLimits::default());
    let Some(link) = Registry::saved_link(&state).unwrap() else { panic!("a link") };
    assert_eq!(link, sim(1).contact.link);
    let contact = Contact { seat: 5, link };
    registry.restore(iccid(1), &state, Some(contact)).unwrap();
    assert_eq!((registry.len(), registry.observations()), (1, 1));
    scene.registry = registry.clone();
    scene.servers[0] = Server::new(config(), registry, Arc::new(Model::builtin()), 0, 0xdead_beef);
    scene.at(100);
    // Its number is lower: what was before is not known any more.
    let step = scene.receive(sim(1), &notify(9, &token, 3, b"22"));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    scene.settle(0, step.tickets()[0], Verdict::Done).sends(&["ACK 0.00"]);
    let location = format!("/rd/{}", scene.registry.snapshot(iccid(1)).unwrap().id);
    scene.ask(sim(1), Code::POST, &location, None).sends(&["ACK 2.04"]);
    // What is damaged is not taken.
    assert!(scene.registry.restore(iccid(2), &state[1..], None).is_err());
    assert!(!scene.registry.is_registered(iccid(2)));
    // What expired meanwhile is named to be deleted.
    scene.registry.restore(iccid(3), &state, None).unwrap();
    scene.at(7_000);
    assert_eq!(scene.registry.expired(scene.moment.at, 10).len(), 2);
}

#[test]
fn an_observation_is_ended_with_its_token() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let step = scene.command(sim(1), 2, Operation::CancelObservation { path: path(PATH) });
    step.sends(&["CON 0.01 /3303/0/5700 observe=1 accept=11542"]);
    assert_eq!(token_of(&step.sent[0].1), token);
    assert!(matches!(step.events[..], [Event::SaveSoon { state: Some(_), .. }]));
    assert_eq!(scene.registry.observations(), 0);
    let done = answer(&step.sent[0].1, Code::CONTENT, None, Some((0, b"1")));
    assert_eq!(scene.receive(sim(1), &done).ended(), [(2, "2.05 1".to_owned())]);
    scene.receive(sim(1), &notify(9, &token, 9, b"2")).sends(&["RST 0.00"]);
}

/// A notification that was on its way was taken for the answer to the cancel: it was acknowledged,
/// and its value was lost.
#[test]
fn a_notification_during_a_cancel_is_kept() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let cancel = Operation::CancelObservation { path: path(PATH) };
    let asked = scene.command(sim(1), 2, cancel).sent[0].1.clone();
    let step = scene.receive(sim(1), &notify(9, &token, 2, b"22"));
    step.sends(&[]);
    assert!(step.ended().is_empty());
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":22.0}"#]);
    // Nobody else speaks for the device.
    scene.receive(sim(2), &notify(9, &token, 3, b"666")).sends(&["RST 0.00"]);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
    let done = answer(&asked, Code::CONTENT, None, Some((0, b"1")));
    assert_eq!(scene.receive(sim(1), &done).ended(), [(2, "2.05 1".to_owned())]);
    scene.receive(sim(1), &notify(10, &token, 9, b"2")).sends(&["RST 0.00"]);
}

#[test]
fn an_error_ends_an_observation() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let bytes = scene.observe(sim(1), PATH);
    let token = Token::new(&bytes).unwrap();
    let gone = respond(MessageType::Confirmable, 9, token, (Code::NOT_FOUND, None, None));
    let step = scene.receive(sim(1), &gone);
    step.sends(&["ACK 0.00"]);
    assert_eq!(step.notices(), ["Lwm2m[ObservationEnded]"]);
    assert!(step.state().is_some());
    assert_eq!(scene.registry.observations(), 0);
    scene.receive(sim(1), &notify(10, &bytes, 9, b"2")).sends(&["RST 0.00"]);
}

/// What could not be read was acknowledged, and lost.
#[test]
fn an_unreadable_notification_is_kept_as_it_came_and_noticed() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), PATH);
    let step = scene.receive(sim(1), &notify(9, &token, 2, b"warm"));
    step.sends(&[]);
    assert_eq!(step.notices(), ["Lwm2m[NotificationUnreadable]"]);
    // Base64.
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":"d2FybQ=="}"#]);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
}

#[test]
fn a_large_notification_is_read_whole_before_it_is_taken() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), "/3/0/0");
    // Observe 2, Content-Format 0, Block2 0/more/16.
    let head = [&[0x48, 0x45, 0, 9], &token[..], &[0x61, 2, 0x60, 0xb1, 0x08, 0xff]].concat();
    let datagram = [&head[..], b"0123456789abcdef"].concat();
    let step = scene.receive(sim(1), &datagram);
    step.sends(&["CON 0.01 /3/0/0 accept=0"]);
    assert!(step.events.is_empty());
    let whole = answer(&step.sent[0].1, Code::CONTENT, None, Some((0, b"0123456789abcdef!")));
    let step = scene.receive(sim(1), &whole);
    step.sends(&[]);
    assert_eq!(step.uplinks(), [r#"{"/3/0/0":"0123456789abcdef!"}"#]);
    let step = scene.settle(0, step.ticket(), Verdict::Done);
    assert_eq!(describe(&step.sent[0].1), "ACK 0.00");
    assert_eq!(step.sent[0].1[2..], [0, 9]);
    // If that fails, the device repeats.
    let datagram = [&head[..3], &[10], &head[4..13], &[3], &head[14..], b"0123456789abcdef"];
    let datagram = datagram.concat();
    let step = scene.receive(sim(1), &datagram);
    let gone = answer(&step.sent[0].1, Code::NOT_FOUND, None, None);
    let step = scene.receive(sim(1), &gone);
    assert!(step.sent.is_empty() && step.uplinks().is_empty());
    scene.receive(sim(1), &datagram).sends(&["CON 0.01 /3/0/0 accept=0"]);
}

/// The first of two blocks, of 16 bytes.
fn notify_in_blocks(id: u8, token: &[u8], sequence: u8) -> Vec<u8> {
    // Observe, Content-Format 0, Block2 0/more/16.
    let head = [&[0x48, 0x45, 0, id], token, &[0x61, sequence, 0x60, 0xb1, 0x08, 0xff]].concat();
    [&head[..], b"0123456789abcdef"].concat()
}

/// A large notification waited for its turn, and went on waiting when its registration had ended.
#[test]
fn a_large_notification_ends_with_its_registration() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), "/3/0/0");
    let asked = scene.command(sim(1), 2, read(PATH)).sent[0].1.clone();
    scene.receive(sim(1), &notify_in_blocks(9, &token, 2)).sends(&[]);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lwm2m=1.1&lt=600", None).ticket();
    scene.settle(0, ticket, Verdict::Done).sends(&["RST 0.00", "ACK 2.01"]);
    scene.receive(sim(1), &answer(&asked, Code::NOT_FOUND, None, None)).sends(&[]);
    // The owner forgets it: the device is not heard, and time passes.
    let token = scene.observe(sim(1), "/3/0/0");
    scene.command(sim(1), 3, read(PATH));
    scene.receive(sim(1), &notify_in_blocks(10, &token, 2)).sends(&[]);
    scene.at(20_000);
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    assert!(scene.timeout(0).says().contains(&"RST 0.00".to_owned()));
    scene.ask(sim(1), Code::POST, &location, None).sends(&["ACK 4.04"]);
}

#[test]
fn a_large_notification_is_repeated_where_its_device_is_heard() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let token = scene.observe(sim(1), "/3/0/0");
    scene.command(sim(1), 2, read(PATH));
    let datagram = notify_in_blocks(9, &token, 2);
    scene.receive(sim(1), &datagram).sends(&[]);
    let moved = sim(1).at(1, "10.9.9.9:5683");
    scene.ask(moved, Code::POST, &location, None).sends(&["ACK 2.04"]);
    // A reset would end the observation, which goes on.
    assert!(!scene.pass(0, 0..120).says().contains(&"RST 0.00".to_owned()));
    scene.receive(moved, &datagram).sends(&["CON 0.01 /3/0/0 accept=0"]);
}

#[test]
fn a_composite_observation_names_all_its_paths() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let paths = vec![path(PATH), path("/3/0/9")];
    let step = scene.command(sim(1), 1, Operation::ObserveComposite { paths });
    assert!(step.says()[0].starts_with("CON 0.05 / observe=0 format=112 accept=112"));
    let body = br#"[{"n":"/3303/0/5700","v":1.5},{"n":"/3/0/9","v":80}]"#;
    let first = answer(&step.sent[0].1, Code::CONTENT, Some(1), Some((110, body)));
    let token = Token::new(&token_of(&step.sent[0].1)).unwrap();
    let json = r#"{"/3303/0/5700":1.5,"/3/0/9":80}"#;
    assert_eq!(scene.receive(sim(1), &first).uplinks(), [json]);
    let content = (Code::CONTENT, Some(2), Some((110, &body[..])));
    let datagram = respond(MessageType::Confirmable, 9, token, content);
    assert_eq!(scene.receive(sim(1), &datagram).uplinks(), [json]);
    let step = scene.command(sim(1), 2, Operation::CancelObservation { path: path("/3/0/9") });
    assert!(step.says()[0].starts_with("CON 0.05 / observe=1 format=112 accept=112"));
}

#[test]
fn observations_of_a_device_have_a_limit() {
    let limits = RegistryLimits { observations_per_device_max: 1, ..RegistryLimits::default() };
    let mut scene = Scene::with(config(), limits);
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    scene.observe(sim(1), PATH);
    let step = scene.command(sim(1), 2, observe("/3/0/9"));
    let reason = "invalid: 1 observations of the device are the limit";
    assert_eq!(step.ended(), [(2, reason.to_owned())]);
}

#[test]
fn a_first_value_on_a_message_of_its_own_waits_to_be_durable() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 1, observe(PATH));
    let token = Token::new(&token_of(&step.sent[0].1)).unwrap();
    let content = (Code::CONTENT, Some(1), Some((ContentFormat::TEXT_PLAIN.0, &b"5"[..])));
    let separate = respond(MessageType::Confirmable, 9, token, content);
    let step = scene.receive(sim(1), &separate);
    step.sends(&[]);
    assert_eq!(step.ended().len(), 1);
    scene.settle(0, step.ticket(), Verdict::Done).sends(&["ACK 0.00"]);
    assert!(matches!(sim(1).contact.link, Link::Address(_)));
}
