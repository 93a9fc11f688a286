//! Where devices are and what they cross, on its way to webhooks and to people.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cloud_integrator::{
    BatchOptions, DeliveryOptions, EmailTarget, Integrations, MailSecurity, MailSettings,
    NetworkPolicy, NewIntegration, ReplayRequest, ReplayState, Settings, Target,
};
use message_log::{DeviceKey, Kind, NewRecord};
use serde_json::Value;
use vocabulary::{
    Coordinates, Crossing, Direction, EventKind, Iccid, Identity, Located, Notice, NoticeCategory,
    NoticeKind, Position, PositionSource, Timestamp,
};

use crate::receiver::{self, OK, Received};
use crate::smtp::{self, Said, polite};
use crate::world::{PATIENCE, World, hasty, sealer, until, until_async, webhook};

const DEVICE: u64 = 8_988_280_666_000_002_864;

fn identity() -> Identity {
    Identity { iccid: Iccid::from_u64(DEVICE).unwrap(), imsi: None, ip: None }
}

fn position() -> Position {
    let coordinates = Coordinates::new(56.977_086, 24.166_234).unwrap();
    Position { coordinates, accuracy_m: Some(12.0) }
}

fn located(position: Option<Position>) -> NewRecord {
    let Identity { iccid, imsi, ip } = identity();
    let located = Located {
        iccid,
        imsi,
        ip,
        source: PositionSource::Gps,
        sampled_at: Timestamp::from_millis(1_670_598_749_915),
        position,
        cell: None,
        matched: None,
        cause: 0,
    };
    record(EventKind::Located, located.encode())
}

fn crossed(name: &str, direction: Direction) -> NewRecord {
    let mut notice = Notice::new(NoticeCategory::Info, NoticeKind::Location, "Geofence[Exit]");
    notice.geofence = Some(Crossing {
        id: "Wg9ys5VqmSNN8M8YN2rv8".to_owned(),
        name: name.to_owned(),
        direction,
        source: PositionSource::Gps,
        position: position(),
        sampled_at: Timestamp::from_millis(1_670_598_749_915),
    });
    record(EventKind::Notice, notice.about(identity()).encode())
}

fn record(kind: EventKind, body: Vec<u8>) -> NewRecord {
    NewRecord {
        kind: Kind::new(kind.code()),
        device: DeviceKey::from_u64(DEVICE),
        received_at: SystemTime::now().into(),
        body,
    }
}

fn integrations(world: &World, mail_port: u16) -> Integrations {
    let mail = MailSettings {
        host: "127.0.0.1".to_owned(),
        port: mail_port,
        security: MailSecurity::None,
        user: None,
        password: None,
        from: "simgate <alerts@example.com>".to_owned(),
        hello_name: None,
    };
    let settings = Settings {
        forwarder: hasty(),
        network: NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() },
        mail: Some(mail),
        ..Settings::default()
    };
    Integrations::open(&world.file, sealer(), settings).unwrap()
}

fn wanting(target: Target, types: &[&str]) -> NewIntegration {
    let event_types = types.iter().map(|name| ((*name).to_owned(), None)).collect();
    NewIntegration { target, event_types, ..webhook("") }
}

/// A webhook's server; gives its address and the events that it got.
async fn receiver() -> (Target, Arc<Mutex<Vec<Value>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let got = Arc::clone(&events);
    let address = receiver::serve(Arc::new(move |request: &Received<'_>| {
        got.lock().unwrap().push(serde_json::from_slice(request.body).unwrap());
        OK
    }))
    .await;
    (webhook(&format!("http://{address}/")).target, events)
}

