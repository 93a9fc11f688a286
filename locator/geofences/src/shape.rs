//! Polygons and circles on the globe (WGS 84).
//!
//! An edge of a polygon is a straight line on the map (RFC 7946 §3.1.1) and takes the shorter way
//! round the globe, so that a polygon over the antimeridian may be written with longitudes beyond
//! 180 or with a jump from 179 to -179. A ring that goes once round the globe encloses the nearer
//! pole. Distances are great-circle distances; at a circle's border, geodesic ones.

use std::f64::consts::PI;

use geo::{
    Area as _, BoundingRect as _, Coord, Distance as _, Geodesic, Haversine, Intersects as _,
    LineString, Point, Polygon, Rect, Validation as _,
};
use thiserror::Error;
use vocabulary::Coordinates;

/// Radius of a circle at least, in metres.
pub const RADIUS_MIN_M: f64 = 50.0;
/// Radius of a circle at most, in metres.
pub const RADIUS_MAX_M: f64 = 30_000.0;
/// Points of a polygon at most.
pub const POINTS_MAX: usize = 10_000;

/// Great-circle and geodesic distances differ by less than this part (0.56 % at most, along a
/// meridian).
const SPHERE_ERROR: f64 = 0.006;

/// What a longitude may lose when it is turned by whole turns, in degrees: far below a millimetre.
const TURNING: f64 = 1e-9;

/// Metres of a degree of latitude, roundly.
const DEGREE_M: f64 = 111_195.0;

/// Where a device can be inside or outside of.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    kind: Kind,
    /// See [`Shape::half_width_m`].
    half_width_m: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Polygon {
        /// With longitudes that go on beyond 180.
        polygon: Polygon,
        bounds: Rect,
        /// Whether it goes round the globe, and was closed over a pole.
        is_polar: bool,
    },
    Circle {
        center: Point,
        radius_m: f64,
    },
}

/// What is no shape.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidShape {
    /// A polygon needs a ring.
    #[error("the polygon has no ring")]
    NoRing,
    /// A ring of too few points.
    #[error("ring {ring} has {found} points, allowed: at least 4, of which the last is the first")]
    Points {
        /// The place of the ring, from 0.
        ring: usize,
        /// Its points.
        found: usize,
    },
    /// Too many points.
    #[error("the polygon has {0} points, allowed: {POINTS_MAX}")]
    TooManyPoints(usize),
    /// A ring that ends elsewhere.
    #[error("ring {ring} begins at {first:?} and ends at {last:?}, allowed: the same point")]
    NotClosed {
        /// The place of the ring, from 0.
        ring: usize,
        /// Where it begins.
        first: [f64; 2],
        /// Where it ends.
        last: [f64; 2],
    },
    /// Not on the globe.
    #[error(
        "point {point:?} of ring {ring} is not on the globe, \
         allowed: longitude -360 to 360, latitude -90 to 90"
    )]
    Point {
        /// The place of the ring, from 0.
        ring: usize,
        /// The point.
        point: [f64; 2],
    },
    /// Edges that cross, holes outside, rings without an area.
    #[error("the polygon is not simple: {0}")]
    NotSimple(String),
    /// A hole around a pole, or with a ring round the globe.
    #[error("ring {0} goes round the globe, which only the outer ring may")]
    HoleRoundTheGlobe(usize),
    /// A circle that is too small or too large.
    #[error("the radius is {0} m, allowed: {RADIUS_MIN_M} to {RADIUS_MAX_M}")]
    Radius(f64),
}

