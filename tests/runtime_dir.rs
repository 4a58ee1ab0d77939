//! `--runtime-dir`: control sockets in a directory that is named, alone or shared with a group.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::candidate::elect;
use crate::harness::executables;
use crate::harness::wait::now;
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, until};

/// The group of two users, and a user in it.
const GROUP: u32 = 47_900;
const MEMBER: u32 = 47_901;

/// What the command of a pod does to its candidate.
const CONTROLS: &str = "\
    if [ -n \"$ELECT_RUNTIME_DIR\" ] && [ -e \"$ELECT_RUNTIME_DIR/again\" ]; then echo leads again; exit; fi; \
    [ -z \"$ELECT_RUNTIME_DIR\" ] || : >\"$ELECT_RUNTIME_DIR/again\"; \
    $PROGRAM assert; echo assert $?; $PROGRAM extend --json; echo extend $?; $PROGRAM status --self --json; echo self $?; \
    $PROGRAM assert -b cron; echo by name $?; $PROGRAM resign; echo resign $?";

fn says_all(ended: &Ended) {
    for line in ["assert 0", "extend 0", "self 0", "by name 0", "leads again"] {
        assert!(ended.stdout.lines().any(|said| said == line), "no {line}: {ended:?}");
    }
    let extended = ended.stdout.lines().find(|line| line.contains("left_ms")).expect("an object");
    let extended: Value = serde_json::from_str(extended).expect("JSON");
    assert_eq!((&extended["boundary"], &extended["left_ms"]), (&"cron".into(), &Value::Null), "{ended:?}");
    assert!(extended["term"].is_u64(), "{ended:?}");
    let local = ended.stdout.lines().find(|line| line.starts_with('[')).expect("an array");
    let local: Value = serde_json::from_str(local).expect("JSON");
    assert_eq!((local[0]["boundary"].as_str(), local[0]["state"].as_str()), (Some("cron"), Some("leading")), "{local}");
    assert_eq!((local[0]["store"].as_str(), local[0]["is_leader"].as_bool()), (Some("file"), Some(true)), "{local}");
}

/// A directory that belongs to a user and a group, with that mode.
fn directory(path: &Path, uid: u32, gid: u32, mode: u32) {
    fs::create_dir(path).expect("an empty place");
    chown(path, Some(uid), Some(gid)).expect("root may");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
}

/// A program that any user may execute.
fn program(sandbox: &Sandbox) -> PathBuf {
    let binary = sandbox.path().join("elect");
    executables::copy(elect(), &binary);
    binary
}

/// A mount namespace in which everything but one directory is read-only, and which has no /tmp, as in a pod of
/// `OpenShift`; then a user without a name, in the group of root and in that of the volume.
fn pod(sandbox: &Sandbox, volume: &Path) -> Vec<String> {
    let script = r#"set -e
        volume=$1; shift
        mount --make-rprivate / && mount -o remount,bind,ro /
        mount -t tmpfs -o mode=0755 tmpfs /mnt
        mkdir /mnt/volume /mnt/place
        mount --bind "$volume" /mnt/volume
        # The volume may lie on the file system above, whose flags it has got.
        mount -o remount,bind,rw /mnt/volume
        mount --bind "$1" /mnt/place; shift
        mount -t tmpfs -o ro,mode=0555 tmpfs /tmp
        mount -t tmpfs -o ro,mode=0555 tmpfs /run
        mount -o remount,ro /mnt
        exec setpriv --reuid 1000660000 --regid 0 --groups "$GROUP" -- "$@""#;
    let words = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let places = [volume.display().to_string(), sandbox.path().display().to_string()];
    words.map(str::to_owned).into_iter().chain(places).collect()
}

