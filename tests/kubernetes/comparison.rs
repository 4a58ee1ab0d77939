//! The double beside the genuine API server: one script of requests, whose answers agree in every field that a client may act on.
//!
//! The answers of the genuine one are in `answers.json`, so that each run compares the double with them; `--long` asks the genuine
//! one again, and `UPDATE=1` writes them. Left out are texts for people, managedFields, and the numbers behind uids, versions and
//! times: each is replaced by its rank. The library has no namespaces and no rights, so that neither is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::double::ApiServer;
use super::genuine::{GenuineServer, request};
use crate::harness::docs_under_test::root;
use crate::harness::is_long;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

struct Script {
    address: String,
    transcript: Vec<Value>,
}

impl Script {
    /// One request. Returns the answer.
    fn sends(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Value {
        let path = if path.starts_with("/api") { path.to_owned() } else { format!("{LEASES}{path}") };
        let answer = request(&self.address, method, &path, kind, "", body).expect("an answer");
        // A watch is one object in each line.
        let lines: Vec<Value> = match serde_json::from_str(&answer.body) {
            Ok(one) => vec![one],
            Err(_) => answer.body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        };
        let first = lines.first().cloned().unwrap_or_default();
        let asked = format!("{method} {path} {body}");
        self.transcript.push(json!({ "asked": asked, "code": answer.code, "answer": lines }));
        first
    }

    fn get(&mut self, path: &str) -> Value {
        self.sends("GET", path, "", "")
    }

    fn post(&mut self, object: &Value) -> Value {
        self.sends("POST", "", JSON, &object.to_string())
    }

    fn put(&mut self, name: &str, object: &Value) -> Value {
        self.sends("PUT", &format!("/{name}"), JSON, &object.to_string())
    }
}

fn named(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name }, "spec": spec })
}

/// The same object with some members changed.
fn with(object: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = object.clone();
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
        object.pointer_mut(parent).expect("it is there")[member] = value.clone();
    }
    object
}

const UID: &str = "/metadata/uid";
const VERSION: &str = "/metadata/resourceVersion";
const OTHER_UID: &str = "11111111-1111-4111-8111-111111111111";

/// A Lease from its creation to its end, with every way to miss.
fn writes(script: &mut Script) {
    script.get("/a");
    script.get("");
    let new = named("a", &json!({}));
    script.sends("POST", "?dryRun=All", JSON, &new.to_string());
    script.get("/a");
    script.sends("PUT", "/a?dryRun=All", JSON, &new.to_string());
    script.get("/a");
    let first = script.post(&new);
    script.post(&new);
    script.sends("POST", "?dryRun=All", JSON, &new.to_string());
    script.sends("PUT", "/a?dryRun=All", JSON, &new.to_string());
    script.put("a", &new);
    let held = json!({
        "holderIdentity": "one", "leaseDurationSeconds": 15, "leaseTransitions": 1,
        "acquireTime": "2026-11-29T10:00:00.000000Z", "renewTime": "2026-11-29T10:00:00.123456Z",
    });
    let second = script.put("a", &with(&first, &[("/spec", held.clone())]));
    script.put("a", &with(&first, &[("/spec", held.clone())]));
    script.put("a", &second);
    script.get("/a");
    script.put("a", &with(&second, &[(UID, OTHER_UID.into())]));
    script.put("a", &with(&second, &[(VERSION, "".into())]));
    script.put("a", &with(&second, &[(VERSION, "1".into())]));
    script.put("a", &with(&second, &[(VERSION, "x".into())]));
    script.sends("PUT", "/a?dryRun=All", JSON, &with(&second, &[("/spec/holderIdentity", "two".into())]).to_string());
    script.get("/a");
    let noted = with(
        &second,
        &[
            ("/metadata/labels", json!({ "app": "x" })),
            ("/metadata/annotations", json!({ "elect/record": "{}" })),
            ("/metadata/finalizers", json!(["example.com/x"])),
            ("/spec/renewTime", "2026-11-29T12:00:01.000000+02:00".into()),
            ("/spec/unknown", 1.into()),
        ],
    );
    let third = script.put("a", &noted);
    script.put("a", &with(&third, &[("/metadata/name", "b".into())]));
    script.put("a", &with(&third, &[("/metadata/namespace", "other".into())]));
    script.put("a", &with(&third, &[("/spec/leaseDurationSeconds", 0.into())]));
    let fourth =
        script.put("a", &with(&third, &[("/metadata/finalizers", Value::Null), ("/spec/holderIdentity", "".into())]));
    // A Lease that is gone: only the uid keeps it from being made again.
    script.put("gone", &with(&fourth, &[("/metadata/name", "gone".into())]));
    script.put("made", &named("made", &held));
    script.put("again", &with(&named("again", &held), &[(VERSION, "5".into())]));
    script.sends("DELETE", "/made", "", "");
    script.sends("DELETE", "/made", "", "");
    script.get("/made");
    script.put("made", &named("made", &held));
}

