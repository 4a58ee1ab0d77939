//! Every store in this build: URLs are read and claims are given back here, by the kind of store that they name.
//!
//! No other file outside of a store's own folder names the store. A new one adds its module and a line of [`REGISTRY`].

#[path = "always.rs"]
mod always;
#[cfg(feature = "etcd")]
#[path = "etcd/mod.rs"]
mod etcd;
#[path = "file/mod.rs"]
mod file;
#[cfg(feature = "mongodb")]
#[path = "mongodb/mod.rs"]
mod mongodb;
#[cfg(feature = "redis")]
#[path = "redis/mod.rs"]
mod redis;

pub use always::any_candidate;
use std::time::Duration;

use tracing::debug;

use super::StoreError;
use super::claim_release::{ClaimRelease, StoredClaim};
use super::url::{StoreKind, StoreUrl};
use crate::text::escaped;
use elect_core::limits::{STORE_URL_BYTES_MAX, cut_visibly};

/// Between two attempts, for a server that is just coming back.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Every store in this build.
pub const REGISTRY: &[StoreKind] = &[
    file::KIND,
    #[cfg(feature = "etcd")]
    etcd::KIND,
    #[cfg(feature = "mongodb")]
    mongodb::KIND,
    #[cfg(feature = "redis")]
    redis::KIND,
    always::KIND,
];

/// Why a text does not name a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    /// Nothing: a variable that was meant to name a store.
    #[error("--store is empty: write it as {}, or leave it out for the lock files of this host", forms())]
    Empty,
    /// No `scheme:` in front.
    #[error("--store {:?} names no kind of store: write it as {}", cut_visibly(given, 80), forms())]
    NoScheme {
        /// The text.
        given: String,
    },
    /// A scheme that is not in the registry.
    #[error("--store {}: is not a kind of store that this elect knows: {}", cut_visibly(&escaped(scheme), 40), forms())]
    Unknown {
        /// The scheme alone: the rest may hold a password.
        scheme: String,
    },
    /// More than any server and its options need.
    #[error("--store has {0} bytes, and at most {STORE_URL_BYTES_MAX} are taken: shorten the URL")]
    TooLong(usize),
    /// The rest of the URL does not fit its kind.
    #[error("--store {scheme}:… is not understood: {}", escaped(reason))]
    Malformed {
        /// The kind.
        scheme: &'static str,
        /// The reason for the refusal.
        reason: String,
    },
}

fn forms() -> String {
    REGISTRY.iter().map(|kind| kind.form).collect::<Vec<_>>().join(", ")
}

impl<'a> StoreUrl<'a> {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// [`StoreUrlError`], without any credentials that the URL holds.
    pub fn parse(url: &'a str) -> Result<StoreUrl<'a>, StoreUrlError> {
        if url.len() > STORE_URL_BYTES_MAX {
            return Err(StoreUrlError::TooLong(url.len()));
        }
        if url.is_empty() {
            return Err(StoreUrlError::Empty);
        }
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(StoreUrlError::NoScheme { given: url.to_owned() });
        };
        let known = REGISTRY.iter().flat_map(|kind| kind.schemes.iter().map(move |&scheme| (kind, scheme)));
        let Some((kind, scheme)) = known.into_iter().find(|&(_, known)| known == scheme) else {
            return Err(StoreUrlError::Unknown { scheme: scheme.to_owned() });
        };
        let url = StoreUrl { kind, scheme, rest };
        (kind.check)(&url).map_err(|reason| StoreUrlError::Malformed { scheme, reason })?;
        Ok(url)
    }

    /// The hosts that can take part.
    #[must_use]
    pub fn reach(&self) -> &'static str {
        // It goes by uid: what another user starts on this host does not meet it.
        if self.is_default_directory() { "this user on this host" } else { self.kind.reach }
    }

    /// Whether an election is held there at all.
    #[must_use]
    pub fn has_election(&self) -> bool {
        self.kind.name() != always::KIND.name()
    }

    /// Whether it is a directory that does not exist.
    #[must_use]
    pub fn is_missing_directory(&self) -> bool {
        let shown = self.to_string();
        let path = shown.split_once(':').map_or("", |(_, path)| path);
        self.kind.name() == file::KIND.name() && !std::path::Path::new(path).is_dir()
    }

    /// Whether the file store's directory was left to elect.
    #[must_use]
    pub fn is_default_directory(&self) -> bool {
        self.kind.name() == file::KIND.name() && self.rest.is_empty()
    }
}

