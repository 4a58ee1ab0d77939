//! The health check (H3, H5).

use super::*;
use crate::{CheckEnd, KILL_ALLOWANCE};

const CHECK: i32 = 400;
const NUMBER: CheckNumber = CheckNumber(11);
const START: KeeperOrder = KeeperOrder::StartCheck { check: NUMBER };
const KILL: KeeperAction = KeeperAction::KillCheck { main: CHECK, kills_cgroup: false };
const KILL_REST: KeeperAction = KeeperAction::KillCheck { main: CHECK, kills_cgroup: true };
const ONLY_CHECK: KeeperEvent = KeeperEvent::OnlyCheckLeft { is_cgroup_populated: false };

fn ended(end: CheckEnd) -> FromKeeper {
    FromKeeper::CheckEnded { check: NUMBER, end }
}

impl Scene {
    fn add_check(&mut self, millis: u64) {
        assert_eq!(self.order(millis, START), [KeeperAction::SpawnCheck]);
        assert_eq!(self.on(millis, KeeperEvent::Spawned { pid: CHECK, init: None }), []);
    }

    /// The end of the check's main process.
    fn check_ends(&mut self, millis: u64, not_executed: Option<i32>) {
        assert_eq!(self.on(millis, KeeperEvent::CheckEnds { not_executed }), [KILL_REST], "before it is reaped");
        assert_eq!(self.ends(millis, CHECK), []);
    }
}

#[test]
fn an_end_is_reported_with_its_number_beside_a_program_and_alone() {
    for is_beside in [true, false] {
        let mut scene = if is_beside { Scene::running(60_000) } else { Scene::new() };
        scene.add_check(10);
        assert_eq!(scene.0.wake_at(Time::NEVER), at(3_010), "counted from the fork");
        scene.check_ends(20, None);
        assert_eq!(scene.messages(), [ended(CheckEnd::Ended(CommandEnd::Exited(0)))]);
        assert_eq!(scene.0.check_pid(), None);
    }
    let mut scene = Scene::new();
    scene.add_check(10);
    scene.check_ends(11, Some(ENOENT));
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(ENOENT))]);
    let _ = scene.order(12, START);
    let _ = scene.messages();
    let mut scene = Scene::new();
    let _ = scene.order(12, START);
    let _ = scene.on(12, KeeperEvent::NotSpawned { errno: 11 });
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(11))]);
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { health_timeout: None, ..policy() }));
    assert_eq!(scene.order(12, START), []);
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(ENOENT))]);
}

#[test]
fn a_check_that_takes_too_long_is_reported_at_its_kill_and_the_tree_goes_on() {
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    assert_eq!(scene.on(3_009, KeeperEvent::RoundBegins), []);
    assert_eq!(scene.on(3_010, KeeperEvent::RoundBegins), [KILL]);
    assert_eq!(scene.messages(), [ended(CheckEnd::TimedOut)], "without waiting for the reaping");
    assert_eq!(scene.order(3_011, START), []);
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(EBUSY))], "it is left");
    assert_eq!(scene.0.wake_at(Time::NEVER), at(3_015), "killed again");
    assert_eq!(scene.on(3_015, KeeperEvent::RoundBegins), [KILL]);
    scene.check_ends(3_016, None);
    assert_eq!(scene.messages(), [], "reported once");
    scene.add_check(3_017);
}

/// A check has no state that would be worth a graceful stop.
#[test]
fn a_stop_of_the_tree_kills_the_check_at_once_and_signals_the_command_first() {
    let stop = KeeperOrder::Stop { kill_at: at(9_000) };
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    let stopped = scene.order(20, stop);
    assert_eq!(stopped[0], KeeperAction::SignalProcess { pid: MAIN, signal: SIGTERM });
    assert_eq!(stopped.last(), Some(&KILL));
    assert_eq!(scene.messages(), [ended(CheckEnd::Interrupted)]);
    assert_eq!(scene.order(21, START), []);
    assert_eq!(scene.messages(), [ended(CheckEnd::Interrupted)], "none is started beside a stop");
    let _ = scene.ends(30, MAIN);
    scene.check_ends(31, None);
    let _ = scene.messages();
    let _ = scene.on(32, NONE_LEFT);
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 1 }]);

    // The command ends by itself.
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    let left = scene.ends(20, MAIN);
    assert!(left.contains(&KeeperAction::ListDescendants { except: [None, Some(CHECK)] }), "{left:?}");
    assert_eq!(left.last(), Some(&KILL));

    // The campaigner is gone.
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    assert!(scene.on(20, KeeperEvent::CampaignerGone).contains(&KILL));
}

