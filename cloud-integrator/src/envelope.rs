//! The JSON envelope of every event that is pushed.
//!
//! Fields and encoding of payloads are those of 1NCE OS; docs/webhooks.md has examples. Written
//! straight into bytes: telemetry passes here once for each integration and message. The order of
//! properties has no meaning.

use std::fmt::Display;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use vocabulary::{
    Crossing, EventId, Located, Notice, NoticeCategory, NoticeKind, Position, Protocol, Telemetry,
    Timestamp,
};

use crate::event_type::{EVENT_VERSION, EventType};
use crate::sink::Subject;

/// What every envelope carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The event's id.
    pub id: EventId,
    /// When the gateway accepted it.
    pub received_at: Timestamp,
    /// Whether it is delivered again because somebody asked for it.
    pub replayed: bool,
}

/// The payload of a message, as far as a template has not decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// The JSON that the message's template made.
    Translated(&'a str),
    /// No template: the bytes that the device sent.
    Raw {
        /// Whether the integration wants bytes that are valid JSON as JSON.
        parse_json: bool,
    },
}

/// The body and the room that most envelopes need: 285 bytes around a payload that base64 makes a
/// third longer, rounded up.
const ROOM_BYTES: usize = 320;

/// The envelope of a device's message.
///
/// Bytes count as JSON where they are one JSON value of any kind; LwM2M payloads are JSON by
/// themselves.
pub(crate) fn telemetry(stamp: Stamp, telemetry: &Telemetry<'_>, payload: Payload<'_>) -> Vec<u8> {
    let text_bytes = match payload {
        Payload::Translated(json) => json.len(),
        Payload::Raw { .. } => telemetry.payload.len() * 4 / 3,
    };
    let mut out = begin(EventType::TelemetryData, stamp, ROOM_BYTES + text_bytes);
    put(&mut out, b",\"source\":\"");
    put(&mut out, telemetry.protocol.as_str().as_bytes());
    put(&mut out, b"\"");
    write_device(&mut out, &subject_of(telemetry));
    write_payload(&mut out, telemetry, payload);
    put(&mut out, b"}");
    out
}

/// The device of a message.
pub(crate) fn subject_of(telemetry: &Telemetry<'_>) -> Subject {
    let identity = telemetry.identity;
    Subject { iccid: Some(identity.iccid), imsi: identity.imsi, ip: identity.ip }
}

/// The type of event that an entry of the administration log becomes: errors are ERROR, steps in
/// a device's life LIFECYCLE, crossed borders GEOFENCE, anything else is not pushed.
pub(crate) fn event_type_of(notice: &Notice) -> Option<EventType> {
    if notice.geofence.is_some() {
        return Some(EventType::Geofence);
    }
    match (notice.category, notice.kind) {
        (NoticeCategory::Error, _) => Some(EventType::Error),
        (NoticeCategory::Info, NoticeKind::Lifecycle) => Some(EventType::Lifecycle),
        (NoticeCategory::Info, _) => None,
    }
}

/// The envelope of an entry of the administration log; `None` where [`event_type_of`] is.
pub(crate) fn notice(stamp: Stamp, notice: &Notice) -> Option<Vec<u8>> {
    let event_type = event_type_of(notice)?;
    let mut out = begin(event_type, stamp, 2 * ROOM_BYTES + notice.description.len());
    let subject = Subject { iccid: notice.iccid, imsi: notice.imsi, ip: notice.ip };
    write_device(&mut out, &subject);
    match (event_type, &notice.geofence) {
        (_, Some(crossing)) => write_geofence(&mut out, crossing),
        (EventType::Lifecycle, None) => write_lifecycle(&mut out, notice),
        (_, None) => write_error(&mut out, stamp.id, notice),
    }
    put(&mut out, b"}");
    Some(out)
}

/// The envelope of a device that was located; `None` of one that could not be.
pub(crate) fn location(stamp: Stamp, located: &Located) -> Option<Vec<u8>> {
    let position = located.position?;
    let mut out = begin(EventType::Location, stamp, 2 * ROOM_BYTES);
    write_device(&mut out, &located_subject(located));
    put(&mut out, b",\"location\":{\"source\":\"");
    put(&mut out, located.source.as_str().as_bytes());
    put(&mut out, b"\"");
    write_place(&mut out, position, located.sampled_at);
    put(&mut out, b"}}");
    Some(out)
}

