//! Publishes events by the HTTPS API of AWS IoT Core.

use std::sync::Arc;

use aws_sdk_iotdataplane::Client;
use aws_sdk_iotdataplane::config::Builder;
use aws_sdk_iotdataplane::primitives::Blob;
use aws_sdk_iotdataplane::types::PayloadFormatIndicator;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::access::{AwsAccess, AwsRole, InvalidAws, checked_region};
use super::failure::{AwsFailure, failure_of};
use crate::mqtt::{AWS_PAYLOAD_BYTES_MAX, TopicRules, Topics};
use crate::sink::{DELIVERY_TIMEOUT, Delivery, Failure, FailureClass, Outcome, Sink};
use crate::target::{AwsTarget, AwsTransport};

/// As over MQTT and as the header of webhooks.
const ID_PROPERTY: &str = "webhook-id";
/// At least once: AWS answers when the message broker has it.
const QOS_AT_LEAST_ONCE: i32 = 1;

/// AWS IoT Core in one region of one account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AwsSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    access: AwsAccess,
    region: String,
    role: Option<AwsRole>,
    endpoint: Option<String>,
    topics: Topics,
    client: Mutex<Made>,
}

/// The client, made at the first event, and how many were made before.
#[derive(Debug, Default)]
struct Made {
    client: Option<Client>,
    number: u64,
}

impl AwsSink {
    /// The sink for `target`. Nothing is reached for before the first event.
    ///
    /// Without an endpoint of its own it is that of the region, which the SDK knows: the signature
    /// says whose account is meant, so that nobody has to be asked for the account's host first.
    ///
    /// # Errors
    /// Where the target is not valid.
    pub fn new(access: &AwsAccess, target: &AwsTarget) -> Result<Self, InvalidAws> {
        let AwsTransport::Sdk { role_arn, external_id } = &target.transport else {
            return Err(InvalidAws::Transport);
        };
        let role = match role_arn {
            Some(arn) => Some(AwsRole::new(arn, external_id.as_deref())?),
            None => None,
        };
        let region = checked_region(&target.region)?;
        let endpoint = target.endpoint.as_deref();
        Ok(Self(Arc::new(Inner {
            access: access.clone(),
            region: region.to_owned(),
            role,
            endpoint: endpoint.map(|text| access.endpoint(text, region)).transpose()?,
            topics: Topics::documented(TopicRules::Aws),
            client: Mutex::default(),
        })))
    }

    /// Publishes `payload` to `topic` once; `id` goes along as a property for clients of MQTT 5.
    ///
    /// # Errors
    /// Where AWS did not confirm it within [`DELIVERY_TIMEOUT`].
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        id: Option<&str>,
    ) -> Result<(), AwsFailure> {
        let attempt = self.attempt(topic, payload, id);
        timeout(DELIVERY_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(late()))
    }

    async fn attempt(
        &self,
        topic: &str,
        payload: Bytes,
        id: Option<&str>,
    ) -> Result<(), AwsFailure> {
        let (client, number) = self.0.client().await;
        let sent = client
            .publish()
            .topic(topic)
            .qos(QOS_AT_LEAST_ONCE)
            .payload(Blob::new(payload))
            .content_type("application/json")
            .payload_format_indicator(PayloadFormatIndicator::Utf8Data)
            .set_user_properties(id.map(|id| serde_json::json!([{ ID_PROPERTY: id }]).to_string()))
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let failed = failure_of(&error);
        if failed.is_of_credentials() {
            // They are asked for again at the next attempt, from wherever they come: whoever
            // renews them need not restart the gateway.
            self.0.forget(number).await;
        }
        Err(failed)
    }
}

impl Inner {
    async fn client(&self) -> (Client, u64) {
        let mut made = self.client.lock().await;
        let number = made.number;
        if let Some(client) = &made.client {
            return (client.clone(), number);
        }
        let config = self.access.config(&self.region, self.role.as_ref()).await;
        let mut builder = Builder::from(&config);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint.clone());
        }
        let client = Client::from_conf(builder.build());
        made.client = Some(client.clone());
        (client, number)
    }

    /// Takes the client back that has this number, and no younger one.
    async fn forget(&self, number: u64) {
        let mut made = self.client.lock().await;
        if made.number == number {
            *made = Made { client: None, number: number + 1 };
        }
    }
}

impl Sink for AwsSink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let is_alone = events.len() == 1;
        // Nothing is sent before everything can be.
        let topics: Result<Vec<String>, Failure> =
            events.iter().map(|event| self.checked_topic(event)).collect();
        let topics = match topics {
            Ok(topics) => topics,
            Err(reason) if is_alone => return Outcome::Rejected { reason },
            // The others of the batch may pass without it.
            Err(reason) => return Outcome::Retry { reason, after: None },
        };
        let all = async {
            for (event, topic) in events.into_iter().zip(topics) {
                self.attempt(&topic, event.body, Some(&event.id.to_string())).await?;
            }
            Ok(())
        };
        match timeout(DELIVERY_TIMEOUT, all).await.unwrap_or_else(|_| Err(late())) {
            Ok(()) => Outcome::Delivered,
            Err(AwsFailure { failure: reason, after, .. }) => Outcome::Retry { reason, after },
        }
    }
}

impl AwsSink {
    /// The topic of an event that AWS can take.
    fn checked_topic(&self, event: &Delivery) -> Result<String, Failure> {
        let bytes = event.body.len();
        if bytes > AWS_PAYLOAD_BYTES_MAX {
            let text =
                format!("event of {bytes} bytes exceeds the limit of {AWS_PAYLOAD_BYTES_MAX}");
            return Err(Failure::new(FailureClass::TooLarge, text));
        }
        self.0.topics.name(event).map_err(|problem| {
            let text = format!("the topic of this event {problem}");
            Failure::new(FailureClass::Request, text)
        })
    }
}

fn late() -> AwsFailure {
    let failure = Failure::new(FailureClass::Timeout, "aws did not answer in time");
    AwsFailure { failure, code: None, after: None }
}
