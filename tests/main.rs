//! elect as its users meet it: the program itself, real processes, real files.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what is known about a failure")]

mod harness;

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
mod lockfile;
mod logs;
mod observing;
mod refusals;
mod restarts;
mod servers;
mod signals;
mod status;
mod terminal;
mod waiting;
