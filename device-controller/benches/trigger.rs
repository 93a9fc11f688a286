//! What it costs that a device shows life.
//!
//! ```text
//! cargo bench -p device-controller
//! ```
//!
//! Prints first how long it takes from an uplink to the call of the sender, for 10,000 devices
//! with a request each, and how fast requests are taken; then the cost of a trigger for a device
//! for which nothing waits.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program, not a library"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use device_controller::{
    Action, Controller, Dispatch, Limits, Mode, NewRequest, Payload, PayloadType, UdpAction,
};
use vocabulary::{Iccid, Timestamp};

const DEVICES: u64 = 10_000;

fn device(number: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn request(number: u64) -> NewRequest {
    let payload = Payload::parse("open the valve", PayloadType::Text).unwrap();
    NewRequest {
        device: device(number),
        action: Action::Udp(UdpAction { port: 3000, payload }),
        mode: Mode::SendWhenActive,
        send_attempts: 1,
        imsi: None,
        ip: None,
    }
}

/// A controller with a request for each of the first devices, and a count of what it handed over.
fn scheduled(folder: &tempfile::TempDir, devices: u64) -> (Controller, Arc<AtomicU64>) {
    let handed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handed);
    let dispatcher = Arc::new(move |dispatch: Dispatch| {
        divan::black_box(dispatch);
        count.fetch_add(1, Ordering::Relaxed);
    });
    let path = folder.path().join("actions.db");
    let controller = Controller::open(&path, Limits::default(), dispatcher).unwrap();
    for first in (0..devices).step_by(100) {
        let bulk = (first..devices.min(first + 100)).map(request).collect();
        controller.submit(now(), bulk, &|_| true).unwrap();
    }
    (controller, handed)
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let (controller, handed) = scheduled(&folder, DEVICES);
    println!("{DEVICES} requests taken in submissions of 100: {:?}", begun.elapsed());
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..DEVICES {
        let begun = Instant::now();
        controller.trigger(device(number), now());
        times.push(begun.elapsed());
    }
    assert_eq!(handed.load(Ordering::Relaxed), DEVICES);
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    let last = times[times.len() - 1];
    println!("uplink to sender: p50 {:?}, p99 {:?}, max {last:?}", at(50), at(99));
    divan::main();
}

#[divan::bench(args = [0, 10_000], sample_size = 10_000)]
fn trigger_without_requests(bencher: divan::Bencher, others: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (controller, _) = scheduled(&folder, others);
    let next = AtomicU64::new(0);
    bencher.bench(|| {
        // Devices in no order, as their messages come.
        let number = next.fetch_add(7_919, Ordering::Relaxed) % 1_000_000;
        controller.trigger(device(1_000_000 + number), now());
    });
}

#[divan::bench(sample_size = 10_000)]
fn trigger_while_in_flight(bencher: divan::Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let (controller, _) = scheduled(&folder, 1);
    controller.trigger(device(0), now());
    bencher.bench(|| controller.trigger(device(0), now()));
}
