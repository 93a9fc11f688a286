//! Scripts of bootstraps: what a device asks, what is deleted and written, what goes wrong.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may unwrap as tests do")]

#[expect(dead_code, reason = "each test binary uses a part")]
mod scene;

use coap::wire::{Code, Encoder, MessageId, MessageRef, MessageType, OptionNumber, Token};
use lwm2m::codec;
use lwm2m::{
    BootstrapOutcome, ContentFormat, Event, Model, Path, RegistryLimits, Security, ServerConfig,
    Verdict, flat_json,
};
use scene::{Scene, Sim, Step, answer, config, describe, iccid, sim};
use zeroize::Zeroizing;

/// Answers the step under way and gives the next one.
fn go_on(scene: &mut Scene, sim: Sim, step: &Step, code: Code) -> Step {
    let asked = &step.sent.last().unwrap().1;
    let done = answer(asked, code, None, None);
    scene.receive(sim, &done)
}

/// What a write says, as flat JSON.
fn written(step: &Step) -> (String, String) {
    let bytes = &step.sent.last().unwrap().1;
    let message = MessageRef::parse(bytes).unwrap();
    assert_eq!(message.code, Code::PUT);
    let base: Path = message
        .options()
        .filter(|option| option.number == OptionNumber::URI_PATH)
        .map(|option| format!("/{}", option.as_str().unwrap()))
        .collect::<String>()
        .parse()
        .unwrap();
    let format = message.option(OptionNumber::CONTENT_FORMAT).unwrap().value;
    let format =
        u16::from_be_bytes(if let [one] = format { [0, *one] } else { format.try_into().unwrap() });
    let model = Model::builtin();
    let records =
        codec::decode(ContentFormat(format), &base, message.payload, &model, 0.0).unwrap();
    (base.to_string(), String::from_utf8(flat_json(&records)).unwrap())
}

fn keys() -> Verdict {
    Verdict::Key {
        identity: iccid(1).to_string(),
        key: Zeroizing::new(b"sixteen-letters!".to_vec()),
        bootstrap_key: Some(Zeroizing::new(b"bootstrap".to_vec())),
    }
}

