//! Scripts of registrations: this datagram in, exactly these out.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

#[expect(dead_code, reason = "each test binary uses a part")]
mod scene;

use coap::wire::{Code, MessageRef};
use lwm2m::{Event, RegistryLimits, Security, Verdict};
use scene::{Scene, Step, config, iccid, request, sim};

const LINKS: &str = "</1/0>,</3/0>,</3303/0>,</3303/1>";

/// The registration of the Zephyr demo, byte for byte: CON POST with 8 bytes of token.
fn zephyr() -> Vec<u8> {
    let head = b"\x48\x02\x12\x34\x01\x02\x03\x04\x05\x06\x07\x08\xb2rd\x11\x28\x39lwm2m=1.1";
    let query = b"\x06lt=120\x0d\x09ep=8988280666000000001\x03b=U";
    [&head[..], query, b"\xff</>;ct=\"110 11542\",</3/0>,</3303/0>"].concat()
}

#[test]
fn a_registration_is_answered_once_it_is_durable() {
    let mut scene = Scene::new();
    let step = scene.receive(sim(1), &zephyr());
    assert!(step.sent.is_empty());
    let [Event::Save { ticket, state: Some(_), iccid: whose }] = &step.events[..] else {
        panic!("{step:?}");
    };
    assert_eq!(*whose, iccid(1));
    assert!(!scene.registry.is_registered(iccid(1)));
    // A copy waits with it.
    let copy = scene.receive(sim(1), &zephyr());
    assert!(copy.sent.is_empty() && copy.events.is_empty());
    let step = scene.settle(0, *ticket, Verdict::Done);
    let created = step.sent[0].1.clone();
    let head = b"\x68\x41\x12\x34\x01\x02\x03\x04\x05\x06\x07\x08\x82rd\x0d\x09";
    assert_eq!(created[..16], head[..16]);
    assert_eq!(created.len(), 12 + 3 + 2 + 22);
    assert!(matches!(step.events[..], [Event::Awake { registered: true, .. }]));
    // And then gets the same answer.
    assert_eq!(scene.receive(sim(1), &zephyr()).sent[0].1, created);
    let registration = scene.registry.snapshot(iccid(1)).unwrap();
    assert_eq!(registration.lifetime_seconds, 120);
    assert_eq!(registration.links.objects().collect::<Vec<_>>(), [3, 3303]);
    assert_eq!(registration.contact, Some(sim(1).contact));
    assert_eq!(created[17..], *registration.id.to_string().as_bytes());
}

#[test]
fn what_cannot_be_made_durable_is_not_registered() {
    let mut scene = Scene::new();
    let ticket = scene.receive(sim(1), &zephyr()).ticket();
    let full = Verdict::Unavailable { retry_after_seconds: 30, too_fast: false };
    scene.settle(0, ticket, full).sends(&["ACK 5.03 max-age=30"]);
    assert!(!scene.registry.is_registered(iccid(1)));
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=60", None).ticket();
    let fast = Verdict::Unavailable { retry_after_seconds: 9, too_fast: true };
    scene.settle(0, ticket, fast).sends(&["ACK 4.29 max-age=9"]);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=60", None).ticket();
    let step = scene.settle(0, ticket, Verdict::Unauthorised("suspended"));
    step.sends(&["ACK 4.01 [suspended]"]);
    assert_eq!(scene.servers[0].tickets(), 0);
}

