//! What passes between a forwarder and the store: what it has achieved, and what it is asked to
//! deliver again.
//!
//! A [`Progress`] is one transaction: the place in the log never moves past an event whose dead
//! letter is not there, nor past one whose filter is not.

use std::sync::Arc;

use vocabulary::{EventId, Protocol, Timestamp};

use crate::event_type::EventType;
use crate::position::Position;
use crate::sink::Failure;

/// What a forwarder has achieved since it saved last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// How far it has come in the log.
    pub position: Position,
    /// The filter of the second lane, once, with the first position that has that lane. Kept until
    /// a position without it is saved.
    pub filter: Option<Arc<[u8]>>,
    /// Whether anything was ever delivered, as far as this forwarder knows.
    pub delivered: bool,
    /// When the first message of a device was delivered, as far as this forwarder knows.
    pub first_delivery_at: Option<Timestamp>,
    /// Since when the endpoint has been down; `None` while it works.
    pub trouble: Option<Trouble>,
    /// Events that are given up: new, or again where a replay failed.
    pub dead: Vec<DeadLetter>,
    /// How far the replays have come that moved.
    pub replays: Vec<ReplayProgress>,
}

/// An endpoint that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Since when, with no success after it.
    pub since: Timestamp,
    /// How many of the notices about it have been written.
    pub told: u8,
}

/// An event that is given up, with what its customer needs to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the log.
    pub place: u64,
    /// Its id, which a replay keeps.
    pub id: EventId,
    /// The device that it is about: the number of its ICCID, 0 for none.
    pub device: u64,
    /// Its type.
    pub event_type: EventType,
    /// When the gateway accepted it.
    pub received_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
    /// Why its last attempt failed.
    pub failure: Failure,
    /// Attempts that counted.
    pub attempts: u32,
}

/// Events that are to be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayJob {
    /// Its id.
    pub id: String,
    /// Which events.
    pub source: ReplaySource,
    /// The version of the template to translate with, for each protocol that is named, in place of
    /// the one of the message's day.
    pub versions: Vec<(Protocol, u32)>,
    /// How far it has come; `None` at its beginning.
    pub position: Option<Position>,
}

/// Which events a replay delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaySource {
    /// Those of a part of the log that the integration subscribes to.
    Log {
        /// The first place.
        start: u64,
        /// The place after the last.
        end: u64,
        /// Only received at this moment or later.
        from: Option<Timestamp>,
        /// Only received before this moment.
        until: Option<Timestamp>,
        /// Only of these devices, the numbers of their ICCIDs; empty for all.
        devices: Vec<u64>,
    },
    /// Dead letters: the store knows which.
    DeadLetters,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayProgress {
    /// The replay.
    pub id: String,
    /// Its place.
    pub position: Position,
    /// Events delivered since the last save.
    pub delivered: u64,
    /// Events that failed, and became or stayed dead letters, since the last save.
    pub failed: u64,
    /// Events that are gone, cannot be read or cannot be translated, since the last save.
    pub passed_over: u64,
    /// Whether nothing is left to do.
    pub ended: bool,
    /// Places that were delivered since the last save: the store removes their dead letters.
    pub settled: Vec<u64>,
}

/// What the store kept of a forwarder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Where to go on.
    pub position: Position,
    /// The filter of the second lane, where the position has one.
    pub filter: Option<Arc<[u8]>>,
    /// Since when the endpoint has been down.
    pub trouble: Option<Trouble>,
    /// Whether anything was ever delivered.
    pub delivered: bool,
}
