//! What an operator configures: a TOML file, and environment variables that override it.
//!
//! Unknown keys are refused; a wrong value is named together with what is allowed. Everything is
//! checked before any port is bound. `simgate.example.toml` explains every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use device_integrator::CoapLimits;
use sealing::KeySource;
use serde::Deserialize;

mod coaps;
mod environment;
mod firmware;
mod integrations;
mod locator;
mod lwm2m;
mod mail;
mod network;
mod onboarding;
mod values;

pub(crate) use coaps::CoapsListener;
pub(crate) use firmware::Firmware;
pub(crate) use network::{Network, RadiusListener, Stream, secret as network_secret};
pub(crate) use onboarding::When as OnboardingWhen;
pub(crate) use values::{ConfigError, LogFormat};

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) data: Data,
    pub(crate) account: Account,
    pub(crate) devices: Devices,
    pub(crate) network: Network,
    pub(crate) locator: locator::Locator,
    pub(crate) lwm2m: lwm2m::Lwm2m,
    pub(crate) keys: KeyStore,
    pub(crate) firmware: Firmware,
    pub(crate) api: Api,
    pub(crate) operations: Operations,
    pub(crate) integrations: integrations::Integrations,
    pub(crate) mail: mail::Mail,
    pub(crate) onboarding: onboarding::Onboarding,
    pub(crate) log: Log,
}

/// Where the data lies and how long it is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// The folder of the message log and of the state file.
    pub(crate) dir: PathBuf,
    /// How long a stored message can be read, in hours.
    pub(crate) retention_hours: u32,
    /// Messages that may wait for the disk.
    pub(crate) queue_records_max: usize,
    /// Records after which a segment of the message log is closed.
    pub(crate) segment_records_max: u32,
}

/// Who runs the gateway, as its API clients see it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Account {
    /// The number that stands before each client id and as `customerId` in logs.
    pub(crate) number: String,
}

/// The listeners for devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Devices {
    /// Sockets per listener; 0 stands for one per core.
    pub(crate) sockets: usize,
    /// Messages per second that one device may send on average; 0 stands for no limit.
    pub(crate) rate_per_second: u32,
    /// Messages that one device may send at once.
    pub(crate) rate_burst: u32,
    /// The name that devices look up, as the API shows it; without it the listener's address.
    pub(crate) domain: Option<String>,
    /// Where devices speak CoAP over DTLS, as the answer to a bootstrap tells them; without it
    /// the first listener for it, by the domain's name if there is one.
    pub(crate) coaps_url: Option<String>,
    /// Plain UDP listeners.
    pub(crate) udp: Vec<UdpListener>,
    /// CoAP listeners.
    pub(crate) coap: Vec<CoapListener>,
    /// Listeners for CoAP over DTLS.
    pub(crate) coaps: Vec<CoapsListener>,
    /// LwM2M listeners.
    pub(crate) lwm2m: Vec<CoapListener>,
    /// Listeners for LwM2M over DTLS.
    pub(crate) lwm2ms: Vec<CoapsListener>,
    /// Where plain requests to devices come from; without it the address of the first CoAP
    /// listener, and a port of the system's choice.
    #[serde(deserialize_with = "values::optional_address")]
    pub(crate) commands_from: Option<SocketAddr>,
}

/// One plain UDP listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the key listen")]
pub(crate) struct UdpListener {
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// Whether the network proves that a source address is the SIM's.
    #[serde(default)]
    pub(crate) trusted_apn: bool,
    /// Larger payloads are dropped and counted.
    #[serde(default = "values::udp_payload_bytes_max")]
    pub(crate) payload_bytes_max: usize,
}

/// One CoAP listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with the key listen")]
pub(crate) struct CoapListener {
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// Whether the network proves that a source address is the SIM's.
    #[serde(default)]
    pub(crate) trusted_apn: bool,
    /// Larger bodies, also block-wise ones, are answered 4.13.
    #[serde(default = "values::coap_body_bytes_max")]
    pub(crate) body_bytes_max: usize,
    /// Exchanges remembered to recognise retransmissions, over all sockets of the listener.
    #[serde(default = "values::coap_exchanges_max")]
    pub(crate) exchanges_max: usize,
}

/// What the keys of devices are encrypted under.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeyStore {
    /// The file of the data key; without it `data.key` in the data folder.
    pub(crate) file: Option<PathBuf>,
    /// The data key itself, from the environment.
    pub(crate) secret: Option<values::Secret>,
}

/// The management API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    #[serde(deserialize_with = "values::address")]
    pub(crate) listen: SocketAddr,
    /// PEM file of the certificate chain; with `tls_key` the API speaks HTTPS.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// PEM file of the private key.
    pub(crate) tls_key: Option<PathBuf>,
    /// Plain HTTP on an address that is not loopback, e.g. behind a reverse proxy.
    pub(crate) allow_plain_http: bool,
    /// How clients reach the API, for links in its answers, e.g. behind a proxy.
    pub(crate) public_url: Option<String>,
}

