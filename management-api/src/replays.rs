//! Delivering stored messages again.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cloud_integrator::{
    Integrations, PreviewLimits, Replay as StoredReplay, ReplayError, ReplayRequest,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{ManagementApi, to_the_end};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{Id, JsonBody, Params, iccid};
use crate::integration_errors::change_error;
use crate::paging::{Page, PageRequest};
use crate::replay_previews::ReplayPreview;
use crate::times::AskedSpan;

/// Replays on a page.
const PAGE_SIZE_MAX: u32 = 50;
/// Integrations of one request at most: as many as a gateway has by default.
const INTEGRATIONS_MAX: usize = 100;
/// Devices of one request at most.
const DEVICES_MAX: usize = 1_000;
/// When another preview may be asked for: as long as one takes at most.
const PREVIEW_WAIT: Duration = Duration::from_secs(10);

/// What is to be delivered again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ReplayCreate {
    /// The integrations that are to deliver, each in a replay of its own.
    #[schema(example = json!(["AP3dIUs3c7_Oo2yJYaXWg"]), min_items = 1, max_items = 100)]
    integration_ids: Vec<String>,
    /// RFC 3339; received at or after. Without it from the oldest message that is kept.
    #[schema(example = "2026-11-21T08:00:00Z")]
    start_date_time: Option<String>,
    /// RFC 3339; received before. Without it until now.
    #[schema(example = "2026-11-21T09:00:00Z")]
    end_date_time: Option<String>,
    /// Only of these devices; without it of all.
    #[schema(example = json!(["8988280666000002864"]), min_items = 1, max_items = 1_000)]
    iccids: Option<Vec<String>>,
    /// Which templates translate.
    templates: ReplayTemplates,
    /// Whether to deliver nothing and say what would be different.
    #[serde(default)]
    dry_run: bool,
}

/// Which templates translate messages that are delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ReplayTemplates {
    /// Those that were active when the messages arrived.
    Original,
    /// Those that are active now. A protocol that has none keeps those of the day.
    Active,
}

/// A replay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    /// The id: 21 characters.
    #[schema(example = "V1StGXR8_Z5jdHi6B-myT")]
    id: String,
    /// The integration that delivers it.
    #[schema(example = "AP3dIUs3c7_Oo2yJYaXWg")]
    integration_id: String,
    /// `LOG` for stored messages, `DEAD_LETTERS` for events that were given up.
    #[schema(example = "LOG")]
    source: &'static str,
    /// `RUNNING`, `DONE` or `CANCELLED`. It runs while its integration delivers.
    #[schema(example = "RUNNING")]
    state: &'static str,
    /// When it was asked for, in UTC.
    created_time: String,
    /// When it ended, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_time: Option<String>,
    /// Events delivered.
    delivered: u64,
    /// Events that were given up.
    failed: u64,
    /// Events of which there was nothing to deliver: expired, or not translatable.
    passed_over: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only of this integration.
    integration_id: Option<String>,
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Replays on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

impl From<StoredReplay> for Replay {
    fn from(replay: StoredReplay) -> Self {
        Self {
            id: replay.id,
            integration_id: replay.integration,
            source: if replay.of_dead_letters { "DEAD_LETTERS" } else { "LOG" },
            state: replay.state.as_str(),
            created_time: replay.created_at.to_string(),
            ended_time: replay.ended_at.map(|at| at.to_string()),
            delivered: replay.delivered,
            failed: replay.failed,
            passed_over: replay.passed_over,
        }
    }
}

/// Deliver stored messages again, with the ids that they have.
///
/// With `dryRun` nothing is delivered: the answer says what the templates would make otherwise.
#[utoipa::path(
    post, path = "/simgate/v1/replays",
    operation_id = "startReplays", tag = "simgate", request_body = ReplayCreate,
    responses(
        (status = 200, description = "With `dryRun`: what would be different.",
            body = ReplayPreview),
        (status = 202, description = "The replays have begun, one for each integration.",
            body = Vec<Replay>),
        (status = 404, description = "An integration does not exist.", body = ErrorBody),
        (status = 409, description = "Too many replays of an integration run.", body = ErrorBody),
        (status = 503, description = "The gateway does not forward at the moment.",
            body = ErrorBody),
    )
)]
pub(crate) async fn start(
    State(api): State<ManagementApi>,
    JsonBody(body): JsonBody<ReplayCreate>,
) -> Result<Response, ApiError> {
    let request = request(&body)?;
    check_integrations(&api, &body.integration_ids).await?;
    if body.dry_run {
        return preview(&api, request).await.map(|found| Json(found).into_response());
    }
    let starting = start_all(api.services().integrations.clone(), body.integration_ids, request);
    let begun = to_the_end("starting replays", starting).await?;
    Ok((StatusCode::ACCEPTED, Json(begun)).into_response())
}

