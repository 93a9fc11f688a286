//! What is asked in each stage, and what follows from the answers.

use vocabulary::Timestamp;

use super::{DeviceUpdate, Found, Stage};
use crate::device::progress::Delivery;
use crate::plan::Method;
use crate::step::{Code, Step, Value, path};

/// Characters of a version that are kept.
const VERSION_CHARS_MAX: usize = 128;
/// By an empty URI, then by an empty package.
const CLEAR_ROUNDS: u32 = 2;
/// State 3: the device installs.
pub(super) const UPDATING: i64 = 3;

impl DeviceUpdate {
    pub(super) fn enter(&mut self, stage: Stage, now: Timestamp) {
        self.progress.stage = stage;
        self.progress.since = now;
        self.has_changed = true;
        self.is_checking = false;
        self.refusal = None;
        self.in_flight = None;
        self.steps.clear();
        match stage {
            Stage::Probing => {
                self.found = Found::default();
                self.clear_round = 0;
                let reads = [path::PROTOCOLS, path::DELIVERY, path::VERSION];
                self.steps.extend(reads.map(Step::Read));
                self.ask_state(now, false);
            }
            Stage::Clearing => self.clear(now),
            Stage::Observing => {
                self.steps.extend([path::STATE, path::RESULT].map(Step::Observe));
            }
            Stage::Delivering => self.deliver(now),
            Stage::Installing => {
                self.note(now, "the device has the image and is told to install it");
                self.steps.push_back(Step::Execute(path::UPDATE));
            }
            Stage::Downloading => self.last_poll = None,
            Stage::Rebooting => self.last_poll = Some(now),
            Stage::Pausing | Stage::Succeeded | Stage::Failed | Stage::Cancelled => {}
        }
    }

    /// Asks how the device is; `observe`: and to be told of changes.
    pub(super) fn ask_state(&mut self, now: Timestamp, observe: bool) {
        self.last_poll = Some(now);
        if observe && self.progress.stage != Stage::Probing {
            self.steps.extend([path::STATE, path::RESULT].map(Step::Observe));
        }
        // The state first: a result that belongs to it is there by then.
        self.steps.extend([path::STATE, path::RESULT].map(Step::Read));
        if matches!(self.progress.stage, Stage::Installing | Stage::Rebooting) {
            self.steps.push_back(Step::Read(path::VERSION));
        }
    }

    pub(super) fn absorb_answer(&mut self, step: &Step, value: Option<&Value>, now: Timestamp) {
        match (step, value) {
            (Step::Read(path) | Step::Observe(path), Some(value)) => {
                self.absorb_value(path, value, now);
            }
            (Step::Read(path), None) => self.forget(path),
            _ => {}
        }
    }

    pub(super) fn absorb_refusal(&mut self, step: &Step, code: Option<Code>, reason: &str) {
        match step {
            Step::Read(path) => {
                self.forget(path);
                if *path == path::STATE {
                    self.found.no_state = code;
                }
            }
            Step::Observe(_) => self.found.unobservable = true,
            Step::CancelObserve(_) => {}
            other => {
                let verb =
                    if matches!(other, Step::Execute(_)) { "execute of" } else { "write to" };
                self.refusal = Some(format!("{verb} {} was refused: {reason}", other.path()));
            }
        }
    }

    /// A resource that was asked for and not found holds nothing that was found before.
    fn forget(&mut self, path: &str) {
        match path {
            path::STATE => self.found.state = None,
            path::RESULT => self.found.result = None,
            path::VERSION => self.found.version = None,
            _ => {}
        }
    }

