//! What a window does, case by case.

use std::time::{Duration, Instant};

use vocabulary::Timestamp;

use super::*;
use crate::sink::FailureClass;

pub(super) const LIMITS: WindowLimits =
    WindowLimits { records: 8, bytes: 100, device_records: 3, device_bytes: 100, deferred: 12 };

pub(super) fn rules() -> Rules {
    Rules {
        limits: LIMITS,
        policy: RetryPolicy::standard(),
        order: Order::Device,
        batch: Rules::SINGLE,
    }
}

pub(super) fn batches(events: usize) -> Rules {
    let limits = WindowLimits {
        records: 1_000,
        bytes: 1 << 20,
        device_records: 1_000,
        device_bytes: 1 << 20,
        deferred: 1_000,
    };
    Rules { limits, batch: BatchOptions { events, wait: Duration::from_secs(1) }, ..rules() }
}

pub(super) fn failed(class: FailureClass) -> Ending {
    Ending::Failed { class, after: None, is_final: false, counts: true }
}

const AGAIN: Ending =
    Ending::Failed { class: FailureClass::Status, after: None, is_final: false, counts: true };

fn moment(now: Instant) -> Moment {
    Moment { now, at: Timestamp::from_millis(1_000_000) }
}

fn window(rules: Rules, now: Instant) -> Window<u64> {
    Window::new(rules, &Position::default(), moment(now), 7)
}

fn admit(window: &mut Window<u64>, records: &[(u64, u64)], now: Instant) {
    for (place, device) in records.iter().copied() {
        window.admit(Arrival { place, device, bytes: 1, item: place }, now);
    }
}

/// Starts all that may, each alone.
fn started(window: &mut Window<u64>, now: Instant) -> Vec<Flight> {
    std::iter::from_fn(|| window.start(now).map(|attempt| attempt.flight)).collect()
}

fn places(flights: &[Flight]) -> Vec<Vec<u64>> {
    flights.iter().map(|flight| flight.places().to_vec()).collect()
}

fn singles(flights: &[Flight]) -> Vec<u64> {
    flights.iter().flat_map(|flight| flight.places().to_vec()).collect()
}

#[test]
fn one_device_is_served_one_by_one_and_others_beside_it() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1), (1, 1), (2, 2), (3, 1), (4, 3), (5, 4)], now);
    let mut flights = started(&mut window, now);
    assert_eq!(singles(&flights), [0, 2, 4, 5]);
    window.finish(flights.remove(1), Ending::Delivered, now);
    assert!(started(&mut window, now).is_empty());
    assert_eq!(window.cursor(), 0);
    window.finish(flights.remove(0), Ending::Delivered, now);
    assert_eq!(singles(&started(&mut window, now)), [1]);
    assert_eq!(window.cursor(), 1);
}

#[test]
fn without_order_nothing_waits_for_anything() {
    let now = Instant::now();
    let mut window = window(Rules { order: Order::None, ..rules() }, now);
    admit(&mut window, &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], now);
    assert_eq!(singles(&started(&mut window, now)), [0, 1, 2, 3, 4]);
    assert_eq!(window.devices().collect::<Vec<_>>(), [1; 5]);
}

#[test]
fn a_failed_head_holds_its_line_and_nobody_else() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1), (1, 1), (2, 2)], now);
    let mut flights = started(&mut window, now);
    window.finish(flights.remove(0), AGAIN, now);
    window.finish(flights.remove(0), Ending::Delivered, now);
    assert!(started(&mut window, now).is_empty());
    let due = window.due_at(now).unwrap();
    assert!(due >= now + Duration::from_secs(4) && due <= now + Duration::from_secs(6));
    let mut flights = started(&mut window, due);
    assert_eq!(singles(&flights), [0]);
    let after = Some(Duration::from_secs(7_000));
    let ending =
        Ending::Failed { class: FailureClass::Throttled, after, is_final: false, counts: true };
    window.finish(flights.remove(0), ending, due);
    assert_eq!(window.due_at(due), Some(due + Duration::from_secs(7_000)));
    assert_eq!((window.cursor(), window.retrying()), (0, 1));
}

