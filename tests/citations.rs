//! Citations of the design contract: each rule and section that code, tests and documents name is in `docs/DESIGN.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::docs_under_test::{read, root};

/// Folders and files that may cite the contract. Pages for users do not.
const CITING: [&str; 10] = [
    "src",
    "crates",
    "tests",
    "benches",
    "build.rs",
    "man",
    "docs/DESIGN.md",
    "docs/GLOSSARY.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
];

/// Every text that may cite, with its path. This file is left out: it cites what does not exist.
fn texts() -> Vec<(PathBuf, String)> {
    let paths =
        CITING.iter().flat_map(|path| files(&root().join(path))).filter(|path| !path.ends_with("tests/citations.rs"));
    paths.filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect()
}

/// Every file below a path, or the file itself; a path that is missing has none.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return path.is_file().then(|| path.to_owned()).into_iter().collect() };
    entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect()
}

/// `K5`, `T1`, `S7`, `H8` or `P4`.
fn is_rule(word: &str) -> bool {
    let digits = word.strip_prefix(['K', 'T', 'S', 'H', 'P']);
    digits.is_some_and(|digits| matches!(digits.len(), 1..=2) && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `4` or `5.4`.
fn is_section(word: &str) -> bool {
    let (section, part) = word.split_once('.').unwrap_or((word, "1"));
    let is_number = |text: &str| matches!(text.len(), 1..=2) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number(section) && is_number(part)
}

/// The words of a list of citations, such as `K9, 5.1` or `DESIGN.md 5.3 and 5.4`; nothing if it holds anything else.
fn list(text: &str) -> Vec<&str> {
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    let words: Vec<&str> =
        words.filter(|word| !matches!(*word, "and" | "as" | "in" | "section" | "DESIGN.md")).collect();
    if words.iter().all(|word| is_rule(word) || is_section(word) && (word.contains('.') || text.contains("section"))) {
        words
    } else {
        Vec::new()
    }
}

/// The citations in a line of prose or a message: rules anywhere; sections in parentheses, behind `DESIGN.md`, and before a colon at
/// the beginning. Other numbers (`6.5 s`, `Linux 5.14`) are none.
fn citations(text: &str) -> BTreeSet<String> {
    let words = || text.split(|letter: char| !letter.is_alphanumeric() && letter != '.' && letter != '_');
    let mut cited: BTreeSet<&str> =
        words().map(|word| word.trim_end_matches('.')).filter(|word| is_rule(word)).collect();
    for group in text.split('(').skip(1).filter_map(|rest| rest.split_once(')')) {
        cited.extend(list(group.0));
    }
    if let Some((first, _)) = text.trim_start().split_once(": ") {
        cited.extend(first.trim_start_matches("Section ").split(", ").filter(|word| is_section(word)));
    }
    for rest in text.split("DESIGN.md").skip(1) {
        let words = rest.split([',', ' ']).filter(|word| !matches!(*word, "" | "and" | "section"));
        let words = words.map(|word| word.trim_end_matches(['.', ')', ':', ';']));
        cited.extend(words.take_while(|word| is_rule(word) || is_section(word)));
    }
    cited.into_iter().map(str::to_owned).collect()
}

/// The parts of a line that may cite: comments, and messages that begin with a citation; of documents what is no code.
fn prose<'a>(path: &Path, line: &'a str) -> Vec<&'a str> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs" | "c") => {
            let (code, comment) = line.split_once("//").unwrap_or((line, ""));
            let messages = code.split('"').skip(1).step_by(2);
            let messages = messages.filter(|message| {
                let first = message.split([':', ',']).next().unwrap_or_default();
                is_rule(first) || is_section(first) && message.starts_with(&format!("{first}: "))
            });
            messages.chain([comment]).collect()
        }
        Some("lua") => line.split("--").skip(1).collect(),
        Some("md") => line.split('`').step_by(2).collect(),
        Some("txt" | "svg" | "py" | "toml") => Vec::new(),
        _ => line.split_once('#').map(|(_, comment)| comment).into_iter().collect(),
    }
}

/// The rules and sections that the contract has, by their anchors.
fn contract() -> BTreeSet<String> {
    let text = read("docs/DESIGN.md");
    let anchors = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let of = |anchor: &str| match anchor.strip_prefix("sec-") {
        Some(section) => section.replace('-', "."),
        None => anchor.to_uppercase(),
    };
    anchors.map(of).collect()
}

#[test]
fn every_rule_and_section_that_is_cited_is_in_the_contract() {
    let contract = contract();
    let mut cited = Vec::new();
    for (path, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let citations = prose(&path, line).into_iter().flat_map(citations);
            cited.extend(citations.map(|citation| (citation, format!("{}:{}", path.display(), number + 1))));
        }
    }
    let missing: Vec<_> = cited.iter().filter(|(citation, _)| !contract.contains(citation)).collect();
    assert!(missing.is_empty(), "not in docs/DESIGN.md: {missing:#?}");
    assert!(cited.len() > 300, "only {} citations were found", cited.len());
}

