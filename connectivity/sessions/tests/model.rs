//! A network in which SIMs come and go, its reports lost, doubled, late and out of order, and the
//! gateway killed: whatever was heard, no address is taken for the wrong SIM.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use data_sessions::{Lease, SessionStore, Sessions, Settings};
use proptest::prelude::*;
use state::StateFile;
use vocabulary::{Iccid, Octets, SessionChange, SessionReport, Timestamp};

/// When everything has happened, in seconds; reports arrive after it.
const LATER: i64 = 5_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

fn iccid(sim: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + sim).unwrap()
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, number)
}

/// What truly was: a session of a SIM on a server that held an address for a while.
#[derive(Debug, Clone)]
struct Life {
    sim: u64,
    server: usize,
    address: u8,
    began: i64,
    ended: i64,
}

/// A report on its way.
#[derive(Debug, Clone)]
struct Sent {
    life: Option<usize>,
    report: SessionReport,
    /// When it was true, by the true clock.
    truly: i64,
}

/// How one server's clock is wrong, in seconds: those of two servers differ by less than 30.
const SKEWS: [i64; 2] = [-14, 14];

/// Lives one after the other on each address, with pauses of at least a second between them.
fn lives() -> impl Strategy<Value = Vec<Life>> {
    let step = (0_u8..3, 0_u64..6, 0_usize..2, 1_i64..200, 1_i64..60);
    prop::collection::vec(step, 1..14).prop_map(|steps| {
        let mut free_at = HashMap::new();
        let life = |(address, sim, server, length, pause)| {
            let free: &mut i64 = free_at.entry(address).or_insert(0);
            let began = *free + pause;
            *free = began + length + 1;
            Life { sim, server, address, began, ended: began + length }
        };
        steps.into_iter().map(life).collect()
    })
}

fn reports(lives: &[Life], restarts: &[(usize, i64)]) -> Vec<Sent> {
    let mut sent = Vec::new();
    let told = |server: usize, change, truly: i64| {
        let name = ["one", "two"][server];
        SessionReport::new("radius", change, name, at(truly + SKEWS[server]))
    };
    for (number, life) in lives.iter().enumerate() {
        // A server that begins anew says nothing more of its sessions of before.
        let died = |sent: &Sent| {
            let mut own = restarts.iter().filter(|(server, _)| *server == life.server);
            own.any(|(_, restart)| (life.began..sent.truly).contains(restart))
        };
        let of_session = |change, truly| {
            let mut report = told(life.server, change, truly);
            report.session = format!("session-{number}");
            report.iccid = Some(iccid(life.sim));
            report.ipv4 = Some(address(life.address));
            Sent { life: Some(number), report, truly }
        };
        let updates = (life.began + 1..life.ended).step_by(40);
        let updates = updates.map(|truly| of_session(SessionChange::Update, truly));
        let start = of_session(SessionChange::Start, life.began);
        let all = std::iter::once(start).chain(updates);
        let all = all.chain([of_session(SessionChange::Stop, life.ended)]);
        // What was carried says nothing of who holds the address.
        let carried = (life.began + 20..life.ended).step_by(40).map(|truly| {
            let mut usage = of_session(SessionChange::Usage, truly);
            usage.report.counted_from = Some(at(truly - 20 + SKEWS[life.server]));
            usage.report.octets = Some(Octets { up: 1, down: 1 });
            Sent { life: None, ..usage }
        });
        sent.extend(all.chain(carried).filter(|sent| !died(sent)));
    }
    let restart = |&(server, truly): &(usize, i64)| Sent {
        life: None,
        report: told(server, SessionChange::Restart, truly),
        truly,
    };
    sent.extend(restarts.iter().map(restart));
    sent
}

/// What happens to each report on its way: how often it arrives, and how late.
fn fates() -> impl Strategy<Value = Vec<(u8, u16)>> {
    prop::collection::vec(
        (prop_oneof![4 => Just(1_u8), 1 => Just(0), 1 => Just(2)], 0_u16..400),
        120,
    )
}

/// The reports that arrive, in their order.
fn arriving(sent: &[Sent], fates: &[(u8, u16)]) -> Vec<Sent> {
    let mut arriving: Vec<(i64, Sent)> = Vec::new();
    for (report, (times, delay)) in sent.iter().zip(fates.iter().cycle()) {
        for time in 0..i64::from(*times) {
            let due = report.truly + i64::from(*delay) * (1 + time);
            arriving.push((due, report.clone()));
        }
    }
    arriving.sort_by_key(|(due, _)| *due);
    arriving.into_iter().map(|(_, report)| report).collect()
}

