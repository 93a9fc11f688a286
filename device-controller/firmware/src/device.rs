//! The update of one device: a state machine without I/O and without a clock.
//!
//! Inputs are the outcomes of steps, values that the device reports, its awakenings, and time.
//! Outputs are the next step ([`DeviceUpdate::poll_step`]; one is under way at a time) and entries
//! of the timeline. [`Progress`] is all that has to be kept: after a restart
//! [`DeviceUpdate::take_up`] looks how the device is and goes on from there.
//!
//! OMA LwM2M 1.1 Core, E.6 "LwM2M Object: Firmware Update", with its figure of states. Devices are
//! not trusted to follow it: a state may jump, a result may be an old one or out of range, and
//! notifications may be lost.

mod phases;
mod progress;
mod result;
mod verdicts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vocabulary::Timestamp;

use crate::plan::Plan;
use crate::step::{Code, Step, StepOutcome, Value, path};

pub use progress::{Delivery, Progress, Stage};
pub use result::result_text;

/// How often a device that reports nothing by itself is asked.
pub const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// A device is not asked sooner after the last time, however much it reports.
pub const POLL_SPACING: Duration = Duration::from_secs(5);
/// A step without an outcome for so long means that the device sleeps and the step waits for it:
/// beyond the 93 s of a CoAP exchange (RFC 7252 §4.8.2, `MAX_TRANSMIT_WAIT`).
pub const SLEEP_AFTER: Duration = Duration::from_secs(120);
/// Entries of one device that are kept; a device that sleeps and wakes all the time fills them.
pub const ENTRIES_MAX: u32 = 300;

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// In which stage.
    pub stage: Stage,
    /// What happened.
    pub text: String,
}

/// What a device is doing, for whoever shares out places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is being updated.
    Busy,
    /// It sleeps, or the next attempt is not due.
    Idle,
    /// Its update has ended.
    Ended,
}

/// The update of one device.
#[derive(Debug)]
pub struct DeviceUpdate {
    plan: Arc<Plan>,
    progress: Progress,
    found: Found,
    /// What is left of the current phase.
    steps: VecDeque<Step>,
    in_flight: Option<Flight>,
    is_asleep: bool,
    /// When it was last seen awake, until that has been made use of.
    woken: Option<Timestamp>,
    /// Whether the steps of the phase only look, after a restart or a lost answer.
    is_checking: bool,
    clear_round: u32,
    last_poll: Option<Timestamp>,
    /// Why the last write or execute was refused.
    refusal: Option<String>,
    last_note: String,
    entries: Vec<Entry>,
    entries_left: u32,
    has_changed: bool,
}

#[derive(Debug)]
struct Flight {
    step: Step,
    sent: Timestamp,
}

/// What the device said since the attempt began.
#[derive(Debug, Default)]
struct Found {
    protocols: Option<Vec<i64>>,
    delivery: Option<i64>,
    version: Option<String>,
    state: Option<i64>,
    result: Option<i64>,
    /// How a read of the state was refused.
    no_state: Option<Code>,
    unobservable: bool,
}

impl DeviceUpdate {
    /// Begins.
    pub fn new(plan: Arc<Plan>, now: Timestamp) -> Self {
        let mut this = Self::at(plan, Progress::new(now), ENTRIES_MAX);
        this.note(now, "the update begins");
        this.enter(Stage::Probing, now);
        this
    }

    /// Goes on from `progress`, with room for `entries_left` entries in its timeline.
    pub fn take_up(plan: Arc<Plan>, progress: Progress, entries_left: u32, now: Timestamp) -> Self {
        let mut this = Self::at(plan, progress, entries_left);
        this.progress.since = match this.progress.stage {
            Stage::Pausing => this.progress.since,
            _ => now,
        };
        match this.progress.stage {
            Stage::Probing | Stage::Clearing | Stage::Observing => {
                this.note(now, "goes on after an interruption, from the beginning");
                this.enter(Stage::Probing, now);
            }
            Stage::Delivering | Stage::Downloading | Stage::Installing | Stage::Rebooting => {
                this.note(now, "goes on after an interruption: looks how the device is");
                this.is_checking = true;
                this.ask_state(now, true);
            }
            Stage::Pausing | Stage::Succeeded | Stage::Failed | Stage::Cancelled => {}
        }
        this
    }

