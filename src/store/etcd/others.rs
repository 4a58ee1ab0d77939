//! The looks of a candidate at elections of the same name that it does not take part in, and at keys that count in its own one and are no
//! candidates'. [`peers`](super::peers) says where they are, and which candidate waits for which.
//!
//! A candidate looks before it creates its key in an empty range, and again once its key is the oldest, before it leads. A candidate that is
//! older, or that would not wait for ours, is an obstacle then; so is a place with more keys than can be looked through. What comes later is
//! warned of. Where the user may not read a place it is not looked at, and the candidate's record does not say that it looks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, GetOptions, KeyValue, SortOrder, SortTarget};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::notes::Notes;
use self::reads::{
    KeyPage, all_of, behind, find_by_value, first_key, has_too_many_operations, is_denied, last_key, read,
};
pub use self::texts::prefix_warning;
use self::texts::{describe, describe_counted, describe_denied, describe_unread, election_of, shown};
use super::endpoints::classify;
use super::keys::StoredRecord;
use super::layout::{Keys, Layout, is_candidate};
use super::peers::{PeerElection, counts, looks_for, places};
use crate::store::StoreError;
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

mod notes;
mod reads;
mod texts;

/// Between two looks of a candidate that waits or leads.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// For such a look, for which no request waits.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a place that the user may not read is left out.
const DENIAL_LIFETIME: Duration = Duration::from_secs(60);
/// The keys of a place that the first request reads, without their values.
const FIRST_PAGE: i64 = 200;
/// The keys of each further one.
const PAGE: i64 = 1000;
/// The most keys of one place that are read.
const KEYS_MAX: usize = 10_000;
/// The oldest keys of our own range that are looked at for those of other elections.
const COUNTED_MAX: i64 = 100;

/// The places that one candidate, or one observer, looks at.
#[derive(Debug)]
struct LookScope {
    /// The layout of our own election.
    layout: Layout,
    /// The common beginning of our own keys.
    election: String,
    places: Vec<PeerElection>,
    /// Whether elections of other programs are no concern of ours.
    ignores_others: bool,
    /// The places that the user may not read, by their elections, and since when this is known.
    denied: RefCell<Option<(Time, BTreeSet<String>)>>,
    /// Whether that was logged.
    has_told_denial: Cell<bool>,
    /// Whether the server takes fewer operations in one transaction than there are places.
    asks_one_by_one: Cell<bool>,
}

/// The looks of one candidate, or of one observer.
#[derive(Debug)]
pub struct Others {
    scope: Rc<LookScope>,
    /// Those of other layouts, and those in our own range.
    notes: Rc<RefCell<[Notes; 2]>>,
    /// When one was made last, by a request or in the background.
    looked_at: Option<Time>,
    /// The last look in the background.
    look: Option<JoinHandle<()>>,
}

