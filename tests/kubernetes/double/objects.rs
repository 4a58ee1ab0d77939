//! The stored objects with one global resourceVersion, the events that led to them, and the rules of writes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::resources::{status, without_reason};

/// The kinds of objects that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Lease,
    Pod,
}

impl Kind {
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Lease => "leases",
            Kind::Pod => "pods",
        }
    }

    /// As messages name it.
    pub fn qualified(self) -> &'static str {
        match self {
            Kind::Lease => "leases.coordination.k8s.io",
            Kind::Pod => "pods",
        }
    }

    pub fn group(self) -> &'static str {
        match self {
            Kind::Lease => "coordination.k8s.io",
            Kind::Pod => "",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Lease => "coordination.k8s.io/v1",
            Kind::Pod => "v1",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Lease => "Lease",
            Kind::Pod => "Pod",
        }
    }
}

/// A change, for watches.
#[derive(Debug, Clone)]
pub struct Event {
    pub version: u64,
    pub change: &'static str,
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub object: Value,
    /// As it was before.
    pub before: Option<Value>,
}

/// An answer that is no object: a code, and a Status.
pub type Refusal = (u16, Value);

#[derive(Debug, Clone)]
pub struct Objects {
    version: u64,
    all: BTreeMap<(Kind, String, String), Value>,
    events: Vec<Event>,
    /// Events up to here are forgotten.
    compacted: u64,
    uids: u64,
}

impl Objects {
    pub fn new() -> Objects {
        Objects { version: 1000, all: BTreeMap::new(), events: Vec::new(), compacted: 0, uids: 0 }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.all.get(&(kind, namespace.to_owned(), name.to_owned()))
    }

