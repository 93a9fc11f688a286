//! The topics of events at AWS IoT Core, as documented for 1NCE OS.

use vocabulary::Protocol;

use crate::event_type::EventType;
use crate::sink::{Delivery, Failure, FailureClass};

/// Bytes of a topic (the quotas of AWS IoT Core).
const TOPIC_BYTES_MAX: usize = 256;
/// Slashes in a topic (the same).
const SLASHES_MAX: usize = 7;

/// The topic of an event.
///
/// # Errors
/// Where the topic that the device named makes one that AWS IoT Core does not take.
pub(super) fn topic(event: &Delivery) -> Result<String, Failure> {
    let topic = match event.event_type {
        EventType::TelemetryData => telemetry(event),
        EventType::Lifecycle => "lifecycle".to_owned(),
        EventType::Error => "error".to_owned(),
        EventType::Geofence => "geofence".to_owned(),
        EventType::Location => "location".to_owned(),
        EventType::TestMessage => "integration-status".to_owned(),
    };
    let refused = |text: String| Err(Failure::new(FailureClass::Refused, text));
    if topic.len() > TOPIC_BYTES_MAX {
        let bytes = topic.len();
        return refused(format!("topic of {bytes} bytes exceeds the limit of {TOPIC_BYTES_MAX}"));
    }
    let slashes = topic.bytes().filter(|byte| *byte == b'/').count();
    if slashes > SLASHES_MAX {
        return refused(format!("topic with {slashes} slashes exceeds the limit of {SLASHES_MAX}"));
    }
    if topic.contains(['+', '#', '\0']) {
        return refused("topic holds a wildcard, + or #, or a zero".to_owned());
    }
    Ok(topic)
}

fn telemetry(event: &Delivery) -> String {
    let device = event.subject.iccid.map_or_else(|| "none".to_owned(), |iccid| iccid.to_string());
    match (event.source, event.topic.as_deref()) {
        (Some(Protocol::Coap), Some(topic)) if !topic.is_empty() => format!("{device}/{topic}"),
        (Some(Protocol::Coap), _) => device,
        _ => format!("{device}/messages"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vocabulary::{EventIdGenerator, Timestamp};

    use super::*;
    use crate::sink::Subject;

    fn event(event_type: EventType, source: Option<Protocol>, topic: Option<&str>) -> Delivery {
        Delivery {
            id: EventIdGenerator::new(1, None).next(Timestamp::from_millis(1)),
            event_type,
            subject: Subject { iccid: "8988280666000002864".parse().ok(), ..Subject::default() },
            source,
            topic: topic.map(Into::into),
            body: Bytes::new(),
        }
    }

    #[test]
    fn topics_are_the_documented_ones() {
        let device =
            |protocol, t| topic(&event(EventType::TelemetryData, Some(protocol), t)).unwrap();
        assert_eq!(device(Protocol::Udp, None), "8988280666000002864/messages");
        assert_eq!(device(Protocol::Lwm2m, None), "8988280666000002864/messages");
        assert_eq!(device(Protocol::Coap, Some("a/b")), "8988280666000002864/a/b");
        assert_eq!(device(Protocol::Coap, None), "8988280666000002864");
        for (event_type, expected) in [
            (EventType::Error, "error"),
            (EventType::Geofence, "geofence"),
            (EventType::Location, "location"),
            (EventType::Lifecycle, "lifecycle"),
            (EventType::TestMessage, "integration-status"),
        ] {
            assert_eq!(topic(&event(event_type, None, None)).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_topic_that_aws_does_not_take_is_refused_before_it_is_sent() {
        let coap = |t: &str| topic(&event(EventType::TelemetryData, Some(Protocol::Coap), Some(t)));
        assert!(coap("a/b/c/d/e/f/g").is_ok());
        for bad in ["a/b/c/d/e/f/g/h", "a/+", "#", &"x".repeat(240)] {
            assert_eq!(coap(bad).unwrap_err().class, FailureClass::Refused, "{bad}");
        }
    }
}
