//! E-mail as a sink: alerts that people read.
//!
//! The operator names one mail server; customers name recipients. An event is one mail, or the
//! events of a batch together are one. The id of a mail is made of the id of its first event, so a
//! mail that is sent again can be told.

mod message;
mod sink;
mod target;

pub(crate) use sink::EmailSink;
pub use sink::{MailSecurity, MailSettings, Mailer, MailerError};
pub use target::{InvalidEmail, RECIPIENTS_MAX};
