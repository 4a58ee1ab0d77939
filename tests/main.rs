//! elect as its users meet it: the program itself, real processes, real files.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what is known about a failure")]

#[cfg_attr(
    not(all(feature = "etcd", feature = "listen", feature = "mongodb", feature = "redis")),
    expect(dead_code, reason = "the harness is one for the tests of every feature")
)]
mod harness;

mod citations;
mod containment;
mod control_commands;
mod directories;
mod environment;
#[cfg(feature = "etcd")]
mod etcd;
mod exits;
mod file_paths;
mod file_tampering;
mod followers;
mod handover;
#[cfg(feature = "listen")]
mod haproxy;
mod harness_self_test;
mod harness_servers;
mod hooks;
mod init;
mod input_limits;
mod keeper_faults;
#[cfg(any(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod leases;
#[cfg(feature = "listen")]
mod listen;
mod lockfile;
mod logs;
#[cfg(all(feature = "etcd", feature = "redis"))]
mod man_pages;
mod min_hold;
#[cfg(feature = "mongodb")]
mod mongodb;
mod packages;
#[cfg(all(feature = "etcd", feature = "listen", feature = "redis"))]
mod recipes;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod resource_limits;
mod restarts;
#[cfg(feature = "etcd")]
mod secrets;
mod signals;
mod status;
mod status_watch_wait;
mod systemd;
mod systemd_notify;
mod terminal;
#[cfg(all(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod terms;
mod usage_errors;
mod wait_flags;
