//! Starting a command: its environment, and the reports of a failed start (K5, K8, K9).

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::harness::*;
use crate::ToKeeper;
use elect_core::{CommandEnd, FromKeeper, NotStarted, Time};

fn file(directory: &Path, text: &str, mode: u32) -> PathBuf {
    let path = directory.join("job");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    path
}

/// The fields after the name in `/proc/<pid>/stat`: state, parent, group, and so on.
fn stat_of(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read");
    let (_, fields) = stat.rsplit_once(") ").expect("fields after the name");
    fields.split_whitespace().map(str::to_owned).collect()
}

/// The descriptors of a process above 2. The loader opens some for a moment after exec.
fn open_above_two(pid: i32) -> Vec<(i32, PathBuf)> {
    let listed = fs::read_dir(format!("/proc/{pid}/fd")).expect("listed");
    let open = listed.filter_map(|entry| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    });
    open.filter(|(number, _)| *number > 2).collect()
}

fn sleeper(directory: &Path) -> Setting {
    program(directory, "/bin/sleep", &["sleep", "100"])
}

#[test]
fn what_cannot_be_executed_is_said_with_its_reason_and_leaves_nothing() {
    alone(|directory| {
        let refused = file(directory, "#!/bin/sh\n", 0o644);
        let no_interpreter = directory.join("no-interpreter");
        fs::write(&no_interpreter, "#!/no/such/shell\n").expect("written");
        fs::set_permissions(&no_interpreter, fs::Permissions::from_mode(0o755)).expect("set");
        for (number, (path, errno)) in [
            (directory.join("nothing"), libc::ENOENT),
            (refused, libc::EACCES),
            (no_interpreter, libc::ENOENT),
            (directory.to_owned(), libc::EACCES),
        ]
        .into_iter()
        .enumerate()
        {
            let place = directory.join(number.to_string());
            fs::create_dir(&place).expect("created");
            let mut fixture = program(&place, path, &["job"]).fork();
            fixture.arm(TERM, Time::NEVER);
            let run = fixture.order_start(TERM, &[]);
            fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(errno) });
            fixture.empty();
            fixture.hears_no_more();
        }
    });
}

#[test]
fn a_script_that_names_no_interpreter_is_one_for_the_shell() {
    alone(|directory| {
        let path = file(directory, "exec 9>\"$WITNESS\"; echo \"$0\" \"$@\" >&9; exit 5\n", 0o755);
        let mut fixture = program(directory, &path, &["job", "one", "two words"]).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        fixture.exited(CommandEnd::Exited(5));
        fixture.empty();
        assert_eq!(fixture.witness.line(), format!("{} one two words", path.display()));
    });
}

#[test]
fn a_word_with_a_nul_byte_is_refused() {
    alone(|directory| {
        let mut fixture = program(directory, "/bin/sleep", &["sleep", "1\0"]).fork();
        fixture.arm(TERM, Time::NEVER);
        let run = fixture.order_start(TERM, &[]);
        fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::EINVAL) });
        fixture.empty();
    });
}

#[test]
fn its_own_identity_replaces_an_inherited_one_and_what_is_unknown_is_unset() {
    alone(|directory| {
        // SAFETY: this process has one thread.
        unsafe {
            std::env::set_var("ELECT_ID", "another's");
            std::env::set_var("ELECT_LEADER_PORT", "another's");
            std::env::set_var("WITNESS", "another's");
            std::env::set_var("KEPT", "yes");
        }
        let mut fixture = sleeper(directory).fork();
        fixture.arm(TERM, Time::NEVER);
        let run = fixture.order_start(TERM, &[("ELECT_ID", "mine"), ("ELECT_TERM", "7"), ("ELECT_NAME", "")]);
        let FromKeeper::Started { run: started, pid } = fixture.answer() else { panic!("not started") };
        assert_eq!(started, run);
        let mut environment = Vec::new();
        // The start is reported before the kernel has put the environment in its place.
        until("it has an environment", || {
            environment = fs::read(format!("/proc/{pid}/environ")).expect("read");
            !environment.is_empty()
        });
        let mut seen = BTreeMap::<String, Vec<String>>::new();
        for pair in environment.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
            let pair = String::from_utf8_lossy(pair);
            let (name, value) = pair.split_once('=').expect("a pair");
            seen.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        let one = |name: &str| seen.get(name).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(one("ELECT_ID"), ["mine"]);
        assert_eq!(one("ELECT_TERM"), ["7"]);
        assert_eq!(one("ELECT_NAME"), [""]);
        assert_eq!(one("KEPT"), ["yes"]);
        assert_eq!(one("WITNESS").len(), 1);
        assert!(!seen.contains_key("ELECT_LEADER_PORT"), "it is not this leader's");
    });
}

