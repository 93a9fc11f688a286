//! Firmware jobs: who gets which image, and how far each device is.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use firmware_update::{
    Counts, DeviceState, Entry, ImageError, Job, JobDevice, JobError, Method, NewJob, StartError,
    Updates,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vocabulary::{Iccid, Timestamp};

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{Id, JsonBody, Params, iccid};
use crate::firmware_images::{digest, image_error};
use crate::paging::{Page, PageRequest};
use crate::sims::now;

/// Jobs on a page.
const JOBS_PAGE_SIZE_MAX: u32 = 50;
/// Devices on a page: 50 pages hold the 10,000 of the largest job.
const DEVICES_PAGE_SIZE_MAX: u32 = 200;

/// A firmware job to be started. What is left out has its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NewFirmwareJob {
    /// The SHA-256 of the image.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    image: String,
    /// The ICCIDs of the devices, 1 to 10,000.
    #[schema(example = json!(["8988280666000002864"]), min_items = 1, max_items = 10_000)]
    device_ids: Vec<String>,
    /// `AUTO` (the default: by what the device can), `PULL` (it fetches the image) or `PUSH`.
    #[schema(example = "AUTO")]
    method: Option<String>,
    /// Devices that are updated at the same time; default 50.
    #[schema(minimum = 1, maximum = 1_000)]
    parallel_max: Option<u32>,
    /// Pause the job when more than this share of the devices that have ended failed.
    #[schema(minimum = 1, maximum = 99)]
    stop_percent: Option<u32>,
    /// Attempts at one device; default 3.
    #[schema(minimum = 1, maximum = 10)]
    attempts: Option<u32>,
    /// Seconds between two attempts; default 900.
    #[schema(minimum = 1, maximum = 604_800)]
    pause_seconds: Option<u64>,
    /// Seconds from the first step of a device to its last; default 604,800, which is 7 days.
    #[schema(minimum = 60, maximum = 7_948_800)]
    deadline_seconds: Option<u64>,
    /// Seconds after which a download that stands still has failed; default 3,600.
    #[schema(minimum = 60, maximum = 86_400)]
    download_seconds: Option<u64>,
    /// Seconds after which an installation without a result has failed; default 3,600.
    #[schema(minimum = 60, maximum = 86_400)]
    install_seconds: Option<u64>,
    /// Whether a device that reports another version than the image's after the update has failed;
    /// default false.
    require_version: Option<bool>,
}

/// A firmware job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FirmwareJob {
    /// Its id.
    #[schema(example = "V1StGXR8_Z5jdHi6B-myT")]
    id: String,
    /// The SHA-256 of the image.
    image: String,
    /// The name of the image when the job began.
    image_name: String,
    /// The version of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<String>,
    /// `AUTO`, `PULL` or `PUSH`.
    #[schema(example = "AUTO")]
    method: &'static str,
    /// `RUNNING`, `PAUSED`, `DONE`, `CANCELLED` or `FAILED`.
    #[schema(example = "RUNNING")]
    state: &'static str,
    /// Why it is paused or failed, where not by a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its devices by their state.
    devices: FirmwareCounts,
    /// Devices that are updated at the same time.
    parallel_max: u32,
    /// The share of failures that pauses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_percent: Option<u32>,
    /// Attempts at one device.
    attempts: u32,
    /// Seconds between two attempts.
    pause_seconds: u64,
    /// Seconds from the first step of a device to its last.
    deadline_seconds: u64,
    /// Seconds after which a download that stands still has failed.
    download_seconds: u64,
    /// Seconds after which an installation without a result has failed.
    install_seconds: u64,
    /// Whether devices must report the version of the image.
    require_version: bool,
    /// When it was started, in UTC.
    created_at: String,
    /// When its state last changed, in UTC.
    updated_at: String,
}

/// How many devices of a job are in each state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FirmwareCounts {
    /// All devices.
    total: u32,
    /// Their turn has not come.
    waiting: u32,
    /// They are being updated.
    running: u32,
    /// They are being updated, and sleep or are away.
    asleep: u32,
    /// They have the image.
    succeeded: u32,
    /// They have not.
    failed: u32,
    /// They were given up by a user.
    cancelled: u32,
}

