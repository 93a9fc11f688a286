//! From a target to the sink that reaches it.

use crate::aws::{AwsAccess, AwsSink};
use crate::delivery_options::InvalidDeliveryOptions;
use crate::email::{EmailSink, InvalidEmail, Mailer};
use crate::integration::{Integration, IntegrationState, InvalidIntegration};
use crate::mqtt::{MqttClient, MqttEndpointError, MqttPurpose, MqttSink};
use crate::network::Resolver;
use crate::sink::{Delivery, Outcome, Sink};
use crate::target::{AwsTransport, EmailTarget, Target};
use crate::tls;
use crate::webhook::{Endpoint, WebhookClient, WebhookError, WebhookSink};

/// What all sinks of a gateway share.
#[derive(Debug, Clone)]
pub(crate) struct Sinks {
    pub(crate) webhooks: WebhookClient,
    pub(crate) mqtt: MqttClient,
    pub(crate) aws: AwsAccess,
    pub(crate) mailer: Option<Mailer>,
    pub(crate) resolver: Resolver,
}

/// What a sink is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To deliver for as long as the integration runs.
    Run,
    /// To deliver one TEST_MESSAGE.
    Test,
}

/// A sink of any kind.
#[derive(Debug, Clone)]
pub(crate) enum AnySink {
    Webhook(WebhookSink),
    Mqtt(MqttSink),
    Aws(AwsSink),
    Email(EmailSink),
}

impl Sinks {
    /// Checks where an integration's events are to go, as far as that can be done without the
    /// network. What no two integrations may share is returned in its one spelling.
    pub(crate) fn check(
        &self,
        integration: &Integration,
    ) -> Result<Option<String>, InvalidIntegration> {
        let Integration { id, target, delivery, state, event_types, .. } = integration;
        delivery.check()?;
        let has_batches = matches!(target, Target::Webhook(_) | Target::Email(_));
        if delivery.batch.is_some() && !has_batches {
            return Err(InvalidDeliveryOptions::NoBatches(target.kind()).into());
        }
        if matches!(target, Target::Email(_)) && event_types.telemetry() {
            return Err(InvalidEmail::Telemetry.into());
        }
        if matches!(state, IntegrationState::RolloutStarted | IntegrationState::RolloutFailed) {
            return Ok(None);
        }
        self.sink(integration, Purpose::Test)?;
        check_dates(target)?;
        Ok(match target {
            Target::Webhook(webhook) => {
                let policy = self.resolver.policy();
                let endpoint = Endpoint::within(policy, &webhook.url, &webhook.headers);
                Some(endpoint.map_err(WebhookError::from)?.canonical_url().to_owned())
            }
            Target::Mqtt(broker) => Some(self.mqtt.endpoint(broker, id)?.canonical()),
            // A role, or a client of its own name.
            Target::Aws(_) => None,
            // Several may tell the same people different things.
            Target::Email(_) => None,
        })
    }

    /// The sink that reaches where an integration's events go.
    pub(crate) fn sink(
        &self,
        integration: &Integration,
        purpose: Purpose,
    ) -> Result<AnySink, InvalidIntegration> {
        let Integration { id, target, delivery, .. } = integration;
        let mqtt_purpose = match purpose {
            Purpose::Run => MqttPurpose::Run,
            Purpose::Test => MqttPurpose::Test,
        };
        Ok(match target {
            Target::Webhook(webhook) => {
                AnySink::Webhook(self.webhooks.webhook(webhook, delivery.batch.is_some())?)
            }
            Target::Mqtt(broker) => {
                AnySink::Mqtt(self.mqtt.sink(self.mqtt.endpoint(broker, id)?, mqtt_purpose))
            }
            Target::Email(email) => AnySink::Email(self.email(email, purpose)?),
            Target::Aws(aws) => match aws.transport {
                AwsTransport::Sdk { .. } => AnySink::Aws(AwsSink::new(&self.aws, aws)?),
                AwsTransport::Mqtt { .. } => {
                    AnySink::Mqtt(self.mqtt.sink(self.mqtt.aws_endpoint(aws, id)?, mqtt_purpose))
                }
            },
        })
    }
}

impl Sinks {
    fn email(&self, target: &EmailTarget, purpose: Purpose) -> Result<EmailSink, InvalidEmail> {
        let mailer = self.mailer.as_ref().ok_or(InvalidEmail::NoServer)?;
        let sink = EmailSink::new(mailer, target)?;
        Ok(match purpose {
            Purpose::Run => sink,
            Purpose::Test => sink.for_a_test(),
        })
    }
}

/// Checks what is a matter of the day on which a target is chosen.
fn check_dates(target: &Target) -> Result<(), InvalidIntegration> {
    match target {
        Target::Webhook(webhook) => {
            tls::check_dates(&webhook.tls).map_err(WebhookError::from)?;
        }
        Target::Mqtt(broker) => {
            tls::check_dates(&broker.tls).map_err(MqttEndpointError::from)?;
        }
        Target::Email(_) => {}
        Target::Aws(aws) => {
            if let AwsTransport::Mqtt { tls, .. } = &aws.transport {
                tls::check_dates(tls).map_err(MqttEndpointError::from)?;
            }
        }
    }
    Ok(())
}

impl Sink for AnySink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        match self {
            Self::Webhook(sink) => sink.deliver(events).await,
            Self::Mqtt(sink) => sink.deliver(events).await,
            Self::Aws(sink) => sink.deliver(events).await,
            Self::Email(sink) => sink.deliver(events).await,
        }
    }
}
