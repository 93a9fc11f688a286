//! Bootstrapping on request of the device (OMA LwM2M Core 1.1 §6.1): the server deletes what the
//! device has and writes the accounts, one step after the other.
//!
//! What is written: security instances 0 (server) and 1 (bootstrap server), server instance 0.

use std::fmt;

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{Exchange, IncomingRequest, IncomingResponse, RequestId, Response};
use hashbrown::HashMap;
use vocabulary::Iccid;
use zeroize::Zeroizing;

use super::operations::{Flying, Kind};
use super::tickets::Action;
use super::{Server, ServerConfig};
use crate::codec;
use crate::codec::link_format::parse_discover;
use crate::contact::{Contact, Device, Moment, Security};
use crate::event::{BootstrapOutcome, Event};
use crate::path::Path;
use crate::record::Record;
use crate::registration::Refused;
use crate::value::Value;

/// Security modes (LwM2M Core 1.1 Appendix E.1, resource 2).
const MODE_PSK: i64 = 0;
const MODE_NO_SEC: i64 = 3;

/// What a device asked for.
#[derive(Debug)]
pub(super) struct Request {
    device: Device,
    contact: Contact,
    /// The format of what is written.
    format: ContentFormat,
    /// All in the answer, instead of step by step.
    is_pack: bool,
}

/// The keys of the accounts.
pub(super) struct Keys {
    pub(super) server: (String, Zeroizing<Vec<u8>>),
    /// As the device has it already: its name is its ICCID.
    pub(super) bootstrap: Option<(String, Zeroizing<Vec<u8>>)>,
}

impl Request {
    /// The name by which the device bootstraps.
    pub(super) fn identity(&self) -> String {
        self.device.iccid.to_string()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys")
    }
}

/// A bootstrap under way.
#[derive(Debug)]
pub(super) struct Session {
    contact: Contact,
    format: ContentFormat,
    /// TLV was tried instead of the preferred format, or the other way round.
    is_second_format: bool,
    keys: Option<Keys>,
    /// Where the device has its bootstrap account, if not at instance 1.
    bootstrap_instance: u16,
    step: Step,
    request: Option<RequestId>,
}

/// All bootstraps under way: one for each device.
pub(super) type Bootstraps = HashMap<Iccid, Session>;

/// What is asked of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Discover,
    DeleteAll,
    DeleteSecurity,
    DeleteServer,
    WriteServerAccount,
    WriteBootstrapAccount,
    WriteServer,
    Finish,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover /",
            Self::DeleteAll => "delete /",
            Self::DeleteSecurity => "delete /0",
            Self::DeleteServer => "delete /1",
            Self::WriteServerAccount => "write /0/0",
            Self::WriteBootstrapAccount => "write /0/1",
            Self::WriteServer => "write /1/0",
            Self::Finish => "finish",
        }
    }

    const fn is_write(self) -> bool {
        matches!(self, Self::WriteServerAccount | Self::WriteBootstrapAccount | Self::WriteServer)
    }
}

impl Server {
    pub(super) fn handle_bootstrap(
        &mut self,
        moment: Moment,
        device: Device,
        (request, is_pack): (IncomingRequest<Contact>, bool),
    ) {
        let iccid = device.iccid;
        let asked = match self.read_bootstrap(device, &request, is_pack) {
            Ok(asked) => asked,
            Err(refused) => {
                self.notice(iccid, "Lwm2m[BootstrapRefused]", refused.reason.clone());
                self.refuse(moment, request.exchange, &refused);
                return;
            }
        };
        let is_new = !self.bootstraps.contains_key(&iccid);
        if !is_pack && is_new && self.bootstraps.len() >= self.config.bootstraps_max {
            self.counters.overloaded += 1;
            let response = Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(60);
            self.endpoint.respond(moment.now, request.exchange, response);
            return;
        }
        if device.security == Security::NoSec {
            self.begin_bootstrap(moment, request.exchange, asked, None);
            return;
        }
        let action = Action::Bootstrap(request.exchange, Box::new(asked));
        if let Some(ticket) = self.open(moment, action, 1) {
            self.emit(Event::NeedKey { ticket, iccid });
        }
    }

