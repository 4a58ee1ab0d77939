//! One hash for each boundary: what is in it, and what it says.

use std::collections::HashMap;
use std::time::Duration;

use crate::election::Term;
use crate::store::record::{Record, RecordState, VERSION};
use crate::store::takeover::{Basis, Trace, View};
use crate::store::{Leader, StoreError};

/// To a script whole numbers are exact so far.
pub const MOST: u64 = 1 << 53;

/// What a script saw in one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The present life of the server.
    pub life: String,
    /// Its wall clock. For people.
    pub now: u64,
    /// The most replicas that it, or the record, has ever seen.
    pub replicas: u64,
    pub entry: Option<Entry>,
}

/// A record, and what only this store keeps with it. Fields are added, never renamed; unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub record: Record,
    pub nonce: u64,
    /// When it was last written, on the server's wall clock. For people.
    pub renewed: u64,
    /// The life of the server in which it was taken.
    pub incarnation: String,
    /// The term before, if that was in the same life.
    pub former: Option<Term>,
}

impl Entry {
    /// Reads a hash; none is one without fields.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`]: it was written by a newer elect, or by somebody else.
    pub fn read(key: &str, fields: &HashMap<String, String>) -> Result<Option<Entry>, StoreError> {
        if fields.is_empty() {
            return Ok(None);
        }
        let foreign = || StoreError::Refused(foreign(key));
        let text = |name: &str| fields.get(name).cloned().ok_or_else(foreign);
        let number = |name: &str| text(name)?.parse::<u64>().map_err(|_| foreign());
        // The scripts count no further.
        let counted =
            |name: &str| number(name).and_then(|number| Some(number).filter(|n| *n <= MOST).ok_or_else(foreign));
        let version = u32::try_from(number("version")?).map_err(|_| foreign())?;
        if version > VERSION {
            return Err(StoreError::Refused(format!(
                "a candidate writes records of format {version}, and this elect knows {VERSION}: upgrade it"
            )));
        }
        let state = match text("state")?.as_str() {
            "held" => RecordState::Held,
            "free" => RecordState::Free,
            "vacant" => RecordState::Vacant,
            _ => return Err(foreign()),
        };
        let port = match text("port")?.as_str() {
            "" => None,
            port => Some(port.parse().map_err(|_| foreign())?),
        };
        let record = Record {
            version,
            state,
            id: text("id")?,
            name: text("name")?,
            host: text("host")?,
            port,
            term: counted("term")?,
            ttl: Some(number("ttl")?),
            since: number("since")?,
        };
        let (nonce, renewed) = (counted("nonce")?, number("renewed")?);
        let former = match fields.get("former").map(String::as_str) {
            None | Some("") => None,
            Some(term) => Some(term.parse().map_err(|_| foreign())?),
        };
        Ok(Some(Entry { record, nonce, renewed, incarnation: text("incarnation")?, former }))
    }

    fn ttl(&self) -> u64 {
        self.record.ttl.unwrap_or(u64::MAX)
    }

    /// The leader that it names, unless its lease has run out by the server's clock.
    fn leader(&self, now: u64) -> Option<Leader> {
        let left = self.renewed.saturating_add(self.ttl()).checked_sub(now).filter(|left| *left > 0)?;
        // A clock that was set back would promise too much.
        let lease_left = Some(Duration::from_millis(left.min(self.ttl())));
        Some(Leader { lease_left, ..self.record.leader() })
    }
}

/// What is wrong with a key that holds something else.
pub fn foreign(key: &str) -> String {
    format!("the key {key:?} holds something that is not elect's: delete it, or choose other keys with ?prefix=")
}

impl Glance {
    /// As the rule of takes sees it.
    pub fn view(&self) -> View<String> {
        let record = self.entry.as_ref().map(|entry| Trace {
            holder: entry.record.id.clone(),
            term: entry.record.term,
            nonce: entry.nonce,
            ttl: Duration::from_millis(entry.ttl()),
            state: entry.record.state,
            basis: Basis::of(entry.incarnation.clone()),
        });
        View { basis: Basis::of(self.life.clone()), is_attached: true, record }
    }