#[test]
fn it_has_the_three_standard_descriptors_and_the_lock_and_no_other() {
    alone(|directory| {
        let lock = fs::File::create(directory.join("lock")).expect("created");
        // Inheritable descriptors, below and above the lock's, that exec would keep.
        let leaked: Vec<i32> = (0..3)
            .map(|_| nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_DUPFD(3)).expect("copied"))
            .chain([nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_DUPFD(200)).expect("copied")])
            .collect();
        assert_eq!(leaked.len(), 4);
        let mut fixture = sleeper(directory).fork();
        fixture.claim_with("lock", vec![OwnedFd::from(lock)]);
        fixture.arm(TERM, Time::NEVER);
        let pid = fixture.start();
        let mut above = Vec::new();
        until("only one beside the three", || {
            above = open_above_two(pid);
            above.len() == 1
        });
        let (number, path) = &above[0];
        assert!(*number >= 100, "{number} is one that scripts use");
        assert_eq!(path, &directory.join("lock"));
    });
}

#[test]
fn without_a_lock_it_has_the_three_standard_descriptors() {
    alone(|directory| {
        let mut fixture = sleeper(directory).fork();
        fixture.claim("no lock");
        fixture.arm(TERM, Time::NEVER);
        let pid = fixture.start();
        until("only the three", || open_above_two(pid).is_empty());
    });
}

#[test]
fn it_starts_in_a_group_of_its_own_with_the_signals_it_would_have_without_us() {
    alone(|directory| {
        let mut fixture = sleeper(directory).fork();
        fixture.arm(TERM, Time::NEVER);
        let pid = fixture.start();
        let (fields, ours) = (stat_of(pid), stat_of(std::process::id().cast_signed()));
        assert_eq!(fields[1], fixture.keeper.pid().to_string(), "its parent");
        assert_eq!(fields[2], pid.to_string(), "its group");
        // The keeper has real-time priority where permitted; its command must not inherit it.
        for (number, what) in [(15, "priority"), (16, "nice"), (37, "real-time priority"), (38, "policy")] {
            assert_eq!(fields[number], ours[number], "its {what}");
        }
        for field in ["SigBlk", "SigIgn"] {
            let bits = u64::from_str_radix(&status_of(pid, field), 16).expect("a number");
            // Rust's runtime ignores SIGPIPE in this process; the command must not inherit that.
            let ours = u64::from_str_radix(&status_of(std::process::id().cast_signed(), field), 16).expect("a number");
            let pipe = 1 << (libc::SIGPIPE - 1);
            assert_eq!(bits, ours & !pipe, "{field}");
            assert_eq!(bits & (1 << (libc::SIGCHLD - 1)), 0, "{field} has SIGCHLD");
        }
    });
}

#[test]
fn a_blocked_signal_and_an_ignored_one_are_handed_down() {
    alone(|directory| {
        let mut mask = nix::sys::signal::SigSet::empty();
        mask.add(nix::sys::signal::Signal::SIGUSR2);
        mask.thread_set_mask().expect("set");
        // SAFETY: ignoring a signal calls no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let mut fixture = sleeper(directory).fork();
        fixture.arm(TERM, Time::NEVER);
        let pid = fixture.start();
        let bits = |field| u64::from_str_radix(&status_of(pid, field), 16).expect("a number");
        assert_eq!(bits("SigBlk"), 1 << (libc::SIGUSR2 - 1));
        assert_ne!(bits("SigIgn") & (1 << (libc::SIGCHLD - 1)), 0);
        // The keeper still notices the command's end.
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn a_stop_or_a_kill_right_after_the_order_to_start_leaves_nothing() {
    alone(|directory| {
        let mut fixture = sleeper(directory).fork();
        for term in 1..50u64 {
            fixture.arm(term, Time::NEVER);
            let run = fixture.order_start(term, &[]);
            fixture.send(&if term % 2 == 0 { ToKeeper::Kill } else { ToKeeper::Stop { kill_at: Time::NEVER } });
            #[expect(clippy::wildcard_enum_match_arm, reason = "every other answer fails the test")]
            match fixture.answer() {
                FromKeeper::Started { run: started, .. } if started == run => {
                    fixture.exited(if term % 2 == 0 {
                        killed(libc::SIGKILL, true)
                    } else {
                        killed(libc::SIGTERM, false)
                    });
                }
                // Killed before exec: it has never run, and must not be reported as started.
                FromKeeper::NotStarted { run: refused, why: NotStarted::Failed(libc::ECANCELED) } if refused == run => {
                }
                other => panic!("{other:?}"),
            }
            fixture.empty();
            fixture.hears_no_more();
        }
    });
}
