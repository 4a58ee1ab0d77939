//! `elect wait`: blocks until there is a leader, or none, or a certain one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::timeout;

use super::change_tracker::{Change, ChangeKind, ChangeTracker};
use super::format::leader_line;
use super::stdout::print;
use super::store_query::{QUERY_TIMEOUT, StoreQuery, block_on};
use super::{WaitFlags, complain, exit_for, fail};
use crate::exit::Exit;
use crate::status::StatusDocument;
use crate::store::observer::Observer;
use crate::store::registry::any_candidate;
use crate::store::{Leader, Notifier, Observation, StoreError};
use crate::text::escaped;
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// How long a trouble that goes on is not mentioned again.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// The condition that ends the wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitCondition {
    Leader,
    NoLeader,
    Name(String),
    Id(String),
}

impl FromStr for WaitCondition {
    type Err = String;

    fn from_str(text: &str) -> Result<WaitCondition, String> {
        match (text, text.split_once('=')) {
            ("leader", _) => Ok(WaitCondition::Leader),
            ("none", _) => Ok(WaitCondition::NoLeader),
            (_, Some(("name", name))) if !name.is_empty() => Ok(WaitCondition::Name(name.to_owned())),
            (_, Some(("id", id))) if !id.is_empty() => Ok(WaitCondition::Id(id.to_owned())),
            _ => Err("say leader, none, name=NAME or id=ID".to_owned()),
        }
    }
}

impl WaitCondition {
    /// The leader that satisfies the condition, if the condition names one.
    fn evaluate<'a>(&self, leaders: &'a BTreeMap<Boundary, Leader>) -> ConditionMatch<'a> {
        let first = |fits: &dyn Fn(&Leader) -> bool| {
            leaders
                .iter()
                .find(|(_, leader)| fits(leader))
                .map_or(ConditionMatch::Unmet, |(boundary, leader)| ConditionMatch::Leader(boundary, leader))
        };
        match self {
            WaitCondition::Leader => first(&|_| true),
            WaitCondition::NoLeader if leaders.is_empty() => ConditionMatch::NoLeader,
            WaitCondition::NoLeader => ConditionMatch::Unmet,
            WaitCondition::Name(name) => first(&|leader| leader.name == *name),
            WaitCondition::Id(id) => first(&|leader| leader.id == *id),
        }
    }
}

/// Whether what is waited for is so.
#[derive(Debug, Clone, Copy)]
enum ConditionMatch<'a> {
    Unmet,
    NoLeader,
    Leader(&'a Boundary, &'a Leader),
}

pub fn wait(flags: &WaitFlags) -> ExitCode {
    let query = match StoreQuery::new(flags.scope.boundary(), &flags.store) {
        Ok(query) => query,
        Err(status) => return status,
    };
    if query.boundary.is_none() && flags.until == WaitCondition::Leader && !query.url.has_election() {
        return print_any(query.url.kind().name(), flags.json);
    }
    block_on(query.url, async {
        let store = match query.url.open(&query.access, Notifier::disconnected()) {
            Ok(store) => store,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let mut wait = WaitCommand {
            flags,
            store: query.url.kind().name(),
            shown: query.url.to_string(),
            observer: Observer::new(store, query.boundary.clone(), QUERY_TIMEOUT),
            tracker: ChangeTracker::default(),
            leaders: BTreeMap::new(),
            observations: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            has_answered: false,
            is_announced: false,
            last_error: None,
        };
        match flags.timeout {
            None => wait.run().await,
            Some(Duration::ZERO) => match wait.poll().await {
                Some(status) => status,
                None => wait.timed_out(),
            },
            Some(limit) => match timeout(limit, wait.run()).await {
                Ok(status) => status,
                Err(_) => wait.timed_out(),
            },
        }
    })
}

/// Without an election every boundary is led, and none is listed.
fn print_any(store: &'static str, json: bool) -> ExitCode {
    let observation = Observation { leader: Some(any_candidate()), ..Observation::default() };
    let text = if json {
        StatusDocument::of_any(store, &observation).to_json()
    } else {
        format!("{store}: every candidate leads")
    };
    print(text + "\n", Exit::Success.into())
}

struct WaitCommand<'a> {
    flags: &'a WaitFlags,
    store: &'static str,
    /// The same as it is shown.
    shown: String,
    observer: Observer,
    tracker: ChangeTracker,
    /// The leaders that are known.
    leaders: BTreeMap<Boundary, Leader>,
    /// The last observation, of everything that is known of a boundary.
    observations: BTreeMap<Boundary, Observation>,
    /// Boundaries whose record cannot be read: they may have a leader.
    unreadable: BTreeSet<Boundary>,
    /// Whether the store has ever answered.
    has_answered: bool,
    /// Whether a terminal was told what is waited for.
    is_announced: bool,
    /// The store's last error, if its last answer was one, and the time at which it was last reported.
    last_error: Option<(String, Time)>,
}