/// Metrics and health.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Operations {
    /// A listener of their own; without it they stand on the API's.
    #[serde(deserialize_with = "values::optional_address")]
    pub(crate) listen: Option<SocketAddr>,
}

/// The program's own log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A filter such as `info` or `info,cloud_integrator=debug`.
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("simgate-data"),
            retention_hours: 168,
            queue_records_max: 65_536,
            segment_records_max: 1_000_000,
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self { number: "1000000001".to_owned() }
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            sockets: 0,
            rate_per_second: 0,
            rate_burst: 50,
            domain: None,
            coaps_url: None,
            udp: vec![UdpListener {
                listen: SocketAddr::from(([127, 0, 0, 1], 4445)),
                trusted_apn: false,
                payload_bytes_max: values::udp_payload_bytes_max(),
            }],
            coap: vec![CoapListener::at(SocketAddr::from(([127, 0, 0, 1], 5683)))],
            coaps: vec![CoapsListener::at(SocketAddr::from(([127, 0, 0, 1], 5684)))],
            lwm2m: vec![CoapListener::at(SocketAddr::from(([127, 0, 0, 1], 5783)))],
            // Some clients keep one socket for both of their servers, and tell sessions by address.
            lwm2ms: [5784, 5785]
                .map(|port| CoapsListener::at(SocketAddr::from(([127, 0, 0, 1], port))))
                .into(),
            commands_from: None,
        }
    }
}

