//! MongoDB as its users meet it: real servers, alone, as a set of one and as sets of three, real cuts, real elections.

mod access;
mod asking;
mod clock;
mod housekeeping;
mod leases;
mod load;
mod records;
mod replicas;

use std::time::Duration;

use crate::harness::server::Server;
use crate::harness::wait::until;
use crate::harness::{Candidate, Elect, Place, Witness};
use crate::leases::candidate_for;

fn elect(place: &Place, server: &impl Server, ttl: &str) -> Elect {
    candidate_for(place, server.url_for(place), ttl).witness(&Witness::new())
}

/// A leader, and a candidate that waits for it.
struct Pair {
    place: Place,
    leader: Candidate,
    next: Candidate,
}

impl Pair {
    fn on(server: &impl Server, ttl: &str) -> Pair {
        let place = Place::new();
        let leader = elect(&place, server, ttl).start();
        place.starts(1);
        let next = elect(&place, server, ttl).start();
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

/// Longer than a candidate with a ttl of 3 s would wait for a record that nobody touches.
const SHORTLY: Duration = Duration::from_secs(4);
