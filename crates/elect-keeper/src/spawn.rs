//! Starts a main process from a [`CommandSpec`]: fork, the few steps of the child, exec.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, pipe2, setpgid};

use super::containment::SpawnPlace;
use super::namespace::Init;
use super::sys::{self, Exec, Forked, Inherited, Pointers};
use super::terminal::{self, Terminal};
use crate::clock;
use elect_core::{BackgroundHook, Hooks, KeeperPolicy, NotStarted, Program, StopTo, Time};

/// The command receives the lock of the file store at this descriptor or the next free one, or at the highest free one
/// that the limit allows (K9, 5.1).
const LOCK_FD_MIN: i32 = 100;

/// The variables that identify the candidate and the leader. Inherited values belong to another candidate and are never
/// passed on.
const IDENTITY_VARS: [&str; 13] = [
    "ELECT_BOUNDARY",
    "ELECT_INSIDE",
    "ELECT_ROLE",
    "ELECT_ID",
    "ELECT_NAME",
    "ELECT_TERM",
    "ELECT_SOCKET",
    "ELECT_LEADER_ID",
    "ELECT_LEADER_NAME",
    "ELECT_LEADER_HOST",
    "ELECT_LEADER_PORT",
    "ELECT_LEADER_ADDR",
    "ELECT_ERROR",
];

/// The environment variables that name the candidate, the term and the leader.
pub type IdentityVars = Vec<(OsString, OsString)>;

/// The shell that runs a follower's and a hook's command line.
const SHELL: &str = "/bin/sh";
/// The variables by which systemd addresses elect alone: a command that used them would send notifications in elect's name.
const SYSTEMD_VARS: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// The command to run while leading, and how to stop it. Fixed before the keeper is forked.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// The file to execute, resolved beforehand ([`find_command`](crate::find_command())).
    pub path: PathBuf,
    /// The arguments, the name first. An empty list means that there is no command.
    pub words: Vec<OsString>,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// The time between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// The processes that get the stop signal first.
    pub stop_to: StopTo,
    /// The time, from the command's first start in a term, for which the claim is kept even if only the keeper is left
    /// to keep it.
    pub min_hold: Duration,
    /// The follower, the hooks and the health check.
    pub scripts: HookScripts,
}

/// The scripts that run besides the leader command, each in a shell.
#[derive(Debug, Clone, Default)]
pub struct HookScripts {
    /// Runs while another candidate leads.
    pub follower: Option<OsString>,
    /// Runs before the leader command.
    pub on_elected: Option<OsString>,
    /// Runs after the leader command, and before the boundary is released.
    pub on_ousted: Option<OsString>,
    /// Runs when the leader changes.
    pub on_change: Option<OsString>,
    /// Runs when the store fails.
    pub on_error: Option<OsString>,
    /// The time-out of a hook.
    pub hook_timeout: Duration,
    /// Runs now and then, and decides whether the candidate is healthy.
    pub health: Option<HealthScript>,
}

/// The health check.
#[derive(Debug, Clone)]
pub struct HealthScript {
    /// The text for the shell.
    pub script: OsString,
    /// The time after which it is killed, counted from the fork.
    pub timeout: Duration,
}

/// A file to execute, with its arguments.
#[derive(Debug)]
pub struct Executable {
    path: PathBuf,
    words: Vec<OsString>,
    /// The leader command inherits elect's standard input; other programs read the end of file (K9).
    inherits_stdin: bool,
}

impl CommandSpec {
    /// The executable of a program; `None` if it is not configured.
    pub fn executable(&self, program: Program) -> Option<Executable> {
        let script = match program {
            Program::Command { .. } => {
                let given = || Executable { path: self.path.clone(), words: self.words.clone(), inherits_stdin: true };
                return (!self.words.is_empty()).then(given);
            }
            Program::OnElected { .. } => &self.scripts.on_elected,
            Program::OnOusted { .. } => &self.scripts.on_ousted,
            Program::Follower => &self.scripts.follower,
        };
        script.as_ref().map(Executable::script)
    }

    /// The executable of a background hook.
    pub fn background_hook(&self, background_hook: BackgroundHook) -> Option<Executable> {
        let script = match background_hook {
            BackgroundHook::OnChange => &self.scripts.on_change,
            BackgroundHook::OnError => &self.scripts.on_error,
        };
        script.as_ref().map(Executable::script)
    }

