//! `elect completions`: the completion scripts for shells.

use std::process::ExitCode;

use clap_complete::aot::{self, generate};

use super::{Shell, stdout};
use crate::exit::Exit;

pub fn print(shell: Shell) -> ExitCode {
    stdout::print(script(shell), Exit::Success.into())
}

pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = super::command();
    match shell {
        Shell::Bash => generate(aot::Bash, &mut command, "elect", &mut script),
        Shell::Zsh => generate(aot::Zsh, &mut command, "elect", &mut script),
        Shell::Fish => generate(aot::Fish, &mut command, "elect", &mut script),
    }
    script
}
