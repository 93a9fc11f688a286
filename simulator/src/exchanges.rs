//! The devices' side of CoAP's message layer (RFC 7252 §4 and §5.2): what waits for an answer,
//! when it is sent again, and which answer belongs to it. Does no I/O and reads no clock; all
//! moments are spans since the start of the run.

use std::time::Duration;

use coap::wire::{Code, MessageType};
use hashbrown::HashMap;

use crate::plan::Retransmission;
use crate::random::Random;
use crate::timers::Timers;

/// Exchanges that wait at the same time at most, about 150 MB. An open loop that reaches it falls
/// behind its schedule, which its latencies show.
pub(crate) const OUTSTANDING_MAX: usize = 1_000_000;

/// Devices looked at for one without an exchange under way, before one gets a second.
const IDLE_SEARCH: u32 = 64;

/// What matters of a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: MessageType,
    pub(crate) code: Code,
    pub(crate) message_id: u16,
    /// The token as a big-endian number; `None` where its length is not ours.
    pub(crate) token: Option<u64>,
}

/// One request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Its number in the run, from 0.
    pub(crate) number: u64,
    /// Who sent it.
    pub(crate) device: u32,
    pub(crate) message_id: u16,
    /// When it was due; its latency counts from here.
    pub(crate) since: Duration,
    due: Duration,
    timeout: Duration,
    repeats: u32,
    retransmits: bool,
    /// Over DTLS: how often it was sent in its newest session.
    sendings: u32,
    session: u32,
}

/// What a reply meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer, with its code.
    Answered(Exchange, Code),
    /// The server wants nothing to do with the request.
    Reset(Exchange),
    /// Acknowledged, the answer comes later (RFC 7252 §5.2.2).
    Later,
    /// Nobody waits for it: a duplicate, or too late.
    Unexpected,
}

/// What a timer meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// To be sent again, with the same bytes.
    Retransmit(Exchange),
    /// Given up.
    Lost(Exchange),
}

/// How the exchanges of a run behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) devices: u32,
    /// Whether requests are confirmable.
    pub(crate) confirmable: bool,
    pub(crate) retransmission: Retransmission,
    /// How long the answer to a non-confirmable request is waited for.
    pub(crate) patience: Duration,
    /// Hides the numbers in tokens, so that no two runs use the same ones.
    pub(crate) token_mask: u64,
    /// 4 or 8.
    pub(crate) token_bytes: usize,
}

/// All exchanges under way.
#[derive(Debug)]
pub(crate) struct Exchanges {
    rules: Rules,
    random: Random,
    by_token: HashMap<u64, Exchange>,
    by_message_id: HashMap<(u32, u16), u64>,
    devices: Vec<Device>,
    next_device: u32,
    next_number: u64,
    timers: Timers,
    expired: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Device {
    next_message_id: u16,
    outstanding: u16,
}

impl Exchange {
    /// Over DTLS: how often it was sent in the session `session` of its device.
    pub(crate) const fn sendings_in(&self, session: u32) -> u32 {
        if self.session == session { self.sendings } else { 0 }
    }
}

impl Exchanges {
    /// No exchange yet. Message ids start anywhere (RFC 7252 §4.4).
    pub(crate) fn new(rules: Rules, mut random: Random) -> Self {
        let device =
            |_| Device { next_message_id: (random.next() & 0xffff) as u16, outstanding: 0 };
        let devices = (0..rules.devices).map(device).collect();
        Self {
            rules,
            random,
            by_token: HashMap::new(),
            by_message_id: HashMap::new(),
            devices,
            next_device: 0,
            next_number: 0,
            timers: Timers::new(),
            expired: Vec::new(),
        }
    }

    /// How many wait.
    pub(crate) fn outstanding(&self) -> usize {
        self.by_token.len()
    }

    /// The token of a number, as a big-endian number.
    pub(crate) const fn token(&self, number: u64) -> u64 {
        let token = number ^ self.rules.token_mask;
        if self.rules.token_bytes == 8 { token } else { token & 0xffff_ffff }
    }

