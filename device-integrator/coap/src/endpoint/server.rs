//! The server's side: requests in, responses out.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::{CancelCause, Endpoint, Event, Inbound, Output};
use crate::blockwise::download::slice;
use crate::blockwise::upload::{Accepted, Piece};
use crate::deduplication::{Answer, ExchangeKey, Seen};
use crate::message::{Exchange, IncomingRequest, ObserveAction, Response};
use crate::reliability::Purpose;
use crate::review::{Refusal, Review, review};
use crate::wire::{Block, Code, Encoder, MessageId, MessageType, OptionList, OptionNumber, Token};

/// What the endpoint adds to a response of the owner.
#[derive(Debug, Default)]
pub(super) struct Additions {
    pub(super) observe: Option<u32>,
    pub(super) block1: Option<Block>,
    pub(super) block2: Option<Block>,
    /// Of a body in blocks: an entity tag, and the size with the first block.
    pub(super) body: Option<([u8; 4], usize)>,
    pub(super) size1: Option<usize>,
}

/// Type, id and token of a message to be sent.
pub(super) type Head = (MessageType, MessageId, Token);

impl<P: Copy + Eq + Hash> Endpoint<P> {
    /// Answers a request: with its acknowledgement if that was not sent before, otherwise
    /// separately; a request that was no CON with a NON. Responses that the client does not want
    /// to hear are left out (RFC 7967), but never the refusal of a CON.
    ///
    /// A notification is answered with [`Endpoint::acknowledge`], not here.
    pub fn respond(&mut self, now: Instant, exchange: Exchange<P>, response: Response) {
        if let Some(observation) = exchange.observation
            && !response.code.is_success()
        {
            self.cancel_observation_because(observation, CancelCause::Error);
        }
        // An empty acknowledgement would end the retransmissions of a message that was not taken:
        // only a success may be left out where the acknowledgement stands for it.
        let must_be_heard =
            exchange.confirmable && !exchange.acknowledged && !response.code.is_success();
        if is_unwanted(exchange.no_response, response.code) && !must_be_heard {
            self.counters.responses_suppressed += 1;
            self.close(&exchange);
            return;
        }
        if !response.is_bare() || exchange.block1.is_some() || exchange.observation.is_some() {
            self.respond_with_body(now, &exchange, response);
            return;
        }
        let head = self.reply_head(&exchange);
        self.scratch.clear();
        Encoder::new(&mut self.scratch, head.0, response.code, head.1, head.2);
        let answer = Answer::Bare(response.code, head.1);
        if !exchange.acknowledged {
            self.deduplicator.answer(exchange.key, answer);
        }
        self.send_reply(now, &exchange, head);
    }

    /// Answers a request for a large body with the block that it asks for, or the first one. The
    /// body stays with the owner and is not walked over; the tag, one to eight bytes, names this
    /// body and no other (RFC 7959 §2.4), and the owner is asked for each further block.
    ///
    /// `response` brings code, format and options; its payload is not looked at.
    pub fn respond_part(
        &mut self,
        now: Instant,
        exchange: Exchange<P>,
        mut response: Response,
        (body, tag): (&[u8], &[u8]),
    ) {
        let maximum = self.config.limits.block_size_exponent;
        let part = slice(body, exchange.block2, maximum);
        // Eight bytes more than fit every list that the owner left room in.
        let tagged = response.options.push(OptionNumber::ETAG, tag.get(..8).unwrap_or(tag));
        let (Some((block2, payload)), Ok(())) = (part, tagged) else {
            self.respond(now, exchange, Response::new(Code::BAD_REQUEST));
            return;
        };
        self.counters.download_parts += 1;
        let mut additions = self.additions(&exchange);
        additions.block2 = block2;
        additions.body = Some(([0; 4], body.len()));
        self.finish_response(now, &exchange, (&response, payload), additions);
    }

    /// Acknowledges a message without answering it yet: of a request, the response follows as a
    /// message of its own (RFC 7252 §5.2.2); of a notification, this says that it is safe.
    ///
    /// Success must not be promised this way: an acknowledged request is not repeated.
    #[must_use = "the exchange still waits for its response"]
    pub fn acknowledge(&mut self, mut exchange: Exchange<P>) -> Exchange<P> {
        if !exchange.acknowledged {
            self.close(&exchange);
            exchange.acknowledged = true;
        }
        exchange
    }

