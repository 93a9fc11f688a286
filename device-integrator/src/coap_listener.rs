//! The CoAP listener: drives one endpoint over one socket.
//!
//! The loop has one rule: a request that is an uplink is answered by the receipt of its admission
//! and by nothing else. Until the commit the device hears nothing, which is safe: it retransmits,
//! and the endpoint joins the copies.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use coap::wire::Code;
use coap::{Endpoint, Event, IncomingRequest, Output};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use vocabulary::{IdentityClass, Protocol, Timestamp};

use crate::bootstrap::{self, Credentials};
use crate::counters::{CoapMetrics, Counters};
use crate::listeners::CoapListenerConfig;
use crate::oversized::{self, Oversized};
use crate::resource::{self, Route};
use crate::stranger::{self, Stranger};
use crate::udp::{Outgoing, Received, UdpSocket};
use crate::uplink::{Exchange, Ingest, Peer, Receipt, Uplink};

type CoapExchange = coap::Exchange<SocketAddr>;

/// How often the endpoint's counters are carried to the metrics.
const METRICS_INTERVAL: Duration = Duration::from_millis(500);

/// One socket of a CoAP listener.
pub(crate) struct CoapListener<I: Ingest> {
    socket: UdpSocket,
    class: Option<IdentityClass>,
    body_bytes_max: usize,
    endpoint: Endpoint<SocketAddr>,
    ingest: I,
    counters: Counters,
    metrics: CoapMetrics,
    strangers: Strangers,
    received: Received,
    outgoing: Outgoing,
    /// Uplinks of the batch at hand, and the exchanges that wait for their receipts.
    uplinks: Vec<Uplink>,
    exchanges: Vec<CoapExchange>,
    admissions: FuturesUnordered<Pending<I::Admission>>,
    bootstraps: FuturesUnordered<Asked<I::Bootstrap>>,
}

/// Refuses senders that are no known SIM, without a memory of them.
struct Strangers {
    counters: Counters,
    answer: Vec<u8>,
}

/// A batch on its way into the log, with the exchanges that its receipts answer.
struct Pending<A> {
    admission: Pin<Box<A>>,
    exchanges: Vec<CoapExchange>,
}

/// A device that waits for its key.
struct Asked<B> {
    bootstrap: Pin<Box<B>>,
    exchange: Option<CoapExchange>,
}

impl<I: Ingest> CoapListener<I> {
    pub(crate) fn new(config: &CoapListenerConfig, socket: UdpSocket, ingest: I) -> Self {
        let limits = coap::Limits {
            upload_bytes_max: config.body_bytes_max,
            exchanges_max: u32::try_from(config.exchanges_max).unwrap_or(u32::MAX),
            ..coap::Limits::default()
        };
        let counters = Counters::new(Protocol::Coap);
        let endpoint_config = coap::Config { limits, ..coap::Config::default() };
        Self {
            socket,
            class: config.class,
            body_bytes_max: config.body_bytes_max,
            endpoint: Endpoint::new(endpoint_config, random_seed()),
            ingest,
            strangers: Strangers::new(counters.clone()),
            counters,
            metrics: CoapMetrics::default(),
            received: Received::default(),
            outgoing: Outgoing::default(),
            uplinks: Vec::new(),
            exchanges: Vec::new(),
            admissions: FuturesUnordered::new(),
            bootstraps: FuturesUnordered::new(),
        }
    }

