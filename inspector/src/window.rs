//! Spans of time in queries, and pages by number.

use std::time::{Duration, SystemTime};

use thiserror::Error;
use vocabulary::Timestamp;

/// History and administration log go back this far, as documented.
pub(crate) const HISTORY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The largest page of history and administration log, as documented.
pub const PAGE_SIZE_MAX: usize = 25;
/// The page size where a query names none, as documented.
pub const PAGE_SIZE_DEFAULT: usize = 10;

/// A span whose beginning lies behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the start {from} lies after the end {until}")]
pub struct BackwardWindow {
    /// The start.
    pub from: Timestamp,
    /// The end.
    pub until: Timestamp,
}

/// Page sizes outside of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("page size {found} is not allowed, allowed: 1 to {PAGE_SIZE_MAX}")]
pub struct PageSizeError {
    /// What was asked for.
    pub found: usize,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first moment that belongs to it.
    pub(crate) from: Timestamp,
    /// The first moment that does not; without it the span is open. It is not closed at "now",
    /// because the clock may have been set back since a message was received.
    pub(crate) until: Option<Timestamp>,
}

impl Window {
    /// Without a start it starts seven days before its end, or before now.
    pub(crate) fn resolve(
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Self, BackwardWindow> {
        let from = from.unwrap_or_else(|| until.unwrap_or_else(now).saturating_sub(HISTORY));
        match until {
            Some(until) if from > until => Err(BackwardWindow { from, until }),
            _ => Ok(Self { from, until }),
        }
    }
}

/// Wall-clock time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

pub(crate) fn check_page_size(found: usize) -> Result<usize, PageSizeError> {
    if (1..=PAGE_SIZE_MAX).contains(&found) { Ok(found) } else { Err(PageSizeError { found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_alone_starts_seven_days_before_it() {
        let until = Timestamp::from_millis(604_800_001);
        let window = Window::resolve(None, Some(until)).unwrap();
        assert_eq!(window.from, Timestamp::from_millis(1));
        let from = Timestamp::from_millis(5);
        assert_eq!(Window::resolve(Some(from), None).unwrap(), Window { from, until: None });
        assert!(Window::resolve(Some(until), Some(from)).is_err());
    }
}
