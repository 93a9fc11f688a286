//! Single values of the configuration: how they are read and what is allowed.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Api, Config, KeyStore};

/// Why the configuration is not usable.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("configuration file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration file {path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("environment variable {name} names no key, allowed: SIMGATE_<SECTION>_<KEY>")]
    Variable { name: String },
    #[error("configuration: {0}")]
    Value(String),
    #[error("{key} is {found}, allowed: {allowed}")]
    Range { key: String, found: String, allowed: String },
    #[error(
        "{key} listens on {address}, which is not loopback: a source address is an identity only \
         on a private mobile network that filters spoofed addresses; set trusted_apn = true where \
         that holds"
    )]
    Untrusted { key: String, address: SocketAddr },
    #[error(
        "api listens on {0}, which is not loopback, without TLS: set tls_certificate and tls_key, \
         or allow_plain_http = true behind a proxy that speaks TLS"
    )]
    PlainHttp(SocketAddr),
    #[error("keys.file and keys.secret are both set, allowed: one of them")]
    TwoDataKeys,
    #[error("api.{present} is set without api.{missing}: TLS needs both")]
    HalfTls { present: &'static str, missing: &'static str },
}

/// A data key as text, which `Debug` does not show. What is no text is kept as an empty one, which
/// the key store refuses: an error of the parser would show it.
#[derive(Clone)]
pub(crate) struct DataKey(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DataKey(..)")
    }
}

impl<'de> Deserialize<'de> for DataKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Zeroizing::new(match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            _ => String::new(),
        })))
    }
}

impl ConfigError {
    pub(super) fn value(error: &toml::de::Error) -> Self {
        Self::Value(error.to_string().trim().replace('\n', " "))
    }
}

/// The form of the program's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads the file as a table; what does not fit its keys is reported with its line.
pub(super) fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    // The typed reading comes first because only it knows the lines of unknown keys.
    match toml::from_str::<Config>(&text).and_then(|_| toml::from_str(&text)) {
        Ok(table) => Ok(table),
        Err(error) => Err(ConfigError::File { path, message: error.to_string().trim().to_owned() }),
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!(
            "{text:?} is no address with a port, allowed: e.g. \"127.0.0.1:8080\" or \"[::1]:8080\""
        ))
    })
}

pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    address(deserializer).map(Some)
}

/// An Ethernet frame's payload: no mobile network delivers a larger datagram unfragmented.
pub(super) const fn udp_payload_bytes_max() -> usize {
    1_500
}

/// RFC 7959 sets no limit; 64 KiB holds every telemetry and bounds what one device can occupy.
pub(super) const fn coap_body_bytes_max() -> usize {
    65_536
}

/// About 64 MB of memory when full: 4,000 messages per second for EXCHANGE_LIFETIME.
pub(super) const fn coap_exchanges_max() -> usize {
    1_000_000
}

pub(super) fn in_range(
    key: &str,
    found: usize,
    allowed: RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let allowed = format!("{} to {}", allowed.start(), allowed.end());
    Err(ConfigError::Range { key: key.to_owned(), found: found.to_string(), allowed })
}

pub(super) fn account_number(number: &str) -> Result<(), ConfigError> {
    if (4..=20).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err(ConfigError::Range {
        key: "account.number".to_owned(),
        found: format!("{number:?}"),
        allowed: "4 to 20 digits".to_owned(),
    })
}

/// Longest URL that fits the answer to a bootstrap with an ICCID, a generated key and a token of
/// eight bytes: 149 - 13 - 20 - 17.
const DEVICE_URL_CHARS_MAX: usize = 99;

/// Checks a URL that devices are told.
pub(super) fn device_url(key: &str, url: Option<&str>, scheme: &str) -> Result<(), ConfigError> {
    let Some(url) = url else { return Ok(()) };
    let fits = url.len() <= DEVICE_URL_CHARS_MAX && url.starts_with(scheme);
    if fits && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Ok(());
    }
    Err(ConfigError::Range {
        key: key.to_owned(),
        found: format!("{url:?}"),
        allowed: format!("{scheme} and more, at most {DEVICE_URL_CHARS_MAX} characters, no comma"),
    })
}

/// How devices name the host of a listener: by the configured name, or by its address.
pub(super) fn host(domain: Option<&String>, listening: Option<&SocketAddr>) -> Option<String> {
    match (domain, listening) {
        (Some(name), _) => Some(name.clone()),
        // Nobody can send to "all addresses".
        (None, Some(first)) if first.ip().is_unspecified() => None,
        (None, Some(SocketAddr::V6(first))) => Some(format!("[{}]", first.ip())),
        (None, Some(first)) => Some(first.ip().to_string()),
        (None, None) => None,
    }
}

pub(super) fn one_data_key(keys: &KeyStore) -> Result<(), ConfigError> {
    match (&keys.file, &keys.secret) {
        (Some(_), Some(_)) => Err(ConfigError::TwoDataKeys),
        _ => Ok(()),
    }
}

pub(super) fn log_filter(filter: &str) -> Result<(), ConfigError> {
    if tracing_subscriber::EnvFilter::try_new(filter).is_ok() {
        return Ok(());
    }
    Err(ConfigError::Range {
        key: "log.filter".to_owned(),
        found: format!("{filter:?}"),
        allowed: "error, warn, info, debug, trace, and pairs such as gateway=debug".to_owned(),
    })
}

pub(super) fn trusted(
    key: &str,
    address: SocketAddr,
    trusted_apn: bool,
) -> Result<(), ConfigError> {
    if trusted_apn || address.ip().is_loopback() {
        return Ok(());
    }
    Err(ConfigError::Untrusted { key: key.to_owned(), address })
}

pub(super) fn api_security(api: &Api) -> Result<(), ConfigError> {
    match (&api.tls_certificate, &api.tls_key) {
        (Some(_), Some(_)) => Ok(()),
        (Some(_), None) => {
            Err(ConfigError::HalfTls { present: "tls_certificate", missing: "tls_key" })
        }
        (None, Some(_)) => {
            Err(ConfigError::HalfTls { present: "tls_key", missing: "tls_certificate" })
        }
        (None, None) if api.listen.ip().is_loopback() || api.allow_plain_http => Ok(()),
        (None, None) => Err(ConfigError::PlainHttp(api.listen)),
    }
}
