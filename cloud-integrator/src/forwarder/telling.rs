//! What the customer of an integration must hear (docs/integrations.md, Success and retry): decided
//! here, without clock or I/O; the run appends the notices to the log.
//!
//! An endpoint that is down is told of when it is first seen to be, after an hour, and after a day;
//! with the first attempt that fails after some days without success the integration fails. These
//! are times while the gateway ran, by the clock that only goes forward: time that it was off says
//! nothing about the endpoint, nor does a wall clock that jumps. Dead letters are told of at once,
//! then once a minute at most.

use std::time::{Duration, Instant};

use vocabulary::{Notice, NoticeCategory, NoticeKind};

use crate::position::Moment;
use crate::progress::Trouble;
use crate::sink::{Failure, FailureClass};

/// When the first, second and third notice about an endpoint that is down are due.
const STEPS: [Duration; 3] =
    [Duration::ZERO, Duration::from_secs(3_600), Duration::from_secs(24 * 3_600)];
/// An endpoint that comes and goes is told of once in so long.
const DOWN_INTERVAL: Duration = Duration::from_secs(3_600);
/// The least time between two notices about dead letters.
const DEAD_INTERVAL: Duration = Duration::from_secs(60);

/// What is due to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The endpoint is down, for so long.
    Down(Duration),
    /// So many events became dead letters.
    Dead(u64),
    /// The endpoint has been down for so long that the integration is to fail.
    TooLong(Duration),
}

/// What has been told, and what is to be.
#[derive(Debug)]
pub(super) struct Telling {
    /// After so long without success the integration fails.
    fails_after: Duration,
    trouble: Option<Lasting>,
    down_told_at: Option<Instant>,
    dead: u64,
    dead_told_at: Option<Instant>,
}

/// A trouble that goes on.
#[derive(Debug, Clone, Copy)]
struct Lasting {
    /// As it was at the moment.
    trouble: Trouble,
    at: Instant,
    /// An attempt of this run failed when it had lasted for too long.
    has_failed_late: bool,
}

impl Lasting {
    fn lasted(&self, now: Instant) -> Duration {
        self.trouble.lasted.saturating_add(now.saturating_duration_since(self.at))
    }
}

impl Telling {
    /// Goes on where the last run ended.
    pub(super) fn new(trouble: Option<Trouble>, fails_after: Duration, now: Instant) -> Self {
        let lasting = |trouble| Lasting { trouble, at: now, has_failed_late: false };
        Self {
            fails_after,
            trouble: trouble.map(lasting),
            down_told_at: None,
            dead: 0,
            dead_told_at: None,
        }
    }

    /// What is to be saved.
    pub(super) fn trouble(&self, now: Instant) -> Option<Trouble> {
        self.trouble.map(|lasting| Trouble { lasted: lasting.lasted(now), ..lasting.trouble })
    }

    /// The endpoint counts as down.
    pub(super) fn down(&mut self, moment: Moment) {
        let trouble = Trouble { since: moment.at, lasted: Duration::ZERO, told: 0 };
        let lasting = Lasting { trouble, at: moment.now, has_failed_late: false };
        self.trouble.get_or_insert(lasting);
    }

    /// An attempt failed that says something about the endpoint.
    pub(super) fn failed(&mut self, now: Instant) {
        if let Some(lasting) = &mut self.trouble {
            lasting.has_failed_late |= lasting.lasted(now) >= self.fails_after;
        }
    }

    /// Something was delivered.
    pub(super) fn succeeded(&mut self) {
        self.trouble = None;
    }

    /// Events became dead letters.
    pub(super) fn died(&mut self, count: u64) {
        self.dead += count;
    }

    /// What is due `now`; it counts as told.
    pub(super) fn due(&mut self, now: Instant) -> Option<Told> {
        if self.dead > 0 && is_over(self.dead_told_at, DEAD_INTERVAL, now) {
            self.dead_told_at = Some(now);
            return Some(Told::Dead(std::mem::take(&mut self.dead)));
        }
        let lasting = self.trouble.as_mut()?;
        let lasted = lasting.lasted(now);
        if lasting.has_failed_late {
            self.trouble = None;
            return Some(Told::TooLong(lasted));
        }
        let steps = STEPS.iter().filter(|step| **step <= lasted).count();
        let steps = u8::try_from(steps).unwrap_or(u8::MAX);
        if steps <= lasting.trouble.told {
            return None;
        }
        let is_first = lasting.trouble.told == 0 && steps == 1;
        lasting.trouble.told = steps;
        if is_first && !is_over(self.down_told_at, DOWN_INTERVAL, now) {
            return None;
        }
        self.down_told_at = Some(now);
        Some(Told::Down(lasted))
    }

