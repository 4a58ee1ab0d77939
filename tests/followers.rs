//! Followers: they run while another candidate leads, get each leader, and end before their own candidate leads.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::wait::throughout;
use crate::harness::{CandidateProcess, ElectCmd, LeaderEnv, Sandbox, Witness, eventually, processes, until};

/// A candidate at an address of its own, with a witness for a follower.
fn candidate(sandbox: &Sandbox, number: u16, follower: &Witness) -> ElectCmd {
    ElectCmd::new(sandbox)
        .flag("--name", &format!("host-{number}"))
        .flag("--advertise", &format!("10.0.0.{number}:{}", 8000 + number))
        .flag("--follower", &follower.line())
        .witness(&Witness::new())
}

fn followers(sandbox: &Sandbox, what: &str) -> Vec<LeaderEnv> {
    sandbox.followers().into_iter().filter(|told| told.what == what).collect()
}

/// The one of these candidates whose command this is.
fn position(candidates: &[CandidateProcess], pid: i32) -> usize {
    let has = |candidate: &CandidateProcess| candidate.tree().iter().any(|process| process.pid == pid);
    candidates.iter().position(has).expect("it is one of theirs")
}

/// Each that waits has been told of the present leader: by a start, or by a signal. Returns what it was told.
fn all_follow(sandbox: &Sandbox, leader: &LeaderEnv, count: usize, what: &str) -> Vec<LeaderEnv> {
    eventually("all follow the leader", || {
        let mut told = BTreeMap::new();
        for one in followers(sandbox, what).into_iter().filter(|one| one.at > leader.at || one.leader == leader.id) {
            told.insert(one.id.clone(), one);
        }
        told.remove(&leader.id);
        (told.len() == count).then(|| told.into_values().collect())
    })
}

/// Each leader's follower had ended when its command started.
fn followers_are_gone_in_time(sandbox: &Sandbox) {
    let told = sandbox.followers();
    for lead in told.iter().filter(|told| told.what == "lead") {
        let before = |what| told.iter().filter(move |one| one.what == what && one.id == lead.id && one.at < lead.at);
        assert_eq!(before("follow").count(), before("unfollow").count(), "{lead:?} in {told:?}");
    }
    sandbox.history().is_safe();
}

fn take_turns(sandbox: &Sandbox, mut candidates: Vec<CandidateProcess>) {
    let mut turn = 0;
    while !candidates.is_empty() {
        turn += 1;
        let led = sandbox.starts(turn).latest();
        let leads = eventually("its word", || followers(sandbox, "lead").into_iter().find(|lead| lead.pid == led.pid));
        assert_eq!((leads.role.as_str(), leads.leader.as_str()), ("leader", leads.id.as_str()));
        for told in all_follow(sandbox, &leads, candidates.len() - 1, "follow") {
            assert_eq!(told.leader(), leads.leader(), "{told:?}");
            assert_eq!((told.role.as_str(), told.term.as_str()), ("follower", "-"), "a term is a leader's");
        }
        let position = position(&candidates, led.pid);
        candidates.swap_remove(position).terminate();
    }
    followers_are_gone_in_time(sandbox);
    sandbox.is_left_empty();
}

#[test]
fn followers_are_told_of_every_leader_and_gone_before_their_own_candidate_leads() {
    let sandbox = Sandbox::new();
    let candidates = (1..=3).map(|number| candidate(&sandbox, number, &Witness::new().follower()).start()).collect();
    take_turns(&sandbox, candidates);
}

#[cfg(feature = "all-stores")]
#[test]
fn followers_are_told_of_every_leader_on_a_server_too() {
    let server = crate::QueueServer::start();
    let sandbox = Sandbox::new();
    let store = sandbox.below(&server.url());
    let start = |number| {
        let candidate = candidate(&sandbox, number, &Witness::new().follower());
        candidate.store(store.clone()).flag("--ttl", "12s").start()
    };
    take_turns(&sandbox, (1..=3).map(start).collect());
}

#[test]
fn a_follower_is_told_by_a_signal_or_not_at_all_if_that_was_asked_for() {
    let sandbox = Sandbox::new();
    let first = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let follow = |what: &str| {
        ElectCmd::new(&sandbox).flag("--follower", &Witness::new().follower().line()).flag("--follower-on-change", what)
    };
    let signalled = follow("SIGUSR1").witness(&Witness::new()).start();
    let ignoring = follow("ignore").witness(&Witness::new()).start();
    until("both follow", || followers(&sandbox, "follow").len() == 2);
    first.terminate();
    // One of the two leads now. The other is what it was, and has or has not had the signal.
    let led = sandbox.starts(2).latest();
    let mut candidates = vec![signalled, ignoring];
    let leader = candidates.remove(position(&candidates, led.pid));
    let other = candidates.remove(0);
    other.wait_for_log("waiting: ");
    until("another leader is known", || other.log().lines().filter(|line| line.contains("waiting: ")).count() == 2);
    let is_signalled = other.number == 1;
    if is_signalled {
        until("the signal has arrived", || followers(&sandbox, "signal").len() == 1);
    } else {
        throughout(Duration::from_millis(1500), "nothing happens", || followers(&sandbox, "signal").is_empty());
    }
    assert_eq!(followers(&sandbox, "follow").len(), 2, "nobody was restarted");
    assert_eq!(followers(&sandbox, "unfollow").len(), 1, "but for the one whose candidate leads");
    other.terminate();
    leader.terminate();
    followers_are_gone_in_time(&sandbox);
    sandbox.is_left_empty();
}

