//! The command line: its subcommands, with a file for each.

mod access;
mod change_tracker;
mod check;
mod command_credentials;
mod completions;
mod control_client;
mod find_candidate;
mod format;
#[cfg(test)]
mod generated_files;
mod help;
mod parser;
mod plan;
mod release_claim;
mod resign;
mod run;
mod status;
mod stdout;
mod store_query;
mod usage_error;
mod variables;
mod wait;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;

use help::{
    CHECK_ABOUT, CHECK_EXAMPLES, CHECK_EXITS, CONTROL_COMMANDS, DRAINING, EXAMPLES, STATUS_EXITS, VARIABLES,
    WAIT_EXAMPLES, WAIT_EXITS, WATCH_ABOUT, WATCH_EXAMPLES, WATCH_EXITS, run_help,
};

use crate::config::{RunFlags, RuntimeDirFlag, StoreFlags};
use crate::exit::Exit;
use crate::log;
use crate::setup::{self, SetupError};
use crate::store::StoreError;
#[cfg(feature = "network-store")]
use crate::store::resolver;
use crate::store::url::StoreUrl;
use crate::text::without_passwords;

/// Run a command on exactly one machine.
#[derive(Debug, Parser)]
#[command(name = "elect", version, max_term_width = 110, after_long_help = EXAMPLES, disable_help_subcommand = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Campaign for a boundary, and run a command while leading it
    #[command(after_help = VARIABLES, after_long_help = run_help())]
    Run(Box<RunFlags>),
    /// Say who leads
    #[command(after_help = STATUS_EXITS)]
    Status(StatusFlags),
    /// Exit with 0 only if the candidate that this command belongs to leads now
    #[command(after_long_help = CONTROL_COMMANDS)]
    Assert(find_candidate::ControlTarget),
    /// Have the candidate renew its lease now, and print what is left of it
    #[command(after_long_help = CONTROL_COMMANDS)]
    Extend(control_client::ExtendFlags),
    /// Have the leader on this host stop its command and campaign behind the others
    #[command(after_long_help = CONTROL_COMMANDS)]
    Resign(resign::ResignFlags),
    /// Have the candidate on this host stop its command and leave the election, until undrain
    #[command(after_long_help = format!("{DRAINING}\n\n{CONTROL_COMMANDS}"))]
    Drain(find_candidate::ControlTarget),
    /// Have a drained candidate campaign again
    #[command(after_long_help = format!("{DRAINING}\n\n{CONTROL_COMMANDS}"))]
    Undrain(find_candidate::ControlTarget),
    /// Change the name or address that the leader on this host is known by, in the same term
    #[command(after_long_help = CONTROL_COMMANDS)]
    Proclaim(control_client::ProclaimFlags),
    /// Show every change of leadership as it happens
    #[command(after_help = WATCH_EXITS, after_long_help = format!("{WATCH_ABOUT}\n\n{WATCH_EXITS}\n\n{WATCH_EXAMPLES}"))]
    Watch(WatchFlags),
    /// Wait until a candidate leads, or until none does
    #[command(after_help = WAIT_EXITS, after_long_help = format!("{WAIT_EXITS}\n\n{WAIT_EXAMPLES}"))]
    Wait(WaitFlags),
    /// Show the timings that follow from the flags of run
    #[command(after_help = VARIABLES)]
    Plan(Box<plan::PlanFlags>),
    /// Check whether the flags of run will work here: the store, the permissions, the time that it all takes
    #[command(after_help = CHECK_EXITS, after_long_help = format!("{CHECK_ABOUT}\n\n{CHECK_EXITS}\n\n{CHECK_EXAMPLES}"))]
    Check(Box<check::CheckFlags>),
    /// Print the completions of a shell, to install where the shell looks for them
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The shells that completions exist for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The boundary of a query, as an argument or as a flag.
#[derive(Debug, Args)]
struct QueryScope {
    /// The boundary [default: any of the store]
    #[arg(value_name = "BOUNDARY", id = "boundary_argument")]
    argument: Option<String>,

    /// The boundary, as a flag
    #[arg(short = 'b', long = "boundary", value_name = "NAME", id = "boundary", conflicts_with = "boundary_argument")]
    flag: Option<String>,
}

