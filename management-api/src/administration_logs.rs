//! The administration log.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::IntoResponse;
use inspector::{LogItem, LogPayloadError, LogQuery, LogsError, StatsError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::EventId;

use crate::access::unix_now_s;
use crate::api::{ManagementApi, PREFIX, blocking};
use crate::connection::Peer;
use crate::error::ApiError;
use crate::extract::{Id, Params, iccid};
use crate::links::public_url;
use crate::messages::event_id;
use crate::paging::{self, Page, PageRequest};
use crate::times::AskedSpan;

/// Entries on a page, as documented.
const PAGE_SIZE_MAX: u32 = 25;

/// An entry of the administration log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdministrationLog {
    /// The entry's id.
    id: String,
    /// The account number.
    customer_id: String,
    /// When it was written, in UTC.
    #[schema(example = "2023-02-10T09:21:15.634Z")]
    timestamp: String,
    /// What it is about.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "DEVICE")]
    kind: vocabulary::NoticeKind,
    /// The stable text.
    #[schema(example = "Translator[UserPayloadError]")]
    message: String,
    /// The text for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "Asset path:longitude, Error: can't extract [0:8] from 1 bytes")]
    description: String,
    /// The id in the form of the event envelope.
    trace_id: String,
    /// `info` or `error`.
    #[schema(value_type = String, example = "error")]
    category: vocabulary::NoticeCategory,
    /// The subscriber.
    #[serde(skip_serializing_if = "Option::is_none")]
    imsi: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    /// The SIM.
    #[serde(skip_serializing_if = "Option::is_none")]
    iccid: Option<String>,
    /// `<customer>/<id>`, where there is a payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_reference: Option<String>,
    /// The geofence.
    #[serde(skip_serializing_if = "Option::is_none")]
    geofence_id: Option<String>,
    /// The integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    integration_id: Option<String>,
}

/// The administration log of seven days in numbers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogStatistics {
    /// Devices that an entry is about.
    total_unique_devices: u64,
    /// Days with entries, the oldest first.
    administration_logs: Vec<LogDay>,
}

/// One day of the administration log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogDay {
    /// The day, in the time zone of the query.
    #[schema(example = "2022-03-07")]
    day: String,
    /// Entries.
    amount: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Entries on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 25, default = 10)]
    page_size: Option<String>,
    /// Fields: `geofenceId`, `integrationId`, `category`, `iccid`, `type`, `startDateTime`,
    /// `endDateTime`.
    #[param(example = "type:device,iccid:8988280666000002864")]
    q: Option<String>,
    /// Only about this SIM, as in `q`.
    iccid: Option<String>,
    /// RFC 3339, as in `q`. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339, as in `q`. Without it now.
    end_date_time: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatisticsParams {
    /// The IANA name of the time zone whose days are counted.
    #[param(value_type = String, example = "Europe/Amsterdam")]
    timezone: Option<String>,
    /// `info` or `error`.
    category: Option<String>,
}

#[derive(Clone, Copy)]
enum Field {
    Geofence,
    Integration,
    Category,
    Iccid,
    Kind,
    Start,
    End,
}

const FIELDS: [(&str, Field); 7] = [
    ("geofenceId", Field::Geofence),
    ("integrationId", Field::Integration),
    ("category", Field::Category),
    ("iccid", Field::Iccid),
    ("type", Field::Kind),
    ("startDateTime", Field::Start),
    ("endDateTime", Field::End),
];

impl From<LogItem> for AdministrationLog {
    fn from(item: LogItem) -> Self {
        Self {
            id: item.id.to_string(),
            customer_id: item.customer_id,
            timestamp: item.timestamp.to_string(),
            kind: item.kind,
            message: item.message,
            description: item.description,
            trace_id: item.trace_id,
            category: item.category,
            imsi: item.imsi.map(|imsi| imsi.to_string()),
            ip: item.ip.map(|ip| ip.to_string()),
            iccid: item.iccid.map(|iccid| iccid.to_string()),
            payload_reference: item.payload_reference,
            geofence_id: item.geofence_id,
            integration_id: item.integration_id,
        }
    }
}

