//! The one pipeline of an uplink: authenticate, append, receipt.
//!
//! Reads memory only; the one thing it waits for is the commit.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use device_authenticator::{
    Attributed, Attribution, KeyHolder, ListenerTrust, Refusal, RefusalLog,
};
use device_integrator::{
    Credentials, FailedHandshake, KeyAccount, OrderEnd, Peer, Receipt, Refused, RegistrationChange,
    Rider, ServerKey, Shed, Uplink,
};
use key_store::{KeyProtocol, Keys};
use lwm2m::Security;
use message_log::{AppendError, Appending, DeviceKey, Kind, MessageLog, NewRecord};
use template_library::Templates;
use vocabulary::{
    EventKind, Iccid, Identity, IdentityClass, Notice, NoticeCategory, NoticeKind, Protocol,
    Telemetry, Timestamp,
};
use zeroize::Zeroizing;

use crate::commands::Commands;
use crate::key_desk::{Handed, KeyDesk, Wanted};
use crate::rate::DeviceRate;
use crate::recovered::{self, RecoveredExchanges};
use crate::registration_desk::{Registering, RegistrationDesk};
use crate::session_desk::{Saving, SessionDesk};

/// Messages of known devices on their way into the log.
#[derive(Clone)]
pub(crate) struct Ingest {
    parts: Arc<Parts>,
}

/// What the pipeline asks.
pub(crate) struct Sources {
    pub(crate) attribution: Attribution,
    pub(crate) log: MessageLog,
    pub(crate) templates: Templates,
    pub(crate) recovered: Arc<RecoveredExchanges>,
    pub(crate) rate: DeviceRate,
    pub(crate) keys: Keys,
    pub(crate) key_desk: KeyDesk,
    pub(crate) sessions: SessionDesk,
    pub(crate) registrations: RegistrationDesk,
    pub(crate) commands: Commands,
    /// Where devices speak CoAP over DTLS, as they are told.
    pub(crate) coaps_url: Option<Arc<str>>,
}

struct Parts {
    sources: Sources,
    refusals: Mutex<RefusalLog>,
    /// What known devices do that an operator should know, as seldom.
    troubles: Mutex<RefusalLog>,
}

/// After so long a device that was too fast may send again: its allowance per second is at least
/// one.
const RATE_RETRY: Duration = Duration::from_secs(1);

/// What becomes of a batch of uplinks; resolves when those that were appended are durable.
pub(crate) struct Admission {
    receipts: Vec<Receipt>,
    /// Places in `receipts` that wait for the commit.
    waiting: Vec<usize>,
    appending: Option<Appending>,
    /// Whose uplinks wait for the commit: after it their commands are due.
    heard: Vec<Iccid>,
    commands: Commands,
}

impl Ingest {
    pub(crate) fn new(sources: Sources) -> Self {
        let [refusals, troubles] = [(), ()].map(|()| Mutex::new(RefusalLog::new()));
        Self { parts: Arc::new(Parts { sources, refusals, troubles }) }
    }

    /// Gives back the memory of devices that are silent.
    pub(crate) fn forget_idle(&self) {
        self.parts.sources.rate.forget_idle();
    }
}

impl device_integrator::Ingest for Ingest {
    type Admission = Admission;
    type Bootstrap = Bootstrap;
    type Saving = Saving;
    type Registering = Registering;
    type Renewal = Renewal;

    fn admit(&self, uplinks: Vec<Uplink>) -> Admission {
        let parts = &self.parts;
        let mut receipts = Vec::with_capacity(uplinks.len());
        let mut waiting = Vec::with_capacity(uplinks.len());
        let mut records = Vec::with_capacity(uplinks.len());
        let mut heard = Vec::with_capacity(uplinks.len());
        for uplink in uplinks {
            // Of several parts of one message the first is charged, and they share its fate.
            let is_further = uplink.exchange.is_some_and(|exchange| exchange.part > 0);
            if let Some(refused @ Receipt::Unavailable { .. }) =
                receipts.last().filter(|_| is_further)
            {
                receipts.push(refused.clone());
                continue;
            }
            receipts.push(match parts.prepare(&uplink) {
                Ok((record, iccid)) => {
                    if uplink.protocol == Protocol::Lwm2m {
                        parts.sources.commands.reported(iccid, &uplink.payload);
                    }
                    waiting.push(receipts.len());
                    // Otherwise what shall ride on the answer would be sent at once.
                    if !uplink.asks_command {
                        heard.push(iccid);
                    }
                    records.push(record);
                    Receipt::Stored
                }
                Err(receipt) => receipt,
            });
        }
        let appending = (!records.is_empty()).then(|| parts.sources.log.append(records));
        Admission { receipts, waiting, appending, heard, commands: parts.sources.commands.clone() }
    }

