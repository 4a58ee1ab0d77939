//! The collection of changes: that hints come, and that elections do without.

use std::time::Duration;

use ::mongodb::Collection;
use ::mongodb::bson::{Document, doc};
use tokio::time::{sleep, timeout};

use super::{MongoCandidate, MongodProcess, Topology, with_server};
use crate::store::{CampaignResult, StoreError};
use elect_keeper::clock;

const CHANGES: &str = "changes";
/// Shorter than a candidate waits for a record that it has seen.
const SOON: Duration = Duration::from_secs(15);

impl MongodProcess {
    async fn changes(&self) -> Collection<Document> {
        self.client().await.database("elect").collection(CHANGES)
    }

    /// How many entries there are of the boundary.
    async fn entries(&self) -> u64 {
        self.changes().await.count_documents(doc! { "boundary": "cron" }).await.expect("counted")
    }

    async fn has_changes(&self) -> bool {
        let names = self.client().await.database("elect").list_collection_names().await.expect("listed");
        names.iter().any(|name| name == CHANGES)
    }

    /// Waits until there are so many entries of the boundary.
    async fn has_entries(&self, count: u64) {
        let changes = self.changes().await;
        while changes.count_documents(doc! { "boundary": "cron" }).await.expect("counted") < count {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn create_changes(&self, options: Document) {
        let mut command = doc! { "create": CHANGES };
        command.extend(options);
        self.client().await.database("elect").run_command(command).await.expect("created");
    }

    async fn drop_changes(&self) {
        self.changes().await.drop().await.expect("dropped");
    }

    /// Of all clients.
    async fn open_cursors(&self) -> i64 {
        let status = self.client().await.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("told");
        let metrics = status.get_document("metrics").and_then(|metrics| metrics.get_document("cursor"));
        let open = metrics.and_then(|cursor| cursor.get_document("open")).expect("it counts them");
        open.get_i64("total").expect("a number")
    }

    /// Fails commands of this name from now on, or so many.
    async fn refuses(&self, mode: impl Into<::mongodb::bson::Bson>, command: &str, code: i32) {
        let data = doc! { "failCommands": [command], "errorCode": code };
        let order = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
        self.client().await.database("admin").run_command(order).await.expect("it takes orders");
    }
}

impl MongoCandidate {
    /// It leads, and the others were told.
    async fn leads(&mut self) {
        self.wins().await;
        self.is_credited().await;
    }

    async fn releases(&mut self) {
        self.store.release(&self.candidacy).await.expect("released");
    }

    /// Asks only when it is told to, until it leads.
    async fn takes_when_told(&mut self) {
        loop {
            timeout(SOON, self.is_told()).await.expect("a hint");
            if let CampaignResult::Won { .. } = self.ask().await.expect("an answer") {
                self.is_credited().await;
                return;
            }
        }
    }

    /// Asks at the usual pace until it leads, within the time that a record is waited for.
    async fn takes_by_asking(&mut self) {
        let began = clock::now();
        loop {
            if let CampaignResult::Won { .. } = self.ask().await.expect("an answer") {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        assert!(clock::now().since(began) < SOON, "{:?}", clock::now().since(began));
        self.is_credited().await;
    }

    fn forgets_hints(&mut self) {
        while self.events.try_recv().is_ok() {}
    }
}

/// A leader whose take has been told, and a candidate with a cursor.
async fn pair(server: &MongodProcess) -> (MongoCandidate, MongoCandidate) {
    let (mut leader, mut next) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "next"));
    leader.leads().await;
    server.has_entries(1).await;
    next.listens().await;
    (leader, next)
}

/// Without a hint this test would never end.
#[test]
fn a_release_is_told_at_once_and_a_leader_holds_no_cursor() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let (mut leader, mut next) = pair(server).await;
            for turn in 1..=3 {
                next.forgets_hints();
                assert_eq!(server.open_cursors().await, 1, "the waiter's");
                leader.releases().await;
                next.takes_when_told().await;
                server.has_entries(1 + 2 * turn).await;
                while server.open_cursors().await > 0 {
                    sleep(Duration::from_millis(10)).await;
                }
                (leader, next) = (next, leader);
                next.listens().await;
            }
        });
    }
}

