//! From a ClientHello to an established session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cookie::Verdict;
use crate::ffi;
use crate::hello::{Hello, NoHello};
use crate::network::Network;

use super::host::{Call, Facts, Fate, drive};
use super::sessions::Arrived;
use super::{Engine, Event, Output, SessionId, millis};

/// A handshake under way, after a valid cookie.
pub(super) struct Pending {
    pub(super) peer: SocketAddr,
    session: ffi::Session,
    facts: Facts,
    /// Tells a repeated ClientHello from a new one.
    random: u64,
    began_ms: u64,
    timer_ms: u64,
}

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
            self.drive_pending(id, datagram);
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
            self.shared.counters.handshakes_evicted += 1;
            self.remove_pending(old);
        }
        self.make_room_for(peer);
        let Some(id) = self.new_id() else { return };
        let cid = id.to_cid();
        let cid = self.config.connection_ids.then_some(&cid[..]);
        let Some(session) = ffi::Session::new(&self.context, cid) else { return };
        let facts = Facts {
            offers_extended_master_secret: hello.offers_extended_master_secret,
            ..Facts::default()
        };
        let timer_ms = now_ms + millis(self.config.limits.handshake);
        let random = hello.random;
        let pending = Pending { peer, session, facts, random, began_ms: now_ms, timer_ms };
        self.pendings.insert(id, pending);
        self.pending_by_peer.insert(peer, id);
        *self.pending_by_network.entry(Network::of(peer)).or_default() += 1;
        self.pending_timers.insert((timer_ms, id));
        self.pending_order.insert((now_ms, id));
        self.drive_pending(id, datagram);
    }

    fn make_room_for(&mut self, peer: SocketAddr) {
        let limits = &self.config.limits;
        let network = Network::of(peer);
        let of_network = self.pending_by_network.get(&network).copied().unwrap_or(0);
        let oldest =
            if usize::try_from(of_network).is_ok_and(|n| n >= limits.half_open_per_network_max) {
                // Rare, and at most as many as there may be half open.
                self.pending_order.iter().map(|(_, id)| *id).find(|id| {
                    self.pendings.get(id).is_some_and(|p| Network::of(p.peer) == network)
                })
            } else if self.pendings.len() >= limits.half_open_max {
                self.pending_order.first().map(|(_, id)| *id)
            } else {
                None
            };
        if let Some(id) = oldest {
            self.shared.counters.handshakes_evicted += 1;
            self.remove_pending(id);
        }
    }

    pub(super) fn feed_pending(&mut self, id: SessionId, datagram: &[u8]) {
        self.shared.counters.handshake += 1;
        self.drive_pending(id, datagram);
    }

    fn drive_pending(&mut self, id: SessionId, datagram: &[u8]) {
        let Some(pending) = self.pendings.get_mut(&id) else { return };
        let mut received = VecDeque::new();
        let facts = &mut pending.facts;
        let mut call = Call { shared: &mut self.shared, peer: pending.peer, facts };
        let session = &mut pending.session;
        let fate = drive(session, &mut call, datagram, &mut self.scratch, &mut received);
        if session.is_established() {
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
        self.shared.failures.note(self.shared.now_ms, &identity, peer);
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
        let handshake_ms = millis(self.config.limits.handshake);
        let Some(pending) = self.pendings.get_mut(&id) else { return };
        let end_ms = pending.began_ms + handshake_ms;
        let next_ms = pending.session.timer_ms().map_or(end_ms, |at| at.min(end_ms));
        if next_ms != pending.timer_ms {
            self.pending_timers.remove(&(pending.timer_ms, id));
            pending.timer_ms = next_ms;
            self.pending_timers.insert((next_ms, id));
        }
    }

    pub(super) fn drive_pending_timers(&mut self) {
        let now_ms = self.shared.now_ms;
        let handshake_ms = millis(self.config.limits.handshake);
        while let Some((at, id)) = self.pending_timers.first().copied() {
            if at > now_ms {
                return;
            }
            let began_ms = self.pendings.get(&id).map_or(0, |pending| pending.began_ms);
            if began_ms + handshake_ms <= now_ms {
                self.shared.counters.handshakes_expired += 1;
                self.remove_pending(id);
                continue;
            }
            self.drive_pending(id, &[]);
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
        if let Some(count) = self.pending_by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.pending_by_network.remove(&network);
            }
        }
        Some(pending)
    }
}
