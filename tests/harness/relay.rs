//! Many candidates, one after the other: each leads, is struck by a fault, and hands over to the next.

use std::thread;

use nix::sys::signal::Signal;

use super::history::Figures;
use super::{Candidate, Elect, Place, Witness, until, wait};

/// One kind of fault, and how often it strikes.
pub struct Relay<'a> {
    runs: usize,
    side_by_side: usize,
    witness: Witness,
    flags: Vec<(&'a str, &'a str)>,
    /// Whether every second run has a grandchild too.
    every_second_with_daemon: bool,
    wrapper: Option<Vec<String>>,
    store: Option<String>,
}

impl<'a> Relay<'a> {
    pub fn of(runs: usize) -> Relay<'a> {
        Relay {
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
    pub fn store(mut self, url: &str) -> Relay<'a> {
        self.store = Some(url.to_owned());
        self
    }

    /// For faults that take long to be found: so many relays at once, each in a place of its own.
    pub fn side_by_side(mut self, relays: usize) -> Relay<'a> {
        self.side_by_side = relays.min(self.runs);
        self
    }

    /// The same witness in each run.
    pub fn witness(mut self, witness: Witness) -> Relay<'a> {
        self.every_second_with_daemon = false;
        self.witness = witness;
        self
    }

    pub fn flag(mut self, name: &'a str, value: &'a str) -> Relay<'a> {
        self.flags.push((name, value));
        self
    }

    /// Another program in elect's stead: `$1` is the lock file, the rest the command.
    pub fn wrapper(mut self, script: &str) -> Relay<'a> {
        self.wrapper = Some(["sh", "-c", script, "sh"].map(str::to_owned).to_vec());
        self
    }

    /// Runs it all. `fault` strikes the leader, `after` looks at how it ended.
    pub fn run(&self, fault: impl Fn(&Candidate) + Sync, after: impl Fn(&mut Candidate) + Sync) -> Figures {
        let mut figures = Figures::default();
        let share = self.runs.div_ceil(self.side_by_side);
        thread::scope(|scope| {
            let relays: Vec<_> = (0..self.side_by_side)
                .map(|_| scope.spawn(|| self.one_after_the_other(share, &fault, &after)))
                .collect();
            for relay in relays {
                match relay.join() {
                    Ok(part) => figures.add(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        figures
    }

    fn one_after_the_other(&self, runs: usize, fault: impl Fn(&Candidate), after: impl Fn(&mut Candidate)) -> Figures {
        let place = Place::new();
        let mut figures = Figures::default();
        let mut leader = self.start(&place, 0);
        for run in 1..=runs {
            let with_daemon = self.has_daemon(run - 1);
            let led = place.starts(run).latest();
            if with_daemon {
                until("the grandchild is there", || {
                    place.history().grandchildren.iter().any(|one| one.term == led.term)
                });
            }
            let next = self.start(&place, run);
            if self.wrapper.is_none() {
                next.waits();
            }
            let end = place.watch_the_end_of(led.pid);
            let struck = wait::now();
            fault(&leader);
            let started = place.starts(run + 1).latest();
            // The new command runs: nothing of the old tree may.
            figures.survivors += leader.tree().len();
            after(&mut leader);
            if self.wrapper.is_none() {
                let leader = leader;
                until("elect itself is gone", || leader.all().is_empty());
            } else {
                drop(leader);
            }
            let ended = end.join().expect("the watch on the old tree");
            figures.endings.push(ended.saturating_sub(struck));
            figures.handovers.push(started.at.saturating_sub(ended));
            leader = next;
        }
        leader.signal(Signal::SIGTERM);
        leader.wait();
        figures.survivors += leader.tree().len();
        figures.overlaps = place.history().overlaps.len();
        if self.wrapper.is_none() {
            place.history().is_safe();
        }
        figures
    }

    fn has_daemon(&self, run: usize) -> bool {
        if self.every_second_with_daemon { run % 2 == 1 } else { self.witness.has_daemon() }
    }

    fn start(&self, place: &Place, run: usize) -> Candidate {
        let witness = if self.every_second_with_daemon && run % 2 == 1 {
            self.witness.clone().daemon()
        } else {
            self.witness.clone()
        };
        let elect = self.flags.iter().fold(Elect::new(place), |elect, (name, value)| elect.flag(name, value));
        let elect = match &self.store {
            None => elect,
            Some(url) => elect.store(place.below(url)),
        };
        let elect = match &self.wrapper {
            None => elect,
            Some(words) => {
                let lock = place.path().join("wrapper.lock").display().to_string();
                elect.instead(words.iter().cloned().chain([lock]))
            }
        };
        elect.witness(&witness).start()
    }
}
