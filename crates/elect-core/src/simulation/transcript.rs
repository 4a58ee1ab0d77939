//! A history for people: one line for each thing that happened. `→` is said, `←` is heard, all times are true time.

use std::time::Duration;

use super::super::time::Time;
use super::clock::Clock;
use super::store::{Reply, Request};
use crate::{Action, Answer, Campaigned, Event, FromKeeper, Program, Renewed};

/// When a clock shows this.
fn at(clock: Clock, time: Time) -> String {
    match clock.when(time) {
        Duration::MAX => "never".into(),
        moment => format!("{:.3}", moment.as_secs_f64()),
    }
}

pub(super) fn action(clock: Clock, action: &Action) -> String {
    match action {
        Action::Campaign(attempt) => format!("→ #{} campaign", attempt.0),
        Action::Renew(attempt) => format!("→ #{} renew", attempt.0),
        Action::Release(attempt) => format!("→ #{} release", attempt.0),
        Action::Observe(attempt) => format!("→ #{} observe", attempt.0),
        Action::Drained { request_id, released } => {
            format!("→ visitor {}: drained, released: {released}", request_id.0)
        }
        Action::Arm { term, kill_by } => format!("→ keeper: kill term {term} at {}", at(clock, *kill_by)),
        Action::Start { program: Program::Command { term }, run } => {
            format!("→ keeper: start run {run} in term {term}")
        }
        Action::Start { program, run } => format!("→ keeper: start run {run}: {program:?}"),
        Action::StartBackgroundHook { background_hook, hook_context } => {
            format!("→ keeper: start {background_hook:?} beside {hook_context:?}")
        }
        Action::StartCheck { check } => format!("→ keeper: start check {}", check.0),
        Action::Stop { kill_at } => format!("→ keeper: stop, kill at {}", at(clock, *kill_at)),
        Action::Kill => "→ keeper: kill".into(),
        Action::Forward(signal) => format!("→ keeper: forward {signal:?}"),
        Action::Ping => "→ keeper: ping".into(),
        Action::KillKeeper => "kills its keeper".into(),
        Action::Sweep => "sweeps".into(),
        Action::Notice(report) => format!("* {report:?}"),
        Action::Grant { request_id, term: Some(term), until } => {
            format!("→ visitor {}: leads in term {term} until {}", request_id.0, at(clock, *until))
        }
        Action::Grant { request_id, term: None, .. } => format!("→ visitor {}: has resigned", request_id.0),
        Action::Deny { request_id, why } => format!("→ visitor {}: {why:?}", request_id.0),
        Action::EndHold => "→ keeper: nothing is held any more".into(),
        Action::End(outcome) => format!("ends: {outcome:?}"),
    }
}

pub(super) fn event(clock: Clock, event: &Event) -> String {
    match event {
        Event::Tick => "wakes".into(),
        Event::Answer { attempt, answer } => format!("← #{} {}", attempt.0, answered(clock, answer)),
        Event::Hint => "← hint".into(),
        Event::TermSeen(term) => format!("← term {term} was seen"),
        Event::LeaderObserved(leader) => format!("← leader: {leader:?}"),
        Event::HookDue(background_hook) => format!("due: {background_hook:?}"),
        Event::Ousted { term } => format!("← the key of term {term} is gone"),
        Event::Keeper(FromKeeper::Armed { term, kill_by }) => {
            format!("← keeper: will kill term {term} at {}", at(clock, *kill_by))
        }
        Event::Keeper(
            word @ (FromKeeper::Pong
            | FromKeeper::Started { .. }
            | FromKeeper::NoCommand { .. }
            | FromKeeper::BackgroundHookEnded(_)
            | FromKeeper::CheckEnded { .. }
            | FromKeeper::NotStarted { .. }
            | FromKeeper::Exited { .. }
            | FromKeeper::Expired { .. }
            | FromKeeper::Empty { .. }
            | FromKeeper::Progress
            | FromKeeper::AllKilled
            | FromKeeper::Cleared { .. }
            | FromKeeper::Terminal(_)),
        ) => format!("← keeper: {word:?}"),
        Event::Keeper(FromKeeper::LeftBehind { processes, .. }) => format!("← keeper: left behind: {processes}"),
        Event::Keeper(FromKeeper::StopTimedOut { processes, .. }) => format!("← keeper: out of time: {processes}"),
        Event::KeeperDied => "← the keeper is dead".into(),
        Event::Swept { empty: true } => "swept: nothing is left".into(),
        Event::Swept { empty: false } => "swept: something is left".into(),
        Event::Stop(_) => "← asked to stop".into(),
        Event::Forward(signal) => format!("← {signal:?}"),
        Event::ConfirmLeadership { request_id, term: None } => format!("← visitor {}: do you lead?", request_id.0),
        Event::ConfirmLeadership { request_id, term: Some(term) } => {
            format!("← visitor {}: do you lead in term {term}?", request_id.0)
        }
        Event::Resign(request_id) => format!("← visitor {}: resign", request_id.0),
        Event::Drain(request_id) => format!("← visitor {}: drain", request_id.0),
        Event::Undrain(request_id) => format!("← visitor {}: undrain", request_id.0),
    }
}

fn answered(clock: Clock, answer: &Answer) -> String {
    match answer {
        Answer::Campaign(Campaigned::Won(term)) => format!("won term {term}"),
        Answer::Campaign(Campaigned::Waiting { again: None, .. }) => "waiting".into(),
        Answer::Campaign(Campaigned::Waiting { again: Some(again), .. }) => {
            format!("waiting, ask again after {again:.3?}")
        }
        Answer::Campaign(Campaigned::Refused) => "refused".into(),
        Answer::Campaign(Campaigned::Connecting) => "connecting".into(),
        Answer::Renew(Renewed::Credited { sent, ttl }) => {
            let ttl = ttl.map_or_else(|| "no end".into(), |ttl| format!("{ttl:?}"));
            format!("credited: {ttl} from {}", at(clock, *sent))
        }
        Answer::Renew(Renewed::Outdated) => "outdated".into(),
        Answer::Renew(Renewed::Lost) => "lost".into(),
        Answer::Campaign(Campaigned::Failed)
        | Answer::Renew(Renewed::Failed)
        | Answer::Release(false)
        | Answer::Observe(false) => "failed".into(),
        Answer::Release(true) => "released".into(),
        Answer::Observe(true) => "observed".into(),
    }
}

pub(super) fn call(request: &Request, reply: &Reply) -> String {
    format!("    store: {request:?} = {reply:?}")
}
