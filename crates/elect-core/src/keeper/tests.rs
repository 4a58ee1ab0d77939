mod health_check;
mod queues;

use std::time::Duration;

use super::*;
use crate::{
    BackgroundHook, BackgroundHookEnd, CheckNumber, CommandEnd, HookContext, NotStarted, ProcessList, TerminalEvent,
};

const TERM: Term = 7;
const MAIN: i32 = 100;
const HOOK: i32 = 200;
const INIT: i32 = 300;
const SIGTERM: Signal = Signal(15);
const SIGTSTP: Signal = Signal(20);

fn at(millis: u64) -> Time {
    Time::BOOT + Duration::from_millis(millis)
}

fn policy() -> KeeperPolicy {
    let timeout = Duration::from_secs(5);
    KeeperPolicy {
        stop_signal: SIGTERM,
        stop_to: StopTo::Main,
        stop_timeout: Duration::from_secs(8),
        min_hold: Duration::ZERO,
        has_command: true,
        has_follower: true,
        hooks: Hooks { on_elected: true, on_ousted: false, on_change: true, on_error: true, timeout },
        health_timeout: Some(Duration::from_secs(3)),
    }
}

/// A machine, with its actions and messages as the results of its events.
struct Scene(KeeperMachine);

impl Scene {
    fn new() -> Scene {
        Scene(KeeperMachine::new(policy()))
    }

    fn on(&mut self, millis: u64, event: KeeperEvent) -> Vec<KeeperAction> {
        self.0.handle(at(millis), event);
        std::iter::from_fn(|| self.0.next_action()).collect()
    }

    fn order(&mut self, millis: u64, order: KeeperOrder) -> Vec<KeeperAction> {
        self.on(millis, KeeperEvent::Order(order))
    }

    fn messages(&mut self) -> Vec<FromKeeper> {
        let messages = self.0.outbox.iter().copied().collect();
        while self.0.next_message().is_some() {
            let _ = self.on(0, KeeperEvent::MessageSent);
        }
        messages
    }

    fn arm(&mut self, kill_by: u64) {
        assert_eq!(self.order(0, KeeperOrder::Arm { term: TERM, kill_by: at(kill_by) }), []);
    }

    fn ends(&mut self, millis: u64, pid: i32) -> Vec<KeeperAction> {
        self.on(millis, KeeperEvent::ChildEnded { pid, end: ChildEnd::Exited(0) })
    }

    /// A command of the term, forked and not executed yet.
    fn starting(kill_by: u64) -> Scene {
        let mut scene = Scene::new();
        scene.arm(kill_by);
        let start = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
        let spawn = KeeperAction::Spawn {
            program: Program::Command { term: TERM },
            kill_by: at(kill_by),
            holds_lock: true,
            identity: IdentitySource::Order,
        };
        assert_eq!(start, [KeeperAction::KeepIdentity, spawn]);
        assert_eq!(scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None }), []);
        assert_eq!(scene.0.starting_child(), Some(MAIN));
        scene
    }

    fn running(kill_by: u64) -> Scene {
        let mut scene = Scene::starting(kill_by);
        assert_eq!(scene.on(3, KeeperEvent::Executed), []);
        let armed = FromKeeper::Armed { term: TERM, kill_by: at(kill_by) };
        assert_eq!(scene.messages(), [armed, FromKeeper::Started { run: 1, pid: MAIN }]);
        scene
    }

    fn add_hook(&mut self, context: HookContext) {
        let background_hook = BackgroundHook::OnChange;
        let spawn = self.order(4, KeeperOrder::StartBackgroundHook { background_hook, context });
        assert_eq!(spawn, [KeeperAction::SpawnHook(background_hook)]);
        assert_eq!(self.on(4, KeeperEvent::Spawned { pid: HOOK, init: None }), []);
    }
}

/// The result of a kill that names no process.
fn killed_tree(is_complete: bool) -> KeeperEvent {
    KeeperEvent::TreeKilled { is_complete, processes: ProcessList::default() }
}

const NONE_LEFT: KeeperEvent = KeeperEvent::NoChildren { is_cgroup_populated: false };

