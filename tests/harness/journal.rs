//! The entries that the witnesses wrote, and their verdict.

use std::fmt;
use std::time::Duration;

/// A start of the witness, or of its grandchild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalEntry {
    pub term: u64,
    pub pid: i32,
    pub at: Duration,
}

/// The journal of one place, in the order in which it was written.
#[derive(Debug, Default, Clone)]
pub struct History {
    pub starts: Vec<JournalEntry>,
    pub grandchildren: Vec<JournalEntry>,
    /// A lock that was refused: somebody else's tree was alive.
    pub overlaps: Vec<JournalEntry>,
    /// Of those who could say so.
    pub ends: Vec<JournalEntry>,
    /// `flock -u` was called on the lock that elect passed on.
    pub unlocks: Vec<JournalEntry>,
    /// The notes of hooks, each with the name of its hook.
    pub notes: Vec<(String, JournalEntry)>,
    /// Starts, ends and notes as they were written, by their names.
    pub order: Vec<String>,
}

/// The variables about its leader that a follower or a leader's command got, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderEnv {
    /// `follow`, `unfollow`, `signal`, or `lead`.
    pub what: String,
    pub id: String,
    pub leader: String,
    pub host: String,
    pub port: String,
    pub address: String,
    pub term: String,
    pub role: String,
    pub pid: i32,
    pub at: Duration,
}

impl LeaderEnv {
    pub fn parse(line: &str) -> LeaderEnv {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, id, leader, host, port, address, term, role, pid, at] = words[..] else {
            panic!("not a line of the followers' journal: {line:?}")
        };
        let text = str::to_owned;
        LeaderEnv {
            what: text(what),
            id: text(id),
            leader: text(leader),
            host: text(host),
            port: text(port),
            address: text(address),
            term: text(term),
            role: text(role),
            pid: pid.parse().expect("a process"),
            at: Duration::from_nanos(at.parse().expect("a time")),
        }
    }

    /// Where the leader is, as one was told.
    pub fn leader(&self) -> [&str; 4] {
        [&self.leader, &self.host, &self.port, &self.address]
    }
}

impl History {
    pub fn parse(text: &str) -> History {
        let mut history = History::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, term, pid, at] = words[..] else { panic!("not a line of the journal: {line:?}") };
            let entry = JournalEntry {
                term: term.parse().expect("a term"),
                pid: pid.parse().expect("a process"),
                at: Duration::from_nanos(at.parse().expect("a time")),
            };
            history.order.push(what.trim_start_matches("note:").to_owned());
            match what {
                "start" => history.starts.push(entry),
                "grandchild" => history.grandchildren.push(entry),
                "overlap" => history.overlaps.push(entry),
                "end" => history.ends.push(entry),
                "unlock" => history.unlocks.push(entry),
                _ => match what.strip_prefix("note:") {
                    Some(name) => history.notes.push((name.to_owned(), entry)),
                    None => panic!("not a line of the journal: {line:?}"),
                },
            }
        }
        history
    }

    /// The last command to start.
    pub fn latest(&self) -> JournalEntry {
        *self.starts.last().expect("a command has started")
    }

    /// The promise: never two at once, and every term larger than the one before.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(overlap) = self.overlaps.first() {
            return Err(format!("{} overlaps, the first in term {}", self.overlaps.len(), overlap.term));
        }
        match self.starts.windows(2).find(|pair| pair[1].term <= pair[0].term) {
            Some(pair) => Err(format!("term {} came after term {}", pair[1].term, pair[0].term)),
            None => Ok(()),
        }
    }

    #[track_caller]
    pub fn is_safe(&self) {
        if let Err(fault) = self.verdict() {
            panic!("{fault}: {self:?}");
        }
    }
}

/// The measurements of many runs of one kind.
#[derive(Debug, Default)]
pub struct Measurements {
    /// From the end of the old tree to the start of the new command.
    pub handovers: Vec<Duration>,
    /// From the fault to the end of the old tree.
    pub endings: Vec<Duration>,
    pub overlaps: usize,
    pub survivors: usize,
}

impl Measurements {
    pub fn add(&mut self, other: Measurements) {
        self.handovers.extend(other.handovers);
        self.endings.extend(other.endings);
        self.overlaps += other.overlaps;
        self.survivors += other.survivors;
    }

    /// One line for people; shown by `cargo test -- --nocapture`.
    pub fn print(&self, kind: &str) {
        println!("figures: {kind}: {self}");
    }
}

impl fmt::Display for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs", self.handovers.len().max(self.endings.len()))?;
        for (what, times) in [("old tree gone after", &self.endings), ("hand-over", &self.handovers)] {
            if let (Some(median), Some(maximum)) = (median(times), times.iter().max()) {
                write!(f, ", {what} median {} maximum {}", millis(median), millis(*maximum))?;
            }
        }
        write!(f, ", overlaps {}, survivors {}", self.overlaps, self.survivors)
    }
}

pub fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

pub fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
