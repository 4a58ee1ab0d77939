//! Starts a program for which the kernel refuses some system calls, as a filter of a container runtime does.
//!
//! `refusing clone3=ENOSYS close_range=EPERM -- elect run …`

#![expect(unsafe_code, reason = "a filter is installed by a system call without a safe wrapper")]

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// Parses a system call and the error that it returns.
fn parsed(word: &str) -> Option<(u32, u32)> {
    let (call, error) = word.split_once('=')?;
    let call = match call {
        "clone3" => libc::SYS_clone3,
        "clone" => libc::SYS_clone,
        "close_range" => libc::SYS_close_range,
        _ => return None,
    };
    let error = match error {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        "EAGAIN" => libc::EAGAIN,
        _ => return None,
    };
    Some((u32::try_from(call).ok()?, u32::try_from(error).ok()?))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(end) = words.iter().position(|word| word == "--") else { return ExitCode::from(2) };
    let Some(refused) = words[..end].iter().map(|word| parsed(word)).collect::<Option<Vec<_>>>() else {
        return ExitCode::from(2);
    };
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("sixteen bits"),
        jt,
        jf,
        k,
    };
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (call, error) in refused {
        filter.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error, 0, 0));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).expect("a short filter"), filter: filter.as_mut_ptr() };
    let words: Vec<CString> = std::env::args_os()
        .skip(end + 2)
        .map(|word| CString::new(word.into_vec()).expect("a word of a command line"))
        .collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: the filter and the strings live until exec; the array ends in a null pointer.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
        {
            return ExitCode::from(3);
        }
        libc::execvp(pointers[0], pointers.as_ptr());
    }
    ExitCode::from(127)
}
