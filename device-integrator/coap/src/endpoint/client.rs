//! The client's side: requests out, responses and notifications in.

use std::hash::Hash;
use std::time::Instant;

use super::{Endpoint, Event, Inbound, Output};
use crate::client::{Failure, Head, Ongoing, RequestId, RequestRefused, Stage};
use crate::deduplication::{Answer, ExchangeKey, Seen};
use crate::message::{Exchange, IncomingNotification, IncomingResponse, Request};
use crate::observe::NotificationOrder;
use crate::reliability::Purpose;
use crate::review::{Review, review};
use crate::wire::{
    Block, Code, Encoder, MessageId, MessageType, OptionList, OptionNumber, Token, UintValue,
};

/// How the original of a copied response was taken.
enum Copied {
    Pending,
    Silent,
    Acknowledged,
    Rejected,
}

impl From<Seen<'_>> for Copied {
    fn from(seen: Seen<'_>) -> Self {
        match seen {
            Seen::New(_) | Seen::Pending => Self::Pending,
            Seen::Silent | Seen::Bare(..) => Self::Silent,
            Seen::Acknowledged => Self::Acknowledged,
            // The only bytes that answer a response are those of a reset.
            Seen::Answered(_) => Self::Rejected,
        }
    }
}

/// What a response leads to.
enum Next {
    /// Another block is to be sent or asked for.
    Step(Stage),
    /// The body is complete.
    Deliver,
    /// The request has failed.
    Fail(Failure),
}

impl<P: Copy + Eq + Hash> Endpoint<P> {
    /// Sends a request, or queues it until the peer has answered the one before (`NSTART` = 1,
    /// RFC 7252 §4.7). It ends with [`Event::Response`] or [`Event::RequestFailed`].
    ///
    /// # Errors
    /// A limit is hit, or the code is no method.
    pub fn request(
        &mut self,
        now: Instant,
        peer: P,
        request: Request,
    ) -> Result<RequestId, RequestRefused> {
        if request.confirmable && self.reliability.is_full() {
            return Err(RequestRefused::Limit(self.config.limits.confirmables_max));
        }
        let token = request.token.unwrap_or_else(|| self.identifiers.token());
        let (id, is_its_turn) = self.clients.add(peer, request, token)?;
        if is_its_turn {
            self.send_step(now, id);
        }
        Ok(id)
    }

    /// A token that never came before, for [`Request::token`].
    pub fn token(&mut self) -> Token {
        self.identifiers.token()
    }

    /// Forgets a request or an observation, without an event. A peer that notifies again gets a
    /// reset and stops (RFC 7641 §3.6).
    pub fn cancel(&mut self, now: Instant, request: RequestId) {
        self.next_turn(now, request);
        if let Some(ongoing) = self.clients.remove(request) {
            self.reliability.finish(ongoing.peer, ongoing.id);
        }
    }

