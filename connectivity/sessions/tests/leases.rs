//! The rules of leases, one story each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod world;

use std::net::Ipv4Addr;
use std::time::Duration;

use data_sessions::{Lease, Outcome, SessionState, SessionStore, Sessions, Settings};
use state::StateFile;
use vocabulary::{CellTower, Octets, RadioAccess, SessionChange, SessionReport};

use SessionChange::{Restart, Start, Stop, Update};
use world::{ADDRESS, World, at, iccid, report};

#[test]
fn a_session_holds_its_address_from_its_start_to_its_stop() {
    let mut world = World::new();
    assert_eq!(world.holder(0), None);
    assert_eq!(world.hear(&report("a", Start, 1, 0)), Outcome::Opened);
    assert_eq!(world.holder(10), Some(1));
    assert_eq!(world.hear(&report("a", Update, 1, 60)), Outcome::Updated);
    assert_eq!(world.hear(&report("a", Stop, 1, 90)), Outcome::Ended);
    assert_eq!(world.holder(91), None);
}

#[test]
fn an_update_opens_what_began_before_the_gateway_did() {
    let mut world = World::new();
    assert_eq!(world.hear(&report("a", Update, 1, 0)), Outcome::Opened);
    assert_eq!(world.holder(1), Some(1));
}

#[test]
fn a_newer_session_takes_the_address_and_the_late_end_of_the_older_leaves_it() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("a", Start, 2, 100));
    assert_eq!(world.holder(101), Some(2));
    let of_first = world.0.of_sim(iccid(1), at(101));
    assert_eq!(of_first[0].state, SessionState::Ended, "{of_first:?}");
    world.hear(&report("a", Stop, 1, 99));
    assert_eq!(world.holder(101), Some(2));
    // Heard in the other order it is the same.
    let mut world = World::new();
    world.hear(&report("a", Start, 2, 100));
    world.hear(&report("a", Start, 1, 0));
    assert_eq!(world.holder(101), Some(2));
}

/// What a SIM has carried from one second to another, as vendors tell it: without the session.
fn usage(sim: u64, (from, until): (i64, i64), up: u64) -> SessionReport {
    let mut usage = SessionReport::new("radius", SessionChange::Usage, "a", at(until));
    usage.iccid = Some(iccid(sim));
    (usage.counted_from, usage.octets) = (Some(at(from)), Some(Octets { up, down: 1 }));
    usage
}

#[test]
fn usage_is_added_once_to_the_session_that_carried_it_and_changes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("data_sessions.db"));
    let (mut store, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    let mut world = World(sessions, 0);
    assert_eq!(world.hear(&usage(1, (0, 60), 5)), Outcome::Uncounted, "there is no session");
    world.hear(&report("a", Start, 1, 0));
    assert_eq!(world.hear(&usage(1, (0, 60), 5)), Outcome::Counted);
    assert_eq!(world.hear(&usage(1, (60, 120), 6)), Outcome::Counted);
    let seen = world.0.of_sim(iccid(1), at(0)).remove(0);
    assert_eq!(seen.octets, Some(Octets { up: 11, down: 2 }));
    assert_eq!(seen.heard_at, at(0), "it vouches for no address");
    store.write(&world.0).unwrap();
    let (_, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    world.0 = sessions;
    for again in [usage(1, (0, 60), 5), usage(1, (60, 120), 6), usage(1, (30, 150), 7)] {
        assert_eq!(world.hear(&again), Outcome::Uncounted);
    }
    for nonsense in [usage(1, (200, 150), 7), usage(2, (200, 250), 7)] {
        assert_eq!(world.hear(&nonsense), Outcome::Uncounted);
    }
    // The end tells the sum.
    let mut end = report("a", Stop, 1, 300);
    end.octets = Some(Octets { up: 20, down: 9 });
    world.hear(&end);
    assert_eq!(world.hear(&usage(1, (200, 300), 9)), Outcome::Uncounted);
    let seen = world.0.of_sim(iccid(1), at(301)).remove(0);
    assert_eq!(seen.octets, Some(Octets { up: 20, down: 9 }));
    assert_eq!(world.holder(301), None);
    assert_eq!(world.hear(&usage(1, (400, 500), 9)), Outcome::Uncounted, "it has ended");
}

#[test]
fn usage_of_one_of_two_sessions_is_added_to_neither() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    let mut second = report("a", Start, 1, 10);
    (second.session, second.ipv4) = ("another".to_owned(), Some(Ipv4Addr::new(100, 64, 0, 2)));
    world.hear(&second);
    assert_eq!(world.hear(&usage(1, (60, 120), 5)), Outcome::Uncounted);
    // Of another feed, neither.
    let mut world = World::new();
    world.hear(&report("b", Start, 1, 0));
    assert_eq!(world.hear(&usage(1, (60, 120), 5)), Outcome::Uncounted);
}

