//! The files of TLS: which ones the flags name, and their contents.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::tls_errors::TlsSide;
use crate::bounded_file;
use crate::store::StoreError;
use elect_core::limits::PEM_BYTES_MAX;

/// The authority that a server's certificate has to come from, and the certificate of elect itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// `None`: the authorities that this system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Every certificate that the server shows is accepted.
    #[serde(default)]
    pub skip_verify: bool,
}

impl TlsSettings {
    /// Makes the paths absolute, since a claim is given back in another working directory.
    ///
    /// # Errors
    ///
    /// A certificate needs its key, and a key its certificate.
    pub fn new(ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<TlsSettings, StoreError> {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((absolute(cert), absolute(key))),
            (None, None) => None,
            (Some(_), None) => {
                return Err(StoreError::Misused("--tls-cert needs its key: give --tls-key too".to_owned()));
            }
            (None, Some(_)) => {
                return Err(StoreError::Misused("--tls-key needs its certificate: give --tls-cert too".to_owned()));
            }
        };
        Ok(TlsSettings { ca: ca.map(absolute), identity, skip_verify: false })
    }

    /// The same without verification, if a setting says so. `skip` and `ca` name the settings.
    ///
    /// # Errors
    ///
    /// An authority has no effect where nothing is verified: one of the two settings is a mistake.
    pub fn skipping_verification(self, skip: Option<&str>, ca: &str) -> Result<TlsSettings, StoreError> {
        match skip {
            None => Ok(self),
            Some(skip) if self.ca.is_some() => Err(StoreError::Misused(format!(
                "{skip} accepts any certificate, and {ca} names those to accept: leave one of the two out"
            ))),
            Some(_) => Ok(TlsSettings { skip_verify: true, ..self }),
        }
    }

    /// What a fault of TLS depends on. `plain_form` is the URL of a server without TLS.
    pub fn side<'a>(&self, plain_form: &'a str) -> TlsSide<'a> {
        TlsSide { has_identity: self.identity.is_some(), has_ca: self.ca.is_some(), accepts_named_ca: true, plain_form }
    }

    /// Whether any file is named.
    pub fn is_given(&self) -> bool {
        *self != TlsSettings::default()
    }
}

/// Warns, at each start of a candidate, that any server could pretend to be this one. Once: a status page opens the same store again.
pub fn warn_unverified(store: &str, tls: Option<&TlsSettings>) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if tls.is_some_and(|tls| tls.skip_verify) && !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            "the certificate of {store} is not verified, so that any server can pretend to be this one: name its authority, or \
               the certificate itself, with --tls-ca"
        );
    }
}

/// Reads a certificate or a key, again for each connection, since certificates are replaced while elect runs.
///
/// # Errors
///
/// For want of descriptors or memory the file may be read later; otherwise a person has to do something about it.
pub fn read_pem(path: &Path) -> Result<Vec<u8>, StoreError> {
    bounded_file::read(path, PEM_BYTES_MAX).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    let message = format!("{} cannot be read: {error}", path.display());
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => StoreError::Unavailable(message),
        Some(_) | None => StoreError::Refused(message),
    }
}
