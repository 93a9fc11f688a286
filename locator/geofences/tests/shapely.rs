//! The same polygons and points before an independent judge: shapely (GEOS).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use geofence::Shape;
use serde_json::{Value, json};
use vocabulary::Coordinates;

/// Numbers that are the same each time (a linear congruential generator).
struct Numbers(u64);

impl Numbers {
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A ring round a centre, each of its points at another distance; often not convex.
fn star(numbers: &mut Numbers, (x, y): (f64, f64), radius: f64) -> Vec<[f64; 2]> {
    let corners = 4 + numbers.0 as u32 % 20;
    let mut ring: Vec<[f64; 2]> = (0..corners)
        .map(|corner| {
            let angle = f64::from(corner) / f64::from(corners) * std::f64::consts::TAU;
            let far = radius * (0.4 + 0.6 * numbers.next());
            [x + far * angle.cos(), y + far * angle.sin()]
        })
        .collect();
    ring.push(ring[0]);
    ring
}

fn judge(case: &Value) -> Vec<Value> {
    let python = std::env::var_os("SIMGATE_TEST_PYTHON")
        .expect("SIMGATE_TEST_PYTHON is not set: run ./test.sh, or name a Python with shapely");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judge.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(case.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_independent_judge_agrees() {
    let mut numbers = Numbers(7);
    // Around Fiji: half of everything lies beyond the antimeridian, which the judge does not know.
    let polygons: Vec<Vec<Vec<[f64; 2]>>> = (0..300)
        .map(|_| {
            let centre = (176.0 + 8.0 * numbers.next(), -20.0 + 8.0 * numbers.next());
            let radius = 0.1 + 2.0 * numbers.next();
            let hole = star(&mut numbers, centre, radius * 0.3);
            let outer = star(&mut numbers, centre, radius);
            if numbers.next() < 0.5 { vec![outer, hole] } else { vec![outer] }
        })
        .collect();
    let points: Vec<[f64; 2]> = (0..4_000)
        .map(|_| [174.0 + 12.0 * numbers.next(), -22.0 + 12.0 * numbers.next()])
        .collect();
    let judged = judge(&json!({ "polygons": polygons, "points": points }));
    let mut compared = 0;
    for (rings, judged) in polygons.iter().zip(&judged) {
        let shape = Shape::polygon(rings);
        assert_eq!(shape.is_ok(), judged["valid"], "{rings:?}: {shape:?}");
        let Ok(shape) = shape else { continue };
        let places = |name: &str| {
            let places = judged[name].as_array().unwrap().iter();
            places.map(|place| place.as_u64().unwrap() as usize).collect::<Vec<_>>()
        };
        let (inside, near) = (places("inside"), places("near"));
        for (place, [x, y]) in points.iter().enumerate().filter(|(place, _)| !near.contains(place))
        {
            let longitude = if *x > 180.0 { x - 360.0 } else { *x };
            let at = Coordinates::new(*y, longitude).unwrap();
            assert_eq!(shape.contains(at), inside.contains(&place), "{x},{y} in {rings:?}");
            compared += 1;
        }
    }
    assert!(compared > 1_000_000, "{compared} points were compared");
}
