//! From the words of the command line, and the variables, to the flags.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};

use super::{Cli, Command, command, command_credentials, fail, stdout, usage_error, variables};
use crate::config::RunFlags;
use crate::exit::Exit;
use crate::log;

/// The command line, read.
///
/// # Errors
///
/// The exit status, after help or one line about what is wrong has been written.
pub(super) fn parse() -> Result<Cli, ExitCode> {
    command_credentials::forget_for_another_store(command);
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(flags) = parse_run(&words, std::env::vars_os().map(|(name, _)| name)) {
        return Ok(Cli { command: Command::Run(flags) });
    }
    // The parser reads the variables when it is made.
    let mut command = command();
    variables::find_unknown(&command);
    let subcommand = words.first().and_then(|name| command.find_subcommand(name));
    if let Some(message) = subcommand.and_then(|of| usage_error::single_dash(of, &words[1..])) {
        return Err(fail(Exit::Usage, &message));
    }
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        if let Some((name, matches)) = matches.subcommand()
            && let Some(subcommand) = command.find_subcommand(name)
        {
            variables::remember_sources(subcommand, matches);
        }
        if let Some((_, matches)) = matches.subcommand()
            && let Some(flag) = flag_of_no_check(matches)
        {
            let message = format!("--{flag} has no effect without --health CMD: add the check, or leave the flag out");
            return Err(command.error(ErrorKind::MissingRequiredArgument, message));
        }
        let mut cli = Cli::from_arg_matches(&matches)?;
        if let (Command::Run(flags), Some(("run", matches))) = (&mut cli.command, matches.subcommand()) {
            forget_outer_identity(flags, matches);
        }
        Ok(cli)
    });
    parsed.map_err(|error| {
        let asked_for_help = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind());
        if asked_for_help || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let status = if asked_for_help { Exit::Success } else { Exit::Usage }.into();
            return print_help(&error).map_or_else(|error| stdout::not_written(&error, status), |()| status);
        }
        fail(Exit::Usage, &usage_error::in_one_line(&error, &command))
    })
}

/// The flags of `elect run`, by a parser for this command alone: to make the flags of all the others takes longer than the rest of
/// reading the command line. `None` if it is another command, or if anything is to be said about the words or the variables:
/// then the whole parser reads them again, and says it. `names` are those of the variables.
fn parse_run(words: &[OsString], names: impl Iterator<Item = OsString>) -> Option<Box<RunFlags>> {
    let (_, words) = words.split_first().filter(|(name, _)| *name == "run")?;
    let mut command = variables::with_variables(RunFlags::augment_args(clap::Command::new("run")));
    if variables::has_unknown(&command, names) || usage_error::single_dash(&command, words).is_some() {
        return None;
    }
    let name = OsString::from("run");
    let matches = command.try_get_matches_from_mut(std::iter::once(&name).chain(words)).ok()?;
    if flag_of_no_check(&matches).is_some() {
        return None;
    }
    let mut flags = RunFlags::from_arg_matches(&matches).ok()?;
    variables::remember_sources(&command, &matches);
    forget_outer_identity(&mut flags, &matches);
    Some(Box::new(flags))
}

/// Inside a command of elect's, these variables say who that command is, not who this candidate should be.
fn forget_outer_identity(flags: &mut RunFlags, matches: &ArgMatches) {
    if std::env::var_os("ELECT_ROLE").is_some() {
        let inherited = |flag| matches.value_source(flag) == Some(ValueSource::EnvVariable);
        flags.boundary.take_if(|_| inherited("boundary"));
        flags.name.take_if(|_| inherited("name"));
    }
}

/// A flag that was typed and says how a health check runs, where there is no check. Variables may be set for a whole host.
fn flag_of_no_check(matches: &ArgMatches) -> Option<&'static str> {
    let is_typed = |id: &str| {
        let known = matches.try_contains_id(id).unwrap_or(false);
        known && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    if matches.try_get_one::<String>("health").is_ok_and(|check| check.is_some()) {
        return None;
    }
    let flags = [
        ("health_interval", "health-interval"),
        ("health_timeout", "health-timeout"),
        ("health_rise", "health-rise"),
        ("health_fall", "health-fall"),
        ("health_start", "health-start"),
    ];
    flags.into_iter().find_map(|(id, flag)| is_typed(id).then_some(flag))
}

/// Prints the parser's help with styles where the log has them: the parser alone would style it for every terminal
/// wherever `CI` is set, and for a file where `CLICOLOR_FORCE` is.
fn print_help(help: &clap::Error) -> std::io::Result<()> {
    let text = help.render();
    let text = |has_styles: bool| if has_styles { text.ansi().to_string() } else { text.to_string() };
    if help.use_stderr() {
        let stderr = std::io::stderr();
        return (&stderr).write_all(text(log::supports_styles(&stderr)).as_bytes());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text(log::supports_styles(&stdout)).as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// Variables that every run knows, and one of another program.
    fn known() -> impl Iterator<Item = OsString> {
        ["ELECT_TTL", "ELECT_LOG", "PATH"].map(OsString::from).into_iter()
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_parser_of_run_alone_reads_what_the_whole_parser_reads() {
        for line in [
            "run -b x -- job --flag",
            "run --boundary x --ttl 5s --stop-timeout=1m job -b y",
            "run -qnb x -s always: -- ./job.sh",
            "run -b x --follower ./replicate --on-elected true --health ./check --health-fall 2 -- ./primary",
        ] {
            let Command::Run(whole) = Cli::try_parse_from(words(&format!("elect {line}"))).expect(line).command else {
                panic!("{line} is no run")
            };
            let alone = parse_run(&words(line), known()).expect(line);
            assert_eq!(format!("{alone:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn the_whole_parser_has_the_word_where_there_is_something_to_say() {
        for line in [
            "status",
            "run --help",
            "run -b x --frobnicate -- job",
            "run -boundary x -- job",
            "run -b x --ttl never -- job",
            "run -b x --health-fall 2 -- job",
            "-b x run -- job",
        ] {
            assert!(parse_run(&words(line), known()).is_none(), "{line}");
        }
        assert!(parse_run(&[], known()).is_none());
        assert!(parse_run(&words("run -b x -- job"), ["ELECT_STOR".into()].into_iter()).is_none());
    }
}