    fn read_bootstrap(
        &mut self,
        device: Device,
        request: &IncomingRequest<Contact>,
        is_pack: bool,
    ) -> Result<Request, Refused> {
        let parameters = self.read_parameters(device, request, Security::ServerKey)?;
        let senml = [ContentFormat::SENML_CBOR, ContentFormat::SENML_JSON];
        let format = match (is_pack, request.accept()) {
            (true, None) => ContentFormat::SENML_CBOR,
            (true, Some(format)) if senml.contains(&format) => format,
            (true, Some(_)) => {
                let reason = "allowed: 110 and 112";
                return Err(Refused::new(Code::NOT_ACCEPTABLE, reason));
            }
            (false, _) => parameters
                .preferred
                .filter(|format| senml.contains(format))
                .unwrap_or(ContentFormat::LWM2M_TLV),
        };
        Ok(Request { device, contact: request.peer(), format, is_pack })
    }

    /// Answers a device that wants to bootstrap, and does so.
    pub(super) fn begin_bootstrap(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        request: Request,
        keys: Option<Keys>,
    ) {
        let Request { device, contact, format, is_pack } = request;
        let iccid = device.iccid;
        self.counters.bootstraps += 1;
        if is_pack {
            self.answer_pack(moment, exchange, (iccid, format), keys.as_ref());
            return;
        }
        if let Some(before) = self.bootstraps.remove(&iccid) {
            if let Some(request) = before.request {
                self.endpoint.cancel(moment.now, request);
                self.flights.take(request);
            }
            self.fail_bootstrap(iccid, before.step, "the device began again".to_owned());
        }
        self.endpoint.respond(moment.now, exchange, Response::new(Code::CHANGED));
        let step = match self.config.bootstrap_discover {
            true => Step::Discover,
            false => Step::DeleteAll,
        };
        let session = Session {
            contact,
            format,
            is_second_format: false,
            keys,
            bootstrap_instance: 1,
            step,
            request: None,
        };
        self.bootstraps.insert(iccid, session);
        self.send_step(moment, iccid);
    }

    fn answer_pack(
        &mut self,
        moment: Moment,
        exchange: Exchange<Contact>,
        (iccid, format): (Iccid, ContentFormat),
        keys: Option<&Keys>,
    ) {
        let writes = [Step::WriteServerAccount, Step::WriteBootstrapAccount, Step::WriteServer];
        let records: Vec<Record> = writes
            .into_iter()
            .filter_map(|step| account(&self.config, step, keys, 1))
            .flat_map(|(_, records)| records)
            .collect();
        // It stays in memory for copies of the request, key and all, until the exchange has lasted:
        // a copy that asked anew would make a key, and take away the one that was just sent.
        let response = match codec::encode(format, &Path::ROOT, &records) {
            Ok(pack) => Response::new(Code::CONTENT).with_payload(format, pack),
            Err(_) => Response::new(Code::INTERNAL_SERVER_ERROR),
        };
        self.endpoint.respond(moment.now, exchange, response);
        self.counters.bootstraps_done += 1;
        self.emit(Event::BootstrapEnded { iccid, outcome: BootstrapOutcome::Done });
    }

    /// Sends the request of a session's step.
    fn send_step(&mut self, moment: Moment, iccid: Iccid) {
        let Some(session) = self.bootstraps.get(&iccid) else { return };
        let contact = session.contact;
        let request = match step_request(&self.config, session) {
            Ok(Some(request)) => request,
            Ok(None) => {
                self.next_step(moment, iccid);
                return;
            }
            Err(reason) => {
                self.end_bootstrap(iccid, Some(reason));
                return;
            }
        };
        match self.endpoint.request(moment.now, contact, request) {
            Ok(request) => {
                if let Some(session) = self.bootstraps.get_mut(&iccid) {
                    session.request = Some(request);
                }
                self.flights.insert(request, Flying { iccid, kind: Kind::Bootstrap });
            }
            Err(refused) => self.end_bootstrap(iccid, Some(refused.to_string())),
        }
    }

