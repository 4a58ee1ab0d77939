//! How the certificate of a server is verified: against the authorities of `--tls-ca` or of this system, or not at all.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::tls::{TlsSettings, read_pem};
use crate::store::StoreError;

/// The verifier that the settings ask for.
///
/// # Errors
///
/// A file cannot be read or holds no certificate, or this system has no authorities.
pub fn verifier(tls: &TlsSettings) -> Result<Arc<dyn ServerCertVerifier>, StoreError> {
    let provider = Arc::new(ring::default_provider());
    if tls.skip_verify {
        return Ok(Arc::new(AcceptAnyServerCert { provider }));
    }
    let (roots, given) = match &tls.ca {
        // Nothing of this system is read: a container may have no authorities at all.
        Some(ca) => given_roots(ca)?,
        None => (system_roots()?, Vec::new()),
    };
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| StoreError::Refused(format!("certificates cannot be verified: {error}")))?;
    Ok(Arc::new(GivenServerCert { given, chain }))
}

/// The certificates of a PEM file.
///
/// # Errors
///
/// It cannot be read, or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_pem(path)?).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(unusable(path, "no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----")),
    }
}

/// The authorities that `--tls-ca` names.
///
/// # Errors
///
/// The file cannot be read, or holds none.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    certificates(path).map_err(|error| check_flag(error, "--tls-ca"))
}

/// The error of a file, with the flag that names it.
pub fn check_flag(error: StoreError, flag: &str) -> StoreError {
    match error {
        StoreError::Refused(message) => StoreError::Refused(format!("{message}: check {flag}")),
        same @ (StoreError::Unavailable(_)
        | StoreError::Connecting(_)
        | StoreError::Obstacle(_)
        | StoreError::Misused(_)) => same,
    }
}

/// The error for a file whose content is of no use.
pub fn unusable(path: &Path, reason: &(impl std::fmt::Display + ?Sized)) -> StoreError {
    StoreError::Refused(format!("{}: {reason}", path.display()))
}

fn given_roots(ca: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), StoreError> {
    let given = authorities(ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|error| unusable(ca, &error))?;
    }
    Ok((roots, given))
}

fn system_roots() -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    let known = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(known.certs);
    if roots.is_empty() {
        let reason = known.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(StoreError::Refused(format!(
            "this system has no certificate authorities that could be trusted{reason}: name one with --tls-ca"
        )));
    }
    Ok(roots)
}

/// Accepts the certificates that were named, each as itself, and all that their authorities have issued.
///
/// A self-signed certificate is its own authority, which a chain must not end with: as the server's own it is compared
/// byte by byte instead. Its names and dates are of no consequence then, because no other certificate would be accepted.
#[derive(Debug)]
struct GivenServerCert {
    given: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for GivenServerCert {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.given.iter().any(|given| given.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    // The server has to hold the key of the certificate in any case.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// No verification: the connection is encrypted, and any certificate is accepted.
#[derive(Debug)]
struct AcceptAnyServerCert {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyServerCert {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // It is still checked that the server holds the key of the certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
