//! The system calls behind each [`KeeperAction`].

use std::time::Duration;

use nix::unistd::{Pid, getpgid};

use super::{ClaimAtExit, KeeperLoop};
use crate::clock;
use crate::containment::{INDIVIDUAL_KILLS_MAX, NONE_SPARED, Spared};
use crate::namespace::Init;
use crate::process_list;
use crate::protocol::Channel;
use crate::spawn::{CommandSpec, Spawned, spawn};
use crate::sys;
use crate::tree::{self, KillSweep};
use elect_core::{
    BackgroundHook, IdentitySource, KeeperAction, KeeperEvent, ProcessList, Program, Recipients, Signal, TerminalEvent,
    Time,
};

/// The processes that are looked at, to name a few, before a tree is killed.
const PROCESSES_LISTED: usize = 16;
/// The time that the creation of a process in a cgroup may take, with a margin. A campaigner that hears nothing gives the keeper
/// up shortly after the deadline that it has sent (K4).
const CREATION_WAIT_MAX: Duration = Duration::from_secs(5);
/// The minimum time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);

impl KeeperLoop {
    /// Performs an action. Returns its result if it has one.
    pub(super) fn perform(&mut self, action: KeeperAction) -> Option<KeeperEvent> {
        match action {
            KeeperAction::Spawn { program, kill_by, holds_lock, identity } => {
                let event = self.spawn_program(program, kill_by, holds_lock, identity);
                self.is_memory_shared = true;
                self.hold_if_shared();
                return Some(event);
            }
            KeeperAction::SpawnHook(background_hook) => {
                let event = self.spawn_hook(background_hook);
                self.hold();
                return Some(event);
            }
            KeeperAction::SpawnCheck => {
                let event = self.spawn_check();
                self.hold();
                return Some(event);
            }
            KeeperAction::KeepIdentity => self.kept_identity.clone_from(&self.ordered_identity),
            KeeperAction::SignalGroup { main, signal } => signal_group(main, signal.0),
            KeeperAction::ContinueGroup { main } => signal_group(main, libc::SIGCONT),
            KeeperAction::SignalProcess { pid, signal } => drop(sys::kill(pid, signal.0)),
            KeeperAction::SignalDescendants { signal, recipients } => self.signal_descendants(signal, recipients),
            KeeperAction::ListDescendants { except } => return Some(self.list_descendants(except)),
            KeeperAction::KillTree { main, lists } => return Some(self.kill_tree(main, lists)),
            KeeperAction::KillLeftovers { except } => {
                let progress = &mut Progress::of(&self.channel, self.machine.has_campaigner());
                let spared = Spared { processes: except.as_slice(), check_leaf: except.is_some() };
                let _ = self.tier.kill(&mut self.scanner, self.own_pid, spared, &mut || progress.report());
            }
            KeeperAction::KillCheck { main, kills_cgroup } => self.kill_check(main, kills_cgroup),
            KeeperAction::KillHook { main } => {
                let progress = &mut Progress::of(&self.channel, self.machine.has_campaigner());
                let _ = self.scanner.kill(main, &[], tree::DESCENDANTS_MAX, &mut || progress.report());
                signal_group(main, libc::SIGKILL);
            }
            KeeperAction::KillInit { init } => self.init(init).into_iter().for_each(Init::kill),
            KeeperAction::DismissInit { init } => self.init(init).into_iter().for_each(Init::dismiss),
            KeeperAction::ScheduleFirst => sys::schedule_first(),
            KeeperAction::ScheduleAsBefore => self.inherited.schedule_as_before(),
            KeeperAction::HandleTerminalStop { group, signal } => {
                let event = self.terminal.stopped(group, signal.0, self.own_pid, &mut self.scanner);
                return event.map(KeeperEvent::TerminalChanged);
            }
            KeeperAction::PollForeground { group } => self.terminal.poll_foreground(clock::now(), group),
            KeeperAction::ResumeTerminal { group, may_read } => self.terminal.resume(group, may_read),
            KeeperAction::TakeTerminalBack { group, with_modes, interrupted_by } => {
                let had_it = self.terminal.take_back(group, with_modes, (self.own_pid, &[]), &mut self.scanner);
                let interrupted = interrupted_by.filter(|_| had_it).map(TerminalEvent::Interrupted);
                return interrupted.map(KeeperEvent::TerminalChanged);
            }
            KeeperAction::Exit { releases: true } => self.exit = Some(ClaimAtExit::Released),
            KeeperAction::Exit { releases: false } => self.exit = Some(ClaimAtExit::Dropped),
        }
        None
    }

