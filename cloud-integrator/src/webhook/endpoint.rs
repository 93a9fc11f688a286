//! Where a webhook goes: URL and headers, checked once, so that every event makes a valid request.

use std::collections::BTreeMap;
use std::fmt;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::network::{Blocked, NetworkPolicy};
use crate::placeholders::{Pattern, Place};
use crate::sink::Subject;

/// The longest URL: what common servers and proxies read without complaint.
pub const URL_BYTES_MAX: usize = 2_048;
/// The most custom headers of one webhook: a generous estimate, customers use one or two.
pub const HEADERS_MAX: usize = 32;
/// The longest names and values together: common servers refuse requests with more than 8 KB of
/// headers, and the request needs a few of its own.
pub const HEADER_BYTES_MAX: usize = 7_168;

/// Headers that frame the request (RFC 9110 §7.6.1, §8.6, §10.1.1; RFC 9112 §6.1) or that
/// carry the names of our events.
const RESERVED: [&str; 13] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
];
const RESERVED_PREFIX: &str = "webhook-";
/// Where webhooks are reached by default: what else listens on a customer's host, or on a
/// stranger's, is not for the gateway to speak to.
const USUAL_PORTS: [u16; 2] = [443, 8_443];

/// A checked URL with its headers. `Debug` shows the host alone: paths, queries and headers carry
/// the customer's secrets.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    /// Path and query, where a placeholder is in them.
    target: Option<(Pattern, Option<Pattern>)>,
    headers: HeaderMap,
    filled_headers: Vec<(HeaderName, Pattern)>,
}

/// Why a URL or a header is refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Longer than allowed.
    #[error("url of {0} bytes exceeds the limit of {URL_BYTES_MAX}")]
    UrlTooLong(usize),
    /// Not a URL.
    #[error("url is not valid: {0}")]
    Url(String),
    /// Not HTTPS.
    #[error("url has scheme {0:?}, allowed: https")]
    Scheme(String),
    /// A user name or a password in the URL.
    #[error("url holds user information, put credentials into a header instead")]
    UserInfo,
    /// A place that the gateway must not reach.
    #[error("url is blocked: {0}")]
    Blocked(#[from] Blocked),
    /// Too many headers.
    #[error("{0} headers exceed the limit of {HEADERS_MAX}")]
    TooManyHeaders(usize),
    /// Too many bytes of headers.
    #[error("headers of {0} bytes exceed the limit of {HEADER_BYTES_MAX}")]
    HeadersTooLong(usize),
    /// Not the name of a header.
    #[error("header name {0:?} is not valid")]
    HeaderName(String),
    /// A name that the request needs for itself.
    #[error("header {0} is reserved")]
    Reserved(String),
    /// Given twice in different case.
    #[error("header {0} is given twice")]
    Twice(String),
    /// A value with other characters.
    #[error("the value of header {0} holds other than visible ascii characters and spaces")]
    HeaderValue(String),
}

impl Endpoint {
    /// Checks `url` and `headers`; plain `http` passes only to this machine itself and only where
    /// the policy opens it.
    pub fn within(
        policy: &NetworkPolicy,
        url: &str,
        headers: &BTreeMap<String, String>,
    ) -> Result<Self, EndpointError> {
        let url = parse_url(url, policy)?;
        let path = Pattern::compile(url.path());
        let query = url.query().map(Pattern::compile);
        let plain = path.is_plain() && query.as_ref().is_none_or(Pattern::is_plain);
        let target = if plain { None } else { Some((path, query)) };
        let mut endpoint =
            Self { url, target, headers: HeaderMap::new(), filled_headers: Vec::new() };
        endpoint.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        endpoint.add_headers(headers)?;
        Ok(endpoint)
    }

    /// The URL in its one canonical spelling, by which two webhooks are known to be the same.
    pub fn canonical_url(&self) -> &str {
        self.url.as_str()
    }

    /// Checks that the host may still be reached, as far as that can be known before its name is
    /// looked up. A host that is an address is looked up by nobody, so this is its one check.
    pub(super) fn check(&self, policy: &NetworkPolicy) -> Result<(), Blocked> {
        check_host(&self.url, policy)
    }

    /// The URL for an event about `subject`.
    pub(crate) fn url(&self, subject: &Subject) -> Url {
        let mut url = self.url.clone();
        if let Some((path, query)) = &self.target {
            url.set_path(&path.fill(subject, Place::Url));
            url.set_query(query.as_ref().map(|query| query.fill(subject, Place::Url)).as_deref());
        }
        url
    }

    /// The headers for an event about `subject`; `None` where a value is not valid, which the
    /// fixed set of placeholder values cannot cause.
    pub(crate) fn headers(&self, subject: &Subject) -> Option<HeaderMap> {
        let mut headers = self.headers.clone();
        for (name, pattern) in &self.filled_headers {
            let value = secret_value(&pattern.fill(subject, Place::Header))?;
            headers.insert(name.clone(), value);
        }
        Some(headers)
    }

