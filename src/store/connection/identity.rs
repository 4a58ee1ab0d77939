//! The certificate of elect itself and its key, checked before they are shown.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, InconsistentKeys};

use super::tls::{TlsSettings, read_pem};
use super::verification::{certificates, check_flag, unusable};
use crate::store::StoreError;

/// A certificate with its chain, and the key.
pub type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads both, and checks that they belong together: a server says hardly anything about a pair that does not.
///
/// # Errors
///
/// A file cannot be read or holds something else, or the two belong to different pairs.
pub fn identity(tls: &TlsSettings) -> Result<Option<OwnCertificate>, StoreError> {
    let Some((cert, key)) = &tls.identity else { return Ok(None) };
    let chain = certificates(cert).map_err(|error| hinted(error, cert, "--tls-cert"))?;
    let private = PrivateKeyDer::from_pem_slice(&read_pem(key).map_err(|error| check_flag(error, "--tls-key"))?)
        .map_err(|_| hinted(unusable(key, "no private key in PEM without a passphrase"), key, "--tls-key"))?;
    match CertifiedKey::from_der(chain.clone(), private.clone_key(), &ring::default_provider()) {
        Ok(_) => Ok(Some((chain, private))),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(StoreError::Refused(format!(
            "{} is not the key of the certificate {}: give --tls-cert and --tls-key of one pair",
            key.display(),
            cert.display()
        ))),
        Err(error) => {
            Err(unusable(key, &format!("elect cannot use this key ({error}): it takes P-256, P-384, Ed25519 and RSA")))
        }
    }
}

/// The settings of a connection by rustls: the server is verified by `verifier`, and elect shows its own certificate if it has one.
///
/// # Errors
///
/// The certificate or its key cannot be used.
pub fn client_config(tls: &TlsSettings, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, StoreError> {
    // The first one stays: other clients ask for the same.
    let _ = ring::default_provider().install_default();
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    match identity(tls)? {
        None => Ok(config.with_no_client_auth()),
        Some((chain, key)) => config
            .with_client_auth_cert(chain, key)
            .map_err(|error| StoreError::Refused(format!("--tls-cert and --tls-key: {error}"))),
    }
}

/// The error, with a hint where the file holds what belongs in the other flag.
fn hinted(error: StoreError, path: &Path, flag: &str) -> StoreError {
    let text = read_pem(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let (other, is_other) = match flag {
        "--tls-cert" => ("--tls-key", text.contains("PRIVATE KEY-----")),
        _ => ("--tls-cert", text.contains("BEGIN CERTIFICATE-----")),
    };
    match error {
        StoreError::Refused(message) if is_other => {
            StoreError::Refused(format!("{message}; {flag} and {other} may be swapped"))
        }
        other @ (StoreError::Refused(_)
        | StoreError::Unavailable(_)
        | StoreError::Connecting(_)
        | StoreError::Obstacle(_)
        | StoreError::Misused(_)) => check_flag(other, flag),
    }
}