    fn at(plan: Arc<Plan>, progress: Progress, entries_left: u32) -> Self {
        Self {
            plan,
            progress,
            found: Found::default(),
            steps: VecDeque::new(),
            in_flight: None,
            is_asleep: false,
            woken: None,
            is_checking: false,
            clear_round: 0,
            last_poll: None,
            refusal: None,
            last_note: String::new(),
            entries: Vec::new(),
            entries_left,
            has_changed: true,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Entries that the timeline has still room for.
    pub fn entries_left(&self) -> u32 {
        self.entries_left
    }

    /// Whether a step is under way.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether the device has not answered for so long that it must be asleep.
    pub fn is_asleep(&self, now: Timestamp) -> bool {
        self.is_asleep || self.in_flight.as_ref().is_some_and(|flight| self.sleeps(flight, now))
    }

    /// What the device is doing.
    pub fn presence(&self, now: Timestamp) -> Presence {
        match self.progress.stage {
            stage if stage.is_end() => Presence::Ended,
            Stage::Pausing => Presence::Idle,
            _ if self.is_asleep(now) => Presence::Idle,
            _ => Presence::Busy,
        }
    }

    /// Whether a step waits to be taken.
    pub fn has_step(&self) -> bool {
        self.in_flight.is_none() && !self.is_asleep && !self.steps.is_empty()
    }

    /// Takes the next step, which is then under way until its outcome is told.
    pub fn poll_step(&mut self, now: Timestamp) -> Option<Step> {
        if !self.has_step() {
            return None;
        }
        let step = self.steps.pop_front()?;
        self.in_flight = Some(Flight { step: step.clone(), sent: now });
        Some(step)
    }

    /// Takes the new entries of the timeline.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Whether [`DeviceUpdate::progress`] is to be kept anew.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// What is asked of a device whose update has ended; nobody waits for the outcomes.
    pub fn farewell(&self) -> Vec<Step> {
        let mut steps = vec![Step::CancelObserve(path::STATE), Step::CancelObserve(path::RESULT)];
        // A device that was given up in the middle shall not wait for an Update for ever.
        if self.progress.stage != Stage::Succeeded {
            steps.push(Step::WriteText { path: path::PACKAGE_URI, value: String::new() });
        }
        steps
    }

    /// The outcome of the step under way.
    pub fn on_outcome(&mut self, now: Timestamp, outcome: StepOutcome) {
        let Some(flight) = self.in_flight.take() else { return };
        if self.sleeps(&flight, now) {
            // It slept: time runs again from now on.
            self.progress.since = now;
        }
        match outcome {
            StepOutcome::Unreachable => self.fall_asleep(flight, "does not answer", now),
            StepOutcome::NotRegistered => self.fall_asleep(flight, "is not registered", now),
            StepOutcome::Invalid(reason) => {
                self.absorb_refusal(&flight.step, None, &reason);
                self.go_on(now);
            }
            StepOutcome::Answered { code, value } => {
                if code.is_success() {
                    self.absorb_answer(&flight.step, value.as_ref(), now);
                } else {
                    self.absorb_refusal(&flight.step, Some(code), &code.to_string());
                }
                self.go_on(now);
            }
        }
    }

    /// A value that the device reported by itself.
    pub fn on_value(&mut self, now: Timestamp, path: &str, value: &Value) {
        if self.progress.stage.is_end() {
            return;
        }
        self.wake(now);
        self.absorb_value(path, value, now);
        self.assess(now, false);
    }

    /// The device is awake; `registered`: it has registered anew, and observes nothing any more.
    pub fn on_awake(&mut self, now: Timestamp, registered: bool) {
        if self.progress.stage.is_end() {
            return;
        }
        self.wake(now);
        if self.progress.stage == Stage::Pausing {
            return;
        }
        if registered {
            self.on_registered(now);
        }
        if self.in_flight.is_none() && self.steps.is_empty() && self.may_poll(now) {
            self.ask_state(now, false);
        }
    }

    /// Whatever it observed is forgotten. A step that waits goes on waiting, and its end is told;
    /// one that restarts the device may have done so.
    fn on_registered(&mut self, now: Timestamp) {
        let is_execute = |flight: &Flight| matches!(flight.step, Step::Execute(_));
        if self.in_flight.as_ref().is_some_and(is_execute) {
            let lost = self.in_flight.take();
            self.repeat(lost.map(|flight| flight.step), now);
        }
        let is_look = |step: &Step| matches!(step, Step::Read(_) | Step::Observe(_));
        let is_late = matches!(
            self.progress.stage,
            Stage::Downloading | Stage::Installing | Stage::Rebooting
        );
        if is_late && self.in_flight.is_none() && self.steps.iter().all(is_look) {
            self.note(now, "the device has registered again");
            self.steps.clear();
            self.ask_state(now, true);
        }
    }

    /// The device has `bytes` of the image.
    pub fn on_bytes(&mut self, now: Timestamp, bytes: u64) {
        let is_moving = matches!(self.progress.stage, Stage::Delivering | Stage::Downloading);
        let bytes = bytes.min(self.plan.image.len() as u64);
        if !is_moving || bytes <= self.progress.bytes {
            return;
        }
        self.wake(now);
        self.progress.since = now;
        let tenth = |bytes: u64| bytes * 10 / (self.plan.image.len() as u64).max(1);
        let (before, after) = (tenth(self.progress.bytes), tenth(bytes));
        self.progress.bytes = bytes;
        if before != after {
            let size = self.plan.image.len();
            self.note(now, format!("{bytes} of {size} bytes are with the device"));
            self.has_changed = true;
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Timestamp) {
        let Progress { stage, started, since, .. } = self.progress;
        let patience = self.plan.patience;
        if stage.is_end() {
            return;
        }
        if now.saturating_since(started) > patience.deadline {
            let hours = patience.deadline.as_secs() / 3_600;
            let text = format!("not done within {hours} hours of its first step");
            return self.finish(Stage::Failed, text, now);
        }
        let waited = now.saturating_since(since);
        if stage == Stage::Pausing {
            if waited >= patience.pause {
                self.next_attempt(now);
            }
            return;
        }
        if self.is_asleep {
            return;
        }
        if let Some(flight) = &self.in_flight {
            let is_stuck = self.is_push_under_way(flight) && waited > patience.download;
            if is_stuck {
                self.end_attempt("the transfer stands still", true, now);
            }
            return;
        }
        if !self.steps.is_empty() {
            return;
        }
        let longest =
            if stage == Stage::Downloading { patience.download } else { patience.install };
        if waited > longest {
            return self.give_up_waiting(longest, now);
        }
        let is_due = |last| now.saturating_since(last) >= POLL_INTERVAL;
        if self.last_poll.is_none_or(is_due) {
            self.ask_state(now, false);
        }
    }

    /// Ends it at the user's wish.
    pub fn cancel(&mut self, now: Timestamp) {
        if self.progress.stage.is_end() {
            return;
        }
        let text = match self.progress.stage {
            Stage::Installing | Stage::Rebooting => {
                "cancelled; the device was told to install before and may still do so"
            }
            _ => "cancelled",
        };
        self.finish(Stage::Cancelled, text.to_owned(), now);
    }

    /// Ends it because the job cannot go on.
    pub fn fail(&mut self, reason: &str, now: Timestamp) {
        if !self.progress.stage.is_end() {
            self.finish(Stage::Failed, reason.to_owned(), now);
        }
    }

    /// Adds an entry that comes from outside.
    pub fn note(&mut self, now: Timestamp, text: impl Into<String>) {
        let (stage, text) = (self.progress.stage, text.into());
        let text = match self.entries_left {
            _ if stage.is_end() => text,
            0 => return,
            1 => "further entries are left out, until the end".to_owned(),
            // E.g. a device that sleeps again and again.
            _ if text == self.last_note => return,
            _ => text,
        };
        self.last_note.clone_from(&text);
        self.entries_left = self.entries_left.saturating_sub(1);
        self.entries.push(Entry { at: now, stage, text });
    }

    fn wake(&mut self, now: Timestamp) {
        self.woken = Some(now);
        if self.is_asleep {
            self.is_asleep = false;
            self.progress.since = now;
            self.has_changed = true;
        }
    }

    fn sleeps(&self, flight: &Flight, now: Timestamp) -> bool {
        !self.is_push_under_way(flight) && now.saturating_since(flight.sent) >= SLEEP_AFTER
    }

    fn is_push_under_way(&self, flight: &Flight) -> bool {
        matches!(&flight.step, Step::WriteOpaque { .. }) && self.has_pushed()
    }

    fn has_pushed(&self) -> bool {
        self.progress.stage == Stage::Delivering && self.progress.bytes > 0
    }

    fn may_poll(&self, now: Timestamp) -> bool {
        self.last_poll.is_none_or(|last| now.saturating_since(last) >= POLL_SPACING)
    }

    fn fall_asleep(&mut self, flight: Flight, why: &str, now: Timestamp) {
        let Flight { step, sent } = flight;
        if matches!(&step, Step::WriteOpaque { .. }) && self.has_pushed() {
            return self.end_attempt("the connection was lost during the transfer", true, now);
        }
        // It woke while the step was given up: nobody will say so again.
        if self.woken.take().is_some_and(|woken| woken >= sent) {
            return self.repeat(Some(step), now);
        }
        self.note(now, format!("the device {why}: waits until it wakes"));
        self.is_asleep = true;
        self.has_changed = true;
        self.repeat(Some(step), now);
    }

    /// Puts a step back that may or may not have reached the device.
    fn repeat(&mut self, step: Option<Step>, now: Timestamp) {
        match step {
            // A second one could meet a device that has begun: look first.
            Some(Step::Execute(_)) => {
                self.is_checking = true;
                self.ask_state(now, false);
            }
            Some(step) => self.steps.push_front(step),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
