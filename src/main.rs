//! `elect` campaigns for a named boundary and runs a command only while it leads.

#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("elect is for Linux: it kills by cgroup, /proc and subreaper, which nothing else has");

mod async_fd;
#[cfg(feature = "network-store")]
mod bounded_file;
mod cli;
mod command_env;
mod config;
mod control;
mod driver;
mod duration;
mod event_log;
mod exit;
mod host_port;
mod http;
mod job_control;
mod keeper_link;
mod leader_tracker;
#[cfg(feature = "listen")]
mod listen_address;
mod log;
mod path_descriptor;
mod runtime_dir;
mod setup;
mod signals;
mod status;
mod store;
mod systemd;
mod text;

fn main() -> std::process::ExitCode {
    cli::main()
}
