//! One attempt: all its calls share one time limit.

use std::time::Duration;

use tokio::time::timeout;

/// Runs an attempt for as long as the limit allows. `None`: the time is up, and the attempt was dropped.
pub fn within<T>(limit: Duration, attempt: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    // Boxed here, not in the future: the state that an attempt keeps between its calls is large.
    let attempt = Box::pin(attempt);
    async move { timeout(limit, attempt).await.ok() }
}
