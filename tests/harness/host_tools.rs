//! The machine's own programs, for what a test has to arrange.

use std::process::Command;

/// Its output, or an error with the command line and both outputs.
pub fn attempt<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    let words: Vec<&str> = words.into_iter().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| format!("{} cannot be started: {error}", words[0]))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(format!("{}: {}: {}{}", words.join(" "), output.status, said(&output.stdout), said(&output.stderr)))
    }
}

/// For what only root may do.
#[track_caller]
pub fn as_root<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    attempt(words).unwrap_or_else(|fault| panic!("{}", needs_root(&fault)))
}

pub fn needs_root(fault: &str) -> String {
    format!("{fault}(this test needs root; in a container, --privileged)")
}

/// For the end of a test, which may have failed already.
pub fn clean_up<'a>(words: impl IntoIterator<Item = &'a str>) {
    if let Err(fault) = attempt(words) {
        eprintln!("left behind: {fault}");
    }
}
