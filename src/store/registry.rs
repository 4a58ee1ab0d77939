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
#[cfg(feature = "kubernetes")]
#[path = "kubernetes/mod.rs"]
mod kubernetes;
#[cfg(feature = "mongodb")]
#[path = "mongodb/mod.rs"]
mod mongodb;
#[cfg(feature = "postgres")]
#[path = "postgres/mod.rs"]
mod postgres;
#[cfg(feature = "redis")]
#[path = "redis/mod.rs"]
mod redis;

use std::time::Duration;

use super::claim_release::{ClaimRelease, StoredClaim};
use super::pod_label::PodLabel;
use super::url::{StoreKind, StoreUrl};
use super::{Access, StoreError};
use crate::text::escaped;
pub use always::any_candidate;
use elect_core::boundary::{Boundary, BoundaryError};
use elect_core::limits::{STORE_URL_BYTES_MAX, cut_visibly};

/// Every store in this build.
pub const REGISTRY: &[StoreKind] = &[
    file::KIND,
    #[cfg(feature = "etcd")]
    etcd::KIND,
    #[cfg(feature = "kubernetes")]
    kubernetes::KIND,
    #[cfg(feature = "mongodb")]
    mongodb::KIND,
    #[cfg(feature = "postgres")]
    postgres::KIND,
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
    #[error(
        "--store {}: is not a kind of store that this elect knows: {}{}",
        cut_visibly(&escaped(scheme), 40),
        meant.map(|scheme| format!("did you mean {scheme}? The kinds are ")).unwrap_or_default(),
        forms()
    )]
    Unknown {
        /// The scheme alone: the rest may hold a password.
        scheme: String,
        /// The scheme that was probably meant.
        meant: Option<&'static str>,
    },
    /// An address, and no scheme in front.
    #[error(
        "--store names an address without a kind of store: port {port} is usual for {scheme}, so did you mean {scheme}://HOST:{port}?"
    )]
    NoSchemeButPort {
        /// The usual port of a kind.
        port: u16,
        /// Its scheme.
        scheme: &'static str,
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

/// The most edits by which a scheme is taken for a misspelled one.
const SCHEME_EDITS_MAX: usize = 2;

/// The error for a scheme that is not known: it may be misspelled, or the host of an address. The rest is not repeated, because it
/// may hold a password.
fn unknown(scheme: &str, rest: &str) -> StoreUrlError {
    let port = rest.split(['/', '?']).next().and_then(|port| port.parse::<u16>().ok());
    let kind = REGISTRY.iter().find(|kind| port.is_some() && kind.port == port);
    if let (Some(port), Some(kind)) = (port, kind) {
        return StoreUrlError::NoSchemeButPort { port, scheme: kind.name() };
    }
    let mistaken = REGISTRY.iter().flat_map(|kind| kind.mistaken).find(|(written, _)| *written == scheme);
    let known = REGISTRY.iter().flat_map(|kind| kind.schemes.iter().copied());
    let edits = known.map(|known| (strsim::osa_distance(known, scheme), known));
    let similar = edits.filter(|(edits, known)| *edits <= SCHEME_EDITS_MAX && known.len() > SCHEME_EDITS_MAX + 1).min();
    let meant = mistaken.map(|(_, meant)| *meant).or(similar.map(|(_, known)| known));
    StoreUrlError::Unknown { scheme: scheme.to_owned(), meant }
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
            return Err(unknown(scheme, rest));
        };
        let url = StoreUrl { kind, scheme, rest };
        (kind.check)(&url).map_err(|reason| StoreUrlError::Malformed { scheme, reason })?;
        Ok(url)
    }

    /// The hosts that can take part.
    #[must_use]
    pub fn reach(&self) -> &'static str {
        // It goes by uid: what another user starts on this host does not meet it.
        if self.is_default_directory() {
            "this user on this host"
        } else if self.scheme.ends_with("+unix") {
            "all that reach this socket"
        } else {
            self.kind.reach
        }
    }

    /// Whether an election is held there at all.
    #[must_use]
    pub fn has_election(&self) -> bool {
        self.kind.name() != always::KIND.name()
    }

    /// Whether a pod can be labelled there.
    #[must_use]
    pub fn has_pods(&self) -> bool {
        self.kind.label_pod.is_some()
    }

    /// Labels the pod that elect runs in.
    ///
    /// # Errors
    ///
    /// A usage error: the key is none, or the pod is not known.
    pub fn label_pod(&self, access: &Access, key: &str) -> Result<PodLabel, StoreError> {
        let Some(label) = self.kind.label_pod else {
            return Err(StoreError::Misused(format!(
                "--pod-label is of no use with {self}, which has no pods: leave it out"
            )));
        };
        label(self, access, key)
    }

    /// The boundary of this name, in the form that this store takes.
    ///
    /// # Errors
    ///
    /// [`BoundaryError`]: it is none.
    pub fn boundary(&self, name: &str) -> Result<Boundary, BoundaryError> {
        self.kind.boundary.map_or_else(|| name.parse(), |boundary| boundary(self, name))
    }

    /// The shortest ttl and the shortest renewal interval that this store can tell from others.
    #[must_use]
    pub fn shortest_times(&self) -> (Duration, Duration) {
        self.kind.shortest_times
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
        let Some(StoreKind { claim_release: ClaimRelease::Executed(release), .. }) = kind else {
            return Err(StoreError::Refused(format!("this elect knows no store {:?} with claims", self.kind)));
        };
        tokio::time::timeout(self.within, release(self.claim))
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
        let message = StoreUrl::parse("mysql://user:secret@db").expect_err("unknown").to_string();
        assert!(message.contains("mysql") && message.contains("file:DIR") && !message.contains("secret"), "{message}");
        for (url, meant) in [
            #[cfg(feature = "etcd")]
            ("http://h:2379", "did you mean etcd?"),
            #[cfg(feature = "etcd")]
            ("10.0.0.1:2379", "etcd://HOST:2379"),
            #[cfg(feature = "etcd")]
            ("ectd://h", "did you mean etcd?"),
            #[cfg(feature = "redis")]
            ("localhost:6379/0", "redis://HOST:6379"),
            #[cfg(feature = "mongodb")]
            ("mongo://h", "did you mean mongodb?"),
            ("flie:/srv", "did you mean file?"),
        ] {
            let message = StoreUrl::parse(url).expect_err("unknown").to_string();
            assert!(message.contains(meant), "{url}: {message}");
        }
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

    #[cfg(feature = "all-stores")]
    #[test]
    fn a_url_without_secrets_names_the_same_store() {
        for (url, without) in [
            ("redis://u:hunter2@h:1/2?replicas=1", "redis://u@h:1/2?replicas=1"),
            ("rediss://:hunter2@h", "rediss://h"),
            ("redis+unix://u:p%40@/run/s?db=1", "redis+unix://u@/run/s?db=1"),
            ("mongodb://u:a%3Ab@h1,h2/x?tls=true", "mongodb://u@h1,h2/x?tls=true"),
            ("etcd://h1,h2/p?term=revision", "etcd://h1,h2/p?term=revision"),
            ("file:/a:b@c?password=d", "file:/a:b@c?password=d"),
            ("redis:", "redis:"),
            ("always:", "always:"),
        ] {
            let url = StoreUrl::parse(url).expect(url);
            assert_eq!(url.without_secrets(), without);
            let again = url.without_secrets();
            assert_eq!(StoreUrl::parse(&again).expect(&again).to_string(), url.to_string());
        }
    }

    #[cfg(feature = "mongodb")]
    #[test]
    fn options_that_may_be_secret_are_left_out_even_if_no_client_knows_them() {
        for (options, without) in [
            ("tls=true&tlsCertificateKeyFilePassword=p", "tls=true"),
            ("authMechanismProperties=AWS_SESSION_TOKEN:t&authMechanism=MONGODB-AWS", "authMechanism=MONGODB-AWS"),
        ] {
            let rest = format!("//h/?{options}");
            let url = StoreUrl { kind: &mongodb::KIND, scheme: "mongodb", rest: &rest };
            assert_eq!(url.without_secrets(), format!("mongodb://h/?{without}"));
        }
    }

    #[test]
    fn no_password_is_left_in_any_url() {
        proptest_support::check(proptest_support::FAST, &careless(), |(url, password)| {
            if let Ok(url) = StoreUrl::parse(&url)
                && url.is_remote()
            {
                assert!(!url.without_secrets().contains(password), "{}", url.without_secrets());
            }
        });
    }
}
