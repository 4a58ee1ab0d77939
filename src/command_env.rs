//! The environment variables of the programs that a candidate runs: its identity, its role and its leader.

mod reason;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::control::SocketDirectory;
use crate::host_port::{HostPort, joined};
use crate::leader_tracker::{KnownLeader, RemoteLeader};
use crate::store::{Candidacy, Identity};
use crate::text;
use elect_core::limits::{self, TEXT_BYTES_MAX};
use elect_core::{BackgroundHook, Program, Term};

pub use reason::{DRAINED, RESIGNED, STOPPED, of_notice};

/// Names and values.
pub type Variables = Vec<(OsString, OsString)>;

/// The values that the variables are made from, but for the leader.
#[derive(Debug)]
pub struct CommandEnv {
    boundary: String,
    /// The boundaries around ours, the outermost first.
    inside: String,
    me: Identity,
    error: String,
    /// The reason why the last term is over.
    reason: &'static str,
    /// The control socket, for the commands.
    socket: Option<PathBuf>,
    /// Its directory, if it is not the default one.
    runtime_dir: Option<PathBuf>,
}

impl CommandEnv {
    /// The environment of a candidate's programs.
    #[must_use]
    pub fn new(candidacy: &Candidacy, inside: &[String]) -> CommandEnv {
        let (boundary, me) = (candidacy.boundary.to_string(), candidacy.identity.clone());
        CommandEnv {
            boundary,
            inside: inside.join("\n"),
            me,
            error: String::new(),
            reason: reason::STOPPED,
            socket: None,
            runtime_dir: None,
        }
    }

    /// Sets the path of the control socket, and its directory.
    pub fn set_socket(&mut self, socket: &Path, directory: &SocketDirectory) {
        self.socket = Some(socket.to_owned());
        self.runtime_dir = directory.is_named().then(|| directory.path().to_owned());
    }

    /// Changes the candidate's name or address; `None` leaves it as it is. Running programs keep the old values.
    pub fn rename(&mut self, name: Option<String>, address: Option<HostPort>) -> Identity {
        if let Some(name) = name {
            self.me.name = name;
        }
        if let Some(HostPort { host, port }) = address {
            (self.me.host, self.me.port) = (host, port);
        }
        self.me.clone()
    }

    /// Keeps the reason why a term ends, for the hook after it.
    pub fn set_reason(&mut self, reason: &'static str) {
        self.reason = reason;
    }

    /// Keeps the text of a store error for the hook that reports it.
    pub fn set_error(&mut self, error: &str) {
        // A hook may print the text unchanged.
        let error = text::escaped(error).into_owned();
        self.error = limits::cut(error, TEXT_BYTES_MAX);
    }

    /// The variables of a program. The term is the fencing token, which only programs of the leader get.
    #[must_use]
    pub fn variables(&self, program: Program, known: &KnownLeader) -> Variables {
        match program {
            Program::Command { term } => self.leader_env(term),
            Program::OnElected { term } => with_reason(self.leader_env(term), reason::ELECTED),
            Program::OnOusted { term } => with_reason(self.leader_env(term), self.reason),
            Program::Follower => self.follower_env(known),
        }
    }

    /// The variables of a hook that runs beside the program.
    #[must_use]
    pub fn background_hook_env(&self, background_hook: BackgroundHook, known: &KnownLeader) -> Variables {
        let mut variables = match *known {
            KnownLeader::Ourselves(term) => self.leader_env(term),
            KnownLeader::Nobody | KnownLeader::Another(_) => self.follower_env(known),
        };
        match background_hook {
            BackgroundHook::OnChange => with_reason(variables, reason::of_change(known)),
            BackgroundHook::OnError => {
                variables.push(("ELECT_ERROR".into(), self.error.clone().into()));
                with_reason(variables, reason::STORE_ERROR)
            }
        }
    }

    /// The variables of a health check. A check belongs to the candidate, whether or not it follows another one.
    #[must_use]
    pub fn check_env(&self, known: &KnownLeader) -> Variables {
        match *known {
            KnownLeader::Ourselves(term) => self.leader_env(term),
            KnownLeader::Nobody | KnownLeader::Another(_) => self.other_env("candidate", known),
        }
    }

    /// To the programs of a leader the leader is the candidate itself.
    fn leader_env(&self, term: Term) -> Variables {
        let me = &self.me;
        let mut variables = self.own("leader");
        variables.push(("ELECT_TERM", term.to_string()));
        variables.extend(leader(&me.id, &me.name, Some(&me.host), me.port));
        as_os_strings(variables)
    }

    fn follower_env(&self, known: &KnownLeader) -> Variables {
        self.other_env("follower", known)
    }

    /// A detail of the leader that is not known has no variable.
    fn other_env(&self, role: &str, known: &KnownLeader) -> Variables {
        let mut variables = self.own(role);
        if let KnownLeader::Another(RemoteLeader { id, name, host, port, .. }) = known {
            variables.extend(leader(id, name, host.as_deref(), *port));
        }
        as_os_strings(variables)
    }

    fn own(&self, role: &str) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("ELECT_BOUNDARY", self.boundary.clone()),
            ("ELECT_ROLE", role.to_owned()),
            ("ELECT_ID", self.me.id.clone()),
            ("ELECT_NAME", self.me.name.clone()),
        ];
        if !self.inside.is_empty() {
            variables.push(("ELECT_INSIDE", self.inside.clone()));
        }
        variables.extend(self.socket.as_ref().map(|path| ("ELECT_SOCKET", path.display().to_string())));
        let runtime_dir = self.runtime_dir.as_ref();
        variables.extend(runtime_dir.map(|path| ("ELECT_RUNTIME_DIR", path.display().to_string())));
        variables
    }
}