#[test]
fn in_a_pod_without_a_place_to_write_a_named_directory_is_enough() {
    let sandbox = Sandbox::new().open_to_all();
    program(&sandbox);
    let volume = sandbox.path().join("volume");
    // As an emptyDir with fsGroup.
    directory(&volume, 0, GROUP, 0o2777);
    let run = |named: bool| {
        let elect = ElectCmd::new(&sandbox)
            .store("file:/mnt/volume".to_owned())
            .binary(Path::new("/mnt/place/elect"))
            .variable("PROGRAM", "/mnt/place/elect")
            .variable("GROUP", &GROUP.to_string());
        let elect = if named { elect.variable("ELECT_RUNTIME_DIR", "/mnt/volume") } else { elect };
        elect.shell(CONTROLS).wrapped_by(pod(&sandbox, &volume)).run()
    };
    let ended = run(true);
    says_all(&ended);
    let ended = run(false);
    ended.stderr_contains(&["no control socket", "--runtime-dir", "the candidate of cron has no control socket"]);
    assert!(ended.stdout.contains("assert 69") && !ended.stderr.contains("which boundary"), "{ended:?}");
}

#[test]
fn a_command_that_changes_its_user_controls_its_candidate_through_a_group() {
    let sandbox = Sandbox::new().open_to_all();
    let binary = program(&sandbox).display().to_string();
    let shared = sandbox.path().join("shared");
    directory(&shared, 0, GROUP, 0o2770);
    let script = format!("exec setpriv --reuid {MEMBER} --regid {GROUP} --clear-groups -- sh -c '{CONTROLS}'");
    let run = |named: bool| {
        let elect = ElectCmd::new(&sandbox).binary(Path::new(&binary)).variable("PROGRAM", &binary);
        let elect = if named { elect.flag("--runtime-dir", &shared.display().to_string()) } else { elect };
        elect.shell(&script).run()
    };
    says_all(&run(true));
    // The default directory is its user's alone. It says so, and what helps.
    let ended = run(false);
    assert!(ended.stdout.contains("assert 77"), "{ended:?}");
    ended.stderr_contains(&["Permission denied", &format!("uid {MEMBER}"), "--runtime-dir", "elect status --json"]);
}

#[test]
fn a_socket_has_the_mode_that_the_directory_asks_for() {
    for (gid, mode, expected) in [(GROUP, 0o2770, 0o660), (GROUP, 0o0750, 0o600), (0, 0o1777, 0o600), (0, 0o700, 0o600)]
    {
        let sandbox = Sandbox::new().open_to_all();
        let shared = sandbox.path().join("shared");
        directory(&shared, 0, gid, mode);
        let leader =
            ElectCmd::new(&sandbox).flag("--runtime-dir", &shared.display().to_string()).witness(&Witness::new());
        let leader = leader.start();
        sandbox.starts(1);
        let sockets: Vec<_> = fs::read_dir(&shared).expect("ours").flatten().map(|entry| entry.path()).collect();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        let found = fs::metadata(&sockets[0]).expect("a socket");
        assert_eq!((found.mode() & 0o777, found.uid()), (expected, 0), "of a directory with {mode:o}");
        if expected == 0o660 {
            assert_eq!(found.gid(), GROUP);
        }
        leader.terminate();
        assert!(!sockets[0].exists());
    }
}

#[test]
fn a_socket_that_another_user_has_put_there_is_not_believed() {
    let sandbox = Sandbox::new().open_to_all();
    let binary = program(&sandbox);
    let shared = sandbox.path().join("shared");
    directory(&shared, 0, GROUP, 0o2770);
    let leader = ElectCmd::new(&sandbox).flag("--runtime-dir", &shared.display().to_string()).witness(&Witness::new());
    let leader = leader.start();
    sandbox.starts(1);
    let socket = fs::read_dir(&shared).expect("ours").flatten().next().expect("a socket").path();
    let ask = |words: &[&str]| {
        let asked = ElectCmd::new(&sandbox).store(None).binary(&binary).query("assert", words);
        asked.variable("ELECT_RUNTIME_DIR", &shared.display().to_string())
    };
    assert_eq!(ask(&["-b", "cron"]).run().status.code(), Some(0));
    // A member of the group takes the place of the socket, and says yes to everything.
    let script = r#"import os,socket,sys
os.rename(sys.argv[1], sys.argv[1] + ".away")
s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen(8)
print("ready", flush=True)
while True:
    c,_=s.accept(); c.recv(4096)
    c.sendall(b'{"boundary":"cron","id":"x","name":"x","answer":"yes","term":1}\n'); c.close()"#;
    let (member, group, path) = (MEMBER.to_string(), GROUP.to_string(), socket.display().to_string());
    let words = [
        "setpriv",
        "--reuid",
        &member,
        "--regid",
        &group,
        "--clear-groups",
        "--",
        "/usr/bin/python3",
        "-c",
        script,
        &path,
    ];
    let impostor = ElectCmd::new(&sandbox).program(words).start();
    until("it listens", || impostor.output().contains("ready"));
    let inside = ask(&[]).variable("ELECT_SOCKET", &path);
    inside.run().fails_with(77, &["uid 47901", "not trusted"]);
    ask(&["-b", "cron"]).run().fails_with(69, &["no candidate of this user", &shared.display().to_string()]);
    let local = ElectCmd::new(&sandbox).store(None).query("status", &["--self", "--json"]);
    let local = local.variable("ELECT_RUNTIME_DIR", &shared.display().to_string()).run();
    assert_eq!(local.stdout, "[]\n", "{local:?}");
    drop(impostor);
    leader.terminate();
}

