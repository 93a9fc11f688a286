//! Firmware updates of devices.

use serde::Deserialize;

use super::values::{self, ConfigError};

/// Firmware updates of devices.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Firmware {
    /// Larger images are refused.
    pub(crate) image_bytes_max: usize,
    /// Where devices fetch images by CoAP; without it their LwM2M server.
    pub(crate) coap_url: Option<String>,
}

impl Default for Firmware {
    fn default() -> Self {
        Self { image_bytes_max: 64 << 20, coap_url: None }
    }
}

impl Firmware {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        values::in_range("firmware.image_bytes_max", self.image_bytes_max, 1..=1 << 30)
    }
}
