//! The TLS side of the server: rustls with aws-lc-rs, certificate and key from PEM files.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::server::TlsFiles;

/// Why a certificate and a key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or holds nothing of the kind.
    #[error("{path}: {source}, allowed: a PEM file with {allowed}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
        /// What it should hold.
        allowed: &'static str,
    },
    /// The two do not fit together, or are of a kind that is not supported.
    #[error("certificate {certificate} with key {key}: {source}")]
    Pair {
        /// The file of the certificate chain.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// Reads the files; offers TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let TlsFiles { certificate, key } = files;
    let bad_file = |path: &PathBuf, allowed| {
        let path = path.clone();
        move |source| TlsError::File { path, source, allowed }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(bad_file(certificate, "a certificate chain"))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(bad_file(key, "a private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|source| TlsError::Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            source,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_named_with_what_it_should_hold() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("certificate.pem");
        std::fs::write(&certificate, "nothing").unwrap();
        let files = TlsFiles { key: certificate.clone(), certificate };
        let error = acceptor(&files).err().unwrap().to_string();
        assert!(error.contains("certificate.pem"), "{error}");
        assert!(error.contains("a PEM file with a certificate chain"), "{error}");
    }
}
