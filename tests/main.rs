//! elect as its users meet it: the program itself, real processes, real files.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what is known about a failure")]

mod harness;

#[cfg(feature = "listen")]
mod balancer;
mod containment;
mod controls;
mod directories;
mod environment;
#[cfg(feature = "etcd")]
mod etcd;
mod exits;
mod followers;
mod handover;
mod holding;
mod hooks;
mod init;
#[cfg(feature = "listen")]
mod listen;
mod lockfile;
mod logs;
mod notify;
mod observing;
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
mod waiting;
