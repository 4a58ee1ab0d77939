//! The manifests with a store in the cluster: their commands campaign at an API server of the tests', with the rights that the
//! manifests ask for and no others.

use serde_json::{Value, json};

use super::RecipeSandbox;
use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, docs_under_test, host_tools, until};
use crate::kubernetes::double::{ApiServer, Kind};
use crate::kubernetes::namespace;

const MANIFESTS: [&str; 5] = ["deployment", "statefulset", "sidecar", "schedule", "copied"];
const VERBS: [&str; 7] = ["get", "create", "update", "watch", "list", "patch", "delete"];

fn path(name: &str) -> String {
    docs_under_test::root().join(format!("recipes/kubernetes-{name}.yaml")).display().to_string()
}

/// Its objects as JSON.
fn objects(name: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = host_tools::attempt([docs_under_test::tool("python3").as_str(), "-c", script, &path(name)]);
    serde_json::from_str(&text.expect("it is YAML")).expect("JSON")
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Nothing but what the Role of this manifest allows; of the first one, if it has none.
fn permit(server: &ApiServer, objects: &[Value]) {
    let first = self::objects(MANIFESTS[0]);
    let role = of_kind(objects, "Role").next().or_else(|| of_kind(&first, "Role").next()).expect("a Role");
    let allows = |verb: &str, resource: &str| {
        let has = |list: &Value, word: &str| list.as_array().expect("a list").iter().any(|each| each == word);
        role["rules"]
            .as_array()
            .expect("rules")
            .iter()
            .any(|rule| has(&rule["resources"], resource) && has(&rule["verbs"], verb))
    };
    for (verb, resource) in VERBS.iter().flat_map(|verb| ["leases", "pods"].map(|resource| (*verb, resource))) {
        if !allows(verb, resource) {
            server.deny(verb, resource);
        }
    }
}

#[test]
fn every_manifest_keeps_to_the_schema() {
    let validate = docs_under_test::tool("kubernetes-validate");
    for name in MANIFESTS {
        let said = host_tools::attempt([validate.as_str(), "--strict", &path(name)]);
        said.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_manifests_command_leads_with_the_rights_that_it_asks_for() {
    for name in MANIFESTS {
        let objects = objects(name);
        let workload = objects.iter().find(|object| object["spec"]["template"].is_object()).expect("a workload");
        let pod = &workload["spec"]["template"]["spec"];
        let all = pod["containers"].as_array().into_iter().chain(pod["initContainers"].as_array()).flatten();
        let is_elect = |word: &Value| word.as_str().is_some_and(|word| word.ends_with("elect"));
        let container = all.into_iter().find(|container| is_elect(&container["command"][0])).expect("a container");
        let workspace = RecipeSandbox::new();
        let server = ApiServer::start();
        permit(&server, &objects);
        let team = namespace(&workspace.sandbox.database());
        server.with_objects(|objects| objects.add(Kind::Pod, &team, "pod-0", json!({ "metadata": { "labels": {} } })));
        let port = free_port();
        let words = container["command"].as_array().expect("words").iter().skip(1);
        let words: Vec<String> = words
            .map(|word| word.as_str().expect("a word").replace("127.0.0.1:9000", ":9000"))
            .map(|word| if word == ":9000" { format!("127.0.0.1:{port}") } else { word })
            .collect();
        assert_eq!(words.last().is_some_and(|word| word == "--"), container["args"].is_array(), "{name}: {words:?}");
        let args: &[&str] = if container["args"].is_array() { &["sleep", "600"] } else { &[] };
        let words = words.into_iter().chain(args.iter().map(|word| (*word).to_owned()));
        let mut elect = ElectCmd::new(&workspace.sandbox).program([docs_under_test::elect()]).command(words);
        for variable in container["env"].as_array().expect("variables") {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => "pod-0".to_owned(),
                Some("metadata.namespace") => team.clone(),
                Some(other) => panic!("{name}: {other}"),
                None => variable["value"].as_str().expect("a value").replace("$(POD_NAME)", "pod-0"),
            };
            let is_store = variable["name"] == "ELECT_STORE";
            assert!(!is_store || value == "kubernetes:", "{name}: {value}");
            let value = if is_store { server.url_for(&workspace.sandbox) } else { value };
            elect = elect.variable(variable["name"].as_str().expect("a name"), &value);
        }
        let leader = elect.start();
        leader.wait_for_log(if container["args"].is_array() { "leader command started" } else { "elected" });
        for probe in ["readinessProbe", "livenessProbe"].iter().filter(|probe| container[**probe].is_object()) {
            let path = container[*probe]["httpGet"]["path"].as_str().expect("a path");
            until(&format!("{name}: {path} answers"), || super::containers::is_well(port, path));
        }
        for service in
            of_kind(&objects, "Service").filter(|service| service["spec"]["selector"]["database-role"].is_string())
        {
            let (key, value) = ("database-role", service["spec"]["selector"]["database-role"].as_str());
            until("the Service finds the leader", || {
                server.with_objects(|objects| {
                    let pod = objects.get(Kind::Pod, &team, "pod-0").expect("a pod");
                    pod["metadata"]["labels"][key].as_str() == value
                })
            });
        }
        leader.terminate();
        assert!(server.lease(&team, "cron").is_none(), "{name}: it has a boundary of its own");
    }
}
