//! Middles and distances on a sphere.

use vocabulary::Coordinates;

/// The mean radius of the earth, in metres (IUGG).
const EARTH_M: f64 = 6_371_008.8;

/// The great-circle distance in metres.
pub(crate) fn distance_m(one: Coordinates, two: Coordinates) -> f64 {
    let [one, two] = [one, two].map(vector);
    let across = (0..3).map(|axis| (one[axis] - two[axis]).powi(2)).sum::<f64>().sqrt();
    2.0 * EARTH_M * (across / 2.0).min(1.0).asin()
}

/// The weighted middle of places: the mean of their unit vectors, so the antimeridian is a
/// meridian like any other.
pub(crate) fn middle(places: impl Iterator<Item = (Coordinates, f64)>) -> Option<Coordinates> {
    let mut sum = [0.0; 3];
    for (place, weight) in places {
        let vector = vector(place);
        (0..3).for_each(|axis| sum[axis] += vector[axis] * weight);
    }
    let [x, y, z] = sum;
    let across = x.hypot(y);
    if across == 0.0 && z == 0.0 {
        return None;
    }
    let (latitude, longitude) = (z.atan2(across).to_degrees(), y.atan2(x).to_degrees());
    Coordinates::new(latitude, longitude).ok()
}

fn vector(place: Coordinates) -> [f64; 3] {
    let (latitude, longitude) = (place.latitude().to_radians(), place.longitude().to_radians());
    let across = latitude.cos();
    [across * longitude.cos(), across * longitude.sin(), latitude.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_antimeridian_is_a_meridian_like_any_other() {
        let at = |latitude, longitude| Coordinates::new(latitude, longitude).unwrap();
        let places = [(at(10.0, 179.0), 1.0), (at(10.0, -179.0), 1.0)];
        let middle = middle(places.into_iter()).unwrap();
        assert!(middle.longitude().abs() > 179.999, "{middle:?}");
        // A degree of a great circle.
        let degree = distance_m(at(0.0, 179.5), at(0.0, -179.5));
        assert!((degree - 111_195.0).abs() < 1.0, "{degree}");
        assert!(distance_m(at(90.0, 0.0), at(90.0, 120.0)) < 0.001);
    }
}
