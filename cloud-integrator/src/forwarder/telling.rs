//! What the customer of an integration must hear (docs/delivery.md, Notices): decided here, without
//! clock or I/O; the run appends the notices to the log.
//!
//! An endpoint that is down is told of when it is first seen to be, after an hour, and after a day;
//! after some days without success the integration fails. Dead letters are told of at once, then
//! once a minute at most.

use std::time::Duration;

use vocabulary::{Notice, NoticeCategory, NoticeKind, Timestamp};

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
    /// The endpoint is down, since then.
    Down(Timestamp),
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
    trouble: Option<Trouble>,
    down_told_at: Option<Timestamp>,
    dead: u64,
    dead_told_at: Option<Timestamp>,
}

impl Telling {
    /// Goes on where the last run ended.
    pub(super) fn new(trouble: Option<Trouble>, fails_after: Duration) -> Self {
        Self { fails_after, trouble, down_told_at: None, dead: 0, dead_told_at: None }
    }

    /// What is to be saved.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// The endpoint counts as down.
    pub(super) fn down(&mut self, at: Timestamp) {
        self.trouble.get_or_insert(Trouble { since: at, told: 0 });
    }

    /// Something was delivered.
    pub(super) fn succeeded(&mut self) {
        self.trouble = None;
    }

    /// Events became dead letters.
    pub(super) fn died(&mut self, count: u64) {
        self.dead += count;
    }

    /// What is due at `at`; it counts as told.
    pub(super) fn due(&mut self, at: Timestamp) -> Option<Told> {
        if self.dead > 0 && is_over(self.dead_told_at, DEAD_INTERVAL, at) {
            self.dead_told_at = Some(at);
            return Some(Told::Dead(std::mem::take(&mut self.dead)));
        }
        let trouble = self.trouble.as_mut()?;
        let lasted = at.saturating_since(trouble.since);
        if lasted >= self.fails_after {
            self.trouble = None;
            return Some(Told::TooLong(lasted));
        }
        let steps = STEPS.iter().filter(|step| **step <= lasted).count();
        let steps = u8::try_from(steps).unwrap_or(u8::MAX);
        if steps <= trouble.told {
            return None;
        }
        let is_first = trouble.told == 0 && steps == 1;
        trouble.told = steps;
        if is_first && !is_over(self.down_told_at, DOWN_INTERVAL, at) {
            return None;
        }
        self.down_told_at = Some(at);
        Some(Told::Down(trouble.since))
    }

    /// How long after `at` something will be due.
    pub(super) fn next(&self, at: Timestamp) -> Option<Duration> {
        let dead = (self.dead > 0).then(|| {
            let told = self.dead_told_at.unwrap_or(at);
            told.saturating_add(DEAD_INTERVAL).saturating_since(at)
        });
        let down = self.trouble.map(|trouble| {
            let step = STEPS.get(usize::from(trouble.told)).copied().unwrap_or(Duration::MAX);
            trouble.since.saturating_add(step.min(self.fails_after)).saturating_since(at)
        });
        dead.into_iter().chain(down).min()
    }
}

fn is_over(last: Option<Timestamp>, interval: Duration, at: Timestamp) -> bool {
    last.is_none_or(|last| at.saturating_since(last) >= interval)
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

    const HOUR: u64 = 3_600;
    const FIVE_DAYS: Duration = Duration::from_secs(120 * HOUR);

    fn telling(trouble: Option<Trouble>) -> Telling {
        Telling::new(trouble, FIVE_DAYS)
    }

    fn resumed(before: &Telling) -> Telling {
        telling(before.trouble())
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(0).saturating_add(Duration::from_secs(secs))
    }

    #[test]
    fn an_outage_is_told_of_three_times_and_fails_the_integration_after_five_days() {
        let mut telling = telling(None);
        assert_eq!((telling.due(at(0)), telling.next(at(0))), (None, None));
        telling.down(at(10));
        assert_eq!(telling.due(at(10)), Some(Told::Down(at(10))));
        for (hours, told) in
            [(1, Told::Down(at(10))), (24, Told::Down(at(10))), (120, Told::TooLong(FIVE_DAYS))]
        {
            telling.down(at(20));
            assert_eq!(telling.due(at(hours * HOUR + 9)), None);
            assert_eq!(telling.next(at(hours * HOUR + 9)), Some(Duration::from_secs(1)));
            assert_eq!(telling.due(at(hours * HOUR + 10)), Some(told));
        }
        assert_eq!(telling.trouble(), None);
    }

    #[test]
    fn a_restart_tells_nothing_twice_and_does_not_restart_the_clock() {
        let mut telling = telling(None);
        telling.down(at(0));
        assert!(telling.due(at(1)).is_some());
        let mut telling = resumed(&telling);
        telling.down(at(50));
        assert_eq!(telling.due(at(60)), None);
        assert_eq!(telling.due(at(HOUR)), Some(Told::Down(at(0))));
        let mut telling = resumed(&telling);
        assert_eq!(telling.due(at(2 * HOUR)), None);
        assert_eq!(telling.due(at(5 * 24 * HOUR)), Some(Told::TooLong(FIVE_DAYS)));
    }

    #[test]
    fn what_was_missed_while_the_gateway_was_off_is_told_once() {
        let mut telling = telling(Some(Trouble { since: at(0), told: 1 }));
        assert_eq!(telling.due(at(30 * HOUR)), Some(Told::Down(at(0))));
        assert_eq!(telling.due(at(31 * HOUR)), None);
    }

    #[test]
    fn an_endpoint_that_comes_and_goes_is_told_of_once_an_hour() {
        let mut telling = telling(None);
        let mut told = 0;
        for minute in 0..120 {
            telling.down(at(minute * 60));
            told += usize::from(telling.due(at(minute * 60)).is_some());
            telling.succeeded();
        }
        assert_eq!(told, 2);
    }

    #[test]
    fn dead_letters_are_told_of_at_once_and_then_once_a_minute() {
        let mut telling = telling(None);
        telling.died(1);
        assert_eq!(telling.due(at(0)), Some(Told::Dead(1)));
        for second in 1..60 {
            telling.died(2);
            assert_eq!(telling.due(at(second)), None);
        }
        assert_eq!(telling.next(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(telling.due(at(60)), Some(Told::Dead(118)));
        assert_eq!(telling.due(at(200)), None);
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
