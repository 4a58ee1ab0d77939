//! Paths, verbs, rights, lists and discovery.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::http::{HttpRequest, Reply};
use super::objects::{Kind, Objects, Refusal, missing};
use super::watches::WatchRequest;
use super::{Fault, Shared, USER};

/// An object of kind Status: the body of every answer that is no success.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// Of an error that the server has no word for.
pub fn without_reason(mut status: Value) -> Value {
    status.as_object_mut().expect("an object").remove("reason");
    status
}

fn without_details(mut status: Value) -> Value {
    status["details"] = json!({});
    status
}

/// Where a path leads.
struct Target {
    kind: Kind,
    namespace: String,
    name: Option<String>,
}

fn target(path: &str) -> Option<Target> {
    let (kind, rest) = if let Some(rest) = path.strip_prefix("/apis/coordination.k8s.io/v1/namespaces/") {
        (Kind::Lease, rest)
    } else {
        (Kind::Pod, path.strip_prefix("/api/v1/namespaces/")?)
    };
    let mut parts = rest.split('/');
    let namespace = parts.next()?.to_owned();
    (parts.next()? == kind.resource()).then_some(())?;
    let name = parts.next().map(str::to_owned);
    parts.next().is_none().then_some(Target { kind, namespace, name })
}

fn verb(request: &HttpRequest, target: &Target) -> &'static str {
    match request.method.as_str() {
        "GET" if request.query.get("watch").is_some_and(|watch| watch == "1" || watch == "true") => "watch",
        "GET" if target.name.is_none() => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "none",
    }
}

/// The fault that this request meets, if any.
pub fn fault(shared: &Shared, request: &HttpRequest) -> Option<Fault> {
    let target = target(&request.path)?;
    let verb = verb(request, &target);
    let mut state = shared.lock();
    let is_meant = |of: &str| of.is_empty() || of == verb || of == format!("{verb} {}", target.kind.resource());
    let plan = state.faults.iter_mut().find(|plan| plan.left > 0 && is_meant(plan.verb))?;
    plan.left -= 1;
    Some(plan.fault)
}

pub fn answer(shared: &Shared, request: &HttpRequest) -> Reply {
    let mut state = shared.lock();
    let user = if state.tokens.is_empty() {
        USER.to_owned()
    } else {
        let known = state.tokens.iter().find(|(token, _)| *token == *request.token.as_deref().unwrap_or_default());
        let Some((_, user)) = known else { return Reply::Json(401, status(401, "Unauthorized", "Unauthorized")) };
        user.clone()
    };
    let Some(target) = target(&request.path) else { return discovery(&request.path) };
    let verb = verb(request, &target);
    let Target { kind, namespace, name } = target;
    let is_denied = state.denied.iter().any(|(of, resource)| of == verb && resource == kind.resource());
    if is_denied || user.contains("stranger") {
        let what = name.as_ref().map_or_else(String::new, |name| format!(" \"{name}\""));
        let message = format!(
            "{}{what} is forbidden: User \"{user}\" cannot {verb} resource \"{}\" in API group \"{}\" in the namespace \"{namespace}\"",
            kind.qualified(),
            kind.resource(),
            kind.group()
        );
        return Reply::Json(403, status(403, "Forbidden", &message));
    }
    let has_namespace = state.namespaces.as_ref().is_none_or(|names| names.contains(&namespace));
    let is_trial = request.query.get("dryRun").is_some_and(|of| of == "All");
    let body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let objects = &mut state.objects;
    let result = match (verb, name) {
        ("create", None) if !has_namespace => {
            let mut body = status(404, "NotFound", &format!("namespaces \"{namespace}\" not found"));
            body["details"] = json!({ "name": namespace, "kind": "namespaces" });
            Err((404, body))
        }
        ("create", None) => objects.create(kind, &namespace, body(), is_trial).map(|object| (201, object)),
        ("update", Some(name)) => {
            let is_new = objects.get(kind, &namespace, &name).is_none();
            let replaced = objects.replace(kind, &namespace, &name, body(), is_trial);
            replaced.map(|object| (if is_new { 201 } else { 200 }, object))
        }
        ("patch", Some(name)) => objects.patch(kind, &namespace, &name, &body()).map(|object| (200, object)),
        ("delete", Some(name)) => delete(objects, kind, &namespace, &name),
        ("get", Some(name)) => match objects.get(kind, &namespace, &name) {
            Some(object) => Ok((200, object.clone())),
            None => Err(missing(kind, &name)),
        },
        ("watch", name) => {
            let selector = Selector::of(request, name);
            return match WatchRequest::new(kind, namespace, selector, request) {
                Ok(watch) => Reply::Watch(watch),
                Err(message) => Reply::Json(500, without_reason(status(500, "", &message))),
            };
        }
        ("list", None) => {
            let selector = Selector::of(request, None);
            let all: Vec<Value> =
                objects.of_namespace(kind, &namespace).filter(|object| selector.selects(object)).cloned().collect();
            Ok((200, list(request, kind, all, objects.version())))
        }
        _ => {
            let message = "the server does not allow this method on the requested resource";
            Err((405, without_details(status(405, "MethodNotAllowed", message))))
        }
    };
    drop(state);
    if !is_trial && result.is_ok() && ["create", "update", "patch", "delete"].contains(&verb) {
        if verb == "update" {
            shared.writes.fetch_add(1, Ordering::Relaxed);
        }
        shared.changed.notify_all();
    }
    match result {
        Ok((code, object)) => Reply::Json(code, object),
        Err((code, body)) => Reply::Json(code, body),
    }
}

