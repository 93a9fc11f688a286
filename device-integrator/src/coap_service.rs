//! CoAP for devices, whatever carries it: drives one endpoint, and asks the pipeline.
//!
//! It has one rule: a request that is an uplink is answered by the receipt of its admission and by
//! nothing else. Until the commit the device hears nothing, which is safe: it retransmits, and the
//! endpoint joins the copies.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use coap::wire::Code;
use coap::{Endpoint, Event, IncomingRequest, Output, RequestId};
use dtls::SessionId;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lwm2m::Link;
use vocabulary::{Iccid, Protocol};

use crate::bootstrap::{self, Credentials};
use crate::counters::{CoapMetrics, Counters};
use crate::listeners::CoapLimits;
use crate::orders::{Downlink, Inbox, Order, OrderEnd, Posted, What};
use crate::oversized::{self, Oversized};
use crate::resource::{self, Queries, Route};
use crate::service::{Arrival, Carrier, PeerKey, Service, random_seed};
use crate::stranger::{self, Stranger};
use crate::uplink::{Exchange, Ingest, Peer, Receipt, Uplink};

/// The CoAP of one socket. `P` is what tells its peers from each other: addresses, or sessions.
pub(crate) struct CoapService<P, I: Ingest> {
    body_bytes_max: usize,
    endpoint: Endpoint<P>,
    ingest: I,
    counters: Counters,
    metrics: CoapMetrics,
    /// Memory for the answer to a stranger.
    answer: Vec<u8>,
    /// Uplinks of the batch at hand, and the exchanges that wait for their receipts.
    uplinks: Vec<Uplink>,
    exchanges: Vec<Waiting<P>>,
    admissions: FuturesUnordered<Pending<I::Admission, P>>,
    bootstraps: FuturesUnordered<Asked<I::Bootstrap, P>>,
    orders: Orders,
    downlink: Downlink,
}

/// A device that waits for the receipt of its uplink.
struct Waiting<P> {
    exchange: coap::Exchange<P>,
    /// Who asks for a command with the answer.
    asks: Option<Peer>,
}

/// Requests to devices.
struct Orders {
    inbox: Inbox,
    /// Out of the inbox, and not yet sent.
    posted: Vec<Posted>,
    under_way: HashMap<RequestId, UnderWay>,
}

/// A request to a device that waits for its answer.
struct UnderWay {
    order: u64,
    device: Iccid,
    link: Link,
}

/// A batch on its way into the log, with the exchanges that its receipts answer.
struct Pending<A, P> {
    admission: Pin<Box<A>>,
    exchanges: Vec<Waiting<P>>,
}

/// A device that waits for its key.
struct Asked<B, P> {
    bootstrap: Pin<Box<B>>,
    exchange: Option<coap::Exchange<P>>,
}

impl<P: PeerKey, I: Ingest> CoapService<P, I> {
    /// A service that also gives the orders of `inbox` to devices.
    pub(crate) fn new(limits: CoapLimits, ingest: I, (inbox, downlink): (Inbox, Downlink)) -> Self {
        Self {
            body_bytes_max: limits.body_bytes_max,
            endpoint: Endpoint::new(limits.endpoint(), random_seed())
                .with_peer_match(is_same_host::<P>),
            ingest,
            counters: Counters::new(Protocol::Coap),
            metrics: CoapMetrics::new(Protocol::Coap),
            answer: Vec::new(),
            uplinks: Vec::new(),
            exchanges: Vec::new(),
            admissions: FuturesUnordered::new(),
            bootstraps: FuturesUnordered::new(),
            orders: Orders { inbox, posted: Vec::new(), under_way: HashMap::new() },
            downlink,
        }
    }

    /// Writes the answer to a sender that may not speak, without a memory of it.
    fn refuse(&mut self, bytes: &[u8], reason: &'static str) {
        match stranger::answer(bytes, reason, &mut self.answer) {
            Stranger::Refused => self.counters.receipt(&Receipt::Unauthorised(reason)),
            Stranger::Malformed => self.counters.malformed("stranger", 1),
            Stranger::Control => self.counters.control.increment(1),
        }
    }

    fn send_answer(&self, to: P, carrier: &mut impl Carrier<P>) {
        if !self.answer.is_empty() {
            carrier.send(to, &self.answer);
        }
    }

