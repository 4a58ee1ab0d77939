//! A kill before there is anything to kill, so that no page of its code or memory is missing when it counts (K3).
//!
//! First come the orders and observations that may precede a kill: the keeper has one thread, so a page that is missing there delays
//! the kill too. Then it goes the way of every kill: a deadline passes and an order comes, the tree is walked and killed with a
//! background hook and a health check, its process is reaped, the campaigner is told. Then follow the ways that a kill takes in
//! some cases only. The tree is one child that does nothing, hook and check are none; machine and connection are not the
//! keeper's own, and it has no programs meanwhile, so that nothing of it is left. Each page that it has used is locked from
//! then on, if the limit allows it ([`memory::lock`]).
//!
//! All of it takes a few milliseconds, in which the campaigner asks the store. Where both are on the same processor, the campaigner
//! goes first: the keeper has no priority yet, and yields between two steps, since the scheduler would let the other one wait for a
//! whole slice of time.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::yield_now;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid, getppid, pause, setpgid};

use super::KeeperLoop;
use super::actions::Progress;
use crate::cgroup::CommandCgroup;
use crate::clock::{self, Alarm};
use crate::containment::Tier;
use crate::memory;
use crate::namespace::Init;
use crate::process_list;
use crate::protocol::{Channel, ToKeeper};
use crate::sys::{self, Forked};
use crate::tree::Scanner;
use elect_core::{
    BackgroundHook, CheckNumber, ChildEnd, HookContext, Hooks, KeeperAction, KeeperEvent, KeeperMachine, KeeperOrder,
    KeeperPolicy, Program, Recipients, RunId, StopTo, Term, Time,
};

/// Ids of no process: more than a kernel gives.
const NO_PID: i32 = i32::MAX;
const HOOK: i32 = NO_PID - 1;
const CHECK: i32 = NO_PID - 2;
const INIT: i32 = NO_PID - 3;
const TERM: Term = 1;
const RUN: RunId = 1;
/// The time from the start of the tree to its deadline.
const LEASE: Duration = Duration::from_nanos(1);
/// A child that has not ended by then is left to the keeper as any other one.
const TIME_MAX: Duration = Duration::from_secs(1);
/// The number is SIGKILL's on every architecture.
const KILLED: ChildEnd = ChildEnd::Killed(elect_core::Signal(libc::SIGKILL));

/// The child has it blocked, as the keeper has.
const STOP_SIGNAL: elect_core::Signal = elect_core::Signal(libc::SIGTERM);

/// Functions of all modules that a kill goes through.
pub(crate) const CODE_OF_A_KILL: [*const (); 9] = [
    KeeperMachine::handle as *const (),
    KeeperLoop::round as *const (),
    KeeperLoop::perform as *const (),
    Tier::kill as *const (),
    Tier::kill_slice as *const (),
    Scanner::kill as *const (),
    CommandCgroup::order_kill as *const (),
    Init::kill as *const (),
    Channel::report_progress as *const (),
];

/// The resources that a rehearsal takes from the kernel.
struct Stage {
    /// The other end of the keeper's connection.
    campaigner: Channel,
    channel: Channel,
    init: Init,
    /// So that a dismissal of the init is written.
    _control_pipe_r: OwnedFd,
}

impl Stage {
    fn new() -> nix::Result<Stage> {
        let (campaigner, channel) = Channel::pair()?;
        let (init, control_pipe_r) = Init::of_no_process(INIT)?;
        Ok(Stage { campaigner, channel, init, _control_pipe_r: control_pipe_r })
    }
}

