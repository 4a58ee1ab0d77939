//! The part that `status`, `watch` and `wait` share: the store, the scope and the course of a query.

use std::process::ExitCode;
use std::time::Duration;

use tokio::task::LocalSet;

use super::access::{StoreLimits, access};
use super::{DESCRIPTORS_FOR_QUERY, complain, fail, prepare, runtime};
use crate::config::StoreFlags;
use crate::exit::Exit;
use crate::setup::Setup;
use crate::store::Access;
use crate::store::observer::POLL_INTERVAL;
use crate::store::url::StoreUrl;
use elect_core::boundary::Boundary;

/// How long the store may take to answer an interactive query.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// A question to a store, before it is asked.
pub struct StoreQuery<'a> {
    /// `None`: about all boundaries.
    pub boundary: Option<Boundary>,
    pub url: StoreUrl<'a>,
    pub access: Access,
}

impl<'a> StoreQuery<'a> {
    /// Puts flags together; what is wrong with them has been said when this fails.
    pub fn new(boundary: Option<&str>, store: &'a StoreFlags) -> Result<StoreQuery<'a>, ExitCode> {
        let usage = |error: &dyn std::error::Error| fail(Exit::Usage, &error.to_string());
        let url = StoreUrl::parse(&store.url).map_err(|error| usage(&error))?;
        let boundary = boundary.map(|name| url.boundary(name)).transpose().map_err(|error| usage(&error))?;
        let limits = StoreLimits {
            request_timeout: QUERY_TIMEOUT,
            connect_timeout: QUERY_TIMEOUT,
            renew_interval: POLL_INTERVAL,
            by_flags: false,
        };
        let access = access(&url, store, limits).map_err(|error| fail(error.exit(), &error.to_string()))?;
        if access.tls_skip_verify {
            complain(&format!(
                "warning: the certificate of {url} is not verified, so that any server can pretend to be this one"
            ));
        }
        Ok(StoreQuery { boundary, url, access })
    }
}

/// Runs a command that asks this store, to its exit status.
pub fn block_on(store: StoreUrl<'_>, command: impl Future<Output = ExitCode>) -> ExitCode {
    let setup = Setup::begin(complain);
    let runtime = match runtime(DESCRIPTORS_FOR_QUERY) {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Failed, &error.to_string()),
    };
    let status = LocalSet::new().block_on(&runtime, async {
        if let Err(error) = prepare(&store).await {
            return fail(Exit::Failed, &error.to_string());
        }
        drop(setup);
        command.await
    });
    // Not waiting for a name that is still being looked up.
    runtime.shutdown_background();
    status
}
