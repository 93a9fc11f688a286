//! The mail server for alerts.

use std::num::NonZeroU32;
use std::path::PathBuf;

use cloud_integrator::{MAILS_PER_HOUR, MailSecurity, MailSettings};
use serde::Deserialize;

use super::network::secret;
use super::values::{ConfigError, Secret};

/// The mail server for alerts; without a host no mails are sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mail {
    /// Its name.
    pub(crate) host: Option<String>,
    /// Its port; without it that of the kind of security.
    pub(crate) port: Option<u16>,
    pub(crate) security: Security,
    /// Take `security = "none"` to a host that is not this machine.
    pub(crate) allow_plain: bool,
    /// The user, if it asks for one.
    pub(crate) user: Option<String>,
    /// The password of that.
    pub(crate) password: Option<Secret>,
    /// A file that holds it instead.
    pub(crate) password_file: Option<PathBuf>,
    /// Who mails are from.
    pub(crate) from: Option<String>,
    /// The name that the gateway gives itself; without it that of the machine.
    pub(crate) hello_name: Option<String>,
    /// Mails of one integration in an hour.
    pub(crate) per_hour: NonZeroU32,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            host: None,
            port: None,
            security: Security::default(),
            allow_plain: false,
            user: None,
            password: None,
            password_file: None,
            from: None,
            hello_name: None,
            per_hour: MAILS_PER_HOUR,
        }
    }
}

/// What protects the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Security {
    #[default]
    StartTls,
    Tls,
    None,
}

impl Mail {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Some(host) = &self.host else { return Ok(()) };
        if self.from.is_none() {
            let text = "mail.host is set without mail.from: mails need a sender";
            return Err(ConfigError::Value(text.to_owned()));
        }
        let is_here =
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if self.security == Security::None && !is_here && !self.allow_plain {
            return Err(ConfigError::Value(format!(
                "mail.security is none and {host} is not this machine: anybody on the way could \
                 read the mails; set allow_plain = true where that is meant"
            )));
        }
        Ok(())
    }

    /// As the integrations take it.
    pub(crate) fn settings(&self) -> Result<Option<MailSettings>, ConfigError> {
        let Some((host, from)) = self.host.clone().zip(self.from.clone()) else {
            return Ok(None);
        };
        let (security, port) = match self.security {
            Security::StartTls => (MailSecurity::StartTls, 587),
            Security::Tls => (MailSecurity::Tls, 465),
            Security::None => (MailSecurity::None, 25),
        };
        let password = match &self.user {
            None => None,
            Some(_) => {
                let places = (self.password.as_ref(), self.password_file.as_ref());
                Some(secret("mail.user", places)?.0)
            }
        };
        Ok(Some(MailSettings {
            host,
            port: self.port.unwrap_or(port),
            security,
            user: self.user.clone(),
            password,
            from,
            hello_name: self.hello_name.clone(),
        }))
    }
}
