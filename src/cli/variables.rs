//! The `ELECT_…` variables: an empty one counts as unset, a misspelled one is reported, and a message about a value
//! names the variable if the value came from there (DESIGN.md 6).

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Id};

/// The variable that is an error if it is empty: a job that finds no store would run on every host.
const STORE_VARIABLE: &str = "ELECT_STORE";

/// Variables that belong to no flag. The first ones are read by elect, the others are set for commands and hooks.
const WITHOUT_FLAG: [&str; 17] = [
    "ELECT_LOG",
    "ELECT_PASSWORD",
    "ELECT_BOUNDARY",
    "ELECT_ROLE",
    "ELECT_ID",
    "ELECT_NAME",
    "ELECT_TERM",
    "ELECT_SOCKET",
    "ELECT_INSIDE",
    "ELECT_INHERITED",
    "ELECT_ERROR",
    "ELECT_REASON",
    "ELECT_LEADER_ID",
    "ELECT_LEADER_NAME",
    "ELECT_LEADER_HOST",
    "ELECT_LEADER_PORT",
    "ELECT_LEADER_ADDR",
];

/// A flag whose value came from its variable.
struct FlagFromVariable {
    flag: String,
    variable: String,
}

/// All of those of this command line, for the texts of errors.
static FROM_VARIABLES: OnceLock<Vec<FlagFromVariable>> = OnceLock::new();

/// The variables of this environment that begin with `ELECT_` and that elect does not know.
static UNKNOWN: OnceLock<Vec<UnknownVariable>> = OnceLock::new();

/// The command, whose flags read no empty variable. Their names are left out of its help.
pub(super) fn with_variables(command: Command) -> Command {
    command.mut_args(|flag| without_empty_variable(flag).hide_env(true))
}

/// The flag without its variable if the variable is empty.
fn without_empty_variable(flag: Arg) -> Arg {
    let is_empty =
        |name: &OsStr| name != STORE_VARIABLE && std::env::var_os(name).is_some_and(|value| value.is_empty());
    if flag.get_env().is_some_and(is_empty) { flag.env(Resettable::<clap::builder::OsStr>::Reset) } else { flag }
}

/// Remembers which flags got their values from variables.
pub(super) fn remember_sources(command: &Command, matches: &ArgMatches) {
    // Inside a command of elect's, these variables say who that command is: no flag gets its value from them.
    let is_inside = std::env::var_os("ELECT_ROLE").is_some();
    let is_own = |id: &Id| is_inside && matches!(id.as_str(), "boundary" | "name");
    let from_variable = |id: &Id| !is_own(id) && matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable);
    let flags = command.get_arguments().filter(|flag| from_variable(flag.get_id()));
    let found = flags.filter_map(|flag| {
        let (long, variable) = (flag.get_long()?, flag.get_env()?);
        Some(FlagFromVariable { flag: format!("--{long}"), variable: variable.to_string_lossy().into_owned() })
    });
    // Set once: a process parses one command line.
    let _ = FROM_VARIABLES.set(found.collect());
}

/// Whether a flag's value came from its variable.
pub(super) fn is_from_variable(flag: &str) -> bool {
    FROM_VARIABLES.get().is_some_and(|found| found.iter().any(|source| source.flag == flag))
}

/// The message with the name of the variable in place of each flag whose value came from there.
pub(super) fn with_variables_named(message: &str) -> String {
    let found = FROM_VARIABLES.get().map_or(&[][..], Vec::as_slice);
    found.iter().fold(message.to_owned(), |text, source| replace_flag(&text, &source.flag, &source.variable))
}

/// The message of a parser about a value, with the variable's name if the flag is not among the words.
pub(super) fn with_variable_named(message: &str, command: &Command, words: &[OsString]) -> String {
    let flags = words.iter().take_while(|word| *word != "--").filter_map(|word| word.to_str()).collect::<Vec<_>>();
    let is_typed = |flag: &Arg, long: &str| {
        let short = flag.get_short().map(|short| format!("-{short}"));
        flags.iter().any(|word| {
            word.strip_prefix("--").is_some_and(|word| word == long || word.starts_with(&format!("{long}=")))
                || short.as_ref().is_some_and(|short| word.starts_with(short.as_str()))
        })
    };
    for flag in command.get_arguments() {
        let (Some(long), Some(variable)) = (flag.get_long(), flag.get_env()) else { continue };
        // As the parser writes it: '--ttl <DURATION>'.
        let shown = format!("'{flag}'");
        if message.contains(&shown) && !is_typed(flag, long) {
            return message.replace(&shown, &variable.to_string_lossy());
        }
    }
    message.to_owned()
}