/// Objects that no server takes.
fn malformed(script: &mut Script) {
    for spec in [
        json!({ "leaseDurationSeconds": 0 }),
        json!({ "leaseDurationSeconds": -1 }),
        json!({ "leaseDurationSeconds": "15" }),
        json!({ "leaseDurationSeconds": 2_147_483_648_u64 }),
        json!({ "leaseTransitions": -1 }),
        json!({ "renewTime": "2026-11-29T10:00:00Z" }),
        json!({ "renewTime": "2026-11-29T10:00:00.123Z" }),
        json!({ "renewTime": "yesterday" }),
        json!({ "holderIdentity": 5 }),
    ] {
        script.post(&named("m", &spec));
    }
    let plain = named("m", &json!({}));
    for (member, value) in [
        ("/metadata/name", json!("")),
        ("/metadata/name", json!("Bad_Name")),
        ("/metadata/name", json!("-a")),
        ("/metadata/name", json!("a..b")),
        ("/metadata/name", json!("n".repeat(254))),
        ("/metadata/namespace", json!("other")),
        ("/metadata/annotations", json!({ "a": 1 })),
        ("/metadata/labels", json!({ "a": 1 })),
        (VERSION, json!("5")),
        ("/kind", json!("Pod")),
        ("/apiVersion", json!("v1")),
    ] {
        script.post(&with(&plain, &[(member, value)]));
    }
    for body in ["", "{"] {
        script.sends("POST", "", JSON, body);
    }
    script.sends("POST", "/a", JSON, &plain.to_string());
    script.sends("PUT", "", JSON, &plain.to_string());
    script.post(&named("a.b-c.0", &json!({ "leaseTransitions": 2_147_483_647 })));
}

