//! What has become of requests to devices.

use axum::Json;
use axum::extract::State;
use device_controller::{
    Action, ActionResult, CancelError, PayloadType, Query, Request, RequestId, Shelf, SortField,
    Status,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::Protocol;

use crate::actions::{store_error, with_controller};
use crate::api::ManagementApi;
use crate::devices::{protocol, require_known};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{DeviceId, Id, Params, iccid};
use crate::paging::{self, Page, PageRequest};
use crate::sims::now;

/// The documented limit of devices on a page serves here too.
const PAGE_SIZE_MAX: u32 = 50;

/// A request to a device.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActionRequest {
    /// The id: 27 characters.
    #[schema(example = "2l0mG3WulN1SUvlIcHjvKXBeZk0")]
    id: String,
    /// `SCHEDULED`, `IN_PROGRESS`, `SUCCEEDED`, `FAILED` or `CANCELLED`.
    #[schema(example = "SUCCEEDED")]
    status: &'static str,
    /// The device.
    #[schema(example = "8988280666000002864")]
    device_id: String,
    /// The device's address when the request was made, where it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.1.2.3")]
    ip: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`.
    #[schema(example = "COAP")]
    protocol: &'static str,
    /// When it was made, in UTC.
    created: String,
    /// When it last changed, in UTC.
    updated: String,
    /// `SEND_NOW` or `SEND_WHEN_ACTIVE`.
    #[schema(example = "SEND_WHEN_ACTIVE")]
    mode: &'static str,
    /// What came of it, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_data: Option<ResultData>,
    /// What was asked.
    request_data: RequestData,
    /// How often it may still be sent.
    send_attempts_left: u8,
    /// How often it may be sent.
    send_attempts: u8,
}

/// What came of a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResultData {
    /// The code of the answer, three digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "205")]
    code: Option<String>,
    /// What the device answered: text, or base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// `TEXT` or `BASE64`; for CoAP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "TEXT")]
    payload_type: Option<&'static str>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

/// What was asked of a device.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestData {
    /// The LwM2M action.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    /// The LwM2M object, instance or resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_address: Option<String>,
    /// What the LwM2M action writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// What is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// `STRING` or `BASE64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_type: Option<&'static str>,
    /// Where the device listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// The CoAP path with its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The CoAP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_type: Option<&'static str>,
    /// The device.
    iccid: String,
    /// The device's subscriber when the request was made, where it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    imsi1: Option<String>,
    /// The request's id in the form of a trace id.
    #[schema(example = "1-66c71d94-f8f46a5cb7ae4ac4def607f1")]
    trace_id: String,
    /// The device.
    device_id: String,
    /// The request's id.
    request_id: String,
    /// The account.
    customer_id: String,
    /// `SEND_NOW` or `SEND_WHEN_ACTIVE`.
    request_mode: &'static str,
    /// The device's address when the request was made, where it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_ip_address: Option<String>,
}

/// A request that was cancelled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelledRequest {
    /// The request's id.
    #[schema(example = "2l0mG3WulN1SUvlIcHjvKXBeZk0")]
    id: String,
    /// `CANCELLED`.
    #[schema(example = "CANCELLED")]
    status: &'static str,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Requests on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
    /// Only of this device.
    #[param(example = "8988280666000002864")]
    device_id: Option<String>,
    /// Only of this protocol: `UDP`, `COAP` or `LWM2M`.
    #[param(example = "COAP")]
    protocol: Option<String>,
    /// Only with this status.
    status: Option<String>,
    /// `created` or `updated`, with `-` before it for descending order.
    #[param(example = "-created")]
    sort: Option<String>,
}

