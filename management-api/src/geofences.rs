//! Geofences, as documented: their shapes never change.

use std::str::FromStr;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use locator::{
    Area, Geofence as Stored, GeofenceChange, GeofenceError, GeofenceShape, InvalidShape,
    NAME_CHARS_MAX, NewGeofence,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::{Direction, PositionSource, Timestamp};

use crate::api::{ManagementApi, blocking};
use crate::devices::require_known;
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{Id, JsonBody, Params};
use crate::paging::{Page, PageRequest};
use crate::positions::device;

const PAGE_SIZE_MAX: u32 = 100;
const EVENTS: &str = "ENTER, EXIT";
const SOURCES: &str = "GPS, CellTower";

/// A geofence in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GeofenceEntry {
    /// Its id.
    #[schema(example = "Wg9ys5VqmSNN8M8YN2rv8")]
    id: String,
    /// Its name.
    name: String,
    /// When it was made.
    created: String,
    /// When it was last changed.
    updated: String,
    /// The only device that it is for; null for all.
    device_id: Option<String>,
    /// `polygon` or `circle`.
    #[serde(rename = "type")]
    kind: &'static str,
}

/// A geofence.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Geofence {
    /// Its id.
    #[schema(example = "Wg9ys5VqmSNN8M8YN2rv8")]
    id: String,
    /// Its name.
    name: String,
    /// When it was made.
    created: String,
    /// When it was last changed.
    updated: String,
    /// The only device that it is for; null for all.
    device_id: Option<String>,
    /// `polygon` or `circle`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `ENTER`, `EXIT`: what is told.
    event_types: Vec<&'static str>,
    /// `GPS`, `CellTower`: by which positions.
    event_sources: Vec<&'static str>,
    /// The rings of a polygon, `[longitude, latitude]`, to six decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinates: Option<Vec<Vec<[f64; 2]>>>,
    /// The centre of a circle, `[longitude, latitude]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    center: Option<[f64; 2]>,
    /// The radius of a circle, in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    radius: Option<f64>,
}

/// A geofence to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GeofenceCreate {
    /// 1 to 50 characters.
    #[schema(example = "depot", min_length = 1, max_length = 50)]
    name: String,
    /// `polygon` or `circle`.
    #[serde(rename = "type")]
    #[schema(example = "circle")]
    kind: String,
    /// Of a polygon: closed rings of at least four `[longitude, latitude]`; further rings are
    /// holes.
    coordinates: Option<Vec<Vec<[f64; 2]>>>,
    /// Of a circle: `[longitude, latitude]`; without it the place where the device was last.
    center: Option<[f64; 2]>,
    /// Of a circle: 50 to 30,000 metres.
    radius: Option<f64>,
    /// `ENTER`, `EXIT`; both without it.
    event_types: Option<Vec<String>>,
    /// `GPS`, `CellTower`; both without it.
    event_sources: Option<Vec<String>>,
    /// The only device that it is for.
    device_id: Option<String>,
}

/// What changes of a geofence.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct GeofencePatch {
    /// 1 to 50 characters.
    #[schema(min_length = 1, max_length = 50)]
    name: Option<String>,
    /// `ENTER`, `EXIT`.
    event_types: Option<Vec<String>>,
    /// `GPS`, `CellTower`.
    event_sources: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Geofences on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 10)]
    page_size: Option<String>,
}

/// List geofences, the oldest first.
#[utoipa::path(
    get, path = "/v1/locate/geofences",
    operation_id = "listGeofences", tag = "Locator", params(ListParams),
    responses((status = 200, description = "A page of geofences.", body = Page<GeofenceEntry>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size }): Params<ListParams>,
) -> Result<Json<Page<GeofenceEntry>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let (listed, amount) = api.services().locator.geofences(request.skip(), request.take());
    let entry = |geofence: Stored| GeofenceEntry {
        kind: kind(&geofence.shape),
        id: geofence.id,
        name: geofence.name,
        created: geofence.created.to_string(),
        updated: geofence.updated.to_string(),
        device_id: geofence.device.map(|device| device.to_string()),
    };
    Ok(Json(request.page_of(listed, amount as u64).map(entry)))
}

/// Make a geofence.
#[utoipa::path(
    post, path = "/v1/locate/geofences",
    operation_id = "createGeofence", tag = "Locator", request_body = GeofenceCreate,
    responses(
        (status = 201, description = "The geofence.", body = Geofence),
        (status = 403, description = "There are enough.", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(api): State<ManagementApi>,
    JsonBody(body): JsonBody<GeofenceCreate>,
) -> Result<(StatusCode, Json<Geofence>), ApiError> {
    let new = NewGeofence {
        area: area(&body)?,
        device: device(body.device_id.as_deref())?,
        name: body.name,
        directions: words("eventTypes", body.event_types, EVENTS, direction)?
            .unwrap_or(vec![Direction::Enter, Direction::Exit]),
        sources: words("eventSources", body.event_sources, SOURCES, source)?
            .unwrap_or(vec![PositionSource::Gps, PositionSource::CellTower]),
    };
    if let Some(device) = new.device {
        require_known(&api, device).await?;
    }
    let locator = api.services().locator.clone();
    let now = Timestamp::from(SystemTime::now());
    let made = blocking("making a geofence", move || locator.create_geofence(new, now)).await?;
    made.map(|made| (StatusCode::CREATED, Json(shown(made)))).map_err(|error| refusal("", error))
}

/// A geofence.
#[utoipa::path(
    get, path = "/v1/locate/geofences/{geofenceId}",
    operation_id = "getGeofence", tag = "Locator",
    params(("geofenceId" = String, Path, description = "The geofence.")),
    responses((status = 200, description = "The geofence.", body = Geofence))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<Geofence>, ApiError> {
    let found = api.services().locator.geofence(&id);
    found.map(|found| Json(shown(found))).ok_or_else(|| ApiError::not_found("geofence", id))
}

/// Change name, events or sources of a geofence.
#[utoipa::path(
    patch, path = "/v1/locate/geofences/{geofenceId}",
    operation_id = "changeGeofence", tag = "Locator", request_body = GeofencePatch,
    params(("geofenceId" = String, Path, description = "The geofence.")),
    responses((status = 200, description = "The geofence.", body = Geofence))
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(body): JsonBody<GeofencePatch>,
) -> Result<Json<Geofence>, ApiError> {
    let change = GeofenceChange {
        name: body.name,
        directions: words("eventTypes", body.event_types, EVENTS, direction)?,
        sources: words("eventSources", body.event_sources, SOURCES, source)?,
    };
    let (locator, geofence) = (api.services().locator.clone(), id.clone());
    let now = Timestamp::from(SystemTime::now());
    let changed =
        blocking("changing a geofence", move || locator.change_geofence(&geofence, change, now));
    changed.await?.map(|changed| Json(shown(changed))).map_err(|error| refusal(&id, error))
}

