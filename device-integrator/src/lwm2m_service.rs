//! LwM2M for devices, whatever carries it: drives one server, and asks the pipeline.
//!
//! It has the rule of the CoAP service: what a device must not lose is answered by the receipt of
//! its admission and by nothing else. That holds for a Send and for a notification, and for a
//! registration, which has to be durable before the device hears of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coap::wire::ContentFormat;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lwm2m::{
    Contact, Device, Event, Exchanged, Moment, Origin, Outcome, Output, Security, Server, Ticket,
    Verdict,
};
use tracing::debug;
use vocabulary::{Protocol, Timestamp};

use crate::counters::{CoapMetrics, Counters, Lwm2mMetrics};
use crate::orders::{Downlink, Inbox, Order, OrderEnd, Posted, What};
use crate::oversized::{self, Oversized};
use crate::service::{Arrival, Carrier, PeerKey, Service};
use crate::stranger::{self, Stranger};
use crate::uplink::{
    Exchange, Ingest, KeyAccount, Peer, Receipt, RegistrationChange, ServerKey, Shed, Uplink,
};

/// The LwM2M of one socket.
pub(crate) struct Lwm2mService<I: Ingest> {
    server: Server,
    body_bytes_max: usize,
    seat: u32,
    ingest: I,
    counters: Counters,
    coap_metrics: CoapMetrics,
    metrics: Lwm2mMetrics,
    /// Memory for the answer to a stranger.
    answer: Vec<u8>,
    /// What the batch at hand asks of the pipeline.
    uplinks: Vec<Uplink>,
    waiting: Vec<Waiting>,
    changes: Vec<RegistrationChange>,
    registering: Vec<Ticket>,
    notes: Vec<RegistrationChange>,
    admissions: FuturesUnordered<Pending<I::Admission, Vec<Waiting>>>,
    registrations: FuturesUnordered<Pending<I::Registering, Vec<Ticket>>>,
    renewals: FuturesUnordered<Pending<I::Renewal, Option<Ticket>>>,
    inbox: Inbox,
    /// Out of the inbox, and not yet given to the server.
    posted: Vec<Posted>,
    downlink: Downlink,
    passive_reporting: Arc<AtomicBool>,
}

/// Who waits for the receipt of an uplink, and what it says of a datagram.
struct Waiting {
    ticket: Option<Ticket>,
    /// Whether it is the fate of the datagram that brought the uplink. It is not for an answer to
    /// a request of ours, which is a datagram like an acknowledgement, and of several uplinks of
    /// one datagram for the first alone.
    is_fate: bool,
}

/// To a device that registers or bootstraps faster than it may send.
const TOO_FAST: Receipt = Receipt::Unavailable {
    reason: Shed::DeviceTooFast,
    // As for its messages: an allowance is at least one per second.
    retry_after: Duration::from_secs(1),
};

/// Something asked of the pipeline, and who waits for it.
struct Pending<F, W> {
    asked: Pin<Box<F>>,
    waiting: W,
}

impl<I: Ingest> Lwm2mService<I> {
    /// A service on the socket `seat`, which also gives the orders of `inbox` to devices.
    pub(crate) fn new(
        (server, body_bytes_max, seat): (Server, usize, u32),
        ingest: I,
        (inbox, downlink): (Inbox, Downlink),
        passive_reporting: Arc<AtomicBool>,
    ) -> Self {
        Self {
            server,
            body_bytes_max,
            seat,
            ingest,
            counters: Counters::new(Protocol::Lwm2m),
            coap_metrics: CoapMetrics::of_lwm2m(),
            metrics: Lwm2mMetrics::default(),
            answer: Vec::new(),
            uplinks: Vec::new(),
            waiting: Vec::new(),
            changes: Vec::new(),
            registering: Vec::new(),
            notes: Vec::new(),
            admissions: FuturesUnordered::new(),
            registrations: FuturesUnordered::new(),
            renewals: FuturesUnordered::new(),
            inbox,
            posted: Vec::new(),
            downlink,
            passive_reporting,
        }
    }