/// List requests that wait or are in progress.
#[utoipa::path(
    get, path = "/v1/integrate/devices/actions/requests/active",
    operation_id = "listActiveActionRequests", tag = "Device Controller", params(ListParams),
    responses((status = 200, description = "A page of requests.", body = Page<ActionRequest>))
)]
pub(crate) async fn list_active(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ActionRequest>>, ApiError> {
    list(&api, Shelf::Active, params).await
}

/// List requests that have ended.
#[utoipa::path(
    get, path = "/v1/integrate/devices/actions/requests/archived",
    operation_id = "listArchivedActionRequests", tag = "Device Controller", params(ListParams),
    responses((status = 200, description = "A page of requests.", body = Page<ActionRequest>))
)]
pub(crate) async fn list_archived(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ActionRequest>>, ApiError> {
    list(&api, Shelf::Archived, params).await
}

/// List all requests; the two other lists are to be preferred.
#[utoipa::path(
    get, path = "/v1/integrate/devices/actions/requests",
    operation_id = "listActionRequests", tag = "Device Controller", params(ListParams),
    responses((status = 200, description = "A page of requests.", body = Page<ActionRequest>))
)]
pub(crate) async fn list_all(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ActionRequest>>, ApiError> {
    list(&api, Shelf::All, params).await
}

/// One request.
#[utoipa::path(
    get, path = "/v1/integrate/devices/actions/requests/{requestId}",
    operation_id = "getActionRequest", tag = "Device Controller",
    params(("requestId" = String, Path, description = "The request's id.")),
    responses((status = 200, description = "The request.", body = ActionRequest))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(text): Id,
) -> Result<Json<ActionRequest>, ApiError> {
    let id = request_id(&text)?;
    let doing = "finding a request";
    let found = with_controller(&api, doing, move |controller| controller.find(id)).await?;
    let found = found.map_err(|error| store_error(doing, &error))?;
    let request = found.ok_or_else(|| ApiError::not_found("request", id))?;
    Ok(Json(shown(request, api.services().clients.account())))
}

/// Cancel a request that waits.
#[utoipa::path(
    delete, path = "/v1/integrate/devices/actions/requests/{requestId}",
    operation_id = "cancelActionRequest", tag = "Device Controller",
    params(("requestId" = String, Path, description = "The request's id.")),
    responses(
        (status = 200, description = "It will not be sent.", body = CancelledRequest),
        (status = 409, description = "It does not wait any more.", body = ErrorBody),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    State(api): State<ManagementApi>,
    Id(text): Id,
) -> Result<Json<CancelledRequest>, ApiError> {
    let id = request_id(&text)?;
    let doing = "cancelling a request";
    let ended =
        with_controller(&api, doing, move |controller| controller.cancel(id, now())).await?;
    ended.map_err(|error| match error {
        CancelError::Unknown(id) => ApiError::not_found("request", id),
        CancelError::NotScheduled { .. } => ApiError::conflict(error.to_string()),
        CancelError::Store(error) => store_error(doing, &error),
    })?;
    Ok(Json(cancelled(id)))
}

/// Cancel all requests that wait for a device.
#[utoipa::path(
    delete, path = "/v1/integrate/devices/{deviceId}/actions/requests",
    operation_id = "cancelActionRequestsOfDevice", tag = "Device Controller",
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses(
        (status = 200, description = "They will not be sent.", body = Vec<CancelledRequest>),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn cancel_all(
    State(api): State<ManagementApi>,
    DeviceId(device): DeviceId,
) -> Result<Json<Vec<CancelledRequest>>, ApiError> {
    require_known(&api, device).await?;
    let doing = "cancelling requests";
    let ended =
        with_controller(&api, doing, move |controller| controller.cancel_all(device, now()))
            .await?;
    let ids = ended.map_err(|error| store_error(doing, &error))?;
    Ok(Json(ids.into_iter().map(cancelled).collect()))
}

fn cancelled(id: RequestId) -> CancelledRequest {
    CancelledRequest { id: id.to_string(), status: Status::Cancelled.as_str() }
}

/// What is no id at all does not exist either.
fn request_id(text: &str) -> Result<RequestId, ApiError> {
    let cut: String = text.chars().take(64).collect();
    text.parse().map_err(|_| ApiError::not_found("request", cut))
}

async fn list(
    api: &ManagementApi,
    shelf: Shelf,
    params: ListParams,
) -> Result<Json<Page<ActionRequest>>, ApiError> {
    let (page, size) = (params.page.as_deref(), params.page_size.as_deref());
    let request = PageRequest::parse(page, size, PAGE_SIZE_MAX)?;
    let fields = [("created", SortField::Created), ("updated", SortField::Updated)];
    let key = paging::sort(params.sort.as_deref(), &fields)?.into_iter().next();
    let query = Query {
        shelf,
        device: params.device_id.as_deref().map(|text| iccid("deviceId", text)).transpose()?,
        protocol: params.protocol.as_deref().map(protocol).transpose()?,
        status: params.status.as_deref().map(|text| status(text, shelf)).transpose()?,
        sort: key.map_or(SortField::Created, |key| key.field),
        descending: key.is_none_or(|key| key.descending),
        skip: request.skip(),
        take: request.take(),
    };
    let doing = "listing requests";
    let listed = with_controller(api, doing, move |controller| controller.list(&query)).await?;
    let listed = listed.map_err(|error| store_error(doing, &error))?;
    let account = api.services().clients.account();
    let page = request.page_of(listed.requests, listed.total);
    Ok(Json(page.map(|request| shown(request, account))))
}

fn status(text: &str, shelf: Shelf) -> Result<Status, ApiError> {
    let allowed: Vec<Status> = Status::ALL
        .into_iter()
        .filter(|status| match shelf {
            Shelf::Active => status.is_active(),
            Shelf::Archived => !status.is_active(),
            Shelf::All => true,
        })
        .collect();
    allowed.iter().find(|status| status.as_str() == text).copied().ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|status| status.as_str()).collect();
        let message = format!("status {text:?} is not allowed");
        ApiError::field("status", message, names.join(", "))
    })
}

