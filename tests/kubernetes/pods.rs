//! `--pod-label`: the label follows the leader, and costs nobody a renewal.

use serde_json::json;

use super::double::{ApiServer, Fault, Kind};
use super::namespace;
use crate::harness::server::StoreServer;
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};

const KEY: &str = "example.com/role";

fn pod(server: &ApiServer, namespace: &str, name: &str, labels: &serde_json::Value) {
    let pod = json!({ "metadata": { "labels": labels } });
    server.with_objects(|objects| objects.add(Kind::Pod, namespace, name, pod));
}

fn label(server: &ApiServer, namespace: &str, pod: &str) -> Option<String> {
    server.with_objects(|objects| {
        let label = &objects.get(Kind::Pod, namespace, pod)?["metadata"]["labels"][KEY];
        label.as_str().map(str::to_owned)
    })
}

fn candidate(server: &ApiServer, sandbox: &Sandbox, pod: &str) -> ElectCmd {
    ElectCmd::new(sandbox)
        .store(server.url_for(sandbox))
        .flag("--ttl", "60s")
        .flag("--renew", "1s")
        .flag("--name", pod)
        .flag("--pod-label", KEY)
        .variable("POD_NAME", pod)
        .witness(&Witness::new())
}

#[test]
fn the_label_follows_the_leader_and_is_taken_off_all_others() {
    let (server, sandbox) = (ApiServer::start(), Sandbox::new());
    let namespace = namespace(&sandbox.database());
    for name in ["web-0", "web-1"] {
        pod(&server, &namespace, name, &json!({ "app": "web" }));
    }
    // Of a leader whose node is gone.
    pod(&server, &namespace, "web-2", &json!({ KEY: "leader" }));
    let is = |name: &str, role: &str| label(&server, &namespace, name).as_deref() == Some(role);
    let leader = candidate(&server, &sandbox, "web-0").start();
    until("the leader's pod is labelled", || is("web-0", "leader"));
    until("the former leader's is not", || is("web-2", "follower"));
    let next = candidate(&server, &sandbox, "web-1").start();
    until("the follower's is labelled", || is("web-1", "follower"));
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    until("the label follows", || is("web-1", "leader") && is("web-0", "follower"));
    let web = server.with_objects(|objects| objects.get(Kind::Pod, &namespace, "web-1").cloned()).expect("a pod");
    assert_eq!(web["metadata"]["labels"]["app"], "web");
    next.terminate();
    sandbox.history().is_safe();
}

fn goes_on(server: &ApiServer, leader: &CandidateProcess) {
    let before = server.writes();
    until("the leader renews", || server.writes() >= before + 3);
    assert!(!leader.log().contains("leader command ended"), "{}", leader.log());
}

#[test]
fn a_server_that_refuses_or_hangs_costs_a_warning_and_no_renewal() {
    for verb in ["patch pods", "list pods"] {
        for fault in [Fault::Stall, Fault::Status(403), Fault::Status(500)] {
            let (server, sandbox) = (ApiServer::start(), Sandbox::new());
            let namespace = namespace(&sandbox.database());
            pod(&server, &namespace, "web-0", &json!({}));
            server.fault(verb, u64::MAX / 2, fault);
            let leader = candidate(&server, &sandbox, "web-0").start();
            leader.wait_for_log("cannot be labelled");
            goes_on(&server, &leader);
            assert_eq!(leader.log().matches("cannot be labelled").count(), 1, "{}", leader.log());
            server.heal();
            until("it is labelled then", || label(&server, &namespace, "web-0").as_deref() == Some("leader"));
            leader.wait_for_log("labelled again");
            leader.terminate();
        }
    }
}

#[test]
fn without_pods_or_a_name_it_is_a_usage_error() {
    let (server, sandbox) = (ApiServer::start(), Sandbox::new());
    let elect = || ElectCmd::new(&sandbox).flag("--pod-label", KEY).command(["true"]);
    elect().run().fails_with(2, &["--pod-label", "has no pods"]);
    elect().store(server.url_for(&sandbox)).run().fails_with(2, &["POD_NAME"]);
    let malformed = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).flag("--pod-label", "a b");
    malformed.variable("POD_NAME", "web-0").command(["true"]).run().fails_with(2, &["the key of a label"]);
}
