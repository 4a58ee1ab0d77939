//! The pages, as a function of what is asked for and what is shown. Read-only, and none of them takes a body.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::Shown;
use super::status::Document;
use crate::election::Time;

const TEXT: &str = "text/plain; charset=utf-8";
/// The version of the format, as Prometheus wants it named.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

const INDEX: &str = "\
/livez     200 while the loops turn that renew the lease
/readyz    200 while this candidate campaigns
/leader    200 from the start of the leader command to the first moment of stopping it
/follower  200 while this candidate follows
/status    who leads, as JSON
/metrics   counters, for Prometheus
";

pub(super) type Page = Response<Full<Bytes>>;

/// What a request is answered with.
pub(super) fn answer(shown: &Shown, now: Time, method: &Method, path: &str, has_body: bool) -> Page {
    let Some(page) = find(path) else { return plain(StatusCode::NOT_FOUND, INDEX) };
    match *method {
        Method::GET | Method::HEAD if has_body => plain(StatusCode::PAYLOAD_TOO_LARGE, "these pages take no body\n"),
        Method::GET | Method::HEAD => page(shown, now),
        Method::OPTIONS => with_methods(plain(StatusCode::NO_CONTENT, "")),
        _ => with_methods(plain(StatusCode::METHOD_NOT_ALLOWED, "these pages are for reading\n")),
    }
}

fn find(path: &str) -> Option<fn(&Shown, Time) -> Page> {
    Some(match path {
        "/" => |_, _| plain(StatusCode::OK, INDEX),
        "/livez" => |shown, now| check(shown.view.borrow().is_alive(now), shown, "the loop has stalled"),
        "/readyz" => |shown, _| check(shown.view.borrow().is_campaigning(), shown, "not campaigning"),
        "/leader" => |shown, now| check(shown.view.borrow().serves(now), shown, "not leading"),
        "/follower" => |shown, _| check(shown.view.borrow().follows(), shown, "not following"),
        "/status" => |shown, now| {
            let view = shown.view.borrow();
            let sighting = view.sighting(now);
            let document = Document::new(view.boundary(), view.store(), &sighting).with(view.own(now));
            page(StatusCode::OK, "application/json", document.to_json() + "\n")
        },
        "/metrics" => |shown, now| page(StatusCode::OK, METRICS, shown.metrics.text(now, &shown.view.borrow())),
        _ => return None,
    })
}

/// 200 with what this candidate does, or 503 with what it does not.
fn check(holds: bool, shown: &Shown, otherwise: &str) -> Page {
    let view = shown.view.borrow();
    if holds {
        plain(StatusCode::OK, &format!("{view}\n"))
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{otherwise}: {view}\n"))
    }
}

fn plain(status: StatusCode, text: &str) -> Page {
    page(status, TEXT, text.to_owned())
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(text)));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

fn with_methods(mut page: Page) -> Page {
    page.headers_mut().insert(ALLOW, METHODS);
    page
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Surface;
    use super::super::view::tests::{NOW, view};
    use super::*;
    use crate::fuzz;

    const PATHS: [&str; 7] = ["/", "/livez", "/readyz", "/leader", "/follower", "/status", "/metrics"];

    #[test]
    fn whatever_is_asked_for_only_reading_what_is_there_is_answered_with_it() {
        let surface = Surface::new(view());
        let path = prop_oneof![fuzz::text(), proptest::sample::select(PATHS.to_vec()).prop_map(str::to_owned)];
        let near = (proptest::sample::select(PATHS.to_vec()), fuzz::punctuation()).prop_map(|(a, b)| format!("{a}{b}"));
        let known = proptest::sample::select(vec!["GET", "HEAD", "OPTIONS", "POST", "DELETE", "CONNECT", "get"]);
        let method = prop_oneof![known.prop_map(str::to_owned), "[!-~]{1,9}"];
        let asked = (method, prop_oneof![path, near], any::<bool>());
        fuzz::holds(fuzz::CHEAP, &asked, |(method, path, has_body)| {
            let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
            let status = answer(&surface.shown, NOW, &method, &path, has_body).status().as_u16();
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