impl CoapListener {
    /// A listener with the defaults.
    fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            trusted_apn: false,
            body_bytes_max: values::coap_body_bytes_max(),
            exchanges_max: values::coap_exchanges_max(),
        }
    }

    /// The limits of an endpoint without a configuration of its own.
    pub(crate) fn default_limits() -> CoapLimits {
        CoapLimits {
            body_bytes_max: values::coap_body_bytes_max(),
            exchanges_max: values::coap_exchanges_max(),
        }
    }

    /// The limits of its endpoint.
    pub(crate) fn limits(&self) -> CoapLimits {
        CoapLimits { body_bytes_max: self.body_bytes_max, exchanges_max: self.exchanges_max }
    }

    fn check(&self, section: &str) -> Result<(), ConfigError> {
        values::trusted(section, self.listen, self.trusted_apn)?;
        let key = |key: &str| format!("{section}.{key}");
        values::in_range(&key("body_bytes_max"), self.body_bytes_max, 1..=65_536)?;
        values::in_range(&key("exchanges_max"), self.exchanges_max, 1_000..=100_000_000)
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls_certificate: None,
            tls_key: None,
            allow_plain_http: false,
            public_url: None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Config {
    /// Reads `file` where one is given, lets the environment override it, and checks the whole.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => values::read_file(path)?,
            None => toml::Table::new(),
        };
        environment::apply(&mut table, environment)?;
        let config: Self = toml::Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::value(&error))?;
        config.check()?;
        Ok(config)
    }

    /// How long a stored message can be read.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.data.retention_hours) * 3_600)
    }

    /// The file of the cell database.
    pub(crate) fn cells(&self) -> PathBuf {
        self.locator.cells(&self.data.dir)
    }

    /// Where the data key of the key store comes from.
    pub(crate) fn key_source(&self) -> KeySource {
        match (&self.keys.secret, &self.keys.file) {
            (Some(secret), _) => KeySource::Text(secret.0.clone()),
            (None, Some(file)) => KeySource::File(file.clone()),
            (None, None) => KeySource::File(self.data.dir.join("data.key")),
        }
    }

    /// How long sessions may idle, on the listener that lets them idle longest.
    pub(crate) fn sessions_kept_for(&self) -> Duration {
        let secure = self.devices.coaps.iter().chain(&self.devices.lwm2ms);
        let days = secure.map(|listener| listener.session_idle_days).max();
        Duration::from_secs(u64::from(days.unwrap_or(30)) * 86_400)
    }

    /// Where devices speak CoAP over DTLS, where that is known; `listening` are the addresses of
    /// the listeners.
    pub(crate) fn coaps_url(&self, listening: &[SocketAddr]) -> Option<String> {
        self.devices.coaps_url.clone().or_else(|| self.url_of("coaps", 5684, listening))
    }

    fn url_of(&self, scheme: &str, port: u16, listening: &[SocketAddr]) -> Option<String> {
        let first = listening.first();
        let host = values::host(self.devices.domain.as_ref(), first);
        let port = first.map_or(port, SocketAddr::port);
        host.map(|host| format!("{scheme}://{host}:{port}"))
    }

    /// Where devices register by LwM2M, plain and over DTLS, and where they bootstrap, where that
    /// is known; `listening` are the addresses of the listeners of each kind. The first one is for
    /// bootstraps, the last one for registrations.
    pub(crate) fn lwm2m_urls(&self, listening: [&[SocketAddr]; 2]) -> [[Option<String>; 2]; 2] {
        let configured = [&self.lwm2m.server_url, &self.lwm2m.secure_server_url];
        let url = |kind: usize, at: Option<&SocketAddr>| {
            // The domain alone says no port.
            at.and_then(|at| self.url_of(["coap", "coaps"][kind], 0, &[*at]))
        };
        let servers = std::array::from_fn(|kind| {
            configured[kind].clone().or_else(|| url(kind, listening[kind].last()))
        });
        [servers, std::array::from_fn(|kind| url(kind, listening[kind].first()))]
    }

    /// Sockets per listener.
    pub(crate) fn sockets(&self) -> usize {
        match self.devices.sockets {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        values::in_range("data.retention_hours", self.data.retention_hours as usize, 1..=8_784)?;
        values::in_range("data.queue_records_max", self.data.queue_records_max, 64..=4_194_304)?;
        let segment = self.data.segment_records_max as usize;
        values::in_range("data.segment_records_max", segment, 1_000..=10_000_000)?;
        values::in_range("devices.sockets", self.devices.sockets, 0..=64)?;
        let rate = self.devices.rate_per_second as usize;
        values::in_range("devices.rate_per_second", rate, 0..=1_000_000)?;
        let burst = self.devices.rate_burst as usize;
        values::in_range("devices.rate_burst", burst, 1..=1_000_000)?;
        values::account_number(&self.account.number)?;
        let coaps_url = self.devices.coaps_url.as_deref();
        values::device_url("devices.coaps_url", coaps_url, "coaps://")?;
        values::one_data_key(&self.keys)?;
        for listener in &self.devices.udp {
            values::trusted("devices.udp", listener.listen, listener.trusted_apn)?;
            let limit = listener.payload_bytes_max;
            values::in_range("devices.udp.payload_bytes_max", limit, 1..=1_500)?;
        }
        let Devices { coap, coaps, lwm2m, lwm2ms, .. } = &self.devices;
        coap.iter().try_for_each(|listener| listener.check("devices.coap"))?;
        coaps.iter().try_for_each(|listener| listener.check("devices.coaps"))?;
        lwm2m.iter().try_for_each(|listener| listener.check("devices.lwm2m"))?;
        lwm2ms.iter().try_for_each(|listener| listener.check("devices.lwm2ms"))?;
        self.network.check()?;
        self.locator.check()?;
        self.lwm2m.check()?;
        self.firmware.check()?;
        self.integrations.check()?;
        self.mail.check()?;
        self.onboarding.check()?;
        values::log_filter(&self.log.filter)?;
        values::api_security(&self.api)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("simgate.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        Config::load(Some(&path), environment).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_needed() {
        let config = Config::load(None, std::iter::empty()).unwrap();
        assert_eq!(config.api.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.devices.udp[0].listen.port(), 4445);
        assert_eq!(config.devices.coap[0].listen.port(), 5683);
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let example = include_str!("../../simgate.example.toml");
        let config = load(example, &[]).unwrap();
        let default = Config::default();
        assert_eq!(format!("{config:?}"), format!("{default:?}"));
    }

    #[test]
    fn unknown_keys_are_refused_with_the_known_ones() {
        let error = load("[api]\nlissen = \"127.0.0.1:1\"", &[]).unwrap_err();
        assert!(error.contains("lissen") && error.contains("listen"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        let error = load("[api]\nlisten = \"localhost\"", &[]).unwrap_err();
        assert!(error.contains("localhost") && error.contains("127.0.0.1:8080"), "{error}");
        let error = load("[data]\nretention_hours = 0", &[]).unwrap_err();
        assert_eq!(error, "data.retention_hours is 0, allowed: 1 to 8784");
        let error = load("[devices]\nudp = [\"127.0.0.1:4445\"]", &[]).unwrap_err();
        assert!(error.contains("expected a table with the key listen"), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "[data]\nretention_hours = 24",
            &[
                ("SIMGATE_DATA_RETENTION_HOURS", "48"),
                ("SIMGATE_API_LISTEN", "127.0.0.1:9"),
                ("SIMGATE_DEVICES_UDP", "[{ listen = \"127.0.0.1:7\" }]"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.data.retention_hours, 48);
        assert_eq!(config.api.listen.port(), 9);
        assert_eq!(config.devices.udp[0].listen.port(), 7);
        let error = load("", &[("SIMGATE_API_PORT", "1")]).unwrap_err();
        assert!(error.contains("port"), "{error}");
        let error = load("", &[("SIMGATE_DATA_RETENTION_HOURS", "long")]).unwrap_err();
        assert!(error.contains("retention_hours"), "{error}");
    }

    #[test]
    fn an_open_network_is_no_identity() {
        let error = load("[[devices.udp]]\nlisten = \"0.0.0.0:4445\"", &[]).unwrap_err();
        assert!(error.contains("trusted_apn"), "{error}");
        let text = "[[devices.udp]]\nlisten = \"0.0.0.0:4445\"\ntrusted_apn = true";
        assert!(load(text, &[]).is_ok());
        let error = load("[api]\nlisten = \"0.0.0.0:8080\"", &[]).unwrap_err();
        assert!(error.contains("allow_plain_http"), "{error}");
    }
}
