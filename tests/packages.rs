//! The crate, the packages, the tarball and the completions, as packagers use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::candidate::elect;
use crate::harness::host_tools::{as_root, attempt};
use crate::harness::{Sandbox, empty_root, executables, is_long};

fn sources() -> &'static str {
    env!("CARGO_MANIFEST_DIR")
}

/// The files that `./dist` makes of the program under test.
struct Dist {
    directory: PathBuf,
}

impl Dist {
    /// The static program is the one of `./build-static --dev`, where there can be one.
    fn new(sandbox: &Sandbox) -> Dist {
        let fixed = if empty_root::is_possible() { empty_root::program() } else { PathBuf::from(elect()) };
        let machine = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        for (folder, program) in [("release".to_owned(), Path::new(elect())), (format!("{machine}/release"), &fixed)] {
            let folder = sandbox.path().join("target").join(folder);
            fs::create_dir_all(&folder).expect("created");
            let stripped = folder.join("elect");
            attempt(["strip", "-o", stripped.to_str().expect("plain"), program.to_str().expect("plain")])
                .expect("stripped");
        }
        Dist::pack(sandbox, "dist")
    }

    fn pack(sandbox: &Sandbox, name: &str) -> Dist {
        let directory = sandbox.path().join(name);
        let made = Command::new(format!("{}/dist", sources()))
            .arg("--draft")
            .arg(&directory)
            .env("CARGO_TARGET_DIR", sandbox.path().join("target"))
            .output()
            .expect("a script");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "tests/run installs cargo-deb and rpmbuild: {said}");
        assert_eq!(said, "");
        Dist { directory }
    }

    fn path(&self, ending: &str) -> String {
        let entries = fs::read_dir(&self.directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mut found = entries.map(|path| path.display().to_string()).filter(|path| path.ends_with(ending));
        let path = found.next().expect("one file");
        assert_eq!(found.next(), None);
        path
    }
}

/// Regular files below a directory, from there.
fn files(root: &Path) -> Vec<String> {
    let listing =
        attempt(["find", &root.display().to_string(), "-type", "f", "-printf", "%m %P\n"]).expect("a listing");
    let mut files: Vec<String> = listing.lines().filter(|line| !line.contains(" var/")).map(str::to_owned).collect();
    files.sort();
    files
}

/// Pages of the manual, as `man1/elect.1`.
fn manual() -> Vec<String> {
    let entries = fs::read_dir(Path::new(sources()).join("man")).expect("the manual");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("plain"));
    let pages: Vec<String> =
        names.map(|name| format!("man{}/{name}", name.rsplit('.').next().expect("a section"))).collect();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The program, the unit, the completions, the manual, and what this kind of package has beside them.
#[track_caller]
fn has_all_files(found: &[String], others: &[&str]) {
    let expected = |path: &str, mode: &str| {
        assert!(found.contains(&format!("{mode} {path}")), "{path} with mode {mode} is not in {found:#?}");
    };
    expected("usr/bin/elect", "755");
    expected("usr/lib/systemd/system/elect@.service", "644");
    expected("usr/share/bash-completion/completions/elect", "644");
    expected("usr/share/fish/vendor_completions.d/elect.fish", "644");
    for path in others {
        expected(path, "644");
    }
    for page in manual() {
        expected(&format!("usr/share/man/{page}.gz"), "644");
    }
}

#[test]
fn a_debian_package_brings_everything_to_its_place_and_takes_it_away_again() {
    let sandbox = Sandbox::new();
    let package = Dist::new(&sandbox).path(".deb");
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
    has_all_files(&files(&root), &["usr/share/zsh/vendor-completions/_elect"]);
    let needs = attempt(["dpkg-deb", "--field", &package, "Depends"]).expect("a field");
    assert!(needs.contains("libc6"), "{needs}");
    as_root(dpkg.into_iter().chain(["--purge", "elect"]));
    assert_eq!(files(&root), Vec::<String>::new());
}

