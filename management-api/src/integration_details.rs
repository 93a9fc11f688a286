//! An integration with all that belongs to its kind, and nothing of its secrets but the documented
//! headers.

use std::collections::BTreeMap;

use cloud_integrator::{
    AwsTarget, AwsTransport, Integration as StoredIntegration, MqttTarget, Target, WebhookTarget,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::integration_options::{Delivery, Tls};
use crate::integrations::Integration;

/// An integration with all that belongs to its kind.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntegrationDetails {
    #[serde(flatten)]
    integration: Integration,
    /// Where events go. Of a webhook or a broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://example.com/events?iccid=:iccid:")]
    url: Option<String>,
    /// The headers of each request. Of a webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    /// The account at AWS, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "123456789012")]
    aws_account_id: Option<String>,
    /// The region of AWS, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "eu-central-1")]
    region: Option<String>,
    /// Why it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What finishes the rollout within an hour. Shown once, in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    /// Whether it waits. What it wants is kept meanwhile.
    paused: bool,
    /// How events are delivered.
    delivery: Delivery,
    /// Whether bodies are compressed. Of a webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    gzip: Option<bool>,
    /// What TLS needs beside the system's authorities. Of a webhook or a broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    /// How events get to AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<AwsDetails>,
    /// What is particular to a broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt: Option<MqttDetails>,
    /// Who gets mails. Of an integration by e-mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipients: Option<Vec<String>>,
}

/// How events get to AWS.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AwsDetails {
    /// The host of the data plane; without it the account is asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The way there.
    transport: AwsTransportDetails,
}

/// The way to AWS, without the private key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub(crate) enum AwsTransportDetails {
    /// By the HTTPS API.
    #[serde(rename_all = "camelCase")]
    Sdk {
        /// The role; without it the gateway's own credentials are used.
        #[serde(skip_serializing_if = "Option::is_none")]
        role_arn: Option<String>,
        /// What the role asks for beside the gateway's identity.
        #[serde(skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// By MQTT.
    #[serde(rename_all = "camelCase")]
    Mqtt {
        /// The certificate, in PEM.
        #[serde(skip_serializing_if = "Option::is_none")]
        certificate: Option<String>,
        /// Whether there is a private key.
        private_key: bool,
        /// 8883, or 443 with ALPN.
        port: u16,
        /// Connections at the same time.
        connections: usize,
    },
}

/// What is particular to a broker.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MqttDetails {
    /// The client's name before the number of its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Whether there is a password.
    password: bool,
    /// Topics by the name of the event type; others have the documented topics.
    topics: BTreeMap<String, String>,
    /// The template of payloads; without it the event itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// Connections at the same time.
    connections: usize,
    /// Publishes per second on each connection at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    publishes_per_second: Option<u32>,
}

impl IntegrationDetails {
    /// With the token that finishes its rollout.
    pub(crate) fn with_jwt(self, jwt: String) -> Self {
        Self { jwt: Some(jwt), ..self }
    }

    fn show_webhook(&mut self, webhook: WebhookTarget) {
        let WebhookTarget { url, headers, gzip, tls, .. } = webhook;
        (self.url, self.headers, self.gzip) = (Some(url), Some(headers), Some(gzip));
        self.tls = Tls::shown(tls);
    }

    fn show_aws(&mut self, aws: AwsTarget) {
        let AwsTarget { region, account_id, endpoint, transport } = aws;
        // Empty until the rollout is done.
        if region.is_empty() {
            return;
        }
        (self.region, self.aws_account_id) = (Some(region), account_id);
        self.aws = Some(AwsDetails { endpoint, transport: transport.into() });
    }

    fn show_mqtt(&mut self, mqtt: MqttTarget) {
        self.url = Some(mqtt.url);
        self.tls = Tls::shown(mqtt.tls);
        self.mqtt = Some(MqttDetails {
            client_id: mqtt.client_id,
            username: mqtt.username,
            password: mqtt.password.is_some(),
            topics: mqtt.topics,
            payload: mqtt.payload,
            connections: mqtt.connections,
            publishes_per_second: mqtt.publishes_per_second,
        });
    }
}

impl From<StoredIntegration> for IntegrationDetails {
    fn from(mut stored: StoredIntegration) -> Self {
        let error = stored.error.take();
        let (paused, delivery) = (stored.paused, stored.delivery.into());
        let target = stored.target.clone();
        let mut details = Self {
            integration: stored.into(),
            url: None,
            headers: None,
            aws_account_id: None,
            region: None,
            error,
            jwt: None,
            paused,
            delivery,
            gzip: None,
            tls: None,
            aws: None,
            mqtt: None,
            recipients: None,
        };
        match target {
            Target::Webhook(webhook) => details.show_webhook(webhook),
            Target::Aws(aws) => details.show_aws(aws),
            Target::Mqtt(mqtt) => details.show_mqtt(mqtt),
            Target::Email(email) => details.recipients = Some(email.recipients),
        }
        details
    }
}

impl From<AwsTransport> for AwsTransportDetails {
    fn from(transport: AwsTransport) -> Self {
        match transport {
            AwsTransport::Sdk { role_arn, external_id } => Self::Sdk { role_arn, external_id },
            AwsTransport::Mqtt { tls, port, connections } => Self::Mqtt {
                private_key: tls.key_pem.is_some(),
                certificate: tls.certificate_pem,
                port,
                connections,
            },
        }
    }
}
