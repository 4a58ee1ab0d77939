//! How many replicas have to confirm a write, and how many there are (DESIGN.md 5.4).
//!
//! The number of required replicas is kept in the record, so that no two candidates lead by different ones. `all` and
//! `majority` refer to the number of all replicas, which is kept there as well. It grows only when all of the new number have
//! confirmed a write, and are all there at the next one, which writes the number; it shrinks only by hand. Nothing that merely looks
//! like a replica can raise it: neither a debug client nor a dump nor a link that is half open confirms anything.

use serde::{Deserialize, Serialize};

use super::stored_record::StoredRecord;
use crate::store::StoreError;
use crate::store::record::RecordState;

/// How many replicas have to confirm a write before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replicas {
    /// As many as have ever been seen.
    All,
    /// So many that they and the primary are more than half of all servers.
    Majority,
    /// So many.
    Number(u64),
}

/// The replicas of a server at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// With an address of their own, and having confirmed something.
    pub attached: u64,
    /// Those of them that have done so lately.
    pub prompt: u64,
    /// Clients that confirm writes and are no replicas; `WAIT` counts them.
    pub strangers: u64,
}

/// By which numbers one candidate campaigns or leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    option: Replicas,
    /// The number of all replicas; `None`: not established yet.
    pub all: Option<u64>,
    /// How many have to confirm a write.
    pub required: u64,
    /// Whether the record is to be taken for one of another incarnation, because it names another number that the option
    /// `replicas-was` accepts.
    pub replaces: bool,
    /// A number of all replicas that have confirmed a write, larger than the one in the record.
    pub growth: Option<u64>,
}

impl Replicas {
    /// The required number where there are so many in all.
    #[must_use]
    pub const fn of(self, all: u64) -> u64 {
        match self {
            Replicas::All => all,
            Replicas::Majority => all.div_ceil(2),
            Replicas::Number(number) => number,
        }
    }
}

