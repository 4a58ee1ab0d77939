//! The election as log lines: each transition once, store errors at a limited rate.

mod eligibility;
mod hooks;
mod stops;

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::store::worker::StoreNote;
use crate::store::{Observation, StoreError};
use elect_core::{BackgroundHook, Hook, HumanDuration, NotStarted, Notice, Outcome, RunId, Signal, Time};

pub use hooks::hook_of;

/// The interval after which an outage that goes on is logged again.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);
/// The same error so soon after an answer continues the outage: where reads work and writes fail, both alternate.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Logs, and remembers what has been logged.
#[derive(Debug, Default)]
pub struct EventLog {
    seen: Option<(Option<String>, Option<String>)>,
    outage: Option<Outage>,
    phase: LogPhase,
    /// The store's reason for a loss, until the line about the loss is logged.
    loss: Option<String>,
    /// The hook that runs before or after a term.
    hook: Option<(RunId, Hook)>,
    background_hook: Option<BackgroundHook>,
}

/// The phase of the candidate, as far as it decides how a message of the store is logged.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LogPhase {
    /// The candidate waits for the boundary.
    #[default]
    Campaigning,
    /// The candidate leads.
    Elected,
    /// The candidate gives up: another leads.
    NotElected,
    /// The candidate gives up: the store does not answer.
    Unavailable,
}

#[derive(Debug)]
struct Outage {
    since: Time,
    error: String,
    logged_at: Time,
    suppressed: u32,
    /// The time of an answer since the last error.
    answered_at: Option<Time>,
    /// Whether that was logged since the error was.
    recovery_is_logged: bool,
}

impl Outage {
    fn begin(now: Time, error: &StoreError) -> Outage {
        Outage {
            since: now,
            error: error.to_string(),
            logged_at: now,
            suppressed: 0,
            answered_at: None,
            recovery_is_logged: false,
        }
    }

    /// Whether this error belongs to another outage.
    fn is_over(&self, now: Time, error: &StoreError) -> bool {
        self.answered_at.is_some_and(|at| now >= at + STABLE_AFTER || self.error != error.to_string())
    }
}

impl EventLog {
    /// Logs the note of a store's answer. Returns the text of an error if a warning was logged.
    pub fn store_note(&mut self, now: Time, note: &StoreNote) -> Option<String> {
        match note {
            StoreNote::None => self.store_recovered(now),
            StoreNote::Connecting => debug!("the store is being connected to, which takes more than one attempt"),
            StoreNote::Observation(observation) => {
                self.store_recovered(now);
                self.observation(observation);
            }
            StoreNote::Lost(why) => {
                self.store_recovered(now);
                match self.phase {
                    LogPhase::Elected => self.loss = Some(why.clone()),
                    LogPhase::Campaigning | LogPhase::NotElected | LogPhase::Unavailable => {
                        info!(why, "won, and lost before anything was started");
                    }
                }
            }
            StoreNote::Error(error) => return self.store_error(now, error).then(|| error.to_string()),
        }
        None
    }

    /// Logs a loss that has no consequence: everything was over already.
    pub fn report_loss(&mut self) {
        if let Some(why) = self.loss.take() {
            warn!(why, "the store says that the boundary is not ours");
        }
    }

    /// The store's reason for a loss.
    fn take_loss(&mut self) -> String {
        self.loss.take().unwrap_or_else(|| "what this candidate held has vanished from the store".to_owned())
    }

    /// The reason why a lease was not renewed.
    fn why_not_renewed(&self) -> String {
        match self.outage.as_ref().filter(|known| known.answered_at.is_none()) {
            Some(known) => known.error.clone(),
            None => {
                "no renewal was confirmed in time: was this process suspended, or short of processor time?".to_owned()
            }
        }
    }

