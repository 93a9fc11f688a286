//! Who crosses a border, and when it is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::time::Duration;

use geofence::{DeviceState, Fence, FenceIndex, Observation, Rules, Shape};
use proptest::prelude::*;
use vocabulary::{Coordinates, Direction, PositionSource, Timestamp};

use Direction::{Enter, Exit};
use PositionSource::{CellTower, Gps};

const RULES: Rules = Rules { hysteresis_m: 20.0, dwell: Duration::ZERO };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1_000)
}

/// A point so many metres east of 10,0.
fn east(metres: f64) -> Coordinates {
    Coordinates::new(0.0, 10.0 + metres / 111_195.0).unwrap()
}

fn seen(metres: f64, seconds: i64) -> Observation {
    Observation { coordinates: east(metres), accuracy_m: None, source: Gps, at: at(seconds) }
}

/// A circle of 1,000 m round 10,0 for everybody.
fn fence() -> Fence {
    Fence {
        id: 1,
        shape: Shape::circle(east(0.0), 1_000.0).unwrap(),
        device: None,
        directions: vec![Enter, Exit],
        sources: vec![Gps, CellTower],
        active_from: at(0),
    }
}

struct World(FenceIndex, DeviceState, Rules);

impl World {
    fn new(fence: Fence) -> Self {
        Self(FenceIndex::new([fence]), DeviceState::default(), RULES)
    }

    fn see(&mut self, observation: Observation) -> Vec<Direction> {
        let crossed = self.1.observe((&self.0, &self.2), 7, &observation);
        crossed.into_iter().map(|crossed| crossed.direction).collect()
    }
}

#[test]
fn each_crossing_is_told_once() {
    let mut world = World::new(fence());
    assert!(world.see(seen(5_000.0, 0)).is_empty());
    assert_eq!(world.see(seen(0.0, 10)), [Enter]);
    assert!(world.see(seen(100.0, 20)).is_empty());
    assert_eq!(world.see(seen(5_000.0, 30)), [Exit]);
    assert!(world.see(seen(6_000.0, 40)).is_empty());
}

#[test]
fn a_device_that_is_first_seen_inside_has_entered() {
    assert_eq!(World::new(fence()).see(seen(0.0, 0)), [Enter]);
}

/// A road between two fields: its box is wide, and nothing on it lies 20 m behind its border.
#[test]
fn a_narrow_corridor_is_entered() {
    let (here, there) = ([10.0, 0.0], [10.09, 0.05]);
    let ring = vec![here, there, [10.0904, 0.05], [10.0004, 0.0], here];
    let corridor = Fence { shape: Shape::polygon(&[ring]).unwrap(), ..fence() };
    let mut world = World::new(corridor);
    let on_it = Coordinates::new(0.025, 10.0452).unwrap();
    assert_eq!(world.see(Observation { coordinates: on_it, ..seen(0.0, 0) }), [Enter]);
    assert_eq!(world.see(seen(5_000.0, 1)), [Exit]);
}

/// A parked car's GPS jitters over the border.
#[test]
fn near_the_border_nothing_changes() {
    let mut world = World::new(fence());
    assert_eq!(world.see(seen(900.0, 0)), [Enter]);
    for (second, metres) in [995.0, 1_010.0, 985.0, 1_019.0].into_iter().enumerate() {
        assert!(world.see(seen(metres, second as i64)).is_empty(), "{metres}");
    }
    assert_eq!(world.see(seen(1_025.0, 9)), [Exit]);
    assert!(world.see(seen(990.0, 10)).is_empty());
    assert_eq!(world.see(seen(975.0, 11)), [Enter]);
}

