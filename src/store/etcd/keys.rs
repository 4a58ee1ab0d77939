//! Keys and values, in the layout of etcd's own `concurrency.Election`.
//!
//! `<prefix><boundary>/<lease id in hex>`, its value ours as JSON or, from another program, any text. `etcdctl elect` and Go
//! programs read and write the same keys.

use std::borrow::Cow;
use std::time::Duration;

use etcd_client::KeyValue;
use percent_encoding::{AsciiSet, percent_decode, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::boundary::Boundary;
use crate::election::Term;
use crate::store::record::VERSION;
use crate::store::{Candidacy, Leader, StoreError};

/// `a/b` must not be found below `a`, and what stands for a slash must not be written by hand.
const RESERVED: &AsciiSet = &AsciiSet::EMPTY.add(b'/').add(b'%');

/// What all candidates' keys of a boundary begin with.
pub fn election(prefix: &str, boundary: &Boundary) -> String {
    format!("{prefix}{}/", encode(boundary))
}

fn encode(boundary: &Boundary) -> Cow<'_, str> {
    // Bytes beyond ASCII stay as they are: a key is bytes to etcd, and people can read them.
    let mut encoded = String::with_capacity(boundary.as_str().len());
    for c in boundary.as_str().chars() {
        if c.is_ascii() {
            let mut buffer = [0; 4];
            encoded.extend(utf8_percent_encode(c.encode_utf8(&mut buffer), RESERVED));
        } else {
            encoded.push(c);
        }
    }
    encoded.into()
}

/// The key of the candidate that holds this lease.
pub fn candidate(prefix: &str, boundary: &Boundary, lease: i64) -> String {
    format!("{}{lease:x}", election(prefix, boundary))
}

/// The boundary that a key is about, if it is about one.
pub fn boundary(prefix: &str, key: &[u8]) -> Option<Boundary> {
    let rest = key.strip_prefix(prefix.as_bytes())?;
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    let (name, lease) = (&rest[..slash], &rest[slash + 1..]);
    if lease.is_empty() || !lease.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let boundary: Boundary = percent_decode(name).decode_utf8().ok()?.parse().ok()?;
    // Written in another way it would be a second queue for the same name.
    (encode(&boundary).as_bytes() == name).then_some(boundary)
}

/// What a candidate's key holds. Fields are added, never renamed; unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    version: u32,
    id: String,
    name: String,
    host: String,
    port: Option<u16>,
    /// Milliseconds.
    ttl: u64,
    /// Known once it leads: the create revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    /// Likewise: when leadership began, in milliseconds since 1970 on the leader's wall clock. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
}

impl Value {
    /// Of a candidate that waits.
    pub fn of(candidacy: &Candidacy) -> Value {
        let identity = &candidacy.identity;
        Value {
            version: VERSION,
            id: identity.id.clone(),
            name: identity.name.clone(),
            host: identity.host.clone(),
            port: identity.port,
            ttl: u64::try_from(candidacy.ttl.as_millis()).unwrap_or(u64::MAX),
            term: None,
            since: None,
        }
    }

    /// Of a candidate that leads.
    pub fn leading(self, term: Term, since: u64) -> Value {
        Value { term: Some(term), since: Some(since), ..self }
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        // Texts and numbers become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A candidate as its key shows it, ours or another program's.
#[derive(Debug)]
pub enum Entry {
    Ours(Value),
    /// Its value, shown as a name; `etcdctl elect NAME PROPOSAL` stores the proposal.
    Foreign(String),
}

impl Entry {
    /// Reads a value.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`]: it was written by a newer elect.
    pub fn read(pair: &KeyValue) -> Result<Entry, StoreError> {
        Entry::parse(pair.value())
    }

    fn parse(bytes: &[u8]) -> Result<Entry, StoreError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
            #[serde(rename = "id")]
            _id: String,
        }
        let foreign = || Entry::Foreign(String::from_utf8_lossy(bytes).into_owned());
        // A version alone may be anybody's; with an id it is ours.
        let Ok(Version { version, .. }) = serde_json::from_slice(bytes) else { return Ok(foreign()) };
        if version > VERSION {
            return Err(StoreError::Refused(format!(
                "a candidate writes records of format {version}, and this elect knows {VERSION}: upgrade it"
            )));
        }
        Ok(serde_json::from_slice(bytes).map_or_else(|_| foreign(), Entry::Ours))
    }

