//! `penfoldctl completion`: scripts with which shells complete the commands and their options.

use std::fmt::Write;

use super::{COMMANDS, Call, Command, Complete};
use crate::exit::{Exit, print};

pub(super) const COMMAND: Command = Command {
    name: "completion",
    arguments: "bash | zsh | fish",
    about: "print a script with which a shell completes commands",
    complete: Complete::Words(&["bash", "zsh", "fish"]),
    run,
    ..Command::NONE
};

fn run(call: &Call) -> Result<(), Exit> {
    call.words(1)?;
    let script = match call.words.first().map(String::as_str) {
        Some("bash") => bash(),
        Some("zsh") => zsh(),
        Some("fish") => fish(),
        _ => return Err(call.usage("expected bash, zsh or fish")),
    };
    print(script)
}

/// A pipe that prints the queue ids of all messages.
const IDS: &str = r#"penfoldctl queue --limit 200 --json 2>/dev/null | sed -n 's/^{"id":"\([0-9A-Z]*\)".*/\1/p'"#;

/// The words that may follow a command, in a form that bash and zsh expand between double quotes.
fn words(command: &Command) -> String {
    let mut words: Vec<String> = command.flags.iter().flat_map(|flag| flag.names()).collect();
    words.push("-h".into());
    match command.complete {
        Complete::Nothing => {}
        Complete::Words(more) => words.extend(more.iter().map(ToString::to_string)),
        Complete::Commands => words.extend(names()),
        Complete::Ids => words.push(format!("$({IDS})")),
    }
    words.join(" ")
}

fn names() -> impl Iterator<Item = String> {
    COMMANDS.iter().map(|command| command.name.to_owned())
}

/// The lines that find the command among the words of the line, and then its words. `of_words` is
/// the array of all words, `first` the index of the word after penfoldctl, and `current` the index
/// of the word that is completed.
fn choice(of_words: &str, first: usize, current: &str) -> String {
    let mut script = format!(
        "    local command= words n
    for ((n = {first}; n < {current}; n++)); do
        case ${{{of_words}[n]}} in
        -f) ((n++)) ;;
        -*) ;;
        *) command=${{{of_words}[n]}} && break ;;
        esac
    done
    case $command in
    '') words=\"-f -h -V {}\" ;;
",
        names().collect::<Vec<_>>().join(" ")
    );
    for command in COMMANDS {
        // Writing to a string cannot fail.
        let _ = writeln!(script, "    {}) words=\"{}\" ;;", command.name, words(command));
    }
    script + "    esac\n"
}

fn bash() -> String {
    format!(
        "# Completes penfoldctl(8) in bash. Made by `penfoldctl completion bash`.
_penfoldctl() {{
{}    if [ \"${{COMP_WORDS[COMP_CWORD-1]}}\" = -f ]; then
        COMPREPLY=($(compgen -f -- \"${{COMP_WORDS[COMP_CWORD]}}\"))
    else
        COMPREPLY=($(compgen -W \"$words\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))
    fi
}}
complete -F _penfoldctl penfoldctl
",
        choice("COMP_WORDS", 1, "COMP_CWORD")
    )
}

fn zsh() -> String {
    format!(
        "#compdef penfoldctl
# Completes penfoldctl(8) in zsh. Made by `penfoldctl completion zsh`.
_penfoldctl() {{
    local -a line=(\"${{(@)words}}\")
{}    if [[ ${{line[CURRENT-1]}} = -f ]]; then
        _files
    else
        compadd -- ${{=words}}
    fi
}}
_penfoldctl \"$@\"
",
        choice("line", 2, "CURRENT")
    )
}

fn fish() -> String {
    let mut script = format!(
        "# Completes penfoldctl(8) in fish. Made by `penfoldctl completion fish`.
set -l commands {}
complete -c penfoldctl -f
complete -c penfoldctl -s f -r -F -d 'read this configuration'
complete -c penfoldctl -s h -l help -d 'show the options'
complete -c penfoldctl -n \"not __fish_seen_subcommand_from $commands\" -s V -l version -d 'show the version'
",
        names().collect::<Vec<_>>().join(" ")
    );
    for command in COMMANDS {
        let seen = format!("complete -c penfoldctl -n '__fish_seen_subcommand_from {}'", command.name);
        let about = command.about;
        // Writing to a string cannot fail.
        let _ = writeln!(
            script,
            "complete -c penfoldctl -n \"not __fish_seen_subcommand_from $commands\" -a {} -d '{about}'",
            command.name
        );
        for flag in command.flags {
            let long = if flag.long.is_empty() { String::new() } else { format!(" -l {}", flag.long) };
            let short = if flag.short.is_empty() { String::new() } else { format!(" -s {}", flag.short) };
            let value = if flag.hint.is_empty() { "" } else { " -r" };
            let _ = writeln!(script, "{seen}{short}{long}{value} -d '{}'", flag.about);
        }
        let more = match command.complete {
            Complete::Nothing => continue,
            Complete::Words(words) => words.join(" "),
            Complete::Commands => "$commands".into(),
            Complete::Ids => format!("({IDS})").replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"),
        };
        let _ = writeln!(script, "{seen} -a \"{more}\"");
    }
    script
}
