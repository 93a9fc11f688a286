//! Scripts of operations: queue mode, formats, refusals, silence, passive reporting.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

#[expect(dead_code, reason = "each test binary uses a part")]
mod scene;

use coap::wire::{Code, ContentFormat, MessageType};
use lwm2m::{
    Event, Operation, Origin, Record, RegistryLimits, Value, Verdict, WriteContent, WriteMode,
};
use scene::{Scene, TLV, answer, config, iccid, path, read, respond, sim, token_of};

const LINKS: &str = "</1/0>,</3/0>,</3303/0>,</3311/0>";
const MODERN: &str = "</>;rt=\"oma.lwm2m\";ct=\"110 112 11542\",</1/0>,</3/0>,</3303/0>,</3311/0>";

fn write(text: &str, data: &str) -> Operation {
    let content = WriteContent::Text(data.to_owned());
    Operation::Write { path: path(text), content, mode: WriteMode::Replace }
}

#[test]
fn an_operation_goes_out_at_once_to_a_device_that_listens() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 7, read("/3303/0/5700"));
    step.sends(&["CON 0.01 /3303/0/5700 accept=11542"]);
    let asked = &step.sent[0].1;
    assert_eq!(token_of(asked).len(), 8);
    let value = b"\xe8\x16\x44\x08\x40\x35\x80\x00\x00\x00\x00\x00";
    let step = scene.receive(sim(1), &answer(asked, Code::CONTENT, None, Some((TLV, value))));
    assert_eq!(step.ended(), [(7, r#"2.05 {"/3303/0/5700":21.5}"#.to_owned())]);
    let uplink = step.events.iter().find_map(|event| match event {
        Event::Uplink { ticket, origin, payload, .. } => Some((ticket, origin, payload.clone())),
        _ => None,
    });
    let json = br#"{"/3303/0/5700":21.5}"#.to_vec();
    assert_eq!(uplink, Some((&None, &Origin::Command, json)));
}

#[test]
fn formats_follow_what_the_device_announced() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", MODERN);
    scene.register(sim(2), "lt=600&lwm2m=1.0", LINKS);
    scene.register(sim(3), "lt=600&lwm2m=1.1", LINKS);
    let mut says = |number, operation| {
        let step = scene.command(sim(number), 1, operation);
        let [text] = &step.says()[..] else { panic!("{step:?}") };
        let done = answer(&step.sent[0].1, Code::NOT_FOUND, None, None);
        scene.receive(sim(number), &done);
        text.clone()
    };
    assert_eq!(says(1, read("/3303")), "CON 0.01 /3303 accept=112");
    assert_eq!(says(2, read("/3303")), "CON 0.01 /3303 accept=11542");
    assert_eq!(says(2, read("/3303/0/5700")), "CON 0.01 /3303/0/5700");
    assert_eq!(says(3, read("/3303")), "CON 0.01 /3303 accept=11542");
    let paths = vec![path("/3303/0/5700"), path("/3/0/13")];
    let composite = Operation::ReadComposite { paths };
    assert_eq!(
        says(1, composite.clone()),
        "CON 0.05 / format=112 accept=112 <82a1006c2f333330332f302f35373030a100672f332f302f3133>"
    );
    let accept = Some(ContentFormat::SENML_JSON);
    let json = Operation::Read { path: path("/3"), accept };
    assert_eq!(says(3, json), "CON 0.01 /3 accept=110");
    // What it is for is a matter of the version.
    let step = scene.command(sim(2), 9, composite);
    let reason = "invalid: composite operations need LwM2M 1.1, the device has 1.0";
    assert_eq!(step.ended(), [(9, reason.to_owned())]);
    assert!(step.sent.is_empty());
}

#[test]
fn writes_are_typed_by_the_model() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 1, write("/3311/0/5850", "true"));
    step.sends(&["CON 0.03 /3311/0/5850 format=11542 <e116da01>"]);
    let changed = answer(&step.sent[0].1, Code::CHANGED, None, None);
    assert_eq!(scene.receive(sim(1), &changed).ended(), [(1, "2.04".to_owned())]);
    // What the model does not know is sent as text.
    let step = scene.command(sim(1), 2, write("/33000/0/1", "on"));
    step.sends(&["CON 0.03 /33000/0/1 format=0 [on]"]);
    scene.receive(sim(1), &answer(&step.sent[0].1, Code::CHANGED, None, None));
    let operation = Operation::Write {
        path: path("/1/0"),
        content: WriteContent::Records(vec![Record::new(path("/1/0/1"), Value::Integer(60))]),
        mode: WriteMode::Update,
    };
    scene.command(sim(1), 3, operation).sends(&["CON 0.02 /1/0 format=11542 <c1013c>"]);
}