/// A candidate with its control socket in that directory.
fn candidate_in(directory: &Path, sandbox: &Sandbox, boundary: &'static str) -> CandidateProcess {
    let elect = ElectCmd::new(sandbox).boundary(boundary).flag("--runtime-dir", &directory.display().to_string());
    elect.witness(&Witness::new()).start()
}

fn query_in(directory: &Path, sandbox: &Sandbox, command: &'static str, words: &[&str]) -> Ended {
    let asked = ElectCmd::new(sandbox).store(None).query(command, words);
    asked.variable("ELECT_RUNTIME_DIR", &directory.display().to_string()).run()
}

/// Eight candidates that do not answer cost one time limit, and no more than `--timeout` allows.
#[test]
fn silent_candidates_do_not_add_up() {
    let sandbox = Sandbox::new();
    let named = sandbox.path().join("named");
    fs::create_dir(&named).expect("an empty place");
    let name = |index: u32| named.join(format!("cron.{index:08}-0000-4000-8000-000000000000.sock"));
    let _silent: Vec<UnixListener> = (0..8).map(|index| UnixListener::bind(name(index)).expect("bound")).collect();
    let begun = now();
    query_in(&named, &sandbox, "assert", &["-b", "cron", "--timeout", "300ms"]).fails_with(75, &["within 300ms"]);
    // One after the other they would take 2 s each.
    assert!(now().saturating_sub(begun) < Duration::from_secs(15), "{:?}", now().saturating_sub(begun));
    let leader = candidate_in(&named, &sandbox, "cron");
    sandbox.starts(1);
    let begun = now();
    assert_eq!(query_in(&named, &sandbox, "assert", &["-b", "cron"]).status.code(), Some(0));
    assert!(now().saturating_sub(begun) < Duration::from_secs(15), "{:?}", now().saturating_sub(begun));
    leader.terminate();
}

/// A member of the group may move files, and may not make one candidate answer or act for another.
#[test]
fn a_socket_that_was_moved_answers_for_nobody_else() {
    let sandbox = Sandbox::new();
    let named = sandbox.path().join("named");
    let start = |boundary| candidate_in(&named, &sandbox, boundary);
    let leader = start("cron");
    sandbox.starts(1);
    let follower = start("cron");
    follower.wait_until_waiting();
    let other = start("other");
    sandbox.starts(2);
    let local = query_in(&named, &sandbox, "status", &["--self", "--json"]);
    let all: Value = serde_json::from_str(&local.stdout).expect("JSON");
    let socket = |boundary: &str, state: &str| {
        let found =
            all.as_array().expect("an array").iter().find(|one| one["boundary"] == boundary && one["state"] == state);
        let id = found.unwrap_or_else(|| panic!("{all}"))["id"].as_str().expect("an id").to_owned();
        (named.join(format!("{boundary}.{id}.sock")), id)
    };
    let ((leads, _), (follows, follower_id), (others, _)) =
        (socket("cron", "leading"), socket("cron", "following"), socket("other", "leading"));
    fs::remove_file(&follows).expect("ours");
    // As sudo leaves it, the path of the socket is all that is known.
    let ask = |command, knows_id| {
        let asked = ElectCmd::new(&sandbox).store(None).query(command, &[]);
        let asked = asked.variable("ELECT_SOCKET", &follows.display().to_string());
        if knows_id { asked.variable("ELECT_ID", &follower_id).run() } else { asked.run() }
    };
    for (moved, by_link) in [(&leads, true), (&others, true), (&leads, false), (&others, false)] {
        if by_link {
            std::os::unix::fs::symlink(moved, &follows).expect("a link");
        } else {
            fs::hard_link(moved, &follows).expect("a second name");
        }
        for (command, knows_id) in [("assert", true), ("resign", true), ("assert", false), ("resign", false)] {
            let ended = ask(command, knows_id);
            assert_eq!(ended.status.code(), Some(69), "{command} {by_link}: {ended:?}");
            let said = if by_link { "a link is there" } else { "another candidate answers" };
            assert!(ended.stderr.contains(said), "{command}: {ended:?}");
        }
        fs::remove_file(&follows).expect("ours");
    }
    assert!(!leader.log().contains("resign") && !other.log().contains("resign"), "nothing was done");
    follower.terminate();
    leader.terminate();
    other.terminate();
}