/// The SIM that whoever has heard `heard` may take for the holder of an address: the one that held
/// it last of all that were heard of, unless its end was heard.
fn may_hold(lives: &[Life], heard: &[Sent], of: u8) -> Option<u64> {
    let known = |number: &usize| lives[*number].address == of;
    let last = heard
        .iter()
        .filter_map(|sent| sent.life)
        .filter(known)
        .max_by_key(|number| lives[*number].began)?;
    let ended = |sent: &Sent| match sent.report.change {
        SessionChange::Stop => sent.life == Some(last),
        SessionChange::Restart => {
            sent.report.server == ["one", "two"][lives[last].server]
                && sent.truly >= lives[last].began
        }
        _ => false,
    };
    (!heard.iter().any(ended)).then_some(lives[last].sim)
}

fn holder(sessions: &Sessions, of: u8) -> Option<u64> {
    match sessions.find(address(of).into(), at(LATER)) {
        Lease::Live { iccid: Some(found), .. } => Some(found.as_u64() - iccid(0).as_u64()),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_address_is_taken_for_the_wrong_sim(
        lives in lives(),
        restarts in prop::collection::vec((0_usize..2, 0_i64..600), 0..2),
        fates in fates(),
    ) {
        let arriving = arriving(&reports(&lives, &restarts), &fates);
        // Nothing grows stale here: stale leases would hide what is wrong.
        let stale_after = Duration::from_hours(48);
        let sessions = Sessions::new(Settings { stale_after, ..Settings::default() });
        for (place, sent) in arriving.iter().enumerate() {
            sessions.apply((place as u64, at(LATER)), &sent.report);
            for of in 0..3 {
                if let Some(found) = holder(&sessions, of) {
                    let allowed = may_hold(&lives, &arriving[..=place], of);
                    prop_assert_eq!(Some(found), allowed, "address {} after {:#?}", of, &arriving[..=place]);
                }
            }
        }
    }

    /// Unknown is safe and useless: where all reports arrive, in their order and with clocks that
    /// agree, each holder is known at each moment.
    #[test]
    fn a_network_that_tells_everything_in_order_is_known(lives in lives()) {
        let one_server: Vec<Life> =
            lives.iter().map(|life| Life { server: 0, ..life.clone() }).collect();
        let mut sent = reports(&one_server, &[]);
        sent.sort_by_key(|sent| sent.truly);
        let sessions = Sessions::new(Settings::default());
        for (place, report) in sent.iter().enumerate() {
            sessions.apply((place as u64, at(LATER)), &report.report);
            for of in 0..3 {
                let expected = may_hold(&one_server, &sent[..=place], of);
                prop_assert_eq!(holder(&sessions, of), expected);
            }
        }
    }

    #[test]
    fn a_crash_at_any_moment_changes_nothing(
        lives in lives(),
        fates in fates(),
        writes in prop::collection::vec(any::<bool>(), 60),
        crash_after in 0_usize..60,
    ) {
        let arriving = arriving(&reports(&lives, &[(0, 300)]), &fates);
        let settings = Settings { stale_after: Duration::from_hours(48), ..Settings::default() };
        let whole = Sessions::new(settings.clone());
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("data_sessions.db"));
        let (mut store, mut sessions) = SessionStore::open(&file, settings.clone()).unwrap();
        for (place, sent) in arriving.iter().enumerate() {
            whole.apply((place as u64, at(LATER)), &sent.report);
            sessions.apply((place as u64, at(LATER)), &sent.report);
            if writes[place % writes.len()] {
                store.write(&sessions).unwrap();
            }
            if place == crash_after {
                drop(store);
                (store, sessions) = SessionStore::open(&file, settings.clone()).unwrap();
                let cursor = usize::try_from(sessions.cursor()).unwrap();
                for (again, sent) in arriving.iter().enumerate().take(place + 1).skip(cursor) {
                    sessions.apply((again as u64, at(LATER)), &sent.report);
                }
            }
        }
        for sim in 0..6 {
            let of = |sessions: &Sessions| sessions.of_sim(iccid(sim), at(LATER));
            prop_assert_eq!(of(&sessions), of(&whole));
        }
        prop_assert_eq!(sessions.len(), whole.len());
    }
}