#[test]
fn what_does_not_fit_the_object_is_refused_without_traffic() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let execute = |text| Operation::Execute { path: path(text), arguments: String::new() };
    let cases = [
        (write("/3/0/0", "x"), "/3/0/0 cannot be written"),
        (write("/3311/0/5850", "maybe"), "/3311/0/5850: \"maybe\" is not a value of type BOOLEAN"),
        (write("/3311/0", "1"), "/3311/0 does not name a resource"),
        (read("/3/0/4"), "/3/0/4 cannot be read"),
        (read("/0"), "/0 cannot be read"),
        (read("/"), "/ does not name an object or what it holds"),
        (execute("/3/0/0"), "/3/0/0 cannot be executed"),
        (execute("/3/0"), "/3/0 does not name a resource"),
        (Operation::Delete { path: path("/3") }, "/3 does not name an object instance"),
        (Operation::ReadComposite { paths: vec![] }, "no path is given"),
        (Operation::WriteComposite { records: vec![] }, "no value is given"),
        (
            Operation::WriteComposite {
                records: vec![Record::new(path("/1/0/1"), Value::Boolean(true))],
            },
            "/1/0/1 is of type INTEGER, given: BOOLEAN",
        ),
        (Operation::CancelObservation { path: path("/3/0/9") }, "/3/0/9 is not observed"),
    ];
    for (operation, reason) in cases {
        let step = scene.command(sim(1), 4, operation);
        step.sends(&[]);
        assert_eq!(step.ended(), [(4, format!("invalid: {reason}"))]);
    }
    let step = scene.command(sim(2), 5, read("/3"));
    assert_eq!(step.ended(), [(5, "not registered".to_owned())]);
}

#[test]
fn every_operation_has_its_request() {
    let mut scene = Scene::new();
    let links = "</lwm2m>;rt=\"oma.lwm2m\";ct=110,</lwm2m/3/0>,</lwm2m/3303/0>";
    scene.register(sim(1), "lt=600&lwm2m=1.1", links);
    let record = Record::new(path("/1/2/1"), Value::Integer(60));
    let attributes = vec!["pmin=10".to_owned(), "gt=21.5".to_owned()];
    let payload = b"\x00\x01".to_vec();
    let cases = [
        (
            Operation::Execute { path: path("/3/0/4"), arguments: "0='x'".to_owned() },
            "CON 0.02 /lwm2m/3/0/4 format=0 [0='x']",
        ),
        (
            Operation::Create { path: path("/1/2"), records: vec![record.clone()] },
            "CON 0.02 /lwm2m/1 format=110 [[{\"bn\":\"/1/2/1\",\"v\":60}]]",
        ),
        (Operation::Delete { path: path("/1/2") }, "CON 0.04 /lwm2m/1/2"),
        (Operation::Discover { path: path("/3") }, "CON 0.01 /lwm2m/3 accept=40"),
        (
            Operation::WriteAttributes { path: path("/3303/0/5700"), attributes },
            "CON 0.03 /lwm2m/3303/0/5700?pmin=10&gt=21.5",
        ),
        (
            Operation::WriteComposite { records: vec![record] },
            "CON 0.07 /lwm2m format=110 [[{\"bn\":\"/1/2/1\",\"v\":60}]]",
        ),
        (
            Operation::WriteRaw {
                path: path("/5/0/0"),
                format: ContentFormat::OCTET_STREAM,
                payload,
            },
            "CON 0.03 /lwm2m/5/0/0 format=42 <0001>",
        ),
    ];
    for (operation, expected) in cases {
        let step = scene.command(sim(1), 4, operation);
        step.sends(&[expected]);
        let done = answer(&step.sent[0].1, Code::CHANGED, None, None);
        assert_eq!(scene.receive(sim(1), &done).ended(), [(4, "2.04".to_owned())]);
    }
}