impl Shape {
    /// A polygon of rings of `[longitude, latitude]`, closed; the first ring is its border, the
    /// others are holes.
    pub fn polygon(rings: &[Vec<[f64; 2]>]) -> Result<Self, InvalidShape> {
        let points = rings.iter().map(Vec::len).sum();
        if points > POINTS_MAX {
            return Err(InvalidShape::TooManyPoints(points));
        }
        for (ring, points) in rings.iter().enumerate() {
            check_ring(ring, points)?;
        }
        let (outer, holes) = rings.split_first().ok_or(InvalidShape::NoRing)?;
        let outer = unrolled(outer, None);
        let is_polar = goes_round(&outer);
        let outer = if is_polar { around_pole(outer) } else { outer };
        let anchor = outer.first().map(|first| first.x);
        let mut inner = Vec::new();
        for (place, hole) in holes.iter().enumerate() {
            let hole = unrolled(hole, anchor);
            if goes_round(&hole) {
                return Err(InvalidShape::HoleRoundTheGlobe(place + 1));
            }
            inner.push(LineString::new(beside(hole, &outer)));
        }
        let polygon = Polygon::new(LineString::new(outer), inner);
        if let Err(error) = polygon.check_validation() {
            return Err(InvalidShape::NotSimple(error.to_string()));
        }
        let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
        let area = |ring: &LineString| Polygon::new(ring.clone(), Vec::new()).unsigned_area();
        if let Some(flat) = rings.map(area).position(|area| area <= 0.0) {
            return Err(InvalidShape::NotSimple(format!("ring {flat} has no area")));
        }
        let bounds = polygon.bounding_rect().ok_or(InvalidShape::NoRing)?;
        let half_width_m = half_width_m(&polygon, &bounds);
        Ok(Self { kind: Kind::Polygon { polygon, bounds, is_polar }, half_width_m })
    }

    /// A circle.
    pub fn circle(center: Coordinates, radius_m: f64) -> Result<Self, InvalidShape> {
        if !(RADIUS_MIN_M..=RADIUS_MAX_M).contains(&radius_m) {
            return Err(InvalidShape::Radius(radius_m));
        }
        Ok(Self { kind: Kind::Circle { center: point(center), radius_m }, half_width_m: radius_m })
    }

    /// Whether a point lies inside, or on the border.
    pub fn contains(&self, at: Coordinates) -> bool {
        match &self.kind {
            Kind::Polygon { polygon, bounds, .. } => {
                turned(at, bounds).any(|place| polygon.intersects(&place))
            }
            Kind::Circle { center, radius_m } => {
                distance(*center, point(at), *radius_m) <= *radius_m
            }
        }
    }

    /// How deep a point lies inside, in metres; negative outside.
    pub fn depth_m(&self, at: Coordinates) -> f64 {
        match &self.kind {
            Kind::Circle { center, radius_m } => radius_m - distance(*center, point(at), *radius_m),
            Kind::Polygon { polygon, bounds, is_polar } => {
                let places = turned(at, bounds).map(|place| (polygon.intersects(&place), place));
                let depth = |(inside, place)| {
                    let border = border_distance_m((polygon, *is_polar), place);
                    if inside { border } else { -border }
                };
                places.map(depth).fold(f64::NEG_INFINITY, f64::max)
            }
        }
    }

    /// Whether a point is certainly further outside than this, by a look at the box.
    pub(crate) fn is_far(&self, at: Coordinates, metres: f64) -> bool {
        let Kind::Polygon { bounds, .. } = &self.kind else { return false };
        // A little more than it takes, for what the sphere and the scale lack.
        let degrees = metres * (1.0 + 2.0 * SPHERE_ERROR) / DEGREE_M;
        let north = at.latitude() > bounds.max().y + degrees;
        let south = at.latitude() < bounds.min().y - degrees;
        if north || south {
            return true;
        }
        // The narrowest degrees are those nearest to a pole.
        let latitude = at.latitude().abs() + degrees;
        if latitude >= 89.0 {
            return false;
        }
        let side = degrees / latitude.to_radians().cos();
        let mut places = turned(at, bounds);
        places.all(|place| place.x() > bounds.max().x + side || place.x() < bounds.min().x - side)
    }

    /// Half of its smaller extent, in metres; less for a narrow or winding polygon, so that in
    /// every shape some place lies half as deep.
    pub fn half_width_m(&self) -> f64 {
        self.half_width_m
    }

    /// Boxes with all of it, `[west, south, east, north]`, none of which crosses the antimeridian.
    pub fn boxes(&self) -> Vec<[f64; 4]> {
        let [west, south, east, north] = match &self.kind {
            Kind::Polygon { is_polar: true, bounds, .. } => {
                return vec![[-180.0, bounds.min().y, 180.0, bounds.max().y]];
            }
            Kind::Polygon { bounds, .. } => {
                let (west, east) = (bounds.min().x - TURNING, bounds.max().x + TURNING);
                [west, bounds.min().y, east, bounds.max().y]
            }
            Kind::Circle { center, radius_m } => circle_box(*center, *radius_m),
        };
        if east - west >= 360.0 {
            return vec![[-180.0, south, 180.0, north]];
        }
        // Into the range of longitudes that positions have.
        let turns = ((west + 180.0) / 360.0).floor() * 360.0;
        let (west, east) = (west - turns, east - turns);
        if east <= 180.0 {
            return vec![[west, south, east, north]];
        }
        vec![[west, south, 180.0, north], [-180.0, south, east - 360.0, north]]
    }
}