#[test]
fn a_tree_is_killed_by_its_deadline_and_again_until_it_is_empty() {
    let mut scene = Scene::running(1_000);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(1_000));
    assert_eq!(scene.on(999, KeeperEvent::RoundBegins), []);
    let kill = KeeperAction::KillTree { main: Some(MAIN), lists: false };
    assert_eq!(scene.on(1_000, KeeperEvent::RoundBegins), [KeeperAction::ScheduleFirst, kill]);
    assert_eq!(scene.on(1_003, killed_tree(false)), []);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(1_008), "swept again after a pause");
    assert_eq!(scene.on(1_008, KeeperEvent::RoundBegins).len(), 2);
    assert_eq!(scene.on(1_018, killed_tree(true)), [KeeperAction::ScheduleAsBefore]);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(1_058), "four times as long as the sweep has taken");
    let end = ChildEnd::Killed(SIGKILL);
    let taken_back = KeeperAction::TakeTerminalBack { group: MAIN, with_modes: true, interrupted_by: None };
    assert_eq!(scene.on(1_020, KeeperEvent::ChildEnded { pid: MAIN, end }), [taken_back]);
    assert_eq!(scene.on(1_020, NONE_LEFT), [KeeperAction::ScheduleFirst]);
    let end = CommandEnd::Killed { signal: SIGKILL, escalated: true };
    let expired = FromKeeper::Expired { term: TERM };
    assert_eq!(scene.messages(), [expired, FromKeeper::Exited { run: 1, end }, FromKeeper::Empty { run: 1 }]);
    assert_eq!(scene.0.wake_at(Time::NEVER), Time::NEVER);
}

#[test]
fn a_populated_cgroup_is_a_tree_that_is_not_empty() {
    let mut scene = Scene::running(1_000);
    let _ = scene.ends(10, MAIN);
    assert_eq!(scene.on(10, KeeperEvent::NoChildren { is_cgroup_populated: true }), []);
    assert_eq!(scene.messages(), [FromKeeper::Exited { run: 1, end: CommandEnd::Exited(0) }]);
    let _ = scene.on(20, NONE_LEFT);
    assert_eq!(scene.messages(), [FromKeeper::Empty { run: 1 }]);
}

#[test]
fn a_refused_start_is_cleared_when_its_child_and_its_init_have_been_reaped() {
    let mut scene = Scene::new();
    scene.add_hook(HookContext::Alone);
    scene.arm(1_000);
    let _ = scene.order(5, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(6, KeeperEvent::Spawned { pid: MAIN, init: Some(INIT) });
    let refused = scene.on(7, KeeperEvent::NotExecuted(NotStarted::TooLate));
    assert!(refused.contains(&KeeperAction::DismissInit { init: INIT }), "{refused:?}");
    let _ = scene.messages();
    let _ = scene.ends(8, MAIN);
    assert_eq!(scene.messages(), [], "its init lives");
    let _ = scene.ends(9, INIT);
    assert_eq!(scene.messages(), [FromKeeper::Cleared { run: 1 }]);
    let _ = scene.order(10, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 2 });
    assert_eq!(scene.messages(), [], "the hook is no reason to refuse the next start");
}

/// K1: a renewal that comes after the kill opens nothing again: the term is over.
#[test]
fn a_deadline_that_has_killed_stays_where_it_was() {
    let mut scene = Scene::running(1_000);
    let _ = scene.on(1_000, KeeperEvent::RoundBegins);
    let _ = scene.on(1_001, killed_tree(true));
    let _ = scene.ends(1_002, MAIN);
    let _ = scene.on(1_002, NONE_LEFT);
    let _ = scene.messages();
    let _ = scene.order(1_003, KeeperOrder::Arm { term: TERM, kill_by: at(9_000) });
    assert_eq!(scene.messages(), [FromKeeper::Armed { term: TERM, kill_by: at(1_000) }]);
    assert_eq!(scene.order(1_004, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 2 }).len(), 1);
    assert_eq!(scene.messages()[0], FromKeeper::NotStarted { run: 2, why: NotStarted::TooLate });
}