    fn screen(&self, peer: Peer, protocol: Protocol, now: Timestamp) -> Result<Iccid, Refused> {
        self.parts.authenticate(peer, protocol, now).map(|(found, _)| found.identity.iccid)
    }

    fn key(&self, protocol: Protocol, identity: &[u8]) -> Option<dtls::Psk> {
        let (account, iccid) = KeyAccount::of(protocol, identity);
        let found = self.parts.sources.keys.find(key_protocol(account), iccid)?;
        let psk = dtls::Psk::new(found.key().to_vec()).ok()?;
        Some(psk.with_revision(found.revision()))
    }

    fn note_failed_handshake(&self, handshake: FailedHandshake<'_>, now: Timestamp) {
        self.parts.log_failed_handshake(handshake, now);
    }

    fn save(&self, listener: SocketAddr, changes: Vec<dtls::Change>) -> Saving {
        self.parts.sources.sessions.save(listener, changes)
    }

    fn register(&self, changes: Vec<RegistrationChange>) -> Registering {
        self.parts.sources.registrations.write(changes.into_iter().map(stored).collect())
    }

    fn note_registrations(&self, changes: Vec<RegistrationChange>) {
        self.parts.sources.registrations.note(changes.into_iter().map(stored).collect());
    }

    fn renew_key(&self, device: Iccid) -> Renewal {
        let Sources { key_desk, keys, .. } = &self.parts.sources;
        let bootstrap_key = keys.find(KeyProtocol::Lwm2m, device.to_string().as_bytes());
        let bootstrap_key = bootstrap_key.map(|key| Zeroizing::new(key.key().to_vec()));
        Renewal { handed: key_desk.ask(device, Wanted::Lwm2mServer), bootstrap_key }
    }

    fn allows(&self, device: Iccid) -> bool {
        self.parts.sources.rate.admits(device)
    }

    fn awake(&self, device: Iccid, is_new: bool) {
        if is_new {
            self.parts.note_registration(device);
        }
        self.parts.sources.commands.awake(device, is_new);
    }

    fn image(&self, device: Iccid, name: &str, until: u64) -> Option<Arc<[u8]>> {
        self.parts.sources.commands.image(device, name, until)
    }

    fn rider(&self, peer: Peer) -> Option<Rider> {
        let (found, _) = self.parts.identify(peer, Timestamp::from(SystemTime::now())).ok()?;
        let (commands, device) = (&self.parts.sources.commands, found.identity.iccid);
        let rider = commands.rider(device);
        commands.heard(&[device]);
        rider
    }

    fn report(&self, order: u64, end: OrderEnd) {
        self.parts.sources.commands.report(order, end);
    }

    fn note(&self, device: Iccid, message: &'static str, description: &str) {
        self.parts.note(device, message, description);
    }

    fn bootstrap(&self, peer: Peer, received_at: Timestamp) -> Bootstrap {
        match self.parts.ask_for_key(peer, received_at) {
            Ok(handed) => Bootstrap::Asked(handed, self.parts.sources.coaps_url.clone()),
            Err(receipt) => Bootstrap::Refused(receipt),
        }
    }
}

impl Parts {
    /// The record of an uplink, or the receipt of one that will not be stored.
    fn prepare(&self, uplink: &Uplink) -> Result<(NewRecord, Iccid), Receipt> {
        let (found, class) = self
            .authenticate(uplink.peer, uplink.protocol, uplink.received_at)
            .map_err(|refused| Receipt::Unauthorised(refused.reason))?;
        let identity = found.identity;
        let mut digest = None;
        if let Some(exchange) = &uplink.exchange {
            let known = recovered::digest(identity.iccid, exchange, &uplink.payload);
            if self.sources.recovered.holds(known, exchange, uplink.received_at) {
                return Err(Receipt::Duplicate);
            }
            digest = Some(known);
        }
        if is_charged(uplink) {
            self.allow(identity)?;
        }
        Ok((self.record(uplink, (found, class), digest), identity.iccid))
    }

