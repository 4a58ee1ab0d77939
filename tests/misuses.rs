//! The table of misuses: what users get wrong, and the one line that they read then.
//!
//! Each row is a line of shell. A message is one line, says what failed, on what, and what to do; it repeats no secret, the exit
//! status is right, and nothing is left running.

mod server_table;
mod servers;
mod table;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::harness::candidate::elect;
use crate::harness::server::PASSWORD;
use crate::harness::{ElectCmd, Ended, Sandbox, executables};

/// Stands in every line of the table where a password would.
const SECRET: &str = "hunter2";

/// What each line may use: `run` with a store of its own, and `user` for another user. `$T` is an empty directory, and the
/// working directory.
const PRELUDE: &str = r#"
cd "$T"
run() { elect run --quiet --store "file:$T/locks" -b x "$@"; }
user() { chown 65534 "$T" && setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
urun() { user elect run --quiet --store "file:$T/locks" -b x "$@"; }
script() { printf "$2" >"$T/$1" && chmod "${3:-755}" "$T/$1"; }
mounted() { unshare --mount sh -euc "$1"; }
"#;

/// One misuse.
struct Misuse {
    /// What is wrong.
    what: &'static str,
    /// The line of shell that does it.
    line: &'static str,
    /// Its exit status.
    status: i32,
    /// The parts of the message, in this order.
    said: &'static [&'static str],
}

const fn misuse(what: &'static str, line: &'static str, status: i32, said: &'static [&'static str]) -> Misuse {
    Misuse { what, line, status, said }
}

/// The lines of stderr that are elect's, but for warnings about the control socket and about a password, which are other messages.
fn messages(ended: &Ended) -> Vec<&str> {
    let others = ["no control socket", "ps shows the password"];
    let is_message = |line: &&str| line.contains("elect") && !others.iter().any(|other| line.contains(other));
    ended.stderr.lines().filter(is_message).collect()
}

fn check(misuse: &Misuse, ended: &Ended) -> Result<(), String> {
    let messages = messages(ended);
    let [message] = messages.as_slice() else {
        return Err(format!("not one line, but {}", messages.len()));
    };
    if ended.status.code() != Some(misuse.status) {
        return Err(format!("exit status {:?}, not {}", ended.status.code(), misuse.status));
    }
    let mut rest = *message;
    for words in misuse.said {
        let Some((_, after)) = rest.split_once(words) else {
            return Err(format!("{words:?} is not said, or not there"));
        };
        rest = after;
    }
    if [SECRET, PASSWORD].iter().any(|secret| ended.stderr.contains(secret) || ended.stdout.contains(secret)) {
        return Err("the secret is repeated".to_owned());
    }
    Ok(())
}

/// Does all of these, with these variables, and prints what was said: `ELECT_TEST_BINARY` shows what another build says.
#[track_caller]
fn are_reported(misuses: &[Misuse], variables: &[(&str, &str)]) {
    let sandbox = Sandbox::new().open_to_all();
    let bin = sandbox.path().join("bin");
    fs::create_dir(&bin).expect("created");
    // Another user may not reach the one that was built.
    if misuses.iter().any(|misuse| misuse.line.contains("user") || misuse.line.contains("urun")) {
        executables::copy(elect(), bin.join("elect"));
    } else {
        symlink(elect(), bin.join("elect")).expect("linked");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut faults = Vec::new();
    for (number, misuse) in misuses.iter().enumerate() {
        let place = sandbox.path().join(number.to_string());
        fs::create_dir(&place).expect("created");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("a directory of ours");
        let line = format!("{PRELUDE}\n{}", misuse.line);
        let elect = ElectCmd::new(&sandbox).program(["sh", "-c", &line]).variable("PATH", &path);
        let elect = elect.variable("T", &place.display().to_string());
        let ended = variables.iter().fold(elect, |elect, (name, value)| elect.variable(name, value)).run();
        let status = ended.status.code().unwrap_or_default();
        println!("figures: {} | {status} | {}", misuse.what, messages(&ended).join(" // "));
        if let Err(fault) = check(misuse, &ended) {
            faults.push(format!("{}: {fault}: {ended:?}", misuse.what));
        }
        sandbox.is_left_empty();
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn commands_that_cannot_be_run_are_reported() {
    are_reported(table::COMMANDS, &[]);
}

#[test]
fn flags_that_make_no_sense_are_reported() {
    are_reported(table::FLAGS, &[]);
}

#[test]
fn variables_that_make_no_sense_are_reported() {
    are_reported(table::VARIABLES, &[]);
}

#[test]
fn stores_that_do_not_exist_are_reported() {
    are_reported(table::STORES, &[]);
}

#[test]
fn directories_that_cannot_be_used_are_reported() {
    are_reported(table::DIRECTORIES, &[]);
}

#[test]
fn limits_and_users_that_do_not_suffice_are_reported() {
    are_reported(table::HOSTS, &[]);
}

#[test]
fn requests_that_reach_no_candidate_are_reported() {
    are_reported(table::REQUESTS, &[]);
}

#[test]
fn the_table_is_as_long_as_it_should_be_and_names_each_misuse_once() {
    let mut names: Vec<&str> = table::all().chain(server_table::all()).map(|misuse| misuse.what).collect();
    let count = names.len();
    assert!(count >= 150, "{count}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
