//! The terminal: lent to the command, and taken back.
//!
//! The command has its own process group, so a terminal whose foreground group is elect's has to be handed over;
//! otherwise the command could not read from it and would never receive Ctrl-C. The shell that started elect does not
//! know that group: it looks at *home*, the group that elect was started in, gives the terminal to that group and takes
//! it away from it.
//!
//! ```text
//!          start, or a read (SIGTTIN) while home is in the foreground
//! home's ─────────────────────────────────────────────────────────────▶ the command's
//!   ▲  ▲             its end: the modes too, if a signal ended it            │   │
//!   │  └─────────────────────────────────────────────────────────────────────┘   │
//!   └───── Ctrl-Z: elect's job stops with it; fg continues home, and home the command
//! ```
//!
//! Two rules: the terminal is never taken from any group but home, and never taken back from any group outside the
//! command's tree. So a job in the background leaves it alone, and a shell that has it already keeps it.
//!
//! All of this is done by the keeper, which blocks every signal and so is not stopped for it (SIGTTOU), and, when the
//! keeper is dead, by the campaigner, which ignores SIGTTOU. Nothing here waits, and nothing here is needed for
//! killing.

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

/// The interval at which a waiting command's claim to the terminal is polled: a shell's `fg` sends no notification.
const FOREGROUND_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The terminal of elect's job, and its loan to the command.
#[derive(Debug)]
pub struct Terminal {
    job_pgrp: i32,
    /// Other processes of the job may need the terminal as well: it is lent only to a command that asks for it, by
    /// reading.
    shared: bool,
    loan: Option<TerminalLoan>,
    stop_state: StopState,
}

#[derive(Debug)]
struct TerminalLoan {
    tty: OwnedFd,
    /// The modes before the loan.
    modes: Option<Modes>,
    /// The command's modes when it was suspended.
    command_modes: Option<Modes>,
}

/// Whether the terminal has stopped the command, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    None,
    /// Suspended with the whole job, and continued with it.
    Suspended,
    /// Stopped for using the terminal in the background.
    Waits {
        poll_at: Time,
    },
}

impl Terminal {
    /// The terminal of this process's group. Must be called before the process leaves that group.
    pub fn of_this_job() -> Terminal {
        Terminal { job_pgrp: getpgrp().as_raw(), shared: is_pipeline(), loan: None, stop_state: StopState::None }
    }

    /// The process group that elect was started in (*home*).
    pub fn job_pgrp(&self) -> i32 {
        self.job_pgrp
    }

    /// Before a start: the descriptor for the command to [`take`], if it gets the terminal at once.
    pub fn lend(&mut self) -> Option<BorrowedFd<'_>> {
        if self.shared {
            return None;
        }
        self.borrow_from_job()?;
        self.loan.as_ref().map(|loan| loan.tty.as_fd())
    }

    /// Records the modes of the terminal, if home is in its foreground.
    fn borrow_from_job(&mut self) -> Option<&TerminalLoan> {
        // Zero: the group is not visible from this PID namespace, so the terminal could not be given back.
        let tty = open_terminal().filter(|tty| self.job_pgrp > 0 && foreground(tty.as_fd()) == Some(self.job_pgrp))?;
        let modes = Modes::of(tty.as_fd());
        let (before, command_modes) =
            self.loan.take().map_or((modes, None), |loan| (modes.or(loan.modes), loan.command_modes));
        Some(self.loan.insert(TerminalLoan { tty, modes: before, command_modes }))
    }

    /// Hands the terminal to a running command, with the modes the command had before, if it had the terminal before.
    fn hand_over(&mut self, group: i32) -> bool {
        let Some(loan) = self.borrow_from_job() else { return false };
        if let Some(modes) = &loan.command_modes {
            modes.set(loan.tty.as_fd());
        }
        set_foreground(loan.tty.as_fd(), group);
        true
    }

    /// Handles a stop of the main process, by the terminal or by hand. Returns the event to report.
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

    /// Continues the job: in the foreground with the terminal, in the background without.
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

    /// Hands the terminal to a waiting command if home is in the foreground by now.
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

    /// The next time for [`Terminal::poll_foreground`].
    pub fn foreground_poll_at(&self) -> Time {
        match self.stop_state {
            StopState::Waits { poll_at } => poll_at,
            StopState::None | StopState::Suspended => Time::NEVER,
        }
    }

    /// Takes the terminal back from the command, whose main process has ended; with the original modes if a signal
    /// ended it, because a signal leaves no time to clean up. Returns whether the command's tree had it. Descendants of
    /// `except` are not part of the tree.
    pub fn take_back(
        &mut self,
        group: i32,
        killed: bool,
        (root, except): (i32, &[i32]),
        scanner: &mut Scanner,
    ) -> bool {
        self.stop_state = StopState::None;
        // A process of the tree may have taken the terminal without a loan.
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

/// Makes the calling process's group the foreground group, unless home is no longer in the foreground. For the child
/// between fork and exec, with SIGTTOU blocked. The parent must not repeat it: it could take the terminal from a shell
/// that has already handed it on.
pub fn take(tty: BorrowedFd<'_>, job_pgrp: i32) {
    // Zero: a group that is not visible from here. Only home can be such a group, in a PID namespace below its own.
    if foreground(tty).is_some_and(|group| group == job_pgrp || group == 0) {
        set_foreground(tty, getpgrp().as_raw());
    }
}

/// Whether the foreground group belongs to the command: its group, the group of a descendant (a shell's job), or a
/// group whose last process is gone.
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

/// Continues a stopped command.
fn continue_group(group: i32) {
    let _ = sys::kill(-group, libc::SIGCONT);
}

/// Whether standard input, output or error is a pipe or a socket: then other processes of the job, such as a pager, may
/// need the terminal too.
fn is_pipeline() -> bool {
    (0..=2).any(|number| {
        // SAFETY: the descriptor is used only within this call; a number that is not open is an error.
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

/// A failure leaves the terminal unchanged: it is hung up, or the group is gone.
fn set_foreground(tty: BorrowedFd<'_>, group: i32) {
    // SAFETY: it takes two integers.
    unsafe { libc::tcsetpgrp(tty.as_raw_fd(), group) };
}

/// The terminal modes: echo, line editing, the key for SIGINT. The kernel's own structure, so that no mode is lost.
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

    /// Sets the modes at once, not after pending output, which a Ctrl-S may hold up forever.
    fn set(&self, tty: BorrowedFd<'_>) {
        // SAFETY: the structure came from tcgetattr and outlives the call.
        unsafe { libc::tcsetattr(tty.as_raw_fd(), libc::TCSANOW, &raw const self.0) };
    }
}
