//! The one pipeline of an uplink: authenticate, append, receipt.
//!
//! Reads memory only; the one thing it waits for is the commit.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use device_authenticator::{ListenerTrust, Refusal, RefusalLog, SimDirectory};
use device_integrator::{Credentials, Peer, Receipt, Shed, Uplink};
use message_log::{AppendError, Appending, DeviceKey, Kind, MessageLog, NewRecord};
use template_library::Templates;
use vocabulary::{
    EventKind, Identity, IdentityClass, Notice, NoticeCategory, NoticeKind, Protocol, Telemetry,
    Timestamp,
};

use crate::key_desk::{Handed, KeyDesk};
use crate::rate::DeviceRate;
use crate::recovered::{self, RecoveredExchanges};

/// Messages of known devices on their way into the log.
#[derive(Clone)]
pub(crate) struct Ingest {
    parts: Arc<Parts>,
}

/// What the pipeline asks.
pub(crate) struct Sources {
    pub(crate) directory: Arc<SimDirectory>,
    pub(crate) log: MessageLog,
    pub(crate) templates: Templates,
    pub(crate) recovered: Arc<RecoveredExchanges>,
    pub(crate) rate: DeviceRate,
    pub(crate) keys: KeyDesk,
    /// Where devices speak CoAP over DTLS, as they are told.
    pub(crate) coaps_url: Option<Arc<str>>,
}

struct Parts {
    sources: Sources,
    refusals: Mutex<RefusalLog>,
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
}

impl Ingest {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { parts: Arc::new(Parts { sources, refusals: Mutex::new(RefusalLog::new()) }) }
    }

    /// Gives back the memory of devices that are silent.
    pub(crate) fn forget_idle(&self) {
        self.parts.sources.rate.forget_idle();
    }
}

impl device_integrator::Ingest for Ingest {
    type Admission = Admission;
    type Bootstrap = Bootstrap;

    fn admit(&self, uplinks: Vec<Uplink>) -> Admission {
        let parts = &self.parts;
        let mut receipts = Vec::with_capacity(uplinks.len());
        let mut waiting = Vec::with_capacity(uplinks.len());
        let mut records = Vec::with_capacity(uplinks.len());
        for uplink in uplinks {
            receipts.push(match parts.prepare(&uplink) {
                Ok(record) => {
                    waiting.push(receipts.len());
                    records.push(record);
                    Receipt::Stored
                }
                Err(receipt) => receipt,
            });
        }
        let appending = (!records.is_empty()).then(|| parts.sources.log.append(records));
        Admission { receipts, waiting, appending }
    }

    fn screen(&self, peer: Peer, protocol: Protocol, now: Timestamp) -> Result<(), &'static str> {
        self.parts.authenticate(peer, protocol, now).map(drop)
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
    fn prepare(&self, uplink: &Uplink) -> Result<NewRecord, Receipt> {
        let identity = self
            .authenticate(uplink.peer, uplink.protocol, uplink.received_at)
            .map_err(Receipt::Unauthorised)?;
        let mut digest = None;
        if let Some(exchange) = &uplink.exchange {
            let found = recovered::digest(identity.iccid, exchange, &uplink.payload);
            if self.sources.recovered.holds(found, exchange, uplink.received_at) {
                return Err(Receipt::Duplicate);
            }
            digest = Some(found);
        }
        self.allow(identity)?;
        Ok(self.record(uplink, identity, digest))
    }

    /// Asks for the key of the SIM whose address `peer` has.
    fn ask_for_key(&self, peer: Peer, received_at: Timestamp) -> Result<Handed, Receipt> {
        if peer.class == Some(IdentityClass::DtlsPsk) {
            // A key must not give another: who has stolen one would keep it for ever.
            return Err(Receipt::Unauthorised("a key is told to the SIM's own address only"));
        }
        let identity =
            self.authenticate(peer, Protocol::Coap, received_at).map_err(Receipt::Unauthorised)?;
        self.allow(identity)?;
        self.sources.keys.ask(identity.iccid).map_err(unavailable)
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
    ) -> Result<Identity, &'static str> {
        let trust = match peer.class {
            Some(_) => ListenerTrust::TrustedApn,
            None => ListenerTrust::Untrusted,
        };
        let address = peer.address.ip();
        self.sources.directory.authenticate(address, trust).map_err(|refusal| {
            self.log_refusal(address, protocol, &refusal, received_at);
            match refusal {
                Refusal::UnknownAddress => "the source address belongs to no known SIM",
                Refusal::InactiveSim(_) => "the SIM is not active",
                Refusal::UntrustedListener => {
                    "this listener accepts no source address as an identity"
                }
            }
        })
    }

    fn record(&self, uplink: &Uplink, identity: Identity, exchange: Option<u128>) -> NewRecord {
        let template = match uplink.protocol {
            Protocol::Lwm2m => None,
            protocol => self.sources.templates.active(protocol),
        };
        let telemetry = Telemetry {
            identity: Identity { ip: Some(uplink.peer.address.ip()), ..identity },
            class: uplink.peer.class.unwrap_or(vocabulary::IdentityClass::SimIp),
            protocol: uplink.protocol,
            topic: uplink.topic.as_ref().map(vocabulary::Topic::as_str),
            template,
            exchange,
            payload: &uplink.payload,
        };
        NewRecord {
            kind: Kind::new(EventKind::Telemetry.code()),
            device: DeviceKey::from_u64(identity.iccid.as_u64()),
            received_at: uplink.received_at,
            body: telemetry.encode(),
        }
    }

    /// Says in the administration log, not too often, that a sender was refused.
    fn log_refusal(
        &self,
        address: IpAddr,
        protocol: Protocol,
        refusal: &Refusal,
        received_at: Timestamp,
    ) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = refusals.admit(Instant::now(), address);
        drop(refusals);
        if let Some(suppressed) = admitted {
            let notice = refusal_notice(address, protocol, refusal, suppressed);
            // Nobody waits for it: a refusal that cannot be logged is still counted.
            drop(self.sources.log.append(vec![notice_record(&notice, received_at)]));
        }
    }
}

fn refusal_notice(
    address: IpAddr,
    protocol: Protocol,
    refusal: &Refusal,
    suppressed: u64,
) -> Notice {
    let message = "DeviceAuthenticator[Unauthorized]";
    let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
    notice.ip = Some(address);
    if let Refusal::InactiveSim(identity) = refusal {
        notice = notice.about(*identity);
    }
    notice.description = match suppressed {
        0 => format!("{protocol} message refused: {refusal}"),
        more => format!("{protocol} message refused: {refusal} ({more} refusals not logged)"),
    };
    notice
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
            if let Err(error) = ready!(Pin::new(appending).poll(context)) {
                self.shed(&error);
            }
            self.appending = None;
        }
        Poll::Ready(std::mem::take(&mut self.receipts))
    }
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

fn unavailable(reason: Shed) -> Receipt {
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
