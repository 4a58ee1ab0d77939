//! Lock directories that cannot be trusted, read, or written, and records that are none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::executables;
use crate::harness::wait::throughout;
use crate::harness::{ElectCmd, Ended, Sandbox, Witness, until};

/// A user without rights and without a home here: the number is its own in each test.
struct UnprivilegedUser {
    uid: u32,
    default_directory: PathBuf,
    elect: PathBuf,
}

impl UnprivilegedUser {
    fn new(sandbox: &Sandbox, uid: u32) -> UnprivilegedUser {
        assert!(nix::unistd::geteuid().is_root(), "these tests become other users: run them as root");
        let elect = sandbox.path().join("elect");
        executables::copy(crate::harness::candidate::elect(), &elect);
        let default_directory = PathBuf::from(format!("/tmp/elect-{uid}"));
        assert!(fs::symlink_metadata(&default_directory).is_err(), "{} is in the way", default_directory.display());
        UnprivilegedUser { uid, default_directory, elect }
    }

    fn runs(&self, elect: ElectCmd) -> ElectCmd {
        let uid = self.uid.to_string();
        elect.binary(&self.elect).wrapped_by(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
    }

    fn runs_by_default(&self, sandbox: &Sandbox) -> Ended {
        self.runs(ElectCmd::new(sandbox).store(None)).switch("-q").command(["true"]).run()
    }
}

impl Drop for UnprivilegedUser {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.default_directory);
        let _ = fs::remove_dir_all(&self.default_directory);
    }
}

/// It is not going to get better by itself: said once, and the end.
#[track_caller]
fn is_refused(sandbox: &Sandbox, ended: &Ended, said: &[&str]) {
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(said);
    assert_eq!(ended.stderr.lines().filter(|line| line.contains("error: ")).count(), 1, "{ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn a_default_directory_that_is_somebody_elses_is_refused() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_101);
    fs::create_dir(&nobody.default_directory).expect("made by root");
    is_refused(&sandbox, &nobody.runs_by_default(&sandbox), &["/tmp/elect-47101", "belongs to uid 0"]);
}

#[test]
fn a_default_directory_that_is_a_symbolic_link_is_refused() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_102);
    let target = sandbox.path().join("target");
    fs::create_dir(&target).expect("an empty place");
    chown(&target, Some(nobody.uid), Some(nobody.uid)).expect("root may");
    symlink(&target, &nobody.default_directory).expect("a link");
    is_refused(&sandbox, &nobody.runs_by_default(&sandbox), &["/tmp/elect-47102", "symbolic link"]);
}

#[test]
fn a_default_directory_that_others_can_write_is_refused() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_103);
    fs::create_dir(&nobody.default_directory).expect("made by root");
    chown(&nobody.default_directory, Some(nobody.uid), Some(nobody.uid)).expect("root may");
    fs::set_permissions(&nobody.default_directory, fs::Permissions::from_mode(0o777)).expect("root may");
    is_refused(&sandbox, &nobody.runs_by_default(&sandbox), &["/tmp/elect-47103", "written by others"]);
}

#[test]
fn a_default_directory_is_made_for_its_owner_alone() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_104);
    let ended = nobody.runs_by_default(&sandbox);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let made = fs::metadata(&nobody.default_directory).expect("it was made");
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o700, nobody.uid));
    sandbox.is_left_empty();
}

#[test]
fn roots_default_directory_is_in_run() {
    let sandbox = Sandbox::new();
    let private_run = ["unshare", "--mount", "sh", "-c", r#"mount -t tmpfs tmpfs /run && exec "$@""#, "sh"];
    let ended = ElectCmd::new(&sandbox)
        .store(None)
        .wrapped_by(private_run)
        .command(["stat", "-c", "%a %u", "/run/elect"])
        .run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "700 0\n"), "{ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_105);
    fs::create_dir(sandbox.locks()).expect("made by root");
    let ended = nobody.runs(ElectCmd::new(&sandbox)).switch("-q").command(["true"]).run();
    is_refused(&sandbox, &ended, &[&sandbox.lock_file().display().to_string(), "ermission denied"]);
    let inside = sandbox.locks().join("deeper");
    let ended = nobody
        .runs(ElectCmd::new(&sandbox).store(format!("file:{}", inside.display())))
        .switch("-q")
        .command(["true"])
        .run();
    is_refused(&sandbox, &ended, &[&inside.display().to_string(), "ermission denied"]);
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.locks(), "").expect("an empty place");
    let ended = ElectCmd::new(&sandbox).switch("-q").command(["true"]).run();
    is_refused(&sandbox, &ended, &[&sandbox.locks().display().to_string(), "not a directory"]);
}

