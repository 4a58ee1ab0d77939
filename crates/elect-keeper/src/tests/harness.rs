//! The harness of the keeper's tests.
//!
//! The body of a test is the campaigner, in its own process ([`alone`]): forking copies descriptors, so in one process
//! the keeper of one test would hold the campaigner's end of another and never see it close. Separate processes also
//! keep the reaping and sweeping of one test away from the children of others.
//!
//! A named pipe ([`Witness`]) tells whether a command lives: every process of its tree inherits the writing end, so the
//! pipe reaches end of file when the last process ends.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

pub use super::availability::within;
use crate::clock;
use crate::sys::{self, Forked, Reaped};
use crate::{Claim, CommandSpec, Containment, Departure, HookScripts, Keeper, Received, ToKeeper};
use elect_core::{BackgroundHook, CommandEnd, FromKeeper, HookContext, Program, RunId, Signal, StopTo, Term, Time};

/// The time after which a waiting test fails.
const LIMIT: Duration = Duration::from_secs(60);
pub const TERM: Term = 7;

/// The descriptor of a test's notes. Set only in the process of the test's body.
static NOTES: AtomicI32 = AtomicI32::new(NOBODYS);
const NOBODYS: i32 = -1;
static WITNESS: AtomicI32 = AtomicI32::new(-1);

/// Held during the fork of a test's process, and while another thread starts a program: what that thread has locked, the
/// environment for example, would stay locked in the new process.
pub fn one_fork_at_a_time() -> MutexGuard<'static, ()> {
    static FORKING: Mutex<()> = Mutex::new(());
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the body of a test in its own process, with its own directory.
pub fn alone(body: impl FnOnce(&Path)) {
    let forking = one_fork_at_a_time();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut notes = tempfile::tempfile().expect("a temporary file");
    end_with_a_note_on_panic();
    // SAFETY: the child uses memory, files and processes, for all of which glibc's fork is made.
    let child = match unsafe { sys::fork() }.expect("forked") {
        Forked::Child => {
            drop(forking);
            NOTES.store(notes.as_raw_fd(), Ordering::Relaxed);
            body(directory.path());
            sys::exit_now(0)
        }
        Forked::Parent(pid) => pid,
    };
    drop(forking);
    let status = exit_of(child, 4 * LIMIT);
    let mut said = String::new();
    notes.rewind().expect("rewound");
    notes.read_to_string(&mut said).expect("text");
    print!("{said}");
    if status != Some(Ok(0)) {
        println!("how the process of the test ended: {status:?}");
        // Past the hook, for another thread may be about to fork.
        std::panic::resume_unwind(Box::new(said));
    }
}

/// Makes a panic end the process of a test, or its keeper. Must be called before that process is forked: a hook that is
/// running cannot be replaced, and it stays marked as running forever in a process that another thread forked
/// meanwhile.
fn end_with_a_note_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if NOTES.load(Ordering::Relaxed) == NOBODYS {
                return before(panic);
            }
            note(&format!("{panic}"));
            sys::exit_now(101);
        }));
    });
}

/// Prints a line of the test, visible with `--nocapture` or if the test fails.
pub fn note(text: &str) {
    // SAFETY: the descriptor is the parent's, open for the life of this process and not closed here.
    let notes = unsafe { BorrowedFd::borrow_raw(NOTES.load(Ordering::Relaxed)) };
    let _ = nix::unistd::write(notes, format!("{text}\n").as_bytes());
}

/// Waits for the end of a child; `None` if it took too long and was killed.
pub fn exit_of(pid: i32, limit: Duration) -> Option<Result<u8, i32>> {
    let give_up_at = clock::now() + limit;
    loop {
        match sys::reap(pid) {
            Reaped::Child { status, .. } => return Some(sys::decode(status)),
            Reaped::NoneEnded if clock::now() < give_up_at => pause(),
            Reaped::NoneEnded => {
                sys::kill(pid, libc::SIGKILL).expect("it can be killed");
                return None;
            }
            Reaped::NoChildren => panic!("{pid} is not our child"),
        }
    }
}

