//! Where devices were and are, as the Locator knows it.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use locator::{BoundingBox, LatestQuery, PositionsQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::{CellMatch, Iccid, Located, PositionSource, Timestamp};

use crate::api::{ManagementApi, blocking};
use crate::devices::require_known;
use crate::error::ApiError;
use crate::extract::{DeviceId, Params, iccid};
use crate::paging::{PAGE_MAX, Page, PageRequest, number};
use crate::times::AskedSpan;

/// Positions on a page, where the client names no number and at most, as documented.
const PAGE_SIZE: u32 = 100;
/// How far back positions are asked for, as documented.
const SPAN_MAX: Duration = Duration::from_hours(7 * 24);
const SPAN_DEFAULT: Duration = SPAN_MAX;
/// The span of activities without one, as documented.
const ACTIVITY_DEFAULT: Duration = Duration::from_hours(24);
/// Positions of a summary at most: the first, the last, and some between.
const SUMMARY_MAX: usize = 10;
/// The probability with which a device is within the accuracy.
const CONFIDENCE: f64 = 0.68;

/// A position.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PositionEntry {
    /// The device, in lists of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    /// Longitude and latitude, in degrees (WGS 84).
    #[schema(example = json!([24.105078, 56.946285]))]
    coordinate: [f64; 2],
    /// When the device was there.
    #[schema(example = "2026-11-21T08:15:30.042Z")]
    sample_time: String,
    /// `GPS` or `CellTower`.
    source: &'static str,
    /// How accurate it is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Accuracy>,
}

/// How accurate a position is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accuracy {
    /// The radius in metres within which the device is with the probability below.
    #[schema(example = 303.0)]
    horizontal_accuracy: f64,
    /// The probability.
    #[schema(example = 0.68)]
    horizontal_confidence_level: f64,
    /// What the position was found by: `cell`, `cells`, `area` or `network`.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<&'static str>,
}

/// A page of positions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PositionPage {
    /// The positions of this page.
    coordinates: Vec<PositionEntry>,
    /// The number of this page, from 1.
    page: u32,
    /// How many pages there are.
    page_amount: u64,
}

/// An attempt to locate a device by its cell.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Activity {
    /// The device.
    iccid: String,
    /// When it was in the cell.
    sample_time: String,
    /// The cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    tower_metadata: Option<Tower>,
    /// Where the cell is, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    tower_location: Option<TowerLocation>,
    /// How accurate that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution_metadata: Option<Accuracy>,
    /// `2G`, `3G`, `3.5G`, `4G`, `NB-IoT`, `LTE-M` or `5G`.
    radio_access_type: &'static str,
    /// Always `BASIC`: by the cell database.
    resolution_mode: &'static str,
    /// `SUCCEEDED` or `FAILED`.
    location_resolution_status: &'static str,
}

/// A cell, by the names of the documented API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tower {
    /// The country.
    #[serde(rename = "MCC")]
    mcc: String,
    /// The network.
    #[serde(rename = "MNC")]
    mnc: String,
    /// The location or tracking area.
    #[serde(rename = "LAC", skip_serializing_if = "Option::is_none")]
    lac: Option<String>,
    /// The cell.
    #[serde(rename = "CellID", skip_serializing_if = "Option::is_none")]
    cell_id: Option<String>,
}

/// Where a cell is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TowerLocation {
    /// Degrees east.
    longitude: f64,
    /// Degrees north.
    latitude: f64,
}

/// The attempts to locate a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Activities {
    /// The newest first.
    items: Vec<Activity>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct PositionsParams {
    /// `ALL`, or `SUMMARY` for the first, the last and some between.
    #[param(default = "ALL")]
    mode: Option<String>,
    /// `GPS` or `CellTower`.
    source: Option<String>,
    /// RFC 3339; sampled at or after, at most seven days ago.
    start_date_time: Option<String>,
    /// RFC 3339; sampled before.
    end_date_time: Option<String>,
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Positions on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 100)]
    page_size: Option<String>,
    /// `sampleTime` or `-sampleTime`.
    #[param(default = "-sampleTime")]
    sort: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct LatestParams {
    /// Only of this device.
    device_id: Option<String>,
    /// Only east of this. West greater than east goes over the antimeridian.
    longitude_from: Option<f64>,
    /// Only west of this.
    longitude_to: Option<f64>,
    /// Only north of this.
    latitude_from: Option<f64>,
    /// Only south of this.
    latitude_to: Option<f64>,
    /// Only devices whose newest position is of this source: `GPS` or `CellTower`.
    source: Option<String>,
    /// RFC 3339; sampled at or after.
    start_date_time: Option<String>,
    /// RFC 3339; sampled before.
    end_date_time: Option<String>,
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Positions on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 100)]
    page_size: Option<String>,
    /// `sampleTime` or `-sampleTime`.
    #[param(default = "-sampleTime")]
    sort: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ActivityParams {
    /// RFC 3339; at most seven days ago. Without it a day before the end.
    start_date_time: Option<String>,
    /// RFC 3339. Without it now.
    end_date_time: Option<String>,
}