#[test]
fn a_lock_file_that_is_a_link_or_no_file_is_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.locks()).expect("an empty place");
    symlink("/etc/hostname", sandbox.lock_file()).expect("a link");
    let ended = ElectCmd::new(&sandbox).switch("-q").command(["true"]).run();
    is_refused(&sandbox, &ended, &["symbolic link"]);
    fs::remove_file(sandbox.lock_file()).expect("the link");
    nix::unistd::mkfifo(&sandbox.lock_file(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let ended = ElectCmd::new(&sandbox).switch("-q").command(["true"]).run();
    is_refused(&sandbox, &ended, &["not a regular file"]);
}

/// Something mounted for as long as this lives.
struct Mount<'a>(&'a Path);

impl Mount<'_> {
    fn is_there(&self) -> bool {
        let own = format!(" {} ", self.0.display());
        fs::read_to_string("/proc/mounts").expect("/proc is there").contains(&own)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_directory_on_a_network_file_system_is_refused() {
    let sandbox = Sandbox::new();
    let (behind, locks) = (sandbox.path().join("behind"), sandbox.locks());
    fs::create_dir(&behind).expect("an empty place");
    fs::create_dir(&locks).expect("an empty place");
    let found = Command::new("bindfs").arg("--version").output();
    assert!(found.is_ok(), "bindfs is needed for a file system that is not this host's own: apt-get install bindfs");
    let words: [OsString; 4] = ["bindfs".into(), "-f".into(), behind.into(), locks.clone().into()];
    let mount = Mount(&locks);
    let mut server = ElectCmd::new(&sandbox).program(words).start();
    until("it is mounted, or has failed", || mount.is_there() || server.has_ended());
    assert!(mount.is_there(), "bindfs: {}", server.log());
    let ended = ElectCmd::new(&sandbox).switch("-q").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&[&locks.display().to_string(), "FUSE", "--store file:DIR"]);
    drop(mount);
    drop(server);
    sandbox.is_left_empty();
}

#[test]
fn a_full_disk_is_waited_out_without_leading() {
    let sandbox = Sandbox::new();
    let locks = sandbox.locks();
    fs::create_dir(&locks).expect("an empty place");
    let mount = Mount(&locks);
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&locks).status();
    assert!(status.expect("mount is there").success(), "a small file system can be mounted (as root)");
    let mut ballast = File::create(locks.join("ballast")).expect("there is room for a name");
    while ballast.write_all(&[0; 512]).is_ok() {}
    let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    candidate.wait_for_log("No space left on device");
    throughout(Duration::from_secs(3), "it does not lead", || sandbox.history().starts.is_empty());
    let warnings = candidate.log().lines().filter(|line| line.contains("No space left")).count();
    assert_eq!(warnings, 1, "said once, not with every attempt: {}", candidate.log());
    drop(ballast);
    fs::remove_file(locks.join("ballast")).expect("it is there");
    sandbox.starts(1);
    candidate.terminate();
    sandbox.is_left_empty();
    drop(mount);
}

#[test]
fn a_disk_that_fills_up_under_a_leader_costs_it_nothing_and_the_next_one_leads() {
    let sandbox = Sandbox::new();
    let locks = sandbox.locks();
    fs::create_dir(&locks).expect("an empty place");
    let mount = Mount(&locks);
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&locks).status();
    assert!(status.expect("mount is there").success(), "a small file system can be mounted (as root)");
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut ballast = File::create(locks.join("ballast")).expect("there is room for a name");
    while ballast.write_all(&[0; 512]).is_ok() {}
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    leader.terminate();
    next.wait_for_log("No space left on device");
    drop(ballast);
    fs::remove_file(locks.join("ballast")).expect("it is there");
    sandbox.starts(2);
    sandbox.history().is_safe();
    next.terminate();
    sandbox.is_left_empty();
    drop(mount);
}

