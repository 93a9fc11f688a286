//! From a target to the sink that reaches it.

use crate::integration::InvalidIntegration;
use crate::sink::{Delivery, Outcome, Sink};
use crate::target::{Target, WebhookTarget};
use crate::webhook::{Endpoint, WebhookClient, WebhookSink};

/// What all sinks of a gateway share.
#[derive(Debug, Clone)]
pub(crate) struct Sinks {
    pub(crate) webhooks: WebhookClient,
}

/// A sink of any kind.
#[derive(Debug, Clone)]
pub(crate) enum AnySink {
    Webhook(WebhookSink),
}

impl Sinks {
    /// Checks a target. What no two integrations may share is returned in its one spelling.
    pub(crate) fn check(&self, target: &Target) -> Result<Option<String>, InvalidIntegration> {
        match target {
            Target::Webhook(webhook) => {
                Ok(Some(self.endpoint(webhook)?.canonical_url().to_owned()))
            }
            Target::Aws(_) | Target::Mqtt(_) => Ok(None),
        }
    }

    /// The sink that reaches `target`.
    pub(crate) fn sink(&self, target: &Target) -> Result<AnySink, InvalidIntegration> {
        match target {
            Target::Webhook(webhook) => {
                Ok(AnySink::Webhook(self.webhooks.sink(self.endpoint(webhook)?)))
            }
            Target::Aws(_) | Target::Mqtt(_) => {
                Err(InvalidIntegration::Kind { kind: target.kind(), what: "sink" })
            }
        }
    }

    fn endpoint(&self, webhook: &WebhookTarget) -> Result<Endpoint, InvalidIntegration> {
        let allow_http_loopback = self.webhooks.allow_http_loopback();
        Ok(Endpoint::new(&webhook.url, &webhook.headers, allow_http_loopback)?)
    }
}

impl Sink for AnySink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        match self {
            Self::Webhook(sink) => sink.deliver(events).await,
        }
    }
}