impl StoredClaim {
    /// Gives it back: tries until that is confirmed or the lease is over anyway.
    ///
    /// # Errors
    ///
    /// The last attempt's.
    pub async fn release(self) -> Result<(), StoreError> {
        let kind = REGISTRY.iter().find(|kind| kind.name() == self.kind);
        let Some(StoreKind { claim_release: ClaimRelease::Executed(attempt), .. }) = kind else {
            return Err(StoreError::Refused(format!("this elect knows no store {:?} with claims", self.kind)));
        };
        let attempts = async {
            loop {
                match attempt(self.claim.clone()).await {
                    Err(StoreError::Unavailable(trouble)) => debug!("store: {trouble}"),
                    settled => return settled,
                }
                tokio::time::sleep(RELEASE_RETRY_DELAY).await;
            }
        };
        tokio::time::timeout(self.within, attempts)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("it did not answer in time".to_owned())))
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    /// The scheme of a known store with its colon, or one of these texts. Not `file:`, whose directories may have any name.
    fn scheme(others: &[&'static str]) -> impl Strategy<Value = String> + use<> {
        let known = REGISTRY.iter().filter(|kind| kind.name() != file::KIND.name());
        let known = known.flat_map(|kind| kind.schemes).map(|scheme| format!("{scheme}:"));
        proptest::sample::select(known.chain(others.iter().map(|&other| other.to_owned())).collect::<Vec<_>>())
    }

    /// Credentials with a password in a URL, or what people take for one, in all the wrong places; the password.
    pub fn careless() -> impl Strategy<Value = (String, &'static str)> {
        // The second could be a port.
        let password = prop_oneof![Just("hunter2"), Just("31415")];
        let scheme = scheme(&["file:/", "https:", "", ":"]);
        let slashes = prop_oneof![4 => Just("//".to_owned()), 1 => proptest_support::punctuation()];
        let rest = (
            proptest_support::punctuation(),
            proptest_support::punctuation(),
            prop_oneof![proptest_support::punctuation(), proptest_support::text()],
        );
        (scheme, slashes, password, rest).prop_map(|(scheme, slashes, password, (before, after, host))| {
            (format!("{scheme}{slashes}{before}user:{password}{after}@{host}"), password)
        })
    }

    #[test]
    fn a_url_names_its_kind_of_store() {
        assert_eq!(StoreUrl::parse("always:").expect("known").kind().name(), "always");
        assert!(StoreUrl::parse("file:").expect("known").is_default_directory());
        assert!(!StoreUrl::parse("file:/srv/locks").expect("known").is_default_directory());
        assert_eq!(StoreUrl::parse("file:/srv/locks").expect("known").to_string(), "file:/srv/locks");
        assert_eq!(StoreUrl::parse("file:/srv/locks").expect("known").reach(), "this host only");
        assert_eq!(StoreUrl::parse("file:").expect("known").reach(), "this user on this host");
    }

    #[test]
    fn an_unknown_scheme_is_named_without_what_follows_it() {
        let message = StoreUrl::parse("postgres://user:secret@db").expect_err("unknown").to_string();
        assert!(
            message.contains("postgres") && message.contains("file:DIR") && !message.contains("secret"),
            "{message}"
        );
        let message = StoreUrl::parse("/var/lock").expect_err("no scheme").to_string();
        assert!(message.contains("file:DIR"), "{message}");
    }

    #[test]
    fn no_password_in_a_url_is_ever_repeated() {
        proptest_support::check(proptest_support::FAST, &careless(), |(url, password)| match StoreUrl::parse(&url) {
            Err(error) => assert!(!error.to_string().contains(password), "{error}"),
            // A directory may have any name, and is shown.
            Ok(url) => assert!(url.kind().name() == "file" || !url.to_string().contains(password), "{url}"),
        });
    }

    #[test]
    fn any_text_is_a_url_or_none() {
        let scheme = (scheme(&["", "file:"]), proptest::sample::select(vec!["", "//", "///"]));
        let scheme = scheme.prop_map(|(scheme, slashes)| format!("{scheme}{slashes}"));
        let texts = (scheme, prop_oneof![proptest_support::text(), proptest_support::punctuation()]);
        proptest_support::check(proptest_support::FAST, &texts, |(scheme, rest)| {
            if let Err(error) = StoreUrl::parse(&format!("{scheme}{rest}")) {
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
            }
        });
    }
}
