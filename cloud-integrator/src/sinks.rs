//! From a target to the sink that reaches it.

use crate::delivery_options::DeliveryOptions;
use crate::integration::{Integration, InvalidIntegration};
use crate::network::Resolver;
use crate::sink::{Delivery, Outcome, Sink};
use crate::target::Target;
use crate::webhook::{Endpoint, WebhookClient, WebhookError, WebhookSink};

/// What all sinks of a gateway share.
#[derive(Debug, Clone)]
pub(crate) struct Sinks {
    pub(crate) webhooks: WebhookClient,
    pub(crate) resolver: Resolver,
}

/// A sink of any kind.
#[derive(Debug, Clone)]
pub(crate) enum AnySink {
    Webhook(WebhookSink),
}

impl Sinks {
    /// Checks where an integration's events are to go, as far as that can be done without the
    /// network. What no two integrations may share is returned in its one spelling.
    pub(crate) fn check(
        &self,
        integration: &Integration,
    ) -> Result<Option<String>, InvalidIntegration> {
        integration.delivery.check()?;
        match &integration.target {
            Target::Webhook(webhook) => {
                self.sink(integration)?;
                let policy = self.resolver.policy();
                let endpoint = Endpoint::within(policy, &webhook.url, &webhook.headers);
                let endpoint = endpoint.map_err(WebhookError::from)?;
                Ok(Some(endpoint.canonical_url().to_owned()))
            }
            Target::Aws(_) | Target::Mqtt(_) => Ok(None),
        }
    }

    /// The sink that reaches where an integration's events go.
    pub(crate) fn sink(&self, integration: &Integration) -> Result<AnySink, InvalidIntegration> {
        let DeliveryOptions { batch, .. } = integration.delivery;
        match &integration.target {
            Target::Webhook(webhook) => {
                Ok(AnySink::Webhook(self.webhooks.webhook(webhook, batch.is_some())?))
            }
            Target::Aws(_) | Target::Mqtt(_) => {
                Err(InvalidIntegration::Kind { kind: integration.target.kind(), what: "sink" })
            }
        }
    }
}

impl Sink for AnySink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        match self {
            Self::Webhook(sink) => sink.deliver(events).await,
        }
    }
}
