//! What other hands do to the keys, and what other programs make of them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, candidate, relay};
use crate::harness::etcd::Etcd;
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{Candidate, Elect, Figures, Place, Witness, few, processes};

/// A server of its own, with the usual prefix: what `etcdctl` is told can be read here.
pub struct Hall {
    pub etcd: Etcd,
    pub place: Place,
}

impl Hall {
    pub fn new() -> Hall {
        Hall { etcd: Etcd::start(), place: Place::new() }
    }

    pub fn candidate(&self) -> Elect {
        candidate(&self.place, self.etcd.url())
    }

    pub fn start(&self) -> Candidate {
        self.candidate().witness(&Witness::new().daemon()).start()
    }

    /// The keys of `cron`, in the order of the queue.
    pub fn queue(&self) -> Vec<String> {
        let words = ["get", "--prefix", "--keys-only", "--sort-by=CREATE", "--order=ASCEND", "/elect/cron/"];
        self.etcd.etcdctl(&words).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    pub fn key(&self, number: usize) -> String {
        self.queue().into_iter().nth(number).expect("so many candidates")
    }

    pub fn lease(&self, number: usize) -> String {
        self.key(number).rsplit('/').next().expect("the last part").to_owned()
    }

    /// A leader and a waiter; then something is done to the leader's claim, and the waiter takes over at once.
    fn strikes(&self, what: &str, strike: impl Fn()) {
        let mut figures = Figures::default();
        let mut leader = self.start();
        for run in 1..=few() {
            let led = self.place.starts(run).latest();
            let next = self.start();
            next.waits();
            let end = self.place.watch_the_end_of(led.pid);
            strike();
            let struck = now();
            let started = self.place.starts(run + 1).latest();
            let ended = end.join().expect("the watch on the old tree");
            // Not before: the next one did not wait for it.
            figures.survivors += leader.tree().len();
            figures.endings.push(ended.saturating_sub(struck));
            figures.handovers.push(started.at.max(ended).saturating_sub(ended));
            leader.says("leadership lost: killing the leader command");
            leader.stops();
            leader = next;
        }
        leader.stops();
        figures.overlaps = self.place.history().overlaps.len();
        figures.print(&format!("etcd: {what}"));
        assert_eq!(figures.survivors, 0, "{what}");
        // The next one did not wait for it: whoever deletes keys has the term, and it has risen.
        let terms: Vec<u64> = self.place.history().starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
        let latest = figures.endings.iter().max().copied().unwrap_or_default();
        assert!(latest < LEASE / 6, "killed at once, by the watch and not by a renewal: {latest:?}");
    }
}

#[test]
fn a_leader_whose_key_is_deleted_is_killed_at_once() {
    let hall = Hall::new();
    hall.strikes("the leader's key deleted", || drop(hall.etcd.etcdctl(&["del", &hall.key(0)])));
}

#[test]
fn a_leader_whose_lease_is_revoked_is_killed_at_once() {
    let hall = Hall::new();
    hall.strikes("the leader's lease revoked", || drop(hall.etcd.etcdctl(&["lease", "revoke", &hall.lease(0)])));
}

/// Something is done to the second of three; it comes back behind the third, and leads last.
fn a_waiter_rejoins(strike: impl Fn(&Hall)) {
    let hall = Hall::new();
    let [first, second, third] = [1, 2, 3].map(|number| {
        let candidate = hall.start();
        until("it stands in the queue", || hall.queue().len() == number);
        candidate
    });
    hall.place.starts(1);
    second.waits();
    third.waits();
    let (lost, last) = (hall.key(1), hall.key(2));
    strike(&hall);
    until("it stands at the back of the queue", || {
        let queue = hall.queue();
        queue.len() == 3 && queue[1] == last
    });
    if hall.queue()[2] == lost {
        println!("figures: etcd: the waiter's key was made again on its old lease");
    }
    throughout(Duration::from_millis(300), "one leads", || hall.place.history().starts.len() == 1);
    first.stops();
    let led = hall.place.starts(2).latest();
    assert!(third.tree().iter().any(|process| process.pid == led.pid), "the third was before it");
    third.stops();
    let led = hall.place.starts(3).latest();
    assert!(second.tree().iter().any(|process| process.pid == led.pid), "it leads at last, with a key");
    assert_eq!(hall.queue().len(), 1);
    second.stops();
    hall.place.history().is_safe();
}

#[test]
fn a_waiter_whose_key_is_deleted_queues_again_and_never_leads_without_one() {
    a_waiter_rejoins(|hall| drop(hall.etcd.etcdctl(&["del", &hall.key(1)])));
}

#[test]
fn a_waiter_whose_lease_is_revoked_queues_again_and_never_leads_without_one() {
    a_waiter_rejoins(|hall| drop(hall.etcd.etcdctl(&["lease", "revoke", &hall.lease(1)])));
}

#[test]
fn a_waiter_that_slept_through_its_lease_does_not_wake_up_as_a_phantom_leader() {
    // etcd #19597: its own election service returns leadership to a waiter whose key is gone.
    let hall = Hall::new();
    let first = hall.start();
    hall.place.starts(1);
    let second = hall.start();
    until("it stands in the queue", || hall.queue().len() == 2);
    second.signal(Signal::SIGSTOP);
    until("its key is gone", || hall.queue().len() == 1);
    first.stops();
    let third = hall.start();
    hall.place.starts(2);
    second.signal(Signal::SIGCONT);
    until("it queues again", || hall.queue().len() == 2);
    throughout(Duration::from_millis(500), "one leads", || hall.place.history().starts.len() == 2);
    third.stops();
    hall.place.starts(3);
    second.stops();
    hall.place.history().is_safe();
}

#[test]
fn a_killed_waiter_frees_its_place() {
    let hall = Hall::new();
    let leader = hall.start();
    hall.place.starts(1);
    let mut waiter = hall.start();
    until("it stands in the queue", || hall.queue().len() == 2);
    waiter.signal(Signal::SIGKILL);
    waiter.wait();
    let killed = now();
    until("its keeper gives its place back", || hall.queue().len() == 1);
    assert!(since(killed) < LEASE / 2, "before the lease would have run out: {:?}", since(killed));
    until("and is gone", || waiter.all().is_empty());
    leader.stops();
}

#[test]
fn a_compaction_does_not_disturb_a_hand_over() {
    let hall = Hall::new();
    let first = hall.start();
    hall.place.starts(1);
    let second = hall.start();
    second.waits();
    for round in 0..50 {
        hall.etcd.etcdctl(&["put", "/elsewhere", &round.to_string()]);
    }
    let revision = hall.etcd.etcdctl(&["get", "/elsewhere", "-w", "fields"]);
    let revision =
        revision.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision").trim().to_owned();
    hall.etcd.etcdctl(&["compact", &revision]);
    let third = hall.start();
    third.waits();
    let led = hall.place.history().latest();
    let end = hall.place.watch_the_end_of(led.pid);
    first.stops();
    let started = hall.place.starts(2).latest();
    let handover = started.at.saturating_sub(end.join().expect("the watch on the old tree"));
    assert!(handover < Duration::from_millis(500), "by its watch: {handover:?}");
    second.stops();
    hall.place.starts(3);
    third.stops();
    hall.place.history().is_safe();
}

#[test]
fn boundaries_with_similar_names_are_different_boundaries() {
    let hall = Hall::new();
    let candidates = ["a", "a/b", "a2"].map(|boundary| {
        let place = Place::new();
        let candidate = candidate(&place, hall.etcd.url()).boundary(boundary).witness(&Witness::new()).start();
        place.starts(1);
        (place, candidate)
    });
    let all = Elect::new(&hall.place).store(hall.etcd.url()).status(&[]).run();
    let led: Vec<&str> = all.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(led, ["a", "a/b", "a2"], "{all:?}");
    for (place, candidate) in candidates {
        candidate.stops();
        place.history().is_safe();
    }
}

// ---- etcdctl in the same election

/// `etcdctl elect`, until it is dropped.
pub struct Etcdctl(Child);

impl Etcdctl {
    pub fn elect(etcd: &Etcd, words: &[&str], output: Stdio) -> Etcdctl {
        let all = etcd.etcdctl_at(&etcd.address());
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).arg("elect").args(words).env("ETCDCTL_API", "3");
        Etcdctl(command.stdin(Stdio::null()).stdout(output).spawn().expect("etcdctl is installed"))
    }

