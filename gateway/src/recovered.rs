//! Exchanges that were stored shortly before the last stop.
//!
//! A device whose acknowledgement was lost with the process retransmits to the next one. The
//! digest of its exchange was stored with the message, so the retransmission is recognised
//! (docs/delivery.md: one message, one id). Once EXCHANGE_LIFETIME has passed since the start no
//! such retransmission can come, and the memory is given back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use device_integrator::Exchange;
use message_log::{Kind, KindSet, MessageLog, Query, ReadError};
use vocabulary::{Event, EventKind, Iccid, Timestamp};
use xxhash_rust::xxh3::Xxh3;

/// RFC 7252 §4.8.2: how long the message id of a CON stays bound to its exchange.
const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);

/// RFC 7252 §4.8.2: the same for a NON.
const NON_LIFETIME: Duration = Duration::from_secs(145);

/// Exchanges remembered at most, the newest ones: reading them takes about half a second, and a
/// device gives up its retransmissions after 45 s (MAX_TRANSMIT_SPAN).
const EXCHANGES_MAX: usize = 262_144;

/// Records read at a time.
const PAGE: usize = 8_192;

/// The digests of the exchanges stored before the start, and when each was stored.
pub(crate) struct RecoveredExchanges {
    digests: ArcSwapOption<HashMap<u128, Timestamp>>,
    expires: Instant,
}

impl RecoveredExchanges {
    /// Reads the newest exchanges of `log`.
    pub(crate) fn read(log: &MessageLog, now: Timestamp) -> Result<Self, ReadError> {
        let mut digests = HashMap::new();
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
            // A page ends by its bytes, too, so a short one is not the last.
            let Some(last) = page.last() else { break };
            before = Some(last.offset);
            for record in &page {
                let kind = record.kind.code();
                if let Ok(Event::Telemetry(telemetry)) =
                    Event::decode(kind, record.device.as_u64(), &record.body)
                {
                    let stored = |digest| (digest, record.received_at);
                    digests.extend(telemetry.exchange.map(stored));
                }
            }
            if digests.len() >= EXCHANGES_MAX {
                break;
            }
        }
        let digests = (!digests.is_empty()).then_some(digests);
        Ok(Self {
            digests: ArcSwapOption::from_pointee(digests),
            expires: Instant::now() + EXCHANGE_LIFETIME,
        })
    }

    /// Whether the message behind `digest` was stored before the start, so shortly that `exchange`
    /// at `now` is a retransmission of it and not a new message that looks the same.
    pub(crate) fn holds(&self, digest: u128, exchange: &Exchange, now: Timestamp) -> bool {
        let lifetime = if exchange.confirmable { EXCHANGE_LIFETIME } else { NON_LIFETIME };
        let stored = |digests: &HashMap<u128, Timestamp>| digests.get(&digest).copied();
        self.digests
            .load()
            .as_deref()
            .and_then(stored)
            .is_some_and(|stored| now.saturating_since(stored) < lifetime)
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
    hash.update(&exchange.part.to_le_bytes());
    hash.update(payload);
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(confirmable: bool) -> Exchange {
        Exchange { message_id: 7, token: [0; 8], token_length: 0, confirmable, part: 0 }
    }

    fn holds_after(seconds: u64, confirmable: bool) -> bool {
        let stored = Timestamp::from_millis(1_000_000);
        let digests = HashMap::from([(1, stored)]);
        let recovered = RecoveredExchanges {
            digests: ArcSwapOption::from_pointee(digests),
            expires: Instant::now() + EXCHANGE_LIFETIME,
        };
        let now = stored.saturating_add(Duration::from_secs(seconds));
        recovered.holds(1, &exchange(confirmable), now)
    }

    /// A sensor that sends the same bytes under the same message id after each reset was answered
    /// up to 494 s after a message of before the gateway's restart, and not stored.
    #[test]
    fn an_exchange_is_recognised_within_its_lifetime_only() {
        assert!(holds_after(246, true));
        assert!(!holds_after(248, true));
        assert!(holds_after(144, false));
        assert!(!holds_after(146, false));
    }

    #[test]
    fn what_differs_in_one_field_is_another_message() {
        let device = "8988280666000002864".parse().unwrap();
        let one = digest(device, &exchange(true), b"x");
        assert_eq!(one, digest(device, &exchange(true), b"x"));
        assert_ne!(one, digest(device, &exchange(true), b"y"));
        let other = Exchange { message_id: 8, ..exchange(true) };
        assert_ne!(one, digest(device, &other, b"x"));
    }
}
