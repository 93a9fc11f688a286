//! Firmware images: uploaded once, then given to devices by jobs.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use firmware_update::{Digest, Image, ImageError, Images, LABEL_CHARS_MAX};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use crate::api::{ManagementApi, blocking};
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{Id, Params, media_type, too_large, unsupported_type};
use crate::paging::{Page, PageRequest};
use crate::sims::now;
use crate::upload::{Piece, QUEUED_PIECES_MAX, UploadLimits, feed};

/// Images on a page.
const PAGE_SIZE_MAX: u32 = 50;
/// The longest upload: 64 MiB at 300 kbit/s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(1_800);
/// When a client may ask again whose upload found no place.
const UPLOAD_RETRY: Duration = Duration::from_secs(5);

/// A firmware image.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FirmwareImage {
    /// Its SHA-256, which names it.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    sha256: String,
    /// How its owner calls it.
    #[schema(example = "modem")]
    name: String,
    /// The version that a device reports which has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2.0.1")]
    version: Option<String>,
    /// Its size in bytes.
    size: u64,
    /// When it was uploaded, in UTC.
    created_at: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadParams {
    /// How you call it; 1 to 128 characters.
    name: String,
    /// The version that a device reports which has it; 1 to 128 characters.
    version: Option<String>,
    /// Its SHA-256 in hexadecimal digits; an upload that arrives otherwise is refused.
    sha256: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Images on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
}

impl From<Image> for FirmwareImage {
    fn from(image: Image) -> Self {
        Self {
            sha256: image.digest.to_string(),
            name: image.name,
            version: image.version,
            size: image.bytes,
            created_at: image.created.to_string(),
        }
    }
}

/// Upload a firmware image, as the bytes that devices get.
///
/// The same image once more is no error, and mends a file that was damaged.
#[utoipa::path(
    post, path = "/simgate/v1/firmware/images",
    operation_id = "uploadFirmwareImage", tag = "simgate", params(UploadParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "At most 64 MiB, where the operator has set no other limit."),
    responses(
        (status = 201, description = "The image is kept.", body = FirmwareImage),
        (status = 200, description = "The image was there already.", body = FirmwareImage),
        (status = 409, description = "It is there under another name or version, or there are \
            too many images.", body = ErrorBody),
        (status = 422, description = "What arrived has another SHA-256.", body = ErrorBody),
    )
)]
pub(crate) async fn upload(
    State(api): State<ManagementApi>,
    Params(params): Params<UploadParams>,
    request: Request,
) -> Result<(StatusCode, Json<FirmwareImage>), ApiError> {
    if media_type(request.headers()).as_deref() != Some("application/octet-stream") {
        return Err(unsupported_type(request.headers(), "application/octet-stream"));
    }
    let UploadParams { name, version, sha256 } = params;
    label("name", &name)?;
    version.as_deref().map_or(Ok(()), |version| label("version", version))?;
    let announced = sha256.as_deref().map(|text| digest("sha256", text)).transpose()?;
    let images = api.services().firmware.images().clone();
    let bytes_max = images.limits().bytes_max;
    let (sender, queue) = mpsc::channel(QUEUED_PIECES_MAX);
    let keeping = tokio::spawn(blocking("keeping an image", move || {
        keep(&images, queue, (&name, version.as_deref()), announced)
    }));
    let limits = UploadLimits { bytes_max, time_max: UPLOAD_TIMEOUT };
    let fed = feed(request.into_body(), sender, limits).await;
    let kept = keeping.await.map_err(|error| ApiError::internal("keeping an image", error))??;
    // A body that went wrong is the cause of whatever came of it.
    fed?;
    let (image, is_new) = kept.map_err(image_error)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(image.into())))
}

