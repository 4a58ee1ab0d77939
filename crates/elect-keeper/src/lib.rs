//! The keeper: the child that owns the command, and kills it when the lease runs out (DESIGN.md section 3).
//!
//! ```text
//! campaigner ── Keeper ══ socket ══ event loop ── spawn ── the command's tree
//! ```
//!
//! [`Keeper`] is the campaigner's handle; everything else here runs in the forked child. The child has one thread, one
//! loop (`event_loop`) and no runtime, so that no fault of the campaigner (a panic, a stop, a store that hangs, a full
//! pipe) can keep the child from killing on time.
//!
//! Not here: when to start or stop (the election decides), and the meaning of a claim (the store decides).
//!
//! This is the only crate with `unsafe` code: each block says why it is sound.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is for contributors and shows private items")]
#![expect(unsafe_code, reason = "forking, and system calls without a safe wrapper")]

mod cgroup;
pub mod clock;
mod containment;
mod datagram;
mod descriptors;
mod event_loop;
mod find_command;
mod handle;
mod memory;
mod namespace;
mod outbox;
mod preexisting_children;
mod process_list;
mod protocol;
mod reexec;
mod spawn;
mod sys;
mod terminal;
#[cfg(test)]
mod tests;
mod tree;

pub use cgroup::SystemdUnit;
pub use containment::{Containment, NoContainment};
pub use find_command::{FindError, find_command};
pub use handle::{Departure, ForkError, Keeper, Release, can_lock_memory};
pub use memory::release_startup_pages;
pub use outbox::Outbox;
pub use protocol::{Claim, MESSAGE_BYTES_MAX, Received, ToKeeper};
pub use reexec::execute_self;
pub use spawn::{CommandSpec, HealthScript, HookScripts};
pub use sys::{
    change_environment, close_inherited, die_by, ignore, ignore_file_size_signal, is_ignored, signal_own_group,
};
pub use terminal::Terminal;