/// Remove a geofence.
#[utoipa::path(
    delete, path = "/v1/locate/geofences/{geofenceId}",
    operation_id = "deleteGeofence", tag = "Locator",
    params(("geofenceId" = String, Path, description = "The geofence.")),
    responses((status = 204, description = "It is gone."))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    let (locator, geofence) = (api.services().locator.clone(), id.clone());
    let deleted =
        blocking("removing a geofence", move || locator.delete_geofence(&geofence)).await?;
    deleted.map(|()| StatusCode::NO_CONTENT).map_err(|error| refusal(&id, error))
}

fn area(body: &GeofenceCreate) -> Result<Area, ApiError> {
    let missing = |field: &str, allowed: &str| {
        ApiError::field(field, format!("a {} needs {field}", body.kind), allowed)
    };
    let superfluous =
        |field: &str| ApiError::field(field, format!("a {} has no {field}", body.kind), "nothing");
    match (body.kind.as_str(), &body.coordinates, body.center, body.radius) {
        ("polygon", _, Some(_), _) => Err(superfluous("center")),
        ("polygon", _, _, Some(_)) => Err(superfluous("radius")),
        ("polygon", Some(rings), None, None) => Ok(Area::Polygon(rings.clone())),
        ("polygon", None, ..) => Err(missing("coordinates", "rings of [longitude, latitude]")),
        ("circle", Some(_), ..) => Err(superfluous("coordinates")),
        ("circle", None, center, Some(radius_m)) => Ok(Area::Circle { center, radius_m }),
        ("circle", None, _, None) => Err(missing("radius", "50 to 30000")),
        (other, ..) => {
            let message = format!("type {other:?} is not known");
            Err(ApiError::field("type", message, "polygon, circle"))
        }
    }
}

fn words<T: PartialEq>(
    field: &str,
    words: Option<Vec<String>>,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, ApiError> {
    let Some(words) = words else { return Ok(None) };
    let mut found = Vec::new();
    for word in &words {
        let value = read(word).ok_or_else(|| {
            ApiError::field(field, format!("{field} {word:?} is not known"), allowed)
        })?;
        // Twice the same is once.
        if !found.contains(&value) {
            found.push(value);
        }
    }
    Ok(Some(found))
}

fn direction(word: &str) -> Option<Direction> {
    [Direction::Enter, Direction::Exit].into_iter().find(|known| known.as_str() == word)
}

fn source(word: &str) -> Option<PositionSource> {
    PositionSource::from_str(word).ok()
}

fn refusal(id: &str, error: GeofenceError) -> ApiError {
    let text = error.to_string();
    match error {
        GeofenceError::Shape(InvalidShape::Radius(_)) => {
            ApiError::field("radius", text, "50 to 30000")
        }
        GeofenceError::Shape(_) => {
            ApiError::field("coordinates", text, "closed rings that do not cross")
        }
        GeofenceError::Center(_) => {
            ApiError::field("center", text, "[longitude, latitude] on the globe")
        }
        GeofenceError::NoCenter => ApiError::field("center", text, "[longitude, latitude]"),
        GeofenceError::Name(_) => {
            ApiError::field("name", text, format!("1 to {NAME_CHARS_MAX} characters"))
        }
        GeofenceError::Empty(field) => ApiError::field(field, text, "at least one"),
        GeofenceError::TooMany(_) => ApiError::new(StatusCode::FORBIDDEN, ErrorDetail::new(text)),
        GeofenceError::Unknown => ApiError::not_found("geofence", id),
        GeofenceError::Store(cause) => ApiError::internal("a geofence", cause),
    }
}

fn kind(shape: &GeofenceShape) -> &'static str {
    match shape {
        GeofenceShape::Polygon(_) => "polygon",
        GeofenceShape::Circle { .. } => "circle",
    }
}

fn shown(geofence: Stored) -> Geofence {
    let kind = kind(&geofence.shape);
    let (coordinates, center, radius) = match geofence.shape {
        GeofenceShape::Polygon(rings) => (Some(rings), None, None),
        GeofenceShape::Circle { center, radius_m } => (None, Some(center), Some(radius_m)),
    };
    Geofence {
        id: geofence.id,
        name: geofence.name,
        created: geofence.created.to_string(),
        updated: geofence.updated.to_string(),
        device_id: geofence.device.map(|device| device.to_string()),
        kind,
        event_types: geofence.directions.iter().map(|one| one.as_str()).collect(),
        event_sources: geofence.sources.iter().map(|one| one.as_str()).collect(),
        coordinates,
        center,
        radius,
    }
}
