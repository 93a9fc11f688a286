//! From a client's error to who has to act. The error's own types decide, not its words.

use std::error::Error;
use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};

use crate::network::ResolveError;
use crate::sink::{Failure, FailureClass};
use crate::tls;

/// What failed. The URL is left out: it may carry secrets.
pub(super) fn describe(error: reqwest::Error) -> Failure {
    explain(&error.without_url())
}

/// What failed, for an error that names no URL any more.
pub(crate) fn explain(error: &reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::new(FailureClass::Request, innermost(error));
    }
    if let Some(failure) = known_cause(error) {
        return failure;
    }
    if error.is_timeout() {
        return if error.is_connect() {
            let text = "no connection within 5 s, tls included";
            Failure::new(FailureClass::Connect, text)
        } else {
            Failure::new(FailureClass::Timeout, "no complete answer within 20 s")
        };
    }
    let class = if error.is_connect() { FailureClass::Connect } else { FailureClass::Transport };
    Failure::new(class, innermost(error))
}

/// The first cause, from the outside in, that says by its type what it is.
fn known_cause(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<ResolveError>() {
            let class = match error {
                ResolveError::Blocked(_) => FailureClass::Blocked,
                _ => FailureClass::Dns,
            };
            return Some(Failure::new(class, error.to_string()));
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(of_tls(error));
        }
        next = inner(cause);
    }
    None
}

/// An I/O error that wraps another names the other's cause as its own, and leaves the other out.
fn inner<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

/// The innermost cause says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = inner(last) {
        last = cause;
    }
    last.to_string()
}

fn of_tls(error: &rustls::Error) -> Failure {
    let (class, text) = match error {
        rustls::Error::InvalidCertificate(error) => (FailureClass::Tls, of_certificate(error)),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::PeerIncompatible(why) => {
            (FailureClass::Tls, format!("the endpoint's tls is too old or too odd: {why:?}"))
        }
        rustls::Error::InvalidMessage(_) => {
            (FailureClass::Tls, "the endpoint does not speak tls".to_owned())
        }
        other => (FailureClass::Tls, other.to_string()),
    };
    Failure::new(class, text)
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate has expired on {}", tls::date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", tls::date(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "the certificate is self-signed or of an unknown authority".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<String> =
                presented.iter().take(NAMES_SHOWN).map(|name| plain_name(name)).collect();
            let presented =
                if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("the certificate is for {presented}, not {}", expected_name(expected))
        }
        other => format!("the certificate is not acceptable: {other}"),
    }
}

/// Names of a certificate in a text: some have hundreds.
const NAMES_SHOWN: usize = 3;

fn expected_name(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

/// `DnsName("other.example")` and the like are how certificates' names come here.
fn plain_name(presented: &str) -> String {
    presented.split('"').nth(1).unwrap_or(presented).to_owned()
}

/// What an endpoint says before it hangs up (RFC 8446 §6.2).
fn of_alert(alert: AlertDescription) -> (FailureClass, String) {
    match alert {
        AlertDescription::CertificateRequired => {
            (FailureClass::Credentials, "the endpoint asks for a client certificate".to_owned())
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => (
            FailureClass::Credentials,
            format!("the endpoint does not accept the client certificate: {alert:?}"),
        ),
        AlertDescription::ProtocolVersion => {
            (FailureClass::Tls, "the endpoint speaks neither tls 1.2 nor 1.3".to_owned())
        }
        other => (FailureClass::Tls, format!("the endpoint ended the handshake: {other:?}")),
    }
}
