//! One device in the registry.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use coap::NotificationOrder;
use vocabulary::Timestamp;

use super::{RegistryLimits, Revision};
use crate::contact::{Contact, Moment, Security};
use crate::operation::Operation;
use crate::path::Path;
use crate::registration::{self, Links, Observation, Registration, Version};

/// A registered device.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) registration: Registration,
    /// When it was heard last; `None` if it sleeps or was not heard since the start.
    pub(crate) heard: Option<Instant>,
    pub(crate) watched: Vec<Watched>,
    /// Nothing for most devices, most of the time.
    waiting: Option<Box<Waiting>>,
    /// The request under way, and whose it is (`NSTART` is 1, RFC 7252 §4.7).
    pub(crate) flight: Option<Flight>,
    pub(crate) revision: Revision,
}

/// An observation with the newest notification of it.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) observation: Observation,
    pub(crate) newest: Option<NotificationOrder>,
    /// The device agreed; until then nothing of it is kept on disk.
    pub(crate) confirmed: bool,
}

impl Watched {
    /// Whether a newer notification came before one of this order, which is the newest otherwise.
    pub(crate) fn is_overtaken(&mut self, order: Option<NotificationOrder>) -> bool {
        let Some(order) = order else { return false };
        let is_overtaken = self.newest.is_some_and(|newest| !newest.is_followed_by(order));
        if !is_overtaken {
            self.newest = Some(order);
        }
        is_overtaken
    }
}

#[derive(Debug, Default)]
struct Waiting {
    commands: VecDeque<Queued>,
    /// Objects still to be read for passive reporting.
    passive: VecDeque<u16>,
}

/// A request under way: which server's, and which of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) seat: u32,
    pub(crate) serial: u64,
}

/// An operation that waits for its turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Queued {
    pub(crate) command: u64,
    pub(crate) operation: Operation,
    pub(crate) queued_at: Timestamp,
}

/// Where a request goes, and what the device understands.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) contact: Contact,
    pub(crate) version: Version,
    /// Without places: formats and root alone.
    pub(crate) links: Links,
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nobody's: nothing waits, something is under way, or the device sleeps.
    Nobody,
    /// Another server hears the device.
    Elsewhere(u32),
    /// An operation's.
    Command(Queued, Target),
    /// Passive reporting's, of this object.
    Passive(u16, Target),
    /// Nobody's any more: an operation waited for too long.
    Overdue(u64),
}

impl Entry {
    pub(crate) fn new(registration: Registration) -> Self {
        Self {
            registration,
            heard: None,
            watched: Vec::new(),
            waiting: None,
            flight: None,
            revision: Revision::default(),
        }
    }

    /// Takes over what survives a new registration. What was asked of the one before must not
    /// leave with another protection: a secret in clear, or a stranger's wish with a key.
    pub(crate) fn inherit(&mut self, before: Self) {
        if before.registration.security != self.registration.security {
            return;
        }
        self.flight = before.flight;
        self.waiting = before.waiting.filter(|waiting| !waiting.commands.is_empty());
        if let Some(waiting) = &mut self.waiting {
            waiting.passive.clear();
        }
    }

    /// The state to be saved.
    pub(crate) fn save(&mut self) -> Vec<u8> {
        self.revision.saves = self.revision.saves.wrapping_add(1);
        let confirmed: Vec<&Observation> = self.confirmed().collect();
        let link = self.registration.contact.map(|contact| contact.link);
        registration::encode(&self.registration, link, confirmed.into_iter())
    }

    pub(crate) fn confirmed(&self) -> impl Iterator<Item = &Observation> {
        self.watched.iter().filter(|watched| watched.confirmed).map(|watched| &watched.observation)
    }

    /// Whether the device listens now (LwM2M Core 1.1 §6.5).
    pub(crate) fn is_awake(&self, now: Instant, awake_for: Duration) -> bool {
        !self.registration.binding.is_queued()
            || self.heard.is_some_and(|at| now.saturating_duration_since(at) <= awake_for)
    }

    /// Whether it lasts and was made with a key.
    pub(crate) fn is_bound(&self, at: Timestamp) -> bool {
        self.registration.security != Security::NoSec && self.registration.expires_at > at
    }

