//! Any numbers as a polygon, and a point of it; any bytes as the state of a device.
#![no_main]

use geofence::{DeviceState, Shape};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = DeviceState::from_bytes(bytes) {
        assert_eq!(DeviceState::from_bytes(&state.to_bytes()), Ok(state));
    }
    // Hundredths of a degree reach all over the globe, and a little further.
    let (numbers, _) = bytes.as_chunks::<2>();
    let numbers: Vec<f64> =
        numbers.iter().map(|bytes| f64::from(i16::from_le_bytes(*bytes)) / 100.0).collect();
    let mut ring: Vec<[f64; 2]> =
        numbers.chunks_exact(2).take(100).map(|pair| [pair[0], pair[1] / 3.7]).collect();
    ring.extend(ring.first().copied());
    let Ok(shape) = Shape::polygon(std::slice::from_ref(&ring)) else { return };
    let boxes = shape.boxes();
    for [longitude, latitude] in ring {
        let Ok(at) = vocabulary::Coordinates::new(latitude, longitude) else { continue };
        let depth = shape.depth_m(at);
        assert!(depth.is_finite(), "{depth}");
        let in_box = boxes.iter().any(|[west, south, east, north]| {
            (*west..=*east).contains(&longitude) && (*south..=*north).contains(&latitude)
        });
        assert!(in_box || !shape.contains(at));
    }
});
