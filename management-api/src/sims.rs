//! The SIMs of the registry: simgate's own, because the documented platform makes its SIMs itself.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use connectivity::{NewSim, Sim as StoredSim, SimError, SimPatch};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::{ParseDigitsError, Timestamp};

use crate::actions::store_error;
use crate::api::ManagementApi;
use crate::devices::{address, list_query, page_of_sims, sim, with_registry};
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{DeviceId, JsonBody, Params, iccid, present};
use crate::paging::{Page, PageRequest};

/// What the registry gives at once.
const PAGE_SIZE_MAX: u32 = connectivity::PAGE_SIZE_MAX;

/// A SIM.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sim {
    /// The card; also the device id.
    #[schema(example = "8988280666000002864", pattern = "^[0-9]{19}$")]
    iccid: String,
    /// The subscriber.
    #[schema(example = "901405100002864")]
    imsi: Option<String>,
    /// The telephone number, without `+`.
    #[schema(example = "882285100002864")]
    msisdn: Option<String>,
    /// The modem.
    #[schema(example = "86677504212345")]
    imei: Option<String>,
    /// The static address by which the SIM's messages are known.
    #[schema(example = "100.91.200.24")]
    ip: Option<String>,
    /// The customer's name for it.
    label: String,
    /// `Enabled` or `Disabled`.
    status: &'static str,
    /// When the registry first knew it, in UTC.
    created: String,
    /// When it last changed, in UTC.
    updated: String,
}

/// A SIM to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimCreate {
    /// The card: 19 digits, or 20 with the check digit.
    #[schema(example = "8988280666000002864")]
    iccid: String,
    /// The subscriber: 15 digits.
    imsi: Option<String>,
    /// The telephone number: 3 to 15 digits.
    msisdn: Option<String>,
    /// The modem: 14, 15 or 16 digits.
    imei: Option<String>,
    /// The static address by which the SIM's messages are known.
    ip: Option<String>,
    /// The customer's name for it, at most 255 characters.
    label: Option<String>,
    /// `Enabled` (the default) or `Disabled`.
    status: Option<String>,
}

/// A change of a SIM; what is absent stays, `null` takes a property away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimChange {
    /// The subscriber: 15 digits.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    imsi: Option<Option<String>>,
    /// The telephone number: 3 to 15 digits.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    msisdn: Option<Option<String>>,
    /// The modem: 14, 15 or 16 digits.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    imei: Option<Option<String>>,
    /// The static address by which the SIM's messages are known.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    ip: Option<Option<String>>,
    /// The customer's name for it, at most 255 characters.
    label: Option<String>,
    /// `Enabled` or `Disabled`.
    status: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// SIMs on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 10)]
    page_size: Option<String>,
    /// `iccid`, `ip` or `imsi`, with `-` before it for descending order. The first field decides.
    #[param(example = "-iccid")]
    sort: Option<String>,
    /// Only the SIMs with this `iccid` or `ip`.
    #[param(example = "ip:100.91.200.24")]
    q: Option<String>,
}

impl From<StoredSim> for Sim {
    fn from(sim: StoredSim) -> Self {
        let StoredSim { iccid, imsi, msisdn, imei, ip, label, active, created, updated } = sim;
        Self {
            iccid: iccid.to_string(),
            imsi: imsi.map(|imsi| imsi.to_string()),
            msisdn: msisdn.map(|msisdn| msisdn.to_string()),
            imei: imei.map(|imei| imei.to_string()),
            ip: ip.map(|ip| ip.to_string()),
            label,
            status: if active { "Enabled" } else { "Disabled" },
            created: created.to_string(),
            updated: updated.to_string(),
        }
    }
}

