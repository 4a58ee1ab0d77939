//! The flags as clap reads them: names, meanings and defaults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::health_flags::HealthFlags;
use super::runtime_dir_flag::RuntimeDirFlag;
use super::{OnChangeFlag, RestartLimit, SignalName};
use crate::duration::parse_duration;
use crate::host_port::HostPort;
#[cfg(feature = "listen")]
use crate::listen_address::ListenAddress;
use crate::log;
use crate::store::registry::REGISTRY;
use elect_keeper::Containment;

/// Flags of `elect run`.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// The election: one command runs per boundary
    ///
    /// A name of 1 to 80 bytes, case-sensitive, conventionally a path like billing/nightly.
    #[arg(short, long, value_name = "NAME", env = "ELECT_BOUNDARY")]
    pub boundary: Option<String>,

    /// The name for people [default: the hostname]
    #[arg(long, value_name = "NAME", env = "ELECT_NAME")]
    pub name: Option<String>,

    /// For followers [default: the hostname, no port]
    #[arg(long, value_name = "HOST[:PORT]", env = "ELECT_ADVERTISE")]
    pub advertise: Option<HostPort>,

    #[command(flatten)]
    pub store: StoreFlags,

    /// The lease time, which a lost host costs [default: 10s]
    #[arg(long, value_name = "DURATION", env = "ELECT_TTL", value_parser = parse_duration, help_heading = "Timing")]
    pub ttl: Option<Duration>,

    /// From one renewal to the next [default: ttl/5, at most 60s]
    #[arg(
        long, value_name = "DURATION", env = "ELECT_RENEW", value_parser = parse_duration, help_heading = "Timing",
        hide_short_help = true
    )]
    pub renew: Option<Duration>,

    /// How long one attempt at the store may take [default: ttl/10, at most 30s]
    #[arg(
        long, value_name = "DURATION", env = "ELECT_REQUEST_TIMEOUT", value_parser = parse_duration, help_heading = "Timing",
        hide_short_help = true
    )]
    pub request_timeout: Option<Duration>,

    /// From SIGTERM to SIGKILL when the lease runs out [default: ttl/5, at most 10s]
    #[arg(
        long, value_name = "DURATION", env = "ELECT_FENCE_GRACE", value_parser = parse_duration, help_heading = "Timing",
        hide_short_help = true
    )]
    pub fence_grace: Option<Duration>,

    /// The signal that asks the command to stop
    #[arg(long, value_name = "SIGNAL", env = "ELECT_STOP_SIGNAL", default_value = "TERM", help_heading = "Stopping")]
    pub stop_signal: SignalName,

    /// How long the command may take to end
    #[arg(
        long, value_name = "DURATION", env = "ELECT_STOP_TIMEOUT", default_value = "8s", value_parser = parse_duration,
        help_heading = "Stopping"
    )]
    pub stop_timeout: Duration,

    /// Which process gets the stop signal first: main, or its whole process group
    ///
    /// main: the main process, which knows its workers: they finish their work. Every other process of the command gets
    /// the signal too, once the main process has ended, or when a quarter of the time is left (at most 2s): a shell that
    /// waits for a child does not pass the signal on. group: the main process and the other members of its process group
    /// get it at once, as after Ctrl-C.
    #[arg(
        long,
        value_name = "WHICH",
        env = "ELECT_STOP_TO",
        default_value = "main",
        hide_possible_values = true,
        help_heading = "Stopping",
        hide_short_help = true
    )]
    pub stop_to: StopToFlag,

    /// By cgroup, pidns or tree
    ///
    /// How the command's processes are contained. Each tier finds every descendant and kills it at the end; tier tree does no more. cgroup adds a cgroup below
    /// elect's own (v2, Linux 5.14), in which one call kills every process that forks. pidns adds a PID namespace
    /// (root), which ends with elect even if all of elect is killed at once; /proc remains the host's and shows the
    /// host's process ids. auto takes cgroup if one can be made, otherwise tree. A tier that is named is mandatory: if
    /// it is not available, elect exits with 77 if a permission is missing, otherwise with 125. The first line of the
    /// log names the tier.
    #[arg(
        long,
        value_name = "TIER",
        env = "ELECT_CONTAINMENT",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Stopping"
    )]
    pub containment: ContainmentFlag,

    /// Start an ended command again, in the same term
    ///
    /// on-failure: after a status other than 0 or a signal. elect waits until every process that the command started is
    /// gone. A command that elect itself stopped, or that cannot be executed (126, 127), is not started again.
    #[arg(
        long,
        value_name = "WHEN",
        env = "ELECT_RESTART",
        default_value = "never",
        help_heading = "After the command"
    )]
    pub restart: RestartFlag,

    /// The delay before a restart: doubled each time, up to 30s
    ///
    /// Each delay is shortened at random by up to a quarter. After a run of 30s or more the first delay applies again.
    #[arg(
        long, value_name = "DURATION", env = "ELECT_RESTART_DELAY", default_value = "100ms", value_parser = parse_duration,
        help_heading = "After the command",
        hide_short_help = true
    )]
    pub restart_delay: Duration,

    /// How many restarts, within how long, before another candidate gets its turn
    ///
    /// Instead of one more restart, elect resigns and does not campaign for that long, or for a ttl if that is longer;
    /// twice as long each time in a row, up to 5m, until a run has lasted as long as the first of these pauses. With
    /// --on-lost exit (and so with -n and --wait) elect exits with the command's status instead.
    #[arg(
        long,
        value_name = "N/DURATION",
        env = "ELECT_RESTART_LIMIT",
        default_value = "5/1m",
        help_heading = "After the command",
        hide_short_help = true
    )]
    pub restart_limit: RestartLimit,

    /// Take over only after there was no leader for this long, as a spare
    ///
    /// It is meant for a spare site: the candidate leads only if no other one takes over in time. With -n it waits for
    /// as long. elect resign --to names it as the successor without delay.
    #[arg(
        long, value_name = "DURATION", env = "ELECT_TAKEOVER_DELAY", default_value = "0s", value_parser = parse_duration,
        help_heading = "Waiting", hide_short_help = true
    )]
    pub takeover_delay: Duration,

    /// Lead for at least this long
    ///
    /// The time counts from the command's start. It is meant for jobs that many hosts start at about the same time:
    /// with -n the first host runs the job, and the others find a leader however short the job was. A failed command is
    /// held for as well; a signal to elect ends the hold, and the exit status is the command's. If elect itself is
    /// killed meanwhile, its keeper holds a lock file to the end of the hold; a lease on a server runs out by itself.
    #[arg(
        long, value_name = "DURATION", env = "ELECT_MIN_HOLD", default_value = "0s", value_parser = parse_duration,
        help_heading = "After the command"
    )]
    pub min_hold: Duration,

    /// Do not wait: exit with 75 if another candidate leads
    ///
    /// elect also exits with 75 if no candidate leads but the boundary cannot be acquired yet, and with 69 if the store
    /// does not answer the first question. The same as --wait 0.
    #[arg(short, long, env = "ELECT_NO_WAIT", value_parser = boolean, num_args = 0..=1, require_equals = true,
        default_value = "0", default_missing_value = "1", hide_default_value = true, hide_possible_values = true,
        value_name = "1|0", help_heading = "Waiting")]
    pub no_wait: bool,

    /// Wait at most this long [default: no limit]
    ///
    /// After that elect exits as with --no-wait. The time counts from the first question to the store, which may take one attempt to answer; a boundary that is
    /// won at the last moment is still verified. At the end elect exits with 75 if the store's last answer was that the
    /// boundary cannot be acquired yet, and with 69 if the last attempt got no answer.
    #[arg(long, value_name = "DURATION", env = "ELECT_WAIT", value_parser = parse_duration, help_heading = "Waiting")]
    pub wait: Option<Duration>,

    /// The exit status instead of 75, if another candidate leads [default: 75]
    ///
    /// 0 is useful in cron: a host that is not elected then has nothing to report. Every other status stays as it is.
    #[arg(
        short = 'E',
        long,
        value_name = "STATUS",
        env = "ELECT_CONFLICT_EXIT_CODE",
        help_heading = "Waiting",
        hide_short_help = true
    )]
    pub conflict_exit_code: Option<u8>,

    /// After a lost leadership [default: recampaign; exit with -n or --wait]
    ///
    /// The command is stopped in any case. exit: exit with 76. recampaign: campaign again with the same limit as at
    /// first: the time of --wait starts again, and --no-wait asks once.
    #[arg(long, value_name = "WHAT", env = "ELECT_ON_LOST", help_heading = "Waiting")]
    pub on_lost: Option<OnLostFlag>,

    /// Pass the store's password on to the command, the follower and the hooks
    ///
    /// Without this flag they get neither `ELECT_PASSWORD` nor `ELECT_PASSWORD_FILE`, and in `ELECT_STORE` the URL of
    /// the store without the password and without options that are secret. With it, elect status, wait and run work in
    /// the command as they do outside. Variables that are not named `ELECT_…` are always passed on: a secret in one of
    /// them is visible to the command.
    #[arg(long, env = "ELECT_PASS_CREDENTIALS", value_parser = boolean, num_args = 0..=1, require_equals = true,
        default_value = "0", default_missing_value = "1", hide_default_value = true, hide_possible_values = true,
        value_name = "1|0", help_heading = "Store access", hide_short_help = true)]
    pub pass_credentials: bool,

    /// Label elect's own pod KEY=leader or KEY=follower
    ///
    /// With a store in the cluster of the pod: leader from the command's exec until elect begins to stop it. The selector of a Service
    /// can follow it. The pod is named by `POD_NAME` and `POD_NAMESPACE` (default: the store's namespace). A new leader takes the label off all
    /// other pods of the namespace, so that each election needs a key of its own. Nothing waits for the label, and a
    /// failure is a warning. It needs the rights get, list and patch on pods.
    #[arg(long, value_name = "KEY", env = "ELECT_POD_LABEL", help_heading = "Output", hide_short_help = true)]
    pub pod_label: Option<String>,

    /// Health checks, a status page and metrics over HTTP
    ///
    /// At :PORT (all addresses) or ADDRESS:PORT. Pages: /livez (the loops turn), /readyz (campaigning), /leader (200
    /// from the command's exec until elect begins to stop it, otherwise 503: for load balancers), /follower, /status
    /// (JSON), /metrics (Prometheus), and / for people: who leads, the candidates, the last 50 changes. The pages are read-only and need no password: bind them to an address that only
    /// trusted clients reach.
    #[cfg(feature = "listen")]
    #[arg(long, value_name = "ADDR", env = "ELECT_LISTEN", help_heading = "Output")]
    pub listen: Option<ListenAddress>,

    #[command(flatten)]
    pub following: FollowerFlags,

    #[command(flatten)]
    pub hooks: HookFlags,

    #[command(flatten)]
    pub health: HealthFlags,

    #[command(flatten)]
    pub log: LogFlags,

    #[command(flatten)]
    pub runtime: RuntimeDirFlag,

    /// The command to run while leading, and its arguments
    ///
    /// With --follower, --listen or a hook the command may be left out: elect then leads and runs only those.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The processes that get the stop signal first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StopToFlag {
    /// The main process
    Main,
    /// Its process group
    Group,
}