impl KeeperLoop {
    /// Must be called before any order has been read. Returns `false` if the kernel has refused a part of it, or if the child has not
    /// ended in time.
    pub(super) fn rehearse(&mut self, children: &SignalFd, alarm: &Alarm) -> bool {
        self.hold();
        yield_now();
        memory::use_code_near(&CODE_OF_A_KILL.map(<*const ()>::addr));
        let Ok(stage) = Stage::new() else { return false };
        let machine = std::mem::replace(&mut self.machine, KeeperMachine::new(policy(TIME_MAX)));
        let channel = std::mem::replace(&mut self.channel, stage.channel);
        self.inits.push(stage.init);
        // Nothing can be started, whatever the machine says.
        let spec = self.spec.take();
        // The child that is killed was in no cgroup of these.
        let creation = self.tier.creation();
        yield_now();
        let child = fork_idle_child();
        let main = child.as_ref().map_or(NO_PID, |pid| *pid);
        yield_now();
        self.take_orders(&stage.campaigner);
        yield_now();
        self.machine = KeeperMachine::new(policy(Duration::ZERO));
        // The ways that a kill takes only in some cases, and the one of the campaigner, which shares the code.
        Progress::rehearse(&self.channel);
        let _ = self.perform(KeeperAction::ListDescendants { except: [None, None] });
        self.scanner.rehearse(self.own_pid, NO_PID, &mut || ());
        self.kill_at_deadline(main, &stage.campaigner, (children, alarm));
        let is_killed = !self.machine.has_processes();
        self.inherited.schedule_as_before();
        yield_now();
        let _ = sys::ended_child(None);
        let _ = process_list::is_last_descendant(&mut self.scanner, self.own_pid, NO_PID);
        for action in [
            KeeperAction::KillTree { main: Some(NO_PID), lists: true },
            KeeperAction::KillLeftovers { except: Some(CHECK) },
            KeeperAction::KillCheck { main: CHECK, kills_cgroup: true },
            KeeperAction::KillHook { main: HOOK },
        ] {
            let _ = self.perform(action);
        }
        self.tier.rehearse_kill_of_leaves();
        let _ = self.tier.kill_slice(&mut self.scanner, self.own_pid, &[]);
        (self.machine, self.channel, self.spec) = (machine, channel, spec);
        self.tier.restore_creation(creation);
        self.inits.clear();
        self.exit = None;
        yield_now();
        self.hold();
        child.is_ok() && is_killed
    }

    /// The work of the keeper while a tree is alive: orders, the end of a main process, the end of the campaigner. No process has
    /// the numbers of this tree.
    fn take_orders(&mut self, campaigner: &Channel) {
        let now = clock::now();
        self.pretend_start(now, NO_PID, now + TIME_MAX);
        for message in [
            ToKeeper::Ping,
            ToKeeper::Arm { term: TERM, kill_by: now + 2 * TIME_MAX },
            ToKeeper::Forward { signal: libc::SIGWINCH },
            ToKeeper::Resume,
            ToKeeper::EndHold,
            ToKeeper::Stop { kill_at: now + TIME_MAX },
        ] {
            let _ = campaigner.send(&message);
        }
        self.handle(KeeperEvent::RoundBegins);
        let _ = self.receive_messages();
        self.send();
        yield_now();
        self.handle(KeeperEvent::CampaignerGone);
        self.handle(KeeperEvent::ChildEnded { pid: NO_PID, end: ChildEnd::Exited(0) });
        self.handle(KeeperEvent::RoundEnds);
        for action in [
            KeeperAction::SignalDescendants { signal: STOP_SIGNAL, recipients: Recipients::OutsideGroups([None; 2]) },
            KeeperAction::SpawnHook(BackgroundHook::OnChange),
            KeeperAction::SpawnCheck,
        ] {
            let _ = self.perform(action);
        }
    }

    /// The starts are no part of a kill, and have happened.
    fn pretend_start(&mut self, now: Time, main: i32, kill_by: Time) {
        let (background_hook, context) = (BackgroundHook::OnChange, HookContext::WithRun(RUN));
        for event in [
            KeeperEvent::Order(KeeperOrder::Arm { term: TERM, kill_by }),
            KeeperEvent::Order(KeeperOrder::Start { program: Program::OnElected { term: TERM }, run: RUN }),
            KeeperEvent::Spawned { pid: main, init: Some(INIT) },
            KeeperEvent::Executed,
            KeeperEvent::Order(KeeperOrder::StartBackgroundHook { background_hook, context }),
            KeeperEvent::Spawned { pid: HOOK, init: Some(INIT) },
            KeeperEvent::Order(KeeperOrder::StartCheck { check: CheckNumber(1) }),
            KeeperEvent::Spawned { pid: CHECK, init: None },
        ] {
            self.machine.handle(now, event);
            while self.machine.next_action().is_some() {}
        }
    }