#[test]
fn a_corrupt_record_is_replaced_with_a_warning_and_terms_still_rise() {
    let sandbox = Sandbox::new();
    for (run, noise) in [&b""[..], b"{", b"\0\0\0\0\0\0", b"{\"version\":1}", b"not a record\n"].iter().enumerate() {
        let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(2 * run + 1);
        leader.terminate();
        fs::write(sandbox.record(), noise).expect("the record is there");
        let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(2 * run + 2);
        assert!(next.log().contains("warning: "), "{}", next.log());
        next.terminate();
    }
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_record_that_breaks_under_a_leader_keeps_nobody_from_succeeding_it() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    fs::write(sandbox.record(), "not a record").expect("the record is there");
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_for_log("is not a record");
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_record_beside_which_elect_does_not_campaign_is_waited_out() {
    let oversized = format!(r#"{{"version":2,"long":"{}"}}"#, "x".repeat(20_000));
    let held = r#""state":"held","name":"web-9","host":"10.0.0.9","port":null,"ttl":null,"since":1,"lock":{"device":1,"inode":2}"#;
    let term = format!(r#"{{"version":2,"id":"i","term":9100000000000000,{held}}}"#);
    let scheme = format!(r#"{{"version":2,"id":"i","term":7,"scheme":"revision",{held}}}"#);
    let id = format!(r#"{{"version":2,"id":"{}","term":7,{held}}}"#, "i".repeat(65));
    let records = [
        (
            r#"{"version":9,"something":"else","name":"web-9","host":"10.0.0.9"}"#,
            &["newer elect", "format 9", "web-9 at 10.0.0.9"][..],
        ),
        (&oversized, &["larger than 16384 bytes"]),
        (&term, &["term 9100000000000000, held by web-9"]),
        (&scheme, &["another scheme (revision), held by web-9"]),
        (&id, &["an id longer than 64 bytes, held by web-9"]),
    ];
    for (record, said) in records {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.locks()).expect("an empty place");
        fs::write(sandbox.record(), record).expect("a record");
        let ended = ElectCmd::new(&sandbox).switch("--no-wait").command(["true"]).run();
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        ended.stderr_contains(said);
        let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        candidate.wait_for_log(said[0]);
        assert_eq!(fs::read_to_string(sandbox.record()).expect("the record"), *record, "left as it was");
        assert!(sandbox.history().starts.is_empty());
        fs::remove_file(sandbox.record()).expect("it is there");
        sandbox.starts(1);
        candidate.terminate();
        sandbox.is_left_empty();
    }
}

#[test]
fn a_relative_path_is_a_usage_error_that_shows_the_absolute_one() {
    let sandbox = Sandbox::new();
    let here = std::env::current_dir().expect("here");
    for relative in ["locks", "./locks", "../locks"] {
        let ended = ElectCmd::new(&sandbox).store(format!("file:{relative}")).command(["true"]).run();
        let absolute = format!("file:{}", here.join(relative).display());
        ended.fails_with(2, &["relative path", &absolute]);
        let asked = ElectCmd::new(&sandbox).store(format!("file:{relative}")).status(&[]).run();
        asked.fails_with(2, &["relative path", &absolute]);
    }
    assert!(!here.join("locks").exists());
    sandbox.is_left_empty();
}

#[test]
fn a_umask_that_shuts_everybody_out_does_not_shut_out_elect() {
    let sandbox = Sandbox::new().open_to_all();
    let nobody = UnprivilegedUser::new(&sandbox, 47_106);
    let own = sandbox.path().join("own");
    fs::create_dir(&own).expect("an empty place");
    chown(&own, Some(nobody.uid), Some(nobody.uid)).expect("root may");
    let named = own.join("a/b/locks");
    for store in [None, Some(format!("file:{}", named.display()))] {
        for _ in 0..2 {
            let elect = nobody.runs(ElectCmd::new(&sandbox).store(store.clone()));
            let elect = elect.wrapped_by(["sh", "-c", r#"umask 777; exec "$@""#, "sh"]).switch("-q");
            let ended = elect.shell("echo $ELECT_SOCKET").run();
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            assert!(!ended.stderr.contains("no control socket"), "{ended:?}");
            assert!(ended.stdout.contains("/control/"), "it has a control socket: {ended:?}");
        }
    }
    let mode = |path: &Path| fs::metadata(path).expect("it was made").mode() & 0o7777;
    assert_eq!(mode(&nobody.default_directory), 0o700);
    assert_eq!((mode(&named), mode(&named.join("cron.lock"))), (0o700, 0o600));
    // As elect 0.1.0 left it behind.
    fs::set_permissions(&nobody.default_directory, fs::Permissions::from_mode(0o000)).expect("root may");
    assert_eq!(nobody.runs_by_default(&sandbox).status.code(), Some(0));
    sandbox.is_left_empty();
}
