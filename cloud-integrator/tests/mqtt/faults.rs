//! The MQTT sink with a broker that misbehaves: a small server of MQTT 5 that does as its script
//! says, byte by byte (fault F16: throttled, no PUBACK, sent away, taken over, nonsense).

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_integrator::{
    Failure, FailureClass, MqttLimits, MqttPurpose, MqttSink, MqttTarget, Outcome, Sink,
};

use super::fake_broker::{self, FakeBroker, Session, puback};
use super::sinks::{PATIENCE, client, hasty, message, plain, retry, sink};

/// A sink for `broker` with attempts of 300 ms.
fn impatient(broker: &FakeBroker) -> MqttSink {
    let limits = MqttLimits { attempt: Duration::from_millis(300), ..hasty() };
    sink(&plain(broker.port), limits)
}

async fn failed(sink: &MqttSink) -> Failure {
    retry(sink.deliver(vec![message(1)]).await)
}

#[tokio::test]
async fn without_puback_an_event_counts_as_not_delivered() {
    let broker = FakeBroker::start(|mut session| async move {
        session.greet().await;
        session.until_closed().await;
    })
    .await;
    let failure = failed(&impatient(&broker)).await;
    assert_eq!(failure.to_string(), "timeout: no PUBACK within 300 ms");
}

#[tokio::test]
async fn a_broker_that_owes_too_many_pubacks_is_left_and_what_follows_arrives() {
    let broker = FakeBroker::start(|mut session| async move {
        // The first session acknowledges nothing, and grants four.
        let first = session.number == 1;
        let properties: &[u8] = if first { &[0x21, 0, 4] } else { &[] };
        session.greet_with(properties).await;
        while let Some(publish) = session.publish().await {
            if !first {
                session.send(&puback(publish.packet_id, 0)).await;
            }
        }
    })
    .await;
    let sink = Arc::new(impatient(&broker));
    let start = Instant::now();
    while sink.deliver(vec![message(1)]).await != Outcome::Delivered {
        assert!(start.elapsed() < PATIENCE, "the session is not left");
    }
    assert_eq!(broker.sessions(), 2);
}

#[tokio::test]
async fn a_throttled_event_is_told_and_sent_again_with_the_same_id() {
    let broker = FakeBroker::start(|mut session| async move {
        session.greet().await;
        let mut code = 0x97;
        while let Some(publish) = session.publish().await {
            session.note(&publish);
            session.send(&puback(publish.packet_id, code)).await;
            // No matching subscribers is a success.
            code = 0x10;
        }
    })
    .await;
    let sink = impatient(&broker);
    let failure = failed(&sink).await;
    assert_eq!((failure.class, failure.answer.unwrap().code), (FailureClass::Throttled, 0x97));
    assert_eq!(sink.deliver(vec![message(1)]).await, Outcome::Delivered);
    let notes = broker.notes();
    assert_eq!(notes.len(), 2);
    assert_eq!(notes[0], notes[1]);
    assert!(notes[0].contains(&message(1).id.to_string()));
}

#[tokio::test]
async fn refusals_of_one_event_have_their_classes() {
    let codes = [
        (0x87, FailureClass::Credentials),
        (0x90, FailureClass::Refused),
        (0x99, FailureClass::Refused),
        (0x83, FailureClass::Status),
    ];
    let broker = FakeBroker::start(move |mut session| async move {
        session.greet().await;
        for (code, _) in codes {
            let Some(publish) = session.publish().await else { return };
            session.send(&puback(publish.packet_id, code)).await;
        }
        session.until_closed().await;
    })
    .await;
    let sink = impatient(&broker);
    for (code, class) in codes {
        let failure = failed(&sink).await;
        assert_eq!((failure.class, failure.answer.unwrap().code), (class, u16::from(code)));
    }
    assert_eq!(broker.sessions(), 1);
}