fn with_reason(mut variables: Variables, reason: &str) -> Variables {
    variables.push(("ELECT_REASON".into(), reason.into()));
    variables
}

fn leader(id: &str, name: &str, host: Option<&str>, port: Option<u16>) -> Vec<(&'static str, String)> {
    let mut variables = vec![("ELECT_LEADER_ID", id.to_owned()), ("ELECT_LEADER_NAME", name.to_owned())];
    variables.extend(host.map(|host| ("ELECT_LEADER_HOST", host.to_owned())));
    variables.extend(port.map(|port| ("ELECT_LEADER_PORT", port.to_string())));
    variables.extend(host.and_then(|host| joined(host, port)).map(|address| ("ELECT_LEADER_ADDR", address)));
    variables
}

/// Replaces NUL bytes, at which a variable ends: another candidate's record may hold any byte.
fn as_os_strings(variables: Vec<(&'static str, String)>) -> Variables {
    variables.into_iter().map(|(name, value)| (name.into(), value.replace('\0', " ").into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_tracker::LeaderTracker;
    use crate::leader_tracker::tests::other;
    use std::time::Duration;

    fn command_env() -> CommandEnv {
        let identity = Identity { id: "me".into(), name: "mine".into(), host: "here".into(), port: Some(80) };
        let boundary = "cron".parse().expect("a name");
        CommandEnv::new(&Candidacy { boundary, identity, ttl: Duration::from_secs(10) }, &[])
    }

    fn as_text(variables: &Variables) -> Vec<String> {
        let text = |(name, value): &(OsString, OsString)| format!("{}={}", name.display(), value.display());
        variables.iter().map(text).collect()
    }

    #[test]
    fn what_programs_are_told_is_limited_whatever_a_record_or_an_error_says() {
        let mut command_env = command_env();
        let huge = "\u{1b}".repeat(100_000);
        let mut observation = other(&huge, Some(1), 4);
        let leader = observation.leader.as_mut().expect("a leader");
        (leader.name, leader.host) = (huge.clone(), Some(huge.clone()));
        let mut tracker = LeaderTracker::new("me".to_owned());
        assert_eq!(tracker.observe(&observation).len(), 2);
        assert_eq!(tracker.observe(&observation).len(), 1, "no change");
        let known = tracker.known();
        command_env.set_error(&huge);
        let sizes = |variables: Variables| variables.iter().map(|(_, value)| value.len()).sum::<usize>();
        assert!(sizes(command_env.variables(Program::Follower, known)) < 4 * 1024);
        assert!(sizes(command_env.background_hook_env(BackgroundHook::OnError, known)) < 8 * 1024);
    }

    /// A value with a NUL byte would keep each program of the other candidates from being started.
    #[test]
    fn a_nul_byte_in_a_record_is_no_end_of_a_value() {
        let mut observation = other("a\0id", Some(1), 4);
        let leader = observation.leader.as_mut().expect("a leader");
        (leader.name, leader.host) = ("a\0name".to_owned(), Some("a\0host".to_owned()));
        let mut tracker = LeaderTracker::new("me".to_owned());
        tracker.observe(&observation);
        let variables = as_text(&command_env().variables(Program::Follower, tracker.known()));
        assert!(variables.iter().all(|variable| !variable.contains('\0')), "{variables:?}");
        assert!(variables.contains(&"ELECT_LEADER_NAME=a name".to_owned()), "{variables:?}");
    }

    #[test]
    fn what_is_not_known_is_not_said_and_a_term_is_for_leaders() {
        let mut command_env = command_env();
        let own = ["ELECT_BOUNDARY=cron", "ELECT_ROLE=follower", "ELECT_ID=me", "ELECT_NAME=mine"];
        let mut tracker = LeaderTracker::new("me".to_owned());
        assert_eq!(as_text(&command_env.variables(Program::Follower, tracker.known())), own);
        tracker.observe(&other("a", Some(8080), 4));
        let leader = [
            "ELECT_LEADER_ID=a",
            "ELECT_LEADER_NAME=other",
            "ELECT_LEADER_HOST=::1",
            "ELECT_LEADER_PORT=8080",
            "ELECT_LEADER_ADDR=[::1]:8080",
        ];
        assert_eq!(
            as_text(&command_env.variables(Program::Follower, tracker.known())),
            [&own[..], &leader[..]].concat()
        );
        command_env.set_error("down\0\u{1b}[2J");
        let error = ["ELECT_ERROR=down\\u{0}\\u{1b}[2J", "ELECT_REASON=store-error"];
        let expected = [&own[..], &leader[..], &error[..]].concat();
        assert_eq!(as_text(&command_env.background_hook_env(BackgroundHook::OnError, tracker.known())), expected);
        let check = as_text(&command_env.check_env(tracker.known()));
        assert_eq!(check[1], "ELECT_ROLE=candidate", "a check belongs to the candidate, whoever leads");
        assert_eq!(check[4..], leader, "{check:?}");
        tracker.elected(5);
        let leads = as_text(&command_env.variables(Program::Command { term: 5 }, tracker.known()));
        assert_eq!(as_text(&command_env.check_env(tracker.known())), leads);
        let mut beside = as_text(&command_env.background_hook_env(BackgroundHook::OnChange, tracker.known()));
        assert_eq!(beside.pop().as_deref(), Some("ELECT_REASON=elected"));
        assert_eq!(beside, as_text(&command_env.variables(Program::Command { term: 5 }, &KnownLeader::Nobody)));
        assert!(beside.contains(&"ELECT_TERM=5".to_owned()) && beside.contains(&"ELECT_LEADER_ID=me".to_owned()));
    }
}