#[test]
fn takes_new_names_and_releases_write_an_entry_and_renewals_none() {
    with_server(Topology::Standalone, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        one.leads().await;
        server.has_entries(1).await;
        for _ in 0..5 {
            one.is_credited().await;
        }
        one.candidacy.identity.host = "new".to_owned();
        one.is_credited().await;
        server.has_entries(2).await;
        one.is_credited().await;
        // Nothing can be under way after this one, which comes in its turn.
        one.releases().await;
        assert_eq!(server.entries().await, 3);
    });
}

/// Without a hint this test would never end.
#[test]
fn an_observer_hears_of_a_take_a_new_name_and_a_release_and_creates_nothing() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let boundary = MongoCandidate::at(server, "nobody").candidacy.boundary;
            let mut observer = MongoCandidate::at(server, "observer");
            observer.store.observe(&boundary).await.expect("looked");
            let told = timeout(Duration::from_secs(1), observer.store.wait_for_change(None)).await;
            assert!(told.is_err() && !server.has_changes().await, "there is nothing to hear");
            MongoCandidate::at(server, "maker").leads().await;
            server.has_entries(1).await;
            server.boundaries().await.delete_many(doc! {}).await.expect("deleted");
            for scope in [Some(&boundary), None] {
                let (mut one, mut observer) =
                    (MongoCandidate::at(server, "one"), MongoCandidate::at(server, "observer"));
                observer.store.observe(&boundary).await.expect("looked");
                // That it listens from now on.
                observer.store.wait_for_change(scope).await;
                one.leads().await;
                observer.store.wait_for_change(scope).await;
                one.candidacy.identity.host = format!("new for {scope:?}");
                one.is_credited().await;
                observer.store.wait_for_change(scope).await;
                let leader = observer.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
                assert_eq!(leader.host, Some(one.candidacy.identity.host.clone()));
                one.releases().await;
                observer.store.wait_for_change(scope).await;
                assert_eq!(observer.store.observe(&boundary).await.expect("looked").leader, None);
            }
        });
    }
}

#[test]
fn the_changes_of_other_boundaries_are_no_hints() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = pair(server).await;
        next.forgets_hints();
        let mut other = MongoCandidate::at(server, "other");
        other.candidacy.boundary = "another".parse().expect("a name");
        other.leads().await;
        other.releases().await;
        assert!(timeout(Duration::from_millis(500), next.is_told()).await.is_err());
        leader.releases().await;
        next.takes_when_told().await;
    });
}

#[test]
fn a_collection_of_another_program_is_left_alone_and_elections_do_without() {
    for options in
        [doc! {}, doc! { "capped": true, "size": 1_048_576 }, doc! { "viewOn": "boundaries", "pipeline": [] }]
    {
        with_server(Topology::Standalone, async |server| {
            let is_view = options.contains_key("viewOn");
            server.create_changes(options.clone()).await;
            let changes = server.changes().await;
            if !is_view {
                changes.insert_one(doc! { "boundary": "cron" }).await.expect("inserted");
            }
            let (mut leader, mut next) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "next"));
            leader.leads().await;
            assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
            assert!(timeout(Duration::from_millis(500), next.is_told()).await.is_err(), "it is not read: {options}");
            leader.releases().await;
            next.takes_by_asking().await;
            assert!(is_view || server.entries().await == 1, "it is not written: {options}");
        });
    }
}

#[test]
fn a_collection_that_was_dropped_is_created_again_by_the_one_that_waits() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = pair(server).await;
        server.drop_changes().await;
        // It asks at the usual pace.
        while !server.has_changes().await {
            assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
            sleep(Duration::from_millis(200)).await;
        }
        next.is_told().await;
        sleep(Duration::from_millis(200)).await;
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

