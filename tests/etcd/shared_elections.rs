//! Elections of other programs, in their own layout: etcdctl's, those of Go programs, and holster's.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::holster::{HOLSTER_TTL, HolsterProgram};
use super::keys::Etcdctl;
use super::{LEASE, candidate};
use crate::etcd::server::EtcdServer;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, is_long, millis, processes};

/// Names that elect's own layout cannot express, and the prefix of the keys that etcdctl makes of each.
const NAMES: [(&str, &str); 5] =
    [("mine", "mine/"), ("/mine", "/mine/"), ("/mine/", "/mine//"), ("a//b", "a//b/"), ("50%/done%2F", "50%/done%2F/")];

/// An election of other programs, and elect in it.
pub struct SharedElection {
    pub etcd: EtcdServer,
    pub sandbox: Sandbox,
    pub boundary: &'static str,
    /// What the keys of its candidates begin with.
    prefix: String,
    options: &'static str,
}

impl SharedElection {
    /// `prefix`: of its keys.
    pub fn new(boundary: &'static str, prefix: &str, options: &'static str) -> SharedElection {
        let (etcd, sandbox) = (EtcdServer::start(), Sandbox::new());
        SharedElection { etcd, sandbox, boundary, prefix: prefix.to_owned(), options }
    }

    pub fn store(&self) -> String {
        self.store_at(&self.etcd.address())
    }

    fn store_at(&self, address: &str) -> String {
        format!("etcd://{address}{}", self.options)
    }

    pub fn elect(&self, name: &str) -> ElectCmd {
        self.elect_at(&self.etcd.address(), name)
    }

    fn elect_at(&self, address: &str, name: &str) -> ElectCmd {
        let elect = candidate(&self.sandbox, self.store_at(address)).boundary(self.boundary).flag("--name", name);
        elect.witness(&Witness::new())
    }

    /// `etcdctl lock`, which runs the witness.
    pub fn lock(&self) -> CandidateProcess {
        let address = self.etcd.address();
        let words = ["etcdctl", "--endpoints", &address, "lock", "--ttl=60", self.boundary, "--"];
        let lock = ElectCmd::new(&self.sandbox).program(words.map(str::to_owned));
        lock.variable("ETCDCTL_API", "3").witness(&Witness::new()).start()
    }

    fn campaign_of_etcdctl(&self, proposal: &str, output: Stdio) -> Etcdctl {
        Etcdctl::elect(&self.etcd, &[self.boundary, proposal], output)
    }

    fn holster(&self, name: &str, candidate: &str) -> HolsterProgram {
        HolsterProgram::start(&self.sandbox, &self.etcd.address(), name, candidate)
    }

