//! `--listen`: what load balancers, monitors and people are told, in every state, and what it takes to be told nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, host_tools, ports::free_port, processes, until};
use crate::harness::{eventually, http_client};

/// The checks whose pages are read, in the order of their answers.
const CHECKS: [&str; 4] = ["/livez", "/readyz", "/leader", "/follower"];

fn listening(sandbox: &Sandbox) -> ElectCmd {
    ElectCmd::new(sandbox).flag("--listen", "127.0.0.1:0")
}

/// The port it got, once it has one.
#[track_caller]
pub fn port_of(candidate: &CandidateProcess) -> u16 {
    eventually("it listens", || {
        let log = candidate.log();
        let address = log.split("listening address=").nth(1)?.split_whitespace().next()?;
        address.rsplit(':').next()?.parse().ok()
    })
}

/// The status of a page; `None` if there is no answer.
pub fn status(port: u16, path: &str) -> Option<u16> {
    let page = http_client::get(port, path).ok()?;
    page.split_whitespace().nth(1)?.parse().ok()
}

pub fn body(port: u16, path: &str) -> Option<String> {
    Some(http_client::get(port, path).ok()?.split_once("\r\n\r\n")?.1.to_owned())
}

pub fn document(port: u16) -> Option<Value> {
    serde_json::from_str(&body(port, "/status")?).ok()
}

/// Waits until the pages say so, all at one time or another.
#[track_caller]
fn come_to(port: u16, expected: [u16; 4]) {
    until(&format!("{CHECKS:?} are {expected:?}"), || CHECKS.map(|path| status(port, path)) == expected.map(Some));
}

/// A counter of the page, whatever its boundary.
pub fn counter(port: u16, name: &str) -> Option<f64> {
    let page = body(port, "/metrics")?;
    let (name, label) = name.split_once(' ').unwrap_or((name, ""));
    let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && line.contains(label);
    page.lines().find(of_it)?.rsplit(' ').next()?.parse().ok()
}

/// A leader, a follower, and the leader's end, as the pages of both show them.
#[track_caller]
pub fn each_state_is_shown(candidate: impl Fn(&Sandbox) -> ElectCmd) {
    let sandbox = Sandbox::new();
    let leader = candidate(&sandbox)
        .flag("--listen", "127.0.0.1:0")
        .flag("--name", "web-1")
        .flag("--advertise", "10.0.0.5:8080")
        .flag("--stop-timeout", "1h")
        .witness(&Witness::new().stubborn())
        .start();
    let port = port_of(&leader);
    come_to(port, [200, 200, 200, 503]);
    let first = sandbox.starts(1).starts[0];
    let shown = document(port).expect("a document");
    assert_eq!((&shown["self"]["state"], &shown["self"]["is_leader"]), (&"leading".into(), &true.into()), "{shown}");
    assert_eq!((&shown["self"]["running"], &shown["self"]["pid"]), (&true.into(), &first.pid.into()), "{shown}");
    assert_eq!((&shown["leader"]["term"], &shown["leader"]["name"]), (&first.term.into(), &"web-1".into()), "{shown}");
    assert_eq!(shown["leader"]["id"], shown["self"]["id"]);

    let follower =
        candidate(&sandbox).flag("--listen", "127.0.0.1:0").flag("--name", "web-2").witness(&Witness::new()).start();
    let other = port_of(&follower);
    until("it has seen the leader", || document(other).is_some_and(|shown| shown["self"]["state"] == "following"));
    come_to(other, [200, 200, 503, 200]);
    let shown = document(other).expect("a document");
    assert_eq!((&shown["boundary"], &shown["self"]["name"]), (&"cron".into(), &"web-2".into()), "{shown}");
    assert_eq!((&shown["self"]["is_leader"], &shown["self"]["running"]), (&false.into(), &false.into()), "{shown}");
    assert_eq!((&shown["leader"]["term"], &shown["self"]["pid"]), (&first.term.into(), &Value::Null), "{shown}");
    assert_eq!(shown["leader"]["address"], "10.0.0.5:8080", "{shown}");
    let shown = document(port).expect("a document");
    assert_eq!((&shown["self"]["host"], &shown["self"]["port"]), (&"10.0.0.5".into(), &8080.into()), "{shown}");
    // Where the store knows them, both see who waits.
    if shown["store"] == "etcd" {
        for port in [port, other] {
            let is_shown = |shown: &Value| shown["candidates"][0]["name"] == "web-2";
            let shown = eventually("a candidate", || document(port).filter(is_shown));
            assert!(shown["leader"]["etcd"]["key"].as_str().is_some_and(|key| key.contains("cron/")), "{shown}");
        }
    } else {
        assert_eq!(shown["candidates"], Value::Null, "{shown}");
    }

    leader.signal(Signal::SIGTERM);
    come_to(port, [200, 503, 503, 503]);
    let shown = document(port).expect("a document");
    assert_eq!((&shown["self"]["state"], &shown["self"]["is_leader"]), (&"stopping".into(), &false.into()), "{shown}");
    assert_eq!(shown["self"]["pid"], first.pid, "it takes its time: {shown}");
    assert_eq!(status(other, "/leader"), Some(503), "it is not gone yet");
    // The second one kills the command.
    leader.signal(Signal::SIGTERM);

    come_to(other, [200, 200, 200, 503]);
    assert_eq!(counter(other, "elect_leader_changes_total"), Some(2.0));
    let leader = sandbox.starts(2).starts[1];
    assert_eq!(document(other).expect("a document")["leader"]["term"], leader.term);
    follower.terminate();
    assert_eq!(status(other, "/livez"), None, "it is gone, and its pages with it");
    sandbox.history().is_safe();
}

