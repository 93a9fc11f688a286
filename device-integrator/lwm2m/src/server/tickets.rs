//! What waits for the owner's verdict.

use coap::wire::Code;
use coap::{Exchange, Response};
use hashbrown::HashMap;
use vocabulary::Iccid;

use super::Server;
use super::bootstrap::{Keys, Request as BootstrapRequest};
use super::register::{Deregistering, Registering, Updating};
use crate::contact::{Contact, Moment};
use crate::event::{Ticket, Verdict};

/// What follows a verdict.
#[derive(Debug)]
pub(super) enum Action {
    Register(Exchange<Contact>, Box<Registering>),
    Update(Exchange<Contact>, Updating),
    Deregister(Exchange<Contact>, Deregistering),
    Send(Exchange<Contact>, Iccid),
    Notification(Exchange<Contact>, Noted),
    Bootstrap(Exchange<Contact>, Box<BootstrapRequest>),
}

/// A notification that waits to be durable.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) iccid: Iccid,
    pub(super) token: u64,
    /// It ends its observation, once it is taken.
    pub(super) is_last: bool,
}

#[derive(Debug)]
struct Pending {
    action: Action,
    /// Verdicts still to come.
    parts: usize,
    refusal: Option<Verdict>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    pending: HashMap<u64, Pending>,
    serial: u64,
    /// Devices that wait for the answer to a registration or an update, how often: nothing is
    /// asked of them before.
    answering: HashMap<Iccid, u32>,
}

impl Tickets {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_answering(&self, iccid: Iccid) -> bool {
        self.answering.contains_key(&iccid)
    }

    /// The ticket of an action that waits for so many verdicts.
    fn open(&mut self, action: Action, parts: usize) -> Ticket {
        self.serial += 1;
        if let Some(iccid) = action.answered() {
            *self.answering.entry(iccid).or_default() += 1;
        }
        self.pending.insert(self.serial, Pending { action, parts, refusal: None });
        Ticket(self.serial)
    }

    /// Takes a verdict; the last one gives the action, and the first refusal if there was any.
    fn settle(&mut self, ticket: Ticket, verdict: Verdict) -> Option<(Action, Verdict)> {
        let pending = self.pending.get_mut(&ticket.0)?;
        pending.parts = pending.parts.saturating_sub(1);
        let refuses = !matches!(verdict, Verdict::Done | Verdict::Key { .. });
        let verdict = if refuses && pending.refusal.is_none() {
            pending.refusal = Some(verdict);
            None
        } else {
            Some(verdict)
        };
        if pending.parts > 0 {
            return None;
        }
        let Pending { action, refusal, .. } = self.pending.remove(&ticket.0)?;
        if let Some(iccid) = action.answered()
            && let Some(count) = self.answering.get_mut(&iccid)
        {
            *count -= 1;
            if *count == 0 {
                self.answering.remove(&iccid);
            }
        }
        Some((action, refusal.or(verdict)?))
    }
}

impl Action {
    /// The device that nothing is asked of before it has its answer.
    fn answered(&self) -> Option<Iccid> {
        match self {
            Self::Register(_, registering) => Some(registering.iccid),
            Self::Update(_, updating) => Some(updating.iccid),
            Self::Deregister(_, deregistering) => Some(deregistering.iccid),
            _ => None,
        }
    }
}

impl Server {
    /// Takes what became of a ticket.
    pub fn settle(&mut self, moment: Moment, ticket: Ticket, verdict: Verdict) {
        self.end_removed();
        if let Some((action, verdict)) = self.tickets.settle(ticket, verdict) {
            match verdict {
                Verdict::Done | Verdict::Key { .. } => self.accept(moment, action, verdict),
                refusal => self.decline(moment, action, &refusal),
            }
        }
        self.drain(moment, None);
    }

    /// A ticket for an action, unless too many wait: then the device is told to come again.
    pub(super) fn open(&mut self, moment: Moment, action: Action, parts: usize) -> Option<Ticket> {
        if self.tickets.len() < self.config.tickets_max {
            return Some(self.tickets.open(action, parts));
        }
        self.counters.overloaded += 1;
        self.decline(moment, action, &BUSY);
        None
    }

    fn accept(&mut self, moment: Moment, action: Action, verdict: Verdict) {
        match (action, verdict) {
            (Action::Register(exchange, registering), Verdict::Done) => {
                self.finish_registration(moment, exchange, *registering);
            }
            (Action::Update(exchange, updating), Verdict::Done) => {
                self.finish_durable_update(moment, exchange, &updating);
            }
            (Action::Deregister(exchange, deregistering), Verdict::Done) => {
                self.finish_deregistration(moment, exchange, deregistering);
            }
            (Action::Send(exchange, iccid), Verdict::Done) => {
                self.counters.sends += 1;
                self.endpoint.respond(moment.now, exchange, Response::new(Code::CHANGED));
                self.advance_quietly(moment, iccid);
            }
            (Action::Notification(exchange, noted), Verdict::Done) => {
                self.accept_notification(exchange, &noted);
            }
            (
                Action::Bootstrap(exchange, request),
                Verdict::Key { identity, key, bootstrap_key },
            ) => {
                let bootstrap = bootstrap_key.map(|key| (request.identity(), key));
                let keys = Keys { server: (identity, key), bootstrap };
                self.begin_bootstrap(moment, exchange, *request, Some(keys));
            }
            // A key where none was asked for, or none where one was: a mistake of the owner.
            (action, _) => self.decline(moment, action, &BUSY),
        }
    }

    fn decline(&mut self, moment: Moment, action: Action, refusal: &Verdict) {
        let exchange = match action {
            Action::Notification(exchange, noted) => {
                self.decline_notification(exchange, &noted, refusal);
                return;
            }
            Action::Register(exchange, _)
            | Action::Update(exchange, _)
            | Action::Deregister(exchange, _)
            | Action::Send(exchange, _)
            | Action::Bootstrap(exchange, _) => exchange,
        };
        let response = match refusal {
            Verdict::Unauthorised(reason) => {
                Response::new(Code::UNAUTHORIZED).with_diagnostic(reason)
            }
            Verdict::Unavailable { retry_after_seconds, too_fast: true } => {
                Response::new(Code::TOO_MANY_REQUESTS).with_max_age(*retry_after_seconds)
            }
            Verdict::Unavailable { retry_after_seconds, .. } => {
                Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(*retry_after_seconds)
            }
            Verdict::Done | Verdict::Key { .. } => Response::new(Code::INTERNAL_SERVER_ERROR),
        };
        self.endpoint.respond(moment.now, exchange, response);
    }

    /// The device repeats a notification that nobody acknowledges.
    pub(super) fn decline_notification(
        &mut self,
        exchange: Exchange<Contact>,
        noted: &Noted,
        refusal: &Verdict,
    ) {
        if matches!(refusal, Verdict::Unauthorised(_)) {
            self.endpoint.reject(exchange);
            if noted.is_last {
                self.end_watch(noted.iccid, noted.token);
            }
            return;
        }
        // Its copy must count as a new one.
        self.endpoint.forget(&exchange);
    }
}

/// Too many wait: the acknowledgement timeout is a good time to come again.
pub(super) const BUSY: Verdict = Verdict::Unavailable { retry_after_seconds: 2, too_fast: false };
