//! `elect` campaigns for a named boundary and runs a command only while it leads.

#[cfg(not(target_os = "linux"))]
compile_error!("elect is for Linux: it kills by cgroup, /proc and subreaper, which nothing else has");

mod boundary;
mod cli;
mod clock;
mod config;
mod control;
mod driver;
mod election;
mod exit;
#[cfg(test)]
mod fuzz;
mod http;
mod keeper;
mod limits;
mod log;
mod narrator;
mod roles;
mod setup;
mod signals;
mod status;
mod store;
mod systemd;
mod text;

fn main() -> std::process::ExitCode {
    cli::main()
}
