//! The hook that must succeed before a command starts, the hook before a release, and the hooks beside the command.

#![expect(clippy::wildcard_enum_match_arm, reason = "one action among many is looked for")]

use super::*;

const ELECTED: Program = Program::OnElected { term: 7 };
const OUSTED: Program = Program::OnOusted { term: 7 };
const YES: CommandEnd = CommandEnd::Exited(0);
const NO: CommandEnd = CommandEnd::Exited(1);
const DONE: CommandEnd = CommandEnd::Exited(5);

fn hooks(on_elected: bool, on_ousted: bool) -> Policy {
    let hooks = Hooks { on_elected, on_ousted, on_change: true, on_error: true, ..Hooks::default() };
    Policy { hooks, ..Policy::default() }
}

fn started(actions: &[Action], program: Program) -> Option<RunId> {
    actions.iter().find_map(|action| match action {
        Action::Start { program: one, run } if *one == program => Some(*run),
        _ => None,
    })
}

fn failure(actions: &[Action]) -> Option<HookFailure> {
    actions.iter().find_map(|action| match action {
        Action::Notice(Notice::HookFailed { failure, .. }) => Some(*failure),
        _ => None,
    })
}

impl Scene {
    fn says_at(&mut self, now: Time, word: FromKeeper) -> Vec<Action> {
        self.hears(now, Event::Keeper(word))
    }

    /// Wins and is verified at time zero; the hook before the command runs.
    fn is_elected(&mut self) -> RunId {
        let verifying = self.wins();
        let actions = self.credited(at(0), verifying, at(0));
        let run = started(&actions, ELECTED).unwrap_or_else(|| panic!("no hook in {actions:?}"));
        assert_eq!(started(&actions, COMMAND), None);
        self.says_at(at(0), FromKeeper::Started { run, pid: 4711 });
        run
    }

    fn ends_at(&mut self, now: Time, run: RunId, end: CommandEnd) -> Vec<Action> {
        let mut actions = self.says_at(now, FromKeeper::Exited { run, end });
        actions.extend(self.says_at(now, FromKeeper::Empty { run }));
        actions
    }

    /// The command ended, and the hook after it runs. Returns its run.
    fn is_ousted(&mut self) -> RunId {
        self.leads();
        let actions = self.ends_at(at(100), 1, DONE);
        assert!(!actions.iter().any(|action| matches!(action, Action::Release(_))), "not before it: {actions:?}");
        assert_eq!(self.candidate.phase(), Phase::OustedHook);
        let run = started(&actions, OUSTED).unwrap_or_else(|| panic!("no hook in {actions:?}"));
        self.says_at(at(100), FromKeeper::Started { run, pid: 4712 });
        run
    }
}

#[test]
fn the_command_starts_when_the_hook_has_said_yes_and_nothing_of_it_is_left() {
    let mut scene = Scene::wishing(hooks(true, false));
    let run = scene.is_elected();
    assert_eq!(started(&scene.says_at(at(10), FromKeeper::Exited { run, end: YES }), COMMAND), None, "K10");
    let actions = scene.says_at(at(20), FromKeeper::Empty { run });
    assert_eq!(started(&actions, COMMAND), Some(run + 1));
    assert_eq!(scene.candidate.phase(), Phase::Leading);
}

#[test]
fn after_a_long_hook_the_next_credit_decides_about_the_command() {
    let mut scene = Scene::wishing(hooks(true, false));
    let run = scene.is_elected();
    let asked = renewal(&scene.ticks(at(2_000)));
    scene.answered(at(2_500), asked, Answer::Renew(Renewed::Failed));
    let actions = scene.ends_at(at(4_500), run, YES);
    assert_eq!(started(&actions, COMMAND), None, "K5");
    let asked = renewal(&actions);
    assert_eq!(started(&scene.credited(at(4_600), asked, at(4_500)), COMMAND), Some(run + 1));
}

#[test]
fn a_hook_that_was_too_late_is_started_again_and_the_command_only_after_it() {
    let mut scene = Scene::wishing(hooks(true, false));
    let verifying = scene.wins();
    scene.credited(at(0), verifying, at(0));
    let actions = scene.says_at(at(0), FromKeeper::NotStarted { run: 1, why: NotStarted::TooLate });
    scene.says_at(at(0), FromKeeper::Empty { run: 1 });
    let asked = renewal(&actions);
    let actions = scene.credited(at(1), asked, at(0));
    assert_eq!((started(&actions, ELECTED), started(&actions, COMMAND)), (Some(2), None));
}

