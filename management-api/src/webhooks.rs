//! Integrations by webhook.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{DeliveryOptions, NewIntegration, Target, TestReport, WebhookTarget};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody};
use crate::integrations::{
    IntegrationChange, IntegrationDetails, WantedEventType, apply, change_error, create_error,
    wanted,
};

/// A webhook to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct WebhookCreate {
    /// The customer's name for it.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Where events go: `https`, with placeholders `:iccid:`, `:imsi:`, `:ip:`.
    #[schema(example = "https://example.com/events?iccid=:iccid:")]
    url: String,
    /// Headers of each request, with placeholders in their values.
    headers: BTreeMap<String, String>,
    /// What it wants, at least one.
    #[schema(min_items = 1)]
    event_types: Vec<WantedEventType>,
    /// Whether payloads that are valid JSON are sent as JSON.
    #[serde(default)]
    json_payload_enabled: bool,
}

/// The outcome of a test. A failure of the webhook is an answer, not an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookTest {
    /// `SUCCESS` or `FAILURE`.
    #[schema(example = "SUCCESS")]
    test_status: &'static str,
    /// What happened.
    #[schema(example = "Test was successful")]
    message: String,
}

/// The outcome of a restart.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookRestart {
    /// The webhook as it is now.
    integration: IntegrationDetails,
    /// `SUCCESS` or `FAILURE`.
    #[schema(example = "SUCCESS")]
    restart_status: &'static str,
    /// What happened.
    #[schema(example = "Restart was successful")]
    message: String,
}

/// Create a webhook. It gets what is received from now on.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/webhooks",
    operation_id = "createWebhook", tag = "Cloud Integrator",
    request_body = WebhookCreate,
    responses(
        (status = 201, description = "The webhook.", body = IntegrationDetails),
        (status = 409, description = "Another webhook has the URL, or there are too many.",
            body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<WebhookCreate>,
) -> Result<(StatusCode, Json<IntegrationDetails>), ApiError> {
    let WebhookCreate { name, url, headers, event_types, json_payload_enabled } = new;
    let event_types = wanted(event_types);
    let target = Target::Webhook(WebhookTarget { url, headers, ..WebhookTarget::default() });
    let delivery = DeliveryOptions::default();
    let new = NewIntegration { name, target, event_types, json_payload_enabled, delivery };
    let created = api.services().integrations.create(new).await.map_err(create_error)?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// Change a webhook. Its name cannot be changed.
#[utoipa::path(
    patch, path = "/v1/integrate/clouds/webhooks/{integrationId}",
    operation_id = "changeWebhook", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    request_body = IntegrationChange,
    responses(
        (status = 200, description = "The webhook as it is now.", body = IntegrationDetails),
        (status = 409, description = "Another webhook has the URL.", body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<IntegrationChange>,
) -> Result<Json<IntegrationDetails>, ApiError> {
    apply(&api, &id, change).await.map(Json)
}

/// Send a TEST_MESSAGE to a webhook. Its state does not change.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/webhooks/{integrationId}/test",
    operation_id = "testWebhook", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses((status = 200, description = "The outcome.", body = WebhookTest))
)]
pub(crate) async fn test(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<WebhookTest>, ApiError> {
    let report = api.services().integrations.test(&id).await.map_err(change_error)?;
    Ok(Json(WebhookTest { test_status: status_of(&report), message: report.message }))
}

/// Start a failed webhook again, if it takes a TEST_MESSAGE.
#[utoipa::path(
    post, path = "/v1/integrate/clouds/webhooks/{integrationId}/restart",
    operation_id = "restartWebhook",
    tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The webhook's id.")),
    responses(
        (status = 200, description = "The outcome.", body = WebhookRestart),
        (status = 409, description = "The webhook has not failed.", body = ErrorBody),
    )
)]
pub(crate) async fn restart(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<WebhookRestart>, ApiError> {
    let restarted = api.services().integrations.restart(&id).await;
    let (integration, report) = restarted.map_err(change_error)?;
    Ok(Json(WebhookRestart {
        integration: integration.into(),
        restart_status: status_of(&report),
        message: report.message,
    }))
}

fn status_of(report: &TestReport) -> &'static str {
    if report.success { "SUCCESS" } else { "FAILURE" }
}