    fn observation(&mut self, observation: &Observation) {
        let seen = (observation.leader.as_ref().map(|leader| leader.id.clone()), observation.obstacle.clone());
        if self.seen.as_ref() == Some(&seen) {
            return;
        }
        self.seen = Some(seen);
        let (leader, obstacle) = (&observation.leader, &observation.obstacle);
        let lost = self.phase == LogPhase::NotElected;
        let what = if lost { "not elected" } else { "waiting" };
        match (leader, obstacle) {
            (Some(leader), _) => {
                let (host, id) = (&leader.host, &leader.id);
                info!(
                    term = leader.term,
                    json.leader_host = host,
                    json.leader_id = id,
                    "{what}: {} leads",
                    leader.name
                );
            }
            // Only a candidate that waits warns of an obstacle.
            (None, Some(obstacle)) if lost => info!("{what}: {obstacle}"),
            (None, Some(obstacle)) => warn!("{what}: {obstacle}"),
            (None, None) => info!("{what}: nobody leads yet"),
        }
    }

    /// Logs a store error. Returns whether it was more than a line of the debug log.
    fn store_error(&mut self, now: Time, error: &StoreError) -> bool {
        // The error that ends a candidacy is logged, however soon it comes after an answer.
        let is_last = self.phase == LogPhase::Unavailable && !self.is_store_down();
        if is_last || self.outage.as_ref().is_some_and(|known| known.is_over(now, error)) {
            self.outage = None;
        }
        match &mut self.outage {
            None => {
                self.outage = Some(Outage::begin(now, error));
                match self.phase {
                    LogPhase::Unavailable => error!("store: {error}"),
                    LogPhase::Campaigning => warn!("store: {error}; trying again"),
                    LogPhase::Elected | LogPhase::NotElected => warn!("store: {error}"),
                }
            }
            Some(known) if now >= known.logged_at + REPEAT_INTERVAL => {
                let seconds = now.since(known.since).as_secs();
                warn!(times = known.suppressed + 1, "store: {error}; for {seconds} s now, still trying");
                (known.logged_at, known.suppressed) = (now, 0);
                (known.answered_at, known.recovery_is_logged) = (None, false);
            }
            Some(known) => {
                known.suppressed += 1;
                known.answered_at = None;
                debug!("store: {error}");
                return false;
            }
        }
        true
    }

    fn store_recovered(&mut self, now: Time) {
        if self.phase != LogPhase::Unavailable
            && let Some(known) = self.outage.as_mut().filter(|known| known.answered_at.is_none())
        {
            known.answered_at = Some(now);
            if !std::mem::replace(&mut known.recovery_is_logged, true) {
                match now.since(known.since).as_secs() {
                    0 => info!("store: answers again, after less than a second"),
                    seconds => info!("store: answers again, after {seconds} s"),
                }
            }
        }
    }

    /// Whether the last answer of the store was an error.
    fn is_store_down(&self) -> bool {
        self.outage.as_ref().is_some_and(|known| known.answered_at.is_none())
    }

