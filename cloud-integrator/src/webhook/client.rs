//! The connections of webhooks: one client for all of them, and one of its own for each that has
//! its own authorities or certificate.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::endpoint::{Endpoint, EndpointError};
use super::sender::WebhookSink;
use super::signature::SigningError;
use crate::network::Resolver;
use crate::sink::DELIVERY_TIMEOUT;
use crate::target::{ClientTls, WebhookTarget};
use crate::tls::{TlsError, authorities, client_config};

/// Name, TCP and TLS together: a quarter of the attempt, so that most of it is left for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed before common receivers do it (nginx: 75 s, load balancers: 60 s),
/// so that an event seldom meets a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// A connection of HTTP/2 carries all requests to an endpoint. One that is dead without a word
/// would fail them all until TCP notices, so it is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Headers of an answer: common servers send ten.
const ANSWER_HEADERS_MAX: usize = 100;
/// Bytes of them over HTTP/2; over HTTP/1.1 the client's own buffer of 400 kB is the limit.
const ANSWER_HEADER_BYTES_MAX: u32 = 64 * 1_024;
/// What an endpoint may send of a body before it is read: little of it ever is.
const STREAM_WINDOW_BYTES: u32 = 64 * 1_024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// HTTP/2 where the endpoint has it (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why no client could be made. The configuration of the gateway is at fault.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The extra authorities cannot be read, or the system has none.
    #[error("the client for webhooks cannot be set up: {0}")]
    Tls(#[from] TlsError),
    /// The client cannot be set up.
    #[error("the client for webhooks cannot be set up: {0}")]
    Setup(#[source] reqwest::Error),
}

/// Why a webhook cannot be used as it is configured. The customer is at fault.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// Its URL or a header.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Its authorities or its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its signing keys.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// No client for its TLS. We are at fault.
    #[error("the client for the webhook cannot be set up: {0}")]
    Setup(#[source] reqwest::Error),
}

/// The connections of all webhooks: kept open and shared. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookClient {
    shared: Client,
    resolver: Resolver,
    extra_roots: Arc<[CertificateDer<'static>]>,
    connections: usize,
}

impl WebhookClient {
    /// A client that reaches what `resolver` lets it, trusts `extra_roots_pem` beside the system's
    /// authorities and keeps up to `connections` idle connections to each endpoint.
    pub fn with_resolver(
        resolver: Resolver,
        extra_roots_pem: &[Vec<u8>],
        connections: usize,
    ) -> Result<Self, ClientError> {
        let mut extra_roots = Vec::new();
        for pem in extra_roots_pem {
            extra_roots.extend(authorities(pem)?);
        }
        let tls = client_config(&ClientTls::default(), &extra_roots, &ALPN)?;
        let shared = build(&resolver, tls, connections).map_err(ClientError::Setup)?;
        Ok(Self { shared, resolver, extra_roots: extra_roots.into(), connections })
    }

    /// A sink that posts each event to `endpoint`, as it is. Whatever the endpoint was checked by,
    /// what this client must not reach it does not.
    pub fn sink(&self, endpoint: Endpoint) -> WebhookSink {
        WebhookSink::new(self.shared.clone(), self.resolver.clone(), endpoint)
    }

    /// A sink for a webhook as its customer configured it. Where it is `batched`, its bodies are
    /// arrays. Checks everything that can be checked without the network.
    pub fn webhook(
        &self,
        target: &WebhookTarget,
        batched: bool,
    ) -> Result<WebhookSink, WebhookError> {
        let endpoint = Endpoint::within(self.resolver.policy(), &target.url, &target.headers)?;
        let signer = target.signing.signer()?;
        let http = if target.tls.is_empty() {
            self.shared.clone()
        } else {
            let tls = client_config(&target.tls, &self.extra_roots, &ALPN)?;
            build(&self.resolver, tls, self.connections).map_err(WebhookError::Setup)?
        };
        let sink = WebhookSink::new(http, self.resolver.clone(), endpoint);
        Ok(sink.signed(signer).compressed(target.gzip).batched(batched))
    }
}

fn build(
    resolver: &Resolver,
    tls: Arc<rustls::ClientConfig>,
    connections: usize,
) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .dns_resolver(resolver.clone())
        .timeout(DELIVERY_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(DELIVERY_TIMEOUT)
        .pool_max_idle_per_host(connections)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .http2_max_header_list_size(ANSWER_HEADER_BYTES_MAX)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_INTERVAL)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("simgate/", env!("CARGO_PKG_VERSION")))
        .build()
}