/// The device that was located.
pub(crate) fn located_subject(located: &Located) -> Subject {
    Subject { iccid: Some(located.iccid), imsi: located.imsi, ip: located.ip }
}

/// The envelope of a test of the integration `id` with the customer's `name` for it.
pub(crate) fn test_message(stamp: Stamp, id: &str, name: &str) -> Vec<u8> {
    let mut out = begin(EventType::TestMessage, stamp, ROOM_BYTES);
    put(&mut out, b",\"integration\":{\"id\":");
    write_string(&mut out, id);
    put(&mut out, b",\"name\":");
    write_string(&mut out, name);
    put(&mut out, b"}}");
    out
}

/// The fields of all events, without the closing brace.
fn begin(event_type: EventType, stamp: Stamp, room_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room_bytes);
    put(&mut out, b"{\"type\":\"");
    put(&mut out, event_type.as_str().as_bytes());
    put(&mut out, b"\",\"id\":\"");
    put(&mut out, stamp.id.trace().as_bytes());
    put(&mut out, b"\",\"received\":\"");
    show(&mut out, stamp.received_at.as_millis());
    put(&mut out, b"\",\"version\":\"");
    put(&mut out, EVENT_VERSION.as_bytes());
    put(&mut out, b"\"");
    if stamp.replayed {
        put(&mut out, b",\"replayed\":true");
    }
    out
}

/// The `device` object with what is known; nothing for an event about no device.
fn write_device(out: &mut Vec<u8>, subject: &Subject) {
    if *subject == Subject::default() {
        return;
    }
    put(out, b",\"device\":");
    let mut before = b'{';
    let mut field = |name: &[u8], value: Option<&dyn Display>| {
        if let Some(value) = value {
            out.push(before);
            before = b',';
            put(out, name);
            show(out, value);
            put(out, b"\"");
        }
    };
    field(b"\"iccid\":\"", subject.iccid.as_ref().map(|iccid| iccid as &dyn Display));
    field(b"\"imsi\":\"", subject.imsi.as_ref().map(|imsi| imsi as &dyn Display));
    field(b"\"ip\":\"", subject.ip.as_ref().map(|ip| ip as &dyn Display));
    put(out, b"}");
}

fn write_payload(out: &mut Vec<u8>, telemetry: &Telemetry<'_>, payload: Payload<'_>) {
    put(out, b",\"payload\":{\"type\":\"");
    let json = match payload {
        Payload::Translated(json) => Some(json),
        Payload::Raw { parse_json } => {
            let wanted = parse_json || telemetry.protocol == Protocol::Lwm2m;
            if wanted { as_json(telemetry.payload) } else { None }
        }
    };
    if let Some(json) = json {
        put(out, b"JSON\",\"value\":");
        put(out, json.as_bytes());
    } else {
        put(out, b"STRING\",\"encoding\":\"base64\",\"value\":\"");
        write_base64(out, telemetry.payload);
        put(out, b"\"");
    }
    if let (Protocol::Coap, Some(topic)) = (telemetry.protocol, telemetry.topic) {
        put(out, b",\"topic\":");
        write_string(out, topic);
    }
    if let Some(measured) = telemetry.measured {
        put(out, b",\"measured\":\"");
        show(out, measured.as_micros() / 1_000);
        put(out, b"\"");
    }
    put(out, b"}");
}

/// The bytes as text, where they are one JSON value.
fn as_json(bytes: &[u8]) -> Option<&str> {
    // UTF-8 first: a value that is skipped over is not checked for it.
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok().map(|_| text.trim_ascii())
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    // Four characters for each group of three bytes (RFC 4648 §4).
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is exact, so this cannot fail.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
}

