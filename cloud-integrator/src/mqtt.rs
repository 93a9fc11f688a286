//! The sink that publishes each event to an MQTT broker, or to AWS IoT Core by MQTT.
//!
//! MQTT 5, QoS 1: an event is delivered when its PUBACK says so. docs/mqtt.md has the topics, the
//! payloads and what is promised. It subscribes to nothing and keeps no session: what had no
//! PUBACK when a connection ended is the forwarder's to repeat, with the same id.

mod client;
mod connection;
mod dial;
mod endpoint;
mod pace;
mod payload;
mod reasons;
mod session;
mod template;
mod topics;

pub use client::{MqttClient, MqttLimits, MqttPurpose, MqttSink};
pub use endpoint::{
    AWS_PAYLOAD_BYTES_MAX, AWS_PUBLISHES_PER_SECOND, CLIENT_ID_BYTES_MAX, CONNECTIONS_MAX,
    MqttEndpoint, MqttEndpointError,
};
pub use payload::{PAYLOAD_TEMPLATE_BYTES_MAX, PayloadError};
pub use topics::{
    AWS_TOPIC_BYTES_MAX, AWS_TOPIC_SLASHES_MAX, TOPIC_BYTES_MAX, TopicProblem, TopicsError,
};
pub(crate) use topics::{Rules as TopicRules, Topics};

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vocabulary::Protocol;

    use crate::event_type::EventType;
    use crate::sink::{Delivery, Subject};

    /// An event of a kind about no device.
    pub(super) fn event(event_type: EventType) -> Delivery {
        Delivery {
            id: "1-6393505d-0000fa8489fb9c791fcddd43".parse().unwrap(),
            event_type,
            subject: Subject::default(),
            source: None,
            topic: None,
            body: Bytes::from(format!(r#"{{"type":"{event_type}","received":"7"}}"#)),
        }
    }

    /// A message of five bytes, without a topic.
    pub(super) fn telemetry(source: Protocol) -> Delivery {
        let body = br#"{"type":"TELEMETRY_DATA","received":"7","payload":{"type":"STRING","encoding":"base64","value":"SGVsbG8="}}"#;
        Delivery {
            subject: Subject {
                iccid: Some("8988280666000002864".parse().unwrap()),
                imsi: Some("901405100002864".parse().unwrap()),
                ip: Some([100, 91, 200, 24].into()),
            },
            source: Some(source),
            body: Bytes::from_static(body),
            ..event(EventType::TelemetryData)
        }
    }
}
