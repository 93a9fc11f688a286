//! Certificates of AWS IoT Core for devices.

use std::net::{IpAddr, SocketAddr};

use aws_onboarding::OnboardingSettings;
use cloud_integrator::AwsRole;
use serde::Deserialize;

use super::values::{self, ConfigError};

/// Certificates of AWS IoT Core for devices. Without a region there are none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Onboarding {
    /// Such as `eu-central-1`.
    pub(crate) region: Option<String>,
    /// Where devices ask for their certificates; without it they cannot.
    #[serde(deserialize_with = "values::optional_address")]
    pub(crate) listen: Option<SocketAddr>,
    /// Whether the network proves that a source address is the SIM's.
    pub(crate) trusted_apn: bool,
    /// Proxies whose header `onboarding-ip` says which device asks.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// When a SIM gets its certificate.
    pub(crate) when: When,
    /// A role of the account, if it is not the gateway's own.
    pub(crate) role_arn: Option<String>,
    /// What the role asks for beside the gateway's identity.
    pub(crate) external_id: Option<String>,
    /// The host of the data plane that devices are told; without it the account is asked for it.
    pub(crate) data_endpoint: Option<String>,
    /// The control plane, instead of the regional one.
    pub(crate) control_endpoint: Option<String>,
    /// The policy of all devices; it is made if it is not there.
    pub(crate) policy_name: String,
    /// The type of the Things; it must be there.
    pub(crate) thing_type: Option<String>,
    /// Where a message about each SIM goes; empty for nowhere.
    pub(crate) registration_topic: String,
}

/// When a SIM gets its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// When it is first heard, by whatever protocol.
    FirstSeen,
    /// When it asks for it.
    Asked,
}

impl Default for Onboarding {
    fn default() -> Self {
        Self {
            region: None,
            listen: None,
            trusted_apn: false,
            trusted_proxies: Vec::new(),
            when: When::FirstSeen,
            role_arn: None,
            external_id: None,
            data_endpoint: None,
            control_endpoint: None,
            policy_name: "simgate-device".to_owned(),
            thing_type: None,
            registration_topic: "registration".to_owned(),
        }
    }
}

impl Onboarding {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(address) = self.listen {
            values::trusted("onboarding", address, self.trusted_apn)?;
            if self.region.is_none() {
                return Err(ConfigError::Value(
                    "onboarding.listen is set without onboarding.region: there is nothing that \
                     devices could be given"
                        .to_owned(),
                ));
            }
        }
        self.role().map(|_| ())
    }

    /// How devices are onboarded; `None` where they are not.
    pub(crate) fn settings(&self) -> Result<Option<OnboardingSettings>, ConfigError> {
        let Some(region) = &self.region else { return Ok(None) };
        let topic = &self.registration_topic;
        Ok(Some(OnboardingSettings {
            role: self.role()?,
            control_endpoint: self.control_endpoint.clone(),
            data_endpoint: self.data_endpoint.clone(),
            policy_name: self.policy_name.clone(),
            thing_type: self.thing_type.clone(),
            registration_topic: Some(topic.clone()).filter(|topic| !topic.is_empty()),
            ..OnboardingSettings::new(region.clone())
        }))
    }

    fn role(&self) -> Result<Option<AwsRole>, ConfigError> {
        let Some(arn) = &self.role_arn else { return Ok(None) };
        let role = AwsRole::new(arn, self.external_id.as_deref());
        role.map(Some).map_err(|error| ConfigError::Value(format!("onboarding: {error}")))
    }
}
