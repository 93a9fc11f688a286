//! The pre-shared keys of devices, one by one and many at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use key_store::{
    AcceptError, Job, JobEntry, JobStatus, KeyFormat, KeyProtocol, Keys, Secret, StoredKey,
};
use serde::{Deserialize, Serialize};
use tracing::error;
use utoipa::{IntoParams, ToSchema};
use vocabulary::Iccid;
use zeroize::Zeroizing;

use crate::api::{ManagementApi, blocking};
use crate::devices::require_known;
use crate::error::{ApiError, ErrorDetail};
use crate::extract::{DeviceId, JsonBody, Params, iccid};
use crate::paging::{Page, PageRequest};
use crate::sims::now;

/// Characters of one of many keys, as documented.
const BULK_SECRET_CHARS_MAX: usize = 128;
/// Keys of one job, as documented.
const JOB_ENTRIES_MAX: usize = 5_000;
/// 5,000 entries of 128 characters, each escaped and generously spaced.
const JOB_BODY_BYTES_MAX: usize = 4 << 20;
/// Jobs on a page.
const PAGE_SIZE_MAX: u32 = 50;
/// When a client may ask again that has too many jobs: a job takes half a second.
const JOBS_RETRY: Duration = Duration::from_secs(5);

/// A key to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PskSet {
    /// 8 to 256 printable ASCII characters, or an even number of hexadecimal digits.
    #[schema(value_type = String, min_length = 8, max_length = 256)]
    secret_key: Zeroizing<String>,
    /// `COAP` or `LWM2M`.
    #[schema(example = "COAP")]
    protocol: String,
    /// `STRING` (the default): the key is the text's bytes; `HEX`: the bytes that it spells.
    #[schema(example = "STRING")]
    format: Option<String>,
}

/// One of many keys to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PskJobEntry {
    /// The SIM.
    #[schema(example = "8988280666000002864")]
    device_id: String,
    /// 8 to 128 printable ASCII characters, or an even number of hexadecimal digits.
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    secret_key: Zeroizing<String>,
    /// `COAP` or `LWM2M`.
    #[schema(example = "COAP")]
    protocol: String,
    /// `STRING` (the default) or `HEX`.
    #[schema(example = "STRING")]
    format: Option<String>,
}

/// A key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Psk {
    /// The SIM.
    #[schema(example = "8988280666000002864")]
    device_id: String,
    /// What the device calls itself in the handshake.
    #[schema(example = "8988280666000002864")]
    identity: String,
    /// The key as text.
    #[schema(value_type = String)]
    secret_key: Zeroizing<String>,
    /// When the device first had a key for the protocol, in UTC.
    created_at: String,
    /// When the key last changed, in UTC.
    updated_at: String,
    /// `COAP` or `LWM2M`.
    #[schema(example = "COAP")]
    protocol: &'static str,
    /// `STRING` or `HEX`.
    #[schema(example = "STRING")]
    format: &'static str,
}

/// A request to set many keys.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PskJob {
    /// Its number.
    id: String,
    /// When it was accepted, in UTC.
    created_at: String,
    /// When it last went on, in UTC.
    updated_at: String,
    /// `IN_PROGRESS` or `DONE`.
    #[schema(example = "DONE")]
    status: &'static str,
    /// Its keys.
    amount: u32,
    /// Keys that were refused because there is no such device.
    failed: u32,
    /// Keys that were set.
    done: u32,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Jobs on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

impl From<StoredKey> for Psk {
    fn from(key: StoredKey) -> Self {
        Self {
            device_id: key.iccid.to_string(),
            identity: key.iccid.to_string(),
            secret_key: Zeroizing::new(key.secret.text().to_owned()),
            created_at: key.created.to_string(),
            updated_at: key.updated.to_string(),
            protocol: key.protocol.as_str(),
            format: key.secret.format().as_str(),
        }
    }
}

impl From<Job> for PskJob {
    fn from(job: Job) -> Self {
        Self {
            id: job.id.to_string(),
            created_at: job.created.to_string(),
            updated_at: job.updated.to_string(),
            status: match job.status {
                JobStatus::InProgress => "IN_PROGRESS",
                JobStatus::Done => "DONE",
            },
            amount: job.amount,
            failed: job.failed,
            done: job.done,
        }
    }
}

