//! Mails to the recipients of one integration.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};

use super::conversation::{self, Letter};
use super::mailer::Mailer;
use super::message::words;
use super::quota::Quota;
use super::target::{InvalidEmail, recipients};
use crate::batch_id::batch_id;
use crate::sink::{Delivery, Failure, FailureClass, Outcome, Sink};
use crate::target::EmailTarget;

/// Mails to recipients. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EmailSink {
    mailer: Mailer,
    to: Arc<[Mailbox]>,
    quota: Arc<Mutex<Quota>>,
    all_or_none: bool,
}

impl EmailSink {
    /// Mails to the recipients of `target`.
    ///
    /// # Errors
    /// Where they are too few, too many or no addresses.
    pub fn new(mailer: &Mailer, target: &EmailTarget) -> Result<Self, InvalidEmail> {
        let quota = Quota::new(mailer.mails_per_hour(), Instant::now());
        Ok(Self {
            mailer: mailer.clone(),
            to: recipients(&target.recipients)?.into(),
            quota: Arc::new(Mutex::new(quota)),
            all_or_none: false,
        })
    }

    /// One that fails where a single recipient is refused: the others getting their mail would
    /// hide it from whoever tests.
    #[must_use]
    pub(crate) fn for_a_test(self) -> Self {
        Self { all_or_none: true, ..self }
    }

    fn letter(&self, events: &[Delivery]) -> Result<Letter, Failure> {
        let from = self.mailer.from();
        let (subject, text) = words(events);
        let id = match events {
            [one] => one.id.to_string(),
            several => batch_id(several),
        };
        let builder = Message::builder()
            .from(from.clone())
            .subject(subject)
            .message_id(Some(format!("<{id}@{}>", from.email.domain())))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN);
        let builder = self.to.iter().cloned().fold(builder, lettre::message::MessageBuilder::to);
        let message = builder.body(text).map_err(|error| {
            Failure::new(FailureClass::Request, format!("no mail can be made: {error}"))
        })?;
        Ok(Letter {
            envelope: message.envelope().clone(),
            bytes: message.formatted(),
            all_or_none: self.all_or_none,
        })
    }
}

/// Says that no person has written it, so that nobody's absence is answered (RFC 3834 §5).
#[derive(Debug, Clone, Copy)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Sink for EmailSink {
    async fn deliver(&self, events: Vec<Delivery>) -> Outcome {
        let letter = match self.letter(&events) {
            Ok(letter) => letter,
            Err(reason) => return Outcome::Rejected { reason },
        };
        // A panic elsewhere cannot leave the quota half-changed.
        let taken = self.quota.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if let Err(wait) = taken {
            let most = self.mailer.mails_per_hour();
            let text = format!("this integration has sent its {most} mails per hour");
            let reason = Failure::new(FailureClass::Throttled, text);
            return Outcome::Retry { reason, after: Some(wait) };
        }
        conversation::deliver(&self.mailer, &letter).await
    }
}