/// List SIMs.
#[utoipa::path(
    get, path = "/simgate/v1/sims",
    operation_id = "listSims", tag = "simgate", params(ListParams),
    responses((status = 200, description = "A page of SIMs.", body = Page<Sim>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Sim>>, ApiError> {
    let ListParams { page, page_size, sort, q } = params;
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let query = list_query(request, sort.as_deref(), q.as_deref())?;
    let page = page_of_sims(&api, request, query).await?;
    Ok(Json(page.map(Sim::from)))
}

/// Create a SIM.
#[utoipa::path(
    post, path = "/simgate/v1/sims",
    operation_id = "createSim", tag = "simgate", request_body = SimCreate,
    responses(
        (status = 201, description = "The SIM.", body = Sim),
        (status = 409, description = "The SIM exists, or its address is another SIM's.",
            body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(new): JsonBody<SimCreate>,
) -> Result<(StatusCode, Json<Sim>), ApiError> {
    let SimCreate { iccid: card, imsi, msisdn, imei, ip, label, status } = new;
    let properties = SimChange {
        imsi: imsi.map(Some),
        msisdn: msisdn.map(Some),
        imei: imei.map(Some),
        ip: ip.map(Some),
        label,
        status,
    };
    let new = NewSim { iccid: iccid("iccid", &card)?, properties: patch_of(properties)? };
    let created =
        with_registry(&api, "creating a sim", move |registry| registry.create(new, now())).await?;
    Ok((StatusCode::CREATED, Json(created.map_err(sim_error)?.into())))
}

/// One SIM.
#[utoipa::path(
    get, path = "/simgate/v1/sims/{iccid}",
    operation_id = "getSim", tag = "simgate",
    params(("iccid" = String, Path, description = "The card.")),
    responses((status = 200, description = "The SIM.", body = Sim))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
) -> Result<Json<Sim>, ApiError> {
    let found = sim(&api, id).await?;
    found.map(|sim| Json(sim.into())).ok_or_else(|| ApiError::not_found("sim", id))
}

/// Change a SIM.
#[utoipa::path(
    patch, path = "/simgate/v1/sims/{iccid}",
    operation_id = "changeSim", tag = "simgate", request_body = SimChange,
    params(("iccid" = String, Path, description = "The card.")),
    responses(
        (status = 200, description = "The SIM as it is now.", body = Sim),
        (status = 409, description = "The address is another SIM's.", body = ErrorBody),
    )
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    JsonBody(change): JsonBody<SimChange>,
) -> Result<Json<Sim>, ApiError> {
    let patch = patch_of(change)?;
    let changed =
        with_registry(&api, "changing a sim", move |registry| registry.patch(id, patch, now()))
            .await?;
    Ok(Json(changed.map_err(sim_error)?.into()))
}

/// Remove a SIM and its keys. Its messages stay.
#[utoipa::path(
    delete, path = "/simgate/v1/sims/{iccid}",
    operation_id = "deleteSim", tag = "simgate",
    params(("iccid" = String, Path, description = "The card.")),
    responses((status = 204, description = "The SIM is removed."))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
) -> Result<StatusCode, ApiError> {
    let keys = api.services().keys.clone();
    let controller = api.services().controller.clone();
    let removed = with_registry(&api, "removing a sim", move |registry| {
        let known = registry.find(id).is_ok_and(|sim| sim.is_some());
        // Keys first: a SIM without its key gets another, but a key without its SIM would open
        // again for whoever registers the number later.
        if known && let Err(error) = keys.remove(id) {
            return Err(ApiError::internal("removing keys", error));
        }
        // What waits for the device is not for whoever registers the number later, either.
        if let Err(error) = controller.cancel_all(id, now()) {
            return Err(store_error("cancelling requests", &error));
        }
        registry.remove(id).map_err(sim_error)
    })
    .await?;
    removed.map(|_| StatusCode::NO_CONTENT)
}

fn patch_of(change: SimChange) -> Result<SimPatch, ApiError> {
    let SimChange { imsi, msisdn, imei, ip, label, status } = change;
    Ok(SimPatch {
        imsi: digits("imsi", imsi)?,
        msisdn: digits("msisdn", msisdn)?,
        imei: digits("imei", imei)?,
        ip: ip.map(|ip| optional_address(ip.as_deref())).transpose()?,
        label,
        active: status.as_deref().map(is_enabled).transpose()?,
    })
}

fn digits<T: FromStr<Err = ParseDigitsError>>(
    field: &str,
    value: Option<Option<String>>,
) -> Result<Option<Option<T>>, ApiError> {
    let parse = |text: String| {
        text.parse().map_err(|error: ParseDigitsError| {
            let mut detail = ErrorDetail::new(error.to_string());
            detail.field = Some(field.to_owned());
            ApiError::new(StatusCode::BAD_REQUEST, detail)
        })
    };
    value.map(|value| value.map(parse).transpose()).transpose()
}

fn optional_address(text: Option<&str>) -> Result<Option<IpAddr>, ApiError> {
    text.map(|text| address("ip", text)).transpose()
}

fn is_enabled(status: &str) -> Result<bool, ApiError> {
    match status {
        "Enabled" => Ok(true),
        "Disabled" => Ok(false),
        other => {
            let message = format!("status {other:?} is not known");
            Err(ApiError::field("status", message, "Enabled, Disabled"))
        }
    }
}

fn sim_error(error: SimError) -> ApiError {
    match error {
        SimError::NotFound(iccid) => ApiError::not_found("sim", iccid),
        SimError::Conflict(conflict) => ApiError::conflict(conflict.to_string()),
        SimError::Invalid(invalid) => ApiError::bad_request(invalid.to_string()),
        SimError::Store(error) => ApiError::internal("writing sims", error),
    }
}

/// The time of a change.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
