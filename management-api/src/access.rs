//! Who asks: bearer tokens (RFC 6750) on everything but the few open paths.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::{ManagementApi, blocking};
use crate::error::ApiError;

/// Lets a request through whose token is valid, whose client still exists, and who is not too
/// fast.
pub(crate) async fn guard(
    State(api): State<ManagementApi>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = bearer_token(request.headers())?;
    let client = api
        .tokens()
        .verify(token, unix_now_s())
        .map_err(|error| ApiError::unauthorized(error.to_string()))?;
    api.client_throttle()
        .take(client.clone(), Instant::now())
        .map_err(|wait| ApiError::too_many_requests("this client sends too many requests", wait))?;
    let clients = api.services().clients.clone();
    // Asked each time: a revoked client's tokens end at once, whoever revoked it.
    let active = blocking("checking a client", move || clients.is_active(&client))
        .await?
        .map_err(|error| ApiError::internal("checking a client", error))?;
    if !active {
        return Err(ApiError::unauthorized("the client of the token was revoked"));
    }
    Ok(next.run(request).await)
}

fn bearer_token(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || {
        ApiError::unauthorized(
            "the request has no bearer token; POST /management-api/oauth/token gives one",
        )
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    // Schemes are compared without regard to case (RFC 9110 §11.1).
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// Seconds since 1970.
pub(crate) fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_counts() {
        let token = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer_token(&headers).map(str::to_owned).ok()
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("Basic abc"), None);
        assert_eq!(token("abc"), None);
        assert!(bearer_token(&HeaderMap::new()).is_err());
    }
}