/// The candidates of other elections, the oldest first, without their values.
struct Found<'a> {
    candidates: Vec<(&'a PeerElection, KeyValue)>,
    /// A place with too many keys.
    unread: Option<&'a PeerElection>,
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
        let scope = LookScope {
            layout: keys.layout,
            election: keys.of(boundary).election(boundary),
            places: if is_none { Vec::new() } else { places(keys, boundary) },
            ignores_others: is_none,
            denied: RefCell::default(),
            has_told_denial: Cell::default(),
            asks_one_by_one: Cell::default(),
        };
        Others { scope: Rc::new(scope), notes: Rc::default(), looked_at: None, look: None }
    }

    /// Whether no candidate of another election keeps us from leading; `created`: of our key, if there is one.
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

    /// The obstacle that keeps us from leading: a candidate of another election, or a place that cannot be looked through.
    ///
    /// # Errors
    ///
    /// The server cannot be asked.
    pub async fn obstacle(&self, client: &mut Client, created: Option<i64>) -> Result<Option<String>, StoreError> {
        let Found { candidates, unread } = self.scope.find(client).await?;
        if let Some(place) = unread {
            return Ok(Some(describe_unread(place)));
        }
        // Of the others it is known without their values that they wait for us.
        let excludes = |place: &PeerElection, pair: &KeyValue, looks| {
            self.scope.is_excluded_by(&place.election, looks, pair.create_revision(), created)
        };
        let unknown: Vec<_> = candidates.into_iter().filter(|(place, pair)| excludes(place, pair, None)).collect();
        find_by_value(client, &unknown, |place, pair| {
            let looks = StoredRecord::read(&place.election, pair).ok().and_then(|record| record.looks());
            excludes(place, pair, looks).then(|| describe(place, pair))
        })
        .await
    }

    /// For our record: the layout from which all places are looked at, if they are.
    pub fn looks(&self) -> Option<Layout> {
        (!self.scope.places.is_empty() && self.scope.denied.borrow().is_none()).then_some(self.scope.layout)
    }

    /// Looks again now and then, and warns of what is new; no request waits for it.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn look_aside(&mut self, client: &Client) {
        let now = clock::now();
        let is_due = self.looked_at.is_none_or(|at| now.since(at) >= LOOK_INTERVAL)
            && self.look.as_ref().is_none_or(JoinHandle::is_finished);
        if !is_due {
            return;
        }
        // Here alone: a candidate that is about to lead has no time for it.
        self.scope.forget_old_denials(now);
        let (mut client, scope, notes) = (client.clone(), Rc::clone(&self.scope), Rc::clone(&self.notes));
        // Watched by the next look.
        let look = tokio::task::spawn_local(async move {
            let looks = async { [scope.describe_places(&mut client).await, scope.describe_range(&mut client).await] };
            let Ok(texts) = timeout(LOOK_TIMEOUT, looks).await else { return };
            for (notes, texts) in notes.borrow_mut().iter_mut().zip(texts) {
                match texts {
                    Ok(texts) => notes.news(texts, clock::now()).iter().for_each(|text| warn!("{text}")),
                    Err(error) => debug!("other elections cannot be looked at: {error}"),
                }
            }
        });
        (self.looked_at, self.look) = (Some(now), Some(look));
    }
}

impl Others {
    /// For observers, which do not look in the background.
    pub fn forget_old_denials(&self, now: Time) {
        self.scope.forget_old_denials(now);
    }

    /// As if they had been so much earlier.
    #[cfg(test)]
    pub fn age_denials(&self, by: Duration) {
        if let Some((since, _)) = self.scope.denied.borrow_mut().as_mut() {
            *since = *since - by;
        }
    }
}

impl LookScope {
    /// Whether no candidate of ours may lead beside one of their election that looks for others in this layout, if it does, and whose key
    /// was created then; `created`: of our key, if there is one.
    fn is_excluded_by(&self, theirs: &str, looks: Option<Layout>, their_created: i64, created: Option<i64>) -> bool {
        let waits_for_older =
            counts(theirs, &self.election) || looks.is_some_and(|layout| looks_for(layout, theirs, &self.election));
        !waits_for_older || created.is_none_or(|created| their_created < created)
    }

