//! Files that follow from the command line are checked in, and compared here. `UPDATE=1 cargo test` rewrites them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Shell, completions};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn is_current(path: &Path, expected: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, expected).expect("written");
    }
    let found = fs::read(path).unwrap_or_default();
    assert!(found == expected, "{} is out of date: run UPDATE=1 cargo test", path.display());
}

/// At the end of each page but elect(1), which names all others.
const SEE_ALSO: &str = "\
.SH \"SEE ALSO\"
\\fBelect\\fR(1), \\fBelect\\-run\\fR(1), \\fBelect\\-status\\fR(1), \\fBelect\\-stores\\fR(7), \\fBelect\\-safety\\fR(7)
";

/// In elect(1), before its options.
const CONCEPTS: &str = "\
.SH CONCEPTS
Each
.B elect run
is a candidate for a boundary, the name of an election, and all candidates of a boundary meet in one store.
A candidate has two processes: the campaigner talks to the store and renews the lease, and the keeper, its child, owns the command and its tree:
every process that the command has started.
The keeper kills the tree before the lease ends, whatever becomes of the campaigner, and nothing is released before the tree is gone.
Each leader has a term, a number larger than that of every earlier leader, by which other systems can refuse its late writes.
.BR elect\\-stores (7)
describes the stores, and
.BR elect\\-safety (7)
the promise and its limits.
";

/// The sections of the text after the flags, in the order of the page.
const SECTIONS: [&str; 5] = ["NOTES", "SIGNALS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"];

/// How a paragraph of a section begins; a label is left out on the page.
const BEGINNINGS: [(&str, &str, &str); 7] = [
    ("Signals: ", "Signals: ", "SIGNALS"),
    ("In a terminal ", "", "SIGNALS"),
    ("Each flag ", "", "ENVIRONMENT"),
    ("The command finds ", "", "ENVIRONMENT"),
    ("Exit status: ", "Exit status: ", "EXIT STATUS"),
    ("Examples:\n", "Examples:\n", "EXAMPLES"),
    ("Maintenance of ", "", "EXAMPLES"),
];

/// One paragraph, whose indented lines are not refilled.
fn paragraph(text: &str) -> String {
    let mut page = String::new();
    let mut is_block = false;
    for line in text.lines() {
        let indented = line.strip_prefix("  ");
        if indented.is_some() != is_block {
            is_block = indented.is_some();
            page += if is_block { ".nf\n.RS 4\n" } else { ".RE\n.fi\n" };
        }
        page += indented.unwrap_or(line);
        page.push('\n');
    }
    if is_block { page + ".RE\n.fi\n" } else { page }
}

/// The page with its lists, whose explanations are indented, as they are written: the lines of any other text are filled.
fn with_lists(page: &str) -> String {
    let mut lists = String::new();
    for (number, block) in page.split("\n\n").enumerate() {
        let end = block.find("\n.").map_or(block.len(), |at| at + 1);
        let (list, rest) = block.split_at(end);
        let is_list = list.lines().any(|line| line.starts_with("    "));
        let (before, after) = if is_list { (".nf\n", "\n.fi\n") } else { ("", "") };
        let list = if is_list { list.trim_end() } else { list };
        lists.extend([if number == 0 { "" } else { "\n\n" }, before, list, after, rest]);
    }
    lists
}

/// The page with usual sections in place of the one that holds everything after the flags.
fn with_sections(page: &str) -> String {
    let Some((before, rest)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let (body, after) = rest.split_at(rest.find("\n.SH ").map_or(rest.len(), |at| at + 1));
    let mut sections = SECTIONS.map(|name| (name, String::new()));
    for text in body.trim_end().split("\n\n") {
        let known = BEGINNINGS.iter().find(|(beginning, _, _)| text.starts_with(beginning));
        let (label, name) = known.map_or(("", "NOTES"), |(_, label, name)| (*label, *name));
        let text = text.strip_prefix(label).unwrap_or(text);
        let (first, others) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
        let section = sections.iter_mut().find(|section| section.0 == name).expect("one of them");
        if !section.1.is_empty() {
            section.1 += ".PP\n";
        }
        section.1 += &paragraph(&(first.to_uppercase() + others));
    }
    let shown = sections.iter().filter(|(_, text)| !text.is_empty());
    let shown: String = shown.flat_map(|(name, text)| [".SH \"", name, "\"\n", text]).collect();
    format!("{before}{shown}{after}")
}

#[test]
fn man_pages_are_current() {
    let mut command = super::command().disable_help_subcommand(true);
    // A manual page has room for the text that the short help leaves out.
    command = command.mut_subcommands(|command| command.mut_args(|flag| flag.hide_short_help(false)));
    command.build();
    let pages: Vec<_> = std::iter::once(command.clone()).chain(command.get_subcommands().cloned()).collect();
    let others = pages.iter().skip(1).filter_map(|page| page.get_display_name());
    let others: String =
        others.flat_map(|name| ["\\fB".to_owned(), name.replace('-', "\\-"), "\\fR(1), ".to_owned()]).collect();
    let see_others = format!(".SH \"SEE ALSO\"\n{others}\\fBelect\\-stores\\fR(7), \\fBelect\\-safety\\fR(7)\n");
    for page in pages {
        // clap wants names that live forever; these are three.
        let name: &'static str = page.get_display_name().unwrap_or("elect").to_owned().leak();
        let mut text = Vec::new();
        clap_mangen::Man::new(page.name(name)).date("").render(&mut text).expect("rendered");
        let text = with_lists(&with_sections(&String::from_utf8(text).expect("text")));
        let text = if name == "elect" {
            text.replace(".SH OPTIONS\n", &format!("{CONCEPTS}.SH OPTIONS\n")) + &see_others
        } else {
            text + SEE_ALSO
        };
        is_current(&root().join(format!("man/{name}.1")), text.as_bytes());
    }
}

#[test]
fn completions_are_current() {
    for (shell, name) in [(Shell::Bash, "elect.bash"), (Shell::Zsh, "_elect"), (Shell::Fish, "elect.fish")] {
        is_current(&root().join("completions").join(name), &completions::script(shell));
    }
}

#[test]
fn the_help_in_the_page_on_usage_is_current() {
    const BEGIN: &str = "<!-- elect run -h -->\n```text\n";
    const END: &str = "```\n<!-- end -->";
    let mut command = super::command().term_width(100);
    command.build();
    let help = command.find_subcommand_mut("run").expect("there is one").render_help().to_string();
    let path = root().join("docs/usage.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the place where the help begins");
    let (_, after) = rest.split_once(END).expect("the place where it ends");
    let trimmed = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n";
    is_current(&path, format!("{before}{BEGIN}{trimmed}{END}{after}").as_bytes());
}
