//! The terminal: lent to the command, and taken back.
//!
//! The command has a process group of its own, so a terminal that elect is in the foreground of has to be handed over, or the
//! command could not read from it and would never see a Ctrl-C. The shell that started elect knows nothing of that group: it
//! looks at *home*, the group that elect was started in, and gives the terminal to it and takes it away from it.
//!
//! ```text
//!          start, or a read (SIGTTIN) while home is in the foreground
//! home's ─────────────────────────────────────────────────────────────▶ the command's
//!   ▲  ▲             its end: the modes too, if a signal ended it            │   │
//!   │  └─────────────────────────────────────────────────────────────────────┘   │
//!   └───── Ctrl-Z: elect's job stops with it; fg continues home, and home the command
//! ```
//!
//! Two rules: the terminal is never taken from anybody but home, and never taken back from anybody but the command's tree. So
//! a job in the background leaves it alone, and a shell that has it already keeps it.
//!
//! All of this is done by the keeper, which has every signal blocked and so is not stopped for it (SIGTTOU), and, when the
//! keeper is dead, by the campaigner, which ignores that one. Nothing here waits, and nothing here is needed for killing.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Pid, getpgid, getpgrp};

use super::sys;
use super::tree::Scanner;
use crate::clock;
use elect_core::{Signal, TerminalEvent, Time};

/// How soon it is looked again whether a command that waits for the terminal may have it: a shell's `fg` tells nobody.
const FOREGROUND_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What elect's job has of its terminal, and what the command has.
#[derive(Debug)]
pub struct Terminal {
    job_pgrp: i32,
    /// Others of the job may need the terminal as well: it is lent to a command that asks for it, by reading.
    shared: bool,
    loan: Option<TerminalLoan>,
    stop_state: StopState,
}

#[derive(Debug)]
struct TerminalLoan {
    tty: OwnedFd,
    /// As they were before.
    modes: Option<Modes>,
    /// As the command had them when it was suspended.
    command_modes: Option<Modes>,
}

/// Whether the command stands still, as far as the terminal is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    None,
    /// With the whole job; continued with it.
    Suspended,
    /// It has asked for the terminal in the background.
    Waits {
        poll_at: Time,
    },
}

impl Terminal {
    /// The one of this process's group. To be called before that group is left.
    pub fn of_this_job() -> Terminal {
        Terminal { job_pgrp: getpgrp().as_raw(), shared: is_pipeline(), loan: None, stop_state: StopState::None }
    }

    /// The group that elect was started in.
    pub fn job_pgrp(&self) -> i32 {
        self.job_pgrp
    }

    /// Before a start: what the command is to [`take`], if it is to have the terminal at once.
    pub fn lend(&mut self) -> Option<BorrowedFd<'_>> {
        if self.shared {
            return None;
        }
        self.borrow_from_job()?;
        self.loan.as_ref().map(|loan| loan.tty.as_fd())
    }

    /// Remembers how the terminal is, if home is in its foreground.
    fn borrow_from_job(&mut self) -> Option<&TerminalLoan> {
        // Zero: not to be seen from this PID namespace, so it could not be given back.
        let tty = open_terminal().filter(|tty| self.job_pgrp > 0 && foreground(tty.as_fd()) == Some(self.job_pgrp))?;
        let modes = Modes::of(tty.as_fd());
        let (before, command_modes) =
            self.loan.take().map_or((modes, None), |loan| (modes.or(loan.modes), loan.command_modes));
        Some(self.loan.insert(TerminalLoan { tty, modes: before, command_modes }))
    }

    /// To a command that runs already; as it had left the terminal, if it had it before.
    fn hand_over(&mut self, group: i32) -> bool {
        let Some(loan) = self.borrow_from_job() else { return false };
        if let Some(modes) = &loan.command_modes {
            modes.set(loan.tty.as_fd());
        }
        set_foreground(loan.tty.as_fd(), group);
        true
    }

    /// The main process was stopped, by the terminal or by hand. Returns what is to be said about it.
    pub fn stopped(&mut self, group: i32, signal: i32, root: i32, scanner: &mut Scanner) -> Option<TerminalEvent> {
        if self.stop_state == StopState::Suspended {
            return None;
        }
        if let Some(loan) = &mut self.loan
            && belongs_to_command(loan.tty.as_fd(), group, (root, &[]), scanner)
        {
            loan.command_modes = Modes::of(loan.tty.as_fd());
            loan.give_back(self.job_pgrp, true);
            self.stop_state = StopState::Suspended;
            return Some(TerminalEvent::Suspended(Signal(signal)));
        }
        if signal == libc::SIGTTIN || signal == libc::SIGTTOU {
            if self.hand_over(group) {
                continue_group(group);
                return None;
            }
            self.stop_state = StopState::Waits { poll_at: clock::now() + FOREGROUND_POLL_INTERVAL };
        }
        Some(TerminalEvent::Stopped(Signal(signal)))
    }

    /// The job goes on: in the foreground with the terminal, in the background without.
    pub fn resume(&mut self, group: i32, may_read: bool) {
        let wants =
            may_read && (!self.shared || self.loan.is_some() || matches!(self.stop_state, StopState::Waits { .. }));
        let has = wants && self.hand_over(group);
        match self.stop_state {
            StopState::Suspended => {}
            StopState::Waits { .. } if has => {}
            StopState::None | StopState::Waits { .. } => return,
        }
        self.stop_state = StopState::None;
        continue_group(group);
    }

    /// Whether a command that waits for the terminal may have it by now.
    pub fn poll_foreground(&mut self, now: Time, group: i32) {
        match &mut self.stop_state {
            StopState::Waits { poll_at } if now >= *poll_at => *poll_at = now + FOREGROUND_POLL_INTERVAL,
            StopState::None | StopState::Suspended | StopState::Waits { .. } => return,
        }
        if self.hand_over(group) {
            self.stop_state = StopState::None;
            continue_group(group);
        }
    }

    /// When to [`Terminal::look_again`].
    pub fn foreground_poll_at(&self) -> Time {
        match self.stop_state {
            StopState::Waits { poll_at } => poll_at,
            StopState::None | StopState::Suspended => Time::NEVER,
        }
    }

    /// Takes the terminal back from the command, whose main process has ended; with the modes that it had before if a signal
    /// ended it, which leaves nobody time to clean up. Returns whether the command's tree had it.
    /// Descendants of `except` are not part of the tree.
    pub fn take_back(
        &mut self,
        group: i32,
        killed: bool,
        (root, except): (i32, &[i32]),
        scanner: &mut Scanner,
    ) -> bool {
        self.stop_state = StopState::None;
        // Whoever has taken it without being asked is in the tree as well.
        let unlent = || open_terminal().map(|tty| TerminalLoan { tty, modes: None, command_modes: None });
        let Some(loan) = self.loan.take().or_else(unlent) else { return false };
        let ours = self.job_pgrp > 0 && belongs_to_command(loan.tty.as_fd(), group, (root, except), scanner);
        if ours {
            loan.give_back(self.job_pgrp, killed);
        }
        ours
    }
}

