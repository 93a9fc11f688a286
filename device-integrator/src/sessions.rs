//! The DTLS sessions behind one socket: datagrams become messages of sessions, and back; what has
//! changed is saved now and then.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use dtls::{Change, Engine, Event, Output, SessionId};
use tracing::{debug, warn};
use vocabulary::{Iccid, Protocol};
use zeroize::Zeroizing;

use crate::counters::DtlsMetrics;
use crate::listeners::{Place, SecureConfig};
use crate::routes::Routes;
use crate::service::{Arrival, Carrier};
use crate::udp::Outgoing;
use crate::uplink::{FailedHandshake, Ingest, KeyAccount, Peer, ProvenKey, Refused};

/// How often what has changed is saved. A crash loses the sessions made since, and 5 s are
/// promised: this leaves 3 s for the disk.
pub(crate) const SAVE_INTERVAL: Duration = Duration::from_secs(2);
/// Sessions of one step of saving. 5 µs each: messages wait for one step at most.
const SAVE_STEP: usize = 64;
/// Sessions of one transaction: memory for about 2 MB.
const SAVE_BATCH: usize = 8_192;

/// A message of a session.
pub(crate) struct Message {
    pub(crate) session: SessionId,
    /// Who sent it, judged by its own record: a record proves no other address than the one that
    /// it came from, and counts also where its session ended behind it.
    pub(crate) peer: Peer,
    pub(crate) bytes: Vec<u8>,
}

/// The sessions of one socket.
pub(crate) struct Sessions<I: Ingest> {
    engine: Engine,
    ingest: I,
    protocol: Protocol,
    /// Where the sessions of devices are noted, and the number of this socket.
    routes: (Routes, u32),
    listener: SocketAddr,
    is_vouched: bool,
    needs_address: bool,
    metrics: DtlsMetrics,
    /// What the next transaction holds so far.
    changes: Vec<Change>,
    /// What else it shall hold.
    to_collect: usize,
    /// A transaction under way.
    saving: Option<Pin<Box<I::Saving>>>,
}

impl<I: Ingest> Sessions<I> {
    /// Sets up one of the sockets of a listener; `saved` are the number of this start and the
    /// sessions of earlier ones.
    pub(crate) fn open(
        (config, is_vouched, protocol): (SecureConfig, bool, Protocol),
        place: Place,
        (generation, saved): (u32, Vec<Zeroizing<Vec<u8>>>),
        (ingest, routes): (&I, (Routes, u32)),
    ) -> io::Result<Self> {
        let keys = ingest.clone();
        let key = move |identity: &[u8]| keys.key(protocol, identity);
        let dtls = of_one(config.dtls, place, generation);
        let mut engine = Engine::new(dtls, Instant::now(), key).map_err(io::Error::other)?;
        let mut refused = 0_u64;
        for session in &saved {
            match engine.import(session) {
                Ok(session) => {
                    let identity = engine.identity(session).unwrap_or_default();
                    if let Some((KeyAccount::Coap, iccid)) = holder(protocol, identity) {
                        routes.0.note(iccid, routes.1, session);
                    }
                }
                Err(error) => {
                    debug!(%error, "a saved session is no more");
                    refused += 1;
                }
            }
        }
        if refused > 0 {
            warn!(refused, "saved sessions are no more: their devices will make new ones");
        }
        Ok(Self {
            engine,
            ingest: ingest.clone(),
            protocol,
            routes,
            listener: place.listener,
            is_vouched,
            needs_address: config.needs_address,
            metrics: DtlsMetrics::new(place),
            changes: Vec::new(),
            to_collect: 0,
            saving: None,
        })
    }

    /// Takes a datagram; the messages in it are added to `messages`.
    pub(crate) fn handle_datagram(
        &mut self,
        arrival: Arrival,
        (address, bytes): (SocketAddr, &[u8]),
        messages: &mut Vec<Message>,
        outgoing: &mut Outgoing,
    ) {
        self.engine.handle_datagram(arrival.now, address, bytes);
        self.poll(arrival, messages, outgoing);
    }

