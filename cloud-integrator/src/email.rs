//! E-mail as a sink: alerts that people read.
//!
//! The operator names one mail server; customers name recipients. An event is one mail, or the
//! events of a batch together are one. The id of a mail is made of the id of its first event, so a
//! mail that is sent again can be told.
//!
//! What it is not: a mail server. Nothing is queued here, and nothing is known of what becomes of
//! a mail after the server has taken it (RFC 5321 §4.2.5).

mod conversation;
mod mailer;
mod message;
mod quota;
mod sink;
mod target;

pub use mailer::{MailSecurity, MailSettings, Mailer, MailerError};
pub use quota::MAILS_PER_HOUR;
pub use sink::EmailSink;
pub use target::{InvalidEmail, RECIPIENTS_MAX};
