//! `/health` and `/metrics`, for operators and their tools. No customer's data stands in them.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use message_log::State as LogState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;

/// What an acknowledgement to a device means: the message is on this machine's disk
/// (docs/delivery.md has the table of classes).
const DURABILITY: &str = "D1 local";

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ready` or `not ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// What an acknowledgement to a device means.
    #[schema(example = "D1 local")]
    durability: &'static str,
    /// The message log.
    log: LogHealth,
    /// The release.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// How the message log is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogHealth {
    /// `healthy`, `no space` (new messages are refused until there is some) or `failed`.
    #[schema(example = "healthy")]
    state: &'static str,
}

/// How the gateway is.
#[utoipa::path(
    get, path = "/health",
    operation_id = "getHealth", tag = "Operations", security(()),
    responses(
        (status = 200, description = "The gateway takes messages.", body = Health),
        (status = 503, description = "The gateway takes no messages.", body = Health),
    )
)]
pub(crate) async fn health(State(api): State<ManagementApi>) -> impl IntoResponse {
    let services = api.services();
    let log = match services.log.status().state {
        LogState::Healthy => "healthy",
        LogState::NoSpace => "no space",
        LogState::Failed => "failed",
    };
    let ready = services.readiness.is_ready() && log == "healthy";
    let (code, status) = if ready {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let version = services.settings.version;
    let log = LogHealth { state: log };
    (code, Json(Health { status, durability: DURABILITY, log, version }))
}

/// The metrics, in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics",
    operation_id = "getMetrics", tag = "Operations", security(()),
    responses((status = 200, description = "The metrics.", body = String,
        content_type = "text/plain; version=0.0.4"))
)]
pub(crate) async fn metrics(State(api): State<ManagementApi>) -> impl IntoResponse {
    let text = api.services().metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