#[test]
fn another_format_is_tried_once() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.command(sim(1), 1, write("/3311/0/5850", "1"));
    let refused = answer(&step.sent[0].1, Code::UNSUPPORTED_CONTENT_FORMAT, None, None);
    let step = scene.receive(sim(1), &refused);
    step.sends(&["CON 0.03 /3311/0/5850 format=0 [1]"]);
    let refused = answer(&step.sent[0].1, Code::UNSUPPORTED_CONTENT_FORMAT, None, None);
    assert_eq!(scene.receive(sim(1), &refused).ended(), [(1, "4.15".to_owned())]);
    let step = scene.command(sim(1), 2, read("/3303"));
    let refused = answer(&step.sent[0].1, Code::NOT_ACCEPTABLE, None, None);
    scene.receive(sim(1), &refused).sends(&["CON 0.01 /3303 accept=112"]);
}

#[test]
fn one_request_at_a_time_in_the_order_asked() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let first = scene.command(sim(1), 1, read("/3/0/0"));
    scene.command(sim(1), 2, read("/3/0/1")).sends(&[]);
    scene.command(sim(1), 3, read("/3/0/2")).sends(&[]);
    let step = scene.receive(sim(1), &answer(&first.sent[0].1, Code::NOT_FOUND, None, None));
    // A missing object instance is the device's to say.
    assert_eq!(step.ended(), [(1, "4.04".to_owned())]);
    step.sends(&["CON 0.01 /3/0/1 accept=11542"]);
    let done = answer(&step.sent[0].1, Code::CONTENT, None, Some((0, b"y")));
    let step = scene.receive(sim(1), &done);
    assert_eq!(step.ended(), [(2, r#"2.05 {"/3/0/1":"y"}"#.to_owned())]);
    step.sends(&["CON 0.01 /3/0/2 accept=11542"]);
}

#[test]
fn a_sleeping_device_is_asked_right_after_its_update_was_answered() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1&b=U&Q", LINKS);
    scene.at(94);
    scene.command(sim(1), 1, read("/3/0/0")).sends(&[]);
    scene.command(sim(1), 2, read("/3/0/1")).sends(&[]);
    scene.at(300);
    let step = scene.ask(sim(1), Code::POST, &location, None);
    step.sends(&["ACK 2.04", "CON 0.01 /3/0/0 accept=11542"]);
    let step = scene.receive(sim(1), &answer(&step.sent[1].1, Code::NOT_FOUND, None, None));
    step.sends(&["CON 0.01 /3/0/1 accept=11542"]);
    scene.receive(sim(1), &answer(&step.sent[0].1, Code::NOT_FOUND, None, None));
    // While it is awake it is asked at once.
    scene.at(390);
    let step = scene.command(sim(1), 3, read("/3/0/2"));
    step.sends(&["CON 0.01 /3/0/2 accept=11542"]);
}

#[test]
fn a_device_that_wakes_up_elsewhere_is_asked_there() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1&b=UQ", LINKS);
    scene.at(94);
    scene.command(sim(1), 1, read("/3/0/0")).sends(&[]);
    let moved = sim(1).at(1, "10.9.9.9:40000");
    // Links that change are made durable before the answer, and that comes before the request.
    let step = scene.ask(moved, Code::POST, &location, Some((40, b"</3/0>")));
    step.sends(&[]);
    let step = scene.settle(1, step.ticket(), Verdict::Done);
    step.sends(&["ACK 2.04", "CON 0.01 /3/0/0 accept=11542"]);
    assert!(step.sent.iter().all(|(to, _)| *to == moved.contact));
    let step = scene.receive(moved, &answer(&step.sent[1].1, Code::NOT_FOUND, None, None));
    assert_eq!(step.ended(), [(1, "4.04".to_owned())]);
    // A command given to the server that does not hear it says who does.
    scene.servers[0].command(scene.moment, iccid(1), 2, read("/3/0/0"));
    let step = scene.step(0);
    assert!(matches!(step.events[..], [Event::Elsewhere { seat: 1, .. }]));
    scene.servers[1].advance(scene.moment, iccid(1));
    scene.step(1).sends(&["CON 0.01 /3/0/0 accept=11542"]);
}

