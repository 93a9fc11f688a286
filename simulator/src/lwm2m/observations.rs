//! Who observes what of one device, and when the next notification is due (OMA LwM2M Core 1.1
//! §6.4.1).

use std::time::Duration;

use coap::ObservationId;

use crate::lwm2m::attributes::Attributes;
use crate::lwm2m::objects::{MEASURED, Objects};
use crate::lwm2m::requests::Watch;

/// One observation.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) id: ObservationId,
    pub(crate) watch: Watch,
    /// When the observer was told the last time.
    pub(crate) told_at: Duration,
    /// The measured value that it was told.
    pub(crate) told: f64,
    /// Whether there is something that it has not been told.
    pub(crate) is_stale: bool,
    /// Whether a confirmable notification waits for its acknowledgement.
    pub(crate) is_awaited: bool,
}

impl Observation {
    pub(crate) fn new(id: ObservationId, watch: Watch, now: Duration, told: f64) -> Self {
        Self { id, watch, told_at: now, told, is_stale: false, is_awaited: false }
    }

    /// Whether the measured value is part of it.
    pub(crate) fn is_measured(&self) -> bool {
        self.watch.paths.iter().any(|path| path.contains(&MEASURED))
    }

    /// The attributes that count. Of several paths the strictest periods.
    fn attributes(&self, objects: &Objects) -> Attributes {
        let all = self.watch.paths.iter().map(|path| objects.attributes(path));
        let strict = |one: Attributes, other: Attributes| Attributes {
            pmin: one.pmin.max(other.pmin),
            pmax: one.pmax.into_iter().chain(other.pmax).filter(|pmax| *pmax > 0).min(),
            ..one
        };
        all.reduce(strict).unwrap_or_default()
    }

    /// Another value has been measured: notes it if it is worth a notification.
    pub(crate) fn note_measured(&mut self, objects: &Objects) {
        if self.is_measured() {
            let new = objects.measured();
            let attributes = objects.attributes(&MEASURED);
            self.is_stale |= attributes.is_worth(self.told, new) && self.told != new;
        }
    }

    /// Values at `path` were written.
    pub(crate) fn note_written(&mut self, path: &lwm2m::Path) {
        let concerns = |one: &lwm2m::Path| one.contains(path) || path.contains(one);
        self.is_stale |= self.watch.paths.iter().any(concerns);
    }

    /// The earliest moment at which its minimum period lets a notification go.
    pub(crate) fn free_at(&self, objects: &Objects) -> Duration {
        self.told_at + self.attributes(objects).least_pause()
    }

    /// When the next notification is due, if nothing else happens.
    pub(crate) fn due(&self, objects: &Objects) -> Option<Duration> {
        if self.is_awaited {
            return None;
        }
        let attributes = self.attributes(objects);
        if self.is_stale {
            return Some(self.told_at + attributes.least_pause());
        }
        attributes.longest_pause().map(|pause| self.told_at + pause)
    }

    /// The observer is being told.
    pub(crate) fn note_told(&mut self, now: Duration, objects: &Objects) {
        self.told_at = now;
        self.told = objects.measured();
        self.is_stale = false;
    }
}
