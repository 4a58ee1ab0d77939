//! The directory of a file store, and the file names in it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use tracing::info;

use super::record_file::Files;
use crate::runtime_dir::{self, decode_file_name, make_private, open_to_owner};
use crate::store::{Finding, StoreError};
use elect_core::boundary::Boundary;
use elect_core::limits::insert_boundary;

/// Where locks and records are.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Chosen by elect, so that its owner and mode can be insisted on. A named one may be shared.
    is_default: bool,
}

impl Directory {
    /// Parses the part after `file:`: nothing, `DIR` or `///DIR`.
    pub fn parse(rest: &str) -> Result<Directory, String> {
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(path) if path.starts_with('/') => path,
            Some(_) => {
                return Err("it names another host: write file:DIR or file:///DIR, with three slashes".to_owned());
            }
        };
        if path.is_empty() {
            return Ok(Directory { path: runtime_dir::path(), is_default: true });
        }
        if !path.starts_with('/') {
            let here = std::env::current_dir().map_or_else(|_| PathBuf::from("/DIR"), |here| here.join(path));
            return Err(format!(
                "{path:?} is a relative path, which leads to another election in each working directory: write file:{}",
                here.display()
            ));
        }
        Ok(Directory { path: PathBuf::from(path), is_default: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn files(&self, boundary: &Boundary) -> Files {
        Files::new(&self.path, self.path.clone(), boundary.as_str())
    }

    /// Makes the directory if it is missing, and checks that locks in it mean what they should.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let shown = self.path.display();
        let made = if self.is_default { make_private(&self.path).map(|()| false) } else { make_all(&self.path) };
        let failed = |error: io::Error| {
            refused_if_permanent(&error, format!("{shown}: cannot be created: {error}{}", advice(&error)))
        };
        if made.map_err(failed)? {
            // Its name may be misspelled.
            info!(json.directory = %shown, "the file store's directory did not exist: created");
        }
        match self.check() {
            Ok(true) => Ok(()),
            Ok(false) if self.path.is_symlink() => Err(StoreError::Unavailable(format!(
                "{shown} is a symbolic link to a directory that does not exist: make that directory"
            ))),
            Ok(false) => Err(StoreError::Unavailable(format!("{shown} was removed"))),
            Err(error) => Err(error),
        }
    }

    /// Whether it is there; an error if it is, and locks in it would not mean what they should.
    pub fn check(&self) -> Result<bool, StoreError> {
        let shown = self.path.display();
        match runtime_dir::find_fault(&self.path, self.is_default) {
            Ok(None) => Ok(true),
            Ok(Some(fault)) => {
                Err(StoreError::Refused(format!("{shown} {fault}: name another directory with --store file:DIR")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(refused_if_permanent(&error, format!("{shown}: {error}"))),
        }
    }

    /// The kind of file system, whose locks are good ([`Directory::check`] has refused the others), and how far they reach.
    pub fn facts(&self) -> Vec<Finding> {
        let shown = self.path.display();
        let Some(kind) = runtime_dir::file_system(&self.path) else { return Vec::new() };
        let reach = if self.is_default { "for this user on this host" } else { "for this host" };
        vec![Finding::ok("file-system", format!("{shown} is on {kind}: locks are {reach} alone"))]
    }

    /// The bits of a lock file's mode: each user that may create files in the directory may take part.
    pub fn sharing(&self) -> u32 {
        let mode = fs::metadata(&self.path).map_or(0, |found| found.mode());
        let group = if mode & 0o020 == 0 { 0 } else { 0o060 };
        let others = if mode & 0o002 == 0 { 0 } else { 0o006 };
        0o600 | group | others
    }

    pub fn boundaries(&self) -> Result<Vec<Boundary>, StoreError> {
        if !self.check()? {
            return Ok(Vec::new());
        }
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(closed(&self.path, &self.path.display()));
            }
            Err(error) => {
                return Err(refused_if_permanent(&error, format!("{}: {error}", self.path.display())));
            }
        };
        let mut found = BTreeSet::new();
        let names = entries.filter_map(|entry| {
            decode_file_name(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?)?.parse().ok()
        });
        for boundary in names {
            insert_boundary(&mut found, boundary);
        }
        Ok(found.into_iter().collect())
    }
}

/// Makes a directory and those above it, and returns whether it did. The umask decides, but never shuts out this user.
fn make_all(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o777).create(path) {
        Ok(()) => open_to_owner(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(error) };
            make_all(parent)?;
            match DirBuilder::new().mode(0o777).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                Ok(()) | Err(_) => open_to_owner(path).map(|()| true),
            }
        }
        Err(error) => Err(error),
    }
}

/// The way out of a failure to make or to write a file.
pub fn advice(error: &io::Error) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list has no end, and no other error has a usual remedy")]
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; --store file:DIR names another directory",
        io::ErrorKind::ReadOnlyFilesystem => "; --store file:DIR names another directory, on a writable file system",
        io::ErrorKind::NotADirectory => "; --store file:DIR names a directory",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room for it",
        _ => "",
    }
}

/// Another user's.
pub fn closed(directory: &Path, what: &impl std::fmt::Display) -> StoreError {
    let us = geteuid();
    let whom = fs::metadata(directory).map_or("somebody else".to_owned(), |found| format!("uid {}", found.uid()));
    StoreError::Refused(format!(
        "{what} cannot be read by us (uid {us}): its directory belongs to {whom}, ask as that user"
    ))
}

pub fn refused_if_permanent(error: &io::Error, message: String) -> StoreError {
    let permanent = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::NotFound,
    ];
    if permanent.contains(&error.kind()) { StoreError::Refused(message) } else { StoreError::Unavailable(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_directory_with_or_without_slashes_but_no_host() {
        assert_eq!(Directory::parse("/srv/locks").expect("a path").path(), Path::new("/srv/locks"));
        assert_eq!(Directory::parse("///srv/locks").expect("a path").path(), Path::new("/srv/locks"));
        assert!(Directory::parse("").expect("the default").is_default);
        for relative in ["locks", "./locks", "../locks"] {
            let message = Directory::parse(relative).expect_err("relative");
            let absolute = std::env::current_dir().expect("here").join(relative);
            assert!(message.contains(&format!("file:{}", absolute.display())), "{message}");
        }
        let message = Directory::parse("//srv/locks").expect_err("a host");
        assert!(message.contains("file:///DIR"), "{message}");
    }

    #[test]
    fn a_directory_that_is_made_with_its_parents_is_open_to_its_owner() {
        let place = tempfile::tempdir().expect("a directory");
        assert!(make_all(&place.path().join("a/b/c")).expect("made"));
        assert!(!make_all(&place.path().join("a/b/c")).expect("there"));
        assert_eq!(fs::metadata(place.path().join("a/b")).expect("there").mode() & 0o700, 0o700);
    }
}
