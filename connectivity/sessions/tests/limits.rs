//! What happens where there is too much of something, one story each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod world;

use std::net::Ipv4Addr;

use data_sessions::{Lease, Outcome, Sessions, Settings};
use vocabulary::SessionChange::{Restart, Start, Stop, Update};
use vocabulary::SessionReport;

use world::{ADDRESS, World, at, report};

#[test]
fn a_full_table_forgets_the_past_first_and_then_takes_no_more() {
    let settings = Settings { sessions_max: 2, ..Settings::default() };
    let sessions = Sessions::new(settings);
    let hear = |place, report: SessionReport| {
        let arrived = at(i64::try_from(place).unwrap() * 100);
        sessions.apply((place, arrived), &report).outcome
    };
    hear(1, report("a", Start, 1, 0));
    hear(2, report("a", Stop, 1, 1));
    assert_eq!(hear(3, report("a", Start, 2, 2)), Outcome::Opened);
    assert_eq!(hear(4, report("a", Start, 3, 3)), Outcome::Opened);
    assert_eq!(hear(5, report("a", Start, 4, 4)), Outcome::Full);
    assert_eq!(sessions.len(), 2);
}

/// In a full table the beginning of a session was refused, and the SIM that had its address before
/// kept it.
#[test]
fn what_does_not_fit_still_takes_the_address() {
    let sessions = Sessions::new(Settings { sessions_max: 2, ..Settings::default() });
    let mut place = 0;
    let mut hear = |report: SessionReport| {
        place += 1;
        sessions.apply((place, at(1_000)), &report)
    };
    hear(report("a", Start, 1, 0));
    let mut other = report("a", Start, 2, 1);
    other.ipv4 = Some([100, 64, 0, 2].into());
    hear(other);
    let full = hear(report("a", Start, 3, 100));
    assert_eq!(full.outcome, Outcome::Full);
    assert_eq!(full.notice.unwrap().message, "DataSession[Full]");
    assert_eq!(hear(report("a", Start, 4, 101)).notice, None, "said once a minute");
    assert!(matches!(sessions.find(ADDRESS.into(), at(1_001)), Lease::Ended { .. }));
    // What is older than what was refused may be what it ended.
    assert_eq!(hear(report("a", Start, 5, 99)).outcome, Outcome::Late);
    assert!(matches!(sessions.find(ADDRESS.into(), at(1_001)), Lease::Ended { .. }));
}

/// To make room all that had ended was forgotten, and late reports of it were believed.
#[test]
fn what_made_room_does_not_come_back() {
    let sessions = Sessions::new(Settings { sessions_max: 8, ..Settings::default() });
    let hear = |place, report: &SessionReport| sessions.apply((place, at(1_000)), report).outcome;
    for sim in 0..8 {
        let mut start = report("a", Start, sim, 100);
        start.ipv4 = Some([100, 64, 0, u8::try_from(sim).unwrap()].into());
        hear(sim, &start);
    }
    hear(8, &report("a", Stop, 1, 200));
    let mut ninth = report("a", Start, 9, 201);
    ninth.ipv4 = Some([100, 64, 0, 9].into());
    assert_eq!(hear(9, &ninth), Outcome::Opened);
    assert_eq!(sessions.len(), 8);
    assert_eq!(hear(10, &report("a", Update, 1, 150)), Outcome::Late);
    assert!(!matches!(sessions.find(ADDRESS.into(), at(1_001)), Lease::Live { .. }));
}

#[test]
fn thousands_of_contested_addresses_make_ten_notices_a_minute() {
    let sessions = Sessions::new(Settings::default());
    let mut notices = Vec::new();
    for number in 0..2_000_u64 {
        let arrived = at(if number < 1_900 { 100 } else { 161 });
        let address = Ipv4Addr::from_bits(0x6440_0000 + u32::try_from(number).unwrap());
        for (server, sim) in [("a", 2 * number), ("b", 2 * number + 1)] {
            let mut start = report(server, Start, sim, 90);
            start.ipv4 = Some(address);
            notices.extend(sessions.apply((2 * number + sim % 2, arrived), &start).notice);
        }
    }
    assert_eq!(notices.len(), 20);
    assert!(notices[10].description.contains("Of 1890 others"), "{}", notices[10].description);
}

