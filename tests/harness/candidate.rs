//! One `elect run`, from the flags to the last line of its log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::journal::JournalEntry;
use super::processes::{self, MARK, ProcessInfo};
use super::timing_verdict::assert_in_time;
use super::{Sandbox, containment_support, eventually, until, wait};

/// The command that proves what runs when: `tests/harness/witness.rs`.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    words: Vec<String>,
}

impl Witness {
    /// Lives until SIGTERM.
    pub fn new() -> Witness {
        Witness::default()
    }

    /// With a grandchild that forked twice and has a session of its own.
    pub fn daemon(self) -> Witness {
        self.with("--daemon")
    }

    /// Ignores SIGTERM, and so does the grandchild.
    pub fn stubborn(self) -> Witness {
        self.with("--stubborn")
    }

    /// Closes every descriptor above 2 before anything else.
    pub fn closing(self) -> Witness {
        self.with("--close")
    }

    /// Writes to this file on and on: when the disk is frozen, it cannot be killed.
    pub fn writing_to(self, path: &Path) -> Witness {
        self.with(&format!("--write={}", path.display()))
    }

    /// Writes its term to a resource that compares terms, on and on.
    pub fn fenced_by(self, socket: &Path) -> Witness {
        self.with(&format!("--fenced={}", socket.display()))
    }

    /// The witness is the follower: it runs while another candidate leads.
    pub fn follower(self) -> Witness {
        self.with("--follower")
    }

    /// Ends with this status when it is asked to.
    pub fn exits_with(self, status: u8) -> Witness {
        self.with(&format!("--exit={status}"))
    }

    /// The command line of a hook that leaves a note of this name.
    pub fn notes(name: &str) -> String {
        Witness::new().with(&format!("--note={name}")).line()
    }

    /// As one line for a shell, which does not stay in between.
    pub fn line(&self) -> String {
        let words: Vec<String> = self.command().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        format!("exec {}", words.join(" "))
    }

    fn with(mut self, word: &str) -> Witness {
        self.words.push(word.to_owned());
        self
    }

    pub fn has_daemon(&self) -> bool {
        self.words.iter().any(|word| word == "--daemon")
    }

    pub fn command(&self) -> Vec<OsString> {
        let program = std::iter::once(example("witness").into_os_string());
        program.chain(self.words.iter().map(OsString::from)).collect()
    }
}

/// The program under test: the one that cargo built beside the tests, or the one that `ELECT_TEST_BINARY` names, so that a new
/// test can be run against an old build, on which it must fail.
pub fn elect() -> &'static Path {
    static BINARY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BINARY.get_or_init(|| {
        std::env::var_os("ELECT_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_elect").into(), PathBuf::from)
    })
}

/// Examples are built by a plain `cargo test`, beside the program.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_elect")).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples makes it", path.display());
    path
}

/// A command line in the making: `elect run` unless something else is said.
#[derive(Debug)]
pub struct ElectCmd {
    number: usize,
    mark: String,
    log: PathBuf,
    sandbox: PathBuf,
    boundary: Option<String>,
    store: Option<String>,
    flags: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    binary: PathBuf,
    subcommand: &'static str,
    command: Vec<OsString>,
    wrapper: Vec<OsString>,
    program: Option<Vec<OsString>>,
}

impl ElectCmd {
    /// Campaigns for `cron` in the place's own directory.
    pub fn new(sandbox: &Sandbox) -> ElectCmd {
        let number = sandbox.next();
        ElectCmd {
            number,
            mark: format!("{}{number};", sandbox.mark()),
            log: sandbox.log_of(number),
            sandbox: sandbox.path().to_owned(),
            boundary: Some("cron".to_owned()),
            store: Some(sandbox.store()),
            flags: Vec::new(),
            variables: Vec::new(),
            binary: elect().to_owned(),
            subcommand: "run",
            command: Vec::new(),
            wrapper: Vec::new(),
            program: None,
        }
    }

    pub fn boundary(mut self, boundary: impl Into<Option<&'static str>>) -> ElectCmd {
        self.boundary = boundary.into().map(str::to_owned);
        self
    }

    pub fn store(mut self, store: impl Into<Option<String>>) -> ElectCmd {
        self.store = store.into();
        self
    }

    pub fn flag(mut self, name: &str, value: &str) -> ElectCmd {
        self.flags.extend([name.into(), value.into()]);
        self
    }

