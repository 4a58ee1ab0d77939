//! The surface of this store for users: usage errors, rights, the pod's own access, and the keeper's release.

use std::fs;

use super::double::{ApiServer, USER};
use super::namespace;
use crate::harness::server::StoreServer;
use crate::harness::wait::{now, since};
use crate::harness::{ElectCmd, Sandbox, Witness};

#[test]
fn times_that_other_programs_cannot_see_are_usage_errors() {
    let sandbox = Sandbox::new();
    let store = || ElectCmd::new(&sandbox).store("kubernetes+http://127.0.0.1:1/default".to_owned()).command(["true"]);
    store().flag("--ttl", "4s").run().fails_with(2, &["--ttl 4s", "at least 5s"]);
    store().flag("--renew", "900ms").run().fails_with(2, &["--renew 900ms", "at least 1s"]);
    let plan = ElectCmd::new(&sandbox).store("kubernetes:team".to_owned()).query("plan", &["--ttl", "4s"]).run();
    plan.fails_with(2, &["at least 5s"]);
}

#[test]
fn each_right_is_needed_and_a_missing_one_is_77_with_the_commands_that_grant_it() {
    for verb in ["get", "create", "update", "watch"] {
        let (server, sandbox) = (ApiServer::start(), Sandbox::new());
        server.deny(verb, "leases");
        let elect = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).command(["true"]);
        let grant = "create role elect --verb=get,create,update,watch,list --resource=leases.coordination.k8s.io";
        let refused = elect.run();
        assert_eq!(refused.status.code(), Some(77), "{verb}: {refused:?}");
        refused.stderr_contains(&[grant, "--serviceaccount=default:elect"]);
    }
    let (server, sandbox) = (ApiServer::start(), Sandbox::new());
    server.deny("list", "leases");
    let status = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).query("status", &[]).run();
    status.fails_with(77, &["create role elect"]);
}

/// In a mount namespace of its own, with the folder that kubelet makes.
#[test]
fn a_pod_needs_no_settings() {
    let (server, sandbox) = (ApiServer::start(), Sandbox::new());
    let team = namespace(&sandbox.database());
    let certificates = crate::harness::certificates::Certificates::new();
    let tls = super::faults::tls(&certificates.server());
    let secured = ApiServer::at("127.0.0.1", Some(tls));
    drop(server);
    secured.accept_tokens(&[("t1", USER)]);
    let folder = sandbox.path().join("serviceaccount");
    fs::create_dir(&folder).expect("created");
    fs::copy(certificates.ca(), folder.join("ca.crt")).expect("copied");
    fs::write(folder.join("token"), "t1").expect("written");
    fs::write(folder.join("namespace"), &team).expect("written");
    let script = r#"mount -t tmpfs none /var && mkdir -p /var/run/secrets/kubernetes.io && ln -s "$1" /var/run/secrets/kubernetes.io/serviceaccount && shift && exec "$@""#;
    let inside = ["unshare", "--mount", "sh", "-c", script, "sh", folder.to_str().expect("plain text")];
    let pod = |elect: ElectCmd| {
        elect
            .wrapped_by(inside)
            .variable("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .variable("KUBERNETES_SERVICE_PORT", &secured.port().to_string())
    };
    let elect = ElectCmd::new(&sandbox).store("kubernetes:".to_owned()).boundary("billing/nightly");
    let led = pod(elect.flag("--name", "web-0").shell("elect_said=led; echo $elect_said $ELECT_TERM")).run();
    assert_eq!(led.status.code(), Some(0), "{led:?}");
    led.stderr_contains(&["campaigning in kubernetes: (all hosts)"]);
    let lease = secured.lease(&team, "billing-x2fnightly").expect("a Lease");
    assert_eq!(lease["spec"]["holderIdentity"], "");
    let all = pod(ElectCmd::new(&sandbox).store("kubernetes:".to_owned()).query("status", &["--all"])).run();
    assert!(all.stdout.contains("billing/nightly"), "{all:?}");
}

/// The keeper has the claim, and the store is asked by another process.
#[test]
fn a_killed_campaigner_is_followed_at_once_and_kubectl_sees_who_leads() {
    let (server, sandbox) = (ApiServer::start(), Sandbox::new());
    let start = |name: &str| {
        let elect = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).flag("--ttl", "30s").flag("--name", name);
        elect.witness(&Witness::new()).start()
    };
    let mut leader = start("one");
    sandbox.starts(1);
    let next = start("two");
    next.wait_until_waiting();
    let killed = now();
    leader.signal(nix::sys::signal::Signal::SIGKILL);
    leader.wait();
    sandbox.starts(2);
    assert!(since(killed) < std::time::Duration::from_secs(15), "{:?}", since(killed));
    let lease = server.lease(&namespace(&sandbox.database()), "cron").expect("a Lease");
    assert!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with("two_")), "{lease}");
    next.terminate();
    sandbox.history().is_safe();
}
