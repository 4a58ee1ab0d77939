//! The same work done by `etcdctl lock`: what its users get, side by side with elect. For each of them the harness must find
//! what is known to be wrong with it (and so shows that it would have found it in elect).

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, TTL, real};
use crate::etcd::server::EtcdServer;
use crate::harness::journal::median;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, is_long, millis, processes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Elect,
    EtcdctlLock,
}

const BOTH: [Peer; 2] = [Peer::Elect, Peer::EtcdctlLock];

impl Peer {
    fn start(self, sandbox: &Sandbox, address: &str) -> CandidateProcess {
        let elect = ElectCmd::new(sandbox).store(sandbox.below(&format!("etcd://{address}"))).flag("--ttl", TTL);
        let elect = match self {
            Peer::Elect => elect,
            Peer::EtcdctlLock => {
                let name = sandbox.path().display().to_string();
                let words = ["etcdctl", "--endpoints", address, "lock", "--ttl=3", &name, "--"];
                elect.program(words.map(str::to_owned)).variable("ETCDCTL_API", "3")
            }
        };
        elect.witness(&Witness::new()).start()
    }
}

/// The fate of a leader's command.
#[derive(Debug)]
struct PeerVerdict {
    /// The next one started after this long.
    next_after: Duration,
    /// How many overlaps the witnesses saw.
    overlaps: usize,
    /// Whether the old command still ran long after.
    survives: bool,
}

fn strike(peer: Peer, etcd: &EtcdServer, fault: impl Fn(&CandidateProcess, &Proxy)) -> PeerVerdict {
    let (sandbox, proxy) = (Sandbox::new(), Proxy::to(&etcd.address()));
    let leader = peer.start(&sandbox, &proxy.address());
    let led = sandbox.starts(1).latest();
    let next = peer.start(&sandbox, &etcd.address());
    // `etcdctl lock` says nothing while it waits: its key does.
    let election = match peer {
        Peer::Elect => format!("{}/cron/", sandbox.path().file_name().expect("a name").to_string_lossy()),
        Peer::EtcdctlLock => format!("{}/", sandbox.path().display()),
    };
    let all = || etcd.etcdctl(&["get", "--prefix", "--keys-only", "/"]);
    until("it stands in the queue", || all().lines().filter(|key| key.contains(&election)).count() == 2);
    let struck = now();
    fault(&leader, &proxy);
    let started = sandbox.starts(2).latest();
    let next_after = started.at.saturating_sub(struck);
    // A command that has lost its lease has had time enough to be gone.
    until("some time has passed", || since(struck) > LEASE * 2);
    let survives = processes::is_alive(led.pid);
    let overlaps = sandbox.history().overlaps.len();
    drop((leader, next));
    PeerVerdict { next_after, overlaps, survives }
}

type PeerFault = fn(&CandidateProcess, &Proxy);

#[test]
fn what_becomes_of_the_command_when_its_wrapper_is_killed_stopped_or_cut_off() {
    let etcd = EtcdServer::start();
    let faults: [(&str, PeerFault); 3] = [
        ("kill -9", |leader, _| leader.signal(Signal::SIGKILL)),
        ("SIGSTOP", |leader, _| leader.signal(Signal::SIGSTOP)),
        ("cut off", |_, proxy| proxy.mode(ProxyMode::BlackHole)),
    ];
    for (name, fault) in faults {
        for peer in BOTH {
            let verdict = strike(peer, &etcd, fault);
            println!(
                "figures: peers: {peer:?}, {name}: the next one starts after {}, overlaps {}, the old command {}",
                millis(verdict.next_after),
                verdict.overlaps,
                if verdict.survives { "runs on" } else { "is gone" }
            );
            match peer {
                Peer::Elect => assert_eq!((verdict.overlaps, verdict.survives), (0, false), "{name}: {verdict:?}"),
                // The control: this harness finds two commands side by side where there are two.
                Peer::EtcdctlLock => assert!(verdict.overlaps > 0 && verdict.survives, "{name}: {verdict:?}"),
            }
        }
    }
}

#[test]
fn what_it_costs_to_start_and_to_wait() {
    let etcd = EtcdServer::start();
    let runs = if is_long() { 50 } else { 5 };
    for peer in BOTH {
        let (mut starts, mut memory) = (Vec::new(), 0);
        for _ in 0..runs {
            let sandbox = Sandbox::new();
            let began = now();
            let leader = peer.start(&sandbox, &etcd.address());
            starts.push(sandbox.starts(1).latest().at.saturating_sub(began));
            let keeper = processes::children(leader.pid())
                .into_iter()
                .find(|&pid| processes::name(pid).as_deref() == Some("keeper"));
            memory = ResourceUsage::of(leader.pid()).resident
                + keeper.map_or(0, |keeper| ResourceUsage::of(keeper).resident);
            leader.ends_killed();
        }
        let start = median(&starts).expect("some runs");
        println!(
            "figures: peers: {peer:?}: start to exec {} (median of {runs}), {:.1} MB resident while leading",
            millis(start),
            real(memory) / 1e6
        );
    }
}

#[test]
fn etcdctl_lock_swallows_sigterm_and_elect_does_not() {
    let etcd = EtcdServer::start();
    for peer in BOTH {
        let sandbox = Sandbox::new();
        let mut leader = peer.start(&sandbox, &etcd.address());
        let led = sandbox.starts(1).latest();
        leader.signal(Signal::SIGTERM);
        match peer {
            Peer::Elect => leader.ends_with(0),
            Peer::EtcdctlLock => throughout(Duration::from_secs(1), "it goes on", || processes::is_alive(led.pid)),
        }
    }
}