    /// Id and name of a candidate.
    pub fn candidate(self, pair: &KeyValue) -> (String, String) {
        match self {
            Entry::Ours(value) => (value.id, value.name),
            Entry::Foreign(name) => (format!("{:x}", pair.lease()), name),
        }
    }

    /// The leader that it stands for.
    pub fn leader(self, pair: &KeyValue) -> Leader {
        let term = Some(term(pair));
        match self {
            Entry::Ours(value) => Leader {
                id: value.id,
                name: value.name,
                host: Some(value.host),
                port: value.port,
                term,
                since: value.since,
                ttl: Some(Duration::from_millis(value.ttl)),
                lease_left: None,
            },
            Entry::Foreign(name) => Leader {
                id: format!("{:x}", pair.lease()),
                name,
                host: None,
                port: None,
                term,
                since: None,
                ttl: None,
                lease_left: None,
            },
        }
    }
}

/// The fencing token: the revision that created the key.
pub fn term(pair: &KeyValue) -> Term {
    pair.create_revision().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz;

    fn name(text: &str) -> Boundary {
        text.parse().expect("a name")
    }

    #[test]
    fn no_boundary_lies_below_another() {
        let names = ["a", "a/b", "a2", "a%2Fb", "ä/ö", "a b", "%"];
        for one in names {
            let key = candidate("/elect/", &name(one), 0x1f);
            assert_eq!(boundary("/elect/", key.as_bytes()), Some(name(one)), "{key}");
            for other in names.iter().filter(|&&other| other != one) {
                assert!(!key.starts_with(&election("/elect/", &name(other))), "{key} lies below {other}");
            }
        }
        assert_eq!(candidate("/elect/", &name("cron"), 0x694d_71dd), "/elect/cron/694d71dd");
    }

    #[test]
    fn keys_that_are_nobodys_candidacy_are_passed_by() {
        for key in ["/elect/", "/elect/a", "/elect/a/", "/elect/a/xyz", "/other/a/1", "/elect/a/b/1", "/elect//1"] {
            assert_eq!(boundary("/elect/", key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn any_key_is_nobodys_or_lies_below_one_boundary() {
        let path = || prop_oneof![fuzz::text(), fuzz::punctuation()];
        let keys = (path(), path()).prop_map(|(one, other)| format!("/elect/{one}/{other}").into_bytes());
        fuzz::holds(fuzz::CHEAP, &prop_oneof![fuzz::noise(), keys], |key| {
            if let Some(found) = boundary("/elect/", &key) {
                assert!(key.starts_with(election("/elect/", &found).as_bytes()));
            }
        });
        fuzz::holds(fuzz::CHEAP, &(path(), 1..=i64::MAX), |(text, lease)| {
            if let Ok(name) = text.parse() {
                assert_eq!(boundary("/elect/", candidate("/elect/", &name, lease).as_bytes()), Some(name));
            }
        });
    }

    #[test]
    fn any_value_is_ours_or_another_programs_or_too_new() {
        let who = (fuzz::text(), fuzz::text(), fuzz::text(), any::<Option<u16>>());
        let numbers = (0..=VERSION, any::<u64>(), any::<Option<Term>>(), any::<Option<u64>>());
        let values = (who, numbers)
            .prop_map(|((id, name, host, port), (version, ttl, term, since))| Value {
                version,
                id,
                name,
                host,
                port,
                ttl,
                term,
                since,
            })
            .boxed();
        fuzz::holds(fuzz::CHEAP, &values, |value| {
            assert!(matches!(Entry::parse(&value.to_json()), Ok(Entry::Ours(read)) if read == value));
        });
        let json = || values.clone().prop_map(|value| value.to_json());
        let found = prop_oneof![fuzz::noise(), fuzz::mangled(json()), fuzz::miswritten(json())];
        fuzz::holds(fuzz::CHEAP, &found, |bytes| match Entry::parse(&bytes) {
            Ok(Entry::Ours(value)) => {
                assert!(matches!(Entry::parse(&value.to_json()), Ok(Entry::Ours(again)) if again == value));
            }
            Ok(Entry::Foreign(name)) => assert_eq!(name, String::from_utf8_lossy(&bytes)),
            Err(error) => assert!(matches!(error, StoreError::Refused(_)), "{error}"),
        });
    }
}
