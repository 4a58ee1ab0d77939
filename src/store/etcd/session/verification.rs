//! The transaction that decides whether the boundary is ours; [`session`](super) says which rules make it safe.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnResponse};

use super::{Session, Terms, WonTerm, found};
use elect_core::Term;

/// Why the transaction that decides does not go through.
#[derive(Debug)]
pub(super) enum Failed {
    /// It has gone through before, under this term.
    Verified(Term),
    /// The boundary is ours, and only the term key is not what it was.
    TermKey,
    Lost(&'static str),
}

impl Session {
    /// The transaction that decides: the boundary is ours and, before our key shows the term, no other one has been
    /// stored. It writes what our key does not show yet.
    pub(super) fn check(&self, created: i64, win: WonTerm, terms: &Terms) -> Txn {
        let mut compares = self.is_ours(created);
        let mut branch = Vec::new();
        if !win.verified {
            compares.push(terms.is_still(win.stored));
            branch.extend(terms.put(win.term));
        }
        if !self.value_written {
            let hung = PutOptions::new().with_lease(self.lease);
            branch.push(TxnOp::put(self.key.as_str(), self.leading_value(win), Some(hung)));
        }
        let get_own = TxnOp::get(self.key.as_str(), None);
        branch.push(get_own.clone());
        Txn::new().when(compares).and_then(branch).or_else([get_own, self.get_oldest(), terms.get()])
    }

    /// Which of the comparisons does not hold.
    pub(super) fn fails(&self, created: i64, answer: &TxnResponse) -> Failed {
        let [own, oldest, _] = found(answer);
        let Some(own) = own else { return Failed::Lost("our key is gone") };
        let is_ours = own.create_revision() == created && own.lease() == self.lease;
        if !is_ours || oldest.is_none_or(|oldest| oldest.create_revision() != created) {
            return Failed::Lost("another leads");
        }
        self.value.led(&self.election, &own).map_or(Failed::TermKey, |(term, _)| Failed::Verified(term))
    }

    pub(super) fn is_ours(&self, created: i64) -> Vec<Compare> {
        vec![
            Compare::create_revision(self.key.as_str(), CompareOp::Equal, created),
            Compare::lease(self.key.as_str(), CompareOp::Equal, self.lease),
            // Of every key of the boundary.
            Compare::create_revision(self.election.as_str(), CompareOp::Greater, created - 1).with_prefix(),
        ]
    }

    /// The value of our key once it shows this win.
    pub(super) fn leading_value(&self, win: WonTerm) -> Vec<u8> {
        self.value.clone().leading(win.term, win.since).stored(self.form)
    }
}
