//! One webhook: makes the requests and sends them.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request};

use super::endpoint::Endpoint;
use super::signature::Signer;
use super::{answer, body, failure, unix_secs};
use crate::batch_id::batch_id;
use crate::network::Resolver;
use crate::sink::{Delivery, Failure, FailureClass, Outcome, Sink};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// One webhook. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookSink {
    http: Client,
    resolver: Resolver,
    endpoint: Arc<Endpoint>,
    signer: Option<Arc<Signer>>,
    is_compressed: bool,
    is_batched: bool,
}

impl WebhookSink {
    pub(super) fn new(http: Client, resolver: Resolver, endpoint: Endpoint) -> Self {
        let endpoint = Arc::new(endpoint);
        Self { http, resolver, endpoint, signer: None, is_compressed: false, is_batched: false }
    }

    pub(super) fn signed(self, signer: Signer) -> Self {
        Self { signer: Some(Arc::new(signer)), ..self }
    }

    pub(super) fn compressed(self, is_compressed: bool) -> Self {
        Self { is_compressed, ..self }
    }

    pub(super) fn batched(self, is_batched: bool) -> Self {
        Self { is_batched, ..self }
    }

    /// The request for `events`; `None` where there is no valid one.
    fn request(&self, events: &[Delivery]) -> Option<Request> {
        let (id, content) = match events {
            [] => return None,
            [event] if !self.is_batched => (event.id.to_string(), event.body.clone()),
            _ => (batch_id(events), body::array(events)),
        };
        let subject = body::common_subject(events);
        let now_secs = unix_secs();
        let mut headers = self.endpoint.headers(&subject)?;
        // The body as the receiver reads it, whether its server decompresses by itself or not.
        let signature =
            self.signer.as_ref().and_then(|signer| signer.sign(&id, now_secs, &content));
        if let Some(signature) = signature {
            headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(signature).ok()?);
        }
        headers.insert(WEBHOOK_ID, HeaderValue::from_maybe_shared(Bytes::from(id)).ok()?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now_secs));
        let content = if self.is_compressed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            body::gzip(&content)?
        } else {
            content
        };
        let mut request = Request::new(Method::POST, self.endpoint.url(&subject));
        *request.headers_mut() = headers;
        *request.body_mut() = Some(content.into());
        Some(request)
    }

    async fn send(&self, request: Request) -> Outcome {
        match self.http.execute(request).await {
            Ok(response) => answer::judge(response).await,
            Err(error) => Outcome::Retry { reason: failure::describe(error), after: None },
        }
    }
}

impl Sink for WebhookSink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        if let Err(blocked) = self.endpoint.check(self.resolver.policy()) {
            let reason = Failure::new(FailureClass::Blocked, blocked.to_string());
            return Outcome::Retry { reason, after: None };
        }
        let Some(request) = self.request(&events) else {
            let text = "no valid request can be made of the events";
            return Outcome::Rejected { reason: Failure::new(FailureClass::Request, text) };
        };
        self.send(request).await
    }
}
