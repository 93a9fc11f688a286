//! Requests: an action for a device, and how far it is.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vocabulary::{Iccid, Imsi, Timestamp};

use crate::action::{Action, PayloadType};
use crate::request_id::RequestId;

/// A request that nothing triggered for so long has failed, as documented.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// A request is deleted so long after its creation, whatever its status, as documented.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Attempts of one request, as documented.
pub const SEND_ATTEMPTS_MAX: u8 = 5;
/// Bytes of an answer that are stored: eight times what a message of the history may have.
pub const RESULT_BYTES_MAX: usize = 16_384;
/// Characters of a text that says why a request failed.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// When a request is handed to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At once, or when the request before it has ended.
    SendNow,
    /// When the device shows that it is awake.
    SendWhenActive,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits.
    Scheduled,
    /// A sender has it, or its result is being stored.
    InProgress,
    /// Sent, and answered with success where its protocol has answers.
    Succeeded,
    /// Refused by the device, never answered, or never triggered.
    Failed,
    /// Taken back by the customer before it was sent.
    Cancelled,
}

/// A request to be stored.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Whom it is for.
    pub device: Iccid,
    /// What it is.
    pub action: Action,
    /// When to send it.
    pub mode: Mode,
    /// How often to send it until there is an answer; 1 to [`SEND_ATTEMPTS_MAX`].
    pub send_attempts: u8,
    /// The device's subscriber, to be shown.
    pub imsi: Option<Imsi>,
    /// The device's address when the request was made, to be shown.
    pub ip: Option<IpAddr>,
}

/// A request as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Whom it is for.
    pub device: Iccid,
    /// What it is.
    pub action: Arc<Action>,
    /// When it is sent.
    pub mode: Mode,
    /// How far it is.
    pub status: Status,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// How often it may be sent.
    pub send_attempts: u8,
    /// How often it may still be sent.
    pub send_attempts_left: u8,
    /// The device's subscriber when it was made.
    pub imsi: Option<Imsi>,
    /// The device's address when it was made.
    pub ip: Option<IpAddr>,
    /// What came of it; `None` until it has ended, and where it was cancelled.
    pub result: Option<ActionResult>,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ActionResult {
    /// The code of the answer, e.g. 205 for 2.05.
    pub code: Option<u16>,
    /// What the device answered.
    pub payload: Box<[u8]>,
    /// The content format of the answer.
    pub content_format: Option<u16>,
    /// Why it failed.
    pub error: Option<Box<str>>,
}

/// What a sender says of an action that it was handed.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A datagram was sent, or the device answered with success.
    Succeeded {
        /// The code of the answer, e.g. 205 for 2.05.
        code: Option<u16>,
        /// What the device answered.
        payload: Vec<u8>,
        /// The content format of the answer.
        content_format: Option<u16>,
    },
    /// The device refused, or its answer makes no sense. It is not sent again.
    Failed {
        /// The code of the answer, e.g. 404 for 4.04.
        code: Option<u16>,
        /// Why, in words.
        message: String,
        /// What the device answered.
        payload: Vec<u8>,
    },
    /// The device did not answer. That was one attempt.
    Unreachable {
        /// Why, in words.
        message: String,
    },
    /// It could not be sent at all, e.g. because the device is not registered. That was no attempt.
    NotSent {
        /// Why, in words.
        message: String,
    },
}

impl Mode {
    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendNow => "SEND_NOW",
            Self::SendWhenActive => "SEND_WHEN_ACTIVE",
        }
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] =
        [Self::Scheduled, Self::InProgress, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The name in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether the request may still be sent.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Scheduled | Self::InProgress)
    }
}

impl ActionResult {
    /// A failure in words.
    pub(crate) fn error(message: &str) -> Self {
        let cut: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        Self { error: Some(cut.into()), ..Self::default() }
    }

    /// The payload as text: itself where its content format is printable, else in base 64.
    pub fn text(&self) -> (String, PayloadType) {
        let is_printable = self.content_format.is_some_and(is_printable);
        match std::str::from_utf8(&self.payload) {
            Ok(text) if is_printable => (text.to_owned(), PayloadType::Text),
            _ => (STANDARD.encode(&self.payload), PayloadType::Base64),
        }
    }
}

impl Outcome {
    /// The status and the result that end a request whose attempts are used up.
    pub(crate) fn into_result(self) -> (Status, ActionResult) {
        match self {
            Self::Succeeded { payload, .. } if payload.len() > RESULT_BYTES_MAX => {
                let length = payload.len();
                let error =
                    format!("answer of {length} bytes exceeds the limit of {RESULT_BYTES_MAX}");
                (Status::Failed, ActionResult::error(&error))
            }
            Self::Succeeded { code, payload, content_format } => {
                let result =
                    ActionResult { code, payload: payload.into(), content_format, error: None };
                (Status::Succeeded, result)
            }
            Self::Failed { code, message, mut payload } => {
                payload.truncate(RESULT_BYTES_MAX);
                let payload = payload.into();
                (Status::Failed, ActionResult { code, payload, ..ActionResult::error(&message) })
            }
            Self::Unreachable { message } | Self::NotSent { message } => {
                (Status::Failed, ActionResult::error(&message))
            }
        }
    }
}

/// Content formats of texts (the CoAP registry of IANA): text/plain, link-format, XML, JSON,
/// JSON Patch, Merge Patch, SenML and SenSML in JSON and XML, and the older JSON of LwM2M.
fn is_printable(content_format: u16) -> bool {
    matches!(content_format, 0 | 40 | 41 | 50 | 51 | 52 | 110 | 111 | 310 | 311 | 320 | 11_543)
}

/// What a device answers belongs to its customer: only the length is shown.
impl fmt::Debug for ActionResult {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, payload, error, .. } = self;
        write!(formatter, "ActionResult({code:?}, {} bytes, {error:?})", payload.len())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded { code, payload, .. } => {
                write!(formatter, "Succeeded({code:?}, {} bytes)", payload.len())
            }
            Self::Failed { code, message, .. } => write!(formatter, "Failed({code:?}, {message})"),
            Self::Unreachable { message } => write!(formatter, "Unreachable({message})"),
            Self::NotSent { message } => write!(formatter, "NotSent({message})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(payload: &[u8], content_format: Option<u16>) -> ActionResult {
        ActionResult { payload: payload.into(), content_format, ..ActionResult::default() }
    }

    #[test]
    fn answers_are_text_where_their_format_is() {
        assert_eq!(result(b"on", Some(0)).text(), ("on".to_owned(), PayloadType::Text));
        for (payload, format) in [(&b"on"[..], None), (b"on", Some(42)), (b"o\xff", Some(0))] {
            assert_eq!(result(payload, format).text().1, PayloadType::Base64);
        }
        assert_eq!(result(b"on", None).text().0, "b24=");
    }

    #[test]
    fn an_answer_that_cannot_be_stored_is_a_failure() {
        let payload = vec![0; RESULT_BYTES_MAX + 1];
        let outcome = Outcome::Succeeded { code: Some(205), payload, content_format: None };
        let (status, result) = outcome.into_result();
        assert_eq!(status, Status::Failed);
        let error = result.error.unwrap();
        assert_eq!(&*error, "answer of 16385 bytes exceeds the limit of 16384");
    }
}