    pub fn of_namespace<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all.iter().filter(move |((each, of, _), _)| *each == kind && of == namespace).map(|(_, object)| object)
    }

    pub fn events_after(&self, version: u64) -> Vec<Event> {
        self.events.iter().filter(|event| event.version > version).cloned().collect()
    }

    /// Whether events after this version are still known.
    pub fn remembers(&self, version: u64) -> bool {
        version >= self.compacted
    }

    /// Forgets all events, as etcd does after a while.
    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.events.clear();
    }

    /// The global version moves on by other objects.
    pub fn pass_versions(&mut self, count: u64) {
        self.version += count;
    }

    fn put(&mut self, change: &'static str, kind: Kind, namespace: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = Event {
            version: self.version,
            change,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            object: object.clone(),
            before: self.get(kind, namespace, name).cloned(),
        };
        self.events.push(event);
        let key = (kind, namespace.to_owned(), name.to_owned());
        if change == "DELETED" {
            self.all.remove(&key);
        } else {
            self.all.insert(key, object.clone());
        }
        object
    }

    /// Stores a pod, or any other object as it is.
    pub fn add(&mut self, kind: Kind, namespace: &str, name: &str, mut object: Value) {
        self.complete(kind, namespace, name, &mut object);
        self.put("ADDED", kind, namespace, name, object);
    }

    pub fn edit(&mut self, kind: Kind, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(kind, namespace, name).expect("it is there").clone();
        change(&mut object);
        self.put("MODIFIED", kind, namespace, name, object);
    }

    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        let object = self.get(kind, namespace, name)?.clone();
        Some(self.put("DELETED", kind, namespace, name, object))
    }

    pub fn delete_leases(&mut self) {
        let leases: Vec<_> = self.all.keys().filter(|(kind, _, _)| *kind == Kind::Lease).cloned().collect();
        for (kind, namespace, name) in leases {
            self.delete(kind, &namespace, &name);
        }
    }

    fn complete(&mut self, kind: Kind, namespace: &str, name: &str, object: &mut Value) {
        self.uids += 1;
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.name().into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = namespace.into();
        object["metadata"]["uid"] = format!("00000000-0000-4000-8000-{:012}", self.uids).into();
        object["metadata"]["creationTimestamp"] = "2026-11-29T00:00:00Z".into();
    }

    /// POST.
    pub fn create(&mut self, kind: Kind, namespace: &str, body: Value, is_trial: bool) -> Result<Value, Refusal> {
        if !body["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err((500, without_reason(status(500, "", message))));
        }
        self.create_new(kind, namespace, body, is_trial)
    }

    fn create_new(&mut self, kind: Kind, namespace: &str, body: Value, is_trial: bool) -> Result<Value, Refusal> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        is_of_path(&body, namespace, None)?;
        let mut object = typed(kind, body)?;
        validate(kind, &name, &object)?;
        if self.get(kind, namespace, &name).is_some() {
            let message = format!("{} \"{name}\" already exists", kind.qualified());
            return Err((409, about(kind, &name, status(409, "AlreadyExists", &message))));
        }
        self.complete(kind, namespace, &name, &mut object);
        if is_trial {
            object["metadata"].as_object_mut().expect("an object").remove("resourceVersion");
            return Ok(object);
        }
        Ok(self.put("ADDED", kind, namespace, &name, object))
    }

    /// PUT.
    pub fn replace(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        body: Value,
        is_trial: bool,
    ) -> Result<Value, Refusal> {
        is_of_path(&body, namespace, Some(name))?;
        let body = typed(kind, body)?;
        let text = |field: &str| body["metadata"][field].as_str().unwrap_or_default().to_owned();
        let conflict = |why: &str| {
            let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
            (409, about(kind, name, status(409, "Conflict", &message)))
        };
        let (uid, version) = (text("uid"), text("resourceVersion"));
        let Some(present) = self.get(kind, namespace, name).cloned() else {
            if !uid.is_empty() {
                return Err(conflict(&format!(
                    "StorageError: Precondition failed: UID in precondition: {uid}, UID in object meta: "
                )));
            }
            // A Lease may be created by an update, even by one that names a version.
            return self.create_new(kind, namespace, body, is_trial);
        };
        let of_present = |field: &str| present["metadata"][field].as_str().unwrap_or_default().to_owned();
        if !uid.is_empty() && uid != of_present("uid") {
            return Err(conflict("Precondition failed: UID in precondition"));
        }
        if version.is_empty() {
            let message = format!(
                "{} \"{name}\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
                kind.qualified()
            );
            return Err((422, invalid_object(kind, name, kind.resource(), &message)));
        }
        if version.parse::<u64>().is_err() {
            return Err((500, without_reason(status(500, "", "strconv.ParseUint: invalid syntax"))));
        }
        if version != of_present("resourceVersion") {
            return Err(conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        validate(kind, name, &body)?;
        let mut object = body;
        for field in ["uid", "creationTimestamp", "namespace"] {
            object["metadata"][field] = present["metadata"][field].clone();
        }
        // A write that changes nothing makes no new version.
        if object == present || is_trial {
            return Ok(object);
        }
        Ok(self.put("MODIFIED", kind, namespace, name, object))
    }

    /// PATCH, as a merge patch.
    pub fn patch(&mut self, kind: Kind, namespace: &str, name: &str, patch: &Value) -> Result<Value, Refusal> {
        let Some(present) = self.get(kind, namespace, name).cloned() else { return Err(missing(kind, name)) };
        let mut object = present.clone();
        merge(&mut object, patch);
        if object["metadata"]["resourceVersion"] != present["metadata"]["resourceVersion"]
            || object["metadata"]["uid"] != present["metadata"]["uid"]
        {
            let message = format!("Operation cannot be fulfilled on {} \"{name}\"", kind.qualified());
            return Err((409, about(kind, name, status(409, "Conflict", &message))));
        }
        let object = typed(kind, object)?;
        validate(kind, name, &object)?;
        if object == present {
            return Ok(object);
        }
        Ok(self.put("MODIFIED", kind, namespace, name, object))
    }
}

pub fn missing(kind: Kind, name: &str) -> Refusal {
    let body = status(404, "NotFound", &format!("{} \"{name}\" not found", kind.qualified()));
    (404, about(kind, name, body))
}

/// The Status with the name of the object that it is about.
fn about(kind: Kind, name: &str, mut body: Value) -> Value {
    body["details"] = json!({ "name": name, "group": kind.group(), "kind": kind.resource() });
    body
}

fn invalid_object(kind: Kind, name: &str, of: &str, message: &str) -> Value {
    let mut body = status(422, "Invalid", message);
    body["details"] = json!({ "group": kind.group(), "kind": of });
    if !name.is_empty() {
        body["details"]["name"] = name.into();
    }
    body
}

fn bad_request(message: &str) -> Refusal {
    (400, status(400, "BadRequest", message))
}

/// Whether a body is what its path says.
fn is_of_path(body: &Value, namespace: &str, name: Option<&str>) -> Result<(), Refusal> {
    let text = |field: &str| body["metadata"][field].as_str().unwrap_or_default();
    if name.is_some_and(|name| name != text("name")) {
        return Err(bad_request("the name of the object does not match the name on the URL"));
    }
    if !text("namespace").is_empty() && text("namespace") != namespace {
        return Err(bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// The fields of a Lease, all others of which the server drops.
const SPEC: [&str; 7] = [
    "holderIdentity",
    "leaseDurationSeconds",
    "acquireTime",
    "renewTime",
    "leaseTransitions",
    "strategy",
    "preferredHolder",
];

/// A body as the server reads it: with its types, and without what is not known, or empty.
fn typed(kind: Kind, mut body: Value) -> Result<Value, Refusal> {
    if kind != Kind::Lease {
        return Ok(body);
    }
    let is_another = |member: &str, value: &str| body[member].as_str().is_some_and(|given| given != value);
    if !body.is_object() || is_another("kind", kind.name()) || is_another("apiVersion", kind.api_version()) {
        return Err(bad_request("the object provided is unrecognized (must be of type Lease)"));
    }
    for part in ["labels", "annotations"] {
        let strings = body["metadata"][part].as_object().is_none_or(|all| all.values().all(Value::is_string));
        if !strings {
            return Err(bad_request(&format!("json: cannot unmarshal into metadata.{part} of type string")));
        }
    }
    let spec = &body["spec"];
    for number in ["leaseDurationSeconds", "leaseTransitions"] {
        let is_int32 =
            spec[number].is_null() || spec[number].as_i64().is_some_and(|value| i32::try_from(value).is_ok());
        if !is_int32 {
            return Err(bad_request(&format!("cannot unmarshal spec.{number} into int32")));
        }
    }
    for text in ["holderIdentity", "strategy", "preferredHolder"] {
        if !spec[text].is_null() && !spec[text].is_string() {
            return Err(bad_request(&format!("cannot unmarshal spec.{text} into string")));
        }
    }
    let mut read = serde_json::Map::new();
    for field in SPEC.into_iter().filter(|field| !spec[field].is_null()) {
        let mut value = spec[field].clone();
        if field.ends_with("Time") {
            let time = value.as_str().and_then(micro_time);
            value = time.ok_or_else(|| bad_request(&format!("parsing time spec.{field}: cannot parse")))?.into();
        }
        read.insert(field.to_owned(), value);
    }
    body["spec"] = Value::Object(read);
    if let Some(metadata) = body["metadata"].as_object_mut() {
        let is_empty = |value: &Value| {
            value.is_null()
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
        };
        metadata.retain(|_, value| !is_empty(value));
    }
    Ok(body)
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let members = object.as_object_mut().expect("made an object");
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), change);
        }
    }
}

