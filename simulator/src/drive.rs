//! Devices on the road: where each is at each of its messages, and in which cell.
//!
//! All drive round one closed route, spread over it evenly, and move the same way between two of
//! their messages. Where a device is follows from the number of the message alone.

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;
use vocabulary::{CellTower, Plmn, RadioAccess};

/// A conversion template for the positions of [`Drive`].
pub const DRIVE_TEMPLATE: &str = r#"{
  "sense": [
    {"asset": "latitude", "custom_type": "location_lat",
     "value": {"byte": 0, "bytelength": 8, "type": "float"}},
    {"asset": "longitude", "custom_type": "location_long",
     "value": {"byte": 8, "bytelength": 8, "type": "float"}}
  ]
}"#;

/// Bytes of a position.
pub(crate) const POSITION_BYTES: usize = 16;

/// From Cologne up the Rhine to Karlsruhe, and back by Frankfurt: longitude and latitude.
const ROUTE: [[f64; 2]; 10] = [
    [6.960, 50.938],
    [7.098, 50.734],
    [7.594, 50.357],
    [8.247, 50.000],
    [8.469, 49.488],
    [8.404, 49.009],
    [8.651, 49.873],
    [8.682, 50.111],
    [8.063, 50.384],
    [7.204, 50.777],
];

/// The mean radius of the earth, in metres (IUGG).
const EARTH_M: f64 = 6_371_008.8;
/// Each cell covers so much of the road.
const CELL_M: f64 = 5_000.0;
/// Cells of a tracking area.
const CELLS_PER_AREA: u64 = 20;
const FIRST_AREA: u32 = 7_000;
const FIRST_CELL: u64 = 1_000_000;

/// A closed route, and how the devices move on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Drive {
    /// Each place with the metres of road before it; the first place comes last again.
    places: Vec<([f64; 2], f64)>,
    devices: u32,
    step_m: f64,
}

/// Why there is nothing to drive on.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The file cannot be read.
    #[error("route {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a line.
    #[error(
        "route {path} is no line, allowed: a GeoJSON LineString of at least two [longitude, \
         latitude] on the globe, alone or as a Feature"
    )]
    Line {
        /// The file.
        path: PathBuf,
    },
}

impl Drive {
    /// The route of the program, or that of a file.
    ///
    /// # Errors
    /// Where the file holds no line.
    pub fn new(route: Option<&Path>, devices: u32, step_m: u32) -> Result<Self, RouteError> {
        let places = match route {
            None => ROUTE.to_vec(),
            Some(path) => read(path)?,
        };
        let mut with_metres = Vec::new();
        let mut metres = 0.0;
        let closed = places.iter().chain(places.first());
        for place in closed {
            if let Some((before, _)) = with_metres.last() {
                metres += distance_m(*before, *place);
            }
            with_metres.push((*place, metres));
        }
        Ok(Self { places: with_metres, devices: devices.max(1), step_m: step_m.into() })
    }

    /// Where the sender of message `number` is, as the template reads it.
    pub(crate) fn write(&self, number: u64, output: &mut Vec<u8>) {
        let devices = u64::from(self.devices);
        // A run counts its messages from 1.
        let number = number.saturating_sub(1);
        let [longitude, latitude] = self.place(self.metres(number % devices, number / devices));
        output.extend_from_slice(&latitude.to_be_bytes());
        output.extend_from_slice(&longitude.to_be_bytes());
    }

    /// The cell that a device is in at its message `step`.
    pub fn cell(&self, device: u32, step: u64) -> CellTower {
        self.tower(self.metres(device.into(), step))
    }

    /// The cells along the road, as an export of OpenCelliD.
    pub fn cells_csv(&self) -> String {
        use std::fmt::Write as _;
        let mut csv = "radio,mcc,net,area,cell,unit,lon,lat,range,samples,changeable,created,\
                       updated,averageSignal\n"
            .to_owned();
        let mut at = CELL_M / 2.0;
        while at < self.length_m() + CELL_M / 2.0 {
            let tower = self.tower(at.min(self.length_m() - 1.0));
            let [longitude, latitude] = self.place(at.min(self.length_m()));
            // Writing to a String never fails.
            let _ = writeln!(
                csv,
                "LTE,{},{},{},{},0,{longitude:.6},{latitude:.6},{CELL_M:.0},100,1,0,0,0",
                tower.plmn.mcc(),
                tower.plmn.mnc(),
                tower.area.unwrap_or_default(),
                tower.cell.unwrap_or_default(),
            );
            at += CELL_M;
        }
        csv
    }

    fn length_m(&self) -> f64 {
        self.places.last().map_or(0.0, |(_, metres)| *metres)
    }

    /// How far round a device is.
    fn metres(&self, device: u64, step: u64) -> f64 {
        let start = self.length_m() * device as f64 / f64::from(self.devices);
        (start + self.step_m * step as f64) % self.length_m().max(1.0)
    }

