//! The store and its credentials in the environment of commands, followers and hooks (DESIGN.md 6).

use std::ffi::OsString;
use std::path::{self, PathBuf};

use clap::Command;
use clap::parser::ValueSource;

use crate::config::StoreFlags;
use crate::store::url::StoreUrl;

/// Variables that hold a secret, or name the file of one.
const CREDENTIALS: [&str; 2] = ["ELECT_PASSWORD", "ELECT_PASSWORD_FILE"];
const STORE: &str = "ELECT_STORE";
/// The names of the variables below that were not there before: they are about that store and about no other one.
const INHERITED: &str = "ELECT_INHERITED";
/// Settings that a flag of the store around a command may have put into its environment.
const SETTINGS: [&str; 6] = [
    "ELECT_TLS_CA",
    "ELECT_TLS_CERT",
    "ELECT_TLS_KEY",
    "ELECT_TLS_SKIP_VERIFY",
    "ELECT_USERNAME",
    "ELECT_PASSWORD_FILE",
];

/// Sets the environment that all programs of this candidate inherit, before the first thread exists. The store is always named,
/// so that an `elect status` in a command looks at the same one, with the same certificates and as the same user.
pub fn pass_to_commands(store: &StoreUrl<'_>, flags: &StoreFlags, with_credentials: bool) {
    let url = if with_credentials { store.with_secrets() } else { store.without_secrets() };
    let mut changes: Vec<(OsString, Option<OsString>)> = vec![(STORE.into(), Some(url.into()))];
    if !with_credentials {
        changes.extend(CREDENTIALS.iter().map(|name| (OsString::from(name), None)));
    }
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.clone().into_os_string());
    let values = [
        path(&flags.tls_ca),
        path(&flags.tls_cert),
        path(&flags.tls_key),
        flags.tls_skip_verify.then(|| "1".into()),
        flags.username.as_ref().map(OsString::from),
        path(&flags.password_file).filter(|_| with_credentials),
    ];
    let mut inherited = inherited();
    for (name, value) in SETTINGS.into_iter().zip(values).filter(|(_, value)| value.is_some()) {
        // One that was there before is the user's, for whichever store.
        if std::env::var_os(name) != value && !inherited.iter().any(|known| known == name) {
            inherited.push(name.to_owned());
        }
        let is_path = !["ELECT_TLS_SKIP_VERIFY", "ELECT_USERNAME"].contains(&name);
        changes.push((name.into(), if is_path { value.map(absolute) } else { value }));
    }
    changes.push((INHERITED.into(), Some(inherited.join(" ").into()).filter(|_| !inherited.is_empty())));
    elect_keeper::change_environment(&changes);
}

/// A command may work in another directory.
fn absolute(path: OsString) -> OsString {
    path::absolute(&path).map_or(path, PathBuf::into_os_string)
}

fn inherited() -> Vec<String> {
    let names = std::env::var(INHERITED).unwrap_or_default();
    names.split(' ').filter(|name| SETTINGS.contains(name)).map(str::to_owned).collect()
}

/// Removes the settings of the store around this command from the environment if the command line names another store. Must be called
/// before the first thread is made.
pub fn forget_for_another_store(command: fn() -> Command) {
    let (Some(around), true) = (std::env::var(STORE).ok(), std::env::var_os(INHERITED).is_some()) else { return };
    let Ok(matches) = command().try_get_matches_from(std::env::args_os()) else { return };
    let Some((_, matches)) = matches.subcommand() else { return };
    // The name of the field of --store.
    let Ok(Some(named)) = matches.try_get_one::<String>("url") else { return };
    let is_flag = matches.value_source("url") == Some(ValueSource::CommandLine);
    let place = |url: &str| StoreUrl::parse(url).map(|url| url.without_secrets()).ok();
    if is_flag && place(named) != place(&around) {
        let names = inherited().into_iter().chain([INHERITED.to_owned()]);
        elect_keeper::change_environment(&names.map(|name| (name.into(), None)).collect::<Vec<_>>());
    }
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
