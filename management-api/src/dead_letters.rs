//! Dead letters: events that were given up, with the reason.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloud_integrator::{Answer, DeadLetterEntry, DeadLetterFilter, FailureClass};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::ManagementApi;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody, Params, iccid};
use crate::integration_errors::change_error;
use crate::messages::event_id;
use crate::paging::{Page, PageRequest};
use crate::replays::{Replay, replay_error};
use crate::times::AskedSpan;

/// Dead letters on a page: 50 pages hold half of the most that are kept.
const PAGE_SIZE_MAX: u32 = 1_000;
/// Ids in one request at most.
const IDS_MAX: usize = 1_000;

/// An event that was given up. Its message stays stored as long as messages are kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetter {
    /// The event's id, as in the header of a webhook.
    #[schema(example = "msg_01GM0H4V0Q0123456789ABCDEF")]
    id: String,
    /// The same id in the form of the event envelope.
    #[schema(example = "1-6393505d-67fa8489fb9c791fcddd43f0")]
    trace_id: String,
    /// The device that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    iccid: Option<String>,
    /// Its type.
    #[schema(example = "TELEMETRY_DATA")]
    event_type: String,
    /// When the gateway accepted it, in UTC.
    received_time: String,
    /// When it was given up, in UTC.
    dead_time: String,
    /// Why the last attempt failed.
    reason: DeadLetterReason,
    /// What the other side answered to the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<DeadLetterResponse>,
    /// How often it was tried.
    attempts: u32,
    /// The replay that is to deliver it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_id: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterReason {
    /// A word to filter by.
    #[schema(example = "refused")]
    pub(crate) class: String,
    /// What happened, for a person.
    #[schema(example = "the endpoint answered 422")]
    pub(crate) text: String,
}

/// What the other side answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterResponse {
    /// The HTTP status, or the reason code of MQTT.
    #[schema(example = 422)]
    code: u16,
    /// The beginning of its body.
    body: String,
}

/// How many dead letters there were.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetterCount {
    /// Dead letters.
    dead_letters: usize,
}

/// A replay of dead letters that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetterReplay {
    /// The replay.
    replay: Replay,
    /// How many dead letters it is to deliver.
    dead_letters: usize,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only about this device.
    iccid: Option<String>,
    /// RFC 3339; received at or after.
    start_date_time: Option<String>,
    /// RFC 3339; received before.
    end_date_time: Option<String>,
    /// Only of this class of failure, e.g. `refused`.
    reason: Option<String>,
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Dead letters on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1_000, default = 10)]
    page_size: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteParams {
    /// Only about this device.
    iccid: Option<String>,
    /// RFC 3339; received at or after.
    start_date_time: Option<String>,
    /// RFC 3339; received before.
    end_date_time: Option<String>,
    /// Only of this class of failure, e.g. `refused`.
    reason: Option<String>,
    /// `true` for all of them, instead of the others.
    #[param(value_type = Option<bool>)]
    all: Option<String>,
}

/// Which dead letters to deliver again: `all`, or those that everything else fits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeadLetterSelection {
    /// These, in either form of the id.
    #[schema(example = json!(["msg_01GM0H4V0Q0123456789ABCDEF"]), min_items = 1, max_items = 1_000)]
    ids: Option<Vec<String>>,
    /// About this device.
    #[schema(example = "8988280666000002864")]
    iccid: Option<String>,
    /// RFC 3339; received at or after.
    start_date_time: Option<String>,
    /// RFC 3339; received before.
    end_date_time: Option<String>,
    /// Of this class of failure.
    #[schema(example = "refused")]
    reason: Option<String>,
    /// All of them, instead of the others.
    #[serde(default)]
    all: bool,
}

/// The parts of a filter as they were written.
#[derive(Default)]
struct Written<'a> {
    ids: Option<&'a [String]>,
    iccid: Option<&'a str>,
    start: Option<&'a str>,
    end: Option<&'a str>,
    reason: Option<&'a str>,
}

impl Written<'_> {
    fn is_empty(&self) -> bool {
        let Self { ids, iccid, start, end, reason } = self;
        ids.is_none() && [iccid, start, end, reason].into_iter().all(|part| part.is_none())
    }

    fn filter(&self) -> Result<DeadLetterFilter, ApiError> {
        let span = AskedSpan::parse(self.start, self.end)?;
        Ok(DeadLetterFilter {
            ids: self.event_ids()?,
            iccid: self.iccid.map(|text| iccid("iccid", text)).transpose()?,
            from: span.start(),
            until: span.end(),
            class: self.reason.map(class).transpose()?,
        })
    }

    /// For what cannot be undone: the filter, or expressly everything.
    fn filter_or_all(&self, all: bool) -> Result<DeadLetterFilter, ApiError> {
        if all == self.is_empty() {
            return self.filter();
        }
        let message = if all {
            "all = true does not go together with a filter"
        } else {
            "nothing says which dead letters are meant"
        };
        Err(ApiError::field("all", message, "a filter, or all = true for all of them"))
    }

    fn event_ids(&self) -> Result<Vec<vocabulary::EventId>, ApiError> {
        let Some(ids) = self.ids else { return Ok(Vec::new()) };
        if !(1..=IDS_MAX).contains(&ids.len()) {
            let message = format!("{} ids", ids.len());
            return Err(ApiError::field("ids", message, format!("1 to {IDS_MAX}")));
        }
        ids.iter().map(|id| event_id("ids", id)).collect()
    }
}