/// Each line: what is asked, how it is answered.
#[test]
fn bad_requests_are_refused_with_what_is_allowed() {
    let mut scene = Scene::new();
    let name = "the endpoint name must be the ICCID of the device";
    let lifetime = "allowed: 1 to 4294967295 seconds";
    let cases = [
        ("/rd?ep=8988280666000000002", "", format!("ACK 4.03 [{name}]")),
        ("/rd?ep=urn:imei:490154203237518", "", format!("ACK 4.03 [{name}]")),
        ("/rd?lt=0", "", format!("ACK 4.00 [lt is \"0\", {lifetime}]")),
        ("/rd?lt=4294967296", "", format!("ACK 4.00 [lt is \"4294967296\", {lifetime}]")),
        ("/rd?lt=soon", "", format!("ACK 4.00 [lt is \"soon\", {lifetime}]")),
        ("/rd?lwm2m=2.0", "", "ACK 4.12 [lwm2m is \"2.0\", supported: 1.0 and 1.1]".to_owned()),
        ("/rd?b=X", "", "ACK 4.00 [b is \"X\", allowed: letters of UMHTSNQ]".to_owned()),
        (
            "/rd",
            "</3/0",
            "ACK 4.00 [malformed at byte 5: the link does not end with an angle bracket]"
                .to_owned(),
        ),
        (
            "/rd",
            "</3/0/1>",
            "ACK 4.00 [link \"/3/0/1\" names more than an object instance]".to_owned(),
        ),
        (
            "/rd/",
            "x",
            "ACK 4.00 [malformed at byte 0: expected a link in angle brackets]".to_owned(),
        ),
    ];
    for (uri, links, expected) in cases {
        let step = scene.ask(sim(1), Code::POST, uri, Some((40, links.as_bytes())));
        step.sends(&[&expected]);
        assert!(!step.notices().is_empty() && step.tickets().is_empty());
    }
    let step = scene.ask(sim(1), Code::POST, "/rd", Some((110, b"[]")));
    step.sends(&["ACK 4.15 [Content-Format is 110, allowed: 40, or none]"]);
    scene.ask(sim(1), Code::GET, "/rd", None).sends(&["ACK 4.05"]);
    scene.ask(sim(1), Code::PUT, "/rd/x", None).sends(&["ACK 4.05"]);
    scene.ask(sim(1), Code::GET, "/", None).sends(&["ACK 4.04"]);
    scene.ask(sim(1), Code::POST, "/rd/a/b", None).sends(&["ACK 4.04"]);
    assert!(scene.registry.is_empty());
    assert_eq!(scene.servers[0].counters().refused_name, 2);
}

#[test]
fn an_update_is_answered_at_once_unless_the_links_change() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=60&lwm2m=1.0&b=UQ", LINKS);
    scene.at(50);
    let step = scene.ask(sim(1), Code::POST, &location, None);
    step.sends(&["ACK 2.04"]);
    assert!(matches!(
        step.events[..],
        [Event::SaveSoon { state: Some(_), .. }, Event::Awake { registered: false, .. }]
    ));
    // The same links are no change, and a query is taken over.
    let uri = format!("{location}?lt=120&b=U");
    let step = scene.ask(sim(1), Code::POST, &uri, Some((40, LINKS.as_bytes())));
    step.sends(&["ACK 2.04"]);
    let registration = scene.registry.snapshot(iccid(1)).unwrap();
    assert_eq!((registration.lifetime_seconds, registration.binding.is_queued()), (120, false));
    let step = scene.ask(sim(1), Code::POST, &location, Some((40, b"</3/0>")));
    assert!(step.sent.is_empty());
    let ticket = step.ticket();
    scene.settle(0, ticket, Verdict::Done).sends(&["ACK 2.04"]);
    assert_eq!(scene.registry.snapshot(iccid(1)).unwrap().links.objects().count(), 1);
    scene
        .ask(sim(1), Code::POST, &location, Some((40, b"<")))
        .sends(&["ACK 4.00 [malformed at byte 1: the link does not end with an angle bracket]"]);
    scene
        .ask(sim(1), Code::POST, &format!("{location}?lt=0"), None)
        .sends(&["ACK 4.00 [lt is \"0\", allowed: 1 to 4294967295 seconds]"]);
}

