//! The endpoint: bytes and time in, datagrams and events out.
//!
//! A request, as a server sees it:
//! 1. `handle_datagram` parses it, refuses it, or recognises a copy of an earlier one;
//! 2. a block of an upload is kept and answered with 2.31;
//! 3. otherwise the owner polls `Event::Request`, and nothing is sent meanwhile: the peer repeats
//!    its request, and the copies are joined;
//! 4. `respond` sends the response with the acknowledgement, and remembers it for copies.
//!
//! A request, as a client sends it:
//! 1. `request` sends it, or queues it until the peer's turn comes;
//! 2. a response on the acknowledgement, a separate one, or time ends the repetition;
//! 3. blocks are sent and collected until `Event::Response` has the whole body.

mod client;
mod observers;
mod server;

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::blockwise::download::Downloads;
use crate::blockwise::upload::Uploads;
use crate::client::{Clients, Failure, RequestId};
use crate::counters::Counters;
use crate::datagram::Datagram;
use crate::deduplication::Deduplicator;
use crate::identifiers::Identifiers;
use crate::limits::Config;
use crate::message::{IncomingNotification, IncomingRequest, IncomingResponse};
use crate::observe::{ObservationId, Observations};
use crate::reliability::{Due, Purpose, Reliability, first_timeout};
use crate::wire::{Code, Encoder, MessageId, MessageRef, MessageType};

/// A CoAP endpoint, server and client at once, for any kind of peer address: without a socket,
/// without a clock.
///
/// After every call poll [`Endpoint::poll_output`] until [`Output::Timeout`]. What the network
/// does wrong is counted, never an error.
#[derive(Debug)]
pub struct Endpoint<P> {
    config: Config,
    counters: Counters,
    identifiers: Identifiers,
    deduplicator: Deduplicator<P>,
    reliability: Reliability<P>,
    uploads: Uploads<P>,
    downloads: Downloads<P>,
    observations: Observations<P>,
    clients: Clients<P>,
    outputs: VecDeque<Output<P>>,
    scratch: Vec<u8>,
    digest_seed: u64,
    is_same_peer: fn(&P, &P) -> bool,
}

/// What an endpoint wants from its owner.
#[derive(Debug)]
pub enum Output<P> {
    /// Send these bytes.
    Transmit {
        /// To whom.
        peer: P,
        /// What.
        bytes: Datagram,
    },
    /// Something happened.
    Event(Event<P>),
    /// Nothing more; call [`Endpoint::handle_timeout`] at this time, if there is one.
    Timeout(Option<Instant>),
}

/// What happened.
#[derive(Debug)]
pub enum Event<P> {
    /// A request to be answered with [`Endpoint::respond`].
    Request(IncomingRequest<P>),
    /// A response to a request of ours, or a notification.
    Response(IncomingResponse<P>),
    /// A notification of an observation that the owner keeps.
    Notification(IncomingNotification<P>),
    /// A request of ours has no response.
    RequestFailed {
        /// Which.
        request: RequestId,
        /// To whom.
        peer: P,
        /// Why.
        failure: Failure,
    },
    /// A peer observes no longer.
    ObservationCancelled {
        /// Which.
        observation: ObservationId,
        /// Who.
        peer: P,
        /// Why.
        cause: CancelCause,
    },
}

/// Why an observation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelCause {
    /// The peer asked for it.
    Deregistered,
    /// The peer reset a notification.
    Reset,
    /// The peer did not acknowledge a notification.
    TimedOut,
    /// The owner sent an error response or notification (RFC 7641 §4.2).
    Error,
}

/// A well-formed message with its surroundings.
#[derive(Debug, Clone, Copy)]
struct Inbound<'a, P> {
    now: Instant,
    peer: P,
    message: MessageRef<'a>,
    digest: u64,
}