fn kinds(events: &Mutex<Vec<Value>>) -> Vec<String> {
    events.lock().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// Appends a message, two positions of which one is not known, a crossing, and an error.
async fn a_day(world: &World) {
    world.send(&[(DEVICE, 1)]).await;
    let records = vec![located(None), located(Some(position())), crossed("depot", Direction::Exit)];
    world.log.append(records).await.unwrap();
    world.notice(&Notice::new(NoticeCategory::Error, NoticeKind::General, "X[Y]")).await;
}

#[tokio::test]
async fn each_integration_gets_the_places_that_it_wants_and_again_when_it_asks() {
    let world = World::new();
    let all = integrations(&world, 1);
    all.start(world.source.clone()).await.unwrap();
    let (target, everything) = receiver().await;
    let types = ["TELEMETRY_DATA", "LOCATION", "GEOFENCE", "ERROR"];
    let id = all.create(wanting(target, &types)).await.unwrap().id;
    let (target, places) = receiver().await;
    all.create(wanting(target, &["LOCATION"])).await.unwrap();
    let (target, crossings) = receiver().await;
    let crossings_id = all.create(wanting(target, &["GEOFENCE"])).await.unwrap().id;
    a_day(&world).await;
    until("all events", || {
        let count = |events: &Mutex<Vec<Value>>| events.lock().unwrap().len();
        count(&everything) == 4 && count(&places) == 1 && count(&crossings) == 1
    })
    .await;
    assert_eq!(kinds(&places), ["LOCATION"]);
    assert_eq!(kinds(&crossings), ["GEOFENCE"]);
    let mut told = kinds(&everything);
    told.sort();
    assert_eq!(told, ["ERROR", "GEOFENCE", "LOCATION", "TELEMETRY_DATA"]);
    let place = places.lock().unwrap()[0].clone();
    assert_eq!(place["location"]["coordinates"], serde_json::json!(["24.166234", "56.977086"]));

    for (id, count) in [(&id, 3), (&crossings_id, 1)] {
        let replay = all.start_replay(id, ReplayRequest::default()).await.unwrap().id;
        until_async("the end of the replay", || async {
            all.replay(&replay).await.unwrap().state == ReplayState::Done
        })
        .await;
        let replay = all.replay(&replay).await.unwrap();
        assert_eq!((replay.delivered, replay.failed, replay.passed_over), (count, 0, 0));
    }
    all.shutdown(PATIENCE).await;
    let again: Vec<Value> = everything.lock().unwrap().drain(..).skip(4).collect();
    let replayed = |event: &Value| event["replayed"] == true;
    assert!(again.len() == 3 && again.iter().all(replayed), "{again:?}");
    // What the gateway said of itself is not said twice.
    assert!(again.iter().all(|event| event["type"] != "ERROR"), "{again:?}");
    let crossings = crossings.lock().unwrap();
    assert_eq!(crossings[0]["id"], crossings[1]["id"]);
}

#[tokio::test]
async fn a_fleet_that_leaves_a_yard_is_one_mail() {
    let mails = Arc::new(Mutex::new(Vec::new()));
    let got = Arc::clone(&mails);
    let port = smtp::serve(move |said| {
        if let Said::Mail(mail) = said {
            got.lock().unwrap().push((*mail).to_owned());
        }
        polite(said)
    })
    .await;
    let world = World::new();
    let all = integrations(&world, port);
    all.start(world.source.clone()).await.unwrap();
    let target = EmailTarget { recipients: vec!["night@example.com".to_owned()] };
    assert!(EmailTarget::delivery().batch.is_some());
    // Full, so that no clock decides.
    let batch = BatchOptions { events: 3, wait: Duration::from_secs(60) };
    let delivery = DeliveryOptions { batch: Some(batch), ..EmailTarget::delivery() };
    let new = NewIntegration { delivery, ..wanting(Target::Email(target), &["GEOFENCE"]) };
    let id = all.create(new).await.unwrap().id;
    let names = ["yard 1", "yard 2", "yard 3"];
    let records = names.iter().map(|name| crossed(name, Direction::Exit)).collect();
    world.log.append(records).await.unwrap();
    until("the mail", || !mails.lock().unwrap().is_empty()).await;
    until_async("its success", || async {
        let delivery = all.status(&id).await.unwrap().delivery;
        delivery.is_some_and(|status| status.last_success_at.is_some())
    })
    .await;
    all.shutdown(PATIENCE).await;
    let mails = mails.lock().unwrap();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(names.iter().all(|name| mails[0].contains(name)), "{}", mails[0]);
}
