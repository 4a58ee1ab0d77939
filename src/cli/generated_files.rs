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

/// The pages that are written by hand, at the end of each generated one.
const SEE_ALSO: &str = ".SH \"SEE ALSO\"\n\\fBelect\\fR(1), \\fBelect\\-stores\\fR(7), \\fBelect\\-safety\\fR(7)\n";

#[test]
fn man_pages_are_current() {
    let mut command = super::command().disable_help_subcommand(true);
    // A manual page has room for the text that the short help leaves out.
    command = command.mut_subcommands(|command| command.mut_args(|flag| flag.hide_short_help(false)));
    command.build();
    let pages = std::iter::once(command.clone()).chain(command.get_subcommands().cloned());
    for page in pages {
        // clap wants names that live forever; these are three.
        let name: &'static str = page.get_display_name().unwrap_or("elect").to_owned().leak();
        let mut text = Vec::new();
        clap_mangen::Man::new(page.name(name)).date("").render(&mut text).expect("rendered");
        text.extend_from_slice(SEE_ALSO.as_bytes());
        is_current(&root().join(format!("man/{name}.1")), &text);
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