    /// Who leads, or who seems to have died leading.
    pub fn leader(&self) -> Result<Option<Leader>, Abandoned> {
        match &self.entry {
            Some(entry) if entry.record.state == RecordState::Held => match entry.leader(self.now) {
                Some(leader) => Ok(Some(leader)),
                None => Err(Abandoned { name: entry.record.name.clone(), term: entry.record.term }),
            },
            Some(_) | None => Ok(None),
        }
    }

    /// The term before the leader's or, if nobody leads, the last one. Where the server may have forgotten leaders since
    /// the record was written, the last one is not known.
    pub fn former(&self) -> Option<Term> {
        let entry = self.entry.as_ref()?;
        match self.leader() {
            Ok(Some(_)) => entry.former,
            Ok(None) | Err(_) => Some(entry.record.term).filter(|_| self.is_fresh()),
        }
    }

    /// Whether the record, if there is one, was taken in this life of the server.
    pub fn is_fresh(&self) -> bool {
        self.entry.as_ref().is_none_or(|entry| entry.incarnation == self.life)
    }
}

/// A record whose leader has not been heard of for longer than its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    name: String,
    term: Term,
}

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} led in term {} and has not renewed its lease", self.name, self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> HashMap<String, String> {
        let fields = [
            ("version", "1"),
            ("state", "held"),
            ("id", "i"),
            ("name", "web-1"),
            ("host", "h"),
            ("port", "8080"),
            ("term", "7"),
            ("ttl", "10000"),
            ("since", "1000"),
            ("nonce", "3"),
            ("renewed", "50000"),
            ("incarnation", "a/b"),
            ("replicas", "2"),
            ("former", "5"),
            ("of-the-future", "x"),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn with(name: &str, value: &str) -> HashMap<String, String> {
        let mut fields = fields();
        fields.insert(name.to_owned(), value.to_owned());
        fields
    }

    fn glance(now: u64) -> Glance {
        let entry = Entry::read("k", &fields()).expect("a record");
        Glance { life: "a/b".to_owned(), now, replicas: 2, entry }
    }

    #[test]
    fn a_record_is_read_and_an_empty_hash_is_none() {
        let entry = Entry::read("k", &fields()).expect("a record").expect("one");
        assert_eq!((entry.record.term, entry.nonce, entry.record.port), (7, 3, Some(8080)));
        assert_eq!(Entry::read("k", &HashMap::new()).expect("none"), None);
        assert_eq!(Entry::read("k", &with("port", "")).expect("a record").expect("one").record.port, None);
    }

    #[test]
    fn a_newer_format_and_what_is_not_ours_are_refused() {
        let refusal = |fields| Entry::read("elect:cron", &fields).expect_err("refused").to_string();
        assert!(refusal(with("version", "3")).contains("upgrade"));
        let mut torn = fields();
        torn.remove("term");
        for fields in [
            torn,
            with("state", "perhaps"),
            with("term", "-1"),
            with("port", "99999"),
            with("version", ""),
            with("former", "?"),
            with("term", "18446744073709551615"),
            with("nonce", "9007199254740993"),
        ] {
            assert!(refusal(fields).contains("\"elect:cron\""));
        }
    }

    #[test]
    fn a_lease_that_has_run_out_by_the_servers_clock_names_nobody() {
        assert_eq!([52_000, 60_000].map(|now| glance(now).former()), [Some(5), Some(7)]);
        let left = |now| glance(now).leader().map(|leader| leader.and_then(|leader| leader.lease_left));
        assert_eq!(left(52_000), Ok(Some(Duration::from_secs(8))));
        assert_eq!(left(59_999), Ok(Some(Duration::from_millis(1))));
        assert!(left(60_000).expect_err("abandoned").to_string().contains("web-1 led in term 7"));
        assert_eq!(left(1), Ok(Some(Duration::from_secs(10))), "its clock was set back");
    }
}
