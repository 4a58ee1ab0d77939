//! The hidden subcommand that a keeper executes to release a claim over the network (K2).
//!
//! It writes nothing to descriptor 1, which was the command's (K3), and one line to descriptor 2, the log. It handles no
//! signal, because the keeper's mask is still in force.

use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::unistd::{dup2_stdin, dup2_stdout};

use super::{DESCRIPTORS_FOR_QUERY, runtime};
use crate::exit::Exit;
use crate::log::write_keeper_line;
use crate::store::claim_release::{RELEASED, SUBCOMMAND, StoredClaim};
use elect_keeper::MESSAGE_BYTES_MAX as MESSAGE_TO_KEEPER_BYTES_MAX;

/// The descriptor of the claim, if this is the subcommand. It is no part of the command line that help and completions
/// show.
pub fn claim_descriptor() -> Option<RawFd> {
    let mut words = std::env::args_os().skip(1);
    words.next().filter(|word| word == SUBCOMMAND)?;
    let descriptor = words.next()?.to_str()?.parse().ok()?;
    words.next().is_none().then_some(descriptor)
}

/// Reads the claim from the inherited descriptor, and releases it.
pub fn release_claim(descriptor: RawFd) -> ExitCode {
    std::panic::set_hook(Box::new(|_| std::process::exit(Exit::Failed as i32)));
    // A process that reads the command's output to its end must not wait for this process.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null).and_then(|()| dup2_stdout(&null));
    }
    // The process keeps the keeper's name, so that `pkill elect` does not match it.
    let _ = prctl::set_name(c"keeper");
    let Some(mut stored_claim) = receive(descriptor) else { return Exit::Failed.into() };
    let line = stored_claim.line.take();
    let report = |release: &str| line.as_ref().map_or((), |line| write_keeper_line(line, release));
    let Ok(runtime) = runtime(DESCRIPTORS_FOR_QUERY) else {
        report("no descriptors are left to release the boundary: the lease runs out by itself");
        return Exit::Failed.into();
    };
    let outcome = runtime.block_on(stored_claim.release());
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {
            report(RELEASED);
            Exit::Success.into()
        }
        Err(error) => {
            report(&format!("the release failed ({error}): the lease runs out by itself"));
            Exit::Unavailable.into()
        }
    }
}

fn receive(descriptor: RawFd) -> Option<StoredClaim> {
    let mut text = Vec::new();
    // The claim has at most the size of one message, in which the keeper got it; the line has less.
    let file = File::open(format!("/proc/self/fd/{descriptor}")).ok()?;
    file.take(2 * MESSAGE_TO_KEEPER_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
