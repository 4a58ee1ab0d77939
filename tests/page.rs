//! The page for people at `--listen`, in a real browser.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::browser::{Browser, Tab};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, http_client, until};
use crate::listen::{document, port_of};

/// A name that would run if it were not escaped.
const EVIL: &str = "<script>alert(1)</script>";

/// Control sockets are found by the boundary's name alone, and all tests are the same user.
fn boundary_of_its_own() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("page/{}", std::process::id()))
}

fn candidate(sandbox: &Sandbox, name: &str) -> CandidateProcess {
    candidate_for(sandbox, "cron", name)
}

fn candidate_for(sandbox: &Sandbox, boundary: &'static str, name: &str) -> CandidateProcess {
    let elect = ElectCmd::new(sandbox).boundary(boundary).flag("--listen", "127.0.0.1:0").flag("--name", name);
    elect.witness(&Witness::new()).start()
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

/// Nothing was asked for but this page and its status, and the browser had no reason to complain.
#[track_caller]
fn stays_at_home(tab: &mut Tab<'_>, port: u16) {
    let (requests, complaints) = tab.requests_and_complaints();
    let own = [url(port), url(port) + "status"];
    assert!(requests.iter().all(|one| own.contains(one) || one.starts_with("data:")), "{requests:?}");
    assert_eq!(complaints, [Value::Null; 0]);
}

/// The page has followed to this leader within this time of the moment at which its candidate knew, which is asked for
/// on another way at the same time. A machine that takes longer for the question itself gets that time as well.
#[track_caller]
fn follows_to(tab: &mut Tab<'_>, port: u16, name: &str, limit: Duration) {
    let mut asked = Duration::ZERO;
    until("the candidate knows its new leader", || {
        let start = now();
        let is_known = document(port).is_some_and(|shown| shown["leader"]["name"] == name);
        asked = since(start);
        is_known
    });
    let known = now();
    tab.shows("leader", name);
    let took = since(known);
    println!("figures: the page has followed after {} ms, a question takes {} ms", took.as_millis(), asked.as_millis());
    assert_in_time(took < limit + 20 * asked, || format!("{took:?}, a question takes {asked:?}"));
}

/// Bars of leaders and gaps in the timeline, by their titles, and whether they cover its width without a hole.
fn timeline(tab: &mut Tab<'_>) -> (Vec<String>, bool) {
    let script = r"(() => {
        const bars = [...document.querySelectorAll('#timeline rect:has(title)')].map(bar =>
            [parseFloat(bar.getAttribute('x')), parseFloat(bar.getAttribute('width')), bar.textContent.split(', ')[0]]);
        bars.sort((a, b) => a[0] - b[0]);
        const isWhole = bars.every(([x, width], i) => i + 1 === bars.length ? x + width > 99.5 : x + width > bars[i + 1][0] - .5);
        return { titles: bars.map(bar => bar[2]), isWhole };
    })()";
    let found = tab.value(script);
    let titles = found["titles"].as_array().expect("a list").iter();
    (titles.map(|title| title.as_str().expect("a text").to_owned()).collect(), found["isWhole"] == true)
}

#[test]
fn the_page_follows_a_kill_and_a_resign() {
    retry_if_machine_slow("the page follows", Duration::from_secs(3), follows_a_kill_and_a_resign);
}

fn follows_a_kill_and_a_resign(lease: Duration) {
    let sandbox = Sandbox::new();
    let boundary = boundary_of_its_own();
    let first = candidate_for(&sandbox, boundary, "web-1");
    sandbox.starts(1);
    let (second, watcher) = (candidate_for(&sandbox, boundary, EVIL), candidate_for(&sandbox, boundary, "web-3"));
    second.wait_until_waiting();
    watcher.wait_until_waiting();
    let port = port_of(&watcher);
    let mut browser = Browser::start(&sandbox);
    let mut tab = browser.open(&url(port), 1400, true);
    tab.shows("live", "live");
    tab.shows("leader", "web-1");
    tab.shows("self", "following");
    first.ends_killed();
    // Either of the two may be the next; both are on the page as text.
    sandbox.starts(2);
    let next = if document(port).is_some_and(|shown| shown["self"]["is_leader"] == true) { "web-3" } else { EVIL };
    follows_to(&mut tab, port, next, lease / 3);
    let (resigns, other) = if next == EVIL { (&second, "web-3") } else { (&watcher, EVIL) };
    let ended = ElectCmd::new(&sandbox).store(None).query("resign", &["-b", boundary]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?} of {}", resigns.log());
    sandbox.starts(3).is_safe();
    follows_to(&mut tab, port, other, lease / 3);
    let known = document(port).expect("a document");
    let expected: Vec<&str> = known["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|c| c["leader"]["name"].as_str().unwrap_or("no leader"))
        .collect();
    assert!(
        expected.starts_with(&["web-1"]) && expected.ends_with(&[other]) && expected.contains(&next),
        "{expected:?}"
    );
    tab.shows("changes", &format!("Changes ({})", expected.len()));
    assert_eq!(timeline(&mut tab), (expected.iter().map(|&name| name.to_owned()).collect(), true));
    assert_eq!(tab.value("document.scripts.length"), 1, "a name is a text");
    assert!(tab.text("changes").contains(EVIL), "{}", tab.text("changes"));
    stays_at_home(&mut tab, port);
    // What the script has drawn is what the server draws; numbers go on meanwhile.
    let words = "[...document.querySelectorAll('main h2, main p, main dt, main dd, main li, main text')]\
                 .map(e => e.id === 'lease' ? '' : e.textContent.replace(/\\d+ [a-z]+/g, '')).join('|')";
    let runs = "document.querySelector('main').textContent.includes('runs here')";
    until("the page shows whose command runs", || tab.value(runs) == (other == "web-3"));
    let drawn = tab.value(words);
    let mut plain = browser.open(&url(port), 400, false);
    assert_eq!(plain.value(words), drawn, "without scripts");
    assert!(plain.text("live").starts_with("as of 20"));
    assert_eq!(plain.value("document.documentElement.scrollWidth > innerWidth"), false, "it fits into 400 pixels");
    stays_at_home(&mut plain, port);
    watcher.signal(Signal::SIGTERM);
    second.terminate();
    watcher.terminate();
}

#[test]
fn the_page_says_when_its_candidate_is_gone() {
    let sandbox = Sandbox::new();
    let one = candidate(&sandbox, "web-1");
    let port = port_of(&one);
    let mut browser = Browser::start(&sandbox);
    let mut tab = browser.open(&url(port), 400, true);
    tab.shows("live", "live");
    assert_eq!(tab.value("document.documentElement.scrollWidth > innerWidth"), false, "it fits into 400 pixels");
    one.ends_killed();
    tab.shows("live", "no answer for");
    assert!(tab.text("leader").contains("web-1"), "the last state stays");
}

/// A server in front of a candidate that passes its page on, and answers for its status with this document.
fn with_status(candidate: u16, status: &Value) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let body = status.to_string();
    let status =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // It ends with the test program.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let page =
                if line.starts_with("GET /status ") { Ok(status.clone()) } else { http_client::get(candidate, "/") };
            let _ = stream.write_all(page.unwrap_or_default().as_bytes());
        }
    });
    port
}

