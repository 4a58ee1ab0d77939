//! The store and its credentials in the environment of commands, followers and hooks (DESIGN.md 6).

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::StoreFlags;
use crate::store::url::StoreUrl;

/// Variables that hold a secret, or name the file of one.
const CREDENTIALS: [&str; 2] = ["ELECT_PASSWORD", "ELECT_PASSWORD_FILE"];
const STORE: &str = "ELECT_STORE";

/// Sets the environment that all programs of this candidate inherit, before the first thread exists. The store is always named,
/// so that an `elect status` in a command looks at the same one, with the same certificates and as the same user.
pub fn pass_to_commands(store: &StoreUrl<'_>, flags: &StoreFlags, with_credentials: bool) {
    let url = if with_credentials { store.with_secrets() } else { store.without_secrets() };
    let mut changes: Vec<(OsString, Option<OsString>)> = vec![(STORE.into(), Some(url.into()))];
    if !with_credentials {
        changes.extend(CREDENTIALS.iter().map(|name| (OsString::from(name), None)));
    }
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.clone().into_os_string());
    let given = [
        ("ELECT_TLS_CA", path(&flags.tls_ca)),
        ("ELECT_TLS_CERT", path(&flags.tls_cert)),
        ("ELECT_TLS_KEY", path(&flags.tls_key)),
        ("ELECT_TLS_SKIP_VERIFY", flags.tls_skip_verify.then(|| "1".into())),
        ("ELECT_USERNAME", flags.username.as_ref().map(OsString::from)),
        ("ELECT_PASSWORD_FILE", path(&flags.password_file).filter(|_| with_credentials)),
    ];
    let given = given.into_iter().filter(|(_, value)| value.is_some());
    changes.extend(given.map(|(name, value)| (name.into(), value)));
    elect_keeper::change_environment(&changes);
}

/// The advice for a store that asks for a password, if a command of elect's may lack it for that reason.
pub fn hint() -> &'static str {
    let is_inside = std::env::var_os("ELECT_ROLE").is_some();
    let has_none = CREDENTIALS.iter().all(|name| std::env::var_os(name).is_none());
    if is_inside && has_none {
        "; inside a command of elect, run --pass-credentials passes the password on"
    } else {
        ""
    }
}
