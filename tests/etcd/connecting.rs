//! Connecting: over a long way, with certificates of every kind, to servers that are none; and what is said then.

use std::sync::Arc;
use std::time::Duration;

use super::server::{EtcdOptions, EtcdServer};
use super::{asks_once, candidate};
use crate::harness::certificates::Certificates;
use crate::harness::server::PASSWORD;
use crate::harness::slow_link::SlowLink;
use crate::harness::wait::now;
use crate::harness::{ElectCmd, Sandbox, Witness, millis, run_until_answered};

/// T6
#[test]
fn a_round_trip_of_200_ms_is_no_reason_to_fail_with_the_default_timings() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let link = SlowLink::to(&etcd.address(), Duration::from_millis(200));
    let leader = ElectCmd::new(&sandbox).store(format!("etcd://{}", link.address())).witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.terminate();
    sandbox.history().is_safe();
}

/// S6: the attempt that is refused has no time left for anything else.
#[test]
fn a_user_without_rights_is_refused_at_the_first_contact_over_a_round_trip_of_200_ms() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let link = SlowLink::to(&etcd.address(), Duration::from_millis(200));
    let ended = run_until_answered(|| {
        let elect = ElectCmd::new(&sandbox).store(format!("etcd://{}", link.address())).flag("--username", "stranger");
        elect.variable("ELECT_PASSWORD", PASSWORD).switch("-n").command(["true"])
    });
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["permission denied"]);
    assert!(!ended.stderr.contains("in time"), "{ended:?}");
}

/// The fewest that the algorithm allows: the connection, the look beside the grant, the place beside the first keep-alive, and the check.
/// A candidate that looks for those of other layouts does so once more before it leads.
#[test]
fn a_command_starts_after_four_round_trips_in_series() {
    let etcd = EtcdServer::start();
    for (options, limit) in [("?others=ignore", 4), ("", 5)] {
        let sandbox = Sandbox::new();
        // So long that a slow machine takes less than one of them for everything else.
        let round_trip = Duration::from_secs(2);
        let link = SlowLink::to(&etcd.address(), round_trip);
        let began = now();
        let store = format!("etcd://{}{options}", link.address());
        let leader = ElectCmd::new(&sandbox).store(store).flag("--ttl", "120s").witness(&Witness::new()).start();
        let took = sandbox.starts(1).latest().at.saturating_sub(began);
        println!("figures: etcd: start to exec over round trips of 2 s{options}: {}", millis(took));
        assert!(took >= round_trip * limit && took < round_trip * (limit + 1), "{limit}: {}", millis(took));
        assert_eq!(link.connections(), 1);
        leader.terminate();
    }
}

/// B10: etcd compares a password for longer than a short lease leaves to one attempt.
#[test]
fn a_password_that_takes_long_to_compare_is_no_reason_to_fail() {
    // The last flag counts.
    let etcd = EtcdServer::with(&EtcdOptions::new().flag("--bcrypt-cost", "12"));
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let elect = || {
        let elect = candidate(&sandbox, etcd.url()).flag("--username", "elect");
        elect.variable("ELECT_PASSWORD", PASSWORD)
    };
    let once = run_until_answered(|| elect().switch("-n").command(["true"]));
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    let leader = elect().witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.terminate();
}

/// B14
#[test]
fn a_self_signed_certificate_is_accepted_if_it_is_the_named_one() {
    let certificates = Arc::new(Certificates::new());
    let own = certificates.self_signed();
    let etcd = EtcdServer::with(&EtcdOptions::new().tls_as(&certificates, own.clone()));
    let sandbox = Sandbox::new();
    let elect = |ca: &str| asks_once(&sandbox, etcd.url()).flag("--tls-ca", ca).command(["true"]);
    let ended = elect(&own.certificate).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for other in [certificates.other_self_signed().certificate, certificates.ca()] {
        let ended = elect(&other).run();
        assert_eq!(ended.status.code(), Some(77), "{ended:?}");
        ended.stderr_contains(&["--tls-ca does not name"]);
    }
}

/// B11
#[test]
fn verification_is_skipped_with_a_warning_and_never_beside_an_authority() {
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls_as(&certificates, certificates.self_signed()));
    let sandbox = Sandbox::new();
    let elect = || candidate(&sandbox, etcd.url()).switch("-q").command(["true"]);
    for elect in [elect().variable("ETCD3_SKIP_VERIFY", "1"), elect().switch("--tls-skip-verify")] {
        let ended = elect.run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stderr_contains(&["is not verified", "--tls-ca"]);
        assert_eq!(ended.stderr.matches("is not verified").count(), 1, "{ended:?}");
    }
    let both = elect().variable("ETCD3_SKIP_VERIFY", "1").flag("--tls-ca", &certificates.ca()).run();
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    both.stderr_contains(&["ETCD3_SKIP_VERIFY", "--tls-ca"]);
}

#[test]
fn faults_of_tls_are_told_in_words_with_a_way_out() {
    let certificates = Arc::new(Certificates::new());
    let sandbox = Sandbox::new();
    let (ca, client, other) = (certificates.ca(), certificates.client(), certificates.other_client());
    let p521 = EtcdServer::with(&EtcdOptions::new().tls_as(&certificates, certificates.p521()));
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let plain = EtcdServer::start();
    let encrypted = || asks_once(&sandbox, format!("etcds://{}", etcd.address())).flag("--tls-ca", &ca);
    for (elect, said) in [
        (asks_once(&sandbox, format!("etcds://{}", p521.address())).flag("--tls-ca", &ca), "P-521"),
        (encrypted().flag("--tls-cert", &client.key).flag("--tls-key", &client.certificate), "swapped"),
        (encrypted().flag("--tls-cert", &client.certificate).flag("--tls-key", &other.key), "of one pair"),
    ] {
        let ended = elect.command(["true"]).run();
        assert_eq!(ended.status.code(), Some(77), "{said}: {ended:?}");
        ended.stderr_contains(&[said]);
    }
    // The alert of the server arrives in the moment in which elect sends its first request.
    for _ in 0..10 {
        for (elect, said) in [
            (encrypted(), "--tls-cert and --tls-key"),
            (encrypted().flag("--tls-cert", &other.certificate).flag("--tls-key", &other.key), "of --tls-cert"),
        ] {
            let ended = elect.command(["true"]).run();
            assert_eq!(ended.status.code(), Some(77), "{said}: {ended:?}");
            ended.stderr_contains(&[said]);
        }
    }
    // This server ends the connection without a word, as one does that is about to end.
    let encrypted = asks_once(&sandbox, format!("etcds://{}", plain.address())).flag("--tls-ca", &ca);
    let ended = encrypted.command(["true"]).run();
    assert!(matches!(ended.status.code(), Some(69 | 77)), "{ended:?}");
    ended.stderr_contains(&["(etcd://)"]);
    let ended = asks_once(&sandbox, format!("etcd://{}", etcd.address())).command(["true"]).run();
    ended.stderr_contains(&["etcds://"]);
}
