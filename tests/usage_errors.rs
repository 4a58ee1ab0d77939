//! Bad input: one line with the fault and the remedy, an exit status of its own, and no process left running.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::executables;
use crate::harness::{ElectCmd, Sandbox, docs_under_test};

#[test]
fn a_name_that_no_terminal_should_see_is_refused() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(257);
    for (flag, value) in [("--name", "a\u{1b}[2J"), ("--name", &long), ("--advertise", &long)] {
        ElectCmd::new(&sandbox).flag(flag, value).command(["true"]).run().fails_with(2, &[flag, "at most 256 bytes"]);
    }
}

#[test]
fn a_missing_boundary_is_asked_for() {
    let sandbox = Sandbox::new();
    ElectCmd::new(&sandbox).boundary(None).command(["true"]).run().fails_with(2, &["no boundary", "--boundary"]);
    sandbox.is_left_empty();
}

#[test]
fn an_impossible_boundary_is_refused() {
    let sandbox = Sandbox::new();
    let too_long: &'static str = Box::leak("x".repeat(81).into_boxed_str());
    for (boundary, reason) in [
        ("", "at least one character"),
        (too_long, "at most 80 bytes"),
        ("a\nb", "control"),
        ("a\u{1b}[31m", "control"),
    ] {
        ElectCmd::new(&sandbox).boundary(boundary).command(["true"]).run().fails_with(2, &["boundary", reason]);
    }
    assert!(!sandbox.locks().exists(), "nothing was asked of the store");
    sandbox.is_left_empty();
}

#[test]
fn an_unknown_kind_of_store_is_named_without_its_password() {
    let sandbox = Sandbox::new();
    for store in ["mysql://user:secret@db/x", "secret", ""] {
        let ended = ElectCmd::new(&sandbox).store(store.to_owned()).command(["true"]).run();
        ended.fails_with(2, &["--store", "file:DIR"]);
        assert!(!ended.stderr.contains("secret@"), "{ended:?}");
    }
    sandbox.is_left_empty();
}

#[test]
fn timings_that_cannot_hold_are_named_with_their_values() {
    let sandbox = Sandbox::new();
    for flags in [
        &[("--ttl", "100ms")][..],
        &[("--ttl", "10s"), ("--renew", "9s")],
        &[("--ttl", "10s"), ("--request-timeout", "5s")],
        &[("--ttl", "10s"), ("--fence-grace", "9s")],
        &[("--ttl", "0s")],
        &[("--renew", "0s")],
        &[("--request-timeout", "0s")],
    ] {
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, (flag, value)| elect.flag(flag, value));
        let (flag, value) = flags.last().expect("one at least");
        elect.command(["true"]).run().fails_with(2, &[flag, value]);
    }
    for value in ["soon", "-1s", "1 fortnight", "999y"] {
        let ended = ElectCmd::new(&sandbox).switch(&format!("--ttl={value}")).command(["true"]).run();
        ended.fails_with(2, &["--ttl", value]);
    }
    assert!(!sandbox.locks().exists(), "nothing was asked of the store");
    sandbox.is_left_empty();
}

#[test]
fn other_flags_that_make_no_sense_are_named() {
    let sandbox = Sandbox::new();
    for (flag, value) in [("--stop-signal", "TERMINATE"), ("--advertise", "host:http"), ("--log-format", "xml")] {
        ElectCmd::new(&sandbox).flag(flag, value).command(["true"]).run().fails_with(2, &[flag, value]);
    }
    ElectCmd::new(&sandbox).switch("--no-such-flag").command(["true"]).run().fails_with(2, &["--no-such-flag"]);
    ElectCmd::new(&sandbox).run().fails_with(2, &["no command"]);
    for flag in ["--health-interval", "--health-timeout", "--health-start"] {
        let ended = ElectCmd::new(&sandbox).flag(flag, "1s").command(["true"]).run();
        ended.fails_with(2, &[flag, "without --health"]);
        let checked = ElectCmd::new(&sandbox).flag(flag, "4s").flag("--health", "true").switch("-n");
        assert_eq!(checked.command(["true"]).run().status.code(), Some(0));
    }
    for flag in ["--health-rise", "--health-fall"] {
        ElectCmd::new(&sandbox).flag(flag, "1").command(["true"]).run().fails_with(2, &[flag, "without --health"]);
    }
    // A variable may be set for a whole host.
    let for_all = ElectCmd::new(&sandbox).variable("ELECT_HEALTH_INTERVAL", "1s").command(["true"]).run();
    assert_eq!(for_all.status.code(), Some(0), "{for_all:?}");
}

