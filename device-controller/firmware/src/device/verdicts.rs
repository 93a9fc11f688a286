//! What the state and the result of a device mean for its update.

use std::time::Duration;

use vocabulary::Timestamp;

use super::phases::UPDATING;
use super::result::{INVALID_URI, SUCCESS, UNSUPPORTED_PROTOCOL, is_worth_a_retry, result_text};
use super::{DeviceUpdate, Stage};
use crate::device::progress::Delivery;
use crate::plan::Method;

impl DeviceUpdate {
    /// Looks at what is known; `is_asked`: all of it was just read, and not told by chance.
    pub(super) fn assess(&mut self, now: Timestamp, is_asked: bool) {
        match self.progress.stage {
            Stage::Downloading => self.assess_download(now, is_asked),
            Stage::Installing if self.is_checking && is_asked => self.assess_check(now),
            Stage::Rebooting => self.assess_installation(now, is_asked),
            _ => {}
        }
    }

    fn assess_download(&mut self, now: Timestamp, is_asked: bool) {
        match self.found.state {
            Some(2) => return self.enter(Stage::Installing, now),
            Some(UPDATING) => {
                self.note(now, "the device installs by itself");
                return self.enter(Stage::Rebooting, now);
            }
            _ => {}
        }
        let news = self.news();
        match self.found.state {
            // Of two notifications the first says only half: ask for both.
            Some(0) if !is_asked && (self.progress.moved || news.is_some()) => {
                self.ask_soon(now);
            }
            Some(0) if is_asked => match news {
                Some(SUCCESS) => {
                    self.note(now, "the device has installed by itself");
                    self.enter(Stage::Rebooting, now);
                    self.assess_installation(now, true);
                }
                Some(result) => self.fail_by(result, now),
                None if self.progress.moved => {
                    let text = "the device is idle again without a result, as after a reboot";
                    self.end_attempt(text, true, now);
                }
                None => {}
            },
            _ => {}
        }
    }

    /// Whether a device that may or may not have been told to install has begun.
    fn assess_check(&mut self, now: Timestamp) {
        if self.found.state == Some(2) && self.news().is_none() {
            return match self.refusal.take() {
                Some(reason) => self.end_attempt(&reason, true, now),
                None => self.enter(Stage::Installing, now),
            };
        }
        self.enter(Stage::Rebooting, now);
        self.assess_installation(now, true);
    }

    fn assess_installation(&mut self, now: Timestamp, is_asked: bool) {
        match self.news() {
            Some(_) if !is_asked => self.ask_soon(now),
            Some(SUCCESS) => self.succeed(now),
            Some(result) => self.fail_by(result, now),
            None if is_asked && self.found.state == Some(0) => self.assess_version(now),
            None => {}
        }
    }

    /// A device that is idle without a result may have lost it; its version tells.
    fn assess_version(&mut self, now: Timestamp) {
        let Some(version) = self.found.version.as_deref() else { return };
        let before = self.progress.version_before.as_deref();
        let is_new = self.plan.version.as_deref() == Some(version);
        if before.is_some_and(|before| before != version) && (is_new || self.plan.version.is_none())
        {
            self.note(now, "the device has no result, but another version than before");
            self.succeed(now);
        }
    }

    /// The result, where it is one of this attempt and not left over from before.
    fn news(&self) -> Option<i64> {
        let result = self.found.result.filter(|result| *result != 0)?;
        let progress = &self.progress;
        let has_ended = progress.moved && self.found.state == Some(0);
        let is_new = progress.zero_seen || result != progress.stale_result || has_ended;
        is_new.then_some(result)
    }

    pub(super) fn ask_soon(&mut self, now: Timestamp) {
        if self.in_flight.is_some() || !self.steps.is_empty() {
            return;
        }
        if self.may_poll(now) {
            self.ask_state(now, false);
        } else {
            // Due at the next tick after the spacing.
            let back = super::POLL_INTERVAL.saturating_sub(super::POLL_SPACING);
            self.last_poll = Some(now.saturating_sub(back));
        }
    }

    fn succeed(&mut self, now: Timestamp) {
        let before = self.progress.version_before.as_deref().unwrap_or("unknown");
        let after = self.found.version.as_deref().unwrap_or("unknown");
        let text = format!("installed; version {before} before, {after} now");
        self.progress.version_after = self.found.version.clone();
        let is_other = match (&self.plan.version, &self.found.version) {
            (Some(wanted), found) => found.as_ref() != Some(wanted),
            (None, _) => false,
        };
        if is_other {
            let wanted = self.plan.version.as_deref().unwrap_or_default();
            if self.plan.require_version {
                let text = format!("the device reports version {after}, the image is {wanted}");
                return self.finish(Stage::Failed, text, now);
            }
            self.note(now, format!("the device reports version {after}, the image is {wanted}"));
        }
        self.finish(Stage::Succeeded, text, now);
    }

    fn fail_by(&mut self, result: i64, now: Timestamp) {
        let text = format!("result {result}: {}", result_text(result));
        let pulled = matches!(self.progress.delivery, Some(Delivery::Pull | Delivery::PullSecure));
        let takes_push = self.found.delivery.is_none_or(|delivery| delivery != 0);
        let by_uri = matches!(result, INVALID_URI | UNSUPPORTED_PROTOCOL);
        if by_uri && pulled && takes_push && self.plan.method == Method::Auto {
            self.progress.push_only = true;
            return self.end_attempt(&format!("{text}; push comes next"), true, now);
        }
        self.end_attempt(&text, is_worth_a_retry(result), now);
    }

    pub(super) fn give_up_waiting(&mut self, waited: Duration, now: Timestamp) {
        let minutes = waited.as_secs() / 60;
        let text = match self.progress.stage {
            Stage::Downloading => format!("nothing was downloaded for {minutes} minutes"),
            Stage::Rebooting | Stage::Installing => {
                format!("no result {minutes} minutes after the installation began")
            }
            _ => format!("another installation did not end within {minutes} minutes"),
        };
        self.end_attempt(&text, true, now);
    }

    pub(super) fn end_attempt(&mut self, text: &str, retry: bool, now: Timestamp) {
        let (attempt, attempts) = (self.progress.attempt, self.plan.patience.attempts);
        if !retry || attempt >= attempts {
            return self.finish(Stage::Failed, text.to_owned(), now);
        }
        let minutes = self.plan.patience.pause.as_secs() / 60;
        self.note(
            now,
            format!(
                "attempt {attempt} of {attempts} failed: {text}; the next one is due in {minutes} \
                 minutes"
            ),
        );
        self.enter(Stage::Pausing, now);
    }

    pub(super) fn next_attempt(&mut self, now: Timestamp) {
        self.progress.attempt += 1;
        let (attempt, attempts) = (self.progress.attempt, self.plan.patience.attempts);
        self.enter(Stage::Probing, now);
        self.note(now, format!("attempt {attempt} of {attempts}"));
    }

    pub(super) fn finish(&mut self, stage: Stage, text: String, now: Timestamp) {
        self.is_asleep = false;
        self.enter(stage, now);
        if stage != Stage::Succeeded {
            self.progress.failure = Some(text.clone());
        }
        self.note(now, text);
    }
}