/// A device of a firmware job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FirmwareDevice {
    /// The ICCID.
    #[schema(example = "8988280666000002864")]
    device_id: String,
    /// `WAITING`, `RUNNING`, `ASLEEP`, `SUCCEEDED`, `FAILED` or `CANCELLED`.
    #[schema(example = "RUNNING")]
    state: &'static str,
    /// `PROBING`, `CLEARING`, `OBSERVING`, `DELIVERING`, `DOWNLOADING`, `INSTALLING`, `REBOOTING`,
    /// `PAUSING` (until the next attempt) or how it ended; absent before its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "DOWNLOADING")]
    stage: Option<&'static str>,
    /// The attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// How the image goes to it: `PULL`, `PULL_SECURE` or `PUSH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<&'static str>,
    /// Bytes of the image that it has, as far as known.
    bytes: u64,
    /// Its version before.
    #[serde(skip_serializing_if = "Option::is_none")]
    version_before: Option<String>,
    /// Its version after.
    #[serde(skip_serializing_if = "Option::is_none")]
    version_after: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// When its turn came, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    /// When any of this last changed, in UTC.
    updated_at: String,
}

/// A device of a firmware job, with all that happened to it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FirmwareTimeline {
    #[serde(flatten)]
    device: FirmwareDevice,
    /// What happened, the oldest first.
    timeline: Vec<FirmwareEntry>,
}

/// One thing that happened to a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FirmwareEntry {
    /// When, in UTC.
    time: String,
    /// In which stage.
    #[schema(example = "PROBING")]
    stage: &'static str,
    /// What.
    #[schema(example = "version 1.0, state idle, result 0")]
    text: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Jobs on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct DevicesParams {
    /// Only devices in this state, e.g. `FAILED`.
    state: Option<String>,
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Devices on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 10)]
    page_size: Option<String>,
}

impl From<Counts> for FirmwareCounts {
    fn from(counts: Counts) -> Self {
        let total = counts.total();
        let Counts { waiting, running, asleep, succeeded, failed, cancelled } = counts;
        Self { total, waiting, running, asleep, succeeded, failed, cancelled }
    }
}

impl From<Job> for FirmwareJob {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            image: job.image.to_string(),
            image_name: job.image_name,
            image_version: job.image_version,
            method: job.method.as_str(),
            state: job.state.as_str(),
            reason: job.reason,
            devices: job.counts.into(),
            parallel_max: job.parallel_max,
            stop_percent: job.stop_percent,
            attempts: job.patience.attempts,
            pause_seconds: job.patience.pause.as_secs(),
            deadline_seconds: job.patience.deadline.as_secs(),
            download_seconds: job.patience.download.as_secs(),
            install_seconds: job.patience.install.as_secs(),
            require_version: job.require_version,
            created_at: job.created.to_string(),
            updated_at: job.updated.to_string(),
        }
    }
}

impl From<JobDevice> for FirmwareDevice {
    fn from(device: JobDevice) -> Self {
        let JobDevice { iccid, state, progress, updated } = device;
        let known = progress.as_ref();
        Self {
            device_id: iccid.to_string(),
            state: state.as_str(),
            stage: known.map(|progress| progress.stage.as_str()),
            attempt: known.map(|progress| progress.attempt),
            delivery: known.and_then(|progress| progress.delivery).map(|way| way.as_str()),
            bytes: known.map_or(0, |progress| progress.bytes),
            started_at: known.map(|progress| progress.started.to_string()),
            version_before: known.and_then(|progress| progress.version_before.clone()),
            version_after: known.and_then(|progress| progress.version_after.clone()),
            failure: progress.and_then(|progress| progress.failure),
            updated_at: updated.to_string(),
        }
    }
}

impl From<Entry> for FirmwareEntry {
    fn from(entry: Entry) -> Self {
        Self { time: entry.at.to_string(), stage: entry.stage.as_str(), text: entry.text }
    }
}

/// Start a firmware job.
#[utoipa::path(
    post, path = "/simgate/v1/firmware/jobs",
    operation_id = "startFirmwareJob", tag = "simgate", request_body = NewFirmwareJob,
    responses(
        (status = 201, description = "The job is stored and begins.", body = FirmwareJob),
        (status = 409, description = "A device belongs to another unfinished job, the image is \
            damaged, or there are too many jobs.", body = ErrorBody),
        (status = 422, description = "The image or a device does not exist.", body = ErrorBody),
    )
)]
pub(crate) async fn start(
    State(api): State<ManagementApi>,
    JsonBody(body): JsonBody<NewFirmwareJob>,
) -> Result<(StatusCode, Json<FirmwareJob>), ApiError> {
    let job = new_job(body)?;
    job.check().map_err(start_error)?;
    require_all_known(&api, &job.devices).await?;
    let started =
        with_updates(&api, "starting a job", move |updates| updates.start_job(&job, now()));
    let job = started.await?.map_err(start_error)?;
    Ok((StatusCode::CREATED, Json(job.into())))
}

