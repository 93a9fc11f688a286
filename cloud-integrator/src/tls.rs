//! TLS to customers' endpoints: which authorities are believed, and which certificate is shown.
//!
//! One configuration for every protocol, so that a webhook and a broker at the same host are
//! judged the same: TLS 1.2 and 1.3 by aws-lc-rs, and the system's authorities as the operating
//! system keeps them, together with the gateway's extra ones. A customer can name authorities of
//! its own, which are believed instead, and a certificate for the gateway to show. What is wrong
//! with them is said when they are configured, not when the first event is lost for it.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, InconsistentKeys, RootCertStore};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

use crate::target::ClientTls;

/// Certificates in one text of PEM: a chain has a handful, a company's list of authorities some
/// ten. An estimate.
const CERTIFICATES_MAX: usize = 100;

/// Why no TLS can be spoken. The customer is at fault, but for [`TlsError::System`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// Not PEM at all, or a broken piece of it.
    #[error("{what} cannot be read as pem: {text}")]
    Pem {
        /// Which field.
        what: &'static str,
        /// What is wrong.
        text: &'static str,
    },
    /// PEM without a certificate in it.
    #[error("{0} holds no certificate, expected: -----BEGIN CERTIFICATE-----")]
    NoCertificate(&'static str),
    /// More certificates than allowed.
    #[error("{what} holds more than {CERTIFICATES_MAX} certificates")]
    TooMany {
        /// Which field.
        what: &'static str,
    },
    /// A certificate that nobody can be checked against.
    #[error("certificate {number} of the authorities cannot be used: {text}")]
    Authority {
        /// Its place, from 1.
        number: usize,
        /// What is wrong.
        text: String,
    },
    /// PEM without a key in it.
    #[error("the client key holds no private key, expected: -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// A key that only a password opens.
    #[error("the client key is encrypted, expected: a private key without a password")]
    EncryptedKey,
    /// A key of an unknown kind.
    #[error("the client key cannot be used: {0}")]
    Key(String),
    /// A certificate without its key.
    #[error("a client certificate is given without its key")]
    KeyMissing,
    /// A key without its certificate.
    #[error("a client key is given without its certificate")]
    CertificateMissing,
    /// The key of another certificate.
    #[error("the client key does not belong to the client certificate")]
    KeyMismatch,
    /// A client certificate that cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(String),
    /// A client certificate whose time is over.
    #[error("the client certificate has expired on {0}")]
    Expired(String),
    /// A client certificate whose time has not come.
    #[error("the client certificate is not valid before {0}")]
    NotYetValid(String),
    /// The system has no authorities. The gateway is at fault.
    #[error("tls cannot be set up: {0}")]
    System(String),
}

/// Reads the gateway's extra authorities, in PEM.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let authorities = certificates("the list of authorities", pem)?;
    store(&authorities)?;
    Ok(authorities)
}

