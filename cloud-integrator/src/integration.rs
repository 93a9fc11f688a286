//! What a customer configures: an integration, and the forms in which one is asked for.

use std::fmt;

use thiserror::Error;
use vocabulary::Timestamp;

use crate::aws::InvalidAws;
use crate::delivery_options::{DeliveryOptions, InvalidDeliveryOptions};
use crate::email::InvalidEmail;
use crate::event_type::{EventTypes, EventTypesError};
use crate::mqtt::MqttEndpointError;
use crate::store::StoreError;
use crate::target::{AwsTarget, AwsTransport, Target};
use crate::webhook::WebhookError;

/// The longest name, as documented.
pub const NAME_CHARS_MAX: usize = 128;

/// A configured integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    /// 21 characters, made at creation.
    pub id: String,
    /// The customer's name for it.
    pub name: String,
    /// Where events go.
    pub target: Target,
    /// What it wants.
    pub event_types: EventTypes,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: bool,
    /// How events are delivered.
    pub delivery: DeliveryOptions,
    /// Where it stands.
    pub state: IntegrationState,
    /// Whether it was told to wait. What it wants is kept as long as the log keeps it.
    pub paused: bool,
    /// Why it has failed.
    pub error: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the customer last changed it.
    pub updated_at: Timestamp,
    /// When the first message of a device was delivered. The management API calls it
    /// `lastSuccessfulMessageDelivery` although it is the first.
    pub first_delivery_at: Option<Timestamp>,
}

/// Where an integration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntegrationState {
    /// Created, and waiting for somebody to say where events go (AWS).
    RolloutStarted,
    /// Created, nothing delivered yet.
    RolloutDone,
    /// Nobody said in time where events go (AWS).
    RolloutFailed,
    /// Delivered at least once.
    IntegrationActive,
    /// Stopped after failures; a restart starts it again.
    IntegrationFailed,
}

/// An integration to be created.
#[derive(Debug, Clone)]
pub struct NewIntegration {
    /// 1 to 128 characters.
    pub name: String,
    /// Where events go.
    pub target: Target,
    /// Names of event types and their versions; no version means the newest.
    pub event_types: Vec<(String, Option<String>)>,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: bool,
    /// How events are delivered.
    pub delivery: DeliveryOptions,
}

/// The result of a test or of a restart: a failure is an answer, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// Whether the endpoint took the TEST_MESSAGE.
    pub success: bool,
    /// What happened, for a person.
    pub message: String,
}

/// Why a configuration is refused. The customer is at fault.
#[derive(Debug, Error)]
pub enum InvalidIntegration {
    /// The name is empty or too long.
    #[error("name has {0} characters, allowed: 1 to {NAME_CHARS_MAX}")]
    Name(usize),
    /// What a webhook is to be.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A broker, or AWS IoT Core by MQTT.
    #[error(transparent)]
    Mqtt(#[from] MqttEndpointError),
    /// AWS IoT Core by its HTTPS API.
    #[error(transparent)]
    Aws(#[from] InvalidAws),
    /// E-mail.
    #[error(transparent)]
    Email(#[from] InvalidEmail),
    /// The list of event types.
    #[error(transparent)]
    EventTypes(#[from] EventTypesError),
    /// How events are to be delivered.
    #[error(transparent)]
    Delivery(#[from] InvalidDeliveryOptions),
    /// The external id of a role is the id of another integration, whose role that is.
    #[error(
        "externalId is the id of another integration, allowed: the id of this one (which it is \
         without externalId), or any other text"
    )]
    ExternalId,
    /// A rollout that names no role.
    #[error("a rollout needs roleArn: the role that the gateway is to assume")]
    NoRole,
    /// A change that only another kind of integration knows.
    #[error("an integration of type {kind} has no {what}")]
    Kind {
        /// The kind that it has.
        kind: &'static str,
        /// What was to be changed.
        what: &'static str,
    },
}

/// Why an integration could not be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidIntegration),
    /// Another integration has the same target.
    #[error("another integration has this url already (of a broker: with this client id)")]
    Conflict,
    /// There are as many as there may be.
    #[error("{0} integrations exist, which is the limit")]
    TooMany(usize),
    /// The state file. We are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an integration could not be changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// No such integration, or no such replay.
    #[error("no integration has the id {0:?}")]
    NotFound(String),
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidIntegration),
    /// Another integration has the same target.
    #[error("another integration has this url already (of a broker: with this client id)")]
    Conflict,
    /// Not in this state.
    #[error("the integration is {found}, allowed: {allowed}")]
    State {
        /// The state that it is in.
        found: IntegrationState,
        /// The states that it could be in.
        allowed: &'static str,
    },
    /// The state file. We are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TestReport {
    pub(crate) fn failed(what: &str, reason: &impl fmt::Display) -> Self {
        Self { success: false, message: format!("{what} failed, {reason}") }
    }
}

impl Integration {
    /// Where a role is to be assumed and nothing else is said, the integration is its external id:
    /// so the role is of no use to another integration of the same gateway (docs/aws.md).
    pub(crate) fn own_external_id(&mut self) {
        let Target::Aws(AwsTarget { transport, .. }) = &mut self.target else { return };
        if let AwsTransport::Sdk { role_arn: Some(_), external_id: external_id @ None } = transport
        {
            *external_id = Some(self.id.clone());
        }
    }

