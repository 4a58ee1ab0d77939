//! Hosts of their own, as network namespaces, each on a cable that can be cut without either end noticing.
//!
//! ```text
//! lo: 198.18.N.1 (the servers) ── veth electN-0 ═════ eth0: 198.18.N.10 (host 0)
//!                               └ veth electN-1 ═════ eth0: 198.18.N.11 (host 1)
//! ```
//!
//! Both ends know each other's hardware address from a fixed entry. To cut a direction, the sender's entry is given an
//! address that nobody has: it sends, its interface stays up, and nothing arrives. That takes no packet filter and no
//! queueing discipline, which not every kernel has.

use std::sync::Mutex;

use super::host_tools::{as_root, attempt, clean_up, needs_root};
use super::proxy::ProxyMode;

/// Outside, inside, and of nobody.
const OUTER: &str = "02:00:00:00:00:01";
const INNER: &str = "02:00:00:00:00:02";
const NOBODY: &str = "02:00:00:00:00:03";

/// `ip netns add` prepares its directory at first, and two at once get in each other's way.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Debug)]
pub struct Network {
    number: u8,
    hosts: Vec<String>,
}

impl Network {
    /// With hosts of these names.
    #[track_caller]
    pub fn of(hosts: &[&str]) -> Network {
        let start = u8::try_from(std::process::id() % 256).expect("below 256");
        let number = (0..=u8::MAX).map(|step| start.wrapping_add(step)).find(|&number| claim(number));
        let number = number.expect("one of so many networks is free");
        let mut network = Network { number, hosts: Vec::new() };
        for host in hosts {
            network.hosts.push((*host).to_owned());
            network.connect(network.hosts.len() - 1);
        }
        network
    }

    /// Where the test's own servers are seen, from here and from every host: for
    /// [`StoreServer::seen_at`](super::server::StoreServer::seen_at).
    pub fn address(&self) -> String {
        server(self.number)
    }

    /// The words before a command that shall run on that host. Only the network is another: files, processes and
    /// `/sys` stay (`ip netns exec` would mount another one).
    pub fn host(&self, name: &str) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace(self.index(name)))]
    }

    /// Sets which packets pass between that host and here: requests come from the host. TCP repeats lost packets.
    #[track_caller]
    pub fn mode(&self, host: &str, mode: ProxyMode) {
        assert!(mode != ProxyMode::Closed, "a cable cannot refuse");
        let index = self.index(host);
        let to = |passes: bool, end: &'static str| if passes { end } else { NOBODY };
        self.inside(
            index,
            &[
                "neighbour",
                "replace",
                &self.address(),
                "lladdr",
                to(mode.passes_requests(), OUTER),
                "nud",
                "permanent",
                "dev",
                "eth0",
            ],
        );
        let outside = ["ip", "neighbour", "replace", &self.client(index), "lladdr", to(mode.passes_answers(), INNER)];
        as_root(outside.into_iter().chain(["nud", "permanent", "dev", &self.cable(index)]));
    }

    fn connect(&self, index: usize) {
        let (namespace, cable, client) = (self.namespace(index), self.cable(index), self.client(index));
        {
            let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            as_root(["ip", "netns", "add", &namespace]);
        }
        let ends = ["type", "veth", "peer", "name", "eth0", "address", INNER, "netns", &namespace];
        as_root(["ip", "link", "add", &cable, "address", OUTER].into_iter().chain(ends));
        self.inside(index, &["link", "set", "lo", "up"]);
        self.inside(index, &["link", "set", "eth0", "up"]);
        self.inside(index, &["address", "add", &client, "dev", "eth0"]);
        self.inside(index, &["route", "add", &self.address(), "dev", "eth0"]);
        as_root(["ip", "link", "set", &cable, "up"]);
        as_root(["ip", "route", "add", &client, "dev", &cable]);
        self.mode(&self.hosts[index], ProxyMode::Open);
    }

    #[track_caller]
    fn inside(&self, index: usize, words: &[&str]) {
        as_root(["ip", "-netns", &self.namespace(index)].into_iter().chain(words.iter().copied()));
    }

    fn index(&self, name: &str) -> usize {
        self.hosts.iter().position(|host| host == name).expect("a host of this network")
    }

    fn namespace(&self, index: usize) -> String {
        format!("elect-{}-{index}", self.number)
    }

    fn cable(&self, index: usize) -> String {
        format!("elect{}-{index}", self.number)
    }

    fn client(&self, index: usize) -> String {
        format!("198.18.{}.{}", self.number, 10 + index)
    }
}

/// Of 198.18.0.0/15, which is set aside for tests of networks. Whoever adds the address first has it.
fn claim(number: u8) -> bool {
    match attempt(["ip", "address", "add", &server(number), "dev", "lo"]) {
        Ok(_) => true,
        // Older kernels say it the first way.
        Err(fault) if fault.contains("File exists") || fault.contains("already assigned") => false,
        Err(fault) => panic!("{}", needs_root(&fault)),
    }
}

fn server(number: u8) -> String {
    format!("198.18.{number}.1")
}

impl Drop for Network {
    fn drop(&mut self) {
        for index in 0..self.hosts.len() {
            clean_up(["ip", "link", "delete", &self.cable(index)]);
            clean_up(["ip", "netns", "delete", &self.namespace(index)]);
        }
        clean_up(["ip", "address", "delete", &format!("{}/32", self.address()), "dev", "lo"]);
    }
}
