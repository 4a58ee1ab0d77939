//! `always:`: no election. Leader at once, and always; the term is the time in milliseconds (DESIGN.md 5.8, S1).
//!
//! For development, for tests, and for turning the election off (`ELECT_STORE=always:`). It excludes no candidate.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::claim_release::ClaimRelease;
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    ANY_CANDIDATE_ID, Access, CampaignResult, Candidacy, Finding, Leader, Notifier, Observation, RenewResult, Store,
    StoreError,
};
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
    reach: "no election: every candidate leads",
    check,
    show: |_| "always:".to_owned(),
    open,
    claim_release: ClaimRelease::InPlace(|_| ()),
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: false,
    label_pod: None,
    boundary: None,
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

/// Every candidate leads, so this host's would: which candidates there are is not known here.
pub fn any_candidate() -> Leader {
    let hostname =
        nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned());
    Leader {
        id: ANY_CANDIDATE_ID.to_owned(),
        name: hostname.clone(),
        host: Some(hostname),
        port: None,
        term: None,
        since: None,
        ttl: None,
        lease_left: None,
        store_key: None,
    }
}

#[async_trait(?Send)]
impl Store for Always {
    fn grants_leases(&self) -> bool {
        false
    }

    async fn observe(&mut self, _: &Boundary) -> Result<Observation, StoreError> {
        Ok(Observation { leader: Some(any_candidate()), ..Observation::default() })
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        Ok(Vec::new())
    }

    async fn facts(&mut self) -> Vec<Finding> {
        let advice = "name a store with --store, if one host at a time is to lead";
        vec![Finding::warn("election", "there is none: every candidate leads at once", advice)]
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
