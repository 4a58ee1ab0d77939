//! `elect check`: whether the flags of `run` will work on this host and in this store. Runs no command.
//!
//! The host is looked at first, while there is one thread: a containment tier is proven by a child. Then two candidates take
//! `Boundary::of_check` in turn, by the requests that an election sends ([`rounds`]). Every finding is one line of the
//! [`report`], and the first failure of the store that would end `run -n` decides the exit status.

mod host;
mod latency;
mod report;
mod rounds;
mod store;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::access::{StoreLimits, access};
use super::run::CONNECT_TIMEOUT_MIN;
use super::stdout::print;
use super::store_query::block_on;
use super::{exit_for, fail, usage_error};
use crate::cli::check::report::CheckReport;
use crate::config::{Config, ProcessContext, RunFlags};
use crate::control::SocketDirectory;
use crate::exit::Exit;
use crate::signals::{SignalEvent, Signals};
use crate::store::Access;
use crate::store::url::StoreUrl;
use elect_core::{Time, TimingFlags};
use elect_keeper::{clock, ignore_file_size_signal};
use store::StoreCheck;

/// For the lease of the check: it is waited for where a check was killed, or a server forgets.
const TTL_MAX: Duration = Duration::from_secs(5);
/// The least that one request may take, so that a store that is too slow for the flags can be measured.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(2);
/// The most that one request may take.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// For setting up a connection. With all that follows, the check takes 30 s at most.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(8);

/// Flags of `elect check`.
#[derive(Debug, Args)]
pub struct CheckFlags {
    /// The findings as a JSON object
    ///
    /// `{"ok", "checks": [{"name", "result", "detail", "advice"}]}`; result is ok, warn or fail, and advice is null where
    /// there is nothing to do.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    run: RunFlags,
}

pub fn check(CheckFlags { json, run: flags }: CheckFlags) -> ExitCode {
    ignore_file_size_signal();
    let began = clock::now();
    usage_error::set_format(flags.log.log_format);
    let usage = |error: &dyn std::fmt::Display| fail(Exit::Usage, &error.to_string());
    let process_context = ProcessContext { is_init: std::process::id() == 1, inside: Vec::new() };
    let (store_flags, is_named) = (flags.store.clone(), flags.boundary.is_some());
    let timing_flags = TimingFlags {
        ttl: flags.ttl,
        renew: flags.renew,
        request_timeout: flags.request_timeout,
        fence_grace: flags.fence_grace,
    };
    let config = match Config::for_check(flags, &process_context) {
        Ok(config) => config,
        Err(error) => return usage(&error),
    };
    let store = match StoreUrl::parse(&config.store) {
        Ok(store) => store,
        Err(error) => return usage(&error),
    };
    let access = match access(&store, &store_flags, store_limits(&config)) {
        Ok(access) => access,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let sockets = match SocketDirectory::new(config.runtime_dir.as_deref()) {
        Ok(sockets) => sockets,
        Err(error) => return usage(&error),
    };
    let mut report = CheckReport::default();
    host::check(&config, &process_context, store, &mut report);
    if report.has_failed(host::OPEN_FILES) {
        // A runtime needs them, too.
        return finish(&report, json);
    }
    let parts = CheckParts { began, url: store, access, config: &config, is_named, timing_flags };
    block_on(store, async {
        let mut signals = match Signals::listen(true) {
            Ok(signals) => signals,
            Err(error) => return fail(Exit::Failed, &format!("signals cannot be handled: {error}")),
        };
        host::check_control_socket(&sockets, &mut report);
        let mut checked = match StoreCheck::open(&parts) {
            Ok(checked) => checked,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let stop = tokio::select! {
            () = checked.run(&mut report) => None,
            signal = stop_signal(&mut signals) => Some(signal),
        };
        checked.release().await;
        if let Some(signal) = stop {
            elect_keeper::die_by(signal);
        }
        finish(&report, json)
    })
}

/// The parts of a check that are known before the store is asked.
pub struct CheckParts<'a> {
    /// When the check began, for its limit.
    pub began: Time,
    pub url: StoreUrl<'a>,
    pub access: Access,
    pub config: &'a Config,
    /// Whether the boundary of the configuration was named.
    pub is_named: bool,
    pub timing_flags: TimingFlags,
}

/// More time than the flags give to one request, because the check measures what a request takes.
fn store_limits(config: &Config) -> StoreLimits {
    let ttl = config.timing.ttl().unwrap_or_default();
    StoreLimits {
        request_timeout: config.timing.request_timeout().clamp(REQUEST_TIMEOUT_MIN, REQUEST_TIMEOUT_MAX),
        connect_timeout: ttl.clamp(CONNECT_TIMEOUT_MIN, CONNECT_TIMEOUT_MAX),
        renew_interval: config.timing.renew(),
        by_flags: false,
    }
}

async fn stop_signal(signals: &mut Signals) -> i32 {
    loop {
        match signals.next().await {
            SignalEvent::Stop(signal) => return signal,
            SignalEvent::Forward(signal) if signal == libc::SIGHUP => return signal,
            SignalEvent::Forward(_) | SignalEvent::Child | SignalEvent::Continued => {}
        }
    }
}

fn finish(report: &CheckReport, json: bool) -> ExitCode {
    print(if json { report.to_json() } else { report.to_text() }, report.exit().into())
}
