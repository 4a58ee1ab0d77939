//! A build without `--listen`: nothing is served.

use std::io;
use std::net::TcpListener;

use crate::status::StatusPublisher;

/// No server.
#[derive(Debug)]
pub struct HttpServer;

impl HttpServer {
    /// Serves nothing.
    #[expect(clippy::unnecessary_wraps, reason = "as in a build with it")]
    pub fn serve(
        _: Option<TcpListener>,
        _: &StatusPublisher,
        _: Box<dyn crate::store::Store>,
    ) -> io::Result<HttpServer> {
        Ok(HttpServer)
    }

    /// Never.
    pub async fn ended(&mut self) {
        std::future::pending::<()>().await;
    }
}
