//! Where control sockets are: in a directory that `--runtime-dir` names, or else in one of their own below the runtime
//! directory, by uid alone (as in 5.1), under names that contain the boundary and the candidate.
//!
//! A name has 66 bytes at most, so that it fits into the address of a socket: a boundary may need more, its name is
//! then cut, and a client asks each candidate that the cut name fits.
//!
//! A named directory may be shared. Another user who may write to it can remove a socket, or put one in its place, and
//! reaches nothing by that: a client believes only a server of a user that it trusts ([`Trust`]), and no answer is no
//! yes. The permission to control a candidate is that to write to its socket, which the kernel checks: its own user has
//! it, and, if the directory's group may write to the directory, that group.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, geteuid};

use crate::runtime_dir::{self, decode_file_name, encode_file_name, make_private, open_to_owner};

/// Of the boundary's name, as far as there is room.
const BOUNDARY_BYTES_SHOWN: usize = 24;
const SOCKET_SUFFIX: &str = ".sock";
/// Of a named directory: its path is in the environment of each command.
const PATH_BYTES_MAX: usize = 1024;
/// The most entries of a directory that are looked at: a shared one may hold any number.
const ENTRIES_MAX: usize = 10_000;

/// The directory of the control sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketDirectory {
    path: PathBuf,
    /// By `--runtime-dir`. Otherwise it is elect's own.
    is_named: bool,
}

/// The users whose sockets a client believes.
#[derive(Debug, Clone)]
pub struct Trust(Vec<u32>);

/// Of a socket that is in no directory that is known: root and this user.
impl Default for Trust {
    fn default() -> Trust {
        Trust(vec![0, geteuid().as_raw()])
    }
}

impl Trust {
    /// Whether a process of this user may answer for a candidate.
    #[must_use]
    pub fn includes(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }
}

impl SocketDirectory {
    /// The directory that is named, or the default one. Nothing is looked at.
    ///
    /// # Errors
    ///
    /// In a few words: the path is relative.
    pub fn new(named: Option<&Path>) -> Result<SocketDirectory, String> {
        let Some(path) = named else {
            return Ok(SocketDirectory { path: runtime_dir::path().join("control"), is_named: false });
        };
        if !path.is_absolute() {
            let here = std::env::current_dir().map_or_else(|_| PathBuf::from("/DIR"), |here| here.join(path));
            return Err(format!(
                "--runtime-dir {}: a relative path, which is another directory for each working directory: write {}",
                path.display(),
                here.display()
            ));
        }
        if path.to_str().is_none_or(|path| path.len() > PATH_BYTES_MAX) {
            return Err(format!("--runtime-dir takes at most {PATH_BYTES_MAX} bytes of UTF-8"));
        }
        Ok(SocketDirectory { path: path.to_owned(), is_named: true })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `--runtime-dir` names it.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.is_named
    }

    /// Makes it if it is missing. The default one is checked to be this user's alone; a named one is made for this user
    /// alone, but may be there as it likes. Returns whether a named one was made.
    ///
    /// # Errors
    ///
    /// In a few words: it cannot be made, or is not ours.
    pub fn prepare(&self) -> Result<bool, String> {
        let cannot = |error: io::Error| format!("{}: cannot be created: {error}", self.path.display());
        if !self.is_named {
            runtime_dir::prepare()?;
            return make_private(&self.path).map(|()| false).map_err(cannot);
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => open_to_owner(&self.path).map(|()| true).map_err(cannot),
            Err(error) => match fs::metadata(&self.path) {
                Ok(found) if found.is_dir() => Ok(false),
                Ok(_) => Err(format!("{}: not a directory", self.path.display())),
                Err(_) => Err(cannot(error)),
            },
        }
    }

    /// The group that may control the candidates here: that of a named directory to which it may write. One where
    /// everybody may write to files of their own (like /tmp) belongs to no group.
    #[must_use]
    pub fn group(&self) -> Option<Gid> {
        let found = fs::metadata(&self.path).ok().filter(|_| self.is_named)?;
        let is_common = found.mode() & 0o1002 == 0o1002;
        (found.mode() & 0o020 != 0 && !is_common).then(|| Gid::from_raw(found.gid()))
    }

    /// The users whose sockets are believed here: root, this user, and the owner of a named directory, who could change
    /// anything in it.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let owner = fs::metadata(&self.path).ok().filter(|_| self.is_named).map(|found| found.uid());
        Trust(Trust::default().0.into_iter().chain(owner).collect())
    }

    /// The sockets of what may be candidates of a boundary, or of any, in a fixed order. None, if there is no directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn sockets(&self, boundary: Option<&str>) -> io::Result<Vec<PathBuf>> {
        let stem = boundary.map(stem).unwrap_or_default();
        let mut found = entries(&self.path, |name| name.starts_with(&stem) && is_socket_name(name))?;
        found.sort();
        Ok(found)
    }

    /// Files that a candidate of this user may have left behind: its socket, or the one that it was about to rename.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let is_temporary = |name: &str| name.strip_prefix('.').is_some_and(|id| uuid::Uuid::try_parse(id).is_ok());
        entries(&self.path, |name| is_socket_name(name) || is_temporary(name)).unwrap_or_default()
    }
}

fn entries(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let entries = entries.take(ENTRIES_MAX).flatten();
    Ok(entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted)).map(|entry| entry.path()).collect())
}

pub(super) fn socket_name(boundary: &str, id: &str) -> String {
    format!("{}{id}{SOCKET_SUFFIX}", stem(boundary))
}

/// Whether a candidate's socket may have this name. Sockets of other programs may be in the same directory.
fn is_socket_name(name: &str) -> bool {
    !name.starts_with('.') && parse_socket_name(Path::new(name)).1.is_some_and(|id| uuid::Uuid::try_parse(&id).is_ok())
}

/// The boundary, if its name is not cut, and the id that the name of a socket contains.
#[must_use]
pub fn parse_socket_name(path: &Path) -> (Option<String>, Option<String>) {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SOCKET_SUFFIX));
    let Some((stem, id)) = name.and_then(|name| name.rsplit_once('.')) else { return (None, None) };
    let boundary = (stem.len() < BOUNDARY_BYTES_SHOWN).then(|| decode_file_name(stem)).flatten();
    (boundary, Some(id.to_owned()))
}

fn stem(boundary: &str) -> String {
    let mut encoded = encode_file_name(boundary);
    encoded.truncate(BOUNDARY_BYTES_SHOWN);
    encoded.push('.');
    encoded
}
