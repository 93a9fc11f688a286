//! Requests to devices: to one, and to many at once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use connectivity::Sim;
use device_controller::{
    Action, Controller, Mode, NewRequest, Refused, RequestId, StoreError, SubmitError,
};
use serde::Serialize;
use utoipa::ToSchema;
use vocabulary::Iccid;

use crate::action_bodies::{
    ActionBody, Bulk, CoapActionBody, Lwm2mActionBody, UdpActionBody, Wanted,
};
use crate::api::{ManagementApi, blocking};
use crate::devices::{self, unknown, with_registry};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{DeviceId, JsonBody};
use crate::sims::now;

/// When a client may ask again while the disk is full or busy.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// A request that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedAction {
    /// The request's id: 27 characters.
    #[schema(example = "2l0mG3WulN1SUvlIcHjvKXBeZk0")]
    id: String,
    /// What happens now.
    message: String,
}

/// What was taken of a request to many devices.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkAnswer {
    /// The requests that were taken.
    accepted_requests: Vec<AcceptedRequest>,
    /// Devices that do not exist, have too many requests, or are not registered.
    rejected_devices: Vec<String>,
    /// How many there are of each.
    message: String,
}

/// A request that was taken for one of many devices.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedRequest {
    /// The device.
    #[schema(example = "8988280666000002864")]
    device_id: String,
    /// The request's id.
    #[schema(example = "2l0mG3WulN1SUvlIcHjvKXBeZk0")]
    request_id: String,
}