#[test]
fn an_rpm_package_brings_everything_to_its_place_and_takes_it_away_again() {
    let sandbox = Sandbox::new();
    let package = Dist::new(&sandbox).path(".rpm");
    let asked = |question: &[&str]| attempt(["rpm", "-qp", &package].into_iter().chain(question.iter().copied()));
    assert_eq!(asked(&["--scripts"]).expect("a package"), "");
    let needs = asked(&["--requires"]).expect("a package");
    assert!(needs.lines().all(|need| need.starts_with("rpmlib(")), "a static program needs no package: {needs}");
    let owners = asked(&["--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]"]).expect("a package");
    assert!(owners.lines().all(|owner| owner == "root:root"), "{owners}");
    let root = sandbox.path().join("root");
    fs::create_dir_all(&root).expect("created");
    let rpm = ["rpm", "--root", root.to_str().expect("plain"), "--dbpath", "/var/lib/rpm"];
    as_root(rpm.into_iter().chain(["--install", &package]));
    has_all_files(
        &files(&root),
        &[
            "usr/share/zsh/site-functions/_elect",
            "usr/share/doc/elect/LICENSE-MIT",
            "usr/share/doc/elect/docs/guide.md",
        ],
    );
    as_root(rpm.into_iter().chain(["--verify", "elect"]));
    as_root(rpm.into_iter().chain(["--erase", "elect"]));
    assert_eq!(files(&root), Vec::<String>::new());
}

#[test]
fn a_tarball_has_a_program_that_runs_and_all_that_a_package_brings() {
    let sandbox = Sandbox::new();
    let dist = Dist::new(&sandbox);
    let listing = attempt(["tar", "--list", "--verbose", "--numeric-owner", "--file", &dist.path(".tar.gz")]);
    let listing = listing.expect("a tarball");
    // -rw-r--r-- 0/0 1074 2026-11-29 20:35 elect-0.2.0-x86_64-linux/LICENSE-MIT
    let columns: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in &columns {
        assert!(["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"].contains(&line[0]) && line[1] == "0/0", "{line:?}");
        assert_eq!(line[3..5], columns[0][3..5], "{line:?}");
    }
    assert!(columns.iter().map(|line| line[5]).is_sorted(), "{listing}");
    attempt(["tar", "-xf", &dist.path(".tar.gz"), "-C", sandbox.path().to_str().expect("plain")]).expect("unpacked");
    let folder = format!("elect-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let folder = sandbox.path().join(folder);
    let mut files = vec!["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md", "docs/guide.md", "docs/failover.svg"];
    files.extend(["systemd/elect@.service", "completions/_elect", "man/elect.1", "recipes/elect-job@.timer"]);
    for file in files {
        assert_eq!(
            fs::read_to_string(folder.join(file)).expect("unpacked"),
            fs::read_to_string(Path::new(sources()).join(file)).expect("readable"),
            "{file}"
        );
    }
    let program = folder.join("elect");
    let store = format!("file:{}", sandbox.path().join("locks").display());
    let said =
        attempt([program.to_str().expect("plain"), "run", "-q", "--store", &store, "-b", "x", "--", "echo", "leads"]);
    assert_eq!(said.expect("it leads").trim(), "leads");
}

#[test]
fn the_same_programs_give_the_same_files_and_their_checksums() {
    let sandbox = Sandbox::new();
    let first = Dist::new(&sandbox);
    let check = ["sh", "-c", "cd \"$1\" && sha256sum --check --strict SHA256SUMS", "sh"];
    let directory = first.directory.display().to_string();
    let checked = attempt(check.into_iter().chain([directory.as_str()])).expect("right");
    assert_eq!(checked.lines().count(), 3, "{checked}");
    // A program that was built at another time, by a user whose files are private.
    let release = sandbox.path().join("target/release/elect");
    attempt(["touch", "-d", "2020-02-02", release.to_str().expect("plain")]).expect("touched");
    attempt(["chmod", "700", release.to_str().expect("plain")]).expect("changed");
    let second = Dist::pack(&sandbox, "again");
    let sums = |dist: &Dist| fs::read_to_string(dist.path("SHA256SUMS")).expect("readable");
    assert_eq!(sums(&first), sums(&second));
    fs::write(first.path(".tar.gz"), "").expect("written");
    assert!(attempt(check.into_iter().chain([directory.as_str()])).is_err());
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
        attempt(["sh", "-c", "cd \"$1\" && cargo package --workspace --list --allow-dirty 2>&1", "sh", sources()]);
    let listed = listed.expect("a list");
    let files: Vec<&str> = listed.lines().collect();
    assert!(!files.iter().any(|line| line.starts_with("warning")), "{listed}");
    let program = ["Cargo.lock", "LICENSE-MIT", "LICENSE-APACHE", "README.md", "src/main.rs", "man/elect.1"];
    // Comments cite the contract, and README shows the picture.
    for needed in program.into_iter().chain(["docs/DESIGN.md", "docs/handover.svg"]) {
        assert!(files.contains(&needed), "{needed} is not in {files:#?}");
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert_eq!(files.iter().filter(|file| **file == licence).count(), 3, "{licence}: once in each crate");
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
