//! A build without `--listen`: nothing is served, nothing is counted.

use std::io;
use std::net::TcpListener;

use super::{Fact, Surface};
use crate::boundary::Boundary;

/// No server.
#[derive(Debug)]
pub struct Pages;

impl Pages {
    /// Serves nothing.
    #[expect(clippy::unnecessary_wraps, reason = "as in a build with it")]
    pub fn serve(_: Option<TcpListener>, _: &Surface) -> io::Result<Pages> {
        Ok(Pages)
    }

    /// Never.
    pub async fn ended(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// No counters.
#[derive(Debug)]
pub(super) struct Metrics;

impl Metrics {
    pub(super) fn new(_: &Boundary, _: &str) -> Metrics {
        Metrics
    }

    #[expect(clippy::unused_self, reason = "as in a build with it")]
    pub(super) fn count(&self, _: Fact) {}
}
