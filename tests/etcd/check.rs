//! `elect check` on an etcd: what is left, roles, versions, a member that is down.

use crate::check::{Checked, check};
use crate::etcd::server::EtcdServer;
use crate::harness::Sandbox;
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
