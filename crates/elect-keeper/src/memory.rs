//! The memory that elect keeps: as little as it can for the campaigner, and for the keeper all that killing needs (K3).
//!
//! The code of elect has some 6 MB, of which a process needs a small part once it has started. The kernel maps code in blocks
//! of 64 kB around each page that is used, and a lock on everything would make all of it resident.

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::io;
use std::ops::Range;

use nix::unistd::{SysconfVar, sysconf};

use super::sys::errno;

/// As much of the stack as the keeper uses, with a reserve.
const STACK_BYTES: usize = 48 * 1024;
/// The distance from the present end of the stack below which nothing is kept.
const STACK_BYTES_KEPT: usize = 16 * 1024;
/// Pages about which the kernel is asked at once whether they are there.
const RESIDENCE_PAGES: usize = 1024;
/// The distance from a function within which the code belongs to it, or to its neighbours.
const NEAR_BYTES: usize = 64 * 1024;
/// Code is mapped in blocks of this size once the start is over.
const BLOCK_BYTES: usize = 4 * PAGE_BYTES;
/// Of the machines on which pages are given back.
const PAGE_BYTES: usize = 4096;

/// Locks the pages that this process has, and each further one from when it is used first. Memory that is mapped later is not
/// locked, so that no allocation fails for the limit on locked memory.
///
/// # Errors
///
/// The limit on locked memory is too low.
pub fn lock() -> io::Result<()> {
    let locked = lock_with(libc::MCL_CURRENT | libc::MCL_ONFAULT);
    if locked.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL)) {
        // Linux before 4.4.
        return lock_all();
    }
    locked
}

/// Makes all pages that this process may use resident, and locks them.
///
/// # Errors
///
/// The limit on locked memory is too low, or the machine has less memory.
pub fn lock_all() -> io::Result<()> {
    lock_with(libc::MCL_CURRENT)
}

fn lock_with(flags: c_int) -> io::Result<()> {
    // SAFETY: the call reads and writes no memory of this process.
    match unsafe { libc::mlockall(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(errno())),
    }
}

/// Writes to each page, and changes nothing: the kernel has given all of it then, and this process shares none of it with its
/// parent or with a child, until it forks the next one.
pub fn hold<T: Copy>(memory: &mut [T]) {
    let in_a_page = (PAGE_BYTES / size_of::<T>().max(1)).max(1);
    let last = memory.len().saturating_sub(1);
    for index in (0..memory.len()).step_by(in_a_page).chain([last]) {
        if let Some(place) = memory.get_mut(index) {
            let place = black_box(place);
            *place = black_box(*place);
        }
    }
}

/// The same for the part of the stack that the keeper may need. Called before [`lock`]: a locked stack does not grow beyond the
/// limit on locked memory.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "to use so much of the stack is its purpose")]
pub fn hold_stack() {
    let mut stack = [0u8; STACK_BYTES];
    hold(black_box(&mut stack));
}

/// The same for all memory of this process that it has written to and shares with nothing but a copy of itself: heap, stack,
/// variables. Linux before 5.14 has no call for it: there a page is copied when it is written to.
pub fn hold_written() {
    let page = page_bytes();
    for mapping in writable_mappings(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        let mut is_there = [0u8; RESIDENCE_PAGES];
        for start in mapping.clone().step_by(RESIDENCE_PAGES * page) {
            let bytes = (mapping.end - start).min(RESIDENCE_PAGES * page);
            // SAFETY: the kernel writes one byte for each of so many pages.
            if unsafe { libc::mincore(std::ptr::without_provenance_mut(start), bytes, is_there.as_mut_ptr()) } != 0 {
                continue;
            }
            let mut first = start;
            for pages in is_there[..bytes / page].chunk_by(|one, next| one & 1 == next & 1) {
                let run = first..first + pages.len() * page;
                if pages[0] & 1 != 0 && !own(run.clone()) && errno() != libc::EINVAL {
                    // The kernel stops at a page that fails.
                    for start in run.clone().step_by(page) {
                        own(start..start + page);
                    }
                }
                first = run.end;
            }
        }
    }
}

/// Makes pages that may be written to this process's own, as a write would. Returns whether that has succeeded.
fn own(pages: Range<usize>) -> bool {
    let address = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: this changes no byte.
    unsafe { libc::madvise(address, pages.len(), libc::MADV_POPULATE_WRITE) == 0 }
}

/// Where this process may write, and no other process sees it.
fn writable_mappings(maps: &str) -> impl Iterator<Item = Range<usize>> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16));
        words.next()?.starts_with("rw-p").then_some(start.ok()?..end.ok()?)
    })
}

fn page_bytes() -> usize {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(PAGE_BYTES)
}

/// Reads a byte of each page of the program's code that is near one of these functions: so its seldom used parts are there too,
/// whatever the kernel maps around a page that is used, and those of its neighbours, which belong to the same module.
pub fn use_code_near(functions: &[usize]) {
    let mut code: Range<usize> = 0..0;
    // SAFETY: the callback has the demanded signature, and writes to the range that it is given.
    unsafe { libc::dl_iterate_phdr(Some(find_code), (&raw mut code).cast()) };
    for function in functions.iter().filter(|function| code.contains(function)) {
        let near = function.saturating_sub(NEAR_BYTES).max(code.start)..(function + NEAR_BYTES).min(code.end);
        for address in near.step_by(PAGE_BYTES) {
            // SAFETY: the segment of the code is mapped from its first byte to its last, and may be read.
            black_box(unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() });
        }
    }
}

