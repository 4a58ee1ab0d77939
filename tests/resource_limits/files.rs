//! `RLIMIT_FSIZE`: a log that reaches it is like a full disk, and no end.

use std::fs;

use nix::sys::signal::Signal;

use crate::ObservedServer;
use crate::harness::server::StoreServer;
use crate::harness::{Sandbox, until};
use crate::leases::candidate_for;

const LIMIT: u64 = 300;

#[test]
fn a_log_beyond_the_limit_ends_nothing_and_the_command_has_the_signal_as_it_was() {
    let server = ObservedServer::start();
    let sandbox = Sandbox::new();
    let found = sandbox.path().join("found");
    let script = format!(
        "trap 'exit 7' TERM; exec 2> /dev/null; head -c 1000 /dev/zero > {0}.big; echo $? > {0}; while :; do sleep 1000 & wait; done",
        found.display()
    );
    let elect = candidate_for(&sandbox, server.url_for(&sandbox), "3s").switch("-vv").shell(&script);
    let mut leader = elect.wrapped_by(["prlimit", &format!("--fsize={LIMIT}"), "--"]).start();
    until("the command has met the limit", || {
        assert!(!leader.has_ended(), "{}", leader.log());
        fs::read_to_string(&found).is_ok_and(|text| !text.is_empty())
    });
    assert_eq!(fs::read_to_string(&found).expect("written"), "153\n", "128 and SIGXFSZ");
    let renewals = server.renewals();
    until("the log is full, and the leader renews", || {
        assert!(!leader.has_ended(), "{}", leader.log());
        leader.log().len() as u64 >= LIMIT && server.renewals() >= renewals + 3
    });
    assert_eq!(leader.log().len() as u64, LIMIT);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(7);
    sandbox.is_left_empty();
}

/// A parent that ignores the signal has a command that ignores it too.
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let server = ObservedServer::start();
    let sandbox = Sandbox::new();
    let script = "head -c 1000 /dev/zero > big 2> /dev/null; exit $?";
    let elect = candidate_for(&sandbox, server.url_for(&sandbox), "3s").switch("-q").shell(script);
    let ended =
        elect.wrapped_by(["sh", "-c", r#"cd "$1"; shift; trap "" XFSZ; exec prlimit --fsize=300 -- "$@""#, "sh"]);
    let ended = ended.wrapped_by([sandbox.path()]).run();
    assert_eq!(ended.status.code(), Some(1), "head says that it cannot write: {ended:?}");
    sandbox.is_left_empty();
}

/// A usage error, a refusal: the status says it, where the sentence cannot.
#[test]
fn an_error_that_cannot_be_written_has_its_status() {
    let sandbox = Sandbox::new();
    let elect = crate::harness::ElectCmd::new(&sandbox).flag("--ttl", "soon").command(["true"]);
    let ended = elect.wrapped_by(["prlimit", "--fsize=10", "--"]).run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}
