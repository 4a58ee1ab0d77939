//! Getting in: users, certificates, servers that are not there; and what is said when it does not work.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::{Document, doc};
use nix::sys::signal::Signal;

use super::elect;
use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::ports::free_port;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness};
use crate::leases::{candidate, candidate_for, patient, through};
use crate::mongodb::server::{COLLECTION, Mongod, MongodOptions, SET, SingleNodeReplicaSet};
use crate::pass_credentials::{EVERY_SOURCE, StoreWithUsers};

/// The rights that an election needs at least, and those by which an index is kept.
const ACTIONS: [&str; 5] = ["find", "insert", "update", "createIndex", "listIndexes"];

/// The rights that the manual lists for a user, and no others.
fn privileges() -> Vec<Document> {
    let on = |collection: &str, actions: &[&str]| {
        doc! { "resource": { "db": "elect", "collection": collection }, "actions": actions.to_vec() }
    };
    vec![
        on(COLLECTION, &ACTIONS),
        on("changes", &["find", "insert", "createCollection", "convertToCapped"]),
        on("", &["listCollections"]),
    ]
}

#[track_caller]
fn is_refused(ended: &Ended, said: &[&str]) {
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(said);
    let errors = ended.stderr.lines().filter(|line| line.contains("error")).count();
    assert_eq!(errors, 1, "one line: {ended:?}");
    assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
}

/// It asks for users: root, `stranger`, who may nothing, and `elect`, who may what the manual names.
fn make_users(mongod: &Mongod) {
    mongod.admin(doc! { "createRole": "elect", "privileges": privileges(), "roles": [] });
    mongod.admin(doc! { "createUser": "elect", "pwd": PASSWORD, "roles": ["elect"] });
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

fn leads_hands_over_and_is_seen(server: &impl StoreServer) {
    let sandbox = Sandbox::new();
    let password = sandbox.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).expect("a file");
    let by_variable = |elect: ElectCmd| elect.flag("--username", "elect").variable("ELECT_PASSWORD", PASSWORD);
    let start = |elect: ElectCmd| elect.flag("--ttl", "60s").witness(&Witness::new()).start();
    let new = || ElectCmd::new(&sandbox).store(server.url());
    let leader = start(by_variable(new()));
    sandbox.starts(1);
    let by_file = new().flag("--username", "elect").flag("--password-file", &password.display().to_string());
    let next = start(by_file);
    next.wait_until_waiting();
    for words in [vec!["cron"], vec![]] {
        let seen = by_variable(new()).status(&words).run();
        assert!(seen.stdout.contains("cron") && seen.status.success(), "{seen:?}");
    }
    for log in [leader.log(), next.log()] {
        assert!(!log.contains("denied") && !log.contains("no index") && !log.contains("without hints"), "{log}");
    }
    a_killed_campaigner_is_followed_at_once(&sandbox, leader, next);
}

