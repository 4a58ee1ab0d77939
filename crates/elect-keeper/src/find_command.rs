//! Finds the file of a command before anything is campaigned for, and says in one line why there is none.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a command is looked for if there is no `PATH`.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The kernel reads no more of a file to find its interpreter.
const FIRST_LINE_BYTES_MAX: u64 = 256;
/// What is shown of a search path.
const SEARCH_CHARS_MAX: usize = 200;
/// Words that only a shell understands.
const SHELL_WORDS: [&str; 23] = [
    ".", "alias", "case", "cd", "eval", "exec", "exit", "export", "for", "function", "if", "read", "return", "set",
    "shopt", "source", "trap", "ulimit", "umask", "unset", "until", "wait", "while",
];

/// The reason why a command cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The file does not exist, or no directory of the search path has it (exit status 127).
    #[error("{shown}: command not found{advice}")]
    NotFound {
        /// The command as given, without the value of an assignment.
        shown: String,
        /// What to do.
        advice: String,
    },
    /// The file exists, the interpreter in its first line does not (exit status 127).
    #[error("{}: its first line names the interpreter {interpreter:?}, which does not exist{}", path.display(), carriage_return(interpreter))]
    NoInterpreter {
        /// The path of the script.
        path: PathBuf,
        /// Its interpreter.
        interpreter: String,
    },
    /// The file exists and cannot be executed (exit status 126).
    #[error("{}: {reason}{}", path.display(), permission_advice(path, reason))]
    NotExecutable {
        /// The path of the file.
        path: PathBuf,
        /// The kernel's error.
        reason: io::Error,
    },
}

/// Finds the file of a command, as a shell does, and its interpreter.
///
/// # Errors
///
/// [`FindError`]: the file or its interpreter does not exist, or the file is not executable.
pub fn find_command(words: &[OsString], search: Option<&OsStr>) -> Result<PathBuf, FindError> {
    let name = words.first().map(OsString::as_os_str).unwrap_or_default();
    let path = find_file(words, name, search)?;
    match missing_interpreter(&path) {
        Some(interpreter) => Err(FindError::NoInterpreter { path, interpreter }),
        None => Ok(path),
    }
}

fn find_file(words: &[OsString], name: &OsStr, search: Option<&OsStr>) -> Result<PathBuf, FindError> {
    let search = search.unwrap_or_else(|| OsStr::new(SEARCH_PATH));
    let not_found = || FindError::NotFound { shown: shown(name), advice: advice(words, name, search) };
    if name.is_empty() {
        return Err(not_found());
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match check_executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found()),
            Err(reason) => Err(FindError::NotExecutable { path, reason }),
        };
    }
    let mut refused = None;
    for directory in std::env::split_paths(search) {
        let path = if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        match check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(reason) if reason.kind() == io::ErrorKind::PermissionDenied && path.is_file() => {
                refused.get_or_insert(FindError::NotExecutable { path, reason });
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(not_found))
}

fn check_executable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(io::Error::from)
}

/// The interpreter of a script, if it does not exist. A file that cannot be read, or is no regular file, is left to exec.
fn missing_interpreter(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).and_then(|_| File::open(path).ok())?;
    let mut start = Vec::new();
    file.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let interpreter = words.next()?;
    let missing = std::fs::metadata(OsStr::from_bytes(interpreter));
    let is_missing = missing.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_missing.then(|| String::from_utf8_lossy(interpreter).into_owned())
}

/// The name without the value of an assignment, which may be a secret.
fn shown(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    match assigned(&name) {
        Some(variable) => format!("{variable}=…"),
        None if name.is_empty() => "\"\"".to_owned(),
        None => name.into_owned(),
    }
}

/// The variable that a word would set in front of a shell's command.
fn assigned(name: &str) -> Option<&str> {
    let variable = name.split_once('=')?.0;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = !variable.is_empty() && !variable.starts_with(|c: char| c.is_ascii_digit());
    (is_name && variable.chars().all(is_word)).then_some(variable)
}