    /// Rounds as every other one, until the tree of this main process is empty.
    fn kill_at_deadline(&mut self, main: i32, campaigner: &Channel, (children, alarm): (&SignalFd, &Alarm)) {
        let now = clock::now();
        let (kill_by, give_up_at) = (now + LEASE, now + TIME_MAX);
        self.pretend_start(now, main, kill_by);
        while clock::now() < kill_by {}
        self.handle(KeeperEvent::RoundBegins);
        self.handle(KeeperEvent::CheckEnds { not_executed: None });
        for pid in [CHECK, HOOK] {
            self.handle(KeeperEvent::ChildEnded { pid, end: KILLED });
        }
        let _ = campaigner.send(&ToKeeper::Kill);
        while self.machine.has_processes() && clock::now() < give_up_at {
            let remaining = self.round();
            alarm.set(self.machine.wake_at(Time::NEVER).min(give_up_at));
            if self.machine.has_processes() {
                self.wait(children, alarm, remaining);
            }
        }
    }
}

/// The hook that starts the tree is under the deadline as the command is, and has nothing to do with the terminal. No other program
/// is configured but those that the rehearsal says it has started, so that none is started whatever happens. The time-out of the
/// hooks is over at once.
fn policy(stop_timeout: Duration) -> KeeperPolicy {
    let hooks = Hooks { on_elected: true, on_change: true, on_ousted: false, on_error: false, timeout: Duration::ZERO };
    KeeperPolicy {
        stop_signal: STOP_SIGNAL,
        stop_timeout,
        stop_to: StopTo::Main,
        min_hold: Duration::ZERO,
        has_command: false,
        has_follower: false,
        hooks,
        health_timeout: Some(TIME_MAX),
    }
}

/// A child that waits for its end, in a group of its own.
fn fork_idle_child() -> io::Result<i32> {
    let keeper = getpid();
    // SAFETY: the keeper has one thread, so no lock is held by another; the child makes system calls alone.
    match unsafe { sys::fork() }? {
        Forked::Parent(pid) => {
            let _ = setpgid(Pid::from_raw(pid), Pid::from_raw(pid));
            Ok(pid)
        }
        Forked::Child => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            while getppid() == keeper {
                pause();
            }
            sys::exit_now(libc::EXIT_SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_even_if_the_connection_breaks() {
        for is_running in [true, false] {
            let mut machine = KeeperMachine::new(policy(Duration::ZERO));
            let now = Time::BOOT;
            let mut events = vec![
                KeeperEvent::Order(KeeperOrder::Arm { term: TERM, kill_by: now + TIME_MAX }),
                KeeperEvent::Order(KeeperOrder::Start { program: Program::OnElected { term: TERM }, run: RUN }),
                KeeperEvent::Spawned { pid: NO_PID, init: None },
                KeeperEvent::Executed,
            ];
            if is_running {
                events.push(KeeperEvent::CampaignerGone);
            }
            events.extend([
                KeeperEvent::ChildEnded { pid: NO_PID, end: KILLED },
                KeeperEvent::NoChildren { is_cgroup_populated: false },
                KeeperEvent::RoundEnds,
                KeeperEvent::CampaignerGone,
                KeeperEvent::RoundEnds,
            ]);
            let mut spawns = Vec::new();
            for event in events {
                machine.handle(now, event);
                spawns.extend(std::iter::from_fn(|| machine.next_action()).filter(|action| {
                    matches!(action, KeeperAction::Spawn { .. } | KeeperAction::SpawnHook(_) | KeeperAction::SpawnCheck)
                }));
            }
            let started = Program::OnElected { term: TERM };
            assert!(matches!(spawns[..], [KeeperAction::Spawn { program, .. }] if program == started), "{spawns:?}");
        }
    }
}
