//! The header of a file, and what one line says about a SIM.

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;
use vocabulary::{Iccid, ParseDigitsError};

use super::line::{Quote, split};
use super::{LINE_BYTES_MAX, Rejection};
use crate::sim::SimPatch;

/// Characters of a file that are repeated in an error: enough for every number and address.
const QUOTED_CHARS_MAX: usize = 48;

/// Columns, in the order of the message in [`HeaderError::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Iccid,
    Imsi,
    Msisdn,
    Imei,
    Ip,
    Label,
    Status,
}

impl Column {
    const ALL: [(&'static str, Self); 7] = [
        ("iccid", Self::Iccid),
        ("imsi", Self::Imsi),
        ("msisdn", Self::Msisdn),
        ("imei", Self::Imei),
        ("ip", Self::Ip),
        ("label", Self::Label),
        ("status", Self::Status),
    ];
}

/// Why a file is not a list of SIMs. Nothing was imported.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Nothing in the file.
    #[error("file is empty, its first line must name the columns, e.g. iccid,imsi,ip,label")]
    Missing,
    /// The first line is longer than any list of columns.
    #[error("first line of {0} bytes exceeds the limit of {LINE_BYTES_MAX}")]
    TooLong(u64),
    /// The first line is not text.
    #[error("first line is not utf-8 text")]
    NotText,
    /// A wrong quote.
    #[error("first line has a double quote in a wrong place")]
    Quote,
    /// A column that this import does not know.
    #[error("column {0:?} is not known, allowed: iccid, imsi, msisdn, imei, ip, label, status")]
    Unknown(String),
    /// A column twice.
    #[error("column {0:?} stands twice in the first line")]
    Twice(&'static str),
    /// No ICCID, so no SIM.
    #[error("column \"iccid\" is missing in the first line")]
    NoIccid,
}

/// Which field of a line is what.
#[derive(Debug)]
pub(super) struct Columns {
    separator: char,
    order: Vec<Column>,
    /// Kept from line to line for its memory.
    fields: Vec<String>,
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) iccid: Iccid,
    pub(super) properties: SimPatch,
}

impl Columns {
    pub(super) fn of_header(header: &[u8]) -> Result<Self, HeaderError> {
        // Spreadsheets write a byte order mark before the first name.
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header);
        let header = std::str::from_utf8(header).map_err(|_| HeaderError::NotText)?;
        let separator =
            if header.matches(';').count() > header.matches(',').count() { ';' } else { ',' };
        let mut names = Vec::new();
        split(header, separator, &mut names).map_err(|_| HeaderError::Quote)?;
        let mut order = Vec::new();
        for name in &names {
            let (known, column) = Column::ALL
                .into_iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .ok_or_else(|| HeaderError::Unknown(quoted(name)))?;
            if order.contains(&column) {
                return Err(HeaderError::Twice(known));
            }
            order.push(column);
        }
        if !order.contains(&Column::Iccid) {
            return Err(HeaderError::NoIccid);
        }
        Ok(Self { separator, order, fields: names })
    }

    /// Reads a line; `None` where it is blank.
    pub(super) fn read(&mut self, line: u64, bytes: &[u8]) -> Result<Option<Row>, Rejection> {
        let text = std::str::from_utf8(bytes).map_err(|_| Rejection::NotText)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        split(text, self.separator, &mut self.fields).map_err(|quote| match quote {
            Quote::Open => Rejection::OpenQuote,
            Quote::Misplaced => Rejection::MisplacedQuote,
        })?;
        if self.fields.len() != self.order.len() {
            let (found, expected) = (self.fields.len(), self.order.len());
            return Err(Rejection::Fields { found, expected });
        }
        let mut iccid = None;
        let mut properties = SimPatch::default();
        for (column, field) in self.order.iter().zip(&self.fields) {
            match column {
                Column::Iccid => iccid = number(field)?,
                Column::Imsi => properties.imsi = Some(number(field)?),
                Column::Msisdn => properties.msisdn = Some(number(field)?),
                Column::Imei => properties.imei = Some(number(field)?),
                Column::Ip => properties.ip = Some(address(field)?),
                Column::Label => properties.label = Some(field.clone()),
                Column::Status => properties.active = status(field)?,
            }
        }
        let iccid = iccid.ok_or(Rejection::NoIccid)?;
        Ok(Some(Row { line, iccid, properties: properties.checked()? }))
    }
}

