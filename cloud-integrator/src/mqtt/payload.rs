//! What is published of an event: the event itself, the device's own bytes, or a text of the
//! customer's with what it wants of the event. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::template::{DATA, Datum, Part, Template, UNKNOWN, write_datum};
use crate::sink::Delivery;

/// The longest template: a few times the event itself.
pub const PAYLOAD_TEMPLATE_BYTES_MAX: usize = 4_096;
/// The word that asks for the device's own bytes.
const RAW: &str = "raw";
/// What a placeholder that is a JSON value becomes where the event has none.
const NULL: &str = "null";

/// What is published of each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload {
    /// The event as it is.
    Event,
    /// The bytes that the device sent, or the JSON that its template made of them.
    Raw,
    /// A text of the customer's.
    Template {
        template: Template<Mark>,
        /// Whether it makes JSON.
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Datum(Datum),
    Topic,
    Id,
    Received,
    Payload,
    Event,
}

/// A payload, and what a receiver may know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) bytes: Bytes,
    pub(super) form: Form,
}

/// The form of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text,
    Bytes,
}

/// Why a template is refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Nothing in it.
    #[error("payload is empty, leave it out for the event itself")]
    Empty,
    /// Longer than allowed.
    #[error("payload of {0} bytes exceeds the limit of {PAYLOAD_TEMPLATE_BYTES_MAX}")]
    TooLong(usize),
}

/// Of an event so much is needed here.
#[derive(Deserialize)]
struct Envelope<'a> {
    received: Option<&'a str>,
    #[serde(borrow)]
    payload: Option<Inner<'a>>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    encoding: Option<&'a str>,
}

impl Payload {
    /// Reads what a customer chose; nothing means the event itself.
    pub(super) fn compile(text: Option<&str>) -> Result<Self, PayloadError> {
        match text {
            None => Ok(Self::Event),
            Some("") => Err(PayloadError::Empty),
            Some(RAW) => Ok(Self::Raw),
            Some(text) if text.len() > PAYLOAD_TEMPLATE_BYTES_MAX => {
                Err(PayloadError::TooLong(text.len()))
            }
            Some(text) => {
                let template = Template::compile(text, &marks());
                let json = makes_json(&template);
                Ok(Self::Template { template, json })
            }
        }
    }

    /// What is published of `event`.
    pub(super) fn make(&self, event: &Delivery) -> Made {
        match self {
            Self::Event => Made { bytes: event.body.clone(), form: Form::Json },
            Self::Raw => raw(event),
            Self::Template { template, json } => {
                let form = if *json { Form::Json } else { Form::Text };
                Made { bytes: Bytes::from(fill(template, event)), form }
            }
        }
    }
}

fn marks() -> Vec<(&'static str, Mark)> {
    let data = DATA.iter().map(|(text, datum)| (*text, Mark::Datum(*datum)));
    data.chain([
        (":topic:", Mark::Topic),
        (":id:", Mark::Id),
        (":received:", Mark::Received),
        (":payload:", Mark::Payload),
        (":event:", Mark::Event),
    ])
    .collect()
}

/// Tries it with values of each kind: whether the customer wrote JSON shows by itself.
fn makes_json(template: &Template<Mark>) -> bool {
    // A text must not stand in quotes, and what is no text must not be the name of a member.
    ["\"x\"", NULL].into_iter().all(|value| is_json_with(template, value))
}

/// Whether it makes JSON where `value` stands for the values that are JSON themselves.
fn is_json_with(template: &Template<Mark>, value: &str) -> bool {
    let mut sample = String::new();
    for part in template.parts() {
        match part {
            Part::Text(text) => sample.push_str(text),
            Part::Mark(Mark::Payload | Mark::Event) => sample.push_str(value),
            // Always digits, so it may stand without quotes.
            Part::Mark(Mark::Received) => sample.push('0'),
            // Any of the others may be the word for what is not known, so quotes are needed.
            Part::Mark(_) => sample.push_str(UNKNOWN),
        }
    }
    serde_json::from_str::<serde::de::IgnoredAny>(&sample).is_ok()
}

fn envelope(event: &Delivery) -> Option<Envelope<'_>> {
    serde_json::from_slice(&event.body).ok()
}

fn raw(event: &Delivery) -> Made {
    // What is about no payload, such as an ERROR, is the event itself.
    let Some(inner) = envelope(event).and_then(|envelope| envelope.payload) else {
        return Made { bytes: event.body.clone(), form: Form::Json };
    };
    let json = inner.value.get();
    let bytes = match inner.encoding {
        Some("base64") => STANDARD.decode(json.trim_matches('"')).ok(),
        _ => None,
    };
    match bytes {
        Some(bytes) => Made { bytes: Bytes::from(bytes), form: Form::Bytes },
        None => Made { bytes: event.body.slice_ref(json.as_bytes()), form: Form::Json },
    }
}

