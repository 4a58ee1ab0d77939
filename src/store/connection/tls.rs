//! The files of TLS: which ones the flags name, and their contents.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bounded_file;
use crate::store::{Access, StoreError};
use elect_core::limits::PEM_BYTES_MAX;

/// The authority that a server's certificate has to come from, and the certificate of elect itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// `None`: the authorities that this system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
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
        Ok(TlsSettings { ca: ca.map(absolute), identity })
    }

    /// The settings that the flags name.
    ///
    /// # Errors
    ///
    /// As [`TlsSettings::new`].
    pub fn from_flags(access: &Access) -> Result<TlsSettings, StoreError> {
        TlsSettings::new(access.tls_ca.clone(), access.tls_cert.clone(), access.tls_key.clone())
    }

    /// Whether any file is named.
    pub fn is_given(&self) -> bool {
        *self != TlsSettings::default()
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