    /// Logs a transition of the election.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Won { term } => {
                self.phase = LogPhase::Campaigning;
                debug!(term, "won, to be verified");
            }
            Notice::TermTooLow { term, seen } => {
                self.phase = LogPhase::Campaigning;
                warn!(
                    term,
                    seen,
                    "the store gave a term that is not above one seen before: the boundary is given back, and sought again \
                     later; were records deleted, or the store restored from a backup?"
                );
            }
            Notice::Elected { term } => {
                (self.phase, self.seen) = (LogPhase::Elected, None);
                info!(term, "elected");
            }
            Notice::Started { term, pid } => info!(json.term = term, pid, "leader command started"),
            Notice::CommandEnded { term, end } => stops::command_ended(*term, *end),
            Notice::Stopping { term, reason } => self.stopping(*term, *reason),
            Notice::StopShortened { term, left } => self.stop_shortened(*term, *left),
            Notice::Killing { term, cause } => self.killing(*term, *cause),
            Notice::FollowerKilling => info!("second stop signal: killing the follower"),
            Notice::LeftBehind { program, processes } => stops::left_behind(*program, processes),
            Notice::StopTimedOut { program, after, processes } => stops::stop_timed_out(*program, *after, processes),
            Notice::Restarting { term, delay } => {
                info!(term, "the leader command is started again in {}", HumanDuration(*delay));
            }
            Notice::LeadingIdle { term, left } => {
                info!(term, "the boundary is kept for another {} (--min-hold)", HumanDuration(*left));
            }
            Notice::LostAtRest { term, reason } => self.lost_at_rest(*term, *reason),
            Notice::GivenUp { term, sits_out } => given_up(*term, *sits_out),
            Notice::NotAccepted { term, sits_out } => not_accepted(*term, *sits_out),
            Notice::HookFailed { hook, failure } => hooks::failed(*hook, *failure),
            Notice::FollowerStarted { pid } => info!(pid, "follower started"),
            Notice::FollowerEnded { end } => stops::follower_ended(*end),
            Notice::FollowerCannotStart(NotStarted::Failed(errno)) => {
                let reason = std::io::Error::from_raw_os_error(*errno);
                error!("the follower cannot be started: {reason}");
            }
            Notice::FollowerCannotStart(NotStarted::TooLate) => error!("the follower was not started"),
            Notice::FollowerStopping { for_another: true } => info!("another leads: stopping the follower"),
            Notice::FollowerStopping { for_another: false } => info!("about to lead: stopping the follower"),
            Notice::FollowerUnconfirmed => {
                error!("the follower is killed, and still not gone: no candidacy until it is");
            }
            Notice::CampaignsAgain => info!("standing again"),
            Notice::Drained
            | Notice::Undrained
            | Notice::Healthy
            | Notice::Unhealthy { .. }
            | Notice::LongUnhealthy { .. } => eligibility::changed(notice),
            Notice::Unconfirmed { term } => {
                error!(term, "killed, and still not gone: nothing is released and nothing else starts until it is");
            }
            Notice::Released { term } => info!(term, "released"),
            Notice::NotReleased { term } => {
                warn!(term, "the release was not confirmed: what the store still holds runs out by itself");
            }
            Notice::Unusable(unusable) => error!("the store grants a ttl that cannot be used: {unusable}"),
            // The reason is logged now, unless it has been logged already.
            Notice::NotElected => {
                self.phase = LogPhase::NotElected;
                if self.seen.is_some() {
                    info!("not elected, and waited for no longer");
                }
            }
            Notice::Unavailable => {
                self.phase = LogPhase::Unavailable;
                if self.is_store_down() {
                    info!("the store does not answer, and is waited for no longer");
                }
            }
            Notice::KeeperSilent => error!("the keeper does not answer and is killed"),
            Notice::KeeperDied => error!("the keeper is dead: everything that it has started is killed"),
        }
    }

    /// Logs the end. An unavailable store has been logged by then, unless it never answered at all.
    pub fn ended(&self, outcome: &Outcome) {
        if *outcome == Outcome::Unavailable && !self.is_store_down() {
            error!("store: no answer in time");
        }
    }
}

fn given_up(term: u64, cooldown: Option<Duration>) {
    if let Some(time) = cooldown {
        warn!(
            term,
            "the leader command ends too often (--restart-limit): another candidate's turn, this one stands again in {}",
            HumanDuration(time)
        );
    } else {
        warn!(term, "the leader command ends too often (--restart-limit): giving up");
    }
}

fn not_accepted(term: u64, cooldown: Option<Duration>) {
    if let Some(time) = cooldown {
        warn!(
            term,
            "not leading without --on-elected: another candidate's turn, this one stands again in {}",
            HumanDuration(time)
        );
    } else {
        warn!(term, "not leading without --on-elected: giving up");
    }
}

/// The name of a signal: `TERM`, not 15.
fn name(Signal(number): Signal) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.as_str().trim_start_matches("SIG").to_owned())
}

/// Logs a suspension (Ctrl-Z), and its effect on the leadership.
pub fn suspended(has_lease: bool) {
    if has_lease {
        warn!("suspended with the leader command: the lease runs out unless fg or bg comes first");
    } else {
        info!("suspended with the leader command, still leading: fg or bg goes on");
    }
}