/// List entries, the newest first.
#[utoipa::path(
    get, path = "/v1/administrationLogs",
    operation_id = "listAdministrationLogs", tag = "Administration log", params(ListParams),
    responses((status = 200, description = "A page of entries.", body = Page<AdministrationLog>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AdministrationLog>>, ApiError> {
    let query = query(params)?;
    let inspector = api.services().inspector.clone();
    let page =
        blocking("reading the administration log", move || inspector.administration_logs(&query))
            .await?
            .map_err(logs_error)?;
    Ok(Json(Page {
        items: page.items.into_iter().map(AdministrationLog::from).collect(),
        page: u32::try_from(page.page).unwrap_or(u32::MAX),
        page_amount: page.page_amount as u64,
    }))
}

/// Entries per day, over seven days.
#[utoipa::path(
    get, path = "/v1/administrationLogs/stats",
    operation_id = "getAdministrationLogStats", tag = "Administration log",
    params(StatisticsParams),
    responses((status = 200, description = "The numbers.", body = LogStatistics))
)]
pub(crate) async fn statistics(
    State(api): State<ManagementApi>,
    Params(StatisticsParams { timezone, category }): Params<StatisticsParams>,
) -> Result<Json<LogStatistics>, ApiError> {
    let allowed = "an IANA name, e.g. Europe/Amsterdam";
    let timezone =
        timezone.ok_or_else(|| ApiError::field("timezone", "timezone is missing", allowed))?;
    let category = category.map(|text| word("category", &text.to_ascii_lowercase())).transpose()?;
    let inspector = api.services().inspector.clone();
    let found = blocking("counting the administration log", move || {
        inspector.administration_log_stats(&timezone, category)
    })
    .await?;
    let found = found.map_err(|error| match error {
        StatsError::UnknownTimeZone { .. } => {
            ApiError::field("timezone", error.to_string(), allowed)
        }
        StatsError::Log(_) => ApiError::internal("counting the administration log", error),
    })?;
    let days = found.administration_logs.into_iter();
    let days = days.map(|day| LogDay { day: day.day.to_string(), amount: day.amount });
    Ok(Json(LogStatistics {
        total_unique_devices: found.total_unique_devices,
        administration_logs: days.collect(),
    }))
}

/// A URL under which the payload of an entry lies for a few minutes.
#[utoipa::path(
    get, path = "/v1/administrationLogs/{logId}/payload",
    operation_id = "getAdministrationLogPayload", tag = "Administration log",
    params(("logId" = String, Path, description = "The entry's id.")),
    responses((status = 200, description = "The URL.", body = String,
        content_type = "text/x-uri"))
)]
pub(crate) async fn payload_link(
    State(api): State<ManagementApi>,
    Extension(peer): Extension<Peer>,
    Id(text): Id,
    (headers, uri): (HeaderMap, Uri),
) -> Result<impl IntoResponse, ApiError> {
    let id = event_id("logId", &text)?;
    payload_of(&api, id).await?;
    let base = public_url(&api, peer, &headers, &uri)?;
    let query = api.links().query(id, unix_now_s());
    let url = format!("{base}{PREFIX}/simgate/v1/payloads/{id}?{query}");
    Ok(([(header::CONTENT_TYPE, "text/x-uri")], url))
}

/// The payload of the message that an entry is about.
pub(crate) async fn payload_of(api: &ManagementApi, id: EventId) -> Result<Vec<u8>, ApiError> {
    let inspector = api.services().inspector.clone();
    let found = blocking("reading a payload", move || inspector.log_payload(id)).await?;
    found.map_err(|error| match error {
        LogPayloadError::UnknownNotice(_)
        | LogPayloadError::WithoutPayload(_)
        | LogPayloadError::Gone(_) => ApiError::not_found("the payload of", id),
        LogPayloadError::Malformed(_) | LogPayloadError::Log(_) => {
            ApiError::internal("reading a payload", error)
        }
    })
}

fn query(params: ListParams) -> Result<LogQuery, ApiError> {
    let ListParams { page, page_size, q, iccid: card, start_date_time, end_date_time } = params;
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let mut query =
        LogQuery { page: request.page as usize, page_size: request.take(), ..LogQuery::default() };
    let (mut start, mut end) = (start_date_time.as_deref(), end_date_time.as_deref());
    let mut card = card.as_deref();
    for (field, value) in paging::filters(q.as_deref(), &FIELDS)? {
        match field {
            Field::Geofence => query.geofence = Some(value.to_owned()),
            Field::Integration => query.integration = Some(value.to_owned()),
            // The documented sample writes a type in lower case.
            Field::Category => {
                query.category = Some(word("category", &value.to_ascii_lowercase())?);
            }
            Field::Kind => query.kind = Some(word("type", &value.to_ascii_uppercase())?),
            Field::Iccid => card = Some(value),
            Field::Start => start = Some(value),
            Field::End => end = Some(value),
        }
    }
    let span = AskedSpan::parse(start, end)?;
    query.iccid = card.map(|text| iccid("iccid", text)).transpose()?;
    (query.from, query.until) = (span.start(), span.end());
    Ok(query)
}

/// Reads one of the words that an enum is written as.
fn word<T: DeserializeOwned>(field: &str, text: &str) -> Result<T, ApiError> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|_| {
        let allowed = match field {
            "category" => "info, error",
            _ => "INTEGRATION, DEVICE, GENERAL, LOCATION, LIFECYCLE",
        };
        ApiError::field(field, format!("{field} {text:?} is not known"), allowed)
    })
}

fn logs_error(error: LogsError) -> ApiError {
    match error {
        LogsError::Page { .. } | LogsError::PageSize(_) | LogsError::Window(_) => {
            ApiError::bad_request(error.to_string())
        }
        LogsError::Log(_) => ApiError::internal("reading the administration log", error),
    }
}
