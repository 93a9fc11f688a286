//! The directory against a model that is too simple to be wrong, and with readers on other
//! threads while it changes.
#![allow(clippy::unwrap_used, reason = "the lint exempts only what is marked #[test]")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use device_authenticator::{DirectoryChange, Found, SimDirectory};
use proptest::prelude::*;
use vocabulary::{Iccid, Identity, Imsi};

/// Few SIMs and fewer addresses, so that they meet often.
const SIMS: u64 = 8;
const ADDRESSES: u8 = 6;

fn iccid(number: u64) -> Iccid {
    Iccid::from_u64(number).unwrap()
}

fn ip(last: u8) -> IpAddr {
    if last.is_multiple_of(2) {
        [10, 0, 0, last].into()
    } else {
        [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into()
    }
}

fn change() -> impl Strategy<Value = DirectoryChange> {
    let set = (0..SIMS, any::<Option<bool>>(), proptest::option::of(0..ADDRESSES), any::<bool>());
    prop_oneof![
        4 => set.prop_map(|(sim, imsi, address, active)| DirectoryChange::Set {
            iccid: iccid(sim),
            imsi: imsi.and_then(|high| Imsi::from_u64(if high { 999_999_999_999_999 } else { 0 })),
            ip: address.map(ip),
            active,
        }),
        1 => (0..SIMS).prop_map(|sim| DirectoryChange::Remove { iccid: iccid(sim) }),
    ]
}

/// All SIMs; an address is looked up by asking each.
#[derive(Default)]
struct Model(HashMap<Iccid, Found>);

impl Model {
    fn apply(&mut self, change: DirectoryChange) {
        match change {
            DirectoryChange::Set { iccid, imsi, ip, active } => {
                for other in self.0.values_mut().filter(|other| other.identity.ip == ip) {
                    other.identity.ip = None;
                }
                self.0.insert(iccid, Found { identity: Identity { iccid, imsi, ip }, active });
            }
            DirectoryChange::Remove { iccid } => {
                self.0.remove(&iccid);
            }
        }
    }

    fn find(&self, ip: IpAddr) -> Option<Found> {
        self.0.values().find(|found| found.identity.ip == Some(ip)).copied()
    }
}

proptest! {
    #[test]
    fn the_directory_is_the_model(
        batches in proptest::collection::vec(proptest::collection::vec(change(), 1..12), 1..12)
    ) {
        let directory = SimDirectory::new();
        let mut model = Model::default();
        for batch in batches {
            let applied = directory.apply(&batch);
            batch.into_iter().for_each(|change| model.apply(change));
            for address in (0..ADDRESSES).map(ip) {
                prop_assert_eq!(directory.find(address), model.find(address));
            }
            for sim in (0..SIMS).map(iccid) {
                prop_assert_eq!(directory.find_iccid(sim), model.0.get(&sim).copied());
            }
            prop_assert_eq!(directory.len(), model.0.len());
            for takeover in applied.takeovers {
                let loser = directory.find_iccid(takeover.from).unwrap();
                prop_assert_eq!(loser.identity.ip, None);
            }
        }
    }
}

/// SIM 1 moves round and round, always forward; addresses 0..=5 change hands with it. A reader
/// that finds it somewhere and looks at once at the address before must not find it there: that
/// would be one SIM under two addresses.
#[test]
fn readers_never_see_a_sim_twice_nor_an_entry_of_another_address() {
    const ROUNDS: u32 = 20_000;
    let directory = SimDirectory::new();
    let done = AtomicBool::new(false);
    let at = |round: u32| IpAddr::V4((0x0a01_0000 + round).into());
    let set = |sim, ip| DirectoryChange::Set { iccid: iccid(sim), imsi: None, ip, active: true };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    let next = at(round + 1);
                    if let Some(found) = directory.find(next) {
                        assert_eq!(found.identity.ip, Some(next));
                        let before = directory.find(at(round)).map(|found| found.identity.iccid);
                        assert_ne!(before, Some(iccid(1)));
                    }
                    round = (round + 1) % ROUNDS;
                }
            });
        }
        for round in 0..ROUNDS {
            // The address that SIM 1 leaves is taken by SIM 2 in the same batch.
            let left = round.checked_sub(1).map(at);
            directory.apply(&[set(1, Some(at(round))), set(2, left)]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(directory.len(), 2);
    assert_eq!(directory.find(at(ROUNDS - 1)).unwrap().identity.iccid, iccid(1));
}
