//! The memory that elect keeps: as little as it can for the campaigner, and for the keeper all that killing needs (K3).
//!
//! The code of elect has some 6 MB, of which a process needs a small part once it has started. The kernel maps code in blocks
//! of 64 kB around each page that is used, and a lock on everything would make all of it resident.

use std::ffi::{c_int, c_void};
use std::io;

use super::sys::errno;

/// As much of the stack as the keeper uses, with a reserve.
const STACK_BYTES: usize = 48 * 1024;
/// The distance from the present end of the stack below which nothing is kept.
const STACK_BYTES_KEPT: usize = 16 * 1024;
const PAGE_BYTES: usize = 4096;

/// Locks the pages that this process has, and each further one from when it is used first. Memory that is mapped later is not
/// locked, so that no allocation fails for the limit on locked memory.
///
/// # Errors
///
/// The limit on locked memory is too low.
pub fn lock() -> io::Result<()> {
    // SAFETY: the call reads and writes no memory of this process.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) } {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(errno())),
    }
}

/// Has the kernel give the part of the stack that the keeper may need.
#[inline(never)]
pub fn touch_stack() {
    let mut stack = [0u8; STACK_BYTES];
    for page in stack.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    std::hint::black_box(&mut stack);
}

/// Gives back the pages that only the start needed: code, constants, and the stack below the present function. All of them come
/// back, unchanged, when they are used again. Must be called by the main thread.
pub fn release_startup_pages() {
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
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let (Ok(start), Ok(bytes)) = (usize::try_from(base + header.p_vaddr), usize::try_from(header.p_memsz)) else {
            continue;
        };
        release(start.next_multiple_of(PAGE_BYTES), start + bytes);
    }
    // No further object.
    1
}

fn release_stack() {
    let here = 0u8;
    let here = (&raw const here).addr();
    // The main thread's stack is one mapping, whose lower end the kernel moves; a page that is not there is no error.
    let Some(lowest) = stack_start() else { return };
    if lowest < here {
        release(lowest, here.saturating_sub(STACK_BYTES_KEPT));
    }
}

/// The lower end of the main thread's stack.
fn stack_start() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    usize::from_str_radix(line.split('-').next()?, 16).ok()
}

/// Gives back the whole pages between two addresses of this process.
fn release(start: usize, end: usize) {
    let end = end / PAGE_BYTES * PAGE_BYTES;
    if start < end {
        // SAFETY: the callers pass code and constants, which the kernel reads again from the file of the program, or stack
        // below every live frame. A page size other than that makes the call fail.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
    }
}
