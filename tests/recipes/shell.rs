//! Command lines and scripts.

use std::fs;

use nix::sys::signal::Signal;

use super::{RecipeSandbox, block};
use crate::harness::{CandidateProcess, docs_under_test, eventually, host_tools, processes, until};

/// In elect's stead: has the words understood without doing anything, since other candidates of this user are not to be
/// asked to resign. What each comes to is noted.
const LISTENER: &str = r#"#!/bin/sh
words="$*" last=
for word; do
  case $last in
    # Where nobody can be reached.
    -s|--store) unshare --net timeout 5 "$ELECT" status any --store "$word" >/dev/null 2>>said
      [ $? != 2 ] || echo "2 $words" >>asked ;;
  esac
  last=$word
done
case $1 in
  run) shift; set -- plan "$@" ;;
  plan) ;;
  *) set -- "$@" --help ;;
esac
"$ELECT" "$@" >/dev/null 2>>said
echo "$? $words" >>asked
"#;

const VERBS: [&str; 13] = [
    "run",
    "status",
    "assert",
    "extend",
    "resign",
    "drain",
    "undrain",
    "proclaim",
    "watch",
    "wait",
    "plan",
    "check",
    "completions",
];

/// Every line of a block of shell in README and its pages, or of the manual, that is one of elect's.
fn command_lines() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for path in docs_under_test::readme_and_pages() {
        let text = fs::read_to_string(path).expect("readable");
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        lines.extend(blocks.flat_map(str::lines).map(str::to_owned));
    }
    for entry in fs::read_dir(docs_under_test::root().join("man")).expect("man pages") {
        let page = fs::read_to_string(entry.expect("a page").path()).expect("readable");
        lines.extend(docs_under_test::plain(&page).lines().map(|line| line.trim().to_owned()));
    }
    lines.retain(|line| {
        let words: Vec<&str> = line.split_whitespace().skip_while(|word| word.contains('=')).take(2).collect();
        words.len() == 2 && words[0] == "elect" && VERBS.contains(&words[1]) && !line.contains("[-h|--help]")
    });
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn every_command_line_that_is_shown_is_understood() {
    let workspace = RecipeSandbox::new();
    fs::remove_file(workspace.path("bin/elect")).expect("it is there");
    workspace.script("bin/elect", LISTENER);
    let lines = command_lines();
    assert!(lines.len() >= 20, "{lines:?}");
    for line in &lines {
        let before = workspace.lines("asked");
        workspace
            .types(&format!("{line}\nwait"))
            .variable("ELECT", docs_under_test::elect())
            .variable("REDIS_URL", "redis://:secret@127.0.0.1:6379/2")
            .run();
        assert!(workspace.lines("asked") > before, "nothing was asked by {line:?}");
    }
    let asked = fs::read_to_string(workspace.path("asked")).expect("noted");
    let said = fs::read_to_string(workspace.path("said")).unwrap_or_default();
    let wrong: Vec<&str> = asked.lines().filter(|line| !line.starts_with("0 ")).collect();
    assert_eq!(wrong, [""; 0], "{said}");
}

#[test]
fn a_command_line_that_is_not_understood_would_be_noticed() {
    let workspace = RecipeSandbox::new();
    fs::remove_file(workspace.path("bin/elect")).expect("it is there");
    workspace.script("bin/elect", LISTENER);
    for line in [
        "elect run -b web --folower x -- ./serve",
        "elect run -s redis: -b x --ttl 1ms -- x",
        "elect run -s redus: -b x -- x",
        "elect resign -b web --no-such-flag",
        "elect wait web --for green",
    ] {
        workspace.types(line).variable("ELECT", docs_under_test::elect()).run();
    }
    let asked = fs::read_to_string(workspace.path("asked")).expect("noted");
    assert_eq!(asked.lines().filter(|line| line.starts_with("2 ")).count(), 5, "{asked}");
}