    /// Answers a sender that may not speak, without a memory of it.
    fn refuse<P: PeerKey>(
        &mut self,
        from: P,
        bytes: &[u8],
        reason: &'static str,
        carrier: &mut impl Carrier<P>,
    ) {
        match stranger::answer(bytes, reason, &mut self.answer) {
            Stranger::Refused => self.counters.receipt(&Receipt::Unauthorised(reason)),
            Stranger::Malformed => self.counters.malformed("stranger", 1),
            Stranger::Control => self.counters.control.increment(1),
        }
        if !self.answer.is_empty() {
            carrier.send(from, &self.answer);
        }
    }

    /// Takes the server's outputs. `heard` is whose datagram they come of: only a datagram brings
    /// values.
    fn collect<P: PeerKey>(
        &mut self,
        heard: Option<(Peer, Timestamp)>,
        carrier: &mut impl Carrier<P>,
    ) -> Option<Instant> {
        loop {
            match self.server.poll_output() {
                Output::Transmit { to, bytes } => {
                    if let Some(peer) = P::of(to.link) {
                        carrier.send(peer, &bytes);
                    }
                }
                Output::Event(event) => self.handle(event, heard),
                Output::Timeout(wake) => return wake,
            }
        }
    }

    fn handle(&mut self, event: Event, heard: Option<(Peer, Timestamp)>) {
        match event {
            Event::Save { ticket, iccid, state } => {
                if state.is_some() && !self.ingest.allows(iccid) {
                    return self.settle(ticket, &TOO_FAST);
                }
                self.changes.push(RegistrationChange { iccid, state });
                self.registering.push(ticket);
            }
            Event::SaveSoon { iccid, state } => {
                self.notes.push(RegistrationChange { iccid, state });
            }
            Event::Uplink { ticket, iccid, exchange, measured_at, payload, origin, .. } => {
                let Some((peer, received_at)) = heard else {
                    debug!(?iccid, "values without a datagram are left out");
                    if let Some(ticket) = ticket {
                        self.settle(ticket, &Receipt::Unauthorised("nobody sent it"));
                    }
                    return;
                };
                self.uplinks.push(Uplink {
                    peer,
                    protocol: Protocol::Lwm2m,
                    topic: None,
                    exchange: exchange.as_ref().map(exchange_of),
                    asks_command: false,
                    measured: measured_at,
                    payload,
                    received_at,
                });
                let is_fate = matches!(origin, Origin::Send | Origin::Notification);
                self.waiting.push(Waiting { ticket, is_fate });
            }
            Event::Awake { iccid, registered } => self.ingest.awake(iccid, registered),
            Event::NeedKey { ticket, iccid } => {
                if !self.ingest.allows(iccid) {
                    return self.settle(ticket, &TOO_FAST);
                }
                let asked = Box::pin(self.ingest.renew_key(iccid));
                self.renewals.push(Pending { asked, waiting: Some(ticket) });
            }
            // The server says of one that failed why, as a notice.
            Event::BootstrapEnded { .. } => {}
            Event::CommandEnded { command, outcome, .. } => {
                self.ingest.report(command, end_of(outcome));
            }
            Event::Elsewhere { iccid, seat } => self.downlink.advance(iccid, seat),
            Event::Notice { iccid, message, description } => {
                self.ingest.note(iccid, message, &description);
            }
        }
    }

    /// Counts the datagram that was handled since `before`, unless the endpoint or a receipt does:
    /// the uplinks from `first` on came of it.
    fn count(&mut self, before: &(coap::Counters, lwm2m::Counters), first: usize) {
        let (mut fates, brought) = (0, &mut self.waiting[first..]);
        for waiting in brought.iter_mut().filter(|waiting| waiting.is_fate) {
            fates += 1;
            waiting.is_fate = fates == 1;
        }
        let now = (self.server.coap_counters(), self.server.counters());
        // Otherwise its receipt will tell.
        if fates == 0 {
            self.counters.lwm2m_datagram(before, &now);
        }
    }