impl From<DeadLetterEntry> for DeadLetter {
    fn from(entry: DeadLetterEntry) -> Self {
        Self {
            id: entry.id.to_string(),
            trace_id: entry.id.trace(),
            iccid: entry.iccid.map(|iccid| iccid.to_string()),
            event_type: entry.event_type,
            received_time: entry.received_at.to_string(),
            dead_time: entry.died_at.to_string(),
            reason: DeadLetterReason { class: entry.class, text: entry.reason },
            response: entry.answer.map(DeadLetterResponse::from),
            attempts: entry.attempts,
            replay_id: entry.replay,
        }
    }
}

impl From<Answer> for DeadLetterResponse {
    fn from(answer: Answer) -> Self {
        Self { code: answer.code, body: answer.text }
    }
}

/// List the dead letters of an integration, in the order in which they were received.
#[utoipa::path(
    get, path = "/simgate/v1/integrations/{integrationId}/deadLetters",
    operation_id = "listDeadLetters", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id."), ListParams),
    responses((status = 200, description = "A page of dead letters.", body = Page<DeadLetter>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Id(id): Id,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<DeadLetter>>, ApiError> {
    let ListParams { page, page_size, iccid, start_date_time, end_date_time, reason } = params;
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let written = Written {
        ids: None,
        iccid: iccid.as_deref(),
        start: start_date_time.as_deref(),
        end: end_date_time.as_deref(),
        reason: reason.as_deref(),
    };
    let (filter, part) = (written.filter()?, (request.skip(), request.take()));
    let found = api.services().integrations.dead_letters(&id, filter, part).await;
    let (entries, total) = found.map_err(change_error)?;
    Ok(Json(request.page_of(entries, total as u64).map(DeadLetter::from)))
}

/// Forget dead letters. Their messages stay stored.
#[utoipa::path(
    delete, path = "/simgate/v1/integrations/{integrationId}/deadLetters",
    operation_id = "deleteDeadLetters", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id."), DeleteParams),
    responses((status = 200, description = "How many were forgotten.", body = DeadLetterCount))
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(id): Id,
    Params(params): Params<DeleteParams>,
) -> Result<Json<DeadLetterCount>, ApiError> {
    let DeleteParams { iccid, start_date_time, end_date_time, reason, all } = params;
    let written = Written {
        ids: None,
        iccid: iccid.as_deref(),
        start: start_date_time.as_deref(),
        end: end_date_time.as_deref(),
        reason: reason.as_deref(),
    };
    let filter = written.filter_or_all(is_true("all", all.as_deref())?)?;
    let forgotten = api.services().integrations.forget_dead_letters(&id, filter).await;
    Ok(Json(DeadLetterCount { dead_letters: forgotten.map_err(change_error)? }))
}

/// Deliver dead letters again, by the configuration of now. Those that another replay is to deliver
/// are left to it.
#[utoipa::path(
    post, path = "/simgate/v1/integrations/{integrationId}/deadLetters/replay",
    operation_id = "replayDeadLetters", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    request_body = DeadLetterSelection,
    responses(
        (status = 202, description = "The replay has begun.", body = DeadLetterReplay),
        (status = 404, description = "No such integration, or no dead letter fits.",
            body = ErrorBody),
        (status = 409, description = "Too many replays run.", body = ErrorBody),
    )
)]
pub(crate) async fn replay(
    State(api): State<ManagementApi>,
    Id(id): Id,
    JsonBody(selection): JsonBody<DeadLetterSelection>,
) -> Result<(StatusCode, Json<DeadLetterReplay>), ApiError> {
    let written = Written {
        ids: selection.ids.as_deref(),
        iccid: selection.iccid.as_deref(),
        start: selection.start_date_time.as_deref(),
        end: selection.end_date_time.as_deref(),
        reason: selection.reason.as_deref(),
    };
    let filter = written.filter_or_all(selection.all)?;
    let begun = api.services().integrations.replay_dead_letters(&id, filter).await;
    let (replay, dead_letters) = begun.map_err(replay_error)?;
    let body = DeadLetterReplay { replay: replay.into(), dead_letters };
    Ok((StatusCode::ACCEPTED, Json(body)))
}

/// Reads the class of a failure.
fn class(text: &str) -> Result<String, ApiError> {
    let names = FailureClass::ALL.map(FailureClass::as_str);
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(ApiError::field("reason", format!("reason {text:?} is not known"), names.join(", ")))
}

fn is_true(field: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(ApiError::field(field, format!("{field} {other:?} is not allowed"), "true, false"))
        }
    }
}