    /// How long after `now` something will be due if nothing else happens.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let dead = (self.dead > 0).then(|| {
            let told = self.dead_told_at.unwrap_or(now);
            (told + DEAD_INTERVAL).saturating_duration_since(now)
        });
        let down = self.trouble.and_then(|lasting| {
            let step = STEPS.get(usize::from(lasting.trouble.told))?;
            Some(step.saturating_sub(lasting.lasted(now)))
        });
        dead.into_iter().chain(down).min()
    }
}

fn is_over(last: Option<Instant>, interval: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= interval)
}

/// Why an integration fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Downfall {
    /// An event used up its attempts, where that ends the integration; the last failure.
    Exhausted(Failure),
    /// Nothing was delivered for so long.
    TooLong(Duration),
    /// More dead letters than are kept.
    DeadLetters(u64),
}

impl Downfall {
    /// For the state of the integration.
    pub(super) fn error(&self) -> String {
        match self {
            Self::Exhausted(failure) if failure.class == FailureClass::Blocked => {
                format!("the address is blocked: {}", failure.text)
            }
            Self::Exhausted(failure) => failure.to_string(),
            Self::TooLong(lasted) => {
                format!("the endpoint took nothing for {} hours", lasted.as_secs() / 3_600)
            }
            Self::DeadLetters(count) => format!("{count} dead letters"),
        }
    }

    /// The notice for the administration log; the first text is that of 1NCE OS.
    pub(super) fn notice(&self, id: &str, name: &str) -> Notice {
        let begins = format!("Integration with ID {id} and name \"{name}\" was disabled");
        let description = match self {
            Self::Exhausted(failure) if failure.class == FailureClass::Gone => format!(
                "{begins} because its endpoint answered 410: it is gone for good. Please review \
                 affected integration details in Cloud Integrator."
            ),
            Self::Exhausted(failure) if failure.class == FailureClass::Blocked => format!(
                "{begins} because its address is one that the gateway must not reach. Please \
                 review affected integration details in Cloud Integrator."
            ),
            Self::DeadLetters(count) => format!(
                "{begins} because its endpoint refused too many events: there are {count} dead \
                 letters. Please review affected integration details in Cloud Integrator."
            ),
            Self::Exhausted(_) | Self::TooLong(_) => format!(
                "{begins} due to consecutive failed requests. Please review affected integration \
                 details in Cloud Integrator."
            ),
        };
        notice(id, "CloudIntegrator[IntegrationDisabled]", description)
    }
}

/// The endpoint has been down since then.
pub(super) fn down_notice(id: &str, name: &str, lasted: Duration) -> Notice {
    let so_far = match lasted.as_secs() / 3_600 {
        0 => String::new(),
        1 => " for an hour".to_owned(),
        hours => format!(" for {hours} hours"),
    };
    let description = format!(
        "The endpoint of the integration with ID {id} and name \"{name}\" has taken nothing{so_far}. \
         Messages for it are kept until their retention ends, and it is tried again and again."
    );
    notice(id, "CloudIntegrator[EndpointDown]", description)
}

/// So many events became dead letters since the last such notice.
pub(super) fn dead_notice(id: &str, name: &str, count: u64) -> Notice {
    let what = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    let description = format!(
        "{what} for the integration with ID {id} and name \"{name}\" could not be delivered and will \
         not be tried again unless you ask for it: see its dead letters."
    );
    notice(id, "CloudIntegrator[DeadLetter]", description)
}

/// Retention was faster than the endpoint.
pub(super) fn expired_notice(id: &str) -> Notice {
    let description = format!(
        "Messages for the integration with ID {id} were older than the retention time before they \
         could be delivered. Delivery goes on with the oldest message that is kept."
    );
    notice(id, "CloudIntegrator[MessagesExpired]", description)
}

fn notice(id: &str, message: &str, description: String) -> Notice {
    let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Integration, message);
    notice.integration = Some(id.to_owned());
    notice.description = description;
    notice
}

#[cfg(test)]
mod tests {
    use super::*;

    use vocabulary::Timestamp;

    const HOUR: u64 = 3_600;
    const FIVE_DAYS: Duration = Duration::from_secs(120 * HOUR);

    /// One run of a gateway, whose clocks tests move.
    struct Run {
        start: Instant,
        telling: Telling,
    }

    impl Run {
        fn new(trouble: Option<Trouble>) -> Self {
            let start = Instant::now();
            Self { start, telling: Telling::new(trouble, FIVE_DAYS, start) }
        }

        /// The next run, after one that ended when it had lasted `secs`.
        fn resumed(&self, secs: u64) -> Self {
            Self::new(self.telling.trouble(self.at(secs)))
        }

        fn at(&self, secs: u64) -> Instant {
            self.start + Duration::from_secs(secs)
        }