#[test]
fn the_tour_of_one_host_goes_as_it_is_told() {
    let workspace = RecipeSandbox::new();
    let line = format!("exec {}", block("## Two-minute tour"));
    let first = workspace.types(&line).start();
    first.wait_for_log("leader command started");
    let second = workspace.types(&line).start();
    second.wait_for_log("waiting: ");
    let query = block("stopped (Ctrl-C), or is killed. Meanwhile, in a third:");
    for ask in query.lines().filter(|ask| !ask.starts_with("elect watch")) {
        let ended = workspace.types(ask).run();
        assert_eq!(ended.status.code(), Some(0), "{ask}: {ended:?}");
        assert!(ended.stdout.contains("demo") || ask.starts_with("elect plan"), "{ask}: {ended:?}");
    }
    let mut watch = workspace.types("exec elect watch demo").start();
    until("it says who leads", || watch.output().contains(" leads"));
    watch.signal(Signal::SIGTERM);
    watch.wait();
    first.terminate();
    second.wait_for_log("leader command started");
    second.terminate();
}

/// The schedule's command, as cron gives it to sh.
fn job() -> String {
    let crontab = docs_under_test::read("recipes/crontab");
    let line = crontab.lines().find(|line| line.starts_with(char::is_numeric)).expect("a job");
    let mut rest = line;
    for _ in 0..5 {
        rest = rest.trim_start().split_once(char::is_whitespace).expect("five fields").1;
    }
    rest.trim().to_owned()
}

#[test]
fn a_job_in_three_crontabs_runs_once_and_with_a_plain_run_three_times() {
    assert!(job().starts_with("elect run "), "{}", job());
    let plain = job().replace("-q -n --min-hold 1m ", "");
    assert_ne!(plain, job());
    for (job, runs) in [(job(), 1), (plain, 3)] {
        let workspace = RecipeSandbox::new();
        workspace.script("nightly.sh", "#!/bin/sh\necho ran >>runs\n");
        let mut hosts: Vec<CandidateProcess> =
            (0..3).map(|_| workspace.types(&format!("exec {job}")).start()).collect();
        if runs == 1 {
            until("all but the leader have ended", || {
                hosts.iter_mut().filter_map(|host| host.has_ended().then_some(())).count() == 2
            });
            until("it has run", || workspace.lines("runs") == 1);
            let losers: Vec<&CandidateProcess> = hosts.iter().filter(|host| !processes::is_alive(host.pid())).collect();
            assert!(losers.iter().all(|loser| loser.log().is_empty()), "they print nothing");
            // For whoever comes within the minute, it still leads.
            let late = workspace.types(&format!("exec {job}")).run();
            assert_eq!((late.status.code(), late.stderr.as_str()), (Some(75), ""), "{late:?}");
        } else {
            until("all have ended", || hosts.iter_mut().all(CandidateProcess::has_ended));
        }
        assert_eq!(workspace.lines("runs"), runs);
    }
}

#[test]
fn cron_takes_the_crontab() {
    let crontab = docs_under_test::root().join("recipes/crontab");
    host_tools::attempt(["crontab", "-n", crontab.to_str().expect("plain text")]).expect("cron checks it");
    let workspace = RecipeSandbox::new();
    let broken = workspace.path("crontab");
    fs::write(&broken, docs_under_test::read("recipes/crontab").replace("0 3 *", "0 33 *")).expect("written");
    host_tools::attempt(["crontab", "-n", broken.to_str().expect("plain text")]).expect_err("there is no such hour");
}

