//! Positions against 100,000 fences on one core: `cargo run --release -p geofence --example rate
//! [FILE]`. With a file it leaves its polygons and points there, for another program to try.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use geofence::{DeviceState, Fence, FenceIndex, Observation, Rules, Shape};
use serde_json::json;
use vocabulary::{Coordinates, Direction, PositionSource, Timestamp};

const FENCES: u64 = 100_000;
const CORNERS: u32 = 20;
const POSITIONS: usize = 500_000;
const DEVICES: usize = 10_000;

/// Numbers that are the same each time (a linear congruential generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Somewhere in a country of 800 by 600 km.
    fn place(&mut self) -> [f64; 2] {
        [6.0 + 9.0 * self.next(), 47.5 + 6.5 * self.next()]
    }
}

/// A site of 200 m to 2 km, each corner at another distance.
fn ring(numbers: &mut Numbers) -> Vec<[f64; 2]> {
    let [x, y] = numbers.place();
    let size = 0.002 + 0.016 * numbers.next();
    let mut ring: Vec<[f64; 2]> = (0..CORNERS)
        .map(|corner| {
            let angle = f64::from(corner) / f64::from(CORNERS) * TAU;
            let far = size * (0.6 + 0.4 * numbers.next());
            [x + 1.5 * far * angle.cos(), y + far * angle.sin()]
        })
        .collect();
    ring.push(ring[0]);
    ring
}

/// Devices on the road: each moves 300 m between its positions, and turns now and then.
fn drive(numbers: &mut Numbers) -> Vec<[f64; 2]> {
    let mut devices: Vec<_> =
        (0..DEVICES).map(|_| (numbers.place(), TAU * numbers.next())).collect();
    let mut points = Vec::with_capacity(POSITIONS);
    while points.len() < POSITIONS {
        for ([x, y], heading) in &mut devices {
            points.push([*x, *y]);
            *heading += 0.3 * (numbers.next() - 0.5);
            *x += 0.004 * heading.cos();
            *y += 0.0027 * heading.sin();
        }
    }
    points
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = Numbers(1);
    let rings: Vec<_> = (0..FENCES).map(|_| ring(&mut numbers)).collect();
    let points = drive(&mut numbers);
    if let Some(file) = std::env::args().nth(1) {
        std::fs::write(file, json!({ "polygons": rings, "points": points }).to_string())?;
    }
    let at = Timestamp::from_millis(1_700_000_000_000);
    let fence = |(id, ring): (u64, &Vec<[f64; 2]>)| -> Result<Fence, Box<dyn Error>> {
        Ok(Fence {
            id,
            shape: Shape::polygon(std::slice::from_ref(ring))?,
            device: None,
            directions: vec![Direction::Enter, Direction::Exit],
            sources: vec![PositionSource::Gps],
            active_from: at,
        })
    };
    let fences: Result<Vec<_>, _> = (0_u64..).zip(&rings).map(fence).collect();
    let begun = Instant::now();
    let index = FenceIndex::new(fences?);
    println!("{} fences indexed in {:.2?}", index.len(), begun.elapsed());
    let rules = Rules { hysteresis_m: 20.0, dwell: Duration::ZERO };
    let mut states = vec![DeviceState::default(); DEVICES];
    let (mut crossings, begun) = (0, Instant::now());
    for (number, [longitude, latitude]) in points.iter().enumerate() {
        let observation = Observation {
            coordinates: Coordinates::new(*latitude, *longitude)?,
            accuracy_m: Some(10.0),
            source: PositionSource::Gps,
            at: at.saturating_add(Duration::from_secs(number as u64)),
        };
        let device = number % DEVICES;
        let state = states.get_mut(device).ok_or("a device without a state")?;
        crossings += state.observe((&index, &rules), device as u64, &observation).len();
    }
    println!(
        "{:.0} positions/s with {crossings} crossings",
        POSITIONS as f64 / begun.elapsed().as_secs_f64()
    );
    let (mut inside, begun) = (0, Instant::now());
    for [longitude, latitude] in &points {
        let at = Coordinates::new(*latitude, *longitude)?;
        inside += index.around(0, at).filter(|fence| fence.shape.contains(at)).count();
    }
    println!(
        "{:.0} positions/s into {inside} fences, without state",
        POSITIONS as f64 / begun.elapsed().as_secs_f64()
    );
    Ok(())
}
