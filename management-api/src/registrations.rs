//! LwM2M registrations: what a device has said of itself, and what it notifies of.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::ManagementApi;
use crate::error::ApiError;
use crate::extract::DeviceId;

/// A device that is registered by LwM2M.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The device.
    #[schema(example = "8988280666000002864", pattern = "^[0-9]{19}$")]
    pub device_id: String,
    /// The version of LwM2M that it speaks.
    #[schema(example = "1.1")]
    pub version: String,
    /// How it is reached, as LwM2M 1.0 writes it; `Q` stands for queue mode.
    #[schema(example = "UQ")]
    pub binding: String,
    /// What protects it: `NONE`, or `PSK` for DTLS with a pre-shared key.
    #[schema(example = "PSK")]
    pub security: &'static str,
    /// How long it lasts without an update, in seconds, as the device said.
    pub lifetime_seconds: u32,
    /// When it was made.
    #[schema(value_type = String, example = "2026-11-21T08:15:30.042Z")]
    pub registered_at: String,
    /// When it was updated last.
    #[schema(value_type = String, example = "2026-11-21T08:15:30.042Z")]
    pub updated_at: String,
    /// When it ends without another update.
    #[schema(value_type = String, example = "2026-11-22T08:19:37.042Z")]
    pub expires_at: String,
    /// Objects and instances that the device has.
    #[schema(example = json!(["/1/0", "/3/0", "/3303/0"]))]
    pub objects: Vec<String>,
    /// What it was asked to notify of; of a composite observation each path.
    #[schema(example = json!(["/3303/0/5700"]))]
    pub observations: Vec<String>,
}

/// The LwM2M registration of a device.
#[utoipa::path(
    get, path = "/simgate/v1/devices/{deviceId}/registration",
    operation_id = "getRegistration", tag = "simgate",
    params(("deviceId" = String, Path, description = "The device.")),
    responses((status = 200, description = "The registration.", body = Registration))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    DeviceId(device): DeviceId,
) -> Result<Json<Registration>, ApiError> {
    let found = api.services().registrations.find(device);
    found.map(Json).ok_or_else(|| ApiError::not_found("registration", device))
}
