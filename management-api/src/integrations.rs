//! Integrations of any kind.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{
    ClientTls, EVENT_VERSION, Integration as StoredIntegration, InvalidIntegration, NewIntegration,
    Target,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{ManagementApi, to_the_end};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody, Params, present};
use crate::integration_details::IntegrationDetails;
use crate::integration_errors::{change_error, create_error};
use crate::integration_options::{CommonChange, DeliveryChange, TlsChange, set};
use crate::paging::{Page, PageRequest};

/// The documented limit of devices on a page serves here too.
const PAGE_SIZE_MAX: u32 = 50;

/// An integration.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Integration {
    /// The id: 21 characters.
    #[schema(example = "AP3dIUs3c7_Oo2yJYaXWg")]
    id: String,
    /// The customer's name for it.
    name: String,
    /// `WEBHOOK`, `AWS`, `MQTT` or `EMAIL`.
    #[serde(rename = "type")]
    #[schema(example = "WEBHOOK")]
    kind: &'static str,
    /// `ROLLOUT_STARTED` and `ROLLOUT_FAILED` (AWS alone), `ROLLOUT_DONE`, `INTEGRATION_ACTIVE` or
    /// `INTEGRATION_FAILED`.
    #[schema(example = "INTEGRATION_ACTIVE")]
    state: &'static str,
    /// What it wants.
    event_types: Vec<EventTypeVersion>,
    /// Whether payloads that are valid JSON are sent as JSON.
    json_payload_enabled: bool,
    /// When it was created, in UTC.
    created_time: String,
    /// When the customer last changed it, in UTC.
    updated_time: String,
    /// When the first message of a device was delivered, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_successful_message_delivery: Option<String>,
}

/// A type of event that an integration wants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventTypeVersion {
    /// `TELEMETRY_DATA`, `LIFECYCLE`, `ERROR`, `GEOFENCE` or `LOCATION`.
    #[serde(rename = "type")]
    #[schema(example = "TELEMETRY_DATA")]
    kind: &'static str,
    /// The version of its shape.
    #[schema(example = "1.0.0")]
    version: &'static str,
}

/// A type of event that an integration is to get.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedEventType {
    /// `TELEMETRY_DATA`, `LIFECYCLE`, `ERROR`, `GEOFENCE` or `LOCATION`.
    #[serde(rename = "type")]
    #[schema(example = "TELEMETRY_DATA")]
    kind: String,
    /// The version of its shape; without it the newest.
    #[schema(example = "1.0.0")]
    version: Option<String>,
}

/// A change of an integration; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IntegrationChange {
    /// Where events go: of a webhook `https`, with placeholders `:iccid:`, `:imsi:`, `:ip:`.
    url: Option<String>,
    /// All headers anew, with placeholders in their values. Of a webhook.
    headers: Option<BTreeMap<String, String>>,
    /// All event types anew, at least one.
    event_types: Option<Vec<WantedEventType>>,
    /// Whether payloads that are valid JSON are sent as JSON.
    json_payload_enabled: Option<bool>,
    /// Whether bodies are compressed. Of a webhook.
    gzip: Option<bool>,
    /// What TLS needs beside the system's authorities; `null` for nothing. Not of AWS.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<TlsChange>)]
    tls: Option<Option<TlsChange>>,
    /// How events are delivered.
    delivery: Option<DeliveryChange>,
    /// Whether the integration waits. What it wants is kept meanwhile.
    paused: Option<bool>,
}

/// Every type of event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventTypeList {
    /// The types.
    event_types: Vec<EventTypeEntry>,
}

/// A type of event with an example.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventTypeEntry {
    /// The name.
    #[schema(example = "TELEMETRY_DATA")]
    name: &'static str,
    /// What triggers it.
    description: &'static str,
    /// The version of its shape.
    version: &'static str,
    /// An example of the whole event.
    #[schema(value_type = Object)]
    payload: serde_json::Value,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Integrations on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

impl IntegrationChange {
    fn make(self, integration: &mut StoredIntegration) -> Result<(), InvalidIntegration> {
        let Self { url, headers, event_types, json_payload_enabled, gzip, tls, delivery, .. } =
            self;
        CommonChange { event_types, json_payload_enabled, delivery }.make(integration)?;
        let kind = integration.target.kind();
        let refuse = |what| Err(InvalidIntegration::Kind { kind, what });
        match &mut integration.target {
            Target::Webhook(webhook) => {
                set(&mut webhook.url, url);
                set(&mut webhook.headers, headers);
                set(&mut webhook.gzip, gzip);
                change_tls(&mut webhook.tls, tls);
            }
            _ if headers.is_some() => return refuse("headers"),
            _ if gzip.is_some() => return refuse("gzip"),
            Target::Mqtt(broker) => {
                set(&mut broker.url, url);
                change_tls(&mut broker.tls, tls);
            }
            Target::Aws(_) | Target::Email(_) if url.is_some() => return refuse("url"),
            Target::Aws(_) | Target::Email(_) if tls.is_some() => return refuse("tls"),
            Target::Aws(_) | Target::Email(_) => {}
        }
        Ok(())
    }
}

impl From<StoredIntegration> for Integration {
    fn from(stored: StoredIntegration) -> Self {
        let types = stored.event_types.iter();
        Self {
            kind: stored.target.kind(),
            event_types: types
                .map(|kind| EventTypeVersion { kind: kind.as_str(), version: EVENT_VERSION })
                .collect(),
            id: stored.id,
            name: stored.name,
            state: stored.state.as_str(),
            json_payload_enabled: stored.json_payload_enabled,
            created_time: stored.created_at.to_string(),
            updated_time: stored.updated_at.to_string(),
            last_successful_message_delivery: stored.first_delivery_at.map(|at| at.to_string()),
        }
    }
}

