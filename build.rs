//! Leaves out of a release what only unwinding would read.
//!
//! With `panic = "abort"` nothing unwinds, but the compiler and the standard library bring their tables all the same: an eighth of
//! the program. What is lost with them is the backtrace of a panic; its message and its place in the source stay.
//!
//! `ELECT_UNWIND_TABLES=1` keeps them, for debuggers and for linkers that do not understand the script.
//!
//! The addresses that the loader has to adjust are stored in the packed form (`DT_RELR`), which takes a fortieth of the space: 0.35 MB
//! of a program with all stores. glibc reads that form since version 2.36; a linker that does not know it warns and goes on.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const GLIBC_WITH_RELR: (u32, u32) = (2, 36);

/// Goes beside the linker's own script. GNU ld and lld understand it. In a static program the frames of crtbegin and crtend stay,
/// because the start of the program walks through them.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame) *(.gcc_except_table*) } } \
                      INSERT AFTER .text;\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=ELECT_UNWIND_TABLES");
    // Other profiles unwind: those of development and of tests.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || env::var_os("ELECT_UNWIND_TABLES").is_some() {
        return;
    }
    let folder = env::var_os("OUT_DIR").expect("cargo says where");
    let script = Path::new(&folder).join("no-unwind-tables.ld");
    fs::write(&script, SCRIPT).expect("cargo's own folder takes a file");
    println!("cargo:rustc-link-arg-bin=elect=-Wl,-T,{}", script.display());
    if is_for_this_host() && glibc_version().is_some_and(|version| version >= GLIBC_WITH_RELR) {
        println!("cargo:rustc-link-arg-bin=elect=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the program is for the system that builds it, whose C library is then the one that it finds.
fn is_for_this_host() -> bool {
    env::var_os("HOST") == env::var_os("TARGET")
}

/// The version of this system's glibc. `None`: it has another C library, or none that names itself.
fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
