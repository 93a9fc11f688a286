//! What handlers take from a request, with refusals in the API's own shape.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;
use vocabulary::Iccid;

use crate::error::{ApiError, ErrorDetail};

/// The longest body that is read where nothing else is documented: far above the largest that
/// has a meaning, and little enough to be held for every connection.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// The longest body that holds a template: the limit that 1NCE OS documents.
pub(crate) const TEMPLATE_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a body may take to arrive as a whole: 1 MiB at 300 kbit/s.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body of at most `BYTES_MAX` bytes.
pub(crate) struct JsonBody<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub(crate) T);

/// The query. Unknown and repeated parameters are refused, naming those that are allowed.
pub(crate) struct Params<T>(pub(crate) T);

/// The one variable part of the path, where it is an opaque id.
pub(crate) struct Id(pub(crate) String);

/// The one variable part of the path, where it is a SIM.
pub(crate) struct DeviceId(pub(crate) Iccid);

impl<S: Send + Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S>
    for JsonBody<T, BYTES_MAX>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(unsupported_type(request.headers(), "application/json"));
        }
        let body = read_body(request.into_body(), BYTES_MAX).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| json_error(&error))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(QueryRejection::FailedToDeserializeQueryString(cause)) => {
                // The cause's own cause has the words; its outside only says "query string".
                let source = std::error::Error::source(&cause);
                let message = source.map_or_else(|| cause.to_string(), ToString::to_string);
                Err(ApiError::bad_request(message))
            }
            Err(other) => Err(ApiError::bad_request(other.to_string())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.to_string()))?;
        Ok(Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeviceId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Id(id) = Id::from_request_parts(parts, state).await?;
        iccid("deviceId", &id).map(Self)
    }
}

/// Tells `null` from absent.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Reads an ICCID of a query or a path.
pub(crate) fn iccid(field: &str, text: &str) -> Result<Iccid, ApiError> {
    text.parse().map_err(|error: vocabulary::ParseDigitsError| {
        ApiError::field(field, error.to_string(), "19 digits, or 20 with the check digit")
    })
}

/// The media type of a request without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default();
    Some(essence.trim().to_ascii_lowercase())
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|essence| essence == "application/json")
}

/// 415.
pub(crate) fn unsupported_type(headers: &HeaderMap, allowed: &str) -> ApiError {
    let message = match media_type(headers) {
        Some(found) => format!("content type {found:?} is not supported"),
        None => "the request has no content type".to_owned(),
    };
    let detail = ErrorDetail::field("Content-Type", message, allowed);
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// Reads a body as a whole, up to `bytes_max`, within [`BODY_TIMEOUT`].
pub(crate) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk
                .map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            if whole.len() + chunk.len() > bytes_max {
                return Err(too_large(bytes_max as u64));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(body_overdue()))
}

/// 413.
pub(crate) fn too_large(bytes_max: u64) -> ApiError {
    let message = "the body is too long";
    let detail = ErrorDetail::field("body", message, format!("at most {bytes_max} bytes"));
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// 408: the body did not arrive in time.
pub(crate) fn body_overdue() -> ApiError {
    let seconds = BODY_TIMEOUT.as_secs();
    let detail = ErrorDetail::new(format!("the body took longer than {seconds} seconds"));
    ApiError::new(StatusCode::REQUEST_TIMEOUT, detail)
}

fn json_error(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    // serde_json ends its text with the place, which has members of its own here.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let mut detail = ErrorDetail::new(message);
    detail.field = Some("body".to_owned());
    detail.line = Some(error.line());
    detail.column = Some(error.column());
    ApiError::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its refusals are looked at")]
    struct Shoe {
        size: u8,
    }

    async fn refusal<const MAX: usize>(media: &str, body: impl Into<Body>) -> ApiError {
        let request = Request::builder().header("content-type", media).body(body.into()).unwrap();
        JsonBody::<Shoe, MAX>::from_request(request, &()).await.err().unwrap()
    }

    #[tokio::test]
    async fn bad_json_is_refused_with_its_place() {
        let error = refusal::<100>("application/json", "{\n\"size\": }").await;
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(format!("{error:?}").contains("line: Some(2), column: Some(9)"), "{error:?}");
        let error = refusal::<100>("application/json", r#"{"colour": 1}"#).await;
        assert!(format!("{error:?}").contains("expected `size`"), "{error:?}");
    }

    #[tokio::test]
    async fn other_types_and_long_bodies_are_refused() {
        let error = refusal::<100>("text/plain", "{}").await;
        assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let error = refusal::<10>("application/json; charset=UTF-8", "           ").await;
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, ApiNever>>());
        let error = read_body(body, 10).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    struct ApiNever;
}
