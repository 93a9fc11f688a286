//! The protocol of an accounting server, without a socket and without a clock.
//!
//! A packet, as it is handled:
//! 1. the client is found by the address; without one there is silence;
//! 2. its lengths and its signatures are checked (RFC 2866 §3, RFC 2869 §5.14);
//! 3. a copy of one that is being stored is dropped, a copy of one that was stored is answered
//!    again: a copy changes nothing;
//! 4. one whose time is too far from ours is dropped, because it may be an old one;
//! 5. the owner polls [`Output::Report`], makes it durable and says so with
//!    [`Accounting::settled`]; only then is the response sent.

mod counters;
mod exchanges;
mod notices;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use vocabulary::{Notice, SessionReport, Timestamp};

pub use counters::{Counters, Fate};

use crate::client::{Client, Clients};
use crate::reading::{self, Reading, Source};
use crate::wire::{self, Malformed, Packet};
use exchanges::{Exchanges, Known};
use notices::Notices;

/// What an accounting server is given.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the feed in the reports.
    pub feed: String,
    /// Who may send.
    pub clients: Clients,
    /// How much at most.
    pub limits: Limits,
}

/// How much, and for how long, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Reports that are being stored. What comes beyond is dropped, and sent again by its sender.
    pub outstanding_max: usize,
    /// Answered packets that are known again. Beyond it the oldest is forgotten.
    pub answers_max: usize,
    /// How far the time at which a packet was sent, by the clock of its sender, may be from ours.
    /// An answered packet is known for twice as long, so that none is taken twice.
    pub clock_skew_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A packet core keeps at most 256 requests under way for each of its ports; this is
            // 16 ports, and 16 MB of the largest packets.
            outstanding_max: 4_096,
            // 830 packets a second for the ten minutes of the skew below; about 20 MB.
            answers_max: 500_000,
            // Clocks that differ by minutes are seen in the field; that of Kerberos is the same.
            clock_skew_max: Duration::from_secs(300),
        }
    }
}

/// Along which way a datagram came, and its answer goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The sender.
    pub remote: SocketAddr,
    /// Which of our addresses was asked, where the socket has several.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Path {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// A report that is being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What an accounting server wants from its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Make this durable, then call [`Accounting::settled`].
    Report {
        /// By which it is settled.
        ticket: Ticket,
        /// What was said.
        report: Box<SessionReport>,
    },
    /// Send these bytes.
    Transmit {
        /// Back to who asked.
        to: Path,
        /// What.
        bytes: Vec<u8>,
    },
    /// An operator should know.
    Notice(Box<Notice>),
}

/// An accounting server: bytes and time in, reports and responses out.
///
/// After every call poll [`Accounting::poll_output`] until there is nothing more. What the network
/// does wrong is counted, never an error.
#[derive(Debug)]
pub struct Accounting {
    feed: String,
    clients: Clients,
    limits: Limits,
    counters: Counters,
    exchanges: Exchanges,
    notices: Notices,
    outstanding: HashMap<Ticket, Outstanding>,
    next_ticket: u64,
    outputs: VecDeque<Output>,
}

/// A report that is being stored, with what follows.
#[derive(Debug)]
struct Outstanding {
    exchange: u64,
    path: Path,
    response: Vec<u8>,
}

/// A datagram with its surroundings.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Timestamp,
    path: Path,
}

/// Why a packet is not taken, in words.
struct Refused {
    fate: Fate,
    description: String,
}

