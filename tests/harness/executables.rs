//! Programs and scripts that a test writes and then executes.
//!
//! Another process writes them. A file that this process has open for writing may be inherited by a child that another
//! test forks at that moment, and exec then fails with ETXTBSY until the child has closed the file.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A copy with the mode of the original.
#[track_caller]
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let (from, to) = (from.as_ref(), to.as_ref());
    let copied = Command::new("cp").arg("--").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be copied to {}", from.display(), to.display());
}

/// A script with mode 755. It replaces a file of this name.
#[track_caller]
pub fn script(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    let install = Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn();
    let mut install = install.expect("install is there");
    install.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("install reads it");
    let status = install.wait().expect("install ends");
    assert!(status.success(), "{} cannot be written", path.display());
}
