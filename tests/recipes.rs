//! The commands that README, its pages and the manual show: run as written, on the file store, or looked at by the tool that owns
//! the format. (The unit is in `systemd.rs`.)

mod cluster;
mod containers;
mod load_balancer;
mod monitoring;
mod services;
mod shell;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::executables;
use crate::harness::{ElectCmd, Sandbox, docs_under_test};

/// A directory with elect in it, first on the path of what is run there.
struct RecipeSandbox {
    sandbox: Sandbox,
}

impl RecipeSandbox {
    fn new() -> RecipeSandbox {
        RecipeSandbox::of(Sandbox::new())
    }

    fn of(sandbox: Sandbox) -> RecipeSandbox {
        fs::create_dir(sandbox.path().join("bin")).expect("created");
        symlink(docs_under_test::elect(), sandbox.path().join("bin/elect")).expect("linked");
        RecipeSandbox { sandbox }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    /// A script beside the others.
    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("created");
        executables::script(&path, text);
    }

    /// Runs this line as if it were typed here.
    fn types(&self, line: &str) -> ElectCmd {
        let path = std::env::var("PATH").unwrap_or_default();
        ElectCmd::new(&self.sandbox)
            .program(["sh", "-c", "cd \"$1\" && eval \"$2\"", "sh"])
            .command([self.sandbox.path().to_str().expect("plain text"), line])
            .variable("PATH", &format!("{}:{path}", self.path("bin").display()))
            .variable("ELECT_STORE", &self.sandbox.store())
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().count()
    }
}

/// The first block of README or its pages with this marker before it, or after this heading.
#[track_caller]
fn block(marker: &str) -> String {
    let texts = docs_under_test::readme_and_pages().into_iter().map(|path| fs::read_to_string(path).expect("readable"));
    let text: String = texts.collect();
    let rest = text.split_once(&format!("{marker}\n")).unwrap_or_else(|| panic!("README has no {marker}")).1;
    let rest = rest.split_once("```").expect("a block").1.split_once('\n').expect("a line").1;
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_pages_and_the_manual_show_the_recipes_as_they_are() {
    let mut seen = 0;
    for entry in fs::read_dir(docs_under_test::root().join("recipes")).expect("recipes") {
        let path = entry.expect("a recipe").path();
        let name = format!("recipes/{}", path.file_name().expect("its name").display());
        // Too long for a page, which has a link instead.
        if path.extension().is_some_and(|extension| extension == "json") || name.contains("/alerts") {
            assert!(docs_under_test::read("docs/observing.md").contains(&name), "{name}");
            continue;
        }
        assert_eq!(block(&format!("<!-- {name} -->")), docs_under_test::read(&name), "{name}");
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
    let page = docs_under_test::page("elect-safety.7");
    for name in ["recipes/fence.sql", "recipes/ledger.sh"] {
        let shown = page.split_once(&format!(".\\\" recipe: {name}\n")).expect("it is shown").1;
        let shown = shown.split_once(".\\\" end\n").expect("its end").0;
        assert_eq!(docs_under_test::plain(shown), docs_under_test::read(name).trim_end_matches('\n'), "{name}");
    }
}
