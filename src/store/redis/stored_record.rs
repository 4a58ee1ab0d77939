//! The hash of a boundary: its fields and their meaning.
//!
//! All input is limited here (S6): names and hosts are cut, a ttl counts as a day at most, and a record that this elect
//! cannot campaign beside is an obstacle, which names its holder.

use std::collections::HashMap;
use std::time::Duration;

use super::quorum::Count;
use crate::duration::about;
use crate::store::record::{Record, RecordState, check_version};
use crate::store::{Leader, StoreError};
use crate::text::escaped;
use elect_core::Term;
use elect_core::limits::{ID_BYTES_MAX, believed_ttl, cut_name, is_believed_term};
use elect_core::takeover::{Basis, Epoch, ObservedRecord, Reservation, StoreState};

/// Longest name of a host in Linux.
const HOST_NAME_BYTES_MAX: usize = 64;

/// The largest nonce: to a script whole numbers are exact so far.
pub const NONCE_MAX: u64 = 1 << 53;

/// The state of a key that a script saw at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The present incarnation of the server.
    pub incarnation: String,
    /// Its wall clock. For display.
    pub now: u64,
    pub epoch: Epoch,
    pub replicas: Count,
    pub stored: Option<StoredRecord>,
}

/// A record, and what only this store keeps with it. Fields are added, never renamed; unknown ones are ignored and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub record: Record,
    pub nonce: u64,
    /// When it was last written, on the server's wall clock. For display.
    pub renewed: u64,
    /// Where it was taken, or its last credited renewal was executed: the incarnation of the server,
    pub incarnation: String,
    /// and the epoch of its replicas.
    pub epoch: Epoch,
    /// The number of all replicas; `None`: not established.
    pub replicas: Option<u64>,
    /// How many replicas have to confirm each write; `None`: not established.
    pub required: Option<u64>,
    /// The term before, if that was in the same incarnation.
    pub previous_term: Option<Term>,
    /// The candidate that a free record is left to: an id or a name.
    pub reservation: Option<Reservation<String>>,
}

impl StoredRecord {
    /// Reads a hash; none is one without fields.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: it was written by a newer elect, or by another program.
    pub fn read(key: &str, fields: &HashMap<String, String>) -> Result<Option<StoredRecord>, StoreError> {
        if fields.is_empty() {
            return Ok(None);
        }
        let foreign = || StoreError::Obstacle(foreign(key));
        let text = |name: &str| fields.get(name).cloned().ok_or_else(foreign);
        let name = |name: &str| text(name).map(cut_name);
        let number = |name: &str| text(name)?.parse::<u64>().map_err(|_| foreign());
        let optional = |name: &str| match fields.get(name).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(number) => number.parse::<u64>().map(Some).map_err(|_| foreign()),
        };
        let version = u32::try_from(number("version")?).map_err(|_| foreign())?;
        let holder = || escaped(&name("name").unwrap_or_default()).into_owned();
        check_version(version).map_err(|newer| StoreError::Obstacle(format!("{} writes records {newer}", holder())))?;
        if let Some(scheme) = fields.get("scheme").filter(|scheme| !scheme.is_empty()) {
            return Err(StoreError::Obstacle(format!(
                "the terms of {} follow another scheme ({}): give all candidates the same store options",
                holder(),
                escaped(&cut_name(scheme.clone()))
            )));
        }
        let state = match text("state")?.as_str() {
            "held" => RecordState::Held,
            "free" => RecordState::Free,
            "vacant" => RecordState::Vacant,
            _ => return Err(foreign()),
        };
        let id = text("id")?;
        if id.len() > ID_BYTES_MAX {
            return Err(StoreError::Obstacle(format!(
                "the id of {} in {key:?} is longer than {ID_BYTES_MAX} bytes: delete the key",
                holder()
            )));
        }
        let term = number("term")?;
        if !is_believed_term(term) {
            return Err(StoreError::Obstacle(format!(
                "the term {term} of {} in {key:?} is too large to be followed: delete the key once nobody leads",
                holder()
            )));
        }
        let port = optional("port")?.map(u16::try_from).transpose().map_err(|_| foreign())?;
        let record = Record {
            version,
            state,
            id,
            name: name("name")?,
            host: name("host")?,
            port,
            term,
            ttl: Some(u64::try_from(believed_ttl(number("ttl")?).as_millis()).unwrap_or(u64::MAX)),
            since: number("since")?,
        };
        Ok(Some(StoredRecord {
            record,
            nonce: Some(number("nonce")?).filter(|nonce| *nonce <= NONCE_MAX).ok_or_else(foreign)?,
            renewed: number("renewed")?,
            incarnation: text("incarnation")?,
            epoch: match fields.get("epoch") {
                None => Epoch::default(),
                Some(text) => epoch(text).ok_or_else(foreign)?,
            },
            replicas: optional("replicas")?,
            required: optional("required")?,
            previous_term: optional("former")?,
            reservation: reservation(fields, term),
        }))
    }

    fn ttl(&self) -> Duration {
        believed_ttl(self.record.ttl.unwrap_or(u64::MAX))
    }

    /// The leader that it names, unless its lease has run out by the server's clock.
    fn leader(&self, now: u64) -> Option<Leader> {
        let ttl = u64::try_from(self.ttl().as_millis()).unwrap_or(u64::MAX);
        let left = self.renewed.saturating_add(ttl).checked_sub(now).filter(|left| *left > 0)?;
        // A clock that was set back would promise too much.
        let lease_left = Some(Duration::from_millis(left.min(ttl)));
        Some(Leader { lease_left, ..self.record.leader() })
    }
}