impl QueryScope {
    fn boundary(&self) -> Option<&str> {
        self.argument.as_deref().or(self.flag.as_deref())
    }
}

/// Flags of `elect status`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag by itself")]
struct StatusFlags {
    #[command(flatten)]
    scope: QueryScope,

    #[command(flatten)]
    store: StoreFlags,

    /// One JSON object per boundary
    ///
    /// `{"boundary", "store", "leader": {"id", "name", "host", "port", "address", "term", "since", "ttl_ms", "lease_left_ms",
    /// "etcd": {"key", "lease"}}, "candidates": [{"id", "name"}], "obstacle"}`; what is not known is null. With --self one
    /// array of `{"boundary", "store", "id", "name", "host", "port", "state", "is_leader", "running", "pid"}`; the state of a
    /// candidate that does not answer is silent.
    #[arg(long)]
    json: bool,

    /// The candidates on this host instead, asked over their control sockets
    #[arg(long = "self", conflicts_with_all = ["all", "watch"])]
    local: bool,

    /// Show boundaries that have been free for over 24h, too
    ///
    /// Without it, the last line of the list says how many there are. JSON always has all of them.
    #[arg(long)]
    all: bool,

    /// Show each change until stopped, on a terminal in place
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    runtime: RuntimeDirFlag,
}

/// Flags of `elect watch`.
#[derive(Debug, Args)]
struct WatchFlags {
    #[command(flatten)]
    scope: QueryScope,

    #[command(flatten)]
    store: StoreFlags,

    /// One JSON object per change
    ///
    /// {"at", "event", "boundary", "leader": {…}|null, "error", "skipped", "obstacle"}; event is one of leader, none, error
    /// and, as the last one, done. skipped is true if terms came and went unseen since the line before, null if the
    /// store cannot tell. leader is the same object as that of status --json.
    #[arg(long)]
    json: bool,
}

/// Flags of `elect wait`.
#[derive(Debug, Args)]
struct WaitFlags {
    #[command(flatten)]
    scope: QueryScope,

    /// The condition: leader, none, name=NAME or id=ID
    #[arg(long = "for", value_name = "WHAT", default_value = "leader")]
    until: wait::WaitCondition,

    /// The longest time to wait; 0: look once [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = crate::duration::parse_duration)]
    timeout: Option<Duration>,

    #[command(flatten)]
    store: StoreFlags,

    /// The answer as a JSON object, like that of status
    #[arg(long)]
    json: bool,
}

/// The command line, with the variables left out of its help: their names follow from the flags'.
fn command() -> clap::Command {
    let command = Cli::command().mut_subcommand("run", |run| {
        let further = help::further_flags(&run);
        run.after_help(further)
    });
    command.mut_subcommands(variables::with_variables)
}

/// The whole program: reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(descriptor) = release_claim::claim_descriptor() {
        return release_claim::release_claim(descriptor);
    }
    let parsed = parser::parse();
    // The log of run reports them itself.
    if let Ok(Cli { command }) = &parsed
        && !matches!(command, Command::Run(_))
    {
        for warning in variables::unknown_variables().iter().filter_map(variables::UnknownVariable::warning) {
            complain(&format!("warning: {warning}"));
        }
    }
    match parsed {
        Ok(Cli { command: Command::Run(flags) }) => run::run(*flags),
        Ok(Cli { command: Command::Status(flags) }) => status::status(&flags),
        Ok(Cli { command: Command::Assert(target) }) => control_client::assert(&target),
        Ok(Cli { command: Command::Extend(flags) }) => control_client::extend(&flags),
        Ok(Cli { command: Command::Resign(flags) }) => resign::resign(&flags),
        Ok(Cli { command: Command::Drain(target) }) => control_client::drain(&target),
        Ok(Cli { command: Command::Undrain(target) }) => control_client::undrain(&target),
        Ok(Cli { command: Command::Proclaim(flags) }) => control_client::proclaim(&flags),
        Ok(Cli { command: Command::Watch(flags) }) => watch::watch(&flags),
        Ok(Cli { command: Command::Wait(flags) }) => wait::wait(&flags),
        Ok(Cli { command: Command::Plan(flags) }) => plan::plan(&flags),
        Ok(Cli { command: Command::Check(flags) }) => check::check(*flags),
        Ok(Cli { command: Command::Completions { shell } }) => completions::print(shell),
        Err(status) => status,
    }
}

