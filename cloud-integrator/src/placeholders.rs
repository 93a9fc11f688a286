//! Placeholders in a customer's URL and header values: `:iccid:`, `:imsi:`, `:ip:`.
//!
//! A datum that is not known becomes the literal `none`, as 1NCE OS has it; an unknown
//! placeholder stays as it is. The values come from a fixed set of digits, dots and hexadecimal
//! groups, so nothing a device sends can reach a request through here.

use std::fmt::Write;

use crate::sink::Subject;

/// A text with its placeholders found once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Datum(Datum),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Datum {
    Iccid,
    Imsi,
    Ip,
}

/// Where a filled text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Path or query of a URL: what is not unreserved (RFC 3986 §2.3) is percent-encoded.
    Url,
    /// The value of a header.
    Header,
}

const MARKS: [(&str, Datum); 3] =
    [(":iccid:", Datum::Iccid), (":imsi:", Datum::Imsi), (":ip:", Datum::Ip)];
const UNKNOWN: &str = "none";

impl Pattern {
    /// Finds the placeholders of `text`.
    pub(crate) fn compile(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some((mark, datum)) = MARKS.iter().find(|(mark, _)| rest.starts_with(mark)) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Datum(*datum));
                rest = &rest[mark.len()..];
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

    /// Whether the text is the same for every device.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text for one device.
    pub(crate) fn fill(&self, subject: &Subject, place: Place) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Datum(datum) => write_datum(&mut text, *datum, subject, place),
            }
        }
        text
    }
}

fn write_datum(text: &mut String, datum: Datum, subject: &Subject, place: Place) {
    let start = text.len();
    // Writing to a String never fails.
    let _ = match datum {
        Datum::Iccid => subject.iccid.map(|iccid| write!(text, "{iccid}")),
        Datum::Imsi => subject.imsi.map(|imsi| write!(text, "{imsi}")),
        Datum::Ip => subject.ip.map(|ip| write!(text, "{ip}")),
    };
    if text.len() == start {
        text.push_str(UNKNOWN);
    }
    // The one character of these values that is not unreserved is the colon of an IPv6 address.
    if place == Place::Url && text[start..].contains(':') {
        let encoded = text[start..].replace(':', "%3A");
        text.truncate(start);
        text.push_str(&encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            iccid: Some("1234567890123456789".parse().unwrap()),
            imsi: Some("987654321098765".parse().unwrap()),
            ip: Some([192, 168, 1, 1].into()),
        }
    }

    #[test]
    fn the_documented_example_holds() {
        let pattern = Pattern::compile("/events?iccid=:iccid:&ip=:ip:&imsi=:imsi:");
        assert_eq!(
            pattern.fill(&subject(), Place::Url),
            "/events?iccid=1234567890123456789&ip=192.168.1.1&imsi=987654321098765"
        );
        assert_eq!(
            pattern.fill(&Subject::default(), Place::Url),
            "/events?iccid=none&ip=none&imsi=none"
        );
    }

    #[test]
    fn unknown_placeholders_stay() {
        let pattern = Pattern::compile("/:msisdn:/::ip::/:imsi");
        assert!(!pattern.is_plain());
        assert_eq!(pattern.fill(&subject(), Place::Url), "/:msisdn:/:192.168.1.1:/:imsi");
        assert!(Pattern::compile("/a:b:c").is_plain());
    }

    #[test]
    fn adjacent_placeholders_do_not_share_a_colon() {
        let pattern = Pattern::compile(":iccid:imsi::imsi:");
        assert_eq!(
            pattern.fill(&subject(), Place::Header),
            "1234567890123456789imsi:987654321098765"
        );
    }

    #[test]
    fn an_ipv6_address_is_encoded_in_a_url_only() {
        let subject = Subject { ip: Some("2001:db8::1".parse().unwrap()), ..Subject::default() };
        let pattern = Pattern::compile(":ip:");
        assert_eq!(pattern.fill(&subject, Place::Url), "2001%3Adb8%3A%3A1");
        assert_eq!(pattern.fill(&subject, Place::Header), "2001:db8::1");
    }
}