#[test]
fn a_user_without_the_rights_to_the_changes_hands_over_by_asking_and_is_told_so_once() {
    let mongod = Mongod::start();
    mongod.enable_auth();
    make_users(&mongod);
    // As elect before hints had a collection.
    let old = privileges().into_iter().take(1).collect::<Vec<_>>();
    mongod.admin(doc! { "updateRole": "elect", "privileges": old });
    let sandbox = Sandbox::new();
    let start = || {
        // It asks once in a renewal interval.
        let elect = candidate_for(&sandbox, mongod.url(), "20s").flag("--username", "elect");
        elect.variable("ELECT_PASSWORD", PASSWORD).witness(&Witness::new()).start()
    };
    let leader = start();
    sandbox.starts(1);
    let next = start();
    let said = "without hints: not authorized on elect to execute command listCollections";
    for candidate in [&leader, &next] {
        candidate.wait_for_log(said);
    }
    let stopped = now();
    leader.terminate();
    sandbox.starts(2);
    assert!(since(stopped) < Duration::from_secs(20), "by asking, not by the lease: {:?}", since(stopped));
    assert_eq!(next.log().matches("without hints").count(), 1, "{}", next.log());
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_user_with_what_the_manual_names_leads_hands_over_and_is_seen() {
    let set = SingleNodeReplicaSet::start();
    set.enable_auth();
    make_users(&set);
    leads_hands_over_and_is_seen(&set);
    let mongod = Mongod::start();
    mongod.enable_auth();
    make_users(&mongod);
    leads_hands_over_and_is_seen(&mongod);
}

#[test]
fn who_may_not_is_told_so_and_ends() {
    let set = SingleNodeReplicaSet::start();
    set.enable_auth();
    make_users(&set);
    let sandbox = Sandbox::new();
    let run = |user: &str, password: &str, store: &str| {
        let elect = ElectCmd::new(&sandbox).store(store.to_owned()).flag("--username", user);
        elect.variable("ELECT_PASSWORD", password).command(["true"]).run()
    };
    let url = set.url();
    is_refused(&run("elect", "wrong", &url), &["uthentication failed"]);
    is_refused(&run("nobody", PASSWORD, &url), &["uthentication failed"]);
    is_refused(&run("stranger", PASSWORD, &url), &["permission denied"]);
    let elsewhere = format!("mongodb://{}/elsewhere?authSource=admin&replicaSet={SET}", set.address());
    is_refused(&run("elect", PASSWORD, &elsewhere), &["permission denied"]);
    let none = ElectCmd::new(&sandbox).store(url.clone()).command(["true"]).run();
    is_refused(&none, &["--username", "--password-file"]);
    let asked = ElectCmd::new(&sandbox).store(url).flag("--username", "elect").variable("ELECT_PASSWORD", "wrong");
    asked.status(&["cron"]).run().fails_with(77, &["uthentication failed"]);
}

#[test]
fn a_url_with_a_password_is_taken_as_hosting_providers_write_it_and_never_shown() {
    let set = SingleNodeReplicaSet::start();
    set.enable_auth();
    make_users(&set);
    let sandbox = Sandbox::new();
    let url = format!(
        "mongodb://elect:correct%20horse@{}/elect?retryWrites=true&w=majority&authSource=admin&replicaSet={SET}&appName=x",
        set.address()
    );
    let run =
        ElectCmd::new(&sandbox).store(None).variable("ELECT_STORE", &url).flag("--ttl", "3s").command(["true"]).run();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    run.stderr_contains(&[&format!("campaigning in mongodb://{}/elect", set.address())]);
    assert!(!run.stderr.contains("horse"), "{run:?}");
}

#[test]
fn a_permission_that_is_withdrawn_is_a_trouble_without_a_storm() {
    let set = SingleNodeReplicaSet::start();
    set.enable_auth();
    make_users(&set);
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, set.url()).flag("--username", "elect").variable("ELECT_PASSWORD", PASSWORD);
    let leader = elect.witness(&Witness::new()).start();
    sandbox.starts(1);
    set.admin(doc! { "revokeRolesFromUser": "elect", "roles": ["elect"] });
    leader.wait_for_log("the lease runs out");
    leader.wait_for_log("permission denied");
    let (began, before) = (now(), set.operations());
    throughout(Duration::from_secs(3), "it does not lead", || sandbox.history().starts.len() == 1);
    // Of which the questions are one or two.
    let operations = set.operations() - before;
    println!(
        "figures: mongodb: permission withdrawn, ttl 3 s: {operations} operations in {} ms",
        since(began).as_millis()
    );
    assert!(operations < 150, "a storm: {operations}");
    set.admin(doc! { "grantRolesToUser": "elect", "roles": ["elect"] });
    sandbox.starts(2);
    leader.terminate();
    sandbox.history().is_safe();
}

fn with(elect: ElectCmd, ca: &str, identity: Option<&CertificateFiles>) -> ElectCmd {
    let elect = elect.flag("--tls-ca", ca);
    match identity {
        Some(identity) => elect.flag("--tls-cert", &identity.certificate).flag("--tls-key", &identity.key),
        None => elect,
    }
}

#[test]
fn certificates_of_both_sides_are_shown_and_checked() {
    let certificates = Arc::new(Certificates::new());
    let mongod = Mongod::with(&MongodOptions::new().tls(&certificates));
    let sandbox = Sandbox::new();
    let (client, other) = (certificates.client(), certificates.other_client());
    let elect = |ca: &str, identity: Option<&CertificateFiles>| {
        with(patient(&sandbox, mongod.url()).witness(&Witness::new()), ca, identity)
    };
    let leader = elect(&certificates.ca(), Some(&client)).start();
    sandbox.starts(1);
    let next = elect(&certificates.ca(), Some(&client)).start();
    next.wait_until_waiting();
    a_killed_campaigner_is_followed_at_once(&sandbox, leader, next);
    is_refused(&elect(&certificates.other_ca(), Some(&client)).run(), &["certificate"]);
    // It ends such a connection without a word, as a server does that is about to end: that may pass.
    for identity in [None, Some(&other)] {
        let once = candidate_for(&sandbox, mongod.url(), "20s").switch("-n").command(["true"]);
        let ended = with(once, &certificates.ca(), identity).run();
        assert_eq!(ended.status.code(), Some(69), "{ended:?}");
        ended.stderr_contains(&["certificate"]);
    }
    is_refused(&elect("/nonexistent/ca.pem", Some(&client)).run(), &["/nonexistent/ca.pem"]);
    assert_eq!(sandbox.history().starts.len(), 2);
}