/// Which ends of the command are followed by another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartFlag {
    /// None: elect exits with its status
    Never,
    /// A status other than 0, or a signal
    OnFailure,
    /// Each
    Always,
}

/// The consequence of a lost leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnLostFlag {
    /// Campaign again
    Recampaign,
    /// Exit with 76
    Exit,
}

/// The program that runs while another candidate leads.
#[derive(Debug, Args)]
pub struct FollowerFlags {
    /// The command while another leads, by sh -c
    ///
    /// It starts as soon as a leader is known, whose details are in its environment (see below), and continues while no
    /// candidate leads. It is stopped like the command, with --stop-signal and --stop-timeout, and is gone before the
    /// command starts here. If it ends by itself, --restart decides whether it is started again (after 100ms or more,
    /// without a limit); otherwise the next leader starts it. It does not run while elect pauses (--restart-limit,
    /// --on-elected).
    #[arg(
        long, value_name = "CMD", env = "ELECT_FOLLOWER", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health"
    )]
    pub follower: Option<String>,

    /// At another leader: restart, a signal to its main process, or ignore [default: restart]
    ///
    /// The environment of a running process does not change: after a signal, the follower asks elect status --json for
    /// the leader. The signal goes to the main process, which is the shell unless CMD begins with exec.
    #[arg(
        long,
        value_name = "WHAT",
        env = "ELECT_FOLLOWER_ON_CHANGE",
        help_heading = "Following, hooks and health",
        hide_short_help = true
    )]
    pub follower_on_change: Option<OnChangeFlag>,
}

