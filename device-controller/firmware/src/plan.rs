//! What a job asks of each of its devices.

use std::sync::Arc;
use std::time::Duration;

/// How an image reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// By what the device says that it can: pull where possible, else push.
    #[default]
    Auto,
    /// The device fetches it.
    Pull,
    /// The gateway writes it.
    Push,
}

/// How patient a job is with each device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts at one device, the first included.
    pub attempts: u32,
    /// Between two attempts.
    pub pause: Duration,
    /// From a device's first step to its last. It also bounds how long a sleeping device is
    /// waited for.
    pub deadline: Duration,
    /// A download during which nothing moves for this long has failed. Does not run while the
    /// device sleeps.
    pub download: Duration,
    /// An installation without a result for this long has failed. Does not run while the device
    /// sleeps or is away for its reboot.
    pub install: Duration,
}

/// What a job asks of each of its devices. Shared by all of them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How.
    pub method: Method,
    /// How patiently.
    pub patience: Patience,
    /// The version that the image holds, as its owner names it.
    pub version: Option<String>,
    /// Whether a device that reports another version after the update has failed.
    pub require_version: bool,
    /// Where a device fetches the image by CoAP.
    pub coap_uri: Option<String>,
    /// Where a device fetches the image by CoAP over DTLS.
    pub coaps_uri: Option<String>,
    /// The image.
    pub image: Arc<[u8]>,
}

impl Method {
    /// As stored.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Auto => 0,
            Self::Pull => 1,
            Self::Push => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Auto, Self::Pull, Self::Push].into_iter().find(|method| method.code() == code)
    }

    /// `AUTO`, `PULL` or `PUSH`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Pull => "PULL",
            Self::Push => "PUSH",
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // The first may meet a bad moment of the network; a third failure has a cause.
            attempts: 3,
            // Longer than an outage of a cell after a reboot, an estimate.
            pause: Duration::from_secs(15 * 60),
            // A device that wakes once a week has its chance.
            deadline: Duration::from_secs(7 * 24 * 3_600),
            download: Duration::from_secs(3_600),
            install: Duration::from_secs(3_600),
        }
    }
}
