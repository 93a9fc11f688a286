//! Registration, update and de-registration (OMA LwM2M Core 1.1 §6.2).

use std::time::Duration;

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{Exchange, IncomingRequest, Response};
use vocabulary::{Iccid, Timestamp};

use super::tickets::Action;
use super::{Server, ServerConfig};
use crate::contact::{Contact, Device, Moment, Security};
use crate::event::{Event, Outcome};
use crate::registration::{Links, Parameters, Refused, Registration, RegistrationId, Version};
use crate::registry::{Claim, Entry, NotInstalled, Revision};

/// When a device may come back that did not fit.
const RETRY_SECONDS: u32 = 60;
/// When a device may come back that registered twice at once: the acknowledgement timeout.
const OVERTAKEN_RETRY_SECONDS: u32 = 2;

/// A registration that is not durable yet.
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) iccid: Iccid,
    registration: Registration,
    claim: Claim,
}

/// An update of links that is not durable yet.
#[derive(Debug)]
pub(super) struct Updating {
    pub(super) iccid: Iccid,
    revision: Revision,
}

/// A de-registration that is not durable yet.
#[derive(Debug)]
pub(super) struct Deregistering {
    pub(super) iccid: Iccid,
    id: RegistrationId,
    revision: Revision,
}

impl Server {
    pub(super) fn handle_register(
        &mut self,
        moment: Moment,
        device: Device,
        request: IncomingRequest<Contact>,
    ) {
        let iccid = device.iccid;
        let registration = match self.read_registration(moment, device, &request) {
            Ok(registration) => registration,
            Err(refused) => {
                self.notice(iccid, "Lwm2m[RegistrationRefused]", refused.reason.clone());
                self.refuse(moment, request.exchange, &refused);
                return;
            }
        };
        if !self.registry.has_room_for(iccid) {
            self.refuse_full(moment, request.exchange);
            return;
        }
        let claim = self.registry.claim(iccid);
        let state = Entry::new(registration.clone()).save();
        let registering = Box::new(Registering { iccid, registration, claim });
        if let Some(ticket) = self.open(moment, Action::Register(request.exchange, registering), 1)
        {
            self.emit(Event::Save { ticket, iccid, state: Some(state) });
        }
    }

    fn read_registration(
        &mut self,
        moment: Moment,
        device: Device,
        request: &IncomingRequest<Contact>,
    ) -> Result<Registration, Refused> {
        let parameters = self.read_parameters(device, request, Security::BootstrapKey)?;
        if device.security == Security::NoSec && self.registry.is_bound(device.iccid, moment.at) {
            return Err(needs_key());
        }
        let links = read_links(request)?;
        let lifetime_seconds = parameters.lifetime_seconds.unwrap_or(self.config.lifetime_seconds);
        Ok(Registration {
            id: self.registration_id(),
            version: parameters.version.unwrap_or(Version::V1_0),
            binding: parameters.binding.unwrap_or_default(),
            lifetime_seconds,
            sms: parameters.sms.map(String::into_boxed_str),
            security: device.security,
            links,
            registered_at: moment.at,
            updated_at: moment.at,
            expires_at: self.expiry(moment.at, lifetime_seconds),
            contact: Some(request.peer()),
            observations: Vec::new(),
        })
    }

    pub(super) fn finish_registration(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        registering: Registering,
    ) {
        let Registering { iccid, registration, claim } = registering;
        let id = registration.id;
        let installed = match self.registry.install(iccid, (registration, claim), moment) {
            Ok(installed) => installed,
            Err(reason) => {
                self.refuse_durable(moment, iccid, (exchange, &reason));
                return;
            }
        };
        // What was observed before is not any more.
        self.drop_fetches(iccid);
        if installed.rebound {
            self.abandon_flight(moment, iccid);
        }
        for command in installed.ended {
            self.end_command(iccid, command, Outcome::NotRegistered);
        }
        if installed.overtaken {
            let state = self.registry.save(iccid);
            self.emit(Event::SaveSoon { iccid, state });
        }
        self.counters.registrations += 1;
        let text = id.to_string();
        let response = Response::new(Code::CREATED)
            .with_option(OptionNumber::LOCATION_PATH, b"rd")
            .and_then(|response| response.with_option(OptionNumber::LOCATION_PATH, text.as_bytes()))
            // Two short options always fit.
            .unwrap_or(Response::new(Code::INTERNAL_SERVER_ERROR));
        self.endpoint.respond(moment.now, exchange, response);
        self.wake(moment, iccid, true);
    }

