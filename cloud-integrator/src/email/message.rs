//! Events in words for people.

use std::fmt::Write as _;

use serde_json::Value;
use vocabulary::Timestamp;

use crate::event_type::EventType;
use crate::sink::Delivery;

/// Characters of a subject at most.
const SUBJECT_CHARS_MAX: usize = 120;

/// Subject and text of a mail about events.
pub(super) fn words(events: &[Delivery]) -> (String, String) {
    let told: Vec<Told> = events.iter().map(told).collect();
    let subject = match &told[..] {
        [one] => one.title.clone(),
        many => {
            let first = many.first().map(|one| one.title.as_str()).unwrap_or_default();
            format!("{first}, and {} more", many.len().saturating_sub(1))
        }
    };
    // Names are the customer's: what would break a line of a header becomes a space.
    let subject: String = format!("[simgate] {subject}")
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(SUBJECT_CHARS_MAX)
        .collect();
    let mut text = String::new();
    for (place, one) in told.iter().enumerate() {
        if place > 0 {
            text.push_str("\n----\n\n");
        }
        text.push_str(&one.title);
        text.push_str("\n\n");
        text.push_str(&one.details);
    }
    (subject, text)
}

/// One event.
struct Told {
    title: String,
    details: String,
}

fn told(event: &Delivery) -> Told {
    let value: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let text = |place: &str| value.pointer(place).and_then(Value::as_str).unwrap_or_default();
    let device = text("/device/iccid");
    let title = match event.event_type {
        EventType::Geofence => {
            let way = if text("/geofence/type") == "ENTER" { "entered" } else { "left" };
            format!("device {device} {way} {:?}", text("/geofence/name"))
        }
        EventType::Location => format!("device {device} was located"),
        EventType::Error => format!("error: {}", text("/error/message")),
        EventType::Lifecycle => text("/lifecycle/message").to_owned(),
        EventType::TestMessage => format!("test of {:?}", text("/integration/name")),
        EventType::TelemetryData => format!("message of device {device}"),
    };
    let mut details = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // A detail is one line, so that no name looks like another detail.
            let value = value.replace(char::is_control, " ");
            // Writing to a String never fails.
            let _ = writeln!(details, "{name:<12}{value}");
        }
    };
    let place = match event.event_type {
        EventType::Geofence => "/geofence",
        _ => "/location",
    };
    line("device", device);
    line("geofence", text("/geofence/name"));
    line("time", &time(&value, place));
    line("by", text(&format!("{place}/source")));
    let (longitude, latitude) =
        (text(&format!("{place}/coordinates/0")), text(&format!("{place}/coordinates/1")));
    if !longitude.is_empty() {
        line("position", &format!("{latitude}, {longitude}"));
        let accuracy = value.pointer(&format!("{place}/metadata/horizontalAccuracy"));
        if let Some(metres) = accuracy.and_then(Value::as_f64) {
            line("accuracy", &format!("{metres:.0} m"));
        }
        let map = format!(
            "https://www.openstreetmap.org/?mlat={latitude}&mlon={longitude}#map=15/{latitude}/\
             {longitude}"
        );
        line("map", &map);
        // The place and its uncertainty in metres (RFC 5870), for what opens a map by itself.
        let uncertainty = accuracy.and_then(Value::as_f64).map(|metres| format!(";u={metres:.0}"));
        line("geo", &format!("geo:{latitude},{longitude}{}", uncertainty.unwrap_or_default()));
    }
    line("description", text("/error/description"));
    if value.get("replayed").is_some() {
        line("again", "somebody has asked for it; it is as old as its time says");
    }
    line("event", text("/id"));
    Told { title, details }
}

/// When the device was there; of other events, when they were received.
fn time(event: &Value, place: &str) -> String {
    let sampled = event.pointer(&format!("{place}/sampleTime")).and_then(Value::as_str);
    let received = || {
        let milliseconds = event.pointer("/received")?.as_str()?.parse().ok()?;
        Some(Timestamp::from_millis(milliseconds).to_string())
    };
    sampled.map(str::to_owned).or_else(received).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sink::Subject;

    fn event(event_type: EventType, body: &str) -> Delivery {
        Delivery {
            id: "1-6393505d-0000fa8489fb9c791fcddd43".parse().unwrap(),
            event_type,
            subject: Subject::default(),
            source: None,
            topic: None,
            body: Bytes::from(body.to_owned()),
        }
    }

    const CROSSED: &str = r#"{"id":"1-2-3","device":{"iccid":"8988280666000002864"},"geofence":
        {"name":"depot\r\nBcc: x","type":"ENTER","source":"GPS","sampleTime":"2026-11-21T08:15:30Z",
        "coordinates":["24.1","56.9"],"metadata":{"horizontalAccuracy":12.4}}}"#;

    #[test]
    fn a_crossing_is_told_with_its_place_and_time() {
        let (subject, text) = words(&[event(EventType::Geofence, CROSSED)]);
        assert_eq!(subject, r#"[simgate] device 8988280666000002864 entered "depot\r\nBcc: x""#);
        for part in [
            "geofence    depot  Bcc: x\n",
            "position    56.9, 24.1",
            "accuracy    12 m",
            "mlat=56.9&mlon=24.1",
            "geo:56.9,24.1;u=12",
            "time        2026-11-21T08:15:30Z",
            "GPS",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn several_events_are_one_mail() {
        let error = r#"{"id":"1","received":"1670598749915","error":{"message":"A[B]","description":"why"}}"#;
        let events = [event(EventType::Error, error), event(EventType::Geofence, CROSSED)];
        let (subject, text) = words(&events);
        assert_eq!(subject, "[simgate] error: A[B], and 1 more");
        assert!(text.contains("time        2022-12-09T15:12:29.915Z"), "{text}");
        assert!(text.contains("description why") && text.contains("\n----\n"), "{text}");
    }

    #[test]
    fn what_is_no_event_breaks_nothing() {
        for body in ["", "[]", "7", r#"{"device":7}"#] {
            words(&[event(EventType::Location, body)]);
        }
    }
}
