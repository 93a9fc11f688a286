//! Devices, as the Inspector shows them: the SIMs of the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use connectivity::{Direction, ListQuery, Sim, SimFilter, SimRegistry, SortField};
use inspector::state_to_json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::{Iccid, Protocol};

use crate::api::{ManagementApi, blocking};
use crate::error::ApiError;
use crate::extract::{DeviceId, Params, iccid};
use crate::paging::{self, Page, PageRequest};

/// Devices on a page, as documented.
const PAGE_SIZE_MAX: u32 = 50;

/// A device. Its id is its SIM's ICCID.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Device {
    /// The customer's name for it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The ICCID.
    #[schema(example = "8988280666000002864", pattern = "^[0-9]{19}$")]
    id: String,
    /// The ICCID.
    #[schema(example = "8988280666000002864", pattern = "^[0-9]{19}$")]
    iccid: String,
    /// The subscriber, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "901405100002864", pattern = "^[0-9]{15}$")]
    imsi1: Option<String>,
    /// The address, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "100.91.200.24")]
    ip: Option<String>,
}

/// The last known state of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceState {
    /// The device.
    id: String,
    /// One member for each protocol that the device has spoken, with `id`, `time`, `payload`,
    /// `topic` where there was one, and `encoding` where no template translated the payload.
    state: serde_json::Value,
}

/// How many devices there are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceStatistics {
    /// All.
    total_devices: u64,
    /// Those that may speak.
    activated_devices: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Devices on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
    /// `iccid`, `ip` or `imsi1`, with `-` before it for descending order. The first field decides.
    #[param(example = "iccid,-ip")]
    sort: Option<String>,
    /// Only the devices with this `iccid` or `ip`.
    #[param(example = "iccid:8988280666000002864")]
    q: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StateParams {
    /// `UDP`, `COAP` or `LWM2M`; without it all.
    protocol: Option<String>,
}

#[derive(Clone, Copy)]
enum FilterField {
    Iccid,
    Ip,
}

impl From<Sim> for Device {
    fn from(sim: Sim) -> Self {
        let Sim { iccid, imsi, ip, label, .. } = sim;
        Self {
            name: (!label.is_empty()).then_some(label),
            id: iccid.to_string(),
            iccid: iccid.to_string(),
            imsi1: imsi.map(|imsi| imsi.to_string()),
            ip: ip.map(|ip| ip.to_string()),
        }
    }
}

/// List devices.
#[utoipa::path(
    get, path = "/v1/inspect/devices",
    operation_id = "listDevices", tag = "Inspector", params(ListParams),
    responses((status = 200, description = "A page of devices.", body = Page<Device>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Device>>, ApiError> {
    let ListParams { page, page_size, sort, q } = params;
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let query = list_query(request, sort.as_deref(), q.as_deref())?;
    let page = page_of_sims(&api, request, query).await?;
    Ok(Json(page.map(|sim| Device { name: None, ..Device::from(sim) })))
}

/// One device.
#[utoipa::path(
    get, path = "/v1/inspect/devices/{deviceId}",
    operation_id = "getDevice", tag = "Inspector",
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses((status = 200, description = "The device.", body = Device))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
) -> Result<Json<Device>, ApiError> {
    sim(&api, id).await?.map(|sim| Json(sim.into())).ok_or_else(|| unknown(id))
}

/// The last known state of a device, for each protocol.
#[utoipa::path(
    get, path = "/v1/inspect/devices/{deviceId}/telemetry",
    operation_id = "getDeviceTelemetry", tag = "Inspector",
    params(("deviceId" = String, Path, description = "The ICCID."), StateParams),
    responses((status = 200, description = "The state.", body = DeviceState))
)]
pub(crate) async fn last_state(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    Params(params): Params<StateParams>,
) -> Result<Json<DeviceState>, ApiError> {
    let protocol = params.protocol.as_deref().map(protocol).transpose()?;
    let inspector = api.services().inspector.clone();
    let states = blocking("reading a state", move || inspector.telemetry_state(id, protocol))
        .await?
        .map_err(|error| ApiError::internal("reading a state", error))?;
    if states.is_empty() {
        require_known(&api, id).await?;
    }
    Ok(Json(DeviceState { id: id.to_string(), state: state_to_json(&states) }))
}

