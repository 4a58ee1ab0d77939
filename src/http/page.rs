//! The page for people at `/`: who leads, this candidate, the others, and the last changes.
//!
//! It is rendered here from the document of `/status`, so that it can be read without JavaScript, and drawn again by
//! `page.js` from the same document, with the same texts in the same elements. Every text is escaped twice: characters
//! that steer a terminal or the order of text, and those that mean something in HTML (DESIGN.md 2.5).

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::text::escaped;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Names with a bar of their own in the timeline; further ones share the last.
const LANES_MAX: usize = 8;
/// The least time that the timeline shows, in milliseconds.
const SPAN_MIN: u64 = 10_000;
/// The height of a name and its bar.
const LANE_HEIGHT: usize = 46;
/// Characters of a name beside a bar.
const LANE_NAME_CHARS: usize = 40;

/// A page, and the policy that lets nothing run or load that is not part of it.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

/// Renders the document of `/status`. `nonce` is new for each page; `now` is the time of day.
pub(super) fn render(document: &Value, nonce: &str, now: &str) -> Page {
    let mut html = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + 4096);
    let mut rest = TEMPLATE;
    while let Some((before, (name, after))) = rest.split_once("{{").and_then(|(a, b)| Some((a, b.split_once("}}")?))) {
        html.push_str(before);
        match name {
            "style" => html.push_str(STYLE),
            "script" => html.push_str(SCRIPT),
            "nonce" => html.push_str(nonce),
            "now" => html.push_str(&clock(now)),
            "version" => html.push_str(env!("CARGO_PKG_VERSION")),
            "title" => html.push_str(&title(document)),
            "leader" => html.push_str(&leader(document)),
            "self" => html.push_str(&this_candidate(&document["self"])),
            "others" => html.push_str(&candidates(document)),
            "timeline" => html.push_str(&Timeline::of(document).svg()),
            "changes" => html.push_str(&changes(document)),
            name => html.push_str(&shown(&document[name])),
        }
        rest = after;
    }
    html.push_str(rest);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    Page { html, policy }
}

