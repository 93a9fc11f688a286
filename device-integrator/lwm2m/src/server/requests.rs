//! Requests of devices: which goes where.

use coap::wire::{Code, ContentFormat};
use coap::{Exchange, IncomingRequest, Response};
use vocabulary::Iccid;

use super::Server;
use crate::contact::{Contact, Device, Moment, Security};
use crate::registration::{Parameters, Refused};

/// Bytes of a diagnostic: an answer stays below 136 bytes (RFC 9175 §2.4).
const DIAGNOSTIC_BYTES_MAX: usize = 112;

/// What a path names here.
enum Place {
    Registrations,
    Registration(String),
    Send,
    Bootstrap,
    BootstrapPack,
    /// A file of the owner, such as a firmware image.
    File(String),
    Nowhere,
}

impl Place {
    fn of(request: &IncomingRequest<Contact>) -> Self {
        let mut path = request.path();
        match (path.next(), path.next(), path.next()) {
            (Some(Some("rd")), None, None) => Self::Registrations,
            (Some(Some("rd")), Some(Some(id)), None) => Self::Registration(id.to_owned()),
            (Some(Some("dp")), None, None) => Self::Send,
            (Some(Some("bs")), None, None) => Self::Bootstrap,
            (Some(Some("bspack")), None, None) => Self::BootstrapPack,
            (Some(Some("fw")), Some(Some(name)), None) => Self::File(name.to_owned()),
            _ => Self::Nowhere,
        }
    }
}

impl Server {
    pub(super) fn handle_request(
        &mut self,
        moment: Moment,
        device: Device,
        request: IncomingRequest<Contact>,
    ) {
        match (Place::of(&request), request.method) {
            (Place::Registrations, Code::POST) => self.handle_register(moment, device, request),
            (Place::Registration(id), Code::POST) => {
                self.handle_update(moment, device, (&id, request));
            }
            (Place::Registration(id), Code::DELETE) => {
                self.handle_deregister(moment, device, (&id, request));
            }
            (Place::Send, Code::POST) => self.handle_send(moment, device, request),
            (Place::Bootstrap, Code::POST) => {
                self.handle_bootstrap(moment, device, (request, false));
            }
            (Place::BootstrapPack, Code::GET) => {
                self.handle_bootstrap(moment, device, (request, true));
            }
            (Place::File(name), Code::GET) => self.handle_fetch(moment, device, &name, request),
            (place, _) => {
                self.counters.refused += 1;
                let code = match place {
                    Place::Nowhere => Code::NOT_FOUND,
                    _ => Code::METHOD_NOT_ALLOWED,
                };
                self.endpoint.respond(moment.now, request.exchange, Response::new(code));
            }
        }
    }

    /// Answers with a block of a file (RFC 7959 §2.4).
    fn handle_fetch(
        &mut self,
        moment: Moment,
        device: Device,
        name: &str,
        request: IncomingRequest<Contact>,
    ) {
        let largest = 16 << self.config.coap.limits.block_size_exponent;
        let (first, size) = request
            .block()
            .map_or((0, largest), |block| (block.offset_bytes(), block.size_bytes().min(largest)));
        let until = u64::try_from(first + size).unwrap_or(u64::MAX);
        match (self.config.files.0)(device.iccid, name, until) {
            Some(file) => {
                let mut response = Response::new(Code::CONTENT);
                response.content_format = Some(ContentFormat::OCTET_STREAM);
                // Names are made of the content: they tell one file from another.
                let tag = name.as_bytes();
                self.endpoint.respond_part(moment.now, request.exchange, response, (&file, tag));
            }
            None => {
                self.counters.refused += 1;
                let response = Response::new(Code::NOT_FOUND);
                self.endpoint.respond(moment.now, request.exchange, response);
            }
        }
    }

    /// Answers a request with an error and its reason.
    pub(super) fn refuse(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        refused: &Refused,
    ) {
        self.counters.refused += 1;
        let text = &refused.reason[..refused.reason.floor_char_boundary(DIAGNOSTIC_BYTES_MAX)];
        let response = Response::new(refused.code).with_diagnostic(text);
        self.endpoint.respond(moment.now, exchange, response);
    }

    /// Answers that the device has no such registration, so that it registers.
    pub(super) fn refuse_unknown(&mut self, moment: Moment, exchange: Exchange<Contact>) {
        self.counters.unknown_registrations += 1;
        self.endpoint.respond(moment.now, exchange, Response::new(Code::NOT_FOUND));
    }

    /// Reads a query and checks that it speaks of the device that sent it, and that the channel
    /// may be used for this.
    pub(super) fn read_parameters(
        &mut self,
        device: Device,
        request: &IncomingRequest<Contact>,
        forbidden: Security,
    ) -> Result<Parameters, Refused> {
        let parameters = Parameters::read(request.queries())?;
        if !parameters.names(device.iccid) {
            self.counters.refused_name += 1;
            let name = parameters.endpoint.as_deref().unwrap_or_default();
            self.notice_name(device.iccid, name);
            let reason = "the endpoint name must be the ICCID of the device";
            return Err(Refused::new(Code::FORBIDDEN, reason));
        }
        if device.security == forbidden {
            let reason = match forbidden {
                Security::BootstrapKey => "registering needs the key that bootstrapping gives",
                _ => "bootstrapping needs the bootstrap key",
            };
            self.notice(device.iccid, "Lwm2m[WrongKey]", reason);
            return Err(Refused::new(Code::FORBIDDEN, reason));
        }
        Ok(parameters)
    }

    fn notice_name(&mut self, iccid: Iccid, name: &str) {
        let name = crate::excerpt::Excerpt::of(name);
        let description = format!("endpoint name {name}, allowed: the device's ICCID, or none");
        self.notice(iccid, "Lwm2m[WrongEndpointName]", description);
    }
}
