//! The shell of the keeper's machine ([`KeeperMachine`], K12): performs system calls and decides nothing.
//!
//! ```text
//! socket, SIGCHLD, exec pipe, timer, terminal ─▶ KeeperLoop ─▶ KeeperEvent ─▶ KeeperMachine::handle
//!                       system calls ([`actions`]) ◀─ KeeperAction ◀─┘
//! ```
//!
//! Each round hands its observations in, in the order that the machine demands, performs each action at once, and hands
//! the result back before the next observation. The shell keeps what no decision depends on: descriptors, the claim,
//! environment variables, the inits of PID namespaces and the terminal.

mod actions;
pub(crate) mod rehearsal;

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::containment::Tier;
use super::handle::Departure;
use super::memory;
use super::namespace::Init;
use super::process_list;
use super::protocol::{Channel, Claim, MESSAGE_BYTES_MAX, Received, ToKeeper};
use super::spawn::{CommandSpec, ExecStatus, IdentityVars, Spawned};
use super::sys::{self, Inherited, Reaped};
use super::terminal::Terminal;
use super::tree::Scanner;
use crate::clock::{self, Alarm};
use elect_core::{ChildEnd, KeeperEvent, KeeperMachine, KeeperOrder, NotStarted};

/// Bounds work per round, so that neither a message flood nor mass child exits delay a kill.
const EVENT_BATCH: usize = 64;

pub struct KeeperLoop {
    machine: KeeperMachine,
    channel: Channel,
    claim: Option<Claim>,
    /// The last claim came without its lock: no program that holds the lock can start.
    claim_is_incomplete: bool,
    spec: Option<CommandSpec>,
    inherited: Inherited,
    tier: Tier,
    terminal: Terminal,
    /// The child whose exec status is open.
    starting: Option<Spawned>,
    /// The read end of the last background hook's status pipe, open so that the child can write to it.
    hook_status: Option<OwnedFd>,
    /// The health check, until it has been reaped.
    check: Option<Spawned>,
    /// The inits of all programs that have not been reaped: dropping an init kills its namespace.
    inits: Vec<Init>,
    /// The environment variables of the present order, and those kept for the hook after the term.
    ordered_identity: IdentityVars,
    kept_identity: IdentityVars,
    /// Set when all work is done: whether the claim must be released.
    exit: Option<ClaimAtExit>,
    scanner: Scanner,
    own_pid: i32,
    /// For a message of the campaigner.
    buffer: Vec<u8>,
    /// A child has been forked since the memory was taken last.
    is_memory_shared: bool,
}

/// The use of the claim when the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimAtExit {
    Released,
    /// No claim is left, or its lease runs out by itself.
    Dropped,
}

/// The messages of the campaigner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    /// Every one that had come.
    AllRead,
    /// More may wait.
    MoreMayWait,
}

/// The result of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReapResult {
    /// More zombies may exist: reap again at once.
    MoreZombies,
    /// Children are alive; SIGCHLD announces their ends.
    ChildrenAlive,
    /// No child is left, but a leaf is populated; the events of the leaves announce a change (K6).
    CgroupPopulated,
}

impl KeeperLoop {
    pub fn new(
        channel: Channel,
        spec: Option<CommandSpec>,
        inherited: Inherited,
        (tier, terminal): (Tier, Terminal),
        mut scanner: Scanner,
    ) -> KeeperLoop {
        let own_pid = std::process::id().cast_signed();
        scanner.add_roots(&[own_pid]);
        KeeperLoop {
            machine: KeeperMachine::new(CommandSpec::policy(spec.as_ref())),
            channel,
            claim: None,
            claim_is_incomplete: false,
            spec,
            inherited,
            tier,
            terminal,
            starting: None,
            hook_status: None,
            check: None,
            inits: Vec::new(),
            ordered_identity: Vec::new(),
            kept_identity: Vec::new(),
            exit: None,
            scanner,
            own_pid,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            is_memory_shared: false,
        }
    }

    /// Runs until the campaigner is gone and the tree is empty. Returns the claim and the report of a keeper whose
    /// campaigner has died; nothing after an orderly exit.
    ///
    /// # Errors
    ///
    /// The kernel refuses a timer or a signal descriptor: at the start, before any claim can exist.
    pub fn run(mut self) -> nix::Result<Option<Departure>> {
        // SIGCHLD is blocked like all other signals and read from the descriptor.
        let child = SigSet::from_iter([Signal::SIGCHLD]);
        let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let alarm = Alarm::new()?;
        if !self.rehearse(&children, &alarm) {
            // It is not known which part of the program killing needs.
            let _ = memory::lock_all();
        }
        sys::schedule_first();
        loop {
            let remaining = self.round();
            if let Some(exit) = self.exit {
                self.tier.remove();
                let had_claim = self.claim.is_some();
                let claim = self.claim.filter(|_| exit == ClaimAtExit::Released);
                return Ok(self.machine.final_report().map(|report| Departure { claim, had_claim, report }));
            }
            alarm.set(self.machine.wake_at(self.terminal.foreground_poll_at()));
            self.wait(&children, &alarm, remaining);
        }
    }

