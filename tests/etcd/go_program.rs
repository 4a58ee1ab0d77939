//! A Go program on the package `clientv3/concurrency` in one election with elect. With `--long`: Debian's packages build it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::shared_elections::SharedElection;
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Witness, docs_under_test, is_long};

/// How long faults are made.
const STORM: Duration = Duration::from_secs(25);
/// Of each kind of program.
const TURNS_MIN: usize = 3;

/// `tests/etcd/participant`, built below the target folder.
fn build() -> PathBuf {
    let target = docs_under_test::root().join("target/go");
    let program = target.join("participant");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(docs_under_test::root().join("tests/etcd/participant/main.go"));
    // Debian puts the sources of its packages there; no module is fetched.
    go.env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOFLAGS", "")
        .env("GOCACHE", target.join("cache"));
    let built = go.output().expect("tests/run --long installs golang-go");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

struct Participants {
    election: SharedElection,
    /// The name of the election, as a Go program is given it.
    name: &'static str,
    go: PathBuf,
}

impl Participants {
    fn elect(&self, name: &str) -> CandidateProcess {
        self.election.elect(name).switch("-v").start()
    }

    fn go(&self, name: &str) -> CandidateProcess {
        let program = self.go.display().to_string();
        let words = [&program, &self.election.etcd.address(), self.name, name, "--"].map(str::to_owned);
        ElectCmd::new(&self.election.sandbox).program(words).witness(&Witness::new()).start()
    }
}

#[test]
fn go_programs_and_elect_take_turns_through_resignations_closes_and_kills() {
    if !is_long() {
        return;
    }
    for (name, boundary, prefix, options) in [
        ("/elect/cron", "cron", "/elect/cron/", ""),
        ("/jobs/", "/jobs/", "/jobs//", "?layout=exact"),
        ("mine", "mine", "mine/", "?layout=exact&value=name"),
    ] {
        storm(&Participants { election: SharedElection::new(boundary, prefix, options), name, go: build() });
    }
}

fn storm(participants: &Participants) {
    let names = ["1", "2", "3"];
    let mut elects: Vec<_> = names.iter().map(|name| participants.elect(&format!("elect-{name}"))).collect();
    let mut programs: Vec<_> = names.iter().map(|name| participants.go(&format!("go-{name}"))).collect();
    let (election, sandbox) = (&participants.election, &participants.election.sandbox);
    // The same choices each time.
    let (began, mut choices) = (now(), fastrand::Rng::with_seed(20));
    let (mut faults, mut resigned) = (0, 0);
    let has_seen_both = || {
        let starts = sandbox.history().starts;
        let ours = starts.iter().filter(|start| start.term > 0).count();
        ours >= TURNS_MIN && starts.len() - ours >= TURNS_MIN
    };
    // On a slow machine a killed Go program holds up all others for most of it.
    while since(began) < STORM || !has_seen_both() && since(began) < 3 * STORM {
        std::thread::sleep(Duration::from_millis(choices.u64(100..700)));
        let which = choices.usize(..3);
        faults += 1;
        // Seldom a kill: the key of a killed Go program holds up all others for a ttl.
        match choices.u8(..12) {
            0..4 => {
                resigned += u32::from(elects.iter().any(|elect| elect.resigns(election.boundary)));
            }
            4..8 => programs[which].signal(Signal::SIGUSR1),
            8 | 9 => {
                programs[which].signal(Signal::SIGTERM);
                programs[which].wait();
                programs[which] = participants.go(&format!("go-{faults}"));
            }
            10 => {
                programs[which].signal(Signal::SIGKILL);
                programs[which].wait();
                programs[which] = participants.go(&format!("go-{faults}"));
            }
            _ => {
                elects[which].signal(Signal::SIGKILL);
                elects[which].wait();
                elects[which] = participants.elect(&format!("elect-{faults}"));
            }
        }
    }
    let led = sandbox.history().starts.len();
    until("the election goes on", || sandbox.history().starts.len() > led || !election.queue().is_empty());
    for mut program in programs {
        program.signal(Signal::SIGTERM);
        program.wait();
    }
    elects.into_iter().for_each(CandidateProcess::terminate);
    let history = sandbox.history();
    assert_eq!(history.overlaps.len(), 0, "{history:?}");
    // The witness of a Go program has no term.
    let (ours, theirs): (Vec<_>, Vec<_>) = history.starts.iter().map(|start| start.term).partition(|&term| term > 0);
    assert!(ours.is_sorted_by(|one, next| one < next), "{ours:?}");
    assert!(ours.len() >= TURNS_MIN && theirs.len() >= TURNS_MIN, "{} of elect, {} of Go", ours.len(), theirs.len());
    println!(
        "figures: Go programs and elect at {}: {faults} faults, {resigned} of them resignations of elect, 0 overlaps, elect led {} times (terms {:?} to {:?}), the Go programs {} times",
        election.store(),
        ours.len(),
        ours.first(),
        ours.last(),
        theirs.len()
    );
}