#[test]
fn two_hundred_candidates_and_fifty_changes_are_texts() {
    let sandbox = Sandbox::new();
    let one = candidate(&sandbox, "web-1");
    sandbox.starts(1);
    let mut status = document(port_of(&one)).expect("a document");
    let name = |n: usize| format!("{EVIL}<img src=x onerror=alert({n})>\u{202e}{n}");
    status["candidates"] = (0..200).map(|n| json!({"id": n.to_string(), "name": name(n)})).collect();
    let leader = |n: usize| json!({"id": n.to_string(), "name": name(n % 20), "host": name(n), "port": null, "address": null, "term": n});
    let change = |n: usize| {
        let leader = if n.is_multiple_of(2) { leader(n) } else { Value::Null };
        json!({"at": "2026-11-28T17:00:05.123Z", "age_ms": (50 - n) * 1000, "event": "leader", "leader": leader})
    };
    status["changes"] = (0..50).map(change).collect();
    status["leader"]["name"] = name(7).into();
    let port = with_status(port_of(&one), &status);
    let mut browser = Browser::start(&sandbox);
    for width in [400, 1400] {
        let mut tab = browser.open(&url(port), width, true);
        tab.shows("others", "Candidates (200)");
        tab.shows("changes", "Changes (50)");
        let last = format!("{EVIL}<img src=x onerror=alert(199)>\\u{{202e}}199");
        assert!(tab.text("others").ends_with(&last), "{}", tab.text("others"));
        assert_eq!(tab.value("document.querySelectorAll('#others li').length"), 200);
        assert_eq!(tab.value("document.querySelectorAll('main img, main script').length"), 0);
        assert_eq!(timeline(&mut tab).0.len(), 50);
        assert_eq!(tab.value("document.documentElement.scrollWidth > innerWidth"), false, "{width} pixels");
        stays_at_home(&mut tab, port);
    }
    one.terminate();
}

#[test]
fn the_policy_of_the_page_allows_its_own_parts_alone() {
    let sandbox = Sandbox::new();
    let one = candidate(&sandbox, "web-1");
    let port = port_of(&one);
    let policy = |page: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
        line.expect("a policy").to_owned()
    };
    let pages = [(); 2].map(|()| http_client::get(port, "/").expect("a page"));
    let nonce = |policy: &str| policy.split('\'').find(|word| word.starts_with("nonce-")).expect("one").to_owned();
    for page in &pages {
        let policy = policy(page);
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("connect-src 'self'"), "{policy}");
        for danger in ["unsafe", "http", "*", " data: data"] {
            assert!(!policy.contains(danger), "{danger}: {policy}");
        }
        let nonce = nonce(&policy);
        let attribute = format!("nonce=\"{}\"", nonce.trim_start_matches("nonce-"));
        assert_eq!(page.matches(&attribute).count(), 2, "the script and the style");
        assert!(page.contains("content-type: text/html; charset=utf-8\r\n"), "{page}");
        for other in ["//", "@import", "url("] {
            let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
            let elsewhere = elsewhere.lines().filter(|line| !line.trim_start().starts_with("// "));
            assert!(!elsewhere.into_iter().any(|line| line.contains(other)), "{other} in {page}");
        }
    }
    assert_ne!(nonce(&policy(&pages[0])), nonce(&policy(&pages[1])), "a new one for each page");
    one.terminate();
}