/// A lost end left two sessions of one SIM, and what was carried from then on was added to neither,
/// though the record named one of them.
#[test]
fn usage_that_names_its_session_is_added_to_no_other() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    let mut second = report("a", Start, 1, 100);
    second.session = "second".to_owned();
    world.hear(&second);
    let named = |name: &str, span| SessionReport { session: name.to_owned(), ..usage(1, span, 5) };
    assert_eq!(world.hear(&named("second", (100, 160))), Outcome::Counted);
    assert_eq!(world.hear(&named("second", (100, 160))), Outcome::Uncounted, "it was");
    assert_eq!(world.hear(&named("third", (100, 160))), Outcome::Uncounted, "nobody knows it");
    let of_another = SessionReport { iccid: Some(iccid(2)), ..named("second", (160, 200)) };
    assert_eq!(world.hear(&of_another), Outcome::Uncounted);
    let octets: Vec<_> =
        world.0.of_sim(iccid(1), at(200)).iter().map(|session| session.octets).collect();
    assert_eq!(octets, [Some(Octets { up: 5, down: 1 }), None]);
}

#[test]
fn late_reports_bring_no_session_back() {
    let mut world = World::new();
    assert_eq!(world.hear(&report("a", Stop, 1, 50)), Outcome::EndedUnknown);
    assert_eq!(world.hear(&report("a", Start, 1, 0)), Outcome::Late);
    assert_eq!(world.hear(&report("a", Update, 1, 40)), Outcome::Late);
    assert_eq!(world.holder(51), None);
}

#[test]
fn two_sims_that_claim_one_address_at_once_both_lose_it() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("a", Update, 1, 200));
    let contested = report("a", Start, 2, 100);
    world.1 += 1;
    let applied = world.0.apply((world.1, at(1_000_000)), &contested);
    let notice = applied.notice.unwrap();
    assert_eq!(notice.message, "DataSession[Contested]");
    assert_eq!(notice.ip, Some(ADDRESS.into()));
    assert_eq!(world.0.find(ADDRESS.into(), at(201)), Lease::Contested);
    assert_eq!(world.0.of_sim(iccid(1), at(201))[0].state, SessionState::Contested);
    // More of the same decides nothing, and is not said again.
    world.1 += 1;
    let again = world.0.apply((world.1, at(1_000_000)), &report("a", Update, 2, 300));
    assert_eq!(again.notice, None);
    assert_eq!(world.holder(301), None);
    // The end of one does.
    world.hear(&report("a", Stop, 2, 310));
    assert_eq!(world.holder(311), Some(1));
}

#[test]
fn clocks_of_two_servers_have_no_order_within_half_a_minute() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("b", Start, 2, 29));
    assert_eq!(world.0.find(ADDRESS.into(), at(30)), Lease::Contested);
    world.hear(&report("b", Start, 3, 60));
    assert_eq!(
        world.0.find(ADDRESS.into(), at(61)),
        Lease::Live { session: 3, iccid: Some(iccid(3)), imsi: None }
    );
}

#[test]
fn a_sim_that_begins_anew_elsewhere_is_no_rival_of_itself() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    let mut elsewhere = report("b", Start, 9, 1);
    elsewhere.iccid = Some(iccid(1));
    world.hear(&elsewhere);
    assert_eq!(world.holder(2), Some(1));
    assert_eq!(world.0.address_of(iccid(1), at(2)), Some(ADDRESS.into()));
}

