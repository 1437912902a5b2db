//! `fanlight completions` and `fanlight man`: what is made from the definition.

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::Failure;

pub(super) fn completions() -> Command {
    Command::new("completions")
        .about("Print completions for a shell")
        .long_about("Print completions for a shell.\n\nExample: fanlight completions bash > /etc/bash_completion.d/fanlight")
        .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell)))
}

pub(super) fn man() -> Command {
    Command::new("man").about("Print the man page").long_about(
        "Print the man page, with every command and setting.\n\nExample: fanlight man | man -l -",
    )
}

pub(super) fn print_completions(matches: &ArgMatches) -> Result<(), Failure> {
    let shell = *matches.get_one::<Shell>("shell").expect("the definition requires it");
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "fanlight", &mut text);
    super::print(&String::from_utf8_lossy(&text))
}

pub(super) fn print_man() -> Result<(), Failure> {
    let command = super::command();
    let mut text = Vec::new();
    let mut render = |command: &Command| clap_mangen::Man::new(command.clone()).render(&mut text);
    render(&command).context("cannot make the man page")?;
    command.get_subcommands().try_for_each(render).context("cannot make the man page")?;
    super::print(&String::from_utf8_lossy(&text))
}