/// A text or a number, safe in HTML; nothing for null.
fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        Value::String(text) => html(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `2026-11-28 17:00:05` of `2026-11-28T17:00:05.123Z`.
fn clock(at: &str) -> String {
    html(&at.chars().take(19).collect::<String>().replace('T', " "))
}

fn title(document: &Value) -> String {
    let boundary = shown(&document["boundary"]);
    let name = &document["leader"]["name"];
    if name.is_null() { format!("no leader: {boundary}") } else { format!("{} leads {boundary}", shown(name)) }
}

fn facts(pairs: &[(&str, String)]) -> String {
    let known = pairs.iter().filter(|(_, value)| !value.is_empty());
    let all =
        known.fold(String::new(), |all, (name, value)| all + &format!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    format!("<dl>{all}</dl>")
}

fn leader(document: &Value) -> String {
    let leader = &document["leader"];
    if leader.is_null() {
        let obstacle = Some(&document["obstacle"]).filter(|obstacle| !obstacle.is_null());
        let reason = obstacle.map_or_else(|| "No candidate leads this boundary now.".to_owned(), shown);
        return format!("<h2>Leader</h2><p class=\"name none\">No leader</p><p class=\"soft\">{reason}</p>");
    }
    let address = [&leader["address"], &leader["host"]].into_iter().find(|value| !value.is_null());
    let address = address.map_or_else(|| "no address".to_owned(), shown);
    let since = leader["since"].as_str().map_or_else(String::new, |since| clock(since) + " UTC");
    format!(
        "<h2>Leader</h2><p class=\"name\">{}</p><p class=\"soft\">{address}</p>{}{}",
        shown(&leader["name"]),
        lease(document),
        facts(&[("Term", shown(&leader["term"])), ("Since", since), ("Id", shown(&leader["id"]))])
    )
}

/// The bar, and the same in words.
fn lease(document: &Value) -> String {
    let (left, ttl) = (document["leader"]["lease_left_ms"].as_f64(), document["leader"]["ttl_ms"].as_f64());
    let (Some(left), Some(ttl)) = (left, ttl.filter(|ttl| *ttl > 0.0)) else {
        let reason = match document["store"].as_str() {
            Some("file" | "always") => "No lease: the leader holds it to its end.",
            Some(_) | None => "Its lease is not known here.",
        };
        return format!("<p class=\"soft\" id=\"lease\">{reason}</p>");
    };
    let part = (left / ttl).min(1.0);
    let low = if part < 0.3 { " class=\"low\"" } else { "" };
    format!(
        "<svg class=\"lease\" height=\"10\"><rect class=\"track\" width=\"100%\" height=\"10\" rx=\"5\"/>\
         <rect id=\"left\"{low} width=\"{:.1}%\" height=\"10\" rx=\"5\"/></svg>\
         <p class=\"soft\" id=\"lease\">{:.1} s of {:.1} s left of its lease</p>",
        part * 100.0,
        left / 1000.0,
        ttl / 1000.0
    )
}

fn this_candidate(own: &Value) -> String {
    let runs = match own["pid"].as_i64() {
        Some(pid) => format!("runs here, pid {pid}"),
        None => "does not run here".to_owned(),
    };
    let state = shown(&own["state"]);
    format!(
        "<h2>This candidate</h2><p class=\"name\">{}</p><p><span class=\"chip {state}\">{}</span></p>{}",
        shown(&own["name"]),
        state.replace('_', " "),
        facts(&[("Command", runs), ("Id", shown(&own["id"]))])
    )
}

fn candidates(document: &Value) -> String {
    let Some(all) = document["candidates"].as_array() else {
        return "<h2>Candidates</h2><p class=\"soft\">This store does not list its candidates.</p>".to_owned();
    };
    let mut list = format!("<h2>Candidates ({})</h2><ol class=\"list\" tabindex=\"0\">", all.len());
    for candidate in all {
        // Writing to a string cannot fail.
        let _ = write!(list, "<li><span>{}</span>", shown(&candidate["name"]));
        for (other, mark) in [(&document["leader"], "leads"), (&document["self"], "this one")] {
            if other["id"] == candidate["id"] {
                let _ = write!(list, "<em>{mark}</em>");
            }
        }
        list.push_str("</li>");
    }
    list + "</ol>"
}

fn changes_of(document: &Value) -> &[Value] {
    document["changes"].as_array().map_or(&[][..], Vec::as_slice)
}

fn changes(document: &Value) -> String {
    let all = changes_of(document);
    let mut list = format!("<h2>Changes ({})</h2><ol class=\"list\" tabindex=\"0\">", all.len());
    for change in all.iter().rev() {
        let name = Some(&change["leader"]["name"]).filter(|name| !name.is_null());
        let (class, event) = name.map_or_else(|| ("none", "no leader".to_owned()), |name| ("", shown(name) + " leads"));
        let at = clock(change["at"].as_str().unwrap_or_default());
        let _ = write!(list, "<li><time>{at}</time><span class=\"{class}\">{event}</span>");
        if let Some(term) = change["leader"]["term"].as_u64() {
            let _ = write!(list, "<em>term {term}</em>");
        }
        list.push_str("</li>");
    }
    list + "</ol>"
}

/// The changes as bars: a row for each name, the latest leader first.
struct Timeline<'a> {
    changes: &'a [Value],
    lanes: Vec<&'a str>,
    shares_last_lane: bool,
    /// In milliseconds.
    total: u64,
}

impl<'a> Timeline<'a> {
    fn of(document: &'a Value) -> Timeline<'a> {
        let changes = changes_of(document);
        let mut lanes: Vec<&str> = Vec::new();
        for name in changes.iter().rev().filter_map(|change| change["leader"]["name"].as_str()) {
            if !lanes.contains(&name) {
                lanes.push(name);
            }
        }
        let shares_last_lane = lanes.len() > LANES_MAX;
        lanes.truncate(if shares_last_lane { LANES_MAX - 1 } else { LANES_MAX });
        let total = changes.iter().map(age).chain([SPAN_MIN]).max().unwrap_or(SPAN_MIN);
        Timeline { changes, lanes, shares_last_lane, total }
    }

    fn height(&self) -> usize {
        (self.lanes.len() + usize::from(self.shares_last_lane)).max(1) * LANE_HEIGHT
    }

    /// The place of an age, in percent of the width.
    #[expect(clippy::cast_precision_loss, reason = "thousandths of a percent are enough")]
    fn x(&self, age: u64) -> f64 {
        100.0 - age as f64 * 100.0 / self.total as f64
    }

    fn svg(&self) -> String {
        let height = self.height();
        let mut svg = format!(
            "<h2>Timeline</h2><svg role=\"img\" aria-label=\"Leaders over time\" height=\"{}\">",
            height + LANE_HEIGHT - 22
        );
        let names = self.lanes.iter().copied().chain(self.shares_last_lane.then_some("others"));
        for (row, name) in names.enumerate() {
            let name = html(&name.chars().take(LANE_NAME_CHARS).collect::<String>());
            let y = row * LANE_HEIGHT;
            let _ = write!(
                svg,
                "<text class=\"lane\" y=\"{}\">{name}</text><rect class=\"track\" y=\"{}\" width=\"100%\" height=\"14\" rx=\"4\"/>",
                y + 14,
                y + 22
            );
        }
        // What lies below comes first.
        for is_gap in [true, false] {
            for (index, change) in
                self.changes.iter().enumerate().filter(|(_, change)| change["leader"].is_null() == is_gap)
            {
                svg.push_str(&self.bar(index, change));
            }
        }
        for n in 0..5 {
            let (anchor, class) = match n {
                0 => ("start", ""),
                4 => ("end", ""),
                n if n % 2 == 1 => ("middle", "wide-only"),
                _ => ("middle", ""),
            };
            let label = if n == 4 { "now".to_owned() } else { span(self.total * (4 - n) / 4) + " ago" };
            let (x, y) = (n * 25, height + 16);
            let _ = write!(svg, "<text x=\"{x}%\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{label}</text>");
        }
        svg + "</svg>"
    }

    fn bar(&self, index: usize, change: &Value) -> String {
        let begin = self.x(age(change));
        let end = self.changes.get(index + 1).map_or(100.0, |next| self.x(age(next)));
        let width = (end - begin).max(0.4);
        let from = clock(change["at"].as_str().unwrap_or_default());
        let Some(name) = change["leader"]["name"].as_str() else {
            return format!(
                "<rect class=\"gap\" y=\"0\" height=\"{}\" x=\"{begin:.3}%\" width=\"{width:.3}%\">\
                 <title>no leader, from {from}</title></rect>",
                self.height()
            );
        };
        let row = self.lanes.iter().position(|lane| *lane == name).unwrap_or(self.lanes.len());
        let term = change["leader"]["term"].as_u64().map_or_else(|| "unknown".to_owned(), |term| term.to_string());
        format!(
            "<rect class=\"c{}\" y=\"{}\" height=\"14\" rx=\"4\" x=\"{begin:.3}%\" width=\"{width:.3}%\">\
             <title>{}, term {term}, from {from}</title></rect>",
            colour(name),
            row * LANE_HEIGHT + 22,
            html(name)
        )
    }
}

fn age(change: &Value) -> u64 {
    change["age_ms"].as_u64().unwrap_or_default()
}

/// One of eight colours, the same for a name wherever it is shown.
fn colour(name: &str) -> u32 {
    name.chars().fold(7_u32, |sum, c| (sum * 31 + u32::from(c)) % 65_521) % 8
}

/// `3 min 12 s`
fn span(millis: u64) -> String {
    let seconds = Duration::from_millis(millis).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use elect_core::proptest_support;

    fn document(name: &str, candidates: usize) -> Value {
        let leader = json!({"id": "u-1", "name": name, "host": name, "port": null, "address": null, "term": 42,
            "since": "2026-11-28T17:00:05Z", "ttl_ms": 10_000, "lease_left_ms": 2_500});
        let change =
            |age: u64, leader: Value| json!({"at": "2026-11-28T17:00:05.123Z", "age_ms": age, "leader": leader});
        let all: Vec<Value> =
            (0..candidates).map(|n| json!({"id": format!("u-{n}"), "name": format!("{name}{n}")})).collect();
        json!({"boundary": name, "store": "store", "leader": leader, "candidates": all, "obstacle": null,
            "self": {"id": "u-1", "name": name, "state": "leading", "is_leader": true, "running": true, "pid": 7},
            "changes": [change(40_000, leader.clone()), change(20_000, Value::Null), change(10_000, leader.clone())]})
    }

    #[test]
    fn the_page_without_data_has_at_most_sixteen_kilobytes() {
        let empty = json!({"changes": [], "candidates": []});
        let page = render(&empty, "n", "").html;
        assert!(page.len() <= 16 * 1024, "{} bytes", page.len());
        assert!(!page.contains("{{"), "every place is filled");
    }

    #[test]
    fn all_that_is_known_is_on_the_page() {
        let page = render(&document("web-1", 200), "nonce", "2026-11-28T17:00:09.000Z").html;
        for part in [
            "<title>web-1 leads web-1</title>",
            "2.5 s of 10.0 s left of its lease",
            "width=\"25.0%\"",
            "class=\"low\"",
            "Candidates (200)",
            "<span>web-1199</span></li>",
            "<span>web-11</span><em>leads</em><em>this one</em>",
            "Changes (3)",
            "x=\"50.000%\" width=\"25.000%\"><title>no leader, from 2026-11-28 17:00:05",
            "x=\"75.000%\" width=\"25.000%\"><title>web-1, term 42",
            ">40 s ago</text>",
            "as of 2026-11-28 17:00:09",
            "runs here, pid 7",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        let mut free = document("web-1", 0);
        (free["leader"], free["obstacle"]) = (Value::Null, "held by orphans".into());
        let page = render(&free, "nonce", "").html;
        assert!(page.contains("No leader</p><p class=\"soft\">held by orphans</p>"), "{page}");
    }

    #[test]
    fn more_names_than_rows_share_the_last() {
        let leader = |n: u64| json!({"name": format!("web-{n}"), "id": "u", "term": n});
        let changes: Vec<Value> =
            (0..50).map(|n| json!({"at": "", "age_ms": 5_000 - n, "leader": leader(n)})).collect();
        let page = Timeline::of(&json!({ "changes": changes })).svg();
        assert_eq!(
            (page.matches("class=\"lane\"").count(), page.matches("<title>").count()),
            (LANES_MAX, 50),
            "{page}"
        );
        assert!(
            page.contains(">others</text>") && page.contains(">web-43</text>") && !page.contains(">web-42</text>"),
            "{page}"
        );
    }

    #[test]
    fn no_text_becomes_an_element_or_steers_what_is_shown() {
        let plain = render(&document("x", 3), "nonce", "").html;
        let (tags, quotes) = (plain.matches('<').count(), plain.matches('"').count());
        proptest_support::check(proptest_support::SLOW, &proptest_support::text(), |name| {
            let name = format!("<script>alert(1)</script>\"'&{{{{nonce}}}}\u{202e}{name}");
            let page = render(&document(&name, 3), "nonce", "").html;
            assert_eq!((page.matches('<').count(), page.matches('"').count()), (tags, quotes), "{page}");
            assert!(!page.contains('\u{202e}'), "{page}");
        });
    }

    #[test]
    fn durations_are_as_long_as_they_need_to_be() {
        let shown = [0, 59_999, 60_000, 3_599_999, 3_600_000, 90_000_000].map(span);
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 d 1 h"]);
    }
}