/// The reservation of a free record. An elect that does not know the fields has left those of an earlier term; they are a
/// courtesy, so that malformed ones count as none.
fn reservation(fields: &HashMap<String, String>, term: Term) -> Option<Reservation<String>> {
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let successor = fields.get("successor").filter(|_| number("reserved") == Some(term))?;
    Some(Reservation { successor: cut_name(successor.clone()), within: Duration::from_millis(number("within")?) })
}

/// The obstacle text for a key that holds something else.
pub fn foreign(key: &str) -> String {
    format!("the key {key:?} holds something that is not elect's: delete it, or choose other keys with ?prefix=")
}

/// The same for a text that expires, as lock keys do. `left`: the time after which the server deletes it.
pub fn foreign_lock(key: &str, holder: &str, left: Duration) -> String {
    let left = about(left);
    let held = if is_host_name(holder) { format!("{holder} holds it") } else { "it is held".to_owned() };
    format!(
        "the key {key:?} holds something that is not elect's, but a lock key, as DoNewsCode's leaderredis and redis-py have them: \
         {held} for another {left}; elect takes no part in that election: move those programs to elect, or choose other keys with \
         ?prefix="
    )
}

/// Lock keys of `DoNewsCode` hold the name of the leader's host. Any other text may be secret: with redis-py's 32 hexadecimal digits
/// any client can release its lock.
fn is_host_name(text: &str) -> bool {
    let is_in_host_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let is_token = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (1..=HOST_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_in_host_names) && !is_token
}

/// Attachments and commands.
pub fn epoch(text: &str) -> Option<Epoch> {
    let [attachments, commands] = numbers(text)?;
    Some(Epoch { attachments, commands })
}

/// Attached and prompt replicas, and strangers.
pub fn count(text: &str) -> Option<Count> {
    let [attached, prompt, strangers] = numbers(text)?;
    Some(Count { attached, prompt, strangers })
}

