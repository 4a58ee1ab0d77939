//! The crate, the Debian package, and the completions, as packagers use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::candidate::elect;
use crate::harness::executables;
use crate::harness::host_tools::{as_root, attempt};
use crate::harness::{Sandbox, is_long};

fn sources() -> &'static str {
    env!("CARGO_MANIFEST_DIR")
}

/// A package of the program under test, as cargo-deb makes it of a release.
fn package(sandbox: &Sandbox) -> PathBuf {
    let package = sandbox.path().join("elect.deb");
    let target = sandbox.path().join("target");
    fs::create_dir_all(target.join("release")).expect("created");
    let release = target.join("release/elect");
    attempt(["strip", "-o", release.to_str().expect("plain"), elect().to_str().expect("plain")]).expect("stripped");
    let made = Command::new("cargo")
        .args(["deb", "--no-build", "--no-strip", "--fast"])
        .args(["--manifest-path", &format!("{}/Cargo.toml", sources())])
        .args(["--output", package.to_str().expect("plain")])
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo is there: it runs this test");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "cargo deb (tests/run installs it): {said}");
    assert!(!said.contains("warning"), "{said}");
    package
}

/// Regular files below a directory, from there.
fn files(root: &Path) -> Vec<String> {
    let listing =
        attempt(["find", &root.display().to_string(), "-type", "f", "-printf", "%m %P\n"]).expect("a listing");
    let mut files: Vec<String> = listing.lines().filter(|line| !line.contains(" var/")).map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn a_debian_package_brings_everything_to_its_place_and_takes_it_away_again() {
    let sandbox = Sandbox::new();
    let package = package(&sandbox).display().to_string();
    let root = sandbox.path().join("root");
    for directory in ["updates", "info"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(directory)).expect("created");
    }
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "").expect("written");
    }
    // An empty root has no libraries, nor a shell for maintainers' scripts; there are none.
    let dpkg = ["dpkg", "--root", root.to_str().expect("plain"), "--force-depends", "--log=/dev/null"];
    as_root(dpkg.into_iter().chain(["--install", &package]));
    let found = files(&root);
    let expected = |path: &str, mode: &str| {
        assert!(found.contains(&format!("{mode} {path}")), "{path} with mode {mode} is not in {found:#?}");
    };
    expected("usr/bin/elect", "755");
    expected("usr/lib/systemd/system/elect@.service", "644");
    expected("usr/share/bash-completion/completions/elect", "644");
    expected("usr/share/zsh/vendor-completions/_elect", "644");
    expected("usr/share/fish/vendor_completions.d/elect.fish", "644");
    for entry in fs::read_dir(Path::new(sources()).join("man")).expect("the manual") {
        let name = entry.expect("an entry").file_name().into_string().expect("plain");
        let section = name.rsplit('.').next().expect("a section");
        expected(&format!("usr/share/man/man{section}/{name}.gz"), "644");
    }
    let needs = attempt(["dpkg-deb", "--field", &package, "Depends"]).expect("a field");
    assert!(needs.contains("libc6"), "{needs}");
    as_root(dpkg.into_iter().chain(["--purge", "elect"]));
    assert_eq!(files(&root), Vec::<String>::new());
}

#[test]
fn with_the_libraries_that_the_page_on_building_names_it_is_pid_1_of_an_empty_root() {
    let sandbox = Sandbox::new();
    let root = sandbox.path().join("root");
    let put = |from: &str| {
        let to = root.join(from.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file has a directory")).expect("created");
        executables::copy(from, to);
    };
    let page = fs::read_to_string(Path::new(sources()).join("docs/building.md")).expect("a page");
    let listing = attempt(["ldd", elect().to_str().expect("plain")]).expect("a dynamic program");
    // linux-vdso.so.1 (0x…); libc.so.6 => /lib/…/libc.so.6 (0x…); /lib64/ld-linux-x86-64.so.2 (0x…)
    for line in listing.lines() {
        let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
        let name = path.rsplit('/').next().expect("a name");
        assert!(page.contains(name), "{name} is needed, and docs/building.md does not name it");
        put(path);
    }
    fs::create_dir_all(root.join("proc")).expect("created");
    fs::create_dir_all(root.join("locks")).expect("created");
    executables::copy(elect(), root.join("elect"));
    // There is no shell in there, and nothing else: its command is elect itself.
    let script = r#"mount -t proc proc "$1/proc" && exec chroot "$1" /elect run --store file:/locks -b cron -- /elect --version"#;
    let said =
        as_root(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", root.to_str().expect("plain")]);
    assert_eq!(said.trim(), format!("elect {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_crate_has_all_that_it_is_built_from_and_nothing_else() {
    let listed =
        attempt(["sh", "-c", "cd \"$1\" && cargo package -p elect --list --allow-dirty 2>&1", "sh", sources()]);
    let listed = listed.expect("a list");
    let files: Vec<&str> = listed.lines().collect();
    let warnings: Vec<&&str> = files.iter().filter(|line| line.starts_with("warning")).collect();
    // It has no address of its own yet.
    assert_eq!(warnings, [&"warning: manifest has no documentation, homepage or repository"]);
    let program = ["Cargo.lock", "LICENSE-MIT", "LICENSE-APACHE", "README.md", "src/main.rs", "man/elect.1"];
    // Comments cite the contract, and README shows the picture.
    for needed in program.into_iter().chain(["docs/DESIGN.md", "docs/handover.svg"]) {
        assert!(files.contains(&needed), "{needed} is not in {files:#?}");
    }
    for left_out in [".ci", ".config/", ".github/"] {
        assert!(!files.iter().any(|file| file.starts_with(left_out)), "{left_out} is in {files:#?}");
    }
    if is_long() {
        // Built as whoever installs it from a registry builds it.
        attempt(["sh", "-c", "cd \"$1\" && cargo package --locked --allow-dirty 2>&1", "sh", sources()])
            .expect("it builds");
    }
}

/// The completions that bash offers after these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = r#"source "$1/completions/elect.bash"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _elect "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let said = attempt(["bash", "-c", script, "bash", sources()].into_iter().chain(words.iter().copied()));
    said.expect("bash").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    assert_eq!(offered(&["elect", "re"]), ["resign"]);
    assert_eq!(offered(&["elect", "run", "--fence"]), ["--fence-grace"]);
    assert_eq!(offered(&["elect", "run", "--restart", "on"]), ["on-failure"]);
    assert!(!offered(&["elect", ""]).contains(&"release-claim".to_owned()), "a hidden subcommand");
}

#[test]
fn zsh_and_fish_take_their_completions() {
    let zsh = format!("{}/completions/_elect", sources());
    let script = r#"autoload -U compinit && compinit -u -D && source "$1" && (( $+functions[_elect] ))"#;
    attempt(["zsh", "-f", "-c", script, "zsh", &zsh]).expect("zsh");
    let fish = format!("source {}/completions/elect.fish; complete -C 'elect re'", sources());
    let said = attempt(["fish", "--no-config", "-c", &fish]).expect("fish");
    assert!(said.lines().any(|line| line.starts_with("resign")), "{said}");
}
