//! Bold text and colours: in a terminal alone, and only if neither `NO_COLOR` nor the kind of terminal forbids them.

use crate::harness::terminal::{PseudoTerminal, typed};
use crate::harness::{ElectCmd, Sandbox, until};

/// Whether a text has colours or weights (SGR), which end in `m`. Other sequences move the cursor.
fn is_styled(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        end.starts_with('m')
    })
}

/// A terminal in which lines of shell are typed one after the other.
struct Typist {
    terminal: PseudoTerminal,
    typed: usize,
}

impl Typist {
    /// The output of a line, which ends by itself or by Ctrl-C once it has shown something.
    #[track_caller]
    fn shown(&mut self, line: &str, ends_after: Option<&str>) -> String {
        self.typed += 1;
        let before = self.terminal.screen().len();
        // The echo of the line does not contain the mark.
        self.terminal.types(&format!("{line}; echo end=$(({})).\n", self.typed));
        let since = |terminal: &PseudoTerminal| {
            let screen = terminal.screen();
            let output = screen.get(before..).unwrap_or_default();
            output.split_once('\n').map_or_else(String::new, |(_, output)| output.to_owned())
        };
        if let Some(text) = ends_after {
            until("it shows something", || since(&self.terminal).contains(text));
            self.terminal.presses_control('c');
        }
        let end = format!("end={}.", self.typed);
        until("the line has ended", || since(&self.terminal).contains(&end));
        since(&self.terminal)
    }
}

/// Each command: its name, its line, the text after which it is stopped, and whether it has styles at all.
fn commands(sandbox: &Sandbox) -> Vec<(&'static str, String, Option<&'static str>, bool)> {
    let query = |subcommand, words: &[&str]| typed(&ElectCmd::new(sandbox).query(subcommand, words));
    let plain = |subcommand, words: &[&str]| typed(&ElectCmd::new(sandbox).store(None).query(subcommand, words));
    let run = ElectCmd::new(sandbox).command(["true"]);
    vec![
        ("help", plain("help", &[]), None, true),
        ("run -h", plain("run", &["-h"]), None, true),
        ("status", query("status", &[]), None, true),
        ("status of one", query("status", &["cron"]), None, false),
        ("status --watch", query("status", &["--watch"]), Some("BOUNDARY"), true),
        ("watch", query("watch", &["cron"]), Some("no leader"), false),
        ("plan", plain("plan", &[]), None, false),
        ("check", typed(&ElectCmd::new(sandbox).store("always:".to_owned()).query("check", &[])), None, true),
        ("run", typed(&run), None, true),
    ]
}

fn with_a_boundary() -> Sandbox {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).command(["true"]).run();
    assert!(ended.status.success(), "{ended:?}");
    sandbox
}

#[test]
fn styles_are_for_terminals_that_are_not_told_otherwise() {
    let sandbox = with_a_boundary();
    let terminal = PseudoTerminal::open(&sandbox);
    let mut typist = Typist { terminal, typed: 0 };
    for (name, line, ends_after, has_styles) in commands(&sandbox) {
        for (variables, allowed) in [
            ("TERM=xterm", true),
            ("TERM=xterm NO_COLOR=''", true),
            ("TERM=xterm NO_COLOR=1", false),
            ("TERM=dumb", false),
            ("TERM=dumb CI=true", false),
            ("TERM=xterm NO_COLOR=1 CI=true", false),
        ] {
            let shown = typist.shown(&format!("{variables} {line}"), ends_after);
            assert_eq!(is_styled(&shown), has_styles && allowed, "{name}, {variables}: {shown:?}");
        }
    }
}

#[test]
fn nothing_that_is_no_terminal_gets_an_escape_sequence() {
    let sandbox = with_a_boundary();
    let mut typist = Typist { terminal: PseudoTerminal::open(&sandbox), typed: 0 };
    let file = sandbox.path().join("output").display().to_string();
    for (name, line, ends_after, _) in commands(&sandbox) {
        // The file holds what the terminal shows.
        let line = match ends_after {
            None => format!("TERM=xterm CLICOLOR_FORCE=1 CI=true {line} >{file} 2>&1; cat {file}"),
            Some(_) => format!("TERM=xterm CLICOLOR_FORCE=1 CI=true {line} > >(cat) 2>&1"),
        };
        let shown = typist.shown(&line, ends_after);
        assert!(!shown.contains('\u{1b}'), "{name}: {shown:?}");
    }
}
