//! Connections that are set up over several attempts (DESIGN.md T6).
//!
//! A name, TCP, TLS, a login and a first look at the server take several round trips, and a login may cost the server more time
//! than a request does. An attempt that ends while a connection is being set up leaves it to the next one, and no request is
//! ever sent by an attempt that has ended: only connecting goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::duration::about;
use crate::store::{Access, StoreError};
use elect_core::Time;
use elect_keeper::clock;

/// A setup that has not come to an end by then gets a second one beside it, even with short attempts.
const STALL_MIN: Duration = Duration::from_secs(1);

/// How many setups are under way at once: a long ttl gives each of them a long time.
const SETUPS_MAX: usize = 3;

/// The limits of time of one store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLimits {
    /// One attempt, all its calls together.
    pub attempt: Duration,
    /// Setting up a connection, over several attempts.
    pub setup: Duration,
    /// Whether a flag of the command line sets them.
    pub by_flags: bool,
}

impl TimeLimits {
    /// The limits that the flags set.
    pub fn new(access: &Access) -> TimeLimits {
        TimeLimits {
            attempt: access.request_timeout,
            setup: access.connect_timeout.max(access.request_timeout),
            by_flags: access.has_time_flags,
        }
    }

    /// The words about something that was too slow for one attempt.
    pub fn too_slow_for_attempt(&self, limit: Duration) -> String {
        self.too_slow(limit, "--request-timeout or --ttl")
    }

    /// The words about a setup that has used up its time.
    fn too_slow_for_setup(&self) -> String {
        self.too_slow(self.setup, "--ttl")
    }

    fn too_slow(&self, limit: Duration, flag: &str) -> String {
        let limit = about(limit);
        if self.by_flags {
            format!(
                "did not answer in time ({limit}): check host and port of --store, and raise {flag} if it is only slow"
            )
        } else {
            format!("did not answer in time ({limit}): check host and port of --store")
        }
    }

    /// How long an attempt waits for a connection: an attempt that ends by itself can say why.
    pub fn wait_for_setup(limit: Duration) -> Duration {
        limit * 3 / 4
    }
}

/// Told by a setup when the server has accepted the connection: from then on it is there, and may only be slow.
#[derive(Debug, Clone, Default)]
pub struct Accepted(Arc<AtomicBool>);

impl Accepted {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connections to one server that are being set up: one, and another beside one that makes no headway.
pub struct ConnectionSetup<T> {
    under_way: JoinSet<(Accepted, Result<T, StoreError>)>,
    /// Of all that are under way, the oldest one first; some may have ended.
    handles: VecDeque<AbortHandle>,
    newest: Option<(Time, Accepted)>,
    /// When the first of them was begun, since the last result.
    since: Option<Time>,
}

impl<T> Default for ConnectionSetup<T> {
    fn default() -> ConnectionSetup<T> {
        ConnectionSetup { under_way: JoinSet::new(), handles: VecDeque::new(), newest: None, since: None }
    }
}

impl<T: Send + 'static> ConnectionSetup<T> {
    /// The first connection that is ready, by a setup of an earlier attempt or by a new one.
    ///
    /// The attempt is over when this takes longer than [`TimeLimits::wait_for_setup`], or so long that a request would not have half
    /// of the attempt's time; then the connection is `ready` for the next attempt.
    ///
    /// Cancellation: what is being set up goes on until its time is up, or this is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Connecting`] if the server has accepted and the next attempt may find the connection ready.
    pub async fn next<F>(
        &mut self,
        server: SetupTarget<'_>,
        limits: &TimeLimits,
        limit: Duration,
        begin: impl FnOnce(Accepted) -> F,
    ) -> Result<(T, Readiness), StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let start = clock::now();
        let waited = timeout(TimeLimits::wait_for_setup(limit), self.ready(server, limits, begin)).await;
        match waited {
            Ok(ready) => {
                let readiness = if clock::now().since(start) > limit / 2 {
                    Readiness::ForNextAttempt
                } else {
                    Readiness::ForThisAttempt
                };
                Ok((ready?, readiness))
            }
            // One setup follows another, and none comes to an end.
            Err(_) if self.since.is_some_and(|since| clock::now().since(since) >= limits.setup) => {
                *self = ConnectionSetup::default();
                Err(StoreError::Unavailable(server.never_ready(limits)))
            }
            Err(_) if self.newest.as_ref().is_some_and(|(_, accepted)| accepted.is_set()) => {
                Err(StoreError::Connecting(format!(
                    "{} is being connected to, which takes more than one attempt",
                    server.name
                )))
            }
            Err(_) => Err(StoreError::Unavailable(format!("{} {}", server.name, limits.too_slow_for_attempt(limit)))),
        }
    }

    async fn ready<F>(
        &mut self,
        server: SetupTarget<'_>,
        limits: &TimeLimits,
        begin: impl FnOnce(Accepted) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut failure = None;
        while let Some(ended) = self.under_way.try_join_next() {
            match ended {
                Ok((_, Ok(connection))) => return Ok(self.finish(connection)),
                // The server has answered between two attempts, and this one reports it. That an earlier attempt has not reached the
                // server says nothing about this one.
                Ok((accepted, Err(error))) if accepted.is_set() => failure = Some(error),
                Ok((_, Err(_))) | Err(_) => {}
            }
        }
        if let Some(error) = failure.filter(|_| self.under_way.is_empty()) {
            return self.fail(error);
        }
        let now = clock::now();
        let stall = (2 * limits.attempt).max(STALL_MIN);
        let is_stalled = self.newest.as_ref().is_none_or(|(begun, _)| now.since(*begun) >= stall);
        if self.under_way.is_empty() || is_stalled {
            let accepted = Accepted::default();
            self.newest = Some((now, accepted.clone()));
            self.since.get_or_insert(now);
            let setup = Box::pin(timeout(limits.setup, begin(accepted.clone())));
            let too_slow = server.never_ready(limits);
            let handle = self.under_way.spawn(async move {
                (accepted, setup.await.unwrap_or_else(|_| Err(StoreError::Unavailable(too_slow))))
            });
            self.handles.push_back(handle);
            if self.handles.len() > SETUPS_MAX
                && let Some(oldest) = self.handles.pop_front()
            {
                oldest.abort();
            }
        }
        loop {
            match self.under_way.join_next().await {
                Some(Ok((_, Ok(connection)))) => return Ok(self.finish(connection)),
                Some(Ok((_, Err(error)))) if self.under_way.is_empty() => return self.fail(error),
                // Another one is under way; a setup that panicked has reported it.
                Some(Ok((_, Err(_))) | Err(_)) => {}
                None => return Err(StoreError::Unavailable(format!("connecting to {} was given up", server.name))),
            }
        }
    }

    /// None is under way any more.
    fn fail(&mut self, error: StoreError) -> Result<T, StoreError> {
        *self = ConnectionSetup::default();
        Err(error)
    }

    /// The others have become needless.
    fn finish(&mut self, connection: T) -> T {
        *self = ConnectionSetup::default();
        connection
    }
}