#[test]
fn a_value_of_a_variable_is_reported_with_the_name_of_the_variable() {
    let sandbox = Sandbox::new();
    for (variable, value, told) in [
        ("ELECT_TTL", "soon", "invalid value 'soon' for ELECT_TTL"),
        ("ELECT_TTL", "100ms", "ELECT_TTL 100ms"),
        ("ELECT_STOP_SIGNAL", "TERMINATE", "for ELECT_STOP_SIGNAL"),
        ("ELECT_NAME", "a\u{1b}[2J", "ELECT_NAME takes at most"),
        ("ELECT_WAIT", "never", "for ELECT_WAIT"),
        ("ELECT_QUIET", "maybe", "for ELECT_QUIET"),
    ] {
        let ended = ElectCmd::new(&sandbox).variable(variable, value).command(["true"]).run();
        ended.fails_with(2, &[told]);
        assert!(!ended.stderr.contains("--ttl") && !ended.stderr.contains("--name"), "{ended:?}");
    }
    // The flag is what was typed, whatever the variable holds.
    let typed = ElectCmd::new(&sandbox).variable("ELECT_TTL", "5s").switch("--ttl=soon").command(["true"]).run();
    typed.fails_with(2, &["'--ttl <DURATION>'"]);
    for store in ["mysql", "ftp://db"] {
        let elect = ElectCmd::new(&sandbox).store(None).variable("ELECT_STORE", store);
        elect.command(["true"]).run().fails_with(2, &["ELECT_STORE", "file:DIR"]);
    }
    sandbox.is_left_empty();
}

#[test]
fn an_empty_variable_counts_as_unset_but_for_the_store() {
    let sandbox = Sandbox::new();
    let names = ["ELECT_NAME", "ELECT_TTL", "ELECT_WAIT", "ELECT_NO_WAIT", "ELECT_CONTAINMENT", "ELECT_FOLLOWER"];
    let more =
        ["ELECT_ADVERTISE", "ELECT_RESTART", "ELECT_VERBOSE", "ELECT_LOG_FORMAT", "ELECT_TLS_CA", "ELECT_PASSWORD"];
    let elect = names.iter().chain(&more).fold(ElectCmd::new(&sandbox), |elect, name| elect.variable(name, ""));
    let ended = elect.shell("echo \"$ELECT_NAME\"").run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_ne!(ended.stdout.trim(), "", "the name is the host's");
    let elect = ElectCmd::new(&sandbox).store(None).variable("ELECT_STORE", "");
    elect
        .command(["true"])
        .run()
        .fails_with(2, &["ELECT_STORE is empty: write it as file:DIR, ", "always:, or leave it out"]);
    sandbox.is_left_empty();
}