/// Send a datagram to a device.
#[utoipa::path(
    post, path = "/v1/integrate/devices/{deviceId}/actions/UDP",
    operation_id = "sendUdpAction", tag = "Device Controller", request_body = UdpActionBody,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses(
        (status = 202, description = "The request is stored.", body = AcceptedAction),
        (status = 409, description = "Ten requests wait for the device.", body = ErrorBody),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_udp(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    JsonBody(body): JsonBody<UdpActionBody>,
) -> Result<(StatusCode, Json<AcceptedAction>), ApiError> {
    send(&api, id, body.check()?).await
}

/// Send a CoAP request to a device.
#[utoipa::path(
    post, path = "/v1/integrate/devices/{deviceId}/actions/COAP",
    operation_id = "sendCoapAction", tag = "Device Controller", request_body = CoapActionBody,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses(
        (status = 202, description = "The request is stored.", body = AcceptedAction),
        (status = 409, description = "Ten requests wait for the device.", body = ErrorBody),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_coap(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    JsonBody(body): JsonBody<CoapActionBody>,
) -> Result<(StatusCode, Json<AcceptedAction>), ApiError> {
    send(&api, id, body.check()?).await
}

/// Have a device do something by LwM2M.
#[utoipa::path(
    post, path = "/v1/integrate/devices/{deviceId}/actions/LWM2M",
    operation_id = "sendLwm2mAction", tag = "Device Controller", request_body = Lwm2mActionBody,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses(
        (status = 202, description = "The request is stored.", body = AcceptedAction),
        (
            status = 409,
            description = "Ten requests wait for the device, or it is not registered.",
            body = ErrorBody,
        ),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_lwm2m(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    JsonBody(body): JsonBody<Lwm2mActionBody>,
) -> Result<(StatusCode, Json<AcceptedAction>), ApiError> {
    send(&api, id, body.check()?).await
}

/// Have a device do something by LwM2M; the older path.
#[utoipa::path(
    post, path = "/v1/devices/{deviceId}/actions",
    operation_id = "sendAction", tag = "Device Controller", request_body = Lwm2mActionBody,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses(
        (status = 202, description = "The request is stored.", body = AcceptedAction),
        (
            status = 409,
            description = "Ten requests wait for the device, or it is not registered.",
            body = ErrorBody,
        ),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_alias(
    api: State<ManagementApi>,
    id: DeviceId,
    body: JsonBody<Lwm2mActionBody>,
) -> Result<(StatusCode, Json<AcceptedAction>), ApiError> {
    send_lwm2m(api, id, body).await
}

/// Send a datagram to several devices.
#[utoipa::path(
    post, path = "/v1/integrate/devices/actions/UDP",
    operation_id = "sendUdpActions", tag = "Device Controller",
    request_body = Bulk<UdpActionBody>,
    responses(
        (status = 202, description = "What was taken.", body = BulkAnswer),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_udp_to_many(
    State(api): State<ManagementApi>,
    JsonBody(Bulk { device_ids, action }): JsonBody<Bulk<UdpActionBody>>,
) -> Result<(StatusCode, Json<BulkAnswer>), ApiError> {
    send_to_many(&api, device_ids, action.check()?).await
}

/// Send a CoAP request to several devices.
#[utoipa::path(
    post, path = "/v1/integrate/devices/actions/COAP",
    operation_id = "sendCoapActions", tag = "Device Controller",
    request_body = Bulk<CoapActionBody>,
    responses(
        (status = 202, description = "What was taken.", body = BulkAnswer),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_coap_to_many(
    State(api): State<ManagementApi>,
    JsonBody(Bulk { device_ids, action }): JsonBody<Bulk<CoapActionBody>>,
) -> Result<(StatusCode, Json<BulkAnswer>), ApiError> {
    send_to_many(&api, device_ids, action.check()?).await
}

/// Have several devices do something by LwM2M.
#[utoipa::path(
    post, path = "/v1/integrate/devices/actions/LWM2M",
    operation_id = "sendLwm2mActions", tag = "Device Controller",
    request_body = Bulk<Lwm2mActionBody>,
    responses(
        (status = 202, description = "What was taken.", body = BulkAnswer),
        (status = 503, description = "It cannot be stored at present.", body = ErrorBody),
    )
)]
pub(crate) async fn send_lwm2m_to_many(
    State(api): State<ManagementApi>,
    JsonBody(Bulk { device_ids, action }): JsonBody<Bulk<Lwm2mActionBody>>,
) -> Result<(StatusCode, Json<BulkAnswer>), ApiError> {
    send_to_many(&api, device_ids, action.check()?).await
}

async fn send(
    api: &ManagementApi,
    device: Iccid,
    wanted: Wanted,
) -> Result<(StatusCode, Json<AcceptedAction>), ApiError> {
    let sim = devices::sim(api, device).await?.ok_or_else(|| unknown(device))?;
    let message = message(&wanted, device);
    let answer = submit(api, vec![new_request(&sim, &wanted)]).await?.into_iter().next();
    match answer {
        Some(Ok(id)) => {
            Ok((StatusCode::ACCEPTED, Json(AcceptedAction { id: id.to_string(), message })))
        }
        Some(Err(refused @ Refused::Full { .. })) => {
            Err(ApiError::unavailable(refused.to_string(), STORE_RETRY))
        }
        Some(Err(refused)) => Err(ApiError::conflict(refused.to_string())),
        None => Err(ApiError::internal("taking a request", "no answer")),
    }
}

async fn send_to_many(
    api: &ManagementApi,
    device_ids: Vec<String>,
    wanted: Wanted,
) -> Result<(StatusCode, Json<BulkAnswer>), ApiError> {
    let found = device_ids.len();
    if !(1..=device_controller::DEVICES_MAX).contains(&found) {
        let allowed = format!("1 to {}", device_controller::DEVICES_MAX);
        return Err(ApiError::field("deviceIds", format!("{found} devices"), allowed));
    }
    if let Some(bad) = device_ids.iter().find(|id| !is_device_id(id)) {
        let cut: String = bad.chars().take(64).collect();
        let message = format!("{cut:?} is no device id");
        return Err(ApiError::field("deviceIds", message, "letters, digits, _ and -"));
    }
    let sims = with_registry(api, "finding sims", move |registry| {
        let find = |id: String| {
            let sim = id.parse().ok().map_or(Ok(None), |iccid| registry.find(iccid));
            sim.map(|sim| (id, sim))
        };
        device_ids.into_iter().map(find).collect::<Result<Vec<_>, _>>()
    });
    let sims = sims.await?.map_err(|error| ApiError::internal("finding sims", error))?;
    let known = sims.iter().filter_map(|(_, sim)| sim.as_ref());
    let requests: Vec<_> = known.map(|sim| new_request(sim, &wanted)).collect();
    let answers = if requests.is_empty() { Vec::new() } else { submit(api, requests).await? };
    Ok((StatusCode::ACCEPTED, Json(bulk_answer(sims, answers))))
}

fn bulk_answer(
    sims: Vec<(String, Option<Sim>)>,
    answers: Vec<Result<RequestId, Refused>>,
) -> BulkAnswer {
    let mut answers = answers.into_iter();
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    for (device_id, sim) in sims {
        // Each known device has an answer, in order.
        match sim.and_then(|_| answers.next()) {
            Some(Ok(id)) => {
                accepted.push(AcceptedRequest { device_id, request_id: id.to_string() });
            }
            Some(Err(_)) | None => rejected.push(device_id),
        }
    }
    let message =
        format!("{} requests taken, {} devices rejected.", accepted.len(), rejected.len());
    BulkAnswer { accepted_requests: accepted, rejected_devices: rejected, message }
}

/// The documented form of a device's id.
fn is_device_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(is_allowed)
}

async fn submit(
    api: &ManagementApi,
    requests: Vec<NewRequest>,
) -> Result<Vec<Result<RequestId, Refused>>, ApiError> {
    let registrations = api.services().registrations.clone();
    let submitted = with_controller(api, "taking a request", move |controller| {
        controller.submit(now(), requests, &|device| registrations.holds(device))
    });
    submitted.await?.map_err(|error| match error {
        SubmitError::Store(error) => store_error("taking a request", &error),
        other => ApiError::internal("taking a request", other),
    })
}

/// Asks the controller on a thread that may block.
pub(crate) async fn with_controller<T: Send + 'static>(
    api: &ManagementApi,
    doing: &'static str,
    ask: impl FnOnce(&Controller) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let controller = api.services().controller.clone();
    blocking(doing, move || ask(&controller)).await
}

/// 503 for what passes, 500 for the rest.
pub(crate) fn store_error(doing: &str, error: &StoreError) -> ApiError {
    if error.is_passing() {
        tracing::warn!(doing, %error, "a request was refused");
        return ApiError::unavailable("the gateway cannot store it at present", STORE_RETRY);
    }
    ApiError::internal(doing, error)
}

fn new_request(sim: &Sim, wanted: &Wanted) -> NewRequest {
    let Wanted { action, mode, send_attempts } = wanted.clone();
    NewRequest { device: sim.iccid, action, mode, send_attempts, imsi: sim.imsi, ip: sim.ip }
}

/// What happens now, in words.
fn message(wanted: &Wanted, device: Iccid) -> String {
    let what = match &wanted.action {
        Action::Udp(udp) => format!("Datagram to port {}", udp.port),
        Action::Coap(coap) => {
            format!("{} {} to port {}", coap.method.as_str(), coap.path, coap.port)
        }
        Action::Lwm2m(lwm2m) => {
            format!("Action {} for resource {}", lwm2m.operation.name(), lwm2m.resource_address)
        }
    };
    match wanted.mode {
        Mode::SendNow => format!("{what} is on its way to device {device}."),
        Mode::SendWhenActive => format!("{what} is scheduled for device {device}."),
    }
}
