//! Candidates of the same name in another layout, which this one does not count.
//!
//! Of two programs that name one election in two layouts at least one does not see the other, and both lead. So a candidate looks
//! for the keys of the other layouts before it leads, and leads only if none is there: that of a program that counts ours, or of
//! another elect, which looks as we do, if it is older than ours; any other in any case, because its program has not looked. What
//! comes later, or counts in our queue although it belongs to another election, is warned of.
//!
//! Not here: elections of another name, or below another prefix, which are other elections. Where the user may not read a place,
//! it is not looked at.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;
use tracing::{debug, warn};

use super::endpoints::classify;
use super::layout::{DEFAULT_PREFIX, HOLSTER_PREFIX, Keys, Layout, encode, is_candidate};
use crate::store::StoreError;
use crate::text::escaped;
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_core::limits::{NAME_BYTES_MAX, cut_visibly};
use elect_keeper::clock;

/// Between two looks of a candidate that waits or leads.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// For such a look, for which no request waits.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The most keys of one place that are read.
const KEYS_MAX: i64 = 100;

/// The programs whose candidates have their keys at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// An elect with other options.
    Elect,
    /// etcdctl, or a Go program on `clientv3/concurrency`.
    Concurrency,
    /// A program on holster's `etcdutil`.
    Holster,
}

/// Where an election of the same name would be in another layout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OtherLayout {
    /// The name of that election, as its programs have it.
    name: String,
    /// The common beginning of its keys.
    prefix: String,
    whose: Whose,
    /// Whether its candidates count ours.
    counts_us: bool,
}

impl OtherLayout {
    /// Whether the key is that of a candidate there. A name with a slash at its end is the same one written in another way.
    fn has(&self, pair: &KeyValue) -> bool {
        let is_one = |prefix: &str| is_candidate(prefix, pair.key(), pair.lease());
        is_one(&self.prefix) || self.whose == Whose::Concurrency && is_one(&format!("{}/", self.prefix))
    }

    /// Whether no candidate of ours may lead beside that one. `created`: of our key, if there is one.
    fn excludes_us(&self, pair: &KeyValue, created: Option<i64>) -> bool {
        let looks_too = self.counts_us || self.whose == Whose::Elect;
        !looks_too || created.is_none_or(|created| pair.create_revision() < created)
    }

    /// What is there, and what to do.
    fn describe(&self, pair: &KeyValue) -> String {
        let name = shown(self.name.as_bytes());
        let (whose, way_out) = match self.whose {
            Whose::Elect => ("an elect with other options in --store", "give all candidates the same".to_owned()),
            Whose::Concurrency => (
                "etcdctl or a Go program",
                format!("to take part in that election use --store etcd://…?layout=exact and --boundary {name}"),
            ),
            Whose::Holster => (
                "a program on holster's etcdutil",
                format!("to take part in that election use --store etcd://…?layout=holster and --boundary {name}"),
            ),
        };
        let key = shown(pair.key());
        format!(
            "the key {key} is a candidate's of {whose}, in an election of the same name and in another layout: {way_out}; if it is \
             another election, add ?others=ignore or choose another name"
        )
    }
}

fn shown(bytes: &[u8]) -> String {
    escaped(&cut_visibly(&String::from_utf8_lossy(bytes), NAME_BYTES_MAX)).into_owned()
}

/// The looks of one candidate, or of one observer.
#[derive(Debug)]
pub struct Others {
    /// The common beginning of our own keys.
    election: String,
    places: Rc<[OtherLayout]>,
    /// The texts that have been warned of.
    warned_of: Rc<RefCell<BTreeSet<String>>>,
    /// When one was made last, by a request or in the background.
    looked_at: Option<Time>,
    /// The last look in the background.
    look: Option<JoinHandle<()>>,
}

impl Drop for Others {
    fn drop(&mut self) {
        if let Some(look) = &self.look {
            look.abort();
        }
    }
}

impl Others {
    pub fn new(keys: &Keys, boundary: &Boundary) -> Others {
        let is_none = keys.ignores_others || boundary.is_of_check();
        let places = if is_none { Vec::new() } else { places(keys, boundary) };
        Others {
            election: keys.of(boundary).election(boundary),
            places: places.into(),
            warned_of: Rc::default(),
            looked_at: None,
            look: None,
        }
    }

    /// Whether no candidate of another layout keeps us from leading; `created`: of our key, if there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: one does.
    pub async fn check(&mut self, client: &mut Client, created: Option<i64>) -> Result<(), StoreError> {
        self.looked_at = Some(clock::now());
        match self.obstacle(client, created).await? {
            Some(obstacle) => Err(StoreError::Obstacle(obstacle)),
            None => Ok(()),
        }
    }

