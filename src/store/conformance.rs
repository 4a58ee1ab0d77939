//! What every store promises, checked against the real thing.
//!
//! The suite knows nothing but [`Store`]. A store's own tests hand it a [`Site`]: a place that holds elections, as often
//! opened as asked, empty at first. `always:` is the exception: it excludes nobody, and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::observer::Observer;
use super::relinquish::{Parcel, Relinquish};
use super::worker::{Events, channel};
use super::{Access, Candidacy, Depth, Hints, Identity, Renewal, Sighting, Standing, Store, StoreUrl};
use crate::boundary::Boundary;
use crate::election::Term;
use crate::keeper::Claim;

/// Longer than anything a healthy store takes; only a test that fails waits so long.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a waiter waits for a hint before it asks by itself.
const PATIENCE: Duration = Duration::from_millis(200);

/// A store to be tested.
pub struct Site {
    /// Where it is.
    pub url: String,
    /// What gets us in.
    pub access: Access,
    /// What is asked for, where leases are granted.
    pub ttl: Duration,
}

/// Every test of the suite, on one site. Boundaries keep them apart.
pub fn conforms(site: &Site) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        for (test, name) in [
            (Test::Alone, "a candidate alone wins, and its renewal is credited"),
            (Test::Two, "a second candidate waits, knows the leader, and follows with a larger term"),
            (Test::AskedAgain, "asking again after winning gives the same term"),
            (Test::Strangers, "a renewal without a win is lost, and a release without one disturbs nobody"),
            (Test::GaveUp, "a waiter that gave up takes nothing later"),
            (Test::Claims, "a claim gives back what a dead campaigner held, leading or waiting"),
            (Test::Names, "boundaries with similar names are different boundaries"),
            (Test::Crowd, "of many candidates one leads at a time, and terms rise through every hand-over"),
            (Test::Identities, "whatever an identity is made of comes back as it was"),
            (Test::Observed, "an observer sees each change, in order, with the term before where the store knows it"),
            (Test::Surveyed, "a survey shows of each boundary what a look at it does"),
            (Test::Hinted, "hints are cancel safe, and nothing is missed without them"),
            (Test::Dead, "who is gone without a word leads no more once the lease is over"),
        ] {
            timeout(LIMIT, run(site, test)).await.unwrap_or_else(|_| panic!("{}: timed out: {name}", site.url));
        }
    });
}

enum Test {
    Alone,
    Two,
    AskedAgain,
    Strangers,
    GaveUp,
    Claims,
    Names,
    Crowd,
    Identities,
    Observed,
    Surveyed,
    Hinted,
    Dead,
}

async fn run(site: &Site, test: Test) {
    match test {
        Test::Alone => alone(site).await,
        Test::Two => two(site).await,
        Test::AskedAgain => asked_again(site).await,
        Test::Strangers => strangers(site).await,
        Test::GaveUp => gave_up(site).await,
        Test::Claims => claims(site).await,
        Test::Names => names(site).await,
        Test::Crowd => crowd(site).await,
        Test::Identities => identities(site).await,
        Test::Observed => observed(site).await,
        Test::Surveyed => surveyed(site).await,
        Test::Hinted => hinted(site).await,
        Test::Dead => dead(site).await,
    }
}

