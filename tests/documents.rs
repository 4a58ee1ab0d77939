//! README, its pages and the manual: each command, flag, variable, metric, status and message that they name is the program's, and
//! each link leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{docs_under_test, host_tools};

/// Commands of elect, besides `help`.
const COMMANDS: [&str; 13] = [
    "run",
    "status",
    "assert",
    "extend",
    "resign",
    "drain",
    "undrain",
    "proclaim",
    "watch",
    "wait",
    "plan",
    "check",
    "completions",
];

/// Flags of other programs that the pages show.
const FLAGS_OF_OTHERS: &[&str] = &[
    "--account",
    "--app",
    "--appendonly",
    "--at",
    "--bench",
    "--bin",
    "--bind",
    "--comment",
    "--config",
    "--exact",
    "--features",
    "--follow",
    "--from",
    "--lead",
    "--listen-client-urls",
    "--locked",
    "--long",
    "--loglevel",
    "--no-default-features",
    "--no-install-recommends",
    "--now",
    "--nocapture",
    "--path",
    "--pidfile",
    "--port",
    "--prefix",
    "--release",
    "--root",
    "--save",
    "--scale",
    "--schedule",
    "--test",
    "--of",
    "--quiet",
    "--all",
];

/// Each text for users, with its path: pages, the manual without its escapes, recipes.
fn texts() -> Vec<(PathBuf, String)> {
    let mut paths = docs_under_test::readme_and_pages();
    for folder in ["man", "recipes", "systemd"] {
        let entries = fs::read_dir(docs_under_test::root().join(folder)).expect("a folder");
        paths.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    // The contract and the proof are about the code.
    paths.retain(|path| !path.ends_with("docs/DESIGN.md") && !path.ends_with("docs/PROOF.md"));
    let text = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("readable");
        let is_roff = path.parent().is_some_and(|folder| folder.ends_with("man"));
        if is_roff { docs_under_test::plain(&text) } else { text }
    };
    paths
        .into_iter()
        .map(|path| {
            let text = text(&path);
            (path, text)
        })
        .collect()
}

/// What the program says about its commands and flags.
fn help() -> String {
    let help =
        |words: &[&str]| host_tools::attempt([docs_under_test::elect()].into_iter().chain(words.iter().copied()));
    COMMANDS.iter().map(|command| help(&[command, "--help"]).expect("help")).collect()
}

fn words(text: &str, is_part: impl Fn(char) -> bool) -> BTreeSet<String> {
    text.split(|letter: char| !is_part(letter)).map(str::to_owned).collect()
}

/// Long flags: words that begin with two dashes.
fn flags(text: &str) -> BTreeSet<String> {
    let all = words(text, |letter| letter.is_ascii_lowercase() || letter == '-');
    all.into_iter().filter(|word| word.starts_with("--") && word.len() > 3 && !word.starts_with("---")).collect()
}

/// Sources of the program without its tests, with broken strings joined.
fn sources() -> String {
    fn files(path: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
        entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect()
    }
    let root = docs_under_test::root();
    let paths = ["src", "crates"].iter().flat_map(|folder| files(&root.join(folder)));
    let is_of_program = |path: &PathBuf| {
        let text = path.strip_prefix(&root).expect("a path below the root").to_string_lossy();
        path.extension().is_some_and(|extension| extension == "rs")
            && !["tests", "conformance", "simulation"].iter().any(|part| text.contains(part))
    };
    let mut all = String::new();
    for path in paths.filter(is_of_program) {
        let text = fs::read_to_string(path).expect("readable");
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut parts = text.split("\\\n");
        all += parts.next().unwrap_or_default();
        for part in parts {
            all += part.trim_start();
        }
    }
    all.replace("\\\"", "\"")
}

/// Names of the metrics, from the place where they are registered.
pub fn metrics_of_the_program() -> BTreeSet<String> {
    let text = docs_under_test::read("src/status/metrics.rs");
    let literals = text.split('"').skip(1).step_by(2);
    literals.filter(|literal| literal.starts_with("elect_")).map(str::to_owned).collect()
}