/// Set the pre-shared key of a device. The gateway never replaces it.
#[utoipa::path(
    post, path = "/v1/integrate/devices/{deviceId}/psk",
    operation_id = "setPsk", tag = "Pre-shared keys", request_body = PskSet,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses((status = 200, description = "The key.", body = Psk))
)]
pub(crate) async fn set(
    State(api): State<ManagementApi>,
    DeviceId(id): DeviceId,
    JsonBody(new): JsonBody<PskSet>,
) -> Result<Json<Psk>, ApiError> {
    let protocol = protocol(&new.protocol)?;
    let secret = secret(&new.secret_key, new.format.as_deref(), key_store::SECRET_CHARS_MAX)?;
    require_known(&api, id).await?;
    let set = with_keys(&api, "setting a key", move |keys| keys.set(id, protocol, &secret, now()));
    let set = set.await?.map_err(|error| ApiError::internal("setting a key", error))?;
    Ok(Json(set.into()))
}

/// Set the pre-shared key of a device; another name of `psk`.
#[utoipa::path(
    post, path = "/v1/integrate/devices/{deviceId}/presharedkey",
    operation_id = "setPresharedKey", tag = "Pre-shared keys", request_body = PskSet,
    params(("deviceId" = String, Path, description = "The ICCID.")),
    responses((status = 200, description = "The key.", body = Psk))
)]
pub(crate) async fn set_alias(
    api: State<ManagementApi>,
    id: DeviceId,
    new: JsonBody<PskSet>,
) -> Result<Json<Psk>, ApiError> {
    set(api, id, new).await
}

/// The pre-shared key of a device.
#[utoipa::path(
    get, path = "/v1/integrate/devices/{deviceId}/psk/{protocol}",
    operation_id = "getPsk", tag = "Pre-shared keys",
    params(
        ("deviceId" = String, Path, description = "The ICCID."),
        ("protocol" = String, Path, description = "COAP or LWM2M."),
    ),
    responses((status = 200, description = "The key.", body = Psk))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Path((id, text)): Path<(String, String)>,
) -> Result<Json<Psk>, ApiError> {
    let (id, protocol) = (iccid("deviceId", &id)?, protocol(&text)?);
    require_known(&api, id).await?;
    let found = with_keys(&api, "reading a key", move |keys| keys.keys_of(id)).await?;
    let keys = found.map_err(|error| ApiError::internal("reading a key", error))?;
    let key = keys.into_iter().find(|key| key.protocol == protocol);
    let what = protocol.as_str();
    key.map(|key| Json(key.into()))
        .ok_or_else(|| ApiError::not_found("pre-shared key", format!("{what} of {id}")))
}

/// The pre-shared key of a device; another name of `psk`.
#[utoipa::path(
    get, path = "/v1/integrate/devices/{deviceId}/presharedkey/{protocol}",
    operation_id = "getPresharedKey", tag = "Pre-shared keys",
    params(
        ("deviceId" = String, Path, description = "The ICCID."),
        ("protocol" = String, Path, description = "COAP or LWM2M."),
    ),
    responses((status = 200, description = "The key.", body = Psk))
)]
pub(crate) async fn find_alias(
    api: State<ManagementApi>,
    of: Path<(String, String)>,
) -> Result<Json<Psk>, ApiError> {
    find(api, of).await
}

/// Set the pre-shared keys of many devices.
#[utoipa::path(
    post, path = "/v1/integrate/devices/psk/jobs",
    operation_id = "createPskJob", tag = "Pre-shared keys", request_body = Vec<PskJobEntry>,
    responses((status = 202, description = "The keys are stored and will be set."))
)]
pub(crate) async fn create_job(
    State(api): State<ManagementApi>,
    JsonBody(entries): JsonBody<Vec<PskJobEntry>, JOB_BODY_BYTES_MAX>,
) -> Result<StatusCode, ApiError> {
    if !(1..=JOB_ENTRIES_MAX).contains(&entries.len()) {
        let message = format!("{} keys are not allowed", entries.len());
        return Err(ApiError::field("body", message, format!("1 to {JOB_ENTRIES_MAX}")));
    }
    let entries = entries.iter().map(job_entry).collect::<Result<Vec<_>, _>>()?;
    let accepted =
        with_keys(&api, "accepting keys", move |keys| keys.accept_job(&entries, now())).await?;
    accepted.map_err(|error| match error {
        AcceptError::Full => ApiError::too_many_requests(error.to_string(), JOBS_RETRY),
        AcceptError::Store(error) => ApiError::internal("accepting keys", error),
    })?;
    api.work_off_key_jobs();
    Ok(StatusCode::ACCEPTED)
}

