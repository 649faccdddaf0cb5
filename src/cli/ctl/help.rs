//! `penfoldctl help`: the texts about the commands, and suggestions for misspelt words.

use super::{COMMANDS, Call, Command, Complete, Flag};
use crate::cli::usage as wrong_usage;
use crate::exit::{Exit, print};

pub(super) const COMMAND: Command = Command {
    name: "help",
    arguments: "[command]",
    about: "describe a command",
    complete: Complete::Commands,
    run,
    ..Command::NONE
};

/// The line about the command line of penfoldctl.
pub(super) const SYNOPSIS: &str = "usage: penfoldctl [-hV] [-f file] command [argument ...]";

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let Some(name) = call.words.first() else {
        return all(&super::common_options());
    };
    let command = COMMANDS.iter().find(|command| command.name == name);
    command.map_or_else(|| Err(wrong_usage(vec![not_a_command(name), SYNOPSIS.into()])), of)
}

/// Prints the options of penfoldctl and a line for each command.
pub(super) fn all(options: &getopts::Options) -> Result<(), Exit> {
    let mut text = format!("{}\nCommands:\n", options.usage(SYNOPSIS));
    for Command { name, about, .. } in COMMANDS {
        text += &format!("    {name:<11} {about}\n");
    }
    print(text + "\npenfoldctl help command describes one of them; penfoldctl(8) describes all.\n")
}

/// Prints the usage of a command and its options.
pub(super) fn of(command: &Command) -> Result<(), Exit> {
    print(command.options().usage(&format!("{}\n\n{}", usage(command), command.about)))
}

/// The usage of a command, on one line.
pub(super) fn usage(command: &Command) -> String {
    let mut line = format!("usage: penfoldctl {}", command.name);
    for Flag { short, long, hint, .. } in command.flags {
        let name = if short.is_empty() { format!("--{long}") } else { format!("-{short}") };
        let value = if hint.is_empty() { String::new() } else { format!(" {hint}") };
        line += &format!(" [{name}{value}]");
    }
    if !command.arguments.is_empty() {
        line += &format!(" {}", command.arguments);
    }
    line
}

/// The error for a word that is not a command.
pub(super) fn not_a_command(word: &str) -> String {
    let names = COMMANDS.iter().map(|command| command.name);
    format!("'{word}' is not a command{}", meant(word, names))
}

/// The error of reading the options of a command.
pub(super) fn not_an_option(command: &Command, error: getopts::Fail) -> String {
    match &error {
        getopts::Fail::UnrecognizedOption(name) => {
            let names = command.flags.iter().map(|flag| flag.long).filter(|long| !long.is_empty());
            let dashes = if name.chars().count() == 1 { "-" } else { "--" };
            format!("{dashes}{name} is not an option of {}{}", command.name, meant(name, names))
        }
        _ => error.to_string(),
    }
}

/// `; did you mean WORD?` if one of the words is like the word that was given; otherwise empty.
fn meant<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> String {
    let near = crate::spelling::nearest(given, words);
    near.map(|word| format!("; did you mean {word}?")).unwrap_or_default()
}