    /// The executable of the health check.
    pub fn health(&self) -> Option<Executable> {
        self.scripts.health.as_ref().map(|health| Executable::script(&health.script))
    }

    /// The part of it that the keeper's decisions depend on. Without a specification nothing can be started.
    pub fn policy(spec: Option<&CommandSpec>) -> KeeperPolicy {
        let scripts = spec.map(|spec| spec.scripts.clone()).unwrap_or_default();
        KeeperPolicy {
            stop_signal: elect_core::Signal(spec.map_or(libc::SIGTERM, |spec| spec.stop_signal)),
            stop_timeout: spec.map_or(Duration::ZERO, |spec| spec.stop_timeout),
            stop_to: spec.map_or(StopTo::Main, |spec| spec.stop_to),
            min_hold: spec.map_or(Duration::ZERO, |spec| spec.min_hold),
            // Without a specification the spawn itself fails.
            has_command: spec.is_none_or(|spec| !spec.words.is_empty()),
            has_follower: scripts.follower.is_some(),
            hooks: Hooks {
                on_elected: scripts.on_elected.is_some(),
                on_ousted: scripts.on_ousted.is_some(),
                on_change: scripts.on_change.is_some(),
                on_error: scripts.on_error.is_some(),
                timeout: scripts.hook_timeout,
            },
            health_timeout: scripts.health.map(|health| health.timeout),
        }
    }
}

impl Executable {
    fn script(script: &OsString) -> Executable {
        Executable { path: SHELL.into(), words: vec!["sh".into(), "-c".into(), script.clone()], inherits_stdin: false }
    }
}

/// A forked main process before the result of exec is known.
#[derive(Debug)]
pub struct Spawned {
    pub pid: i32,
    /// The read end of the status pipe: closed without data when exec succeeded; carries the errno otherwise.
    pub status: OwnedFd,
    /// The write end of the gate before exec, if the keeper may have waited while it forked: closed until [`Spawned::open_gate`]. To drop
    /// it is to give the start up.
    pub gate: Option<OwnedFd>,
    /// The init of its PID namespace (tier `pidns`).
    pub init: Option<Init>,
}

/// The exec status of a spawned process, read from its status pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStatus {
    Pending,
    Succeeded,
    Failed(NotStarted),
}

/// A value in the status pipe in place of an errno: the deadline had passed.
const TOO_LATE: i32 = -1;

/// Forks and executes in the given place; the deadline is checked immediately before exec (K5).
///
/// # Errors
///
/// Fork failed, or an argument contains a NUL byte.
pub fn spawn(
    place: SpawnPlace<'_>,
    executable: &Executable,
    identity: &[(OsString, OsString)],
    inherited: Inherited,
    lock: Option<&OwnedFd>,
    kill_by: Time,
    terminal: Option<&mut Terminal>,
) -> io::Result<Spawned> {
    let path = c_string(executable.path.as_os_str())?;
    let words = executable.words.iter().map(|word| c_string(word)).collect::<io::Result<Vec<_>>>()?;
    let shell_words = std::iter::once(c_string(OsStr::new("sh")))
        .chain([Ok(path.clone())])
        .chain(words.iter().skip(1).cloned().map(Ok))
        .collect::<io::Result<Vec<_>>>()?;
    let (arguments, shell_arguments) = (Pointers::new(words), Pointers::new(shell_words));
    let environment = Pointers::new(environment(identity)?);
    let exec = Exec {
        path: &path,
        arguments: &arguments,
        shell_arguments: &shell_arguments,
        environment: &environment,
        inherited,
        pass: lock.map(|lock| (lock.as_fd(), LOCK_FD_MIN)),
    };
    match place {
        SpawnPlace::BesideKeeper | SpawnPlace::Leaf { .. } => {
            fork_and_exec(&exec, (kill_by, executable.inherits_stdin), place, terminal)
        }
        SpawnPlace::NewNamespace(parent_ns) => {
            let (spawned, init) = parent_ns.with_child_namespace(inherited, || {
                fork_and_exec(&exec, (kill_by, executable.inherits_stdin), place, terminal)
            })?;
            Ok(Spawned { init: Some(init), ..spawned })
        }
    }
}