#[test]
fn an_event_that_used_up_its_attempts_is_given_up_and_the_next_one_tried() {
    let mut now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(3, 1), (9, 1)], now);
    for attempt in 1..=13 {
        let mut flights = started(&mut window, now);
        assert_eq!(singles(&flights), [3], "attempt {attempt}");
        let finish = window.finish(flights.remove(0), AGAIN, now);
        let dead = Dead { place: 3, device: 1, attempts: 13, item: 3 };
        assert_eq!(finish.dead, if attempt == 13 { vec![dead] } else { vec![] });
        now = window.due_at(now).unwrap_or(now);
    }
    assert_eq!((window.cursor(), window.wanted(9)), (9, vec![9]));
    window.readmit(Arrival { place: 9, device: 1, bytes: 1, item: 9 }, now);
    assert_eq!(singles(&started(&mut window, now)), [9]);
}

/// An endpoint took each probe and failed under load. Each probe that passed released all that
/// waited, whose failures counted until there were enough to see that it was down again: what was
/// to be tried for 75 hours was given up after two minutes.
#[test]
fn an_endpoint_that_comes_and_goes_uses_up_no_attempts_unless_it_blames_the_event() {
    for (ending, deaths) in [(AGAIN, 0), (failed(FailureClass::Refused), 1)] {
        let now = Instant::now();
        let mut window = window(rules(), now);
        admit(&mut window, &[(0, 1)], now);
        let mut dead = 0;
        for _ in 0..13 {
            let flight = started(&mut window, now).remove(0);
            dead += window.finish(flight, ending, now).dead.len();
            window.release_waiting(now);
        }
        assert_eq!(dead, deaths, "{ending:?}");
    }
}

#[test]
fn attempts_while_the_endpoint_is_down_do_not_count() {
    let mut now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1)], now);
    let uncounted = Ending::Failed {
        class: FailureClass::Connect,
        after: None,
        is_final: false,
        counts: false,
    };
    for _ in 0..50 {
        let probe = window.start_probe(now).unwrap();
        assert!(window.finish(probe.flight, uncounted, now).dead.is_empty());
        now += Duration::from_secs(300);
    }
    assert_eq!(window.position(moment(now)).retries, []);
}

#[test]
fn what_can_never_be_delivered_dies_at_once_and_what_is_too_large_at_the_third() {
    let mut now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1), (1, 2)], now);
    let mut flights = started(&mut window, now);
    let never =
        Ending::Failed { class: FailureClass::Request, after: None, is_final: true, counts: false };
    let finish = window.finish(flights.remove(0), never, now);
    assert_eq!(finish.dead, [Dead { place: 0, device: 1, attempts: 1, item: 0 }]);
    let too_large = failed(FailureClass::TooLarge);
    for deaths in [0, 0, 1] {
        let finish = window.finish(flights.remove(0), too_large, now);
        assert_eq!(finish.dead.len(), deaths);
        now = window.due_at(now).unwrap_or(now);
        flights = started(&mut window, now);
    }
    assert!(window.is_empty());
}

#[test]
fn an_endpoint_that_is_gone_fails_the_integration_and_loses_nothing() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1)], now);
    let flight = started(&mut window, now).remove(0);
    let finish = window.finish(flight, failed(FailureClass::Gone), now);
    assert!(finish.fails && finish.dead.is_empty());
    assert_eq!(window.cursor(), 0);
}

#[test]
fn the_room_ends_with_records_or_bytes() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    window.admit(Arrival { place: 0, device: 1, bytes: 99, item: 0 }, now);
    assert_eq!(window.room(), 7);
    window.admit(Arrival { place: 1, device: 1, bytes: 1, item: 1 }, now);
    assert_eq!(window.room(), 0);
}

#[test]
fn probes_are_first_of_those_that_have_not_failed_and_an_open_gate_ends_all_waits() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &[(0, 1), (1, 2), (2, 3)], now);
    for _ in 0..2 {
        let probe = window.start(now).unwrap();
        window.finish(probe.flight, AGAIN, now);
    }
    let order: Vec<u64> = (0..3).map(|_| window.start_probe(now).unwrap().items[0]).collect();
    assert_eq!(order[0], 2);
    assert!(window.start_probe(now).is_none());
    admit(&mut window, &[(3, 4), (4, 5)], now);
    for _ in 0..2 {
        let probe = window.start(now).unwrap();
        window.finish(probe.flight, AGAIN, now);
    }
    assert!(window.start(now).is_none());
    window.release_waiting(now);
    assert_eq!(started(&mut window, now).len(), 2);
}