    /// What a role asks for beside the gateway's identity.
    pub(crate) fn external_id(&self) -> Option<&str> {
        match &self.target {
            Target::Aws(AwsTarget { transport: AwsTransport::Sdk { external_id, .. }, .. }) => {
                external_id.as_deref()
            }
            _ => None,
        }
    }

    /// Whether where its events go is another place than `before`, or was not checked then.
    pub(crate) fn needs_check_after(&self, before: &Self) -> bool {
        self.target != before.target
            || self.state != before.state
            || self.delivery.batch.is_some() != before.delivery.batch.is_some()
            || self.event_types != before.event_types
    }
}

impl IntegrationState {
    const ALL: [Self; 5] = [
        Self::RolloutStarted,
        Self::RolloutDone,
        Self::RolloutFailed,
        Self::IntegrationActive,
        Self::IntegrationFailed,
    ];

    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RolloutStarted => "ROLLOUT_STARTED",
            Self::RolloutDone => "ROLLOUT_DONE",
            Self::RolloutFailed => "ROLLOUT_FAILED",
            Self::IntegrationActive => "INTEGRATION_ACTIVE",
            Self::IntegrationFailed => "INTEGRATION_FAILED",
        }
    }

    /// Whether events are delivered in it.
    pub const fn delivers(self) -> bool {
        matches!(self, Self::RolloutDone | Self::IntegrationActive)
    }

    /// From the name of [`IntegrationState::as_str`].
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Checks a customer's name for an integration.
pub(crate) fn check_name(name: &str) -> Result<(), InvalidIntegration> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(()),
        other => Err(InvalidIntegration::Name(other)),
    }
}

/// Reads a list of event types as the management API receives it.
pub fn parse_event_types(
    list: &[(String, Option<String>)],
) -> Result<EventTypes, InvalidIntegration> {
    let pairs = list.iter().map(|(name, version)| (name.as_str(), version.as_deref()));
    Ok(EventTypes::parse(pairs)?)
}

impl fmt::Display for IntegrationState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_128_characters() {
        check_name(&"ä".repeat(128)).unwrap();
        for (name, chars) in [(String::new(), 0), ("x".repeat(129), 129)] {
            let refused = check_name(&name).unwrap_err();
            assert!(matches!(refused, InvalidIntegration::Name(found) if found == chars));
        }
    }

    #[test]
    fn state_names_come_back() {
        for state in IntegrationState::ALL {
            assert_eq!(IntegrationState::from_name(state.as_str()), Some(state));
        }
        assert_eq!(IntegrationState::from_name("x"), None);
    }
}