    /// Remembers a request no longer, so that a copy of it is a new one: for answers to idempotent
    /// requests (RFC 7252 §4.5) that must not be kept, called before [`Endpoint::respond`].
    pub fn forget(&mut self, exchange: &Exchange<P>) {
        self.deduplicator.abandon(exchange.key);
    }

    /// Rejects a message: the peer gets a reset, and ends an observation that it notified of.
    pub fn reject(&mut self, exchange: Exchange<P>) {
        self.send_empty(exchange.peer, MessageType::Reset, exchange.id);
        self.deduplicator.answer(exchange.key, Answer::Bytes(&self.scratch));
    }

    /// Ends an exchange without a response: a CON is acknowledged, a NON stays as it is.
    fn close(&mut self, exchange: &Exchange<P>) {
        if exchange.acknowledged {
            return;
        }
        if exchange.confirmable {
            self.send_empty(exchange.peer, MessageType::Acknowledgement, exchange.id);
            self.deduplicator.answer(exchange.key, Answer::Acknowledged);
        } else {
            self.deduplicator.answer(exchange.key, Answer::Silent);
        }
    }

    pub(super) fn handle_request(&mut self, inbound: Inbound<'_, P>) {
        let message = &inbound.message;
        if message.code > Code::IPATCH {
            self.counters.rejected_method += 1;
            self.refuse(&inbound, Code::METHOD_NOT_ALLOWED, "");
            return;
        }
        let config = &self.config;
        let review = match review(message, &config.understood, config.forwards) {
            Ok(review) => review,
            Err(refusal) => return self.handle_refusal(&inbound, refusal),
        };
        let confirmable = message.message_type == MessageType::Confirmable;
        let lifetime = match confirmable {
            true => self.config.transmission.exchange_lifetime,
            false => self.config.transmission.non_lifetime,
        };
        let (now, peer) = (inbound.now, inbound.peer);
        let seen = match self.deduplicator.see(now, peer, inbound.digest, lifetime) {
            Seen::New(key) => return self.handle_new_request(inbound, review, key),
            Seen::Pending => {
                self.counters.duplicates_pending += 1;
                return;
            }
            seen => seen,
        };
        self.counters.duplicates_answered += 1;
        self.scratch.clear();
        match seen {
            Seen::New(_) | Seen::Pending | Seen::Silent => return,
            Seen::Acknowledged => {
                Encoder::empty(&mut self.scratch, MessageType::Acknowledgement, message.id);
            }
            Seen::Bare(code, reply) => {
                let (message_type, id) = match confirmable {
                    true => (MessageType::Acknowledgement, message.id),
                    false => (MessageType::NonConfirmable, reply),
                };
                Encoder::new(&mut self.scratch, message_type, code, id, message.token);
            }
            Seen::Answered(bytes) => self.scratch.extend_from_slice(bytes),
        }
        self.send_scratch(peer);
    }

    fn handle_new_request(&mut self, inbound: Inbound<'_, P>, review: Review, key: ExchangeKey) {
        let Inbound { now, peer, message, .. } = inbound;
        let exchange = Exchange {
            peer,
            key,
            id: message.id,
            token: message.token,
            confirmable: message.message_type == MessageType::Confirmable,
            acknowledged: false,
            no_response: review.no_response,
            block1: review.block1,
            block2: review.block2,
            resource: review.resource,
            observe: review.observe_action(),
            observation: None,
        };
        if let Some(block) = review.block1 {
            self.handle_upload(inbound, exchange, (block, review.size1));
            return;
        }
        if let Some(block) = review.block2.filter(|block| block.number > 0)
            && let Some(kept) = self.downloads.find(now, peer, review.resource)
        {
            self.counters.download_blocks += 1;
            self.respond_with_slice(now, &exchange, &kept, Some(block));
            return;
        }
        if exchange.observe == Some(ObserveAction::Deregister)
            && let Some(observation) = self.observations.find(peer, message.token)
        {
            self.cancel_observation_because(observation, CancelCause::Deregistered);
        }
        self.deliver(inbound, exchange, message.payload.to_vec());
    }

    fn deliver(&mut self, inbound: Inbound<'_, P>, exchange: Exchange<P>, payload: Vec<u8>) {
        self.counters.requests += 1;
        let request = IncomingRequest {
            method: inbound.message.code,
            options: OptionList::copy(inbound.message.options()),
            payload,
            observe: exchange.observe,
            exchange,
        };
        self.outputs.push_back(Output::Event(Event::Request(request)));
    }