fn write_lifecycle(out: &mut Vec<u8>, notice: &Notice) {
    let event = bracketed_in_capitals(&notice.message);
    put(out, b",\"lifecycle\":{\"type\":");
    write_string(out, &event);
    put(out, b",\"message\":");
    match notice.iccid {
        // The documented text carries the ICCID.
        Some(iccid) if event == "DEVICE_FIRST_TIME_REGISTERED" => write_string(
            out,
            &format!("New Device successfully registered for the first time - {iccid}"),
        ),
        _ => write_string(out, &notice.description),
    }
    put(out, b"}");
}

fn write_geofence(out: &mut Vec<u8>, crossing: &Crossing) {
    put(out, b",\"geofence\":{\"id\":");
    write_string(out, &crossing.id);
    put(out, b",\"name\":");
    write_string(out, &crossing.name);
    put(out, b",\"type\":\"");
    put(out, crossing.direction.as_str().as_bytes());
    put(out, b"\",\"source\":\"");
    put(out, crossing.source.as_str().as_bytes());
    put(out, b"\"");
    write_place(out, crossing.position, crossing.sampled_at);
    put(out, b"}");
}

/// Place, accuracy and time. The documented events have no time: a position may be late, so ours
/// do.
fn write_place(out: &mut Vec<u8>, position: Position, sampled_at: Timestamp) {
    let at = position.coordinates;
    put(out, b",\"coordinates\":[\"");
    show(out, at.longitude());
    put(out, b"\",\"");
    show(out, at.latitude());
    put(out, b"\"],\"sampleTime\":\"");
    show(out, sampled_at);
    put(out, b"\"");
    if let Some(accuracy) = position.accuracy_m {
        put(out, b",\"metadata\":{\"horizontalAccuracy\":");
        show(out, accuracy);
        put(out, b",\"horizontalConfidenceLevel\":0.68}");
    }
}

fn write_error(out: &mut Vec<u8>, id: EventId, notice: &Notice) {
    let kind = match notice.kind {
        NoticeKind::Integration => "INTEGRATION",
        NoticeKind::Device => "DEVICE",
        NoticeKind::Location => "LOCATION",
        // The documented list has no other.
        NoticeKind::General | NoticeKind::Lifecycle => "GENERAL",
    };
    put(out, b",\"error\":{\"id\":\"");
    show(out, id);
    put(out, b"\",\"type\":\"");
    put(out, kind.as_bytes());
    put(out, b"\",\"message\":");
    write_string(out, &notice.message);
    put(out, b",\"description\":");
    write_string(out, &notice.description);
    put(out, b",\"payloadExists\":");
    show(out, notice.payload_of.is_some());
    put(out, b"}");
}

