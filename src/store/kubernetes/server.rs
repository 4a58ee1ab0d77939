//! One connection to an API server, and the requests about Leases.
//!
//! A connection is closed after the first error. A request that runs out of time takes its connection along.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::connection::{HttpWire, open};
use super::errors::KubernetesPeer;
use super::settings::{Settings, Token};
use super::stored_record::LeaseSnapshot;
use crate::store::StoreError;
use crate::store::connection::attempt::within;
use crate::store::connection::setup::{Accepted, ConnectionSetup, Readiness, SetupTarget, ready_for_next};
use elect_core::Time;
use elect_keeper::clock;

/// Where the Leases of a namespace are.
const API: &str = "/apis/coordination.k8s.io/v1/namespaces";
/// Where the pods of a namespace are.
const PODS: &str = "/api/v1/namespaces";
/// The label by which a survey finds elect's Leases, and its value.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "elect");
/// Largest answer about one object: etcd keeps no larger one.
const OBJECT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest part of a list, largest list, and the number of the objects of a part.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
const LISTS_BYTES_MAX: usize = 64 * 1024 * 1024;
const LIST_PART: usize = 500;
/// How long a server that has too many requests is left alone at least, if it asks for any time at all.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The connection that is kept between attempts, if there is one.
#[derive(Default)]
pub struct KubernetesLink {
    /// `None`: to be connected to by the next attempt.
    server: Option<KubernetesServer>,
    setup: ConnectionSetup<KubernetesServer>,
    /// The server has asked to be left alone until then.
    paused_until: Option<Time>,
}

pub struct KubernetesServer {
    wire: HttpWire,
    pub peer: KubernetesPeer,
    pub settings: Settings,
    /// As it was read for this connection, or after a 401.
    token: Option<String>,
    /// Nothing has happened since its last answer that speaks for another one.
    is_sound: bool,
    pause: Option<Duration>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub body: Bytes,
    /// The server's wall clock, in milliseconds since 1970.
    pub now: u64,
    retry_after: Option<Duration>,
}

/// The events of a watch, as they come in.
pub struct LeaseEvents {
    pub body: Incoming,
    /// The connection.
    _wire: HttpWire,
}

/// The answer to a survey.
pub struct LeaseList {
    pub objects: Vec<Value>,
    /// After which a watch begins.
    pub version: Option<String>,
    /// The server's wall clock, in milliseconds since 1970.
    pub now: u64,
}

/// The end of a write that names the version that it replaces.
#[derive(Debug)]
pub enum LeaseWriteResult {
    /// The object as it is now.
    Done(Value),
    /// The object is not what was named, or not there, or there already. Nothing was done.
    Conflict,
}

/// One attempt, connecting included. The connection is kept if nothing speaks against it.
///
/// Cancellation: may be dropped at any time; what was under way takes its connection along.
pub async fn attempt<T>(
    settings: &Settings,
    link: &mut KubernetesLink,
    ask: impl AsyncFnOnce(&mut KubernetesServer) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let limit = settings.limits.attempt;
    let attempt = async {
        link.wait_out_pause(settings, limit).await?;
        let mut server = link.take(settings).await?;
        let answer = ask(&mut server).await;
        if let Some(pause) = server.pause.take() {
            link.paused_until = Some(clock::now() + pause);
        }
        if server.is_sound {
            link.server = Some(server);
        }
        answer
    };
    within(limit, attempt).await.unwrap_or_else(|| {
        Err(StoreError::Unavailable(format!("{} {}", settings.shown, settings.limits.too_slow_for_attempt(limit))))
    })
}

impl KubernetesLink {
    /// A pause ends by then, whatever the server has asked for.
    pub fn shorten_pause(&mut self, until: Time) {
        self.paused_until = self.paused_until.map(|paused| paused.min(until));
    }

