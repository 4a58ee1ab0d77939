//! The trait of a server of any kind of store, so that one test runs on each.

use std::time::Duration;

use super::Sandbox;

/// Of every user that a server of the harness makes.
pub const PASSWORD: &str = "correct horse";
/// The same for stores that know users by a token alone, which has no blanks.
pub const TOKEN: &str = "correct-horse";

pub trait StoreServer: Sized + Sync {
    /// In figures.
    const NAME: &'static str;
    /// Of its URLs.
    const SCHEME: &'static str;

    /// The ttl of the tests: short enough to be waited for, long enough for a busy machine and for the store.
    const TTL: &'static str = "3s";
    /// The same.
    const LEASE: Duration = Duration::from_secs(3);
    /// Whether it knows users by names.
    const HAS_USER_NAMES: bool = true;

    /// Alone, with an empty store; it answers.
    fn start() -> Self;

    /// The same, for clients at another address than 127.0.0.1: that of a [`Network`](super::network::Network).
    fn seen_at(host: &str) -> Self;

    /// Host and port, for clients.
    fn address(&self) -> String;

    /// How many renewals it has heard. Exact as long as nobody but one leader asks it anything.
    fn renewals(&self) -> u64;

    /// For `--store`.
    fn url(&self) -> String {
        Self::url_of(&self.address())
    }

    /// The same through something else.
    fn url_of(address: &str) -> String {
        format!("{}://{address}", Self::SCHEME)
    }

    /// The same, with keys that are this place's alone.
    fn url_for(&self, sandbox: &Sandbox) -> String {
        sandbox.below(&self.url())
    }
}