/// List replays, the newest first. One that has ended is shown for seven days.
#[utoipa::path(
    get, path = "/simgate/v1/replays",
    operation_id = "listReplays", tag = "simgate", params(ListParams),
    responses((status = 200, description = "A page of replays.", body = Page<Replay>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { integration_id, page, page_size }): Params<ListParams>,
) -> Result<Json<Page<Replay>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let all = api.services().integrations.replays(integration_id).await;
    let all = all.map_err(|error| ApiError::internal("listing replays", error))?;
    Ok(Json(request.slice(all).map(Replay::from)))
}

/// One replay.
#[utoipa::path(
    get, path = "/simgate/v1/replays/{replayId}",
    operation_id = "getReplay", tag = "simgate",
    params(("replayId" = String, Path, description = "The replay's id.")),
    responses((status = 200, description = "The replay.", body = Replay))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<Replay>, ApiError> {
    let found = api.services().integrations.replay(&id).await;
    found.map(|replay| Json(replay.into())).map_err(replay_error)
}

/// End a replay. What it has not delivered is not delivered by it any more.
#[utoipa::path(
    post, path = "/simgate/v1/replays/{replayId}/cancel",
    operation_id = "cancelReplay", tag = "simgate",
    params(("replayId" = String, Path, description = "The replay's id.")),
    responses(
        (status = 200, description = "The replay, which has ended.", body = Replay),
        (status = 409, description = "It had ended before.", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<Replay>, ApiError> {
    let cancelled = api.services().integrations.cancel_replay(&id).await;
    cancelled.map(|replay| Json(replay.into())).map_err(replay_error)
}

/// What the body selects.
fn request(body: &ReplayCreate) -> Result<ReplayRequest, ApiError> {
    let span = AskedSpan::parse(body.start_date_time.as_deref(), body.end_date_time.as_deref())?;
    let devices = match &body.iccids {
        Some(list) => {
            check_count("iccids", list.len(), DEVICES_MAX)?;
            list.iter().map(|text| iccid("iccids", text)).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let newest_templates = body.templates == ReplayTemplates::Active;
    Ok(ReplayRequest { from: span.start(), until: span.end(), devices, newest_templates })
}

/// Whether all integrations exist, before any of them begins.
async fn check_integrations(api: &ManagementApi, ids: &[String]) -> Result<(), ApiError> {
    check_count("integrationIds", ids.len(), INTEGRATIONS_MAX)?;
    let all = api.services().integrations.list().await;
    let all = all.map_err(|error| ApiError::internal("listing integrations", error))?;
    for (index, id) in ids.iter().enumerate() {
        if !all.iter().any(|integration| integration.id == *id) {
            return Err(ApiError::not_found("integration", id));
        }
        if ids[..index].contains(id) {
            let message = format!("integration {id} is named twice");
            return Err(ApiError::field("integrationIds", message, "each id once"));
        }
    }
    Ok(())
}

fn check_count(field: &str, count: usize, max: usize) -> Result<(), ApiError> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(ApiError::field(field, format!("{count} entries"), format!("1 to {max}")))
}

/// Begins all replays, or none.
async fn start_all(
    integrations: Integrations,
    ids: Vec<String>,
    request: ReplayRequest,
) -> Result<Vec<Replay>, ApiError> {
    let mut begun: Vec<StoredReplay> = Vec::with_capacity(ids.len());
    for id in ids {
        match integrations.start_replay(&id, request.clone()).await {
            Ok(replay) => begun.push(replay),
            Err(error) => {
                for replay in begun {
                    // One that has ended already leaves nothing to take back.
                    let _ = integrations.cancel_replay(&replay.id).await;
                }
                return Err(replay_error(error));
            }
        }
    }
    Ok(begun.into_iter().map(Replay::from).collect())
}

async fn preview(api: &ManagementApi, request: ReplayRequest) -> Result<ReplayPreview, ApiError> {
    // Each holds a thread for seconds.
    let running = api
        .previews()
        .try_acquire_owned()
        .map_err(|_| ApiError::too_many_requests("another dry run is being made", PREVIEW_WAIT))?;
    let integrations = api.services().integrations.clone();
    to_the_end("looking at messages", async move {
        let _running = running;
        let found = integrations.preview(request, PreviewLimits::default()).await;
        found.map(ReplayPreview::from).map_err(replay_error)
    })
    .await
}

/// Why nothing is delivered again.
pub(crate) fn replay_error(error: ReplayError) -> ApiError {
    match error {
        ReplayError::Change(error) => change_error(error),
        ReplayError::Nothing => ApiError::not_found("a dead letter", "that fits"),
        ReplayError::NotFound(id) => ApiError::not_found("replay", id),
        ReplayError::Ended(_) | ReplayError::TooMany(_) => ApiError::conflict(error.to_string()),
        ReplayError::Range => {
            ApiError::field("startDateTime", error.to_string(), "a time before endDateTime")
        }
        ReplayError::Devices(_) => ApiError::bad_request(error.to_string()),
        ReplayError::NotRunning => ApiError::unavailable(error.to_string(), PREVIEW_WAIT),
        ReplayError::Read(error) => ApiError::internal("reading messages", error),
        ReplayError::Templates(error) => ApiError::internal("reading templates", error),
    }
}
