//! What a bootstrap server writes into one device, until it says that it has finished (OMA LwM2M
//! Core 1.1 §6.1).

use std::net::{Ipv4Addr, SocketAddrV4};

use coap::Response;
use coap::wire::{Code, ContentFormat};
use lwm2m::{Model, Path, Record, Value, codec};
use zeroize::Zeroizing;

use crate::lwm2m::objects::coerce;
use crate::lwm2m::requests::Asked;
use crate::lwm2m::table::{SECURITY, SERVER, resource};

/// Values that a bootstrap server may write into the objects 0 and 1.
const VALUES_MAX: usize = 64;

/// Security mode: a pre-shared key; no security (OMA LwM2M Core 1.1 Appendix E.1).
const MODE_KEY: i64 = 0;
const MODE_NONE: i64 = 3;

/// The objects 0 and 1 as they are being written.
#[derive(Default)]
pub(crate) struct Accounts {
    /// In the order of their paths.
    values: Vec<(Path, Value)>,
}

/// A server to register at.
pub(crate) struct Account {
    pub(crate) server: SocketAddrV4,
    /// The identity and the key of DTLS; `None` without DTLS.
    pub(crate) credentials: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// What its instance of object 1 says, by resource.
    pub(crate) settings: Vec<(u16, Value)>,
}

impl Accounts {
    /// Does what the bootstrap server asks for, but for the end of it; `host` is where names of
    /// servers lead.
    pub(crate) fn answer(
        &mut self,
        asked: &Asked<'_>,
        model: &Model,
        instances: &[(u16, u16)],
    ) -> (&'static str, Response) {
        let Some(path) = asked.path() else {
            return ("bootstrap-unknown", Response::new(Code::NOT_FOUND));
        };
        match asked.method {
            Some(Code::DELETE) => ("bootstrap-delete", Response::new(self.delete(&path))),
            Some(Code::GET) if asked.accept == Some(ContentFormat::LINK_FORMAT) => {
                ("bootstrap-discover", self.discover(&path, instances))
            }
            Some(Code::PUT) => ("bootstrap-write", Response::new(self.write(&path, asked, model))),
            _ => ("bootstrap-unknown", Response::new(Code::METHOD_NOT_ALLOWED)),
        }
    }

    fn delete(&mut self, path: &Path) -> Code {
        self.values.retain(|(at, _)| !path.contains(at));
        Code::DELETED
    }

    fn discover(&self, path: &Path, instances: &[(u16, u16)]) -> Response {
        let mut links = vec!["</>;lwm2m=1.1".to_owned()];
        let mut written: Vec<(u16, u16)> =
            self.values.iter().filter_map(|(at, _)| at.object_id().zip(at.instance_id())).collect();
        written.dedup();
        let own = instances.iter().filter(|(object, _)| *object > SERVER);
        for (object, instance) in written.iter().chain(own) {
            let at = Path::instance(*object, *instance);
            if !path.contains(&at) {
                continue;
            }
            let short_id = match (*object, self.flag(*instance)) {
                (SECURITY, false) => self.number(&at, 10),
                (SERVER, _) => self.number(&at, 0),
                _ => None,
            };
            let short_id = short_id.map(|id| format!(";ssid={id}")).unwrap_or_default();
            links.push(format!("<{at}>{short_id}"));
        }
        let links = links.join(",").into_bytes();
        Response::new(Code::CONTENT).with_payload(ContentFormat::LINK_FORMAT, links)
    }

    fn write(&mut self, path: &Path, asked: &Asked<'_>, model: &Model) -> Code {
        let format = asked.format.unwrap_or(ContentFormat::TEXT_PLAIN);
        if !codec::is_readable(format) {
            return Code::UNSUPPORTED_CONTENT_FORMAT;
        }
        // Relative times have no place in these objects.
        let Ok(records) = codec::decode(format, path, asked.payload, model, 0.0) else {
            return Code::BAD_REQUEST;
        };
        if path.object_id().is_some_and(|object| object > SERVER) {
            // Other objects may be written too; of these the simulated device takes none.
            return Code::CHANGED;
        }
        let typed: Option<Vec<(Path, Value)>> = records.into_iter().map(typed).collect();
        let Some(typed) = typed else { return Code::BAD_REQUEST };
        // The spec lets a bootstrap server overwrite what is there (§6.1.7.4).
        self.values.retain(|(at, _)| !path.contains(at));
        if self.values.len() + typed.len() > VALUES_MAX {
            return Code::INTERNAL_SERVER_ERROR;
        }
        self.values.extend(typed);
        self.values.sort_by_key(|(at, _)| *at);
        Code::CHANGED
    }

    /// The server that was written, where all that it needs is there. `host` stands for every name
    /// in its URI that is not an address.
    pub(crate) fn server(&self, host: Ipv4Addr) -> Option<Account> {
        let securities = self.values.iter().filter(|(at, _)| at.object_id() == Some(SECURITY));
        let mut instances: Vec<u16> = securities.filter_map(|(at, _)| at.instance_id()).collect();
        instances.dedup();
        let instance = instances.into_iter().find(|instance| !self.flag(*instance))?;
        let security = Path::instance(SECURITY, instance);
        let Some(Value::String(uri)) = self.value(&security, 0) else { return None };
        let uri = CoapUri::parse(uri, host)?;
        let short_id = self.number(&security, 10);
        let credentials = match self.number(&security, 2)? {
            MODE_NONE if !uri.is_secure => None,
            MODE_KEY if uri.is_secure => {
                let (identity, key) = (self.value(&security, 3)?, self.value(&security, 5)?);
                let (Value::Opaque(identity), Value::Opaque(key)) = (identity, key) else {
                    return None;
                };
                Some((identity.clone(), Zeroizing::new(key.clone())))
            }
            _ => return None,
        };
        let server = self.values.iter().filter_map(|(at, value)| {
            let instance = Path::instance(SERVER, at.instance_id()?);
            let is_its = at.object_id() == Some(SERVER) && self.number(&instance, 0) == short_id;
            is_its.then(|| Some((at.resource_id()?, value.clone()))).flatten()
        });
        let settings: Vec<(u16, Value)> = server.collect();
        (!settings.is_empty()).then_some(Account { server: uri.server, credentials, settings })
    }

