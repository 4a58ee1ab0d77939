//! The memory of keeper and campaigner (K3).

use std::collections::BTreeSet;
use std::fs::File;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::harness::*;
use crate::containment::Tier;
use crate::tree::Scanner;
use crate::{Containment, ToKeeper, clock, memory, release_startup_pages, sys};
use elect_core::{FromKeeper, KeeperMachine, Time};

const PAGE: usize = 4096;
/// The keeper's own memory: its stack, its lists, and the pages of its copy that it has written to.
const OWN_KILOBYTES_MAX: u64 = 768;

/// A part of a process's memory, as `/proc/<pid>/smaps` names it.
#[derive(Debug)]
struct Mapping {
    pages: std::ops::Range<usize>,
    name: String,
    is_locked: bool,
}

fn mappings(pid: i32) -> Vec<Mapping> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a process that is there");
    let mut found: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = words[0].split_once('-').map(|(start, end)| [start, end].map(|end| usize::from_str_radix(end, 16)));
        if let Some([Ok(start), Ok(end)]) = ends {
            let name = words.get(5).copied().unwrap_or_default().to_owned();
            found.push(Mapping { pages: start / PAGE..end / PAGE, name, is_locked: false });
        } else if let (["VmFlags:", flags @ ..], Some(last)) = (&words[..], found.last_mut()) {
            last.is_locked = flags.contains(&"lo");
        }
    }
    // The kernel's own.
    found.retain(|mapping| !mapping.name.starts_with("[v"));
    found
}

/// The pages that a process has in its memory, of these.
fn resident(pid: i32, mappings: &[Mapping]) -> BTreeSet<usize> {
    const PRESENT: u64 = 1 << 63;
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("a process that is there");
    let mut present = BTreeSet::new();
    for mapping in mappings {
        let mut entries = vec![0; mapping.pages.len() * 8];
        pages.read_exact_at(&mut entries, (mapping.pages.start * 8) as u64).expect("an entry for each page");
        let (entries, _) = entries.as_chunks();
        let there = mapping.pages.clone().zip(entries).filter(|(_, entry)| u64::from_ne_bytes(**entry) & PRESENT != 0);
        present.extend(there.map(|(page, _)| page));
    }
    present
}

fn is_resident(pid: i32, address: usize) -> bool {
    let mapping = Mapping { pages: address / PAGE..address / PAGE + 1, name: String::new(), is_locked: false };
    !resident(pid, &[mapping]).is_empty()
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

fn kilobytes(pid: i32, field: &str) -> u64 {
    status_of(pid, field).trim_end_matches(" kB").trim().parse().expect("a number")
}

/// The whole program is not, which would cost several megabytes.
#[test]
fn all_that_killing_needs_is_there_and_locked_before_there_is_anything_to_kill() {
    for by_order in [false, true] {
        within(Containment::Cgroup, |directory| {
            let mut fixture = script(directory, STUBBORN).contained(Containment::Cgroup).fork();
            let keeper = fixture.keeper.pid();
            fixture.hears_no_more();
            // The copy that it was made from has what other tests have left.
            let (copied, own) = (kilobytes(own(), "RssAnon"), kilobytes(keeper, "RssAnon"));
            note(&format!(
                "figures: the keeper has {} kB, {} kB of them code, {own} kB its own",
                kilobytes(keeper, "VmRSS"),
                kilobytes(keeper, "RssFile"),
            ));
            assert!(own < copied + OWN_KILOBYTES_MAX, "its own memory: {own} kB, of a process with {copied} kB");
            let unlocked: Vec<Mapping> = mappings(keeper).into_iter().filter(|mapping| !mapping.is_locked).collect();
            assert!(unlocked.is_empty(), "not locked: {unlocked:?}");
            for (step, code) in [
                ("the decision", KeeperMachine::handle as *const () as usize),
                ("the kill", Tier::kill as *const () as usize),
                ("the walk", Scanner::kill as *const () as usize),
                ("the kill of a leaf", Tier::kill_leaves as *const () as usize),
                ("the kill of a batch", Tier::kill_slice as *const () as usize),
                ("the signal", sys::kill as *const () as usize),
                ("the reaping", sys::reap as *const () as usize),
            ] {
                assert!(is_resident(keeper, code), "{step}");
            }
            fixture.arm(TERM, if by_order { Time::NEVER } else { clock::now() + SOON });
            fixture.start_until(&["main", "grandchild"]);
            until("it sleeps", || status_of(keeper, "State").starts_with('S'));
            let mappings = mappings(keeper);
            let before = resident(keeper, &mappings);
            if by_order {
                fixture.send(&ToKeeper::Kill);
            } else {
                fixture.hears(FromKeeper::Expired { term: TERM });
            }
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();
            let missing: Vec<(&str, usize)> = resident(keeper, &mappings)
                .difference(&before)
                .map(|page| {
                    let mapping = mappings.iter().find(|mapping| mapping.pages.contains(page)).expect("one of them");
                    (mapping.name.as_str(), page - mapping.pages.start)
                })
                .collect();
            assert!(missing.is_empty(), "the kill needed pages that were not there: {missing:?}");
        });
    }
}

#[test]
fn memory_that_is_held_is_there_and_unchanged() {
    alone(|_| {
        let size = NonZeroUsize::new(64 * PAGE).expect("not zero");
        let flags = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping of that size, which is never removed.
        let bytes: &mut [u8] = unsafe {
            let fresh = mmap_anonymous(None, size, flags.0, flags.1).expect("memory");
            std::slice::from_raw_parts_mut(fresh.cast().as_ptr(), size.get())
        };
        let first = bytes.as_ptr().addr();
        assert!(
            (0..64).all(|page| !is_resident(own(), first + page * PAGE)),
            "the kernel gives none before it is used"
        );
        memory::hold(bytes);
        assert!((0..64).all(|page| is_resident(own(), first + page * PAGE)));
        assert!(bytes.iter().all(|&byte| byte == 0));
        memory::hold::<u64>(&mut []);
        let mut odd = [1u8, 2, 3];
        memory::hold(&mut odd);
        assert_eq!(odd, [1, 2, 3]);
    });
}

/// Uses so much of the stack.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "to use so much of the stack is its purpose")]
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
        let is_main_thread =
            mappings(own()).iter().any(|mapping| mapping.name == "[stack]" && mapping.pages.contains(&(below / PAGE)));
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
