//! The Dockerfile and the manifest. There is no registry here and no cluster: what a container is made of is put together
//! from this machine, and what a cluster would ask is asked.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::RecipeSandbox;
use crate::harness::empty_root::{self, EmptyRoot};
use crate::harness::executables;
use crate::harness::{
    ElectCmd, docs_under_test, eventually, host_tools, http_client, ports::free_port, processes, until,
};

#[test]
fn hadolint_takes_the_dockerfiles_and_no_broken_one() {
    let hadolint = docs_under_test::tool("hadolint");
    let workspace = RecipeSandbox::new();
    for name in ["Dockerfile", "Dockerfile.static"] {
        let file = docs_under_test::root().join("recipes").join(name);
        let said = host_tools::attempt([hadolint.as_str(), file.to_str().expect("plain text")])
            .expect("tests/run installs hadolint");
        assert_eq!(said, "");
        let broken = workspace.path(name);
        let text = docs_under_test::read(&format!("recipes/{name}"));
        fs::write(&broken, text.replace("ENTRYPOINT [", "ENTRYPOINT ")).expect("written");
        host_tools::attempt([hadolint.as_str(), broken.to_str().expect("plain text")]).expect_err("it is no JSON");
    }
}

/// The image has no file but the program, as the empty root of the other tests of the static program.
#[test]
fn the_image_of_the_static_program_has_nothing_else() {
    let text = docs_under_test::read("recipes/Dockerfile.static");
    let last = text.rsplit_once("\nFROM ").expect("two stages").1;
    assert_eq!(last, "scratch\nCOPY --from=build /elect /elect\nUSER 65534:65534\nENTRYPOINT [\"/elect\"]\n");
    assert!(text.contains("RUN cp \"$(/src/build-static)\" /elect\n"), "{text}");
    if !empty_root::is_possible() {
        return;
    }
    let root = EmptyRoot::new(std::net::Ipv4Addr::LOCALHOST.into());
    let shown = root.elect(&["--version"]);
    assert!(shown.status.success() && shown.stdout.starts_with(b"elect "), "{shown:?}");
    root.leads(&["--store", "file:/locks"]);
}

/// One instruction of the last stage.
#[track_caller]
fn instruction(name: &str) -> String {
    let text = docs_under_test::read("recipes/Dockerfile");
    let last = text.rsplit_once("\nFROM ").expect("two stages").1;
    let line = last.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// A program and what the linker loads for it.
fn put(root: &Path, program: &str, at: &str) {
    let copy = |from: &str, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a directory")).expect("created");
        executables::copy(from, &to);
    };
    copy(program, at);
    for word in
        host_tools::attempt(["ldd", program]).expect("ldd").split_whitespace().filter(|word| word.starts_with('/'))
    {
        copy(word, word);
    }
}

#[test]
fn what_the_dockerfile_makes_leads_as_process_1_and_stops_as_docker_asks() {
    let workspace = RecipeSandbox::new();
    let root = workspace.path("root");
    assert_eq!(docs_under_test::read("recipes/Dockerfile").matches("COPY ").count(), 3, "those below, and the source");
    assert_eq!(instruction("COPY"), "--from=build /usr/local/bin/elect /usr/local/bin/elect");
    put(&root, docs_under_test::elect(), "/usr/local/bin/elect");
    // As the base image has them.
    put(&root, "/bin/sh", "/bin/sh");
    put(&root, "/bin/sleep", "/bin/sleep");
    workspace.script(
        "root/usr/local/bin/worker",
        "#!/bin/sh\necho working as process $$ of user $(exec sh -c 'echo $PPID')\nexec sleep 600\n",
    );
    for directory in ["proc", "tmp", "locks"] {
        fs::create_dir_all(root.join(directory)).expect("created");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(root.join("locks"), open).expect("set");
    fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).expect("set");
    let words = |name: &str| serde_json::from_str::<Vec<String>>(&instruction(name)).expect("the exec form");
    let port = free_port();
    let entry: Vec<String> = words("ENTRYPOINT")
        .into_iter()
        .chain(words("CMD"))
        .map(|word| word.replace(":9000", &format!("127.0.0.1:{port}")))
        .collect();
    let user = instruction("USER");
    let (uid, gid) = user.split_once(':').expect("a user and a group");
    let run = |store: Option<&str>| {
        let script = r#"mount -t proc proc "$1/proc" && root=$1 uid=$2 gid=$3 && shift 3 &&
            exec chroot --userspec="$uid:$gid" "$root" "$@""#;
        let inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "sh", "-c", script, "sh"];
        let elect = ElectCmd::new(&workspace.sandbox).program(inside).command(
            [root.to_str().expect("plain text"), uid, gid].map(str::to_owned).into_iter().chain(entry.clone()),
        );
        let elect = elect.variable("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        if let Some(store) = store { elect.variable("ELECT_STORE", store) } else { elect }
    };
    let told = run(None).run();
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    told.stderr_contains(&["PID 1"]);
    let mut container = run(Some("file:/locks")).start();
    container.wait_for_log("leader command started");
    until("it works", || container.output().contains("working"));
    until("/leader says so", || is_well(port, "/leader"));
    let init = eventually("process 1", || {
        processes::children(container.pid()).into_iter().find(|&pid| processes::name(pid).as_deref() == Some("elect"))
    });
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("it runs");
    assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains(uid)), "{status}");
    processes::signal(init, Signal::SIGTERM);
    container.ends_with(143);
    assert!(container.log().contains("released"), "{}", container.log());
}

