//! The events of a request's body, read as far as a receiver needs to count them: one JSON object
//! or an array of them, compressed or not. For the envelope see `docs/webhooks.md`.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;
use serde::Deserialize;
use thiserror::Error;

/// What is looked at in an event. Texts are borrowed, so one with an escape (no id has any) is not
/// read.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Event<'a> {
    pub(super) id: Option<&'a str>,
    /// Milliseconds since 1970.
    pub(super) received: Option<&'a str>,
    #[serde(borrow)]
    pub(super) device: Option<Device<'a>>,
}

/// Of which device an event is.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Device<'a> {
    pub(super) iccid: Option<&'a str>,
}

/// Why a body's content cannot be had.
#[derive(Debug, Error)]
pub enum ContentError {
    /// Compressed in a way that is not known here.
    #[error("content-encoding {0:?} is not known, allowed: identity, gzip")]
    Encoding(String),
    /// Not what gzip makes.
    #[error("the body is no gzip: {0}")]
    Gzip(#[from] std::io::Error),
    /// Too long once inflated.
    #[error("the inflated body exceeds the limit of {0} bytes")]
    TooLong(usize),
}

/// The body as it was before it was compressed, at most `bytes_max` long.
pub(super) fn content(
    headers: &HeaderMap,
    body: &Bytes,
    bytes_max: usize,
) -> Result<Bytes, ContentError> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(body.clone()) };
    match encoding.as_bytes() {
        b"identity" => Ok(body.clone()),
        b"gzip" => {
            let mut inflated = Vec::new();
            let limit = bytes_max as u64 + 1;
            GzDecoder::new(&**body).take(limit).read_to_end(&mut inflated)?;
            if inflated.len() > bytes_max {
                return Err(ContentError::TooLong(bytes_max));
            }
            Ok(Bytes::from(inflated))
        }
        other => Err(ContentError::Encoding(String::from_utf8_lossy(other).into_owned())),
    }
}

/// The events in it: all, or none where anything is wrong with one.
pub(super) fn read(content: &[u8]) -> serde_json::Result<Vec<Event<'_>>> {
    if content.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(content)
    } else {
        serde_json::from_slice(content).map(|event| vec![event])
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const EVENT: &str = r#"{"type":"TELEMETRY_DATA","id":"1-6b00fc1a-b7803cfba193471d79f8c41b",
        "received":"1795226650728","device":{"iccid":"8988280666000002864","ip":"10.0.0.7"},
        "payload":{"type":"JSON","value":{"id":"another","device":[1,"\n"]}}}"#;

    #[test]
    fn one_event_and_an_array_of_them_are_read() {
        let events = read(EVENT.as_bytes()).unwrap();
        let device = Some(Device { iccid: Some("8988280666000002864") });
        let id = Some("1-6b00fc1a-b7803cfba193471d79f8c41b");
        assert_eq!(events, [Event { id, received: Some("1795226650728"), device }]);
        let batch = format!(" [{EVENT},{{}},\n{EVENT}]");
        let events = read(batch.as_bytes()).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(events[1], Event { id: None, received: None, device: None });
        assert_eq!(events[2].id, id);
        assert!(read(b"[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_event_is_not_read_not_even_in_part() {
        let cut = format!("[{EVENT},{}", &EVENT[..EVENT.len() - 1]);
        for content in ["", "one", "7", "{", &cut, &format!("{EVENT}{EVENT}"), r#"{"id":7}"#] {
            assert!(read(content.as_bytes()).is_err(), "{content}");
        }
    }

    fn gzip(content: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        Bytes::from(encoder.finish().unwrap())
    }

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, encoding.parse().unwrap())])
    }

    #[test]
    fn bodies_are_inflated_up_to_the_limit() {
        let plain = Bytes::from_static(EVENT.as_bytes());
        let (bytes, long) = (plain.len(), plain.len() - 1);
        assert_eq!(content(&HeaderMap::new(), &plain, bytes).unwrap(), plain);
        assert_eq!(content(&encoded("identity"), &plain, bytes).unwrap(), plain);
        let packed = gzip(&plain);
        assert!(packed.len() < plain.len());
        assert_eq!(content(&encoded("gzip"), &packed, bytes).unwrap(), plain);
        let error = content(&encoded("gzip"), &packed, long).unwrap_err();
        assert!(matches!(error, ContentError::TooLong(limit) if limit == long), "{error}");
    }

    #[test]
    fn what_cannot_be_inflated_is_an_error() {
        let packed = gzip(EVENT.as_bytes());
        let cut = packed.slice(..packed.len() - 9);
        for body in [cut, Bytes::from_static(EVENT.as_bytes())] {
            let error = content(&encoded("gzip"), &body, 1_000).unwrap_err();
            assert!(matches!(error, ContentError::Gzip(_)), "{error}");
        }
        let error = content(&encoded("br"), &packed, 1_000).unwrap_err();
        assert!(error.to_string().contains("\"br\""), "{error}");
    }
}