    fn handle_upload(
        &mut self,
        inbound: Inbound<'_, P>,
        mut exchange: Exchange<P>,
        (block, size1): (Block, Option<u32>),
    ) {
        let Inbound { now, peer, message, .. } = inbound;
        let piece = Piece { resource: exchange.resource, block, size1, payload: message.payload };
        let mut size1 = None;
        let code = match self.uploads.accept(now, peer, piece) {
            Accepted::Complete(body) => return self.deliver(inbound, exchange, body),
            Accepted::Continue(reply) => {
                exchange.block1 = Some(reply);
                self.counters.upload_blocks += 1;
                Code::CONTINUE
            }
            Accepted::Incomplete => Code::REQUEST_ENTITY_INCOMPLETE,
            Accepted::TooLarge => {
                size1 = Some(self.config.limits.upload_bytes_max);
                Code::REQUEST_ENTITY_TOO_LARGE
            }
            Accepted::Malformed => Code::BAD_REQUEST,
        };
        if code != Code::CONTINUE {
            self.counters.rejected_block += 1;
        }
        let block1 = exchange.block1;
        let additions = Additions { block1, size1, ..Additions::default() };
        self.finish_response(now, &exchange, (&Response::new(code), &[]), additions);
    }

    fn respond_with_body(&mut self, now: Instant, exchange: &Exchange<P>, response: Response) {
        let maximum = 16 << self.config.limits.block_size_exponent;
        let asked = exchange.block2;
        let fits = response.payload.len() <= maximum && asked.is_none();
        if fits || !response.code.is_success() {
            let additions = self.additions(exchange);
            // A diagnostic that does not fit a datagram is cut, not sent in blocks.
            let payload = response.payload.get(..maximum).unwrap_or(&response.payload);
            self.finish_response(now, exchange, (&response, payload), additions);
            return;
        }
        let response = Arc::new(response);
        let first = asked.is_none_or(|block| block.number == 0);
        if first
            && slice(&response.payload, asked, self.config.limits.block_size_exponent)
                .is_some_and(|(block, _)| block.is_some_and(|block| block.more))
        {
            self.downloads.keep(now, exchange.peer, exchange.resource, response.clone());
        }
        self.respond_with_slice(now, exchange, &response, asked);
    }

    fn respond_with_slice(
        &mut self,
        now: Instant,
        exchange: &Exchange<P>,
        response: &Response,
        asked: Option<Block>,
    ) {
        let maximum = self.config.limits.block_size_exponent;
        let mut additions = self.additions(exchange);
        match slice(&response.payload, asked, maximum) {
            Some((block, part)) => {
                additions.block2 = block;
                additions.body = Some(entity(&response.payload));
                self.finish_response(now, exchange, (response, part), additions);
            }
            // RFC 7959 §2.4 leaves a block beyond the end to the server.
            None => {
                let beyond = Response::new(Code::BAD_REQUEST);
                self.finish_response(now, exchange, (&beyond, &[]), Additions::default());
            }
        }
    }

    fn additions(&mut self, exchange: &Exchange<P>) -> Additions {
        let observation = exchange.observation.and_then(|id| self.observations.entry_mut(id));
        let observe = observation.map(|observation| observation.next_sequence());
        Additions { observe, block1: exchange.block1, ..Additions::default() }
    }

    fn finish_response(
        &mut self,
        now: Instant,
        exchange: &Exchange<P>,
        (response, payload): (&Response, &[u8]),
        additions: Additions,
    ) {
        let head = self.reply_head(exchange);
        self.scratch.clear();
        encode(&mut self.scratch, head, response, payload, &additions);
        if !exchange.acknowledged {
            self.deduplicator.answer(exchange.key, Answer::Bytes(&self.scratch));
        }
        self.send_reply(now, exchange, head);
    }

    fn reply_head(&mut self, exchange: &Exchange<P>) -> Head {
        let peer = &exchange.peer;
        match (exchange.confirmable, exchange.acknowledged) {
            (true, false) => (MessageType::Acknowledgement, exchange.id, exchange.token),
            (true, true) if !self.reliability.is_full() => {
                let id = self.identifiers.message_id(peer);
                (MessageType::Confirmable, id, exchange.token)
            }
            (confirmable, _) => {
                self.counters.confirmables_demoted += u64::from(confirmable);
                let id = self.identifiers.message_id(peer);
                (MessageType::NonConfirmable, id, exchange.token)
            }
        }
    }

