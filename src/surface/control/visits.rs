//! The wishes that the election has been told of and has not answered yet.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Door, Host, Verdict, Visit, Wish, rooms};
use crate::clock;
use crate::election::{Denial, Petition, Term, Time};

/// How many wishes wait for the election's answer at once, with those of visitors that have left: the election remembers them
/// until it answers, and a command may take hours to stop.
const PETITIONS_MAX: usize = 256;

/// The candidate's side of the control socket.
#[derive(Debug)]
pub struct Visits {
    /// Its file lives as long as this.
    door: Door,
    heard: mpsc::UnboundedReceiver<Visit>,
    open: HashMap<Petition, oneshot::Sender<Verdict>>,
    last: u64,
}

impl Visits {
    /// Opens the socket in the runtime directory. Must be called inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// In a few words for the log: the directory is not ours, or cannot be written.
    pub fn receive(host: Host) -> Result<Visits, String> {
        let directory = rooms::directory().map_err(|error| error.to_string())?;
        let opened = Door::open(&directory, host);
        let (door, heard) = opened.map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Visits { door, heard, open: HashMap::new(), last: 0 })
    }

    /// What commands are told.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.door.path()
    }

    /// The next visitor; `None`: there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<Visit> {
        self.heard.recv().await
    }

    /// A number for a wish, which its answer will carry. `None`: too many wait already, which the visitor has been told.
    pub fn admit(&mut self, Visit { wish, verdict }: Visit) -> Option<(Petition, Wish)> {
        if self.open.len() >= PETITIONS_MAX {
            // It may have left.
            let _ =
                verdict.send(Verdict::no("too many requests wait for an answer of this candidate: try again later"));
            return None;
        }
        self.last += 1;
        let petition = Petition(self.last);
        self.open.insert(petition, verdict);
        Some((petition, wish))
    }

    /// It has come true.
    pub fn grant(&mut self, petition: Petition, term: Option<Term>, until: Time) {
        let left = until.since(clock::now());
        let verdict = match until {
            Time::NEVER => Verdict::Yes { term, lease_left_ms: None },
            _ if left == Duration::ZERO => Verdict::no(NOT_LEADING),
            _ => Verdict::Yes { term, lease_left_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) },
        };
        self.answer(petition, verdict);
    }

    /// It has not.
    pub fn deny(&mut self, petition: Petition, why: Denial) {
        let why = match why {
            Denial::NotLeading => NOT_LEADING,
            Denial::Stopping => "it is stopping already",
            Denial::NotReleased => {
                "it has stopped, but the store did not confirm the release: the lease runs out by itself"
            }
        };
        self.answer(petition, Verdict::no(why));
    }

    /// It makes no sense.
    pub fn refuse(&mut self, petition: Petition) {
        self.answer(petition, Verdict::misunderstood());
    }

    fn answer(&mut self, petition: Petition, verdict: Verdict) {
        if let Some(visitor) = self.open.remove(&petition) {
            // It may have left.
            let _ = visitor.send(verdict);
        }
    }
}

const NOT_LEADING: &str = "not the leader";

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn no_more_than_so_many_wishes_wait_and_those_whose_visitors_have_left_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let host = Host { boundary: "cron".to_owned(), id: "0b5e".to_owned(), name: "web-1".to_owned() };
            let (door, heard) = Door::open(directory.path(), host).expect("a socket");
            let mut visits = Visits { door, heard, open: HashMap::new(), last: 0 };
            let visit = || {
                let (verdict, said) = oneshot::channel();
                (Visit { wish: Wish::Resign, verdict }, said)
            };
            let admitted: Vec<Petition> = (0..10_000).filter_map(|_| Some(visits.admit(visit().0)?.0)).collect();
            assert_eq!((admitted.len(), visits.open.len()), (PETITIONS_MAX, PETITIONS_MAX));
            let (one_more, said) = visit();
            assert!(visits.admit(one_more).is_none());
            assert!(matches!(said.await, Ok(Verdict::No { why }) if why.contains("try again")));
            visits.grant(admitted[0], None, Time::NEVER);
            assert!(visits.admit(visit().0).is_some(), "an answer makes room");
        });
    }
}
