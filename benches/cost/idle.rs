//! The costs of a candidate, alone on its host, that waits or leads with the default timings.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::contest::{Candidate, led_before};
use crate::harness::processes;
use crate::report::{Figure, Unit};
use crate::stamp::Journal;
use crate::stores::Server;

const WATCHED: Duration = Duration::from_secs(10);

pub fn idle(server: &Server) -> Vec<Figure> {
    led_before(server, "idle");
    let place = server.directory().join("idle");
    fs::create_dir(&place).expect("a new directory");
    let journal = Journal::in_directory(&place);
    let way = server.elect("idle", &[]);
    let leader = Candidate::start(server, &way, &journal, 0);
    journal.stamp("start", 0);
    let mut figures = report(server, "leading", &leader);
    // Pages that a second candidate uses too would count half.
    let place = place.join("waiting");
    fs::create_dir(&place).expect("a new directory");
    let waiter = Candidate::start(server, &way, &journal, 1);
    waiter.waits();
    figures.extend(report(server, "waiting", &waiter).into_iter().filter(|figure| !figure.name[0].contains("memory")));
    figures
}

fn report(server: &Server, role: &str, candidate: &Candidate) -> Vec<Figure> {
    // The start is over.
    std::thread::sleep(Duration::from_secs(4));
    let keeper = processes::children(candidate.pid())
        .into_iter()
        .find(|&pid| processes::name(pid).as_deref() == Some("keeper"))
        .expect("it has a keeper");
    let pids = [candidate.pid(), keeper];
    let before = IdleUsage::sum(pids);
    std::thread::sleep(WATCHED);
    let after = IdleUsage::sum(pids);
    let seconds = WATCHED.as_secs_f64();
    let figure = |what: &str, value: f64, unit: Unit| {
        Figure::single(Figure::name([&format!("idle, {role}: {what}"), server.name, "elect"]), value, unit)
    };
    vec![
        figure("memory (PSS)", after.pss, Unit::Megabytes),
        figure("memory, private", after.private, Unit::Megabytes),
        figure("wake-ups a second", (after.wakeups - before.wakeups) / seconds, Unit::Number),
        figure("share of a core", after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 100.0, Unit::Percent),
    ]
}

#[derive(Debug, Default, Clone, Copy)]
struct IdleUsage {
    pss: f64,
    private: f64,
    wakeups: f64,
    cpu: Duration,
}

impl IdleUsage {
    fn sum(pids: [i32; 2]) -> IdleUsage {
        let mut sum = IdleUsage::default();
        for pid in pids {
            let maps = read(format!("/proc/{pid}/smaps_rollup"));
            let megabytes = |name: &str| number_after(&maps, name) / 1024.0;
            sum.pss += megabytes("Pss:");
            // Without the pages of files: their number depends on who else uses them.
            sum.private += megabytes("Private_Dirty:");
            for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
                let status = read(task.path().join("status"));
                sum.wakeups += number_after(&status, "voluntary_ctxt_switches:");
                let schedule = read(task.path().join("schedstat"));
                let nanos = schedule.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
                sum.cpu += Duration::from_nanos(nanos.unwrap_or_default());
            }
        }
        sum
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number_after(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
