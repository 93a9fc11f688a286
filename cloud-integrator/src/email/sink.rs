//! The way to the mail server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, extension::ClientId};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::message::words;
use super::target::{InvalidEmail, recipients};
use crate::sink::{
    ANSWER_CHARS_MAX, Answer, DELIVERY_TIMEOUT, Delivery, Failure, FailureClass, Outcome, Sink,
};
use crate::target::EmailTarget;

/// One command and its answer; the whole has [`DELIVERY_TIMEOUT`].
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);
/// The reply code of wrong credentials (RFC 4954 §6).
const WRONG_CREDENTIALS: u16 = 535;

/// The operator's mail server.
#[derive(Clone)]
pub struct MailSettings {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What protects the connection.
    pub security: MailSecurity,
    /// The user, if it asks for one.
    pub user: Option<String>,
    /// The password of that.
    pub password: Option<Zeroizing<String>>,
    /// Who mails are from, e.g. `simgate <alerts@example.com>`.
    pub from: String,
    /// The name that the gateway gives itself (RFC 5321 §4.1.1.1); without it that of the machine.
    pub hello_name: Option<String>,
}

/// What protects a connection to the mail server. Never downgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS after a plain beginning (RFC 3207), usually port 587.
    StartTls,
    /// TLS from the beginning (RFC 8314), usually port 465.
    Tls,
    /// Nothing: for a server on the same machine.
    None,
}

/// Why the mail server cannot be used as it is configured. The operator is at fault.
#[derive(Debug, Error)]
pub enum MailerError {
    /// The sender.
    #[error("mail.from {found:?} is no e-mail address: {reason}")]
    From {
        /// What was found.
        found: String,
        /// Why it is none.
        reason: String,
    },
    /// The TLS of it.
    #[error("the tls of the mail server cannot be set up: {0}")]
    Tls(#[from] SmtpError),
    /// Half of the credentials.
    #[error("mail.user and mail.password go together")]
    HalfCredentials,
}

/// The way to the operator's mail server, shared by all integrations by e-mail. Cheap to clone.
#[derive(Clone)]
pub struct Mailer(Arc<Inner>);

struct Inner {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// Mails to recipients. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EmailSink {
    mailer: Mailer,
    to: Arc<[Mailbox]>,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mailer").finish_non_exhaustive()
    }
}

impl fmt::Debug for MailSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MailSettings").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Mailer {
    /// Connects at the first mail. `extra_roots_pem` are trusted beside the system's authorities.
    ///
    /// # Errors
    /// Where the settings are not valid.
    pub fn new(settings: MailSettings, extra_roots_pem: &[Vec<u8>]) -> Result<Self, MailerError> {
        let from = settings.from.parse().map_err(|error| MailerError::From {
            found: settings.from.clone(),
            reason: format!("{error}"),
        })?;
        let mut tls = TlsParameters::builder(settings.host.clone());
        for pem in extra_roots_pem {
            tls = tls.add_root_certificate(Certificate::from_pem(pem)?);
        }
        let tls = match settings.security {
            MailSecurity::StartTls => Tls::Required(tls.build()?),
            MailSecurity::Tls => Tls::Wrapper(tls.build()?),
            MailSecurity::None => Tls::None,
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.host);
        let mut builder = builder.port(settings.port).tls(tls).timeout(Some(COMMAND_TIMEOUT));
        match (settings.user, settings.password) {
            (Some(user), Some(password)) => {
                builder = builder.credentials(Credentials::new(user, password.to_string()));
            }
            (None, None) => {}
            _ => return Err(MailerError::HalfCredentials),
        }
        if let Some(name) = settings.hello_name {
            builder = builder.hello_name(ClientId::Domain(name));
        }
        Ok(Self(Arc::new(Inner { transport: builder.build(), from })))
    }
}

impl EmailSink {
    pub(crate) fn new(mailer: Option<&Mailer>, target: &EmailTarget) -> Result<Self, InvalidEmail> {
        let mailer = mailer.ok_or(InvalidEmail::NoServer)?.clone();
        Ok(Self { mailer, to: recipients(&target.recipients)?.into() })
    }

    fn message(&self, events: &[Delivery]) -> Result<Message, Failure> {
        let from = &self.mailer.0.from;
        let (subject, text) = words(events);
        let first = events.first().map(|event| event.id.to_string()).unwrap_or_default();
        let builder = Message::builder()
            .from(from.clone())
            .subject(subject)
            .message_id(Some(format!("<{first}@{}>", from.email.domain())))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN);
        let builder = self.to.iter().cloned().fold(builder, lettre::message::MessageBuilder::to);
        builder.body(text).map_err(|error| {
            Failure::new(FailureClass::Request, format!("no mail can be made: {error}"))
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
        let message = match self.message(&events) {
            Ok(message) => message,
            Err(reason) => return Outcome::Rejected { reason },
        };
        match timeout(DELIVERY_TIMEOUT, self.mailer.0.transport.send(message)).await {
            Ok(Ok(_)) => Outcome::Delivered,
            Ok(Err(error)) => outcome_of(&error),
            Err(_) => {
                let text = "the mail server did not answer in time";
                Outcome::Retry { reason: Failure::new(FailureClass::Timeout, text), after: None }
            }
        }
    }
}

/// What a refusal of the mail server means (RFC 5321 §4.2.1): 4yz is to be tried again, 5yz is for
/// good, but for our own credentials, which the operator can mend.
fn outcome_of(error: &SmtpError) -> Outcome {
    let code = error.status().map(|code| code.to_string().parse().unwrap_or_default());
    let class = match code {
        Some(WRONG_CREDENTIALS) => FailureClass::Credentials,
        Some(_) if error.is_permanent() => FailureClass::Refused,
        Some(_) => FailureClass::Throttled,
        None if error.is_timeout() => FailureClass::Timeout,
        None if error.is_tls() => FailureClass::Tls,
        None if error.is_response() => FailureClass::Transport,
        None => FailureClass::Connect,
    };
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let text = match code {
        Some(code) => format!("the mail server answered {code}"),
        None => format!("{error}: {source}"),
    };
    let answer =
        code.map(|code| Answer { code, text: source.chars().take(ANSWER_CHARS_MAX).collect() });
    let reason = Failure { answer, ..Failure::new(class, text) };
    if class == FailureClass::Refused {
        Outcome::Rejected { reason }
    } else {
        Outcome::Retry { reason, after: None }
    }
}