/// A device that failed for an hour filled the window with 4,096 records of its own queue;
/// after that nothing was read any more and all devices of the integration waited for it.
#[test]
fn a_device_that_fails_for_long_leaves_room_for_the_others() {
    let mut now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &(0..10).map(|place| (place, 1)).collect::<Vec<_>>(), now);
    let flight = started(&mut window, now).remove(0);
    window.finish(flight, AGAIN, now);
    assert_eq!((window.room(), window.wanted(9)), (3, vec![]));
    admit(&mut window, &[(10, 2)], now);
    let flight = started(&mut window, now).remove(0);
    assert_eq!(flight.places(), [10]);
    window.finish(flight, Ending::Delivered, now);
    let position = window.position(moment(now));
    assert_eq!((position.resume, position.holes), (11, (0..10).collect()));
    // The line moves: what was deferred comes back, and its order is kept.
    let mut order: Vec<u64> = Vec::new();
    while window.cursor() < 11 {
        now += Duration::from_secs(10);
        for flight in started(&mut window, now) {
            order.extend(flight.places());
            window.finish(flight, Ending::Delivered, now);
        }
        for place in window.wanted(9) {
            window.readmit(Arrival { place, device: 1, bytes: 1, item: place }, now);
        }
    }
    assert_eq!(order, (0..10).collect::<Vec<_>>());
    assert!(window.lines.is_empty() && window.hungry.is_empty());
}

/// Each device that failed held its whole share of the window: 64 of them filled it, and nothing
/// was read any more for the thousands that worked.
#[test]
fn of_a_device_that_fails_one_record_is_held_and_a_window_full_of_them_says_so() {
    let now = Instant::now();
    let limits = WindowLimits { deferred: 30, ..LIMITS };
    let mut window = window(Rules { limits, ..rules() }, now);
    admit(&mut window, &(0..8).map(|place| (place, place % 4)).collect::<Vec<_>>(), now);
    assert_eq!(window.room(), 0);
    for flight in started(&mut window, now) {
        window.finish(flight, AGAIN, now);
    }
    assert_eq!((window.slots.len(), window.deferred.len(), window.room()), (4, 4, 8));
    assert!(!window.is_clogged() && window.is_eased());
    for place in 8..36 {
        assert!(!window.is_clogged() || window.stuck > 31, "at {place}");
        admit(&mut window, &[(place, place)], now);
        let flight = started(&mut window, now).remove(0);
        window.finish(flight, AGAIN, now);
    }
    assert_eq!((window.room(), window.is_clogged(), window.is_eased()), (0, true, false));
    window.release_waiting(now);
    for flight in started(&mut window, now) {
        window.finish(flight, Ending::Delivered, now);
    }
    assert!(!window.is_clogged() && window.is_eased());
    assert_eq!((window.wanted(9), window.stuck, window.bytes), (vec![4, 5, 6, 7], 0, 0));
}

/// The places of one device that failed for hours used up all that may be deferred: nothing was
/// read any more.
#[test]
fn a_window_that_can_defer_no_more_is_clogged_when_nothing_but_failed_heads_is_left() {
    let now = Instant::now();
    let mut window = window(rules(), now);
    admit(&mut window, &(0..13).map(|place| (place, 1)).collect::<Vec<_>>(), now);
    admit(&mut window, &[(13, 2)], now);
    let mut flights = started(&mut window, now);
    assert_eq!(singles(&flights), [0, 13]);
    window.finish(flights.remove(0), AGAIN, now);
    assert_eq!((window.room(), window.is_clogged()), (0, false));
    window.finish(flights.remove(0), Ending::Delivered, now);
    assert!(window.is_clogged() && !window.is_eased());
}

/// More places can be left behind than the next run has room for: it read no farther than those,
/// and nothing beyond.
#[test]
fn a_saved_position_is_read_although_it_is_more_than_there_is_room_for() {
    let now = Instant::now();
    let due = moment(now).at.saturating_add(Duration::from_secs(50));
    let retries = (0..40).map(|place| Retry { place, failures: 2, due }).collect();
    let holes: Vec<u64> = (0..40).collect();
    let position = Position { holes, retries, ..Position::at(40) };
    let mut window = Window::new(rules(), &position, moment(now), 1);
    for place in 0..40 {
        window.admit_or_defer(Arrival { place, device: place, bytes: 1, item: place }, now);
    }
    window.advance(40);
    assert_eq!((window.slots.len(), window.deferred.len()), (32, 8));
    assert!(window.is_clogged());
    assert_eq!(window.position(moment(now)), position, "no failure is forgotten");
}

