//! Our requests under way: tokens, turns, deadlines and the progress of block-wise bodies.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;
use std::time::Instant;

use hashbrown::HashMap;
use thiserror::Error;

use crate::hashing::Seeded;
use crate::limits::Limits;
use crate::message::{Exchange, Request};
use crate::observe::NotificationOrder;
use crate::wire::{Code, MessageId, OptionList, Token};

/// Names a request of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(crate) u64);

/// Why a request is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestRefused {
    /// Too many requests and observations overall.
    #[error("there are {0} requests under way, which is the limit")]
    Limit(usize),
    /// Too many requests wait for this peer.
    #[error("{0} requests wait for the peer, which is the limit")]
    PeerLimit(usize),
    /// The code is no method.
    #[error("code {0} is no method")]
    NotAMethod(Code),
    /// A request under way has the token that the owner wants.
    #[error("{0:?} belongs to a request under way")]
    TokenInUse(Token),
}

/// Why a request has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// Nobody acknowledged, or no response came in time.
    #[error("the peer did not respond in time")]
    TimedOut,
    /// The peer answered with a reset.
    #[error("the peer answered with a reset")]
    Reset,
    /// The response holds a critical option that is not known here.
    #[error("the response holds an unknown critical option")]
    BadOption,
    /// The body of the response is too large.
    #[error("response body of {0} bytes exceeds the limit")]
    BodyTooLarge(usize),
    /// The blocks of the response do not make one body.
    #[error("the response changed while its blocks were collected")]
    BodyChanged,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Sending the body, from this offset in bytes.
    Upload { offset: usize },
    /// Collecting the response: this block is asked for.
    Download { number: u32 },
    /// Waiting for notifications.
    Observing,
}

/// The first message of a response that comes in blocks.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) code: Code,
    pub(crate) options: OptionList,
    pub(crate) sequence: Option<u32>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Ongoing<P> {
    pub(crate) peer: P,
    pub(crate) request: Request,
    /// The token of the first message, which notifications carry.
    pub(crate) token: Token,
    /// The token of the block asked for now.
    pub(crate) step_token: Token,
    pub(crate) id: MessageId,
    pub(crate) stage: Stage,
    pub(crate) size_exponent: u8,
    pub(crate) head: Option<Head>,
    pub(crate) collected: Vec<u8>,
    pub(crate) notification: Option<Exchange<P>>,
    pub(crate) order: Option<NotificationOrder>,
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    current: Option<RequestId>,
    waiting: VecDeque<RequestId>,
}

/// All requests under way.
#[derive(Debug)]
pub(crate) struct Clients<P> {
    requests: HashMap<RequestId, Ongoing<P>, Seeded>,
    tokens: HashMap<Token, RequestId, Seeded>,
    lanes: HashMap<P, Lane, Seeded>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    serial: u64,
    limits: Limits,
}