fn patches_and_lists(script: &mut Script) {
    script.sends("PATCH", "/a", MERGE, r#"{"metadata":{"labels":{"app":"y","more":"z"}}}"#);
    script.sends("PATCH", "/a", MERGE, r#"{"metadata":{"labels":{"more":null}}}"#);
    script.sends("PATCH", "/a", MERGE, r#"{"metadata":{"labels":{"more":null}}}"#);
    script.sends("PATCH", "/a", MERGE, r#"{"metadata":{"resourceVersion":"1","labels":{"app":"w"}}}"#);
    script.sends("PATCH", "/none", MERGE, r#"{"metadata":{"labels":{"app":"y"}}}"#);
    script.get("");
    script.get("?labelSelector=app%3Dy");
    script.get("?labelSelector=app%3Dnone");
    script.get("?fieldSelector=metadata.name%3Dmade");
    let part = script.get("?limit=2");
    let next = part["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    let rest =
        request(&script.address, "GET", &format!("{LEASES}?limit=2&continue={next}"), "", "", "").expect("an answer");
    // The token of the place is the server's own.
    let rest: Value = serde_json::from_str(&rest.body).unwrap_or_default();
    script.transcript.push(json!({ "asked": "the rest of the list", "answer": [rest] }));
    script.sends("GET", "/apis/coordination.k8s.io/v1/namespaces/other/leases", "", "");
    script.sends("GET", "/apis/coordination.k8s.io/v1/namespaces/default/nothing", "", "");
}

fn watches(script: &mut Script, since: &str) {
    script.get(&format!("?watch=1&timeoutSeconds=1&resourceVersion={since}"));
    script.get(&format!("?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Dmade&resourceVersion={since}"));
    script.get(&format!("?watch=1&timeoutSeconds=1&labelSelector=app%3Dx&resourceVersion={since}"));
    script.get("?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Da");
    script.get("?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dnone");
    script.get("?watch=1&timeoutSeconds=1&resourceVersion=x");
}

fn run(address: String) -> Vec<Value> {
    let mut script = Script { address, transcript: Vec::new() };
    writes(&mut script);
    malformed(&mut script);
    patches_and_lists(&mut script);
    let since = script.transcript.iter().find_map(|step| {
        let version = step["answer"][0]["metadata"]["resourceVersion"].as_str()?;
        (step["code"] == 201 && step["answer"][0]["metadata"]["name"] == "a").then(|| version.to_owned())
    });
    watches(&mut script, &since.expect("it was created"));
    comparable(script.transcript)
}

/// The answers without what differs from run to run.
fn comparable(mut steps: Vec<Value>) -> Vec<Value> {
    let (mut versions, mut uids) = (BTreeSet::new(), BTreeMap::new());
    for step in &steps {
        visit(&step["answer"], &mut |name, value| {
            let Some(text) = value.as_str() else { return };
            if name == "resourceVersion" {
                versions.extend(text.parse::<u64>().ok());
            } else if name == "uid" {
                let next = uids.len();
                uids.entry(text.to_owned()).or_insert(next);
            }
        });
    }
    for step in &mut steps {
        let asked = step["asked"].as_str().expect("text").to_owned();
        // Its own numbers are in what was asked as well.
        step["asked"] =
            asked.split(" {").next().unwrap_or_default().split("resourceVersion=").next().unwrap_or_default().into();
        simplify(&mut step["answer"], &versions, &uids);
    }
    steps
}

fn visit(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            see(name, value);
            visit(value, see);
        }),
        Value::Array(items) => items.iter().for_each(|item| visit(item, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn simplify(value: &mut Value, versions: &BTreeSet<u64>, uids: &BTreeMap<String, usize>) {
    match value {
        Value::Object(members) => {
            // Of a Status only the parts that programs act on.
            let is_status = members.get("kind").is_some_and(|kind| kind == "Status");
            members.retain(|name, value| match name.as_str() {
                "managedFields" | "message" | "causes" | "remainingItemCount" | "selfLink" => false,
                "metadata" => !is_status,
                "continue" => value != "",
                _ => true,
            });
            for (name, value) in members {
                match (name.as_str(), value.as_str()) {
                    ("resourceVersion", Some(text)) => {
                        let number = text.parse::<u64>().unwrap_or_default();
                        *value = format!("version {}", versions.range(..number).count()).into();
                    }
                    ("uid", Some(text)) => {
                        *value = format!("uid {}", uids.get(text).copied().unwrap_or_default()).into();
                    }
                    ("creationTimestamp" | "continue", Some(_)) => *value = "some".into(),
                    _ => simplify(value, versions, uids),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| simplify(item, versions, uids)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_double_answers_as_the_genuine_server_does() {
    let path = root().join("tests/kubernetes/answers.json");
    let written = || -> Vec<Value> { serde_json::from_str(&fs::read_to_string(&path).expect("a file")).expect("JSON") };
    if is_long() {
        let server = GenuineServer::start();
        let answers = run(server.address());
        if std::env::var_os("UPDATE").is_some() {
            let lines: Vec<String> = answers.iter().map(Value::to_string).collect();
            fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n"))).expect("written");
        }
        agree("the genuine server and answers.json", &answers, &written());
    }
    let double = ApiServer::start();
    let answers = run(double.address());
    assert!(answers.len() >= 60, "{}", answers.len());
    agree("the double and answers.json", &answers, &written());
    println!("figures: kubernetes: {} requests have the same answers", answers.len());
}

fn agree(who: &str, one: &[Value], other: &[Value]) {
    let differ: Vec<String> = one
        .iter()
        .zip(other)
        .filter(|(one, other)| one != other)
        .map(|(one, other)| format!("{}\n  {one}\n  {other}", one["asked"]))
        .collect();
    assert!(differ.is_empty() && one.len() == other.len(), "{who}: {} differ:\n{}", differ.len(), differ.join("\n"));
}
