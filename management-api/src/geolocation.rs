//! Where something is that hears several cells at once.
//!
//! The body is the one of the geolocation interfaces of Google and of Ichnaea, so that a client of
//! theirs needs another address only; the refusals are the API's own. Only cells are looked for:
//! other networks and the client's address are accepted and not used. Nothing is stored.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use locator::{Measured, MeasuredCell};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vocabulary::{CellTower, Plmn, RadioAccess};

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorDetail};
use crate::extract::JsonBody;

/// Cells in one request at most: a modem tells about thirty.
const TOWERS_MAX: usize = 100;
/// What a modem can have measured, in dBm.
const SIGNAL_DBM: (i64, i64) = (-150, 0);

/// What something hears. Members that are not listed here are ignored, as clients send more than
/// cells.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GeolocationRequest {
    /// Of the cells that name none: `gsm`, `wcdma`, `lte` or `nr`.
    radio_type: Option<String>,
    /// The cells, 1 to 100.
    #[serde(default)]
    cell_towers: Vec<HeardTower>,
    /// What to do where no cell is known.
    #[serde(default)]
    fallbacks: Fallbacks,
}

/// What to do where no cell is known.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Fallbacks {
    /// Whether the area of a cell, or its network, will do. Without it they do.
    lacf: Option<bool>,
}

/// A cell that is heard.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeardTower {
    /// `gsm`, `wcdma`, `lte` (also NB-IoT and LTE-M) or `nr`.
    #[schema(example = "lte")]
    radio_type: Option<String>,
    /// 1 to 999.
    #[schema(example = 262)]
    mobile_country_code: Option<i64>,
    /// 0 to 999.
    #[schema(example = 1)]
    mobile_network_code: Option<i64>,
    /// The location or tracking area: 16 bits, 24 in `nr`.
    #[schema(example = 852)]
    location_area_code: Option<i64>,
    /// 16 bits in `gsm`, 28 in `wcdma` and `lte`, 36 in `nr`, where it may be called
    /// `newRadioCellId`, too.
    #[serde(alias = "newRadioCellId")]
    #[schema(example = 28_312_321)]
    cell_id: Option<i64>,
    /// In dBm, -150 to 0.
    #[schema(example = -81)]
    signal_strength: Option<i64>,
}

/// Where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Geolocation {
    /// The middle of where it may be.
    location: Point,
    /// The radius in metres within which it is with a probability of 68 %.
    #[schema(example = 820.0)]
    accuracy: f64,
    /// `lacf` where no cell was known, but an area or a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    /// What the position was found by: `cell`, `cells`, `area` or `network`.
    matched: &'static str,
    /// How many different cells were asked for.
    towers: usize,
    /// How many of them are known themselves.
    known: usize,
}

/// A point, in degrees (WGS 84).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Point {
    /// Degrees north.
    lat: f64,
    /// Degrees east.
    lng: f64,
}

