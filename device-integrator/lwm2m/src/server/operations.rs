//! Operations on devices: their turns, their answers, and what ends them without one.

use coap::wire::{Code, ContentFormat};
use coap::{Failure, IncomingResponse, NotificationOrder, RequestId};
use hashbrown::HashMap;
use vocabulary::Iccid;

use super::notifications::Fetch;
use super::translate::{self, Plan, Watch};
use super::{Server, tickets};
use crate::codec;
use crate::contact::{Contact, Device, Moment};
use crate::event::{Event, Origin, Outcome};
use crate::operation::Operation;
use crate::path::Path;
use crate::registration::Observation;
use crate::registry::{Flight, Queued, Target, Turn, Watched};

/// Our requests under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_request: HashMap<RequestId, Flying>,
    by_device: HashMap<Iccid, RequestId>,
    serial: u64,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) iccid: Iccid,
    pub(super) kind: Kind,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Kind {
    Operation(Box<Asked>),
    /// The whole of a notification that did not fit one message.
    Fetch(Box<Fetch>, u64),
    Bootstrap,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Asked {
    /// `None`: passive reporting.
    command: Option<u64>,
    operation: Operation,
    target: Target,
    serial: u64,
    attempt: usize,
    base: Path,
    watch: Watch,
}

impl Flights {
    pub(super) fn insert(&mut self, request: RequestId, flying: Flying) {
        if !matches!(flying.kind, Kind::Bootstrap) {
            self.by_device.insert(flying.iccid, request);
        }
        self.by_request.insert(request, flying);
    }

    pub(super) fn take(&mut self, request: RequestId) -> Option<Flying> {
        let flying = self.by_request.remove(&request)?;
        if self.by_device.get(&flying.iccid) == Some(&request) {
            self.by_device.remove(&flying.iccid);
        }
        Some(flying)
    }

    /// The observation with this token that a request under way cancels.
    pub(super) fn ending(&self, iccid: Iccid, token: u64) -> Option<&Observation> {
        match &self.by_request.get(self.by_device.get(&iccid)?)?.kind {
            Kind::Operation(asked) => match &asked.watch {
                Watch::End(observation) if observation.token == token => Some(observation),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

impl Server {
    /// Does an operation on a device; it ends with [`Event::CommandEnded`], always.
    ///
    /// It waits for a device in queue mode that sleeps, for operations asked for before, and goes
    /// out at once otherwise. Call the server whose seat the device's contact has.
    pub fn command(&mut self, moment: Moment, iccid: Iccid, command: u64, operation: Operation) {
        self.end_removed();
        self.counters.commands += 1;
        if let Err(reason) = translate::check(&self.model, &operation) {
            self.end_command(iccid, command, Outcome::Invalid(reason));
            return;
        }
        let queued = Queued { command, operation, queued_at: moment.at };
        let limits = self.registry.limits().clone();
        let added = self.registry.with(iccid, |entry| {
            let lasts = entry.registration.expires_at > moment.at;
            lasts.then(|| entry.enqueue(queued, &limits))
        });
        match added.flatten() {
            None => self.end_command(iccid, command, Outcome::NotRegistered),
            Some(Err(limit)) => {
                let reason = format!("{limit} operations wait for the device, which is the limit");
                self.end_command(iccid, command, Outcome::Unreachable(reason));
            }
            Some(Ok(())) => self.advance_quietly(moment, iccid),
        }
        self.drain(moment, None);
    }

    /// Sends what waits for a device, if it is its turn.
    pub fn advance(&mut self, moment: Moment, iccid: Iccid) {
        self.end_removed();
        self.advance_quietly(moment, iccid);
        self.drain(moment, None);
    }

    pub(super) fn advance_quietly(&mut self, moment: Moment, iccid: Iccid) {
        while !self.tickets.is_answering(iccid) {
            if self.begin_fetch(moment, iccid) {
                return;
            }
            let flight = Flight { seat: self.seat, serial: self.flights.next_serial() };
            let times = (self.config.awake_for, self.registry.limits().queued_for);
            let turn = self.registry.with(iccid, |entry| entry.take_turn(flight, moment, times));
            let (command, operation, target) = match turn {
                None | Some(Turn::Nobody) => return,
                Some(Turn::Elsewhere(seat)) => {
                    self.emit(Event::Elsewhere { iccid, seat });
                    return;
                }
                Some(Turn::Overdue(command)) => {
                    self.end_command(iccid, command, overdue());
                    continue;
                }
                Some(Turn::Command(queued, target)) => {
                    (Some(queued.command), queued.operation, target)
                }
                Some(Turn::Passive(object, target)) => {
                    let path = Path::object(object);
                    (None, Operation::Read { path, accept: None }, target)
                }
            };
            let watch = Watch::Nothing;
            let (serial, attempt, base) = (flight.serial, 0, Path::ROOT);
            let asked = Asked { command, operation, target, serial, attempt, base, watch };
            if self.ask(moment, iccid, asked) {
                return;
            }
        }
    }

    /// Sends the request of an operation whose turn it is; otherwise ends it.
    fn ask(&mut self, moment: Moment, iccid: Iccid, mut asked: Asked) -> bool {
        if asked.attempt == 0 {
            match self.watch(iccid, &asked.operation, &asked.target) {
                Ok(watch) => asked.watch = watch,
                Err(reason) => {
                    self.end(iccid, &asked, Outcome::Invalid(reason));
                    return false;
                }
            }
        }
        let how = (&asked.watch, asked.attempt);
        let plan = translate::plan(&self.model, &asked.target, &asked.operation, how);
        let Plan { request, base } = match plan {
            Ok(plan) => plan,
            Err(reason) => {
                self.forget_watch(iccid, &asked.watch);
                self.end(iccid, &asked, Outcome::Invalid(reason));
                return false;
            }
        };
        asked.base = base;
        match self.endpoint.request(moment.now, asked.target.contact, request) {
            Ok(request) => {
                let kind = Kind::Operation(Box::new(asked));
                self.flights.insert(request, Flying { iccid, kind });
                true
            }
            Err(refused) => {
                self.forget_watch(iccid, &asked.watch);
                self.end(iccid, &asked, Outcome::Unreachable(refused.to_string()));
                false
            }
        }
    }

    /// Takes up or gives up the observation that an operation asks for.
    fn watch(
        &mut self,
        iccid: Iccid,
        operation: &Operation,
        target: &Target,
    ) -> Result<Watch, String> {
        let (paths, composite) = match operation {
            Operation::Observe { path, .. } => ([*path].into(), false),
            Operation::ObserveComposite { paths } => (paths.clone().into_boxed_slice(), true),
            Operation::CancelObservation { path } => {
                let ended = self.registry.with(iccid, |entry| {
                    let observation = entry.watch_with(path).cloned()?;
                    entry.unwatch(observation.token);
                    Some((observation, entry.save()))
                });
                let Some((observation, state)) = ended.flatten() else {
                    return Err(format!("{path} is not observed"));
                };
                self.emit(Event::SaveSoon { iccid, state: Some(state) });
                return Ok(Watch::End(observation));
            }
            _ => return Ok(Watch::Nothing),
        };
        let format = translate::observed_format(target, operation);
        // Eight bytes, of which the number is made.
        let fresh = self.endpoint.token().as_bytes().try_into().map_or(0, u64::from_be_bytes);
        let max = self.registry.limits().observations_per_device_max;
        let begun = self.registry.with(iccid, |entry| {
            // RFC 7641 §3.3.1: the same token refreshes an observation of the same.
            if let Some(observation) = entry.watch_of(&paths) {
                return Ok((observation.token, false));
            }
            if entry.watched.len() >= max {
                return Err(format!("{max} observations of the device are the limit"));
            }
            let observation = Observation { token: fresh, paths, composite, format };
            entry.watched.push(Watched { observation, newest: None, confirmed: false });
            Ok((fresh, true))
        });
        let (token, is_new) = begun.unwrap_or(Err("the registration ended".to_owned()))?;
        Ok(Watch::Begin { token, is_new })
    }

    /// Forgets an observation that did not begin. One that was to be refreshed goes on: the device
    /// has not said otherwise.
    fn forget_watch(&mut self, iccid: Iccid, watch: &Watch) {
        if let Watch::Begin { token, is_new: true } = *watch {
            self.registry.with(iccid, |entry| entry.unwatch(token));
        }
    }

    pub(super) fn handle_response(
        &mut self,
        moment: Moment,
        device: Device,
        response: IncomingResponse<Contact>,
    ) {
        let Some(flying) = self.flights.take(response.request) else { return };
        let iccid = flying.iccid;
        if device.iccid != iccid {
            // The address has another owner now.
            if let Some(exchange) = response.notification {
                self.endpoint.reject(exchange);
            }
            self.fail(flying, ("another device answered", true));
            return;
        }
        match flying.kind {
            Kind::Bootstrap => self.handle_bootstrap_answer(moment, iccid, &response),
            Kind::Fetch(fetch, serial) => self.conclude_fetch(moment, (*fetch, serial), response),
            Kind::Operation(asked) => self.conclude(moment, iccid, *asked, response),
        }
        self.advance_quietly(moment, iccid);
    }

    fn conclude(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        mut asked: Asked,
        response: IncomingResponse<Contact>,
    ) {
        let refused =
            matches!(response.code, Code::NOT_ACCEPTABLE | Code::UNSUPPORTED_CONTENT_FORMAT);
        if refused && asked.attempt == 0 && translate::has_alternative(&asked.operation) {
            asked.attempt = 1;
            self.ask(moment, iccid, asked);
            return;
        }
        self.conclude_watch(moment, iccid, (&asked.watch, &response));
        let code = response.code;
        let format = response.content_format();
        let reads = matches!(
            asked.operation,
            Operation::Read { .. }
                | Operation::Observe { .. }
                | Operation::ReadComposite { .. }
                | Operation::ObserveComposite { .. }
        );
        let outcome = if reads && code.is_success() {
            self.conclude_reading(moment, iccid, &asked, response)
        } else {
            if let Some(exchange) = response.notification {
                let _answered = self.endpoint.acknowledge(exchange);
            }
            let payload = response.payload;
            Outcome::Answered { code, format, payload, decoded: false }
        };
        self.end(iccid, &asked, outcome);
    }

    /// Reads the values of an answer and hands them on.
    fn conclude_reading(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        asked: &Asked,
        response: IncomingResponse<Contact>,
    ) -> Outcome {
        let code = response.code;
        let format = response.content_format();
        let base = match asked.operation {
            Operation::ReadComposite { .. } | Operation::ObserveComposite { .. } => Path::ROOT,
            _ => asked.base,
        };
        let read_as = format.unwrap_or_else(|| default_format(&base));
        let at = super::notifications::unix(moment.at);
        let decoded = codec::decode(read_as, &base, &response.payload, &self.model, at);
        let records = match decoded {
            Ok(records) => records,
            Err(error) => {
                self.notice(iccid, "Lwm2m[AnswerUnreadable]", format!("{base}: {error}"));
                if let Some(exchange) = response.notification {
                    let _answered = self.endpoint.acknowledge(exchange);
                }
                let payload = response.payload;
                return Outcome::Answered { code, format, payload, decoded: false };
            }
        };
        let payload = crate::record::flat_json(&records);
        let origin = if asked.command.is_some() { Origin::Command } else { Origin::Passive };
        let noted = tickets::Noted { iccid, token: 0, is_last: false };
        let carrier = response.notification.map(|exchange| (exchange, noted));
        self.hand_on(moment, iccid, (&records, origin), carrier);
        Outcome::Answered { code, format, payload, decoded: true }
    }

    /// Keeps the observation that a device agreed to, and forgets one that it did not.
    fn conclude_watch(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        (watch, response): (&Watch, &IncomingResponse<Contact>),
    ) {
        let Watch::Begin { token, .. } = *watch else { return };
        let sequence = response.sequence.filter(|_| response.code.is_success());
        let state = self.registry.with(iccid, |entry| {
            let watched = entry.watched_mut(token)?;
            let was_kept = watched.confirmed;
            let Some(sequence) = sequence else {
                entry.unwatch(token);
                return was_kept.then(|| entry.save());
            };
            watched.confirmed = true;
            watched.newest = Some(NotificationOrder { sequence, at: moment.now });
            Some(entry.save())
        });
        if let Some(Some(state)) = state {
            self.emit(Event::SaveSoon { iccid, state: Some(state) });
        }
    }

    pub(super) fn handle_failure(&mut self, moment: Moment, request: RequestId, failure: Failure) {
        let Some(flying) = self.flights.take(request) else { return };
        let iccid = flying.iccid;
        let is_silent = failure == Failure::TimedOut;
        self.fail(flying, (&failure.to_string(), is_silent));
        self.advance_quietly(moment, iccid);
    }

    /// Ends the request under way to a device that is no longer where it was sent.
    pub(super) fn abandon_flight(&mut self, moment: Moment, iccid: Iccid) {
        let Some(request) = self.flights.by_device.get(&iccid).copied() else { return };
        self.endpoint.cancel(moment.now, request);
        if let Some(flying) = self.flights.take(request) {
            self.fail(flying, ("the device moved before it answered", false));
        }
    }

    /// Ends a request without an answer; a device that is silent sleeps or is gone.
    fn fail(&mut self, flying: Flying, (reason, is_silent): (&str, bool)) {
        let iccid = flying.iccid;
        let serial = match &flying.kind {
            Kind::Operation(asked) => Some(asked.serial),
            Kind::Fetch(_, serial) => Some(*serial),
            Kind::Bootstrap => None,
        };
        if is_silent && let Some(serial) = serial {
            let flight = Flight { seat: self.seat, serial };
            self.registry.with(iccid, |entry| {
                // One that moved meanwhile is heard elsewhere.
                if entry.flight == Some(flight) {
                    entry.heard = None;
                    entry.stop_passive();
                }
            });
        }
        match flying.kind {
            Kind::Bootstrap => self.end_bootstrap(iccid, Some(reason.to_owned())),
            Kind::Fetch(fetch, serial) => {
                self.land(iccid, serial);
                self.decline_fetch(*fetch);
            }
            Kind::Operation(asked) => {
                self.forget_watch(iccid, &asked.watch);
                self.end(iccid, &asked, Outcome::Unreachable(reason.to_owned()));
            }
        }
    }

    /// Ends an operation whose turn it was.
    fn end(&mut self, iccid: Iccid, asked: &Asked, outcome: Outcome) {
        self.land(iccid, asked.serial);
        if let Some(command) = asked.command {
            self.end_command(iccid, command, outcome);
            return;
        }
        let base = &asked.base;
        let reason = match outcome {
            Outcome::Answered { decoded: true, .. } => {
                self.counters.passive_reads += 1;
                return;
            }
            Outcome::Answered { code, .. } => format!("{base}: the device answered {code}"),
            Outcome::Unreachable(reason) | Outcome::Invalid(reason) => format!("{base}: {reason}"),
            Outcome::NotRegistered => return,
        };
        self.counters.passive_failures += 1;
        self.notice(iccid, "Lwm2m[PassiveReportFailed]", reason);
    }

    /// Frees the device for the next request.
    pub(super) fn land(&mut self, iccid: Iccid, serial: u64) {
        let flight = Flight { seat: self.seat, serial };
        self.registry.with(iccid, |entry| {
            if entry.flight == Some(flight) {
                entry.flight = None;
            }
        });
    }

    pub(super) fn end_command(&mut self, iccid: Iccid, command: u64, outcome: Outcome) {
        match outcome {
            Outcome::Answered { .. } => self.counters.commands_answered += 1,
            _ => self.counters.commands_failed += 1,
        }
        self.emit(Event::CommandEnded { command, iccid, outcome });
    }
}

/// The end of an operation that waited for too long.
pub(super) fn overdue() -> Outcome {
    Outcome::Unreachable("the device was not heard for too long".to_owned())
}

/// What an answer without a format is in: the text of a value, or TLV (LwM2M Core 1.0 §6.4).
pub(super) fn default_format(base: &Path) -> ContentFormat {
    match base.ids().len() {
        3.. => ContentFormat::TEXT_PLAIN,
        _ => ContentFormat::LWM2M_TLV,
    }
}