#[test]
fn a_citation_is_told_from_other_numbers() {
    let of = |text| citations(text).into_iter().collect::<Vec<_>>();
    assert_eq!(of("kept while it may live (K9, 5.1), as K99 says."), ["5.1", "K9", "K99"]);
    assert_eq!(of(" one hash (DESIGN.md 5.3 and 5.4)."), ["5.3", "5.4"]);
    assert_eq!(of(" every deadline (DESIGN.md section 4)."), ["4"]);
    assert_eq!(of("2.3: a release beside a living tree"), ["2.3"]);
    assert_eq!(of("T3, T4: a lease ran out"), ["T3", "T4"]);
    assert_eq!(of("stop_by is 6.5 s later (kernel 5.14), of 3.4.42, at 0.25 (5 min) and UTF8"), Vec::<String>::new());
    assert_eq!(prose(Path::new("a.rs"), "x(\"2.3: y\", \"0.5\", 'S1'); // T1"), ["2.3: y", " T1"]);
    assert_eq!(prose(Path::new("a.md"), "at `etcd://H1:2379`, by S1"), ["at ", ", by S1"]);
    assert!(!contract().contains("K99") && contract().contains("K5") && contract().contains("2.3"));
}

#[test]
fn every_topic_that_is_planned_is_declared() {
    let text = read("docs/DESIGN.md");
    let marks: Vec<&str> = text.split("[planned: ").skip(1).filter_map(|rest| rest.split(']').next()).collect();
    let topics: Vec<&str> = marks.iter().copied().filter(|topic| *topic != "TOPIC").collect();
    for topic in &topics {
        assert!(text.contains(&format!("\n| {topic} | ")), "no line of the table of topics explains {topic:?}");
    }
    assert_eq!(topics.len() + 1, text.matches("[planned").count(), "a mark is broken over two lines");
}

#[test]
fn every_link_into_the_contract_has_its_anchor() {
    let contract = read("docs/DESIGN.md");
    let mut links = 0;
    for (path, text) in texts() {
        for anchor in text.split("DESIGN.md#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(anchor, _)| anchor)
        {
            assert!(contract.contains(&format!("<a id=\"{anchor}\">")), "{}: no anchor #{anchor}", path.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

/// Pages about the code, which name files and items of it.
const PAGES: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/GLOSSARY.md", "tests/README.md"];

/// The texts in backticks of a page, outside of blocks of code.
fn spans(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A path in the repository, but for one with a placeholder.
fn is_path(span: &str) -> bool {
    let folders = ["src/", "crates/", "tests/", "docs/", "man/", "benches/", "completions/", "recipes/", "systemd/"];
    let is_page = span.strip_suffix(".md").is_some_and(|name| !name.contains('/'));
    (is_page || folders.iter().any(|folder| span.starts_with(folder))) && !span.contains(['<', '*', ' '])
}

/// The items of a span such as `Candidate::handle` or `KILL_ALLOWANCE`.
fn items(span: &str) -> Vec<&str> {
    let items: Vec<&str> = span.split("::").collect();
    let is_item = |item: &&str| {
        item.starts_with(|first: char| first.is_ascii_alphabetic())
            && item.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if items.iter().all(is_item) { items } else { Vec::new() }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').map(str::to_owned).collect()
}

fn identifiers() -> BTreeSet<String> {
    let paths = ["src", "crates", "tests"].iter().flat_map(|folder| files(&root().join(folder)));
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let sources = sources.filter(|path| !path.ends_with("tests/citations.rs"));
    sources.flat_map(|path| words(&fs::read_to_string(path).expect("text"))).collect()
}

#[test]
fn every_file_that_the_pages_about_the_code_name_exists() {
    let named = PAGES.iter().flat_map(|page| spans(&read(page)).into_iter().map(move |span| format!("{page}: {span}")));
    let paths: Vec<String> =
        named.filter(|span| span.split_once(": ").is_some_and(|(_, span)| is_path(span))).collect();
    let exists = |span: &String| span.split_once(": ").is_some_and(|(_, path)| root().join(path).exists());
    let missing: BTreeSet<_> = paths.iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "no such file: {missing:#?}");
    assert!(paths.len() > 150, "only {} paths were found", paths.len());
}

#[test]
fn every_item_that_the_pages_about_the_code_name_exists() {
    let identifiers = identifiers();
    let named: Vec<String> =
        PAGES.iter().flat_map(|page| spans(&read(page))).filter(|span| span.contains("::")).collect();
    let missing: BTreeSet<&str> =
        named.iter().flat_map(|span| items(span)).filter(|item| !identifiers.contains(*item)).collect();
    assert!(missing.is_empty(), "no such name in the sources: {missing:?}");
    assert!(named.len() > 50, "only {} names were found", named.len());
}

#[test]
fn every_word_of_the_glossary_is_where_it_says() {
    let (glossary, identifiers) = (read("docs/GLOSSARY.md"), identifiers());
    let mut checked = 0;
    for line in glossary.lines() {
        let Some((_, cell)) = line.strip_suffix(" |").and_then(|line| line.rsplit_once(" | ")) else { continue };
        let (paths, names): (Vec<String>, Vec<String>) = spans(cell).into_iter().partition(|span| is_path(span));
        let here = match paths.as_slice() {
            [path] if !names.is_empty() => words(&read(path)),
            _ => identifiers.clone(),
        };
        for name in names.iter().flat_map(|span| items(span)) {
            assert!(here.contains(name), "{name} is not there: {line}");
            checked += 1;
        }
    }
    assert!(checked > 70, "only {checked} names were found");
}
