//! The outcome of one run, and the file in which the runs are kept: one line of JSON each, so that an interrupted matrix goes on
//! where it was.
//!
//! The first line is the header. A line that was cut off by the interruption is ignored, and its run repeated.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::sites::locked;

/// One run of one cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `store/fault/tier`.
    pub cell: String,
    /// From 0.
    pub run: usize,
    /// Times that the witness met another tree.
    pub overlaps: usize,
    pub survivors: usize,
    /// Starts whose term was not above the one before.
    pub term_violations: usize,
    pub gone_ms: Option<f64>,
    pub next_ms: Option<f64>,
    /// The leader went on leading through the fault.
    pub kept: bool,
    /// Attempts that allowed no verdict since the machine was too slow (P5).
    pub repeated: u32,
    /// The run did not go as promised: the reason.
    pub failure: Option<String>,
    /// The machine was too slow for a verdict each time: the reason. Such a run is not finished.
    #[serde(default)]
    pub no_verdict: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub seed: u64,
}

/// The outcomes so far, and the file that grows with them.
pub struct ResultsFile {
    pub header: Header,
    file: Mutex<File>,
    before: Vec<Outcome>,
}

impl ResultsFile {
    /// Goes on with a file that exists: its seed counts, not this one. The error is a sentence.
    pub fn open(path: &Path, seed: u64) -> Result<ResultsFile, String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let header = lines.next().map(serde_json::from_str);
        let header = header.transpose().map_err(|error| format!("{}: no header: {error}", path.display()))?;
        let before = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
        let results = ResultsFile { header: header.clone().unwrap_or(Header { seed }), file: Mutex::new(file), before };
        if header.is_none() {
            results.append(&results.header);
        } else if !text.ends_with('\n') {
            results.write("\n");
        }
        Ok(results)
    }

    pub fn outcomes(&self) -> &[Outcome] {
        &self.before
    }

    /// The runs that are finished, by cell and number.
    pub fn finished(&self) -> HashSet<(String, usize)> {
        let finished = self.before.iter().filter(|outcome| outcome.no_verdict.is_none());
        finished.map(|outcome| (outcome.cell.clone(), outcome.run)).collect()
    }

    pub fn append(&self, line: &impl Serialize) {
        self.write(&(serde_json::to_string(line).expect("plain data") + "\n"));
    }

    /// In one write.
    fn write(&self, text: &str) {
        locked(&self.file).write_all(text.as_bytes()).expect("the results file takes a line");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_file_is_continued_without_the_line_that_was_cut_off() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("results");
        let outcome = |run| Outcome { cell: "store/sigterm/tree".to_owned(), run, ..Outcome::default() };
        let results = ResultsFile::open(&path, 7).expect("a new file");
        results.append(&outcome(0));
        results.write("{\"cell\":\"store/sig");
        let results = ResultsFile::open(&path, 8).expect("an old file");
        assert_eq!(results.header.seed, 7, "the seed of the file counts");
        assert_eq!(results.outcomes(), [outcome(0)]);
        results.append(&outcome(1));
        let finished = ResultsFile::open(&path, 9).expect("an old file").finished();
        assert_eq!(finished, [0, 1].map(|run| ("store/sigterm/tree".to_owned(), run)).into());
    }
}