#[test]
fn a_server_that_begins_anew_has_no_sessions_of_before() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    assert_eq!(world.hear(&report("b", Restart, 0, 50)), Outcome::Restarted);
    assert_eq!(world.holder(51), Some(1), "another server's");
    world.hear(&report("a", Restart, 0, 50));
    assert_eq!(world.holder(51), None);
    assert_eq!(world.hear(&report("a", Update, 1, 60)), Outcome::Late);
    assert_eq!(world.hear(&report("a", Start, 2, 40)), Outcome::Late);
    assert_eq!(world.holder(61), None);
    // It may count its sessions from the beginning again.
    assert_eq!(world.hear(&report("a", Start, 1, 70)), Outcome::Opened);
    assert_eq!(world.holder(71), Some(1));
}

#[test]
fn what_is_not_heard_for_too_long_vouches_for_nothing() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    assert_eq!(world.holder(2 * 3_600), Some(1));
    let lease = world.0.find(ADDRESS.into(), at(2 * 3_600 + 1));
    assert_eq!(lease, Lease::Stale { iccid: Some(iccid(1)), imsi: None });
    assert_eq!(world.0.address_of(iccid(1), at(2 * 3_600 + 1)), None);
    // Whoever reports each three hours is heard often enough.
    world.hear(&report("a", Update, 1, 3 * 3_600));
    assert_eq!(world.holder(11 * 3_600), Some(1));
    assert_eq!(world.holder(13 * 3_600), None);
}

#[test]
fn a_clock_ahead_keeps_no_lease_alive() {
    let sessions = Sessions::new(Settings::default());
    sessions.apply((1, at(0)), &report("a", Start, 1, 1_000_000));
    assert!(matches!(sessions.find(ADDRESS.into(), at(7_201)), Lease::Stale { .. }));
}

#[test]
fn a_session_that_moves_leaves_its_address() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    let mut moved = report("a", Update, 1, 10);
    moved.ipv4 = Some([100, 64, 0, 2].into());
    world.hear(&moved);
    assert_eq!(world.holder(11), None);
    assert_eq!(world.0.address_of(iccid(1), at(11)), Some([100, 64, 0, 2].into()));
    // An old report does not move it back.
    world.hear(&report("a", Update, 1, 5));
    assert_eq!(world.holder(11), None);
}

#[test]
fn a_prefix_is_the_device_s_with_all_its_addresses() {
    let mut world = World::new();
    let mut six = report("a", Start, 1, 0);
    (six.ipv4, six.ipv6_prefix) = (None, Some("2001:db8:0:7::".parse().unwrap()));
    world.hear(&six);
    let find = |text: &str| world.0.find(text.parse().unwrap(), at(1));
    assert!(matches!(find("2001:db8:0:7::1234"), Lease::Live { session: 1, .. }));
    assert_eq!(find("2001:db8:0:8::1234"), Lease::None);
    assert_eq!(find("::ffff:100.64.0.1"), Lease::None);
}

#[test]
fn the_newest_report_says_where_a_device_is() {
    let mut world = World::new();
    let cell = |cell| CellTower {
        access: RadioAccess::Lte,
        plmn: "262-01".parse().unwrap(),
        area: Some(1),
        cell: Some(cell),
    };
    for (seconds, number) in [(0, 1), (20, 3), (10, 2)] {
        let mut update = report("a", Update, 1, seconds);
        update.cell = Some(cell(number));
        update.octets = Some(Octets { up: number, down: 0 });
        world.hear(&update);
    }
    let session = world.0.of_sim(iccid(1), at(21)).remove(0);
    assert_eq!(session.cell, Some(cell(3)));
    assert_eq!(session.octets, Some(Octets { up: 3, down: 0 }));
    assert_eq!(session.access, Some(RadioAccess::Lte));
    assert_eq!((session.began_at, session.heard_at), (at(0), at(20)));
}

