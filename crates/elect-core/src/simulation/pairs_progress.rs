//! The progress of a long exploration, in a file: an interrupted one goes on where it was.
//!
//! The first line names the exploration by a hash of its parameters and of the test program, so that a file of another
//! one is not taken for its own. A line for each finding and each block that is finished follows. The states are in a
//! file of their own beside it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::pairs::Counts;
use super::states::{StateHasher, Unhashed};

pub(super) struct Progress {
    /// The blocks that are finished.
    pub done: BTreeMap<usize, Counts>,
    pub findings: Vec<String>,
    pub states: HashSet<u64, BuildHasherDefault<Unhashed>>,
    lines: File,
    hashes: File,
}

impl Progress {
    /// Reads what there is of this exploration, or begins it.
    pub(super) fn open(parameters: &str) -> Progress {
        let path = std::env::var_os("ELECT_PAIRS_FILE")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pairs.progress"), PathBuf::from);
        let states_path = path.with_extension("states");
        let key = format!("pairs {:016x}", hash_of(parameters));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that was being written when the run ended does not count.
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let is_ours = complete.lines().next() == Some(key.as_str());
        let (mut lines, mut hashes) = (open(&path), open(&states_path));
        let (mut done, mut findings, mut states) = (BTreeMap::new(), Vec::new(), HashSet::default());
        if is_ours {
            for line in complete.lines().skip(1) {
                if let Some(finding) = line.strip_prefix("finding ") {
                    findings.push(finding.to_string());
                } else if let Some((block, counts)) = done_of(line) {
                    done.insert(block, counts);
                }
            }
            let bytes = std::fs::read(&states_path).expect("can be read");
            let (whole, _) = bytes.as_chunks::<8>();
            states.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
            truncate(&mut lines, complete.len());
            truncate(&mut hashes, whole.len() * 8);
        } else {
            truncate(&mut lines, 0);
            truncate(&mut hashes, 0);
            writeln!(lines, "{key}").expect("can be written");
        }
        println!("{}: {} blocks are finished", path.display(), done.len());
        Progress { done, findings, states, lines, hashes }
    }

    /// Notes a block that is finished. Its states come first: a block whose line is missing is run again.
    pub(super) fn add(&mut self, block: usize, counts: Counts, findings: &[String], states: &[u64]) {
        let bytes: Vec<u8> = states.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.hashes.write_all(&bytes).expect("can be written");
        let Counts { histories, left_out, repeated, choices } = counts;
        let mut lines: Vec<String> = findings.iter().map(|finding| format!("finding {finding}")).collect();
        lines.push(format!("done {block} {histories} {left_out} {repeated} {choices}\n"));
        self.lines.write_all(lines.join("\n").as_bytes()).expect("can be written");
    }
}

fn open(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn truncate(file: &mut File, length: usize) {
    file.set_len(length as u64).expect("can be written");
}

fn done_of(line: &str) -> Option<(usize, Counts)> {
    let numbers: Vec<u64> = line.strip_prefix("done ")?.split(' ').map_while(|word| word.parse().ok()).collect();
    let [block, histories, left_out, repeated, choices] = numbers[..] else { return None };
    Some((usize::try_from(block).ok()?, Counts { histories, left_out, repeated, choices }))
}

/// Of the parameters, and of this program, which contains the model and the rules.
fn hash_of(parameters: &str) -> u64 {
    let program = std::fs::read(std::env::current_exe().expect("has a name")).expect("can be read");
    let mut hasher = StateHasher::default();
    hasher.write(parameters.as_bytes());
    let (whole, rest) = program.as_chunks::<8>();
    for bytes in whole {
        hasher.write_u64(u64::from_le_bytes(*bytes));
    }
    hasher.write(rest);
    hasher.finish()
}