#[test]
fn a_no_a_signal_a_time_out_and_a_failed_start_resign_and_sit_out() {
    let killed = CommandEnd::Killed { signal: Signal(11), escalated: false };
    let timed_out = CommandEnd::Killed { signal: Signal(9), escalated: true };
    for (end, expected) in [
        (Some(NO), HookFailure::Ended(NO)),
        (Some(killed), HookFailure::Ended(killed)),
        (Some(timed_out), HookFailure::TimedOut),
        (None, HookFailure::CannotStart(11)),
    ] {
        let mut scene = Scene::wishing(hooks(true, false));
        let run = scene.is_elected();
        let word = match end {
            Some(end) => FromKeeper::Exited { run, end },
            None => FromKeeper::NotStarted { run, why: NotStarted::Failed(11) },
        };
        let actions = scene.says_at(at(10), word);
        assert_eq!(failure(&actions), Some(expected));
        let actions = scene.says_at(at(20), FromKeeper::Empty { run });
        scene.answered(at(20), release(&actions), Answer::Release(true));
        assert_eq!((scene.candidate.phase(), scene.candidate.wake_at()), (Phase::CoolingDown, at(10_020)));
        campaign(&scene.ticks(at(10_020)));
    }
}

#[test]
fn a_keeper_that_lets_a_hook_go_on_does_not_keep_the_leadership() {
    let mut scene = Scene::wishing(hooks(true, false));
    scene.is_elected();
    let mut failed = None;
    while failed.is_none() {
        let now = scene.candidate.wake_at();
        let actions = scene.ticks(now);
        failed = failure(&actions).map(|failure| (failure, now));
        for action in actions {
            match action {
                Action::Renew(asked) => drop(scene.credited(now, asked, now)),
                Action::Ping => drop(scene.says_at(now, FromKeeper::Pong)),
                _ => {}
            }
        }
    }
    assert_eq!(failed, Some((HookFailure::TimedOut, at(5_500))), "the time-out is 5 s, and the keeper's");
}

#[test]
fn sitting_out_doubles_with_each_no_in_a_row_and_begins_anew_after_a_yes() {
    let mut scene = Scene::wishing(hooks(true, false));
    let mut sat_out = Vec::new();
    for (turn, end) in [NO, NO, NO, NO, NO, NO, NO, YES, NO].into_iter().enumerate() {
        let asked = campaign(&scene.ticks(scene.candidate.wake_at()));
        let now = scene.now;
        let term = 7 + u64::try_from(turn).expect("few");
        let asked = renewal(&scene.answered(now, asked, Answer::Campaign(Campaigned::Won(term))));
        let actions = scene.credited(now, asked, now);
        let run = started(&actions, Program::OnElected { term }).expect("a hook");
        let mut actions = scene.ends_at(now, run, end);
        if end == YES {
            scene.hears(now, Event::Ousted { term });
            scene.says_at(now, FromKeeper::Empty { run: run + 1 });
            continue;
        }
        actions.extend(scene.answered(now, release(&actions), Answer::Release(true)));
        let sits_out = actions.iter().find_map(|action| match action {
            Action::Notice(Notice::NotAccepted { sits_out, .. }) => *sits_out,
            _ => None,
        });
        sat_out.push(sits_out.expect("it sits out").as_secs());
    }
    assert_eq!(sat_out, [10, 20, 40, 80, 160, 300, 300, 10]);
}

#[test]
fn a_no_ends_a_candidacy_that_was_to_end_with_its_leadership() {
    let mut scene = Scene::wishing(Policy { on_lost: OnLost::End, ..hooks(true, false) });
    let run = scene.is_elected();
    let actions = scene.ends_at(at(10), run, NO);
    let actions = scene.answered(at(10), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::LeadershipLost)));
}

#[test]
fn a_stop_during_the_hook_stops_it_and_its_status_is_nobodys() {
    let mut scene = Scene::wishing(hooks(true, true));
    let run = scene.is_elected();
    scene.hears(at(10), Event::Stop(TERM));
    let actions = scene.ends_at(at(20), run, NO);
    let ousted = started(&actions, OUSTED).expect("also after a leadership without a command");
    let actions = scene.ends_at(at(30), ousted, YES);
    let actions = scene.answered(at(30), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Stopped(TERM))));
}

