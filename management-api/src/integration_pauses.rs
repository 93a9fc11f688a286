//! Letting integrations wait and go on.

use axum::Json;
use axum::extract::State;

use crate::api::ManagementApi;
use crate::error::ApiError;
use crate::extract::Id;
use crate::integration_details::IntegrationDetails;
use crate::integration_errors::change_error;

/// Let an integration wait. What it wants is kept as long as messages are kept.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/{integrationId}/pause",
    operation_id = "pauseIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "The integration, which waits.",
        body = IntegrationDetails))
)]
pub(crate) async fn pause(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationDetails>, ApiError> {
    let paused = api.services().integrations.pause(&id).await;
    paused.map(|integration| Json(integration.into())).map_err(change_error)
}

/// Let an integration go on, from the oldest message that is kept for it.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/{integrationId}/resume",
    operation_id = "resumeIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "The integration, which goes on.",
        body = IntegrationDetails))
)]
pub(crate) async fn resume(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationDetails>, ApiError> {
    let resumed = api.services().integrations.resume(&id).await;
    resumed.map(|integration| Json(integration.into())).map_err(change_error)
}
