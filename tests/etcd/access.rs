//! Getting in: users, certificates, servers that are not there; and what is said when it does not work.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{asks_once, candidate, candidate_for, patient, real};
use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::certificates::Certificates;
use crate::harness::ports::free_port;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::PASSWORD;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, until};

fn as_user(elect: ElectCmd, name: &str, password: &str) -> ElectCmd {
    elect.flag("--username", name).variable("ELECT_PASSWORD", password)
}

/// Refused at start: one line among the log's says why, the status is 77, and the server was asked hardly more than once.
#[track_caller]
fn is_refused(ended: &Ended, said: &[&str]) {
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(said);
    let errors = ended.stderr.lines().filter(|line| line.contains("error")).count();
    assert_eq!(errors, 1, "one line: {ended:?}");
    assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
}

/// Its keeper gives back what it held: the claim has all that this takes.
#[track_caller]
fn a_killed_campaigner_is_followed_at_once(sandbox: &Sandbox, mut leader: CandidateProcess, next: CandidateProcess) {
    let killed = now();
    leader.signal(Signal::SIGKILL);
    leader.wait();
    sandbox.starts(2);
    assert!(since(killed) < Duration::from_secs(30), "by its keeper, not by the lease: {:?}", since(killed));
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_user_with_a_password_leads_and_hands_over() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).expect("a file");
    let store = format!("etcd://{}", etcd.address());
    let leader = as_user(patient(&sandbox, store.clone()), "elect", PASSWORD).witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = patient(&sandbox, store.clone())
        .flag("--username", "elect")
        .flag("--password-file", &file.display().to_string())
        .witness(&Witness::new())
        .start();
    next.wait_until_waiting();
    let seen = as_user(ElectCmd::new(&sandbox).store(store).status(&["cron"]), "elect", PASSWORD).run();
    assert!(seen.stdout.contains(" leads"), "{seen:?}");
    a_killed_campaigner_is_followed_at_once(&sandbox, leader, next);
}

#[test]
fn a_token_that_expires_or_is_forgotten_is_replaced() {
    let etcd = EtcdServer::with(&EtcdOptions::new().token_ttl(1));
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    // A renewal every three seconds: each finds its token expired.
    let store = format!("etcd://{}", etcd.address());
    let elect = |sandbox: &Sandbox| candidate_for(sandbox, store.clone(), "60s").flag("--renew", "3s");
    let leader = as_user(elect(&sandbox), "elect", PASSWORD).witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = as_user(elect(&sandbox), "elect", PASSWORD).witness(&Witness::new()).start();
    next.wait_until_waiting();
    let logins = || etcd.requests().get("Authenticate").copied().unwrap_or_default();
    let before = logins();
    throughout(Duration::from_secs(7), "it goes on leading", || sandbox.history().starts.len() == 1);
    let after = logins();
    println!("figures: etcd: tokens of 1 s, a renewal each 3 s: {} logins in 7 s by two candidates", after - before);
    assert!(after > before, "a token has expired");
    // A server that is started again knows no token.
    etcd.restart();
    throughout(Duration::from_secs(4), "it goes on leading", || sandbox.history().starts.len() == 1);
    assert!(!leader.log().contains("lease runs out"), "{}", leader.log());
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn who_may_not_is_told_so_and_ends() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let store = format!("etcd://{}", etcd.address());
    // With so long a ttl one attempt suffices.
    let elect = || candidate_for(&sandbox, store.clone(), "100s").witness(&Witness::new());
    let logins = || etcd.requests().get("Authenticate").copied().unwrap_or_default();
    let before = logins();
    is_refused(&as_user(elect(), "elect", "wrong").run(), &["authentication failed"]);
    assert!(logins() - before <= 2, "no storm of logins");
    is_refused(&as_user(elect(), "nobody", PASSWORD).run(), &["authentication failed"]);
    is_refused(&as_user(elect(), "stranger", PASSWORD).run(), &["permission denied"]);
    is_refused(&elect().run(), &["--username", "--password-file"]);
    let outside = candidate(&sandbox, format!("{store}/elsewhere")).witness(&Witness::new());
    is_refused(&as_user(outside, "elect", PASSWORD).run(), &["permission denied"]);
    let status = |elect: ElectCmd| elect.run();
    let asked = status(as_user(ElectCmd::new(&sandbox).store(store.clone()).status(&["cron"]), "elect", "wrong"));
    asked.fails_with(77, &["authentication failed"]);
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_user_who_may_not_keep_terms_is_told_the_command_that_grants_it() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let store = format!("etcd://{}", etcd.address());
    let elect =
        |store: &str| as_user(candidate(&sandbox, store.to_owned()), "narrow", PASSWORD).witness(&Witness::new());
    let command = |right: &str| format!("role grant-permission ROLE --prefix {right} elect.term//elect/");
    let ended = elect(&store).run();
    is_refused(&ended, &["elect.term//elect/cron/", &command("readwrite")]);
    is_refused(&elect(&format!("{store}?term=revision")).run(), &[&command("read")]);
    assert!(etcd.etcdctl(&["get", "--prefix", ""]).is_empty(), "nothing is left behind");
    // To look on needs no right to the terms.
    let status = as_user(ElectCmd::new(&sandbox).store(store.clone()).status(&["cron"]), "narrow", PASSWORD).run();
    assert!(status.stdout.contains("no leader"), "{status:?}");
    // As it is printed.
    let advice = ended.stderr.split_once("run etcdctl ").expect("the command").1.lines().next().expect("a line");
    let words: Vec<&str> = advice.split(' ').map(|word| if word == "ROLE" { "narrow" } else { word }).collect();
    etcd.etcdctl(&words);
    let leader = elect(&store).start();
    sandbox.starts(1);
    leader.terminate();
}

