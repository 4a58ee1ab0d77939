//! `always:`: no election. Leader at once, and always; the term is the time in milliseconds (DESIGN.md 5.8, S1).
//!
//! For development, for tests, and for turning the election off (`ELECT_STORE=always:`). It excludes no candidate.

use async_trait::async_trait;

use crate::store::claim_release::ClaimRelease;
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{Access, CampaignResult, Candidacy, Notifier, Observation, RenewResult, Store, StoreError};
use elect_core::Term;
use elect_core::boundary::Boundary;
use elect_core::limits::next_term;
use elect_keeper::Claim;
use elect_keeper::clock;

pub const KIND: StoreKind = StoreKind {
    schemes: &["always"],
    form: "always:",
    about: "no election: leader at once, always (for development, and for turning the election off)",
    port: None,
    mistaken: &[],
    reach: "nobody: everyone leads",
    check,
    show: |_| "always:".to_owned(),
    open,
    claim_release: ClaimRelease::InPlace(|_| ()),
};

#[derive(Default)]
struct Always {
    /// The term of the present or the last leadership.
    term: Term,
    leads: bool,
}

fn check(url: &StoreUrl<'_>) -> Result<(), String> {
    if url.rest.is_empty() { Ok(()) } else { Err("nothing follows the colon".to_owned()) }
}

#[expect(clippy::unnecessary_wraps, reason = "other kinds of store can fail to open")]
fn open(_: &StoreUrl<'_>, _: &Access, _: Notifier) -> Result<Box<dyn Store>, StoreError> {
    Ok(Box::new(Always::default()))
}

#[async_trait(?Send)]
impl Store for Always {
    fn grants_leases(&self) -> bool {
        false
    }

    async fn observe(&mut self, _: &Boundary) -> Result<Observation, StoreError> {
        let obstacle = Some("no election is held here: whoever stands leads".to_owned());
        Ok(Observation { obstacle, ..Observation::default() })
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        Ok(Vec::new())
    }

    fn claim(&mut self, _: &Candidacy) -> Result<Option<Claim>, StoreError> {
        Ok(None)
    }

    async fn campaign(&mut self, _: &Candidacy) -> Result<CampaignResult, StoreError> {
        if self.leads {
            return Ok(CampaignResult::Won { term: self.term });
        }
        let none = || StoreError::Obstacle("the wall clock is so far ahead that no term is left".to_owned());
        self.term = next_term(self.term, clock::wall_millis(), 0).ok_or_else(none)?;
        self.leads = true;
        Ok(CampaignResult::Won { term: self.term })
    }

    async fn renew(&mut self, _: &Candidacy) -> Result<RenewResult, StoreError> {
        Ok(RenewResult::Credited { sent: clock::now(), ttl: None })
    }

    async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
        self.leads = false;
        Ok(())
    }
}
