//! What the API answers when it refuses: one shape for every error.
//!
//! The documented bodies are `{statusCode, statusText, errors}` and, for 500, `{statusText,
//! errors}`. Each entry of `errors` says what was wrong and what is allowed. Nothing of our own
//! inside (paths, SQL, panics) reaches a body.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

/// The body of every refusal but those of the token endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    /// The HTTP status. Absent where the status is 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 404)]
    pub(crate) status_code: Option<u16>,
    /// The status as words.
    #[schema(example = "Not Found")]
    pub(crate) status_text: &'static str,
    /// What was wrong, one entry for each cause.
    pub(crate) errors: Vec<ErrorDetail>,
}

/// One cause of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// What is wrong, with the value found.
    #[schema(example = "page 51 is not allowed")]
    pub(crate) message: String,
    /// The parameter, header or member of the body that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "page")]
    pub(crate) field: Option<String>,
    /// What is allowed in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "1 to 50")]
    pub(crate) allowed: Option<String>,
    /// Where in a template the cause lies, e.g. `sense[0].value.type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// The line of the body, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The column of that line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    details: Vec<ErrorDetail>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ErrorDetail {
    /// Only words.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// A field with a value that is not allowed.
    pub(crate) fn field(
        field: &str,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            message: message.into(),
            field: Some(field.to_owned()),
            allowed: Some(allowed.into()),
            ..Self::default()
        }
    }
}

impl ApiError {
    /// A refusal with one cause.
    pub(crate) fn new(status: StatusCode, detail: ErrorDetail) -> Self {
        Self { status, details: vec![detail], header: None }
    }

    /// 400 because of one field of the query, the path or the body.
    pub(crate) fn field(
        field: &str,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorDetail::field(field, message, allowed))
    }

    /// 400 in plain words.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorDetail::new(message))
    }

    /// 401, with the scheme that is asked for (RFC 6750 §3).
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, ErrorDetail::new(message));
        refusal.header = Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        refusal
    }

    /// 404 for something that does not exist.
    pub(crate) fn not_found(what: &str, id: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorDetail::new(format!("{what} {id} does not exist")))
    }

    /// 409.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ErrorDetail::new(message))
    }

    /// 429; the client may come again after `wait`.
    pub(crate) fn too_many_requests(message: impl Into<String>, wait: Duration) -> Self {
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorDetail::new(message));
        refusal.header = Some(retry_after(wait));
        refusal
    }

    /// 503; the client may come again after `wait`.
    pub(crate) fn unavailable(message: impl Into<String>, wait: Duration) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorDetail::new(message));
        refusal.header = Some(retry_after(wait));
        refusal
    }

    /// 500: our own fault. The cause goes to the log and not to the client.
    pub(crate) fn internal(doing: &str, cause: impl fmt::Display) -> Self {
        error!(doing, %cause, "a request failed");
        let detail = ErrorDetail::new("the gateway failed to answer; its log says why");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// The status of the refusal.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// `Retry-After` in whole seconds, rounded up so that the wait is long enough.
pub(crate) fn retry_after(wait: Duration) -> (HeaderName, HeaderValue) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    (header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let internal = self.status == StatusCode::INTERNAL_SERVER_ERROR;
        let body = ErrorBody {
            status_code: (!internal).then_some(self.status.as_u16()),
            // The documented text of a 500 is not HTTP's own.
            status_text: if internal {
                "Server Error"
            } else {
                self.status.canonical_reason().unwrap_or("Error")
            },
            errors: self.details,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(error: ApiError) -> serde_json::Value {
        let body = error.into_response().into_body();
        let bytes = axum::body::to_bytes(body, 10_000).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_has_the_documented_members() {
        let found = body(ApiError::field("page", "page 51 is not allowed", "1 to 50")).await;
        let expected = serde_json::json!({
            "statusCode": 400,
            "statusText": "Bad Request",
            "errors": [{"message": "page 51 is not allowed", "field": "page", "allowed": "1 to 50"}],
        });
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_failure_of_our_own_tells_nothing_of_its_cause() {
        let found = body(ApiError::internal("listing", "no such table: secrets")).await;
        assert_eq!(found["statusText"], "Server Error");
        assert_eq!(found.get("statusCode"), None);
        assert!(!found.to_string().contains("secrets"));
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(retry_after(Duration::from_millis(1)).1, "1");
        assert_eq!(retry_after(Duration::from_millis(1_001)).1, "2");
    }
}