/// Finds the code of the program itself, which comes first.
unsafe extern "C" fn find_code(info: *mut libc::dl_phdr_info, _: usize, code: *mut c_void) -> c_int {
    const READ_AND_EXECUTE: u32 = libc::PF_R | libc::PF_X;
    // SAFETY: the loader passes a valid structure, and the caller a place for a range.
    let (segments, code) = unsafe { (segments_of(info), &mut *code.cast::<Range<usize>>()) };
    let executed = segments.into_iter().flatten().find(|(flags, _)| flags & READ_AND_EXECUTE == READ_AND_EXECUTE);
    if let Some((_, found)) = executed {
        *code = found;
    }
    // No further object.
    1
}

/// The segments of an object, each with its rights and its addresses.
///
/// # Safety
///
/// The loader has passed this structure.
unsafe fn segments_of(info: *mut libc::dl_phdr_info) -> Option<impl Iterator<Item = (u32, Range<usize>)>> {
    // SAFETY: the structure is valid, and its headers are an array of that length.
    let (base, headers) = unsafe {
        let info = &*info;
        if info.dlpi_phdr.is_null() {
            return None;
        }
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    Some(loaded.filter_map(move |header| {
        let start = usize::try_from(base + header.p_vaddr).ok()?;
        Some((header.p_flags, start..start + usize::try_from(header.p_memsz).ok()?))
    }))
}

/// Gives back the pages that only the start needed: code, constants, and the stack below the present function. All of them come
/// back, unchanged, when they are used again.
pub fn release_startup_pages() {
    // Ranges are rounded to pages of the usual size; a larger one could hold something else as well.
    if page_bytes() != PAGE_BYTES {
        return;
    }
    // SAFETY: the callback has the demanded signature, and keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
    release_stack();
}

/// For the program itself, which comes first, and for no library: those are shared with other programs.
unsafe extern "C" fn release_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid structure.
    let segments = unsafe { segments_of(info) };
    // The places that the loader has written to are in a segment that may be written to.
    for (_, segment) in segments.into_iter().flatten().filter(|(flags, _)| flags & libc::PF_W == 0) {
        divide(segment.clone());
        release(segment);
    }
    // No further object.
    1
}

/// Divides code or constants into mappings of a few pages each. Around a page that is used the kernel maps up to 64 kB, but nothing
/// beyond the mapping; of a program whose parts are used here and there it would map most again. Neighbours that are alike
/// become one mapping, so every other block is left out of core dumps, which have no code anyway. Not for the keeper: the more
/// of its code is there, the better.
fn divide(range: Range<usize>) {
    let end = range.end / PAGE_BYTES * PAGE_BYTES;
    for start in (range.start.next_multiple_of(BLOCK_BYTES)..end).step_by(2 * BLOCK_BYTES) {
        let bytes = BLOCK_BYTES.min(end - start);
        // SAFETY: it changes no byte, and no right to read, write or execute one.
        if unsafe { libc::madvise(std::ptr::without_provenance_mut(start), bytes, libc::MADV_DONTDUMP) } != 0 {
            // Too many mappings: what is divided stays so.
            return;
        }
    }
}

/// Gives back the part of the stack below the present function, as far as it is the main thread's.
pub fn release_stack() {
    let here = 0u8;
    let here = (&raw const here).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    if let Some(unused) = unused_stack(&maps, here) {
        release(unused);
    }
}

/// The part of the main thread's stack that lies below a function of that thread; `None` in another thread.
fn unused_stack(maps: &str, here: usize) -> Option<Range<usize>> {
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let [start, end] = [start, end].map(|end| usize::from_str_radix(end, 16));
    let stack = start.ok()?..end.ok()?;
    let unused = stack.start..here.checked_sub(STACK_BYTES_KEPT)?;
    (stack.contains(&here) && !unused.is_empty()).then_some(unused)
}

/// Gives back the whole pages in a range of addresses of this process.
fn release(range: Range<usize>) {
    let (start, end) = (range.start.next_multiple_of(PAGE_BYTES), range.end / PAGE_BYTES * PAGE_BYTES);
    if start < end {
        // SAFETY: the callers pass code and constants, which the kernel reads again from the file of the program, or stack
        // below every live frame.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stack_is_given_back_but_that_of_the_thread_itself() {
        let maps = "\
55d0c0a00000-55d0c0b00000 r-xp 00000000 08:01 1 /usr/bin/elect
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
7ffe00000000-7ffe00040000 rw-p 00000000 00:00 0                          [stack]
7ffe000fe000-7ffe00100000 r-xp 00000000 00:00 0                          [vdso]
";
        assert_eq!(unused_stack(maps, 0x7ffe_0003_f000), Some(0x7ffe_0000_0000..0x7ffe_0003_b000));
        for elsewhere in [0x7f00_000f_f000, 0x7ffe_0004_0000, 0x7ffe_000f_f000, 0x7ffe_0000_1000, 0x1000] {
            assert_eq!(unused_stack(maps, elsewhere), None, "{elsewhere:x}");
        }
        assert_eq!(unused_stack("", 0x7ffe_0003_f000), None);
        let writable: Vec<_> = writable_mappings(maps).collect();
        assert_eq!(writable, [0x7f00_0000_0000..0x7f00_0010_0000, 0x7ffe_0000_0000..0x7ffe_0004_0000]);
    }
}
