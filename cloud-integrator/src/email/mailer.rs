//! The operator's mail server, and how it is reached.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use thiserror::Error;
use zeroize::Zeroizing;

/// Until there is a connection; the whole attempt has longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
    server: (String, u16),
    security: Security,
    credentials: Option<Credentials>,
    from: Mailbox,
    hello: ClientId,
    mails_per_hour: NonZeroU32,
}

/// [`MailSecurity`], with what it needs.
enum Security {
    StartTls(TlsParameters),
    Tls(TlsParameters),
    None,
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
    /// Connects for each mail, and first at the first one. `extra_roots_pem` are trusted beside the
    /// system's authorities; an integration sends `mails_per_hour` at most.
    ///
    /// # Errors
    /// Where the settings are not valid.
    pub fn new(
        settings: MailSettings,
        extra_roots_pem: &[Vec<u8>],
        mails_per_hour: NonZeroU32,
    ) -> Result<Self, MailerError> {
        let from = settings.from.parse().map_err(|error| MailerError::From {
            found: settings.from.clone(),
            reason: format!("{error}"),
        })?;
        let tls = || -> Result<TlsParameters, SmtpError> {
            let mut tls = TlsParameters::builder(settings.host.clone());
            for pem in extra_roots_pem {
                tls = tls.add_root_certificate(Certificate::from_pem(pem)?);
            }
            tls.build()
        };
        let security = match settings.security {
            MailSecurity::StartTls => Security::StartTls(tls()?),
            MailSecurity::Tls => Security::Tls(tls()?),
            MailSecurity::None => Security::None,
        };
        let credentials = match (settings.user, settings.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user, password.to_string())),
            (None, None) => None,
            _ => return Err(MailerError::HalfCredentials),
        };
        Ok(Self(Arc::new(Inner {
            server: (settings.host, settings.port),
            security,
            credentials,
            from,
            hello: settings.hello_name.map_or_else(ClientId::default, ClientId::Domain),
            mails_per_hour,
        })))
    }

    /// Who mails are from.
    pub(super) fn from(&self) -> &Mailbox {
        &self.0.from
    }

    /// Mails of one integration in an hour at most.
    pub(super) fn mails_per_hour(&self) -> NonZeroU32 {
        self.0.mails_per_hour
    }

    /// A new connection, ready for a mail.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let Inner { server: (host, port), security, credentials, hello, .. } = &*self.0;
        let tls = match security {
            Security::Tls(tls) => Some(tls.clone()),
            Security::StartTls(_) | Security::None => None,
        };
        let server = (host.as_str(), *port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), hello, tls, None);
        let mut connection = connecting.await?;
        if let Security::StartTls(tls) = security {
            connection.starttls(tls.clone(), hello).await?;
        }
        if let Some(credentials) = credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}