#[test]
fn a_share_ends_with_bytes_too_but_one_record_always_fits() {
    let now = Instant::now();
    let limits = WindowLimits { device_bytes: 10, ..LIMITS };
    let mut window = window(Rules { limits, ..rules() }, now);
    window.admit(Arrival { place: 0, device: 1, bytes: 50, item: 0 }, now);
    window.admit(Arrival { place: 1, device: 1, bytes: 1, item: 1 }, now);
    assert_eq!((window.slots.len(), window.deferred.len()), (1, 1));
    assert_eq!(window.expire(2), 1);
    assert_eq!((window.deferred.len(), window.cursor()), (0, 0));
}

/// A restart began the 75 hours of every message anew: a gateway that was restarted daily tried
/// what an endpoint refused for as long as it was kept.
#[test]
fn a_restart_does_not_begin_the_schedule_anew() {
    let mut now = Instant::now();
    let mut first = window(rules(), now);
    admit(&mut first, &[(4, 1), (5, 1), (6, 2)], now);
    for _ in 0..8 {
        for flight in started(&mut first, now) {
            first.finish(flight, AGAIN, now);
        }
        now = first.due_at(now).unwrap();
    }
    now -= Duration::from_secs(100);
    let position = first.position(moment(now));
    let position = Position::decode(&position.encode()).unwrap();
    assert_eq!(position.retries.len(), 2, "{position:?}");
    let mut second = Window::new(rules(), &position, moment(now), 9);
    assert_eq!(second.position(moment(now)).retries, position.retries, "before they are read");
    admit(&mut second, &[(4, 1), (5, 1), (6, 2)], now);
    assert!(started(&mut second, now).is_empty());
    let again = second.position(moment(now)).retries;
    assert_eq!(again, position.retries);
    now += Duration::from_secs(100);
    assert!(!started(&mut second, now).is_empty());
}

/// A gateway whose clock was a year ahead saved when it would try again. When the clock was right
/// again, that was in a year.
#[test]
fn a_moment_that_a_wrong_clock_saved_is_no_farther_than_the_longest_wait() {
    let now = Instant::now();
    let due = moment(now).at.saturating_add(Duration::from_secs(365 * 24 * 3_600));
    let retries = vec![Retry { place: 4, failures: 2, due }];
    let position = Position { retries, ..Position::at(4) };
    let mut window = Window::new(rules(), &position, moment(now), 9);
    admit(&mut window, &[(4, 1)], now);
    let day = Duration::from_secs(24 * 3_600);
    assert_eq!(window.due_at(now), Some(now + day * 120 / 100));
}

#[test]
fn a_batch_starts_when_it_is_full() {
    let now = Instant::now();
    let mut window = window(batches(3), now);
    admit(&mut window, &[(0, 1), (1, 2)], now);
    assert!(started(&mut window, now).is_empty());
    assert_eq!(window.due_at(now), Some(now + Duration::from_secs(1)));
    admit(&mut window, &[(2, 1), (3, 3)], now);
    let flights = started(&mut window, now);
    // Two of the first device side by side, in their order.
    assert_eq!(places(&flights), [vec![0, 2, 1]]);
    assert_eq!(window.due_at(now), Some(now + Duration::from_secs(1)));
}

#[test]
fn a_batch_starts_when_its_oldest_event_has_waited() {
    let mut now = Instant::now();
    let mut window = window(batches(100), now);
    admit(&mut window, &[(0, 1)], now);
    now += Duration::from_millis(600);
    admit(&mut window, &[(1, 2)], now);
    now += Duration::from_millis(399);
    assert!(started(&mut window, now).is_empty());
    now += Duration::from_millis(1);
    assert_eq!(places(&started(&mut window, now)), [vec![0, 1]]);
    assert_eq!(window.due_at(now), None);
}

