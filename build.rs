//! Leaves out of a release what only unwinding would read.
//!
//! With `panic = "abort"` nothing unwinds, but the compiler and the standard library bring their tables all the same: an eighth of
//! the program. What is lost with them is the backtrace of a panic; its message and its place in the source stay.
//!
//! `ELECT_UNWIND_TABLES=1` keeps them, for debuggers and for linkers that do not understand the script.

use std::path::Path;
use std::{env, fs};

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
}