/// The positions of a device.
#[utoipa::path(
    get, path = "/v1/locate/devices/{deviceId}/positions",
    operation_id = "getDevicePositions", tag = "Locator",
    params(("deviceId" = String, Path, description = "The ICCID."), PositionsParams),
    responses((status = 200, description = "A page of positions.", body = PositionPage))
)]
pub(crate) async fn of_device(
    State(api): State<ManagementApi>,
    DeviceId(device): DeviceId,
    Params(params): Params<PositionsParams>,
) -> Result<Json<PositionPage>, ApiError> {
    let request = page_request(params.page.as_deref(), params.page_size.as_deref())?;
    let is_summary = is_summary(params.mode.as_deref())?;
    let ascending = is_ascending(params.sort.as_deref())?;
    let source = source(params.source.as_deref())?;
    let asked =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let (from, until) = span(asked, SPAN_DEFAULT);
    let query = PositionsQuery { device, from, until, source };
    let locator = api.services().locator.clone();
    let found = blocking("reading positions", move || locator.positions(&query)).await?;
    let mut found = found.map_err(|error| ApiError::internal("reading positions", error))?;
    if found.is_empty() {
        require_known(&api, device).await?;
    }
    if is_summary {
        found = summary(found);
    }
    if ascending {
        found.reverse();
    }
    Ok(Json(page(&request.slice(found), false)))
}

/// The newest position of each device.
#[utoipa::path(
    get, path = "/v1/locate/positions/latest",
    operation_id = "getLatestPositions", tag = "Locator", params(LatestParams),
    responses((status = 200, description = "A page of positions.", body = PositionPage))
)]
pub(crate) async fn latest(
    State(api): State<ManagementApi>,
    Params(params): Params<LatestParams>,
) -> Result<Json<PositionPage>, ApiError> {
    let request = page_request(params.page.as_deref(), params.page_size.as_deref())?;
    let asked =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let query = LatestQuery {
        device: params.device_id.as_deref().map(|id| iccid("deviceId", id)).transpose()?,
        bounds: bounds(&params)?,
        source: source(params.source.as_deref())?,
        from: asked.start(),
        until: asked.end(),
        oldest_first: is_ascending(params.sort.as_deref())?,
    };
    let locator = api.services().locator.clone();
    let latest = move || locator.latest(&query, request.skip(), request.take());
    let (found, amount) = blocking("reading positions", latest).await?;
    Ok(Json(page(&request.page_of(found, amount as u64), true)))
}

/// The attempts to locate a device by its cell.
#[utoipa::path(
    get, path = "/v1/locate/devices/{deviceId}/activity",
    operation_id = "getDeviceActivity", tag = "Locator",
    params(("deviceId" = String, Path, description = "The ICCID."), ActivityParams),
    responses((status = 200, description = "The attempts.", body = Activities))
)]
pub(crate) async fn activity(
    State(api): State<ManagementApi>,
    DeviceId(device): DeviceId,
    Params(params): Params<ActivityParams>,
) -> Result<Json<Activities>, ApiError> {
    let asked =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let (from, until) = span(asked, ACTIVITY_DEFAULT);
    let query = PositionsQuery { device, from, until, source: None };
    let locator = api.services().locator.clone();
    let found = blocking("reading activities", move || locator.activity(&query)).await?;
    let found = found.map_err(|error| ApiError::internal("reading activities", error))?;
    if found.is_empty() {
        require_known(&api, device).await?;
    }
    Ok(Json(Activities { items: found.iter().filter_map(attempt).collect() }))
}

fn page_request(page: Option<&str>, size: Option<&str>) -> Result<PageRequest, ApiError> {
    let page = number("page", page, 1, PAGE_MAX)?;
    Ok(PageRequest { page, size: number("pageSize", size, PAGE_SIZE, PAGE_SIZE)? })
}

fn is_summary(mode: Option<&str>) -> Result<bool, ApiError> {
    match mode {
        None | Some("ALL") => Ok(false),
        Some("SUMMARY") => Ok(true),
        Some(other) => {
            Err(ApiError::field("mode", format!("mode {other:?} is not known"), "ALL, SUMMARY"))
        }
    }
}

