//! Requests to devices, from whoever decides about them to the socket that reaches the device.
//!
//! A socket ("seat") has an inbox. Plain datagrams and CoAP requests leave by a socket of their
//! own, so that whatever port a device answers from, its answer finds the request; CoAP requests to
//! a device with a DTLS session, and all of LwM2M, leave where the device was heard last.

use std::net::SocketAddr;
use std::sync::Arc;

use coap::wire::{Code, ContentFormat};
use dtls::SessionId;
use lwm2m::{Link, Operation, Registry};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vocabulary::Iccid;

use crate::routes::Routes;

/// A request to a device.
#[derive(Debug)]
pub struct Order {
    /// Names it in [`Ingest::report`](crate::Ingest::report).
    pub id: u64,
    /// To whom.
    pub device: Iccid,
    /// What.
    pub what: What,
}

/// What is asked of a device.
#[derive(Debug)]
pub enum What {
    /// To take a datagram; nobody knows whether it arrives.
    Datagram {
        /// The device's address.
        to: SocketAddr,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// To answer a CoAP request.
    Request {
        /// The device's address; a DTLS session of the device goes before.
        to: SocketAddr,
        /// The request.
        request: Box<coap::Request>,
    },
    /// An operation of LwM2M on a registered device.
    Operation(Box<Operation>),
}

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEnd {
    /// The datagram was sent.
    Sent,
    /// The device answered.
    Answered {
        /// The code: a success, or an error of the device.
        code: Code,
        /// The format of the payload.
        format: Option<ContentFormat>,
        /// The payload; what LwM2M read is flat JSON.
        payload: Vec<u8>,
    },
    /// The device did not answer.
    Unreachable(String),
    /// The request makes no sense for the device: it was not sent.
    Invalid(String),
    /// Nothing was sent: the device is not registered, or a limit is hit.
    NotSent(String),
}

/// What comes into the inbox of a socket.
#[derive(Debug)]
pub(crate) enum Posted {
    /// An order, for a device that is reached by `link`.
    Order { order: Order, link: Link },
    /// A device of LwM2M that was heard here has operations that wait.
    Advance(Iccid),
}

/// The inbox of a socket.
pub(crate) type Inbox = UnboundedReceiver<Posted>;

/// Gives orders to the sockets. Clones share it.
///
/// The inboxes need no limit of their own: whoever gives orders has one under way per device.
#[derive(Clone)]
pub struct Downlink(Arc<Seats>);

struct Seats {
    /// By the number of the seat.
    inboxes: Vec<UnboundedSender<Posted>>,
    /// Where plain datagrams and CoAP requests leave.
    commands: Option<usize>,
    /// One of the sockets of LwM2M, for devices that were not heard since the start.
    lwm2m: Option<usize>,
    routes: Routes,
    registry: Registry,
}

impl Downlink {
    /// With an inbox for each seat; `commands` and `lwm2m` are seats of the kind, where there are
    /// any.
    pub(crate) fn new(
        seats: usize,
        (commands, lwm2m): (Option<usize>, Option<usize>),
        (routes, registry): (Routes, Registry),
    ) -> (Self, Vec<Inbox>) {
        let (inboxes, receivers) = (0..seats).map(|_| unbounded_channel()).unzip();
        let seats = Seats { inboxes, commands, lwm2m, routes, registry };
        (Self(Arc::new(seats)), receivers)
    }

    /// Gives an order; it ends with [`Ingest::report`](crate::Ingest::report). Never blocks.
    ///
    /// # Errors
    /// Why no socket can take it; it is not reported then.
    pub fn send(&self, order: Order) -> Result<(), &'static str> {
        let seats = &*self.0;
        let (seat, link) = match &order.what {
            What::Datagram { to, .. } => (seats.commands, Link::Address(*to)),
            What::Request { to, .. } => match seats.routes.find(order.device) {
                Some((seat, session)) => (Some(seat), Link::Session(session.as_u64())),
                None => (seats.commands, Link::Address(*to)),
            },
            What::Operation(_) => match seats.registry.contact(order.device) {
                Some(contact) => (usize::try_from(contact.seat).ok(), contact.link),
                None if !seats.registry.is_registered(order.device) => {
                    return Err("the device is not registered");
                }
                // Not heard since the start: any of the sockets lets the operation wait for it.
                None => (None, Link::Session(0)),
            },
        };
        let is_lwm2m = matches!(order.what, What::Operation(_));
        let inbox = seat.and_then(|seat| seats.inboxes.get(seat));
        let fallback = seats.lwm2m.filter(|_| is_lwm2m).and_then(|seat| seats.inboxes.get(seat));
        let inbox =
            inbox.or(fallback).ok_or("no listener is configured that reaches the device")?;
        inbox.send(Posted::Order { order, link }).map_err(|_| "the gateway is stopping")
    }

    /// Forgets a DTLS session over which a device did not answer.
    pub(crate) fn forget(&self, device: Iccid, session: SessionId) {
        self.0.routes.forget(device, session);
    }

    /// Tells the socket `seat` that operations wait for a device that it hears.
    pub(crate) fn advance(&self, device: Iccid, seat: u32) {
        let inbox = usize::try_from(seat).ok().and_then(|seat| self.0.inboxes.get(seat));
        // A socket that is gone hears no device.
        let _ = inbox.map(|inbox| inbox.send(Posted::Advance(device)));
    }

    /// The registrations of LwM2M.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }
}
