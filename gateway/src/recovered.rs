//! Exchanges that were stored shortly before the last stop.
//!
//! A device whose acknowledgement was lost with the process retransmits to the next one. The
//! digest of its exchange was stored with the message, so the retransmission is recognised
//! (delivery contract: one message, one id). Once EXCHANGE_LIFETIME has passed since the start no
//! such retransmission can come, and the memory is given back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use device_integrator::Exchange;
use message_log::{Kind, KindSet, MessageLog, Query, ReadError};
use vocabulary::{Event, EventKind, Iccid, Timestamp};
use xxhash_rust::xxh3::Xxh3;

/// RFC 7252 §4.8.2: how long a message id stays bound to its exchange.
const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);

/// Exchanges remembered at most, the newest ones: reading them takes about half a second, and a
/// device gives up its retransmissions after 45 s (MAX_TRANSMIT_SPAN).
const EXCHANGES_MAX: usize = 262_144;

/// Records read at a time.
const PAGE: usize = 8_192;

/// The digests of the exchanges stored before the start.
pub(crate) struct RecoveredExchanges {
    digests: ArcSwapOption<HashSet<u128>>,
    expires: Instant,
}

impl RecoveredExchanges {
    /// Reads the newest exchanges of `log`.
    pub(crate) fn read(log: &MessageLog, now: Timestamp) -> Result<Self, ReadError> {
        let mut digests = HashSet::new();
        let mut before = None;
        loop {
            let query = Query {
                device: None,
                kinds: KindSet::only(Kind::new(EventKind::Telemetry.code())),
                from: Some(now.saturating_sub(EXCHANGE_LIFETIME)),
                until: None,
                before,
                limit: PAGE,
            };
            let page = log.newest(query)?;
            before = page.last().map(|record| record.offset);
            for record in &page {
                let kind = record.kind.code();
                if let Ok(Event::Telemetry(telemetry)) =
                    Event::decode(kind, record.device.as_u64(), &record.body)
                {
                    digests.extend(telemetry.exchange);
                }
            }
            if page.len() < PAGE || digests.len() >= EXCHANGES_MAX {
                break;
            }
        }
        let digests = (!digests.is_empty()).then_some(digests);
        Ok(Self {
            digests: ArcSwapOption::from_pointee(digests),
            expires: Instant::now() + EXCHANGE_LIFETIME,
        })
    }

    /// Whether `digest` was stored before the start.
    pub(crate) fn contains(&self, digest: u128) -> bool {
        self.digests.load().as_ref().is_some_and(|digests| digests.contains(&digest))
    }

    /// Gives the memory back once nothing can be recognised any more.
    pub(crate) fn expire(&self, now: Instant) {
        if now >= self.expires {
            self.digests.store(None);
        }
    }
}

/// The digest by which an exchange is known: of the device, the message id, the token and the
/// payload.
pub(crate) fn digest(device: Iccid, exchange: &Exchange, payload: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&device.as_u64().to_le_bytes());
    hash.update(&exchange.message_id.to_le_bytes());
    hash.update(&[exchange.token_length]);
    hash.update(&exchange.token);
    hash.update(payload);
    hash.digest128()
}
