//! What an endpoint's answer means. Success is 2xx with complete headers; the body only matters
//! to people, and to the connection.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::unix_secs;
use crate::sink::{ANSWER_CHARS_MAX, Answer, Failure, FailureClass, Outcome};

/// Bytes of an answer that are read so that its connection can be used again; what is longer, or
/// endless, costs the receiver a new connection.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;
/// How long they are waited for. The headers have decided, so an answer whose body drips holds up
/// its device no longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits that an endpoint may ask for: at most a day, since messages live for seven.
const RETRY_AFTER_SECS: std::ops::RangeInclusive<u64> = 1..=86_400;

/// Reads what is to be read of an answer and judges it.
pub(super) async fn judge(response: Response) -> Outcome {
    let status = response.status();
    let after = asked_wait(status, response.headers());
    let body = read(response).await;
    if status.is_success() {
        return Outcome::Delivered;
    }
    let (class, hint) = class_of(status);
    let text = format!("the endpoint answered {}{hint}", status.as_u16());
    let answer = Answer { code: status.as_u16(), text: text_of(&body) };
    let reason = Failure { class, text, answer: Some(answer) };
    Outcome::Retry { reason, after }
}

/// The class of a status that is no success, and what to add to its number.
fn class_of(status: StatusCode) -> (FailureClass, &'static str) {
    match status.as_u16() {
        300..=399 => (FailureClass::Status, ", redirects are not followed"),
        400 | 422 => (FailureClass::Refused, ""),
        401 | 403 => (FailureClass::Credentials, ""),
        410 => (FailureClass::Gone, ""),
        413 => (FailureClass::TooLarge, ""),
        429 | 503 => (FailureClass::Throttled, ""),
        _ => (FailureClass::Status, ""),
    }
}

/// The beginning of the body, as it comes: nothing is decompressed.
async fn read(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let left = ANSWER_BYTES_MAX - body.len();
            body.extend_from_slice(chunk.get(..left).unwrap_or(&chunk));
            if chunk.len() > left {
                return;
            }
        }
    };
    // Late or not: what has come so far is what there is.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
    body
}

fn text_of(body: &[u8]) -> String {
    // A character has at most four bytes.
    let beginning = body.get(..ANSWER_CHARS_MAX * 4).unwrap_or(body);
    String::from_utf8_lossy(beginning).chars().take(ANSWER_CHARS_MAX).collect()
}

/// `Retry-After` of 429 and 503: seconds or a date (RFC 9110 §10.2.3).
fn asked_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if class_of(status).0 != FailureClass::Throttled {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = text.parse().ok().or_else(|| secs_until(text))?;
    Some(Duration::from_secs(secs.clamp(*RETRY_AFTER_SECS.start(), *RETRY_AFTER_SECS.end())))
}

fn secs_until(date: &str) -> Option<u64> {
    let until = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    let now = i64::try_from(unix_secs()).ok()?;
    Some(u64::try_from(until - now).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(status: u16, value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        asked_wait(status, &headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_obeyed_within_its_limits() {
        assert_eq!(wait(503, "120"), Some(120));
        assert_eq!(wait(429, "0"), Some(1));
        assert_eq!(wait(429, "9999999"), Some(86_400));
        assert_eq!(wait(503, "Wed, 21 Oct 2015 07:28:00 GMT"), Some(1));
        assert_eq!(wait(503, "soon"), None);
        assert_eq!(wait(500, "120"), None);
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1_000);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!(wait(503, &date).is_some_and(|secs| (900..=1_000).contains(&secs)), "{date}");
    }

    #[test]
    fn an_answer_is_kept_as_text_and_not_without_end() {
        assert_eq!(text_of(b"no such device"), "no such device");
        assert_eq!(text_of(&[b'a', 0xff, b'b']), "a\u{fffd}b");
        assert_eq!(text_of("ä".repeat(5_000).as_bytes()), "ä".repeat(ANSWER_CHARS_MAX));
        assert_eq!(text_of("€😀".repeat(5_000).as_bytes()).chars().count(), ANSWER_CHARS_MAX);
    }
}
