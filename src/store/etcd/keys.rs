//! The values of candidates' keys: ours as JSON or as a name alone, or, from another program, any text.
//!
//! `etcdctl elect` and Go programs read and write the same keys ([`layout`](super::layout)).

use etcd_client::KeyValue;
use serde::{Deserialize, Deserializer, Serialize};

use super::layout::{Layout, ValueForm, is_candidate};
use super::terms::{self, Scheme};
use crate::store::record::{VERSION, check_version};
use crate::store::{Candidacy, Leader, StoreError, StoreKey};
use crate::text::escaped;
use elect_core::Term;
use elect_core::limits;

/// The part of a foreign text that a message repeats.
pub const EXCERPT_BYTES_MAX: usize = 64;

/// The value of a candidate's key. Fields are added, never renamed; unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    version: u32,
    id: String,
    name: String,
    host: String,
    port: Option<u16>,
    /// Milliseconds.
    ttl: u64,
    /// How this candidate counts its terms, if not as usual: see [`Scheme::name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheme: Option<String>,
    /// The layout in which this candidate looks for candidates of the same name in the other ones ([`peers`](super::peers)); absent if
    /// it does not look, or may not read all of them. A value of another type is no layout.
    #[serde(default, deserialize_with = "text_or_nothing", skip_serializing_if = "Option::is_none")]
    looks: Option<String>,
    /// Written by the transaction that verifies the win: a candidate without it does not lead yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    /// Likewise: when leadership began, in milliseconds since 1970 on the leader's wall clock. For display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// The candidate that a leader is about to leave the boundary to, an id or a name: a spare joins the queue then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}

impl Value {
    /// Of a candidate that waits.
    pub fn of(candidacy: &Candidacy, scheme: Scheme) -> Value {
        let identity = &candidacy.identity;
        Value {
            version: VERSION,
            id: identity.id.clone(),
            name: identity.name.clone(),
            host: identity.host.clone(),
            port: identity.port,
            ttl: u64::try_from(candidacy.ttl.as_millis()).unwrap_or(u64::MAX),
            scheme: scheme.name().map(str::to_owned),
            looks: None,
            term: None,
            since: None,
            successor: None,
        }
    }

    /// Whether other candidates read that this one looks for them.
    pub fn looks(&self) -> bool {
        self.looks.is_some()
    }

    /// The same for a candidate that looks for others, from this layout.
    pub fn looking(self, layout: Option<Layout>) -> Value {
        Value { looks: layout.map(|layout| layout.name().to_owned()), ..self }
    }

    /// The same with what `before` says of the candidacy, and not of the candidate.
    pub fn continuing(self, before: &Value) -> Value {
        Value { successor: before.successor.clone(), looks: before.looks.clone(), ..self }
    }

    /// Whether this key, a leader's, names the candidate of this value as the successor.
    pub fn is_named_by(&self, election: &str, pair: &KeyValue) -> bool {
        match StoredRecord::read(election, pair) {
            Ok(StoredRecord::Ours(Value { successor: Some(successor), .. })) => {
                successor == self.id || successor == self.name
            }
            Ok(StoredRecord::Ours(_) | StoredRecord::Foreign(_) | StoredRecord::Other) | Err(_) => false,
        }
    }

    /// Of a candidate that leads.
    pub fn leading(self, term: Term, since: u64) -> Value {
        Value { term: Some(term), since: Some(since), ..self }
    }

    /// The term and its beginning that a value of ours shows.
    pub fn led(&self, election: &str, pair: &KeyValue) -> Option<(Term, u64)> {
        match StoredRecord::read(election, pair) {
            Ok(StoredRecord::Ours(value)) if value.id == self.id => value.term.zip(value.since),
            Ok(StoredRecord::Ours(_) | StoredRecord::Foreign(_) | StoredRecord::Other) | Err(_) => None,
        }
    }

    /// As it is stored.
    pub fn stored(&self, form: ValueForm) -> Vec<u8> {
        match form {
            // Texts and numbers become JSON.
            ValueForm::Record => serde_json::to_vec(self).unwrap_or_default(),
            ValueForm::Name => self.name.clone().into_bytes(),
        }
    }
}

/// A candidate as its key shows it, ours or another program's.
#[derive(Debug)]
pub enum StoredRecord {
    Ours(Value),
    /// The beginning of its value, shown as a name; `etcdctl elect NAME PROPOSAL` stores the proposal.
    Foreign(String),
    /// A key that counts in the election and is not one of its candidates': its value is nothing to show.
    Other,
}

impl StoredRecord {
    /// Reads what a key in the range of an election holds. Names and hosts are cut, as S6 wants it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: it is too large, was written by a newer elect, or shows an id or a term above the accepted limit.
    pub fn read(election: &str, pair: &KeyValue) -> Result<StoredRecord, StoreError> {
        if !is_candidate(election, pair.key(), pair.lease()) {
            return Ok(StoredRecord::Other);
        }
        StoredRecord::parse(pair.value()).map_err(|why| StoreError::Obstacle(format!("{} {why}", holder(pair))))
    }