#[test]
fn a_write_of_a_term_that_is_over_is_refused_by_the_database() {
    let workspace = RecipeSandbox::new();
    let database = workspace.path("database");
    let database = database.to_str().expect("plain text");
    let sql = |text: &str| host_tools::attempt(["sqlite3", database, text]).expect("sqlite3: tests/run installs it");
    sql(&docs_under_test::read("recipes/fence.sql"));
    workspace.script("ledger.sh", &docs_under_test::read("recipes/ledger.sh"));
    let write =
        |term: &str| workspace.types("./ledger.sh").variable("DATABASE", database).variable("ELECT_TERM", term).run();
    let lead = || {
        let ended = workspace.types("elect run -b billing -- sh -c './ledger.sh && ./ledger.sh'");
        let ended = ended.variable("DATABASE", database).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        sql("SELECT max(term) FROM ledger").trim().to_owned()
    };
    let first = lead();
    let second = lead();
    assert!(first.parse::<u64>().expect("a term") < second.parse::<u64>().expect("a term"));
    // It was frozen, and thaws.
    let stale = write(&first);
    assert_eq!(stale.status.code(), Some(1), "{stale:?}");
    assert!(stale.stderr.contains(&format!("term {first} is over")), "{stale:?}");
    assert_eq!(write(&second).status.code(), Some(0), "the latest may go on");
    assert_eq!(sql(&format!("SELECT count(*) FROM ledger WHERE term = {first}")).trim(), "2");
    assert_eq!(sql("SELECT count(*) FROM ledger").trim(), "5");
    // All at once: whatever the order, no earlier term follows a later one.
    let writers: Vec<CandidateProcess> = (1..=20_u64)
        .map(|n| {
            let term = (second.parse::<u64>().expect("a term") + n).to_string();
            workspace.types("./ledger.sh").variable("DATABASE", database).variable("ELECT_TERM", &term).start()
        })
        .collect();
    for mut writer in writers {
        writer.wait();
    }
    let terms = sql("SELECT term FROM ledger ORDER BY rowid");
    let terms: Vec<u64> = terms.lines().map(|term| term.parse().expect("a term")).collect();
    assert!(terms.is_sorted() && terms.len() > 5, "{terms:?}");
}

#[test]
fn green_is_warm_before_blue_ends_and_one_of_them_serves() {
    let workspace = RecipeSandbox::new();
    // Control commands reach every candidate of this user on this host: those of other tests, too.
    let web = format!("web-{}", std::process::id());
    let recipe = docs_under_test::read("recipes/blue-green.sh").replace("-b web", &format!("-b {web}"));
    workspace.script("blue-green.sh", &recipe.replace("wait web", &format!("wait {web}")));
    let serve = "#!/bin/sh\necho \"$ELECT_NAME\" >>served\nexec flock -n serving sleep 600\n";
    workspace.script("serve", serve);
    workspace.script("green/serve", serve);
    workspace.script("green/standby", "#!/bin/sh\n: >green/warm\nexec sleep 600\n");
    let mut blue = workspace.types(&format!("exec elect run -b {web} --name blue -- ./serve")).start();
    until("blue serves", || workspace.lines("served") == 1);
    let deployment = workspace.types(&format!("exec ./blue-green.sh {}", blue.pid())).start();
    until("green serves", || workspace.lines("served") == 2);
    blue.wait();
    assert_eq!(fs::read_to_string(workspace.path("served")).expect("noted"), "blue\ngreen\n");
    assert!(workspace.path("green/warm").exists());
    let leader = eventually("green leads", || {
        let seen = workspace.types(&format!("elect status {web}")).run();
        seen.status.success().then_some(seen.stdout)
    });
    assert!(leader.contains("green"), "{leader}");
    drop(deployment);
}