    fn round(&mut self) -> ReapResult {
        self.handle(KeeperEvent::RoundBegins);
        if self.receive_messages() == Orders::AllRead {
            self.starting.iter_mut().for_each(Spawned::open_gate);
        }
        self.hold_if_shared();
        let remaining = self.reap();
        self.hold_if_shared();
        self.check_terminal();
        self.send();
        self.handle(KeeperEvent::RoundEnds);
        remaining
    }

    /// Takes the memory back that is shared with a child. One behind a gate is let through first, since its start would wait: until
    /// it executes it does nothing that a kill is needed for, and then it shares nothing.
    fn hold_if_shared(&mut self) {
        if self.is_memory_shared && !self.is_gate_closed() {
            self.hold();
        }
    }

    fn is_gate_closed(&self) -> bool {
        self.starting.as_ref().is_some_and(|spawned| spawned.gate.is_some())
    }

    /// Takes the memory that a kill writes to from the kernel. After each fork the keeper shares its memory with the child until
    /// that executes, and with the init of a PID namespace for as long as that lives, and the kernel copies a page at the first
    /// write.
    fn hold(&mut self) {
        // In a few calls all that was written before; then, page by page, what a kill writes to in any case.
        memory::hold_written();
        self.scanner.hold();
        self.machine.hold();
        memory::hold(&mut self.buffer);
        memory::hold_stack();
        self.is_memory_shared = false;
    }

    /// Hands an observation to the machine, and performs what follows from it.
    fn handle(&mut self, event: KeeperEvent) {
        self.machine.handle(clock::now(), event);
        while let Some(action) = self.machine.next_action() {
            if let Some(result) = self.perform(action) {
                self.machine.handle(clock::now(), result);
            }
        }
    }

    /// Sleeps until an event arrives. The kind of event does not matter: the loop checks every source.
    fn wait(&self, children: &SignalFd, alarm: &Alarm, remaining: ReapResult) {
        let child = || PollFd::new(children.as_fd(), PollFlags::POLLIN);
        let clock = PollFd::new(alarm.as_fd(), PollFlags::POLLIN);
        // A socket whose other end is gone is always ready, so it is left out then. An absent source is replaced by
        // another poll of the child descriptor.
        let room = if self.machine.next_message().is_some() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let socket = Some(PollFlags::POLLIN | room).filter(|_| self.machine.has_campaigner());
        let socket = socket.map_or_else(child, |events| PollFd::new(self.channel.socket().as_fd(), events));
        let exec = self.starting.as_ref();
        let exec = exec.map_or_else(child, |spawned| PollFd::new(spawned.status.as_fd(), PollFlags::POLLIN));
        let [leaf, check_leaf] = self.tier.events().map(|events| {
            let events = events.filter(|_| remaining == ReapResult::CgroupPopulated);
            events.map_or_else(child, |events| PollFd::new(events, PollFlags::POLLPRI))
        });
        let goes_on = remaining == ReapResult::MoreZombies || self.is_gate_closed();
        let longest = if goes_on { PollTimeout::ZERO } else { PollTimeout::NONE };
        let result = poll(&mut [child(), clock, socket, exec, leaf, check_leaf], longest);
        debug_assert!(matches!(result, Ok(_) | Err(Errno::EINTR)), "{result:?}");
        while let Ok(Some(_)) = children.read_signal() {}
        alarm.acknowledge();
    }

    // ---- children

    fn reap(&mut self) -> ReapResult {
        self.poll_exec();
        for _ in 0..EVENT_BATCH {
            match self.reap_next() {
                Reaped::Child { pid, status } => {
                    let end = match sys::decode(status) {
                        Ok(status) => ChildEnd::Exited(status),
                        Err(signal) => {
                            self.tier.note_death_by(signal);
                            ChildEnd::Killed(elect_core::Signal(signal))
                        }
                    };
                    self.handle(KeeperEvent::ChildEnded { pid, end });
                    // The process id may be reused from now on.
                    self.starting.take_if(|spawned| spawned.pid == pid);
                    self.check.take_if(|check| check.pid == pid);
                    self.inits.retain(|init| init.pid != pid);
                }
                Reaped::NoneEnded => return self.look_past_stuck_check(),
                Reaped::NoChildren => {
                    let is_cgroup_populated = self.machine.has_processes() && self.tier.is_populated();
                    self.handle(KeeperEvent::NoChildren { is_cgroup_populated });
                    if is_cgroup_populated {
                        return ReapResult::CgroupPopulated;
                    }
                    return ReapResult::ChildrenAlive;
                }
            }
        }
        ReapResult::MoreZombies
    }