/// Replaces a flag, but no longer flag that begins with it.
fn replace_flag(text: &str, flag: &str, variable: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(flag) {
        let (before, found) = rest.split_at(at);
        let after = &found[flag.len()..];
        let ends = !after.starts_with(|next: char| next == '-' || next.is_ascii_alphanumeric());
        replaced.push_str(before);
        replaced.push_str(if ends { variable } else { flag });
        rest = after;
    }
    replaced + rest
}

/// A variable that no part of elect reads, and the name that was probably meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// `None`: no known name is similar.
    pub meant: Option<String>,
}

impl UnknownVariable {
    /// The warning about a misspelled one.
    pub(super) fn warning(&self) -> Option<String> {
        let meant = self.meant.as_ref()?;
        Some(format!("the variable {} is not read by elect: did you mean {meant}?", self.name))
    }
}

/// The first variable of a command's flags whose value is not text.
pub(super) fn not_text(command: &Command) -> Option<String> {
    let names = command.get_arguments().filter_map(Arg::get_env).filter_map(OsStr::to_str);
    let is_not_text = |name: &&str| matches!(std::env::var(name), Err(std::env::VarError::NotUnicode(_)));
    names.into_iter().find(is_not_text).map(str::to_owned)
}

/// Looks for unknown variables.
pub(super) fn find_unknown(command: &Command) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let known = known_variables(command);
    let mut found: Vec<_> = names.filter_map(|name| unknown(name, &known)).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    // Set once: a process parses one command line.
    let _ = UNKNOWN.set(found);
}

/// Whether one of these variables of the environment belongs neither to a flag of this one command nor to elect as a whole.
pub(super) fn has_unknown(command: &Command, mut names: impl Iterator<Item = OsString>) -> bool {
    let is_known = |name: &OsStr| {
        WITHOUT_FLAG.iter().any(|known| name == *known)
            || command.get_arguments().any(|flag| flag.get_env() == Some(name))
    };
    names.any(|name| name.as_encoded_bytes().starts_with(b"ELECT_") && !is_known(&name))
}

/// The unknown variables that were found.
pub(super) fn unknown_variables() -> &'static [UnknownVariable] {
    UNKNOWN.get().map_or(&[][..], Vec::as_slice)
}

/// The message of a usage error, whose cause may be a misspelled variable.
pub(super) fn with_warnings(message: String) -> String {
    unknown_variables()
        .iter()
        .filter_map(UnknownVariable::warning)
        .fold(message, |text, warning| text + "; " + &warning)
}

fn known_variables(command: &Command) -> Vec<String> {
    let of_flags = command.get_subcommands().flat_map(Command::get_arguments).filter_map(Arg::get_env);
    let of_flags = of_flags.map(|name| name.to_string_lossy().into_owned());
    of_flags.chain(WITHOUT_FLAG.map(str::to_owned)).collect()
}

fn unknown(name: String, known: &[String]) -> Option<UnknownVariable> {
    let part = name.strip_prefix("ELECT_")?;
    if known.contains(&name) {
        return None;
    }
    // Two edits in a long name are a slip, in a short one they make another word.
    let edits_max = if part.chars().count() < 6 { 1 } else { 2 };
    let distance = |known: &String| strsim::osa_distance(part, known.trim_start_matches("ELECT_"));
    let meant = known.iter().map(|known| (distance(known), known)).filter(|(edits, _)| *edits <= edits_max).min();
    let meant = meant.map(|(_, known)| known.clone());
    Some(UnknownVariable { name, meant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Option<String> {
        unknown(name.to_owned(), &known_variables(&crate::cli::command())).and_then(|unknown| unknown.meant)
    }

    #[test]
    fn a_variable_that_is_one_slip_away_from_a_known_one_is_told() {
        for (name, known) in [
            ("ELECT_STOR", "ELECT_STORE"),
            ("ELECT_TLL", "ELECT_TTL"),
            ("ELECT_BONUDARY", "ELECT_BOUNDARY"),
            ("ELECT_BUNDRY", "ELECT_BOUNDARY"),
            ("ELECT_PASWORD_FIEL", "ELECT_PASSWORD_FILE"),
        ] {
            assert_eq!(meant(name).as_deref(), Some(known), "{name}");
        }
        for name in ["ELECT_PORT", "ELECT_SERVICE_HOST", "ELECT_VERSION", "ELECT_FOO", "ELECT_"] {
            assert_eq!(meant(name), None, "{name}");
        }
        assert_eq!(unknown("ELECTRIC".to_owned(), &[]), None);
        assert_eq!(unknown("ELECT_LOG".to_owned(), &known_variables(&crate::cli::command())), None);
    }

    #[test]
    fn a_flag_is_replaced_as_a_whole_word() {
        let replaced = replace_flag("--renew 9s does not fit --renewal; give --renew", "--renew", "ELECT_RENEW");
        assert_eq!(replaced, "ELECT_RENEW 9s does not fit --renewal; give ELECT_RENEW");
    }
}
