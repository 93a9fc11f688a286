//! From records of the log to positions and crossings, over crashes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cell_database::Import;
use locator::{
    Area, BoundingBox, GeofenceChange, GeofenceError, Held, LatestQuery, Locator, NewGeofence,
    PositionsQuery, Reader, Settings,
};
use message_log::{DeviceKey, Kind, KindSet, MessageLog, NewRecord, Offset, Options, ReadLimits};
use state::StateFile;
use template_library::{NewTemplate, ProtocolFilter, Status, Templates};
use vocabulary::{
    CellMatch, CellTower, Direction, EventKind, Iccid, Identity, IdentityClass, Located, Notice,
    PositionSource, Protocol, RadioAccess, SessionChange, SessionReport, Telemetry, Timestamp,
};

const HOUR: i64 = 3_600;

fn iccid() -> Iccid {
    "8988280666000002864".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

struct World {
    folder: tempfile::TempDir,
    log: MessageLog,
    templates: Templates,
    locator: Locator,
    reader: Reader,
    by_cells: Arc<AtomicBool>,
    removed: Arc<AtomicBool>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) =
            MessageLog::open(&folder.path().join("messages"), Options::default()).unwrap();
        let templates = Templates::open(&StateFile::new(folder.path().join("state.db"))).unwrap();
        let value = |custom: &str, byte| {
            serde_json::json!({ "asset": custom, "custom_type": custom,
                "value": { "byte": byte, "bytelength": 8, "type": "float" } })
        };
        let template = serde_json::json!({
            "sense": [value("location_lat", 0), value("location_long", 8)]
        });
        templates
            .create(NewTemplate {
                name: "places".to_owned(),
                source: template.to_string(),
                protocol_filter: ProtocolFilter::new([Protocol::Udp]).unwrap(),
                status: Status::Active,
            })
            .unwrap();
        let removed = Arc::default();
        let (locator, reader, by_cells) = open(folder.path(), &log, &templates, &removed);
        Self { folder, log, templates, locator, reader, by_cells, removed }
    }

    /// Forgets what was not written, as a process that is killed does.
    fn crash(&mut self) {
        (self.locator, self.reader, self.by_cells) =
            open(self.folder.path(), &self.log, &self.templates, &self.removed);
    }

    fn import_cells(&self) {
        let file = self.folder.path().join("cells.csv");
        let mut text = String::new();
        for (cell, longitude) in [(1, 10.0), (2, 10.5)] {
            writeln!(text, "LTE,262,1,7,{cell},0,{longitude},50,1000,9,1,0,1,0").unwrap();
        }
        std::fs::write(&file, text).unwrap();
        Import::new(vec![file], &self.folder.path().join("cells.db")).run(|_| {}).unwrap();
    }

    fn append(&self, iccid: Iccid, kind: EventKind, received_at: Timestamp, body: Vec<u8>) {
        let device = DeviceKey::from_u64(iccid.as_u64());
        let record = NewRecord { kind: Kind::new(kind.code()), device, received_at, body };
        self.log.append(vec![record]).wait().unwrap();
    }

    fn tell(&self, protocol: Protocol, received_at: Timestamp, payload: &[u8]) {
        self.tell_of(iccid(), protocol, received_at, payload);
    }

    fn tell_of(&self, iccid: Iccid, protocol: Protocol, received_at: Timestamp, payload: &[u8]) {
        let telemetry = Telemetry {
            identity: Identity { iccid, imsi: None, ip: Some([10, 0, 0, 1].into()) },
            class: IdentityClass::SimIp,
            protocol,
            topic: None,
            template: self.templates.active(protocol),
            exchange: None,
            measured: None,
            session: None,
            payload,
        };
        self.append(iccid, EventKind::Telemetry, received_at, telemetry.encode());
    }

    /// A position as the template reads it.
    fn drive_to(&self, longitude: f64, seconds: i64) {
        let payload = [50_f64.to_be_bytes(), longitude.to_be_bytes()].concat();
        self.tell(Protocol::Udp, at(seconds), &payload);
    }

    fn enter_cell(&self, change: SessionChange, cell: u64, seconds: i64) {
        let mut report = SessionReport::new("radius", change, "pgw", at(seconds));
        report.session = "s".to_owned();
        report.iccid = Some(iccid());
        report.cell = Some(CellTower {
            access: RadioAccess::NbIot,
            plmn: "262-01".parse().unwrap(),
            area: Some(7),
            cell: Some(cell),
        });
        self.append(iccid(), EventKind::Session, at(seconds), report.encode());
    }

    fn fence(&self, longitude: f64) -> locator::Geofence {
        let new = NewGeofence {
            name: "depot".to_owned(),
            device: None,
            area: Area::Circle { center: Some([longitude, 50.0]), radius_m: 1_000.0 },
            directions: vec![Direction::Enter, Direction::Exit],
            sources: vec![PositionSource::Gps],
        };
        self.locator.create_geofence(new, at(0)).unwrap()
    }

    /// All that was said so far, in order: longitudes and messages.
    fn said(&self) -> Vec<String> {
        let kinds = KindSet::only(Kind::new(EventKind::Located.code()))
            .with(Kind::new(EventKind::Notice.code()));
        let batch = self.log.read_kinds(Offset::BEGINNING, kinds, ReadLimits::default()).unwrap();
        let word = |record: &message_log::Record| match Located::decode(&record.body) {
            Ok(located) => located.position.map_or("nowhere".to_owned(), |position| {
                position.coordinates.longitude().to_string()
            }),
            Err(_) => Notice::decode(&record.body).unwrap().message,
        };
        batch.records.iter().map(word).collect()
    }

    fn positions(&self) -> Vec<Located> {
        let query =
            PositionsQuery { device: iccid(), from: at(0), until: at(99 * HOUR), source: None };
        self.locator.positions(&query).unwrap()
    }
}

