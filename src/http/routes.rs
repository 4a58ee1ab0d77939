//! The pages, as a function of the request and the status. All are read-only, and none takes a body.

use std::time::{Duration, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use uuid::Uuid;

use super::page;
use crate::status::{SharedStatus, StatusDocument};
use elect_core::Time;
use elect_keeper::clock;

/// The page for people.
const PAGE: &str = "/";
/// The same for programs.
const STATUS: &str = "/status";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
/// The version of the format, as Prometheus wants it named.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

const INDEX: &str = "\
/          who leads, for people
/livez     200 while the loops turn that renew the lease
/readyz    200 while this candidate campaigns
/leader    200 from the start of the leader command to the first moment of stopping it
/follower  200 while this candidate follows
/status    who leads, as JSON
/metrics   counters, for Prometheus
";

pub(super) type HttpResponse = Response<Full<Bytes>>;

/// The answer to a request.
pub(super) fn respond(status: &SharedStatus, now: Time, method: &Method, path: &str, has_body: bool) -> HttpResponse {
    let Some(handler) = route(path) else { return plain(StatusCode::NOT_FOUND, INDEX) };
    match *method {
        Method::GET | Method::HEAD if has_body => plain(StatusCode::PAYLOAD_TOO_LARGE, "these pages take no body\n"),
        Method::GET | Method::HEAD => handler(status, now),
        Method::OPTIONS => with_methods(plain(StatusCode::NO_CONTENT, "")),
        _ => with_methods(plain(StatusCode::METHOD_NOT_ALLOWED, "these pages are for reading\n")),
    }
}

fn route(path: &str) -> Option<fn(&SharedStatus, Time) -> HttpResponse> {
    Some(match path {
        PAGE => page,
        "/livez" => |status, now| health(status.snapshot.borrow().is_alive(now), status, "the loop has stalled"),
        "/readyz" => |status, _| health(status.snapshot.borrow().is_campaigning(), status, "not campaigning"),
        "/leader" => |status, now| health(status.snapshot.borrow().is_serving(now), status, "not leading"),
        "/follower" => |status, _| health(status.snapshot.borrow().is_following(), status, "not following"),
        STATUS => |status, now| response(StatusCode::OK, "application/json", document(status, now) + "\n"),
        "/metrics" => {
            |status, now| response(StatusCode::OK, METRICS_TYPE, status.metrics.text(now, &status.snapshot.borrow()))
        }
        _ => return None,
    })
}

/// Whether a page shows what the store knows of other candidates.
pub(super) fn shows_candidates(path: &str) -> bool {
    [PAGE, STATUS].contains(&path)
}

fn document(status: &SharedStatus, now: Time) -> String {
    let snapshot = status.snapshot.borrow();
    let observation = snapshot.observation(now);
    StatusDocument::new(snapshot.boundary(), snapshot.store(), &observation)
        .with_self(snapshot.self_status(now))
        .with_changes(snapshot.changes(now))
        .to_json()
}

/// The page for people, made of the same document.
fn page(status: &SharedStatus, now: Time) -> HttpResponse {
    let document = serde_json::from_str(&document(status, now)).unwrap_or_default();
    let wall = UNIX_EPOCH + Duration::from_millis(clock::wall_millis());
    let page =
        page::render(&document, &Uuid::new_v4().simple().to_string(), &humantime::format_rfc3339(wall).to_string());
    let mut response = response(StatusCode::OK, "text/html; charset=utf-8", page.html);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(&page.policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// 200 with what this candidate does, or 503 with what it does not.
fn health(holds: bool, status: &SharedStatus, otherwise: &str) -> HttpResponse {
    let snapshot = status.snapshot.borrow();
    if holds {
        plain(StatusCode::OK, &format!("{snapshot}\n"))
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{otherwise}: {snapshot}\n"))
    }
}

fn plain(status: StatusCode, text: &str) -> HttpResponse {
    response(status, TEXT_TYPE, text.to_owned())
}

fn response(status: StatusCode, kind: &'static str, text: String) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with_methods(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(ALLOW, ALLOWED_METHODS);
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::status::StatusPublisher;
    use crate::status::snapshot::tests::{NOW, snapshot};
    use elect_core::proptest_support;

    const PATHS: [&str; 7] = ["/", "/livez", "/readyz", "/leader", "/follower", "/status", "/metrics"];

    #[test]
    fn whatever_is_asked_for_only_reading_what_is_there_is_answered_with_it() {
        let publisher = StatusPublisher::new(snapshot());
        let path =
            prop_oneof![proptest_support::text(), proptest::sample::select(PATHS.to_vec()).prop_map(str::to_owned)];
        let near = (proptest::sample::select(PATHS.to_vec()), proptest_support::punctuation())
            .prop_map(|(a, b)| format!("{a}{b}"));
        let known = proptest::sample::select(vec!["GET", "HEAD", "OPTIONS", "POST", "DELETE", "CONNECT", "get"]);
        let method = prop_oneof![known.prop_map(str::to_owned), "[!-~]{1,9}"];
        let asked = (method, prop_oneof![path, near], any::<bool>());
        proptest_support::check(proptest_support::FAST, &asked, |(method, path, has_body)| {
            let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
            let status = respond(&publisher.shared, NOW, &method, &path, has_body).status().as_u16();
            let expected: &[u16] = match (PATHS.contains(&path.as_str()), method.as_str()) {
                (false, _) => &[404],
                (true, "GET" | "HEAD") if has_body => &[413],
                (true, "GET" | "HEAD") => &[200, 503],
                (true, "OPTIONS") => &[204],
                (true, _) => &[405],
            };
            assert!(expected.contains(&status), "{status}");
        });
    }
}
