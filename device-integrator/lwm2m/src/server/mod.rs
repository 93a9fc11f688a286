//! An LwM2M server on one socket.

mod config;
mod counters;

use std::sync::Arc;

use vocabulary::Iccid;

pub use config::{Account, ServerConfig};
pub use counters::Counters;

use crate::contact::{Contact, Device, Moment};
use crate::event::{Output, Ticket, Verdict};
use crate::model::Model;
use crate::operation::Operation;
use crate::registry::Registry;

/// An LwM2M server and bootstrap server on one socket: without the socket, without a clock.
///
/// After every call poll [`Server::poll_output`] until [`Output::Timeout`]. What devices do wrong
/// is counted, never an error.
#[derive(Debug)]
pub struct Server {
    counters: Counters,
}

impl Server {
    /// A server; the seed must be random and secret, and another one for each server.
    pub fn new(
        _config: ServerConfig,
        _registry: Registry,
        _model: Arc<Model>,
        _seat: u32,
        _seed: u64,
    ) -> Self {
        Self { counters: Counters::default() }
    }

    /// Takes a datagram of a device.
    pub fn handle_datagram(
        &mut self,
        _moment: Moment,
        _from: Contact,
        _device: Device,
        _bytes: &[u8],
    ) {
    }

    /// Does what is due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, _moment: Moment) {}

    /// The next thing to do; poll until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        Output::Timeout(None)
    }

    /// Takes what became of a ticket.
    pub fn settle(&mut self, _moment: Moment, _ticket: Ticket, _verdict: Verdict) {}

    /// Does an operation on a device; it ends with [`crate::Event::CommandEnded`], always.
    pub fn command(
        &mut self,
        _moment: Moment,
        _iccid: Iccid,
        _command: u64,
        _operation: Operation,
    ) {
    }

    /// Sends what waits for a device, if it is its turn.
    pub fn advance(&mut self, _moment: Moment, _iccid: Iccid) {}

    /// Whether each registration and update is followed by reading the device's objects.
    pub fn set_passive_reporting(&mut self, _on: bool) {}

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What happened so far in the CoAP endpoint.
    pub fn coap_counters(&self) -> coap::Counters {
        coap::Counters::default()
    }
}
