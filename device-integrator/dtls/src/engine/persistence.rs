//! Sessions for the owner's storage, and back after a restart.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::ffi;
use crate::snapshot::{SEQUENCE_MAX, Saved, fold, jump};

use super::queues::Queue;
use super::sessions::{Session, State};
use super::{Engine, SessionId};

/// What has to be written down.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A session is new or has changed.
    Saved {
        /// Which.
        session: SessionId,
        /// At most 350 bytes. They hold keys: the owner encrypts and authenticates them.
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A session that was saved is no more.
    Gone {
        /// Which.
        session: SessionId,
    },
}

/// Why saved bytes are no session any more.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ImportError {
    /// Not what this version writes.
    #[error("{bytes} bytes are no saved session")]
    Format {
        /// Bytes given.
        bytes: usize,
    },
    /// Saved in this or a later start of the program: sequence numbers would repeat.
    #[error("session saved in generation {saved}, must be before generation {current}")]
    Generation {
        /// When it was saved.
        saved: u32,
        /// [`Config::generation`](crate::Config::generation).
        current: u32,
    },
    /// Its sequence numbers are used up.
    #[error("no sequence numbers left after {generations} generations")]
    Exhausted {
        /// How many starts it survived since it was saved.
        generations: u32,
    },
    /// The session is here already, or a newer one has its address.
    #[error("session {session} or its address {peer} is in use")]
    InUse {
        /// Which.
        session: SessionId,
        /// Where it was.
        peer: SocketAddr,
    },
    /// There are as many sessions as allowed.
    #[error("{sessions} sessions, as many as allowed")]
    Full {
        /// How many there are.
        sessions: usize,
    },
}

impl Engine {
    /// What changed since the last call, at most `limit` entries; empty: everything is told. Only
    /// with [`Config::persistent`](crate::Config::persistent). A record makes a change, so call
    /// it at intervals, for example each 2 s: a session that was told and sends up to
    /// [`SEQUENCE_JUMP`](crate::SEQUENCE_JUMP) records more is still safe to import.
    ///
    /// What is lost by a crash: sessions established since the last call (their devices make a new
    /// handshake), moves to another address without a connection ID, and which records have come
    /// since (a copy of one of them is taken for new: the messages above have ids of their own).
    pub fn changes(&mut self, limit: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < limit {
            if let Some(session) = self.gone.pop_front() {
                changes.push(Change::Gone { session });
            } else if let Some(session) = self.changed.pop_front() {
                if let Some(entry) = self.sessions.get_mut(&session) {
                    entry.is_changed = false;
                }
                let bytes = self.export(session);
                changes.extend(bytes.map(|bytes| Change::Saved { session, bytes }));
            } else {
                break;
            }
        }
        changes
    }

    /// How many entries [`Engine::changes`] has to tell.
    pub fn changed(&self) -> usize {
        self.gone.len() + self.changed.len()
    }

    /// One session as bytes for [`Engine::import`]; it goes on. The bytes hold keys.
    pub fn export(&mut self, session: SessionId) -> Option<Zeroizing<Vec<u8>>> {
        let generation = self.shared.generation;
        let entry = self.sessions.get_mut(&session)?;
        let snapshot = entry.snapshot(session)?;
        entry.saved_sequence = Some(snapshot.out_counter & SEQUENCE_MAX);
        let saved = Saved {
            id: session.0,
            generation,
            peer: entry.peer,
            random: entry.random,
            identity: Arc::clone(&entry.identity),
            revision: entry.revision,
            snapshot,
        };
        Some(saved.encode())
    }

    /// Takes a session that an earlier start exported; asleep, until a record comes. No event
    /// tells of it: ask [`Engine::identity`].
    ///
    /// The bytes must be authentic, by the owner's encryption: whoever can write them is any
    /// device.
    pub fn import(&mut self, bytes: &[u8]) -> Result<SessionId, ImportError> {
        let saved = Saved::decode(bytes).ok_or(ImportError::Format { bytes: bytes.len() })?;
        let (session, current) = (SessionId(saved.id), self.shared.generation);
        if saved.generation >= current {
            return Err(ImportError::Generation { saved: saved.generation, current });
        }
        let generations = current - saved.generation;
        let sessions = self.sessions.len();
        if sessions >= self.config.limits.sessions_max {
            return Err(ImportError::Full { sessions });
        }
        let peer = saved.peer;
        let is_used = self.sessions.contains_key(&session) || self.pendings.contains_key(&session);
        if is_used || self.by_peer.contains_key(&peer) {
            return Err(ImportError::InUse { session, peer });
        }
        let mut snapshot = saved.snapshot;
        snapshot.out_counter = jump(snapshot.out_counter, generations)
            .ok_or(ImportError::Exhausted { generations })?;
        // What the library would refuse when a record comes is refused now.
        ffi::Session::restore(&self.context, &snapshot)
            .ok_or(ImportError::Format { bytes: bytes.len() })?;
        let entry = Session {
            peer,
            identity: saved.identity,
            revision: saved.revision,
            state: State::Asleep(fold(&snapshot)),
            random: saved.random,
            active_ms: self.shared.now_ms,
            queue: Queue::Asleep,
            queued_ms: self.shared.now_ms,
            in_a_row: 0,
            saved_sequence: Some(snapshot.out_counter & SEQUENCE_MAX),
            has_cid: snapshot.in_cid_length > 0,
            suspect_until_ms: 0,
            is_changed: false,
        };
        self.insert_session(session, entry);
        self.shared.counters.imported += 1;
        Ok(session)
    }

    pub(super) fn mark_changed(&mut self, id: SessionId) {
        if !self.config.persistent {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_changed) {
            session.is_changed = true;
            self.changed.push_back(id);
        }
    }
}
