//! From a ClientHello to an established session.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cookie::Verdict;
use crate::ffi;
use crate::hello::{Hello, NoHello};
use crate::network::Network;

use super::host::{Call, Fate, Homes};
use super::pending::{Desk, Pending};
use super::sessions::Arrived;
use super::{Engine, Event, Output, SessionId, millis};

impl Engine {
    pub(super) fn handle_hello(&mut self, peer: SocketAddr, datagram: &[u8]) {
        let now_ms = self.shared.now_ms;
        let hello = match Hello::parse(datagram, self.config.limits.hello_bytes_max) {
            Ok(hello) => hello,
            Err(reason) => {
                let counters = &mut self.shared.counters;
                match reason {
                    NoHello::Malformed => counters.hello_malformed += 1,
                    NoHello::Fragmented => counters.hello_fragmented += 1,
                    NoHello::Oversized => counters.hello_oversized += 1,
                }
                return;
            }
        };
        match self.cookies.check(now_ms, peer, &hello) {
            Verdict::Valid => self.accept_hello(peer, &hello, datagram),
            verdict => {
                if verdict == Verdict::Absent {
                    self.shared.counters.hello_without_cookie += 1;
                } else {
                    self.shared.counters.hello_wrong_cookie += 1;
                }
                let cookie = self.cookies.make(now_ms, peer, &hello);
                let bytes = hello.verify_request(&cookie);
                self.shared.outputs.push_back(Output::Transmit { peer, bytes });
            }
        }
    }

    /// The peer reads what is sent to its address: from here on it may cost memory.
    fn accept_hello(&mut self, peer: SocketAddr, hello: &Hello<'_>, datagram: &[u8]) {
        let pending = self.pending_by_peer.get(&peer).copied();
        let is_of = |pending: &Pending| pending.random == hello.random;
        if let Some(id) = pending.filter(|id| self.pendings.get(id).is_some_and(is_of)) {
            self.shared.counters.hello_repeated += 1;
            self.drive_pending(id, Some(datagram));
            return;
        }
        if self.is_hello_of_session(peer, hello.random) {
            self.shared.counters.hello_repeated += 1;
            return;
        }
        let now_ms = self.shared.now_ms;
        if !self.shares.take(now_ms, Network::of(peer), &mut self.handshake_budget) {
            self.shared.counters.hello_shed += 1;
            return;
        }
        self.shared.counters.hello_accepted += 1;
        if let Some(old) = pending {
            self.evict_pending(old);
        }
        self.make_room_for(peer);
        let Some(id) = self.new_id() else { return };
        let cid = id.to_cid();
        let cid = self.config.connection_ids.then_some(&cid[..]);
        let Some(session) = ffi::Session::new(&self.context, cid) else { return };
        let offers_extended_master_secret = hello.offers_extended_master_secret;
        let end_ms = now_ms + millis(self.config.limits.handshake);
        let pending = Pending::new(
            peer,
            session,
            (hello.random, offers_extended_master_secret),
            (now_ms, end_ms),
        );
        self.pendings.insert(id, pending);
        self.pending_by_peer.insert(peer, id);
        self.pending_by_network.entry(Network::of(peer)).or_default().insert((now_ms, id));
        self.pending_timers.insert((end_ms, id));
        self.pending_order.insert((now_ms, id));
        self.drive_pending(id, Some(datagram));
    }

    fn make_room_for(&mut self, peer: SocketAddr) {
        let limits = &self.config.limits;
        let of_network = self.pending_by_network.get(&Network::of(peer));
        let is_full = |of: &&BTreeSet<_>| of.len() >= limits.half_open_per_network_max;
        let oldest = match of_network.filter(is_full) {
            Some(of_network) => of_network.first(),
            None if self.pendings.len() >= limits.half_open_max => self.pending_order.first(),
            None => None,
        };
        if let Some((_, id)) = oldest.copied() {
            self.evict_pending(id);
        }
    }

    fn evict_pending(&mut self, id: SessionId) {
        self.shared.counters.handshakes_evicted += 1;
        if self.pendings.get(&id).is_some_and(Pending::is_refused) {
            self.refuse_pending(id);
        } else {
            self.remove_pending(id);
        }
    }

