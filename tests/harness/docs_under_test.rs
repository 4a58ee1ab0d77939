//! The documents for users, as tests read them: README and the pages that it refers to, the manual, the recipes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The program, as a word.
pub fn elect() -> &'static str {
    env!("CARGO_BIN_EXE_elect")
}

#[track_caller]
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README, and the pages for users that it refers to.
pub fn readme_and_pages() -> Vec<PathBuf> {
    let readme = read("README.md");
    let pages = readme.split("(docs/").skip(1).filter_map(|rest| rest.split_once(".md)")).map(|(name, _)| name);
    let pages: BTreeSet<PathBuf> = pages.map(|name| root().join(format!("docs/{name}.md"))).collect();
    assert!(pages.len() > 3, "{pages:?}");
    std::iter::once(root().join("README.md")).chain(pages).collect()
}

#[track_caller]
pub fn page(name: &str) -> String {
    read(&format!("man/{name}"))
}

/// A page's source without the escapes and requests that stand between words.
pub fn plain(source: &str) -> String {
    let lines = source.lines().map(|line| match line.split_once(' ') {
        Some((request, rest)) if [".B", ".I", ".BR", ".IR", ".RB", ".BI"].contains(&request) => {
            let joined = if request.len() == 3 { rest.replace("\" ", "").replace(' ', "") } else { rest.to_owned() };
            joined.replace('"', "")
        }
        _ => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    ["\\fB", "\\fI", "\\fR", "\\&"]
        .iter()
        .fold(text, |text, font| text.replace(font, ""))
        .replace("\\-", "-")
        .replace("\\(aq", "'")
        .replace("\\*(Aq", "'")
        .replace("\\e", "\\")
}

/// A program that tests/run puts below `target/`, or else one on the path.
pub fn tool(name: &str) -> String {
    let own = root().join("target/tools/bin").join(name);
    if own.exists() { own.display().to_string() } else { name.to_owned() }
}
