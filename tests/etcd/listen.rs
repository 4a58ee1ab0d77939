//! The pages of a candidate whose leadership is a lease: what they show, and what those who abuse them cannot do to it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{candidate, candidate_for};
use crate::etcd::server::EtcdServer;
use crate::harness::{Sandbox, Witness, until};
use crate::listen::{counter, document, each_state_is_shown, idle, port_of, status};

#[test]
fn each_state_is_shown_by_the_pages() {
    let etcd = EtcdServer::start();
    each_state_is_shown(|sandbox| candidate(sandbox, sandbox.below(&etcd.url())));
}

#[test]
fn a_lease_is_shown_with_what_is_left_of_it() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, sandbox.below(&etcd.url())).flag("--listen", "127.0.0.1:0");
    let leader = elect.witness(&Witness::new()).start();
    let port = port_of(&leader);
    until("it leads", || status(port, "/leader") == Some(200));
    let shown = document(port).expect("a document");
    assert_eq!(shown["leader"]["ttl_ms"], 3000, "{shown}");
    assert!(shown["leader"]["lease_left_ms"].as_u64().is_some_and(|left| left <= 3000), "{shown}");
    let left = counter(port, "elect_lease_left_seconds").expect("it has a lease");
    assert!((0.0..=3.0).contains(&left), "{left}");
    until("a renewal has replaced a lease", || {
        counter(port, "elect_lease_left_at_renewal_seconds_count").is_some_and(|count| count >= 1.0)
    });
    leader.terminate();
}

#[test]
fn a_campaigner_that_slept_through_its_lease_does_not_say_that_it_leads() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, sandbox.below(&etcd.url())).flag("--listen", "127.0.0.1:0");
    let leader = elect.witness(&Witness::new()).start();
    let port = port_of(&leader);
    until("it leads", || status(port, "/leader") == Some(200));
    let gone = sandbox.watch_the_end_of(sandbox.starts(1).starts[0].pid);
    leader.signal(Signal::SIGSTOP);
    gone.join().expect("the keeper has killed the command");
    // Asked while it sleeps, so that the question is there when it wakes up.
    let mut early = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the kernel answers for it");
    early.set_read_timeout(Some(Duration::from_secs(40))).expect("set");
    early.write_all(b"GET /leader HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    leader.signal(Signal::SIGCONT);
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    leader.terminate();
}

/// Everything at once that a server on a network has to put up with.
struct Attack {
    port: u16,
    over: AtomicBool,
}

impl Attack {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        Some(stream)
    }

    /// The same again and again, as fast as it goes.
    fn send(&self, bytes: &[u8]) {
        while self.goes_on() {
            if let Some(mut stream) = self.connect() {
                let _ = stream.write_all(bytes);
                let _ = stream.read(&mut [0; 4096]);
            }
        }
    }

    /// A request whose head never ends, a byte at a time.
    fn drip(&self) {
        while self.goes_on() {
            let Some(mut stream) = self.connect() else { continue };
            while self.goes_on() && stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn whoever_abuses_the_pages_does_nothing_to_the_lease() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    // The attack takes the processors as well: the lease outlasts that, and the renewals show what it costs.
    let elect = candidate_for(&sandbox, sandbox.below(&etcd.url()), "60s").flag("--renew", "600ms");
    let leader = elect.flag("--listen", "127.0.0.1:0").witness(&Witness::new()).start();
    let port = port_of(&leader);
    let figure = |name: &str| counter(port, name);
    let renewals = || figure("elect_lease_left_at_renewal_seconds_count");
    until("it renews", || renewals().is_some_and(|count| count >= 3.0));
    let left_so_far = || Some((figure("elect_lease_left_at_renewal_seconds_sum")?, renewals()?));
    let before = left_so_far().expect("a healthy server");

    let attack = Attack { port, over: AtomicBool::new(false) };
    let idle = idle(port, 1000);
    assert_eq!(idle.len(), 1000);
    let huge = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1_000_000]].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| attack.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        scope.spawn(|| attack.send(b"\0\xff\r\n\r\n"));
        scope.spawn(|| attack.send(&huge));
        scope.spawn(|| attack.send(b"POST /status HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nx"));
        for _ in 0..10 {
            scope.spawn(|| attack.drip());
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("ten renewals more", || renewals().is_some_and(|count| count >= before.1 + 10.0));
        }));
        attack.over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    drop(idle);
    let mut after = None;
    until("it answers", || {
        after = left_so_far();
        after.is_some()
    });
    let after = after.expect("there was one");
    println!(
        "--listen, lease of 60 s: left at a renewal {:.2} s, under abuse {:.2} s",
        before.0 / before.1,
        (after.0 - before.0) / (after.1 - before.1)
    );
    assert_eq!(status(port, "/leader"), Some(200));
    assert_eq!(sandbox.history().starts.len(), 1, "it has led all the time");
    leader.terminate();
    sandbox.history().is_safe();
}