#[tokio::test]
async fn what_was_in_flight_when_the_session_was_taken_over_is_not_resent_by_itself() {
    let broker = FakeBroker::start(|mut session| async move {
        session.greet().await;
        while let Some(publish) = session.publish().await {
            session.note(&publish);
            if session.number == 1 {
                // DISCONNECT, session taken over, with a reason string.
                session.send(&[0xE0, 8, 0x8E, 6, 0x1F, 0, 3, b'w', b'h', b'y']).await;
                return;
            }
            session.send(&puback(publish.packet_id, 0)).await;
        }
    })
    .await;
    let sink = impatient(&broker);
    let failure = failed(&sink).await;
    assert_eq!(failure.class, FailureClass::Transport);
    assert!(failure.text.contains("another client connected with the same client id"));
    let answer = failure.answer.unwrap();
    assert_eq!((answer.code, answer.text.as_str()), (0x8E, "why"));
    let start = Instant::now();
    while sink.deliver(vec![message(2)]).await != Outcome::Delivered {
        assert!(start.elapsed() < PATIENCE, "the sink does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let notes = broker.notes();
    assert_eq!(notes.len(), 2, "one publish for each attempt: {notes:?}");
    assert!(notes[0].contains(&message(1).id.to_string()));
    assert!(notes[1].contains(&message(2).id.to_string()));
}

#[tokio::test]
async fn a_refused_connection_says_why() {
    let cases = [
        (0x84, FailureClass::Status, "it speaks no MQTT 5"),
        (0x86, FailureClass::Credentials, "bad user name or password"),
        (0x87, FailureClass::Credentials, "not authorised"),
        (0x88, FailureClass::Throttled, "server unavailable"),
        (0x97, FailureClass::Throttled, "quota exceeded"),
        (0xF3, FailureClass::Status, "unknown reason"),
    ];
    for (code, class, text) in cases {
        let broker = FakeBroker::start(move |mut session| async move {
            session.connect().await;
            session.send(&[0x20, 3, 0, code, 0]).await;
        })
        .await;
        let failure = failed(&impatient(&broker)).await;
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.text.contains(text), "{failure}");
        assert_eq!(failure.answer.unwrap().code, u16::from(code));
    }
}

#[tokio::test]
async fn a_broker_of_mqtt_3_is_told_as_such() {
    let broker = FakeBroker::start(|mut session| async move {
        session.connect().await;
        session.send(&[0x20, 2, 0, 1]).await;
    })
    .await;
    let failure = failed(&impatient(&broker)).await;
    assert_eq!(failure.to_string(), "status: the broker answered in MQTT 3: it speaks no MQTT 5");
}

#[tokio::test]
async fn what_is_no_mqtt_ends_the_session_and_nothing_else() {
    let nonsense: [&[u8]; 8] = [
        // Not a packet, an endless one, one that says it is longer than it is, HTTP.
        &[0xFF; 64],
        &[0x40, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1],
        &[0x40, 4, 0, 1, 0, 0x7F],
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
          This is a server of the web",
        // PUBACK for what was never sent and for 0; a PUBLISH; a second CONNACK.
        &[0x40, 2, 0x77, 0x77],
        &[0x40, 2, 0, 0],
        &[0x30, 4, 0, 1, b'a', 0],
        &[0x20, 3, 0, 0, 0],
    ];
    let broker = FakeBroker::start(move |mut session| async move {
        session.greet().await;
        let Some(publish) = session.publish().await else { return };
        match nonsense.get(session.number - 1) {
            Some(bytes) => session.send(bytes).await,
            None => session.send(&puback(publish.packet_id, 0)).await,
        }
        session.until_closed().await;
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    let (mut failures, start) = (0, Instant::now());
    while broker.sessions() <= nonsense.len() {
        assert!(start.elapsed() < PATIENCE, "a session does not end");
        match sink.deliver(vec![message(1)]).await {
            Outcome::Delivered => break,
            outcome => assert_eq!(retry(outcome).class, FailureClass::Transport),
        }
        failures += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(failures >= nonsense.len());
}

#[tokio::test]
async fn nonsense_instead_of_connack_is_a_failure_too() {
    let nonsense: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0x20, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x20, 0],
        &[0xD0, 0],
        &[],
    ];
    for bytes in nonsense {
        let broker = FakeBroker::start(move |mut session| async move {
            session.connect().await;
            session.send(bytes).await;
        })
        .await;
        let failure = failed(&sink(&plain(broker.port), hasty())).await;
        assert_eq!(failure.class, FailureClass::Transport, "{failure}");
    }
}

#[tokio::test]
async fn never_a_connack_is_a_timeout() {
    let broker = FakeBroker::start(|mut session| async move {
        session.connect().await;
        session.until_closed().await;
    })
    .await;
    let limits = MqttLimits { connect: Duration::from_millis(100), ..hasty() };
    let failure = failed(&sink(&plain(broker.port), limits)).await;
    assert_eq!(failure.to_string(), "timeout: no session within 100 ms");
}

/// Publishes 300 events to a broker that grants `properties` and acknowledges them by the
/// `expected` number, and returns how many were without PUBACK at most.
async fn most_in_flight(properties: &'static [u8], expected: usize) -> usize {
    let broker = FakeBroker::start(move |mut session| async move {
        session.greet_with(properties).await;
        loop {
            let mut owed = Vec::new();
            // When there are as many as may be, whoever sends more does so soon.
            while owed.len() < expected || session.has_more(Duration::from_millis(50)).await {
                let Some(publish) = session.publish().await else { return };
                owed.push(publish.packet_id);
            }
            session.note_count(owed.len());
            for id in owed {
                session.send(&puback(id, 0)).await;
            }
        }
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    let calls = (0..300).map(|number| sink.deliver(vec![message(number)]));
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    broker.counts().into_iter().max().unwrap()
}

#[tokio::test]
async fn never_more_are_in_flight_than_granted_nor_than_a_hundred() {
    assert_eq!(most_in_flight(&[], 100).await, 100);
    assert_eq!(most_in_flight(&[0x21, 0x03, 0xE8], 100).await, 100);
    assert_eq!(most_in_flight(&[0x21, 0, 60], 60).await, 60);
}

#[tokio::test]
async fn a_packet_that_the_broker_does_not_take_is_not_sent() {
    let broker = FakeBroker::start(|mut session| async move {
        // Maximum Packet Size 200.
        session.greet_with(&[0x27, 0, 0, 0, 200]).await;
        while let Some(publish) = session.publish().await {
            session.send(&puback(publish.packet_id, 0)).await;
        }
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    let mut large = message(1);
    large.body = vec![b'x'; 200].into();
    let failure = retry(sink.deliver(vec![large]).await);
    assert_eq!(failure.class, FailureClass::TooLarge);
    assert!(failure.text.ends_with("exceeds the broker's limit of 200"), "{failure}");
    assert_eq!(sink.deliver(vec![message(2)]).await, Outcome::Delivered);
    assert_eq!(broker.sessions(), 1);
}

#[tokio::test]
async fn a_topic_that_a_device_made_invalid_is_rejected_for_good() {
    let broker = FakeBroker::start(Session::acknowledge_all).await;
    let sink = sink(&plain(broker.port), hasty());
    let mut event = message(1);
    event.topic = Some("x".repeat(70_000).into());
    let outcome = sink.deliver(vec![event]).await;
    let Outcome::Rejected { reason } = outcome else { panic!("found {outcome:?}") };
    assert_eq!(
        reason.to_string(),
        "request: the topic of this event has 70020 bytes, allowed: 65535"
    );
}

#[tokio::test]
async fn the_rate_is_kept_by_waiting() {
    let broker = FakeBroker::start(Session::acknowledge_all).await;
    let target = MqttTarget { publishes_per_second: Some(100), ..plain(broker.port) };
    let sink = sink(&target, hasty());
    let start = Instant::now();
    let calls = (0..60).map(|number| sink.deliver(vec![message(number)]));
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered));
    // Ten go at once, the others 10 ms after each other.
    assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
    assert_eq!(broker.sessions(), 1);
}

#[tokio::test]
async fn connections_share_the_load_and_one_that_is_down_gets_none() {
    let broker = FakeBroker::start(|mut session| async move {
        let client_id = session.connect().await;
        if client_id.ends_with("-2") {
            // Bad client id.
            return session.send(&[0x20, 3, 0, 0x85, 0]).await;
        }
        session.accept(&[]).await;
        session.note_text(client_id);
        while let Some(publish) = session.publish().await {
            session.send(&puback(publish.packet_id, 0)).await;
        }
    })
    .await;
    let limits = MqttLimits {
        pause_min: Duration::from_secs(60),
        pause_max: Duration::from_secs(60),
        ..hasty()
    };
    let target = MqttTarget { connections: 3, ..plain(broker.port) };
    let sink = sink(&target, limits);
    let mut failures = 0;
    for round in 0..10 {
        let calls = (0..30).map(|number| sink.deliver(vec![message(round * 30 + number)]));
        let outcomes = futures_util::future::join_all(calls).await;
        failures += outcomes.iter().filter(|outcome| **outcome != Outcome::Delivered).count();
    }
    assert!((1..=10).contains(&failures), "{failures}");
    let mut names = broker.notes();
    names.sort();
    assert_eq!(names, ["simgate-AP3dIUs3c7_Oo2yJYaXWg-1", "simgate-AP3dIUs3c7_Oo2yJYaXWg-3"]);
}

#[tokio::test]
async fn a_client_connects_no_faster_than_it_may_also_through_new_sinks() {
    let broker = FakeBroker::start(|mut session| async move {
        session.connect().await;
        session.note_count(usize::try_from(session.since_start.as_millis()).unwrap());
    })
    .await;
    let limits = MqttLimits { pause_min: Duration::from_millis(200), ..hasty() };
    let client = client(limits);
    for _ in 0..4 {
        let endpoint = client.endpoint(&plain(broker.port), "an-integration").unwrap();
        retry(client.sink(endpoint, MqttPurpose::Run).deliver(vec![message(1)]).await);
    }
    let at = broker.counts();
    assert_eq!(at.len(), 4);
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 190), "{at:?}");
}

/// Two tests of one integration at the same time had the same client id: the second ended the
/// session of the first, which was told as a failure of the customer's broker.
#[tokio::test]
async fn tests_at_the_same_time_have_client_ids_of_their_own() {
    let broker = FakeBroker::start(|mut session| async move {
        let client_id = session.connect().await;
        session.note_text(client_id);
        session.accept(&[]).await;
        while let Some(publish) = session.publish().await {
            session.send(&puback(publish.packet_id, 0)).await;
        }
    })
    .await;
    let client = client(hasty());
    let endpoint = client.endpoint(&plain(broker.port), "an-integration").unwrap();
    let test = || client.sink(endpoint.clone(), MqttPurpose::Test);
    let (one, two) = (test(), test());
    for sink in [&one, &two] {
        assert_eq!(sink.deliver(vec![message(1)]).await, Outcome::Delivered);
    }
    let ids = broker.notes();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| id.starts_with("simgate-an-integration-test-")), "{ids:?}");
}

