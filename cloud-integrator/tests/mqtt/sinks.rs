//! Sinks, and events to publish.

use std::time::Duration;

use bytes::Bytes;
use cloud_integrator::{
    Delivery, EventType, Failure, MqttClient, MqttLimits, MqttPurpose, MqttSink, MqttTarget,
    NetworkPolicy, Outcome, Resolver, Subject,
};
use vocabulary::{EventId, Protocol};

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn client(limits: MqttLimits) -> MqttClient {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    MqttClient::new(Resolver::new(policy), Vec::new(), limits)
}

/// Limits in milliseconds, so that a test need not wait.
pub(crate) fn hasty() -> MqttLimits {
    MqttLimits {
        attempt: Duration::from_secs(5),
        connect: Duration::from_secs(3),
        pause_min: Duration::from_millis(20),
        pause_max: Duration::from_millis(100),
        ..MqttLimits::default()
    }
}

pub(crate) fn plain(port: u16) -> MqttTarget {
    MqttTarget { url: format!("mqtt://127.0.0.1:{port}"), ..MqttTarget::default() }
}

pub(crate) fn sink(target: &MqttTarget, limits: MqttLimits) -> MqttSink {
    let client = client(limits);
    client.sink(client.endpoint(target, "AP3dIUs3c7_Oo2yJYaXWg").unwrap(), MqttPurpose::Run)
}

/// A message of a device that sends `number` by CoAP to `room`.
pub(crate) fn message(number: u32) -> Delivery {
    let id: EventId = format!("1-6393505d-{number:08x}489fb9c791fcdddd").parse().unwrap();
    Delivery {
        id,
        event_type: EventType::TelemetryData,
        subject: Subject {
            iccid: Some("8988280666000002864".parse().unwrap()),
            imsi: Some("901405100002864".parse().unwrap()),
            ip: Some([10, 0, 0, 7].into()),
        },
        source: Some(Protocol::Coap),
        topic: Some("room".into()),
        body: Bytes::from(format!(
            r#"{{"received":"{number}","payload":{{"type":"JSON","value":{number}}}}}"#
        )),
    }
}

/// Why an attempt is to be repeated.
pub(crate) fn retry(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Retry { reason, .. } => reason,
        other => panic!("expected a retry, found {other:?}"),
    }
}