    /// Settles what waited for one receipt.
    fn settle(&mut self, ticket: Ticket, receipt: &Receipt) {
        self.server.settle(moment(), ticket, verdict(receipt));
    }

    fn take_posted<P: PeerKey>(&mut self, posted: Posted, carrier: &mut impl Carrier<P>) {
        let Order { id, device, what } = match posted {
            Posted::Order { order, .. } => order,
            Posted::Advance(device) => return self.server.advance(moment(), device),
        };
        match what {
            What::Operation(operation) => {
                let place = self.downlink.registry().contact(device);
                let here = place.filter(|contact| contact.seat == self.seat);
                // A session whose key was replaced is nobody's; the next one will be heard.
                let peer = here.and_then(|contact| P::of(contact.link));
                if peer.is_some_and(|peer| !carrier.reaches(device, peer)) {
                    let end = OrderEnd::Unreachable("the session of the device has ended".into());
                    self.ingest.report(id, end);
                    return;
                }
                self.server.command(moment(), device, id, *operation);
            }
            What::Datagram { .. } | What::Request { .. } => {
                let end = OrderEnd::NotSent("this listener speaks LwM2M only".to_owned());
                self.ingest.report(id, end);
            }
        }
    }

    /// Gives what was collected to the pipeline.
    fn ask(&mut self) {
        if !self.uplinks.is_empty() {
            let asked = Box::pin(self.ingest.admit(std::mem::take(&mut self.uplinks)));
            let waiting = std::mem::take(&mut self.waiting);
            self.admissions.push(Pending { asked, waiting });
        }
        // Before what is waited for, which is newer of the same device.
        if !self.notes.is_empty() {
            self.ingest.note_registrations(std::mem::take(&mut self.notes));
        }
        if !self.changes.is_empty() {
            let asked = Box::pin(self.ingest.register(std::mem::take(&mut self.changes)));
            let waiting = std::mem::take(&mut self.registering);
            self.registrations.push(Pending { asked, waiting });
        }
    }
}

impl<P: PeerKey, I: Ingest> Service<P> for Lwm2mService<I> {
    fn handle_datagram(
        &mut self,
        arrival: Arrival,
        (from, peer): (P, Peer),
        bytes: &[u8],
        carrier: &mut impl Carrier<P>,
    ) {
        self.counters.received.increment(1);
        let iccid = match self.ingest.screen(peer, Protocol::Lwm2m, arrival.received_at) {
            Ok(iccid) => iccid,
            Err(refused) => {
                self.refuse(from, bytes, refused.reason, carrier);
                carrier.refused(from, refused);
                return;
            }
        };
        if let Some(Oversized { reason, answer }) = oversized::find(bytes, self.body_bytes_max) {
            self.counters.malformed(reason, 1);
            if !answer.is_empty() {
                carrier.send(from, &answer);
            }
            return;
        }
        let contact = Contact { seat: self.seat, link: from.link() };
        let device = Device { iccid, security: security(peer) };
        let moment = Moment { now: arrival.now, at: arrival.received_at };
        let before = (self.server.coap_counters(), self.server.counters());
        let first = self.waiting.len();
        self.server.handle_datagram(moment, contact, device, bytes);
        self.collect(Some((peer, arrival.received_at)), carrier);
        self.count(&before, first);
    }

    fn admit(&mut self) {
        self.ask();
    }

