//! The resources of the CoAP listener: which requests are uplinks, and what the others get.

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{IncomingRequest, Response};
use vocabulary::Topic;

use crate::bootstrap;
use crate::stranger;
use crate::uplink::{Receipt, Shed};

/// The query that names a topic: `?t=some/topic`.
pub(crate) const TOPIC_QUERY: &str = "t=";

/// JSON and CBOR compressed by deflate (the IANA registry of Content-Formats). Payloads are stored
/// as they come and never inflated: a small datagram must not become a large one inside.
const DEFLATED_FORMATS: [ContentFormat; 2] = [ContentFormat(11_050), ContentFormat(11_060)];

/// What a request is.
pub(crate) enum Route {
    /// Telemetry, with its topic.
    Uplink(Option<Topic>),
    /// A device asks for its key.
    Bootstrap,
    /// Something that is answered at once.
    Answer(Response),
}

/// Decides what a request is. `POST /` and `POST /data` are the uplink resource; `limit_bytes` is
/// of a body. `GET /bootstrap` asks for the device's key.
pub(crate) fn route<P: Copy>(request: &IncomingRequest<P>, limit_bytes: usize) -> Route {
    if request.path().eq([Some("bootstrap")]) {
        return bootstrap::refusal(request).map_or(Route::Bootstrap, Route::Answer);
    }
    let mut path = request.path();
    // "/" may come as no segment or as one empty segment.
    let known = match (path.next(), path.next()) {
        (None | Some(Some("" | "data")), None) => true,
        (Some(Some("data")), Some(Some(""))) => path.next().is_none(),
        _ => false,
    };
    if !known {
        return Route::Answer(Response::new(Code::NOT_FOUND).with_diagnostic("Not Found"));
    }
    match request.method {
        Code::POST if request.payload.len() > limit_bytes => Route::Answer(too_large(limit_bytes)),
        Code::POST => uplink(request),
        // Clients of the documented service know this answer to a look at the root.
        Code::GET => Route::Answer(Response::new(Code::NOT_FOUND).with_diagnostic("Not Found")),
        _ => {
            Route::Answer(Response::new(Code::METHOD_NOT_ALLOWED).with_diagnostic("allowed: POST"))
        }
    }
}

fn uplink<P: Copy>(request: &IncomingRequest<P>) -> Route {
    if request.content_format().is_some_and(|format| DEFLATED_FORMATS.contains(&format)) {
        let answer = Response::new(Code::UNSUPPORTED_CONTENT_FORMAT);
        return Route::Answer(answer.with_diagnostic("compressed payloads are not accepted"));
    }
    if request.payload.is_empty() {
        let answer = Response::new(Code::BAD_REQUEST);
        return Route::Answer(answer.with_diagnostic("payload is empty"));
    }
    match topic(request) {
        Ok(topic) => Route::Uplink(topic),
        Err(reason) => Route::Answer(Response::new(Code::BAD_REQUEST).with_diagnostic(&reason)),
    }
}

/// The answer to a body above the limit that came in one datagram (RFC 7959 §4).
fn too_large(limit_bytes: usize) -> Response {
    let mut response = Response::new(Code::REQUEST_ENTITY_TOO_LARGE);
    let limit = u32::try_from(limit_bytes).unwrap_or(u32::MAX);
    // An empty list has room for four bytes.
    let _ = response.options.push_uint(OptionNumber::SIZE1, limit);
    response
}

/// The topic of a request; queries with other names are the device's own business.
fn topic<P: Copy>(request: &IncomingRequest<P>) -> Result<Option<Topic>, String> {
    let mut topic = None;
    for query in request.queries() {
        let query = query.ok_or_else(|| "query is not UTF-8".to_owned())?;
        let Some(text) = query.strip_prefix(TOPIC_QUERY) else { continue };
        if topic.is_some() {
            return Err("topic is given twice".to_owned());
        }
        topic = Some(text.parse().map_err(|error: vocabulary::TopicError| error.to_string())?);
    }
    Ok(topic)
}

/// The answer that a receipt gives to the device.
pub(crate) fn answer(receipt: &Receipt) -> Response {
    match receipt {
        Receipt::Stored | Receipt::Duplicate => Response::new(Code::CHANGED),
        Receipt::Unauthorised(reason) => unauthorised(reason),
        Receipt::Unavailable { reason, retry_after } => {
            let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX);
            let code = match reason {
                Shed::DeviceTooFast => Code::TOO_MANY_REQUESTS, // RFC 8516
                _ => Code::SERVICE_UNAVAILABLE,
            };
            Response::new(code).with_max_age(seconds)
        }
    }
}

fn unauthorised(reason: &str) -> Response {
    let body = stranger::body(reason);
    Response::new(Code::UNAUTHORIZED).with_payload(ContentFormat::JSON, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn refusals_are_small_and_documented() {
        let answer = answer(&Receipt::Unauthorised("the source address belongs to no known SIM"));
        assert_eq!(answer.code, Code::UNAUTHORIZED);
        let text = String::from_utf8(answer.payload).unwrap();
        assert!(text.starts_with(r#"{"statusText":"Unauthorized","errors":["#));
        assert!(text.len() + 16 <= 136, "{} bytes", text.len());
        assert!(!text.contains("89"), "old device software takes 89 for its identity");
    }

    #[test]
    fn overload_says_when_to_come_back() {
        let retry_after = Duration::from_secs(42);
        let answer = answer(&Receipt::Unavailable { reason: Shed::NoSpace, retry_after });
        assert_eq!(answer.code, Code::SERVICE_UNAVAILABLE);
        assert_eq!(answer.max_age_seconds, Some(42));
        assert!(answer.options.iter().all(|option| option.number != OptionNumber::MAX_AGE));
    }
}