async fn alone(site: &Site) {
    let mut one = site.player("alone", "one");
    assert_eq!(one.leader().await, None);
    let term = one.win().await;
    assert!(term > 0);
    one.renews().await;
    let seen = one.store.look(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    let identity = &one.candidacy.identity;
    assert_eq!(
        (&seen.id, &seen.name, seen.host.as_ref(), seen.port),
        (&identity.id, &identity.name, Some(&identity.host), identity.port)
    );
    assert_eq!(seen.term, Some(term));
    assert!(seen.since.is_some());
    one.release().await;
    assert_eq!(one.leader().await, None);
    assert!(one.win().await > term, "its own second term is larger too");
    one.release().await;
}

async fn two(site: &Site) {
    let (mut one, mut two) = (site.player("two", "one"), site.player("two", "two"));
    let first = one.win().await;
    one.renews().await;
    assert_eq!(two.waits_for().await.as_deref(), Some("one"));
    one.release().await;
    let second = two.win().await;
    two.renews().await;
    assert!(second > first, "{second} after {first}");
    assert_eq!(one.waits_for().await.as_deref(), Some("two"));
    assert_eq!(one.leader().await.as_deref(), Some("two"));
    one.release().await;
    two.release().await;
}

async fn asked_again(site: &Site) {
    let mut one = site.player("again", "one");
    let term = one.win().await;
    assert_eq!(one.win().await, term, "the answer may have been lost on its way");
    one.renews().await;
    one.release().await;
}

async fn strangers(site: &Site) {
    let (mut one, mut two) = (site.player("strangers", "one"), site.player("strangers", "two"));
    one.win().await;
    one.renews().await;
    assert!(matches!(two.store.renew(&two.candidacy).await, Ok(Renewal::Lost { .. })));
    two.release().await;
    two.release().await;
    one.renews().await;
    assert_eq!(two.leader().await.as_deref(), Some("one"));
    one.release().await;
    assert!(matches!(one.store.renew(&one.candidacy).await, Ok(Renewal::Lost { .. })), "released is not ours any more");
}

async fn gave_up(site: &Site) {
    let (mut one, mut two) = (site.player("gave-up", "one"), site.player("gave-up", "two"));
    one.win().await;
    one.renews().await;
    two.waits_for().await;
    two.release().await;
    one.release().await;
    let mut three = site.player("gave-up", "three");
    three.win().await;
    three.renews().await;
    assert_eq!(two.leader().await.as_deref(), Some("three"));
    three.release().await;
}

async fn claims(site: &Site) {
    let (mut one, mut two) = (site.player("claims", "one"), site.player("claims", "two"));
    let mut three = site.player("claims", "three");
    let first = one.win().await;
    one.renews().await;
    two.waits_for().await;
    three.waits_for().await;
    // The waiter's campaigner dies first, then the leader's; both keepers give back what they have a claim to.
    two.dies(site).await;
    one.dies(site).await;
    assert!(three.win().await > first);
    three.renews().await;
    three.release().await;
}

async fn names(site: &Site) {
    let names = ["n", "n/m", "n2", "n.json", ".n", "N", "n m", "ñ", "n%2Fm"];
    let mut players: Vec<Player> = names.iter().map(|name| site.player(name, name)).collect();
    // A store that is observed wants to be looked at for a while, and all of them can do that at once.
    for player in &mut players {
        player.ask().await;
    }
    for player in &mut players {
        player.win().await;
        player.renews().await;
    }
    for (player, name) in players.iter_mut().zip(names) {
        assert_eq!(player.leader().await.as_deref(), Some(name));
    }
    let known = players[0].store.boundaries().await.expect("listed");
    let known: BTreeSet<&str> = known.iter().map(Boundary::as_str).collect();
    assert!(names.iter().all(|name| known.contains(name)), "{known:?}");
    for player in &mut players {
        player.release().await;
    }
}

async fn crowd(site: &Site) {
    let (sender, mut terms) = mpsc::unbounded_channel();
    let turns = 4;
    for number in 0..8 {
        let mut player = site.player("crowd", &format!("player {number}"));
        let sender = sender.clone();
        tokio::task::spawn_local(async move {
            for _ in 0..turns {
                let term = player.win().await;
                player.renews().await;
                sender.send((term, true)).expect("the test listens");
                tokio::task::yield_now().await;
                player.renews().await;
                sender.send((term, false)).expect("the test listens");
                player.release().await;
            }
        });
    }
    drop(sender);
    let (mut last, mut leading) = (0, None);
    while let Some((term, begins)) = terms.recv().await {
        if begins {
            assert_eq!(leading, None, "two lead");
            assert!(term > last, "{term} after {last}");
            (last, leading) = (term, Some(term));
        } else {
            assert_eq!(leading.take(), Some(term));
        }
    }
    assert!(last > 0);
}

async fn identities(site: &Site) {
    let mut one = site.player("identity", "\"O'Brien\" <Ümläut> \\ {}\n");
    one.candidacy.identity.host = "fe80::1%eth0".to_owned();
    one.candidacy.identity.port = Some(65_535);
    one.win().await;
    one.renews().await;
    let seen = one.store.look(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!(
        (seen.name, seen.host, seen.port),
        (one.candidacy.identity.name.clone(), Some("fe80::1%eth0".into()), Some(65_535))
    );
    one.release().await;
}

async fn observed(site: &Site) {
    let mut observer = site.observer("observed");
    assert_eq!(observer.next().await.expect("an answer")[0].1.as_ref().expect("a sighting").leader, None);
    let mut last = None;
    for name in ["one", "two", "three"] {
        let mut player = site.player("observed", name);
        let term = player.win().await;
        player.renews().await;
        let seen = sees(&mut observer, Some(name)).await;
        assert_eq!(seen.leader.expect("a leader").term, Some(term));
        // Known or not known, but not wrong.
        assert!(seen.former.is_none() || seen.former == last, "{:?}, not {last:?}", seen.former);
        player.renews().await;
        player.release().await;
        let seen = sees(&mut observer, None).await;
        assert!(seen.former.is_none_or(|former| former == term), "{seen:?}");
        last = Some(term);
    }
}

async fn surveyed(site: &Site) {
    let mut players: Vec<Player> = ["s", "s/t", "s2"].iter().map(|name| site.player(name, name)).collect();
    // At once, as above.
    for player in &mut players[..2] {
        player.ask().await;
    }
    for player in &mut players[..2] {
        player.win().await;
        player.renews().await;
    }
    let mut second = site.player("s/t", "second");
    second.waits_for().await;
    let leader = |sighting: &Sighting| sighting.leader.as_ref().map(|leader| (leader.id.clone(), leader.term));
    let mut store = site.store();
    for depth in [Depth::Leaders, Depth::Leases] {
        for player in &mut players[..2] {
            player.renews().await;
        }
        let seen = store.survey(depth).await.expect("surveyed");
        assert!(seen.is_sorted_by_key(|(boundary, _)| boundary.clone()), "{seen:?}");
        for player in &players[..2] {
            let boundary = &player.candidacy.boundary;
            let (_, at_once) = seen.iter().find(|(each, _)| each == boundary).expect("it is there");
            let at_once = at_once.as_ref().expect("a sighting");
            let alone = store.look(boundary).await.expect("looked");
            assert_eq!((leader(at_once), &at_once.candidates), (leader(&alone), &alone.candidates));
            assert_eq!(leader(at_once).map(|(id, _)| id).as_ref(), Some(&player.candidacy.identity.id));
        }
    }
    for mut player in players.into_iter().chain([second]) {
        player.release().await;
    }
}

async fn hinted(site: &Site) {
    let mut observer = site.observer("hinted");
    let mut store = site.store();
    let boundary = "hinted".parse().expect("a boundary");
    for turn in 0..5 {
        let mut player = site.player("hinted", &format!("player {turn}"));
        store.look(&boundary).await.expect("looked");
        for _ in 0..20 {
            let _ = timeout(Duration::ZERO, store.changed(Some(&boundary))).await;
        }
        player.win().await;
        player.renews().await;
        sees(&mut observer, Some(&player.candidacy.identity.name)).await;
        let seen = store.look(&boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!(seen.name, player.candidacy.identity.name);
        player.release().await;
        sees(&mut observer, None).await;
    }
}

async fn dead(site: &Site) {
    let mut observer = site.observer("dead");
    let mut one = site.player("dead", "one");
    one.candidacy.ttl = one.candidacy.ttl.min(Duration::from_secs(2));
    let term = one.win().await;
    one.renews().await;
    sees(&mut observer, Some("one")).await;
    drop(one);
    let seen = sees(&mut observer, None).await;
    assert!(seen.former.is_none_or(|former| former == term), "{seen:?}");
    let (boundary, mut store) = ("dead".parse().expect("a boundary"), site.store());
    assert_eq!(store.look(&boundary).await.expect("looked").leader, None);
    let all = store.survey(Depth::Leases).await.expect("surveyed");
    let shown = all.iter().find(|(each, _)| *each == boundary);
    assert!(shown.is_none_or(|(_, seen)| seen.as_ref().is_ok_and(|seen| seen.leader.is_none())), "{all:?}");
}

/// What is seen once this one leads, or nobody.
async fn sees(observer: &mut Observer, name: Option<&str>) -> Sighting {
    loop {
        let (_, sighting) = observer.next().await.expect("an answer").pop().expect("one boundary");
        let sighting = sighting.expect("a sighting");
        if sighting.leader.as_ref().map(|leader| leader.name.as_str()) == name {
            return sighting;
        }
    }
}

impl Site {
    fn store(&self) -> Box<dyn Store> {
        StoreUrl::parse(&self.url).expect("a URL").open(&self.access, Hints::to_nobody()).expect("opened")
    }

    fn observer(&self, boundary: &str) -> Observer {
        Observer::new(self.store(), Some(boundary.parse().expect("a boundary")), LIMIT)
    }

    fn player(&self, boundary: &str, name: &str) -> Player {
        let url = StoreUrl::parse(&self.url).expect("a URL");
        let (hints, events) = channel();
        let identity = Identity {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            host: "host.example".to_owned(),
            port: Some(8080),
        };
        let boundary = boundary.parse().expect("a boundary");
        let candidacy = Candidacy { boundary, identity, ttl: self.ttl };
        Player { store: url.open(&self.access, hints).expect("opened"), candidacy, events, claim: None }
    }
}

/// A candidate without a command.
struct Player {
    store: Box<dyn Store>,
    candidacy: Candidacy,
    events: Events,
    claim: Option<Claim>,
}

impl Player {
    async fn ask(&mut self) -> Standing {
        if let Some(claim) = self.store.claim(&self.candidacy).expect("a claim") {
            self.claim = Some(claim);
        }
        self.store.campaign(&self.candidacy).await.expect("an answer")
    }

    async fn win(&mut self) -> Term {
        loop {
            match self.ask().await {
                Standing::Won { term } => return term,
                Standing::Waiting { again, .. } => {
                    let until = Instant::now() + again.unwrap_or(PATIENCE).min(PATIENCE);
                    tokio::select! {
                        _ = self.events.recv() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// Asks once, does not win, and says who leads as far as the store knows.
    async fn waits_for(&mut self) -> Option<String> {
        match self.ask().await {
            Standing::Won { term } => panic!("won term {term} beside a leader"),
            Standing::Waiting { sighting, .. } => sighting.leader.map(|leader| leader.name),
        }
    }

    async fn renews(&mut self) {
        let renewal = self.store.renew(&self.candidacy).await.expect("an answer");
        let Renewal::Credited { ttl, .. } = renewal else { panic!("not credited: {renewal:?}") };
        assert_eq!(ttl.is_some(), self.store.grants_leases());
    }

    async fn release(&mut self) {
        self.store.release(&self.candidacy).await.expect("released");
    }

    async fn leader(&mut self) -> Option<String> {
        let sighting = self.store.look(&self.candidacy.boundary).await.expect("looked");
        sighting.leader.map(|leader| leader.name)
    }

    /// As if the campaigner were killed: its store is gone without a word, and the keeper has the claim.
    async fn dies(self, site: &Site) {
        let Player { store, claim, .. } = self;
        drop(store);
        let claim = claim.expect("the keeper had a claim");
        match StoreUrl::parse(&site.url).expect("a URL").kind.relinquish {
            Relinquish::InPlace(release) => release(claim),
            Relinquish::Executed(_) => {
                let parcel: Parcel = serde_json::from_slice(&claim.payload).expect("a parcel");
                parcel.relinquish().await.expect("relinquished");
            }
        }
    }
}
