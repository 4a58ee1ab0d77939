//! `elect wait`: blocks until somebody leads, or nobody, or a certain one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::timeout;

use super::asked::{Asked, PATIENCE, run};
use super::changes::{Change, Changes, What};
use super::words::leads;
use super::{WaitFlags, complain, exit_for, fail};
use crate::boundary::Boundary;
use crate::clock;
use crate::election::Time;
use crate::exit::Exit;
use crate::store::observer::Observer;
use crate::store::{Leader, Notifier, Observation, StoreError};
use crate::surface::status::Document;
use crate::text::escaped;

/// How long a trouble that goes on is not mentioned again.
const AGAIN: Duration = Duration::from_secs(30);

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    Leader,
    Nobody,
    Name(String),
    Id(String),
}

impl FromStr for Awaited {
    type Err = String;

    fn from_str(text: &str) -> Result<Awaited, String> {
        match (text, text.split_once('=')) {
            ("leader", _) => Ok(Awaited::Leader),
            ("none", _) => Ok(Awaited::Nobody),
            (_, Some(("name", name))) if !name.is_empty() => Ok(Awaited::Name(name.to_owned())),
            (_, Some(("id", id))) if !id.is_empty() => Ok(Awaited::Id(id.to_owned())),
            _ => Err("say leader, none, name=NAME or id=ID".to_owned()),
        }
    }
}

impl Awaited {
    /// Who makes it so that what is waited for is so, as far as that is somebody.
    fn by<'a>(&self, present: &'a BTreeMap<Boundary, Leader>) -> Met<'a> {
        let first = |fits: &dyn Fn(&Leader) -> bool| {
            present
                .iter()
                .find(|(_, leader)| fits(leader))
                .map_or(Met::Not, |(boundary, leader)| Met::By(boundary, leader))
        };
        match self {
            Awaited::Leader => first(&|_| true),
            Awaited::Nobody if present.is_empty() => Met::ByNobody,
            Awaited::Nobody => Met::Not,
            Awaited::Name(name) => first(&|leader| leader.name == *name),
            Awaited::Id(id) => first(&|leader| leader.id == *id),
        }
    }
}

/// Whether what is waited for is so.
#[derive(Debug, Clone, Copy)]
enum Met<'a> {
    Not,
    ByNobody,
    By(&'a Boundary, &'a Leader),
}

pub fn wait(flags: &WaitFlags) -> ExitCode {
    let asked = match Asked::new(flags.boundary.as_deref(), &flags.store) {
        Ok(asked) => asked,
        Err(status) => return status,
    };
    run(asked.url, async {
        let store = match asked.url.open(&asked.access, Notifier::to_nobody()) {
            Ok(store) => store,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let mut wait = Wait {
            flags,
            store: asked.url.kind().name(),
            shown: asked.url.to_string(),
            observer: Observer::new(store, asked.boundary.clone(), PATIENCE),
            changes: Changes::default(),
            present: BTreeMap::new(),
            unknown: BTreeSet::new(),
            has_answered: false,
            trouble: None,
        };
        match flags.timeout {
            None => wait.until_met().await,
            Some(Duration::ZERO) => match wait.look().await {
                Some(status) => status,
                None => wait.timed_out(),
            },
            Some(limit) => match timeout(limit, wait.until_met()).await {
                Ok(status) => status,
                Err(_) => wait.timed_out(),
            },
        }
    })
}

struct Wait<'a> {
    flags: &'a WaitFlags,
    store: &'static str,
    /// The same as people see it.
    shown: String,
    observer: Observer,
    changes: Changes,
    /// Who leads, as far as that is known.
    present: BTreeMap<Boundary, Leader>,
    /// Boundaries whose record cannot be read: somebody may lead them.
    unknown: BTreeSet<Boundary>,
    /// Whether the store has ever answered.
    has_answered: bool,
    /// What the store's last answer was, if it was none; and when that was last mentioned.
    trouble: Option<(String, Time)>,
}

