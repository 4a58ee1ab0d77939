//! elect as its users meet it: the program itself, real processes, real files.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what is known about a failure")]

#[cfg_attr(
    not(all(feature = "etcd", feature = "listen", feature = "mongodb", feature = "redis")),
    expect(dead_code, reason = "the harness is one for the tests of every feature")
)]
mod harness;

#[cfg(feature = "listen")]
mod balancer;
mod bounds;
mod containment;
mod controls;
mod directories;
mod environment;
#[cfg(feature = "etcd")]
mod etcd;
mod exits;
mod file_intruders;
mod file_paths;
mod followers;
mod handover;
mod holding;
mod hooks;
mod init;
mod keepers;
#[cfg(any(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod leases;
#[cfg(all(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod limits;
#[cfg(feature = "listen")]
mod listen;
mod lockfile;
mod logs;
#[cfg(all(feature = "etcd", feature = "redis"))]
mod manuals;
#[cfg(feature = "mongodb")]
mod mongodb;
mod notify;
mod observing;
mod packages;
#[cfg(all(feature = "etcd", feature = "listen", feature = "redis"))]
mod recipes;
#[cfg(feature = "redis")]
mod redis;
mod refusals;
mod restarts;
#[cfg(feature = "etcd")]
mod secrets;
mod servers;
mod signals;
mod status;
mod steering;
mod systemd;
mod terminal;
#[cfg(all(feature = "etcd", feature = "mongodb", feature = "redis"))]
mod terms;
mod waiting;