#[test]
fn a_candidate_removes_the_sockets_of_killed_ones_and_no_other() {
    let sandbox = Sandbox::new();
    let named = sandbox.path().join("named");
    let start = |boundary| candidate_in(&named, &sandbox, boundary);
    let sockets = || {
        let names = fs::read_dir(&named).expect("ours").flatten().map(|entry| entry.file_name().into_string());
        let mut names: Vec<String> = names.map(|name| name.expect("plain")).collect();
        names.sort();
        names
    };
    let mut killed = start("killed");
    sandbox.starts(1);
    assert_eq!(killed.log().matches("for control sockets did not exist: created").count(), 1, "{}", killed.log());
    killed.signal(Signal::SIGKILL);
    killed.wait();
    assert_eq!(sockets().len(), 1);
    // Of another program of this user, which has not begun to listen.
    let app = named.join("app.sock");
    drop(UnixListener::bind(&app).expect("bound"));
    let lives = start("lives");
    sandbox.starts(2);
    let foreign = named.join("foreign.sock");
    drop(UnixListener::bind(&foreign).expect("room"));
    chown(&foreign, Some(MEMBER), None).expect("root may");
    fs::write(named.join("file.sock"), "").expect("room");
    query_in(&named, &sandbox, "assert", &["-b", "app"]).fails_with(69, &["no candidate of this user"]);
    assert_eq!(query_in(&named, &sandbox, "status", &["--self"]).status.code(), Some(0));
    let next = start("next");
    sandbox.starts(3);
    let begins = |names: &[String], stems: &[&str]| {
        names.len() == stems.len() && names.iter().zip(stems).all(|(name, stem)| name.starts_with(stem))
    };
    until("what was left behind is gone", || {
        begins(&sockets(), &["app.sock", "file.sock", "foreign.sock", "lives.", "next."])
    });
    next.terminate();
    lives.terminate();
}

#[test]
fn a_named_directory_that_cannot_be_used_is_an_error() {
    let sandbox = Sandbox::new().open_to_all();
    let binary = program(&sandbox);
    let closed = sandbox.path().join("closed");
    directory(&closed, 0, 0, 0o755);
    let run = |path: &str| {
        let elect = ElectCmd::new(&sandbox).binary(&binary).flag("--runtime-dir", path).switch("-q").command(["true"]);
        elect.wrapped_by(["setpriv", "--reuid", "47902", "--clear-groups", "--"]).run()
    };
    let ended = run(&closed.display().to_string());
    ended.fails_with(77, &["--runtime-dir", &closed.display().to_string(), "ermission denied", "may write to"]);
    run("relative").fails_with(2, &["relative path", "/relative"]);
    fs::write(sandbox.path().join("file"), "").expect("room");
    run(&sandbox.path().join("file").display().to_string()).fails_with(77, &["not a directory"]);
}

#[test]
fn a_path_that_does_not_fit_into_an_address_works_as_well() {
    let sandbox = Sandbox::new();
    let long = sandbox.path().join("d".repeat(120));
    let program = elect().display().to_string();
    let elect = ElectCmd::new(&sandbox).flag("--runtime-dir", &long.display().to_string());
    says_all(&elect.variable("PROGRAM", &program).shell(CONTROLS).run());
}
