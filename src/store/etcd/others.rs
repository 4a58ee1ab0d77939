//! The looks of a candidate at elections of the same name that it does not take part in, and at keys that count in its own one and are no
//! candidates'. [`peers`](super::peers) says where they are, and which candidate waits for which.
//!
//! A candidate looks before it creates its key in an empty range, and again once its key is the oldest, before it leads. A candidate that is
//! older, or that would not wait for ours, is an obstacle then; so is a place with more keys than can be looked through. What comes later is
//! warned of. Where the user may not read a place it is not looked at, and the candidate's record does not say that it looks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use etcd_client::{Client, Error, GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;
use tracing::{debug, warn};

use self::notes::Notes;
use super::endpoints::classify;
use super::keys::{self, StoredRecord};
use super::layout::{HOLSTER_PREFIX, Keys, Layout, is_candidate};
use super::peers::{PeerElection, PeerKind, counts, looks_for, places};
use super::terms::quoted;
use crate::store::StoreError;
use crate::text::escaped;
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_core::limits::{NAME_BYTES_MAX, cut_visibly};
use elect_keeper::clock;

mod notes;

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
/// The candidates whose values are read at once: etcd allows 1.5 MB for one.
const VALUES_AT_ONCE: usize = 2;
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
        for some in candidates.chunks(VALUES_AT_ONCE) {
            let read = with_values(client, some).await?;
            let is_in_the_way = |(place, pair): &&(&PeerElection, KeyValue)| {
                let looks = StoredRecord::read(&place.election, pair).ok().and_then(|record| record.looks());
                self.scope.is_excluded_by(&place.election, looks, pair.create_revision(), created)
            };
            if let Some((place, pair)) = read.iter().find(is_in_the_way) {
                return Ok(Some(describe(place, pair)));
            }
        }
        Ok(None)
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
        self.scope.forget_old_denials();
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
    pub fn forget_old_denials(&self) {
        self.scope.forget_old_denials();
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
    fn forget_old_denials(&self) {
        self.denied.borrow_mut().take_if(|(since, _)| clock::now().since(*since) >= DENIAL_LIFETIME);
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
        match read(client, &pages).await {
            Ok(read) => return Ok(pages.iter().map(of).zip(read).collect()),
            Err(error) if !is_denied(&error) => return Err(classify(error)),
            Err(_) => {}
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
                Err(error) if is_denied(&error) => self.note_denial(of(page)),
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(all)
    }

    /// Says it the first time.
    fn note_denial(&self, place: &PeerElection) {
        let mut denied = self.denied.borrow_mut();
        let (_, known) = denied.get_or_insert_with(|| (clock::now(), BTreeSet::new()));
        if known.is_empty() && !self.has_told_denial.replace(true) {
            let text = format!(
                "the user may not read {} and perhaps other keys of programs that use the same name in another layout: candidates there go \
                 unnoticed; grant the right to read them, or add ?others=ignore if there are none",
                shown(place.election.as_bytes())
            );
            if self.layout == Layout::Elect { debug!("{text}") } else { warn!("{text}") }
        }
        known.insert(place.election.clone());
    }

    /// The candidates at the places of other elections: the name by which each is remembered, and the warning.
    async fn describe_places(&self, client: &mut Client) -> Result<Vec<(String, String)>, StoreError> {
        let Found { candidates, unread } = self.find(client).await?;
        let mut texts: Vec<_> =
            unread.iter().map(|place| (format!("too many {}", place.election), describe_unread(place))).collect();
        for place in &self.places {
            let first = candidates.iter().find(|(there, _)| there.election == place.election);
            for (place, pair) in with_values(client, first.map(std::slice::from_ref).unwrap_or_default()).await? {
                texts.push((place.election.clone(), describe(place, &pair)));
            }
        }
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

/// Some keys of a place, in the order of their names.
struct KeyPage {
    pairs: Vec<KeyValue>,
    more: bool,
}

/// The key before all those of candidates: a digit follows.
fn first_key(place: &PeerElection) -> Vec<u8> {
    format!("{}0", place.election).into_bytes()
}

/// The key behind them.
fn last_key(place: &PeerElection) -> Vec<u8> {
    format!("{}g", place.election).into_bytes()
}

/// The first key behind this one that can be a candidate's: after the election it has hexadecimal digits alone, 16 at most.
fn behind(place: &PeerElection, last: &[u8]) -> Option<Vec<u8>> {
    let start = place.election.len();
    let is_digit = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = last.get(start..)?.iter().take(16).take_while(is_digit).count();
    let mut next = last[..last.len().min(start + digits + 1)].to_vec();
    if next.len() == start + digits {
        next.push(0);
        return Some(next);
    }
    // No candidate's key begins with this: behind all that do.
    while next.len() > start && next.last() == Some(&u8::MAX) {
        next.pop();
    }
    let end = next.last_mut().filter(|_| digits > 0 || last[start] < u8::MAX)?;
    *end = end.checked_add(1)?;
    Some(next)
}

/// In one transaction.
async fn read(client: &mut Client, pages: &[(&PeerElection, Vec<u8>, i64)]) -> Result<Vec<KeyPage>, Error> {
    let get = |(place, from, limit): &(&PeerElection, Vec<u8>, i64)| {
        let options = GetOptions::new().with_range(last_key(place)).with_limit(*limit).with_keys_only();
        TxnOp::get(from.as_slice(), Some(options))
    };
    let answer = client.txn(Txn::new().and_then(pages.iter().map(get).collect::<Vec<_>>())).await?;
    let ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(KeyPage { more: range.more(), pairs: range.take_kvs() }),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    Ok(ranges.collect())
}

/// Those of the candidates that are still there, with their values.
async fn with_values<'a>(
    client: &mut Client,
    candidates: &[(&'a PeerElection, KeyValue)],
) -> Result<Vec<(&'a PeerElection, KeyValue)>, StoreError> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let gets: Vec<TxnOp> = candidates.iter().map(|(_, pair)| TxnOp::get(pair.key(), None)).collect();
    let answer = client.txn(Txn::new().and_then(gets)).await.map_err(classify)?;
    let ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(range.take_kvs().into_iter().next()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let there = candidates.iter().zip(ranges).filter_map(|((place, before), pair)| {
        let pair = pair.filter(|pair| pair.create_revision() == before.create_revision())?;
        Some((*place, pair))
    });
    Ok(there.collect())
}

/// The results of all, which run at the same time.
async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *result = Some(ready);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

fn shown(bytes: &[u8]) -> String {
    escaped(&cut_visibly(&String::from_utf8_lossy(bytes), NAME_BYTES_MAX)).into_owned()
}

/// The key that is there, and the way out.
fn describe(place: &PeerElection, pair: &KeyValue) -> String {
    advice(place, pair.key(), keys::is_of_elect(&place.election, pair))
}

fn advice(place: &PeerElection, key: &[u8], is_of_elect: bool) -> String {
    let (whose, options) = match place.program {
        PeerKind::Elect => ("etcdctl or a Go program", "no layout in --store"),
        PeerKind::Concurrency => ("etcdctl or a Go program", "--store 'etcd://…?layout=exact'"),
        PeerKind::Holster => ("a program on holster's etcdutil", "--store 'etcd://…?layout=holster'"),
    };
    let whose = if is_of_elect { "an elect with other options" } else { whose };
    let (key, name) = (shown(key), quoted(&place.name));
    format!(
        "the key {key} is a candidate's of {whose}, in an election of the same name in another layout or spelling: to take part in \
         that election use {options} and --boundary {name}; if it is another election, add ?others=ignore or choose another name"
    )
}

fn describe_unread(place: &PeerElection) -> String {
    format!(
        "more than {KEYS_MAX} keys begin with {}, too many to find out whether a candidate of the same name in another layout is among \
         them: add ?others=ignore if none is, or choose another name",
        shown(place.election.as_bytes())
    )
}

/// The part of a candidate's key before its lease.
fn election_of(key: &[u8], lease: i64) -> &[u8] {
    key.strip_suffix(format!("{lease:x}").as_bytes()).filter(|_| lease != 0).unwrap_or(key)
}

/// A key that counts in our election and is no candidate's of it. Its election's keys begin with more than ours do, so that it does not
/// count ours.
fn describe_counted(key: &[u8], lease: i64, election: &str) -> String {
    let (word, key, ours) = (quoted(&String::from_utf8_lossy(key)), shown(key), shown(election.as_bytes()));
    if lease == 0 {
        return format!(
            "the key {key} has no lease, and stands in the way of all later candidates until it is deleted, because it begins with {ours}: delete \
             it (etcdctl del {}), or choose a name that it does not begin with",
            cut_visibly(&word, NAME_BYTES_MAX)
        );
    }
    format!(
        "the key {key} is of another election, and counts in this one, because it begins with {ours}: this election waits for its older \
         keys, and not the other way round; choose a name that no other one begins with"
    )
}

/// Where holster's programs have their keys, elect without a layout writes others.
pub fn prefix_warning(keys: &Keys) -> Option<String> {
    let is_holsters = keys.layout == Layout::Elect && keys.prefix.starts_with(HOLSTER_PREFIX);
    is_holsters.then(|| {
        format!(
            "{} is where holster's programs have their keys, and they write no slash before the lease: to take part in their \
             elections use --store 'etcd://…?layout=holster'",
            shown(keys.prefix.as_bytes())
        )
    })
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
    fn a_look_goes_on_behind_the_keys_that_begin_as_no_candidate_does() {
        let exact = scope("layout=exact", "jobs");
        let place = exact.scope.places.first().expect("a place");
        let behind = |rest: &[u8]| {
            let next = behind(place, &[place.election.as_bytes(), rest].concat())?;
            Some(next.strip_prefix(place.election.as_bytes()).expect("the same place").to_vec())
        };
        for (rest, next) in [
            (&b"694d"[..], &b"694d\0"[..]),
            (b"694d/x", b"694d0"),
            (b"apiregistration", b"aq"),
            (b"endpoints/1", b"eo"),
            (b"a\xff\xff1", b"b"),
            (b"0123456789abcdef01", b"0123456789abcdef1"),
        ] {
            assert_eq!(behind(rest).as_deref(), Some(next), "{rest:?}");
        }
        assert_eq!(behind(b"\xff1"), None);
    }

    #[test]
    fn requests_for_several_places_are_on_their_way_at_the_same_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let started = tokio::time::Instant::now();
            let answers = all_of((1..=8).rev().map(async |number| {
                tokio::time::sleep(Duration::from_secs(number)).await;
                number
            }));
            assert_eq!(answers.await, [8, 7, 6, 5, 4, 3, 2, 1]);
            assert_eq!(started.elapsed(), Duration::from_secs(8));
        });
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

    #[test]
    fn advice_names_the_election_as_its_programs_do_and_as_a_shell_takes_it() {
        let of = |program, name: &str, is_of_elect| {
            let place = PeerElection { name: name.to_owned(), election: format!("{name}/"), program };
            advice(&place, format!("{name}/1f").as_bytes(), is_of_elect)
        };
        let said = of(PeerKind::Concurrency, "/my-election/", false);
        assert!(said.contains("etcdctl or a Go program") && said.contains("--boundary /my-election/;"), "{said}");
        let said = of(PeerKind::Concurrency, "a b", false);
        assert!(said.contains("'etcd://…?layout=exact' and --boundary 'a b';"), "{said}");
        assert!(of(PeerKind::Concurrency, "mine", true).contains("an elect with other options"), "{said}");
        let said = of(PeerKind::Elect, "mine", false);
        assert!(said.contains("etcdctl or a Go program") && said.contains("no layout"), "{said}");
    }

    #[test]
    fn a_key_in_our_range_that_is_no_candidates_is_warned_of() {
        let nested = describe_counted(b"jobs/nightly/1f", 0x1f, "jobs/");
        assert!(nested.contains("jobs/nightly/1f") && nested.contains("not the other way round"), "{nested}");
        let plain = describe_counted(b"/app/db password", 0, "/app/");
        assert!(plain.contains("has no lease") && plain.contains("etcdctl del '/app/db password'"), "{plain}");
        assert_eq!(election_of(b"jobs/nightly/1f", 0x1f), b"jobs/nightly/");
        assert_eq!(election_of(b"jobs/0", 0), b"jobs/0");
    }

    #[test]
    fn the_prefix_of_holsters_programs_is_warned_of() {
        for (prefix, is_warned) in [("/elections/", true), ("/elections/team/", true), ("/elect/", false)] {
            assert_eq!(prefix_warning(&Keys::below(prefix.to_owned())).is_some(), is_warned, "{prefix}");
        }
    }
}