impl std::fmt::Display for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Replicas::All => f.write_str("all"),
            Replicas::Majority => f.write_str("majority"),
            Replicas::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Quorum {
    /// The numbers for a record, which `known` replaces where there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: the record names another number.
    pub fn of(
        option: Replicas,
        was: Option<u64>,
        stored: Option<&StoredRecord>,
        known: Option<u64>,
        count: Count,
    ) -> Result<Quorum, StoreError> {
        let all = match stored {
            Some(stored) if stored.record.state != RecordState::Vacant => stored.replicas,
            Some(stored) => stored.replicas.max(known),
            None => known,
        };
        // Where no number is established, every replica that is attached has to confirm, or a majority of them.
        let quorum = |all: Option<u64>, replaces| {
            let required = option.of(all.unwrap_or(count.attached));
            Quorum { option, all, required, replaces, growth: None }
        };
        let ours = quorum(all, false);
        // A vacant record, and one of an elect before 0.2, names the number of all replicas alone.
        let theirs = stored.and_then(|stored| stored.required);
        let differs = theirs.is_some_and(|theirs| theirs != ours.required);
        let asked = theirs.or(all.map(|_| ours.required));
        if was.is_some() && was == asked && (differs || Some(option.of(count.attached)) < asked) {
            return Ok(quorum(None, true));
        }
        let Some(theirs) = theirs.filter(|_| differs) else { return Ok(ours) };
        Err(StoreError::Obstacle(format!(
            "the record says that {theirs} replicas confirm each write, and replicas={option} here means {}: give all candidates \
             the same option; once no candidate uses the old one, ?replicas={option}&replicas-was={theirs} replaces it",
            ours.required
        )))
    }

    /// The number of all replicas as the record has it.
    pub fn all_in_record(&self) -> String {
        self.all.map(|all| all.to_string()).unwrap_or_default()
    }

    /// The required number as the record has it: none while it depends on a number that is not established.
    pub fn required_in_record(&self) -> String {
        match self.option {
            Replicas::All | Replicas::Majority if self.all.is_none() => String::new(),
            Replicas::All | Replicas::Majority | Replicas::Number(_) => self.required.to_string(),
        }
    }

    /// The growth that the next renewal writes: the number of all, and of the required ones.
    pub fn growth_in_record(&self) -> [String; 2] {
        let texts = |all: u64| [all.to_string(), self.option.of(all).to_string()];
        self.growth.map(texts).unwrap_or_default()
    }

    /// How many confirmations to wait for: those that are required, or more where the number may grow.
    pub fn wanted(&self, last: Count) -> u64 {
        let growth = self.may_grow_to(last).unwrap_or_default();
        match self.required.max(growth).max(self.growth.unwrap_or_default()) {
            0 => 0,
            wanted => wanted + last.strangers,
        }
    }

    /// Whether the first renewal may be sent together with the take: no replica has to confirm either, and the take cannot bring a
    /// number of replicas that this renewal would have to write.
    pub fn takes_and_renews_at_once(&self, last: Count) -> bool {
        self.wanted(last) == 0 && self.may_grow_to(last).is_none()
    }

    /// Whether a write that so many have confirmed counts.
    pub const fn is_confirmed(&self, confirmed: u64, count: Count) -> bool {
        self.required == 0 || confirmed >= self.required + count.strangers
    }

    /// Takes in how many have confirmed a write, and how many replicas there were.
    pub fn learn(&mut self, confirmed: u64, count: Count) {
        self.growth = self.may_grow_to(count).filter(|growth| confirmed >= growth + count.strangers);
    }

    /// The record has these numbers now, because a growth has been written.
    pub fn adopt(&mut self, all: Option<u64>) {
        if all.is_some() && all != self.all && all == self.growth {
            self.all = all;
            self.required = self.option.of(all.unwrap_or_default());
        }
        self.growth = None;
    }

    fn may_grow_to(&self, count: Count) -> Option<u64> {
        let grows = match (self.option, self.all) {
            (Replicas::Number(_), _) => false,
            (Replicas::All | Replicas::Majority, Some(all)) => count.prompt > all,
            // One that is attached and silent may be dead, or cut off from a server that should not lead.
            (Replicas::All | Replicas::Majority, None) => count.prompt == count.attached,
        };
        Some(count.prompt).filter(|_| grows)
    }

    /// Whether a failover may lose what so few have confirmed, where there are so many.
    pub fn is_minority(&self, count: Count) -> bool {
        let all = self.all.unwrap_or_default().max(count.attached);
        self.required < all.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn stored(state: &str, replicas: &str, required: &str) -> StoredRecord {
        let fields = [
            ("version", "2"),
            ("state", state),
            ("id", "i"),
            ("name", "n"),
            ("host", "h"),
            ("port", ""),
            ("term", "7"),
            ("ttl", "10000"),
            ("since", "1"),
            ("nonce", "3"),
            ("renewed", "1"),
            ("incarnation", "a/b"),
            ("epoch", "1/2"),
            ("replicas", replicas),
            ("required", required),
        ];
        let fields: HashMap<String, String> =
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        StoredRecord::read("k", &fields).expect("a record").expect("one")
    }

    const fn count(attached: u64, prompt: u64) -> Count {
        Count { attached, prompt, strangers: 0 }
    }

    fn of(
        option: Replicas,
        was: Option<u64>,
        stored: &StoredRecord,
        count: Count,
    ) -> Result<(Option<u64>, u64, bool), String> {
        let quorum = Quorum::of(option, was, Some(stored), None, count).map_err(|error| error.to_string())?;
        Ok((quorum.all, quorum.required, quorum.replaces))
    }

    #[test]
    fn a_majority_is_more_than_half_with_the_primary() {
        for (all, required) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
            assert_eq!(Replicas::Majority.of(all), required, "{all}");
            assert!(2 * (required + 1) > all + 1, "with the primary");
        }
    }

    #[test]
    fn all_candidates_of_a_record_require_the_same() {
        let two = stored("held", "2", "2");
        assert_eq!(of(Replicas::All, None, &two, count(1, 1)), Ok((Some(2), 2, false)));
        assert_eq!(of(Replicas::Number(2), None, &two, count(0, 0)), Ok((Some(2), 2, false)));
        for option in [Replicas::Majority, Replicas::Number(1), Replicas::Number(0), Replicas::Number(3)] {
            let why = of(option, None, &two, count(2, 2)).expect_err("another number");
            assert!(why.contains(&format!("?replicas={option}&replicas-was=2")), "{why}");
            assert!(of(option, Some(1), &two, count(2, 2)).is_err(), "not the number that was");
            let replaced = of(option, Some(2), &two, count(2, 2)).expect("accepted");
            assert_eq!(replaced, (None, option.of(2), true));
        }
        // The number is the required one already: the option that was left in the URL changes nothing, unless a replica is gone.
        assert_eq!(of(Replicas::All, Some(2), &two, count(2, 2)), Ok((Some(2), 2, false)));
        assert_eq!(of(Replicas::All, Some(2), &two, count(3, 3)), Ok((Some(2), 2, false)));
        assert_eq!(of(Replicas::All, Some(2), &two, count(1, 1)), Ok((None, 1, true)));
    }

    #[test]
    fn a_record_without_a_number_leaves_it_to_what_is_attached() {
        for unsettled in [stored("vacant", "", ""), stored("held", "", "")] {
            assert_eq!(of(Replicas::All, None, &unsettled, count(2, 0)), Ok((None, 2, false)));
            assert_eq!(of(Replicas::Majority, None, &unsettled, count(2, 0)), Ok((None, 1, false)));
            assert_eq!(of(Replicas::Number(3), None, &unsettled, count(2, 0)), Ok((None, 3, false)));
        }
        let known =
            Quorum::of(Replicas::All, None, Some(&stored("vacant", "1", "")), Some(2), count(0, 0)).expect("agreed");
        assert_eq!(known.all, Some(2), "a vacant record forgets nothing that we know");
        assert_eq!(of(Replicas::Majority, Some(2), &stored("vacant", "4", ""), count(2, 2)), Ok((None, 1, true)));
    }

    #[test]
    fn the_number_grows_by_what_was_confirmed_alone() {
        let mut quorum =
            Quorum::of(Replicas::All, None, Some(&stored("held", "1", "1")), None, count(2, 2)).expect("agreed");
        assert_eq!(quorum.wanted(count(2, 2)), 2, "it may grow");
        assert_eq!(quorum.wanted(count(2, 1)), 1, "one of them says nothing");
        quorum.learn(1, count(2, 2));
        assert_eq!(quorum.growth, None);
        quorum.learn(2, Count { strangers: 1, ..count(2, 2) });
        assert_eq!(quorum.growth, None, "one of two may be the stranger");
        quorum.learn(2, count(2, 2));
        assert_eq!((quorum.growth, quorum.required), (Some(2), 1), "not before it is written");
        assert_eq!(quorum.growth_in_record(), ["2", "2"]);
        let mut lost = quorum;
        lost.adopt(Some(1));
        assert_eq!((lost.growth, lost.required), (None, 1), "it was not there any more");
        quorum.adopt(Some(2));
        assert_eq!((quorum.all, quorum.required, quorum.growth), (Some(2), 2, None));

        let mut number = Quorum::of(Replicas::Number(1), None, None, None, count(2, 2)).expect("agreed");
        number.learn(2, count(2, 2));
        assert_eq!((number.growth, number.wanted(count(2, 2))), (None, 1));
        let mut silent = Quorum::of(Replicas::All, None, None, None, count(2, 0)).expect("agreed");
        silent.learn(2, count(2, 0));
        assert_eq!(
            (silent.growth, silent.required_in_record().as_str()),
            (None, ""),
            "not settled while they say nothing"
        );
    }

    #[test]
    fn a_take_is_renewed_at_once_where_nothing_has_to_be_confirmed_or_written() {
        let of = |option, all: &str, count| {
            let record = stored("free", all, "");
            let quorum = Quorum::of(option, None, Some(&record), None, count).expect("agreed");
            quorum.takes_and_renews_at_once(count)
        };
        assert!(of(Replicas::All, "0", count(0, 0)));
        assert!(of(Replicas::Number(0), "", count(1, 1)));
        assert!(!of(Replicas::All, "", count(0, 0)), "the number is not in the record yet");
        assert!(!of(Replicas::All, "0", count(1, 1)), "it may grow");
        assert!(!of(Replicas::Majority, "2", count(2, 2)));
    }

    #[test]
    fn a_stranger_stands_in_for_nobody() {
        let quorum = Quorum::of(Replicas::Number(1), None, None, None, count(1, 1)).expect("agreed");
        let beside = Count { strangers: 1, ..count(1, 1) };
        assert_eq!(quorum.wanted(beside), 2);
        assert!(
            !quorum.is_confirmed(1, beside) && quorum.is_confirmed(2, beside) && quorum.is_confirmed(1, count(1, 1))
        );
        let none = Quorum::of(Replicas::Number(0), None, None, None, beside).expect("agreed");
        assert!(none.is_confirmed(0, beside) && none.wanted(beside) == 0);
    }

    #[test]
    fn fewer_than_half_are_a_minority() {
        let of = |option, attached| {
            Quorum::of(option, None, None, None, count(attached, attached))
                .expect("agreed")
                .is_minority(count(attached, attached))
        };
        assert!(of(Replicas::Number(0), 1) && of(Replicas::Number(1), 3) && of(Replicas::Number(1), 4));
        assert!(!of(Replicas::Number(1), 2) && !of(Replicas::Number(0), 0));
        assert!((0..9).all(|attached| !of(Replicas::Majority, attached) && !of(Replicas::All, attached)));
    }
}
