//! Start to exec, and hand-overs: elect and its peers in turn, so that whatever else goes on meets them all.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::until;
use crate::harness::wait::now;
use crate::report::{Figure, runs};
use crate::stamp::Journal;
use crate::stores::{Server, Way};

/// A candidate, of elect or of a peer. Ends with this handle.
pub struct Candidate {
    child: Child,
    log: PathBuf,
    is_elect: bool,
}

impl Candidate {
    pub fn start(server: &Server, way: &Way, journal: &Journal, number: usize) -> Candidate {
        let log = server.directory().join(format!("log-{number}"));
        let mut command = way.around(&journal.command(true));
        let child = command.stderr(File::create(&log).expect("the directory takes a log")).spawn().expect("it starts");
        Candidate { child, log, is_elect: way.is_elect }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// A peer says nothing: it gets a moment.
    pub fn waits(&self) {
        if self.is_elect {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            until("a candidate waits", || log().contains("waiting: "));
        } else {
            std::thread::sleep(Duration::from_millis(400));
        }
    }

    pub fn ends(mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(if self.is_elect { Signal::SIGTERM } else { Signal::SIGKILL });
            let _ = self.child.wait();
        }
    }
}

/// A boundary that a store may forget is waited for when it is new: not in what is measured.
pub fn led_before(server: &Server, boundary: &str) {
    let journal = Journal::in_directory(server.directory());
    let first = server.elect(boundary, &["-q", "--ttl", "5s"]).around(&journal.command(false)).status();
    assert!(first.is_ok_and(|status| status.success()), "elect leads on {}", server.name);
}

/// From the start of a wrapper to the exec of its command.
pub fn starts(server: &Server) -> Vec<Figure> {
    led_before(server, "start");
    let mut ways = vec![server.elect("start", &["-q"])];
    ways.extend(server.peers("start"));
    let mut times = vec![Vec::new(); ways.len()];
    for run in 0..runs(50) {
        for (index, (way, times)) in ways.iter().zip(&mut times).enumerate() {
            let place = server.directory().join(format!("start-{run}-{index}"));
            std::fs::create_dir(&place).expect("a new directory");
            let journal = Journal::in_directory(&place);
            let mut command = way.around(&journal.command(false));
            command.stderr(Stdio::inherit());
            let began = now();
            let mut child = command.spawn().expect("it starts");
            let _ = child.wait();
            times.push(journal.stamp("start", 0).at.saturating_sub(began));
        }
    }
    let name = |way: &Way| Figure::name(["start to exec", server.name, way.name]);
    ways.iter().zip(times).map(|(way, times)| Figure::of_times(name(way), times)).collect()
}

/// From the end of the old command to the exec of the next one, after a plain stop.
pub fn handovers(server: &Server) -> Vec<Figure> {
    led_before(server, "handover");
    let mut ways = vec![server.elect("handover", &[])];
    ways.extend(server.peers("handover"));
    let stop = |leader: &Candidate, command: i32| {
        if leader.is_elect {
            leader.signal(Signal::SIGTERM);
        } else {
            let _ = kill(Pid::from_raw(command), Signal::SIGTERM);
        }
    };
    let figure = |way: &Way| {
        let name = Figure::name(["hand-over", server.name, way.name]);
        Figure::of_times(name, rounds(server, way, "handover", stop))
    };
    let commits = server
        .two_commits(runs(20))
        .map(|times| Figure::of_times(Figure::name(["two commits", server.name, "psycopg"]), times));
    ways.iter().map(figure).chain(commits).collect()
}

/// The same after SIGKILL of the campaigner. A peer leaves its command behind then: there is nothing to compare.
pub fn killed(server: &Server) -> Vec<Figure> {
    led_before(server, "killed");
    let way = server.elect("killed", &[]);
    let times = rounds(server, &way, "killed", |leader, _| leader.signal(Signal::SIGKILL));
    vec![Figure::of_times(Figure::name(["hand-over, campaigner killed", server.name, way.name]), times)]
}

fn rounds(server: &Server, way: &Way, kind: &str, stop: impl Fn(&Candidate, i32)) -> Vec<Duration> {
    let place = server.directory().join(format!("{kind}-{}", way.name.replace(' ', "-")));
    std::fs::create_dir(&place).expect("a new directory");
    let journal = Journal::in_directory(&place);
    let mut leader = Candidate::start(server, way, &journal, 0);
    let mut led = journal.stamp("start", 0);
    let mut times = Vec::new();
    for round in 1..=runs(20) {
        let next = Candidate::start(server, way, &journal, round);
        next.waits();
        stop(&leader, led.pid);
        let started = journal.stamp("start", round);
        let ended = journal.stamp("end", round - 1);
        times.push(started.at.saturating_sub(ended.at));
        std::mem::replace(&mut leader, next).ends();
        led = started;
    }
    stop(&leader, led.pid);
    leader.ends();
    times
}
