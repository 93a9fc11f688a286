//! The figures of a run with LwM2M that other runs do not have.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use coap::wire::Code;
use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

use crate::report::{Latency, Tally, histogram, latency, milliseconds, rate, row};

/// What was counted since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Lwm2mCounts {
    /// Bootstrap requests sent, each counted once.
    pub bootstraps_begun: u64,
    /// Bootstraps that the server finished with an account that can be used.
    pub bootstraps_finished: u64,
    /// Bootstraps that the server finished without one, refused or did not answer.
    pub bootstraps_failed: u64,
    /// Registrations sent, each counted once.
    pub registrations_begun: u64,
    /// Registrations acknowledged with 2.01.
    pub registrations: u64,
    /// Of these, those of devices that had registered before.
    pub reregistrations: u64,
    /// Updates sent, each counted once.
    pub updates_begun: u64,
    /// Updates acknowledged with 2.04.
    pub updates: u64,
    /// De-registrations acknowledged with 2.02.
    pub deregistrations: u64,
    /// The answers to all of these that were no success, by request and code; `no answer` where
    /// there was none.
    pub refused: BTreeMap<String, u64>,
    /// Requests of the server, by operation.
    pub requests: BTreeMap<String, u64>,
    /// The devices' answers to them, by code.
    pub answers: BTreeMap<String, u64>,
    /// Requests of the server that no device answered, because it was told to be mute.
    pub muted: u64,
    /// Observations that the server began.
    pub observations_begun: u64,
    /// Observations that ended: by the server, by silence, or because the device started again.
    pub observations_ended: u64,
    /// Confirmable notifications sent, each counted once.
    pub notifications_confirmable: u64,
    /// Of these, acknowledged.
    pub notifications_acknowledged: u64,
    /// Non-confirmable notifications sent.
    pub notifications_non_confirmable: u64,
    /// Datagrams to devices that were asleep.
    pub slept_through: u64,
    /// How often a device woke.
    pub wakes: u64,
    /// Datagrams lost on purpose.
    pub lost_on_purpose: u64,
    /// Firmware packages fetched.
    pub firmware_fetched: u64,
    /// Firmware packages that could not be fetched.
    pub firmware_failed: u64,
    /// Devices that were told to start again, or did so after a firmware update.
    pub restarts: u64,
    /// Datagrams that came to nothing: for nobody, or malformed.
    pub stray: u64,
    /// Messages that the devices repeated, of whatever kind.
    pub repeated: u64,
}

/// What a run with LwM2M reports besides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lwm2mReport {
    /// All that was counted.
    #[serde(flatten)]
    pub counts: Lwm2mCounts,
    /// Devices that registered before the traffic began.
    pub registered: u64,
    /// How long that took.
    pub registering_seconds: f64,
    /// Devices that registered, divided by these seconds.
    pub registered_per_second: f64,
    /// From when a device was due, bootstrap included, until its registration was acknowledged.
    pub registering_latency: Latency,
    /// Devices that are registered at the end, before they leave.
    pub registered_at_end: u64,
    /// Observations at the end.
    pub observations: u64,
    /// Of these, those of the measured value, which the traffic can notify of.
    pub observations_measured: u64,
    /// From when a registration, an update, a notification or a Send left until the next request of
    /// the server arrived at the device.
    pub command_latency: Latency,
    /// How many commands that counts.
    pub commands_timed: u64,
}