fn validate(kind: Kind, name: &str, object: &Value) -> Result<(), Refusal> {
    let invalid = |why: &str| {
        let message = format!("{}.{} \"{name}\" is invalid: {why}", kind.name(), kind.group());
        Err((422, invalid_object(kind, name, kind.name(), &message)))
    };
    if !is_subdomain(name) {
        return invalid(&format!("metadata.name: Invalid value: \"{name}\": a lowercase RFC 1123 subdomain"));
    }
    if kind != Kind::Lease {
        return Ok(());
    }
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        return invalid("spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0");
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        return invalid("spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0");
    }
    let has_text = |field: &str| spec[field].as_str().is_some_and(|text| !text.is_empty());
    if has_text("preferredHolder") && !has_text("strategy") {
        return invalid("spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined");
    }
    Ok(())
}

/// `2006-01-02T15:04:05.000000Z07:00`, as a `MicroTime` is decoded, in UTC.
fn micro_time(text: &str) -> Option<String> {
    let (local, offset) = text.split_at_checked("2006-01-02T15:04:05.000000".len())?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let time = if offset == "Z" {
        time
    } else {
        let (hours, minutes) = offset.get(1..)?.split_once(':')?;
        let away = Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
        if offset.starts_with('+') { time - away } else { time + away }
    };
    Some(humantime::format_rfc3339_micros(time).to_string())
}

fn is_subdomain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|&byte| is_plain(byte) || byte == b'-')
            && bytes.first().copied().is_some_and(is_plain)
            && bytes.last().copied().is_some_and(is_plain)
    };
    name.len() <= 253 && name.split('.').all(is_part)
}
