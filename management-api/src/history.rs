//! Stored messages and their numbers, as the Inspector shows them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use inspector::{
    HistoryError, HistoryItem, HistoryQuery, Insight, InsightsError, InsightsQuery, Interval,
    PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageToken,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::Iccid;

use crate::api::{ManagementApi, blocking};
use crate::devices::{protocol, require_known};
use crate::error::{ApiError, ErrorDetail};
use crate::extract::{DeviceId, Params, iccid};
use crate::paging::number;
use crate::times::{AskedSpan, Zone};

/// A stored message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryEntry {
    /// The device's SIM.
    iccid: String,
    /// When it was received, in the zone of the query's times, else in UTC.
    #[schema(example = "2022-02-21T12:47:30.085")]
    time: String,
    /// JSON as text where a template translated the message, else base64.
    #[schema(example = "{\"temperature\":11.6}")]
    payload: String,
    /// `UDP`, `COAP` or `LWM2M`.
    protocol: &'static str,
    /// The device: the ICCID.
    device_id: String,
    /// The topic, where the device named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// When the device measured it, where it said so, in the same zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<String>,
}

/// A page of stored messages, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenPage<T> {
    /// The messages. A page can be short although more follow.
    items: Vec<T>,
    /// Given as `nextToken` it leads to the next page. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    /// Given as `nextToken` it leads to the first page as it was, without newer messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token: Option<String>,
}

/// Messages of one protocol in one span of time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InsightEntry {
    /// The beginning of the span.
    #[schema(example = "2022-02-21T12:00:00.000")]
    time: String,
    /// `UDP`, `COAP` or `LWM2M`.
    protocol: &'static str,
    /// Messages received.
    amount: u64,
}

