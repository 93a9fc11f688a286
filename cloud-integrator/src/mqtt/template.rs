//! Texts with placeholders between colons, found once: topics and payloads are filled from them.
//!
//! A word between colons that is no placeholder of the place stays as it is, as in a webhook.

use std::fmt::Write;

use crate::sink::Delivery;

/// A text with its placeholders found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template<M>(Vec<Part<M>>);

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<M> {
    Text(String),
    Mark(M),
}

/// What is known of every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datum {
    Iccid,
    Imsi,
    Ip,
    Type,
    Source,
}

/// Their placeholders.
pub(super) const DATA: [(&str, Datum); 5] = [
    (":iccid:", Datum::Iccid),
    (":imsi:", Datum::Imsi),
    (":ip:", Datum::Ip),
    (":type:", Datum::Type),
    (":source:", Datum::Source),
];

/// What stands for a datum that is not known, as 1NCE OS has it.
pub(super) const UNKNOWN: &str = "none";

impl<M: Copy> Template<M> {
    /// Finds the placeholders `marks` in `text`.
    pub(super) fn compile(text: &str, marks: &[(&str, M)]) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = marks
                .iter()
                .find_map(|(mark, meaning)| rest.strip_prefix(mark).map(|after| (*meaning, after)));
            if let Some((meaning, after)) = found {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Mark(meaning));
                rest = after;
            } else {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self(parts)
    }

    /// The pieces, in their order.
    pub(super) fn parts(&self) -> &[Part<M>] {
        &self.0
    }
}

/// Writes `datum` of an event. None of them holds a character that has a meaning in JSON or in a
/// topic.
pub(super) fn write_datum(text: &mut String, datum: Datum, event: &Delivery) {
    let start = text.len();
    // Writing to a String never fails.
    let _ = match datum {
        Datum::Iccid => event.subject.iccid.map(|iccid| write!(text, "{iccid}")),
        Datum::Imsi => event.subject.imsi.map(|imsi| write!(text, "{imsi}")),
        Datum::Ip => event.subject.ip.map(|ip| write!(text, "{ip}")),
        Datum::Type => Some(write!(text, "{}", event.event_type)),
        Datum::Source => event.source.map(|source| write!(text, "{}", source.as_str())),
    };
    if text.len() == start {
        text.push_str(UNKNOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_placeholders_stay_and_colons_are_not_shared() {
        let template = Template::compile("a/:msisdn:/:ip:imsi::imsi:", &DATA);
        let expected = [
            Part::Text("a/:msisdn:/".to_owned()),
            Part::Mark(Datum::Ip),
            Part::Text("imsi:".to_owned()),
            Part::Mark(Datum::Imsi),
        ];
        assert_eq!(template.parts(), expected);
        assert!(Template::compile("", &DATA).parts().is_empty());
    }
}