fn fill(template: &Template<Mark>, event: &Delivery) -> String {
    let envelope = envelope(event);
    let whole = std::str::from_utf8(&event.body).unwrap_or(NULL);
    let mut text = String::with_capacity(event.body.len());
    for part in template.parts() {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Mark(Mark::Datum(datum)) => write_datum(&mut text, *datum, event),
            Part::Mark(Mark::Topic) => push_escaped(&mut text, event.topic.as_deref()),
            Part::Mark(Mark::Id) => text.push_str(&event.id.to_string()),
            Part::Mark(Mark::Received) => {
                let received = envelope.as_ref().and_then(|envelope| envelope.received);
                text.push_str(received.unwrap_or(UNKNOWN));
            }
            Part::Mark(Mark::Payload) => {
                let inner = envelope.as_ref().and_then(|envelope| envelope.payload.as_ref());
                text.push_str(inner.map_or(NULL, |inner| inner.value.get()));
            }
            Part::Mark(Mark::Event) => text.push_str(whole),
        }
    }
    text
}

/// What a device named, as the inside of a JSON string, so that it cannot end one.
fn push_escaped(text: &mut String, topic: Option<&str>) {
    let quoted = topic.and_then(|topic| serde_json::to_string(topic).ok());
    let inside = quoted.as_deref().and_then(|quoted| quoted.strip_prefix('"')?.strip_suffix('"'));
    text.push_str(inside.unwrap_or(UNKNOWN));
}

#[cfg(test)]
mod tests {
    use vocabulary::Protocol;

    use super::*;
    use crate::event_type::EventType;
    use crate::mqtt::tests::{event, telemetry};

    fn made(template: Option<&str>, event: &Delivery) -> (String, Form) {
        let made = Payload::compile(template).unwrap().make(event);
        (String::from_utf8_lossy(&made.bytes).into_owned(), made.form)
    }

    fn json_message() -> Delivery {
        let body = br#"{"type":"TELEMETRY_DATA","received":"7","payload":{"type":"JSON","value":{"t":21.50}}}"#;
        Delivery { body: Bytes::from_static(body), ..telemetry(Protocol::Udp) }
    }

    #[test]
    fn without_a_template_the_event_itself_is_published() {
        let event = telemetry(Protocol::Udp);
        let made = Payload::compile(None).unwrap().make(&event);
        assert_eq!((made.bytes, made.form), (event.body, Form::Json));
    }

    #[test]
    fn raw_is_what_the_device_sent() {
        assert_eq!(
            made(Some("raw"), &telemetry(Protocol::Coap)),
            ("Hello".to_owned(), Form::Bytes)
        );
        assert_eq!(made(Some("raw"), &json_message()), (r#"{"t":21.50}"#.to_owned(), Form::Json));
        let error = event(EventType::Error);
        let whole = String::from_utf8(error.body.to_vec()).unwrap();
        assert_eq!(made(Some("raw"), &error), (whole, Form::Json));
    }

    #[test]
    fn a_template_is_filled_and_known_to_be_json() {
        let text = r#"{"d":":iccid:","s":":source:","at":":received:","i":":id:","v":":payload:"}"#;
        let text = text.replace("\":payload:\"", ":payload:");
        let (filled, form) = made(Some(&text), &json_message());
        let id = json_message().id;
        let expected = format!(
            r#"{{"d":"8988280666000002864","s":"UDP","at":"7","i":"{id}","v":{{"t":21.50}}}}"#
        );
        assert_eq!((filled, form), (expected, Form::Json));
        let (filled, form) = made(Some(":type: :payload:"), &telemetry(Protocol::Coap));
        assert_eq!((filled.as_str(), form), ("TELEMETRY_DATA \"SGVsbG8=\"", Form::Text));
        let (filled, _) = made(Some("[:event:,:payload:]"), &event(EventType::Error));
        let whole = String::from_utf8(event(EventType::Error).body.to_vec()).unwrap();
        assert_eq!(filled, format!("[{whole},null]"));
    }

    /// A template with `":payload:"` in quotes counted as JSON because it was tried with `null`. It
    /// made `""SGVsbG8=""`, which readers were told to read as JSON.
    #[test]
    fn a_value_in_quotes_makes_no_json() {
        let cases = [
            r#"{"v":":payload:"}"#,
            r#"{"v":":event:"}"#,
            r#"{"v":"x :payload:"}"#,
            "{:payload::1}",
        ];
        for template in cases {
            let (filled, form) = made(Some(template), &telemetry(Protocol::Coap));
            assert_eq!(form, Form::Text, "{template}: {filled}");
        }
        let (filled, form) = made(Some(r#"{"v"::payload:}"#), &telemetry(Protocol::Coap));
        assert_eq!((filled.as_str(), form), (r#"{"v":"SGVsbG8="}"#, Form::Json));
    }

    #[test]
    fn a_device_cannot_end_a_string_of_the_template() {
        let mut message = telemetry(Protocol::Coap);
        message.topic = Some("a\",\"admin\":\"1\u{1}".into());
        let (filled, form) = made(Some(r#"{"topic":":topic:"}"#), &message);
        let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["topic"], "a\",\"admin\":\"1\u{1}");
        assert_eq!((value.as_object().unwrap().len(), form), (1, Form::Json));
        message.topic = None;
        assert_eq!(made(Some(":topic:"), &message).0, "none");
    }

    #[test]
    fn templates_have_a_limit() {
        assert_eq!(Payload::compile(Some("")), Err(PayloadError::Empty));
        let text = Payload::compile(Some(&"x".repeat(4_097))).unwrap_err().to_string();
        assert_eq!(text, "payload of 4097 bytes exceeds the limit of 4096");
    }
}
