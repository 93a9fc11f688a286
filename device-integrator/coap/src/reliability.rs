//! Repeats our confirmable messages until they are acknowledged (RFC 7252 §4.2).

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::client::RequestId;
use crate::datagram::Datagram;
use crate::hashing::Seeded;
use crate::limits::Transmission;
use crate::observe::ObservationId;
use crate::wire::MessageId;

/// Why a confirmable message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A response after an empty acknowledgement.
    SeparateResponse,
    /// A notification to an observer.
    Notification(ObservationId),
    /// A request of ours.
    Request(RequestId),
}

/// What a timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due<P> {
    /// Send the same bytes again.
    Retransmit(P, MessageId, Purpose, Datagram),
    /// The peer did not acknowledge in time.
    GiveUp(P, MessageId, Purpose),
}

#[derive(Debug)]
struct Unacknowledged {
    bytes: Datagram,
    purpose: Purpose,
    timer: (Instant, u64),
    timeout: Duration,
    retransmissions: u8,
}

/// Confirmable messages that wait for an acknowledgement.
#[derive(Debug)]
pub(crate) struct Reliability<P> {
    messages: HashMap<(P, MessageId), Unacknowledged, Seeded>,
    timers: BTreeMap<(Instant, u64), (P, MessageId)>,
    serial: u64,
    messages_max: usize,
}

impl<P: Copy + Eq + Hash> Reliability<P> {
    pub(crate) fn new(messages_max: usize, seed: u64) -> Self {
        let messages = HashMap::with_hasher(Seeded::new(seed));
        Self { messages, timers: BTreeMap::new(), serial: 0, messages_max }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.len() >= self.messages_max
    }

    /// Begins to wait for the acknowledgement of a message just sent.
    pub(crate) fn await_acknowledgement(
        &mut self,
        to: (P, MessageId),
        bytes: Datagram,
        purpose: Purpose,
        (now, timeout): (Instant, Duration),
    ) {
        self.serial += 1;
        let timer = (now + timeout, self.serial);
        let message = Unacknowledged { bytes, purpose, timer, timeout, retransmissions: 0 };
        if let Some(before) = self.messages.insert(to, message) {
            // An id that came back while still in use: the older message is given up.
            self.timers.remove(&before.timer);
        }
        self.timers.insert(timer, to);
    }

    /// Ends the wait: acknowledged, reset or no longer wanted.
    pub(crate) fn finish(&mut self, peer: P, id: MessageId) -> Option<Purpose> {
        let message = self.messages.remove(&(peer, id))?;
        self.timers.remove(&message.timer);
        Some(message.purpose)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    /// The next message whose timer has run out.
    pub(crate) fn due(&mut self, now: Instant, parameters: &Transmission) -> Option<Due<P>> {
        let (timer, (peer, id)) = self.timers.first_key_value().map(|(key, to)| (*key, *to))?;
        if timer.0 > now {
            return None;
        }
        self.timers.remove(&timer);
        let message = self.messages.get_mut(&(peer, id))?;
        let purpose = message.purpose;
        if message.retransmissions >= parameters.max_retransmit {
            self.messages.remove(&(peer, id));
            return Some(Due::GiveUp(peer, id, purpose));
        }
        message.retransmissions += 1;
        message.timeout *= 2;
        self.serial += 1;
        // From the moment that was due, so that a late call does not stretch the schedule; but a
        // very late call sends one copy, not a burst.
        let next = (timer.0 + message.timeout).max(now + parameters.ack_timeout / 2);
        message.timer = (next, self.serial);
        self.timers.insert(message.timer, (peer, id));
        Some(Due::Retransmit(peer, id, purpose, message.bytes.clone()))
    }
}

/// The first wait: `ACK_TIMEOUT` times a random factor up to `ACK_RANDOM_FACTOR`.
pub(crate) fn first_timeout(parameters: &Transmission, random: u64) -> Duration {
    let spread = parameters.ack_random_factor_percent.saturating_sub(100);
    // One part in 65,536 is fine enough.
    let share = u32::try_from(random & 0xffff).unwrap_or(0);
    let extra = parameters.ack_timeout * spread / 100;
    parameters.ack_timeout + extra * share / 65_536
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_five_times_with_doubling_pauses_and_then_given_up() {
        let parameters = Transmission::default();
        let mut reliability = Reliability::new(10, 1);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let to = ((), MessageId(1));
        let bytes = Datagram::from(&b"x"[..]);
        let purpose = Purpose::SeparateResponse;
        reliability.await_acknowledgement(to, bytes, purpose, (start, 2 * second));
        let mut sent = Vec::new();
        while let Some(due) = reliability.next_timeout() {
            match reliability.due(due, &parameters).unwrap() {
                Due::Retransmit(..) => sent.push((due - start).as_secs()),
                Due::GiveUp(..) => sent.push(1_000 + (due - start).as_secs()),
            }
        }
        // RFC 7252 §4.8.2: 2, 6, 14 and 30 s; MAX_TRANSMIT_WAIT without its factor is 62 s.
        assert_eq!(sent, [2, 6, 14, 30, 1_062]);
        assert_eq!(reliability.finish((), MessageId(1)), None);
    }

    #[test]
    fn an_acknowledged_message_is_quiet() {
        let mut reliability = Reliability::new(10, 1);
        let now = Instant::now();
        let purpose = Purpose::SeparateResponse;
        let bytes = Datagram::from(&b"x"[..]);
        let wait = (now, Duration::from_secs(2));
        reliability.await_acknowledgement((1, MessageId(1)), bytes, purpose, wait);
        assert_eq!(reliability.finish(2, MessageId(1)), None);
        assert_eq!(reliability.finish(1, MessageId(1)), Some(purpose));
        assert_eq!(reliability.next_timeout(), None);
    }

    #[test]
    fn the_first_wait_is_between_two_and_three_seconds() {
        let parameters = Transmission::default();
        assert_eq!(first_timeout(&parameters, 0), Duration::from_secs(2));
        let longest = first_timeout(&parameters, u64::MAX);
        assert!(longest > Duration::from_millis(2_999) && longest < Duration::from_secs(3));
    }
}