impl Wait<'_> {
    async fn until_met(&mut self) -> ExitCode {
        loop {
            if let Some(status) = self.look().await {
                return status;
            }
        }
    }

    /// Looks once; the exit status if there is nothing more to be waited for.
    async fn look(&mut self) -> Option<ExitCode> {
        let seen = self.observer.next().await;
        match &seen {
            Ok(_) => {
                self.has_answered = true;
                self.trouble = None;
            }
            // A refusal is an answer at the first contact alone: later it may be over as it came (S6).
            Err(error @ (StoreError::Refused(_) | StoreError::Misused(_))) if !self.has_answered => {
                return Some(fail(exit_for(error), &error.to_string()));
            }
            Err(error) => {
                self.mention(&error.to_string());
                return None;
            }
        }
        for Change { boundary, what } in self.changes.note(clock::now(), self.observer.scope(), seen) {
            let Some(boundary) = boundary else { continue };
            self.unknown.remove(&boundary);
            match what {
                What::Leads { leader, .. } => drop(self.present.insert(boundary, leader)),
                What::Nobody { .. } => drop(self.present.remove(&boundary)),
                // After a trouble it is not known whether the last leader still leads.
                What::Trouble(trouble) => {
                    complain(&format!("{boundary}: {trouble}; still waiting"));
                    self.present.remove(&boundary);
                    self.unknown.insert(boundary);
                }
            }
        }
        match self.flags.until.by(&self.present) {
            Met::Not => None,
            Met::ByNobody if !self.unknown.is_empty() => None,
            met @ (Met::ByNobody | Met::By(..)) => {
                self.tell(met);
                Some(Exit::Success.into())
            }
        }
    }

    /// At once, and now and then while it lasts: nobody knows how long that will be.
    fn mention(&mut self, trouble: &str) {
        let now = clock::now();
        if let Some((_, at)) = self.trouble
            && now.since(at) < AGAIN
        {
            return;
        }
        // With a short time-out there is a word soon enough.
        if self.flags.timeout.is_none_or(|limit| limit > AGAIN) {
            complain(&format!("{trouble}; still waiting"));
        }
        self.trouble = Some((trouble.to_owned(), now));
    }

    /// What has been waited for, as `status` has it. Into a closed pipe: the status says it too.
    fn tell(&self, met: Met<'_>) {
        let (boundary, leader) = match (met, self.observer.scope()) {
            (Met::By(boundary, leader), _) => (boundary, Some(leader)),
            (Met::ByNobody, Some(boundary)) => (boundary, None),
            // Of all boundaries there is nothing to be said one by one.
            (Met::ByNobody, None) | (Met::Not, _) => return,
        };
        let text = if self.flags.json {
            let sighting = Observation { leader: leader.cloned(), ..Observation::default() };
            Document::new(boundary, self.store, &sighting).to_json()
        } else {
            let boundary = escaped(boundary.as_str());
            format!("{boundary}: {}", leader.map_or("no leader".to_owned(), leads))
        };
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn timed_out(&self) -> ExitCode {
        let limit = humantime::format_duration(self.flags.timeout.unwrap_or_default());
        match &self.trouble {
            Some((trouble, _)) => fail(Exit::Unavailable, &format!("{trouble}; waited for {limit}")),
            None if !self.has_answered => {
                fail(Exit::Unavailable, &format!("{} has not answered; waited for {limit}", self.shown))
            }
            None => fail(Exit::NotElected, &format!("{} within {limit}", self.what_did_not_come())),
        }
    }

    fn what_did_not_come(&self) -> String {
        let of = self.observer.scope().map_or("any boundary".to_owned(), |boundary| format!("boundary {boundary}"));
        match &self.flags.until {
            Awaited::Leader => format!("nobody came to lead {of}"),
            Awaited::Nobody => format!("{of} did not lose its leader"),
            Awaited::Name(name) => format!("no candidate named {name:?} came to lead {of}"),
            Awaited::Id(id) => format!("no candidate with the id {id:?} came to lead {of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_four_forms() {
        assert_eq!("leader".parse(), Ok(Awaited::Leader));
        assert_eq!("none".parse(), Ok(Awaited::Nobody));
        assert_eq!("name=a=b".parse(), Ok(Awaited::Name("a=b".to_owned())));
        assert_eq!("id=x".parse(), Ok(Awaited::Id("x".to_owned())));
        for text in ["", "Leader", "name", "name=", "id=", "term=5", "leader=x"] {
            assert!(text.parse::<Awaited>().is_err(), "{text}");
        }
    }
}
