//! An elect without the option, beside programs whose layout it would need: it looks for their keys, warns, and does not lead
//! beside a candidate that it finds.

use std::process::Stdio;
use std::time::Duration;

use etcd_client::{Client, Txn, TxnOp};

use super::holster::HolsterProgram;
use super::keys::Etcdctl;
use super::shared_elections::SharedElection;
use super::{LEASE, asks_once, candidate, patient};
use crate::harness::server::PASSWORD;
use crate::harness::wait::{throughout, until};
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
    let once = asks_once(&election.sandbox, format!("etcd://{}{path}", election.etcd.address()));
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
        waits_and_warns(&election, path, "is a candidate's of a program on holster's etcdutil", || program.close());
    }
}

#[test]
fn a_holster_program_that_comes_later_waits_and_takes_over() {
    // Below its own prefix it counts elect's keys: neither blocks the other.
    let election = SharedElection::new("foo", "/elections/foo", "?layout=holster");
    let store = format!("etcd://{}/elections", election.etcd.address());
    let elect = patient(&election.sandbox, store).boundary(election.boundary).witness(&Witness::new()).start();
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

/// Spellings that a user may take for one name: `etcdctl elect` of the first one leads, and elect with the second one waits for it.
#[test]
fn a_name_is_looked_for_with_and_without_slashes_around_it() {
    for (theirs, prefix, ours, path, said) in [
        ("/my-election/", "/my-election//", "my-election", "", "--boundary /my-election/;"),
        ("/my-election/", "/my-election//", "/my-election", "?layout=exact", "--boundary /my-election/;"),
        ("mine", "mine/", "/mine", "?layout=exact", "--boundary mine;"),
        ("mine", "mine/", "/mine", "", "--boundary mine;"),
        ("mine", "mine/", "mine/", "?layout=exact", "--boundary mine;"),
        ("//mine", "//mine/", "mine", "", "--boundary //mine;"),
        ("/elect/cron", "/elect/cron/", "/cron", "?layout=exact", "no layout in --store"),
    ] {
        let election = SharedElection::new(ours, prefix, "");
        let mut other = Etcdctl::elect(&election.etcd, &[theirs, "go-1"], Stdio::null());
        election.queue_has(1);
        waits_and_warns(&election, path, said, || other.stop());
    }
}

#[test]
fn two_elects_with_two_spellings_of_a_name_are_not_led_at_once() {
    let election = SharedElection::new("mine", "/elect/mine/", "");
    let leader = election.elect("web-1").start();
    election.sandbox.starts(1);
    let store = format!("etcd://{}?layout=exact", election.etcd.address());
    let other = candidate(&election.sandbox, store).boundary("/mine").witness(&Witness::new()).start();
    other.wait_for_log("an elect with other options");
    // It waits in its own queue, and the leader's successor is older: that one leads next, since the record says that the other one looks.
    let next = election.elect("web-2").start();
    next.wait_until_waiting();
    leader.terminate();
    election.sandbox.starts(2);
    next.terminate();
    election.sandbox.starts(3);
    other.terminate();
    assert_eq!(election.sandbox.history().overlaps, []);
}

/// etcdctl does not look beside its own keys: that elect's key is older is of no account.
#[test]
fn an_etcdctl_in_the_keys_of_elect_is_waited_for_by_an_older_candidate_of_another_layout() {
    for (name, prefix, layout) in [("/elect/mine", "/elect/mine/", "?layout=exact"), ("mine", "mine/", "")] {
        let election = SharedElection::new("mine", prefix, "");
        let first = start(&election, layout);
        election.sandbox.starts(1);
        let second = start(&election, layout);
        second.wait_until_waiting();
        let mut other = Etcdctl::elect(&election.etcd, &[name, "go-1"], Stdio::null());
        election.queue_has(1);
        first.terminate();
        second.wait_for_log("is a candidate's of etcdctl or a Go program");
        throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.len() == 1);
        other.stop();
        election.sandbox.starts(2);
        second.terminate();
        assert_eq!(election.sandbox.history().overlaps, []);
    }
}

/// So does an elect that was told to ignore others, and elect 0.1.0.
#[test]
fn an_elect_that_does_not_look_is_waited_for_by_an_older_candidate_of_another_layout() {
    let election = SharedElection::new("mine", "/elect/mine/", "");
    let first = start(&election, "?layout=exact");
    election.sandbox.starts(1);
    let second = start(&election, "?layout=exact");
    second.wait_until_waiting();
    let other = start(&election, "?others=ignore");
    election.sandbox.starts(2);
    first.terminate();
    second.wait_for_log("is a candidate's of an elect with other options");
    throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.len() == 2);
    other.terminate();
    election.sandbox.starts(3);
    second.terminate();
}

/// Ordinary keys before a candidate's.
fn put_keys(election: &SharedElection, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = Client::connect([election.etcd.address()], None).await.expect("a server that is up");
        for some in (0..count).collect::<Vec<_>>().chunks(100) {
            let puts: Vec<TxnOp> = some.iter().map(|at| TxnOp::put(format!("/app/{at:06}"), "x", None)).collect();
            client.txn(Txn::new().and_then(puts)).await.expect("put");
        }
    });
}