#[test]
fn the_past_is_forgotten_after_a_day() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("a", Stop, 1, 1));
    // What counts is when it was told, which may be long after it happened.
    assert_eq!(world.0.expire(at(1_000_000 + 86_400)), 0);
    assert_eq!(world.0.expire(at(1_000_000 + 86_401)), 1);
    assert!(world.0.is_empty());
}

#[test]
fn a_snapshot_and_the_log_after_it_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("data_sessions.db"));
    let (mut store, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    let mut full = report("a", Start, 1, 0);
    full.imsi = Some("901405100002864".parse().unwrap());
    full.imei = Some("3520990017614823".parse().unwrap());
    full.msisdn = Some("491700000001".parse().unwrap());
    full.octets = Some(Octets { up: u64::MAX, down: 7 });
    full.ipv6_prefix = Some("2001:db8:0:7::".parse().unwrap());
    full.access = Some(RadioAccess::NbIot);
    sessions.apply((7, at(0)), &full);
    sessions.apply((8, at(1)), &report("a", Start, 2, 1));
    sessions.apply((9, at(2)), &report("b", Restart, 0, 2));
    assert_eq!(store.write(&sessions).unwrap(), 2);
    assert_eq!(store.write(&sessions).unwrap(), 0);
    sessions.apply((10, at(3)), &report("a", Stop, 2, 3));
    let before = sessions.of_sim(iccid(1), at(4));
    drop(store);

    let (_, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    assert_eq!(sessions.cursor(), 10);
    assert_eq!(sessions.of_sim(iccid(1), at(4))[0].imei, before[0].imei);
    sessions.apply((10, at(3)), &report("a", Stop, 2, 3));
    let applied = sessions.apply((10, at(3)), &report("a", Stop, 2, 3));
    assert_eq!(applied.outcome, Outcome::Repeated);
    assert_eq!(sessions.of_sim(iccid(1), at(4)), before);
    assert_eq!(sessions.apply((11, at(9)), &report("b", Start, 3, 1)).outcome, Outcome::Late);
    sessions.read_to(99);
    assert_eq!(sessions.cursor(), 99);
}

#[test]
fn feeds_that_say_less_are_believed_for_longer() {
    let day = Duration::from_hours(24);
    let settings = Settings {
        stale_after_of_feed: [("radius".to_owned(), day)].into(),
        ..Settings::default()
    };
    let sessions = Sessions::new(settings);
    sessions.apply((1, at(0)), &report("a", Start, 1, 0));
    let find = |seconds| sessions.find(ADDRESS.into(), at(seconds));
    assert!(matches!(find(86_400), Lease::Live { .. }));
    assert!(matches!(find(86_401), Lease::Stale { .. }));
}

/// A session left its address, and that was forgotten: the SIM that had the address before, whose
/// end was lost, got it back.
#[test]
fn an_address_that_was_left_goes_back_to_nobody() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("a", Start, 2, 100));
    let mut moved = report("a", Update, 2, 200);
    moved.ipv4 = Some([100, 64, 0, 2].into());
    world.hear(&moved);
    assert_eq!(
        world.0.find(ADDRESS.into(), at(201)),
        Lease::Ended { iccid: Some(iccid(2)), imsi: None }
    );
    // It is the same where the address of before is told after that of now.
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&moved);
    world.hear(&report("a", Start, 2, 100));
    assert_eq!(world.holder(201), None);
    assert_eq!(world.0.address_of(iccid(2), at(201)), Some([100, 64, 0, 2].into()));
}