fn fork_and_exec(
    exec: &Exec<'_>,
    (kill_by, inherits_stdin): (Time, bool),
    place: SpawnPlace<'_>,
    terminal: Option<&mut Terminal>,
) -> io::Result<Spawned> {
    let (status, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // Without a free descriptor the process moves itself, which takes none.
    let gate = place.is_waited_for().then(|| pipe2(OFlag::O_CLOEXEC).ok()).flatten();
    let place = if gate.is_some() { place } else { place.without_waiting() };
    let keeper = getpid();
    let loan = terminal.and_then(|terminal| {
        let job_pgrp = terminal.job_pgrp();
        terminal.lend().map(|tty| (tty, job_pgrp))
    });
    // SAFETY: the keeper has one thread, so no lock is held by another; the child makes system calls until it ends or calls
    // exec.
    let (forked, is_in_place) = unsafe { place.fork()? };
    match forked {
        Forked::Parent(pid) => {
            // Parent and child both create the group, so that it exists for the one that runs first. After the child's
            // exec this call fails, harmlessly.
            let _ = setpgid(Pid::from_raw(pid), Pid::from_raw(pid));
            Ok(Spawned { pid, status, gate: gate.map(|(_, opener)| opener), init: None })
        }
        Forked::Child => {
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            // K8: the child dies with the keeper. A keeper that died before this line is detected below: the status
            // pipe has no other reader. `getppid` does not work across a PID namespace.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            drop(status);
            let gate = gate.map(|(gate, _)| gate);
            // A sibling that has not executed yet holds a copy of the read end, so the parent is checked too where it
            // is visible.
            let orphaned = !matches!(place, SpawnPlace::NewNamespace(_)) && getppid() != keeper;
            if orphaned || sys::is_abandoned(&report) {
                sys::exit_now(libc::EXIT_FAILURE);
            }
            if let Some((tty, job_pgrp)) = loan {
                terminal::take(tty, job_pgrp);
            }
            let ready = if inherits_stdin { Ok(()) } else { redirect_stdin_to_null().map_err(io::Error::from) };
            let errno = match ready.and_then(|()| if is_in_place { Ok(()) } else { place.enter() }) {
                // The keeper has died, or has given this start up.
                Ok(()) if gate.is_some_and(|gate| !is_opened(&gate)) => libc::ECANCELED,
                Ok(()) => sys::exec(exec, || clock::now() < kill_by).unwrap_or(TOO_LATE),
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            let _ = nix::unistd::write(&report, &errno.to_ne_bytes());
            sys::exit_now(127)
        }
    }
}

/// Waits until the keeper has read the orders that came during the fork. `false`: it will not open the gate any more.
fn is_opened(gate: &OwnedFd) -> bool {
    nix::unistd::read(gate, &mut [0]).is_ok_and(|length| length == 1)
}

/// K9: programs other than the leader command read the end of file.
fn redirect_stdin_to_null() -> nix::Result<()> {
    let nothing = nix::fcntl::open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    nix::unistd::dup2_stdin(nothing)
}

impl Spawned {
    /// Lets the process execute, if it waits for that. To be called when the orders that came during the fork have been read.
    pub fn open_gate(&mut self) {
        if let Some(gate) = self.gate.take() {
            let _ = nix::unistd::write(&gate, b".");
        }
    }

    /// Reads the exec status without waiting.
    pub fn exec_status(&self) -> ExecStatus {
        let mut errno = [0; 4];
        match nix::unistd::read(&self.status, &mut errno) {
            Ok(4) => ExecStatus::Failed(match i32::from_ne_bytes(errno) {
                TOO_LATE => NotStarted::TooLate,
                errno => NotStarted::Failed(errno),
            }),
            // The pipe is closed by exec, or by the death of a child that was killed before exec.
            Ok(_) if sys::is_forked_only(self.pid) => ExecStatus::Failed(NotStarted::Failed(libc::ECANCELED)),
            Ok(_) => ExecStatus::Succeeded,
            Err(_) => ExecStatus::Pending,
        }
    }
}

fn c_string(word: &OsStr) -> io::Result<CString> {
    CString::new(word.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The environment: elect's own, without another candidate's identity and without the variables for elect alone, plus
/// this program's identity.
fn environment(identity: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    let replaced = |name: &OsString| {
        IDENTITY_VARS.iter().chain(&SYSTEMD_VARS).any(|own| name == own) || identity.iter().any(|(own, _)| name == own)
    };
    std::env::vars_os()
        .filter(|(name, _)| !replaced(name))
        .chain(identity.iter().cloned())
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
        })
        .collect()
}