/// List the firmware jobs, newest first.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/jobs",
    operation_id = "listFirmwareJobs", tag = "simgate", params(JobsParams),
    responses((status = 200, description = "A page of jobs.", body = Page<FirmwareJob>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(JobsParams { page, page_size }): Params<JobsParams>,
) -> Result<Json<Page<FirmwareJob>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), JOBS_PAGE_SIZE_MAX)?;
    let found = with_updates(&api, "listing jobs", move |updates| {
        updates.jobs(request.skip(), request.take())
    });
    let (jobs, total) = found.await?.map_err(|error| ApiError::internal("listing jobs", error))?;
    Ok(Json(request.page_of(jobs, total).map(FirmwareJob::from)))
}

/// One firmware job.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/jobs/{jobId}",
    operation_id = "getFirmwareJob", tag = "simgate",
    params(("jobId" = String, Path, description = "The id of the job.")),
    responses((status = 200, description = "The job.", body = FirmwareJob))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<FirmwareJob>, ApiError> {
    let found = with_updates(&api, "reading a job", move |updates| updates.job(&id)).await?;
    found.map(|job| Json(job.into())).map_err(job_error)
}

/// Pause a firmware job: no step is made until it is resumed.
#[utoipa::path(
    post, path = "/simgate/v1/firmware/jobs/{jobId}/pause",
    operation_id = "pauseFirmwareJob", tag = "simgate",
    params(("jobId" = String, Path, description = "The id of the job.")),
    responses(
        (status = 200, description = "The job.", body = FirmwareJob),
        (status = 409, description = "The job is not running.", body = ErrorBody),
    )
)]
pub(crate) async fn pause(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<FirmwareJob>, ApiError> {
    change(&api, id, Updates::pause).await
}

/// Let a paused firmware job go on.
#[utoipa::path(
    post, path = "/simgate/v1/firmware/jobs/{jobId}/resume",
    operation_id = "resumeFirmwareJob", tag = "simgate",
    params(("jobId" = String, Path, description = "The id of the job.")),
    responses(
        (status = 200, description = "The job.", body = FirmwareJob),
        (status = 409, description = "The job is not paused.", body = ErrorBody),
    )
)]
pub(crate) async fn resume(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<FirmwareJob>, ApiError> {
    change(&api, id, Updates::resume).await
}

/// Give a firmware job up. Devices that were told to install may still do so.
#[utoipa::path(
    post, path = "/simgate/v1/firmware/jobs/{jobId}/cancel",
    operation_id = "cancelFirmwareJob", tag = "simgate",
    params(("jobId" = String, Path, description = "The id of the job.")),
    responses(
        (status = 200, description = "The job.", body = FirmwareJob),
        (status = 409, description = "The job has ended.", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    State(api): State<ManagementApi>,
    Id(id): Id,
) -> Result<Json<FirmwareJob>, ApiError> {
    change(&api, id, Updates::cancel).await
}

/// The devices of a firmware job.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/jobs/{jobId}/devices",
    operation_id = "listFirmwareJobDevices", tag = "simgate",
    params(("jobId" = String, Path, description = "The id of the job."), DevicesParams),
    responses((status = 200, description = "A page of devices.", body = Page<FirmwareDevice>))
)]
pub(crate) async fn devices(
    State(api): State<ManagementApi>,
    Id(id): Id,
    Params(DevicesParams { state, page, page_size }): Params<DevicesParams>,
) -> Result<Json<Page<FirmwareDevice>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), DEVICES_PAGE_SIZE_MAX)?;
    let state = state.as_deref().map(device_state).transpose()?;
    let found = with_updates(&api, "listing devices", move |updates| {
        updates.devices_of(&id, state, (request.skip(), request.take()))
    });
    let (devices, total) = found.await?.map_err(job_error)?;
    Ok(Json(request.page_of(devices, total).map(FirmwareDevice::from)))
}

/// A device of a firmware job, with all that happened to it.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/jobs/{jobId}/devices/{deviceId}/timeline",
    operation_id = "getFirmwareTimeline", tag = "simgate",
    params(
        ("jobId" = String, Path, description = "The id of the job."),
        ("deviceId" = String, Path, description = "The ICCID."),
    ),
    responses((status = 200, description = "The device.", body = FirmwareTimeline))
)]
pub(crate) async fn timeline(
    State(api): State<ManagementApi>,
    Path((id, device)): Path<(String, String)>,
) -> Result<Json<FirmwareTimeline>, ApiError> {
    let device = iccid("deviceId", &device)?;
    let found =
        with_updates(&api, "reading a device", move |updates| updates.timeline(&id, device))
            .await?;
    let (device, timeline) = found.map_err(job_error)?;
    let timeline = timeline.into_iter().map(FirmwareEntry::from).collect();
    Ok(Json(FirmwareTimeline { device: device.into(), timeline }))
}