#[test]
fn what_is_not_accurate_decides_nothing_near_the_border() {
    let mut world = World::new(fence());
    let inexact = |metres, seconds, accuracy| Observation {
        accuracy_m: Some(accuracy),
        ..seen(metres, seconds)
    };
    assert!(world.see(inexact(800.0, 0, 300.0)).is_empty());
    assert_eq!(world.see(inexact(600.0, 1, 300.0)), [Enter]);
    assert!(world.see(inexact(1_200.0, 2, 300.0)).is_empty());
    assert_eq!(world.see(inexact(1_400.0, 3, 300.0)), [Exit]);
    // A cell far larger than the fence: deep in it the device may be said to be inside, and to
    // leave it takes as much as the cell is large.
    assert!(world.see(inexact(700.0, 4, 5_000.0)).is_empty());
    assert_eq!(world.see(inexact(400.0, 5, 5_000.0)), [Enter]);
    assert!(world.see(inexact(5_900.0, 6, 5_000.0)).is_empty());
    assert_eq!(world.see(inexact(6_100.0, 7, 5_000.0)), [Exit]);
}

#[test]
fn late_positions_raise_no_phantoms() {
    let mut world = World::new(fence());
    assert_eq!(world.see(seen(0.0, 100)), [Enter]);
    assert!(world.see(seen(5_000.0, 50)).is_empty());
    assert!(world.see(seen(0.0, 100)).is_empty());
    assert_eq!(world.see(seen(5_000.0, 101)), [Exit]);
}

#[test]
fn a_border_counts_after_the_dwell() {
    let mut world = World::new(fence());
    world.2.dwell = Duration::from_secs(60);
    assert!(world.see(seen(0.0, 0)).is_empty());
    assert!(world.see(seen(5_000.0, 30)).is_empty(), "it only passed through");
    assert!(world.see(seen(0.0, 40)).is_empty());
    assert!(world.see(seen(10.0, 99)).is_empty());
    assert_eq!(world.see(seen(20.0, 100)), [Enter]);
    assert!(world.see(seen(5_000.0, 110)).is_empty());
    assert_eq!(world.see(seen(5_000.0, 170)), [Exit]);
}

#[test]
fn sources_are_judged_apart_and_only_those_that_count() {
    let mut world = World::new(fence());
    assert_eq!(world.see(seen(0.0, 10)), [Enter]);
    let by_cell = |metres, seconds| Observation { source: CellTower, ..seen(metres, seconds) };
    assert_eq!(world.see(by_cell(0.0, 5)), [Enter]);
    assert_eq!(world.see(by_cell(5_000.0, 11)), [Exit]);
    let mut world = World::new(Fence { sources: vec![Gps], ..fence() });
    assert!(world.see(by_cell(0.0, 5)).is_empty());
}

#[test]
fn only_the_ways_that_are_asked_for_are_told() {
    let mut world = World::new(Fence { directions: vec![Exit], ..fence() });
    assert!(world.see(seen(0.0, 0)).is_empty());
    assert_eq!(world.see(seen(5_000.0, 1)), [Exit]);
}

#[test]
fn a_fence_knows_only_what_comes_after_it_and_for_whom() {
    let mut world = World::new(Fence { active_from: at(100), ..fence() });
    assert!(world.see(seen(0.0, 99)).is_empty());
    assert_eq!(world.see(seen(0.0, 100)), [Enter]);
    let mut world = World::new(Fence { device: Some(8), ..fence() });
    assert!(world.see(seen(0.0, 0)).is_empty());
    world.0.insert(Fence { device: Some(7), ..fence() });
    assert_eq!(world.see(seen(0.0, 1)), [Enter]);
    // A fence that is gone is left by nobody, and a new one is entered anew.
    world.0.remove(1);
    assert!(world.see(seen(5_000.0, 2)).is_empty());
    assert!(world.1.is_outside());
    world.0.insert(fence());
    assert_eq!(world.see(seen(0.0, 3)), [Enter]);
}