/// Writes what arrives, piece by piece.
fn keep(
    images: &Images,
    mut queue: mpsc::Receiver<Piece>,
    labels: (&str, Option<&str>),
    announced: Option<Digest>,
) -> Result<(Image, bool), ImageError> {
    let mut upload = images.upload()?;
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data(bytes) => upload.write(&bytes)?,
            Piece::End => return upload.finish(labels, announced, now()),
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
}

/// List the firmware images, newest first.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/images",
    operation_id = "listFirmwareImages", tag = "simgate", params(ListParams),
    responses((status = 200, description = "A page of images.", body = Page<FirmwareImage>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size }): Params<ListParams>,
) -> Result<Json<Page<FirmwareImage>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let images = api.services().firmware.images().clone();
    let all = blocking("listing images", move || images.list()).await?.map_err(image_error)?;
    Ok(Json(request.slice(all).map(FirmwareImage::from)))
}

/// One firmware image.
#[utoipa::path(
    get, path = "/simgate/v1/firmware/images/{sha256}",
    operation_id = "getFirmwareImage", tag = "simgate",
    params(("sha256" = String, Path, description = "The SHA-256 of the image.")),
    responses((status = 200, description = "The image.", body = FirmwareImage))
)]
pub(crate) async fn find(
    State(api): State<ManagementApi>,
    Id(text): Id,
) -> Result<Json<FirmwareImage>, ApiError> {
    let digest = digest("sha256", &text)?;
    let images = api.services().firmware.images().clone();
    let found = blocking("reading an image", move || images.find(digest)).await?;
    found.map(|image| Json(image.into())).map_err(image_error)
}

/// Delete a firmware image that no unfinished job uses.
#[utoipa::path(
    delete, path = "/simgate/v1/firmware/images/{sha256}",
    operation_id = "deleteFirmwareImage", tag = "simgate",
    params(("sha256" = String, Path, description = "The SHA-256 of the image.")),
    responses(
        (status = 204, description = "The image is gone."),
        (status = 409, description = "A job uses it.", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(api): State<ManagementApi>,
    Id(text): Id,
) -> Result<StatusCode, ApiError> {
    let digest = digest("sha256", &text)?;
    let images = api.services().firmware.images().clone();
    let deleted = blocking("deleting an image", move || images.delete(digest)).await?;
    deleted.map(|()| StatusCode::NO_CONTENT).map_err(image_error)
}

/// Reads a SHA-256 of a query, a path or a body.
pub(crate) fn digest(field: &str, text: &str) -> Result<Digest, ApiError> {
    let refuse =
        |_| ApiError::field(field, format!("{text:?} is not a SHA-256"), "64 hexadecimal digits");
    text.parse().map_err(refuse)
}

fn label(field: &str, text: &str) -> Result<(), ApiError> {
    let chars = text.chars().count();
    if (1..=LABEL_CHARS_MAX).contains(&chars) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("{field} of {chars} characters is not allowed");
    let allowed = format!("1 to {LABEL_CHARS_MAX} characters, none of them a control character");
    Err(ApiError::field(field, message, allowed))
}

/// What the API says of an image that cannot be had.
pub(crate) fn image_error(error: ImageError) -> ApiError {
    match &error {
        ImageError::TooLarge(bytes_max) => too_large(*bytes_max),
        ImageError::Empty => ApiError::field("body", error.to_string(), "at least 1 byte"),
        ImageError::OtherDigest { .. } => {
            let detail = ErrorDetail::field("sha256", error.to_string(), "the SHA-256 of the body");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        }
        ImageError::Unknown(digest) => ApiError::not_found("image", digest),
        ImageError::Exists { .. }
        | ImageError::Full(_)
        | ImageError::InUse(_)
        | ImageError::Damaged(_)
        | ImageError::MemoryFull(_) => ApiError::conflict(error.to_string()),
        ImageError::Busy => ApiError::too_many_requests(error.to_string(), UPLOAD_RETRY),
        ImageError::File(_) | ImageError::Table(_) | ImageError::Random(_) => {
            ApiError::internal("firmware images", error)
        }
    }
}
