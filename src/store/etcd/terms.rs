//! Terms: where the last one of a boundary is kept, and which one follows it (DESIGN.md S1, 5.2).
//!
//! The key `elect.term/<what the boundary's keys begin with>` holds the last term in decimal digits. It has no leading slash, so
//! that it lies in the range of no election: with `?layout=exact` the names that begin so are refused. It is read together with the range that shows our own key as the oldest, never earlier: as
//! long as that key is there, no other candidate can write it. It is written in the transaction that verifies the win, if
//! its mod revision is still the one that was read.
//!
//! With `?term=revision` the term is the create revision of the leader's key, as Go programs count; the key must be absent then,
//! because terms in the other scheme are far larger.

use etcd_client::{Compare, CompareOp, KeyValue, TxnOp};
use serde::{Deserialize, Serialize};

use super::keys;
use super::layout::{Keys, TERM_KEYS};
use crate::store::StoreError;
use crate::text::escaped;
use elect_core::Term;
use elect_core::boundary::Boundary;
use elect_core::limits;
use elect_keeper::clock;

/// How the candidates of a boundary count their terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// By the term key, in the number space of all stores.
    #[default]
    Stored,
    /// By etcd's own create revisions (`?term=revision`).
    Revision,
}

impl Scheme {
    /// As candidates' values and the URL name it; the usual one has no name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Scheme::Stored => None,
            Scheme::Revision => Some("revision"),
        }
    }
}

/// The terms of one boundary, as one candidate sees them.
#[derive(Debug)]
pub struct Terms {
    pub scheme: Scheme,
    key: String,
    /// Of all terms that this candidate has seen, on whatever etcd it was: one that is rebuilt knows less than we do.
    highest_seen: Term,
    /// `elect.term/` and what all boundaries' keys begin with, for advice.
    all: String,
    /// Whether the server has been asked for the right to write the term key, and has granted it.
    pub may_write: bool,
}

/// The term key as it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredTerm {
    /// 0 if there is none.
    term: Term,
    /// The key's mod revision, 0 if there is none.
    modified: i64,
}

impl Terms {
    /// Of this boundary.
    pub fn new(keys: &Keys, boundary: &Boundary) -> Terms {
        let election = keys.election(boundary);
        let all = key(keys.all().unwrap_or(&election));
        Terms { scheme: keys.terms, key: key(&election), highest_seen: 0, all, may_write: false }
    }

    pub fn get(&self) -> TxnOp {
        TxnOp::get(self.key.as_str(), None)
    }

    /// A transaction that compares this does nothing, and still needs every right that winning needs.
    pub fn never(&self) -> Compare {
        Compare::version(self.key.as_str(), CompareOp::Less, 0)
    }

    pub fn is_still(&self, stored: StoredTerm) -> Compare {
        Compare::mod_revision(self.key.as_str(), CompareOp::Equal, stored.modified)
    }

    /// The write that goes with winning this term, if there is one.
    pub fn put(&self, term: Term) -> Option<TxnOp> {
        match self.scheme {
            Scheme::Stored => Some(TxnOp::put(self.key.as_str(), term.to_string(), None)),
            Scheme::Revision => None,
        }
    }

    /// Reads the term key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: it holds no accepted term, or the scheme does not allow it.
    pub fn read(&mut self, pair: Option<&KeyValue>) -> Result<StoredTerm, StoreError> {
        let Some(pair) = pair else { return Ok(StoredTerm::default()) };
        let digits = Some(pair.value()).filter(|digits| digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit));
        let term = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let term = term.filter(|&term| limits::is_believed_term(term)).inspect(|&term| self.saw(term));
        let key = escaped(&self.key);
        if self.scheme == Scheme::Revision {
            return Err(StoreError::Obstacle(format!(
                "the key {key} is there: candidates without ?term=revision have led this boundary, and their terms are larger \
                 than etcd's revisions; drop the option"
            )));
        }
        match term {
            Some(term) => Ok(StoredTerm { term, modified: pair.mod_revision() }),
            None => Err(StoreError::Obstacle(format!(
                "the key {key} holds no term that is believed: see it with etcdctl get, and put the last leader's term there, or \
                 delete it"
            ))),
        }
    }

    /// A leader's term, or the last one's.
    pub fn saw(&mut self, term: Term) {
        if limits::is_believed_term(term) {
            self.highest_seen = self.highest_seen.max(term);
        }
    }

    /// Whether a key that is created after this revision can lead.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: its term would not be above all that have been seen.
    pub fn check_next(&self, revision: i64) -> Result<(), StoreError> {
        match self.scheme {
            Scheme::Stored => Ok(()),
            Scheme::Revision => self.following(StoredTerm::default(), revision.saturating_add(1)).map(drop),
        }
    }

    /// The term of a candidate that has become the oldest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: there is none above all that have been seen, and no candidate leads under a smaller one.
    pub fn following(&self, stored: StoredTerm, created: i64) -> Result<Term, StoreError> {
        match self.scheme {
            Scheme::Stored => {
                limits::next_term(stored.term, clock::wall_millis(), self.highest_seen).ok_or_else(|| {
                    StoreError::Obstacle(format!(
                        "no term is left above {}: correct this host's clock, or the key {}",
                        self.highest_seen.max(stored.term),
                        escaped(&self.key)
                    ))
                })
            }
            Scheme::Revision => {
                let term = created.unsigned_abs();
                if term <= self.highest_seen {
                    return Err(StoreError::Obstacle(format!(
                        "etcd's revision {term} is not above term {}, which was led before this etcd was rebuilt, or without \
                         ?term=revision: drop the option, or restart this candidate if nothing compares terms",
                        self.highest_seen
                    )));
                }
                Ok(term)
            }
        }
    }

    /// For who may use the candidates' keys, but not the term key.
    pub fn refused(&self) -> StoreError {
        let right = match self.scheme {
            Scheme::Stored => "readwrite",
            Scheme::Revision => "read",
        };
        let keys = quoted(&self.all);
        StoreError::Refused(format!(
            "permission denied: the user needs the right {right} on the key {}, which holds the last term: run etcdctl role \
             grant-permission ROLE --prefix {right} {keys}",
            escaped(&self.key)
        ))
    }
}