/// A hook's time-out is a reason to wake up even if no message and no end of a child will ever come.
#[test]
fn the_time_out_of_a_hook_wakes_the_keeper() {
    let mut scene = Scene::new();
    scene.arm(60_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::OnElected { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(5_002));
    let kill = KeeperAction::KillTree { main: Some(MAIN), lists: false };
    assert_eq!(scene.on(5_002, KeeperEvent::RoundBegins), [KeeperAction::ScheduleFirst, kill]);
}

#[test]
fn a_hook_that_ends_before_the_exec_beside_it_is_reported_at_the_exec() {
    let mut scene = Scene::new();
    scene.add_hook(HookContext::Alone);
    scene.arm(1_000);
    let _ = scene.order(5, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(6, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.ends(7, HOOK);
    let _ = scene.messages();
    let _ = scene.on(8, KeeperEvent::Executed);
    let ended = FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(0)));
    assert_eq!(scene.messages(), [FromKeeper::Started { run: 1, pid: MAIN }, ended]);
}

/// K2: the hold of a term counts from the first start in that term, whatever hold an earlier term has left.
#[test]
fn each_term_has_a_hold_of_its_own() {
    let min_hold = Duration::from_secs(1);
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { min_hold, ..policy() }));
    for (term, run, started) in [(TERM, 1, 100), (TERM + 1, 2, 50_000)] {
        let _ = scene.order(started, KeeperOrder::Arm { term, kill_by: at(90_000) });
        let _ = scene.order(started, KeeperOrder::Start { program: Program::Command { term }, run });
        let _ = scene.on(started, KeeperEvent::Spawned { pid: MAIN, init: None });
        let _ = scene.on(started, KeeperEvent::Executed);
        let _ = scene.ends(started + 10, MAIN);
        let _ = scene.on(started + 10, NONE_LEFT);
    }
    let _ = scene.on(50_020, KeeperEvent::CampaignerGone);
    assert_eq!(scene.on(50_020, KeeperEvent::RoundEnds), []);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(51_000));
    assert_eq!(scene.on(51_000, KeeperEvent::RoundEnds), [KeeperAction::Exit { releases: true }]);
}

/// Only SIGKILL of the keeper's own is an escalation: another process may have sent the same signal.
#[test]
fn a_death_by_sigkill_is_an_escalation_if_the_keeper_has_sent_it() {
    for (order, escalated) in [(None, false), (Some(KeeperOrder::Kill), true)] {
        let mut scene = Scene::running(60_000);
        if let Some(order) = order {
            let _ = scene.order(10, order);
            let _ = scene.on(10, killed_tree(true));
        }
        let _ = scene.on(11, KeeperEvent::ChildEnded { pid: MAIN, end: ChildEnd::Killed(SIGKILL) });
        let end = CommandEnd::Killed { signal: SIGKILL, escalated };
        assert_eq!(scene.messages(), [FromKeeper::Exited { run: 1, end }]);
    }
}

#[test]
fn a_repeated_stop_or_kill_brings_the_end_forward_and_signals_once() {
    let mut scene = Scene::running(60_000);
    assert_eq!(scene.order(10, KeeperOrder::Stop { kill_at: at(9_000) }).len(), 2);
    assert_eq!(scene.order(20, KeeperOrder::Stop { kill_at: at(500) }), [], "no second signal");
    assert_eq!(scene.0.wake_at(Time::NEVER), at(380), "a quarter before the end");
    assert_eq!(scene.order(30, KeeperOrder::Stop { kill_at: at(8_000) }), []);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(380));
    let kill = KeeperAction::KillTree { main: Some(MAIN), lists: false };
    for millis in [40, 41] {
        assert_eq!(
            scene.order(millis, KeeperOrder::Kill),
            [KeeperAction::ScheduleFirst, kill],
            "each order is followed"
        );
        let _ = scene.on(millis, killed_tree(false));
    }
}