fn open(
    folder: &Path,
    log: &MessageLog,
    templates: &Templates,
    removed: &Arc<AtomicBool>,
) -> (Locator, Reader, Arc<AtomicBool>) {
    let removed = Arc::clone(removed);
    let settings = Settings {
        cells: folder.join("cells.db"),
        cell_interval: Duration::from_hours(1),
        learn_cells: true,
        geofences_max: 3,
        hysteresis_m: 20.0,
        dwell: Duration::ZERO,
        by_cells: Arc::new(AtomicBool::new(true)),
        held: Held::new(move |_| !removed.load(Ordering::Relaxed)),
    };
    let by_cells = Arc::clone(&settings.by_cells);
    let file = StateFile::new(folder.join("locator.db"));
    let locator = Locator::open(&file, log.clone(), templates.clone(), settings).unwrap();
    let reader = locator.reader().unwrap();
    (locator, reader, by_cells)
}

#[test]
fn positions_of_templates_and_of_object_6_are_kept() {
    let mut world = World::new();
    world.drive_to(10.0, 0);
    let told = r#"{"/3/0/9":77,"/6/0/0":50.5,"/6/0/1":-10.25,"/6/0/3":12.5,"/6/0/5":1700000060}"#;
    world.tell(Protocol::Lwm2m, at(100), told.as_bytes());
    world.tell(Protocol::Lwm2m, at(101), br#"{"/6/0/0":50.5}"#);
    world.tell(Protocol::Lwm2m, at(102), br#"{"/3303/0/5700":1}"#);
    world.reader.step().unwrap();
    let positions = world.positions();
    assert_eq!(positions.len(), 2);
    let [of_lwm2m, of_template] = &positions[..] else { panic!("{positions:?}") };
    assert_eq!(of_template.source, PositionSource::Gps);
    assert_eq!(of_template.sampled_at, at(0));
    assert_eq!(of_lwm2m.sampled_at, at(60));
    assert_eq!(of_lwm2m.position.unwrap().accuracy_m, Some(12.5));
    assert_eq!(of_lwm2m.position.unwrap().coordinates.longitude(), -10.25);
    assert_eq!(of_lwm2m.ip, Some([10, 0, 0, 1].into()));
    let latest = world.locator.latest(&LatestQuery::default(), 0, 10);
    assert_eq!(latest, (vec![of_lwm2m.clone()], 1));
}

#[test]
fn impossible_positions_are_refused_and_that_is_said_once_an_hour() {
    let mut world = World::new();
    let null = r#"{"/6/0/0":0,"/6/0/1":0}"#;
    world.tell(Protocol::Lwm2m, at(0), null.as_bytes());
    world.tell(Protocol::Lwm2m, at(1), br#"{"/6/0/0":91,"/6/0/1":0}"#);
    let ahead = format!(r#"{{"/6/0/0":50,"/6/0/1":10,"/6/0/5":{}}}"#, 1_700_000_000 + 2 * HOUR);
    world.tell(Protocol::Lwm2m, at(HOUR), ahead.as_bytes());
    world.reader.step().unwrap();
    // A double read in the wrong order of bytes. Nothing was said of such a place.
    let far = [7.490929188596135e247_f64.to_be_bytes(), 10_f64.to_be_bytes()].concat();
    world.tell(Protocol::Udp, at(2 * HOUR), &far);
    world.tell(Protocol::Udp, at(3 * HOUR), &[f64::NAN.to_be_bytes(); 2].concat());
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["Position[Refused]"; 3]);
    assert!(world.positions().is_empty());
}

#[test]
fn a_device_is_located_by_its_cell_once_an_hour() {
    let mut world = World::new();
    world.import_cells();
    world.crash();
    world.enter_cell(SessionChange::Start, 1, 0);
    world.enter_cell(SessionChange::Update, 2, HOUR - 1);
    world.enter_cell(SessionChange::Update, 2, HOUR);
    // Its area is known, and that is said.
    world.enter_cell(SessionChange::Update, 77, 2 * HOUR);
    world.enter_cell(SessionChange::Stop, 1, 4 * HOUR);
    world.reader.step().unwrap();
    let positions = world.positions();
    let shown: Vec<_> = positions
        .iter()
        .map(|located| (located.position.unwrap().coordinates.longitude(), located.matched))
        .collect();
    assert_eq!(shown[1..], [(10.5, Some(CellMatch::Cell)), (10.0, Some(CellMatch::Cell))]);
    assert_eq!(shown[0].1, Some(CellMatch::Area));
    assert_eq!(positions[2].position.unwrap().accuracy_m, Some(820.0));
    world.by_cells.store(false, Ordering::Relaxed);
    world.enter_cell(SessionChange::Start, 1, 9 * HOUR);
    world.reader.step().unwrap();
    assert_eq!(world.positions().len(), 3);
}

#[test]
fn an_unknown_cell_is_looked_for_again_at_the_next_session_only() {
    let mut world = World::new();
    world.enter_cell(SessionChange::Start, 1, 0);
    world.enter_cell(SessionChange::Update, 1, 60);
    world.enter_cell(SessionChange::Start, 1, 120);
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["nowhere", "nowhere"]);
    let query = PositionsQuery { device: iccid(), from: at(0), until: at(HOUR), source: None };
    assert_eq!(world.locator.activity(&query).unwrap().len(), 2);
    assert!(world.positions().is_empty());
}

#[test]
fn cells_are_learned_from_devices_that_tell_where_they_are() {
    let mut world = World::new();
    world.enter_cell(SessionChange::Start, 5, 0);
    (0..5).for_each(|second| world.drive_to(11.0, second));
    world.reader.step().unwrap();
    world.reader.flush().unwrap();
    world.crash();
    world.enter_cell(SessionChange::Start, 5, 2 * HOUR);
    world.reader.step().unwrap();
    let newest = &world.positions()[0];
    assert_eq!(newest.source, PositionSource::CellTower);
    assert!((newest.position.unwrap().coordinates.longitude() - 11.0).abs() < 1e-6);
}

/// The crash comes at each moment: before anything is written, after what was said, after all.
#[test]
fn crossings_are_said_once_whenever_the_process_is_killed() {
    let (steps, flushes) = ([1, 2, 3], [false, true]);
    for (step, flushed) in steps.into_iter().flat_map(|step| flushes.map(|flush| (step, flush))) {
        let mut world = World::new();
        let fence = world.fence(10.0);
        let drives = [(9.0, 1), (10.0, 2), (11.0, 3), (10.0, 4)];
        for (place, (longitude, seconds)) in drives.into_iter().enumerate() {
            world.drive_to(longitude, seconds);
            world.reader.step().unwrap();
            if place + 1 == step {
                if flushed {
                    world.reader.flush().unwrap();
                }
                world.crash();
            }
        }
        world.reader.step().unwrap();
        let expected =
            ["9", "10", "Geofence[Enter]", "11", "Geofence[Exit]", "10", "Geofence[Enter]"];
        assert_eq!(world.said(), expected, "crash after {step}, flushed: {flushed}");
        assert_eq!(world.locator.geofence(&fence.id), Some(fence));
    }
}

#[test]
fn a_late_position_raises_nothing_and_is_kept() {
    let mut world = World::new();
    world.fence(10.0);
    let told = |longitude: f64, seconds: i64| {
        format!(r#"{{"/6/0/0":50,"/6/0/1":{longitude},"/6/0/5":{}}}"#, 1_700_000_000 + seconds)
    };
    world.tell(Protocol::Lwm2m, at(100), told(10.0, 100).as_bytes());
    world.tell(Protocol::Lwm2m, at(101), told(11.0, 50).as_bytes());
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["10", "Geofence[Enter]", "11"]);
    let (latest, _) = world.locator.latest(&LatestQuery::default(), 0, 10);
    assert_eq!(latest[0].position.unwrap().coordinates.longitude(), 10.0);
}

#[test]
fn the_newest_positions_are_found_in_a_box() {
    let mut world = World::new();
    world.drive_to(-179.5, 0);
    world.reader.step().unwrap();
    let found = |west, east| {
        let bounds = Some(BoundingBox { west, east, south: 49.0, north: 51.0 });
        world.locator.latest(&LatestQuery { bounds, ..LatestQuery::default() }, 0, 10).1
    };
    assert_eq!(found(179.0, -179.0), 1, "over the antimeridian");
    assert_eq!(found(-180.0, -179.0), 1);
    assert_eq!(found(-179.0, 179.0), 0);
    let other = LatestQuery { source: Some(PositionSource::CellTower), ..LatestQuery::default() };
    assert_eq!(world.locator.latest(&other, 0, 10), (vec![], 0));
}

#[test]
fn the_newest_positions_come_in_pages_from_both_ends() {
    let mut world = World::new();
    let devices: Vec<Iccid> =
        (0..7).map(|number| Iccid::from_u64(iccid().as_u64() + number).unwrap()).collect();
    for (device, seconds) in devices.iter().zip([3, 1, 6, 0, 5, 2, 4]) {
        let payload = format!(r#"{{"/6/0/0":50,"/6/0/1":{seconds}}}"#);
        world.tell_of(*device, Protocol::Lwm2m, at(seconds), payload.as_bytes());
    }
    world.reader.step().unwrap();
    let listed = |oldest_first, skip, limit| {
        let query = LatestQuery { oldest_first, ..LatestQuery::default() };
        let (found, amount) = world.locator.latest(&query, skip, limit);
        assert_eq!(amount, 7);
        found.iter().map(|one| one.position.unwrap().coordinates.longitude()).collect::<Vec<_>>()
    };
    assert_eq!(listed(false, 0, 3), [6.0, 5.0, 4.0]);
    assert_eq!(listed(false, 3, 3), [3.0, 2.0, 1.0]);
    assert_eq!(listed(false, 6, 3), [0.0]);
    assert_eq!(listed(true, 0, 3), [0.0, 1.0, 2.0]);
    assert!(listed(true, 7, 3).is_empty());
    let one = LatestQuery { device: Some(devices[4]), ..LatestQuery::default() };
    let (found, amount) = world.locator.latest(&one, 0, 10);
    assert_eq!((found[0].iccid, amount), (devices[4], 1));
    assert_eq!(world.locator.latest(&one, 1, 10), (vec![], 1));
    let later = LatestQuery { from: Some(at(6)), ..one };
    assert_eq!(world.locator.latest(&later, 0, 10), (vec![], 0));
}

#[test]
fn geofences_are_made_changed_listed_and_removed() {
    let mut world = World::new();
    let first = world.fence(10.0);
    assert_eq!(first.id.len(), 21);
    let circle = |name: &str, device| NewGeofence {
        name: name.to_owned(),
        device,
        area: Area::Circle { center: None, radius_m: 500.0 },
        directions: vec![Direction::Exit],
        sources: vec![PositionSource::Gps],
    };
    let refused = |new| world.locator.create_geofence(new, at(0)).unwrap_err();
    assert!(matches!(refused(circle("here", Some(iccid()))), GeofenceError::NoCenter));
    assert!(matches!(refused(circle(" \n", None)), GeofenceError::Name(0)));
    let padded = format!("a{}", " ".repeat(50));
    assert!(matches!(refused(circle(&padded, None)), GeofenceError::Name(51)));
    let none = NewGeofence { directions: vec![], ..circle("x", None) };
    assert!(matches!(refused(none), GeofenceError::Empty("eventTypes")));
    let small = Area::Circle { center: Some([1.0, 1.0]), radius_m: 49.0 };
    let small = NewGeofence { area: small, ..circle("x", None) };
    assert!(matches!(refused(small), GeofenceError::Shape(_)));

    world.drive_to(12.0, 1);
    world.reader.step().unwrap();
    world.reader.flush().unwrap();
    let around = world.locator.create_geofence(circle("here", Some(iccid())), at(2)).unwrap();
    let polygon =
        Area::Polygon(vec![vec![[0.12345678, 0.0], [1.0, 0.0], [1.0, 1.0], [0.12345678, 0.0]]]);
    let third = NewGeofence { area: polygon, ..circle("third", None) };
    let third = world.locator.create_geofence(third, at(3)).unwrap();
    assert!(format!("{:?}", third.shape).contains("0.123457"), "{:?}", third.shape);
    let full = world.locator.create_geofence(circle("full", Some(iccid())), at(3)).unwrap_err();
    assert!(matches!(full, GeofenceError::TooMany(3)));

    let change = GeofenceChange { name: Some("yard".to_owned()), ..GeofenceChange::default() };
    let changed = world.locator.change_geofence(&first.id, change, at(9)).unwrap();
    assert_eq!((changed.name.as_str(), changed.created, changed.updated), ("yard", at(0), at(9)));
    world.crash();
    let (listed, amount) = world.locator.geofences(0, 2);
    assert_eq!((listed, amount), (vec![changed, around.clone()], 3));
    // Around the device: it is inside, and leaves.
    world.drive_to(12.0, 10);
    world.drive_to(13.0, 11);
    world.reader.step().unwrap();
    assert_eq!(world.said().last().unwrap(), "Geofence[Exit]");
    world.locator.delete_geofence(&around.id).unwrap();
    let gone = world.locator.delete_geofence(&around.id).unwrap_err();
    assert!(matches!(gone, GeofenceError::Unknown));
    assert_eq!(world.locator.geofences(0, 9).1, 2);
}

/// A geofence that was made in place of a removed one had its number, so that the devices in the
/// old one were in the new one, too: they left it without ever having been there. As shapes do not
/// change, that is how a geofence is moved.
#[test]
fn nobody_is_in_a_geofence_because_he_was_in_a_removed_one() {
    for restarts in [false, true] {
        let mut world = World::new();
        let old = world.fence(10.0);
        world.drive_to(10.0, 1);
        world.reader.step().unwrap();
        world.locator.delete_geofence(&old.id).unwrap();
        if restarts {
            world.reader.flush().unwrap();
            world.crash();
        }
        world.fence(20.0);
        world.drive_to(11.0, 2);
        world.drive_to(20.0, 3);
        world.reader.step().unwrap();
        let expected = ["10", "Geofence[Enter]", "11", "20", "Geofence[Enter]"];
        assert_eq!(world.said(), expected, "restarts: {restarts}");
    }
}

/// A report that a feed sent twice was an attempt of its own each time where the cell is not known.
#[test]
fn a_report_that_comes_twice_is_one_attempt() {
    let mut world = World::new();
    world.enter_cell(SessionChange::Start, 1, 0);
    world.enter_cell(SessionChange::Start, 1, 0);
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["nowhere"]);
    world.enter_cell(SessionChange::Start, 1, 1);
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["nowhere", "nowhere"]);
}

/// A device without a clock counts from its start: its positions were of 1970, where no query finds
/// them and no geofence is.
#[test]
fn a_device_without_a_clock_is_where_it_says_when_that_arrives() {
    let mut world = World::new();
    world.fence(10.0);
    let told = br#"{"/6/0/0":50,"/6/0/1":10,"/6/0/5":4711}"#;
    world.tell(Protocol::Lwm2m, at(100), told);
    world.reader.step().unwrap();
    assert_eq!(world.said(), ["10", "Geofence[Enter]"]);
    assert_eq!(world.positions()[0].sampled_at, at(100));
}

/// The newest position of a removed SIM was shown for ever, and whoever was registered with its
/// number later was in the geofences that it had been in.
#[test]
fn a_removed_sim_is_forgotten_also_by_what_comes_late() {
    for is_told in [true, false] {
        let mut world = World::new();
        world.fence(10.0);
        world.drive_to(10.0, 1);
        world.reader.step().unwrap();
        world.reader.flush().unwrap();
        let listed = |world: &World| world.locator.latest(&LatestQuery::default(), 0, 10).1;
        assert_eq!(listed(&world), 1);
        // Stored before the removal, and read after it.
        world.drive_to(10.0, 2);
        world.removed.store(true, Ordering::Relaxed);
        assert_eq!(listed(&world), 0, "it is hidden at once");
        if is_told {
            world.locator.forget(iccid());
        } else {
            world.crash();
        }
        world.reader.step().unwrap();
        world.reader.flush().unwrap();
        world.removed.store(false, Ordering::Relaxed);
        assert_eq!(listed(&world), 0, "it is forgotten");
        world.crash();
        assert_eq!(listed(&world), 0, "also by the file");
        assert_eq!(world.positions().len(), 1, "what was said stays");
        world.drive_to(10.0, 3);
        world.reader.step().unwrap();
        assert_eq!(world.said(), ["10", "Geofence[Enter]", "10", "Geofence[Enter]"]);
    }
}

/// Without traffic nothing else is written.
#[test]
fn a_sim_is_forgotten_while_nothing_arrives() {
    let mut world = World::new();
    world.drive_to(10.0, 1);
    world.reader.step().unwrap();
    world.reader.flush().unwrap();
    world.removed.store(true, Ordering::Relaxed);
    world.locator.forget(iccid());
    world.reader.flush().unwrap();
    world.removed.store(false, Ordering::Relaxed);
    world.crash();
    assert_eq!(world.locator.latest(&LatestQuery::default(), 0, 10).1, 0);
}
