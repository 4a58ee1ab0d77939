//! The texts of `--help` beyond the flags: environment, signals, exit statuses and examples.

use clap::Command;

use crate::exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  elect run --boundary cron -- ./job.sh
      Run job.sh on this host if nobody else on it does; wait if somebody does.
  elect run -b nightly --stop-timeout 1m -- /usr/bin/backup --all
      Give the backup a minute to end when it is asked to.
  elect status
      Show the leader of every boundary of the store.
  elect watch nightly
      Every change of leadership, as it happens.
";

pub(super) const VARIABLES: &str = "Each flag can be set by a variable as well: --stop-timeout by ELECT_STOP_TIMEOUT.";

/// Each paragraph one line: it is broken where the terminal ends.
pub(super) const ENVIRONMENT: &str = "\
The command finds in its environment: ELECT_BOUNDARY, ELECT_ROLE (leader), ELECT_ID, ELECT_NAME, ELECT_TERM (the fencing \
token: larger than that of every earlier leader), and ELECT_LEADER_ID, ELECT_LEADER_NAME, ELECT_LEADER_HOST, \
ELECT_LEADER_PORT, ELECT_LEADER_ADDR. ELECT_STORE names the store, without its password unless --pass-credentials is given. \
The settings of access that were given as flags are variables there, and ELECT_INHERITED names them: an elect inside whose \
command line names another store ignores those. \
ELECT_SOCKET is where assert, extend, resign, drain and proclaim find its candidate, and \
ELECT_RUNTIME_DIR the directory that --runtime-dir names. Inside \
the command of another boundary there is ELECT_INSIDE, too: the boundaries around this one, one per line, the outermost \
first; none of them can be campaigned for inside, in whichever store. A follower finds the same, with ELECT_ROLE=follower and its leader's details, but for \
the term, which only a leader has. Hooks find what the command does, or a follower would, and ELECT_REASON: elected; for --on-ousted stopped, resigned, drained, unhealthy, \
command-ended, cannot-start, restart-limit, on-elected-failed, lease-expired, lost, keeper-died or campaigner-died; for \
--on-change elected, another-leads or no-leader; for --on-error store-error. A health check has ELECT_ROLE (candidate or \
leader) and, while this candidate leads, ELECT_TERM. All of these read /dev/null.
";

pub(super) const SIGNALS: &str = "\
Signals: TERM, INT and QUIT stop what runs and give the boundary back; a second one kills at once. HUP, USR1, USR2 and \
WINCH, and without a terminal TSTP, TTIN, TTOU and CONT, are passed on to the main process of the command, or of the \
follower. In a terminal HUP stops elect while neither runs, unless it was ignored at the start (nohup).

In a terminal the command has the terminal: Ctrl-C is for the command alone, and if it ends the command, elect ends as well. \
Ctrl-Z suspends both: with a lock file the leader goes on to lead, a lease on a server runs out; fg and bg go on. In a \
pipeline the terminal stays with the others until the command reads from it.

Exit status: the command's own. If a signal ended the command, the same signal ends elect (as PID 1 it exits with 128 and the \
signal's number); if elect was stopped while no command ran, the signal that stopped it does. And otherwise
";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  elect run --boundary cron -- ./job.sh
  elect run -b billing/nightly --advertise 10.0.0.5:8080 -- ./serve
  elect run -b cron --stop-signal INT --stop-timeout 30s -- ./job.sh
  elect run -q -n -b backup -- ./backup.sh       # silent, and 75, if it runs
  elect run -b deploy --wait 10m -- ./deploy.sh  # turns, for 10 minutes at most
  elect run -b db --follower './replicate' -- ./primary
  elect run -b web --on-elected './announce up' \\
                   --on-ousted './announce down' -- ./serve
  ELECT_STORE=always: elect run -b cron -- ./job.sh  # no election
";

/// The flags that the short help leaves out, by name.
pub(super) fn further_flags(command: &Command) -> String {
    let hidden = command.get_arguments().filter(|flag| flag.is_hide_short_help_set() && !flag.is_hide_set());
    let names = hidden.filter_map(|flag| flag.get_long().map(|long| format!("--{long}")));
    let all = names.collect::<Vec<_>>().join(", ");
    format!("Further flags, which --help explains: {all}. {VARIABLES}")
}

