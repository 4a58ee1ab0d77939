//! Connecting: over a long way, with certificates of every kind, to servers that are none; and what is said then.

use std::sync::Arc;
use std::time::Duration;

use ::mongodb::bson::doc;

use crate::harness::certificates::Certificates;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::slow_link::SlowLink;
use crate::harness::{ElectCmd, Sandbox, Witness, run_until_answered};
use crate::leases::{asks_once, candidate, candidate_for};
use crate::mongodb::server::{Mongod, MongodOptions};

/// T6
#[test]
fn a_round_trip_of_200_ms_is_no_reason_to_fail_with_the_default_timings() {
    let mongod = Mongod::start();
    mongod.enable_auth();
    let sandbox = Sandbox::new();
    let link = SlowLink::to(&mongod.address(), Duration::from_millis(200));
    let elect = || {
        let store = format!("{}?authSource=admin", sandbox.below(&format!("mongodb://{}", link.address())));
        ElectCmd::new(&sandbox).store(store).flag("--username", "root").variable("ELECT_PASSWORD", PASSWORD)
    };
    let once = run_until_answered(|| elect().switch("-n").command(["true"]));
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    let leader = elect().witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.terminate();
    println!("figures: mongodb: {} connections for two candidates over 200 ms", link.connections());
    sandbox.history().is_safe();
}

/// B15
#[test]
fn a_user_of_admin_who_is_looked_for_elsewhere_is_told_where() {
    let mongod = Mongod::start();
    mongod.enable_auth();
    let sandbox = Sandbox::new();
    let run = |options: &str, password: &str| {
        let store = format!("mongodb://{}/elect{options}", mongod.address());
        let elect = asks_once(&sandbox, store).flag("--username", "root").variable("ELECT_PASSWORD", password);
        elect.command(["true"]).run()
    };
    let ended = run("", PASSWORD);
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["\"root\"", "\"elect\"", "?authSource=admin"]);
    assert_eq!(run("?authSource=admin", PASSWORD).status.code(), Some(0));
    let ended = run("?authSource=admin", "wrong");
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    assert!(!ended.stderr.contains("?authSource=admin"), "it is there: {ended:?}");
}

/// B9
#[test]
fn a_server_without_a_feature_that_elections_need_is_refused_by_its_name() {
    let mongod = Mongod::with(&MongodOptions::new().parameter("enableTestCommands", "1"));
    let sandbox = Sandbox::new();
    for code in [9, 14, 20, 59, 72, 115, 168, 238, 322, 40_324] {
        let data = doc! { "failCommands": ["aggregate"], "errorCode": code };
        mongod.admin(doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data });
        let ended = asks_once(&sandbox, mongod.url()).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(77), "{code}: {ended:?}");
        ended.stderr_contains(&["lacks a feature", &code.to_string()]);
    }
    mongod.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" });
}

#[test]
fn faults_of_tls_are_told_in_words_with_a_way_out() {
    let certificates = Arc::new(Certificates::new());
    let sandbox = Sandbox::new();
    let ca = certificates.ca();
    let own = certificates.self_signed();
    let mongod = Mongod::with(&MongodOptions::new().tls_as(&certificates, certificates.server()));
    let selfsigned = Mongod::with(&MongodOptions::new().tls_as(&certificates, own.clone()));
    let plain = Mongod::start();
    let store = |mongod: &Mongod, options: &str| {
        let store = format!("mongodb://{}/{options}", mongod.address());
        candidate_for(&sandbox, store, "20s").switch("-n").command(["true"])
    };
    let (client, other) = (certificates.client(), certificates.other_client());
    for (elect, status, said) in [
        (store(&mongod, "?tls=true").flag("--tls-ca", &certificates.other_ca()), 77, "--tls-ca does not name"),
        (store(&selfsigned, "?tls=true").flag("--tls-ca", &own.certificate), 77, "CA:FALSE"),
        (
            store(&mongod, "?tls=true")
                .flag("--tls-ca", &ca)
                .flag("--tls-cert", &client.certificate)
                .flag("--tls-key", &other.key),
            77,
            "of one pair",
        ),
        (store(&mongod, ""), 69, "?tls=true"),
        (store(&plain, "?tls=true").flag("--tls-ca", &ca), 69, "without TLS"),
    ] {
        let ended = elect.run();
        assert_eq!(ended.status.code(), Some(status), "{said}: {ended:?}");
        ended.stderr_contains(&[said]);
    }
    for elect in [
        store(&selfsigned, "?tls=true").switch("--tls-skip-verify"),
        store(&selfsigned, "?tls=true&tlsInsecure=true"),
        store(&selfsigned, "?ssl=true&ssl_cert_reqs=CERT_NONE"),
    ] {
        let ended = elect.run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stderr_contains(&["is not verified"]);
    }
}

#[test]
fn a_name_without_a_record_and_another_set_are_told_in_words() {
    let sandbox = Sandbox::new();
    let store = "mongodb+srv://no-such-cluster.invalid/elect".to_owned();
    let ended = candidate(&sandbox, store).switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["_mongodb._tcp"]);
    assert!(!ended.stderr.contains(" { "), "no notation of a program: {ended:?}");
    let plain = Mongod::start();
    let store = format!("mongodb://{}/?replicaSet=wrong", plain.address());
    let ended = candidate(&sandbox, store).switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["\"wrong\"", "replicaSet="]);
}
