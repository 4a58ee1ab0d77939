//! Redis as its users meet it: real servers, real cuts, real failovers.

mod access;
mod asking;
mod epochs;
mod floods;
mod leases;
mod load;
mod memory;
mod replicas;
mod sentinels;
mod troubles;

use std::time::Duration;

use crate::harness::redis::Redis;
use crate::harness::server::Server;
use crate::harness::wait::until;
use crate::harness::{Candidate, Elect, Place, Witness};
use crate::leases::candidate_for;

fn elect(place: &Place, redis: &Redis, ttl: &str) -> Elect {
    candidate_for(place, redis.url_for(place), ttl).witness(&Witness::new())
}

/// The key of this place's boundary.
fn key(place: &Place) -> String {
    format!("{}:cron", place.path().file_name().expect("a directory has a name").to_string_lossy())
}

/// The first record of a boundary is waited for; not here, where that would take a minute. As if somebody had led before, and
/// released: in this life of the server, unless it is started again.
fn led_before(place: &Place, redis: &Redis) {
    let first = candidate_for(place, redis.url_for(place), "2200ms").command(["true"]).run();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
}

/// A leader, and a candidate that waits for it.
struct Pair {
    place: Place,
    leader: Candidate,
    next: Candidate,
}

impl Pair {
    fn on(redis: &Redis, [leader, next]: [&str; 2]) -> Pair {
        let place = Place::new();
        led_before(&place, redis);
        let leader = elect(&place, redis, leader).start();
        place.starts(1);
        let next = elect(&place, redis, next).start();
        next.waits();
        Pair { place, leader, next }
    }

    /// Whatever happens is safe, and in the end both stop.
    #[track_caller]
    fn ends(self) {
        let Pair { place, leader, next } = self;
        place.history().is_safe();
        next.stops();
        leader.stops();
        place.history().is_safe();
        until("nothing is left", || place.running().is_empty());
    }
}

/// Longer than a candidate with the short ttl would wait by its own.
const SHORTLY: Duration = Duration::from_secs(7);
