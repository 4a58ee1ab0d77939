//! The index of boundaries: a sorted set of their names, so that observers of a few boundaries among many foreign keys need no scan
//! (DESIGN.md 5.4).
//!
//! The scripts enter a boundary in the same moment in which they create its record, so that any later state of the server, of a
//! replica or of a snapshot that has the record has the entry too. What cannot be entered in that way (records of an elect before the
//! index, and of users without the right to write it) is found by one scan, whose result an observer enters together with a mark that
//! says when the scan began. The mark is believed for [`MARK_LIFETIME`]; it is a member of the same key, so that whatever deletes the
//! index deletes the mark. Between two scans, a boundary without an entry is found as long as one of its candidates listens for
//! announcements: each listens on the channel of its record's key.
//!
//! Nothing but a list for people depends on the index: a candidate never reads it, and no failure of it fails an election.

use std::collections::BTreeSet;
use std::time::Duration;

use super::glob_escape;
use super::server::{LuaScript, RedisServer};
use super::session::{number, unexpected_reply};
use super::settings::Settings;
use crate::store::StoreError;
use elect_core::Time;
use elect_core::boundary::{Boundary, LONGEST};
use elect_core::limits::{self, BOUNDARIES_MAX};
use elect_keeper::clock;

/// How long the result of a scan is believed, and how long an index that is denied is not asked for again.
const MARK_LIFETIME: Duration = Duration::from_secs(3600);
/// The member whose score is the time of the last scan; no boundary has such a name.
const MARK: &str = "\tscanned";
/// Boundaries that only the channels of their candidates name. More are the work of another program, or reason for a scan.
const UNINDEXED_MAX: usize = 1000;
/// Entries without a record that are dropped at once.
const DROPPED_MAX: usize = 1000;
/// Keys in one step of a scan.
const SCAN_COUNT: usize = 1000;

pub struct IndexScripts {
    list: LuaScript,
    complete: LuaScript,
    discard: LuaScript,
}

impl IndexScripts {
    pub fn new(script: impl Fn(&str) -> LuaScript) -> IndexScripts {
        IndexScripts {
            list: script(include_str!("index_list.lua")),
            complete: script(include_str!("index_complete.lua")),
            discard: script(include_str!("index_discard.lua")),
        }
    }
}

/// The index as one observer knows it.
#[derive(Debug, Default)]
pub struct BoundaryIndex {
    /// Until then it is not asked for: the user lacks a right, or the key holds something else.
    useless_until: Option<Time>,
}

impl BoundaryIndex {
    /// Names that may have a record; every boundary with a record is among them, but for those that the module names.
    pub async fn list(
        &mut self,
        server: &mut RedisServer,
        settings: &Settings,
        scripts: &IndexScripts,
    ) -> Result<BTreeSet<Boundary>, StoreError> {
        let now = clock::now();
        if self.useless_until.is_some_and(|until| now < until) {
            return scan(server, settings).await;
        }
        self.useless_until = None;
        let key = settings.index_key();
        let arguments = [
            &settings.prefix,
            &format!("{}*", glob_escape(&settings.prefix)),
            MARK,
            &MARK_LIFETIME.as_secs().to_string(),
            &BOUNDARIES_MAX.to_string(),
            &UNINDEXED_MAX.to_string(),
            &LONGEST.to_string(),
        ];
        let answer = match server.run::<Vec<Vec<u8>>>(&scripts.list, &key, &arguments).await {
            // The user may not read the key.
            Err(StoreError::Refused(_)) => Vec::new(),
            answer => answer?,
        };
        let mut words = answer.into_iter().map(|word| String::from_utf8(word).unwrap_or_default());
        match (words.next().as_deref(), words.next()) {
            (Some("complete"), Some(_)) => Ok(boundaries(words)),
            (Some("incomplete"), Some(began)) => {
                let began = number(&began)?;
                let mut found = scan(server, settings).await?;
                if !complete(server, scripts, &key, began, &found).await? {
                    self.useless_until = Some(now + MARK_LIFETIME);
                }
                for known in boundaries(words) {
                    limits::insert_boundary(&mut found, known);
                }
                Ok(found)
            }
            (None | Some("useless"), _) => {
                self.useless_until = Some(now + MARK_LIFETIME);
                scan(server, settings).await
            }
            _ => Err(unexpected_reply()),
        }
    }

    /// Drops entries whose record is gone. What fails is repeated by the next observation.
    pub async fn drop_gone(
        &self,
        server: &mut RedisServer,
        settings: &Settings,
        scripts: &IndexScripts,
        gone: &[Boundary],
    ) {
        if gone.is_empty() || self.useless_until.is_some() {
            return;
        }
        let names = gone.iter().take(DROPPED_MAX).map(Boundary::as_str);
        let arguments: Vec<&str> = [settings.prefix.as_str()].into_iter().chain(names).collect();
        let _ = server.run::<Vec<String>>(&scripts.discard, &settings.index_key(), &arguments).await;
    }
}

fn boundaries(names: impl Iterator<Item = String>) -> BTreeSet<Boundary> {
    let mut known = BTreeSet::new();
    for boundary in names.filter_map(|name| name.parse().ok()) {
        limits::insert_boundary(&mut known, boundary);
    }
    known
}

/// Every boundary with a record, by all keys of the database.
async fn scan(server: &mut RedisServer, settings: &Settings) -> Result<BTreeSet<Boundary>, StoreError> {
    let prefix = settings.prefix.as_str();
    let pattern = format!("{}*", glob_escape(prefix));
    let (mut known, mut cursor) = (BTreeSet::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT).arg("TYPE").arg("hash");
        let (next, keys): (u64, Vec<String>) = server.ask(&scan).await?;
        for key in &keys {
            if let Some(boundary) = key.strip_prefix(prefix).and_then(|name| name.parse().ok()) {
                limits::insert_boundary(&mut known, boundary);
            }
        }
        if next == 0 {
            return Ok(known);
        }
        cursor = next;
    }
}

/// Enters the result of a scan that has begun at that time of the server. Returns whether that is possible.
async fn complete(
    server: &mut RedisServer,
    scripts: &IndexScripts,
    key: &str,
    began: u64,
    found: &BTreeSet<Boundary>,
) -> Result<bool, StoreError> {
    let began = began.to_string();
    let names = found.iter().map(Boundary::as_str);
    let arguments: Vec<&str> = [MARK, &began].into_iter().chain(names).collect();
    match server.run::<Vec<String>>(&scripts.complete, key, &arguments).await {
        Ok(answer) => Ok(answer == ["complete"]),
        Err(StoreError::Unavailable(why)) => Err(StoreError::Unavailable(why)),
        Err(_) => Ok(false),
    }
}