/// A server lost count without a word and gave the name of one SIM's session to another's. A late
/// report of the first made the second SIM's address its own.
#[test]
fn a_name_that_is_given_to_another_sim_tells_of_two_sessions() {
    let mut world = World::new();
    let other = Ipv4Addr::new(100, 64, 0, 2);
    let of = |sim, change, address, seconds| {
        let mut report = report("a", change, sim, seconds);
        report.session = "1".to_owned();
        report.ipv4 = Some(address);
        report
    };
    world.hear(&of(1, Start, ADDRESS, 0));
    assert_eq!(world.hear(&of(2, Start, other, 100)), Outcome::Opened);
    for change in [Update, Stop] {
        assert_eq!(world.hear(&of(1, change, ADDRESS, 50)), Outcome::Late);
        let lease = world.0.find(other.into(), at(101));
        assert_eq!(lease, Lease::Live { session: 2, iccid: Some(iccid(2)), imsi: None });
        assert_eq!(world.holder(101), None);
    }
    // In one second there is no order, so neither is believed.
    assert_eq!(world.hear(&of(1, Update, ADDRESS, 100)), Outcome::Late);
    assert_eq!(
        world.0.find(other.into(), at(101)),
        Lease::Ended { iccid: Some(iccid(2)), imsi: None }
    );
    assert_eq!(world.holder(101), None);
    assert_eq!(world.hear(&of(2, Update, other, 160)), Outcome::Opened);
    assert!(matches!(world.0.find(other.into(), at(161)), Lease::Live { .. }));
}

/// The end of a session named no address, and what its late beginning said of one was ignored: the
/// SIM that had the address before kept it.
#[test]
fn a_late_beginning_still_tells_whose_the_address_was() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    let mut end = report("a", Stop, 2, 150);
    end.ipv4 = None;
    assert_eq!(world.hear(&end), Outcome::EndedUnknown);
    assert_eq!(world.holder(151), Some(1));
    assert_eq!(world.hear(&report("a", Start, 2, 100)), Outcome::Late);
    assert_eq!(world.holder(151), None);
}

/// A newer session on the IPv4 address of one that had ended took its witness from the prefix as
/// well: the SIM that had the prefix before got it back.
#[test]
fn what_ended_on_two_addresses_is_remembered_for_both() {
    let mut world = World::new();
    let prefix: std::net::Ipv6Addr = "2001:db8:0:7::".parse().unwrap();
    let mut first = report("a", Start, 1, 0);
    (first.ipv4, first.ipv6_prefix) = (None, Some(prefix));
    world.hear(&first);
    for change in [Start, Stop] {
        let mut both = report("a", change, 2, 100);
        both.ipv6_prefix = Some(prefix);
        world.hear(&both);
        world.hear(&report("a", change, 3, 200));
    }
    let lease = world.0.find(prefix.into(), at(201));
    assert_eq!(lease, Lease::Ended { iccid: Some(iccid(2)), imsi: None });
}

/// Sessions of streams live for days. One that had taken another's address ended and was forgotten
/// after a day: the other, whose end was lost, got the address back.
#[test]
fn what_is_forgotten_gives_no_address_back() {
    let days = |days: i64| days * 86_400;
    let settings = Settings {
        stale_after_of_feed: [("radius".to_owned(), Duration::from_hours(7 * 24))].into(),
        ..Settings::default()
    };
    let sessions = Sessions::new(settings);
    let hear =
        |place, report: &SessionReport| sessions.apply((place, report.happened_at), report).outcome;
    hear(1, &report("a", Start, 1, 0));
    hear(2, &report("a", Start, 2, 100));
    hear(3, &report("a", Stop, 2, 200));
    let find = |seconds| sessions.find(ADDRESS.into(), at(seconds));
    assert_eq!(find(201), Lease::Ended { iccid: Some(iccid(2)), imsi: None });
    assert_eq!(sessions.expire(at(days(2))), 1);
    assert_eq!(find(days(2)), Lease::Ended { iccid: Some(iccid(1)), imsi: None });
    // Nor does a very late report bring it back.
    assert_eq!(
        sessions.apply((4, at(days(2))), &report("a", Update, 2, 150)).outcome,
        Outcome::Late
    );
    assert_eq!(sessions.address_of(iccid(2), at(days(2))), None);
    assert_eq!(hear(5, &report("a", Start, 3, days(2))), Outcome::Opened);
}

