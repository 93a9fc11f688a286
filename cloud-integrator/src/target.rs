//! Where an integration's events go, as its customer wrote it.
//!
//! Everything here may hold secrets: it is sealed in the state file, and `Debug` shows none of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery_options::{BatchOptions, CONCURRENCY_MAX, DeliveryOptions};
use crate::webhook::Signing;

/// Connections of one integration to the mail server at the same time: servers count those of a
/// client (Postfix: 50), and all integrations are one client.
const MAIL_CONNECTIONS_MAX: usize = 2;
/// Events of one mail at most where the customer does not say: what a person still reads.
const DIGEST_EVENTS: usize = 50;
/// How long the first event of a mail waits for others where the customer does not say: an alert
/// is not late by it, and a fleet that leaves a yard is one mail.
const DIGEST_WAIT: Duration = Duration::from_secs(5);

/// Where an integration's events go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "UPPERCASE")]
pub enum Target {
    /// A URL that takes `POST`s.
    Webhook(WebhookTarget),
    /// AWS IoT Core.
    Aws(AwsTarget),
    /// An MQTT broker.
    Mqtt(MqttTarget),
    /// People.
    Email(EmailTarget),
}

/// A URL that takes `POST`s.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookTarget {
    /// `https`, with placeholders in path and query.
    pub url: String,
    /// Custom headers, with placeholders in their values.
    pub headers: BTreeMap<String, String>,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// What requests are signed with.
    pub signing: Signing,
    /// What TLS needs beside the system's authorities.
    pub tls: ClientTls,
}

/// AWS IoT Core in one region of one account.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AwsTarget {
    /// Such as `eu-central-1`; empty until the rollout is done.
    pub region: String,
    /// The account, where it is known.
    pub account_id: Option<String>,
    /// The host of the data plane; without it that of the region, where events go by the HTTPS API.
    pub endpoint: Option<String>,
    /// How events get there.
    pub transport: AwsTransport,
}

/// How events get to AWS IoT Core.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "UPPERCASE")]
pub enum AwsTransport {
    /// By the HTTPS API, with the gateway's own credentials or a role that they may assume.
    Sdk {
        /// The role.
        role_arn: Option<String>,
        /// What the role asks for beside the gateway's identity.
        external_id: Option<String>,
    },
    /// By MQTT, with a certificate that AWS IoT Core knows.
    Mqtt {
        /// The certificate and its key.
        tls: ClientTls,
        /// 8883, or 443 with ALPN.
        port: u16,
        /// Connections, each of which may publish as much as the quota of AWS allows.
        connections: usize,
    },
}

/// An MQTT broker.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MqttTarget {
    /// `mqtts://host:port` or, where the gateway allows it, `mqtt://host:port`.
    pub url: String,
    /// The client's name before the number of its connection; without it one of our own.
    pub client_id: Option<String>,
    /// For brokers that ask for them.
    pub username: Option<String>,
    /// For brokers that ask for them.
    pub password: Option<String>,
    /// What TLS needs beside the system's authorities.
    pub tls: ClientTls,
    /// Topics by the name of the event type, with placeholders; those that are missing have the
    /// documented topics.
    pub topics: BTreeMap<String, String>,
    /// A template for payloads; without it the event itself.
    pub payload: Option<String>,
    /// Connections at the same time.
    pub connections: usize,
    /// Publishes per second on each connection at most; `None` for no limit.
    pub publishes_per_second: Option<u32>,
}

/// People who read mails.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EmailTarget {
    /// Their addresses.
    pub recipients: Vec<String>,
}

/// What TLS needs beside the system's authorities, in PEM.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientTls {
    /// Authorities that the endpoint's certificate may come from, instead of the system's.
    pub roots_pem: Option<String>,
    /// The certificate that the gateway shows, with its chain.
    pub certificate_pem: Option<String>,
    /// The key of that certificate.
    pub key_pem: Option<String>,
}

impl Target {
    /// The kind in the management API.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "WEBHOOK",
            Self::Aws(_) => "AWS",
            Self::Mqtt(_) => "MQTT",
            Self::Email(_) => "EMAIL",
        }
    }

    /// Attempts at the same time that it takes at most.
    pub(crate) const fn concurrency_max(&self) -> usize {
        match self {
            Self::Webhook(_) | Self::Aws(_) | Self::Mqtt(_) => CONCURRENCY_MAX,
            Self::Email(_) => MAIL_CONNECTIONS_MAX,
        }
    }
}

impl AwsTarget {
    /// The role that the gateway is to assume.
    pub fn role(&self) -> Option<&str> {
        match &self.transport {
            AwsTransport::Sdk { role_arn, .. } => role_arn.as_deref(),
            AwsTransport::Mqtt { .. } => None,
        }
    }
}

impl ClientTls {
    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.roots_pem.is_none() && self.certificate_pem.is_none() && self.key_pem.is_none()
    }
}

impl Default for AwsTransport {
    fn default() -> Self {
        Self::Sdk { role_arn: None, external_id: None }
    }
}

impl EmailTarget {
    /// How events are delivered where the customer does not say: what comes at about the same time
    /// is one mail.
    pub fn delivery() -> DeliveryOptions {
        let digest = BatchOptions { events: DIGEST_EVENTS, wait: DIGEST_WAIT };
        DeliveryOptions { batch: Some(digest), ..DeliveryOptions::default() }
    }
}

macro_rules! debug_shows_the_name_alone {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_shows_the_name_alone!(
    Target,
    WebhookTarget,
    AwsTarget,
    AwsTransport,
    MqttTarget,
    EmailTarget,
    ClientTls
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_comes_back_and_shows_no_secret() {
        let target = Target::Webhook(WebhookTarget {
            url: "https://h.example/s3cret".to_owned(),
            headers: [("x-api-key".to_owned(), "s3cret".to_owned())].into(),
            ..WebhookTarget::default()
        });
        let text = serde_json::to_string(&target).unwrap();
        assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        assert!(!format!("{target:?}").contains("s3cret"));
        let older = r#"{"kind":"MQTT","url":"mqtts://b.example:8883"}"#;
        assert_eq!(serde_json::from_str::<Target>(older).unwrap().kind(), "MQTT");
    }
}