/// List integrations.
#[utoipa::path(
    get, path = "/v1/integrate/clouds",
    operation_id = "listIntegrations", tag = "Cloud Integrator", params(ListParams),
    responses((status = 200, description = "A page of integrations.", body = Page<Integration>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size }): Params<ListParams>,
) -> Result<Json<Page<Integration>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let all = api.services().integrations.list().await;
    let all = all.map_err(|error| ApiError::internal("listing integrations", error))?;
    Ok(Json(request.slice(all).map(Integration::from)))
}

/// One integration.
#[utoipa::path(
    get, path = "/v1/integrate/clouds/{integrationId}",
    operation_id = "getIntegration", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "The integration.", body = IntegrationDetails))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationDetails>, ApiError> {
    let found = api.services().integrations.find(&id).await;
    let found = found.map_err(|error| ApiError::internal("finding an integration", error))?;
    found.map(|stored| Json(stored.into())).ok_or_else(|| ApiError::not_found("integration", id))
}

/// Change an integration. Its name cannot be changed.
#[utoipa::path(
    patch, path = "/v1/integrate/clouds/{integrationId}",
    operation_id = "changeIntegration", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    request_body = IntegrationChange,
    responses(
        (status = 200, description = "The integration as it is now.", body = IntegrationDetails),
        (status = 409, description = "Another webhook has the URL.", body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(change): JsonBody<IntegrationChange>,
) -> Result<Json<IntegrationDetails>, ApiError> {
    change_any(&api, &id, change).await.map(Json)
}

/// Delete an integration. What waits for it is not delivered any more.
#[utoipa::path(
    delete, path = "/v1/integrate/clouds/{integrationId}",
    operation_id = "deleteIntegration", tag = "Cloud Integrator",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 204, description = "The integration is deleted."))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    let deleted = api.services().integrations.delete(&id).await;
    deleted.map(|()| StatusCode::NO_CONTENT).map_err(change_error)
}

/// Every type of event, with an example.
#[utoipa::path(
    get, path = "/v1/integrate/clouds/eventTypes",
    operation_id = "listEventTypes", tag = "Cloud Integrator",
    responses((status = 200, description = "The types.", body = EventTypeList))
)]
pub(crate) async fn event_types(State(api): State<ManagementApi>) -> Json<EventTypeList> {
    let entries = api.services().integrations.event_types().into_iter();
    let event_types = entries.map(|entry| EventTypeEntry {
        name: entry.name,
        description: entry.description,
        version: entry.version,
        payload: entry.payload,
    });
    Json(EventTypeList { event_types: event_types.collect() })
}

/// Changes an integration by what all kinds are documented to understand.
pub(crate) async fn change_any(
    api: &ManagementApi,
    id: &str,
    change: IntegrationChange,
) -> Result<IntegrationDetails, ApiError> {
    let paused = change.paused;
    apply(api, id, paused, |integration: &mut StoredIntegration| change.make(integration)).await
}

/// Changes an integration, then lets it wait or go on where that was asked for.
pub(crate) async fn apply(
    api: &ManagementApi,
    id: &str,
    paused: Option<bool>,
    edit: impl FnOnce(&mut StoredIntegration) -> Result<(), InvalidIntegration> + Send + 'static,
) -> Result<IntegrationDetails, ApiError> {
    let (integrations, id) = (api.services().integrations.clone(), id.to_owned());
    to_the_end("changing an integration", async move {
        let edited = integrations.edit(&id, edit).await.map_err(change_error)?;
        let changed = match paused {
            Some(true) => integrations.pause(&id).await.map_err(change_error)?,
            Some(false) => integrations.resume(&id).await.map_err(change_error)?,
            None => edited,
        };
        Ok(changed.into())
    })
    .await
}

/// Creates an integration that delivers, or waits where `paused`.
pub(crate) async fn make(
    api: &ManagementApi,
    new: NewIntegration,
    paused: bool,
) -> Result<(StatusCode, Json<IntegrationDetails>), ApiError> {
    let integrations = &api.services().integrations;
    let created =
        if paused { integrations.create_paused(new).await } else { integrations.create(new).await };
    created.map(|created| (StatusCode::CREATED, Json(created.into()))).map_err(create_error)
}

/// An integration of one kind: to the paths of the others it does not exist.
pub(crate) async fn of_kind(
    api: &ManagementApi,
    id: &str,
    kind: &str,
) -> Result<StoredIntegration, ApiError> {
    let found = api.services().integrations.find(id).await;
    let found = found.map_err(|error| ApiError::internal("finding an integration", error))?;
    found
        .filter(|integration| integration.target.kind() == kind)
        .ok_or_else(|| ApiError::not_found(&format!("integration of type {kind}"), id))
}

/// Changes what TLS needs; `Some(None)` removes it all.
pub(crate) fn change_tls(tls: &mut ClientTls, change: Option<Option<TlsChange>>) {
    match change {
        Some(Some(change)) => change.make(tls),
        Some(None) => *tls = ClientTls::default(),
        None => {}
    }
}

/// Event types as the integrator takes them.
pub(crate) fn wanted(list: Vec<WantedEventType>) -> Vec<(String, Option<String>)> {
    list.into_iter().map(|wanted| (wanted.kind, wanted.version)).collect()
}