/// A packet core told the address that all devices have behind its address translation. Each report
/// was compared with all sessions before it: a hundred thousand of them took hours, and no datagram
/// was looked at meanwhile.
#[test]
fn an_address_of_thousands_is_nobodys_and_costs_little() {
    let mut world = World::new();
    for sim in 0..3_000 {
        world.hear(&report("a", Start, sim, i64::try_from(sim).unwrap()));
    }
    assert_eq!(world.0.find(ADDRESS.into(), at(3_000)), Lease::Contested);
    // Those that were not compared count as well.
    for sim in 0..2_998 {
        world.hear(&report("a", Stop, sim, 3_100));
    }
    assert_eq!(world.0.find(ADDRESS.into(), at(3_101)), Lease::Contested);
    world.hear(&report("a", Stop, 2_998, 3_100));
    assert_eq!(world.0.expire(at(1_000_000 + 86_401)), 3_000);
    let later = 900_000;
    assert_eq!(world.0.find(ADDRESS.into(), at(later)), Lease::None);
    assert_eq!(world.hear(&report("a", Start, 1, later)), Outcome::Opened);
    assert_eq!(world.holder(later), Some(1), "it is told apart again");
    // The same with prefixes.
    for sim in 0..2_000 {
        let mut six = report("a", Start, sim, later);
        (six.ipv4, six.ipv6_prefix) = (None, Some("2001:db8:0:7::".parse().unwrap()));
        six.session = format!("six-{sim}");
        world.hear(&six);
    }
    let lease = world.0.find("2001:db8:0:7::1".parse().unwrap(), at(later));
    assert_eq!(lease, Lease::Contested);
    assert_eq!(world.holder(later), Some(1), "and so is every other one");
}

/// A packet core named itself differently in each packet. Every name was kept for ever, and all of
/// them were written anew each second.
#[test]
fn servers_beyond_what_is_allowed_are_refused_and_take_addresses_all_the_same() {
    let mut world = World::new();
    let other = Ipv4Addr::new(100, 64, 0, 2);
    for server in 0..10_000 {
        let mut start = report(&format!("pgw-{server}"), Start, 1, 0);
        start.ipv4 = Some(other);
        world.hear(&start);
    }
    world.hear(&report("pgw-1", Start, 1, 100));
    assert_eq!(world.holder(101), Some(1));
    world.1 += 1;
    let refused = world.0.apply((world.1, at(1_000_000)), &report("another", Start, 2, 200));
    assert_eq!(refused.outcome, Outcome::Full);
    let notice = refused.notice.unwrap();
    assert!(notice.description.contains("\"another\" beyond the 10000"), "{notice:?}");
    assert_eq!(world.holder(201), None, "it is another SIM's now");
    assert_eq!(world.hear(&report("another", Restart, 0, 201)), Outcome::Full);
    assert_eq!(world.hear(&report("pgw-1", Start, 3, 300)), Outcome::Opened);
    assert_eq!(world.holder(301), Some(3));
}

/// The clock of the machine was a year ahead while the table was full. After it was set right no
/// room was looked for until that year was over.
#[test]
fn a_clock_that_was_ahead_does_not_keep_a_full_table_full() {
    let sessions = Sessions::new(Settings { sessions_max: 1, ..Settings::default() });
    let year = 365 * 86_400;
    let start = |sim: u64, seconds| {
        let mut start = report("a", Start, sim, seconds);
        start.ipv4 = Some([100, 64, 1, u8::try_from(sim).unwrap()].into());
        start
    };
    sessions.apply((1, at(year)), &start(1, year));
    assert_eq!(sessions.apply((2, at(year)), &start(2, 5)).outcome, Outcome::Full);
    assert_eq!(sessions.apply((3, at(10)), &report("a", Stop, 1, 10)).outcome, Outcome::Ended);
    assert_eq!(sessions.apply((4, at(100)), &start(3, 100)).outcome, Outcome::Opened);
}
