//! `POST /oauth/token`: from a client's id and secret to an access token.
//!
//! Clients send `grant_type` in three ways: in a JSON body, in a form body, or with an empty body
//! in the query. All three are understood. Errors have the documented shape, which is not that of
//! the other paths.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::access::unix_now_s;
use crate::api::{ManagementApi, blocking};
use crate::clients::Verdict;
use crate::connection::Peer;
use crate::error::{ApiError, retry_after};
use crate::extract::{media_type, read_body};
use crate::tokens::SCOPE;

/// The request holds one short word.
const BODY_BYTES_MAX: usize = 4_096;
const GRANT_TYPE: &str = "client_credentials";

/// What a client asks for.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TokenRequest {
    /// Always `client_credentials`; in the body, or in the query where the body is empty.
    #[schema(example = "client_credentials")]
    grant_type: Option<String>,
}

/// An access token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenResponse {
    /// 200.
    status_code: u16,
    /// The token, for the header `Authorization: Bearer <token>`.
    access_token: String,
    /// `bearer`.
    token_type: &'static str,
    /// Seconds for which the token is still valid.
    #[schema(maximum = 3600)]
    expires_in: u64,
    /// The client's id.
    #[serde(rename = "userId")]
    user_id: String,
    /// `all`.
    scope: &'static str,
}

/// Why there is no token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenError {
    /// The HTTP status.
    #[schema(example = 400)]
    status_code: u16,
    /// `AuthValidationError`, `BodyValidationError`, `BadCredentials`,
    /// `UnsupportedContentTypeError` or `TooManyRequests`.
    #[schema(example = "BadCredentials")]
    error_code: &'static str,
    /// What was wrong.
    #[schema(example = "User does not exist.")]
    message: String,
}

/// Id and secret of a Basic header.
struct Credentials {
    id: String,
    secret: String,
}

/// Get an access token.
///
/// A repeated call returns the same token with a smaller `expires_in`, until it is nearly over.
#[utoipa::path(
    post, path = "/oauth/token",
    operation_id = "issueToken", tag = "OAuth",
    params(TokenRequest),
    request_body(content(
        (TokenRequest = "application/json"),
        (TokenRequest = "application/x-www-form-urlencoded"),
    )),
    security(("basic" = [])),
    responses(
        (status = 200, description = "An access token.", body = TokenResponse),
        (status = 400, description = "No token, with the reason.", body = TokenError),
        (status = 429, description = "Too many requests or failed logins from this address.",
            body = TokenError, headers(("Retry-After" = u64, description = "Seconds to wait."))),
    )
)]
pub(crate) async fn issue_token(
    State(api): State<ManagementApi>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, Refusal> {
    api.admit_login(peer.ip).map_err(Refusal::TooMany)?;
    let (parts, body) = request.into_parts();
    let answer = answer(&api, &parts.headers, &parts.uri, body).await;
    if answer.is_err() {
        api.count_failed_login(peer.ip);
    }
    answer
}

/// Why a client gets no token.
pub(crate) enum Refusal {
    /// The client's fault, with a documented code.
    Request(&'static str, String),
    /// Too fast; the wait until there is room again.
    TooMany(Duration),
    /// What every path refuses: a body that is too long or too slow, a failure of our own.
    Other(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl Refusal {
    fn request(error_code: &'static str, message: impl Into<String>) -> Self {
        Self::Request(error_code, message.into())
    }

    fn body(cause: impl std::fmt::Display) -> Self {
        Self::request("BodyValidationError", format!("Request body validation error: {cause}"))
    }

    fn content_type() -> Self {
        Self::request("UnsupportedContentTypeError", "Content-Type not supported")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error_code, message, wait) = match self {
            Self::Other(error) => return error.into_response(),
            Self::Request(code, message) => (StatusCode::BAD_REQUEST, code, message, None),
            Self::TooMany(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                "Too many requests for tokens from this address.".to_owned(),
                Some(wait),
            ),
        };
        let body = TokenError { status_code: status.as_u16(), error_code, message };
        let mut response = (status, Json(body)).into_response();
        if let Some((name, value)) = wait.map(retry_after) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

async fn answer(
    api: &ManagementApi,
    headers: &HeaderMap,
    uri: &Uri,
    body: Body,
) -> Result<Response, Refusal> {
    check_grant_type(headers, uri, body).await?;
    let Credentials { id, secret } = credentials(headers)?;
    let clients = api.services().clients.clone();
    let (verdict, id) =
        blocking("checking a client", move || (clients.verify(&id, &secret), id)).await?;
    match verdict.map_err(|error| ApiError::internal("checking a client", error))? {
        Verdict::Accepted => Ok(granted(api, id)),
        Verdict::Unknown => Err(Refusal::request("BadCredentials", "User does not exist.")),
        Verdict::WrongSecret => {
            Err(Refusal::request("BadCredentials", "Incorrect username or password"))
        }
    }
}

fn granted(api: &ManagementApi, client_id: String) -> Response {
    let now_s = unix_now_s();
    let issued = api.tokens().issue(&client_id, now_s);
    let body = TokenResponse {
        status_code: StatusCode::OK.as_u16(),
        access_token: issued.token,
        token_type: "bearer",
        expires_in: issued.expires_at_s.saturating_sub(now_s),
        user_id: client_id,
        scope: SCOPE,
    };
    // RFC 6749 §5.1 asks for both headers.
    ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(body))
        .into_response()
}

async fn check_grant_type(headers: &HeaderMap, uri: &Uri, body: Body) -> Result<(), Refusal> {
    let media = media_type(headers);
    let is_form = media.as_deref() == Some("application/x-www-form-urlencoded");
    if !is_form && !matches!(media.as_deref(), None | Some("application/json")) {
        return Err(Refusal::content_type());
    }
    let body = read_body(body, BODY_BYTES_MAX).await?;
    let asked = if body.is_empty() {
        from_query(uri.query().unwrap_or_default())
    } else if is_form {
        from_query(&String::from_utf8_lossy(&body))
    } else if media.is_some() {
        serde_json::from_slice(&body).map_err(Refusal::body)?
    } else {
        return Err(Refusal::content_type());
    };
    match asked.grant_type.as_deref() {
        Some(GRANT_TYPE) => Ok(()),
        Some(_) => Err(Refusal::body("'grant_type' must be 'client_credentials'")),
        None => Err(Refusal::body("Missing attributes 'grant_type'")),
    }
}

/// A form is written like a query (WHATWG URL §5); what cannot be read says nothing.
fn from_query(query: &str) -> TokenRequest {
    let uri = format!("/?{}", query.trim()).parse::<Uri>().unwrap_or_default();
    Query::try_from_uri(&uri).map(|Query(request)| request).unwrap_or_default()
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, Refusal> {
    let decoded = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .unwrap_or_default();
    let (id, secret) = decoded.split_once(':').unwrap_or((&decoded, ""));
    let missing = match (id.is_empty(), secret.is_empty()) {
        (false, false) => return Ok(Credentials { id: id.to_owned(), secret: secret.to_owned() }),
        (true, true) => "'username', 'password'",
        (true, false) => "'username'",
        (false, true) => "'password'",
    };
    let message = format!("Auth header validation error: Missing attributes {missing}");
    Err(Refusal::Request("AuthValidationError", message))
}
