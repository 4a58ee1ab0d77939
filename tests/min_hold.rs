//! A boundary that is kept for longer than its command took: `--min-hold`.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, until};

/// Notes when its process was made, in hundredths of a second by the clock of the harness, and fails. The hold counts
/// from the exec that follows; the script may come to its first line much later.
const JOB: &str = "cut -d' ' -f22 /proc/$$/stat >> $WITNESS_PLACE/began; echo done; exit 7";

fn job(sandbox: &Sandbox, hold: &str) -> ElectCmd {
    ElectCmd::new(sandbox).flag("--min-hold", hold).shell(JOB)
}

/// When each job began, to the hundredth of a second below.
fn began(sandbox: &Sandbox) -> Vec<Duration> {
    let text = fs::read_to_string(sandbox.path().join("began")).unwrap_or_default();
    text.lines().map(|line| Duration::from_millis(10) * line.parse::<u32>().expect("hundredths of a second")).collect()
}

/// A job that starts when somebody waits for the boundary, so that the start of the waiter takes nothing from the hold; and the waiter.
fn job_with_waiter(sandbox: &Sandbox, hold: Duration, script: &str) -> (CandidateProcess, CandidateProcess) {
    let leader = ElectCmd::new(sandbox).flag("--min-hold", &format!("{}ms", hold.as_millis())).shell(script);
    let gate = "until [ -e $WITNESS_PLACE/go ]; do sleep 0.02; done";
    let leader = leader.flag("--on-elected", gate).flag("--hook-timeout", "1h").start();
    leader.wait_for_log("elected");
    let waiter = ElectCmd::new(sandbox).witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    fs::write(sandbox.path().join("go"), "").expect("written");
    (leader, waiter)
}

/// Its job has ended, and it keeps the boundary: the machine has let it come so far before the hold was over.
#[track_caller]
fn holds_in_time(leader: &mut CandidateProcess) {
    until("the job has ended", || leader.log().contains("the boundary is kept for another") || leader.has_ended());
    assert_in_time(!leader.has_ended(), || "the hold was over before anything could happen in it".to_owned());
}

/// Its job has ended, and it keeps the boundary.
#[track_caller]
fn holds(leader: &CandidateProcess) {
    leader.wait_for_log("the boundary is kept for another");
}

/// A waiting candidate whose command starts not before this.
#[track_caller]
fn hands_over(sandbox: &Sandbox, waiter: CandidateProcess, not_before: Duration) {
    let next = sandbox.starts(1).latest();
    assert!(next.at >= not_before, "{:?} too early", not_before.saturating_sub(next.at));
    waiter.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_job_that_four_hosts_start_within_two_seconds_runs_once_and_the_others_are_silent() {
    retry_if_machine_slow("a job that four hosts start", Duration::from_secs(3), |hold| {
        let sandbox = Sandbox::new();
        let kept = format!("{}ms", hold.as_millis());
        let started = now();
        let mut candidates = Vec::new();
        for turn in 0..4 {
            until("its turn", || since(started) >= turn * hold / 5);
            candidates.push(job(&sandbox, &kept).switch("-q").switch("-n").start());
        }
        // The losers have looked by now, or soon will.
        let mut said: Vec<_> = candidates.iter_mut().map(|one| (one.wait().code(), one.output(), one.log())).collect();
        let (took, runs) = (since(started), began(&sandbox).len());
        assert_in_time(runs == 1, || format!("{runs} runs: the last host looked when the hold was over"));
        said.sort();
        let loser = (Some(75), String::new(), String::new());
        assert_eq!(said, [(Some(7), "done\n".to_owned(), String::new()), loser.clone(), loser.clone(), loser]);
        assert!(took >= hold, "{took:?}");
        // When it is over, the next one may.
        assert_eq!(job(&sandbox, "0").switch("-n").run().status.code(), Some(7));
        sandbox.is_left_empty();
    });
}

#[test]
fn a_hold_counts_from_the_start_of_the_command_and_costs_one_that_takes_longer_nothing() {
    let sandbox = Sandbox::new();
    let started = now();
    let ended = ElectCmd::new(&sandbox).flag("--min-hold", "1500ms").shell("sleep 1; exit 3").run();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(since(started) >= Duration::from_millis(1500));
    let ended = ElectCmd::new(&sandbox).flag("--min-hold", "100ms").shell("sleep 0.3; exit 3").run();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(!ended.stderr.contains("is kept"), "{ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn a_stop_ends_a_hold_at_once_with_the_status_of_the_command() {
    let sandbox = Sandbox::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut leader = job(&sandbox, "1h").start();
        holds(&leader);
        leader.signal(signal);
        leader.ends_with(7);
        leader.wait_for_log("released");
    }
    let mut leader = job(&sandbox, "1h").start();
    holds(&leader);
    let waiter = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    throughout(Duration::from_millis(1500), "nobody else leads", || sandbox.history().starts.is_empty());
    leader.signal(Signal::SIGTERM);
    leader.ends_with(7);
    hands_over(&sandbox, waiter, Duration::ZERO);
}

#[test]
fn a_command_that_is_stopped_leaves_nothing_to_be_held() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).flag("--min-hold", "1h").witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.terminate();
    assert_eq!(job(&sandbox, "0").switch("-n").run().status.code(), Some(7));
}

