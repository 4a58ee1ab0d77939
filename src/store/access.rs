//! Settings of a network store beside its URL: certificates, a user, and how long an attempt may take.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Access settings from flags and variables. `None`: not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The authority that the server's certificate has to come from, in PEM.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its key, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Every certificate that the server shows is accepted.
    pub tls_skip_verify: bool,
    /// The user name at the server.
    pub username: Option<String>,
    /// And the proof of it.
    pub password: Option<Password>,
    /// The file that it was read from: a store whose credentials are replaced while elect runs reads it again.
    pub password_file: Option<PathBuf>,
    /// How long one attempt may take, all its calls together; the worker sees to it that it takes no longer.
    pub request_timeout: Duration,
    /// How long setting up a connection may take, over several attempts (T6).
    pub connect_timeout: Duration,
    /// Whether flags set these limits, so that a message can name them.
    pub has_time_flags: bool,
    /// How often an observed record is read, and for how long an address that was of no use stays behind others.
    pub renew_interval: Duration,
}

impl Access {
    /// The first of the flags that mean encryption, to name it where encryption is missing.
    #[must_use]
    pub fn first_tls_flag(&self) -> Option<&'static str> {
        let flags = [
            ("--tls-ca", self.tls_ca.is_some()),
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-key", self.tls_key.is_some()),
            ("--tls-skip-verify", self.tls_skip_verify),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a password)")
    }
}
