//! An elect without the option, beside programs whose layout it would need: it looks for their keys, warns, and does not lead
//! beside a candidate that it finds.

use std::process::Stdio;
use std::time::Duration;

use super::holster::HolsterProgram;
use super::keys::Etcdctl;
use super::shared_elections::SharedElection;
use super::{LEASE, candidate};
use crate::harness::wait::throughout;
use crate::harness::{CandidateProcess, Witness};

fn start(election: &SharedElection, path: &str) -> CandidateProcess {
    let store = format!("etcd://{}{path}", election.etcd.address());
    candidate(&election.sandbox, store).boundary(election.boundary).witness(&Witness::new()).start()
}

/// With this path in its URL, elect finds a candidate of another layout, says so, and leads once it is gone.
#[track_caller]
fn waits_and_warns(election: &SharedElection, path: &str, said: &str, end: impl FnOnce()) {
    let before = election.sandbox.history().starts.len();
    let elect = start(election, path);
    elect.wait_for_log(said);
    let line = elect.log().lines().find(|line| line.contains(said)).expect("just seen").to_owned();
    assert!(line.contains("warning: ") && line.contains("others=ignore"), "{line}");
    let once = candidate(&election.sandbox, format!("etcd://{}{path}", election.etcd.address())).switch("-n");
    assert_eq!(once.boundary(election.boundary).command(["true"]).run().status.code(), Some(75));
    throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.len() == before);
    end();
    election.sandbox.starts(before + 1);
    elect.terminate();
    assert_eq!(election.sandbox.history().overlaps, []);
}

#[test]
fn a_lock_of_etcdctl_is_waited_for_wherever_its_name_is_ours() {
    for (boundary, prefix, path) in
        [("mine", "mine/", ""), ("/mine/", "/mine//", "/p"), ("b/c", "b/c/", ""), ("mine", "mine/", "?layout=holster")]
    {
        let election = SharedElection::new(boundary, prefix, "?layout=exact");
        let mut lock = election.lock();
        election.sandbox.starts(1);
        waits_and_warns(&election, path, "layout=exact", || {
            election.end_command();
            lock.wait();
        });
    }
}

#[test]
fn a_campaign_of_etcdctl_is_waited_for_and_status_says_why() {
    let election = SharedElection::new("mine", "/mine/", "");
    let mut other = Etcdctl::elect(&election.etcd, &["/mine", "go-1"], Stdio::null());
    election.queue_has(1);
    assert!(
        election.status().contains("no leader") && election.status().contains("layout=exact"),
        "{}",
        election.status()
    );
    waits_and_warns(&election, "", "--boundary /mine", || other.stop());
}

#[test]
fn a_holster_program_is_waited_for_with_its_prefix_and_without() {
    for path in ["", "/elections", "?layout=exact"] {
        let election = SharedElection::new("foo", "/elections/foo", "?layout=holster");
        let program = HolsterProgram::start(&election.sandbox, &election.etcd.address(), "foo", "holster-1");
        election.sandbox.starts(1);
        waits_and_warns(&election, path, "layout=holster", || program.close());
    }
}

#[test]
fn a_holster_program_that_comes_later_waits_and_takes_over() {
    // Below its own prefix it counts elect's keys: neither blocks the other.
    let election = SharedElection::new("foo", "/elections/foo", "?layout=holster");
    let elect = start(&election, "/elections");
    election.sandbox.starts(1);
    let program = HolsterProgram::start(&election.sandbox, &election.etcd.address(), "foo", "holster-1");
    election.queue_has(2);
    elect.wait_for_log("layout=holster");
    throughout(LEASE, "elect leads", || election.sandbox.history().starts.len() == 1);
    elect.terminate();
    election.sandbox.starts(2);
    program.close();
    assert_eq!(election.sandbox.history().overlaps, []);
}

#[test]
fn an_elect_with_other_options_is_waited_for() {
    for (first, second) in [("", "?layout=exact"), ("?layout=exact&value=name", ""), ("", "?layout=holster")] {
        let election = SharedElection::new("mine", "mine/", first);
        let leader = election.elect("web-1").start();
        election.sandbox.starts(1);
        waits_and_warns(&election, second, "in another layout", || leader.terminate());
    }
}

#[test]
fn a_waiter_looks_again_before_it_leads() {
    let election = SharedElection::new("mine", "mine/", "");
    let leader = election.elect("web-1").start();
    election.sandbox.starts(1);
    let waiter = election.elect("web-2").start();
    waiter.wait_until_waiting();
    let mut other = Etcdctl::elect(&election.etcd, &["mine", "go-1"], Stdio::null());
    election.queue_has(1);
    leader.terminate();
    waiter.wait_for_log("waiting: the key mine/");
    throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.len() == 1);
    other.stop();
    election.sandbox.starts(2);
    waiter.terminate();
}

#[test]
fn a_leader_warns_of_a_candidate_that_comes_later_in_another_layout() {
    let election = SharedElection::new("mine", "mine/", "");
    let elect = election.elect("web-1").start();
    election.sandbox.starts(1);
    let _other = Etcdctl::elect(&election.etcd, &["mine", "go-1"], Stdio::null());
    elect.wait_for_log("layout=exact");
    assert_eq!(election.sandbox.history().ends.len(), 0, "it goes on");
    elect.terminate();
}

#[test]
fn others_are_not_looked_for_if_the_user_says_that_they_are_other_elections() {
    let election = SharedElection::new("mine", "mine/", "?others=ignore");
    let _other = Etcdctl::elect(&election.etcd, &["mine", "go-1"], Stdio::null());
    election.queue_has(1);
    let elect = election.elect("web-1").start();
    election.sandbox.starts(1);
    elect.terminate();
}
