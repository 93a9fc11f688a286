//! Data sessions of a SIM, as the mobile network told of them: simgate's own.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use data_sessions::{DataSession as Known, SessionState};
use serde::Serialize;
use utoipa::ToSchema;
use vocabulary::Timestamp;

use crate::api::ManagementApi;
use crate::devices::require_known;
use crate::error::ApiError;
use crate::extract::DeviceId;

/// A data session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataSession {
    /// Its number.
    id: u64,
    /// `LIVE`; `STALE`, not heard for too long; `CONTESTED`, another SIM claims its address, too;
    /// or `ENDED`. Only the address of a live one speaks for its SIM.
    state: &'static str,
    /// The feed that told of it.
    feed: String,
    /// The server in the network.
    server: String,
    /// Its name there.
    name: String,
    /// When it began, as far as is known.
    began: String,
    /// The time of its last report.
    heard: String,
    /// When it ended, if that was reported.
    ended: Option<String>,
    /// The subscriber.
    imsi: Option<String>,
    /// The telephone number.
    msisdn: Option<String>,
    /// The modem.
    imei: Option<String>,
    /// The address.
    ip: Option<String>,
    /// The prefix of 64 bits.
    ipv6_prefix: Option<String>,
    /// `2G`, `3G`, `3.5G`, `4G`, `NB-IoT`, `LTE-M` or `5G`.
    radio_access_type: Option<&'static str>,
    /// The cell.
    cell: Option<SessionCell>,
    /// Bytes from the device.
    bytes_up: Option<u64>,
    /// Bytes to the device.
    bytes_down: Option<u64>,
}

/// The cell of a session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionCell {
    /// Country and network.
    #[schema(example = "262-01")]
    plmn: String,
    /// The location or tracking area.
    area: Option<u32>,
    /// The cell.
    cell: Option<u64>,
}

/// The sessions of a SIM.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DataSessions {
    /// The newest first: those that live, and those that were heard within the last day.
    items: Vec<DataSession>,
}

/// The data sessions of a SIM.
#[utoipa::path(
    get, path = "/simgate/v1/devices/{deviceId}/sessions",
    operation_id = "listDataSessions", tag = "simgate",
    params(("deviceId" = String, Path, description = "The device.")),
    responses((status = 200, description = "The sessions.", body = DataSessions))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    DeviceId(device): DeviceId,
) -> Result<Json<DataSessions>, ApiError> {
    let found = api.services().sessions.of_sim(device, Timestamp::from(SystemTime::now()));
    if found.is_empty() {
        require_known(&api, device).await?;
    }
    Ok(Json(DataSessions { items: found.into_iter().map(shown).collect() }))
}

fn shown(session: Known) -> DataSession {
    DataSession {
        id: session.id,
        state: match session.state {
            SessionState::Live => "LIVE",
            SessionState::Stale => "STALE",
            SessionState::Contested => "CONTESTED",
            SessionState::Ended => "ENDED",
        },
        feed: session.feed,
        server: session.server,
        name: session.name,
        began: session.began_at.to_string(),
        heard: session.heard_at.to_string(),
        ended: session.ended_at.map(|at| at.to_string()),
        imsi: session.imsi.map(|imsi| imsi.to_string()),
        msisdn: session.msisdn.map(|msisdn| msisdn.to_string()),
        imei: session.imei.map(|imei| imei.to_string()),
        ip: session.ipv4.map(|ip| ip.to_string()),
        ipv6_prefix: session.ipv6_prefix.map(|prefix| format!("{prefix}/64")),
        radio_access_type: session.access.map(vocabulary::RadioAccess::as_str),
        cell: session.cell.map(|cell| SessionCell {
            plmn: cell.plmn.to_string(),
            area: cell.area,
            cell: cell.cell,
        }),
        bytes_up: session.octets.map(|octets| octets.up),
        bytes_down: session.octets.map(|octets| octets.down),
    }
}
