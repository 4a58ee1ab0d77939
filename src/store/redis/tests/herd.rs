//! Many candidates on one boundary: the candidates that a release and a take are told to, and those that are told on no group's channel.

use std::io::{BufRead as _, BufReader, Write as _};

use elect_core::takeover::Reservation;

use super::round_trips::{patient, settled_before};
use super::*;
use crate::store::worker::{Events, StoreEvent};

const CHANNEL: &str = "elect:cron";
/// More than are told all at once, whoever they are.
const MANY: usize = 20;

/// A client that listens on a channel, and on one of its own that nobody else knows.
struct Ear {
    reader: BufReader<TcpStream>,
    own: String,
}

impl Ear {
    fn on(server: &RedisProcess, channel: &str) -> Ear {
        let own = format!("of-{}", uuid::Uuid::new_v4());
        let mut stream = TcpStream::connect(&server.address).expect("it listens");
        let words = ["SUBSCRIBE", channel, &own].map(|word| format!("${}\r\n{word}\r\n", word.len()));
        stream.write_all(format!("*3\r\n{}", words.concat()).as_bytes()).expect("it reads");
        let mut ear = Ear { reader: BufReader::new(stream), own };
        let _confirmed: [[String; 6]; 2] = [ear.lines(), ear.lines()];
        ear
    }

    /// In a group of the boundary, and on its channel.
    fn in_group(server: &RedisProcess, group: usize) -> [Ear; 2] {
        [Ear::on(server, &format!("{CHANNEL}\t0\t{group}")), Ear::on(server, CHANNEL)]
    }

    fn lines<const COUNT: usize>(&mut self) -> [String; COUNT] {
        [(); COUNT].map(|()| {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("it answers");
            line.trim_end_matches(['\r', '\n']).to_owned()
        })
    }

    /// The announcements since the last call.
    fn heard(&mut self, server: &RedisProcess) -> Vec<String> {
        server.cli(&["publish", &self.own, "end"]);
        let mut words = Vec::new();
        loop {
            let [_, _, _, _, channel, _, word] = self.lines::<7>();
            if channel == self.own {
                return words;
            }
            words.push(word);
        }
    }
}

fn ears(server: &RedisProcess, count: usize) -> Vec<Ear> {
    (0..count).map(|_| Ear::on(server, CHANNEL)).collect()
}

/// A candidate that waits, and the hints that it gets.
struct Waiter {
    candidate: RedisCandidate,
    events: Events,
}

impl Waiter {
    async fn by(user: &str, server: &RedisProcess) -> Waiter {
        let (notifier, events) = channel();
        let url = format!("redis://{user}{}", server.address);
        let access = Access { request_timeout: Duration::from_secs(30), ..Access::default() };
        let store = StoreUrl::parse(&url).map(|url| url.open(&access, notifier)).expect("a URL").expect("opened");
        let mut candidate = RedisCandidate { store, ..RedisCandidate::at(server, "", "waiter") };
        assert!(matches!(candidate.ask().await, Ok(CampaignResult::Waiting { .. })));
        Waiter { candidate, events }
    }

    fn is_told(&mut self) -> bool {
        std::iter::from_fn(|| self.events.try_recv().ok()).filter(|event| matches!(event, StoreEvent::Hint)).count() > 0
    }
}

async fn waiters(user: &str, server: &RedisProcess, count: usize) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for _ in 0..count {
        waiters.push(Waiter::by(user, server).await);
    }
    // Those of the time before.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for waiter in &mut waiters {
        waiter.is_told();
    }
    waiters
}

/// A candidate that is in no group itself.
async fn leads(server: &RedisProcess) -> RedisCandidate {
    let mut leader = patient(server, "", "leader");
    leader.store.set_takeover_delay(Duration::from_millis(1));
    leader.wins().await;
    leader.is_credited().await;
    leader
}

async fn is_released(leader: &mut RedisCandidate) {
    leader.store.release(&leader.candidacy).await.expect("released");
}

