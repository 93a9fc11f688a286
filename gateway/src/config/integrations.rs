//! How events reach customers' clouds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud_integrator::{
    ForwarderSettings, GateSettings, NetworkPolicy, NetworkTextError, RetryPolicy, Schedule,
};
use serde::Deserialize;

use super::values::{self, ConfigError, DAY_S, HOUR_S, MINUTE_S};

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
    #[serde(deserialize_with = "values::durations")]
    pub(crate) retry_waits: Vec<Duration>,
    /// Failures in a row after which an endpoint counts as down.
    pub(crate) breaker_failures: u32,
    /// The pause before an endpoint that counts as down is probed; it doubles with each failure.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) breaker_pause: Duration,
    /// The longest such pause.
    #[serde(deserialize_with = "values::duration")]
    pub(crate) breaker_pause_max: Duration,
    /// After so long without any success an integration fails.
    #[serde(deserialize_with = "values::duration")]
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
            values::in_time(&key(name), found)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