    /// H5: finds that no descendant lives but a check that cannot be killed, if something waits for that.
    fn look_past_stuck_check(&mut self) -> ReapResult {
        if let Some(check) = self.machine.stuck_check(clock::now())
            && process_list::is_last_descendant(&mut self.scanner, self.own_pid, check)
        {
            let is_cgroup_populated = self.tier.is_command_populated();
            self.handle(KeeperEvent::OnlyCheckLeft { is_cgroup_populated });
            if is_cgroup_populated {
                return ReapResult::CgroupPopulated;
            }
        }
        ReapResult::ChildrenAlive
    }

    /// Reaps one ended child. The exec status of a main process is read before it is reaped: only then can the kernel
    /// still tell whether it ended before exec. The group of a check can be named until then.
    fn reap_next(&mut self) -> Reaped {
        if self.starting.is_none() && self.check.is_none() {
            return sys::reap(-1);
        }
        // A child that ends after this question is reaped in the next iteration: it may be the main process.
        let Some(pid) = sys::ended_child(None) else { return Reaped::NoneEnded };
        if self.starting.as_ref().is_some_and(|spawned| spawned.pid == pid) {
            self.poll_exec();
        }
        if let Some(check) = self.check.as_ref().filter(|check| check.pid == pid) {
            let not_executed = match check.exec_status() {
                ExecStatus::Failed(NotStarted::Failed(errno)) => Some(errno),
                // A check has no deadline that it could be too late for.
                ExecStatus::Failed(NotStarted::TooLate) | ExecStatus::Pending | ExecStatus::Succeeded => None,
            };
            self.handle(KeeperEvent::CheckEnds { not_executed });
        }
        sys::reap(pid)
    }

    fn poll_exec(&mut self) {
        let Some(spawned) = &self.starting else { return };
        let event = match spawned.exec_status() {
            ExecStatus::Pending => return,
            ExecStatus::Succeeded => KeeperEvent::Executed,
            ExecStatus::Failed(why) => KeeperEvent::NotExecuted(why),
        };
        self.starting = None;
        self.handle(event);
    }

    fn check_terminal(&mut self) {
        // Checked before exec too: a stop signal that arrived while signals were blocked stops the child there.
        if let Some(pid) = self.machine.process_at_terminal() {
            let stopped_by = sys::stop_signal_of(pid).map(elect_core::Signal);
            self.handle(KeeperEvent::TerminalChecked { stopped_by });
        }
    }

    // ---- the campaigner

    fn receive_messages(&mut self) -> Orders {
        for _ in 0..EVENT_BATCH {
            if !self.machine.has_campaigner() {
                return Orders::AllRead;
            }
            match self.channel.receive(&mut self.buffer) {
                Received::Message(Some(message)) => self.on_message(message),
                Received::Message(None) => {}
                Received::Incomplete => self.claim_is_incomplete = true,
                Received::Nothing => return Orders::AllRead,
                Received::End => self.handle(KeeperEvent::CampaignerGone),
            }
        }
        Orders::MoreMayWait
    }

    fn on_message(&mut self, message: ToKeeper) {
        let order = match message {
            ToKeeper::Claim(claim) => {
                self.claim = Some(claim);
                self.claim_is_incomplete = false;
                return;
            }
            ToKeeper::Arm { term, kill_by } => KeeperOrder::Arm { term, kill_by },
            ToKeeper::Start { program, run, identity } => {
                self.ordered_identity = identity;
                KeeperOrder::Start { program, run }
            }
            ToKeeper::BackgroundHook { background_hook, context, identity } => {
                self.ordered_identity = identity;
                KeeperOrder::StartBackgroundHook { background_hook, context }
            }
            ToKeeper::StartCheck { check, identity } => {
                self.ordered_identity = identity;
                KeeperOrder::StartCheck { check }
            }
            ToKeeper::Stop { kill_at } => KeeperOrder::Stop { kill_at },
            ToKeeper::Kill => KeeperOrder::Kill,
            ToKeeper::Forward { signal } => KeeperOrder::Forward(elect_core::Signal(signal)),
            ToKeeper::Ping => KeeperOrder::Ping,
            ToKeeper::Resume => KeeperOrder::Resume,
            ToKeeper::EndHold => KeeperOrder::EndHold,
            ToKeeper::Dismiss => KeeperOrder::Dismiss,
        };
        self.handle(KeeperEvent::Order(order));
    }

    /// Sends without waiting (K3): messages that find no room stay in the outbox.
    fn send(&mut self) {
        while let Some(message) = self.machine.next_message() {
            match self.channel.answer(message) {
                Ok(()) => self.handle(KeeperEvent::MessageSent),
                // The end of file follows.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.handle(KeeperEvent::ConnectionClosed);
                }
                // No room, or no memory: the message stays the next, because the campaigner waits for it.
                Err(_) => return,
            }
        }
    }
}
