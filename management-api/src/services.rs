//! What the API answers from: the domain crates, and what the operator configured.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloud_integrator::Integrations;
use connectivity::SimRegistry;
use data_sessions::Sessions;
use device_controller::Controller;
use firmware_update::Updates;
use inspector::Inspector;
use key_store::Keys;
use locator::Locator;
use message_log::MessageLog;
use template_library::Templates;
use vocabulary::{Iccid, Protocol};

use crate::clients::Clients;
use crate::feeds::Feeds;
use crate::registrations::Registration;
use crate::switches::Switches;
use crate::throttle::Rate;

/// Everything that handlers ask.
pub struct Services {
    /// Who may ask for a token; also knows the account number.
    pub clients: Clients,
    /// The SIMs.
    pub registry: Arc<SimRegistry>,
    /// The keys of devices.
    pub keys: Keys,
    /// The templates.
    pub templates: Templates,
    /// What happened.
    pub inspector: Inspector,
    /// Where events go.
    pub integrations: Integrations,
    /// Requests to devices.
    pub controller: Controller,
    /// Which devices are registered by LwM2M.
    pub registrations: Registrations,
    /// What the account can switch on and off.
    pub switches: Switches,
    /// Where devices are.
    pub locator: Locator,
    /// Which SIM holds which address.
    pub sessions: Sessions,
    /// What the mobile network tells.
    pub feeds: Feeds,
    /// Firmware images and jobs.
    pub firmware: Updates,
    /// The log, for its health.
    pub log: MessageLog,
    /// The metrics.
    pub metrics: MetricsText,
    /// Whether the gateway takes messages.
    pub readiness: Readiness,
    /// What the operator configured.
    pub settings: Settings,
}

/// What the operator configured, as far as the API shows it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The release, e.g. `0.1.0`.
    pub version: &'static str,
    /// Where devices send to.
    pub endpoints: Vec<DeviceEndpoint>,
    /// How clients reach this API, e.g. `https://gateway.example.com`, for links in answers.
    /// Without it a link leads to the host that the client itself named.
    pub public_url: Option<String>,
    /// How fast one API client may ask.
    pub client_rate: Rate,
    /// How fast one address may ask for tokens; a failed login counts as ten requests.
    pub token_rate: Rate,
}

/// Where devices send to by one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEndpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The name that devices look up, or an address as text.
    pub domain: String,
    /// The addresses behind it.
    pub ip_addresses: Vec<IpAddr>,
    /// The port without encryption.
    pub port: u16,
    /// The port with DTLS.
    pub secure_port: Option<u16>,
}

/// Writes all metrics in the Prometheus text format.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> String + Send + Sync>);

/// Finds the LwM2M registrations of devices.
#[derive(Clone)]
pub struct Registrations(Arc<dyn Fn(Iccid) -> Option<Registration> + Send + Sync>);

/// Whether the gateway takes messages. Clones share one answer; the first is no.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            endpoints: Vec::new(),
            public_url: None,
            // Ten times what the documented platform allows for its busiest resource.
            client_rate: Rate { per_second: 100.0, burst: 200.0 },
            // The documented 600 a minute.
            token_rate: Rate { per_second: 10.0, burst: 600.0 },
        }
    }
}

impl MetricsText {
    /// The text that `render` returns.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(render))
    }

    pub(crate) fn render(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MetricsText").finish_non_exhaustive()
    }
}

impl Registrations {
    /// What `find` says of a device. It must not block.
    pub fn new(find: impl Fn(Iccid) -> Option<Registration> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    pub(crate) fn find(&self, device: Iccid) -> Option<Registration> {
        (self.0)(device)
    }

    pub(crate) fn holds(&self, device: Iccid) -> bool {
        self.find(device).is_some()
    }
}

impl fmt::Debug for Registrations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registrations").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Says whether the gateway takes messages from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