fn delete(objects: &mut Objects, kind: Kind, namespace: &str, name: &str) -> Result<(u16, Value), Refusal> {
    let object = objects.delete(kind, namespace, name).ok_or_else(|| missing(kind, name))?;
    let uid = &object["metadata"]["uid"];
    let details = json!({ "name": name, "group": kind.group(), "kind": kind.resource(), "uid": uid });
    Ok((200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "details": details })))
}

fn list(request: &HttpRequest, kind: Kind, all: Vec<Value>, version: u64) -> Value {
    let number = |name: &str| request.query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let left = all.len().saturating_sub(start);
    let next = if left > limit { (start + limit).to_string() } else { String::new() };
    let mut items: Vec<Value> = all.into_iter().skip(start).take(limit).collect();
    // The list says of which kind they are.
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.retain(|member, _| !["kind", "apiVersion"].contains(&member.as_str()));
    }
    json!({
        "kind": format!("{}List", kind.name()),
        "apiVersion": kind.api_version(),
        "metadata": { "resourceVersion": version.to_string(), "continue": next },
        "items": items,
    })
}

/// The objects that a list or a watch is about.
#[derive(Debug, Clone)]
pub struct Selector {
    name: Option<String>,
    labels: Vec<(String, String)>,
}

impl Selector {
    fn of(request: &HttpRequest, name: Option<String>) -> Selector {
        let text = |name: &str| request.query.get(name).map(String::as_str).unwrap_or_default();
        let by_field = text("fieldSelector").strip_prefix("metadata.name=").map(str::to_owned);
        let labels = text("labelSelector").split(',').filter_map(|pair| pair.split_once('='));
        Selector {
            name: name.or(by_field),
            labels: labels.map(|(name, value)| (name.to_owned(), value.trim_start_matches('=').to_owned())).collect(),
        }
    }

    pub fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.name.as_ref().is_none_or(|name| metadata["name"] == name.as_str())
            && self.labels.iter().all(|(name, value)| metadata["labels"][name] == value.as_str())
    }
}

fn discovery(path: &str) -> Reply {
    let verbs = json!(["create", "delete", "get", "list", "patch", "update", "watch"]);
    let resources = |kind: Kind, singular: &str, short: Value| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kind.api_version(),
            "resources": [{
                "name": kind.resource(), "singularName": singular, "namespaced": true, "kind": kind.name(), "verbs": verbs,
                "shortNames": short,
            }],
        })
    };
    let version = json!({ "groupVersion": "coordination.k8s.io/v1", "version": "v1" });
    let body = match path {
        "/version" => json!({ "major": "1", "minor": "35", "gitVersion": "v1.35.0-double" }),
        "/api" => json!({ "kind": "APIVersions", "versions": ["v1"] }),
        "/apis" => json!({
            "kind": "APIGroupList", "apiVersion": "v1",
            "groups": [{ "name": "coordination.k8s.io", "versions": [version], "preferredVersion": version }],
        }),
        "/api/v1" => resources(Kind::Pod, "pod", json!(["po"])),
        "/apis/coordination.k8s.io/v1" => resources(Kind::Lease, "lease", json!([])),
        _ if path.starts_with("/apis/coordination.k8s.io/v1/namespaces/") => {
            let message = "the server could not find the requested resource";
            return Reply::Json(404, without_details(status(404, "NotFound", message)));
        }
        _ => return Reply::Text(404, "404 page not found\n"),
    };
    Reply::Json(200, body)
}
