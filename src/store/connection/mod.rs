//! Code that every store on a network needs to connect: certificates, credentials, the limit of an attempt, and errors.

pub mod attempt;
pub mod credentials;
pub mod errors;
pub mod tls;