fn number<T: FromStr<Err = ParseDigitsError>>(field: &str) -> Result<Option<T>, Rejection> {
    if field.is_empty() { Ok(None) } else { Ok(Some(field.parse()?)) }
}

fn address(field: &str) -> Result<Option<IpAddr>, Rejection> {
    if field.is_empty() {
        return Ok(None);
    }
    field.parse().map(Some).map_err(|_| Rejection::Address(quoted(field)))
}

/// An empty field leaves the SIM as it is.
fn status(field: &str) -> Result<Option<bool>, Rejection> {
    match field {
        "" => Ok(None),
        _ if field.eq_ignore_ascii_case("enabled") => Ok(Some(true)),
        _ if field.eq_ignore_ascii_case("disabled") => Ok(Some(false)),
        _ => Err(Rejection::Status(quoted(field))),
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, line: &str) -> Result<Option<Row>, Rejection> {
        Columns::of_header(header.as_bytes()).unwrap().read(2, line.as_bytes())
    }

    #[test]
    fn columns_come_in_any_order_case_and_with_either_separator() {
        let header = "\u{feff}IP;Label;\"ICCID\"; Status";
        let row = read(header, "10.0.0.1;\"a;b\";8988280666000002864;disabled").unwrap().unwrap();
        assert_eq!(row.iccid.to_string(), "8988280666000002864");
        assert_eq!(row.properties.ip, Some(Some([10, 0, 0, 1].into())));
        assert_eq!(row.properties.label.as_deref(), Some("a;b"));
        assert_eq!(row.properties.active, Some(false));
        assert_eq!(row.properties.imsi, None);
        assert_eq!(read(header, " "), Ok(None));
    }

    #[test]
    fn an_empty_field_takes_a_property_away_and_leaves_the_status() {
        let row = read("iccid,ip,imsi,status", "8988280666000002864,,,").unwrap().unwrap();
        assert_eq!(row.properties.ip, Some(None));
        assert_eq!(row.properties.imsi, Some(None));
        assert_eq!(row.properties.active, None);
    }

    #[test]
    fn a_wrong_header_says_what_is_wrong() {
        let error = |header: &[u8]| Columns::of_header(header).unwrap_err().to_string();
        assert!(error(b"iccid,colour").starts_with("column \"colour\" is not known, allowed: i"));
        assert_eq!(error(b"iccid,ip,IP"), "column \"ip\" stands twice in the first line");
        assert_eq!(error(b"imsi"), "column \"iccid\" is missing in the first line");
        assert_eq!(error(b"\xff"), "first line is not utf-8 text");
    }

    #[test]
    fn a_wrong_field_says_what_is_wrong() {
        let error = |line| read("iccid,ip,status", line).unwrap_err().to_string();
        assert_eq!(error(",10.0.0.1,"), "iccid is empty");
        assert_eq!(error("8.98828E+18,,"), "iccid holds '.' at position 2, allowed: digits 0-9");
        assert_eq!(error("8988280666000002864,10.0.0,"), "\"10.0.0\" is not an ip address");
        assert_eq!(error("8988280666000002864,,on"), "status \"on\", allowed: Enabled, Disabled");
        assert_eq!(error("8988280666000002864"), "1 fields, the first line has 3");
        let multicast = error("8988280666000002864,224.0.0.1,");
        assert_eq!(multicast, "224.0.0.1 is not the address of one device");
    }
}