/// How many devices there are.
#[utoipa::path(
    get, path = "/v1/devices/stats",
    operation_id = "getDeviceStats", tag = "Inspector",
    responses((status = 200, description = "The numbers.", body = DeviceStatistics))
)]
pub(crate) async fn statistics(
    State(api): State<ManagementApi>,
) -> Result<Json<DeviceStatistics>, ApiError> {
    let statistics = with_registry(&api, "counting sims", |registry| registry.statistics())
        .await?
        .map_err(|error| ApiError::internal("counting sims", error))?;
    Ok(Json(DeviceStatistics {
        total_devices: statistics.total,
        activated_devices: statistics.active,
    }))
}

/// Refuses a device that the registry does not know.
pub(crate) async fn require_known(api: &ManagementApi, id: Iccid) -> Result<(), ApiError> {
    sim(api, id).await?.map(drop).ok_or_else(|| unknown(id))
}

/// The SIM with this ICCID.
pub(crate) async fn sim(api: &ManagementApi, id: Iccid) -> Result<Option<Sim>, ApiError> {
    with_registry(api, "finding a sim", move |registry| registry.find(id))
        .await?
        .map_err(|error| ApiError::internal("finding a sim", error))
}

/// Asks the registry on a thread that may block.
pub(crate) async fn with_registry<T: Send + 'static>(
    api: &ManagementApi,
    doing: &'static str,
    ask: impl FnOnce(&SimRegistry) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let registry = Arc::clone(&api.services().registry);
    blocking(doing, move || ask(&registry)).await
}

/// A page of SIMs.
pub(crate) async fn page_of_sims(
    api: &ManagementApi,
    request: PageRequest,
    query: ListQuery,
) -> Result<Page<Sim>, ApiError> {
    let found = with_registry(api, "listing sims", move |registry| registry.list(&query))
        .await?
        .map_err(|error| ApiError::internal("listing sims", error))?;
    Ok(request.page_of(found.sims, found.total))
}

/// Reads the order and the filter of a list of SIMs.
pub(crate) fn list_query(
    request: PageRequest,
    sort: Option<&str>,
    q: Option<&str>,
) -> Result<ListQuery, ApiError> {
    let fields = [
        ("iccid", SortField::Iccid),
        ("id", SortField::Iccid),
        ("ip", SortField::Ip),
        ("imsi1", SortField::Imsi),
        ("imsi", SortField::Imsi),
    ];
    // SIMs that are equal in the first field are nearly always one SIM, so it decides alone.
    let key = paging::sort(sort, &fields)?.into_iter().next();
    let (sort, direction) = match key {
        Some(key) if key.descending => (key.field, Direction::Descending),
        Some(key) => (key.field, Direction::Ascending),
        None => Default::default(),
    };
    let mut filter = SimFilter::default();
    let fields = [("iccid", FilterField::Iccid), ("ip", FilterField::Ip)];
    for (field, value) in paging::filters(q, &fields)? {
        match field {
            FilterField::Iccid => filter.iccid = Some(iccid("q", value)?),
            FilterField::Ip => filter.ip = Some(address("q", value)?),
        }
    }
    Ok(ListQuery { filter, sort, direction, page: request.page, page_size: request.size })
}

/// Reads an IP address.
pub(crate) fn address(field: &str, text: &str) -> Result<std::net::IpAddr, ApiError> {
    text.parse().map_err(|_| {
        let message = format!("{text:?} is not an address");
        ApiError::field(field, message, "an IPv4 or IPv6 address")
    })
}

/// Reads a protocol of a query; case does not matter.
pub(crate) fn protocol(text: &str) -> Result<Protocol, ApiError> {
    text.parse().map_err(|_| {
        let message = format!("protocol {text:?} is not known");
        ApiError::field("protocol", message, "UDP, COAP, LWM2M")
    })
}

/// 404 for a device.
pub(crate) fn unknown(id: Iccid) -> ApiError {
    ApiError::not_found("device", id)
}