#[test]
fn a_user_where_none_is_asked_for_is_told_so() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, etcd.url()).witness(&Witness::new());
    is_refused(&as_user(elect, "elect", PASSWORD).run(), &["authentication is not enabled"]);
}

/// The server still renews the lease of a leader that may not verify its place, so that its key outlives the leader's belief.
#[test]
fn a_permission_that_is_withdrawn_is_a_trouble_without_a_storm_and_ends_the_term() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let store = format!("etcd://{}", etcd.address());
    let elect = candidate_for(&sandbox, store, "10s").witness(&Witness::new());
    let leader = as_user(elect, "elect", PASSWORD).start();
    let led = sandbox.starts(1).latest();
    let leases = || etcd.etcdctl(&["lease", "list"]).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let first = leases();
    etcd.etcdctl(&["user", "revoke-role", "elect", "elect"]);
    leader.wait_for_log("the lease runs out");
    leader.wait_for_log("permission denied");
    let (began, before): (_, u64) = (now(), etcd.messages().values().sum());
    throughout(Duration::from_secs(2), "it does not lead", || sandbox.history().starts.len() == 1);
    let rate = real(etcd.messages().values().sum::<u64>() - before) / since(began).as_secs_f64();
    println!("figures: etcd: permission withdrawn, ttl 10 s: {rate:.1} messages a second");
    assert!(rate < 20.0, "a storm: {rate}");
    let outlived = leases() == first;
    etcd.etcdctl(&["user", "grant-role", "elect", "elect"]);
    println!("figures: etcd: permission withdrawn: the lease outlived the term: {outlived}");
    let next = sandbox.starts(2).latest();
    assert!(next.term > led.term, "{next:?} after {led:?}");
    assert!(!leases().iter().any(|lease| first.contains(lease)), "the lease of the first term is gone");
    assert!(!leader.log().contains("not above one seen before"), "the same key again: {}", leader.log());
    leader.terminate();
    sandbox.history().is_safe();
}

/// It is one of the queue until its lease is revoked: forgotten, its key would hold up everybody behind it.
#[test]
fn a_waiter_that_was_refused_takes_its_place_back_as_soon_as_it_may() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let store = format!("etcd://{}", etcd.address());
    let elect = |name| as_user(candidate_for(&sandbox, store.clone(), "30s"), name, PASSWORD).witness(&Witness::new());
    let leader = elect("root").start();
    sandbox.starts(1);
    let waiter = elect("elect").start();
    waiter.wait_until_waiting();
    etcd.etcdctl(&["user", "revoke-role", "elect", "elect"]);
    waiter.wait_for_log("permission denied");
    etcd.etcdctl(&["user", "grant-role", "elect", "elect"]);
    let keys = || etcd.etcdctl(&["get", "--prefix", "--keys-only", "/elect/cron/"]).split_whitespace().count();
    until("the waiter is in the queue again", || keys() >= 2);
    until("its former key is not", || keys() == 2);
    let ended = now();
    leader.terminate();
    sandbox.starts(2);
    assert!(since(ended) < Duration::from_secs(10), "by the key, not by its lease: {:?}", since(ended));
    waiter.terminate();
    sandbox.history().is_safe();
}

#[test]
fn certificates_of_both_sides_are_shown_and_checked() {
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let sandbox = Sandbox::new();
    let (client, other) = (certificates.client(), certificates.other_client());
    let elect = |ca: &str, identity: Option<&crate::harness::certificates::CertificateFiles>| {
        let elect = patient(&sandbox, etcd.url()).witness(&Witness::new()).flag("--tls-ca", ca);
        match identity {
            Some(identity) => elect.flag("--tls-cert", &identity.certificate).flag("--tls-key", &identity.key),
            None => elect,
        }
    };
    let leader = elect(&certificates.ca(), Some(&client)).start();
    sandbox.starts(1);
    let next = elect(&certificates.ca(), Some(&client)).start();
    next.wait_until_waiting();
    a_killed_campaigner_is_followed_at_once(&sandbox, leader, next);

    is_refused(&elect(&certificates.other_ca(), Some(&client)).run(), &["certificate"]);
    is_refused(&elect(&certificates.ca(), None).run(), &["ertificate"]);
    is_refused(&elect(&certificates.ca(), Some(&other)).run(), &["ertificate"]);
    is_refused(&elect("/nonexistent/ca.pem", Some(&client)).run(), &["/nonexistent/ca.pem"]);
    assert_eq!(sandbox.history().starts.len(), 2);
}

