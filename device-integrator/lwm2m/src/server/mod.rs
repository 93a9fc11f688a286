//! An LwM2M server on one socket.
//!
//! A request of a device:
//! 1. the endpoint gives it once, with its copies joined;
//! 2. what must be durable leaves as an event with a ticket, and the exchange waits;
//! 3. `settle` answers it.
//!
//! An operation on a device:
//! 1. it waits in the registry, where every server finds it;
//! 2. the server that hears the device takes it when the device is awake and free;
//! 3. answer, reset or time end it.

mod bootstrap;
mod config;
mod counters;
mod notifications;
mod operations;
mod passive;
mod register;
mod requests;
mod send;
mod tickets;
mod translate;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use coap::Endpoint;
use hashbrown::HashMap;
use vocabulary::Iccid;

pub use config::{Account, Files, ServerConfig};
pub use counters::Counters;

use self::bootstrap::Bootstraps;
use self::notifications::Fetches;
use self::operations::Flights;
use self::tickets::Tickets;
use crate::contact::{Contact, Device, Moment};
use crate::event::{Event, Outcome, Output};
use crate::model::Model;
use crate::registry::{Ending, Registry};

/// An LwM2M server and bootstrap server on one socket: without the socket, without a clock.
///
/// After every call poll [`Server::poll_output`] until [`Output::Timeout`]. What devices do wrong
/// is counted, never an error.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    registry: Registry,
    model: Arc<Model>,
    seat: u32,
    endpoint: Endpoint<Contact>,
    counters: Counters,
    outputs: VecDeque<Output>,
    timer: Option<Instant>,
    tickets: Tickets,
    flights: Flights,
    fetches: Fetches,
    bootstraps: Bootstraps,
    passive: bool,
}

impl Server {
    /// A server; the seed must be random and secret, and another one for each server.
    pub fn new(
        config: ServerConfig,
        registry: Registry,
        model: Arc<Model>,
        seat: u32,
        seed: u64,
    ) -> Self {
        let mut coap = config.coap.clone();
        coap.owner_keeps_observations = true;
        Self {
            registry,
            model,
            seat,
            endpoint: Endpoint::new(coap, seed).with_peer_match(Contact::is_same_host),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            timer: None,
            tickets: Tickets::default(),
            flights: Flights::default(),
            fetches: Fetches::default(),
            bootstraps: HashMap::new(),
            passive: false,
            config,
        }
    }

    /// Takes a datagram of a device.
    pub fn handle_datagram(&mut self, moment: Moment, from: Contact, device: Device, bytes: &[u8]) {
        self.counters.received += 1;
        if self.outputs.len() >= self.config.coap.limits.outputs_max {
            self.counters.overflowed += 1;
            return;
        }
        self.end_removed();
        let has_work = self.hear(moment, from, device);
        self.endpoint.handle_datagram(moment.now, from, bytes);
        self.drain(moment, Some(device));
        // After the answer, so that a device that woke up hears that first.
        if has_work {
            self.advance_quietly(moment, device.iccid);
            self.drain(moment, None);
        }
    }

    /// Does what is due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, moment: Moment) {
        self.end_removed();
        self.endpoint.handle_timeout(moment.now);
        self.sweep_fetches(moment);
        self.drain(moment, None);
    }

    /// The next thing to do; poll until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or(Output::Timeout(self.timer))
    }

    /// Whether each registration and update is followed by reading the device's objects.
    pub fn set_passive_reporting(&mut self, on: bool) {
        self.passive = on;
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What happened so far in the CoAP endpoint.
    pub fn coap_counters(&self) -> coap::Counters {
        self.endpoint.counters()
    }

    /// Bootstraps under way.
    pub fn bootstraps(&self) -> usize {
        self.bootstraps.len()
    }

    /// Tickets not settled.
    pub fn tickets(&self) -> usize {
        self.tickets.len()
    }

    /// Notes that a device was heard; whether something waits for it.
    fn hear(&mut self, moment: Moment, from: Contact, device: Device) -> bool {
        let Some(heard) = self.registry.hear(device, from, moment) else { return false };
        if let Some(state) = heard.moved {
            self.counters.moved += 1;
            if heard.left {
                self.abandon_flight(moment, device.iccid);
            }
            self.emit(Event::SaveSoon { iccid: device.iccid, state: Some(state) });
        }
        heard.has_work || self.fetches.has(device.iccid)
    }

    /// Takes over what the endpoint wants, until it rests. `device` sent the datagram that it was
    /// given; without one nothing was received.
    fn drain(&mut self, moment: Moment, device: Option<Device>) {
        loop {
            match self.endpoint.poll_output() {
                coap::Output::Transmit { peer, bytes } => {
                    self.outputs.push_back(Output::Transmit { to: peer, bytes });
                }
                coap::Output::Event(event) => self.handle_event(moment, device, event),
                coap::Output::Timeout(timer) => {
                    self.timer = timer;
                    return;
                }
            }
        }
    }

    fn handle_event(
        &mut self,
        moment: Moment,
        device: Option<Device>,
        event: coap::Event<Contact>,
    ) {
        match (event, device) {
            (coap::Event::Request(request), Some(device)) => {
                self.handle_request(moment, device, request);
            }
            (coap::Event::Response(response), Some(device)) => {
                self.handle_response(moment, device, response);
            }
            (coap::Event::Notification(notification), Some(device)) => {
                self.handle_notification(moment, device, notification);
            }
            (coap::Event::RequestFailed { request, failure, .. }, _) => {
                self.handle_failure(moment, request, failure);
            }
            // Nobody observes anything here, and without a datagram nothing is received.
            _ => {}
        }
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn notice(&mut self, iccid: Iccid, message: &'static str, description: impl Into<String>) {
        self.emit(Event::Notice { iccid, message, description: description.into() });
    }

    /// Ends the operations that ended in the registry, because the owner removed their device or
    /// they waited for too long.
    fn end_removed(&mut self) {
        for (iccid, command, ending) in self.registry.take_ended() {
            let outcome = match ending {
                Ending::Removed => Outcome::NotRegistered,
                Ending::Overdue => operations::overdue(),
            };
            self.end_command(iccid, command, outcome);
        }
    }
}