/// One line that says what is wrong, and the status that goes with it.
fn fail(exit: Exit, message: &str) -> ExitCode {
    let mut message = variables::with_variables_named(message);
    if message.contains("--password-file") {
        message += command_credentials::hint();
    }
    complain(&if exit == Exit::Usage { variables::with_warnings(message) } else { message });
    exit.into()
}

/// One line on stderr. Every text that is not a log line and not an answer gets there through this function, which
/// escapes it and limits its length: servers, files and users may have put anything into it.
fn complain(message: &str) {
    let line = log::error_line(usage_error::format(), &without_passwords(message));
    // Into a closed pipe, a full disk or a file that may not grow: the exit status says it too.
    elect_keeper::ignore_file_size_signal();
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The exit status of a store error that ends a command.
fn exit_for(error: &StoreError) -> Exit {
    match error {
        StoreError::Misused(_) => Exit::Usage,
        StoreError::Refused(_) => Exit::Refused,
        StoreError::Unavailable(_) | StoreError::Connecting(_) | StoreError::Obstacle(_) => Exit::Unavailable,
    }
}

/// Descriptors for the runtime, for signals, and for connections that ask a store once.
const DESCRIPTORS_FOR_QUERY: usize = 16;

/// One thread, for whatever talks to a store, and the few that look up names.
///
/// # Errors
///
/// The kernel gives no descriptors.
fn runtime(descriptors_needed: usize) -> Result<Runtime, SetupError> {
    setup::demand_descriptors(descriptors_needed)?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io().enable_time();
    #[cfg(feature = "network-store")]
    builder.max_blocking_threads(resolver::THREADS_MAX).thread_keep_alive(resolver::THREAD_KEEP_ALIVE);
    builder.build().map_err(SetupError::Runtime)
}

/// Makes what a store needs that is asked over a network.
///
/// # Errors
///
/// The kernel gives no thread.
async fn prepare(store: &StoreUrl<'_>) -> Result<(), SetupError> {
    #[cfg(feature = "network-store")]
    if store.is_remote() {
        resolver::prepare().await.map_err(|error| SetupError::Thread { error })?;
    }
    if !store.is_remote() {
        // The file store resolves its path in a thread. This checks first that the kernel gives one.
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| ());
        let why = |error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("no thread can be made to watch a path ({error})"))
        };
        drop(thread.map_err(|error| SetupError::Thread { error: why(error) })?.join());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_is_one_screen() {
        let mut command = command().term_width(80);
        command.build();
        let run = command.find_subcommand_mut("run").expect("there is one");
        let help = run.render_help().to_string();
        let lines = help.lines().count();
        assert!(lines <= 56, "{lines} lines:\n{help}");
        for flag in ["--tls-ca", "--tls-key", "--username", "--password-file", "--renew"] {
            assert!(help.contains(flag), "{flag} is not in {help}");
        }
    }

    #[test]
    fn no_line_of_help_is_longer_than_eighty_columns() {
        let mut command = command().term_width(80).disable_help_subcommand(true);
        command.build();
        let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let mut helps = vec![command.render_help(), command.render_long_help()];
        for name in names {
            let of = command.find_subcommand_mut(&name).expect("there is one");
            helps.extend([of.render_help(), of.render_long_help()]);
        }
        for help in helps.iter().map(ToString::to_string) {
            for line in help.lines() {
                // A word that cannot be broken, such as an address, may be longer.
                let words = line.split_whitespace().count();
                assert!(line.chars().count() <= 80 || words == 1, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn dashes_are_optional_where_nothing_is_ambiguous() {
        for line in
            [&["elect", "run", "-b", "x", "--", "job", "--flag"][..], &["elect", "run", "-b", "x", "job", "--flag"]]
        {
            let Command::Run(flags) = Cli::try_parse_from(line).expect("parsed").command else { panic!("not run") };
            assert_eq!(flags.command, ["job", "--flag"]);
        }
    }
}
