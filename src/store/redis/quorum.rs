//! How many replicas have to confirm a write, and how many there are (DESIGN.md 5.4).
//!
//! The number of required replicas is kept in the record, so that no two candidates lead by different ones. `all` and
//! `majority` refer to the number of all replicas, which is kept there as well. It grows only when all of the new number have
//! confirmed a write, and are all there at the next one, which writes the number; it shrinks only by hand. Nothing that merely looks
//! like a replica can raise it: neither a debug client nor a dump nor a link that is half open confirms anything.

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::store::StoreError;

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
        entry: Option<&Entry>,
        known: Option<u64>,
        count: Count,
    ) -> Result<Quorum, StoreError> {
        let all = match entry {
            Some(entry) => entry.replicas,
            None => known,
        };
        // Where no number is established, every replica that is attached has to confirm, or a majority of them.
        let quorum = |all: Option<u64>, replaces| {
            let required = option.of(all.unwrap_or(count.attached));
            Quorum { option, all, required, replaces, growth: None }
        };
        let ours = quorum(all, false);
        // An elect before 0.2 wrote no required number, and took all for required unless its URL said otherwise.
        let Some(theirs) =
            entry.and_then(|entry| entry.required.or(entry.replicas.filter(|_| entry.record.version < 2)))
        else {
            return Ok(ours);
        };
        if was == Some(theirs) && option.of(count.attached) != theirs {
            return Ok(quorum(None, true));
        }
        let is_settled = entry.is_some_and(|entry| entry.required.is_some());
        if ours.required == theirs || !is_settled {
            return Ok(ours);
        }
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