#[test]
fn a_registration_expires_after_lifetime_and_grace() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=60", LINKS);
    scene.at(60 + 246);
    scene.ask(sim(1), Code::POST, &location, None).sends(&["ACK 2.04"]);
    assert!(scene.registry.expired(scene.moment.at, 10).is_empty());
    scene.at(306 + 60 + 247);
    scene.ask(sim(1), Code::POST, &location, None).sends(&["ACK 4.04"]);
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    assert!(scene.registry.is_empty());
    // Beyond the longest lifetime it ends there, whatever the device says.
    scene.register(sim(1), "lt=4294967295", LINKS);
    let registration = scene.registry.snapshot(iccid(1)).unwrap();
    assert_eq!(registration.lifetime_seconds, u32::MAX);
    let lasts = registration.expires_at.saturating_since(scene.moment.at);
    assert_eq!(lasts.as_secs(), 30 * 86_400 + 247);
}

/// Every request of every other device and channel, against every registration.
#[test]
fn nobody_touches_the_registration_of_another() {
    let mut scene = Scene::new();
    let devices = [
        sim(1),
        sim(2),
        sim(3).secured(9, Security::ServerKey),
        // The same SIM without its key.
        sim(3),
    ];
    let locations: Vec<_> =
        devices[..3].iter().map(|device| scene.register(*device, "lt=600", LINKS)).collect();
    for (owner, location) in locations.iter().enumerate() {
        for (other, device) in devices.iter().enumerate() {
            if owner == other {
                continue;
            }
            scene.ask(*device, Code::POST, location, None).sends(&["ACK 4.04"]);
            scene.ask(*device, Code::DELETE, location, None).sends(&["ACK 4.04"]);
        }
    }
    // Nor does a datagram of another move it.
    assert_eq!(scene.registry.contact(iccid(3)), Some(devices[2].contact));
    assert_eq!(scene.registry.len(), 3);
    for (device, location) in devices.iter().zip(&locations) {
        scene.ask(*device, Code::POST, location, None).sends(&["ACK 2.04"]);
    }
}

#[test]
fn the_key_of_the_channel_decides_what_it_is_for() {
    let mut scene = Scene::new();
    let device = sim(1).secured(5, Security::BootstrapKey);
    let step = scene.ask(device, Code::POST, "/rd", Some((40, b"</3/0>")));
    step.sends(&["ACK 4.03 [registering needs the key that bootstrapping gives]"]);
    let device = sim(1).secured(6, Security::ServerKey);
    scene
        .ask(device, Code::POST, "/bs", None)
        .sends(&["ACK 4.03 [bootstrapping needs the bootstrap key]"]);
}

/// A plain request from the SIM's address replaced the registration that the device had made with
/// its key, and what waited for the device went out in clear.
#[test]
fn a_registration_made_with_a_key_is_not_replaced_without_one() {
    let mut scene = Scene::new();
    let secured = sim(1).secured(5, Security::ServerKey);
    let refusal = "ACK 4.03 [the device is registered with a key, which registering needs]";
    // Asked for before the key was used, and durable afterwards.
    let plain = scene.ask(sim(1), Code::POST, "/rd?lt=60", None).ticket();
    scene.register(secured, "lt=600&b=UQ", LINKS);
    scene.at(100);
    scene.command(secured, 5, scene::read("/3303")).sends(&[]);
    let step = scene.settle(0, plain, Verdict::Done);
    step.sends(&[refusal]);
    let fresh = lwm2m::Registry::new(RegistryLimits::default());
    fresh.restore(iccid(1), &step.state().unwrap(), None).unwrap();
    assert_eq!(fresh.snapshot(iccid(1)).unwrap().security, Security::ServerKey);
    let step = scene.ask(sim(1), Code::POST, "/rd?lt=60", None);
    step.sends(&[refusal]);
    assert_eq!(step.notices(), ["Lwm2m[RegistrationRefused]"]);
    assert_eq!(scene.registry.contact(iccid(1)), Some(secured.contact));
    // Once it has expired, the address is enough; what waited is not sent in clear.
    scene.at(900);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=60", None).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    step.sends(&["ACK 2.01"]);
    assert_eq!(step.ended(), [(5, "not registered".to_owned())]);
    // Nor does it wait for the key.
    scene.at(1_000);
    scene.register(sim(1), "lt=600&b=UQ", LINKS);
    scene.at(1_100);
    scene.command(sim(1), 6, scene::read("/3303")).sends(&[]);
    let ticket = scene.ask(secured, Code::POST, "/rd?lt=60", None).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    step.sends(&["ACK 2.01"]);
    assert_eq!(step.ended(), [(6, "not registered".to_owned())]);
}