/// Programs that run at the beginning and the end of a leadership, and at changes and errors.
#[derive(Debug, Args)]
pub struct HookFlags {
    /// The hook before the command; it has to succeed
    ///
    /// All hooks run by sh -c. If this one fails or takes too long, elect resigns and does not campaign for a ttl (10s
    /// without one), twice as long each time in a row, up to 5m; with --on-lost exit (and so with -n and --wait) elect
    /// exits with 76. It runs once per leadership, not before each restart. Processes that it leaves are stopped before
    /// the command starts.
    #[arg(
        long, value_name = "CMD", env = "ELECT_ON_ELECTED", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health"
    )]
    pub on_elected: Option<String>,

    /// The hook after the command, before another may lead
    ///
    /// It also runs after a lost leadership, when another candidate may lead already, and if elect itself is killed:
    /// then its keeper runs it. It does not run if the keeper is killed. Its exit status makes no difference.
    #[arg(
        long, value_name = "CMD", env = "ELECT_ON_OUSTED", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health"
    )]
    pub on_ousted: Option<String>,

    /// The hook to run whenever the leader changes, to none and to this candidate too
    ///
    /// It has the environment of a follower, and while this candidate leads that of the command. One hook of this kind
    /// or of --on-error runs at a time, beside the command, and is stopped with it; events that happen meanwhile cause
    /// one more run. No hook is started while a program is being stopped, or while a boundary is held without a
    /// command.
    #[arg(
        long, value_name = "CMD", env = "ELECT_ON_CHANGE", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub on_change: Option<String>,

    /// The hook to run when the store fails: at the first error, and every 30s
    ///
    /// `ELECT_ERROR` holds the error.
    #[arg(
        long, value_name = "CMD", env = "ELECT_ON_ERROR", value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub on_error: Option<String>,

    /// How long a hook may take, before it is killed
    #[arg(
        long, value_name = "DURATION", env = "ELECT_HOOK_TIMEOUT", default_value = "5s", value_parser = parse_duration,
        help_heading = "Following, hooks and health", hide_short_help = true
    )]
    pub hook_timeout: Duration,
}