    pub fn queue(&self) -> Vec<String> {
        let words = ["get", "--prefix", "--keys-only", "--sort-by=CREATE", "--order=ASCEND", &self.prefix];
        self.etcd.etcdctl(&words).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[track_caller]
    pub fn queue_has(&self, count: usize) {
        until(&format!("{count} in the queue"), || self.queue().len() == count);
    }

    pub fn status(&self) -> String {
        ElectCmd::new(&self.sandbox).store(self.store()).status(&[self.boundary]).run().stdout
    }

    fn wait(&self, condition: &str) -> Ended {
        let words = [self.boundary, "--for", condition, "--timeout", "20s"];
        ElectCmd::new(&self.sandbox).store(self.store()).query("wait", &words).run()
    }

    /// The witness that runs now is asked to end.
    pub fn end_command(&self) {
        processes::signal(self.sandbox.history().latest().pid, Signal::SIGTERM);
    }
}

/// Of each program, in each direction.
fn turns() -> usize {
    if is_long() { 20 } else { 2 }
}

/// The terms of elect's own leaders rise; other programs' witnesses have none.
#[track_caller]
fn is_safe(sandbox: &Sandbox) -> usize {
    let history = sandbox.history();
    assert_eq!(history.overlaps, [], "two at once: {history:?}");
    let terms: Vec<u64> = history.starts.iter().map(|start| start.term).filter(|&term| term > 0).collect();
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
    history.starts.len()
}

#[test]
fn etcdctl_lock_and_elect_take_turns_on_every_name() {
    for (name, prefix) in NAMES {
        let election = SharedElection::new(name, prefix, "?layout=exact");
        let mut elect = election.elect("web-1").start();
        election.sandbox.starts(1);
        for turn in 1..=turns() {
            let mut lock = election.lock();
            election.queue_has(2);
            assert!(election.status().contains("web-1 leads"), "{}", election.status());
            elect.terminate();
            election.sandbox.starts(2 * turn);
            let lease = election.queue()[0].rsplit('/').next().expect("a part").to_owned();
            assert!(election.status().contains(&format!("lease {lease} leads")), "{}", election.status());
            elect = election.elect("web-1").start();
            elect.wait_for_log("waiting: lease ");
            election.end_command();
            lock.wait();
            election.sandbox.starts(2 * turn + 1);
        }
        elect.terminate();
        let led = is_safe(&election.sandbox);
        println!(
            "figures: shared elections: etcdctl lock {name}: {} turns each way, 0 overlaps of {led} leaders",
            turns()
        );
    }
}

#[test]
fn etcdctl_elect_and_elect_take_turns_on_every_name() {
    for (name, prefix) in NAMES {
        let election = SharedElection::new(name, prefix, "?layout=exact");
        let mut elect = election.elect("web-1").start();
        election.sandbox.starts(1);
        for turn in 1..=turns() {
            let won = election.sandbox.path().join("won");
            let output = std::fs::File::create(&won).expect("a file");
            let mut other = election.campaign_of_etcdctl("somebody else", output.into());
            let has_won = || std::fs::read_to_string(&won).is_ok_and(|text| text.contains("somebody else"));
            election.queue_has(2);
            assert!(!has_won(), "it waits");
            let has_seen = std::thread::scope(|scope| {
                let seen = scope.spawn(|| eventually("etcdctl leads", || has_won().then(now)));
                elect.terminate();
                seen.join().expect("etcdctl leads")
            });
            // The witness itself says when it ended.
            let ended = election.sandbox.history_when("the command ended", |history| history.ends.len() == turn).ends
                [turn - 1]
                .at;
            assert!(
                ended <= has_seen,
                "the command ended {} after etcdctl led",
                millis(ended.saturating_sub(has_seen))
            );
            elect = election.elect("web-1").start();
            elect.wait_for_log("waiting: somebody else leads");
            assert!(election.status().contains("somebody else leads, term "), "{}", election.status());
            assert_eq!(election.sandbox.history().starts.len(), turn, "it waits");
            other.stop();
            election.sandbox.starts(turn + 1);
        }
        elect.terminate();
        assert_eq!(is_safe(&election.sandbox), turns() + 1);
        println!(
            "figures: shared elections: etcdctl elect {name}: {} turns each way, no command outlived its term",
            turns()
        );
    }
}

#[test]
fn watch_and_wait_follow_other_programs() {
    let election = SharedElection::new("/my-election/", "/my-election//", "?layout=exact");
    let watch = ElectCmd::new(&election.sandbox).store(election.store()).query("watch", &[election.boundary]).start();
    until("it watches", || watch.output().contains("no leader"));
    let mut other = election.campaign_of_etcdctl("go-1", Stdio::null());
    assert_eq!(election.wait("name=go-1").status.code(), Some(0));
    until("the watch has seen it", || watch.output().contains("go-1 leads"));
    let elect = election.elect("web-1").start();
    elect.wait_until_waiting();
    other.stop();
    assert_eq!(election.wait("name=web-1").status.code(), Some(0));
    until("the watch has seen it", || watch.output().contains("web-1 leads"));
    elect.terminate();
    assert_eq!(election.wait("none").status.code(), Some(0));
    watch.terminate();
}

#[test]
fn a_value_that_is_a_name_is_shown_as_one_by_etcdctl_and_by_elect() {
    let election = SharedElection::new("mine", "mine/", "?layout=exact&value=name");
    let heard = election.sandbox.path().join("heard");
    let file = std::fs::File::create(&heard).expect("a file");
    let _listener = Etcdctl::elect(&election.etcd, &["--listen", "mine"], file.into());
    let leader = election.elect("web-1").start();
    until("the listener has heard of it", || std::fs::read_to_string(&heard).is_ok_and(|text| text.contains("web-1")));
    election.sandbox.starts(1);
    let waiter = election.elect("web-2").start();
    waiter.wait_for_log("waiting: web-1 leads");
    until("it is shown", || election.status().contains("waiting: web-2"));
    let said = std::fs::read_to_string(&heard).expect("its output");
    assert!(said.lines().all(|line| line == "web-1" || line.starts_with("mine/")), "the name alone: {said}");
    assert_eq!(said.lines().filter(|line| *line == "web-1").count(), 1, "it is written once in a term: {said}");
    assert_eq!(election.etcd.etcdctl(&["get", "elect.term/", "--prefix"]), "", "terms are revisions");
    leader.terminate();
    election.sandbox.starts(2);
    waiter.terminate();
    is_safe(&election.sandbox);
}

#[test]
fn a_successor_cannot_be_named_where_the_value_is_a_name_and_nothing_is_stopped() {
    for (prefix, options) in [("/elect/no-successor/", "?value=name"), ("/elections/no-successor", "?layout=holster")] {
        let election = SharedElection::new("no-successor", prefix, options);
        let leader = election.elect("web-1").start();
        leader.wait_for_log("leader command started");
        let waiter = election.elect("web-2").start();
        waiter.wait_until_waiting();
        let resign = |words: &[&str]| {
            let id = leader_id(&election);
            let all = [&["--boundary", "no-successor", "--id", &id][..], words].concat();
            ElectCmd::new(&election.sandbox).store(None).query("resign", &all).run()
        };
        resign(&["--to", "web-2"]).fails_with(3, &["?value=name", "cannot name a successor"]);
        assert_eq!(election.sandbox.history().ends.len(), 0, "the command was stopped");
        assert_eq!(resign(&[]).status.code(), Some(0), "without a successor it can");
        election.sandbox.starts(2);
        waiter.terminate();
        leader.terminate();
        is_safe(&election.sandbox);
    }
}

/// By its control socket, of the one that leads here.
pub fn leader_id(election: &SharedElection) -> String {
    eventually("one leads", || {
        let words = ["--self", election.boundary, "--json"];
        let shown = ElectCmd::new(&election.sandbox).store(None).query("status", &words).run();
        let shown: serde_json::Value = serde_json::from_str(shown.stdout.trim()).ok()?;
        let leads = |one: &&serde_json::Value| one["name"] == "web-1" && one["is_leader"] == true;
        Some(shown.as_array()?.iter().find(leads)?["id"].as_str()?.to_owned())
    })
}

#[test]
fn elect_in_one_election_with_a_changed_option_waits_until_all_have_it() {
    // Candidates with the usual terms, which are larger, and then one with ?value=name.
    let before = SharedElection::new("mine", "/elect/mine/", "");
    let old = before.elect("web-1").start();
    before.sandbox.starts(1);
    let with_option = format!("{}?value=name", before.store());
    let new = candidate(&before.sandbox, with_option).boundary("mine").witness(&Witness::new()).start();
    new.wait_for_log("give all candidates of a boundary the same option");
    old.terminate();
    new.wait_for_log("drop the option");
    throughout(Duration::from_secs(1), "it waits", || before.sandbox.history().starts.len() == 1);
    before.etcd.etcdctl(&["del", "--prefix", "elect.term/"]);
    // It has seen the larger terms, and its own would be below them.
    new.wait_for_log("restart this candidate");
    throughout(Duration::from_secs(1), "it waits", || before.sandbox.history().starts.len() == 1);
    new.terminate();
    let store = format!("{}?value=name", before.store());
    let new = candidate(&before.sandbox, store).boundary("mine").witness(&Witness::new()).start();
    before.sandbox.starts(2);
    new.terminate();
    assert_eq!(before.sandbox.history().overlaps, []);
}

#[test]
fn elections_of_other_layouts_are_not_listed_and_paths_not_taken() {
    let election = SharedElection::new("mine", "mine/", "?layout=exact");
    for command in ["status", "watch"] {
        let ended = ElectCmd::new(&election.sandbox).store(election.store()).query(command, &[]).run();
        ended.fails_with(2, &["?layout=exact", "name one"]);
    }
    let address = election.etcd.address();
    for (url, said) in [("/p?layout=exact", "--boundary"), ("/elections?layout=holster", "--boundary")] {
        let store = format!("etcd://{address}{url}");
        ElectCmd::new(&election.sandbox).store(store).command(["true"]).run().fails_with(2, &[said]);
    }
    let holster = || candidate(&election.sandbox, format!("etcd://{address}?layout=holster"));
    holster().boundary("a/").command(["true"]).run().fails_with(2, &["?layout=holster", "a/b"]);
    let long: &str = Box::leak("x".repeat(200).into_boxed_str());
    assert_eq!(holster().boundary(long).command(["true"]).run().status.code(), Some(0));
    ElectCmd::new(&election.sandbox).boundary(long).command(["true"]).run().fails_with(2, &["at most 80 bytes"]);
}

// ---- holster

#[test]
fn a_holster_program_and_elect_take_turns() {
    let election = SharedElection::new("taking-turns", "/elections/taking-turns", "?layout=holster");
    let program = election.holster("taking-turns", "holster-1");
    election.sandbox.starts(1);
    let elect = election.elect("web-1").start();
    elect.wait_for_log("waiting: holster-1 leads");
    let mut starts = 1;
    for _ in 0..turns() {
        program.concede();
        starts += 1;
        assert!(election.sandbox.starts(starts).latest().term > 0, "elect leads");
        until("the program knows", || program.leader().as_deref() == Some("web-1"));
        election.queue_has(2);
        let resigned =
            ElectCmd::new(&election.sandbox).store(None).query("resign", &["--boundary", "taking-turns"]).run();
        assert_eq!(resigned.status.code(), Some(0), "{resigned:?}");
        starts += 1;
        assert_eq!(election.sandbox.starts(starts).latest().term, 0, "the program leads");
        election.queue_has(2);
        assert!(election.status().contains("holster-1 leads"), "{}", election.status());
    }
    program.close();
    election.sandbox.starts(starts + 1);
    elect.terminate();
    is_safe(&election.sandbox);
    println!("figures: shared elections: holster: {} turns each way, 0 overlaps", turns());
}

#[test]
fn a_holster_program_follows_an_elect_that_is_killed_or_cut_off() {
    let election = SharedElection::new("presidental", "/elections/presidental", "?layout=holster");
    let proxy = Proxy::to(&election.etcd.address());
    let cut = election.elect_at(&proxy.address(), "web-1").start();
    election.sandbox.starts(1);
    let program = election.holster("presidental", "holster-1");
    election.queue_has(2);
    let struck = now();
    proxy.mode(ProxyMode::BlackHole);
    assert_eq!(election.sandbox.starts(2).latest().term, 0, "the program leads");
    assert!(since(struck) > LEASE / 2, "not before the lease had run out");
    is_safe(&election.sandbox);
    proxy.mode(ProxyMode::Open);
    election.queue_has(2);
    program.close();
    election.sandbox.starts(3);
    let program = election.holster("presidental", "holster-2");
    election.queue_has(2);
    cut.ends_killed();
    election.sandbox.starts(4);
    program.close();
    is_safe(&election.sandbox);
}

#[test]
fn elect_follows_a_holster_program_that_is_cut_off_once_its_lease_is_over() {
    let election = SharedElection::new("presidental", "/elections/presidental", "?layout=holster");
    let proxy = Proxy::to(&election.etcd.address());
    let program = HolsterProgram::start(&election.sandbox, &proxy.address(), "presidental", "holster-1");
    election.sandbox.starts(1);
    let elect = election.elect("web-1").start();
    elect.wait_for_log("waiting: holster-1 leads");
    let struck = now();
    proxy.mode(ProxyMode::BlackHole);
    let started = election.sandbox.starts(2).latest();
    let after = started.at.saturating_sub(struck);
    let ttl = Duration::from_secs(HOLSTER_TTL.unsigned_abs());
    assert!(after > ttl / 2, "its lease was respected: {after:?}");
    // The program looks once in a ttl whether it still has its lease: what overlaps is its doing, and as it is among its own kind.
    let history = election.sandbox.history_when("the program has noticed", |history| !history.ends.is_empty());
    let noticed = history.ends[0].at.saturating_sub(struck);
    println!(
        "figures: shared elections: a holster leader that is cut off: elect leads after {}, its command ends after {}",
        millis(after),
        millis(noticed)
    );
    assert!(noticed < 3 * ttl, "{noticed:?}");
    proxy.mode(ProxyMode::Open);
    election.queue_has(2);
    elect.terminate();
    election.sandbox.starts(3);
    program.close();
}

#[test]
fn with_foo_beside_foobar_elect_waits_for_both_and_warns() {
    let election = SharedElection::new("foo", "/elections/foo", "?layout=holster");
    let program = election.holster("foobar", "holster-1");
    election.sandbox.starts(1);
    let elect = election.elect("web-1").start();
    elect.wait_for_log("waiting: key /elections/foobar");
    elect.wait_for_log("counts in this one, because it begins with /elections/foo");
    throughout(Duration::from_secs(1), "it waits", || election.sandbox.history().starts.len() == 1);
    program.close();
    election.sandbox.starts(2);
    elect.terminate();
    is_safe(&election.sandbox);
}