    /// Refuses a registration that was made durable, and puts the disk right.
    fn refuse_durable(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        (exchange, reason): (Exchange<Contact>, &NotInstalled),
    ) {
        let state = self.registry.save(iccid);
        self.emit(Event::SaveSoon { iccid, state });
        match reason {
            // The device hears of its newer one. If this is the one that it waits for, it asks
            // again.
            NotInstalled::Overtaken => {
                let response =
                    Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(OVERTAKEN_RETRY_SECONDS);
                self.endpoint.respond(moment.now, exchange, response);
            }
            // The limit was reached meanwhile.
            NotInstalled::Full => self.refuse_full(moment, exchange),
            // The device registered with its key meanwhile.
            NotInstalled::Bound => {
                let refused = needs_key();
                self.notice(iccid, "Lwm2m[RegistrationRefused]", refused.reason.clone());
                self.refuse(moment, exchange, &refused);
            }
        }
    }

    pub(super) fn handle_update(
        &mut self,
        moment: Moment,
        device: Device,
        (id, request): (&str, IncomingRequest<Contact>),
    ) {
        let read = Parameters::read(request.queries()).and_then(|parameters| {
            let has_links = !request.payload.is_empty();
            Ok((parameters, has_links.then(|| read_links(&request)).transpose()?))
        });
        let (parameters, links) = match read {
            Ok(read) => read,
            Err(refused) => {
                self.notice(device.iccid, "Lwm2m[UpdateRefused]", refused.reason.clone());
                self.refuse(moment, request.exchange, &refused);
                return;
            }
        };
        let updated = self.registry.with_own(device, moment.at, |entry| {
            entry.registration.id.is(id).then(|| {
                let registration = &mut entry.registration;
                let lifetime = parameters.lifetime_seconds.unwrap_or(registration.lifetime_seconds);
                registration.expires_at = expiry(&self.config, moment.at, lifetime);
                let has_new_links = apply(registration, parameters, links);
                registration.updated_at = moment.at;
                (entry.save(), has_new_links.then_some(entry.revision))
            })
        });
        let iccid = device.iccid;
        match updated.flatten() {
            None => self.refuse_unknown(moment, request.exchange),
            Some((state, Some(revision))) => {
                let action = Action::Update(request.exchange, Updating { iccid, revision });
                if let Some(ticket) = self.open(moment, action, 1) {
                    self.emit(Event::Save { ticket, iccid, state: Some(state) });
                }
            }
            Some((state, None)) => {
                self.emit(Event::SaveSoon { iccid, state: Some(state) });
                self.finish_update(moment, request.exchange, iccid);
            }
        }
    }

    /// Ends an update that is durable.
    pub(super) fn finish_durable_update(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        updating: &Updating,
    ) {
        let iccid = updating.iccid;
        // What was given out meanwhile may have been written before.
        if let Some(state) = self.registry.overtaken(iccid, updating.revision) {
            self.emit(Event::SaveSoon { iccid, state });
        }
        self.finish_update(moment, exchange, iccid);
    }

    fn finish_update(&mut self, moment: Moment, exchange: Exchange<Contact>, iccid: Iccid) {
        self.counters.updates += 1;
        self.endpoint.respond(moment.now, exchange, Response::new(Code::CHANGED));
        self.wake(moment, iccid, false);
    }

