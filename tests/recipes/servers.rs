//! What stands in front: a load balancer.

use std::fs;

use super::Desk;
use crate::harness::haproxy::Haproxy;
use crate::harness::{Candidate, manual, page, ports::free_port, tool, until};

#[test]
fn haproxy_takes_its_configuration_and_not_a_broken_one() {
    let file = manual::root().join("recipes/haproxy.cfg");
    tool::attempt(["haproxy", "-c", "-f", file.to_str().expect("plain text")]).expect("haproxy checks it");
    let desk = Desk::new();
    let broken = desk.path("haproxy.cfg");
    fs::write(&broken, manual::read("recipes/haproxy.cfg").replace("default_backend leader", "default_backend nobody"))
        .expect("written");
    tool::attempt(["haproxy", "-c", "-f", broken.to_str().expect("plain text")]).expect_err("there is no such backend");
}

#[test]
fn haproxy_sends_to_the_leader() {
    let desk = Desk::new();
    let front = free_port();
    let servers = [(free_port(), free_port()), (free_port(), free_port())];
    let mut text = manual::read("recipes/haproxy.cfg").replace("bind :80\n", &format!("bind 127.0.0.1:{front}\n"));
    for (address, (serves, asked)) in ["10.0.0.5:8080", "10.0.0.6:8080"].into_iter().zip(servers) {
        assert!(text.contains(address));
        text = text.replace(address, &format!("127.0.0.1:{serves} port {asked}"));
    }
    let start = |name: &str, (serves, asked): (u16, u16)| -> Candidate {
        fs::create_dir(desk.path(name)).expect("created");
        fs::write(desk.path(name).join("who"), name).expect("written");
        // README's comment, with ports of this test.
        let line = format!(
            "elect run -b web --listen 127.0.0.1:{asked} -- python3 -m http.server {serves} -b 127.0.0.1 -d {name}"
        );
        desk.types(&format!("exec {line}")).start()
    };
    let first = start("first", servers[0]);
    first.says("leader command started");
    let second = start("second", servers[1]);
    second.says("waiting: ");
    let _haproxy = Haproxy::with(&desk.place, front, &text);
    // At its start haproxy takes both for healthy; then it sends to nobody but the leader.
    let answers = |name: &str| (0..20).all(|_| page::get(front, "/who").is_ok_and(|answer| answer.ends_with(name)));
    until("the first answers", || answers("first"));
    first.stops();
    until("the second answers", || answers("second"));
    second.stops();
}