    /// Takes the endpoint's outputs after a datagram, before the next one: a request is of whoever
    /// sent its last datagram, and of nobody else.
    fn collect(
        &mut self,
        arrival: Arrival,
        (peer, iccid): (Peer, Iccid),
        carrier: &mut impl Carrier<P>,
    ) {
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => carrier.send(peer, &bytes),
                Output::Event(Event::Request(request)) => self.request(arrival, peer, request),
                Output::Event(event) => self.conclude(event, Some(iccid)),
                Output::Timeout(_) => return,
            }
        }
    }

    fn request(&mut self, arrival: Arrival, peer: Peer, request: IncomingRequest<P>) {
        match resource::route(&request, self.body_bytes_max) {
            Route::Answer(response) => {
                match response.code {
                    Code::BAD_REQUEST => self.counters.malformed("request", 1),
                    Code::REQUEST_ENTITY_TOO_LARGE => self.counters.malformed("too_long", 1),
                    Code::UNSUPPORTED_CONTENT_FORMAT => self.counters.malformed("format", 1),
                    _ => self.counters.control.increment(1),
                }
                self.endpoint.respond(arrival.now, request.exchange, response);
            }
            Route::Bootstrap => {
                let bootstrap = Box::pin(self.ingest.bootstrap(peer, arrival.received_at));
                self.bootstraps.push(Asked { bootstrap, exchange: Some(request.exchange) });
            }
            Route::Uplink(Queries { topic, command }) => {
                self.uplinks.push(Uplink {
                    peer,
                    protocol: Protocol::Coap,
                    topic,
                    exchange: Some(exchange(&request.exchange)),
                    asks_command: command,
                    measured: None,
                    payload: request.payload,
                    received_at: arrival.received_at,
                });
                let asks = command.then_some(peer);
                self.exchanges.push(Waiting { exchange: request.exchange, asks });
            }
        }
    }

    /// Answers the exchanges of a batch.
    fn settle(&mut self, exchanges: Vec<Waiting<P>>, receipts: &[Receipt]) {
        let now = Instant::now();
        for (Waiting { exchange, asks }, receipt) in exchanges.into_iter().zip(receipts) {
            self.counters.receipt(receipt);
            let asks = asks.filter(|_| *receipt == Receipt::Stored);
            match asks.and_then(|peer| self.ingest.rider(peer)) {
                None => self.endpoint.respond(now, exchange, resource::answer(receipt)),
                Some(rider) => {
                    let order = rider.order;
                    self.endpoint.respond(now, exchange, resource::answer_with(rider));
                    self.ingest.report(order, OrderEnd::Sent);
                }
            }
        }
    }

    /// Sends what came out of the inbox.
    fn give_orders(&mut self, carrier: &mut impl Carrier<P>) {
        for posted in std::mem::take(&mut self.orders.posted) {
            let Posted::Order { order, link } = posted else { continue };
            let id = order.id;
            if let Err(end) = self.give_order(order, link, carrier) {
                self.ingest.report(id, end);
            }
        }
    }

    /// Sends one; says how it ended where it did.
    fn give_order(
        &mut self,
        Order { id, device, what }: Order,
        link: Link,
        carrier: &mut impl Carrier<P>,
    ) -> Result<(), OrderEnd> {
        let not_sent = |reason: &str| OrderEnd::NotSent(reason.to_owned());
        let Some(peer) = P::of(link).filter(|peer| carrier.reaches(device, *peer)) else {
            // The session has ended, and is not looked for again.
            return self.downlink.send(Order { id, device, what }).map_err(not_sent);
        };
        match what {
            What::Datagram { payload, .. } => {
                carrier.send(peer, &payload);
                Err(OrderEnd::Sent)
            }
            What::Request { request, .. } => {
                let sent = self.endpoint.request(Instant::now(), peer, *request);
                let request = sent.map_err(|refused| not_sent(&refused.to_string()))?;
                let waiting = UnderWay { order: id, device, link };
                self.orders.under_way.insert(request, waiting);
                Ok(())
            }
            What::Operation(_) => Err(not_sent("this listener does not speak LwM2M")),
        }
    }

    /// Reports the end of a request of ours; `heard` is whose datagram ended it.
    fn conclude(&mut self, event: Event<P>, heard: Option<Iccid>) {
        let (request, mut end) = match event {
            Event::Response(response) => {
                let (code, format) = (response.code, response.content_format());
                (response.request, OrderEnd::Answered { code, format, payload: response.payload })
            }
            Event::RequestFailed { request, failure, .. } => {
                (request, OrderEnd::Unreachable(failure.to_string()))
            }
            // Nothing is observed here.
            Event::Request(_) | Event::Notification(_) | Event::ObservationCancelled { .. } => {
                return;
            }
        };
        let Some(waiting) = self.orders.under_way.remove(&request) else { return };
        let UnderWay { order, device, link } = waiting;
        if matches!(end, OrderEnd::Answered { .. }) && heard != Some(device) {
            // The address went to another SIM meanwhile.
            end = OrderEnd::Unreachable("another device answered".to_owned());
        }
        if let (OrderEnd::Unreachable(_), Link::Session(session)) = (&end, link) {
            // The device may have lost it: the next request goes to its address.
            self.downlink.forget(device, SessionId::from_u64(session));
        }
        self.ingest.report(order, end);
    }

    /// Answers a device that asked for its key.
    fn tell(&mut self, exchange: Option<coap::Exchange<P>>, told: &Result<Credentials, Receipt>) {
        let Some(exchange) = exchange else { return };
        // A key is not kept for copies of the request, and they get the one that is valid then.
        self.endpoint.forget(&exchange);
        let response = match told {
            Ok(credentials) => {
                self.counters.control.increment(1);
                bootstrap::answer(credentials, exchange.token().as_bytes().len())
            }
            Err(receipt) => {
                self.counters.receipt(receipt);
                resource::answer(receipt)
            }
        };
        self.endpoint.respond(Instant::now(), exchange, response);
    }
}

