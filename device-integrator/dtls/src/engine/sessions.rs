//! Established sessions: records, sleep, address changes, ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::ffi::{self, Io, Snapshot};
use crate::snapshot::{fold, unfold};
use crate::{RECORD_BYTES_MAX, SEQUENCE_JUMP};

use super::host::{Call, Facts, Fate, drive};
use super::queues::Queue;
use super::{CloseCause, Engine, Event, Output, SendError, SessionId, millis};

/// Datagrams in a row after which a session counts as busy: more than a device with one message
/// to tell sends, its copy included.
const BUSY_IN_A_ROW: u8 = 3;

/// For how long a session is suspect after a record that woke it in vain. To use up the wakes of
/// the others, forgeries would have to reach more sessions in this time than may wake in it.
const SUSPECT_MS: u64 = 60_000;

/// A session that has just been established.
pub(super) struct Arrived {
    pub(super) peer: SocketAddr,
    pub(super) session: ffi::Session,
    pub(super) identity: Arc<[u8]>,
    pub(super) revision: u64,
    pub(super) is_resumed: bool,
    pub(super) random: u64,
}

pub(super) struct Session {
    /// Where the newest authentic record came from.
    pub(super) peer: SocketAddr,
    pub(super) identity: Arc<[u8]>,
    /// Of the key.
    pub(super) revision: u64,
    pub(super) state: State,
    /// Of the ClientHello that began it, and until when a copy of that one may come.
    pub(super) hello: Option<(u64, u64)>,
    /// When it sent or received last.
    pub(super) active_ms: u64,
    /// Its place in a queue.
    pub(super) queue: Queue,
    pub(super) queued_ms: u64,
    /// Datagrams that came, each soon after the one before.
    pub(super) in_a_row: u8,
    /// The sequence number up to which the saved bytes are good, without a jump.
    pub(super) saved_sequence: Option<u64>,
    pub(super) has_cid: bool,
    /// Until when it counts as one that forgeries are sent to.
    pub(super) suspect_until_ms: u64,
    /// Its place among those that have to be saved.
    pub(super) changed_at: Option<u64>,
}

/// What a datagram was to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It had an authentic and new record.
    Taken,
    /// It had none.
    Discarded,
    /// Nobody looked: too many sleeping sessions were woken.
    Shed,
}

pub(super) enum State {
    Awake(ffi::Session),
    Asleep(Zeroizing<Box<[u8]>>),
}

impl Session {
    /// The session as it is now.
    pub(super) fn snapshot(&self, id: SessionId) -> Option<Snapshot> {
        match &self.state {
            State::Awake(session) => session.save(),
            State::Asleep(bytes) => unfold(bytes, id.to_cid()),
        }
    }
}

impl Engine {
    /// Sends bytes to the peer of a session, in one record.
    pub fn send(&mut self, session: SessionId, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.is_empty() || bytes.len() > RECORD_BYTES_MAX {
            return Err(SendError::Length { bytes: bytes.len() });
        }
        let no_session = SendError::NoSession { session };
        if !self.sessions.contains_key(&session) || !self.wake(session) {
            return Err(no_session);
        }
        let now_ms = self.shared.now_ms;
        let entry = self.sessions.get_mut(&session).ok_or(no_session)?;
        let State::Awake(awake) = &mut entry.state else { return Err(no_session) };
        let records = entry.saved_sequence.map_or(0, |saved| awake.out_sequence() - saved);
        // One record may be an alert of the library's own.
        if records + 1 >= SEQUENCE_JUMP {
            return Err(SendError::Unsaved { records });
        }
        entry.active_ms = now_ms;
        let mut facts = Facts::default();
        let mut call = Call::new(&mut self.shared, entry.peer, &mut facts);
        let mut io = Io { datagram: &[], host: &mut call };
        let result = awake.write(&mut io, now_ms, bytes);
        self.mark_changed(session);
        result.map_err(|code| SendError::Library { code })
    }