#[test]
fn a_second_tree_is_never_started() {
    let mut scene = Scene::running(1_000);
    let start = scene.order(10, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 2 });
    assert_eq!(start, []);
    assert_eq!(scene.messages(), [FromKeeper::NotStarted { run: 2, why: NotStarted::Failed(EBUSY) }]);
    let _ = scene.ends(11, MAIN);
    let _ = scene.on(11, NONE_LEFT);
    assert!(scene.messages().contains(&FromKeeper::Empty { run: 2 }), "it confirms the last order");
}

#[test]
fn a_hook_and_what_it_left_behind_are_part_of_the_tree() {
    let mut scene = Scene::running(60_000);
    scene.add_hook(HookContext::WithRun(1));
    let stopped = scene.order(10, KeeperOrder::Stop { kill_at: at(500) });
    for pid in [MAIN, HOOK] {
        assert!(stopped.contains(&KeeperAction::SignalProcess { pid, signal: SIGTERM }), "{stopped:?}");
    }
    let left = scene.ends(20, MAIN);
    let recipients = Recipients::AllExcept([None, Some(HOOK)]);
    let signal = KeeperAction::SignalDescendants { signal: SIGTERM, recipients };
    assert_eq!(left.last(), Some(&signal), "the hook gets no second signal");
    let _ = scene.ends(30, HOOK);
    assert!(
        scene.messages().contains(&FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(0))))
    );
    assert_eq!(scene.0.wake_at(Time::NEVER), at(500), "the rest has until then");
    let _ = scene.on(380, KeeperEvent::RoundBegins);
    assert_eq!(scene.on(400, KeeperEvent::RoundBegins), [], "and no second signal");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_the_tree_is_not() {
    let mut scene = Scene::running(60_000);
    scene.add_hook(HookContext::WithRun(1));
    assert_eq!(scene.on(5_003, KeeperEvent::RoundBegins), []);
    assert_eq!(scene.on(5_004, KeeperEvent::RoundBegins), [KeeperAction::KillHook { main: HOOK }]);
    let _ = scene.on(5_005, KeeperEvent::ChildEnded { pid: HOOK, end: ChildEnd::Killed(SIGKILL) });
    let end = BackgroundHookEnd::Ended(CommandEnd::Killed { signal: SIGKILL, escalated: true });
    assert_eq!(scene.messages(), [FromKeeper::BackgroundHookEnded(end)]);
}

#[test]
fn without_its_campaigner_it_stops_the_tree_then_runs_the_hook_then_releases() {
    let hooks = Hooks { on_ousted: true, ..policy().hooks };
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { hooks, ..policy() }));
    scene.arm(1_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    let stopped = scene.on(10, KeeperEvent::CampaignerGone);
    assert_eq!(stopped[0], KeeperAction::SignalProcess { pid: MAIN, signal: SIGTERM });
    assert_eq!(scene.0.wake_at(Time::NEVER), at(1_000) - Duration::from_micros(247_500), "the rest of the tree");
    let _ = scene.on(753, KeeperEvent::RoundBegins);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(1_000), "within the deadline in force");
    let _ = scene.ends(20, MAIN);
    let _ = scene.on(20, NONE_LEFT);
    let program = Program::OnOusted { term: TERM };
    let (kill_by, identity) = (Time::NEVER, IdentitySource::Kept);
    let spawn = KeeperAction::Spawn { program, kill_by, holds_lock: true, identity };
    assert_eq!(scene.on(20, KeeperEvent::RoundEnds), [spawn]);
    let _ = scene.on(20, KeeperEvent::Spawned { pid: MAIN + 1, init: None });
    let _ = scene.on(21, KeeperEvent::Executed);
    assert_eq!(scene.on(21, KeeperEvent::RoundEnds), []);
    let _ = scene.ends(30, MAIN + 1);
    let _ = scene.on(30, NONE_LEFT);
    assert_eq!(scene.on(30, KeeperEvent::RoundEnds), [KeeperAction::Exit { releases: true }]);
    let (program, exited) = (Some(Program::Command { term: TERM }), Some(CommandEnd::Exited(0)));
    let report = FinalReport { program, end: exited, ousted_hook_end: exited };
    assert_eq!(scene.0.final_report(), Some(report), "for its one line in the log");
}

