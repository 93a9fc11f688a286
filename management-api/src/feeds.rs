//! Feeds of the mobile network: where SIM vendors post their event streams, and what each feed has
//! told.
//!
//! A stream has a secret of its own and no token. It is answered with 200 when what it says is
//! durable; with 503 it comes again. What cannot be read of it is counted, and does not keep the
//! rest back.

use std::collections::HashMap;
use std::fmt;
use std::io::Read as _;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data_streamer::{BODY_BYTES_MAX, BodyError};
use metrics::counter;
use serde::Serialize;
use tracing::warn;
use utoipa::ToSchema;
use vocabulary::{SessionReport, Timestamp};
use zeroize::Zeroizing;

use crate::api::{ManagementApi, blocking};
use crate::connection::Peer;
use crate::error::{ApiError, ErrorBody, ErrorDetail};
use crate::extract::{read_body, too_large};

/// After so long a stream may come again that could not be stored.
const RETRY: Duration = Duration::from_secs(30);

/// Resolves to whether reports are durable.
pub type Storing = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The feeds of a gateway.
#[derive(Default)]
pub struct Feeds {
    /// Who may post, by the names of the streams.
    pub streams: HashMap<String, StreamAccess>,
    /// Makes reports durable.
    pub store: Option<Box<dyn Fn(Vec<SessionReport>) -> Storing + Send + Sync>>,
    /// What each feed has told.
    pub list: Option<Box<dyn Fn() -> Vec<FeedState> + Send + Sync>>,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.streams.keys()).finish()
    }
}

/// What a stream has to show.
pub struct StreamAccess {
    /// The user of HTTP Basic; without it the secret is a bearer token.
    pub user: Option<String>,
    /// The password or token.
    pub secret: Zeroizing<String>,
}

/// A feed of the mobile network.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedState {
    /// Its name.
    #[schema(example = "radius")]
    pub name: String,
    /// `RADIUS` or `STREAM`.
    #[schema(example = "RADIUS")]
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `WAITING` for its first report, `HEARD`, or `SILENT` when it has said nothing for longer
    /// than it should.
    #[schema(example = "HEARD")]
    pub state: &'static str,
    /// When it was last heard, in this start of the gateway or an earlier one.
    pub heard: Option<String>,
    /// Reports since the gateway was started.
    pub reports: u64,
}

/// The feeds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FeedList {
    /// All feeds of the configuration.
    items: Vec<FeedState>,
}

/// What was taken of a body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Taken {
    /// Records in the body.
    records: usize,
    /// Records that said something of data sessions.
    reports: usize,
    /// Records of other kinds.
    ignored: usize,
    /// Records of sessions that lack something.
    incomplete: usize,
}

/// List the feeds of the mobile network.
#[utoipa::path(
    get, path = "/simgate/v1/feeds",
    operation_id = "listFeeds", tag = "simgate",
    responses((status = 200, description = "The feeds.", body = FeedList))
)]
pub(crate) async fn list(State(api): State<ManagementApi>) -> Json<FeedList> {
    let list = api.services().feeds.list.as_ref();
    Json(FeedList { items: list.map(|list| list()).unwrap_or_default() })
}

