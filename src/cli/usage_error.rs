//! The parser's errors in one line, with what was probably meant, in the format of the log.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, ValueEnum};

use super::variables;
use crate::log::Format;

/// The format of the log, once the command line is parsed.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Notes the format of the log: errors are reported in the same one.
pub(super) fn set_format(format: Format) {
    // Set once: a process parses one command line.
    let _ = FORMAT.set(format);
}

/// The format of an error on stderr.
pub(super) fn format() -> Format {
    let variable = || std::env::var_os("ELECT_LOG_FORMAT");
    FORMAT.get().copied().unwrap_or_else(|| format_of(std::env::args_os().skip(1), variable))
}

/// The format that a command line asks for, whether it can be parsed or not. Commands without a log write text.
fn format_of(words: impl Iterator<Item = OsString>, variable: impl FnOnce() -> Option<OsString>) -> Format {
    let words: Vec<OsString> = words.take_while(|word| word != "--").collect();
    let is_json =
        |value: &OsStr| value.to_str().is_some_and(|value| Format::from_str(value, false) == Ok(Format::Json));
    let has_log = words.first().is_some_and(|word| ["run", "plan", "check"].iter().any(|with_log| word == with_log));
    let typed =
        words.iter().enumerate().rev().find_map(|(index, word)| match word.to_str()?.strip_prefix("--log-format")? {
            "" => words.get(index + 1).cloned(),
            value => value.strip_prefix('=').map(OsString::from),
        });
    match typed.or_else(|| variable().filter(|_| has_log)) {
        Some(value) if is_json(&value) => Format::Json,
        Some(_) | None => Format::Text,
    }
}

/// Words that other programs have for one of elect's commands, and the command.
const SYNONYMS: [(&[&str], &str); 9] = [
    (&["lock", "exec", "start", "lead", "campaign", "elect", "try", "do"], "elect run -b NAME -- COMMAND"),
    (&["list", "ls", "ps", "show", "get", "info", "leader", "leaders", "who"], "elect status"),
    (&["stepdown", "step-down", "release", "unlock", "failover", "yield", "abdicate"], "elect resign"),
    (&["listen", "observe", "follow", "events", "monitor", "tail"], "elect watch"),
    (&["renew", "refresh", "touch", "keepalive"], "elect extend"),
    (&["is-leader", "isleader", "verify", "test"], "elect assert"),
    (&["doctor", "diagnose", "preflight", "ping"], "elect check"),
    (&["version"], "elect --version"),
    (&["completion", "complete"], "elect completions SHELL"),
];

/// clap explains itself in paragraphs: the first one says what is wrong, one may say what was meant.
pub(super) fn in_one_line(error: &clap::Error, command: &Command) -> String {
    let rendered = error.render().to_string();
    let line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<&str>>().join(" ");
    let paragraphs: Vec<String> = rendered.split("\n\n").map(line).collect();
    let first = paragraphs.first().map_or("", |first| first.strip_prefix("error: ").unwrap_or(first));
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let subcommand = words.first().and_then(|name| command.find_subcommand(name));
    let first = subcommand.map_or_else(|| first.to_owned(), |of| variables::with_variable_named(first, of, &words));
    // As the standard library says it of a number.
    let first = first.replace("invalid digit found in string", "write a number, like 1");
    let advice = match subcommand {
        Some(subcommand) => format!("see elect {} --help", subcommand.get_name()),
        None => "see elect --help".to_owned(),
    };
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(meant) = synonym(invalid(error, ContextKind::InvalidSubcommand))
    {
        return format!("{first}; did you mean {meant}? ({advice})");
    }
    // A flag of a command's, where the command itself was left out.
    if words.first().is_some_and(|word| word.to_string_lossy().starts_with('-')) {
        return format!("{first} (a command comes first, as in elect run; {advice})");
    }
    if error.kind() == ErrorKind::InvalidUtf8 {
        return format!("{}: write it in UTF-8 ({advice})", not_text(&words, subcommand));
    }
    if let (ErrorKind::UnknownArgument, Some(word)) = (error.kind(), negative(&words, error)) {
        return format!("{word} begins like a flag, and no flag takes a negative value ({advice})");
    }
    if let (ErrorKind::UnknownArgument, Some(of)) = (error.kind(), subcommand)
        && let Some(flag) = similar_flag(invalid(error, ContextKind::InvalidArg), of)
    {
        return format!("{first}; a similar argument exists: '{flag}' ({advice})");
    }
    let tip = paragraphs.iter().find_map(|paragraph| paragraph.strip_prefix("tip: "));
    // Only run takes the words of another command.
    let has_command = subcommand.is_none_or(|of| of.get_name() == "run");
    let tip = tip.filter(|tip| has_command || !tip.contains("-- -"));
    // One tip is enough.
    let tip = tip.and_then(|tip| tip.split(" tip: ").next());
    let meant = tip.map_or(String::new(), |tip| format!("; {tip}"));
    format!("{first}{meant} ({advice})")
}

