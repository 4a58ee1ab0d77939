//! All boundaries of a store, one in a row.
//!
//! In a pipe every column is present and nothing is cut, so that a script finds its field; an unknown value is `-`. On a
//! terminal, columns without a known value are left out, and the widest texts are cut until a row fits on a line.

use crate::cli::format::{address, leading_for, rounded_duration};
use crate::store::Observation;
use crate::text::escaped;
use elect_core::boundary::Boundary;

/// Where it is shown.
#[derive(Debug, Clone, Copy)]
pub struct TableStyle {
    /// Of the terminal, if it is one.
    pub width: Option<usize>,
    /// Whether the first line stands out.
    pub bold: bool,
}

/// The columns of a table.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    pub header: &'static [&'static str],
    /// Those that are shown although nothing in them is known: they say that there is nothing, too.
    pub always: usize,
    /// Those that may be cut.
    pub texts: &'static [usize],
    /// The one of those whose end says more than its beginning.
    pub address: usize,
    /// One that is left out where a row does not fit.
    pub optional: Option<usize>,
}

const BOUNDARIES: Columns = Columns {
    header: &["BOUNDARY", "LEADER", "ADDRESS", "TERM", "FOR", "LEASE", "WAITING"],
    always: 2,
    texts: &[0, 1, 2],
    address: 2,
    optional: None,
};
/// Nothing is cut shorter than this.
const TEXT_WIDTH_MIN: usize = 8;
pub const UNKNOWN: &str = "-";
const SEPARATOR: &str = "  ";

pub fn table(seen: &[(Boundary, Observation)], style: TableStyle) -> String {
    let rows: Vec<Vec<String>> = seen.iter().map(|(boundary, observation)| row(boundary, observation)).collect();
    render(BOUNDARIES, &rows, style)
}