#[test]
fn a_batch_does_not_wait_for_what_cannot_come() {
    let now = Instant::now();
    let mut rules = batches(100);
    rules.limits.device_records = 3;
    let mut window = window(rules, now);
    admit(&mut window, &[(0, 1), (1, 1), (2, 1)], now);
    assert!(started(&mut window, now).is_empty());
    admit(&mut window, &[(3, 1)], now);
    assert_eq!(places(&started(&mut window, now)), [vec![0, 1, 2]]);
}

#[test]
fn a_batch_has_no_more_bytes_than_servers_take() {
    let now = Instant::now();
    let mut rules = batches(3);
    rules.limits.bytes = 10 << 20;
    let mut window = window(rules, now);
    for place in 0..3 {
        window.admit(Arrival { place, device: place, bytes: 400_000, item: place }, now);
    }
    assert_eq!(places(&started(&mut window, now)), [vec![0, 1]]);
}

/// Requests until a batch of `devices` devices with one poison at `poison` is done.
fn requests_to_find(poison: u64, devices: u64, events: u64) -> usize {
    let mut now = Instant::now();
    let mut rules = batches(usize::try_from(events).unwrap());
    rules.policy.attempts_max = Some(1);
    let mut window = window(rules, now);
    let records: Vec<_> = (0..events).map(|place| (place, place % devices)).collect();
    admit(&mut window, &records, now);
    let (mut requests, mut dead, mut done) = (0, Vec::new(), Vec::new());
    while !window.is_empty() {
        let Some(attempt) = window.start(now) else {
            now = window.due_at(now).expect("something is to come");
            continue;
        };
        requests += 1;
        let is_refused = attempt.items.contains(&poison);
        let refused = failed(FailureClass::Refused);
        let ending = if is_refused { refused } else { Ending::Delivered };
        if !is_refused {
            done.extend(attempt.items);
        }
        dead.extend(window.finish(attempt.flight, ending, now).dead);
    }
    assert_eq!(dead.iter().map(|dead| dead.place).collect::<Vec<_>>(), [poison]);
    for device in 0..devices {
        let of_device = done.iter().filter(|place| **place % devices == device);
        assert!(of_device.is_sorted(), "the order of device {device}");
    }
    assert_eq!(done.len() as u64, events - 1);
    requests
}

#[test]
fn one_poison_event_in_a_batch_costs_twice_the_logarithm() {
    for devices in [1, 7, 128] {
        for poison in [0, 1, 63, 64, 127] {
            let requests = requests_to_find(poison, devices, 128);
            assert!(requests <= 18, "{requests} requests, {devices} devices, poison at {poison}");
        }
    }
}

#[test]
fn a_batch_that_fails_is_tried_again_by_fewer_and_fewer() {
    let mut now = Instant::now();
    let mut window = window(batches(64), now);
    admit(&mut window, &(0..64).map(|place| (place, place)).collect::<Vec<_>>(), now);
    let mut sizes = Vec::new();
    // The event at 40 makes the endpoint answer 500, and nobody else.
    while !window.is_empty() {
        let Some(attempt) = window.start(now) else {
            now = window.due_at(now).expect("something is to come");
            continue;
        };
        let is_ill = attempt.items.contains(&40);
        if is_ill {
            sizes.push(attempt.items.len());
        }
        let ending = if is_ill { AGAIN } else { Ending::Delivered };
        let finish = window.finish(attempt.flight, ending, now);
        assert!(finish.dead.iter().all(|dead| dead.place == 40));
    }
    assert_eq!(sizes, [64, 64, 32, 16, 8, 4, 2, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn one_window_takes_over_another() {
    let now = Instant::now();
    let (mut one, mut other) = (window(rules(), now), window(rules(), now));
    admit(&mut one, &[(0, 1), (1, 1), (2, 1), (3, 1)], now);
    let flight = started(&mut one, now).remove(0);
    other.advance(4);
    admit(&mut other, &[(4, 2), (5, 3), (6, 2)], now);
    one.advance(7);
    let second = other.start(now).unwrap().flight;
    one.absorb(other);
    one.finish(second, Ending::Delivered, now);
    assert_eq!(singles(&started(&mut one, now)), [5, 6]);
    one.finish(flight, Ending::Delivered, now);
    assert_eq!(singles(&started(&mut one, now)), [1]);
    assert_eq!((one.cursor(), one.read_to()), (1, 7));
    assert_eq!(one.position(moment(now)).holes, [1, 2, 3]);
}