    /// An attempt waits for a pause of which half of its time is left; otherwise it is over at once.
    async fn wait_out_pause(&mut self, settings: &Settings, limit: Duration) -> Result<(), StoreError> {
        let Some(left) = self.paused_until.map(|until| until.since(clock::now())) else { return Ok(()) };
        if left > limit / 2 {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs() + 1));
            return Err(StoreError::Unavailable(format!(
                "{} has too many requests (429), and is left alone for {left}",
                settings.shown
            )));
        }
        tokio::time::sleep(left).await;
        self.paused_until = None;
        Ok(())
    }

    /// The connection of the attempt before, or a new one. Setting it up may take several attempts (T6).
    async fn take(&mut self, settings: &Settings) -> Result<KubernetesServer, StoreError> {
        if let Some(server) = self.server.take().filter(|server| !server.wire.client.is_closed()) {
            return Ok(server);
        }
        let limits = settings.limits;
        let begin = |accepted: Accepted| {
            let settings = settings.clone();
            async move { KubernetesServer::connect(&settings, &accepted).await }
        };
        let plain_form = settings.tls.as_ref().map(|_| "kubernetes+http://");
        let target = SetupTarget { name: &settings.shown, plain_form };
        match self.setup.next(target, &limits, limits.attempt, begin).await? {
            (server, Readiness::ForThisAttempt) => Ok(server),
            (server, Readiness::ForNextAttempt) => {
                self.server = Some(server);
                Err(ready_for_next(&settings.shown))
            }
        }
    }
}

impl KubernetesServer {
    pub async fn connect(settings: &Settings, accepted: &Accepted) -> Result<KubernetesServer, StoreError> {
        let peer = KubernetesPeer::new(settings);
        let token = settings.token.read()?;
        let wire = open(settings, &peer, accepted).await?;
        Ok(KubernetesServer { wire, peer, settings: settings.clone(), token, is_sound: true, pause: None })
    }

    /// The path of the Leases.
    fn leases(&self) -> String {
        format!("{API}/{}/leases", self.settings.namespace)
    }

    fn lease(&self, name: &str) -> String {
        format!("{}/{name}", self.leases())
    }

    /// Sends a request. Returns when the head of its answer is there.
    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<(&'static str, &Bytes)>,
    ) -> Result<Response<Incoming>, StoreError> {
        let mut request = Request::new(Full::new(body.map(|(_, body)| body.clone()).unwrap_or_default()));
        *request.method_mut() = method.clone();
        *request.uri_mut() =
            path.parse().map_err(|_| StoreError::Unavailable(format!("{path:?} is no path of an API server")))?;
        let mut set = |name: HeaderName, value: &str| {
            // Addresses and tokens were looked at before.
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        };
        set(HOST, &self.settings.address.to_string());
        set(USER_AGENT, concat!("elect/", env!("CARGO_PKG_VERSION")));
        set(ACCEPT, "application/json");
        if let Some((kind, _)) = body {
            set(CONTENT_TYPE, kind);
        }
        if let Some(token) = &self.token {
            set(AUTHORIZATION, &format!("Bearer {token}"));
        }
        self.is_sound = false;
        let sent = async {
            self.wire.client.ready().await?;
            self.wire.client.send_request(request).await
        };
        sent.await.map_err(|error| self.peer.classify_http(&error))
    }

