//! The memory of keeper and campaigner (K3).

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use super::harness::*;
use crate::containment::Tier;
use crate::tree::Scanner;
use crate::{release_startup_pages, sys};
use elect_core::KeeperMachine;

/// Whether a process has the page of this address in its memory.
fn is_resident(pid: i32, address: usize) -> bool {
    const PRESENT: u64 = 1 << 63;
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("a process that is there");
    let mut entry = [0; 8];
    pages.read_exact_at(&mut entry, (address / 4096 * 8) as u64).expect("an entry");
    u64::from_ne_bytes(entry) & PRESENT != 0
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

/// The whole program is not, which would cost several megabytes.
#[test]
fn all_that_killing_needs_is_there_and_locked_before_there_is_anything_to_kill() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.hears_no_more();
        let keeper = fixture.keeper.pid();
        until("it sleeps", || status_of(keeper, "State").starts_with('S'));
        let steps = [
            ("the walk", Scanner::kill as *const () as usize),
            ("the kill", Tier::kill as *const () as usize),
            ("the signal", sys::kill as *const () as usize),
            ("the decision", KeeperMachine::handle as *const () as usize),
        ];
        for (step, address) in steps {
            assert!(is_resident(keeper, address), "{step}");
        }
        let kilobytes =
            |field: &str| -> u64 { status_of(keeper, field).trim_end_matches(" kB").trim().parse().expect("a number") };
        assert!(kilobytes("VmLck") > 0, "locked");
        note(&format!("figures: the keeper has {} kB, {} kB of it code", kilobytes("VmRSS"), kilobytes("RssFile")));
        assert!(kilobytes("RssAnon") < 1536, "its own memory: {} kB", kilobytes("RssAnon"));
    });
}

/// Uses so much of the stack.
#[inline(never)]
fn deep(bytes: &mut usize) {
    let mut stack = [0u8; 256 * 1024];
    black_box(&mut stack);
    *bytes += stack.len();
}

#[test]
fn pages_that_only_the_start_needed_are_given_back_and_come_back_unchanged() {
    alone(|_| {
        let mut bytes = 0;
        deep(&mut bytes);
        let here = 0u8;
        let below = (&raw const here).addr() - 128 * 1024;
        let code = deep as *const () as usize;
        let is_main_thread = std::fs::read_to_string("/proc/self/maps").expect("read").lines().any(|line| {
            let mut ends = line.split([' ', '-']).map(|end| usize::from_str_radix(end, 16).unwrap_or_default());
            line.ends_with("[stack]") && ends.next() <= Some(below) && ends.next() > Some(below)
        });
        assert!(is_resident(own(), below) && is_resident(own(), code));
        let text = "constants stay what they are";
        release_startup_pages();
        // The thread of a test has a stack that is a mapping like any other.
        assert_eq!(is_resident(own(), below), !is_main_thread, "the stack below");
        deep(&mut bytes);
        assert_eq!((bytes, text.len()), (512 * 1024, 28));
        assert!(is_resident(own(), code), "used again");
    });
}