    /// The same of a value alone; the error is the rest of a sentence about its holder.
    pub fn parse(bytes: &[u8]) -> Result<StoredRecord, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
            #[serde(rename = "id")]
            _id: String,
        }
        if bytes.len() > limits::RECORD_BYTES_MAX {
            return Err(format!(
                "has a value of {} bytes, and elect reads {} at most: make it shorter",
                bytes.len(),
                limits::RECORD_BYTES_MAX
            ));
        }
        let foreign = || StoredRecord::Foreign(excerpt(bytes, limits::NAME_BYTES_MAX));
        // A version alone may be another program's; with an id it is ours.
        let Ok(Version { version, .. }) = serde_json::from_slice(bytes) else { return Ok(foreign()) };
        check_version(version).map_err(|newer| format!("writes records {newer}"))?;
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(foreign()) };
        if value.id.len() > limits::ID_BYTES_MAX {
            return Err(format!(
                "has an id of {} bytes, and elect reads {} at most",
                value.id.len(),
                limits::ID_BYTES_MAX
            ));
        }
        if let Some(term) = value.term.filter(|&term| !limits::is_believed_term(term)) {
            return Err(format!("leads under term {term}, which is not believed: stop it, and delete its key"));
        }
        Ok(StoredRecord::Ours(Value {
            name: limits::cut_name(value.name),
            host: limits::cut_name(value.host),
            ..value
        }))
    }

    /// Whether a candidate of this scheme may campaign beside it. Candidates of elect 0.1.0 (format 1) are waited for in either
    /// scheme, as other programs are.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: it counts its terms in another way.
    pub fn check(&self, scheme: Scheme, pair: &KeyValue) -> Result<(), StoreError> {
        match self {
            StoredRecord::Ours(value) if value.version >= 2 => {
                terms::agree(scheme, value.scheme.as_deref(), &holder(pair))
            }
            StoredRecord::Ours(_) | StoredRecord::Foreign(_) | StoredRecord::Other => Ok(()),
        }
    }

    /// The layout in which this candidate looks for others: none if that is not known.
    pub fn looks(&self) -> Option<Layout> {
        match self {
            StoredRecord::Ours(value) if value.version >= 2 => Layout::named(value.looks.as_deref()?),
            StoredRecord::Ours(_) | StoredRecord::Foreign(_) | StoredRecord::Other => None,
        }
    }

    /// Id and name of a candidate.
    pub fn candidate(self, pair: &KeyValue) -> (String, String) {
        match self {
            StoredRecord::Ours(value) => (value.id, value.name),
            StoredRecord::Foreign(name) => (lease(pair), shown_name(name, pair)),
            StoredRecord::Other => (lease(pair), other_name(pair)),
        }
    }

    /// The leader that the oldest candidate stands for: one of ours leads once its key shows the term, another program's at
    /// once. Where terms are not revisions, those of other programs are not known.
    pub fn leader(self, pair: &KeyValue, scheme: Scheme) -> Option<Leader> {
        match self {
            StoredRecord::Ours(value) => Some(Leader {
                term: Some(value.term?),
                id: value.id,
                name: value.name,
                host: Some(value.host),
                port: value.port,
                since: value.since,
                ttl: Some(limits::believed_ttl(value.ttl)),
                lease_left: None,
                store_key: Some(Box::new(place(pair))),
            }),
            StoredRecord::Foreign(name) => Some(Leader {
                id: lease(pair),
                name: shown_name(name, pair),
                host: None,
                port: None,
                term: (scheme == Scheme::Revision).then(|| pair.create_revision().unsigned_abs()),
                since: None,
                ttl: None,
                lease_left: None,
                store_key: Some(Box::new(place(pair))),
            }),
            // That it stands in the way is all that is known.
            StoredRecord::Other => Some(Leader {
                id: lease(pair),
                name: other_name(pair),
                host: None,
                port: None,
                term: None,
                since: None,
                ttl: None,
                lease_left: None,
                store_key: Some(Box::new(place(pair))),
            }),
        }
    }
}

/// The lease of a key, as etcdctl shows it.
fn lease(pair: &KeyValue) -> String {
    format!("{:x}", pair.lease())
}

/// The name of another program's candidate: its value, or its lease if that is empty, as it is for `etcdctl lock`.
fn shown_name(value: String, pair: &KeyValue) -> String {
    if value.trim().is_empty() { format!("lease {}", lease(pair)) } else { value }
}

/// The name that is shown for a key that is no candidate's.
fn other_name(pair: &KeyValue) -> String {
    limits::cut_name(format!("key {}", String::from_utf8_lossy(pair.key())))
}

