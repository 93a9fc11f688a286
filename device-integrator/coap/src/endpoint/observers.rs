//! Notifications to peers that observe (RFC 7641 §4).

use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use super::server::{Additions, encode, entity};
use super::{CancelCause, Endpoint, Event, Output};
use crate::blockwise::download::slice;
use crate::message::{Exchange, ObserveAction, Response};
use crate::observe::{CONFIRM_AT_LEAST_EVERY, ObservationEnded, ObservationId, ObservationRefused};
use crate::reliability::Purpose;
use crate::wire::MessageType;

impl<P: Copy + Eq + Hash> Endpoint<P> {
    /// Accepts the observation that a request asks for; the response to it then says so.
    ///
    /// # Errors
    /// The request does not ask for one, or a limit is hit: answer it without.
    pub fn accept_observation(
        &mut self,
        now: Instant,
        exchange: &mut Exchange<P>,
    ) -> Result<ObservationId, ObservationRefused> {
        if exchange.observe != Some(ObserveAction::Register) {
            return Err(ObservationRefused::NotAsked);
        }
        let observer = (exchange.peer, exchange.token);
        let registered = self.observations.register(now, observer, exchange.resource);
        if registered.is_err() {
            self.counters.observations_refused += 1;
        }
        exchange.observation = registered.ok();
        registered
    }

    /// Tells an observer the new state. While a confirmable notification is under way, the newest
    /// state waits for its acknowledgement, and those between are left out (RFC 7641 §4.5.1). A
    /// response that is no success ends the observation.
    ///
    /// # Errors
    /// The observation has ended.
    pub fn notify(
        &mut self,
        now: Instant,
        observation: ObservationId,
        response: Response,
        confirmable: bool,
    ) -> Result<(), ObservationEnded> {
        let observer = self.observations.entry_mut(observation).ok_or(ObservationEnded)?;
        if observer.unacknowledged.is_some() {
            observer.next = Some(response);
        } else {
            self.send_notification(now, observation, response, confirmable);
        }
        Ok(())
    }

    /// Ends an observation without a word; the peer learns it when it asks again.
    pub fn end_observation(&mut self, observation: ObservationId) {
        self.forget_observation(observation);
    }

    pub(super) fn notification_acknowledged(&mut self, now: Instant, id: ObservationId) {
        let Some(observer) = self.observations.entry_mut(id) else { return };
        observer.unacknowledged = None;
        observer.confirmed_at = now;
        if let Some(next) = observer.next.take() {
            self.send_notification(now, id, next, true);
        }
    }

    pub(super) fn cancel_observation_because(&mut self, id: ObservationId, cause: CancelCause) {
        if let Some(peer) = self.forget_observation(id) {
            let event = Event::ObservationCancelled { observation: id, peer, cause };
            self.outputs.push_back(Output::Event(event));
        }
    }

    fn forget_observation(&mut self, id: ObservationId) -> Option<P> {
        let observer = self.observations.remove(id)?;
        if let Some(message) = observer.unacknowledged {
            self.reliability.finish(observer.peer, message);
        }
        Some(observer.peer)
    }

    fn send_notification(
        &mut self,
        now: Instant,
        id: ObservationId,
        response: Response,
        confirmable: bool,
    ) {
        let Some(observer) = self.observations.entry_mut(id) else { return };
        let (peer, token, resource) = (observer.peer, observer.token, observer.resource);
        let wanted = confirmable
            || now.saturating_duration_since(observer.confirmed_at) >= CONFIRM_AT_LEAST_EVERY;
        let reliable = wanted && !self.reliability.is_full();
        self.counters.confirmables_demoted += u64::from(wanted && !reliable);
        let message_type =
            if reliable { MessageType::Confirmable } else { MessageType::NonConfirmable };
        let message = self.identifiers.message_id(&peer);
        observer.newest = Some(message);
        observer.unacknowledged = reliable.then_some(message);
        // RFC 7641 §4.2: an error carries no sequence number and ends the observation.
        let is_success = response.code.is_success();
        let observe = is_success.then(|| observer.next_sequence());
        self.scratch.clear();
        let response = Arc::new(response);
        let size_exponent = self.config.limits.block_size_exponent;
        let (block2, part) =
            slice(&response.payload, None, size_exponent).unwrap_or((None, &response.payload));
        let body = Some(entity(&response.payload));
        let additions = Additions { observe, block2, body, ..Additions::default() };
        let head = (message_type, message, token);
        encode(&mut self.scratch, head, &response, part, &additions);
        if block2.is_some() {
            self.downloads.keep(now, peer, resource, response.clone());
        }
        if reliable {
            self.send_scratch_reliably(now, (peer, message), Purpose::Notification(id));
        } else {
            self.send_scratch(peer);
        }
        if !is_success {
            self.end_after_error(id);
        }
    }

    /// Ends an observation whose last notification is still under way: that one is repeated as
    /// any separate response.
    fn end_after_error(&mut self, id: ObservationId) {
        if let Some(observer) = self.observations.remove(id) {
            let event = Event::ObservationCancelled {
                observation: id,
                peer: observer.peer,
                cause: CancelCause::Error,
            };
            self.outputs.push_back(Output::Event(event));
        }
    }
}