#[test]
fn each_state_is_shown_by_the_pages() {
    each_state_is_shown(ElectCmd::new);
}

#[test]
fn a_boundary_that_is_held_without_a_command_has_a_leader_and_nothing_to_talk_to() {
    let sandbox = Sandbox::new();
    let candidate = listening(&sandbox).flag("--min-hold", "1h").command(["true"]).start();
    let port = port_of(&candidate);
    until("it holds", || document(port).is_some_and(|shown| shown["self"]["state"] == "holding"));
    come_to(port, [200, 200, 503, 503]);
    let shown = document(port).expect("a document");
    assert_eq!((&shown["self"]["is_leader"], &shown["self"]["running"]), (&true.into(), &false.into()), "{shown}");
    candidate.terminate();
}

#[test]
fn counters_are_as_prometheus_wants_them_and_count() {
    let sandbox = Sandbox::new();
    let flags = [("--restart", "always"), ("--restart-delay", "1ms"), ("--restart-limit", "1000/1s")];
    let elect = flags.iter().fold(listening(&sandbox), |elect, (flag, value)| elect.flag(flag, value));
    let elect = elect.flag("--name", "web \"1\"").flag("--on-elected", "true").flag("--on-change", "exit 3");
    let candidate = elect.boundary("a \"quoted\" \\ boundary").command(["true"]).start();
    let port = port_of(&candidate);
    let reaches = |name: &str, least: f64| until(name, || counter(port, name).is_some_and(|count| count >= least));
    reaches("elect_command_restarts_total", 2.0);
    reaches("elect_stop_duration_seconds_count", 2.0);
    reaches("elect_renewals_total result=\"credited\"", 2.0);
    reaches("elect_hook_runs_total hook=\"on_elected\",result=\"ok\"", 1.0);
    reaches("elect_hook_runs_total hook=\"on_change\",result=\"failed\"", 1.0);
    assert_eq!(counter(port, "elect_hook_runs_total hook=\"on_change\",result=\"ok\""), Some(0.0));
    assert_eq!(counter(port, "elect_leader_info name=\"web \\\"1\\\"\""), Some(1.0));
    assert_eq!(counter(port, "elect_store_errors_total kind=\"unavailable\""), Some(0.0));
    assert_eq!(counter(port, "elect_lease_left_seconds"), None, "a lock is no lease");
    assert_eq!(counter(port, "elect_renewals_total result=\"failed\""), Some(0.0));
    assert_eq!(counter(port, "elect_leader_changes_total"), Some(1.0));
    assert_eq!(counter(port, "elect_build_info"), Some(1.0));
    let page = sandbox.path().join("metrics");
    std::fs::write(&page, body(port, "/metrics").expect("the page")).expect("written");
    let script = format!("promtool check metrics <{}", page.display());
    assert_eq!(host_tools::attempt(["sh", "-c", &script]), Ok(String::new()), "it finds nothing");
    candidate.terminate();
}

