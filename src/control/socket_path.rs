//! Where control sockets are: in a directory of their own below the runtime directory, by uid alone (as in 5.1), under
//! names that contain the boundary and the candidate.
//!
//! A socket's path has room for 107 bytes, and a boundary may need more: its name is cut, and a client asks each candidate
//! that the cut name fits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime_dir::{self, encode_file_name, make_private};

/// Of the boundary's name, as far as there is room.
const BOUNDARY_BYTES_SHOWN: usize = 24;
const SOCKET_SUFFIX: &str = ".sock";

/// The directory, made if it is missing and checked to be ours alone.
///
/// # Errors
///
/// It cannot be made, or is not ours.
pub fn directory() -> Result<PathBuf, String> {
    let directory = runtime_dir::prepare()?.join("control");
    match make_private(&directory) {
        Ok(()) => Ok(directory),
        Err(error) => Err(format!("{}: cannot be created: {error}", directory.display())),
    }
}

pub fn socket_name(boundary: &str, id: &str) -> String {
    format!("{}{id}{SOCKET_SUFFIX}", stem(boundary))
}

fn stem(boundary: &str) -> String {
    let mut encoded = encode_file_name(boundary);
    encoded.truncate(BOUNDARY_BYTES_SHOWN);
    encoded.push('.');
    encoded
}

/// The sockets of what may be candidates of the boundary, in a fixed order. None, if there is no directory.
///
/// # Errors
///
/// The directory cannot be read.
pub fn find_sockets(directory: &Path, boundary: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let stem = stem(boundary);
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with(&stem) && name.ends_with(SOCKET_SUFFIX))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}
