//! Who leads, as far as this candidate knows, and what the programs that it runs are told of that.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::host_port::{HostPort, joined};
use crate::store::{Candidacy, Identity, Leader};
use crate::text;
use elect_core::limits::{self, FOREIGN_ID_BYTES_MAX, TEXT_BYTES_MAX, is_believed_term};
use elect_core::{BackgroundHook, LeaderKey, Program, Term};

/// Variables for a program.
pub type Variables = Vec<(OsString, OsString)>;

/// What is known.
#[derive(Debug)]
pub struct CommandEnv {
    boundary: String,
    /// The boundaries around ours, the outermost first.
    inside: String,
    me: Identity,
    known: KnownLeader,
    /// Counts those who have led.
    key: u64,
    trouble: String,
    /// Where our commands find us.
    socket: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KnownLeader {
    Nobody,
    Another(RemoteLeader),
    Ourselves(Term),
}

/// What a follower is told of its leader. Another leader is whoever differs in any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RemoteLeader {
    id: String,
    name: String,
    host: Option<String>,
    port: Option<u16>,
    term: Option<Term>,
}

impl CommandEnv {
    /// Nobody is known to lead.
    #[must_use]
    pub fn new(candidacy: &Candidacy, inside: &[String]) -> CommandEnv {
        let (boundary, me) = (candidacy.boundary.to_string(), candidacy.identity.clone());
        CommandEnv {
            boundary,
            inside: inside.join("\n"),
            me,
            known: KnownLeader::Nobody,
            key: 0,
            trouble: String::new(),
            socket: None,
        }
    }

    /// We can be spoken to there.
    pub fn set_socket(&mut self, socket: &Path) {
        self.socket = Some(socket.to_owned());
    }

    /// Ourselves under another name or address; what is left out stays. What runs already has been told the old one.
    pub fn rename(&mut self, name: Option<String>, address: Option<HostPort>) -> Identity {
        if let Some(name) = name {
            self.me.name = name;
        }
        if let Some(HostPort { host, port }) = address {
            (self.me.host, self.me.port) = (host, port);
        }
        self.me.clone()
    }

    /// The store has said who leads. Returns whether that is news.
    pub fn observe(&mut self, leader: Option<&Leader>) -> bool {
        // Our own record, from before we knew of it or after we gave it up.
        let other = leader.filter(|leader| leader.id != self.me.id).map(|leader| RemoteLeader {
            id: limits::cut(leader.id.clone(), FOREIGN_ID_BYTES_MAX),
            name: limits::cut_name(leader.name.clone()),
            host: leader.host.clone().map(limits::cut_name),
            port: leader.port,
            term: leader.term,
        });
        self.now_known(other.map_or(KnownLeader::Nobody, KnownLeader::Another))
    }

    /// The term of a leader that is not this candidate, as far as it is believed (S1).
    #[must_use]
    pub fn term_of_another(&self, leader: &Leader) -> Option<Term> {
        leader.term.filter(|&term| leader.id != self.me.id && is_believed_term(term))
    }

    /// We have been elected, or lead no longer. Returns whether that is news.
    pub fn set_own_term(&mut self, term: Option<Term>) -> bool {
        match (term, &self.known) {
            (Some(term), _) => self.now_known(KnownLeader::Ourselves(term)),
            (None, KnownLeader::Ourselves(_)) => self.now_known(KnownLeader::Nobody),
            (None, KnownLeader::Another(_) | KnownLeader::Nobody) => false,
        }
    }

    fn now_known(&mut self, known: KnownLeader) -> bool {
        let news = self.known != known;
        if news {
            self.key += 1;
            self.known = known;
        }
        news
    }

    /// Somebody else who leads.
    #[must_use]
    pub fn leader(&self) -> Option<LeaderKey> {
        match self.known {
            KnownLeader::Another(_) => Some(LeaderKey(self.key)),
            KnownLeader::Nobody | KnownLeader::Ourselves(_) => None,
        }
    }

    /// The store is in trouble.
    pub fn set_error(&mut self, trouble: &str) {
        // A hook may show it as it is.
        let trouble = text::escaped(trouble).into_owned();
        self.trouble = limits::cut(trouble, TEXT_BYTES_MAX);
    }

    /// What a program is told. The term is the fencing token, and for those alone that lead.
    #[must_use]
    pub fn variables(&self, job: Program) -> Variables {
        match job {
            Program::Command { term } | Program::OnElected { term } | Program::OnOusted { term } => {
                self.leader_env(term)
            }
            Program::Follower => self.follower_env(),
        }
    }

    /// The same for a hook that runs beside it.
    #[must_use]
    pub fn background_hook_env(&self, background_hook: BackgroundHook) -> Variables {
        let mut variables = match self.known {
            KnownLeader::Ourselves(term) => self.leader_env(term),
            KnownLeader::Nobody | KnownLeader::Another(_) => self.follower_env(),
        };
        match background_hook {
            BackgroundHook::OnChange => {}
            BackgroundHook::OnError => variables.push(("ELECT_ERROR".into(), self.trouble.clone().into())),
        }
        variables
    }

    /// A leader follows itself.
    fn leader_env(&self, term: Term) -> Variables {
        let me = &self.me;
        let mut variables = self.own("leader");
        variables.push(("ELECT_TERM", term.to_string()));
        variables.extend(leader(&me.id, &me.name, Some(&me.host), me.port));
        as_os_strings(variables)
    }

