//! The manual: pages that the formatters take without a word, that name what exists, and whose figures are the program's.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::STORES;
use crate::harness::{ElectCmd, Sandbox, docs_under_test, host_tools};

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(docs_under_test::root().join("man"))
        .expect("man pages")
        .map(|entry| entry.expect("a page").path())
        .collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// Formats a page; what the formatter has to say about it.
fn complaints(words: &[&str], page: &str) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg(page)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error} (tests/run installs it)", words[0]));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if words[0] == "mandoc" { said(&output.stdout) + &said(&output.stderr) } else { said(&output.stderr) }
}

#[test]
fn every_page_is_formatted_without_a_word() {
    for page in pages() {
        let page = page.to_str().expect("plain text");
        let said = complaints(&["groff", "-K", "utf8", "-man", "-ww", "-z"], page);
        assert_eq!(said, "", "{page}");
        // Generated pages are not checked by a second formatter.
        if page.ends_with(".7") {
            assert_eq!(complaints(&["mandoc", "-T", "lint", "-W", "warning"], page), "", "{page}");
        }
    }
}

#[test]
fn a_page_that_is_broken_would_be_noticed() {
    let sandbox = Sandbox::new();
    let page = sandbox.path().join("broken.7");
    fs::write(&page, ".TH broken 7 2026-11-21 x\n.SH NAME\nbroken \\- page\n.nosuchmacro\n\\*[nothing]\n")
        .expect("written");
    let page = page.to_str().expect("plain text");
    assert_ne!(complaints(&["groff", "-K", "utf8", "-man", "-ww", "-z"], page), "");
    assert_ne!(complaints(&["mandoc", "-T", "lint", "-W", "warning"], page), "");
}

#[test]
fn commands_have_the_usual_sections_and_examples_keep_their_lines() {
    for path in pages().into_iter().filter(|path| path.extension().is_some_and(|section| section == "1")) {
        let page = fs::read_to_string(&path).expect("readable");
        assert!(!page.contains(".SH EXTRA"), "{}", path.display());
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"SEE ALSO\""] {
            assert!(page.contains(&format!(".SH {section}\n")), "{}: {section}", path.display());
        }
        let mut is_filled = true;
        let examples = page.split(".SH \"EXAMPLES\"\n").nth(1).and_then(|rest| rest.split("\n.SH ").next());
        for line in examples.unwrap_or_default().lines() {
            match line {
                ".nf" => is_filled = false,
                ".fi" => is_filled = true,
                _ => assert!(!is_filled || !line.starts_with("elect "), "{}: {line}", path.display()),
            }
        }
    }
    let run = docs_under_test::page("elect-run.1");
    let order = ["SIGNALS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"];
    let places: Vec<usize> =
        order.iter().map(|section| run.find(&format!(".SH \"{section}\"\n")).expect("a section")).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(docs_under_test::page("elect.1").contains(".SH CONCEPTS\n"));
}

/// The pages of elect that a text points to: `elect-run(1)`, in whatever font.
fn named(text: &str) -> BTreeSet<String> {
    let plain = docs_under_test::plain(text).replace(" (", "(");
    let mut named = BTreeSet::new();
    for (at, _) in plain.match_indices("elect") {
        let rest = &plain[at..];
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        if let Some(section) = rest[name.len()..].strip_prefix('(').and_then(|rest| rest.chars().next())
            && section.is_ascii_digit()
        {
            named.insert(format!("{name}.{section}"));
        }
    }
    named
}

#[test]
fn every_page_that_is_referred_to_exists_and_elect_1_refers_to_the_others() {
    let mut texts: Vec<PathBuf> = pages();
    texts.extend(docs_under_test::readme_and_pages());
    for path in texts {
        let text = fs::read_to_string(&path).expect("readable");
        for name in named(&text) {
            assert!(docs_under_test::root().join("man").join(&name).exists(), "{}: {name}", path.display());
        }
        if path.extension().is_some_and(|section| section == "1") {
            let referred = named(&text);
            assert!(
                referred.contains("elect-stores.7") && referred.contains("elect-safety.7"),
                "{}: {referred:?}",
                path.display()
            );
        }
    }
}

/// Long flags, as `--flag`.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

#[test]
fn every_flag_that_the_handwritten_pages_name_exists() {
    let sandbox = Sandbox::new();
    let mut known = flags(
        &fs::read_to_string(docs_under_test::root().join("man/elect-run.1")).expect("a page").replace("\\-", "-"),
    );
    known.extend(["--for", "--json", "--id", "--timeout"].map(str::to_owned));
    let help = host_tools::attempt([docs_under_test::elect(), "run", "--help"]).expect("help");
    known.extend(flags(&help));
    // Of etcdctl.
    known.insert("--prefix".to_owned());
    for name in ["elect-stores.7", "elect-safety.7"] {
        let unknown: Vec<String> =
            flags(&docs_under_test::plain(&docs_under_test::page(name))).difference(&known).cloned().collect();
        assert_eq!(unknown, [""; 0], "{name}");
    }
    drop(sandbox);
}

#[test]
fn each_kind_of_store_in_this_build_has_a_section() {
    let help = host_tools::attempt([docs_under_test::elect(), "run", "--help"]).expect("help");
    let page = docs_under_test::page("elect-stores.7");
    let (_, list) = help.split_once("Where the election is held, one of:").expect("--store lists the kinds");
    let list = list.trim_start().lines().take_while(|line| !line.trim().is_empty());
    // The other lines are the rest of a description.
    let kinds: Vec<(&str, &str)> = list.filter_map(|line| line.split_whitespace().next()?.split_once(':')).collect();
    assert!(kinds.len() > STORES.len(), "{kinds:?}");
    for (name, rest) in kinds {
        let scheme = format!("{name}:{}", if rest.starts_with("//") { "//" } else { "" });
        let section = name.to_uppercase();
        let text = page.split(&format!(".SH {section}\n")).nth(1).and_then(|rest| rest.split("\n.SH ").next());
        let text = text.unwrap_or_else(|| panic!("no section {section}"));
        assert!(!text.contains("has no such store") && text.contains(&scheme), "{section}: {text}");
    }
}

#[test]
fn the_timeline_of_a_lost_lease_is_that_of_elect_plan() {
    let sandbox = Sandbox::new();
    let plan = ElectCmd::new(&sandbox).subcommand("plan").store("etcd:".to_owned()).command(["true"]).run().stdout;
    let row = |name: &str| {
        let line = plan.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {plan}"));
        let value = line[name.len()..].split_whitespace().next().expect("a value").to_owned();
        value.trim_end_matches('s').parse::<f64>().expect("seconds")
    };
    let page = docs_under_test::plain(&docs_under_test::page("elect-safety.7"));
    for line in [
        format!("{:4.1} s  the next renewal is sent", row("renewal")),
        format!("{:4.1} s  its time is up; tried again after 250 to 500 ms", row("renewal") + row("attempt")),
        format!("{:4.1} s  SIGTERM", row("SIGTERM")),
        format!("{:4.1} s  SIGKILL", row("SIGKILL")),
        format!("{:4.1} s  the lease ends", row("lease")),
        format!("whenever it begins, is {} s", row("outage")),
        format!("The {} s between SIGKILL and the end of the lease", row("margin")),
    ] {
        assert!(page.contains(&line), "{line:?} is not in the page");
    }
    assert!(plan.contains("250ms to 500ms"), "{plan}");
}
