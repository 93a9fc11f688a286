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
        /// At most 342 bytes. They hold keys: the owner encrypts and authenticates them.
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
    /// The session is here already, or another one without a connection ID has its address.
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
    /// handshake), moves to another address, and which records have come since. A copy of one of
    /// those is taken for new, once: the messages above have ids of their own.
    ///
    /// Such a copy also moves a session with a connection ID to where the copy came from, until
    /// its device speaks again. Not to move would be worse: a copy looks the same as the first
    /// record of a device that got a new address while the program was down, as most behind
    /// network address translation do, and whose answer must go to that one (RFC 9146 §6 asks for
    /// a record that is authentic and newer than all before, and both are). Whoever copies gains
    /// records that it cannot read. After an end in order, with all changes saved, no copy is
    /// taken.
    pub fn changes(&mut self, limit: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < limit {
            if let Some(session) = self.gone.pop_front() {
                changes.push(Change::Gone { session });
            } else if let Some((_, session)) = self.changed.pop_first() {
                if let Some(entry) = self.sessions.get_mut(&session) {
                    entry.changed_at = None;
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
        let (peer, has_cid) = (saved.peer, saved.snapshot.in_cid_length > 0);
        let is_used = self.sessions.contains_key(&session) || self.pendings.contains_key(&session);
        // A session with a connection ID is found without its address.
        let is_taken = !has_cid && self.session_at(peer).is_some_and(|other| !other.has_cid);
        if is_used || is_taken {
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
            hello: None,
            active_ms: self.shared.now_ms,
            queue: Queue::Asleep,
            queued_ms: self.shared.now_ms,
            in_a_row: 0,
            saved_sequence: Some(snapshot.out_counter & SEQUENCE_MAX),
            has_cid,
            suspect_until_ms: 0,
            changed_at: None,
        };
        if !has_cid {
            self.by_peer.insert(peer, session);
        } else {
            self.by_peer.entry(peer).or_insert(session);
        }
        self.insert_session(session, entry);
        self.shared.counters.imported += 1;
        Ok(session)
    }

    pub(super) fn mark_changed(&mut self, id: SessionId) {
        if !self.config.persistent {
            return;
        }
        let is_saved = |session: &&mut Session| session.changed_at.is_none();
        if let Some(session) = self.sessions.get_mut(&id).filter(is_saved) {
            self.changes += 1;
            session.changed_at = Some(self.changes);
            self.changed.insert((self.changes, id));
        }
    }
}
