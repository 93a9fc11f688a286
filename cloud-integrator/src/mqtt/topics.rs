//! The topic of an event: the documented map, or a template of the customer's. Pure.
//!
//! What a device chose itself can neither leave its place in a topic by a wildcard or a control
//! character nor be the beginning of one, so it cannot reach a topic that begins otherwise.
//! MQTT 5 §1.5.4, §3.3.2.1 and §4.7.

use std::collections::BTreeMap;
use std::fmt::Write;

use thiserror::Error;
use vocabulary::Protocol;

use super::template::{DATA, Datum, Part, Template, UNKNOWN, write_datum};
use crate::event_type::EventType;
use crate::sink::Delivery;

/// The longest topic: its length has two bytes (MQTT 5 §1.5.4).
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// The longest topic of AWS IoT Core, without the first three levels of Basic Ingest.
pub const AWS_TOPIC_BYTES_MAX: usize = 256;
/// The most slashes in a topic of AWS IoT Core, counted likewise.
pub const AWS_TOPIC_SLASHES_MAX: usize = 7;
/// The longest template; what a device adds is limited by its place.
const TEMPLATE_BYTES_MAX: usize = 1_024;
/// Topics of Basic Ingest: `$aws/rules/<rule>/...`.
const BASIC_INGEST: &str = "$aws/rules/";

/// Whose limits topics keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Those of MQTT alone.
    Mqtt,
    /// Those of AWS IoT Core too.
    Aws,
}

/// The topics of one integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topics {
    templates: Vec<(EventType, Template<Mark>)>,
    rules: Rules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Datum(Datum),
    /// What a device named by CoAP.
    Topic,
}

/// Why the templates of topics are refused. The customer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicsError {
    /// Not the name of an event type.
    #[error(
        "topics has the key {0:?}, allowed: \
         TELEMETRY_DATA, LIFECYCLE, ERROR, GEOFENCE, LOCATION, TEST_MESSAGE"
    )]
    EventType(String),
    /// What no topic can be made of.
    #[error("the topic of {event_type} {problem}")]
    Template {
        /// The event type.
        event_type: EventType,
        /// What is wrong.
        problem: TopicProblem,
    },
}

/// What is wrong with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicProblem {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// `#` or `+`.
    #[error("holds {0:?}, which is for subscriptions alone")]
    Wildcard(char),
    /// NUL and its kind.
    #[error("holds a control character")]
    Control,
    /// A device would choose how it begins.
    #[error("begins with :topic:, which a device chooses; put something of yours in front of it")]
    BeginsWithTopic,
    /// Longer than allowed.
    #[error("has {bytes} bytes, allowed: {limit}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// More levels than AWS allows.
    #[error("has {0} slashes, AWS IoT Core allows {AWS_TOPIC_SLASHES_MAX}")]
    Slashes(usize),
}

impl Topics {
    /// The documented topics.
    pub(crate) fn documented(rules: Rules) -> Self {
        Self { templates: Vec::new(), rules }
    }

    /// Compiles the templates of a customer by the name of their event type.
    pub(crate) fn compile(
        templates: &BTreeMap<String, String>,
        rules: Rules,
    ) -> Result<Self, TopicsError> {
        let mut compiled = Vec::with_capacity(templates.len());
        for (name, text) in templates {
            let event_type = EventType::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name)
                .ok_or_else(|| TopicsError::EventType(name.chars().take(64).collect()))?;
            check_template(text, rules)
                .map_err(|problem| TopicsError::Template { event_type, problem })?;
            compiled.push((event_type, Template::compile(text, &marks())));
        }
        Ok(Self { templates: compiled, rules })
    }

    /// The topic of `event`.
    ///
    /// # Errors
    /// Where what a device named makes none that the rules allow.
    pub(crate) fn name(&self, event: &Delivery) -> Result<String, TopicProblem> {
        let template = self.templates.iter().find(|(kind, _)| *kind == event.event_type);
        let topic = match template {
            Some((_, template)) => fill(template, event),
            None => documented(event),
        };
        check(&topic, self.rules)?;
        Ok(topic)
    }
}

fn marks() -> Vec<(&'static str, Mark)> {
    let data = DATA.iter().map(|(text, datum)| (*text, Mark::Datum(*datum)));
    data.chain([(":topic:", Mark::Topic)]).collect()
}