    fn next_step(&mut self, moment: Moment, iccid: Iccid) {
        let Some(session) = self.bootstraps.get_mut(&iccid) else { return };
        session.step = match session.step {
            Step::Discover => Step::DeleteAll,
            Step::DeleteSecurity => Step::DeleteServer,
            Step::DeleteAll | Step::DeleteServer => Step::WriteServerAccount,
            Step::WriteServerAccount => Step::WriteBootstrapAccount,
            Step::WriteBootstrapAccount => Step::WriteServer,
            Step::WriteServer => Step::Finish,
            Step::Finish => {
                self.end_bootstrap(iccid, None);
                return;
            }
        };
        self.send_step(moment, iccid);
    }

    pub(super) fn handle_bootstrap_answer(
        &mut self,
        moment: Moment,
        iccid: Iccid,
        response: &IncomingResponse<Contact>,
    ) {
        let Some(session) = self.bootstraps.get_mut(&iccid) else { return };
        session.request = None;
        let code = response.code;
        match (session.step, code.is_success()) {
            (Step::Discover, true) => {
                session.bootstrap_instance = bootstrap_instance(&response.payload);
            }
            // What a device cannot or will not tell or delete does not stand in the way: every
            // instance is written whole. Old clients delete objects but not the root.
            (Step::DeleteAll, false) => {
                session.step = Step::DeleteSecurity;
                self.send_step(moment, iccid);
                return;
            }
            // A device that keeps its own bootstrap account may say so.
            (
                Step::Discover
                | Step::DeleteSecurity
                | Step::DeleteServer
                | Step::WriteBootstrapAccount,
                false,
            ) => {}
            (step, false) => {
                let wants_other = code == Code::UNSUPPORTED_CONTENT_FORMAT && step.is_write();
                if wants_other && !session.is_second_format {
                    session.is_second_format = true;
                    session.format = match session.format {
                        ContentFormat::LWM2M_TLV => ContentFormat::SENML_CBOR,
                        _ => ContentFormat::LWM2M_TLV,
                    };
                    self.send_step(moment, iccid);
                    return;
                }
                let reason = format!("the device answered {code}");
                self.end_bootstrap(iccid, Some(reason));
                return;
            }
            (_, true) => {}
        }
        self.next_step(moment, iccid);
    }

    /// Ends a session: with a reason it has failed.
    pub(super) fn end_bootstrap(&mut self, iccid: Iccid, failure: Option<String>) {
        let Some(session) = self.bootstraps.remove(&iccid) else { return };
        if let Some(reason) = failure {
            self.fail_bootstrap(iccid, session.step, reason);
            return;
        }
        self.counters.bootstraps_done += 1;
        self.emit(Event::BootstrapEnded { iccid, outcome: BootstrapOutcome::Done });
    }

    fn fail_bootstrap(&mut self, iccid: Iccid, step: Step, reason: String) {
        self.counters.bootstraps_failed += 1;
        let step = step.name();
        self.notice(iccid, "Lwm2m[BootstrapFailed]", format!("{step}: {reason}"));
        let outcome = BootstrapOutcome::Failed { step, reason };
        self.emit(Event::BootstrapEnded { iccid, outcome });
    }
}

/// The request of a session's step; `None` if there is nothing to be written.
fn step_request(config: &ServerConfig, session: &Session) -> Result<Option<coap::Request>, String> {
    let (method, path) = match session.step {
        Step::Discover => (Code::GET, Path::ROOT),
        Step::DeleteAll => (Code::DELETE, Path::ROOT),
        Step::DeleteSecurity => (Code::DELETE, Path::object(0)),
        Step::DeleteServer => (Code::DELETE, Path::object(1)),
        Step::Finish => {
            let mut request = coap::Request::new(Code::POST);
            option(&mut request, OptionNumber::URI_PATH, b"bs")?;
            return Ok(Some(request));
        }
        step => {
            let keys = session.keys.as_ref();
            let written = account(config, step, keys, session.bootstrap_instance);
            let Some((path, records)) = written else { return Ok(None) };
            let mut request = to(Code::PUT, &path)?;
            let format = session.format;
            request.payload =
                codec::encode(format, &path, &records).map_err(|error| error.to_string())?;
            uint(&mut request, OptionNumber::CONTENT_FORMAT, format)?;
            return Ok(Some(request));
        }
    };
    let mut request = to(method, &path)?;
    if session.step == Step::Discover {
        uint(&mut request, OptionNumber::ACCEPT, ContentFormat::LINK_FORMAT)?;
    }
    Ok(Some(request))
}