    pub fn switch(mut self, name: &str) -> ElectCmd {
        self.flags.push(name.into());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> ElectCmd {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn command<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> ElectCmd {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    pub fn shell(self, script: &str) -> ElectCmd {
        self.command(["sh", "-c", script])
    }

    pub fn witness(self, witness: &Witness) -> ElectCmd {
        self.command(witness.command())
    }

    /// The wrapper that starts elect: `setpriv --reuid 65534`, `unshare --pid`.
    pub fn wrapped_by<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> ElectCmd {
        self.wrapper.extend(words.into_iter().map(Into::into));
        self
    }

    /// Another program in elect's stead, followed by the command.
    pub fn program<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> ElectCmd {
        self.program = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// A copy of elect, for somebody who cannot reach the one that was built.
    pub fn binary(mut self, path: &Path) -> ElectCmd {
        path.clone_into(&mut self.binary);
        self
    }

    /// Another subcommand with the flags of `run`.
    pub fn subcommand(mut self, subcommand: &'static str) -> ElectCmd {
        self.subcommand = subcommand;
        self
    }

    /// `status` instead of `run`, without other flags than the store.
    pub fn status(self, words: &[&str]) -> ElectCmd {
        self.query("status", words)
    }

    /// The same with `watch` or `wait`.
    pub fn query(mut self, subcommand: &'static str, words: &[&str]) -> ElectCmd {
        self.subcommand = subcommand;
        self.boundary = None;
        self.flags.extend(words.iter().map(OsString::from));
        self
    }

    /// The words of the command line.
    pub fn words(&self) -> Vec<OsString> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => [self.binary.clone().into(), self.subcommand.into()].into_iter().chain(self.own_words()).collect(),
        };
        self.wrapper.iter().cloned().chain(program).chain(self.command.iter().cloned()).collect()
    }

    fn own_words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        words.extend(self.boundary.iter().flat_map(|boundary| ["--boundary".into(), OsString::from(boundary)]));
        words.extend(self.store.iter().flat_map(|store| ["--store".into(), OsString::from(store)]));
        words.extend(self.flags.iter().cloned());
        if !self.command.is_empty() {
            words.push("--".into());
        }
        words
    }

    /// A command in the surroundings of this one, for whatever has to be started beside elect.
    pub fn process(&self) -> Command {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).env(MARK, &self.mark).env("WITNESS_PLACE", &self.sandbox);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ELECT_")) {
            command.env_remove(name);
        }
        // All tests of a kind in one tier: `ELECT_TIER=pidns cargo test --test main handover`.
        if let Some(tier) = std::env::var_os("ELECT_TIER") {
            command.env("ELECT_CONTAINMENT", tier);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start(self) -> CandidateProcess {
        let log = File::create(&self.log).expect("the place takes a log");
        let output = File::create(self.log.with_extension("out")).expect("the place takes an output");
        let child = self.process().stdout(output).stderr(log).spawn().expect("the program is there");
        CandidateProcess { child, number: self.number, log: self.log, mark: self.mark, status: None }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Ended {
        let mut candidate = self.start();
        let status = candidate.wait();
        Ended { status, stderr: candidate.log(), stdout: candidate.output() }
    }
}

/// Runs it, and again as long as it says that the store did not answer in time: on a busy machine one attempt may not be enough.
#[track_caller]
pub fn run_until_answered(elect: impl Fn() -> ElectCmd) -> Ended {
    eventually("an answer of the store", || {
        let ended = elect().run();
        let is_late = ended.status.code() == Some(69) && ended.stderr.contains("did not answer in time");
        (!is_late).then_some(ended)
    })
}

/// An `elect run` that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// That status, and on stderr one line that says all of this.
    #[track_caller]
    pub fn fails_with(&self, status: i32, said: &[&str]) {
        assert_eq!(self.status.code(), Some(status), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "one line: {self:?}");
        self.stderr_contains(said);
        assert!(self.stderr.starts_with("elect: ") || self.stderr.starts_with("elect["), "{self:?}");
    }

    #[track_caller]
    pub fn stderr_contains(&self, said: &[&str]) {
        for word in said {
            assert!(self.stderr.contains(word), "{word:?} is not in {:?}", self.stderr);
        }
    }
}

/// A running `elect run`. Whatever it started ends with this handle.
#[derive(Debug)]
pub struct CandidateProcess {
    child: Child,
    pub number: usize,
    log: PathBuf,
    mark: String,
    status: Option<ExitStatus>,
}

impl CandidateProcess {
    /// The campaigner.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    #[track_caller]
    pub fn keeper(&self) -> i32 {
        eventually("the keeper is there", || self.try_keeper())
    }

    /// None before it has begun, and after its end. It may be dead, and not yet reaped.
    pub fn try_keeper(&self) -> Option<i32> {
        processes::children(self.pid()).into_iter().find(|&pid| processes::name(pid).as_deref() == Some("keeper"))
    }

    pub fn signal(&self, signal: Signal) {
        assert_eq!(self.status, None, "it has ended, and its number may be another's");
        processes::signal(self.pid(), signal);
    }

