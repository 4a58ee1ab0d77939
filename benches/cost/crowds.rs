//! Many candidates on one boundary, and many boundaries on one server.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::contest::{Candidate, led_before};
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::{processes, until};
use crate::report::{Figure, Unit, runs};
use crate::stamp::Journal;
use crate::stores::Server;

const HERDS: [usize; 3] = [10, 100, 500];
/// So many start at once: a start costs a hundred times what a waiting candidate costs.
const STARTED_AT_ONCE: usize = 20;
/// The field of `/proc/PID/stat` behind the name and the state.
const PARENT: usize = 1;
const BOUNDARIES: usize = 100;
const WATCHED: Duration = Duration::from_secs(10);

/// Requests a second while all wait, and hand-overs.
pub fn herd(server: &Server) -> Vec<Figure> {
    HERDS.into_iter().flat_map(|count| herd_of(server, count)).collect()
}

fn herd_of(server: &Server, count: usize) -> Vec<Figure> {
    let boundary = format!("herd-{count}");
    led_before(server, &boundary);
    let place = server.directory().join(&boundary);
    std::fs::create_dir(&place).expect("a new directory");
    let journal = Journal::in_directory(&place);
    let way = server.elect(&boundary, &["--ttl", "30s"]);
    let leader = Candidate::start(server, &way, &journal, 0);
    let mut led = journal.stamp("start", 0);
    let mut candidates = vec![leader];
    while candidates.len() < count {
        let first = candidates.len();
        let more =
            (first..count.min(first + STARTED_AT_ONCE)).map(|number| Candidate::start(server, &way, &journal, number));
        candidates.extend(more);
        candidates[first..].iter().for_each(Candidate::waits);
    }
    let (before, watched) = (server.requests(), WATCHED);
    std::thread::sleep(watched);
    let asked = server.requests().zip(before).map(|(after, before)| after - before);
    let mut times = Vec::new();
    for round in 1..=runs(10).min(count - 1) {
        let campaigner = processes::stat(led.pid, PARENT).and_then(|keeper| processes::stat(keeper, PARENT));
        let leads = |candidate: &Candidate| Some(candidate.pid()) == campaigner;
        let leader: Candidate = candidates.swap_remove(candidates.iter().position(leads).expect("one of them leads"));
        leader.signal(Signal::SIGTERM);
        let started = journal.stamp("start", round);
        times.push(started.at.saturating_sub(journal.stamp("end", round - 1).at));
        led = started;
    }
    let name =
        |what: &str| Figure::name([&format!("{count} candidates on one boundary: {what}"), server.name, "elect"]);
    let mut figures = vec![Figure::of_times(name("hand-over"), times)];
    if let Some(asked) = asked {
        let each_second = real(asked) / watched.as_secs_f64();
        figures.push(Figure::single(name("requests a second"), each_second, Unit::Number));
    }
    assert_eq!(journal.count("end") + 1, journal.count("start"), "no leader was demoted");
    end_all(candidates);
    figures
}

/// A leader on each of many boundaries: the costs of the server and of each candidate.
pub fn boundaries(server: &Server) -> Vec<Figure> {
    let place = server.directory().join("boundaries");
    std::fs::create_dir(&place).expect("a new directory");
    let journal = Journal::in_directory(&place);
    let mut candidates = Vec::new();
    while candidates.len() < BOUNDARIES {
        let first = candidates.len();
        for number in first..first + STARTED_AT_ONCE {
            let way = server.elect(&format!("boundary-{number}"), &["--ttl", "10s"]);
            candidates.push(Candidate::start(server, &way, &journal, number));
        }
        until("they lead", || journal.count("start") == candidates.len());
    }
    let own = || -> Duration { candidates.iter().map(|candidate| ResourceUsage::of(candidate.pid()).cpu).sum() };
    let before = (server.requests(), server.cpu(), own());
    std::thread::sleep(WATCHED);
    let after = (server.requests(), server.cpu(), own());
    let seconds = WATCHED.as_secs_f64();
    let share = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() / seconds * 100.0;
    let name = |what: &str| Figure::name([&format!("{BOUNDARIES} leaders: {what}"), server.name, "elect"]);
    let each = share(after.2, before.2) / real(BOUNDARIES as u64);
    let mut figures = vec![Figure::single(name("share of a core, each"), each, Unit::Percent)];
    if let (Some(after), Some(before)) = (after.1, before.1) {
        figures.push(Figure::single(name("share of a core, the server"), share(after, before), Unit::Percent));
    }
    if let (Some(after), Some(before)) = (after.0, before.0) {
        figures.push(Figure::single(name("requests a second"), real(after - before) / seconds, Unit::Number));
    }
    end_all(candidates);
    figures
}

/// Together, the waiting ones first, so that they do not lead one after the other.
fn end_all(candidates: Vec<Candidate>) {
    for candidate in candidates.iter().rev() {
        candidate.signal(Signal::SIGTERM);
    }
    drop(candidates);
}

fn real(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