    /// Begins the next exchange, which is sent at `now` and was due at `since`. `None` where no
    /// device has a free message id or too many wait.
    pub(crate) fn begin(&mut self, now: Duration, since: Duration) -> Option<Exchange> {
        if self.outstanding() >= OUTSTANDING_MAX {
            return None;
        }
        let device = self.choose_device();
        let message_id = self.free_message_id(device)?;
        let number = self.next_number;
        self.next_number += 1;
        let timeout = self.first_timeout();
        let exchange = Exchange {
            number,
            device,
            message_id,
            since,
            due: now + timeout,
            timeout,
            repeats: 0,
            retransmits: self.rules.confirmable,
            sendings: 0,
            session: 0,
        };
        let token = self.token(number);
        self.by_token.insert(token, exchange);
        self.by_message_id.insert((device, message_id), token);
        let state = &mut self.devices[device as usize];
        state.outstanding = state.outstanding.saturating_add(1);
        self.timers.set(token, exchange.due);
        Some(exchange)
    }

    /// Whether nothing of `device` waits.
    pub(crate) fn is_idle(&self, device: u32) -> bool {
        self.devices.get(device as usize).is_none_or(|device| device.outstanding == 0)
    }

    /// Over DTLS: the request with this token waited for a session until now. `None` where it was
    /// given up by then.
    pub(crate) fn restart(&mut self, now: Duration, token: u64) -> Option<Exchange> {
        let exchange = self.by_token.get_mut(&token)?;
        exchange.due = now + exchange.timeout;
        self.timers.set(token, exchange.due);
        Some(*exchange)
    }

    /// Over DTLS: the request with this token was sent in the session `session` of its device,
    /// counted from 1. Tells whether it had been sent before.
    pub(crate) fn note_sent(&mut self, token: u64, session: u32) -> bool {
        let Some(exchange) = self.by_token.get_mut(&token) else { return false };
        let is_repeat = exchange.session != 0;
        let sendings = if exchange.session == session { exchange.sendings } else { 0 };
        exchange.sendings = sendings + 1;
        exchange.session = session;
        is_repeat
    }

    /// Takes a reply to `device`.
    pub(crate) fn handle_reply(&mut self, now: Duration, device: u32, reply: Reply) -> Outcome {
        let named = self.by_message_id.get(&(device, reply.message_id)).copied();
        match reply.kind {
            MessageType::Reset => match named.and_then(|token| self.finish(token)) {
                Some(exchange) => Outcome::Reset(exchange),
                None => Outcome::Unexpected,
            },
            MessageType::Acknowledgement if reply.code == Code::EMPTY => match named {
                Some(token) => self.await_separate(now, token),
                None => Outcome::Unexpected,
            },
            // RFC 7252 §5.3.2: a piggybacked answer matches by message id and token.
            MessageType::Acknowledgement if named.is_none() || named != reply.token => {
                Outcome::Unexpected
            }
            _ => self.answer(device, reply),
        }
    }

    fn answer(&mut self, device: u32, reply: Reply) -> Outcome {
        let Some(token) = reply.token.filter(|_| reply.code != Code::EMPTY) else {
            return Outcome::Unexpected;
        };
        match self.by_token.get(&token) {
            Some(exchange) if exchange.device == device => match self.finish(token) {
                Some(exchange) => Outcome::Answered(exchange, reply.code),
                None => Outcome::Unexpected,
            },
            _ => Outcome::Unexpected,
        }
    }

    /// No more retransmission, but patience for as long as a retransmitting device would have.
    fn await_separate(&mut self, now: Duration, token: u64) -> Outcome {
        let Some(exchange) = self.by_token.get_mut(&token) else {
            return Outcome::Unexpected;
        };
        if exchange.retransmits {
            exchange.retransmits = false;
            exchange.due = now + self.rules.retransmission.longest_wait();
        }
        Outcome::Later
    }

    /// Hands over what is to be done at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Duration, mut each: impl FnMut(Expiry)) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, &mut expired);
        for token in expired.drain(..) {
            if let Some(expiry) = self.expire(now, token) {
                each(expiry);
            }
        }
        self.expired = expired;
    }

    fn expire(&mut self, now: Duration, token: u64) -> Option<Expiry> {
        let exchange = self.by_token.get_mut(&token)?;
        if exchange.due > now {
            // Its moment moved since the timer was set.
            self.timers.set(token, exchange.due);
            return None;
        }
        let repeats_max = self.rules.retransmission.max_retransmit;
        if !exchange.retransmits || exchange.repeats >= repeats_max {
            return self.finish(token).map(Expiry::Lost);
        }
        // RFC 7252 §4.2: the time-out doubles each time.
        exchange.repeats += 1;
        exchange.timeout *= 2;
        exchange.due = now + exchange.timeout;
        self.timers.set(token, exchange.due);
        Some(Expiry::Retransmit(*exchange))
    }