/// The server that a connection is set up to.
#[derive(Debug, Clone, Copy)]
pub struct SetupTarget<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// How the URL is written for a server without TLS, if TLS is used.
    pub plain_form: Option<&'a str>,
}

impl SetupTarget<'_> {
    /// The words about a setup that has used up its time.
    pub fn never_ready(&self, limits: &TimeLimits) -> String {
        let SetupTarget { name, plain_form } = self;
        let advice = plain_form.map_or_else(String::new, |plain| {
            format!("; a server without TLS is silent to TLS, and --store is written with {plain} for it")
        });
        format!("{name} accepts connections, and {}{advice}", limits.too_slow_for_setup())
    }
}

/// Which attempt a connection is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Enough of its time is left for a request.
    ForThisAttempt,
    /// A request would be cut off: the next attempt has the connection from its beginning.
    ForNextAttempt,
}

/// The error of an attempt that leaves its connection to the next one.
pub fn ready_for_next(name: &str) -> StoreError {
    StoreError::Connecting(format!("{name} is connected to, and will be asked by the next attempt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: SetupTarget<'_> = SetupTarget { name: "h:1", plain_form: Some("plain://") };
    const LIMITS: TimeLimits =
        TimeLimits { attempt: Duration::from_millis(200), setup: Duration::from_secs(5), by_flags: true };

    fn with_runtime(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    }

    async fn server(accepted: Accepted, after: Duration) -> Result<u8, StoreError> {
        accepted.set();
        tokio::time::sleep(after).await;
        Ok(7)
    }

    /// T6: it is one setup, however many attempts it takes.
    #[test]
    fn a_setup_goes_on_over_attempts_and_is_begun_once() {
        with_runtime(async || {
            let (mut setup, mut begun) = (ConnectionSetup::default(), 0);
            loop {
                let next = setup.next(SERVER, &LIMITS, LIMITS.attempt, |accepted| {
                    begun += 1;
                    server(accepted, Duration::from_millis(500))
                });
                match next.await {
                    Ok((connection, _)) => {
                        assert_eq!(connection, 7);
                        break;
                    }
                    Err(error) => assert!(matches!(error, StoreError::Connecting(_)), "{error}"),
                }
            }
            assert_eq!(begun, 1);
        });
    }

    #[test]
    fn a_setup_that_makes_no_headway_gets_another_one_beside_it() {
        with_runtime(async || {
            let (mut setup, mut begun) = (ConnectionSetup::default(), 0);
            let connection = loop {
                let next = setup.next(SERVER, &LIMITS, LIMITS.attempt, |accepted| {
                    begun += 1;
                    server(accepted, if begun == 1 { Duration::from_secs(3600) } else { Duration::ZERO })
                });
                if let Ok((connection, _)) = next.await {
                    break connection;
                }
            };
            assert_eq!((connection, begun), (7, 2));
        });
    }

    #[test]
    fn setups_that_make_no_headway_are_at_most_three_at_once() {
        with_runtime(async || {
            let limits = TimeLimits { attempt: Duration::from_millis(100), setup: Duration::from_secs(3600), ..LIMITS };
            let open = Arc::new(());
            let mut setup = ConnectionSetup::<u8>::default();
            for begun in 1..=5_usize {
                // As if the one before had made no headway for that long.
                setup.newest = None;
                let guard = Arc::clone(&open);
                let next = setup.next(SERVER, &limits, limits.attempt, |accepted: Accepted| async move {
                    accepted.set();
                    let never = std::future::pending().await;
                    drop(guard);
                    never
                });
                assert!(next.await.is_err());
                assert_eq!(Arc::strong_count(&open) - 1, begun.min(SETUPS_MAX));
            }
        });
    }

    #[test]
    fn a_server_that_does_not_accept_is_unavailable_with_the_limit_and_its_flag() {
        with_runtime(async || {
            let mut setup = ConnectionSetup::<u8>::default();
            let error = setup.next(SERVER, &LIMITS, LIMITS.attempt, |_| std::future::pending()).await.map(drop);
            let Err(StoreError::Unavailable(error)) = error else { panic!("{error:?}") };
            for said in ["h:1", "200ms", "--request-timeout"] {
                assert!(error.contains(said), "{error}");
            }
        });
    }

    #[test]
    fn a_setup_ends_at_its_limit_with_the_flag_that_raises_it() {
        with_runtime(async || {
            let limits = TimeLimits { setup: Duration::from_millis(300), ..LIMITS };
            let mut setup = ConnectionSetup::<u8>::default();
            let error = loop {
                let begin = |accepted: Accepted| async move {
                    accepted.set();
                    std::future::pending().await
                };
                match setup.next(SERVER, &limits, 4 * limits.setup, begin).await.map(drop) {
                    Err(StoreError::Connecting(_)) => {}
                    ended => break ended,
                }
            };
            let Err(StoreError::Unavailable(error)) = error else { panic!("{error:?}") };
            for said in ["300ms", "--ttl", "plain://"] {
                assert!(error.contains(said), "{error}");
            }
        });
    }

    /// As of a password that takes long to compare.
    #[test]
    fn a_refusal_between_two_attempts_is_passed_on_by_the_next() {
        with_runtime(async || {
            let (mut setup, mut begun) = (ConnectionSetup::<u8>::default(), 0);
            let error = loop {
                let next = setup.next(SERVER, &LIMITS, LIMITS.attempt, |accepted: Accepted| {
                    begun += 1;
                    async move {
                        accepted.set();
                        tokio::time::sleep(Duration::from_millis(170)).await;
                        Err(StoreError::Refused("no".to_owned()))
                    }
                });
                match next.await.map(drop) {
                    Err(StoreError::Connecting(_)) => tokio::time::sleep(Duration::from_millis(60)).await,
                    ended => break ended,
                }
            };
            assert!(matches!(error, Err(StoreError::Refused(_))) && begun == 1, "{error:?} {begun}");
        });
    }

    #[test]
    fn setups_that_never_end_are_an_outage_after_the_limit() {
        with_runtime(async || {
            let limits =
                TimeLimits { attempt: Duration::from_millis(40), setup: Duration::from_millis(1500), by_flags: true };
            let mut setup = ConnectionSetup::<u8>::default();
            let start = clock::now();
            let error = loop {
                let begin = |accepted: Accepted| async move {
                    accepted.set();
                    std::future::pending().await
                };
                match setup.next(SERVER, &limits, limits.attempt, begin).await.map(drop) {
                    Err(StoreError::Connecting(_)) => {}
                    ended => break ended,
                }
                assert!(clock::now().since(start) < Duration::from_secs(60), "it never ends");
            };
            assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");
        });
    }

    #[test]
    fn a_refusal_is_passed_on_at_once() {
        with_runtime(async || {
            let mut setup = ConnectionSetup::<u8>::default();
            let refused = || StoreError::Refused("no".to_owned());
            let error = setup.next(SERVER, &LIMITS, LIMITS.attempt, |_| async move { Err(refused()) }).await.map(drop);
            assert!(matches!(error, Err(StoreError::Refused(_))), "{error:?}");
        });
    }
}
