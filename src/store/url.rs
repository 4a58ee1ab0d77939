//! The URL of a store: its kind, and the text that the kind reads.

use std::fmt;
use std::time::Duration;

use elect_core::boundary::{Boundary, BoundaryError};

use super::bounds::Bounded;
use super::claim_release::ClaimRelease;
use super::pod_label::PodLabel;
use super::{Access, Notifier, Store, StoreError};

/// Parts of the names of options whose values may be secret.
const SECRET_OPTIONS: [&str; 6] = ["password", "passphrase", "secret", "token", "properties", "proxy"];

type NameBoundary = fn(&StoreUrl<'_>, &str) -> Result<Boundary, BoundaryError>;
type LabelPod = fn(&StoreUrl<'_>, &Access, &str) -> Result<PodLabel, StoreError>;
type OpenStore = fn(&StoreUrl<'_>, &Access, Notifier) -> Result<Box<dyn Store>, StoreError>;

/// One kind of store.
pub struct StoreKind {
    /// The schemes of its URLs; the first is its name in `status`.
    pub schemes: &'static [&'static str],
    /// How its URLs look.
    pub form: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// The port of its servers, by which an address without a scheme is recognized.
    pub port: Option<u16>,
    /// Schemes that people write for it by mistake, and the right ones.
    pub mistaken: &'static [(&'static str, &'static str)],
    /// The hosts that can take part.
    pub reach: &'static str,
    /// Whether the URL makes sense; looks at nothing else.
    pub check: fn(&StoreUrl<'_>) -> Result<(), String>,
    /// The URL as it is shown, in logs too: never with credentials.
    pub show: fn(&StoreUrl<'_>) -> String,
    /// Opens the store; nothing is asked of it yet.
    pub open: OpenStore,
    /// Gives back the claim of a dead candidate.
    pub claim_release: ClaimRelease,
    /// The shortest ttl and the shortest renewal interval that it can tell from others.
    pub shortest_times: (Duration, Duration),
    /// Whether it only keeps a record: candidates watch it for a ttl by their own clocks, a renewal interval apart.
    pub is_observed: bool,
    /// Labels the pod that elect runs in. `None`: the store has no pods.
    pub label_pod: Option<LabelPod>,
    /// Names a boundary in this store's form. `None`: the form that all stores share.
    pub boundary: Option<NameBoundary>,
}

impl StoreKind {
    /// The name in `status`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.schemes.first().copied().unwrap_or_default()
    }
}

impl fmt::Debug for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an election is held: a kind of store, and the rest of its URL.
#[derive(Debug, Clone, Copy)]
pub struct StoreUrl<'a> {
    /// The kind of store.
    pub kind: &'static StoreKind,
    /// The part before the colon.
    pub scheme: &'static str,
    /// The part after the colon.
    pub rest: &'a str,
}

impl StoreUrl<'_> {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &'static StoreKind {
        self.kind
    }

    /// Opens the store. Nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// URL, flags and variables do not fit together, or what they name will not have us.
    pub fn open(&self, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
        let store = (self.kind.open)(self, access, hints).map_err(StoreError::bounded)?;
        Ok(Box::new(Bounded(store)))
    }

    /// The whole URL, with what may be secret in it.
    #[must_use]
    pub fn with_secrets(&self) -> String {
        format!("{}:{}", self.scheme, self.rest)
    }

    /// The URL without the user's password and without the options that may be secret: for programs that are to look at the same
    /// store, and may know less.
    #[must_use]
    pub fn without_secrets(&self) -> String {
        let Some(place) = self.rest.strip_prefix("//").filter(|_| self.is_remote()) else { return self.with_secrets() };
        let (place, options) = place.split_once('?').map_or((place, None), |(place, options)| (place, Some(options)));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        // The last @ counts, since a password may hold others.
        let authority = match authority.rsplit_once('@') {
            Some((user, hosts)) => match user.split_once(':').map_or(user, |(name, _)| name) {
                "" => hosts.to_owned(),
                name => format!("{name}@{hosts}"),
            },
            None => authority.to_owned(),
        };
        let is_open = |option: &&str| {
            let name = option.split('=').next().unwrap_or_default().to_ascii_lowercase();
            !SECRET_OPTIONS.iter().any(|secret| name.contains(secret))
        };
        let options: Vec<&str> = options.into_iter().flat_map(|options| options.split('&')).filter(is_open).collect();
        let options = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
        format!("{}://{authority}{path}{options}", self.scheme)
    }

    /// Whether the store is asked over a network, by names that may have to be looked up.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.kind.claim_release, ClaimRelease::Executed(_))
    }

    /// How the keeper releases a claim of this kind of store.
    #[must_use]
    pub fn claim_release(&self) -> ClaimRelease {
        self.kind.claim_release
    }
}

/// The URL as it is shown, in logs too: never with credentials.
impl fmt::Display for StoreUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.kind.show)(self))
    }
}
