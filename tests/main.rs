//! elect as its users meet it: the program itself, real processes, real files.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures, and what is known about a failure")]

#[cfg_attr(
    not(all(feature = "all-stores", feature = "listen")),
    allow(dead_code, reason = "the harness is one for the tests of every feature")
)]
mod harness;

mod check;
mod citations;
mod containment;
mod control_commands;
#[cfg(feature = "all-stores")]
mod cron;
mod directories;
#[cfg(all(feature = "all-stores", feature = "listen"))]
mod documents;
mod eligibility;
mod environment;
mod exits;
#[cfg(feature = "all-stores")]
mod fault_matrix;
mod file_paths;
mod file_tampering;
mod followers;
#[cfg(feature = "all-stores")]
mod frozen_candidates;
mod handover;
#[cfg(feature = "listen")]
mod haproxy;
mod harness_self_test;
mod harness_servers;
mod hooks;
mod init;
mod input_limits;
mod keeper_faults;
#[cfg(feature = "network-store")]
mod leases;
#[cfg(feature = "listen")]
mod listen;
mod lockfile;
mod logs;
#[cfg(feature = "all-stores")]
mod man_pages;
mod min_hold;
#[cfg(all(feature = "all-stores", feature = "listen"))]
mod misuses;
mod packages;
#[cfg(feature = "listen")]
mod page;
#[cfg(feature = "network-store")]
#[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "its stores with users are those of every feature"))]
mod pass_credentials;
#[cfg(feature = "all-stores")]
mod programs;
#[cfg(all(feature = "all-stores", feature = "listen"))]
mod recipes;
#[cfg(feature = "all-stores")]
mod resource_limits;
mod restarts;
mod runtime_dir;
mod secrets;
mod signals;
#[cfg(feature = "all-stores")]
mod static_program;
mod status;
mod status_forms;
mod status_watch_wait;
mod styles;
mod successors;
mod supervising;
mod systemd;
mod systemd_notify;
mod terminal;
#[cfg(feature = "all-stores")]
mod terms;
mod usage_errors;
mod wait_flags;

// The stores on a network. A new one is named here, and nowhere else outside of its own folder: its module, and its entry.
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

/// The stores that tests for all stores run on, beside the file store.
const STORES: &[&harness::store_fixtures::StoreEntry] = &[
    #[cfg(feature = "etcd")]
    &etcd::ENTRY,
    #[cfg(feature = "kubernetes")]
    &kubernetes::ENTRY,
    #[cfg(feature = "mongodb")]
    &mongodb::ENTRY,
    #[cfg(feature = "postgres")]
    &postgres::ENTRY,
    #[cfg(feature = "redis")]
    &redis::ENTRY,
];

/// For tests of elect that need one server of some kind: where waiters form a queue, and where candidates observe a record.
#[cfg(feature = "all-stores")]
use {etcd::server::EtcdServer as QueueServer, redis::server::RedisServer as ObservedServer};
