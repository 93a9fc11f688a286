//! The moment that an `at` selector names.

/// Numbers below this are seconds, from here on milliseconds: as seconds it lies in the year 5138,
/// as milliseconds in 1973.
const FIRST_MILLISECONDS: f64 = 1e11;

/// Microseconds since 1970 of a number of seconds or milliseconds since 1970.
pub(crate) fn from_number(number: f64) -> Option<i64> {
    let micros = if number.abs() < FIRST_MILLISECONDS { number * 1e6 } else { number * 1e3 };
    // 2^63: from there on the cast would saturate instead of being right.
    let fits = micros.abs() < 9.223_372_036_854_775e18;
    #[expect(clippy::cast_possible_truncation, reason = "checked above; fractions are dropped")]
    fits.then_some(micros as i64)
}

/// Microseconds since 1970 of an RFC 3339 text; without an offset it is taken as UTC.
pub(crate) fn from_text(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('\0').trim();
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp.as_microsecond());
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    let timestamp = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?;
    Some(timestamp.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_milliseconds_and_texts_name_the_same_moment() {
        let micros = Some(1_596_210_100_000_000);
        assert_eq!(from_number(1_596_210_100.0), micros);
        assert_eq!(from_number(1_596_210_100_000.0), micros);
        assert_eq!(from_text("2020-07-31T15:41:40Z"), micros);
        assert_eq!(from_text("2020-07-31T17:41:40+02:00"), micros);
        assert_eq!(from_text("2020-07-31 15:41:40\0\0"), micros);
    }

    #[test]
    fn what_is_no_moment_is_none() {
        assert_eq!(from_text("yesterday"), None);
        assert_eq!(from_number(f64::NAN), None);
        assert_eq!(from_number(f64::INFINITY), None);
        assert_eq!(from_number(1e300), None);
    }
}