type Change = fn(&Updates, &str, Timestamp) -> Result<Job, JobError>;

async fn change(
    api: &ManagementApi,
    id: String,
    change: Change,
) -> Result<Json<FirmwareJob>, ApiError> {
    let changed =
        with_updates(api, "changing a job", move |updates| change(updates, &id, now())).await?;
    changed.map(|job| Json(job.into())).map_err(job_error)
}

async fn with_updates<T: Send + 'static>(
    api: &ManagementApi,
    doing: &'static str,
    ask: impl FnOnce(&Updates) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let updates = api.services().firmware.clone();
    blocking(doing, move || ask(&updates)).await
}

/// 422 where a device is not one of ours.
async fn require_all_known(api: &ManagementApi, devices: &[Iccid]) -> Result<(), ApiError> {
    let (registry, devices) = (api.services().registry.clone(), devices.to_vec());
    let unknown = blocking("looking devices up", move || {
        for iccid in devices {
            if registry.find(iccid)?.is_none() {
                return Ok(Some(iccid));
            }
        }
        Ok::<_, connectivity::StoreError>(None)
    });
    let unknown =
        unknown.await?.map_err(|error| ApiError::internal("looking devices up", error))?;
    match unknown {
        Some(iccid) => Err(unprocessable("deviceIds", format!("device {iccid} does not exist"))),
        None => Ok(()),
    }
}

fn new_job(body: NewFirmwareJob) -> Result<NewJob, ApiError> {
    let devices =
        body.device_ids.iter().map(|id| iccid("deviceIds", id)).collect::<Result<Vec<_>, _>>()?;
    let mut job = NewJob::new(digest("image", &body.image)?, devices);
    job.method = body.method.as_deref().map_or(Ok(Method::Auto), method)?;
    job.parallel_max = body.parallel_max.unwrap_or(job.parallel_max);
    job.stop_percent = body.stop_percent;
    job.require_version = body.require_version.unwrap_or(false);
    let patience = &mut job.patience;
    patience.attempts = body.attempts.unwrap_or(patience.attempts);
    for (span, seconds) in [
        (&mut patience.pause, body.pause_seconds),
        (&mut patience.deadline, body.deadline_seconds),
        (&mut patience.download, body.download_seconds),
        (&mut patience.install, body.install_seconds),
    ] {
        *span = seconds.map_or(*span, Duration::from_secs);
    }
    Ok(job)
}

fn method(text: &str) -> Result<Method, ApiError> {
    let all = [Method::Auto, Method::Pull, Method::Push];
    all.into_iter().find(|method| method.as_str() == text).ok_or_else(|| {
        ApiError::field("method", format!("method {text:?} is not known"), "AUTO, PULL, PUSH")
    })
}

fn device_state(text: &str) -> Result<DeviceState, ApiError> {
    DeviceState::from_name(text).ok_or_else(|| {
        let allowed = "WAITING, RUNNING, ASLEEP, SUCCEEDED, FAILED, CANCELLED";
        ApiError::field("state", format!("state {text:?} is not known"), allowed)
    })
}

fn unprocessable(field: &str, message: String) -> ApiError {
    let mut detail = ErrorDetail::new(message);
    detail.field = Some(field.to_owned());
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

fn start_error(error: StartError) -> ApiError {
    match error {
        StartError::OutOfRange { field, value, allowed } => {
            // What the crate calls devices is a list of ids here.
            let field = if field == "devices" { "deviceIds" } else { field };
            ApiError::field(field, format!("{field} {value} is not allowed"), allowed)
        }
        StartError::Repeated(_) => {
            ApiError::field("deviceIds", error.to_string(), "each device once")
        }
        StartError::Busy { .. } | StartError::Full { .. } => ApiError::conflict(error.to_string()),
        StartError::Image(ImageError::Unknown(_)) => unprocessable("image", error.to_string()),
        StartError::Image(error) => image_error(error),
        StartError::Store(error) => ApiError::internal("starting a job", error),
    }
}

fn job_error(error: JobError) -> ApiError {
    match error {
        JobError::Unknown(id) => {
            ApiError::not_found("job", id.chars().take(64).collect::<String>())
        }
        JobError::NoDevice(iccid) => ApiError::not_found("in this job, device", iccid),
        JobError::Conflict(_) => ApiError::conflict(error.to_string()),
        JobError::Store(error) => ApiError::internal("firmware jobs", error),
    }
}