    /// SIGKILL to campaigner and keeper, so that neither gets to do anything about the other's end. (The other way round the
    /// kernel would interfere: the death of its parent wakes a stopped process group.)
    #[track_caller]
    pub fn kill_with_keeper(&self) {
        let keeper = self.keeper();
        self.signal(Signal::SIGSTOP);
        until("the campaigner stands still", || processes::state(self.pid()) == Some('T'));
        processes::signal(keeper, Signal::SIGKILL);
        self.signal(Signal::SIGKILL);
    }

    /// Has its command unlock the lock that it inherited, for the next in line. The campaigner, which takes a lock that is free again,
    /// stands still until the next in line has it. Returns when the campaigner goes on.
    #[track_caller]
    pub fn loses_lock_to_next(&self, sandbox: &Sandbox) -> Duration {
        let before = sandbox.history();
        self.signal(Signal::SIGSTOP);
        until("the campaigner stands still", || processes::state(self.pid()) == Some('T'));
        processes::signal(before.latest().pid, Signal::SIGUSR1);
        sandbox.history_when("the command has unlocked", |history| history.unlocks.len() > before.unlocks.len());
        let lock = File::open(sandbox.lock_file()).expect("the lock file is there");
        until("the next in line has the lock", || {
            // It waits in the kernel, and is woken when this lock is given up.
            let is_free = lock.try_lock().is_ok();
            lock.unlock().expect("a lock on an open file");
            !is_free
        });
        let struck = wait::now();
        self.signal(Signal::SIGCONT);
        struck
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the candidate ends", || child.try_wait().expect("a child of ours"));
        self.status = Some(status);
        status
    }

    #[track_caller]
    pub fn ends_with(&mut self, status: i32) {
        assert_eq!(self.wait().code(), Some(status), "exit status");
    }

    #[track_caller]
    pub fn ends_by(&mut self, signal: Signal) {
        let status = self.wait();
        assert_eq!(status.signal(), Some(signal as i32), "ended by a signal: {status:?}");
    }

    #[track_caller]
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// For those that do not end when they are asked to.
    pub fn ends_killed(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log is there")
    }

    pub fn output(&self) -> String {
        fs::read_to_string(self.log.with_extension("out")).expect("the output is there")
    }

    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        until(&format!("{words:?} in the log of candidate {}", self.number), || self.log().contains(words));
    }

    /// It stands in the queue.
    #[track_caller]
    pub fn wait_until_waiting(&self) {
        self.wait_for_log("waiting: ");
    }

    /// It stands in the queue, or has ended meanwhile: then false.
    #[track_caller]
    pub fn waits_or_has_ended(&mut self) -> bool {
        until("the candidate waits, or ends", || self.log().contains("waiting: ") || self.has_ended());
        !self.has_ended()
    }

    /// Its descendants, without elect's own processes.
    pub fn tree(&self) -> Vec<ProcessInfo> {
        let own = |process: &ProcessInfo| matches!(process.name.as_str(), "elect" | "keeper" | "keeper-init");
        self.all().into_iter().filter(|process| !own(process)).collect()
    }

    /// Asks it to give up leadership, by its id: several candidates of one host may campaign for the boundary. Returns whether it led and
    /// did so. Its log needs `-v`.
    #[track_caller]
    pub fn resigns(&self, boundary: &str) -> bool {
        let log = self.log();
        let id = log.lines().filter_map(|line| line.split_once(" debug: candidate ")).find_map(|(_, rest)| {
            let (_, rest) = rest.split_once(" is ")?;
            rest.split(' ').next()
        });
        // It has not begun yet, or was killed before.
        let Some(id) = id else { return false };
        let words = ["resign", "--boundary", boundary, "--id", id, "--timeout", "5s"];
        let resigned = Command::new(elect()).args(words).output().expect("the program under test is there");
        resigned.status.success()
    }

    /// Fails as a limit on time does ([`assert_in_time`]) if this start of a command is not its own: on a busy machine it may have lost
    /// the lease since.
    #[track_caller]
    pub fn assert_leads(&self, led: &JournalEntry) {
        assert_in_time(self.tree().iter().any(|process| process.pid == led.pid), || {
            "the first of two candidates still leads".to_owned()
        });
    }

    /// Everybody with its mark.
    pub fn all(&self) -> Vec<ProcessInfo> {
        processes::marked(&self.mark)
    }
}

impl Drop for CandidateProcess {
    fn drop(&mut self) {
        processes::kill_marked(&self.mark);
        if self.status.is_none() {
            // The mark may have been lost on the way, by sudo and the like.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        containment_support::clear_away(self.pid());
    }
}
