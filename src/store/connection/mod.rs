//! Code that every store on a network needs to connect: certificates, credentials, the limit of an attempt, and errors.

#![cfg_attr(
    not(feature = "all-stores"),
    allow(dead_code, reason = "each function serves some stores, and this build has not all of them")
)]

pub mod attempt;
pub mod credentials;
pub mod errors;
pub mod identity;
pub mod setup;
pub mod tls;
pub mod tls_errors;
pub mod url_options;
pub mod verification;