    /// Asks for the key of the SIM whose address `peer` has.
    fn ask_for_key(&self, peer: Peer, received_at: Timestamp) -> Result<Handed, Receipt> {
        let (found, class) = self
            .authenticate(peer, Protocol::Coap, received_at)
            .map_err(|refused| Receipt::Unauthorised(refused.reason))?;
        if class == IdentityClass::DtlsPsk {
            // A key must not give another: who has stolen one would keep it for ever.
            return Err(Receipt::Unauthorised("a key is told to the SIM's own address only"));
        }
        self.allow(found.identity)?;
        self.sources.key_desk.ask(found.identity.iccid, Wanted::Coap).map_err(unavailable)
    }

    /// Whether a device may send another message now.
    fn allow(&self, identity: Identity) -> Result<(), Receipt> {
        if self.sources.rate.admits(identity.iccid) {
            return Ok(());
        }
        Err(unavailable(Shed::DeviceTooFast))
    }

    /// Who the sender is, or why it is refused.
    fn authenticate(
        &self,
        peer: Peer,
        protocol: Protocol,
        received_at: Timestamp,
    ) -> Result<(Attributed, IdentityClass), Refused> {
        self.identify(peer, received_at).map_err(|refusal| {
            self.log_refusal(peer.address.ip(), protocol, &refusal, received_at);
            Refused {
                reason: reason(&refusal),
                // A session is as good as its key, and a SIM that is gone has none.
                ends_session: matches!(refusal, Refusal::ReplacedKey | Refusal::UnknownSim),
            }
        })
    }

    fn identify(&self, peer: Peer, now: Timestamp) -> Result<(Attributed, IdentityClass), Refusal> {
        let Sources { attribution, keys, .. } = &self.sources;
        let trust = match peer.is_vouched {
            true => ListenerTrust::TrustedApn,
            false => ListenerTrust::Untrusted,
        };
        let ip = peer.address.ip();
        let Some(key) = peer.key else {
            return Ok((attribution.authenticate(ip, trust, now)?, IdentityClass::SimIp));
        };
        if keys.revision(key_protocol(key.account), key.iccid) != Some(key.revision) {
            return Err(Refusal::ReplacedKey);
        }
        let holder = KeyHolder { iccid: key.iccid, ip, needs_address: key.needs_address };
        attribution.authenticate_key(holder, trust, now)
    }

    fn record(
        &self,
        uplink: &Uplink,
        (found, class): (Attributed, IdentityClass),
        exchange: Option<u128>,
    ) -> NewRecord {
        let identity = found.identity;
        let template = match uplink.protocol {
            Protocol::Lwm2m => None,
            protocol => self.sources.templates.active(protocol),
        };
        let telemetry = Telemetry {
            identity: Identity { ip: Some(uplink.peer.address.ip()), ..identity },
            class,
            protocol: uplink.protocol,
            topic: uplink.topic.as_ref().map(vocabulary::Topic::as_str),
            template,
            exchange,
            measured: uplink.measured,
            session: found.session,
            payload: &uplink.payload,
        };
        NewRecord {
            kind: Kind::new(EventKind::Telemetry.code()),
            device: DeviceKey::from_u64(identity.iccid.as_u64()),
            received_at: uplink.received_at,
            body: telemetry.encode(),
        }
    }

    fn log_refusal(
        &self,
        address: IpAddr,
        protocol: Protocol,
        refusal: &Refusal,
        received_at: Timestamp,
    ) {
        let sim = match refusal {
            Refusal::InactiveSim(identity)
            | Refusal::OtherAddress(identity)
            | Refusal::OtherSubscriber(identity) => Some(*identity),
            _ => None,
        };
        self.log_unauthorised((address, sim), received_at, || {
            format!("{protocol} message refused: {refusal}")
        });
    }

    fn log_failed_handshake(&self, handshake: FailedHandshake<'_>, received_at: Timestamp) {
        let FailedHandshake { address, identity, is_known } = handshake;
        let shown = shown(identity);
        let sim = shown
            .parse()
            .ok()
            .and_then(|iccid| self.sources.attribution.directory().find_iccid(iccid));
        let sim = sim.map(|found| found.identity);
        self.log_unauthorised((address.ip(), sim), received_at, || match is_known {
            true => {
                format!("handshake refused: wrong key for identity {shown}, or too often wrong")
            }
            false => format!("handshake refused: no key for identity {shown}"),
        });
    }