/// A kill takes the check along with every other descendant, and is the last action.
#[test]
fn a_deadline_is_not_delayed_by_a_check_that_is_due_at_the_same_time() {
    let mut scene = Scene::running(3_010);
    scene.add_check(10);
    let kill = KeeperAction::KillTree { main: Some(MAIN), lists: false };
    assert_eq!(scene.on(3_010, KeeperEvent::RoundBegins), [KeeperAction::ScheduleFirst, kill]);
    assert_eq!(scene.messages(), [ended(CheckEnd::Interrupted), FromKeeper::Expired { term: TERM }]);
    let _ = scene.on(3_011, killed_tree(false));
    assert_eq!(scene.on(3_020, KeeperEvent::RoundBegins), [KeeperAction::ScheduleFirst, kill], "and nothing else");
}

#[test]
fn leftovers_belong_to_the_tree_or_are_killed_at_once_without_one() {
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    scene.check_ends(20, None);
    assert_eq!(scene.on(21, KeeperEvent::RoundBegins), [], "they are the tree's");

    let mut scene = Scene::new();
    scene.add_check(10);
    scene.check_ends(20, None);
    let _ = scene.messages();
    assert!(scene.0.has_processes());
    assert_eq!(scene.0.wake_at(Time::NEVER), at(20));
    let kill = KeeperAction::KillLeftovers { except: None };
    assert_eq!(scene.on(20, KeeperEvent::RoundBegins), [kill]);
    assert_eq!(scene.order(21, START), []);
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(EBUSY))]);
    assert_eq!(scene.order(22, KeeperOrder::Stop { kill_at: at(9_000) }), [kill]);
    assert_eq!(scene.messages(), [], "they live");
    assert_eq!(scene.order(23, START), []);
    assert_eq!(scene.messages(), [ended(CheckEnd::Interrupted)]);
    assert_eq!(scene.on(25, KeeperEvent::RoundBegins), [kill], "killed again");
    let _ = scene.on(26, NONE_LEFT);
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 0 }]);
    scene.add_check(27);
}

/// The order may be older than the `Empty` message before the check.
#[test]
fn a_program_starts_beside_a_lone_check_that_is_being_stopped() {
    let mut scene = Scene::new();
    scene.arm(60_000);
    scene.add_check(10);
    let rest = KeeperAction::KillLeftovers { except: None };
    assert_eq!(scene.order(20, KeeperOrder::Kill), [KILL, rest], "what it has left is no descendant of it any more");
    assert_eq!(scene.messages()[1..], [ended(CheckEnd::Interrupted)]);
    assert_eq!(scene.on(25, KeeperEvent::RoundBegins), [rest]);
    let hook =
        KeeperOrder::StartBackgroundHook { background_hook: BackgroundHook::OnChange, context: HookContext::Alone };
    assert_eq!(scene.order(20, hook), []);
    assert_eq!(scene.messages(), [FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow)]);
    let _ = scene.order(21, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(22, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(23, KeeperEvent::Executed);
    scene.check_ends(24, None);
    assert_eq!(scene.messages(), [FromKeeper::Started { run: 1, pid: MAIN }], "the new run is not called empty");
}

#[test]
fn the_time_out_of_a_lone_hook_and_the_stop_of_its_leftovers_spare_the_check() {
    let mut scene = Scene::new();
    scene.add_hook(HookContext::Alone);
    scene.add_check(4_000);
    let killed = scene.on(5_004, KeeperEvent::RoundBegins);
    let rest = KeeperAction::KillLeftovers { except: Some(CHECK) };
    assert_eq!(killed, [KeeperAction::KillHook { main: HOOK }, rest]);
    let asked = scene.ends(5_005, HOOK);
    let recipients = Recipients::Beside(CHECK);
    assert_eq!(asked, [KeeperAction::SignalDescendants { signal: SIGTERM, recipients }]);
    // Leftovers of the check are left to the end of the hook.
    scene.check_ends(5_006, None);
    assert_eq!(scene.on(5_007, KeeperEvent::RoundBegins), []);
}

#[test]
fn a_refused_start_is_cleared_beside_a_check() {
    let mut scene = Scene::new();
    scene.add_check(1);
    scene.arm(60_000);
    let _ = scene.order(5, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(6, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(7, KeeperEvent::NotExecuted(NotStarted::TooLate));
    let _ = scene.messages();
    let _ = scene.ends(8, MAIN);
    assert_eq!(scene.messages(), [FromKeeper::Cleared { run: 1 }]);
    // A check that ends before the exec beside it leaves nothing out of sight.
    let _ = scene.order(9, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 2 });
    let _ = scene.on(9, KeeperEvent::Spawned { pid: MAIN, init: None });
    scene.check_ends(10, None);
    let _ = scene.on(11, KeeperEvent::NotExecuted(NotStarted::TooLate));
    let _ = scene.ends(12, MAIN);
    assert_eq!(scene.on(12, KeeperEvent::RoundBegins), [KeeperAction::KillLeftovers { except: None }]);
}

/// H5: D state.
#[test]
fn a_check_that_cannot_be_killed_is_left_out_of_empty_and_no_other_is_started() {
    let mut scene = Scene::running(60_000);
    scene.add_check(10);
    let _ = scene.on(3_010, KeeperEvent::RoundBegins);
    let allowance = u64::try_from(KILL_ALLOWANCE.as_millis()).expect("short");
    assert_eq!(scene.0.stuck_check(at(3_010 + allowance)), None, "nothing waits for it");
    let _ = scene.ends(3_020, MAIN);
    assert_eq!(scene.0.stuck_check(at(3_009 + allowance)), None, "it may be dying");
    assert_eq!(scene.0.stuck_check(at(3_010 + allowance)), Some(CHECK));
    let _ = scene.messages();
    let _ = scene.on(4_000, KeeperEvent::OnlyCheckLeft { is_cgroup_populated: true });
    assert_eq!(scene.messages(), []);
    let _ = scene.on(4_000, ONLY_CHECK);
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 1 }]);
    assert_eq!(scene.0.stuck_check(at(4_001)), None);
    assert!(!scene.0.has_processes());
    let _ = scene.order(4_002, KeeperOrder::Stop { kill_at: at(9_000) });
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 1 }]);
    let _ = scene.order(4_003, START);
    assert_eq!(scene.messages(), [ended(CheckEnd::Failed(EBUSY))]);
    // The next program starts beside it, and is stopped without waiting for it.
    assert_eq!(scene.order(4_004, KeeperOrder::Start { program: Program::Follower, run: 2 }).len(), 1);
    let _ = scene.on(4_005, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(4_006, KeeperEvent::Executed);
    let _ = scene.ends(4_010, MAIN);
    assert_eq!(scene.0.stuck_check(at(4_010)), Some(CHECK));
    let _ = scene.messages();
    let _ = scene.on(4_010, ONLY_CHECK);
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 2 }]);
    // It ends after all.
    scene.check_ends(5_000, None);
    let _ = scene.on(5_000, NONE_LEFT);
    scene.add_check(5_001);
}

