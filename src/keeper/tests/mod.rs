//! The keeper alone, spoken to in its own protocol: what it promises whatever becomes of the campaigner.
//!
//! No store, no election and no runtime takes part. See [`harness`] for how a test is set up.

mod beside;
mod containment;
mod deadline;
mod end_of_file;
mod harness;
mod holding;
mod itself;
mod jobs;
mod messages;
mod orphans;
mod starting;
mod stopping;
mod storm;