#[test]
fn a_request_waits_for_the_registration_that_is_under_way() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1&b=UQ", LINKS);
    scene.at(94);
    scene.command(sim(1), 1, read("/3/0/0")).sends(&[]);
    let step = scene.ask(sim(1), Code::POST, "/rd?lwm2m=1.0&b=UQ", Some((40, b"</3/0>")));
    step.sends(&[]);
    let step = scene.settle(0, step.ticket(), Verdict::Done);
    assert_eq!(step.says()[1], "CON 0.01 /3/0/0");
}

#[test]
fn a_device_that_never_answers_is_unreachable() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=6000&lwm2m=1.1&b=UQ", LINKS);
    let asked = scene.command(sim(1), 1, read("/3/0/0"));
    scene.command(sim(1), 2, read("/3/0/1")).sends(&[]);
    let step = scene.pass(0, 0..120);
    // MAX_RETRANSMIT copies and no second request: the device sleeps.
    assert_eq!(step.sent.len(), 4);
    assert!(step.sent.iter().all(|(_, bytes)| *bytes == asked.sent[0].1));
    let reason = "unreachable: the peer did not respond in time";
    assert_eq!(step.ended(), [(1, reason.to_owned())]);
    // What waited goes out when it is heard again; its late answer is reset.
    let step = scene.ask(sim(1), Code::POST, &location, None);
    step.sends(&["ACK 2.04", "CON 0.01 /3/0/1 accept=11542"]);
    let token = coap::wire::Token::new(&token_of(&asked.sent[0].1)).unwrap();
    let content = (Code::CONTENT, None, Some((0, &b"late"[..])));
    let late = respond(MessageType::Confirmable, 77, token, content);
    let step = scene.receive(sim(1), &late);
    step.sends(&["RST 0.00"]);
    assert!(step.events.is_empty());
    assert_eq!(scene.servers[0].counters().notifications_unknown, 1);
    // On an acknowledgement it is nothing at all.
    let content = (Code::CONTENT, None, Some((0, &b"late"[..])));
    let late = respond(MessageType::Acknowledgement, 78, token, content);
    scene.receive(sim(1), &late).sends(&[]);
}

#[test]
fn a_reset_ends_an_operation() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let asked = scene.command(sim(1), 1, read("/3/0/0")).sent[0].1.clone();
    let step = scene.receive(sim(1), &[0x70, 0, asked[2], asked[3]]);
    assert_eq!(step.ended(), [(1, "unreachable: the peer answered with a reset".to_owned())]);
}

#[test]
fn an_answer_of_another_device_is_none() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let asked = scene.command(sim(1), 1, read("/3/0/0")).sent[0].1.clone();
    // The address went to another SIM meanwhile.
    let heir = scene::Sim { device: sim(2).device, contact: sim(1).contact };
    let step = scene.receive(heir, &answer(&asked, Code::CONTENT, None, Some((0, b"x"))));
    assert_eq!(step.ended(), [(1, "unreachable: another device answered".to_owned())]);
    assert!(step.uplinks().is_empty());
}

#[test]
fn a_device_that_moved_is_asked_anew() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    scene.command(sim(1), 1, read("/3/0/0"));
    scene.command(sim(1), 2, read("/3/0/1")).sends(&[]);
    let moved = sim(1).at(0, "10.9.9.9:5683");
    let step = scene.ask(moved, Code::POST, &location, None);
    let reason = "unreachable: the device moved before it answered";
    assert_eq!(step.ended(), [(1, reason.to_owned())]);
    step.sends(&["ACK 2.04", "CON 0.01 /3/0/1 accept=11542"]);
    // From another port of the same host the answer is taken.
    let port = sim(1).at(0, "10.9.9.9:1025");
    let done = answer(&step.sent[1].1, Code::CONTENT, None, Some((0, b"y")));
    assert_eq!(scene.receive(port, &done).ended().len(), 1);
}

#[test]
fn a_device_that_moved_to_another_server_is_free_there() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600&lwm2m=1.1&b=UQ", LINKS);
    scene.command(sim(1), 1, read("/3/0/0"));
    let moved = sim(1).at(1, "10.0.0.1:5683");
    scene.ask(moved, Code::POST, &location, None).sends(&["ACK 2.04"]);
    let step = scene.command(moved, 2, read("/3/0/1"));
    step.sends(&["CON 0.01 /3/0/1 accept=11542"]);
    // The server before gives up, and the one request under way stays the only one.
    let ended = scene.pass(0, 0..120).ended();
    assert_eq!(ended, [(1, "unreachable: the peer did not respond in time".to_owned())]);
    scene.command(moved, 3, read("/3/0/2")).sends(&[]);
    // Nor does that put the device to sleep here.
    scene.at(60);
    let step = scene.receive(moved, &answer(&step.sent[0].1, Code::NOT_FOUND, None, None));
    step.sends(&["CON 0.01 /3/0/2 accept=11542"]);
}

