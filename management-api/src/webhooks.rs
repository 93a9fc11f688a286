//! Integrations by webhook.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{NewIntegration, SigningKind, Target, WebhookTarget};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody};
use crate::integration_details::IntegrationDetails;
use crate::integration_options::{DeliveryChange, TlsChange};
use crate::integrations::{IntegrationChange, WantedEventType, change_any, make, of_kind, wanted};
use crate::webhook_signing::new_key;

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
    /// Whether bodies are compressed.
    #[serde(default)]
    gzip: bool,
    /// What TLS needs beside the system's authorities.
    tls: Option<TlsChange>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Whether it waits from the beginning, until it is resumed.
    #[serde(default)]
    paused: bool,
}

/// Create a webhook. It gets what is received from now on.
///
/// Its requests are signed with a new shared secret, which `getSigning` shows.
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
    let target = WebhookTarget {
        url: new.url,
        headers: new.headers,
        gzip: new.gzip,
        signing: new_key(SigningKind::Hmac)?,
        tls: TlsChange::tls(new.tls),
    };
    let integration = NewIntegration {
        name: new.name,
        target: Target::Webhook(target),
        event_types: wanted(new.event_types),
        json_payload_enabled: new.json_payload_enabled,
        delivery: DeliveryChange::options(new.delivery),
    };
    make(&api, integration, new.paused).await
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
    of_kind(&api, &id, "WEBHOOK").await?;
    change_any(&api, &id, change).await.map(Json)
}
