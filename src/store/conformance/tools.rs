//! Records edited behind the candidates' backs: what another program, a newer elect or a person may leave in a store.

use std::fmt;

use async_trait::async_trait;

use super::{StoreUnderTest, WRONG_PASSWORD};
use crate::store::Password;
use elect_core::limits;

/// A record beside which no candidate of this elect campaigns (S1, S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Of a format that this elect does not know.
    NewerFormat,
    /// With an id longer than any that elect makes.
    LongId,
    /// With a term that is not believed.
    HugeTerm,
    /// With the largest number that eight bytes hold as its term.
    LargestTerm,
    /// Larger than any record of elect.
    TooLarge,
    /// Written by another program.
    Foreign,
}

pub const PLANTS: [Plant; 6] =
    [Plant::NewerFormat, Plant::LongId, Plant::HugeTerm, Plant::LargestTerm, Plant::TooLarge, Plant::Foreign];

/// A field of a record, and its new value.
#[derive(Debug)]
pub enum Edit {
    /// A text.
    Text(&'static str, String),
    /// A number.
    Number(&'static str, u64),
}

impl Edit {
    /// The same change of a record in JSON.
    pub fn apply(self, record: &mut serde_json::Value) {
        match self {
            Edit::Text(name, value) => record[name] = value.into(),
            Edit::Number(name, value) => record[name] = value.into(),
        }
    }
}

impl Plant {
    /// The changed field; `None` for a record that is nothing like elect's.
    pub fn edit(self) -> Option<Edit> {
        match self {
            Plant::NewerFormat => Some(Edit::Number("version", 1000)),
            Plant::LongId => Some(Edit::Text("id", "i".repeat(limits::ID_BYTES_MAX + 1))),
            Plant::HugeTerm => Some(Edit::Number("term", limits::TERM_MAX + 1)),
            Plant::LargestTerm => Some(Edit::Number("term", u64::MAX)),
            Plant::TooLarge => Some(Edit::Text("name", "n".repeat(limits::RECORD_BYTES_MAX + 1))),
            Plant::Foreign => None,
        }
    }
}

/// The facts about a store that the suite needs, and its edits of a store behind the candidates' backs. The store's own tests
/// implement it.
#[async_trait(?Send)]
pub trait ConformanceSupport: fmt::Debug {
    /// Whether there can be such a record.
    fn can_hold(&self, plant: Plant) -> bool;

    /// Changes a record that is there: of a boundary that was led, and has a plain name.
    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant);

    /// Deletes all that there is of a boundary.
    async fn delete(&self, site: &StoreUnderTest, boundary: &str);

    /// The URL of a part of the same store in which no other case has boundaries.
    fn part(&self, url: &str, name: &str) -> String {
        format!("{url}/{name}")
    }

    /// The URL of a server that is reached by another address than its own, from one with that address in it.
    fn behind_gate(&self, url: String) -> String {
        url
    }

    /// A place, or a user, that the store refuses.
    fn refused(&self, site: &StoreUnderTest) -> StoreUnderTest {
        let mut site = site.clone();
        site.access.username = Some("nobody".to_owned());
        site.access.password = Some(Password(WRONG_PASSWORD.to_owned()));
        site
    }

    /// Whether the record decides who leads. Otherwise a lock does, or the age of keys, and a record beside it changes nothing.
    fn record_decides(&self) -> bool {
        true
    }

    /// Whether a leader sees who waits, and leaves the boundary to no candidate that does not.
    fn knows_waiters(&self) -> bool {
        false
    }

    /// Whether the first renewal of a term may be sent together with the take, before it is asked for.
    fn renews_with_take(&self) -> bool {
        false
    }

    /// Whether every request says the candidate's id.
    fn ids_in_requests(&self) -> bool {
        true
    }
}