/// As a probe sees it.
pub fn is_well(port: u16, path: &str) -> bool {
    http_client::get(port, path).is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.ends_with(" 200 OK")))
}

/// The manifest as JSON.
fn manifest() -> Value {
    let file = docs_under_test::root().join("recipes/kubernetes.yaml");
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let python = docs_under_test::tool("python3");
    let text =
        host_tools::attempt([python.as_str(), "-c", script, file.to_str().expect("plain text")]).expect("it is YAML");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_manifest_keeps_to_the_schema_of_kubernetes() {
    let validate = docs_under_test::tool("kubernetes-validate");
    let file = docs_under_test::root().join("recipes/kubernetes.yaml");
    host_tools::attempt([validate.as_str(), "--strict", file.to_str().expect("plain text")])
        .expect("tests/run installs it");
    let workspace = RecipeSandbox::new();
    let broken = workspace.path("broken.yaml");
    fs::write(&broken, docs_under_test::read("recipes/kubernetes.yaml").replace("readinessProbe", "readynessProbe"))
        .expect("written");
    host_tools::attempt([validate.as_str(), "--strict", broken.to_str().expect("plain text")])
        .expect_err("no such field");
}

#[test]
fn what_the_manifest_asks_for_is_answered_by_the_containers_command() {
    let manifest = manifest();
    let pod = &manifest["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // Above the stop time-out, of which the manifest sets none.
    let help = host_tools::attempt([docs_under_test::elect(), "run", "-h"]).expect("help");
    // Without the line breaks.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("[default: 8s]") && pod["terminationGracePeriodSeconds"].as_u64() > Some(8 + 2), "{pod}");
    assert_eq!(manifest["spec"]["selector"]["matchLabels"], manifest["spec"]["template"]["metadata"]["labels"]);
    // The image's entry point has to listen where the probes ask.
    let listens =
        container["ports"].as_array().expect("ports").iter().find(|port| port["name"] == "elect").expect("its port");
    assert!(
        docs_under_test::read("recipes/Dockerfile").contains(&format!("\":{}\"", listens["containerPort"])),
        "{listens}"
    );
    assert_eq!(pod["containers"][0]["securityContext"]["runAsUser"].to_string() + ":65534", {
        let user = docs_under_test::read("recipes/Dockerfile");
        user.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user").to_owned()
    });
    let workspace = RecipeSandbox::new();
    let port = free_port();
    let leader = workspace.types(&format!("exec elect run -b worker --listen 127.0.0.1:{port} -- sleep 600"));
    // Its variables, as the kubelet would fill them in; with the store of this test they are all taken.
    let mut elect = leader;
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        let value = variable["value"].as_str().unwrap_or("10.1.2.3").replace("$(POD_IP)", "10.1.2.3");
        if name == "ELECT_STORE" {
            assert!(value.starts_with("etcd://"), "{value}");
            let plan = workspace.types(&format!("elect plan --store {value}")).run();
            assert!(plan.status.success(), "{plan:?}");
        } else {
            elect = elect.variable(name, &value);
        }
    }
    let leader = elect.start();
    leader.wait_for_log("leader command started");
    for probe in ["readinessProbe", "livenessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        assert_eq!(container[probe]["httpGet"]["port"], "elect");
        until(&format!("{path} answers"), || is_well(port, path));
    }
    let status = http_client::get(port, "/status").expect("answered");
    assert!(status.contains("\"address\":\"10.1.2.3:8080\"") && status.contains("\"name\":\"10.1.2.3\""), "{status}");
    leader.terminate();
}
