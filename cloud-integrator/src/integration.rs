//! What a customer configures: an integration, and the forms in which one is asked for.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;
use vocabulary::Timestamp;

use crate::event_type::{EventTypes, EventTypesError};
use crate::store::StoreError;
use crate::webhook::EndpointError;

/// The longest name, as documented.
pub const NAME_CHARS_MAX: usize = 128;

/// A configured integration.
#[derive(Clone, PartialEq, Eq)]
pub struct Integration {
    /// 21 characters, made at creation.
    pub id: String,
    /// The customer's name for it.
    pub name: String,
    /// Where events go, as the customer wrote it.
    pub url: String,
    /// The customer's headers; values are secrets.
    pub headers: BTreeMap<String, String>,
    /// What it wants.
    pub event_types: EventTypes,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: bool,
    /// Where it stands.
    pub state: IntegrationState,
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
    /// Created, nothing delivered yet.
    RolloutDone,
    /// Delivered at least once.
    IntegrationActive,
    /// Stopped after failures; a restart starts it again.
    IntegrationFailed,
}

/// A webhook to be created.
#[derive(Clone, Default)]
pub struct NewWebhook {
    /// 1 to 128 characters.
    pub name: String,
    /// `https`, with placeholders in path and query.
    pub url: String,
    /// Custom headers, with placeholders in their values.
    pub headers: BTreeMap<String, String>,
    /// Names of event types and their versions; no version means the newest.
    pub event_types: Vec<(String, Option<String>)>,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: bool,
}

/// A change to a webhook; `None` leaves a field as it is.
#[derive(Clone, Default)]
pub struct WebhookPatch {
    /// A new URL.
    pub url: Option<String>,
    /// All headers anew.
    pub headers: Option<BTreeMap<String, String>>,
    /// All event types anew.
    pub event_types: Option<Vec<(String, Option<String>)>>,
    /// Whether payloads that are valid JSON are sent as JSON.
    pub json_payload_enabled: Option<bool>,
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
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidWebhook {
    /// The name is empty or too long.
    #[error("name has {0} characters, allowed: 1 to {NAME_CHARS_MAX}")]
    Name(usize),
    /// The URL or a header.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The list of event types.
    #[error(transparent)]
    EventTypes(#[from] EventTypesError),
}

/// Why an integration could not be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidWebhook),
    /// Another webhook has the same URL.
    #[error("the url is already used by another webhook")]
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
    /// No such integration.
    #[error("no integration has the id {0:?}")]
    NotFound(String),
    /// A field is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidWebhook),
    /// Another webhook has the same URL.
    #[error("the url is already used by another webhook")]
    Conflict,
    /// A restart of an integration that has not failed.
    #[error("the integration is {0}, only INTEGRATION_FAILED can be restarted")]
    NotFailed(IntegrationState),
    /// The state file. We are at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Integration {
    /// The kind of cloud: webhooks are the only one so far.
    pub const fn kind(&self) -> &'static str {
        "WEBHOOK"
    }
}

impl IntegrationState {
    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RolloutDone => "ROLLOUT_DONE",
            Self::IntegrationActive => "INTEGRATION_ACTIVE",
            Self::IntegrationFailed => "INTEGRATION_FAILED",
        }
    }

    /// From the name of [`IntegrationState::as_str`].
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::RolloutDone, Self::IntegrationActive, Self::IntegrationFailed]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// Checks a customer's name for an integration.
pub(crate) fn check_name(name: &str) -> Result<(), InvalidWebhook> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(()),
        other => Err(InvalidWebhook::Name(other)),
    }
}

/// Reads a list of event types as the management API receives it.
pub(crate) fn parse_event_types(
    list: &[(String, Option<String>)],
) -> Result<EventTypes, InvalidWebhook> {
    let pairs = list.iter().map(|(name, version)| (name.as_str(), version.as_deref()));
    Ok(EventTypes::parse(pairs)?)
}

impl fmt::Display for IntegrationState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// URLs and headers carry secrets, so `Debug` shows neither.
impl fmt::Debug for Integration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Integration")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("event_types", &self.event_types)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewWebhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NewWebhook")
            .field("name", &self.name)
            .field("event_types", &self.event_types)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WebhookPatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WebhookPatch")
            .field("url", &self.url.is_some())
            .field("headers", &self.headers.is_some())
            .field("event_types", &self.event_types)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_128_characters() {
        assert_eq!(check_name(""), Err(InvalidWebhook::Name(0)));
        assert_eq!(check_name(&"ä".repeat(128)), Ok(()));
        assert_eq!(
            check_name(&"x".repeat(129)).unwrap_err().to_string(),
            "name has 129 characters, allowed: 1 to 128"
        );
    }

    #[test]
    fn state_names_come_back() {
        let state = IntegrationState::IntegrationFailed;
        assert_eq!(IntegrationState::from_name(state.as_str()), Some(state));
        assert_eq!(IntegrationState::from_name("x"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let webhook = NewWebhook {
            url: "https://h/s3cret".to_owned(),
            headers: [("x-api-key".to_owned(), "s3cret".to_owned())].into(),
            ..NewWebhook::default()
        };
        assert!(!format!("{webhook:?}").contains("s3cret"));
    }
}