#[test]
fn a_restart_asks_the_hook_no_more() {
    let restart = Restart { when: RestartWhen::Always, delay: ms(0), ..Restart::default() };
    let mut scene = Scene::wishing(Policy { restart, ..hooks(true, true) });
    let run = scene.is_elected();
    scene.ends_at(at(10), run, YES);
    scene.says_at(at(10), FromKeeper::Started { run: run + 1, pid: 4712 });
    let actions = scene.ends_at(at(20), run + 1, DONE);
    assert_eq!(started(&actions, COMMAND), Some(run + 2));
    assert_eq!((started(&actions, ELECTED), started(&actions, OUSTED)), (None, None));
}

#[test]
fn the_boundary_is_given_back_when_the_hook_after_the_command_is_gone() {
    let mut scene = Scene::wishing(hooks(false, true));
    let run = scene.is_ousted();
    assert_eq!(scene.says_at(at(200), FromKeeper::Empty { run: 1 }), [], "of another run");
    let actions = scene.says_at(at(200), FromKeeper::Exited { run, end: NO });
    assert_eq!(failure(&actions), Some(HookFailure::Ended(NO)), "which changes nothing");
    assert_eq!(scene.candidate.phase(), Phase::OustedHook);
    let actions = scene.says_at(at(300), FromKeeper::Empty { run });
    let actions = scene.answered(at(300), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(DONE))));
}

#[test]
fn renewals_hold_the_others_off_while_it_runs_and_no_deadline_kills_it() {
    let mut scene = Scene::wishing(hooks(false, true));
    let run = scene.is_ousted();
    let asked = renewal(&scene.ticks(at(2_000)));
    scene.answered(at(2_001), asked, Answer::Renew(Renewed::Failed));
    // Its own time-out is the keeper's to enforce; half a second later nobody waits for that.
    let (mut renewed, mut killed) = (0, None);
    while killed.is_none() {
        let now = scene.candidate.wake_at();
        for action in scene.ticks(now) {
            match action {
                Action::Renew(asked) => {
                    renewed += 1;
                    let armed = scene.credited(now, asked, now);
                    assert_eq!(armed, [], "nothing of the term runs");
                }
                Action::Kill => killed = Some(now),
                Action::Ping => drop(scene.says_at(now, FromKeeper::Pong)),
                Action::Release(_) | Action::Start { .. } => panic!("{action:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(killed, Some(at(5_600)));
    assert!(renewed >= 2, "{renewed}");
    release(&scene.says_at(at(5_700), FromKeeper::Empty { run }));
}

#[test]
fn its_time_counts_from_its_start_however_long_the_order_has_waited_for_room_in_the_socket() {
    let mut scene = Scene::wishing(hooks(false, true));
    scene.leads();
    let actions = scene.ends_at(at(100), 1, DONE);
    let run = started(&actions, OUSTED).expect("the hook");
    let killed = |actions: &[Action]| actions.contains(&Action::Kill);
    while scene.now < at(60_000) {
        let now = scene.candidate.wake_at();
        for action in scene.ticks(now) {
            assert!(!killed(std::slice::from_ref(&action)), "at {now:?}, and it has not begun");
            match action {
                Action::Renew(asked) => drop(scene.credited(now, asked, now)),
                // The keeper lives, and reads slowly.
                Action::Ping => drop(scene.says_at(now, FromKeeper::Pong)),
                _ => {}
            }
        }
    }
    let began = scene.now;
    scene.says_at(began, FromKeeper::Started { run, pid: 4713 });
    while scene.now < began + ms(5_499) {
        let now = scene.candidate.wake_at().min(began + ms(5_499));
        for action in scene.ticks(now) {
            assert!(!killed(std::slice::from_ref(&action)), "at {now:?}, before its time is over");
            match action {
                Action::Renew(asked) => drop(scene.credited(now, asked, now)),
                Action::Ping => drop(scene.says_at(now, FromKeeper::Pong)),
                _ => {}
            }
        }
    }
    assert!(killed(&scene.ticks(began + ms(5_500))));
}

#[test]
fn it_runs_after_a_loss_too_and_then_there_is_nothing_to_give_back() {
    let mut scene = Scene::wishing(hooks(false, true));
    scene.leads();
    scene.hears(at(100), Event::Ousted { term: 7 });
    let run = started(&scene.says_at(at(200), FromKeeper::Empty { run: 1 }), OUSTED).expect("a hook");
    let actions = scene.says_at(at(300), FromKeeper::Empty { run });
    assert!(!actions.iter().any(|action| matches!(action, Action::Release(_))), "{actions:?}");
    assert_eq!(scene.candidate.phase(), Phase::Campaigning);
}

#[test]
fn a_loss_while_it_runs_leaves_it_alone() {
    let mut scene = Scene::wishing(hooks(false, true));
    let run = scene.is_ousted();
    assert_eq!(scene.hears(at(150), Event::Ousted { term: 7 }), []);
    let actions = scene.says_at(at(200), FromKeeper::Empty { run });
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(DONE))), "without a release");
}

#[test]
fn a_dead_keeper_runs_nothing_and_one_that_dies_now_leaves_it_to_be_swept() {
    let mut scene = Scene::wishing(hooks(false, true));
    scene.leads();
    scene.hears(at(100), Event::KeeperDied);
    let actions = scene.hears(at(110), Event::Swept { empty: true });
    assert_eq!((failure(&actions), started(&actions, OUSTED)), (Some(HookFailure::NoKeeper), None));
    release(&actions);

    let mut scene = Scene::wishing(hooks(false, true));
    scene.is_ousted();
    let actions = scene.hears(at(150), Event::KeeperDied);
    assert!(actions.contains(&Action::Sweep), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Release(_))));
    let actions = scene.hears(at(160), Event::Swept { empty: true });
    let actions = scene.answered(at(160), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::KeeperDied)));
}