    /// Keeps that a device has registered: it may be the first that is heard of it.
    fn note_registration(&self, device: Iccid) {
        let Some(sim) = self.sources.attribution.directory().find_iccid(device) else { return };
        let registry = self.sources.commands.downlink().registry();
        let made_with = registry.snapshot(device).map(|registration| registration.security);
        let registration = Telemetry {
            identity: sim.identity,
            class: match made_with {
                None | Some(Security::NoSec) => IdentityClass::SimIp,
                Some(Security::BootstrapKey | Security::ServerKey) => IdentityClass::DtlsPsk,
            },
            protocol: Protocol::Lwm2m,
            topic: None,
            template: None,
            exchange: None,
            measured: None,
            session: None,
            payload: &[],
        };
        // Nobody waits for it: the registration itself is durable elsewhere.
        drop(self.sources.log.append(vec![NewRecord {
            kind: Kind::new(EventKind::Registered.code()),
            device: DeviceKey::from_u64(device.as_u64()),
            received_at: Timestamp::from(SystemTime::now()),
            body: registration.encode(),
        }]));
    }

    /// Says something about a device in the administration log, not too often.
    fn note(&self, device: Iccid, message: &'static str, description: &str) {
        let sim =
            self.sources.attribution.directory().find_iccid(device).map(|found| found.identity);
        // Devices without an address share one place in the log of what was said.
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let address = sim.and_then(|sim| sim.ip).unwrap_or(unknown);
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = troubles.admit(Instant::now(), address);
        drop(troubles);
        if admitted.is_none() {
            return;
        }
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
        notice = sim.into_iter().fold(notice, Notice::about);
        notice.description = description.to_owned();
        let now = Timestamp::from(SystemTime::now());
        drop(self.sources.log.append(vec![notice_record(&notice, now)]));
    }

    /// Says in the administration log, not too often, that a sender was refused.
    fn log_unauthorised(
        &self,
        (address, sim): (IpAddr, Option<Identity>),
        received_at: Timestamp,
        description: impl FnOnce() -> String,
    ) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = refusals.admit(Instant::now(), address);
        drop(refusals);
        let Some(suppressed) = admitted else { return };
        let message = "DeviceAuthenticator[Unauthorized]";
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
        notice.ip = Some(address);
        notice = sim.into_iter().fold(notice, Notice::about);
        notice.description = match suppressed {
            0 => description(),
            more => format!("{} ({more} refusals not logged)", description()),
        };
        // Nobody waits for it: a refusal that cannot be logged is still counted.
        drop(self.sources.log.append(vec![notice_record(&notice, received_at)]));
    }
}

/// Why a sender is refused, in words for it.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownAddress => "the source address belongs to no known SIM",
        Refusal::StaleSession => {
            "the data session of the source address was not heard for too long"
        }
        Refusal::ContestedAddress => "data sessions of two SIMs claim the source address",
        Refusal::UnknownHolder => "the data session of the source address is of no known SIM",
        Refusal::OtherSubscriber(_) => {
            "the data session of the source address names another IMSI than the registry"
        }
        Refusal::InactiveSim(_) => "the SIM is not active",
        Refusal::UntrustedListener => "this listener accepts no source address as an identity",
        Refusal::UnknownSim => "the SIM is not known",
        Refusal::OtherAddress(_) => "the source address is not the SIM's",
        Refusal::ReplacedKey => "the key was replaced",
    }
}

/// Whether an uplink counts for what its device may send: not the further parts of a message, and
/// not what the gateway asked for.
fn is_charged(uplink: &Uplink) -> bool {
    match (uplink.protocol, uplink.exchange) {
        (Protocol::Lwm2m, exchange) => exchange.is_some_and(|exchange| exchange.part == 0),
        (Protocol::Udp | Protocol::Coap, _) => true,
    }
}

/// Where the key store has the keys of an account.
pub(crate) fn key_protocol(account: KeyAccount) -> KeyProtocol {
    match account {
        KeyAccount::Coap => KeyProtocol::Coap,
        KeyAccount::Lwm2mBootstrap => KeyProtocol::Lwm2m,
        KeyAccount::Lwm2mServer => KeyProtocol::Lwm2mServer,
    }
}