    async fn answer_next(&mut self) {
        tokio::select! {
            Some((waiting, receipts)) = self.admissions.next() => {
                for (Waiting { ticket, is_fate }, receipt) in waiting.into_iter().zip(&receipts) {
                    match is_fate {
                        true => self.counters.receipt(receipt),
                        false => self.metrics.receipt(receipt),
                    }
                    if let Some(ticket) = ticket {
                        self.settle(ticket, receipt);
                    }
                }
            }
            Some((waiting, receipt)) = self.registrations.next() => {
                for ticket in waiting {
                    self.settle(ticket, &receipt);
                }
            }
            Some((ticket, key)) = self.renewals.next() => {
                if let Some(ticket) = ticket {
                    let verdict = match key {
                        Ok(ServerKey { identity, key, bootstrap_key }) => {
                            Verdict::Key { identity, key, bootstrap_key }
                        }
                        Err(receipt) => verdict(&receipt),
                    };
                    self.server.settle(moment(), ticket, verdict);
                }
            }
            Some(posted) = self.inbox.recv() => {
                self.posted.push(posted);
                while let Ok(posted) = self.inbox.try_recv() {
                    self.posted.push(posted);
                }
            }
            else => std::future::pending().await,
        }
    }

    fn is_idle(&self) -> bool {
        self.admissions.is_empty() && self.registrations.is_empty() && self.renewals.is_empty()
    }

    fn drain(&mut self, carrier: &mut impl Carrier<P>) -> Option<Instant> {
        for posted in std::mem::take(&mut self.posted) {
            self.take_posted(posted, carrier);
        }
        let wake = self.collect(None, carrier);
        self.ask();
        wake
    }

    fn handle_timeout(&mut self, now: Instant) {
        let at = moment().at;
        self.server.handle_timeout(Moment { now, at });
    }

    fn update_metrics(&mut self) {
        // Operations that ended without a message are told with the next call, and in time.
        self.server.handle_timeout(moment());
        // Looked at now and then: whoever turns it may wait half a second.
        self.server.set_passive_reporting(self.passive_reporting.load(Ordering::Relaxed));
        self.coap_metrics.update(&self.server.coap_counters());
        self.metrics.update(&self.server.counters());
    }
}

fn moment() -> Moment {
    let Arrival { now, received_at } = Arrival::now();
    Moment { now, at: received_at }
}

fn security(peer: Peer) -> Security {
    match peer.key.map(|key| key.account) {
        None | Some(KeyAccount::Coap) => Security::NoSec,
        Some(KeyAccount::Lwm2mBootstrap) => Security::BootstrapKey,
        Some(KeyAccount::Lwm2mServer) => Security::ServerKey,
    }
}

fn verdict(receipt: &Receipt) -> Verdict {
    match receipt {
        Receipt::Stored | Receipt::Duplicate => Verdict::Done,
        Receipt::Unauthorised(reason) => Verdict::Unauthorised(reason),
        Receipt::Unavailable { reason, retry_after } => Verdict::Unavailable {
            retry_after_seconds: u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX),
            too_fast: *reason == Shed::DeviceTooFast,
        },
    }
}

fn end_of(outcome: Outcome) -> OrderEnd {
    match outcome {
        Outcome::Answered { code, format, payload, decoded } => {
            let format = if decoded { Some(ContentFormat::JSON) } else { format };
            OrderEnd::Answered { code, format, payload }
        }
        Outcome::Unreachable(reason) => OrderEnd::Unreachable(reason),
        Outcome::NotRegistered => OrderEnd::NotSent("the device is not registered".to_owned()),
        Outcome::Invalid(reason) => OrderEnd::Invalid(reason),
    }
}

fn exchange_of(exchanged: &Exchanged) -> Exchange {
    let bytes = exchanged.token.as_bytes();
    let mut token = [0; 8];
    for (place, byte) in token.iter_mut().zip(bytes) {
        *place = *byte;
    }
    Exchange {
        message_id: exchanged.message_id,
        token,
        // A token has at most eight bytes.
        token_length: u8::try_from(bytes.len()).unwrap_or(8),
        confirmable: exchanged.confirmable,
        part: exchanged.part,
    }
}

impl<F: Future, W: Default + Unpin> Future for Pending<F, W> {
    type Output = (W, F::Output);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answered = this.asked.as_mut().poll(context);
        answered.map(|answer| (std::mem::take(&mut this.waiting), answer))
    }
}
