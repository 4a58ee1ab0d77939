//! Recipes around services: each runs with the program that it is for, or with a stand-in where that is a service of others.

use std::fs;

use nix::sys::signal::Signal;

use super::RecipeSandbox;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, docs_under_test, eventually, host_tools, processes, until};
use crate::postgres::server;

/// Candidates with control sockets of their own.
fn types(workspace: &RecipeSandbox, line: &str) -> ElectCmd {
    let directory = workspace.path("control").display().to_string();
    workspace.types(line).variable("ELECT_RUNTIME_DIR", &directory)
}

fn recipe(workspace: &RecipeSandbox, name: &str) {
    workspace.script(name, &docs_under_test::read(&format!("recipes/{name}")));
}

#[test]
fn shellcheck_takes_every_script_and_no_broken_one() {
    let shellcheck = docs_under_test::tool("shellcheck");
    let check = |path: &str| host_tools::attempt([shellcheck.as_str(), "--severity", "warning", path]);
    let mut seen = 0;
    for entry in fs::read_dir(docs_under_test::root().join("recipes")).expect("recipes") {
        let path = entry.expect("a recipe").path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            check(path.to_str().expect("plain text")).expect("tests/run installs shellcheck");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
    let workspace = RecipeSandbox::new();
    workspace.script("broken.sh", "#!/bin/sh\n[[ $1 = a ]]\n");
    check(workspace.path("broken.sh").to_str().expect("plain text")).expect_err("sh has no [[");
}

#[test]
fn the_compose_file_keeps_to_its_specification() {
    let tool = docs_under_test::tool("check-jsonschema");
    let check = |path: &str| host_tools::attempt([tool.as_str(), "--builtin-schema", "vendor.compose-spec", path]);
    let file = docs_under_test::root().join("recipes/compose.yaml");
    check(file.to_str().expect("plain text")).expect("tests/run installs check-jsonschema");
    let workspace = RecipeSandbox::new();
    let broken = workspace.path("compose.yaml");
    let text = docs_under_test::read("recipes/compose.yaml");
    fs::write(&broken, text.replace("stop_grace_period", "stop_grace")).expect("written");
    check(broken.to_str().expect("plain text")).expect_err("there is no such field");
    let store = text.lines().find_map(|line| line.trim().strip_prefix("ELECT_STORE: ")).expect("a store");
    let plan = workspace.types(&format!("elect plan --store {store}")).run();
    assert!(plan.status.success(), "{plan:?}");
}

#[test]
fn honcho_takes_the_procfile_and_one_consumer_of_two_hosts_runs() {
    let honcho = docs_under_test::tool("honcho");
    let file = docs_under_test::root().join("recipes/Procfile").display().to_string();
    let said = host_tools::attempt(["sh", "-c", "\"$0\" -f \"$1\" check 2>&1", &honcho, &file]).expect("honcho");
    assert!(said.contains("(web, consumer, clock)"), "{said}");
    let workspace = RecipeSandbox::new();
    workspace.script("bin/python", "#!/bin/sh\necho \"$*\" >>consumed\nexec flock -n consuming sleep 600\n");
    let text = docs_under_test::read("recipes/Procfile");
    let line = text.lines().find_map(|line| line.strip_prefix("consumer: ")).expect("a consumer");
    let url = workspace.sandbox.store();
    let start = || types(&workspace, line).variable("DATABASE_URL", &url).start();
    let hosts = [start(), start()];
    until("one consumes", || workspace.lines("consumed") == 1);
    until("the other waits", || hosts.iter().any(|host| host.log().contains(" leads")));
    assert_eq!(fs::read_to_string(workspace.path("consumed")).expect("noted"), "manage.py consume\n");
}

#[test]
fn a_job_under_way_is_finished_before_the_runner_hands_over() {
    let workspace = RecipeSandbox::new();
    recipe(&workspace, "runner.sh");
    workspace.script(
        "run.sh",
        "#!/bin/sh\necho begun >>jobs\nuntil [ -e go ]; do sleep 0.05; done\necho done >>jobs\nsleep 0.2\n",
    );
    let runner = types(&workspace, "exec elect run -b runner --stop-timeout 60s -- ./runner.sh ./run.sh").start();
    until("a job is under way", || workspace.lines("jobs") == 1);
    let mut resign = types(&workspace, "exec elect resign -b runner").start();
    runner.wait_for_log("asked to resign");
    assert_eq!(workspace.lines("jobs"), 1, "it goes on");
    fs::write(workspace.path("go"), "").expect("written");
    resign.wait();
    runner.wait_for_log("leader command ended status=0");
    let jobs = fs::read_to_string(workspace.path("jobs")).expect("noted");
    assert!(jobs.starts_with("begun\ndone\n"), "{jobs}");
    runner.terminate();
}

#[test]
fn a_rolling_restart_costs_one_hand_over_and_the_leader_comes_last() {
    let workspace = RecipeSandbox::new();
    recipe(&workspace, "rolling-restart.sh");
    workspace.script("serve", "#!/bin/sh\necho \"$ELECT_NAME\" >>served\nexec flock -n serving sleep 600\n");
    // A host that starts its candidate again, as systemd would.
    let host =
        "#!/bin/sh\nuntil [ -e end ]; do elect run -b web --name $1 -- ./serve & echo $! >$1.pid; wait $!; done\n";
    workspace.script("host.sh", host);
    let ssh = "#!/bin/sh\n[ \"$2 $3 $4\" = 'systemctl restart elect@web' ] || exit 1\necho $1 >>restarted\n\
               old=$(cat $1.pid)\nkill $old\nwhile [ \"$(cat $1.pid)\" = \"$old\" ]; do sleep 0.05; done\n";
    workspace.script("bin/ssh", ssh);
    let start = |name: &str| types(&workspace, &format!("exec ./host.sh {name}")).start();
    let names = ["web-1", "web-2", "web-3"];
    let first = start(names[1]);
    until("it serves", || workspace.lines("served") == 1);
    let others = [start(names[0]), start(names[2])];
    for host in &others {
        host.wait_for_log("waiting: web-2 leads");
    }
    let ended = types(&workspace, "./rolling-restart.sh web web-1 web-2 web-3").run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(fs::read_to_string(workspace.path("restarted")).expect("noted"), "web-1\nweb-3\nweb-2\n");
    until("another one serves", || workspace.lines("served") == 2);
    fs::write(workspace.path("end"), "").expect("written");
    for name in names {
        let pid = fs::read_to_string(workspace.path(&format!("{name}.pid"))).expect("noted");
        processes::signal(pid.trim().parse().expect("a process"), Signal::SIGTERM);
    }
    for mut host in others.into_iter().chain([first]) {
        host.wait();
    }
    assert!(workspace.lines("served") <= 4, "each one serves at most once while the others stop");
}

/// In the network of the process `holder`.
fn in_network(holder: i32, words: &str) -> Result<String, String> {
    host_tools::attempt(["nsenter", "-t", &holder.to_string(), "--net", "sh", "-c", words])
}

#[test]
fn a_virtual_address_ends_with_its_command_even_after_sigkill() {
    let workspace = RecipeSandbox::new();
    recipe(&workspace, "vip.sh");
    let holder = workspace.types("exec unshare --net sh -c 'ip link set lo up && exec sleep 600'").start();
    let is_up = || in_network(holder.pid(), "ip -o link show up").is_ok_and(|links| links.contains(" lo:"));
    until("it has a network (this test needs root; in a container, --privileged)", || {
        processes::name(holder.pid()).as_deref() == Some("sleep") && is_up()
    });
    let has_address = || in_network(holder.pid(), "ip -o address").expect("ip").contains("10.0.0.9/32");
    let line = format!("exec nsenter -t {} --net elect run -b vip -- ./vip.sh 10.0.0.9/32 lo", holder.pid());
    let leader = types(&workspace, &line).start();
    until("the address is there", has_address);
    leader.terminate();
    assert!(!has_address(), "it is gone before the boundary is released");
    let mut leader = types(&workspace, &line).start();
    until("the address is there again", has_address);
    let main = processes::children(leader.keeper())[0];
    processes::signal(main, Signal::SIGKILL);
    leader.wait();
    until("the kernel removes it", || !has_address());
}

#[test]
fn one_beat_of_two_sends_and_the_other_one_follows_when_elect_is_killed() {
    let workspace = RecipeSandbox::new();
    recipe(&workspace, "celery-beat.sh");
    // Debian's, whatever other Python is first on the path.
    workspace.script("bin/celery", "#!/bin/sh\nexec /usr/bin/python3 -m celery \"$@\"\n");
    fs::write(workspace.path("shop.py"), "from celery import Celery\napp = Celery('shop', broker='memory://')\n")
        .expect("written");
    let start = |name: &str| -> CandidateProcess {
        fs::create_dir(workspace.path(name)).expect("created");
        let line = "exec elect run -b celery-beat --stop-timeout 30s -- ./celery-beat.sh shop";
        let place = workspace.path(name).display().to_string();
        types(&workspace, line).variable("TMPDIR", &place).variable("ELECT_NAME", name).start()
    };
    let said = |host: &CandidateProcess| (host.log() + &host.output()).contains("beat: Starting");
    let mut first = start("web-1");
    until("it beats", || said(&first));
    let second = start("web-2");
    second.wait_for_log("waiting: web-1 leads");
    assert!(!said(&second));
    first.signal(Signal::SIGKILL);
    first.wait();
    until("the other one beats", || said(&second));
    until("its schedule is its own", || {
        fs::read_dir(workspace.path("web-2")).is_ok_and(|mut files| files.next().is_some())
    });
    second.terminate();
}

#[test]
fn postgresql_on_a_shared_volume_has_one_server_and_refuses_an_earlier_term() {
    let workspace = RecipeSandbox::of(Sandbox::new().open_to_all());
    recipe(&workspace, "postgres-primary.sh");
    // PostgreSQL does not run as root.
    let user = "setpriv --reuid postgres --regid postgres --clear-groups";
    let program = |name: &str| format!("{user} {}", server::program(name).display());
    let (data, sockets) = (workspace.path("data"), workspace.path("sockets"));
    let (data, sockets) = (data.to_str().expect("plain text"), sockets.to_str().expect("plain text"));
    let make = format!(
        "mkdir {data} {sockets} && chown postgres {data} {sockets} && cd / && {} -A trust -N -D {data}",
        program("initdb")
    );
    host_tools::as_root(["sh", "-c", &make]);
    workspace.script("bin/postgres", &format!("#!/bin/sh\nexec {} \"$@\"\n", program("postgres")));
    let sql = |text: &str| host_tools::attempt(["psql", "-h", sockets, "-U", "postgres", "-Atc", text, "postgres"]);
    let line = format!(
        "exec elect run -b pg --stop-signal INT --stop-timeout 60s -- ./postgres-primary.sh -k {sockets} -c listen_addresses="
    );
    let start = || types(&workspace, &line).variable("PGDATA", data).start();
    let mut first = start();
    until("it answers", || sql("SELECT 1").is_ok());
    let second = start();
    second.wait_for_log("waiting: ");
    sql("CREATE TABLE t AS SELECT 7 AS x").expect("written");
    let term = || fs::read_to_string(workspace.path("data/elect.term")).expect("noted").trim().to_owned();
    let earlier = term();
    first.signal(Signal::SIGKILL);
    first.wait();
    let answer = eventually("the next one answers", || {
        second.log().contains("leader command started").then(|| sql("SELECT x FROM t").ok()).flatten()
    });
    assert_eq!(answer.trim(), "7");
    assert!(term().parse::<u64>().expect("a term") > earlier.parse::<u64>().expect("a term"));
    second.terminate();
    let stale = types(&workspace, "./postgres-primary.sh").variable("PGDATA", data).variable("ELECT_TERM", &earlier);
    let stale = stale.run();
    assert_eq!(stale.status.code(), Some(1), "{stale:?}");
    stale.stderr_contains(&[&format!("term {earlier} is over")]);
}
