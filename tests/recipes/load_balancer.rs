//! A load balancer in front of the candidates.

use std::fs;

use super::RecipeSandbox;
use crate::harness::haproxy::Haproxy;
use crate::harness::{CandidateProcess, docs_under_test, host_tools, http_client, ports::free_port, until};

#[test]
fn haproxy_takes_its_configuration_and_not_a_broken_one() {
    let file = docs_under_test::root().join("recipes/haproxy.cfg");
    host_tools::attempt(["haproxy", "-c", "-f", file.to_str().expect("plain text")]).expect("haproxy checks it");
    let workspace = RecipeSandbox::new();
    let broken = workspace.path("haproxy.cfg");
    fs::write(
        &broken,
        docs_under_test::read("recipes/haproxy.cfg").replace("default_backend leader", "default_backend nobody"),
    )
    .expect("written");
    host_tools::attempt(["haproxy", "-c", "-f", broken.to_str().expect("plain text")])
        .expect_err("there is no such backend");
}

#[test]
fn haproxy_sends_to_the_leader() {
    let workspace = RecipeSandbox::new();
    let front = free_port();
    let servers = [(free_port(), free_port()), (free_port(), free_port())];
    let mut text =
        docs_under_test::read("recipes/haproxy.cfg").replace("bind :80\n", &format!("bind 127.0.0.1:{front}\n"));
    for (address, (serves, asked)) in ["10.0.0.5:8080", "10.0.0.6:8080"].into_iter().zip(servers) {
        assert!(text.contains(address));
        text = text.replace(address, &format!("127.0.0.1:{serves} port {asked}"));
    }
    let start = |name: &str, (serves, asked): (u16, u16)| -> CandidateProcess {
        fs::create_dir(workspace.path(name)).expect("created");
        fs::write(workspace.path(name).join("who"), name).expect("written");
        // The recipe's comment, with ports of this test.
        let line = format!(
            "elect run -b web --listen 127.0.0.1:{asked} -- python3 -m http.server {serves} -b 127.0.0.1 -d {name}"
        );
        workspace.types(&format!("exec {line}")).start()
    };
    let first = start("first", servers[0]);
    first.wait_for_log("leader command started");
    let second = start("second", servers[1]);
    second.wait_for_log("waiting: ");
    let _haproxy = Haproxy::with(&workspace.sandbox, front, &text);
    // At its start haproxy takes both for healthy; then it sends to nobody but the leader.
    let answers =
        |name: &str| (0..20).all(|_| http_client::get(front, "/who").is_ok_and(|answer| answer.ends_with(name)));
    until("the first answers", || answers("first"));
    first.terminate();
    until("the second answers", || answers("second"));
    second.terminate();
}
