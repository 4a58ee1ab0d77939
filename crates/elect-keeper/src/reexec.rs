//! Re-executes the elect binary, the keeper's last step for a store on the network (K2).

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::execv;

/// Executes this binary (`/proc/self/exe`, even if its path has changed) with a hidden subcommand. The payload waits in
/// an anonymous file, whose descriptor is the argument. Returns only on failure.
pub fn execute_self(subcommand: &str, payload: &[u8]) {
    // The file stays open across exec, unlike every other descriptor.
    let Ok(file) = memfd_create(c"claim", MFdFlags::empty()) else { return };
    let mut file = File::from(file);
    if file.write_all(payload).is_err() {
        return;
    }
    let words = ["elect", subcommand, &file.as_raw_fd().to_string()].map(|word| CString::new(word).unwrap_or_default());
    let _ = execv(c"/proc/self/exe", &words);
}