impl<P: PeerKey, I: Ingest> Service<P> for CoapService<P, I> {
    fn handle_datagram(
        &mut self,
        arrival: Arrival,
        (from, peer): (P, Peer),
        bytes: &[u8],
        carrier: &mut impl Carrier<P>,
    ) {
        self.counters.received.increment(1);
        let iccid = match self.ingest.screen(peer, Protocol::Coap, arrival.received_at) {
            Ok(iccid) => iccid,
            Err(refused) => {
                self.refuse(bytes, refused.reason);
                self.send_answer(from, carrier);
                carrier.refused(from, refused);
                return;
            }
        };
        match oversized::find(bytes, self.body_bytes_max) {
            None => {
                self.endpoint.handle_datagram(arrival.now, from, bytes);
                self.collect(arrival, (peer, iccid), carrier);
            }
            Some(Oversized { reason, answer }) => {
                self.counters.malformed(reason, 1);
                self.answer = answer;
                self.send_answer(from, carrier);
            }
        }
    }

    fn admit(&mut self) {
        if !self.uplinks.is_empty() {
            let admission = self.ingest.admit(std::mem::take(&mut self.uplinks));
            let exchanges = std::mem::take(&mut self.exchanges);
            self.admissions.push(Pending { admission: Box::pin(admission), exchanges });
        }
    }

    async fn answer_next(&mut self) {
        tokio::select! {
            Some((exchanges, receipts)) = self.admissions.next() => {
                self.settle(exchanges, &receipts);
            }
            Some((exchange, told)) = self.bootstraps.next() => self.tell(exchange, &told),
            Some(posted) = self.orders.inbox.recv() => {
                self.orders.posted.push(posted);
                while let Ok(posted) = self.orders.inbox.try_recv() {
                    self.orders.posted.push(posted);
                }
            }
            else => std::future::pending().await,
        }
    }

    fn is_idle(&self) -> bool {
        self.admissions.is_empty() && self.bootstraps.is_empty()
    }

    fn drain(&mut self, carrier: &mut impl Carrier<P>) -> Option<Instant> {
        self.give_orders(carrier);
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => carrier.send(peer, &bytes),
                // Requests of devices come out of a read only, and are taken there.
                Output::Event(event) => self.conclude(event, None),
                Output::Timeout(wake) => return wake,
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
    }

    fn update_metrics(&mut self) {
        self.metrics.update(&self.endpoint.counters());
    }
}

/// Some devices answer from another port than the one they listen on.
fn is_same_host<P: PeerKey>(left: &P, right: &P) -> bool {
    match (left.link(), right.link()) {
        (Link::Address(left), Link::Address(right)) => left.ip() == right.ip(),
        (left, right) => left == right,
    }
}

fn exchange<P: Copy>(exchange: &coap::Exchange<P>) -> Exchange {
    let given = exchange.token();
    let mut token = [0; 8];
    for (place, byte) in token.iter_mut().zip(given.as_bytes()) {
        *place = *byte;
    }
    // A token has at most eight bytes.
    let token_length = u8::try_from(given.as_bytes().len()).unwrap_or(8);
    let confirmable = exchange.is_confirmable();
    Exchange { message_id: exchange.id().0, token, token_length, confirmable, part: 0 }
}

impl<A: Future<Output = Vec<Receipt>>, P: Unpin> Future for Pending<A, P> {
    type Output = (Vec<Waiting<P>>, Vec<Receipt>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.admission
            .as_mut()
            .poll(context)
            .map(|receipts| (std::mem::take(&mut this.exchanges), receipts))
    }
}

impl<B, P> Future for Asked<B, P>
where
    B: Future<Output = Result<Credentials, Receipt>>,
    P: Unpin,
{
    type Output = (Option<coap::Exchange<P>>, Result<Credentials, Receipt>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.bootstrap.as_mut().poll(context).map(|told| (this.exchange.take(), told))
    }
}