/// A stream was replayed days late, with the end of a session before its beginning. The end was
/// forgotten at once, because it had happened long ago, and the session lived for days.
#[test]
fn what_is_told_late_is_remembered_as_long() {
    let week = Duration::from_hours(7 * 24);
    let settings = Settings { stale_after: week, ..Settings::default() };
    let sessions = Sessions::new(settings);
    let now = at(3 * 86_400);
    sessions.apply((1, now), &report("a", Stop, 1, 100));
    assert_eq!(sessions.expire(now), 0);
    assert_eq!(sessions.apply((2, now), &report("a", Start, 1, 0)).outcome, Outcome::Late);
    assert!(matches!(sessions.find(ADDRESS.into(), now), Lease::Ended { .. }));
}

/// One clock was a few seconds behind another. Times ahead of it were all cut to the time of
/// arrival, so that reports out of order had the wrong one.
#[test]
fn a_clock_that_is_a_little_behind_keeps_the_order() {
    let sessions = Sessions::new(Settings::default());
    sessions.apply((1, at(90)), &report("a", Start, 2, 100));
    sessions.apply((2, at(91)), &report("a", Update, 1, 99));
    let lease = sessions.find(ADDRESS.into(), at(91));
    assert_eq!(lease, Lease::Live { session: 1, iccid: Some(iccid(2)), imsi: None });
}

/// The clock of the machine went back by an hour. A new session was then older than the last
/// report of the one before it, which kept the address.
#[test]
fn a_clock_that_goes_back_gives_no_address_to_the_wrong_sim() {
    let sessions = Sessions::new(Settings::default());
    sessions.apply((1, at(3_600)), &report("a", Start, 1, 3_600));
    sessions.apply((2, at(3_700)), &report("a", Update, 1, 3_700));
    sessions.apply((3, at(200)), &report("a", Start, 2, 3_800));
    let lease = sessions.find(ADDRESS.into(), at(210));
    assert_eq!(lease, Lease::Live { session: 3, iccid: Some(iccid(2)), imsi: None });
}

#[test]
fn whoever_is_heard_alone_has_the_address_again() {
    let mut world = World::new();
    world.hear(&report("a", Start, 1, 0));
    world.hear(&report("b", Start, 2, 20));
    assert_eq!(world.0.find(ADDRESS.into(), at(21)), Lease::Contested);
    world.hear(&report("b", Update, 2, 80));
    assert_eq!(world.holder(81), Some(2));
    // Not if the other is heard again: both cannot be true.
    world.hear(&report("a", Update, 1, 140));
    assert_eq!(world.0.find(ADDRESS.into(), at(141)), Lease::Contested);
}

/// A packet core told the link-local prefix, which every device has: all sessions were contested.
#[test]
fn a_prefix_that_every_device_has_is_nobodys() {
    let mut world = World::new();
    for sim in 1..3 {
        let mut six = report("a", Start, sim, 10);
        six.ipv4 = Some([100, 64, 0, u8::try_from(sim).unwrap()].into());
        six.ipv6_prefix = Some("fe80::".parse().unwrap());
        world.hear(&six);
    }
    assert_eq!(world.holder(11), Some(1));
    assert_eq!(world.0.find("fe80::1".parse().unwrap(), at(11)), Lease::None);
    assert_eq!(world.0.of_sim(iccid(1), at(11))[0].state, SessionState::Live);
}

/// The message log was restored from an older copy than the snapshot beside it. All reports were
/// taken for old ones until the log had grown again, and addresses for those of SIMs of before.
#[test]
fn a_snapshot_of_another_log_can_be_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::new(folder.path().join("data_sessions.db"));
    let (mut store, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    sessions.apply((1_000, at(0)), &report("a", Start, 1, 0));
    store.write(&sessions).unwrap();
    store.clear(&sessions).unwrap();
    assert_eq!((sessions.len(), sessions.cursor()), (0, 0));
    assert_eq!(sessions.apply((7, at(1)), &report("a", Start, 2, 1)).outcome, Outcome::Opened);
    store.write(&sessions).unwrap();
    let (_, sessions) = SessionStore::open(&file, Settings::default()).unwrap();
    assert_eq!((sessions.len(), sessions.cursor()), (1, 8));
    let lease = sessions.find(ADDRESS.into(), at(2));
    assert_eq!(lease, Lease::Live { session: 7, iccid: Some(iccid(2)), imsi: None });
}
