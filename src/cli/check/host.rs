//! This host: containment, PID 1, systemd, the directory of control sockets, and limits on resources.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use super::report::CheckReport;
use crate::cli::run::DESCRIPTORS_NEEDED;
use crate::config::{Config, ProcessContext};
use crate::control::{CandidateInfo, ControlServer, SocketDirectory};
use crate::exit::Exit;
use crate::setup;
use crate::store::Finding;
use crate::store::url::StoreUrl;
use elect_core::boundary::Boundary;
use elect_keeper::{Containment, SystemdUnit, can_lock_memory, find_command};

pub const OPEN_FILES: &str = "open-files";
const CONTAINMENT: &str = "containment";
const RUNTIME_DIR: &str = "runtime-dir";
const LOCKED_MEMORY: &str = "locked-memory";

/// Checks all that needs no store. Must be called before the first thread is made.
pub fn check(config: &Config, context: &ProcessContext, store: StoreUrl<'_>, report: &mut CheckReport) {
    check_command(config, report);
    if context.is_init {
        report.add(init(store));
    }
    let unit = SystemdUnit::own();
    let tier = check_containment(config.containment, config.policy.health.is_some(), unit.as_ref(), report);
    if let Some(unit) = &unit {
        report.add(systemd(unit, tier));
    }
    report.add(open_files());
    report.add(locked_memory());
}

/// Whether the control socket can be made. Must be called inside a [`tokio::task::LocalSet`].
pub fn check_control_socket(sockets: &SocketDirectory, report: &mut CheckReport) {
    let info = CandidateInfo {
        boundary: Boundary::of_check().to_string(),
        id: uuid::Uuid::new_v4().to_string(),
        name: "elect check".to_owned(),
    };
    match ControlServer::open(sockets, info) {
        Ok(_) => report.add(Finding::ok(RUNTIME_DIR, format!("control sockets in {}", sockets.path().display()))),
        Err(why) if sockets.is_named() => {
            let advice = "name a directory with --runtime-dir that this user may write to";
            report.add_final(Exit::Refused, Finding::fail(RUNTIME_DIR, why, advice));
        }
        Err(why) => {
            let detail = format!("no assert, extend, resign or proclaim: {why}");
            report.add(Finding::warn(RUNTIME_DIR, detail, "name another directory with --runtime-dir"));
        }
    }
}

fn check_command(config: &Config, report: &mut CheckReport) {
    if config.command.is_empty() {
        return;
    }
    let search = std::env::var_os("PATH");
    report.add(match find_command(&config.command, search.as_deref()) {
        Ok(path) => Finding::ok("command", format!("{} can be executed", path.display())),
        Err(error) => Finding::of_error("command", &error.to_string(), "name a program that this user can execute"),
    });
}

fn init(store: StoreUrl<'_>) -> Finding {
    if store.is_remote() || !store.has_election() {
        return Finding::ok("pid-1", "elect reaps orphans here, and reports signal n as status 128+n");
    }
    let detail = format!("in a container {store} has to be a volume: otherwise every replica leads");
    Finding::warn("pid-1", detail, "mount one volume in all replicas, or name a server with --store")
}

/// The tier that a candidate would get, if there is one.
fn check_containment(
    asked: Containment,
    has_check: bool,
    unit: Option<&SystemdUnit>,
    report: &mut CheckReport,
) -> Option<&'static str> {
    match asked.establish(has_check) {
        Ok((tier, fallback)) => {
            let name = tier.name();
            tier.remove();
            report.add(match (name, fallback) {
                (_, Some(reason)) => {
                    let advice = match unit {
                        Some(unit) => format!("add Delegate=yes to [Service] of {}", unit.name),
                        None => "give elect a cgroup (v2, Linux 5.14) that it may write to".to_owned(),
                    };
                    Finding::warn(CONTAINMENT, format!("tree, no cgroup: {reason}"), advice)
                }
                ("cgroup", None) => Finding::ok(CONTAINMENT, "cgroup: one call kills all that the command starts"),
                ("pidns", None) => Finding::ok(CONTAINMENT, "pidns: the command ends with elect in any case"),
                (other, None) => Finding::ok(CONTAINMENT, format!("{other}, as --containment says")),
            });
            Some(name)
        }
        Err(error) => {
            let finding = Finding::of_error(CONTAINMENT, &error.to_string(), "leave it to --containment auto");
            if error.is_refusal() {
                report.add_final(Exit::Refused, finding);
            } else {
                report.add(finding);
            }
            None
        }
    }
}

fn systemd(unit: &SystemdUnit, tier: Option<&str>) -> Finding {
    // An old systemd marks the cgroup for root alone; another user who can make cgroups there has been given it.
    let is_given = unit.is_delegated || (!nix::unistd::geteuid().is_root() && tier == Some("cgroup"));
    let name = &unit.name;
    if is_given {
        return Finding::ok("systemd", format!("{name} has Delegate=yes"));
    }
    let detail = format!("{name} has no Delegate=yes: systemd manages the cgroups below it");
    Finding::warn("systemd", detail, "add Delegate=yes and KillMode=mixed to its [Service]")
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    match setup::demand_descriptors(DESCRIPTORS_NEEDED) {
        Ok(()) => Finding::ok(OPEN_FILES, format!("{limit} allowed, {DESCRIPTORS_NEEDED} needed")),
        Err(error) => Finding::of_error(OPEN_FILES, &error.to_string(), "raise the limit (ulimit -n)"),
    }
}

/// A keeper that is swapped out may kill late, if there is anywhere to swap to.
fn locked_memory() -> Finding {
    match can_lock_memory() {
        Ok(()) => Finding::ok(LOCKED_MEMORY, "the keeper can lock its memory"),
        Err(_) if !has_swap(Path::new("/proc/swaps")) => Finding::ok(LOCKED_MEMORY, "not needed: there is no swap"),
        Err(error) => {
            let detail = format!("the keeper cannot lock its memory and may be swapped out: {error}");
            Finding::warn(LOCKED_MEMORY, detail, "raise ulimit -l, or LimitMEMLOCK= of the unit")
        }
    }
}

/// A list that cannot be read may have entries.
fn has_swap(list: &Path) -> bool {
    std::fs::read_to_string(list).is_ok_and(|list| list.lines().count() > 1)
}