#[tokio::test]
async fn a_connection_ends_with_its_sink() {
    let broker = FakeBroker::start(|mut session| async move {
        session.greet().await;
        while let Some(publish) = session.publish().await {
            session.send(&puback(publish.packet_id, 0)).await;
        }
        session.note_text("ended".to_owned());
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    assert_eq!(sink.deliver(vec![message(1)]).await, Outcome::Delivered);
    drop(sink);
    let start = Instant::now();
    while broker.notes().is_empty() {
        assert!(start.elapsed() < PATIENCE, "the session stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_silent_broker_is_asked_and_left() {
    let broker = FakeBroker::start(|mut session| async move {
        // Server Keep Alive of one second: the ping comes then.
        session.greet_with(&[0x13, 0, 1]).await;
        while let Some(packet) = session.packet().await {
            match packet.first() {
                Some(0xC0) if session.number == 1 => {
                    session.note_text("ping".to_owned());
                    session.send(&[0xD0, 0]).await;
                }
                Some(0x32) => {
                    let publish = fake_broker::parse(&packet);
                    session.send(&puback(publish.packet_id, 0)).await;
                }
                _ => {}
            }
        }
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    assert_eq!(sink.deliver(vec![message(1)]).await, Outcome::Delivered);
    let start = Instant::now();
    while broker.notes().len() < 2 {
        assert!(start.elapsed() < PATIENCE, "no ping");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sink.deliver(vec![message(2)]).await, Outcome::Delivered);
    assert_eq!(broker.sessions(), 1);
}

/// A broker that sent PINGRESP without end kept its session busy with reading: no event went out,
/// no clock was looked at, and the session was never left.
#[tokio::test]
async fn a_broker_that_answers_pings_nobody_sent_is_left() {
    let broker = FakeBroker::start(|mut session| async move {
        if session.number > 1 {
            return session.acknowledge_all().await;
        }
        session.greet().await;
        while session.sends(&[0xD0, 0].repeat(1_000)).await {}
    })
    .await;
    let sink = impatient(&broker);
    let failure = failed(&sink).await;
    assert_eq!(failure.class, FailureClass::Transport, "{failure}");
    assert!(failure.text.contains("unexpected packet"), "{failure}");
    let start = Instant::now();
    while sink.deliver(vec![message(2)]).await != Outcome::Delivered {
        assert!(start.elapsed() < PATIENCE, "the sink does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(broker.sessions(), 2);
}

#[tokio::test]
async fn a_client_id_that_is_fought_over_is_told_after_a_while() {
    let broker = FakeBroker::start(|mut session| async move {
        session.greet().await;
        session.publish().await;
    })
    .await;
    let sink = sink(&plain(broker.port), hasty());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "never told");
        let failure = failed(&sink).await;
        assert_eq!(failure.class, FailureClass::Transport);
        if failure.text.contains("does another client use the client id") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