    /// Ends a session; its peer is told.
    pub fn close(&mut self, session: SessionId) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        self.say_goodbye(session);
        self.remove_session(session, CloseCause::Owner);
    }

    /// Who has a session.
    pub fn identity(&self, session: SessionId) -> Option<&[u8]> {
        self.sessions.get(&session).map(|session| &session.identity[..])
    }

    /// With which key a session began, see [`Psk::with_revision`](crate::Psk::with_revision). The
    /// owner ends sessions whose key was replaced.
    pub fn revision(&self, session: SessionId) -> Option<u64> {
        self.sessions.get(&session).map(|session| session.revision)
    }

    /// Where the newest authentic record of a session came from.
    pub fn peer(&self, session: SessionId) -> Option<SocketAddr> {
        self.sessions.get(&session).map(|session| session.peer)
    }

    pub(super) fn add_session(&mut self, id: SessionId, arrived: Arrived) {
        let has_cid = arrived.session.save().is_some_and(|snapshot| snapshot.in_cid_length > 0);
        let counters = &mut self.shared.counters;
        counters.established += 1;
        counters.resumed += u64::from(arrived.is_resumed);
        counters.established_with_cid += u64::from(has_cid);
        self.shared.outputs.push_back(Output::Event(Event::Established {
            session: id,
            peer: arrived.peer,
            identity: Arc::clone(&arrived.identity),
            resumed: arrived.is_resumed,
            cid: has_cid,
        }));
        let copies_until_ms = self.shared.now_ms + millis(self.config.limits.handshake);
        self.claim_address(id, arrived.peer, &arrived.identity);
        self.insert_session(
            id,
            Session {
                peer: arrived.peer,
                identity: arrived.identity,
                revision: arrived.revision,
                state: State::Awake(arrived.session),
                hello: Some((arrived.random, copies_until_ms)),
                active_ms: self.shared.now_ms,
                queue: Queue::Fresh,
                queued_ms: self.shared.now_ms,
                in_a_row: 0,
                saved_sequence: None,
                has_cid,
                suspect_until_ms: 0,
                changed_at: None,
            },
        );
        self.mark_changed(id);
    }

    /// The address of a session that has just been established, and whoever has to leave it.
    fn claim_address(&mut self, id: SessionId, peer: SocketAddr, identity: &[u8]) {
        if let Some(old) = self.by_peer.get(&peer).copied() {
            // RFC 6347 §4.2.8: the new one is established, so the old one goes. Another device
            // with a connection ID has only moved away from this address.
            let stays = self
                .session_at(peer)
                .is_some_and(|old| old.has_cid && old.identity[..] != *identity);
            if !stays {
                self.remove_session(old, CloseCause::Replaced);
            }
        }
        self.by_peer.insert(peer, id);
    }

    /// The session that an address stands for.
    pub(super) fn session_at(&self, peer: SocketAddr) -> Option<&Session> {
        self.by_peer.get(&peer).and_then(|id| self.sessions.get(id))
    }

    /// Into the maps but that of addresses, and whatever has to leave for it.
    pub(super) fn insert_session(&mut self, id: SessionId, session: Session) {
        let (queue, queued_ms) = (session.queue, session.queued_ms);
        if self.sessions.len() >= self.config.limits.sessions_max {
            self.forget_longest_idle();
        }
        let identity_hash = self.hash_identity(&session.identity);
        self.sessions.insert(id, session);
        let same = self.by_identity.entry(identity_hash).or_default();
        same.push(id);
        // With a limit of 0 a session would remove itself, with its place in a queue left behind.
        let surplus = same.len() > self.config.limits.sessions_per_identity_max.max(1);
        if let Some(oldest) = surplus.then(|| same.first().copied()).flatten() {
            self.remove_session(oldest, CloseCause::Replaced);
        }
        if queue == Queue::Fresh {
            self.make_room_awake();
        }
        self.queues.insert(queue, (queued_ms, id));
    }

    /// Puts sessions to sleep, until one more may be awake.
    fn make_room_awake(&mut self) {
        let limits = &self.config.limits;
        let longest_idle = if self.queues.fresh() >= limits.fresh_max {
            self.longest_idle(Queue::Fresh)
        } else if self.queues.awake() >= limits.awake_max {
            self.longest_idle(Queue::Fresh).or_else(|| self.longest_idle(Queue::Busy))
        } else {
            None
        };
        if let Some(id) = longest_idle {
            self.put_to_sleep(id);
        }
    }

    /// Whether a ClientHello is a copy, late on its way, of the one that began the session. After
    /// a while it is none: a device without a source of randomness begins each time with the same.
    pub(super) fn is_hello_of_session(&self, peer: SocketAddr, random: u64) -> bool {
        let hello = self.session_at(peer).and_then(|session| session.hello);
        hello.is_some_and(|(of, until_ms)| of == random && self.shared.now_ms < until_ms)
    }

    pub(super) fn holds_flight(&self, id: SessionId) -> bool {
        match self.sessions.get(&id).map(|session| &session.state) {
            Some(State::Awake(session)) => session.holds_flight(),
            _ => false,
        }
    }

    pub(super) fn feed_session(&mut self, id: SessionId, peer: SocketAddr, datagram: &[u8]) {
        match self.try_session(id, peer, datagram) {
            Tried::Taken => {}
            Tried::Discarded => self.shared.counters.records_discarded += 1,
            Tried::Shed => self.shared.counters.wakes_shed += 1,
        }
    }

    pub(super) fn try_session(
        &mut self,
        id: SessionId,
        peer: SocketAddr,
        datagram: &[u8],
    ) -> Tried {
        let now_ms = self.shared.now_ms;
        let Some(session) = self.sessions.get_mut(&id) else { return Tried::Discarded };
        let mut woken = None;
        if let State::Asleep(bytes) = &session.state {
            let is_suspect = now_ms < session.suspect_until_ms;
            let budget = if is_suspect { &mut self.suspect_budget } else { &mut self.wake_budget };
            if !budget.take(now_ms) {
                return Tried::Shed;
            }
            let snapshot = unfold(bytes, id.to_cid());
            woken = snapshot.and_then(|snapshot| ffi::Session::restore(&self.context, &snapshot));
        }
        let context = match (&mut woken, &mut session.state) {
            (Some(woken), _) | (None, State::Awake(woken)) => woken,
            (None, State::Asleep(_)) => return Tried::Discarded,
        };
        let before = context.window();
        let mut received = VecDeque::new();
        let mut facts = Facts::default();
        let mut call = Call::new(&mut self.shared, session.peer, &mut facts);
        let fate = drive(context, &mut call, datagram, &mut self.scratch, &mut received);
        let after = context.window();
        if before == after {
            // A spoofed record wakes nobody; and it cannot end a session either.
            if woken.is_some() {
                session.suspect_until_ms = now_ms.saturating_add(SUSPECT_MS);
            } else if fate != Fate::Goes {
                self.put_to_sleep(id);
            }
            return Tried::Discarded;
        }
        if let Some(woken) = woken {
            session.state = State::Awake(woken);
            self.note_woken(id);
        }
        self.shared.counters.records += 1;
        // RFC 9146 §6: only the newest record moves a session.
        if after.0 > before.0 {
            self.note_address(id, peer);
        }
        self.finish_datagram(id, peer, received, fate);
        Tried::Taken
    }

    /// Hands over what a datagram brought, and ends the session if it said so.
    pub(super) fn finish_datagram(
        &mut self,
        id: SessionId,
        peer: SocketAddr,
        received: VecDeque<Vec<u8>>,
        fate: Fate,
    ) {
        self.note_active(id);
        self.mark_changed(id);
        if let Some(session) = self.sessions.get(&id) {
            let (identity, revision) = (&session.identity, session.revision);
            let events = received.into_iter().map(|bytes| {
                let identity = Arc::clone(identity);
                Output::Event(Event::Received { session: id, peer, identity, revision, bytes })
            });
            self.shared.outputs.extend(events);
        }
        match fate {
            Fate::Goes => {}
            Fate::Closed => {
                // RFC 5246 §7.2.1: a close_notify is answered with one.
                self.say_goodbye(id);
                self.remove_session(id, CloseCause::Peer);
            }
            Fate::Failed => self.remove_session(id, CloseCause::Failed),
        }
    }

    fn note_active(&mut self, id: SessionId) {
        let (now_ms, sleep_ms) = (self.shared.now_ms, millis(self.config.limits.sleep_after));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_soon = now_ms - session.active_ms <= sleep_ms;
        session.in_a_row = if is_soon { session.in_a_row.saturating_add(1) } else { 1 };
        session.active_ms = now_ms;
        if session.queue == Queue::Fresh && session.in_a_row >= BUSY_IN_A_ROW {
            self.queues.remove(Queue::Fresh, (session.queued_ms, id));
            (session.queue, session.queued_ms) = (Queue::Busy, now_ms);
            self.queues.insert(Queue::Busy, (now_ms, id));
        }
    }

    fn note_address(&mut self, id: SessionId, peer: SocketAddr) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.peer == peer {
            return;
        }
        let old = std::mem::replace(&mut session.peer, peer);
        self.shared.counters.moved += 1;
        if self.by_peer.get(&old) == Some(&id) {
            self.by_peer.remove(&old);
        }
        // A session without a connection ID needs its address more than this one does.
        self.by_peer.entry(peer).or_insert(id);
    }

    fn say_goodbye(&mut self, id: SessionId) {
        if !self.wake(id) {
            return;
        }
        let now_ms = self.shared.now_ms;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let State::Awake(context) = &mut session.state else { return };
        let mut facts = Facts::default();
        let mut call = Call::new(&mut self.shared, session.peer, &mut facts);
        context.close(&mut Io { datagram: &[], host: &mut call }, now_ms);
    }

    /// For a reason of our own. `false`: there is no memory, or no such session.
    fn wake(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let State::Asleep(bytes) = &session.state else { return true };
        let snapshot = unfold(bytes, id.to_cid());
        match snapshot.and_then(|snapshot| ffi::Session::restore(&self.context, &snapshot)) {
            Some(woken) => {
                session.state = State::Awake(woken);
                self.note_woken(id);
                true
            }
            None => false,
        }
    }

    /// Moves a session from one queue to the other.
    fn note_woken(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        self.queues.remove(session.queue, (session.queued_ms, id));
        (session.queue, session.queued_ms) = (Queue::Fresh, self.shared.now_ms);
        let queued_ms = session.queued_ms;
        self.shared.counters.woken += 1;
        self.make_room_awake();
        self.queues.insert(Queue::Fresh, (queued_ms, id));
    }

    fn put_to_sleep(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let State::Awake(awake) = &session.state else { return };
        let Some(snapshot) = awake.save() else {
            // Nothing that can be unfolded is left of it; it must not stay first in its queue.
            self.remove_session(id, CloseCause::Failed);
            return;
        };
        session.state = State::Asleep(fold(&snapshot));
        self.queues.remove(session.queue, (session.queued_ms, id));
        (session.queue, session.queued_ms) = (Queue::Asleep, session.active_ms);
        self.queues.insert(Queue::Asleep, (session.queued_ms, id));
        self.shared.counters.slept += 1;
    }

    pub(super) fn put_idle_to_sleep(&mut self) {
        let sleep_ms = millis(self.config.limits.sleep_after);
        for queue in [Queue::Fresh, Queue::Busy] {
            while let Some(id) = self.longest_idle(queue).filter(|id| self.idles(*id, sleep_ms)) {
                self.put_to_sleep(id);
            }
        }
    }

    pub(super) fn forget_idle(&mut self) {
        let idle_ms = millis(self.config.limits.idle_max);
        while let Some(id) = self.longest_idle(Queue::Asleep).filter(|id| self.idles(*id, idle_ms))
        {
            self.remove_session(id, CloseCause::Forgotten);
        }
    }

    /// Whether a session has been silent for so long.
    fn idles(&self, id: SessionId, span_ms: u64) -> bool {
        let active_ms = self.sessions.get(&id).map_or(0, |session| session.active_ms);
        active_ms.saturating_add(span_ms) <= self.shared.now_ms
    }

    fn forget_longest_idle(&mut self) {
        let found = [Queue::Asleep, Queue::Fresh, Queue::Busy]
            .into_iter()
            .find_map(|queue| self.longest_idle(queue));
        if let Some(id) = found {
            self.remove_session(id, CloseCause::Forgotten);
        }
    }

    /// The longest idle session of one queue. A session that was active since it was queued goes
    /// to its right place first: so a record costs the queue nothing.
    fn longest_idle(&mut self, queue: Queue) -> Option<SessionId> {
        loop {
            let (queued_ms, id) = self.queues.first(queue)?;
            match self.sessions.get_mut(&id) {
                Some(session) if session.active_ms > queued_ms => {
                    self.queues.remove(queue, (queued_ms, id));
                    session.queued_ms = session.active_ms;
                    self.queues.insert(queue, (session.queued_ms, id));
                }
                _ => return Some(id),
            }
        }
    }

    pub(super) fn remove_session(&mut self, id: SessionId, cause: CloseCause) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.queues.remove(session.queue, (session.queued_ms, id));
        if self.by_peer.get(&session.peer) == Some(&id) {
            self.by_peer.remove(&session.peer);
        }
        let identity_hash = self.hash_identity(&session.identity);
        if let Some(same) = self.by_identity.get_mut(&identity_hash) {
            same.retain(|other| *other != id);
            if same.is_empty() {
                self.by_identity.remove(&identity_hash);
            }
        }
        if let Some(place) = session.changed_at {
            self.changed.remove(&(place, id));
        }
        if session.saved_sequence.is_some() {
            self.gone.push_back(id);
        }
        let counters = &mut self.shared.counters;
        match cause {
            CloseCause::Peer => counters.closed_by_peer += 1,
            CloseCause::Failed => counters.closed_failed += 1,
            CloseCause::Replaced => counters.closed_replaced += 1,
            CloseCause::Forgotten => counters.closed_forgotten += 1,
            CloseCause::Owner => {}
        }
        self.shared.outputs.push_back(Output::Event(Event::Closed { session: id, cause }));
    }
}