    /// The candidates of other elections.
    async fn find(&self, client: &mut Client) -> Result<Found<'_>, StoreError> {
        let places = self.allowed();
        let mut found = Found { candidates: Vec::new(), unread: None };
        if places.is_empty() {
            return Ok(found);
        }
        let first = places.iter().map(|place| (*place, first_key(place), FIRST_PAGE)).collect();
        for (place, mut page) in self.read(client, first).await? {
            let mut count = 0;
            loop {
                count += page.pairs.len();
                let last = page.pairs.last().map(|pair| pair.key().to_vec());
                let is_one = |pair: &KeyValue| is_candidate(&place.election, pair.key(), pair.lease());
                found.candidates.extend(page.pairs.into_iter().filter(is_one).map(|pair| (place, pair)));
                let next = last.filter(|_| page.more).and_then(|last| behind(place, &last));
                let Some(next) = next.filter(|next| *next < last_key(place)) else { break };
                if count >= KEYS_MAX {
                    found.unread = Some(place);
                    break;
                }
                let Some((_, next)) = self.read(client, vec![(place, next, PAGE)]).await?.pop() else { break };
                page = next;
            }
        }
        found.candidates.sort_by_key(|(_, pair)| pair.create_revision());
        Ok(found)
    }

    /// Lets the places be asked for again that the user might not read a while ago.
    fn forget_old_denials(&self, now: Time) {
        self.denied.borrow_mut().take_if(|(since, _)| now.since(*since) >= DENIAL_LIFETIME);
    }

    /// The places that the user may read, as far as is known.
    fn allowed(&self) -> Vec<&PeerElection> {
        let denied = self.denied.borrow();
        let is_denied =
            |place: &&PeerElection| denied.as_ref().is_some_and(|(_, denied)| denied.contains(&place.election));
        self.places.iter().filter(|place| !is_denied(place)).collect()
    }

    /// A page of each of these places, but for those that the user may not read.
    async fn read<'a>(
        &self,
        client: &mut Client,
        pages: Vec<(&'a PeerElection, Vec<u8>, i64)>,
    ) -> Result<Vec<(&'a PeerElection, KeyPage)>, StoreError> {
        let of = |(place, ..): &(&'a PeerElection, Vec<u8>, i64)| *place;
        if !self.asks_one_by_one.get() {
            match read(client, &pages).await {
                Ok(read) => return Ok(pages.iter().map(of).zip(read).collect()),
                Err(error) if is_denied(&error) => {}
                Err(error) if has_too_many_operations(&error) => self.asks_one_by_one.set(true),
                Err(error) => return Err(classify(error)),
            }
        }
        // One place that must not be read hides no other. At once: each request may take a good part of an attempt.
        let reads = pages.iter().map(|page| {
            let mut client = client.clone();
            async move { read(&mut client, std::slice::from_ref(page)).await }
        });
        let mut all = Vec::new();
        for (page, read) in pages.iter().zip(all_of(reads).await) {
            match read {
                Ok(read) => all.extend(read.into_iter().map(|read| (of(page), read))),
                Err(error) if is_denied(&error) => match self.note_denial(of(page), clock::now()) {
                    Some(text) if self.layout == Layout::Elect => debug!("{text}"),
                    Some(text) => warn!("{text}"),
                    None => {}
                },
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(all)
    }

    /// Remembers that the user may not read a place. Returns the text to log, the first time.
    fn note_denial(&self, place: &PeerElection, now: Time) -> Option<String> {
        self.denied.borrow_mut().get_or_insert_with(|| (now, BTreeSet::new())).1.insert(place.election.clone());
        (!self.has_told_denial.replace(true)).then(|| describe_denied(place))
    }

    /// The candidates at the places of other elections: the name by which each is remembered, and the warning.
    async fn describe_places(&self, client: &mut Client) -> Result<Vec<(String, String)>, StoreError> {
        let Found { candidates, unread } = self.find(client).await?;
        let mut texts: Vec<_> =
            unread.iter().map(|place| (format!("too many {}", place.election), describe_unread(place))).collect();
        // The first one of each place.
        let mut known = BTreeSet::new();
        let first = candidates.into_iter().filter(|(place, _)| known.insert(place.election.as_str()));
        find_by_value(client, &first.collect::<Vec<_>>(), |place, pair| {
            texts.push((place.election.clone(), describe(place, pair)));
            None::<()>
        })
        .await?;
        Ok(texts)
    }

    /// The keys in our own range that are no candidates of ours: by what they are known, and the warning.
    async fn describe_range(&self, client: &mut Client) -> Result<Vec<(String, String)>, StoreError> {
        let oldest_first = GetOptions::new().with_sort(SortTarget::Create, SortOrder::Ascend);
        let options = oldest_first.with_prefix().with_keys_only().with_limit(COUNTED_MAX);
        let mut answer = client.get(self.election.as_str(), Some(options)).await.map_err(classify)?;
        let is_other = |pair: &KeyValue| !is_candidate(&self.election, pair.key(), pair.lease());
        let others = answer.take_kvs().into_iter().filter(is_other);
        let of_concern = others.filter(|pair| pair.lease() == 0 || !self.ignores_others);
        let describe = |pair: KeyValue| {
            let (key, lease) = (pair.key(), pair.lease());
            (shown(election_of(key, lease)), describe_counted(key, lease, &self.election))
        };
        Ok(of_concern.map(describe).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOKS: &str = r#"{"version":2,"id":"x","name":"web-1","host":"h","port":null,"ttl":3000,"looks":"#;

    fn scope(option: &str, boundary: &str) -> Others {
        let mut keys = Keys::below("/elect/".to_owned());
        assert!(option.is_empty() || keys.take(option));
        Others::new(&keys, &Boundary::shared(boundary).expect("a name"))
    }

    #[test]
    fn nothing_is_looked_for_if_others_are_to_be_ignored_or_nothing_runs() {
        let check = Others::new(&Keys::below("/elect/".to_owned()), &Boundary::of_check());
        assert!(check.scope.places.is_empty() && check.looks().is_none());
        assert!(scope("others=ignore", "mine").looks().is_none());
        assert_eq!(scope("layout=exact", "mine").looks(), Some(Layout::Exact));
        let others = scope("", "mine");
        assert_eq!(others.looks(), Some(Layout::Elect));
        *others.scope.denied.borrow_mut() = Some((clock::now(), BTreeSet::new()));
        assert_eq!(others.looks(), None, "it does not look everywhere");
    }

    #[test]
    fn a_denial_is_said_once_and_counts_for_a_minute() {
        let (others, start) = (scope("layout=exact", "mine"), clock::now());
        let [one, another, ..] = others.scope.places.as_slice() else { panic!("two places") };
        let at = |seconds| start + Duration::from_secs(seconds);
        let text = others.scope.note_denial(one, at(0)).expect("it is news");
        assert!(text.contains(&format!("may not read {} ", one.election)), "{text}");
        assert_eq!(others.scope.note_denial(another, at(30)), None, "it is said of all");
        for (seconds, asked) in [(59, 2), (60, 0)] {
            others.forget_old_denials(at(seconds));
            assert_eq!(others.scope.places.len() - others.scope.allowed().len(), asked, "after {seconds} s");
        }
        assert_eq!(others.scope.note_denial(one, at(60)), None, "it was said");
        assert_eq!(others.looks(), None, "and it is so again");
    }

    #[test]
    fn a_younger_candidate_is_passed_only_if_its_program_counts_our_key_or_its_record_says_that_it_looks() {
        let record = |looks: &str| format!("{LOOKS}{looks}}}");
        let of_format_1 = |looks: &str| record(looks).replace(r#""version":2"#, r#""version":1"#);
        let scope = &scope("layout=exact", "mine").scope;
        for (value, is_passed) in [
            (record(r#""elect""#), true),
            // It has the whole path for its name, and does not look for ours.
            (record(r#""exact""#), false),
            (record("null"), false),
            (record(r#""moon""#), false),
            (of_format_1(r#""elect""#), false),
            ("go-1".to_owned(), false),
            (String::new(), false),
        ] {
            let looks = StoredRecord::parse(value.as_bytes()).expect("readable").looks();
            let is_excluded = |theirs| scope.is_excluded_by("/elect/mine/", looks, theirs, Some(10));
            assert_eq!(!is_excluded(11), is_passed, "{value}");
            assert!(is_excluded(9), "it is older: {value}");
            assert!(scope.is_excluded_by("/elect/mine/", looks, 11, None), "we have no key yet: {value}");
        }
        // The programs on holster count all that begins with theirs; a name with a slash is not counted by those of the name without.
        let below = Others::new(&Keys::below("/elections/".to_owned()), &Boundary::shared("mine").expect("a name"));
        for (theirs, is_counted) in [("/elections/mine", true), ("/elections/mine//", false), ("mine/", false)] {
            let is_excluded = |created| below.scope.is_excluded_by(theirs, None, created, Some(10));
            assert!(is_excluded(9) && is_excluded(11) != is_counted, "{theirs}");
        }
    }
}
