//! Who observes what (RFC 7641): registrations of peers, and the order of notifications.

use std::hash::Hash;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use thiserror::Error;

use crate::hashing::Seeded;
use crate::limits::Limits;
use crate::message::Response;
use crate::wire::{MessageId, Token};

/// Names an observation by a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObservationId(pub(crate) u64);

/// Why an observation is not accepted. The request is then answered without it (RFC 7641 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ObservationRefused {
    /// The request does not ask for one.
    #[error("the request does not ask for an observation")]
    NotAsked,
    /// The peer has too many.
    #[error("the peer has {0} observations, which is the limit")]
    PeerLimit(usize),
    /// All peers together have too many.
    #[error("there are {0} observations, which is the limit")]
    Limit(usize),
}

/// The observation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the observation has ended")]
pub struct ObservationEnded;

/// At least one notification a day must be confirmable (RFC 7641 §4.5).
pub(crate) const CONFIRM_AT_LEAST_EVERY: Duration = Duration::from_hours(24);

/// One observer.
#[derive(Debug)]
pub(crate) struct Observation<P> {
    pub(crate) peer: P,
    pub(crate) token: Token,
    pub(crate) resource: u64,
    pub(crate) sequence: u32,
    /// Our newest notification: a reset of it ends the observation.
    pub(crate) newest: Option<MessageId>,
    /// A confirmable notification under way.
    pub(crate) unacknowledged: Option<MessageId>,
    /// What to send once that one is acknowledged: the newest state only (§4.5.1).
    pub(crate) next: Option<Response>,
    pub(crate) confirmed_at: Instant,
}

impl<P> Observation<P> {
    /// The next sequence number: 24 bits (§4.4).
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = (self.sequence + 1) & 0xff_ffff;
        self.sequence
    }
}

/// Observations by all peers.
#[derive(Debug)]
pub(crate) struct Observations<P> {
    observations: HashMap<ObservationId, Observation<P>, Seeded>,
    by_peer: HashMap<P, Vec<ObservationId>, Seeded>,
    serial: u64,
    limits: Limits,
}

impl<P: Copy + Eq + Hash> Observations<P> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            observations: HashMap::with_hasher(Seeded::new(seed)),
            by_peer: HashMap::with_hasher(Seeded::new(seed ^ 1)),
            serial: 0,
            limits,
        }
    }

    /// Adds an observer; one with the same token is refreshed (§4.1).
    pub(crate) fn register(
        &mut self,
        now: Instant,
        (peer, token): (P, Token),
        resource: u64,
    ) -> Result<ObservationId, ObservationRefused> {
        if let Some(id) = self.find(peer, token) {
            if let Some(observation) = self.observations.get_mut(&id) {
                observation.resource = resource;
            }
            return Ok(id);
        }
        if self.observations.len() >= self.limits.observations_max {
            return Err(ObservationRefused::Limit(self.observations.len()));
        }
        let of_peer = self.by_peer.entry(peer).or_default();
        if of_peer.len() >= self.limits.observations_per_peer_max {
            return Err(ObservationRefused::PeerLimit(of_peer.len()));
        }
        self.serial += 1;
        let id = ObservationId(self.serial);
        of_peer.push(id);
        let observation = Observation {
            peer,
            token,
            resource,
            sequence: 0,
            newest: None,
            unacknowledged: None,
            next: None,
            confirmed_at: now,
        };
        self.observations.insert(id, observation);
        Ok(id)
    }

    pub(crate) fn find(&self, peer: P, token: Token) -> Option<ObservationId> {
        self.search(peer, |observation| observation.token == token)
    }

    /// The observation whose newest notification has this id.
    pub(crate) fn find_message(&self, peer: P, id: MessageId) -> Option<ObservationId> {
        self.search(peer, |observation| observation.newest == Some(id))
    }

    pub(crate) fn entry_mut(&mut self, id: ObservationId) -> Option<&mut Observation<P>> {
        self.observations.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: ObservationId) -> Option<Observation<P>> {
        let observation = self.observations.remove(&id)?;
        if let Some(of_peer) = self.by_peer.get_mut(&observation.peer) {
            of_peer.retain(|other| *other != id);
            if of_peer.is_empty() {
                self.by_peer.remove(&observation.peer);
            }
        }
        Some(observation)
    }

    fn search(&self, peer: P, wanted: impl Fn(&Observation<P>) -> bool) -> Option<ObservationId> {
        let mut of_peer = self.by_peer.get(&peer)?.iter().copied();
        of_peer.find(|id| self.observations.get(id).is_some_and(&wanted))
    }
}

/// The newest notification seen: its sequence number and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotificationOrder {
    /// The value of Observe: 24 bits.
    pub sequence: u32,
    /// When it came.
    pub at: Instant,
}

impl NotificationOrder {
    /// Whether a notification is newer than this one (RFC 7641 §3.4).
    pub fn is_followed_by(self, next: Self) -> bool {
        const HALF: u32 = 1 << 23;
        let (old, new) = (self.sequence, next.sequence);
        (old < new && new - old < HALF)
            || (old > new && old - new > HALF)
            || next.at > self.at + Duration::from_secs(128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_order_as_the_rfc_says() {
        let at = Instant::now();
        let order = |sequence, seconds| NotificationOrder {
            sequence,
            at: at + Duration::from_secs(seconds),
        };
        assert!(order(1, 0).is_followed_by(order(2, 0)));
        assert!(!order(2, 0).is_followed_by(order(1, 0)));
        assert!(!order(2, 0).is_followed_by(order(2, 1)));
        assert!(order(0xff_fffe, 0).is_followed_by(order(3, 0)));
        assert!(order(9, 0).is_followed_by(order(1, 129)));
    }

    #[test]
    fn registrations_are_limited_and_refreshed() {
        let limits =
            Limits { observations_max: 3, observations_per_peer_max: 2, ..Limits::default() };
        let (mut observations, now) = (Observations::new(limits, 1), Instant::now());
        let token = Token::from_u64;
        let first = observations.register(now, (1, token(1)), 0).unwrap();
        assert_eq!(observations.register(now, (1, token(1)), 0), Ok(first));
        observations.register(now, (1, token(2)), 0).unwrap();
        let full = observations.register(now, (1, token(3)), 0);
        assert_eq!(full, Err(ObservationRefused::PeerLimit(2)));
        observations.register(now, (2, token(1)), 0).unwrap();
        let full = observations.register(now, (3, token(1)), 0);
        assert_eq!(full, Err(ObservationRefused::Limit(3)));
        observations.remove(first);
        assert_eq!(observations.find(1, token(1)), None);
        assert!(observations.register(now, (3, token(1)), 0).is_ok());
    }
}
