//! `elect check` on an etcd: what is left, roles, versions, a member that is down.

use std::sync::Arc;

use crate::check::{Checked, check};
use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::Sandbox;
use crate::harness::certificates::Certificates;
use crate::harness::ports::free_port;
use crate::harness::server::PASSWORD;

fn keys(etcd: &EtcdServer) -> Vec<String> {
    let keys = etcd.etcdctl(&["get", "", "--prefix", "--keys-only"]);
    keys.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn nothing_but_the_last_term_is_left() {
    let etcd = EtcdServer::start();
    Checked::by(check(&Sandbox::new(), etcd.url())).exits_with(0);
    assert_eq!(keys(&etcd), ["elect.term//elect/elect-check/"]);
    assert_eq!(etcd.etcdctl(&["lease", "list"]).lines().next(), Some("found 0 leases"));
}

#[test]
fn a_version_with_known_bugs_is_named_with_those_that_have_none() {
    let etcd = EtcdServer::start();
    let version = etcd.etcdctl(&["endpoint", "status", "-w", "json"]);
    let checked = Checked::by(check(&Sandbox::new(), etcd.url()));
    if version.contains("\"version\":\"3.4.2") {
        checked.says("version", "warn", &["known lease bugs", "upgrade it to 3.4.42"]);
        assert!(checked.faults().contains(&"version"));
    } else {
        checked.says("version", "ok", &[]);
    }
}

#[test]
fn a_role_that_lacks_the_key_of_the_terms_is_told_the_command_that_grants_it() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let narrow = check(&sandbox, etcd.url()).flag("--username", "narrow").variable("ELECT_PASSWORD", PASSWORD);
    let checked = Checked::by(narrow.boundary("cron"));
    checked.exits_with(77).says("takes", "fail", &["etcdctl role grant-permission"]);
    let wide = check(&sandbox, etcd.url()).flag("--username", "elect").variable("ELECT_PASSWORD", PASSWORD);
    Checked::by(wide).exits_with(0).says("takes", "ok", &["20 takes"]);
}

#[test]
fn a_role_of_one_boundary_has_it_read_and_nothing_is_taken() {
    let etcd = EtcdServer::start();
    for words in [
        &["role", "add", "cron"][..],
        &["role", "grant-permission", "cron", "--prefix", "readwrite", "/elect/cron/"],
        &["role", "grant-permission", "cron", "--prefix", "readwrite", "elect.term//elect/cron/"],
        &["user", "add", &format!("cron:{PASSWORD}")],
        &["user", "grant-role", "cron", "cron"],
    ] {
        etcd.etcdctl(words);
    }
    etcd.enable_auth();
    let sandbox = Sandbox::new();
    let as_user = check(&sandbox, etcd.url()).flag("--username", "cron").variable("ELECT_PASSWORD", PASSWORD);
    let checked = Checked::by(as_user.boundary("cron"));
    checked.exits_with(0).says("boundary", "ok", &["cron: no leader"]);
    checked.says("takes", "warn", &["nothing was taken", "cron was only read"]);
}

#[test]
fn a_member_that_is_down_is_a_warning() {
    let etcd = EtcdServer::start();
    let url = format!("{},127.0.0.1:{}", etcd.url(), free_port());
    Checked::by(check(&Sandbox::new(), url)).exits_with(0).says("member", "warn", &["cannot be asked"]);
}

#[test]
fn a_server_that_is_full_is_named_with_what_to_do() {
    let etcd = EtcdServer::with(&EtcdOptions::new().flag("--quota-backend-bytes", "1000000"));
    let value = "x".repeat(100_000);
    let has_room = |number: &u32| etcd.try_etcdctl(&["put", &format!("/full/{number}"), &value]).is_ok();
    let filled = (0..100).take_while(has_room).count();
    assert!(filled < 100, "it has a quota");
    let checked = Checked::by(check(&Sandbox::new(), etcd.url()));
    checked.says("takes", "fail", &["space exceeded", "etcdctl alarm disarm"]);
    assert_ne!(checked.ended.status.code(), Some(0));
}

#[test]
fn a_certificate_that_is_not_verified_is_a_warning() {
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let (sandbox, client) = (Sandbox::new(), certificates.client());
    let as_client = || {
        let check = check(&sandbox, etcd.url()).flag("--tls-cert", &client.certificate);
        check.flag("--tls-key", &client.key)
    };
    let verified = Checked::by(as_client().flag("--tls-ca", &certificates.ca()));
    assert!(!verified.exits_with(0).faults().contains(&"certificate"));
    let unverified = Checked::by(as_client().switch("--tls-skip-verify"));
    unverified.exits_with(0).says("certificate", "warn", &["not verified", "--tls-ca"]);
    let unknown = Checked::by(as_client().flag("--tls-ca", &certificates.other_ca()));
    unknown.exits_with(77).says("store", "fail", &["certificate"]);
}