fn numbers<const COUNT: usize>(text: &str) -> Option<[u64; COUNT]> {
    let numbers: Option<Vec<u64>> = text.split('/').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// An epoch as records have it.
pub fn epoch_text(epoch: Epoch) -> String {
    format!("{}/{}", epoch.attachments, epoch.commands)
}

/// Where something was executed. Where no replica has to confirm anything, the time at which they attach does not matter.
pub fn basis(incarnation: String, epoch: Epoch, required: u64) -> Basis<String> {
    if required == 0 { Basis::of(incarnation) } else { Basis { incarnation, epoch } }
}

impl Snapshot {
    /// As the rule of takes sees it where so many replicas are required, and with a record that `replaces` another number of
    /// them taken for one of another incarnation.
    pub fn view(&self, required: u64, replaces: bool) -> StoreState<String> {
        let record = self.stored.as_ref().map(|stored| ObservedRecord {
            holder: stored.record.id.clone(),
            term: stored.record.term,
            nonce: stored.nonce,
            ttl: stored.ttl(),
            state: stored.record.state,
            basis: basis(if replaces { String::new() } else { stored.incarnation.clone() }, stored.epoch, required),
            reservation: stored.reservation.clone(),
        });
        let is_attached = self.replicas.attached >= required;
        StoreState { basis: basis(self.incarnation.clone(), self.epoch, required), is_attached, record }
    }

    /// The leader, or the candidate that seems to have died as the leader.
    pub fn leader(&self) -> Result<Option<Leader>, Abandoned> {
        match &self.stored {
            Some(stored) if stored.record.state == RecordState::Held => match stored.leader(self.now) {
                Some(leader) => Ok(Some(leader)),
                None => Err(Abandoned { name: stored.record.name.clone(), term: stored.record.term }),
            },
            Some(_) | None => Ok(None),
        }
    }

    /// The term before the leader's or, without a leader, the last one. Where the server may have forgotten leaders since
    /// the record was written, the last one is not known.
    pub fn previous_term(&self) -> Option<Term> {
        let stored = self.stored.as_ref()?;
        match self.leader() {
            Ok(Some(_)) => stored.previous_term,
            // A vacant record does not know whether its term was the last one.
            Ok(None) if stored.record.state == RecordState::Vacant => None,
            Ok(None) | Err(_) => Some(stored.record.term).filter(|_| self.is_fresh()),
        }
    }

    /// Whether no replica has attached since the last credited renewal of the record's holder.
    pub fn is_continuous(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| self.epoch.continues(stored.epoch))
    }

    /// Whether the record, if there is one, was taken in this incarnation of the server.
    pub fn is_fresh(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.incarnation == self.incarnation)
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
    use proptest::prelude::*;

    use super::*;
    use elect_core::limits::{NAME_BYTES_MAX, TTL_MAX};
    use elect_core::proptest_support;

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

    fn snapshot(now: u64) -> Snapshot {
        let stored = StoredRecord::read("k", &fields()).expect("a record");
        Snapshot { incarnation: "a/b".to_owned(), now, epoch: Epoch::default(), replicas: Count::default(), stored }
    }

    #[test]
    fn a_record_is_read_and_an_empty_hash_is_none() {
        let stored = StoredRecord::read("k", &fields()).expect("a record").expect("one");
        assert_eq!((stored.record.term, stored.nonce, stored.record.port), (7, 3, Some(8080)));
        assert_eq!(StoredRecord::read("k", &HashMap::new()).expect("none"), None);
        assert_eq!(StoredRecord::read("k", &with("port", "")).expect("a record").expect("one").record.port, None);
    }

    #[test]
    fn a_record_that_nobody_can_campaign_beside_is_an_obstacle_and_never_a_reason_to_end() {
        let refusal = |fields| {
            let error = StoredRecord::read("elect:cron", &fields).expect_err("refused");
            let StoreError::Obstacle(why) = error else { panic!("{error:?}") };
            why
        };
        let newer = refusal(with("version", "3"));
        assert!(newer.contains("upgrade") && newer.contains("web-1"), "{newer}");
        let scheme = refusal(with("scheme", "revision"));
        assert!(scheme.contains("scheme") && scheme.contains("web-1"), "{scheme}");
        let long = refusal(with("id", &"x".repeat(65)));
        assert!(long.contains("longer than 64") && long.contains("web-1"), "{long}");
        for term in [9_006_099_743_113_217_u64, 9_007_199_254_740_991, u64::MAX] {
            let large = refusal(with("term", &term.to_string()));
            assert!(large.contains("too large") && large.contains("web-1"), "{large}");
        }
        let mut forged = with("version", "3");
        forged.insert("name".to_owned(), "a\r\n\u{1b}[2Jb".to_owned());
        assert!(refusal(forged).contains("a\\r\\n\\u{1b}[2Jb"));
        let mut torn = fields();
        torn.remove("term");
        for fields in [
            torn,
            with("state", "perhaps"),
            with("term", "-1"),
            with("port", "99999"),
            with("version", ""),
            with("former", "?"),
            with("nonce", "9007199254740993"),
            with("nonce", "1e3"),
            with("ttl", "-1"),
            with("epoch", "7"),
            with("epoch", "7/x"),
            with("required", "some"),
            with("replicas", "-1"),
        ] {
            assert!(refusal(fields).contains("\"elect:cron\""));
        }
    }

    /// Records in which some fields are missing, too large, of another type, or unknown.
    fn miswritten() -> impl Strategy<Value = HashMap<String, String>> {
        let names = fields().into_keys().chain(["epoch", "required", "scheme"].map(str::to_owned)).collect::<Vec<_>>();
        let text = (proptest_support::text(), 0..3_000_usize).prop_map(|(text, times)| text.repeat(times));
        let value = prop_oneof![
            text.prop_map(Some),
            proptest_support::punctuation().prop_map(Some),
            any::<u64>().prop_map(|number| Some(number.to_string())),
            any::<i64>().prop_map(|number| Some(number.to_string())),
            any::<f64>().prop_map(|number| Some(number.to_string())),
            (any::<u64>(), any::<u64>()).prop_map(|(one, two)| Some(format!("{one}/{two}"))),
            prop::sample::select(vec!["NaN", "inf", "-0", "+7", "1e3", "0x10", " 7", "7\n", "free", "vacant", ""])
                .prop_map(|text| Some(text.to_owned())),
            Just(Some("[".repeat(5_000))),
            Just(Some("9".repeat(5_000))),
            Just(None),
        ];
        let change = (prop::sample::select(names), value);
        proptest::collection::vec(change, 1..4).prop_map(|changes| {
            let mut fields = fields();
            for (name, value) in changes {
                match value {
                    Some(value) => drop(fields.insert(name, value)),
                    None => drop(fields.remove(&name)),
                }
            }
            fields
        })
    }

    #[test]
    fn whatever_a_hash_holds_it_is_a_record_within_the_limits_or_an_obstacle() {
        let cases = (miswritten(), any::<u64>());
        proptest_support::check(proptest_support::FAST, &cases, |(fields, now)| {
            match StoredRecord::read("elect:cron", &fields) {
                Ok(stored) => {
                    let stored = stored.expect("it has fields");
                    let Record { id, name, host, term, ttl, .. } = &stored.record;
                    assert!(id.len() <= ID_BYTES_MAX && name.len() <= NAME_BYTES_MAX && host.len() <= NAME_BYTES_MAX);
                    assert!(is_believed_term(*term) && stored.nonce <= NONCE_MAX);
                    assert!(ttl.is_some_and(|ttl| Duration::from_millis(ttl) <= TTL_MAX));
                    let leader = stored.leader(now);
                    assert!(
                        leader.is_none_or(|leader| leader.lease_left <= Some(TTL_MAX) && leader.ttl <= Some(TTL_MAX))
                    );
                }
                Err(StoreError::Obstacle(text)) => {
                    assert!(text.len() < 4096 && !text.chars().any(crate::text::is_unsafe), "{text}");
                }
                Err(error) => panic!("not by its content: {error}"),
            }
        });
    }

    #[test]
    fn long_names_are_cut_and_a_forged_ttl_counts_as_a_day() {
        let read = |fields| StoredRecord::read("k", &fields).expect("a record").expect("one");
        for field in ["name", "host"] {
            let Record { name, host, .. } = read(with(field, &"\u{e4}".repeat(40_000))).record;
            assert!(name.len() <= 256 && host.len() <= 256, "{field}");
        }
        for ttl in ["86400001", "18446744073709551615"] {
            assert_eq!(read(with("ttl", ttl)).ttl(), Duration::from_secs(86_400), "{ttl}");
        }
    }

    #[test]
    fn a_reservation_counts_for_the_term_that_it_was_made_in_alone() {
        let read = |changes: &[(&str, &str)]| {
            let mut fields = with("state", "free");
            for (name, value) in [("successor", "web-2"), ("within", "3000"), ("reserved", "7")].iter().chain(changes) {
                fields.insert((*name).to_owned(), (*value).to_owned());
            }
            StoredRecord::read("k", &fields).expect("a record").expect("one").reservation
        };
        let (successor, within) = ("web-2".to_owned(), Duration::from_secs(3));
        assert_eq!(read(&[]), Some(Reservation { successor, within }));
        for left_over in [("reserved", "6"), ("reserved", ""), ("within", "-1"), ("within", "x")] {
            assert_eq!(read(&[left_over]), None, "{left_over:?}");
        }
    }

    #[test]
    fn a_record_of_an_elect_before_epochs_is_read() {
        let stored = StoredRecord::read("k", &fields()).expect("a record").expect("one");
        assert_eq!((stored.epoch, stored.replicas, stored.required), (Epoch::default(), Some(2), None));
        let mut newer = with("epoch", "5/900");
        newer.insert("required".to_owned(), "1".to_owned());
        let stored = StoredRecord::read("k", &newer).expect("a record").expect("one");
        assert_eq!((stored.epoch.attachments, stored.epoch.commands, stored.required), (5, 900, Some(1)));
    }

    #[test]
    fn a_lease_that_has_run_out_by_the_servers_clock_names_nobody() {
        assert_eq!([52_000, 60_000].map(|now| snapshot(now).previous_term()), [Some(5), Some(7)]);
        let left = |now| snapshot(now).leader().map(|leader| leader.and_then(|leader| leader.lease_left));
        assert_eq!(left(52_000), Ok(Some(Duration::from_secs(8))));
        assert_eq!(left(59_999), Ok(Some(Duration::from_millis(1))));
        assert!(left(60_000).expect_err("abandoned").to_string().contains("web-1 led in term 7"));
        assert_eq!(left(1), Ok(Some(Duration::from_secs(10))), "its clock was set back");
    }
}
