//! A root directory without any file but the static program, and what it is given.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Sandbox, docs_under_test, executables};

/// Whether there can be such a program: tests/run says that rustup is missing, which alone has Rust's library for musl.
pub fn is_possible() -> bool {
    std::env::var_os("ELECT_NO_STATIC").is_none()
}

/// The program as `./build-static --dev` makes it.
pub fn program() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| docs_under_test::root().join("target"), PathBuf::from);
    let program = target.join(format!("{}-unknown-linux-musl/debug/elect", std::env::consts::ARCH));
    assert!(program.exists(), "{} is missing: run ./build-static --dev", program.display());
    program
}

/// A root directory with nothing but the program, an empty /proc to mount on, and the address of a name server.
pub struct EmptyRoot {
    root: PathBuf,
    _sandbox: Sandbox,
}

impl EmptyRoot {
    pub fn new(name_server: IpAddr) -> EmptyRoot {
        let sandbox = Sandbox::new();
        let root = sandbox.path().join("root");
        fs::create_dir_all(root.join("proc")).expect("a directory");
        fs::create_dir_all(root.join("etc")).expect("a directory");
        // The umask of a test says nothing about this directory.
        fs::create_dir_all(root.join("control")).expect("a directory");
        fs::set_permissions(root.join("control"), fs::Permissions::from_mode(0o700)).expect("a mode");
        executables::copy(program().to_str().expect("plain text"), root.join("elect"));
        fs::write(root.join("etc/resolv.conf"), format!("nameserver {name_server}\n")).expect("room");
        EmptyRoot { root, _sandbox: sandbox }
    }

    /// Copies a file into it, and returns its path there.
    pub fn put(&self, file: &str) -> String {
        let name = format!("/{}", Path::new(file).file_name().expect("a file").display());
        fs::copy(file, self.root.join(&name[1..])).expect("room");
        name
    }

    /// Runs it there, with a /proc and no environment.
    pub fn elect(&self, words: &[&str]) -> Output {
        let script = r#"mount -t proc proc "$1/proc" && exec chroot "$@""#;
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "sh", "-c", script, "sh"]);
        inside.arg(&self.root).arg("/elect").args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        inside.stdin(Stdio::null()).process_group(0).output().expect("unshare is installed")
    }

    /// Leads once. The command is elect itself, because there is no other program, and asks its candidate whether it leads.
    #[track_caller]
    pub fn leads(&self, words: &[&str]) {
        let begin = ["run", "-n", "-b", "static", "--runtime-dir", "/control"];
        let output = self.elect(&[&begin[..], words, &["--", "/elect", "assert"]].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.contains("released"), "{words:?}: {output:?}");
    }
}