/// What TLS to one endpoint needs: `extra_roots` are believed beside the system's authorities,
/// unless the customer names its own.
pub(crate) fn client_config(
    tls: &ClientTls,
    extra_roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(system)?;
    let builder = match &tls.roots_pem {
        Some(pem) => builder.with_root_certificates(store(&authorities(pem.as_bytes())?)?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(system_verifier(extra_roots, &provider)?),
    };
    let mut config = match identity(tls, &provider)? {
        Some(identity) => {
            let resolver = rustls::sign::SingleCertAndKey::from(identity);
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Checks that the certificate to show is valid today: where a customer chooses it, and there
/// alone. A sink that runs already meets an old one in the handshake, attempt by attempt, so that
/// it goes on by itself when the clock was wrong.
///
/// Verifying it as a server would, with itself as the one authority, is the way to its dates that
/// rustls offers; that it is no authority of its own is as it should be.
pub(crate) fn check_dates(tls: &ClientTls) -> Result<(), TlsError> {
    let Some(pem) = &tls.certificate_pem else { return Ok(()) };
    let chain = certificates("the client certificate", pem.as_bytes())?;
    let Some(certificate) = chain.first() else { return Ok(()) };
    let mut itself = RootCertStore::empty();
    let unusable = |error: &dyn std::fmt::Display| TlsError::Certificate(error.to_string());
    itself.add(certificate.clone()).map_err(|error| unusable(&error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(itself), provider)
        .build()
        .map_err(|error| unusable(&error))?;
    let verdict = verifier.verify_client_cert(certificate, &[], UnixTime::now());
    match verdict {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Err(TlsError::Expired(date(not_after))),
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => Err(TlsError::NotYetValid(date(not_before))),
        _ => Ok(()),
    }
}

/// A moment of a certificate, as a person reads it.
pub(crate) fn date(moment: UnixTime) -> String {
    let secs = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(secs).map_or_else(|_| secs.to_string(), |at| at.to_string())
}

/// The same that reqwest takes by itself: despite its name the rustls builder calls it dangerous
/// because it is not rustls' own.
fn system_verifier(
    extra_roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let verifier =
        Verifier::new_with_extra_roots(extra_roots.iter().cloned(), Arc::clone(provider));
    Ok(Arc::new(verifier.map_err(system)?))
}

/// The certificate to show, with its key.
fn identity(
    tls: &ClientTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<CertifiedKey>, TlsError> {
    let (chain, key) = match (&tls.certificate_pem, &tls.key_pem) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(TlsError::KeyMissing),
        (None, Some(_)) => return Err(TlsError::CertificateMissing),
        (Some(chain), Some(key)) => (chain, key),
    };
    let chain = certificates("the client certificate", chain.as_bytes())?;
    let key = private_key(key)?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| TlsError::Key(error.to_string()))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Some(identity))
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch),
        Err(error) => Err(TlsError::Certificate(error.to_string())),
    }
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    // PKCS #8 has a name of its own for it, older forms a header.
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::NoKey,
        error => TlsError::Pem { what: "the client key", text: fault_of(&error) },
    })
}

/// What is wrong with PEM, in words of our own: the library's show the line, which may be the key.
fn fault_of(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => {
            "its -----END line is missing, expected: a line break before it"
        }
        PemError::IllegalSectionStart { .. } => {
            "its -----BEGIN line does not end with -----, expected: a line break after it, and \
             not the two characters \\n"
        }
        PemError::Base64Decode(_) => "between its -----BEGIN and -----END line is no base64",
        PemError::NoItemsFound => "nothing is in it",
        PemError::SectionTooLarge => "it is too long",
        _ => "it is broken",
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| TlsError::Pem { what, text: fault_of(&error) })?;
        if found.len() == CERTIFICATES_MAX {
            return Err(TlsError::TooMany { what });
        }
        found.push(certificate);
    }
    if found.is_empty() { Err(TlsError::NoCertificate(what)) } else { Ok(found) }
}

fn store(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, authority) in authorities.iter().enumerate() {
        store
            .add(authority.clone())
            .map_err(|error| TlsError::Authority { number: index + 1, text: error.to_string() })?;
    }
    Ok(store)
}