/// Set the pre-shared keys of many devices; another name of `psk/jobs`.
#[utoipa::path(
    post, path = "/v1/integrate/devices/presharedkey/jobs",
    operation_id = "createPresharedKeyJob", tag = "Pre-shared keys",
    request_body = Vec<PskJobEntry>,
    responses((status = 202, description = "The keys are stored and will be set."))
)]
pub(crate) async fn create_job_alias(
    api: State<ManagementApi>,
    entries: JsonBody<Vec<PskJobEntry>, JOB_BODY_BYTES_MAX>,
) -> Result<StatusCode, ApiError> {
    create_job(api, entries).await
}

/// List the requests to set many keys of the last 30 days, newest first.
#[utoipa::path(
    get, path = "/v1/integrate/devices/psk/jobs",
    operation_id = "listPskJobs", tag = "Pre-shared keys", params(ListParams),
    responses((status = 200, description = "A page of jobs.", body = Page<PskJob>))
)]
pub(crate) async fn list_jobs(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size }): Params<ListParams>,
) -> Result<Json<Page<PskJob>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let skip = (request.page - 1) * request.size;
    let found =
        with_keys(&api, "listing jobs", move |keys| keys.jobs(skip, request.size, now())).await?;
    let (jobs, total) = found.map_err(|error| ApiError::internal("listing jobs", error))?;
    Ok(Json(request.page_of(jobs, total).map(PskJob::from)))
}

/// List the requests to set many keys; another name of `psk/jobs`.
#[utoipa::path(
    get, path = "/v1/integrate/devices/presharedkey/jobs",
    operation_id = "listPresharedKeyJobs", tag = "Pre-shared keys", params(ListParams),
    responses((status = 200, description = "A page of jobs.", body = Page<PskJob>))
)]
pub(crate) async fn list_jobs_alias(
    api: State<ManagementApi>,
    params: Params<ListParams>,
) -> Result<Json<Page<PskJob>>, ApiError> {
    list_jobs(api, params).await
}

impl ManagementApi {
    /// Sets the keys of accepted jobs on a thread of its own; call it once at the start for those
    /// that an earlier process left. Jobs that fail here go on with the next call.
    pub fn work_off_key_jobs(&self) {
        let services = self.services();
        let (keys, registry) = (services.keys.clone(), Arc::clone(&services.registry));
        tokio::task::spawn_blocking(move || {
            let known = |id: Iccid| Ok(registry.find(id)?.is_some());
            if let Err(error) = keys.work_off_jobs(known, now) {
                error!(%error, "keys of a job are not set; they will be with the next job");
            }
        });
    }
}

async fn with_keys<T: Send + 'static>(
    api: &ManagementApi,
    doing: &'static str,
    ask: impl FnOnce(&Keys) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let keys = api.services().keys.clone();
    blocking(doing, move || ask(&keys)).await
}

fn job_entry(entry: &PskJobEntry) -> Result<JobEntry, ApiError> {
    Ok(JobEntry {
        iccid: iccid("deviceId", &entry.device_id)?,
        protocol: protocol(&entry.protocol)?,
        secret: secret(&entry.secret_key, entry.format.as_deref(), BULK_SECRET_CHARS_MAX)?,
    })
}

fn protocol(text: &str) -> Result<KeyProtocol, ApiError> {
    text.parse().map_err(|_| {
        ApiError::field("protocol", format!("protocol {text:?} has no keys"), "COAP, LWM2M")
    })
}

fn secret(text: &str, format: Option<&str>, chars_max: usize) -> Result<Secret, ApiError> {
    let format = format
        .map_or(Ok(KeyFormat::String), str::parse)
        .map_err(|_| ApiError::field("format", "the format is not known", "STRING, HEX"))?;
    Secret::parse(text, format, chars_max).map_err(|error| {
        let mut detail = ErrorDetail::new(error.to_string());
        detail.field = Some("secretKey".to_owned());
        ApiError::new(StatusCode::BAD_REQUEST, detail)
    })
}