    fn place(&self, metres: f64) -> [f64; 2] {
        let after = self.places.partition_point(|(_, until)| *until <= metres);
        let after = after.clamp(1, self.places.len() - 1);
        let (([x, y], from), ([to_x, to_y], until)) = (self.places[after - 1], self.places[after]);
        let part = if until > from { (metres - from) / (until - from) } else { 0.0 };
        // Legs are short enough for the map.
        [x + (to_x - x) * part, y + (to_y - y) * part]
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a road has few cells"
    )]
    fn tower(&self, metres: f64) -> CellTower {
        let number = (metres / CELL_M) as u64;
        let area = FIRST_AREA + u32::try_from(number / CELLS_PER_AREA).unwrap_or_default();
        CellTower {
            access: RadioAccess::Lte,
            plmn: TEST_NETWORK,
            area: Some(area),
            cell: Some(FIRST_CELL + number),
        }
    }
}

/// The network for tests (3GPP TS 23.122 §1.2 calls 001 the test country).
const TEST_NETWORK: Plmn = Plmn::new(1, 1, 2).unwrap();

fn distance_m([x, y]: [f64; 2], [to_x, to_y]: [f64; 2]) -> f64 {
    let (a, b) = (y.to_radians(), to_y.to_radians());
    let (across, up) = ((to_x - x).to_radians(), b - a);
    let half = (up / 2.0).sin().powi(2) + a.cos() * b.cos() * (across / 2.0).sin().powi(2);
    2.0 * EARTH_M * half.sqrt().min(1.0).asin()
}

fn read(path: &Path) -> Result<Vec<[f64; 2]>, RouteError> {
    let failed = |source| RouteError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let no_line = || RouteError::Line { path: path.to_owned() };
    let value: Value = serde_json::from_str(&text).map_err(|_| no_line())?;
    let line = value.get("geometry").unwrap_or(&value);
    let points = line.get("coordinates").and_then(Value::as_array).ok_or_else(no_line)?;
    let point = |point: &Value| {
        let number = |place: usize| point.get(place).and_then(Value::as_f64);
        let (x, y) = (number(0)?, number(1)?);
        (x.abs() <= 180.0 && y.abs() <= 90.0).then_some([x, y])
    };
    let points: Option<Vec<_>> = points.iter().map(point).collect();
    points.filter(|points| points.len() >= 2 && line["type"] == "LineString").ok_or_else(no_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(drive: &Drive, number: u64) -> [f64; 2] {
        let mut bytes = Vec::new();
        drive.write(number, &mut bytes);
        let (latitude, longitude) = bytes.split_at(8);
        [longitude, latitude].map(|bytes| f64::from_be_bytes(bytes.try_into().unwrap()))
    }

    #[test]
    fn devices_move_on_by_their_step_and_come_round() {
        let drive = Drive::new(None, 4, 500).unwrap();
        assert_eq!(position(&drive, 1), ROUTE[0]);
        let moved = distance_m(position(&drive, 2), position(&drive, 6));
        // Straight over at most one corner.
        assert!((400.0..=501.0).contains(&moved), "{moved}");
        let round = (0_u64..).find(|step| *step as f64 * 500.0 >= drive.length_m()).unwrap();
        let away = distance_m(position(&drive, 4 * round + 1), ROUTE[0]);
        assert!(away <= 501.0, "{away}");
        assert_eq!(drive, Drive::new(None, 4, 500).unwrap());
    }

    #[test]
    fn each_place_of_the_road_has_a_cell_in_the_export() {
        let drive = Drive::new(None, 3, 777).unwrap();
        let csv = drive.cells_csv();
        for (device, step) in (0..3).flat_map(|device| (0..2_000).map(move |step| (device, step))) {
            let tower = drive.cell(device, step);
            let key = format!("LTE,1,1,{},{},", tower.area.unwrap(), tower.cell.unwrap());
            assert!(csv.contains(&key), "{key}");
        }
    }

    #[test]
    fn a_route_is_a_line_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("route.json");
        let drive = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Drive::new(Some(&path), 1, 100).map(|drive| drive.length_m())
        };
        let line = r#"{"type":"LineString","coordinates":[[0,0],[1,0]]}"#;
        assert!((drive(line).unwrap() - 2.0 * 111_195.0).abs() < 2.0);
        assert!(drive(&format!(r#"{{"type":"Feature","geometry":{line}}}"#)).is_ok());
        for text in [
            "",
            "{}",
            r#"{"type":"LineString","coordinates":[[0,0]]}"#,
            r#"{"type":"LineString","coordinates":[[0,0],[1,91]]}"#,
            r#"{"type":"Polygon","coordinates":[[0,0],[1,1]]}"#,
        ] {
            assert!(matches!(drive(text), Err(RouteError::Line { .. })), "{text}");
        }
    }
}
