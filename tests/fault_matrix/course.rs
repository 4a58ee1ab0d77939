//! One run of a cell: a leader and a waiter, the fault, and what becomes of both.
//!
//! ```text
//! leader leads ── waiter waits ── the moment of the fault (drawn) ── fault ── what the cell promises ── repair ── both end
//! ```
//!
//! A course panics when something does not happen at all, such as the next start. What happens too late is noted in
//! [`Observed::late`]: the runner decides whether the machine was fast enough for a verdict. Overlaps and terms are read from
//! the journal afterwards, whatever became of the course.

use std::cell::RefCell;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::cell::{Cell, Promise, renewal};
use super::faults::{Act, ServerFailure};
use super::sites::Site;
use crate::harness::faults;
use crate::harness::freezer::Freezer;
use crate::harness::journal::JournalEntry;
use crate::harness::processes::ProcessInfo;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::stalled_disk::StalledDisk;
use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, until};

/// A keeper of the file store that does not answer is given up after this long (K4).
const SILENT_KEEPER: Duration = Duration::from_secs(10);

pub struct Course<'a> {
    pub cell: &'a Cell,
    pub site: &'a Site,
    pub sandbox: &'a Sandbox,
    pub lease: Duration,
    pub random: RefCell<fastrand::Rng>,
}

/// The measurements of a course.
#[derive(Debug, Default)]
pub struct Observed {
    /// From the fault to the end of the old tree; where the tree must survive the fault, from what ends it.
    pub gone: Option<Duration>,
    /// From the fault, or from the repair where nobody can lead before it, to the start of the next command.
    pub next: Option<Duration>,
    /// The leader went on leading through the fault.
    pub kept: bool,
    /// Processes of the old tree that were alive when the next command had started, or when all had ended.
    pub survivors: usize,
    /// A limit that was exceeded.
    pub late: Option<String>,
}

/// How the candidates of a course are started.
#[derive(Default)]
struct Setup {
    witness: Witness,
    stop_timeout: Option<&'static str>,
    /// The leader's, if it is not the site's own.
    leader_store: Option<String>,
    /// Before the leader's command line, and before the waiter's.
    leader_words: Vec<String>,
    waiter_words: Vec<String>,
}

/// A leader, and a candidate that waits.
struct Pair {
    leader: CandidateProcess,
    waiter: CandidateProcess,
    led: JournalEntry,
    end: JoinHandle<Duration>,
    /// The processes of the leader's command before the fault. It may lead again, with others.
    tree: Vec<ProcessInfo>,
}

impl Pair {
    /// Waits for the end of the old tree.
    #[track_caller]
    fn end(&mut self) -> Duration {
        let end = std::mem::replace(&mut self.end, std::thread::spawn(now));
        until("the old tree is gone", || end.is_finished());
        end.join().expect("the watch on the old tree")
    }

    /// Processes of the old tree that are alive.
    fn survivors(&self) -> usize {
        self.leader.tree().iter().filter(|process| self.tree.contains(process)).count()
    }
}