/// An insert would create it without a limit.
#[test]
fn a_release_creates_no_collection() {
    with_server(Topology::Standalone, async |server| {
        let mut leader = MongoCandidate::at(server, "leader");
        leader.leads().await;
        server.has_entries(1).await;
        server.drop_changes().await;
        leader.releases().await;
        assert!(!server.has_changes().await);
    });
}

#[test]
fn a_collection_without_an_entry_gets_its_first_one() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "next"));
        leader.wins().await;
        server.create_changes(doc! { "capped": true, "size": 262_144 }).await;
        next.listens().await;
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

#[test]
fn a_cursor_that_has_lost_its_place_is_opened_again() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = pair(server).await;
        // Its next question, which this entry brings about.
        server.refuses(doc! { "times": 1 }, "getMore", 136).await;
        server.changes().await.insert_one(doc! { "boundary": "cron" }).await.expect("inserted");
        next.is_told().await;
        for _ in 0..8 {
            assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
            sleep(Duration::from_millis(200)).await;
        }
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

#[test]
fn a_cursor_that_always_dies_makes_no_storm_and_is_done_without() {
    with_server(Topology::Standalone, async |server| {
        let mut leader = MongoCandidate::at(server, "leader");
        leader.leads().await;
        server.has_entries(1).await;
        server.refuses("alwaysOn", "getMore", 136).await;
        let mut next = MongoCandidate::at(server, "next");
        let (mut hints, began, watched) = (0, clock::now(), Duration::from_secs(3));
        while clock::now().since(began) < watched {
            assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
            if timeout(Duration::from_millis(400), next.is_told()).await.is_ok() {
                hints += 1;
            }
        }
        assert!((1..=4).contains(&hints), "{hints} hints in {watched:?}");
        leader.releases().await;
        next.takes_by_asking().await;
    });
}

#[test]
fn a_hint_that_fails_or_hangs_has_no_consequence() {
    for data in [doc! { "errorCode": 11_600 }, doc! { "blockConnection": true, "blockTimeMS": 60_000 }] {
        for command in ["insert", "listCollections", "create"] {
            with_server(Topology::Standalone, async |server| {
                let mut data = data.clone();
                data.extend(doc! { "failCommands": [command], "appName": "leader" });
                let order = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data };
                server.client().await.database("admin").run_command(order).await.expect("it takes orders");
                let mut leader = MongoCandidate::with(server, "leader", Duration::from_secs(5));
                let mut next = MongoCandidate::at(server, "next");
                leader.leads().await;
                leader.is_credited().await;
                leader.releases().await;
                next.takes_by_asking().await;
            });
        }
    }
}

/// The time that connecting and the release have taken is not left for the hint: an attempt that is over would count as a release that has failed.
#[test]
fn a_hint_that_hangs_fails_no_release_that_begins_with_connecting() {
    with_server(Topology::Standalone, async |server| {
        let mut leader = MongoCandidate::with(server, "leader", Duration::from_secs(8));
        leader.leads().await;
        server.has_entries(1).await;
        server.shuts_down_at("findAndModify", 1).await;
        leader.renews().await.expect_err("the connection is given up");
        // Connecting must not take half of the attempt, and each of the others takes as long.
        let slow = doc! {
            "failCommands": ["hello", "findAndModify", "listCollections"], "appName": "leader", "blockConnection": true,
            "blockTimeMS": 3400,
        };
        server.fails(100, slow).await;
        let mut released = leader.store.release(&leader.candidacy).await;
        if let Err(StoreError::Connecting(_)) = released {
            // This machine is slow. The next attempt has its whole time for the rest.
            released = leader.store.release(&leader.candidacy).await;
        }
        released.expect("released");
    });
}