#[test]
fn a_misspelled_variable_is_named_however_quiet_and_others_are_not() {
    let sandbox = Sandbox::new();
    let elect = || ElectCmd::new(&sandbox).switch("-q");
    for (variable, meant) in [("ELECT_STOR", "ELECT_STORE"), ("ELECT_TLL", "ELECT_TTL"), ("ELECT_NAEM", "ELECT_NAME")] {
        let ended = elect().variable(variable, "5s").command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stderr_contains(&["warning: ", variable, "did you mean", meant]);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    let ended = elect().variable("ELECT_SERVICE_HOST", "10.0.0.1").command(["true"]).run();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    // A cause that the error alone would hide.
    let ended = ElectCmd::new(&sandbox).boundary(None).variable("ELECT_BOUNDRY", "cron").command(["true"]).run();
    ended.fails_with(2, &["no boundary", "ELECT_BOUNDRY", "did you mean ELECT_BOUNDARY"]);
    let ended = ElectCmd::new(&sandbox).variable("ELECT_STOR", "file:/nowhere").query("status", &[]).run();
    ended.stderr_contains(&["warning: ", "ELECT_STOR ", "ELECT_STORE"]);
    sandbox.is_left_empty();
}

#[test]
fn credentials_without_a_server_are_refused() {
    let sandbox = Sandbox::new();
    let password = sandbox.path().join("password");
    fs::write(&password, "hidden").expect("the place takes a file");
    let password = password.display().to_string();
    for (flag, variable, value) in [
        ("--username", "ELECT_USERNAME", "elect"),
        ("--password-file", "ELECT_PASSWORD_FILE", password.as_str()),
        ("--tls-ca", "ELECT_TLS_CA", "/ca.pem"),
        ("--tls-cert", "ELECT_TLS_CERT", "/cert.pem"),
        ("--tls-key", "ELECT_TLS_KEY", "/key.pem"),
    ] {
        for store in ["always:", "file:"] {
            let elect = || ElectCmd::new(&sandbox).store(store.to_owned());
            elect().flag(flag, value).command(["true"]).run().fails_with(2, &[flag, store, "--store"]);
            elect().variable(variable, value).command(["true"]).run().fails_with(2, &[variable, store, "--store"]);
            elect().variable(variable, value).query("status", &[]).run().fails_with(2, &[variable, store]);
        }
    }
    let ended = ElectCmd::new(&sandbox).variable("ELECT_PASSWORD", "hidden").command(["true"]).run();
    ended.fails_with(2, &["ELECT_PASSWORD", "--store"]);
    assert!(!ended.stderr.contains("hidden"), "{ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn a_boundary_is_an_argument_or_a_flag_of_each_query() {
    let sandbox = Sandbox::new();
    // The candidates of other tests campaign for other boundaries.
    let boundary: &'static str = Box::leak(format!("named-twice-{}", std::process::id()).into_boxed_str());
    let leader = ElectCmd::new(&sandbox).boundary(boundary).command(["sleep", "600"]).start();
    leader.wait_for_log("leader command started");
    let query = |command: &'static str, words: &[&str]| {
        let elect = ElectCmd::new(&sandbox);
        let asks_a_store = ["status", "wait"].contains(&command);
        if asks_a_store { elect } else { elect.store(None) }.query(command, words).run()
    };
    for command in ["status", "wait", "assert", "extend"] {
        for words in [&[boundary][..], &["-b", boundary], &["--boundary", boundary]] {
            let ended = query(command, words);
            assert_eq!(ended.status.code(), Some(0), "{command} {words:?}: {ended:?}");
        }
        query(command, &[boundary, "-b", boundary]).fails_with(2, &["cannot be used with"]);
    }
    leader.terminate();
}

#[test]
fn what_was_probably_meant_is_said() {
    let sandbox = Sandbox::new();
    let elect = |words: &[&str]| {
        let program = std::iter::once(docs_under_test::elect()).chain(words.iter().copied());
        ElectCmd::new(&sandbox).program(program).run()
    };
    elect(&["run", "-b", "cron", "--folower", "x", "--", "true"]).fails_with(2, &["--folower", "'--follower'"]);
    elect(&["run", "-b", "cron", "--boundry", "x", "--", "true"]).fails_with(2, &["'--boundary'", "elect run --help"]);
    elect(&["stats"]).fails_with(2, &["'stats'", "'status'"]);
    for (word, meant) in [("lock", "elect run -b NAME -- COMMAND"), ("list", "elect status"), ("version", "--version")]
    {
        elect(&[word]).fails_with(2, &[word, "did you mean", meant]);
    }
    // A flag of the command's, before it.
    elect(&["run", "-b", "cron", "--port", "80", "--", "true"]).fails_with(2, &["--port", "'-- --port'"]);
    elect(&["--boundary", "cron", "--", "true"]).fails_with(2, &["--boundary", "elect run"]);
    elect(&["run", "true", "-b", "cron"]).fails_with(2, &["no boundary", "before the command"]);
    sandbox.is_left_empty();
}

#[test]
fn a_command_that_is_not_there_is_found_out_before_campaigning() {
    let sandbox = Sandbox::new();
    for command in ["no-such-command", "/no/such/command", "./no-such-command"] {
        ElectCmd::new(&sandbox).command([command]).run().fails_with(127, &[command, "not found"]);
    }
    assert!(!sandbox.locks().exists(), "nobody campaigned");
    sandbox.is_left_empty();
}

#[test]
fn a_command_that_cannot_be_executed_is_found_out_before_campaigning() {
    let sandbox = Sandbox::new();
    let script = sandbox.path().join("job.sh");
    fs::write(&script, "#!/bin/sh\n").expect("the place takes a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).expect("a file of ours");
    for command in [script.as_path(), sandbox.path()] {
        let ended = ElectCmd::new(&sandbox).command([command]).run();
        ended.fails_with(126, &[&command.display().to_string()]);
    }
    assert!(!sandbox.locks().exists(), "nobody campaigned");
    sandbox.is_left_empty();
}

#[test]
fn a_command_that_fails_to_execute_gives_the_boundary_back() {
    let sandbox = Sandbox::new();
    let (script, shell) = (sandbox.path().join("job.sh"), sandbox.path().join("shell"));
    executables::copy("/bin/sh", &shell);
    executables::script(&script, &format!("#!{}\n", shell.display()));
    let leader = ElectCmd::new(&sandbox).command(["sleep", "600"]).start();
    leader.wait_for_log("leader command started");
    let mut next = ElectCmd::new(&sandbox).command([&script]).start();
    next.wait_until_waiting();
    // It was there when elect looked for it.
    fs::remove_file(&shell).expect("a file of ours");
    leader.terminate();
    next.ends_with(127);
    let log = next.log();
    assert!(["cannot be executed", "No such file", "interpreter"].iter().all(|word| log.contains(word)), "{log}");
    sandbox.is_left_empty();
    assert_eq!(ElectCmd::new(&sandbox).command(["true"]).run().status.code(), Some(0), "the boundary is free");
}

#[test]
fn a_file_that_is_no_script_runs_under_the_shell_as_everywhere() {
    let sandbox = Sandbox::new();
    let script = sandbox.path().join("job");
    executables::script(&script, "echo \"$1\"; exit 5\n");
    let ended = ElectCmd::new(&sandbox).command([script.as_os_str(), "word".as_ref()]).run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(5), "word\n"), "{ended:?}");
}

/// It has a mount namespace of its own, and is PID 1.
const AS_INIT: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

#[test]
fn as_pid_1_the_file_store_has_to_be_named() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).store(None).wrapped_by(AS_INIT).command(["true"]).run();
    ended.fails_with(2, &["PID 1", "--store file:DIR"]);
    let ended = ElectCmd::new(&sandbox).store("file:".to_owned()).wrapped_by(AS_INIT).command(["true"]).run();
    ended.fails_with(2, &["PID 1", "--store file:DIR"]);
    let ended = ElectCmd::new(&sandbox).wrapped_by(AS_INIT).command(["sh", "-c", "exit 7"]).run();
    assert_eq!(ended.status.code(), Some(7), "a named one will do: {ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn as_pid_1_a_signal_becomes_128_and_its_number() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).wrapped_by(AS_INIT).shell("kill -TERM $$").run();
    assert_eq!(ended.status.code(), Some(143), "{ended:?}");
    sandbox.is_left_empty();
}