pub(super) fn run_help() -> String {
    [&format!("{VARIABLES}\n"), ENVIRONMENT, &format!("{SIGNALS}{}", exit::table()), RUN_EXAMPLES].join("\n")
}

pub(super) const CONTROL_COMMANDS: &str = "\
The request goes over the candidate's control socket: that of ELECT_SOCKET inside a command of elect's, otherwise the one \
on this host that campaigns for the boundary. The candidate's user and root may use it. A command that changes its user \
needs --runtime-dir DIR for elect run, where a group of both users may write to DIR.

Exit status: 0 yes; 3 the answer is no, and why; 69 there is no such candidate, or it ended without an answer; 75 it did \
not answer in time; 77 it belongs to another user; 2 the command line makes no sense.

Examples:
  elect assert && mv new.db current.db     # in a command: only while it leads
  elect extend && ./commit.sh              # a fresh lease before the last step
  elect resign -b cron && elect wait cron  # the next leader; this one if no other waits
  elect proclaim -b web --advertise 10.0.0.6:8080
";

pub(super) const DRAINING: &str = "\
A drained candidate does not campaign, and may go on to follow. drain returns once nothing of its command is left and the \
boundary is released; if the store does not confirm the release, once its lease has run out; during --min-hold, at the end \
of the hold. It says which of these happened. A later undrain ends a drain that has not returned, with status 3. Both can be \
repeated. A candidate that is started again is not drained, unless it is started with --drained. With -n or --wait, elect run \
exits instead.

Maintenance of one host after the other:
  elect drain -b web && reboot               # or: ... && apt-get upgrade && elect undrain -b web";

pub(super) const CHECK_ABOUT: &str = "\
Takes the flags of elect run and runs nothing; boundary and command may be left out. The boundary elect-check is taken, renewed \
and released 20 times by two candidates in turn, with a ttl of 5s at most; no list shows this boundary, and its free record is \
all that is left in the store. If another check holds it, or the store has been started again, elect check waits; that is neither a \
success nor a failure. If the store refuses elect-check, the boundary of -b is read and nothing is taken. The check takes 30s at \
most. Each line has a result, a name, and the detail: ok, warn (it works, and could work better) or fail.";

pub(super) const CHECK_EXITS: &str = "\
Exit status: 0 it will work; 3 a line says fail; 69 the store cannot be reached; 77 it refuses; 2 the command line makes no sense.";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  elect check --store etcd://10.0.0.1 -b cron --ttl 5s
  elect check --json | jq -r '.checks[] | select(.result != \"ok\")'
";

pub(super) const STATUS_EXITS: &str = "\
Exit status: 0 a candidate leads; 3 none does; 69 the store cannot be reached; 77 it refuses. Without a boundary 0 means \
that the store has answered. With --self: 0, or 3 if no local candidate campaigns for the boundary.";

pub(super) const WATCH_ABOUT: &str = "\
Begins with the present state and ends with a signal (TERM, INT or HUP), or when its output is closed. While the store \
is in trouble it says so once, tries on, and then says again who leads. The latest change is never missed, and terms never \
go back; of what came and went too fast, or while nobody looked, it says that terms were skipped, where the store knows: \
file and etcd do. Terms themselves are not consecutive.";

pub(super) const WATCH_EXITS: &str = "\
Exit status: 0 it was told to stop; 77 the store refuses, at the start.";

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  elect watch                       # every boundary of the store
  elect watch cron --json | jq --unbuffered -r .leader.address
";

pub(super) const WAIT_EXITS: &str = "\
Exit status: 0 it is so; 75 not within --timeout; 69 the store could not be reached when --timeout was over; 77 it \
refuses. Without --timeout a store that cannot be reached is waited for, too.";

pub(super) const WAIT_EXAMPLES: &str = "\
Examples:
  elect wait db && ./connect        # once there is a leader
  elect wait nightly --for none --timeout 1h
  elect wait web --for name=web-2   # once it is web-2 that leads
";
