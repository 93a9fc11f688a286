//! How events reach customers' clouds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud_integrator::{
    ForwarderSettings, GateSettings, NetworkPolicy, NetworkTextError, RetryPolicy, Schedule,
};
use serde::{Deserialize, Deserializer};

use super::values::{self, ConfigError};

/// How events reach customers' clouds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Integrations {
    /// Integrations at most.
    pub(crate) integrations_max: usize,
    /// Accept `http://` and `mqtt://` to loopback addresses, for trying things out.
    pub(crate) allow_http_loopback: bool,
    /// Private networks that customers' endpoints may lie in.
    pub(crate) allow_networks: Vec<String>,
    /// Ports of customers' endpoints beside the usual ones.
    pub(crate) allow_ports: Vec<u16>,
    /// Name servers; without them those of the system.
    pub(crate) dns_servers: Vec<SocketAddr>,
    /// PEM files with authorities that are trusted beside the system's.
    pub(crate) extra_roots: Vec<PathBuf>,
    /// The waits between attempts at one event.
    #[serde(deserialize_with = "durations")]
    pub(crate) retry_waits: Vec<Duration>,
    /// Failures in a row after which an endpoint counts as down.
    pub(crate) breaker_failures: u32,
    /// The pause before an endpoint that counts as down is probed; it doubles with each failure.
    #[serde(deserialize_with = "duration")]
    pub(crate) breaker_pause: Duration,
    /// The longest such pause.
    #[serde(deserialize_with = "duration")]
    pub(crate) breaker_pause_max: Duration,
    /// After so long without any success an integration fails.
    #[serde(deserialize_with = "duration")]
    pub(crate) disable_after: Duration,
}

impl Default for Integrations {
    fn default() -> Self {
        Self {
            integrations_max: 100,
            allow_http_loopback: false,
            allow_networks: Vec::new(),
            allow_ports: Vec::new(),
            dns_servers: Vec::new(),
            extra_roots: Vec::new(),
            retry_waits: RETRY_WAITS_S.map(Duration::from_secs).into(),
            breaker_failures: 10,
            breaker_pause: Duration::from_secs(5),
            breaker_pause_max: Duration::from_secs(300),
            disable_after: Duration::from_secs(5 * DAY_S),
        }
    }
}

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// As docs/integrations.md promises.
const RETRY_WAITS_S: [u64; 12] = [
    5,
    30,
    2 * MINUTE_S,
    5 * MINUTE_S,
    15 * MINUTE_S,
    HOUR_S,
    2 * HOUR_S,
    4 * HOUR_S,
    8 * HOUR_S,
    12 * HOUR_S,
    24 * HOUR_S,
    24 * HOUR_S,
];

/// Integrations at most: each reads the whole log on its own.
const INTEGRATIONS_MAX: usize = 1_000;
/// Waits between attempts at most. With the longest waits they outlast every message.
const RETRY_WAITS_MAX: usize = 100;
/// The longest that a message is kept.
const WAIT_MAX: Duration = Duration::from_secs(366 * DAY_S);

impl Integrations {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let key = |key: &str| format!("integrations.{key}");
        values::in_range(&key("integrations_max"), self.integrations_max, 1..=INTEGRATIONS_MAX)?;
        values::in_range(&key("retry_waits"), self.retry_waits.len(), 1..=RETRY_WAITS_MAX)?;
        let failures = self.breaker_failures as usize;
        values::in_range(&key("breaker_failures"), failures, 1..=1_000_000)?;
        let pauses = [
            ("breaker_pause", self.breaker_pause),
            ("breaker_pause_max", self.breaker_pause_max),
            ("disable_after", self.disable_after),
        ];
        let waits = self.retry_waits.iter().map(|wait| ("retry_waits", *wait));
        for (name, found) in pauses.into_iter().chain(waits) {
            in_time(&key(name), found)?;
        }
        if self.breaker_pause > self.breaker_pause_max {
            return Err(ConfigError::Range {
                key: key("breaker_pause"),
                found: format!("{:?}", self.breaker_pause),
                allowed: format!("at most breaker_pause_max, {:?}", self.breaker_pause_max),
            });
        }
        self.network().map(|_| ())
    }

    /// What customers may have the gateway reach.
    pub(crate) fn network(&self) -> Result<NetworkPolicy, ConfigError> {
        let mut allow_networks = Vec::with_capacity(self.allow_networks.len());
        for text in &self.allow_networks {
            allow_networks.push(text.parse().map_err(|error: NetworkTextError| {
                ConfigError::Value(format!("integrations.allow_networks: {error}"))
            })?);
        }
        Ok(NetworkPolicy {
            allow_networks,
            allow_ports: self.allow_ports.clone(),
            allow_http_loopback: self.allow_http_loopback,
            dns_servers: self.dns_servers.clone(),
        })
    }

    /// How each integration delivers, as far as its customer does not say otherwise.
    pub(crate) fn forwarder(&self) -> ForwarderSettings {
        let standard = RetryPolicy::standard();
        let attempts = u32::try_from(self.retry_waits.len() + 1).unwrap_or(u32::MAX);
        ForwarderSettings {
            retry: RetryPolicy {
                schedule: Schedule {
                    waits: self.retry_waits.as_slice().into(),
                    ..standard.schedule
                },
                attempts_max: Some(attempts),
                gate: Some(GateSettings {
                    failures: self.breaker_failures,
                    pause_min: self.breaker_pause,
                    pause_max: self.breaker_pause_max,
                    ..GateSettings::DOCUMENTED
                }),
                ..standard
            },
            disable_after: self.disable_after,
            ..ForwarderSettings::default()
        }
    }

    /// The files with authorities, read.
    pub(crate) fn roots(&self) -> Result<Vec<Vec<u8>>, ConfigError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| ConfigError::Read { path: path.clone(), source })
        };
        self.extra_roots.iter().map(read).collect()
    }
}

fn in_time(key: &str, found: Duration) -> Result<(), ConfigError> {
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
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| unreadable(&text))
}

fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
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

    #[test]
    fn the_defaults_are_those_that_are_documented() {
        let forwarder = Integrations::default().forwarder();
        assert_eq!(forwarder.retry, RetryPolicy::standard());
        assert_eq!(forwarder.disable_after, ForwarderSettings::default().disable_after);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |change: fn(&mut Integrations)| {
            let mut integrations = Integrations::default();
            integrations.check().unwrap();
            change(&mut integrations);
            integrations.check().unwrap_err().to_string()
        };
        let text = refused(|at| at.retry_waits.clear());
        assert_eq!(text, "integrations.retry_waits is 0, allowed: 1 to 100");
        let text = refused(|at| at.breaker_pause = Duration::from_secs(301));
        assert!(text.ends_with("301s, allowed: at most breaker_pause_max, 300s"), "{text}");
        let text = refused(|at| at.allow_networks = vec!["10.0.0.5/8".to_owned()]);
        assert!(text.contains("10.0.0.0/8"), "{text}");
    }
}