#[test]
fn the_queue_of_a_device_has_a_limit_and_an_age() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=200000&lwm2m=1.1&b=UQ", LINKS);
    scene.at(94);
    for command in 0..20 {
        scene.command(sim(1), command, read("/3/0/0")).sends(&[]);
    }
    let step = scene.command(sim(1), 20, read("/3/0/0"));
    let reason = "unreachable: 20 operations wait for the device, which is the limit";
    assert_eq!(step.ended(), [(20, reason.to_owned())]);
    scene.at(94 + 86_401);
    let step = scene.ask(sim(1), Code::POST, &location, None);
    assert_eq!(step.ended().len(), 20);
    step.sends(&["ACK 2.04"]);
}

/// An operation that waited for a device which was never heard again did not end before its
/// registration did, after days.
#[test]
fn operations_that_waited_for_too_long_end_though_nobody_is_heard() {
    let mut scene = Scene::new();
    for number in 1..=3 {
        scene.register(sim(number), "lt=2000000&lwm2m=1.1&b=UQ", LINKS);
    }
    scene.at(100);
    scene.command(sim(1), 1, read("/3/0/0")).sends(&[]);
    scene.command(sim(2), 2, read("/3/0/0")).sends(&[]);
    scene.at(200);
    scene.command(sim(2), 3, read("/3/0/1")).sends(&[]);
    scene.at(100 + 86_400);
    assert_eq!(scene.registry.overdue(scene.moment.at, 10), 0);
    scene.at(100 + 86_401);
    // A little at a time.
    assert_eq!(scene.registry.overdue(scene.moment.at, 1), 1);
    assert_eq!(scene.registry.overdue(scene.moment.at, 10), 1);
    let mut ended = scene.timeout(0).ended();
    ended.sort_unstable();
    let reason = "unreachable: the device was not heard for too long";
    assert_eq!(ended, [(1, reason.to_owned()), (2, reason.to_owned())]);
    scene.at(200 + 86_401);
    assert_eq!(scene.registry.overdue(scene.moment.at, 10), 1);
    assert_eq!(scene.timeout(1).ended(), [(3, reason.to_owned())]);
    assert_eq!(scene.registry.overdue(scene.moment.at, 10), 0);
}

#[test]
fn an_operation_that_waits_can_be_taken_back() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=6000&lwm2m=1.1&b=UQ", LINKS);
    scene.at(100);
    for command in 1..=3 {
        scene.command(sim(1), command, read(&format!("/3/0/{command}"))).sends(&[]);
    }
    assert!(scene.registry.withdraw(iccid(1), 2));
    assert!(!scene.registry.withdraw(iccid(1), 2));
    assert!(!scene.registry.withdraw(iccid(2), 1));
    assert!(scene.timeout(0).events.is_empty());
    let step = scene.ask(sim(1), Code::POST, &location, None);
    step.sends(&["ACK 2.04", "CON 0.01 /3/0/1 accept=11542"]);
    // One that is under way comes to its own end.
    assert!(!scene.registry.withdraw(iccid(1), 1));
    let step = scene.receive(sim(1), &answer(&step.sent[1].1, Code::NOT_FOUND, None, None));
    assert_eq!(step.ended(), [(1, "4.04".to_owned())]);
    step.sends(&["CON 0.01 /3/0/3 accept=11542"]);
    // What is taken back is not found overdue later.
    scene.command(sim(1), 4, read("/3/0/9")).sends(&[]);
    assert!(scene.registry.withdraw(iccid(1), 4));
    scene.at(100_000);
    assert_eq!(scene.registry.overdue(scene.moment.at, 10), 0);
}

#[test]
fn operations_end_when_the_registration_does() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=60&lwm2m=1.1&b=UQ", LINKS);
    scene.at(94);
    scene.command(sim(1), 1, read("/3/0/0")).sends(&[]);
    scene.at(400);
    assert_eq!(scene.command(sim(1), 2, read("/3")).ended(), [(2, "not registered".to_owned())]);
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    assert_eq!(scene.timeout(1).ended(), [(1, "not registered".to_owned())]);
}

