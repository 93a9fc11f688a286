//! The requests of the SDK, carried by reqwest.
//!
//! The SDK brings a client of its own, which follows no rule of where it may connect and reads
//! answers of any size. This one does both, and the gateway has one stack of HTTP and TLS.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response, Url};
use thiserror::Error;

/// Answers are below 10 KB (a certificate with its keys); this bounds what is no answer of AWS.
const ANSWER_BYTES_MAX: usize = 256 * 1_024;

/// Carries requests by one client.
#[derive(Clone)]
pub(super) struct Exchange {
    http: Client,
    timeout: Option<Duration>,
}

#[derive(Debug, Error)]
#[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
struct AnswerTooLong;

#[derive(Debug, Error)]
#[error("the answer is not valid")]
struct InvalidAnswer;

#[derive(Debug, Error)]
#[error("the request has a body of unknown length")]
struct Streaming;

impl Exchange {
    pub(super) fn new(http: Client) -> Self {
        Self { http, timeout: None }
    }

    async fn exchange(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut request = translate(&request).map_err(ConnectorError::user)?;
        if let Some(timeout) = self.timeout {
            *request.timeout_mut() = Some(timeout);
        }
        let mut response = self.http.execute(request).await.map_err(failed)?;
        let body = read(&mut response).await?;
        let invalid = || ConnectorError::other(InvalidAnswer.into(), None);
        let status = response.status().as_u16().try_into().map_err(|_| invalid())?;
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in response.headers() {
            // Headers that are no text mean nothing to the SDK.
            if let Ok(value) = value.to_str() {
                let (name, value) = (name.as_str().to_owned(), value.to_owned());
                answer.headers_mut().try_append(name, value).map_err(|_| invalid())?;
            }
        }
        Ok(answer)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl HttpClient for Exchange {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Set for the metadata of instances, which is near or not there at all; else the client's.
        let limits = [settings.connect_timeout(), settings.read_timeout()];
        let timeout = match limits {
            [Some(connect), Some(read)] => Some(connect.saturating_add(read)),
            _ => None,
        };
        SharedHttpConnector::new(Self { http: self.http.clone(), timeout })
    }
}

impl HttpConnector for Exchange {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().exchange(request))
    }
}

fn translate(request: &HttpRequest) -> Result<Request, Box<dyn Error + Send + Sync>> {
    let body = request.body().bytes().ok_or(Streaming)?.to_vec();
    let method = Method::from_bytes(request.method().as_bytes())?;
    let mut translated = Request::new(method, Url::parse(request.uri())?);
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        translated.headers_mut().append(name, HeaderValue::from_str(value)?);
    }
    if !body.is_empty() {
        *translated.body_mut() = Some(Body::from(body));
    }
    Ok(translated)
}

async fn read(response: &mut Response) -> Result<Vec<u8>, ConnectorError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ConnectorError::other(AnswerTooLong.into(), None));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The address is left out of the text: it is known, and long.
fn failed(error: reqwest::Error) -> ConnectorError {
    let error = error.without_url();
    if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else if error.is_builder() {
        ConnectorError::user(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}
