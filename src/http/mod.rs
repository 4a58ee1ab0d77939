//! `--listen`: the status of this candidate over HTTP.

#[cfg(not(feature = "listen"))]
mod disabled;
#[cfg(feature = "listen")]
mod page;
#[cfg(feature = "listen")]
mod routes;
#[cfg(feature = "listen")]
mod server;
#[cfg(feature = "listen")]
mod waiting_candidates;

#[cfg(not(feature = "listen"))]
pub use disabled::HttpServer;
#[cfg(feature = "listen")]
pub use server::{HttpServer, bind};
