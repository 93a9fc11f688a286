//! The administration log in numbers: entries per day of a time zone, and how many devices.

use std::collections::{BTreeMap, HashSet};

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use message_log::ReadError;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;
use vocabulary::{NoticeCategory, Timestamp};

use crate::Inspector;
use crate::window::{HISTORY, Window, now};

/// Notices counted for one answer; beyond that it says that it is not complete. Measured: 1 to 7
/// microseconds each, the more the wider they are scattered among messages; so at most 4 seconds.
const SCANNED_MAX: usize = 500_000;

/// The last seven days of the administration log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogStats {
    /// Devices that an entry is about.
    pub total_unique_devices: u64,
    /// Days with entries, oldest first.
    pub administration_logs: Vec<DayAmount>,
    /// Whether all entries were counted, or only the newest.
    #[serde(skip)]
    pub complete: bool,
}

/// The entries of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DayAmount {
    /// Entries.
    pub amount: u64,
    /// The day in the time zone of the query; `2026-11-21` in the API.
    #[serde(serialize_with = "as_text")]
    pub day: Date,
}

/// Why there are no numbers.
#[derive(Debug, Error)]
pub enum StatsError {
    /// The IANA database has no zone of this name.
    #[error("time zone {name:?} is not known, allowed: IANA names, e.g. Europe/Amsterdam")]
    UnknownTimeZone {
        /// What was asked for, at most its first 64 characters.
        name: String,
    },
    /// The log.
    #[error("reading the message log: {0}")]
    Log(#[from] ReadError),
}

/// The one field that counting needs; the others are skipped without being read.
#[derive(Deserialize)]
struct Filed {
    category: NoticeCategory,
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Inspector {
    /// The last seven days of the administration log in numbers, by the days of `time_zone` (an
    /// IANA name).
    pub fn administration_log_stats(
        &self,
        time_zone: &str,
        category: Option<NoticeCategory>,
    ) -> Result<LogStats, StatsError> {
        let zone = time_zone_named(time_zone)?;
        let window = Window { from: now().saturating_sub(HISTORY), until: None };
        let mut devices = HashSet::new();
        let mut days: BTreeMap<Date, u64> = BTreeMap::new();
        let complete = self.each_notice(window, None, SCANNED_MAX, |record| {
            if is_filed_under(&record.body, category) {
                *days.entry(day_of(record.received_at, &zone)).or_default() += 1;
                let device = record.device.as_u64();
                if device != 0 {
                    devices.insert(device);
                }
            }
            true
        })?;
        let amounts = days.into_iter().map(|(day, amount)| DayAmount { amount, day });
        Ok(LogStats {
            total_unique_devices: devices.len() as u64,
            administration_logs: amounts.collect(),
            complete,
        })
    }
}

/// The zone from the database inside of the program: answers do not depend on the machine's.
fn time_zone_named(name: &str) -> Result<TimeZone, StatsError> {
    TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| StatsError::UnknownTimeZone { name: name.chars().take(64).collect() })
}

fn day_of(time: Timestamp, zone: &TimeZone) -> Date {
    // Times beyond the year 9999 all lie on the last day.
    let time = jiff::Timestamp::from_microsecond(time.as_micros());
    zone.to_datetime(time.unwrap_or(jiff::Timestamp::MAX)).date()
}

fn is_filed_under(body: &[u8], category: Option<NoticeCategory>) -> bool {
    category.is_none_or(|only| {
        serde_json::from_slice::<Filed>(body).is_ok_and(|notice| notice.category == only)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(time: &str, zone: &str) -> String {
        day_of(time.parse().unwrap(), &time_zone_named(zone).unwrap()).to_string()
    }

    #[test]
    fn a_day_begins_at_midnight_of_the_zone_also_in_summer() {
        assert_eq!(day("2026-11-20T22:59:59Z", "Europe/Amsterdam"), "2026-11-20");
        assert_eq!(day("2026-11-20T23:00:00Z", "Europe/Amsterdam"), "2026-11-21");
        assert_eq!(day("2026-07-20T22:00:00Z", "Europe/Amsterdam"), "2026-07-21");
        assert_eq!(day("2026-11-20T18:30:00Z", "Asia/Kolkata"), "2026-11-21");
        assert_eq!(day("2026-11-20T18:29:59Z", "Asia/Kolkata"), "2026-11-20");
        assert_eq!(day("2026-11-20T09:00:00Z", "Pacific/Honolulu"), "2026-11-19");
        assert_eq!(day("2026-11-20T09:00:00Z", "UTC"), "2026-11-20");
    }

    #[test]
    fn a_zone_that_is_not_known_is_named() {
        for name in ["", "Mars/Olympus", "../../etc/passwd", "+02:00"] {
            let error = time_zone_named(name).unwrap_err();
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }
}