fn outcomes(step: &Step) -> Vec<BootstrapOutcome> {
    let outcomes = step.events.iter().filter_map(|event| match event {
        Event::BootstrapEnded { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    outcomes.collect()
}

#[test]
fn a_plain_bootstrap_deletes_and_writes_both_accounts() {
    let mut scene = Scene::new();
    // The official demo: four bytes of token, pct for SenML JSON.
    let mut bytes = Vec::new();
    let token = Token::new(b"wkma").unwrap();
    Encoder::new(&mut bytes, MessageType::Confirmable, Code::POST, MessageId(1), token)
        .texts(OptionNumber::URI_PATH, ["bs"])
        .texts(OptionNumber::URI_QUERY, ["ep=8988280666000000001", "pct=110"])
        .finish()
        .unwrap();
    let step = scene.receive(sim(1), &bytes);
    assert_eq!(step.sent[0].1, b"\x64\x44\x00\x01wkma");
    assert_eq!(step.says()[1], "CON 0.04 /");
    let step = go_on(&mut scene, sim(1), &step, Code::DELETED);
    let json = "[{\"bn\":\"/0/0/\",\"n\":\"0\",\"vs\":\"coap://192.0.2.1:5683\"},\
        {\"n\":\"1\",\"vb\":false},{\"n\":\"2\",\"v\":3},{\"n\":\"10\",\"v\":1111}]";
    step.sends(&[&format!("CON 0.03 /0/0 format=110 [{json}]")]);
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    let account =
        r#"{"/0/1/0":"coap://lwm2m.example:5683","/0/1/1":true,"/0/1/2":3,"/0/1/10":2222}"#;
    assert_eq!(written(&step), ("/0/1".to_owned(), account.to_owned()));
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    let server = r#"{"/1/0/0":1111,"/1/0/1":86400,"/1/0/2":1,"/1/0/6":true,"/1/0/7":"U"}"#;
    assert_eq!(written(&step), ("/1/0".to_owned(), server.to_owned()));
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    step.sends(&["CON 0.02 /bs"]);
    assert_eq!(scene.servers[0].bootstraps(), 1);
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    step.sends(&[]);
    assert_eq!(outcomes(&step), [BootstrapOutcome::Done]);
    assert_eq!(scene.servers[0].bootstraps(), 0);
}

#[test]
fn a_bootstrap_in_tlv_has_these_bytes() {
    let mut scene = Scene::new();
    let step = scene.ask(sim(1), Code::POST, "/bs?ep=8988280666000000001", None);
    step.sends(&["ACK 2.04", "CON 0.04 /"]);
    let step = go_on(&mut scene, sim(1), &step, Code::DELETED);
    let uri = "c80015636f61703a2f2f3139322e302e322e313a35363833";
    step.sends(&[&format!("CON 0.03 /0/0 format=11542 <{uri}c10100c10203c20a0457>")]);
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    step.sends(&["CON 0.03 /1/0 format=11542 <c2000457c40100015180c10201c10601c10755>"]);
}

#[test]
fn a_secure_bootstrap_hands_out_a_fresh_key() {
    let mut scene = Scene::new();
    let device = sim(1).secured(4, Security::BootstrapKey);
    let step = scene.ask(device, Code::POST, "/bs?ep=8988280666000000001", None);
    step.sends(&[]);
    let [Event::NeedKey { ticket, .. }] = step.events[..] else { panic!("{step:?}") };
    let step = scene.settle(0, ticket, keys());
    step.sends(&["ACK 2.04", "CON 0.04 /"]);
    let step = go_on(&mut scene, device, &step, Code::DELETED);
    // Opaque: base64 of the identity and of the key.
    let server = concat!(
        r#"{"/0/0/0":"coaps://192.0.2.1:5684","/0/0/1":false,"/0/0/2":0,"#,
        r#""/0/0/3":"ODk4ODI4MDY2NjAwMDAwMDAwMQ==","/0/0/5":"c2l4dGVlbi1sZXR0ZXJzIQ==","#,
        r#""/0/0/10":1111}"#
    );
    assert_eq!(written(&step), ("/0/0".to_owned(), server.to_owned()));
    let step = go_on(&mut scene, device, &step, Code::CHANGED);
    let own = written(&step).1;
    assert!(own.contains(r#""/0/1/2":0"#) && own.contains(r#""/0/1/5":"Ym9vdHN0cmFw""#), "{own}");
    // Keys are not shown.
    assert!(!format!("{:?}", scene.servers[0]).contains("sixteen"));
    assert!(!format!("{:?}", keys()).contains("bootstrap"));
}

#[test]
fn a_bootstrap_without_a_durable_key_is_none() {
    let mut scene = Scene::new();
    let device = sim(1).secured(4, Security::BootstrapKey);
    let ticket = scene.ask(device, Code::POST, "/bs", None).ticket();
    let full = Verdict::Unavailable { retry_after_seconds: 30, too_fast: false };
    scene.settle(0, ticket, full).sends(&["ACK 5.03 max-age=30"]);
    let ticket = scene.ask(device, Code::POST, "/bs", None).ticket();
    scene.settle(0, ticket, Verdict::Done).sends(&["ACK 5.03 max-age=2"]);
    assert_eq!(scene.servers[0].bootstraps(), 0);
    // Where the bootstrap key is not known, that account is left alone.
    let ticket = scene.ask(device, Code::POST, "/bs", None).ticket();
    let Verdict::Key { identity, key, .. } = keys() else { return };
    let step = scene.settle(0, ticket, Verdict::Key { identity, key, bootstrap_key: None });
    let step = go_on(&mut scene, device, &step, Code::DELETED);
    let step = go_on(&mut scene, device, &step, Code::CHANGED);
    assert_eq!(written(&step).0, "/1/0");
}

#[test]
fn a_client_that_does_not_delete_its_root_deletes_objects() {
    for code in [Code::METHOD_NOT_ALLOWED, Code::NOT_FOUND, Code::BAD_REQUEST] {
        let mut scene = Scene::new();
        let step = scene.ask(sim(1), Code::POST, "/bs", None);
        let step = go_on(&mut scene, sim(1), &step, code);
        step.sends(&["CON 0.04 /0"]);
        let step = go_on(&mut scene, sim(1), &step, code);
        step.sends(&["CON 0.04 /1"]);
        let step = go_on(&mut scene, sim(1), &step, code);
        assert_eq!(written(&step).0, "/0/0");
        let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
        // A client may keep its own bootstrap account.
        let step = go_on(&mut scene, sim(1), &step, code);
        assert_eq!(written(&step).0, "/1/0");
    }
}

#[test]
fn another_format_is_tried_once() {
    let mut scene = Scene::new();
    let step = scene.ask(sim(1), Code::POST, "/bs?pct=112", None);
    let step = go_on(&mut scene, sim(1), &step, Code::DELETED);
    assert!(step.says()[0].starts_with("CON 0.03 /0/0 format=112"));
    let step = go_on(&mut scene, sim(1), &step, Code::UNSUPPORTED_CONTENT_FORMAT);
    assert!(step.says()[0].starts_with("CON 0.03 /0/0 format=11542"));
    let step = go_on(&mut scene, sim(1), &step, Code::UNSUPPORTED_CONTENT_FORMAT);
    step.sends(&[]);
    let reason = "the device answered 4.15".to_owned();
    assert_eq!(outcomes(&step), [BootstrapOutcome::Failed { step: "write /0/0", reason }]);
    assert_eq!(step.notices(), ["Lwm2m[BootstrapFailed]"]);
}

#[test]
fn a_refused_finish_or_a_silent_device_ends_a_bootstrap() {
    let mut scene = Scene::new();
    let mut step = scene.ask(sim(1), Code::POST, "/bs", None);
    for _ in 0..4 {
        step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    }
    let step = go_on(&mut scene, sim(1), &step, Code::NOT_ACCEPTABLE);
    let reason = "the device answered 4.06".to_owned();
    assert_eq!(outcomes(&step), [BootstrapOutcome::Failed { step: "finish", reason }]);

    scene.ask(sim(1), Code::POST, "/bs", None);
    let step = scene.pass(0, 0..120);
    assert_eq!(step.sent.len(), 4);
    let reason = "the peer did not respond in time".to_owned();
    assert_eq!(outcomes(&step), [BootstrapOutcome::Failed { step: "delete /", reason }]);
    assert_eq!(scene.servers[0].bootstraps(), 0);
}

#[test]
fn a_device_that_begins_again_has_one_bootstrap() {
    let mut scene = Scene::new();
    let first = scene.ask(sim(1), Code::POST, "/bs", None);
    let moved = sim(1).at(0, "10.7.7.7:5683");
    let second = scene.ask(moved, Code::POST, "/bs", None);
    second.sends(&["ACK 2.04", "CON 0.04 /"]);
    let reason = "the device began again".to_owned();
    assert_eq!(outcomes(&second), [BootstrapOutcome::Failed { step: "delete /", reason }]);
    // Nothing goes to where the device was; its answer from there is late.
    let repeated = scene.pass(0, 0..4).sent;
    assert!(!repeated.is_empty() && repeated.iter().all(|(to, _)| *to == moved.contact));
    go_on(&mut scene, sim(1), &first, Code::DELETED).sends(&[]);
    let step = go_on(&mut scene, moved, &second, Code::DELETED);
    assert_eq!(written(&step).0, "/0/0");
    assert_eq!(scene.servers[0].bootstraps(), 1);
}

#[test]
fn the_device_may_be_asked_first_what_it_has() {
    let discover = ServerConfig { bootstrap_discover: true, ..config() };
    let mut scene = Scene::with(discover, RegistryLimits::default());
    let step = scene.ask(sim(1), Code::POST, "/bs", None);
    step.sends(&["ACK 2.04", "CON 0.01 / accept=40"]);
    let links = b"</>;lwm2m=1.1,</0>,</0/5>,</0/6>;ssid=1111,</1/0>;ssid=1111,</3/0>";
    let found = answer(&step.sent[1].1, Code::CONTENT, None, Some((40, links)));
    let step = scene.receive(sim(1), &found);
    step.sends(&["CON 0.04 /"]);
    let step = go_on(&mut scene, sim(1), &step, Code::DELETED);
    let step = go_on(&mut scene, sim(1), &step, Code::CHANGED);
    // Its bootstrap account is written where it is.
    assert_eq!(written(&step).0, "/0/5");
    // A device that cannot tell is none the worse.
    let step = scene.ask(sim(2), Code::POST, "/bs", None);
    go_on(&mut scene, sim(2), &step, Code::METHOD_NOT_ALLOWED).sends(&["CON 0.04 /"]);
}

#[test]
fn bootstraps_are_refused_in_the_name_of_another_and_beyond_the_limit() {
    let limited = ServerConfig { bootstraps_max: 1, ..config() };
    let mut scene = Scene::with(limited, RegistryLimits::default());
    let step = scene.ask(sim(1), Code::POST, "/bs?ep=8988280666000000002", None);
    step.sends(&["ACK 4.03 [the endpoint name must be the ICCID of the device]"]);
    assert_eq!(step.notices().len(), 2);
    scene.ask(sim(1), Code::GET, "/bs", None).sends(&["ACK 4.05"]);
    scene.ask(sim(1), Code::POST, "/bs", None);
    scene.ask(sim(2), Code::POST, "/bs", None).sends(&["ACK 5.03 max-age=60"]);
}

#[test]
fn a_bootstrap_pack_holds_the_same_in_one_answer() {
    let mut scene = Scene::new();
    let step = scene.ask(sim(1), Code::GET, "/bspack?ep=8988280666000000001", None);
    let message = MessageRef::parse(&step.sent[0].1).unwrap();
    assert_eq!(message.code, Code::CONTENT);
    let model = Model::builtin();
    let format = ContentFormat::SENML_CBOR;
    let records = codec::decode(format, &Path::ROOT, message.payload, &model, 0.0).unwrap();
    let json = String::from_utf8(flat_json(&records)).unwrap();
    let expected = concat!(
        r#"{"/0/0/0":"coap://192.0.2.1:5683","/0/0/1":false,"/0/0/2":3,"/0/0/10":1111,"#,
        r#""/0/1/0":"coap://lwm2m.example:5683","/0/1/1":true,"/0/1/2":3,"/0/1/10":2222,"#,
        r#""/1/0/0":1111,"/1/0/1":86400,"/1/0/2":1,"/1/0/6":true,"/1/0/7":"U"}"#
    );
    assert_eq!(json, expected);
    assert_eq!(outcomes(&step), [BootstrapOutcome::Done]);
    let accept = |id: u16, format: u32| {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, MessageType::Confirmable, Code::GET, MessageId(id), Token::EMPTY)
            .texts(OptionNumber::URI_PATH, ["bspack"])
            .uint(OptionNumber::ACCEPT, format)
            .finish()
            .unwrap();
        bytes
    };
    let step = scene.receive(sim(1), &accept(1, 110));
    assert!(describe(&step.sent[0].1).starts_with("ACK 2.05 format=110 [[{"));
    scene.receive(sim(1), &accept(2, 41)).sends(&["ACK 4.06 [allowed: 110 and 112]"]);
    // Over DTLS it waits for a key.
    let device = sim(2).secured(4, Security::BootstrapKey);
    let step = scene.receive(device, &accept(3, 112));
    let step = scene.settle(0, step.ticket(), keys());
    let message = MessageRef::parse(&step.sent[0].1).unwrap();
    assert!(message.payload.windows(16).any(|part| part == b"sixteen-letters!"));
}

/// Each copy of the request made another key, and the one that the device had taken from the first
/// answer was worth nothing.
#[test]
fn a_copy_of_the_request_for_a_bootstrap_pack_gets_the_same_key() {
    let mut scene = Scene::new();
    let device = sim(1).secured(4, Security::BootstrapKey);
    let bytes = scene::request(7, Code::GET, "/bspack", None);
    let ticket = scene.receive(device, &bytes).ticket();
    // While it waits, and after it was answered.
    let copy = scene.receive(device, &bytes);
    assert!(copy.sent.is_empty() && copy.events.is_empty());
    let first = scene.settle(0, ticket, keys());
    assert!(describe(&first.sent[0].1).starts_with("ACK 2.05 format=112"));
    scene.at(60);
    let copy = scene.receive(device, &bytes);
    assert!(copy.events.is_empty(), "{copy:?}");
    assert_eq!(copy.sent, first.sent);
    assert!(!format!("{:?}", scene.servers[0]).contains("sixteen"));
    // After the lifetime of the exchange it is forgotten (RFC 7252 §4.8.2).
    scene.at(300);
    assert!(matches!(scene.receive(device, &bytes).events[..], [Event::NeedKey { .. }]));
}