    pub(super) fn absorb_value(&mut self, path: &str, value: &Value, now: Timestamp) {
        match path {
            path::STATE => {
                let Some(state) = value.as_number() else { return };
                if self.found.state != Some(state) {
                    self.progress.since = now;
                }
                self.found.state = Some(state);
                let is_ours = matches!(
                    self.progress.stage,
                    Stage::Delivering | Stage::Downloading | Stage::Installing | Stage::Rebooting
                );
                if is_ours && (1..=UPDATING).contains(&state) && !self.progress.moved {
                    self.progress.moved = true;
                    self.has_changed = true;
                }
            }
            path::RESULT => {
                let Some(result) = value.as_number() else { return };
                self.found.result = Some(result);
                let is_begun = self.progress.stage != Stage::Probing;
                if is_begun && result == 0 && !self.progress.zero_seen {
                    self.progress.zero_seen = true;
                    self.has_changed = true;
                }
            }
            path::VERSION => {
                if let Value::Text(text) = value {
                    self.found.version = Some(text.chars().take(VERSION_CHARS_MAX).collect());
                }
            }
            path::PROTOCOLS => self.found.protocols = Some(value.numbers()),
            path::DELIVERY => self.found.delivery = value.as_number(),
            _ => {}
        }
    }

    /// After an answer: to the next stage where this one has nothing more to ask.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        if self.progress.stage.is_end() || !self.steps.is_empty() {
            return;
        }
        match self.progress.stage {
            Stage::Probing => self.after_probe(now),
            Stage::Clearing => self.after_clear(now),
            Stage::Observing => {
                if self.found.unobservable {
                    self.note(now, "the device cannot be observed and is asked now and then");
                }
                self.enter(Stage::Delivering, now);
            }
            Stage::Delivering if self.is_checking => self.after_check(now),
            Stage::Delivering => self.after_delivery(now),
            Stage::Installing if !self.is_checking => self.after_execute(now),
            _ => self.assess(now, true),
        }
    }

    fn after_probe(&mut self, now: Timestamp) {
        if let Some(code) = self.found.no_state {
            let is_permanent = code == Code::NOT_FOUND;
            let text = format!("the device has no firmware state: /5/0/3 answered {code}");
            return self.end_attempt(&text, !is_permanent, now);
        }
        let Some(state) = self.found.state else {
            return self.end_attempt("the firmware state cannot be read", true, now);
        };
        if self.progress.version_before.is_none() {
            self.progress.version_before = self.found.version.clone();
        }
        let version = self.found.version.as_deref().unwrap_or("unknown");
        let result = self.found.result.unwrap_or(0);
        let text = format!("version {version}, state {}, result {result}", state_text(state));
        if state == UPDATING {
            // It cannot be interrupted (E.6.1); ticks ask again until it ends.
            return self.note(now, format!("{text}: waits for an installation that is under way"));
        }
        self.note(now, text);
        match self.choose() {
            Ok(delivery) => self.progress.delivery = Some(delivery),
            Err(reason) => return self.end_attempt(&reason, false, now),
        }
        if state != 0 || result != 0 {
            self.enter(Stage::Clearing, now);
        } else {
            self.begin_delivery(0, now);
        }
    }

    /// How the image goes to the device, by what it said that it can.
    fn choose(&self) -> Result<Delivery, String> {
        // Both resources are optional for devices that do the default: CoAP, and either way.
        let protocols = self.found.protocols.clone().unwrap_or_else(|| vec![0]);
        let (pulls, takes_push) = match self.found.delivery {
            Some(0) => (true, false),
            Some(1) => (false, true),
            _ => (true, true),
        };
        let secure = protocols.contains(&1) && self.plan.coaps_uri.is_some();
        let plain = protocols.contains(&0) && self.plan.coap_uri.is_some();
        let pull = match (secure, plain) {
            (true, _) => Some(Delivery::PullSecure),
            (false, true) => Some(Delivery::Pull),
            (false, false) => None,
        };
        let pull = pull.filter(|_| pulls && !self.progress.push_only);
        match (self.plan.method, pull) {
            (Method::Auto | Method::Pull, Some(pull)) => Ok(pull),
            (Method::Auto | Method::Push, _) if takes_push => Ok(Delivery::Push),
            (Method::Push, _) => Err("the device takes images by pull only".to_owned()),
            (_, _) if !pulls => Err("the device takes images by push only".to_owned()),
            (_, _) => Err(format!(
                "the device fetches images by protocols {protocols:?} (0 CoAP, 1 CoAPS), of which \
                 the gateway offers none"
            )),
        }
    }

    /// Writing an empty URI, or an empty package, resets the device (E.6, resources 0 and 1).
    fn clear(&mut self, now: Timestamp) {
        let by_package = self.clear_round > 0;
        self.clear_round += 1;
        self.steps.push_back(if by_package {
            Step::WriteOpaque { path: path::PACKAGE, image: [0].into() }
        } else {
            Step::WriteText { path: path::PACKAGE_URI, value: String::new() }
        });
        self.note(now, if by_package { "resets by an empty package" } else { "resets" });
        self.ask_state(now, false);
    }

    fn after_clear(&mut self, now: Timestamp) {
        let is_idle = self.found.state == Some(0);
        let result = self.found.result.unwrap_or(0);
        // A result that does not go away is known to be an old one.
        if is_idle && (result == 0 || self.clear_round >= CLEAR_ROUNDS) {
            return self.begin_delivery(result, now);
        }
        if self.clear_round < CLEAR_ROUNDS {
            return self.clear(now);
        }
        let state = self.found.state.map_or("unknown", state_text);
        let text = format!("the device does not return to idle, its state is {state}");
        self.end_attempt(&text, true, now);
    }

    fn begin_delivery(&mut self, stale_result: i64, now: Timestamp) {
        self.progress.stale_result = stale_result;
        self.progress.zero_seen = stale_result == 0;
        self.progress.moved = false;
        self.progress.bytes = 0;
        self.enter(Stage::Observing, now);
    }

    fn deliver(&mut self, now: Timestamp) {
        let uri = match self.progress.delivery {
            Some(Delivery::PullSecure) => self.plan.coaps_uri.clone(),
            Some(Delivery::Pull) => self.plan.coap_uri.clone(),
            Some(Delivery::Push) | None => None,
        };
        if let Some(value) = uri {
            self.note(now, format!("the device is told to fetch {value}"));
            self.steps.push_back(Step::WriteText { path: path::PACKAGE_URI, value });
        } else {
            let image = std::sync::Arc::clone(&self.plan.image);
            self.note(now, format!("{} bytes are written to the device", image.len()));
            self.steps.push_back(Step::WriteOpaque { path: path::PACKAGE, image });
        }
    }

    fn after_delivery(&mut self, now: Timestamp) {
        match self.refusal.take() {
            Some(reason) => self.end_attempt(&reason, true, now),
            None => {
                let is_push = self.progress.delivery == Some(Delivery::Push);
                self.enter(Stage::Downloading, now);
                self.assess(now, false);
                if is_push {
                    self.progress.bytes = self.plan.image.len() as u64;
                    // All of it is there, so the device must be ready now.
                    self.ask_soon(now);
                }
            }
        }
    }

    /// After an interruption nobody knows whether the image or its address was written.
    fn after_check(&mut self, now: Timestamp) {
        // The device was idle before: what it does now, it does for us. But half an image that
        // was written to it is of no use.
        let is_half = self.progress.delivery == Some(Delivery::Push) && self.found.state == Some(1);
        if self.progress.moved && self.found.state != Some(0) && !is_half {
            self.enter(Stage::Downloading, now);
            self.assess(now, true);
        } else {
            self.enter(Stage::Probing, now);
        }
    }

    fn after_execute(&mut self, now: Timestamp) {
        if let Some(reason) = &self.refusal {
            // It may be at it already, told by a request whose answer was lost.
            self.note(now, format!("{reason}; looks how the device is"));
            self.is_checking = true;
            return self.ask_state(now, false);
        }
        self.note(now, "the device installs and will start anew");
        self.enter(Stage::Rebooting, now);
        self.assess(now, false);
    }
}

/// A state in words.
pub(super) fn state_text(state: i64) -> &'static str {
    match state {
        0 => "idle",
        1 => "downloading",
        2 => "downloaded",
        UPDATING => "updating",
        _ => "none that LwM2M defines",
    }
}
