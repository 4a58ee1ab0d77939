//! Tests of the keeper alone, through its protocol: its guarantees, whatever happens to the campaigner.
//!
//! No store, no election and no runtime takes part. See [`harness`] for how a test is set up.

mod availability;
mod background_hooks;
mod containment;
mod creation;
mod deadline;
mod end_of_file;
mod harness;
mod health_checks;
mod jobs;
mod keeper_process;
mod memory;
mod messages;
mod min_hold;
mod orphans;
mod starting;
mod stopping;
mod storm;
mod stuck_checks;
mod under_deadline;
