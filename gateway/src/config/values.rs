//! Single values of the configuration: how they are read and what is allowed.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// A secret as text, which `Debug` does not show. What is no text is kept as an empty one, which
/// is refused where it is used: an error of the parser would show it.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
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

pub(super) const MINUTE_S: u64 = 60;
pub(super) const HOUR_S: u64 = 60 * MINUTE_S;
pub(super) const DAY_S: u64 = 24 * HOUR_S;
/// The longest that a message is kept, and anything waits.
const WAIT_MAX: Duration = Duration::from_secs(366 * DAY_S);

pub(super) fn in_time(key: &str, found: Duration) -> Result<(), ConfigError> {
    if (Duration::from_millis(1)..=WAIT_MAX).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::Range {
        key: key.to_owned(),
        found: format!("{found:?}"),
        allowed: "1ms to 366d".to_owned(),
    })
}

/// A time as in "150ms", "5s", "2m", "1h" or "5d".
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| unreadable(&text))
}

pub(super) fn durations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Duration>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse(text).ok_or_else(|| unreadable(text))).collect()
}

fn unreadable<E: serde::de::Error>(text: &str) -> E {
    let allowed = "a whole number with ms, s, m, h or d, e.g. \"150ms\" or \"5d\"";
    E::custom(format!("{text:?} is no time, allowed: {allowed}"))
}

fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 1_000 * MINUTE_S,
        "h" => 1_000 * HOUR_S,
        "d" => 1_000 * DAY_S,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("150ms", 150), ("5s", 5_000), ("2m", 120_000), ("1d", 86_400_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "5w", "18446744073709551615d"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
