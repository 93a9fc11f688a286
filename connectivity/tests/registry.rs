//! The registry in a real file: SIMs one by one, lists, changes, and other processes' writes.
#![allow(clippy::unwrap_used, reason = "the lint exempts only what is marked #[test]")]

use std::net::IpAddr;

use connectivity::{
    Changes, ChangesError, Conflict, Direction, ListQuery, NewSim, REMOVALS_KEPT, Revision, Sim,
    SimChange, SimError, SimFilter, SimPatch, SimRegistry, SortField, Statistics,
};
use state::StateFile;
use tempfile::TempDir;
use vocabulary::{Iccid, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_795_000_001_000);

struct World {
    registry: SimRegistry,
    file: StateFile,
    _folder: TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("state.db"));
    World { registry: SimRegistry::open(&file).unwrap(), file, _folder: folder }
}

fn iccid(number: u64) -> Iccid {
    Iccid::from_u64(number).unwrap()
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn new(number: u64, address: Option<IpAddr>) -> NewSim {
    let properties = SimPatch { ip: Some(address), ..SimPatch::default() };
    NewSim { iccid: iccid(number), properties }
}

fn moved(address: Option<IpAddr>) -> SimPatch {
    SimPatch { ip: Some(address), ..SimPatch::default() }
}

#[test]
fn a_sim_with_everything_comes_back() {
    let world = world();
    let properties = SimPatch {
        imsi: Some(Some("001010000000001".parse().unwrap())),
        msisdn: Some(Some("+882285100000018".parse().unwrap())),
        imei: Some(Some("0000000000000018".parse().unwrap())),
        ip: Some(Some("2001:db8::1".parse().unwrap())),
        label: Some("Größe 'DX\"-1".to_owned()),
        active: Some(false),
    };
    // The largest number does not fit a signed integer of 64 bits.
    let largest = iccid(9_999_999_999_999_999_999);
    let sim = world.registry.create(NewSim { iccid: largest, properties }, NOW).unwrap();
    assert_eq!(world.registry.find(largest).unwrap(), Some(sim.clone()));
    drop(world.registry);
    let registry = SimRegistry::open(&world.file).unwrap();
    assert_eq!(registry.find(largest).unwrap(), Some(sim));
    assert_eq!(registry.find(iccid(1)).unwrap(), None);
}

#[test]
fn no_two_sims_have_one_address_or_one_number() {
    let World { registry, .. } = &world();
    registry.create(new(1, Some(ip(1))), NOW).unwrap();
    let error = registry.create(new(1, None), NOW).unwrap_err();
    assert!(matches!(error, SimError::Conflict(Conflict::Iccid(_))), "{error}");
    let error = registry.create(new(2, Some("::ffff:10.0.0.1".parse().unwrap())), NOW).unwrap_err();
    assert_eq!(error.to_string(), "address 10.0.0.1 belongs to Iccid(0000..0001)");
    registry.create(new(2, None), NOW).unwrap();
    registry.create(new(3, None), NOW).unwrap();
    let error = registry.patch(iccid(2), moved(Some(ip(1))), LATER).unwrap_err();
    assert!(matches!(error, SimError::Conflict(Conflict::Address { .. })), "{error}");
    assert_eq!(registry.statistics().unwrap(), Statistics { total: 3, active: 3 });
}

#[test]
fn a_patch_sets_what_it_names_and_nothing_else() {
    let World { registry, .. } = &world();
    let before = registry.create(new(1, Some(ip(1))), NOW).unwrap();
    let same = registry.patch(iccid(1), moved(Some(ip(1))), LATER).unwrap();
    assert_eq!(same, before, "nothing changed, so `updated` stays");
    let patch = SimPatch { active: Some(false), ..moved(None) };
    let after = registry.patch(iccid(1), patch, LATER).unwrap();
    assert_eq!(after, Sim { ip: None, active: false, updated: LATER, ..before });
    assert_eq!(registry.statistics().unwrap(), Statistics { total: 1, active: 0 });
    let error = registry.patch(iccid(2), moved(None), LATER).unwrap_err();
    assert!(matches!(error, SimError::NotFound(_)), "{error}");
    let label = SimPatch { label: Some("x".repeat(256)), ..SimPatch::default() };
    let error = registry.patch(iccid(1), label, LATER).unwrap_err();
    assert!(matches!(error, SimError::Invalid(_)), "{error}");
    assert_eq!(registry.remove(iccid(1)).unwrap(), after);
    assert!(matches!(registry.remove(iccid(1)).unwrap_err(), SimError::NotFound(_)));
    assert_eq!(registry.statistics().unwrap(), Statistics { total: 0, active: 0 });
}

fn query(sort: SortField, direction: Direction, page: u32) -> ListQuery {
    ListQuery { filter: SimFilter::default(), sort, direction, page, page_size: 2 }
}

fn numbers(registry: &SimRegistry, query: &ListQuery) -> (Vec<u64>, u64) {
    let page = registry.list(query).unwrap();
    (page.sims.iter().map(|sim| sim.iccid.as_u64()).collect(), page.total)
}

#[test]
fn lists_are_sorted_and_paged() {
    let World { registry, .. } = &world();
    let largest = 9_999_999_999_999_999_999;
    registry.create(new(largest, Some(ip(1))), NOW).unwrap();
    registry.create(new(1, Some(ip(200))), NOW).unwrap();
    registry.create(new(2, None), NOW).unwrap();
    let list = |sort, direction, page| numbers(registry, &query(sort, direction, page));
    let (ascending, descending) = (Direction::Ascending, Direction::Descending);
    assert_eq!(list(SortField::Iccid, ascending, 1), (vec![1, 2], 3));
    assert_eq!(list(SortField::Iccid, ascending, 2), (vec![largest], 3));
    assert_eq!(list(SortField::Iccid, ascending, 3), (vec![], 3));
    assert_eq!(list(SortField::Iccid, descending, 0), (vec![largest, 2], 3));
    assert_eq!(list(SortField::Ip, ascending, 1), (vec![2, largest], 3));
    assert_eq!(list(SortField::Ip, descending, 1), (vec![1, largest], 3));
    assert_eq!(list(SortField::Imsi, descending, 1), (vec![largest, 2], 3));
}

#[test]
fn a_filter_asks_for_every_property_that_it_names() {
    let World { registry, .. } = &world();
    registry.create(new(1, Some(ip(1))), NOW).unwrap();
    registry.create(new(2, None), NOW).unwrap();
    let list = |number: Option<u64>, ip| {
        let filter = SimFilter { iccid: number.map(iccid), ip };
        numbers(registry, &ListQuery { filter, ..query(SortField::Ip, Direction::Ascending, 1) })
    };
    assert_eq!(list(Some(1), None), (vec![1], 1));
    assert_eq!(list(None, Some(ip(1))), (vec![1], 1));
    assert_eq!(list(Some(1), Some(ip(1))), (vec![1], 1));
    assert_eq!(list(Some(2), Some(ip(1))), (vec![], 0));
    assert_eq!(list(None, Some(ip(9))), (vec![], 0));
}

/// `+1` for a SIM that is set, `-1` for one that is removed.
fn signed(changes: &Changes) -> Vec<i64> {
    let number = |iccid: Iccid| iccid.as_u64().cast_signed();
    let sign = |change: &SimChange| match change {
        SimChange::Set(sim) => number(sim.iccid),
        SimChange::Removed(iccid) => -number(*iccid),
    };
    changes.changes.iter().map(sign).collect()
}

#[test]
fn a_follower_sees_each_change_once_in_their_order() {
    let World { registry, .. } = &world();
    for number in 1..=3 {
        registry.create(new(number, None), NOW).unwrap();
    }
    registry.remove(iccid(2)).unwrap();
    registry.patch(iccid(1), moved(Some(ip(1))), LATER).unwrap();
    registry.create(new(2, None), NOW).unwrap();
    let all = registry.changes_since(Revision::BEGINNING, 100).unwrap();
    assert_eq!(signed(&all), [3, -2, 1, 2]);
    let mut seen = Vec::new();
    let mut since = Revision::BEGINNING;
    while since < all.revision {
        let some = registry.changes_since(since, 1).unwrap();
        seen.extend(signed(&some));
        since = some.revision;
    }
    assert_eq!(seen, [3, -2, 1, 2]);
    assert!(registry.changes_since(since, 100).unwrap().changes.is_empty());
    let mut loaded = Vec::new();
    let revision = registry.load_all(|sim| loaded.push(sim.iccid.as_u64())).unwrap();
    assert_eq!((loaded, revision), (vec![1, 2, 3], all.revision));
}

#[test]
fn a_follower_notices_writes_of_this_and_of_another_process() {
    let World { registry, file, .. } = &world();
    let quiet = registry.data_version().unwrap();
    assert_eq!(registry.data_version().unwrap(), quiet);
    registry.create(new(1, None), NOW).unwrap();
    let own = registry.data_version().unwrap();
    assert_ne!(own, quiet);
    let revision = registry.load_all(|_| {}).unwrap();
    // A second registry shares nothing with the first but the file, as another process would.
    SimRegistry::open(file).unwrap().create(new(2, None), NOW).unwrap();
    assert_ne!(registry.data_version().unwrap(), own);
    assert_eq!(signed(&registry.changes_since(revision, 10).unwrap()), [2]);
}

#[test]
fn a_follower_that_missed_too_many_removals_is_told_to_load_all() {
    let World { registry, file, .. } = &world();
    registry.create(new(1, None), NOW).unwrap();
    let early = registry.load_all(|_| {}).unwrap();
    // As many removals as are kept, written at once: one by one they would take minutes.
    let connection = file.open(state::Migrations { owner: "test", scripts: &[] }).unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= ?1)
               INSERT INTO sim_removals SELECT i, i FROM n";
    connection.execute(sql, [REMOVALS_KEPT]).unwrap();
    let sql = "UPDATE sim_counters SET revision = (SELECT MAX(revision) FROM sim_removals)";
    connection.execute(sql, ()).unwrap();
    assert!(registry.changes_since(early, 10).is_ok());
    registry.remove(iccid(1)).unwrap();
    let error = registry.changes_since(early, 10).unwrap_err();
    assert!(matches!(error, ChangesError::Unknown { .. }), "{error}");
    let revision = registry.load_all(|_| {}).unwrap();
    assert!(registry.changes_since(revision, 10).unwrap().changes.is_empty());
}