/// Numbers of messages over time; spans without messages are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Insights {
    /// One for each span and protocol.
    items: Vec<InsightEntry>,
    /// The length of a span: `1h` or `1d`.
    interval: &'static str,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceHistoryParams {
    /// RFC 3339; received at or after. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339; received before. Without it now.
    end_date_time: Option<String>,
    /// Messages on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 25, default = 10)]
    page_size: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`, in any case.
    protocol: Option<String>,
    /// A token of another page.
    next_token: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryParams {
    /// Only of this device.
    device_id: Option<String>,
    /// The same by another name.
    iccid: Option<String>,
    /// RFC 3339; received at or after. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339; received before. Without it now.
    end_date_time: Option<String>,
    /// Messages on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 25, default = 10)]
    page_size: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`, in any case.
    protocol: Option<String>,
    /// A token of another page.
    next_token: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceInsightsParams {
    /// RFC 3339. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339. Without it now.
    end_date_time: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`, in any case.
    protocol: Option<String>,
    /// `1h` or `1d`; days are those of UTC.
    #[param(default = "1d")]
    interval: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct InsightsParams {
    /// Only of this device.
    device_id: Option<String>,
    /// The same by another name.
    iccid: Option<String>,
    /// RFC 3339. Without it seven days before the end.
    start_date_time: Option<String>,
    /// RFC 3339. Without it now.
    end_date_time: Option<String>,
    /// `UDP`, `COAP` or `LWM2M`, in any case.
    protocol: Option<String>,
    /// `1h` or `1d`; days are those of UTC.
    #[param(default = "1d")]
    interval: Option<String>,
}

impl HistoryParams {
    fn split(self) -> Result<(Option<Iccid>, DeviceHistoryParams), ApiError> {
        let Self { device_id, iccid, .. } = &self;
        let device = one_device(device_id.as_deref(), iccid.as_deref())?;
        let Self { start_date_time, end_date_time, page_size, protocol, next_token, .. } = self;
        let rest =
            DeviceHistoryParams { start_date_time, end_date_time, page_size, protocol, next_token };
        Ok((device, rest))
    }
}

impl InsightsParams {
    fn split(self) -> Result<(Option<Iccid>, DeviceInsightsParams), ApiError> {
        let Self { device_id, iccid, start_date_time, end_date_time, protocol, interval } = self;
        let device = one_device(device_id.as_deref(), iccid.as_deref())?;
        Ok((device, DeviceInsightsParams { start_date_time, end_date_time, protocol, interval }))
    }
}

/// Stored messages of one device, the newest first.
#[utoipa::path(
    get, path = "/v1/inspect/devices/{deviceId}/history",
    operation_id = "getDeviceHistory", tag = "Inspector",
    params(("deviceId" = String, Path, description = "The ICCID."), DeviceHistoryParams),
    responses(
        (status = 200, description = "A page of messages.", body = TokenPage<HistoryEntry>),
        (status = 410, description = "The messages of this page were deleted.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn of_device(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    Params(params): Params<DeviceHistoryParams>,
) -> Result<Json<TokenPage<HistoryEntry>>, ApiError> {
    let page = history(&api, Some(id), params).await?;
    if page.items.is_empty() && page.next_token.is_none() {
        require_known(&api, id).await?;
    }
    Ok(Json(page))
}

/// Stored messages of all devices, the newest first.
#[utoipa::path(
    get, path = "/v1/inspect/devices/history",
    operation_id = "getHistory", tag = "Inspector", params(HistoryParams),
    responses(
        (status = 200, description = "A page of messages.", body = TokenPage<HistoryEntry>),
        (status = 410, description = "The messages of this page were deleted.",
            body = crate::error::ErrorBody),
    )
)]
pub(crate) async fn of_all(
    State(api): State<ManagementApi>,
    Params(params): Params<HistoryParams>,
) -> Result<Json<TokenPage<HistoryEntry>>, ApiError> {
    let (device, params) = params.split()?;
    history(&api, device, params).await.map(Json)
}

/// How many messages of one device were received, over time.
#[utoipa::path(
    get, path = "/v1/inspect/devices/{deviceId}/history/insights",
    operation_id = "getDeviceInsights", tag = "Inspector",
    params(("deviceId" = String, Path, description = "The ICCID."), DeviceInsightsParams),
    responses((status = 200, description = "The numbers.", body = Insights))
)]
pub(crate) async fn insights_of_device(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    Params(params): Params<DeviceInsightsParams>,
) -> Result<Json<Insights>, ApiError> {
    let found = insights(&api, Some(id), params).await?;
    if found.items.is_empty() {
        require_known(&api, id).await?;
    }
    Ok(Json(found))
}

/// How many messages were received, over time.
#[utoipa::path(
    get, path = "/v1/inspect/devices/history/insights",
    operation_id = "getInsights", tag = "Inspector", params(InsightsParams),
    responses((status = 200, description = "The numbers.", body = Insights))
)]
pub(crate) async fn insights_of_all(
    State(api): State<ManagementApi>,
    Params(params): Params<InsightsParams>,
) -> Result<Json<Insights>, ApiError> {
    let (device, params) = params.split()?;
    insights(&api, device, params).await.map(Json)
}

async fn history(
    api: &ManagementApi,
    device: Option<Iccid>,
    params: DeviceHistoryParams,
) -> Result<TokenPage<HistoryEntry>, ApiError> {
    let span =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let query = query(device, &span, &params)?;
    let inspector = api.services().inspector.clone();
    let page = blocking("reading the history", move || inspector.history(&query))
        .await?
        .map_err(history_error)?;
    let zone = span.zone();
    let items = page.items.into_iter().map(|item| history_entry(item, zone)).collect();
    Ok(TokenPage::new(items, page.next, page.first))
}

fn query(
    device: Option<Iccid>,
    span: &AskedSpan,
    params: &DeviceHistoryParams,
) -> Result<HistoryQuery, ApiError> {
    Ok(HistoryQuery {
        device,
        protocol: params.protocol.as_deref().map(protocol).transpose()?,
        from: span.start(),
        until: span.end(),
        page_size: page_size(params.page_size.as_deref())?,
        token: params.next_token.as_deref().map(page_token).transpose()?,
    })
}

/// Messages on a page of stored messages.
pub(crate) fn page_size(text: Option<&str>) -> Result<usize, ApiError> {
    let [default, max] =
        [PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    number("pageSize", text, default, max).map(|size| size as usize)
}

/// A token of another page.
pub(crate) fn page_token(text: &str) -> Result<PageToken, ApiError> {
    text.parse().map_err(|error: inspector::TokenError| {
        ApiError::field("nextToken", error.to_string(), "nextToken or firstToken of a page")
    })
}

impl<T> TokenPage<T> {
    /// A page with the tokens that lead on from it.
    pub(crate) fn new(items: Vec<T>, next: Option<PageToken>, first: Option<PageToken>) -> Self {
        let text = |token: Option<PageToken>| token.map(|token| token.to_string());
        Self { items, next_token: text(next), first_token: text(first) }
    }
}

/// Why there is no page of messages.
pub(crate) fn history_error(error: HistoryError) -> ApiError {
    match error {
        HistoryError::PageSize(_) | HistoryError::Window(_) | HistoryError::Token(_) => {
            ApiError::bad_request(error.to_string())
        }
        HistoryError::Gone { .. } => {
            ApiError::new(StatusCode::GONE, ErrorDetail::new(error.to_string()))
        }
        HistoryError::Log(_) | HistoryError::Templates(_) => {
            ApiError::internal("reading the history", error)
        }
    }
}

fn history_entry(item: HistoryItem, zone: Zone) -> HistoryEntry {
    HistoryEntry {
        iccid: item.iccid.to_string(),
        time: zone.print(item.time),
        payload: item.payload.as_str().to_owned(),
        protocol: item.protocol.as_str(),
        device_id: item.iccid.to_string(),
        topic: item.topic,
        measured: item.measured.map(|measured| zone.print(measured)),
    }
}

async fn insights(
    api: &ManagementApi,
    device: Option<Iccid>,
    params: DeviceInsightsParams,
) -> Result<Insights, ApiError> {
    let span =
        AskedSpan::parse(params.start_date_time.as_deref(), params.end_date_time.as_deref())?;
    let interval = interval(params.interval.as_deref())?;
    let query = InsightsQuery {
        device,
        protocol: params.protocol.as_deref().map(protocol).transpose()?,
        from: span.start(),
        until: span.end(),
        interval,
    };
    let inspector = api.services().inspector.clone();
    let found = blocking("counting messages", move || inspector.insights(query))
        .await?
        .map_err(insights_error)?;
    let zone = span.zone();
    let items = found.into_iter().map(|insight| insight_entry(insight, zone)).collect();
    Ok(Insights { items, interval: interval.as_str() })
}

fn interval(text: Option<&str>) -> Result<Interval, ApiError> {
    match text {
        None => Ok(Interval::Day),
        Some(text) => [Interval::Hour, Interval::Day]
            .into_iter()
            .find(|interval| interval.as_str() == text)
            .ok_or_else(|| {
                let message = format!("interval {text:?} is not allowed");
                ApiError::field("interval", message, "1h, 1d")
            }),
    }
}

fn insights_error(error: InsightsError) -> ApiError {
    match error {
        InsightsError::Window(_)
        | InsightsError::TooLong { .. }
        | InsightsError::TooMany { .. } => ApiError::bad_request(error.to_string()),
        InsightsError::Sqlite(_) | InsightsError::Log(_) => {
            ApiError::internal("counting messages", error)
        }
    }
}

fn insight_entry(insight: Insight, zone: Zone) -> InsightEntry {
    let Insight { time, protocol, amount } = insight;
    InsightEntry { time: zone.print(time), protocol: protocol.as_str(), amount }
}

/// `deviceId` and `iccid` are two names of one thing.
fn one_device(
    device_id: Option<&str>,
    iccid_text: Option<&str>,
) -> Result<Option<Iccid>, ApiError> {
    let device = device_id.map(|text| iccid("deviceId", text)).transpose()?;
    let card = iccid_text.map(|text| iccid("iccid", text)).transpose()?;
    match (device, card) {
        (Some(device), Some(card)) if device != card => Err(ApiError::field(
            "iccid",
            "deviceId and iccid name two devices",
            "one of the two, or the same in both",
        )),
        _ => Ok(device.or(card)),
    }
}
