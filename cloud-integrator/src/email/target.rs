//! Who gets mails, as the customer wrote it.

use lettre::message::Mailbox;
use thiserror::Error;

/// Recipients of an integration at most.
pub const RECIPIENTS_MAX: usize = 10;
/// Bytes of a recipient at most, with a name.
const RECIPIENT_BYTES_MAX: usize = 512;

/// Why an integration by e-mail is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidEmail {
    /// The gateway has no mail server.
    #[error("the gateway sends no mail: its operator has to configure the section [mail]")]
    NoServer,
    /// Nobody, or too many.
    #[error("{0} recipients, allowed: 1 to {RECIPIENTS_MAX}")]
    Recipients(usize),
    /// Longer than an address may be.
    #[error("a recipient of {0} bytes, allowed: {RECIPIENT_BYTES_MAX}")]
    TooLong(usize),
    /// Not an address.
    #[error("{found:?} is no e-mail address: {reason}")]
    Address {
        /// What was found.
        found: String,
        /// Why it is none.
        reason: String,
    },
    /// A mail for every message of every device.
    #[error(
        "an integration of type EMAIL takes no TELEMETRY_DATA: a mail for each message of each \
         device would be a flood"
    )]
    Telemetry,
}

/// Reads recipients; `Name <name@example.com>` is one, too.
pub(crate) fn recipients(texts: &[String]) -> Result<Vec<Mailbox>, InvalidEmail> {
    if texts.is_empty() || texts.len() > RECIPIENTS_MAX {
        return Err(InvalidEmail::Recipients(texts.len()));
    }
    let read = |text: &String| {
        // The longest path of SMTP (RFC 5321 §4.5.3.1.3), and a name as long again.
        if text.len() > RECIPIENT_BYTES_MAX {
            return Err(InvalidEmail::TooLong(text.len()));
        }
        text.parse::<Mailbox>().map_err(|error| InvalidEmail::Address {
            found: text.chars().take(100).collect(),
            reason: error.to_string(),
        })
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_addresses_and_few() {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            recipients(&texts).map(|found| found.len())
        };
        assert_eq!(read(&["a@example.com", "Anyone <b@example.com>"]), Ok(2));
        assert_eq!(read(&[]), Err(InvalidEmail::Recipients(0)));
        assert_eq!(read(&["a@example.com"; 11]), Err(InvalidEmail::Recipients(11)));
        let long = format!("{} <a@example.com>", "n".repeat(500));
        assert_eq!(read(&[&long]), Err(InvalidEmail::TooLong(516)));
        for text in ["", "a", "a@", "a@example.com\r\nBcc: b@example.com", "a@b@c"] {
            assert!(matches!(read(&[text]), Err(InvalidEmail::Address { .. })), "{text:?}");
        }
    }
}