/// Sends it as it is, and returns everything that comes back until the connection is closed.
fn send(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(40))).expect("set");
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_pages_are_for_reading_and_nothing_else() {
    let sandbox = Sandbox::new();
    let candidate = listening(&sandbox).witness(&Witness::new()).start();
    let port = port_of(&candidate);
    come_to(port, [200, 200, 200, 503]);
    let request = |line: &str, more: &str| send(port, format!("{line} HTTP/1.1\r\nHost: x\r\n{more}\r\n").as_bytes());
    let allow = "allow: GET, HEAD, OPTIONS\r\n";
    let options = request("OPTIONS /leader", "");
    assert!(options.starts_with("HTTP/1.1 204 ") && options.contains(allow), "{options}");
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"] {
        let refused = request(&format!("{method} /leader"), "");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains(allow), "{method}: {refused}");
    }
    let head = request("HEAD /leader", "");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    for (line, more, status) in [
        ("GET /nothing", "", "404"),
        ("GET /leader/", "", "404"),
        ("GET /leader?why=not", "", "200"),
        ("GET /leader", "Content-Length: 1000000000\r\n", "413"),
        ("GET /leader", "Transfer-Encoding: chunked\r\n", "413"),
        ("POST /leader", "Content-Length: 1000000000\r\n", "405"),
        ("GET", "", "400"),
        ("GET /leader", "no colon\r\n", "400"),
        ("GET /leader", &format!("X: {}\r\n", "x".repeat(100_000)), "431"),
        ("GET /leader", &"X: x\r\n".repeat(1000), "431"),
    ] {
        let answer = request(line, more);
        let more = more.get(..30).unwrap_or(more);
        // If input is left unread, the kernel may send a reset that overtakes the page.
        let reset = answer.is_empty() && matches!(status, "413" | "431");
        assert!(reset || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}, {more}: {answer}");
    }
    assert_eq!(send(port, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 not TLS").get(..12), Some("HTTP/1.1 400"));
    come_to(port, [200, 200, 200, 503]);
    candidate.terminate();
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let sandbox = Sandbox::new();
    let candidate = listening(&sandbox).witness(&Witness::new()).start();
    let port = port_of(&candidate);
    let start = now();
    assert_eq!(send(port, b"GET /leader HTTP/1.1\r\nHost:"), "");
    assert!(since(start) < Duration::from_secs(20), "after a few seconds, not {:?}", since(start));
    candidate.terminate();
}

#[test]
fn a_thousand_idle_connections_keep_no_health_check_out() {
    let sandbox = Sandbox::new();
    let candidate = listening(&sandbox).witness(&Witness::new()).start();
    let port = port_of(&candidate);
    come_to(port, [200, 200, 200, 503]);
    let idle = idle(port, 1000);
    assert_eq!(idle.len(), 1000);
    assert_eq!(status(port, "/livez"), Some(200), "before the first of them has had its time");
    candidate.terminate();
}

/// Connections that nobody says anything on.
pub fn idle(port: u16, count: usize) -> Vec<TcpStream> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096).min(hard), hard).expect("as many descriptors as are needed here");
    (0..count).filter_map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()).collect()
}

#[test]
fn a_stalled_campaigner_answers_nobody_until_it_goes_on() {
    let sandbox = Sandbox::new();
    let candidate = listening(&sandbox).witness(&Witness::new()).start();
    let port = port_of(&candidate);
    come_to(port, [200, 200, 200, 503]);
    candidate.signal(Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(candidate.pid()) == Some('T'));
    assert!(http_client::get_within(port, "/livez", Duration::from_secs(2)).is_err());
    candidate.signal(Signal::SIGCONT);
    come_to(port, [200, 200, 200, 503]);
    candidate.terminate();
}

#[test]
fn an_address_in_use_is_said_before_anything_else_happens() {
    let sandbox = Sandbox::new();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = other.local_addr().expect("bound").to_string();
    let ended = ElectCmd::new(&sandbox).flag("--listen", &address).command(["echo", "started"]).run();
    ended.fails_with(125, &["--listen", &address, "in use"]);
    assert_eq!(ended.stdout, "");
    assert!(!sandbox.locks().exists(), "it has not campaigned");
    for nonsense in ["8080", "127.0.0.1", "::1:80"] {
        ElectCmd::new(&sandbox).flag("--listen", nonsense).command(["true"]).run().fails_with(2, &["--listen"]);
    }
}

#[test]
fn a_port_alone_is_every_address_of_both_families() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let candidate = ElectCmd::new(&sandbox).flag("--listen", &format!(":{port}")).witness(&Witness::new()).start();
    come_to(port, [200, 200, 200, 503]);
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(TcpStream::connect(("::1", port)).is_ok());
    }
    candidate.terminate();
}

#[test]
fn the_address_is_free_as_soon_as_the_campaigner_is_gone() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let elect = || ElectCmd::new(&sandbox).flag("--listen", &address).flag("--stop-timeout", "1h");
    let mut killed = elect().witness(&Witness::new().stubborn()).start();
    come_to(port, [200, 200, 200, 503]);
    sandbox.starts(1);
    let keeper = killed.keeper();
    killed.signal(Signal::SIGKILL);
    killed.wait();
    // Its keeper still stops the command.
    let next = elect().witness(&Witness::new()).start();
    come_to(port, [200, 200, 503, 200]);
    assert!(processes::is_alive(keeper), "or this shows nothing");
    processes::signal(sandbox.history().latest().pid, Signal::SIGKILL);
    come_to(port, [200, 200, 200, 503]);
    next.terminate();
    sandbox.history().is_safe();
}