/// Counts what the devices do.
#[derive(Debug)]
pub(crate) struct Lwm2mTally {
    pub(crate) counts: Lwm2mCounts,
    requests: BTreeMap<&'static str, u64>,
    answers: BTreeMap<Code, u64>,
    refused: BTreeMap<(&'static str, Option<Code>), u64>,
    commands: Histogram<u64>,
    /// Registrations before the traffic, with their latencies.
    pub(crate) registering: Tally,
    registering_took: Duration,
}

impl Lwm2mTally {
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            counts: Lwm2mCounts::default(),
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            refused: BTreeMap::new(),
            commands: histogram()?,
            registering: Tally::new()?,
            registering_took: Duration::ZERO,
        })
    }

    pub(crate) fn note_request(&mut self, operation: &'static str, answered: Option<Code>) {
        *self.requests.entry(operation).or_default() += 1;
        match answered {
            Some(code) => *self.answers.entry(code).or_default() += 1,
            None => self.counts.muted += 1,
        }
    }

    /// Counts a request of a device that was answered with no success, or not at all.
    pub(crate) fn note_refused(&mut self, request: &'static str, code: Option<Code>) {
        *self.refused.entry((request, code)).or_default() += 1;
    }

    /// A request arrived so long after the device had spoken.
    pub(crate) fn note_command(&mut self, after: Duration) {
        self.commands.saturating_record(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }

    /// All have registered, or have been waited for long enough.
    pub(crate) fn end_registering(&mut self, took: Duration) {
        self.registering_took = took;
        self.registering.end_sending(took);
    }

    /// How it went, with the devices registered and the observations of now.
    pub(crate) fn report(&self, registered: u64, (all, measured): (u64, u64)) -> Lwm2mReport {
        let named =
            |code: &Option<Code>| code.map_or("no answer".to_owned(), |code| code.to_string());
        let refused = self.refused.iter();
        let counts = Lwm2mCounts {
            refused: refused
                .map(|((request, code), count)| (format!("{request} {}", named(code)), *count))
                .collect(),
            requests: self.requests.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            answers: self.answers.iter().map(|(code, n)| (code.to_string(), *n)).collect(),
            ..self.counts.clone()
        };
        let registering = self.registering.report(self.registering_took, 0, 0);
        let done = registering.counts.acknowledged;
        Lwm2mReport {
            registered: done,
            registering_seconds: self.registering_took.as_secs_f64(),
            registered_per_second: rate(done, self.registering_took),
            registering_latency: registering.latency,
            registered_at_end: registered,
            observations: all,
            observations_measured: measured,
            command_latency: latency(&self.commands),
            commands_timed: self.commands.len(),
            counts,
        }
    }
}

impl Lwm2mReport {
    /// Writes the rows of a table for people.
    pub(crate) fn write_rows(&self, output: &mut dyn Write) -> io::Result<()> {
        let Self { counts, .. } = self;
        row(output, "registered", self.registered.to_string())?;
        row(output, "registering seconds", format!("{:.2}", self.registering_seconds))?;
        row(output, "registered/s", format!("{:.0}", self.registered_per_second))?;
        row(output, "registering p50", milliseconds(self.registering_latency.p50_us))?;
        row(output, "registering p99", milliseconds(self.registering_latency.p99_us))?;
        row(output, "registering max", milliseconds(self.registering_latency.max_us))?;
        row(output, "registered at end", self.registered_at_end.to_string())?;
        if self.commands_timed > 0 {
            row(output, "commands timed", self.commands_timed.to_string())?;
            row(output, "to command p50", milliseconds(self.command_latency.p50_us))?;
            row(output, "to command p99", milliseconds(self.command_latency.p99_us))?;
        }
        for (name, count) in &counts.refused {
            row(output, name, count.to_string())?;
        }
        for (name, count) in &counts.requests {
            row(output, &format!("asked to {name}"), count.to_string())?;
        }
        for (code, count) in &counts.answers {
            row(output, &format!("answered {code}"), count.to_string())?;
        }
        let rare = [
            ("bootstraps begun", counts.bootstraps_begun),
            ("bootstraps finished", counts.bootstraps_finished),
            ("bootstraps failed", counts.bootstraps_failed),
            ("registered again", counts.reregistrations),
            ("updates begun", counts.updates_begun),
            ("updates", counts.updates),
            ("de-registrations", counts.deregistrations),
            ("muted", counts.muted),
            ("observations", self.observations),
            ("of the measured value", self.observations_measured),
            ("observations begun", counts.observations_begun),
            ("observations ended", counts.observations_ended),
            ("notified CON", counts.notifications_confirmable),
            ("acknowledged CON", counts.notifications_acknowledged),
            ("notified NON", counts.notifications_non_confirmable),
            ("slept through", counts.slept_through),
            ("wakes", counts.wakes),
            ("lost on purpose", counts.lost_on_purpose),
            ("firmware fetched", counts.firmware_fetched),
            ("firmware failed", counts.firmware_failed),
            ("restarts", counts.restarts),
            ("repeated", counts.repeated),
            ("stray", counts.stray),
        ];
        rare.into_iter()
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(name, count)| row(output, name, count.to_string()))
    }
}