    fn value(&self, instance: &Path, id: u16) -> Option<&Value> {
        let path = instance.child(id)?;
        self.values.iter().find(|(at, _)| *at == path).map(|(_, value)| value)
    }

    fn number(&self, instance: &Path, id: u16) -> Option<i64> {
        match self.value(instance, id) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// Whether an instance of object 0 is that of a bootstrap server.
    fn flag(&self, instance: u16) -> bool {
        let at = Path::instance(SECURITY, instance);
        matches!(self.value(&at, 1), Some(Value::Boolean(true)))
    }
}

fn typed(record: Record) -> Option<(Path, Value)> {
    let (object, id) = (record.path.object_id()?, record.path.resource_id()?);
    match resource(object, id) {
        Some(found) => Some((record.path, coerce(found.kind, record.value)?)),
        None => Some((record.path, record.value)),
    }
}

/// `coap://host:port/path?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoapUri {
    pub(crate) server: SocketAddrV4,
    pub(crate) is_secure: bool,
    pub(crate) path: String,
    pub(crate) query: String,
}

impl CoapUri {
    /// Reads a URI; `host` stands for every name that is not an IPv4 address. `None` where it is
    /// not one of CoAP by UDP.
    pub(crate) fn parse(text: &str, host: Ipv4Addr) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        // The default ports of RFC 7252 §6.1 and §6.2.
        let (is_secure, port) = match scheme {
            "coap" => (false, 5683),
            "coaps" => (true, 5684),
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (authority, port),
        };
        if name.is_empty() {
            return None;
        }
        let server = SocketAddrV4::new(name.parse().unwrap_or(host), port);
        let path = path.trim_start_matches('/').to_owned();
        Some(Self { server, is_secure, path, query: query.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_names_lead_to_the_host() {
        let host = Ipv4Addr::new(127, 0, 0, 9);
        let read = |text| CoapUri::parse(text, host);
        let uri = read("coap://127.0.0.1:5700/fw/1.bin?x=1").unwrap();
        assert_eq!((uri.server.to_string().as_str(), uri.is_secure), ("127.0.0.1:5700", false));
        assert_eq!((uri.path.as_str(), uri.query.as_str()), ("fw/1.bin", "x=1"));
        let uri = read("coaps://lwm2m.example.com").unwrap();
        assert_eq!((uri.server, uri.is_secure), (SocketAddrV4::new(host, 5684), true));
        for wrong in ["http://a", "coap:/a", "coap://:1/x", "coap://a:b/", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    fn put(accounts: &mut Accounts, path: Path, records: &[(u16, Value)]) -> Code {
        let records: Vec<Record> = records
            .iter()
            .map(|(id, value)| Record::new(path.child(*id).unwrap(), value.clone()))
            .collect();
        let payload = codec::encode(ContentFormat::LWM2M_TLV, &path, &records).unwrap();
        let asked = Asked {
            method: Some(Code::PUT),
            format: Some(ContentFormat::LWM2M_TLV),
            payload: &payload,
            ..Asked::default()
        };
        accounts.write(&path, &asked, &Model::builtin())
    }

    #[test]
    fn a_written_account_is_used_and_that_of_the_bootstrap_server_is_not() {
        let mut accounts = Accounts::default();
        let text = |text: &str| Value::String(text.to_owned());
        let bootstrap =
            [(0, text("coap://127.0.0.1:1")), (1, Value::Boolean(true)), (2, Value::Integer(3))];
        assert_eq!(put(&mut accounts, Path::instance(0, 0), &bootstrap), Code::CHANGED);
        assert!(accounts.server(Ipv4Addr::LOCALHOST).is_none());
        let server = [
            (0, text("coaps://127.0.0.1:2")),
            (1, Value::Boolean(false)),
            (2, Value::Integer(0)),
            (3, Value::Opaque(b"me".to_vec())),
            (5, Value::Opaque(b"key".to_vec())),
            (10, Value::Integer(1111)),
        ];
        put(&mut accounts, Path::instance(0, 1), &server);
        assert!(accounts.server(Ipv4Addr::LOCALHOST).is_none(), "object 1 is missing");
        put(
            &mut accounts,
            Path::instance(1, 0),
            &[(0, Value::Integer(1111)), (1, Value::Integer(60))],
        );
        let account = accounts.server(Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(account.server.port(), 2);
        assert_eq!(account.credentials.unwrap().0, b"me");
        assert_eq!(account.settings.len(), 2);
        let links = accounts.discover(&Path::ROOT, &[(3, 0)]).payload;
        let links = String::from_utf8(links).unwrap();
        assert_eq!(links, "</>;lwm2m=1.1,</0/0>,</0/1>;ssid=1111,</1/0>;ssid=1111,</3/0>");
        accounts.delete(&Path::object(0));
        assert!(accounts.server(Ipv4Addr::LOCALHOST).is_none());
    }
}