#[test]
fn ordinary_keys_hide_no_candidate() {
    for (theirs, count) in [("/app/", 300), ("/app", 2500)] {
        let election = SharedElection::new("app", &format!("{theirs}/"), "");
        put_keys(&election, count);
        let mut other = Etcdctl::elect(&election.etcd, &[theirs, "go-1"], Stdio::null());
        let has_key = || election.queue().len() > if theirs == "/app" { count } else { 0 };
        until("it campaigns", has_key);
        waits_and_warns(&election, "", &format!("--boundary {theirs};"), || other.stop());
    }
    let election = SharedElection::new("app", "/app/", "");
    put_keys(&election, 10_300);
    let elect = start(&election, "");
    elect.wait_for_log("more than 10000 keys begin with /app/");
    throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.is_empty());
    elect.terminate();
    let elect = start(&election, "?others=ignore");
    election.sandbox.starts(1);
    elect.terminate();
}

#[test]
fn a_prefix_for_each_environment_separates_elections() {
    let election = SharedElection::new("cron", "/elect/cron/", "");
    let paths = ["", "/staging", "/live"];
    let mut elects = Vec::new();
    for (at, path) in paths.into_iter().enumerate() {
        elects.push(start(&election, path));
        election.sandbox.starts(at + 1);
    }
    elects.into_iter().for_each(CandidateProcess::terminate);
}

#[test]
fn the_prefix_of_holster_is_warned_of_without_one_of_its_programs() {
    let election = SharedElection::new("foo", "/elections/foo", "");
    let elect = start(&election, "/elections");
    elect.wait_for_log("/elections/ is where holster's programs have their keys");
    elect.terminate();
}

#[test]
fn an_ordinary_key_is_shown_by_its_name_and_warned_of_and_its_value_is_a_secret() {
    let election = SharedElection::new("/app", "/app/", "?layout=exact");
    election.etcd.etcdctl(&["put", "/app/db_password", "hunter2"]);
    let elect = election.elect("web-1").flag("--follower", "env; exec sleep 1000").start();
    elect.wait_for_log("waiting: key /app/db_password leads");
    elect.wait_for_log("etcdctl del /app/db_password");
    let status = election.status();
    assert!(status.contains("key /app/db_password leads"), "{status}");
    assert!(!status.contains("hunter2") && !elect.log().contains("hunter2"), "{status}{}", elect.log());
    election.etcd.etcdctl(&["del", "/app/db_password"]);
    election.sandbox.starts(1);
    elect.terminate();
}

/// Below its own prefix a holster program counts elect's keys: one that waits behind ours is no reason not to lead.
#[test]
fn a_holster_program_that_waits_behind_an_elect_keeps_it_from_nothing() {
    let election = SharedElection::new("foo", "/elections/foo", "");
    let first = start(&election, "/elections");
    election.sandbox.starts(1);
    let second = start(&election, "/elections");
    second.wait_until_waiting();
    let program = HolsterProgram::start(&election.sandbox, &election.etcd.address(), "foo", "holster-1");
    election.queue_has(3);
    first.terminate();
    assert!(election.sandbox.starts(2).latest().term > 0, "elect leads, whose key is older");
    second.terminate();
    election.sandbox.starts(3);
    program.close();
    assert_eq!(election.sandbox.history().overlaps, []);
}

/// The role of a user that the manual describes: for the keys of one election alone.
#[test]
fn a_user_who_may_read_no_other_place_leads_after_few_requests_and_is_told_so_once() {
    for (prefix, options, told) in [("/elect/mine/", "", 0), ("mine/", "?layout=exact", 1)] {
        let election = SharedElection::new("mine", prefix, options);
        election.etcd.enable_auth();
        election.etcd.etcdctl(&["role", "grant-permission", "elect", "--prefix", "readwrite", prefix]);
        election.etcd.etcdctl(&["role", "grant-permission", "elect", "--prefix", "read", "elect.term/mine/"]);
        let txns = || election.etcd.requests().get("Txn").copied().unwrap_or_default();
        let before = txns();
        let elect = patient(&election.sandbox, election.store()).boundary("mine").flag("--name", "web-1");
        let elect =
            elect.flag("--username", "elect").variable("ELECT_PASSWORD", PASSWORD).witness(&Witness::new()).start();
        election.sandbox.starts(1);
        let asked = txns() - before;
        println!("figures: etcd: {asked} transactions of a user who may read no other place, until its command runs");
        // The look before its key is made, each of its places, and five of its own.
        assert!(asked < 25, "{asked} transactions");
        // Two looks later.
        throughout(Duration::from_secs(11), "it leads on", || election.sandbox.history().ends.is_empty());
        assert_eq!(elect.log().matches("the user may not read").count(), told, "{}", elect.log());
        elect.terminate();
    }
}

/// Neither record says that its candidate looks: each waits for the other one, whichever is older.
#[test]
fn of_two_candidates_in_each_others_way_that_start_at_the_same_time_one_leads_and_then_the_other_one() {
    let election = SharedElection::new("mine", "mine/", "");
    let one = start(&election, "?value=name");
    let other = start(&election, "?value=name&layout=exact");
    let first = election.sandbox.starts(1).latest();
    throughout(Duration::from_secs(1), "the other one waits", || election.sandbox.history().starts.len() == 1);
    let leads = |elect: &CandidateProcess| elect.tree().iter().any(|process| process.pid == first.pid);
    let (leader, next) = if leads(&one) { (one, other) } else { (other, one) };
    leader.terminate();
    election.sandbox.starts(2);
    next.terminate();
    assert_eq!(election.sandbox.history().overlaps, []);
}