impl TerminalLoan {
    fn give_back(&self, job_pgrp: i32, with_modes: bool) {
        if let Some(modes) = self.modes.as_ref().filter(|_| with_modes) {
            modes.set(self.tty.as_fd());
        }
        set_foreground(self.tty.as_fd(), job_pgrp);
    }
}

/// Makes the calling process's group the one in the foreground, unless home is that no longer. For the child between fork and
/// exec, with SIGTTOU blocked. Nobody else does it: done once more by the parent, it could take the terminal from a shell that
/// has handed it on already.
pub fn take(tty: BorrowedFd<'_>, job_pgrp: i32) {
    // Zero: a group that cannot be seen from here, which only home can be, in a PID namespace below its own.
    if foreground(tty).is_some_and(|group| group == job_pgrp || group == 0) {
        set_foreground(tty, getpgrp().as_raw());
    }
}

/// Whether what is in the foreground belongs to the command: its group, that of a descendant (a shell's job), or one whose
/// last process is gone.
fn belongs_to_command(tty: BorrowedFd<'_>, group: i32, (root, except): (i32, &[i32]), scanner: &mut Scanner) -> bool {
    match foreground(tty) {
        None | Some(..=0) => false,
        Some(front) => {
            let is_gone = || sys::kill(-front, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH));
            let is_in_front = |&pid: &i32| getpgid(Some(Pid::from_raw(pid))).is_ok_and(|of| of.as_raw() == front);
            front == group || is_gone() || scanner.descendants(root, except).iter().any(is_in_front)
        }
    }
}

/// A stopped command goes on.
fn continue_group(group: i32) {
    let _ = sys::kill(-group, libc::SIGCONT);
}

/// Whether one of the three is a pipe or a socket: then others of the job, a pager above all, may have as good a claim.
fn is_pipeline() -> bool {
    (0..=2).any(|number| {
        // SAFETY: only asked about, within this call; a number that is not open is an error.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fstat(fd).is_ok_and(|status| {
            let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
            kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK
        })
    })
}

/// The controlling terminal, if there is one.
fn open_terminal() -> Option<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    open(c"/dev/tty", flags, Mode::empty()).ok()
}

fn foreground(tty: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: it takes an integer.
    let group = unsafe { libc::tcgetpgrp(tty.as_raw_fd()) };
    (group >= 0).then_some(group)
}

/// Failing leaves the terminal as it is: it is hung up, or the group is gone.
fn set_foreground(tty: BorrowedFd<'_>, group: i32) {
    // SAFETY: it takes two integers.
    unsafe { libc::tcsetpgrp(tty.as_raw_fd(), group) };
}

/// Echo, line editing, what Ctrl-C is: all that a program can set. The kernel's own words, so that none is lost.
#[derive(Clone, Copy)]
struct Modes(libc::termios);

impl std::fmt::Debug for Modes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Modes")
    }
}

impl Modes {
    fn of(tty: BorrowedFd<'_>) -> Option<Modes> {
        let mut modes = MaybeUninit::uninit();
        // SAFETY: `modes` is a valid place for the answer, and read only if there is one.
        unsafe { (libc::tcgetattr(tty.as_raw_fd(), modes.as_mut_ptr()) == 0).then(|| Modes(modes.assume_init())) }
    }

    /// At once: not after what is still to be shown, which a Ctrl-S may hold up for ever.
    fn set(&self, tty: BorrowedFd<'_>) {
        // SAFETY: the structure came from tcgetattr and outlives the call.
        unsafe { libc::tcsetattr(tty.as_raw_fd(), libc::TCSANOW, &raw const self.0) };
    }
}
