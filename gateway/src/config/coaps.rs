//! Listeners with DTLS.

use std::net::SocketAddr;
use std::time::Duration;

use device_integrator::{CoapLimits, SecureConfig};
use dtls::{Suite, UnknownRecords};
use serde::Deserialize;

use super::values::{self, ConfigError};

/// One listener for CoAP or LwM2M over DTLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the key listen")]
pub(crate) struct CoapsListener {
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// Whether the network proves that a source address is the SIM's.
    #[serde(default)]
    pub(crate) trusted_apn: bool,
    /// What a device has to prove.
    #[serde(default)]
    pub(crate) identity: IdentityRule,
    /// Cipher suites, the preferred first.
    #[serde(default = "CipherSuite::all")]
    pub(crate) cipher_suites: Vec<CipherSuite>,
    /// Whether a connection ID is given to devices that ask for one.
    #[serde(default = "yes")]
    pub(crate) connection_ids: bool,
    /// What happens to records of unknown sessions.
    #[serde(default)]
    pub(crate) unknown_records: UnknownRecordsRule,
    /// Sessions over all sockets of the listener; the longest idle leave first.
    #[serde(default = "sessions_max")]
    pub(crate) sessions_max: usize,
    /// How long a session may idle, in days.
    #[serde(default = "session_idle_days")]
    pub(crate) session_idle_days: u32,
    /// Handshakes begun per second over all sockets of the listener; 0 stands for 12,000 for each.
    #[serde(default)]
    pub(crate) handshakes_per_second: u32,
    /// Larger bodies, also block-wise ones, are answered 4.13.
    #[serde(default = "values::coap_body_bytes_max")]
    pub(crate) body_bytes_max: usize,
    /// Exchanges remembered to recognise retransmissions, over all sockets of the listener.
    #[serde(default = "values::coap_exchanges_max")]
    pub(crate) exchanges_max: usize,
}

/// What a device has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) enum IdentityRule {
    /// That it has the key of its SIM.
    #[default]
    #[serde(rename = "psk")]
    Psk,
    /// That, and that it has the SIM's address.
    #[serde(rename = "psk+sim_ip")]
    PskAndSimIp,
}

/// A cipher suite, by the names that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum CipherSuite {
    #[serde(rename = "ccm-8")]
    Ccm8,
    #[serde(rename = "ccm")]
    Ccm,
    #[serde(rename = "gcm")]
    Gcm,
    #[serde(rename = "cbc")]
    Cbc,
}

/// What happens to records of unknown sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownRecordsRule {
    #[default]
    Silence,
    Alert,
}

impl CipherSuite {
    fn all() -> Vec<Self> {
        vec![Self::Ccm8, Self::Ccm, Self::Gcm, Self::Cbc]
    }

    fn suite(self) -> Suite {
        match self {
            Self::Ccm8 => Suite::Aes128Ccm8,
            Self::Ccm => Suite::Aes128Ccm,
            Self::Gcm => Suite::Aes128GcmSha256,
            Self::Cbc => Suite::Aes128CbcSha256,
        }
    }
}

fn yes() -> bool {
    true
}

fn sessions_max() -> usize {
    dtls::Limits::default().sessions_max
}

fn session_idle_days() -> u32 {
    30
}

impl CoapsListener {
    /// A listener with the defaults.
    pub(crate) fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            trusted_apn: false,
            identity: IdentityRule::default(),
            cipher_suites: CipherSuite::all(),
            connection_ids: true,
            unknown_records: UnknownRecordsRule::default(),
            sessions_max: sessions_max(),
            session_idle_days: session_idle_days(),
            handshakes_per_second: 0,
            body_bytes_max: values::coap_body_bytes_max(),
            exchanges_max: values::coap_exchanges_max(),
        }
    }

    /// Whether source addresses are identities.
    pub(crate) fn is_vouched(&self) -> bool {
        self.trusted_apn || self.listen.ip().is_loopback()
    }

    pub(super) fn check(&self, section: &str) -> Result<(), ConfigError> {
        let key = |key: &str| format!("{section}.{key}");
        if self.identity == IdentityRule::PskAndSimIp {
            values::trusted(section, self.listen, self.trusted_apn)?;
        }
        let suites = self.cipher_suites.len();
        values::in_range(&format!("number of {section}.cipher_suites"), suites, 1..=4)?;
        values::in_range(&key("sessions_max"), self.sessions_max, 1_000..=10_000_000)?;
        let days = self.session_idle_days as usize;
        values::in_range(&key("session_idle_days"), days, 1..=366)?;
        let handshakes = self.handshakes_per_second as usize;
        values::in_range(&key("handshakes_per_second"), handshakes, 0..=1_000_000)?;
        values::in_range(&key("body_bytes_max"), self.body_bytes_max, 1..=65_536)?;
        let exchanges = self.exchanges_max;
        values::in_range(&key("exchanges_max"), exchanges, 1_000..=100_000_000)
    }

    /// The limits of its endpoint.
    pub(crate) fn limits(&self) -> CoapLimits {
        CoapLimits { body_bytes_max: self.body_bytes_max, exchanges_max: self.exchanges_max }
    }

    /// What the listener makes of it with so many sockets.
    pub(crate) fn secure(&self, sockets: usize) -> SecureConfig {
        let defaults = dtls::Limits::default();
        let sockets = u32::try_from(sockets).unwrap_or(u32::MAX);
        let of_all = |of_one: u32| of_one.saturating_mul(sockets);
        let limits = dtls::Limits {
            sessions_max: self.sessions_max,
            idle_max: Duration::from_secs(u64::from(self.session_idle_days) * 86_400),
            handshakes_per_second: match self.handshakes_per_second {
                0 => of_all(defaults.handshakes_per_second),
                given => given,
            },
            wakes_per_second: of_all(defaults.wakes_per_second),
            ..defaults
        };
        SecureConfig {
            needs_address: self.identity == IdentityRule::PskAndSimIp,
            dtls: dtls::Config {
                suites: self.cipher_suites.iter().map(|suite| suite.suite()).collect(),
                connection_ids: self.connection_ids,
                unknown_records: match self.unknown_records {
                    UnknownRecordsRule::Silence => UnknownRecords::Silence,
                    UnknownRecordsRule::Alert => UnknownRecords::Alert,
                },
                limits,
                ..dtls::Config::default()
            },
        }
    }
}
