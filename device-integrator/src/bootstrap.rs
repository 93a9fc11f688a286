//! `GET /bootstrap`: a device asks for its key, and is known by nothing but its source address.
//!
//! The answer is one line, `<ICCID>,<key>,<coaps url>`, in the form that the oldest device software
//! can read: it receives 150 bytes and takes them for a text, looks for the first "89", and cuts
//! at commas. So the datagram stays below 150 bytes, carries no option, and holds neither a zero
//! byte nor "89" before the line; the endpoint gives it a message id without them.

use std::fmt;
use std::sync::Arc;

use coap::wire::{Code, ContentFormat};
use coap::{IncomingRequest, Response};
use vocabulary::Iccid;
use zeroize::Zeroizing;

/// The longest datagram that leaves the oldest software a zero byte at the end of its buffer.
const DATAGRAM_BYTES_MAX: usize = 149;

/// Header and payload marker (RFC 7252 §3), without the token.
const FRAME_BYTES: usize = 5;

/// What a device is told. The key is overwritten when it is dropped.
#[derive(Clone)]
pub struct Credentials {
    /// The identity that the device shall give in a handshake.
    pub iccid: Iccid,
    /// The key, as text.
    pub key: Zeroizing<String>,
    /// Where to speak CoAP over DTLS, where that is known.
    pub coaps_url: Option<Arc<str>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("iccid", &self.iccid).finish_non_exhaustive()
    }
}

/// What is wrong with a request for a key, as its answer. The answer has no Content-Format, which
/// leaves it to the client to take it for text; another format is not to be had.
pub(crate) fn refusal<P: Copy>(request: &IncomingRequest<P>) -> Option<Response> {
    if request.method != Code::GET {
        return Some(Response::new(Code::METHOD_NOT_ALLOWED).with_diagnostic("allowed: GET"));
    }
    match request.accept() {
        None | Some(ContentFormat::TEXT_PLAIN) => None,
        Some(_) => Some(Response::new(Code::NOT_ACCEPTABLE).with_diagnostic("allowed: text/plain")),
    }
}

