//! What a forwarder has achieved, as it is kept: what passes between it and the store.

use std::sync::Arc;
use std::time::Duration;

use vocabulary::{EventId, Protocol, Timestamp};

use crate::event_type::EventType;
use crate::sink::Failure;
use crate::window::Position;

/// What a forwarder has achieved since its last save, and where it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Progress {
    /// How far it has come in the log.
    pub(crate) position: Position,
    /// Which devices have a backlog, where that is new.
    pub(crate) filter: Option<Arc<[u8]>>,
    /// Whether anything was delivered.
    pub(crate) delivered: bool,
    /// When the first message of a device was delivered, as far as this forwarder knows.
    pub(crate) first_delivery_at: Option<Timestamp>,
    /// Since when nothing was delivered although it was tried.
    pub(crate) trouble: Option<Trouble>,
    /// What has become a dead letter.
    pub(crate) dead: Vec<DeadLetter>,
    /// How far replays have come.
    pub(crate) replays: Vec<ReplayProgress>,
}

/// What was saved.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Saved {
    /// How far it has come in the log; `None` before the first run.
    pub(crate) position: Option<Position>,
    /// Which devices had a backlog when a lane for the others was opened.
    pub(crate) filter: Option<Arc<[u8]>>,
    /// Since when nothing was delivered although it was tried.
    pub(crate) trouble: Option<Trouble>,
    /// Whether anything was delivered before.
    pub(crate) delivered: bool,
}

/// An endpoint that takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Since when, for people: the wall clock may jump.
    pub(crate) since: Timestamp,
    /// For how long, as far as the gateway ran.
    pub(crate) lasted: Duration,
    /// How many of the notices about it have been written.
    pub(crate) told: u8,
}

/// An event that will not be tried again unless somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// Its place in the log.
    pub(crate) place: u64,
    /// Its id.
    pub(crate) id: EventId,
    /// The device that it is about; 0 for none.
    pub(crate) device: u64,
    /// Its type.
    pub(crate) event_type: EventType,
    /// When the gateway accepted it.
    pub(crate) received_at: Timestamp,
    /// When it was given up.
    pub(crate) died_at: Timestamp,
    /// Why the last attempt failed.
    pub(crate) failure: Failure,
    /// How often it was tried.
    pub(crate) attempts: u32,
}

/// What is to be delivered again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReplayJob {
    /// Its id.
    pub(crate) id: String,
    /// Which events.
    pub(crate) source: ReplaySource,
    /// The versions of templates that take the place of those of the messages' day.
    pub(crate) versions: Vec<(Protocol, u32)>,
    /// How far it has come; `None` before it began.
    pub(crate) position: Option<Position>,
}

/// Which events are to be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReplaySource {
    /// A part of the log.
    Log {
        /// The first place.
        start: u64,
        /// The place after the last.
        end: u64,
        /// Only what was received at this moment or later.
        from: Option<Timestamp>,
        /// Only what was received before this moment.
        until: Option<Timestamp>,
        /// Only of these devices; all where there are none.
        devices: Vec<u64>,
    },
    /// The dead letters that were chosen for it: the store knows them.
    DeadLetters,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ReplayProgress {
    /// Which replay.
    pub(crate) id: String,
    /// How far it has come.
    pub(crate) position: Position,
    /// Events delivered since the last save.
    pub(crate) delivered: u64,
    /// Events that became dead letters (again) since the last save.
    pub(crate) failed: u64,
    /// Events that there was nothing to deliver of since the last save: expired, unreadable, or not
    /// translatable.
    pub(crate) passed_over: u64,
    /// Whether that was all.
    pub(crate) ended: bool,
    /// Places delivered since the last save: they are dead letters no more.
    pub(crate) settled: Vec<u64>,
}