fn to(method: Code, path: &Path) -> Result<coap::Request, String> {
    let mut request = coap::Request::new(method);
    for id in path.ids() {
        option(&mut request, OptionNumber::URI_PATH, itoa::Buffer::new().format(*id).as_bytes())?;
    }
    Ok(request)
}

fn option(request: &mut coap::Request, number: OptionNumber, value: &[u8]) -> Result<(), String> {
    request.options.push(number, value).map_err(|error| error.to_string())
}

fn uint(
    request: &mut coap::Request,
    number: OptionNumber,
    format: ContentFormat,
) -> Result<(), String> {
    request.options.push_uint(number, format.0.into()).map_err(|error| error.to_string())
}

/// What a writing step writes; `None` for a bootstrap account whose key is not known here.
fn account(
    config: &ServerConfig,
    step: Step,
    keys: Option<&Keys>,
    bootstrap_instance: u16,
) -> Option<(Path, Vec<Record>)> {
    let addresses = if keys.is_some() { &config.secure } else { &config.plain };
    match step {
        Step::WriteServerAccount => {
            let key = keys.map(|keys| &keys.server);
            let whom = (addresses.server_uri.as_str(), false, config.server_short_id);
            Some(security(Path::instance(0, 0), whom, key))
        }
        Step::WriteBootstrapAccount => {
            let key = match keys {
                None => None,
                Some(keys) => Some(keys.bootstrap.as_ref()?),
            };
            let whom = (addresses.bootstrap_uri.as_str(), true, config.bootstrap_short_id);
            Some(security(Path::instance(0, bootstrap_instance), whom, key))
        }
        Step::WriteServer => {
            let path = Path::instance(1, 0);
            let values = [
                (0, Value::Integer(config.server_short_id.into())),
                (1, Value::Integer(config.lifetime_seconds.into())),
                (2, Value::Integer(config.period_min_seconds.into())),
                // Mandatory: what was not notified of is kept while the device is offline.
                (6, Value::Boolean(true)),
                (7, Value::String("U".to_owned())),
            ];
            Some((path, records(path, values)))
        }
        _ => None,
    }
}

/// An instance of the security object (LwM2M Core 1.1 Appendix E.1).
fn security(
    path: Path,
    (uri, is_bootstrap, short_id): (&str, bool, u16),
    key: Option<&(String, Zeroizing<Vec<u8>>)>,
) -> (Path, Vec<Record>) {
    let mode = if key.is_some() { MODE_PSK } else { MODE_NO_SEC };
    let mut values = vec![
        (0, Value::String(uri.to_owned())),
        (1, Value::Boolean(is_bootstrap)),
        (2, Value::Integer(mode)),
    ];
    if let Some((identity, key)) = key {
        values.push((3, Value::Opaque(identity.clone().into_bytes())));
        values.push((5, Value::Opaque(key.to_vec())));
    }
    values.push((10, Value::Integer(short_id.into())));
    (path, records(path, values))
}

fn records(path: Path, values: impl IntoIterator<Item = (u16, Value)>) -> Vec<Record> {
    values.into_iter().filter_map(|(id, value)| Some(Record::new(path.child(id)?, value))).collect()
}

/// The security instance of the bootstrap account: the one without a short server id (LwM2M Core
/// 1.1 §6.1.7.3); instance 1 if that is not to be learned, or is where the server account goes.
fn bootstrap_instance(links: &[u8]) -> u16 {
    let links = parse_discover(links).unwrap_or_default();
    let own = links.iter().find(|link| {
        link.path.object_id() == Some(0)
            && link.path.ids().len() == 2
            && link.attributes.short_server_id.is_none()
    });
    own.and_then(|link| link.path.instance_id()).filter(|id| *id > 1).unwrap_or(1)
}