    fn finish(&mut self, token: u64) -> Option<Exchange> {
        let exchange = self.by_token.remove(&token)?;
        self.by_message_id.remove(&(exchange.device, exchange.message_id));
        let device = &mut self.devices[exchange.device as usize];
        device.outstanding = device.outstanding.saturating_sub(1);
        Some(exchange)
    }

    /// The devices take turns. One with an exchange under way is passed over where another is near,
    /// since a device waits for its answer before it goes on (NSTART = 1, RFC 7252 §4.7).
    fn choose_device(&mut self) -> u32 {
        let first = self.next_device;
        let mut chosen = first;
        for step in 0..IDLE_SEARCH.min(self.rules.devices) {
            let device = (first + step) % self.rules.devices;
            if self.devices[device as usize].outstanding == 0 {
                chosen = device;
                break;
            }
        }
        self.next_device = (chosen + 1) % self.rules.devices;
        chosen
    }

    fn free_message_id(&mut self, device: u32) -> Option<u16> {
        let state = &mut self.devices[device as usize];
        // Some message id is free unless all 65,536 wait; a few steps find one well before that.
        for _ in 0..256 {
            let message_id = state.next_message_id;
            state.next_message_id = message_id.wrapping_add(1);
            if !self.by_message_id.contains_key(&(device, message_id)) {
                return Some(message_id);
            }
        }
        None
    }