/// How many of them are told of something, once as many are as are to be.
async fn told(waiters: &mut [Waiter], at_least: usize) -> usize {
    let (mut told, limit) = (vec![false; waiters.len()], clock::now() + Duration::from_secs(60));
    let count = |told: &[bool]| told.iter().filter(|&&told| told).count();
    while count(&told) < at_least {
        assert!(clock::now() < limit, "only {} are told", count(&told));
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (waiter, told) in waiters.iter_mut().zip(&mut told) {
            *told |= waiter.is_told();
        }
    }
    count(&told)
}

#[test]
fn among_many_candidates_a_few_are_told_of_a_release_and_one_of_them_leads() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut leader = leads(server).await;
        let mut waiters = waiters("", server, 100).await;
        is_released(&mut leader).await;
        // The last group that is told may be a large one.
        let told = told(&mut waiters, 8).await;
        assert!(told < 40, "{told} of 100 are told");
        assert!(matches!(waiters[0].candidate.ask().await, Ok(CampaignResult::Won { .. })));
    });
}

/// An elect that knows no groups listens on the boundary's channel alone, as observers do.
#[test]
fn all_are_told_of_a_release_if_too_few_are_in_groups_or_too_few_listen() {
    with_server(async |server| {
        settled_before(server, "").await;
        // Observers of all boundaries hear every group, and take nothing.
        let _observers: Vec<TcpStream> = (0..10)
            .map(|_| {
                let mut stream = TcpStream::connect(&server.address).expect("it listens");
                stream.write_all(b"PSUBSCRIBE elect:*\r\n").expect("it reads");
                BufReader::new(&stream).read_line(&mut String::new()).expect("it answers");
                stream
            })
            .collect();
        // Channels know no databases.
        let _elsewhere: Vec<Ear> = (0..12).map(|group| Ear::on(server, &format!("{CHANNEL}\t1\t{group}"))).collect();
        for (listeners, members, is_told) in [(MANY, 0, true), (MANY, 7, true), (MANY, 8, false), (2, 12, true)] {
            let mut leader = leads(server).await;
            let mut ears = ears(server, listeners);
            // The first and the last group are among them.
            let groups = (0..members).map(|number: usize| if number == 0 { 63 } else { number - 1 });
            let mut groups: Vec<Ear> = groups.map(|group| Ear::on(server, &format!("{CHANNEL}\t0\t{group}"))).collect();
            is_released(&mut leader).await;
            for ear in &mut ears {
                assert_eq!(ear.heard(server) == ["freed"], is_told, "{listeners} listen, {members} in groups");
            }
            let told = groups.iter_mut().filter_map(|ear| ear.heard(server).pop()).count();
            let by_groups = if listeners == MANY { members } else { 0 };
            assert_eq!(told, by_groups, "{listeners} listen, {members} in groups");
        }
    });
}

#[test]
fn as_many_groups_are_told_as_have_eight_listeners_and_others_in_another_term() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut members: Vec<[Ear; 2]> = (0..64).map(|group| Ear::in_group(server, group)).collect();
        let mut first = None;
        for _ in 0..20 {
            is_released(&mut leads(server).await).await;
            let told: Vec<bool> =
                members.iter_mut().map(|[group, _]| group.heard(server).contains(&"freed".to_owned())).collect();
            assert_eq!(told.iter().filter(|&&told| told).count(), 8);
            if *first.get_or_insert_with(|| told.clone()) != told {
                return;
            }
        }
        panic!("always the same");
    });
}

/// The successor is told with all others: its group is not known.
#[test]
fn all_are_told_of_a_record_that_is_left_to_a_successor() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut leader = leads(server).await;
        let mut members: Vec<[Ear; 2]> = (0..MANY).map(|group| Ear::in_group(server, group)).collect();
        let reservation = Reservation { successor: "waiter".to_owned(), within: Duration::from_secs(60) };
        leader.store.reserve(&leader.candidacy, Some(reservation)).await.expect("reserved");
        is_released(&mut leader).await;
        assert!(members.iter_mut().all(|[_, ear]| ear.heard(server) == ["freed"]));
    });
}