#[test]
fn a_keeper_that_is_dismissed_has_nothing_to_report() {
    let mut scene = Scene::running(60_000);
    assert_eq!(scene.0.final_report(), None);
    let _ = scene.order(10, KeeperOrder::Dismiss);
    assert_eq!(scene.0.final_report(), None);
    let mut scene = Scene::new();
    let _ = scene.on(10, KeeperEvent::CampaignerGone);
    assert_eq!(scene.0.final_report(), Some(FinalReport::default()));
}

#[test]
fn a_hook_that_cannot_be_started_does_not_keep_the_claim() {
    let hooks = Hooks { on_ousted: true, ..policy().hooks };
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { hooks, ..policy() }));
    scene.arm(1_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::NotSpawned { errno: 11 });
    let _ = scene.on(10, KeeperEvent::CampaignerGone);
    assert_eq!(scene.on(10, KeeperEvent::RoundEnds).len(), 1);
    assert_eq!(scene.on(10, KeeperEvent::NotSpawned { errno: 11 }), [KeeperAction::Exit { releases: true }]);

    // A hold that outlasts the lease is left to the lease, and the keeper does not wait for it.
    let min_hold = Duration::from_secs(3_600);
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { min_hold, hooks, ..policy() }));
    scene.arm(1_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    let _ = scene.on(10, KeeperEvent::CampaignerGone);
    let _ = scene.ends(20, MAIN);
    let _ = scene.on(20, NONE_LEFT);
    assert_eq!(scene.on(20, KeeperEvent::RoundEnds).len(), 1);
    assert_eq!(scene.on(20, KeeperEvent::NotSpawned { errno: 11 }), [KeeperAction::Exit { releases: false }]);
}

/// K4: a program may be started beside a lone hook, and its keeper's silence counts as ever.
#[test]
fn the_kill_of_a_lone_hook_is_not_reported_as_that_of_a_tree() {
    let hooks = Hooks { on_change: true, ..policy().hooks };
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { hooks, ..policy() }));
    let (background_hook, context) = (BackgroundHook::OnChange, HookContext::Alone);
    let _ = scene.order(1, KeeperOrder::StartBackgroundHook { background_hook, context });
    let _ = scene.on(1, KeeperEvent::Spawned { pid: MAIN, init: None });
    let due = scene.0.wake_at(Time::NEVER);
    scene.0.handle(due, KeeperEvent::RoundBegins);
    assert_eq!(scene.0.next_action(), Some(KeeperAction::KillHook { main: MAIN }));
    assert_eq!(scene.0.next_action(), Some(KeeperAction::KillLeftovers { except: None }));
}

#[test]
fn a_stopped_command_is_handled_by_the_terminal_unless_it_has_to_end() {
    let mut scene = Scene::running(60_000);
    let (group, stopped) = (MAIN, KeeperEvent::TerminalChecked { stopped_by: Some(SIGTSTP) });
    let handled = KeeperAction::HandleTerminalStop { group, signal: SIGTSTP };
    assert_eq!(scene.on(10, stopped), [handled, KeeperAction::PollForeground { group }]);
    let _ = scene.on(10, KeeperEvent::TerminalChanged(TerminalEvent::Suspended(SIGTSTP)));
    assert_eq!(scene.messages(), [FromKeeper::Terminal(TerminalEvent::Suspended(SIGTSTP))]);
    let _ = scene.order(20, KeeperOrder::Stop { kill_at: Time::NEVER });
    assert_eq!(scene.on(21, stopped), [KeeperAction::ContinueGroup { main: MAIN }]);
    assert_eq!(scene.order(22, KeeperOrder::Resume), [], "it is not given the terminal any more");
}