/// An identity of somebody unknown, as a text that is safe to show: no longer than two ICCIDs.
fn shown(identity: &[u8]) -> String {
    const CHARS_MAX: usize = 40;
    let text = identity.escape_ascii().to_string();
    if text.len() <= CHARS_MAX { text } else { format!("{}...", &text[..CHARS_MAX]) }
}

/// The record of a notice.
pub(crate) fn notice_record(notice: &Notice, received_at: Timestamp) -> NewRecord {
    NewRecord {
        kind: Kind::new(EventKind::Notice.code()),
        device: notice.iccid.map_or(DeviceKey::NONE, |iccid| DeviceKey::from_u64(iccid.as_u64())),
        received_at,
        body: notice.encode(),
    }
}

impl Future for Admission {
    type Output = Vec<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(appending) = &mut self.appending {
            match ready!(Pin::new(appending).poll(context)) {
                Ok(_) => self.commands.heard(&self.heard),
                Err(error) => self.shed(&error),
            }
            self.appending = None;
        }
        Poll::Ready(std::mem::take(&mut self.receipts))
    }
}

/// A new key for the LwM2M server on its way.
pub(crate) struct Renewal {
    handed: Result<Handed, Shed>,
    bootstrap_key: Option<Zeroizing<Vec<u8>>>,
}

impl Future for Renewal {
    type Output = Result<ServerKey, Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = match &mut self.handed {
            Err(reason) => Err(*reason),
            // A desk that is gone answers nobody.
            Ok(handed) => ready!(Pin::new(handed).poll(context)).unwrap_or(Err(Shed::StoreFailed)),
        };
        Poll::Ready(told.map_err(unavailable).map(|(iccid, key)| ServerKey {
            identity: format!("{iccid}{}", KeyAccount::LWM2M_SERVER_SUFFIX),
            key: Zeroizing::new(key.as_bytes().to_vec()),
            bootstrap_key: self.bootstrap_key.take(),
        }))
    }
}

/// As the store knows it.
fn stored(change: RegistrationChange) -> registration_store::Change {
    registration_store::Change { iccid: change.iccid, state: change.state }
}

/// The key of a device on its way.
pub(crate) enum Bootstrap {
    Asked(Handed, Option<Arc<str>>),
    Refused(Receipt),
}

impl Future for Bootstrap {
    type Output = Result<Credentials, Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(receipt) => Poll::Ready(Err(receipt.clone())),
            Self::Asked(handed, coaps_url) => {
                // A desk that is gone answers nobody.
                let told = ready!(Pin::new(handed).poll(context)).unwrap_or(Err(Shed::StoreFailed));
                Poll::Ready(match told {
                    Ok((iccid, key)) => {
                        Ok(Credentials { iccid, key, coaps_url: coaps_url.clone() })
                    }
                    Err(reason) => Err(unavailable(reason)),
                })
            }
        }
    }
}

pub(crate) fn unavailable(reason: Shed) -> Receipt {
    Receipt::Unavailable { reason, retry_after: retry_after(reason, 0) }
}

impl Admission {
    fn shed(&mut self, error: &AppendError) {
        let reason = match error {
            AppendError::Full { .. } => Shed::QueueFull,
            AppendError::Overdue { .. } => Shed::Overdue,
            AppendError::NoSpace => Shed::NoSpace,
            _ => Shed::StoreFailed,
        };
        for place in &self.waiting {
            self.receipts[*place] =
                Receipt::Unavailable { reason, retry_after: retry_after(reason, *place) };
        }
    }
}

/// How long a device should stay away: spread, so that the devices do not come back together.
fn retry_after(reason: Shed, place: usize) -> Duration {
    let (least, spread) = match reason {
        Shed::QueueFull | Shed::Overdue => (30, 90),
        Shed::NoSpace | Shed::StoreFailed => (60, 240),
        Shed::DeviceTooFast => return RATE_RETRY,
    };
    let nanos = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| u64::from(since.subsec_nanos()));
    // The low digits of the clock, moved on for each message of a batch, are random enough.
    let jitter = (nanos / 64).wrapping_add(place as u64 * 37) % (spread + 1);
    Duration::from_secs(least + jitter)
}