#[test]
fn a_release_without_the_right_to_ask_how_many_listen_is_told_to_all() {
    with_server(async |server| {
        settled_before(server, "").await;
        server.cli(&["acl", "setuser", "default", "-pubsub"]);
        let mut members: Vec<[Ear; 2]> = (0..MANY).map(|group| Ear::in_group(server, group)).collect();
        is_released(&mut leads(server).await).await;
        assert!(members.iter_mut().all(|[_, ear]| ear.heard(server) == ["taken", "renewed", "freed"]));
    });
}

#[test]
fn candidates_that_may_not_hear_a_group_are_told_on_the_channel_of_the_boundary() {
    with_server(async |server| {
        settled_before(server, "").await;
        let rules = ["resetkeys", "~elect:*", "resetchannels", "&elect:cron", "+@all"];
        server.cli(&[&["acl", "setuser", "few", "on", ">secret"][..], &rules].concat());
        let mut leader = leads(server).await;
        let mut waiters = waiters("few:secret@", server, MANY).await;
        assert_eq!(server.groups(), 0);
        is_released(&mut leader).await;
        assert_eq!(told(&mut waiters, MANY).await, MANY);
        // Nothing speaks against their connections.
        assert!(matches!(waiters[0].candidate.ask().await, Ok(CampaignResult::Won { .. })));
        assert_eq!(server.listeners(), (MANY + 1).to_string());
    });
}

impl RedisProcess {
    /// The groups that have a member.
    fn groups(&self) -> usize {
        self.cli(&["pubsub", "channels", &format!("{CHANNEL}\t*")]).lines().count()
    }

    /// How many listen on the channel of the boundary.
    fn listeners(&self) -> String {
        self.cli(&["pubsub", "numsub", CHANNEL]).lines().last().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_group_has_those_that_would_take_a_free_record_at_once() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut leader = leads(server).await;
        assert_eq!((server.groups(), server.listeners().as_str()), (0, "1"), "it would wait as a spare");
        let mut one = Waiter::by("", server).await.candidate;
        for _ in 0..2 {
            assert_eq!((server.groups(), server.listeners().as_str()), (1, "2"));
            // As one that is not eligible.
            one.store.observe(&one.candidacy.boundary).await.expect("looked");
            assert_eq!((server.groups(), server.listeners().as_str()), (0, "2"), "it listens all the same");
            one.ask().await.expect("an answer");
        }
        is_released(&mut leader).await;
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        for _ in 0..2 {
            one.is_credited().await;
        }
        assert_eq!((server.groups(), server.listeners().as_str()), (0, "2"), "a leader is told of no release");
        is_released(&mut one).await;
        leader = leads(server).await;
        one.ask().await.expect("an answer");
        server.cli(&["acl", "setuser", "default", "-unsubscribe"]);
        one.store.observe(&one.candidacy.boundary).await.expect("looked");
        let limit = clock::now() + Duration::from_secs(60);
        while server.groups() > 0 {
            assert!(clock::now() < limit, "its connection stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        is_released(&mut leader).await;
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        for _ in 0..2 {
            one.is_credited().await;
        }
        assert_eq!((server.groups(), server.listeners().as_str()), (1, "2"), "its connection serves on");
    });
}

#[test]
fn many_are_told_of_a_take_later_with_their_number_and_by_the_renewals_after_the_first() {
    with_server(async |server| {
        for is_settled in [true, false] {
            server.cli(&["flushall"]);
            if is_settled {
                settled_before(server, "").await;
            } else {
                led_before(server).await;
            }
            for (listeners, announced) in [(2, ["taken", "renewed"].as_slice()), (MANY, &["taken 21"])] {
                let mut ears = ears(server, listeners);
                let mut leader = leads(server).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert!(ears.iter_mut().all(|ear| ear.heard(server) == announced), "{listeners}");
                leader.is_credited().await;
                leader.candidacy.identity.port = Some(9000);
                leader.is_credited().await;
                let renamed = if listeners == MANY { "renamed 21" } else { "renamed" };
                assert!(ears.iter_mut().all(|ear| ear.heard(server) == ["renewed", renamed]), "{listeners}");
                is_released(&mut leader).await;
            }
        }
    });
}
