//! How devices are onboarded.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud_integrator::AwsRole;

/// Where devices find the authority of AWS's servers.
pub const AMAZON_ROOT_CA_URL: &str = "https://www.amazontrust.com/repository/AmazonRootCA1.pem";
/// The same authority, for devices that do not fetch it.
pub const AMAZON_ROOT_CA_PEM: &str = include_str!("amazon_root_ca_1.pem");

/// How devices are onboarded.
#[derive(Debug, Clone)]
pub struct OnboardingSettings {
    /// Such as `eu-central-1`.
    pub region: String,
    /// A role of the account, if it is not the gateway's own.
    pub role: Option<AwsRole>,
    /// The control plane, instead of the regional one.
    pub control_endpoint: Option<String>,
    /// The data plane that devices are told, as a host; without it the account is asked for it.
    pub data_endpoint: Option<String>,
    /// The policy of all devices; it is made if it is not there.
    pub policy_name: String,
    /// The type of the Things; it must be there.
    pub thing_type: Option<String>,
    /// Attributes of every Thing: three without a type, 50 with one (the quotas of AWS).
    pub attributes: BTreeMap<String, String>,
    /// Where a message about each SIM goes; without it nowhere.
    pub registration_topic: Option<String>,
    /// What devices are told as the place of their root certificate.
    pub root_ca_url: String,
    /// That certificate, in PEM.
    pub root_ca_pem: String,
    /// Devices that are begun per second. Each takes one request of each kind, and AWS takes 10 of
    /// a kind per second by default.
    pub devices_per_second: u32,
    /// The first wait after a failure; it doubles up to 15 minutes.
    pub retry_wait: Duration,
}

impl OnboardingSettings {
    /// As documented for 1NCE, in one region.
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            role: None,
            control_endpoint: None,
            data_endpoint: None,
            policy_name: "simgate-device".to_owned(),
            thing_type: None,
            attributes: BTreeMap::new(),
            registration_topic: Some("registration".to_owned()),
            root_ca_url: AMAZON_ROOT_CA_URL.to_owned(),
            root_ca_pem: AMAZON_ROOT_CA_PEM.to_owned(),
            devices_per_second: 8,
            retry_wait: Duration::from_secs(2),
        }
    }
}