/// Otherwise no other cursor would ever be opened on these connections.
#[test]
fn a_cursor_that_is_not_opened_in_time_is_given_up() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "next"));
        leader.leads().await;
        server.has_entries(1).await;
        let hangs = doc! {
            "failCommands": ["listCollections"], "appName": "next", "blockConnection": true, "blockTimeMS": 3_600_000,
        };
        server.fails(1, hangs).await;
        assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
        let asks = async {
            loop {
                sleep(Duration::from_millis(200)).await;
                leader.is_credited().await;
                assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
                // A hint is no sign of one: the watch that was given up gives one too.
                if server.open_cursors().await == 1 {
                    return;
                }
            }
        };
        timeout(SOON, asks).await.expect("a cursor");
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

/// So many that most of them must stop listening.
const CROWD: usize = 40;
/// As many as listen in any case.
const FEW: i64 = 16;

/// All of them look. Returns when those look again that do not listen, in order.
async fn next_looks(waiting: &mut [MongoCandidate]) -> Vec<Duration> {
    let mut looks = Vec::new();
    for next in waiting {
        match next.ask().await {
            Ok(CampaignResult::Waiting { again: Some(again), .. }) => looks.push(again),
            other => panic!("{other:?}"),
        }
    }
    looks.retain(|again| *again <= MongoCandidate::RENEW_INTERVAL);
    looks.sort_unstable();
    looks
}

/// Without a hint this test would never end.
#[test]
fn of_a_crowd_a_few_listen_and_one_of_them_takes_what_is_released() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let mut leader = MongoCandidate::at(server, "leader");
            leader.candidacy.ttl = Duration::from_secs(3600);
            leader.leads().await;
            let mut waiting = Vec::new();
            for _ in 0..CROWD {
                let mut next = MongoCandidate::at(server, "next");
                next.candidacy.ttl = Duration::from_secs(3600);
                // Later ones find no room.
                assert!(matches!(next.ask().await, Ok(CampaignResult::Waiting { .. })));
                waiting.push(next);
            }
            let few = async {
                loop {
                    // They have begun, and have counted.
                    sleep(Duration::from_secs(3)).await;
                    let looks = next_looks(&mut waiting).await;
                    if (1..=FEW).contains(&server.open_cursors().await) && looks.len() >= CROWD - 16 {
                        return looks;
                    }
                }
            };
            // Those that do not listen, and not all of them just when the leader has renewed.
            let looks = timeout(4 * SOON, few).await.expect("most of them stop");
            assert!(looks[looks.len() - 1].saturating_sub(looks[0]) >= MongoCandidate::RENEW_INTERVAL / 8, "{looks:?}");
            waiting.iter_mut().for_each(MongoCandidate::forgets_hints);
            leader.releases().await;
            let mut tasks = tokio::task::JoinSet::new();
            for mut next in waiting {
                tasks.spawn_local(async move {
                    loop {
                        next.is_told().await;
                        if let CampaignResult::Won { .. } = next.ask().await.expect("an answer") {
                            return next;
                        }
                    }
                });
            }
            timeout(SOON, tasks.join_next()).await.expect("one of them was told").expect("it runs").expect("it leads");
        });
    }
}

/// Without a hint this test would never end.
#[test]
fn observers_are_no_part_of_a_crowd() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = pair(server).await;
        let boundary = next.candidacy.boundary.clone();
        let mut observers = Vec::new();
        for _ in 0..=FEW {
            let mut observer = MongoCandidate::at(server, "observer");
            observer.store.observe(&boundary).await.expect("looked");
            observer.store.wait_for_change(Some(&boundary)).await;
            observers.push(observer);
        }
        let mut late = MongoCandidate::at(server, "late");
        late.listens().await;
        // Both have counted.
        sleep(Duration::from_secs(4)).await;
        assert_eq!(server.open_cursors().await, FEW + 3);
        late.forgets_hints();
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

