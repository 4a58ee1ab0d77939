//! The findings of a check, as text and as JSON.

use serde::Serialize;

use crate::cli::format::wrapped;
use crate::cli::status::{TableStyle, here};
use crate::exit::Exit;
use crate::store::{Finding, FindingResult};
use crate::text::{escaped, without_passwords};

/// The width of the longest name of a finding, so that details begin in one column.
const NAME_WIDTH: usize = 13;

/// All that was found.
#[derive(Debug, Default)]
pub struct CheckReport {
    findings: Vec<Finding>,
    /// The status with which `run -n` would have ended.
    exit: Option<Exit>,
}

impl CheckReport {
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// A failure that would have ended `run -n` with this status. The first one counts.
    pub fn add_final(&mut self, exit: Exit, finding: Finding) {
        self.exit.get_or_insert(exit);
        self.findings.push(finding);
    }

    pub fn has_failed(&self, name: &str) -> bool {
        self.findings.iter().any(|finding| finding.name == name && finding.result == FindingResult::Fail)
    }

    fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.result != FindingResult::Fail)
    }

    pub fn exit(&self) -> Exit {
        self.exit.unwrap_or(if self.is_ok() { Exit::Success } else { Exit::No })
    }

    /// A line for each finding. A terminal shows it broken between words.
    pub fn to_text(&self) -> String {
        let style = here();
        self.findings.iter().map(|finding| line(finding, style)).collect()
    }

    /// One object, in one line.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct FindingDocument<'a> {
            name: &'a str,
            result: &'a str,
            detail: String,
            advice: Option<String>,
        }
        #[derive(Serialize)]
        struct CheckDocument<'a> {
            ok: bool,
            checks: Vec<FindingDocument<'a>>,
        }
        let checks = self.findings.iter().map(|Finding { name, result, detail, advice }| FindingDocument {
            name,
            result: word(*result),
            detail: without_passwords(detail).into_owned(),
            advice: advice.as_deref().map(|advice| without_passwords(advice).into_owned()),
        });
        let document = CheckDocument { ok: self.is_ok(), checks: checks.collect() };
        serde_json::to_string(&document).expect("texts become JSON") + "\n"
    }
}

fn word(result: FindingResult) -> &'static str {
    match result {
        FindingResult::Ok => "ok",
        FindingResult::Warn => "warn",
        FindingResult::Fail => "fail",
    }
}

fn line(Finding { name, result, detail, advice }: &Finding, style: TableStyle) -> String {
    let advice = advice.as_deref().map_or_else(String::new, |advice| format!("; {advice}"));
    let text = without_passwords(&format!("{detail}{advice}")).into_owned();
    let word = word(*result);
    let text = format!("{word:<4}  {name:<NAME_WIDTH$} {}", escaped(&text));
    let text = match style.width {
        Some(width) => wrapped(&text, width),
        None => text + "\n",
    };
    if style.bold && *result != FindingResult::Ok {
        text.replacen(word, &format!("\u{1b}[1m{word}\u{1b}[0m"), 1)
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CheckReport {
        let mut report = CheckReport::default();
        report.add(Finding::ok("takes", "20 takes: median 1 ms, p99 2 ms"));
        report.add(Finding::warn("containment", "tree", "add Delegate=yes"));
        report
    }

    #[test]
    fn the_exit_status_is_that_of_the_first_final_failure_or_says_whether_a_line_fails() {
        let mut report = report();
        assert_eq!(report.exit(), Exit::Success);
        report.add(Finding::fail("latency", "too slow", "--ttl 5s"));
        assert_eq!(report.exit(), Exit::No);
        report.add_final(Exit::Refused, Finding::fail("store", "no", "yes"));
        report.add_final(Exit::Unavailable, Finding::fail("store", "no", "yes"));
        assert_eq!(report.exit(), Exit::Refused);
    }

    #[test]
    fn the_json_has_the_shape_of_the_design() {
        let expected = concat!(
            r#"{"ok":true,"checks":[{"name":"takes","result":"ok","detail":"20 takes: median 1 ms, p99 2 ms","advice":null},"#,
            r#"{"name":"containment","result":"warn","detail":"tree","advice":"add Delegate=yes"}]}"#,
            "\n"
        );
        assert_eq!(report().to_json(), expected);
    }

    #[test]
    fn a_line_has_result_name_detail_and_advice() {
        let lines = |style| report().findings.iter().map(|finding| line(finding, style)).collect::<String>();
        let plain = "ok    takes         20 takes: median 1 ms, p99 2 ms\n\
                     warn  containment   tree; add Delegate=yes\n";
        assert_eq!(lines(TableStyle { width: None, bold: false }), plain);
        let bold = lines(TableStyle { width: Some(80), bold: true });
        assert_eq!(bold, plain.replacen("warn", "\u{1b}[1mwarn\u{1b}[0m", 1));
        let forged = Finding::fail("store", "a\nok    takes", "https://u:secret@h");
        let shown = line(&forged, TableStyle { width: None, bold: false });
        assert!(shown.lines().count() == 1 && !shown.contains("secret"), "{shown}");
    }
}
