//! `RLIMIT_NOFILE`.

use std::time::Duration;

use super::is_orderly;
use crate::ObservedServer;
use crate::harness::host_tools::attempt;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::wait::throughout;
use crate::harness::{ElectCmd, Sandbox, Witness, eventually, processes, until};
use crate::leases::{candidate_for, led_before_for, patient};

/// From here on elect works with every store.
const ENOUGH: usize = 40;
/// Below this no store can be asked at all: each is tried.
const TOO_FEW: usize = 12;

fn with_at_most(elect: ElectCmd, descriptors: usize) -> ElectCmd {
    elect.wrapped_by(["prlimit", &format!("--nofile={descriptors}"), "--"])
}

/// The command has the lock, at the lowest number from 100 on that the limit allows, or at the highest below.
#[test]
fn on_a_file_the_command_has_the_lock_below_every_limit() {
    for descriptors in TOO_FEW..=101 {
        let sandbox = Sandbox::new();
        let script = "for fd in /proc/$$/fd/*; do echo ${fd##*/} $(readlink $fd); done";
        let elect = ElectCmd::new(&sandbox).switch("-q").shell(script);
        let ended = with_at_most(elect, descriptors).run();
        let what = format!("nofile {descriptors}");
        if is_orderly(&ended, &what, &[125]) {
            let lock = format!(" {}", sandbox.lock_file().display());
            let number = ended.stdout.lines().find_map(|line| line.strip_suffix(&lock)).map(str::parse);
            assert_eq!(number, Some(Ok(descriptors.min(101) - 1)), "{what}: {ended:?}");
        } else {
            assert!(descriptors < ENOUGH, "{what}: {ended:?}");
            assert!(ended.stderr.contains("ulimit -n"), "{what}: {ended:?}");
        }
        println!("file, {what}: {:?} {}", ended.status.code(), ended.stderr.trim_end());
        sandbox.is_left_empty();
    }
}

/// A limit at which elect starts is enough for a reconnect as well.
pub fn a_limit_at_which_elect_starts_is_enough<S: StoreServer>() {
    let server = S::start();
    let proxy = Proxy::to(&server.address());
    let mut lowest = None;
    for descriptors in TOO_FEW..=101 {
        let sandbox = Sandbox::new();
        let elect = candidate_for(&sandbox, server.url_for(&sandbox), S::TTL).switch("-q").command(["true"]);
        let ended = with_at_most(elect, descriptors).run();
        let what = format!("{}, nofile {descriptors}", S::NAME);
        if is_orderly(&ended, &what, &[125]) {
            lowest = Some(descriptors);
            break;
        }
        assert!(descriptors < ENOUGH, "{what}: {ended:?}");
        sandbox.is_left_empty();
    }
    let lowest = lowest.expect("one is enough");
    println!("{}: starts with nofile {lowest}", S::NAME);
    let sandbox = Sandbox::new();
    led_before_for(&sandbox, server.url_for(&sandbox), S::TTL);
    let elect = patient(&sandbox, sandbox.below(&S::url_of(&proxy.address()))).witness(&Witness::new());
    let mut leader = with_at_most(elect, lowest).start();
    sandbox.starts(1);
    for _ in 0..3 {
        let renewals = server.renewals();
        proxy.mode(ProxyMode::Closed);
        proxy.mode(ProxyMode::Open);
        until("the leader renews", || {
            assert!(!leader.has_ended(), "{}", leader.log());
            server.renewals() >= renewals + 3
        });
    }
    assert_eq!(sandbox.history().ends.len(), 0, "{}", leader.log());
    leader.terminate();
    sandbox.is_left_empty();
}

/// The number once it has been the same for half a second.
fn settled(number: impl Fn() -> u64) -> u64 {
    eventually("nothing is under way", || {
        let before = number();
        std::thread::sleep(Duration::from_millis(500));
        (number() == before).then_some(before)
    })
}

/// The connection breaks while the leader may open nothing: the attempts fail, and the first one after that succeeds.
pub fn a_leader_reconnects_after_its_descriptors_ran_out<S: StoreServer>() {
    let server = S::start();
    let proxy = Proxy::to(&server.address());
    let sandbox = Sandbox::new();
    let url = sandbox.below(&S::url_of(&proxy.address()));
    led_before_for(&sandbox, server.url_for(&sandbox), S::TTL);
    let leader = patient(&sandbox, url).witness(&Witness::new()).start();
    sandbox.starts(1);
    let limit = |descriptors: &str| {
        let (pid, limit) = (leader.pid().to_string(), format!("--nofile={descriptors}:"));
        attempt(["prlimit", "--pid", &pid, &limit]).expect("root may");
    };
    for _ in 0..2 {
        limit("3");
        let troubles = leader.log().matches("store: ").count();
        proxy.mode(ProxyMode::Closed);
        proxy.mode(ProxyMode::Open);
        // A connection may be under way when the old one breaks.
        until("the leader has found out", || leader.log().matches("store: ").count() > troubles);
        let connections = settled(|| proxy.carried().connections);
        // Without one it renews nothing.
        throughout(Duration::from_secs(3), "it lives, and reaches no server", || {
            processes::is_alive(leader.pid()) && proxy.carried().connections == connections
        });
        let renewals = server.renewals();
        limit("1024");
        until("the leader renews", || {
            assert!(processes::is_alive(leader.pid()), "{}", leader.log());
            server.renewals() >= renewals + 3
        });
    }
    let log = leader.log();
    assert!(!log.contains("panicked") && log.matches("answers again").count() >= 2, "{log}");
    let history = sandbox.history();
    assert_eq!((history.starts.len(), history.ends.len()), (1, 0), "{log}");
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn who_asks_gets_one_sentence_or_an_answer() {
    let server = ObservedServer::start();
    for descriptors in 4..=40 {
        let sandbox = Sandbox::new();
        let query = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).status(&["cron"]);
        let ended = with_at_most(query, descriptors).run();
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        let status = ended.status.code();
        assert!(matches!(status, Some(3 | 125 | 127)), "nofile {descriptors}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), usize::from(status != Some(3)), "nofile {descriptors}: {ended:?}");
    }
}