/// Waits until a condition holds.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let give_up_at = clock::now() + LIMIT;
    while !so() {
        assert!(clock::now() < give_up_at, "waited too long for {what}");
        pause();
    }
}

/// Sends a signal to an existing process.
pub fn signal(pid: i32, signal: i32) {
    sys::kill(pid, signal).expect("it is there");
}

fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn killed(signal: i32, escalated: bool) -> CommandEnd {
    CommandEnd::Killed { signal: Signal(signal), escalated }
}

/// A field of `/proc/<pid>/status`, or nothing.
pub fn status_of(pid: i32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":"));
    line.unwrap_or_default().trim().to_owned()
}

/// Whether a process has real-time priority, as a keeper has where permitted.
pub fn goes_first(pid: i32) -> bool {
    // SAFETY: it takes an integer.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, pid) == libc::c_long::from(libc::SCHED_RR) }
}

/// Keeps every processor busy until dropped. Must be created outside of [`alone`].
pub struct Load(Arc<AtomicBool>);

impl Load {
    pub fn on_every_processor() -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * processors {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Load(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ignores the stop signal, as does its grandchild in another session.
pub const STUBBORN: &str = "
    trap '' TERM
    (setsid sh -c 'echo grandchild >&9; sleep 100; :' &)
    echo main >&9
    sleep 100; :";

/// The main process ends as soon as its descendant runs; the descendant ignores the stop signal.
pub const LEAVES_ONE_BEHIND: &str = "
    trap '' TERM
    (setsid sh -c 'echo grandchild >&9; touch \"$WITNESS.up\"; sleep 100; :' &)
    until [ -e \"$WITNESS.up\" ]; do sleep 0.01; done
    exit 7";

pub const SLEEPER: &str = "echo main >&9; exec sleep 100";

/// Long enough for a command to start on any machine, short enough to wait for.
pub const SOON: Duration = Duration::from_secs(2);

/// The settings of a command, by default with a long stop time-out.
pub struct Setting {
    directory: PathBuf,
    pub program: CommandSpec,
    containment: Containment,
}

/// Settings for a shell script in which descriptor 9 is the witness.
pub fn script(directory: &Path, text: &str) -> Setting {
    let text = format!("exec 9>\"$WITNESS\" 2>/dev/null\n{text}\n");
    program(directory, "/bin/sh", &["sh", "-c", &text])
}

/// A line of a script that executes an ignored test of this crate, for steps that no shell can do.
pub fn itself(test: &str) -> String {
    let module = module_path!().split_once("::").and_then(|(_, path)| path.strip_suffix("::harness"));
    let module = module.expect("this module of this crate");
    let path = std::env::current_exe().expect("a path");
    format!("exec {} --exact {module}::{test} --ignored >/dev/null", path.display())
}

pub fn program(directory: &Path, path: impl Into<PathBuf>, words: &[&str]) -> Setting {
    let program = CommandSpec {
        min_hold: Duration::ZERO,
        path: path.into(),
        words: words.iter().map(OsString::from).collect(),
        stop_signal: libc::SIGTERM,
        // A test that waits for this time-out has failed.
        stop_timeout: 10 * LIMIT,
        stop_to: StopTo::Main,
        scripts: HookScripts::default(),
    };
    Setting { directory: directory.to_owned(), program, containment: Containment::Tree }
}

impl Setting {
    pub fn stop_to(mut self, stop_to: StopTo) -> Setting {
        self.program.stop_to = stop_to;
        self
    }

    pub fn stop_timeout(mut self, timeout: Duration) -> Setting {
        self.program.stop_timeout = timeout;
        self
    }

    pub fn min_hold(mut self, hold: Duration) -> Setting {
        self.program.min_hold = hold;
        self
    }

    /// Sets the tier; the default is the tree alone.
    pub fn contained(mut self, containment: Containment) -> Setting {
        self.containment = containment;
        self
    }

    /// Sets the follower and the hooks, each a shell script in which descriptor 9 is the witness.
    pub fn scripts(mut self, set: impl FnOnce(&mut HookScripts)) -> Setting {
        set(&mut self.program.scripts);
        let scripts = &mut self.program.scripts;
        let health = scripts.health.as_mut().map(|health| &mut health.script);
        for script in [&mut scripts.follower, &mut scripts.on_elected, &mut scripts.on_ousted]
            .into_iter()
            .chain([&mut scripts.on_change, &mut scripts.on_error])
            .flatten()
            .chain(health)
        {
            let mut text = OsString::from("exec 9>\"$WITNESS\" 2>/dev/null\n");
            text.push(&*script);
            *script = text;
        }
        if scripts.hook_timeout == Duration::ZERO {
            scripts.hook_timeout = 10 * LIMIT;
        }
        self
    }

    pub fn without_a_command(mut self) -> Setting {
        self.program.words = Vec::new();
        self
    }

    pub fn fork(self) -> KeeperFixture {
        let witness = Witness::new(&self.directory);
        self.fork_watched_by(witness)
    }

    pub fn fork_watched_by(self, witness: Witness) -> KeeperFixture {
        let keeper = Keeper::fork(Some(self.program), record_release, self.containment).expect("a keeper");
        KeeperFixture { keeper, witness, directory: self.directory, run: 0 }
    }
}

/// A keeper, and the witness of its command.
pub struct KeeperFixture {
    pub keeper: Keeper,
    pub witness: Witness,
    pub directory: PathBuf,
    run: RunId,
}

impl KeeperFixture {
    pub fn send(&self, message: &ToKeeper) {
        self.keeper.send(message).expect("sent");
    }

    /// Sends arbitrary bytes.
    pub fn send_raw(&self, bytes: &[u8]) {
        nix::sys::socket::send(self.keeper.as_raw_fd(), bytes, nix::sys::socket::MsgFlags::MSG_NOSIGNAL).expect("sent");
    }

    /// The next message of the keeper.
    pub fn answer(&self) -> FromKeeper {
        let give_up_at = clock::now() + LIMIT;
        loop {
            match self.keeper.receive() {
                // The number of reports depends on the machine.
                Received::Message(Some(
                    FromKeeper::Progress
                    | FromKeeper::AllKilled
                    | FromKeeper::LeftBehind { .. }
                    | FromKeeper::StopTimedOut { .. },
                )) => continue,
                Received::Message(Some(answer)) => return answer,
                Received::Message(None) | Received::Incomplete => panic!("the keeper said something unreadable"),
                Received::Nothing => assert!(clock::now() < give_up_at, "the keeper is silent"),
                Received::End => panic!("the keeper has gone"),
            }
            await_readable(self.keeper.as_raw_fd());
        }
    }

    pub fn hears(&self, expected: FromKeeper) {
        assert_eq!(self.answer(), expected);
    }

    /// Asserts that the keeper has sent no further message and has handled every message sent to it.
    pub fn hears_no_more(&self) {
        self.send(&ToKeeper::Ping);
        self.hears(FromKeeper::Pong);
    }

    pub fn arm(&self, term: Term, kill_by: Time) {
        self.send(&ToKeeper::Arm { term, kill_by });
        self.hears(FromKeeper::Armed { term, kill_by });
    }

    /// Arms a deadline this far from now.
    pub fn arm_for(&self, after: Duration) -> Time {
        let kill_by = clock::now() + after;
        self.arm(TERM, kill_by);
        kill_by
    }

    pub fn order_start(&mut self, term: Term, identity: &[(&str, &str)]) -> RunId {
        self.order(Program::Command { term }, identity)
    }

    /// Starts one of the programs, and waits until it runs. Returns its process id.
    pub fn start_program(&mut self, program: Program) -> i32 {
        let run = self.order(program, &[]);
        let answer = self.answer();
        let FromKeeper::Started { pid, .. } = answer else { panic!("not started: {answer:?}") };
        assert_eq!(answer, FromKeeper::Started { run, pid });
        pid
    }

    /// Orders a background hook beside the last run, even if that has ended, or without a run.
    pub fn order_background_hook(&self, background_hook: BackgroundHook) {
        let witness = (OsString::from("WITNESS"), self.witness.path.clone().into_os_string());
        let context = if self.run > 0 { HookContext::WithRun(self.run) } else { HookContext::Alone };
        self.send(&ToKeeper::BackgroundHook { background_hook, context, identity: vec![witness] });
    }

    pub fn order(&mut self, program: Program, identity: &[(&str, &str)]) -> RunId {
        self.run += 1;
        let witness = (OsString::from("WITNESS"), self.witness.path.clone().into_os_string());
        let identity = identity.iter().map(|&(name, value)| (name.into(), value.into())).chain([witness]).collect();
        self.send(&ToKeeper::Start { program, run: self.run, identity });
        self.run
    }

    /// Starts the command and waits until it runs. Returns its process id.
    pub fn start(&mut self) -> i32 {
        let run = self.order_start(TERM, &[]);
        let answer = self.answer();
        let FromKeeper::Started { pid, .. } = answer else { panic!("not started: {answer:?}") };
        assert_eq!(answer, FromKeeper::Started { run, pid });
        pid
    }

    /// Starts the command and waits until its tree has written these lines.
    pub fn start_until(&mut self, lines: &[&str]) -> i32 {
        let pid = self.start();
        self.witness.hears(lines);
        pid
    }

    /// Sends a claim; [`Orphan::releases`] reads the record of its release.
    pub fn claim(&self, name: &str) {
        self.claim_with(name, Vec::new());
    }

    pub fn claim_with(&self, name: &str, descriptors: Vec<OwnedFd>) {
        let payload = format!("{} {name}", releases(&self.directory).display()).into_bytes();
        self.send(&ToKeeper::Claim(Claim { payload, descriptors }));
    }

    pub fn exited(&self, end: CommandEnd) {
        self.hears(FromKeeper::Exited { run: self.run, end });
    }

    /// Asserts that the keeper reports an empty tree, and that the tree is empty.
    pub fn empty(&self) {
        self.hears(FromKeeper::Empty { run: self.run });
        assert!(self.witness.is_gone(), "reported empty, and somebody lives");
    }

    /// The number of the keeper's children.
    pub fn children(&self) -> usize {
        children_of(self.keeper.pid()).len()
    }

    /// The number of the keeper's grandchildren.
    pub fn grandchildren(&self) -> usize {
        children_of(self.keeper.pid()).into_iter().map(|pid| children_of(pid).len()).sum()
    }

    /// Creates the file that a command waits for.
    pub fn go(&self) {
        File::create(self.directory.join("witness.go")).expect("created");
    }

    /// Ends the campaigner: its descriptors close, without a message.
    pub fn bereave(self) -> Orphan {
        Orphan { pid: self.keeper.pid(), witness: self.witness, directory: self.directory }
    }
}

fn children_of(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A keeper without a campaigner.
pub struct Orphan {
    pub pid: i32,
    pub witness: Witness,
    pub directory: PathBuf,
}

impl Orphan {
    /// Asserts that the keeper exits normally with an empty tree. Returns the released claims, each with whether the
    /// tree was empty at that moment.
    pub fn releases(self) -> Vec<(String, bool)> {
        assert_eq!(exit_of(self.pid, LIMIT), Some(Ok(0)), "how the keeper ended");
        assert!(self.witness.is_gone(), "the keeper has ended, and somebody lives");
        let recorded = std::fs::read_to_string(releases(&self.directory)).unwrap_or_default();
        let read = |line: &str| {
            let (name, empty) = line.split_once(' ').expect("a name and a word");
            (name.to_owned(), empty == "true")
        };
        recorded.lines().map(read).collect()
    }

    /// Asserts that the claim was released once, after the end of the tree.
    pub fn releases_once(self, name: &str) {
        assert_eq!(self.releases(), [(name.to_owned(), true)]);
    }
}

fn releases(directory: &Path) -> PathBuf {
    directory.join("releases")
}

/// The release function of these keepers: appends a line to a file.
fn record_release(departure: Departure) {
    let Some(claim) = departure.claim else { return };
    let words = String::from_utf8(claim.payload).expect("text");
    let (path, name) = words.split_once(' ').expect("a path and a name");
    // SAFETY: opened before the keeper was forked, which copies it, and never closed.
    let witness = unsafe { BorrowedFd::borrow_raw(WITNESS.load(Ordering::Relaxed)) };
    let line = format!("{name} {}\n", is_over(witness, PollTimeout::ZERO));
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("opened");
    file.write_all(line.as_bytes()).expect("written");
}

/// The reading end of a pipe whose writing end every process of a command's tree holds.
pub struct Witness {
    path: PathBuf,
    pipe: File,
}

impl Witness {
    pub fn new(directory: &Path) -> Witness {
        let path = directory.join("witness");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("opened");
        // A pipe that has never had a writer reports no end of file.
        drop(OpenOptions::new().write(true).open(&path).expect("opened"));
        WITNESS.store(pipe.as_raw_fd(), Ordering::Relaxed);
        Witness { path, pipe }
    }

    /// Whether every process of the tree has ended.
    pub fn is_gone(&self) -> bool {
        is_over(self.pipe.as_fd(), PollTimeout::ZERO)
    }

    /// Waits for the end of the last process of the tree. Returns the time at which it was seen.
    pub fn gone(&self) -> Time {
        assert!(is_over(self.pipe.as_fd(), PollTimeout::from(60_000u16)), "somebody lives");
        clock::now()
    }

    /// Waits until the tree has written these lines, in any order, and no others.
    pub fn hears(&mut self, lines: &[&str]) {
        let mut missing: Vec<&str> = lines.to_vec();
        while !missing.is_empty() {
            let line = self.line();
            let known = missing.iter().position(|expected| *expected == line);
            missing.remove(known.unwrap_or_else(|| panic!("{line:?} was said, not {missing:?}")));
        }
    }

    /// The next line that a process of the tree writes.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        until("a word from the command", || {
            while matches!(self.pipe.read(&mut byte), Ok(1)) {
                if byte == *b"\n" {
                    return true;
                }
                line.extend(byte);
            }
            false
        });
        String::from_utf8(line).expect("text")
    }

    /// The next line, if it has been written: a process of the tree writes a line at once.
    pub fn line_at_hand(&mut self) -> Option<String> {
        let mut line = [0; 64];
        let mut length = 0;
        while matches!(self.pipe.read(&mut line[length..=length]), Ok(1)) && line[length] != b'\n' {
            length += 1;
        }
        (length > 0).then(|| String::from_utf8_lossy(&line[..length]).into_owned())
    }

    /// The next line; `None` if the last process of the tree has ended without one.
    pub fn line_or_end(&mut self) -> Option<String> {
        let mut line = None;
        until("a word from the command, or its end", || {
            let is_gone = self.is_gone();
            line = self.line_at_hand();
            line.is_some() || is_gone
        });
        line
    }

    /// The set of unread lines. Must be called after the end of the tree.
    pub fn rest(mut self) -> BTreeSet<String> {
        let mut text = String::new();
        self.pipe.read_to_string(&mut text).expect("text, up to the end");
        text.lines().map(str::to_owned).collect()
    }
}

fn is_over(pipe: BorrowedFd<'_>, within: PollTimeout) -> bool {
    let mut ready = [PollFd::new(pipe, PollFlags::empty())];
    poll(&mut ready, within).expect("polled");
    ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

pub fn await_readable(fd: i32) {
    // SAFETY: the caller's, open for as long as this takes.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(1_000u16)).expect("polled");
}

/// A pidfd, readable at the process's end; `None` if the process has ended and been reaped.
pub fn watch(pid: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor without another owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        i32::try_from(fd).ok().filter(|&fd| fd >= 0).map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// Waits for the end of a watched process.
pub fn ended(process: &OwnedFd) -> Time {
    let mut ready = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::from(60_000u16)), Ok(1), "it has not ended");
    clock::now()
}
