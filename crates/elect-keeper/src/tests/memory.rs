//! The memory of keeper and campaigner (K3).

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::prctl::{set_dumpable, set_keepcaps};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setresuid};

use super::harness::*;
use super::health_checks::{LONG, TIERS};
use super::orphans::{use_up_descriptors, without_descriptors};
use crate::event_loop::rehearsal::CODE_OF_A_KILL;
use crate::{Containment, HealthScript, ToKeeper, clock, memory, release_startup_pages, sys};
use elect_core::{BackgroundHook, FromKeeper, Time};

const PAGE: usize = 4096;
/// The keeper's own memory: its stack, its lists, and the pages of its copy that it has written to.
const OWN_KILOBYTES_MAX: u64 = 768;

/// A part of a process's memory, as `/proc/<pid>/smaps` names it.
#[derive(Debug)]
struct Mapping {
    pages: std::ops::Range<usize>,
    name: String,
    is_code: bool,
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
            let is_code = words[1].contains('x');
            found.push(Mapping { pages: start / PAGE..end / PAGE, name, is_code, is_locked: false });
        } else if let (["VmFlags:", flags @ ..], Some(last)) = (&words[..], found.last_mut()) {
            last.is_locked = flags.contains(&"lo");
        }
    }
    // The kernel's own.
    found.retain(|mapping| !mapping.name.starts_with("[v"));
    found
}

/// The pages that a process has in its memory, of these, each with its place in the machine's.
fn resident(pid: i32, mappings: &[Mapping]) -> BTreeMap<usize, u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let pages = File::open(format!("/proc/{pid}/pagemap")).expect("a process that is there");
    let mut present = BTreeMap::new();
    for mapping in mappings {
        let mut entries = vec![0; mapping.pages.len() * 8];
        pages.read_exact_at(&mut entries, (mapping.pages.start * 8) as u64).expect("an entry for each page");
        let (entries, _) = entries.as_chunks();
        let entries = entries.iter().map(|entry| u64::from_ne_bytes(*entry));
        let there = mapping.pages.clone().zip(entries).filter(|(_, entry)| entry & PRESENT != 0);
        present.extend(there.map(|(page, entry)| (page, entry & FRAME)));
    }
    present
}

fn is_resident(pid: i32, address: usize) -> bool {
    let pages = address / PAGE..address / PAGE + 1;
    let mapping = Mapping { pages, name: String::new(), is_code: false, is_locked: false };
    !resident(pid, &[mapping]).is_empty()
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

fn kilobytes(pid: i32, field: &str) -> u64 {
    status_of(pid, field).trim_end_matches(" kB").trim().parse().expect("a number")
}

/// The kills that differ in what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    AtDeadline,
    ByOrder,
    /// The keeper can open no file.
    WithoutDescriptors,
    /// A background hook and a health check run too.
    WithAll,
    /// The tree was given time to stop.
    AfterStop,
}

const KILLS: [Kill; 5] = [Kill::AtDeadline, Kill::ByOrder, Kill::WithoutDescriptors, Kill::WithAll, Kill::AfterStop];

/// The whole program is not, which would cost several megabytes.
#[test]
fn all_that_killing_needs_is_there_and_locked_before_there_is_anything_to_kill() {
    for tier in TIERS {
        for kill in KILLS {
            println!("in the tier {tier:?}: {kill:?}");
            within(tier, |directory| kill_with_what_is_there(directory, tier, kill));
        }
    }
}

fn kill_with_what_is_there(directory: &Path, tier: Containment, kill: Kill) {
    let setting = script(directory, STUBBORN).contained(tier).scripts(|scripts| {
        scripts.on_change = Some("echo hook >&9; exec sleep 100".into());
        scripts.health = Some(HealthScript { script: "echo check >&9; exec sleep 100".into(), timeout: LONG });
    });
    if kill == Kill::WithoutDescriptors {
        use_up_descriptors();
    }
    let mut fixture = setting.fork();
    let keeper = fixture.keeper.pid();
    fixture.hears_no_more();
    has_what_killing_needs(keeper);
    if kill == Kill::AtDeadline {
        fixture.start_under_deadline(&["main", "grandchild"]);
    } else {
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
    }
    if kill == Kill::WithAll {
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.order_check(1);
        fixture.witness.hears(&["hook", "check"]);
    }
    if kill == Kill::WithoutDescriptors {
        without_descriptors(keeper);
    }
    until("it sleeps", || status_of(keeper, "State").starts_with('S'));
    let mappings = mappings(keeper);
    let before = resident(keeper, &mappings);
    match kill {
        Kill::AtDeadline => {}
        Kill::ByOrder | Kill::WithoutDescriptors | Kill::WithAll => fixture.send(&ToKeeper::Kill),
        Kill::AfterStop => {
            for message in [ToKeeper::Ping, ToKeeper::Stop { kill_at: clock::now() + SOON }] {
                fixture.send(&message);
            }
        }
    }
    while !matches!(fixture.answer(), FromKeeper::Empty { .. }) {}
    assert!(fixture.witness.is_gone());
    let after = resident(keeper, &mappings);
    let named = |page: &usize| {
        let mapping = mappings.iter().find(|mapping| mapping.pages.contains(page)).expect("one of them");
        (mapping.name.clone(), page - mapping.pages.start, mapping.pages.len())
    };
    let missing: Vec<_> = after.keys().filter(|page| !before.contains_key(page)).map(named).collect();
    assert!(missing.is_empty(), "{kill:?} needed pages that were not there: {missing:?}");
    let copied: Vec<_> =
        after.iter().filter(|(page, frame)| before[page] != **frame).map(|(page, _)| named(page)).collect();
    assert!(copied.is_empty(), "{kill:?} had pages copied: {copied:?}");
}