impl<P: Copy + Eq + Hash> Clients<P> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            requests: HashMap::with_hasher(Seeded::new(seed)),
            tokens: HashMap::with_hasher(Seeded::new(seed ^ 1)),
            lanes: HashMap::with_hasher(Seeded::new(seed ^ 2)),
            deadlines: BTreeSet::new(),
            serial: 0,
            limits,
        }
    }

    /// Takes a request; the flag says whether it is its turn at once (`NSTART`, RFC 7252 §4.7).
    pub(crate) fn add(
        &mut self,
        peer: P,
        request: Request,
        token: Token,
    ) -> Result<(RequestId, bool), RequestRefused> {
        if !request.method.is_request() {
            return Err(RequestRefused::NotAMethod(request.method));
        }
        if self.tokens.contains_key(&token) {
            return Err(RequestRefused::TokenInUse(token));
        }
        if self.requests.len() >= self.limits.requests_max {
            return Err(RequestRefused::Limit(self.requests.len()));
        }
        let lane = self.lanes.entry(peer).or_default();
        if lane.waiting.len() >= self.limits.waiting_per_peer_max {
            return Err(RequestRefused::PeerLimit(lane.waiting.len()));
        }
        self.serial += 1;
        let id = RequestId(self.serial);
        let now = lane.current.is_none();
        if now {
            lane.current = Some(id);
        } else {
            lane.waiting.push_back(id);
        }
        let ongoing = Ongoing {
            peer,
            request,
            token,
            step_token: token,
            id: MessageId(0),
            stage: Stage::Upload { offset: 0 },
            size_exponent: self.limits.block_size_exponent,
            head: None,
            collected: Vec::new(),
            notification: None,
            order: None,
            deadline: None,
        };
        self.requests.insert(id, ongoing);
        self.tokens.insert(token, id);
        Ok((id, now))
    }

    pub(crate) fn find(&self, token: Token) -> Option<RequestId> {
        self.tokens.get(&token).copied()
    }

    pub(crate) fn ongoing(&self, id: RequestId) -> Option<&Ongoing<P>> {
        self.requests.get(&id)
    }

    pub(crate) fn ongoing_mut(&mut self, id: RequestId) -> Option<&mut Ongoing<P>> {
        self.requests.get_mut(&id)
    }

    /// Gives the next message of a request its token; the one of the step before ends.
    pub(crate) fn set_step_token(&mut self, id: RequestId, token: Token) {
        let Some(ongoing) = self.requests.get_mut(&id) else { return };
        let before = std::mem::replace(&mut ongoing.step_token, token);
        if before != ongoing.token {
            self.tokens.remove(&before);
        }
        self.tokens.insert(token, id);
    }

    pub(crate) fn set_deadline(&mut self, id: RequestId, deadline: Option<Instant>) {
        let Some(ongoing) = self.requests.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut ongoing.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
    }

    /// Ends a request's turn; returns the one whose turn it is now.
    pub(crate) fn release(&mut self, id: RequestId) -> Option<RequestId> {
        let peer = self.requests.get(&id)?.peer;
        let lane = self.lanes.get_mut(&peer)?;
        if lane.current != Some(id) {
            lane.waiting.retain(|waiting| *waiting != id);
            return None;
        }
        lane.current = lane.waiting.pop_front();
        let next = lane.current;
        if next.is_none() {
            self.lanes.remove(&peer);
        }
        next
    }

    /// Forgets a request whose turn has ended.
    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Ongoing<P>> {
        self.set_deadline(id, None);
        let ongoing = self.requests.remove(&id)?;
        self.tokens.remove(&ongoing.token);
        self.tokens.remove(&ongoing.step_token);
        Some(ongoing)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next request whose deadline has passed.
    pub(crate) fn overdue(&self, now: Instant) -> Option<RequestId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_one_peer_take_turns() {
        let limits = Limits { waiting_per_peer_max: 1, requests_max: 3, ..Limits::default() };
        let mut clients = Clients::new(limits, 1);
        let add = |clients: &mut Clients<u8>, peer, token| {
            clients.add(peer, Request::new(Code::GET), Token::from_u64(token))
        };
        let (first, now) = add(&mut clients, 1, 1).unwrap();
        assert!(now);
        let (second, now) = add(&mut clients, 1, 2).unwrap();
        assert!(!now);
        assert_eq!(add(&mut clients, 1, 3), Err(RequestRefused::PeerLimit(1)));
        assert!(add(&mut clients, 2, 4).unwrap().1);
        assert_eq!(add(&mut clients, 3, 5), Err(RequestRefused::Limit(3)));
        assert_eq!(clients.release(first), Some(second));
        assert_eq!(clients.release(second), None);
        let empty = clients.add(1, Request::new(Code::EMPTY), Token::EMPTY);
        assert_eq!(empty, Err(RequestRefused::NotAMethod(Code::EMPTY)));
    }
}
