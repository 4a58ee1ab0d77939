//! The keeper alone, spoken to in its own protocol: what it promises whatever becomes of the campaigner.
//!
//! No store, no election and no runtime takes part. See [`harness`] for how a test is set up.

mod background_hooks;
mod containment;
mod deadline;
mod end_of_file;
mod harness;
mod jobs;
mod keeper_process;
mod messages;
mod min_hold;
mod orphans;
mod starting;
mod stopping;
mod storm;