impl WaitCommand<'_> {
    async fn run(&mut self) -> ExitCode {
        loop {
            if let Some(status) = self.poll().await {
                return status;
            }
        }
    }

    /// Looks once; the exit status if there is nothing more to be waited for.
    async fn poll(&mut self) -> Option<ExitCode> {
        let seen = self.observer.next().await;
        match &seen {
            Ok(seen) => {
                let readable = seen.iter().filter_map(|(boundary, seen)| Some((boundary, seen.as_ref().ok()?)));
                self.observations = readable.map(|(boundary, seen)| (boundary.clone(), seen.clone())).collect();
                self.has_answered = true;
                self.last_error = None;
            }
            // A refusal is an answer at the first contact alone: later it may be over as it came (S6).
            Err(error @ (StoreError::Refused(_) | StoreError::Misused(_))) if !self.has_answered => {
                return Some(fail(exit_for(error), &error.to_string()));
            }
            Err(error) => {
                self.report_error(&error.to_string());
                return None;
            }
        }
        for Change { boundary, kind } in self.tracker.observe(clock::now(), self.observer.scope(), seen) {
            let Some(boundary) = boundary else { continue };
            self.unreadable.remove(&boundary);
            match kind {
                ChangeKind::Leader { leader, .. } => drop(self.leaders.insert(boundary, leader)),
                ChangeKind::NoLeader { .. } => drop(self.leaders.remove(&boundary)),
                // After a trouble it is not known whether the last leader still leads.
                ChangeKind::Error(error) => {
                    complain(&format!("{boundary}: {error}; still waiting"));
                    self.leaders.remove(&boundary);
                    self.unreadable.insert(boundary);
                }
            }
        }
        match self.flags.until.evaluate(&self.leaders) {
            ConditionMatch::Unmet => self.go_on(),
            ConditionMatch::NoLeader if !self.unreadable.is_empty() => self.go_on(),
            matched @ (ConditionMatch::NoLeader | ConditionMatch::Leader(..)) => {
                Some(print(self.answer(matched), Exit::Success.into()))
            }
        }
    }

    /// Tells a person once that this is a wait, and for what: a boundary is easily left out.
    fn go_on(&mut self) -> Option<ExitCode> {
        let is_short = self.flags.timeout.is_some_and(|limit| limit.is_zero());
        if !std::mem::replace(&mut self.is_announced, true) && !is_short && std::io::stderr().is_terminal() {
            complain(&format!("waiting until {} in {}", self.condition(), self.shown));
        }
        None
    }

    /// At once, and repeatedly while it lasts.
    fn report_error(&mut self, error: &str) {
        let now = clock::now();
        if let Some((_, at)) = self.last_error
            && now.since(at) < REPEAT_INTERVAL
        {
            return;
        }
        // A short time-out reports soon enough.
        if self.flags.timeout.is_none_or(|limit| limit > REPEAT_INTERVAL) {
            complain(&format!("{error}; still waiting"));
        }
        self.last_error = Some((error.to_owned(), now));
    }

    /// The match, as `status` shows it.
    fn answer(&self, matched: ConditionMatch<'_>) -> String {
        let (boundary, leader) = match (matched, self.observer.scope()) {
            (ConditionMatch::Leader(boundary, leader), _) => (boundary, Some(leader)),
            (ConditionMatch::NoLeader, Some(boundary)) => (boundary, None),
            // Of all boundaries there is nothing to be said one by one.
            (ConditionMatch::NoLeader, None) | (ConditionMatch::Unmet, _) => return String::new(),
        };
        let text = if self.flags.json {
            let known = self.observations.get(boundary).cloned().unwrap_or_default();
            let observation = Observation { leader: leader.cloned(), ..known };
            StatusDocument::new(boundary, self.store, &observation).to_json()
        } else {
            let boundary = escaped(boundary.as_str());
            format!("{boundary}: {}", leader.map_or("no leader".to_owned(), leader_line))
        };
        text + "\n"
    }

    fn timed_out(&self) -> ExitCode {
        let limit = humantime::format_duration(self.flags.timeout.unwrap_or_default());
        match &self.last_error {
            Some((error, _)) => fail(Exit::Unavailable, &format!("{error}; waited for {limit}")),
            None if !self.has_answered => {
                fail(Exit::Unavailable, &format!("{} has not answered; waited for {limit}", self.shown))
            }
            None => fail(Exit::NotElected, &format!("{} within {limit}", self.unmet_message())),
        }
    }

    fn condition(&self) -> String {
        let of = self.observer.scope().map_or("any boundary".to_owned(), |boundary| format!("boundary {boundary}"));
        match &self.flags.until {
            WaitCondition::Leader => format!("{of} has a leader"),
            WaitCondition::NoLeader if self.observer.scope().is_none() => "no boundary has a leader".to_owned(),
            WaitCondition::NoLeader => format!("{of} has no leader"),
            WaitCondition::Name(name) => format!("a candidate named {name:?} leads {of}"),
            WaitCondition::Id(id) => format!("the candidate with the id {id:?} leads {of}"),
        }
    }

    fn unmet_message(&self) -> String {
        let of = self.observer.scope().map_or("any boundary".to_owned(), |boundary| format!("boundary {boundary}"));
        match &self.flags.until {
            WaitCondition::Leader => format!("nobody came to lead {of}"),
            WaitCondition::NoLeader => format!("{of} did not lose its leader"),
            WaitCondition::Name(name) => format!("no candidate named {name:?} came to lead {of}"),
            WaitCondition::Id(id) => format!("no candidate with the id {id:?} came to lead {of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_four_forms() {
        assert_eq!("leader".parse(), Ok(WaitCondition::Leader));
        assert_eq!("none".parse(), Ok(WaitCondition::NoLeader));
        assert_eq!("name=a=b".parse(), Ok(WaitCondition::Name("a=b".to_owned())));
        assert_eq!("id=x".parse(), Ok(WaitCondition::Id("x".to_owned())));
        for text in ["", "Leader", "name", "name=", "id=", "term=5", "leader=x"] {
            assert!(text.parse::<WaitCondition>().is_err(), "{text}");
        }
    }
}