impl<P: Copy + Eq + Hash> Endpoint<P> {
    /// An endpoint; the seed must be random and secret.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut identifiers = Identifiers::new(seed);
        let limits = config.limits.clone();
        let mut seed = || identifiers.random();
        Self {
            deduplicator: Deduplicator::new(limits.clone(), seed()),
            reliability: Reliability::new(limits.confirmables_max, seed()),
            uploads: Uploads::new(limits.clone(), seed()),
            downloads: Downloads::new(limits.clone(), seed()),
            observations: Observations::new(limits.clone(), seed()),
            clients: Clients::new(limits, seed()),
            digest_seed: seed(),
            identifiers,
            config,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            scratch: Vec::new(),
            is_same_peer: |left, right| left == right,
        }
    }

    /// Lets responses come from another address than the request went to, as far as `is_same`
    /// allows. Some devices answer from another port than the one they listen on; the token,
    /// eight bytes that nobody can guess, still has to match.
    #[must_use]
    pub fn with_peer_match(mut self, is_same: fn(&P, &P) -> bool) -> Self {
        self.is_same_peer = is_same;
        self
    }

    /// Takes a datagram from a peer.
    pub fn handle_datagram(&mut self, now: Instant, peer: P, datagram: &[u8]) {
        self.counters.received += 1;
        if self.outputs.len() >= self.config.limits.outputs_max {
            self.counters.overflowed += 1;
            return;
        }
        let message = match MessageRef::parse(datagram) {
            Ok(message) => message,
            Err(error) => {
                self.counters.count_malformed(error.reason);
                // RFC 7252 §4.2: a confirmable message that cannot be processed is rejected.
                if let Some((MessageType::Confirmable, id)) = error.header {
                    self.send_empty(peer, MessageType::Reset, id);
                }
                return;
            }
        };
        let code = message.code;
        match message.message_type {
            MessageType::Confirmable if code == Code::EMPTY => {
                self.counters.pings += 1;
                self.send_empty(peer, MessageType::Reset, message.id);
            }
            MessageType::Acknowledgement if code == Code::EMPTY => {
                self.handle_acknowledgement(now, peer, message.id);
            }
            MessageType::Reset if code == Code::EMPTY => self.handle_reset(now, peer, message.id),
            MessageType::Confirmable | MessageType::NonConfirmable if code.is_request() => {
                let digest = xxh3_64_with_seed(datagram, self.digest_seed);
                self.handle_request(Inbound { now, peer, message, digest });
            }
            // RFC 7252 table 1: no reset with a code, no acknowledgement with a method, no empty
            // non-confirmable message.
            _ if !code.is_response() || message.message_type == MessageType::Reset => {
                self.counters.ignored += 1;
            }
            _ => {
                let digest = xxh3_64_with_seed(datagram, self.digest_seed);
                self.handle_response(Inbound { now, peer, message, digest });
            }
        }
    }

    /// Does what is due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.deduplicator.handle_timeout(now);
        self.uploads.handle_timeout(now);
        self.downloads.handle_timeout(now);
        while let Some(due) = self.reliability.due(now, &self.config.transmission) {
            match due {
                Due::Retransmit(peer, _, _, bytes) => {
                    self.counters.retransmissions += 1;
                    self.outputs.push_back(Output::Transmit { peer, bytes });
                }
                Due::GiveUp(_, _, purpose) => {
                    self.counters.timeouts += 1;
                    self.give_up(now, purpose);
                }
            }
        }
        while let Some(id) = self.clients.overdue(now) {
            self.fail(now, id, Failure::TimedOut);
        }
    }

    /// The next thing to do; poll until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output<P> {
        match self.outputs.pop_front() {
            Some(output) => output,
            None => Output::Timeout(self.next_timeout()),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            exchanges_evicted: self.deduplicator.evicted,
            uploads_aborted: self.uploads.aborted,
            downloads_evicted: self.downloads.evicted,
            ..self.counters
        }
    }

    /// Exchanges remembered against duplicates at the moment.
    pub fn exchanges(&self) -> usize {
        self.deduplicator.len()
    }

    fn next_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.deduplicator.next_timeout(),
            self.reliability.next_timeout(),
            self.uploads.next_timeout(),
            self.downloads.next_timeout(),
            self.clients.next_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    fn handle_acknowledgement(&mut self, now: Instant, peer: P, id: MessageId) {
        let Some(purpose) = self.reliability.finish(peer, id) else {
            self.counters.acknowledgements_unknown += 1;
            return;
        };
        self.counters.acknowledgements += 1;
        match purpose {
            Purpose::SeparateResponse => {}
            Purpose::Notification(observation) => self.notification_acknowledged(now, observation),
            // RFC 7252 §4.7: no longer outstanding; the response comes separately.
            Purpose::Request(request) => self.next_turn(now, request),
        }
    }

    fn handle_reset(&mut self, now: Instant, peer: P, id: MessageId) {
        match self.reliability.finish(peer, id) {
            Some(Purpose::SeparateResponse) => self.counters.resets += 1,
            Some(Purpose::Notification(observation)) => {
                self.counters.resets += 1;
                self.cancel_observation_because(observation, CancelCause::Reset);
            }
            Some(Purpose::Request(request)) => {
                self.counters.resets += 1;
                self.fail(now, request, Failure::Reset);
            }
            // RFC 7641 §3.6: a non-confirmable notification can be reset, too.
            None => match self.observations.find_message(peer, id) {
                Some(observation) => {
                    self.counters.resets += 1;
                    self.cancel_observation_because(observation, CancelCause::Reset);
                }
                None => self.counters.resets_unknown += 1,
            },
        }
    }

    fn give_up(&mut self, now: Instant, purpose: Purpose) {
        match purpose {
            Purpose::SeparateResponse => {}
            Purpose::Notification(observation) => {
                self.cancel_observation_because(observation, CancelCause::TimedOut);
            }
            Purpose::Request(request) => self.fail(now, request, Failure::TimedOut),
        }
    }

    fn send_empty(&mut self, peer: P, message_type: MessageType, id: MessageId) {
        self.scratch.clear();
        Encoder::empty(&mut self.scratch, message_type, id);
        self.send_scratch(peer);
    }

    /// Sends what the scratch buffer holds.
    fn send_scratch(&mut self, peer: P) -> Datagram {
        let bytes = Datagram::from(&self.scratch[..]);
        self.outputs.push_back(Output::Transmit { peer, bytes: bytes.clone() });
        bytes
    }

    /// Sends what the scratch buffer holds, until it is acknowledged.
    fn send_scratch_reliably(&mut self, now: Instant, to: (P, MessageId), purpose: Purpose) {
        let bytes = self.send_scratch(to.0);
        let timeout = first_timeout(&self.config.transmission, self.identifiers.random());
        self.reliability.await_acknowledgement(to, bytes, purpose, (now, timeout));
    }
}