/// `--stop-to main`: the main process knows its workers. One that does not is helped before the time is over.
#[test]
fn the_rest_of_a_tree_gets_the_stop_signal_when_a_quarter_of_the_time_is_left() {
    let mut scene = Scene::running(60_000);
    let signal = KeeperAction::SignalProcess { pid: MAIN, signal: SIGTERM };
    let stopped = scene.order(1_000, KeeperOrder::Stop { kill_at: at(9_000) });
    assert_eq!(stopped, [signal, KeeperAction::ContinueGroup { main: MAIN }]);
    assert_eq!(scene.0.wake_at(Time::NEVER), at(7_000));
    assert_eq!(scene.on(6_999, KeeperEvent::RoundBegins), []);
    let recipients = Recipients::AllExcept([Some(MAIN), None]);
    let rest = KeeperAction::SignalDescendants { signal: SIGTERM, recipients };
    assert_eq!(scene.on(7_000, KeeperEvent::RoundBegins), [rest]);
    assert_eq!(scene.on(7_001, KeeperEvent::RoundBegins), [], "once");
    let ended = scene.ends(7_500, MAIN);
    assert!(!ended.iter().any(|action| matches!(action, KeeperAction::SignalDescendants { .. })), "{ended:?}");
}

/// `--stop-to group`: the group gets the signal at once, and the others when the main process has ended.
#[test]
fn a_group_gets_the_stop_signal_as_a_whole() {
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { stop_to: StopTo::Group, ..policy() }));
    scene.arm(60_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    let stopped = scene.order(1_000, KeeperOrder::Stop { kill_at: at(9_000) });
    assert_eq!(stopped[0], KeeperAction::SignalGroup { main: MAIN, signal: SIGTERM });
    assert_eq!(scene.0.wake_at(Time::NEVER), at(9_000), "no second signal in between");
    let recipients = Recipients::OutsideGroups([Some(MAIN), None]);
    let rest = KeeperAction::SignalDescendants { signal: SIGTERM, recipients };
    assert_eq!(scene.ends(2_000, MAIN).last(), Some(&rest));
}

/// The others are told apart by the groups that got the signal, even if a main process has ended since.
#[test]
fn the_group_of_a_hook_that_ends_first_gets_no_second_signal() {
    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { stop_to: StopTo::Group, ..policy() }));
    scene.arm(60_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    scene.add_hook(HookContext::WithRun(1));
    let _ = scene.order(1_000, KeeperOrder::Stop { kill_at: at(9_000) });
    assert_eq!(scene.ends(1_500, HOOK), [], "the others wait for the main process");
    let recipients = Recipients::OutsideGroups([Some(MAIN), Some(HOOK)]);
    let rest = KeeperAction::SignalDescendants { signal: SIGTERM, recipients };
    assert_eq!(scene.ends(2_000, MAIN).last(), Some(&rest));
}

/// K10: a start that is refused after the stop began has no main process whose end could be waited for.
#[test]
fn the_end_of_a_refused_start_passes_the_stop_signal_on() {
    for (stop_to, recipients) in [
        (StopTo::Main, Recipients::AllExcept([None, Some(HOOK)])),
        (StopTo::Group, Recipients::OutsideGroups([Some(MAIN), Some(HOOK)])),
    ] {
        let mut scene = Scene(KeeperMachine::new(KeeperPolicy { stop_to, ..policy() }));
        scene.add_hook(HookContext::Alone);
        let _ = scene.order(5, KeeperOrder::Start { program: Program::Follower, run: 1 });
        let _ = scene.on(6, KeeperEvent::Spawned { pid: MAIN, init: None });
        let _ = scene.order(7, KeeperOrder::Stop { kill_at: at(9_000) });
        assert_eq!(scene.on(8, KeeperEvent::NotExecuted(NotStarted::Failed(ENOENT))), []);
        let rest = KeeperAction::SignalDescendants { signal: SIGTERM, recipients };
        assert_eq!(scene.ends(9, MAIN), [rest]);
        assert_eq!(scene.ends(10, HOOK), []);
        assert_eq!(scene.0.wake_at(Time::NEVER), at(9_000), "once");
    }
}