/// Where something is that hears these cells, by the cell database.
///
/// The body is that of the geolocation interfaces of Google and of Ichnaea.
#[utoipa::path(
    post, path = "/simgate/v1/geolocate",
    operation_id = "geolocate", tag = "simgate", request_body = GeolocationRequest,
    responses(
        (status = 200, description = "Where it is.", body = Geolocation),
        (status = 404, description = "None of the cells is known.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn geolocate(
    State(api): State<ManagementApi>,
    JsonBody(request): JsonBody<GeolocationRequest>,
) -> Result<Json<Geolocation>, ApiError> {
    let cells = cells(&request)?;
    let locator = api.services().locator.clone();
    let measured = blocking("locating cells", move || locator.measure(&cells)).await?;
    answer(&measured, request.fallbacks.lacf.unwrap_or(true)).map(Json)
}

fn answer(measured: &Measured, by_area: bool) -> Result<Geolocation, ApiError> {
    let is_rough = measured.known == 0;
    let fix = measured.fix.filter(|_| by_area || !is_rough);
    let Some(fix) = fix else {
        let towers = measured.towers;
        let wider = if by_area { ", nor their areas or networks" } else { "" };
        let message = format!("none of {towers} cells is known{wider}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, ErrorDetail::new(message)));
    };
    let at = fix.position.coordinates;
    Ok(Geolocation {
        location: Point { lat: at.latitude(), lng: at.longitude() },
        accuracy: fix.position.accuracy_m.unwrap_or_default(),
        fallback: is_rough.then_some("lacf"),
        matched: fix.matched.as_str(),
        towers: measured.towers,
        known: measured.known,
    })
}

fn cells(request: &GeolocationRequest) -> Result<Vec<MeasuredCell>, ApiError> {
    let towers = &request.cell_towers;
    let allowed = format!("1 to {TOWERS_MAX} cells");
    if towers.is_empty() {
        return Err(ApiError::field("cellTowers", "there are no cells to locate by", allowed));
    }
    if towers.len() > TOWERS_MAX {
        let message = format!("{} cells are too many", towers.len());
        return Err(ApiError::field("cellTowers", message, allowed));
    }
    let default = request.radio_type.as_deref();
    let numbered = towers.iter().enumerate();
    numbered.map(|(index, tower)| tower.cell(index, default)).collect()
}

impl HeardTower {
    fn cell(&self, index: usize, default: Option<&str>) -> Result<MeasuredCell, ApiError> {
        let name = |field: &str| format!("cellTowers[{index}].{field}");
        let access = radio(&name("radioType"), self.radio_type.as_deref().or(default))?;
        let (area_bits, cell_bits) = widths(access);
        let within = |field: &str, value: Option<i64>, limits: (i64, i64)| match value {
            Some(value) if value < limits.0 || value > limits.1 => {
                Err(out_of(&name(field), value, limits))
            }
            value => Ok(value),
        };
        let needed = |field: &str, value: Option<i64>, limits: (i64, i64)| {
            within(field, value, limits)?.ok_or_else(|| {
                let field = name(field);
                let allowed = format!("{} to {}", limits.0, limits.1);
                ApiError::field(&field, format!("{field} is missing"), allowed)
            })
        };
        let mcc = needed("mobileCountryCode", self.mobile_country_code, (1, 999))?;
        let mnc = needed("mobileNetworkCode", self.mobile_network_code, (0, 999))?;
        let area = (0, (1 << area_bits) - 1);
        let area = within("locationAreaCode", self.location_area_code, area)?;
        let cell = within("cellId", self.cell_id, (0, (1 << cell_bits) - 1))?;
        let signal = within("signalStrength", self.signal_strength, SIGNAL_DBM)?;
        let plmn =
            plmn(mcc, mnc).ok_or_else(|| out_of(&name("mobileCountryCode"), mcc, (1, 999)))?;
        Ok(MeasuredCell {
            tower: CellTower {
                access,
                plmn,
                area: area.and_then(|area| area.try_into().ok()),
                cell: cell.and_then(|cell| cell.try_into().ok()),
            },
            signal_dbm: signal.and_then(|signal| signal.try_into().ok()),
        })
    }
}

/// Cells are found by the numbers of their network, whatever digits it is written with.
fn plmn(mcc: i64, mnc: i64) -> Option<Plmn> {
    let digits = if mnc <= 99 { 2 } else { 3 };
    Plmn::new(mcc.try_into().ok()?, mnc.try_into().ok()?, digits)
}

fn out_of(field: &str, value: i64, (least, most): (i64, i64)) -> ApiError {
    let message = format!("{field} {value} is not allowed");
    ApiError::field(field, message, format!("{least} to {most}"))
}

fn radio(field: &str, name: Option<&str>) -> Result<RadioAccess, ApiError> {
    let allowed = "gsm, wcdma, lte, nr";
    let Some(name) = name else {
        return Err(ApiError::field(field, format!("{field} is missing"), allowed));
    };
    match name.to_ascii_lowercase().as_str() {
        "gsm" => Ok(RadioAccess::Gsm),
        "wcdma" | "umts" => Ok(RadioAccess::Umts),
        "lte" => Ok(RadioAccess::Lte),
        "nr" => Ok(RadioAccess::Nr),
        _ => {
            let name: String = name.chars().take(50).collect();
            Err(ApiError::field(field, format!("{field} {name:?} is not known"), allowed))
        }
    }
}

/// The bits of an area's and of a cell's number (3GPP TS 23.003 §4.1, §4.3, §19.4.2.3, §19.6;
/// of UMTS with the number of its controller, TS 25.331 §10.3.2.2).
fn widths(access: RadioAccess) -> (u32, u32) {
    match access {
        RadioAccess::Gsm => (16, 16),
        RadioAccess::Nr => (24, 36),
        _ => (16, 28),
    }
}
