//! A load balancer whose health check is `/leader`: the traffic goes where the leader is.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::haproxy::Haproxy;
use crate::harness::wait::now;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, http_client, millis, ports::free_port, until};

/// A leader command that answers with its term, and notes what it has answered.
const SERVER: &str = r#"
import os, socket, sys
body = "term " + os.environ["ELECT_TERM"] + "\n"
answer = "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
while True:
    client, _ = server.accept()
    with client, open(sys.argv[2], "a") as notes:
        request = client.recv(4096).decode()
        if request:
            notes.write(request.split()[1] + "\n")
            client.sendall(answer.encode())
"#;

/// Answers that show where the traffic goes.
const ENOUGH: usize = 30;

/// Where one candidate's command serves, and where the candidate itself is asked.
type Ports = (u16, u16);

fn candidate(sandbox: &Sandbox, (serves, asked): Ports) -> CandidateProcess {
    let notes = sandbox.path().join("requests");
    let notes = notes.to_str().expect("plain text");
    ElectCmd::new(sandbox)
        .flag("--listen", &format!("127.0.0.1:{asked}"))
        .command(["python3", "-S", "-c", SERVER, &serves.to_string(), notes])
        .start()
}

/// Requests without end, and the term that each was answered by.
struct LoadGenerator {
    port: u16,
    over: AtomicBool,
    sent: AtomicUsize,
    answers: Mutex<Vec<(Duration, u64)>>,
}

impl LoadGenerator {
    fn flow(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let answer = http_client::get(self.port, &format!("/{number}")).unwrap_or_default();
            let term = answer.split("term ").nth(1).and_then(|term| term.trim().parse().ok());
            if let Some(term) = term {
                self.answers.lock().expect("no panic before").push((now(), term));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn latest(&self) -> Option<(Duration, u64)> {
        self.answers.lock().expect("no panic before").last().copied()
    }

    /// Waits until this leader has answered for a while.
    #[track_caller]
    fn flows_to(&self, leader: u64) {
        let answered =
            || self.answers.lock().expect("no panic before").iter().filter(|(_, term)| *term == leader).count();
        until("there is traffic", || answered() >= ENOUGH);
    }

    /// Waits for the answer of another leader than `before`. Returns its term and how long nobody answered.
    #[track_caller]
    fn moves_on(&self, before: u64) -> (u64, Duration) {
        until("another leader answers", || self.latest().is_some_and(|(_, term)| term != before));
        let answers = self.answers.lock().expect("no panic before");
        let last = answers.iter().rposition(|(_, term)| *term == before);
        let (end, next) =
            (last.map_or(Duration::ZERO, |last| answers[last].0), answers[last.map_or(0, |last| last + 1)]);
        (next.1, next.0.saturating_sub(end))
    }
}

#[test]
fn traffic_follows_the_leader_and_no_request_is_answered_twice() {
    let sandbox = Sandbox::new();
    let ports: [Ports; 2] = [(free_port(), free_port()), (free_port(), free_port())];
    let mut leader = candidate(&sandbox, ports[0]);
    leader.wait_for_log("leader command started");
    let mut next = candidate(&sandbox, ports[1]);
    next.wait_until_waiting();
    let haproxy = Haproxy::start(&sandbox, free_port(), &ports);
    let load = LoadGenerator {
        port: haproxy.port,
        over: AtomicBool::new(false),
        sent: AtomicUsize::new(0),
        answers: Mutex::new(Vec::new()),
    };
    let end_of_scope = |load: &LoadGenerator| load.over.store(true, Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| load.flow());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the first leader answers", || load.latest().is_some());
            let mut term = load.latest().expect("it has").1;
            load.flows_to(term);
            for (number, signal) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM].into_iter().enumerate() {
                leader.signal(signal);
                leader.wait();
                let (new, gap) = load.moves_on(term);
                assert!(new > term);
                println!("haproxy, health check every 50 ms, {signal}: nobody answers for {}", millis(gap));
                term = new;
                load.flows_to(term);
                let again = candidate(&sandbox, ports[number % 2]);
                again.wait_until_waiting();
                leader = std::mem::replace(&mut next, again);
            }
        }));
        end_of_scope(&load);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let terms: Vec<u64> = load.answers.lock().expect("no panic before").iter().map(|(_, term)| *term).collect();
    assert!(terms.is_sorted(), "an earlier leader answered after a later one");
    let mut requests: Vec<String> =
        fs::read_to_string(sandbox.path().join("requests")).expect("noted").lines().map(str::to_owned).collect();
    let answered = requests.len();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), answered, "each by one");
    println!("haproxy: {} requests, {answered} answered", load.sent.load(Ordering::Relaxed));
    leader.terminate();
    next.terminate();
}
