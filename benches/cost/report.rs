//! The measured figures: kept as JSON, printed as a table, and written into the documentation with a plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Around the table in docs/measured.md.
const MARKS: [&str; 2] = ["<!-- cost: begin -->", "<!-- cost: end -->"];

/// How often something is measured: `ELECT_BENCH_RUNS`, or else this.
pub fn runs(usual: usize) -> usize {
    std::env::var("ELECT_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(usual)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Milliseconds,
    Megabytes,
    Percent,
    Number,
}

/// Something measured: the median and the 99th percentile of some runs, or a single value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// Measurement, store and program.
    pub name: [String; 3],
    pub unit: Unit,
    pub runs: usize,
    pub median: f64,
    pub high: f64,
}

impl Figure {
    pub fn name(name: [&str; 3]) -> [String; 3] {
        name.map(str::to_owned)
    }

    pub fn of_times(name: [String; 3], mut times: Vec<Duration>) -> Figure {
        times.sort();
        let millis = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        let high = (times.len() * 99).div_ceil(100).saturating_sub(1);
        let (median, high) = (millis(times.len() / 2), millis(high));
        Figure { name, unit: Unit::Milliseconds, runs: times.len(), median, high }
    }

    pub fn single(name: [String; 3], value: f64, unit: Unit) -> Figure {
        Figure { name, unit, runs: 1, median: value, high: value }
    }

    fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Milliseconds if value >= 100.0 => format!("{value:.0} ms"),
            Unit::Milliseconds => format!("{value:.1} ms"),
            Unit::Megabytes => format!("{value:.1} MB"),
            Unit::Percent => format!("{value:.3} %"),
            Unit::Number => format!("{value:.1}"),
        }
    }

    fn high_text(&self) -> String {
        if self.runs > 1 { self.text(self.high) } else { String::new() }
    }
}

/// All that was measured, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results(BTreeMap<String, Figure>);

impl Results {
    pub fn read() -> Results {
        let text = fs::read_to_string(path_of("target/bench/cost.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Prints them, too.
    pub fn keep(&mut self, figures: Vec<Figure>) {
        for figure in figures {
            let [measurement, store, program] = &figure.name;
            let (median, high) = (figure.text(figure.median), figure.high_text());
            println!("{measurement:<48} {store:<14} {program:<14} {median:>12} {high:>12}");
            self.0.insert(figure.name.join("/"), figure);
        }
        let path = path_of("target/bench/cost.json");
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("target takes a directory");
        let text = serde_json::to_string_pretty(self).expect("plain values");
        fs::write(path, text).expect("target takes a file");
    }

    /// The table and the plot.
    pub fn write_documents(&self) {
        let path = path_of("docs/measured.md");
        let page = fs::read_to_string(&path).expect("the page is there");
        let [begin, end] = MARKS.map(|mark| page.find(mark).expect("the page has the marks of the table"));
        let page = format!("{}{}\n{}{}", &page[..begin], MARKS[0], self.table(), &page[end..]);
        fs::write(path, page).expect("the page can be written");
        fs::write(path_of("docs/cost.svg"), self.plot()).expect("the picture can be written");
    }

    fn table(&self) -> String {
        let mut table =
            "\n| | store | | median | 99th percentile | against the peer |\n|---|---|---|---|---|---|\n".to_owned();
        for figure in self.0.values() {
            let [measurement, store, program] = &figure.name;
            let ratio =
                self.peer_of(figure).map_or_else(String::new, |peer| format!("{:.2}", figure.median / peer.median));
            let (median, high) = (figure.text(figure.median), figure.high_text());
            let _ = writeln!(table, "| {measurement} | {store} | {program} | {median} | {high} | {ratio} |");
        }
        table.push('\n');
        table
    }

    /// The same of the other program, for a figure of elect.
    fn peer_of(&self, figure: &Figure) -> Option<&Figure> {
        let is_peer = |other: &&Figure| other.name[..2] == figure.name[..2] && other.name[2] != "elect";
        self.0.values().find(is_peer).filter(|_| figure.name[2] == "elect")
    }

    /// Medians as dots, and lines to the 99th percentiles, on a logarithmic scale.
    fn plot(&self) -> String {
        const KINDS: [&str; 3] = ["start to exec", "hand-over", "hand-over, campaigner killed"];
        const ROW: usize = 18;
        let mut body = String::new();
        let mut y = 30;
        for kind in KINDS {
            let _ = writeln!(body, "<text class=\"head\" x=\"10\" y=\"{y}\">{kind}</text>");
            for figure in self.0.values().filter(|figure| figure.name[0] == kind) {
                y += ROW;
                let [_, store, program] = &figure.name;
                let class = if program == "elect" { "elect" } else { "peer" };
                let (from, to, middle) = (x_of(figure.median), x_of(figure.high), y - 4);
                let value = figure.text(figure.median);
                let _ = writeln!(
                    body,
                    "<text x=\"20\" y=\"{y}\">{store}: {program}</text>\
                     <line class=\"{class}\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>\
                     <circle class=\"{class}\" cx=\"{from:.1}\" cy=\"{middle}\" r=\"4\"/>\
                     <text class=\"value\" x=\"670\" y=\"{y}\">{value}</text>"
                );
            }
            y += 2 * ROW;
        }
        let mut grid = String::new();
        for millis in [1.0, 10.0, 100.0, 1000.0] {
            let x = x_of(millis);
            let _ = writeln!(
                grid,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"34\" x2=\"{x:.1}\" y2=\"{}\"/>\
                 <text class=\"axis\" x=\"{x:.1}\" y=\"{}\">{millis} ms</text>",
                y - ROW,
                y - 4
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <title>Medians, and lines to the 99th percentiles</title>\n{STYLE}\n{grid}{body}</svg>\n",
            height = y + 8
        )
    }
}

const STYLE: &str = "<style>\
text{fill:#222}.head{font-weight:bold}.value{text-anchor:start}.axis{text-anchor:middle;fill:#666}.grid{stroke:#ddd}\
line.elect{stroke:#0b62c4;stroke-width:2}circle.elect{fill:#0b62c4}line.peer{stroke:#a05a00;stroke-width:2}circle.peer{fill:#a05a00}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.axis{fill:#999}.grid{stroke:#444}line.elect{stroke:#6db3ff}circle.elect{fill:#6db3ff}\
line.peer{stroke:#ffb454}circle.peer{fill:#ffb454}}</style>";

/// From 0.5 ms to 2 s.
fn x_of(millis: f64) -> f64 {
    let (low, high) = (0.5_f64.ln(), 2000.0_f64.ln());
    let share = (millis.max(0.5).ln() - low) / (high - low);
    share.min(1.0).mul_add(440.0, 210.0)
}

fn path_of(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
