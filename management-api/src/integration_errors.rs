//! Why integrations are not created or changed, in the words of the API.

use axum::http::StatusCode;
use cloud_integrator::{
    ChangeError, CreateError, InvalidAws, InvalidEmail, InvalidIntegration, MqttEndpointError,
    SigningError, WebhookError,
};

use crate::error::{ApiError, ErrorDetail};

/// Why an integration was not created.
pub(crate) fn create_error(error: CreateError) -> ApiError {
    match error {
        CreateError::Invalid(invalid) => invalid_error(&invalid),
        CreateError::Conflict | CreateError::TooMany(_) => ApiError::conflict(error.to_string()),
        CreateError::Store(error) => ApiError::internal("creating an integration", error),
    }
}

/// Why an integration was not changed.
pub(crate) fn change_error(error: ChangeError) -> ApiError {
    match error {
        ChangeError::NotFound(id) => ApiError::not_found("integration", id),
        ChangeError::Invalid(invalid) => invalid_error(&invalid),
        ChangeError::Conflict | ChangeError::State { .. } => ApiError::conflict(error.to_string()),
        ChangeError::Store(error) => ApiError::internal("changing an integration", error),
    }
}

/// A configuration that is refused; its text says what is allowed.
fn invalid_error(invalid: &InvalidIntegration) -> ApiError {
    let field = match invalid {
        InvalidIntegration::Name(_) => Some("name"),
        InvalidIntegration::EventTypes(_) => Some("eventTypes"),
        InvalidIntegration::Delivery(_) => Some("delivery"),
        InvalidIntegration::Webhook(WebhookError::Setup(_)) => {
            return ApiError::internal("setting up the client of a webhook", invalid);
        }
        InvalidIntegration::Webhook(WebhookError::Signing(SigningError::TooMany)) => {
            return ApiError::conflict(invalid.to_string());
        }
        InvalidIntegration::Webhook(error) => field_of_webhook(error),
        InvalidIntegration::Mqtt(error) => field_of_broker(error),
        InvalidIntegration::Email(InvalidEmail::NoServer) => None,
        InvalidIntegration::Email(InvalidEmail::Telemetry) => Some("eventTypes"),
        InvalidIntegration::Email(_) => Some("recipients"),
        InvalidIntegration::Aws(error) => field_of_aws(error),
        InvalidIntegration::ExternalId => Some("externalId"),
        InvalidIntegration::NoRole => Some("roleArn"),
        InvalidIntegration::Kind { .. } => None,
    };
    let mut detail = ErrorDetail::new(invalid.to_string());
    detail.field = field.map(str::to_owned);
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

fn field_of_webhook(error: &WebhookError) -> Option<&'static str> {
    match error {
        WebhookError::Tls(_) => Some("tls"),
        WebhookError::Signing(_) => Some("secret"),
        // Its text names the URL or the header.
        WebhookError::Endpoint(_) | WebhookError::Setup(_) => None,
    }
}

fn field_of_broker(error: &MqttEndpointError) -> Option<&'static str> {
    match error {
        MqttEndpointError::Scheme(_)
        | MqttEndpointError::Plain
        | MqttEndpointError::WebSocket(_) => Some("url"),
        MqttEndpointError::ClientId(_) => Some("clientId"),
        MqttEndpointError::PasswordAlone => Some("username"),
        MqttEndpointError::Credential(name) => Some(name),
        MqttEndpointError::Connections(_) => Some("connections"),
        MqttEndpointError::Rate => Some("publishesPerSecond"),
        MqttEndpointError::AwsEndpoint | MqttEndpointError::AwsPort { .. } => Some("endpoint"),
        MqttEndpointError::AwsCertificate(name) => Some(name),
        MqttEndpointError::Topics(_) => Some("topics"),
        MqttEndpointError::Payload(_) => Some("payload"),
        MqttEndpointError::Tls(_) => Some("tls"),
        // Of the URL of a broker, or of the endpoint at AWS.
        MqttEndpointError::UrlTooLong(_)
        | MqttEndpointError::Url(_)
        | MqttEndpointError::UserInfo
        | MqttEndpointError::Path
        | MqttEndpointError::Host(_)
        | MqttEndpointError::Blocked(_)
        | MqttEndpointError::NotMqtt => None,
    }
}

fn field_of_aws(error: &InvalidAws) -> Option<&'static str> {
    match error {
        InvalidAws::Region(_) => Some("region"),
        InvalidAws::Role(_) => Some("roleArn"),
        InvalidAws::ExternalId(_) => Some("externalId"),
        InvalidAws::Endpoint(_) | InvalidAws::Foreign { .. } | InvalidAws::Blocked(_) => {
            Some("endpoint")
        }
        InvalidAws::Transport => Some("transport"),
    }
}