/// A table of any columns.
pub fn render(table: Columns, rows: &[Vec<String>], style: TableStyle) -> String {
    let header = table.header;
    let is_known = |column: &usize| rows.iter().any(|row| row[*column] != UNKNOWN);
    let mut columns: Vec<usize> = (0..header.len())
        .filter(|column| style.width.is_none() || *column < table.always || is_known(column))
        .collect();
    let width_of = |column: usize| rows.iter().map(|row| width(&row[column])).fold(header[column].len(), usize::max);
    let mut widths: Vec<usize> = (0..header.len()).map(width_of).collect();
    if let Some(room) = style.width {
        if total(&widths, &columns) > room {
            columns.retain(|column| Some(*column) != table.optional);
        }
        shrink(&mut widths, &columns, table.texts, room);
    }
    let line = |cells: &[String]| {
        let cell = |&column: &usize| cell(column == table.address, &cells[column], widths[column]);
        columns.iter().map(cell).collect::<Vec<_>>().join(SEPARATOR).trim_end().to_owned()
    };
    let header = line(&header.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let mut text = if style.bold { format!("\u{1b}[1m{header}\u{1b}[0m\n") } else { header + "\n" };
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

fn row(boundary: &Boundary, observation: &Observation) -> Vec<String> {
    let unknown = || UNKNOWN.to_owned();
    let waiting = observation.candidates.as_ref().map_or_else(unknown, |waiting| waiting.len().to_string());
    let shown = escaped(boundary.as_str()).into_owned();
    let Some(leader) = &observation.leader else {
        return vec![shown, unknown(), unknown(), unknown(), unknown(), unknown(), waiting];
    };
    // Like a missing one, a name of nothing would shift what follows it.
    let name = Some(escaped(&leader.name)).filter(|name| !name.trim().is_empty());
    vec![
        shown,
        name.map_or_else(|| "?".to_owned(), std::borrow::Cow::into_owned),
        address(leader).unwrap_or_else(unknown),
        leader.term.map_or_else(unknown, |term| term.to_string()),
        leading_for(leader).map_or_else(unknown, |age| age.replace(' ', "")),
        leader.lease_left.map_or_else(unknown, |left| rounded_duration(left).replace(' ', "")),
        waiting,
    ]
}

fn total(widths: &[usize], columns: &[usize]) -> usize {
    columns.iter().map(|&column| widths[column]).sum::<usize>() + SEPARATOR.len() * columns.len().saturating_sub(1)
}

/// Cuts the widest text, again and again, until all of a row fits or nothing can be cut any more.
fn shrink(widths: &mut [usize], columns: &[usize], texts: &[usize], room: usize) {
    while total(widths, columns) > room {
        let texts = texts.iter().copied().filter(|column| columns.contains(column) && widths[*column] > TEXT_WIDTH_MIN);
        let Some(widest) = texts.max_by_key(|&column| widths[column]) else { return };
        widths[widest] -= 1;
    }
}

/// Of what is shown. Characters that take two columns are rare in names, and shift a row at worst.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn cell(is_address: bool, text: &str, room: usize) -> String {
    if width(text) <= room {
        // The width of a format cannot be larger than 65,535.
        return [text, &" ".repeat(room - width(text))].concat();
    }
    let room = room.saturating_sub(1);
    if is_address {
        // Its port is at the end, and what is before it is often the name.
        let kept: String = text.chars().skip(width(text) - room).collect();
        return format!("…{kept}");
    }
    let kept: String = text.chars().take(room).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Leader;
    use std::time::Duration;

    fn leader(name: &str, host: &str, lease: Option<u64>) -> Observation {
        let leader = Leader {
            id: "id".to_owned(),
            name: name.to_owned(),
            host: Some(host.to_owned()),
            port: Some(8080),
            term: Some(1_795_194_000_123),
            since: None,
            ttl: None,
            lease_left: lease.map(Duration::from_secs),
            store_key: None,
        };
        Observation { leader: Some(leader), candidates: lease.map(|_| Vec::new()), ..Observation::default() }
    }

    fn seen(all: Vec<(&str, Observation)>) -> Vec<(Boundary, Observation)> {
        all.into_iter().map(|(name, observation)| (name.parse().expect("a name"), observation)).collect()
    }

    #[test]
    fn columns_are_aligned_and_a_pipe_gets_all_of_them() {
        let seen = seen(vec![("cron", leader("web-1", "10.0.0.5", None)), ("Zürich ☂", Observation::default())]);
        let expected = "\
BOUNDARY  LEADER  ADDRESS        TERM           FOR  LEASE  WAITING
cron      web-1   10.0.0.5:8080  1795194000123  -    -      -
Zürich ☂  -       -              -              -    -      -
";
        assert_eq!(table(&seen, TableStyle { width: None, bold: false }), expected);
        let expected = "\
\u{1b}[1mBOUNDARY  LEADER  ADDRESS        TERM\u{1b}[0m
cron      web-1   10.0.0.5:8080  1795194000123
Zürich ☂  -       -              -
";
        assert_eq!(table(&seen, TableStyle { width: Some(80), bold: true }), expected);
    }

    #[test]
    fn a_row_is_as_wide_as_the_terminal_at_most() {
        let long = "x".repeat(80);
        let seen = seen(vec![
            (&long, leader("a-host-with-a-long-name.example.com", "a-host-with-a-long-name.example.com", Some(9))),
            ("b", leader("web-1", "10.0.0.5", Some(10))),
        ]);
        for room in [80, 100, 132] {
            let table = table(&seen, TableStyle { width: Some(room), bold: false });
            assert!(table.lines().all(|line| width(line) <= room), "{room}:\n{table}");
            assert!(table.contains("…") && table.contains("1795194000123") && table.contains("m:8080"), "{table}");
        }
        let table = table(&seen, TableStyle { width: None, bold: false });
        assert!(table.contains(&long), "{table}");
    }

    #[test]
    fn texts_of_any_length_are_shown() {
        for length in [65_535, 65_536, 200_000] {
            let seen = seen(vec![("a", leader(&"x".repeat(length), "h", None)), ("b", leader("y", "h", None))]);
            for width in [None, Some(80)] {
                assert_eq!(table(&seen, TableStyle { width, bold: false }).lines().count(), 3);
            }
        }
    }

    #[test]
    fn what_would_steer_a_terminal_is_escaped_and_an_empty_name_is_no_hole() {
        let seen = seen(vec![("a", leader("\u{1b}[2Jevil\n", "h", None)), ("b", leader("", "h", None))]);
        let table = table(&seen, TableStyle { width: None, bold: false });
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(!table.contains('\u{1b}') && table.contains("\\u{1b}[2Jevil\\n "), "{table}");
        assert!(table.lines().last().is_some_and(|line| line.starts_with("b         ?")), "{table}");
    }
}