        fn down(&mut self, secs: u64) {
            let at = Timestamp::from_millis(0).saturating_add(Duration::from_secs(secs));
            self.telling.down(Moment { now: self.at(secs), at });
        }

        fn fail(&mut self, secs: u64) {
            self.telling.failed(self.at(secs));
        }

        fn due(&mut self, secs: u64) -> Option<Told> {
            self.telling.due(self.at(secs))
        }

        fn next(&self, secs: u64) -> Option<Duration> {
            self.telling.next(self.at(secs))
        }
    }

    fn down_for(secs: u64) -> Option<Told> {
        Some(Told::Down(Duration::from_secs(secs)))
    }

    #[test]
    fn an_outage_is_told_of_three_times_and_fails_the_integration_after_five_days() {
        let mut run = Run::new(None);
        assert_eq!((run.due(0), run.next(0)), (None, None));
        run.down(10);
        assert_eq!(run.due(10), down_for(0));
        for hours in [1, 24] {
            run.down(20);
            assert_eq!(run.due(hours * HOUR + 9), None);
            assert_eq!(run.next(hours * HOUR + 9), Some(Duration::from_secs(1)));
            assert_eq!(run.due(hours * HOUR + 10), down_for(hours * HOUR));
        }
        run.fail(120 * HOUR + 9);
        assert_eq!(run.due(120 * HOUR + 10), None);
        run.fail(120 * HOUR + 10);
        assert_eq!(run.due(120 * HOUR + 10), Some(Told::TooLong(FIVE_DAYS)));
        assert_eq!(run.telling.trouble(run.start), None);
    }

    #[test]
    fn a_restart_tells_nothing_twice_and_does_not_restart_the_clock() {
        let mut run = Run::new(None);
        run.down(0);
        assert!(run.due(1).is_some());
        let mut run = run.resumed(60);
        run.down(50);
        assert_eq!(run.due(60), None);
        assert_eq!(run.due(HOUR - 60), down_for(HOUR));
        let mut run = run.resumed(HOUR);
        assert_eq!(run.due(HOUR), None);
        run.fail(120 * HOUR);
        assert!(matches!(run.due(120 * HOUR), Some(Told::TooLong(_))));
    }

    /// Five days were judged by the wall clock. A gateway that was without power for so long, or
    /// whose clock was set after it had begun, declared that every integration which had been in
    /// trouble had failed, without one attempt.
    #[test]
    fn time_without_attempts_fails_nothing() {
        let since = Timestamp::from_millis(0);
        let lasted = Duration::from_secs(30 * HOUR);
        let mut run = Run::new(Some(Trouble { since, lasted, told: 3 }));
        run.fail(1);
        assert_eq!((run.due(1), run.next(1)), (None, None));
        // Nothing is left to try.
        assert_eq!(run.due(500 * HOUR), None);
        run.fail(501 * HOUR);
        assert!(matches!(run.due(501 * HOUR), Some(Told::TooLong(_))));
    }

    #[test]
    fn an_endpoint_that_comes_and_goes_is_told_of_once_an_hour() {
        let mut run = Run::new(None);
        let mut told = 0;
        for minute in 0..120 {
            run.down(minute * 60);
            told += usize::from(run.due(minute * 60).is_some());
            run.telling.succeeded();
        }
        assert_eq!(told, 2);
    }

    /// Times between notices were measured by the wall clock: after that was set back by a year
    /// there was no notice for a year.
    #[test]
    fn dead_letters_are_told_of_at_once_and_then_once_a_minute() {
        let mut run = Run::new(None);
        run.telling.died(1);
        assert_eq!(run.due(0), Some(Told::Dead(1)));
        for second in 1..60 {
            run.telling.died(2);
            assert_eq!(run.due(second), None);
        }
        assert_eq!(run.next(59), Some(Duration::from_secs(1)));
        assert_eq!(run.due(60), Some(Told::Dead(118)));
        assert_eq!(run.due(200), None);
    }

    #[test]
    fn a_failed_integration_is_told_of_in_the_documented_words() {
        let failure = Failure::new(FailureClass::Status, "the endpoint answered 500");
        let notice = Downfall::Exhausted(failure).notice("X8qB", "mine");
        assert_eq!(notice.message, "CloudIntegrator[IntegrationDisabled]");
        assert_eq!(
            notice.description,
            "Integration with ID X8qB and name \"mine\" was disabled due to consecutive failed \
             requests. Please review affected integration details in Cloud Integrator."
        );
        let gone = Failure::new(FailureClass::Gone, "the endpoint answered 410");
        let notice = Downfall::Exhausted(gone).notice("X8qB", "mine");
        assert!(notice.description.contains("410"), "{}", notice.description);
    }
}