    /// The same with a token that is read again, if the server does not accept the one that was read before.
    async fn send_known(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<(&'static str, &Bytes)>,
    ) -> Result<Response<Incoming>, StoreError> {
        let response = self.send(method, path, body).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !matches!(self.settings.token, Token::File(_)) {
            return Ok(response);
        }
        let token = self.settings.token.read()?;
        if token == self.token {
            return Ok(response);
        }
        self.token = token;
        self.read(response, OBJECT_BYTES_MAX).await?;
        self.send(method, path, body).await
    }

    async fn read(&mut self, response: Response<Incoming>, bytes_max: usize) -> Result<HttpAnswer, StoreError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return self.peer.obstacle(&format!("has sent more than {bytes_max} bytes in one answer"));
            }
            self.peer.unavailable("has broken off an answer")
        })?;
        self.is_sound = true;
        let now = server_time(&head.headers, clock::wall_millis());
        let retry_after = number(&head.headers, RETRY_AFTER).map(Duration::from_secs);
        Ok(HttpAnswer { status: head.status, body: body.to_bytes(), now, retry_after })
    }

    /// One request, to the end of its answer.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        bytes_max: usize,
    ) -> Result<HttpAnswer, StoreError> {
        let body = body.map(|body| ("application/json", Bytes::from(body.to_string())));
        let body = body.as_ref().map(|(kind, body)| (*kind, body));
        let response = self.send_known(&method, path, body).await?;
        self.read(response, bytes_max).await
    }

    /// The error for an answer that is not what was asked for.
    pub fn error(&mut self, answer: &HttpAnswer) -> StoreError {
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let longest = self.settings.renew_interval.max(PAUSE_MIN);
            self.pause = answer.retry_after.map(|pause| pause.min(longest));
        }
        self.peer.classify_answer(answer.status, &answer.body)
    }

    fn object(&self, answer: &HttpAnswer) -> Result<Value, StoreError> {
        serde_json::from_slice(&answer.body)
            .map_err(|error| self.peer.unavailable(&format!("has sent an object that is not understood: {error}")))
    }

    /// The Lease. The question has no resourceVersion, so that the answer is not from a cache.
    pub async fn observe(&mut self, name: &str) -> Result<LeaseSnapshot, StoreError> {
        let answer = self.ask(Method::GET, &self.lease(name), None, OBJECT_BYTES_MAX).await?;
        if is_missing(&answer) {
            return Ok(LeaseSnapshot { object: None, now: answer.now });
        }
        if answer.status != StatusCode::OK {
            return Err(self.error(&answer));
        }
        Ok(LeaseSnapshot { object: Some(self.object(&answer)?), now: answer.now })
    }

    /// Creates a Lease that is not there.
    pub async fn create(&mut self, object: &Value) -> Result<LeaseWriteResult, StoreError> {
        let path = self.leases();
        let answer = self.ask(Method::POST, &path, Some(object), OBJECT_BYTES_MAX).await?;
        self.written(&answer)
    }

    /// Replaces a Lease: only the very version, of the very object, that is in the metadata.
    pub async fn replace(&mut self, name: &str, object: &Value) -> Result<LeaseWriteResult, StoreError> {
        // Without them it would replace whatever is there, or create what is gone.
        for member in ["uid", "resourceVersion"] {
            if object["metadata"][member].as_str().is_none_or(str::is_empty) {
                return Err(self.peer.obstacle(&format!("has the Lease {name:?} without metadata.{member}")));
            }
        }
        let path = self.lease(name);
        let answer = self.ask(Method::PUT, &path, Some(object), OBJECT_BYTES_MAX).await?;
        if is_missing(&answer) {
            return Ok(LeaseWriteResult::Conflict);
        }
        self.written(&answer)
    }

    fn written(&mut self, answer: &HttpAnswer) -> Result<LeaseWriteResult, StoreError> {
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(LeaseWriteResult::Done(self.object(answer)?)),
            StatusCode::CONFLICT => Ok(LeaseWriteResult::Conflict),
            _ => Err(self.error(answer)),
        }
    }

    /// Asks for writes that change nothing, so that a missing right shows at the start and not when it is needed.
    ///
    /// # Errors
    ///
    /// A right is missing, or the server cannot be asked. Other answers prove the right, or that the server does not try writes.
    pub async fn prove_rights(&mut self, name: &str, object: &Value) -> Result<(), StoreError> {
        let (create, replace) = (format!("{}?dryRun=All", self.leases()), format!("{}?dryRun=All", self.lease(name)));
        for (method, path) in [(Method::POST, create), (Method::PUT, replace)] {
            let answer = self.ask(method, &path, Some(object), OBJECT_BYTES_MAX).await?;
            let number = answer.status.as_u16();
            if matches!(number, 401 | 403 | 429 | 500..) || number == 404 && !is_missing(&answer) {
                return Err(self.error(&answer));
            }
        }
        Ok(())
    }

    /// Every Lease of elect's in the namespace.
    pub async fn list(&mut self, count_max: usize) -> Result<LeaseList, StoreError> {
        let (label, value) = LABEL;
        let query = format!("{}?labelSelector={label}%3D{value}&limit={LIST_PART}", self.leases());
        let (mut found, mut next) = (Vec::new(), None::<String>);
        let mut bytes_left = LISTS_BYTES_MAX;
        loop {
            let path = next.as_ref().map_or_else(|| query.clone(), |next| format!("{query}&continue={next}"));
            let answer = self.ask(Method::GET, &path, None, bytes_left.min(LIST_BYTES_MAX)).await?;
            if answer.status != StatusCode::OK {
                return Err(self.error(&answer));
            }
            bytes_left = bytes_left.saturating_sub(answer.body.len());
            let mut list = self.object(&answer)?;
            if let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) {
                found.extend(items);
            }
            let version = list["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            next = list["metadata"]["continue"].as_str().filter(|next| !next.is_empty()).map(encoded);
            if next.is_none() || found.len() >= count_max {
                found.truncate(count_max);
                return Ok(LeaseList { objects: found, version, now: answer.now });
            }
        }
    }

    /// Opens a watch on one Lease, or on all of elect's. `since`: the version after which it begins; otherwise it begins with the
    /// present state.
    pub async fn watch(mut self, name: Option<&str>, since: Option<&str>) -> Result<LeaseEvents, StoreError> {
        let (label, value) = LABEL;
        let scope = match name {
            Some(name) => format!("fieldSelector=metadata.name%3D{name}"),
            None => format!("labelSelector={label}%3D{value}"),
        };
        let since = since.map_or_else(String::new, |since| format!("&resourceVersion={}", encoded(since)));
        let path = format!("{}?watch=1&{scope}&timeoutSeconds={WATCH_SECONDS}{since}", self.leases());
        let response = self.send_known(&Method::GET, &path, None).await?;
        if response.status() == StatusCode::OK {
            return Ok(LeaseEvents { body: response.into_body(), _wire: self.wire });
        }
        let answer = self.read(response, OBJECT_BYTES_MAX).await?;
        Err(self.error(&answer))
    }

    /// The names of the pods with this label.
    pub async fn pods_with_label(
        &mut self,
        namespace: &str,
        key: &str,
        value: &str,
    ) -> Result<Vec<String>, StoreError> {
        let key = encoded(key);
        let path = format!("{PODS}/{namespace}/pods?labelSelector={key}%3D{value}&limit={LIST_PART}");
        let answer = self.ask(Method::GET, &path, None, LIST_BYTES_MAX).await?;
        if answer.status != StatusCode::OK {
            return Err(self.error(&answer));
        }
        let list = self.object(&answer)?;
        let names = list["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Changes a pod. One that is gone has no label either.
    pub async fn patch_pod(&mut self, namespace: &str, pod: &str, patch: &Value) -> Result<(), StoreError> {
        let path = format!("{PODS}/{namespace}/pods/{pod}");
        let body = Bytes::from(patch.to_string());
        let response = self.send_known(&Method::PATCH, &path, Some(("application/merge-patch+json", &body))).await?;
        let answer = self.read(response, OBJECT_BYTES_MAX).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.error(&answer)),
        }
    }

    /// One request for something that is neither a Lease nor a list of them.
    pub async fn get(&mut self, path: &str) -> Result<HttpAnswer, StoreError> {
        self.ask(Method::GET, path, None, OBJECT_BYTES_MAX).await
    }
}

