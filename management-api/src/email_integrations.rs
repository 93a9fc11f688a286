//! Integrations by e-mail: simgate's own, because the documented platform has none.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{
    EmailTarget, EventType, Integration as StoredIntegration, InvalidIntegration, NewIntegration,
    Target,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody};
use crate::integration_details::IntegrationDetails;
use crate::integration_options::{CommonChange, DeliveryChange, set};
use crate::integrations::{WantedEventType, apply, make, of_kind, wanted};

/// An integration by e-mail to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EmailCreate {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What it wants, at least one and not `TELEMETRY_DATA`; without it `GEOFENCE`.
    #[schema(min_items = 1)]
    event_types: Option<Vec<WantedEventType>>,
    /// Who gets the mails, 1 to 10.
    #[schema(min_items = 1, max_items = 10, example = json!(["alerts@example.com"]))]
    recipients: Vec<String>,
    /// How events are delivered. What comes at about the same time is one mail: `batch` is 50
    /// events and 5,000 milliseconds by default, and `null` for a mail each.
    delivery: Option<DeliveryChange>,
    /// Whether it waits from the beginning, until it is resumed.
    #[serde(default)]
    paused: bool,
}

/// A change of an integration by e-mail; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EmailChange {
    /// All event types anew, at least one; not `TELEMETRY_DATA`.
    event_types: Option<Vec<WantedEventType>>,
    /// All recipients anew, 1 to 10.
    recipients: Option<Vec<String>>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Whether the integration waits. What it wants is kept meanwhile.
    paused: Option<bool>,
}

impl EmailChange {
    fn make(self, integration: &mut StoredIntegration) -> Result<(), InvalidIntegration> {
        let (event_types, delivery) = (self.event_types, self.delivery);
        CommonChange { event_types, json_payload_enabled: None, delivery }.make(integration)?;
        let kind = integration.target.kind();
        let Target::Email(email) = &mut integration.target else {
            return Err(InvalidIntegration::Kind { kind, what: "recipients" });
        };
        set(&mut email.recipients, self.recipients);
        Ok(())
    }
}

/// Create an integration by e-mail. It gets what is received from now on.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/email",
    operation_id = "createEmailIntegration", tag = "simgate",
    request_body = EmailCreate,
    responses(
        (status = 201, description = "The integration.", body = IntegrationDetails),
        (status = 409, description = "There are too many.", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<EmailCreate>,
) -> Result<(StatusCode, Json<IntegrationDetails>), ApiError> {
    let integration = NewIntegration {
        name: new.name,
        target: Target::Email(EmailTarget { recipients: new.recipients }),
        event_types: new.event_types.map_or_else(crossings, wanted),
        json_payload_enabled: false,
        delivery: DeliveryChange::options_by(EmailTarget::delivery(), new.delivery),
    };
    make(&api, integration, new.paused).await
}

/// What people are told where nobody says what: who comes and goes.
fn crossings() -> Vec<(String, Option<String>)> {
    vec![(EventType::Geofence.to_string(), None)]
}

/// Change an integration by e-mail. Its name cannot be changed.
#[utoipa::path(
    patch, path = "/simgate/v1/integrations/email/{integrationId}",
    operation_id = "changeEmailIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    request_body = EmailChange,
    responses((status = 200, description = "The integration as it is now.", body = IntegrationDetails))
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<EmailChange>,
) -> Result<Json<IntegrationDetails>, ApiError> {
    of_kind(&api, &id, "EMAIL").await?;
    let paused = change.paused;
    let edit = |integration: &mut StoredIntegration| change.make(integration);
    apply(&api, &id, paused, edit).await.map(Json)
}