    pub(super) fn fail(&mut self, now: Instant, id: RequestId, failure: Failure) {
        self.next_turn(now, id);
        if let Some(ongoing) = self.clients.remove(id) {
            self.reliability.finish(ongoing.peer, ongoing.id);
            let event = Event::RequestFailed { request: id, peer: ongoing.peer, failure };
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// Ends a request's turn and begins the next one's.
    pub(super) fn next_turn(&mut self, now: Instant, id: RequestId) {
        if let Some(next) = self.clients.release(id) {
            self.send_step(now, next);
        }
    }

    /// Sends the message that a request's stage asks for.
    fn send_step(&mut self, now: Instant, id: RequestId) {
        let Some(ongoing) = self.clients.ongoing_mut(id) else { return };
        let message = self.identifiers.message_id(&ongoing.peer);
        ongoing.id = message;
        let (peer, confirmable) = (ongoing.peer, ongoing.request.confirmable);
        self.scratch.clear();
        encode_step(&mut self.scratch, ongoing);
        let lifetime = self.config.transmission.exchange_lifetime;
        let timeout = ongoing.request.timeout.unwrap_or(lifetime);
        self.clients.set_deadline(id, Some(now + timeout));
        if confirmable {
            self.send_scratch_reliably(now, (peer, message), Purpose::Request(id));
        } else {
            self.send_scratch(peer);
        }
    }

    pub(super) fn handle_response(&mut self, inbound: Inbound<'_, P>) {
        let message = &inbound.message;
        let found = self.clients.find(message.token).filter(|id| {
            self.clients.ongoing(*id).is_some_and(|ongoing| {
                (self.is_same_peer)(&ongoing.peer, &inbound.peer)
                    && (message.message_type != MessageType::Acknowledgement
                        || ongoing.id == message.id)
            })
        });
        let Some(id) = found.filter(|id| !self.is_late_notification(*id, &inbound)) else {
            self.handle_unmatched(&inbound);
            return;
        };
        let Some(key) = self.admit_response(&inbound) else { return };
        if let Some(ongoing) = self.clients.ongoing(id) {
            self.reliability.finish(ongoing.peer, ongoing.id);
        }
        match review(message, &[OptionNumber::OSCORE], true) {
            Ok(review) => self.handle_matched(inbound, key, (id, review)),
            Err(_) => {
                self.counters.responses_rejected += 1;
                if let Some(key) = key {
                    self.deduplicator.abandon(key);
                }
                self.reject_response(&inbound);
                self.fail(inbound.now, id, Failure::BadOption);
            }
        }
    }

    /// Whether a message of an observation came while the owner cancels that with its token (RFC
    /// 7641 §3.6): it was on its way already, and the answer to the cancel is still to come. That
    /// one has no Observe option, except with peers that put it on the acknowledgement regardless.
    fn is_late_notification(&self, id: RequestId, inbound: &Inbound<'_, P>) -> bool {
        let message = &inbound.message;
        self.config.owner_keeps_observations
            && message.message_type != MessageType::Acknowledgement
            && message.option(OptionNumber::OBSERVE).is_some()
            && self.clients.ongoing(id).is_some_and(|ongoing| {
                !ongoing.request.observe
                    && ongoing.request.options.first(OptionNumber::OBSERVE).is_some()
                    && message.token == ongoing.token
            })
    }

    /// A copy of a response taken before, or a response to nothing. Nobody asked for it, so it
    /// leaves no trace in memory.
    fn handle_unmatched(&mut self, inbound: &Inbound<'_, P>) {
        if inbound.message.message_type != MessageType::Acknowledgement {
            let (now, peer) = (inbound.now, inbound.peer);
            if let Some(seen) = self.deduplicator.look(now, peer, inbound.digest) {
                let copy = Copied::from(seen);
                self.answer_copy(inbound, copy);
                return;
            }
            if self.config.owner_keeps_observations {
                self.deliver_notification(inbound);
                return;
            }
        }
        self.counters.responses_unknown += 1;
        self.reject_response(inbound);
    }

    /// Hands a response to the owner, who knows whether its token is that of an observation.
    fn deliver_notification(&mut self, inbound: &Inbound<'_, P>) {
        let message = &inbound.message;
        let Ok(review) = review(message, &[OptionNumber::OSCORE], true) else {
            self.counters.responses_rejected += 1;
            self.reject_response(inbound);
            return;
        };
        let Some(Some(key)) = self.admit_response(inbound) else { return };
        self.counters.responses += 1;
        let notification = IncomingNotification {
            exchange: notification(inbound, key),
            code: message.code,
            options: OptionList::copy(message.options()),
            payload: message.payload.to_vec(),
            sequence: review.observe,
            block2: review.block2,
        };
        self.outputs.push_back(Output::Event(Event::Notification(notification)));
    }

    /// Joins copies of a separate response; `None` if this is one. An acknowledgement needs no
    /// memory: its copy matches nothing any more.
    fn admit_response(&mut self, inbound: &Inbound<'_, P>) -> Option<Option<ExchangeKey>> {
        let lifetime = match inbound.message.message_type {
            MessageType::Confirmable => self.config.transmission.exchange_lifetime,
            MessageType::NonConfirmable => self.config.transmission.non_lifetime,
            _ => return Some(None),
        };
        let (now, peer) = (inbound.now, inbound.peer);
        let copy = match self.deduplicator.see(now, peer, inbound.digest, lifetime) {
            Seen::New(key) => return Some(Some(key)),
            seen => Copied::from(seen),
        };
        self.answer_copy(inbound, copy);
        None
    }

    fn answer_copy(&mut self, inbound: &Inbound<'_, P>, copy: Copied) {
        let reply = match copy {
            Copied::Pending => {
                self.counters.duplicates_pending += 1;
                return;
            }
            Copied::Silent => None,
            Copied::Acknowledged => Some(MessageType::Acknowledgement),
            Copied::Rejected => Some(MessageType::Reset),
        };
        self.counters.duplicates_answered += 1;
        if let Some(reply) = reply {
            self.send_empty(inbound.peer, reply, inbound.message.id);
        }
    }

    /// RFC 7252 §5.3.2: a confirmable response that matches nothing is rejected; others are
    /// dropped.
    fn reject_response(&mut self, inbound: &Inbound<'_, P>) {
        if inbound.message.message_type == MessageType::Confirmable {
            self.send_empty(inbound.peer, MessageType::Reset, inbound.message.id);
        }
    }

    fn handle_matched(
        &mut self,
        inbound: Inbound<'_, P>,
        key: Option<ExchangeKey>,
        (id, review): (RequestId, Review),
    ) {
        let message = &inbound.message;
        let Some(ongoing) = self.clients.ongoing_mut(id) else { return };
        let sequence = review
            .observe
            .filter(|_| ongoing.request.observe && message.code.is_success())
            .filter(|_| message.token == ongoing.token);
        if let Some(sequence) = sequence {
            let next = NotificationOrder { sequence, at: inbound.now };
            if ongoing.order.is_some_and(|newest| !newest.is_followed_by(next)) {
                self.counters.responses_stale += 1;
                self.accept_response(&inbound, key);
                return;
            }
            ongoing.order = Some(next);
        }
        self.counters.responses += 1;
        let confirmable = message.message_type == MessageType::Confirmable;
        let notification = match key {
            Some(key) if sequence.is_some() && confirmable => Some(notification(&inbound, key)),
            key => {
                self.accept_response(&inbound, key);
                None
            }
        };
        let Some(ongoing) = self.clients.ongoing_mut(id) else { return };
        if sequence.is_some() || ongoing.head.is_none() {
            ongoing.notification = notification;
            ongoing.collected.clear();
            let options = OptionList::copy(message.options());
            ongoing.head = Some(Head { code: message.code, options, sequence });
        }
        let response_bytes_max = self.config.limits.response_bytes_max;
        match advance(ongoing, &inbound, &review, response_bytes_max) {
            Next::Step(stage) => {
                ongoing.stage = stage;
                let token = self.identifiers.token();
                self.clients.set_step_token(id, token);
                self.send_step(inbound.now, id);
            }
            Next::Deliver => self.deliver_response(inbound.now, id),
            Next::Fail(failure) => self.fail(inbound.now, id, failure),
        }
    }

    /// Takes a response at once: a CON is acknowledged.
    fn accept_response(&mut self, inbound: &Inbound<'_, P>, key: Option<ExchangeKey>) {
        let Some(key) = key else { return };
        if inbound.message.message_type == MessageType::Confirmable {
            self.send_empty(inbound.peer, MessageType::Acknowledgement, inbound.message.id);
            self.deduplicator.answer(key, Answer::Acknowledged);
        } else {
            self.deduplicator.answer(key, Answer::Silent);
        }
    }

    fn deliver_response(&mut self, now: Instant, id: RequestId) {
        let Some(ongoing) = self.clients.ongoing_mut(id) else { return };
        let Some(head) = ongoing.head.take() else { return };
        let response = IncomingResponse {
            request: id,
            peer: ongoing.peer,
            code: head.code,
            options: head.options,
            payload: std::mem::take(&mut ongoing.collected),
            sequence: head.sequence,
            notification: ongoing.notification.take(),
        };
        ongoing.stage = Stage::Observing;
        self.next_turn(now, id);
        if head.sequence.is_some() && !self.config.owner_keeps_observations {
            self.clients.set_deadline(id, None);
        } else {
            self.clients.remove(id);
        }
        self.outputs.push_back(Output::Event(Event::Response(response)));
    }
}

fn notification<P: Copy>(inbound: &Inbound<'_, P>, key: ExchangeKey) -> Exchange<P> {
    Exchange {
        peer: inbound.peer,
        key,
        id: inbound.message.id,
        token: inbound.message.token,
        confirmable: inbound.message.message_type == MessageType::Confirmable,
        acknowledged: false,
        no_response: 0,
        block1: None,
        block2: None,
        resource: 0,
        observe: None,
        observation: None,
    }
}

/// Takes a response's payload and says what comes next.
fn advance<P>(
    ongoing: &mut Ongoing<P>,
    inbound: &Inbound<'_, P>,
    review: &Review,
    response_bytes_max: usize,
) -> Next {
    let message = &inbound.message;
    if let (Stage::Upload { offset }, Some(block)) = (ongoing.stage, review.block1) {
        let smaller = block.size_exponent < ongoing.size_exponent;
        let sent = offset + (16 << ongoing.size_exponent);
        ongoing.size_exponent = ongoing.size_exponent.min(block.size_exponent);
        // RFC 7959 §2.9.1 and §2.9.3.
        let next = match message.code {
            Code::CONTINUE if sent < ongoing.request.payload.len() => Some(sent),
            Code::REQUEST_ENTITY_TOO_LARGE if smaller && offset == 0 => Some(0),
            _ => None,
        };
        if let Some(offset) = next {
            ongoing.head = None;
            return Next::Step(Stage::Upload { offset });
        }
    }
    let is_success = message.code.is_success();
    let Some(block) = review.block2.filter(|_| is_success) else {
        if matches!(ongoing.stage, Stage::Download { .. })
            && let Some(head) = &mut ongoing.head
            && head.sequence.is_none()
        {
            // An error, or a body in one piece, in the middle of a collection: it counts.
            head.code = message.code;
            head.options = OptionList::copy(message.options());
        }
        ongoing.collected = message.payload.to_vec();
        return Next::Deliver;
    };
    let tag = message.option(OptionNumber::ETAG).map(|option| option.value);
    let first_tag = ongoing
        .head
        .as_ref()
        .and_then(|head| head.options.first(OptionNumber::ETAG))
        .map(|option| option.value);
    let fills = message.payload.len() == block.size_bytes();
    if block.offset_bytes() != ongoing.collected.len() || tag != first_tag || (block.more && !fills)
    {
        return Next::Fail(Failure::BodyChanged);
    }
    let length = ongoing.collected.len() + message.payload.len();
    if length > response_bytes_max {
        return Next::Fail(Failure::BodyTooLarge(length));
    }
    ongoing.collected.extend_from_slice(message.payload);
    if !block.more {
        return Next::Deliver;
    }
    ongoing.size_exponent = block.size_exponent;
    Next::Step(Stage::Download { number: block.number + 1 })
}

/// Writes the message that a request's stage asks for.
fn encode_step<P>(buffer: &mut Vec<u8>, ongoing: &Ongoing<P>) {
    let request = &ongoing.request;
    let message_type = match request.confirmable {
        true => MessageType::Confirmable,
        false => MessageType::NonConfirmable,
    };
    let (id, token): (MessageId, _) = (ongoing.id, ongoing.step_token);
    let mut encoder = Encoder::new(buffer, message_type, request.method, id, token);
    let is_first = ongoing.stage == Stage::Upload { offset: 0 };
    if request.observe && is_first {
        encoder = encoder.option(OptionNumber::OBSERVE, &[]);
    }
    for option in request.options.iter() {
        encoder = encoder.option(option.number, option.value);
    }
    let size_exponent = ongoing.size_exponent;
    let size = 16_usize << size_exponent;
    let payload = match ongoing.stage {
        Stage::Upload { offset } => {
            let rest = request.payload.get(offset..).unwrap_or_default();
            let more = rest.len() > size;
            if more || offset > 0 {
                let number = u32::try_from(offset / size).unwrap_or(Block::NUMBER_MAX);
                let block = Block { number, more, size_exponent };
                encoder = encoder.option(OptionNumber::BLOCK1, block.value().as_bytes());
            }
            if more && offset == 0 {
                let total = u32::try_from(request.payload.len()).unwrap_or(u32::MAX);
                encoder = encoder.option(OptionNumber::SIZE1, UintValue::new(total).as_bytes());
            }
            rest.get(..size).unwrap_or(rest)
        }
        Stage::Download { number } => {
            let block = Block { number, more: false, size_exponent };
            encoder = encoder.option(OptionNumber::BLOCK2, block.value().as_bytes());
            &[]
        }
        Stage::Observing => &[],
    };
    // An option list holds no option that is too long to be written.
    let written = encoder.payload(payload);
    debug_assert_eq!(written, Ok(()));
}