#[test]
fn a_follower_that_does_not_stop_is_killed_before_its_candidate_leads() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let stubborn = Witness::new().follower().daemon().stubborn();
    let next = candidate(&sandbox, 1, &stubborn).flag("--stop-timeout", "300ms").start();
    sandbox.history_when("the follower's grandchild", |history| !history.grandchildren.is_empty());
    let follower = followers(&sandbox, "follow")[0].pid;
    let end = sandbox.watch_the_end_of(follower);
    leader.terminate();
    let started = sandbox.starts(2).latest();
    let ended = end.join().expect("the watch on the follower");
    assert!(ended < started.at, "{ended:?} and {started:?}");
    next.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_follower_that_ends_is_not_the_end_and_is_started_again_if_that_was_asked_for() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut once = ElectCmd::new(&sandbox).flag("--follower", "exit 3").witness(&Witness::new()).start();
    once.wait_for_log("follower ended status=3");
    throughout(Duration::from_secs(1), "once", || once.log().matches("follower started").count() == 1);
    let again = ElectCmd::new(&sandbox).flag("--follower", "exit 3").flag("--restart", "on-failure");
    let again = again.witness(&Witness::new()).start();
    until("it is started again and again", || again.log().matches("follower started").count() > 3);
    assert!(!once.has_ended());
    once.signal(Signal::SIGTERM);
    once.ends_by(Signal::SIGTERM);
    again.terminate();
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_follower_inherits_nothing_that_is_a_leaders() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).flag("--advertise", "db.example").witness(&Witness::new()).start();
    sandbox.starts(1);
    let script = "env | grep ^ELECT_ | sort; ls /proc/$$/fd; readlink /proc/$$/fd/0; exec sleep 600";
    let follower = ElectCmd::new(&sandbox)
        .variable("ELECT_TERM", "inherited")
        .variable("ELECT_LEADER_PORT", "inherited")
        .variable("ELECT_ROLE", "leader")
        .flag("--follower", script)
        .witness(&Witness::new())
        .start();
    until("it has said all", || follower.output().contains("/dev/null"));
    let output = follower.output();
    let names: Vec<&str> = output.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let known = ["BOUNDARY", "ID", "LEADER_HOST", "LEADER_ID", "LEADER_NAME", "NAME", "ROLE", "SOCKET", "STORE"];
    assert_eq!(names, known.map(|name| format!("ELECT_{name}")), "{output}");
    assert!(output.contains("ELECT_ROLE=follower") && output.contains("ELECT_LEADER_HOST=db.example"), "{output}");
    let mut numbers: Vec<&str> = output.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["0", "1", "2"], "without the lock: {output}");
    follower.terminate();
    leader.terminate();
    sandbox.is_left_empty();
}

// ---- signals while following

/// A leader, and a candidate that follows it.
struct FollowerScenario {
    sandbox: Sandbox,
    leader: CandidateProcess,
    follower: CandidateProcess,
}

impl FollowerScenario {
    fn with(witness: &Witness, flags: &[(&str, &str)]) -> FollowerScenario {
        let sandbox = Sandbox::new();
        let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(1);
        let candidate =
            flags.iter().fold(candidate(&sandbox, 1, witness), |elect, (name, value)| elect.flag(name, value));
        let follower = candidate.start();
        until("it follows", || followers(&sandbox, "follow").len() == 1);
        if witness.has_daemon() {
            sandbox.history_when("the follower's grandchild", |history| !history.grandchildren.is_empty());
        }
        FollowerScenario { sandbox, leader, follower }
    }

    /// The leader has noticed nothing, and nothing is left of the other.
    fn leaves_the_leader_alone(self) {
        let FollowerScenario { sandbox, leader, follower } = self;
        until("nothing is left of the follower", || follower.all().is_empty());
        assert_eq!(sandbox.history().starts.len(), 1);
        leader.terminate();
        sandbox.history().is_safe();
        sandbox.is_left_empty();
    }
}

#[test]
fn a_stop_signal_while_following_ends_with_the_followers_status() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut following = FollowerScenario::with(&Witness::new().follower().daemon().exits_with(7), &[]);
        following.follower.signal(signal);
        following.follower.ends_with(7);
        following.leaves_the_leader_alone();
    }
}

