//! What every end-to-end test stands on: a place of its own, candidates in it, and a journal that tells what ran when.
//!
//! ```text
//! Place ── Elect (builder) ── Candidate ── … ── witness (the command) ── journal ── History (the verdict)
//! ```
//!
//! Nothing here sleeps for a fixed time: waits are on conditions, with a limit that no healthy machine reaches.

pub mod candidate;
pub mod history;
pub mod place;
pub mod processes;
pub mod relay;
pub mod terminal;
pub mod wait;

pub use candidate::{Candidate, Elect, Ended, Witness};
pub use history::{Figures, History};
pub use place::Place;
pub use relay::Relay;
pub use wait::{eventually, until};

/// How often each fault is tried: a few times in every run, as often as the promise asks with `ELECT_LONG=1`.
pub fn runs() -> usize {
    if is_long() { 50 } else { 4 }
}

pub fn is_long() -> bool {
    std::env::var_os("ELECT_LONG").is_some_and(|value| value == "1")
}
