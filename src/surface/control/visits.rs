//! The wishes that the election has been told of and has not answered yet.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Door, Host, Verdict, Visit, Wish, rooms};
use crate::clock;
use crate::election::{Denial, Petition, Term, Time};

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

    /// A number for a wish, which its answer will carry.
    pub fn admit(&mut self, visit: Visit) -> (Petition, Wish) {
        // Those who have left wait for nothing.
        self.open.retain(|_, verdict| !verdict.is_closed());
        self.last += 1;
        let petition = Petition(self.last);
        self.open.insert(petition, visit.verdict);
        (petition, visit.wish)
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