fn point(at: Coordinates) -> Point {
    Point::new(at.longitude(), at.latitude())
}

fn check_ring(ring: usize, points: &[[f64; 2]]) -> Result<(), InvalidShape> {
    let on_globe = |[longitude, latitude]: [f64; 2]| {
        (-360.0..=360.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude)
    };
    if let Some(point) = points.iter().find(|point| !on_globe(**point)) {
        return Err(InvalidShape::Point { ring, point: *point });
    }
    match points {
        [first, .., last] if first != last => {
            Err(InvalidShape::NotClosed { ring, first: *first, last: *last })
        }
        [_, _, _, _, ..] => Ok(()),
        few => Err(InvalidShape::Points { ring, found: few.len() }),
    }
}

/// Half of the smaller side of the box; less where the polygon is narrower or winds, or has holes.
///
/// What lies less deep than d lies within d of a border. That is no more area than d times the
/// length of all borders, and πd² round each hole: where it is all of the area, some place is so
/// deep. Of a square and of a circle it is a half of the half width.
fn half_width_m(polygon: &Polygon, bounds: &Rect) -> f64 {
    let middle = f64::midpoint(bounds.min().y, bounds.max().y);
    let scale = middle.to_radians().cos();
    let extent = (bounds.width() * scale).min(bounds.height());
    let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
    let edges = rings.flat_map(LineString::lines);
    let borders: f64 = edges.map(|edge| (edge.dx() * scale).hypot(edge.dy())).sum();
    let area = polygon.unsigned_area() * scale;
    let holes = polygon.interiors().len() as f64;
    let depth = 2.0 * area / (borders + (borders * borders + 4.0 * PI * holes * area).sqrt());
    (extent / 2.0).min(2.0 * depth) * DEGREE_M
}

/// A ring in which no edge goes more than half round the globe; near `anchor` if there is one.
fn unrolled(points: &[[f64; 2]], anchor: Option<f64>) -> Vec<Coord> {
    let mut before = anchor;
    let turned = |[longitude, latitude]: &[f64; 2]| {
        // Whole turns only, so that equal points stay equal.
        let turns = before.map_or(0.0, |before| ((before - longitude) / 360.0).round());
        let x = longitude + 360.0 * turns;
        before = Some(x);
        Coord { x, y: *latitude }
    };
    points.iter().map(turned).collect()
}

/// Whether the ring ends a whole turn from where it began.
fn goes_round(ring: &[Coord]) -> bool {
    ring.first().zip(ring.last()).is_some_and(|(first, last)| (last.x - first.x).abs() > 180.0)
}

/// A ring round the globe, closed over the pole that it is nearer to.
fn around_pole(mut ring: Vec<Coord>) -> Vec<Coord> {
    let north = ring.iter().map(|point| point.y).sum::<f64>() >= 0.0;
    let pole = if north { 90.0 } else { -90.0 };
    if let Some((first, last)) = ring.first().copied().zip(ring.last().copied()) {
        ring.extend([Coord { x: last.x, y: pole }, Coord { x: first.x, y: pole }, first]);
    }
    ring
}

/// A hole, turned to where the border lies.
fn beside(mut hole: Vec<Coord>, outer: &[Coord]) -> Vec<Coord> {
    let west = outer.iter().map(|point| point.x).fold(f64::INFINITY, f64::min);
    let least = hole.iter().map(|point| point.x).fold(f64::INFINITY, f64::min);
    let turns = ((least - west) / 360.0).floor() * 360.0;
    hole.iter_mut().for_each(|point| point.x -= turns);
    hole
}

/// A point, turned by whole turns to each place at which it may lie in a box.
fn turned(at: Coordinates, bounds: &Rect) -> impl Iterator<Item = Point> {
    let turns = ((at.longitude() - bounds.min().x) / 360.0).floor() * 360.0;
    let first = at.longitude() - turns;
    // A point that lies west of the box may be nearer to it than the same point a turn on.
    [first, first - 360.0].into_iter().map(move |x| Point::new(x, at.latitude()))
}

