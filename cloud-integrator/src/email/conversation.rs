//! One mail is given to the server (RFC 5321 §3.3), and what its answers mean.
//!
//! A connection carries one mail and is closed after it, also when the attempt is cut off: on one
//! that was left in the middle of a mail, the late answer to it would be taken for that to the
//! next.

use std::error::Error as _;
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};
use tokio::time::timeout;

use super::mailer::Mailer;
use crate::sink::{ANSWER_CHARS_MAX, Answer, DELIVERY_TIMEOUT, Failure, FailureClass, Outcome};

/// How long the server is given to say goodbye: what it answered before has decided.
const GOODBYE: Duration = Duration::from_secs(1);
/// An attempt without the goodbye.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(DELIVERY_TIMEOUT.as_secs() - 1);
/// Replies about our own credentials (RFC 4954 §6): authentication is required, too weak, wrong,
/// not encrypted.
const CREDENTIALS: [u16; 4] = [530, 534, 535, 538];
/// The reply to a mail that is too large (RFC 1870 §6).
const TOO_LARGE: u16 = 552;

/// A mail, and whom it is for.
pub(super) struct Letter {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
    /// Whether it is sent only if all recipients are taken.
    pub(super) all_or_none: bool,
}

/// Why a mail was not taken.
enum Refusal {
    /// Neither recipient nor content was heard of: the server, our name at it, the sender.
    Server(SmtpError),
    /// The recipients or the content.
    Mail(SmtpError),
    /// Addresses beyond ASCII, which the server does not take (RFC 6531 §3.2).
    Addresses,
}

/// Gives a mail to the server and says what became of it.
pub(super) async fn deliver(mailer: &Mailer, letter: &Letter) -> Outcome {
    let mut connection = None;
    let attempt = async {
        let connection = connection.insert(mailer.connect().await.map_err(Refusal::Server)?);
        submit(connection, letter).await
    };
    let outcome = match timeout(ATTEMPT_TIMEOUT, attempt).await {
        Ok(Ok(())) => Outcome::Delivered,
        Ok(Err(refusal)) => outcome_of(&refusal),
        Err(_) => {
            let text = "the mail server did not answer in time";
            let reason = Failure::new(FailureClass::Timeout, text);
            return Outcome::Retry { reason, after: None };
        }
    };
    if let Some(mut connection) = connection {
        // It has decided; whether it says goodbye changes nothing.
        let _ = timeout(GOODBYE, connection.quit()).await;
    }
    outcome
}

async fn submit(connection: &mut AsyncSmtpConnection, letter: &Letter) -> Result<(), Refusal> {
    let Letter { envelope, bytes, all_or_none } = letter;
    let parameters = parameters(connection, letter)?;
    let sender = Mail::new(envelope.from().cloned(), parameters);
    connection.command(sender).await.map_err(Refusal::Server)?;
    let mut refused = Vec::new();
    for address in envelope.to() {
        match connection.command(Rcpt::new(address.clone(), Vec::new())).await {
            Ok(_) => {}
            // One that is gone must not keep the alert from the others.
            Err(error) if error.is_permanent() && !is_ours(&error) => refused.push(error),
            // Nobody gets it twice because of one who is put off.
            Err(error) => return Err(Refusal::Mail(error)),
        }
    }
    let (recipients, count) = (envelope.to().len(), refused.len());
    if let Some(error) = refused.pop() {
        if *all_or_none || count == recipients {
            return Err(Refusal::Mail(error));
        }
        let code = code_of(&error);
        tracing::warn!(recipients, refused = count, code, "recipients of a mail are refused");
    }
    connection.command(Data).await.map_err(Refusal::Mail)?;
    connection.message(bytes).await.map_err(Refusal::Mail)?;
    Ok(())
}

/// What the server must be told of a mail that is more than ASCII.
fn parameters(
    connection: &AsyncSmtpConnection,
    letter: &Letter,
) -> Result<Vec<MailParameter>, Refusal> {
    let mut addresses = letter.envelope.to().iter().chain(letter.envelope.from());
    if addresses.all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
        return Ok(Vec::new());
    }
    if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
        return Err(Refusal::Addresses);
    }
    // Whoever takes the one takes the other (RFC 6531 §3.1).
    let eight_bit = MailParameter::Body(MailBodyParameter::EightBitMime);
    Ok(vec![MailParameter::SmtpUtfEight, eight_bit])
}

fn code_of(error: &SmtpError) -> Option<u16> {
    error.status().and_then(|code| code.to_string().parse().ok())
}

/// Whether it is about our own credentials, which the operator can mend.
fn is_ours(error: &SmtpError) -> bool {
    code_of(error).is_some_and(|code| CREDENTIALS.contains(&code))
}

/// What a refusal means (RFC 5321 §4.2.1): 4yz is to be tried again; 5yz is for good where it is
/// about this mail, and else to be mended by the operator.
fn outcome_of(refusal: &Refusal) -> Outcome {
    let (error, is_about_mail) = match refusal {
        Refusal::Server(error) => (error, false),
        Refusal::Mail(error) => (error, true),
        Refusal::Addresses => {
            let text = "the mail server takes no addresses beyond ASCII (SMTPUTF8)";
            let reason = Failure::new(FailureClass::Refused, text);
            return Outcome::Rejected { reason };
        }
    };
    let code = code_of(error);
    let class = match code {
        Some(code) if CREDENTIALS.contains(&code) => FailureClass::Credentials,
        Some(TOO_LARGE) if is_about_mail => FailureClass::TooLarge,
        Some(_) if error.is_permanent() && is_about_mail => FailureClass::Refused,
        Some(_) if error.is_permanent() => FailureClass::Status,
        Some(_) => FailureClass::Throttled,
        None => class_without_answer(error),
    };
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    let text = match code {
        Some(code) => format!("the mail server answered {code}"),
        None => error.to_string(),
    };
    let answer =
        code.map(|code| Answer { code, text: source.chars().take(ANSWER_CHARS_MAX).collect() });
    let reason = Failure { answer, ..Failure::new(class, text) };
    if matches!(class, FailureClass::Refused | FailureClass::TooLarge) {
        Outcome::Rejected { reason }
    } else {
        Outcome::Retry { reason, after: None }
    }
}

fn class_without_answer(error: &SmtpError) -> FailureClass {
    if error.is_timeout() {
        FailureClass::Timeout
    } else if error.is_tls() || speaks_of_tls(error) {
        FailureClass::Tls
    } else if error.is_client() || error.is_response() {
        FailureClass::Transport
    } else {
        FailureClass::Connect
    }
}

/// Whether TLS is at the bottom of it: the handshake's error comes as one of the connection.
fn speaks_of_tls(error: &SmtpError) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        let inside = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is::<rustls::Error>() || inside.is_some_and(|inside| inside.is::<rustls::Error>())
        {
            return true;
        }
        source = inner.source();
    }
    false
}
