//! What the listeners for LwM2M, plain and over DTLS, share.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::{self, ConfigError};

/// What the listeners for LwM2M share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lwm2m {
    /// Where devices register, as a bootstrap tells them: without these the last listener of the
    /// kind.
    pub(crate) server_url: Option<String>,
    pub(crate) secure_server_url: Option<String>,
    /// Object definitions of the OMA, as XML files.
    pub(crate) objects_dir: Option<PathBuf>,
    /// The lifetime that a bootstrap writes, and of a registration that names none, in seconds.
    pub(crate) lifetime_seconds: u32,
    /// How long a registration lasts at most without an update, in days.
    pub(crate) lifetime_days_max: u32,
    /// How long a registration lasts beyond its lifetime, in seconds.
    pub(crate) grace_seconds: u32,
    /// How long a device in queue mode listens after it was heard, in seconds.
    pub(crate) awake_seconds: u32,
    /// Whether a bootstrap asks a device first what it has.
    pub(crate) bootstrap_discover: bool,
    /// Registrations kept.
    pub(crate) registrations_max: usize,
}

impl Default for Lwm2m {
    fn default() -> Self {
        Self {
            server_url: None,
            secure_server_url: None,
            objects_dir: None,
            lifetime_seconds: 86_400,
            lifetime_days_max: 30,
            // EXCHANGE_LIFETIME (RFC 7252 section 4.8.2): an update sent at the last moment may be
            // repeated, and late.
            grace_seconds: 247,
            awake_seconds: 93,
            bootstrap_discover: false,
            registrations_max: 1_000_000,
        }
    }
}

impl Lwm2m {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let lifetime = self.lifetime_seconds as usize;
        values::in_range("lwm2m.lifetime_seconds", lifetime, 60..=31_536_000)?;
        let days = self.lifetime_days_max as usize;
        values::in_range("lwm2m.lifetime_days_max", days, 1..=366)?;
        values::in_range("lwm2m.grace_seconds", self.grace_seconds as usize, 0..=86_400)?;
        values::in_range("lwm2m.awake_seconds", self.awake_seconds as usize, 1..=86_400)?;
        let registrations = self.registrations_max;
        values::in_range("lwm2m.registrations_max", registrations, 1_000..=10_000_000)?;
        values::device_url("lwm2m.server_url", self.server_url.as_deref(), "coap://")?;
        let secure = self.secure_server_url.as_deref();
        values::device_url("lwm2m.secure_server_url", secure, "coaps://")
    }
}