#[test]
fn a_certificate_is_a_user_where_that_is_asked_for() {
    let certificates = Arc::new(Certificates::new());
    let mongod = Mongod::with(
        &MongodOptions::new()
            .tls(&certificates)
            .parameter("authenticationMechanisms", "MONGODB-X509,SCRAM-SHA-1,SCRAM-SHA-256"),
    );
    mongod.enable_auth();
    make_users(&mongod);
    let role = doc! { "role": "elect", "db": "admin" };
    mongod.command("$external", doc! { "createUser": "CN=elect", "roles": [role] });
    let sandbox = Sandbox::new();
    let client = certificates.client();
    let store = format!("mongodb://{}/elect?tls=true&authMechanism=MONGODB-X509", mongod.address());
    let elect = || with(patient(&sandbox, store.clone()).witness(&Witness::new()), &certificates.ca(), Some(&client));
    let leader = elect().start();
    sandbox.starts(1);
    let next = elect().start();
    next.wait_until_waiting();
    a_killed_campaigner_is_followed_at_once(&sandbox, leader, next);
    // No user has that name.
    mongod.command("$external", doc! { "dropUser": "CN=elect" });
    is_refused(&elect().run(), &["uthentication failed"]);
}

#[test]
fn urls_and_flags_that_do_not_fit_together_are_usage_errors() {
    let sandbox = Sandbox::new();
    let elect = |store: &str| ElectCmd::new(&sandbox).store(store.to_owned()).command(["true"]);
    elect("mongodb:localhost").run().fails_with(2, &["mongodb://HOST:PORT"]);
    for (url, said) in [
        ("mongodb://h/local", "the database local"),
        ("mongodb://h1,h2/?directConnection=true", "directConnection"),
        ("mongodb://h/?timeoutMS=5", "timeoutms"),
        ("mongodb://h/?replicaSet=a&directConnection=perhaps", "directconnection"),
    ] {
        let ended = elect(url).run();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        ended.stderr_contains(&[said]);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    let ended = elect("mongodb://h").flag("--username", "me").run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    ended.stderr_contains(&["--password-file"]);
    elect("mongodb://h").flag("--password-file", "/nonexistent").run().fails_with(2, &["/nonexistent"]);
}

#[test]
fn a_server_that_is_not_there_is_waited_for_without_a_storm() {
    let sandbox = Sandbox::new();
    let port = free_port();
    let candidate = candidate(&sandbox, format!("mongodb://127.0.0.1:{port}")).witness(&Witness::new()).start();
    candidate.wait_for_log(&format!("127.0.0.1:{port}"));
    candidate.wait_for_log("refused");
    throughout(Duration::from_secs(3), "it keeps trying", || candidate.log().lines().count() <= 3);
    candidate.terminate();
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_server_that_comes_back_is_found_within_a_renewal() {
    let set = SingleNodeReplicaSet::start();
    let (sandbox, proxy) = (Sandbox::new(), Proxy::to(&set.address()));
    proxy.mode(ProxyMode::Closed);
    let candidate =
        candidate(&sandbox, through::<SingleNodeReplicaSet>(&proxy, &sandbox)).witness(&Witness::new()).start();
    candidate.wait_for_log("refused");
    proxy.mode(ProxyMode::Open);
    let opened = now();
    sandbox.starts(1);
    println!("figures: mongodb: leads {} ms after the server is there", since(opened).as_millis());
    candidate.wait_for_log("answers again");
    candidate.terminate();
}

#[test]
fn a_server_that_stands_still_is_not_stormed() {
    let set = SingleNodeReplicaSet::start();
    let sandbox = Sandbox::new();
    let leader = elect(&sandbox, &set, "3s").start();
    sandbox.starts(1);
    let before = set.connections_made();
    set.stop();
    let stopped = now();
    leader.wait_for_log("the lease runs out");
    throughout(Duration::from_secs(4), "it does not lead", || sandbox.history().starts.len() == 1);
    let stood = since(stopped).as_secs();
    set.cont();
    sandbox.starts(2);
    let made = set.connections_made() - before;
    println!("figures: mongodb: server stopped for {stood} s, ttl 3 s: {made} connections by one candidate");
    assert!(made < 15 * (stood + 5), "a storm: {made}");
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn nobody_waits_who_does_not_want_to() {
    let sandbox = Sandbox::new();
    let gone = format!("mongodb://127.0.0.1:{}", free_port());
    let ended = candidate_for(&sandbox, gone, "10s").switch("--no-wait").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["127.0.0.1:"]);
    let other = SingleNodeReplicaSet::start();
    let wrong = other.url().replace(SET, "other");
    let ended = candidate_for(&sandbox, wrong, "10s").switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
}

#[test]
fn a_command_gets_the_password_only_if_that_is_asked_for() {
    let mongod = Mongod::start();
    mongod.enable_auth();
    let (place, sources) = (format!("{}/elect?authSource=admin", mongod.address()), EVERY_SOURCE);
    let store = StoreWithUsers { scheme: "mongodb", place, user: "root", flags: Vec::new(), sources };
    store.passes_credentials_only_if_asked();
}