fn is_ascending(sort: Option<&str>) -> Result<bool, ApiError> {
    match sort {
        None | Some("-sampleTime") => Ok(false),
        Some("sampleTime") => Ok(true),
        Some(other) => {
            let message = format!("sort {other:?} is not known");
            Err(ApiError::field("sort", message, "sampleTime, -sampleTime"))
        }
    }
}

fn source(text: Option<&str>) -> Result<Option<PositionSource>, ApiError> {
    let read = |text: &str| {
        text.parse().map_err(|_| {
            ApiError::field("source", format!("source {text:?} is not known"), "GPS, CellTower")
        })
    };
    text.map(read).transpose()
}

/// The span that is looked at: what was asked for, within the last seven days.
fn span(asked: AskedSpan, default: Duration) -> (Timestamp, Timestamp) {
    let now = Timestamp::from(SystemTime::now());
    // A position of this very moment is in it.
    let until = asked.end().unwrap_or(now.saturating_add(Duration::from_secs(1)));
    let from = asked.start().unwrap_or(until.saturating_sub(default));
    (from.max(now.saturating_sub(SPAN_MAX)), until)
}

fn bounds(params: &LatestParams) -> Result<Option<BoundingBox>, ApiError> {
    let LatestParams { longitude_from, longitude_to, latitude_from, latitude_to, .. } = params;
    let given = [longitude_from, longitude_to, latitude_from, latitude_to];
    if given.iter().all(|side| side.is_none()) {
        return Ok(None);
    }
    let side = |field: &str, value: Option<f64>, without: f64, most: f64| match value {
        Some(value) if (-most..=most).contains(&value) => Ok(value),
        Some(value) => {
            let message = format!("{field} {value} is not allowed");
            Err(ApiError::field(field, message, format!("-{most} to {most}")))
        }
        None => Ok(without),
    };
    Ok(Some(BoundingBox {
        west: side("longitudeFrom", *longitude_from, -180.0, 180.0)?,
        east: side("longitudeTo", *longitude_to, 180.0, 180.0)?,
        south: side("latitudeFrom", *latitude_from, -90.0, 90.0)?,
        north: side("latitudeTo", *latitude_to, 90.0, 90.0)?,
    }))
}

/// The first, the last, and some between, evenly.
fn summary(all: Vec<Located>) -> Vec<Located> {
    if all.len() <= SUMMARY_MAX {
        return all;
    }
    let last = all.len() - 1;
    (0..SUMMARY_MAX).filter_map(|n| all.get(n * last / (SUMMARY_MAX - 1)).cloned()).collect()
}

fn page(page: &Page<Located>, with_device: bool) -> PositionPage {
    let entry = |located: &Located| {
        let position = located.position?;
        let at = position.coordinates;
        Some(PositionEntry {
            device_id: with_device.then(|| located.iccid.to_string()),
            coordinate: [at.longitude(), at.latitude()],
            sample_time: located.sampled_at.to_string(),
            source: located.source.as_str(),
            metadata: accuracy(located),
        })
    };
    PositionPage {
        coordinates: page.items.iter().filter_map(entry).collect(),
        page: page.page,
        page_amount: page.page_amount,
    }
}

fn accuracy(located: &Located) -> Option<Accuracy> {
    Some(Accuracy {
        horizontal_accuracy: located.position?.accuracy_m?,
        horizontal_confidence_level: CONFIDENCE,
        matched: located.matched.map(match_name),
    })
}

pub(crate) const fn match_name(matched: CellMatch) -> &'static str {
    match matched {
        CellMatch::Cell => "cell",
        CellMatch::Cells => "cells",
        CellMatch::Area => "area",
        CellMatch::Network => "network",
    }
}

fn attempt(located: &Located) -> Option<Activity> {
    let cell = located.cell?;
    let place = located.position.map(|position| position.coordinates);
    Some(Activity {
        iccid: located.iccid.to_string(),
        sample_time: located.sampled_at.to_string(),
        tower_metadata: Some(Tower {
            mcc: format!("{:03}", cell.plmn.mcc()),
            mnc: cell.plmn.mnc_text(),
            lac: cell.area.map(|area| area.to_string()),
            cell_id: cell.cell.map(|cell| cell.to_string()),
        }),
        tower_location: place
            .map(|at| TowerLocation { longitude: at.longitude(), latitude: at.latitude() }),
        resolution_metadata: accuracy(located),
        radio_access_type: cell.access.as_str(),
        resolution_mode: "BASIC",
        location_resolution_status: if place.is_some() { "SUCCEEDED" } else { "FAILED" },
    })
}

/// The ICCID of a body.
pub(crate) fn device(text: Option<&str>) -> Result<Option<Iccid>, ApiError> {
    text.map(|id| iccid("deviceId", id)).transpose()
}