#[test]
fn three_hosts_are_maintained_one_after_the_other_and_one_leads_meanwhile() {
    let workspace = RecipeSandbox::new();
    workspace.script("maintain.sh", &docs_under_test::read("recipes/maintain.sh"));
    workspace.script("serve", "#!/bin/sh\necho \"$ELECT_NAME\" >>served\nexec flock -n serving sleep 600\n");
    // Each candidate has a runtime directory of its own, as on a host of its own.
    let hosts = ["web-1", "web-2", "web-3"].map(|name| {
        let directory = workspace.path(name).display().to_string();
        let run = workspace.types(&format!("exec elect run -b web --name {name} -- ./serve"));
        let candidate = run.variable("ELECT_RUNTIME_DIR", &directory).start();
        candidate.wait_for_log("campaigning in");
        (name, directory, candidate)
    });
    until("one serves", || workspace.lines("served") == 1);
    let mut led = 1;
    for (name, directory, _) in &hosts {
        let leads = |name: &str| {
            let status = workspace.types("elect status web").run();
            status.stdout.contains(&format!("web: {name} leads"))
        };
        led += usize::from(leads(name));
        let maintain = format!("./maintain.sh sh -c 'echo {name} >>maintained; elect status web >during-{name}'");
        let ended = workspace.types(&maintain).variable("ELECT_RUNTIME_DIR", directory).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let during = fs::read_to_string(workspace.path(&format!("during-{name}"))).expect("noted");
        assert!(during.contains(" leads") && !during.contains(&format!("web: {name} leads")), "{during}");
        until("the next one serves", || workspace.lines("served") == led);
    }
    assert_eq!(fs::read_to_string(workspace.path("maintained")).expect("noted"), "web-1\nweb-2\nweb-3\n");
    for (_, _, candidate) in hosts {
        candidate.terminate();
    }
}

/// As `docs/comparison.md` says of it.
#[test]
fn flock_leaves_its_command_behind_and_the_lock_with_it() {
    let workspace = RecipeSandbox::new();
    let mut flock = workspace.types("exec flock lock sh -c 'echo $$ >pid; exec sleep 600'").start();
    let command: i32 = eventually("it runs", || fs::read_to_string(workspace.path("pid")).ok()?.trim().parse().ok());
    flock.signal(Signal::SIGKILL);
    flock.wait();
    assert!(processes::is_alive(command), "the command runs on");
    assert_eq!(workspace.types("flock -n lock true").run().status.code(), Some(1), "and keeps the lock");
}

#[test]
fn the_session_that_the_readme_shows_is_recorded_from_a_run() {
    let workspace = RecipeSandbox::new();
    let (script, picture) = (docs_under_test::root().join("docs/failover.py"), workspace.path("picture.svg"));
    let line = format!("exec python3 {} {} {}", script.display(), docs_under_test::elect(), picture.display());
    let ended = workspace.types(&line).run();
    assert!(ended.status.success(), "{ended:?}");
    assert!(docs_under_test::read("README.md").contains("(docs/failover.svg)"));
    let check = "import sys, xml.dom.minidom as m; print(len(m.parse(sys.argv[1]).getElementsByTagName('rect')))";
    for picture in [picture, docs_under_test::root().join("docs/failover.svg")] {
        let terminals = host_tools::attempt(["python3", "-c", check, picture.to_str().expect("plain text")]);
        assert_eq!(terminals.expect("it is XML").trim(), "3", "terminals");
        let text = fs::read_to_string(picture).expect("readable");
        let order = ["waiting: alpha leads", "alpha leads at", "kill -9 ", "beta leads at"];
        let places: Vec<usize> = order.iter().map(|part| text.find(part).expect("it is shown")).collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(text.matches("leader command started").count(), 2, "{text}");
        assert!(text.contains("the campaigner has died"), "{text}");
    }
}

#[test]
fn the_picture_of_a_hand_over_is_made_from_a_run() {
    let workspace = RecipeSandbox::new();
    let (script, picture) = (docs_under_test::root().join("docs/handover.py"), workspace.path("picture.svg"));
    let line = format!("exec python3 {} {} {}", script.display(), docs_under_test::elect(), picture.display());
    let ended = workspace.types(&line).run();
    assert!(ended.status.success(), "{ended:?}");
    let check = "import sys, xml.dom.minidom as m; print(len(m.parse(sys.argv[1]).getElementsByTagName('rect')))";
    for picture in [picture, docs_under_test::root().join("docs/handover.svg")] {
        let rectangles =
            host_tools::attempt(["python3", "-c", check, picture.to_str().expect("plain text")]).expect("it is XML");
        assert_eq!(rectangles.trim(), "4", "the background, and three who led");
        let text = fs::read_to_string(picture).expect("readable");
        assert_eq!((text.matches("next after").count(), text.matches("kill -9").count()), (2, 1), "{text}");
    }
}