#[test]
fn a_deregistration_is_answered_once_it_is_durable() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=60&b=UQ", LINKS);
    scene.at(100);
    scene.command(sim(1), 5, scene::read("/3303")).sends(&[]);
    let step = scene.ask(sim(1), Code::DELETE, &location, None);
    assert!(matches!(step.events[..], [Event::Save { state: None, .. }]));
    assert!(step.sent.is_empty(), "{:?}", step.says());
    let ticket = step.ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    step.sends(&["ACK 2.02"]);
    assert_eq!(step.ended(), [(5, "not registered".to_owned())]);
    assert!(!scene.registry.is_registered(iccid(1)));
    scene.ask(sim(1), Code::DELETE, &location, None).sends(&["ACK 4.04"]);
}

#[test]
fn a_registration_from_a_new_address_replaces_the_one_before() {
    let mut scene = Scene::new();
    let first = scene.register(sim(1), "lt=600", LINKS);
    let token = scene.observe(sim(1), "/3303/0/5700");
    assert_eq!(scene.registry.observations(), 1);
    let moved = sim(1).at(1, "10.9.9.9:1234");
    let second = scene.register(moved, "lt=600", LINKS);
    assert_ne!(first, second);
    assert_eq!((scene.registry.len(), scene.registry.observations()), (1, 0));
    assert_eq!(scene.registry.contact(iccid(1)), Some(moved.contact));
    scene.ask(moved, Code::POST, &first, None).sends(&["ACK 4.04"]);
    // Its observations ended with it.
    scene.receive(moved, &scene::notify(9, &token, 2, b"2")).sends(&["RST 0.00"]);
}

#[test]
fn what_was_saved_while_a_registration_waited_does_not_come_back() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600", LINKS);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=300", Some((40, b"</3/0>"))).ticket();
    // The device is heard elsewhere meanwhile, and its old registration is given out.
    let step = scene.ask(sim(1).at(0, "10.0.0.1:999"), Code::GET, "/x", None);
    assert!(step.state().is_some());
    let step = scene.settle(0, ticket, Verdict::Done);
    let fresh = lwm2m::Registry::new(RegistryLimits::default());
    fresh.restore(iccid(1), &step.state().unwrap(), None).unwrap();
    assert_eq!(fresh.snapshot(iccid(1)).unwrap().lifetime_seconds, 300);
}

/// The lifetime that a restart would find.
#[track_caller]
fn saved_lifetime(step: &Step) -> u32 {
    let fresh = lwm2m::Registry::new(RegistryLimits::default());
    fresh.restore(iccid(1), &step.state().unwrap(), None).unwrap();
    fresh.snapshot(iccid(1)).unwrap().lifetime_seconds
}

/// The state of an update that waited was written after a newer one, and came back with a restart.
#[test]
fn what_was_saved_while_an_update_waited_is_saved_again() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600", LINKS);
    let ticket = scene.ask(sim(1), Code::POST, &location, Some((40, b"</3/0>"))).ticket();
    scene.ask(sim(1), Code::POST, &format!("{location}?lt=300"), None).sends(&["ACK 2.04"]);
    let step = scene.settle(0, ticket, Verdict::Done);
    assert_eq!(saved_lifetime(&step), 300);
    // Of one that ended meanwhile nothing comes back.
    let update = scene.ask(sim(1), Code::POST, &location, Some((40, b"</3/1>"))).ticket();
    let end = scene.ask(sim(1), Code::DELETE, &location, None).ticket();
    scene.settle(0, end, Verdict::Done).sends(&["ACK 2.02"]);
    let step = scene.settle(0, update, Verdict::Done);
    assert_eq!(step.state(), None);
    // Nothing is saved twice without need.
    let location = scene.register(sim(1), "lt=600", LINKS);
    let ticket = scene.ask(sim(1), Code::POST, &location, Some((40, b"</3/0>"))).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    assert!(matches!(step.events[..], [Event::Awake { .. }]), "{step:?}");
}

