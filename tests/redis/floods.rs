//! Servers, and programs that may publish on a channel of ours, that send more than anybody asked for: it costs bounded memory,
//! a bounded number of questions, and no lease (DESIGN.md 2.5).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::{elect, key, led_before};
use crate::harness::resource_usage;
use crate::harness::server::StoreServer;
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::leases::{asks_once, candidate, candidate_for};
use crate::redis::fake_redis::{FakeRedis, FakeReply, as_redis};
use crate::redis::server::{RedisOptions, RedisServer};

#[track_caller]
fn is_small(what: &str, candidate: &CandidateProcess) {
    resource_usage::is_small(&format!("redis: {what}"), candidate.pid());
}

/// A client that publishes one word as fast as the server takes it.
struct Publisher {
    is_over: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    fn on(redis: &RedisServer, channel: &str, word: &str) -> Publisher {
        let (is_over, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let size = (channel.len(), word.len());
        let command = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{word}\r\n", size.0, size.1);
        let at_once = (262_144 / command.len()).max(1);
        let bytes = command.repeat(at_once).into_bytes();
        let mut stream = TcpStream::connect(redis.address()).expect("a server that is up");
        let mut answers = stream.try_clone().expect("one more descriptor");
        let (ends, count) = (Arc::clone(&is_over), Arc::clone(&published));
        let thread = thread::spawn(move || {
            thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
            while !ends.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {
                count.fetch_add(at_once as u64, Ordering::Relaxed);
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        Publisher { is_over, published, thread: Some(thread) }
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A server that does not end the connection of a subscriber that is slow: so the flood arrives in full.
fn patient_server() -> RedisServer {
    RedisServer::with(&RedisOptions::new().flag("client-output-buffer-limit", &["pubsub 0 0 0"]))
}

#[test]
fn a_flood_of_announcements_costs_no_memory_and_no_lease() {
    for word in ["taken", "renewed", &"x".repeat(1000)] {
        let redis = patient_server();
        let sandbox = Sandbox::new();
        led_before(&sandbox, &redis);
        let leader = elect(&sandbox, &redis, "60s").flag("--renew", "1s").start();
        let led = sandbox.starts(1).latest();
        let next = elect(&sandbox, &redis, "60s").start();
        next.wait_until_waiting();
        let watch = ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).query("watch", &["cron"]).start();
        let watch_all = ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).query("watch", &[]).start();
        until("both watch", || [&watch, &watch_all].iter().all(|watch| watch.output().contains("leads")));
        let renewals = || redis.cli(&["hget", &key(&sandbox), "nonce"]).trim().parse::<u64>().expect("a nonce");
        let (before, begun) = (redis.calls("evalsha"), now());
        let publisher = Publisher::on(&redis, &key(&sandbox), word);
        until("much is published", || publisher.published() > 500_000.min(20_000_000 / word.len() as u64));
        let renewed = renewals();
        until("the leader renews in the middle of it", || renewals() > renewed + 1);
        let published = publisher.published();
        drop(publisher);
        let (asked, took) = (redis.calls("evalsha") - before, since(begun));
        println!("figures: redis: {published} announcements in {took:?}: {asked} questions by four");
        // One hint in ten milliseconds for each of three, two commands for a look, and what is asked anyway.
        let most = 3 * 2 * (u64::try_from(took.as_millis()).expect("a short time") / 10 + 10);
        assert!(asked < most, "{asked} questions, {most} would be many");
        for (what, one) in [("leader", &leader), ("waiter", &next), ("watch", &watch), ("watch of all", &watch_all)] {
            is_small(&format!("{what} under a flood of {}-byte words", word.len()), one);
        }
        assert_eq!(sandbox.history().starts.len(), 1, "the leader stays");
        leader.terminate();
        assert!(sandbox.starts(2).latest().term > led.term);
        next.terminate();
        sandbox.history().is_safe();
    }
}

#[test]
fn an_announcement_of_any_size_ends_no_connection() {
    let redis = patient_server();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    let leader = elect(&sandbox, &redis, "60s").flag("--renew", "1s").start();
    sandbox.starts(1);
    let next = elect(&sandbox, &redis, "60s").start();
    next.wait_until_waiting();
    let connections = || redis.info("stats", "total_connections_received").parse::<u64>().expect("a number");
    let renewals = || redis.cli(&["hget", &key(&sandbox), "nonce"]).trim().parse::<u64>().expect("a nonce");
    let (channel, size) = (key(&sandbox), 50 << 20);
    let mut publisher = TcpStream::connect(redis.address()).expect("a server that is up");
    let before = connections();
    for _ in 0..3 {
        let header = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${size}\r\n", channel.len());
        publisher.write_all(header.as_bytes()).expect("it takes all");
        publisher.write_all(&vec![b'x'; size]).expect("it takes all");
        publisher.write_all(b"\r\n").expect("it takes all");
        let mut answer = [0; 4];
        publisher.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b":2\r\n", "both hear it");
    }
    let (renewed, mut asked) = (renewals(), 0);
    until("the leader goes on", || {
        asked += 1;
        renewals() > renewed + 2
    });
    // Each redis-cli is a connection too, and the first one asked for their number.
    assert!(connections() - before < asked + 4, "nobody connects anew");
    is_small("leader after announcements of 50 MB", &leader);
    is_small("waiter after announcements of 50 MB", &next);
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

/// Answers that have no end.
const ENDLESS: [(&str, &str, &str); 9] = [
    ("a string", "$2000000000\r\n", "xxxxxxxx"),
    ("a line", "+", "xxxxxxxx"),
    ("an error", "-ERR ", "xxxxxxxx"),
    ("an array of strings", "*1000000000\r\n", "$8\r\nxxxxxxxx\r\n"),
    ("an array of nothing", "*1000000000\r\n", "_\r\n"),
    ("a map", "%1000000000\r\n", "+a\r\n*0\r\n"),
    ("arrays in arrays", "", "*1\r\n"),
    ("answers to nothing", "+OK\r\n", "+OK\r\n"),
    ("a push message", ">1000000000\r\n$9\r\nsubscribe\r\n", "$8\r\nxxxxxxxx\r\n"),
];

/// The commands that are answered so, and whether an observer sends them too.
const MOMENTS: [(&str, bool); 4] = [("hello", true), ("info", true), ("evalsha", true), ("subscribe", false)];

#[test]
fn an_answer_without_an_end_ends_the_connection_and_costs_no_memory() {
    thread::scope(|scope| {
        for (moment, is_observed) in MOMENTS {
            scope.spawn(move || ENDLESS.iter().for_each(|endless| is_cut(moment, is_observed, endless)));
        }
    });
}

#[track_caller]
fn is_cut(moment: &'static str, is_observed: bool, &(what, first, then): &(&str, &'static str, &'static str)) {
    let server =
        FakeRedis::start(move |words| if words[0] == moment { FakeReply::flood(first, then) } else { as_redis(words) });
    let sandbox = Sandbox::new();
    let url = format!("redis://{}", server.address());
    let campaigner = candidate_for(&sandbox, url.clone(), "10s").witness(&Witness::new()).start();
    let watch = is_observed.then(|| ElectCmd::new(&sandbox).store(url).query("watch", &["cron"]).start());
    let often = if is_observed { 6 } else { 3 };
    until(&format!("it has tried several times: {what} for {moment}"), || {
        server.seen().iter().filter(|words| words[0] == moment).count() >= often
    });
    is_small(&format!("campaigner, {what} for {moment}"), &campaigner);
    if let Some(watch) = watch {
        is_small(&format!("watch, {what} for {moment}"), &watch);
    }
    // The first of those is an answer to the question, if a wrong one.
    if what != "answers to nothing" {
        campaigner.wait_for_log("larger answer");
    }
    campaigner.terminate();
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_record_of_many_megabytes_costs_no_memory() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    for field in 0..50 {
        redis.cli(&[
            "eval",
            "redis.call('HSET', KEYS[1], ARGV[1], string.rep('x', 1048576))",
            "1",
            &key(&sandbox),
            &format!("{field}"),
        ]);
    }
    let waiter = candidate(&sandbox, redis.url_for(&sandbox)).witness(&Witness::new()).start();
    until("it has looked several times", || redis.calls("evalsha") + redis.calls("eval") > 55);
    is_small("campaigner beside a record of 50 MB", &waiter);
    waiter.terminate();
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn what_a_server_says_steers_no_terminal() {
    const WORDS: &str = "-ERR \u{1b}[2J\u{9b}1m\u{202e}gone\r\n";
    for moment in ["hello", "info", "evalsha"] {
        let server =
            FakeRedis::start(move |words| if words[0] == moment { FakeReply::text(WORDS) } else { as_redis(words) });
        let sandbox = Sandbox::new();
        let url = format!("redis://{}", server.address());
        let status = ElectCmd::new(&sandbox).store(url.clone()).status(&["cron"]).run();
        let once = asks_once(&sandbox, url).command(["true"]).run();
        for ended in [status, once] {
            let said = format!("{}{}", ended.stdout, ended.stderr);
            assert!(said.contains("gone"), "{moment}: {said:?}");
            assert!(!said.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{moment}: {said:?}");
        }
    }
}