    pub(super) fn handle_deregister(
        &mut self,
        moment: Moment,
        device: Device,
        (id, request): (&str, IncomingRequest<Contact>),
    ) {
        let found = self.registry.with_own(device, moment.at, |entry| {
            let registration = &entry.registration;
            registration.id.is(id).then_some((registration.id, entry.revision))
        });
        let Some((id, revision)) = found.flatten() else {
            self.refuse_unknown(moment, request.exchange);
            return;
        };
        let iccid = device.iccid;
        let action = Action::Deregister(request.exchange, Deregistering { iccid, id, revision });
        if let Some(ticket) = self.open(moment, action, 1) {
            self.emit(Event::Save { ticket, iccid, state: None });
        }
    }

    pub(super) fn finish_deregistration(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        deregistering: Deregistering,
    ) {
        let Deregistering { iccid, id, revision } = deregistering;
        if let Some(entry) = self.registry.remove(iccid, id) {
            if entry.revision != revision {
                // What was given out meanwhile must not come back.
                self.emit(Event::SaveSoon { iccid, state: None });
            }
            self.drop_fetches(iccid);
            self.abandon_flight(moment, iccid);
            for queued in entry.commands() {
                self.end_command(iccid, queued.command, Outcome::NotRegistered);
            }
        } else if let Some(state) = self.registry.with(iccid, Entry::save) {
            // The device registered meanwhile, and its state may have been deleted after that.
            self.emit(Event::SaveSoon { iccid, state: Some(state) });
        }
        self.counters.deregistrations += 1;
        self.endpoint.respond(moment.now, exchange, Response::new(Code::DELETED));
    }

    /// A registration or an update took effect.
    fn wake(&mut self, moment: Moment, iccid: Iccid, registered: bool) {
        self.emit(Event::Awake { iccid, registered });
        self.begin_passive_reporting(iccid);
        self.advance_quietly(moment, iccid);
    }

    fn refuse_full(&mut self, moment: Moment, exchange: Exchange<Contact>) {
        self.counters.overloaded += 1;
        let response = Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(RETRY_SECONDS);
        self.endpoint.respond(moment.now, exchange, response);
    }

    fn expiry(&self, at: Timestamp, lifetime_seconds: u32) -> Timestamp {
        expiry(&self.config, at, lifetime_seconds)
    }

    /// 128 bits that never come back and that nobody can guess: two tokens.
    fn registration_id(&mut self) -> RegistrationId {
        let mut id = [0; 16];
        for half in id.chunks_exact_mut(8) {
            half.copy_from_slice(self.endpoint.token().as_bytes());
        }
        RegistrationId(id)
    }
}

/// A device that has registered with a key is not known by its address alone.
fn needs_key() -> Refused {
    Refused::new(Code::FORBIDDEN, "the device is registered with a key, which registering needs")
}

/// When a registration ends that is not updated.
fn expiry(config: &ServerConfig, at: Timestamp, lifetime_seconds: u32) -> Timestamp {
    let lifetime = Duration::from_secs(lifetime_seconds.into()).min(config.lifetime_max);
    at.saturating_add(lifetime + config.expiry_grace)
}

/// Reads the links of a registration or an update.
fn read_links(request: &IncomingRequest<Contact>) -> Result<Links, Refused> {
    match request.content_format() {
        None | Some(ContentFormat::LINK_FORMAT) => {}
        Some(other) => {
            let reason = format!("Content-Format is {}, allowed: 40, or none", other.0);
            return Err(Refused::new(Code::UNSUPPORTED_CONTENT_FORMAT, reason));
        }
    }
    Links::parse(&request.payload).map_err(|error| Refused::bad_request(error.to_string()))
}

/// Takes over what an update says; whether the links are others than before.
fn apply(registration: &mut Registration, said: Parameters, links: Option<Links>) -> bool {
    if let Some(lifetime) = said.lifetime_seconds {
        registration.lifetime_seconds = lifetime;
    }
    if let Some(binding) = said.binding {
        registration.binding = binding;
    }
    if let Some(sms) = said.sms {
        registration.sms = Some(sms.into_boxed_str());
    }
    match links {
        Some(links) if links != registration.links => {
            registration.links = links;
            true
        }
        _ => false,
    }
}
