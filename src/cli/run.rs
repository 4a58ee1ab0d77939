//! `elect run`: the checks that have to precede any thread, then the fork, then the driver.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::LocalSet;
use tracing::{debug, warn};
use uuid::Uuid;

use super::access::{StoreLimits, access};
use super::command_credentials::pass_to_commands;
use super::variables::{is_from_variable, unknown_variables};
use super::{complain, exit_for, fail, prepare, runtime, usage_error};
use crate::config::{Config, ProcessContext, RunFlags};
use crate::control::SocketDirectory;
use crate::driver::Driver;
use crate::exit::{self, Exit};
use crate::log::{self, KeeperLine, Origin, StartError, Verbosity};
use crate::setup::Setup;
use crate::store::claim_release::{self, LastStep};
use crate::store::url::StoreUrl;
use crate::store::{Access, Candidacy, Identity, StoreError};
use elect_keeper::{CommandSpec, FindError, ForkError, Keeper, close_inherited, find_command, ignore_file_size_signal};

/// Descriptors that must be free when the campaigner sets itself up: for the runtime, signals, timers, sockets and the
/// files or connections of a store, for a reconnect, and for requests on this host.
pub(super) const DESCRIPTORS_NEEDED: usize = 28;

/// Setting up a connection may take this long even with a short lease.
pub(super) const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(5);

pub fn run(flags: RunFlags) -> ExitCode {
    // A log or a record beyond the limit on the size of files is an error, as on a full disk.
    ignore_file_size_signal();
    let verbosity = Verbosity { quiet: flags.log.quiet, verbose: flags.log.verbose };
    let format = flags.log.log_format;
    usage_error::set_format(format);
    let process_context = ProcessContext { is_init: std::process::id() == 1, inside: inside() };
    let (store_flags, passes_credentials) = (flags.store.clone(), flags.pass_credentials);
    let config = match Config::new(flags, &process_context) {
        Ok(config) => config,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    let identity = identity(&config);
    log::set_origin(Origin {
        boundary: config.boundary.to_string(),
        name: identity.name.clone(),
        id: identity.id.clone(),
    });
    let program = match program(&config) {
        Ok(program) => program,
        Err(error @ (FindError::NotFound { .. } | FindError::NoInterpreter { .. })) => {
            return fail(Exit::NotFound, &error.to_string());
        }
        Err(error @ FindError::NotExecutable { .. }) => return fail(Exit::NotExecutable, &error.to_string()),
    };
    let store = match StoreUrl::parse(&config.store) {
        Ok(store) => store,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    let limits = StoreLimits {
        request_timeout: config.timing.request_timeout(),
        // T6
        connect_timeout: config.timing.ttl().unwrap_or_default().max(CONNECT_TIMEOUT_MIN),
        renew_interval: config.timing.renew(),
        by_flags: true,
    };
    let access = match access(&store, &store_flags, limits) {
        Ok(access) => access,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let sockets = match SocketDirectory::new(config.runtime_dir.as_deref()) {
        Ok(sockets) => sockets,
        Err(error) => return fail(Exit::Usage, &error),
    };
    close_inherited();
    pass_to_commands(&store, &store_flags, passes_credentials);
    // From here there are two processes, and only from here may there be threads.
    prepare_last_step(&config, &identity, store, format);
    let keeper = match Keeper::fork(Some(program), claim_release::depart, config.containment) {
        Ok(keeper) => keeper,
        Err(ForkError::Containment(error)) if error.is_refusal() => return fail(Exit::Refused, &error.to_string()),
        Err(error) => return fail(Exit::Failed, &error.to_string()),
    };
    let filter = std::env::var("ELECT_LOG").ok();
    let guard = match log::start(format, verbosity, filter.as_deref()) {
        Ok(guard) => guard,
        Err(error @ StartError::Filter(_)) => return fail(Exit::Usage, &error.to_string()),
        Err(error @ StartError::Setup(_)) => return fail(Exit::Failed, &error.to_string()),
    };
    for unknown in unknown_variables() {
        if let Some(warning) = unknown.warning() {
            warn!("{warning}");
        } else {
            debug!(variable = unknown.name, "this variable is not read by elect");
        }
    }
    if !is_from_variable("--store") && store.with_secrets() != store.without_secrets() {
        warn!("ps shows the password in --store to every user of this host: use --password-file or ELECT_PASSWORD");
    }
    let outcome = campaign(&config, identity, store, &access, &sockets, keeper);
    drop(guard);
    match outcome {
        Ok(outcome) => exit::status(&outcome, config.conflict_exit_code),
        Err(error) => {
            let exit = error.downcast_ref::<StoreError>().map_or(Exit::Failed, exit_for);
            fail(exit, &format!("{error:#}"))
        }
    }
}

/// The boundaries of the commands that we run inside, the outermost first: a command knows its own, and those around
/// it.
fn inside() -> Vec<String> {
    if std::env::var_os("ELECT_ROLE").is_none() {
        return Vec::new();
    }
    let outer = std::env::var("ELECT_INSIDE").unwrap_or_default();
    outer.lines().map(str::to_owned).chain(std::env::var("ELECT_BOUNDARY")).collect()
}

fn program(config: &Config) -> Result<CommandSpec, FindError> {
    let search = std::env::var_os("PATH");
    let has_command = !config.command.is_empty();
    let path = if has_command { find_command(&config.command, search.as_deref())? } else { PathBuf::default() };
    Ok(CommandSpec {
        path,
        words: config.command.clone(),
        stop_signal: config.stop_signal,
        stop_timeout: config.stop_timeout,
        stop_to: config.stop_to,
        min_hold: config.policy.min_hold,
        scripts: config.scripts.clone(),
    })
}

/// What the keeper needs for its last step, if the campaigner dies.
fn prepare_last_step(config: &Config, identity: &Identity, store: StoreUrl<'_>, format: log::Format) {
    claim_release::prepare(LastStep {
        release: store.claim_release(),
        request_timeout: config.timing.request_timeout(),
        line: KeeperLine {
            format,
            boundary: config.boundary.to_string(),
            name: identity.name.clone(),
            id: identity.id.clone(),
            term: None,
            done: String::new(),
        },
    });
}

fn campaign(
    config: &Config,
    identity: Identity,
    store: StoreUrl<'_>,
    access: &Access,
    sockets: &SocketDirectory,
    keeper: Keeper,
) -> anyhow::Result<elect_core::Outcome> {
    let candidacy =
        Candidacy { boundary: config.boundary.clone(), identity, ttl: config.timing.ttl().unwrap_or_default() };
    #[cfg(feature = "listen")]
    let listener = config.listen.as_ref().map(crate::http::bind).transpose()?;
    #[cfg(not(feature = "listen"))]
    let listener = None;
    let setup = Setup::begin(complain);
    let runtime = runtime(DESCRIPTORS_NEEDED)?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        prepare(&store).await?;
        let driver = Driver::new(config, candidacy, store, access, sockets, keeper, listener)?;
        drop(setup);
        driver.run().await
    });
    // Not waiting for a name that is still being looked up.
    runtime.shutdown_background();
    outcome
}

fn identity(config: &Config) -> Identity {
    let hostname =
        nix::unistd::gethostname().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned());
    let (host, port) = match &config.advertise {
        Some(address) => (address.host.clone(), address.port),
        None => (hostname.clone(), None),
    };
    Identity { id: Uuid::new_v4().to_string(), name: config.name.clone().unwrap_or(hostname), host, port }
}
