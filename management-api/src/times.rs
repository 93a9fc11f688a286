//! Times in queries and answers.
//!
//! A query may give a time with an offset; the answer is then in the same zone, printed without
//! it. A time without an offset is UTC; a date alone is its midnight.

use jiff::civil::Time;
use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::Offset;
use vocabulary::Timestamp;

use crate::error::ApiError;

const ALLOWED: &str = "RFC 3339, e.g. 2026-11-21T08:15:30Z or 2026-11-21T09:15:30+01:00";

/// A time that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedTime {
    pub(crate) at: Timestamp,
    offset: Option<Offset>,
}

/// The zone in which an answer prints its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone(Offset);

/// A span that a client asked for: each end is optional.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AskedSpan {
    pub(crate) from: Option<AskedTime>,
    pub(crate) until: Option<AskedTime>,
}

impl AskedTime {
    /// Reads the value of the query parameter `field`.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, ApiError> {
        let refuse = || ApiError::field(field, format!("{text:?} is not a time"), ALLOWED);
        // In a query a `+` that was not escaped arrives as a space.
        let text = match text.rsplit_once(' ') {
            Some((time, offset)) if time.contains('T') => format!("{time}+{offset}"),
            _ => text.to_owned(),
        };
        let pieces = Pieces::parse(&text).map_err(|_| refuse())?;
        let time = pieces.time().unwrap_or(Time::midnight());
        let offset = match pieces.offset() {
            Some(PiecesOffset::Numeric(numeric)) => Some(numeric.offset()),
            _ => None,
        };
        let moment = pieces
            .date()
            .to_datetime(time)
            .to_zoned(offset.unwrap_or(Offset::UTC).to_time_zone())
            .map_err(|_| refuse())?;
        Ok(Self { at: Timestamp::from_micros(moment.timestamp().as_microsecond()), offset })
    }
}

impl AskedSpan {
    /// Reads both ends from their query parameters.
    pub(crate) fn parse(from: Option<&str>, until: Option<&str>) -> Result<Self, ApiError> {
        let end = |field: &str, text: Option<&str>| {
            text.map(|text| AskedTime::parse(field, text)).transpose()
        };
        let span = Self { from: end("startDateTime", from)?, until: end("endDateTime", until)? };
        match (span.from, span.until) {
            (Some(from), Some(until)) if from.at > until.at => Err(ApiError::field(
                "startDateTime",
                "startDateTime is later than endDateTime",
                "a time before endDateTime",
            )),
            _ => Ok(span),
        }
    }

    /// The start, where one was given.
    pub(crate) fn start(&self) -> Option<Timestamp> {
        self.from.map(|from| from.at)
    }

    /// The end, where one was given.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        self.until.map(|until| until.at)
    }

    /// The zone of the answer: the one of the first end that names one.
    pub(crate) fn zone(&self) -> Zone {
        let named = |end: Option<AskedTime>| end.and_then(|end| end.offset);
        Zone(named(self.from).or_else(|| named(self.until)).unwrap_or(Offset::UTC))
    }
}

impl Zone {
    /// The time in this zone, without the zone: `2022-02-21T12:47:30.085`.
    pub(crate) fn print(self, time: Timestamp) -> String {
        match jiff::Timestamp::from_millisecond(time.as_millis()) {
            Ok(time) => format!("{:.3}", self.0.to_datetime(time)),
            // Beyond the year 9999.
            Err(_) => time.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: Option<&str>, until: Option<&str>) -> AskedSpan {
        AskedSpan::parse(from, until).unwrap()
    }

    #[test]
    fn an_answer_is_in_the_zone_of_the_question() {
        let time = "2022-02-21T12:47:30.085Z".parse().unwrap();
        assert_eq!(span(None, None).zone().print(time), "2022-02-21T12:47:30.085");
        let asked = span(Some("2022-02-21T00:00:00+02:00"), None);
        assert_eq!(asked.zone().print(time), "2022-02-21T14:47:30.085");
        let asked = span(Some("2022-02-21"), Some("2022-02-22T00:00:00-05:30"));
        assert_eq!(asked.zone().print(time), "2022-02-21T07:17:30.085");
        let whole = "2022-02-21T12:47:30Z".parse().unwrap();
        assert_eq!(span(None, None).zone().print(whole), "2022-02-21T12:47:30.000");
    }

    #[test]
    fn a_plus_that_was_not_escaped_is_understood() {
        let written = AskedTime::parse("endDateTime", "2022-02-21T02:00:00+02:00").unwrap();
        let arrived = AskedTime::parse("endDateTime", "2022-02-21T02:00:00 02:00").unwrap();
        assert_eq!(arrived, written);
        assert_eq!(written.at, "2022-02-21T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        let date = AskedTime::parse("endDateTime", "2022-02-21").unwrap();
        assert_eq!(date.at, "2022-02-21T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn other_texts_and_an_end_before_the_start_are_refused() {
        for text in ["", "yesterday", "1670598749915", "2022-02-31", "2022-02-21T25:00:00"] {
            assert!(AskedTime::parse("endDateTime", text).is_err(), "{text}");
        }
        assert!(AskedSpan::parse(Some("2022-02-22"), Some("2022-02-21")).is_err());
    }
}