#[test]
fn an_answer_that_lies_is_given_as_it_is() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let asked = scene.command(sim(1), 1, read("/3303")).sent[0].1.clone();
    // TLV that says 200 bytes and has one.
    let lie = answer(&asked, Code::CONTENT, None, Some((TLV, b"\x08\x00\xc8\x01")));
    let step = scene.receive(sim(1), &lie);
    assert!(step.uplinks().is_empty());
    assert_eq!(step.notices(), ["Lwm2m[AnswerUnreadable]"]);
    assert!(matches!(
        &step.events[..],
        [_, Event::CommandEnded { outcome: lwm2m::Outcome::Answered { decoded: false, .. }, .. }]
    ));
}

#[test]
fn passive_reporting_reads_each_object_after_registration_and_update() {
    let mut scene = Scene::new();
    scene.servers[0].set_passive_reporting(true);
    let links = "</0/0>,</1/0>,</2>,</3/0>,</3303/0>,</3311/0>,</21/0>,</33000/0>";
    let step = scene.ask(sim(1), Code::POST, "/rd?lwm2m=1.1&lt=600", Some((40, links.as_bytes())));
    let step = scene.settle(0, step.ticket(), Verdict::Done);
    assert_eq!(step.says()[1], "CON 0.01 /3303 accept=11542");
    let location = format!("/rd/{}", scene.registry.snapshot(iccid(1)).unwrap().id);
    // An update while it is under way begins no second round, and a command goes first.
    let asked = step.sent[1].1.clone();
    scene.ask(sim(1), Code::POST, &location, None).sends(&["ACK 2.04"]);
    scene.command(sim(1), 5, read("/3/0/9")).sends(&[]);
    let value = b"\x08\x00\x04\xc2\x16\x44\x2a";
    let value = answer(&asked, Code::CONTENT, None, Some((TLV, &value[..3])));
    let step = scene.receive(sim(1), &value);
    // What cannot be read is noticed once and skipped.
    assert_eq!(step.notices()[1..], ["Lwm2m[PassiveReportFailed]"]);
    step.sends(&["CON 0.01 /3/0/9 accept=11542"]);
    let step = scene.receive(sim(1), &answer(&step.sent[0].1, Code::NOT_FOUND, None, None));
    step.sends(&["CON 0.01 /3311 accept=11542"]);
    let value = b"\x08\x00\x04\xe1\x16\xda\x01";
    let value = answer(&step.sent[0].1, Code::CONTENT, None, Some((TLV, value)));
    let step = scene.receive(sim(1), &value);
    assert_eq!(step.uplinks(), [r#"{"/3311/0/5850":true}"#]);
    step.sends(&["CON 0.01 /33000 accept=11542"]);
    let refused = answer(&step.sent[0].1, Code::METHOD_NOT_ALLOWED, None, None);
    let step = scene.receive(sim(1), &refused);
    assert_eq!(step.notices(), ["Lwm2m[PassiveReportFailed]"]);
    step.sends(&[]);
    scene
        .ask(sim(1), Code::POST, &location, None)
        .sends(&["ACK 2.04", "CON 0.01 /3303 accept=11542"]);
    let counters = scene.servers[0].counters();
    assert_eq!((counters.passive_reads, counters.passive_failures), (1, 2));
}

#[test]
fn large_bodies_go_in_blocks() {
    let mut scene = Scene::with(config(), RegistryLimits::default());
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let payload = vec![b'f'; 2_000];
    let format = ContentFormat::OCTET_STREAM;
    let operation = Operation::WriteRaw { path: path("/5/0/0"), format, payload };
    let step = scene.command(sim(1), 1, operation);
    let first = &step.sent[0].1;
    // 2.31 for block 0 of 1,024 bytes.
    let mut go_on = answer(first, Code::CONTINUE, None, None);
    go_on.extend_from_slice(&[0xd1, 0x0e, 0x0e]);
    let step = scene.receive(sim(1), &go_on);
    let second = &step.sent[0].1;
    let mut changed = answer(second, Code::CHANGED, None, None);
    changed.extend_from_slice(&[0xd1, 0x0e, 0x16]);
    assert_eq!(scene.receive(sim(1), &changed).ended(), [(1, "2.04".to_owned())]);
}
