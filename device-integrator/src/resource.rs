//! The resources of the CoAP listener: which requests are uplinks, and what the others get.

use coap::wire::{Code, ContentFormat, OptionNumber};
use coap::{IncomingRequest, Response};
use vocabulary::Topic;

use crate::bootstrap;
use crate::stranger;
use crate::uplink::{Receipt, Rider, Shed};

/// The query that names a topic: `?t=some/topic`.
pub(crate) const TOPIC_QUERY: &str = "t=";

/// The query by which a device that listens on no port asks for a command: `?cmd`.
const COMMAND_QUERY: &str = "cmd";

/// JSON and CBOR compressed by deflate (the IANA registry of Content-Formats). Payloads are stored
/// as they come and never inflated: a small datagram must not become a large one inside.
const DEFLATED_FORMATS: [ContentFormat; 2] = [ContentFormat(11_050), ContentFormat(11_060)];

/// What a request is.
pub(crate) enum Route {
    /// Telemetry.
    Uplink(Queries),
    /// A device asks for its key.
    Bootstrap,
    /// Something that is answered at once.
    Answer(Response),
}

/// What a device says and asks beside its telemetry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Queries {
    /// `?t=some/topic`.
    pub(crate) topic: Option<Topic>,
    /// `?cmd`: a command that waits for the device shall come with the answer.
    pub(crate) command: bool,
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
    match asked(request) {
        Ok(asked) => Route::Uplink(asked),
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

/// The queries of a request; those with other names are the device's own business.
fn asked<P: Copy>(request: &IncomingRequest<P>) -> Result<Queries, String> {
    let mut topic = None;
    let mut command = false;
    // A command must not ride on an answer that may be lost or left out (RFC 7967).
    let is_heard = request.exchange.is_confirmable()
        && request.options.first(OptionNumber::NO_RESPONSE).is_none();
    for query in request.queries() {
        let query = query.ok_or_else(|| "query is not UTF-8".to_owned())?;
        command |= query == COMMAND_QUERY && is_heard;
        let Some(text) = query.strip_prefix(TOPIC_QUERY) else { continue };
        if topic.is_some() {
            return Err("topic is given twice".to_owned());
        }
        topic = Some(text.parse().map_err(|error: vocabulary::TopicError| error.to_string())?);
    }
    Ok(Queries { topic, command })
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

/// The answer to an uplink that a command rides on: what the request would have held.
pub(crate) fn answer_with(rider: Rider) -> Response {
    let mut response = Response::new(Code::CHANGED);
    response.content_format = rider.format;
    response.payload = rider.payload;
    let (path, query) = rider.path.split_once('?').unwrap_or((&rider.path, ""));
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let parts = segments.map(|segment| (OptionNumber::LOCATION_PATH, segment)).chain(
        query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| (OptionNumber::LOCATION_QUERY, part)),
    );
    for (number, part) in parts {
        // A path has at most 255 characters, and an option list room for more.
        let _ = response.options.push(number, part.as_bytes());
    }
    response
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
