//! How integrations fare at the moment.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cloud_integrator::{Failure, ForwarderStatus, Status};
use serde::Serialize;
use utoipa::ToSchema;
use vocabulary::Timestamp;

use crate::api::ManagementApi;
use crate::dead_letters::{DeadLetterReason, DeadLetterResponse};
use crate::error::ApiError;
use crate::extract::Id;
use crate::integration_errors::change_error;

/// How an integration fares at the moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationStatus {
    /// `ROLLOUT_STARTED`, `ROLLOUT_DONE`, `ROLLOUT_FAILED`, `INTEGRATION_ACTIVE` or
    /// `INTEGRATION_FAILED`.
    #[schema(example = "INTEGRATION_ACTIVE")]
    state: &'static str,
    /// Whether it was told to wait.
    paused: bool,
    /// Events that were given up and are kept.
    dead_letters: u64,
    /// How its delivery fares; absent while nothing is delivered: before its rollout is done, when
    /// it has failed, and while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryStatus>,
}

/// How delivery fares.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryStatus {
    /// Since when the other side has counted as down, in UTC; absent while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    down_since: Option<String>,
    /// Seconds until it is tried next, while it is down and no attempt runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_in_seconds: Option<u64>,
    /// Attempts that run.
    in_flight: usize,
    /// Attempts that may run at the same time, as far as is known of the other side.
    concurrency_limit: usize,
    /// Stored records that are not done, whether they are wanted or not.
    lag_records: u64,
    /// Events that failed and wait for another attempt.
    retrying: usize,
    /// When the other side confirmed something last, since the gateway or the integration was
    /// started, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_time: Option<String>,
    /// What failed last since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<DeliveryFailure>,
    /// Whether devices without a backlog have a lane of their own, because others have one.
    fresh_lane: bool,
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryFailure {
    /// When, in UTC.
    time: String,
    /// Why.
    reason: DeadLetterReason,
    /// What the other side answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<DeadLetterResponse>,
}

impl From<ForwarderStatus> for DeliveryStatus {
    fn from(status: ForwarderStatus) -> Self {
        Self {
            down_since: status.down_since.map(|at| at.to_string()),
            next_attempt_in_seconds: status.next_probe_in.map(whole_seconds),
            in_flight: status.in_flight,
            concurrency_limit: status.concurrency_limit,
            lag_records: status.lag_records,
            retrying: status.retrying,
            last_success_time: status.last_success_at.map(|at| at.to_string()),
            last_failure: status.last_failure.map(DeliveryFailure::from),
            fresh_lane: status.fresh_lane,
        }
    }
}

impl From<(Timestamp, Failure)> for DeliveryFailure {
    fn from((at, failure): (Timestamp, Failure)) -> Self {
        let Failure { class, text, answer } = failure;
        Self {
            time: at.to_string(),
            reason: DeadLetterReason { class: class.as_str().to_owned(), text },
            response: answer.map(DeadLetterResponse::from),
        }
    }
}

/// How an integration fares at the moment.
#[utoipa::path(
    get, path = "/simgate/v1/integrations/{integrationId}/status",
    operation_id = "getIntegrationStatus", tag = "simgate",
    params(("integrationId" = String, Path, description = "The integration's id.")),
    responses((status = 200, description = "How it fares.", body = IntegrationStatus))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<IntegrationStatus>, ApiError> {
    let integrations = &api.services().integrations;
    let Status { integration, delivery, dead_letters } =
        integrations.status(&id).await.map_err(change_error)?;
    Ok(Json(IntegrationStatus {
        state: integration.state.as_str(),
        paused: integration.paused,
        dead_letters,
        delivery: delivery.map(DeliveryStatus::from),
    }))
}

/// Rounded up: who comes then is not too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