#[test]
fn without_any_time_there_is_no_stop_signal() {
    let kill = KeeperAction::KillTree { main: Some(MAIN), lists: true };
    let mut scene = Scene::running(60_000);
    assert_eq!(scene.order(10, KeeperOrder::Stop { kill_at: at(10) }), [KeeperAction::ScheduleFirst, kill]);

    let mut scene = Scene(KeeperMachine::new(KeeperPolicy { stop_timeout: Duration::ZERO, ..policy() }));
    scene.arm(60_000);
    let _ = scene.order(1, KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 });
    let _ = scene.on(2, KeeperEvent::Spawned { pid: MAIN, init: None });
    let _ = scene.on(3, KeeperEvent::Executed);
    let ended = scene.ends(20, MAIN);
    let kill = KeeperAction::KillTree { main: None, lists: true };
    assert_eq!(ended.last(), Some(&kill), "{ended:?}");
}

/// K10: a program that goes into the background by itself must not end without a word.
#[test]
fn processes_that_the_main_process_has_left_behind_are_named_before_they_are_stopped() {
    let mut processes = ProcessList::default();
    processes.add(101, || *b"nginx\0\0\0\0\0\0\0\0\0\0\0");
    let mut scene = Scene::running(60_000);
    let ended = scene.ends(20, MAIN);
    let all = KeeperAction::SignalDescendants { signal: SIGTERM, recipients: Recipients::All };
    assert_eq!(ended[1..], [KeeperAction::ListDescendants { except: [None, None] }, all]);
    let _ = scene.on(20, KeeperEvent::DescendantsListed(processes));
    let exited = FromKeeper::Exited { run: 1, end: CommandEnd::Exited(0) };
    assert_eq!(scene.messages(), [exited, FromKeeper::LeftBehind { run: 1, processes }]);

    // After a stop it is no surprise that some take longer than others, unless they have to be killed.
    let mut scene = Scene::running(60_000);
    let _ = scene.order(10, KeeperOrder::Stop { kill_at: at(500) });
    let ended = scene.ends(20, MAIN);
    assert!(!ended.contains(&KeeperAction::ListDescendants { except: [None, None] }), "{ended:?}");
    let kill = KeeperAction::KillTree { main: None, lists: true };
    assert_eq!(scene.on(500, KeeperEvent::RoundBegins), [KeeperAction::ScheduleFirst, kill]);
    let _ = scene.on(501, KeeperEvent::TreeKilled { is_complete: true, processes });
    assert_eq!(scene.messages(), [exited, FromKeeper::StopTimedOut { run: 1, processes }]);
    let again = scene.on(600, KeeperEvent::RoundBegins);
    assert!(again.contains(&KeeperAction::KillTree { main: None, lists: false }), "named once");
}

/// K3: no event returns more actions than there was room for at the start, and no order of events breaks an invariant
/// of the header.
#[test]
fn no_order_of_events_needs_more_room_or_grows_a_second_tree() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hooks = Hooks { on_ousted: rng.bool(), ..policy().hooks };
        let mut scene = Scene(KeeperMachine::new(KeeperPolicy { hooks, ..policy() }));
        let (mut now, mut pid, mut living) = (0, 100, Vec::new());
        for step in 0..200 {
            now += rng.u64(0..3_000);
            let event = draw(&mut rng, now, step, &mut living, &scene.0);
            let was_empty = scene.0.tree.is_empty();
            let was_killing = matches!(scene.0.tree, CommandTree::Alive { stop: Stop::Killing { .. }, .. });
            let (room, is_round) = (scene.0.outbox.capacity(), matches!(event, KeeperEvent::RoundBegins));
            scene.0.handle(at(now), event);
            assert!(scene.0.actions.capacity() == BUFFER, "seed {seed}");
            assert!(!is_round || scene.0.outbox.capacity() == room, "seed {seed}: a kill by the deadline allocates");
            if was_killing && let CommandTree::Alive { stop, .. } = &scene.0.tree {
                assert!(matches!(stop, Stop::Killing { .. }), "seed {seed}: a kill became a stop");
            }
            while let Some(action) = scene.0.next_action() {
                match action {
                    KeeperAction::Spawn { .. } | KeeperAction::SpawnHook(_) | KeeperAction::SpawnCheck => {
                        let is_program = matches!(action, KeeperAction::Spawn { .. });
                        assert!(was_empty || !is_program, "seed {seed}: a second tree");
                        assert!(scene.0.next_action().is_none(), "seed {seed}: an action after a spawn");
                        pid += 1;
                        living.push(pid);
                        scene.0.handle(at(now), KeeperEvent::Spawned { pid, init: None });
                    }
                    KeeperAction::KillTree { .. } => {
                        scene.0.handle(at(now), killed_tree(rng.bool()));
                    }
                    KeeperAction::Exit { .. } => {
                        let is_left = living.iter().any(|pid| scene.0.check_pid() != Some(*pid));
                        assert!(!is_left, "seed {seed}: it leaves a child behind");
                    }
                    KeeperAction::KillLeftovers { .. }
                    | KeeperAction::KillCheck { .. }
                    | KeeperAction::KeepIdentity
                    | KeeperAction::SignalGroup { .. }
                    | KeeperAction::ContinueGroup { .. }
                    | KeeperAction::SignalProcess { .. }
                    | KeeperAction::SignalDescendants { .. }
                    | KeeperAction::ListDescendants { .. }
                    | KeeperAction::KillHook { .. }
                    | KeeperAction::KillInit { .. }
                    | KeeperAction::DismissInit { .. }
                    | KeeperAction::ScheduleFirst
                    | KeeperAction::ScheduleAsBefore
                    | KeeperAction::HandleTerminalStop { .. }
                    | KeeperAction::PollForeground { .. }
                    | KeeperAction::ResumeTerminal { .. }
                    | KeeperAction::TakeTerminalBack { .. } => {}
                }
            }
        }
    }
}