#[test]
fn a_state_is_kept_and_what_is_none_is_refused() {
    let mut world = World::new(fence());
    world.2.dwell = Duration::from_secs(60);
    world.see(seen(0.0, 0));
    world.see(seen(0.0, 60));
    world.see(seen(5_000.0, 70));
    let bytes = world.1.to_bytes();
    assert_eq!(DeviceState::from_bytes(&bytes), Ok(world.1.clone()));
    assert!(DeviceState::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(DeviceState::from_bytes(&[2]).is_err());
    assert!(DeviceState::from_bytes(&[]).is_err());
    assert!(DeviceState::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
}

/// A fence of one of three kinds somewhere in a small country.
fn some_fence(id: u64) -> impl Strategy<Value = Fence> {
    let place = (9.0_f64..11.0, -1.0_f64..1.0);
    let device = prop_oneof![2 => Just(None), 1 => Just(Some(7)), 1 => Just(Some(8))];
    (place, 0.01_f64..0.2, any::<bool>(), device).prop_map(
        move |((longitude, latitude), size, is_circle, device)| {
            let shape = if is_circle {
                let center = Coordinates::new(latitude, longitude).unwrap();
                Shape::circle(center, size * 100_000.0).unwrap()
            } else {
                let (east, north) = (longitude + size, latitude + size / 2.0);
                Shape::polygon(&[vec![
                    [longitude, latitude],
                    [east, latitude],
                    [east, north],
                    [longitude, latitude],
                ]])
                .unwrap()
            };
            Fence { id, shape, device, ..fence() }
        },
    )
}

fn fences() -> impl Strategy<Value = Vec<Fence>> {
    (1_usize..20).prop_flat_map(|count| (0..count as u64).map(some_fence).collect::<Vec<_>>())
}

/// Positions, with the second of each.
fn positions() -> impl Strategy<Value = Vec<(Coordinates, i64)>> {
    let position = (9.0_f64..11.3, -1.1_f64..1.3, 0_i64..1_000);
    let position = position.prop_map(|(longitude, latitude, second)| {
        (Coordinates::new(latitude, longitude).unwrap(), second)
    });
    prop::collection::vec(position, 1..60)
}

proptest! {
    #[test]
    fn the_index_finds_what_a_search_of_all_fences_finds(
        fences in fences(),
        removed in prop::collection::vec(0_u64..20, 0..8),
        positions in positions(),
    ) {
        let mut index = FenceIndex::new(fences[..fences.len() / 2].to_vec());
        fences[fences.len() / 2..].iter().for_each(|fence| index.insert(fence.clone()));
        removed.iter().for_each(|id| { index.remove(*id); });
        for (at, _) in positions {
            let found = index.around(7, at).filter(|fence| fence.shape.contains(at));
            let mut found: Vec<u64> = found.map(|fence| fence.id).collect();
            found.sort_unstable();
            found.dedup();
            let all = fences.iter().filter(|fence| {
                !removed.contains(&fence.id)
                    && fence.device.is_none_or(|device| device == 7)
                    && fence.shape.contains(at)
            });
            prop_assert_eq!(found, all.map(|fence| fence.id).collect::<Vec<_>>());
        }
    }

    /// For each fence ENTER and EXIT take turns, beginning with ENTER, whatever order positions
    /// come in and wherever the state is kept and read again; late ones change nothing.
    #[test]
    fn enter_and_exit_take_turns(
        fences in fences(),
        positions in positions(),
        dwell in 0_u64..100,
        kept in any::<bool>(),
    ) {
        let index = FenceIndex::new(fences);
        let rules = Rules { hysteresis_m: 20.0, dwell: Duration::from_secs(dwell) };
        let mut state = DeviceState::default();
        let mut inside = std::collections::HashSet::new();
        let mut newest = i64::MIN;
        for (coordinates, second) in positions {
            let observation =
                Observation { coordinates, accuracy_m: Some(10.0), source: Gps, at: at(second) };
            let before = state.clone();
            let crossed = state.observe((&index, &rules), 7, &observation);
            for one in &crossed {
                match one.direction {
                    Enter => prop_assert!(inside.insert(one.fence)),
                    Exit => prop_assert!(inside.remove(&one.fence)),
                }
            }
            if second < newest {
                prop_assert_eq!(&state, &before);
                prop_assert!(crossed.is_empty());
            }
            newest = newest.max(second);
            if kept {
                state = DeviceState::from_bytes(&state.to_bytes()).unwrap();
            }
        }
    }

    #[test]
    fn no_bytes_break_a_state(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = DeviceState::from_bytes(&bytes);
    }
}