    pub fn stop(&mut self) {
        processes::signal(i32::try_from(self.0.id()).expect("small"), Signal::SIGTERM);
        self.0.wait().expect("a child of ours");
    }
}

impl Drop for Etcdctl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn status(hall: &Hall) -> String {
    Elect::new(&hall.place).store(hall.etcd.url()).status(&["cron"]).run().stdout
}

#[test]
fn elect_waits_for_etcdctl_elect_and_status_shows_it() {
    let hall = Hall::new();
    let mut other = Etcdctl::elect(&hall.etcd, &["/elect/cron", "somebody else"], Stdio::null());
    until("it leads", || status(&hall).contains("somebody else leads"));
    let ours = hall.start();
    ours.says("waiting: somebody else leads");
    throughout(Duration::from_secs(1), "it waits", || hall.place.history().starts.is_empty());
    other.stop();
    hall.place.starts(1);
    assert!(status(&hall).contains("term "), "{}", status(&hall));
    ours.stops();
}

#[test]
fn etcdctl_elect_waits_for_elect_and_listens_to_it() {
    let hall = Hall::new();
    let ours = hall.candidate().flag("--name", "web-1").witness(&Witness::new()).start();
    hall.place.starts(1);
    let heard = hall.place.path().join("heard");
    let file = || std::fs::File::options().append(true).create(true).open(&heard).expect("a file");
    let _listener = Etcdctl::elect(&hall.etcd, &["--listen", "/elect/cron"], file().into());
    until("it hears of our leader", || {
        std::fs::read_to_string(&heard).is_ok_and(|text| text.contains("\"name\":\"web-1\""))
    });
    let won = hall.place.path().join("won");
    let output = std::fs::File::create(&won).expect("a file");
    let _other = Etcdctl::elect(&hall.etcd, &["/elect/cron", "somebody else"], output.into());
    until("it stands in the queue", || hall.queue().len() == 2);
    let waiting = status(&hall);
    assert!(waiting.contains("web-1 leads") && waiting.contains("waiting: somebody else"), "{waiting}");
    assert_eq!(std::fs::read_to_string(&won).expect("its output"), "", "it waits");
    ours.stops();
    until("it leads", || std::fs::read_to_string(&won).is_ok_and(|text| text.contains("somebody else")));
    eventually("the listener hears of it", || {
        std::fs::read_to_string(&heard).ok().filter(|text| text.contains("somebody else"))
    });
}

#[test]
fn a_relay_through_etcd_raises_the_term_each_time() {
    let etcd = Etcd::start();
    let figures = relay(4, &etcd).run(|leader| leader.signal(Signal::SIGTERM), |leader| leader.ends_with(0));
    assert_eq!(figures.handovers.len(), 4);
}