#[test]
fn a_second_stop_signal_while_following_kills_at_once() {
    let stubborn = Witness::new().follower().daemon().stubborn();
    let mut following = FollowerScenario::with(&stubborn, &[("--stop-timeout", "1h")]);
    following.follower.signal(Signal::SIGTERM);
    following.follower.wait_for_log("stopping the follower");
    assert!(!following.follower.has_ended(), "it has an hour");
    following.follower.signal(Signal::SIGTERM);
    following.follower.ends_with(137);
    following.leaves_the_leader_alone();
}

#[test]
fn other_signals_while_following_are_the_followers() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let script = "for s in HUP USR1 USR2 WINCH; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.05; done";
    let mut follower = ElectCmd::new(&sandbox).flag("--follower", script).witness(&Witness::new()).start();
    until("the follower is ready", || follower.output().contains("ready"));
    for (signal, name) in
        [(Signal::SIGHUP, "HUP"), (Signal::SIGUSR1, "USR1"), (Signal::SIGUSR2, "USR2"), (Signal::SIGWINCH, "WINCH")]
    {
        follower.signal(signal);
        until(&format!("{name} has arrived"), || follower.output().contains(name));
    }
    assert!(!follower.has_ended());
    follower.terminate();
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_killed_campaigner_or_keeper_takes_the_follower_along() {
    let stubborn = || Witness::new().follower().daemon().stubborn();
    let mut following = FollowerScenario::with(&stubborn(), &[("--stop-timeout", "300ms")]);
    following.follower.signal(Signal::SIGKILL);
    following.follower.ends_by(Signal::SIGKILL);
    following.leaves_the_leader_alone();
    let mut following = FollowerScenario::with(&stubborn(), &[]);
    processes::signal(following.follower.keeper(), Signal::SIGKILL);
    following.follower.ends_with(125);
    following.leaves_the_leader_alone();
}

#[test]
fn a_stopped_keeper_with_a_follower_costs_the_win_and_nobody_leads_beside_it() {
    let mut following = FollowerScenario::with(&Witness::new().follower().daemon(), &[("--stop-timeout", "300ms")]);
    processes::signal(following.follower.keeper(), Signal::SIGSTOP);
    let third = ElectCmd::new(&following.sandbox).witness(&Witness::new()).start();
    third.wait_until_waiting();
    let FollowerScenario { sandbox, leader, .. } = &mut following;
    leader.signal(Signal::SIGTERM);
    leader.ends_with(0);
    // In either order of wins the third one leads: the other has a follower whose death cannot be confirmed.
    let led = sandbox.starts(2).latest();
    assert!(third.tree().iter().any(|process| process.pid == led.pid));
    // K4: after ten seconds of silence the keeper is killed, and its tree with it.
    following.follower.ends_with(125);
    until("nothing is left of the follower", || following.follower.all().is_empty());
    third.terminate();
    following.sandbox.history().is_safe();
    following.sandbox.is_left_empty();
}

// ---- without a leader command

#[test]
fn without_a_command_a_candidate_follows_and_leads_all_the_same() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut other = ElectCmd::new(&sandbox).flag("--follower", &Witness::new().follower().exits_with(7).line()).start();
    until("it follows", || followers(&sandbox, "follow").len() == 1);
    leader.terminate();
    other.wait_for_log("elected term=");
    assert_eq!(followers(&sandbox, "unfollow").len(), 1);
    let status = ElectCmd::new(&sandbox).status(&["cron", "--json"]).run();
    assert!(status.stdout.contains("\"leader\":{"), "{status:?}");
    // HUP is for a command, and there is none. Without a terminal it means no end.
    other.signal(Signal::SIGHUP);
    other.signal(Signal::SIGTERM);
    other.ends_by(Signal::SIGTERM);
    assert_eq!(ElectCmd::new(&sandbox).status(&["cron"]).run().status.code(), Some(3), "and it is given back");
    sandbox.is_left_empty();
}

#[test]
fn a_killed_campaigner_without_a_command_hands_over_at_once() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).flag("--on-change", "true").start();
    leader.wait_for_log("elected term=");
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    sandbox.starts(1);
    next.terminate();
    sandbox.is_left_empty();
}

#[test]
fn what_makes_no_sense_is_said() {
    let sandbox = Sandbox::new();
    let run = |elect: ElectCmd| elect.run();
    run(ElectCmd::new(&sandbox).flag("--follower-on-change", "restart").command(["true"]))
        .fails_with(2, &["--follower"]);
    let wrong =
        ElectCmd::new(&sandbox).flag("--follower", "true").flag("--follower-on-change", "SIGNAL").command(["true"]);
    run(wrong).fails_with(2, &["restart, ignore, or a signal"]);
    run(ElectCmd::new(&sandbox).flag("--follower", "").command(["true"])).fails_with(2, &["--follower"]);
    run(ElectCmd::new(&sandbox).flag("--hook-timeout", "0").command(["true"])).fails_with(2, &["--hook-timeout"]);
    run(ElectCmd::new(&sandbox)).fails_with(2, &["no command", "--follower"]);
}