    /// Serves until `stop` turns true, then answers what was read.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut metrics_due = tokio::time::interval(METRICS_INTERVAL);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            let wake = self.drain();
            self.socket.send(&mut self.outgoing).await?;
            if let Some(wake) = wake {
                let wake = tokio::time::Instant::from_std(wake);
                if timer.deadline() != wake {
                    timer.as_mut().reset(wake);
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some((exchanges, receipts)) = self.admissions.next() => {
                    self.settle(exchanges, &receipts);
                }
                Some((exchange, told)) = self.bootstraps.next() => self.tell(exchange, &told),
                ready = self.socket.readable() => {
                    ready?;
                    self.receive().await?;
                }
                () = &mut timer, if wake.is_some() => {
                    self.endpoint.handle_timeout(Instant::now());
                }
                _ = metrics_due.tick() => self.metrics.update(&self.endpoint.counters()),
            }
        }
        self.finish().await
    }

    async fn finish(mut self) -> io::Result<()> {
        while let Some((exchanges, receipts)) = self.admissions.next().await {
            self.settle(exchanges, &receipts);
            self.drain();
            self.socket.send(&mut self.outgoing).await?;
        }
        while let Some((exchange, told)) = self.bootstraps.next().await {
            self.tell(exchange, &told);
            self.drain();
            self.socket.send(&mut self.outgoing).await?;
        }
        self.metrics.update(&self.endpoint.counters());
        Ok(())
    }

    /// Reads one batch and starts to admit its uplinks.
    async fn receive(&mut self) -> io::Result<()> {
        self.socket.receive(&mut self.received).await?;
        let now = Instant::now();
        let received_at = Timestamp::from(SystemTime::now());
        self.counters.received.increment(self.received.datagrams().len() as u64);
        for (address, bytes) in self.received.datagrams() {
            let peer = Peer { address, class: self.class };
            match self.ingest.screen(peer, Protocol::Coap, received_at) {
                Ok(()) => match oversized::find(bytes, self.body_bytes_max) {
                    None => self.endpoint.handle_datagram(now, address, bytes),
                    Some(Oversized { reason, answer }) => {
                        self.counters.malformed(reason, 1);
                        self.outgoing.answer(address, &answer);
                    }
                },
                Err(reason) => self.strangers.refuse(address, bytes, reason, &mut self.outgoing),
            }
        }
        self.collect(now, received_at);
        if !self.uplinks.is_empty() {
            let admission = self.ingest.admit(std::mem::take(&mut self.uplinks));
            let exchanges = std::mem::take(&mut self.exchanges);
            self.admissions.push(Pending { admission: Box::pin(admission), exchanges });
        }
        Ok(())
    }

    /// Takes the endpoint's outputs after a read: requests become uplinks or are answered.
    fn collect(&mut self, now: Instant, received_at: Timestamp) {
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => self.outgoing.push(peer, &bytes),
                Output::Event(Event::Request(request)) => self.request(now, received_at, request),
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
    }

    fn request(
        &mut self,
        now: Instant,
        received_at: Timestamp,
        request: IncomingRequest<SocketAddr>,
    ) {
        match resource::route(&request, self.body_bytes_max) {
            Route::Answer(response) => {
                match response.code {
                    Code::BAD_REQUEST => self.counters.malformed("request", 1),
                    Code::REQUEST_ENTITY_TOO_LARGE => self.counters.malformed("too_long", 1),
                    Code::UNSUPPORTED_CONTENT_FORMAT => self.counters.malformed("format", 1),
                    _ => self.counters.control.increment(1),
                }
                self.endpoint.respond(now, request.exchange, response);
            }
            Route::Bootstrap => {
                let peer = Peer { address: request.peer(), class: self.class };
                let bootstrap = Box::pin(self.ingest.bootstrap(peer, received_at));
                self.bootstraps.push(Asked { bootstrap, exchange: Some(request.exchange) });
            }
            Route::Uplink(topic) => {
                self.uplinks.push(Uplink {
                    peer: Peer { address: request.peer(), class: self.class },
                    protocol: Protocol::Coap,
                    topic,
                    exchange: Some(exchange(&request.exchange)),
                    payload: request.payload,
                    received_at,
                });
                self.exchanges.push(request.exchange);
            }
        }
    }

    /// Answers the exchanges of a batch.
    fn settle(&mut self, exchanges: Vec<CoapExchange>, receipts: &[Receipt]) {
        let now = Instant::now();
        for (exchange, receipt) in exchanges.into_iter().zip(receipts) {
            self.counters.receipt(receipt);
            self.endpoint.respond(now, exchange, resource::answer(receipt));
        }
    }

    /// Answers a device that asked for its key.
    fn tell(&mut self, exchange: Option<CoapExchange>, told: &Result<Credentials, Receipt>) {
        let Some(exchange) = exchange else { return };
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

    /// Queues what the endpoint wants to send; when it wants to be woken.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.endpoint.poll_output() {
                Output::Transmit { peer, bytes } => self.outgoing.push(peer, &bytes),
                // Requests come out of a read only, and are taken there.
                Output::Event(_) => {}
                Output::Timeout(wake) => return wake,
            }
        }
    }
}

impl Strangers {
    fn new(counters: Counters) -> Self {
        Self { counters, answer: Vec::new() }
    }

    fn refuse(
        &mut self,
        address: SocketAddr,
        datagram: &[u8],
        reason: &'static str,
        outgoing: &mut Outgoing,
    ) {
        match stranger::answer(datagram, reason, &mut self.answer) {
            Stranger::Refused => self.counters.receipt(&Receipt::Unauthorised(reason)),
            Stranger::Malformed => self.counters.malformed("stranger", 1),
            Stranger::Control => self.counters.control.increment(1),
        }
        outgoing.answer(address, &self.answer);
    }
}

fn exchange(exchange: &CoapExchange) -> Exchange {
    let given = exchange.token();
    let mut token = [0; 8];
    for (place, byte) in token.iter_mut().zip(given.as_bytes()) {
        *place = *byte;
    }
    // A token has at most eight bytes.
    let token_length = u8::try_from(given.as_bytes().len()).unwrap_or(8);
    let confirmable = exchange.is_confirmable();
    Exchange { message_id: exchange.id().0, token, token_length, confirmable }
}

/// The operating system's randomness, by way of the standard library's hash keys.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

impl<A: Future<Output = Vec<Receipt>>> Future for Pending<A> {
    type Output = (Vec<CoapExchange>, Vec<Receipt>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.admission
            .as_mut()
            .poll(context)
            .map(|receipts| (std::mem::take(&mut this.exchanges), receipts))
    }
}

impl<B: Future<Output = Result<Credentials, Receipt>>> Future for Asked<B> {
    type Output = (Option<CoapExchange>, Result<Credentials, Receipt>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.bootstrap.as_mut().poll(context).map(|told| (this.exchange.take(), told))
    }
}