/// The state of an expired registration was deleted after its device had registered again.
#[test]
fn a_registration_outlives_the_deletion_of_the_one_before() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=60", LINKS);
    scene.at(400);
    // Expired before the device asked, and while it waits.
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=70", None).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    assert_eq!(saved_lifetime(&step), 70);
    scene.at(800);
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=80", None).ticket();
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    let step = scene.settle(0, ticket, Verdict::Done);
    assert_eq!(saved_lifetime(&step), 80);
    // Once the owner is through with it, one write is enough.
    scene.at(1_200);
    assert_eq!(scene.registry.expired(scene.moment.at, 10), [iccid(1)]);
    assert!(scene.registry.expired(scene.moment.at, 10).is_empty());
    let ticket = scene.ask(sim(1), Code::POST, "/rd?lt=90", None).ticket();
    let step = scene.settle(0, ticket, Verdict::Done);
    assert!(matches!(step.events[..], [Event::Awake { .. }]), "{step:?}");
}

/// A device registered on two sockets at once: memory had the one that was settled last, the disk
/// the one that was written last.
#[test]
fn of_two_registrations_at_once_the_newer_stays() {
    for first_to_settle in [0, 1] {
        let mut scene = Scene::new();
        let elsewhere = sim(1).at(1, "10.9.9.9:1234");
        let older = scene.ask(sim(1), Code::POST, "/rd?lt=300", None).ticket();
        let newer = scene.ask(elsewhere, Code::POST, "/rd?lt=600", None).ticket();
        let last = if first_to_settle == 0 {
            scene.settle(0, older, Verdict::Done).sends(&["ACK 2.01"]);
            let step = scene.settle(1, newer, Verdict::Done);
            step.sends(&["ACK 2.01"]);
            step
        } else {
            scene.settle(1, newer, Verdict::Done).sends(&["ACK 2.01"]);
            let step = scene.settle(0, older, Verdict::Done);
            step.sends(&["ACK 5.03 max-age=2"]);
            step
        };
        assert_eq!(saved_lifetime(&last), 600);
        let registration = scene.registry.snapshot(iccid(1)).unwrap();
        assert_eq!(registration.lifetime_seconds, 600);
        assert_eq!(registration.contact, Some(elsewhere.contact));
    }
}

/// A device left and came back at once: its end was written after its new beginning.
#[test]
fn a_registration_outlives_a_deregistration_under_way() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=600", LINKS);
    let end = scene.ask(sim(1), Code::DELETE, &location, None).ticket();
    scene.register(sim(1), "lt=300", LINKS);
    let step = scene.settle(0, end, Verdict::Done);
    step.sends(&["ACK 2.02"]);
    assert_eq!(saved_lifetime(&step), 300);
}

#[test]
fn limits_are_answered_and_counted() {
    let limits = RegistryLimits { registrations_max: 1, ..RegistryLimits::default() };
    let mut scene = Scene::with(config(), limits);
    scene.register(sim(1), "lt=600", LINKS);
    scene.ask(sim(2), Code::POST, "/rd", None).sends(&["ACK 5.03 max-age=60"]);
    // The one that is there may come again.
    scene.register(sim(1), "lt=600", LINKS);
    let mut scene =
        Scene::with(lwm2m::ServerConfig { tickets_max: 0, ..config() }, RegistryLimits::default());
    scene.ask(sim(1), Code::POST, "/rd", None).sends(&["ACK 5.03 max-age=2"]);
    assert_eq!(scene.servers[0].counters().overloaded, 1);
}

