//! The URL of a store: its kind, and the text that the kind reads.

use std::fmt;

use super::bounds::Bounded;
use super::claim_release::ClaimRelease;
use super::{Access, Notifier, Store, StoreError};

type OpenStore = fn(&StoreUrl<'_>, &Access, Notifier) -> Result<Box<dyn Store>, StoreError>;

/// One kind of store.
pub struct StoreKind {
    /// The schemes of its URLs; the first is its name in `status`.
    pub schemes: &'static [&'static str],
    /// How its URLs look.
    pub form: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
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