/// Take records of a SIM vendor's event stream.
///
/// The stream's own secret stands in the header `Authorization`, as HTTP Basic or as a bearer
/// token.
#[utoipa::path(
    post, path = "/feeds/{name}",
    operation_id = "postFeed", tag = "simgate",
    params(("name" = String, Path, description = "The stream.")),
    request_body(content = Vec<serde_json::Value>, description = "Up to 3,000 records."),
    security(("basic" = [])),
    responses(
        (status = 200, description = "What was taken; it is durable.", body = Taken),
        (status = 400, description = "No JSON, or neither object nor array.", body = ErrorBody),
        (status = 401, description = "Another secret.", body = ErrorBody),
        (status = 413, description = "Too many bytes or records.", body = ErrorBody),
        (status = 429, description = "Too many wrong secrets from this address.",
            body = ErrorBody, headers(("Retry-After" = u64, description = "Seconds to wait."))),
        (status = 503, description = "Not stored; post it again.",
            body = ErrorBody, headers(("Retry-After" = u64, description = "Seconds to wait."))),
    )
)]
pub(crate) async fn receive(
    State(api): State<ManagementApi>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Taken>, ApiError> {
    let feeds = &api.services().feeds;
    let stream =
        feeds.streams.get(&name).ok_or_else(|| ApiError::not_found("feed", shown(&name)))?;
    let (parts, body) = request.into_parts();
    if !is_allowed(stream, &parts.headers) {
        // Guessing is slowed down, and never the vendor who knows the secret.
        let limited = api.admit_login(peer.ip);
        api.count_failed_login(peer.ip);
        return Err(match limited {
            Ok(()) => ApiError::unauthorized("the secret is not this feed's"),
            Err(wait) => ApiError::too_many_requests("too many wrong secrets", wait),
        });
    }
    let body = read_body(body, BODY_BYTES_MAX).await?;
    let is_gzip = is_gzip(&parts.headers)?;
    let feed = name.clone();
    let parsed = blocking("reading a feed", move || {
        let body = if is_gzip { unpacked(&body)? } else { body };
        let now = Timestamp::from(SystemTime::now());
        data_streamer::parse(&feed, &body, now).map_err(refusal)
    });
    let parsed = parsed.await??;
    for (outcome, amount) in [
        ("report", parsed.reports.len()),
        ("ignored", parsed.ignored),
        ("incomplete", parsed.incomplete),
    ] {
        let labels = [("feed", name.clone()), ("outcome", outcome.to_owned())];
        counter!("simgate_feed_records_total", &labels).increment(amount as u64);
    }
    if let Some(lack) = parsed.first_lack
        && api.may_complain(&name)
    {
        warn!(feed = name, records = parsed.incomplete, lack, "records of a feed are incomplete");
    }
    let taken = Taken {
        records: parsed.records,
        reports: parsed.reports.len(),
        ignored: parsed.ignored,
        incomplete: parsed.incomplete,
    };
    let is_stored = match (&feeds.store, parsed.reports) {
        (_, none) if none.is_empty() => true,
        (Some(store), reports) => store(reports).await,
        (None, _) => false,
    };
    if is_stored {
        return Ok(Json(taken));
    }
    Err(ApiError::unavailable("the records could not be stored", RETRY))
}

fn is_allowed(stream: &StreamAccess, headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, shown)) = value.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let expected = match &stream.user {
        Some(user) if scheme.eq_ignore_ascii_case("basic") => {
            Zeroizing::new(STANDARD.encode(format!("{user}:{}", *stream.secret)))
        }
        None if scheme.eq_ignore_ascii_case("bearer") => stream.secret.clone(),
        _ => return false,
    };
    verify_slices_are_equal(expected.as_bytes(), shown.trim().as_bytes()).is_ok()
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => {
            let found = String::from_utf8_lossy(other).into_owned();
            let message = format!("content encoding {found:?} is not known");
            let detail = ErrorDetail::field("content-encoding", message, "gzip, identity");
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

/// A body without its compression, no longer than one that had none.
fn unpacked(body: &[u8]) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    let limit = BODY_BYTES_MAX as u64;
    let decoder = flate2::read::MultiGzDecoder::new(body);
    let read = decoder.take(limit + 1).read_to_end(&mut plain);
    read.map_err(|error| ApiError::bad_request(format!("the body is no gzip: {error}")))?;
    if plain.len() as u64 > limit { Err(too_large(limit)) } else { Ok(plain.into()) }
}

fn refusal(error: BodyError) -> ApiError {
    let text = error.to_string();
    match error {
        BodyError::TooMany(_) => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorDetail::new(text))
        }
        BodyError::Json(_) | BodyError::Form(_) => ApiError::bad_request(text),
    }
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}
