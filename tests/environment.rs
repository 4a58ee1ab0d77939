//! The environment, descriptors and signal state that a command starts with.

use std::collections::BTreeMap;

use crate::harness::{ElectCmd, Ended, Sandbox, Witness};

/// The `ELECT_` variables that `env` has printed.
fn variables(ended: &Ended) -> BTreeMap<String, String> {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let own = ended.stdout.lines().filter(|line| line.starts_with("ELECT_"));
    own.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_command_knows_who_it_is() {
    let sandbox = Sandbox::new();
    let found = variables(&ElectCmd::new(&sandbox).command(["env"]).run());
    let hostname = nix::unistd::gethostname().expect("this host has a name").into_string().expect("a plain one");
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let known = [
        "ELECT_BOUNDARY",
        "ELECT_ID",
        "ELECT_LEADER_HOST",
        "ELECT_LEADER_ID",
        "ELECT_LEADER_NAME",
        "ELECT_NAME",
        "ELECT_ROLE",
        "ELECT_SOCKET",
        "ELECT_STORE",
        "ELECT_TERM",
    ];
    assert_eq!(names, known, "what is not known is unset, not empty");
    assert_eq!((found["ELECT_BOUNDARY"].as_str(), found["ELECT_ROLE"].as_str()), ("cron", "leader"));
    assert_eq!((&found["ELECT_NAME"], &found["ELECT_LEADER_HOST"]), (&hostname, &hostname));
    assert_eq!(found["ELECT_ID"], found["ELECT_LEADER_ID"]);
    assert!(found["ELECT_TERM"].parse::<u64>().is_ok_and(|term| term > 0), "{found:?}");
    let again = variables(&ElectCmd::new(&sandbox).command(["env"]).run());
    assert_ne!(found["ELECT_ID"], again["ELECT_ID"], "new at each start");
}

#[test]
fn an_advertised_address_comes_apart() {
    let sandbox = Sandbox::new();
    for (given, host, port, address) in [
        ("10.0.0.5:8080", "10.0.0.5", Some("8080"), Some("10.0.0.5:8080")),
        ("[::1]:8080", "::1", Some("8080"), Some("[::1]:8080")),
        ("db.example", "db.example", None, None),
    ] {
        let found = variables(&ElectCmd::new(&sandbox).flag("--advertise", given).command(["env"]).run());
        assert_eq!(found["ELECT_LEADER_HOST"], host);
        assert_eq!(found.get("ELECT_LEADER_PORT").map(String::as_str), port);
        assert_eq!(found.get("ELECT_LEADER_ADDR").map(String::as_str), address);
    }
}

#[test]
fn an_inherited_identity_is_replaced_or_removed() {
    let sandbox = Sandbox::new();
    let identity = ["BOUNDARY", "NAME", "ID", "TERM", "SOCKET", "LEADER_ID", "LEADER_PORT", "LEADER_ADDR"];
    let elect = identity
        .iter()
        .fold(ElectCmd::new(&sandbox), |elect, name| elect.variable(&format!("ELECT_{name}"), "inherited"))
        .variable("ELECT_ROLE", "follower");
    let mut found = variables(&elect.command(["env"]).run());
    assert_eq!(found.remove("ELECT_INSIDE").as_deref(), Some("inherited"), "that is where it is");
    assert!(!found.values().any(|value| value == "inherited"), "{found:?}");
    assert_eq!(found["ELECT_ROLE"], "leader");
    assert!(!found.contains_key("ELECT_LEADER_PORT"), "{found:?}");
}

#[test]
fn flags_have_variables() {
    let sandbox = Sandbox::new();
    let elect = ElectCmd::new(&sandbox).boundary(None).store(None);
    let elect = elect
        .variable("ELECT_BOUNDARY", "by/variable")
        .variable("ELECT_NAME", "me")
        .variable("ELECT_STORE", &sandbox.store())
        .variable("ELECT_QUIET", "1");
    let ended = elect.command(["env"]).run();
    let found = variables(&ended);
    assert_eq!((found["ELECT_BOUNDARY"].as_str(), found["ELECT_NAME"].as_str()), ("by/variable", "me"));
    assert_eq!(ended.stderr, "");
    assert!(sandbox.locks().join("by%2Fvariable.lock").exists());
}

#[test]
fn the_boundary_that_one_is_inside_cannot_be_campaigned_for() {
    let sandbox = Sandbox::new();
    let inner: Vec<_> = ElectCmd::new(&sandbox).command(["echo", "inside"]).words();
    let ended = ElectCmd::new(&sandbox).switch("-q").command(inner).run();
    ended.fails_with(2, &["inside the command of boundary cron"]);
    // Without a boundary of its own it is not meant for the outer one either.
    let inner: Vec<_> = ElectCmd::new(&sandbox).boundary(None).command(["echo", "inside"]).words();
    ElectCmd::new(&sandbox).switch("-q").command(inner).run().fails_with(2, &["no boundary"]);
    sandbox.is_left_empty();
}

#[test]
fn none_of_the_boundaries_that_one_is_inside_can_be_campaigned_for() {
    let sandbox = Sandbox::new();
    let elect = |boundary: &'static str| ElectCmd::new(&sandbox).boundary(boundary).switch("-q");
    for innermost in ["a", "b/b", "c"] {
        let third = elect(innermost).command(["echo", "inside"]).words();
        let ended = elect("a").command(elect("b/b").command(elect("c").command(third).words()).words()).run();
        ended.fails_with(2, &[&format!("inside the command of boundary {innermost}:")]);
        assert_eq!(ended.stdout, "");
    }
    // By name: another store is no other boundary.
    let elsewhere = elect("a").store("always:".to_owned()).command(["echo", "inside"]).words();
    elect("a").command(elect("b").command(elsewhere).words()).run().fails_with(2, &["of boundary a:"]);
    // Only where one is inside, and not for what was left behind.
    let alone = elect("a").variable("ELECT_INSIDE", "a\nb").command(["env"]).run();
    assert!(!variables(&alone).contains_key("ELECT_INSIDE"), "{alone:?}");
    let beside = elect("a").command(elect("b").command(["env"]).words()).run();
    assert_eq!(variables(&beside)["ELECT_INSIDE"], "a");
    let deeper =
        elect("a").command(elect("b").command(elect("c").command(["printenv", "ELECT_INSIDE"]).words()).words());
    assert_eq!(deeper.run().stdout, "a\nb\n");
    sandbox.is_left_empty();
}

#[test]
fn another_boundary_can_be_campaigned_for_inside_with_an_identity_of_its_own() {
    let sandbox = Sandbox::new();
    let inner: Vec<_> = ElectCmd::new(&sandbox).boundary("inner").command(["env"]).words();
    let found = variables(&ElectCmd::new(&sandbox).flag("--name", "outer").command(inner).run());
    assert_eq!(found["ELECT_BOUNDARY"], "inner");
    assert_ne!(found["ELECT_NAME"], "outer");
    sandbox.is_left_empty();
}

#[test]
fn a_command_inherits_three_descriptors_and_the_lock() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox)
        .wrapped_by(["bash", "-c", r#"exec 7</dev/null; exec "$@""#, "bash"])
        .shell("ls /proc/$$/fd; readlink /proc/$$/fd/100")
        .run();
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.pop(), sandbox.lock_file().to_str(), "{ended:?}");
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1", "100", "2"], "{ended:?}");
}