#[test]
fn every_flag_that_is_shown_exists() {
    let mut known = flags(&help());
    known.extend(FLAGS_OF_OTHERS.iter().map(|flag| (*flag).to_owned()));
    known.extend(["--help", "--version"].map(str::to_owned));
    let mut seen = 0;
    for (path, text) in texts() {
        // Recipes are made of other programs' flags, too.
        if path.components().any(|part| part.as_os_str() == "recipes") {
            continue;
        }
        let shown: BTreeSet<String> = match path.extension() {
            Some(extension) if extension == "md" => text
                .lines()
                .filter(|line| line.contains("elect") || line.contains('`'))
                .flat_map(|line| line.split('`').skip(1).step_by(2))
                .flat_map(flags)
                .collect(),
            _ => flags(&text),
        };
        let unknown: Vec<&String> = shown.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
        seen += shown.len();
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn every_command_that_is_shown_exists() {
    let mut seen = 0;
    for (path, text) in
        texts().into_iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "md"))
    {
        for span in text.split('`').skip(1).step_by(2) {
            let Some(rest) = span.strip_prefix("elect ") else { continue };
            let word: String =
                rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
            let is_known = COMMANDS.contains(&word.as_str()) || word.is_empty() || word.starts_with('-');
            assert!(is_known, "{}: elect {word}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_variable_that_is_shown_exists() {
    let known = help() + &sources();
    let is_part = |letter: char| letter.is_ascii_uppercase() || letter == '_';
    let mut seen = BTreeSet::new();
    for (path, text) in texts() {
        // A misspelled one is shown on purpose.
        for name in words(&text, is_part).into_iter().filter(|word| word.starts_with("ELECT_") && word != "ELECT_STOR")
        {
            let flag = name.trim_start_matches("ELECT_").to_lowercase().replace('_', "-");
            let exists = name == "ELECT_" || known.contains(&format!("--{flag}")) || known.contains(&name);
            assert!(exists, "{}: {name}", path.display());
            seen.insert(name);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn every_metric_that_is_shown_exists_and_the_page_shows_each() {
    let known = metrics_of_the_program();
    assert!(known.len() >= 13, "{known:?}");
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    for (path, text) in texts() {
        for name in words(&text, is_part).into_iter().filter(|word| word.starts_with("elect_")) {
            let is_known = known.contains(name.trim_end_matches("_bucket"));
            // An index and a table that stores make.
            let is_of_store = ["elect_unused", "elect_boundaries"].contains(&name.as_str());
            assert!(is_known || is_of_store || name == "elect_", "{}: {name}", path.display());
        }
    }
    let page = docs_under_test::read("docs/observing.md");
    let missing: Vec<&String> = known.iter().filter(|name| !page.contains(&format!("| `{name}"))).collect();
    assert!(missing.is_empty(), "docs/observing.md lacks {missing:?}");
}

#[test]
fn every_exit_status_of_the_readme_is_one_of_run() {
    let help = host_tools::attempt([docs_under_test::elect(), "run", "--help"]).expect("help");
    let (_, table) = help.split_once("And otherwise").or_else(|| help.split_once("and otherwise")).expect("the table");
    let of_help: BTreeSet<u8> = table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let readme = docs_under_test::read("README.md");
    let (_, rest) = readme.split_once("| status | meaning |").expect("the table");
    let rows = rest.lines().skip(1).take_while(|line| line.starts_with('|') || line.is_empty());
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let of_readme: BTreeSet<u8> =
        cells.flat_map(|cell| cell.split(',')).filter_map(|number| number.trim().parse().ok()).collect();
    assert_eq!(of_readme, of_help);
}

#[test]
fn every_message_of_the_page_on_troubleshooting_is_one_of_the_program() {
    let sources = sources();
    let page = docs_under_test::read("docs/troubleshooting.md");
    let messages = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let mut seen = 0;
    for (message, _) in messages {
        let parts: Vec<&str> = message.split('…').map(str::trim).filter(|part| part.len() > 2).collect();
        assert!(parts.iter().map(|part| part.len()).sum::<usize>() >= 10, "too short to be found: {message}");
        for part in parts {
            assert!(sources.contains(part), "{part:?} of {message:?} is not in the sources");
        }
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
    for absent in ["the campaigner has died of boredom", "no boundary at all"] {
        assert!(!sources.contains(absent));
    }
}

#[test]
fn the_readme_fits_and_names_every_page() {
    let readme = docs_under_test::read("README.md");
    assert!(readme.lines().count() < 200, "{}", readme.lines().count());
    for page in [
        "guide",
        "stores",
        "guarantees",
        "fencing",
        "recipes",
        "observing",
        "troubleshooting",
        "comparison",
        "measured",
        "upgrading",
    ] {
        assert!(readme.contains(&format!("(docs/{page}.md)")), "{page}");
    }
    for command in ["./install", "tests/run"] {
        assert!(readme.lines().any(|line| line == command), "{command}");
    }
}

/// The anchor of a heading, as web sites for code make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let outside = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    let headings =
        outside.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
    let named = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    headings.chain(named).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    let mut paths = docs_under_test::readme_and_pages();
    paths.extend(["CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| docs_under_test::root().join(name)));
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let outside = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
        for link in outside.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&target).expect("readable");
                assert!(anchors(&text).contains(heading), "{}: {link}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn the_site_is_built_by_one_command_which_refuses_a_broken_link() {
    let place = tempfile::tempdir().expect("a directory");
    let (root, directory) = (docs_under_test::root(), place.path().display().to_string());
    let root = root.to_str().expect("plain text");
    let copy = r#"cp -r "$1"/*.md "$1/docs" "$1/recipes" "$1/systemd" "$2""#;
    host_tools::attempt(["sh", "-c", copy, "sh", root, &directory]).expect("copied");
    let build = r#"CARGO_TARGET_DIR="$1/target" "$2/docs/build-site" "$2/site""#;
    let build = || host_tools::attempt(["sh", "-c", build, "sh", root, &directory]);
    build().expect("tests/run installs mkdocs");
    for page in ["index.html", "docs/guide/index.html", "docs/troubleshooting/index.html", "docs/failover.svg"] {
        assert!(place.path().join("site").join(page).exists(), "{page}");
    }
    let guide = place.path().join("docs/guide.md");
    let text = fs::read_to_string(&guide).expect("readable");
    fs::write(&guide, text.replace("(recipes.md#virtual-address)", "(recipes.md#no-such-heading)")).expect("written");
    assert!(build().expect_err("no such heading").contains("no-such-heading"));
}
