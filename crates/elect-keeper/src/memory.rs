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

/// Gives back the pages that only the start needed: code, constants, and the stack below the present function. All of them come
/// back, unchanged, when they are used again.
pub fn release_startup_pages() {
    // Ranges are rounded to pages of the usual size; a larger one could hold something else as well.
    if !matches!(sysconf(SysconfVar::PAGE_SIZE), Ok(Some(bytes)) if usize::try_from(bytes) == Ok(PAGE_BYTES)) {
        return;
    }
    // SAFETY: the callback has the demanded signature, and keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
    release_stack();
}

/// For the program itself, which comes first, and for no library: those are shared with other programs.
unsafe extern "C" fn release_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid structure, whose headers are an array of that length.
    let (base, headers) = unsafe {
        let info = &*info;
        let count = usize::from(info.dlpi_phnum);
        if info.dlpi_phdr.is_null() {
            return 1;
        }
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, count))
    };
    // What the loader has written to is in a segment that may be written to.
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let (Ok(start), Ok(bytes)) = (usize::try_from(base + header.p_vaddr), usize::try_from(header.p_memsz)) else {
            continue;
        };
        release(start..start + bytes);
    }
    // No further object.
    1
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
    }
}