fn fill(template: &Template<Mark>, event: &Delivery) -> String {
    let mut topic = String::with_capacity(64);
    for part in template.parts() {
        match part {
            Part::Text(text) => topic.push_str(text),
            Part::Mark(Mark::Datum(datum)) => write_datum(&mut topic, *datum, event),
            Part::Mark(Mark::Topic) => match named(event) {
                Some(text) => push_encoded(&mut topic, text),
                None => topic.push_str(UNKNOWN),
            },
        }
    }
    topic
}

/// The map that 1NCE OS documents for AWS IoT Core.
fn documented(event: &Delivery) -> String {
    let word = match event.event_type {
        EventType::TelemetryData => return documented_telemetry(event),
        EventType::Error => "error",
        EventType::Geofence => "geofence",
        EventType::Location => "location",
        EventType::Lifecycle => "lifecycle",
        EventType::TestMessage => "integration-status",
    };
    word.to_owned()
}

fn documented_telemetry(event: &Delivery) -> String {
    let mut topic = String::with_capacity(32);
    write_datum(&mut topic, Datum::Iccid, event);
    match (event.source, named(event)) {
        (Some(Protocol::Coap), Some(text)) => {
            topic.push('/');
            push_encoded(&mut topic, text);
        }
        (Some(Protocol::Coap), None) => {}
        _ => topic.push_str("/messages"),
    }
    topic
}

/// What the device named; an empty text names nothing.
fn named(event: &Delivery) -> Option<&str> {
    event.topic.as_deref().filter(|text| !text.is_empty())
}

/// Adds what a device chose, with what may not be in a topic in the manner of a URL.
fn push_encoded(topic: &mut String, text: &str) {
    for character in text.chars() {
        if matches!(character, '#' | '+') || character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing to a String never fails.
                let _ = write!(topic, "%{byte:02X}");
            }
        } else {
            topic.push(character);
        }
    }
}

fn check_template(text: &str, rules: Rules) -> Result<(), TopicProblem> {
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TopicProblem::TooLong { bytes: text.len(), limit: TEMPLATE_BYTES_MAX });
    }
    if text.starts_with(":topic:") {
        return Err(TopicProblem::BeginsWithTopic);
    }
    // Placeholders hold no slash, except :topic:, which is checked when it is known. The length
    // is checked then too: what stands for it is at least one byte long, its name longer.
    match check(text, rules) {
        Err(TopicProblem::TooLong { .. }) => Ok(()),
        other => other,
    }
}

fn check(topic: &str, rules: Rules) -> Result<(), TopicProblem> {
    if topic.is_empty() {
        return Err(TopicProblem::Empty);
    }
    if let Some(wildcard) = topic.chars().find(|character| matches!(character, '#' | '+')) {
        return Err(TopicProblem::Wildcard(wildcard));
    }
    if topic.chars().any(char::is_control) {
        return Err(TopicProblem::Control);
    }
    let (counted, limit) = match rules {
        Rules::Mqtt => (topic, TOPIC_BYTES_MAX),
        Rules::Aws => (without_basic_ingest(topic), AWS_TOPIC_BYTES_MAX),
    };
    if counted.len() > limit {
        return Err(TopicProblem::TooLong { bytes: counted.len(), limit });
    }
    let slashes = counted.bytes().filter(|byte| *byte == b'/').count();
    if rules == Rules::Aws && slashes > AWS_TOPIC_SLASHES_MAX {
        return Err(TopicProblem::Slashes(slashes));
    }
    Ok(())
}

