//! What a broker's reason codes mean to whoever has to act (MQTT 5 §2.4). Pure.

use crate::sink::{ANSWER_CHARS_MAX, Answer, Failure, FailureClass};

/// Another client connected under our name (MQTT 5 §3.14.2.1).
pub(super) const SESSION_TAKEN_OVER: u8 = 0x8E;
/// Codes from here on are failures; below are successes, among them 0x10, no matching subscribers.
pub(super) const FAILURE_MIN: u8 = 0x80;

/// What a broker answered with a reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// CONNACK.
    Connect,
    /// PUBACK.
    Publish,
    /// DISCONNECT while so many events were without PUBACK.
    Disconnect { in_flight: usize },
}

/// The failure that `code` means.
pub(super) fn failure(answered: Answered, code: u8, reason: Option<&str>) -> Failure {
    let what = match answered {
        Answered::Connect => "the broker refused the connection",
        Answered::Publish => "the broker refused the event",
        Answered::Disconnect { .. } => "the broker ended the connection",
    };
    let text = format!("{what}: {} (reason code 0x{code:02x})", meaning(code));
    let answer = Answer {
        code: u16::from(code),
        text: reason.unwrap_or_default().chars().take(ANSWER_CHARS_MAX).collect(),
    };
    Failure { class: class(answered, code), text, answer: Some(answer) }
}

fn class(answered: Answered, code: u8) -> FailureClass {
    let class = match code {
        0x85 | 0x86 | 0x87 | 0x8A | 0x8C => FailureClass::Credentials,
        0x88 | 0x89 | 0x96 | 0x97 | 0x9F => FailureClass::Throttled,
        0x90 | 0x99 => FailureClass::Refused,
        0x95 => FailureClass::TooLarge,
        0x81 | 0x82 | 0x8B | 0x8D | 0x8E | 0x93 | 0x94 | 0x98 | 0xA0 => FailureClass::Transport,
        _ => FailureClass::Status,
    };
    let about_an_event = matches!(class, FailureClass::Refused | FailureClass::TooLarge);
    match answered {
        Answered::Publish => class,
        // One event is to blame, but which of several is not known: none is condemned for it.
        Answered::Disconnect { in_flight } if in_flight != 1 && about_an_event => {
            FailureClass::Transport
        }
        Answered::Disconnect { .. } => class,
        Answered::Connect if about_an_event => FailureClass::Status,
        Answered::Connect => class,
    }
}

fn meaning(code: u8) -> &'static str {
    match code {
        0x00 => "normal disconnection",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        0x84 => "it speaks no MQTT 5",
        0x85 => "the client id is not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorised",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "the client is banned",
        0x8B => "server shutting down",
        0x8C => "bad authentication method",
        0x8D => "keep-alive time-out",
        SESSION_TAKEN_OVER => {
            "session taken over, another client connected with the same client id; \
             give each its own"
        }
        0x90 => "the topic name is not valid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias not valid",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "the format of the payload is not valid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        _ => "unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_class() {
        let publish = |code| failure(Answered::Publish, code, None).class;
        assert_eq!(publish(0x87), FailureClass::Credentials);
        assert_eq!(publish(0x97), FailureClass::Throttled);
        assert_eq!(publish(0x90), FailureClass::Refused);
        assert_eq!(publish(0x99), FailureClass::Refused);
        assert_eq!(publish(0x95), FailureClass::TooLarge);
        assert_eq!(publish(0x80), FailureClass::Status);
        let connect = |code| failure(Answered::Connect, code, None).class;
        assert_eq!(connect(0x86), FailureClass::Credentials);
        assert_eq!(connect(0x89), FailureClass::Throttled);
        assert_eq!(connect(0x90), FailureClass::Status);
        assert_eq!(connect(0x84), FailureClass::Status);
    }

    #[test]
    fn nobody_is_condemned_for_what_another_event_did() {
        let ended = |in_flight, code| failure(Answered::Disconnect { in_flight }, code, None).class;
        assert_eq!(ended(1, 0x95), FailureClass::TooLarge);
        assert_eq!(ended(2, 0x95), FailureClass::Transport);
        assert_eq!(ended(0, 0x90), FailureClass::Transport);
        assert_eq!(ended(2, 0x97), FailureClass::Throttled);
    }

    #[test]
    fn the_text_says_what_to_do_and_the_answer_what_the_broker_said() {
        let long = "x".repeat(2_000);
        let failure = failure(Answered::Disconnect { in_flight: 3 }, 0x8E, Some(&long));
        assert_eq!(
            failure.text,
            "the broker ended the connection: session taken over, another client connected with \
             the same client id; give each its own (reason code 0x8e)"
        );
        let answer = failure.answer.unwrap();
        assert_eq!((answer.code, answer.text.len()), (0x8E, ANSWER_CHARS_MAX));
    }
}
