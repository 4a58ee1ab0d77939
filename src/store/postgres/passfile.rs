//! `.pgpass`: passwords by host, port, database and user.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::warn;

use crate::bounded_file;
use crate::store::Password;
use elect_core::limits::PEM_BYTES_MAX;

/// The connection that a password is looked for.
#[derive(Debug, Clone, Copy)]
pub struct PassfileLogin<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password of the first line that matches. A file that others may read is ignored with a warning, as libpq does.
pub fn password(path: &Path, login: PassfileLogin<'_>) -> Option<Password> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        warn!("the password file {} is no plain file, and is ignored", path.display());
        return None;
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(
            "the password file {} has the mode {mode:04o}, and is ignored: make it 0600, since others can read it",
            path.display()
        );
        return None;
    }
    let text = bounded_file::read(path, PEM_BYTES_MAX)
        .inspect_err(|error| warn!("the password file {} cannot be read: {error}", path.display()))
        .ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| matching(line, login))
}

fn matching(line: &str, login: PassfileLogin<'_>) -> Option<Password> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, fields.len()) {
            ('\\', _) => fields.last_mut()?.extend(chars.next()),
            (':', 1..=4) => fields.push(String::new()),
            (c, _) => fields.last_mut()?.push(c),
        }
    }
    let [host, port, database, user, password] = &fields[..] else { return None };
    let is = |field: &str, value: &str| field == "*" || field == value;
    let is_same = is(host, login.host)
        && is(port, &login.port.to_string())
        && is(database, login.database)
        && is(user, login.user);
    (is_same && !password.is_empty()).then(|| Password(password.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: PassfileLogin<'_> = PassfileLogin { host: "db", port: 5432, database: "app", user: "me" };

    #[test]
    fn the_first_line_that_matches_counts() {
        for (line, password) in [
            ("db:5432:app:me:a:b", Some("a:b")),
            ("*:*:*:*:any", Some("any")),
            (r"db:5432:app:me:a\:b\\", Some(r"a:b\")),
            ("db:5433:app:me:x", None),
            ("db:5432:app:you:x", None),
            ("#*:*:*:*:x", None),
            ("db:5432:app", None),
        ] {
            let found = matching(line, LOGIN).map(|Password(password)| password);
            assert_eq!(found.as_deref(), password, "{line}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "other:*:*:*:no\ndb:*:*:*:secret\n").expect("written");
        for (mode, found) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("our file");
            assert_eq!(password(file.path(), LOGIN).is_some(), found, "{mode:o}");
        }
    }
}