#[test]
fn a_keeper_without_its_campaigner_keeps_the_lock_until_the_hold_is_over() {
    // In the hold, and while the command still runs.
    for ends in [true, false] {
        retry_if_machine_slow("a campaigner killed in a hold", Duration::from_secs(3), |hold| {
            let sandbox = Sandbox::new();
            let script = if ends { JOB.to_owned() } else { JOB.replace("exit 7", "exec sleep 600") };
            let (mut leader, waiter) = job_with_waiter(&sandbox, hold, &script);
            let keeper = leader.keeper();
            if ends {
                holds_in_time(&mut leader);
            } else {
                until("the job runs", || leader.output() == "done\n");
            }
            leader.signal(Signal::SIGKILL);
            assert_in_time(leader.wait().code().is_none(), || "the hold was over before the kill".to_owned());
            until("the command is gone", || leader.tree().is_empty());
            let over_at = began(&sandbox)[0] + hold;
            let keeps = processes::is_alive(keeper);
            if now() < over_at {
                assert!(keeps, "somebody has to hold the lock");
            }
            hands_over(&sandbox, waiter, over_at);
            until("the keeper is gone", || !processes::is_alive(keeper));
        });
    }
}

#[test]
fn a_hold_survives_the_keeper() {
    retry_if_machine_slow("a keeper killed in a hold", Duration::from_secs(2), |hold| {
        let sandbox = Sandbox::new();
        let (mut leader, waiter) = job_with_waiter(&sandbox, hold, JOB);
        let keeper = leader.keeper();
        holds_in_time(&mut leader);
        processes::signal(keeper, Signal::SIGKILL);
        let status = leader.wait().code();
        assert_in_time(status != Some(7), || "the hold was over before the kill".to_owned());
        assert_eq!(status, Some(125));
        hands_over(&sandbox, waiter, began(&sandbox)[0] + hold);
    });
}

#[test]
fn a_boundary_that_is_lost_during_a_hold_ends_it_with_the_status_of_the_command() {
    let sandbox = Sandbox::new();
    let mut leader = job(&sandbox, "1h").start();
    holds(&leader);
    fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
    leader.ends_with(7);
    leader.wait_for_log("leadership lost; nothing was running");
}

#[test]
fn a_hold_can_be_set_by_a_variable_and_nonsense_is_refused() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).variable("ELECT_MIN_HOLD", "1h").shell(JOB).start();
    holds(&leader);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(7);
    ElectCmd::new(&sandbox).flag("--min-hold", "long").command(["true"]).run().fails_with(2, &["--min-hold", "long"]);
}