/// AWS counts neither bytes nor slashes of the first three levels of Basic Ingest.
fn without_basic_ingest(topic: &str) -> &str {
    topic
        .strip_prefix(BASIC_INGEST)
        .and_then(|rest| rest.split_once('/'))
        .map_or(topic, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::tests::{event, telemetry};

    fn topics(pairs: &[(&str, &str)], rules: Rules) -> Result<Topics, TopicsError> {
        let pairs = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Topics::compile(&pairs.collect(), rules)
    }

    fn named_by(topic: &str) -> Delivery {
        Delivery { topic: Some(topic.into()), ..telemetry(Protocol::Coap) }
    }

    #[test]
    fn without_templates_the_documented_map_holds() {
        let topics = topics(&[], Rules::Aws).unwrap();
        let name = |event: &Delivery| topics.name(event).unwrap();
        assert_eq!(name(&telemetry(Protocol::Udp)), "8988280666000002864/messages");
        assert_eq!(name(&telemetry(Protocol::Lwm2m)), "8988280666000002864/messages");
        assert_eq!(name(&telemetry(Protocol::Coap)), "8988280666000002864");
        assert_eq!(name(&named_by("")), "8988280666000002864");
        assert_eq!(name(&named_by("room/1")), "8988280666000002864/room/1");
        assert_eq!(name(&event(EventType::Error)), "error");
        assert_eq!(name(&event(EventType::Geofence)), "geofence");
        assert_eq!(name(&event(EventType::Location)), "location");
        assert_eq!(name(&event(EventType::Lifecycle)), "lifecycle");
        assert_eq!(name(&event(EventType::TestMessage)), "integration-status");
    }

    #[test]
    fn a_template_is_filled_with_what_is_known() {
        let topics = topics(
            &[
                ("TELEMETRY_DATA", "site/:source:/:iccid:/:imsi:/:ip:/:topic:/:other:"),
                ("TEST_MESSAGE", "site/:type:/:iccid:/:topic:"),
            ],
            Rules::Mqtt,
        )
        .unwrap();
        assert_eq!(
            topics.name(&named_by("t")).unwrap(),
            "site/COAP/8988280666000002864/901405100002864/100.91.200.24/t/:other:"
        );
        assert_eq!(
            topics.name(&event(EventType::TestMessage)).unwrap(),
            "site/TEST_MESSAGE/none/none"
        );
        assert_eq!(topics.name(&event(EventType::Error)).unwrap(), "error");
    }

    #[test]
    fn a_device_cannot_write_wildcards_or_control_characters() {
        let topics = topics(&[], Rules::Mqtt).unwrap();
        let name = topics.name(&named_by("a/#/+\0\n\u{85}ä%23$x")).unwrap();
        assert_eq!(name, "8988280666000002864/a/%23/%2B%00%0A%C2%85ä%23$x");
        assert!(rumqttc::valid_topic(&name));
    }

    #[test]
    fn templates_that_make_no_topic_are_refused_with_the_reason() {
        let refused =
            |text: &str, rules| topics(&[("ERROR", text)], rules).unwrap_err().to_string();
        assert_eq!(refused("", Rules::Mqtt), "the topic of ERROR is empty");
        assert!(refused("a/#", Rules::Mqtt).contains("holds '#'"));
        assert!(refused("a/+/b", Rules::Mqtt).contains("holds '+'"));
        assert!(refused("a\0", Rules::Mqtt).contains("control character"));
        assert!(refused(":topic:/a", Rules::Mqtt).contains("begins with :topic:"));
        assert!(refused(&"a".repeat(1_025), Rules::Mqtt).contains("has 1025 bytes"));
        assert!(refused("a/b/c/d/e/f/g/h/i", Rules::Aws).contains("has 8 slashes"));
        assert!(topics(&[("ERROR", "a/b/c/d/e/f/g/h/i")], Rules::Mqtt).is_ok());
        let unknown = topics(&[("error", "x")], Rules::Mqtt).unwrap_err();
        assert!(unknown.to_string().starts_with("topics has the key \"error\", allowed:"));
    }

    #[test]
    fn the_limits_of_aws_hold_for_what_a_device_adds() {
        let topics = topics(&[("ERROR", "$aws/rules/all/a/:topic:")], Rules::Aws).unwrap();
        assert_eq!(topics.name(&named_by("1/2/3/4/5/6/7/8")), Err(TopicProblem::Slashes(8)));
        let long = "x".repeat(300);
        assert_eq!(
            topics.name(&named_by(&long)),
            Err(TopicProblem::TooLong { bytes: 320, limit: 256 })
        );
        // The first three levels of Basic Ingest do not count.
        let ingest = |topic: &str| {
            topics.name(&Delivery { event_type: EventType::Error, ..named_by(topic) })
        };
        assert!(ingest("1/2/3/4/5/6/7").is_ok());
        assert_eq!(ingest("1/2/3/4/5/6/7/8"), Err(TopicProblem::Slashes(8)));
        assert!(ingest(&"x".repeat(254)).is_ok());
    }
}
