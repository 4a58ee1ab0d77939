//! The access settings of a store, from the flags: reads the password from its file or variable.

use std::env::VarError;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::StoreFlags;
use crate::exit::Exit;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password};
use elect_core::limits::CREDENTIAL_BYTES_MAX;

/// How long a store may take.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// For one attempt.
    pub request_timeout: Duration,
    /// For setting up a connection, over several attempts (T6).
    pub connect_timeout: Duration,
    /// Between two looks at an observed record.
    pub renew_interval: Duration,
    /// Whether flags set them.
    pub by_flags: bool,
}

/// A password that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("--password-file {}: {error}; {}", shown(path), advice(error))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// More than a password.
    #[error("{} has more than {CREDENTIAL_BYTES_MAX} bytes: it should hold the {} alone", .0, .1)]
    TooLong(String, &'static str),
    /// Credentials for a store without a server: its URL was probably forgotten, and every host would lead.
    #[error(
        "{setting} is for a store on a server, which {store} is not: name the server with --store, or leave {setting} out"
    )]
    NotNeeded {
        /// The flag or the variable.
        setting: &'static str,
        /// The store.
        store: String,
    },
    /// Bytes that are no text: no store takes such a password.
    #[error("{0} is not text: write it in UTF-8")]
    NotText(String),
    /// It is empty.
    #[error("--password-file {} is empty: it should hold the password alone", shown(path))]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

impl AccessError {
    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            AccessError::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::Refused
            }
            AccessError::Unreadable { .. }
            | AccessError::Empty { .. }
            | AccessError::NotNeeded { .. }
            | AccessError::NotText(..)
            | AccessError::TooLong(..) => Exit::Usage,
        }
    }
}

/// The access that the flags describe; the password comes from its file, or else from `ELECT_PASSWORD`.
///
/// # Errors
///
/// The file cannot be read, or holds nothing; or the store needs no credentials.
pub fn access(store: &StoreUrl<'_>, flags: &StoreFlags, limits: StoreLimits) -> Result<Access, AccessError> {
    // Inside a command of elect's, these settings are those of the store around it.
    let is_inside = std::env::var_os("ELECT_ROLE").is_some();
    if let Some(setting) = credential(flags).filter(|_| !store.is_remote() && !is_inside) {
        let store = if store.is_default_directory() { "file: (the default)".to_owned() } else { store.to_string() };
        return Err(AccessError::NotNeeded { setting, store });
    }
    let password = match &flags.password_file {
        Some(path) => {
            let mut bytes = Vec::new();
            // The line end and one byte more, which tells a password of that size from a longer one.
            let limit = CREDENTIAL_BYTES_MAX + "\r\n".len() + 1;
            std::fs::File::open(path)
                .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
                .map_err(|error| AccessError::Unreadable { path: path.clone(), error })?;
            let text = String::from_utf8(bytes)
                .map_err(|_| AccessError::NotText(format!("--password-file {}", shown(path))))?;
            // Editors end a file with a line break; no password does.
            let password = text.trim_end_matches(['\n', '\r']);
            if password.is_empty() {
                return Err(AccessError::Empty { path: path.clone() });
            }
            is_short(password, || format!("--password-file {}", shown(path)), "password")?;
            Some(Password(password.to_owned()))
        }
        None => match std::env::var("ELECT_PASSWORD") {
            Ok(text) => Some(text).filter(|text| !text.is_empty()).map(Password),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => return Err(AccessError::NotText("ELECT_PASSWORD".to_owned())),
        },
    };
    if let Some(Password(password)) = &password {
        is_short(password, || "ELECT_PASSWORD".to_owned(), "password")?;
    }
    if let Some(username) = &flags.username {
        is_short(username, || "--username".to_owned(), "user's name")?;
    }
    Ok(Access {
        tls_ca: flags.tls_ca.clone(),
        tls_cert: flags.tls_cert.clone(),
        tls_key: flags.tls_key.clone(),
        username: flags.username.clone(),
        password,
        password_file: flags.password_file.clone(),
        tls_skip_verify: flags.tls_skip_verify,
        request_timeout: limits.request_timeout,
        connect_timeout: limits.connect_timeout,
        has_time_flags: limits.by_flags,
        renew_interval: limits.renew_interval,
    })
}

fn advice(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        "let this user read it (chmod, chown)"
    } else {
        "it takes the path of a file that holds the password alone"
    }
}

/// A path as it is shown. A word alone may be the password itself.
fn shown(path: &Path) -> String {
    if path.components().count() > 1 { path.display().to_string() } else { "(a name without a directory)".to_owned() }
}

/// The first setting that only a server needs.
fn credential(flags: &StoreFlags) -> Option<&'static str> {
    let password = std::env::var_os("ELECT_PASSWORD").is_some_and(|password| !password.is_empty());
    [
        ("--tls-ca", flags.tls_ca.is_some()),
        ("--tls-cert", flags.tls_cert.is_some()),
        ("--tls-key", flags.tls_key.is_some()),
        ("--tls-skip-verify", flags.tls_skip_verify),
        ("--username", flags.username.is_some()),
        ("--password-file", flags.password_file.is_some()),
        ("ELECT_PASSWORD", password),
    ]
    .into_iter()
    .find_map(|(setting, is_given)| is_given.then_some(setting))
}

fn is_short(text: &str, place: impl FnOnce() -> String, kind: &'static str) -> Result<(), AccessError> {
    if text.len() > CREDENTIAL_BYTES_MAX { Err(AccessError::TooLong(place(), kind)) } else { Ok(()) }
}
