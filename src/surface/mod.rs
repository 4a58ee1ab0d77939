//! What a candidate and its boundary look like from outside.

pub mod control;
pub mod occurrence;
pub mod status;
