//! Watches: the events after a version, as they happen.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::HttpRequest;
use super::objects::Kind;
use super::resources::{Selector, status};
use super::{Mode, Shared};
use elect_keeper::clock;

/// Between two looks at whether the time is up.
const TICK: Duration = Duration::from_millis(50);

/// One watch, before it begins.
pub struct WatchRequest {
    kind: Kind,
    namespace: String,
    selector: Selector,
    /// `None`: from the present state on.
    since: Option<u64>,
    has_bookmarks: bool,
    seconds: Option<u64>,
}

impl WatchRequest {
    pub fn new(
        kind: Kind,
        namespace: String,
        selector: Selector,
        request: &HttpRequest,
    ) -> Result<WatchRequest, String> {
        let text = |name: &str| request.query.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let number = |name: &str| {
            let value = text(name).map(str::parse::<u64>).transpose();
            value.map_err(|_| format!("strconv.ParseUint: parsing {name}: invalid syntax"))
        };
        Ok(WatchRequest {
            kind,
            namespace,
            selector,
            since: number("resourceVersion")?.filter(|version| *version > 0),
            has_bookmarks: text("allowWatchBookmarks").is_some_and(|value| value == "true" || value == "1"),
            seconds: number("timeoutSeconds")?,
        })
    }

    /// Tells every event, until its time is up, the server ends, or the client does.
    pub fn follow(self, shared: &Shared, run: u64, mut tell: impl FnMut(&Value) -> io::Result<()>) -> io::Result<()> {
        let end = self.seconds.map(|seconds| clock::now() + Duration::from_secs(seconds));
        let mut since = if let Some(since) = self.since {
            if !shared.lock().objects.remembers(since) {
                let gone = status(410, "Expired", &format!("too old resource version: {since}"));
                return tell(&json!({ "type": "ERROR", "object": gone }));
            }
            since
        } else {
            let state = shared.lock();
            let present: Vec<Value> = state
                .objects
                .of_namespace(self.kind, &self.namespace)
                .filter(|object| self.selector.selects(object))
                .cloned()
                .collect();
            let version = state.objects.version();
            drop(state);
            for object in present {
                tell(&json!({ "type": "ADDED", "object": object }))?;
            }
            version
        };
        loop {
            if !shared.serves(run) {
                return Err(io::Error::other("the server is gone"));
            }
            let mut state = shared.lock();
            let mut events = state.objects.events_after(since);
            if events.is_empty() {
                (state, _) = shared.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
                if state.mode != Mode::Serves {
                    continue;
                }
                events = state.objects.events_after(since);
            }
            drop(state);
            let is_over = end.is_some_and(|end| clock::now() >= end);
            for event in events {
                since = event.version;
                if event.kind != self.kind || event.namespace != self.namespace {
                    continue;
                }
                // To a watch an object that comes to be selected is added, and one that is no longer selected is deleted.
                let was = event.before.as_ref().is_some_and(|before| self.selector.selects(before));
                let is = event.change != "DELETED" && self.selector.selects(&event.object);
                let (change, mut object) = match (was, is) {
                    (false, true) => ("ADDED", event.object),
                    (true, true) => ("MODIFIED", event.object),
                    (true, false) => ("DELETED", event.before.unwrap_or_default()),
                    (false, false) => continue,
                };
                object["metadata"]["resourceVersion"] = event.version.to_string().into();
                tell(&json!({ "type": change, "object": object }))?;
            }
            if is_over {
                if self.has_bookmarks {
                    let metadata = json!({ "resourceVersion": since.to_string() });
                    let (kind, version) = (self.kind.name(), self.kind.api_version());
                    let object = json!({ "kind": kind, "apiVersion": version, "metadata": metadata });
                    tell(&json!({ "type": "BOOKMARK", "object": object }))?;
                }
                return Ok(());
            }
        }
    }
}
