//! Where devices send to.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::Protocol;

use crate::api::ManagementApi;
use crate::error::ApiError;
use crate::extract::{Id, JsonBody, Params};
use crate::paging::{Page, PageRequest};
use crate::services::DeviceEndpoint;
use crate::settings;
use crate::switches::{Switch, Switches};

/// There are three protocols; the documented limit of devices on a page serves here too.
const PAGE_SIZE_MAX: u32 = 50;

/// Where devices send to by one protocol.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    /// `UDP`, `COAP` or `LWM2M`.
    #[schema(example = "COAP")]
    protocol: &'static str,
    /// Always true: what is listed, listens.
    active: bool,
    /// The name that devices look up.
    #[schema(example = "coap.gateway.example.com")]
    domain: String,
    /// The addresses behind it.
    ip_addresses: Vec<String>,
    /// The port without encryption.
    #[schema(example = 5683)]
    port: u16,
    /// The port with DTLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 5684)]
    secure_port: Option<u16>,
}

/// Where devices send to by one protocol, with its settings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointWithSettings {
    #[serde(flatten)]
    endpoint: Endpoint,
    /// What can be switched: of LWM2M `LWM2M_PASSIVE_REPORTING`, of the others nothing.
    settings: Vec<settings::Setting>,
}

/// A change of an endpoint's settings; those that are not named stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointChange {
    /// Accepted for the sake of clients; what listens is configured.
    #[serde(default)]
    #[expect(dead_code, reason = "it has no meaning here")]
    active: Option<bool>,
    /// The settings.
    settings: Vec<WantedSetting>,
}

/// A setting as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedSetting {
    /// Its name.
    #[schema(example = "LWM2M_PASSIVE_REPORTING")]
    name: String,
    /// `ENABLED` or `DISABLED`.
    #[schema(example = "ENABLED")]
    state: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Endpoints on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

impl From<DeviceEndpoint> for Endpoint {
    fn from(endpoint: DeviceEndpoint) -> Self {
        let DeviceEndpoint { protocol, domain, ip_addresses, port, secure_port } = endpoint;
        Self {
            protocol: protocol.as_str(),
            active: true,
            domain,
            ip_addresses: ip_addresses.iter().map(ToString::to_string).collect(),
            port,
            secure_port,
        }
    }
}

/// List where devices send to.
#[utoipa::path(
    get, path = "/v1/integrate/devices/endpoints",
    operation_id = "listEndpoints", tag = "Device endpoints", params(ListParams),
    responses((status = 200, description = "A page of endpoints.", body = Page<Endpoint>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size }): Params<ListParams>,
) -> Result<Json<Page<Endpoint>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let all = api.services().settings.endpoints.clone();
    Ok(Json(request.slice(all).map(Endpoint::from)))
}

/// Where devices send to by one protocol.
#[utoipa::path(
    get, path = "/v1/integrate/devices/endpoints/{protocol}",
    operation_id = "getEndpoint", tag = "Device endpoints",
    params(("protocol" = String, Path, description = "UDP, COAP or LWM2M.")),
    responses((status = 200, description = "The endpoint.", body = EndpointWithSettings))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(text): Id,
) -> Result<Json<EndpointWithSettings>, ApiError> {
    Ok(Json(shown(endpoint(&api, &text)?, &api.services().switches)))
}

/// Change the settings of an endpoint.
#[utoipa::path(
    patch, path = "/v1/integrate/devices/endpoints/{protocol}",
    operation_id = "changeEndpoint", tag = "Device endpoints", request_body = EndpointChange,
    params(("protocol" = String, Path, description = "UDP, COAP or LWM2M.")),
    responses((status = 200, description = "The endpoint.", body = EndpointWithSettings))
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(text): Id,
    JsonBody(change): JsonBody<EndpointChange>,
) -> Result<Json<EndpointWithSettings>, ApiError> {
    let endpoint = endpoint(&api, &text)?;
    let allowed = switches_of(endpoint.protocol);
    let mut wanted = Vec::new();
    for WantedSetting { name, state } in change.settings {
        let known = allowed.iter().find(|switch| switch.name() == name);
        let switch = known.ok_or_else(|| {
            let names: Vec<_> = allowed.iter().map(|switch| switch.name()).collect();
            ApiError::field("settings", format!("setting {name:?} is not known"), names.join(", "))
        })?;
        wanted.push((*switch, settings::is_on(&state)?));
    }
    settings::turn(&api, wanted).await?;
    Ok(Json(shown(endpoint, &api.services().switches)))
}

fn endpoint(api: &ManagementApi, text: &str) -> Result<DeviceEndpoint, ApiError> {
    let protocol = text.parse::<Protocol>().ok();
    let endpoints = &api.services().settings.endpoints;
    let found = endpoints.iter().find(|endpoint| Some(endpoint.protocol) == protocol);
    found.cloned().ok_or_else(|| ApiError::not_found("endpoint", text))
}

fn switches_of(protocol: Protocol) -> &'static [Switch] {
    match protocol {
        Protocol::Lwm2m => &[Switch::Lwm2mPassiveReporting],
        Protocol::Udp | Protocol::Coap => &[],
    }
}

fn shown(endpoint: DeviceEndpoint, switches: &Switches) -> EndpointWithSettings {
    let settings = switches_of(endpoint.protocol).iter().map(|switch| settings::Setting {
        name: switch.name(),
        description: settings::purpose(*switch),
        state: settings::state(switches, *switch),
    });
    EndpointWithSettings { settings: settings.collect(), endpoint: endpoint.into() }
}