#[test]
fn variables_of_etcds_own_fill_in_what_is_left_open() {
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let sandbox = Sandbox::new();
    let client = certificates.client();
    let with = |name: &str, value: &str| {
        candidate(&sandbox, "etcd:".to_owned())
            .variable("ETCD3_ENDPOINT", &etcd.address())
            .variable("ETCD3_TLS_CERT", &client.certificate)
            .variable("ETCD3_TLS_KEY", &client.key)
            .variable(name, value)
            .command(["true"])
            .run()
    };
    let ended = with("ETCD3_CA", &certificates.ca());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stderr_contains(&[&format!("campaigning in etcds://{}", etcd.address())]);
    // Nothing vouches for this server but the wish to believe it.
    assert_eq!(with("ETCD3_SKIP_VERIFY", "1").status.code(), Some(0));
    assert_eq!(with("ETCD3_CA", &certificates.other_ca()).status.code(), Some(77));
    assert_eq!(with("ETCD3_SKIP_VERIFY", "perhaps").status.code(), Some(2));
}

#[test]
fn urls_and_flags_that_do_not_fit_together_are_usage_errors() {
    let sandbox = Sandbox::new();
    let elect = |store: &str| ElectCmd::new(&sandbox).store(store.to_owned()).command(["true"]);
    elect("etcd:localhost").run().fails_with(2, &["etcd://HOST:PORT"]);
    elect("etcd://me:secret@h").run().fails_with(2, &["--password-file"]);
    let ended = elect("etcd://h").flag("--tls-ca", "/ca").run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    ended.stderr_contains(&["--tls-ca", "etcds://"]);
    let ended = elect("etcd://h").flag("--username", "me").run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    ended.stderr_contains(&["--password-file"]);
    elect("etcd://h").flag("--password-file", "/nonexistent").run().fails_with(2, &["/nonexistent"]);
}

#[test]
fn a_server_that_is_not_there_is_waited_for_and_mentioned_once_in_a_while() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let candidate = candidate(&sandbox, format!("etcd://127.0.0.1:{port}")).witness(&Witness::new()).start();
    candidate.wait_for_log("cannot be reached");
    throughout(Duration::from_secs(3), "it keeps trying", || candidate.log().lines().count() <= 3);
    candidate.terminate();
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_server_that_comes_back_is_found_within_a_renewal() {
    let etcd = EtcdServer::start();
    let (sandbox, proxy) = (Sandbox::new(), Proxy::to(&etcd.address()));
    proxy.mode(ProxyMode::Closed);
    let candidate = candidate(&sandbox, super::through(&proxy, &sandbox)).witness(&Witness::new()).start();
    candidate.wait_for_log("cannot be reached");
    proxy.mode(ProxyMode::Open);
    let opened = now();
    sandbox.starts(1);
    println!("figures: etcd: leads {} ms after the server is there", since(opened).as_millis());
    candidate.wait_for_log("answers again");
    candidate.terminate();
}

#[test]
fn nobody_waits_who_does_not_want_to() {
    let (sandbox, etcd) = (Sandbox::new(), EtcdServer::start());
    let gone = format!("etcd://127.0.0.1:{}", free_port());
    let ended = candidate_for(&sandbox, gone, "100s").switch("--no-wait").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["cannot be reached"]);
    let leader = patient(&sandbox, etcd.url()).witness(&Witness::new()).start();
    sandbox.starts(1);
    let ended = candidate_for(&sandbox, etcd.url(), "100s").switch("--no-wait").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    let quiet = asks_once(&sandbox, etcd.url()).switch("-q").command(["true"]).run();
    assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    let queue = etcd.etcdctl(&["get", "--prefix", "--keys-only", "/elect/"]);
    assert_eq!(queue.lines().filter(|line| !line.is_empty()).count(), 1, "its place was given back");
    leader.terminate();
}

#[test]
fn a_version_with_known_bugs_is_mentioned_once_and_only_by_a_candidate_that_keeps_running() {
    let etcd = EtcdServer::start();
    let version = etcd.etcdctl(&["endpoint", "status", "-w", "json"]);
    let is_known = version.contains("\"version\":\"3.4.2");
    let sandbox = Sandbox::new();
    let ended = candidate(&sandbox, etcd.url()).command(["true"]).run();
    assert!(!ended.stderr.contains("known lease bugs"), "a job of cron would send a mail each night: {ended:?}");
    let loud = candidate_for(&sandbox, etcd.url(), "3s").boundary("loud").witness(&Witness::new()).start();
    let quiet =
        candidate_for(&sandbox, etcd.url(), "3s").boundary("quiet").switch("-q").witness(&Witness::new()).start();
    let told = || loud.log().matches("known lease bugs").count();
    if is_known {
        until("the version is mentioned", || told() > 0);
    }
    throughout(Duration::from_secs(2), "it is mentioned once, and never with -q", || {
        told() == usize::from(is_known) && quiet.log().is_empty()
    });
    loud.terminate();
    quiet.terminate();
}