fn place(pair: &KeyValue) -> StoreKey {
    StoreKey { key: String::from_utf8_lossy(pair.key()).into_owned(), lease: lease(pair) }
}

/// Whether it is a candidate of this election, and an elect has written it.
pub fn is_of_elect(election: &str, pair: &KeyValue) -> bool {
    matches!(StoredRecord::read(election, pair), Ok(StoredRecord::Ours(_)))
}

/// Id and name of a candidate that waits, whatever its key holds.
pub fn waiting(election: &str, pair: &KeyValue) -> (String, String) {
    match StoredRecord::read(election, pair) {
        Ok(stored) => stored.candidate(pair),
        Err(_) => (lease(pair), shown_name(excerpt(pair.value(), limits::NAME_BYTES_MAX), pair)),
    }
}

/// The term that a key shows, if it is that of a leader.
pub fn term(election: &str, pair: &KeyValue, scheme: Scheme) -> Option<Term> {
    StoredRecord::read(election, pair).ok()?.leader(pair, scheme)?.term
}

/// A candidate as messages name it: its name, or the beginning of what it wrote, and its key.
fn holder(pair: &KeyValue) -> String {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let bytes = pair.value();
    let name = match serde_json::from_slice(&bytes[..bytes.len().min(limits::RECORD_BYTES_MAX)]) {
        Ok(Named { name }) => limits::cut(name, EXCERPT_BYTES_MAX),
        Err(_) => excerpt(bytes, EXCERPT_BYTES_MAX),
    };
    let key = excerpt(pair.key(), limits::NAME_BYTES_MAX);
    format!("the candidate \"{}\" (key {})", escaped(&name), escaped(&key))
}

fn excerpt(bytes: &[u8], bytes_max: usize) -> String {
    limits::cut(String::from_utf8_lossy(&bytes[..bytes.len().min(bytes_max)]).into_owned(), bytes_max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn any_value_is_ours_or_another_programs_or_too_new() {
        let who = (proptest_support::text(), proptest_support::text(), proptest_support::text(), any::<Option<u16>>());
        let term = proptest::option::of(0..=limits::TERM_MAX);
        let numbers = (0..=VERSION, any::<u64>(), term, any::<Option<u64>>());
        let scheme = proptest::option::of(proptest_support::text());
        let values = (who, numbers, scheme)
            .prop_map(|((id, name, host, port), (version, ttl, term, since), scheme)| Value {
                version,
                id,
                name,
                host,
                port,
                ttl,
                looks: scheme.clone(),
                scheme,
                term,
                since,
                successor: None,
            })
            .prop_filter("no longer than an id", |value| value.id.len() <= limits::ID_BYTES_MAX)
            .boxed();
        proptest_support::check(proptest_support::FAST, &values, |value| {
            assert!(
                matches!(StoredRecord::parse(&value.stored(ValueForm::Record)), Ok(StoredRecord::Ours(read)) if read == value)
            );
        });
        let json = || values.clone().prop_map(|value| value.stored(ValueForm::Record));
        let oversized = (json(), prop::sample::select(vec!["id", "name", "host", "scheme"]), 0..20_000_usize);
        let oversized = oversized.prop_map(|(json, field, count)| {
            let mut value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            value[field] = "é".repeat(count).into();
            value.to_string().into_bytes()
        });
        let deep =
            (0..20_000_usize).prop_map(|depth| format!(r#"{{"version":2,"id":{}"#, "[".repeat(depth)).into_bytes());
        let unbelieved = (json(), any::<u64>()).prop_map(|(json, term)| {
            let mut value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            value["term"] = term.into();
            value.to_string().into_bytes()
        });
        let found = prop_oneof![
            proptest_support::random_bytes(),
            proptest_support::corrupted(json()),
            proptest_support::wrong_types(json()),
            oversized,
            deep,
            unbelieved
        ];
        proptest_support::check(proptest_support::FAST, &found, |bytes| match StoredRecord::parse(&bytes) {
            Ok(StoredRecord::Ours(value)) => {
                assert!(value.id.len() <= limits::ID_BYTES_MAX);
                assert!(value.name.len().max(value.host.len()) <= limits::NAME_BYTES_MAX);
                assert!(value.term.is_none_or(limits::is_believed_term));
                assert!(
                    matches!(StoredRecord::parse(&value.stored(ValueForm::Record)), Ok(StoredRecord::Ours(again)) if again == value)
                );
            }
            Ok(StoredRecord::Foreign(name)) => assert_eq!(name, excerpt(&bytes, limits::NAME_BYTES_MAX)),
            Ok(StoredRecord::Other) => panic!("a value does not say that"),
            Err(error) => {
                let reasons = ["format", "id", "term", "value"];
                assert!(error.len() < 200 && reasons.iter().any(|reason| error.contains(reason)), "{error}");
            }
        });
    }
}