    fn init(&self, pid: i32) -> Option<&Init> {
        self.inits.iter().find(|init| init.pid == pid)
    }

    fn spawn_program(
        &mut self,
        program: Program,
        kill_by: Time,
        holds_lock: bool,
        identity: IdentitySource,
    ) -> KeeperEvent {
        let Some(executable) = self.spec.as_ref().and_then(|spec| spec.executable(program)) else {
            return KeeperEvent::NotSpawned { errno: libc::ENOENT };
        };
        if holds_lock && self.claim_is_incomplete {
            return KeeperEvent::NotSpawned { errno: libc::EMFILE };
        }
        let lock = self.claim.as_ref().and_then(|claim| claim.descriptors.first()).filter(|_| holds_lock);
        let identity = match identity {
            IdentitySource::Order => &self.ordered_identity,
            IdentitySource::Kept => {
                // The order that they come from was for a program before: the hook runs for another reason.
                self.kept_identity.retain(|(name, _)| name != "ELECT_REASON");
                self.kept_identity.push(("ELECT_REASON".into(), "campaigner-died".into()));
                &self.kept_identity
            }
        };
        let terminal = match program {
            Program::Command { .. } => Some(&mut self.terminal),
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => None,
        };
        let may_be_silent = kill_by.since(clock::now()) > CREATION_WAIT_MAX;
        let place = self.tier.place(may_be_silent && !self.machine.has_processes());
        match spawn(place, &executable, identity, self.inherited, lock, kill_by, terminal) {
            Ok(mut spawned) => {
                let event = self.note_spawned(&mut spawned);
                self.starting = Some(spawned);
                event
            }
            Err(error) => KeeperEvent::NotSpawned { errno: error.raw_os_error().unwrap_or(libc::EIO) },
        }
    }

    fn spawn_hook(&mut self, background_hook: BackgroundHook) -> KeeperEvent {
        let Some(executable) = self.spec.as_ref().and_then(|spec| spec.background_hook(background_hook)) else {
            return KeeperEvent::NotSpawned { errno: libc::ENOENT };
        };
        // K9: a background hook does not get the leader's lock.
        let place = self.tier.place(false);
        match spawn(place, &executable, &self.ordered_identity, self.inherited, None, Time::NEVER, None) {
            Ok(mut spawned) => {
                let event = self.note_spawned(&mut spawned);
                self.hook_status = Some(spawned.status);
                event
            }
            Err(error) => KeeperEvent::NotSpawned { errno: error.raw_os_error().unwrap_or(libc::EIO) },
        }
    }

    fn spawn_check(&mut self) -> KeeperEvent {
        let Some(executable) = self.spec.as_ref().and_then(CommandSpec::health) else {
            return KeeperEvent::NotSpawned { errno: libc::ENOENT };
        };
        // H5: an earlier check has left a process that SIGKILL has not ended yet.
        if self.tier.is_check_populated() {
            return KeeperEvent::NotSpawned { errno: libc::EBUSY };
        }
        let place = self.tier.check_place();
        match spawn(place, &executable, &self.ordered_identity, self.inherited, None, Time::NEVER, None) {
            Ok(mut spawned) => {
                let event = self.note_spawned(&mut spawned);
                self.check = Some(spawned);
                event
            }
            Err(error) => KeeperEvent::NotSpawned { errno: error.raw_os_error().unwrap_or(libc::EIO) },
        }
    }

    fn kill_check(&mut self, main: i32, kills_cgroup: bool) {
        let progress = &mut Progress::of(&self.channel, self.machine.has_campaigner());
        // Few enough that no deadline waits for them; what is left is found in the next round, or with the tree.
        let _ = self.scanner.kill(main, &[], INDIVIDUAL_KILLS_MAX, &mut || progress.report());
        signal_group(main, libc::SIGKILL);
        if kills_cgroup {
            self.tier.kill_check_leftovers();
        }
    }

    fn note_spawned(&mut self, spawned: &mut Spawned) -> KeeperEvent {
        let init = spawned.init.take();
        let event = KeeperEvent::Spawned { pid: spawned.pid, init: init.as_ref().map(|init| init.pid) };
        self.inits.extend(init);
        event
    }