    pub(crate) fn has_work(&self) -> bool {
        self.waiting.is_some()
    }

    pub(crate) fn commands(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter().flat_map(|waiting| &waiting.commands)
    }

    /// When the operation was queued that is next.
    pub(crate) fn queued_at(&self) -> Option<Timestamp> {
        self.commands().next().map(|queued| queued.queued_at)
    }

    /// Adds an operation; `Err` gives the limit that is reached.
    pub(crate) fn enqueue(&mut self, queued: Queued, limits: &RegistryLimits) -> Result<(), usize> {
        let waiting = self.waiting.get_or_insert_default();
        if waiting.commands.len() >= limits.queue_per_device_max {
            return Err(limits.queue_per_device_max);
        }
        waiting.commands.push_back(queued);
        Ok(())
    }

    /// Begins a round of passive reporting, unless one is under way.
    pub(crate) fn begin_passive(&mut self, objects: impl Iterator<Item = u16>) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let begins = waiting.passive.is_empty();
        if begins {
            waiting.passive.extend(objects);
        }
        self.drop_empty();
        begins
    }

    pub(crate) fn stop_passive(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.passive.clear();
        }
        self.drop_empty();
    }

    /// Takes what is to be sent next.
    pub(crate) fn take_turn(
        &mut self,
        flight: Flight,
        moment: Moment,
        (awake_for, queued_for): (Duration, Duration),
    ) -> Turn {
        let oldest = self.commands().next();
        if let Some(queued) =
            oldest.filter(|q| moment.at.saturating_since(q.queued_at) > queued_for)
        {
            let command = queued.command;
            self.pop_command();
            return Turn::Overdue(command);
        }
        let Some(contact) = self.registration.contact else { return Turn::Nobody };
        if self.flight.is_some() || !self.has_work() || !self.is_awake(moment.now, awake_for) {
            return Turn::Nobody;
        }
        if contact.seat != flight.seat {
            return Turn::Elsewhere(contact.seat);
        }
        self.flight = Some(flight);
        let target = self.target(contact);
        if let Some(queued) = self.pop_command() {
            return Turn::Command(queued, target);
        }
        let object = self.waiting.as_mut().and_then(|waiting| waiting.passive.pop_front());
        self.drop_empty();
        object.map_or(Turn::Nobody, |object| Turn::Passive(object, target))
    }

    pub(crate) fn target(&self, contact: Contact) -> Target {
        let links = self.registration.links.without_places();
        Target { contact, version: self.registration.version, links }
    }

    /// The observation with this token.
    pub(crate) fn watched_mut(&mut self, token: u64) -> Option<&mut Watched> {
        self.watched.iter_mut().find(|watched| watched.observation.token == token)
    }

    /// The observation of exactly these paths.
    pub(crate) fn watch_of(&self, paths: &[Path]) -> Option<&Observation> {
        let watched = self.watched.iter().find(|watched| *watched.observation.paths == *paths);
        watched.map(|watched| &watched.observation)
    }

    /// The observation that has this path: alone, or else among others.
    pub(crate) fn watch_with(&self, path: &Path) -> Option<&Observation> {
        self.watch_of(&[*path]).or_else(|| {
            let mut all = self.watched.iter().map(|watched| &watched.observation);
            all.find(|observation| observation.paths.contains(path))
        })
    }

    /// Forgets an observation; whether there was one.
    pub(crate) fn unwatch(&mut self, token: u64) -> bool {
        let before = self.watched.len();
        self.watched.retain(|watched| watched.observation.token != token);
        self.watched.len() != before
    }

    pub(crate) fn pop_command(&mut self) -> Option<Queued> {
        let queued = self.waiting.as_mut()?.commands.pop_front();
        self.drop_empty();
        queued
    }

    /// Removes an operation that waits; whether it did.
    pub(crate) fn withdraw(&mut self, command: u64) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        let before = waiting.commands.len();
        waiting.commands.retain(|queued| queued.command != command);
        let is_withdrawn = waiting.commands.len() != before;
        self.drop_empty();
        is_withdrawn
    }

    fn drop_empty(&mut self) {
        let is_empty = self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.commands.is_empty() && waiting.passive.is_empty());
        if is_empty {
            self.waiting = None;
        }
    }
}