    fn add_headers(&mut self, headers: &BTreeMap<String, String>) -> Result<(), EndpointError> {
        if headers.len() > HEADERS_MAX {
            return Err(EndpointError::TooManyHeaders(headers.len()));
        }
        let bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > HEADER_BYTES_MAX {
            return Err(EndpointError::HeadersTooLong(bytes));
        }
        let mut seen = Vec::with_capacity(headers.len());
        for (text, value) in headers {
            let name = parse_name(text)?;
            if seen.contains(&name) {
                return Err(EndpointError::Twice(name.to_string()));
            }
            seen.push(name.clone());
            let pattern = Pattern::compile(value);
            let parsed =
                secret_value(value).ok_or_else(|| EndpointError::HeaderValue(name.to_string()))?;
            if pattern.is_plain() {
                self.headers.insert(name, parsed);
            } else {
                self.filled_headers.push((name, pattern));
            }
        }
        Ok(())
    }
}

fn check_host(url: &Url, policy: &NetworkPolicy) -> Result<(), Blocked> {
    let host = url.host_str().unwrap_or_default();
    policy.check(host, url.port_or_known_default().unwrap_or_default(), &USUAL_PORTS)
}

fn parse_url(text: &str, policy: &NetworkPolicy) -> Result<Url, EndpointError> {
    if text.len() > URL_BYTES_MAX {
        return Err(EndpointError::UrlTooLong(text.len()));
    }
    // What the parser would silently remove (white space at the ends, tabs and line breaks
    // anywhere) is a mistake in a configuration, or an attempt at one.
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(EndpointError::Url("white space or control character".to_owned()));
    }
    let mut url = Url::parse(text).map_err(|error| EndpointError::Url(error.to_string()))?;
    let scheme_allowed = match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| policy.allows_plain(host)),
        _ => false,
    };
    if !scheme_allowed {
        return Err(EndpointError::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EndpointError::UserInfo);
    }
    check_host(&url, policy)?;
    without_dot(&mut url)?;
    // A fragment is never sent (RFC 9110 §4.2.5).
    url.set_fragment(None);
    Ok(url)
}

/// A name with a dot at its end is the same name (RFC 1034 §3.1).
fn without_dot(url: &mut Url) -> Result<(), EndpointError> {
    let Some(bare) = url.host_str().and_then(|host| host.strip_suffix('.')) else {
        return Ok(());
    };
    let bare = bare.to_owned();
    url.set_host(Some(&bare)).map_err(|error| EndpointError::Url(error.to_string()))
}

fn parse_name(text: &str) -> Result<HeaderName, EndpointError> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| EndpointError::HeaderName(text.chars().take(64).collect()))?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with(RESERVED_PREFIX) {
        return Err(EndpointError::Reserved(name.to_string()));
    }
    Ok(name)
}

