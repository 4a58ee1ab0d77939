//! What is written for people, as tests read it: README, the manual, the recipes.

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