/// A hint for the most frequent mistakes in a command's name.
fn advice(words: &[OsString], name: &OsStr, search: &OsStr) -> String {
    let text = name.to_string_lossy();
    if text.is_empty() {
        "; its name is empty: is a variable in its place not set?".to_owned()
    } else if text.ends_with('\r') {
        "; it ends in a carriage return: convert the line ends of the file that it is written in".to_owned()
    } else if assigned(&text).is_some() {
        "; to set a variable for a command, write env NAME=VALUE COMMAND".to_owned()
    } else if text.starts_with('~') || text.starts_with('$') {
        "; no shell has replaced its first character: leave out the quotes, or write the whole path".to_owned()
    } else if text.contains(' ') {
        "; it is taken as one word: give a line of shell to sh -c".to_owned()
    } else if SHELL_WORDS.contains(&&*text) {
        "; it is a word of the shell: give a line of shell to sh -c".to_owned()
    } else if words.iter().skip(1).any(|word| word == "--") {
        "; the first word that belongs to no flag begins the command: is a flag's value in two words before the --?"
            .to_owned()
    } else if text.starts_with('/') {
        "; there is no such file".to_owned()
    } else if text.contains('/') {
        let directory = std::env::current_dir();
        directory.map_or_else(
            |_| "; the working directory has been removed".to_owned(),
            |directory| format!("; there is no such file in {}", directory.display()),
        )
    } else if Path::new(name).is_file() {
        "; there is one here: write ./ before it".to_owned()
    } else {
        let search: String = search.to_string_lossy().chars().take(SEARCH_CHARS_MAX).collect();
        format!("; no directory of PATH ({search}) has it: write its whole path, or set PATH")
    }
}

fn carriage_return(interpreter: &str) -> &'static str {
    if interpreter.ends_with('\r') {
        ": convert the script's line ends (tr -d '\\r')"
    } else {
        ": install it, or change that line"
    }
}

fn permission_advice(path: &Path, reason: &io::Error) -> &'static str {
    if reason.raw_os_error() == Some(libc::EISDIR) {
        "; name a program in it"
    } else if std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o111 != 0) {
        "; it has an executable bit: is its file system mounted noexec, or is it another user's?"
    } else {
        "; is it a program, and executable (chmod +x)?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn find(words: &[&str], search: Option<&OsStr>) -> Result<PathBuf, FindError> {
        find_command(&words.iter().map(OsString::from).collect::<Vec<_>>(), search)
    }

    fn script(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            std::fs::create_dir(folder).expect("created");
            script(&folder.join("job"), "#!/bin/sh\n", mode);
        }
        let search = std::env::join_paths([&first, &second]).expect("joined");
        assert_eq!(find(&["job"], Some(&search)).expect("found"), second.join("job"));
        let error = find(&["job"], Some(first.as_os_str())).expect_err("not executable");
        assert!(matches!(error, FindError::NotExecutable { .. }), "{error}");
        let error = find(&[&directory.path().display().to_string()], None).expect_err("a directory");
        assert!(matches!(error, FindError::NotExecutable { .. }), "{error}");
    }

    #[test]
    fn a_command_that_is_not_found_comes_with_advice() {
        let search = OsStr::new("/nowhere:/bin");
        // The working directory of the tests contains the file Cargo.toml.
        for (words, advice) in [
            (&["no-such-job"][..], "no directory of PATH (/nowhere:/bin) has it"),
            (&["no such job --all"], "give a line of shell to sh -c"),
            (&["Cargo.toml"], "write ./ before it"),
            (&[""], "its name is empty"),
            (&["job\r"], "carriage return"),
            (&["~/job"], "leave out the quotes"),
            (&["$JOB"], "leave out the quotes"),
            (&["cd", "/tmp"], "word of the shell"),
            (&["s", "--", "true"], "begins the command"),
            (&["/no/such/job"], "there is no such file"),
            (&["./no-such-job"], "there is no such file in /"),
        ] {
            let error = find(words, Some(search)).expect_err("not there").to_string();
            assert!(error.contains(": command not found; ") && error.contains(advice), "{words:?}: {error}");
        }
        let error = find(&["PASSWORD=hidden", "job"], Some(search)).expect_err("not there").to_string();
        assert!(
            error.contains("PASSWORD=…") && error.contains("env NAME=VALUE") && !error.contains("hidden"),
            "{error}"
        );
    }

    #[test]
    fn a_script_without_its_interpreter_is_not_found() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("job");
        let found = |line: &str| {
            script(&path, line, 0o755);
            find(&[&path.display().to_string()], None).map_err(|error| error.to_string())
        };
        for line in ["", "#!/bin/sh\n", "#! /bin/sh -e\n", "#!/usr/bin/env nothing\n", "#!\n", "true\n", "\u{7f}ELF"] {
            assert!(found(line).is_ok(), "{line:?}");
        }
        let error = found("#!/no/such/shell -e\n").expect_err("no interpreter");
        assert!(error.contains("\"/no/such/shell\"") && error.contains("install it"), "{error}");
        let error = found("#!/bin/sh\r\ntrue\r\n").expect_err("no interpreter");
        assert!(error.contains("\"/bin/sh\\r\"") && error.contains("line ends"), "{error}");
    }
}