impl Accounting {
    /// A server; the seed must be random and secret.
    pub fn new(config: Config, seed: u64) -> Self {
        let Config { feed, clients, limits } = config;
        let known_for = limits.clock_skew_max.saturating_mul(2);
        Self {
            feed,
            clients,
            limits,
            counters: Counters::default(),
            exchanges: Exchanges::new(limits.answers_max, known_for, seed),
            notices: Notices::default(),
            outstanding: HashMap::new(),
            next_ticket: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes a datagram that came along `path`; `at` is the wall clock.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        at: Timestamp,
        path: impl Into<Path>,
        datagram: &[u8],
    ) {
        let path = path.into();
        self.counters.received += 1;
        self.counters.forgotten += self.exchanges.forget(now);
        let arrival = Arrival { at, path };
        match self.handle(arrival, datagram) {
            Ok(Some(fate)) => self.counters.count(fate),
            Ok(None) => {}
            Err(refused) => {
                self.counters.count(refused.fate);
                let ip = path.remote.ip().to_canonical();
                if let Some(notice) = self.notices.notice(now, ip, &refused) {
                    self.outputs.push_back(Output::Notice(Box::new(notice)));
                }
            }
        }
    }

    /// Says what became of a report. With `is_stored` it is answered; without, its sender will
    /// send it again.
    pub fn settled(&mut self, now: Instant, ticket: Ticket, is_stored: bool) {
        let Some(done) = self.outstanding.remove(&ticket) else { return };
        if is_stored {
            self.exchanges.answered(now, done.exchange);
            self.counters.count(Fate::Stored);
            self.transmit(done.path, done.response);
        } else {
            self.exchanges.failed(done.exchange);
            self.counters.count(Fate::NotStored);
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The name of the feed.
    pub fn feed(&self) -> &str {
        &self.feed
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reports that are being stored.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// What became of a datagram; nothing while that is not known.
    fn handle(&mut self, arrival: Arrival, datagram: &[u8]) -> Result<Option<Fate>, Refused> {
        let remote = arrival.path.remote.ip().to_canonical();
        let Some((place, client)) = self.clients.find(remote) else {
            return Err(Refused {
                fate: Fate::UnknownClient,
                description: format!("{remote} is the address of no client"),
            });
        };
        let packet = Packet::parse(datagram)?;
        match packet.code() {
            wire::ACCOUNTING_REQUEST => check_request(&packet, client)?,
            wire::STATUS_SERVER => {
                check_status_request(&packet, client)?;
                let response = respond(&packet, client);
                self.transmit(arrival.path, response);
                return Ok(Some(Fate::StatusRequest));
            }
            other => {
                return Err(Refused {
                    fate: Fate::UnexpectedCode,
                    description: format!("a packet of code {other}, allowed: 4 and 12"),
                });
            }
        }
        let source = Source { feed: &self.feed, client: client.name(), remote, at: arrival.at };
        let reading = reading::read(&packet, &source)?;
        // A copy from another port is a copy as well, else a spoofed port would make an old packet
        // a new one. Senders that name themselves are the same wherever they send from.
        let exchange = self.exchanges.key(place, &reading.server, &packet.authenticator());
        match self.exchanges.find(exchange) {
            Some(Known::Storing) => return Ok(Some(Fate::DuplicateWaiting)),
            Some(Known::Answered) => {
                let response = respond(&packet, client);
                self.transmit(arrival.path, response);
                return Ok(Some(Fate::DuplicateAnswered));
            }
            None => {}
        }
        check_time(&reading, client, (arrival.at, self.limits.clock_skew_max))?;
        let response = respond(&packet, client);
        self.take(arrival, reading, (exchange, response))
    }

    /// Hands a new report to the owner.
    fn take(
        &mut self,
        arrival: Arrival,
        reading: Reading,
        (exchange, response): (u64, Vec<u8>),
    ) -> Result<Option<Fate>, Refused> {
        self.counters.values_ignored += u64::from(reading.values_ignored);
        let Some(report) = reading.report else {
            self.transmit(arrival.path, response);
            return Ok(Some(Fate::OtherStatus));
        };
        let found = self.outstanding.len();
        if found >= self.limits.outstanding_max {
            return Err(Refused {
                fate: Fate::Overloaded,
                description: format!(
                    "{found} reports are being stored, allowed: {}",
                    self.limits.outstanding_max
                ),
            });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.exchanges.storing(exchange);
        self.outstanding.insert(ticket, Outstanding { exchange, path: arrival.path, response });
        self.outputs.push_back(Output::Report { ticket, report });
        Ok(None)
    }

    fn transmit(&mut self, to: Path, bytes: Vec<u8>) {
        self.counters.responses += 1;
        self.outputs.push_back(Output::Transmit { to, bytes });
    }
}

impl From<Malformed> for Refused {
    fn from(error: Malformed) -> Self {
        Self { fate: Fate::Malformed, description: error.to_string() }
    }
}

impl From<reading::Unusable> for Refused {
    fn from(error: reading::Unusable) -> Self {
        Self { fate: Fate::Unusable, description: error.to_string() }
    }
}

/// Whether the client has made this Accounting-Request, and as it must.
fn check_request(packet: &Packet<'_>, client: &Client) -> Result<(), Refused> {
    let secret = client.secret.as_bytes();
    if !wire::has_good_request_authenticator(packet, secret) {
        return Err(wrong(Fate::WrongAuthenticator, client));
    }
    match packet.message_authenticator()? {
        Some(found) => {
            let zeros = [0; wire::SIGNATURE_BYTES];
            if wire::has_good_message_authenticator(packet, found, &zeros, secret) {
                Ok(())
            } else {
                Err(wrong(Fate::WrongMessageAuthenticator, client))
            }
        }
        None if client.needs_message_authenticator => Err(missing(client)),
        None => Ok(()),
    }
}

/// A Status-Server has a random authenticator, so only the Message-Authenticator says who made it
/// (RFC 5997 §3).
fn check_status_request(packet: &Packet<'_>, client: &Client) -> Result<(), Refused> {
    let found = packet.message_authenticator()?.ok_or_else(|| missing(client))?;
    let inner = packet.authenticator();
    if wire::has_good_message_authenticator(packet, found, &inner, client.secret.as_bytes()) {
        Ok(())
    } else {
        Err(wrong(Fate::WrongMessageAuthenticator, client))
    }
}

fn wrong(fate: Fate, client: &Client) -> Refused {
    let description =
        format!("a packet of client {:?} has a wrong signature: another secret?", client.name());
    Refused { fate, description }
}

fn missing(client: &Client) -> Refused {
    let description =
        format!("a packet of client {:?} has no Message-Authenticator", client.name());
    Refused { fate: Fate::NoMessageAuthenticator, description }
}

/// Refuses what may be an old packet, sent by somebody who has seen it.
fn check_time(
    reading: &Reading,
    client: &Client,
    (at, skew_max): (Timestamp, Duration),
) -> Result<(), Refused> {
    let Some(sent_at) = reading.sent_at else {
        if client.needs_event_timestamp {
            return Err(Refused {
                fate: Fate::Unusable,
                description: format!(
                    "a packet of client {:?} has no Event-Timestamp",
                    client.name()
                ),
            });
        }
        return Ok(());
    };
    let (old, early) = (at.saturating_since(sent_at), sent_at.saturating_since(at));
    if old <= skew_max && early <= skew_max {
        return Ok(());
    }
    let (found, side) = if early > skew_max { (early, "after") } else { (old, "before") };
    Err(Refused {
        fate: Fate::Stale,
        description: format!(
            "a packet of client {:?} was sent {} s {side} our time, allowed: {} s",
            client.name(),
            found.as_secs(),
            skew_max.as_secs()
        ),
    })
}

/// The response to a request: what proxies left comes back, and nothing else (RFC 2866 §4.2).
fn respond(request: &Packet<'_>, client: &Client) -> Vec<u8> {
    let mut response = vec![wire::ACCOUNTING_RESPONSE, request.identifier(), 0, 0];
    response.extend_from_slice(&[0; wire::SIGNATURE_BYTES]);
    for state in request.attributes().filter(|attribute| attribute.kind == wire::PROXY_STATE) {
        wire::push_attribute(&mut response, state.kind, state.value);
    }
    wire::close_packet(&mut response);
    wire::sign_response(&mut response, &request.authenticator(), client.secret.as_bytes());
    response
}