fn draw(rng: &mut fastrand::Rng, now: u64, step: u64, living: &mut Vec<i32>, machine: &KeeperMachine) -> KeeperEvent {
    let term = rng.u64(7..9);
    let program =
        [Program::Command { term }, Program::OnElected { term }, Program::OnOusted { term }, Program::Follower]
            [rng.usize(0..4)];
    let background_hook = BackgroundHook::OnChange;
    let context = if rng.bool() { HookContext::Alone } else { HookContext::WithRun(machine.run) };
    let order = |order| if machine.has_campaigner() { KeeperEvent::Order(order) } else { KeeperEvent::RoundBegins };
    match rng.u32(0..100) {
        0..15 => KeeperEvent::RoundBegins,
        15..30 => order(KeeperOrder::Arm { term, kill_by: at(now + rng.u64(0..6_000)) }),
        30..45 => order(KeeperOrder::Start { program, run: step }),
        45..52 => order(KeeperOrder::StartBackgroundHook { background_hook, context }),
        52..57 => order(KeeperOrder::Stop { kill_at: at(now + rng.u64(0..6_000)) }),
        57..60 => order(KeeperOrder::Kill),
        60..61 => order(KeeperOrder::Forward(SIGTERM)),
        61..62 => order(KeeperOrder::StartCheck { check: CheckNumber(step) }),
        62..63 if machine.has_campaigner() => KeeperEvent::CampaignerGone,
        63..64 => order(KeeperOrder::Dismiss),
        64..74 if machine.starting_child().is_some() => KeeperEvent::Executed,
        74..78 if machine.starting_child().is_some() => KeeperEvent::NotExecuted(NotStarted::TooLate),
        76..80 if machine.check_pid().is_some() => KeeperEvent::CheckEnds { not_executed: None },
        80..82 if machine.stuck_check(at(now)).is_some_and(|check| living[..] == [check]) => {
            KeeperEvent::OnlyCheckLeft { is_cgroup_populated: false }
        }
        78..90 if !living.is_empty() => {
            let pid = living.swap_remove(rng.usize(0..living.len()));
            // The exec status of a child is handed in before its end.
            if machine.starting_child() == Some(pid) {
                living.push(pid);
                return KeeperEvent::Executed;
            }
            KeeperEvent::ChildEnded { pid, end: ChildEnd::Exited(rng.u8(..)) }
        }
        _ if living.is_empty() => KeeperEvent::NoChildren { is_cgroup_populated: rng.u32(0..4) == 0 },
        _ => KeeperEvent::RoundEnds,
    }
}
