//! How many messages, per hour or day.
//!
//! For all devices the amounts come from counters that the reader keeps per hour: they are at most
//! one flush behind, about a second, and go back further than the messages. For one device its
//! messages are counted. Hours and days are those of UTC; a span is widened to whole ones, so that
//! both ways count the same. Spans without messages have no item.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use message_log::{DeviceKey, Kind, KindSet, Query, ReadError};
use thiserror::Error;
use vocabulary::{EventKind, Iccid, Protocol, Timestamp};

use crate::Inspector;
use crate::backward::Backward;
use crate::history::matching;
use crate::tables::AMOUNT_HOURS_MAX;
use crate::unflushed::HOUR_MICROS;
use crate::window::{BackwardWindow, Window, now};

/// Messages counted for one device: one a second for seven days are 604,800. At up to 7
/// microseconds each (measured on scattered records) that is at most 5 seconds.
const COUNTED_MAX: usize = 700_000;

/// Records read at once while counting.
const CHUNK_RECORDS: usize = 2_048;

/// The longest span of an answer per hour: a month of 31 days, 2,232 items of three protocols.
const HOURS_SPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);

/// Hours of a day.
const DAY_HOURS: i64 = 24;

/// How long each item's span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// `1h`.
    Hour,
    /// `1d`, a day of UTC.
    Day,
}

/// Which messages are counted.
#[derive(Debug, Clone, Copy)]
pub struct InsightsQuery {
    /// Only of this device.
    pub device: Option<Iccid>,
    /// Only by this protocol.
    pub protocol: Option<Protocol>,
    /// Without it seven days before the end.
    pub from: Option<Timestamp>,
    /// Without it now.
    pub until: Option<Timestamp>,
    /// Per hour or day.
    pub interval: Interval,
}

/// An amount of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insight {
    /// Where the span begins.
    pub time: Timestamp,
    /// The protocol.
    pub protocol: Protocol,
    /// Messages received.
    pub amount: u64,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum InsightsError {
    /// The span of time.
    #[error(transparent)]
    Window(#[from] BackwardWindow),
    /// The span is longer than an answer may be.
    #[error("a span of {found} days exceeds the limit of {limit} for this interval")]
    TooLong {
        /// Days asked for, rounded up.
        found: u64,
        /// Days allowed.
        limit: u64,
    },
    /// The device has sent more than can be counted in one query.
    #[error("the device has sent more than {limit} messages in this span, ask for a shorter one")]
    TooMany {
        /// Messages that can be counted.
        limit: usize,
    },
    /// The state file.
    #[error("reading the amounts: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
}

/// A text that names no interval.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{word:?} is not an interval, allowed: 1h, 1d")]
pub struct UnknownInterval {
    word: String,
}

impl FromStr for Interval {
    type Err = UnknownInterval;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let intervals = [Self::Hour, Self::Day];
        let named = intervals.into_iter().find(|interval| interval.as_str() == text);
        named.ok_or_else(|| UnknownInterval { word: text.chars().take(64).collect() })
    }
}

impl Interval {
    /// The form in the API: `1h` or `1d`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    const fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => DAY_HOURS,
        }
    }

    fn span_max(self) -> Duration {
        match self {
            Self::Hour => HOURS_SPAN_MAX,
            Self::Day => Duration::from_secs(AMOUNT_HOURS_MAX.unsigned_abs() * 3_600),
        }
    }

    fn start_of(self, hour: i64) -> i64 {
        hour.div_euclid(self.hours()) * self.hours()
    }
}

impl Inspector {
    /// Amounts of messages, oldest first.
    pub fn insights(&self, query: InsightsQuery) -> Result<Vec<Insight>, InsightsError> {
        let hours = query.hours()?;
        let mut amounts = BTreeMap::new();
        let mut add = |hour: i64, protocol: Protocol, amount: u64| {
            if query.protocol.is_none_or(|only| only == protocol) {
                *amounts.entry((query.interval.start_of(hour), protocol)).or_insert(0) += amount;
            }
        };
        match query.device {
            Some(device) => self.count_device(device, hours, |hour, protocol| {
                add(hour, protocol, 1);
            })?,
            None => {
                for (hour, protocol, amount) in self.tables().amounts(hours.0, hours.1)? {
                    add(hour, protocol, amount);
                }
            }
        }
        let insight = |((hour, protocol), amount)| Insight { time: start(hour), protocol, amount };
        Ok(amounts.into_iter().map(insight).collect())
    }