    fn poll(&mut self, arrival: Arrival, messages: &mut Vec<Message>, outgoing: &mut Outgoing) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { peer, bytes } => outgoing.push(peer, &bytes),
                Output::Event(Event::Received { session, peer, identity, revision, bytes }) => {
                    let peer = self.peer(peer, &identity, revision);
                    if let Some(key) = peer.and_then(|peer| peer.key)
                        && key.account == KeyAccount::Coap
                    {
                        self.routes.0.note(key.iccid, self.routes.1, session);
                    }
                    messages.extend(peer.map(|peer| Message { session, peer, bytes }));
                }
                Output::Event(event) => self.note_refused(&event, arrival),
                Output::Timeout(_) => return,
            }
        }
    }

    /// Who a record is of. `None`: no identity of ours, which the pipeline gives no key for.
    fn peer(&self, address: SocketAddr, identity: &[u8], revision: u64) -> Option<Peer> {
        let (account, iccid) = holder(self.protocol, identity)?;
        let key = ProvenKey { iccid, account, revision, needs_address: self.needs_address };
        Some(Peer { address, is_vouched: self.is_vouched, key: Some(key) })
    }

    fn note_refused(&self, event: &Event, arrival: Arrival) {
        if let Event::Refused { peer, identity, is_known } = event {
            let handshake = FailedHandshake { address: *peer, identity, is_known: *is_known };
            self.ingest.note_failed_handshake(handshake, arrival.received_at);
        }
    }

    /// Sends what the sessions want to send; when they want to be woken.
    pub(crate) fn drain(&mut self, outgoing: &mut Outgoing) -> Option<Instant> {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { peer, bytes } => outgoing.push(peer, &bytes),
                // Messages come out of a read only, and are taken there; a handshake fails when
                // its time is up, too.
                Output::Event(event) => self.note_refused(&event, Arrival::now()),
                Output::Timeout(wake) => return wake,
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
    }

    pub(crate) fn update_metrics(&mut self) {
        self.metrics.update(&self.engine);
    }

    /// Begins to save what has changed, unless that is still under way.
    pub(crate) fn begin_saving(&mut self) {
        if self.to_collect == 0 && self.saving.is_none() {
            self.to_collect = self.engine.changed();
        }
    }

    /// Whether [`Sessions::save_step`] has something to do.
    pub(crate) fn is_collecting(&self) -> bool {
        // One transaction at a time: what is saved never runs further ahead of the disk.
        self.to_collect > 0 && self.saving.is_none()
    }

    /// Takes some of what has changed, and gives it to the pipeline where it is enough or all.
    pub(crate) fn save_step(&mut self) {
        let changes = self.engine.changes(self.to_collect.min(SAVE_STEP));
        // Fewer than there were: the others ended meanwhile.
        self.to_collect = if changes.is_empty() { 0 } else { self.to_collect - changes.len() };
        self.changes.extend(changes);
        if !self.changes.is_empty() && (self.to_collect == 0 || self.changes.len() >= SAVE_BATCH) {
            let changes = std::mem::take(&mut self.changes);
            self.saving = Some(Box::pin(self.ingest.save(self.listener, changes)));
        }
    }

    /// Waits until what was given is durable; for ever where nothing was.
    pub(crate) async fn saved(&mut self) {
        match &mut self.saving {
            Some(saving) => saving.await,
            None => std::future::pending().await,
        }
        self.saving = None;
    }

    /// Saves everything, for the end.
    pub(crate) async fn save_all(&mut self) {
        loop {
            while self.is_collecting() {
                self.save_step();
            }
            if self.saving.is_some() {
                self.saved().await;
            }
            self.begin_saving();
            if !self.is_collecting() && self.saving.is_none() {
                return;
            }
        }
    }
}

impl<I: Ingest> Carrier<SessionId> for Sessions<I> {
    fn send(&mut self, to: SessionId, bytes: &[u8]) {
        if let Err(error) = self.engine.send(to, bytes) {
            // The device will ask again, and make a new session if this one is gone.
            debug!(session = %to, %error, "an answer was not sent");
        }
    }

    fn reaches(&mut self, device: Iccid, session: SessionId) -> bool {
        let (engine, now) = (&self.engine, Arrival::now().received_at);
        let peer = engine.peer(session).and_then(|address| {
            let (identity, revision) = (engine.identity(session)?, engine.revision(session)?);
            self.peer(address, identity, revision)
        });
        // As if the device spoke now: its key may have been replaced since it did.
        let holder = peer.and_then(|peer| self.ingest.screen(peer, self.protocol, now).ok());
        let reaches = holder == Some(device);
        if !reaches {
            self.engine.close(session);
            self.routes.0.forget(device, session);
        }
        reaches
    }

    fn refused(&mut self, peer: SessionId, refused: Refused) {
        if refused.ends_session {
            self.engine.close(peer);
        }
    }
}

/// Whose key an identity names, and which.
fn holder(protocol: Protocol, identity: &[u8]) -> Option<(KeyAccount, Iccid)> {
    let (account, iccid) = KeyAccount::of(protocol, identity);
    Some((account, std::str::from_utf8(iccid).ok()?.parse().ok()?))
}

/// The share of one of the sockets of a listener.
fn of_one(mut config: dtls::Config, place: Place, generation: u32) -> dtls::Config {
    let share = |limit: usize| limit.div_ceil(place.count);
    let rate = |limit: u32| limit.div_ceil(u32::try_from(place.count).unwrap_or(u32::MAX));
    config.persistent = true;
    config.generation = generation;
    // At most 64 sockets.
    config.shard = u8::try_from(place.index).unwrap_or(0);
    let limits = &mut config.limits;
    limits.sessions_max = share(limits.sessions_max);
    limits.awake_max = share(limits.awake_max);
    limits.fresh_max = share(limits.fresh_max);
    limits.half_open_max = share(limits.half_open_max);
    limits.half_open_per_network_max = share(limits.half_open_per_network_max);
    limits.handshakes_per_second = rate(limits.handshakes_per_second);
    limits.handshakes_burst = rate(limits.handshakes_burst);
    limits.wakes_per_second = rate(limits.wakes_per_second);
    limits.resumptions_max = share(limits.resumptions_max);
    config
}