    fn first_timeout(&mut self) -> Duration {
        if !self.rules.confirmable {
            return self.rules.patience;
        }
        let Retransmission { ack_timeout, ack_random_factor, .. } = self.rules.retransmission;
        self.random.between(ack_timeout, ack_timeout.mul_f64(ack_random_factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn exchanges(devices: u32, confirmable: bool) -> Exchanges {
        let rules = Rules {
            devices,
            confirmable,
            retransmission: Retransmission::default(),
            patience: ms(10_000),
            token_mask: 0xabcd,
            token_bytes: 8,
        };
        Exchanges::new(rules, Random::new(1))
    }

    fn reply(exchanges: &Exchanges, to: Exchange, kind: MessageType, code: Code) -> Reply {
        let token = Some(exchanges.token(to.number));
        Reply { kind, code, message_id: to.message_id, token }
    }

    fn expiries(exchanges: &mut Exchanges, now: Duration) -> Vec<Expiry> {
        let mut found = Vec::new();
        exchanges.handle_timeout(now, |expiry| found.push(expiry));
        found
    }

    #[test]
    fn a_piggybacked_answer_needs_address_message_id_and_token() {
        let mut exchanges = exchanges(3, true);
        let sent = exchanges.begin(ms(0), ms(0)).unwrap();
        let good = reply(&exchanges, sent, MessageType::Acknowledgement, Code::CHANGED);
        let other_id = Reply { message_id: good.message_id.wrapping_add(1), ..good };
        let other_token = Reply { token: Some(99), ..good };
        assert_eq!(exchanges.handle_reply(ms(1), 1, good), Outcome::Unexpected);
        assert_eq!(exchanges.handle_reply(ms(1), 0, other_id), Outcome::Unexpected);
        assert_eq!(exchanges.handle_reply(ms(1), 0, other_token), Outcome::Unexpected);
        assert_eq!(exchanges.handle_reply(ms(1), 0, good), Outcome::Answered(sent, Code::CHANGED));
        assert_eq!(exchanges.handle_reply(ms(1), 0, good), Outcome::Unexpected);
        assert_eq!(exchanges.outstanding(), 0);
    }

    #[test]
    fn silence_means_four_repeats_with_doubling_pauses_then_loss() {
        let mut exchanges = exchanges(1, true);
        let sent = exchanges.begin(ms(0), ms(0)).unwrap();
        let mut repeats = Vec::new();
        let mut lost_at = None;
        for now in (0..100_000).step_by(10).map(ms) {
            for expiry in expiries(&mut exchanges, now) {
                match expiry {
                    Expiry::Retransmit(again) => {
                        assert_eq!(again.message_id, sent.message_id);
                        repeats.push(now);
                    }
                    Expiry::Lost(_) => lost_at = Some(now),
                }
            }
        }
        assert_eq!(repeats.len(), 4);
        assert!((ms(2_000)..=ms(3_020)).contains(&repeats[0]), "{repeats:?}");
        let (first, second) = (repeats[0], repeats[1] - repeats[0]);
        assert!(second >= first * 2 - ms(50) && second <= first * 2 + ms(50), "{repeats:?}");
        // 31 times the first time-out, at most MAX_TRANSMIT_WAIT = 93 s.
        assert!(lost_at.is_some_and(|at| at >= ms(62_000) && at <= ms(93_100)), "{lost_at:?}");
        assert_eq!(exchanges.outstanding(), 0);
    }

    #[test]
    fn an_empty_acknowledgement_ends_retransmission_and_the_answer_may_come_later() {
        let mut exchanges = exchanges(1, true);
        let sent = exchanges.begin(ms(0), ms(0)).unwrap();
        let empty = Reply {
            token: None,
            ..reply(&exchanges, sent, MessageType::Acknowledgement, Code::EMPTY)
        };
        assert_eq!(exchanges.handle_reply(ms(5), 0, empty), Outcome::Later);
        assert!(expiries(&mut exchanges, ms(50_000)).is_empty());
        let separate = Reply {
            message_id: sent.message_id.wrapping_add(7),
            ..reply(&exchanges, sent, MessageType::Confirmable, Code::CONTENT)
        };
        let outcome = exchanges.handle_reply(ms(50_001), 0, separate);
        assert!(matches!(outcome, Outcome::Answered(_, Code::CONTENT)), "{outcome:?}");
    }

    #[test]
    fn a_reset_ends_an_exchange_and_patience_ends_an_unconfirmed_one() {
        let mut exchanges = exchanges(2, false);
        let first = exchanges.begin(ms(0), ms(0)).unwrap();
        let second = exchanges.begin(ms(0), ms(0)).unwrap();
        let reset =
            Reply { token: None, ..reply(&exchanges, first, MessageType::Reset, Code::EMPTY) };
        assert!(matches!(exchanges.handle_reply(ms(1), 0, reset), Outcome::Reset(_)));
        assert!(expiries(&mut exchanges, ms(9_999)).is_empty());
        let late = expiries(&mut exchanges, ms(10_020));
        assert!(matches!(late[..], [Expiry::Lost(lost)] if lost.number == second.number));
    }

    #[test]
    fn sendings_count_in_their_own_session_only() {
        let mut exchanges = exchanges(1, true);
        let sent = exchanges.begin(ms(0), ms(0)).unwrap();
        let token = exchanges.token(sent.number);
        assert!(!exchanges.note_sent(token, 1));
        assert!(exchanges.note_sent(token, 1));
        let again = exchanges.restart(ms(1_900), token).unwrap();
        assert_eq!((again.sendings_in(1), again.sendings_in(2)), (2, 0));
        assert!(exchanges.note_sent(token, 2));
        // Restarted at 1.9 s, so the time-out of the first sending means nothing.
        assert!(expiries(&mut exchanges, ms(3_100)).is_empty());
        let late = expiries(&mut exchanges, ms(5_000));
        assert!(matches!(late[..], [Expiry::Retransmit(one)] if one.sendings_in(2) == 1));
        assert!(!exchanges.is_idle(0));
        assert_eq!(exchanges.restart(ms(1), token ^ 1), None);
    }

    #[test]
    fn devices_take_turns_and_a_waiting_one_is_passed_over() {
        let mut exchanges = exchanges(3, true);
        let sent: Vec<Exchange> = (0..3).filter_map(|_| exchanges.begin(ms(0), ms(0))).collect();
        assert_eq!(sent.iter().map(|one| one.device).collect::<Vec<_>>(), [0, 1, 2]);
        let answer = reply(&exchanges, sent[1], MessageType::Acknowledgement, Code::CHANGED);
        exchanges.handle_reply(ms(1), 1, answer);
        assert_eq!(exchanges.begin(ms(1), ms(1)).unwrap().device, 1);
        // All wait: then somebody gets a second one, with another message id.
        let extra = exchanges.begin(ms(1), ms(1)).unwrap();
        assert!(
            sent.iter().all(|one| (one.device, one.message_id) != (extra.device, extra.message_id))
        );
    }
}
