//! Many candidates, one after the other: each leads, is struck by a fault, and hands over to the next.

use std::thread;

use nix::sys::signal::Signal;

use super::journal::Measurements;
use super::timing_verdict::late_if_a_keeper_was_given_up;
use super::{CandidateProcess, ElectCmd, Sandbox, Witness, until, wait};

/// One kind of fault, and how often it strikes.
pub struct HandoverRuns<'a> {
    runs: usize,
    side_by_side: usize,
    witness: Witness,
    flags: Vec<(&'a str, &'a str)>,
    /// Whether every second run has a grandchild too.
    every_second_with_daemon: bool,
    wrapper: Option<Vec<String>>,
    store: Option<String>,
}

impl<'a> HandoverRuns<'a> {
    pub fn of(runs: usize) -> HandoverRuns<'a> {
        HandoverRuns {
            runs,
            side_by_side: 1,
            witness: Witness::new(),
            flags: Vec::new(),
            every_second_with_daemon: true,
            wrapper: None,
            store: None,
        }
    }

    /// In a store on the network, under a prefix of each place's own.
    pub fn store(mut self, url: &str) -> HandoverRuns<'a> {
        self.store = Some(url.to_owned());
        self
    }

    /// For faults that take long to be found: so many relays at once, each in a place of its own.
    pub fn side_by_side(mut self, concurrent: usize) -> HandoverRuns<'a> {
        self.side_by_side = concurrent.min(self.runs);
        self
    }

    /// The same witness in each run.
    pub fn witness(mut self, witness: Witness) -> HandoverRuns<'a> {
        self.every_second_with_daemon = false;
        self.witness = witness;
        self
    }

    pub fn flag(mut self, name: &'a str, value: &'a str) -> HandoverRuns<'a> {
        self.flags.push((name, value));
        self
    }

    /// Another program in elect's stead: `$1` is the lock file, the rest the command.
    pub fn wrapper(mut self, script: &str) -> HandoverRuns<'a> {
        self.wrapper = Some(["sh", "-c", script, "sh"].map(str::to_owned).to_vec());
        self
    }

    /// Runs it all. `fault` strikes the leader, `after` looks at how it ended.
    pub fn run(
        &self,
        fault: impl Fn(&CandidateProcess) + Sync,
        after: impl Fn(&mut CandidateProcess) + Sync,
    ) -> Measurements {
        let mut measurements = Measurements::default();
        let share = self.runs.div_ceil(self.side_by_side);
        thread::scope(|scope| {
            let concurrent: Vec<_> = (0..self.side_by_side)
                .map(|_| scope.spawn(|| self.one_after_the_other(share, &fault, &after)))
                .collect();
            for handover_runs in concurrent {
                match handover_runs.join() {
                    Ok(part) => measurements.add(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        measurements
    }

    fn one_after_the_other(
        &self,
        runs: usize,
        fault: impl Fn(&CandidateProcess),
        after: impl Fn(&mut CandidateProcess),
    ) -> Measurements {
        let sandbox = Sandbox::new();
        late_if_a_keeper_was_given_up(&sandbox, || self.relay(&sandbox, runs, fault, after))
    }

    fn relay(
        &self,
        sandbox: &Sandbox,
        runs: usize,
        fault: impl Fn(&CandidateProcess),
        after: impl Fn(&mut CandidateProcess),
    ) -> Measurements {
        let mut measurements = Measurements::default();
        let mut leader = self.start(sandbox, 0);
        for run in 1..=runs {
            let with_daemon = self.has_daemon(run - 1);
            sandbox.starts(run);
            let next = self.start(sandbox, run);
            if self.wrapper.is_none() {
                next.wait_until_waiting();
            }
            // There are more starts than runs where a leader lost its lease on a busy machine, and led again.
            let before = sandbox.history();
            let led = before.latest();
            if self.wrapper.is_none() {
                leader.assert_leads(&led);
            }
            if with_daemon {
                until("the grandchild is there", || {
                    sandbox.history().grandchildren.iter().any(|one| one.term == led.term)
                });
            }
            let end = sandbox.watch_the_end_of(led.pid);
            let struck = wait::now();
            fault(&leader);
            let started = sandbox.starts(before.starts.len() + 1).latest();
            // The new command runs: nothing of the old tree may.
            measurements.survivors += leader.tree().len();
            after(&mut leader);
            if self.wrapper.is_none() {
                let leader = leader;
                until("elect itself is gone", || leader.all().is_empty());
            } else {
                drop(leader);
            }
            let ended = end.join().expect("the watch on the old tree");
            measurements.endings.push(ended.saturating_sub(struck));
            measurements.handovers.push(started.at.saturating_sub(ended));
            leader = next;
        }
        leader.signal(Signal::SIGTERM);
        leader.wait();
        measurements.survivors += leader.tree().len();
        measurements.overlaps = sandbox.history().overlaps.len();
        if self.wrapper.is_none() {
            sandbox.history().is_safe();
        }
        measurements
    }

    fn has_daemon(&self, run: usize) -> bool {
        if self.every_second_with_daemon { run % 2 == 1 } else { self.witness.has_daemon() }
    }

    fn start(&self, sandbox: &Sandbox, run: usize) -> CandidateProcess {
        let witness = if self.every_second_with_daemon && run % 2 == 1 {
            self.witness.clone().daemon()
        } else {
            self.witness.clone()
        };
        let elect = self.flags.iter().fold(ElectCmd::new(sandbox), |elect, (name, value)| elect.flag(name, value));
        let elect = match &self.store {
            None => elect,
            Some(url) => elect.store(sandbox.below(url)),
        };
        let elect = match &self.wrapper {
            None => elect,
            Some(words) => {
                let lock = sandbox.path().join("wrapper.lock").display().to_string();
                elect.program(words.iter().cloned().chain([lock]))
            }
        };
        elect.witness(&witness).start()
    }
}