#[test]
fn a_keeper_without_its_campaigner_does_not_wait_for_a_check_that_cannot_be_killed() {
    for orderly in [false, true] {
        let mut scene = Scene::new();
        scene.add_check(10);
        let end = if orderly { KeeperEvent::Order(KeeperOrder::Dismiss) } else { KeeperEvent::CampaignerGone };
        let _ = scene.on(20, end);
        let _ = scene.on(21, killed_tree(true));
        assert_eq!(scene.on(30, KeeperEvent::RoundEnds), []);
        let stuck_at = 20 + u64::try_from(KILL_ALLOWANCE.as_millis()).expect("short");
        assert_eq!(scene.0.stuck_check(at(stuck_at)), Some(CHECK));
        let _ = scene.on(stuck_at, ONLY_CHECK);
        assert_eq!(scene.on(stuck_at, KeeperEvent::RoundEnds), [KeeperAction::Exit { releases: !orderly }]);
    }
}

#[test]
fn a_hook_and_a_check_without_a_program_are_killed_at_the_dismissal() {
    let mut scene = Scene::new();
    scene.add_hook(HookContext::Alone);
    scene.add_check(5);
    let kill = KeeperAction::KillTree { main: None, lists: false };
    assert_eq!(scene.order(10, KeeperOrder::Dismiss), [KeeperAction::ScheduleFirst, kill]);
}

/// A start that is refused after the campaigner has gone leaves no tree that the check beside it could belong to.
#[test]
fn a_check_beside_a_refused_last_hook_has_ended_before_the_release() {
    let hooks = Hooks { on_ousted: true, ..policy().hooks };
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { hooks, ..policy() }));
    let _ = scene.order(1, KeeperOrder::Start { program: Program::OnOusted { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    scene.add_check(3);
    assert_eq!(scene.on(4, KeeperEvent::CampaignerGone), [KILL]);
    let _ = scene.on(5, KeeperEvent::NotExecuted(NotStarted::Failed(ENOENT)));
    let _ = scene.ends(6, MAIN);
    let exit = KeeperAction::Exit { releases: true };
    assert!(!scene.on(6, KeeperEvent::RoundEnds).contains(&exit), "the check lives");
    scene.check_ends(7, None);
    let _ = scene.on(7, NONE_LEFT);
    assert_eq!(scene.on(7, KeeperEvent::RoundEnds), [exit]);
}