#[test]
fn sent_values_are_answered_once_all_are_durable() {
    let mut scene = Scene::new();
    // Of a device that is not registered: it shall register.
    let body = br#"[{"bn":"/3303/0/","n":"5700","v":21.5}]"#;
    scene.ask(sim(1), Code::POST, "/dp", Some((110, body))).sends(&["ACK 4.04"]);
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let step = scene.ask(sim(1), Code::POST, "/dp", Some((110, body)));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":21.5}"#]);
    let ticket = step.ticket();
    scene.settle(0, ticket, Verdict::Done).sends(&["ACK 2.04"]);
    // Two moments are two uplinks with one ticket.
    let body = br#"[{"bn":"/3303/0/5700","bt":1.6e9,"v":1},{"t":60,"v":2}]"#;
    let step = scene.ask(sim(1), Code::POST, "/dp", Some((110, body)));
    assert_eq!(step.uplinks(), [r#"{"/3303/0/5700":1.0}"#, r#"{"/3303/0/5700":2.0}"#]);
    let parts = step.events.iter().map(|event| match event {
        Event::Uplink { measured_at: Some(at), exchange: Some(exchange), .. } => {
            (at.as_millis() / 1_000, exchange.part)
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(parts.collect::<Vec<_>>(), [(1_600_000_000, 0), (1_600_000_060, 1)]);
    let tickets = step.tickets();
    assert_eq!(tickets[0], tickets[1]);
    scene.settle(0, tickets[0], Verdict::Done).sends(&[]);
    scene.settle(0, tickets[0], Verdict::Done).sends(&["ACK 2.04"]);
    // One that cannot be kept refuses all.
    let step = scene.ask(sim(1), Code::POST, "/dp", Some((110, body)));
    let full = Verdict::Unavailable { retry_after_seconds: 3, too_fast: false };
    scene.settle(0, step.tickets()[0], full).sends(&[]);
    scene.settle(0, step.tickets()[0], Verdict::Done).sends(&["ACK 5.03 max-age=3"]);
}

#[test]
fn bad_sends_are_refused_with_the_reason() {
    let mut scene = Scene::new();
    scene.register(sim(1), "lt=600&lwm2m=1.1", LINKS);
    let code = |step: Step| MessageRef::parse(&step.sent[0].1).unwrap().code;
    let mut send = |format, payload: &[u8]| {
        let step = scene.ask(sim(1), Code::POST, "/dp", Some((format, payload)));
        assert!(step.uplinks().is_empty());
        code(step)
    };
    assert_eq!(send(scene::TLV, b"\xc1\x00\x01"), Code::UNSUPPORTED_CONTENT_FORMAT);
    assert_eq!(send(110, b"[{"), Code::BAD_REQUEST);
    assert_eq!(send(110, b"[]"), Code::BAD_REQUEST);
    // CBOR bombs: lengths that lie, and depth.
    assert_eq!(
        send(112, &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Code::BAD_REQUEST
    );
    assert_eq!(send(112, &[0x81; 1_000]), Code::BAD_REQUEST);
    assert_eq!(send(112, b"\x81\xa2\x21\x7b\xff\xff\xff\xff\xff\xff\xff\xff"), Code::BAD_REQUEST);
    // An object that is not registered; an instance may be new.
    assert_eq!(send(110, br#"[{"n":"/3304/0/5700","v":1}]"#), Code::NOT_FOUND);
    let step =
        scene.ask(sim(1), Code::POST, "/dp", Some((110, br#"[{"n":"/3303/7/5700","v":1}]"#)));
    assert_eq!(step.uplinks(), [r#"{"/3303/7/5700":1.0}"#]);
}

#[test]
fn a_request_of_a_lost_registration_says_so_only_to_its_device() {
    let mut scene = Scene::new();
    let location = scene.register(sim(1), "lt=60", LINKS);
    // A copy of the update from elsewhere, by another SIM, is no copy.
    let update = request(7, Code::POST, &location, None);
    scene.receive(sim(1), &update).sends(&["ACK 2.04"]);
    scene.receive(sim(2), &update).sends(&["ACK 4.04"]);
}
