//! The story of an election, as log lines: each transition once, troubles not more often than people can read.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::election::{CommandEnd, NotStarted, Reason, Report, Signal, Time};
use crate::store::worker::Story;
use crate::store::{Sighting, StoreError};

/// How long a trouble that stays the same is not mentioned again.
const AGAIN: Duration = Duration::from_secs(30);

/// Remembers what has been said.
#[derive(Debug, Default)]
pub struct Narrator {
    seen: Option<(Option<String>, Option<String>)>,
    troubled: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Time,
    told_at: Time,
    untold: u32,
}

impl Narrator {
    /// What the store said beyond its answer.
    pub fn tell(&mut self, now: Time, story: Story) {
        match story {
            Story::None => self.well_again(now),
            Story::Sighting(sighting) => {
                self.well_again(now);
                self.sighting(&sighting);
            }
            Story::Lost(why) => {
                self.well_again(now);
                warn!(why, "the store says that the boundary is not ours");
            }
            Story::Trouble(error) => self.trouble(now, &error),
        }
    }

    fn sighting(&mut self, sighting: &Sighting) {
        let seen = (sighting.leader.as_ref().map(|leader| leader.id.clone()), sighting.obstacle.clone());
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        self.seen = Some(seen);
        match (&sighting.leader, &sighting.obstacle) {
            (Some(leader), _) => {
                info!(host = leader.host, term = leader.term, id = leader.id, "waiting: {} leads", leader.name);
            }
            (None, Some(obstacle)) => warn!("waiting: {obstacle}"),
            (None, None) => info!("waiting: nobody leads yet"),
        }
    }

    fn trouble(&mut self, now: Time, trouble: &StoreError) {
        match &mut self.troubled {
            None => {
                self.troubled = Some(Trouble { since: now, told_at: now, untold: 0 });
                warn!("store: {trouble}");
            }
            Some(known) if now >= known.told_at + AGAIN => {
                let seconds = now.since(known.since).as_secs();
                warn!(times = known.untold + 1, "store: {trouble}; for {seconds} s now, still trying");
                (known.told_at, known.untold) = (now, 0);
            }
            Some(known) => {
                known.untold += 1;
                debug!("store: {trouble}");
            }
        }
    }

    fn well_again(&mut self, now: Time) {
        if let Some(known) = self.troubled.take() {
            info!("store: answers again, after {} s", now.since(known.since).as_secs());
        }
    }

    /// A transition of the election.
    pub fn report(&mut self, report: &Report) {
        match report {
            Report::Won { term } => debug!(term, "won, to be verified"),
            Report::Elected { term } => {
                self.seen = None;
                info!(term, "elected");
            }
            Report::Started { term, pid } => info!(term, pid, "leader command started"),
            Report::CommandEnded { term, end: CommandEnd::Exited(status) } => {
                info!(term, status, "leader command ended");
            }
            Report::CommandEnded { term, end: CommandEnd::Killed { signal, .. } } => {
                info!(term, signal = name(*signal), "leader command ended");
            }
            Report::Stopping { term, reason } => stopping(*term, *reason),
            Report::Unconfirmed { term } => {
                error!(term, "killed, and still not gone: nothing is released and nothing else starts until it is");
            }
            Report::Released { term } => info!(term, "released"),
            Report::NotReleased { term } => {
                warn!(term, "the release was not confirmed: what the store still holds runs out by itself");
            }
            Report::Unusable(unusable) => error!("the store grants a ttl that cannot be used: {unusable}"),
            Report::KeeperSilent => error!("the keeper does not answer and is killed"),
            Report::KeeperDied => error!("the keeper is dead: the command is killed"),
        }
    }
}

fn stopping(term: u64, reason: Reason) {
    match reason {
        // Said already: the command ended, the keeper died.
        Reason::CommandEnded | Reason::KeeperDied => {}
        Reason::CannotStart(errno) => {
            let reason = std::io::Error::from_raw_os_error(errno);
            error!(term, "the leader command cannot be executed: {reason}");
        }
        Reason::Asked(signal) => info!(term, signal = name(signal), "asked to stop: stopping the leader command"),
        Reason::RunningOut => warn!(term, "the lease runs out: stopping the leader command"),
        Reason::Lost => warn!(term, "leadership lost: killing the leader command"),
    }
}

/// A signal as people know it: `TERM`, not 15.
fn name(Signal(number): Signal) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().trim_start_matches("SIG").to_owned())
}

/// Why the store would not have us: the last line.
pub fn refused(story: &Story) {
    if let Story::Trouble(refusal) = story {
        error!("store: {refusal}");
    }
}

/// The keeper refused to start in time: said in the debug log, since the next renewal mends it.
pub fn not_started(why: NotStarted) {
    debug!(?why, "leader command not started");
}