#[test]
fn the_second_stop_kills_it_at_once() {
    let mut scene = Scene::wishing(hooks(false, true));
    scene.is_ousted();
    let actions = scene.hears(at(200), Event::Stop(TERM));
    assert!(!actions.contains(&Action::Kill), "{actions:?}");
    assert!(scene.hears(at(300), Event::Stop(TERM)).contains(&Action::Kill));

    let mut scene = Scene::wishing(hooks(false, true));
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    scene.ends_at(at(200), 1, DONE);
    assert_eq!(scene.candidate.phase(), Phase::OustedHook);
    assert!(scene.hears(at(300), Event::Stop(TERM)).contains(&Action::Kill), "asked twice by now");
}

#[test]
fn a_hold_ends_with_the_hook() {
    let mut scene = Scene::wishing(Policy { min_hold: ms(1_000), ..hooks(false, true) });
    scene.leads();
    let actions = scene.ends_at(at(100), 1, DONE);
    assert_eq!((scene.candidate.phase(), started(&actions, OUSTED)), (Phase::LeadingIdle, None));
    assert!(started(&scene.ticks(at(1_000)), OUSTED).is_some());
}

#[test]
fn a_leader_without_a_command_leads_until_it_is_stopped() {
    let mut scene = Scene::wishing(hooks(false, false));
    let verifying = scene.wins();
    scene.credited(at(0), verifying, at(0));
    assert_eq!(scene.says_at(at(0), FromKeeper::NoCommand { run: 1 }), []);
    assert_eq!(scene.hears(at(10), Event::Forward(Signal(10))), [], "for nobody");
    scene.hears(at(100), Event::Stop(TERM));
    let actions = scene.says_at(at(100), FromKeeper::Empty { run: 1 });
    let actions = scene.answered(at(100), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Stopped(TERM))));
}

#[test]
fn what_runs_beside_does_so_while_nothing_is_being_stopped() {
    let mut scene = Scene::wishing(hooks(true, true));
    let run = scene.is_elected();
    let change = Action::StartBackgroundHook {
        background_hook: BackgroundHook::OnChange,
        hook_context: HookContext::WithRun(run + 1),
    };
    assert_eq!(
        scene.hears(at(1), Event::HookDue(BackgroundHook::OnChange)),
        [],
        "K10 would stop it with what the hook left"
    );
    scene.ends_at(at(10), run, YES);
    let actions = scene.says_at(at(10), FromKeeper::Started { run: run + 1, pid: 4712 });
    assert!(actions.contains(&change), "while leading: {actions:?}");
    assert!(
        scene.says_at(at(20), FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow)).contains(&change),
        "it is due still"
    );
    scene.hears(at(20), Event::HookDue(BackgroundHook::OnChange));
    let actions = scene.hears(at(20), Event::Stop(TERM));
    assert!(!actions.contains(&change), "{actions:?}");
    let actions = scene.says_at(at(20), FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(NO)));
    assert_eq!((failure(&actions), actions.contains(&change)), (Some(HookFailure::Ended(NO)), false));
}