/// A value of visible ASCII characters and spaces, which no log shows.
fn secret_value(text: &str) -> Option<HeaderValue> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Endpoint({}://{}..)", self.url.scheme(), self.url.authority())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(
        url: &str,
        headers: &BTreeMap<String, String>,
        allow_http_loopback: bool,
    ) -> Result<Endpoint, EndpointError> {
        let policy = NetworkPolicy { allow_http_loopback, ..NetworkPolicy::default() };
        Endpoint::within(&policy, url, headers)
    }

    fn endpoint(url: &str) -> Result<Endpoint, EndpointError> {
        made(url, &BTreeMap::new(), false)
    }

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refused(pairs: &[(&str, &str)]) -> EndpointError {
        made("https://h.example", &headers(pairs), false).unwrap_err()
    }

    #[test]
    fn urls_that_are_not_https_or_hold_credentials_are_refused() {
        assert_eq!(
            endpoint("http://h.example/").unwrap_err().to_string(),
            "url has scheme \"http\", allowed: https"
        );
        assert_eq!(endpoint("https://u:p@h.example/").unwrap_err(), EndpointError::UserInfo);
        assert_eq!(endpoint("https://u@h.example/").unwrap_err(), EndpointError::UserInfo);
        assert_eq!(
            endpoint("https://h.example:22/").unwrap_err().to_string(),
            "url is blocked: port 22 must not be reached, allowed: 443, 8443; an operator can \
             allow others"
        );
        for url in ["", "h.example", "/x", "https://", "https://a b/", "https://h/\r\nx: y"] {
            assert!(matches!(endpoint(url), Err(EndpointError::Url(_))), "{url:?}");
        }
        for url in ["file:///etc/passwd", "ftp://h/", "javascript:1"] {
            assert!(matches!(endpoint(url), Err(EndpointError::Scheme(_))), "{url:?}");
        }
        let long = format!("https://h.example/{}", "x".repeat(URL_BYTES_MAX));
        assert!(matches!(endpoint(&long), Err(EndpointError::UrlTooLong(_))));
        assert_eq!(
            endpoint("HTTPS://H.example:443/a#b").unwrap().canonical_url(),
            "https://h.example/a"
        );
    }

    /// With a dot at the end of its host, a URL counted as another one: a second webhook could be
    /// made to the same place, which got each event twice.
    #[test]
    fn a_dot_at_the_end_of_the_host_makes_no_other_url() {
        let canonical = |url| endpoint(url).unwrap().canonical_url().to_owned();
        assert_eq!(canonical("https://h.example./a"), "https://h.example/a");
        assert_eq!(canonical("https://h.example.:8443/a."), "https://h.example:8443/a.");
        assert_eq!(canonical("https://1.1.1.1./"), "https://1.1.1.1/");
        assert!(endpoint("https://h.example../").is_err());
        assert!(endpoint("https://./").is_err());
    }

    #[test]
    fn plain_http_passes_to_this_machine_only_and_only_when_allowed() {
        let none = BTreeMap::new();
        for url in
            ["http://127.0.0.1:9/", "http://127.9.9.9/", "http://[::1]/", "http://localhost/"]
        {
            assert!(made(url, &none, true).is_ok(), "{url}");
            assert!(made(url, &none, false).is_err(), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://h.example/", "http://localhost.h.example/"] {
            assert!(made(url, &none, true).is_err(), "{url}");
        }
    }

    #[test]
    fn a_placeholder_cannot_choose_the_host() {
        for url in ["https://:ip:/x", "https://:iccid:.h.example/", "https://h.example::imsi:/"] {
            assert!(endpoint(url).is_err(), "{url}");
        }
    }

    #[test]
    fn headers_that_could_break_a_request_are_refused() {
        assert_eq!(refused(&[("Host", "x")]).to_string(), "header host is reserved");
        for name in ["content-length", "Transfer-Encoding", "webhook-id", "Webhook-Signature"] {
            assert!(matches!(refused(&[(name, "x")]), EndpointError::Reserved(_)), "{name}");
        }
        for name in ["", "a b", "a:b", "ä"] {
            assert!(matches!(refused(&[(name, "x")]), EndpointError::HeaderName(_)), "{name}");
        }
        for value in ["a\r\nb: c", "ä", "\u{7f}", "a\tb"] {
            assert!(matches!(refused(&[("a", value)]), EndpointError::HeaderValue(_)), "{value:?}");
        }
        assert!(matches!(refused(&[("A", "1"), ("a", "2")]), EndpointError::Twice(_)));
        let long = "x".repeat(HEADER_BYTES_MAX);
        assert!(matches!(refused(&[("a", &long)]), EndpointError::HeadersTooLong(_)));
    }

    #[test]
    fn secrets_are_not_in_debug() {
        let headers = headers(&[("x-api-key", "s3cret")]);
        let endpoint = made("https://h.example/t0ken?k=s3cret", &headers, false).unwrap();
        assert_eq!(format!("{endpoint:?}"), "Endpoint(https://h.example..)");
        let sent = endpoint.headers(&Subject::default()).unwrap();
        assert!(!format!("{sent:?}").contains("s3cret"));
    }

    fn subjects() -> impl Strategy<Value = Subject> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
            any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
        ];
        (any::<u64>(), any::<u64>(), proptest::option::of(ip)).prop_map(|(iccid, imsi, ip)| {
            Subject {
                iccid: vocabulary::Iccid::from_u64(iccid),
                imsi: vocabulary::Imsi::from_u64(imsi % 10_u64.pow(16)),
                ip,
            }
        })
    }

    proptest! {
        /// Neither a customer's text nor a device's data smuggles a second request: whatever passed
        /// the checks makes one valid request to the same place.
        #[test]
        fn what_is_accepted_is_always_one_valid_request(
            tail in "([/?&=#%.:a-z]|:ip:|:iccid:|:imsi:|\\PC){0,20}",
            value in "(:ip:|:iccid:|:imsi:|[ -~]|\\PC){0,12}",
            subject in subjects(),
        ) {
            let headers = headers(&[("x-device", &value)]);
            let url = format!("https://h.example:8443/{tail}");
            let Ok(endpoint) = made(&url, &headers, false) else { return Ok(()) };
            let filled = endpoint.url(&subject);
            prop_assert_eq!(filled.scheme(), "https");
            prop_assert_eq!(filled.host_str(), Some("h.example"));
            prop_assert_eq!(filled.port(), Some(8443));
            prop_assert!(filled.username().is_empty() && filled.fragment().is_none());
            prop_assert!(filled.as_str().bytes().all(|byte| matches!(byte, b'!'..=b'~')));
            prop_assert_eq!(filled.query().is_some(), endpoint.url.query().is_some());
            prop_assert_eq!(
                filled.path().matches('/').count(),
                endpoint.url.path().matches('/').count()
            );
            let sent = endpoint.headers(&subject).expect("values of a fixed set are valid");
            prop_assert_eq!(sent.len(), 2);
            let value = sent["x-device"].as_bytes();
            prop_assert!(value.iter().all(|byte| matches!(byte, b' '..=b'~')));
        }
    }
}
