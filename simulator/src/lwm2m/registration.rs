//! The requests of a device to its servers: bootstrap, register, update, de-register, send (OMA
//! LwM2M Core 1.1 §6.1.7, §6.2 and §6.4).

use std::fmt::Write as _;

use coap::Request;
use coap::wire::{Code, ContentFormat, OptionList, OptionNumber};

use crate::lwm2m::bootstrap::CoapUri;
use crate::lwm2m::objects::Objects;
use crate::lwm2m::settings::{Lwm2m, Version};

/// Why a device asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Bootstrap,
    Register,
    Update,
    Deregister,
    /// Send; what is sent bears this number.
    Send(u64),
    /// A firmware package.
    Fetch,
}

impl Purpose {
    /// The one code of success (OMA LwM2M Core 1.1 §6.1.7.1, §6.2 and §6.4.6; RFC 7252 §5.8.1).
    pub(crate) const fn success(self) -> Code {
        match self {
            Self::Bootstrap | Self::Update | Self::Send(_) => Code::CHANGED,
            Self::Register => Code::CREATED,
            Self::Deregister => Code::DELETED,
            Self::Fetch => Code::CONTENT,
        }
    }

    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Register => "register",
            Self::Update => "update",
            Self::Deregister => "de-register",
            Self::Send(_) => "send",
            Self::Fetch => "fetch",
        }
    }
}

/// `POST /bs?ep=..&pct=..`
pub(crate) fn bootstrap(settings: &Lwm2m, endpoint: &str) -> Request {
    let mut queries = vec![format!("ep={endpoint}")];
    if settings.version == Version::V1_1 {
        queries.push(format!("pct={}", settings.preferred().0));
    }
    request(Code::POST, &["bs"], &queries)
}

/// `POST /rd?lwm2m=..&ep=..&lt=..&b=..` with the objects as links.
pub(crate) fn register(settings: &Lwm2m, endpoint: &str, objects: &Objects) -> Request {
    let mut queries = vec![
        format!("lwm2m={}", settings.version.text()),
        format!("ep={endpoint}"),
        format!("lt={}", objects.lifetime_seconds),
    ];
    queries.extend(binding(settings));
    let mut request = request(Code::POST, &["rd"], &queries);
    describe(settings, objects, &mut request);
    request
}

/// `POST /rd/..`, with the lifetime and the objects only where they have changed.
pub(crate) fn update(
    settings: &Lwm2m,
    location: &str,
    objects: &Objects,
    has_changed: bool,
) -> Request {
    let queries = match has_changed {
        true => vec![format!("lt={}", objects.lifetime_seconds)],
        false => Vec::new(),
    };
    let segments: Vec<&str> = location.split('/').collect();
    let mut request = request(Code::POST, &segments, &queries);
    if has_changed {
        describe(settings, objects, &mut request);
    }
    request
}

/// `DELETE /rd/..`
pub(crate) fn deregister(location: &str) -> Request {
    let segments: Vec<&str> = location.split('/').collect();
    request(Code::DELETE, &segments, &[])
}

/// `POST /dp`
pub(crate) fn send(format: ContentFormat, payload: Vec<u8>) -> Request {
    let mut request = request(Code::POST, &["dp"], &[]);
    // Nothing here is near the limit of the options.
    let _ = request.options.push_uint(OptionNumber::CONTENT_FORMAT, format.0.into());
    request.payload = payload;
    request
}

/// `GET` of a package.
pub(crate) fn fetch(uri: &CoapUri) -> Request {
    let segments: Vec<&str> = uri.path.split('/').filter(|part| !part.is_empty()).collect();
    let queries = uri.query.split('&').filter(|part| !part.is_empty());
    let queries: Vec<String> = queries.map(str::to_owned).collect();
    request(Code::GET, &segments, &queries)
}

/// How the device is reached: by UDP, and in queue mode only after it has spoken. Version 1.0 says
/// both in one word (OMA LwM2M 1.0 §5.3.1.1).
pub(crate) const fn binding_text(settings: &Lwm2m) -> &'static str {
    match (settings.version, settings.awake.is_some()) {
        (Version::V1_0, true) => "UQ",
        _ => "U",
    }
}

fn binding(settings: &Lwm2m) -> Vec<String> {
    let mut queries = vec![format!("b={}", binding_text(settings))];
    if settings.version == Version::V1_1 && settings.awake.is_some() {
        queries.push("Q".to_owned());
    }
    queries
}

/// Appends the links of the objects.
fn describe(settings: &Lwm2m, objects: &Objects, request: &mut Request) {
    let format = settings.preferred().0;
    let mut links = format!("</>;rt=\"oma.lwm2m\";ct={format}");
    for (object, instance) in objects.instances() {
        // Writing into a String does not fail.
        let _ = write!(links, ",</{object}/{instance}>");
    }
    let format = ContentFormat::LINK_FORMAT.0.into();
    let _ = request.options.push_uint(OptionNumber::CONTENT_FORMAT, format);
    request.payload = links.into_bytes();
}

fn request(method: Code, segments: &[&str], queries: &[String]) -> Request {
    let mut request = Request::new(method);
    let mut options = OptionList::new();
    let paths = segments.iter().map(|text| (OptionNumber::URI_PATH, text.as_bytes()));
    let queries = queries.iter().map(|text| (OptionNumber::URI_QUERY, text.as_bytes()));
    for (number, value) in paths.chain(queries) {
        // A server whose paths do not fit gets a request that it does not know.
        let _ = options.push(number, value);
    }
    request.options = options;
    request
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn texts(request: &Request, number: OptionNumber) -> Vec<String> {
        let options = request.options.iter().filter(|option| option.number == number);
        options.map(|option| option.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_registration_says_what_the_version_wants() {
        let queue = Lwm2m { awake: Some(Duration::from_secs(1)), ..Lwm2m::default() };
        let request = register(&queue, "8988", &Objects::new(60));
        let queries = texts(&request, OptionNumber::URI_QUERY);
        assert_eq!(queries, ["lwm2m=1.1", "ep=8988", "lt=60", "b=U", "Q"]);
        let links = String::from_utf8(request.payload).unwrap();
        assert!(links.starts_with("</>;rt=\"oma.lwm2m\";ct=112,</1/0>,</3/0>,"), "{links}");
        let old = Lwm2m { version: Version::V1_0, ..queue };
        let request = register(&old, "8988", &Objects::new(60));
        let queries = texts(&request, OptionNumber::URI_QUERY);
        assert_eq!(queries, ["lwm2m=1.0", "ep=8988", "lt=60", "b=UQ"]);
    }

    #[test]
    fn an_update_is_short_unless_something_changed() {
        let settings = Lwm2m::default();
        let objects = Objects::new(60);
        let request = update(&settings, "rd/4711", &objects, false);
        assert_eq!(texts(&request, OptionNumber::URI_PATH), ["rd", "4711"]);
        assert!(request.payload.is_empty());
        assert!(texts(&request, OptionNumber::URI_QUERY).is_empty());
        let request = update(&settings, "rd/4711", &objects, true);
        assert_eq!(texts(&request, OptionNumber::URI_QUERY), ["lt=60"]);
        assert!(!request.payload.is_empty());
    }
}