/// The distance of two points, good at `border_m`.
fn distance(one: Point, two: Point, border_m: f64) -> f64 {
    let roughly = Haversine.distance(one, two);
    if (roughly - border_m).abs() > SPHERE_ERROR * border_m.max(roughly) {
        return roughly;
    }
    Geodesic.distance(one, two)
}

/// From a point to the nearest edge: the nearest place is sought on a map whose scale is right at
/// the point, its distance is a great circle's.
fn border_distance_m((polygon, is_polar): (&Polygon, bool), at: Point) -> f64 {
    let scale = at.y().to_radians().cos().max(1e-6);
    let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
    let nearest = |line: geo::Line| {
        let (from, way) = (line.start, line.end - line.start);
        let (x, y) = ((at.x() - from.x) * scale, at.y() - from.y);
        let (dx, dy) = (way.x * scale, way.y);
        let length = dx * dx + dy * dy;
        let part = if length > 0.0 { ((x * dx + y * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
        let (off_x, off_y) = (x - part * dx, y - part * dy);
        (off_x * off_x + off_y * off_y, from + way * part)
    };
    // The edges that close a ring over a pole, and the sides of that seam, are no border.
    let is_border = |line: &geo::Line| {
        let at_pole = |place: Coord| place.y.abs() == 90.0;
        !is_polar || !(at_pole(line.start) || at_pole(line.end))
    };
    let edges = rings.flat_map(LineString::lines).filter(is_border).map(nearest);
    let closest = edges.min_by(|one, two| one.0.total_cmp(&two.0));
    closest.map_or(f64::INFINITY, |(_, place)| Haversine.distance(at, Point::from(place)))
}

/// The box of a circle (its meridians touch it north or south of its centre).
fn circle_box(center: Point, radius_m: f64) -> [f64; 4] {
    // A little more, for what the sphere lacks.
    let angle = radius_m * (1.0 + 2.0 * SPHERE_ERROR) / DEGREE_M;
    let (south, north) = (center.y() - angle, center.y() + angle);
    if south <= -90.0 || north >= 90.0 {
        return [-180.0, south.max(-90.0), 180.0, north.min(90.0)];
    }
    let sine = angle.to_radians().sin() / center.y().to_radians().cos();
    let side = sine.min(1.0).asin().to_degrees();
    [center.x() - side, south, center.x() + side, north]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(longitude: f64, latitude: f64) -> Coordinates {
        Coordinates::new(latitude, longitude).unwrap()
    }

    fn square(west: f64, south: f64, east: f64, north: f64) -> Vec<[f64; 2]> {
        vec![[west, south], [east, south], [east, north], [west, north], [west, south]]
    }

    #[test]
    fn a_hole_is_outside() {
        let shape =
            Shape::polygon(&[square(6.0, 50.0, 8.0, 52.0), square(6.5, 50.5, 7.5, 51.5)]).unwrap();
        assert!(shape.contains(at(6.2, 50.2)));
        assert!(!shape.contains(at(7.0, 51.0)));
        assert!(!shape.contains(at(9.0, 51.0)));
        assert!(shape.depth_m(at(7.0, 51.0)) < -30_000.0);
    }

    #[test]
    fn a_polygon_over_the_antimeridian_is_written_either_way() {
        for ring in [
            square(170.0, -20.0, 190.0, -10.0),
            vec![[170.0, -20.0], [-170.0, -20.0], [-170.0, -10.0], [170.0, -10.0], [170.0, -20.0]],
            square(-190.0, -20.0, -170.0, -10.0),
        ] {
            let shape = Shape::polygon(&[ring]).unwrap();
            assert!(shape.contains(at(179.9, -15.0)) && shape.contains(at(-179.9, -15.0)));
            assert!(!shape.contains(at(0.1, -15.0)) && !shape.contains(at(-169.0, -15.0)));
            let boxes = shape.boxes();
            let rounded = boxes.iter().map(|sides| sides.map(|side| (side * 1e6).round() / 1e6));
            let expected = [[170.0, -20.0, 180.0, -10.0], [-180.0, -20.0, -170.0, -10.0]];
            assert!(rounded.eq(expected), "{boxes:?}");
            let outside = shape.depth_m(at(169.0, -15.0));
            assert!((-108_000.0..-107_000.0).contains(&outside), "{outside}");
        }
    }

    /// Positions on the antimeridian are told with either sign.
    #[test]
    fn the_border_is_in_the_boxes() {
        for (west, east) in [(170.0, 180.0), (-180.0, -170.0), (-190.123_457, -179.987_654)] {
            let shape = Shape::polygon(&[square(west, -20.0, east, -10.0)]).unwrap();
            for side in [west, east] {
                let turned = if side < -180.0 { side + 360.0 } else { side };
                let same = if side.abs() == 180.0 { -side } else { turned };
                for longitude in [turned, same] {
                    assert!(shape.contains(at(longitude, -15.0)), "{longitude}");
                    let mut boxes = shape.boxes().into_iter();
                    let holds = |[west, _, east, _]: [f64; 4]| (west..=east).contains(&longitude);
                    assert!(boxes.any(holds), "{longitude}: {:?}", shape.boxes());
                }
            }
        }
    }

    /// Longitudes that were computed from their neighbours' did not come back to where they began.
    #[test]
    fn a_ring_stays_closed() {
        let ring = vec![[0.123_457, 0.0], [1.0, 0.0], [1.0, 1.0], [0.123_457, 0.0]];
        assert!(Shape::polygon(&[ring]).unwrap().contains(at(0.9, 0.5)));
    }

    #[test]
    fn a_hole_beyond_the_antimeridian_is_in_its_polygon() {
        let shape = Shape::polygon(&[
            square(170.0, -20.0, 190.0, -10.0),
            square(-178.0, -17.0, -176.0, -13.0),
        ])
        .unwrap();
        assert!(!shape.contains(at(-177.0, -15.0)));
        assert!(shape.contains(at(-179.0, -15.0)));
    }

    #[test]
    fn a_ring_round_the_globe_encloses_the_nearer_pole() {
        let ring = [0.0, 90.0, 180.0, -90.0, 0.0].map(|longitude| [longitude, -70.0]).to_vec();
        let shape = Shape::polygon(&[ring]).unwrap();
        assert!(shape.contains(at(45.0, -80.0)) && shape.contains(at(-1.0, -89.9)));
        assert!(!shape.contains(at(45.0, -60.0)) && !shape.contains(at(1.0, 80.0)));
        // A degree of latitude.
        let depth = shape.depth_m(at(12.0, -71.0));
        assert!((depth - 111_195.0).abs() < 200.0, "{depth}");
        assert_eq!(shape.boxes(), [[-180.0, -90.0, 180.0, -70.0]]);
    }

    /// The meridian of its first point and the pole are where it was closed, not its border.
    #[test]
    fn nothing_at_a_pole_is_a_border() {
        for first in [0.0, 12.345_678, -73.985_13, 179.999_999] {
            let ring = [0.0, 90.0, 180.0, 270.0, 0.0].map(|turn| [first - turn, 70.0]).to_vec();
            let shape = Shape::polygon(&[ring]).unwrap();
            assert_eq!(shape.boxes(), [[-180.0, 70.0, 180.0, 90.0]]);
            for place in [at(first, 80.0), at(first - 1e-7, 80.0), at(first, 90.0), at(7.0, 90.0)] {
                assert!(shape.contains(place), "{place:?}");
                assert!(shape.depth_m(place) > 1_000_000.0, "{place:?}: {}", shape.depth_m(place));
            }
        }
    }

    /// Some place of a shape lies as deep as is asked of one that is entered.
    #[test]
    fn every_shape_can_be_entered() {
        let corridor = vec![[7.0, 50.0], [7.1, 50.06], [7.102, 50.06], [7.002, 50.0], [7.0, 50.0]];
        let u =
            [(0, 0), (100, 0), (100, 100), (99, 100), (99, 1), (1, 1), (1, 100), (0, 100), (0, 0)];
        let u = u.map(|(x, y)| [1.0 + f64::from(x) / 1e3, f64::from(y) / 1e3]).to_vec();
        let moat = [square(1.0, 0.0, 1.1, 0.1), square(1.001, 0.001, 1.099, 0.099)];
        let holes = (0..100).map(|hole| {
            let (x, y) = (1.0 + f64::from(hole % 10) * 0.01, f64::from(hole / 10) * 0.01);
            square(x + 0.001, y + 0.001, x + 0.009, y + 0.009)
        });
        let sieve: Vec<_> = std::iter::once(square(1.0, 0.0, 1.1, 0.1)).chain(holes).collect();
        for rings in
            [vec![corridor], vec![u], moat.to_vec(), sieve, vec![square(5.0, 5.0, 6.0, 6.0)]]
        {
            let shape = Shape::polygon(&rings).unwrap();
            let [west, south, east, north] = shape.boxes()[0];
            let part = |from: f64, to: f64, step: u32| from + (to - from) * f64::from(step) / 200.0;
            let places = (0..201 * 201)
                .map(|place| at(part(west, east, place % 201), part(south, north, place / 201)));
            let inside = places.filter(|place| shape.contains(*place));
            let deepest = inside.map(|place| shape.depth_m(place)).fold(0.0, f64::max);
            assert!(deepest >= shape.half_width_m() / 2.0, "{rings:?}: {deepest}");
        }
    }

    #[test]
    fn circles_are_round_at_the_antimeridian_and_the_pole() {
        let fiji = Shape::circle(at(179.9, -17.0), 30_000.0).unwrap();
        assert!(fiji.contains(at(-179.9, -17.0)));
        assert_eq!(fiji.boxes().len(), 2);
        let pole = Shape::circle(at(0.0, 89.9), 30_000.0).unwrap();
        assert!(pole.contains(at(180.0, 89.95)) && !pole.contains(at(180.0, 89.7)));
    }

    /// Flinders Peak to Buninyong, from the definition of the Geocentric Datum of Australia:
    /// 54,972.271 m on GRS 80, whose difference to WGS 84 is below a tenth of a millimetre here.
    #[test]
    fn distances_are_those_that_are_published() {
        let flinders = at(144.424_867_889, -37.951_033_417);
        let buninyong = Point::new(143.926_495_527, -37.652_821_139);
        let distance = Geodesic.distance(point(flinders), buninyong);
        assert!((distance - 54_972.271).abs() < 0.001, "{distance}");
        // Half of it, both sides of the border of a circle.
        let middle = Geodesic.distance(point(flinders), Point::new(144.2, -37.8));
        let [smaller, larger] = [middle - 0.5, middle + 0.5]
            .map(|radius| Shape::circle(flinders, radius).unwrap().contains(at(144.2, -37.8)));
        assert_eq!((smaller, larger), (false, true));
    }

    #[test]
    fn what_is_no_shape_is_named() {
        let refused = |rings: &[Vec<[f64; 2]>]| Shape::polygon(rings).unwrap_err();
        assert_eq!(refused(&[]), InvalidShape::NoRing);
        let open = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        assert!(matches!(refused(&[open]), InvalidShape::NotClosed { ring: 0, .. }));
        let few = vec![[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]];
        assert_eq!(refused(&[few]), InvalidShape::Points { ring: 0, found: 3 });
        let equal = vec![[1.0, 1.0]; 4];
        assert!(matches!(refused(&[equal]), InvalidShape::NotSimple(_)));
        let line = vec![[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]];
        assert!(matches!(refused(&[line]), InvalidShape::NotSimple(_)));
        let bow = vec![[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        assert!(matches!(refused(&[bow]), InvalidShape::NotSimple(_)));
        let far = square(0.0, 0.0, 1.0, 91.0);
        assert_eq!(refused(&[far]), InvalidShape::Point { ring: 0, point: [1.0, 91.0] });
        let outside = [square(0.0, 0.0, 1.0, 1.0), square(5.0, 5.0, 6.0, 6.0)];
        assert!(matches!(refused(&outside), InvalidShape::NotSimple(_)));
        assert!(matches!(refused(&[vec![[f64::NAN, 0.0]; 4]]), InvalidShape::Point { .. }));
        let many = vec![[0.0, 0.0]; POINTS_MAX + 1];
        assert_eq!(refused(&[many]), InvalidShape::TooManyPoints(POINTS_MAX + 1));
        for radius in [49.9, 30_000.1, f64::NAN, -1.0] {
            assert!(Shape::circle(at(1.0, 1.0), radius).is_err(), "{radius}");
        }
    }
}
