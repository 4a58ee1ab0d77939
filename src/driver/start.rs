//! The start of a driver: everything that can fail before the first request to the store.

use std::collections::VecDeque;
use std::net::TcpListener;

use anyhow::Context;
use tokio::io::Interest;
use tracing::{debug, info, warn};

use super::Driver;
use crate::async_fd;
use crate::command_env::CommandEnv;
use crate::config::Config;
use crate::control::{CandidateInfo, ControlServer, SocketDirectory};
use crate::event_log::EventLog;
use crate::http::HttpServer;
use crate::job_control::JobControl;
use crate::keeper_link::KeeperLink;
use crate::leader_tracker::LeaderTracker;
use crate::signals::{self, Signals};
use crate::status::{StatusPublisher, StatusSnapshot};
use crate::store::url::StoreUrl;
use crate::store::worker::{self, Worker};
use crate::store::{Access, Candidacy, Notifier, StoreError};
use elect_core::Candidate;
use elect_keeper::Keeper;
use elect_keeper::clock::Alarm;

impl Driver {
    /// Sets everything up. The store gets no request yet.
    ///
    /// # Errors
    ///
    /// The kernel gives no timer or signal handler, or the store cannot be opened.
    pub fn new(
        config: &Config,
        candidacy: Candidacy,
        url: StoreUrl<'_>,
        access: &Access,
        sockets: &SocketDirectory,
        keeper: Keeper,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<Driver> {
        let has_terminal = signals::has_controlling_terminal();
        let signals = Signals::listen(has_terminal).context("signals cannot be handled")?;
        let alarm = Alarm::new().context("no timer")?;
        let (hints, events) = worker::channel();
        let mut store = url.open(access, hints.clone())?;
        store.set_takeover_delay(config.takeover_delay);
        let pod_label = config.pod_label.as_ref().map(|key| url.label_pod(access, key)).transpose()?;
        let timing = if store.grants_leases() { config.timing } else { config.timing.without_lease() };
        info!(
            json.store = %url,
            json.reach = url.reach(),
            json.containment = keeper.containment(),
            "campaigning in {url} ({}), {}",
            url.reach(),
            keeper.containment()
        );
        debug!(keeper = keeper.pid(), "candidate {} is {}", candidacy.identity.name, candidacy.identity.id);
        if let Some(reason) = keeper.fallback() {
            info!(json.containment = keeper.containment(), "no cgroup for the command: {reason}");
        }
        if let Some(health) = config.policy.health {
            let times = if health.rise == 1 { "once".to_owned() } else { format!("{} times in a row", health.rise) };
            info!("no campaign before the health check has succeeded {times}");
        }
        let mut command_env = CommandEnv::new(&candidacy, &config.inside);
        let control = open_control_socket(sockets, &candidacy)?;
        if let Some(control) = &control {
            command_env.set_socket(control.path(), sockets);
        }
        let has_command = !config.command.is_empty();
        let pace = (timing.renew(), timing.request_timeout());
        let status = StatusPublisher::new(StatusSnapshot::new(&candidacy, url.kind().name(), has_command, pace));
        let http_server = HttpServer::serve(listener, &status, url.open(access, Notifier::disconnected())?)
            .context("nobody can be listened to")?;
        let leader_tracker = LeaderTracker::new(candidacy.identity.id.clone());
        let worker = Worker::start(store, candidacy, timing.request_timeout(), hints);
        Ok(Driver {
            candidate: Candidate::new(timing, config.stop_timeout, config.policy, fastrand::u64(..)),
            leader_tracker,
            command_env,
            has_command,
            has_terminal,
            keeper: KeeperLink::new(keeper).context("the keeper's socket cannot be watched")?,
            worker,
            events,
            signals,
            job_control: JobControl::new(timing.ttl().is_some()),
            alarm: async_fd::watch(alarm, Interest::READABLE).context("the timer cannot be watched")?,
            event_log: EventLog::default(),
            control,
            status,
            http_server,
            pod_label,
            reserving: None,
            pending_events: VecDeque::new(),
            outcome: None,
        })
    }
}

/// Opens the control socket. A candidate without one runs as well: only assert, extend, resign and proclaim are
/// unavailable.
///
/// # Errors
///
/// It cannot be opened in the directory that `--runtime-dir` names.
fn open_control_socket(
    directory: &SocketDirectory,
    candidacy: &Candidacy,
) -> Result<Option<ControlServer>, StoreError> {
    let (boundary, me) = (candidacy.boundary.to_string(), candidacy.identity.clone());
    match ControlServer::open(directory, CandidateInfo { boundary, id: me.id, name: me.name }) {
        Ok(control) => Ok(Some(control)),
        Err(why) if directory.is_named() => Err(StoreError::Refused(format!(
            "--runtime-dir: no control socket can be made: {why}: name a directory that this user may write to"
        ))),
        Err(why) => {
            warn!(
                "no control socket, so no assert, extend, resign or proclaim (--runtime-dir names another place): {why}"
            );
            Ok(None)
        }
    }
}