    fn send_reply(&mut self, now: Instant, exchange: &Exchange<P>, head: Head) {
        if head.0 == MessageType::Confirmable {
            let to = (exchange.peer, head.1);
            self.send_scratch_reliably(now, to, Purpose::SeparateResponse);
        } else {
            self.send_scratch(exchange.peer);
        }
    }

    fn handle_refusal(&mut self, inbound: &Inbound<'_, P>, refusal: Refusal) {
        match refusal {
            // RFC 7252 §5.4.1: a confirmable request is answered, any other is dropped.
            Refusal::Option(number) => {
                self.counters.rejected_option += 1;
                let text = format!("option {}", number.0);
                self.refuse(inbound, Code::BAD_OPTION, &text);
            }
            Refusal::Block => {
                self.counters.rejected_block += 1;
                self.refuse(inbound, Code::BAD_REQUEST, "");
            }
            Refusal::Proxy => {
                self.counters.rejected_proxy += 1;
                self.refuse(inbound, Code::PROXYING_NOT_SUPPORTED, "");
            }
        }
    }

    /// Answers a confirmable request with an error, without remembering it: a copy gets the same.
    fn refuse(&mut self, inbound: &Inbound<'_, P>, code: Code, diagnostic: &str) {
        let message = &inbound.message;
        if message.message_type != MessageType::Confirmable {
            return;
        }
        self.scratch.clear();
        let head = (MessageType::Acknowledgement, message.id, message.token);
        let response = Response::new(code);
        let additions = Additions::default();
        encode(&mut self.scratch, head, &response, diagnostic.as_bytes(), &additions);
        self.send_scratch(inbound.peer);
    }
}

/// Writes a response in the order of its option numbers; further options find their place.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    (message_type, id, token): Head,
    response: &Response,
    payload: &[u8],
    additions: &Additions,
) {
    let mut encoder = Encoder::new(buffer, message_type, response.code, id, token);
    if let Some((tag, _)) = &additions.body
        && additions.block2.is_some()
        && response.options.first(OptionNumber::ETAG).is_none()
    {
        encoder = encoder.option(OptionNumber::ETAG, tag);
    }
    // The size goes with the first block.
    let size2 = match (&additions.body, additions.block2) {
        (Some((_, size)), Some(Block { number: 0, more: true, .. })) => Some(*size),
        _ => None,
    };
    let block1 = additions.block1.map(Block::value);
    let block2 = additions.block2.map(Block::value);
    let saturate = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let uints = [
        (OptionNumber::OBSERVE, additions.observe),
        (OptionNumber::CONTENT_FORMAT, response.content_format.map(|format| format.0.into())),
        (OptionNumber::MAX_AGE, response.max_age_seconds),
    ];
    for (number, value) in uints {
        if let Some(value) = value {
            encoder = encoder.uint(number, value);
        }
    }
    for (number, value) in [(OptionNumber::BLOCK2, block2), (OptionNumber::BLOCK1, block1)] {
        if let Some(value) = value {
            encoder = encoder.option(number, value.as_bytes());
        }
    }
    let sizes = [
        (OptionNumber::SIZE2, size2.map(saturate)),
        (OptionNumber::SIZE1, additions.size1.map(saturate)),
    ];
    for (number, value) in sizes {
        if let Some(value) = value {
            encoder = encoder.uint(number, value);
        }
    }
    for option in response.options.iter() {
        encoder = encoder.option(option.number, option.value);
    }
    // An option list holds no option that is too long to be written.
    let written = encoder.payload(payload);
    debug_assert_eq!(written, Ok(()));
}

/// Tag and size of a body in blocks (RFC 7959 §2.4).
pub(super) fn entity(body: &[u8]) -> ([u8; 4], usize) {
    let [a, b, c, d, ..] = xxh3_64(body).to_be_bytes();
    ([a, b, c, d], body.len())
}

/// Whether No-Response forbids a response of this class (RFC 7967 §2.1): bits 2, 8 and 16 stand
/// for the classes 2, 4 and 5.
fn is_unwanted(no_response: u8, code: Code) -> bool {
    match code.class() {
        class @ 1..=5 => no_response & (1 << (class - 1)) != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_response_names_classes_by_bits() {
        assert!(is_unwanted(2, Code::CHANGED));
        assert!(!is_unwanted(2, Code::NOT_FOUND));
        assert!(is_unwanted(26, Code::NOT_FOUND));
        assert!(is_unwanted(16, Code::SERVICE_UNAVAILABLE));
        assert!(!is_unwanted(0, Code::CHANGED));
    }
}