    /// The candidate of another layout that keeps us from leading.
    pub async fn obstacle(&self, client: &mut Client, created: Option<i64>) -> Result<Option<String>, StoreError> {
        let found = find(client, &self.places).await?;
        let first = found.iter().find(|(place, pair)| place.excludes_us(pair, created));
        Ok(first.map(|(place, pair)| place.describe(pair)))
    }

    /// Looks again now and then, and warns of what is new; no request waits for it.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn look_aside(&mut self, client: &Client) {
        let now = clock::now();
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_INTERVAL)
            && self.look.as_ref().is_none_or(JoinHandle::is_finished);
        if self.places.is_empty() || !is_due {
            return;
        }
        let (mut client, election) = (client.clone(), self.election.clone());
        let (places, warned_of) = (Rc::clone(&self.places), Rc::clone(&self.warned_of));
        // Watched by the next look.
        let look = tokio::task::spawn_local(async move {
            let looks = async { (find(&mut client, &places).await, find_counted(&mut client, &election).await) };
            let Ok((found, counted)) = timeout(LOOK_TIMEOUT, looks).await else { return };
            let found = found.unwrap_or_else(|error| {
                debug!("other layouts cannot be looked at: {error}");
                Vec::new()
            });
            let counted = counted.unwrap_or_default();
            let texts = found.iter().map(|(place, pair)| (place.prefix.clone(), place.describe(pair)));
            let counts = counted.iter().map(|pair| (shown(election_of(pair)), describe_counted(pair, &election)));
            for (what, text) in texts.chain(counts) {
                if warned_of.borrow_mut().insert(what) {
                    warn!("{text}");
                }
            }
        });
        (self.looked_at, self.look) = (Some(now), Some(look));
    }
}

/// The elections of the same name in the other layouts.
fn places(keys: &Keys, boundary: &Boundary) -> Vec<OtherLayout> {
    let own = keys.election(boundary);
    let name = boundary.as_str();
    let place = |prefix: String, name: &str, whose| {
        let counts_us = own.starts_with(&prefix);
        OtherLayout { name: name.to_owned(), prefix, whose, counts_us }
    };
    let concurrency = |name: String| place(format!("{name}/"), &name, Whose::Concurrency);
    let mut places =
        vec![place(format!("{DEFAULT_PREFIX}{}/", encode(boundary)), name, Whose::Elect), concurrency(name.to_owned())];
    if !name.starts_with('/') {
        places.push(concurrency(format!("/{name}")));
    }
    // As `a%2Fb` the boundary a/b of elect itself is there.
    let as_written = format!("{}{name}", keys.prefix);
    if keys.layout == Layout::Elect && keys.boundary(format!("{as_written}/0").as_bytes()).is_none() {
        places.push(concurrency(as_written));
    }
    if keys.layout != Layout::Holster {
        // A program that has our path for the name of its election, or only the end of it.
        let path = match keys.layout {
            Layout::Elect => format!("{}{name}", keys.prefix),
            Layout::Exact | Layout::Holster => name.to_owned(),
        };
        for name in path.strip_prefix(HOLSTER_PREFIX).into_iter().chain([name.trim_matches('/')]) {
            places.push(place(format!("{HOLSTER_PREFIX}{name}"), name, Whose::Holster));
        }
    }
    let mut known = BTreeSet::from([own]);
    places.retain(|place| known.insert(place.prefix.clone()));
    places
}

/// The candidates that are at these places, each with its place.
async fn find<'a>(
    client: &mut Client,
    places: &'a [OtherLayout],
) -> Result<Vec<(&'a OtherLayout, KeyValue)>, StoreError> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let ranges = match read(client, places).await {
        Ok(ranges) => ranges,
        Err(error) if !is_denied(&error) => return Err(classify(error)),
        // One place that must not be read hides no other.
        Err(_) => {
            let mut ranges = Vec::new();
            for place in places {
                ranges.push(match read(client, std::slice::from_ref(place)).await {
                    Ok(range) => range.into_iter().flatten().collect(),
                    Err(error) if is_denied(&error) => Vec::new(),
                    Err(error) => return Err(classify(error)),
                });
            }
            ranges
        }
    };
    let found = places.iter().zip(ranges).flat_map(|(place, pairs)| pairs.into_iter().map(move |pair| (place, pair)));
    Ok(found.filter(|(place, pair)| place.has(pair)).collect())
}