/// Logs the end of a suspension, or that the kernel did not suspend the job.
pub fn resumed() {
    info!("going on");
}

/// Logs that the command was stopped while it leads.
pub fn command_stopped(signal: Signal) {
    let Signal(number) = signal;
    if number == libc::SIGTTIN || number == libc::SIGTTOU {
        warn!(
            signal = name(signal),
            "the leader command waits for the terminal, and leads on: bring it to the foreground (fg), or start it with \
             </dev/null"
        );
    } else {
        warn!(
            signal = name(signal),
            "the leader command was stopped, and leads on until somebody continues or stops it"
        );
    }
}

/// Logs the reason of the store's refusal: the last line.
pub fn refused(note: &StoreNote) {
    if let StoreNote::Error(refusal) = note {
        error!("store: {refusal}");
    }
}

/// Logs that the keeper refused a start. The debug log is enough, since the next renewal starts it again.
pub fn not_started(why: NotStarted) {
    debug!(?why, "leader command not started");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    use elect_core::{Program, Reason};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of a new event log, with the level in front.
    fn logged(log: impl FnOnce(&mut EventLog)) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let subscriber = subscriber.with_ansi(false).with_target(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || log(&mut EventLog::default()));
        let text = String::from_utf8(lines.0.lock().expect("one thread").clone()).expect("text");
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    fn down() -> StoreNote {
        StoreNote::Error(StoreError::Unavailable("down".to_owned()))
    }

    const NOW: Time = Time::BOOT;

    #[test]
    fn the_trouble_that_ends_a_candidacy_is_an_error_and_said_once() {
        let lines = logged(|event_log| {
            event_log.notice(&Notice::Unavailable);
            event_log.store_note(NOW, &down());
            event_log.store_note(NOW, &StoreNote::None);
            event_log.ended(&Outcome::Unavailable);
        });
        assert_eq!(lines, ["ERROR store: down"]);
        // The store had just answered, so that the error alone would continue the outage.
        let lines = logged(|event_log| {
            event_log.store_note(NOW, &down());
            event_log.store_note(NOW, &StoreNote::None);
            event_log.notice(&Notice::Unavailable);
            event_log.store_note(NOW, &down());
            event_log.ended(&Outcome::Unavailable);
        });
        assert_eq!(lines.last().map(String::as_str), Some("ERROR store: down"), "{lines:?}");
        // It had been named already, and that was a warning then.
        let lines = logged(|event_log| {
            event_log.store_note(NOW, &down());
            event_log.notice(&Notice::Unavailable);
            event_log.store_note(NOW, &down());
            event_log.ended(&Outcome::Unavailable);
        });
        assert_eq!(
            lines,
            ["WARN store: down; trying again", "INFO the store does not answer, and is waited for no longer"]
        );
    }

    #[test]
    fn an_error_that_alternates_with_answers_is_one_outage() {
        let other = StoreNote::Error(StoreError::Unavailable("full".to_owned()));
        let at = |millis: u64| NOW + Duration::from_millis(millis);
        let lines = logged(|event_log| {
            for millis in (0..2_000).step_by(200) {
                event_log.store_note(at(millis), &down());
                event_log.store_note(at(millis + 100), &StoreNote::None);
            }
        });
        assert_eq!(lines, ["WARN store: down; trying again", "INFO store: answers again, after less than a second"]);
        // An outage of its own: the store had worked for a while, or the error is another.
        let lines = logged(|event_log| {
            for note in [down(), StoreNote::None] {
                event_log.store_note(at(0), &note);
            }
            event_log.store_note(at(500), &other);
            event_log.store_note(at(600), &StoreNote::None);
            event_log.store_note(at(1_600), &other);
        });
        let (down, full) = ("WARN store: down; trying again", "WARN store: full; trying again");
        let again = "INFO store: answers again, after less than a second";
        assert_eq!(lines, [down, again, full, again, full]);
        // One that goes on is reported again.
        let lines = logged(|event_log| {
            for seconds in 0..=30 {
                event_log.store_note(at(seconds * 1_000), &other);
                event_log.store_note(at(seconds * 1_000 + 900), &StoreNote::None);
            }
        });
        assert!(lines.len() == 4 && lines[2].contains("for 30 s now, still trying"), "{lines:?}");
    }

    #[test]
    fn a_store_that_fell_silent_without_a_word_is_named_at_the_end_and_only_if_that_is_why() {
        let lines = logged(|event_log| {
            event_log.notice(&Notice::Unavailable);
            event_log.ended(&Outcome::Unavailable);
        });
        assert_eq!(lines, ["ERROR store: no answer in time"]);
        assert_eq!(logged(|event_log| event_log.ended(&Outcome::NotElected)), [""; 0]);
    }

    #[test]
    fn what_a_waiter_is_warned_of_is_no_warning_for_a_loser() {
        let stands = |event_log: &mut EventLog| {
            let observation = Observation { obstacle: Some("held by orphans".to_owned()), ..Observation::default() };
            event_log.store_note(NOW, &StoreNote::Observation(observation));
        };
        assert_eq!(logged(stands), ["WARN waiting: held by orphans"]);
        let loses = |event_log: &mut EventLog| {
            event_log.notice(&Notice::NotElected);
            stands(event_log);
        };
        assert_eq!(logged(loses), ["INFO not elected: held by orphans"]);
        // The state that it then leaves behind is.
        let lines = logged(|event_log| {
            event_log.notice(&Notice::NotElected);
            event_log.store_note(NOW, &down());
        });
        assert_eq!(lines, ["WARN store: down"]);
    }

    #[test]
    fn a_lost_leadership_is_a_warning_and_a_lost_win_is_none() {
        let lost = || StoreNote::Lost("it is not there".to_owned());
        let lines = logged(|event_log| {
            event_log.notice(&Notice::Elected { term: 7 });
            event_log.store_note(NOW, &lost());
            event_log.notice(&Notice::Stopping { term: 7, reason: Reason::Lost });
            event_log.report_loss();
            event_log.notice(&Notice::Won { term: 8 });
            event_log.store_note(NOW, &lost());
        });
        let levels: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(levels, ["INFO", "WARN", "INFO"], "{lines:?}");
        assert!(lines[1].contains("killing the command (it is not there)"), "{lines:?}");
        // Nothing follows from it: the term is over already.
        let lines = logged(|event_log| {
            event_log.notice(&Notice::Elected { term: 7 });
            event_log.store_note(NOW, &lost());
            event_log.report_loss();
            event_log.report_loss();
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn a_lease_that_runs_out_is_logged_with_the_reason() {
        let runs_out = Notice::Stopping { term: 7, reason: Reason::RunningOut };
        let lines = logged(|event_log| {
            event_log.notice(&Notice::Elected { term: 7 });
            event_log.store_note(NOW, &down());
            event_log.notice(&runs_out);
        });
        assert_eq!(lines[2], "WARN the lease runs out: stopping the command (down) json.term=7");
        let lines = logged(|event_log| event_log.notice(&runs_out));
        assert!(lines[0].contains("was this process suspended"), "{lines:?}");
    }

    #[test]
    fn leftovers_and_a_stop_that_takes_too_long_are_one_line_with_names_and_advice() {
        let mut processes = elect_core::ProcessList::default();
        for pid in [12, 13] {
            processes.add(pid, || *b"nginx\0\0\0\0\0\0\0\0\0\0\0");
        }
        let program = Program::Command { term: 7 };
        let lines = logged(|event_log| {
            event_log.notice(&Notice::LeftBehind { program, processes });
            event_log.notice(&Notice::StopTimedOut { program, after: Duration::from_secs(8), processes });
        });
        let names = "2 processes: nginx (pid 12), nginx (pid 13)";
        assert!(lines[0].starts_with("WARN ") && lines[0].contains(names) && lines[0].contains("in the foreground"));
        assert!(lines[1].contains(names) && lines[1].contains("--stop-timeout") && lines[1].contains("--stop-to"));
        assert_eq!(lines.len(), 2, "{lines:?}");
    }
}