#[test]
fn elect_keeps_nothing_open_that_it_was_not_given_to_keep() {
    let sandbox = Sandbox::new();
    let lock = sandbox.path().join("callers.lock");
    // As a script does it: the lock is the script's, and ends with it.
    let script = format!(r#"exec 9>{}; flock 9; "$@" &"#, lock.display());
    let mut caller =
        ElectCmd::new(&sandbox).wrapped_by(["bash", "-c", &script, "bash"]).witness(&Witness::new()).start();
    caller.ends_with(0);
    sandbox.starts(1);
    let free = std::process::Command::new("flock").args(["--nonblock"]).arg(&lock).arg("true").status();
    assert!(free.expect("flock is there").success(), "somebody keeps the lock of a script that has ended");
}

#[test]
fn signals_are_blocked_and_ignored_as_if_elect_were_not_there() {
    let sandbox = Sandbox::new();
    let words = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"];
    let without = ElectCmd::new(&sandbox).program(["env"]).command(words).run();
    let with = ElectCmd::new(&sandbox).command(words).run();
    assert_eq!(with.stdout.lines().count(), 2, "{with:?}");
    assert_eq!(with.stdout, without.stdout);
    let ignoring = ["sh", "-c", r#"trap '' USR2 HUP; exec "$@""#, "sh"];
    let without = ElectCmd::new(&sandbox).program(ignoring).command(words).run();
    let with = ElectCmd::new(&sandbox).wrapped_by(ignoring).command(words).run();
    assert_eq!(with.stdout, without.stdout, "as with nohup");
}

#[test]
fn a_command_reads_what_elect_was_given_to_read() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).wrapped_by(["sh", "-c", r#"echo hello | "$@""#, "sh"]).command(["cat"]).run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "hello\n"), "{ended:?}");
}

#[test]
fn words_reach_the_command_as_they_are() {
    let sandbox = Sandbox::new();
    let words = ["printf", "%s\\n", "two words", "--flag", "", "$HOME", "*", "--"];
    let ended = ElectCmd::new(&sandbox).command(words).run();
    assert_eq!(ended.stdout, "two words\n--flag\n\n$HOME\n*\n--\n", "{ended:?}");
}