    /// Calls `add` with the hour of each message of the device within `hours` (from, until).
    fn count_device(
        &self,
        device: Iccid,
        hours: (i64, i64),
        mut add: impl FnMut(i64, Protocol),
    ) -> Result<(), InsightsError> {
        let mut walk = Backward::new(
            self.log(),
            Query {
                device: Some(DeviceKey::from_u64(device.as_u64())),
                kinds: KindSet::only(Kind::new(EventKind::Telemetry.code())),
                from: Some(start(hours.0)),
                until: Some(start(hours.1)),
                before: None,
                limit: CHUNK_RECORDS,
            },
        );
        let mut counted = 0;
        loop {
            let records = walk.chunk()?;
            if records.is_empty() {
                return Ok(());
            }
            counted += records.len();
            if counted > COUNTED_MAX {
                return Err(InsightsError::TooMany { limit: COUNTED_MAX });
            }
            for record in &records {
                if let Some(telemetry) = matching(record, None) {
                    let hour = record.received_at.as_micros().div_euclid(HOUR_MICROS);
                    add(hour, telemetry.protocol);
                }
            }
        }
    }
}

impl InsightsQuery {
    /// The span in whole intervals, as hours since 1970: from, until (not included).
    fn hours(&self) -> Result<(i64, i64), InsightsError> {
        let until = self.until.unwrap_or_else(now);
        let from = Window::resolve(self.from, Some(until))?.from;
        let span = until.saturating_since(from);
        let limit = self.interval.span_max();
        if span > limit {
            let days = |span: Duration| span.as_secs().div_ceil(24 * 3_600);
            return Err(InsightsError::TooLong { found: days(span), limit: days(limit) });
        }
        let hour = |time: Timestamp| time.as_micros().div_euclid(HOUR_MICROS);
        let from = self.interval.start_of(hour(from));
        let until = self.interval.start_of(hour(until)) + self.interval.hours();
        Ok((from, until))
    }
}

/// The beginning of an hour since 1970.
fn start(hour: i64) -> Timestamp {
    Timestamp::from_micros(hour.saturating_mul(HOUR_MICROS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_they_are_written() {
        assert_eq!("1h".parse(), Ok(Interval::Hour));
        assert_eq!("1d".parse(), Ok(Interval::Day));
        let error = "7d".parse::<Interval>().unwrap_err();
        assert_eq!(error.to_string(), "\"7d\" is not an interval, allowed: 1h, 1d");
    }

    #[test]
    fn a_span_is_widened_to_whole_intervals() {
        let mut query = InsightsQuery {
            device: None,
            protocol: None,
            from: Some("2026-11-20T08:15:00Z".parse().unwrap()),
            until: Some("2026-11-21T09:00:00Z".parse().unwrap()),
            interval: Interval::Hour,
        };
        let text = |hour: i64| start(hour).to_string();
        let (from, until) = query.hours().unwrap();
        assert_eq!(text(from), "2026-11-20T08:00:00.000Z");
        assert_eq!(text(until), "2026-11-21T10:00:00.000Z");
        query.interval = Interval::Day;
        let (from, until) = query.hours().unwrap();
        assert_eq!(text(from), "2026-11-20T00:00:00.000Z");
        assert_eq!(text(until), "2026-11-22T00:00:00.000Z");
        query.interval = Interval::Hour;
        query.from = Some("2026-09-20T08:15:00Z".parse().unwrap());
        let error = query.hours().unwrap_err();
        let text = "a span of 63 days exceeds the limit of 31 for this interval";
        assert_eq!(error.to_string(), text);
    }
}
