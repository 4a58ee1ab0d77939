//! The costs of elect beside those of its peers, in the same run and on the same servers: figures, not verdicts.
//!
//! ```text
//! cargo bench --bench cost                          # everything: half an hour
//! cargo bench --bench cost -- start redis           # some measurements on some stores
//! cargo bench --bench cost -- write                 # from the results so far: docs/measured.md and docs/cost.svg
//! ```
//!
//! Measurements: start, handover, killed, idle, herd, boundaries. Each result is kept in `target/bench/cost.json`, by its name, until
//! it is measured again. `ELECT_TEST_BINARY` names another program than the one of this profile, `ELECT_BENCH_RUNS` how often.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table for people, and the last words of servers")]

#[path = "../../tests/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the servers of the tests, of which some parts are of use here")]
mod harness;

#[path = "../../tests/etcd/server.rs"]
#[allow(dead_code, reason = "as above")]
mod etcd_server;
#[path = "../../tests/kubernetes/double/mod.rs"]
mod kubernetes_double;
#[path = "../../tests/mongodb/server.rs"]
#[allow(dead_code, reason = "as above")]
mod mongodb_server;
#[path = "../../tests/postgres/server.rs"]
#[allow(dead_code, reason = "as above")]
mod postgres_server;
#[path = "../../tests/redis/server.rs"]
#[allow(dead_code, reason = "as above")]
mod redis_server;

mod contest;
mod crowds;
mod idle;
mod report;
mod stamp;
mod stores;

use contest::{handovers, killed, starts};
use crowds::{boundaries, herd};
use report::Results;
use stores::{STORE_NAMES, Server};

/// No store of the harness's own list is used.
const STORES: &[&harness::store_fixtures::StoreEntry] = &[];

const MEASUREMENTS: [&str; 6] = ["start", "handover", "killed", "idle", "herd", "boundaries"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // cargo test builds and starts this too, and has no use for figures.
    if !words.iter().any(|word| word == "--bench") {
        return;
    }
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let known = |word: &&&str| MEASUREMENTS.contains(*word) || STORE_NAMES.contains(*word) || **word == "write";
    if let Some(unknown) = words.iter().find(|word| !known(word)) {
        println!("{unknown} is neither a measurement ({MEASUREMENTS:?}) nor a store ({STORE_NAMES:?}), nor write");
        std::process::exit(2);
    }
    let mut results = Results::read();
    if words == ["write"] {
        return results.write_documents();
    }
    let chosen = |all: &'static [&str]| -> Vec<&'static str> {
        let named: Vec<&str> = all.iter().copied().filter(|name| words.contains(name)).collect();
        if named.is_empty() { all.to_vec() } else { named }
    };
    let measurements = chosen(&MEASUREMENTS);
    for store in chosen(&STORE_NAMES) {
        let server = Server::start(store);
        for measurement in &measurements {
            let measured = match *measurement {
                "start" => starts(&server),
                "handover" => handovers(&server),
                "killed" => killed(&server),
                "idle" => idle::idle(&server),
                "herd" => herd(&server),
                _ => boundaries(&server),
            };
            results.keep(measured);
        }
    }
    if words.contains(&"write") {
        results.write_documents();
    }
}
