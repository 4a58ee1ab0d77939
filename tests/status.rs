//! `elect status`: the leader, and the obstacles.

use serde_json::Value;

use crate::harness::{ElectCmd, Ended, Sandbox, Witness, processes, until};

fn status(sandbox: &Sandbox, words: &[&str]) -> Ended {
    ElectCmd::new(sandbox).status(words).run()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn nobody_leads_a_boundary_that_nobody_has_heard_of() {
    let sandbox = Sandbox::new();
    let ended = status(&sandbox, &["cron"]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let place = format!("  in file:{} (this host only), which does not exist\n", sandbox.locks().display());
    assert_eq!(ended.stdout, format!("cron: no leader\n  no earlier leader is known\n{place}"));
    let ended = status(&sandbox, &["cron", "--json"]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert_eq!(json(&ended)["leader"], Value::Null);
    let ended = status(&sandbox, &[]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("no boundaries"), "{ended:?}");
    assert!(!sandbox.locks().exists(), "asking makes nothing");
}

#[test]
fn a_leader_is_named_with_its_address_and_term() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox)
        .flag("--name", "web-1")
        .flag("--advertise", "10.0.0.5:8080")
        .witness(&Witness::new())
        .start();
    let term = sandbox.starts(1).latest().term;
    let ended = status(&sandbox, &["cron"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let expected = format!("cron: web-1 leads at 10.0.0.5:8080, term {term}, ");
    assert!(ended.stdout.starts_with(&expected), "{ended:?}");
    let document = json(&status(&sandbox, &["cron", "--json"]));
    assert_eq!((&document["boundary"], &document["store"]), (&Value::from("cron"), &Value::from("file")));
    let found = &document["leader"];
    assert_eq!(found["name"], "web-1");
    assert_eq!((&found["host"], &found["port"]), (&Value::from("10.0.0.5"), &Value::from(8080)));
    assert_eq!((&found["address"], &found["term"]), (&Value::from("10.0.0.5:8080"), &Value::from(term)));
    assert_eq!((&found["ttl_ms"], &found["lease_left_ms"]), (&Value::Null, &Value::Null), "leadership has no end here");
    assert!(found["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{document}");
    leader.terminate();
    assert_eq!(status(&sandbox, &["cron"]).status.code(), Some(3), "it has stopped");
}

#[test]
fn a_survey_shows_ten_thousand_boundaries_at_most_and_says_so() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.locks()).expect("not there yet");
    let add = |number: usize| {
        std::fs::write(sandbox.locks().join(format!("b{number:06}.json")), "").expect("written");
    };
    (0..9_999).for_each(add);
    let ended = status(&sandbox, &["--json"]);
    assert_eq!((ended.status.code(), ended.stdout.lines().count()), (Some(0), 9_999));
    assert_eq!(ended.stderr, "");
    (9_999..10_010).for_each(add);
    for json in [true, false] {
        let ended = status(&sandbox, if json { &["--json"] } else { &[] });
        assert_eq!(ended.status.code(), Some(0));
        assert!(ended.stdout.contains("b009999") && !ended.stdout.contains("b010000"), "json {json}");
        let note = ended.stderr.lines().last().expect("a note");
        assert!(note.contains("only the first 10000 boundaries"), "json {json}: {note}");
    }
}

#[test]
fn without_a_name_every_boundary_is_shown() {
    let sandbox = Sandbox::new();
    let one = ElectCmd::new(&sandbox).boundary("billing/nightly").witness(&Witness::new()).start();
    one.wait_for_log("leader command started");
    assert_eq!(ElectCmd::new(&sandbox).boundary("Zürich ☂").command(["true"]).run().status.code(), Some(0));
    let ended = status(&sandbox, &[]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ended:?}");
    assert!(lines[0].starts_with("BOUNDARY         LEADER  "), "{ended:?}");
    assert!(lines[1].starts_with("Zürich ☂         -  "), "{ended:?}");
    assert!(lines[2].starts_with("billing/nightly  "), "{ended:?}");
    let ended = status(&sandbox, &["--json"]);
    let boundaries: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["boundary"].clone())
        .collect();
    assert_eq!(boundaries, ["Zürich ☂", "billing/nightly"]);
    one.terminate();
}

#[test]
fn an_orphan_that_keeps_the_lock_is_named_by_its_number() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start();
    let orphan =
        sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty()).grandchildren[0].pid;
    leader.kill_with_keeper();
    leader.wait();
    until("the main process is dead", || leader.tree().len() == 1);
    let ended = status(&sandbox, &["cron"]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.stdout.starts_with("cron: no leader; "), "{ended:?}");
    assert!(ended.stdout.contains(&format!("process {orphan} (witness)")), "{ended:?}");
    let document = json(&status(&sandbox, &["cron", "--json"]));
    assert!(document["obstacle"].as_str().is_some_and(|text| text.contains(&orphan.to_string())), "{document}");
}

#[test]
fn asking_never_disturbs_an_election() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    let led = sandbox.starts(1).latest();
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    for _ in 0..20 {
        assert_eq!(status(&sandbox, &["cron"]).status.code(), Some(0));
    }
    assert!(processes::is_alive(led.pid));
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn what_cannot_be_asked_is_a_usage_error() {
    let sandbox = Sandbox::new();
    status(&sandbox, &[""]).fails_with(2, &["boundary"]);
    status(&sandbox, &["--no-such-flag"]).fails_with(2, &["--no-such-flag"]);
    ElectCmd::new(&sandbox).store("mysql:x".to_owned()).status(&["cron"]).run().fails_with(2, &["mysql"]);
    ElectCmd::new(&sandbox)
        .store("file:/etc/hostname".to_owned())
        .status(&["cron"])
        .run()
        .fails_with(77, &["/etc/hostname"]);
}