impl Course<'_> {
    pub fn run(&self) -> Observed {
        match self.cell.fault.act {
            Act::Leader(fault) => self.strike_leader(fault),
            Act::CampaignerStopped if self.cell.has_lease() => self.strike_leader(&faults::CAMPAIGNER_FROZEN),
            Act::CampaignerStopped => self.stop_campaigner(),
            Act::KeeperStopped if self.cell.has_lease() => self.strike_leader(&faults::KEEPER_FROZEN),
            Act::KeeperStopped => self.strike_leader(&faults::KEEPER_FROZEN_THEN_STOPPED),
            Act::BothKilled if self.cell.promise() == Promise::Blocked => self.orphan_a_daemon(),
            Act::BothKilled if self.cell.tier == "pidns" => self.strike_leader(&faults::BOTH_KILLED_WITH_A_DAEMON),
            Act::BothKilled => self.strike_leader(&faults::BOTH_KILLED),
            Act::Link(mode) => self.cut(mode),
            Act::ServerAway(failure) => self.server_away(failure),
            Act::ServerRestarted => self.goes_on_or_starts_again(|| self.site.server().restart()),
            Act::Failover => self.goes_on_or_starts_again(|| self.fail_over()),
            Act::Clock(seconds) => self.step_clock(seconds),
            Act::Stuck => self.get_stuck(),
            Act::Frozen if self.cell.has_lease() => self.freeze_and_thaw(),
            Act::Frozen => self.freeze_a_lock(),
        }
    }

    // ---- beginning and end

    fn url(&self) -> String {
        self.site.url(self.sandbox)
    }

    /// Every second run has a daemon, unless the fault needs a particular command.
    fn drawn_witness(&self) -> Witness {
        if self.random.borrow_mut().bool() { Witness::new().daemon() } else { Witness::new() }
    }

    fn candidate(&self, setup: &Setup, store: String, words: &[String]) -> CandidateProcess {
        let elect = ElectCmd::new(self.sandbox)
            .store(store)
            .flag("--ttl", &format!("{}ms", self.lease.as_millis()))
            .flag("--containment", self.cell.tier)
            .wrapped_by(words);
        let elect = setup.stop_timeout.into_iter().fold(elect, |elect, time| elect.flag("--stop-timeout", time));
        elect.witness(&setup.witness).start()
    }

    #[track_caller]
    fn pair(&self, setup: &Setup) -> Pair {
        let store = setup.leader_store.clone().unwrap_or_else(|| self.url());
        let leader = self.candidate(setup, store, &setup.leader_words);
        let led = self.sandbox.starts(1).latest();
        if setup.witness.has_daemon() {
            self.sandbox.history_when("the daemon is there", |history| !history.grandchildren.is_empty());
        }
        let waiter = self.candidate(setup, self.url(), &setup.waiter_words);
        waiter.wait_until_waiting();
        let tree = leader.tree();
        Pair { leader, waiter, led, end: self.sandbox.watch_the_end_of(led.pid), tree }
    }

    /// Waits for the moment of the fault, which is drawn from a renewal interval. The error is for a leader that has lost its
    /// lease before: a slow machine can do that.
    fn moment_of_the_fault(&self, pair: &Pair) -> Result<Duration, Observed> {
        let window = u64::try_from(renewal(self.lease).as_millis()).expect("a short time");
        let delay = Duration::from_millis(self.random.borrow_mut().u64(0..window));
        let start = now();
        until("the moment of the fault", || since(start) >= delay);
        if pair.end.is_finished() || self.sandbox.history().starts.len() > 1 {
            return Err(Observed {
                late: Some("the lease was lost before the fault".to_owned()),
                ..Observed::default()
            });
        }
        Ok(now())
    }

    /// Stops what still runs, and counts what is left of it.
    fn finish(&self, pair: Pair, mut observed: Observed) -> Observed {
        let mut candidates = [pair.leader, pair.waiter];
        // The one that waits first: else it would lead once more.
        candidates.sort_by_cached_key(|candidate| candidate.tree().len());
        for candidate in &mut candidates {
            if !candidate.has_ended() {
                candidate.signal(Signal::SIGTERM);
            }
            candidate.wait();
            observed.survivors += candidate.tree().len();
        }
        until("elect itself is gone", || self.sandbox.running().is_empty());
        observed
    }

    // ---- faults after which somebody else leads

    fn strike_leader(&self, fault: &'static faults::LeaderFault) -> Observed {
        let setup = Setup {
            witness: fault.witness().unwrap_or_else(|| self.drawn_witness()),
            stop_timeout: fault.stop_timeout(),
            ..Setup::default()
        };
        self.hands_over(&setup, |pair| fault.strike(&pair.leader), |leader| fault.check_end(leader))
    }

    fn cut(&self, mode: ProxyMode) -> Observed {
        let server = self.site.server();
        let proxy = Proxy::to(&server.address());
        let setup = Setup {
            witness: self.drawn_witness(),
            leader_store: Some(server.url_through(&proxy.address(), self.sandbox)),
            ..Setup::default()
        };
        self.hands_over(
            &setup,
            |_| proxy.mode(mode),
            |leader| {
                proxy.mode(ProxyMode::Open);
                leader.wait_until_waiting();
            },
        )
    }

    fn hands_over(
        &self,
        setup: &Setup,
        strike: impl FnOnce(&Pair),
        check_end: impl FnOnce(&mut CandidateProcess),
    ) -> Observed {
        let mut pair = self.pair(setup);
        let struck = match self.moment_of_the_fault(&pair) {
            Ok(now) => now,
            Err(observed) => return observed,
        };
        strike(&pair);
        let observed = self.next_start(&mut pair, struck, struck);
        // The fault may strike a leader whose lease has just run out on a slow machine, and whose command is being stopped.
        if self.cell.promise() == Promise::AtOnce && pair.leader.log().contains("the lease runs out") {
            return Observed { late: Some("the lease ran out as the fault struck".to_owned()), ..observed };
        }
        check_end(&mut pair.leader);
        self.finish(pair, observed.judged(self.limits()))
    }

    /// Waits until the second command runs and the first tree is gone.
    fn next_start(&self, pair: &mut Pair, struck: Duration, repaired: Duration) -> Observed {
        let started = self.sandbox.starts(2).starts[1];
        let survivors = pair.survivors();
        let ended = pair.end();
        Observed {
            gone: Some(ended.saturating_sub(struck)),
            next: Some(started.at.saturating_sub(repaired)),
            survivors,
            ..Observed::default()
        }
    }

    /// For the time until the old tree is gone, and from then until the next command starts.
    fn limits(&self) -> [Duration; 2] {
        let (lease, soon) = (self.lease, self.lease / 2);
        let silent = matches!(self.cell.fault.act, Act::KeeperStopped) && !self.cell.has_lease();
        match self.cell.promise() {
            _ if silent => [SILENT_KEEPER + lease, lease],
            Promise::AtOnce | Promise::KeepsLeading | Promise::Blocked => [lease, soon],
            Promise::WithinLease => [lease, lease + renewal(lease) + Duration::from_secs(1)],
            // Counted from the thaw.
            Promise::BriefOverlap => [soon, Duration::MAX],
            // Nothing is promised of a store that has to start first.
            Promise::AfterRepair | Promise::KeepsOrAfterRepair => [lease, Duration::MAX],
        }
    }

    // ---- faults that change nothing

    fn stop_campaigner(&self) -> Observed {
        let setup = Setup { witness: self.drawn_witness(), ..Setup::default() };
        self.keeps_leading(&setup, |leader| leader.signal(Signal::SIGSTOP), |leader| leader.signal(Signal::SIGCONT))
    }

    /// It keeps the lock, and nobody else can have it.
    fn freeze_a_lock(&self) -> Observed {
        let freezer = freezer();
        let setup = Setup { witness: self.drawn_witness(), leader_words: freezer.words(), ..Setup::default() };
        self.keeps_leading(&setup, |_| freezer.freeze(), |_| freezer.thaw())
    }

    fn step_clock(&self, seconds: i64) -> Observed {
        let clock = self.site.clock();
        let words = clock.words();
        let setup = Setup {
            witness: self.drawn_witness(),
            leader_words: words.clone(),
            waiter_words: words,
            ..Setup::default()
        };
        self.keeps_leading(&setup, |_| clock.step_to(seconds), |_| ())
    }

    /// For longer than a lease; then it is asked to stop.
    fn keeps_leading(
        &self,
        setup: &Setup,
        strike: impl FnOnce(&CandidateProcess),
        repair: impl FnOnce(&CandidateProcess),
    ) -> Observed {
        let mut pair = self.pair(setup);
        let struck = match self.moment_of_the_fault(&pair) {
            Ok(now) => now,
            Err(observed) => return observed,
        };
        strike(&pair.leader);
        let window = self.lease + renewal(self.lease) + Duration::from_secs(1);
        until("the window is over", || since(struck) >= window);
        let is_kept = !pair.end.is_finished() && self.sandbox.history().starts.len() == 1;
        repair(&pair.leader);
        if !is_kept {
            return Observed { late: Some("the leader did not go on leading".to_owned()), ..Observed::default() };
        }
        let asked = now();
        pair.leader.signal(Signal::SIGTERM);
        let mut observed = self.next_start(&mut pair, asked, asked).judged(self.limits());
        observed.kept = true;
        self.finish(pair, observed)
    }

    // ---- faults of the store

    fn server_away(&self, failure: ServerFailure) -> Observed {
        let server = self.site.server();
        let setup = Setup { witness: self.drawn_witness(), ..Setup::default() };
        let mut pair = self.pair(&setup);
        let struck = match self.moment_of_the_fault(&pair) {
            Ok(now) => now,
            Err(observed) => return observed,
        };
        match failure {
            ServerFailure::Killed => server.kill(),
            ServerFailure::Stopped => server.stop(),
        }
        until("the old tree is gone", || pair.end.is_finished());
        match failure {
            ServerFailure::Killed => server.restart(),
            ServerFailure::Stopped => server.cont(),
        }
        let repaired = now();
        let observed = self.next_start(&mut pair, struck, repaired).judged(self.limits());
        self.finish(pair, observed)
    }

    fn fail_over(&self) {
        let servers = self.site.failover();
        let old = servers.serving();
        if self.random.borrow_mut().bool() {
            servers.kill_server(old);
            servers.another_serves(old);
            servers.start_server(old);
        } else {
            servers.stop_server(old);
            servers.another_serves(old);
            servers.cont_server(old);
        }
        servers.are_whole();
    }

    /// Whether a lease outlives the fault depends on how long it takes.
    fn goes_on_or_starts_again(&self, fail_and_repair: impl FnOnce()) -> Observed {
        let setup = Setup { witness: self.drawn_witness(), ..Setup::default() };
        let mut pair = self.pair(&setup);
        let struck = match self.moment_of_the_fault(&pair) {
            Ok(now) => now,
            Err(observed) => return observed,
        };
        fail_and_repair();
        let repaired = now();
        // A lease that was not renewed meanwhile is over by then, and its tree dead.
        until("it is clear whether the leader goes on", || pair.end.is_finished() || since(repaired) > self.lease);
        if pair.end.is_finished() {
            let observed = self.next_start(&mut pair, struck, repaired);
            return self.finish(pair, observed);
        }
        pair.leader.signal(Signal::SIGTERM);
        self.sandbox.starts(2);
        let survivors = pair.survivors();
        self.finish(pair, Observed { kept: true, survivors, ..Observed::default() })
    }

    // ---- faults that elect cannot end

    /// The main process dies with its keeper; its daemon has the lock.
    fn orphan_a_daemon(&self) -> Observed {
        let setup = Setup { witness: Witness::new().daemon(), ..Setup::default() };
        let mut pair = self.pair(&setup);
        if let Err(observed) = self.moment_of_the_fault(&pair) {
            return observed;
        }
        pair.leader.kill_with_keeper();
        pair.leader.wait();
        until("the main process dies with its keeper", || !processes::is_alive(pair.led.pid));
        let struck = now();
        until("the window is over", || since(struck) > self.lease);
        assert_eq!(self.sandbox.history().starts.len(), 1, "the daemon has the lock, and nothing else starts");
        let orphans = pair.leader.tree();
        assert!(!orphans.is_empty(), "nothing kills the daemon");
        let killed = now();
        for orphan in orphans {
            processes::signal(orphan.pid, Signal::SIGKILL);
        }
        let observed = self.next_start(&mut pair, killed, killed).judged(self.limits());
        self.finish(pair, observed)
    }

    /// A process that cannot be killed: nothing is released, and nothing else starts.
    fn get_stuck(&self) -> Observed {
        let disk = StalledDisk::new();
        let setup = Setup {
            witness: Witness::new().writing_to(&disk.path().join("file")),
            stop_timeout: Some("300ms"),
            ..Setup::default()
        };
        let mut pair = self.pair(&setup);
        if let Err(observed) = self.moment_of_the_fault(&pair) {
            return observed;
        }
        disk.freeze();
        until("the command waits for its disk", || processes::is_stuck(pair.led.pid));
        pair.leader.signal(Signal::SIGTERM);
        pair.leader.wait_for_log("still not gone");
        let reported = now();
        let window = self.lease * 2;
        until("the window is over", || since(reported) > window);
        let is_blocked = !pair.leader.has_ended() && self.sandbox.history().starts.len() == 1;
        let thawed = now();
        disk.thaw();
        assert!(is_blocked, "nothing is released while a process of the tree is alive");
        let observed = self.next_start(&mut pair, thawed, thawed).judged(self.limits());
        self.finish(pair, observed)
    }

    /// All of it, so that nothing can kill the command in time (2.2). The measured time is from the thaw.
    fn freeze_and_thaw(&self) -> Observed {
        let freezer = freezer();
        let setup = Setup { witness: self.drawn_witness(), leader_words: freezer.words(), ..Setup::default() };
        let mut pair = self.pair(&setup);
        let struck = match self.moment_of_the_fault(&pair) {
            Ok(now) => now,
            Err(observed) => return observed,
        };
        freezer.freeze();
        let started = self.sandbox.starts(2).starts[1];
        until("the lease of the frozen leader is over", || since(struck) > self.lease);
        let thawed = now();
        freezer.thaw();
        let ended = pair.end();
        let observed = Observed {
            gone: Some(ended.saturating_sub(thawed)),
            next: Some(started.at.saturating_sub(struck)),
            ..Observed::default()
        };
        let mut observed = observed.judged(self.limits());
        if !pair.leader.waits_or_has_ended() {
            pair.leader.ends_with(125);
            // Half the kill allowance (K4).
            observed.late = Some("the campaigner did not hear of its keeper in time after the thaw".to_owned());
        }
        self.finish(pair, observed)
    }
}

fn freezer() -> Freezer {
    Freezer::new().expect("this test needs a cgroup (v2) in which it may create others")
}

impl Observed {
    /// Notes a limit that was exceeded.
    fn judged(mut self, [gone, next]: [Duration; 2]) -> Observed {
        let after = self.next.zip(self.gone).map(|(next, gone)| next.saturating_sub(gone));
        if self.gone.is_some_and(|time| time > gone) {
            self.late = Some(format!("the old tree was gone after {:?}, not within {gone:?}", self.gone));
        } else if after.is_some_and(|time| time > next) {
            self.late = Some(format!("the next command started {after:?} after that, not within {next:?}"));
        }
        self
    }
}