/// The answer with the key, to a request with a token of `token_bytes`.
///
/// The URL is left out where only that makes the datagram short enough. A key that is too long by
/// itself goes out as it is: the software with the short buffer could not use it anyhow.
pub(crate) fn answer(credentials: &Credentials, token_bytes: usize) -> Response {
    let Credentials { iccid, key, coaps_url } = credentials;
    if key.contains(',') {
        // The device would take what stands before the comma for the whole key.
        let response = Response::new(Code::FORBIDDEN);
        return response.with_diagnostic("the key holds a comma and cannot be told");
    }
    let identity = iccid.to_string();
    let short = FRAME_BYTES + token_bytes + identity.len() + 1 + key.len();
    let fits =
        |url: &&Arc<str>| short > DATAGRAM_BYTES_MAX || short + 1 + url.len() <= DATAGRAM_BYTES_MAX;
    let mut line = Vec::with_capacity(short + coaps_url.as_ref().map_or(0, |url| 1 + url.len()));
    line.extend_from_slice(identity.as_bytes());
    line.push(b',');
    line.extend_from_slice(key.as_bytes());
    if let Some(url) = coaps_url.as_ref().filter(fits) {
        line.push(b',');
        line.extend_from_slice(url.as_bytes());
    }
    let mut response = Response::new(Code::CONTENT);
    response.payload = line;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use coap::wire::MessageRef;
    use coap::{Endpoint, Event, Output};

    const LINE: &[u8] = b"8988280666000002864,Xy3kP0sQ-aBcDeF!,coaps://coap.example.com:5684";

    /// What the official device software sends: a NON GET with the host and the path, no token.
    fn os_auth(id: &[u8]) -> Vec<u8> {
        [b"\x50\x01".as_slice(), id, b"\x3d\x03coap.os.1nce.com\x89bootstrap"].concat()
    }

    fn credentials(key: &str) -> Credentials {
        Credentials {
            iccid: "8988280666000002864".parse().unwrap(),
            key: Zeroizing::new(key.to_owned()),
            coaps_url: Some("coaps://coap.example.com:5684".into()),
        }
    }

    /// The datagrams that an endpoint answers `datagram` with, if the request is one for a key.
    fn answers(datagram: &[u8]) -> Vec<Vec<u8>> {
        let now = Instant::now();
        let mut endpoint: Endpoint<u8> = Endpoint::new(coap::Config::default(), 7);
        let mut sent = Vec::new();
        endpoint.handle_datagram(now, 1, datagram);
        loop {
            match endpoint.poll_output() {
                Output::Transmit { bytes, .. } => sent.push(bytes.to_vec()),
                Output::Event(Event::Request(request)) => {
                    let token_bytes = request.exchange.token().as_bytes().len();
                    let response = refusal(&request)
                        .unwrap_or_else(|| answer(&credentials("Xy3kP0sQ-aBcDeF!"), token_bytes));
                    endpoint.respond(now, request.exchange, response);
                }
                Output::Event(_) => {}
                Output::Timeout(_) => return sent,
            }
        }
    }

    #[test]
    fn the_official_request_gets_bytes_that_its_sender_can_read() {
        let request = os_auth(&[0xe9, 0x03]);
        assert_eq!(request.len(), 32);
        let [answer] = answers(&request).try_into().unwrap();
        let (head, payload) = answer.split_at(FRAME_BYTES);
        // NON, no token; 2.05; a message id of ours; no option; the payload.
        assert_eq!((head[0], head[1], head[4]), (0x50, 0x45, 0xff));
        assert_eq!(payload, LINE);
        assert!(!head.contains(&0) && !head.windows(2).any(|pair| pair == b"89"));
        assert!(answer.len() < 150, "{} bytes", answer.len());
    }

    #[test]
    fn a_con_is_answered_on_its_acknowledgement() {
        let request = b"\x42\x01\x12\x34\xaa\xbb\xb9bootstrap";
        let expected = [b"\x62\x45\x12\x34\xaa\xbb\xff", LINE].concat();
        assert_eq!(answers(request), [expected]);
    }

    /// The official software builds its request as a text, and loses the message id with its zero
    /// byte: every 256th request is malformed.
    #[test]
    fn the_truncated_request_of_the_official_software_is_survived() {
        let request = os_auth(&[]);
        assert_eq!(request.len(), 30);
        let sent = answers(&request);
        assert!(sent.iter().all(|bytes| bytes.len() <= 12), "{sent:02x?}");
    }

    #[test]
    fn other_methods_and_formats_are_refused() {
        let code = |request: &[u8]| MessageRef::parse(&answers(request)[0]).unwrap().code;
        assert_eq!(code(b"\x40\x02\x12\x34\xb9bootstrap\xffx"), Code::METHOD_NOT_ALLOWED);
        // Accept: application/json.
        assert_eq!(code(b"\x40\x01\x12\x34\xb9bootstrap\x61\x32"), Code::NOT_ACCEPTABLE);
        assert_eq!(code(b"\x40\x01\x12\x34\xb9bootstrap\x60"), Code::CONTENT);
    }

    #[test]
    fn the_url_gives_way_to_the_limit_and_the_key_never_does() {
        let line = |key: &str| String::from_utf8(answer(&credentials(key), 8).payload).unwrap();
        // 13 bytes before the line, 20 before the key, 30 for the URL.
        let longest = "k".repeat(149 - 13 - 20 - 30);
        assert!(line(&longest).ends_with(":5684"));
        assert_eq!(line(&longest).len() + 13, 149);
        let longer = "k".repeat(149 - 13 - 20);
        assert!(line(&longer).ends_with(&longer));
        assert!(line(&"k".repeat(256)).ends_with(":5684"));
    }

    #[test]
    fn a_key_that_would_arrive_cut_is_not_told_and_none_is_shown() {
        let response = answer(&credentials("before,after"), 0);
        assert_eq!(response.code, Code::FORBIDDEN);
        assert!(!String::from_utf8_lossy(&response.payload).contains("before"));
        assert!(!format!("{:?}", credentials("Xy3kP0sQ-aBcDeF!")).contains("Xy3"));
    }
}