/// In one transaction, as of one moment.
async fn read(client: &mut Client, places: &[OtherLayout]) -> Result<Vec<Vec<KeyValue>>, Error> {
    let gets: Vec<TxnOp> = places.iter().map(|place| TxnOp::get(place.prefix.as_str(), Some(keys_only()))).collect();
    let answer = client.txn(Txn::new().and_then(gets)).await?;
    let ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(range.take_kvs()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    Ok(ranges.collect())
}

fn keys_only() -> GetOptions {
    let oldest_first = GetOptions::new().with_sort(SortTarget::Create, SortOrder::Ascend);
    oldest_first.with_prefix().with_keys_only().with_limit(KEYS_MAX)
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

/// Candidates that count in our queue, and belong to an election of another name.
async fn find_counted(client: &mut Client, election: &str) -> Result<Vec<KeyValue>, StoreError> {
    let mut answer = client.get(election, Some(keys_only())).await.map_err(classify)?;
    let mut pairs = answer.take_kvs();
    pairs.retain(|pair| {
        let ends_with_lease = pair.key().ends_with(format!("{:x}", pair.lease()).as_bytes());
        pair.lease() != 0 && ends_with_lease && !is_candidate(election, pair.key(), pair.lease())
    });
    Ok(pairs)
}

/// The part of a candidate's key before its lease.
fn election_of(pair: &KeyValue) -> &[u8] {
    let lease = format!("{:x}", pair.lease());
    pair.key().strip_suffix(lease.as_bytes()).unwrap_or(pair.key())
}

fn describe_counted(pair: &KeyValue, election: &str) -> String {
    format!(
        "the key {} is a candidate's of another election, and counts in this one, because it begins with {}: each waits for the \
         other's older candidates; choose a name that no other one begins with",
        shown(pair.key()),
        shown(election.as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_of(url: &str, boundary: &str) -> Vec<(String, Whose, bool)> {
        let mut keys = Keys::below(if url.starts_with('/') { url.to_owned() } else { DEFAULT_PREFIX.to_owned() });
        assert!(url.starts_with('/') || url.is_empty() || keys.take(url), "{url}");
        let boundary = Boundary::shared(boundary).expect("a name");
        places(&keys, &boundary).into_iter().map(|place| (place.prefix, place.whose, place.counts_us)).collect()
    }

    fn expected(places: &[(&str, Whose, bool)]) -> Vec<(String, Whose, bool)> {
        places.iter().map(|(prefix, whose, counts_us)| ((*prefix).to_owned(), *whose, *counts_us)).collect()
    }

    #[test]
    fn each_layout_is_looked_for_beside_each_other_one() {
        use Whose::{Concurrency, Elect, Holster};
        let elsewhere = [("mine/", Concurrency, false), ("/mine/", Concurrency, false)];
        assert_eq!(places_of("", "mine"), expected(&[&elsewhere[..], &[("/elections/mine", Holster, false)]].concat()));
        let beside =
            [&[("/elect/mine/", Elect, false)], &elsewhere[..], &[("/elections/mine", Holster, true)]].concat();
        assert_eq!(places_of("/elections/", "mine"), expected(&beside), "a holster program counts these keys");
        let exact =
            [("/elect/mine/", Elect, false), ("/mine/", Concurrency, false), ("/elections/mine", Holster, false)];
        assert_eq!(places_of("layout=exact", "mine"), expected(&exact));
        let holster = [&[("/elect/mine/", Elect, false)], &elsewhere[..]].concat();
        assert_eq!(places_of("layout=holster", "mine"), expected(&holster));
    }

    #[test]
    fn a_path_is_looked_for_as_other_programs_write_it() {
        let is_there = |url, boundary, prefix: &str| places_of(url, boundary).iter().any(|(place, ..)| place == prefix);
        assert!(is_there("/a/", "b/c", "/a/b/c/"), "elect writes b%2Fc");
        assert!(
            is_there("", "50%", "/elect/50%/") && !is_there("", "a%2Fb", "/elect/a%2Fb/"),
            "another boundary of elect"
        );
        assert!(is_there("layout=exact", "/elections/foo", "/elections/foo"));
        assert!(is_there("/elections/a/", "b", "/elections/a/b"));
        assert!(is_there("layout=exact", "/elect/cron", "/elect/%2Felect%2Fcron/"));
        assert!(!is_there("layout=exact", "/elect/cron", "/elect/cron/"), "its own");
    }

    #[test]
    fn nothing_is_looked_for_if_others_are_to_be_ignored_or_nothing_runs() {
        let mut keys = Keys::below(DEFAULT_PREFIX.to_owned());
        assert!(Others::new(&keys, &Boundary::of_check()).places.is_empty());
        assert!(!Others::new(&keys, &"mine".parse().expect("a name")).places.is_empty());
        assert!(keys.take("others=ignore"));
        assert!(Others::new(&keys, &"mine".parse().expect("a name")).places.is_empty());
    }
}
