//! Lines of the exports of OpenCelliD and the Mozilla Location Service:
//! `radio,mcc,net,area,cell,unit,lon,lat,range,samples,changeable,created,updated,averageSignal`.
//!
//! Split by hand: no field of these files is quoted, and a reader for all CSV files takes three
//! times as long for tens of millions of lines.

use thiserror::Error;
use vocabulary::{Coordinates, InvalidCoordinates};

use crate::key::{AREA_MAX, CELL_MAX, Key, Radio};
use crate::record::Record;

/// Fields of a line that are read; later ones may be missing.
const FIELDS: usize = 13;
/// Lines of the exports have about 80 bytes; of one that has so many the rest is not even read.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;

/// What a line holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    Cell(Record),
    /// The first line of a file, or nothing.
    Nothing,
    /// A cell of a radio that no SIM uses (CDMA).
    OtherRadio,
}

/// Why a line is no cell.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BadLine {
    /// Too long.
    #[error("{LINE_BYTES_MAX} bytes or more")]
    Long,
    /// Too few fields.
    #[error("{0} fields, allowed: at least {FIELDS}")]
    Fields(usize),
    /// An unknown radio.
    #[error("radio {0:?}, allowed: GSM, UMTS, LTE, NBIOT, NR, CDMA")]
    Radio(String),
    /// No number, or one that is too large.
    #[error("{field} {found:?}, allowed: a number from {least} to {most}")]
    Number {
        /// The field.
        field: &'static str,
        /// What was found.
        found: String,
        /// The least number.
        least: i64,
        /// The largest number.
        most: u64,
    },
    /// Not where a cell can be.
    #[error(transparent)]
    Place(#[from] InvalidCoordinates),
    /// No text.
    #[error("bytes that are no text")]
    Encoding,
}

/// Reads a line, without its end.
pub(crate) fn parse(line: &[u8]) -> Result<Line, BadLine> {
    if line.len() >= LINE_BYTES_MAX {
        return Err(BadLine::Long);
    }
    // Some programs begin a file with the mark of UTF-8.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_end();
    if line.is_empty() || line.starts_with(b"radio,") {
        return Ok(Line::Nothing);
    }
    let mut fields = [&[][..]; FIELDS];
    let mut found = 0;
    for (place, field) in fields.iter_mut().zip(line.split(|byte| *byte == b',')) {
        *place = field;
        found += 1;
    }
    if found < FIELDS {
        return Err(BadLine::Fields(found));
    }
    let [radio, mcc, mnc, area, cell, _, longitude, latitude, range, samples, _, _, updated] =
        fields;
    let radio = match radio {
        b"GSM" => Radio::Gsm,
        b"UMTS" => Radio::Umts,
        b"LTE" | b"NBIOT" | b"NB-IOT" => Radio::Lte,
        b"NR" => Radio::Nr,
        b"CDMA" => return Ok(Line::OtherRadio),
        other => return Err(BadLine::Radio(shown(other))),
    };
    let network = (
        u16::try_from(number("mcc", mcc, 1, 999)?).unwrap_or_default(),
        u16::try_from(number("net", mnc, 0, 999)?).unwrap_or_default(),
    );
    let area = u32::try_from(number("area", area, 0, AREA_MAX.into())?).unwrap_or_default();
    let key = Key::new(radio, network, area, number("cell", cell, 0, CELL_MAX)?);
    let at = Coordinates::new(degrees("lat", latitude, 90)?, degrees("lon", longitude, 180)?)?;
    // What is odd in the rest is no reason to lose a cell.
    let or_none = |field| number("", field, 0, u32::MAX.into()).unwrap_or_default();
    let range = u32::try_from(or_none(range)).unwrap_or_default();
    let samples = u32::try_from(or_none(samples)).unwrap_or_default();
    Ok(Line::Cell(Record::new(key, at, range).made_from(or_none(updated), samples)))
}

fn number(field: &'static str, text: &[u8], least: u32, most: u64) -> Result<u64, BadLine> {
    let digits = text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(digit.into()) }
    });
    let number = digits.filter(|_| !text.is_empty());
    number.filter(|number| (least.into()..=most).contains(number)).ok_or_else(|| BadLine::Number {
        field,
        found: shown(text),
        least: least.into(),
        most,
    })
}

fn degrees(field: &'static str, text: &[u8], most: u32) -> Result<f64, BadLine> {
    let least = -i64::from(most);
    let wrong = || BadLine::Number { field, found: shown(text), least, most: most.into() };
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

/// A field as a text that is safe to show.
fn shown(text: &[u8]) -> String {
    text.iter().take(24).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "LTE,262,2,852,28312321,0,10.940241,50.174076,1591,20,1,1294561074,1662692508,0";

    #[test]
    fn a_line_is_a_cell() {
        let Ok(Line::Cell(record)) = parse(GOOD.as_bytes()) else { panic!() };
        assert_eq!(record.key, Key::new(Radio::Lte, (262, 2), 852, 28_312_321));
        let at = record.coordinates().unwrap();
        assert_eq!((at.longitude(), at.latitude()), (10.940_241, 50.174_076));
        assert_eq!((record.range_m(), record.week()), (1_592, 2_749));
        assert_eq!(Record::from_bytes(&record.to_bytes()), record);
    }

    #[test]
    fn what_is_no_cell_is_named() {
        let bad = |from: &str, to: &str| {
            parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(bad("LTE", "6G"), "radio \"6G\", allowed: GSM, UMTS, LTE, NBIOT, NR, CDMA");
        assert_eq!(bad("262", "0"), "mcc \"0\", allowed: a number from 1 to 999");
        assert_eq!(bad("28312321", "-1"), "cell \"-1\", allowed: a number from 0 to 68719476735");
        assert_eq!(bad("50.174076", "x"), "lat \"x\", allowed: a number from -90 to 90");
        assert_eq!(bad("50.174076", "91"), "latitude 91.0 is outside of -90 to 90");
        assert_eq!(
            bad(",0,10.940241,50.174076", ",0,0,0"),
            "0,0 is what a receiver without a fix says"
        );
        assert_eq!(parse(b"LTE,262").unwrap_err(), BadLine::Fields(2));
        assert_eq!(parse(b"radio,mcc,net"), Ok(Line::Nothing));
        assert_eq!(parse(b"\xef\xbb\xbfradio,mcc,net"), Ok(Line::Nothing));
        assert_eq!(parse(b"\r"), Ok(Line::Nothing));
        assert_eq!(parse(GOOD.replace("LTE", "CDMA").as_bytes()), Ok(Line::OtherRadio));
    }
}
