//! Sends the requests: one shared client for all webhooks.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, Request, Response, StatusCode, redirect};
use thiserror::Error;

use super::endpoint::Endpoint;
use crate::sink::{DELIVERY_TIMEOUT, Delivery, Failure, FailureClass, Outcome, Sink};

/// Bytes of an answer that are read so that its connection can be used again; what is longer, or
/// endless, costs the receiver a new connection.
const ANSWER_BYTES_MAX: usize = 16 * 1_024;
/// TCP and TLS together: a quarter of the attempt, so that most of it is left for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed before common receivers do it (nginx: 75 s, load balancers: 60 s),
/// so that an event seldom meets a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Waits that an endpoint may ask for: at most a day, since messages live for seven.
const RETRY_AFTER_SECS: std::ops::RangeInclusive<u64> = 1..=86_400;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// How webhooks reach their endpoints.
#[derive(Debug, Clone, Default)]
pub struct WebhookOptions {
    /// Whether plain `http` to this machine itself is allowed: for tests and demonstrations.
    pub allow_http_loopback: bool,
    /// Certificates, in PEM, of authorities that are trusted beside the system's.
    pub extra_roots_pem: Vec<Vec<u8>>,
}

/// Why no client could be made. The configuration of the gateway is at fault.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A certificate that cannot be read.
    #[error("an extra root certificate cannot be read: {0}")]
    Root(#[source] reqwest::Error),
    /// TLS cannot be set up, e.g. because the system has no root certificates.
    #[error("the client for webhooks cannot be set up: {0}")]
    Setup(#[source] reqwest::Error),
}

/// The connections of all webhooks: kept open and shared. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookClient {
    http: Client,
    allow_http_loopback: bool,
}

/// One webhook.
#[derive(Debug, Clone)]
pub struct WebhookSink {
    http: Client,
    endpoint: Arc<Endpoint>,
}

impl WebhookClient {
    /// A client that keeps up to `connections` idle connections to each endpoint.
    pub fn new(options: &WebhookOptions, connections: usize) -> Result<Self, ClientError> {
        let mut builder = Client::builder()
            .timeout(DELIVERY_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(connections)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("simgate/", env!("CARGO_PKG_VERSION")));
        for pem in &options.extra_roots_pem {
            let root = Certificate::from_pem(pem).map_err(ClientError::Root)?;
            builder = builder.tls_certs_merge([root]);
        }
        let http = builder.build().map_err(ClientError::Setup)?;
        Ok(Self { http, allow_http_loopback: options.allow_http_loopback })
    }

    /// Whether plain `http` to this machine itself is allowed.
    pub fn allow_http_loopback(&self) -> bool {
        self.allow_http_loopback
    }

    /// A sink that posts to `endpoint`.
    pub fn sink(&self, endpoint: Endpoint) -> WebhookSink {
        WebhookSink { http: self.http.clone(), endpoint: Arc::new(endpoint) }
    }
}

impl Sink for WebhookSink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let request = events.into_iter().next().and_then(|event| self.request(event));
        let Some(request) = request else {
            let text = "a header value is not valid".to_owned();
            return Outcome::Rejected { reason: Failure::new(FailureClass::Request, text) };
        };
        match self.http.execute(request).await {
            Ok(response) => judge(response).await,
            Err(error) => Outcome::Retry { reason: describe(error), after: None },
        }
    }
}

impl WebhookSink {
    fn request(&self, delivery: Delivery) -> Option<Request> {
        let mut headers = self.endpoint.headers(&delivery.subject)?;
        let id = Bytes::from(delivery.id.to_string());
        headers.insert(WEBHOOK_ID, HeaderValue::from_maybe_shared(id).ok()?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(unix_secs()));
        let mut request = Request::new(Method::POST, self.endpoint.url(&delivery.subject));
        *request.headers_mut() = headers;
        *request.body_mut() = Some(delivery.body.into());
        Some(request)
    }
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Success is 2xx with complete headers; the answer's body only matters to its connection.
async fn judge(response: Response) -> Outcome {
    let status = response.status();
    let after = asked_wait(status, response.headers());
    drain(response).await;
    if status.is_success() {
        return Outcome::Delivered;
    }
    let text = format!("the endpoint answered {}", status.as_u16());
    Outcome::Retry { reason: Failure::new(FailureClass::Status, text), after }
}

async fn drain(mut response: Response) {
    let mut read_bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read_bytes += chunk.len();
        if read_bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

/// `Retry-After` of 429 and 503: seconds or a date (RFC 9110 §10.2.3).
fn asked_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
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

/// What failed. The URL is left out: it may carry secrets.
fn describe(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut causes = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let class = classify(&error, &causes);
    // The innermost cause says most.
    Failure::new(class, causes.pop().unwrap_or_default())
}

fn classify(error: &reqwest::Error, causes: &[String]) -> FailureClass {
    let says = |word: &str| causes.iter().any(|cause| cause.contains(word));
    if error.is_builder() {
        FailureClass::Request
    } else if says("dns error") {
        FailureClass::Dns
    } else if says("certificate") || says("alert") || says("TLS") || says("tls") {
        FailureClass::Tls
    } else if error.is_timeout() && !error.is_connect() {
        FailureClass::Timeout
    } else if error.is_connect() {
        FailureClass::Connect
    } else {
        FailureClass::Transport
    }
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
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!(wait(503, &date).is_some_and(|secs| (98..=100).contains(&secs)), "{date}");
    }
}