    /// What is not known is not said.
    fn follower_env(&self) -> Variables {
        let mut variables = self.own("follower");
        if let KnownLeader::Another(RemoteLeader { id, name, host, port, .. }) = &self.known {
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
        // The directory's name is ours, and plain.
        variables.extend(self.socket.as_ref().map(|path| ("ELECT_SOCKET", path.display().to_string())));
        variables
    }
}

fn leader(id: &str, name: &str, host: Option<&str>, port: Option<u16>) -> Vec<(&'static str, String)> {
    let mut variables = vec![("ELECT_LEADER_ID", id.to_owned()), ("ELECT_LEADER_NAME", name.to_owned())];
    variables.extend(host.map(|host| ("ELECT_LEADER_HOST", host.to_owned())));
    variables.extend(port.map(|port| ("ELECT_LEADER_PORT", port.to_string())));
    variables.extend(host.and_then(|host| joined(host, port)).map(|address| ("ELECT_LEADER_ADDR", address)));
    variables
}

/// A foreign record may hold anything, and a variable ends at a NUL byte.
fn as_os_strings(variables: Vec<(&'static str, String)>) -> Variables {
    variables.into_iter().map(|(name, value)| (name.into(), value.replace('\0', " ").into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn command_env() -> CommandEnv {
        let identity = Identity { id: "me".into(), name: "mine".into(), host: "here".into(), port: Some(80) };
        let boundary = "cron".parse().expect("a name");
        CommandEnv::new(&Candidacy { boundary, identity, ttl: Duration::from_secs(10) }, &[])
    }

    fn other(id: &str, port: Option<u16>, term: Term) -> Leader {
        Leader {
            id: id.into(),
            name: "other".into(),
            host: Some("::1".into()),
            port,
            term: Some(term),
            since: None,
            ttl: None,
            lease_left: None,
        }
    }

    fn as_text(variables: &Variables) -> Vec<String> {
        let text = |(name, value): &(OsString, OsString)| format!("{}={}", name.display(), value.display());
        variables.iter().map(text).collect()
    }

    #[test]
    fn another_leader_is_whoever_differs_in_anything_and_ourselves_are_none() {
        let mut command_env = command_env();
        assert!(!command_env.observe(None), "nobody is no news at first");
        assert!(!command_env.observe(Some(&other("me", None, 3))), "an old record of our own");
        let mut keys = Vec::new();
        for leader in [other("a", None, 4), other("a", Some(1), 4), other("a", Some(1), 5), other("b", Some(1), 5)] {
            assert!(command_env.observe(Some(&leader)));
            assert!(!command_env.observe(Some(&leader)), "no news");
            keys.push(command_env.leader().expect("somebody leads"));
        }
        keys.dedup();
        assert_eq!(keys.len(), 4);
        assert!(command_env.observe(None));
        assert_eq!(command_env.leader(), None);
    }

    #[test]
    fn what_programs_are_told_is_limited_whatever_a_record_or_an_error_says() {
        let mut command_env = command_env();
        let huge = "\u{1b}".repeat(100_000);
        let leader = Leader { name: huge.clone(), host: Some(huge.clone()), ..other(&huge, Some(1), 4) };
        assert!(command_env.observe(Some(&leader)));
        assert!(!command_env.observe(Some(&leader)), "no news");
        command_env.set_error(&huge);
        let sizes = |variables: Variables| variables.iter().map(|(_, value)| value.len()).sum::<usize>();
        assert!(sizes(command_env.variables(Program::Follower)) < 4 * 1024);
        assert!(sizes(command_env.background_hook_env(BackgroundHook::OnError)) < 8 * 1024);
    }

    #[test]
    fn our_own_leadership_is_a_change_and_so_is_its_end() {
        let mut command_env = command_env();
        assert!(!command_env.set_own_term(None));
        assert!(command_env.observe(Some(&other("a", None, 4))));
        assert!(!command_env.set_own_term(None), "it is not ours that ends");
        assert!(command_env.set_own_term(Some(5)));
        assert_eq!(command_env.leader(), None, "nobody follows itself");
        assert!(!command_env.set_own_term(Some(5)));
        assert!(command_env.set_own_term(None));
    }

    #[test]
    fn what_is_not_known_is_not_said_and_a_term_is_for_leaders() {
        let mut command_env = command_env();
        let own = ["ELECT_BOUNDARY=cron", "ELECT_ROLE=follower", "ELECT_ID=me", "ELECT_NAME=mine"];
        assert_eq!(as_text(&command_env.variables(Program::Follower)), own);
        command_env.observe(Some(&other("a", Some(8080), 4)));
        let leader = [
            "ELECT_LEADER_ID=a",
            "ELECT_LEADER_NAME=other",
            "ELECT_LEADER_HOST=::1",
            "ELECT_LEADER_PORT=8080",
            "ELECT_LEADER_ADDR=[::1]:8080",
        ];
        assert_eq!(as_text(&command_env.variables(Program::Follower)), [&own[..], &leader[..]].concat());
        command_env.set_error("down\0\u{1b}[2J");
        let expected = [&own[..], &leader[..], &["ELECT_ERROR=down\\u{0}\\u{1b}[2J"][..]].concat();
        assert_eq!(as_text(&command_env.background_hook_env(BackgroundHook::OnError)), expected);
        command_env.set_own_term(Some(5));
        let beside = as_text(&command_env.background_hook_env(BackgroundHook::OnChange));
        assert_eq!(beside, as_text(&command_env.variables(Program::Command { term: 5 })));
        assert!(beside.contains(&"ELECT_TERM=5".to_owned()) && beside.contains(&"ELECT_LEADER_ID=me".to_owned()));
    }
}