fn shown(request: Request, account: &str) -> ActionRequest {
    let protocol = request.action.protocol();
    let ip = request.ip.map(|ip| ip.to_string());
    ActionRequest {
        id: request.id.to_string(),
        status: request.status.as_str(),
        device_id: request.device.to_string(),
        protocol: protocol.as_str(),
        created: request.created.to_string(),
        updated: request.updated.to_string(),
        mode: request.mode.as_str(),
        result_data: request.result.as_ref().and_then(|result| result_data(result, protocol)),
        request_data: RequestData {
            iccid: request.device.to_string(),
            imsi1: request.imsi.map(|imsi| imsi.to_string()),
            trace_id: request.id.trace(),
            device_id: request.device.to_string(),
            request_id: request.id.to_string(),
            customer_id: account.to_owned(),
            request_mode: request.mode.as_str(),
            device_ip_address: ip.clone(),
            ..asked(&request.action)
        },
        ip,
        send_attempts_left: request.send_attempts_left,
        send_attempts: request.send_attempts,
    }
}

/// What was asked, as it was asked.
fn asked(action: &Action) -> RequestData {
    let written = |kind| match kind {
        PayloadType::Text => "STRING",
        PayloadType::Base64 => "BASE64",
    };
    match action {
        Action::Udp(udp) => RequestData {
            payload: Some(udp.payload.text()),
            payload_type: Some(written(udp.payload.kind)),
            port: Some(udp.port),
            ..RequestData::default()
        },
        Action::Coap(coap) => RequestData {
            payload: coap.payload.as_ref().map(device_controller::Payload::text),
            payload_type: coap.payload.as_ref().map(|payload| written(payload.kind)),
            port: Some(coap.port),
            path: Some(coap.path.to_string()),
            request_type: Some(coap.method.as_str()),
            ..RequestData::default()
        },
        Action::Lwm2m(lwm2m) => RequestData {
            action: Some(lwm2m.operation.name()),
            resource_address: Some(lwm2m.resource_address.to_string()),
            data: lwm2m.operation.data().map(str::to_owned),
            ..RequestData::default()
        },
    }
}

/// `None` for a datagram that was sent: there is nothing to tell.
fn result_data(result: &ActionResult, protocol: Protocol) -> Option<ResultData> {
    let has_payload = !result.payload.is_empty();
    let (text, kind) = result.text();
    let kind = match kind {
        PayloadType::Text => "TEXT",
        PayloadType::Base64 => "BASE64",
    };
    let data = ResultData {
        code: result.code.map(|code| format!("{code:03}")),
        payload: has_payload.then_some(text),
        payload_type: (has_payload && protocol == Protocol::Coap).then_some(kind),
        error_message: result.error.as_deref().map(str::to_owned),
    };
    let is_empty = data.code.is_none() && data.payload.is_none() && data.error_message.is_none();
    (!is_empty).then_some(data)
}