/// Where the election is held.
#[derive(Debug, Clone, Args)]
pub struct StoreFlags {
    /// Where the election is held
    #[arg(
        short = 's', long = "store", value_name = "URL", env = "ELECT_STORE", default_value = "file:",
        hide_env_values = true, long_help = store_help()
    )]
    pub url: String,

    /// The authority that must have signed the store's certificate, or that certificate (PEM) [default: this system's]
    #[arg(long, value_name = "FILE", env = "ELECT_TLS_CA", help_heading = "Store access", hide_short_help = true)]
    pub tls_ca: Option<PathBuf>,

    /// A certificate to show to the store (PEM)
    #[arg(long, value_name = "FILE", env = "ELECT_TLS_CERT", help_heading = "Store access", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,

    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "ELECT_TLS_KEY", help_heading = "Store access", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,

    /// Accept any certificate of the store: any host on the path can then read and forge everything
    ///
    /// A warning is logged at each start. Better: name the authority of the certificate with --tls-ca, or the
    /// certificate itself if it is self-signed; exactly that one is then accepted. Together with --tls-ca: exit status
    /// 2.
    #[arg(long, env = "ELECT_TLS_SKIP_VERIFY", value_parser = boolean, num_args = 0..=1, require_equals = true,
        default_value = "0", default_missing_value = "1", hide_default_value = true, hide_possible_values = true,
        value_name = "1|0", help_heading = "Store access", hide_short_help = true)]
    pub tls_skip_verify: bool,

    /// The user name at the store
    #[arg(
        long,
        value_name = "NAME",
        env = "ELECT_USERNAME",
        hide_env_values = true,
        help_heading = "Store access",
        hide_short_help = true
    )]
    pub username: Option<String>,

    /// A file that holds the user's password (or the variable `ELECT_PASSWORD` does: it is never an argument)
    #[arg(
        long,
        value_name = "FILE",
        env = "ELECT_PASSWORD_FILE",
        help_heading = "Store access",
        hide_short_help = true
    )]
    pub password_file: Option<PathBuf>,
}

/// The level and the format of the log.
#[derive(Debug, Args)]
pub struct LogFlags {
    /// Log only warnings and errors
    #[arg(short, long, env = "ELECT_QUIET", value_parser = boolean, num_args = 0..=1, require_equals = true,
        default_value = "0", default_missing_value = "1", hide_default_value = true, hide_possible_values = true,
        value_name = "1|0", help_heading = "Output")]
    pub quiet: bool,

    /// Log more; given twice: everything
    #[arg(short, long, action = ArgAction::Count, env = "ELECT_VERBOSE", help_heading = "Output")]
    pub verbose: u8,

    /// Log lines as text or json
    ///
    /// They go to stderr. The variable `ELECT_LOG` filters them: elect=debug.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "ELECT_LOG_FORMAT",
        default_value = "text",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub log_format: log::Format,
}

fn store_help() -> String {
    let kinds = REGISTRY.iter().map(|kind| format!("{}\n{}", kind.form, indented(kind.about))).collect::<Vec<_>>();
    format!("Where the election is held, one of:\n\n{}", kinds.join("\n"))
}

/// Lines of a width that leaves room for the margin of a help text in a terminal of 80 columns.
fn indented(text: &str) -> String {
    const WIDTH: usize = 64;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// `1` or `0`, as every boolean variable takes them.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err("say 1 or 0".to_owned()),
    }
}

/// `--containment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ContainmentFlag {
    /// cgroup if one can be made, otherwise tree
    Auto,
    /// A cgroup of its own below elect's (kernel 5.14), in which one call kills every process
    Cgroup,
    /// A PID namespace of its own (root): it ends with elect even if all of elect is killed at once
    Pidns,
    /// Every descendant is found and killed, as in each tier, and no more
    Tree,
}

impl From<ContainmentFlag> for Containment {
    fn from(flag: ContainmentFlag) -> Containment {
        match flag {
            ContainmentFlag::Auto => Containment::Auto,
            ContainmentFlag::Cgroup => Containment::Cgroup,
            ContainmentFlag::Pidns => Containment::Pidns,
            ContainmentFlag::Tree => Containment::Tree,
        }
    }
}