/// `Lifecycle[DeviceFirstTimeRegistered]` becomes `DEVICE_FIRST_TIME_REGISTERED`.
fn bracketed_in_capitals(message: &str) -> String {
    let inner = message.split_once('[').map_or(message, |(_, rest)| rest.trim_end_matches(']'));
    let mut capitals = String::with_capacity(inner.len() + 8);
    for character in inner.chars() {
        if character.is_ascii_uppercase() && !capitals.is_empty() {
            capitals.push('_');
        }
        capitals.push(character.to_ascii_uppercase());
    }
    capitals
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn show(out: &mut Vec<u8>, value: impl Display) {
    // Writing to a Vec never fails.
    let _ = write!(out, "{value}");
}

/// `text` as a JSON string.
fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec never fails.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vocabulary::{Identity, IdentityClass};

    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            id: "1-6393505d-0000fa8489fb9c791fcddd43".parse().unwrap(),
            received_at: Timestamp::from_millis(1_670_598_749_915),
            replayed: false,
        }
    }

    fn identity() -> Identity {
        Identity {
            iccid: "8988280666000002864".parse().unwrap(),
            imsi: Some("901405100002864".parse().unwrap()),
            ip: Some([100, 91, 200, 24].into()),
        }
    }

    fn message(protocol: Protocol, payload: &[u8]) -> Telemetry<'_> {
        Telemetry {
            identity: identity(),
            class: IdentityClass::SimIp,
            protocol,
            topic: None,
            template: None,
            exchange: None,
            measured: None,
            session: None,
            payload,
        }
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_translated_message_is_the_documented_example() {
        let json = r#"{"latitude":7.490929188596135e+247,"longitude":2.586343401687847e+161}"#;
        let bytes = telemetry(stamp(), &message(Protocol::Udp, b"x"), Payload::Translated(json));
        let expected = format!(
            r#"{{"payload":{{"type":"JSON","value":{json}}},"received":"1670598749915",
            "id":"1-6393505d-0000fa8489fb9c791fcddd43","source":"UDP","type":"TELEMETRY_DATA",
            "version":"1.0.0","device":{{"iccid":"8988280666000002864","ip":"100.91.200.24",
            "imsi":"901405100002864"}}}}"#
        );
        assert_eq!(parsed(&bytes), parsed(expected.as_bytes()));
    }

    #[test]
    fn a_replayed_message_says_so_and_is_the_same_else() {
        let envelope = |replayed| {
            let stamp = Stamp { replayed, ..stamp() };
            parsed(&telemetry(stamp, &message(Protocol::Udp, b"x"), Payload::Translated("1")))
        };
        let mut again = envelope(true);
        assert_eq!(again.as_object_mut().unwrap().remove("replayed"), Some(json!(true)));
        assert_eq!(again, envelope(false));
    }

    #[test]
    fn an_untranslated_message_is_base64_with_its_topic() {
        let mut coap = message(Protocol::Coap, b"Hello World");
        coap.topic = Some("sometesttopic");
        let bytes = telemetry(stamp(), &coap, Payload::Raw { parse_json: false });
        assert_eq!(
            parsed(&bytes)["payload"],
            json!({"type":"STRING","encoding":"base64","value":"SGVsbG8gV29ybGQ=",
                "topic":"sometesttopic"})
        );
        assert_eq!(parsed(&bytes)["source"], "COAP");
        coap.protocol = Protocol::Udp;
        let bytes = telemetry(stamp(), &coap, Payload::Raw { parse_json: false });
        assert_eq!(parsed(&bytes)["payload"].get("topic"), None);
    }

    #[test]
    fn valid_json_is_json_only_where_it_is_wanted() {
        let kind = |payload: &[u8], parse_json: bool| {
            let message = message(Protocol::Udp, payload);
            let bytes = telemetry(stamp(), &message, Payload::Raw { parse_json });
            parsed(&bytes)["payload"]["type"].as_str().unwrap().to_owned()
        };
        assert_eq!(kind(b" {\"a\": [1, \"\xc3\xa4\"]}\n", true), "JSON");
        assert_eq!(kind(b"{\"a\":1}", false), "STRING");
        for other in [&b"{\"a\":1"[..], b"{\"a\":1} x", b"\"\xff\"", b"", b"NaN", b"\x00"] {
            assert_eq!(kind(other, true), "STRING", "{other:?}");
        }
        let lwm2m = message(Protocol::Lwm2m, b"{\"3303\":{}}");
        let bytes = telemetry(stamp(), &lwm2m, Payload::Raw { parse_json: false });
        assert_eq!(parsed(&bytes)["payload"]["type"], "JSON");
        let measured = Some(Timestamp::from_millis(1_670_598_749_915));
        let old = Telemetry { measured, ..lwm2m };
        let bytes = telemetry(stamp(), &old, Payload::Raw { parse_json: false });
        assert_eq!(parsed(&bytes)["payload"]["measured"], "1670598749915");
    }

    #[test]
    fn a_first_registration_is_the_documented_example() {
        let entry = Notice::new(
            NoticeCategory::Info,
            NoticeKind::Lifecycle,
            "Lifecycle[DeviceFirstTimeRegistered]",
        );
        let bytes = notice(stamp(), &entry.about(identity())).unwrap();
        assert_eq!(
            parsed(&bytes),
            json!({"lifecycle":{"type":"DEVICE_FIRST_TIME_REGISTERED","message":
                "New Device successfully registered for the first time - 8988280666000002864"},
                "received":"1670598749915","id":"1-6393505d-0000fa8489fb9c791fcddd43",
                "type":"LIFECYCLE","version":"1.0.0","device":{"iccid":"8988280666000002864",
                "ip":"100.91.200.24","imsi":"901405100002864"}})
        );
    }

    #[test]
    fn an_error_is_the_documented_example() {
        let mut entry =
            Notice::new(NoticeCategory::Error, NoticeKind::Device, "Translator[UserPayloadError]");
        let text = "Asset path:Temperature, Error: can't extract [200:201] from 2 bytes";
        entry.description = text.to_owned();
        entry.payload_of = Some(stamp().id.to_string());
        let value = parsed(&notice(stamp(), &entry.about(identity())).unwrap());
        assert_eq!(
            value["error"],
            json!({"id":stamp().id.to_string(),"type":"DEVICE",
                "message":"Translator[UserPayloadError]","description":text,
                "payloadExists":true})
        );
        assert_eq!(value["device"]["imsi"], "901405100002864");
    }

    #[test]
    fn an_error_about_no_device_has_no_device() {
        let entry = Notice::new(
            NoticeCategory::Error,
            NoticeKind::Integration,
            "CloudIntegrator[IntegrationDisabled]",
        );
        let value = parsed(&notice(stamp(), &entry).unwrap());
        assert_eq!(value.get("device"), None);
        assert_eq!(value["error"]["payloadExists"], false);
        assert_eq!(value["error"]["type"], "INTEGRATION");
    }

    fn position() -> Position {
        let coordinates =
            vocabulary::Coordinates::new(56.977_086_867_785, 24.166_234_790_073_986).unwrap();
        Position { coordinates, accuracy_m: Some(303.0) }
    }

    #[test]
    fn a_crossing_is_the_documented_example_with_its_time_and_accuracy() {
        let mut entry = Notice::new(NoticeCategory::Info, NoticeKind::Location, "Geofence[Exit]");
        entry.geofence = Some(Crossing {
            id: "Wg9ys5VqmSNN8M8YN2rv8".to_owned(),
            name: "TEST_GEOFENCE_1".to_owned(),
            direction: vocabulary::Direction::Exit,
            source: vocabulary::PositionSource::CellTower,
            position: position(),
            sampled_at: stamp().received_at,
        });
        let value = parsed(&notice(stamp(), &entry.about(identity())).unwrap());
        assert_eq!(value["type"], "GEOFENCE");
        assert_eq!(value["device"]["iccid"], "8988280666000002864");
        assert_eq!(
            value["geofence"],
            json!({"id":"Wg9ys5VqmSNN8M8YN2rv8","name":"TEST_GEOFENCE_1",
                "coordinates":["24.166234790073986","56.977086867785"],"source":"CellTower",
                "type":"EXIT","sampleTime":"2022-12-09T15:12:29.915Z",
                "metadata":{"horizontalAccuracy":303,"horizontalConfidenceLevel":0.68}})
        );
    }

    #[test]
    fn a_location_is_the_documented_example_with_its_time() {
        let Identity { iccid, imsi, ip } = identity();
        let mut located = Located {
            iccid,
            imsi,
            ip,
            source: vocabulary::PositionSource::CellTower,
            sampled_at: stamp().received_at,
            position: Some(position()),
            cell: None,
            matched: None,
            cause: 1,
        };
        let value = parsed(&location(stamp(), &located).unwrap());
        assert_eq!(value["type"], "LOCATION");
        assert_eq!(
            value["location"],
            json!({"source":"CellTower","coordinates":["24.166234790073986","56.977086867785"],
                "sampleTime":"2022-12-09T15:12:29.915Z",
                "metadata":{"horizontalAccuracy":303,"horizontalConfidenceLevel":0.68}})
        );
        located.position = None;
        assert_eq!(location(stamp(), &located), None);
    }

    #[test]
    fn other_information_is_not_pushed() {
        let entry = Notice::new(NoticeCategory::Info, NoticeKind::Device, "x");
        assert_eq!(notice(stamp(), &entry), None);
    }

    #[test]
    fn a_test_message_is_the_documented_example() {
        let bytes = test_message(stamp(), "X8qB3FhJQyffUH0GqL3gC", "integration-\"name\"");
        assert_eq!(
            parsed(&bytes),
            json!({"id":"1-6393505d-0000fa8489fb9c791fcddd43","type":"TEST_MESSAGE",
                "received":"1670598749915","integration":{"id":"X8qB3FhJQyffUH0GqL3gC",
                "name":"integration-\"name\""},"version":"1.0.0"})
        );
    }
}