    pub(super) fn feed_pending(&mut self, id: SessionId, datagram: &[u8]) {
        self.shared.counters.handshake += 1;
        self.drive_pending(id, Some(datagram));
    }

    /// With a datagram, or because it is time.
    fn drive_pending(&mut self, id: SessionId, datagram: Option<&[u8]>) {
        let Some(pending) = self.pendings.get_mut(&id) else { return };
        let mut received = VecDeque::new();
        let mut facts = std::mem::take(&mut pending.facts);
        let homes = Homes {
            sessions: &self.sessions,
            by_identity: &self.by_identity,
            hash: &self.identity_hash,
        };
        let mut call =
            Call { homes: Some(homes), ..Call::new(&mut self.shared, pending.peer, &mut facts) };
        let mut desk = Desk { scratch: &mut self.scratch, received: &mut received };
        let fate = match datagram {
            Some(datagram) => pending.receive(&mut call, datagram, &mut desk),
            None => pending.wake(&mut call, &mut desk),
        };
        pending.facts = facts;
        if pending.session.is_established() {
            self.establish(id, received, fate);
        } else if fate == Fate::Goes {
            self.set_pending_timer(id);
        } else {
            self.shared.counters.handshakes_failed += 1;
            self.refuse_pending(id);
        }
    }

    /// Ends a handshake that failed, and says whose it was.
    fn refuse_pending(&mut self, id: SessionId) {
        let Some(pending) = self.remove_pending(id) else { return };
        let Some(identity) = pending.facts.identity else { return };
        let (peer, is_known) = (pending.peer, pending.facts.is_known);
        let event = Event::Refused { peer, identity, is_known };
        self.shared.outputs.push_back(Output::Event(event));
    }

    fn establish(&mut self, id: SessionId, received: VecDeque<Vec<u8>>, fate: Fate) {
        let Some(pending) = self.remove_pending(id) else { return };
        let arrived = Arrived {
            peer: pending.peer,
            session: pending.session,
            identity: pending.facts.identity.unwrap_or_else(|| Arc::from([])),
            revision: pending.facts.revision,
            is_resumed: pending.facts.is_resumed,
            random: pending.random,
        };
        self.add_session(id, arrived);
        self.finish_datagram(id, pending.peer, received, fate);
    }

    fn set_pending_timer(&mut self, id: SessionId) {
        let Some(pending) = self.pendings.get_mut(&id) else { return };
        let next_ms = pending.due_ms();
        if next_ms != pending.timer_ms {
            self.pending_timers.remove(&(pending.timer_ms, id));
            pending.timer_ms = next_ms;
            self.pending_timers.insert((next_ms, id));
        }
    }

    pub(super) fn drive_pending_timers(&mut self) {
        let now_ms = self.shared.now_ms;
        while let Some((at, id)) = self.pending_timers.first().copied() {
            if at > now_ms {
                return;
            }
            let is_over = |pending: &Pending| pending.end_ms <= now_ms && !pending.is_refused();
            if self.pendings.get(&id).is_none_or(is_over) {
                self.shared.counters.handshakes_expired += 1;
                self.remove_pending(id);
                continue;
            }
            self.drive_pending(id, None);
            // A timer that did not move would be served for ever.
            if let Some(pending) = self.pendings.get(&id).filter(|p| p.timer_ms <= now_ms) {
                debug_assert!(pending.timer_ms > now_ms, "the library set no new timer");
                self.remove_pending(id);
            }
        }
    }

    fn remove_pending(&mut self, id: SessionId) -> Option<Pending> {
        let pending = self.pendings.remove(&id)?;
        self.pending_timers.remove(&(pending.timer_ms, id));
        self.pending_order.remove(&(pending.began_ms, id));
        if self.pending_by_peer.get(&pending.peer) == Some(&id) {
            self.pending_by_peer.remove(&pending.peer);
        }
        let network = Network::of(pending.peer);
        if let Some(of_network) = self.pending_by_network.get_mut(&network) {
            of_network.remove(&(pending.began_ms, id));
            if of_network.is_empty() {
                self.pending_by_network.remove(&network);
            }
        }
        Some(pending)
    }
}