/// After how long a server ends a watch.
pub const WATCH_SECONDS: u64 = 300;

/// A version, or the place where a list goes on, as a part of a query.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Whether the answer says that this very object is not there.
fn is_missing(answer: &HttpAnswer) -> bool {
    if answer.status != StatusCode::NOT_FOUND {
        return false;
    }
    let status: Option<Value> = serde_json::from_slice(&answer.body).ok();
    status.is_some_and(|status| {
        status["kind"] == "Status" && status["reason"] == "NotFound" && status["details"]["kind"] == "leases"
    })
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The server's wall clock, in milliseconds. Its answers have whole seconds: this host's clock tells the rest if the two agree.
fn server_time(headers: &HeaderMap, here: u64) -> u64 {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let date = date.and_then(|date| date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    let Some(seconds) = date.map(|date| date.as_secs().saturating_mul(1000)) else { return here };
    here.clamp(seconds, seconds.saturating_add(999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_that_of_its_answer_to_the_second() {
        let mut headers = HeaderMap::new();
        assert_eq!(server_time(&headers, 5), 5);
        headers.insert(DATE, "Thu, 01 Jan 1970 00:01:00 GMT".parse().expect("a value"));
        for (here, now) in [(60_250, 60_250), (5, 60_000), (90_000, 60_999)] {
            assert_eq!(server_time(&headers, here), now);
        }
        headers.insert(DATE, "yesterday".parse().expect("a value"));
        assert_eq!(server_time(&headers, 5), 5);
    }
}