/// The word of a command line, or the variable, whose value is not text.
fn not_text(words: &[OsString], subcommand: Option<&Command>) -> String {
    // The words of the command that run starts may hold anything: those before it are checked first.
    let word = words.iter().enumerate().find(|(_, word)| word.to_str().is_none());
    match (word, subcommand.and_then(variables::not_text)) {
        (None, Some(variable)) => format!("the value of {variable} is not text"),
        (Some((at, word)), _) => {
            match at.checked_sub(1).and_then(|flag| words.get(flag)).filter(|flag| is_flag(flag)) {
                Some(flag) => format!("the value of {} is not text", flag.to_string_lossy()),
                None => format!("{:?} is not text", word.to_string_lossy()),
            }
        }
        (None, None) => "an argument or a variable is not text".to_owned(),
    }
}

fn is_flag(word: &OsStr) -> bool {
    word.to_string_lossy().starts_with('-')
}

/// The negative number that was refused as an unknown flag.
fn negative(words: &[OsString], error: &clap::Error) -> Option<String> {
    // The parser names the dash and one digit.
    let refused = invalid(error, ContextKind::InvalidArg);
    let is_number = refused.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let word = words.iter().filter_map(|word| word.to_str()).find(|word| word.starts_with(refused));
    word.filter(|_| is_number).map(str::to_owned)
}

/// The message about a long flag with a single dash among the words of a subcommand: `-boundary x` would be the boundary `oundary`.
pub(super) fn single_dash(subcommand: &Command, words: &[OsString]) -> Option<String> {
    let takes_value = |flag: &clap::Arg| flag.get_action().takes_values() && !flag.is_require_equals_set();
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next().filter(|word| word.starts_with('-') && word != "--") {
        let (flag, value) = word.split_once('=').map_or((&*word, None), |(flag, value)| (flag, Some(value)));
        let find_long = |long: &str| subcommand.get_arguments().find(|flag| flag.get_long() == Some(long));
        let found = if let Some(long) = flag.strip_prefix("--") {
            find_long(long)
        } else {
            let long = flag.trim_start_matches('-');
            if long.len() > 1 && find_long(long).is_some() {
                return Some(format!(
                    "{flag} is a long flag with one dash: write --{long} (see elect {} --help)",
                    subcommand.get_name()
                ));
            }
            let short = long.chars().next().filter(|_| long.chars().count() == 1);
            subcommand.get_arguments().find(|flag| short.is_some() && flag.get_short() == short)
        };
        if value.is_none() && found.is_some_and(takes_value) {
            words.next();
        }
    }
    None
}

fn invalid(error: &clap::Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(word)) => word,
        _ => "",
    }
}

fn synonym(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    SYNONYMS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, command)| *command)
}

/// The flag of this command that was probably meant. The parser suggests none where a command's own words may follow.
fn similar_flag(word: &str, command: &Command) -> Option<String> {
    let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
    let edits_max = if name.chars().count() < 6 { 1 } else { 2 };
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    let near = flags.map(|flag| (strsim::osa_distance(name, flag), flag)).filter(|(edits, _)| *edits <= edits_max);
    near.min().map(|(_, flag)| format!("--{flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_an_error_is_found_in_words_that_cannot_be_parsed() {
        let of = |line: &str, variable: Option<&str>| {
            format_of(line.split(' ').map(OsString::from), || variable.map(OsString::from))
        };
        for line in ["run --log-format json", "run --frobnicate --log-format=json -- x", "rnu --log-format json"] {
            assert_eq!(of(line, None), Format::Json, "{line}");
        }
        for line in
            ["run", "run --log-format xml", "run --log-format", "run -- x --log-format json", "run --log-formats json"]
        {
            assert_eq!(of(line, None), Format::Text, "{line}");
        }
        assert_eq!(of("run --ttl", Some("json")), Format::Json);
        assert_eq!(of("run --log-format text", Some("json")), Format::Text, "a flag comes before a variable");
        assert_eq!(of("status -x", Some("json")), Format::Text, "status has no log");
    }

    #[test]
    fn a_word_of_another_program_has_a_command_here() {
        assert_eq!(synonym("lock"), Some("elect run -b NAME -- COMMAND"));
        assert_eq!(synonym("List"), Some("elect status"));
        assert_eq!(synonym("version"), Some("elect --version"));
        assert_eq!(synonym("frobnicate"), None);
    }

    #[test]
    fn no_synonym_is_a_command_and_every_command_exists() {
        let command = crate::cli::command();
        for (words, meant) in SYNONYMS {
            assert!(words.iter().all(|word| command.find_subcommand(word).is_none()), "{words:?}");
            let word = meant.split(' ').nth(1).expect("a command");
            assert!(word.starts_with("--") || command.find_subcommand(word).is_some(), "{meant}");
        }
    }
}