    fn kill_tree(&mut self, main: Option<i32>, lists: bool) -> KeeperEvent {
        // A few reads, which delay the kill by no more than a few hundred microseconds, whatever the size of the tree.
        let mut processes = ProcessList::default();
        // Processes that had ended before and have not been reaped, as far as they are among the first.
        let mut ended = 0;
        if lists {
            let first = self.scanner.first_descendants(self.own_pid, PROCESSES_LISTED);
            processes = named(first, &self.inits);
            ended = first.len().saturating_sub(self.inits.len() + processes.count as usize);
        }
        let progress = &mut Progress::of(&self.channel, self.machine.has_campaigner());
        // One call kills many processes at once, before the walk finds the others.
        if let Some(main) = main {
            signal_group(main, libc::SIGKILL);
            progress.report();
        }
        let sweep = self.tier.kill(&mut self.scanner, self.own_pid, NONE_SPARED, &mut || progress.report());
        let is_complete = match sweep {
            KillSweep::Complete(all) => {
                // The list may be shorter, and is not empty without a reason.
                let all = u32::try_from(all.saturating_sub(self.inits.len() + ended)).unwrap_or(u32::MAX);
                processes.count = if lists { processes.count.max(all) } else { 0 };
                true
            }
            KillSweep::Partial | KillSweep::Unlistable => false,
        };
        if is_complete {
            // Without its priority, which it gives up next, the keeper may wait for the processor for long: behind
            // thousands of dying processes, or on a busy machine. A small tree needs the report as a large one does.
            progress.report_all_killed();
        }
        KeeperEvent::TreeKilled { is_complete, processes }
    }

    fn list_descendants(&mut self, except: [Option<i32>; 2]) -> KeeperEvent {
        // No process has the number 0.
        let found = self.scanner.descendants(self.own_pid, &except.map(Option::unwrap_or_default));
        KeeperEvent::DescendantsListed(named(found, &self.inits))
    }

    fn signal_descendants(&mut self, signal: Signal, recipients: Recipients) {
        let is_recipient = |pid| match recipients {
            Recipients::All | Recipients::Beside(_) => true,
            Recipients::AllExcept(pids) => !pids.contains(&Some(pid)),
            Recipients::OutsideGroups(groups) => {
                getpgid(Some(Pid::from_raw(pid))).is_ok_and(|group| !groups.contains(&Some(group.as_raw())))
            }
        };
        let except = match recipients {
            Recipients::Beside(except) => Some(except),
            Recipients::All | Recipients::AllExcept(_) | Recipients::OutsideGroups(_) => None,
        };
        self.scanner.signal_descendants(self.own_pid, except.as_slice(), signal.0, is_recipient);
        self.scanner.signal_descendants(self.own_pid, except.as_slice(), libc::SIGCONT, is_recipient);
    }
}

/// Reports to the campaigner, during a long kill, that the keeper lives (K4). A report that finds no room is dropped.
pub(super) struct Progress<'a> {
    channel: Option<&'a Channel>,
    last: Time,
}

impl Progress<'_> {
    fn of(channel: &Channel, has_campaigner: bool) -> Progress<'_> {
        Progress { channel: Some(channel).filter(|_| has_campaigner), last: clock::now() }
    }

    /// Sends a report, whatever the time of the last one.
    pub(super) fn rehearse(channel: &Channel) {
        Progress { channel: Some(channel), last: Time::BOOT }.report();
    }

    fn report(&mut self) {
        let now = clock::now();
        if let Some(channel) = self.channel
            && now.since(self.last) >= PROGRESS_INTERVAL
        {
            self.last = now;
            channel.report_progress();
        }
    }

    /// Reports that every process has got SIGKILL.
    fn report_all_killed(&self) {
        if let Some(channel) = self.channel {
            channel.report_all_killed();
        }
    }
}

/// The list of these processes, without the inits of PID namespaces, which are no programs of the command.
fn named(pids: &[i32], inits: &[Init]) -> ProcessList {
    process_list::living(&mut pids.iter().copied().filter(|pid| inits.iter().all(|init| init.pid != *pid)))
}

/// Signals the group of the main process, and the main process itself if it has moved to another group.
fn signal_group(main: i32, signal: i32) {
    let _ = sys::kill(-main, signal);
    if getpgid(Some(Pid::from_raw(main))).is_ok_and(|group| group.as_raw() != main) {
        let _ = sys::kill(main, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elect_core::KILL_ALLOWANCE;

    /// K4: each report is due within half the kill allowance after the last, also where the walk takes its time between
    /// two batches.
    #[test]
    fn several_reports_of_progress_fit_into_the_time_within_which_one_is_due() {
        assert!(PROGRESS_INTERVAL * 4 <= KILL_ALLOWANCE / 2, "{PROGRESS_INTERVAL:?}");
    }
}