fn has_what_killing_needs(keeper: i32) {
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
    for function in CODE_OF_A_KILL {
        let page = function.addr() / PAGE;
        let code = mappings(keeper).into_iter().find(|mapping| mapping.pages.contains(&page)).expect("code");
        let missing: Vec<usize> = (code.pages.start.max(page - 8)..code.pages.end.min(page + 8))
            .filter(|page| !is_resident(keeper, page * PAGE))
            .collect();
        assert!(missing.is_empty(), "near {page:x}, in {code:?}: {missing:x?}");
    }
    assert!(!is_wholly_resident(keeper), "the whole program");
}

/// Whether all code of the program is.
fn is_wholly_resident(pid: i32) -> bool {
    let program = std::env::current_exe().expect("a path");
    let mut code = mappings(pid);
    code.retain(|mapping| mapping.is_code && Path::new(&mapping.name) == program);
    let pages: usize = code.iter().map(|mapping| mapping.pages.len()).sum();
    assert!(pages > 0);
    resident(pid, &code).len() == pages
}

#[test]
fn the_rehearsed_kill_of_a_leaf_kills_nothing() {
    within(Containment::Cgroup, |directory| {
        let mut fixture = script(directory, SLEEPER).contained(Containment::Cgroup).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.keeper.tier.rehearse_kill_of_leaves();
        std::thread::sleep(SOON);
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone());
        fixture.keeper.tier.kill_leaves();
        fixture.exited(killed(libc::SIGKILL, false));
    });
}

fn keep_no_capability_but_to_lock_memory() {
    const VERSION: u32 = 0x2008_0522;
    const CAP_IPC_LOCK: u32 = 1 << 14;
    let header = [VERSION, 0];
    // Effective, permitted, inheritable; the second half is for higher numbers.
    let capabilities = [CAP_IPC_LOCK, CAP_IPC_LOCK, 0, 0, 0, 0];
    // SAFETY: the kernel reads two and six numbers, as this version has them.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), capabilities.as_ptr()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The limit on processes leaves room for the keeper alone.
#[test]
fn a_keeper_that_cannot_rehearse_a_kill_locks_the_whole_program() {
    alone(|directory| {
        // Another test's processes would count.
        let user = Uid::from_raw(1_000_000_000 + std::process::id());
        std::fs::set_permissions(directory, Permissions::from_mode(0o777)).expect("its own");
        set_keepcaps(true).expect("kept");
        setresuid(user, user, user).expect("this test needs root");
        keep_no_capability_but_to_lock_memory();
        set_dumpable(true).expect("its memory can be looked at");
        setrlimit(Resource::RLIMIT_NPROC, 2, 2).expect("fewer");
        let fixture = script(directory, STUBBORN).fork();
        fixture.hears_no_more();
        assert!(is_wholly_resident(fixture.keeper.pid()));
    });
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

/// A page that is not written to soon after a fork is shared with the child for as long as that lives: frames of callers, and the heap.
#[test]
#[allow(clippy::large_stack_arrays, reason = "a frame of some pages")]
fn written_memory_that_is_held_is_shared_with_no_child() {
    alone(|_| {
        let mut frame = [7u8; 8 * PAGE];
        let mut heap = vec![7u8; 8 * PAGE];
        black_box((&mut frame, &mut heap));
        let pages = || {
            [&frame[..], &heap[..]].map(|memory| {
                let first = memory.as_ptr().addr().div_ceil(PAGE);
                let pages = first..first + 7;
                resident(own(), &[Mapping { pages, name: String::new(), is_code: false, is_locked: false }])
            })
        };
        // SAFETY: the child makes one system call.
        let child = match unsafe { sys::fork() }.expect("forked") {
            sys::Forked::Parent(child) => child,
            sys::Forked::Child => loop {
                nix::unistd::pause();
            },
        };
        let shared = pages();
        memory::hold_written();
        for (shared, held) in shared.iter().zip(&pages()) {
            assert_eq!(held.len(), 7);
            assert!(held.iter().all(|(page, place)| shared[page] != *place), "{shared:?} {held:?}");
        }
        assert!(black_box((&frame, &heap)).0.iter().chain(&heap).all(|&byte| byte == 7));
        signal(child, libc::SIGKILL);
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

/// The kernel would map 16 pages.
#[test]
fn a_page_that_is_used_after_the_start_brings_few_others() {
    const WINDOW: usize = 16;
    alone(|_| {
        release_startup_pages();
        let program = std::env::current_exe().expect("a path");
        let is_code = |mapping: &Mapping| mapping.is_code && Path::new(&mapping.name) == program;
        let code: Vec<Mapping> = mappings(own()).into_iter().filter(is_code).collect();
        let present = resident(own(), &code);
        let all = code[0].pages.start.next_multiple_of(WINDOW)..code[code.len() - 1].pages.end - WINDOW;
        let unused = all.step_by(WINDOW).find(|first| present.range(first..&(first + WINDOW)).next().is_none());
        let first = unused.expect("code that no test uses");
        // SAFETY: a page of code may be read.
        black_box(unsafe { std::ptr::with_exposed_provenance::<u8>((first + WINDOW / 2) * PAGE).read_volatile() });
        let window = [Mapping { pages: first..first + WINDOW, name: String::new(), is_code: true, is_locked: false }];
        let brought = resident(own(), &window).len();
        // The functions that look at them may use some.
        assert!((1..WINDOW).contains(&brought), "{brought}");
    });
}
