//! A kill before there is anything to kill, so that no page of its code or memory is missing when it counts (K3).
//!
//! It goes the way of every kill: a deadline passes and an order comes, the tree is walked and killed, its process is reaped,
//! the campaigner is told. The tree is one child that does nothing; machine and connection are not the keeper's own, so that
//! nothing of it is left. Each page that it has used is locked from then on, if the limit allows it ([`memory::lock`]).

use std::io;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid, getppid, pause, setpgid};

use super::KeeperLoop;
use crate::clock::{self, Alarm};
use crate::memory;
use crate::protocol::{Channel, ToKeeper};
use crate::spawn::CommandSpec;
use crate::sys::{self, Forked};
use elect_core::{Hooks, KeeperAction, KeeperEvent, KeeperMachine, KeeperOrder, KeeperPolicy, Program, Term, Time};

/// Of no process: more than a kernel gives.
const NO_PID: i32 = i32::MAX;
const TERM: Term = 1;
/// The time from the start of the tree to its deadline.
const LEASE: Duration = Duration::from_millis(1);
/// A child that has not ended by then is left to the keeper as any other one.
const TIME_MAX: Duration = Duration::from_secs(1);

impl KeeperLoop {
    /// Must be called before any order has been read.
    ///
    /// # Errors
    ///
    /// The kernel refuses a socket.
    pub(super) fn rehearse(&mut self, children: &SignalFd, alarm: &Alarm, buffer: &mut [u8]) -> nix::Result<()> {
        self.scanner.hold();
        memory::hold(buffer);
        let (campaigner, channel) = Channel::pair()?;
        // A hook is under the deadline as the command is, and has nothing to do with the terminal.
        let policy = CommandSpec::policy(self.spec.as_ref());
        let policy = KeeperPolicy { hooks: Hooks { on_elected: true, ..policy.hooks }, ..policy };
        let machine = std::mem::replace(&mut self.machine, KeeperMachine::new(policy));
        let channel = std::mem::replace(&mut self.channel, channel);
        // Without a process for it the tree is empty.
        let main = fork_idle_child().unwrap_or(NO_PID);
        let _ = self.perform(KeeperAction::ListDescendants { except: [None, None] });
        self.kill_at_deadline(main, &campaigner, (children, alarm), buffer);
        // The ways that a kill takes only in some cases, and the one of the campaigner, which shares the code.
        let _ = sys::ended_child(None);
        let _ = self.perform(KeeperAction::KillTree { main: Some(NO_PID), lists: true });
        self.tier.kill_leaves();
        let _ = self.tier.kill_slice(&mut self.scanner, self.own_pid, &[]);
        (self.machine, self.channel) = (machine, channel);
        sys::schedule_first();
        Ok(())
    }

    /// Rounds as every other one, until the tree of this main process is empty.
    fn kill_at_deadline(
        &mut self,
        main: i32,
        campaigner: &Channel,
        (children, alarm): (&SignalFd, &Alarm),
        buffer: &mut [u8],
    ) {
        let now = clock::now();
        let (kill_by, give_up_at) = (now + LEASE, now + TIME_MAX);
        let program = Program::OnElected { term: TERM };
        for event in [
            KeeperEvent::Order(KeeperOrder::Arm { term: TERM, kill_by }),
            KeeperEvent::Order(KeeperOrder::Start { program, run: 1 }),
            KeeperEvent::Spawned { pid: main, init: None },
            KeeperEvent::Executed,
        ] {
            self.machine.handle(now, event);
            // The start is no part of it, and has happened.
            while self.machine.next_action().is_some() {}
        }
        while self.machine.has_processes() && clock::now() < give_up_at {
            if clock::now() >= kill_by {
                let _ = campaigner.send(&ToKeeper::Kill);
            }
            let remaining = self.round(buffer);
            alarm.set(self.machine.wake_at(Time::NEVER).min(give_up_at));
            if self.machine.has_processes() {
                self.wait(children, alarm, remaining);
            }
        }
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
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            while getppid() == keeper {
                pause();
            }
            sys::exit_now(libc::EXIT_SUCCESS)
        }
    }
}