/// Without a hint this test would never end.
#[test]
fn where_the_server_does_not_tell_how_many_listen_all_do() {
    with_server(Topology::Standalone, async |server| {
        let refuses = doc! { "failCommands": ["aggregate"], "namespace": "admin.$cmd.aggregate", "errorCode": 13 };
        let order = doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": refuses };
        server.client().await.database("admin").run_command(order).await.expect("it takes orders");
        let (mut leader, mut next) = pair(server).await;
        let mut others = Vec::new();
        for _ in 0..=FEW {
            let mut other = MongoCandidate::at(server, "other");
            other.listens().await;
            others.push(other);
        }
        sleep(Duration::from_secs(4)).await;
        assert_eq!(server.open_cursors().await, FEW + 2);
        drop(others);
        next.forgets_hints();
        leader.releases().await;
        next.takes_when_told().await;
    });
}

/// Otherwise a crowd of drained candidates would keep the others from listening.
#[test]
fn a_candidate_that_does_not_campaign_for_now_leaves_its_cursor_to_others_if_they_are_many() {
    with_server(Topology::Standalone, async |server| {
        let (_leader, mut next) = pair(server).await;
        let mut others = Vec::new();
        for _ in 1..FEW - 1 {
            let mut other = MongoCandidate::at(server, "other");
            other.listens().await;
            others.push(other);
        }
        next.releases().await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(server.open_cursors().await, FEW - 1, "there is room");
        let mut last = MongoCandidate::at(server, "last");
        last.listens().await;
        while server.open_cursors().await == FEW {
            // A cursor that is not waiting just then is not counted.
            next.releases().await;
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(server.open_cursors().await, FEW - 1);
    });
}

/// The CPU time that the server has used.
fn used(server: &MongodProcess) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// The cost of a renewal to the server among so many leaders, each of which has a candidate that waits and looks once per renewal.
async fn cost_of_a_renewal(server: &MongodProcess, count: usize) -> Duration {
    const ROUNDS: u32 = 5;
    let mut pairs = Vec::new();
    for number in 0..count {
        let (mut leader, mut waiter) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "waiter"));
        for candidate in [&mut leader, &mut waiter] {
            candidate.candidacy.boundary = format!("{count}-{number}").parse().expect("a name");
            candidate.candidacy.ttl = Duration::from_secs(3600);
        }
        leader.leads().await;
        waiter.listens().await;
        pairs.push((leader, waiter));
    }
    let (before, began) = (used(server), clock::now());
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (mut leader, mut waiter)) in pairs.into_iter().enumerate() {
        tasks.spawn_local(async move {
            let interval = Duration::from_secs(2);
            sleep(interval * u32::try_from(number).expect("few") / u32::try_from(count).expect("few")).await;
            for _ in 0..ROUNDS {
                leader.is_credited().await;
                assert!(matches!(waiter.ask().await, Ok(CampaignResult::Waiting { .. })));
                sleep(interval).await;
            }
            (leader, waiter)
        });
    }
    let pairs = tasks.join_all().await;
    let (spent, took) = (used(server).saturating_sub(before), clock::now().since(began));
    let cost = spent / (ROUNDS * u32::try_from(count).expect("few"));
    let share = spent.as_secs_f64() / took.as_secs_f64() * 100.0;
    println!(
        "figures: mongodb: {count} leaders, each with a waiter: {cost:?} a renewal, {share:.1} % of a core in {took:?}"
    );
    drop(pairs);
    cost
}

/// Not so if every waiter looked at every renewal.
#[test]
fn a_renewal_costs_the_server_the_same_however_many_lead_and_wait() {
    let counts = if std::env::var_os("ELECT_LONG").is_some() { [75, 300] } else { [10, 40] };
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        let server = MongodProcess::start(kind);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let [few, many] =
            counts.map(|count| tokio::task::LocalSet::new().block_on(&runtime, cost_of_a_renewal(&server, count)));
        assert!(many < few * 2, "{few:?} with {} leaders, {many:?} with {}", counts[0], counts[1]);
    }
}
