//! What a receiver shows of itself with TLS: a chain of certificates and the key to it.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// The names that a certificate made here is good for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const SERVER: &str = "simulated receiver";
const AUTHORITY: &str = "authority of simulated receivers";

/// How a receiver proves who it is, and speaks HTTP/2 or HTTP/1.1 as the client would rather.
#[derive(Clone)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The text has no certificate or no key.
    #[error("no {what} in the PEM text: {source}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// Certificate and key cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("no certificate can be made: {0}")]
    Making(#[from] rcgen::Error),
}

impl ServerIdentity {
    /// From a chain of certificates, the server's own first, and its private key, both in PEM.
    ///
    /// # Errors
    /// Where one is missing, or the key is not that of the certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let pem_error = |what| move |source| IdentityError::Pem { what, source };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .and_then(
                |chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) },
            )
            .map_err(pem_error("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem_error("private key"))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// The same, which speaks HTTP/1.1 only, as many receivers do.
    #[must_use]
    pub fn without_http2(self) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        config.alpn_protocols.retain(|protocol| protocol != b"h2");
        Self { config: Arc::new(config) }
    }

    /// A new one for `localhost`, 127.0.0.1 and ::1, and the certificate in PEM of the authority
    /// that signed it: who trusts that one trusts the receiver.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn self_made() -> Result<(Self, String), IdentityError> {
        let mut authority = named(AUTHORITY, &[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = named(SERVER, &NAMES)?.signed_by(&key, &authority)?;
        let identity =
            Self::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
        Ok((identity, authority.pem()))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// A certificate to be for a subject of this name, which must not be that of the issuer: OpenSSL
/// takes a certificate with the same name twice for one that signed itself, and refuses it.
fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both certificates had the name that the library gives, "rcgen self signed cert". Rustls did
    /// not mind, but whoever uses OpenSSL (curl, Node.js, syslog-ng) took the receiver's own for
    /// self-signed and made no connection.
    #[test]
    fn authority_and_server_have_names_of_their_own() {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(named(AUTHORITY, &[]).unwrap(), key).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = named(SERVER, &NAMES).unwrap().signed_by(&key, &issuer).unwrap();
        let has =
            |name: &str| certificate.der().windows(name.len()).any(|at| at == name.as_bytes());
        assert!(has(AUTHORITY) && has(SERVER) && !has("rcgen"));
    }

    #[test]
    fn certificate_and_key_must_be_there_and_belong_together() {
        let made = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = KeyPair::generate().unwrap().serialize_pem();
        let outcome = |chain: &str, key: &str| {
            let identity = ServerIdentity::from_pem(chain.as_bytes(), key.as_bytes());
            identity.map(|identity| format!("{identity:?}")).map_err(|error| error.to_string())
        };
        assert_eq!(outcome(&chain, &key).unwrap(), "ServerIdentity { .. }");
        for (chain, key, expected) in [
            ("", &*key, "no certificate"),
            (&chain, "", "no private key"),
            (&chain, &other, "cannot be used"),
        ] {
            let error = outcome(chain, key).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