fn system(error: rustls::Error) -> TlsError {
    TlsError::System(error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair, date_time_ymd};

    use super::*;

    struct Signed {
        certificate: String,
        key: String,
    }

    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        (certificate, Issuer::new(params, key))
    }

    fn client(valid_until: i32) -> Signed {
        client_between(2020, valid_until)
    }

    fn client_between(from: i32, until: i32) -> Signed {
        let mut params = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority().1).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    fn tls(certificate: Option<&str>, key: Option<&str>, roots: Option<&str>) -> ClientTls {
        ClientTls {
            roots_pem: roots.map(str::to_owned),
            certificate_pem: certificate.map(str::to_owned),
            key_pem: key.map(str::to_owned),
        }
    }

    fn refused(tls: &ClientTls) -> TlsError {
        client_config(tls, &[], &[]).unwrap_err()
    }

    #[test]
    fn what_is_right_is_taken() {
        let (root, _) = authority();
        let good = client(9999);
        let tls = tls(Some(&good.certificate), Some(&good.key), Some(&root));
        let config = client_config(&tls, &[], &[b"h2", b"http/1.1"]).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        let extra = authorities(root.as_bytes()).unwrap();
        let plain = client_config(&ClientTls::default(), &extra, &[]).unwrap();
        assert!(!plain.client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn what_is_wrong_is_said_clearly() {
        let (good, other) = (client(9999), client(9999));
        assert_eq!(
            refused(&tls(Some(&good.certificate), Some(&other.key), None)),
            TlsError::KeyMismatch
        );
        assert_eq!(refused(&tls(Some(&good.certificate), None, None)), TlsError::KeyMissing);
        assert_eq!(refused(&tls(None, Some(&good.key), None)), TlsError::CertificateMissing);
        assert_eq!(
            refused(&tls(Some(&good.key), Some(&good.key), None)),
            TlsError::NoCertificate("the client certificate")
        );
        assert_eq!(
            refused(&tls(Some(&good.certificate), Some(&good.certificate), None)),
            TlsError::NoKey
        );
        let sealed =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
        assert_eq!(
            refused(&tls(Some(&good.certificate), Some(sealed), None)),
            TlsError::EncryptedKey
        );
        for roots in ["", "no pem", &good.key] {
            assert_eq!(
                refused(&tls(None, None, Some(roots))),
                TlsError::NoCertificate("the list of authorities")
            );
        }
    }

    /// The dates were checked for every sink, also for those that are made when the gateway starts.
    /// A certificate that had expired meanwhile, or a gateway that started with the clock of 1970,
    /// ended integrations that had run, and nothing tried them again.
    #[test]
    fn dates_are_a_matter_of_the_choice_alone() {
        let checked = |certificate: &Signed| {
            let tls = tls(Some(&certificate.certificate), Some(&certificate.key), None);
            assert!(client_config(&tls, &[], &[]).is_ok());
            check_dates(&tls).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&client(9999)), Ok(()));
        assert_eq!(
            checked(&client(2021)),
            Err("the client certificate has expired on 2021-01-01T00:00:00Z".to_owned())
        );
        assert_eq!(
            checked(&client_between(9000, 9999)),
            Err("the client certificate is not valid before 9000-01-01T00:00:00Z".to_owned())
        );
        assert_eq!(check_dates(&ClientTls::default()), Ok(()));
    }

    #[test]
    fn broken_certificates_are_refused_with_their_place() {
        let (root, _) = authority();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let both = format!("{root}{broken}");
        assert!(matches!(
            refused(&tls(None, None, Some(&both))),
            TlsError::Authority { number: 2, .. }
        ));
        let half = root.replace("-----END", "-----ND");
        assert!(matches!(refused(&tls(None, None, Some(&half))), TlsError::Pem { .. }));
        let key = client(9999).key;
        assert!(matches!(refused(&tls(Some(broken), Some(&key), None)), TlsError::Certificate(_)));
        let many = root.repeat(CERTIFICATES_MAX + 1);
        assert!(matches!(refused(&tls(None, None, Some(&many))), TlsError::TooMany { .. }));
    }

    #[test]
    fn an_error_shows_nothing_of_the_key() {
        let good = client(9999);
        let secret = good.key.lines().nth(1).unwrap().to_owned();
        let torn = good.key.replace("-----END", "!END");
        let error = refused(&tls(Some(&good.certificate), Some(&torn), None));
        assert!(!format!("{error} {error:?}").contains(&secret[..16]), "{error:?}");
    }

    /// A key that was pasted without its line breaks, or with `\n` spelled out, came back whole in
    /// the error, as the bytes of the one line that it was: to the API's client and to the log.
    #[test]
    fn a_key_on_one_line_is_not_shown() {
        let good = client(9999);
        for broken in [good.key.replace('\n', ""), good.key.replace('\n', "\\n")] {
            let error = refused(&tls(Some(&good.certificate), Some(&broken), None));
            assert!(matches!(error, TlsError::Pem { what: "the client key", .. }), "{error:?}");
            let shown = format!("{error} {error:?}");
            let secret = &good.key.lines().nth(1).unwrap()[..16];
            assert!(!shown.contains(secret), "{shown}");
            // As the list of bytes that a line is to the library.
            let bytes = format!("{:?}", &secret.as_bytes()[..4]);
            assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
            assert!(shown.contains("line break"), "{shown}");
            let both = format!("{}{broken}", good.certificate);
            let error = refused(&tls(Some(&both), Some(&good.key), None)).to_string();
            assert!(!error.contains(secret) && error.contains("line break"), "{error}");
        }
    }
}