fn key(election: &str) -> String {
    format!("{TERM_KEYS}/{election}")
}

/// As a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    let word = escaped(word);
    if is_plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The scheme of terms, about which a candidate's value and the URL may disagree.
///
/// # Errors
///
/// [`StoreError::Obstacle`]: that candidate counts in another way.
pub fn agree(ours: Scheme, theirs: Option<&str>, holder: &str) -> Result<(), StoreError> {
    if ours.name() == theirs {
        return Ok(());
    }
    let name = |scheme: Option<&str>| {
        let option = |scheme| format!("with ?term={}", escaped(&limits::cut(scheme, keys::EXCERPT_BYTES_MAX)));
        scheme.map_or_else(|| "without ?term=revision".to_owned(), |scheme| option(scheme.to_owned()))
    };
    Err(StoreError::Obstacle(format!(
        "{holder} campaigns {}, this candidate {}: give all candidates of a boundary the same option",
        name(theirs),
        name(ours.name())
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(scheme: Scheme) -> Terms {
        let keys = Keys { terms: scheme, ..Keys::below("/elect/".to_owned()) };
        Terms::new(&keys, &"cron".parse().expect("a name"))
    }

    #[test]
    fn the_next_term_is_above_what_is_stored_and_above_what_was_seen_elsewhere() {
        let mut terms = terms(Scheme::Stored);
        let now = clock::wall_millis();
        assert!(terms.following(StoredTerm::default(), 3).expect("a term") >= now, "in the number space of all stores");
        let ahead = now + 1_000_000_000;
        assert_eq!(terms.following(StoredTerm { term: ahead, modified: 7 }, 3).expect("a term"), ahead + 1);
        terms.saw(ahead + 5);
        assert_eq!(terms.following(StoredTerm::default(), 3).expect("a term"), ahead + 6, "an etcd that was rebuilt");
        terms.saw(u64::MAX);
        assert_eq!(terms.following(StoredTerm::default(), 3).expect("not believed"), ahead + 6);
        terms.saw(limits::TERM_MAX);
        assert!(matches!(terms.following(StoredTerm::default(), 3), Err(StoreError::Obstacle(_))));
    }

    #[test]
    fn a_revision_that_is_not_above_every_term_seen_is_no_term() {
        let mut terms = terms(Scheme::Revision);
        assert_eq!(terms.following(StoredTerm::default(), 3).expect("a term"), 3);
        terms.saw(9);
        for revision in [3, 9] {
            assert!(matches!(terms.following(StoredTerm::default(), revision), Err(StoreError::Obstacle(_))));
        }
        assert_eq!(terms.following(StoredTerm::default(), 10).expect("a term"), 10);
        assert!(terms.check_next(8).is_err() && terms.check_next(9).is_ok());
    }

    #[test]
    fn the_key_of_the_last_term_lies_in_no_elections_range() {
        assert_eq!(key("/elect/cron/"), "elect.term//elect/cron/");
        assert_eq!(quoted("elect.term//elect/"), "elect.term//elect/");
        assert_eq!(quoted("elect.term//it's/"), r"'elect.term//it'\''s/'");
    }

    #[test]
    fn schemes_agree_or_the_message_names_the_holder_and_both() {
        assert!(agree(Scheme::Stored, None, "web-1").is_ok());
        assert!(agree(Scheme::Revision, Some("revision"), "web-1").is_ok());
        for (ours, theirs) in
            [(Scheme::Stored, Some("revision")), (Scheme::Revision, None), (Scheme::Revision, Some("x"))]
        {
            let message = agree(ours, theirs, "web-1").expect_err("they differ").to_string();
            assert!(message.contains("web-1") && message.contains("?term=revision"), "{message}");
        }
    }
}
