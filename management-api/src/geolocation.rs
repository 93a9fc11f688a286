//! Where cells are: by the shape of the Google Geolocation API and of Ichnaea, the server of the
//! Mozilla Location Service, so that their clients can ask a gateway.
//!
//! It is a look-up of cells, about no device of the gateway. Wi-Fi access points, Bluetooth beacons
//! and the address of the client are no cells: they are read over, as by those servers where they
//! know nothing of them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use locator::MeasuredCell;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vocabulary::{CellTower, Plmn, RadioAccess};

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorDetail};
use crate::extract::JsonBody;

/// Cells of a request: a modem measures up to 32 neighbours.
const CELLS_MAX: usize = 100;
const RADIOS: &str = "gsm, wcdma, lte, nr";

/// What a device measured.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measurement {
    /// The radio of towers that name none: `gsm`, `wcdma`, `lte` or `nr`.
    #[schema(example = "lte")]
    radio_type: Option<String>,
    /// The cells, 1 to 100.
    #[serde(default)]
    cell_towers: Vec<Tower>,
}

/// A cell that was measured.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tower {
    /// `gsm`, `wcdma`, `lte` or `nr`.
    #[schema(example = "lte")]
    radio_type: Option<String>,
    /// 1 to 999.
    #[schema(example = 262)]
    mobile_country_code: u64,
    /// 0 to 999.
    #[schema(example = 2)]
    mobile_network_code: u64,
    /// The location or tracking area, 0 to 16,777,215.
    #[schema(example = 852)]
    location_area_code: Option<u64>,
    /// The cell, 0 to 68,719,476,735.
    #[schema(example = 28_312_321)]
    cell_id: Option<u64>,
    /// The cell, as Google names it of 5G.
    new_radio_cell_id: Option<u64>,
    /// How strongly it was heard, in dBm.
    #[schema(example = -83)]
    signal_strength: Option<f64>,
}

/// Where that is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Geolocation {
    /// The middle.
    location: LatLng,
    /// Within so many metres of it with a probability of 68 %.
    #[schema(example = 1305.0)]
    accuracy: f64,
    /// By what it was found: `cell`, `cells`, `area` or `network`.
    #[schema(example = "cell")]
    matched: &'static str,
}

/// A place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LatLng {
    /// Degrees north.
    #[schema(example = 50.174_076)]
    lat: f64,
    /// Degrees east.
    #[schema(example = 10.940_241)]
    lng: f64,
}

/// Locate what hears these cells.
#[utoipa::path(
    post, path = "/simgate/v1/geolocate",
    operation_id = "geolocate", tag = "simgate",
    request_body = Measurement,
    responses(
        (status = 200, description = "Where that is.", body = Geolocation),
        (status = 404, description = "Nothing is known of these networks.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn locate(
    State(api): State<ManagementApi>,
    JsonBody(measurement): JsonBody<Measurement>,
) -> Result<Json<Geolocation>, ApiError> {
    let cells = cells(&measurement)?;
    let locator = api.services().locator.clone();
    let found = blocking("locating cells", move || locator.locate_cells(&cells)).await?;
    let fix = found.ok_or_else(|| {
        let message = "nothing is known of these cells, nor of their areas and networks";
        ApiError::new(StatusCode::NOT_FOUND, ErrorDetail::new(message))
    })?;
    let at = fix.position.coordinates;
    Ok(Json(Geolocation {
        location: LatLng { lat: at.latitude(), lng: at.longitude() },
        accuracy: fix.position.accuracy_m.unwrap_or_default(),
        matched: fix.matched.as_str(),
    }))
}

fn cells(measurement: &Measurement) -> Result<Vec<MeasuredCell>, ApiError> {
    let (towers, radio) = (&measurement.cell_towers, measurement.radio_type.as_deref());
    if towers.is_empty() || towers.len() > CELLS_MAX {
        let message = format!("{} cells", towers.len());
        return Err(ApiError::field("cellTowers", message, format!("1 to {CELLS_MAX}")));
    }
    towers.iter().enumerate().map(|(place, tower)| cell(place, tower, radio)).collect()
}

fn cell(place: usize, tower: &Tower, radio: Option<&str>) -> Result<MeasuredCell, ApiError> {
    let wrong = |field: &str, found: &dyn std::fmt::Display, allowed: &str| {
        let field = format!("cellTowers[{place}].{field}");
        ApiError::field(&field, format!("{field} {found} is not allowed"), allowed)
    };
    let radio = tower.radio_type.as_deref().or(radio).unwrap_or_default();
    let access = access(radio);
    let access = access.ok_or_else(|| wrong("radioType", &format!("{radio:?}"), RADIOS))?;
    let code = |field: &str, number: u64, least: u16| {
        let code = u16::try_from(number).ok().filter(|code| (least..=999).contains(code));
        code.ok_or_else(|| wrong(field, &number, &format!("{least} to 999")))
    };
    let mcc = code("mobileCountryCode", tower.mobile_country_code, 1)?;
    let mnc = code("mobileNetworkCode", tower.mobile_network_code, 0)?;
    let digits = if mnc > 99 { 3 } else { 2 };
    let plmn = Plmn::new(mcc, mnc, digits);
    let plmn = plmn.ok_or_else(|| wrong("mobileCountryCode", &mcc, "1 to 999"))?;
    let at_most = |field: &str, number: Option<u64>, most: u64| match number {
        Some(number) if number > most => Err(wrong(field, &number, &format!("0 to {most}"))),
        number => Ok(number),
    };
    let area = at_most("locationAreaCode", tower.location_area_code, (1 << 24) - 1)?;
    let number = tower.cell_id.or(tower.new_radio_cell_id);
    let number = at_most("cellId", number, (1 << 36) - 1)?;
    let area = area.and_then(|area| u32::try_from(area).ok());
    Ok(MeasuredCell {
        tower: CellTower { access, plmn, area, cell: number },
        signal_dbm: tower.signal_strength.and_then(dbm),
    })
}

fn access(radio: &str) -> Option<RadioAccess> {
    let radios = [
        ("gsm", RadioAccess::Gsm),
        ("wcdma", RadioAccess::Umts),
        ("umts", RadioAccess::Umts),
        ("lte", RadioAccess::Lte),
        ("nr", RadioAccess::Nr),
    ];
    radios.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(radio)).map(|(_, access)| access)
}

/// Modems that measured nothing say 0 or 99.
#[expect(clippy::cast_possible_truncation, reason = "it is between -200 and 0")]
fn dbm(strength: f64) -> Option<i16> {
    (-200.0..0.0).contains(&strength).then_some(strength as i16)
}
