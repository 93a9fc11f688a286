//! Tests and restarts of integrations: one way for all kinds, each kind below paths of its own.

use axum::Json;
use axum::extract::State;
use cloud_integrator::TestReport;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::Id;
use crate::integration_details::IntegrationDetails;
use crate::integration_errors::change_error;
use crate::integrations::of_kind;

/// The outcome of a test. A failure of the other side is an answer, not an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationTest {
    /// `SUCCESS` or `FAILURE`.
    #[schema(example = "SUCCESS")]
    test_status: &'static str,
    /// What happened.
    #[schema(example = "Test was successful")]
    message: String,
}

/// The outcome of a restart.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationRestart {
    /// The integration as it is now.
    integration: IntegrationDetails,
    /// `SUCCESS` or `FAILURE`.
    #[schema(example = "SUCCESS")]
    restart_status: &'static str,
    /// What happened.
    #[schema(example = "Restart was successful")]
    message: String,
}

/// Send a TEST_MESSAGE to a webhook. Its state does not change.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/webhooks/{integrationId}/test",
    operation_id = "testWebhook", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses((status = 200, description = "The outcome.", body = IntegrationTest))
)]
pub(crate) async fn test_webhook(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationTest>, ApiError> {
    test(&api, &id, "WEBHOOK").await
}

/// Start a failed webhook again, if it takes a TEST_MESSAGE.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/webhooks/{integrationId}/restart",
    operation_id = "restartWebhook",
    tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses(
        (status = 200, description = "The outcome.", body = IntegrationRestart),
        (status = 409, description = "The webhook has not failed.", body = ErrorBody),
    )
)]
pub(crate) async fn restart_webhook(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationRestart>, ApiError> {
    restart(&api, &id, "WEBHOOK").await
}

/// Send a TEST_MESSAGE to AWS. The state of the integration does not change.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/aws/{integrationId}/test",
    operation_id = "testAwsIntegration", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses(
        (status = 200, description = "The outcome.", body = IntegrationTest),
        (status = 409, description = "The rollout is not done.", body = ErrorBody),
    )
)]
pub(crate) async fn test_aws(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationTest>, ApiError> {
    test(&api, &id, "AWS").await
}

/// Start a failed AWS integration again, if AWS takes a TEST_MESSAGE.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/aws/{integrationId}/restart",
    operation_id = "restartAwsIntegration", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses(
        (status = 200, description = "The outcome.", body = IntegrationRestart),
        (status = 409, description = "The integration has not failed.", body = ErrorBody),
    )
)]
pub(crate) async fn restart_aws(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationRestart>, ApiError> {
    restart(&api, &id, "AWS").await
}

/// Send a TEST_MESSAGE to a broker. The state of the integration does not change.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/mqtt/{integrationId}/test",
    operation_id = "testMqttIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "The outcome.", body = IntegrationTest))
)]
pub(crate) async fn test_mqtt(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationTest>, ApiError> {
    test(&api, &id, "MQTT").await
}

/// Start a failed MQTT integration again, if the broker takes a TEST_MESSAGE.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/mqtt/{integrationId}/restart",
    operation_id = "restartMqttIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses(
        (status = 200, description = "The outcome.", body = IntegrationRestart),
        (status = 409, description = "The integration has not failed.", body = ErrorBody),
    )
)]
pub(crate) async fn restart_mqtt(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationRestart>, ApiError> {
    restart(&api, &id, "MQTT").await
}

/// Send a TEST_MESSAGE by e-mail. The state of the integration does not change.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/email/{integrationId}/test",
    operation_id = "testEmailIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "The outcome.", body = IntegrationTest))
)]
pub(crate) async fn test_email(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationTest>, ApiError> {
    test(&api, &id, "EMAIL").await
}

/// Start a failed integration by e-mail again, if the mail server takes a TEST_MESSAGE.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/email/{integrationId}/restart",
    operation_id = "restartEmailIntegration", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses(
        (status = 200, description = "The outcome.", body = IntegrationRestart),
        (status = 409, description = "The integration has not failed.", body = ErrorBody),
    )
)]
pub(crate) async fn restart_email(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationRestart>, ApiError> {
    restart(&api, &id, "EMAIL").await
}

async fn test(
    api: &ManagementApi,
    id: &str,
    kind: &str,
) -> Result<Json<IntegrationTest>, ApiError> {
    of_kind(api, id, kind).await?;
    let report = api.services().integrations.test(id).await.map_err(change_error)?;
    Ok(Json(IntegrationTest { test_status: status_of(&report), message: report.message }))
}

async fn restart(
    api: &ManagementApi,
    id: &str,
    kind: &str,
) -> Result<Json<IntegrationRestart>, ApiError> {
    of_kind(api, id, kind).await?;
    let restarted = api.services().integrations.restart(id).await;
    let (integration, report) = restarted.map_err(change_error)?;
    Ok(Json(IntegrationRestart {
        integration: integration.into(),
        restart_status: status_of(&report),
        message: report.message,
    }))
}

fn status_of(report: &TestReport) -> &'static str {
    if report.success { "SUCCESS" } else { "FAILURE" }
}
