//! The candidate as a pure state machine.
//!
//! The candidate knows no clock, no store, no process and no socket: it takes in events with their times, and returns
//! actions ([`Candidate::handle`]). Everything that makes elect safe is decided here, so that the simulation can test
//! it with thousands of histories a minute.
//!
//! ```text
//!            won            credited           asked · ended · lost · running out
//! Campaigning ───────▶ Verifying ───────▶ Leading ───────▶ Stopping ───────▶ Releasing ───────▶ Ended
//!    ▲                 │ lost                              │ empty, lost     │ empty, ours      or Campaigning again
//!    └─────────────────┴───────────────────────────────────┴─────────────────┘
//! ```
//!
//! With hooks, `Leading` begins with `--on-elected`, and whatever leads out of a leadership leads through `OustedHook`,
//! where `--on-ousted` runs over an empty tree. A [follower] is a small machine beside this one; a win waits for its
//! end in `Verifying`, the end of the program in `StoppingFollower`.
//!
//! A command that has ended by itself may be started again, or the boundary kept for a while ([`Policy`]):
//!
//! ```text
//!          ended, empty                    time's up
//! Stopping ───────────▶ LeadingIdle ──────────────────────────────────▶ Releasing ──────▶ CoolingDown ──▶ Campaigning
//!                          │ time for a restart, and a lease: ▶ Leading      too often
//! ```
//!
//! A candidate at its campaign limit ([`Policy`]) goes from `Campaigning`, or from a win that came to nothing, to
//! `Releasing` and ends; one that is to end with its leadership does so instead of campaigning again.
//!
//! A candidate that is unhealthy or drained goes from `Campaigning`, or from wherever it would campaign again, to
//! `Ineligible`, gives up its place there, and observes the leader until it is eligible again.
//!
//! Invariants, each held by the shape of the code and checked by the simulation:
//!
//! - Only `Leading` and `Stopping` may hold a live leader command. `Leading` is entered from `Verifying`, with a lease
//!   that was credited to a request which the store has executed after the one that won, and that counts from before that
//!   request was sent (T1), and in the same term from `LeadingIdle`.
//! - `Stopping` and `OustedHook` are left only when the tree is confirmed empty (2.3), and `Releasing` and
//!   `LeadingIdle` are entered with an empty tree only.
//! - A follower is started in `Campaigning` and `Ineligible` only, and stopped in every other state; `Leading` and
//!   `Ended` are entered without.
//! - Whatever comes in, the deadlines are looked at first: an answer that comes after `stop_by` finds the term over.
//! - There is one request at a time; a reply to any other attempt changes nothing.
//!
//! Deliberately absent: retries inside an attempt, time-outs that are not deadlines, anything that waits.

#![allow(rustdoc::private_intra_doc_links, reason = "the documentation is for contributors and shows private items")]
#![forbid(unsafe_code)]

mod action;
mod background_hooks;
pub mod boundary;
mod candidate;
mod context;
mod eligibility;
mod end_report;
mod follower;
mod id;
mod input;
mod keeper;
mod keeper_liveness;
pub mod limits;
mod mutation;
mod notice;
mod outcome;
mod pending_requests;
mod phase;
mod policy;
mod process_list;
#[cfg(any(test, feature = "test-support"))]
pub mod proptest_support;
mod resign_tracker;
mod restart_tracker;
#[cfg(test)]
mod simulation;
mod state;
mod store_requests;
pub mod takeover;
#[cfg(test)]
mod tests;
mod time;
mod timing;

pub use action::{Action, BackgroundHook, HookContext, Program, RequestError};
pub use candidate::Candidate;
pub use eligibility::IneligibleReasons;
pub use id::{Attempt, CheckNumber, LeaderKey, RequestId, RunId, Signal, Term};
pub use input::{
    Answer, BackgroundHookEnd, Campaigned, CheckEnd, Event, FromKeeper, NotStarted, Renewed, TerminalEvent,
};
pub use keeper::{
    ChildEnd, FinalReport, IdentitySource, KeeperAction, KeeperEvent, KeeperMachine, KeeperOrder, KeeperPolicy,
    Recipients,
};
pub use notice::{Hook, HookFailure, KillCause, Notice, Reason};
pub use outcome::{CommandEnd, Outcome};
pub use phase::Phase;
pub use policy::{CampaignLimit, Health, Hooks, OnChange, OnLost, Policy, Restart, RestartWhen, StopTo};
pub use process_list::{NamedProcess, PROCESSES_NAMED_MAX, ProcessList};
pub use time::Time;
pub use timing::{HumanDuration, KILL_ALLOWANCE, Lease, Timing, TimingError, TimingFlags, margin};
